"""How a training ends, and what is made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runctl_action.host.training import Ended, judge

# In a process of its own: whoever supervises ends every descendant that it has.
SUPERVISE = """
import dataclasses, json, os, sys, time
from pathlib import Path
from runctl_action.host import processes
from runctl_action.host.journal import Journal
from runctl_action.host.training import Limits, Supervised
limits, argv, directory = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
processes.own_descendants()
ready = directory / "ready"
if "budget_after_ready" in limits:
    left = limits.pop("budget_after_ready")
    limits["budget_left"] = lambda: left if ready.exists() else 1.0
if "hang_seconds" in limits:
    limits["progressed_at"] = lambda: 0.0 if ready.exists() else time.monotonic()
journal = Journal(lambda *_: None, directory / "log")
def looks():
    (directory / "looked").write_text(str((directory / "saved").exists()))
    raise RuntimeError("nothing to be seen")
ended = Supervised(journal, "training", Limits(**limits), on_hang=looks).run(argv, cwd=directory, env=dict(os.environ), is_training=True)
print(json.dumps(dataclasses.asdict(ended)))
"""
SAVES = "import signal,sys,time;signal.signal(15,lambda *_:(open('saved','w').close(),sys.exit(0)));open('ready','w').close();time.sleep(60)"
IGNORES = "import signal,time;signal.signal(15,signal.SIG_IGN);open('ready','w').close();time.sleep(60)"


def supervised(directory: Path, program: str, **limits: Any) -> Ended:
    argv = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISE, json.dumps(limits), json.dumps(argv), str(directory)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return Ended(**json.loads(done.stdout))


def test_a_budget_that_is_used_up_ends_a_training_which_saves_itself(tmp_path: Path) -> None:
    ended = supervised(tmp_path, SAVES, budget_after_ready=0.0, grace_seconds=30)
    assert (ended.because, ended.exit_code, ended.signal) == ("budget", 0, None)
    assert ended.killed_at is not None
    assert (tmp_path / "saved").exists()
    assert judge(ended) == ("timed-out", "budget", "the run reached max-cost")


def test_a_training_that_does_not_end_itself_has_its_grace_and_is_killed(tmp_path: Path) -> None:
    ended = supervised(tmp_path, IGNORES, budget_after_ready=-1.0, grace_seconds=0.1)
    assert (ended.because, ended.exit_code, ended.signal, ended.is_out_of_memory) == ("budget", None, 9, False)
    assert judge(ended)[:2] == ("timed-out", "budget")


def test_one_that_hangs_is_looked_at_first_and_ended_whatever_was_seen(tmp_path: Path) -> None:
    ended = supervised(tmp_path, SAVES, hang_seconds=0.1, grace_seconds=30)
    assert (ended.because, ended.exit_code) == ("hung", 0)
    assert (tmp_path / "looked").read_text() == "False"
    assert (tmp_path / "saved").exists()


def test_one_that_is_ended_for_another_reason_is_not_looked_at(tmp_path: Path) -> None:
    assert supervised(tmp_path, SAVES, budget_after_ready=0.0, hang_seconds=60).because == "budget"
    assert not (tmp_path / "looked").exists()


def test_without_a_budget_a_training_ends_itself(tmp_path: Path) -> None:
    ended = supervised(tmp_path, "import sys;sys.exit(3)")
    assert (ended.because, ended.exit_code, ended.killed_at) == ("", 3, None)
    assert judge(ended) == ("failed", "exit", "the training exited with code 3")


@pytest.mark.parametrize(
    ("ended", "judged"),
    [
        ({"because": "stopped"}, ("cancelled", "stopped")),
        ({"because": "spot-reclaimed", "exit_code": 0}, ("interrupted", "spot-reclaimed")),
        ({"because": "max-duration", "signal": 15}, ("timed-out", "max-duration")),
        ({"because": "hung", "signal": 9}, ("timed-out", "hung")),
        ({"because": "budget", "signal": 9}, ("timed-out", "budget")),
        ({"because": "budget", "exit_code": 1}, ("timed-out", "budget")),
        ({"signal": 9, "is_out_of_memory": True}, ("failed", "out-of-memory")),
        ({"signal": 11}, ("failed", "signal")),
        ({"exit_code": 7}, ("failed", "exit")),
        ({"exit_code": 0}, ("succeeded", None)),
    ],
)
def test_an_ending_has_one_outcome_and_cause(ended: dict[str, Any], judged: tuple[str, str | None]) -> None:
    defaults: dict[str, Any] = {
        "exit_code": None, "signal": None, "because": "", "is_out_of_memory": False, "killed_at": None,
    }  # fmt: skip
    assert judge(Ended(**(defaults | ended)))[:2] == judged
