"""Commands that go down to a host by SSM. They start and signal things; what they print is never a source of truth.

The one exception is readiness: a nonce that came back is the only proof that commands are executed there.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import botocore.exceptions

from runctl_action.cloud.session import Session, aws_errors, error_code

_DOCUMENT = "AWS-RunShellScript"
_PENDING = {"Pending", "InProgress", "Delayed", "Cancelling"}
_PLATFORM = re.compile(r"(Linux|Darwin) (x86_64|aarch64|arm64)\Z")


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: SSM's status detail without spaces, the response code (see the agent's own meanings)."""

    status: str
    code: int
    stdout: str
    stderr: str

    @property
    def succeeded(self) -> bool:
        return self.status == "Success" and self.code == 0


class Commands:
    """`sleep` and `monotonic` are the seams for tests."""

    def __init__(
        self,
        session: Session,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ssm: Any = session.client("ssm")
        self._sleep = sleep
        self._monotonic = monotonic

    def probe(self, instance_id: str, patience_seconds: float = 20) -> str | None:
        """The platform ("Linux x86_64"), once a command with a nonce has come back; None when none has."""
        nonce = secrets.token_hex(16)
        result = self.run(instance_id, f"printf '%s ' {nonce}; uname -sm", "runctl readiness", patience_seconds)
        if result is None or not result.succeeded:
            return None
        answered, _, platform = result.stdout.strip().partition(" ")
        if answered != nonce:
            return None
        found = _PLATFORM.match(platform)
        return found[0] if found else None

    def run(self, instance_id: str, script: str, comment: str, patience_seconds: float) -> CommandResult | None:
        """Sends `script` and waits for its end; None when it did not end in time or SSM does not know the host yet."""
        command_id = self.send(instance_id, script, comment)
        if command_id is None:
            return None
        deadline = self._monotonic() + patience_seconds
        pause = 0.2
        while True:
            result = self.result(command_id, instance_id)
            if result is not None:
                return result
            if self._monotonic() >= deadline:
                return None
            self._sleep(pause)
            pause = min(pause * 2, 5)

    def send(self, instance_id: str, script: str, comment: str) -> str | None:
        """The command id; None when SSM says that the host is not (or not yet) one of its own."""
        if "{{" in script:
            raise ValueError("SSM substitutes {{ }} in commands: it must not be in one")
        with aws_errors("ssm:SendCommand"):
            try:
                answer = self._ssm.send_command(
                    InstanceIds=[instance_id],
                    DocumentName=_DOCUMENT,
                    Comment=comment[:100],
                    TimeoutSeconds=60,
                    Parameters={"commands": [script], "executionTimeout": ["300"]},
                )
            except botocore.exceptions.ClientError as error:
                if error_code(error) == "InvalidInstanceId":
                    return None
                raise
        return str(answer["Command"]["CommandId"])

    def result(self, command_id: str, instance_id: str) -> CommandResult | None:
        """The command's end; None while it has none. `InvocationDoesNotExist` right after sending is normal."""
        with aws_errors("ssm:GetCommandInvocation"):
            try:
                answer = self._ssm.get_command_invocation(CommandId=command_id, InstanceId=instance_id)
            except botocore.exceptions.ClientError as error:
                if error_code(error) == "InvocationDoesNotExist":
                    return None
                raise
        # The API documents some statuses with spaces and answers them without (and the other way round).
        status = str(answer["Status"]).replace(" ", "")
        if status in _PENDING:
            return None
        return CommandResult(
            str(answer.get("StatusDetails") or status).replace(" ", ""),
            int(answer.get("ResponseCode", -1)),
            answer.get("StandardOutputContent", ""),
            answer.get("StandardErrorContent", ""),
        )
