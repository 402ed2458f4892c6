"""Following a log that training code can write to as well."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard

from runctl_action.cloud.store import Listed, Stored
from runctl_action.contract.layout import Layout
from runctl_action.run.follow import Follower

LAYOUT = Layout()
HOST = LAYOUT.host("AROA:i-1", "run-1", 1)


class Bucket:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[Listed]:
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > (start_after or ""):
                yield Listed(key, 1, "e", datetime.now(UTC))

    def get(self, key: str) -> Stored | None:
        return Stored(self.objects[key], "e")


class Log:
    def __init__(self, *, from_start: bool = True) -> None:
        self.bucket = Bucket()
        self.said: list[str] = []
        self.follower = Follower(
            self.bucket,  # type: ignore[arg-type]
            LAYOUT,
            output=lambda text: self.said.append(text),
            phase=lambda name, detail: self.said.append(f"[{name} {detail}]"),
            warn=lambda message: self.said.append(f"!{message}"),
            from_start=from_start,
        )

    def segment(self, index: int, phase: str, text: bytes) -> None:
        self.bucket.objects[HOST.log(index, phase)] = zstandard.ZstdCompressor().compress(text)

    def look(self, phase: str = "", segments: int = 0, warnings: tuple[str, ...] = ()) -> list[str]:
        status = SimpleNamespace(phase=phase, detail="d", warnings=warnings, log_segments=segments) if phase else None
        last = SimpleNamespace(number=1, record=SimpleNamespace(userid="AROA:i-1"), status=status, has_started=True)
        before = len(self.said)
        self.follower.follow(SimpleNamespace(last=last, spec=SimpleNamespace(run_id="run-1")))  # type: ignore[arg-type]
        return self.said[before:]


@pytest.fixture
def log() -> Any:
    return Log()


def test_output_comes_once_and_in_order(log: Log) -> None:
    log.segment(0, "training", b"a\n")
    assert log.look("training") == ["[training d]", "a\n"]
    log.segment(1, "training", b"b\n")
    assert log.look("training") == ["b\n"]
    assert log.look("training") == []


def test_a_phase_is_announced_after_the_output_of_the_one_before(log: Log) -> None:
    log.segment(0, "installing", b"one\n")
    assert log.look("training") == ["[installing ]", "one\n"]
    log.segment(1, "installing", b"two\n")
    assert log.look("training") == ["two\n", "[training d]"]


def test_a_character_that_two_segments_share_arrives_whole(log: Log) -> None:
    log.segment(0, "training", "ä".encode()[:1])
    log.segment(1, "training", "ä".encode()[1:])
    log.look("training")
    assert "".join(log.said).endswith("ä")


def test_a_segment_that_is_none_is_said_and_the_rest_is_read(log: Log) -> None:
    log.bucket.objects[HOST.log_prefix + "junk"] = b"not zstd"
    log.segment(0, "training", b"a\n")
    log.bucket.objects[HOST.log(1, "training")] = b"not zstd"
    log.segment(2, "training", b"b\n")
    said = "".join(log.look("training"))
    assert said.count("cannot be read") == 2
    assert said.index("a\n") < said.index("b\n")


def test_a_warning_is_said_once(log: Log) -> None:
    assert log.look("training", warnings=("careful",)) == ["!careful"]
    assert "!careful" not in log.look("training", warnings=("careful",))


def test_who_comes_late_begins_near_the_end() -> None:
    log = Log(from_start=False)
    for index in range(100):
        log.segment(index, "training", b"%d\n" % index)
    said = "".join(log.look("training", segments=100))
    assert "99\n" in said
    assert "\n79\n" not in said
    assert log.follower.tail()[-1] == "99"
