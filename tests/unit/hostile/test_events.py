"""Of whatever the runner hands over comes an activity or an error of ours; and of a fork's, never a training."""

from __future__ import annotations

import json
import re

import pytest
from hostile import FORKS, NAMES, PAYLOADS, each, searched
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.errors import UsageError
from runctl_action.github.event import Answers, Ask, Ignore, PullRequest, Skip, Train, find_activity
from runctl_action.github.payload import read_event
from runctl_action.report.visible import visible

HEAD = "a1" * 20
OURS = "octo/digits"
EVENTS = (
    "pull_request", "pull_request_target", "pull_request_review", "pull_request_review_comment", "push", "issue_comment",
    "workflow_run", "workflow_dispatch", "schedule", "merge_group", "issues", "delete", "an_event_of_next_year",
)  # fmt: skip
OF_PULL_REQUESTS = tuple(name for name in EVENTS if name.startswith("pull_request"))
WRITER = Answers(
    may_train=True,
    pull_request=PullRequest(
        number=7, head_sha=HEAD, head_branch="x", head_repository=OURS, base_branch="main", is_fork=False
    ),
)
STRANGER = Answers(may_train=False)


def activity(name, payload, answers=None, **environ):
    """What is done for it; None where it is refused, in one sentence."""
    variables = {"GITHUB_EVENT_NAME": name, "GITHUB_REPOSITORY": OURS, "GITHUB_SHA": "b2" * 20} | environ
    try:
        found = find_activity(read_event(variables, payload), answers)
    except UsageError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 300
        assert error.hint
        return None
    assert isinstance(found, Train | Ask | Skip | Ignore)
    if isinstance(found, Train):
        assert re.fullmatch(r"HEAD|[0-9a-f]{40}", found.revision)
        assert found.fetch is None or re.fullmatch(r"refs/pull/[0-9]+/head", found.fetch)
        assert found.look_up is None or re.fullmatch(r"[0-9a-f]{40}", found.look_up)
    if not isinstance(found, Ask):
        assert found.reason == visible(found.reason)
    return found


def pull_request(repo, base=None, **changes):
    found = {"number": 7, "head": {"sha": HEAD, "ref": "x", "repo": repo}, "base": {"ref": "main", "repo": base}}
    return json.dumps({"action": "opened", "sender": {"login": "mallory"}, "pull_request": found | changes})


@pytest.mark.parametrize("payload", each(PAYLOADS))
def test_of_any_payload_comes_an_activity_or_a_refusal(payload):
    for name in EVENTS:
        for answers in (None, STRANGER, WRITER):
            activity(name, payload, answers)


@pytest.mark.parametrize("repo", each(FORKS))
@pytest.mark.parametrize("name", OF_PULL_REQUESTS)
def test_a_head_that_is_not_ours_is_never_trained(name, repo):
    for base in ({"full_name": OURS}, repo):
        for answers in (None, STRANGER, WRITER):
            found = activity(name, pull_request(repo, base), answers)
            assert isinstance(found, Skip)
            assert found.is_untrusted


@pytest.mark.parametrize("repo", each(FORKS))
def test_a_workflow_run_of_a_head_that_is_not_ours_is_never_trained(repo):
    found = activity("workflow_run", json.dumps({"workflow_run": {"head_repository": repo}}), WRITER)
    assert isinstance(found, Skip)
    assert found.is_untrusted


@pytest.mark.parametrize("repo", each(FORKS))
def test_a_base_that_is_not_ours_is_never_trained(repo):
    for name in OF_PULL_REQUESTS:
        assert isinstance(activity(name, pull_request({"full_name": OURS}, repo), WRITER), Skip)


def test_a_name_in_any_place_of_an_event_is_text_or_refused():
    for name in NAMES.values():
        head = {"sha": HEAD, "ref": name, "repo": {"full_name": OURS}}
        payload = pull_request(None, {"full_name": OURS}, head=head)
        for event in EVENTS:
            for ref in ("refs/heads/", "refs/tags/", ""):
                activity(event, payload, WRITER, GITHUB_REF=f"{ref}{name}", GITHUB_ACTOR=name)
                found = activity(
                    event, json.dumps({"action": name, "sender": {"login": name}}), GITHUB_REF=f"{ref}{name}"
                )
                if isinstance(found, Train):
                    assert found.branch is None or found.branch == visible(found.branch)


@pytest.mark.parametrize("name", each(NAMES, but=["newline", "newline and a pushed ref", "carriage return"]))
def test_a_command_in_a_comment_is_words_of_the_script_and_nothing_else(name):
    body = json.dumps(
        {
            "action": "created",
            "issue": {"number": 7, "pull_request": {}},
            "comment": {"body": f"/train {name}", "user": {"login": "bob", "type": "User"}},
        }
    )
    assert activity("issue_comment", body) == Ask(user="bob", pull_request=7)
    assert isinstance(activity("issue_comment", body, STRANGER), Skip)
    found = activity("issue_comment", body, WRITER)
    if isinstance(found, Train):
        assert (found.revision, found.fetch, found.branch) == (HEAD, "refs/pull/7/head", "x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
    | st.sampled_from([OURS, HEAD, "main", "closed", "created", "/train", "User", "Octo/Digits", "0" * 40]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["head", "base", "repo", "full_name", "sha", "ref", "number", "state", "user", "login", "type", "body"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
KEYS = ["pull_request", "workflow_run", "comment", "issue", "sender", "action", "deleted", "after", "head_repository"]
repositories = st.fixed_dictionaries({"full_name": st.text(st.characters(), max_size=12) | st.just(OURS)}) | json_values
pulls = st.fixed_dictionaries(
    {
        "number": st.integers(-1, 9),
        "head": st.fixed_dictionaries({"sha": st.just(HEAD), "ref": st.just("x"), "repo": repositories}),
        "base": st.fixed_dictionaries({"ref": st.just("main"), "repo": repositories}),
    }
)


@searched
@given(
    st.sampled_from(EVENTS),
    st.dictionaries(st.sampled_from(KEYS), json_values, max_size=5),
    st.none() | pulls,
    st.sampled_from([None, STRANGER, WRITER]),
)
def test_no_payload_makes_a_training_of_a_head_that_is_not_ours(name, body, pull, answers):
    if pull is not None:
        body["pull_request"] = pull
    found = activity(name, json.dumps(body), answers)
    said = body.get("pull_request")
    if isinstance(found, Train) and isinstance(said, dict) and name != "issue_comment":
        for side in ("head", "base"):
            assert said[side]["repo"]["full_name"].lower() == OURS
    if isinstance(found, Train) and name == "workflow_run":
        assert body["workflow_run"]["head_repository"]["full_name"].lower() == OURS


@searched
@given(st.text(st.characters(), max_size=20), st.sampled_from(OF_PULL_REQUESTS), st.sampled_from([None, WRITER]))
def test_whatever_a_fork_is_called_it_is_not_ours(full_name, name, answers):
    if full_name.lower() != OURS:
        for base in (OURS, full_name):
            found = activity(name, pull_request({"full_name": full_name}, {"full_name": base}), answers)
            assert isinstance(found, Skip)
