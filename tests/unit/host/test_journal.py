"""The log: complete, in order, redacted, and bounded whatever S3 does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from runctl_action.host.journal import Journal
from runctl_action.host.redaction import Redactor


class Store:
    """Keeps segments; fails the first `failures` times, and waits for `gate` before each."""

    def __init__(self, failures: int = 0) -> None:
        self.segments: list[tuple[int, str, bytes]] = []
        self.failures = failures
        self.gate = threading.Event()
        self.gate.set()

    def put(self, index: int, phase: str, data: bytes) -> None:
        self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise OSError("S3 is away")
        self.segments.append((index, phase, zstandard.ZstdDecompressor().decompressobj().decompress(data)))

    @property
    def text(self) -> bytes:
        return b"".join(data for _, _, data in self.segments)


@pytest.fixture
def journal(tmp_path: Path) -> Callable[..., tuple[Journal, Store]]:
    def make(store: Store | None = None, **options: Any) -> tuple[Journal, Store]:
        store = store or Store()
        return Journal(store.put, tmp_path / "log", interval_seconds=0.01, retry_seconds=0.01, **options), store

    return make


def test_segments_are_numbered_without_gaps_and_hold_one_phase_each(journal: Any) -> None:
    log, store = journal()
    log.write("syncing", b"a\n")
    log.write("training", b"b\n")
    log.write("training", b"c\n")
    log.close()
    assert [index for index, _, _ in store.segments] == list(range(len(store.segments)))
    assert [phase for _, phase, _ in store.segments] == sorted(phase for _, phase, _ in store.segments)
    assert store.text == b"a\nb\nc\n"


def test_a_segment_that_could_not_be_stored_is_stored_later_and_once(journal: Any) -> None:
    log, store = journal(Store(failures=1))
    log.write("training", b"text")
    log.close()
    assert store.text == b"text"


def test_the_end_of_the_log_does_not_wait_for_the_next_segment(tmp_path: Path) -> None:
    store = Store()
    log = Journal(store.put, tmp_path / "log", interval_seconds=10**6)
    log.write("training", b"the end")
    log.close()
    assert (store.text, log.warnings) == (b"the end", [])


def test_a_backlog_that_grows_too_long_loses_its_middle_and_says_so(journal: Any) -> None:
    store = Store()
    store.gate.clear()
    log, _ = journal(store, backlog_bytes=10 * 1024 * 1024)
    block = b"x" * (1024 * 1024)
    for index in range(30):
        log.write("training", b"%04d" % index + block[4:])
    store.gate.set()
    log.close()
    assert any("are left out" in warning for warning in log.warnings)
    assert store.text.startswith(b"0000")
    assert block[:100] in store.text
    assert len(store.text) < 20 * 1024 * 1024
    assert b"0029" in store.text
    assert not list(log._directory.iterdir())


def test_a_segment_that_somebody_took_away_is_left_out_and_the_rest_follows(journal: Any) -> None:
    log, store = journal(Store(failures=1))
    store.gate.clear()
    log.write("syncing", b"the first\n")
    for phase, spoil in (
        ("installing", Path.unlink),
        ("training", lambda path: (path.unlink(), path.symlink_to("/etc/hosts"))),
        ("collecting", lambda path: (path.unlink(), os.mkfifo(path))),
    ):
        log.write(phase, b"lost\n")
        (path,) = {*log._directory.iterdir()} - {found for _, found, _ in log._spooled}
        spoil(path)
    log.write("done", b"the last\n")
    store.gate.set()
    log.close()
    assert store.text == b"the first\nthe last\n"
    assert [index for index, _, _ in store.segments] == [0, 1]
    assert all(warning.startswith("a part of the log is left out") for warning in log.warnings)
    assert len(log.warnings) == 3


def test_what_processes_write_is_read_to_its_end(journal: Any) -> None:
    log, store = journal()
    stream = log.stream("training")
    writer = os.dup(stream.fd)
    stream.started()
    for n in range(1000):
        os.write(writer, b"line %d\n" % n)
    os.close(writer)
    stream.finish()
    log.close()
    assert store.text == b"".join(b"line %d\n" % n for n in range(1000))


def test_a_secret_never_leaves_the_host_wherever_a_chunk_ends(journal: Any) -> None:
    log, store = journal(redactor=Redactor(["hunter2hunter2", "first line\nsecond line"]))
    stream = log.stream("training")
    writer = os.dup(stream.fd)
    stream.started()
    for byte in b"before hunter2hunter2 after, and second line too\n":
        os.write(writer, bytes([byte]))
    os.close(writer)
    stream.finish()
    log.close()
    assert store.text == b"before *** after, and *** too\n"
