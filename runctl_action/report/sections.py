"""What the parts of a written report say, from top to bottom: each a template and its values. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from runctl_action.contract.reports import Report, ReportedCheckpoint
from runctl_action.report import chart, meaning
from runctl_action.report.escaping import Safe, code, link, prose, text
from runctl_action.report.wording import again_command, age, command, cost, duration, log_line, size, train_command

_ICONS = {None: "⏳", "succeeded": "✅", "cancelled": "⏹️", "interrupted": "⚠️", "timed-out": "⏱️"}
_OBJECT_ID = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+\Z")
# Our warnings begin with what they are about.
_LEAD = re.compile(r"(attempt [0-9]+: )?([^:`]{1,60}): (.*)\Z", re.DOTALL)
# An interruption that was gone on from is no reason to worry.
_INTERRUPTED = re.compile(r"attempt [0-9]+ interrupted: ")
_STEP = re.compile(r"(?i)(epoch|step|iter|iteration|checkpoint|ckpt)[-_=]?0*([0-9]{1,12})(?![0-9])")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the report is read, as far as the launcher knows: GitHub's own words, nothing that a run wrote.
    `head_commit` is the pull request's when its merge commit was trained; `workflow_url` leads to the full report."""

    server_url: str | None = None
    head_commit: str | None = None
    workflow_url: str | None = None


@dataclass(frozen=True)
class Section:
    """`name` is what people call it. `rows` is the key of the list that may be shortened, at its end or, for `is_tail`,
    at its beginning; `most` of them are for a comment."""

    name: str
    template: str
    values: dict[str, Any] = field(default_factory=dict)
    rows: str = ""
    most: int = 1_000_000
    is_tail: bool = False


def sections(report: Report, now: datetime | None, place: Place) -> Iterator[Section]:
    """From top to bottom, the empty ones too. `now` dates what goes on; without it, ages are as of the end."""
    yield Section(
        "headline", "headline", {"icon": Safe(_ICONS.get(report.outcome, "❌")), "headline": _headline(report, now)}
    )
    yield Section(
        "what happened", "next", {"message": report.message, "said": _last_words(report), "hint": _hint(report)}
    )
    yield Section("warnings", "alert", {"kind": Safe("WARNING"), "lines": list(_warnings(report))}, "lines", 12)
    yield Section("notes", "alert", {"kind": Safe("NOTE"), "lines": list(_notes(report))}, "lines", 12)
    yield Section("facts", "facts", {"facts": list(_facts(report, place))}, "facts")
    yield Section("phases", "phases", {"bars": chart.bars(report.phases)})
    yield Section("receipt", "receipt", _receipt(report), "lines", 40)
    yield Section("offers", "offers", _offers(report), "rows", 40)
    checkpoints = [_checkpoint(checkpoint, now or report.ended_at) for checkpoint in reversed(report.checkpoints)]
    yield Section("checkpoints", "checkpoints", {"rows": checkpoints}, "rows", 20)
    metrics = {"metrics": chart.table(report.metrics), "count": len(report.metrics)}
    yield Section("metrics", "metrics", metrics, "metrics", 12)
    yield Section("curves", "curves", {"curves": chart.curves(report.metrics)}, "curves", 4)
    yield Section("log", "log", {"lines": _log(report)}, "lines", 60, is_tail=True)
    commands = {"groups": list(_commands(report)), "is_running": report.outcome is None}
    yield Section("commands", "commands", commands, "groups")


def _headline(report: Report, now: datetime | None) -> Safe:
    words = cost(report)
    shown = meaning.sentence(report)
    if report.outcome is None and now is not None:
        shown += f", {duration((now - report.requested_at).total_seconds())} so far"
    if words and words.total:
        shown += f", for {words.total}{' so far' * (words.is_so_far and report.outcome is not None)}"
    elif report.outcome is not None:
        shown += ", cost unknown"
    return prose(shown, 300)


def _last_words(report: Report) -> str:
    """Of a script that failed, the last thing that it said: mostly, the exception."""
    if report.outcome != "failed" or report.cause not in {"exit", "signal"} or report.message:
        return ""
    said = (log_line(line).strip() for line in reversed(report.log_tail))
    return next((line for line in said if line and not line.startswith("[runctl]")), "")


