"""The kill matrix: a launcher that is killed (SIGKILL) at any instant loses nothing, and leaves nothing behind.

By default it is killed at 8 seeded instants. With RUNCTL_TEST_MATRIX=1 in the environment (`make matrix`) at 50, and at
every step boundary: before and after each call of a run that changes something in AWS, the run being carried on by the
next `train` or by `collect` alone. That takes about 25 min with 4 workers on 2 cores: most of it is waiting for claims
of the dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pytest

from runctl_action.cloud.instances import Instances
from runctl_action.cloud.session import connect
from runctl_action.cloud.store import Store
from runctl_action.contract.layout import TAG_ATTEMPT, TAG_BUCKET, TAG_DEADLINE, TAG_RUN, Layout
from runctl_action.emulator.server import Emulator
from runctl_action.run.collect import Collector

sys.path.insert(0, str(Path(__file__).parent))

from killing import DeadlyProxy, IsDue, When, changes_something, nth, number

IS_ALL = bool(os.environ.get("RUNCTL_TEST_MATRIX"))
# Those few are chosen so that nobody waits for a dead launcher's claim, which lasts a minute.
_SEEDS = tuple(range(50)) if IS_ALL else (0, 2, 5, 6, 12, 13, 19, 22)
# A dead launcher's claim is waited for (1 min), and a source that nobody uploads (the first lease, here 1 min).
pytestmark = pytest.mark.timeout(400)
_SETTINGS = {"RUNCTL_LEASE": "1m"}
_PATIENCE_SECONDS = 300.0

# What a run changes in AWS, in its order: the call, and the how many-th of its name.
_BOUNDARIES = (
    ("PUT open/*", 1),
    ("PUT runs/*/spec.json", 1),
    ("PUT open/*", 2),
    ("PUT runs/*/attempts/1/claim.json", 1),
    ("PUT open/*", 3),
    ("PUT packs/*.tar.zst", 1),
    ("PUT packs/*.manifest.zst", 1),
    ("PUT sources/*", 1),
    ("PUT runs/*/packs.json", 1),
    ("PUT runs/*/attempts/1/offers/0.json", 1),
    ("RunInstances", 1),
    ("PUT runs/*/attempts/1/offers/0.json", 2),
    ("PUT runs/*/attempts/1/instance.json", 1),
    ("SendCommand runctl readiness", 1),
    ("PUT tools/*/host.pyz", 1),
    ("PUT tools/*/uv.zip", 1),
    ("SendCommand runctl start", 1),
    ("PUT runs/*/attempts/1/end.json", 1),
    ("PUT runs/*/report.json", 1),
    ("DELETE open/*", 1),
)
# Until the source is in the bucket, `collect` alone ends a run in one way, which takes two minutes: it is seen once.
_SOURCELESS = _BOUNDARIES[4:8]
# What it changes when AWS takes its first host away.
_SECOND_ATTEMPT = (
    ("PUT runs/*/attempts/1/end.json", 1),
    ("PUT runs/*/attempts/2/claim.json", 1),
    ("PUT runs/*/attempts/2/offers/0.json", 1),
    ("RunInstances", 2),
    ("PUT runs/*/attempts/2/offers/0.json", 2),
    ("PUT runs/*/attempts/2/instance.json", 1),
    ("PUT runs/*/attempts/2/resume.json", 1),
    ("SendCommand runctl start", 2),
    ("PUT runs/*/attempts/2/end.json", 1),
)
_STOPPING = (
    ("PUT runs/*/stop.json", 1),
    ("PUT runs/*/attempts/1/end.json", 1),
    ("PUT runs/*/report.json", 1),
    ("DELETE open/*", 1),
)
_WHENS: tuple[When, ...] = ("before", "after")
_CASES = tuple(
    (*boundary, when, by)
    for boundary in _BOUNDARIES
    for when in _WHENS
    for by in ("train", "collect")
    if by == "train" or boundary not in _SOURCELESS
)
_STOPS = tuple((*boundary, when) for boundary in _STOPPING for when in _WHENS)

TRAINS = """
import json, os, secrets, time
from pathlib import Path
with open({begun!r}, "a") as file:
    file.write(os.environ["RUNCTL_ATTEMPT"] + " " + secrets.token_hex(8) + "\\n")
