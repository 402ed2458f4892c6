"""The command. The only place that reads os.environ, the only one that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

from runctl_action import action, arguments, runs, train
from runctl_action.errors import Cancelled, CloudError, RunctlError, UsageError
from runctl_action.report import terminal
from runctl_action.wiring import emulation, emulator_server, load_settings, open_cloud


def run(argv: Sequence[str], environ: MutableMapping[str, str] = os.environ) -> int:
    """Runs one command line; the exit code (design: 0 to 7, 130, and 70 for a defect of ours)."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        parsed = arguments.parse(argv)
        return _COMMANDS[parsed.command](parsed, environ)
    except RunctlError as error:
        print(_harmless(f"runctl-action: {error}"), file=sys.stderr)
        if error.hint:
            print(_harmless(f"  → {error.hint}"), file=sys.stderr)
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


def doctor(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Looks at everything that a run stands on, and spends nothing."""
    from runctl_action.contract.reports import Finding
    from runctl_action.doctor.checks import CHECKS
    from runctl_action.doctor.checkup import Facts, examine
    from runctl_action.report import checkup as printed

    def tell(finding: Finding) -> None:
        if not parsed.json:
            printed.print_finding(finding, sys.stdout)

    with contextlib.ExitStack() as stack:
        facts = Facts(
            cwd=Path.cwd(),
            environ=environ,
            revision=parsed.revision,
            load=lambda: load_settings(parsed, environ, stack),
            cache=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runctl-doctor-"))),
        )
        stack.callback(facts.close)
        found = examine(CHECKS, facts, tell)
    if parsed.json:
        print(found.model_dump_json())
    else:
        printed.print_summary(found, sys.stdout)
    return found.exit_code


def hook(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Installs, uninstalls or runs the pre-push hook; 0 from `run` lets the push through."""
    from runctl_action.hook import install, pre_push

    if parsed.action == "run":
        return pre_push.run(parsed.words, environ, sys.stdin.buffer, sys.stderr)
    if parsed.action == "launch":
        return _launch(Path(parsed.words[0]), environ)
    if parsed.action == "price":
        return _price(*parsed.words, environ=environ)
    change = install.install if parsed.action == "install" else install.uninstall
    change(Path.cwd(), environ, lambda line: print(f"runctl-action: {line}", file=sys.stderr), is_dry=parsed.dry_run)
    return 0


def _price(region: str, instance_type: str, *, environ: Mapping[str, str]) -> int:
    """Asks AWS for one list price, and leaves it where the hook looks for it."""
    from runctl_action.cloud import session as cloud_session
    from runctl_action.cloud.prices import Prices
    from runctl_action.run import tools

    with contextlib.closing(cloud_session.connect(environ, region)) as session:
        return 0 if Prices(session, tools.cache_directory(environ)).on_demand(instance_type) else CloudError.exit_code


def _launch(path: Path, environ: MutableMapping[str, str]) -> int:
    """What the hook leaves behind, detached: trains what was pushed, and follows it to its end."""
    from runctl_action.contract.documents import Origin
    from runctl_action.github import marker
    from runctl_action.hook.training import answering, read_order
    from runctl_action.run.observe import utc_now

    order, started = read_order(path), utc_now()
    parsed = arguments.Parsed(command="train", flags=order.flags, revision=order.commit)
    with answering(order) as accept, open_cloud(parsed, environ) as cloud, runs.shown_progress() as progress:

        def origin(name: str) -> Origin:
            assert order.place is not None
            key = marker.key(workflow="pre-push", job="", leg="", name=name)
            return Origin(
                **order.place._asdict(),
                comment_key=key,
                comment=cloud.settings.comment,
                looks_up=True,
                head_commit=order.commit,
            )

        begun = train.begin(
            parsed,
            cloud,
            progress,
            origin=origin if order.place else None,
            branch=order.branch,
            poster=runs.poster_of(cloud, progress.warn),
        )
        accept(begun.spec.run_id, is_new=begun.spec.requested_at >= started)
        return runs.tell(parsed, runs.settled(begun.settler, cloud, begun.spec.run_id))


def emulator(parsed: arguments.Parsed, environ: MutableMapping[str, str]) -> int:
    """Serves an emulated AWS until it is interrupted."""
    server = emulator_server()
    try:
        return int(server.serve(port=parsed.port or 0, environ=environ, **emulation(server, parsed)))
    except SystemExit:
        # werkzeug has said why on stderr, and ended the process.
        raise UsageError(f"port {parsed.port} cannot be listened on", "leave --port out: a free one is taken") from None


_COMMANDS: Mapping[str, Callable[[arguments.Parsed, MutableMapping[str, str]], int]] = {
    "train": train.train,
    "report": runs.report,
    "logs": runs.logs,
    "list": runs.list_runs,
    "stop": runs.stop,
    "collect": runs.collect,
    "quote": quote,
    "doctor": doctor,
    "hook": hook,
    "emulator": emulator,
    "action": action.action,
    "action-post": action.action_post,
}


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _harmless(message: str) -> str:
    """What a message quotes, of a repository's files for one, must not play with the terminal."""
    from runctl_action.report.visible import visible

    return "\n".join(map(visible, message.split("\n")))


def _defect() -> int:
    log = Path(tempfile.gettempdir()) / f"runctl-action-{os.getpid()}.log"
    log.write_text(traceback.format_exc(), encoding="utf-8")
    print(f"runctl-action: a defect of ours, sorry: {sys.exc_info()[1]!r}", file=sys.stderr)
    print(f"  → the details are in {log}; runs go on without us, see: runctl-action list", file=sys.stderr)
    return RunctlError.exit_code
