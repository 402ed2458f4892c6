"""From what is known of a run to the one thing to do next. Pure: a run's life is in this file.

Read `decide` top-down: a finished run is cleaned up; losers go first; then the last attempt goes one step on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from runctl_action.contract.documents import Cause, Checkpoint, Outcome
from runctl_action.run.observe import Attempt, Observation

# A heartbeat that has not changed for this long leads to a look at EC2; after `_ABANDONED` the host is ended.
STALE_SECONDS = 60.0
_ABANDONED_SECONDS = 900.0
# EC2 may not show an instance for a moment after its launch, and forgets it an hour after its end.
_VISIBLE_AFTER = timedelta(minutes=2)
# A spot host that AWS is about to reclaim stays up, or its free first hour is billed; the backstop is the host's timer.
_RECLAIM_WINDOW = timedelta(minutes=6)
# Telling a host again is idempotent, and finds out when its process has died without a word.
_START_AGAIN_SECONDS = 10.0
_START_FAILURES = 3
# What a host may take, beside the grace, from being asked to stop to its result.
_STOPPING = timedelta(minutes=2)
# How often what a run may still cost is worked out again.
_AFFORD_SECONDS = 60.0


@dataclass(frozen=True)
class Wait:
    seconds: float
    why: str


@dataclass(frozen=True)
class OpenAttempt:
    number: int
    last_attempt: int


@dataclass(frozen=True)
class TakeOver:
    attempt: int


@dataclass(frozen=True)
class Upload:
    pass


@dataclass(frozen=True)
class Launch:
    attempt: int


@dataclass(frozen=True)
class Adopt:
    """Make an instance that is there, and carries the attempt's tag, its winner."""

    attempt: int
    instance_id: str


@dataclass(frozen=True)
class Terminate:
    instance_ids: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Probe:
    attempt: int
    instance_id: str


@dataclass(frozen=True)
class Start:
    attempt: int
    instance_id: str
    resume_from: Checkpoint | None


@dataclass(frozen=True)
class EndAttempt:
    attempt: int
    outcome: Outcome
    cause: Cause | None
    message: str


@dataclass(frozen=True)
class Afford:
    """Work out how long the host may go on under `max-cost`, at the prices there really were."""

    attempt: int


@dataclass(frozen=True)
class Finish:
    """Write the final report and take the open marker away."""


@dataclass(frozen=True)
class Done:
    pass


Action = (
    Wait
    | OpenAttempt
    | TakeOver
    | Upload
    | Launch
    | Adopt
    | Terminate
    | Probe
    | Start
    | Afford
    | EndAttempt
    | Finish
    | Done
)


def decide(seen: Observation) -> Action:
    """The one next action. Total: every observation has one."""
    surplus = _surplus(seen)
    if surplus:
        return surplus
    if seen.is_finished:
        return Finish() if seen.is_open else Done()
    last = seen.last
    if last is None:
        return OpenAttempt(1, _allowed_attempts(seen))
    if last.end is not None:
        return _after(seen, last, last.end.outcome, last.end.cause)
    if last.result is not None:
        return _judge(seen, last)
    if last.record is None:
        return _before_launch(seen, last)
    gone = _gone(seen, last)
    if gone:
        return gone
    if last.has_started:
        return _while_running(seen, last)
    return _before_start(seen, last)


def resume_point(seen: Observation, attempt: int) -> Checkpoint | None:
    """The checkpoint that `attempt` starts from: the newest that is not suspect, of the latest attempt that has one."""
    for earlier in reversed(seen.attempts[: attempt - 1]):
        good = [checkpoint for checkpoint in earlier.checkpoints if not checkpoint.suspect]
        if good:
            return max(good, key=lambda checkpoint: (checkpoint.modified_at, checkpoint.path))
    return None


