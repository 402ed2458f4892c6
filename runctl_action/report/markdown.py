"""A report as GitHub Markdown. Pure.

Nothing that a user, a script or a host wrote is markup here: every `{{ value }}` of a template goes through `md`,
unless a filter made it Safe. GitHub looks for mentions and references in the *rendered* text, so escaping alone does
not stop them: an invisible space after `@` and `#` does. Logs and commands are in fences, where GitHub looks for none.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeGuard

import jinja2

from runctl_action.contract.reports import Report
from runctl_action.report import meaning
from runctl_action.report.wording import age, command, cost, duration, log_line, size, train_command, visible

# GitHub refuses a comment of more than 65,536 characters; the poster adds a little of its own.
LIMIT = 60_000
_LOG_LINES, _LOG_CHARACTERS, _LINE_CHARACTERS = 60, 20_000, 1_000
_SHOWN_CHECKPOINTS, _SHOWN_WARNINGS, _SHOWN_COLUMNS, _SHOWN_CHARTS, _SHOWN_RECEIPT_LINES = 20, 12, 12, 4, 40
_SHOWN_OFFERS = 40
_CHART_POINTS = 50
_BAR = 30

_ICONS = {None: "⏳", "succeeded": "✅", "cancelled": "⏹️", "interrupted": "⚠️", "timed-out": "⏱️"}
_X_COLUMNS = ("epoch", "step", "iteration", "global_step")
_REFERENCE = re.compile(r"(?i)(@|#|GH(?=-\d)|(?:https?|ftp)(?=:)|www(?=\.)|:(?=[\w+-]*[a-z][\w+-]*:))")
_OBJECT_ID = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_MARKUP = frozenset("\\`*_|<>&[]#@~$")
# What makes a list, a rule or a code block of a line, where it is the first thing on it.
_BEGINNING = re.compile(r"[0-9]*(?=[.)](?:\s|\Z))|(?=[^A-Za-z0-9])")


class Safe(str):
    """Markdown of our own making: the one thing that a template prints as it is."""

    __slots__ = ()


def render(report: Report, *, now: datetime | None = None, limit: int = LIMIT) -> str:
    """Markdown of at most `limit` characters, cut between sections, saying what was cut. `now` dates what goes on."""
    sections = [(name, _template(name).render(view).strip()) for name, view in _sections(report, now)]
    names = [name for name, text in sections if text]
    texts = [text for _, text in sections if text]
    kept, cut = texts[:1], []
    # Room for the sentence that says what was cut.
    room = limit - 400 - len(texts[0])
    for name, text in zip(names[1:], texts[1:], strict=True):
        if len(text) + 2 <= room:
            kept.append(text)
            room -= len(text) + 2
        else:
            cut.append(name)
    if cut:
        shown = command(["runctl-action", "report", report.run_id])
        kept.append(f"_Cut for length: {', '.join(cut)}. All of it:_ {code(shown)}")
    return "\n\n".join(kept) + "\n"


def md(value: object, limit: int = 500) -> Safe:
    """`value` as text and nothing else, in a sentence, a heading or a table cell."""
    if isinstance(value, Safe):
        return value
    text = visible(str(value))
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    broken = _REFERENCE.sub("\\1\u200b", text)
    begins = _BEGINNING.match(broken)
    first = begins.end() if begins else -1
    return Safe("".join(f"&#{ord(c)};" if c in _MARKUP or i == first else c for i, c in enumerate(broken)))


def code(value: object, limit: int = 300) -> Safe:
    """`value` as code. Not between backticks: in a table cell, those would still end at a `|`."""
    return Safe(f"<code>{md(value, limit)}</code>")


def fence(text: str, language: str = "") -> Safe:
    """`text` in a fence that is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Safe(f"{ticks}{language}\n{text}\n{ticks}")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("runctl_action.report", "templates"),
        # HTML escaping would leave Markdown alone; `finalize` escapes every value for both.
        autoescape=False,  # noqa: S701
        finalize=md,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": md, "code": code, "fence": fence, "size": size, "duration": duration}
    return environment


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(f"{name}.md.j2")


