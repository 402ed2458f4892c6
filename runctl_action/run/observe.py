"""What is known of a run: its documents in S3, its instances in EC2, and what only this process knows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, TypeVar

import pydantic

from runctl_action.cloud.instances import Instance, Instances
from runctl_action.cloud.store import Listed, Store, Stored
from runctl_action.contract.documents import (
    Checkpoint,
    CheckpointList,
    Claim,
    Document,
    End,
    InstanceRecord,
    OfferTried,
    Packs,
    Posted,
    Result,
    Resume,
    Spec,
    Status,
    Stop,
)
from runctl_action.contract.layout import TAG_ATTEMPT, HostLayout, Layout
from runctl_action.contract.reports import Report
from runctl_action.errors import BucketError, CloudError

_D = TypeVar("_D", bound=Document)


@dataclass(frozen=True)
class Attempt:
    """One attempt as it is seen; `instances` are those that carry its tag (or the existing one it uses). Once it is
    over, `checkpoints` are those that are in the bucket as the host said, and `missing` the paths of the others."""

    number: int
    claim: Claim
    claim_etag: str
    tried: tuple[OfferTried, ...] = ()
    record: InstanceRecord | None = None
    end: End | None = None
    status: Status | None = None
    result: Result | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    missing: tuple[str, ...] = ()
    resume: Resume | None = None
    instances: tuple[Instance, ...] = ()

    @property
    def instance(self) -> Instance | None:
        """The winner as EC2 shows it; None while there is no winner, or EC2 does not show it."""
        if self.record is None:
            return None
        return next((i for i in self.instances if i.id == self.record.instance_id), None)

    @property
    def has_started(self) -> bool:
        return self.status is not None or self.result is not None


@dataclass(frozen=True)
class Left:
    """What a host has written of its attempt; `checkpoints` and `missing` as in Attempt."""

    status: Status | None = None
    result: Result | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass
class Knowledge:
    """What this process alone knows; a settler that starts afresh knows nothing and loses nothing by it."""

    me: str
    can_upload: bool = False
    can_post: bool = False
    upload: Literal["none", "running", "failed"] = "none"
    upload_error: str = ""
    # Instance id → "Linux x86_64", of those that answered a nonce.
    platforms: dict[str, str] = field(default_factory=dict)
    # By attempt.
    start_failures: dict[int, int] = field(default_factory=dict)
    start_error: str = ""
    # Monotonic seconds: of the last start command per instance, and of the last change of the heartbeat.
    started_at: dict[str, float] = field(default_factory=dict)
    beat: tuple[int, int] = (0, -1)
    beat_changed_at: float = 0.0
    looked_at_ec2_at: float = float("-inf")
    afforded_at: float = float("-inf")
    instances: tuple[Instance, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    now: datetime
    monotonic: float
    spec: Spec
    spec_sha256: str
    is_open: bool
    packs: Packs | None
    stop: Stop | None
    report: Report | None
    posted: Posted | None
    attempts: tuple[Attempt, ...]
    knowledge: Knowledge

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def is_stopped(self) -> bool:
        """A stop holds for the attempts there were, and for one that was opened meanwhile without anybody asking."""
        if self.stop is None or self.stop.attempt >= len(self.attempts):
            return self.stop is not None
        allowed = {attempt.number: attempt.claim.last_attempt for attempt in self.attempts}
        return allowed.get(self.stop.attempt) == self.attempts[-1].claim.last_attempt

    @property
    def is_finished(self) -> bool:
        """The report is final and covers every attempt (a later attempt opens the run again)."""
        return (
            self.report is not None and self.report.outcome is not None and self.report.attempts >= len(self.attempts)
        )


class Observer:
    """Reads a run again and again; a document is fetched only when its etag has changed."""

    def __init__(self, store: Store, instances: Instances, layout: Layout, run_id: str, knowledge: Knowledge) -> None:
        self._store = store
        self._instances = instances
        self._layout = layout
        self._run_id = run_id
        self._keys = layout.run(run_id)
        self.knowledge = knowledge
        self._cache: dict[str, Stored] = {}
        # What hosts that are gone left: it does not change any more.
        self._left: dict[int, Left] = {}

    def observe(self, now: datetime, monotonic: float) -> Observation:
        """EC2 first, then S3: a result that was written before the instance went away is always seen with it.
        Raises CloudError when there is no such run."""
        instances = self._look_at_ec2(monotonic)
        listed = {item.key: item for item in self._store.list(self._keys.base + "/")}
        spec = self._read(listed, self._keys.spec, Spec)
        if spec is None:
            raise CloudError(
                f"there is no run {self._run_id} in this bucket", "list the runs there are: runctl-action list"
            )
        attempts = tuple(self._attempt(listed, number, claim, instances) for number, claim in self._claims(listed))
        self._note_heartbeat(attempts, monotonic)
        return Observation(
            now=now,
            monotonic=monotonic,
            spec=spec,
            spec_sha256=hashlib.sha256(self._cache[self._keys.spec].data).hexdigest(),
            is_open=self._store.size(self._layout.open_marker(self._run_id)) is not None
            if self._read(listed, self._keys.report, Report) is not None
            else True,
            packs=self._read(listed, self._keys.packs, Packs),
            stop=self._read(listed, self._keys.stop, Stop),
            report=self._read(listed, self._keys.report, Report),
            posted=self._read(listed, self._keys.posted, Posted),
            attempts=attempts,
            knowledge=self.knowledge,
        )

    def look_again(self) -> None:
        """The next observation asks EC2, however lately it was asked."""
        self.knowledge.looked_at_ec2_at = float("-inf")

    def _look_at_ec2(self, monotonic: float) -> tuple[Instance, ...]:
        known = self.knowledge
        if monotonic - known.looked_at_ec2_at >= self._patience(monotonic):
            known.instances = self._instances.of_run(self._run_id)
            known.looked_at_ec2_at = monotonic
        return known.instances

    def _patience(self, monotonic: float) -> float:
        """While the heartbeat is fresh EC2 has little to add; DescribeInstances is throttled for the whole account."""
        if self.knowledge.beat[1] < 0:
            return 0.0
        return 15.0 if monotonic - self.knowledge.beat_changed_at < 12 else 3.0

    def _claims(self, listed: Mapping[str, Listed]) -> list[tuple[int, tuple[Claim, str]]]:
        found = []
        for key, item in listed.items():
            match = re.fullmatch(re.escape(self._keys.attempts_prefix) + r"([1-9][0-9]*)/claim\.json", key)
            claim = self._read(listed, key, Claim) if match else None
            if match and claim:
                found.append((int(match[1]), (claim, item.etag)))
        return sorted(found)

    def _attempt(
        self, listed: Mapping[str, Listed], number: int, claim: tuple[Claim, str], instances: tuple[Instance, ...]
    ) -> Attempt:
        record = self._read(listed, self._keys.instance(number), InstanceRecord)
        end = self._read(listed, self._keys.end(number), End)
        tried: list[OfferTried] = []
        while offer := self._read(listed, self._keys.offer(number, len(tried)), OfferTried):
            tried.append(offer)
        mine = tuple(i for i in instances if i.tags.get(TAG_ATTEMPT) == str(number))
        if record and record.market == "existing":
            found = self._instances.find(record.instance_id)
            mine = (*mine, found) if found else mine
        attempt = Attempt(number, claim[0], claim[1], tuple(tried), record, end, instances=mine)
        left = self._left.get(number) or self._look_at_host(record, number, is_over=end is not None)
        winner = attempt.instance
        if end is not None and (winner is None or winner.state == "terminated"):
            self._left[number] = left
        resume = self._read(listed, self._keys.resume(number), Resume)
        return replace(attempt, **vars(left), resume=resume)

    def _look_at_host(self, record: InstanceRecord | None, number: int, *, is_over: bool) -> Left:
        """A few documents, asked for by name: a listing would cost ten times as much, and grow with the log."""
        if record is None:
            return Left()
        host = self._layout.host(record.userid, self._run_id, number)
        result = self._read_hosts(host.result, Result)
        status = self._read_hosts(host.status, Status)
        kept = self._read_hosts(host.checkpoints, CheckpointList) if result is None else None
        said = result.checkpoints if result else kept.checkpoints if kept else ()
        if not is_over and result is None:
            return Left(status, result, said)
        intact = self._intact(host, said)
        return Left(status, result, intact, tuple(c.path for c in said if c not in intact))

    def _intact(self, host: HostLayout, said: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
        """Those of `said` that are below the host's own prefix, as large as it said (S3 has checked what it took)."""
        sizes = {item.key: item.size for item in self._store.list(f"{host.base}/checkpoints/")} if said else {}
        return tuple(checkpoint for checkpoint in said if sizes.get(checkpoint.key) == checkpoint.bytes)

    def _read(self, listed: Mapping[str, Listed], key: str, model: type[_D]) -> _D | None:
        item = listed.get(key)
        if item is None:
            return None
        cached = self._cache.get(key)
        if cached is None or cached.etag != item.etag:
            stored = self._store.get(key)
            if stored is None:
                return None
            cached = self._cache[key] = stored
        try:
            return model.model_validate_json(cached.data)
        except pydantic.ValidationError as error:
            raise BucketError(
                f"{self._store.uri(key)} is not what a launcher writes: {error.errors()[0]['msg']}",
                "it is another version's, or somebody has written over it; a newer runctl-action may read it",
            ) from None

    def _read_hosts(self, key: str, model: type[_D]) -> _D | None:
        """Training code can write there too: what is no document of ours is none."""
        stored = self._store.get(key, self._cache.get(key))
        if stored is None:
            return None
        self._cache[key] = stored
        try:
            return model.model_validate_json(stored.data)
        except pydantic.ValidationError:
            return None

    def _note_heartbeat(self, attempts: tuple[Attempt, ...], monotonic: float) -> None:
        """A heartbeat is stale by the reader's own clock: host clocks are not compared."""
        last = attempts[-1] if attempts else None
        beat = (last.number, last.status.beat if last.status else -1) if last else (0, -1)
        if beat != self.knowledge.beat:
            self.knowledge.beat = beat
            self.knowledge.beat_changed_at = monotonic


def utc_now() -> datetime:
    return datetime.now(UTC)
