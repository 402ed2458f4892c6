"""Two at once: two runs do not meet, one run is launched once, one host trains one run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from runctl_action.contract.layout import TAG_RUN
from runctl_action.emulator.server import PROFILE


def test_two_runs_at_once_end_apart(commit: Any, start: Any) -> None:
    commit(
        {name: f"import sys; print('this is {name}'); sys.exit({code})" for name, code in (("a.py", 0), ("b.py", 3))}
    )
    both = [start("train", "--json", name) for name in ("a.py", "b.py")]
    (a, a_err), (b, b_err) = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 1]
    a, b = json.loads(a), json.loads(b)
    assert (a["exit_code"], b["exit_code"]) == (0, 3)
    assert a["instances"][0]["id"] != b["instances"][0]["id"]
    assert "this is a.py" in a_err
    assert "this is b.py" in b_err
    assert "this is b.py" not in a_err


def test_a_run_requested_twice_at_once_launches_once(commit: Any, start: Any, ec2: Any) -> None:
    commit({"train.py": "import time; print('training', flush=True); time.sleep(1)"})
    both = [start("train", "--json", "train.py") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    reports = [json.loads(out) for out, _ in said]
    assert reports[0]["run_id"] == reports[1]["run_id"]
    assert reports[0]["instances"] == reports[1]["instances"]
    assert len(_instances(ec2, reports[0]["run_id"])) == 1
    # Who attaches follows the same log.
    assert all("training\n" in err for _, err in said)


def test_a_launcher_that_dies_is_continued_by_the_next(commit: Any, start: Any, runctl: Any, ec2: Any) -> None:
    commit({"train.py": "import time; print('training', flush=True); time.sleep(2); print('the end')"})
    first = start("train", "--json", "train.py")
    for line in first.stderr:
        if line.startswith("training"):
            break
    first.kill()
    first.communicate()
    said = runctl("train", "--json", "train.py")
    assert said.ending == (0, "succeeded", None)
    assert "attached" in said.err
    assert "the end\n" in said.err
    assert len(_instances(ec2, said.report["run_id"])) == 1


@pytest.fixture
def instance(ec2: Any) -> Iterator[str]:
    """A running instance of the user's."""
    image = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
    started = ec2.run_instances(
        ImageId=image, InstanceType="t3.medium", MinCount=1, MaxCount=1, IamInstanceProfile={"Name": PROFILE}
    )
    instance_id = started["Instances"][0]["InstanceId"]
    _wait_for(ec2, instance_id, "running")
    yield instance_id
    ec2.terminate_instances(InstanceIds=[instance_id])


def test_an_instance_of_the_users_is_trained_on_and_left_running(train: Any, instance: str, ec2: Any) -> None:
    said = train("print('on yours')", flags=("--instance-id", instance))
    assert said.ending == (0, "succeeded", None)
    assert said.report["instances"][0] == {
        "id": instance,
        "type": "t3.medium",
        "zone": "us-east-1a",
        "market": "existing",
    }
    assert _state(ec2, instance) == "running"


def test_a_second_run_on_an_instance_is_told_what_it_is_busy_with(
    commit: Any, start: Any, runctl: Any, instance: str
) -> None:
    commit({"a.py": "import time; print('training', flush=True); time.sleep(60)", "b.py": "print('never')"})
    first = start("train", "--json", "--instance-id", instance, "a.py")
    for line in first.stderr:
        if line.startswith("training"):
            break
    said = runctl("train", "--json", "--instance-id", instance, "b.py")
    assert said.ending == (4, "failed", "cloud")
    assert "busy with a-" in said.report["message"]
    assert "never" not in said.err
    first.terminate()
    out, _ = first.communicate(timeout=30)
    assert json.loads(out)["outcome"] == "cancelled"


@pytest.mark.parametrize("state", ["stopped", "terminated"])
def test_an_instance_in_a_wrong_state_is_named_with_the_next_command(
    commit: Any, runctl: Any, instance: str, ec2: Any, state: str
) -> None:
    commit({"train.py": ""})
    (ec2.stop_instances if state == "stopped" else ec2.terminate_instances)(InstanceIds=[instance])
    _wait_for(ec2, instance, state)
    said = runctl("train", "--instance-id", instance, "train.py")
    assert said.code == 4
    assert f"(state {state}; needed: running)" in said.err
    assert ("aws ec2 start-instances" if state == "stopped" else "leave `instance-id` out") in said.err


def test_an_instance_that_is_not_there_is_said(commit: Any, runctl: Any) -> None:
    commit({"train.py": ""})
    said = runctl("train", "--instance-id", "i-0123456789abcdef0", "train.py")
    assert said.code == 4
    assert "there is no instance i-0123456789abcdef0" in said.err


def _instances(ec2: Any, run_id: str) -> list[dict[str, Any]]:
    found = ec2.describe_instances(Filters=[{"Name": f"tag:{TAG_RUN}", "Values": [run_id]}])
    return [instance for reservation in found["Reservations"] for instance in reservation["Instances"]]


def _state(ec2: Any, instance_id: str) -> str:
    found = ec2.describe_instances(InstanceIds=[instance_id])
    return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])


def _wait_for(ec2: Any, instance_id: str, state: str) -> None:
    deadline = time.monotonic() + 20
    while _state(ec2, instance_id) != state:
        assert time.monotonic() < deadline
        time.sleep(0.05)
