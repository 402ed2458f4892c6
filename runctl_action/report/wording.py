"""How numbers, names and commands are written for people. Pure; what it returns is printable and encodes as UTF-8."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from pathlib import PurePosixPath

from runctl_action.contract.documents import Report

# CSI (colours, cursor), OSC (titles, links) up to its terminator, and the two-character sequences of a terminal.
_TERMINAL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])")


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


def visible(text: str) -> str:
    """`text` on one line: control and direction-changing characters, line ends and undecodable bytes as escapes."""
    return text if text.isprintable() else "".join(_visible(character) for character in text)


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


def _visible(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    category = unicodedata.category(character)
    if category in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character != "\N{ZERO WIDTH JOINER}":
        if code < 0x100:
            return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character, f"\\x{code:02x}")
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


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
