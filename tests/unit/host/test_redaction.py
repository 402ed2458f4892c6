"""Secrets are not in what goes on, however a program prints them and wherever its writes end."""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runctl_action.host.redaction import Redactor

SECRET = 'p4$$ w/ord+"quoted"\\x'
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\n  AASCBKcwggSjAgEAAoIBAQC7VJTUt9Us\nab\n-----END KEY-----\n"


def streamed(secrets: Iterable[str], *chunks: bytes) -> bytes:
    stream = Redactor(list(secrets)).stream()
    return b"".join([*map(stream.feed, chunks), stream.finish()])


@pytest.mark.parametrize(
    "printed",
    [
        SECRET,
        json.dumps({"key": SECRET}),
        repr([SECRET]),
        "https://x/?key=" + quote(SECRET),
        "https://x/?key=" + quote(SECRET, safe=""),
        "key=" + quote_plus(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        *("Basic " + base64.b64encode(f"{user}:{SECRET}:more".encode()).decode() for user in ("a", "ab", "abc")),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
    ],
)
def test_every_form_that_programs_print_is_taken_out(printed: str) -> None:
    found = Redactor([SECRET]).text(f"before {printed} after")
    assert "***" in found
    assert (found[:7], found[-6:]) == ("before ", " after")
    # Of base64 the characters at its ends may stay: they are of what stands around as well.
    assert max(map(len, found[7:-6].replace("https://x/?key=", "").split("***"))) <= 12


def test_a_long_secret_in_lines_of_base64_is_taken_out() -> None:
    secret = "".join(f"{n:03}-" for n in range(100))
    for width in (64, 76):
        printed = "\n".join(textwrap.wrap(base64.b64encode(secret.encode()).decode(), width))
        assert set(Redactor([secret]).text(printed)) <= set("*\n=") | set(printed[-8:])


def test_each_line_of_a_secret_is_taken_out_alone() -> None:
    redactor = Redactor([KEY])
    for line in KEY.split("\n"):
        if len(line.strip()) >= 4:
            assert redactor.text(f"<{line.strip()}>") == "<***>"
    assert redactor.text("cab") == "cab"  # what is shorter goes with the whole only
    assert redactor.text(f"<{KEY.strip()}>") == "<***>"


def test_the_lines_of_a_key_in_a_json_file_are_taken_out_alone() -> None:
    redactor = Redactor([json.dumps({"type": "service", "private_key": KEY, "nested": [{"token": "0123456789"}]})])
    assert redactor.text("MIIEvQIBADANBgkqhkiG9w0BAQEF") == "***"
    assert redactor.text("token 0123456789") == "token ***"
    assert redactor.text("a service") == "a service"


def test_of_two_secrets_that_overlap_nothing_stays() -> None:
    assert Redactor(["abcd1234", "1234efgh"]).text("<abcd1234efgh>") == "<***>"


def test_a_value_of_json_is_gone_through() -> None:
    redactor = Redactor(["12345678", "hunter2"])
    value = {"hunter2": ["a hunter2", 12345678, 1.5, None, True], "n": 123456789, "other": 7}
    assert redactor.value(value) == {"***": ["a ***", "***", 1.5, None, True], "n": "***", "other": 7}


def test_bytes_that_are_no_text_go_on_as_they_are() -> None:
    assert Redactor(["hunter2"]).data(b"\xff\xfehunter2\xff") == b"\xff\xfe***\xff"
    assert Redactor(["hunter2"]).text("caf\udce9 hunter2") == "caf\udce9 ***"


def test_nothing_is_kept_back_but_the_beginning_of_a_secret() -> None:
    stream = Redactor(["hunter2"]).stream()
    assert stream.feed(b"epoch 1\n") == b"epoch 1\n"
    assert stream.feed(b"the hunt") == b"the "
    assert stream.feed(b" goes on, hunter2") == b"hunt goes on, ***"
    assert stream.finish() == b""


def test_without_a_secret_everything_goes_on_at_once() -> None:
    assert Redactor().stream().feed(b"anything") == b"anything"


@given(
    st.lists(st.text("ab\n", min_size=4, max_size=7), min_size=1, max_size=3),
    st.lists(st.text("ab\n ", max_size=9), max_size=8),
)
@example(["aaaa"], ["aaa", "a", "aaa", "b"])
@example(["abab", "bbaa"], ["ab", "abb", "aa"])
def test_wherever_a_piece_ends_the_same_is_taken_out_as_of_the_whole(secrets: list[str], chunks: list[str]) -> None:
    whole, redactor = "".join(chunks), Redactor(secrets)
    found = streamed(secrets, *(chunk.encode() for chunk in chunks)).decode()
    # One that comes in two pieces may be told twice.
    assert _once(found) == _once(redactor.text(whole))
    assert not any(secret.strip() in found for secret in secrets if len(secret.strip()) >= 4)


def _once(text: str) -> str:
    while "******" in text:
        text = text.replace("******", "***")
    return text
