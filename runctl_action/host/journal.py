"""The log: read from a pipe faster than a training can write, redacted, and uploaded in compressed segments.

Memory is bounded by one chunk per stage: the reader spools to disk, the uploader takes from there. When S3 is slower
than the training for gigabytes, the middle of the backlog is dropped and said so; the training is never slowed.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import zstandard

from runctl_action.host.redaction import Redactor
from runctl_action.host.saying import say

_READ_BYTES = 1024 * 1024
_SEGMENT_BYTES = 4 * 1024 * 1024
_BACKLOG_BYTES = 2 * 1024**3
_F_SETPIPE_SZ = 1031


class Journal:
    """`put(index, phase, data)` stores a segment; it may raise, the segment is then put again later.
    `directory` holds the spool. Not opened: use `stream` for each phase, and `close` at the end."""

    def __init__(
        self,
        put: Callable[[int, str, bytes], None],
        directory: Path,
        *,
        redactor: Redactor | None = None,
        interval_seconds: float = 1.0,
        backlog_bytes: int = _BACKLOG_BYTES,
        retry_seconds: float = 2.0,
    ) -> None:
        self._put = put
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._redactor = redactor or Redactor()
        self._interval = interval_seconds
        self._backlog_limit = backlog_bytes
        self._retry = retry_seconds
        self._lock = threading.Condition()
        self._spooled: collections.deque[tuple[str, Path, int]] = collections.deque()
        self._spool: tuple[str, Path, int] | None = None
        self._serial = 0
        self._backlog = 0
        self._closing = False
        self.segments = 0
        self.bytes = 0
        self.last_output_at = 0.0
        self.warnings: list[str] = []
        self._uploader = threading.Thread(target=self._upload_all, name="log", daemon=True)
        self._uploader.start()

    def use_secrets(self, redactor: Redactor) -> None:
        """For the streams from now on: what it knows never leaves the host."""
        self._redactor = redactor

    def write(self, phase: str, data: bytes) -> None:
        """Appends `data` as it is (it is our own text, or has been redacted)."""
        with self._lock:
            if self._backlog + len(data) > self._backlog_limit:
                self._drop_middle(phase)
            if self._spool is None or self._spool[0] != phase or self._spool[2] >= _SEGMENT_BYTES:
                self._rotate()
                self._serial += 1
                self._spool = (phase, self._directory / f"{self._serial:08d}", 0)
            kept_phase, path, size = self._spool
            try:
                with open(path, "ab", buffering=0, opener=_opened) as file:
                    data = data[: file.write(data)]
            except OSError as error:
                # Whoever reads the output must go on reading, or the training stands still at its next line.
                self._note_loss(f"could not take it ({error.strerror})")
                return
            self._spool = (kept_phase, path, size + len(data))
            self._backlog += len(data)
            self.bytes += len(data)
            if self._spool[2] >= _SEGMENT_BYTES:
                self._lock.notify_all()

    def _note_loss(self, why: str) -> None:
        warning = f"a part of the log is left out: the host's disk {why}"
        if warning not in self.warnings:
            self.warnings.append(warning)

    def stream(self, phase: str, on_output: Callable[[], None] = lambda: None) -> Stream:
        """A pipe whose other end is the log: give `stream.fd` to a process, then `finish` it."""
        return Stream(self, phase, self._redactor, on_output)

    def close(self, patience_seconds: float = 300) -> None:
        """Uploads what is left. What cannot be uploaded in `patience_seconds` stays on the host's disk, and is said."""
        with self._lock:
            self._rotate()
            self._closing = True
            self._lock.notify_all()
        self._uploader.join(patience_seconds)
        if self._uploader.is_alive():
            self.warnings.append("the end of the log could not be uploaded")

    def _rotate(self) -> None:
        if self._spool is not None:
            self._spooled.append(self._spool)
            self._spool = None

    def _drop_middle(self, phase: str) -> None:
        """Keeps the oldest that waits and the newest; the rest of the backlog goes."""
        self._rotate()
        dropped = 0
        while len(self._spooled) > 2:
            _, path, size = self._spooled[1]
            del self._spooled[1]
            path.unlink(missing_ok=True)
            dropped += size
        self._backlog -= dropped
        note = f"[runctl] {dropped} bytes of the log are left out: S3 was slower than the training's output"
        self.warnings.append(note)
        path = self._directory / f"{self._serial:08d}-note"
        try:
            path.write_bytes(f"\n{note}\n".encode())
        except OSError as error:
            self._note_loss(f"could not take it ({error.strerror})")
            return
        self._spooled.append((phase, path, len(note) + 2))

    def _upload_all(self) -> None:
        while True:
            with self._lock:
                if not self._spooled and not self._closing:
                    self._lock.wait(self._interval)
                if not self._spooled:
                    self._rotate()
                if not self._spooled:
                    if self._closing:
                        return
                    continue
                phase, path, size = self._spooled[0]
            try:
                data = self._read_back(path, size)
                if data:
                    self._put(self.segments, phase, zstandard.ZstdCompressor(level=1).compress(data))
            except Exception as error:  # noqa: BLE001  - S3 may be away for minutes: the training goes on, the log follows
                say(f"log segment {self.segments}: {error!r}")
                with self._lock:
                    self._lock.wait(self._retry)
                continue
            with self._lock:
                if self._spooled and self._spooled[0][1] == path:
                    self._spooled.popleft()
                    self._backlog -= size
                self.segments += bool(data)
            with contextlib.suppress(OSError):
                path.unlink()

    def _read_back(self, path: Path, size: int) -> bytes:
        """Nothing, and a warning, where it is gone: the training is root as we are, and may do anything to it."""
        try:
            with open(path, "rb", opener=_opened) as file:
                data = file.read(size)
        except OSError as error:
            data, why = b"", error.strerror
        else:
            why = "it is not as it was"
        if len(data) < size:
            self._note_loss(f"did not give it back ({why})")
        return data


def _opened(path: str, flags: int) -> int:
    """Never through a link, and no pipe that would be waited for."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)


class Stream:
    """The writing end (`fd`) of a pipe that is read until every process has closed it, or `finish` gives up."""

    def __init__(self, journal: Journal, phase: str, redactor: Redactor, on_output: Callable[[], None]) -> None:
        self._journal, self._phase, self._on_output = journal, phase, on_output
        self._redacted = redactor.stream()
        self._reading, self.fd = os.pipe()
        if sys.platform == "linux":
            import fcntl

            with contextlib.suppress(OSError):
                fcntl.fcntl(self.fd, _F_SETPIPE_SZ, _READ_BYTES)
        self._thread = threading.Thread(target=self._read_all, name=f"{phase} output", daemon=True)
        self._thread.start()

    def started(self) -> None:
        """The process has its copy of `fd`: ours is closed, so that the end of the output can be seen."""
        os.close(self.fd)

    def finish(self, patience_seconds: float = 30) -> None:
        """Waits until everything that was written is in the journal."""
        self._thread.join(patience_seconds)

    def _read_all(self) -> None:
        with open(self._reading, "rb", buffering=0) as pipe:
            while data := pipe.read(_READ_BYTES):
                self._on_output()
                if ready := self._redacted.feed(data):
                    self._journal.write(self._phase, ready)
            if ready := self._redacted.finish():
                self._journal.write(self._phase, ready)
