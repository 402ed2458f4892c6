"""EC2 where moto's stubs it: launches, states, ends and their reasons, power and user data (facts: the EC2 API)."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from runctl_action.emulator.ec2 import IMAGES
from runctl_action.emulator.price_table import SPOT
from runctl_action.emulator.server import PROFILE

X86, ARM = "ami-0000000000ubuntu1", "ami-0000000000ubuntu2"
BASE = {"ImageId": X86, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
ONE_TIME = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}


@pytest.fixture(scope="module")
def impatient(aws: Any) -> Iterator[Any]:
    """A client that does not try again."""
    environ = aws.environ
    session = boto3.Session(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
    config = Config(retries={"mode": "standard", "total_max_attempts": 1})
    client = session.client("ec2", endpoint_url=aws.endpoint, config=config)
    yield client
    client.close()


@pytest.fixture
def refused(impatient: Any) -> Any:
    """`refused(operation, **parameters)`: the code of its error."""

    def call(operation: str, **parameters: Any) -> str:
        with pytest.raises(ClientError) as error:
            getattr(impatient, operation)(**parameters)
        return str(error.value.response["Error"]["Code"])

    return call


@pytest.fixture
def seen(ec2: Any, until: Any) -> Any:
    """`seen(instance, last)`: the states that DescribeInstances goes through until it says `last`."""

    def watch(instance: str, last: str) -> list[str]:
        states: list[str] = []

        def is_last() -> bool:
            name = described(ec2, instance)["State"]["Name"]
            if name not in states:
                states.append(name)
            return bool(name == last)

        until(is_last)
        return states

    return watch


def described(ec2: Any, instance: str) -> dict[str, Any]:
    return dict(ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0])


def listed(ec2: Any) -> list[str]:
    found = ec2.describe_instances()["Reservations"]
    assert all(reservation["Instances"] for reservation in found)
    return [instance["InstanceId"] for reservation in found for instance in reservation["Instances"]]


def zone_of(ec2: Any, zone_id: str) -> str:
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    return str(next(zone["ZoneName"] for zone in zones if zone["ZoneId"] == zone_id))


# States


def test_an_instance_is_pending_then_running_and_ends_through_shutting_down(
    aws: Any, boot: Any, ec2: Any, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws.world.delays, "running", 0.3)
    monkeypatch.setattr(aws.world.delays, "ending", 0.3)
    instance = boot(wait=False)
    assert seen(instance, "running") == ["pending", "running"]
    (change,) = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]
    assert change["PreviousState"] == {"Code": 16, "Name": "running"}
    assert change["CurrentState"] == {"Code": 32, "Name": "shutting-down"}
    assert seen(instance, "terminated") == ["shutting-down", "terminated"]
    assert described(ec2, instance)["State"] == {"Code": 48, "Name": "terminated"}


def test_a_launch_answers_pending_whatever_the_delays(ec2: Any, boot: Any) -> None:
    answer = ec2.run_instances(**BASE, ClientToken="pending")
    assert answer["Instances"][0]["State"] == {"Code": 0, "Name": "pending"}
    ec2.terminate_instances(InstanceIds=[answer["Instances"][0]["InstanceId"]])


def test_an_instance_stops_through_stopping(
    aws: Any, boot: Any, ec2: Any, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = boot()
    monkeypatch.setattr(aws.world.delays, "ending", 0.3)
    (change,) = ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"]
    assert change["CurrentState"] == {"Code": 64, "Name": "stopping"}
    assert seen(instance, "stopped") == ["stopping", "stopped"]
    assert described(ec2, instance)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_an_instance_that_is_ended_while_it_is_pending_never_runs(
    aws: Any, boot: Any, ec2: Any, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws.world.delays, "running", 0.2)
    monkeypatch.setattr(aws.world.delays, "ending", 0.4)
    instance = boot(wait=False)
    ec2.terminate_instances(InstanceIds=[instance])
    assert seen(instance, "terminated") == ["shutting-down", "terminated"]
    assert not aws.world.instances[instance].host.directory.exists()


def test_ending_what_has_ended_is_no_error_and_keeps_its_reason(ec2: Any, boot: Any, send: Any, until: Any) -> None:
    instance = boot(InstanceInitiatedShutdownBehavior="terminate")
    send("poweroff", on=instance)
    until(lambda: described(ec2, instance)["State"]["Name"] == "terminated")
    ec2.terminate_instances(InstanceIds=[instance])
    assert described(ec2, instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_change_that_the_state_does_not_allow_is_refused(boot: Any, ec2: Any, refused: Any) -> None:
    stopped, ended = boot(), boot()
    ec2.stop_instances(InstanceIds=[stopped])
    assert refused("reboot_instances", InstanceIds=[stopped]) == "IncorrectInstanceState"
    ec2.terminate_instances(InstanceIds=[ended])
    for operation in ("start_instances", "stop_instances", "reboot_instances"):
        assert refused(operation, InstanceIds=[ended]) == "IncorrectInstanceState"


def test_nothing_changes_when_one_of_several_cannot_be_changed(boot: Any, ec2: Any, refused: Any, state: Any) -> None:
    running, ended = boot(), boot()
    ec2.terminate_instances(InstanceIds=[ended])
    assert refused("stop_instances", InstanceIds=[running, ended]) == "IncorrectInstanceState"
    assert state(running) == "running"


def test_a_dry_run_changes_nothing(boot: Any, ec2: Any, refused: Any, state: Any) -> None:
    before = listed(ec2)
    assert refused("run_instances", **BASE, DryRun=True) == "DryRunOperation"
    assert listed(ec2) == before
    instance = boot()
    assert refused("terminate_instances", InstanceIds=[instance], DryRun=True) == "DryRunOperation"
    assert state(instance) == "running"


# The same launch twice


def test_client_token_is_honoured_with_the_same_parameters(ec2: Any, boot: Any) -> None:
    first = boot(ClientToken="same", wait=False)
    before = listed(ec2)
    assert boot(ClientToken="same", wait=False) == first
    assert listed(ec2) == before


def test_a_client_token_outlives_its_instance(ec2: Any, boot: Any) -> None:
    first = boot(ClientToken="outlives")
    ec2.terminate_instances(InstanceIds=[first])
    again = ec2.run_instances(**BASE | {"InstanceType": "c6i.large"}, ClientToken="outlives",
                              IamInstanceProfile={"Name": PROFILE})["Instances"][0]  # fmt: skip
    assert (again["InstanceId"], again["State"]["Name"]) == (first, "terminated")


def test_a_client_token_with_other_parameters_is_a_mismatch(boot: Any, refused: Any) -> None:
    boot(ClientToken="other", wait=False)
    market = {"InstanceMarketOptions": ONE_TIME}
    for changed in ({"InstanceType": "t3.medium"}, market, {"UserData": "#!/bin/sh"}):
        parameters = BASE | changed | {"ClientToken": "other"}
        assert refused("run_instances", **parameters) == "IdempotentParameterMismatch"


def test_a_refused_launch_does_not_use_up_its_token(aws: Any, ec2: Any, boot: Any, refused: Any) -> None:
    aws.world.faults.add("no-capacity:times=1")
    assert refused("run_instances", **BASE, ClientToken="again") == "InsufficientInstanceCapacity"
    assert boot(**BASE, IamInstanceProfile=None, ClientToken="again", wait=False) in listed(ec2)


def test_launches_with_one_token_at_once_are_one_launch(ec2: Any) -> None:
    before = set(listed(ec2))
    gate = threading.Barrier(6)

    def launch(_: int) -> str:
        gate.wait()
        return str(ec2.run_instances(**BASE, ClientToken="race")["Instances"][0]["InstanceId"])

    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(launch, range(6)))
    assert set(listed(ec2)) - before == ids
    assert len(ids) == 1
    ec2.terminate_instances(InstanceIds=list(ids))


def test_a_launch_of_several_gives_as_many_as_it_may(ec2: Any) -> None:
    answer = ec2.run_instances(**BASE | {"MaxCount": 3})["Instances"]
    assert len(answer) == 3
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"] for instance in answer])


# Visible a moment later


def test_an_instance_is_not_found_right_after_its_launch(
    aws: Any, ec2: Any, boot: Any, refused: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that it is over only when the test says so.
    monkeypatch.setattr(aws.world.delays, "visible", 600)
    instance = boot(ClientToken="hidden", wait=False)
    for operation in ("describe_instances", "terminate_instances", "describe_instance_status"):
        assert refused(operation, InstanceIds=[instance]) == "InvalidInstanceID.NotFound"
    tags = [{"Key": "a", "Value": "b"}]
    assert refused("create_tags", Resources=[instance], Tags=tags) == "InvalidInstanceID.NotFound"
    assert instance not in listed(ec2)
    found = ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert instance not in [status["InstanceId"] for status in found]
    assert boot(ClientToken="hidden", wait=False) == instance
    aws.world.instances[instance].visible_at = 0
    assert instance in listed(ec2)
    assert described(ec2, instance)["InstanceId"] == instance


def test_an_instance_becomes_visible_after_its_delay(
    aws: Any, ec2: Any, boot: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws.world.delays, "visible", 0.3)
    instance = boot(wait=False)
    assert instance not in listed(ec2)
    until(lambda: instance in listed(ec2))


def test_ids_that_are_none_are_told_from_ids_that_are_not_there(refused: Any) -> None:
    assert refused("describe_instances", InstanceIds=["i-0123456789abcdef0"]) == "InvalidInstanceID.NotFound"
    assert refused("describe_instances", InstanceIds=["my-instance"]) == "InvalidInstanceID.Malformed"


# What is refused before there is an instance


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "ubuntu"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "t3.gigantic"}, "InvalidParameterValue"),
        ({"InstanceType": "t4g.medium"}, "InvalidParameterValue"),
        ({"ImageId": ARM}, "InvalidParameterValue"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound"),
        ({"Placement": {"AvailabilityZone": "us-east-1z"}}, "InvalidParameterValue"),
        ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue"),
        ({"UserData": "x" * (16 * 1024 + 1)}, "InvalidParameterValue"),
        ({"InstanceMarketOptions": ONE_TIME | {"SpotOptions": {"MaxPrice": "cheap"}}}, "InvalidParameterValue"),
        ({"InstanceMarketOptions": ONE_TIME | {"SpotOptions": {"MaxPrice": "0.0001"}}}, "SpotMaxPriceTooLow"),
    ],
)
def test_a_launch_is_validated(ec2: Any, refused: Any, changed: dict[str, Any], code: str) -> None:
    before = listed(ec2)
    assert refused("run_instances", **BASE | changed) == code
    assert listed(ec2) == before


def test_user_data_of_16_kilobytes_and_a_price_that_is_high_enough_are_taken(boot: Any) -> None:
    price = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.0104"}}
    boot(UserData="#".ljust(16 * 1024, "x"), InstanceType="t3.micro", InstanceMarketOptions=price, wait=False)


def test_an_arm_type_boots_an_arm_image(boot: Any, ec2: Any) -> None:
    assert described(ec2, boot(ImageId=ARM, InstanceType="t4g.medium", wait=False))["InstanceType"] == "t4g.medium"


@pytest.mark.parametrize("parameter", IMAGES)
def test_a_public_ami_parameter_names_an_image_with_a_root_device(ssm: Any, ec2: Any, parameter: str) -> None:
    value = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    (image,) = ec2.describe_images(ImageIds=[value])["Images"]
    assert image["Architecture"] == IMAGES[parameter][1]
    assert image["RootDeviceName"] in [mapping["DeviceName"] for mapping in image["BlockDeviceMappings"]]
    assert image["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] > 0


def test_the_ami_parameters_that_the_product_stands_on_are_there() -> None:
    deep_learning, ubuntu = "/aws/service/deeplearning/ami/x86_64", "/aws/service/canonical/ubuntu/server/24.04"
    assert {
        f"{deep_learning}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id",
        f"{deep_learning}/oss-nvidia-driver-gpu-pytorch-2.7-ubuntu-22.04/latest/ami-id",
        f"{ubuntu}/stable/current/amd64/hvm/ebs-gp3/ami-id",
        "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
    } <= set(IMAGES)


# Zones


def test_every_zone_has_an_id_of_its_own_and_a_default_subnet(ec2: Any) -> None:
    zones = {zone["ZoneName"]: zone["ZoneId"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]}
    assert set(zones.values()) == {zone_id for zone_id in SPOT["p5.48xlarge"] if zone_id.startswith("use1-")}
    wanted = [{"Name": "default-for-az", "Values": ["true"]}]
    subnets = ec2.describe_subnets(Filters=wanted)["Subnets"]
    assert {subnet["AvailabilityZone"]: subnet["AvailabilityZoneId"] for subnet in subnets} == zones


def test_an_instance_is_in_the_zone_of_its_subnet(ec2: Any, boot: Any) -> None:
    subnet = ec2.describe_subnets()["Subnets"][-1]
    instance = described(ec2, boot(SubnetId=subnet["SubnetId"], wait=False))
    assert instance["SubnetId"] == subnet["SubnetId"]
    assert instance["Placement"]["AvailabilityZone"] == subnet["AvailabilityZone"]


def test_a_type_that_is_not_in_the_zone_is_unsupported(ec2: Any, refused: Any, boot: Any) -> None:
    without, with_it = zone_of(ec2, "use1-az5"), zone_of(ec2, "use1-az2")
    kind = BASE | {"InstanceType": "g6e.xlarge"}
    assert refused("run_instances", **kind, Placement={"AvailabilityZone": without}) == "Unsupported"
    (subnet,) = ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": [without]}])["Subnets"]
    assert refused("run_instances", **kind, SubnetId=subnet["SubnetId"]) == "Unsupported"
    boot(InstanceType="g6e.xlarge", Placement={"AvailabilityZone": with_it}, wait=False)


def test_without_a_zone_or_subnet_one_is_chosen_that_has_the_type(aws: Any, ec2: Any, boot: Any) -> None:
    first = aws._prices.zones[0]
    aws._prices._zone_ids[first], kept = "use1-az3", aws._prices._zone_ids[first]  # where nearly nothing is offered
    try:
        instance = described(ec2, boot(InstanceType="t3.micro", wait=False))
    finally:
        aws._prices._zone_ids[first] = kept
    assert instance["Placement"]["AvailabilityZone"] == aws._prices.zones[1]


# Spot


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("reclaim", "Server.SpotInstanceTermination"),
        ("user", "Client.UserInitiatedShutdown"),
        ("guest", "Client.InstanceInitiatedShutdown"),
    ],
)
def test_the_end_of_a_spot_instance_tells_why(
    aws: Any, ec2: Any, boot: Any, send: Any, until: Any, ending: str, code: str
) -> None:
    if ending == "reclaim":
        aws.world.faults.add("reclaim:phase=booting")
    instance = boot(InstanceMarketOptions=ONE_TIME, wait=False)
    assert described(ec2, instance)["InstanceLifecycle"] == "spot"
    until(lambda: aws.world.instances[instance].is_online or ending == "reclaim")
    if ending == "user":
        ec2.terminate_instances(InstanceIds=[instance])
    elif ending == "guest":
        send("shutdown -h now", on=instance)
    until(lambda: described(ec2, instance)["State"]["Name"] == "terminated")
    reason = described(ec2, instance)["StateReason"]
    assert reason["Code"] == code
    assert reason["Message"].startswith(f"{code}: ")


def test_an_on_demand_instance_has_no_lifecycle(ec2: Any, instance: str) -> None:
    assert "InstanceLifecycle" not in described(ec2, instance)


def test_a_one_time_spot_instance_cannot_be_stopped(boot: Any, refused: Any, state: Any) -> None:
    instance = boot(InstanceMarketOptions={"MarketType": "spot"})
    assert refused("stop_instances", InstanceIds=[instance]) == "UnsupportedOperation"
    assert state(instance) == "running"


def test_a_persistent_spot_instance_can_be_stopped(boot: Any, ec2: Any, state: Any, until: Any) -> None:
    options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    instance = boot(InstanceMarketOptions={"MarketType": "spot", "SpotOptions": options})
    ec2.stop_instances(InstanceIds=[instance])
    until(lambda: state(instance) == "stopped")


# Power, from outside and from inside


def test_a_stopped_instance_starts_again_with_its_disk_and_without_its_processes(
    boot: Any, ec2: Any, run: Any, state: Any, until: Any, is_online: Any
) -> None:
    instance = boot()
    run('echo kept > "$RUNCTL_HOST_DIR"/file; setsid sleep 6000 > /dev/null 2>&1 & echo $! > "$RUNCTL_HOST_DIR"/pid',
        on=instance)  # fmt: skip
    ec2.stop_instances(InstanceIds=[instance])
    until(lambda: state(instance) == "stopped")
    (change,) = ec2.start_instances(InstanceIds=[instance])["StartingInstances"]
    assert change["PreviousState"]["Name"] == "stopped"
    until(lambda: state(instance) == "running" and is_online(instance))
    assert described(ec2, instance)["StateReason"]["Code"] == ""
    look = 'cat "$RUNCTL_HOST_DIR"/file; kill -0 "$(cat "$RUNCTL_HOST_DIR"/pid)" 2> /dev/null || echo gone'
    assert run(look, on=instance)["StandardOutputContent"] == "kept\ngone\n"


def test_a_reboot_keeps_the_state_and_the_disk(boot: Any, ec2: Any, run: Any, state: Any, until: Any) -> None:
    instance = boot(UserData='#cloud-boothook\necho boot >> "$RUNCTL_HOST_DIR"/boots')
    ec2.reboot_instances(InstanceIds=[instance])
    assert state(instance) == "running"
    until(lambda: run('cat "$RUNCTL_HOST_DIR"/boots', on=instance)["StandardOutputContent"] == "boot\nboot\n")


@pytest.mark.parametrize(("behaviour", "last"), [("terminate", "terminated"), ("stop", "stopped"), (None, "stopped")])
@pytest.mark.parametrize("command", ["shutdown -h now", "systemctl poweroff"])
def test_power_off_from_inside_obeys_the_shutdown_behaviour(
    boot: Any, ec2: Any, send: Any, seen: Any, behaviour: str | None, last: str, command: str
) -> None:
    instance = boot(InstanceInitiatedShutdownBehavior=behaviour)
    send(command, on=instance)
    assert seen(instance, last)[-1] == last
    assert described(ec2, instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_boothook_runs_at_every_boot_and_a_script_once(
    aws: Any, boot: Any, ec2: Any, run: Any, state: Any, until: Any, is_online: Any
) -> None:
    parts = (
        ("text/cloud-boothook", '#cloud-boothook\n#!/bin/sh\necho hook >> "$RUNCTL_HOST_DIR"/log'),
        ("text/x-shellscript", '#!/bin/sh\necho script >> "$RUNCTL_HOST_DIR"/log'),
    )
    data = 'Content-Type: multipart/mixed; boundary="X"\nMIME-Version: 1.0\n\n'
    data += "".join(f"--X\nContent-Type: {kind}\n\n{text}\n" for kind, text in parts) + "--X--\n"
    instance = boot(UserData=data)
    log = aws.world.instances[instance].host.directory / "var/lib/runctl/log"
    until(lambda: log.exists() and log.read_text() == "hook\nscript\n")
    ec2.stop_instances(InstanceIds=[instance])
    until(lambda: state(instance) == "stopped")
    ec2.start_instances(InstanceIds=[instance])
    # The hook is over before the instance is online, and a script would be started right behind it.
    until(lambda: state(instance) == "running" and is_online(instance))
    run("true", on=instance)
    assert log.read_text() == "hook\nscript\nhook\n"


def test_a_timer_in_user_data_powers_off_after_emulated_minutes(
    aws: Any, boot: Any, ec2: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws.world, "seconds_per_minute", 0.05)
    for command in ("shutdown -h +4", "systemd-run --quiet --unit=lease --on-active=240 shutdown -h now"):
        instance = boot(
            UserData=f"#cloud-boothook\n#!/bin/sh\n{command}\n", InstanceInitiatedShutdownBehavior="terminate",
            wait=False,
        )  # fmt: skip
        until(lambda instance=instance: described(ec2, instance)["State"]["Name"] == "terminated")
        assert described(ec2, instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


@pytest.mark.parametrize(
    "cancelled",
    [
        "shutdown -h +1; shutdown -c",
        "shutdown -h +1; shutdown -h +6000",
        "systemd-run --unit=lease --on-active=60 poweroff; systemctl stop lease.timer",
    ],
)
def test_a_timer_that_is_cancelled_or_replaced_does_not_power_off(
    aws: Any, boot: Any, run: Any, state: Any, until: Any, monkeypatch: pytest.MonkeyPatch, cancelled: str
) -> None:
    monkeypatch.setattr(aws.world, "seconds_per_minute", 0.3)
    instance = boot()
    # When the later timer has run, the earlier one would have.
    later = 'systemd-run --unit=later --on-active=120s touch "$RUNCTL_HOST_DIR"/later'
    assert run(f"{cancelled}; {later}", on=instance)["Status"] == "Success"
    until((aws.world.instances[instance].host.directory / "var/lib/runctl/later").exists)
    assert state(instance) == "running"


def test_halt_leaves_the_power_on(boot: Any, run: Any, state: Any) -> None:
    instance = boot(InstanceInitiatedShutdownBehavior="terminate")
    assert run("halt", on=instance)["Status"] == "Success"
    assert state(instance) == "running"


# Faults


@pytest.mark.parametrize(
    ("fault", "market", "code", "status"),
    [
        ("no-capacity", "spot", "InsufficientInstanceCapacity", 500),
        ("no-capacity:market=on-demand", "on-demand", "InsufficientInstanceCapacity", 500),
        ("launch-error:code=UnfulfillableCapacity", "spot", "UnfulfillableCapacity", 500),
        ("unsupported:type=t3.*", "on-demand", "Unsupported", 400),
        ("max-price", "spot", "SpotMaxPriceTooLow", 400),
        ("launch-error:code=InsufficientFreeAddressesInSubnet", "on-demand", "InsufficientFreeAddressesInSubnet", 400),
        ("quota", "spot", "MaxSpotInstanceCountExceeded", 400),
        ("quota", "on-demand", "VcpuLimitExceeded", 400),
        ("launch-error:code=InstanceLimitExceeded", "on-demand", "InstanceLimitExceeded", 400),
        ("throttle:api=RunInstances", "on-demand", "RequestLimitExceeded", 503),
        ("denied:action=ec2:RunInstances", "on-demand", "UnauthorizedOperation", 403),
        ("denied:action=iam:PassRole", "on-demand", "UnauthorizedOperation", 403),
        ("launch-error:code=InvalidParameterValue", "on-demand", "InvalidParameterValue", 400),
    ],
)
def test_every_way_in_which_a_launch_is_refused_can_be_had(
    aws: Any, ec2: Any, impatient: Any, fault: str, market: str, code: str, status: int
) -> None:
    aws.world.faults.add(fault)
    before = listed(ec2)
    options = {"InstanceMarketOptions": ONE_TIME} if market == "spot" else {}
    with pytest.raises(ClientError) as error:
        impatient.run_instances(**BASE, **options, IamInstanceProfile={"Name": PROFILE})
    answer = error.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert listed(ec2) == before


def test_a_fault_of_one_market_type_or_zone_leaves_the_others(aws: Any, boot: Any, ec2: Any, refused: Any) -> None:
    zones = [zone_of(ec2, zone_id) for zone_id in ("use1-az1", "use1-az2")]
    aws.world.faults.add(f"no-capacity:market=spot,type=t3.*,zone={zones[0]}")
    hit = {"InstanceMarketOptions": ONE_TIME, "Placement": {"AvailabilityZone": zones[0]}}
    assert refused("run_instances", **BASE, **hit) == "InsufficientInstanceCapacity"
    for changed in (
        {"InstanceMarketOptions": None}, {"InstanceType": "m7i.large"}, {"Placement": {"AvailabilityZone": zones[1]}}
    ):  # fmt: skip
        boot(**{"InstanceType": "t3.micro", **hit, **changed}, wait=False)


def test_a_message_names_what_was_asked_for(aws: Any, impatient: Any) -> None:
    aws.world.faults.add("no-capacity")
    with pytest.raises(ClientError) as error:
        impatient.run_instances(**BASE, Placement={"AvailabilityZone": "us-east-1b"})
    assert re.search(r"t3\.micro.*us-east-1b", error.value.response["Error"]["Message"])


_TWO = """
import contextlib, sys
from pathlib import Path
from runctl_action.emulator.server import Emulator
for name in ("first", "second"):
    with Emulator(Path(sys.argv[1]) / name) as aws, contextlib.closing(aws.client("ec2")) as ec2:
        print(len(ec2.describe_instances()["Reservations"]))
        ec2.run_instances(ImageId="ami-0000000000ubuntu1", InstanceType="t3.micro", MinCount=1, MaxCount=1)
"""


def test_an_emulator_knows_nothing_of_the_one_before_it_in_its_process(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _TWO, str(tmp_path)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n0\n"), done.stderr
