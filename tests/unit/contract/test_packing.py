from __future__ import annotations

import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.contract import packing
from runctl_action.contract.packing import PackError, member_header, padding, read_member

CONTENT = "git:" + "a1" * 20
LFS = "sha256:" + "b2" * 32

a_content = st.one_of(
    st.binary(min_size=20, max_size=20).map(lambda raw: f"git:{raw.hex()}"),
    st.binary(min_size=32, max_size=32).map(lambda raw: f"git:{raw.hex()}"),
    st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}"),
)


def pack(members: dict[str, bytes]) -> bytes:
    written = [member_header(name, len(data)) + data + b"\0" * padding(len(data)) for name, data in members.items()]
    return b"".join(written) + packing.END


def with_field(at: int, value: bytes) -> bytes:
    """A header with other bytes somewhere, and a checksum that agrees with them: not damaged but made."""
    head = bytearray(member_header(CONTENT, 3))
    head[at : at + len(value)] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


@given(a_content, st.one_of(st.integers(0, 8**11 + 5), st.integers(8**11 - 2, 8**11 + 2), st.integers(0, 2**87)))
def test_a_header_says_what_was_written_into_it(content, size):
    head = member_header(content, size)
    assert len(head) == packing.BLOCK
    assert read_member(io.BytesIO(head)) == (content, size)


@pytest.mark.parametrize("size", [0, 1, 8**11 - 1, 8**11, 20 * 1024**4])
def test_tarfile_reads_the_same_sizes(size):
    info = tarfile.TarInfo.frombuf(member_header(CONTENT, size), "ascii", "strict")
    assert (info.name, info.size, info.isreg(), info.mode) == (CONTENT.replace(":", "-"), size, True, 0o644)


@given(st.integers(0, 10**6))
def test_contents_are_padded_to_whole_blocks(size):
    assert (size + padding(size)) % packing.BLOCK == 0
    assert 0 <= padding(size) < packing.BLOCK


def test_a_real_tar_lists_and_extracts_a_pack(tmp_path):
    members = {CONTENT: b"print('x')\n", LFS: b"\0" * 1024, "git:" + "c3" * 20: b""}
    (tmp_path / "pack.tar").write_bytes(pack(members))
    listed = subprocess.run(
        ["tar", "-tvf", "pack.tar"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert [line.split()[2::3] for line in listed.splitlines()] == [
        [str(len(data)), name.replace(":", "-")] for name, data in members.items()
    ]
    subprocess.run(["tar", "-xf", "pack.tar"], cwd=tmp_path, check=True)
    for name, data in members.items():
        assert (tmp_path / name.replace(":", "-")).read_bytes() == data


def test_members_are_read_one_after_another_to_the_end():
    members = {CONTENT: b"abc", LFS: b"x" * 513}
    stream = io.BytesIO(pack(members))
    found = {}
    while (member := read_member(stream)) is not None:
        found[member[0]] = stream.read(member[1])
        stream.read(padding(member[1]))
    assert found == members


def test_nothing_at_all_is_the_end():
    assert read_member(io.BytesIO(b"")) is None


@given(st.integers(0, packing.BLOCK - 1), st.integers(1, 255))
def test_a_header_with_one_damaged_byte_is_refused(at, change):
    head = bytearray(member_header(CONTENT, 8**11 + 5))
    head[at] ^= change
    if at in {154, 155}:
        # What follows the checksum's digits is no part of any sum.
        return
    with pytest.raises(PackError):
        read_member(io.BytesIO(bytes(head)))


@given(st.binary(min_size=1, max_size=packing.BLOCK))
def test_bytes_that_are_no_header_are_refused(data):
    if data.count(0) == len(data):
        return
    with pytest.raises(PackError):
        read_member(io.BytesIO(data))


def test_a_pack_that_ends_within_a_header_is_refused():
    with pytest.raises(PackError, match="ends within a header"):
        read_member(io.BytesIO(member_header(CONTENT, 3)[:-1]))


@pytest.mark.parametrize("kind", [b"1", b"2", b"5", b"L", b"x", b"\0"])
def test_only_plain_files_are_members(kind):
    with pytest.raises(PackError, match="not a member of a pack"):
        read_member(io.BytesIO(with_field(156, kind)))


@pytest.mark.parametrize(
    "name", [b"../../etc/passwd", b"/etc/passwd", b"git-" + b"a" * 39 + b"/", b"git-" + b"A" * 40, b"md5-" + b"a" * 40]
)
def test_only_content_ids_are_names_of_members(name):
    with pytest.raises(PackError, match="not a member of a pack"):
        read_member(io.BytesIO(with_field(0, name.ljust(100, b"\0"))))


@pytest.mark.parametrize(
    "size",
    [
        b"-0000000001\0",
        b"+0000000001\0",
        b" 0000000001\0",
        b"0000000_001\0",
        b"0000000008\0\0",
        b"\0" * 12,
        b"\xff" * 12,
        b"\x81" + b"\0" * 11,
    ],
)
def test_a_size_that_is_no_size_is_refused(size):
    with pytest.raises(PackError, match="damaged"):
        read_member(io.BytesIO(with_field(124, size)))
