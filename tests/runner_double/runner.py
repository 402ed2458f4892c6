"""One job of a workflow: the environment and the files of its steps (actions/runner, ContainerActionHandler.cs)."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from runner_double.log import Read, read_log

ROOT = Path(__file__).parents[2]
_RUN_IDS = itertools.count(uuid.uuid4().int % 10**9 * 1000)
_FILES = ("GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH")


@dataclass(frozen=True)
class Step:
    """What became of one."""

    code: int
    written: str
    outputs: dict[str, str]
    state: dict[str, str]
    summary: str

    @property
    def log(self) -> Read:
        return read_log(self.written)


@dataclass
class Job:
    """`folder` is the runner's `_work/_temp`; `variables` are the job's own, credentials for one. The context `github`
    is as small as it can be."""

    folder: Path
    workspace: Path
    variables: Mapping[str, str]
    api_url: str
    token: str = "ghs_action"
    matrix: Mapping[str, Any] | None = None
    run_id: int = field(default_factory=lambda: next(_RUN_IDS))
    run_attempt: int = 1
    name: str = "train"
    in_container: bool = False

    def __post_init__(self) -> None:
        for name in ("home", "workflow", "file_commands", "runner_temp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._event: dict[str, str] = {}
        self.state: dict[str, str] = {}

    def event(
        self, name: str, sha: str, payload: Mapping[str, Any], *, ref: str = "refs/heads/main", **more: str
    ) -> None:
        (self.folder / "workflow" / "event.json").write_text(json.dumps(payload))
        self._event = {"GITHUB_EVENT_NAME": name, "GITHUB_SHA": sha, "GITHUB_REF": ref, **more}

    def environ(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """Of a step, with new files for its commands. Every declared input is there; hyphens stay in its name."""
        for name in _FILES:
            (self.folder / "file_commands" / name).write_bytes(b"")
        declared = YAML(typ="safe").load(ROOT / "action.yml")["inputs"]
        unknown = set(inputs) - set(declared)
        assert not unknown, f"action.yml has no such inputs: {unknown}"
        values = {name: self._evaluated(str(about.get("default", ""))) for name, about in declared.items()} | inputs
        return {
            **self.variables,
            **{f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in values.items()},
            **{f"STATE_{name}": value for name, value in self.state.items()},
            **{name: self._path("file_commands", name) for name in _FILES},
            **self._event,
            "CI": "true",
            "HOME": self._path("home"),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION": "__acme_runctl-action",
            "GITHUB_ACTOR": "ada",
            "GITHUB_API_URL": self.api_url,
            "GITHUB_EVENT_PATH": self._path("workflow", "event.json"),
            "GITHUB_JOB": self.name,
            "GITHUB_REPOSITORY": "acme/digits",
            "GITHUB_RUN_ATTEMPT": str(self.run_attempt),
            "GITHUB_RUN_ID": str(self.run_id),
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_WORKFLOW": "Train",
            "GITHUB_WORKSPACE": "/github/workspace" if self.in_container else str(self.workspace),
            "RUNNER_TEMP": self._path("runner_temp"),
        }

    def ended(self, code: int, written: str) -> Step:
        """Reads what the step has left in its files; its state is there for the post step."""
        read = {name: (self.folder / "file_commands" / name).read_text() for name in _FILES}
        step = Step(
            code, written, _pairs(read["GITHUB_OUTPUT"]), _pairs(read["GITHUB_STATE"]), read["GITHUB_STEP_SUMMARY"]
        )
        self.state |= step.state
        return step

    def _path(self, *parts: str) -> str:
        return "/".join(["/github" if self.in_container else str(self.folder), *parts])

    def _evaluated(self, default: str) -> str:
        context = {"github.token": self.token, "toJSON(matrix)": json.dumps(self.matrix)}
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: context[found[1]], default)


def _pairs(text: str) -> dict[str, str]:
    """`name<<DELIMITER`, lines, `DELIMITER`."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, _, delimiter = line.partition("<<")
        assert delimiter, f"not the form of a file command: {line}"
        found[name] = "\n".join(itertools.takewhile(lambda value, end=delimiter: value != end, lines))
    return found
