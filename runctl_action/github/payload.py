"""Reads what the runner hands over: GITHUB_* variables and the event's JSON. Pure; both are held for untrusted.

Every error is a UsageError of one sentence: what was read, and what was expected there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from runctl_action import parsing
from runctl_action.errors import UsageError
from runctl_action.github.event import Comment, Event, PullRequest
from runctl_action.report.wording import visible

_OBJECT_ID = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_REPOSITORY = re.compile(r"[A-Za-z0-9_-]{1,100}/(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,100}\Z")
# Also of managed users (octo_company) and of apps (renovate[bot]); it becomes part of a URL.
_LOGIN = re.compile(r"[A-Za-z0-9_-]{1,100}(?:\[bot\])?\Z")
_NAME = re.compile(r"[a-z0-9_]{1,100}\Z")
_LARGEST_NUMBER = 2**53
_HINT = "this command is what the action's container runs, in a GitHub Actions workflow"


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """Where we run: one step of one job of one workflow run. `leg` is "" outside a matrix; `lr=0.1, size=small`
    inside. `step` tells two steps of a job apart: its id, or a name that the runner made."""

    repository: str
    api_url: str
    server_url: str
    run_id: int
    run_attempt: int
    name: str
    job: str
    step: str
    leg: str

    @property
    def url(self) -> str:
        return f"{self.server_url}/{self.repository}/actions/runs/{self.run_id}/attempts/{self.run_attempt}"


def read_workflow(environ: Mapping[str, str]) -> Workflow:
    """From GITHUB_* and the undocumented input `matrix`, whose default is `${{ toJSON(matrix) }}` (action.yml)."""
    return Workflow(
        repository=_matching(environ.get("GITHUB_REPOSITORY"), _REPOSITORY, "GITHUB_REPOSITORY", "an owner/name"),
        api_url=_url(environ, "GITHUB_API_URL", "https://api.github.com"),
        server_url=_url(environ, "GITHUB_SERVER_URL", "https://github.com"),
        run_id=_digits(environ, "GITHUB_RUN_ID"),
        run_attempt=_digits(environ, "GITHUB_RUN_ATTEMPT", "1"),
        name=visible(environ.get("GITHUB_WORKFLOW", "")),
        job=visible(environ.get("GITHUB_JOB", "")),
        step=visible(environ.get("GITHUB_ACTION", "")),
        leg=matrix_leg(environ.get("INPUT_MATRIX", "")),
    )


def matrix_leg(matrix: str) -> str:
    """`lr=0.1, size=small` of the JSON of a matrix context, in the order of the names; "" where there is none."""
    try:
        values = json.loads(matrix or "null")
    except (ValueError, RecursionError):
        values = matrix
    if not isinstance(values, dict):
        return "" if values is None else visible(str(matrix))
    return ", ".join(f"{visible(name)}={_written(value)}" for name, value in sorted(values.items()))


def read_event(environ: Mapping[str, str], payload: bytes | str) -> Event:
    """The facts of the event whose JSON, the file at GITHUB_EVENT_PATH, is `payload`."""
    name = _matching(environ.get("GITHUB_EVENT_NAME"), _NAME, "GITHUB_EVENT_NAME", "an event's name")
    repository = _matching(environ.get("GITHUB_REPOSITORY"), _REPOSITORY, "GITHUB_REPOSITORY", "an owner/name")
    body = _json(payload)
    ref = environ.get("GITHUB_REF", "")
    needs_pull_request = name in {"pull_request", "pull_request_target"}
    found = body.get("pull_request")
    return Event(
        name=name,
        action=visible(_text(body.get("action"))),
        actor=_login(environ.get("GITHUB_ACTOR")),
        sender=_login(_at(body, "sender", "login")),
        commit=_matching(environ.get("GITHUB_SHA"), _OBJECT_ID, "GITHUB_SHA", "a commit's id"),
        branch=_ref_name(ref, "refs/heads/"),
        tag=_ref_name(ref, "refs/tags/"),
        pull_request=_pull_request(found, repository) if needs_pull_request or isinstance(found, dict) else None,
        comment=_comment(body) if name == "issue_comment" else None,
        is_deletion=name == "delete" or (name == "push" and _is_deletion(body)),
        is_of_a_fork=name == "workflow_run" and _is_of_a_fork(body, repository),
    )


def _pull_request(found: object, repository: str) -> PullRequest:
    home = _at(found, "head", "repo", "full_name")
    base = _at(found, "base", "repo", "full_name")
    # What can't be read is a stranger's.
    head_repository = home if isinstance(home, str) and _REPOSITORY.match(home) else None
    return PullRequest(
        number=_number(_at(found, "number"), "the pull request's number"),
        head_sha=_matching(_at(found, "head", "sha"), _OBJECT_ID, "the pull request's head.sha", "a commit's id"),
        head_branch=_branch(_at(found, "head", "ref"), "the pull request's head.ref"),
        head_repository=head_repository,
        base_branch=_branch(_at(found, "base", "ref"), "the pull request's base.ref"),
        is_fork=not (_is_named(home, repository) and _is_named(base, repository)),
        is_open=_at(found, "state") != "closed",
    )


def _comment(body: Mapping[str, Any]) -> Comment:
    author = _login(_at(body, "comment", "user", "login"))
    by_an_app = _at(body, "comment", "performed_via_github_app") is not None
    is_bot = _at(body, "comment", "user", "type") != "User" or author.endswith("[bot]") or by_an_app
    return Comment(
        number=_number(_at(body, "issue", "number"), "the issue's number"),
        is_on_pull_request=isinstance(_at(body, "issue", "pull_request"), dict),
        author=author,
        is_of_a_bot=is_bot or not author,
        # Half a surrogate pair, which JSON can spell, is no text that could be sent on.
        body=_text(_at(body, "comment", "body")).encode("utf-8", "replace").decode(),
    )


def _is_deletion(body: Mapping[str, Any]) -> bool:
    after = body.get("after")
    return body.get("deleted") is True or (isinstance(after, str) and bool(after) and not after.strip("0"))


def _is_of_a_fork(body: Mapping[str, Any], repository: str) -> bool:
    return not _is_named(_at(body, "workflow_run", "head_repository", "full_name"), repository)


def _is_named(value: object, repository: str) -> bool:
    """In any case. A letter of another alphabet that folds to one of ours is another name."""
    return isinstance(value, str) and bool(_REPOSITORY.match(value)) and value.casefold() == repository.casefold()


def _json(payload: bytes | str) -> dict[str, Any]:
    try:
        body = json.loads(payload)
    # Deep nesting, too many digits, bytes that are no text: none of it did GitHub write.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the event's payload is no JSON that can be read: {visible(str(error))}", _HINT) from None
    if not isinstance(body, dict):
        raise UsageError(f"the event's payload is {parsing.shown(body)}, not a JSON object", _HINT)
    return body


def _at(value: object, *names: str) -> Any:
    """What is at this path; None where there is no such path."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _login(value: object) -> str:
    return value if isinstance(value, str) and _LOGIN.match(value) else ""


