"""What is asked of S3 and EC2, how often, and what is made of the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runctl_action.cloud.instances import Instance
from runctl_action.cloud.store import Listed, Stored
from runctl_action.contract.documents import (
    Checkpoint,
    CheckpointList,
    Claim,
    Document,
    End,
    InstanceRecord,
    Offer,
    OfferTried,
    Result,
    Spec,
    Status,
    Stop,
    TrainingSettings,
)
from runctl_action.contract.layout import TAG_ATTEMPT, Layout
from runctl_action.contract.reports import Report, Synced
from runctl_action.errors import CloudError
from runctl_action.run.observe import Knowledge, Observation, Observer

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
LAYOUT = Layout()
RUN = LAYOUT.run("train-1")
HOST = LAYOUT.host("AROA:i-1", "train-1", 1)
SPEC = Spec(
    run_id="train-1", requested_at=NOW, repository="o/r", name="train", commit="c" * 40, tree="t" * 40, digest="d" * 64,
    files=1, bytes=1, manifest_bytes=1, script="train.py", training=TrainingSettings(),
)  # fmt: skip
CLAIM = Claim(owner="me", until=NOW + timedelta(minutes=3), last_attempt=3)


class Bucket:
    """A bucket in memory that remembers what was asked of it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.journal: list[str] = []

    def write(self, key: str, document: Document | bytes) -> None:
        self.objects[key] = document if isinstance(document, bytes) else document.to_json()

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[Listed]:
        self.journal.append("s3")
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield Listed(key, len(self.objects[key]), self._etag(key), NOW)

    def get(self, key: str, known: Stored | None = None) -> Stored | None:
        if key not in self.objects:
            return None
        if known and known.etag == self._etag(key):
            return known
        self.fetched.append(key)
        return Stored(self.objects[key], self._etag(key)) if key in self.objects else None

    def size(self, key: str) -> int | None:
        return len(self.objects[key]) if key in self.objects else None

    def _etag(self, key: str) -> str:
        return hashlib.md5(self.objects[key]).hexdigest()


class Ec2:
    """Instances in memory; `asked` counts the looks at a run's."""

    def __init__(self, journal: list[str]) -> None:
        self.instances: list[Instance] = []
        self.asked = 0
        self._journal = journal

    def of_run(self, run_id: str) -> tuple[Instance, ...]:
        assert run_id == "train-1"
        self._journal.append("ec2")
        self.asked += 1
        return tuple(self.instances)

    def find(self, instance_id: str) -> Instance | None:
        return next((i for i in self.instances if i.id == instance_id), None)


class World:
    def __init__(self) -> None:
        self.bucket = Bucket()
        self.ec2 = Ec2(self.bucket.journal)
        self.observer = self.settler()
        self.bucket.write(RUN.spec, SPEC)

    def settler(self) -> Observer:
        """One that starts afresh: it knows nothing."""
        return Observer(self.bucket, self.ec2, LAYOUT, "train-1", Knowledge(me="me"))  # type: ignore[arg-type]

    def look(self, at: float) -> Observation:
        """What is seen `at` seconds of the reader's own clock."""
        self.bucket.fetched.clear()
        return self.observer.observe(NOW, at)

    def launch(self, number: int = 1, *, id: str = "i-1", state: str = "pending", market: Any = "spot") -> None:
        self.bucket.write(RUN.claim(number), CLAIM)
        self.ec2.instances.append(Instance(id, state, tags={TAG_ATTEMPT: str(number)}))
        record = InstanceRecord(
            instance_id=id, instance_type="t", zone="a", market=market, userid=f"AROA:{id}", launched_at=NOW
        )
        self.bucket.write(RUN.instance(number), record)

    def becomes(self, state: str) -> None:
        self.ec2.instances = [Instance(i.id, state, tags=i.tags) for i in self.ec2.instances]

    def beat(self, beat: int, **fields: Any) -> None:
        self.bucket.write(
            HOST.status, Status(run_id="train-1", attempt=1, beat=beat, phase="training", at=fields.pop("at", NOW))
        )


@pytest.fixture
def world() -> World:
    return World()


def report(**fields: Any) -> Report:
    defaults: dict[str, Any] = {
        "run_id": "train-1", "outcome": "succeeded", "repository": "o/r", "name": "n", "commit": "c", "tree": "t",
        "script": "s", "manifest": Synced(digest="d", files=1, bytes=1), "requested_at": NOW, "attempts": 1,
    }  # fmt: skip
    return Report(**(defaults | fields))


