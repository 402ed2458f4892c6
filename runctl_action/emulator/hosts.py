"""An emulated host, seen from the emulator: a directory, and a supervisor process that owns the host's processes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path
from typing import Any

from runctl_action.contract.layout import HOST_DIRECTORY_VARIABLE
from runctl_action.emulator import supervisor
from runctl_action.emulator.power import AGENT_PATH, write_shims


@dataclass
class Execution:
    """One script on a host. `code` as Popen gives it (negative: a signal); None with `error` when it did not start.
    `stopped` is "timed-out" or "killed" when it did not end by itself, `is_lost` says that the host went down first."""

    id: str
    host: Host
    script: Path
    done: threading.Event = field(default_factory=threading.Event)
    code: int | None = None
    error: str | None = None
    stopped: str = ""
    out: bytes = b""
    err: bytes = b""
    is_lost: bool = False

    def kill(self) -> None:
        """SIGKILL to its process group, as the agent does; whoever left the group survives."""
        self.host.send({"op": "kill", "execution": self.id})


class Host:
    """`on_power(event)` is called with "power-off" or "reboot", from a thread of its own."""

    _ids = itertools.count(1)

    def __init__(
        self,
        instance_id: str,
        directory: Path,
        *,
        ami_environment: Mapping[str, str],
        user_data: bytes | None,
        on_power: Callable[[str], None],
        seconds_per_minute: float = 60.0,
        has_small_disk: bool = False,
    ) -> None:
        self.instance_id = instance_id
        self.directory = directory
        self._ami_environment = dict(ami_environment)
        self._user_data = user_data
        self._on_power = on_power
        self._seconds_per_minute = seconds_per_minute
        self._has_small_disk = has_small_disk
        self._supervisor: subprocess.Popen[str] | None = None
        self._executions: dict[str, Execution] = {}
        self._sending = threading.Lock()
        self._booted_before = False
        self._checked = threading.Event()
        self._unsafe = ""

    @property
    def path(self) -> str:
        return f"{self.directory / 'shims'}:{AGENT_PATH}"

    def environment(self) -> dict[str, str]:
        """What every process of the host gets: PATH and the image's own variables. HOME and USER are not set."""
        state = {HOST_DIRECTORY_VARIABLE: str(self.directory / "var" / "lib" / "runctl")}
        return {"PATH": self.path, "LANG": "C.UTF-8"} | self._ami_environment | state

    def boot(self) -> None:
        """Starts the supervisor, proves that the shims resolve first, runs the user data; else raises RuntimeError."""
        for name in ("var/lib/runctl", "var/log"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        shims = write_shims(self.directory)
        if _python_is_too_old() and not (shims / "python3").exists():
            (shims / "python3").symlink_to(os.path.realpath(sys.executable))
        self._checked.clear()
        self._supervisor = subprocess.Popen(
            supervisor.command(self.directory, has_small_disk=self._has_small_disk),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env={"PATH": self.path, "LANG": "C.UTF-8"},
        )  # fmt: skip
        self._listener = threading.Thread(target=self._listen, args=(self._supervisor,), daemon=True)
        self._listener.start()
        self.send({"op": "configure", "seconds_per_minute": self._seconds_per_minute})
        if not self._checked.wait(10) or self._unsafe:
            self.halt()
            raise RuntimeError(f"the host {self.instance_id} is not safe to start: {self._unsafe or 'no answer'}")
        self._run_user_data()
        self._booted_before = True

    def halt(self) -> None:
        """Ends every process; the disk stays."""
        process, self._supervisor = self._supervisor, None
        if process is None:
            return
        assert process.stdin is not None
        try:
            process.stdin.close()
        except BrokenPipeError:
            process.kill()  # it is gone already
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._listener.join()  # what had ended by itself is told first
        if process.returncode < 0:
            _end_orphans(self.environment()[HOST_DIRECTORY_VARIABLE])
        while self._executions:
            self._lose(self._executions.popitem()[1])

    def destroy(self) -> None:
        """Ends every process and takes the disk away."""
        self.halt()
        shutil.rmtree(self.directory, ignore_errors=True)

    def fill_disk(self) -> None:
        """Leaves no space where the host keeps its things (it has to have a small disk)."""
        self.send({"op": "fill_disk"})

    def run_script(
        self, script: str, *, at: str, timeout_seconds: float, environment: Mapping[str, str], working_directory: str
    ) -> Execution:
        """Writes the script to `at` on the host's disk and starts `sh -c <that file>` (a shebang is honoured); the
        execution tells how it ends. Its output goes beside it."""
        path = self.directory / at
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, encoding="utf-8", errors="surrogateescape")
        path.chmod(0o700)
        execution = Execution(id=str(next(self._ids)), host=self, script=path)
        self._executions[execution.id] = execution
        request = {"op": "run", "execution": execution.id, "script": str(path), "cwd": working_directory}
        env = self.environment() | dict(environment)
        if not self.send(request | {"env": env, "timeout": timeout_seconds}):
            self._lose(execution)
        return execution

    def send(self, request: Mapping[str, Any]) -> bool:
        """False when the host is down."""
        process = self._supervisor
        if process is None or process.stdin is None:
            return False
        try:
            with self._sending:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._unsafe = self._unsafe or "its supervisor is gone"
            return False
        return True

    def _lose(self, execution: Execution) -> None:
        self._executions.pop(execution.id, None)
        execution.is_lost = True
        execution.done.set()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as events:
            for line in events:
                event = json.loads(line)
                if event["event"] == "end":
                    execution = self._executions.pop(event["id"])
                    execution.code, execution.error = event["code"], event["error"]
                    execution.stopped = event["stopped"]
                    if execution.error is None:  # now: the disk may be gone in a moment
                        execution.out = execution.script.with_name("stdout").read_bytes()
                        execution.err = execution.script.with_name("stderr").read_bytes()
                    execution.done.set()
                elif event["event"] == "unsafe":
                    self._unsafe = f"{event['name']} is {event['found']}"
                    self._checked.set()
                elif event["event"] == "safe":
                    self._checked.set()
                elif event["event"] in {"power-off", "reboot"}:
                    threading.Thread(target=self._on_power, args=(event["event"],), daemon=True).start()
        if self._supervisor is process and not self._unsafe:
            # Nobody has asked for its end: a process of the host has killed what stands for the machine.
            threading.Thread(target=self._on_power, args=("power-off",), daemon=True).start()

    def _run_user_data(self) -> None:
        """cloud-init's two kinds: a boothook at every boot, a script once per instance."""
        for index, (kind, text) in enumerate(_parts(self._user_data or b"")):
            if kind == "script" and self._booted_before:
                continue
            execution = self.run_script(
                text,
                at=f"var/lib/cloud/instance/scripts/part-{index:03}/script",
                timeout_seconds=3600,
                environment={},
                working_directory="/",
            )
            if kind == "boothook":
                execution.done.wait(30)
            if execution.error:
                log = self.directory / "var" / "log" / "cloud-init-output.log"
                log.write_text(f"part {index}: {execution.error}\n")


