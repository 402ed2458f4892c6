"""A sound set-up, one that cannot be looked at everywhere, and how it is told."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runctl_action import cli
from runctl_action.doctor.bucket import PROBE, PROBE_NAME
from runctl_action.doctor.checks import CHECKS
from runctl_action.emulator import policies
from runctl_action.emulator.server import BUCKET, Emulator

Doctor = Callable[..., Any]


def keys(s3: Any) -> set[str]:
    return {item["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            for item in page.get("Contents", ())}  # fmt: skip


def test_a_sound_set_up_passes_every_check_and_spends_nothing(
    doctor: Doctor, s3: Any, aws: Emulator, github: Any
) -> None:
    before, instances = keys(s3), set(aws.world.instances)
    seen = doctor(GITHUB_API_URL=github.url, GITHUB_REPOSITORY="acme/digits", RUNCTL_GITHUB_TOKEN="ghs_action")
    assert seen.named("passed") == [check.name for check in CHECKS]
    assert seen.code == seen.document["exit_code"] == 0
    assert set(aws.world.instances) == instances
    assert keys(s3) - before <= {f"runctl/tools/{hashlib.sha256(PROBE).hexdigest()}/{PROBE_NAME}"}
    assert all(asked.method == "GET" for asked in github.asked)


def test_a_second_look_finds_the_same(doctor: Doctor) -> None:
    first, second = doctor(), doctor()
    assert first.document == second.document


def test_the_secret_token_is_not_told(doctor: Doctor, github: Any) -> None:
    seen = doctor(GITHUB_API_URL=github.url, GITHUB_REPOSITORY="acme/digits", RUNCTL_GITHUB_TOKEN="ghs_action")
    assert "ghs_action" not in json.dumps(seen.document) + seen.err


@pytest.mark.parametrize(
    ("action", "checks"),
    [
        ("s3:GetEncryptionConfiguration", ["encryption"]),
        ("iam:SimulatePrincipalPolicy", ["host policies", "ssm agent"]),
        ("ec2:DescribeSecurityGroups", ["security groups"]),
        ("ec2:DescribeRouteTables", ["egress"]),
        ("ec2:DescribeVpcEndpoints", ["egress"]),
        ("servicequotas:GetServiceQuota", ["quotas"]),
    ],
)
def test_what_only_a_doctor_needs_to_see_is_no_failure_when_it_may_not(
    doctor: Doctor, aws: Emulator, action: str, checks: list[str]
) -> None:
    aws.world.faults.add(f"denied:action={action}")
    seen = doctor()
    assert (seen.code, seen.named("failed"), seen.named("unseen")) == (0, [], checks)
    for name in checks:
        assert action in seen.check(name)["seen"]
        assert seen.check(name)["fix"].startswith(f"allow {action}")
    assert seen.named("skipped") == ["github token"]


def test_a_quota_that_is_not_known_here_is_not_a_failure(doctor: Doctor) -> None:
    seen = doctor("--instance-type=inf2.xlarge")
    assert seen.check("quotas")["status"] == "unseen"
    assert "aws service-quotas list-service-quotas" in seen.check("quotas")["fix"]


def test_one_type_that_fits_its_quota_is_enough(doctor: Doctor, aws: Emulator) -> None:
    aws.world.faults.add("quota:type=g5.xlarge")
    seen = doctor("--instance-type=g5.xlarge,t3.medium", "--spot=never")
    assert seen.code == 0
    assert "g5.xlarge needs 4 vCPUs of 0 (L-DB2E81BA)" in seen.check("quotas")["seen"]


def test_a_subnet_whose_endpoints_are_its_only_way_out_passes(doctor: Doctor, ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.99.0.0/24", AvailabilityZone="us-east-1a")["Subnet"]["SubnetId"]
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]["RouteTableId"]
    for service in ("ssm", "ssmmessages"):
        ec2.create_vpc_endpoint(
            VpcEndpointType="Interface", VpcId=vpc, ServiceName=f"com.amazonaws.us-east-1.{service}",
            SubnetIds=[subnet], PrivateDnsEnabled=True,
        )  # fmt: skip
    without_s3 = doctor(f"--subnets={subnet}")
    assert without_s3.named("failed") == ["egress"]
    assert without_s3.check("egress")["seen"].endswith("no VPC endpoint for s3")
    ec2.create_vpc_endpoint(
        VpcEndpointType="Gateway", VpcId=vpc, ServiceName="com.amazonaws.us-east-1.s3", RouteTableIds=[table]
    )
    seen = doctor(f"--subnets={subnet}")
    assert seen.named("failed") == []
    assert "by VPC endpoints; packages have to come from a mirror" in seen.check("egress")["seen"]


def test_a_chosen_instance_is_looked_at_instead_of_a_launch(doctor: Doctor, ec2: Any) -> None:
    instance_id = ec2.run_instances(
        ImageId="ami-0000000000ubuntu1", InstanceType="t3.micro", MinCount=1, MaxCount=1,
        IamInstanceProfile={"Name": "runctl-host"},
    )["Instances"][0]["InstanceId"]  # fmt: skip
    try:
        _until(lambda: _state(ec2, instance_id) == "running")
        seen = doctor(f"--instance-id={instance_id}", RUNCTL_INSTANCE_PROFILE=None)
        assert seen.code == 0
        assert seen.check("instance profile")["seen"] == "runctl-host has the role runctl-host"
        assert seen.check("launch")["seen"] == "not needed: instance-id is set"
    finally:
        ec2.terminate_instances(InstanceIds=[instance_id])
    gone = doctor(f"--instance-id={instance_id}", RUNCTL_INSTANCE_PROFILE=None)
    assert gone.named("failed") == ["instance profile"]
    assert instance_id in gone.check("instance profile")["seen"]


def _state(ec2: Any, instance_id: str) -> str:
    return str(ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]["State"]["Name"])


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_person_reads_a_line_a_check_and_what_mends_it(
    project: Path, environ: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert cli.run(["doctor", "--bucket=nobodys-bucket"], environ) == 4
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"^✔ git root +\S+project \(git rev-parse", out, re.MULTILINE)
    assert re.search(
        r"^✘ bucket +the bucket nobodys-bucket does not exist\n +→ create it: aws s3 mb", out, re.MULTILINE
    )
    assert re.search(r"^– writing +not looked at: bucket is to be mended first", out, re.MULTILINE)
    assert out.splitlines()[-1] == "to be mended: bucket; nothing was spent"


def test_settings_that_cannot_be_read_are_told_a_line_each(
    project: Path, environ: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "runctl.toml").write_text('a = 1\nspot = "sometimes"\n')
    monkeypatch.chdir(project)
    assert cli.run(["doctor"], environ) == 2
    out, _ = capsys.readouterr()
    lines = [line for line in out.splitlines() if "runctl.toml" in line]
    assert len(lines) == 2
    assert "\\n" not in out


def test_the_emulated_account_is_sound_whatever_the_settings_name_of_a_real_one(
    project: Path, environ: dict[str, str]
) -> None:
    (project / "runctl.toml").write_text(
        'bucket = "mine"\ninstance-profile = "mine"\nsubnets = ["subnet-1"]\nsecurity-groups = ["sg-1"]\nwait = false\n'
    )
    own = {name: value for name, value in environ.items() if not name.startswith(("AWS_", "RUNCTL_"))}
    said = subprocess.run(
        [sys.executable, "-m", "runctl_action", "doctor", "--emulate", "--json", "train.py"],
        cwd=project, env=own, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (said.returncode, said.stderr) == (0, "")
    found = {check["name"]: check["status"] for check in json.loads(said.stdout)["checks"]}
    assert found.pop("github token") == "skipped"
    assert set(found.values()) == {"passed"}


def test_the_permissions_that_the_docs_name_are_all_that_it_needs(
    doctor: Doctor, aws: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = Path(__file__).parents[3] / "docs"
    sections = [(docs / page).read_text().split("\n## Permissions\n")[1].split("\n## ")[0]
                for page in ("github.md", "doctor.md")]  # fmt: skip
    actions = sorted({action for text in sections for action in re.findall(r"`([a-z0-9]+:[A-Z][A-Za-z0-9]+)`", text)})
    policy = policies.parse(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    )
    launcher = aws.world.credentials[aws.environ["AWS_ACCESS_KEY_ID"]]
    monkeypatch.setattr(launcher, "policy", policy)
    seen = doctor()
    assert (seen.code, seen.named("failed"), seen.named("unseen")) == (0, [], [])
