"""The command. The only place that reads os.environ, the only one that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import dataclasses
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runctl_action import arguments
from runctl_action.contract.documents import Report, Spec
from runctl_action.contract.layout import Layout
from runctl_action.errors import Cancelled, RunctlError, SettingsError, UsageError
from runctl_action.report import meaning, terminal

if TYPE_CHECKING:
    from runctl_action.cloud.instances import Instances
    from runctl_action.cloud.session import Session
    from runctl_action.cloud.store import Store
    from runctl_action.run.observe import Knowledge
    from runctl_action.run.settle import Settler
    from runctl_action.settings import Settings


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
    with _cloud(parsed, environ) as cloud:
        with _progress() as progress:
            report = _trained(parsed, cloud, progress)
        return _tell(parsed, report)


def _trained(parsed: arguments.Parsed, cloud: _Cloud, progress: terminal.Progress) -> Report:
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
        revision=parsed.revision,
        now=utc_now(),
    )
    spec, is_new = request.submit(prepared, cloud.store, cloud.layout)
    _describe(spec, is_new, progress)
    knowledge = Knowledge(me=_me(), can_upload=True)
    knowledge.timings["preparing"] = time.monotonic() - started
    settler = _settler(cloud, spec.run_id, knowledge, progress, upload=prepared.upload_source, from_start=True)
    seen = settler.observer.observe(utc_now(), time.monotonic())
    if seen.is_finished and seen.report:
        if not parsed.again:
            progress.note("this run is over already; this is its report. `--again` opens a new attempt")
            return seen.report
        attempts = len(seen.attempts)
        request.open_again(spec, cloud.store, cloud.layout, attempts=attempts, me=knowledge.me, now=utc_now())
    return _settled(settler, cloud, spec.run_id, until_training=not cloud.settings.wait)


def _settled(settler: Settler, cloud: _Cloud, run_id: str, *, until_training: bool = False) -> Report:
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
    with _cloud(parsed, environ) as cloud, _progress() as progress:
        run_id = _find_run(cloud, parsed.run)
        settler = _settler(cloud, run_id, _knowing_nothing(), progress, from_start=False)
        shown = settler.look()
    return _tell(parsed, shown)


def logs(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Prints a run's log to stdout; with --follow until the run is over."""
    with _cloud(parsed, environ) as cloud:
        run_id = _find_run(cloud, parsed.run)
        printer = terminal.progress_for(sys.stdout, environ)
        settler = _settler(cloud, run_id, _knowing_nothing(), printer, from_start=True)
        shown = settler.look()
        while parsed.follow and shown.outcome is None:
            time.sleep(2)
            shown = settler.look()
        printer.finish()
    return 0


