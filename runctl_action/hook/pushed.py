"""What a push is about to do, as git or pre-commit says it. Pure, and cheap to import: every push waits for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from runctl_action.errors import UsageError

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_BRANCHES = "refs/heads/"


class Pushed(NamedTuple):
    """One ref of a push. `local` is an object id, or (by pre-commit) a name of one; `known` the commit that the remote
    is known to have of it, None when it has none."""

    local: str
    remote_ref: str
    known: str | None

    @property
    def is_branch(self) -> bool:
        return self.remote_ref.startswith(_BRANCHES)

    @property
    def name(self) -> str:
        """The branch's name; of any other ref, the whole of it."""
        return self.remote_ref.removeprefix(_BRANCHES)


def read_lines(data: bytes) -> tuple[Pushed, ...]:
    """Of git's lines `<local ref> <local id> <remote ref> <remote id>`, those that are no deletions. Raises UsageError
    on anything else. A local ref may have spaces in it: `git push origin ':/two words:main'`."""
    found = []
    for line in os.fsdecode(data).split("\n"):
        if not line:
            continue
        parts = line.rsplit(" ", 3)
        if len(parts) != 4 or not parts[2] or not _OID.match(parts[1]) or not _OID.match(parts[3]):
            raise UsageError(f"this is no line of git's for a pre-push hook: {line[:200]!r}", "git push runs the hook")
        _, local, remote_ref, remote = parts
        if not _is_nothing(local):
            found.append(Pushed(local, remote_ref, None if _is_nothing(remote) else remote))
    return tuple(found)


def read_variables(environ: Mapping[str, str]) -> tuple[Pushed, ...]:
    """What pre-commit says of the one ref that it tells of: it has read git's lines itself. Without _TO_REF the remote
    is empty, and the branch is named alone."""
    remote_ref = environ.get("PRE_COMMIT_REMOTE_BRANCH", "")
    local = environ.get("PRE_COMMIT_TO_REF") or environ.get("PRE_COMMIT_LOCAL_BRANCH", "")
    if not remote_ref or not local or "\n" in local:
        return ()
    return (Pushed(local, remote_ref, environ.get("PRE_COMMIT_FROM_REF") or None),)


def _is_nothing(oid: str) -> bool:
    return not oid.strip("0")
