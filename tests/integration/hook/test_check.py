"""What is said of a commit that is pushed: it is the commit's settings, script and files that count."""

from __future__ import annotations

import time

import pytest

from tests.integration.hook.projects import SETTINGS, Project

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345\n"


def refused(project: Project) -> str:
    pushed = project.push()
    assert pushed.code != 0
    assert project.must("ls-remote", "origin") == ""
    assert "Traceback" not in pushed.err
    assert pushed.ours[-1].endswith("git push --no-verify, or RUNCTL_SKIP=1")
    return "\n".join(pushed.ours)


def test_settings_that_are_broken_in_the_commit_block_it_whatever_is_on_disk(project):
    project.commit({"runctl.toml": SETTINGS + 'spto = "never"\n'})
    (project.root / "runctl.toml").write_text(SETTINGS)
    assert "runctl.toml: spto: there is no such setting: did you mean spot?" in refused(project)


def test_settings_that_are_broken_on_disk_alone_block_nothing(project):
    (project.root / "runctl.toml").write_text("broken = ")
    (project.root / "train.py").unlink()
    pushed = project.push()
    assert pushed.code == 0
    assert pushed.ours[0].endswith("a run of it would be accepted")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"runctl.toml": "script = "}, "runctl.toml cannot be read"),
        ({"runctl.toml": SETTINGS + '[hook]\nmode = "trian"\n'}, "hook.mode: 'trian' is none of check, train, off"),
        ({"runctl.toml": SETTINGS + "hook = 3\n"}, "`hook` is not a table"),
        ({"runctl.toml": "[hook]\nstrict = true\n"}, "no script is set"),
        ({"runctl.toml": 'script = "other.py"\n'}, "the script other.py is not tracked at"),
        ({"runctl.toml": 'script = "../other.py"\n'}, "is not under the project root"),
        ({"data.bin": "x" * 2000, "runctl.toml": SETTINGS + 'max-file-bytes = "1kB"\n'}, "data.bin has 2000 bytes"),
        ({"data.bin": "x" * 200, "runctl.toml": SETTINGS + 'max-file-bytes = "150B"\n'}, "data.bin has 200 bytes"),
        ({"model.bin": POINTER}, "model.bin is an LFS pointer and its object is not here"),
    ],
)
def test_what_a_run_would_be_refused_for_blocks_a_push(project, files, said):
    project.commit(files)
    assert said in refused(project)


def test_a_link_that_leaves_the_root_blocks_a_push_and_one_inside_does_not(project):
    (project.root / "inside").symlink_to("train.py")
    project.must("add", "inside")
    project.commit({})
    assert project.push().code == 0
    (project.root / "outside").symlink_to("../../secret")
    project.must("add", "outside")
    project.commit({})
    pushed = project.push()
    assert pushed.code != 0
    assert any("outside leaves the project root" in line for line in pushed.ours)


def test_an_lfs_object_that_is_here_counts_with_its_own_bytes(project):
    objects = project.root / ".git/lfs/objects/aa/aa"
    objects.mkdir(parents=True)
    (objects / ("a" * 64)).write_bytes(b"x" * 12345)
    project.commit({"model.bin": POINTER})
    pushed = project.push()
    assert pushed.code == 0
    assert "  source  3 files, 12.4 kB; all new" in pushed.ours


def test_a_submodule_that_is_not_checked_out_blocks_a_push(project):
    project.must("update-index", "--add", "--cacheinfo", f"160000,{project.must('rev-parse', 'HEAD')},sub")
    project.must("commit", "-q", "-m", "x")
    assert "the submodule sub is not checked out" in refused(project)


def test_modules_that_are_left_behind_are_named_and_block_nothing(project):
    project.commit({"train.py": "import json, model, nets.deep\n", "nets/__init__.py": ""})
    (project.root / "model.py").write_text("")
    (project.root / "nets/deep.py").write_text("")
    pushed = project.push()
    assert pushed.code == 0
    assert pushed.ours[-1] == (
        "warning: imported by the script, on this disk, and not in the commit: model.py, nets/deep.py; git add them"
    )


def test_what_is_quoted_of_a_commit_does_not_steer_the_terminal(project):
    project.commit({"runctl.toml": 'script = "\\u001b]0;x\\u0007.py"\n'})
    said = refused(project)
    assert "the script \\x1b]0;x\\x07.py is not tracked" in said
    assert "\x1b" not in said


