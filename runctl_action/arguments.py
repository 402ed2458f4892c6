"""The command line. It is cut at the first `--` before anything is parsed: what follows is the script's as it is."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from runctl_action import __version__
from runctl_action.errors import UsageError
from runctl_action.flags import add_settings
from runctl_action.parsing import did_you_mean

COMMANDS = {
    "train": "train one commit and follow it to its end",
    "report": "print a run's log so far, then its report",
    "logs": "print the log of a run's last attempt",
    "list": "list the runs in the bucket: state, age, cost so far, script, branch",
    "stop": "end a run (SIGTERM, grace, last checkpoint), wait for its end",
    "collect": "settle every open run once (for a schedule)",
    "quote": "say what a run would cost, and spend nothing",
    "doctor": "check everything that a run stands on, say what mends it, and spend nothing",
    "hook": "install, uninstall or run the pre-push hook",
    "emulator": "serve an emulated AWS on this machine",
    "action": "what the action's container runs, in a workflow",
    "action-post": "what it runs in the step after: ends what is left",
}


@dataclass(frozen=True)
class Parsed:
    """One command line. `flags` are settings by their names, only those that were given."""

    command: str
    flags: dict[str, Any] = field(default_factory=dict)
    run: str = ""
    revision: str = "HEAD"
    emulate: bool = False
    json: bool = False
    report: str | None = None
    again: bool = False
    force: bool = False
    follow: bool = False
    dry_run: bool = False
    port: int | None = None
    faults: tuple[str, ...] = ()
    delays: tuple[str, ...] = ()
    hour: float = 3600.0
    action: str = ""
    words: tuple[str, ...] = ()


def parse(argv: Sequence[str]) -> Parsed:
    """Raises UsageError; --help and --version print and end the process with 0."""
    ours, scripts = split(argv)
    parser, commands = _parser()
    _check_command(ours)
    known, surplus = parser.parse_known_args(ours)
    found = vars(known)
    if surplus:
        raise _surplus(surplus, commands[found["command"]])
    flags = {
        name.removeprefix("set:"): value
        for name, value in found.items()
        if name.startswith("set:") and value is not None
    }
    if scripts is not None:
        if found["command"] != "train":
            raise UsageError(
                f"`{found['command']}` takes no arguments after --", f"runctl-action {found['command']} --help"
            )
        flags["args"] = scripts
    rest = {name: value for name, value in found.items() if not name.startswith("set:")}
    repeatable = {name: tuple(rest.get(name) or ()) for name in ("faults", "delays", "words")}
    return Parsed(flags=flags, **rest | repeatable)


def split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """(ours, the script's): None when there is no `--`."""
    argv = list(argv)
    if "--" not in argv:
        return argv, None
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1 :]


def _check_command(ours: Sequence[str]) -> None:
    """Before argparse, which answers a typing error with everything there is."""
    if {"-h", "--help", "--version"} & set(ours):
        return
    command = next((argument for argument in ours if not argument.startswith("-")), None)
    if command is None:
        width = max(map(len, COMMANDS))
        listed = "\n".join(f"    {name:{width}}  {what}" for name, what in COMMANDS.items())
        raise UsageError(
            f"no command was given. Usage: runctl-action COMMAND …\n{listed}",
            "try it without an AWS account: runctl-action train --emulate SCRIPT; more: runctl-action --help",
        )
    if command not in COMMANDS:
        raise UsageError(
            f"{command!r} is no command{did_you_mean(command, tuple(COMMANDS))}",
            f"the commands are {', '.join(COMMANDS)}; see: runctl-action --help",
        )


def _surplus(surplus: Sequence[str], command: _Parser) -> UsageError:
    """What argparse could not place: options with a near name are told, their values (a token?) are not."""
    unknown = [argument.split("=", 1)[0] for argument in surplus if argument.startswith("-")]
    if not unknown:
        what = ", ".join(map(repr, surplus))
        return UsageError(f"`{command.prog}` has no place for {what}", _hint(command.prog))
    said = [f"`{command.prog}` has no option {name}{command.meant(name)}" for name in unknown]
    return UsageError("\n  ".join(said), _hint(command.prog))


def _hint(prog: str) -> str:
    if prog.endswith(" train"):
        return f"a script's own arguments come after --: {prog} SCRIPT -- ARGS; all options: {prog} --help"
    return f"all options: {prog} --help"


