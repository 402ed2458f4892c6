"""`make smoke-aws` without an account: its script, on the emulator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runctl_action.emulator.server import Emulator

ROOT = Path(__file__).parents[2]


def smoke(**variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/smoke_aws.py"]
    environ = os.environ | variables
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=170, check=False)


def test_it_is_skipped_unless_somebody_wants_to_spend_money() -> None:
    done = smoke()
    assert done.returncode == 0
    assert done.stdout.startswith("smoke-aws: skipped.")


def test_it_trains_spot_and_on_demand_and_looks_that_nothing_is_left(aws: Emulator) -> None:
    aws.world.faults.clear()
    done = smoke(RUNCTL_SMOKE_AWS="1", **aws.environ)
    assert done.stdout.splitlines()[-1] == "smoke-aws: two trainings succeeded, and nothing is left of them", (
        done.stdout + done.stderr
    )
    assert done.returncode == 0


def test_it_fails_when_the_market_is_not_the_one_that_was_asked_for(aws: Emulator) -> None:
    aws.world.faults.clear()
    aws.world.faults.add("no-capacity:market=spot")
    done = smoke(RUNCTL_SMOKE_AWS="1", **aws.environ)
    aws.world.faults.clear()
    assert done.returncode == 1
    assert "smoke-aws: spot: " in done.stdout
