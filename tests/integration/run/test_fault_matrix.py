"""Every fault at every phase where it makes sense, really run: it is survived, or told with its cause.

A representative fifth by default; all of them with RUNCTL_TEST_MATRIX=1 (`make matrix`, within an hour).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault_cells import CELLS, SCRIPTS, Cell, Ending

ROOT = Path(__file__).parents[3]
IS_ALL = bool(os.environ.get("RUNCTL_TEST_MATRIX"))

# Each epoch leaves a checkpoint, a row of metrics, a line of the log; and, where no fault reaches, a proof of it.
TRAINS = """
import json, os, sys, time
from pathlib import Path

def prove(what):
    with open(os.environ["PROOF"], "a") as file:
        file.write(json.dumps({"at": time.time(), **what}) + "\\n")

epochs, pause = int(sys.argv[1]), float(sys.argv[2])
token = Path("token.txt").read_text()
folder = Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
resume = os.environ.get("RUNCTL_RESUME_FROM")
rows = json.loads(Path(resume).read_text()) if resume else []
prove({"began_after": len(rows)})
try:
    for epoch in range(len(rows) + 1, epochs + 1):
        rows.append({"epoch": epoch, "token": token})
        partial = folder / "state.tmp"
        partial.write_text(json.dumps(rows))
        partial.replace(folder / f"epoch-{epoch}.json")
        prove({"epoch": epoch})
        Path("metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
        print("epoch", epoch, flush=True)
        until = time.time() + pause
        while (left := until - time.time()) > 0:
            prove({"alive": True})
            time.sleep(min(left, 0.25))
except OSError as error:
    print("cannot write:", error.strerror, flush=True)
    sys.exit(3)
prove({"ended": True})
"""
# A checkpoint has been quiet for 2 s before it is uploaded, and a busy machine takes a while.
_UPLOADED_SECONDS = 8.0
_ENDED = {"terminated", "shutting-down"}


@dataclass
class Proof:
    """What the training did, told by itself where no fault of the emulator reaches."""

    path: Path

    def facts(self) -> list[dict[str, Any]]:
        # The last line may be half written.
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def epochs(self) -> dict[int, float]:
        """Epoch → when its checkpoint was complete."""
        return {fact["epoch"]: fact["at"] for fact in self.facts() if "epoch" in fact}

    @property
    def has_ended(self) -> bool:
        return any("ended" in fact for fact in self.facts())


@dataclass
class World:
    """What a cell is made to happen in."""

    aws: Any
    runctl: Callable[..., Any]
    start: Callable[..., subprocess.Popen[str]]
    proof: Proof
    ec2: Any
    s3: Any
    bucket: str
    token: str
    said: str = ""

    def alive(self) -> list[str]:
        """The instances of the run that are; asked of the emulator itself, which no fault keeps from answering."""
        known = [i for i in self.aws.world.instances.values() if i.state not in _ENDED]
        return [i.id for i in known if self.run_id and self.aws._lives.tags(i.id).get("runctl:run") == self.run_id]

    @property
    def run_id(self) -> str:
        found = re.search(r"run (train-[0-9a-f]{12})", self.said)
        return found[1] if found else ""


@pytest.fixture
def world(
    aws: Any, commit: Any, runctl: Any, start: Any, ec2: Any, s3: Any, bucket: str, tmp_path: Path
) -> Iterator[World]:
    token = hashlib.sha256(str(tmp_path).encode()).hexdigest()
    commit({"train.py": TRAINS, "token.txt": token})
    found = World(aws, runctl, start, Proof(tmp_path / "proof.jsonl"), ec2, s3, bucket, token)
    minute = aws.world.seconds_per_minute
    try:
        yield found
    finally:
        aws.world.faults.clear()
        aws.world.seconds_per_minute = minute
        # Of any run: of one that a test gave up waiting for, nothing is known here. Other tests share an instance.
        alive = [i.id for i in aws.world.instances.values() if i.state not in _ENDED]
        if left := [i for i in alive if "runctl:run" in aws._lives.tags(i)]:
            ec2.terminate_instances(InstanceIds=left)


def _parameters() -> list[Any]:
    """Those that cannot be reached, and those for the night, are left out rather than skipped."""
    found = []
    for cell in CELLS:
        if cell.unreached or not (IS_ALL or cell.fifth):
            continue
        marks = [pytest.mark.timeout(3 * cell.seconds + 90)]
        found.append(pytest.param(cell, id=cell.name, marks=marks))
    return found


@pytest.mark.parametrize("cell", _parameters())
def test_a_fault_is_survived_or_told_with_its_cause(cell: Cell, world: World) -> None:
    world.aws.world.seconds_per_minute = cell.hour / 60
    before = len(world.aws.world.instances)
    said = _trained(cell, world)
    world.said = said.err
    told = "\n".join([said.err, said.report.get("message", ""), *said.report.get("warnings", ())])

    if "disk-full" in cell.faults and "Server.InternalError" in told:
        pytest.skip("mounting a disk takes root or user namespaces here")

    assert _ending(said, world) == cell.ending, told[-3000:]
    assert "a defect of ours" not in said.err
    assert "Traceback (most recent call last)" not in said.err
    if cell.says:
        asked = said.report["message"] if said.report.get("outcome") not in {None, "succeeded"} else told
        asked = told if cell.ends_by_lease else asked
        wanted = ".*".join(re.escape(part) for part in cell.says.split(" … "))
        assert re.search(wanted, asked, re.DOTALL), told[-3000:]
    if cell.ending.outcome != "succeeded":
        assert said.report.get("hint") or "  → " in said.err, told[-3000:]

    if cell.ending.outcome == "no run":
        assert len(world.aws.world.instances) == before
        return
    if cell.later:
        world.aws.world.faults.clear()
        said = world.runctl("train", "--json", *_words(cell, world))
        world.said += said.err
        assert _ending(said, world) == cell.later, said.err[-3000:]
        _check_success(cell, world, said)
    elif cell.ending.outcome == "succeeded":
        _check_success(cell, world, said)
    else:
        assert said.report["attempts"] == cell.attempts
        _check_left(cell, world, said)
    _until(lambda: not world.alive(), 30 if not cell.ends_by_lease else cell.hour / 60 + 30)
    world.aws.world.faults.clear()
    _check_bucket(world, said)


def test_the_table_in_the_docs_is_the_matrix() -> None:
    asked = [sys.executable, str(ROOT / "scripts" / "fault_table.py"), "--check"]
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_kind_of_fault_is_in_the_matrix_and_every_fault_of_it_is_one() -> None:
    from runctl_action.emulator import faults

    parsed = [faults.parse(text) for cell in CELLS for text in cell.each]
    assert {fault.kind for fault in parsed} == set(faults._CONDITIONS)
    codes = {fault.conditions["code"] for fault in parsed if fault.kind == "launch-error"}
    assert codes == set(faults.LAUNCH_ERRORS)
    for kind in faults.ON_HOSTS:
        phases = {fault.conditions["phase"] for fault in parsed if fault.kind == kind}
        assert phases == set(faults._PHASES), kind
    names = [cell.name for cell in CELLS]
    assert len(names) == len(set(names))


def _trained(cell: Cell, world: World) -> Any:
    """Runs the command with the cell's faults; what was said."""
    words = _words(cell, world)
    helpers: list[threading.Thread] = []
    over = threading.Event()
    if cell.since_training:
        helpers.append(threading.Thread(target=_break, args=(cell, world, over)))
    else:
        for fault in cell.each:
            world.aws.world.faults.add(fault)
    if cell.stops:
        helpers.append(threading.Thread(target=_stop, args=(world, over)))
    for helper in helpers:
        helper.start()
    try:
        # What was cached of another run's prices is not for this one.
        return world.runctl("train", "--json", *words, XDG_CACHE_HOME=str(world.proof.path.parent / "cache"))
    finally:
        over.set()
        for helper in helpers:
            helper.join()


def _words(cell: Cell, world: World) -> list[str]:
    epochs, pause = SCRIPTS[cell.script]
    subnets = world.ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1b"]}])["Subnets"]
    flags = [subnets[0]["SubnetId"] if flag == "SUBNET" else flag for flag in cell.flags]
    return [*flags, "--env", f"PROOF={world.proof.path}", "train.py", "--", str(epochs), str(pause)]


def _break(cell: Cell, world: World, over: threading.Event) -> None:
    """Sets the faults once the training has so many checkpoints."""
    while not over.wait(0.05):
        if len(world.proof.epochs) >= cell.since_training:
            for fault in cell.each:
                world.aws.world.faults.add(fault)
            return


def _stop(world: World, over: threading.Event) -> None:
    """Asks the run to stop as soon as its host is frozen."""
    while not over.wait(0.05):
        frozen = [i for i in world.aws.world.instances.values() if i.is_frozen and i.state == "running"]
        if frozen:
            tags = world.aws._lives.tags(frozen[0].id)
            process = world.start("stop", tags["runctl:run"])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=180)
            return


