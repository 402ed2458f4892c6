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
from runctl_action.emulator.wire import Answer, ApiError, Call, Wsgi, as_json, forward, timestamp

_DOCUMENT = "AWS-RunShellScript"
_PLUGIN = "aws:runShellScript"
_PARAMETERS = {"commands", "workingDirectory", "executionTimeout"}
_MAX_BYTES = 97 * 1024
# For a moment after SendCommand there is no invocation to get.
_INCONSISTENT_SECONDS = 0.03
_PING_SECONDS = 300
# What DescribeInstanceInformation filters by, and the field that each looks at.
_FILTERS = {
    "InstanceIds": "InstanceId",
    "PingStatus": "PingStatus",
    "PlatformTypes": "PlatformType",
    "AgentVersion": "AgentVersion",
    "ResourceType": "ResourceType",
}
_MAX_PLUGIN_OUTPUT = 2500


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
                listed = [_listed(i, has_details=bool(body.get("Details"))) for i in self._matching(body)]
                return as_json(_page("CommandInvocations", listed, body))
            case "CancelCommand":
                self._cancel(body)
                return as_json({})
            case "DescribeInstanceInformation":
                return as_json(_page("InstanceInformationList", self._registered(body), body))
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
        if len(set(ids)) < len(ids):
            raise ApiError("DuplicateInstanceId", "An instance is named twice.")
        for target in targets:
            if target.get("Key", "").lower() != "instanceids" and not target.get("Key", "").startswith("tag:"):
                raise ApiError("InvalidTarget", f"The target key {target.get('Key')!r} is not InstanceIds or tag:NAME.")
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
            seen = instance.id if key.lower() == "instanceids" else tags.get(key.removeprefix("tag:"))
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
            if found is None or found.parameter_type == "SecureString":
                raise ApiError("InvalidParameters", f"{name!r} is no parameter that a command can have.")
            return str(found.value)

        return re.sub(r"\{\{(.*?)\}\}", value, text, flags=re.DOTALL)

    def _command(self, body: dict[str, Any]) -> dict[str, Invocation]:
        found = self._commands.get(body.get("CommandId", ""))
        if found is None:
            raise ApiError("InvalidCommandId", "The command id is not valid.")
        return found

    def _invocation(self, body: dict[str, Any]) -> Invocation:
        found = self._commands.get(body.get("CommandId", ""), {}).get(body.get("InstanceId", ""))
        if found is None or not _is_known_yet(found):
            raise ApiError("InvocationDoesNotExist", "The command and instance have no invocation.")
        if body.get("PluginName", _PLUGIN) != _PLUGIN:
            raise ApiError("InvalidPluginName", f"The plugin of {_DOCUMENT} is {_PLUGIN}.")
        return found

    def _matching(self, body: dict[str, Any]) -> list[Invocation]:
        commands = [self._command(body)] if body.get("CommandId") else list(self._commands.values())
        found = [i for command in commands for i in command.values() if _is_known_yet(i)]
        if body.get("InstanceId"):
            found = [i for i in found if i.instance.id == body["InstanceId"]]
        for condition in body.get("Filters") or ():
            if condition["key"] != "Status":
                raise ApiError("InvalidFilterKey", f"The filter {condition['key']!r} is not emulated.")
            found = [i for i in found if i.status == condition["value"]]
        return found

    def _cancel(self, body: dict[str, Any]) -> None:
        command = self._command(body)
        ids = body.get("InstanceIds") or list(command)
        if unknown := set(ids) - set(command):
            raise ApiError("InvalidInstanceId", f"The command was not sent to {', '.join(sorted(unknown))}.")
        for instance_id in ids:
            command[instance_id].cancel()

    def _registered(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        found = [_information(instance) for instance in self._world.instances.values() if instance.pinged_at]
        for condition in [*(body.get("Filters") or ()), *(body.get("InstanceInformationFilterList") or ())]:
            key, values = condition.get("Key") or condition.get("key"), condition.get("Values") or condition["valueSet"]
            if key not in _FILTERS:
                raise ApiError("InvalidFilterKey", f"The filter {key!r} is not emulated.")
            found = [information for information in found if information[_FILTERS[key]] in values]
        return found


def _can_be_sent_to(instance: EmulatedInstance) -> bool:
    return instance.state == "running" and instance.is_online


def _is_known_yet(invocation: Invocation) -> bool:
    return time.time() - invocation.requested_at >= _INCONSISTENT_SECONDS


def _page(name: str, items: Sequence[dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
    """Raises ApiError."""
    token, size = str(body.get("NextToken") or "0"), int(body.get("MaxResults") or 50)
    if not token.isdecimal():
        raise ApiError("InvalidNextToken", "The specified token is not valid.")
    end = int(token) + size
    return {name: items[int(token) : end]} | ({"NextToken": str(end)} if end < len(items) else {})


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
        "DocumentVersion": "$DEFAULT",
        "Comment": invocation.comment,
        "PluginName": _PLUGIN,
        "ExecutionStartDateTime": _moment(invocation.began_at),
        "ExecutionElapsedTime": _elapsed(invocation),
        "ExecutionEndDateTime": _moment(invocation.ended_at),
        "ResponseCode": invocation.code,
        "Status": invocation.status,
        "StatusDetails": invocation.detail,
        "StandardOutputContent": truncated(invocation.out) if invocation.is_over else "",
        "StandardErrorContent": truncated(invocation.err) if invocation.is_over else "",
    }


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else timestamp(datetime.fromtimestamp(seconds, UTC))


def _elapsed(invocation: Invocation) -> str:
    if invocation.began_at is None or invocation.ended_at is None:
        return ""
    return f"PT{invocation.ended_at - invocation.began_at:.3f}S"


def _listed(invocation: Invocation, *, has_details: bool) -> dict[str, Any]:
    named = ("CommandId", "InstanceId", "DocumentName", "DocumentVersion", "Comment", "Status", "StatusDetails")
    listed = {name: value for name, value in _shown(invocation).items() if name in named}
    listed |= {"RequestedDateTime": invocation.requested_at, "CommandPlugins": []}
    if has_details:
        out, err = invocation.out.decode("utf-8", "replace"), invocation.err.decode("utf-8", "replace")
        joined = out + (f"\n----------ERROR-------\n{err}" if err else "")
        plugin = {
            "Name": _PLUGIN,
            "Status": invocation.status,
            "StatusDetails": invocation.detail,
            "ResponseCode": invocation.code,
            "Output": joined[:_MAX_PLUGIN_OUTPUT] if invocation.is_over else "",
        }
        listed["CommandPlugins"] = [plugin]
    return listed
