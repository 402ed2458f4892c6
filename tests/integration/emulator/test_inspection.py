"""What a doctor asks of an account, where moto has none of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from runctl_action.emulator.server import BUCKET, PROFILE, Emulator
from runctl_action.emulator.state import ACCOUNT

HOSTS = f"arn:aws:iam::{ACCOUNT}:role/{PROFILE}"
OWN = f"arn:aws:s3:::{BUCKET}/runctl/hosts"


@pytest.fixture
def iam(aws: Emulator) -> Iterator[Any]:
    client = aws.client("iam")
    yield client
    client.close()


def decisions(iam: Any, role: str, actions: list[str], resource: str, **context: str) -> list[str]:
    entries = [
        {"ContextKeyName": key.replace("_", ":"), "ContextKeyValues": [value], "ContextKeyType": "string"}
        for key, value in context.items()
    ]
    answer = iam.simulate_principal_policy(
        PolicySourceArn=role, ActionNames=actions, ResourceArns=[resource], ContextEntries=entries
    )
    assert [found["EvalActionName"] for found in answer["EvaluationResults"]] == actions
    return [found["EvalDecision"] for found in answer["EvaluationResults"]]


def test_a_simulation_says_what_the_hosts_policy_says(iam: Any) -> None:
    asked = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    own = decisions(iam, HOSTS, asked, f"{OWN}/AROA:i-1/x", aws_userid="AROA:i-1")
    assert own == ["allowed", "allowed", "implicitDeny"]
    of_another = decisions(iam, HOSTS, asked, f"{OWN}/AROA:i-2/x", aws_userid="AROA:i-1")
    assert of_another == ["allowed", "implicitDeny", "implicitDeny"]


def test_a_simulation_knows_inline_and_attached_policies_and_what_they_deny(iam: Any) -> None:
    def document(effect: str, action: str) -> str:
        statement = {"Effect": effect, "Action": action, "Resource": "*"}
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    role = iam.create_role(RoleName="simulated", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    iam.put_role_policy(RoleName="simulated", PolicyName="own", PolicyDocument=document("Allow", "s3:*"))
    attached = iam.create_policy(PolicyName="shut", PolicyDocument=document("Deny", "s3:PutObject"))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="simulated", PolicyArn=attached)
    found = decisions(iam, role, ["s3:GetObject", "s3:PutObject", "ec2:RunInstances"], "*")
    assert found == ["allowed", "explicitDeny", "implicitDeny"]


def test_a_simulation_of_nobody_is_an_error(iam: Any) -> None:
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        decisions(iam, f"arn:aws:iam::{ACCOUNT}:role/nobody", ["s3:GetObject"], "*")


def test_a_simulation_needs_its_permission_on_the_role(aws: Emulator, iam: Any) -> None:
    aws.world.faults.add("denied:action=iam:SimulatePrincipalPolicy,times=1")
    with pytest.raises(
        ClientError, match="not authorized to perform: iam:SimulatePrincipalPolicy on resource: " + HOSTS
    ):
        decisions(iam, HOSTS, ["s3:GetObject"], "*")


def test_a_quota_is_nothing_while_its_fault_is_set_and_the_fault_is_not_used_up(aws: Emulator) -> None:
    client = aws.client("service-quotas")

    def vcpus(code: str) -> float:
        return float(client.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])

    assert vcpus("L-1216C47A") == vcpus("L-3819A6DF") == 256
    aws.world.faults.add("quota:market=spot,type=g5*,times=1")
    try:
        assert [vcpus(code) for code in ("L-3819A6DF", "L-3819A6DF", "L-DB2E81BA", "L-34B43A08")] == [0, 0, 256, 256]
    finally:
        aws.world.faults.clear()
    with pytest.raises(client.exceptions.NoSuchResourceException):
        vcpus("L-00000000")
    client.close()


def test_a_default_vpc_has_a_way_out(aws: Emulator) -> None:
    client = aws.client("ec2")
    vpc = client.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    (table,) = client.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    (target,) = [r["GatewayId"] for r in table["Routes"] if r["DestinationCidrBlock"] == "0.0.0.0/0"]
    (gateway,) = client.describe_internet_gateways(InternetGatewayIds=[target])["InternetGateways"]
    assert gateway["Attachments"][0]["VpcId"] == vpc
    client.close()


def test_a_dry_run_launches_nothing_and_uses_no_fault_up(aws: Emulator) -> None:
    client, before = aws.client("ec2"), set(aws.world.instances)
    wanted = {"ImageId": "ami-0000000000ubuntu1", "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    aws.world.faults.add("no-capacity:times=1")
    try:
        with pytest.raises(ClientError) as said:
            client.run_instances(**wanted, ClientToken="dry", DryRun=True)
        assert said.value.response["Error"]["Code"] == "DryRunOperation"
        assert aws.world.faults.texts() == ["no-capacity:times=1"]
        with pytest.raises(ClientError, match="InvalidAMIID"):
            client.run_instances(**wanted | {"ImageId": "ami-0123456789abcdef0"}, DryRun=True)
    finally:
        aws.world.faults.clear()
    assert set(aws.world.instances) == before
    client.close()
