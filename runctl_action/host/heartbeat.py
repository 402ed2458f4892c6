"""What the host says while it works: the phase, that it is alive; and whether it was asked to stop."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from runctl_action.contract.documents import Budget, Order, Phase, PhaseTime, Status, Stop
from runctl_action.host.bucket import HostBucket

_FAST_SECONDS, _SLOW_SECONDS, _SLOW_AFTER_SECONDS = 2.0, 5.0, 600.0


class Heartbeat:
    """Writes status.json at every change of phase and every few seconds; calls `on_stop` once stop.json is there."""

    def __init__(self, bucket: HostBucket, order: Order, on_stop: Callable[[], None]) -> None:
        self._bucket = bucket
        self._order = order
        self._on_stop = on_stop
        self._is_stopped = False
        self._wake = threading.Event()
        self._closing = False
        self._started = time.monotonic()
        self._beat = 0
        self._phase: Phase = "syncing"
        self._phase_since = time.monotonic()
        self._phases: list[PhaseTime] = []
        self._at = datetime.now(UTC)
        self.detail = ""
        # Monotonic seconds at which `max-cost` would be passed.
        self.budget_ends_at = self._started + order.budget_seconds if order.budget_seconds is not None else None
        self.log_segments: Callable[[], int] = lambda: 0
        self.checkpoints: Callable[[], int] = lambda: 0
        self.warnings: list[str] = []
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def enter(self, phase: Phase, detail: str = "") -> None:
        """The next phase begins now."""
        self._phases = list(self.phases())
        self._phase, self._phase_since, self._at, self.detail = phase, time.monotonic(), datetime.now(UTC), detail
        self._wake.set()

    def phases(self) -> tuple[PhaseTime, ...]:
        """All phases so far, the current one with the seconds it has taken until now."""
        current = PhaseTime(
            phase=self._phase, started_at=self._at, seconds=round(time.monotonic() - self._phase_since, 3)
        )
        return (*self._phases, current)

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join(30)

    def _beat_on(self) -> None:
        while True:
            is_last = self._closing
            # S3 may be away: the heartbeat goes stale, the launcher looks at EC2, the training goes on.
            try:
                self._write()
                self._look_for_stop()
                self._look_for_budget()
            except Exception as error:  # noqa: BLE001
                print(f"heartbeat: {error!r}", file=sys.stderr)
            if is_last:
                return
            is_long = time.monotonic() - self._started > _SLOW_AFTER_SECONDS
            self._wake.wait(_SLOW_SECONDS if is_long else _FAST_SECONDS)
            self._wake.clear()

    def _write(self) -> None:
        self._beat += 1
        status = Status(
            run_id=self._order.run_id,
            attempt=self._order.attempt,
            beat=self._beat,
            phase=self._phase,
            at=datetime.now(UTC),
            phases=self.phases(),
            log_segments=self.log_segments(),
            checkpoints=self.checkpoints(),
            detail=self.detail,
            warnings=tuple(self.warnings),
        )
        self._bucket.put_document(self._bucket.own.status, status)

    def budget_left(self) -> float:
        """Seconds; without end where there is no budget."""
        return float("inf") if self.budget_ends_at is None else self.budget_ends_at - time.monotonic()

    def _look_for_budget(self) -> None:
        """Whoever settles works out anew, at the prices there really were, how long this may go on."""
        if self.budget_ends_at is None:
            return
        stored = self._bucket.get(self._bucket.run.budget(self._order.attempt))
        if stored is not None:
            until = Budget.model_validate_json(stored).until
            self.budget_ends_at = time.monotonic() + (until - datetime.now(UTC)).total_seconds()

    def _look_for_stop(self) -> None:
        if self._is_stopped:
            return
        stored = self._bucket.get(self._bucket.run.stop)
        if stored is not None and Stop.model_validate_json(stored).attempt >= self._order.attempt:
            self._is_stopped = True
            self._on_stop()