def _matching(value: object, pattern: re.Pattern[str], what: str, expected: str) -> str:
    if isinstance(value, str) and pattern.match(value):
        return value
    seen = "not set" if value is None else visible(parsing.shown(value))
    raise UsageError(f"{what} is {seen}: expected {expected}", _HINT)


def _number(value: object, what: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST_NUMBER:
        return value
    raise UsageError(f"{what} is {visible(parsing.shown(value))}: expected a whole number above 0", _HINT)


def _branch(value: object, what: str) -> str:
    if isinstance(value, str) and value and value == visible(value) and len(value) <= 255 and " " not in value:
        return value
    raise UsageError(f"{what} is {visible(parsing.shown(value))}: expected a branch's name", _HINT)


def _ref_name(ref: str, prefix: str) -> str | None:
    return visible(ref.removeprefix(prefix)) if ref.startswith(prefix) else None


def _digits(environ: Mapping[str, str], name: str, default: str = "") -> int:
    written = environ.get(name) or default
    if re.fullmatch(r"[0-9]{1,16}", written):
        return int(written)
    raise UsageError(f"{name} is {visible(parsing.shown(written)) if written else 'not set'}: expected a number", _HINT)


def _url(environ: Mapping[str, str], name: str, default: str) -> str:
    written = (environ.get(name) or default).rstrip("/")
    try:
        parts = urlsplit(written)
        is_one = parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.username is None
    except ValueError:
        is_one = False
    if is_one and re.fullmatch(r"[!-~]+", written):
        return written
    raise UsageError(f"{name} is {visible(parsing.shown(written))}: expected a URL like {default}", _HINT)


def _written(value: object) -> str:
    return visible(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