def _sections(report: Report, now: datetime | None) -> list[tuple[str, dict[str, Any]]]:
    """Template and its values, from top to bottom of the report; the first is never cut."""
    return [
        ("summary", _summary(report, now)),
        ("phases", {"bars": _bars(report.phases)}),
        ("receipt", _receipt(report)),
        ("offers", _offers(report)),
        ("checkpoints", _checkpoints(report, now or report.ended_at)),
        ("metrics", _metrics(report.metrics)),
        ("log", {"log": _log(report)}),
        ("commands", {"groups": _commands(report)}),
    ]


def _offers(report: Report) -> dict[str, Any]:
    shown = report.offers[:_SHOWN_OFFERS]
    rows = [
        {
            "attempt": o.attempt,
            "offer": f"{o.market} {o.type} {o.zone or ''}".strip(),
            "usd_per_hour": f"{o.usd_per_hour:.4f}" if o.usd_per_hour is not None else "unknown",
            "instance_id": o.instance_id,
            "error": o.error,
        }
        for o in shown
    ]
    refused = sum(o.error is not None for o in report.offers)
    return {"rows": rows, "refused": refused, "more": len(report.offers) - len(shown)}


def _summary(report: Report, now: datetime | None) -> dict[str, Any]:
    words = cost(report)
    headline = meaning.sentence(report)
    if report.outcome is None and now is not None:
        headline += f", {duration((now - report.requested_at).total_seconds())} so far"
    if words and words.total:
        headline += f", for {words.total}"
    banners = [banner for banner in _banners(report) if banner.strip()]
    return {
        "icon": Safe(_ICONS.get(report.outcome, "❌")),
        "headline": headline,
        "banners": banners[:_SHOWN_WARNINGS],
        "more_banners": max(0, len(banners) - _SHOWN_WARNINGS),
        "report": report,
        "hint": report.hint or meaning.hint(report),
        "exit_meaning": meaning.exit_code_meaning(report.exit_code) if report.exit_code is not None else "",
        "signal": meaning.signal_name(report.signal) if report.signal is not None else "",
        # Not in <code>: GitHub links the bare id of a commit that it knows.
        "commit": Safe(report.commit) if _OBJECT_ID.match(report.commit) else code(report.commit),
        "instances": report.instances[-5:],
        "cost": f"{words.total}{' so far' * words.is_so_far}" if words and words.total else "unknown",
    }


def _banners(report: Report) -> list[str]:
    """What must not be missed: what the run warned of, and what can be seen from its report."""
    found = list(report.warnings)
    if report.dirty and not any(warning.startswith("uncommitted changes") for warning in report.warnings):
        shown = ", ".join(report.dirty[:5]) + (f" and {len(report.dirty) - 5} more" if len(report.dirty) > 5 else "")
        found.append(f"uncommitted changes where this was asked for: {shown}")
    if report.attempts > 1:
        found.append(f"this took {report.attempts} attempts: it was resumed, or started again")
    if report.outcome is not None and "training" in report.phases and not report.checkpoints:
        found.append("no checkpoint came out of this run")
    suspect = sum(checkpoint.suspect for checkpoint in report.checkpoints)
    if suspect:
        found.append(f"{suspect} of the checkpoints changed while the training was being ended: do not rely on it")
    return found


def _bars(phases: Mapping[str, float]) -> str:
    known = [(visible(name)[:20], seconds) for name, seconds in phases.items() if math.isfinite(seconds)][:20]
    longest = max((seconds for _, seconds in known), default=0)
    lines = [
        f"{name:<10} {duration(seconds):>12}  {'█' * max(1, round(_BAR * seconds / longest)) if longest > 0 else ''}"
        for name, seconds in known
    ]
    return "\n".join(line.rstrip() for line in lines)


def _receipt(report: Report) -> dict[str, Any]:
    words = cost(report)
    lines = words.lines if words else ()
    rest = lines[_SHOWN_RECEIPT_LINES:]
    return {
        "receipt": report.receipt,
        "cost": words,
        "lines": lines[:_SHOWN_RECEIPT_LINES],
        "more": len(rest),
        "more_usd": sum((Decimal(line.usd) for line in rest), Decimal()),
    }