def test_a_run_that_there_is_not_is_an_error_with_a_next_step(world):
    del world.bucket.objects[RUN.spec]
    with pytest.raises(CloudError, match="there is no run train-1 in this bucket") as caught:
        world.look(0)
    assert caught.value.hint == "list the runs there are: runctl-action list"


def test_a_run_that_was_only_requested_has_a_spec_and_no_attempts(world):
    seen = world.look(0)
    assert (seen.spec, seen.attempts, seen.last, seen.packs, seen.stop, seen.report) == (
        SPEC,
        (),
        None,
        None,
        None,
        None,
    )
    assert seen.spec_sha256 == hashlib.sha256(SPEC.to_json()).hexdigest()
    assert seen.is_open


class TestADocument:
    def test_is_fetched_once_while_its_etag_stays(self, world):
        world.launch()
        world.beat(1)
        world.look(0)
        assert sorted(world.bucket.fetched) == sorted([RUN.spec, RUN.claim(1), RUN.instance(1), HOST.status])
        seen = world.look(1)
        assert world.bucket.fetched == []
        assert seen.spec == SPEC
        assert seen.last is not None
        assert seen.last.status is not None
        assert seen.last.status.beat == 1

    def test_is_fetched_again_when_its_etag_changed_and_alone(self, world):
        world.launch()
        world.beat(1)
        world.look(0)
        world.beat(2)
        seen = world.look(1)
        assert world.bucket.fetched == [HOST.status]
        assert seen.last.status.beat == 2

    def test_that_changed_between_listing_and_fetching_is_not_fetched_for_it_again(self, world):
        listing = world.bucket.list

        def changing(prefix: str, start_after: str | None = None) -> Iterator[Listed]:
            yield from list(listing(prefix))
            world.bucket.write(RUN.stop, Stop(by="me", attempt=2, at=NOW))

        world.launch()
        world.bucket.write(RUN.stop, Stop(by="me", attempt=1, at=NOW))
        world.bucket.list = changing
        assert world.look(0).stop.attempt == 2
        world.look(1)
        assert world.bucket.fetched == []

    def test_that_went_away_between_listing_and_fetching_is_not_there(self, world):
        world.launch()
        world.bucket.write(RUN.stop, Stop(by="me", attempt=1, at=NOW))
        fetch = world.bucket.get
        world.bucket.get = lambda key, known=None: None if key == RUN.stop else fetch(key, known)
        assert world.look(0).stop is None

    def test_of_a_log_is_never_fetched(self, world):
        world.launch()
        world.bucket.write(HOST.log(0, "training"), b"not JSON")
        world.look(0)
        assert HOST.log(0, "training") not in world.bucket.fetched


class TestEc2:
    def test_is_asked_at_every_look_until_the_first_heartbeat(self, world):
        world.launch(state="pending")
        for at in (0, 1, 2):
            assert world.look(at).last.instance.state == "pending"
        world.becomes("running")
        assert world.look(2.5).last.instance.state == "running"
        assert world.ec2.asked == 4

    def test_is_asked_every_15_seconds_while_the_heartbeat_is_fresh(self, world):
        world.launch(state="running")
        asked_at = []
        for at in range(61):
            world.beat(at)
            before = world.ec2.asked
            world.look(at)
            if world.ec2.asked > before:
                asked_at.append(at)
        assert asked_at == [0, 15, 30, 45, 60]

    def test_is_asked_every_3_seconds_when_the_heartbeat_has_not_changed_for_12_seconds(self, world):
        world.launch(state="running")
        world.beat(1)
        for at in (0, 11.9):
            world.look(at)
        before = world.ec2.asked
        for at in (12, 13, 14, 15, 16, 18):
            world.look(at)
        assert world.ec2.asked - before == 3

    def test_documents_that_training_code_has_written_are_none(self, world):
        world.launch(state="running")
        world.beat(1)
        assert world.look(0).last.status is not None
        for document in ("status", "result", "checkpoints"):
            world.bucket.objects[f"{HOST.base}/{document}.json"] = b'{"beat": "a lot"}'
        seen = world.look(1).last
        assert (seen.status, seen.result, seen.checkpoints) == (None, None, ())

    def test_is_asked_seldom_again_when_a_heartbeat_comes_again(self, world):
        world.launch(state="running")
        world.beat(1)
        world.look(0)
        world.look(40)
        world.beat(2)
        world.look(41)
        before = world.ec2.asked
        for at in (42, 45, 50):
            world.look(at)
        assert world.ec2.asked == before

    def test_is_asked_at_the_next_look_when_that_is_wanted(self, world):
        world.launch(state="running")
        world.beat(1)
        world.look(0)
        world.observer.look_again()
        before = world.ec2.asked
        world.look(1)
        assert world.ec2.asked == before + 1

    def test_is_asked_at_every_look_again_for_an_attempt_that_has_not_beaten_yet(self, world):
        world.launch(state="terminated")
        world.beat(7)
        world.look(0)
        world.launch(2, id="i-2")
        world.look(15)
        before = world.ec2.asked
        world.look(16)
        world.look(17)
        assert world.ec2.asked == before + 2

    def test_is_asked_before_s3_so_that_a_last_result_is_seen_with_the_end_of_its_host(self, world):
        world.launch()
        world.look(0)
        assert world.bucket.journal[0] == "ec2"
        assert world.bucket.journal.count("ec2") == 1


