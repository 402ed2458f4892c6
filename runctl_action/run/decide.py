"""From what is known of a run to the one thing to do next. Pure: a run's life is in this file.

Read `decide` top-down: a finished run is cleaned up; losers go first; then the last attempt goes one step on.
"""

from __future__ import annotations

from datetime import timedelta

from runctl_action.contract.documents import Cause, Checkpoint, Outcome, Resume, is_kept
from runctl_action.run.actions import (
    Action,
    Adopt,
    Afford,
    Close,
    Done,
    EndAttempt,
    Finish,
    Launch,
    OpenAttempt,
    Post,
    Probe,
    Start,
    TakeOver,
    Terminate,
    Upload,
    Wait,
)
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
# A RunInstances that was asked for and not answered may still become an instance for this long.
_UNANSWERED = timedelta(seconds=15)
# How often what a run may still cost is worked out again.
_AFFORD_SECONDS = 60.0


def decide(seen: Observation) -> Action:
    """The one next action. Total: every observation has one."""
    surplus = _surplus(seen)
    if surplus:
        return surplus
    if seen.is_finished:
        return _after_report(seen)
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


def resume_point(seen: Observation, attempt: int) -> Resume | None:
    """What `attempt` starts from, the newest first: of each path the latest that is not suspect and was not removed,
    of all attempts before; without any, what the request was given of another run. None: from the beginning."""
    ranked = [
        ((earlier.number, checkpoint.modified_at, checkpoint.path), checkpoint)
        for earlier in seen.attempts[: attempt - 1]
        for checkpoint in earlier.checkpoints
        if not checkpoint.suspect
    ]
    ranked.sort(key=lambda item: item[0])
    latest = {checkpoint.path: (rank, checkpoint) for rank, checkpoint in ranked}
    good = [checkpoint for _, checkpoint in sorted(latest.values(), key=lambda item: item[0], reverse=True)]
    # A training that keeps none of its own on disk: the last that it wrote is all there is.
    kept = [checkpoint for checkpoint in good if not checkpoint.removed] or good[:1]
    return Resume(run_id=seen.spec.run_id, checkpoints=tuple(kept)) if kept else seen.spec.resume


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
    is_failure = is_kept(attempt.end.outcome, attempt.end.cause)
    if is_failure and seen.spec.training.keep_on_failure_seconds and attempt.has_started:
        return not seen.is_stopped and age < timedelta(seconds=seen.spec.training.keep_on_failure_seconds)
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


def _after_report(seen: Observation) -> Action:
    """The final report is written: it is posted once, by somebody who can; the marker goes when nobody has to."""
    if not seen.is_open:
        return Done()
    posted = seen.posted if seen.posted and seen.posted.attempts >= len(seen.attempts) else None
    if not seen.spec.is_posted or (posted and posted.where is not None):
        return Close()
    if not seen.knowledge.can_post:
        return Done("there is no github-token, and its report is to be posted")
    if posted and posted.by != seen.knowledge.me and posted.until > seen.now:
        return Wait(1, f"{posted.by} to post the report")
    return Post()


def _judge(seen: Observation, last: Attempt) -> Action:
    """The host wrote its result. A success that is not consistent is none."""
    result = last.result
    assert result is not None
    outcome, cause, message = result.outcome, result.cause, result.message
    if cause == "host-stopped" and last.record is not None and last.record.market != "existing":
        # It cannot say who shut it down; EC2 does, once the instance is not running any more.
        if last.instance is not None and last.instance.state == "running":
            return Wait(2, "EC2 to say why the instance is shut down")
        if last.instance is not None and last.instance.reason.startswith("Client.UserInitiated"):
            outcome, cause, message = "cancelled", "stopped", "somebody stopped or terminated the instance"
    if outcome == "succeeded":
        wrong = _contradiction(seen, last)
        if wrong:
            outcome, cause, message = wrong
    return EndAttempt(last.number, outcome, cause, message)


