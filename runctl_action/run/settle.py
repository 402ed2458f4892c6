"""The one loop: observe, decide, act. `train`, `collect`, `stop` and a resumed launcher all run it.

A settler that is killed at any instant loses nothing: the next one observes the same run and goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from runctl_action.cloud.store import Store
from runctl_action.contract.documents import Stop
from runctl_action.contract.layout import Layout
from runctl_action.contract.reports import Report
from runctl_action.run import decide
from runctl_action.run.act import Actor
from runctl_action.run.follow import Follower
from runctl_action.run.observe import Observation, Observer
from runctl_action.run.summary import summarize


class Progress(Protocol):
    """Who shows how far a run is; `report.terminal` has the ones for people."""

    def phase(self, name: str, detail: str = "") -> None: ...
    def output(self, text: str) -> None: ...
    def warn(self, message: str) -> None: ...
    def note(self, message: str) -> None: ...


@dataclass
class Settler:
    """One run and everything needed to carry it on. `clock` and `monotonic` are seams for tests."""

    observer: Observer
    actor: Actor
    follower: Follower
    progress: Progress
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    _phase: str = field(default="", init=False)
    _phase_since: float = field(default=0.0, init=False)

    def settle(self, until: Callable[[Observation], bool] = lambda _: False) -> Report:
        """Carries the run on until it is done, or `until` holds; the report as of then."""
        while True:
            seen = self.observer.observe(self.clock(), self.monotonic())
            self._show(seen)
            action = decide.decide(seen)
            if isinstance(action, decide.Done) or until(seen):
                return seen.report if seen.is_finished and seen.report else self.report(seen)
            self.actor.act(action, seen)

    def settle_once(self) -> tuple[Report, bool]:
        """Does everything that can be done without waiting; the report as of then, and whether the run is done."""
        while True:
            seen = self.observer.observe(self.clock(), self.monotonic())
            action = decide.decide(seen)
            if isinstance(action, decide.Done | decide.Wait):
                return self.report(seen), isinstance(action, decide.Done)
            self.actor.act(action, seen)

    def look(self) -> Report:
        """Shows the log as far as it is there, and does nothing; the report as of now."""
        seen = self.observer.observe(self.clock(), self.monotonic())
        self.follower.follow(seen)
        return seen.report if seen.is_finished and seen.report else self.report(seen)

    def summary(self) -> Report:
        """The report as of now, without the log."""
        seen = self.observer.observe(self.clock(), self.monotonic())
        return seen.report if seen.is_finished and seen.report else self.report(seen)

    def report(self, seen: Observation) -> Report:
        pricing = self.actor.pricing
        receipt = pricing.receipt(seen)
        return summarize(
            seen,
            uri=self.actor.store.uri,
            log_tail=self.follower.tail(),
            receipt=receipt,
            unpriced=pricing.problems,
        )

    def _show(self, seen: Observation) -> None:
        """The launcher's phases; from the first heartbeat on, the host's own."""
        last = seen.last
        if last and last.has_started:
            self._leave_phase()
            self.follower.follow(seen)
            return
        if last is None or last.end:
            return
        instance = last.instance
        if last.record is None:
            self._enter_phase("launching", "")
        elif instance is not None:
            self._enter_phase(
                "booting", f"{instance.id} · {last.record.instance_type} · {last.record.zone} · {last.record.market}"
            )

    def _enter_phase(self, name: str, detail: str) -> None:
        if name != self._phase:
            self._leave_phase()
            self._phase, self._phase_since = name, self.monotonic()
            self.progress.phase(name, detail)

    def _leave_phase(self) -> None:
        if self._phase:
            timings = self.actor.knowledge.timings
            timings[self._phase] = timings.get(self._phase, 0) + self.monotonic() - self._phase_since
            self._phase = ""


def request_stop(store: Store, layout: Layout, run_id: str, attempt: int, by: str, now: datetime) -> None:
    """Writes that somebody asked to stop: the host and every settler act on it."""
    stop = Stop(by=by, attempt=max(1, attempt), at=now)
    store.put(layout.run(run_id).stop, stop.to_json())
