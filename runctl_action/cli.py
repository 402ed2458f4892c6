"""The command. The only place that reads os.environ, the only one that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runctl_action import arguments
from runctl_action.contract.documents import Spec
from runctl_action.contract.reports import Report
from runctl_action.errors import Cancelled, RunctlError, UsageError
from runctl_action.report import meaning, terminal
from runctl_action.wiring import Cloud, emulation, emulator_server, open_cloud, settler_of

if TYPE_CHECKING:
    from runctl_action.run.observe import Knowledge
    from runctl_action.run.settle import Settler


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
        with _progress() as progress:
            report = _trained(parsed, cloud, progress)
        return _tell(parsed, report)


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
    )
    spec, is_new = request.submit(prepared, cloud.store, cloud.layout)
    _describe(spec, is_new, progress)
    knowledge = Knowledge(me=_me(), can_upload=True)
    knowledge.timings["preparing"] = time.monotonic() - started
    settler = settler_of(cloud, spec.run_id, knowledge, progress, upload=prepared.upload_source, from_start=True)
    seen = settler.observer.observe(utc_now(), time.monotonic())
    if seen.is_finished and seen.report:
        if not parsed.again:
            progress.note("this run is over already; this is its report. `--again` opens a new attempt")
            return seen.report
        attempts = len(seen.attempts)
        request.open_again(spec, cloud.store, cloud.layout, attempts=attempts, me=knowledge.me, now=utc_now())
    return _settled(settler, cloud, spec.run_id, until_training=not cloud.settings.wait)


def _settled(settler: Settler, cloud: Cloud, run_id: str, *, until_training: bool = False) -> Report:
    """Settles; the first ^C asks the run to stop and waits for its end, the second ends its instances at once."""
    from runctl_action.run.observe import Observation, utc_now
    from runctl_action.run.settle import request_stop

    def far_enough(seen: Observation) -> bool:
        return until_training and seen.last is not None and seen.last.status is not None

    try:
        return settler.settle(until=far_enough)
    except KeyboardInterrupt:
        try:
            settler.progress.warn(
                "stopping: the training gets its grace for a last checkpoint; ^C once more terminates at once"
            )
            seen = settler.observer.observe(utc_now(), time.monotonic())
            request_stop(cloud.store, cloud.layout, run_id, len(seen.attempts), "^C", utc_now())
            return settler.settle()
        except KeyboardInterrupt:
            cloud.instances.terminate(i.id for i in cloud.instances.of_run(run_id) if i.is_alive)
            raise Cancelled(f"run {run_id} was cancelled, its instances are terminated") from None


def report(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Shows a run as it is now, without acting on it."""
    with open_cloud(parsed, environ) as cloud, _progress() as progress:
        run_id = _find_run(cloud, parsed.run)
        settler = settler_of(cloud, run_id, _knowing_nothing(), progress, from_start=False)
        shown = settler.look()
    return _tell(parsed, shown)


