from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Git = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty repository."""
    root = tmp_path / "project"
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


@pytest.fixture
def git(project: Path) -> Git:
    def run(*arguments: str, cwd: Path = project) -> str:
        done = subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True)
        return done.stdout.decode(errors="surrogateescape").strip()

    return run


@pytest.fixture
def commit(project: Path, git: Git) -> Callable[..., str]:
    """Writes files (text or bytes by path), commits everything; the commit."""

    def write(files: dict[str, str | bytes] | None = None) -> str:
        for name, content in (files or {}).items():
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        git("add", "-A")
        git("commit", "-q", "-m", "a commit")
        return git("rev-parse", "HEAD")

    return write