class TestTheHeartbeat:
    def test_changed_when_this_reader_saw_it_change_whatever_the_hosts_clock_says(self, world):
        world.launch()
        world.beat(1, at=NOW - timedelta(days=1))
        world.look(100)
        world.beat(1, at=NOW + timedelta(days=1))
        world.look(150)
        assert world.observer.knowledge.beat_changed_at == 100
        world.beat(2, at=NOW - timedelta(days=9))
        world.look(170)
        assert world.observer.knowledge.beat_changed_at == 170

    def test_is_new_to_a_settler_that_starts_afresh_however_old_it_is(self, world):
        world.launch()
        world.beat(9, at=NOW - timedelta(hours=1))
        world.look(0)
        world.observer = world.settler()
        world.look(5000)
        assert world.observer.knowledge.beat_changed_at == 5000

    def test_of_a_new_attempt_begins_when_the_attempt_is_seen(self, world):
        world.launch()
        world.beat(9)
        world.look(0)
        world.bucket.write(RUN.claim(2), CLAIM)
        world.look(50)
        assert (world.observer.knowledge.beat, world.observer.knowledge.beat_changed_at) == ((2, -1), 50)


class TestAnAttempt:
    def test_is_there_with_its_claim_and_they_are_in_the_order_of_their_numbers(self, world):
        for number in (10, 2, 1):
            world.bucket.write(RUN.claim(number), CLAIM)
        seen = world.look(0)
        assert [a.number for a in seen.attempts] == [1, 2, 10]
        assert seen.last.claim == CLAIM
        assert seen.last.claim_etag == hashlib.md5(CLAIM.to_json()).hexdigest()

    @pytest.mark.parametrize(
        "key", ["0/claim.json", "01/claim.json", "x/claim.json", "1/claim.json.bak", "1/2/claim.json", "-1/claim.json"]
    )
    def test_has_a_number_and_nothing_else_is_one(self, world, key):
        world.bucket.write(RUN.attempts_prefix + key, CLAIM)
        assert world.look(0).attempts == ()

    def test_has_the_offers_that_were_tried_in_their_order(self, world):
        world.bucket.write(RUN.claim(1), CLAIM)
        for index in range(11):
            tried = OfferTried(offer=Offer(market="spot", instance_type=f"t{index}"), token="t", parameters={}, at=NOW)
            world.bucket.write(RUN.offer(1, index), tried)
        assert [t.offer.instance_type for t in world.look(0).last.tried] == [f"t{index}" for index in range(11)]

    def test_has_the_instances_of_its_own_tag_and_the_winner_among_them(self, world):
        world.launch(1, id="i-1", state="terminated")
        world.launch(2, id="i-2", state="running")
        world.ec2.instances.append(Instance("i-3", "running", tags={TAG_ATTEMPT: "2"}))
        first, second = world.look(0).attempts
        assert [i.id for i in first.instances] == ["i-1"]
        assert [i.id for i in second.instances] == ["i-2", "i-3"]
        assert second.instance.id == "i-2"

    def test_without_a_winner_has_no_instance(self, world):
        world.bucket.write(RUN.claim(1), CLAIM)
        world.ec2.instances.append(Instance("i-1", "running", tags={TAG_ATTEMPT: "1"}))
        assert world.look(0).last.instance is None
        assert not world.look(1).last.has_started

    def test_on_an_existing_instance_has_it_though_it_carries_no_tag(self, world):
        world.launch(market="existing")
        world.ec2.instances = [Instance("i-1", "running")]
        assert world.look(0).last.instance == Instance("i-1", "running")

    def test_on_an_existing_instance_that_is_gone_has_none(self, world):
        world.launch(market="existing")
        world.ec2.instances = []
        assert world.look(0).last.instance is None

    def test_has_its_hosts_result_and_the_results_checkpoints_before_the_list(self, world):
        world.launch()
        world.bucket.write(HOST.checkpoints, CheckpointList(checkpoints=(kept(world, "1"),)))
        assert [c.path for c in world.look(0).last.checkpoints] == ["1"]
        both = (kept(world, "1"), kept(world, "2"))
        result = Result(run_id="train-1", attempt=1, outcome="succeeded", at=NOW, checkpoints=both)
        world.bucket.write(HOST.result, result)
        seen = world.look(1).last
        assert seen.result == result
        assert seen.has_started
        assert [c.path for c in seen.checkpoints] == ["1", "2"]

    @pytest.mark.parametrize("ending", ["result", "end"])
    def test_that_is_over_has_only_checkpoints_that_are_in_the_bucket_as_its_host_said(self, world, ending):
        """Those of another host's, or of another size, are not."""
        said = tuple(kept(world, path) for path in ("good", "gone", "short", "others"))
        said = (*said[:3], said[3].model_copy(update={"key": said[3].key.replace("i-1", "i-9")}))
        del world.bucket.objects[said[1].key]
        world.bucket.objects[said[2].key] = b""
        world.bucket.objects[said[3].key] = b"1"
        world.launch()
        world.bucket.write(HOST.checkpoints, CheckpointList(checkpoints=said))
        assert len(world.look(0).last.checkpoints) == 4
        if ending == "result":
            result = Result(run_id="train-1", attempt=1, outcome="succeeded", at=NOW, checkpoints=said)
            world.bucket.write(HOST.result, result)
        else:
            world.bucket.write(RUN.end(1), End(outcome="lost", cause="vanished", at=NOW))
        seen = world.look(1).last
        assert [c.path for c in seen.checkpoints] == ["good"]
        assert seen.missing == ("gone", "short", "others")

    def test_whose_instance_is_not_gone_yet_may_still_leave_a_checkpoint(self, world):
        world.launch(state="shutting-down")
        world.bucket.write(RUN.end(1), End(outcome="interrupted", cause="spot-reclaimed", at=NOW))
        assert world.look(0).last.checkpoints == ()
        world.bucket.write(HOST.checkpoints, CheckpointList(checkpoints=(kept(world, "late"),)))
        assert [c.path for c in world.look(1).last.checkpoints] == ["late"]

    def test_is_not_told_by_what_another_host_writes(self, world):
        world.launch()
        elsewhere = LAYOUT.host("AROA:i-9", "train-1", 1)
        world.bucket.write(elsewhere.status, Status(run_id="train-1", attempt=1, beat=1, phase="done", at=NOW))
        assert world.look(0).last.status is None


