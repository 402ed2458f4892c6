"""The double itself: what GitHub does not describe is noticed, in requests and in answers."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from github_double import GitHub

COMMENTS = "/repos/acme/digits/issues/7/comments"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{COMMENTS}?pages=2", None),
        ("GET", f"{COMMENTS}s", None),
        ("POST", COMMENTS, {"text": "x"}),
        ("POST", COMMENTS, {"body": 1}),
        ("POST", COMMENTS, {"body": "x", "colour": "red"}),
        ("POST", "/repos/acme/digits/issues/comments/1/reactions", {"content": "shrug"}),
        ("POST", "/graphql", {"query": "query { me }", "variables": {}}),
    ],
)
def test_a_request_that_github_does_not_describe_is_a_problem(method: str, path: str, body: Any) -> None:
    headers = {"authorization": "token ghs_action", "x-github-api-version": "2022-11-28"}
    with GitHub() as github:
        github.says("ada", "hello")
        requests.request(method, github.url + path, json=body, headers=headers, timeout=10)
        assert github.problems


def test_an_answer_that_github_does_not_describe_is_a_problem() -> None:
    headers = {"authorization": "token ghs_action", "x-github-api-version": "2022-11-28"}
    with GitHub() as github:
        github.fails("GET", "/comments", 200, "no list of comments")
        requests.get(github.url + COMMENTS, headers=headers, timeout=10)
        assert github.problems
