"""What is looked up, and answered, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from github_double import Clock, GitHub, Pull

from runctl_action.github import pull_request
from runctl_action.github.connection import Connection, Forbidden, GitHubError, NotFound, TooLong, Unavailable
from runctl_action.github.pull_request import PullRequest

Connect = Callable[..., Connection]
SHA, OTHER = "a" * 40, "b" * 40


def test_a_commits_pull_request_is_the_newest_open_one_that_it_is_the_head_of(
    any_github: GitHub, connect: Connect
) -> None:
    any_github.pulls += [
        Pull(1, SHA, state="closed"),
        Pull(2, SHA),
        Pull(3, SHA),
        Pull(4, SHA, head="mallory/digits"),
        Pull(5, SHA, head=None),
        Pull(6, SHA, base="upstream/digits"),
        Pull(7, OTHER, commits=(SHA,)),
    ]
    found = pull_request.of_commit(connect(any_github), SHA)
    assert found == PullRequest(3, SHA, "topic", "acme/digits", is_fork=False, is_open=True)


def test_a_commit_further_down_a_pull_request_has_that_one(github: GitHub, connect: Connect) -> None:
    github.pulls += [Pull(7, OTHER, commits=(SHA,)), Pull(8, OTHER, commits=(SHA,))]
    found = pull_request.of_commit(connect(github), SHA)
    assert found is not None
    assert (found.number, found.head_sha) == (8, OTHER)


def test_a_commit_of_more_than_a_page_of_pull_requests(github: GitHub, connect: Connect) -> None:
    github.pulls += [Pull(number, SHA, state="closed") for number in range(1, 131)] + [Pull(131, SHA)]
    found = pull_request.of_commit(connect(github), SHA)
    assert found is not None
    assert found.number == 131


@pytest.mark.parametrize("pulls", [[], [Pull(1, SHA, state="closed")], [Pull(1, SHA, head="mallory/digits")]])
def test_a_commit_without_an_open_pull_request_has_none(github: GitHub, connect: Connect, pulls: list[Pull]) -> None:
    github.pulls += pulls
    assert pull_request.of_commit(connect(github), SHA) is None


def test_a_commit_that_github_does_not_have_has_none(github: GitHub, connect: Connect) -> None:
    """A pre-push hook asks before the push; GitHub answers 422 then, not 404."""
    github.fails("GET", "/pulls", 422, f"No commit found for SHA: {SHA}")
    assert pull_request.of_commit(connect(github), SHA) is None


def test_what_is_no_commit_is_not_asked_for(github: GitHub, connect: Connect) -> None:
    with pytest.raises(GitHubError):
        pull_request.of_commit(connect(github), "../../user")
    assert github.asked == []


@pytest.mark.parametrize(("head", "is_fork"), [("Acme/Digits", False), ("mallory/digits", True), (None, True)])
def test_a_pull_request_says_whose_code_it_is(
    github: GitHub, connect: Connect, head: str | None, is_fork: bool
) -> None:
    github.pulls.append(Pull(7, SHA, head=head, branch="$(reboot)"))
    found = pull_request.by_number(connect(github), 7)
    assert found == PullRequest(7, SHA, "$(reboot)", head, is_fork=is_fork, is_open=True)


def test_an_issue_is_no_pull_request(github: GitHub, connect: Connect) -> None:
    with pytest.raises(NotFound):
        pull_request.by_number(connect(github), 7)


def test_a_head_that_is_no_commits_id_is_not_passed_on(github: GitHub, connect: Connect) -> None:
    github.pulls.append(Pull(7, "HEAD; reboot"))
    with pytest.raises(GitHubError):
        pull_request.by_number(connect(github), 7)


@pytest.mark.parametrize(
    ("permission", "may"),
    [("admin", True), ("maintain", True), ("write", True), ("triage", False), ("read", False), ("none", False)],
)
def test_who_may_write_may_train(any_github: GitHub, connect: Connect, permission: str, may: bool) -> None:
    any_github.permissions["ada"] = permission
    assert pull_request.may_train(connect(any_github), "ada") is may


def test_a_bot_may_be_asked_about(github: GitHub, connect: Connect) -> None:
    github.permissions["deploy[bot]"] = "write"
    assert pull_request.may_train(connect(github), "deploy[bot]")


def test_a_stranger_may_not_train(github: GitHub, connect: Connect) -> None:
    assert not pull_request.may_train(connect(github), "mallory")


@pytest.mark.parametrize("login", ["", "ada/../../x", "ada?x=1", "ada\n", "a" * 101])
def test_what_is_no_login_may_not_train_and_is_not_asked_about(github: GitHub, connect: Connect, login: str) -> None:
    assert not pull_request.may_train(connect(github), login)
    assert github.asked == []


def test_a_permission_that_cannot_be_learnt_is_no_permission(github: GitHub, connect: Connect) -> None:
    github.fails("GET", "/permission", 403, "Resource not accessible by integration")
    with pytest.raises(Forbidden):
        pull_request.may_train(connect(github), "ada")
    github.fails("GET", "/permission", 502, "oops", times=10)
    with pytest.raises(Unavailable):
        pull_request.may_train(connect(github), "ada")


def test_a_reply_is_a_comment_of_its_own(any_github: GitHub, connect: Connect) -> None:
    any_github.says("ada", "/train")
    reply = pull_request.reply(connect(any_github), 7, "it is training")
    assert (any_github.comments[-1].id, any_github.comments[-1].body) == (reply, "it is training")


def test_a_reply_whose_answer_is_lost_is_not_given_twice(github: GitHub, connect: Connect) -> None:
    github.fails("POST", "/comments", None, after=True)
    with pytest.raises(Unavailable):
        pull_request.reply(connect(github), 7, "it is training")
    assert len(github.comments) == 1


def test_a_reply_that_is_refused_for_the_rate_is_given_later(github: GitHub, connect: Connect, clock: Clock) -> None:
    github.fails("POST", "/comments", 429, "slow down", retry_after="5")
    pull_request.reply(connect(github), 7, "it is training")
    assert len(github.comments) == 1
    assert clock.slept == [5]


def test_a_reply_beyond_the_limit_is_not_sent(github: GitHub, connect: Connect) -> None:
    with pytest.raises(TooLong):
        pull_request.reply(connect(github), 7, "x" * 65_537)
    assert github.asked == []


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 401, "message": "Bad credentials"},
        {"status": 403, "message": "\x1b[2J@everyone\n::error::"},
        {"status": 422, "message": "Validation Failed"},
        {"status": 429, "message": "slow down", "retry_after": "99999"},
        {"status": 500, "message": "oops", "times": 9},
        {"status": None, "times": 9},
    ],
)
def test_an_error_says_what_github_said_on_one_line_without_the_token(
    github: GitHub, connect: Connect, fault: dict[str, Any]
) -> None:
    github.fails("GET", "/pulls/7", **fault)
    connection = connect(github)
    with pytest.raises(GitHubError) as error:
        pull_request.by_number(connection, 7)
    chain = [error.value, error.value.__cause__]
    assert str(error.value).isprintable()
    assert not any("ghs_action" in f"{link} {link!r}" for link in [*chain, connection])
