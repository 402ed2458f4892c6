"""Every set-up here is broken in one way, and the doctor names that one thing and what mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runctl_action.emulator.server import BUCKET, HOST_POLICY, Emulator

Found = dict[str, str]
FindsOne = Callable[..., Found]


def test_outside_of_a_git_repository(finds_one: FindsOne, tmp_path: Path) -> None:
    found = finds_one("git root", 3, cwd=tmp_path)
    assert "git init" in found["fix"]


def test_a_setting_that_there_is_not(finds_one: FindsOne, project: Path) -> None:
    (project / "runctl.toml").write_text('instance-typ = "t3.medium"\n')
    found = finds_one("settings", 2)
    assert "instance-typ: there is no such setting: did you mean instance-type?" in found["seen"]


def test_no_bucket_is_set(finds_one: FindsOne) -> None:
    assert "bucket =" in finds_one("settings", 2, RUNCTL_BUCKET=None)["fix"]


def test_no_instance_profile_is_set(finds_one: FindsOne) -> None:
    assert "instance-profile =" in finds_one("settings", 2, RUNCTL_INSTANCE_PROFILE=None)["fix"]


def test_a_script_that_is_not_tracked(finds_one: FindsOne, project: Path) -> None:
    (project / "new.py").write_text("")
    assert "git add new.py" in finds_one("script", 3, "new.py")["fix"]


def test_no_credentials(finds_one: FindsOne, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    found = finds_one("credentials", 4, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    assert "aws configure" in found["fix"]


def test_credentials_that_are_nobodys(finds_one: FindsOne) -> None:
    assert "aws sts get-caller-identity" in finds_one("credentials", 4, AWS_ACCESS_KEY_ID="AKIANOBODY")["fix"]


def test_expired_credentials(finds_one: FindsOne, aws: Emulator) -> None:
    aws.world.faults.add("expired:who=launcher")
    assert "get fresh ones" in finds_one("credentials", 4)["fix"]


def test_the_wrong_account(finds_one: FindsOne) -> None:
    found = finds_one("credentials", 4, "--allowed-account-ids=999999999999")
    assert "123456789012" in found["seen"]
    assert "allowed-account-ids" in found["fix"]


def test_no_region_is_set(finds_one: FindsOne) -> None:
    assert 'region = "us-east-1"' in finds_one("region", 2, AWS_REGION=None, AWS_DEFAULT_REGION=None)["fix"]


def test_a_bucket_that_there_is_not(finds_one: FindsOne) -> None:
    assert "aws s3 mb s3://nobodys-bucket" in finds_one("bucket", 4, "--bucket=nobodys-bucket")["fix"]


def test_a_bucket_in_another_region(finds_one: FindsOne, s3: Any) -> None:
    s3.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    found = finds_one("bucket", 4, "--bucket=far-away")
    assert "eu-west-1" in found["seen"]
    assert "`region`" in found["fix"]


def test_a_bucket_without_encryption(finds_one: FindsOne, s3: Any, role: Callable[..., str]) -> None:
    s3.create_bucket(Bucket="in-the-clear")
    hosts = role("clear", [*READS, writes("hosts/${aws:userid}/*", "in-the-clear"), AGENT])
    found = finds_one("encryption", 4, "--bucket=in-the-clear", f"--instance-profile={hosts}")
    assert "aws s3api put-bucket-encryption --bucket in-the-clear" in found["fix"]


@pytest.mark.parametrize("action", ["s3:PutObject", "s3:GetObject"])
def test_a_bucket_that_we_may_not_use(finds_one: FindsOne, aws: Emulator, action: str) -> None:
    aws.world.faults.add(f"denied:action={action}")
    assert finds_one("writing", 4)["fix"].startswith(f"allow {action} on s3://")


def test_an_instance_profile_that_there_is_not(finds_one: FindsOne) -> None:
    assert "instance-profile" in finds_one("instance profile", 4, "--instance-profile=nobody")["fix"]


def test_an_instance_profile_without_a_role(finds_one: FindsOne, iam: Any) -> None:
    iam.create_instance_profile(InstanceProfileName="empty")
    assert "add the role" in finds_one("instance profile", 4, "--instance-profile=empty")["fix"]


READS = [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}]
AGENT = {"Effect": "Allow", "Action": ["ssm:*", "ssmmessages:*"], "Resource": "*"}


def writes(below: str, bucket: str = BUCKET) -> dict[str, Any]:
    actions = ["s3:PutObject", "s3:AbortMultipartUpload"]
    return {"Effect": "Allow", "Action": actions, "Resource": f"arn:aws:s3:::{bucket}/runctl/{below}"}


OWN = writes("hosts/${aws:userid}/*")


@pytest.fixture
def role(iam: Any) -> Callable[..., str]:
    """`role(name, statements)`: a role with such a policy, and an instance profile of that name."""

    def make(name: str, statements: list[Any]) -> str:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=document)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return name

    return make


@pytest.mark.parametrize(
    ("name", "statements", "seen", "fix"),
    [
        ("blind", [OWN, AGENT], "may not s3:ListBucket", "allow s3:ListBucket on arn:aws:s3:::runctl-emulated in"),
        (
            "mute",
            [*READS, AGENT],
            "may not s3:PutObject on",
            "allow s3:PutObject on arn:aws:s3:::runctl-emulated/runctl/hosts/${aws:userid}/* in",
        ),
        ("meddler", [*READS, writes("*"), AGENT], "may s3:PutObject on s3://runctl-emulated/runctl/runs/", "only"),
        ("neighbour", [*READS, writes("hosts/*"), AGENT], "i-0fedcba9876543210", "below hosts/${aws:userid}/ only"),
        ("poisoner", [*READS, OWN, writes("packs/*"), AGENT], "runctl/packs/", "below hosts/${aws:userid}/ only"),
    ],
)
def test_a_host_that_may_too_little_or_too_much(
    finds_one: FindsOne, role: Callable[..., str], name: str, statements: list[Any], seen: str, fix: str
) -> None:
    found = finds_one("host policies", 4, f"--instance-profile={role(name, statements)}")
    assert seen in found["seen"]
    assert fix in found["fix"]


def test_a_role_without_the_permissions_of_the_ssm_agent(finds_one: FindsOne, role: Callable[..., str]) -> None:
    found = finds_one("ssm agent", 4, f"--instance-profile={role('silent', [*READS, OWN])}")
    assert "ssmmessages:OpenControlChannel" in found["seen"]
    assert "--role-name silent --policy-arn arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore" in found["fix"]


@pytest.fixture
def vpc(ec2: Any) -> Iterator[Callable[..., str]]:
    """`vpc()`: the id of a subnet in a new VPC, without any route out."""
    made: list[str] = []

    def make(*, public: bool = False) -> str:
        number = len(made)
        vpc_id = ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"]
        made.append(vpc_id)
        subnet = ec2.create_subnet(VpcId=vpc_id, CidrBlock=f"10.{number}.0.0/24", AvailabilityZone="us-east-1a")
        if public:
            ec2.modify_subnet_attribute(
                SubnetId=subnet["Subnet"]["SubnetId"], MapPublicIpOnLaunch={"Value": True}
            )  # fmt: skip
        return str(subnet["Subnet"]["SubnetId"])

    yield make


def gateway(ec2: Any, subnet: str) -> str:
    """Gives the subnet's VPC an internet gateway, and a route to it."""
    vpc_id = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc_id]}])["RouteTables"]
    made = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=made, VpcId=vpc_id)
    ec2.create_route(RouteTableId=tables[0]["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=made)
    return str(made)


def test_a_subnet_that_there_is_not(finds_one: FindsOne) -> None:
    found = finds_one("subnets", 4, "--subnets=subnet-0123456789abcdef0")
    assert "subnet-0123456789abcdef0" in found["seen"]
    assert "aws ec2 describe-subnets" in found["fix"]


def test_an_isolated_subnet(finds_one: FindsOne, vpc: Callable[..., str]) -> None:
    subnet = vpc()
    found = finds_one("egress", 4, f"--subnets={subnet}")
    assert found["seen"].startswith(f"{subnet} is isolated: it has no route to the internet and no VPC endpoint for ")
    assert "a route of 0.0.0.0/0" in found["fix"]


def test_a_public_subnet_that_gives_no_public_addresses(finds_one: FindsOne, ec2: Any, vpc: Callable[..., str]) -> None:
    subnet = vpc()
    target = gateway(ec2, subnet)
    found = finds_one("egress", 4, f"--subnets={subnet}")
    assert f"routes to {target}, but gives its instances no public IPv4 address" in found["seen"]
    assert f"--subnet-id {subnet} --map-public-ip-on-launch" in found["fix"]


def test_a_security_group_that_there_is_not(finds_one: FindsOne) -> None:
    assert "`security-groups`" in finds_one("security groups", 4, "--security-groups=sg-0123456789abcdef0")["fix"]


def test_a_security_group_of_another_vpc(finds_one: FindsOne, ec2: Any, vpc: Callable[..., str]) -> None:
    subnet = ec2.describe_subnets(SubnetIds=[vpc()])["Subnets"][0]
    group = ec2.create_security_group(GroupName="strange", Description="x", VpcId=subnet["VpcId"])["GroupId"]
    found = finds_one("security groups", 4, f"--security-groups={group}")
    assert f"the security group {group} is in {subnet['VpcId']}" in found["seen"]


def test_a_security_group_that_lets_nothing_out(finds_one: FindsOne, ec2: Any, vpc: Callable[..., str]) -> None:
    subnet = vpc(public=True)
    gateway(ec2, subnet)
    vpc_id = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="shut", Description="x", VpcId=vpc_id)["GroupId"]
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=everything)
    found = finds_one("security groups", 4, f"--security-groups={group}", f"--subnets={subnet}")
    assert f"authorize-security-group-egress --group-id {group}" in found["fix"]


