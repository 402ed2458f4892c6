"""The source on the host's disk: written from packs, then read again and proven to be what was pushed."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Protocol

import zstandard

from runctl_action.contract.documents import Pack
from runctl_action.contract.manifest import EXECUTABLE, FILE, SYMLINK, Entry, Manifest, ManifestError, blob_hash, parse
from runctl_action.contract.packing import PackError, Readable, padding, read_member
from runctl_action.errors import SyncError

# Less than this is no space: what is written is larger.
_FULL_BYTES = 1024 * 1024
_CHUNK = 1024 * 1024
_WINDOW = 2**27
_AGAIN = "run it again; if it happens again, somebody is writing to the bucket's packs/: see who may"


def open_manifest(compressed: bytes, digest: str, expected_bytes: int) -> Manifest:
    """The manifest, if its sha256 is `digest`. Raises SyncError; never decompresses more than `expected_bytes`."""
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(compressed)
        data = reader.read(expected_bytes + 1)
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise SyncError(f"the manifest in the bucket is not the one that was pushed: {found}, not {digest}", _AGAIN)
        return parse(data)
    except (zstandard.ZstdError, ManifestError) as error:
        raise SyncError(f"the manifest in the bucket cannot be read: {error}", _AGAIN) from error


def restore(manifest: Manifest, packs: Iterable[Pack], fetch: Callable[[Pack], Readable], directory: Path) -> None:
    """Writes the manifest's files into `directory` (which must not exist), then verifies every one from the disk.
    `fetch` opens a pack's bytes. Raises SyncError that names the first wrong file; nothing is written elsewhere."""
    directory.mkdir(parents=True)
    root = os.fsencode(directory)
    places: dict[str, list[Entry]] = defaultdict(list)
    for entry in manifest.entries:
        places[entry.content].append(entry)
    for folder in sorted({entry.path.rpartition(b"/")[0] for entry in manifest.entries} - {b""}):
        os.makedirs(os.path.join(root, folder), exist_ok=True)  # noqa: PTH103, PTH118  - paths are bytes
    links: list[tuple[Entry, bytes]] = []
    for pack in packs:
        if not places:
            break
        _unpack(pack, fetch(pack), places, root, links)
    if places:
        missing = next(iter(places.values()))[0]
        raise SyncError(f"no pack in the bucket holds {missing.path!r} ({missing.content})", _AGAIN)
    # Last, so that no file is ever written through a link.
    for entry, target in links:
        try:
            os.symlink(target, os.path.join(root, entry.path))  # noqa: PTH118, PTH211
        except ValueError as error:  # a NUL: git can store it
            raise SyncError(f"the link {entry.path!r} cannot be made: {error}") from error
    verify(manifest, directory)


