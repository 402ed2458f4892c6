"""Every way to push a ref, over file and HTTP: each that could be trained is accepted, and said so."""

from __future__ import annotations

import pytest

from tests.integration.hook.projects import SETTINGS, Project


@pytest.fixture(params=[("file", "sha1"), ("http", "sha1"), ("file", "sha256"), ("http", "sha256")], ids="-".join)
def remote(request, make) -> Project:
    """With the hook, and one commit that is not pushed yet: the remote is empty."""
    found = make(*request.param)
    assert found.runctl("hook", "install").returncode == 0
    found.commit({"runctl.toml": SETTINGS, "train.py": "print(1)\n"})
    return found


def accepted(project: Project, *arguments: str) -> list[str]:
    pushed = project.push(*arguments)
    assert pushed.code == 0, pushed.err
    assert len(pushed.ours) <= 10
    return pushed.ours


def test_the_first_push_to_an_empty_remote_a_new_branch_and_one_that_goes_on(remote):
    first = remote.must("rev-parse", "HEAD")
    lines = accepted(remote, "origin", "HEAD:main")
    assert lines[0] == f"main ({first[:12]}): a run of it would be accepted"
    assert lines[2] == "  source  2 files, 29 B; all new"
    remote.commit({"train.py": "print(2)\n", "more.txt": "x" * 1000})
    assert (
        accepted(remote, "origin", "HEAD:main")[2]
        == "  source  3 files, 1.0 kB; 2 files, 1.0 kB new to the branch at origin"
    )
    assert accepted(remote, "origin", "HEAD:refs/heads/other/branch")[0].startswith("other/branch (")
    assert remote.must("ls-remote", "origin", "refs/heads/*").count("\n") == 1


def test_a_force_push_and_a_deletion(remote):
    remote.commit({"train.py": "print(2)\n"})
    accepted(remote, "origin", "HEAD:main", "HEAD:gone")
    remote.must("reset", "-q", "--hard", "HEAD^")
    remote.commit({"train.py": "print(3)\n"})
    assert "1 file, 9 B new to the branch at origin" in accepted(remote, "--force", "origin", "HEAD:main")[2]
    assert accepted(remote, "origin", ":gone") == []


def test_a_force_push_over_a_commit_that_is_not_here(remote):
    accepted(remote, "origin", "HEAD:main")
    elsewhere = Project(remote.root.parent / "elsewhere", remote.environ)
    remote.must("clone", "-q", remote.must("remote", "get-url", "origin"), str(elsewhere.root))
    elsewhere.must("checkout", "-q", "-B", "main", "origin/main")
    elsewhere.commit({"train.py": "print(4)\n"})
    assert elsewhere.push("origin", "main").code == 0
    remote.commit({"train.py": "print(5)\n"})
    assert accepted(remote, "--force", "origin", "HEAD:main")[2] == "  source  2 files, 29 B; all new"


def test_tags_light_and_annotated_and_one_of_a_file(remote):
    remote.must("tag", "light")
    remote.must("tag", "-a", "-m", "x", "heavy")
    remote.must("tag", "blob", "HEAD:train.py")
    lines = accepted(remote, "origin", "light", "heavy", "blob")
    # One commit, by both names.
    assert lines[0].startswith("refs/tags/light, refs/tags/heavy (")
    assert accepted(remote, "origin", ":light") == []


def test_several_refs_at_once_and_one_of_them_bad(remote):
    remote.must("branch", "good")
    remote.commit({"runctl.toml": 'script = "missing.py"\n'})
    remote.must("branch", "bad")
    pushed = remote.push("origin", "good", "bad")
    assert pushed.code != 0
    assert any(line.startswith("bad (") and line.endswith("a run of it would be refused") for line in pushed.ours)
    assert any(line.startswith("good (") and "would be accepted" in line for line in pushed.ours)
    assert remote.must("ls-remote", "origin") == ""
    assert accepted(remote, "origin", "good")[0].startswith("good (")