def kept(world: Any, path: str) -> Checkpoint:
    """A checkpoint of one byte, and that byte in the bucket."""
    key = HOST.checkpoint("a" * 64, path)
    world.bucket.objects[key] = b"1"
    return Checkpoint(path=path, bytes=1, sha256="a" * 64, key=key, modified_at=NOW, uploaded_at=NOW)


class TestTheRun:
    @pytest.mark.parametrize(("fields", "finished"), [({}, True), ({"outcome": None}, False), ({"attempts": 0}, False)])
    def test_is_finished_when_the_report_is_final_and_covers_every_attempt(self, world, fields, finished):
        world.launch()
        world.bucket.write(RUN.report, report(**fields))
        assert world.look(0).is_finished is finished

    @pytest.mark.parametrize(("attempt", "stopped"), [(1, True), (2, True), (0, False)])
    def test_is_stopped_for_the_attempts_that_the_stop_was_meant_for(self, world, attempt, stopped):
        world.launch()
        world.bucket.write(RUN.stop, Stop(by="me", attempt=attempt, at=NOW))
        assert world.look(0).is_stopped is stopped

    def test_with_a_report_is_open_while_its_marker_is_there(self, world):
        world.bucket.write(RUN.report, report())
        world.bucket.write(LAYOUT.open_marker("train-1"), b"")
        assert world.look(0).is_open
        del world.bucket.objects[LAYOUT.open_marker("train-1")]
        assert not world.look(1).is_open
