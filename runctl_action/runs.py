"""The commands about runs that are there: looked at, followed, stopped, collected."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from runctl_action.arguments import Parsed
from runctl_action.contract.layout import RUN_ID, TAG_RUN
from runctl_action.contract.reports import Log, Report
from runctl_action.errors import BucketError, Cancelled, InstanceBusy, UsageError
from runctl_action.report import meaning, terminal
from runctl_action.wiring import Cloud, me, open_cloud, settler_of

if TYPE_CHECKING:
    from runctl_action.github.connection import Connection
    from runctl_action.github.posting import Poster
    from runctl_action.run.observe import Knowledge, Observation
    from runctl_action.run.settle import Progress, Settler


def report(parsed: Parsed, environ: MutableMapping[str, str]) -> int:
    """Shows a run as it is now, without acting on it."""
    with open_cloud(parsed, environ) as cloud, shown_progress() as progress:
        run_id = find_run(cloud, parsed.run)
        settler = settler_of(cloud, run_id, knowing_nothing(), progress, from_start=False)
        shown = settler.look()
    return tell(parsed, shown)


def logs(parsed: Parsed, environ: MutableMapping[str, str]) -> int:
    """Prints a run's log to stdout; with --follow until the run is over. With --json it is printed then, whole."""
    with open_cloud(parsed, environ) as cloud:
        run_id = find_run(cloud, parsed.run)
        collected = io.StringIO()
        printer = terminal.PlainProgress(collected) if parsed.json else terminal.progress_for(sys.stdout, environ)
        settler = settler_of(cloud, run_id, knowing_nothing(), printer, from_start=True)
        shown = settler.look()
        while parsed.follow and shown.outcome is None:
            time.sleep(2)
            shown = settler.patiently(settler.look)
        printer.finish()
    if parsed.json:
        lines = tuple(collected.getvalue().split("\n")[:-1])
        print(Log(run_id=run_id, outcome=shown.outcome, lines=lines).model_dump_json())
    return 0


def list_runs(parsed: Parsed, environ: MutableMapping[str, str]) -> int:
    """One line a run, newest first: state, age, cost so far, script, branch."""
    with open_cloud(parsed, environ) as cloud:
        with shown_progress() as progress:
            shown = []
            for run_id, is_open in _runs(cloud):
                try:
                    found = _final_report(cloud, run_id, is_open=is_open) or _report_as_of_now(cloud, run_id, progress)
                except BucketError as error:
                    # What one run has in the bucket is not the others' matter.
                    progress.warn(f"{run_id} cannot be shown: {error}")
                else:
                    shown.append(found)
        shown.sort(key=lambda item: item.requested_at, reverse=True)
        if parsed.json:
            print(json.dumps([item.model_dump(mode="json") for item in shown]))
        else:
            terminal.print_runs(shown, sys.stdout)
    return 0


def stop(parsed: Parsed, environ: MutableMapping[str, str]) -> int:
    """Asks a run to stop, and settles it to its end; with --force its instance is terminated first. Raises
    InstanceBusy when an instance was named on which a run goes on."""
    from runctl_action.run.observe import utc_now
    from runctl_action.run.stop import request_stop, terminate_at_once

    with open_cloud(parsed, environ) as cloud, shown_progress() as progress:
        names_instance = re.fullmatch(r"i-[0-9a-f]{8,17}", parsed.run)
        run_id = _run_of_instance(cloud, parsed.run) if names_instance else find_run(cloud, parsed.run)
        settler = settler_of(cloud, run_id, knowing_nothing(), progress, from_start=False)
        seen = settler.observe()
        if names_instance and not seen.is_finished and not parsed.force:
            since = seen.last.record.launched_at if seen.last and seen.last.record else seen.spec.requested_at
            raise InstanceBusy(
                f"instance {parsed.run} is busy with {run_id} since {since.isoformat(timespec='seconds')}",
                f"let it save its last checkpoint: runctl-action stop {run_id}; or terminate it at once, with --force",
            )
        request_stop(cloud.store, cloud.layout, run_id, len(seen.attempts), me(), utc_now())
        if parsed.force:
            ended = terminate_at_once(cloud.instances, seen, sleep=time.sleep, monotonic=time.monotonic)
            progress.note(f"terminated: {', '.join(ended) or 'there was no instance'}")
        elif seen.is_finished:
            progress.note(f"run {run_id} is over already")
        shown = settled(settler, cloud, run_id)
    tell(parsed, shown)
    return 0


def collect(parsed: Parsed, environ: MutableMapping[str, str]) -> int:
    """Settles every open run once: starts, new attempts, terminations, reports."""
    from runctl_action.run.collect import Collector
    from runctl_action.run.observe import utc_now

    with open_cloud(parsed, environ) as cloud, shown_progress() as progress:
        poster = poster_of(cloud, progress.warn)
        collector = Collector(
            store=cloud.store,
            instances=cloud.instances,
            layout=cloud.layout,
            settler_of=lambda run_id: settler_of(
                cloud, run_id, knowing_nothing(), progress, poster=poster, from_start=False
            ),
            note=progress.note,
            now=utc_now,
            monotonic=time.monotonic,
            sleep=time.sleep,
        )
        found = collector.collect(dry_run=parsed.dry_run)
        for item in found:
            if item.error:
                progress.warn(f"{item.run_id}: {item.error}")
            elif item.report:
                is_over = f"{item.report.outcome or item.report.phase}"
                progress.note(f"{item.run_id}: {is_over}" + (f"; would {item.would}" if item.would else ""))
        if not found:
            progress.note("no run is open")
    if parsed.json:
        print(json.dumps([item.report.model_dump(mode="json") for item in found if item.report]))
    return max((item.error.exit_code for item in found if item.error), default=0)


