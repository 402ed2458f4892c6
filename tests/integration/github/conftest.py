"""A GitHub on this machine, time that nobody waits for, and hands on its comments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from runctl_action.github import marker
from runctl_action.github.connection import Connection
from runctl_action.github.sticky import Sticky

sys.path.insert(0, str(Path(__file__).parents[2]))

from github_double import Clock, GitHub

REQUESTED_AT = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["", "/api/v3"], ids=["github.com", "enterprise"])
def any_github(request: pytest.FixtureRequest, clock: Clock) -> Iterator[GitHub]:
    with GitHub(prefix=request.param, clock=clock) as github:
        yield github
    assert github.problems == []


@pytest.fixture
def github(clock: Clock) -> Iterator[GitHub]:
    with GitHub(clock=clock) as github:
        yield github
    assert github.problems == []


@pytest.fixture
def connect(clock: Clock) -> Callable[..., Connection]:
    """The repository as a token sees it; GITHUB_TOKEN unless said otherwise."""

    def make(github: GitHub, token: str = "ghs_action") -> Connection:
        return Connection(
            "acme/digits", SecretStr(token), api_url=github.url, clock=clock, sleep=clock.sleep, now=clock
        )

    return make


@pytest.fixture
def hand(connect: Callable[..., Connection]) -> Callable[..., Sticky]:
    """A run's hand on the comment of pull request 7; `minutes` is when it was requested."""

    def make(
        github: GitHub, run: str = "run-1", *, minutes: int = 0, name: str = "digits", leg: str = "", **token: str
    ) -> Sticky:
        key = marker.key(workflow="train", job="train", leg=leg, name=name)
        requested_at = REQUESTED_AT + timedelta(minutes=minutes)
        return Sticky(connect(github, **token), 7, key=key, run_id=run, requested_at=requested_at)

    return make
