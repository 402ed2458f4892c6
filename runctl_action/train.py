"""Training one commit: checked, requested, and put into the hands of who settles it."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runctl_action import runs
from runctl_action.arguments import Parsed
from runctl_action.contract.documents import Origin, Spec
from runctl_action.wiring import Cloud, me, open_cloud, settler_of, workflow_attempt

if TYPE_CHECKING:
    from runctl_action.github.posting import Poster
    from runctl_action.run.observe import Observation
    from runctl_action.run.settle import Progress, Settler


@dataclass(frozen=True)
class Begun:
    """A run that was requested (or is attached to); nothing of it is launched until `settler` settles."""

    spec: Spec
    paths: frozenset[str]
    settler: Settler


def train(parsed: Parsed, environ: MutableMapping[str, str]) -> int:
    """Trains one commit and follows it to its end; 0 exactly when the training succeeded."""
    with open_cloud(parsed, environ) as cloud:
        with runs.shown_progress() as progress:
            begun = begin(parsed, cloud, progress)
            until = None if cloud.settings.wait else is_training
            report = runs.settled(begun.settler, cloud, begun.spec.run_id, until=until)
        return runs.tell(parsed, report)


def begin(
    parsed: Parsed,
    cloud: Cloud,
    progress: Progress,
    *,
    origin: Callable[[str], Origin] | None = None,
    branch: str | None = None,
    poster: Poster | None = None,
) -> Begun:
    """Checks the request, writes it down, opens another attempt where one is due. `origin(name)` is where on GitHub it
    was asked for. Raises whatever is wrong with it."""
    from runctl_action.run import request
    from runctl_action.run.observe import Knowledge, utc_now

    started = time.monotonic()
    progress.phase("preparing")
    cloud.session.identity(cloud.settings.allowed_account_ids)
    prepared = request.prepare(
        cloud.settings,
        cwd=Path.cwd(),
        environ=cloud.environ,
        store=cloud.store,
        instances=cloud.instances,
        pricing=cloud.pricing,
        revision=parsed.revision,
        now=utc_now(),
        resume=request.resume_of(_other_run(cloud, other, progress)) if (other := cloud.settings.resume) else None,
        origin=origin,
        branch=branch,
    )
    spec, is_new = request.submit(prepared, cloud.store, cloud.layout)
    _describe(spec, is_new, progress)
    knowledge = Knowledge(me=me(), can_upload=True)
    knowledge.timings["preparing"] = time.monotonic() - started
    settler = settler_of(
        cloud, spec.run_id, knowledge, progress, upload=prepared.upload_source, poster=poster, from_start=True
    )
    seen = settler.observe()
    if seen.is_finished:
        this_attempt = workflow_attempt(cloud.environ)
        if not parsed.again and not request.is_later_attempt(seen, this_attempt):
            progress.note("this run is over already; this is its report. `--again` opens a new attempt")
        else:
            request.open_again(
                spec,
                cloud.store,
                cloud.layout,
                attempts=len(seen.attempts),
                me=knowledge.me,
                now=utc_now(),
                workflow_attempt=this_attempt,
            )
    return Begun(spec, prepared.paths, settler)


def is_training(seen: Observation) -> bool:
    """Whether nobody has to wait any more for a run that is not followed to its end; one that is over is ended."""
    last = seen.last
    if last is None or last.end is not None or last.result is not None or last.status is None:
        return False
    return last.status.phase in {"training", "collecting"}


def _other_run(cloud: Cloud, given: str, progress: Progress) -> Observation:
    """The run that another begins with, as it is now."""
    return settler_of(cloud, runs.find_run(cloud, given), runs.knowing_nothing(), progress, from_start=False).observe()


def _describe(spec: Spec, is_new: bool, progress: Progress) -> None:
    what = "run" if is_new else "attached to run"
    progress.note(f"{what} {spec.run_id}: {spec.script} at {spec.commit[:12]} ({spec.branch or 'detached'})")
    progress.note(f"source: {spec.files} files, {spec.bytes} bytes, digest {spec.digest[:16]}, tree {spec.tree[:12]}")
    if spec.dirty:
        what = "trained as they are on disk" if spec.source == "worktree" else "NOT in the commit and not trained"
        shown = ", ".join(spec.dirty[:8]) + (f" and {len(spec.dirty) - 8} more" if len(spec.dirty) > 8 else "")
        progress.warn(f"uncommitted changes, {what}: {shown}")