def list_runs(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """One line a run, newest first: state, age, script, branch."""
    with _cloud(parsed, environ) as cloud:
        with _progress() as progress:
            shown = [
                _settler(cloud, run_id, _knowing_nothing(), progress, from_start=False).summary()
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

    with _cloud(parsed, environ) as cloud, _progress() as progress:
        run_id = _find_run(cloud, parsed.run)
        settler = _settler(cloud, run_id, _knowing_nothing(), progress, from_start=False)
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
    with _cloud(parsed, environ) as cloud, _progress() as progress:
        done: list[Report] = []
        for item in list(cloud.store.list(cloud.layout.open_prefix())):
            run_id = item.key.rsplit("/", 1)[-1]
            settler = _settler(cloud, run_id, _knowing_nothing(), progress, from_start=False)
            shown = settler.summary() if parsed.dry_run else settler.settle_once()[0]
            progress.note(f"{run_id}: {shown.outcome or shown.phase}")
            done.append(shown)
    if parsed.json:
        print(json.dumps([item.model_dump(mode="json") for item in done]))
    return 0


def emulator(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Serves an emulated AWS until it is interrupted."""
    server = _emulator_server()
    try:
        return int(server.serve(port=parsed.port or 0, environ=environ, **_emulation(server, parsed)))
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
    "emulator": emulator,
}


@dataclass
class _Cloud:
    settings: Settings
    session: Session
    store: Store
    instances: Instances
    layout: Layout
    environ: Mapping[str, str]


@contextlib.contextmanager
def _cloud(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> Iterator[_Cloud]:
    """Settings and the account they name; with --emulate, an account of its own for as long as this command runs."""
    from runctl_action import settings as all_settings

    with contextlib.ExitStack() as stack:
        root = _root(environ)
        settings = all_settings.load(flags=parsed.flags, environ=environ, root=root)
        if parsed.emulate:
            if not settings.wait:
                raise SettingsError(
                    "`wait: false` with --emulate: the emulator ends with this command, and the run with it",
                    "start one that stays: runctl-action emulator",
                )
            environ = stack.enter_context(_emulated(parsed, environ, settings.region))
            flags = parsed.flags | _emulated_account(settings, environ)
            settings = all_settings.load(flags=flags, environ=environ, root=root)
        from runctl_action.cloud import session as cloud_session
        from runctl_action.cloud.instances import Instances
        from runctl_action.cloud.store import Store

        if not settings.bucket:
            raise SettingsError(
                "no bucket is set: a run keeps its source, log, checkpoints and result in one",
                'set it in runctl.toml: bucket = "my-team-runctl"; without an account: runctl-action train --emulate …',
            )
        session = cloud_session.connect(environ, settings.region)
        stack.callback(session.close)
        yield _Cloud(
            settings,
            session,
            Store(session, settings.bucket),
            Instances(session),
            Layout(prefix=settings.prefix),
            environ,
        )


@contextlib.contextmanager
def _emulated(parsed: arguments.Parsed, environ: Mapping[str, str], region: str | None) -> Iterator[dict[str, str]]:
    server = _emulator_server()
    with (
        server.own_directory() as directory,
        server.Emulator(directory, region=region or "us-east-1", **_emulation(server, parsed)) as emulated,
    ):
        kept = {name: value for name, value in environ.items() if not name.startswith("AWS_")}
        yield kept | emulated.environ


def _emulation(server: Any, parsed: arguments.Parsed) -> dict[str, Any]:
    """What was chosen about the emulator. Raises UsageError."""
    try:
        server.Faults(parsed.faults)
    except (ValueError, OSError) as error:
        raise UsageError(f"--fault: {error}", "docs/faults.md has them all") from None
    try:
        delays = {name: float(seconds) for name, _, seconds in (delay.partition("=") for delay in parsed.delays)}
        chosen = server.Delays(**delays)
    except (TypeError, ValueError):
        names = ", ".join(field.name for field in dataclasses.fields(server.Delays))
        raise UsageError(
            f"--delay {' '.join(parsed.delays)}: it is NAME=SECONDS, and NAME one of {names}", "--delay running=20"
        ) from None
    return {"faults": parsed.faults, "delays": chosen, "seconds_per_minute": parsed.hour / 60}


def _emulated_account(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    """Overrides for what the settings name of a real account: in an emulated one there is no such thing."""
    ami = settings.ami if settings.ami and settings.ami.startswith("/") else None
    account = {"bucket": environ["RUNCTL_BUCKET"], "instance-profile": environ["RUNCTL_INSTANCE_PROFILE"], "ami": ami}
    return account | {"subnets": (), "security-groups": (), "allowed-account-ids": ()}


def _emulator_server() -> Any:
    try:
        from runctl_action.emulator import server
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the emulator needs a package that is not installed: {error.name}", "pip install 'runctl-action[emulator]'"
        ) from error
    return server


def _settler(
    cloud: _Cloud,
    run_id: str,
    knowledge: Knowledge,
    progress: terminal.Progress,
    *,
    upload: Callable[[], Any] | None = None,
    from_start: bool,
) -> Settler:
    from runctl_action.cloud.commands import Commands
    from runctl_action.run import tools
    from runctl_action.run.act import Actor
    from runctl_action.run.follow import Follower
    from runctl_action.run.observe import Observer, utc_now
    from runctl_action.run.settle import Settler

    follower = Follower(
        cloud.store,
        cloud.layout,
        output=progress.output,
        phase=progress.phase,
        warn=progress.warn,
        from_start=from_start,
    )
    actor = Actor(
        store=cloud.store,
        instances=cloud.instances,
        commands=Commands(cloud.session),
        layout=cloud.layout,
        region=cloud.session.region,
        run_id=run_id,
        knowledge=knowledge,
        upload_source=upload,
        warn=progress.warn,
        now=utc_now,
        monotonic=time.monotonic,
        sleep=time.sleep,
        cache=tools.cache_directory(cloud.environ),
        log_tail=follower.tail,
    )
    observer = Observer(cloud.store, cloud.instances, cloud.layout, run_id, knowledge)
    return Settler(observer, actor, follower, progress, utc_now, time.monotonic)


def _find_run(cloud: _Cloud, given: str) -> str:
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


def _run_ids(cloud: _Cloud) -> list[str]:
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


def _root(environ: Mapping[str, str]) -> Path | None:
    from runctl_action.errors import NotARepository
    from runctl_action.source.repository import open_repository

    try:
        return open_repository(Path.cwd(), environ).root
    except NotARepository:
        return None


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _defect() -> int:
    log = Path(tempfile.gettempdir()) / f"runctl-action-{os.getpid()}.log"
    log.write_text(traceback.format_exc(), encoding="utf-8")
    print(f"runctl-action: a defect of ours, sorry: {sys.exc_info()[1]!r}", file=sys.stderr)
    print(f"  → the details are in {log}; runs go on without us, see: runctl-action list", file=sys.stderr)
    return RunctlError.exit_code
