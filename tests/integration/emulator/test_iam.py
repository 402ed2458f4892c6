"""IAM where moto does not enforce: each permission is needed for its call, PassRole and tag conditions too."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from runctl_action.emulator import policies
from runctl_action.emulator.server import BUCKET, PROFILE
from runctl_action.emulator.state import ACCOUNT, LAUNCHER_ROLE

IMAGE = "ami-0000000000ubuntu1"
LAUNCH = {
    "ImageId": IMAGE, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, "DryRun": True,
    "IamInstanceProfile": {"Name": PROFILE},
    "TagSpecifications": [
        {"ResourceType": kind, "Tags": [{"Key": "runctl:run", "Value": "r"}]} for kind in ("instance", "volume")
    ],
}  # fmt: skip
SEND = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}}
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
TAGGED = {"StringEquals": {"aws:ResourceTag/runctl:run": "mine"}}

# Everything that a launcher does: action, service, operation, parameters. "INSTANCE" is one that runs.
CALLS = [
    ("ec2:RunInstances", "ec2", "run_instances", LAUNCH),
    ("ec2:CreateTags", "ec2", "run_instances", LAUNCH),
    ("iam:PassRole", "ec2", "run_instances", LAUNCH),
    ("ec2:DescribeInstances", "ec2", "describe_instances", {"InstanceIds": ["INSTANCE"]}),
    ("ec2:DescribeImages", "ec2", "describe_images", {"ImageIds": [IMAGE]}),
    ("ec2:DescribeSubnets", "ec2", "describe_subnets", {}),
    ("ec2:DescribeInstanceTypes", "ec2", "describe_instance_types", {"InstanceTypes": ["t3.micro"]}),
    ("ec2:DescribeSpotPriceHistory", "ec2", "describe_spot_price_history", {"EndTime": "2020-01-01"}),
    ("ec2:TerminateInstances", "ec2", "terminate_instances", {"InstanceIds": ["INSTANCE"], "DryRun": True}),
    ("ec2:StartInstances", "ec2", "start_instances", {"InstanceIds": ["INSTANCE"]}),
    ("ssm:SendCommand", "ssm", "send_command", SEND | {"InstanceIds": ["INSTANCE"]}),
    ("ssm:DescribeInstanceInformation", "ssm", "describe_instance_information", {}),
    ("ssm:ListCommandInvocations", "ssm", "list_command_invocations", {}),
    ("ssm:GetParameter", "ssm", "get_parameter", {"Name": UBUNTU}),
    ("pricing:GetProducts", "pricing", "get_products", {"ServiceCode": "AmazonEC2", "MaxResults": 1}),
    ("iam:GetInstanceProfile", "iam", "get_instance_profile", {"InstanceProfileName": PROFILE}),
    ("s3:GetObject", "s3", "get_object", {"Bucket": BUCKET, "Key": "iam/there"}),
    ("s3:PutObject", "s3", "put_object", {"Bucket": BUCKET, "Key": "iam/there", "Body": b""}),
    ("s3:DeleteObject", "s3", "delete_object", {"Bucket": BUCKET, "Key": "iam/gone"}),
    ("s3:ListBucket", "s3", "list_objects_v2", {"Bucket": BUCKET}),
    ("sts:AssumeRole", "sts", "assume_role",
     {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{LAUNCHER_ROLE}", "RoleSessionName": "again"}),
]  # fmt: skip
DENIED = {"ec2": "UnauthorizedOperation", "ssm": "AccessDeniedException", "pricing": "AccessDeniedException"}
DENIED |= dict.fromkeys(("iam", "s3", "sts"), "AccessDenied")
ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})


@pytest.fixture(scope="module")
def impatient(aws: Any) -> Iterator[Callable[[str], Any]]:
    environ, made = aws.environ, {}
    session = boto3.Session(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")

    def get(service: str) -> Any:
        if service not in made:
            made[service] = session.client(service, endpoint_url=aws.endpoint, config=ONCE)
        return made[service]

    yield get
    for client in made.values():
        client.close()


@pytest.fixture
def allow(aws: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`allow(*statements)`: the launcher's policy from here to the end of the test."""

    def set_policy(*statements: dict[str, Any]) -> None:
        filled = [{"Effect": "Allow", "Action": "*", "Resource": "*"} | statement for statement in statements]
        policy = policies.parse({"Version": "2012-10-17", "Statement": filled})
        monkeypatch.setattr(aws.world.credentials[aws.environ["AWS_ACCESS_KEY_ID"]], "policy", policy)

    return set_policy