folder = Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
resume = os.environ.get("RUNCTL_RESUME_FROM")
rows = json.loads(Path(resume).read_text()) if resume else []
for epoch in range(len(rows) + 1, {epochs} + 1):
    rows.append({{"epoch": epoch}})
    Path("partial").write_text(json.dumps(rows))
    Path("partial").replace(folder / f"epoch-{{epoch}}.json")
    Path("metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    print("epoch", epoch, flush=True)
    time.sleep({pause})
"""


@dataclass
class Matrix:
    """One run whose launcher is killed, and what is then expected of everybody else."""

    aws: Emulator
    runctl: Callable[..., Any]
    start: Callable[..., subprocess.Popen[str]]
    s3: Any
    ec2: Any
    bucket: str
    begun: Path
    # Hosts fetch through the proxies what a dead launcher has presigned.
    proxies: contextlib.ExitStack
    epochs: int = 4
    runs_before: set[str] = field(default_factory=set)
    instances_before: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def launch(
        self, is_due: IsDue = lambda _: False, when: When = "before", *argv: str
    ) -> Iterator[subprocess.Popen[str]]:
        """A launcher that dies at the call that `is_due`; on leaving it is dead, and AWS as it left it."""
        argv = argv or ("train", "--json", "train.py")
        proxy = self.proxies.enter_context(DeadlyProxy(self.aws.endpoint, is_due, when))
        launcher = self.start(*argv, AWS_ENDPOINT_URL=proxy.endpoint, **_SETTINGS)
        proxy.of(launcher)
        try:
            yield launcher
        finally:
            launcher.kill()
            launcher.communicate()
            proxy.wait_until_quiet()
            self.calls = proxy.calls

    def train(self, *flags: str) -> Any:
        return self.runctl("train", "--json", *flags, "train.py", **_SETTINGS)

    def collect(self) -> dict[str, Any] | None:
        """`collect` again and again, until the run is over; its report, None when there is no run."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            said = self.runctl("collect")
            assert said.code == 0, said.err
            if self.run_id is None:
                return None
            if not self.keys(f"open/{self.run_id}"):
                return dict(self.runctl("report", "--json", self.run_id).report)
            assert time.monotonic() < deadline, said.err

    @property
    def run_id(self) -> str | None:
        """The only run there is since the beginning; None when there is none."""
        new = {key.split("/")[1] for key in self.keys("runs/") if key.endswith("/spec.json")} - self.runs_before
        assert len(new) <= 1
        return next(iter(new), None)

    def keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"runctl/{prefix}")
        return [item["Key"].removeprefix("runctl/") for page in pages for item in page.get("Contents", ())]

    def get(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def instances(self) -> list[dict[str, Any]]:
        found = self.ec2.describe_instances()["Reservations"]
        return [i for r in found for i in r["Instances"] if i["InstanceId"] not in self.instances_before]

    def check_leases(self) -> None:
        """No instance is there that nobody would end; without a run there is none."""
        for instance in self.instances():
            tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            assert {TAG_RUN, TAG_ATTEMPT, TAG_BUCKET, TAG_DEADLINE} <= tags.keys()
            assert tags[TAG_RUN] == self.run_id
            is_over = instance["State"]["Name"] in {"shutting-down", "terminated"}
            assert is_over or datetime.fromisoformat(tags[TAG_DEADLINE]) > datetime.now(UTC)

    def check_success(self, report: dict[str, Any], *, attempts: int = 1) -> None:
        assert (report["outcome"], report["cause"], report["exit_code"]) == ("succeeded", None, 0), report["message"]
        assert report["attempts"] == attempts
        assert report["metrics"] == [{"epoch": epoch} for epoch in range(1, self.epochs + 1)]
        paths = [checkpoint["path"] for checkpoint in report["checkpoints"]]
        assert sorted(paths) == sorted(f"checkpoints/epoch-{epoch}.json" for epoch in range(1, self.epochs + 1))
        assert sorted(self.began()) == [str(attempt) for attempt in range(1, attempts + 1)]

    def check_ended(self, report: dict[str, Any]) -> None:
        """Whatever the outcome: nothing is lost, nothing is left, and nothing changes any more."""
        run_id = report["run_id"]
        assert run_id == self.run_id
        self._check_hosts(run_id)
        self._check_checkpoints(report)
        self.check_leases()
        _until(lambda: {i["State"]["Name"] for i in self.instances()} <= {"terminated"})
        assert self.keys(f"open/{run_id}") == []
        written = self.get(f"runctl/runs/{run_id}/report.json")
        assert self.train().report == report
        assert self.get(f"runctl/runs/{run_id}/report.json") == written
        assert self.keys(f"open/{run_id}") == []

    def began(self) -> list[str]:
        """The attempt of each training that ever began."""
        return [line.split()[0] for line in self.begun.read_text().splitlines()] if self.begun.exists() else []

    def _check_hosts(self, run_id: str) -> None:
        """One host an attempt has started, and has trained once."""
        statuses = [key.split("/") for key in self.keys("hosts/") if key.endswith("/status.json")]
        started = Counter(attempt for _, _, run, attempt, _ in statuses if run == run_id)
        assert set(started.values()) <= {1}, started
        assert set(Counter(self.began()).values()) <= {1}, self.began()

    def _check_checkpoints(self, report: dict[str, Any]) -> None:
        found = [
            re.fullmatch(rf"hosts/[^/]+/{report['run_id']}/\d+/checkpoints/[0-9a-f]{{64}}/(.+)", key)
            for key in self.keys("hosts/")
        ]
        uploaded = {unquote(match[1]) for match in found if match}
        assert {checkpoint["path"] for checkpoint in report["checkpoints"]} == uploaded
        for checkpoint in report["checkpoints"]:
            data = self.get(checkpoint["uri"].removeprefix(f"s3://{self.bucket}/"))
            assert hashlib.sha256(data).hexdigest() == checkpoint["sha256"]
            epochs = int(re.search(r"epoch-(\d+)", checkpoint["path"])[1])  # type: ignore[index]
            assert json.loads(data) == [{"epoch": epoch} for epoch in range(1, epochs + 1)]


@pytest.fixture
def matrix(
    aws: Emulator, runctl: Any, start: Any, s3: Any, ec2: Any, bucket: str, commit: Any, tmp_path: Path
) -> Iterator[Callable[..., Matrix]]:
    """`matrix(epochs=…, pause=…)` commits a training, about whose runs nothing is known yet."""
    made: list[Matrix] = []
    proxies = contextlib.ExitStack()

    def make(epochs: int = 4, pause: float = 0.3) -> Matrix:
        begun = tmp_path / "begun"
        commit({"train.py": TRAINS.format(begun=str(begun), epochs=epochs, pause=pause)})
        found = Matrix(aws, runctl, start, s3, ec2, bucket, begun, proxies, epochs)
        found.runs_before = {key.split("/")[1] for key in found.keys("runs/")}
        found.instances_before = {i["InstanceId"] for i in found.instances()}
        made.append(found)
        return found

    with proxies:
        yield make
    # A case that failed must not be another's: `collect` settles everything that is open.
    for one in made:
        if left := [i["InstanceId"] for i in one.instances() if i["State"]["Name"] != "terminated"]:
            ec2.terminate_instances(InstanceIds=left)
        for key in one.keys("open/"):
            s3.delete_object(Bucket=bucket, Key=f"runctl/{key}")


def test_a_run_changes_nothing_that_is_not_in_the_matrix(matrix: Any) -> None:
    one = matrix()
    _without_tools(one)
    with one.launch() as launcher:
        out, err = launcher.communicate(timeout=90)
    assert launcher.returncode == 0, err
    one.check_success(json.loads(out))
    changed = Counter(name for name in one.calls if changes_something(name))
    assert {(name, count) for name, total in changed.items() for count in range(1, total + 1)} <= {*_BOUNDARIES}


@pytest.mark.parametrize("seed", _SEEDS)
def test_a_launcher_killed_at_any_instant_loses_nothing(matrix: Any, aws: Emulator, seed: int) -> None:
    rng = random.Random(seed)
    is_interrupted = rng.random() < 0.25
    one = matrix(epochs=10, pause=0.7) if is_interrupted else matrix()
    if is_interrupted:
        aws.world.faults.add("spot-notice:phase=training,after=4,reclaim=0.1")
    if rng.random() < 0.5:
        with one.launch() as launcher:
            _end_within(launcher, rng.uniform(0.5, 20 if is_interrupted else 7))
    else:
        with one.launch(number(rng.randint(1, 240 if is_interrupted else 115)), rng.choice(_WHENS)) as launcher:
            _end_within(launcher, 90)
    _carry_on(one, rng.choice(("train", "train", "collect")), attempts=2 if is_interrupted else 1)


def test_the_marker_of_a_run_that_was_never_written_goes_after_a_while(aws: Emulator, s3: Any, bucket: str) -> None:
    session = connect(aws.environ, None)
    layout = Layout(prefix="marked")
    s3.put_object(Bucket=bucket, Key=layout.open_marker("never-written"), Body=b"")
    for minutes, left in ((0, 1), (11, 0)):
        later = timedelta(minutes=minutes)
        Collector(
            store=Store(session, bucket),
            instances=Instances(session),
            layout=layout,
            settler_of=_nobody,
            note=_nobody,
            now=lambda: datetime.now(UTC) + later,  # noqa: B023  - it is called in this round
            monotonic=time.monotonic,
            sleep=time.sleep,
        ).collect()
        assert s3.list_objects_v2(Bucket=bucket, Prefix=layout.open_prefix())["KeyCount"] == left
    session.close()


def _nobody(*_: object) -> Any:
    raise AssertionError("there is nothing to settle and nothing to end")


@pytest.mark.skipif(not IS_ALL, reason="make matrix")
@pytest.mark.parametrize(("name", "count", "when", "by"), _CASES)
def test_a_launcher_killed_at_a_step_boundary_loses_nothing(
    matrix: Any, name: str, count: int, when: When, by: Literal["train", "collect"]
) -> None:
    one = matrix()
    _without_tools(one)
    with one.launch(nth(name, count), when) as launcher:
        _end_within(launcher, 90)
    assert launcher.returncode == -signal.SIGKILL, one.calls
    _carry_on(one, by)


@pytest.mark.skipif(not IS_ALL, reason="make matrix")
@pytest.mark.parametrize("by", ["train", "collect"])
@pytest.mark.parametrize("when", _WHENS)
@pytest.mark.parametrize(("name", "count"), _SECOND_ATTEMPT)
def test_a_launcher_killed_while_it_opens_a_second_attempt_loses_nothing(
    matrix: Any, aws: Emulator, name: str, count: int, when: When, by: Literal["train", "collect"]
) -> None:
    one = matrix(epochs=10, pause=0.7)
    aws.world.faults.add("spot-notice:phase=training,after=4,reclaim=0.1")
    with one.launch(nth(name, count), when) as launcher:
        _end_within(launcher, 90)
    assert launcher.returncode == -signal.SIGKILL, one.calls
    _carry_on(one, by, attempts=2)


@pytest.mark.parametrize("seed", range(len(_SEEDS) // 5))
def test_of_two_launchers_at_once_one_is_killed_and_the_other_ends_the_run(matrix: Any, seed: int) -> None:
    rng = random.Random(seed)
    one = matrix()
    with one.launch(number(rng.randint(12, 100)), rng.choice(_WHENS)) as victim:
        other = one.start("train", "--json", "train.py", **_SETTINGS)
        _end_within(victim, 90)
    out, err = other.communicate(timeout=180)
    assert other.returncode == 0, err
    report = json.loads(out)
    one.check_success(report)
    one.check_ended(report)


@pytest.mark.parametrize(("name", "count", "when"), _STOPS if IS_ALL else _STOPS[1:2])
def test_a_launcher_killed_while_it_stops_the_run(matrix: Any, name: str, count: int, when: When) -> None:
    one = matrix(epochs=40, pause=0.5)
    with one.launch(nth(name, count), when) as launcher:
        _read_until(launcher, "epoch 2")
        launcher.send_signal(signal.SIGINT)
        _end_within(launcher, 90)
    assert launcher.returncode == -signal.SIGKILL, one.calls
    _check_stopped(one, was_asked=(name, when) != ("PUT runs/*/stop.json", "before"))


@pytest.mark.skipif(not IS_ALL, reason="make matrix")
@pytest.mark.parametrize("when", _WHENS)
def test_a_launcher_killed_while_it_terminates(matrix: Any, when: When) -> None:
    one = matrix(epochs=40, pause=0.5)
    with one.launch(nth("TerminateInstances"), when) as launcher:
        _read_until(launcher, "epoch 2")
        launcher.send_signal(signal.SIGINT)
        _read_until(launcher, "^C once more")
        _until(lambda: one.keys(f"runs/{one.run_id}/stop.json"))
        launcher.send_signal(signal.SIGINT)
        _end_within(launcher, 90)
    assert launcher.returncode == -signal.SIGKILL, one.calls
    _check_stopped(one, was_asked=True)


@pytest.mark.skipif(not IS_ALL, reason="make matrix")
@pytest.mark.parametrize(("name", "count", "when"), _STOPS)
def test_a_killed_stop_is_carried_on(matrix: Any, name: str, count: int, when: When) -> None:
    one = matrix(epochs=40, pause=0.5)
    with one.launch() as launcher:
        _read_until(launcher, "epoch 2")
    with one.launch(nth(name, count), when, "stop", str(one.run_id)) as stopping:
        _end_within(stopping, 90)
    assert stopping.returncode == -signal.SIGKILL, one.calls
    _check_stopped(one, was_asked=(name, when) != ("PUT runs/*/stop.json", "before"))


def _carry_on(one: Matrix, by: Literal["train", "collect"], *, attempts: int = 1) -> None:
    """The launcher is dead: what there is is leased, and the run is brought to the end that it would have had."""
    one.check_leases()
    run_id = one.run_id
    has_source = bool(run_id and one.keys(f"runs/{run_id}/packs.json"))
    if by == "collect":
        report = one.collect()
        if report is not None and not has_source:
            # Nobody but a launcher has it. What was launched is ended, and told.
            assert (report["outcome"], report["cause"]) in {("failed", "sync"), ("failed", "cloud")}, report
            one.check_ended(report)
            assert one.began() == []
            assert one.train("--again").ending == (0, "succeeded", None)
            return
        if report is not None:
            one.check_success(report, attempts=attempts)
            one.check_ended(report)
            return
        assert one.instances() == []
    said = one.train()
    assert said.ending == (0, "succeeded", None), said.err
    one.check_success(said.report, attempts=attempts)
    one.check_ended(said.report)


def _check_stopped(one: Matrix, *, was_asked: bool) -> None:
    """It ends as it was asked to: a stop that was never written is none."""
    one.check_leases()
    said = one.train()
    if was_asked:
        assert said.ending == (130, "cancelled", "stopped"), said.err
    else:
        one.check_success(said.report)
    assert one.began() == ["1"]
    one.check_ended(said.report)


def _without_tools(one: Matrix) -> None:
    """As before the first run ever: the bucket holds no tools yet."""
    for key in one.keys("tools/"):
        one.s3.delete_object(Bucket=one.bucket, Key=f"runctl/{key}")


def _end_within(launcher: subprocess.Popen[str], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        launcher.communicate(timeout=seconds)


def _read_until(launcher: subprocess.Popen[str], text: str) -> None:
    assert launcher.stderr is not None
    seen = []
    for line in launcher.stderr:
        seen.append(line)
        if text in line:
            return
    raise AssertionError("".join(seen))


def _until(holds: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
