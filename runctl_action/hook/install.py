"""The shim that git runs: written where git looks for hooks, beside whatever hook is there, and taken away again."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runctl_action.errors import UsageError
from runctl_action.source.repository import open_repository, run_git

NAME = "pre-push"
# The hook that was there before: the shim runs it first.
KEPT = f"{NAME}.before-runctl"
# A version says of itself what it was when it was written: any of ours is known, and one that was edited is told.
_HEAD = "#!/bin/sh\n# The pre-push hook of runctl-action, version 1. sha256 of what follows: "
_OURS = re.compile(
    r"#!/bin/sh\n# The pre-push hook of runctl-action, version \d+\. sha256 of what follows: (\w+)\n(.*)", re.DOTALL
)
_BODY = """\
#
# `runctl-action hook install` writes it, `runctl-action hook uninstall` takes it away; it can be copied as well. It
# runs the hook that was here before, if there was one (pre-push.before-runctl), then `runctl-action hook run`.
# Skipped by RUNCTL_SKIP=1, and with every other hook by `git push --no-verify`.

# Both read what git writes: one line for each ref that is pushed.
pushed=$(cat)
give() { if [ -n "$pushed" ]; then printf '%s\\n' "$pushed" 2>/dev/null; fi; }

before=$(dirname "$0")/pre-push.before-runctl
if [ -x "$before" ]; then
    give | "$before" "$@" || exit $?
fi
case ${RUNCTL_SKIP:-0} in
    0 | [Nn][Oo] | [Ff][Aa][Ll][Ss][Ee] | [Oo][Ff][Ff]) ;;
    *) exit 0 ;;
esac
# A worktree seldom has an environment of its own.
main=$(git rev-parse --git-common-dir 2>/dev/null)/..
for program in runctl-action .venv/bin/runctl-action venv/bin/runctl-action \\
    "$main/.venv/bin/runctl-action" "$main/venv/bin/runctl-action"; do
    if command -v "$program" >/dev/null 2>&1; then
        give | "$program" hook run "$@"
        exit $?
    fi
done
echo "runctl-action: this repository's pre-push hook needs it, and it is not on PATH, nor in .venv or venv." >&2
echo "  → install it: uv tool install runctl-action; push without: RUNCTL_SKIP=1 git push; remove the hook: rm '$0'" >&2
exit 2
"""
SHIM = f"{_HEAD}{hashlib.sha256(_BODY.encode()).hexdigest()}\n{_BODY}"

State = Literal["none", "current", "other version", "edited", "foreign"]


@dataclass(frozen=True)
class _Hooks:
    folder: Path
    hook: Path
    kept: Path
    is_dry: bool
    tell: Callable[[str], None]

    def do(self, what: str, action: Callable[[], object]) -> None:
        if not self.is_dry:
            action()
        self.tell(f"would {what}" if self.is_dry else what)


def install(cwd: Path, environ: Mapping[str, str], tell: Callable[[str], None], *, is_dry: bool = False) -> None:
    """Writes the shim; a hook that is there is kept and run first. Raises UsageError where that cannot be done without
    losing something, NotARepository."""
    hooks = _hooks(cwd, environ, tell, is_dry=is_dry)
    if hooks.folder.parent.name == ".husky" and hooks.folder.name == "_":
        raise UsageError(
            f"{hooks.folder} is written by husky, which would write over it",
            f'add this line to {hooks.folder.parent / NAME}: runctl-action hook run "$@"',
        )
    state = _state(hooks.hook)
    if state == "current":
        tell(f"{hooks.hook} is installed already")
        return
    if state == "edited":
        raise _edited(hooks.hook)
    if state == "foreign":
        if os.path.lexists(hooks.kept):
            raise UsageError(
                f"{hooks.hook} is somebody's, and {hooks.kept.name} beside it is one that was kept before",
                'put the two together, or add this line to the first: runctl-action hook run "$@"',
            )
        hooks.do(f"keep the hook that is there as {hooks.kept}; it runs first", lambda: hooks.hook.rename(hooks.kept))
    hooks.do(f"write {hooks.hook}", lambda: _write(hooks.hook))


def uninstall(cwd: Path, environ: Mapping[str, str], tell: Callable[[str], None], *, is_dry: bool = False) -> None:
    """Takes away what `install` wrote, of any version, and puts back what it kept. Raises UsageError for a shim that
    was edited, NotARepository."""
    hooks = _hooks(cwd, environ, tell, is_dry=is_dry)
    state = _state(hooks.hook)
    if state == "edited":
        raise _edited(hooks.hook)
    if state in {"none", "foreign"}:
        tell(f"{hooks.hook} is not ours: nothing to do" if state == "foreign" else f"there is no {hooks.hook}")
        legacy = hooks.hook.with_name(f"{NAME}.legacy")
        if _state(legacy) in {"current", "other version"}:
            tell(f"pre-commit keeps ours as {legacy}: pre-commit uninstall -t {NAME}, then this again")
        return
    hooks.do(f"remove {hooks.hook}", hooks.hook.unlink)
    if os.path.lexists(hooks.kept):
        hooks.do(f"put back {hooks.kept.name} as {hooks.hook}", lambda: hooks.kept.rename(hooks.hook))
    elif not hooks.folder.is_symlink() and {path.name for path in hooks.folder.iterdir()} <= {NAME}:
        # `install` made it: git's own has samples in it, and anybody else's a hook.
        hooks.do(f"remove {hooks.folder}, which is empty", hooks.folder.rmdir)


def _hooks(cwd: Path, environ: Mapping[str, str], tell: Callable[[str], None], *, is_dry: bool) -> _Hooks:
    """Where git looks for hooks: core.hooksPath, or the common folder of all worktrees."""
    repository = open_repository(cwd, environ)
    # Relative to the root: git runs hooks there, and core.hooksPath is relative to where they run.
    where = os.fsdecode(run_git(repository.root, repository.environ, "rev-parse", "--git-path", "hooks"))
    folder = repository.root / where.removesuffix("\n")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"core.hooksPath is {folder}, which is no folder", "git config --show-origin core.hooksPath")
    if (
        not folder.resolve().is_relative_to(repository.root.resolve())
        and repository.git_dir.resolve() not in folder.resolve().parents
    ):
        tell(f"note: core.hooksPath is {folder}: its hooks are those of every repository that has it so")
    return _Hooks(folder, folder / NAME, folder / KEPT, is_dry, tell)


def _state(path: Path) -> State:
    if not os.path.lexists(path):
        return "none"
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return "foreign"
    if text == SHIM:
        return "current"
    found = _OURS.match(text)
    if found is None:
        return "foreign"
    return "other version" if hashlib.sha256(found[2].encode()).hexdigest() == found[1] else "edited"


def _write(path: Path) -> None:
    """Whole or not at all: git may run it at this moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with open(partial, "x", opener=lambda name, flags: os.open(name, flags, 0o777), encoding="utf-8") as file:
        file.write(SHIM)
    partial.replace(path)


def _edited(path: Path) -> UsageError:
    return UsageError(
        f"{path} was ours and has been changed since", "keep your lines elsewhere, remove the file, and install again"
    )
