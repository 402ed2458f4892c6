"""Checkpoints: found while the training runs, uploaded when they have stopped changing, immutable once uploaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from runctl_action.contract.documents import Checkpoint
from runctl_action.host.saying import say

# A file is complete when its size and time have not changed for this long.
_QUIET_SECONDS = 2.0
# More are not kept at a time: the newest are. A list of all that a training could write would be no document.
_MOST = 1000
# S3 is away when this many in a row could not be uploaded; at the end nobody waits for the others' failures.
_FAILURES = 3
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)

Stamp = tuple[tuple[str, int, int, int], ...]


class Checkpoints:
    """Scans `root` for `globs`. `upload(path on disk, sha256, name)` stores one and returns its key; `publish` is given
    all that were found whenever that has changed. Both may raise: it is then tried again at the next scan."""

    def __init__(
        self,
        root: Path,
        globs: tuple[str, ...],
        upload: Callable[[Path, str, str], str],
        publish: Callable[[tuple[Checkpoint, ...]], None] = lambda _: None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        most: int = _MOST,
    ) -> None:
        self._root = root
        self._globs = globs
        self._upload = upload
        self._publish = publish
        self._monotonic = monotonic
        self._most = most
        self._published: tuple[Checkpoint, ...] = ()
        self._seen: dict[str, tuple[Stamp, float]] = {}
        self.found: dict[str, Checkpoint] = {}
        # What could not be kept at the last scan, and why; and how many there were beyond the most.
        self.problems: dict[str, str] = {}
        self.left_out = 0
        self.changed_at = monotonic()
        # What is there before the training (what a resume has put back) is not new.
        self._done: dict[str, Stamp] = {self._name(path): _stamp(path) for path in matching(root, globs)}

    def scan(
        self,
        *,
        final: bool = False,
        killed_at: float | None = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Uploads what is complete (everything, when `final`), the newest first. A checkpoint modified after
        `killed_at` (seconds since the epoch) was being written while the training was ended: it is suspect."""
        paths, outside = self._inside(matching(self._root, self._globs))
        self.left_out = max(0, len(paths) - self._most)
        # What has failed before comes last: it may fail for ever.
        paths = sorted(paths[: self._most], key=lambda path: self._name(path) in self.problems)
        self.problems = dict.fromkeys(outside, "a link on its way leads out of the run's directory")
        if killed_at is None:  # what goes while the training is ended may be half of an exchange
            self._note_removed()
        seen, failures = self._seen, 0
        self._seen = {}
        for path in paths:
            name = self._name(path)
            stamp = _stamp(path)
            if not stamp or self._done.get(name) == stamp:
                continue
            since = seen[name][1] if name in seen and seen[name][0] == stamp else None
            if since is None:
                self.changed_at = self._monotonic()
            self._seen[name] = (stamp, self.changed_at if since is None else since)
            is_quiet = since is not None and self._monotonic() - since >= _QUIET_SECONDS
            if not (final or is_quiet) or is_over():
                continue
            if failures == _FAILURES:
                self.problems[name] = "nor could others before it"
                continue
            suspect = killed_at is not None and max(part[2] for part in stamp) / 1e9 >= killed_at
            try:
                self._store(path, name, stamp, suspect=suspect)
                failures = 0
            except Exception as error:  # noqa: BLE001  - one that cannot be read or stored must not keep the others back
                self.problems[name] = f"{type(error).__name__}: {error}"
                failures += not isinstance(error, OSError)  # of the disk
        kept = tuple(self.found.values())
        if kept != self._published:
            self._publish(kept)
            self._published = kept

    def _inside(self, paths: list[Path]) -> tuple[list[Path], list[str]]:
        """(those that lie below the root, the names of those that a linked folder has elsewhere). Nobody's files are
        taken for checkpoints because a folder was linked to where they are."""
        root = self._root.resolve()
        folders = {folder: _is_below(folder, root) for folder in {path.parent for path in paths}}
        outside = [self._name(path) for path in paths if not folders[path.parent]]
        return [path for path in paths if folders[path.parent]], outside

    def _note_removed(self) -> None:
        for name, kept in list(self.found.items()):
            removed = not _is_there(self._root / name)
            if removed != kept.removed:
                self.found[name] = kept.model_copy(update={"removed": removed})

    def _store(self, path: Path, name: str, stamp: Stamp, *, suspect: bool) -> None:
        with _as_file(path, self._root.parent) as file:
            with file.open("rb") as opened:
                sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            size = file.stat().st_size
            key = self._upload(file, sha256, name)
        if _stamp(path) != stamp:
            return  # it changed while it was uploaded: the next scan takes it again
        self._done[name] = stamp
        self.found.pop(name, None)
        self.found[name] = Checkpoint(
            path=name,
            kind="directory" if path.is_dir() else "file",
            bytes=size,
            sha256=sha256,
            key=key,
            modified_at=_moment(max(part[2] for part in stamp)),
            uploaded_at=datetime.now(UTC),
            suspect=suspect,
        )
        if len(self.found) > self._most:
            oldest = min(self.found.values(), key=lambda kept: (not kept.removed, kept.modified_at))
            del self.found[oldest.path]

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


