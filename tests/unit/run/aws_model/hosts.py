"""An instance of the model, and the host on it: what it does is a script, when it does it is the world's time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from runctl_action.cloud.instances import Instance
from runctl_action.contract.documents import (
    Cause,
    Checkpoint,
    CheckpointList,
    Order,
    Outcome,
    PhaseTime,
    Result,
    Spec,
    Status,
    Stop,
)
from runctl_action.contract.layout import TAG_RUN, HostLayout, RunLayout

if TYPE_CHECKING:
    from aws_model.world import World

ROLE = "AROAMODEL"
Ending = Literal[
    "succeeds", "exits",  # with a result
    "noticed",  # a spot notice, a result, then the reclaim
    "reclaimed", "stopped by AWS", "ended by a user",  # the instance goes, without a result
    "dies", "freezes",  # the host process goes, or goes silent; the instance stays
]  # fmt: skip


@dataclass(frozen=True)
class Script:
    """What an instance does. Seconds are from the event before; `ends_early` has the ending come before the start."""

    ending: Ending = "succeeds"
    ends_early: bool = False
    shown_after: float = 0.5
    boots_in: float = 8.0
    answers_after: float | None = 5.0
    begins_in: float = 2.0
    trains_for: float = 20.0
    checkpoints: tuple[tuple[float, str], ...] = ((5.0, "c/1"),)
    stops_in: float = 3.0
    ends_in: float = 15.0
    # When the instance is shut down, the host has time for a last checkpoint.
    saves_at_shutdown: bool = False
    # Its boot timer never fires, and its host's limits are not kept.
    is_deaf: bool = False


@dataclass
class Machine:
    """One instance: what EC2 knows of it, and its script. `at` times are seconds of the world."""

    world: World
    id: str
    script: Script
    parameters: dict[str, Any]
    tags: dict[str, str]
    market: Any
    launched_at: datetime
    began_at: float
    lease_at: float
    state: str = "pending"
    reason: str = ""
    order: Order | None = None
    told: list[Order] = field(default_factory=list)
    is_process_dead: bool = False
    is_silent: bool = False
    ended_at: float | None = None
    begun_at: float | None = None
    result: Result | None = None
    result_at: float | None = None
    kept: list[tuple[float, Checkpoint]] = field(default_factory=list)
    _trained_at: float | None = None
    _is_stopping: bool = False
    _beat: int = 0
    _beaten_at: float = float("-inf")
    _phase: Any = "syncing"
    _agenda: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.after(self.script.boots_in, self._boot)
        if not self.script.is_deaf:
            self._agenda.append((self.lease_at, 0, self._lease_ends))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self.world.events += 1
        self._agenda.append((self.world.seconds + seconds, self.world.events, do))

    @property
    def next_at(self) -> float:
        return min((at for at, _, _ in self._agenda), default=float("inf"))

    def do_next(self) -> None:
        item = min(self._agenda, key=lambda entry: entry[:2])
        self._agenda.remove(item)
        item[2]()

    def shown(self, *, hides_young: bool = False) -> Instance | None:
        """As DescribeInstances shows it: not for a moment after the launch, and not an hour after the end."""
        age = self.world.seconds - self.began_at
        if age < self.script.shown_after or (hides_young and age < 20):
            return None
        if self.ended_at is not None and self.world.seconds - self.ended_at > 3600:
            return None
        return self.as_instance()

    def as_instance(self) -> Instance:
        return Instance(
            id=self.id,
            state=self.state,
            type=self.parameters["InstanceType"],
            zone=self.parameters.get("SubnetId", "").replace("subnet", "zone"),
            market=self.market,
            reason=self.reason,
            profile="profile",
            launched_at=self.launched_at,
            tags=self.tags,
        )

    @property
    def answers(self) -> bool:
        """Whether a command that is sent by SSM comes back."""
        ready = self.script.answers_after
        up_for = self.world.seconds - self.began_at - self.script.boots_in
        return self.state == "running" and ready is not None and up_for >= ready

    @property
    def is_at_work(self) -> bool:
        """Whether its training goes on, for all that anybody can know."""
        return self.order is not None and self.result is None and self.state == "running" and not self.is_process_dead

    def end(self, reason: str) -> None:
        if self.state in {"shutting-down", "terminated"}:
            return
        self.state, self.reason, self.ended_at = "shutting-down", reason, self.world.seconds
        self._agenda.clear()
        self.after(self.script.ends_in, self._terminated)
        if self.script.saves_at_shutdown and self.begun_at is not None and self.result is None:
            self.after(1.0, partial(self._keep, "c/last"))

    def start(self, order: Order) -> str:
        """The start command; what went wrong, or "". The first order wins, a repeat finds the process there."""
        self.told.append(order)
        if self.order is not None:
            return "the host process has ended without a word to S3" if self.is_process_dead else ""
        self.order = order
        assert order.userid == f"{ROLE}:{self.id}"
        self.after(self.script.begins_in, self._begin)
        return ""

    def look_around(self) -> None:
        """What the host does every few seconds: a heartbeat, and a look for stop.json."""
        if self.begun_at is None or self.is_process_dead or self.is_silent or self.result is not None:
            return
        if self.state != "running":
            return
        if self.world.seconds - self._beaten_at < 2:
            return
        self._beaten_at = self.world.seconds
        self._write_status()
        assert self.order is not None
        stored = self.world.objects.get(self.run.stop)
        stop = Stop.model_validate_json(stored.data) if stored else None
        if stop is not None and stop.attempt >= self.order.attempt and not self._is_stopping:
            self._is_stopping = True
            self._agenda = [entry for entry in self._agenda if entry[2] == self._lease_ends]
            self.after(self.script.stops_in / 2, lambda: self._keep("c/last"))
            self.after(self.script.stops_in, lambda: self._conclude("cancelled", "stopped"))

    def _boot(self) -> None:
        self.state = "running"
        if self.ends_early:
            self.after(self.script.trains_for / 4, self._meet_ending)

    @property
    def ends_early(self) -> bool:
        return self.script.ends_early and self.script.ending not in {"succeeds", "exits"}

    def _lease_ends(self) -> None:
        if self.state == "running":
            self.end("Client.InstanceInitiatedShutdown")

    def _terminated(self) -> None:
        self.state = "terminated"

    def _begin(self) -> None:
        if self.is_process_dead or self.is_silent:
            return
        assert self.order is not None
        self.begun_at = self.world.seconds
        training = self.spec.training
        limit = training.max_duration_seconds + training.grace_seconds + training.keep_on_failure_seconds + 20 * 60
        self._arm(limit)
        self.world.check_alone_at_work(self)
        self.look_around()
        if self.world.size(self.run.packs) is None or not self._can_resume():
            self._conclude("failed", "sync")
            return
        if not self._is_stopping:
            self.after(1.0, self._train)

    def _train(self) -> None:
        self._phase, self._trained_at = "training", self.world.seconds
        for seconds, path in self.script.checkpoints:
            if seconds < self.script.trains_for:
                self.after(seconds, partial(self._keep, path))
        if not self.ends_early:
            self.after(self.script.trains_for, self._meet_ending)

    def _meet_ending(self) -> None:
        match self.script.ending:
            case "succeeds":
                self._conclude("succeeded", None)
            case "exits":
                self._conclude("failed", "exit")
            case "noticed":
                if self.begun_at is not None:
                    self._conclude("interrupted", "spot-reclaimed")
                self.after(120, lambda: self.end("Server.SpotInstanceTermination"))
            case "reclaimed":
                self.end("Server.SpotInstanceTermination")
            case "stopped by AWS":
                self.end("Server.InternalError")
            case "ended by a user":
                self.end("Client.UserInitiatedShutdown")
            case "dies":
                self.is_process_dead = True
            case "freezes":
                self.is_silent = True

    def _keep(self, path: str) -> None:
        """A checkpoint: uploaded, then listed."""
        if self.is_process_dead or self.is_silent:
            return
        data = f"{self.id} {path} {self.world.seconds}".encode()
        sha256 = hashlib.sha256(data).hexdigest()
        key = self.place.checkpoint(sha256, path)
        self.world.host_put(key, data)
        now = self.world.now()
        new = Checkpoint(path=path, bytes=len(data), sha256=sha256, key=key, modified_at=now, uploaded_at=now)
        self.kept.append((self.world.seconds, new))
        self.world.host_put(self.place.checkpoints, CheckpointList(checkpoints=self.checkpoints).to_json())

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Of each path the last."""
        return tuple({checkpoint.path: checkpoint for _, checkpoint in self.kept}.values())

    def _conclude(self, outcome: Outcome, cause: Cause | None) -> None:
        """The last status, the result once, the power-off."""
        if self.is_process_dead or self.is_silent or self.result is not None:
            return
        assert self.order is not None
        self._phase = "done"
        self._write_status()
        self.result = Result(
            run_id=self.order.run_id,
            attempt=self.order.attempt,
            outcome=outcome,
            cause=cause,
            exit_code=0 if outcome == "succeeded" else 1 if cause == "exit" else None,
            digest=self.order.digest,
            files=self.spec.files,
            phases=self._phases(),
            checkpoints=self.checkpoints,
            at=self.world.now(),
        )
        self.result_at = self.world.seconds
        self.world.host_put(self.place.result, self.result.to_json(), once=True)
        self._agenda = []
        kept = self.spec.training.keep_on_failure_seconds
        self._arm(300 if cause == "spot-reclaimed" else kept if cause and kept else 2)

    def _arm(self, seconds: float) -> None:
        """The lease, in the place of the one before."""
        self._agenda = [entry for entry in self._agenda if entry[2] != self._lease_ends]
        if not self.script.is_deaf:
            self.after(seconds, self._lease_ends)

    def _can_resume(self) -> bool:
        assert self.order is not None
        if self.order.resume_sha256 is None:
            return True
        data = self.world.objects[self.run.resume(self.order.attempt)].data
        return hashlib.sha256(data).hexdigest() == self.order.resume_sha256

    def _write_status(self) -> None:
        assert self.order is not None
        self._beat += 1
        status = Status(
            run_id=self.order.run_id,
            attempt=self.order.attempt,
            beat=self._beat,
            phase=self._phase,
            at=self.world.now(),
            phases=self._phases(),
            checkpoints=len(self.kept),
        )
        self.world.host_put(self.place.status, status.to_json())

    def _phases(self) -> tuple[PhaseTime, ...]:
        if self._trained_at is None:
            return ()
        seconds = self.world.seconds - self._trained_at
        return (PhaseTime(phase="training", started_at=self.world.now() - timedelta(seconds=seconds), seconds=seconds),)

    @property
    def run(self) -> RunLayout:
        return self.world.layout.run(self.tags[TAG_RUN])

    @property
    def place(self) -> HostLayout:
        assert self.order is not None
        return self.world.layout.host(self.order.userid, self.order.run_id, self.order.attempt)

    @property
    def spec(self) -> Spec:
        return Spec.model_validate_json(self.world.objects[self.run.spec].data)
