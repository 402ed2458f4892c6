"""The doctor, really run on the emulated AWS, in a repository of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runctl_action import cli
from runctl_action.emulator.server import Emulator

sys.path.insert(0, str(Path(__file__).parents[2]))

from github_double import GitHub


@dataclass
class Seen:
    """What a doctor found: its exit code, its JSON document, and what else it printed."""

    code: int
    document: dict[str, Any]
    err: str

    def named(self, status: str) -> list[str]:
        return [check["name"] for check in self.document["checks"] if check["status"] == status]

    def check(self, name: str) -> dict[str, str]:
        return next(check for check in self.document["checks"] if check["name"] == name)


@pytest.fixture
def project(tmp_path: Path, aws: Emulator) -> Iterator[Path]:
    root = tmp_path / "project"
    root.mkdir()
    (root / "train.py").write_text("print(1)\n")
    commands = (
        "init -q",
        "add -A",
        "commit -q -m x",
        "remote add origin https://github.com/acme/digits.git",
    )
    for words in commands:
        subprocess.run(["git", *words.split()], cwd=root, check=True)
    aws.world.faults.clear()
    yield root
    aws.world.faults.clear()


@pytest.fixture
def environ(aws: Emulator) -> dict[str, str]:
    return dict(os.environ) | aws.environ | {"RUNCTL_SCRIPT": "train.py"}


@pytest.fixture
def doctor(
    project: Path, environ: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Seen]:
    """`doctor(*flags, cwd=…, VARIABLE=…)`; a variable that is None is not set."""

    def run(*flags: str, cwd: Path = project, **variables: str | None) -> Seen:
        monkeypatch.chdir(cwd)
        own = {name: value for name, value in (environ | variables).items() if value is not None}
        code = cli.run(["doctor", "--json", *flags], own)
        out, err = capsys.readouterr()
        return Seen(code, json.loads(out), err)

    return run


@pytest.fixture
def finds_one(doctor: Callable[..., Seen]) -> Callable[..., dict[str, str]]:
    """Runs the doctor, and gives the one check that failed: `name`, with `code`."""

    def run(name: str, code: int, *flags: str, **variables: Any) -> dict[str, str]:
        seen = doctor(*flags, **variables)
        assert seen.named("failed") == [name]
        assert (seen.code, seen.document["exit_code"]) == (code, code)
        found = seen.check(name)
        assert found["fix"]
        assert all(check["seen"] for check in seen.document["checks"])
        skipped = [seen.check(other)["seen"] for other in seen.named("skipped") if other != "github token"]
        assert all(name in why for why in skipped), skipped
        return found

    return run


def client(aws: Emulator, service: str) -> Iterator[Any]:
    made = aws.client(service)
    yield made
    made.close()


@pytest.fixture
def ec2(aws: Emulator) -> Iterator[Any]:
    yield from client(aws, "ec2")


@pytest.fixture
def s3(aws: Emulator) -> Iterator[Any]:
    yield from client(aws, "s3")


@pytest.fixture
def iam(aws: Emulator) -> Iterator[Any]:
    yield from client(aws, "iam")


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as github:
        yield github
    assert github.problems == []
