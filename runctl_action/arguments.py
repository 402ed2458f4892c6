"""The command line. It is cut at the first `--` before anything is parsed: what follows is the script's as it is."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from runctl_action import __version__
from runctl_action.errors import UsageError

COMMANDS = {
    "train": "train one commit and follow it to its end",
    "report": "show what is known of a run",
    "logs": "print a run's log",
    "list": "list the runs in the bucket",
    "stop": "end a run: SIGTERM, grace, last checkpoint",
    "collect": "settle every open run once (for a schedule)",
    "emulator": "serve an emulated AWS on this machine",
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
    follow: bool = False
    dry_run: bool = False
    port: int | None = None
    faults: tuple[str, ...] = ()


def parse(argv: Sequence[str]) -> Parsed:
    """Raises UsageError; --help and --version print and end the process with 0."""
    ours, scripts = split(argv)
    found = vars(_parser().parse_args(ours))
    flags = {
        name.removeprefix("set:"): value
        for name, value in found.items()
        if name.startswith("set:") and value is not None
    }
    if scripts is not None:
        if found["command"] != "train":
            raise UsageError(f"`{found['command']}` takes no arguments after --")
        flags["args"] = scripts
    rest = {name: value for name, value in found.items() if not name.startswith("set:")}
    return Parsed(flags=flags, **rest | {"faults": tuple(rest.get("faults") or ())})


def split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """(ours, the script's): None when there is no `--`."""
    argv = list(argv)
    if "--" not in argv:
        return argv, None
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1 :]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0].split("=")[0]
        close = difflib.get_close_matches(unknown, list(self._option_string_actions), n=1)
        if message.startswith("unrecognized"):
            message = f"{unknown} is no option of `{self.prog}`" + (f": did you mean {close[0]}?" if close else "")
        raise UsageError(
            message, f"{self.prog} --help; a script's own arguments come after --: runctl-action train SCRIPT -- ARGS"
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="runctl-action",
        allow_abbrev=False,
        description="Push code, train it on your own AWS account, read the answer in the pull request.",
    )
    parser.add_argument("--version", action="version", version=f"runctl-action {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, help_text in COMMANDS.items():
        command = commands.add_parser(
            name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".", allow_abbrev=False,
            usage="runctl-action train [OPTIONS] SCRIPT [-- ARGS…]" if name == "train" else None,
        )  # fmt: skip
        _ADD[name](command)
    return parser


def _train(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "set:script", metavar="SCRIPT", nargs="?", help="relative to the working directory or the git root"
    )
    command.add_argument("--revision", default="HEAD", help="the commit to train (default: HEAD)")
    command.add_argument(
        "--emulate", action="store_true", help="on an emulated AWS in this process: no account, no cost"
    )
    command.add_argument("--again", action="store_true", help="open a new attempt of a run that is over")
    command.add_argument("--json", action="store_true", help="print the report as one JSON document on stdout")
    command.add_argument("--report", metavar="FILE", help="write the report as Markdown")
    command.add_argument(
        "--fault", dest="faults", action="append", metavar="FAULT", help="with --emulate: break it on purpose"
    )
    _add_settings(command, all_of_them=True)


def _one_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="a run id, or its unique beginning")
    command.add_argument("--json", action="store_true", help="print the report as one JSON document on stdout")
    _add_settings(command)


def _logs(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="a run id, or its unique beginning")
    command.add_argument("-f", "--follow", action="store_true", help="until the run is over")
    _add_settings(command)


def _many_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the reports as one JSON document on stdout")
    _add_settings(command)


def _collect(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="only say what there is")
    _many_runs(command)


def _emulator(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=int, help="(default: any free one)")
    command.add_argument(
        "--fault", dest="faults", action="append", metavar="FAULT", help="break it on purpose; repeatable"
    )


_ADD = {
    "train": _train,
    "report": _one_run,
    "logs": _logs,
    "list": _many_runs,
    "stop": _one_run,
    "collect": _collect,
    "emulator": _emulator,
}
_LOOKING = ("region", "bucket", "prefix", "allowed-account-ids")


def _add_settings(command: argparse.ArgumentParser, *, all_of_them: bool = False) -> None:
    """A flag for every setting, from the model: its description, its default, its group."""
    from runctl_action.settings import Settings

    groups: dict[str, Any] = {}
    for name, info in Settings.model_fields.items():
        flag = name.replace("_", "-")
        if flag in {"script", "args", "github-token"} or not (all_of_them or flag in _LOOKING):
            continue
        extra = info.json_schema_extra
        title = str(extra["group"]) if isinstance(extra, dict) else ""
        if title not in groups:
            groups[title] = command.add_argument_group(title)
        group = groups[title]
        default = _show_default(name, info.default)
        help_text = f"{info.description}{f' [{default}]' if default else ''}".replace("%", "%%")
        if info.annotation is bool:
            group.add_argument(
                f"--{flag}", dest=f"set:{flag}", action=argparse.BooleanOptionalAction, default=None, help=help_text
            )
        else:
            group.add_argument(f"--{flag}", dest=f"set:{flag}", metavar=_metavar(name), help=help_text)


def _metavar(name: str) -> str:
    if name in {"max_duration", "hang_timeout", "grace", "lease", "keep_on_failure"}:
        return "TIME"
    return "SIZE" if name == "max_file_bytes" else name.rsplit("_", 1)[-1].upper()


def _show_default(name: str, default: Any) -> str:
    from runctl_action.parsing import show_duration

    if default in (None, (), {}) or isinstance(default, bool):
        return ""
    if _metavar(name) == "TIME":
        return show_duration(default)
    if _metavar(name) == "SIZE":
        return f"{default // 1024**3}GiB"
    return ", ".join(default) if isinstance(default, tuple) else str(default)
