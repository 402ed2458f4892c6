"""The comment, over HTTP, on a GitHub that is held to its own description."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from github_double import BOT, Clock, GitHub
from pydantic import SecretStr

from runctl_action.github.connection import Connection
from runctl_action.github.sticky import LIMIT, Sticky

Hand = Callable[..., Sticky]


def shown(github: GitHub) -> list[str]:
    """Our comments without their markers."""
    return [c.body.partition("\n")[2] for c in github.comments if c.author in {BOT, "ada"} and "key=" in c.body]


def test_one_comment_is_made_and_then_written_again(any_github: GitHub, hand: Hand, clock: Clock) -> None:
    comment = hand(any_github)
    made = comment.update("booting")
    clock.sleep(10)
    again = comment.update("training")
    final = comment.finish("done")
    assert [made.state, again.state, final.state] == ["written"] * 3
    assert shown(any_github) == ["done"]
    assert final.url == made.url == "https://github.example/acme/digits/pull/7#issuecomment-1"
    assert any_github.count("POST", "comments") == 1


def test_it_is_found_behind_250_comments_of_others(any_github: GitHub, hand: Hand) -> None:
    for number in range(250):
        any_github.says("ada", f"comment {number}")
    hand(any_github).finish("first")
    hand(any_github).finish("second")
    assert shown(any_github) == ["second"]
    assert {
        asked.query["per_page"] for asked in any_github.asked if asked.path.endswith("7/comments") and asked.query
    } == {"100"}


def test_a_users_token_finds_the_users_comment_and_not_the_bots(github: GitHub, hand: Hand) -> None:
    hand(github).finish("by the bot")
    hand(github, token="ghp_ada").finish("by ada")
    hand(github, token="ghp_ada").finish("by ada again")
    assert shown(github) == ["by the bot", "by ada again"]


def test_a_marker_that_somebody_copied_is_neither_written_over_nor_obeyed(github: GitHub, hand: Hand) -> None:
    hand(github, "run-9", minutes=60).finish("the newest")
    copied = github.says("mallory", github.comments.pop().body)
    before = copied.body
    assert hand(github).finish("ours").state == "written"
    assert copied.body == before
    assert shown(github) == ["ours"]


def test_a_marker_further_down_a_comment_of_ours_is_text(github: GitHub, hand: Hand) -> None:
    hand(github, "run-9", minutes=60).finish("the newest")
    github.says(BOT, "quoted:\n" + github.comments.pop().body)
    assert hand(github).finish("ours").state == "written"
    assert github.comments[0].body.startswith("quoted:")


def test_a_comment_of_a_deleted_user_is_passed_over(github: GitHub, hand: Hand) -> None:
    github.says("", "boo")
    assert hand(github).finish("done").state == "written"


def test_jobs_names_and_matrix_legs_have_comments_of_their_own(github: GitHub, hand: Hand) -> None:
    hands = [hand(github), hand(github, name="faces"), hand(github, leg='{"lr": 0.1}'), hand(github, leg='{"lr": 0.2}')]
    for number, comment in enumerate(hands):
        comment.update(f"{number} begins")
    for number, comment in enumerate(hands):
        comment.finish(f"{number} is done")
    assert shown(github) == [f"{number} is done" for number in range(4)]


def test_two_jobs_at_once_do_not_write_over_each_other(github: GitHub, hand: Hand) -> None:
    hands = [hand(github, f"run-{number}", name=f"name-{number}") for number in range(4)]
    _at_once([lambda c=c, n=n: (c.update(f"{n} begins"), c.finish(f"{n} is done")) for n, c in enumerate(hands)])
    assert sorted(shown(github)) == [f"{number} is done" for number in range(4)]


def test_of_two_that_made_a_comment_at_once_the_older_stays(github: GitHub, hand: Hand) -> None:
    """Both have looked and seen none before either makes one."""
    _both_look_first(github)
    _at_once([lambda: hand(github).finish("done"), lambda: hand(github).finish("done")])
    assert github.count("POST", "comments") == 2
    assert shown(github) == ["done"]
    assert [comment.id for comment in github.comments] == [1]


def test_of_two_runs_that_made_a_comment_at_once_the_newer_is_read(github: GitHub, hand: Hand) -> None:
    _both_look_first(github)
    _at_once([lambda: hand(github, "old").finish("old"), lambda: hand(github, "new", minutes=1).finish("new")])
    hand(github, "new", minutes=1).finish("new")
    assert shown(github) == ["new"]
    assert [comment.id for comment in github.comments] == [1]


def test_an_older_run_takes_back_what_it_made_when_a_newer_one_was_faster(github: GitHub, hand: Hand) -> None:
    """The newer run's comment appears after the older one's look, and before its writing."""
    hand(github, "new", minutes=1).finish("new")
    unseen = [github.comments.pop()]

    def appear(asked: Any) -> None:
        if asked.method == "POST" and asked.path.endswith("/comments"):
            github.comments.extend(unseen)

    github.before = appear
    assert hand(github, "old").finish("old").state == "superseded"
    assert shown(github) == ["new"]


def test_duplicates_that_were_left_go_with_the_next_write(github: GitHub, hand: Hand) -> None:
    hand(github).update("begins")
    github.says(BOT, github.comments[0].body)
    hand(github).finish("done")
    assert shown(github) == ["done"]


def test_an_older_run_does_not_write_over_a_newer_one(github: GitHub, hand: Hand, clock: Clock) -> None:
    old = hand(github, "old")
    old.update("old begins")
    newer = hand(github, "new", minutes=1).update("new begins")
    clock.sleep(10)
    posting = old.update("old goes on")
    assert (posting.state, posting.url, posting.is_shown) == ("superseded", newer.url, False)
    assert old.finish("old is done").state == "superseded"
    assert shown(github) == ["new begins"]


def test_what_is_said_late_does_not_write_over_the_end_but_a_new_attempt_does(github: GitHub, hand: Hand) -> None:
    hand(github).finish("failed", attempt=1)
    assert hand(github).update("training", attempt=1).state == "superseded"
    assert hand(github).update("training again", attempt=2).state == "written"
    assert shown(github) == ["training again"]


def test_the_same_text_is_not_written_again(github: GitHub, hand: Hand, clock: Clock) -> None:
    comment = hand(github)
    comment.update("training")
    asked = len(github.asked)
    clock.sleep(60)
    assert comment.update("training").state == "unchanged"
    assert len(github.asked) == asked
    comment.finish("done")
    assert hand(github).finish("done").state == "unchanged"
    assert len(github.writes()) == 2


def test_at_most_one_write_in_ten_seconds_and_the_newest_of_those_kept(
    github: GitHub, hand: Hand, clock: Clock
) -> None:
    comment = hand(github)
    states = []
    for second in range(25):
        states.append(comment.update(f"second {second}").state)
        clock.sleep(1)
    posting = comment.finish("done")
    writes = github.writes()
    assert states.count("written") == 3
    assert states[1] == "later"
    assert posting.state == "written"
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(writes))
    assert shown(github) == ["done"]


def test_what_was_kept_is_written_when_its_time_comes(github: GitHub, hand: Hand, clock: Clock) -> None:
    comment = hand(github)
    comment.update("booting")
    comment.update("syncing")
    comment.update("training")
    clock.sleep(9)
    assert comment.flush().state == "later"
    clock.sleep(1)
    assert comment.flush().state == "written"
    assert comment.flush().state == "written"
    assert shown(github) == ["training"]
    assert len(github.writes()) == 2


def test_the_last_word_does_not_wait_when_there_is_no_time(github: GitHub, hand: Hand, clock: Clock) -> None:
    comment = hand(github)
    comment.update("training")
    assert comment.finish("cancelled", patience_seconds=3).state == "written"
    assert clock.slept == []


def test_a_comment_that_was_deleted_meanwhile_is_made_anew(github: GitHub, hand: Hand, clock: Clock) -> None:
    comment = hand(github)
    comment.update("training")
    github.comments.clear()
    clock.sleep(10)
    assert comment.update("still training").state == "written"
    github.comments.clear()
    assert comment.finish("still training").state == "written"
    assert shown(github) == ["still training"]


def test_a_comment_that_is_deleted_between_look_and_write_is_made_anew(github: GitHub, hand: Hand) -> None:
    comment = hand(github)
    comment.update("training")

    def delete(asked: Any) -> None:
        if asked.method == "PATCH":
            github.comments.clear()

    github.before = delete
    assert comment.finish("done").state == "written"
    assert shown(github) == ["done"]


def test_a_body_at_the_limit_is_taken_and_one_beyond_it_is_not_sent(github: GitHub, hand: Hand) -> None:
    hand(github).finish("x")
    room = LIMIT - (len(github.comments[0].body) - 1)
    posting = hand(github).finish("é" * room)
    assert posting.state == "written"
    asked = len(github.asked)
    posting = hand(github).finish("é" * (room + 1))
    assert (posting.state, posting.is_shown) == ("too-long", False)
    assert len(github.asked) == asked


def test_a_body_that_github_finds_too_long_is_told(github: GitHub, hand: Hand) -> None:
    github.fails("POST", "/comments", 422, "too long")
    assert hand(github).finish("done").state == "too-long"


def test_a_body_that_is_not_unicode_is_written_all_the_same(github: GitHub, hand: Hand) -> None:
    assert hand(github).finish("weights-\udcff.pt").state == "written"
    assert shown(github) == ["weights-?.pt"]


def test_a_token_that_may_not_write_is_told_with_what_to_do(github: GitHub, hand: Hand) -> None:
    github.may_write = False
    posting = hand(github).finish("done")
    assert (posting.state, posting.is_shown) == ("forbidden", False)
    assert "Resource not accessible by integration" in posting.why
    assert "pull-requests: write" in posting.hint


def test_a_token_that_github_does_not_know_is_forbidden_and_not_printed(github: GitHub, hand: Hand) -> None:
    posting = hand(github, token="ghp_revoked").finish("done")
    assert posting.state == "forbidden"
    assert "ghp_revoked" not in repr(posting)


@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"retry_after": "7"}, [7]),
        ({"retry_after": "7", "x_ratelimit_remaining": "0", "x_ratelimit_reset": "1000100"}, [7]),
        ({"x_ratelimit_remaining": "0", "x_ratelimit_reset": "1000100"}, [101]),
        ({"x_ratelimit_remaining": "0", "x_ratelimit_reset": "soon"}, [60]),
        ({"retry_after": "soon"}, [60]),
        ({}, [60]),
    ],
)
def test_a_limit_is_waited_out_as_github_asks(
    github: GitHub, hand: Hand, clock: Clock, status: int, headers: dict[str, str], waits: list[float]
) -> None:
    github.fails("POST", "/comments", status, "You have exceeded a secondary rate limit. Wait.", **headers)
    assert hand(github).finish("done", patience_seconds=300).state == "written"
    assert clock.slept == waits


def test_a_limit_that_goes_on_is_asked_about_less_and_less(github: GitHub, hand: Hand, clock: Clock) -> None:
    github.fails("POST", "/comments", 403, "You have exceeded a secondary rate limit.", times=3)
    assert hand(github).finish("done", patience_seconds=600).state == "written"
    assert clock.slept == [60, 120, 240]


def test_the_hourly_limit_is_waited_out(github: GitHub, hand: Hand, clock: Clock) -> None:
    github.remaining, github.reset_at = 2, clock() + 90.5
    assert hand(github).finish("done").state == "written"
    assert clock.slept == [pytest.approx(91, abs=1)]


def test_a_limit_that_is_longer_than_there_is_time_is_not_waited_for(github: GitHub, hand: Hand, clock: Clock) -> None:
    github.fails("POST", "/comments", 429, "slow down", retry_after="3600")
    posting = hand(github).finish("cancelled", patience_seconds=3)
    assert (posting.state, posting.is_shown) == ("failed", False)
    assert "3600 s" in posting.why
    assert clock.slept == []


def test_a_limit_during_a_run_is_kept_to_without_holding_the_run(github: GitHub, hand: Hand, clock: Clock) -> None:
    github.fails("POST", "/comments", 403, "You have exceeded a secondary rate limit.", retry_after="40")
    comment = hand(github)
    assert comment.update("booting").state == "later"
    clock.sleep(39)
    asked = len(github.asked)
    assert comment.update("training").state == "later"
    assert len(github.asked) == asked
    clock.sleep(1)
    assert comment.flush().state == "written"
    assert shown(github) == ["training"]


@pytest.mark.parametrize("status", [500, 502, 503, None])
@pytest.mark.parametrize("method", ["GET", "PATCH", "POST"])
def test_a_failure_that_passes_is_not_noticed(github: GitHub, hand: Hand, method: str, status: int | None) -> None:
    if method == "PATCH":
        hand(github).update("training")
    github.fails(method, "/comments(/1)?", status, "oops", times=2)
    assert hand(github).finish("done").state == "written"
    assert shown(github) == ["done"]


@pytest.mark.parametrize("status", [502, None])
def test_a_comment_whose_making_was_not_answered_is_not_made_twice(
    github: GitHub, hand: Hand, status: int | None
) -> None:
    github.fails("POST", "/comments", status, "oops", after=True)
    assert hand(github).finish("done").state == "written"
    assert shown(github) == ["done"]
    assert github.count("POST", "/comments") == 1


@pytest.mark.parametrize("status", [502, None])
def test_a_failure_that_stays_is_given_up_and_told(
    github: GitHub, hand: Hand, clock: Clock, status: int | None
) -> None:
    github.fails("POST", "/comments", status, "oops", times=50)
    posting = hand(github).finish("done")
    assert posting.state == "failed"
    assert posting.why
    assert github.count("POST", "/comments") <= 4
    assert sum(clock.slept) <= 120


def test_an_answer_that_is_none_of_githubs_is_told(github: GitHub, hand: Hand) -> None:
    github.fails("GET", "/comments", 200, "a proxy's greeting")
    posting = hand(github).finish("done")
    github.problems.clear()
    assert posting.state == "failed"


def test_a_github_that_does_not_answer_holds_a_cancelled_job_no_longer_than_said(github: GitHub) -> None:
    """In real time: at least one second, because that is the smallest limit that a request can have."""
    is_over = threading.Event()
    github.before = lambda asked: is_over.wait(30) and None
    connection = Connection("acme/digits", SecretStr("ghs_action"), api_url=github.url)
    comment = Sticky(connection, 7, key="0" * 32, run_id="run", requested_at=datetime.now(UTC))
    posting = comment.finish("cancelled", patience_seconds=0.1)
    is_over.set()
    assert posting.state == "failed"


def _at_once(calls: list[Callable[[], Any]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _both_look_first(github: GitHub) -> None:
    barrier = threading.Barrier(2, timeout=10)

    def wait(asked: Any) -> None:
        if asked.method == "POST" and asked.path.endswith("/comments"):
            barrier.wait()

    github.before = wait
