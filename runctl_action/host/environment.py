"""The training's dependencies: found nearest to the script, installed by uv, outside the source."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runctl_action.contract.documents import TrainingSettings

_SCRIPT_METADATA = re.compile(r"(?m)^# /// script\s*$\s(?P<content>(^#(| .*)$\s)+?)^# ///\s*$")


@dataclass(frozen=True)
class Plan:
    """What to run, in order, before the training, and the python to train with. `what` is for people."""

    what: str
    commands: tuple[tuple[str, ...], ...]
    python: str


def plan(settings: TrainingSettings, source: Path, script: str, environment: Path) -> Plan:
    """How to install. `auto` takes, nearest to the script first: PEP 723 metadata in the script, uv.lock,
    requirements.txt, pyproject.toml; without any, a bare environment."""
    python = str(environment / "bin" / "python")
    create = ("uv", "venv", "--no-config", "--quiet", "--python", settings.python, str(environment))
    if settings.install == "skip":
        # A path is that of an image's own environment; a version cannot be had without an installation.
        own = settings.python if settings.python.startswith("/") else "python3"
        return Plan("nothing (install: skip)", (), own)
    if settings.install != "auto":
        return Plan(f"by your command: {settings.install}", (create, ("sh", "-c", settings.install)), python)
    pip = ("uv", "pip", "install", "--no-config", "--python", python)
    declared = _script_dependencies(source / script)
    if declared is not None:
        return Plan(
            f"{len(declared)} {'dependency' if len(declared) == 1 else 'dependencies'} declared in {script}",
            (create, (*pip, "--", *declared)) if declared else (create,),
            python,
        )
    folder = (source / script).parent
    while folder.is_relative_to(source):
        shown = folder.relative_to(source)
        if (folder / "uv.lock").is_file():
            sync = ("uv", "sync", "--frozen", "--no-dev", "--project", str(folder), "--python", settings.python)
            return Plan(f"{shown / 'uv.lock'}", (sync,), python)
        if (folder / "requirements.txt").is_file():
            return Plan(
                f"{shown / 'requirements.txt'}", (create, (*pip, "-r", str(folder / "requirements.txt"))), python
            )
        if _is_project(folder / "pyproject.toml"):
            return Plan(f"{shown / 'pyproject.toml'}", (create, (*pip, "-r", str(folder / "pyproject.toml"))), python)
        folder = folder.parent
    return Plan("nothing: no dependencies are declared", (create,), python)


def variables(base: Mapping[str, str], environment: Path) -> dict[str, str]:
    """The environment that installation and training run in: the host's, with the training's own first on PATH."""
    return dict(base) | {
        "VIRTUAL_ENV": str(environment),
        "UV_PROJECT_ENVIRONMENT": str(environment),
        "PATH": f"{environment / 'bin'}:{base.get('PATH', '/usr/bin:/bin')}",
        "PYTHONUNBUFFERED": "1",
    }


def _is_project(path: Path) -> bool:
    """Whether a pyproject.toml declares a project (many only hold tools' settings)."""
    try:
        return "project" in tomllib.loads(path.read_text(encoding="utf-8"))
    # RecursionError: brackets without end. ValueError: no TOML, no UTF-8, or a number of thousands of digits.
    except (OSError, ValueError, RecursionError):
        return False


def _script_dependencies(script: Path) -> Sequence[str] | None:
    """PEP 723's `dependencies`; None when the script has no such metadata."""
    match = _SCRIPT_METADATA.search(script.read_text(encoding="utf-8", errors="replace"))
    if match is None:
        return None
    content = "".join(
        line[2:] if line.startswith("# ") else line[1:] for line in match["content"].splitlines(keepends=True)
    )
    try:
        found = tomllib.loads(content).get("dependencies", [])
    except (ValueError, RecursionError):
        return []
    # Behind a `--`, none of them is an option of uv's.
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []
