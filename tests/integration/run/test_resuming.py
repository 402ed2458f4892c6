"""A run goes on where it stopped: in a new attempt, in a workflow that is run again, or as another run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[3] / "examples" / "digits" / "train.py"

# A checkpoint of two files, older ones removed: what most frameworks do.
ROTATES = """
import json, os, sys, time
from pathlib import Path
folder = Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
resume = os.environ.get("RUNCTL_RESUME_FROM")
print("ARGS", json.dumps(sys.argv[1:]), flush=True)
print("FOUND", json.dumps(sorted(p.name for p in folder.iterdir())), Path(resume).name if resume else None, flush=True)
first = max((int(p.suffix[1:]) for p in folder.glob("model.*")), default=0) + 1
for step in range(first, int(os.environ["STEPS"]) + 1):
    for name in ("optimizer", "model"):
        partial = folder / f"{name}.tmp"
        partial.write_text(str(step))
        partial.rename(folder / f"{name}.{step}")
        (folder / f"{name}.{step - 1}").unlink(missing_ok=True)
    print("step", step, flush=True)
    if step == 2 and os.environ["STEPS"] == "3" and not resume:
        time.sleep(300)
if os.environ.get("FAILS"):
    sys.exit("as asked")
"""


def _found(err: str) -> list[str]:
    return [line.removeprefix("FOUND ") for line in err.splitlines() if line.startswith("FOUND ")]


def test_what_was_on_disk_is_put_back_and_what_was_rotated_away_is_not(train: Any, aws: Any) -> None:
    aws.world.faults.add("spot-notice:phase=training,after=4,reclaim=0.02")
    said = train(ROTATES, flags=("--resume-args=--from {checkpoint}", "--env", "STEPS=3"), RUNCTL_GRACE="5s")
    assert said.ending == (0, "succeeded", None)
    assert said.report["attempts"] == 2
    first, second = _found(said.err)
    assert first == "[] None"
    assert second == '["model.2", "optimizer.2"] model.2'
    args = [json.loads(line.removeprefix("ARGS ")) for line in said.err.splitlines() if line.startswith("ARGS ")]
    assert args[0] == []
    assert args[1][0] == "--from"
    assert args[1][1].endswith("/checkpoints/model.2")
    assert said.report["resumed_from"] == "checkpoints/model.2"
    assert said.report["resumed_run"] == said.report["run_id"]
    assert {"checkpoints/model.3", "checkpoints/optimizer.3"} <= {c["path"] for c in said.report["checkpoints"]}


def test_a_workflow_that_is_run_again_opens_a_new_attempt_of_what_failed(train: Any, runctl: Any) -> None:
    workflow = {"GITHUB_RUN_ID": "77", "GITHUB_WORKFLOW": "train", "GITHUB_JOB": "gpu"}
    flags = ("--env", "STEPS=1", "--env", "FAILS=1")
    first = train(ROTATES, flags=flags, **workflow, GITHUB_RUN_ATTEMPT="1")
    assert (first.ending, first.report["attempts"]) == ((1, "failed", "exit"), 1)
    same = runctl("train", "--json", *flags, "train.py", **workflow, GITHUB_RUN_ATTEMPT="1")
    assert same.report == first.report
    again = runctl("train", "--json", *flags, "train.py", **workflow, GITHUB_RUN_ATTEMPT="2")
    assert (again.report["run_id"], again.report["attempts"]) == (first.report["run_id"], 2)
    assert _found(again.err) == ['["model.1", "optimizer.1"] model.1']


def test_another_run_begins_with_the_checkpoints_of_one_that_is_over(train: Any, runctl: Any) -> None:
    first = train(ROTATES, flags=("--env", "STEPS=1"))
    assert first.ending == (0, "succeeded", None)
    longer = ("--env", "STEPS=2", "--require-checkpoint")
    second = runctl("train", "--json", "--resume", first.report["run_id"], *longer, "train.py")
    assert second.ending == (0, "succeeded", None)
    assert second.report["run_id"] != first.report["run_id"]
    assert _found(second.err) == ['["model.1", "optimizer.1"] model.1']
    assert second.report["resumed_run"] == first.report["run_id"]
    # The same request is the same run.
    third = runctl("train", "--json", "--resume", first.report["run_id"], *longer, "train.py")
    assert third.report == second.report


def test_a_required_checkpoint_is_one_that_the_run_wrote_itself(train: Any, runctl: Any) -> None:
    first = train(ROTATES, flags=("--env", "STEPS=1"))
    second = runctl(
        "train", "--json", "--resume", first.report["run_id"], "--env", "STEPS=1", "--require-checkpoint", "train.py"
    )
    assert second.ending == (1, "failed", "no-checkpoint")
    assert second.report["exit_code"] == 0


def test_a_run_without_a_checkpoint_or_that_is_not_there_cannot_be_resumed(train: Any, runctl: Any, ec2: Any) -> None:
    first = train("print('none')")
    before = len(ec2.describe_instances()["Reservations"])
    said = runctl("train", "--resume", first.report["run_id"], "train.py")
    assert said.code == 2
    assert "left no checkpoint" in said.err
    said = runctl("train", "--resume", "no-such-run", "train.py")
    assert said.code == 2
    assert "there is no run 'no-such-run'" in said.err
    assert len(ec2.describe_instances()["Reservations"]) == before


def test_the_digits_example_interrupted_twice_reaches_the_same_end(runctl: Any, commit: Any, aws: Any) -> None:
    commit({"train.py": EXAMPLE.read_text(), "requirements.txt": "scikit-learn\n"})
    undisturbed = runctl("train", "--json", "train.py", "--", "--epochs", "30", RUNCTL_INSTALL="auto")
    for _ in range(2):
        aws.world.faults.add("spot-notice:phase=training,reclaim=0.02")
    script = ("train.py", "--", "--epochs", "30", "--pause", "0.7")
    said = runctl("train", "--json", *script, RUNCTL_INSTALL="auto")
    assert said.ending == (0, "succeeded", None)
    assert (said.report["attempts"], len(said.report["instances"])) == (3, 3), said.err
    assert [row["epoch"] for row in said.report["metrics"]] == list(range(1, 31))
    assert said.report["metrics"] == undisturbed.report["metrics"]
    assert said.report["checkpoints"][-1]["path"] == "checkpoints/epoch-0030.joblib"
    assert len(said.report["checkpoints"]) == 30
