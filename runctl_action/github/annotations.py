"""What GitHub shows at the top of a workflow run and beside a line of the script: annotations. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from runctl_action.contract.reports import Report
from runctl_action.report import meaning
from runctl_action.report.wording import cost, log_line, visible

Level = Literal["notice", "warning", "error"]
# The runner cuts at 4,096 of .NET's characters, which are UTF-16's (_maxIssueMessageLength in actions/runner).
_LONGEST_MESSAGE, _LONGEST_TITLE = 4096, 200

_FRAME = re.compile(r'[\s|]*File "(?P<path>[^"]+)", line (?P<line>[0-9]{1,7})(?:, in .*)?')
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?::\s.*)?")
# Where a host puts the files of the commit (host/__main__.py); the rest of the path is the tracked one.
_ON_A_HOST = re.compile(r"/.*/runs/[^/]+/[0-9]+/source/(?P<path>.+)")


@dataclass(frozen=True)
class Location:
    """A line of a tracked file, where an exception passed that nobody caught; `error` is its last line."""

    path: str
    line: int
    error: str = ""


@dataclass(frozen=True)
class Annotation:
    """Of one line or several; beside a file's line where `path` and `line` are given."""

    level: Level
    message: str
    title: str = ""
    path: str = ""
    line: int | None = None


def of_report(report: Report, script_paths: Container[str] = ()) -> Annotation:
    """How a run ended, as a notice, a warning (cancelled) or an error; beside the line of the script that raised, where
    the log shows it and the path is one of `script_paths`, the tracked ones."""
    said = [f"{meaning.sentence(report)}."]
    words = cost(report)
    if words and words.total:
        said.append(f"Cost: {words.total}.")
    if report.outcome in {None, "succeeded"}:
        return Annotation("notice", " ".join(said), f"runctl-action: {report.outcome or 'not over yet'}")
    found = find_traceback(report.log_tail, script_paths) if report.cause == "exit" else None
    hint = report.hint or meaning.hint(report)
    lines = [" ".join(said), report.message, found.error if found else "", f"→ {hint}" if hint else ""]
    cause = f" ({report.cause})" if report.cause else ""
    return Annotation(
        level="warning" if report.outcome == "cancelled" else "error",
        message="\n".join(visible(line) for line in lines if line),
        title=f"runctl-action: {report.outcome}{cause}",
        path=found.path if found else "",
        line=found.line if found else None,
    )


def find_traceback(lines: Sequence[str], script_paths: Container[str]) -> Location | None:
    """Where the last traceback of a log came from: its innermost line in one of `script_paths`, relative to the root;
    None without one."""
    found, innermost = None, None
    for raw in lines:
        line = log_line(raw)
        if line.lstrip("\t |+-").startswith("Traceback (most recent call last)"):
            innermost = None
        elif frame := _FRAME.fullmatch(line):
            path = _tracked(frame["path"], script_paths)
            innermost = Location(path, int(frame["line"])) if path else innermost
        elif innermost and _EXCEPTION.fullmatch(line):
            found, innermost = Location(innermost.path, innermost.line, line), None
    return innermost or found


def shortened(text: str, *, is_title: bool = False) -> str:
    """`text` as long as GitHub shows it, cut with an ellipsis."""
    limit = _LONGEST_TITLE if is_title else _LONGEST_MESSAGE
    # Two of .NET's characters for each beyond the Basic Multilingual Plane.
    if len(text) + sum(character > "\uffff" for character in text) <= limit:
        return text
    kept = text.encode("utf-16-le", "surrogatepass")[: (limit - 1) * 2].decode("utf-16-le", "ignore")
    return f"{kept}…"


def _tracked(path: str, script_paths: Container[str]) -> str | None:
    on_a_host = _ON_A_HOST.fullmatch(path)
    relative = posixpath.normpath(on_a_host["path"] if on_a_host else path)
    return relative if relative in script_paths else None