def verify(manifest: Manifest, directory: Path) -> None:
    """Re-reads everything below `directory` and recomputes the manifest. Raises SyncError at any difference."""
    contents = {entry.path: entry.content for entry in manifest.entries}
    root = os.fsencode(directory)
    found = [_read_back(manifest, item, item.path[len(root) + 1 :], contents) for item in _walk(root)]
    recomputed = Manifest.of(manifest.object_format, found)
    if recomputed.digest == manifest.digest:
        return
    theirs, ours = set(manifest.entries), set(recomputed.entries)
    wrong = min((entry.path for entry in theirs ^ ours), default=b"?")
    raise SyncError(f"what is on disk is not what was pushed: {wrong!r} differs", _AGAIN)


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Checked:
    """Hashes everything that is read, so that a pack is known to be the one that its name says."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.sha256.update(data)
        return data


class _Ahead:
    """Reads the next chunk while what came before it is written: fetching and decompressing need no GIL."""

    def __init__(self, stream: Readable, executor: Executor) -> None:
        self._stream, self._executor = stream, executor
        self._next = self._submit()
        self._chunk = b""
        self._position = 0

    def read(self, size: int = sys.maxsize) -> bytes:
        """`size` bytes, fewer at the end."""
        data = self._chunk[self._position : self._position + size]
        self._position += len(data)
        while len(data) < size and (chunk := self._next.result()):
            self._next = self._submit()
            self._position = size - len(data)
            data += chunk[: self._position]
            self._chunk = chunk
        return data

    def _submit(self) -> Future[bytes]:
        return self._executor.submit(self._stream.read, _CHUNK)


def _unpack(
    pack: Pack, stream: Readable, places: dict[str, list[Entry]], root: bytes, links: list[tuple[Entry, bytes]]
) -> None:
    checked = _Checked(stream)
    try:
        plain = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(checked, read_size=_CHUNK)  # type: ignore[arg-type]
        with ThreadPoolExecutor(1, "unpacking") as executor:
            ahead = _Ahead(plain, executor)
            while (member := read_member(ahead)) is not None:
                content, size = member
                entries = places.pop(content, [])
                if entries and entries[0].size != size:
                    raise SyncError(f"{entries[0].path!r} has {size} bytes in the pack, not {entries[0].size}", _AGAIN)
                _write(ahead, size, entries, root, links)
                _read_exactly(ahead, padding(size))
        while checked.read(_CHUNK):
            continue
    except (PackError, zstandard.ZstdError, ValueError) as error:
        raise SyncError(f"the pack {pack.sha256[:16]} is damaged: {error}", _AGAIN) from error
    if checked.sha256.hexdigest() != pack.sha256:
        raise SyncError(
            f"the pack {pack.sha256[:16]} is not what its name says: {checked.sha256.hexdigest()[:16]}", _AGAIN
        )


def _write(plain: Readable, size: int, entries: list[Entry], root: bytes, links: list[tuple[Entry, bytes]]) -> None:
    """One content to every path that has it; contents of other trees are read over."""
    symlinks = [entry for entry in entries if entry.mode == SYMLINK]
    files = [entry for entry in entries if entry.mode != SYMLINK]
    if symlinks and size > 4096:
        raise SyncError(f"the link {symlinks[0].path!r} has a target of {size} bytes")
    if size <= _CHUNK:
        data = _read_exactly(plain, size)
        links += [(entry, data) for entry in symlinks]
        for entry in files:
            out = _create(root, entry)
            try:
                _write_all(out, data)
            finally:
                os.close(out)
        return
    outs = [_create(root, entry) for entry in files]
    try:
        left = size
        while left:
            chunk = _read_exactly(plain, min(left, _CHUNK))
            for out in outs:
                _write_all(out, chunk)
            left -= len(chunk)
    finally:
        for out in outs:
            os.close(out)


def _create(root: bytes, entry: Entry) -> int:
    """A file descriptor: with thousands of small files, file objects are a third of the time."""
    path = root + b"/" + entry.path
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    # open()'s mode is cut by the umask; git's two modes are 755 and 644.
    return os.open(path, flags, 0o755 if entry.mode == EXECUTABLE else 0o644)


def _write_all(out: int, data: bytes) -> None:
    """A disk that fills up takes a part, and says so at the next write."""
    written = os.write(out, data)
    while written < len(data):
        written += os.write(out, data[written:])


def _read_exactly(stream: Readable, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise PackError("the pack ends within a member")
    return data


def _walk(root: bytes) -> Iterator[os.DirEntry[bytes]]:
    """Everything below `root` that is no folder."""
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    folders.append(item.path)
                else:
                    yield item


def _read_back(manifest: Manifest, item: os.DirEntry[bytes], path: bytes, contents: dict[bytes, str]) -> Entry:
    is_git = contents.get(path, "git:").startswith("git:")
    if item.is_symlink():
        target = os.readlink(item.path)  # noqa: PTH115
        return Entry(SYMLINK, _content(manifest, is_git, len(target), [target]), len(target), path)
    if not item.is_file(follow_symlinks=False):
        raise SyncError(f"{path!r} is neither a file nor a link", _AGAIN)
    file = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        info = os.fstat(file)
        mode = EXECUTABLE if info.st_mode & 0o100 else FILE
        # One byte more than there should be: a file that has grown is not read as what it was.
        chunks = (
            [os.read(file, info.st_size + 1)] if info.st_size < _CHUNK else iter(lambda: os.read(file, _CHUNK), b"")
        )
        return Entry(mode, _content(manifest, is_git, info.st_size, chunks), info.st_size, path)
    finally:
        os.close(file)


def _content(manifest: Manifest, is_git: bool, size: int, chunks: Iterable[bytes]) -> str:
    hashing: _Hash = blob_hash(manifest.object_format, size) if is_git else hashlib.sha256()
    for chunk in chunks:
        hashing.update(chunk)
    return f"{'git' if is_git else 'sha256'}:{hashing.hexdigest()}"


def full_disk(directory: Path) -> str:
    """A sentence part where the host's disk has no space left, or no inodes: what failed for it seldom says so."""
    try:
        found = os.statvfs(directory)
    except OSError as error:
        return f"the host's disk cannot be read ({error.strerror})"
    if found.f_bavail * found.f_frsize < _FULL_BYTES or (found.f_files and not found.f_favail):
        size = found.f_blocks * found.f_frsize / 1024**3
        return f"no space left on the host's disk of {size:.1f} GiB: raise `volume-size`"
    return ""


def checkpoint_folder(root: Path, globs: Sequence[str]) -> Path:
    """Where the first glob's checkpoints belong: its part that is no pattern."""
    parts = PurePosixPath(globs[0] if globs else "").parent.parts
    return root.joinpath(*itertools.takewhile(lambda part: not set(part) & set("*?["), parts))


def remove(directory: Path) -> None:
    """Takes an earlier attempt at the same workspace away."""
    shutil.rmtree(directory, ignore_errors=True)
