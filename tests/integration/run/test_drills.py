"""What a run makes of what goes wrong: it survives, or it says why not."""

from __future__ import annotations

from typing import Any

import pytest

COUNTS = """
import json, os, sys, time
from pathlib import Path
folder = Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
resume = os.environ.get("RUNCTL_RESUME_FROM")
rows = json.loads(Path(resume).read_text()) if resume else []
for epoch in range(len(rows) + 1, 7):
    rows.append({"epoch": epoch})
    partial = folder / "state.tmp"
    partial.write_text(json.dumps(rows))
    partial.replace(folder / f"epoch-{epoch}.json")
    Path("metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    print("epoch", epoch, flush=True)
    time.sleep(0.7)
"""


@pytest.fixture
def fault(aws: Any) -> Any:
    return aws.world.faults.add


def test_two_spot_interruptions_end_where_an_undisturbed_training_ends(train: Any, fault: Any, aws: Any) -> None:
    for _ in range(2):
        fault("spot-notice:phase=training,after=1,reclaim=0.02")
    said = train(COUNTS)
    assert said.ending == (0, "succeeded", None)
    assert (said.report["attempts"], len(said.report["instances"])) == (3, 3)
    # None is missing, none is there twice: the training goes on from its last checkpoint.
    assert said.report["metrics"] == [{"epoch": epoch} for epoch in range(1, 7)]
    assert said.err.count("was interrupted") == 2
    zones = [instance["zone"] for instance in said.report["instances"]]
    assert len(set(zones)) == 3  # what was lost is not asked for first again


def test_a_reclaim_without_notice_is_told_as_one_and_survived(train: Any, fault: Any) -> None:
    fault("reclaim:phase=training,after=4")
    said = train(COUNTS)
    assert said.ending == (0, "succeeded", None)
    assert said.report["attempts"] == 2
    assert any("reclaimed the spot instance without a notice" in warning for warning in said.report["warnings"])
    assert said.report["metrics"][-1] == {"epoch": 6}


def test_attempts_that_are_used_up_are_an_interruption(train: Any, fault: Any) -> None:
    fault("reclaim:phase=training")
    said = train("import time; time.sleep(300)", flags=("--max-attempts", "1"))
    assert said.ending == (6, "interrupted", "spot-reclaimed")


def test_a_host_that_powers_off_without_a_result_is_lost(train: Any) -> None:
    said = train("import subprocess, time; subprocess.run(['shutdown', '-h', 'now']); time.sleep(300)")
    assert said.ending == (7, "lost", "vanished")
    assert "Client.InstanceInitiatedShutdown" in said.report["message"]


def test_spot_without_capacity_falls_back_and_says_so(train: Any, fault: Any) -> None:
    fault("no-capacity:market=spot")
    said = train("print('x')")
    assert said.ending == (0, "succeeded", None)
    assert said.report["instances"][0]["market"] == "on-demand"
    assert any(
        "ON-DEMAND" in warning and "InsufficientInstanceCapacity" in warning for warning in said.report["warnings"]
    )


def test_spot_that_is_required_and_cannot_be_had_ends_with_what_was_tried(train: Any, fault: Any, ec2: Any) -> None:
    fault("no-capacity:market=spot")
    before = len(ec2.describe_instances()["Reservations"])
    said = train("print('x')", flags=("--spot", "require"))
    assert said.ending == (4, "failed", "cloud")
    assert "spot t3.medium in us-east-1a: InsufficientInstanceCapacity" in said.report["message"]
    assert len(ec2.describe_instances()["Reservations"]) == before


def test_throttling_is_waited_for(train: Any, fault: Any) -> None:
    fault("throttle:api=RunInstances,times=3")
    fault("throttle:api=SendCommand,times=2")
    assert train("print('x')").ending == (0, "succeeded", None)


def test_a_missing_permission_is_named(train: Any, fault: Any) -> None:
    fault("denied:action=ec2:RunInstances")
    said = train("print('x')")
    assert said.ending == (4, "failed", "cloud")
    assert "ec2:RunInstances is not allowed" in said.report["message"]


def test_a_lost_answer_to_the_launch_makes_no_second_host(train: Any, fault: Any, ec2: Any) -> None:
    fault("lost-answer:api=RunInstances,times=1")
    said = train("print('x')")
    assert said.ending == (0, "succeeded", None)
    found = ec2.describe_instances(Filters=[{"Name": "tag:runctl:run", "Values": [said.report["run_id"]]}])
    assert len(found["Reservations"]) == 1


def test_errors_of_s3_and_a_cut_network_are_survived(train: Any, fault: Any) -> None:
    fault("s3-error:percent=10")
    fault("network-cut:phase=training,seconds=3")
    said = train("import time\nfor n in range(50): print('line', n, flush=True); time.sleep(0.05)")
    assert said.ending == (0, "succeeded", None)
    assert [line for line in said.err.splitlines() if line.startswith("line ")] == [f"line {n}" for n in range(50)]


@pytest.mark.parametrize("phase", ["installing", "training"])
def test_a_host_that_dies_is_lost_and_not_a_success(train: Any, fault: Any, phase: str) -> None:
    fault(f"die:phase={phase}")
    said = (
        train("import time; time.sleep(300)", RUNCTL_INSTALL="sleep 300")
        if phase == "installing"
        else train("import time; time.sleep(300)")
    )
    assert said.ending == (7, "lost", "vanished")


def test_a_host_process_that_dies_without_a_word_is_found_and_its_log_told(train: Any, aws: Any, tmp_path: Any) -> None:
    image = aws.world.ami_environment
    aws.world.ami_environment = dict(image) | {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "empty")}
    try:
        said = train("print('never')")
    finally:
        aws.world.ami_environment = image
    assert said.ending == (4, "failed", "cloud")
    assert "the host process has ended without a word" in said.report["message"]
    assert "offline" in said.report["message"].lower() or "network" in said.report["message"].lower()
