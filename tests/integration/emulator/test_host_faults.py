"""What goes wrong on purpose with hosts and APIs, seen from outside."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

_ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})


def credentials(aws: Any, instance: str) -> dict[str, str]:
    """Those of the instance's role, from its metadata service."""
    base = f"{aws.world.instances[instance].metadata_url}latest/"
    ask = urllib.request.Request(
        f"{base}api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    with urllib.request.urlopen(ask) as answer:
        token = answer.read().decode()
    url = f"{base}meta-data/iam/security-credentials/runctl-host"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"X-aws-ec2-metadata-token": token})) as answer:
        return dict(json.loads(answer.read()))


@pytest.fixture
def beat(aws: Any, bucket: str) -> Iterator[Any]:
    """`beat(instance, phase)`: the host says that it is in `phase`, as the host process does."""
    clients: list[Any] = []

    def say(instance: str, phase: str) -> None:
        found = credentials(aws, instance)
        session = boto3.Session(found["AccessKeyId"], found["SecretAccessKey"], found["Token"], "us-east-1")
        clients.append(session.client("s3", endpoint_url=aws.endpoint, config=_ONCE))
        userid = aws.world.instances[instance].userid
        body = json.dumps({"beat": 1, "phase": phase, "at": "now"}, separators=(",", ":")).encode()
        clients[-1].put_object(Bucket=bucket, Key=f"runctl/hosts/{userid}/run-1/1/status.json", Body=body)

    yield say
    for client in clients:
        client.close()


def reason(ec2: Any, instance: str) -> str:
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return str(found.get("StateReason", {}).get("Code", ""))


@pytest.mark.parametrize(
    ("fault", "code"),
    [("reclaim", "Server.SpotInstanceTermination"), ("die", "Client.InstanceInitiatedShutdown"),
     ("spot-notice:reclaim=0.001", "Server.SpotInstanceTermination")],
)  # fmt: skip
def test_an_instance_is_ended_in_the_phase_that_the_fault_names_and_tells_why(
    aws: Any, boot: Any, beat: Any, ec2: Any, state: Any, until: Any, fault: str, code: str
) -> None:
    instance = boot()
    kind, _, rest = fault.partition(":")
    aws.world.faults.add(f"{kind}:phase=training{',' + rest if rest else ''}")
    beat(instance, "syncing")
    assert state(instance) == "running"
    beat(instance, "training")
    until(lambda: state(instance) == "terminated")
    assert reason(ec2, instance) == code


def test_one_host_uses_up_one_fault_of_a_kind(aws: Any, boot: Any, beat: Any, until: Any) -> None:
    instance = boot()
    for _ in range(2):
        aws.world.faults.add("network-cut:phase=training,seconds=0.01")
    for _ in range(3):
        until(lambda: not aws.world.instances[instance].is_cut_off)
        beat(instance, "training")
    assert len(aws.world.faults.texts()) == 1


def test_a_notice_is_in_the_metadata_before_the_reclaim(aws: Any, boot: Any, beat: Any, run: Any, until: Any) -> None:
    instance = boot()
    ask = (
        'B=$AWS_EC2_METADATA_SERVICE_ENDPOINT; python3 - "$B" <<X\n'
        "import sys, urllib.request as u\nb = sys.argv[1]\n"
        "t = u.urlopen(u.Request(b + 'latest/api/token', method='PUT',"
        " headers={'X-aws-ec2-metadata-token-ttl-seconds': '60'})).read().decode()\n"
        "try: print(u.urlopen(u.Request(b + 'latest/meta-data/spot/instance-action',"
        " headers={'X-aws-ec2-metadata-token': t})).read().decode())\n"
        "except u.HTTPError as e: print(e.code)\nX\n"
    )
    assert run(ask, on=instance)["StandardOutputContent"] == "404\n"
    aws.world.faults.add("spot-notice:phase=training,reclaim=60")
    beat(instance, "training")
    until(lambda: aws.world.instances[instance].notice_at)
    assert json.loads(run(ask, on=instance)["StandardOutputContent"])["action"] == "terminate"


def test_a_frozen_host_runs_nothing_and_ec2_goes_on_saying_running(
    aws: Any, boot: Any, beat: Any, state: Any, until: Any, send: Any, invocation: Any
) -> None:
    instance = boot()
    aws.world.faults.add("freeze:phase=training")
    beat(instance, "training")
    until(lambda: aws.world.instances[instance].is_frozen)
    command = send("echo hello", on=instance)
    until(lambda: invocation(command, on=instance))
    assert (state(instance), invocation(command, on=instance)["Status"]) == ("running", "Pending")


