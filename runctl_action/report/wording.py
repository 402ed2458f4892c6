"""How numbers, names and commands are written for people. Pure; what it returns is printable and encodes as UTF-8."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from pathlib import PurePosixPath

from runctl_action.contract.reports import Receipt, ReceiptLine, Report
from runctl_action.report.receipt import apportioned
from runctl_action.report.visible import visible as visible

# CSI (colours, cursor), OSC (titles, links) up to its terminator, and the two-character sequences of a terminal.
_TERMINAL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])")


@dataclass(frozen=True)
class CostLine:
    """`quantity` × `unit_usd` = `usd`."""

    item: str
    quantity: str
    unit_usd: str
    usd: str
    source: str


@dataclass(frozen=True)
class Cost:
    """A receipt in words; what does not apply is empty, so is the total when it is unknown. The amounts of `lines` have
    as many decimals as the total and add up to it."""

    total: str
    is_so_far: bool
    comparison: str
    idle: str
    unknown: str
    not_included: str
    lines: tuple[CostLine, ...]


def cost(report: Report) -> Cost | None:
    """None without a receipt. Amounts have two decimals from 1 USD on, four below, six below a tenth of a cent."""
    receipt = report.receipt
    if receipt is None:
        return None
    places = _places(receipt)
    amounts = apportioned([Fraction(line.usd) for line in receipt.lines], places)
    total = f"{receipt.total_usd:.{places}f} USD" if receipt.total_usd is not None else ""
    idle = f"{receipt.idle_usd:.{places}f} USD of the total" if receipt.idle_usd else ""
    idle_time = f"{duration(receipt.idle_seconds or 0)} not spent training (boot, installation, repeated work)"
    return Cost(
        total=f"at least {total}" if total and receipt.unknown else total,
        is_so_far=report.outcome is None or not receipt.is_final,
        comparison=_comparison(receipt, places),
        idle=f"{idle} went for {idle_time}" if idle else "",
        unknown=f"No price could be had for {'; '.join(receipt.unknown)}" if receipt.unknown else "",
        not_included="; ".join(receipt.not_included),
        lines=tuple(
            _cost_line(line, format(usd, "f"), names_attempt=report.attempts > 1)
            for line, usd in zip(receipt.lines, amounts, strict=True)
        ),
    )


def duration(seconds: float) -> str:
    """0.4 s, 41 s, 3 min 5 s, 2 h 13 min; `unknown` for what is no time at all."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: int) -> str:
    """512 bytes, 1.5 kB, 23.4 MB: decimal units."""
    if count < 1000:
        return f"{count} byte{'' if count == 1 else 's'}"
    value, units = count / 1000, ["kB", "MB", "GB"]
    while value >= 999.95 and units:
        value /= 1000
        units.pop(0)
    return f"{value:.1f} {units[0] if units else 'TB'}"


def age(since: timedelta) -> str:
    """3 min, 2 h, 5 d: one unit, rounded down."""
    seconds = max(0, int(since.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def log_line(text: str) -> str:
    """One line of a program's output: tabs stay, colours and cursor movements go, what else controls is escaped.
    Of a line that was rewritten with carriage returns, its last state."""
    states = [state for state in text.rstrip("\r\n").split("\r") if state]
    line = _TERMINAL_SEQUENCE.sub("", states[-1] if states else "")
    return "\t".join(visible(part) for part in line.split("\t"))


def command(words: Sequence[str]) -> str:
    """One line that a POSIX shell reads as exactly `words`; what is not printable is written as $'…'."""
    return " ".join(_quoted(word) for word in words)


def train_command(report: Report, *flags: str) -> str:
    """The command that asks for the same training again, with `flags`."""
    words = ["runctl-action", "train", *flags]
    if report.name != PurePosixPath(report.script).stem:
        words += ["--name", report.name]
    script = f"./{report.script}" if report.script.startswith("-") else report.script
    return command([*words, script, *(["--", *report.args] if report.args else [])])


def again_command(report: Report) -> str:
    """The command that goes on with it. A workflow's run is not that of the same command elsewhere, so there another
    run begins where it ended."""
    if report.origin is None:
        return train_command(report, "--again")
    has_checkpoint = any(not checkpoint.suspect for checkpoint in report.checkpoints)
    return train_command(report, *(("--resume", report.run_id) if has_checkpoint else ()))


def _places(receipt: Receipt) -> int:
    known = receipt.total_usd or sum((line.usd for line in receipt.lines), Decimal()) or receipt.on_demand_usd or 0
    return 2 if known >= 1 or not known else 4 if known >= Decimal("0.001") else 6


def _comparison(receipt: Receipt, places: int) -> str:
    on_demand, saved = receipt.on_demand_usd, receipt.saved_usd
    if not on_demand or saved is None:
        return ""
    if not saved:
        return "nothing saved over on-demand"
    percent = (abs(saved) / on_demand * 100).to_integral_value(ROUND_DOWN)
    difference = f"{percent or 'under 1'} % {'less' if saved > 0 else 'more'}"
    return f"on-demand it would have been {on_demand:.{places}f} USD: {difference}"


def _cost_line(line: ReceiptLine, usd: str, *, names_attempt: bool) -> CostLine:
    # Prices are per hour, the bill is by the second.
    quantity = f"{round(line.quantity * 3600)} s" if line.unit == "h" else f"{_digits(line.quantity)} {line.unit}"
    return CostLine(
        item=f"attempt {line.attempt}: {line.item}" if names_attempt and line.attempt else line.item,
        quantity=quantity,
        unit_usd=f"{_plain(line.unit_usd)} per {line.unit}",
        usd=usd,
        source=line.source,
    )


def _digits(number: Decimal) -> str:
    """Four significant digits, or all before the point."""
    return _plain(round(number, max(0, 3 - number.adjusted())))


def _plain(number: Decimal) -> str:
    shown = format(number, "f")
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def _quoted(word: str) -> str:
    if visible(word) == word:
        return shlex.quote(word)
    raw = word.encode("utf-8", "surrogateescape" if _is_bytes(word) else "surrogatepass")
    return "$'" + "".join(_octal(byte) for byte in raw) + "'"


def _octal(byte: int) -> str:
    # Of fixed length: \x would swallow a hexadecimal digit that follows.
    is_plain = byte < 128 and (chr(byte).isalnum() or chr(byte) in " ./=_-,")
    return chr(byte) if is_plain else f"\\{byte:03o}"


def _is_bytes(word: str) -> bool:
    return all(0xDC80 <= ord(c) <= 0xDCFF for c in word if unicodedata.category(c) == "Cs")
