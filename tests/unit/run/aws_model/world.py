"""Time, the bucket, the instances and commands of the model; and the faults that strike at a call.

A call into the model is where a process can be stopped: `World.calls` counts them, `World.faults` says what happens at
which. What must never happen (two hosts told, two hosts at work, a foreign instance terminated) is checked at the call.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from aws_model.hosts import Machine, Script
from runctl_action.cloud.instances import Instance, Refused, error_class
from runctl_action.contract.documents import End, InstanceRecord, Order, Posted, Resume
from runctl_action.contract.layout import TAG_ATTEMPT, TAG_DEADLINE, TAG_RUN, Layout
from runctl_action.contract.reports import Report
from runctl_action.errors import Unavailable

if TYPE_CHECKING:
    from aws_model.settlers import Process

_T = TypeVar("_T")
BEGIN = datetime(2026, 7, 1, 12, tzinfo=UTC)
BUCKET = "bucket"
_CALL_SECONDS = 0.02
_MOST_CALLS = 60_000
UNCHANGING = ("/spec.json", "/end.json", "/instance.json", "/resume.json")

FaultKind = Literal[
    "kill before", "kill after", "lost", "throttled", "preempted before", "preempted after", "late", "stale"
]


@dataclass(frozen=True)
class Fault:
    """What happens at one call: its process is killed before or after it took effect; its answer is lost; it is not
    let through; another process (`who`) takes a step first or right after; it takes `seconds`; EC2 shows an old state."""

    kind: FaultKind
    who: int = 0
    seconds: float = 0.0


class Killed(BaseException):
    """Like SIGKILL: nothing catches it."""


class Stuck(AssertionError):
    """More calls than any run takes: nothing gets on any more."""


@dataclass
class Object:
    data: bytes
    modified: datetime

    @property
    def etag(self) -> str:
        return hashlib.md5(self.data).hexdigest()


@dataclass
class World:
    """`scripts(run id, launches of it so far)` is what the next instance does; `refusals` the codes that the next new
    launches are answered with, None where there is capacity."""

    scripts: Callable[[str, int], Script] = lambda _run_id, _count: Script()
    refusals: Sequence[str | None] = ()
    faults: Mapping[int, Fault] = field(default_factory=dict)
    layout: Layout = field(default_factory=Layout)
    seconds: float = 0.0
    calls: int = 0
    events: int = 0
    journal: list[str] = field(default_factory=list)
    objects: dict[str, Object] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    foreign: dict[str, Instance] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    posts: list[tuple[str, int]] = field(default_factory=list)
    # By (run, attempts): how often a report may be posted once more, because its poster was stopped while it posted.
    may_post_again: dict[tuple[str, int], int] = field(default_factory=dict)
    # Whether any process was killed.
    has_killed: bool = False
    depth: int = 0
    # Is told of each call.
    note_call: Callable[[str], None] = lambda _: None
    _tokens: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)
    _posting: dict[str, tuple[str, int]] = field(default_factory=dict)

    # Time

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    def pass_time(self, seconds: float) -> None:
        """Whatever happens by itself happens, in order."""
        target = self.seconds + seconds
        while True:
            due = min(self._timers(), key=lambda item: item[0], default=None)
            if due is None or due[0] > target:
                break
            self.seconds = max(self.seconds, due[0])
            due[1]()
            for machine in self.machines.values():
                machine.look_around()
        self.seconds = target
        for machine in self.machines.values():
            machine.look_around()

    def _timers(self) -> Iterator[tuple[float, Callable[[], None]]]:
        for machine in self.machines.values():
            yield machine.next_at, machine.do_next
        for process in self.processes:
            yield process.upload_at(), process.finish_upload

    # Calls

    def call(
        self,
        process: Process | None,
        name: str,
        do: Callable[[], _T],
        unavailable: Callable[[], Exception] | None = None,
    ) -> _T:
        """`do`, unless a fault strikes. `unavailable` is what a lost or refused answer raises; without it the call is
        none that can be lost."""
        if process is None or threading.current_thread() is not threading.main_thread():
            return do()
        self.calls += 1
        self.note_call(name)
        if self.calls > _MOST_CALLS:
            raise Stuck(f"{self.calls} calls; the last: {self.journal[-20:]}")
        self.pass_time(_CALL_SECONDS)
        fault = self.faults.get(self.calls)
        if fault is None:
            return do()
        self.journal.append(
            f"{self.seconds:8.2f} {self.calls:5d} {process.name}: {name}: {fault.kind} {fault.who} {fault.seconds}"
        )
        if fault.kind in {"kill before", "kill after", "lost", "throttled"} and process.me in self._posting:
            key = self._posting[process.me]
            self.may_post_again[key] = self.may_post_again.get(key, 0) + 1
        self.has_killed = self.has_killed or fault.kind.startswith("kill")
        match fault.kind:
            case "kill before":
                raise Killed
            case "kill after":
                do()
                self._excuse_claim(process, name)
                raise Killed
            case "lost" if unavailable:
                do()
                raise unavailable()
            case "throttled" if unavailable:
                raise Unavailable(f"{name} failed: SlowDown")
            case "preempted before":
                self.preempt(process, fault.who)
            case "late":
                self.pass_time(fault.seconds)
            case "preempted after":
                done = do()
                self.preempt(process, fault.who)
                return done
        return do()

    def _excuse_claim(self, process: Process, name: str) -> None:
        """Killed right after it claimed the posting."""
        if "posted.json" in name and process.me in self._posting:
            key = self._posting[process.me]
            self.may_post_again[key] = self.may_post_again.get(key, 0) + 1

    def is_stale(self) -> bool:
        fault = self.faults.get(self.calls)
        return fault is not None and fault.kind == "stale"

    def preempt(self, process: Process, who: int) -> None:
        """Another process takes a step while this one is in the middle of a call."""
        if self.depth >= 2:
            return
        others = [other for other in self.processes if other is not process and not other.is_busy]
        if not others:
            return
        self.depth += 1
        try:
            others[who % len(others)].step(1)
        finally:
            self.depth -= 1

    # The bucket, from inside

    def size(self, key: str) -> int | None:
        return len(self.objects[key].data) if key in self.objects else None

    def host_put(self, key: str, data: bytes, *, once: bool = False) -> None:
        if not (once and key in self.objects):
            self.objects[key] = Object(data, self.now())

    def settler_put(self, process: Process | None, key: str, data: bytes) -> str:
        before = self.objects.get(key)
        self.objects[key] = Object(data, self.now())
        if process is not None:
            self._check_put(process, key, before.data if before else None, data)
        return self.objects[key].etag

    def _check_put(self, process: Process, key: str, before: bytes | None, data: bytes) -> None:
        assert not key.startswith(f"{self.layout.prefix}/hosts/"), f"{process.name} wrote {key}"
        if key.endswith(UNCHANGING):
            assert before is None or before == data, f"{process.name} changed {key}"
        run_id = key.split("/")[2] if "/runs/" in key else ""
        if key.endswith("/report.json") and before is not None:
            old, new = Report.model_validate_json(before), Report.model_validate_json(data)
            if old.attempts == new.attempts and old.outcome is not None:
                assert _meaning(old) == _meaning(new), (
                    f"{process.name} changed the report: {_meaning(old)} {_meaning(new)}"
                )
        if key.endswith("/end.json") and before is None:
            self._check_end(process, run_id, int(key.split("/")[-2]), End.model_validate_json(data))
        if key.endswith("/resume.json") and before is None:
            self._check_resume(process, run_id, int(key.split("/")[-2]), Resume.model_validate_json(data))
        if key.endswith("/posted.json"):
            self._note_posting(process, run_id, before, Posted.model_validate_json(data))

    def _note_posting(self, process: Process, run_id: str, before: bytes | None, new: Posted) -> None:
        old = Posted.model_validate_json(before) if before else None
        if new.where is not None:
            self._posting.pop(process.me, None)
            return
        if old and old.attempts == new.attempts and old.by != new.by:
            assert old.where is None, f"{process.name} posts again what {old.by} has posted"
            assert old.until <= self.now(), f"{process.name} took the posting from {old.by} before its time"
            key = (run_id, new.attempts)
            self.may_post_again[key] = self.may_post_again.get(key, 0) + 1
        self._posting[process.me] = (run_id, new.attempts)

    # What must hold at a call

    def winner(self, run_id: str, attempt: int) -> Machine | None:
        stored = self.objects.get(self.layout.run(run_id).instance(attempt))
        if stored is None:
            return None
        return self.machines.get(InstanceRecord.model_validate_json(stored.data).instance_id)

    def of_run(self, run_id: str) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.tags[TAG_RUN] == run_id]

    def check_alone_at_work(self, beginning: Machine) -> None:
        for other in self.of_run(beginning.tags[TAG_RUN]):
            assert other is beginning or not (other.is_at_work and other.told), (
                f"{other.id} trains already when {beginning.id} begins"
            )

    def _check_end(self, process: Process, run_id: str, attempt: int, end: End) -> None:
        """An end is what was there when its settler began to look; a result goes before everything else."""
        machine = self.winner(run_id, attempt)
        result = machine.result if machine else None
        if result and (end.outcome, end.cause) == (result.outcome, result.cause):
            return
        was_there = machine is not None and machine.result_at is not None and machine.result_at <= process.observed_at
        assert not was_there, f"the host said {result}, {process.name} that it {end}"
        assert end.outcome != "succeeded", f"{process.name} says succeeded, the host does not"
        if end.cause in {"vanished", "spot-reclaimed", "host-stopped"}:
            assert machine is not None
            assert machine.state not in {"pending", "running"}, f"{machine.id} is there, and {end}"
        if end.cause == "stopped":
            assert self.layout.run(run_id).stop in self.objects, f"nobody asked for it: {end}"

    def newest_kept(self, run_id: str, before_attempt: int, at: float) -> tuple[str, datetime] | None:
        """(path, time) of the newest checkpoint that was listed by `at` in the attempts before."""
        for number in range(before_attempt - 1, 0, -1):
            machine = self.winner(run_id, number)
            kept = [c for when, c in machine.kept if when <= at] if machine else []
            if kept:
                newest = max(kept, key=lambda c: (c.modified_at, c.path))
                return newest.path, newest.modified_at
        return None

    def _check_resume(self, process: Process, run_id: str, attempt: int, resume: Resume) -> None:
        newest = self.newest_kept(run_id, attempt, process.observed_at)
        found = resume.checkpoints[0]
        assert newest is None or found.modified_at >= newest[1], f"attempt {attempt} resumes from {found}, not {newest}"

    def told(self, process: Process, machine: Machine, order: Order) -> str:
        attempt = int(machine.tags[TAG_ATTEMPT])
        assert order.attempt == attempt, f"{machine.id} of attempt {attempt} was told to start {order.attempt}"
        assert self.winner(order.run_id, attempt) is machine, f"{machine.id} was told to start, and is not the winner"
        if order.resume_sha256 is None:
            newest = self.newest_kept(order.run_id, attempt, process.observed_at)
            assert newest is None, f"attempt {attempt} begins anew, and there is {newest}"
        return machine.start(order)

    # EC2, from inside

    def launched(self, parameters: dict[str, Any]) -> Machine:
        token = parameters["ClientToken"]
        if token in self._tokens:
            assert self._tokens[token][0] == parameters, "IdempotentParameterMismatch"
            return self.machines[self._tokens[token][1]]
        if token not in self._refused and len(self._refused) + len(self._tokens) < len(self.refusals):
            code = self.refusals[len(self._refused) + len(self._tokens)]
            if code:
                self._refused[token] = code
        if token in self._refused:
            raise Refused(
                self._refused[token], f"ec2:RunInstances: {self._refused[token]}", error_class(self._refused[token])
            )
        tags = {tag["Key"]: tag["Value"] for tag in parameters["TagSpecifications"][0]["Tags"]}
        assert datetime.fromisoformat(tags[TAG_DEADLINE]) > self.now()
        assert parameters["InstanceInitiatedShutdownBehavior"] == "terminate"
        lease = re.search(r"arm runctl-lease ([0-9]+) ", parameters["UserData"])
        assert lease, "no boot timer"
        script = self.scripts(tags[TAG_RUN], len(self.of_run(tags[TAG_RUN])))
        machine = Machine(
            world=self,
            id=f"i-{len(self.machines) + 1:08d}",
            script=script,
            parameters=parameters,
            tags=tags,
            market="spot" if "InstanceMarketOptions" in parameters else "on-demand",
            launched_at=self.now(),
            began_at=self.seconds,
            lease_at=self.seconds + script.boots_in + int(lease[1]),
        )
        self.machines[machine.id] = machine
        self._tokens[token] = (parameters, machine.id)
        return machine

    def clean_up(self) -> None:
        for process in self.processes:
            process.drop_upload()


def _meaning(report: Report) -> tuple[object, ...]:
    return report.attempts, report.outcome, report.cause, report.exit_code, report.message, report.checkpoints