def _end_orphans(state: str) -> None:
    """Kills what a killed supervisor has left: nobody is its parent any more. Known by a variable that a host's
    processes have, so best effort: one that has put it away is left."""
    mark = os.fsencode(f"{HOST_DIRECTORY_VARIABLE}={state}")
    for _ in range(100):
        left = [pid for pid in _everybody() if mark in _variables(pid)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            return
        time.sleep(0.02)


def _everybody() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def _variables(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


@functools.cache
def _python_is_too_old() -> bool:
    """Images have a Python that is recent enough for the host package; this machine's system may have none."""
    found = shutil.which("python3", path=AGENT_PATH)
    return (
        found is None
        or subprocess.run([found, "-c", "import tomllib"], check=False, capture_output=True).returncode != 0
    )


def _parts(user_data: bytes) -> list[tuple[str, str]]:
    """(kind, script): boothooks first, as cloud-init runs them."""
    texts = [user_data]
    if user_data.startswith((b"Content-Type: multipart", b"MIME-Version:")):
        message = message_from_bytes(user_data)
        texts = [p.get_payload(decode=True) for p in message.walk() if not p.is_multipart()]  # type: ignore[misc]
    found = []
    for text in texts:
        decoded = text.decode("utf-8", "surrogateescape")
        if decoded.startswith("#cloud-boothook"):
            rest = decoded.partition("\n")[2]
            found.append(("boothook", rest if rest.startswith("#!") else "#!/bin/sh\n" + rest))
        elif decoded.startswith("#!"):
            found.append(("script", decoded))
    return sorted(found, key=lambda part: part[0] != "boothook")
