"""The report of a run, from what is seen of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runctl_action.contract.documents import Checkpoint, Offer, OfferTried
from runctl_action.contract.reports import Receipt, Report, ReportedCheckpoint, ReportedInstance, ReportedOffer, Synced
from runctl_action.report import meaning
from runctl_action.run.observe import Attempt, Observation

_UNSAVED_SECONDS = 20 * 60


def summarize(
    seen: Observation,
    *,
    uri: Callable[[str], str],
    log_tail: Sequence[str] = (),
    receipt: Receipt | None = None,
    unpriced: Sequence[str] = (),
) -> Report:
    """The report as of now: final (`outcome` set) when the last attempt is over. `uri` makes s3:// of a key;
    `unpriced` says why prices are unknown."""
    spec, last = seen.spec, seen.last
    end = last.end if last else None
    result = last.result if last else None
    resume = last.resume if last else None
    report = Report(
        run_id=spec.run_id,
        outcome=end.outcome if end else None,
        cause=end.cause if end else None,
        exit_code=result.exit_code if result else None,
        signal=result.signal if result else None,
        message=end.message if end else "",
        phase=phase_of(last),
        repository=spec.repository,
        name=spec.name,
        commit=spec.commit,
        tree=spec.tree,
        branch=spec.branch,
        source=spec.source,
        origin=spec.origin,
        script=spec.script,
        args=spec.args,
        manifest=Synced(digest=spec.digest, files=spec.files, bytes=spec.bytes),
        dirty=spec.dirty,
        instances=tuple(
            ReportedInstance(
                id=a.record.instance_id, type=a.record.instance_type, zone=a.record.zone, market=a.record.market
            )
            for a in seen.attempts
            if a.record
        ),
        offers=tuple(
            ReportedOffer(
                attempt=a.number,
                market=t.offer.market,
                type=t.offer.instance_type,
                zone=t.offer.zone,
                usd_per_hour=t.offer.usd_per_hour,
                instance_id=t.instance_id,
                error=t.error_code,
            )
            for a in seen.attempts
            for t in a.tried
        ),
        attempts=len(seen.attempts),
        resumed_from=resume.checkpoints[0].path if resume else None,
        resumed_run=resume.run_id if resume else None,
        phases=_phases(seen),
        checkpoints=tuple(
            ReportedCheckpoint(
                path=c.path,
                bytes=c.bytes,
                sha256=c.sha256,
                uri=uri(c.key),
                modified_at=c.modified_at,
                suspect=c.suspect,
            )
            for c in _checkpoints(seen)
        ),
        metrics=result.metrics if result else (),
        receipt=receipt,
        warnings=(*_warnings(seen), *(f"a price is unknown: {why}" for why in unpriced)),
        log_tail=tuple(log_tail) if end and end.outcome != "succeeded" else (),
        requested_at=spec.requested_at,
        ended_at=end.at if end else None,
    )
    return report.model_copy(update={"hint": meaning.hint(report)})


def fallback(tried: Sequence[OfferTried], won: Offer, max_seconds: int) -> str:
    """What must not be missed: spot was asked for and on-demand was got, and what that costs; "" when it was not so."""
    refused = [t for t in tried if t.offer.market == "spot" and t.error_code]
    if won.market != "on-demand" or not refused:
        return ""
    codes = ", ".join(sorted({t.error_code or "" for t in refused}))
    count = "1 spot offer was" if len(refused) == 1 else f"{len(refused)} spot offers were"
    told = f"ON-DEMAND instead of spot: {count} refused ({codes})"
    spot = [t.offer.usd_per_hour for t in refused if t.offer.usd_per_hour is not None]
    if won.usd_per_hour is not None and spot:
        best = min(spot)
        extra = (won.usd_per_hour - best) * max_seconds / 3600
        told += (
            f"; {won.usd_per_hour:.4f} USD/h instead of {best:.4f}, {won.usd_per_hour / best:.1f} times as much, "
            f"up to {extra:.2f} USD more for this run"
        )
    return f"{told}. `spot: require` refuses instead of falling back"


def lacks_checkpoint(attempt: Attempt) -> str:
    """What a spot run is warned about while it trains: what an interruption would take; "" when there is nothing."""
    record, status = attempt.record, attempt.status
    if record is None or status is None or record.market != "spot" or status.phase != "training" or status.checkpoints:
        return ""
    trained = next((phase.seconds or 0 for phase in status.phases if phase.phase == "training"), 0)
    if trained < _UNSAVED_SECONDS:
        return ""
    return (
        f"no checkpoint after {_UNSAVED_SECONDS // 60} min of training on a spot instance: an interruption now would "
        "lose them all. Write one where `checkpoints` looks for it"
    )


def _checkpoints(seen: Observation) -> tuple[Checkpoint, ...]:
    """Of each path the latest of all attempts, a good one before one that is suspect; the newest last."""
    latest: dict[str, Checkpoint] = {}
    for attempt in seen.attempts:
        for checkpoint in sorted(attempt.checkpoints, key=lambda c: (c.modified_at, c.path)):
            if checkpoint.suspect and checkpoint.path in latest:
                continue
            latest.pop(checkpoint.path, None)
            latest[checkpoint.path] = checkpoint
    return tuple(latest.values())


def phase_of(last: Attempt | None) -> str:
    """The phase that a run is in, by its last attempt."""
    if last is None:
        return "preparing"
    if last.end:
        return "done"
    if last.status:
        return last.status.phase
    return "booting" if last.record else "launching"


def _phases(seen: Observation) -> dict[str, float]:
    """Seconds per phase, over all attempts; the launcher's own are known to the process that took them."""
    seconds: dict[str, float] = {}
    for name in ("preparing", "launching", "booting"):
        if name in seen.knowledge.timings:
            seconds[name] = round(seen.knowledge.timings[name], 2)
    for attempt in seen.attempts:
        told = attempt.result.phases if attempt.result else attempt.status.phases if attempt.status else ()
        for phase in told:
            if phase.seconds is not None and phase.phase != "done":
                seconds[phase.phase] = round(seconds.get(phase.phase, 0) + phase.seconds, 2)
    return seconds


def _warnings(seen: Observation) -> tuple[str, ...]:
    found: list[str] = []
    if seen.spec.dirty:
        shown = ", ".join(seen.spec.dirty[:5]) + (
            f" and {len(seen.spec.dirty) - 5} more" if len(seen.spec.dirty) > 5 else ""
        )
        what = "trained as they are on disk" if seen.spec.source == "worktree" else "not in the commit, so not trained"
        found.append(f"uncommitted changes, {what}: {shown}")
    for attempt in seen.attempts:
        won = attempt.tried[-1].offer if attempt.tried and attempt.record else None
        fell_back = fallback(attempt.tried, won, seen.spec.training.max_duration_seconds) if won else ""
        if fell_back:
            found.append(f"attempt {attempt.number}: {fell_back}")
        if attempt.number < len(seen.attempts) and attempt.end:
            found.append(f"attempt {attempt.number} {attempt.end.outcome}: {attempt.end.message or attempt.end.cause}")
        told = attempt.result.warnings if attempt.result else attempt.status.warnings if attempt.status else ()
        found += told
        found += [f"the checkpoint {path} is not in the bucket as the host said" for path in attempt.missing]
        if attempt.end is None and (lacking := lacks_checkpoint(attempt)):
            found.append(lacking)
    return tuple(dict.fromkeys(found))
