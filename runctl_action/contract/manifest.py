"""The list of what is trained, and its digest. Pure: data in, data out.

Canonical form, which the digest is over: a header line, then one record per entry, sorted by path as bytes:

    runctl-manifest 1 sha1\\n
    <mode> <content id> <bytes>\\t<path>\\0

`content id` is `git:<object id>` for a file whose bytes are git's blob, or `sha256:<hex>` (LFS, worktree).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

ObjectFormat = Literal["sha1", "sha256"]
FILE, EXECUTABLE, SYMLINK = "100644", "100755", "120000"

_HEADER = re.compile(rb"runctl-manifest 1 (sha1|sha256)\n")
_RECORD = re.compile(
    rb"(100644|100755|120000) (git:[0-9a-f]{40}|git:[0-9a-f]{64}|sha256:[0-9a-f]{64}) (0|[1-9][0-9]{0,17})\t([^\0]+)\0",
    re.DOTALL,
)


class ManifestError(ValueError):
    """The bytes are not a manifest, or name something that must never be written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tracked file: mode as git writes it, content id, size in bytes, path relative to the root with `/`."""

    mode: str
    content: str
    size: int
    path: bytes


@dataclass(frozen=True)
class Manifest:
    """Entries sorted by path; `object_format` is the repository's (which hash its object ids are)."""

    object_format: ObjectFormat
    entries: tuple[Entry, ...]

    @staticmethod
    def of(object_format: ObjectFormat, entries: Iterable[Entry]) -> Manifest:
        """Sorted and checked. Raises ManifestError on a path that is unsafe, or listed twice, or below a file."""
        ordered = tuple(sorted(entries, key=lambda entry: entry.path))
        _check_paths(ordered)
        return Manifest(object_format, ordered)

    def canonical(self) -> bytes:
        records = (b"%s %s %d\t%s\0" % (e.mode.encode(), e.content.encode(), e.size, e.path) for e in self.entries)
        return b"runctl-manifest 1 %s\n" % self.object_format.encode() + b"".join(records)

    @property
    def digest(self) -> str:
        """sha256 of the canonical form, hex."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self.entries)


def parse(data: bytes) -> Manifest:
    """The manifest whose canonical form is `data`. Raises ManifestError; nothing of a bad manifest is returned."""
    header = _HEADER.match(data)
    if header is None:
        raise ManifestError("not a manifest: the first line is missing")
    entries = tuple(_records(data, header.end()))
    manifest = Manifest.of("sha1" if header[1] == b"sha1" else "sha256", entries)
    if manifest.entries != entries:
        raise ManifestError("not a manifest: its entries are not sorted")
    return manifest


def blob_hash(object_format: ObjectFormat, size: int) -> hashlib._Hash:
    """A hash primed with git's blob header: feed it the file's bytes and its hexdigest is the object id."""
    primed = hashlib.new(object_format, usedforsecurity=False)
    primed.update(b"blob %d\0" % size)
    return primed


def _records(data: bytes, position: int) -> Iterator[Entry]:
    while position < len(data):
        record = _RECORD.match(data, position)
        if record is None:
            raise ManifestError(f"not a manifest: bad record at byte {position}")
        yield Entry(record[1].decode(), record[2].decode(), int(record[3]), record[4])
        position = record.end()


def _check_paths(entries: tuple[Entry, ...]) -> None:
    seen: set[bytes] = set()
    for entry in entries:
        parts = entry.path.split(b"/")
        if b"" in parts or b"." in parts or b".." in parts or b"\0" in entry.path:
            raise ManifestError(f"unsafe path in the manifest: {entry.path!r}")
        # git refuses it too, in any case: a checkout that writes .git/hooks runs them. Names that only Windows and HFS+
        # take for it (`git~1`, `.git.`) are plain names on a Linux host.
        if b".git" in entry.path.lower().split(b"/"):
            raise ManifestError(f"a path inside .git in the manifest: {entry.path!r}")
        if entry.path in seen:
            raise ManifestError(f"listed twice in the manifest: {entry.path!r}")
        seen.add(entry.path)
    folders: set[bytes] = set()
    for entry in entries:
        parent = entry.path.rpartition(b"/")[0]
        while parent and parent not in folders:
            if parent in seen:
                raise ManifestError(f"both a file and a folder in the manifest: {parent!r}")
            folders.add(parent)
            parent = parent.rpartition(b"/")[0]
