"""The log: read from a pipe faster than a training can write, redacted, and uploaded in compressed segments.

Memory is bounded by one chunk per stage: the reader spools to disk, the uploader takes from there. When S3 is slower
than the training for gigabytes, the middle of the backlog is dropped and said so; the training is never slowed.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import zstandard

from runctl_action.host.saying import say

_READ_BYTES = 1024 * 1024
_SEGMENT_BYTES = 4 * 1024 * 1024
_BACKLOG_BYTES = 2 * 1024**3
_F_SETPIPE_SZ = 1031
_REDACTED = b"***"


class Journal:
    """`put(index, phase, data)` stores a segment; it may raise, the segment is then put again later.
    `directory` holds the spool. Not opened: use `stream` for each phase, and `close` at the end."""

    def __init__(
        self,
        put: Callable[[int, str, bytes], None],
        directory: Path,
        *,
        secrets: Sequence[str] = (),
        interval_seconds: float = 1.0,
        backlog_bytes: int = _BACKLOG_BYTES,
        retry_seconds: float = 2.0,
    ) -> None:
        self._put = put
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._redact = Redactor(secrets)
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

    def use_secrets(self, secrets: Sequence[str]) -> None:
        """From now on `secrets` never leave the host."""
        self._redact = Redactor(secrets)

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
                with path.open("ab", buffering=0) as file:
                    data = data[: file.write(data)]
            except OSError as error:
                # Whoever reads the output must go on reading, or the training stands still at its next line.
                self._note_loss(error)
                return
            self._spool = (kept_phase, path, size + len(data))
            self._backlog += len(data)
            self.bytes += len(data)
            if self._spool[2] >= _SEGMENT_BYTES:
                self._lock.notify_all()

    def _note_loss(self, error: OSError) -> None:
        warning = f"a part of the log is left out: the host's disk could not take it ({error.strerror})"
        if warning not in self.warnings:
            self.warnings.append(warning)

    def stream(self, phase: str, on_output: Callable[[], None] = lambda: None) -> Stream:
        """A pipe whose other end is the log: give `stream.fd` to a process, then `finish` it."""
        return Stream(self, phase, self._redact, on_output)

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
            self._note_loss(error)
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
                compressed = zstandard.ZstdCompressor(level=1).compress(path.read_bytes())
                self._put(self.segments, phase, compressed)
            except Exception as error:  # noqa: BLE001  - S3 may be away for minutes: the training goes on, the log follows
                say(f"log segment {self.segments}: {error!r}")
                with self._lock:
                    self._lock.wait(self._retry)
                continue
            with self._lock:
                if self._spooled and self._spooled[0][1] == path:
                    self._spooled.popleft()
                    self._backlog -= size
                self.segments += 1
            path.unlink(missing_ok=True)


class Stream:
    """The writing end (`fd`) of a pipe that is read until every process has closed it, or `finish` gives up."""

    def __init__(self, journal: Journal, phase: str, redact: Redactor, on_output: Callable[[], None]) -> None:
        self._journal, self._phase, self._redact, self._on_output = journal, phase, redact, on_output
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
            held = b""
            while data := pipe.read(_READ_BYTES):
                self._on_output()
                ready, held = self._redact.split(held + data)
                if ready:
                    self._journal.write(self._phase, ready)
            if held:
                self._journal.write(self._phase, self._redact.all(held))


class Redactor:
    """Replaces secrets, each line of a multi-line one too, also where one is split over two chunks."""

    def __init__(self, secrets: Sequence[str]) -> None:
        parts = {line.strip() for secret in secrets for line in (secret, *secret.splitlines())}
        found = sorted((part.encode() for part in parts if len(part) >= 4), key=len, reverse=True)
        self._pattern = re.compile(b"|".join(re.escape(part) for part in found)) if found else None
        self._longest = len(found[0]) if found else 0

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """(what can go on, redacted; what may be the beginning of a secret)."""
        if self._pattern is None:
            return data, b""
        data = self.all(data)
        keep = min(self._longest - 1, len(data))
        return data[: len(data) - keep], data[len(data) - keep :]

    def all(self, data: bytes) -> bytes:
        return self._pattern.sub(_REDACTED, data) if self._pattern else data