def test_an_instance_type_that_the_region_has_not(finds_one: FindsOne) -> None:
    found = finds_one("instance types", 4, "--instance-type=t3.medium,g99.xlarge")
    assert "us-east-1 has no instance type g99.xlarge" in found["seen"]


@pytest.mark.parametrize(
    ("kind", "spot", "code"),
    [
        ("t3.medium", "never", "L-1216C47A"),
        ("g5.xlarge", "require", "L-3819A6DF"),
        ("g5.xlarge", "prefer", "L-3819A6DF"),
        ("p5.48xlarge", "require", "L-C4BD4855"),
    ],
)
def test_a_quota_of_nothing(finds_one: FindsOne, aws: Emulator, kind: str, spot: str, code: str) -> None:
    aws.world.faults.add("quota")
    found = finds_one("quotas", 4, f"--instance-type={kind}", f"--spot={spot}")
    assert f"vCPUs of 0 ({code})" in found["seen"]
    assert f"request-service-quota-increase --service-code ec2 --quota-code {code}" in found["fix"]


def test_an_image_that_there_is_not(finds_one: FindsOne) -> None:
    assert "`ami`" in finds_one("image", 4, "--ami=ami-0123456789abcdef0")["fix"]


def test_an_image_of_another_architecture(finds_one: FindsOne) -> None:
    found = finds_one("image", 4, "--ami=ami-0000000000ubuntu2")
    assert "is for arm64, and t3.medium is x86_64" in found["seen"]
    assert "`ami`" in found["fix"]


