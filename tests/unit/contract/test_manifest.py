from __future__ import annotations

import contextlib
import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.contract.manifest import EXECUTABLE, FILE, SYMLINK, Entry, Manifest, ManifestError, blob_hash, parse

HEADER = b"runctl-manifest 1 sha1\n"
OID = "git:" + "0123456789abcdef" * 2 + "01234567"
GIT = OID.encode()

a_part = (
    st.binary(min_size=1, max_size=8)
    .map(lambda raw: raw.replace(b"/", b"").replace(b"\0", b""))
    .filter(lambda part: part and part not in {b".", b".."} and part.lower() != b".git")
)
an_entry = st.builds(
    Entry,
    mode=st.sampled_from([FILE, EXECUTABLE, SYMLINK]),
    content=st.one_of(
        st.binary(min_size=20, max_size=20).map(lambda raw: f"git:{raw.hex()}"),
        st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}"),
    ),
    size=st.integers(0, 10**18 - 1),
    path=st.lists(a_part, min_size=1, max_size=3).map(b"/".join),
)


def entry(path: bytes, *, mode: str = FILE, content: str = OID, size: int = 1) -> Entry:
    return Entry(mode, content, size, path)


def test_the_canonical_form_is_written_down_here():
    manifest = Manifest.of(
        "sha1",
        [
            entry(b"train.py", size=12),
            entry(b"data/model.bin", content="sha256:" + "ab" * 32, size=5_000_000_000),
            entry(b"bin/run", mode=EXECUTABLE, size=0),
            entry(b"latest\n\xff", mode=SYMLINK, size=3),
        ],
    )
    assert manifest.canonical() == (
        b"runctl-manifest 1 sha1\n"
        b"100755 git:0123456789abcdef0123456789abcdef01234567 0\tbin/run\0"
        b"100644 sha256:abababababababababababababababababababababababababababababababab 5000000000\tdata/model.bin\0"
        b"120000 git:0123456789abcdef0123456789abcdef01234567 3\tlatest\n\xff\0"
        b"100644 git:0123456789abcdef0123456789abcdef01234567 12\ttrain.py\0"
    )
    assert manifest.digest == "cec612018c0b31d05d4f8f0afeb2c733453aff6b14338975f55e07fe99026d1b"
    assert manifest.total_bytes == 5_000_000_015


def test_the_digest_is_of_the_canonical_form():
    manifest = Manifest.of("sha256", [entry(b"a", content="git:" + "0" * 64)])
    assert manifest.digest == hashlib.sha256(manifest.canonical()).hexdigest()
    assert manifest.canonical().startswith(b"runctl-manifest 1 sha256\n")


def test_an_empty_repository_has_a_manifest():
    assert parse(HEADER) == Manifest.of("sha1", [])


def test_paths_are_sorted_as_bytes_and_not_as_folders():
    paths = [b"a/b", b"a-b", b"a", b"B", b"\xff", "é".encode()]
    ordered = Manifest.of("sha1", [entry(path) for path in paths if path != b"a"]).entries
    assert [e.path for e in ordered] == sorted(path for path in paths if path != b"a")


@given(st.lists(an_entry, max_size=8, unique_by=lambda e: e.path), st.randoms())
def test_what_was_written_is_read_and_the_order_given_does_not_matter(entries, random):
    try:
        manifest = Manifest.of("sha1", entries)
    except ManifestError as error:
        assert "both a file and a folder" in str(error)
        return
    random.shuffle(entries)
    assert parse(manifest.canonical()) == manifest == Manifest.of("sha1", entries)


@given(st.binary(max_size=60).map(lambda raw: HEADER + raw) | st.binary(max_size=60))
def test_bytes_are_refused_or_are_the_canonical_form(data):
    with contextlib.suppress(ManifestError):
        assert parse(data).canonical() == data


