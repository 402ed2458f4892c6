"""What the host says while it works: the phase, that it is alive; and whether it was asked to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from runctl_action.contract.documents import Budget, Order, Phase, PhaseTime, Status, Stop
from runctl_action.host.bucket import HostBucket
from runctl_action.host.saying import say

_FAST_SECONDS, _SLOW_SECONDS, _SLOW_AFTER_SECONDS = 2.0, 5.0, 600.0
# Who reads the result looks at the last status too: it has to come first.
_LAST_SECONDS, _RETRY_SECONDS = 60.0, 2.0


class Heartbeat:
    """Writes status.json at every change of phase and every few seconds; calls `on_stop` once stop.json is there."""

    def __init__(
        self,
        bucket: HostBucket,
        order: Order,
        on_stop: Callable[[], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        every_seconds: float = _FAST_SECONDS,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self._monotonic = monotonic
        self._every = every_seconds
        self._retry = retry_seconds
        self._bucket = bucket
        self._order = order
        self._on_stop = on_stop
        self._is_stopped = False
        self._wake = threading.Event()
        self._closing = False
        self._is_last_written = False
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
        self.redact: Callable[[str], str] = lambda text: text
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
        """Returns when the last status has arrived, or could not be written for a minute."""
        self._closing = True
        self._wake.set()
        # A write that is under way has botocore's own patience.
        self._thread.join(2 * _LAST_SECONDS)

    def ensure_last(self) -> None:
        """After `close`: writes the last status if it could not be written until now. Raises what S3 raises."""
        if not self._is_last_written:
            self._write()
            self._is_last_written = True

    def _beat_on(self) -> None:
        while not self._closing:
            # S3 may be away: the heartbeat goes stale, the launcher looks at EC2, the training goes on.
            try:
                self._write()
                self._look_for_stop()
                self._look_for_budget()
            except Exception as error:  # noqa: BLE001
                say(f"heartbeat: {error!r}")
            is_long = time.monotonic() - self._started > _SLOW_AFTER_SECONDS
            self._wake.wait(_SLOW_SECONDS if is_long else self._every)
            self._wake.clear()
        self._write_last()

    def _write_last(self) -> None:
        """From the thread that writes all of them, so that no earlier one arrives after it."""
        deadline = self._monotonic() + _LAST_SECONDS
        while True:
            try:
                self._write()
            except Exception as error:  # noqa: BLE001
                say(f"heartbeat: the last status: {error!r}")
            else:
                self._is_last_written = True
                return
            if self._monotonic() >= deadline:
                return
            time.sleep(self._retry)

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
            detail=self.redact(self.detail),
            warnings=tuple(map(self.redact, self.warnings)),
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
