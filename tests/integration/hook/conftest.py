"""Real pushes: a repository with the hook, and a bare one that it pushes to, over file and over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.hook.http_remote import serve
from tests.integration.hook.projects import SETTINGS, Project


@pytest.fixture(scope="session")
def http_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    root = tmp_path_factory.mktemp("http")
    with serve(root) as url:
        yield root, url


@pytest.fixture
def hook_environ() -> dict[str, str]:
    return dict(os.environ) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def make(tmp_path: Path, hook_environ: dict[str, str], http_root: tuple[Path, str]) -> Callable[..., Project]:
    """`make(remote="http", object_format="sha256")`: a project without any hook, and its empty remote."""

    def made(remote: str = "file", object_format: str = "sha1") -> Project:
        project = Project(tmp_path / "project", hook_environ)
        name = f"{tmp_path.parent.name}-{tmp_path.name}.git"
        bare = (http_root[0] if remote == "http" else tmp_path) / name
        for arguments in (["--bare", str(bare)], [str(project.root)]):
            subprocess.run(["git", "init", "-q", f"--object-format={object_format}", *arguments], check=True)
        project.must("remote", "add", "origin", f"{http_root[1]}/{name}" if remote == "http" else f"file://{bare}")
        return project

    return made


@pytest.fixture
def project(make: Callable[..., Project]) -> Project:
    """With the hook installed, and a first commit that could be trained."""
    found = make()
    assert found.runctl("hook", "install").returncode == 0
    found.commit({"runctl.toml": SETTINGS, "train.py": "print(1)\n"})
    return found
