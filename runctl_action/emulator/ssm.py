"""SSM's run command, as the real agent does it (its measured behaviour is the test table of this module)."""

from __future__ import annotations

import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from runctl_action.emulator.hosts import Execution
from runctl_action.emulator.state import EmulatedInstance, World

_SLOTS = 5
_TRUNCATE_AT, _KEPT = 24_000, 23_980
_REBOOT, _CLEARED_SUCCESS, _CLEARED_FAILURE = 194, 168, 169
_PARAMETERS = {"commands", "workingDirectory", "executionTimeout"}


class ApiError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Invocation:
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
    cancelled: bool = False
    execution: Execution | None = None

    @property
    def is_over(self) -> bool:
        return self.status not in {"Pending", "InProgress", "Delayed"}


class Ssm:
    def __init__(self, world: World) -> None:
        self._world = world
        self._commands: dict[str, dict[str, Invocation]] = {}
        self._slots: dict[str, threading.Semaphore] = {}
        self._lock = threading.Lock()

    def handle(self, operation: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None for operations that are not ours. Raises ApiError."""
        found = getattr(self, f"_do_{operation}", None)
        return found(body) if found else None

    def _do_SendCommand(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        parameters = body.get("Parameters") or {}
        if body.get("DocumentName") != "AWS-RunShellScript":
            raise ApiError("InvalidDocument", f"Document with name {body.get('DocumentName')} does not exist.")
        if not parameters.get("commands") or set(parameters) - _PARAMETERS:
            raise ApiError("InvalidParameters", "the parameters are not those of AWS-RunShellScript")
        if any(re.search(r"\{\{.*\}\}", text) for text in parameters["commands"]):
            raise ApiError("InvalidParameters", "a parameter of Parameter Store does not exist")
        if len(body.get("Comment", "")) > 100 or not 30 <= int(body.get("TimeoutSeconds", 3600)) <= 2_592_000:
            raise ApiError("ValidationException", "Comment is at most 100 characters, TimeoutSeconds 30 to 2592000")
        ids = body.get("InstanceIds") or []
        if not 1 <= len(ids) <= 50:
            raise ApiError("ValidationException", "InstanceIds: 1 to 50")
        instances = [self._world.instances.get(instance_id) for instance_id in ids]
        if any(i is None or i.state != "running" or not i.is_online for i in instances):
            raise ApiError("InvalidInstanceId", "Instances not in a valid state for account")
        command_id = str(uuid.uuid4())
        self._commands[command_id] = {}
        for instance in filter(None, instances):
            invocation = Invocation(
                command_id=command_id,
                instance=instance,
                script="\n".join(parameters["commands"]) + "\n",
                working_directory=(parameters.get("workingDirectory") or [""])[0] or "/usr/bin",
                timeout_seconds=_timeout((parameters.get("executionTimeout") or ["3600"])[0]),
                delivery_seconds=float(body.get("TimeoutSeconds", 3600)),
                comment=body.get("Comment", ""),
            )
            self._commands[command_id][instance.id] = invocation
            threading.Thread(target=self._execute, args=(invocation,), daemon=True).start()
        return {
            "Command": {
                "CommandId": command_id,
                "DocumentName": "AWS-RunShellScript",
                "Status": "Pending",
                "InstanceIds": ids,
            }
        }

    def _do_GetCommandInvocation(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        invocation = self._invocation(body)
        over = invocation.is_over
        return {
            "CommandId": invocation.command_id,
            "InstanceId": invocation.instance.id,
            "DocumentName": "AWS-RunShellScript",
            "Comment": invocation.comment,
            "PluginName": "aws:runShellScript",
            "ResponseCode": invocation.code,
            "Status": invocation.status,
            "StatusDetails": invocation.detail,
            "StandardOutputContent": _truncated(invocation.out) if over else "",
            "StandardErrorContent": _truncated(invocation.err) if over else "",
        }

    def _do_ListCommandInvocations(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        found = [
            invocation
            for command_id, by_instance in self._commands.items()
            for invocation in by_instance.values()
            if body.get("CommandId") in (None, command_id) and body.get("InstanceId") in (None, invocation.instance.id)
        ]
        return {"CommandInvocations": [_listed(invocation, details=bool(body.get("Details"))) for invocation in found]}

    def _do_CancelCommand(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        by_instance = self._commands.get(body.get("CommandId", ""))
        if by_instance is None:
            raise ApiError("InvalidCommandId", "")
        for invocation in by_instance.values():
            if not invocation.is_over:
                invocation.cancelled = True
                if invocation.execution:
                    invocation.execution.kill()
        return {}

    def _do_DescribeInstanceInformation(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802, ARG002
        return {
            "InstanceInformationList": [
                {
                    "InstanceId": instance.id,
                    "PingStatus": "Online" if instance.state == "running" else "ConnectionLost",
                    "PlatformType": "Linux",
                    "ResourceType": "EC2Instance",
                    "LastPingDateTime": datetime.now(UTC).timestamp(),
                }
                for instance in self._world.instances.values()
                if instance.is_online
            ]
        }

    def _do_GetConnectionStatus(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        instance = self._world.instances.get(body.get("Target", ""))
        connected = instance is not None and instance.is_online and instance.state == "running"
        return {"Target": body.get("Target", ""), "Status": "connected" if connected else "notconnected"}

    def _invocation(self, body: dict[str, Any]) -> Invocation:
        by_instance = self._commands.get(body.get("CommandId", ""))
        if by_instance is None:
            raise ApiError("InvalidCommandId", "")
        invocation = by_instance.get(body.get("InstanceId", ""))
        # Eventually consistent: right after SendCommand there is no invocation yet.
        if invocation is None or time.monotonic() - invocation.requested_at < 0.03:
            raise ApiError("InvocationDoesNotExist", "")
        return invocation

    def _execute(self, invocation: Invocation) -> None:
        instance = invocation.instance
        if self._world.faults.take("not-executing"):
            invocation.status = invocation.detail = "InProgress"
            return
        with self._lock:
            slots = self._slots.setdefault(instance.id, threading.Semaphore(_SLOTS))
        if not slots.acquire(timeout=invocation.delivery_seconds):
            _end(invocation, "TimedOut", "DeliveryTimedOut", -1)
            return
        with slots_held(slots):
            while self._run(invocation):
                instance.host.halt()
                instance.host.boot()

    def _run(self, invocation: Invocation) -> bool:
        """Runs it once; True when the script asked for a reboot (194) and is to be run again."""
        instance = invocation.instance
        environment = {
            "SSM_COMMAND_ID": invocation.command_id,
            "AWS_SSM_INSTANCE_ID": instance.id,
            "AWS_SSM_REGION_NAME": self._world.region,
            "AWS_SSM_PLATFORM_NAME": "Ubuntu",
            "AWS_SSM_PLATFORM_VERSION": "24.04",
        }
        if invocation.cancelled:
            _end(invocation, "Cancelled", "Cancelled", 137)
            return False
        invocation.status = invocation.detail = "InProgress"
        execution = invocation.execution = instance.host.run_script(
            invocation.script,
            timeout_seconds=invocation.timeout_seconds,
            environment=environment,
            working_directory=invocation.working_directory,
        )
        execution.done.wait()
        if execution.is_lost:
            # The host is gone: AWS goes on saying InProgress until the timeouts have passed.
            return False
        if execution.error is not None:
            invocation.err = f"failed to run commands: fork/exec /usr/bin/sh: {execution.error.lower()}".encode()
            _end(invocation, "Failed", "Failed", 1)
            return False
        invocation.out, invocation.err = execution.output("out"), execution.output("err")
        if invocation.cancelled:
            invocation.err = b""
            _end(invocation, "Cancelled", "Cancelled", 137)
            return False
        if execution.timed_out:
            invocation.err = b""
            _end(invocation, "TimedOut", "TimedOut", 137)
            return False
        assert execution.code is not None
        code = execution.code % 256 if execution.code >= 0 else 128 - execution.code
        return _conclude(invocation, code)


class slots_held:  # noqa: N801  - used as a statement's word
    """Gives a slot back at the end."""

    def __init__(self, slots: threading.Semaphore) -> None:
        self._slots = slots

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._slots.release()


def _conclude(invocation: Invocation, code: int) -> bool:
    if code == _REBOOT:
        return True
    if code == 0:
        _end(invocation, "Success", "Success", 0)
    elif code == _CLEARED_SUCCESS:
        invocation.err = b""
        invocation.out += b"\nThe script asked for no further output.\n"
        _end(invocation, "Success", "Success", code)
    elif code == 137:
        _end(invocation, "TimedOut", "TimedOut", code)
    else:
        invocation.err += f"failed to run commands: exit status {code}".encode()
        if code == _CLEARED_FAILURE:
            invocation.out += b"\nThe script asked for no further output.\n"
        _end(invocation, "Failed", "Failed", code)
    return False


def _end(invocation: Invocation, status: str, detail: str, code: int) -> None:
    # Last of all the status: who polls must never see an end without its output.
    invocation.code = code
    invocation.detail = detail
    invocation.status = status


def _timeout(text: str) -> float:
    """The agent takes what is no number from 5 to 172800 as 3600."""
    return float(text) if text.isdigit() and 5 <= int(text) <= 172_800 else 3600.0


def _truncated(data: bytes) -> str:
    if len(data) >= _TRUNCATE_AT:
        data = data[:_KEPT] + b"--output truncated--"
    return data.decode("utf-8", "replace")


def _listed(invocation: Invocation, *, details: bool) -> dict[str, Any]:
    listed: dict[str, Any] = {
        "CommandId": invocation.command_id,
        "InstanceId": invocation.instance.id,
        "DocumentName": "AWS-RunShellScript",
        "Comment": invocation.comment,
        "Status": invocation.status,
        "StatusDetails": invocation.detail,
    }
    if details:
        out, err = invocation.out.decode("utf-8", "replace"), invocation.err.decode("utf-8", "replace")
        joined = out + (f"\n----------ERROR-------\n{err}" if err else "")
        listed["CommandPlugins"] = [
            {
                "Name": "aws:runShellScript",
                "Status": invocation.status,
                "StatusDetails": invocation.detail,
                "ResponseCode": invocation.code,
                "Output": joined[:2500] if invocation.is_over else "",
            }
        ]
    return listed
