"""Nothing that runs on an emulated host can power off, or start services on, the machine that emulates it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runctl_action.cloud.launch_call import user_data
from runctl_action.emulator import power, supervisor

ASKS = f"for name in {' '.join(power.SHIMS)}; do command -v $name; done"


def test_every_dangerous_command_of_a_script_is_a_shim(run: Any, instance: str, aws: Any) -> None:
    shims = aws.world.instances[instance].host.directory / "shims"
    assert run(ASKS)["StandardOutputContent"].split() == [str(shims / name) for name in power.SHIMS]


def test_so_it_is_for_user_data_and_for_what_systemd_starts(boot: Any, aws: Any, until: Any, run: Any) -> None:
    script = f"#!/bin/sh\n({ASKS}) > {{where}}\n"
    instance = boot(UserData=script.format(where='"$RUNCTL_HOST_DIR"/asked'))
    directory = aws.world.instances[instance].host.directory
    expected = [str(directory / "shims" / name) for name in power.SHIMS]
    asked = directory / supervisor.STATE / "asked"
    until(lambda: asked.exists() and asked.read_text().split() == expected)
    asked.unlink()
    run(f"systemd-run sh -c '({ASKS}) > {asked}'", on=instance)
    until(lambda: asked.exists() and asked.read_text().split() == expected)


@pytest.mark.parametrize("missing", power.SHIMS)
def test_a_host_refuses_to_start_when_one_shim_does_not_come_first(tmp_path: Path, missing: str) -> None:
    shims = power.write_shims(tmp_path)
    (shims / missing).unlink()
    with subprocess.Popen(supervisor.command(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate(json.dumps({"op": "configure", "seconds_per_minute": 60}).encode() + b"\n")
    assert process.returncode == 1
    event = json.loads(said.splitlines()[0])
    assert (event["event"], event["name"]) == ("unsafe", missing)


def test_what_the_product_runs_on_a_host_it_calls_by_bare_names() -> None:
    room = Path(supervisor.__file__).parent.parent / "host"
    code = "\n".join(file.read_text() for file in room.glob("*.py")) + user_data(15)
    names = "|".join(power.SHIMS)
    assert re.findall(rf"/(?:{names})\b", code) == []
    # It does call some, or this test would look at nothing.
    assert "shutdown" in code
    assert "systemd-run" in code


def test_a_power_off_from_inside_ends_the_host_and_nothing_else(boot: Any, send: Any, until: Any, state: Any) -> None:
    ended, other = boot(InstanceInitiatedShutdownBehavior="terminate"), boot()
    send("poweroff", on=ended)
    until(lambda: state(ended) == "terminated")
    assert state(other) == "running"


def test_halt_does_not_power_off(boot: Any, run: Any, state: Any) -> None:
    instance = boot()
    assert run("halt; echo on", on=instance)["StandardOutputContent"] == "on\n"
    assert state(instance) == "running"


def test_a_shim_answers_as_the_command_would(run: Any) -> None:
    assert run("systemd-run no-such-program-of-ours || echo failed $?")["StandardOutputContent"] == "failed 1\n"
    said = run("systemd-run --unit=t --on-active=600 true; systemctl is-active t.timer; echo $?; systemctl stop t.timer;"
               " systemctl is-active t.timer; echo $?")  # fmt: skip
    assert said["StandardOutputContent"].split() == ["0", "3"]


def test_a_service_is_active_for_as_long_as_it_runs(run: Any) -> None:
    said = run(
        "systemd-run --unit=s sleep 0.2; systemctl is-active s; echo $?; systemctl is-active s.service; echo $?;"
        " while systemctl is-active --quiet s; do :; done; echo over; systemctl is-active nothing; echo $?"
    )
    assert said["StandardOutputContent"].split() == ["0", "0", "over", "3"]