def test_a_branch_with_a_name_for_a_shell_is_checked_like_any_other(project):
    for name in (
        "$(touch${IFS}pwned)",
        "`touch${IFS}pwned`",
        "a';touch${IFS}pwned;'",
        '"&&touch${IFS}pwned',
        "-x",
        "--exec=x",
    ):
        pushed = project.push("origin", f"HEAD:refs/heads/{name}")
        assert pushed.code == 0, pushed.err
        assert pushed.ours[0].startswith(f"{name} (")
    assert not list(project.root.rglob("pwned*"))


def test_the_price_is_asked_for_once_and_kept_for_the_next_push(project, aws, tmp_path):
    aws.world.faults.clear()
    project.environ |= aws.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert project.push().code == 0
    kept = tmp_path / "cache/runctl-action/prices/us-east-1-on-demand-t3.medium.json"
    deadline = time.monotonic() + 100
    while not kept.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    host = next(line for line in project.push("origin", "HEAD:again").ours if line.startswith("  host "))
    assert host.endswith("; 0.0416 USD/h on demand, 0.25 USD at most (list price, 0 h old)")


def test_a_push_that_has_nothing_to_do_with_training_is_silent(project):
    for toml in (
        None,
        'bucket = "b"\n',
        SETTINGS + '[hook]\nbranches = ["exp/*"]\n',
        SETTINGS + '[hook]\nmode = "off"\n',
    ):
        if toml is None:
            project.must("rm", "-q", "runctl.toml")
            project.must("commit", "-q", "-m", "x")
        else:
            project.commit({"runctl.toml": toml})
        pushed = project.push()
        assert (pushed.code, pushed.err) == (0, ""), toml


def test_settings_in_pyproject_are_read(project):
    project.must("rm", "-q", "runctl.toml")
    project.commit(
        {
            "pyproject.toml": '[project]\nname = "x"\n[tool.runctl]\nscript = "no.py"\n[tool.runctl.hook]\nstrict = true\n'
        }
    )
    assert "the script no.py is not tracked" in refused(project)


def test_variables_of_this_machine_do_not_count_for_a_check(project):
    pushed = project.push(RUNCTL_TYPO="x", RUNCTL_SCRIPT="other.py")
    assert pushed.code == 0
    assert "  script  train.py" in pushed.ours


def test_two_ways_to_push_all_the_same(project):
    project.commit({"runctl.toml": 'script = "other.py"\n'})
    assert project.push().code != 0
    assert project.push("origin", "HEAD:a", RUNCTL_SKIP="0").code != 0
    assert project.push("origin", "HEAD:a", RUNCTL_SKIP="1").code == 0
    assert project.push("--no-verify", "origin", "HEAD:b").code == 0


def test_what_cannot_be_checked_is_pushed_with_a_warning_unless_the_hook_is_strict(project, tmp_path):
    # A run needs a repository that git finds by itself: this one is only found by who names it.
    hidden = tmp_path / "hidden"
    (project.root / ".git").rename(hidden)
    apart = ["--git-dir", str(hidden), "--work-tree", str(project.root)]
    done = project.git(*apart, "push", "-q", "origin", "HEAD")
    assert done.returncode == 0
    assert "runctl-action: warning: nothing was checked: " in done.stderr
    (project.root / "runctl.toml").write_text(SETTINGS + "[hook]\nstrict = true\n")
    assert project.git(*apart, "commit", "-q", "-a", "-m", "x").returncode == 0
    done = project.git(*apart, "push", "-q", "origin", "HEAD")
    assert done.returncode != 0
    assert "hook.strict blocks it" in done.stderr


def test_another_repository_around_it_is_not_taken_for_the_one_that_is_pushed(project, tmp_path):
    hidden = tmp_path / "hidden"
    (project.root / ".git").rename(hidden)
    project.must("init", "-q")
    done = project.git("--git-dir", str(hidden), "--work-tree", str(project.root), "push", "-q", "origin", "HEAD")
    assert done.returncode == 0
    assert "is not the one that git finds in" in done.stderr


def test_a_bare_repository_is_pushed_from_without_a_check(project, tmp_path):
    project.must("clone", "-q", "--bare", str(project.root), str(tmp_path / "mirror"))
    (tmp_path / "mirror/hooks/pre-push").write_text((project.root / ".git/hooks/pre-push").read_text())
    (tmp_path / "mirror/hooks/pre-push").chmod(0o755)
    pushed = project.push("--mirror", project.must("remote", "get-url", "origin"), cwd=tmp_path / "mirror")
    assert pushed.code == 0
    assert pushed.ours[0].startswith("warning: nothing was checked: ")
