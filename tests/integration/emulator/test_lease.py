"""The lease on an emulated host: armed at every boot, replaced by a run's own limit, and there again after a reboot."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from runctl_action.cloud.launch_call import user_data

PROJECT = Path(__file__).parents[3]
TIMERS = ("runctl-lease", "runctl-lease-forced", "runctl-limit", "runctl-limit-forced", "runctl-limit-next")
SHOW = "; ".join(f"systemctl is-active --quiet {name}.timer && echo {name}" for name in TIMERS) + "; true"


def hold(*seconds: float) -> str:
    """A command that calls the host's own code: as a run does that begins."""
    program = f"import sys; sys.path.insert(0, sys.argv[1]); from runctl_action.host import lease; assert all(map(lease.hold, {json.dumps(seconds)}))"
    return f"'{sys.executable}' -c '{program}' '{PROJECT}'"


@pytest.fixture
def armed(run: Any) -> Any:
    return lambda instance: run(SHOW, on=instance)["StandardOutputContent"].split()


def test_the_boot_lease_is_armed_again_at_every_boot_and_ends_the_host(
    aws: Any, boot: Any, ec2: Any, run: Any, state: Any, until: Any, is_online: Any, armed: Any
) -> None:
    instance = boot(UserData=user_data(15), InstanceInitiatedShutdownBehavior="terminate")
    assert armed(instance) == ["runctl-lease", "runctl-lease-forced"]
    assert run(hold(36000), on=instance)["Status"] == "Success"
    assert armed(instance) == ["runctl-limit", "runctl-limit-forced"]
    # Everything that a run has armed is gone with the reboot, and so is the run.
    was_up = aws.world.instances[instance].host._supervisor
    ec2.reboot_instances(InstanceIds=[instance])
    until(lambda: aws.world.instances[instance].host._supervisor not in {was_up, None})
    until(lambda: state(instance) == "running" and is_online(instance))
    assert armed(instance) == ["runctl-lease", "runctl-lease-forced"]
    # From the next boot on a minute is short.
    aws.world.instances[instance].host._seconds_per_minute = 0.02
    ec2.reboot_instances(InstanceIds=[instance])
    until(lambda: state(instance) == "terminated")


def test_a_second_run_on_a_host_is_armed_anew(boot: Any, run: Any, armed: Any) -> None:
    instance = boot(UserData=user_data(15))
    assert run(hold(3600, 7200), on=instance)["Status"] == "Success"
    assert armed(instance) == ["runctl-limit-next"]
    assert run(hold(3600), on=instance)["Status"] == "Success"
    assert armed(instance) == ["runctl-limit", "runctl-limit-forced"]


def test_the_limit_of_a_run_ends_the_host(
    aws: Any, boot: Any, send: Any, state: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws.world, "seconds_per_minute", 0.5)
    instance = boot(UserData=user_data(6000), InstanceInitiatedShutdownBehavior="terminate")
    send(hold(60), on=instance)
    until(lambda: state(instance) == "terminated")
