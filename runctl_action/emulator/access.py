"""What a call asks of IAM: actions, the resources that they touch, and what conditions can say about those."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runctl_action.emulator import s3
from runctl_action.emulator.state import ACCOUNT
from runctl_action.emulator.wire import Call

# Not even an explicit deny keeps somebody from asking who they are (STS API reference).
FREE = ("sts", "GetCallerIdentity")
_CHANGES = {"TerminateInstances", "StopInstances", "StartInstances", "RebootInstances"}

Tags = Callable[[str], Mapping[str, str]]


@dataclass(frozen=True)
class Question:
    """`context` holds condition keys, lower-cased."""

    action: str
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)


def questions(call: Call, tags_of: Tags, role_of: Callable[[str], Any]) -> list[Question]:
    """All of them must be allowed. `tags_of(instance id)`, `role_of(instance profile)`: moto's role, or None."""
    match call.service, call.action:
        case "s3", _:
            prefix = {"s3:prefix": call.query["prefix"]} if "prefix" in call.query else {}
            return [Question(action, resource, prefix) for action, resource in s3.needs(call)]
        case "ec2", "RunInstances":
            return list(_launch(call, role_of))
        case "ec2", action if action in _CHANGES or action == "CreateTags":
            return list(_of_instances(call, tags_of))
        case "ssm", "SendCommand":
            return list(_send(call, tags_of))
        case "ssm", "GetParameter":
            name = str(call.json.get("Name", "")).lstrip("/")
            owner = "" if name.startswith("aws/service/") else ACCOUNT
            return [Question("ssm:GetParameter", f"arn:aws:ssm:{call.region}:{owner}:parameter/{name}")]
        case "secretsmanager", "GetSecretValue":
            return [Question("secretsmanager:GetSecretValue", _secret(call))]
        case "iam", "GetInstanceProfile":
            name = call.form.get("InstanceProfileName", "")
            return [Question("iam:GetInstanceProfile", f"arn:aws:iam::{ACCOUNT}:instance-profile/{name}")]
        case "iam", "SimulatePrincipalPolicy":
            return [Question("iam:SimulatePrincipalPolicy", call.form.get("PolicySourceArn", ""))]
        case "sts", "AssumeRole":
            return [Question("sts:AssumeRole", call.form.get("RoleArn", ""))]
    return [Question(f"{call.service}:{call.action}")]


def _launch(call: Call, role_of: Callable[[str], Any]) -> Iterator[Question]:
    """A launch needs its permission on everything that it uses or makes, that to tag it, and that to pass the role."""
    form = call.form
    asked = {"ec2:instancetype": form.get("InstanceType", "")}
    yield Question("ec2:RunInstances", f"arn:aws:ec2:{call.region}::image/{form.get('ImageId', '')}", asked)
    subnet = form.get("SubnetId") or form.get("NetworkInterface.1.SubnetId") or "*"
    groups = [value for name, value in form.items() if name.startswith("SecurityGroupId.")] or ["*"]
    for resource in (f"subnet/{subnet}", *(f"security-group/{group}" for group in groups), "network-interface/*"):
        yield Question("ec2:RunInstances", _ec2(call, resource), asked)
    for kind in ("instance", "volume"):
        tags = _request_tags(call, kind)
        yield Question("ec2:RunInstances", _ec2(call, f"{kind}/*"), asked | tags)
        if tags:
            yield Question("ec2:CreateTags", _ec2(call, f"{kind}/*"), tags | {"ec2:createaction": "RunInstances"})
    if form.get("InstanceMarketOptions.MarketType") == "spot":
        yield Question("ec2:RunInstances", _ec2(call, "spot-instances-request/*"), asked)
    if (role := role_of(profile(form))) is not None:
        yield Question("iam:PassRole", str(role.arn), {"iam:passedtoservice": "ec2.amazonaws.com"})


def _of_instances(call: Call, tags_of: Tags) -> Iterator[Question]:
    request = {
        f"aws:requesttag/{value.lower()}": call.form.get(f"{name.removesuffix('.Key')}.Value", "")
        for name, value in call.form.items()
        if re.fullmatch(r"Tag\.\d+\.Key", name)
    }
    for name, value in call.form.items():
        if re.fullmatch(r"(InstanceId|ResourceId)\.\d+", name):
            resource = f"instance/{value}" if value.startswith("i-") else f"*/{value}"
            tags = _resource_tags(tags_of(value), "ec2:resourcetag") if value.startswith("i-") else {}
            yield Question(f"ec2:{call.action}", _ec2(call, resource), tags | request)


def _send(call: Call, tags_of: Tags) -> Iterator[Question]:
    document = call.json.get("DocumentName", "")
    # A document of AWS's own has no account in its ARN.
    owner = "" if document.startswith("AWS-") else ACCOUNT
    yield Question("ssm:SendCommand", f"arn:aws:ssm:{call.region}:{owner}:document/{document}")
    for instance_id in call.json.get("InstanceIds") or ["*"]:
        tags = _resource_tags(tags_of(instance_id), "ssm:resourcetag")
        yield Question("ssm:SendCommand", _ec2(call, f"instance/{instance_id}"), tags)


def profile(form: Mapping[str, str]) -> str:
    """The name of the instance profile that a launch asks for, "" without one."""
    return form.get("IamInstanceProfile.Name") or form.get("IamInstanceProfile.Arn", "").rsplit("/", 1)[-1]


def _request_tags(call: Call, kind: str) -> dict[str, str]:
    found = {}
    for name, value in call.form.items():
        match = re.fullmatch(r"(TagSpecification\.\d+)(\.Tag\.\d+)\.Key", name)
        if match and call.form.get(f"{match[1]}.ResourceType") == kind:
            found[f"aws:requesttag/{value.lower()}"] = call.form.get(f"{match[1]}{match[2]}.Value", "")
    return found


def _resource_tags(tags: Mapping[str, str], own: str) -> dict[str, str]:
    """Each service's own key, and the global one."""
    return {f"{prefix}/{name.lower()}": value for name, value in tags.items() for prefix in (own, "aws:resourcetag")}


def _secret(call: Call) -> str:
    """By name, a part of its ARN, or all of it, which ends in six characters of AWS's making."""
    from moto.secretsmanager.models import secretsmanager_backends

    name = str(call.json.get("SecretId", ""))
    known = secretsmanager_backends[ACCOUNT][call.region].secrets
    if name in known:
        return str(known[name].arn)
    return name if name.startswith("arn:") else f"arn:aws:secretsmanager:{call.region}:{ACCOUNT}:secret:{name}"


def _ec2(call: Call, resource: str) -> str:
    return f"arn:aws:ec2:{call.region}:{ACCOUNT}:{resource}"
