"""Putting a source into the bucket: only contents that its packs lack are read, compressed and uploaded."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import pydantic
import zstandard

from runctl_action.contract.documents import Latest, Pack, Packs
from runctl_action.contract.layout import Layout
from runctl_action.contract.packing import END, member_header, padding
from runctl_action.errors import SyncError
from runctl_action.source.contents import open_contents
from runctl_action.source.repository import Source

MAX_PACKS = 8
MAX_WASTE = 0.5
# Level 1 is faster than a network; two threads, because CI machines have two cores.
_LEVEL, _THREADS = 1, 2


class StoredLike(Protocol):
    @property
    def data(self) -> bytes: ...


class ObjectStore(Protocol):
    """What is needed of `cloud.store.Store`."""

    def get(self, key: str) -> StoredLike | None: ...
    def size(self, key: str) -> int | None: ...
    def put(self, key: str, data: bytes, *, content_type: str = ...) -> str | None: ...
    def put_file(self, key: str, path: Path, sha256: str) -> None: ...


@dataclass(frozen=True)
class Plan:
    """Which packs of the bucket to use, and which contents to add in a new one. `wanted`: content id → bytes."""

    kept: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, int]


def upload_source(source: Source, store: ObjectStore, layout: Layout) -> Packs:
    """The packs that together hold every content of the manifest, all of them in the bucket, the manifest too.
    Raises CloudError of the store, or SyncError when a file changed while it was read."""
    branch = source.branch or "HEAD"
    hint_key = layout.latest(source.repository.name, branch)
    wanted = {entry.content: entry.size for entry in source.manifest.entries}
    hint = _hint(store, hint_key)
    present = {
        sha: ids for sha, ids in hint.packs.items() if store.size(layout.pack(sha)) == hint.pack_bytes.get(sha, -1)
    }
    chosen = plan(wanted, present)
    held = dict(chosen.kept)
    sizes = {sha: hint.pack_bytes[sha] for sha in held}
    uploaded = 0
    if chosen.missing:
        with _packed(source, chosen.missing) as (path, sha256):
            uploaded = path.stat().st_size
            store.put_file(layout.pack(sha256), path, sha256)
            held[sha256] = tuple(chosen.missing)
            sizes[sha256] = uploaded
    digest = source.manifest.digest
    if store.size(layout.manifest(digest)) is None:
        compressed = zstandard.ZstdCompressor(level=3).compress(source.manifest.canonical())
        store.put(layout.manifest(digest), compressed, content_type="application/zstd")
    latest = Latest(packs=held, pack_bytes=sizes)
    if latest != hint:
        store.put(hint_key, latest.to_json())
    packs = tuple(Pack(sha256=sha, bytes=sizes[sha]) for sha in held)
    return Packs(digest=digest, packs=packs, uploaded_files=len(chosen.missing), uploaded_bytes=uploaded)


def plan(wanted: Mapping[str, int], present: Mapping[str, tuple[str, ...]]) -> Plan:
    """Pure. Keeps the packs that hold something wanted; one fresh pack instead when there would be more than MAX_PACKS,
    or when more than MAX_WASTE of what they hold is not wanted (by number of contents: old sizes are not known)."""
    kept = {sha: ids for sha, ids in present.items() if any(content in wanted for content in ids)}
    held = {content for ids in kept.values() for content in ids}
    missing = {content: size for content, size in wanted.items() if content not in held}
    waste = len(held - wanted.keys()) / len(held) if held else 0.0
    if len(kept) + bool(missing) > MAX_PACKS or waste > MAX_WASTE:
        return Plan({}, dict(wanted))
    return Plan(kept, missing)


@contextlib.contextmanager
def _packed(source: Source, contents: Mapping[str, int]) -> Iterator[tuple[Path, str]]:
    """A temporary file that is the pack of `contents`, and its sha256."""
    with tempfile.TemporaryDirectory(prefix="runctl-pack-") as directory:
        path = Path(directory) / "pack.tar.zst"
        with path.open("wb") as file:
            hashing = _Hashing(file)
            compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=_THREADS)
            with compressor.stream_writer(hashing, closefd=False) as packer:  # type: ignore[arg-type]
                write_pack(packer, open_contents(source, contents))
        yield path, hashing.sha256.hexdigest()


class Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


def write_pack(out: Writable, contents: Iterable[tuple[str, int, Iterable[bytes]]]) -> None:
    """Writes (content id, size, chunks) as one uncompressed pack."""
    for content, size, chunks in contents:
        written = 0
        out.write(member_header(content, size))
        for chunk in chunks:
            out.write(chunk)
            written += len(chunk)
        if written != size:
            raise SyncError(
                f"a file changed while it was read: {content} had {size} bytes, then {written}",
                "run it again when nothing writes to it",
            )
        out.write(b"\0" * padding(size))
    out.write(END)


class _Hashing:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def _hint(store: ObjectStore, key: str) -> Latest:
    """A hint that cannot be read, or names what is no pack, is no hint."""
    nothing = Latest(packs={}, pack_bytes={})
    stored = store.get(key)
    try:
        hint = Latest.model_validate_json(stored.data) if stored else nothing
    except pydantic.ValidationError:
        return nothing
    return hint if all(re.fullmatch("[0-9a-f]{64}", sha) for sha in hint.packs) else nothing
