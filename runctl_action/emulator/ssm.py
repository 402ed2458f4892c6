"""SSM's API: commands to instances, what became of them, which instances there are, public parameters."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from runctl_action.emulator.agent import Agents, Invocation, execution_timeout, truncated
from runctl_action.emulator.ec2 import IMAGES
from runctl_action.emulator.instances import Lives
from runctl_action.emulator.state import EmulatedInstance, World
from runctl_action.emulator.wire import Answer, ApiError, Call, Wsgi, as_json, forward

_DOCUMENT = "AWS-RunShellScript"
_PARAMETERS = {"commands", "workingDirectory", "executionTimeout"}
_MAX_BYTES = 97 * 1024
# For a moment after SendCommand there is no invocation to get.
_INCONSISTENT_SECONDS = 0.03
_PING_SECONDS = 300


class Ssm:
    def __init__(self, world: World, moto: Wsgi, lives: Lives) -> None:
        self._world = world
        self._moto = moto
        self._lives = lives
        self._agents = Agents(world, lives.reboot)
        self._commands: dict[str, dict[str, Invocation]] = {}

    def handle(self, call: Call) -> Answer:
        """Raises ApiError."""
        body = call.json
        match call.action:
            case "SendCommand":
                return as_json(self._send(body))
            case "GetCommandInvocation":
                return as_json(_shown(self._invocation(body)))
            case "ListCommandInvocations":
                return as_json({"CommandInvocations": [_listed(i, body) for i in self._matching(body)]})
            case "CancelCommand":
                for invocation in self._command(body).values():
                    if not invocation.is_over and body.get("InstanceIds", [invocation.instance.id]):
                        invocation.cancel()
                return as_json({})
            case "DescribeInstanceInformation":
                return as_json({"InstanceInformationList": [_information(i) for i in self._registered(body)]})
            case "GetConnectionStatus":
                found = self._world.instances.get(body.get("Target", ""))
                is_there = found is not None and found.state == "running" and found.is_online and not found.is_frozen
                return as_json({"Target": body["Target"], "Status": "connected" if is_there else "notconnected"})
            case "GetParameter" if body.get("Name") in IMAGES:
                value = {"Name": body["Name"], "Type": "String", "Value": IMAGES[body["Name"]][0], "Version": 1}
                return as_json({"Parameter": value})
        return forward(self._moto, call.environ)

    def _send(self, body: dict[str, Any]) -> dict[str, Any]:
        parameters = body.get("Parameters") or {}
        if body.get("DocumentName") != _DOCUMENT:
            raise ApiError("InvalidDocument", f"Document with name {body.get('DocumentName')} does not exist.")
        if not parameters.get("commands") or set(parameters) - _PARAMETERS:
            raise ApiError("InvalidParameters", f"The parameters of {_DOCUMENT} are {', '.join(sorted(_PARAMETERS))}.")
        if any(not isinstance(value, list) for value in parameters.values()):
            raise ApiError("InvalidParameters", "Each parameter is a list of strings.")
        if sum(len(text.encode()) for value in parameters.values() for text in value) > _MAX_BYTES:
            raise ApiError("MaxDocumentSizeExceeded", "The document and its parameters are too large.")
        if len(body.get("Comment", "")) > 100:
            raise ApiError("ValidationException", "Comment: at most 100 characters.")
        if not 30 <= int(body.get("TimeoutSeconds", 3600)) <= 2_592_000:
            raise ApiError("ValidationException", "TimeoutSeconds: from 30 to 2592000.")
        instances = self._addressed(body)
        command_id = str(uuid.uuid4())
        script = "\n".join(self._substituted(text) for text in parameters["commands"]) + "\n"
        self._commands[command_id] = {}
        for instance in instances:
            invocation = Invocation(
                command_id=command_id,
                instance=instance,
                script=script,
                working_directory=(parameters.get("workingDirectory") or [""])[0] or "/usr/bin",
                timeout_seconds=execution_timeout((parameters.get("executionTimeout") or ["3600"])[0]),
                delivery_seconds=float(body.get("TimeoutSeconds", 3600)),
                comment=body.get("Comment", ""),
            )
            self._commands[command_id][instance.id] = invocation
            threading.Thread(target=self._agents.run, args=(invocation,), daemon=True).start()
        sent = {"CommandId": command_id, "DocumentName": _DOCUMENT, "Status": "Pending", "StatusDetails": "Pending"}
        return {"Command": sent | {"InstanceIds": body.get("InstanceIds") or [], "TargetCount": len(instances)}}

    def _addressed(self, body: dict[str, Any]) -> list[EmulatedInstance]:
        """Ids must all be there; targets are whoever matches, and nobody is no error."""
        ids, targets = body.get("InstanceIds") or [], body.get("Targets") or []
        if bool(ids) == bool(targets) or len(ids) > 50 or len(targets) > 5:
            raise ApiError("ValidationException", "Name InstanceIds (1 to 50) or Targets (1 to 5), and not both.")
        if ids:
            found = [self._world.instances.get(instance_id) for instance_id in ids]
            if any(instance is None or not _can_be_sent_to(instance) for instance in found):
                raise ApiError(
                    "InvalidInstanceId", "Instances [" + ", ".join(ids) + "] not in a valid state for account"
                )
            return [instance for instance in found if instance is not None]
        return [i for i in self._world.instances.values() if _can_be_sent_to(i) and self._is_target(i, targets)]

    def _is_target(self, instance: EmulatedInstance, targets: Sequence[dict[str, Any]]) -> bool:
        tags = {tag["key"]: tag["value"] for tag in self._lives.moto(instance.id).get_tags()}
        for target in targets:
            key, values = target.get("Key", ""), target.get("Values", [])
            if key.lower() == "instanceids":
                seen = instance.id
            elif key.startswith("tag:"):
                seen = tags.get(key.removeprefix("tag:"), "")
            else:
                raise ApiError("InvalidTarget", f"The target key {key!r} is neither InstanceIds nor tag:NAME.")
            if seen not in values:
                return False
        return True

    def _substituted(self, text: str) -> str:
        """Parameter Store's values for {{ssm:NAME}}; anything else in double braces is no parameter that is there."""
        from moto.ssm.models import ssm_backends

        from runctl_action.emulator.state import ACCOUNT

        store = ssm_backends[ACCOUNT][self._world.region]

        def value(match: re.Match[str]) -> str:
            name = match[1].strip()
            found = store.get_parameter(name.removeprefix("ssm:")) if name.startswith("ssm:") else None
            if found is None:
                raise ApiError("InvalidParameters", f"The parameter {name!r} does not exist.")
            return str(found.value)

        return re.sub(r"\{\{(.*?)\}\}", value, text, flags=re.DOTALL)

    def _command(self, body: dict[str, Any]) -> dict[str, Invocation]:
        found = self._commands.get(body.get("CommandId", ""))
        if found is None:
            raise ApiError("InvalidCommandId", "The command id is not valid.")
        return found

    def _invocation(self, body: dict[str, Any]) -> Invocation:
        found = self._commands.get(body.get("CommandId", ""), {}).get(body.get("InstanceId", ""))
        if found is None or time.monotonic() - found.requested_at < _INCONSISTENT_SECONDS:
            raise ApiError("InvocationDoesNotExist", "The command and instance have no invocation.")
        return found

    def _matching(self, body: dict[str, Any]) -> list[Invocation]:
        commands = [self._command(body)] if body.get("CommandId") else list(self._commands.values())
        wanted = body.get("InstanceId")
        return [i for command in commands for i in command.values() if wanted in (None, i.instance.id)]

    def _registered(self, body: dict[str, Any]) -> list[EmulatedInstance]:
        ids: set[str] | None = None
        for condition in [*body.get("Filters", ()), *body.get("InstanceInformationFilterList", ())]:
            key = condition.get("Key") or condition.get("key")
            if key != "InstanceIds":
                raise ApiError("InvalidInstanceInformationFilterValue", f"The filter {key!r} is not emulated.")
            ids = set(condition.get("Values") or condition.get("valueSet") or ())
        return [i for i in self._world.instances.values() if i.pinged_at and (ids is None or i.id in ids)]


