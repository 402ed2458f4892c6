"""What launchers leave behind, and who ends it: detached runs, dead launchers, instances that must not be there."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runctl_action.contract.layout import TAG_BUCKET, TAG_DEADLINE, TAG_RUN

WAITS = "import time; print('training', flush=True); time.sleep(300)"

# One that is over before its launcher has seen it train is followed to its end.
ENDS_SOON = "import time; print('training', flush=True); time.sleep(4); print('done')"


def _detach(start: Any, *flags: str, **variables: str) -> str:
    process = start("train", "--no-wait", *flags, "train.py", **variables)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    return re.search(r"run (train-[0-9a-f]{12})", err)[1]  # type: ignore[index]


def _until(runctl: Any, run_id: str, holds: Callable[[dict[str, Any]], bool], *, collect: bool = False) -> Any:
    deadline = time.monotonic() + 60
    while True:
        if collect:
            assert runctl("collect").code == 0
        report = runctl("report", "--json", run_id).report
        if holds(report):
            return report
        assert time.monotonic() < deadline, report
        time.sleep(0.2)


def _states(ec2: Any, run_id: str) -> list[str]:
    found = ec2.describe_instances(Filters=[{"Name": f"tag:{TAG_RUN}", "Values": [run_id]}])
    return [i["State"]["Name"] for r in found["Reservations"] for i in r["Instances"]]


def test_a_launcher_that_does_not_wait_is_back_once_the_training_has_started(
    commit: Any, start: Any, runctl: Any
) -> None:
    commit({"train.py": WAITS})
    run_id = _detach(start, RUNCTL_INSTALL="sleep 2")
    assert runctl("report", "--json", run_id).report["phase"] == "training"
    assert runctl("stop", "--force", run_id).code == 0


def test_an_interrupted_detached_run_goes_on_by_collect(commit: Any, start: Any, runctl: Any, aws: Any) -> None:
    commit(
        {
            "train.py": """
import os, time
from pathlib import Path
print("attempt", os.environ["RUNCTL_ATTEMPT"], os.environ.get("RUNCTL_RESUME_FROM"), flush=True)
if os.environ["RUNCTL_ATTEMPT"] == "1":
    Path("checkpoints/first").write_text("1")
    time.sleep(300)
