from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.errors import UsageError
from runctl_action.github.event import Answers, Ask, Ignore, PullRequest, Skip, Train, find_activity, what_is_trained
from runctl_action.github.payload import read_event

PAYLOADS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "payloads").glob("*.json")}
HEAD, MERGE, BASE = "a1" * 20, "b2" * 20, "c3" * 20
REFS = {
    "pull_request": "refs/pull/7/merge",
    "pull_request_review": "refs/pull/7/merge",
    "push": "refs/heads/larger-batches",
    "merge_group": "refs/heads/gh-readonly-queue/main/pr-7-c3c3",
}
SHAS = {"pull_request": MERGE, "pull_request_review": MERGE, "push": HEAD, "merge_group": HEAD}
FORK = {"id": 777, "full_name": "mallory/digits", "fork": True}
OUR_PULL_REQUEST = PullRequest(
    number=7,
    head_sha=HEAD,
    head_branch="larger-batches",
    head_repository="octo/digits",
    base_branch="main",
    is_fork=False,
)
THEIR_PULL_REQUEST = PullRequest(
    number=7, head_sha=HEAD, head_branch="x", head_repository="mallory/digits", base_branch="main", is_fork=True
)
WRITER = Answers(may_train=True, pull_request=OUR_PULL_REQUEST)


def environment(name, **changes):
    return {
        "GITHUB_EVENT_NAME": name,
        "GITHUB_REPOSITORY": "octo/digits",
        "GITHUB_ACTOR": "alice",
        "GITHUB_SHA": SHAS.get(name, BASE),
        "GITHUB_REF": REFS.get(name, "refs/heads/main"),
    } | changes


def event(name, *, shape=None, ref=None, actor="alice", **changes):
    """The event `name`, of the payload `shape`, with what is at these paths (a__b is a.b) changed."""
    payload = copy.deepcopy(PAYLOADS[shape or name])
    for path, value in changes.items():
        *way, last = path.split("__")
        place = payload
        for step in way:
            place = place[step]
        place[last] = value
    more = {"GITHUB_REF": ref} if ref else {}
    return read_event(environment(name, GITHUB_ACTOR=actor, **more), json.dumps(payload))


def comment(body, **changes):
    return event("issue_comment", comment__body=body, **changes)


def test_a_pull_request_trains_what_is_checked_out_the_merge_and_posts_to_itself():
    assert find_activity(event("pull_request")) == Train(
        reason="pull request #7, synchronize by alice",
        revision="HEAD",
        branch="larger-batches",
        pull_request=7,
    )


def test_a_push_trains_what_is_checked_out_and_looks_its_pull_request_up():
    assert find_activity(event("push")) == Train(
        reason="push to larger-batches by alice", branch="larger-batches", look_up=HEAD
    )


@pytest.mark.parametrize(
    ("name", "changes", "branch", "look_up"),
    [
        ("workflow_dispatch", {}, "main", BASE),
        ("schedule", {}, "main", None),
        ("merge_group", {}, "gh-readonly-queue/main/pr-7-c3c3", None),
        ("push", {"ref": "refs/tags/v1"}, None, None),
        ("repository_dispatch", {"shape": "schedule"}, "main", None),
        ("an_event_of_next_year", {"shape": "schedule"}, "main", None),
    ],
)
def test_whatever_else_a_workflow_file_asks_for_trains_what_is_checked_out(name, changes, branch, look_up):
    found = find_activity(event(name, **changes))
    assert isinstance(found, Train)
    assert (found.revision, found.branch, found.pull_request, found.look_up) == ("HEAD", branch, None, look_up)


def test_a_draft_is_trained_as_workflows_run_for_drafts():
    assert isinstance(find_activity(event("pull_request", pull_request__draft=True)), Train)


def test_a_pull_request_target_of_our_own_branch_trains_its_head_and_not_the_base_that_is_checked_out():
    found = find_activity(event("pull_request_target", shape="pull_request"))
    assert isinstance(found, Train)
    assert (found.revision, found.fetch) == (HEAD, "refs/pull/7/head")


@pytest.mark.parametrize("name", ["pull_request", "pull_request_target", "pull_request_review"])
@pytest.mark.parametrize("home", [FORK, None, {}, {"full_name": 7}, {"full_name": ""}])
def test_a_forks_code_is_never_trained_secrets_or_none(name, home):
    shape = name.replace("_target", "")
    for answers in (None, WRITER):
        found = find_activity(event(name, shape=shape, pull_request__head__repo=home), answers)
        assert isinstance(found, Skip)
        assert found.is_untrusted
        assert "fork" in found.reason


