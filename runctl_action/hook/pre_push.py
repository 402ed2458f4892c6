"""The pre-push hook: nothing to say about most pushes, within a fifth of a second; of the others, would it train?

Imported before anything else of the product is: what only a selected commit takes is imported when there is one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, TextIO

from runctl_action.errors import RunctlError, SettingsError, SourceError, UsageError
from runctl_action.hook import selection
from runctl_action.hook.pushed import Pushed, read_lines, read_variables

if TYPE_CHECKING:
    from runctl_action.hook.check import Checked
    from runctl_action.hook.selection import Selected
    from runctl_action.source.repository import Repository

# A remote that hears nothing for six minutes hangs up: what is not checked by then is pushed unchecked.
_PATIENCE_SECONDS = 60.0
_OFF = frozenset({"", "0", "no", "false", "off"})


def run(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    stdin: IO[bytes] | None,
    out: TextIO,
    *,
    git: selection.Git = selection.run_git,
) -> int:
    """`arguments` are git's, the remote's name and URL. 0 lets the push through; 2 or 3 (settings, source) when a run
    of a pushed commit would be refused. What we cannot do ourselves is told and blocks nothing, unless hook.strict."""
    if environ.get("RUNCTL_SKIP", "").lower() not in _OFF:
        return 0
    selected: tuple[Selected, ...] = ()
    try:
        remote, url, refs = _read(arguments, environ, stdin)
        selected = selection.select(refs, git)
        return _look(selected, remote, url, environ, out) if selected else 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  - a defect of ours must not keep anybody from pushing
        return _give_up(error, selected, out)


def _read(
    arguments: Sequence[str], environ: Mapping[str, str], stdin: IO[bytes] | None
) -> tuple[str, str, tuple[Pushed, ...]]:
    """(remote's name, its URL, refs). pre-commit gives no arguments, and has read what git wrote."""
    if not arguments and "PRE_COMMIT_REMOTE_BRANCH" in environ:
        remote, url = environ.get("PRE_COMMIT_REMOTE_NAME", ""), environ.get("PRE_COMMIT_REMOTE_URL", "")
        return remote, url, read_variables(environ)
    if stdin is None or stdin.isatty():
        raise UsageError("`runctl-action hook run` is for git, which writes to it what is pushed", "git push")
    remote, url = [*arguments, "", ""][:2]
    return remote, url, read_lines(stdin.read())


def _look(selected: Sequence[Selected], remote: str, url: str, environ: Mapping[str, str], out: TextIO) -> int:
    import time
    from concurrent.futures import ThreadPoolExecutor
    from datetime import UTC, datetime
    from functools import partial

    from runctl_action.hook.listing import read_ordinary

    repository = _repository(environ)
    deadline, now = time.monotonic() + _PATIENCE_SECONDS, datetime.now(UTC)
    found: list[tuple[Selected, Checked]] = []
    code = 0
    with ThreadPoolExecutor(1) as pool:
        # git reads the first commit while Python imports pydantic: each takes a quarter of a second.
        ahead = pool.submit(read_ordinary, repository, selected[0].commit)
        from runctl_action.hook import check, telling

        for index, each in enumerate(selected):
            if time.monotonic() > deadline:
                _tell(out, [f"{len(selected) - index} more commits were not checked: it would take too long"])
                break
            ordinary = partial(read_ordinary, repository, each.commit) if index else ahead.result
            try:
                found.append((each, check.check(repository, each, environ, now, ordinary)))
            except (SettingsError, SourceError) as error:
                _tell(out, telling.refused(each, error))
                code = code or error.exit_code
    # An address without a name is what git gives for both.
    _tell(out, telling.accepted(found, "the remote" if remote == url else remote, now) if found else [])
    _tell(out, [line for _, checked in found for line in telling.warnings(checked)])
    asked = [each for each, _ in found if each.is_trained]
    if code or not asked:
        return code
    from runctl_action.hook import training

    return training.train(
        repository, asked, url, is_strict=any(each.is_strict for each in asked), tell=lambda lines: _tell(out, lines)
    )


def _repository(environ: Mapping[str, str]) -> Repository:
    """The hook's, opened as a run of ours would open it: without the variables that git sets for hooks. Raises
    UsageError where that leads elsewhere: `git --git-dir`, a bare repository."""
    from pathlib import Path

    from runctl_action.source.repository import open_repository

    try:
        found = open_repository(Path.cwd(), environ)
    except SourceError as error:
        raise UsageError(str(error), error.hint) from error
    own = os.fsdecode(selection.run_git(["rev-parse", "--git-common-dir"], b"")).removesuffix("\n")
    if not Path(own).samefile(found.git_dir):
        raise UsageError(
            f"the repository that is pushed, {own}, is not the one that git finds in {Path.cwd()}",
            "a run needs a working tree that git finds by itself: RUNCTL_SKIP=1 git push",
        )
    return found


def _give_up(error: Exception, selected: Sequence[Selected], out: TextIO) -> int:
    """What went wrong with us: a warning, and a failure only for who wants it so."""
    is_strict = any(each.is_strict for each in selected)
    if isinstance(error, RunctlError):
        lines = [*f"warning: nothing was checked: {error}".splitlines(), *([f"→ {error.hint}"] if error.hint else [])]
    else:
        lines = [f"warning: nothing was checked, a defect of ours, sorry: {error!r}", f"→ the details are in {_log()}"]
    _tell(out, [*lines, "→ hook.strict blocks it: git push --no-verify" if is_strict else "→ the push goes on"])
    return (error.exit_code if isinstance(error, RunctlError) else RunctlError.exit_code) if is_strict else 0


def _log() -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="runctl-action-", suffix=".log", delete=False) as file:
        file.write(traceback.format_exc())
    return file.name


def _tell(out: TextIO, lines: Sequence[str]) -> None:
    """Whoever reads it may have gone; the push is worth more than what we say of it. What is quoted of a commit must
    not steer the terminal."""
    import contextlib

    from runctl_action.report.visible import visible

    with contextlib.suppress(OSError, ValueError):
        out.write("".join(f"runctl-action: {visible(line)}\n" for line in lines))
        out.flush()