def code(call: Callable[..., Any], **parameters: Any) -> str:
    """Of its error; "" when it is done, and when it would have been."""
    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"]).replace("DryRunOperation", "")
    return ""


@pytest.fixture
def outcomes(impatient: Any, instance: str, s3: Any) -> Callable[[], dict[str, str]]:
    """By action, the error code of the call that needs it."""
    s3.put_object(Bucket=BUCKET, Key="iam/there", Body=b"")

    def call_all() -> dict[str, str]:
        found: dict[str, str] = {}
        for action, service, operation, parameters in CALLS:
            if parameters is LAUNCH and found:
                found[action] = found["ec2:RunInstances"]
                continue
            filled = json.loads(json.dumps(parameters, default=str).replace('"INSTANCE"', f'"{instance}"'))
            filled |= {name: value for name, value in parameters.items() if isinstance(value, bytes)}
            found[action] = code(getattr(impatient(service), operation), **filled)
        return found

    return call_all


def test_with_all_permissions_nothing_is_denied(allow: Any, outcomes: Any) -> None:
    allow({"Action": sorted({action for action, *_ in CALLS})})
    assert outcomes() == dict.fromkeys((action for action, *_ in CALLS), "")


@pytest.mark.parametrize("action", [action for action, *_ in CALLS])
def test_iam_denies_exactly_the_calls_that_need_the_permission_that_is_missing(
    allow: Any, outcomes: Any, action: str
) -> None:
    allow({"Action": sorted({action for action, *_ in CALLS} - {action})})
    service = next(service for found, service, *_ in CALLS if found == action)
    of_launch = {found for found, *_, parameters in CALLS if parameters is LAUNCH}
    needing = of_launch if action in of_launch else {action}
    assert {found: said for found, said in outcomes().items() if said} == dict.fromkeys(needing, DENIED[service])


def test_the_message_names_who_may_not_do_what_on_what(allow: Any, impatient: Any) -> None:
    allow({"Action": "ec2:*"})
    with pytest.raises(ClientError) as refused:
        impatient("ec2").run_instances(**LAUNCH)
    assert refused.value.response["Error"]["Message"] == (
        f"User: arn:aws:iam::{ACCOUNT}:user/launcher is not authorized to perform: iam:PassRole on resource: "
        f"arn:aws:iam::{ACCOUNT}:role/{PROFILE}"
    )


def test_who_one_is_can_always_be_asked(allow: Any, impatient: Any) -> None:
    allow({"Effect": "Deny"})
    assert code(impatient("sts").get_caller_identity) == ""


def test_iam_enforces_pass_role_for_one_role_and_one_service(allow: Any, impatient: Any) -> None:
    def statement(role: str, service: str) -> dict[str, Any]:
        passed = {"StringEquals": {"iam:PassedToService": service}}
        return {"Action": "iam:PassRole", "Resource": f"arn:aws:iam::{ACCOUNT}:role/{role}", "Condition": passed}

    launch = impatient("ec2").run_instances
    for role, service, said in (
        (PROFILE, "ec2.amazonaws.com", ""),
        (LAUNCHER_ROLE, "ec2.amazonaws.com", "UnauthorizedOperation"),
        (PROFILE, "lambda.amazonaws.com", "UnauthorizedOperation"),
    ):
        allow({"Action": "ec2:*"}, statement(role, service))
        assert code(launch, **LAUNCH) == said
    allow({"Action": "ec2:*"})
    assert code(launch, **{name: value for name, value in LAUNCH.items() if name != "IamInstanceProfile"}) == ""