def test_a_full_disk_is_full_for_the_host_alone(aws: Any, boot: Any, beat: Any, run: Any, until: Any) -> None:
    aws.world.faults.add("disk-full:phase=training")
    instance = boot(wait=False)
    until(lambda: aws.world.instances[instance].state != "pending")
    if aws.world.instances[instance].state != "running":
        pytest.skip("mounting a disk takes root or user namespaces here")
    until(lambda: aws.world.instances[instance].is_online)
    write = 'head -c 2000000 /dev/zero > "$RUNCTL_HOST_DIR"/file && echo written'
    assert run(write, on=instance)["StandardOutputContent"] == "written\n"
    beat(instance, "training")
    until(lambda: "No space left" in run(write.replace("file", "another"), on=instance)["StandardErrorContent"])
    assert list((aws.world.instances[instance].host.directory / "var/lib/runctl").iterdir()) == []


def test_a_network_cut_is_between_one_host_and_aws(
    aws: Any, boot: Any, beat: Any, s3: Any, bucket: str, until: Any
) -> None:
    instance = boot()
    aws.world.faults.add("network-cut:phase=training,seconds=600")
    beat(instance, "training")
    until(lambda: aws.world.instances[instance].is_cut_off)
    with pytest.raises((ConnectionClosedError, EndpointConnectionError)):
        beat(instance, "training")
    s3.head_bucket(Bucket=bucket)


def test_a_network_cut_ends(aws: Any, boot: Any, beat: Any, until: Any) -> None:
    instance = boot()
    aws.world.faults.add("network-cut:phase=training,seconds=0.01")
    beat(instance, "training")
    until(lambda: not aws.world.faults.texts() and not aws.world.instances[instance].is_cut_off)
    beat(instance, "training")


def test_an_instance_that_never_comes_online_cannot_be_sent_to(
    aws: Any, boot: Any, send: Any, ssm: Any, state: Any, until: Any
) -> None:
    aws.world.faults.add("never-online")
    instance = boot(wait=False)
    until(lambda: state(instance) == "running")
    with pytest.raises(ssm.exceptions.InvalidInstanceId):
        send("true", on=instance)


def test_an_instance_can_be_online_and_execute_nothing(
    aws: Any, boot: Any, send: Any, invocation: Any, until: Any
) -> None:
    instance = boot()
    aws.world.faults.add("not-executing")
    command = send("true", on=instance)
    assert until(lambda: invocation(command, on=instance))["Status"] == "InProgress"


def test_user_data_can_be_left_out(aws: Any, boot: Any) -> None:
    aws.world.faults.add("no-user-data:times=1")
    script = '#!/bin/sh\n: > "$RUNCTL_HOST_DIR"/ran\n#cloud-boothook'
    instance = boot(UserData="#cloud-boothook\n" + script)
    assert not (aws.world.instances[instance].host.directory / "var/lib/runctl/ran").exists()
    instance = boot(UserData="#cloud-boothook\n" + script)
    assert (aws.world.instances[instance].host.directory / "var/lib/runctl/ran").exists()


@pytest.mark.parametrize(
    ("fault", "code"),
    [("throttle:api=DescribeInstances", "RequestLimitExceeded"), ("denied:action=ec2:Describe*", "UnauthorizedOperation"),
     ("expired:who=launcher", "RequestExpired")],
)  # fmt: skip
def test_a_call_is_refused_with_the_services_own_code(aws: Any, fault: str, code: str) -> None:
    aws.world.faults.add(f"{fault},times=1")
    client = _impatient(aws, "ec2")
    with pytest.raises(ClientError) as refused:
        client.describe_instances()
    assert refused.value.response["Error"]["Code"] == code
    client.describe_instances()
    client.close()


def test_s3_fails_for_the_keys_that_the_fault_names(aws: Any, bucket: str) -> None:
    aws.world.faults.add("s3-error:key=packs/*,method=PUT")
    client = _impatient(aws, "s3")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="packs/a", Body=b"")
    assert refused.value.response["Error"]["Code"] == "InternalError"
    client.put_object(Bucket=bucket, Key="other/a", Body=b"")
    client.close()


def test_some_of_the_answers_of_s3_can_fail(aws: Any, bucket: str) -> None:
    aws.world.faults.add("s3-error:percent=50")
    client = _impatient(aws, "s3")
    failed = 0
    for _ in range(40):
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError:
            failed += 1
    client.close()
    assert 5 < failed < 35


def test_a_call_whose_answer_is_lost_was_done(aws: Any, ec2: Any) -> None:
    aws.world.faults.add("lost-answer:api=CreateKeyPair,times=1")
    client = _impatient(aws, "ec2")
    with pytest.raises(ConnectionClosedError):
        client.create_key_pair(KeyName="lost")
    client.close()
    assert ec2.describe_key_pairs(KeyNames=["lost"])["KeyPairs"]


def test_a_host_whose_clock_is_an_hour_off_is_refused_by_s3(aws: Any, boot: Any, beat: Any) -> None:
    instance = boot()
    aws.world.faults.add("clock-skew")
    with pytest.raises(ClientError) as refused:
        beat(instance, "training")
    assert refused.value.response["Error"]["Code"] == "RequestTimeTooSkewed"
    aws.world.faults.clear()
    beat(instance, "training")


def _impatient(aws: Any, service: str) -> Any:
    environ = aws.environ
    session = boto3.Session(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
    return session.client(service, endpoint_url=aws.endpoint, config=_ONCE)