def _hint(report: Report) -> Safe:
    """What to do next, its commands as code."""
    if report.outcome == "succeeded":
        return Safe()
    hint = report.hint or meaning.hint(report)
    logs = command(["runctl-action", "logs", report.run_id])
    for known in (
        again_command(report),
        train_command(report, "--resume", report.run_id),
        train_command(report),
        command(["runctl-action", "report", "--json", report.run_id]),
        f"{logs} -f",
        logs,
        "runctl-action train --help",
    ):
        before, found, after = hint.partition(known)
        if found:
            return Safe(f"{prose(before, 1000)}{code(known, 600)}{prose(after, 1000) if after else ''}")
    return prose(hint, 1000)


def _warnings(report: Report) -> Iterator[Safe]:
    """What must not be missed: what the run warned of, and what can be seen from its report."""
    if not any("ON-DEMAND" in warning for warning in report.warnings):
        yield from _fallbacks(report)
    yield from (_alert(told) for told in report.warnings if told.strip() and not _INTERRUPTED.match(told))
    if report.dirty and not any(warning.startswith("uncommitted changes") for warning in report.warnings):
        shown = ", ".join(report.dirty[:5]) + (f" and {len(report.dirty) - 5} more" if len(report.dirty) > 5 else "")
        yield _alert(f"uncommitted changes where this was asked for: {shown}")
    if report.outcome is not None and "training" in report.phases and not report.checkpoints:
        yield _alert("no checkpoint came out of this run: there is nothing to resume from")
    if suspect := sum(checkpoint.suspect for checkpoint in report.checkpoints):
        yield _alert(f"suspect checkpoints: {suspect} changed while the training was being ended; do not rely on it")


def _fallbacks(report: Report) -> Iterator[Safe]:
    for got in report.offers:
        refused = [o for o in report.offers if o.attempt == got.attempt and o.market == "spot" and o.error]
        if got.market != "on-demand" or not got.instance_id or not refused:
            continue
        told = f"ON-DEMAND instead of spot: refused with {', '.join(sorted({o.error or '' for o in refused}))}"
        prices = [o.usd_per_hour for o in refused if o.usd_per_hour]
        if prices and got.usd_per_hour:
            best = min(prices)
            told += f"; {got.usd_per_hour:.4f} USD/h instead of {best:.4f}, {got.usd_per_hour / best:.1f} times as much"
        yield _alert(told)


def _notes(report: Report) -> Iterator[Safe]:
    yield from (_alert(told) for told in report.warnings if _INTERRUPTED.match(told))
    if report.resumed_from is not None:
        other = report.resumed_run if report.resumed_run != report.run_id else None
        whose = Safe(f" of the run {code(other)}") if other else Safe()
        yield Safe(f"**Resumed**: attempt {report.attempts} began with {code(report.resumed_from)}{whose}")
    elif report.attempts > 1:
        yield Safe(f"**Started again**: attempt {report.attempts} began from the beginning")


def _alert(told: str) -> Safe:
    lead = _LEAD.match(told)
    if lead is None:
        return prose(told, 500)
    attempt, what, rest = lead[1] or "", lead[2], lead[3]
    # Not `*`: emphasis of Markdown does not hold around any text whatever.
    return Safe(f"{text(attempt)}<b>{text(what)}</b>: {prose(rest, 500)}")


def _facts(report: Report, place: Place) -> Iterator[tuple[str, Safe]]:
    """Rows of a table, what people look for first; what the headline has said is not among them."""
    if report.outcome is None:
        yield "phase", Safe(f"{text(report.phase)}, requested at {report.requested_at:%Y-%m-%d %H:%M} UTC")
    if report.exit_code is not None:
        known = meaning.exit_code_meaning(report.exit_code)
        yield "exit code", Safe(f"{report.exit_code}{': ' if known else ''}{text(known)}")
    if report.signal is not None:
        yield "signal", Safe(f"{report.signal}: {meaning.signal_name(report.signal)}")
    if report.outcome not in {None, "succeeded"} and report.cause not in {"exit", "signal"}:
        yield "cause", code(report.cause or report.outcome)
    yield "commit", _commit(report, place)
    yield "tree", code(report.tree)
    files = f"{report.manifest.files} file{'s' * (report.manifest.files != 1)}, {size(report.manifest.bytes)}"
    yield "source", Safe(f"{files}, digest {code(report.manifest.digest[:16])}")
    for instance in report.instances[-5:]:
        yield (
            "instance",
            Safe(f"{code(instance.id, 60)}: {text(instance.type, 60)}, {text(instance.zone, 60)}, {instance.market}"),
        )
    yield "attempts", Safe(str(report.attempts))
    here = link(Safe("workflow run"), place.workflow_url)
    yield "run", Safe(f"{code(report.run_id)}{f' ({here})' if place.workflow_url else ''}")