def _can_be_sent_to(instance: EmulatedInstance) -> bool:
    return instance.state == "running" and instance.is_online


def _information(instance: EmulatedInstance) -> dict[str, Any]:
    """As old as the last ping: the agent says that it is there every five minutes, and not that it is going."""
    if instance.is_online and not instance.is_frozen and time.time() - instance.pinged_at > _PING_SECONDS:
        instance.pinged_at = time.time()
    is_recent = time.time() - instance.pinged_at <= _PING_SECONDS
    return {
        "InstanceId": instance.id,
        "PingStatus": "Online" if is_recent else "ConnectionLost",
        "LastPingDateTime": datetime.fromtimestamp(instance.pinged_at, UTC).timestamp(),
        "AgentVersion": "3.3.0.0",
        "IsLatestVersion": True,
        "PlatformType": "Linux",
        "PlatformName": "Ubuntu",
        "PlatformVersion": "24.04",
        "ResourceType": "EC2Instance",
    }


def _shown(invocation: Invocation) -> dict[str, Any]:
    return {
        "CommandId": invocation.command_id,
        "InstanceId": invocation.instance.id,
        "DocumentName": _DOCUMENT,
        "Comment": invocation.comment,
        "PluginName": "aws:runShellScript",
        "ResponseCode": invocation.code,
        "Status": invocation.status,
        "StatusDetails": invocation.detail,
        "StandardOutputContent": truncated(invocation.out) if invocation.is_over else "",
        "StandardErrorContent": truncated(invocation.err) if invocation.is_over else "",
    }


def _listed(invocation: Invocation, body: dict[str, Any]) -> dict[str, Any]:
    listed = {name: _shown(invocation)[name] for name in ("CommandId", "InstanceId", "DocumentName", "Comment")}
    listed |= {"Status": invocation.status, "StatusDetails": invocation.detail, "CommandPlugins": []}
    if body.get("Details"):
        out, err = invocation.out.decode("utf-8", "replace"), invocation.err.decode("utf-8", "replace")
        joined = out + (f"\n----------ERROR-------\n{err}" if err else "")
        plugin = {
            "Name": "aws:runShellScript",
            "Status": invocation.status,
            "StatusDetails": invocation.detail,
            "ResponseCode": invocation.code,
            "Output": joined[:2500] if invocation.is_over else "",
        }
        listed["CommandPlugins"] = [plugin]
    return listed
