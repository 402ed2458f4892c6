"""From a commit to files on another disk: packs, and what a hostile bucket cannot do."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard

from runctl_action.contract.documents import Pack, Packs
from runctl_action.contract.layout import Layout
from runctl_action.contract.manifest import SYMLINK
from runctl_action.contract.packing import END, member_header, padding
from runctl_action.errors import SyncError
from runctl_action.host import workspace
from runctl_action.source.packs import MAX_PACKS, plan, upload_source
from runctl_action.source.repository import open_repository, read_source


@dataclass
class Bucket:
    """What `packs` needs of the store, in memory; counts what is written."""

    objects: dict[str, bytes] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)

    def get(self, key: str) -> Any:
        return type("Stored", (), {"data": self.objects[key]}) if key in self.objects else None

    def size(self, key: str) -> int | None:
        return len(self.objects[key]) if key in self.objects else None

    def put(self, key: str, data: bytes, *, content_type: str = "") -> str:
        self.objects[key] = data
        self.written.append(key)
        return "etag"

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        data = path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        self.put(key, data)


LAYOUT = Layout()


def sync(project: Path, bucket: Bucket, **options: Any) -> tuple[Any, Packs]:
    bucket.written.clear()
    source = read_source(open_repository(project, dict(os.environ)), **options)
    return source, upload_source(source, bucket, LAYOUT)


def restore(source: Any, packs: Packs, bucket: Bucket, target: Path) -> Path:
    compressed = bucket.objects[LAYOUT.manifest(source.manifest.digest)]
    manifest = workspace.open_manifest(compressed, source.manifest.digest, len(source.manifest.canonical()))
    workspace.restore(manifest, packs.packs, lambda pack: io.BytesIO(bucket.objects[LAYOUT.pack(pack.sha256)]), target)
    return target


def packs_written(bucket: Bucket) -> list[str]:
    return [key for key in bucket.written if key.endswith(".tar.zst")]


def test_what_is_restored_is_what_was_committed(project: Path, commit: Any, tmp_path: Path) -> None:
    for name in (b"new\nline", b"caf\xe9"):
        Path(os.fsdecode(os.fsencode(project) + b"/" + name)).write_bytes(b"odd")
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "sub").mkdir()
    (project / "sub" / "link").symlink_to("../run.sh")
    commit(
        {"empty": "", "sub/twice": "same", "once": "same", "big": os.urandom(3_000_000), "looks/like a link": "run.sh"}
    )
    bucket = Bucket()
    source, packs = sync(project, bucket)
    target = restore(source, packs, bucket, tmp_path / "host" / "source")
    assert (target / "sub" / "link").readlink() == Path("../run.sh")
    assert os.access(target / "run.sh", os.X_OK)
    assert not os.access(target / "once", os.X_OK)
    assert (target / "big").read_bytes() == (project / "big").read_bytes()
    assert (target / "sub" / "twice").read_text() == (target / "once").read_text() == "same"
    assert Path(os.fsdecode(os.fsencode(target) + b"/caf\xe9")).read_bytes() == b"odd"
    assert packs.uploaded_files == len({entry.content for entry in source.manifest.entries})


def test_worktree_contents_and_lfs_objects_are_restored(project: Path, commit: Any, tmp_path: Path) -> None:
    data = b"weights" * 1000
    oid = hashlib.sha256(data).hexdigest()
    stored = project / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    stored.parent.mkdir(parents=True)
    stored.write_bytes(data)
    (project / "link").symlink_to("train.py")
    commit(
        {
            "model.bin": f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n",
            "train.py": "old",
        }
    )
    bucket = Bucket()
    source, packs = sync(project, bucket)
    assert (restore(source, packs, bucket, tmp_path / "a") / "model.bin").read_bytes() == data
    (project / "train.py").write_text("on disk")
    (project / "model.bin").write_bytes(data)
    source, packs = sync(project, bucket, kind="worktree")
    target = restore(source, packs, bucket, tmp_path / "b")
    assert (target / "train.py").read_text() == "on disk"
    assert (target / "link").readlink() == Path("train.py")


def test_an_unchanged_tree_uploads_nothing(project: Path, commit: Any) -> None:
    commit({"a": "1", "b": "2"})
    bucket = Bucket()
    sync(project, bucket)
    _, packs = sync(project, bucket)
    assert bucket.written == []
    assert packs.uploaded_files == 0


def test_a_changed_file_uploads_only_that(project: Path, commit: Any, tmp_path: Path) -> None:
    commit({f"file{n}": str(n) for n in range(20)})
    bucket = Bucket()
    sync(project, bucket)
    commit({"file3": "changed"})
    source, packs = sync(project, bucket)
    assert packs.uploaded_files == 1
    assert len(packs.packs) == 2
    assert (restore(source, packs, bucket, tmp_path / "t") / "file3").read_text() == "changed"


def test_more_than_eight_packs_become_one(project: Path, commit: Any, tmp_path: Path) -> None:
    bucket = Bucket()
    commit({f"file{n}": str(n) for n in range(40)})
    for n in range(MAX_PACKS):
        source, packs = sync(project, bucket)
        commit({f"new{n}": f"new {n}"})
    assert len(packs.packs) == MAX_PACKS
    source, packs = sync(project, bucket)
    assert len(packs.packs) == 1
    restore(source, packs, bucket, tmp_path / "t")


def test_half_waste_makes_a_fresh_pack() -> None:
    ids = {f"git:{n:040x}": 1 for n in range(10)}
    some = dict(list(ids.items())[:4])
    assert plan(some, {"p" * 64: tuple(ids)}).missing == some
    most = dict(list(ids.items())[:6])
    assert plan(most, {"p" * 64: tuple(ids)}).missing == {}


def test_a_pack_that_is_gone_is_not_relied_on(project: Path, commit: Any, tmp_path: Path) -> None:
    commit({"a": "1"})
    bucket = Bucket()
    _, packs = sync(project, bucket)
    del bucket.objects[LAYOUT.pack(packs.packs[0].sha256)]
    source, packs = sync(project, bucket)
    assert len(packs_written(bucket)) == 1
    restore(source, packs, bucket, tmp_path / "t")


@pytest.mark.parametrize("hint", [b"", b"not json", b'{"version": 2}', b'{"packs": {"x": ["y"]}, "pack_bytes": {}}'])
def test_a_broken_hint_costs_time_only(project: Path, commit: Any, tmp_path: Path, hint: bytes) -> None:
    commit({"a": "1"})
    bucket = Bucket({LAYOUT.latest("project", "main"): hint})
    source, packs = sync(project, bucket)
    restore(source, packs, bucket, tmp_path / "t")


def test_a_flipped_byte_in_a_pack_is_refused(project: Path, commit: Any, tmp_path: Path) -> None:
    commit({"a": os.urandom(5000)})
    bucket = Bucket()
    source, packs = sync(project, bucket)
    key = LAYOUT.pack(packs.packs[0].sha256)
    for position in range(0, len(bucket.objects[key]), 97):
        good = bucket.objects[key]
        bucket.objects[key] = good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
        with pytest.raises(SyncError):
            restore(source, packs, bucket, tmp_path / f"t{position}")
        bucket.objects[key] = good


def test_a_file_changed_on_disk_is_noticed(project: Path, commit: Any, tmp_path: Path) -> None:
    commit({"a": "1", "b/c": "2"})
    bucket = Bucket()
    source, packs = sync(project, bucket)
    for n, spoil in enumerate((
        lambda t: (t / "a").write_text("9"),
        lambda t: (t / "b/c").unlink(),
        lambda t: (t / "extra").write_text(""),
        lambda t: (t / "a").chmod(0o755),
        lambda t: ((t / "a").unlink(), (t / "a").symlink_to("b/c")),
    )):  # fmt: skip
        target = restore(source, packs, bucket, tmp_path / f"t{n}")
        spoil(target)
        with pytest.raises(SyncError, match="not what was pushed"):
            workspace.verify(source.manifest, target)


def attacker_pack(bucket: Bucket, members: list[tuple[str, bytes]], *, level: int = 1) -> Pack:
    plain = b"".join(member_header(c, len(d)) + d + b"\0" * padding(len(d)) for c, d in members) + END
    data = zstandard.ZstdCompressor(level=level).compress(plain)
    sha = hashlib.sha256(data).hexdigest()
    bucket.objects[LAYOUT.pack(sha)] = data
    return Pack(sha256=sha, bytes=len(data))


def test_a_rewritten_bucket_is_refused(project: Path, commit: Any, tmp_path: Path) -> None:
    """Whoever can write packs, hints and the list of packs cannot choose what is trained."""
    commit({"train.py": "print('good')"})
    bucket = Bucket()
    source, packs = sync(project, bucket)
    content = source.manifest.entries[0].content
    evil = attacker_pack(bucket, [(content, b"print('evil')")])
    rewritten = Packs(digest=packs.digest, packs=(evil,))
    with pytest.raises(SyncError, match=r"not what was pushed: b'train\.py' differs"):
        restore(source, rewritten, bucket, tmp_path / "a")
    with pytest.raises(SyncError, match="no pack in the bucket holds"):
        restore(source, Packs(digest=packs.digest, packs=()), bucket, tmp_path / "b")
    manifest = source.manifest.canonical().replace(b"train.py", b"evil.py!")
    bucket.objects[LAYOUT.manifest(source.manifest.digest)] = zstandard.ZstdCompressor().compress(manifest)
    with pytest.raises(SyncError, match="not the one that was pushed"):
        restore(source, packs, bucket, tmp_path / "c")


def test_bombs_are_not_unpacked(project: Path, commit: Any, tmp_path: Path) -> None:
    commit({"a": "1"})
    bucket = Bucket()
    source, packs = sync(project, bucket)
    bomb = zstandard.ZstdCompressor().compress(b"\0" * 50_000_000)
    bucket.objects[LAYOUT.manifest(source.manifest.digest)] = bomb
    with pytest.raises(SyncError, match="not the one that was pushed"):
        restore(source, packs, bucket, tmp_path / "a")
    sync(project, bucket)
    large = attacker_pack(bucket, [(source.manifest.entries[0].content, b"1" * 10_000_000)])
    with pytest.raises(SyncError, match="10000000 bytes in the pack, not 1"):
        workspace.restore(
            source.manifest, (large,), lambda p: io.BytesIO(bucket.objects[LAYOUT.pack(p.sha256)]), tmp_path / "b"
        )


def hostile_headers() -> Iterator[bytes]:
    good = member_header("git:" + "a" * 40, 0)
    for name in (b"../../etc/passwd", b"/etc/passwd", b"git-" + b"a" * 39, b"GIT-" + b"a" * 40):
        yield _with_checksum(name.ljust(100, b"\0") + good[100:])
    for kind in (b"1", b"2", b"5", b"x", b"L"):
        yield _with_checksum(good[:156] + kind + good[157:])
    yield good[:100] + b"9" + good[101:]


def _with_checksum(head: bytes) -> bytes:
    blank = head[:148] + b" " * 8 + head[156:]
    return head[:148] + b"%06o\0 " % sum(blank) + head[156:]


@pytest.mark.parametrize("head", list(hostile_headers()))
def test_members_that_are_not_ours_are_refused(head: bytes, project: Path, commit: Any, tmp_path: Path) -> None:
    commit({"a": "1"})
    source = read_source(open_repository(project, dict(os.environ)))
    data = zstandard.ZstdCompressor().compress(head + END)
    pack = Pack(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    with pytest.raises(SyncError, match="damaged"):
        workspace.restore(source.manifest, (pack,), lambda _: io.BytesIO(data), tmp_path / "t")
    assert not any(path.is_file() for path in tmp_path.glob("t/**/*"))


def test_no_file_is_written_through_a_link(project: Path, commit: Any, tmp_path: Path) -> None:
    """A manifest with a link and a file below the link's name cannot be made: a path is a file or a folder."""
    from runctl_action.contract.manifest import Entry, Manifest, ManifestError

    entries = [Entry(SYMLINK, "git:" + "a" * 40, 4, b"out"), Entry("100644", "git:" + "b" * 40, 1, b"out/file")]
    with pytest.raises(ManifestError, match="both a file and a folder"):
        Manifest.of("sha1", entries)
