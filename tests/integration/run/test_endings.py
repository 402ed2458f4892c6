"""Every ending of a training is reported as what it was."""

from __future__ import annotations

import signal
from typing import Any

import pytest


@pytest.mark.parametrize("code", [0, 1, 3, 137, 143, 168, 194])
def test_an_exit_code_is_reported_as_what_it_is(train: Any, code: int) -> None:
    said = train(f"import sys; print('working'); sys.exit({code})")
    assert said.ending == ((0, "succeeded", None) if code == 0 else (1, "failed", "exit"))
    assert (said.report["exit_code"], said.report["signal"]) == (code, None)
    assert "working\n" in said.err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_reported_as_what_it_is(train: Any, number: signal.Signals) -> None:
    said = train(f"import os; os.kill(os.getpid(), {int(number)})")
    assert said.ending == (1, "failed", "signal")
    assert (said.report["exit_code"], said.report["signal"]) == (None, number)
    assert number.name in said.report["message"]


def test_a_traceback_is_in_the_report(train: Any) -> None:
    said = train("def load():\n    raise FileNotFoundError('data.csv')\nload()")
    assert said.ending == (1, "failed", "exit")
    assert "FileNotFoundError: data.csv" in said.report["log_tail"]


def test_a_failed_installation_is_install_with_its_output(train: Any, commit: Any) -> None:
    commit({"requirements.txt": "no-such-distribution-of-ours==1.0\n"})
    said = train("print('never')", RUNCTL_INSTALL="auto")
    assert said.ending == (5, "failed", "install")
    assert "no-such-distribution-of-ours" in said.err
    assert said.report["exit_code"] is None
    assert any("no-such-distribution-of-ours" in line for line in said.report["log_tail"])
    assert "never" not in said.err


def test_a_required_checkpoint_that_is_missing_is_no_success(train: Any) -> None:
    said = train("print('no checkpoint')", flags=("--require-checkpoint",))
    assert said.ending == (1, "failed", "no-checkpoint")


def test_max_duration_ends_the_training(train: Any) -> None:
    said = train("import time; print('going', flush=True); time.sleep(300)", RUNCTL_MAX_DURATION="1s")
    assert said.ending == (6, "timed-out", "max-duration")


def test_the_instance_is_gone_when_the_command_returns(train: Any, ec2: Any) -> None:
    said = train("print('x')")
    found = ec2.describe_instances(InstanceIds=[said.report["instances"][0]["id"]])
    assert found["Reservations"][0]["Instances"][0]["State"]["Name"] == "terminated"