"""
        }
    )
    aws.world.faults.add("spot-notice:phase=training,after=4,reclaim=0.02")
    run_id = _detach(start)
    report = _until(runctl, run_id, lambda r: r["outcome"] == "succeeded", collect=True)
    assert report["attempts"] == 2
    assert report["resumed_from"] == "checkpoints/first"
    assert report["checkpoints"][0]["path"] == "checkpoints/first"


@pytest.mark.parametrize("said", ["] booting", "] syncing"])
def test_a_run_whose_launcher_was_killed_is_started_by_collect(
    commit: Any, start: Any, runctl: Any, ec2: Any, said: str
) -> None:
    commit({"train.py": "print('trained by collect')"})
    launcher = start("train", "train.py")
    run_id = ""
    for line in launcher.stderr:
        run_id = run_id or (found[1] if (found := re.search(r"run (train-[0-9a-f]{12})", line)) else "")
        if said in line:
            break
    # Its source is in the bucket by then: it is uploaded while the instance boots.
    _wait_for_upload(runctl, run_id) if said == "] booting" else None
    launcher.kill()
    launcher.communicate()
    report = _until(runctl, run_id, lambda r: r["outcome"] is not None, collect=True)
    assert report["outcome"] == "succeeded"
    assert _states(ec2, run_id) == ["terminated"]


def _wait_for_upload(runctl: Any, run_id: str) -> None:
    deadline = time.monotonic() + 20
    while "the source to be uploaded" in runctl("collect", "--dry-run").err:
        assert time.monotonic() < deadline


def test_a_dry_run_says_what_it_would_do_and_does_nothing(commit: Any, start: Any, runctl: Any) -> None:
    commit({"train.py": ENDS_SOON})
    run_id = _detach(start)
    _until(runctl, run_id, lambda r: r["phase"] == "done")
    for _ in range(2):
        assert f"{run_id}: done; would end attempt 1: succeeded" in runctl("collect", "--dry-run").err
    assert f"{run_id}: succeeded" in runctl("collect").err
    # Others may be: of runs that somebody has to post who has a token.
    assert run_id not in runctl("collect", "--dry-run").err


def test_three_at_once_do_no_harm(commit: Any, start: Any, runctl: Any, ec2: Any) -> None:
    commit({"train.py": ENDS_SOON})
    run_id = _detach(start)
    _until(runctl, run_id, lambda r: r["phase"] == "done")
    collectors = [start("collect", "--json") for _ in range(3)]
    said = [process.communicate(timeout=60) for process in collectors]
    assert [process.returncode for process in collectors] == [0, 0, 0], said
    found = [report for out, _ in said for report in json.loads(out) if report["run_id"] == run_id]
    assert {report["outcome"] for report in found} == {"succeeded"}
    assert runctl("report", "--json", run_id).report["outcome"] == "succeeded"
    assert _states(ec2, run_id) == ["terminated"]


@pytest.fixture
def stray(ec2: Any, bucket: str) -> Any:
    """An instance of a run that is not in the bucket: `stray(minutes to its deadline, …)`."""
    launched: list[str] = []

    def launch(minutes: float, of_bucket: str = bucket, run_id: str = "gone-0123456789ab") -> str:
        image = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
        deadline = datetime.now(UTC) + timedelta(minutes=minutes)
        tags = {TAG_RUN: run_id, TAG_BUCKET: of_bucket, TAG_DEADLINE: deadline.isoformat(timespec="seconds")}
        started = ec2.run_instances(
            ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}],
        )  # fmt: skip
        launched.append(started["Instances"][0]["InstanceId"])
        return launched[-1]

    yield launch
    ec2.terminate_instances(InstanceIds=launched)


def test_an_instance_past_its_deadline_is_ended_and_no_other(commit: Any, runctl: Any, ec2: Any, stray: Any) -> None:
    commit({"train.py": ""})
    overdue, later, foreign = stray(-1), stray(60), stray(-1, of_bucket="another-bucket")
    assert f"would terminate {overdue}: past its deadline" in runctl("collect", "--dry-run").err
    said = runctl("collect")
    assert f"terminating {overdue}: past its deadline" in said.err
    assert later not in said.err
    states = {i: _state(ec2, i) for i in (overdue, later, foreign)}
    assert states[overdue] in {"shutting-down", "terminated"}
    assert {states[later], states[foreign]} <= {"pending", "running"}


def test_an_instance_of_a_run_that_is_over_is_ended(train: Any, runctl: Any, ec2: Any, stray: Any) -> None:
    said = train("print('over')")
    left = stray(60, run_id=said.report["run_id"])
    ec2.create_tags(Resources=[left], Tags=[{"Key": "runctl:attempt", "Value": "1"}])
    assert runctl("collect").code == 0
    assert _state(ec2, left) in {"shutting-down", "terminated"}


def test_a_kept_instance_stays_until_somebody_stops_it(train: Any, runctl: Any, ec2: Any) -> None:
    said = train("raise SystemExit(1)", flags=("--keep-on-failure", "30m"))
    assert said.ending == (1, "failed", "exit")
    (kept,) = (instance["id"] for instance in said.report["instances"])
    assert runctl("collect").code == 0
    assert _state(ec2, kept) == "running"
    assert runctl("stop", kept).code == 0
    assert _state(ec2, kept) in {"shutting-down", "terminated"}


def test_an_instance_with_a_live_run_is_ended_by_force_alone(commit: Any, start: Any, runctl: Any, ec2: Any) -> None:
    commit({"train.py": WAITS})
    run_id = _detach(start)
    (busy,) = (i["id"] for i in runctl("report", "--json", run_id).report["instances"])
    said = runctl("stop", busy)
    assert said.code == 4
    assert f"instance {busy} is busy with {run_id} since" in said.err
    assert f"runctl-action stop {run_id}" in said.err
    assert _state(ec2, busy) == "running"
    ended = runctl("stop", "--force", "--json", busy)
    assert (ended.report["outcome"], ended.report["cause"]) == ("cancelled", "stopped")
    assert _state(ec2, busy) in {"shutting-down", "terminated"}


def test_an_instance_that_no_run_launched_is_not_ended_by_us(commit: Any, runctl: Any, ec2: Any, stray: Any) -> None:
    commit({"train.py": ""})
    theirs = stray(60)
    ec2.delete_tags(Resources=[theirs], Tags=[{"Key": TAG_RUN}])
    said = runctl("stop", "--force", theirs)
    assert said.code == 2
    assert "was not launched by a run" in said.err
    assert _state(ec2, theirs) in {"pending", "running"}


def _state(ec2: Any, instance_id: str) -> str:
    found = ec2.describe_instances(InstanceIds=[instance_id])
    return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])
