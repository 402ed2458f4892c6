"""What a person at a terminal reads of a check-up: a line a check, below it what mends it."""

from __future__ import annotations

from typing import TextIO

from runctl_action.contract.reports import Checkup, Finding
from runctl_action.report.terminal import encodable
from runctl_action.report.wording import visible

_MARKS = {"passed": "✔", "failed": "✘", "unseen": "?", "skipped": "–"}
_PLAIN_MARKS = {"passed": "ok", "failed": "FAILED", "unseen": "?", "skipped": "-"}
_WIDTH = 20


def print_finding(finding: Finding, stream: TextIO) -> None:
    """A check, once it is made."""
    is_unicode = (stream.encoding or "utf-8").lower().startswith("utf")
    mark = _MARKS[finding.status] if is_unicode else f"{_PLAIN_MARKS[finding.status]:<6}"
    first, *others = finding.seen.split("\n")
    lines = [f"{mark} {finding.name:<{_WIDTH}}{visible(first)}"]
    indent = " " * (len(mark) + 1 + _WIDTH)
    lines += [f"{indent}{visible(line.strip())}" for line in others]
    if finding.fix:
        lines.append(f"{indent}{'→' if is_unicode else '->'} {visible(finding.fix)}")
    stream.writelines(encodable(line, stream.encoding) + "\n" for line in lines)
    stream.flush()


def print_summary(checkup: Checkup, stream: TextIO) -> None:
    """The last line: what failed, and what could not be seen."""
    failed = [finding.name for finding in checkup.checks if finding.status == "failed"]
    unseen = [finding.name for finding in checkup.checks if finding.status == "unseen"]
    said = f"to be mended: {', '.join(failed)}" if failed else "nothing is wrong"
    not_seen = f"; could not be seen: {', '.join(unseen)}" if unseen else ""
    stream.write(encodable(f"{said}{not_seen}; nothing was spent", stream.encoding) + "\n")
    stream.flush()
