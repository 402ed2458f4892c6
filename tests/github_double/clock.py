"""Time that passes only when somebody sleeps."""

from __future__ import annotations

import threading


class Clock:
    """`clock()` is seconds; usable from several threads."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
            self.slept.append(seconds)