def _ending(said: Any, world: World) -> Ending:
    if said.report:
        return Ending(said.code, str(said.report["outcome"]), said.report["cause"])
    outcome = "goes on" if world.alive() else "open" if world.run_id else "no run"
    return Ending(said.code, outcome, "cloud" if said.code == 4 else None)


def _check_success(cell: Cell, world: World, said: Any) -> None:
    """The training really ran to its end, on the right source, and everything that it left is there."""
    epochs = SCRIPTS[cell.script][0]
    assert world.proof.has_ended
    assert said.report["exit_code"] == 0
    assert said.report["attempts"] == cell.attempts
    assert sorted(world.proof.epochs) == list(range(1, epochs + 1))
    assert said.report["metrics"][-1:] == [{"epoch": epochs, "token": world.token}]
    if cell.attempts > 1 and cell.left.checkpoints == "all" and cell.script != "short":
        assert [fact["began_after"] for fact in world.proof.facts() if "began_after" in fact][-1] > 0
    _check_left(cell, world, said)


def _check_left(cell: Cell, world: World, said: Any) -> None:
    complete = world.proof.epochs
    kept = {int(re.findall(r"\d+", c["path"])[-1]) for c in said.report["checkpoints"] if not c["suspect"]}
    left = None if cell.later else cell.left
    last = max((fact["at"] for fact in world.proof.facts()), default=0.0)
    assert kept <= set(complete)
    if left is None or left.checkpoints == "all":
        assert kept == set(complete)
    elif left.checkpoints == "uploaded":
        assert {n for n, at in complete.items() if at < last - _UPLOADED_SECONDS} <= kept
    elif left.checkpoints == "before":
        assert kept
    else:
        assert kept == set()
    shown = [int(n) for n in re.findall(r"^epoch (\d+)$", world.said, re.MULTILINE)]
    if left is None or left.log == "whole":
        assert set(shown) == set(complete)
    elif left.log == "begun":
        assert set(shown) <= set(complete)
        assert {n for n, at in complete.items() if at < last - _UPLOADED_SECONDS} <= set(shown)
    elif left.log == "before":
        assert shown
        assert set(shown) <= set(complete)
    else:
        assert shown == []
    if left is not None:
        assert bool(said.report["metrics"]) == left.has_metrics


def _check_bucket(world: World, said: Any) -> None:
    """Every checkpoint that is reported is in the bucket, to the byte, and of this source."""
    for checkpoint in said.report["checkpoints"]:
        key = checkpoint["uri"].removeprefix(f"s3://{world.bucket}/")
        data = world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (checkpoint["bytes"], checkpoint["sha256"])
        assert all(row["token"] == world.token for row in json.loads(data))


def _until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
