"""`hook install` loses nothing, and `hook uninstall` undoes exactly that."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from runctl_action.hook import install
from tests.integration.hook.projects import SETTINGS, Project

THEIRS = '#!/bin/sh\nsed "s/^/theirs: $1 /" >&2\nexit ${THEIRS_CODE:-0}\n'


@pytest.fixture
def bare(make) -> Project:
    found = make()
    found.commit({"runctl.toml": SETTINGS, "train.py": ""})
    return found


def hooks(project: Project) -> dict[str, tuple[int, bytes]]:
    folder = project.root / ".git/hooks"
    return {path.name: (path.lstat().st_mode, path.read_bytes()) for path in sorted(folder.iterdir())}


def their_hook(project: Project) -> Path:
    path = project.root / ".git/hooks/pre-push"
    path.write_text(THEIRS)
    path.chmod(0o755)
    return path


def test_install_and_uninstall_leave_everything_as_it_was(bare):
    before = hooks(bare)
    assert bare.runctl("hook", "install").returncode == 0
    assert hooks(bare) == before | {"pre-push": (0o100755, install.SHIM.encode())}
    assert "installed already" in bare.runctl("hook", "install").stderr
    assert bare.runctl("hook", "uninstall").returncode == 0
    assert hooks(bare) == before
    said = bare.runctl("hook", "uninstall")
    assert (said.returncode, "there is no" in said.stderr) == (0, True)


def test_a_hook_that_is_there_is_kept_runs_first_and_is_put_back(bare):
    their_hook(bare)
    before = hooks(bare)
    assert bare.runctl("hook", "install").returncode == 0
    pushed = bare.push("origin", "HEAD:main")
    assert pushed.code == 0
    theirs, ours = pushed.err.index("theirs: origin HEAD "), pushed.err.index("a run of it would be accepted")
    assert theirs < ours
    assert bare.push("origin", "HEAD:other", THEIRS_CODE="7").code != 0
    # Skipping ours does not skip theirs.
    skipped = bare.push("origin", "HEAD:other", RUNCTL_SKIP="1")
    assert "theirs: " in skipped.err
    assert not skipped.ours
    assert bare.runctl("hook", "uninstall").returncode == 0
    assert hooks(bare) == before


def test_a_hook_that_does_not_read_what_it_is_given_breaks_nothing(bare):
    their_hook(bare).write_text("#!/bin/sh\nexit 0\n")
    bare.runctl("hook", "install")
    assert bare.push("origin", "HEAD:main").ours[0].endswith("a run of it would be accepted")


def test_a_link_is_kept_as_a_link(bare):
    path = their_hook(bare)
    path.rename(path.with_name("real"))
    path.symlink_to("real")
    before = hooks(bare)
    bare.runctl("hook", "install")
    assert "theirs: " in bare.push("origin", "HEAD:main").err
    bare.runctl("hook", "uninstall")
    assert hooks(bare) == before
    assert path.is_symlink()


def test_a_dry_run_says_what_would_be_done_and_does_nothing(bare):
    their_hook(bare)
    before = hooks(bare)
    said = bare.runctl("hook", "install", "--dry-run").stderr
    assert "would keep the hook that is there" in said
    assert "would write " in said
    assert hooks(bare) == before
    bare.runctl("hook", "install")
    before = hooks(bare)
    said = bare.runctl("hook", "uninstall", "--dry-run").stderr
    assert "would remove " in said
    assert "would put back " in said
    assert hooks(bare) == before


def test_an_old_version_of_ours_is_replaced_and_can_be_taken_away(bare):
    body = 'exec runctl-action hook run "$@"\n'
    head = install._HEAD.replace("version 1", "version 0")
    path = bare.root / ".git/hooks/pre-push"
    for command, left in (("install", True), ("uninstall", False)):
        path.write_text(f"{head}{hashlib.sha256(body.encode()).hexdigest()}\n{body}")
        assert bare.runctl("hook", command).returncode == 0
        assert path.exists() == left
        assert not path.with_name(install.KEPT).exists()
    bare.runctl("hook", "install")
    assert path.read_text() == install.SHIM


def test_one_of_ours_that_was_edited_is_not_touched(bare):
    bare.runctl("hook", "install")
    path = bare.root / ".git/hooks/pre-push"
    path.write_text(path.read_text() + "echo mine\n")
    before = hooks(bare)
    for command in ("install", "uninstall"):
        said = bare.runctl("hook", command)
        assert said.returncode == 2
        assert "was ours and has been changed since" in said.stderr
    assert hooks(bare) == before


def test_somebodys_hook_is_not_uninstalled_and_a_second_one_is_not_lost(bare):
    path = their_hook(bare)
    before = hooks(bare)
    said = bare.runctl("hook", "uninstall")
    assert (said.returncode, "is not ours" in said.stderr) == (0, True)
    assert hooks(bare) == before
    path.with_name(install.KEPT).write_text("kept before")
    before = hooks(bare)
    assert bare.runctl("hook", "install").returncode == 2
    assert hooks(bare) == before


def test_below_pre_commit_ours_still_runs_and_uninstall_says_where_it_is(bare):
    bare.runctl("hook", "install")
    (bare.root / ".pre-commit-config.yaml").write_text("repos: []\n")
    assert bare.git("-c", "alias.p=!pre-commit install -t pre-push", "p").returncode == 0
    assert bare.push("origin", "HEAD:main").ours[0].endswith("a run of it would be accepted")
    said = bare.runctl("hook", "uninstall")
    assert "pre-commit uninstall -t pre-push" in said.stderr
    assert bare.git("-c", "alias.p=!pre-commit uninstall -t pre-push", "p").returncode == 0
    assert "remove " in bare.runctl("hook", "uninstall").stderr


def test_hooks_path_is_honoured_outside_of_the_repository_and_where_it_is_no_folder(bare, tmp_path):
    bare.must("config", "core.hooksPath", str(tmp_path / "shared"))
    said = bare.runctl("hook", "install")
    assert said.returncode == 0
    assert "note: core.hooksPath is " in said.stderr
    assert (tmp_path / "shared/pre-push").read_text() == install.SHIM
    bare.must("config", "core.hooksPath", "/dev/null")
    said = bare.runctl("hook", "install")
    assert said.returncode == 2
    assert "core.hooksPath is /dev/null, which is no folder" in said.stderr


def test_a_folder_that_install_made_is_taken_away_again(bare):
    bare.must("config", "core.hooksPath", ".githooks")
    for others in (False, True):
        if others:
            (bare.root / ".githooks").mkdir()
            (bare.root / ".githooks/pre-commit").write_text("")
        assert bare.runctl("hook", "install").returncode == 0
        assert "would remove " in bare.runctl("hook", "uninstall", "--dry-run").stderr
        assert bare.runctl("hook", "uninstall").returncode == 0
        assert (bare.root / ".githooks").exists() == others
        assert not (bare.root / ".githooks/pre-push").exists()


def test_from_a_folder_below_the_root_it_is_the_same(bare):
    (bare.root / "a/b").mkdir(parents=True)
    assert bare.runctl("hook", "install", cwd=bare.root / "a/b").returncode == 0
    assert (bare.root / ".git/hooks/pre-push").exists()
    assert bare.runctl("hook", "install", cwd=bare.root.parent).returncode == 3
