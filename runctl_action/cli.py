"""The command. The only place that reads os.environ, the only one that turns errors into exit codes."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runctl_action import arguments, runs
from runctl_action.contract.documents import Spec
from runctl_action.contract.reports import Report
from runctl_action.errors import Cancelled, RunctlError, UsageError
from runctl_action.report import terminal
from runctl_action.runs import shown_progress, tell
from runctl_action.wiring import Cloud, emulation, emulator_server, me, open_cloud, settler_of, workflow_attempt

if TYPE_CHECKING:
    from runctl_action.run.observe import Observation


def run(argv: Sequence[str], environ: MutableMapping[str, str] = os.environ) -> int:
    """Runs one command line; the exit code (design: 0 to 7, 130, and 70 for a defect of ours)."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        parsed = arguments.parse(argv)
        return _COMMANDS[parsed.command](parsed, environ)
    except RunctlError as error:
        print(f"runctl-action: {error}", file=sys.stderr)
        if error.hint:
            print(f"  → {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("runctl-action: cancelled", file=sys.stderr)
        return Cancelled.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:  # noqa: BLE001  - a defect of ours: the traceback goes to a file, the user gets a sentence
        return _defect()


def train(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Trains one commit and follows it to its end; 0 exactly when the training succeeded."""
    with open_cloud(parsed, environ) as cloud:
        with shown_progress() as progress:
            report = _trained(parsed, cloud, progress)
        return tell(parsed, report)


def _trained(parsed: arguments.Parsed, cloud: Cloud, progress: terminal.Progress) -> Report:
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
        resume=request.resume_of(_other_run(cloud, parsed.resume, progress)) if parsed.resume else None,
    )
    spec, is_new = request.submit(prepared, cloud.store, cloud.layout)
    _describe(spec, is_new, progress)
    knowledge = Knowledge(me=me(), can_upload=True)
    knowledge.timings["preparing"] = time.monotonic() - started
    settler = settler_of(cloud, spec.run_id, knowledge, progress, upload=prepared.upload_source, from_start=True)
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
    return runs.settled(settler, cloud, spec.run_id, until=_is_training if not cloud.settings.wait else None)


def _is_training(seen: Observation) -> bool:
    """Whether nobody has to wait any more for a run that is not followed to its end."""
    last = seen.last
    if last is None or (last.result is None and last.end is None and last.status is None):
        return False
    return last.status is None or last.status.phase in {"training", "collecting", "done"} or last.result is not None


def quote(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Says what a run would cost; there is none."""
    from runctl_action.cloud.subnets import KnownSubnets
    from runctl_action.run import tools
    from runctl_action.run.quote import quote as quoted

    with open_cloud(parsed, environ, needs_bucket=False) as cloud:
        found = quoted(
            cloud.settings,
            cwd=Path.cwd(),
            environ=cloud.environ,
            subnets=KnownSubnets(cloud.session, cloud.instances, tools.cache_directory(cloud.environ)),
            pricing=cloud.pricing,
            revision=parsed.revision,
        )
    if parsed.json:
        print(found.model_dump_json())
    else:
        terminal.print_quote(found, sys.stdout)
    return 0


def emulator(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Serves an emulated AWS until it is interrupted."""
    server = emulator_server()
    try:
        return int(server.serve(port=parsed.port or 0, environ=environ, **emulation(server, parsed)))
    except SystemExit:
        # werkzeug has said why on stderr, and ended the process.
        raise UsageError(f"port {parsed.port} cannot be listened on", "leave --port out: a free one is taken") from None


_COMMANDS: Mapping[str, Callable[[arguments.Parsed, MutableMapping[str, str]], int]] = {
    "train": train,
    "report": runs.report,
    "logs": runs.logs,
    "list": runs.list_runs,
    "stop": runs.stop,
    "collect": runs.collect,
    "quote": quote,
    "emulator": emulator,
}


def _describe(spec: Spec, is_new: bool, progress: terminal.Progress) -> None:
    what = "run" if is_new else "attached to run"
    progress.note(f"{what} {spec.run_id}: {spec.script} at {spec.commit[:12]} ({spec.branch or 'detached'})")
    progress.note(f"source: {spec.files} files, {spec.bytes} bytes, digest {spec.digest[:16]}, tree {spec.tree[:12]}")
    if spec.dirty:
        what = "trained as they are on disk" if spec.source == "worktree" else "NOT in the commit and not trained"
        shown = ", ".join(spec.dirty[:8]) + (f" and {len(spec.dirty) - 8} more" if len(spec.dirty) > 8 else "")
        progress.warn(f"uncommitted changes, {what}: {shown}")


def _other_run(cloud: Cloud, given: str, progress: terminal.Progress) -> Observation:
    """The run that another begins with, as it is now."""
    return settler_of(cloud, runs.find_run(cloud, given), runs.knowing_nothing(), progress, from_start=False).observe()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _defect() -> int:
    log = Path(tempfile.gettempdir()) / f"runctl-action-{os.getpid()}.log"
    log.write_text(traceback.format_exc(), encoding="utf-8")
    print(f"runctl-action: a defect of ours, sorry: {sys.exc_info()[1]!r}", file=sys.stderr)
    print(f"  → the details are in {log}; runs go on without us, see: runctl-action list", file=sys.stderr)
    return RunctlError.exit_code
