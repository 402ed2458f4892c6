"""One emulated host: a process that owns every process of the host, and ends them all with itself.

Run by `command`, with the standard library alone: it must start in milliseconds.
Requests come as JSON lines on stdin, events go as JSON lines to stdout; the end of stdin (the emulator is gone, however
it went) is the end of the host. On Linux orphans fall back to us (subreaper), so none survives; on macOS, best effort.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from runctl_action.emulator.power import Power

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# The agent copies a script's output byte by byte: 5 MB were seen to take it 10.5 s.
_COPY_SECONDS_PER_BYTE = 2.1e-6
# Where a host keeps its things, below its directory; and how much space there is on a small disk.
STATE = "var/lib/runctl"
_SMALL_DISK = "size=1g"


def command(directory: Path, *, has_small_disk: bool = False) -> list[str]:
    """What starts the supervisor of the host in `directory`: without site, and without the machine's variables."""
    package = Path(__file__).parent.parent.parent
    program = f"import sys; sys.path.insert(0, sys.argv[1]); from {__name__} import main; main(sys.argv[2:])"
    options = ["small-disk"] if has_small_disk else []
    return [sys.executable, "-S", "-E", "-c", program, str(package), str(directory), *options]


class Supervisor:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.power = Power(directory, say=lambda event: emit({"event": event}), start=self._start)
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.killed: set[str] = set()
        self.open_streams: dict[str, int] = {}
        self.codes: dict[int, int] = {}

    def serve(self) -> None:
        """Answers until stdin ends; then nothing of the host is left."""
        self.power.listen()
        threading.Thread(target=self._reap, daemon=True).start()
        try:
            for line in sys.stdin:
                request = json.loads(line)
                operation: Any = {
                    "configure": self.configure,
                    "run": self.run,
                    "kill": self.kill,
                    "fill_disk": self.fill_disk,
                }[request.pop("op")]
                operation(**request)
        finally:
            end_all()

    def configure(self, seconds_per_minute: float) -> None:
        """Proves that every dangerous command is a shim of this host; says "safe", or "unsafe" and ends."""
        self.power.seconds_per_minute = seconds_per_minute
        for name, found in self.power.unsafe():
            emit({"event": "unsafe", "name": name, "found": found})
            os._exit(1)
        emit({"event": "safe"})

    def run(self, execution: str, script: str, env: Mapping[str, str], cwd: str, timeout: float) -> None:
        threading.Thread(target=self._run, args=(execution, script, env, cwd, timeout), daemon=True).start()

    def kill(self, execution: str) -> None:
        """At once, and before its process is there too: that one ends as soon as it has begun."""
        with self.changed:
            self.killed.add(execution)
            self.changed.notify_all()

    def fill_disk(self) -> None:
        with open(self.directory / STATE / "ballast", "ab") as file:
            for step in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), file.tell(), step)
                        file.seek(step, os.SEEK_CUR)

    def _run(self, execution: str, script: str, env: Mapping[str, str], cwd: str, timeout: float) -> None:
        """Both streams to files as they come; ends when the process has ended and nobody holds its output any more,
        or when its time is over or it is killed: then at once, whoever is left and holds it."""
        try:
            with self.lock:  # not reaped before it is known
                process = subprocess.Popen(
                    ["sh", "-c", script],
                    env=env,
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    process_group=0,
                )
                self.codes.pop(process.pid, None)  # of an orphan that had this number before
                self.open_streams[execution] = 2
        except OSError as error:
            emit({"event": "end", "id": execution, "code": None, "error": error.strerror, "stopped": ""})
            return
        assert process.stdout is not None
        assert process.stderr is not None
        for stream, name in ((process.stdout, "stdout"), (process.stderr, "stderr")):
            file = Path(script).with_name(name).open("wb", buffering=0)
            threading.Thread(target=self._copy, args=(execution, stream, file), daemon=True).start()

        def has_ended() -> bool:
            return process.pid in self.codes and not self.open_streams[execution]

        with self.changed:
            self.changed.wait_for(lambda: has_ended() or execution in self.killed, timeout)
            stopped = "" if has_ended() else "killed" if execution in self.killed else "timed-out"
            if stopped:
                _kill_group(process.pid)
                self.changed.wait_for(lambda: process.pid in self.codes)
            code = self.codes.pop(process.pid)
        process.returncode = code  # Popen must not wait for what the reaper has waited for
        emit({"event": "end", "id": execution, "code": code, "error": None, "stopped": stopped})

    def _start(self, argv: Sequence[str], env: Mapping[str, str], log: str) -> Callable[[], bool]:
        """A service's process: nobody waits for it. Gives back what tells whether it still runs."""
        with open(log, "ab") as out, self.lock:
            process = subprocess.Popen(
                argv, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
            self.codes.pop(process.pid, None)  # of an orphan that had this number before
            process.returncode = 0  # the reaper has it; Popen must not wait
        return lambda: process.pid not in self.codes

    def _copy(self, execution: str, stream: IO[bytes], file: IO[bytes]) -> None:
        try:
            with stream, file:
                while data := os.read(stream.fileno(), 65536):
                    file.write(data)
                    time.sleep(len(data) * _COPY_SECONDS_PER_BYTE)
        finally:
            with self.changed:
                self.open_streams[execution] -= 1
                self.changed.notify_all()

    def _reap(self) -> None:
        """Everybody's parent waits for everybody."""
        while True:
            try:
                # Not collected yet: a Popen that is being made under the lock is registered first.
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                time.sleep(0.01)
                continue
            with self.changed:
                try:
                    pid, status = os.waitpid(found.si_pid if found else -1, 0)
                except ChildProcessError:
                    continue
                self.codes[pid] = os.waitstatus_to_exitcode(status)
                self.changed.notify_all()


def end_all() -> None:
    """Kills until there is nobody left: what is killed may have forked a moment before. Does not return."""
    # What is killed here has not ended: nobody is to be told that it has.
    _emitting.acquire()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (left := _descendants(os.getpid())):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    os._exit(0)


def _descendants(root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc") if sys.platform == "linux" else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()[:2]
                if state != b"Z":
                    children.setdefault(int(parent), []).append(int(entry.name))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def mount_small_disk(directory: Path) -> None:
    """A disk of its own for the host's state, seen by its processes alone. Raises OSError where that is not allowed:
    it takes Linux, and root or user namespaces."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")

    new_mounts, new_user, recursive_private = 0x20000, 0x10000000, 0x4000 | 0x40000
    call("unshare", new_mounts if os.geteuid() == 0 else new_mounts | new_user)
    call("mount", b"none", b"/", None, recursive_private, None)
    call("mount", b"tmpfs", os.fsencode(directory / STATE), b"tmpfs", 0, _SMALL_DISK.encode())


_emitting = threading.Lock()


def emit(event: dict[str, Any]) -> None:
    with _emitting, contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def main(argv: Sequence[str]) -> None:
    """argv is the host's directory, and "small-disk" where it is to have one."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A ^C at the terminal is the emulator's to handle. Not SIG_IGN: every process of the host would inherit that.
        signal.signal(number, lambda *_: None)
    directory = Path(argv[0])
    if argv[1:] == ["small-disk"]:
        mount_small_disk(directory)
    Supervisor(directory).serve()
