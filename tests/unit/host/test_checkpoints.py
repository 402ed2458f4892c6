"""Which files are checkpoints, when they are complete, and that nothing among them is in the way of the others."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from runctl_action.contract.documents import Checkpoint
from runctl_action.host.checkpoints import Checkpoints, Watch, matching


class Store:
    def __init__(self) -> None:
        self.uploaded: list[str] = []
        self.refused: set[str] = set()
        self.listed: list[tuple[Checkpoint, ...]] = []

    def upload(self, path: Path, sha256: str, name: str) -> str:
        if name in self.refused or "*" in self.refused:
            raise RuntimeError("S3 is away")
        self.uploaded.append(name)
        return f"key of {name}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "source" / "c").mkdir(parents=True)
    return tmp_path / "source"


def write(root: Path, name: str, text: str = "x", *, at: float = 0) -> None:
    path = root / "c" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - 1000 + at,) * 2)


def kept(root: Path, store: Store, **options: Any) -> Checkpoints:
    return Checkpoints(root, ("c/*",), store.upload, store.listed.append, **options)


def test_what_is_there_before_the_training_is_not_new_until_it_changes(root: Path) -> None:
    write(root, "a")
    checkpoints = kept(root, store := Store())
    checkpoints.scan(final=True)
    assert store.uploaded == []
    write(root, "a", "other", at=1)
    checkpoints.scan(final=True)
    assert store.uploaded == ["c/a"]


def test_a_checkpoint_is_uploaded_once_it_has_been_quiet(root: Path) -> None:
    clock = [0.0]
    checkpoints = kept(root, store := Store(), monotonic=lambda: clock[0])
    write(root, "a")
    for seconds, uploaded in ((1, []), (2, []), (4, ["c/a"]), (9, ["c/a"])):
        clock[0] = seconds
        checkpoints.scan()
        assert store.uploaded == uploaded
    assert checkpoints.changed_at == 1


def test_one_that_is_taken_away_is_removed_and_one_that_comes_again_is_not(root: Path) -> None:
    checkpoints = kept(root, store := Store())
    write(root, "a")
    checkpoints.scan(final=True)
    (root / "c" / "a").rename(root / "aside")
    for back, removed in (("", True), ("", True), ("aside", False)):
        if back:
            (root / back).rename(root / "c" / "a")
        checkpoints.scan()
        assert [c.removed for c in checkpoints.found.values()] == [removed]
    assert [[c.removed for c in listed] for listed in store.listed] == [[False], [True], [False]]
    assert store.uploaded == ["c/a"]


def test_a_link_in_the_place_of_a_checkpoint_is_not_it(root: Path) -> None:
    checkpoints = kept(root, Store())
    write(root, "a")
    checkpoints.scan(final=True)
    (root / "c" / "a").unlink()
    (root / "c" / "a").symlink_to("/etc/passwd")
    checkpoints.scan(final=True)
    assert checkpoints.found["c/a"].removed


def test_one_that_cannot_be_kept_does_not_keep_the_others_back_and_is_tried_again(root: Path) -> None:
    checkpoints = kept(root, store := Store())
    for name in "abc":
        write(root, name)
    store.refused = {"c/b"}
    checkpoints.scan(final=True)
    assert (set(checkpoints.found), checkpoints.problems) == ({"c/a", "c/c"}, {"c/b": "RuntimeError: S3 is away"})
    store.refused = set()
    checkpoints.scan(final=True)
    assert (set(checkpoints.found), checkpoints.problems) == ({"c/a", "c/b", "c/c"}, {})


def test_when_the_bucket_is_away_nobody_waits_for_every_checkpoint(root: Path) -> None:
    asked = []

    def upload(path: Path, sha256: str, name: str) -> str:
        asked.append(name)
        raise RuntimeError("S3 is away")

    checkpoints = Checkpoints(root, ("c/*",), upload)
    for number in range(20):
        write(root, str(number))
    checkpoints.scan(final=True)
    assert (len(asked), len(checkpoints.problems)) == (3, 20)


def test_the_newest_comes_first_and_of_very_many_the_newest_are_kept(root: Path) -> None:
    checkpoints = kept(root, store := Store(), most=5)
    for number in range(20):
        write(root, f"{number:02}", at=number)
    checkpoints.scan(final=True)
    assert store.uploaded == ["c/19", "c/18", "c/17", "c/16", "c/15"]
    assert checkpoints.left_out == 15
    write(root, "20", at=20)
    (root / "c" / "18").unlink()
    checkpoints.scan(final=True)
    assert set(checkpoints.found) == {"c/20", "c/19", "c/17", "c/16", "c/15"}


def test_a_list_that_could_not_be_written_is_written_at_the_next_scan(root: Path) -> None:
    listed: list[int] = []

    def publish(found: tuple[Checkpoint, ...]) -> None:
        listed.append(len(found))
        if len(listed) == 1:
            raise RuntimeError("S3 is away")

    checkpoints = Checkpoints(root, ("c/*",), Store().upload, publish)
    write(root, "a")
    with pytest.raises(RuntimeError):
        checkpoints.scan(final=True)
    checkpoints.scan()
    checkpoints.scan()
    assert listed == [1, 1]


@pytest.mark.parametrize("seconds", [0, -(10**9), 2**40, 10**12])
def test_a_file_may_have_any_time(root: Path, seconds: int) -> None:
    checkpoints = kept(root, Store())
    write(root, "a")
    try:
        os.utime(root / "c" / "a", (seconds, seconds))
    except OverflowError:
        pytest.skip("not a time of this file system")
    checkpoints.scan(final=True)
    assert 2000 <= checkpoints.found["c/a"].modified_at.year < 2200


@pytest.mark.parametrize("glob", ["c/*", "**/*", "", "/etc/*", "../*", "c/[", "a**b"])
def test_any_glob_finds_no_link_no_pipe_and_raises_nothing(root: Path, glob: str) -> None:
    os.mkfifo(root / "c" / "pipe")
    (root / "c" / "out").symlink_to("/etc")
    (root / "c" / "round").symlink_to("round")
    (root / "c" / ".hidden").touch()
    (root / "c" / "half.tmp").touch()
    write(root, "a")
    names = {path.name for path in matching(root, [glob])}
    assert not names & {"pipe", "out", "round", ".hidden", "half.tmp"}
    assert ("a" in names) == (glob in {"c/*", "**/*"})


def test_a_watch_ends_after_the_upload_under_way_and_does_not_begin_another(root: Path) -> None:
    began, go_on = threading.Event(), threading.Event()
    uploaded: list[str] = []

    def upload(path: Path, sha256: str, name: str) -> str:
        uploaded.append(name)
        began.set()
        assert go_on.wait(60)
        return name

    clock = iter(range(10**9))
    checkpoints = Checkpoints(root, ("c/*",), upload, monotonic=lambda: 10.0 * next(clock))
    for name in "abc":
        write(root, name)
    watch = Watch(checkpoints, every_seconds=0.01)
    with watch:
        assert began.wait(60)
        watch._over.set()
        go_on.set()
    assert not watch._thread.is_alive()
    assert len(uploaded) == 1
