"""Processes that carry a run on, over the model: the product's own code from Observer to Collector."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from aws_model.services import Bucket, Ec2, Ssm
from aws_model.world import Killed, World
from runctl_action.cloud.prices import Price, SpotChange
from runctl_action.contract.documents import Packs, Spec, TrainingSettings
from runctl_action.contract.reports import Report
from runctl_action.errors import RunctlError, SyncError, Unavailable
from runctl_action.run import request
from runctl_action.run.act import Actor
from runctl_action.run.collect import Collected, Collector
from runctl_action.run.follow import Follower
from runctl_action.run.observe import Knowledge, Observation, Observer
from runctl_action.run.pricing import Pricing
from runctl_action.run.settle import Settler
from runctl_action.run.stop import request_stop

RUN = "train-1"
Role = Literal["launcher", "collector", "stopper", "again"]


def spec(run_id: str = RUN, *, is_posted: bool = True, **training: Any) -> Spec:
    launch = {
        "max_attempts": training.pop("max_attempts", 3), "lease_seconds": 900, "instance_type": ["t"],
        "spot": training.pop("spot", "prefer"), "instance_profile": "profile", "role_id": "AROAMODEL",
    }  # fmt: skip
    return Spec(
        run_id=run_id, requested_at=World().now(), repository="o/r", name="train", commit="c" * 40, tree="t" * 40,
        digest="d" * 64, files=1, bytes=1, manifest_bytes=1, script="train.py", is_posted=is_posted,
        training=TrainingSettings(max_duration_seconds=300, grace_seconds=30, **training), launch=launch,
    )  # fmt: skip


class ModelPrices:
    """`cloud.prices.Prices`, without asking anybody."""

    problems: tuple[str, ...] = ()

    def on_demand(self, instance_type: str) -> Price | None:
        return Price(Decimal("0.36"), "Hrs", "list", World().now())

    def gp3(self) -> Price | None:
        return None

    def public_ipv4(self) -> Price | None:
        return None

    def spot(self, instance_type: str, zones: list[str]) -> dict[str, Price]:
        return {zone: Price(Decimal("0.108"), "Hrs", zone, World().now()) for zone in zones}

    def spot_history(self, instance_type: str, zone: str, start: Any, end: Any) -> tuple[SpotChange, ...]:
        return (SpotChange(Decimal("0.108"), World().now()),)


@dataclass
class Said:
    """`settle.Progress` that remembers."""

    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)

    def phase(self, name: str, detail: str = "") -> None:
        self.phases.append(name)

    def output(self, text: str) -> None:
        pass

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def note(self, message: str) -> None:
        self.notes.append(message)


class Uploading:
    """A launcher's upload, in the thread that the Actor has made for it: it goes on when the world's time has come, and
    while it does nobody else runs."""

    def __init__(self, seconds: float, *, fails: bool) -> None:
        self._seconds, self._fails = seconds, fails
        self._thread: threading.Thread | None = None
        self._entered, self._go = threading.Event(), threading.Event()
        self._is_dropped = False
        self.due_at: float | None = None

    def __call__(self) -> Packs:
        self._thread = threading.current_thread()
        self._entered.set()
        self._go.wait()
        if self._is_dropped or self._fails:  # one that is dropped tells a process that was killed
            raise SyncError("the upload failed")
        return Packs(digest="d" * 64, packs=())

    def begins(self, now: float) -> None:
        self.due_at = now + self._seconds

    def finish(self, *, dropped: bool = False) -> None:
        self.due_at, self._is_dropped = float("inf"), dropped
        self._entered.wait()
        self._go.set()
        assert self._thread is not None
        self._thread.join()


@dataclass
class Process:
    """One that is started, may be killed, and is started again without any knowledge."""

    world: World
    role: Role
    number: int
    cache: Path
    run_id: str = RUN
    can_post: bool = True
    upload_seconds: float = 4.0
    upload_fails: bool = False
    is_busy: bool = False
    observed_at: float = 0.0
    lives: int = 0
    errors: list[RunctlError] = field(default_factory=list)
    said: Said = field(default_factory=Said)

    def __post_init__(self) -> None:
        self.world.processes.append(self)
        self._born()

    @property
    def name(self) -> str:
        return f"{self.role}-{self.number}"

    @property
    def me(self) -> str:
        return f"{self.name}/{self.lives}"

    def step(self, rounds: int) -> None:
        """Goes on for a few rounds (a collector: once over all runs), unless it is killed."""
        assert not self.is_busy
        self.is_busy = True
        try:
            self._work(rounds)
        except Killed:
            self._born()
        except RunctlError as error:
            assert isinstance(error, Unavailable), repr(error)
            self.errors.append(error)
            self._born()
        finally:
            self.is_busy = False

    def _work(self, rounds: int) -> None:
        if self.role == "collector":
            self.collect()
            self._born()
            return
        if self.role == "stopper":
            seen = self.settler.patiently(self.settler.observe)
            if seen.stop is None and not seen.is_finished:
                store = self.settler.actor.store
                self.settler.patiently(
                    lambda: request_stop(
                        store, self.world.layout, self.run_id, len(seen.attempts), self.me, self.world.now()
                    )
                )
        if self.role == "again":
            self._open_again()
        self.settler.settle(_after(rounds))

    def _open_again(self) -> None:
        seen = self.settler.patiently(self.settler.observe)
        if seen.is_finished and len(seen.attempts) < 4:
            self.settler.patiently(
                lambda: request.open_again(
                    seen.spec,
                    self.settler.actor.store,
                    self.world.layout,
                    attempts=len(seen.attempts),
                    me=self.me,
                    now=self.world.now(),
                    workflow_attempt=0,
                )
            )

    def collect(self, *, dry_run: bool = False) -> list[Collected]:
        found = self.collector().collect(dry_run=dry_run)
        for item in found:
            assert item.error is None or isinstance(item.error, Unavailable), repr(item.error)
        return found

    def collector(self) -> Collector:
        return Collector(
            store=self._bucket(),
            instances=Ec2(self.world, self),  # type: ignore[arg-type]
            layout=self.world.layout,
            settler_of=lambda run_id: self._settler(run_id, Knowledge(me=self.me, can_post=self.can_post)),
            note=self.said.note,
            now=self.world.now,
            monotonic=lambda: self.world.seconds,
            sleep=self._sleep,
        )

    def _born(self) -> None:
        if self.lives:
            self.drop_upload()
        self.lives += 1
        can_upload = self.role in {"launcher", "again"}
        self.knowledge = Knowledge(me=self.me, can_post=self.can_post, can_upload=can_upload)
        self.upload = Uploading(self.upload_seconds, fails=self.upload_fails)
        self.settler = self._settler(self.run_id, self.knowledge)

    def _settler(self, run_id: str, knowledge: Knowledge) -> Settler:
        world, store = self.world, self._bucket()
        instances: Any = Ec2(world, self, run_id)
        follower = Follower(store, world.layout, output=self.said.output, phase=self.said.phase, warn=self.said.warn)
        actor = Actor(
            store=store,
            instances=instances,
            commands=Ssm(world, self),  # type: ignore[arg-type]
            layout=world.layout,
            region="us-east-1",
            run_id=run_id,
            knowledge=knowledge,
            upload_source=self.upload if knowledge.can_upload else None,
            warn=self.said.warn,
            now=world.now,
            monotonic=lambda: world.seconds,
            sleep=self._sleep,
            cache=self.cache,
            pricing=Pricing(ModelPrices()),  # type: ignore[arg-type]
            post=self._post,
        )
        observer = Observer(store, instances, world.layout, run_id, knowledge)
        return Settler(observer, actor, follower, self.said, self._looks, lambda: world.seconds)

    def _looks(self) -> Any:
        self.observed_at = self.world.seconds
        return self.world.now()

    def _bucket(self) -> Any:
        return Bucket(self.world, self)

    def _sleep(self, seconds: float) -> None:
        self.world.call(self, f"sleep {seconds}", lambda: self.world.pass_time(seconds))

    def _post(self, report: Report) -> str:
        def do() -> str:
            self.world.posts.append((report.run_id, report.attempts))
            return "https://github.invalid/comment"

        return self.world.call(self, "post", do, lambda: Unavailable("GitHub was not answered"))

    def upload_at(self) -> float:
        if self.knowledge.upload == "running" and self.upload.due_at is None:
            self.upload.begins(self.world.seconds)
        return self.upload.due_at if self.upload.due_at is not None else float("inf")

    def finish_upload(self) -> None:
        self.upload.finish()

    def drop_upload(self) -> None:
        if self.knowledge.upload == "running" and self.upload_at() < float("inf"):
            self.upload.finish(dropped=True)


def _after(rounds: int) -> Callable[[Observation], bool]:
    left = [rounds]

    def is_over(_: Observation) -> bool:
        left[0] -= 1
        return left[0] < 0

    return is_over


def begin(world: World, *specs: Spec) -> None:
    for each in specs or (spec(),):
        world.settler_put(None, world.layout.open_marker(each.run_id), b"")
        world.settler_put(None, world.layout.run(each.run_id).spec, each.to_json())


def make_cache(directory: Path) -> Path:
    """`directory` with uv in it: a few bytes of it, so that nobody packs the real one."""
    version = metadata.version("uv")
    with zipfile.ZipFile(directory / f"uv-{version}-x86_64-unknown-linux-gnu.zip", "w") as archive:
        archive.writestr("uv", b"uv")
    return directory
