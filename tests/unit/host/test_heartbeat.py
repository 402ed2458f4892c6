"""The heartbeat and the budget that it listens for."""

from __future__ import annotations

import itertools
import queue
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runctl_action.contract.documents import Budget, Document, Order, Stop
from runctl_action.contract.layout import Layout
from runctl_action.host.heartbeat import Heartbeat

LAYOUT = Layout()
RUN = LAYOUT.run("run-1")


class Bucket:
    """The host's bucket, in memory; `beats` are the numbers that were written."""

    def __init__(self) -> None:
        self.run, self.own = RUN, LAYOUT.host("AROA:i-1", "run-1", 1)
        self.objects: dict[str, bytes] = {}
        self.fetched: set[str] = set()
        self.beats: queue.Queue[int] = queue.Queue()
        self.phases: list[str] = []
        # How many writes of the phase `done` fail.
        self.refusals = 0

    def get(self, key: str) -> bytes | None:
        self.fetched.add(key)
        return self.objects.get(key)

    def put_document(self, key: str, document: Any) -> bool:
        assert key == self.own.status
        if document.phase == "done" and self.refusals:
            self.refusals -= 1
            raise OSError("S3 is away")
        self.phases.append(document.phase)
        self.beats.put(document.beat)
        return True

    def write(self, key: str, document: Document) -> None:
        self.objects[key] = document.to_json()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def heartbeat(
    bucket: Bucket, budget_seconds: float | None = None, on_stop: Any = lambda: None, **options: Any
) -> Heartbeat:
    order = Order(
        run_id="run-1", attempt=1, bucket="b", region="r", prefix="runctl", userid="AROA:i-1", digest="d" * 64,
        spec_sha256="s" * 64, budget_seconds=budget_seconds,
    )  # fmt: skip
    return Heartbeat(bucket, order, on_stop, **options)  # type: ignore[arg-type]


def beaten(heart: Heartbeat) -> Heartbeat:
    """After at least one whole beat."""
    heart.start()
    heart._bucket.beats.get(timeout=30)  # type: ignore[attr-defined]
    heart.close()
    return heart


def in_seconds(seconds: float) -> Budget:
    return Budget(until=datetime.now(UTC) + timedelta(seconds=seconds))


class TestABudget:
    def test_is_the_orders_until_somebody_has_worked_it_out_anew(self, bucket: Bucket) -> None:
        assert 90 < beaten(heartbeat(bucket, 100)).budget_left() <= 100

    @pytest.mark.parametrize("seconds", [1000, 50, -50])
    def test_in_the_bucket_replaces_the_orders(self, bucket: Bucket, seconds: float) -> None:
        bucket.write(RUN.budget(1), in_seconds(seconds))
        assert seconds - 10 < beaten(heartbeat(bucket, 100)).budget_left() <= seconds

    def test_of_another_attempt_is_not_this_ones(self, bucket: Bucket) -> None:
        bucket.write(RUN.budget(2), in_seconds(1000))
        assert beaten(heartbeat(bucket, 100)).budget_left() <= 100

    def test_is_not_listened_for_where_the_order_has_none(self, bucket: Bucket) -> None:
        bucket.write(RUN.budget(1), in_seconds(-50))
        assert beaten(heartbeat(bucket)).budget_left() == float("inf")
        assert RUN.budget(1) not in bucket.fetched

    @pytest.mark.parametrize(
        "written", [b"", b"not JSON", b"[]", b'{"until": "soon"}', b'{"until": "2026-07-01T12:00:00"}']
    )
    def test_that_is_malformed_changes_nothing_and_the_heart_beats_on(
        self, bucket: Bucket, written: bytes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bucket.objects[RUN.budget(1)] = written
        stopped: list[bool] = []
        heart = heartbeat(bucket, 100, lambda: stopped.append(True))
        heart.start()
        assert bucket.beats.get(timeout=30) == 1
        heart.enter("training")
        assert bucket.beats.get(timeout=30) == 2
        assert 0 < heart.budget_left() <= 100
        bucket.write(RUN.budget(1), in_seconds(1000))
        bucket.write(RUN.stop, Stop(by="somebody", attempt=1, at=datetime.now(UTC)))
        heart.enter("collecting")
        assert bucket.beats.get(timeout=30) == 3
        heart.close()
        assert heart.budget_left() > 900
        assert stopped == [True]
        assert "heartbeat: " in capsys.readouterr().err


def test_a_stop_is_told_once_and_one_of_an_earlier_attempt_never(bucket: Bucket) -> None:
    stopped: list[bool] = []
    bucket.write(RUN.stop, Stop(by="somebody", attempt=0, at=datetime.now(UTC)))
    beaten(heartbeat(bucket, on_stop=lambda: stopped.append(True)))
    assert stopped == []
    bucket.write(RUN.stop, Stop(by="somebody", attempt=1, at=datetime.now(UTC)))
    heart = heartbeat(bucket, on_stop=lambda: stopped.append(True))
    heart.start()
    bucket.beats.get(timeout=30)
    heart.enter("training")
    heart.close()
    assert stopped == [True]


class TestTheLastStatus:
    def test_arrives_however_often_it_is_refused_at_first(self, bucket: Bucket) -> None:
        bucket.refusals = 5
        heart = heartbeat(bucket, retry_seconds=0)
        heart.start()
        heart.enter("done")
        heart.close()
        assert bucket.phases[-1] == "done"

    def test_is_given_up_after_a_minute(self, bucket: Bucket) -> None:
        bucket.refusals = 10**9
        minutes = itertools.count(0, 10)
        heart = heartbeat(bucket, retry_seconds=0, monotonic=lambda: float(next(minutes)))
        heart.start()
        heart.enter("done")
        heart.close()
        assert "done" not in bucket.phases
        assert 5 <= 10**9 - bucket.refusals <= 10

    def test_does_not_wait_for_the_next_beat(self, bucket: Bucket) -> None:
        heart = beaten(heartbeat(bucket, every_seconds=10**6))
        assert not heart._thread.is_alive()
        assert bucket.beats.get(timeout=30) == 2
