"""Trainings that are not to be trusted, really run: the command as its own process, on an emulated AWS."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from runctl_action.emulator import policies
from runctl_action.emulator.server import BUCKET, HOST_POLICY, Emulator
from runctl_action.emulator.state import ACCOUNT


@dataclass
class Project:
    """A repository, and the command in it."""

    root: Path
    environ: dict[str, str]
    aws: Emulator

    def commit(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        subprocess.run("git add -A && git commit -q --allow-empty -m x", shell=True, check=True, cwd=self.root)

    def start(self, *argv: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "runctl_action", *argv],
            cwd=self.root, env=self.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str]) -> Said:
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        assert out.startswith("{"), err
        return Said(process.returncode, json.loads(out), err, out)

    def userid(self, report: Mapping[str, Any], attempt: int = 1) -> str:
        """Of the host of an attempt: what its prefix is named by."""
        return self.aws.world.instances[report["instances"][attempt - 1]["id"]].userid

    def state(self, instance_id: str) -> str:
        return self.aws.world.instances[instance_id].state

    def train(self, script: str, *flags: str, **variables: str) -> Said:
        self.commit({"train.py": script})
        return self.finish(self.start("train", "--json", *flags, "train.py", **variables))


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

    def told(self, mark: str) -> Any:
        """What the script printed as JSON behind `mark`."""
        line = next(line for line in self.err.splitlines() if line.startswith(f"{mark} "))
        return json.loads(line.removeprefix(f"{mark} "))


@pytest.fixture(scope="session")
def make_project(aws: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Project]:
    def make() -> Project:
        root = tmp_path_factory.mktemp("project")
        subprocess.run(["git", "init", "-q", str(root)], check=True)
        origin = f"https://github.example/acme/{root.name}.git"
        subprocess.run(["git", "remote", "add", "origin", origin], cwd=root, check=True)
        environ = dict(os.environ) | aws.environ | {"RUNCTL_INSTALL": "skip", "RUNCTL_GRACE": "2s"}
        return Project(root, environ, aws)

    return make


@pytest.fixture
def project(make_project: Callable[[], Project], aws: Emulator) -> Project:
    aws.world.faults.clear()
    return make_project()


@pytest.fixture(scope="session")
def named_secrets_only(aws: Emulator) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """While it is entered, new hosts may read those secrets alone that a policy names, as infra/runctl.yaml has it."""

    @contextlib.contextmanager
    def enter() -> Iterator[None]:
        actions = ["ssm:GetParameter", "secretsmanager:GetSecretValue"]
        arns = [f"arn:aws:ssm:*:{ACCOUNT}:parameter/team/*", f"arn:aws:secretsmanager:*:{ACCOUNT}:secret:team/*"]
        others = [statement for statement in HOST_POLICY["Statement"] if "ssm:GetParameter" not in statement["Action"]]
        named = {"Effect": "Allow", "Action": actions, "Resource": arns}
        kept = aws.world.host_policy
        aws.world.host_policy = policies.parse({**HOST_POLICY, "Statement": [*others, named]})
        try:
            yield
        finally:
            aws.world.host_policy = kept

    return enter


@pytest.fixture(scope="session")
def s3(aws: Emulator) -> Iterator[Any]:
    client = aws.client("s3")
    yield client
    client.close()


@pytest.fixture(scope="session")
def stored(s3: Any) -> Callable[[str], dict[str, bytes]]:
    """`stored(part)`: every object with `part` in its key; log segments decompressed."""

    def read(part: str = "") -> dict[str, bytes]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        found = {}
        for key in (item["Key"] for page in pages for item in page.get("Contents", ())):
            if part in key:
                data = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
                is_log = "/log/" in key
                found[key] = zstandard.ZstdDecompressor().decompressobj().decompress(data) if is_log else data
        return found

    return read
