"""The runner's log and its files: the one module that uses actions-toolkit, for escaping and for random delimiters.

The runner executes what it reads, on stdout and stderr: a line that begins with `::command`, or has `##[command]`
anywhere; `\\r` ends a line too (ActionCommand.cs in actions/runner). So what the training wrote is relayed between
`::stop-commands::TOKEN` and `::TOKEN::`, with a new random token each time, and so is whatever else could be taken for
a command. `##[` is broken up besides, because GitHub's page makes headings of it. All goes to one stream: the runner
does not keep the order of two.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from actions_toolkit.command import Command  # type: ignore[import-untyped]
from actions_toolkit.file_command import prepare_key_value_message  # type: ignore[import-untyped]

from runctl_action.errors import UsageError
from runctl_action.github.annotations import Annotation, Level, shortened
from runctl_action.report.wording import log_line, visible

# The runner shows no more of one kind in a step.
_MOST_ANNOTATIONS = 10
# How often a line that is rewritten without end, a progress bar, is shown.
_UPDATE_SECONDS = 30.0
# A program that never ends its line must not fill our memory; it is shown in pieces of this many characters.
_LONGEST_LINE = 65536
# What people came for is not folded away; all other phases are.
_UNFOLDED = {"training"}
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_RESET = "\x1b[0m"
# GitHub drops all of a step's summary when it is longer; the runner's masking may add a little.
_LONGEST_SUMMARY = 1024 * 1024 - 1024
_SUMMARY_CUT = "\n_The summary is cut here: GitHub shows at most 1 MiB._\n"
# Masking a brace, alone on its line of a JSON secret, would leave no log readable.
_SHORTEST_MASKED_LINE = 4


class WorkflowLog:
    """A Progress for the runner's log. `monotonic` and `token` are seams for tests."""

    def __init__(
        self,
        stream: TextIO,
        monotonic: Callable[[], float] = time.monotonic,
        token: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._stream = stream
        self._token = token
        self._lines = _Lines(monotonic)
        self._phase = ("", "")
        self._is_folded = False
        self._stopped_by = ""
        self._annotations: dict[Level, int] = {}

    def phase(self, name: str, detail: str = "") -> None:
        """A group of its own for each; a new detail of the same phase is a line in it."""
        if (name, detail) == self._phase:
            return
        is_new = name != self._phase[0]
        self._phase = (name, detail)
        self._relay(self._lines.rest())
        said = f"{name} · {detail}" if detail else name
        if not is_new:
            self.note(said)
            return
        self._end_group()
        if name in _UNFOLDED:
            self.note(said)
        else:
            self._command("group", visible(said))
            self._is_folded = True

    def output(self, text: str) -> None:
        """The training's, in whatever pieces it arrives: nothing in it is executed."""
        self._relay(self._lines.add(text))

    def warn(self, message: str) -> None:
        self.annotate(Annotation("warning", message, "runctl-action"))

    def note(self, message: str) -> None:
        self._say([_unremarkable(visible(message))])

    def finish(self) -> None:
        """Ends what is open: the last line, the group. More may follow."""
        self._relay(self._lines.rest())
        self._end_group()
        self._resume()
        self._phase = ("", "")

    def relay(self, text: str) -> None:
        """Text of any origin, a printed report for one, line by line."""
        self._say([_printable(line) for line in text.removesuffix("\n").split("\n")])

    def annotate(self, annotation: Annotation) -> None:
        """Shows it in the log, and on the run's page as long as GitHub would show another of its kind."""
        level = annotation.level
        message = "\n".join(visible(line) for line in annotation.message.splitlines())
        self._annotations[level] = self._annotations.get(level, 0) + 1
        if self._annotations[level] > _MOST_ANNOTATIONS:
            self.relay(f"{level.upper()}: {message}")
            return
        properties: dict[str, object] = {"title": shortened(visible(annotation.title), is_title=True)}
        properties |= {"file": visible(annotation.path), "line": annotation.line or ""}
        # An empty property would be an annotation of a file without a name (actions-toolkit's own fall into that).
        self._command(level, shortened(message), {name: value for name, value in properties.items() if value})

    def mask(self, secret: str) -> None:
        """From here on, the runner shows *** for it, and for every line of it."""
        lines = [line.strip() for line in re.split(r"[\r\n]+", secret) if line.strip()]
        for line in lines:
            if len(lines) == 1 or len(line) >= _SHORTEST_MASKED_LINE:
                self._command("add-mask", line)

    def _end_group(self) -> None:
        if self._is_folded:
            self._command("endgroup")
            self._is_folded = False

    def _command(self, name: str, message: str = "", properties: Mapping[str, object] | None = None) -> None:
        self._resume()
        self._write(str(Command(name, dict(properties or {}), message)))

    def _say(self, lines: list[str]) -> None:
        """Without two colons, nothing is a command: the log is spared the two lines of a relay."""
        if any("::" in line for line in lines):
            self._relay(lines)
        else:
            self._write("\n".join(lines))

    def _relay(self, lines: list[str]) -> None:
        if lines and not self._stopped_by:
            self._stopped_by = self._token()
            self._write(f"::stop-commands::{self._stopped_by}")
        if lines:
            self._write("\n".join(lines))

    def _resume(self) -> None:
        if self._stopped_by:
            self._write(f"::{self._stopped_by}::")
            self._stopped_by = ""

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._stream.flush()


class _Lines:
    """Whole lines out of pieces of text, safe to show. Of a line that is rewritten: its last state, and while it goes
    on, one of its states each _UPDATE_SECONDS."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._partial = ""
        self._rewritten_since: float | None = None
        self._update = ""

    def add(self, text: str) -> list[str]:
        shown = []
        *whole, partial = (self._partial + text).split("\n")
        for line in whole:
            shown += self._ended(line)
        if "\r" in partial:
            # The last state, which may be empty as the line is about to be written anew, and what was there before.
            *states, last = partial.split("\r")
            before = next((state for state in reversed(states) if state), "")
            partial = f"{before}\r{last}"
            shown += self._updated(partial)
        while len(partial) > _LONGEST_LINE:
            shown.append(_printable(partial[:_LONGEST_LINE]))
            partial = partial[_LONGEST_LINE:]
        self._partial = partial
        return shown

    def rest(self) -> list[str]:
        partial, self._partial = self._partial, ""
        return self._ended(partial) if partial else []

    def _ended(self, line: str) -> list[str]:
        text, update = _printable(line), self._update
        self._rewritten_since, self._update = None, ""
        return [] if update and text == update else [text]

    def _updated(self, partial: str) -> list[str]:
        now = self._monotonic()
        if self._rewritten_since is None:
            self._rewritten_since = now
        text = _printable(partial)
        if now - self._rewritten_since < _UPDATE_SECONDS or text == self._update:
            return []
        self._rewritten_since, self._update = now, text
        return [text]


def _printable(line: str) -> str:
    """One line: of its states the last, with its colours and no other control sequence."""
    states = [state for state in line.rstrip("\r\n").split("\r") if state]
    parts = _COLOUR.split(states[-1] if states else "")
    parts[::2] = [log_line(part) for part in parts[::2]]
    colours = parts[1::2]
    return _unremarkable("".join(parts) + (_RESET if colours and colours[-1] not in {_RESET, "\x1b[m"} else ""))


def _unremarkable(line: str) -> str:
    return line.replace("##[", "## [")


def write_outputs(outputs: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """For later steps. Here and below: nothing happens where there is no runner, and its variable is not set."""
    for name, value in outputs.items():
        _append(environ, "GITHUB_OUTPUT", f"{prepare_key_value_message(name, value)}\n")


def save_state(name: str, value: str, environ: Mapping[str, str]) -> None:
    """For the post step of this action, which sees it even after a cancellation."""
    _append(environ, "GITHUB_STATE", f"{prepare_key_value_message(name, value)}\n")


def saved_state(name: str, environ: Mapping[str, str]) -> str:
    """What `save_state` saved, in the post step; "" where it did not get so far."""
    return environ.get(f"STATE_{name}", "")


def append_summary(text: str, environ: Mapping[str, str]) -> None:
    """Adds Markdown to the job summary, cut at a line's end where there is no more room, which it then says."""
    path = Path(environ.get("GITHUB_STEP_SUMMARY", ""))
    taken = path.stat().st_size if path.is_file() else 0
    before = "\n" if taken else ""
    if kept := cut_summary(text, _LONGEST_SUMMARY - taken - len(before)):
        _append(environ, "GITHUB_STEP_SUMMARY", before + kept)


def cut_summary(text: str, room_bytes: int) -> str:
    """Markdown of at most `room_bytes` in UTF-8: whole lines, what they opened closed, and a sentence that says it."""
    written = text if text.endswith("\n") else f"{text}\n"
    if len(_utf8(written)) <= room_bytes:
        return written
    room = room_bytes - len(_SUMMARY_CUT)
    kept: list[str] = []
    fence, open_details = "", 0
    for line in written.splitlines(keepends=True):
        after = _open_after(line, fence, open_details)
        room -= len(_utf8(line))
        if room < len(_closing(*after)):
            break
        kept.append(line)
        fence, open_details = after
    return "".join([*kept, _closing(fence, open_details), _SUMMARY_CUT]) if room_bytes >= len(_SUMMARY_CUT) else ""


def _open_after(line: str, fence: str, open_details: int) -> tuple[str, int]:
    """The fence that is open behind `line`, or "", and how many <details> are."""
    ticks = re.match(r" {0,3}(`{3,}|~{3,})", line)
    if fence:
        is_end = ticks and ticks[1].startswith(fence) and not line.strip().strip(fence[0])
        return ("" if is_end else fence), open_details
    return (ticks[1] if ticks else ""), max(0, open_details + line.count("<details") - line.count("</details>"))


def _closing(fence: str, open_details: int) -> str:
    return (f"{fence}\n" if fence else "") + "\n</details>\n" * open_details


def _append(environ: Mapping[str, str], variable: str, text: str) -> None:
    path = environ.get(variable)
    if not path:
        return
    try:
        with Path(path).open("ab") as file:
            file.write(_utf8(text))
    except OSError as error:
        raise UsageError(
            f"{variable} names {path}, which cannot be written: {error.strerror}",
            "it is the runner's: in a container, mount what the runner mounts",
        ) from None


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
