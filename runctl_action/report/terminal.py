"""What a person at a terminal, or reading a CI log, sees of a run: its progress, its log, its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from runctl_action.contract.reports import Quote, Report
from runctl_action.report import meaning
from runctl_action.report.wording import age, cost, duration, log_line, size, visible

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN_LOG_LINES = 20
# A program that never ends its line must not fill our memory; it is shown in pieces of this many characters.
_LONGEST_LINE = 65536


class Progress(Protocol):
    """Who shows how far a run is. `output` gets the log in whatever pieces it arrives."""

    def phase(self, name: str, detail: str = "") -> None: ...
    def output(self, text: str) -> None: ...
    def warn(self, message: str) -> None: ...
    def note(self, message: str) -> None: ...
    def finish(self) -> None: ...


def progress_for(stream: TextIO, environ: Mapping[str, str]) -> Progress:
    """A live display on a terminal that can show one, else plain lines; NO_COLOR and TERM=dumb are honoured."""
    if stream.isatty() and environ.get("TERM") not in {"dumb", "unknown", None}:
        return LiveProgress(stream, environ)
    return PlainProgress(stream)


class PlainProgress:
    """`[  12.3s] installing · …`, one line an event, no control characters; the log's lines as they are."""

    def __init__(self, stream: TextIO, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._monotonic = monotonic
        self._since = monotonic()
        self._phase = ("", "")
        self._lines = _Lines()

    def phase(self, name: str, detail: str = "") -> None:
        if (name, detail) != self._phase:
            self._phase = (name, detail)
            self.finish()
            self._event(f"{name} · {detail}" if detail else name)

    def output(self, text: str) -> None:
        if lines := self._lines.add(text):
            _write(self._stream, "\n".join(lines))

    def warn(self, message: str) -> None:
        self._event(f"WARNING: {message}")

    def note(self, message: str) -> None:
        self._event(message)

    def finish(self) -> None:
        for line in self._lines.rest():
            _write(self._stream, line)

    def _event(self, text: str) -> None:
        _write(self._stream, f"[{self._monotonic() - self._since:6.1f}s] {visible(text)}")


class LiveProgress:
    """The log, and below it a line that shows the phase and its seconds and moves while nothing else does."""

    def __init__(
        self, stream: TextIO, environ: Mapping[str, str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        # Here and not above: most processes of ours are not at a terminal.
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._console: Console = Console(
            file=stream,
            force_terminal=True,
            no_color=bool(environ.get("NO_COLOR")),
            highlight=False,
            _environ=dict(environ),
        )
        self._monotonic = monotonic
        self._name = self._detail = ""
        self._since = monotonic()
        self._lines = _Lines()
        is_unicode = self._console.encoding.startswith("utf")
        self._mark = "✓" if is_unicode else "-"
        self._spinner = Spinner("dots" if is_unicode else "line")
        self._live = Live(
            console=self._console,
            get_renderable=self._status,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def phase(self, name: str, detail: str = "") -> None:
        if name != self._name:
            self._print_rest()
            self._end_phase()
            self._name, self._since = name, self._monotonic()
        self._detail = detail
        if not self._live.is_started:
            self._live.start()

    def output(self, text: str) -> None:
        if lines := self._lines.add(text):
            self._print("\n".join(lines))

    def warn(self, message: str) -> None:
        self._print(f"WARNING: {visible(message)}", "bold yellow")

    def note(self, message: str) -> None:
        self._print(visible(message), "dim")

    def finish(self) -> None:
        self._print_rest()
        self._end_phase()
        self._live.stop()

    def _print_rest(self) -> None:
        for line in self._lines.rest():
            self._print(line)

    def _end_phase(self) -> None:
        if self._name:
            took = duration(self._monotonic() - self._since)
            detail = f" · {visible(self._detail)}" if self._detail else ""
            self._print(f"{self._mark} {self._name} {took}{detail}", "green")
            self._name = self._detail = ""

    def _print(self, line: str, style: str = "") -> None:
        from rich.text import Text

        # soft_wrap: a long line stays one line, for whoever copies it; Text: a log is no markup.
        self._console.print(Text(encodable(line, self._console.encoding), style=style), soft_wrap=True)

    def _status(self) -> Any:
        from rich.text import Text

        shown = f"{self._name} {self._monotonic() - self._since:.0f} s"
        said = self._lines.unfinished() or visible(self._detail)
        text = Text(
            encodable(f"{shown} · {said}" if said else shown, self._console.encoding),
            no_wrap=True,
            overflow="ellipsis",
        )
        self._spinner.update(text=text)
        return self._spinner


def print_report(report: Report, stream: TextIO) -> None:
    """What came of a run, for a person: its ending and what that means, what was trained where, what is left."""
    rows = [
        ("run", report.run_id),
        ("outcome", f"{report.outcome or 'none yet'}{f' ({report.cause})' if report.cause else ''}"),
        *_ending(report),
        ("commit", f"{report.commit}{f' ({report.branch})' if report.branch else ''}"),
        ("tree", report.tree),
        ("source", f"{report.manifest.files} files, {size(report.manifest.bytes)}, digest {report.manifest.digest}"),
        *[("instance", f"{i.id} · {i.type} · {i.zone} · {i.market}") for i in report.instances],
        ("attempts", str(report.attempts)),
        ("phases", " · ".join(f"{name} {duration(seconds)}" for name, seconds in report.phases.items())),
        *_receipt(report),
        *[
            ("checkpoint", f"{c.path} · {size(c.bytes)} · sha256 {c.sha256[:12]}{' · SUSPECT' * c.suspect} · {c.uri}")
            for c in report.checkpoints
        ],
        *_metrics(report.metrics),
        *[("warning", warning) for warning in report.warnings],
    ]
    mark = {None: "…", "succeeded": "✓"}.get(report.outcome, "✗")
    _write(stream, "")
    _write(stream, f"{mark} {meaning.sentence(report)}")
    for label, value in rows:
        if value:
            _write(stream, f"  {label:<10}  {visible(value)}")
    if report.outcome not in {None, "succeeded"} and report.log_tail:
        _write(stream, "  the log's last lines:")
        for line in report.log_tail[-_SHOWN_LOG_LINES:]:
            _write(stream, f"  │ {log_line(line)}")
    hint = report.hint or meaning.hint(report)
    if hint:
        _write(stream, f"  → {visible(hint)}")


def print_runs(reports: Sequence[Report], stream: TextIO, now: datetime | None = None) -> None:
    """One line a run: id, state, age, cost so far, script, branch."""
    now = now or datetime.now(UTC)
    rows = [("RUN", "STATE", "AGE", "COST", "SCRIPT", "BRANCH")]
    for report in reports:
        state = f"{report.outcome}{f' ({report.cause})' if report.cause else ''}" if report.outcome else report.phase
        since = age(now - report.requested_at)
        words = cost(report)
        # Without a receipt nothing was launched yet.
        spent = f"{words.total or 'unknown'}{' so far' * words.is_so_far}" if words else "-"
        rows.append((report.run_id, state, since, spent, visible(report.script), visible(report.branch or "-")))
    if reports:
        _write_columns(rows, stream)
    else:
        _write(stream, "no runs yet; the first: runctl-action train SCRIPT")


def print_quote(quote: Quote, stream: TextIO) -> None:
    """What would be synced, the offers in order, and what a time or an amount comes to."""
    synced = quote.manifest
    _write(stream, f"{visible(quote.script)} at {quote.commit[:12]}: {synced.files} files, {size(synced.bytes)}")
    rows = [("MARKET", "TYPE", "ZONE", "USD/H", "SOURCE")]
    for offer in quote.offers:
        hourly = f"{offer.usd_per_hour:.4f}" if offer.usd_per_hour is not None else "unknown"
        source = f"{offer.source}, {offer.as_of:%Y-%m-%d %H:%M} UTC" if offer.source and offer.as_of else "-"
        rows.append((offer.market, offer.type, offer.zone or "-", hourly, source))
    _write_columns(rows, stream)
    if quote.max_duration_usd is not None:
        limit = duration(quote.max_duration_seconds)
        _write(
            stream, f"max-duration, {limit}, at the first offer's price: {quote.max_duration_usd:.4f} USD for compute"
        )
    if quote.max_cost_seconds is not None:
        least = f", at least {duration(quote.max_cost_seconds_at_least)}" if quote.max_cost_seconds_at_least else ""
        _write(stream, f"max-cost, {quote.max_cost_usd} USD, buys up to {duration(quote.max_cost_seconds)}{least}")
    for why in quote.unknown:
        _write(stream, f"a price is unknown: {why}")


def _write_columns(rows: Sequence[tuple[str, ...]], stream: TextIO) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        _write(stream, "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class _Lines:
    """Whole lines out of pieces of text, made safe to print; of a rewritten line only its last state."""

    def __init__(self) -> None:
        self._partial = ""

    def add(self, text: str) -> list[str]:
        *whole, partial = (self._partial + text).split("\n")
        if "\r" in partial:
            # The last state, which may be empty as the line is about to be written anew, and what was there before.
            *states, last = partial.split("\r")
            before = next((state for state in reversed(states) if state), "")
            partial = f"{before}\r{last}"
        while len(partial) > _LONGEST_LINE:
            whole.append(partial[:_LONGEST_LINE])
            partial = partial[_LONGEST_LINE:]
        self._partial = partial
        return [log_line(line) for line in whole]

    def rest(self) -> list[str]:
        partial, self._partial = self._partial, ""
        return [log_line(partial)] if partial else []

    def unfinished(self) -> str:
        return log_line(self._partial[-500:])


def _write(stream: TextIO, line: str) -> None:
    stream.write(encodable(line, stream.encoding) + "\n")
    stream.flush()


def encodable(line: str, encoding: str | None) -> str:
    name = encoding or "utf-8"
    return line.encode(name, "backslashreplace").decode(name)


def _ending(report: Report) -> list[tuple[str, str]]:
    rows = [("message", report.message)]
    if report.exit_code is not None:
        known = meaning.exit_code_meaning(report.exit_code)
        rows.append(("exit code", f"{report.exit_code}{f': {known}' if known else ''}"))
    if report.signal is not None:
        rows.append(("signal", f"{report.signal} ({meaning.signal_name(report.signal)})"))
    return rows


def _receipt(report: Report) -> list[tuple[str, str]]:
    words = cost(report)
    if report.receipt is None or words is None:
        return [("cost", "unknown")]
    total = f"{words.total}{' so far' * words.is_so_far}" if words.total else "unknown"
    comparison = f"; {words.comparison}" if words.comparison else ""
    return [
        ("cost", f"{total}, at list prices of {report.receipt.as_of:%Y-%m-%d %H:%M} UTC{comparison}"),
        *[("", f"{x.item}: {x.quantity} × {x.unit_usd} = {x.usd} USD ({x.source})") for x in words.lines],
        *[("", text) for text in (words.idle, words.unknown) if text],
        *[("", f"not included: {text}") for text in (words.not_included,) if text],
    ]


def _metrics(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    if not metrics:
        return []
    last = "  ".join(f"{name}={value}" for name, value in metrics[-1].items())
    return [("metrics", f"{last}  (row {len(metrics)})" if len(metrics) > 1 else last)]
