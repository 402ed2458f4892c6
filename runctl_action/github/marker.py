"""The hidden first line of a comment of ours: whose it is, and how new what it says is. Pure.

What names a comment is hashed: a workflow, a job or a run may be called `--> @everyone`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Only at the very beginning: below it stands what scripts and people wrote.
_LINE = re.compile(
    r"<!-- runctl-action:1 key=([0-9a-f]{32}) at=([0-9]{1,18}) run=([0-9a-f]{16}) attempt=([0-9]{1,9})"
    r" (running|final) -->(?:\r?\n|\Z)"
)


@dataclass(frozen=True, order=True)
class Stamp:
    """Ordered by age: of two comments, or of a comment and what is to be written, the greater one stays.
    A run's attempts come after each other; what is said at an attempt's end comes after all that was said before."""

    requested_at_microseconds: int
    run: str
    attempt: int
    is_final: bool


def key(*, workflow: str, job: str, leg: str, name: str) -> str:
    """What tells one comment of a pull request from the others; `leg` is the matrix leg, empty without a matrix."""
    return _hash([workflow, job, leg, name], 32)


def stamp(*, requested_at: datetime, run_id: str, attempt: int, is_final: bool) -> Stamp:
    """`requested_at` and `run_id` as in the run's spec, so that whoever settles the run gives it the same stamp."""
    return Stamp((requested_at - _EPOCH) // timedelta(microseconds=1), _hash([run_id], 16), attempt, is_final)


def write(key: str, stamp: Stamp) -> str:
    """One line of HTML comment, with its line end."""
    state = "final" if stamp.is_final else "running"
    at, run, attempt = stamp.requested_at_microseconds, stamp.run, stamp.attempt
    return f"<!-- runctl-action:1 key={key} at={at} run={run} attempt={attempt} {state} -->\n"


def read(text: str, key: str) -> Stamp | None:
    """The stamp of a comment's text; None where it is not the comment with this key."""
    found = _LINE.match(text)
    if found is None or found[1] != key:
        return None
    return Stamp(int(found[2]), found[3], int(found[4]), found[5] == "final")


def _hash(parts: list[str], digits: int) -> str:
    # As JSON, ["a", "bc"] and ["ab", "c"] differ; in ASCII, because what comes from a path may not be Unicode.
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode("ascii")).hexdigest()[:digits]
