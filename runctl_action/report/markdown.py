"""A report as GitHub Markdown: a comment, or the summary of a job. Pure.

Nothing that a user, a script or a host wrote is markup here: every `{{ value }}` of a template goes through `text` of
escaping.py, unless it was made Safe. Secrets are taken out before anything else is done with the report.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import jinja2

from runctl_action.contract.reports import Report
from runctl_action.report import escaping
from runctl_action.report.escaping import Safe, code, link
from runctl_action.report.redaction import redacted
from runctl_action.report.sections import Place, Section, sections
from runctl_action.report.wording import command

__all__ = ["LIMIT", "SUMMARY_LIMIT", "Place", "render", "render_summary"]

# GitHub refuses a comment of more than 65,536 characters; the poster adds a little of its own.
LIMIT = 60_000
# GitHub drops the whole summary of a step at 1 MiB; other things of the same step may be in it.
SUMMARY_LIMIT = 1_000_000

# Who gets room first; the headline is always there.
_IMPORTANCE = (
    "headline", "facts", "what happened", "warnings", "notes", "commands", "receipt", "log", "checkpoints", "metrics",
    "curves", "phases", "offers",
)  # fmt: skip
# A log may fill anything: it leaves room for the others.
_SHARES = {"log": 0.35}
_NOWHERE = Place()


@dataclass(frozen=True)
class _Written:
    text: str
    is_whole: bool


def render(
    report: Report,
    *,
    now: datetime | None = None,
    limit: int = LIMIT,
    secrets: Sequence[str] = (),
    place: Place = _NOWHERE,
) -> str:
    """A comment of at most `limit` characters, 4,000 or more: sections are shortened between rows or left out, and it
    says so. `now` dates what goes on; `secrets` are taken out."""
    return _written(redacted(report, secrets), now, place, limit, len, is_full=False)


def render_summary(
    report: Report,
    *,
    now: datetime | None = None,
    limit: int = SUMMARY_LIMIT,
    secrets: Sequence[str] = (),
    place: Place = _NOWHERE,
) -> str:
    """The full report, for the summary of a job; of at most `limit` bytes of UTF-8, else cut as a comment is."""
    return _written(redacted(report, secrets), now, place, limit, _bytes, is_full=True)


def _written(
    report: Report,
    now: datetime | None,
    place: Place,
    limit: int,
    measure: Callable[[str], int],
    *,
    is_full: bool,
) -> str:
    found = {section.name: section for section in sections(report, now, place)}
    # The full report does not say of itself that it is elsewhere.
    elsewhere = _NOWHERE if is_full else place
    written: dict[str, _Written] = {}
    # Room for the sentence that says what was cut, at its longest.
    room = limit - measure(_cut(found, found, report, elsewhere)) - 2
    for name in _IMPORTANCE:
        share = min(room, int(limit * _SHARES.get(name, 1)))
        written[name] = _fitted(found[name], share, measure, is_full=is_full)
        room -= measure(written[name].text) + 2 * bool(written[name].text)
    shortened = [name for name in found if written[name].text and not written[name].is_whole]
    omitted = [name for name in found if not written[name].text and not written[name].is_whole]
    texts = [*(written[name].text for name in found), _cut(shortened, omitted, report, elsewhere)]
    return "\n\n".join(filter(None, texts)) + "\n"


def _fitted(section: Section, room: int, measure: Callable[[str], int], *, is_full: bool) -> _Written:
    """The section with as many of its rows as there is room for; empty when there is room for none."""
    count = len(section.values[section.rows]) if section.rows else 0
    most = count if is_full else min(count, section.most)
    whole = _shown(section, most)
    if measure(whole) <= room:
        return _Written(whole, most == count)
    fits, too_many = 0, most
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if measure(_shown(section, middle)) <= room:
            fits = middle
        else:
            too_many = middle
    return _Written(_shown(section, fits) if fits else "", is_whole=False)


def _shown(section: Section, count: int) -> str:
    values, more = section.values, 0
    if section.rows:
        rows = values[section.rows]
        more = len(rows) - count
        values = values | {section.rows: rows[more:] if section.is_tail else rows[:count]}
    return _environment().get_template(f"{section.template}.md.j2").render(values, more=more).strip()


def _cut(shortened: Collection[str], omitted: Collection[str], report: Report, place: Place) -> str:
    told = [
        f"{what}: {', '.join(names)}." for what, names in (("Shortened", shortened), ("Left out", omitted)) if names
    ]
    if not told:
        return ""
    summary = f"{link(Safe('the summary of the workflow run'), place.workflow_url)}, and " if place.workflow_url else ""
    shown = code(command(["runctl-action", "report", report.run_id]), 100)
    return f"{' '.join(told)} All of it: {summary}{shown}."


def _bytes(shown: str) -> int:
    return len(shown.encode())


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("runctl_action.report", "templates"),
        # HTML escaping would leave Markdown alone; `finalize` escapes every value for both.
        autoescape=False,  # noqa: S701
        finalize=escaping.text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "md": escaping.text,
        "prose": escaping.prose,
        "code": escaping.code,
        "fence": escaping.fence,
        "capitalized": lambda sentence: sentence[:1].upper() + sentence[1:],
    }
    return environment