def _surplus(seen: Observation) -> Terminate | None:
    """Instances of this run that must not be there: losers, those of ended attempts, those past their deadline."""
    for attempt in seen.attempts:
        alive = [i for i in attempt.instances if i.is_alive and not _is_existing(attempt, i.id)]
        winner = attempt.record.instance_id if attempt.record else None
        if winner and (losers := tuple(i.id for i in alive if i.id != winner)):
            return Terminate(losers, f"another instance won attempt {attempt.number}")
        overdue = tuple(i.id for i in alive if i.deadline is not None and i.deadline < seen.now)
        if overdue:
            return Terminate(overdue, "past its deadline")
        if attempt.end is not None and alive and not _may_stay(seen, attempt):
            return Terminate(tuple(i.id for i in alive), f"attempt {attempt.number} is over")
    return None


def _is_existing(attempt: Attempt, instance_id: str) -> bool:
    record = attempt.record
    return record is not None and record.market == "existing" and record.instance_id == instance_id


def _may_stay(seen: Observation, attempt: Attempt) -> bool:
    assert attempt.end is not None
    age = seen.now - attempt.end.at
    if attempt.end.outcome == "failed" and seen.spec.training.keep_on_failure_seconds and attempt.has_started:
        return age < timedelta(seconds=seen.spec.training.keep_on_failure_seconds)
    return attempt.result is not None and attempt.result.cause == "spot-reclaimed" and age < _RECLAIM_WINDOW


def _allowed_attempts(seen: Observation) -> int:
    return max(1, int(seen.spec.launch.get("max_attempts", 1)))


def _after(seen: Observation, last: Attempt, outcome: Outcome, cause: Cause | None) -> Action:
    """An attempt is over: another one, or the end."""
    is_repeatable = outcome == "interrupted" and cause in {"spot-reclaimed", "host-stopped"}
    if is_repeatable and not seen.is_stopped and last.number < last.claim.last_attempt:
        return OpenAttempt(last.number + 1, last.claim.last_attempt)
    waiting = [a for a in seen.attempts if any(i.is_alive and not _is_existing(a, i.id) for i in a.instances)]
    if waiting and seen.spec.training.keep_on_failure_seconds == 0:
        return Wait(5, "the instance that AWS reclaims to be gone")
    return Finish()


def _judge(seen: Observation, last: Attempt) -> EndAttempt:
    """The host wrote its result. A success that is not consistent is none."""
    result = last.result
    assert result is not None
    outcome, cause, message = result.outcome, result.cause, result.message
    if outcome == "succeeded":
        if result.exit_code != 0:
            outcome, cause = "failed", "defect"
            message = f"the host said succeeded, but the exit code is {result.exit_code}"
        elif result.digest != seen.spec.digest:
            outcome, cause = "failed", "sync"
            message = f"the host trained {result.digest}, not {seen.spec.digest}"
        elif seen.spec.training.require_checkpoint and not any(not c.suspect for c in result.checkpoints):
            outcome, cause, message = "failed", "no-checkpoint", "the training ended without a checkpoint"
    return EndAttempt(last.number, outcome, cause, message)


def _before_launch(seen: Observation, last: Attempt) -> Action:
    """There is a claim and no winner yet."""
    launched = [i for i in last.instances if i.is_alive]
    if launched:
        return Adopt(last.number, min(i.id for i in launched))
    if seen.is_stopped and not any(t.instance_id is None and t.error_code is None for t in last.tried):
        return EndAttempt(last.number, "cancelled", "stopped", "stopped before an instance was launched")
    if last.claim.owner == seen.knowledge.me:
        if seen.packs is None and seen.knowledge.upload == "none" and seen.knowledge.can_upload:
            return Upload()
        return Launch(last.number)
    if last.claim.until < seen.now:
        return TakeOver(last.number)
    return Wait(1, f"{last.claim.owner} to launch attempt {last.number}")


