"""Reading contents: blobs by one `git cat-file --batch` per repository, files on disk in chunks."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from runctl_action.errors import SyncError
from runctl_action.source.repository import Source, git_command

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
        import os

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
    with tempfile.TemporaryFile() as names:
        names.write("".join(f"{oid}\n" for _, oid, _ in wanted).encode())
        names.seek(0)
        batch = git_command(root, source.repository.environ).execute(
            ["git", "cat-file", "--batch", "--buffer"], istream=names, as_process=True
        )
        process = batch.proc
        assert process is not None
        assert process.stdout is not None
        try:
            for content, oid, size in wanted:
                header = process.stdout.readline().split()
                if len(header) != 3 or header[0] != oid.encode() or int(header[2]) != size:
                    raise SyncError(f"git cannot read object {oid}: it answered {header!r}", "git fsck")
                yield content, size, _exactly(process.stdout, size)
                process.stdout.read(1)
        finally:
            process.stdout.close()
            if process.stderr is not None:
                process.stderr.close()
            process.wait()


def _exactly(stream: object, size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = stream.read(min(left, _CHUNK))  # type: ignore[attr-defined]
        if not chunk:
            raise SyncError("git ended in the middle of an object", "git fsck")
        left -= len(chunk)
        yield chunk