def test_tags_are_made_at_the_launch_alone(allow: Any, impatient: Any, instance: str) -> None:
    at_launch = {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    allow({"Action": ["ec2:RunInstances", "iam:PassRole"]}, {"Action": "ec2:CreateTags", "Condition": at_launch})
    assert code(impatient("ec2").run_instances, **LAUNCH) == ""
    tags = [{"Key": "runctl:run", "Value": "mine"}]
    assert code(impatient("ec2").create_tags, Resources=[instance], Tags=tags) == "UnauthorizedOperation"


def test_a_launch_can_be_held_to_its_tags_and_types(allow: Any, impatient: Any) -> None:
    def launch(**changed: Any) -> str:
        return code(impatient("ec2").run_instances, **LAUNCH | changed)

    ours = f"arn:aws:ec2:*:{ACCOUNT}:instance/*"
    rest = [f"arn:aws:ec2:*:{ACCOUNT}:{kind}/*" for kind in ("volume", "subnet", "security-group", "network-interface")]
    condition = {"StringLike": {"aws:RequestTag/runctl:run": "?*", "ec2:InstanceType": "t3.*"}}
    allow(
        {"Action": ["ec2:CreateTags", "iam:PassRole"]},
        {"Action": "ec2:RunInstances", "Resource": [*rest, "arn:aws:ec2:*::image/*"]},
        {"Action": "ec2:RunInstances", "Resource": ours, "Condition": condition},
    )
    assert launch() == ""
    assert launch(InstanceType="m7i.large") == "UnauthorizedOperation"
    assert launch(TagSpecifications=[]) == "UnauthorizedOperation"


@pytest.mark.parametrize("key", ["aws:ResourceTag/runctl:run", "ec2:ResourceTag/runctl:run"])
def test_iam_enforces_tag_conditions_of_instances(
    allow: Any, impatient: Any, boot: Any, instance: str, key: str
) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "runctl:run", "Value": "mine"}]}]
    ours = boot(TagSpecifications=tags, wait=False)
    allow({"Action": "ec2:TerminateInstances", "Condition": {"StringEquals": {key: "mine"}}})
    terminate = impatient("ec2").terminate_instances
    assert code(terminate, InstanceIds=[ours], DryRun=True) == ""
    assert code(terminate, InstanceIds=[instance], DryRun=True) == "UnauthorizedOperation"
    assert code(terminate, InstanceIds=[ours, instance], DryRun=True) == "UnauthorizedOperation"


@pytest.mark.parametrize("key", ["aws:ResourceTag/runctl:run", "ssm:resourceTag/runctl:run"])
def test_a_command_is_authorised_on_its_document_and_on_its_instances(
    allow: Any, impatient: Any, boot: Any, instance: str, key: str
) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "runctl:run", "Value": "mine"}]}]
    ours = boot(TagSpecifications=tags)
    document = {"Action": "ssm:SendCommand", "Resource": "arn:aws:ssm:*::document/AWS-RunShellScript"}
    instances = {"Action": "ssm:SendCommand", "Resource": f"arn:aws:ec2:*:{ACCOUNT}:instance/*",
                 "Condition": {"StringEquals": {key: "mine"}}}  # fmt: skip
    send = impatient("ssm").send_command
    allow(document, instances)
    assert code(send, **SEND, InstanceIds=[ours]) == ""
    assert code(send, **SEND, InstanceIds=[instance]) == "AccessDeniedException"
    for only in (document, instances):
        allow(only)
        assert code(send, **SEND, InstanceIds=[ours]) == "AccessDeniedException"


def test_public_parameters_are_aws_s_and_others_the_accounts(allow: Any, impatient: Any) -> None:
    get = impatient("ssm").get_parameter
    allow({"Action": "ssm:GetParameter", "Resource": "arn:aws:ssm:*::parameter/aws/service/*"})
    assert code(get, Name=UBUNTU) == ""
    assert code(get, Name="/team/secret") == "AccessDeniedException"
    allow({"Action": "ssm:GetParameter", "Resource": f"arn:aws:ssm:*:{ACCOUNT}:parameter/team/*"})
    assert code(get, Name="/team/secret") == "ParameterNotFound"