def _gone(seen: Observation, last: Attempt) -> Action | None:
    """The winner is not running any more and has left no result."""
    assert last.record is not None
    instance = last.instance
    if instance is None:
        if seen.now - last.record.launched_at < _VISIBLE_AFTER:
            return None if last.has_started else Wait(0.5, "EC2 to show the instance")
        return EndAttempt(
            last.number,
            "lost",
            "vanished",
            f"EC2 knows no instance {last.record.instance_id} any more, and it left no result",
        )
    if instance.state in {"pending", "running"}:
        return None
    if instance.reason.startswith("Server.SpotInstance"):
        return EndAttempt(
            last.number, "interrupted", "spot-reclaimed", "AWS reclaimed the spot instance without a notice"
        )
    if seen.is_stopped:
        return EndAttempt(last.number, "cancelled", "stopped", "the instance was terminated after a stop")
    if instance.reason.startswith("Server."):
        return EndAttempt(last.number, "interrupted", "host-stopped", f"AWS stopped the instance: {instance.reason}")
    what = f"instance {instance.id} is {instance.state} ({instance.reason or 'no reason given'}) and left no result"
    if not last.has_started:
        return EndAttempt(last.number, "failed", "cloud", f"{what}: it ended before the run was started on it")
    return EndAttempt(last.number, "lost", "vanished", what)


def _before_start(seen: Observation, last: Attempt) -> Action:
    """There is a winner that has not started the run: source, readiness, start."""
    assert last.record is not None
    instance, known = last.instance, seen.knowledge
    if seen.is_stopped:
        return EndAttempt(last.number, "cancelled", "stopped", "stopped before the training began")
    if instance is None or instance.state != "running":
        return Wait(0.5, f"instance {last.record.instance_id} to run")
    if known.upload == "failed":
        return EndAttempt(last.number, "failed", "sync", known.upload_error)
    patience = timedelta(seconds=int(seen.spec.launch.get("lease_seconds", 900)))
    is_late = seen.now - last.record.launched_at > patience
    if known.start_failures >= _START_FAILURES:
        return EndAttempt(
            last.number, "failed", "cloud", f"the run could not be started on {instance.id}: {known.start_error}"
        )
    if instance.id not in known.platforms:
        if is_late:
            message = f"{instance.id} is running, but no command came back from it in {patience}: SSM never ready"
            return EndAttempt(last.number, "failed", "cloud", message)
        return Probe(last.number, instance.id)
    if seen.packs is None:
        if known.upload == "none" and known.can_upload:
            return Upload()
        if is_late:
            return EndAttempt(
                last.number, "failed", "sync", "the launcher that has the source did not finish its upload"
            )
        return Wait(0.3, "the source to be uploaded")
    sent_at = known.started_at.get(instance.id)
    if sent_at is None or seen.monotonic - sent_at > _START_AGAIN_SECONDS:
        if is_late and sent_at is not None:
            return EndAttempt(
                last.number, "failed", "cloud", f"{instance.id} was told to start, but gave no sign of life"
            )
        return Start(last.number, instance.id, resume_point(seen, last.number))
    return Wait(0.5, "the host to begin")


def _while_running(seen: Observation, last: Attempt) -> Action:
    assert last.record is not None
    silent = seen.monotonic - seen.knowledge.beat_changed_at
    if seen.stop is not None and seen.is_stopped:
        grace = timedelta(seconds=seen.spec.training.grace_seconds) + _STOPPING
        if silent > STALE_SECONDS or seen.now - seen.stop.at > grace:
            why = f"silent for {silent:.0f} s" if silent > STALE_SECONDS else "not ended after its grace"
            return _stop_by_force(last, f"asked to stop, and {why}")
    if silent > _ABANDONED_SECONDS and last.record.market != "existing":
        return Terminate((last.record.instance_id,), f"no heartbeat for {silent:.0f} s")
    if silent > STALE_SECONDS:
        state = last.instance.state if last.instance else "unknown"
        return Wait(5, f"a heartbeat: none for {silent:.0f} s, the instance is {state}")
    has_budget = seen.spec.launch.get("max_cost") is not None and last.status is not None
    if has_budget and seen.monotonic - seen.knowledge.afforded_at > _AFFORD_SECONDS:
        return Afford(last.number)
    return Wait(5 if seen.now - last.record.launched_at > timedelta(minutes=15) else 1, "the training")


def _stop_by_force(last: Attempt, why: str) -> Action:
    assert last.record is not None
    if last.record.market != "existing":
        return Terminate((last.record.instance_id,), why)
    message = f"{why}; {last.record.instance_id} is yours and was left as it is"
    return EndAttempt(last.number, "cancelled", "stopped", message)
