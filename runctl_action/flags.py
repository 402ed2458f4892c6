"""A flag, and a row of the README's table, for every setting: from the model, its description, default and group."""

from __future__ import annotations

import argparse
from typing import Any, Literal, get_args, get_origin

from runctl_action.parsing import show_duration

_LOOKING = ("region", "bucket", "prefix", "allowed-account-ids")
_METAVARS = {
    "env": "NAME=VALUE", "secrets": "NAME=WHERE", "instance_type": "TYPE,…", "subnets": "ID,…",
    "security_groups": "ID,…", "allowed_account_ids": "ID,…", "checkpoints": "GLOB,…", "metrics": "GLOB,…",
    "volume_size": "GIB", "max_attempts": "N", "max_duration": "TIME", "hang_timeout": "TIME", "grace": "TIME",
    "lease": "TIME", "keep_on_failure": "TIME", "max_file_bytes": "SIZE", "python": "VERSION", "install": "HOW",
    "resume": "RUN",
}  # fmt: skip


def add_settings(command: argparse.ArgumentParser, *, all_of_them: bool = False) -> None:
    """A flag for every setting, from the model: its description, its default, its group."""
    from runctl_action.settings import Settings

    groups: dict[str, Any] = {}
    for name, info in Settings.model_fields.items():
        flag = name.replace("_", "-")
        if flag in {"script", "args", "github-token"} or not (all_of_them or flag in _LOOKING):
            continue
        title = _group(info.json_schema_extra)
        if title not in groups:
            groups[title] = command.add_argument_group(title)
        group = groups[title]
        default = show_default(name, info.default)
        help_text = f"{info.description}{f' [{default}]' if default else ''}".replace("%", "%%")
        metavar = _metavar(name, info.annotation)
        if info.annotation is bool:
            group.add_argument(
                f"--{flag}", dest=f"set:{flag}", action=argparse.BooleanOptionalAction, default=None, help=help_text
            )
        elif "=" in metavar or metavar.endswith(",…"):
            group.add_argument(f"--{flag}", dest=f"set:{flag}", action=_Several, metavar=metavar, help=help_text)
        else:
            group.add_argument(f"--{flag}", dest=f"set:{flag}", metavar=metavar, help=help_text)


def settings_table() -> str:
    """The same as Markdown, for the README: `make docs` puts it there, and a test compares."""
    from runctl_action.settings import Settings

    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    title = ""
    for name, info in Settings.model_fields.items():
        if title != (title := _group(info.json_schema_extra)):
            lines.append(f"| **{title}** | | |")
        default = show_default(name, info.default)
        shown = f"`{default}`" if default else ""
        meaning = (info.description or "").replace("|", "\\|")
        lines.append(f"| `{name.replace('_', '-')}` | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def _group(extra: Any) -> str:
    return str(extra["group"]) if isinstance(extra, dict) else ""


class _Several(argparse.Action):
    """A list: each time the flag is given it adds to what is there; commas separate, except in a variable's value."""

    def __call__(self, _parser: object, found: argparse.Namespace, value: Any, _option: str | None = None) -> None:
        items = [value] if "=" in str(self.metavar) else [part.strip() for part in value.split(",") if part.strip()]
        setattr(found, self.dest, [*(getattr(found, self.dest) or ()), *items])


def _metavar(name: str, annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    return _METAVARS.get(name, name.rsplit("_", 1)[-1].upper())


def show_default(name: str, default: Any) -> str:
    """A default as people write it; empty where there is none to show."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if default in (None, (), {}):
        return ""
    if _METAVARS.get(name) == "TIME":
        return show_duration(default)
    if _METAVARS.get(name) == "SIZE":
        return f"{default // 1024**3}GiB"
    return ", ".join(default) if isinstance(default, tuple) else str(default)
