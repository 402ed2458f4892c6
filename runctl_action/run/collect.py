"""What launchers left behind: every open run settled as far as it goes, and every instance of ours that must not be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from runctl_action.cloud.instances import Instance, Instances
from runctl_action.cloud.store import Store
from runctl_action.contract.layout import RUN_ID, TAG_RUN, Layout
from runctl_action.contract.reports import Report
from runctl_action.errors import CloudError, RunctlError
from runctl_action.run import actions, decide
from runctl_action.run.settle import Settler

# A host that is about to be started is waited for this long: its first lease is short, and the next `collect` far off.
_PATIENCE_SECONDS = 300.0
_ROUND_SECONDS = 1.0
# Between the marker of a run and its spec there is one request of a launcher's.
_UNWRITTEN = timedelta(minutes=10)


@dataclass(frozen=True)
class Collected:
    """One run after it was settled: its report, or why it could not be; or, in a dry run, what would be done."""

    run_id: str
    report: Report | None = None
    error: RunctlError | None = None
    would: str = ""


@dataclass
class Collector:
    """`settler_of(run_id)` is who carries a run on. Three at once are harmless: each act is done once."""

    store: Store
    instances: Instances
    layout: Layout
    settler_of: Callable[[str], Settler]
    note: Callable[[str], None]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]

    def collect(self, *, dry_run: bool = False) -> list[Collected]:
        """Touches only what carries our tags and this bucket's name, and runs that are in it."""
        alive = self.instances.with_our_tags(self.store.bucket)
        opened = self._opened(dry_run=dry_run)
        tagged = {instance.tags.get(TAG_RUN, "") for instance in alive} - set(opened)
        known = [run_id for run_id in sorted(tagged) if self._is_run(run_id)]
        strays = [i for i in alive if i.tags.get(TAG_RUN, "") in tagged - set(known)]
        failed = self._end_strays(strays, dry_run=dry_run)
        settlers = {run_id: self.settler_of(run_id) for run_id in [*opened, *known] if RUN_ID.match(run_id)}
        if dry_run:
            return [self._look(run_id, settler) for run_id, settler in settlers.items()]
        return [*failed, *self._settle(settlers)]

    def _opened(self, *, dry_run: bool) -> list[str]:
        """The runs that have a marker. A launcher that was killed before it wrote the spec left nothing but that."""
        opened = []
        for item in list(self.store.list(self.layout.open_prefix())):
            run_id = item.key.rsplit("/", 1)[-1]
            if self._is_run(run_id):
                opened.append(run_id)
            elif self.now() - item.modified > _UNWRITTEN and not dry_run:
                self.store.delete(item.key)
        return opened

    def _is_run(self, run_id: str) -> bool:
        return bool(RUN_ID.match(run_id)) and self.store.size(self.layout.run(run_id).spec) is not None

    def _end_strays(self, strays: list[Instance], *, dry_run: bool) -> list[Collected]:
        """Instances whose run is not in this bucket (or below another prefix of it): only their deadline is known. The
        result: those that could not be ended."""
        failed = []
        for instance in strays:
            if instance.deadline is None or instance.deadline > self.now():
                continue
            self.note(f"{'would terminate' if dry_run else 'terminating'} {instance.id}: past its deadline")
            if dry_run:
                continue
            try:
                self.instances.terminate([instance.id])
            except RunctlError as error:
                failed.append(Collected(instance.tags.get(TAG_RUN, ""), error=error))
        return failed

    def _look(self, run_id: str, settler: Settler) -> Collected:
        try:
            seen = settler.observe()
            return Collected(run_id, settler.report(seen), would=actions.describe(decide.decide(seen)))
        except Exception as error:  # noqa: BLE001  - whatever one run's documents bring about is not the others' matter
            return Collected(run_id, error=_as_ours(error))

    def _settle(self, settlers: dict[str, Settler]) -> list[Collected]:
        """Round after round: a run that boots does not hold up the others."""
        settled: dict[str, Collected] = {}
        waiting = dict(settlers)
        deadline = self.monotonic() + _PATIENCE_SECONDS
        while waiting:
            for run_id, settler in list(waiting.items()):
                try:
                    report, how_far = settler.advance()
                except Exception as error:  # noqa: BLE001  - the same
                    settled[run_id], how_far = Collected(run_id, error=_as_ours(error)), "done"
                else:
                    settled[run_id] = Collected(run_id, report)
                if how_far != "soon" or self.monotonic() > deadline:
                    del waiting[run_id]
            if waiting:
                self.sleep(_ROUND_SECONDS)
        return list(settled.values())


def _as_ours(error: Exception) -> RunctlError:
    """A document that is none of ours must not keep other runs from being settled, nor a defect that it finds in us."""
    if isinstance(error, RunctlError):
        return error
    if not isinstance(error, ValueError):
        return RunctlError(f"a defect of ours, sorry: {error!r}")
    return CloudError(f"its documents in the bucket cannot be read: {str(error).splitlines()[0]}")
