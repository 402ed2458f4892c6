"""Training what is pushed: a launcher of its own is started, and goes on when the push, and the terminal, are gone.

The hook writes an order into .git/runctl/; the launcher reads it, and writes beside it whether the run was accepted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runctl_action.errors import RunctlError, SettingsError, SourceError
from runctl_action.hook import telling
from runctl_action.hook.place import Place, place_of
from runctl_action.hook.selection import Selected
from runctl_action.report.visible import visible
from runctl_action.source.repository import Repository

# A push waits no longer for its run's id; git has the connection open meanwhile.
_ANSWER_SECONDS = 7.0
# Pushing all branches at once must not start a fleet.
_MOST_RUNS = 4
_KEPT_LOGS = 20


class Order(NamedTuple):
    """What a launcher is to train, and on whose behalf. `args` are the trailer's, None for the settings' own."""

    commit: str
    branch: str
    args: str | None
    place: Place | None
    answer: Path

    @property
    def flags(self) -> dict[str, Any]:
        """Settings that win over the commit's own: what is pushed is trained, not what is on disk."""
        return {"source": "commit"} | ({} if self.args is None else {"args": self.args})


def train(
    repository: Repository,
    asked: Sequence[Selected],
    url: str,
    *,
    is_strict: bool,
    tell: Callable[[Sequence[str]], None],
) -> int:
    """Starts a launcher for each, and waits some seconds for their answers. 2 or 3 when a request was refused for what
    is in it; what AWS refused blocks a push only when it is to be strict."""
    if len(asked) > _MOST_RUNS:
        first = asked[0].commit[:12]
        tell(
            [
                f"warning: this push asks for {len(asked)} runs; more than {_MOST_RUNS} at once are not started",
                f"→ push fewer branches, name fewer in hook.branches, or: runctl-action train --revision {first}",
            ]
        )
        return 0
    folder = repository.git_dir / "runctl"
    folder.mkdir(mode=0o700, exist_ok=True)
    _remove_old_logs(folder)
    place = place_of([url, repository.origin_url()], repository.environ)
    launched = [_launch(repository, folder, each, place) for each in asked]
    deadline = time.monotonic() + _ANSWER_SECONDS
    try:
        codes = [_await(each, deadline, is_strict=is_strict, tell=tell) for each in launched]
    except KeyboardInterrupt:
        tell(["the push is cancelled, what it asked for is not: runctl-action list, then runctl-action stop RUN"])
        raise
    return next((code for code in codes if code), 0)


def read_order(path: Path) -> Order:
    """What `train` has written, for one launcher: it is gone afterwards."""
    found = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    place = Place(*found["place"]) if found["place"] else None
    return Order(found["commit"], found["branch"], found["args"], place, path.with_suffix(".answer"))


@contextlib.contextmanager
def answering(order: Order) -> Iterator[Callable[..., None]]:
    """Gives who launches `accept(run_id, is_new=…)`; what is raised before it was called is the answer."""
    answers: list[dict[str, Any]] = []

    def answer(**said: Any) -> None:
        if not answers:
            answers.append(said)
            partial = order.answer.with_suffix(".partial")
            partial.write_text(json.dumps(said), encoding="utf-8")
            partial.replace(order.answer)

    try:
        yield lambda run_id, *, is_new: answer(run_id=run_id, is_new=is_new)
    except RunctlError as error:
        answer(message=str(error), hint=error.hint, exit_code=error.exit_code)
        raise
    except Exception as error:
        answer(message=f"a defect of ours, sorry: {error!r}", hint="", exit_code=RunctlError.exit_code)
        raise


class _Launched(NamedTuple):
    selected: Selected
    process: subprocess.Popen[bytes]
    order: Path
    log: Path

    @property
    def answer(self) -> Path:
        return self.order.with_suffix(".answer")


def _launch(repository: Repository, folder: Path, selected: Selected, place: Place | None) -> _Launched:
    """In a session of its own, with none of our streams: the terminal can be closed, and git, or pre-commit, does not
    wait for it. `-P`, or a repository's own `json.py` would be imported."""
    base = folder / f"{selected.commit[:12]}-{os.urandom(4).hex()}"
    order, log = base.with_suffix(".order"), base.with_suffix(".log")
    # A name in bytes that are no text is one all the same, to git; not in a document of ours.
    branch = visible(next(ref.name for ref in selected.refs if ref.is_branch))
    said = {"commit": selected.commit, "branch": branch, "args": selected.args, "place": place}
    with open(order, "x", opener=_private, encoding="utf-8") as file:
        json.dump(said, file)
    with open(log, "xb", opener=_private) as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runctl_action", "hook", "launch", str(order.absolute())],
            cwd=repository.root,
            env=dict(repository.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=0o077,
        )
    return _Launched(selected, process, order, log)


def _await(launched: _Launched, deadline: float, *, is_strict: bool, tell: Callable[[Sequence[str]], None]) -> int:
    has_ended = False
    while not launched.answer.exists() and not has_ended and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            launched.process.wait(0.05)
            has_ended = True
    # It belongs to nobody from now on: Popen would warn that it is still running.
    launched.process.returncode = launched.process.returncode or 0
    log = visible(str(launched.log))
    try:
        answer = json.loads(launched.answer.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if has_ended:
            tell([f"warning: the launcher has ended without an answer: {log}", "→ the push goes on"])
            return RunctlError.exit_code if is_strict else 0
        tell([f"training: its launcher goes on in the background: {log}", "its run is soon in: runctl-action list"])
        return 0
    launched.answer.unlink(missing_ok=True)
    if "run_id" in answer:
        tell(telling.started(answer["run_id"], log, is_new=answer["is_new"]))
        return 0
    return _refused(launched.selected, answer, is_strict=is_strict, tell=tell)


def _refused(
    selected: Selected, answer: dict[str, Any], *, is_strict: bool, tell: Callable[[Sequence[str]], None]
) -> int:
    error = RunctlError(answer["message"], answer["hint"])
    is_input = answer["exit_code"] in {SettingsError.exit_code, SourceError.exit_code}
    if is_input or is_strict:
        tell(telling.refused(selected, error))
        return int(answer["exit_code"])
    hint = [f"→ {error.hint}"] if error.hint else []
    again = f"→ the push goes on; train it later: runctl-action train --revision {selected.commit[:12]}"
    tell([f"warning: {selected.commit[:12]} is not trained: {error}", *hint, again])
    return 0


def _remove_old_logs(folder: Path) -> None:
    logs = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    for path in logs[:-_KEPT_LOGS]:
        # With them an answer that came too late, and the order of a launcher that never was.
        for suffix in (".log", ".answer", ".order"):
            path.with_suffix(suffix).unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