def settled(
    settler: Settler, cloud: Cloud, run_id: str, *, until: Callable[[Observation], bool] | None = None
) -> Report:
    """Settles; the first ^C asks the run to stop and waits for its end, the second ends its instances at once."""
    from runctl_action.run.observe import utc_now
    from runctl_action.run.stop import request_stop, terminate_at_once

    try:
        return settler.settle(until) if until else settler.settle()
    except KeyboardInterrupt:
        try:
            settler.progress.warn(
                "stopping: the training gets its grace for a last checkpoint; ^C once more terminates at once"
            )
            seen = settler.patiently(settler.observe)
            settler.patiently(
                lambda: request_stop(cloud.store, cloud.layout, run_id, len(seen.attempts), "^C", utc_now())
            )
            return settler.settle()
        except KeyboardInterrupt:
            terminate_at_once(cloud.instances, settler.observe(), sleep=time.sleep, monotonic=time.monotonic)
            raise Cancelled(f"run {run_id} was cancelled, its instances are terminated") from None


def poster_of(cloud: Cloud, tell: Callable[[str], None]) -> Poster | None:
    """Who posts on GitHub, where there is a token to do it with."""
    token = cloud.settings.github_token
    if token is None:
        return None
    from runctl_action.github.posting import Poster

    def connect(repository: str, api_url: str) -> Connection:
        from runctl_action.github.connection import Connection

        return Connection(repository, token, api_url=api_url)

    return Poster(connect, tell, secrets=cloud.secrets())


def find_run(cloud: Cloud, given: str) -> str:
    """The run id that `given` is, or is the only beginning of."""
    found = sorted(_run_ids(cloud, given))
    if given in found:
        return given
    if not found:
        raise UsageError(
            f"there is no run {given!r} in {cloud.store.uri(cloud.layout.run('x').base[:-1])}",
            "list the runs there are: runctl-action list",
        )
    if len(found) > 1:
        raise UsageError(
            f"{given!r} is the beginning of {len(found)} runs: {', '.join(found[:5])}{', …' * (len(found) > 5)}",
            "give more of the run id",
        )
    return found[0]


def _run_ids(cloud: Cloud, beginning: str = "") -> list[str]:
    """Of the runs whose id begins like that; no others are listed."""
    prefix = cloud.layout.run("x").base[:-1]
    keys = (item.key for item in cloud.store.list(prefix + beginning) if item.key.endswith("/spec.json"))
    return [run_id for run_id in (key.removeprefix(prefix).split("/")[0] for key in keys) if RUN_ID.match(run_id)]


def _runs(cloud: Cloud) -> Iterator[tuple[str, bool]]:
    """Every run id, and whether its run is open."""
    marked = {item.key for item in cloud.store.list(cloud.layout.open_prefix())}
    for run_id in _run_ids(cloud):
        yield run_id, cloud.layout.open_marker(run_id) in marked


def _final_report(cloud: Cloud, run_id: str, *, is_open: bool) -> Report | None:
    """What is written of a run that is closed: one call, where an observation takes a dozen."""
    stored = None if is_open else cloud.store.get(cloud.layout.run(run_id).report)
    try:
        found = Report.model_validate_json(stored.data) if stored else None
    except ValueError:
        return None  # an observation says what is wrong with it
    return found if found and found.outcome else None


def _report_as_of_now(cloud: Cloud, run_id: str, progress: Progress) -> Report:
    settler = settler_of(cloud, run_id, knowing_nothing(), progress, from_start=False)
    return settler.report(settler.observe())


def _run_of_instance(cloud: Cloud, instance_id: str) -> str:
    """The run whose instance it is; of one that a user gave to a run, the run is named by its host's lock alone."""
    instance = cloud.instances.find(instance_id)
    if instance is None or not instance.is_alive:
        raise UsageError(f"there is no instance {instance_id} that could be ended", "runctl-action list")
    run_id = instance.tags.get(TAG_RUN)
    if run_id is None:
        raise UsageError(
            f"instance {instance_id} was not launched by a run, so it is not ended by us",
            "end what runs on it by its run id: runctl-action list",
        )
    return find_run(cloud, run_id)


def tell(parsed: Parsed, shown: Report) -> int:
    """Writes the report where it was asked for; the exit code."""
    if parsed.report:
        from runctl_action.report import markdown

        Path(parsed.report).write_text(markdown.render(shown), encoding="utf-8")
    if parsed.json:
        print(shown.model_dump_json())
    else:
        terminal.print_report(shown, sys.stderr)
    return meaning.exit_code(shown.outcome, shown.cause) if shown.outcome else 0


@contextlib.contextmanager
def shown_progress() -> Iterator[terminal.Progress]:
    progress = terminal.progress_for(sys.stderr, os.environ)
    try:
        yield progress
    finally:
        progress.finish()


def knowing_nothing() -> Knowledge:
    from runctl_action.run.observe import Knowledge

    return Knowledge(me=me())
