"""`decide` as a table, and searched: no observation starts two hosts, ends another run's, or stalls."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.cloud.instances import Instance
from runctl_action.contract.documents import (
    Checkpoint,
    Claim,
    End,
    InstanceRecord,
    Offer,
    OfferTried,
    Packs,
    PhaseTime,
    Posted,
    Result,
    Resume,
    Spec,
    Status,
    Stop,
    TrainingSettings,
)
from runctl_action.contract.layout import TAG_DEADLINE, TAG_RUN
from runctl_action.contract.reports import Report, Synced
from runctl_action.run import actions, decide
from runctl_action.run.observe import Attempt, Knowledge, Observation
from runctl_action.run.summary import fallback

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
ME, OTHER = "me", "somebody else"
DIGEST = "d" * 64


def spec(**training: Any) -> Spec:
    return Spec(
        run_id="train-1", requested_at=NOW, repository="o/r", name="train", commit="c" * 40, tree="t" * 40, digest=DIGEST,
        files=1, bytes=1, manifest_bytes=1, script="train.py", training=TrainingSettings(**training),
        launch={"max_attempts": 3, "lease_seconds": 900},
    )  # fmt: skip


def claim(owner: str = ME, *, expired: bool = False, last_attempt: int = 3) -> Claim:
    return Claim(owner=owner, until=NOW + timedelta(minutes=-1 if expired else 3), last_attempt=last_attempt)


def instance(id: str = "i-1", state: str = "running", **fields: Any) -> Instance:
    return Instance(id=id, state=state, tags={TAG_RUN: "train-1"} | fields.pop("tags", {}), **fields)


def record(id: str = "i-1", *, age: timedelta = timedelta(seconds=30), market: Any = "spot") -> InstanceRecord:
    return InstanceRecord(
        instance_id=id,
        instance_type="t3.medium",
        zone="us-east-1a",
        market=market,
        userid=f"AROA:{id}",
        launched_at=NOW - age,
    )


def status() -> Status:
    return Status(run_id="train-1", attempt=1, beat=3, phase="training", at=NOW)


def result(**fields: Any) -> Result:
    defaults: dict[str, Any] = {"outcome": "succeeded", "exit_code": 0, "digest": DIGEST, "files": 1}
    return Result(at=NOW, **({"run_id": "train-1", "attempt": 1} | defaults | fields))


def attempt(number: int = 1, **fields: Any) -> Attempt:
    return Attempt(number=number, claim=fields.pop("claim", claim()), claim_etag="e", **fields)


def seen(*attempts: Attempt, knowledge: Knowledge | None = None, **fields: Any) -> Observation:
    defaults: dict[str, Any] = {
        "now": NOW, "monotonic": 1000.0, "spec": spec(), "spec_sha256": "s" * 64, "is_open": True,
        "packs": Packs(digest=DIGEST, packs=()), "stop": None, "report": None, "posted": None,
    }  # fmt: skip
    return Observation(attempts=attempts, knowledge=knowledge or Knowledge(me=ME), **(defaults | fields))


def ready(**fields: Any) -> Knowledge:
    return Knowledge(
        me=ME, platforms={"i-1": "Linux x86_64"}, beat_changed_at=fields.pop("beat_changed_at", 1000.0), **fields
    )


def tried(at: datetime = NOW, **fields: Any) -> OfferTried:
    return OfferTried(offer=Offer(market="spot", instance_type="t3.medium"), token="t", parameters={}, at=at, **fields)


def end(outcome: Any = "failed", cause: Any = "exit") -> End:
    return End(outcome=outcome, cause=cause, at=NOW)


def report(outcome: Any = "failed", attempts: int = 1) -> Report:
    return Report(
        run_id="train-1", outcome=outcome, repository="o/r", name="train", commit="c", tree="t", script="train.py",
        manifest=Synced(digest=DIGEST, files=1, bytes=1), attempts=attempts, requested_at=NOW,
    )  # fmt: skip


CHECKPOINT = Checkpoint(path="c/1", bytes=1, sha256="a" * 64, key="k", modified_at=NOW, uploaded_at=NOW)
SHUT_DOWN = result(outcome="interrupted", cause="host-stopped", exit_code=None)
STOP = Stop(by="somebody", attempt=1, at=NOW)
PAST = {TAG_DEADLINE: (NOW - timedelta(seconds=1)).isoformat()}
RUNNING = {"record": record(), "instances": (instance(),)}
TRAINING: dict[str, Any] = {**RUNNING, "status": status()}
EXISTING: dict[str, Any] = {**TRAINING, "record": record(market="existing")}
BUDGET = spec().model_copy(update={"launch": spec().launch | {"max_cost": "1.00"}})


POSTED = spec().model_copy(update={"is_posted": True})
MINUTE = timedelta(minutes=1)


def posting(posted: Posted | None = None, knowledge: Knowledge | None = None) -> Observation:
    """A run that is over, and whose report goes to GitHub."""
    knowledge = knowledge or Knowledge(me=ME, can_post=True)
    return seen(attempt(end=end()), report=report(), spec=POSTED, posted=posted, knowledge=knowledge)


def posted(by: str, *, ago: timedelta = timedelta(), where: str | None = None) -> Posted:
    return Posted(by=by, until=NOW + timedelta(minutes=2) - ago, attempts=1, where=where)


def stopped(ago: timedelta = timedelta()) -> Stop:
    return Stop(by="somebody", attempt=1, at=NOW - ago)


TABLE: dict[str, tuple[Observation, Any]] = {
    "a new run gets its first attempt": (seen(), actions.OpenAttempt(1, 3)),
    "the source goes up beside the launch": (seen(attempt(), packs=None, knowledge=Knowledge(ME, can_upload=True)), actions.Upload()),
    "my claim launches": (seen(attempt()), actions.Launch(1)),
    "another's claim is waited for": (seen(attempt(claim=claim(OTHER))), actions.Wait),
    "another's expired claim is taken over": (seen(attempt(claim=claim(OTHER, expired=True))), actions.TakeOver(1)),
    "an instance without a winner is adopted": (seen(attempt(instances=(instance("i-2"), instance("i-1")))), actions.Adopt(1, "i-1")),
    "a stop before the launch ends it": (seen(attempt(), stop=STOP), actions.EndAttempt),
    "a stop waits for a launch that was not answered to show": (seen(attempt(tried=(tried(),)), stop=STOP), actions.Wait),
    "and takes what has shown": (seen(attempt(tried=(tried(),), instances=(instance(),)), stop=STOP), actions.Adopt(1, "i-1")),
    "and ends when nothing has": (seen(attempt(tried=(tried(at=NOW - MINUTE),)), stop=stopped(MINUTE)), actions.EndAttempt),
    "who has no source does not launch what it could not train": (
        seen(attempt(claim=claim(OTHER, expired=True)), packs=None), actions.Wait(5, "a launcher that has the source")),
    "but who has it does": (
        seen(attempt(claim=claim(OTHER, expired=True)), packs=None, knowledge=Knowledge(me=ME, can_upload=True)), actions.TakeOver(1)),
    "and when nobody comes it is over": (
        seen(attempt(claim=claim(OTHER, expired=True)), packs=None, now=NOW + 15 * MINUTE), actions.EndAttempt),
    "a loser is terminated": (
        seen(attempt(record=record(), instances=(instance(), instance("i-2")))), actions.Terminate(("i-2",), "another instance won attempt 1")),
    "an instance past its deadline is terminated": (seen(attempt(record=record(), instances=(instance(tags=PAST),))), actions.Terminate),
    "a pending instance is waited for": (seen(attempt(record=record(), instances=(instance(state="pending"),))), actions.Wait),
    "a running instance is asked whether it is ready": (seen(attempt(**RUNNING)), actions.Probe(1, "i-1")),
    "a ready one without source waits for the upload": (seen(attempt(**RUNNING), packs=None, knowledge=ready(upload="running")), actions.Wait),
    "a failed upload ends the attempt": (seen(attempt(**RUNNING), packs=None, knowledge=ready(upload="failed")), actions.EndAttempt),
    "a ready one is started": (seen(attempt(**RUNNING), knowledge=ready()), actions.Start(1, "i-1", None)),
    "a start that was not heard is sent again": (seen(attempt(**RUNNING), knowledge=ready(started_at={"i-1": 900.0})), actions.Start),
    "a start that was just sent is waited for": (seen(attempt(**RUNNING), knowledge=ready(started_at={"i-1": 999.0})), actions.Wait),
    "three failed starts end it": (seen(attempt(**RUNNING), knowledge=ready(start_failures={1: 3})), actions.EndAttempt),
    "never ready ends it": (seen(attempt(record=record(age=timedelta(minutes=16)), instances=(instance(),))), actions.EndAttempt),
    "a training is followed": (seen(attempt(**RUNNING, status=status()), knowledge=ready()), actions.Wait(1, "the training")),
    "a silent host on a running instance is waited for": (
        seen(attempt(**RUNNING, status=status()), knowledge=ready(beat_changed_at=900.0)), actions.Wait),
    "a host that is silent for long is ended": (
        seen(attempt(**RUNNING, status=status()), knowledge=ready(beat_changed_at=0.0)), actions.Terminate),
    "a silent existing instance is never ended by us": (
        seen(attempt(record=record(market="existing"), instances=(instance(),), status=status()), knowledge=ready(beat_changed_at=0.0)), actions.Wait),
    "what a budget still buys is worked out": (seen(attempt(**TRAINING), spec=BUDGET, knowledge=ready()), actions.Afford(1)),
    "and again after a minute": (
        seen(attempt(**TRAINING), spec=BUDGET, knowledge=ready(afforded_at=939.9)), actions.Afford(1)),
    "and not before": (
        seen(attempt(**TRAINING), spec=BUDGET, knowledge=ready(afforded_at=940.0)), actions.Wait(1, "the training")),
    "not before the first heartbeat": (
        seen(attempt(**RUNNING), spec=BUDGET, knowledge=ready(started_at={"i-1": 999.0})), actions.Wait(0.5, "the host to begin")),
    "not for a host that is silent": (
        seen(attempt(**TRAINING), spec=BUDGET, knowledge=ready(beat_changed_at=939.0)), actions.Wait(5, "a heartbeat: none for 61 s, the instance is running")),
    "not once there is a result": (seen(attempt(**TRAINING, result=result()), spec=BUDGET, knowledge=ready()), actions.EndAttempt),
    "a stopped training is waited for": (seen(attempt(**TRAINING), stop=stopped(), knowledge=ready()), actions.Wait(1, "the training")),
    "until its grace and two minutes are over": (
        seen(attempt(**TRAINING), stop=stopped(timedelta(seconds=180)), knowledge=ready()), actions.Wait(1, "the training")),
    "then its host is terminated": (
        seen(attempt(**TRAINING), stop=stopped(timedelta(seconds=181)), knowledge=ready()),
        actions.Terminate),
    "a longer grace is waited for": (
        seen(attempt(**TRAINING), stop=stopped(timedelta(seconds=181)), spec=spec(grace_seconds=61), knowledge=ready()), actions.Wait),
    "a stopped one that is silent for a minute is terminated": (
        seen(attempt(**TRAINING), stop=stopped(), knowledge=ready(beat_changed_at=939.0)),
        actions.Terminate(("i-1",), "asked to stop, and silent for 61 s")),
    "and not sooner": (seen(attempt(**TRAINING), stop=stopped(), knowledge=ready(beat_changed_at=940.0)), actions.Wait),
    "a stop of an earlier attempt is none": (
        seen(attempt(end=end()), attempt(2, **TRAINING, claim=claim(last_attempt=4)), stop=stopped(timedelta(hours=1)), knowledge=ready()),
        actions.Wait(1, "the training")),
    "but one that was opened meanwhile, without anybody asking, is stopped too": (
        seen(attempt(end=end("interrupted", "spot-reclaimed")), attempt(2, **RUNNING), stop=stopped(), knowledge=ready()),
        actions.EndAttempt),
    "a host that was shut down waits for EC2 to say why": (seen(attempt(**RUNNING, result=SHUT_DOWN)), actions.Wait),
    "by somebody, it is cancelled": (
        seen(attempt(record=record(), instances=(instance(state="stopping", reason="Client.UserInitiatedShutdown"),), result=SHUT_DOWN)),
        actions.EndAttempt(1, "cancelled", "stopped", "somebody stopped or terminated the instance")),
    "by AWS, it is interrupted": (
        seen(attempt(record=record(), instances=(instance(state="stopping", reason="Server.ScheduledStop"),), result=SHUT_DOWN)),
        actions.EndAttempt(1, "interrupted", "host-stopped", "")),
    "a stopped existing instance that is silent is left alone": (
        seen(attempt(**EXISTING), stop=stopped(), knowledge=ready(beat_changed_at=939.0)),
        actions.EndAttempt(1, "cancelled", "stopped", "asked to stop, and silent for 61 s; i-1 is yours and was left as it is")),
    "and one that does not end in time": (
        seen(attempt(**EXISTING), stop=stopped(timedelta(seconds=181)), knowledge=ready()),
        actions.EndAttempt),
    "a terminated host of a stopped run ends it": (
        seen(attempt(**TRAINING | {"instances": (instance(state="shutting-down"),)}), stop=stopped(), knowledge=ready(beat_changed_at=900.0)),
        actions.EndAttempt(1, "cancelled", "stopped", "the instance was terminated after a stop")),
    "a result ends the attempt": (seen(attempt(**RUNNING, result=result())), actions.EndAttempt(1, "succeeded", None, "")),
    "a success with another exit code is a defect": (
        seen(attempt(**RUNNING, result=result(exit_code=3))),
        actions.EndAttempt(1, "failed", "defect", "the host said succeeded, but the exit code is 3")),
    "a success of other code is a sync failure": (seen(attempt(**RUNNING, result=result(digest="0" * 64))), actions.EndAttempt),
    "an ended attempt's instance is terminated": (
        seen(attempt(**RUNNING, end=end())), actions.Terminate(("i-1",), "attempt 1 is over")),
    "a kept one stays": (seen(attempt(**RUNNING, status=status(), end=end()), spec=spec(keep_on_failure_seconds=600)), actions.Finish()),
    "an existing instance is never terminated": (
        seen(attempt(record=record(market="existing"), instances=(instance(),), end=end())), actions.Finish()),
    "an interruption gets another attempt": (seen(attempt(end=end("interrupted", "spot-reclaimed"))), actions.OpenAttempt(2, 3)),
    "a stop gets none": (seen(attempt(end=end("interrupted", "spot-reclaimed")), stop=STOP), actions.Finish()),
    "a failure gets none": (seen(attempt(end=end())), actions.Finish()),
    "the last attempt's interruption is the end": (
        seen(attempt(end=end()), attempt(2, end=end()), attempt(3, end=end("interrupted", "spot-reclaimed"))), actions.Finish()),
    "a finished run is closed": (seen(attempt(end=end()), report=report()), actions.Close()),
    "one that is to be posted is posted first": (posting(), actions.Post()),
    "but not by who cannot": (
        posting(knowledge=Knowledge(me=ME)),
        actions.Done("there is no github-token, and its report is to be posted"),
    ),
    "nor beside who is at it": (posting(posted(OTHER)), actions.Wait),
    "whose time runs out": (posting(posted(OTHER, ago=5 * MINUTE)), actions.Post()),
    "what was posted is closed": (posting(posted(OTHER, where="a comment")), actions.Close()),
    "the report of an attempt before is not it": (
        seen(attempt(end=end()), attempt(2, end=end()), report=report(attempts=2), spec=POSTED,
             posted=posted(OTHER, where="a comment"), knowledge=Knowledge(me=ME, can_post=True)), actions.Post()),
    "a closed one is done": (seen(attempt(end=end()), report=report(), is_open=False), actions.Done()),
    "a finished run's instance is terminated": (seen(attempt(**RUNNING, end=end()), report=report(), is_open=False), actions.Terminate),
    "a run opened again goes on": (seen(attempt(end=end()), attempt(2), report=report()), actions.Launch(2)),
    "a reclaim without notice": (
        seen(attempt(record=record(), status=status(), instances=(instance(state="terminated", reason="Server.SpotInstanceTermination"),))),
        actions.EndAttempt(1, "interrupted", "spot-reclaimed", "AWS reclaimed the spot instance without a notice")),
    "gone without a result is lost": (
        seen(attempt(record=record(), status=status(), instances=(instance(state="terminated", reason="Client.InstanceInitiatedShutdown"),))),
        actions.EndAttempt),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_decide(case: str) -> None:
    observation, expected = TABLE[case]
    action = decide.decide(observation)
    assert isinstance(action, expected) if isinstance(expected, type) else action == expected


def test_a_silent_host_is_lost_only_when_ec2_shows_it_gone() -> None:
    silent = ready(beat_changed_at=-10_000.0)
    for state in ("pending", "running"):
        action = decide.decide(
            seen(attempt(record=record(), status=status(), instances=(instance(state=state),)), knowledge=silent)
        )
        assert not isinstance(action, actions.EndAttempt)
    gone = seen(attempt(record=record(), status=status(), instances=(instance(state="terminated"),)), knowledge=silent)
    said = "instance i-1 is terminated (no reason given) and left no result: there had been no heartbeat for "
    action = decide.decide(gone)
    assert isinstance(action, actions.EndAttempt)
    assert (action.outcome, action.cause, action.message[: len(said)]) == ("lost", "vanished", said)


def _from(seen_now: Observation, number: int) -> list[str]:
    found = decide.resume_point(seen_now, number)
    return [f"{c.key} {c.path}" for c in found.checkpoints] if found else []


def checkpoint(path: str, key: str, minutes: int = 0, **fields: Any) -> Checkpoint:
    return CHECKPOINT.model_copy(update={"path": path, "key": key, "modified_at": NOW + minutes * MINUTE, **fields})


class TestAResume:
    def test_starts_from_the_latest_of_each_path_that_is_good_and_was_kept_the_newest_first(self) -> None:
        first = attempt(
            end=end("interrupted", "spot-reclaimed"),
            checkpoints=(
                checkpoint("model", "old"),
                checkpoint("model", "new", 2),
                checkpoint("optimizer", "o", 1),
                checkpoint("optimizer", "half", 3, suspect=True),
                checkpoint("epoch-1", "e", removed=True),
            ),
        )
        assert _from(seen(first, attempt(2)), 2) == ["new model", "o optimizer"]
        assert _from(seen(first, attempt(2, end=end()), attempt(3)), 3) == ["new model", "o optimizer"]
        assert _from(seen(attempt()), 1) == []

    def test_takes_a_later_attempts_before_an_earlier_ones_whatever_the_hosts_clocks_said(self) -> None:
        first = attempt(end=end(), checkpoints=(checkpoint("a", "1", 60), checkpoint("b", "1", 60)))
        later = attempt(2, end=end(), checkpoints=(checkpoint("b", "2", 5),))
        assert _from(seen(first, later, attempt(3)), 3) == ["2 b", "1 a"]

    def test_of_a_training_that_keeps_none_takes_the_last_that_it_wrote(self) -> None:
        removed = [checkpoint(f"epoch-{n}", str(n), n, removed=True) for n in (1, 2)]
        assert _from(seen(attempt(end=end(), checkpoints=tuple(removed)), attempt(2)), 2) == ["2 epoch-2"]

    def test_without_any_starts_from_what_the_request_was_given(self) -> None:
        given = Resume(run_id="another-1", checkpoints=(CHECKPOINT,))
        asked = spec().model_copy(update={"resume": given})
        assert decide.resume_point(seen(attempt(), spec=asked), 1) == given
        own = attempt(end=end(), checkpoints=(checkpoint("c/2", "own"),))
        assert _from(seen(own, attempt(2), spec=asked), 2) == ["own c/2"]


class TestASuccess:
    """What a result has to be, beside saying so."""

    NEEDS = spec(require_checkpoint=True)
    BEGAN = PhaseTime(phase="training", started_at=NOW, seconds=5)

    def judged(self, *earlier: Attempt, spec: Spec = NEEDS, **last: Any) -> tuple[Any, Any]:
        number = len(earlier) + 1
        fields = {"record": record(), "result": result(attempt=number, phases=(self.BEGAN,))} | last
        action = decide.decide(seen(*earlier, attempt(number, **fields), spec=spec))
        assert isinstance(action, actions.EndAttempt)
        return action.outcome, action.cause

    def test_has_a_checkpoint_that_was_written_since_it_began(self) -> None:
        assert self.judged(checkpoints=(checkpoint("c", "k", 1),)) == ("succeeded", None)
        assert self.judged(checkpoints=(checkpoint("c", "k", -1),)) == ("failed", "no-checkpoint")
        assert self.judged(checkpoints=(checkpoint("c", "k", 1, suspect=True),)) == ("failed", "no-checkpoint")
        assert self.judged(missing=("c",)) == ("failed", "no-checkpoint")

    def test_has_it_when_an_attempt_before_wrote_the_last_one(self) -> None:
        before = attempt(
            end=end("interrupted", "spot-reclaimed"), result=result(phases=(self.BEGAN,)),
            checkpoints=(checkpoint("c", "k", 1),),
        )  # fmt: skip
        assert self.judged(before) == ("succeeded", None)

    @pytest.mark.parametrize(
        ("wrong", "cause"),
        [
            ({"result": result(exit_code=1)}, "defect"),
            ({"result": result(exit_code=None)}, "defect"),
            ({"result": result(digest="e" * 64)}, "sync"),
            ({"result": result(files=2)}, "sync"),
            ({"result": result(run_id="another-1")}, "defect"),
            ({"result": result(attempt=2)}, "defect"),
            ({"result": result(), "status": status()}, "defect"),
        ],
    )
    def test_is_none_when_what_the_host_wrote_contradicts_itself(self, wrong: dict[str, Any], cause: str) -> None:
        assert self.judged(spec=spec(), **wrong) == ("failed", cause)


class TestAFallback:
    WON = Offer(market="on-demand", instance_type="t3.medium", zone="a", usd_per_hour=Decimal("0.0416"))

    def refused(self, usd: str | None = None, code: str = "InsufficientInstanceCapacity") -> OfferTried:
        offer = Offer(market="spot", instance_type="t3.medium", usd_per_hour=Decimal(usd) if usd else None)
        return tried(error_code=code).model_copy(update={"offer": offer})

    def test_tells_both_prices_the_factor_and_what_it_can_cost(self) -> None:
        told = fallback([self.refused("0.0130"), self.refused("0.0104"), self.refused(code="Quota")], self.WON, 36_000)
        assert told == (
            "ON-DEMAND instead of spot: 3 spot offers were refused (InsufficientInstanceCapacity, Quota); "
            "0.0416 USD/h instead of 0.0104, 4.0 times as much, up to 0.31 USD more for this run. "
            "`spot: require` refuses instead of falling back"
        )

    def test_without_a_price_tells_none(self) -> None:
        plain = (
            "ON-DEMAND instead of spot: 1 spot offer was refused (Quota). "
            "`spot: require` refuses instead of falling back"
        )
        unpriced = self.WON.model_copy(update={"usd_per_hour": None})
        assert fallback([self.refused(code="Quota")], self.WON, 3600) == plain
        assert fallback([self.refused("0.0104", code="Quota")], unpriced, 3600) == plain

    def test_is_none_where_spot_was_got_or_not_tried(self) -> None:
        spot = self.WON.model_copy(update={"market": "spot"})
        listed = tried(error_code="InsufficientInstanceCapacity").model_copy(update={"offer": self.WON})
        assert fallback([self.refused("0.01")], spot, 3600) == ""
        assert fallback([], self.WON, 3600) == ""
        assert fallback([listed], self.WON, 3600) == ""
        assert fallback([tried()], self.WON, 3600) == ""  # no answer yet is no refusal


STATES = st.sampled_from(["pending", "running", "shutting-down", "terminated", "stopping", "stopped"])
REASONS = st.sampled_from(
    ["", "Server.SpotInstanceTermination", "Server.InternalError", "Client.UserInitiatedShutdown"]
)
INSTANCES = st.lists(
    st.builds(
        lambda number, state, reason, late: instance(f"i-{number}", state, reason=reason, tags=PAST if late else {}),
        st.integers(1, 3), STATES, REASONS, st.booleans(),
    ),
    max_size=3, unique_by=lambda i: i.id,
).map(tuple)  # fmt: skip
ENDS = st.none() | st.builds(
    end,
    st.sampled_from(["succeeded", "failed", "interrupted", "timed-out", "cancelled", "lost"]),
    st.sampled_from([None, "exit", "spot-reclaimed", "host-stopped", "cloud"]),
)
ATTEMPTS = st.builds(
    Attempt,
    number=st.just(1),
    claim=st.builds(lambda owner, expired: claim(owner, expired=expired), st.sampled_from([ME, OTHER]), st.booleans()),
    claim_etag=st.just("e"),
    tried=st.sampled_from([(), (tried(),), (tried(error_code="InsufficientInstanceCapacity"),), (tried(instance_id="i-1"),)]),
    record=st.none() | st.builds(
        lambda n, age, market: record(f"i-{n}", age=timedelta(minutes=age), market=market),
        st.integers(1, 3), st.integers(0, 100), st.sampled_from(["spot", "on-demand", "existing"]),
    ),
    end=ENDS,
    status=st.none() | st.just(status()),
    result=st.none() | st.builds(lambda code: result(exit_code=code), st.sampled_from([0, 1])),
    checkpoints=st.sampled_from([(), (CHECKPOINT,)]),
    instances=INSTANCES,
)  # fmt: skip


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    attempts = [replace(draw(ATTEMPTS), number=n + 1) for n in range(draw(st.integers(0, 3)))]
    knowledge = Knowledge(
        me=ME,
        can_upload=draw(st.booleans()),
        upload=draw(st.sampled_from(["none", "running", "failed"])),
        platforms=draw(st.sampled_from([{}, {"i-1": "Linux x86_64"}])),
        start_failures={1: draw(st.integers(0, 3))},
        started_at=draw(st.sampled_from([{}, {"i-1": 999.0}, {"i-1": 0.0}])),
        beat_changed_at=draw(st.sampled_from([0.0, 900.0, 1000.0])),
        afforded_at=draw(st.sampled_from([0.0, 999.0])),
    )
    return seen(
        *attempts,
        knowledge=knowledge,
        spec=draw(st.sampled_from([spec(), BUDGET])),
        packs=draw(st.sampled_from([None, Packs(digest=DIGEST, packs=())])),
        stop=draw(st.sampled_from([None, STOP, stopped(timedelta(hours=1))])),
        report=draw(st.sampled_from([None, report(attempts=len(attempts)), report(None, len(attempts))])),
        is_open=draw(st.booleans()),
    )


@given(observations())
def test_only_the_winner_is_ever_started_and_only_while_it_runs(observation: Observation) -> None:
    action = decide.decide(observation)
    if isinstance(action, actions.Start | actions.Probe):
        last = observation.attempts[-1]
        assert last.record is not None
        assert last.record.instance_id == action.instance_id
        assert last.instance is not None
        assert last.instance.state == "running"
        assert last.end is None
        assert last.result is None


@given(observations())
def test_nothing_is_launched_while_an_instance_of_the_attempt_is_alive_or_a_winner_is_known(
    observation: Observation,
) -> None:
    action = decide.decide(observation)
    if isinstance(action, actions.Launch):
        last = observation.attempts[-1]
        assert last.record is None
        assert last.claim.owner == ME
        assert not any(i.is_alive for i in last.instances)


@given(observations())
def test_only_instances_of_this_run_are_terminated_and_never_an_existing_one(observation: Observation) -> None:
    action = decide.decide(observation)
    if isinstance(action, actions.Terminate):
        ours = {i.id for a in observation.attempts for i in a.instances} | {
            a.record.instance_id for a in observation.attempts if a.record
        }
        existing = {a.record.instance_id for a in observation.attempts if a.record and a.record.market == "existing"}
        assert set(action.instance_ids) <= ours
        only_existing = [i for i in action.instance_ids if i in existing]
        for name in only_existing:
            assert any(
                a.record and a.record.instance_id == name and a.record.market != "existing"
                for a in observation.attempts
            ) or any(
                i.id == name
                for a in observation.attempts
                if not (a.record and a.record.instance_id == name)
                for i in a.instances
            )


@given(observations())
def test_every_observation_has_an_action_and_a_finished_run_comes_to_rest(observation: Observation) -> None:
    action = decide.decide(observation)
    assert isinstance(action, actions.Action)
    if isinstance(action, actions.Wait):
        assert 0 < action.seconds <= 5
    if isinstance(action, actions.Done):
        assert observation.is_finished
        assert not observation.is_open
