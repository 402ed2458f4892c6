"""The tracked files of a commit, read fast: what is out of the ordinary is left to the reading that a run does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from runctl_action.errors import SourceError
from runctl_action.source.repository import Repository, read_blobs, read_source, run_git

_ENTRY = re.compile(rb"(\d{6}) (?:blob|commit) ([0-9a-f]+) +(\d+|-)\t([^\0]+)\0")
# What git itself never writes, and a run refuses.
_ODD_PATH = re.compile(rb"[\t/](?:\.git|\.\.?|)[/\0]", re.IGNORECASE)
_FILES, _LINK, _SUBMODULE = (b"100644", b"100755"), b"120000", b"160000"
_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
# The shortest and the longest file that is taken for an LFS pointer.
_POINTER_BYTES = range(len(_POINTER) + 64, 1025)


class Listing(NamedTuple):
    """Bytes by path: those that a run would bring to its host, so an LFS file's own."""

    sizes: Mapping[bytes, int]

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def list_files(repository: Repository, commit: str, max_file_bytes: int) -> Listing:
    """Raises what `read_source` raises: unsafe links and paths, LFS objects, submodules, sizes."""
    found = _ordinary(repository, commit, max_file_bytes)
    if found is None:
        entries = read_source(repository, commit, "commit", max_file_bytes).manifest.entries
        found = {entry.path: entry.size for entry in entries}
    return Listing(found)


def new_to(repository: Repository, known: str, commit: str, listing: Listing) -> tuple[int, int] | None:
    """(files, bytes) of what `commit` has and `known` has not; None when `known` is not here to compare with."""
    try:
        out = repository.git("diff-tree", "-r", "-z", "--no-renames", "--end-of-options", known, commit)
    except SourceError:
        return None
    return _count(out, listing)


def _ordinary(repository: Repository, commit: str, max_file_bytes: int) -> dict[bytes, int] | None:
    """None where anything needs a second look."""
    out = repository.git("ls-tree", "-r", "-z", "-l", "--full-tree", commit)
    if _ODD_PATH.search(out):
        return None
    sizes: dict[bytes, int] = {}
    small: list[str] = []
    links: list[str] = []
    for mode, oid, size, path in _ENTRY.findall(out):
        if mode in _FILES:
            sizes[path] = number = int(size)
            if number in _POINTER_BYTES:
                small.append(oid.decode())
            elif number > max_file_bytes:
                return None
        elif mode == _LINK:
            sizes[path] = int(size)
            links.append(oid.decode())
        else:
            return None
    if len(sizes) != out.count(b"\0") or max_file_bytes in _POINTER_BYTES:
        return None
    targets = read_blobs(repository.root, repository.environ, links)
    if any(target.startswith(b"/") or b".." in target for target in targets):
        return None
    return None if _has_pointer(repository, small) else sizes


def _has_pointer(repository: Repository, oids: Iterable[str]) -> bool:
    asked = "".join(f"{oid}\n" for oid in oids).encode()
    return bool(asked) and _POINTER in run_git(
        repository.root, repository.environ, "cat-file", "--batch", "--buffer", stdin=asked
    )


def _count(out: bytes, listing: Listing) -> tuple[int, int]:
    """What `git diff-tree --raw -z` shows, contents that only moved left out."""
    fields = out.split(b"\0")
    changes = [(head.split(b" "), path) for head, path in zip(fields[::2], fields[1::2], strict=False) if head]
    gone = {head[2] for head, _ in changes}
    files = total = 0
    for head, path in changes:
        if head[3].strip(b"0") == b"" or head[3] in gone:
            continue
        if head[1] == _SUBMODULE:
            inside = [size for name, size in listing.sizes.items() if name.startswith(path + b"/")]
            files, total = files + len(inside), total + sum(inside)
        else:
            files, total = files + 1, total + listing.sizes.get(path, 0)
    return files, total