class Watch:
    """Scans again and again in a thread of its own, while it is entered: neither a long upload nor a hundred thousand
    files may hold up a limit of the training."""

    def __init__(self, checkpoints: Checkpoints, every_seconds: float = 1.0) -> None:
        self._checkpoints = checkpoints
        self._every = every_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._scan_on, name="checkpoints", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Waits for the upload that is under way, for no other."""
        self._over.set()
        self._thread.join()

    def _scan_on(self) -> None:
        pause = self._every
        while not self._over.wait(pause):
            began = time.thread_time()
            try:
                self._checkpoints.scan(is_over=self._over.is_set)
            except Exception as error:  # noqa: BLE001  - S3 may be away; the training must not end for it
                say(f"checkpoints: {error!r}")
            for name, why in list(self._checkpoints.problems.items())[:3]:
                say(f"checkpoint {name!a}: {why!a}")
            # The processor is the training's.
            pause = max(self._every, min(10.0, 5 * (time.thread_time() - began)))


def matching(root: Path, globs: Iterable[str]) -> list[Path]:
    """The files and directories below `root` that are checkpoints by their names, the newest first."""
    found: dict[Path, int] = {}
    for glob in globs:
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            for path in root.glob(glob):
                # Hidden and temporary names are not complete.
                if path == root or path.name.startswith(".") or path.suffix == ".tmp":
                    continue
                with contextlib.suppress(OSError):
                    info = path.lstat()
                    # A link could point at anything on the host; a pipe could be waited for without end.
                    if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
                        found[path] = info.st_mtime_ns
    return sorted(found, key=lambda path: (-found[path], path))


def _is_below(folder: Path, root: Path) -> bool:
    try:
        return folder.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # it is gone, or its links go round in circles
        return False


def _is_there(path: Path) -> bool:
    """False only when it is certain; a link in its place is not what it was."""
    try:
        return not stat.S_ISLNK(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _moment(nanoseconds: int) -> datetime:
    """A file's time can be anything that its writer sets; ours lies between the year 2000 and now."""
    now = datetime.now(UTC)
    return datetime.fromtimestamp(min(max(nanoseconds / 1e9, _EARLIEST.timestamp()), now.timestamp()), UTC)


def _stamp(path: Path) -> Stamp:
    """Changes whenever the file, or anything in the directory, does; empty when there is nothing (any more)."""
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        stats = [(file, file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((str(file), info.st_size, info.st_mtime_ns, info.st_ino) for file, info in stats)


@contextlib.contextmanager
def _as_file(path: Path, scratch: Path) -> Iterator[Path]:
    """The file itself; of a directory a tar whose bytes depend on names, modes and contents alone. It is made on the
    disk that the checkpoints are on: /tmp may be memory."""
    if not path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        packed = Path(directory) / "checkpoint.tar"
        with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as archive:
            for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink()):
                info = tarfile.TarInfo(file.relative_to(path).as_posix())
                info.size = file.stat().st_size
                info.mode = 0o755 if os.access(file, os.X_OK) else 0o644
                with file.open("rb") as opened:
                    archive.addfile(info, opened)
        yield packed