@pytest.mark.parametrize(
    ("check", "action"),
    [
        ("region", "ec2:DescribeInstanceTypes"),
        ("bucket", "s3:ListBucket"),
        ("instance profile", "iam:GetInstanceProfile"),
        ("subnets", "ec2:DescribeSubnets"),
        ("ssm commands", "ssm:GetCommandInvocation"),
        ("image", "ec2:DescribeImages"),
        ("image", "ssm:GetParameter"),
        ("launch", "ec2:RunInstances"),
        ("launch", "ec2:CreateTags"),
        ("launch", "iam:PassRole"),
        ("prices", "pricing:GetProducts"),
        ("prices", "ec2:DescribeSpotPriceHistory"),
    ],
)
def test_a_launcher_without_a_permission(finds_one: FindsOne, aws: Emulator, check: str, action: str) -> None:
    aws.world.faults.add(f"denied:action={action}")
    assert f"allow {action}" in finds_one(check, 4)["fix"]


def test_a_max_price_that_buys_nothing(finds_one: FindsOne) -> None:
    assert "max-price" in finds_one("prices", 2, "--max-price=0.0001")["seen"]


def test_a_github_token_that_is_nobodys(finds_one: FindsOne, github: Any) -> None:
    found = finds_one("github token", 4, **on(github, "ghs_expired"))
    assert "401" in found["seen"]


def test_a_github_token_that_may_not_read_pull_requests(finds_one: FindsOne, github: Any) -> None:
    github.fails("GET", "/pulls", 403, "Resource not accessible by integration")
    found = finds_one("github token", 4, **on(github, "ghs_action"))
    assert "pull-requests: write" in found["fix"]


def test_a_github_token_without_the_scope(finds_one: FindsOne, github: Any) -> None:
    github.scopes = "gist, read:org"
    found = finds_one("github token", 4, **on(github, "ghp_ada"))
    assert "has the scopes gist, read:org" in found["seen"]
    assert "scope repo" in found["fix"]


def on(github: Any, token: str) -> dict[str, str]:
    return {"GITHUB_REPOSITORY": "acme/digits", "GITHUB_API_URL": github.url, "RUNCTL_GITHUB_TOKEN": token}


def test_the_emulators_own_hosts_are_what_these_roles_are_measured_by() -> None:
    assert any("ssmmessages" in str(statement) for statement in HOST_POLICY["Statement"])
