"""The instance metadata service, version 2, where moto has static credentials and a 500 for spot notices."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.utils import InstanceMetadataFetcher

from runctl_action.emulator.server import PROFILE

_TOKEN, _TTL = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"
SPOT = {"MarketType": "spot"}


@pytest.fixture
def ask(aws: Any, instance: str) -> Callable[..., tuple[int, str]]:
    """`ask(path, on=instance id, method="GET", **headers)` -> (status, body)."""

    def request(path: str, on: str = instance, method: str = "GET", **headers: str) -> tuple[int, str]:
        found = aws.world.instances.get(on)
        url = f"{found.metadata_url if found else f'{aws.endpoint}/imds/{on}/'}latest/{path}"
        named = {{"token": _TOKEN, "ttl": _TTL}[name]: value for name, value in headers.items()}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=named)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return request


@pytest.fixture
def told(ask: Any, instance: str) -> Callable[..., tuple[int, str]]:
    """`told(path, on=instance id)`, asked with a token."""

    def get(path: str, on: str = instance) -> tuple[int, str]:
        status, token = ask("api/token", on, "PUT", ttl="60")
        assert status == 200
        return tuple(ask(path, on, token=token))  # type: ignore[return-value]

    return get


def test_nothing_is_told_without_a_token(ask: Any) -> None:
    assert ask("meta-data/instance-id") == (401, "")
    assert ask("meta-data/instance-id", token="made-up") == (401, "")


@pytest.mark.parametrize("ttl", [None, "0", "21601", "-1", "soon", "1.5", ""])
def test_a_token_needs_a_lifetime_of_a_second_to_six_hours(ask: Any, ttl: str | None) -> None:
    assert ask("api/token", method="PUT", **({} if ttl is None else {"ttl": ttl})) == (400, "")


def test_a_token_is_put_not_got(ask: Any) -> None:
    assert ask("api/token", ttl="60")[0] == 401


def test_a_token_ends(ask: Any, until: Any) -> None:
    _, token = ask("api/token", method="PUT", ttl="1")
    assert ask("meta-data/instance-id", token=token)[0] == 200
    until(lambda: ask("meta-data/instance-id", token=token) == (401, ""))


def test_a_token_is_one_instances(ask: Any, boot: Any) -> None:
    _, token = ask("api/token", method="PUT", ttl="60")
    assert ask("meta-data/instance-id", boot(), token=token) == (401, "")


def test_an_instance_is_told_what_and_where_it_is(told: Any, ec2: Any, instance: str) -> None:
    shown = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    zone = shown["Placement"]["AvailabilityZone"]
    for path, value in {
        "instance-id": instance,
        "instance-type": shown["InstanceType"],
        "instance-life-cycle": "on-demand",
        "ami-id": shown["ImageId"],
        "placement/availability-zone": zone,
        "placement/region": "us-east-1",
    }.items():
        assert told(f"meta-data/{path}") == (200, value)
    identity = json.loads(told("dynamic/instance-identity/document")[1])
    assert identity | {
        "instanceId": instance, "region": "us-east-1", "availabilityZone": zone, "accountId": "123456789012",
        "instanceType": shown["InstanceType"], "imageId": shown["ImageId"],
    } == identity  # fmt: skip


def test_a_spot_instance_is_told_so_and_has_no_notice_until_there_is_one(
    aws: Any, told: Any, boot: Any, until: Any
) -> None:
    instance = boot(InstanceMarketOptions=SPOT)
    assert told("meta-data/instance-life-cycle", instance) == (200, "spot")
    for path in ("spot/instance-action", "spot/termination-time", "events/recommendations/rebalance"):
        assert told(f"meta-data/{path}", instance) == (404, "")


def test_a_notice_is_about_two_minutes_ahead_and_the_reclaim_follows(
    aws: Any, told: Any, boot: Any, until: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws.world, "seconds_per_minute", 0.4)
    aws.world.faults.add("spot-notice:phase=booting")
    instance = boot(InstanceMarketOptions=SPOT, wait=False)
    action = json.loads(
        until(lambda: (found := told("meta-data/spot/instance-action", instance))[0] == 200 and found)[1]
    )
    assert action["action"] == "terminate"
    left = datetime.fromisoformat(action["time"]) - datetime.now(UTC)
    assert timedelta(seconds=110) < left <= timedelta(seconds=120)
    assert state(instance) == "running"
    until(lambda: state(instance) == "terminated")


def test_paths_that_are_none_are_not_found(told: Any) -> None:
    for path in ("meta-data/nothing", "meta-data/../meta-data/instance-id", "user-data/x"):
        assert told(path) == (404, "")


def test_there_is_no_metadata_of_an_instance_that_is_not_there(ask: Any, boot: Any, ec2: Any) -> None:
    assert ask("api/token", "i-0123456789abcdef0", "PUT", ttl="60") == (404, "")
    instance = boot()
    _, token = ask("api/token", instance, "PUT", ttl="60")
    ec2.terminate_instances(InstanceIds=[instance])
    assert ask("meta-data/instance-id", instance, token=token) == (404, "")


def test_imds_credentials_are_a_roles_and_work(aws: Any, told: Any, instance: str, bucket: str) -> None:
    assert told("meta-data/iam/security-credentials/") == (200, PROFILE)
    found = json.loads(told(f"meta-data/iam/security-credentials/{PROFILE}")[1])
    assert (found["Code"], found["Type"]) == ("Success", "AWS-HMAC")
    left = datetime.fromisoformat(found["Expiration"]) - datetime.now(UTC)
    assert timedelta(hours=1) < left <= timedelta(hours=6)
    key = f"runctl/hosts/{aws.world.instances[instance].userid}/by-role"
    session = boto3.Session(found["AccessKeyId"], found["SecretAccessKey"], found["Token"], "us-east-1")
    with contextlib.closing(session.client("s3", endpoint_url=aws.endpoint)) as s3:
        s3.put_object(Bucket=bucket, Key=key, Body=b"mine")
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"mine"


def test_the_same_credentials_are_told_until_they_are_old(aws: Any, told: Any, boot: Any) -> None:
    instance = boot()
    path = f"meta-data/iam/security-credentials/{PROFILE}"
    first = json.loads(told(path, instance)[1])["AccessKeyId"]
    assert json.loads(told(path, instance)[1])["AccessKeyId"] == first
    aws.world.credentials[first].expires_at = datetime.now(UTC) + timedelta(minutes=30)
    assert json.loads(told(path, instance)[1])["AccessKeyId"] != first


def test_an_instance_without_a_profile_has_no_credentials(told: Any, boot: Any, until: Any, state: Any) -> None:
    instance = boot(IamInstanceProfile=None, wait=False)
    until(lambda: state(instance) == "running")
    assert told("meta-data/iam/security-credentials", instance) == (404, "")


def test_botocores_own_client_of_the_service_understands_it(aws: Any, instance: str) -> None:
    fetcher = InstanceMetadataFetcher(
        base_url=aws.world.instances[instance].metadata_url, env={"AWS_EC2_METADATA_DISABLED": "false"}
    )
    found = fetcher.retrieve_iam_role_credentials()
    fetcher._session.close()
    assert found["role_name"] == PROFILE
    assert found["access_key"] in aws.world.credentials


def test_a_process_on_the_host_finds_its_own_service(run: Any, instance: str) -> None:
    script = (
        'python3 - "$AWS_EC2_METADATA_SERVICE_ENDPOINT" <<END\n'
        "import sys\nfrom urllib.request import Request, urlopen\nbase = sys.argv[1] + 'latest/'\n"
        f"token = urlopen(Request(base + 'api/token', method='PUT', headers={{'{_TTL}': '60'}})).read().decode()\n"
        f"print(urlopen(Request(base + 'meta-data/instance-id', headers={{'{_TOKEN}': token}})).read().decode())\nEND\n"
    )
    assert run(script)["StandardOutputContent"] == f"{instance}\n"


def test_nobody_finds_another_hosts_service_by_its_id(aws: Any, instance: str) -> None:
    for whose in (instance, "", "latest"):
        url = f"{aws.endpoint}/imds/{whose}/latest/api/token"
        request = urllib.request.Request(url, method="PUT", headers={_TTL: "60"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        with refused.value as answer:
            assert answer.code == 404


def test_the_credentials_outlive_a_stop_and_not_an_end(
    aws: Any, told: Any, boot: Any, ec2: Any, state: Any, until: Any, bucket: str
) -> None:
    instance = boot()
    found = json.loads(told(f"meta-data/iam/security-credentials/{PROFILE}", instance)[1])
    session = boto3.Session(found["AccessKeyId"], found["SecretAccessKey"], found["Token"], "us-east-1")
    config = Config(retries={"mode": "standard", "total_max_attempts": 1})
    with contextlib.closing(session.client("s3", endpoint_url=aws.endpoint, config=config)) as s3:
        s3.head_bucket(Bucket=bucket)
        ec2.stop_instances(InstanceIds=[instance])
        until(lambda: state(instance) == "stopped")
        ec2.start_instances(InstanceIds=[instance])
        until(lambda: state(instance) == "running")
        s3.head_bucket(Bucket=bucket)
        ec2.terminate_instances(InstanceIds=[instance])
        with pytest.raises(s3.exceptions.ClientError) as refused:
            s3.list_objects_v2(Bucket=bucket)
    assert refused.value.response["Error"]["Code"] == "ExpiredToken"
