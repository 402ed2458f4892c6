"""What an attempt starts from: checkpoints of an earlier one, put back to where the training looks for them."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from runctl_action.contract.documents import Checkpoint, Resume
from runctl_action.errors import SyncError
from runctl_action.host.checkpoints import matching


@dataclass
class Restored:
    """`first` is where the newest is: what the training is told to resume from. `warnings`: those that are missing."""

    first: Path
    count: int = 0
    bytes: int = 0
    warnings: list[str] = field(default_factory=list)


def open_resume(data: bytes | None, sha256: str) -> Resume:
    """The document, if it is the one that was ordered. Raises SyncError."""
    found = hashlib.sha256(data or b"").hexdigest()
    if data is None or found != sha256:
        raise SyncError(f"what to resume from, in the bucket, is not what was ordered: {found[:16]}")
    resume = Resume.model_validate_json(data)
    if not resume.checkpoints:
        raise SyncError("there is no checkpoint in what to resume from")
    return resume


def restore_checkpoints(
    resume: Resume, fetch: Callable[[str, Path], None], root: Path, globs: Collection[str]
) -> Restored:
    """Puts every checkpoint back, verified; `fetch(key, path)` downloads one. Raises SyncError when the first, which
    the training is to start from, cannot be. A file of the source that is no checkpoint of this run's stays."""
    own, paths = set(matching(root, globs)), {root / checkpoint.path for checkpoint in resume.checkpoints}
    taken = {path for path in paths if os.path.lexists(path) and path not in own}
    written: set[Path] = set()
    restored = Restored(first=root / resume.checkpoints[0].path)
    for checkpoint in resume.checkpoints:
        try:
            _restore(checkpoint, fetch, root, taken, written)
        except Exception as error:
            why = f"the checkpoint {checkpoint.path} of {resume.run_id} cannot be put back: {error}"
            if not restored.count:
                raise SyncError(why, "run it again without resuming, or from another run") from error
            restored.warnings.append(why)
            continue
        restored.count += 1
        restored.bytes += checkpoint.bytes
    return restored


def _restore(
    checkpoint: Checkpoint, fetch: Callable[[str, Path], None], root: Path, taken: set[Path], written: set[Path]
) -> None:
    """Writes one to its path and adds what it wrote to `written`: that is newer, and stays. Raises anything."""
    target = root / checkpoint.path
    inside = target.resolve()
    if not inside.is_relative_to(root.resolve()) or inside == root.resolve():
        raise ValueError("its path is outside the run's directory")
    if target in taken:
        raise ValueError("there is a file of the source which is no checkpoint")
    if target in written:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as directory:
        file = Path(directory) / "checkpoint"
        fetch(checkpoint.key, file)
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != checkpoint.sha256:
            raise ValueError(f"it is damaged in the bucket: {found[:16]}")
        # The order of their times is what a training may look for the latest by.
        seconds = checkpoint.modified_at.timestamp()
        if checkpoint.kind == "directory":
            _unpack(file, target, written, seconds)
        else:
            os.utime(file, (seconds, seconds))
            file.replace(target)
    written.add(target)


def _unpack(file: Path, target: Path, written: set[Path], seconds: float) -> None:
    def choose(member: tarfile.TarInfo, destination: str) -> tarfile.TarInfo | None:
        path = target / member.name
        if path in written:
            return None
        written.add(path)
        member.mtime = seconds
        return tarfile.data_filter(member, destination)

    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file) as archive:
        archive.extractall(target, filter=choose)  # noqa: S202  - chosen by data_filter
    os.utime(target, (seconds, seconds))
