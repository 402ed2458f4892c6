"""The one loop: observe, decide, act. `train`, `collect`, `stop` and a resumed launcher all run it.

A settler that is killed at any instant loses nothing: the next one observes the same run and goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeVar

from runctl_action.contract.reports import Report
from runctl_action.errors import CloudError, CredentialsError, PermissionDenied, Unavailable
from runctl_action.run import actions, decide
from runctl_action.run.act import Actor
from runctl_action.run.follow import Follower
from runctl_action.run.observe import Observation, Observer
from runctl_action.run.summary import lacks_checkpoint, summarize

# How long AWS may be without an answer before we say that we cannot go on.
_PATIENCE_SECONDS = 900.0
_ASK_AGAIN_SECONDS, _ASK_AGAIN_AT_MOST = 1.0, 30.0

# How far a run got: over; under way on its host; or between the two, where a moment's patience brings it on.
Advanced = Literal["done", "under way", "soon"]
_T = TypeVar("_T")


class Progress(Protocol):
    """Who shows how far a run is; `report.terminal` has the ones for people."""

    def phase(self, name: str, detail: str = "") -> None: ...
    def output(self, text: str) -> None: ...
    def warn(self, message: str) -> None: ...
    def note(self, message: str) -> None: ...


@dataclass
class Settler:
    """One run and everything needed to carry it on. `clock` and `monotonic` are seams for tests; `on_look` is shown
    each observation, with what makes a report of it."""

    observer: Observer
    actor: Actor
    follower: Follower
    progress: Progress
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    on_look: Callable[[Observation, Callable[[], Report]], None] = lambda *_: None
    _phase: str = field(default="", init=False)
    _phase_since: float = field(default=0.0, init=False)
    _said: set[str] = field(default_factory=set, init=False)
    _denied_since: float = field(default=0.0, init=False)

    def settle(self, until: Callable[[Observation], bool] = lambda _: False) -> Report:
        """Carries the run on until it is done, or `until` holds; the report as of then. Raises Unavailable when AWS has
        not answered for 15 min, and what else keeps us from going on."""
        while True:
            seen = self.patiently(self.observe)
            self._show(seen)
            action = decide.decide(seen)
            if isinstance(action, actions.Done) or until(seen):
                return self.report(seen)
            try:
                self.patiently(lambda: self._act(action, seen))  # noqa: B023  - it is called before the next round
            except PermissionDenied as error:
                if not self._can_bear(action, seen, error):
                    raise
                if isinstance(action, actions.Close):
                    return self.report(seen)

    def advance(self) -> tuple[Report, Advanced]:
        """Does everything that can be done without waiting; the report as of then, and how far the run is."""
        before: actions.Action | None = None
        while True:
            seen = self.observe()
            action = decide.decide(seen)
            if isinstance(action, actions.Done):
                return self.report(seen), "done"
            if isinstance(action, actions.Launch) and action == before:
                return self.report(seen), "soon"  # another offer, or EC2 says later: others come first
            before = action
            if isinstance(action, actions.Wait):
                return self.report(seen), "soon" if _is_soon(seen) else "under way"
            self._act(action, seen)
            if isinstance(action, actions.Probe) and action.instance_id not in self.actor.knowledge.platforms:
                return self.report(seen), "soon"

    def look(self) -> Report:
        """Shows the log as far as it is there, and does nothing; the report as of now."""
        seen = self.observe()
        self.follower.follow(seen)
        return self.report(seen)

    def observe(self) -> Observation:
        return self.observer.observe(self.clock(), self.monotonic())

    def report(self, seen: Observation) -> Report:
        """The final report as it was written, or one as of now."""
        if seen.is_finished and seen.report:
            return seen.report
        pricing = self.actor.pricing
        receipt = pricing.receipt(seen)
        return summarize(
            seen,
            uri=self.actor.store.uri,
            log_tail=self.follower.tail(),
            receipt=receipt,
            unpriced=pricing.problems,
        )

    def patiently(self, do: Callable[[], _T]) -> _T:
        """What `do` gives, asked again while AWS does not answer: the run goes on without us meanwhile."""
        since, pause = self.monotonic(), _ASK_AGAIN_SECONDS
        while True:
            try:
                return do()
            except Unavailable as error:
                if self.monotonic() - since > _PATIENCE_SECONDS:
                    raise
                self._warn_once(f"{error}; the run goes on, and AWS is asked again")
                self.actor.sleep(pause)
                pause = min(pause * 2, _ASK_AGAIN_AT_MOST)

    def _act(self, action: actions.Action, seen: Observation) -> None:
        """What AWS does not let us do before the training began ends the attempt, and with it its instance."""
        try:
            self.actor.act(action, seen)
        except (Unavailable, CredentialsError):
            raise
        except CloudError as error:
            last = seen.last
            is_ours = last is not None and last.claim.owner == self.actor.knowledge.me
            if last is None or not is_ours or last.end or last.has_started:
                raise
            told = f"{error} ({error.hint})" if error.hint else str(error)
            self.actor.act(actions.EndAttempt(last.number, "failed", "cloud", told), seen)

    def _can_bear(self, action: actions.Action, seen: Observation, error: PermissionDenied) -> bool:
        """What is over stays over, also where we may not clean up behind it: an instance that we may not terminate
        powers itself off, at its end or by its lease, and is waited for."""
        match action:
            case actions.Close():
                self._warn_once(f"{error}; the run is over, and stays in the list of what is open")
                return True
            case actions.Terminate(instance_ids=ids) if seen.last is not None and seen.last.end is not None:
                self._denied_since = self._denied_since or self.monotonic()
                if self.monotonic() - self._denied_since > _PATIENCE_SECONDS:
                    return False
                self._warn_once(f"{error}; {', '.join(ids)} powers itself off, at the latest by its lease")
                self.actor.sleep(5)
                return True
        return False

    def _show(self, seen: Observation) -> None:
        """The launcher's phases; from the first heartbeat on, the host's own."""
        self.on_look(seen, lambda: self.report(seen))
        last = seen.last
        if last and last.has_started:
            self._leave_phase()
            self.follower.follow(seen)
            if last.end is None and (lacking := lacks_checkpoint(last)):
                self._warn_once(lacking)
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

    def _warn_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self.progress.warn(message)

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


def _is_soon(seen: Observation) -> bool:
    """There is a host that is about to be started, or an instance that is about to be gone."""
    last = seen.last
    return last is not None and last.end is None and last.record is not None and not last.has_started
