"""Names, manifests and packs: nothing is written outside the run's directory, and what is no source is said."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path

import pytest
import zstandard
from hostile import NAMES, each, searched
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.contract.documents import Pack
from runctl_action.contract.manifest import EXECUTABLE, FILE, SYMLINK, Entry, Manifest, ManifestError, blob_hash, parse
from runctl_action.contract.packing import END, member_header, padding
from runctl_action.errors import SyncError, UnsafeSymlink
from runctl_action.host import workspace
from runctl_action.source.repository import _check_link

DATA = b"print('pushed')\n"


def content_of(data: bytes) -> str:
    hashed = blob_hash("sha1", len(data))
    hashed.update(data)
    return f"git:{hashed.hexdigest()}"


def entry(path: str | bytes, data: bytes = DATA, mode: str = FILE) -> Entry:
    return Entry(mode, content_of(data), len(data), os.fsencode(path))


def packed(*members: tuple[bytes, bytes], log: int = 20) -> bytes:
    """A pack of (header, content), in a frame that asks for a window of 2^`log` bytes."""
    plain = b"".join(head + data + bytes(padding(len(data))) for head, data in members) + END
    parameters = zstandard.ZstdCompressionParameters(window_log=log)
    # By pieces, so that the frame does not say how little there is.
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(plain) + compressor.flush()


def member(data: bytes) -> tuple[bytes, bytes]:
    return member_header(content_of(data), len(data)), data


def header(at: int, value: bytes, data: bytes = DATA) -> bytes:
    """That of a member, with other bytes somewhere, and a checksum that agrees with them."""
    head = bytearray(member(data)[0])
    head[at : at + len(value)] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def restore(entries: list[Entry], pack: bytes, base) -> None:
    """Into `base`/run/source. Whatever comes of it, nothing is beside it, and nothing that is no file, link or folder."""
    named = Pack(sha256=hashlib.sha256(pack).hexdigest(), bytes=len(pack))
    try:
        workspace.restore(Manifest.of("sha1", entries), (named,), lambda _: io.BytesIO(pack), base / "run" / "source")
    finally:
        assert {path.name for path in base.iterdir()} <= {"run"}
        assert {path.name for path in base.glob("run/*")} <= {"source"}
        below = [path for path in base.glob("run/source/**/*") if not path.is_symlink()]
        assert all(path.is_file() or path.is_dir() for path in below)


@pytest.mark.parametrize("name", each(NAMES))
def test_a_file_of_any_name_is_written_at_its_place_or_refused(name, tmp_path):
    try:
        restore([entry(name)], packed(member(DATA)), tmp_path)
    except ManifestError:
        parts = name.split("/")
        assert set(parts) & {"", ".", ".."} or ".git" in name.lower().split("/")
        return
    assert (tmp_path / "run" / "source" / name).read_bytes() == DATA


def test_a_manifest_with_any_name_in_it_is_parsed_as_that_name_or_refused():
    for name in NAMES.values():
        record = b"100644 %s %d\t%s\0" % (content_of(DATA).encode(), len(DATA), os.fsencode(name))
        try:
            found = parse(b"runctl-manifest 1 sha1\n" + record)
        except ManifestError:
            continue
        assert [os.fsdecode(found.path) for found in found.entries] == [name]


@pytest.mark.parametrize("target", each(NAMES))
def test_a_link_to_anything_is_made_and_not_followed_or_refused(target, tmp_path):
    data = os.fsencode(target)
    try:
        restore([entry("a", data, SYMLINK), entry("b", mode=EXECUTABLE)], packed(member(data), member(DATA)), tmp_path)
    except (SyncError, OSError):
        assert len(data) > 4000 or not data
        return
    assert os.readlink(os.fsencode(tmp_path / "run" / "source" / "a")) == data


@pytest.mark.parametrize("target", [b"", b"a\0b", b"a" * 5_000], ids=["empty", "nul", "long"])
def test_a_target_that_no_disk_can_hold_ends_as_what_it_is(target, tmp_path):
    with pytest.raises((SyncError, OSError)):
        restore([entry("a", target, SYMLINK)], packed(member(target)), tmp_path)


@pytest.mark.parametrize("target", [b"", b"a\0b", b"/etc/passwd", b"..", b"../x", b"a/../../x"])
def test_a_link_that_leaves_the_root_or_can_be_on_no_disk_is_refused_before_anything_is_spent(target):
    with pytest.raises(UnsafeSymlink):
        _check_link(b"sub/../link" if target == b"../x" else b"link", target)


def test_names_that_differ_only_in_case_or_composition_are_two_files_or_an_error_that_is_told(tmp_path):
    names = ["train.py", "TRAIN.py", "\u00e9", "e\u0301", "\u0130", "i\u0307"]
    contents = [DATA + name.encode() for name in names]
    try:
        restore([entry(n, d) for n, d in zip(names, contents, strict=True)], packed(*map(member, contents)), tmp_path)
    except OSError:
        # A disk that takes them for one, as macOS's do: no file is written over another.
        return
    assert [(tmp_path / "run" / "source" / name).read_bytes() for name in names] == contents


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"PK\3\4", id="a zip"),
        pytest.param(packed(), id="no member"),
        pytest.param(packed(member(DATA))[:-4], id="cut"),
        pytest.param(packed((header(0, b"../../../etc/passwd".ljust(100, b"\0")), DATA)), id="up"),
        pytest.param(packed((header(0, b"/etc/passwd".ljust(100, b"\0")), DATA)), id="absolute"),
        pytest.param(packed((header(0, b"train.py".ljust(100, b"\0")), DATA)), id="a path"),
        *[
            pytest.param(packed((header(156, kind), DATA)), id=what)
            for kind, what in [
                (b"1", "hard link"), (b"2", "link"), (b"3", "character device"), (b"4", "block device"),
                (b"5", "folder"), (b"6", "pipe"), (b"7", "contiguous"), (b"L", "long name"), (b"K", "long link"),
                (b"x", "pax"), (b"g", "global pax"), (b"S", "sparse"), (b"V", "volume"), (b"\0", "old file"),
            ]
        ],
        pytest.param(packed((member_header(content_of(DATA), 2**80), DATA)), id="declared size"),
        pytest.param(packed((member_header(content_of(b"other"), 2**80), DATA)), id="declared size of another"),
        pytest.param(packed((header(124, b"-0000000001\0"), DATA)), id="negative size"),
        pytest.param(packed(member(DATA), log=30), id="window of a gigabyte"),
        pytest.param(packed((member(DATA)[0], b"print('evil!!')\n")), id="other content"),
    ],
)  # fmt: skip
def test_a_pack_that_is_none_is_refused_and_writes_nothing_elsewhere(pack, tmp_path):
    with pytest.raises(SyncError):
        restore([entry("train.py")], pack, tmp_path)


def test_what_a_pack_holds_twice_or_for_nobody_is_not_written(tmp_path):
    other = member_header("git:" + "0" * 40, 3), b"abc"
    twice = member(DATA)[0], b"print('evil!!')\n"
    first = header(345, b"../../etc"), DATA  # ustar's prefix of a name: there is none in ours
    restore([entry("train.py")], packed(other, first, twice, other), tmp_path)
    assert (tmp_path / "run" / "source" / "train.py").read_bytes() == DATA
    assert [path.name for path in tmp_path.glob("run/source/*")] == ["train.py"]


def test_a_link_in_the_place_of_the_directory_is_not_written_through(tmp_path):
    (tmp_path / "run").mkdir()
    outside = tmp_path / "run" / "outside"
    outside.mkdir()
    (tmp_path / "run" / "source").symlink_to(outside)
    pack = packed(member(DATA))
    named = Pack(sha256=hashlib.sha256(pack).hexdigest(), bytes=len(pack))
    with pytest.raises(FileExistsError):
        workspace.restore(
            Manifest.of("sha1", [entry("train.py")]),
            (named,),
            lambda _: io.BytesIO(pack),
            tmp_path / "run" / "source",
        )
    assert list(outside.iterdir()) == []


a_name = st.sampled_from(sorted(NAMES.values())) | st.binary(max_size=20).map(os.fsdecode)


@searched
@given(st.lists(st.tuples(a_name, st.sampled_from([FILE, EXECUTABLE, SYMLINK])), max_size=5), st.data())
def test_whatever_a_manifest_and_a_pack_say_nothing_is_outside_of_the_runs_directory(names, data):
    contents = [os.fsencode(data.draw(a_name)) for _ in names]
    entries = [entry(name, content, mode) for (name, mode), content in zip(names, contents, strict=True) if name]
    pack = bytearray(packed(*map(member, contents)))
    for _ in range(data.draw(st.integers(0, 2))):
        pack[data.draw(st.integers(0, len(pack) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as base:
        try:
            restore(entries, bytes(pack), Path(base))
        except (SyncError, ManifestError, OSError):
            return