def test_our_own_repository_may_be_a_fork_itself_and_is_named_in_any_case():
    home = {"full_name": "Octo/Digits", "fork": True}
    assert isinstance(find_activity(event("pull_request", pull_request__head__repo=home)), Train)


def test_a_workflow_run_that_a_fork_caused_is_skipped_and_one_of_our_own_is_not():
    assert find_activity(event("workflow_run")).is_untrusted
    assert isinstance(
        find_activity(event("workflow_run", workflow_run__head_repository={"full_name": "octo/digits"})), Train
    )


@pytest.mark.parametrize("name", ["pull_request", "push", "schedule"])
def test_dependabot_has_no_credentials_so_nothing_is_trained(name):
    found = find_activity(event(name, actor="dependabot[bot]"))
    assert isinstance(found, Skip)
    assert found.is_untrusted


def test_somebody_who_pushes_to_dependabots_branch_trains_it():
    found = find_activity(event("pull_request", pull_request__user={"login": "dependabot[bot]", "type": "Bot"}))
    assert isinstance(found, Train)


def test_on_fork_decides_whether_a_skipped_fork_fails_and_nothing_else():
    assert Skip(reason="", is_untrusted=True).fails("fail")
    assert not Skip(reason="", is_untrusted=True).fails("skip")
    assert not Skip(reason="").fails("fail")


@pytest.mark.parametrize(
    "it",
    [
        ("delete", {}),
        ("push", {"deleted": True}),
        ("push", {"after": "0" * 40}),
        ("push", {"after": "0" * 64}),
        ("pull_request", {"action": "closed", "pull_request__state": "closed"}),
        ("pull_request", {"action": "closed", "pull_request__state": "closed", "pull_request__merged": True}),
    ],
)
def test_with_nothing_to_train_nothing_is_said(it):
    name, changes = it
    assert isinstance(find_activity(event(name, **changes)), Ignore)


def test_what_anybody_can_cause_trains_for_those_who_may_write():
    for name in ("pull_request_review", "issues"):
        asked = find_activity(event(name))
        assert asked == Ask(user=PAYLOADS[name]["sender"]["login"])
        assert isinstance(find_activity(event(name), Answers(may_train=True)), Train)
        refused = find_activity(event(name), Answers(may_train=False))
        assert isinstance(refused, Skip)
        assert refused.reply_to is None


def test_a_command_asks_first_and_then_trains_the_pull_requests_head_with_its_arguments():
    said = comment("/train --epochs 5")
    assert find_activity(said) == Ask(user="bob", pull_request=7)
    assert find_activity(said, WRITER) == Train(
        reason="/train of bob in pull request #7",
        revision=HEAD,
        fetch="refs/pull/7/head",
        branch="larger-batches",
        arguments=("--epochs", "5"),
        pull_request=7,
    )


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("/train", None),
        ("/train   ", None),
        ("\n /train --lr 0.1\r\nThanks!\n--epochs 9", ("--lr", "0.1")),
        (
            "/train --name 'two words' \"$HOME\" `id` *.py ~ $(id)",
            ("--name", "two words", "$HOME", "`id`", "*.py", "~", "$(id)"),
        ),
        ("/train --max-cost 100 --emulate", ("--max-cost", "100", "--emulate")),
        ("/train -- --epochs 5", ("--epochs", "5")),
        ("/train -- -- x", ("--", "x")),
        ("/train ''", ("",)),
        ("/train a#b #c", ("a#b", "#c")),
        ("/train a;b && c | d > e", ("a;b", "&&", "c", "|", "d", ">", "e")),
    ],
)
def test_arguments_are_the_scripts_split_as_a_shell_does_and_nothing_is_expanded(body, arguments):
    found = find_activity(comment(body), WRITER)
    assert isinstance(found, Train)
    assert found.arguments == arguments


