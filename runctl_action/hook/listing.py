"""The tracked files of a commit, read fast: what is out of the ordinary is left to the reading that a run does."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from runctl_action.errors import SourceError
from runctl_action.source.repository import Repository, read_blobs, read_source

# What git itself never writes, and a run refuses.
_ODD_PATH = re.compile(rb"[\t/](?:\.(?:[gG][iI][tT]|\.)?)?[/\0]")
_FILES, _LINK, _SUBMODULE = (b"100644", b"100755"), b"120000", b"160000"
_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
# The shortest and the longest file that is taken for an LFS pointer.
_POINTER_BYTES = range(len(_POINTER) + len("oid sha256:\nsize 0\n") + 64, 1025)


class Listing(NamedTuple):
    """Bytes by path: those that a run would bring to its host, so an LFS file's own."""

    sizes: Mapping[bytes, int]

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def list_files(
    repository: Repository, commit: str, max_file_bytes: int, ordinary: Callable[[], Listing | None]
) -> Listing:
    """`ordinary()` is what `read_ordinary` gives. Raises what `read_source` raises: unsafe links and paths, LFS
    objects, submodules, sizes."""
    found = ordinary()
    if found is not None and max(found.sizes.values(), default=0) <= max_file_bytes:
        return found
    entries = read_source(repository, commit, "commit", max_file_bytes).manifest.entries
    return Listing({entry.path: entry.size for entry in entries})


def read_ordinary(repository: Repository, commit: str) -> Listing | None:
    """None where anything needs a second look. Takes nothing of the settings: it can be begun before they are read."""
    out = _git(repository, "ls-tree", "-r", "-z", "-l", "--full-tree", commit)
    if _ODD_PATH.search(out):
        return None
    sizes: dict[bytes, int] = {}
    small: list[bytes] = []
    links: list[str] = []
    lines = out.split(b"\0")[:-1]
    for line in lines:
        head, _, path = line.partition(b"\t")
        mode, _, oid, size = head.split()
        if mode in _FILES:
            sizes[path] = number = int(size)
            if number in _POINTER_BYTES:
                small.append(oid)
        elif mode == _LINK:
            sizes[path] = int(size)
            links.append(oid.decode())
        else:
            return None
    if len(sizes) != len(lines):
        return None
    targets = read_blobs(repository.root, repository.environ, links)
    if any(target.startswith(b"/") or b".." in target for target in targets):
        return None
    return None if _has_pointer(repository, small) else Listing(sizes)


def new_to(repository: Repository, known: str, commit: str, listing: Listing) -> tuple[int, int] | None:
    """(files, bytes) of what `commit` has and `known` has not; None when `known` is not here to compare with."""
    try:
        out = repository.git("diff-tree", "-r", "-z", "--no-renames", "--end-of-options", known, commit)
    except SourceError:
        return None
    return _count(out, listing)


def _has_pointer(repository: Repository, oids: Sequence[bytes]) -> bool:
    asked = b"".join(b"%s\n" % oid for oid in oids)
    return bool(asked) and _POINTER in _git(repository, "cat-file", "--batch", "--buffer", stdin=asked)


def _git(repository: Repository, *arguments: str, stdin: bytes = b"") -> bytes:
    """As `run_git`, by files: through a pipe, tens of thousands of objects come in as many small reads, and each of
    them would wake Python."""
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answer:
        asked.write(stdin)
        asked.seek(0)
        environ = {**repository.environ, "LC_ALL": "C"}
        done = subprocess.run(
            ["git", *arguments],
            cwd=repository.root, env=environ, stdin=asked, stdout=answer, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SourceError(os.fsdecode(done.stderr).strip() or f"git ended with {done.returncode}")
        answer.seek(0)
        return answer.read()


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
