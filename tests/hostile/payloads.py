"""Events: JSON that GitHub never wrote, and heads of pull requests that are not ours."""

from __future__ import annotations

import json
from collections.abc import Mapping

_HEAD, _OURS = "a1" * 20, {"full_name": "octo/digits"}


def _pull_request(**changes: object) -> str:
    found = {
        "number": 7,
        "state": "open",
        "head": {"sha": _HEAD, "ref": "x", "repo": _OURS},
        "base": {"ref": "main", "repo": _OURS},
    }
    return json.dumps({"action": "opened", "sender": {"login": "mallory"}, "pull_request": found | changes})


def _comment(**changes: object) -> str:
    found = {"body": "/train", "user": {"login": "mallory", "type": "User"}}
    return json.dumps({"action": "created", "issue": {"number": 7, "pull_request": {}}, "comment": found | changes})


PAYLOADS: Mapping[str, str | bytes] = {
    "nothing": b"",
    "not utf-8": b'{"a": "\xff"}',
    "utf-16": '{"action": "opened"}'.encode("utf-16"),
    "half a payload": b'{"pull_request": {"number": 7',
    "two payloads": b"{}{}",
    "a list": b"[{}]",
    "a string": b'"pull_request"',
    "null": b"null",
    "nan": b'{"pull_request": {"number": NaN}}',
    "10,000 lists": b"[" * 10_000 + b"]" * 10_000,
    "10,000 objects": b'{"pull_request":' * 10_000 + b"1" + b"}" * 10_000,
    "500 objects": b'{"pull_request":' * 500 + b"1" + b"}" * 500,
    "digits without end": b'{"pull_request": {"number": ' + b"9" * 5_000 + b"}}",
    "4,000 digits": b'{"pull_request": {"number": ' + b"9" * 4_000 + b"}}",
    "a key twice": b'{"pull_request": {"number": 7}, "pull_request": null}',
    "a string for an object": json.dumps({"pull_request": "octo/digits", "sender": "alice", "comment": "/train"}),
    "a list for an object": json.dumps({"pull_request": [], "sender": [], "comment": [], "issue": []}),
    "a number for an object": json.dumps({"pull_request": 7, "workflow_run": 7, "comment": 7, "issue": 7}),
    "true for all": json.dumps(dict.fromkeys(("action", "sender", "pull_request", "deleted", "after"), True)),
    "a number for a text": _pull_request(head={"sha": 7, "ref": 7, "repo": {"full_name": 7}}),
    "a float for a number": _pull_request(number=7.0),
    "a negative number": _pull_request(number=-7),
    "no number": _pull_request(number=None),
    "a number as text": _pull_request(number="7"),
    "a revision for a commit": _pull_request(head={"sha": "HEAD", "ref": "x", "repo": _OURS}),
    "a flag for a commit": _pull_request(head={"sha": "--upload-pack=x", "ref": "x", "repo": _OURS}),
    "a command for a branch": _pull_request(head={"sha": _HEAD, "ref": "x\n::error::x", "repo": _OURS}),
    "a flag for a branch": _pull_request(head={"sha": _HEAD, "ref": "--upload-pack=x", "repo": _OURS}),
    "a state of another type": _pull_request(state=["closed"]),
    "an action that is a command": json.dumps({"action": "\r::error::x\x1b[2J"}),
    "a sender who is a path": json.dumps({"sender": {"login": "../../admin"}}),
    "a comment that is no text": _comment(body=["/train"]),
    "a comment of half a pair": _comment(body="/train \ud800"),
    "a comment that is long": _comment(body="/train " + "a " * 500_000),
    "a comment with a nul": _comment(body="/train a\0b"),
    "a comment of nobody": _comment(user=None),
    "a comment of a path": _comment(user={"login": "../../octo", "type": "User"}),
}

# A head that is not ours, as the payload's `head.repo`.
FORKS: Mapping[str, object] = {
    "fork": {"full_name": "mallory/digits", "fork": True},
    "fork that says it is none": {"full_name": "mallory/digits", "fork": False},
    "same name": {"full_name": "0cto/digits"},
    "longer name": {"full_name": "octo/digits2"},
    "shorter name": {"full_name": "octo/digit"},
    "name within": {"full_name": "mallory/octo-digits"},
    "line end": {"full_name": "octo/digits\n"},
    "space": {"full_name": " octo/digits"},
    "nul": {"full_name": "octo/digits\0"},
    "slash": {"full_name": "octo/digits/"},
    "up": {"full_name": "mallory/../octo/digits"},
    "fullwidth": {"full_name": "\uff4fcto/digits"},
    "cyrillic": {"full_name": "\u043ecto/digits"},
    "casefolds to ours": {"full_name": "octo/digit\u017f"},
    "list": {"full_name": ["octo/digits"]},
    "number": {"full_name": 7},
    "nothing": {"full_name": ""},
    "other keys": {"name": "digits", "owner": {"login": "octo"}, "html_url": "https://github.com/octo/digits"},
    "empty": {},
    "gone": None,
    "text": "octo/digits",
    "true": True,
}
