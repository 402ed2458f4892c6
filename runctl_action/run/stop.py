"""Ending a run because somebody asked for it: politely by stop.json, or at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from runctl_action.cloud.instances import Instances
from runctl_action.cloud.store import Store
from runctl_action.contract.documents import Stop
from runctl_action.contract.layout import Layout
from runctl_action.run.observe import Observation

# An instance that was asked for shows up within seconds, or not at all.
_UNANSWERED_SECONDS = 10.0


def request_stop(store: Store, layout: Layout, run_id: str, attempt: int, by: str, now: datetime) -> None:
    """Writes that somebody asked to stop `attempt`, and one that is opened at this moment: the host and every settler
    act on it."""
    attempt = max(1, attempt)
    while True:
        store.put(layout.run(run_id).stop, Stop(by=by, attempt=attempt, at=now).to_json())
        if store.size(layout.run(run_id).claim(attempt + 1)) is None:
            return
        attempt += 1


def terminate_at_once(
    instances: Instances, seen: Observation, *, sleep: Callable[[float], None], monotonic: Callable[[], float]
) -> tuple[str, ...]:
    """Ends every instance that carries the run's tag, without a grace; the ids. What was launched, answered or not, is
    looked up by that tag until EC2 shows it, for at most 10 s."""
    launched = {offer.instance_id for attempt in seen.attempts for offer in attempt.tried if offer.instance_id}
    going_on = [offer for attempt in seen.attempts if attempt.end is None for offer in attempt.tried]
    awaited = {offer.instance_id for offer in going_on if offer.instance_id}
    is_unanswered = any(offer.instance_id is None and offer.error_code is None for offer in going_on)
    deadline = monotonic() + _UNANSWERED_SECONDS
    ended: list[str] = []
    while True:
        shown = instances.of_run(seen.spec.run_id)
        alive = [i.id for i in shown if i.is_alive]
        instances.terminate(alive)
        ended += alive
        ids = {i.id for i in shown}
        if (awaited <= ids and (ids - launched or not is_unanswered)) or monotonic() > deadline:
            return tuple(ended)
        sleep(0.5)