def _commit(report: Report, place: Place) -> Safe:
    branch = f" of {code(report.branch)}" if report.branch else ""
    trained = _linked(report.commit, report, place)
    if place.head_commit and place.head_commit != report.commit:
        # The merge that GitHub made of a pull request has its number; anything else is just what was checked out.
        merged = report.origin is None or report.origin.trained.startswith("the merge of")
        as_what = "trained as its merge commit" if merged else "trained is what was checked out:"
        return Safe(f"{_linked(place.head_commit, report, place)}{branch}, {as_what} {trained}")
    return Safe(f"{trained}{branch}")


def _linked(commit: str, report: Report, place: Place) -> Safe:
    if not _OBJECT_ID.match(commit):
        return code(commit)
    if place.server_url is None or not _REPOSITORY.match(report.repository):
        # Not in <code>: GitHub links the bare id of a commit that it knows.
        return Safe(commit)
    return link(code(commit[:12]), f"{place.server_url.rstrip('/')}/{report.repository}/commit/{commit}")


def _receipt(report: Report) -> dict[str, Any]:
    words = cost(report)
    lines = list(words.lines) if words else []
    return {"receipt": report.receipt, "cost": words, "lines": lines, "amounts": [Decimal(line.usd) for line in lines]}


def _offers(report: Report) -> dict[str, Any]:
    rows = [
        {
            "attempt": o.attempt,
            "offer": f"{o.market} {o.type} {o.zone or ''}".strip(),
            "usd_per_hour": f"{o.usd_per_hour:.4f}" if o.usd_per_hour is not None else "unknown",
            "answer": text(o.error) if o.error else code(o.instance_id) if o.instance_id else "not answered",
        }
        for o in report.offers
    ]
    return {"rows": rows, "asked": len(rows), "refused": sum(o.error is not None for o in report.offers)}


def _checkpoint(checkpoint: ReportedCheckpoint, now: datetime | None) -> dict[str, Any]:
    named = list(_STEP.finditer(PurePosixPath(checkpoint.path).name or checkpoint.path))
    return {
        "path": checkpoint.path,
        "step": f"{named[-1][1].lower()} {named[-1][2]}" if named else "",
        "size": size(checkpoint.bytes),
        "sha256": checkpoint.sha256[:12],
        "age": age(now - checkpoint.modified_at) if now and checkpoint.modified_at else "unknown",
        "suspect": checkpoint.suspect,
    }


def _log(report: Report) -> list[str]:
    """The last lines, of a run that did not succeed; of a very long one, its beginning."""
    if report.outcome in {None, "succeeded"}:
        return []
    lines = [log_line(line) for line in report.log_tail]
    return [line if len(line) <= 1_000 else line[:999] + "…" for line in lines]


def _commands(report: Report) -> Iterator[tuple[str | Safe, str]]:
    """(what for, the lines of commands), as they can be copied."""
    good = [checkpoint for checkpoint in report.checkpoints if not checkpoint.suspect]
    if report.outcome is None:
        yield "Follow it", command(["runctl-action", "logs", report.run_id, "-f"])
        yield "Stop it", command(["runctl-action", "stop", report.run_id])
    if report.source == "commit":
        yield "Reproduce it", f"{command(['git', 'checkout', report.commit])}\n{train_command(report)}"
    if report.outcome not in {None, "succeeded"}:
        title = "Resume it from its last good checkpoint" if good else "Start it again"
        yield title, again_command(report)
    if report.outcome is not None and good and (report.origin is None or report.outcome == "succeeded"):
        title = "Begin another run, with other settings or of another commit, where this one ended"
        yield title, train_command(report, "--resume", report.run_id)
        yield "Fetch its last checkpoint", command(["aws", "s3", "cp", good[-1].uri, "."])
    if report.outcome is not None:
        yield "Read its whole log", command(["runctl-action", "logs", report.run_id])
    title = f"Check what was trained: this prints {code(report.tree)}; the digest is {code(report.manifest.digest)}"
    yield Safe(title), command(["git", "rev-parse", f"{report.commit}^{{tree}}"])
