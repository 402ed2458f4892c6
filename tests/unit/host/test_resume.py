"""What is put back before a training, and what never is."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runctl_action.contract.documents import Checkpoint, Resume
from runctl_action.errors import SyncError
from runctl_action.host.checkpoints import Checkpoints
from runctl_action.host.resume import Restored, open_resume, restore_checkpoints

THEN = datetime(2026, 7, 1, 12, tzinfo=UTC)


class Bucket:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def file(self, path: str, data: bytes = b"data", hour: int = 0) -> Checkpoint:
        return self._put(path, "file", data, hour)

    def directory(self, path: str, files: dict[str, bytes], hour: int = 0) -> Checkpoint:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return self._put(path, "directory", out.getvalue(), hour)

    def _put(self, path: str, kind: str, data: bytes, hour: int) -> Checkpoint:
        key = f"{path} of {hour}"
        self.objects[key] = data
        at = THEN.replace(hour=hour)
        return Checkpoint(
            path=path, kind=kind, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), key=key, modified_at=at, uploaded_at=at
        )  # type: ignore[arg-type]  # fmt: skip

    def fetch(self, key: str, path: Path) -> None:
        path.write_bytes(self.objects[key])


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "source" / "c").mkdir(parents=True)
    return tmp_path / "source"


def restore(bucket: Bucket, root: Path, *checkpoints: Checkpoint, globs: tuple[str, ...] = ("c/*",)) -> Restored:
    return restore_checkpoints(Resume(run_id="run-0", checkpoints=checkpoints), bucket.fetch, root, globs)


def test_all_are_put_back_with_their_times_and_are_not_new(bucket: Bucket, root: Path) -> None:
    files = {"w": b"weights", "deep/o": b"optimizer"}
    found = restore(bucket, root, bucket.directory("c/two", files, hour=2), bucket.file("c/one", hour=1))
    assert (found.first, found.count, found.warnings) == (root / "c/two", 2, [])
    assert ((root / "c/two/w").read_bytes(), (root / "c/two/deep/o").read_bytes()) == (b"weights", b"optimizer")
    times = [os.stat(root / name).st_mtime for name in ("c/one", "c/two", "c/two/w", "c/two/deep/o")]
    assert times == [THEN.replace(hour=hour).timestamp() for hour in (1, 2, 2, 2)]
    checkpoints = Checkpoints(root, ("c/*",), lambda *_: pytest.fail("it was uploaded again"))
    checkpoints.scan(final=True)
    assert checkpoints.found == {}


def test_what_is_newer_stays(bucket: Bucket, root: Path) -> None:
    new, old = bucket.file("c/d/w", b"new", hour=2), bucket.directory("c/d", {"w": b"old", "o": b"old"}, hour=1)
    found = restore(bucket, root, new, old)
    assert found.warnings == []
    assert ((root / "c/d/w").read_bytes(), (root / "c/d/o").read_bytes()) == (b"new", b"old")


@pytest.mark.parametrize("path", ["train.py", "lib", "lib/net.py", ".", "../x", "/tmp/x", "c/out/x", "train.py/x", ""])
def test_nothing_of_the_source_and_nothing_outside_of_it_is_written(bucket: Bucket, root: Path, path: str) -> None:
    (root / "train.py").write_text("pushed")
    (root / "lib").mkdir()
    (root / "lib" / "net.py").write_text("pushed")
    (root / "c" / "out").symlink_to(root.parent)
    for checkpoint in (bucket.file(path), bucket.directory(path, {"net.py": b"evil", "x": b"evil"})):
        with pytest.raises(SyncError, match="cannot be put back"):
            restore(bucket, root, checkpoint)
    assert ((root / "train.py").read_text(), (root / "lib" / "net.py").read_text()) == ("pushed", "pushed")
    assert sorted(path.name for path in root.parent.iterdir()) == ["source"]


def test_a_checkpoint_that_is_in_the_source_is_replaced(bucket: Bucket, root: Path) -> None:
    (root / "c" / "one").write_text("pushed")
    restore(bucket, root, bucket.file("c/one", b"trained"))
    assert (root / "c" / "one").read_text() == "trained"


@pytest.mark.parametrize("member", ["../../train.py", "link/x"])
def test_a_directory_does_not_reach_out_of_its_place(bucket: Bucket, root: Path, member: str) -> None:
    (root / "train.py").write_text("pushed")
    (root / "c" / "d").mkdir()
    (root / "c" / "d" / "link").symlink_to(root)
    with pytest.raises(SyncError):
        restore(bucket, root, bucket.directory("c/d", {member: b"evil"}))
    assert (root / "train.py").read_text() == "pushed"
    assert not (root / "x").exists()


def test_the_first_must_be_there_and_another_may_be_missing(bucket: Bucket, root: Path) -> None:
    whole, damaged, gone = bucket.file("c/a"), bucket.file("c/b"), bucket.file("c/e")
    bucket.objects[damaged.key] = b"other"
    del bucket.objects[gone.key]
    found = restore(bucket, root, whole, damaged, gone)
    assert (found.count, found.bytes, len(found.warnings)) == (1, 4, 2)
    assert not (root / "c/b").exists()
    for first in (damaged, gone):
        with pytest.raises(SyncError, match=first.path):
            restore(bucket, root, first, whole)


def test_only_the_ordered_document_is_read() -> None:
    resume = Resume(run_id="run-0", checkpoints=(Bucket().file("c/a"),))
    sha256 = hashlib.sha256(resume.to_json()).hexdigest()
    assert open_resume(resume.to_json(), sha256) == resume
    for data in (None, b"", resume.to_json() + b" "):
        with pytest.raises(SyncError, match="not what was ordered"):
            open_resume(data, sha256)
