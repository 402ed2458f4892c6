"""What the two policies do not allow: asked for really, with the sessions of the two roles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from iam import Asked, Grant, grants, without
from scene import Scene

from runctl_action.emulator import policies
from runctl_action.emulator.server import BUCKET, PROFILE
from runctl_action.emulator.state import ACCOUNT

REFUSED = {"ec2": "UnauthorizedOperation", "ssm": "AccessDeniedException", "s3": "AccessDenied", "iam": "AccessDenied"}
COMMAND = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}}
# One for each condition: what only that condition keeps from being allowed.
KEPT_OUT = {
    "LaunchTagged": ("ec2:RunInstances", "arn:aws:ec2:us-east-1:{account}:instance/*", {"aws:requesttag/runctl:bucket": "theirs"}),
    "Tag": ("ec2:CreateTags", "arn:aws:ec2:us-east-1:{account}:instance/i-1", {"aws:resourcetag/team": "theirs"}),
    "EndOurs": ("ec2:TerminateInstances", "arn:aws:ec2:us-east-1:{account}:instance/i-1", {"aws:resourcetag/runctl:bucket": "theirs"}),
    "CommandOurs": ("ssm:SendCommand", "arn:aws:ec2:us-east-1:{account}:instance/i-1", {"ssm:resourcetag/runctl:bucket": "theirs"}),
    "HostRole": ("iam:PassRole", "{role}", {"iam:passedtoservice": "lambda.amazonaws.com"}),
    "FirstSpot": (
        "iam:CreateServiceLinkedRole",
        "arn:aws:iam::{account}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot",
        {"iam:awsservicename": "ecs.amazonaws.com"},
    ),
}  # fmt: skip


def code(call: Callable[..., Any], **parameters: Any) -> str:
    """Of its error; "" when it is done, and when it would have been."""
    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"]).replace("DryRunOperation", "")
    return ""


@pytest.fixture(autouse=True, scope="module")
def _clear(scene: Scene) -> Iterator[None]:
    yield
    scene.clear()


@pytest.fixture(scope="module")
def ours(scene: Scene) -> str:
    return scene.instance({"runctl:bucket": scene.bucket})


@pytest.fixture(scope="module")
def theirs(scene: Scene) -> list[str]:
    """Without a tag, and of another stack."""
    return [scene.instance({}), scene.instance({"runctl:bucket": "another", "runctl:run": "theirs"})]


def test_a_launcher_ends_and_commands_what_carries_its_buckets_name(scene: Scene, ours: str, theirs: list[str]) -> None:
    ec2, ssm = scene.as_launcher("ec2"), scene.as_launcher("ssm")
    assert code(ec2.terminate_instances, InstanceIds=[ours], DryRun=True) == ""
    assert code(ssm.send_command, InstanceIds=[ours], **COMMAND) == ""
    for instance in theirs:
        assert code(ec2.terminate_instances, InstanceIds=[instance], DryRun=True) == REFUSED["ec2"]
        assert code(ec2.terminate_instances, InstanceIds=[ours, instance], DryRun=True) == REFUSED["ec2"]
        assert code(ssm.send_command, InstanceIds=[instance], **COMMAND) == REFUSED["ssm"]


@pytest.mark.parametrize("operation", ["stop_instances", "start_instances", "reboot_instances"])
def test_a_launcher_changes_no_instance_otherwise(scene: Scene, ours: str, operation: str) -> None:
    assert code(getattr(scene.as_launcher("ec2"), operation), InstanceIds=[ours], DryRun=True) == REFUSED["ec2"]


def test_a_launcher_sends_the_one_document(scene: Scene, ours: str) -> None:
    send = scene.as_launcher("ssm").send_command
    assert code(send, InstanceIds=[ours], DocumentName="AWS-ConfigureAWSPackage") == REFUSED["ssm"]
    assert code(send, InstanceIds=[ours], DocumentName="of-the-account") == REFUSED["ssm"]


def test_a_launcher_makes_nothing_its_own_that_is_there(scene: Scene, theirs: list[str]) -> None:
    tags = [{"Key": "runctl:bucket", "Value": scene.bucket}]
    assert code(scene.as_launcher("ec2").create_tags, Resources=theirs, Tags=tags) == REFUSED["ec2"]


@pytest.mark.parametrize(
    ("bucket", "profile", "said"),
    [("", "", ""), ("another", "", REFUSED["ec2"]), (None, "", REFUSED["ec2"]), ("", PROFILE, REFUSED["ec2"])],
    ids=["as it is", "with another bucket's tag", "without a tag", "with another role"],
)
def test_a_launcher_launches_what_carries_its_tag_with_the_hosts_role(
    scene: Scene, bucket: str | None, profile: str, said: str
) -> None:
    tags = [{"Key": "runctl:bucket", "Value": bucket or scene.bucket}]
    kinds = () if bucket is None else ("instance", "volume")
    launched = code(
        scene.as_launcher("ec2").run_instances, DryRun=True, MinCount=1, MaxCount=1, InstanceType="t3.micro",
        ImageId="ami-0000000000ubuntu1", TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in kinds],
        IamInstanceProfile={"Name": profile or scene.stack.outputs["InstanceProfile"]},
    )  # fmt: skip
    assert launched == said


def test_a_launcher_writes_its_own_prefixes_of_the_one_bucket(scene: Scene) -> None:
    s3 = scene.as_launcher("s3")
    for key in ("runs/r/x", "packs/p", "tools/t", "sources/s", "open/r"):
        assert code(s3.put_object, Bucket=scene.bucket, Key=f"runctl/{key}") == ""
    for key in ("runctl/hosts/AROA:i-1/r/1/result.json", "runctl/x", "other/packs/p", "packs/p"):
        assert code(s3.put_object, Bucket=scene.bucket, Key=key) == REFUSED["s3"]
    for key in ("runs/r/report.json", "packs/p", "hosts/AROA:i-1/r/1/result.json"):
        assert code(s3.delete_object, Bucket=scene.bucket, Key=f"runctl/{key}") == REFUSED["s3"]
    assert code(s3.get_object, Bucket=scene.bucket, Key="other/key") == REFUSED["s3"]
    assert code(s3.list_objects_v2, Bucket=BUCKET) == REFUSED["s3"]
    assert code(s3.put_object, Bucket=BUCKET, Key="runctl/packs/p") == REFUSED["s3"]
    assert code(s3.put_bucket_policy, Bucket=scene.bucket, Policy="{}") == REFUSED["s3"]


def test_a_launcher_reads_no_secret_and_no_other_role(scene: Scene) -> None:
    ssm, iam = scene.as_launcher("ssm"), scene.as_launcher("iam")
    assert code(ssm.get_parameter, Name="/team/wandb", WithDecryption=True) == REFUSED["ssm"]
    assert code(iam.get_instance_profile, InstanceProfileName=PROFILE) == REFUSED["iam"]
    source = {"PolicySourceArn": f"arn:aws:iam::{ACCOUNT}:role/{PROFILE}", "ActionNames": ["s3:GetObject"]}
    assert code(iam.simulate_principal_policy, **source) == REFUSED["iam"]


def test_a_host_writes_below_its_own_id_and_reads_the_rest(scene: Scene, ours: str, theirs: list[str]) -> None:
    s3 = scene.as_host(ours, "s3")
    userid = scene.aws.world.instances[ours].userid
    another = scene.aws.world.instances[theirs[0]].userid
    assert code(s3.put_object, Bucket=scene.bucket, Key=f"runctl/hosts/{userid}/r/1/status.json") == ""
    for key in (f"hosts/{another}/r/1/status.json", f"hosts/{userid}", "hosts/x", "runs/r/spec.json", "packs/p",
                "tools/t", "sources/s", "open/r"):  # fmt: skip
        assert code(s3.put_object, Bucket=scene.bucket, Key=f"runctl/{key}") == REFUSED["s3"]
    assert code(s3.delete_object, Bucket=scene.bucket, Key=f"runctl/hosts/{userid}/r/1/status.json") == REFUSED["s3"]
    assert code(s3.get_object, Bucket=scene.bucket, Key=f"runctl/hosts/{userid}/r/1/status.json") == ""
    assert code(s3.get_object, Bucket=scene.bucket, Key=f"runctl/hosts/{another}/r/1/none") == "NoSuchKey"
    assert code(s3.get_object, Bucket=scene.bucket, Key="other/key") == REFUSED["s3"]
    assert code(s3.get_object, Bucket=BUCKET, Key="runctl/key") == REFUSED["s3"]
    assert code(s3.list_objects_v2, Bucket=BUCKET) == REFUSED["s3"]


def test_a_host_does_nothing_else_in_the_account(scene: Scene, ours: str) -> None:
    ec2, ssm = scene.as_host(ours, "ec2"), scene.as_host(ours, "ssm")
    assert code(ec2.describe_instances) == REFUSED["ec2"]
    assert code(ec2.terminate_instances, InstanceIds=[ours], DryRun=True) == REFUSED["ec2"]
    assert code(ssm.send_command, InstanceIds=[ours], **COMMAND) == REFUSED["ssm"]
    scene.owner("ssm").put_parameter(Name="/team/other", Type="SecureString", Value="x")
    assert code(ssm.get_parameter, Name="/team/wandb", WithDecryption=True) == ""
    assert code(ssm.get_parameter, Name="/team/other", WithDecryption=True) == REFUSED["ssm"]
    other = scene.owner("secretsmanager").create_secret(Name="team/other", SecretString="x")["ARN"]
    assert code(scene.as_host(ours, "secretsmanager").get_secret_value, SecretId=other) == "AccessDeniedException"


def test_there_is_a_case_for_each_condition(scene: Scene) -> None:
    assert {grant.sid for grant in grants(scene.launcher.document, "Condition")} == set(KEPT_OUT)
    assert list(grants(scene.host.document, "Condition")) == []


@pytest.mark.parametrize("sid", KEPT_OUT)
def test_no_condition_could_be_left_out(scene: Scene, sid: str) -> None:
    action, resource, context = KEPT_OUT[sid]
    role = scene.stack.resources["HostRole"].arn
    asked = Asked(action, resource.format(account=ACCOUNT, role=role), tuple(context.items()))
    [condition] = [grant for grant in grants(scene.launcher.document, "Condition") if grant.sid == sid]
    assert isinstance(condition, Grant)
    assert not asked.is_allowed_by(policies.parse(scene.launcher.document))
    assert asked.is_allowed_by(policies.parse(without(scene.launcher.document, condition)))
