"""One process from start to end: its output, its limits, its true ending."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runctl_action.contract.documents import Cause, Outcome
from runctl_action.host import processes
from runctl_action.host.journal import Journal

Ending = Literal["", "stopped", "max-duration", "hung", "spot-reclaimed", "budget", "host-stopped"]
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or the signal that killed it; `because` when we ended it.
    `killed_at` (seconds since the epoch) is when we began to."""

    exit_code: int | None
    signal: int | None
    because: Ending
    is_out_of_memory: bool
    killed_at: float | None


@dataclass
class Limits:
    """0 is no limit. `progressed_at` (monotonic) is when the last checkpoint changed; `budget_left` is in seconds."""

    max_seconds: float = 0
    hang_seconds: float = 0
    grace_seconds: float = 60
    budget_left: Callable[[], float] = lambda: float("inf")
    progressed_at: Callable[[], float] = lambda: 0.0


class Supervised:
    """Runs a process to its end. `end(because)` may be called from any thread (stop, spot notice). `on_hang` looks at
    a process that hangs, before it is ended for it."""

    def __init__(
        self, journal: Journal, phase: str, limits: Limits, *, on_hang: Callable[[], None] = lambda: None
    ) -> None:
        self._on_hang = on_hang
        self._journal = journal
        self._phase = phase
        self._limits = limits
        self._asked: Ending = ""
        self._lock = threading.Lock()
        self._last_output = time.monotonic()

    def end(self, because: Ending) -> None:
        """Asks for the end: SIGTERM, the grace, SIGKILL. The first reason stays."""
        with self._lock:
            self._asked = self._asked or because

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        is_training: bool = False,
    ) -> Ended:
        """Starts `argv` (never through a shell) and waits for its end; nothing that it started is left afterwards."""
        stream = self._journal.stream(self._phase, self._note_output)
        kills = processes.oom_kills()
        started = time.monotonic()
        try:
            process = processes.start(argv, cwd=cwd, env=env, output=stream.fd, killable_first=is_training)
        except OSError as error:
            stream.started()
            stream.finish()
            self._journal.write(self._phase, f"[runctl] cannot start {argv[0]}: {error}\n".encode())
            return Ended(127 if isinstance(error, FileNotFoundError) else 126, None, "", False, None)
        stream.started()
        killed_at: float | None = None
        kill_after: float | None = None
        while (code := _poll(process)) is None:
            now = time.monotonic()
            if killed_at is None:
                self._check_limits(now - started, now)
                if self._asked:
                    if self._asked == "hung":
                        self._look_at_it()
                    killed_at, kill_after = time.time(), time.monotonic() + self._limits.grace_seconds
                    grace = f"{self._limits.grace_seconds:.0f} s of grace"
                    self._say(f"ending the {self._phase} ({self._asked}): SIGTERM, then {grace}")
                    processes.signal_all(process, signal.SIGTERM)
            elif kill_after is not None and now >= kill_after:
                self._say("the grace is over: SIGKILL")
                processes.signal_all(process, signal.SIGKILL)
                kill_after = now + 5
        if (left := processes.end_leftovers()) and is_training:
            self._say(f"ended {left} process{'es' if left > 1 else ''} that the training had left behind")
        stream.finish()
        is_killed = code == -signal.SIGKILL and not self._asked
        return Ended(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            because=self._asked,
            is_out_of_memory=(is_killed or code == 137) and processes.oom_kills() > kills,
            killed_at=killed_at,
        )

    def _check_limits(self, elapsed: float, now: float) -> None:
        limits = self._limits
        if limits.max_seconds and elapsed > limits.max_seconds:
            self.end("max-duration")
        if limits.budget_left() <= 0:
            self.end("budget")
        quiet_since = max(self._last_output, limits.progressed_at())
        if limits.hang_seconds and now - quiet_since > limits.hang_seconds:
            self.end("hung")

    def _look_at_it(self) -> None:
        try:
            self._on_hang()
        except Exception as error:  # noqa: BLE001  - whatever could not be seen, the ending goes on
            self._say(f"where it hangs could not be found out: {error!r}")

    def _note_output(self) -> None:
        self._last_output = time.monotonic()

    def _say(self, text: str) -> None:
        self._journal.write(self._phase, f"[runctl] {text}\n".encode())


def judge(ended: Ended) -> tuple[Outcome, Cause | None, str]:
    """(outcome, cause, message) of a training that ended so."""
    if ended.because == "stopped":
        return "cancelled", "stopped", "stopped on request"
    if ended.because == "spot-reclaimed":
        return "interrupted", "spot-reclaimed", "AWS is reclaiming the spot instance"
    if ended.because == "host-stopped":
        return "interrupted", "host-stopped", "the instance was shut down"
    if ended.because == "max-duration":
        return "timed-out", "max-duration", "the training reached max-duration"
    if ended.because == "hung":
        return "timed-out", "hung", "no output and no new checkpoint for hang-timeout"
    if ended.because == "budget":
        return "timed-out", "budget", "the run reached max-cost"
    if ended.is_out_of_memory:
        return "failed", "out-of-memory", "the kernel killed the training: the host ran out of memory"
    if ended.signal is not None:
        return "failed", "signal", f"the training was killed by {_signal_name(ended.signal)}"
    if ended.exit_code:
        return "failed", "exit", f"the training exited with code {ended.exit_code}"
    return "succeeded", None, ""


def _poll(process: subprocess.Popen[bytes]) -> int | None:
    """The return code once it has ended, waiting a moment for it."""
    try:
        return process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number} on {sys.platform}"
