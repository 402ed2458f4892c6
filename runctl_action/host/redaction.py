"""Secrets taken out of what the host uploads as text, in the forms in which programs print them.

A value that a program has changed on purpose (reversed, encrypted, a character a line) is not recognised: this is
against accidents. Whoever writes the training has the values.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

# Shorter parts are in every text: such a line of a secret goes with the whole of it only.
SHORTEST = 4
# Of a secret that is a JSON object: shorter fields are the likes of "mysql", "admin" and "us-east-1".
_SHORTEST_FIELD = 8
# How `base64` (76) and PEM (64) break their lines.
_WRAPPED = (76, 64)
_REDACTED = b"***"


class Redactor:
    """Replaces `secrets`, each line of one that has several, and their encoded forms; also where two overlap."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        found = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST}
        self._forms = sorted(found)
        self._beginnings = {form[:size] for form in found for size in range(1, SHORTEST)}

    def stream(self) -> RedactedStream:
        """For text that comes in pieces."""
        return RedactedStream(self)

    def data(self, data: bytes) -> bytes:
        """`data`, whole, without the secrets."""
        return _replaced(data, self.spans(data))

    def text(self, text: str) -> str:
        """The same of a text."""
        return self.data(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def value(self, value: Any) -> Any:
        """The same of a value of JSON: texts, keys, and a number that is a secret."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.value(item) for item in value)
        if isinstance(value, int | float) and self.text(repr(value)) != repr(value):
            return _REDACTED.decode()
        return value

    def holds(self, text: str) -> bool:
        """Whether there is a secret in it."""
        return bool(self.spans(text.encode("utf-8", "surrogateescape")))

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where the secrets are, in order; those that touch or overlap are one."""
        found = sorted(span for form in self._forms for span in _occurrences(form, data))
        merged: list[tuple[int, int]] = []
        for start, end in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((start, end))
        return merged

    def unfinished(self, data: bytes) -> int:
        """Where in `data` a secret begins that may go on behind its end; its length, when there is none."""
        first = len(data)
        for form in self._forms:
            place = data.find(form[:SHORTEST], max(0, len(data) - len(form) + 1))
            while 0 <= place < first:
                if form.startswith(data[place:]):
                    first = place
                    break
                place = data.find(form[:SHORTEST], place + 1)
        for size in range(SHORTEST - 1, 0, -1):
            if size <= len(data) and data[-size:] in self._beginnings:
                return min(first, len(data) - size)
        return first


class RedactedStream:
    """Nothing is kept back but what may be the beginning of a secret, so that a log can be followed."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""
        # How much at the beginning of what is held belongs to a secret that is told (as ***) already.
        self._told = 0

    def feed(self, data: bytes) -> bytes:
        """What can go on."""
        data = self._held + data
        spans, is_told = self._spans(data), self._told > 0
        until = self._redactor.unfinished(data)
        self._held = data[until:]
        # What goes on ends within a secret, the end of which may be the beginning of another.
        cut = (end - until for start, end in spans if start < until < end or (is_told and start == 0 and until < end))
        self._told = next(cut, 0)
        return _replaced(data[:until], spans, is_told=is_told)

    def finish(self) -> bytes:
        """The rest: what was the beginning of a secret only is none."""
        ready = _replaced(self._held, self._spans(self._held), is_told=self._told > 0)
        self._held, self._told = b"", 0
        return ready

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        spans = self._redactor.spans(data)
        if not self._told:
            return spans
        end = max([self._told, *(end for start, end in spans if start <= self._told)])
        return [(0, end), *(span for span in spans if span[0] > end)]


def _replaced(data: bytes, spans: Iterable[tuple[int, int]], *, is_told: bool = False) -> bytes:
    """`is_told`: the first span has its *** already."""
    parts, place = [], 0
    for start, end in spans:
        if start >= len(data):
            break
        parts += [data[place:start], b"" if is_told and start == 0 else _REDACTED]
        place = end
    return b"".join([*parts, data[place:]])


def _occurrences(form: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    """Also those that overlap. Not by a regular expression: one with all forms takes ten times as long."""
    place = data.find(form)
    while place >= 0:
        yield place, place + len(form)
        place = data.find(form, place + 1)


def _forms(secret: str) -> Iterator[bytes]:
    whole = secret.strip()
    fields = set(_fields(whole))
    # Of a JSON file's field the line breaks are escaped; whoever reads it prints real ones.
    lines = {line.strip() for part in (whole, *fields) for line in re.split(r"[\r\n]+|\\[rn]", part)}
    for part in {whole, *fields, *lines}:
        quoted = json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1], repr(part)[1:-1]
        yield from (form.encode() for form in (part, *quoted, quote(part), quote(part, safe=""), quote_plus(part)))
    for part in {whole, *fields}:
        data = part.encode()
        yield from (data.hex().encode(), data.hex().upper().encode())
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield from _in_base64(data, encode)


def _in_base64(data: bytes, encode: Any) -> Iterator[bytes]:
    """As a part of something longer too, such as "user:password": it may begin at any byte of a group of three. Of
    the first and the last character only those are taken that are the same whatever stands around."""
    for before in range(3):
        bits = 8 * before, 8 * (before + len(data))
        yield encode(bytes(before) + data)[-(-bits[0] // 6) : bits[1] // 6]
    whole = encode(data)
    for width in _WRAPPED:
        lines = (whole[place : place + width] for place in range(0, len(whole), width))
        yield from (line for line in lines if len(line) >= _SHORTEST_FIELD)


def _fields(text: str) -> Iterator[str]:
    """The texts in a JSON object, however deep."""
    try:
        waiting = [json.loads(text)] if text.startswith("{") else []
    except (ValueError, RecursionError):
        return
    while waiting:
        found = waiting.pop()
        if isinstance(found, str) and len(found) >= _SHORTEST_FIELD:
            yield found.strip()
        elif isinstance(found, dict | list):
            waiting += found.values() if isinstance(found, dict) else found
