"""What hosts may do: read the bucket, write below their own id and nowhere else, and be reached by SSM."""

from __future__ import annotations

from collections.abc import Sequence

from runctl_action.cloud.instances import require_state
from runctl_action.doctor.checkup import Facts, Unseen
from runctl_action.errors import CloudError
from runctl_action.run.launch import profile_of
from runctl_action.run.request import required_profile

_HOST, _OTHER_HOST = "i-0123456789abcdef0", "i-0fedcba9876543210"
_NO_SHA256 = "0" * 64
# What the agent calls to be sent commands. It takes ec2messages only where ssmmessages is not to be had, before 3.3.40
# (Systems Manager user guide, "ec2messages, ssmmessages, and other API operations").
AGENT = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)


def instance_profile(facts: Facts) -> str:
    settings = facts.settings
    if settings.instance_id:
        instance = require_state(
            facts.instances.find(settings.instance_id), settings.instance_id, ("running",), "train on it"
        )
        profile = profile_of(instance)
    else:
        profile = required_profile(settings)
    facts.role = facts.instances.host_role(profile)
    return f"{profile} has the role {facts.role.arn.rsplit('/', 1)[-1]}"


def host_policies(facts: Facts) -> str:
    layout, bucket = facts.layout, facts.store.bucket
    partition, role = facts.role.arn.split(":")[1], facts.role
    root = f"arn:{partition}:s3:::{bucket}"
    run = layout.run("doctor")
    own = layout.host(f"{role.id}:{_HOST}", "doctor", 1).status
    of_others = [
        run.report,
        layout.pack(_NO_SHA256),
        layout.tool(_NO_SHA256, "host.pyz"),
        layout.host(f"{role.id}:{_OTHER_HOST}", "doctor", 1).status,
    ]
    for action, key in (
        ("s3:ListBucket", ""),
        ("s3:GetObject", run.spec),
        ("s3:PutObject", own),
        ("s3:AbortMultipartUpload", own),
    ):
        resource = f"{root}/{key}" if key else root
        if _denied(facts, [action], resource):
            to = f"{root}/{layout.host('${aws:userid}', '*', 1).base.removesuffix('/1')}" if key == own else resource
            raise CloudError(
                f"the role {_name(facts)} may not {action} on s3://{bucket}/{key}",
                f"allow {action} on {to} in the role's policy; infra/runctl.yaml has one that fits",
            )
    for key in of_others:
        if not _denied(facts, ["s3:PutObject"], f"{root}/{key}"):
            raise CloudError(
                f"the role {_name(facts)} may s3:PutObject on s3://{bucket}/{key}: what trains on one host could "
                "change what another trains, or is told",
                "allow it to write below hosts/${aws:userid}/ only; infra/runctl.yaml has a policy that fits",
            )
    return f"{_name(facts)} reads the bucket, and writes below hosts/${{aws:userid}}/ only"


def reading_commands(facts: Facts) -> str:
    """Of the launcher. Whether it may send them hangs on the tags of an instance, which is not there yet."""
    facts.inspection.read_no_command()
    return "we may read the answers of SSM"


def agent(facts: Facts) -> str:
    if denied := _denied(facts, AGENT, "*"):
        raise CloudError(
            f"the role {_name(facts)} may not {', '.join(denied)}: SSM will never know its hosts",
            "allow these in the role's policy, as infra/runctl.yaml does; or (hosts then read every parameter): aws "
            f"iam attach-role-policy --role-name {_name(facts)} --policy-arn "
            "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore",
        )
    return f"{_name(facts)} lets the SSM agent register and be sent commands"


def _denied(facts: Facts, actions: Sequence[str], resource: str) -> list[str]:
    """Those of `actions` that the role may not. Raises Unseen where that hangs on what only a real request has."""
    context = {
        "aws:userid": f"{facts.role.id}:{_HOST}",
        "aws:SecureTransport": "true",
        "aws:RequestedRegion": facts.session.region,
        "s3:prefix": f"{facts.layout.run('doctor').base}/",
    }
    found = facts.inspection.decisions(facts.role.arn, actions, resource, context)
    denied = [decision for decision in found if not decision.allowed]
    if missing := sorted({key for decision in denied for key in decision.missing}):
        raise Unseen(
            f"whether {_name(facts)} may {', '.join(decision.action for decision in denied)} on {resource} hangs on "
            f"{', '.join(missing)}, which only a host's own request has"
        )
    return [decision.action for decision in denied]


def _name(facts: Facts) -> str:
    return facts.role.arn.rsplit("/", 1)[-1]
