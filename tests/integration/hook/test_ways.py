"""Every way in which git comes to run the hook, over file and HTTP: the same check, and the same answer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.hook.projects import SETTINGS, Project

ROOT = Path(__file__).parent.parent.parent.parent
PRE_COMMIT = """\
repos:
- repo: {manifest}
  rev: {revision}
  hooks:
  - id: runctl-action
    # The program that is tested, instead of one that is fetched from an index.
    language: system
"""


@pytest.fixture(params=["file", "http"])
def remote(request, make) -> Project:
    found = make(request.param)
    found.commit({"runctl.toml": SETTINGS, "train.py": "print(1)\n"})
    return found


def plain(project: Project, tmp_path: Path) -> Path:
    project.runctl("hook", "install")
    return project.root


def copied(project: Project, tmp_path: Path) -> Path:
    shutil.copy(ROOT / "hooks/pre-push", project.root / ".git/hooks/pre-push")
    return project.root


def hooks_path(project: Project, tmp_path: Path) -> Path:
    project.must("config", "core.hooksPath", ".githooks")
    project.runctl("hook", "install")
    assert (project.root / ".githooks/pre-push").exists()
    assert not (project.root / ".git/hooks/pre-push").exists()
    return project.root


def worktree(project: Project, tmp_path: Path) -> Path:
    project.must("worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    project.runctl("hook", "install", cwd=tmp_path / "tree")
    return tmp_path / "tree"


def husky(project: Project, tmp_path: Path) -> Path:
    # As husky 9 has it: its own folder of shims, which source what the user has written.
    own = project.root / ".husky/_"
    own.mkdir(parents=True)
    (own / "h").write_text(
        's=$(dirname "$(dirname "$0")")/$(basename "$0")\n[ ! -f "$s" ] && exit 0\nsh -e "$s" "$@"\n'
    )
    (own / "pre-push").write_text('#!/usr/bin/env sh\n. "$(dirname "$0")/h"\n')
    (own / "pre-push").chmod(0o755)
    project.must("config", "core.hooksPath", ".husky/_")
    said = project.runctl("hook", "install")
    assert said.returncode == 2
    line = said.stderr.split("add this line to ")[1].split(": ", 1)[1]
    (project.root / ".husky/pre-push").write_text(f"echo theirs\n{line}")
    return project.root


def pre_commit(project: Project, tmp_path: Path) -> Path:
    manifest = tmp_path / "manifest"
    manifest.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", manifest)
    hooks = Project(manifest, project.environ)
    hooks.must("init", "-q")
    revision = hooks.commit({".pre-commit-hooks.yaml": (manifest / ".pre-commit-hooks.yaml").read_text()})
    text = PRE_COMMIT.format(manifest=manifest, revision=revision)
    (project.root / ".pre-commit-config.yaml").write_text(text)
    installed = project.git("-c", "alias.p=!pre-commit install --hook-type pre-push", "p")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return project.root


WAYS = [plain, copied, hooks_path, worktree, husky, pre_commit]


def test_what_the_docs_have_for_pre_commit_is_valid_and_names_our_hook(tmp_path):
    (snippet,) = re.findall(r"```yml\n(.*?)```", (ROOT / "docs/hook.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "config.yaml").write_text(snippet)
    pre_commit = str(Path(sys.executable).parent / "pre-commit")
    subprocess.run([pre_commit, "validate-config", tmp_path / "config.yaml"], check=True)
    subprocess.run([pre_commit, "validate-manifest", ROOT / ".pre-commit-hooks.yaml"], check=True)
    (manifest,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert yaml.safe_load(snippet)["repos"][0]["hooks"] == [{"id": manifest["id"]}]
    assert set(manifest["stages"]) == {"pre-push"}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_good_commit_is_pushed_and_a_bad_one_is_not(remote, way, tmp_path):
    tree = Project(way(remote, tmp_path), remote.environ)
    pushed = tree.push("origin", "HEAD:main")
    assert pushed.code == 0, pushed.err
    assert "a run of it would be accepted" in pushed.err
    tree.commit({"train.py": "print(2)\n"})
    assert "new to the branch at origin" in tree.push("origin", "HEAD:main").err
    good = tree.must("rev-parse", "HEAD")
    tree.commit({"runctl.toml": 'script = "other.py"\n'})
    pushed = tree.push("origin", "HEAD:main")
    assert pushed.code != 0
    assert "the script other.py is not tracked" in pushed.err
    assert tree.must("ls-remote", "origin", "refs/heads/main").split()[0] == good
    assert tree.push("origin", "HEAD:main", RUNCTL_SKIP="1").code == 0


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_push_that_nothing_is_selected_of_says_nothing_of_ours(make, way, tmp_path):
    project = make()
    project.commit({"README": "x"})
    tree = Project(way(project, tmp_path), project.environ)
    pushed = tree.push("origin", "HEAD:main")
    assert pushed.code == 0
    assert "runctl-action: " not in pushed.err


def test_without_the_program_the_shim_says_so_and_blocks(make, tmp_path):
    project = make()
    project.commit({"README": "x"})
    plain(project, tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh", "cat", "dirname"):
        (programs / name).symlink_to(shutil.which(name) or "")
    pushed = project.push("origin", "HEAD:main", PATH=str(programs))
    assert pushed.code != 0
    assert "pre-push hook needs it, and it is not on PATH, nor in .venv or venv" in pushed.ours[0]
    shim = project.git("-c", "alias.p=!.git/hooks/pre-push origin x </dev/null", "p", PATH=str(programs))
    assert shim.returncode == 2
    assert project.push("origin", "HEAD:main", PATH=str(programs), RUNCTL_SKIP="1").code == 0
    # A virtual environment in the root is found as well, also from a worktree.
    (project.root / ".venv/bin").mkdir(parents=True)
    (project.root / ".venv/bin/runctl-action").symlink_to(Path(os.environ["PWD"]) / "none")
    assert project.push("origin", "HEAD:other", PATH=str(programs)).code != 0
    (project.root / ".venv/bin/runctl-action").unlink()
    (project.root / ".venv/bin/runctl-action").write_text("#!/bin/sh\nexit 0\n")
    (project.root / ".venv/bin/runctl-action").chmod(0o755)
    assert project.push("origin", "HEAD:other", PATH=str(programs)).code == 0
    project.must("worktree", "add", "-q", "-b", "tree", str(tmp_path / "tree"))
    assert project.push("origin", "HEAD:tree", cwd=tmp_path / "tree", PATH=str(programs)).code == 0


def test_neither_path_imports_what_takes_long(project):
    """The fast path takes the standard library alone, the check no AWS and no GitHub."""
    heavy = {"boto3", "botocore", "github", "moto", "jinja2", "rich"}
    script = (
        "import sys, os\nfrom runctl_action.hook import pre_push\n"
        "code = pre_push.run(['origin', 'x'], os.environ, sys.stdin.buffer, sys.stderr)\n"
        "print(code, *sys.modules)"
    )
    (project.root / "look.py").write_text(script)
    commit, nothing = project.must("rev-parse", "HEAD"), "0" * 40
    line = f"x {commit} refs/heads/main {nothing}"
    said = project.git("-c", f"alias.p=!echo {line} | python look.py", "p")
    code, *modules = said.stdout.split()
    assert code == "0"
    assert "a run of it would be accepted" in said.stderr
    assert "pydantic" in modules
    assert heavy.isdisjoint(modules)
    project.commit({"runctl.toml": SETTINGS + '[hook]\nbranches = ["none"]\n'})
    line = line.replace(commit, project.must("rev-parse", "HEAD"))
    said = project.git("-c", f"alias.p=!echo {line} | python look.py", "p")
    code, *modules = said.stdout.split()
    assert (code, said.stderr) == ("0", "")
    assert "tomllib" in modules
    assert (heavy | {"pydantic", "pydantic_settings", "dataclasses", "argparse", "asyncio"}).isdisjoint(modules)
    assert {name for name in modules if name.startswith("runctl_action")} == {
        "runctl_action", "runctl_action.errors", "runctl_action.hook", "runctl_action.hook.pre_push",
        "runctl_action.hook.pushed", "runctl_action.hook.selection",
    }  # fmt: skip