class _Parser(argparse.ArgumentParser):
    def meant(self, unknown: str) -> str:
        options = [name.removeprefix("--") for name in self._option_string_actions if name.startswith("--")]
        return did_you_mean(unknown.strip("-"), options, "--")

    def error(self, message: str) -> NoReturn:
        hint = _hint(self.prog)
        if option := re.fullmatch(r"argument (?:\S+, )*(--\S+): expected one argument", message):
            message = f"{option[1]} was given without a value"
            hint = f"a value that begins with a hyphen needs an equals sign: {option[1]}=-x; {hint}"
        raise UsageError(message, hint)


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="runctl-action",
        allow_abbrev=False,
        description="Train one commit of a git repository on an EC2 instance in your own AWS account,\n"
        "and read in its report how it ended, what came out, and what it cost.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"runctl-action {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )
    made: dict[str, _Parser] = {}
    for name, what in COMMANDS.items():
        made[name] = commands.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            usage=_USAGE.get(name),
            epilog=_EPILOGS.get(name),
        )
        _ADD[name](made[name])
    return parser, made


def _train(command: argparse.ArgumentParser) -> None:
    what = command.add_argument_group("This run")
    _add_script(what)
    what.add_argument("--emulate", action="store_true", help="On an emulated AWS in this process: no account, no cost")
    what.add_argument(
        "--again",
        action="store_true",
        help="Open a new attempt of this run if it is over, from its last good checkpoint",
    )
    what.add_argument("--json", action="store_true", help="Print the report as one JSON document on stdout")
    what.add_argument("--report", metavar="FILE", help="Write the report as Markdown")
    _add_emulation(what, "With --emulate: ")
    add_settings(command, all_of_them=True)


def _quote(command: argparse.ArgumentParser) -> None:
    _look_ahead(command, "This quote", emulate="At the prices of", json="the quote")


def _doctor(command: argparse.ArgumentParser) -> None:
    _look_ahead(command, "This check-up", emulate="Of", json="what was found")


def _look_ahead(command: argparse.ArgumentParser, title: str, *, emulate: str, json: str) -> None:
    """What is asked of a run that there is not yet."""
    what = command.add_argument_group(title)
    _add_script(what)
    what.add_argument("--emulate", action="store_true", help=f"{emulate} an emulated AWS in this process")
    what.add_argument("--json", action="store_true", help=f"Print {json} as one JSON document on stdout")
    _add_emulation(what, "With --emulate: ")
    add_settings(command, all_of_them=True)


def _one_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="A run id, or its unique beginning")
    command.add_argument("--json", action="store_true", help="Print the report as one JSON document on stdout")
    add_settings(command)


def _stop(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="A run id, its unique beginning, or the id of its instance")
    command.add_argument(
        "--force", action="store_true", help="Terminate its instance at once: no grace, no last checkpoint"
    )
    command.add_argument("--json", action="store_true", help="Print the report as one JSON document on stdout")
    add_settings(command)


def _logs(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="A run id, or its unique beginning")
    command.add_argument("-f", "--follow", action="store_true", help="Go on printing until the run is over")
    command.add_argument(
        "--json", action="store_true", help="Print its lines as one JSON document on stdout; with -f, once it is over"
    )
    add_settings(command)


def _many_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="Print the reports as one JSON document on stdout")
    add_settings(command)


def _collect(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="Only say what would be done")
    _many_runs(command)


def _hook(command: argparse.ArgumentParser) -> None:
    # What `run` starts in processes of their own are `launch` and `price`.
    actions = ("install", "uninstall", "run", "launch", "price")
    command.add_argument("action", choices=actions, metavar="install|uninstall|run")
    command.add_argument("words", metavar="WORD", nargs="*", help="What git gives the hook: the remote's name and URL")
    command.add_argument("--dry-run", action="store_true", help="Only say what would be written or removed")


def _emulator(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=int, help="The port to listen on (default: any free one)")
    _add_emulation(command)


def _nothing(_: argparse.ArgumentParser) -> None:
    """All that it takes comes by the environment."""


def _add_script(group: Any) -> None:
    group.add_argument(
        "set:script", metavar="SCRIPT", nargs="?", help="The script, relative to the working directory or the git root"
    )
    group.add_argument("--revision", metavar="COMMIT", default="HEAD", help="The commit to train [HEAD]")


