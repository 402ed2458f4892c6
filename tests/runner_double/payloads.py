"""The parts of event payloads that are read; whole ones are GitHub's own, in tests/unit/github."""

from __future__ import annotations

from typing import Any

REPOSITORY = "acme/digits"


def pull_request(head_sha: str, *, head: str = REPOSITORY, number: int = 7) -> dict[str, Any]:
    return {
        "action": "synchronize",
        "number": number,
        "pull_request": {
            "number": number,
            "state": "open",
            "head": {"sha": head_sha, "ref": "topic", "repo": {"full_name": head}},
            "base": {"ref": "main", "repo": {"full_name": REPOSITORY}},
        },
        "sender": {"login": "ada"},
    }


def push(sha: str) -> dict[str, Any]:
    return {"ref": "refs/heads/topic", "after": sha, "deleted": False, "sender": {"login": "ada"}}


def comment(body: str, author: str = "ada") -> dict[str, Any]:
    return {
        "action": "created",
        "issue": {"number": 7, "pull_request": {}},
        "comment": {"id": 1, "body": body, "user": {"login": author, "type": "User"}},
        "sender": {"login": author},
    }
