"""A working tree that is pushed from, and what a push says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SETTINGS = 'script = "train.py"\n'


@dataclass
class Pushed:
    """What `git push` said: its exit code, and the lines of ours."""

    code: int
    err: str

    @property
    def ours(self) -> list[str]:
        lines = [line.removeprefix("remote: ") for line in self.err.splitlines()]
        return [line.removeprefix("runctl-action: ") for line in lines if line.startswith("runctl-action: ")]


@dataclass
class Project:
    """A working tree, and the environment that git runs in: the command is on PATH."""

    root: Path
    environ: dict[str, str]

    def git(self, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments], cwd=cwd or self.root, env=self.environ | variables, capture_output=True, text=True
        )

    def commit(self, files: Mapping[str, str], message: str = "x") -> str:
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
            self.must("add", "-f", name)
        self.must("commit", "-q", "--allow-empty", "-m", message)
        return self.must("rev-parse", "HEAD")

    def must(self, *arguments: str) -> str:
        done = self.git(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def push(self, *arguments: str, cwd: Path | None = None, **variables: str) -> Pushed:
        done = self.git("push", "-q", *(arguments or ("origin", "HEAD")), cwd=cwd, **variables)
        # pre-commit, whose hooks write to what it then prints, takes stdout.
        return Pushed(done.returncode, done.stderr + done.stdout)

    def runctl(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "runctl_action", *arguments]
        return subprocess.run(command, cwd=cwd or self.root, env=self.environ, capture_output=True, text=True)
