"""Stop, ^C and looking at a run from elsewhere."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import Any

SAVES = """
import signal, sys, time
from pathlib import Path
def save(*_):
    Path("checkpoints/last.bin").write_bytes(b"last")
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("training", flush=True)
time.sleep(300)
"""


def _begin(start: Any, *flags: str) -> Any:
    process = start("train", "--json", *flags, "train.py")
    for line in process.stderr:
        if line.startswith("training"):
            return process
    raise AssertionError("it never began")


def test_an_interrupt_gives_the_training_its_grace_and_its_last_checkpoint(commit: Any, start: Any) -> None:
    commit({"train.py": SAVES})
    process = _begin(start)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    report = json.loads(out)
    assert (process.returncode, report["outcome"], report["cause"]) == (130, "cancelled", "stopped")
    assert "saved\n" in err
    assert [c["path"] for c in report["checkpoints"]] == ["checkpoints/last.bin"]


def test_a_second_interrupt_terminates_at_once(commit: Any, start: Any, ec2: Any) -> None:
    commit(
        {
            "train.py": "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('training', flush=True); time.sleep(300)"
        }
    )
    process = _begin(start, "--grace", "5m")
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if "^C once more" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "its instances are terminated" in err
    mine = [{"Name": "tag:runctl:run", "Values": [re.search(r"run (train-[0-9a-f]{12})", err)[1]]}]  # type: ignore[index]
    states = [i["State"]["Name"] for r in ec2.describe_instances(Filters=mine)["Reservations"] for i in r["Instances"]]
    assert set(states) == {"terminated"}


def test_a_run_is_listed_followed_stopped_and_reported_by_its_beginning(commit: Any, start: Any, runctl: Any) -> None:
    commit({"train.py": SAVES})
    detached = start("train", "--no-wait", "train.py")
    _, err = detached.communicate(timeout=60)
    assert detached.returncode == 0, err
    run_id = next(word for word in err.split() if word.startswith("train-")).rstrip(":")
    listed = runctl("list")
    assert listed.code == 0
    looked = runctl("report", "--json", run_id[:12])
    assert (looked.report["run_id"], looked.report["outcome"], looked.report["phase"]) == (run_id, None, "training")
    stopped = runctl("stop", "--json", run_id[:12])
    assert stopped.report["outcome"] == "cancelled"
    again = runctl("report", "--json", run_id)
    assert again.report["outcome"] == "cancelled"
    assert again.code == 130
    assert "saved" in runctl("report", run_id).err


def test_a_detached_run_is_settled_by_collect_and_its_log_can_be_read_by_anybody(
    commit: Any, start: Any, runctl: Any, ec2: Any
) -> None:
    commit({"train.py": "import time; print('detached', flush=True); time.sleep(4)"})
    detached = start("train", "--no-wait", "train.py")
    _, err = detached.communicate(timeout=60)
    run_id = re.search(r"run (train-[0-9a-f]{12})", err)[1]  # type: ignore[index]
    deadline = time.monotonic() + 30
    while runctl("report", "--json", run_id).report["outcome"] is None:
        assert time.monotonic() < deadline
        assert runctl("collect").code == 0
    assert runctl("report", "--json", run_id).report["outcome"] == "succeeded"
    assert "detached\n" in runctl("logs", run_id).out
    mine = [{"Name": "tag:runctl:run", "Values": [run_id]}]
    states = [i["State"]["Name"] for r in ec2.describe_instances(Filters=mine)["Reservations"] for i in r["Instances"]]
    assert states == ["terminated"]
    assert all(run_id not in line for line in runctl("collect").err.splitlines())


def test_a_run_that_is_not_there_is_said(commit: Any, runctl: Any) -> None:
    commit({"train.py": ""})
    said = runctl("report", "nothing-like-it")
    assert said.code == 2
    assert "there is no run 'nothing-like-it'" in said.err


def test_wait_false_with_an_embedded_emulator_names_the_standing_one(commit: Any, runctl: Any) -> None:
    commit({"train.py": ""})
    said = runctl("train", "--emulate", "--no-wait", "train.py")
    assert said.code == 2
    assert "runctl-action emulator" in said.err
