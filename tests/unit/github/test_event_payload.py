from __future__ import annotations

import json

import pytest

from runctl_action.errors import UsageError
from runctl_action.github.payload import matrix_leg, read_event, read_workflow

RUN = {
    "GITHUB_REPOSITORY": "octo/digits",
    "GITHUB_RUN_ID": "1658821493",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_WORKFLOW": "Train",
    "GITHUB_JOB": "train",
    "GITHUB_ACTION": "__octo_runctl-action",
}
EVENT = {"GITHUB_EVENT_NAME": "push", "GITHUB_REPOSITORY": "octo/digits", "GITHUB_SHA": "a" * 40}


def test_where_we_run_is_github_com_unless_the_runner_says_otherwise():
    workflow = read_workflow(RUN)
    assert workflow.api_url == "https://api.github.com"
    assert workflow.url == "https://github.com/octo/digits/actions/runs/1658821493/attempts/2"
    assert (workflow.name, workflow.job, workflow.step, workflow.leg) == ("Train", "train", "__octo_runctl-action", "")


def test_an_enterprise_server_has_its_own_addresses():
    workflow = read_workflow(
        RUN | {"GITHUB_API_URL": "https://git.example/api/v3/", "GITHUB_SERVER_URL": "https://git.example"}
    )
    assert workflow.api_url == "https://git.example/api/v3"
    assert workflow.url.startswith("https://git.example/octo/digits/actions/runs/")


@pytest.mark.parametrize(
    ("matrix", "leg"),
    [
        ("", ""),
        ("null", ""),
        ("{}", ""),
        ('{"size": "small", "lr": 0.1}', "lr=0.1, size=small"),
        ('{"lr": 0.1, "size": "small"}', "lr=0.1, size=small"),
        ('{"gpu": true, "of": {"b": [1, 2], "a": null}}', 'gpu=true, of={"a": null, "b": [1, 2]}'),
        ('{"bad\\nname": "\\u202e"}', "bad\\nname=\\u202e"),
        ("not json", "not json"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_leg_of_a_matrix_has_one_name_in_whatever_order_its_values_come(matrix, leg):
    assert matrix_leg(matrix) == leg


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GITHUB_REPOSITORY", "../etc"),
        ("GITHUB_REPOSITORY", "a/b/c"),
        ("GITHUB_RUN_ID", ""),
        ("GITHUB_RUN_ID", "１２"),
        ("GITHUB_RUN_ATTEMPT", "-1"),
        ("GITHUB_API_URL", "file:///etc"),
        ("GITHUB_API_URL", "https://user@api.example"),
        ("GITHUB_SERVER_URL", "https://[::1"),
        ("GITHUB_SERVER_URL", "https://a b"),
    ],
)
def test_a_variable_that_no_runner_sets_is_named(variable, value):
    with pytest.raises(UsageError, match=variable):
        read_workflow(RUN | {variable: value})


@pytest.mark.parametrize("missing", sorted(EVENT))
def test_outside_of_a_workflow_the_missing_variable_is_named(missing):
    with pytest.raises(UsageError, match=f"{missing} is not set"):
        read_event({name: value for name, value in EVENT.items() if name != missing}, "{}")


@pytest.mark.parametrize(
    "payload", ["", "[]", "null", "1" * 5000, "[" * 100_000, b"\xff\xfe", '{"a":', '"' + "x" * 500 + '"']
)
def test_a_payload_that_is_no_object_is_an_error_of_one_sentence(payload):
    with pytest.raises(UsageError, match="the event's payload is") as caught:
        read_event(EVENT, payload)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("number", True, "number is true"),
        ("number", 2**60, "whole number"),
        ("number", -7, "whole number"),
        ("head", {"sha": "HEAD", "ref": "x"}, r"head\.sha"),
        ("head", {"sha": "a" * 40, "ref": "x\ny"}, r"head\.ref"),
        ("head", {"sha": "a" * 40, "ref": "\ud800"}, r"head\.ref"),
        ("base", None, r"base\.ref is None"),
    ],
)
def test_a_pull_request_that_github_never_sends_is_refused_with_what_was_wrong(place, value, said):
    pull_request = {"number": 7, "head": {"sha": "a" * 40, "ref": "x"}, "base": {"ref": "main"}} | {place: value}
    with pytest.raises(UsageError, match=said) as caught:
        read_event(EVENT | {"GITHUB_EVENT_NAME": "pull_request"}, json.dumps({"pull_request": pull_request}))
    assert str(caught.value).isprintable()


def test_a_repository_of_sha256_has_longer_ids():
    assert read_event(EVENT | {"GITHUB_SHA": "a" * 64}, "{}").commit == "a" * 64