@pytest.mark.parametrize("body", ["/train 'unbalanced", '/train "', "/train \\", "/train a\0b"])
def test_a_command_that_cannot_be_split_is_answered_with_the_reason(body):
    found = find_activity(comment(body), WRITER)
    assert isinstance(found, Skip)
    assert found.reply_to == 7
    assert "was not understood" in found.reason
    assert not found.fails("fail")


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ("LGTM", {}),
        ("", {}),
        (None, {}),
        ("Please /train", {}),
        ("> /train", {}),
        ("/training", {}),
        ("/Train", {}),
        ("/train", {"action": "edited"}),
        ("/train", {"action": "deleted"}),
        ("/train", {"comment__user": {"login": "runctl[bot]", "type": "Bot"}}),
        ("/train", {"comment__user": {"login": "github-actions", "type": "Bot"}}),
        ("/train", {"comment__user": None}),
        ("/train", {"comment__performed_via_github_app": {"id": 3}}),
        ("/train", {"issue__pull_request": None}),
    ],
)
def test_a_comment_that_is_no_new_command_of_a_person_on_a_pull_request_is_ignored(body, changes):
    for answers in (None, WRITER):
        assert isinstance(find_activity(comment(body, **changes), answers), Ignore)


def test_who_may_not_write_trains_nothing_and_gets_no_answer_whatever_they_wrote():
    for body in ("/train", "/train 'unbalanced"):
        for pull_request in (OUR_PULL_REQUEST, THEIR_PULL_REQUEST, None):
            found = find_activity(comment(body), Answers(may_train=False, pull_request=pull_request))
            assert isinstance(found, Skip)
            assert found.reply_to is None
            assert "bob has no permission" in found.reason


def test_an_author_association_is_no_permission():
    found = find_activity(comment("/train", comment__author_association="OWNER"), Answers(may_train=False))
    assert isinstance(found, Skip)


def test_a_command_on_a_forks_pull_request_is_refused_and_says_so():
    found = find_activity(comment("/train"), Answers(may_train=True, pull_request=THEIR_PULL_REQUEST))
    assert isinstance(found, Skip)
    assert (found.reply_to, found.is_untrusted) == (7, True)
    assert "mallory/digits" in found.reason


def test_a_command_on_dependabots_pull_request_is_its_authors_and_trains():
    assert isinstance(find_activity(comment("/train"), WRITER), Train)


def test_what_is_trained_is_said_of_the_merge_the_head_and_anything_else():
    pulled = event("pull_request")
    assert what_is_trained(pulled, pulled.pull_request, HEAD) == "the head of pull request #7"
    assert what_is_trained(pulled, pulled.pull_request, MERGE) == (
        "the merge of a1a1a1a1a1a1, the head of pull request #7, into main"
    )
    assert what_is_trained(pulled, pulled.pull_request, BASE) == (
        "what is checked out; a1a1a1a1a1a1 is the head of pull request #7"
    )
    assert what_is_trained(event("push"), None, HEAD) == ""
    assert what_is_trained(event("push"), OUR_PULL_REQUEST, HEAD) == "the head of pull request #7"
    assert what_is_trained(event("push"), None, BASE) == "what is checked out; the event is about a1a1a1a1a1a1"
    assert "checked out" in what_is_trained(comment("/train"), OUR_PULL_REQUEST, BASE)


def paths(value, way=()):
    yield way
    if isinstance(value, dict):
        for name, item in value.items():
            yield from paths(item, (*way, name))


def replaced(value, way, new):
    return new if not way else value | {way[0]: replaced(value[way[0]], way[1:], new)}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([*sorted(PAYLOADS), "pull_request_target", "release"])


@st.composite
def mangled(draw):
    payload = PAYLOADS[draw(st.sampled_from(sorted(PAYLOADS)))]
    for _ in range(draw(st.integers(0, 3))):
        payload = replaced(payload, draw(st.sampled_from(sorted(paths(payload)))), draw(json_values))
        if not isinstance(payload, dict):
            break
    return json.dumps(payload)


@given(names, mangled() | st.binary(max_size=50) | st.text(max_size=50), st.sampled_from([None, WRITER]))
def test_of_any_payload_comes_an_activity_or_an_error_of_one_sentence(name, payload, answers):
    try:
        activity = find_activity(read_event(environment(name), payload), answers)
    except UsageError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()
        assert len(str(error)) < 300
        return
    assert isinstance(activity, Train | Ask | Skip | Ignore)
    assert activity.reason.isprintable() if not isinstance(activity, Ask) else True


@given(mangled())
def test_no_mangled_payload_makes_a_forks_head_ours(payload):
    body = json.loads(payload)
    try:
        body["pull_request"]["head"]["repo"] = FORK
    except (TypeError, KeyError):
        return
    try:
        activity = find_activity(read_event(environment("pull_request_target"), json.dumps(body)), WRITER)
    except UsageError:
        return
    assert isinstance(activity, Skip)