def _checkpoints(report: Report, now: datetime | None) -> dict[str, Any]:
    rows = [
        {
            "path": checkpoint.path,
            "size": size(checkpoint.bytes),
            "sha256": checkpoint.sha256[:12],
            "age": age(now - checkpoint.modified_at) if now and checkpoint.modified_at else "unknown",
            "suspect": checkpoint.suspect,
        }
        for checkpoint in report.checkpoints
    ]
    return {"rows": rows[-_SHOWN_CHECKPOINTS:], "more": max(0, len(rows) - _SHOWN_CHECKPOINTS)}


def _metrics(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last row, and a chart of each column that is numbers, over the column that counts if there is one."""
    columns = list(dict.fromkeys(name for row in metrics for name in row))
    last = metrics[-1] if metrics else {}
    x = next((name for name in _X_COLUMNS if _counts(metrics, name)), None)
    numeric = {name: points for name in columns if len(points := _points(metrics, x, name)) > 1}
    charts = [_chart(name, x, points) for name, points in numeric.items() if name != x]
    return {
        "rows": len(metrics),
        "last": list(last.items())[:_SHOWN_COLUMNS],
        "more_columns": max(0, len(last) - _SHOWN_COLUMNS),
        "charts": charts[:_SHOWN_CHARTS],
        "more_charts": max(0, len(charts) - _SHOWN_CHARTS),
    }


def _counts(metrics: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether the column is in every row and never goes back: then it is what the others are a function of."""
    values = [row.get(column) for row in metrics]
    numbers = [float(value) for value in values if _is_number(value)]
    return len(numbers) == len(values) and numbers == sorted(numbers) and len(set(numbers)) > 1


def _points(metrics: Sequence[Mapping[str, Any]], x: str | None, column: str) -> list[tuple[float, float]]:
    """(x, value) where the column holds a number that a chart can show; without x, the number of the row from 1."""
    rows = [(row, float(row[x] if x else number)) for number, row in enumerate(metrics, 1)]
    return [(at, float(row[column])) for row, at in rows if _is_number(row.get(column))]


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _chart(column: str, x: str | None, points: Sequence[tuple[float, float]]) -> str:
    shown = [points[round(i * (len(points) - 1) / (_CHART_POINTS - 1))] for i in range(_CHART_POINTS)]
    shown = shown if len(points) > _CHART_POINTS else list(points)
    values = [value for _, value in shown]
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1
    lines = [
        "xychart-beta",
        f'    x-axis "{_label(x or "row")}" {_number(shown[0][0])} --> {_number(shown[-1][0])}',
        f'    y-axis "{_label(column)}" {_number(low - margin)} --> {_number(high + margin)}',
        f"    line [{', '.join(map(_number, values))}]",
    ]
    return "\n".join(lines)


def _label(text: str) -> str:
    """Mermaid has a syntax of its own inside quotes: only letters that mean nothing in it."""
    return re.sub(r"[^A-Za-z0-9 _./-]+", " ", text).strip()[:40] or "value"


def _number(value: float) -> str:
    """Six significant digits, never with an exponent: Mermaid does not read those."""
    shown = format(round(Decimal(f"{value:.6g}"), 15), "f")
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _log(report: Report) -> str:
    if report.outcome in {None, "succeeded"}:
        return ""
    lines: list[str] = []
    room = _LOG_CHARACTERS
    for line in reversed(report.log_tail[-_LOG_LINES:]):
        shown = log_line(line)
        shown = shown if len(shown) <= _LINE_CHARACTERS else shown[: _LINE_CHARACTERS - 1] + "…"
        room -= len(shown) + 1
        if room < 0:
            break
        lines.append(shown)
    return "\n".join(reversed(lines))


def _commands(report: Report) -> list[tuple[str, str]]:
    """(what for, the lines of commands), as they can be copied."""
    groups = [("Reproduce", f"{command(['git', 'checkout', report.commit])}\n{train_command(report)}")]
    good = [checkpoint for checkpoint in report.checkpoints if not checkpoint.suspect]
    if report.outcome not in {None, "succeeded"}:
        title = "Resume from the last good checkpoint" if good else "Start it again"
        groups.append((title, train_command(report, "--again")))
    if good:
        groups.append(("Fetch the last checkpoint", command(["aws", "s3", "cp", good[-1].uri, "."])))
    groups.append(("Read the whole log", command(["runctl-action", "logs", report.run_id])))
    return groups
