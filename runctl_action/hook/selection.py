"""Which commits of a push are of interest, by what stands in them. Every push waits for it: one git process, and only
the standard library; whether the settings are right is looked at later, and only for a commit that is selected."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from runctl_action.errors import SourceError
from runctl_action.hook.pushed import Pushed

_FILES = ("runctl.toml", "pyproject.toml")
# What begins a table of ours: a file that only other tools read is not even parsed, and may be as broken as it likes.
_TOOL, _RUNCTL = rb"[\"']?tool[\"']?", rb"[\"']?runctl[\"']?"
_TABLE = re.compile(
    rb"^[ \t]*(?:\[\[?[ \t]*%b[ \t]*\.[ \t]*%b[ \t]*[\].]|(?:%b[ \t]*\.[ \t]*)?%b[ \t]*[.=]|%b[ \t]*=[^\n]*runctl)"
    % (_TOOL, _RUNCTL, _TOOL, _RUNCTL, _TOOL),
    re.MULTILINE,
)
_TRAILER = re.compile(rb"^train[ \t]*:", re.MULTILINE | re.IGNORECASE)
_YES, _NO = {"", "yes", "true", "on"}, {"no", "false", "off", "never"}


class Selected(NamedTuple):
    """A commit that is pushed to `refs` and has settings; `files` are the settings' files as they are in it. `args` are
    those of its trailer, None where it names none."""

    commit: str
    refs: tuple[Pushed, ...]
    files: dict[str, bytes]
    is_trained: bool
    is_strict: bool
    args: str | None = None


# Runs `git ARGUMENTS` with this stdin: what it printed.
Git = Callable[[Sequence[str], bytes], bytes]


def select(refs: Sequence[Pushed], git: Git) -> tuple[Selected, ...]:
    """The commits to check or train, each once, in the order of the push. Raises SourceError with git's own words."""
    found: dict[str, Selected] = {}
    for ref, (commit, message, files) in zip(refs, _read(refs, git), strict=True):
        selected = _selected(ref, commit, message, files, git) if commit and files else None
        if selected is None:
            continue
        before = found.get(selected.commit)
        if before is not None:
            selected = before._replace(refs=(*before.refs, ref), is_trained=before.is_trained or selected.is_trained)
        found[selected.commit] = selected
    return tuple(found.values())


def run_git(arguments: Sequence[str], stdin: bytes) -> bytes:
    """In the repository that the hook was started for, as git's own environment names it. Raises SourceError."""
    try:
        done = subprocess.run(["git", *arguments], input=stdin, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise SourceError("git is not on PATH", "install git") from error
    if done.returncode:
        raise SourceError(os.fsdecode(done.stderr).strip() or f"git ended with {done.returncode}")
    return done.stdout


def read_objects(names: Sequence[str], git: Git) -> list[tuple[str, bytes, bytes] | None]:
    """(object id, kind, contents) of each, by one git process; None where there is none. No name has a line break."""
    out = git(["cat-file", "--batch"], os.fsencode("".join(f"{name}\n" for name in names)))
    found: list[tuple[str, bytes, bytes] | None] = []
    position = 0
    for _ in names:
        end = out.index(b"\n", position)
        header = out[position:end].split(b" ")
        position = end + 1
        # "<what was asked for> missing", or "ambiguous"
        if len(header) != 3 or not header[2].isdigit() or header[1] not in {b"blob", b"commit", b"tree", b"tag"}:
            found.append(None)
            continue
        size = int(header[2])
        found.append((header[0].decode(), header[1], out[position : position + size]))
        position += size + 1
    return found


def _selected(ref: Pushed, commit: str, message: bytes, files: dict[str, bytes], git: Git) -> Selected | None:
    """None for what a push has no business with: no settings, none for this branch, or no script in them."""
    unread = Selected(commit, (ref,), files, is_trained=False, is_strict=False)
    try:
        settings = _settings(files)
    except (ValueError, RecursionError):
        return unread  # the check says what is wrong with it
    if settings is None:
        return None
    hook = settings.get("hook", {})
    if not isinstance(hook, dict):
        return unread
    mode, strict, globs = hook.get("mode", "check"), hook.get("strict") is True, hook.get("branches", ["*"])
    if mode == "off" or not ("script" in settings or hook):
        return None
    if isinstance(globs, str):
        globs = re.split(r"[,\n]", globs)
    if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
        return unread
    matches = any(fnmatch.fnmatchcase(ref.name, glob.strip()) for glob in globs)
    trailer = _trailer(commit, git) if ref.is_branch and _TRAILER.search(message) else None
    word = trailer.lower() if trailer is not None else None
    asks = word is not None and word not in _NO
    if not matches and not asks:
        return None
    is_trained = ref.is_branch and (asks or (mode == "train" and word is None))
    return Selected(commit, (ref,), files, is_trained, strict, trailer if asks and word not in _YES else None)


def _settings(files: dict[str, bytes]) -> dict[str, Any] | None:
    """Raw; None where there are none. Raises ValueError for a file of ours that cannot be read."""
    import tomllib

    own, shared = files.get("runctl.toml"), files.get("pyproject.toml", b"")
    if own is not None:
        return tomllib.loads(own.decode("utf-8"))
    if not _TABLE.search(shared):
        return None
    tool = tomllib.loads(shared.decode("utf-8")).get("tool")
    table = tool.get("runctl") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ValueError("[tool.runctl] is no table")
    return table


def _trailer(commit: str, git: Git) -> str | None:
    """The value of the last `Train:` among the message's trailers, as git reads them; None without one."""
    form = "--format=%(trailers:key=Train,unfold=true)"
    out = os.fsdecode(git(["show", "--no-patch", "--no-show-signature", form, commit], b""))
    lines = [line for line in out.split("\n") if line.strip()]
    return lines[-1].partition(":")[2].strip() if lines else None


_Read = tuple[str, bytes, dict[str, bytes]]


def _read(refs: Sequence[Pushed], git: Git) -> list[_Read]:
    """(commit, its message, settings' files) of each ref; no commit where it leads to none, as a tag of a tree."""
    if not refs:
        return []
    names = [f"{ref.local}{rest}" for ref in refs for rest in ("^{commit}", *(f":{file}" for file in _FILES))]
    objects = read_objects(names, git)
    found: list[_Read] = []
    for index in range(0, len(names), 3):
        commit, *blobs = objects[index : index + 3]
        oid, message = (commit[0], commit[2].partition(b"\n\n")[2]) if commit and commit[1] == b"commit" else ("", b"")
        files = {file: blob[2] for file, blob in zip(_FILES, blobs, strict=True) if blob and blob[1] == b"blob"}
        found.append((oid, message, files))
    return found
