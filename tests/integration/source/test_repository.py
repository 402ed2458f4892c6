"""What is trained, read from real repositories."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runctl_action import errors
from runctl_action.contract.manifest import parse
from runctl_action.source.repository import find_script, open_repository, read_source


def opened(cwd: Path) -> Any:
    return open_repository(cwd, dict(os.environ))


def paths(root: Path, **options: Any) -> dict[bytes, Any]:
    return {entry.path: entry for entry in read_source(opened(root), **options).manifest.entries}


def test_the_root_is_found_by_git_from_a_subdirectory(project: Path, commit: Any) -> None:
    commit({"a/b/train.py": "1"})
    assert opened(project / "a" / "b").root == project
    assert "git rev-parse" in opened(project / "a").how


def test_the_root_of_a_worktree_is_the_worktree(project: Path, commit: Any, git: Any, tmp_path: Path) -> None:
    commit({"train.py": "1"})
    git("worktree", "add", "-q", str(tmp_path / "tree"), "-b", "side")
    assert opened(tmp_path / "tree").root == tmp_path / "tree"
    assert read_source(opened(tmp_path / "tree")).branch == "side"


def test_variables_that_a_hook_sets_do_not_redirect_git(
    project: Path, commit: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    commit({"train.py": "1"})
    other = tmp_path / "other"
    subprocess.run(["git", "init", "-q", str(other)], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    repository = open_repository(project, dict(os.environ))
    assert repository.root == project
    assert [e.path for e in read_source(repository).manifest.entries] == [b"train.py"]


def test_no_repository_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(errors.NotARepository) as caught:
        opened(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "git init" in caught.value.hint


@pytest.mark.parametrize("name", ["train.py", "sub/dir/train.py", "with space.py", "größe/训练.py"])
def test_a_script_is_found_from_the_root_and_from_its_folder(project: Path, commit: Any, name: str) -> None:
    commit({name: "1", "other.py": "2"})
    repository = opened(project)
    assert find_script(repository, project, name, "HEAD") == name
    folder = (project / name).parent
    assert find_script(repository, folder, Path(name).name, "HEAD") == name
    assert find_script(repository, folder, name, "HEAD") == name
    assert find_script(repository, folder, str(project / name), "HEAD") == name


def test_a_script_through_a_link_is_found(project: Path, commit: Any, tmp_path: Path) -> None:
    commit({"real/train.py": "1"})
    (project / "link.py").symlink_to("real/train.py")
    commit()
    assert find_script(opened(project), project, "link.py", "HEAD") == "link.py"
    (tmp_path / "outside.py").symlink_to(project / "real" / "train.py")
    assert find_script(opened(project), tmp_path, "outside.py", "HEAD") == "real/train.py"


def test_a_script_outside_the_root_shows_the_root_and_how_it_was_found(
    project: Path, commit: Any, tmp_path: Path
) -> None:
    commit({"train.py": "1"})
    (tmp_path / "elsewhere.py").write_text("1")
    with pytest.raises(errors.ScriptOutsideRoot) as caught:
        find_script(opened(project), project, "../elsewhere.py", "HEAD")
    assert f"the project root is {project} (detected by: git rev-parse" in str(caught.value)
    assert str(tmp_path / "elsewhere.py") in str(caught.value)


def test_an_untracked_script_names_the_nearest_tracked_ones(project: Path, commit: Any) -> None:
    commit({"training/train_mnist.py": "1"})
    (project / "training" / "train_mnist_e2e.py").write_text("1")
    with pytest.raises(errors.ScriptNotTracked) as caught:
        find_script(opened(project), project, "training/train_mnist_e2e.py", "HEAD")
    assert "on disk, but not tracked" in str(caught.value)
    assert "training/train_mnist.py" in str(caught.value)
    assert "git add training/train_mnist_e2e.py" in caught.value.hint


def test_the_manifest_holds_modes_links_empty_and_odd_names(project: Path, commit: Any) -> None:
    odd = [b"new\nline", b"tab\tname", b"caf\xe9"]
    for name in odd:
        Path(os.fsdecode(os.fsencode(project) + b"/" + name)).write_bytes(b"x")
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "link").symlink_to("run.sh")
    commit({"empty": "", "sub/file": "data"})
    source = read_source(opened(project))
    found = {entry.path: entry for entry in source.manifest.entries}
    assert set(odd) < set(found)
    assert (found[b"run.sh"].mode, found[b"link"].mode, found[b"empty"].size) == ("100755", "120000", 0)
    assert parse(source.manifest.canonical()) == source.manifest
    assert source.manifest.digest == hashlib.sha256(source.manifest.canonical()).hexdigest()


def test_the_tree_is_what_git_shows(project: Path, commit: Any, git: Any) -> None:
    first = commit({"train.py": "1"})
    commit({"train.py": "2"})
    assert read_source(opened(project)).tree == git("rev-parse", "HEAD^{tree}")
    assert read_source(opened(project), first).tree == git("rev-parse", f"{first}^{{tree}}")


def test_a_sha256_repository(tmp_path: Path) -> None:
    root = tmp_path / "sha256"
    subprocess.run(["git", "init", "-q", "--object-format=sha256", str(root)], check=True)
    (root / "train.py").write_text("1")
    subprocess.run("git add -A && git commit -q -m x", shell=True, check=True, cwd=root)
    source = read_source(opened(root))
    assert source.manifest.object_format == "sha256"
    assert len(source.manifest.entries[0].content) == len("git:") + 64


def test_a_dirty_tree_names_files_and_trains_the_commit(project: Path, commit: Any) -> None:
    commit({"train.py": "old", "gone.py": "x"})
    (project / "train.py").write_text("newer")
    (project / "gone.py").unlink()
    source = read_source(opened(project))
    assert source.dirty == ("gone.py", "train.py")
    assert {e.path: e.size for e in source.manifest.entries} == {b"train.py": 3, b"gone.py": 1}


def test_worktree_takes_tracked_files_as_they_are_on_disk(project: Path, commit: Any) -> None:
    commit({"train.py": "old", "gone.py": "x"})
    (project / "train.py").write_text("newer")
    (project / "gone.py").unlink()
    (project / "untracked.py").write_text("x")
    found = paths(project, kind="worktree")
    assert set(found) == {b"train.py"}
    assert found[b"train.py"].content == f"sha256:{hashlib.sha256(b'newer').hexdigest()}"


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside"])
def test_a_link_out_of_the_root_is_refused(project: Path, commit: Any, target: str) -> None:
    (project / "link").symlink_to(target)
    commit({"train.py": "1"})
    with pytest.raises(errors.UnsafeSymlink, match="leaves the project root"):
        read_source(opened(project))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


def test_an_lfs_pointer_stands_for_its_object(project: Path, commit: Any) -> None:
    data = b"weights" * 100
    oid = hashlib.sha256(data).hexdigest()
    commit({"model.bin": POINTER.format(oid=oid, size=len(data))})
    with pytest.raises(errors.LfsObjectMissing) as caught:
        read_source(opened(project))
    assert "git lfs fetch" in caught.value.hint
    stored = project / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    stored.parent.mkdir(parents=True)
    stored.write_bytes(data)
    entry = paths(project)[b"model.bin"]
    assert (entry.content, entry.size) == (f"sha256:{oid}", len(data))


def test_a_submodule_is_included_at_the_recorded_commit_or_refused(
    project: Path, commit: Any, git: Any, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    subprocess.run(["git", "init", "-q", str(library)], check=True)
    (library / "lib.py").write_text("recorded")
    subprocess.run("git add -A && git commit -q -m x", shell=True, check=True, cwd=library)
    commit({"train.py": "1"})
    git("submodule", "add", "-q", str(library), "vendor")
    commit()
    (project / "vendor" / "lib.py").write_text("changed on disk")
    found = paths(project)
    assert found[b"vendor/lib.py"].size == len("recorded")
    git("submodule", "deinit", "-q", "-f", "vendor")
    with pytest.raises(errors.SubmoduleMissing) as caught:
        read_source(opened(project))
    assert "git submodule update --init" in caught.value.hint


def test_a_large_file_is_an_input_error(project: Path, commit: Any) -> None:
    commit({"data.bin": "x" * 100})
    with pytest.raises(errors.FileTooLarge, match=r"data\.bin has 100 bytes"):
        read_source(opened(project), max_file_bytes=99)


def test_a_repository_without_commits_says_so(project: Path) -> None:
    with pytest.raises(errors.SourceError, match="no commit HEAD"):
        read_source(opened(project))
