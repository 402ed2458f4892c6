"""The SSM agent on a host: runs AWS-RunShellScript as the real one was measured to, quirks and all."""

from __future__ import annotations

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
_NOTICE = b"\nThe document was ended by the script's exit code.\n"


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
    requested_at: float = field(default_factory=time.monotonic)
    status: str = "Pending"
    detail: str = "Pending"
    code: int = -1
    out: bytes = b""
    err: bytes = b""
    is_cancelled: bool = False
    execution: Execution | None = None

    @property
    def is_over(self) -> bool:
        return self.status not in {"Pending", "InProgress", "Delayed"}

    def end(self, status: str, code: int, detail: str = "") -> None:
        # Last of all the status: who polls must never see an end without its output.
        self.code = code
        self.detail = detail or status
        self.status = status

    def cancel(self) -> None:
        """SIGKILL to the script's group, at once; what has not begun never does."""
        self.is_cancelled = True
        if self.execution:
            self.execution.kill()


class Agents:
    """The agents of all hosts."""

    def __init__(self, world: World, reboot: Callable[[EmulatedInstance], None]) -> None:
        self._world = world
        self._reboot = reboot
        self._slots: dict[str, threading.Semaphore] = {}
        self._lock = threading.Lock()

    def run(self, invocation: Invocation) -> None:
        """To the invocation's end: five at a time on a host, the others wait for as long as their delivery may take."""
        instance = invocation.instance
        if self._world.faults.take("not-executing") or instance.is_frozen:
            invocation.status = invocation.detail = "Pending" if instance.is_frozen else "InProgress"
            return
        with self._lock:
            slots = self._slots.setdefault(instance.id, threading.Semaphore(_SLOTS))
        if not slots.acquire(timeout=invocation.delivery_seconds):
            invocation.end("TimedOut", -1, "DeliveryTimedOut")
            return
        try:
            while self._run_once(invocation):
                self._reboot(instance)
        finally:
            slots.release()

    def _run_once(self, invocation: Invocation) -> bool:
        """True when the script asked for a reboot, and is to be run again."""
        instance = invocation.instance
        if invocation.is_cancelled:
            invocation.end("Cancelled", 137)
            return False
        invocation.status = invocation.detail = "InProgress"
        execution = invocation.execution = instance.host.run_script(
            invocation.script,
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
        execution.done.wait()
        if execution.is_lost:
            # The host is gone: AWS goes on saying InProgress until the timeouts have passed. After a reboot it knows.
            if instance.state == "running" and not instance.is_frozen:
                invocation.err = b"document process failed unexpectedly"
                invocation.end("Failed", 1)
            return False
        if execution.error is not None:
            invocation.err = f"failed to run commands: fork/exec /usr/bin/sh: {execution.error.lower()}".encode()
            invocation.end("Failed", 1)
            return False
        invocation.out, invocation.err = execution.output("out"), execution.output("err")
        if invocation.is_cancelled or execution.timed_out:
            invocation.err = b""
            invocation.end("Cancelled" if invocation.is_cancelled else "TimedOut", 137)
            return False
        assert execution.code is not None
        return _conclude(invocation, execution.code % 256 if execution.code >= 0 else 128 - execution.code)


def _conclude(invocation: Invocation, code: int) -> bool:
    match code:
        case 0:
            invocation.end("Success", 0)
        case 137:
            invocation.end("TimedOut", code)
        case _ if code == _REBOOT:
            return True
        case _ if code == _SUCCESS:
            invocation.err = b""
            invocation.out += _NOTICE
            invocation.end("Success", code)
        case _:
            invocation.err += f"failed to run commands: exit status {code}".encode()
            if code == _FAILURE:
                invocation.out += _NOTICE
                invocation.err += _NOTICE
            invocation.end("Failed", code)
    return False


def execution_timeout(text: str) -> float:
    """Seconds. The agent takes what is no number from 5 to 172800 as 3600."""
    return float(text) if text.isdigit() and 5 <= int(text) <= 172_800 else 3600.0


def truncated(data: bytes) -> str:
    """A stream as the API shows it."""
    if len(data) >= _TRUNCATE_AT:
        data = data[:_KEPT] + b"--output truncated--"
    return data.decode("utf-8", "replace")