def _contradiction(seen: Observation, last: Attempt) -> tuple[Outcome, Cause, str] | None:
    """Why a result that says succeeded is none. Training code can write documents of its own run."""
    result, status = last.result, last.status
    assert result is not None
    if result.exit_code != 0:
        return "failed", "defect", f"the host said succeeded, but the exit code is {result.exit_code}"
    if (result.run_id, result.attempt) != (seen.spec.run_id, last.number):
        return "failed", "defect", f"the result is of attempt {result.attempt} of {result.run_id}"
    if status is not None and status.phase not in {"collecting", "done"}:
        return "failed", "defect", f"the host said succeeded, but also that it is still {status.phase}"
    if (result.digest, result.files) != (seen.spec.digest, seen.spec.files):
        trained = f"{result.files} files, {result.digest}"
        return "failed", "sync", f"the host trained {trained}, not {seen.spec.files} files, {seen.spec.digest}"
    if seen.spec.training.require_checkpoint and not any(_is_new(a, c) for a in seen.attempts for c in a.checkpoints):
        if last.missing:
            return "failed", "no-checkpoint", f"the checkpoint {last.missing[-1]} is not in the bucket as it was"
        return "failed", "no-checkpoint", "the training ended without a checkpoint"
    return None


def _is_new(attempt: Attempt, checkpoint: Checkpoint) -> bool:
    """Good, and written since the training of its attempt began (by the host's own clock, both times)."""
    phases = attempt.result.phases if attempt.result else attempt.status.phases if attempt.status else ()
    began = next((phase.started_at for phase in phases if phase.phase == "training"), None)
    # A file system's clock ticks more coarsely than the time of day.
    is_since = began is None or checkpoint.modified_at >= began - timedelta(seconds=1)
    return is_since and not checkpoint.suspect


def _before_launch(seen: Observation, last: Attempt) -> Action:
    """There is a claim and no winner yet."""
    launched = [i for i in last.instances if i.is_alive]
    if launched:
        return Adopt(last.number, min(i.id for i in launched))
    if seen.stop is not None and seen.is_stopped:
        asked = [t.at for t in last.tried if t.instance_id is None and t.error_code is None]
        if asked and seen.now - max(*asked, seen.stop.at) < _UNANSWERED:
            return Wait(1, "EC2 to show the instance that was asked for")
        return EndAttempt(last.number, "cancelled", "stopped", "stopped before an instance was launched")
    if last.claim.owner == seen.knowledge.me:
        if seen.packs is None and seen.knowledge.upload == "none" and seen.knowledge.can_upload:
            return Upload()
        return Launch(last.number)
    if last.claim.until < seen.now:
        return TakeOver(last.number) if _has_source(seen) else _without_source(seen, last)
    return Wait(1, f"{last.claim.owner} to launch attempt {last.number}")


def _has_source(seen: Observation) -> bool:
    return seen.packs is not None or seen.knowledge.can_upload


def _without_source(seen: Observation, last: Attempt) -> Action:
    """Who has the source may come back; a host that waited for it would cost money meanwhile."""
    if seen.now - last.claim.until < _patience(seen):
        return Wait(5, "a launcher that has the source")
    message = "the launcher that has the source is gone, and had not uploaded it"
    return EndAttempt(last.number, "failed", "sync", message)


def _patience(seen: Observation) -> timedelta:
    """How long anything before the start may take: the first lease."""
    return timedelta(seconds=int(seen.spec.launch.get("lease_seconds", 900)))


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
        why = "it ended before the run was started on it"
        if instance.id in seen.knowledge.started_at:
            why += f", and {_silent_start(seen)}"
        elif instance.id not in seen.knowledge.platforms:
            why += ", and no command had come back from it: SSM never ready"
        return EndAttempt(last.number, "failed", "cloud", f"{what}: {why}")
    silent = seen.monotonic - seen.knowledge.beat_changed_at
    why = f": there had been no heartbeat for {silent:.0f} s" if silent > STALE_SECONDS else ""
    return EndAttempt(last.number, "lost", "vanished", what + why)


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
    patience = _patience(seen)
    is_late = seen.now - last.record.launched_at > patience
    if known.start_failures.get(last.number, 0) >= _START_FAILURES:
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
            return EndAttempt(last.number, "failed", "cloud", f"{instance.id} {_silent_start(seen)}")
        return Start(last.number, instance.id, resume_point(seen, last.number))
    return Wait(0.5, "the host to begin")


def _silent_start(seen: Observation) -> str:
    said = f"; its log says: {seen.knowledge.start_error}" if seen.knowledge.start_error else ""
    return f"was told to start, but gave no sign of life{said}"


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