def _add_emulation(group: Any, when: str = "") -> None:
    """What there is to choose about an emulated AWS."""

    def said(text: str) -> str:
        return when + text if when else text[0].upper() + text[1:]

    group.add_argument(
        "--fault", dest="faults", action="append", metavar="FAULT", help=said("break it on purpose (docs/faults.md)")
    )
    group.add_argument(
        "--delay", dest="delays", action="append", metavar="NAME=SECONDS",
        help=said(
            "make instances slower: this many seconds until they are visible, running, online (SSM) or, in the end, "
            "gone (ending); one a flag: --delay running=20"
        ),
    )  # fmt: skip
    group.add_argument(
        "--hour",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help=said("how long an hour of its timers and prices takes [3600]"),
    )


_ADD = {
    "train": _train,
    "report": _one_run,
    "logs": _logs,
    "list": _many_runs,
    "stop": _stop,
    "collect": _collect,
    "quote": _quote,
    "doctor": _doctor,
    "hook": _hook,
    "emulator": _emulator,
    "action": _nothing,
    "action-post": _nothing,
}
_USAGE = {
    "train": "runctl-action train [OPTIONS] SCRIPT [-- ARGS…]",
    "hook": "runctl-action hook install|uninstall [--dry-run]\n       runctl-action hook run REMOTE URL",
}
_EPILOG = """\
try it without an AWS account:
  runctl-action train --emulate examples/digits/train.py -- --epochs 5
on your own, which needs credentials, a bucket and an instance profile:
  runctl-action train --bucket NAME --instance-profile NAME SCRIPT
all settings: runctl-action train --help
"""
_EPILOGS = {
    "train": """\
Everything after the first -- is the script's own, as it is.

A setting has the same name everywhere: --max-duration 6h as a flag,
max-duration: 6h as an input of the action, RUNCTL_MAX_DURATION=6h as a
variable, max-duration = "6h" in runctl.toml or [tool.runctl] of pyproject.toml.
The first of these that has it wins. SCRIPT and its arguments are the settings
`script` and `args` there.

TIME is 90m, 1h30m, 2d or off; SIZE is 500MB or 2GiB. Several of TYPE, ID, GLOB:
with commas, or the flag again; several variables: --env A=1 --env B=2. A value
that begins with a hyphen needs an equals sign:
--resume-args='--resume {checkpoint}'.
[In brackets: the default.]

examples:
  runctl-action train --emulate train.py -- --epochs 5
  runctl-action train --spot=require --max-duration 2h train.py
  runctl-action train --instance-type g5.xlarge,g4dn.xlarge train.py -- --lr 0.1
""",
    "report": """\
The log goes to stderr, before the report. Nothing is done about the run itself.
The log alone: runctl-action logs RUN
""",
    "stop": """\
Before the training has begun, the instance is terminated. Afterwards the
training gets SIGTERM and the run's `grace` for a last checkpoint. The command
waits until the run is over, prints its log and its report, and exits with 0.
To go on later: the same `train` command with --again.

An instance on which a run goes on is terminated only with --force. One that was
kept after a failure (`keep-on-failure`) is terminated without it.
""",
    "collect": """\
For a schedule, such as cron: it carries on what a launcher left behind. It does
the next things of every open run (start it, open an attempt after an
interruption, write and post the report), ends instances of this bucket's runs
that are past their deadline or whose run is over, and does not wait for
trainings. It touches only what carries our tags; several at once do no harm.
""",
    "quote": """\
It lists the offers in the order in which they would be asked for, with AWS's
prices now. It needs no bucket and no instance profile, launches nothing, and
changes nothing on AWS.
""",
    "doctor": """\
It looks, in this order, at the git root, the settings, the script, credentials
and region, the bucket, the instance profile and what its role may do, subnets
and their way out, SSM, quotas, the image, a dry run of the launch, prices and
the token for GitHub. What stands on something that failed is not looked at.

Only one small object is written, below tools/ in the bucket. The exit code is 0
when nothing failed, else 2 (settings), 3 (source) or 4 (AWS, GitHub).
""",
    "hook": """\
Before a push, the hook says whether a run of what is pushed would be accepted,
and blocks the push when not. With `mode = "train"` in the table [hook] of
runctl.toml, or with the trailer `Train:` in the message of the commit, it
requests a run of it. Where no runctl.toml names a script, it is silent.

`install` honours core.hooksPath, and keeps and runs a hook that is there.
Without it for once: RUNCTL_SKIP=1 git push, or git push --no-verify.
""",
}
