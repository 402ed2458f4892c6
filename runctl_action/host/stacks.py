"""Where a training that hangs is stuck: the Python stacks of its processes, in its log, before it is ended.

py-spy looks from outside, at any process. Where it cannot be had, or fails, the process tells itself: the training's
own environment registers faulthandler on a signal that nothing else uses.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from runctl_action.host import processes
from runctl_action.host.journal import Journal, Stream

# 0.4.1 and older do not know Python 3.14 (benfred/py-spy#823).
_PY_SPY = "py-spy==0.4.3"
_INSTALL_SECONDS, _DUMP_SECONDS, _ANSWER_SECONDS = 40.0, 10.0, 5.0
_MOST_PROCESSES = 16
# 0 where there are no real-time signals (macOS).
_SIGNAL = int(getattr(signal, "SIGRTMIN", -8)) + 8


def prepare(environment: Path) -> None:
    """Every Python process of the virtual environment will write its stacks to its stderr when it gets the signal."""
    if not _SIGNAL:
        return
    for packages in environment.glob("lib/python*/site-packages"):
        line = f"import faulthandler; faulthandler.register({_SIGNAL}, 2, all_threads=True)\n"
        (packages / "runctl-faulthandler.pth").write_text(line)


def dump(journal: Journal, environ: Mapping[str, str], *, patience_seconds: float = 60) -> None:
    """Writes the stacks of every Python process below this one to the log; what fails is said there in one line.
    `environ` is the host's: uv is in its PATH. Takes `patience_seconds` at the most, and a moment."""
    deadline = time.monotonic() + patience_seconds - _ANSWER_SECONDS
    found = [pid for pid in sorted(processes.descendants(os.getpid())) if _is_python(pid)]
    stream = journal.stream("training")  # through it, so that a secret in an argument is redacted
    try:
        _say(stream, f"where its Python processes are ({len(found)}):")
        if len(found) > _MOST_PROCESSES:
            _say(stream, f"only of the first {_MOST_PROCESSES} of them")
        left = _look_from_outside(found[:_MOST_PROCESSES], stream, environ, deadline)
        for pid in left:
            # One after another: they write to the same pipe, and would write into each other's lines.
            before = journal.bytes
            if _ask(pid, stream):
                _await_answer(journal, before)
            if time.monotonic() > deadline:
                break
    finally:
        stream.started()
        stream.finish(5)


def _look_from_outside(
    pids: Sequence[int], stream: Stream, environ: Mapping[str, str], deadline: float
) -> Sequence[int]:
    """py-spy's view of each; gives back those that it has not shown."""
    if not pids:
        return ()
    if why := _py_spy(["--version"], subprocess.DEVNULL, environ, min(_INSTALL_SECONDS, deadline - time.monotonic())):
        _say(stream, f"{_PY_SPY} cannot be had: {why}")
        return pids
    left = []
    for pid in pids:
        was_stopped = _state(pid) == "T"
        seconds = min(_DUMP_SECONDS, deadline - time.monotonic())
        if seconds <= 0 or (why := _py_spy(["dump", "--pid", str(pid)], stream.fd, environ, seconds)):
            _say(stream, f"py-spy does not show process {pid}: {why if seconds > 0 else 'there is no time left'}")
            left.append(pid)
        # A py-spy that is killed may leave it stopped (benfred/py-spy#390), and it would not get the SIGTERM.
        if not was_stopped and _state(pid) == "T":
            _send(pid, signal.SIGCONT)
    return left


def _py_spy(args: Sequence[str], output: int, environ: Mapping[str, str], seconds: float) -> str:
    """ "" when it worked, else why not, in one line."""
    # Our own Python, so that none is looked for; no build, so that no Rust is needed.
    command = ["uv", "tool", "run", "--quiet", "--no-config", "--no-build", "--python", sys.executable]
    command += ["--from", _PY_SPY, "py-spy", *args]
    try:
        process = subprocess.Popen(
            command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return str(error)
    with process:
        try:
            _, said = process.communicate(timeout=max(0.1, seconds))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return f"it took longer than {seconds:.0f} s"
    lines = said.decode("utf-8", "replace").split("\n") if process.returncode else []
    return " ".join(line.strip() for line in lines)[:500] or (f"exit code {process.returncode}" if lines else "")


def _ask(pid: int, stream: Stream) -> bool:
    """Whether the process will tell itself. To one that does not catch it, the signal would be the end."""
    if not _SIGNAL or not _caught(pid) >> (_SIGNAL - 1) & 1:
        _say(stream, f"process {pid} cannot be asked: it has no faulthandler of ours")
        return False
    return _send(pid, _SIGNAL)


def _await_answer(journal: Journal, before: int) -> None:
    """Nobody says when a dump is complete: it has come, and nothing has followed for a moment."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < deadline:
        size = journal.bytes
        time.sleep(0.3)
        if size > before and journal.bytes == size:
            return


def _is_python(pid: int) -> bool:
    try:
        if Path(os.readlink(f"/proc/{pid}/exe")).name.startswith(("python", "pypy")):  # noqa: PTH115
            return True
        return b"/libpython" in Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return False


def _status(pid: int, field: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return line.partition(":")[2].strip()
    return ""


def _caught(pid: int) -> int:
    return int(_status(pid, "SigCgt") or "0", 16)


def _state(pid: int) -> str:
    return _status(pid, "State")[:1]


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _say(stream: Stream, text: str) -> None:
    os.write(stream.fd, f"[runctl] {text}\n".encode())
