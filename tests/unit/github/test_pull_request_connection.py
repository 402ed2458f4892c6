"""What a connection refuses to be made of, and what it shows of itself."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from runctl_action.errors import SettingsError
from runctl_action.github.connection import Connection, Patience, Unavailable

TOKEN = "ghs_very-secret"


def test_the_token_is_not_in_what_it_shows() -> None:
    connection = Connection("acme/digits", SecretStr(TOKEN))
    assert TOKEN not in f"{connection!r} {connection} {vars(connection)}"


@pytest.mark.parametrize(
    "repository", ["", "digits", "acme/", "acme/digits/x", "acme/..", "acme/digits?x", "acme/dig\nits"]
)
def test_what_is_no_repository_is_refused(repository: str) -> None:
    with pytest.raises(SettingsError) as error:
        Connection(repository, SecretStr(TOKEN))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("token", ["", f"{TOKEN}\n", f" {TOKEN}", f"{TOKEN}\r\nX-Evil: 1", f"{TOKEN}é"])
def test_a_token_that_no_header_takes_is_refused_and_not_printed(token: str) -> None:
    with pytest.raises(SettingsError) as error:
        Connection("acme/digits", SecretStr(token))
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize(
    "api_url", ["", "api.github.com", "file:///etc", "https://", "https://a:b@github.example/api/v3"]
)
def test_what_is_no_address_of_an_api_is_refused(api_url: str) -> None:
    with pytest.raises(SettingsError):
        Connection("acme/digits", SecretStr(TOKEN), api_url=api_url)


def test_patience_ends_and_nothing_is_waited_for_that_is_longer() -> None:
    now, slept = [100.0], []
    patience = Patience(10, lambda: now[0], slept.append)
    patience.wait(10, "limited")
    with pytest.raises(Unavailable) as error:
        patience.wait(10.5, "limited")
    assert error.value.retry_after_seconds == 10.5
    assert slept == [10]
    patience.check()
    now[0] += 10.1
    with pytest.raises(Unavailable):
        patience.check()