@given(st.lists(an_entry, min_size=1, max_size=4, unique_by=lambda e: e.path), st.data())
def test_a_damaged_manifest_is_refused_or_is_another_one(entries, data):
    try:
        good = Manifest.of("sha1", entries)
    except ManifestError:
        return
    written = bytearray(good.canonical())
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ManifestError):
        assert parse(bytes(written)).digest != good.digest


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "first line"),
        (b"runctl-manifest 1 sha1", "first line"),
        (b"runctl-manifest 2 sha1\n", "first line"),
        (b"runctl-manifest 1 md5\n", "first line"),
        (b"\n" + HEADER, "first line"),
        (HEADER + b"100644 " + GIT + b" 1\ta", "bad record at byte 23"),
        (HEADER + b"100644 " + GIT + b" 1\ta\0junk", "bad record at byte 79"),
        (HEADER + b"100644 " + GIT + b" 1\t\0", "bad record"),
        (HEADER + b"100644 " + GIT + b" \ta\0", "bad record"),
        (HEADER + b"100644 " + GIT + b" 01\ta\0", "bad record"),
        (HEADER + b"100644 " + GIT + b" -1\ta\0", "bad record"),
        (HEADER + b"100644 " + GIT + b" 1e3\ta\0", "bad record"),
        (HEADER + b"100644 " + GIT + b" " + b"9" * 19 + b"\ta\0", "bad record"),
        (HEADER + b"100644 " + GIT + b" 1 a\0", "bad record"),
        (HEADER + b"160000 " + GIT + b" 1\ta\0", "bad record"),
        (HEADER + b"040000 " + GIT + b" 1\ta\0", "bad record"),
        (HEADER + b"100600 " + GIT + b" 1\ta\0", "bad record"),
        (HEADER + b"100644 " + GIT[:-1] + b" 1\ta\0", "bad record"),
        (HEADER + b"100644 " + GIT.upper() + b" 1\ta\0", "bad record"),
        (HEADER + b"100644 sha256:" + b"a" * 40 + b" 1\ta\0", "bad record"),
        (HEADER + b"100644 sha1:" + b"a" * 40 + b" 1\ta\0", "bad record"),
        (HEADER + b"100644 " + GIT + b" 1\tb\0" + b"100644 " + GIT + b" 1\ta\0", "not sorted"),
        (HEADER + b"100644 " + GIT + b" 1\ta\0" + b"100644 " + GIT + b" 2\ta\0", "listed twice"),
    ],
)
def test_what_is_no_manifest_is_refused(data, said):
    with pytest.raises(ManifestError, match=said):
        parse(data)


@pytest.mark.parametrize(
    "path",
    [b"/etc/passwd", b"..", b"../a", b"a/../b", b"a/..", b".", b"./a", b"a/./b", b"a//b", b"a/", b"/", b"a\0b", b""],
)
def test_a_path_that_leaves_the_root_or_is_written_in_two_ways_is_refused(path):
    with pytest.raises(ManifestError, match="unsafe path"):
        Manifest.of("sha1", [entry(path)])


@pytest.mark.parametrize("path", [b".git", b".git/hooks/pre-push", b"a/.GIT/config", b".Git/HEAD", b"sub/.gIt"])
def test_a_path_inside_git_in_any_case_is_refused(path):
    with pytest.raises(ManifestError, match=r"inside \.git"):
        Manifest.of("sha1", [entry(path)])
    with pytest.raises(ManifestError, match=r"inside \.git"):
        parse(HEADER + b"100644 " + GIT + b" 1\t" + path + b"\0")


@pytest.mark.parametrize(
    "path", [b".gitignore", b".github/workflows/a.yml", b"a.git/x", b"...", b"..a", b"a\\..\\b", b"-rf", b" "]
)
def test_a_path_that_only_looks_strange_is_fine(path):
    assert parse(Manifest.of("sha1", [entry(path)]).canonical()).entries == (entry(path),)


@pytest.mark.parametrize("paths", [(b"a", b"a/b"), (b"a/b/c", b"a"), (b"a", b"a-b", b"a/b"), (b"x/y", b"x/y/z/w")])
def test_a_name_is_not_both_a_file_and_a_folder(paths):
    with pytest.raises(ManifestError, match="both a file and a folder"):
        Manifest.of("sha1", [entry(path) for path in paths])


def test_a_link_is_not_written_through():
    with pytest.raises(ManifestError, match="both a file and a folder"):
        Manifest.of("sha1", [entry(b"out", mode=SYMLINK), entry(b"out/passwd")])


def test_the_same_path_twice_is_refused():
    with pytest.raises(ManifestError, match="listed twice"):
        Manifest.of("sha1", [entry(b"a"), entry(b"a", size=2)])


@pytest.mark.parametrize(("kind", "empty"), [
    ("sha1", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
    ("sha256", "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813"),
])  # fmt: skip
def test_the_hash_of_a_blob_is_gits(kind, empty):
    assert blob_hash(kind, 0).hexdigest() == empty


def test_the_hash_of_content_is_what_git_says(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"content\r\n\0")
    said = subprocess.run(
        ["git", "hash-object", "--no-filters", "a"], cwd=tmp_path, check=True, capture_output=True
    ).stdout
    hashed = blob_hash("sha1", 10)
    hashed.update(b"content\r\n\0")
    assert hashed.hexdigest() == said.decode().strip()
