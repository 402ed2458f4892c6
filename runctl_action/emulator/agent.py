"""The SSM agent on a host: runs AWS-RunShellScript as the real one was measured to, quirks and all."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from runctl_action.emulator.hosts import Execution
from runctl_action.emulator.state import EmulatedInstance, World

_SLOTS = 5
_TRUNCATE_AT, _KEPT = 24_000, 23_980
# Exit codes that the agent takes as words of its own.
_SUCCESS, _FAILURE, _REBOOT = 168, 169, 194
_NOTICE = "\nThe step exited with code {code}: it counts as {ending}, and no further step is run."
_POLL_SECONDS = 0.02


@dataclass
class Invocation:
    """One command on one instance. `code` is -1 until there is one."""

    command_id: str
    instance: EmulatedInstance
    script: str
    working_directory: str
    timeout_seconds: float
    delivery_seconds: float
    comment: str
    requested_at: float = field(default_factory=time.time)
    began_at: float | None = None
    ended_at: float | None = None
    status: str = "Pending"
    detail: str = "Pending"
    code: int = -1
    out: bytes = b""
    err: bytes = b""
    execution: Execution | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        return self.status not in {"Pending", "InProgress", "Delayed"}

    def end(self, status: str, code: int, detail: str = "") -> None:
        # Last of all the status: who polls must never see an end without its output.
        self.code = code
        self.detail = detail or status
        self.ended_at = time.time()
        self.status = status

    def begin(self, start: Callable[[], Execution]) -> Execution | None:
        """Runs it, unless it is over before it has begun."""
        with self.lock:
            if self.is_over:
                return None
            self.began_at = self.began_at or time.time()
            self.status = self.detail = "InProgress"
            self.execution = start()
            return self.execution

    def cancel(self) -> None:
        """SIGKILL to the script's group, at once; what has not begun never does."""
        with self.lock:
            if self.execution:
                self.execution.kill()
            elif self.status == "Pending":
                self.end("Cancelled", -1)

    def give_up(self, after_seconds: float) -> None:
        """Nobody has told its end."""
        time.sleep(after_seconds)
        with self.lock:
            if not self.is_over:
                self.end("TimedOut", -1, "DeliveryTimedOut" if self.began_at is None else "ExecutionTimedOut")


class Agents:
    """The agents of all hosts."""

    def __init__(self, world: World, reboot: Callable[[EmulatedInstance], None]) -> None:
        self._world = world
        self._reboot = reboot
        self._slots: dict[str, threading.Semaphore] = {}
        self._lock = threading.Lock()

    def run(self, invocation: Invocation) -> None:
        """To the invocation's end: five at a time on a host, the others wait for as long as their delivery may take."""
        if self._world.faults.take("not-executing"):
            invocation.status = invocation.detail = "InProgress"
            invocation.give_up(invocation.delivery_seconds + invocation.timeout_seconds)
            return
        with self._lock:
            slots = self._slots.setdefault(invocation.instance.id, threading.Semaphore(_SLOTS))
        if not slots.acquire(timeout=invocation.delivery_seconds):
            invocation.give_up(0)
            return
        try:
            while self._is_reachable(invocation) and self._run_once(invocation):
                self._reboot(invocation.instance)
        finally:
            slots.release()
        if not invocation.is_over:
            # AWS goes on saying InProgress until both timeouts have passed.
            invocation.give_up(invocation.delivery_seconds + invocation.timeout_seconds)

    def _is_reachable(self, invocation: Invocation) -> bool:
        """Waits while the host reboots."""
        instance, deadline = invocation.instance, time.monotonic() + invocation.delivery_seconds
        while instance.state == "running" and not instance.is_frozen and time.monotonic() < deadline:
            if instance.is_online:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _run_once(self, invocation: Invocation) -> bool:
        """True when the script asked for a reboot, and is to be run again."""
        instance = invocation.instance
        execution = invocation.begin(lambda: self._start(invocation))
        if execution is None:
            return False
        execution.done.wait()
        if execution.is_lost:
            # After a reboot the agent knows that it was interrupted; of a host that is gone nobody says anything.
            if instance.state == "running" and not instance.is_frozen:
                invocation.err = b"document process failed unexpectedly"
                invocation.end("Failed", 1)
            return False
        if execution.error is not None:
            invocation.err = f"failed to run commands: fork/exec /usr/bin/sh: {execution.error.lower()}".encode()
            invocation.end("Failed", 1)
            return False
        invocation.out, invocation.err = execution.out, execution.err
        if execution.stopped:
            invocation.err = b""
            if execution.stopped == "killed":
                invocation.end("Cancelled", 137)
            else:
                invocation.end("TimedOut", 137, "ExecutionTimedOut")
            return False
        assert execution.code is not None
        return _conclude(invocation, execution.code if execution.code >= 0 else 128 - execution.code)

    def _start(self, invocation: Invocation) -> Execution:
        instance = invocation.instance
        orchestration = f"var/lib/amazon/ssm/{instance.id}/document/orchestration/{invocation.command_id}"
        return instance.host.run_script(
            invocation.script,
            at=f"{orchestration}/awsrunShellScript/0.awsrunShellScript/_script.sh",
            timeout_seconds=invocation.timeout_seconds,
            environment={
                "SSM_COMMAND_ID": invocation.command_id,
                "AWS_SSM_INSTANCE_ID": instance.id,
                "AWS_SSM_REGION_NAME": self._world.region,
                "AWS_SSM_PLATFORM_NAME": "Ubuntu",
                "AWS_SSM_PLATFORM_VERSION": "24.04",
            },
            working_directory=invocation.working_directory,
        )


def _conclude(invocation: Invocation, code: int) -> bool:
    match code:
        case 0:
            invocation.end("Success", 0)
        case 137:
            # The agent's own code for what it has stopped: it takes the script's for that.
            invocation.end("TimedOut", code, "ExecutionTimedOut")
        case _ if code == _REBOOT:
            return True
        case _ if code == _SUCCESS:
            invocation.err = b""
            invocation.out += _NOTICE.format(code=code, ending="succeeded").encode()
            invocation.end("Success", code)
        case _:
            invocation.err += f"failed to run commands: exit status {code}".encode()
            if code == _FAILURE:
                notice = _NOTICE.format(code=code, ending="failed").encode()
                invocation.out += notice
                invocation.err += notice
            invocation.end("Failed", code)
    return False


def execution_timeout(text: str) -> float:
    """Seconds, whole ones. The agent takes what is no number from 5 to 172800 as 3600."""
    seconds = int(float(text)) if re.fullmatch(r"\+?[0-9]{1,9}(\.[0-9]*)?", text) else 0
    return float(seconds) if 5 <= seconds <= 172_800 else 3600.0


def truncated(data: bytes) -> str:
    """A stream as the API shows it."""
    if len(data) >= _TRUNCATE_AT:
        data = data[:_KEPT] + b"--output truncated--"
    return data.decode("utf-8", "replace")
