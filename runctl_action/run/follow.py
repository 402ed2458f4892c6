"""Reading a run's log while it grows: segment by segment, in order, to whoever shows it."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable
from typing import get_args

import zstandard

from runctl_action.cloud.store import Store
from runctl_action.contract.documents import Phase, Status
from runctl_action.contract.layout import Layout, parse_log_key
from runctl_action.run.observe import Attempt, Observation

_ORDER: tuple[str, ...] = get_args(Phase)
_TAIL_LINES = 60
# A reader that comes late begins this many segments before the end, rather than replay hours.
_LATE_SEGMENTS = 20
# A segment of a hostile host must not fill the launcher's memory.
_MAX_SEGMENT_BYTES = 64 * 1024 * 1024


class Follower:
    """Keeps its place in the log of each attempt. `output(text)` gets the log, `phase(name, detail)` each new phase,
    in order: the output of a phase never comes after the next one was announced."""

    def __init__(
        self,
        store: Store,
        layout: Layout,
        *,
        output: Callable[[str], None],
        phase: Callable[[str, str], None],
        warn: Callable[[str], None],
        from_start: bool = True,
    ) -> None:
        self._store = store
        self._layout = layout
        self._output = output
        self._phase = phase
        self._warn = warn
        self._from_start = from_start
        self._attempt = 0
        self._after: str | None = None
        self._shown_phase = (0, -1)
        self._said_phase = ""
        self._details: dict[str, str] = {}
        self._shown_warnings: set[str] = set()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._partial = ""

    def follow(self, seen: Observation) -> None:
        """Shows what is new since the last call."""
        last = seen.last
        if last is None or last.record is None:
            return
        if last.number != self._attempt:
            self._begin(last, seen.spec.run_id)
        if last.status:
            self._details[last.status.phase] = last.status.detail
            for warning in last.status.warnings:
                if warning not in self._shown_warnings:
                    self._shown_warnings.add(warning)
                    self._warn(warning)
        if last.has_started:
            self._read(last, seen.spec.run_id)
        if last.status:
            self._note_phase(last.status)

    def tail(self) -> tuple[str, ...]:
        """The last lines that were read."""
        return (*self._tail, self._partial) if self._partial else tuple(self._tail)

    def _begin(self, attempt: Attempt, run_id: str) -> None:
        assert attempt.record is not None
        self._attempt = attempt.number
        self._after = None
        self._said_phase = ""
        self._details.clear()
        self._decoder.reset()
        host = self._layout.host(attempt.record.userid, run_id, attempt.number)
        segments = attempt.status.log_segments if attempt.status else 0
        if not self._from_start and segments > _LATE_SEGMENTS:
            # "~" sorts after any phase's name, so this is behind every segment with the index before.
            self._after = host.log(segments - _LATE_SEGMENTS - 1, "~")
        self._from_start = True

    def _read(self, attempt: Attempt, run_id: str) -> None:
        assert attempt.record is not None
        host = self._layout.host(attempt.record.userid, run_id, attempt.number)
        for item in self._store.list(host.log_prefix, start_after=self._after):
            stored = self._store.get(item.key)
            if stored is None:
                return
            self._after = item.key
            self._enter(parse_log_key(item.key)[1])
            text = self._decoder.decode(_plain(stored.data))
            self._remember(text)
            self._output(text)

    def _note_phase(self, status: Status) -> None:
        """A phase that writes nothing is announced when it is said for the second time: by then the last output of the
        one before has been uploaded."""
        if status.phase == self._said_phase and status.phase != "done":
            self._enter(status.phase)
        self._said_phase = status.phase

    def _enter(self, phase: str) -> None:
        place = (self._attempt, _ORDER.index(phase) if phase in _ORDER else -1)
        if place > self._shown_phase:
            self._shown_phase = place
            self._phase(phase, self._details.get(phase, ""))

    def _remember(self, text: str) -> None:
        *lines, self._partial = (self._partial + text)[-1_000_000:].split("\n")
        self._tail.extend(lines)


def _plain(data: bytes) -> bytes:
    """A segment's text. Training code can write one too: what is none is said, and the rest of the log goes on."""
    try:
        return zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(data).read(_MAX_SEGMENT_BYTES)
    except zstandard.ZstdError:
        return b"\n[runctl] a part of the log cannot be read\n"
