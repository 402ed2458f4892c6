"""The command, really run: git repositories, an emulated AWS, and hosts that are real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runctl_action import cli
from runctl_action.emulator.server import BUCKET, Emulator


@pytest.fixture
def project(tmp_path: Path, aws: Emulator) -> Path:
    """A new repository: its name is in the run ids, and its packs are its own."""
    aws.world.faults.clear()
    root = tmp_path / "project"
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    origin = f"https://github.example/acme/{tmp_path.parent.name}-{tmp_path.name}.git"
    subprocess.run(["git", "remote", "add", "origin", origin], cwd=root, check=True)
    return root


@pytest.fixture
def commit(project: Path) -> Callable[..., str]:
    def write(files: Mapping[str, str], root: Path = project) -> str:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        subprocess.run("git add -A && git commit -q --allow-empty -m x", shell=True, check=True, cwd=root)
        return subprocess.run(
            ["git", "rev-parse", "HEAD"], check=True, cwd=root, capture_output=True, text=True
        ).stdout.strip()

    return write


@dataclass
class Said:
    """What the command did: its exit code, `report.json`, and what it printed on stderr and stdout."""

    code: int
    report: dict[str, Any]
    err: str
    out: str

    @property
    def ending(self) -> tuple[int, str | None, str | None]:
        return self.code, self.report["outcome"], self.report["cause"]


@pytest.fixture
def environ(aws: Emulator) -> dict[str, str]:
    return dict(os.environ) | aws.environ | {"RUNCTL_INSTALL": "skip", "RUNCTL_GRACE": "2s"}


@pytest.fixture
def runctl(
    project: Path, environ: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """`runctl(command, …)` runs it in the project, in this process; with --json its report is read."""

    def run(*argv: str, cwd: Path = project, **variables: str) -> Said:
        monkeypatch.chdir(cwd)
        code = cli.run(argv, environ | variables)
        out, err = capsys.readouterr()
        return Said(code, json.loads(out) if out.startswith("{") else {}, err, out)

    return run


@pytest.fixture
def train(runctl: Callable[..., Said], commit: Callable[..., str]) -> Callable[..., Said]:
    """Commits `train.py` with this text, trains it, and gives back what was said."""

    def run(text: str, *args: str, flags: tuple[str, ...] = (), **variables: str) -> Said:
        commit({"train.py": text})
        return runctl("train", "--json", *flags, "train.py", *(["--", *args] if args else []), **variables)

    return run


@pytest.fixture
def start(project: Path, environ: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """The command as a process of its own."""

    def run(*argv: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "runctl_action", *argv],
            cwd=project, env=environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return run


@pytest.fixture
def s3(aws: Emulator) -> Iterator[Any]:
    client = aws.client("s3")
    yield client
    client.close()


@pytest.fixture
def ec2(aws: Emulator) -> Iterator[Any]:
    client = aws.client("ec2")
    yield client
    client.close()


@pytest.fixture
def bucket() -> str:
    return BUCKET
