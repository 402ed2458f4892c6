"""Checkpoints: found while the training runs, uploaded when they have stopped changing, immutable once uploaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from runctl_action.contract.documents import Checkpoint

# A file is complete when its size and time have not changed for this long.
_QUIET_SECONDS = 2.0
_CHUNK = 1024 * 1024

Stamp = tuple[tuple[str, int, int, int], ...]


class Checkpoints:
    """Scans `root` for `globs`. `upload(path on disk, sha256, name)` stores one and returns its key; it may raise
    OSError or anything of boto3's: the checkpoint is then tried again at the next scan."""

    def __init__(
        self,
        root: Path,
        globs: tuple[str, ...],
        upload: Callable[[Path, str, str], str],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._globs = globs
        self._upload = upload
        self._monotonic = monotonic
        # What was there before the training (a restored checkpoint) is not new.
        self._done: dict[str, Stamp] = {}
        self._seen: dict[str, tuple[Stamp, float]] = {}
        self.found: dict[str, Checkpoint] = {}
        self.changed_at = monotonic()
        for path in self._matching():
            self._done[self._name(path)] = _stamp(path)

    def scan(self, *, final: bool = False, killed_at: float | None = None) -> bool:
        """Uploads what is complete (everything, when `final`); whether there was something new. A checkpoint modified
        after `killed_at` (seconds since the epoch) was being written while the training was ended: it is suspect."""
        new = False
        for path in self._matching():
            name = self._name(path)
            stamp = _stamp(path)
            if not stamp or self._done.get(name) == stamp:
                continue
            previous = self._seen.get(name)
            if previous is None or previous[0] != stamp:
                self._seen[name] = (stamp, self._monotonic())
                self.changed_at = self._monotonic()
                if not final:
                    continue
            elif not final and self._monotonic() - previous[1] < _QUIET_SECONDS:
                continue
            suspect = killed_at is not None and max(part[2] for part in stamp) / 1e9 >= killed_at
            if self._store(path, name, stamp, suspect=suspect):
                new = True
        return new

    def _store(self, path: Path, name: str, stamp: Stamp, *, suspect: bool) -> bool:
        with _as_file(path) as file:
            with file.open("rb") as opened:
                sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            size = file.stat().st_size
            key = self._upload(file, sha256, name)
        if _stamp(path) != stamp:
            return False  # it changed while it was uploaded: the next scan takes it again
        self._done[name] = stamp
        self.found[name] = Checkpoint(
            path=name,
            kind="directory" if path.is_dir() else "file",
            bytes=size,
            sha256=sha256,
            key=key,
            modified_at=datetime.fromtimestamp(max(part[2] for part in stamp) / 1e9, UTC),
            uploaded_at=datetime.now(UTC),
            suspect=suspect,
        )
        return True

    def _matching(self) -> list[Path]:
        found: dict[Path, None] = {}
        for glob in self._globs:
            with contextlib.suppress(OSError, ValueError, NotImplementedError):
                found.update(dict.fromkeys(sorted(self._root.glob(glob))))
        # A link could point at anything on the host; hidden and temporary names are not complete.
        return [
            path for path in found if not path.is_symlink() and not path.name.startswith(".") and path.suffix != ".tmp"
        ]

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def restore_checkpoint(fetch: Callable[[Path], None], checkpoint: Checkpoint, root: Path) -> Path:
    """Puts a checkpoint back to its path below `root`, verified. Raises ValueError when it is not what it was."""
    target = root / checkpoint.path
    if not target.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"a checkpoint outside the run's directory: {checkpoint.path!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as directory:
        file = Path(directory) / "checkpoint"
        fetch(file)
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != checkpoint.sha256:
            raise ValueError(f"the checkpoint {checkpoint.path} in the bucket is damaged: {found[:16]}")
        if checkpoint.kind == "directory":
            target.mkdir(parents=True, exist_ok=True)
            with tarfile.open(file) as archive:
                archive.extractall(target, filter="data")
        else:
            file.replace(target)
    return target


def _stamp(path: Path) -> Stamp:
    """Changes whenever the file, or anything in the directory, does; empty when there is nothing (any more)."""
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        stats = [(file, file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((str(file), info.st_size, info.st_mtime_ns, info.st_ino) for file, info in stats)


@contextlib.contextmanager
def _as_file(path: Path) -> Iterator[Path]:
    """The file itself; of a directory a tar whose bytes depend on names, modes and contents alone."""
    if not path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory() as directory:
        packed = Path(directory) / "checkpoint.tar"
        with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as archive:
            for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink()):
                info = tarfile.TarInfo(file.relative_to(path).as_posix())
                info.size = file.stat().st_size
                info.mode = 0o755 if os.access(file, os.X_OK) else 0o644
                with file.open("rb") as opened:
                    archive.addfile(info, opened)
        yield packed
