"""One emulated host: a process that owns every process of the host, and ends them all with itself.

Run as `python -S -E supervisor.py DIRECTORY`, with the standard library alone: it must start in milliseconds.
Requests come as JSON lines on stdin, events go as JSON lines to stdout; the end of stdin (the emulator is gone, however
it went) is the end of the host. On Linux orphans fall back to us (subreaper), so none survives; on macOS, best effort.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What must never reach the real machine. The shims come first in PATH, and a host does not start unless they do.
SHIMS = ("shutdown", "poweroff", "halt", "reboot", "systemd-run", "systemctl", "init", "telinit")
AGENT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"

# A shim hands its words over in a file of its own and waits for the supervisor's exit code: whatever follows it in a
# script sees the timer armed, or not.
_SHIM = """#!/bin/sh
# This is an emulated host: the real machine is never powered off. The host's supervisor does what was asked for.
asked='{asked}'/$$
mkfifo "$asked.answer" || exit 1
printf '%s\\0' {name} "$@" > "$asked"
echo $$ > '{asked}'/requests
read -r code < "$asked.answer"
rm -f "$asked" "$asked.answer"
exit "$code"
"""
_ASKED = "power"
# The agent copies a script's output byte by byte: 5 MB were seen to take it 10.5 s.
_COPY_SECONDS_PER_BYTE = 2.1e-6
# Where a host keeps its things, below its directory; and how much space there is on a small disk.
STATE = "var/lib/runctl"
_SMALL_DISK = "size=1g"


def write_shims(directory: Path) -> Path:
    """Puts a shim for every dangerous command into `directory`/shims, which is returned."""
    shims = directory / "shims"
    shims.mkdir(parents=True, exist_ok=True)
    for name in SHIMS:
        shim = shims / name
        shim.write_text(_SHIM.format(name=name, asked=directory / _ASKED))
        shim.chmod(0o755)
    return shims


class Supervisor:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = f"{directory / 'shims'}:{AGENT_PATH}"
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.killed: set[str] = set()
        self.open_streams: dict[str, int] = {}
        self.codes: dict[int, int] = {}
        self.timers: dict[str, threading.Timer] = {}
        self.seconds_per_minute = 60.0

    def serve(self) -> None:
        """Answers until stdin ends; then nothing of the host is left."""
        asked = self.directory / _ASKED
        shutil.rmtree(asked, ignore_errors=True)
        asked.mkdir()
        os.mkfifo(asked / "requests")
        # Opened for both, so that there is never an end of file between two writers.
        requests = os.open(asked / "requests", os.O_RDWR)
        threading.Thread(target=self._answer_shims, args=(requests,), daemon=True).start()
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
        self.seconds_per_minute = seconds_per_minute
        for name in SHIMS:
            found = shutil.which(name, path=self.path)
            if found is None or Path(found).parent != self.directory / "shims":
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

    def _answer_shims(self, requests: int) -> None:
        held = ""
        while True:
            held += os.read(requests, 65536).decode()
            *lines, held = held.split("\n")
            for line in lines:
                asked = self.directory / _ASKED / line
                words = asked.read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
                code = self._do(words[0], words[1:])
                with contextlib.suppress(OSError), open(f"{asked}.answer", "w") as answer:
                    answer.write(f"{code}\n")

    def _do(self, name: str, args: Sequence[str]) -> int:
        """What the real command would do to the host; its exit code."""
        try:
            if name == "shutdown":
                self._shutdown(args)
            elif name == "reboot":
                emit({"event": "reboot"})
            elif name == "systemctl":
                return self._systemctl([word for word in args if not word.startswith("-")])
            elif name == "systemd-run":
                self._systemd_run(args)
            elif name != "halt":  # which stops the system and leaves the power on
                emit({"event": "power-off"})
        except (OSError, ValueError) as error:
            print(f"{name} {args}: {error}", file=sys.stderr)
            return 1
        return 0

    def _shutdown(self, args: Sequence[str]) -> None:
        if "-c" in args:
            self._cancel("shutdown")
            return
        event = "reboot" if "-r" in args or "--reboot" in args else "power-off"
        when = next((word for word in args if not word.startswith("-")), "+1")
        minutes = 0 if when == "now" else int(when.lstrip("+"))
        self._arm("shutdown", minutes * self.seconds_per_minute, lambda: emit({"event": event}))

    def _systemctl(self, words: Sequence[str]) -> int:
        if words[:1] == ["stop"]:
            for unit in words[1:]:
                self._cancel(unit.rsplit(".", 1)[0])
        elif words[:1] == ["is-active"]:
            return 0 if all(unit.rsplit(".", 1)[0] in self.timers for unit in words[1:]) else 3
        elif words[:1] == ["reboot"]:
            emit({"event": "reboot"})
        elif words[:1] == ["poweroff"]:
            emit({"event": "power-off"})
        return 0

    def _systemd_run(self, args: Sequence[str]) -> None:
        env: dict[str, str] = {}
        options: dict[str, str] = {}
        command: Sequence[str] = []
        for index, word in enumerate(args):
            if not word.startswith("--"):
                command = args[index:]
                break
            key, _, value = word[2:].partition("=")
            if key in {"setenv", "property"}:
                key, _, value = value.partition("=")
            (env if word.startswith("--setenv=") else options)[key] = value
        path = env.get("PATH") or self.path
        program = shutil.which(command[0], path=self.path) if command else None
        if program is None:
            raise ValueError(f"Failed to find executable {command[:1]}")
        log = options.get("StandardOutput", "").partition("append:")[2] or os.devnull

        def launch() -> None:
            with open(log, "ab") as out, self.lock:
                process = subprocess.Popen(
                    [program, *command[1:]],
                    env={"LANG": "C.UTF-8", **env, "PATH": path},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
                process.returncode = 0  # the reaper has it; Popen must not wait

        if "on-active" in options:
            seconds = float(options["on-active"].removesuffix("s")) / 60 * self.seconds_per_minute
            self._arm(options.get("unit", "run"), seconds, launch)
        else:
            launch()

    def _arm(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        """A new timer of the same name replaces the old one: armed first, then the old is cancelled."""

        def elapsed() -> None:
            if self.timers.get(name) is timer:
                del self.timers[name]
            action()

        timer = threading.Timer(max(0, seconds), elapsed)
        timer.daemon = True
        old, self.timers[name] = self.timers.get(name), timer
        timer.start()
        if old is not None:
            old.cancel()

    def _cancel(self, name: str) -> None:
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()


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


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A ^C at the terminal is the emulator's to handle. Not SIG_IGN: every process of the host would inherit that.
        signal.signal(number, lambda *_: None)
    if sys.argv[2:] == ["small-disk"]:
        mount_small_disk(Path(sys.argv[1]))
    Supervisor(Path(sys.argv[1])).serve()
