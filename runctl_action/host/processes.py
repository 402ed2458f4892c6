"""Processes on the host: started in their own session, owned with all their descendants, ended for certain.

Linux: the host process is a subreaper, so a child that leaves its session still has us as its ancestor. Elsewhere
(macOS, for the emulator) there is no such thing: the process group is all that is known, best effort.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def own_descendants() -> None:
    """Makes this process the one that orphans below it fall back to."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: int, killable_first: bool = False
) -> subprocess.Popen[bytes]:
    """Starts `argv` in its own session, stdin empty, both streams to `output`. `killable_first` raises oom_score_adj:
    when memory runs out the kernel ends the training, not the one that reports it."""

    def before_exec() -> None:
        if killable_first:
            with contextlib.suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text("800")

    return subprocess.Popen(
        list(argv),
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=before_exec if sys.platform == "linux" else None,
    )


def descendants(pid: int) -> set[int]:
    """Every living process below `pid`, zombies left out."""
    if sys.platform != "linux":
        return set()
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry.name}/stat").read_bytes().rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def signal_all(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends `number` to the process, its group, and all that descends from us but was not in the group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
    for pid in descendants(os.getpid()) - {process.pid}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_leftovers(patience_seconds: float = 10) -> int:
    """Kills every descendant that is left, those that left their session too, and reaps them; how many there were."""
    ended: set[int] = set()
    deadline = time.monotonic() + patience_seconds
    while left := descendants(os.getpid()):
        ended |= left
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    _reap()
    return len(ended)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def oom_kills() -> int:
    """How many processes the kernel has killed for memory since boot (0 where it does not say)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