def test_s3_can_be_held_to_a_prefix(allow: Any, impatient: Any, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="runctl/there", Body=b"")
    bucket = f"arn:aws:s3:::{BUCKET}"
    listing = {"Action": "s3:ListBucket", "Resource": bucket, "Condition": {"StringLike": {"s3:prefix": "runctl/*"}}}
    allow({"Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"{bucket}/runctl/*"}, listing)
    client = impatient("s3")
    assert code(client.get_object, Bucket=BUCKET, Key="runctl/there") == ""
    assert code(client.get_object, Bucket=BUCKET, Key="other") == "AccessDenied"
    assert code(client.put_object, Bucket=BUCKET, Key="other") == "AccessDenied"
    assert code(client.list_objects_v2, Bucket=BUCKET, Prefix="runctl/runs/") == ""
    assert code(client.list_objects_v2, Bucket=BUCKET) == "AccessDenied"
    assert code(client.list_objects_v2, Bucket=BUCKET, Prefix="other/") == "AccessDenied"


def test_who_may_not_list_is_not_told_that_a_key_is_missing(allow: Any, impatient: Any) -> None:
    client = impatient("s3")
    allow({"Action": ["s3:GetObject", "s3:ListBucket"]})
    assert code(client.get_object, Bucket=BUCKET, Key="missing") == "NoSuchKey"
    assert code(client.head_object, Bucket=BUCKET, Key="missing") == "404"
    allow({"Action": "s3:GetObject"})
    assert code(client.get_object, Bucket=BUCKET, Key="missing") == "AccessDenied"
    assert code(client.head_object, Bucket=BUCKET, Key="missing") == "403"


def test_a_list_of_deletions_needs_the_permission_for_every_key(allow: Any, impatient: Any) -> None:
    allow({"Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{BUCKET}/mine/*"})
    delete = impatient("s3").delete_objects
    assert code(delete, Bucket=BUCKET, Delete={"Objects": [{"Key": "mine/a"}, {"Key": "mine/b"}]}) == ""
    assert code(delete, Bucket=BUCKET, Delete={"Objects": [{"Key": "mine/a"}, {"Key": "b"}]}) == "AccessDenied"


def test_managed_policies_and_roles_are_moto_s(client: Any) -> None:
    found = client("iam").get_instance_profile(InstanceProfileName=PROFILE)["InstanceProfile"]
    assert [role["RoleName"] for role in found["Roles"]] == [PROFILE]
    assert found["Roles"][0]["RoleId"].startswith("AROA")


def test_motos_own_control_paths_are_closed(aws: Any, impatient: Any) -> None:
    with contextlib.closing(
        boto3.Session(
            aws.environ["AWS_ACCESS_KEY_ID"], aws.environ["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
        ).client("iam", endpoint_url=f"{aws.endpoint}/moto-api/reset", config=ONCE)
    ) as client:
        assert code(client.list_roles) == "AccessDenied"
    assert code(impatient("iam").get_instance_profile, InstanceProfileName=PROFILE) == ""


_ELSEWHERE = """
import json, sys
from pathlib import Path
from runctl_action.emulator.server import Emulator
with Emulator(Path(sys.argv[1]), **json.loads(sys.argv[2])) as aws:
    print(json.dumps(aws.environ), flush=True)
    sys.stdin.read()
"""


def test_the_policies_of_an_emulator_hold_for_launchers_and_their_sessions(tmp_path: Path) -> None:
    """In a process of its own: there is one emulator in each."""
    statements = [{"Effect": "Allow", "Action": ["sts:AssumeRole", "s3:ListBucket"], "Resource": "*"}]
    options = {"launcher_policy": {"Version": "2012-10-17", "Statement": statements}, "region": "eu-west-1"}
    with subprocess.Popen(
        [sys.executable, "-c", _ELSEWHERE, str(tmp_path), json.dumps(options)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        environ = json.loads(process.stdout.readline())
        keys = {"AccessKeyId": environ["AWS_ACCESS_KEY_ID"], "SecretAccessKey": environ["AWS_SECRET_ACCESS_KEY"]}
        for _ in range(2):
            session = boto3.Session(
                keys["AccessKeyId"], keys["SecretAccessKey"], keys.get("SessionToken"), environ["AWS_REGION"]
            )
            with contextlib.ExitStack() as stack:
                s3, ec2, sts = (
                    stack.enter_context(
                        contextlib.closing(session.client(name, endpoint_url=environ["AWS_ENDPOINT_URL"], config=ONCE))
                    )
                    for name in ("s3", "ec2", "sts")
                )
                assert code(s3.list_objects_v2, Bucket=BUCKET) == ""
                assert code(s3.put_object, Bucket=BUCKET, Key="a") == "AccessDenied"
                assert code(ec2.describe_instances) == "UnauthorizedOperation"
                role = f"arn:aws:iam::{ACCOUNT}:role/{LAUNCHER_ROLE}"
                keys = sts.assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
        process.communicate(timeout=30)
    assert process.returncode == 0