def logs(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Prints a run's log to stdout; with --follow until the run is over."""
    with open_cloud(parsed, environ) as cloud:
        run_id = _find_run(cloud, parsed.run)
        printer = terminal.progress_for(sys.stdout, environ)
        settler = settler_of(cloud, run_id, _knowing_nothing(), printer, from_start=True)
        shown = settler.look()
        while parsed.follow and shown.outcome is None:
            time.sleep(2)
            shown = settler.look()
        printer.finish()
    return 0


def list_runs(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """One line a run, newest first: state, age, script, branch."""
    with open_cloud(parsed, environ) as cloud:
        with _progress() as progress:
            shown = [
                settler_of(cloud, run_id, _knowing_nothing(), progress, from_start=False).summary()
                for run_id in _run_ids(cloud)
            ]
        shown.sort(key=lambda item: item.requested_at, reverse=True)
        if parsed.json:
            print(json.dumps([item.model_dump(mode="json") for item in shown]))
        else:
            terminal.print_runs(shown, sys.stdout)
    return 0


def stop(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Asks a run to stop, and settles it to its end."""
    from runctl_action.run.observe import utc_now
    from runctl_action.run.settle import request_stop

    with open_cloud(parsed, environ) as cloud, _progress() as progress:
        run_id = _find_run(cloud, parsed.run)
        settler = settler_of(cloud, run_id, _knowing_nothing(), progress, from_start=False)
        seen = settler.observer.observe(utc_now(), time.monotonic())
        if seen.is_finished and seen.report:
            progress.note(f"run {run_id} is over already")
            ended = seen.report
        else:
            request_stop(cloud.store, cloud.layout, run_id, len(seen.attempts), _me(), utc_now())
            ended = _settled(settler, cloud, run_id)
    _tell(parsed, ended)
    return 0


def collect(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Settles every open run once: starts, new attempts, terminations, reports."""
    with open_cloud(parsed, environ) as cloud, _progress() as progress:
        done: list[Report] = []
        for item in list(cloud.store.list(cloud.layout.open_prefix())):
            run_id = item.key.rsplit("/", 1)[-1]
            settler = settler_of(cloud, run_id, _knowing_nothing(), progress, from_start=False)
            shown = settler.summary() if parsed.dry_run else settler.settle_once()[0]
            progress.note(f"{run_id}: {shown.outcome or shown.phase}")
            done.append(shown)
    if parsed.json:
        print(json.dumps([item.model_dump(mode="json") for item in done]))
    return 0


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
    "report": report,
    "logs": logs,
    "list": list_runs,
    "stop": stop,
    "collect": collect,
    "quote": quote,
    "emulator": emulator,
}


def _find_run(cloud: Cloud, given: str) -> str:
    """The run id that `given` is, or is the only beginning of."""
    found = [run_id for run_id in _run_ids(cloud) if run_id.startswith(given)]
    if given in found:
        return given
    if not found:
        raise UsageError(
            f"there is no run {given!r} in s3://{cloud.store.bucket}", "list the runs there are: runctl-action list"
        )
    if len(found) > 1:
        raise UsageError(
            f"{given!r} is the beginning of {len(found)} runs: {', '.join(found[:5])}", "give more of the run id"
        )
    return found[0]


def _run_ids(cloud: Cloud) -> list[str]:
    prefix = cloud.layout.run("x").base[:-1]
    return [
        item.key.removeprefix(prefix).split("/")[0]
        for item in cloud.store.list(prefix)
        if item.key.endswith("/spec.json")
    ]


def _describe(spec: Spec, is_new: bool, progress: terminal.Progress) -> None:
    what = "run" if is_new else "attached to run"
    progress.note(f"{what} {spec.run_id}: {spec.script} at {spec.commit[:12]} ({spec.branch or 'detached'})")
    progress.note(f"source: {spec.files} files, {spec.bytes} bytes, digest {spec.digest[:16]}, tree {spec.tree[:12]}")
    if spec.dirty:
        what = "trained as they are on disk" if spec.source == "worktree" else "NOT in the commit and not trained"
        shown = ", ".join(spec.dirty[:8]) + (f" and {len(spec.dirty) - 8} more" if len(spec.dirty) > 8 else "")
        progress.warn(f"uncommitted changes, {what}: {shown}")


def _tell(parsed: arguments.Parsed, shown: Report) -> int:
    if parsed.report:
        from runctl_action.report import markdown

        Path(parsed.report).write_text(markdown.render(shown), encoding="utf-8")
    if parsed.json:
        print(shown.model_dump_json())
    else:
        terminal.print_report(shown, sys.stderr)
    return meaning.exit_code(shown.outcome, shown.cause) if shown.outcome else 0


@contextlib.contextmanager
def _progress() -> Iterator[terminal.Progress]:
    progress = terminal.progress_for(sys.stderr, os.environ)
    try:
        yield progress
    finally:
        progress.finish()


def _knowing_nothing() -> Knowledge:
    from runctl_action.run.observe import Knowledge

    return Knowledge(me=_me())


def _me() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _defect() -> int:
    log = Path(tempfile.gettempdir()) / f"runctl-action-{os.getpid()}.log"
    log.write_text(traceback.format_exc(), encoding="utf-8")
    print(f"runctl-action: a defect of ours, sorry: {sys.exc_info()[1]!r}", file=sys.stderr)
    print(f"  → the details are in {log}; runs go on without us, see: runctl-action list", file=sys.stderr)
    return RunctlError.exit_code
