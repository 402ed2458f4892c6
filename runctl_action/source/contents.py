"""Reading contents: blobs by one `git cat-file --batch` per repository, files on disk in chunks."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from runctl_action.errors import SyncError
from runctl_action.source.repository import Source, start_git

_CHUNK = 1024 * 1024


def open_contents(source: Source, contents: Mapping[str, int]) -> Iterator[tuple[str, int, Iterable[bytes]]]:
    """(content id, size, chunks) of each, in an order of our own; read the chunks before asking for the next."""
    blobs: dict[Path, list[tuple[str, str, int]]] = defaultdict(list)
    for content, size in contents.items():
        located = source.located[content]
        if located.path is not None:
            yield content, size, _file_chunks(located.path, content)
        else:
            assert located.oid is not None
            blobs[located.repository].append((content, located.oid, size))
    for root, wanted in blobs.items():
        yield from _blob_chunks(source, root, wanted)


def _file_chunks(path: Path, content: str) -> Iterator[bytes]:
    if path.is_symlink():
        yield os.fsencode(path.readlink())
        return
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise SyncError(f"cannot read {path} ({content}): {error}", "run it again when nothing writes to it") from error


def _blob_chunks(
    source: Source, root: Path, wanted: list[tuple[str, str, int]]
) -> Iterator[tuple[str, int, Iterable[bytes]]]:
    with start_git(root, source.repository.environ, "cat-file", "--batch", "--buffer") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # git answers while it is still being asked: a thread asks, or both would wait for the other's pipe.
        asking = threading.Thread(target=_ask, args=(process.stdin, wanted), daemon=True)
        asking.start()
        try:
            for content, oid, size in wanted:
                header = process.stdout.readline().split()
                if len(header) != 3 or header[0] != oid.encode() or int(header[2]) != size:
                    raise SyncError(f"git cannot read object {oid}: it answered {header!r}", "git fsck")
                yield content, size, _exactly(process.stdout, size)
                process.stdout.read(1)
        finally:
            process.kill()
            asking.join()


def _ask(stdin: IO[bytes], wanted: list[tuple[str, str, int]]) -> None:
    with contextlib.suppress(OSError):
        stdin.write("".join(f"{oid}\n" for _, oid, _ in wanted).encode())
        stdin.close()


def _exactly(stream: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = stream.read(min(left, _CHUNK))
        if not chunk:
            raise SyncError("git ended in the middle of an object", "git fsck")
        left -= len(chunk)
        yield chunk
