"""Text as Markdown that is text and nothing else. Pure.

GitHub looks for mentions, references, commits and addresses in the *rendered* text, so escaping alone does not stop
them: an invisible space inside does. In <code> and in fences it looks for none.
"""

from __future__ import annotations

import re

from runctl_action.report.wording import visible

_INVISIBLE = "\u200b"
_MARKUP = frozenset("\\`*_|<>&[]#@~$")
# Mentions, issues, advisories, addresses and emoji, each up to where it is broken.
_REFERENCE = re.compile(r"(?i)(@|#|(?:GH|GHSA|CVE)(?=-)|(?:https?|ftp)(?=:)|www(?=\.|\Z)|:(?=[\w+-]*[a-z][\w+-]*:))")
# What GitHub links when a commit of that name is there: seven digits are enough for it. A plain number stays whole.
_OBJECT_ID = re.compile(r"\b(?=[0-9]*[A-Fa-f])[0-9A-Fa-f]{7,}\b")
# What makes a list, a rule or a code block of a line, where it is the first thing on it.
_BEGINNING = re.compile(r"[0-9]*(?=[.)](?:\s|\Z))|(?=[^A-Za-z0-9])")
_IN_BACKTICKS = re.compile(r"`([^`]+)`")
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?(?:/[A-Za-z0-9._~/%?=&-]*)?\Z")


class Safe(str):
    """Markdown of our own making: the one thing that a template prints as it is."""

    __slots__ = ()


def text(value: object, limit: int = 500) -> Safe:
    """`value` as text, in a sentence, a heading or a table cell; of more than `limit` characters, the beginning."""
    return value if isinstance(value, Safe) else _text(_shortened(value, limit), begins=True)


def code(value: object, limit: int = 300) -> Safe:
    """`value` as code. Not between backticks: in a table cell, those would still end at a `|`."""
    return Safe(f"<code>{_escaped(_broken(_shortened(value, limit)), begins=False)}</code>")


def prose(value: object, limit: int = 500) -> Safe:
    """A sentence of ours, in which what is between backticks is code; what others wrote in it is still only text."""
    if isinstance(value, Safe):
        return value
    parts = _IN_BACKTICKS.split(_shortened(value, limit))
    return Safe("".join(code(part) if i % 2 else _text(part, begins=i == 0) for i, part in enumerate(parts)))


def link(label: Safe, url: str | None) -> Safe:
    """`label`, leading to `url` if that is a plain address of the web; it must be of GitHub's making or ours."""
    return Safe(f"[{label}]({url})") if url and _URL.match(url) else label


def fence(content: str, language: str = "") -> Safe:
    """`content` in a fence that is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Safe(f"{ticks}{language}\n{content}\n{ticks}")


def _shortened(value: object, limit: int) -> str:
    shown = visible(str(value))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _text(shown: str, *, begins: bool) -> Safe:
    broken = _OBJECT_ID.sub(lambda found: _INVISIBLE.join(re.findall(".{1,6}", found[0])), _broken(shown))
    return _escaped(broken, begins=begins)


def _broken(shown: str) -> str:
    return _REFERENCE.sub(rf"\1{_INVISIBLE}", shown)


def _escaped(shown: str, *, begins: bool) -> Safe:
    """`begins`: it may be the first thing on a line."""
    found = _BEGINNING.match(shown) if begins else None
    first = found.end() if found else -1
    return Safe("".join(f"&#{ord(c)};" if c in _MARKUP or i == first else c for i, c in enumerate(shown)))
