"""The repository and the commit that is trained: found and read by git itself."""

from __future__ import annotations

import difflib
import os
import posixpath
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runctl_action.contract.manifest import SYMLINK, Entry, Manifest, ManifestError, ObjectFormat
from runctl_action.errors import (
    FileTooLarge,
    LfsObjectMissing,
    NotARepository,
    ScriptNotTracked,
    ScriptOutsideRoot,
    SourceError,
    SubmoduleMissing,
    UnsafeSymlink,
)

_LFS_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,15})\n\Z"
)
_LFS_POINTER_MAX_BYTES = 1024


@dataclass(frozen=True)
class Repository:
    """`root` is the project root, `how` says how it was found, `name` is owner/name of origin, else the folder's."""

    root: Path
    how: str
    git_dir: Path
    object_format: ObjectFormat
    name: str
    environ: Mapping[str, str] = field(repr=False)

    def git(self, *arguments: str | bytes) -> bytes:
        """What git prints. Raises SourceError with git's own words."""
        return run_git(self.root, self.environ, *arguments)

    def origin_url(self) -> str:
        """Of the remote `origin`; "" without one."""
        try:
            return os.fsdecode(self.git("config", "--get", "remote.origin.url")).strip()
        except SourceError:
            return ""


@dataclass(frozen=True)
class Located:
    """Where the bytes of a content id are: a blob of `repository` (the root's or a submodule's), or a file on disk."""

    repository: Path
    path: Path | None = None
    oid: str | None = None


@dataclass(frozen=True)
class Source:
    """The tracked files of one commit (or, of kind `worktree`, as they are on disk), and where their bytes are."""

    repository: Repository
    kind: Literal["commit", "worktree"]
    commit: str
    tree: str
    branch: str | None
    manifest: Manifest
    dirty: tuple[str, ...]
    located: Mapping[str, Located] = field(repr=False)


def open_repository(cwd: Path, environ: Mapping[str, str]) -> Repository:
    """The repository that git finds from `cwd`. Raises NotARepository with what git said."""
    clean = _without_git_variables(environ)
    try:
        top = run_git(cwd, clean, "rev-parse", "--show-toplevel", "--git-common-dir", "--show-object-format")
    except SourceError as error:
        said = str(error)
        if "dubious ownership" in said:
            raise NotARepository(
                f"git does not trust the repository at {cwd}: it belongs to somebody else",
                f"git config --global --add safe.directory {_shown(cwd)}",
            ) from error
        raise NotARepository(
            f"{cwd} is not in a git repository: {said}", "run this inside the repository, or make it one: git init"
        ) from error
    root, common, object_format = os.fsdecode(top).rstrip("\n").rsplit("\n", 2)
    git_dir = Path(common) if Path(common).is_absolute() else cwd / common
    repository = Repository(
        root=Path(root),
        how=f"git rev-parse --show-toplevel, from {cwd}",
        git_dir=git_dir,
        object_format="sha256" if object_format == "sha256" else "sha1",
        name="",
        environ=clean,
    )
    return Repository(**{**vars(repository), "name": _name(repository)})


def find_script(repository: Repository, cwd: Path, given: str, revision: str) -> str:
    """The script's path from the root, with `/`. `given` is relative to `cwd` or to the root, or absolute.
    Raises ScriptOutsideRoot or ScriptNotTracked, which show the root, how it was found, and the nearest names."""
    tracked = _tracked(repository, revision)
    candidates = []
    for base in (cwd, repository.root):
        # Lexically first: a tracked link to a script is itself the script. Then with links resolved.
        for path in (Path(os.path.normpath(base / given)), Path(os.path.realpath(base / given))):
            for root in (repository.root, Path(os.path.realpath(repository.root))):
                candidates += [path.relative_to(root).as_posix()] if root in path.parents else []
    for candidate in candidates:
        if candidate in tracked:
            return candidate
    detected = f"the project root is {repository.root} (detected by: {repository.how})"
    if not candidates:
        raise ScriptOutsideRoot(
            f"the script {given} is not under the project root: {detected}; it resolves to "
            f"{os.path.normpath(cwd / given)}",
            f"run this inside the script's own repository, or copy the script below {repository.root} and commit it",
        )
    names = (
        difflib.get_close_matches(candidates[0], tracked, n=3, cutoff=0.5)
        or [name for name in sorted(tracked) if posixpath.basename(name) == posixpath.basename(candidates[0])][:3]
    )
    near = f"; the nearest tracked names: {', '.join(names)}" if names else ""
    exists = (repository.root / candidates[0]).exists()
    raise ScriptNotTracked(
        f"the script {given} is {'on disk, but ' if exists else ''}not tracked at {revision}: {detected}{near}",
        f"git add {_shown(candidates[0])} && git commit" if exists else "check the name: git ls-files",
    )


def read_source(
    repository: Repository,
    revision: str = "HEAD",
    kind: Literal["commit", "worktree"] = "commit",
    max_file_bytes: int | None = None,
) -> Source:
    """The manifest of a commit, and where each content is. Raises UnsafeSymlink, LfsObjectMissing, SubmoduleMissing,
    FileTooLarge, SourceError: each says what to run."""
    try:
        commit = os.fsdecode(
            repository.git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        ).strip()
    except SourceError as error:
        raise SourceError(
            f"there is no commit {revision}: {error}", "commit something first, or check the name"
        ) from error
    tree = os.fsdecode(repository.git("rev-parse", f"{commit}^{{tree}}")).strip()
    reader = _Reader(repository)
    entries = reader.worktree() if kind == "worktree" else reader.commit(repository.root, commit, b"")
    for entry in entries:
        if max_file_bytes is not None and entry.size > max_file_bytes:
            raise FileTooLarge(
                f"{_shown(entry.path)} has {entry.size} bytes, more than max-file-bytes ({max_file_bytes})",
                "keep data out of the repository (a bucket, git lfs), or raise max-file-bytes",
            )
    try:
        manifest = Manifest.of(repository.object_format, entries)
    except ManifestError as error:
        raise SourceError(f"this commit cannot be trained: {error}", "rename it and commit") from error
    return Source(
        repository=repository,
        kind=kind,
        commit=commit,
        tree=tree,
        branch=_branch(repository),
        manifest=manifest,
        dirty=_dirty(repository),
        located=reader.located,
    )


class _Reader:
    """Collects entries, and where the bytes of each content id are, over the root and its submodules."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.located: dict[str, Located] = {}

    def commit(self, root: Path, commit: str, prefix: bytes) -> list[Entry]:
        entries: list[Entry] = []
        small: list[tuple[Entry, str]] = []
        for line in run_git(root, self._repository.environ, "ls-tree", "-r", "-z", "-l", "--full-tree", commit).split(
            b"\0"
        ):
            if not line:
                continue
            head, path = line.split(b"\t", 1)
            mode, kind, oid, size = head.decode().split()
            path = prefix + path
            if kind == "commit":
                entries += self._submodule(path, oid)
                continue
            entry = Entry(mode, f"git:{oid}", int(size), path)
            self.located[entry.content] = Located(repository=root, oid=oid)
            if mode == SYMLINK or entry.size <= _LFS_POINTER_MAX_BYTES:
                small.append((entry, oid))
            else:
                entries.append(entry)
        return entries + self._small(root, small)

    def worktree(self) -> list[Entry]:
        import hashlib

        entries = []
        listed = run_git(self._repository.root, self._repository.environ, "ls-files", "-z", "--recurse-submodules")
        for raw in filter(None, listed.split(b"\0")):
            path = Path(os.fsdecode(os.fsencode(self._repository.root) + b"/" + raw))
            try:
                info = path.lstat()
                if path.is_symlink():
                    target = os.fsencode(path.readlink())
                    _check_link(raw, target)
                    content = f"sha256:{hashlib.sha256(target).hexdigest()}"
                    entries.append(Entry(SYMLINK, content, len(target), raw))
                elif path.is_dir():
                    continue
                else:
                    with path.open("rb") as file:
                        content = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
                    entries.append(Entry("100755" if info.st_mode & 0o100 else "100644", content, info.st_size, raw))
            except FileNotFoundError:
                continue  # deleted on disk: `dirty` names it
            self.located[content] = Located(repository=self._repository.root, path=path)
        return entries

    def _submodule(self, path: bytes, oid: str) -> list[Entry]:
        root = Path(os.fsdecode(os.fsencode(self._repository.root) + b"/" + path))
        if not (root / ".git").exists():
            raise SubmoduleMissing(
                f"the submodule {_shown(path)} is not checked out",
                f"git submodule update --init --recursive {_shown(path)}",
            )
        try:
            run_git(root, self._repository.environ, "cat-file", "-e", f"{oid}^{{commit}}")
        except SourceError as error:
            raise SubmoduleMissing(
                f"the submodule {_shown(path)} lacks the recorded commit {oid[:12]}",
                "git submodule update --init --recursive",
            ) from error
        return self.commit(root, oid, path + b"/")

    def _small(self, root: Path, small: Sequence[tuple[Entry, str]]) -> list[Entry]:
        """Looks into small blobs: is a link safe, is a file an LFS pointer?"""
        entries = []
        contents = read_blobs(root, self._repository.environ, [oid for _, oid in small])
        for (entry, _), data in zip(small, contents, strict=True):
            if entry.mode == SYMLINK:
                _check_link(entry.path, data)
            elif pointer := _LFS_POINTER.match(data):
                entries.append(self._lfs(entry, pointer[1].decode(), int(pointer[2])))
                continue
            entries.append(entry)
        return entries

    def _lfs(self, entry: Entry, oid: str, size: int) -> Entry:
        path = self._repository.git_dir / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        if not path.is_file() or path.stat().st_size != size:
            raise LfsObjectMissing(
                f"{_shown(entry.path)} is an LFS pointer and its object is not here ({oid[:12]}, {size} bytes)",
                f"git lfs fetch && git lfs checkout {_shown(entry.path)}",
            )
        content = f"sha256:{oid}"
        self.located[content] = Located(repository=self._repository.root, path=path)
        return Entry(entry.mode, content, size, entry.path)


def run_git(cwd: Path, environ: Mapping[str, str], *arguments: str | bytes, stdin: bytes = b"") -> bytes:
    """What `git ARGUMENTS` prints. Raises SourceError with git's own words."""
    with start_git(cwd, environ, *arguments) as process:
        out, said = process.communicate(stdin)
    if process.returncode:
        raise SourceError(os.fsdecode(said).strip() or f"git ended with {process.returncode}")
    return out


def start_git(cwd: Path, environ: Mapping[str, str], *arguments: str | bytes) -> subprocess.Popen[bytes]:
    """`git ARGUMENTS`, all three streams piped. Its whole environment is `environ`: a wrapper that adds to the
    process's own (GitPython's does) cannot take away the GIT_DIR that a hook exports."""
    try:
        return subprocess.Popen(
            ["git", *arguments],
            cwd=cwd,
            env={**environ, "LC_ALL": "C"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        missing = "git is not installed, or not on PATH" if cwd.is_dir() else f"there is no folder {cwd}"
        raise SourceError(missing, "install git") from error


def read_blobs(root: Path, environ: Mapping[str, str], oids: Sequence[str]) -> list[bytes]:
    """The contents of (small) blobs, in order, by one `git cat-file --batch`."""
    if not oids:
        return []
    data = run_git(root, environ, "cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in oids).encode())
    found, position = [], 0
    for oid in oids:
        end = data.index(b"\n", position)
        header = data[position:end].split()
        if len(header) != 3 or header[0] != oid.encode():
            raise SourceError(f"git cannot read object {oid}: {data[position:end]!r}", "git fsck")
        size = int(header[2])
        found.append(data[end + 1 : end + 1 + size])
        position = end + 1 + size + 1
    return found


def read_file(repository: Repository, revision: str, path: str) -> bytes | None:
    """A tracked file as it is at `revision`; None when it is not there. Raises SourceError when there is no such
    commit."""
    listed = repository.git("ls-tree", "-z", "--full-tree", revision, "--", path)
    kind = listed.split(b"\t")[0].split()
    if len(kind) != 3 or kind[1] != b"blob":
        return None
    return read_blobs(repository.root, repository.environ, [kind[2].decode()])[0]


def _without_git_variables(environ: Mapping[str, str]) -> dict[str, str]:
    kept = (
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_SSL_CAINFO",
        "GIT_CEILING_DIRECTORIES",
    )
    return {name: value for name, value in environ.items() if not name.startswith("GIT_") or name in kept}


def _tracked(repository: Repository, revision: str) -> set[str]:
    listed = repository.git("ls-tree", "-r", "-z", "--name-only", "--full-tree", revision)
    return {os.fsdecode(name) for name in listed.split(b"\0") if name}


def _check_link(path: bytes, target: bytes) -> None:
    landing = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if not target or b"\0" in target:
        # git can store it, and no disk can hold it: better said here than on a host that is paid for.
        raise UnsafeSymlink(
            f"the tracked link {_shown(path)} has a target that no disk can hold: {_shown(target)!r}",
            f"git rm --cached {_shown(path)}",
        )
    if target.startswith(b"/") or landing == b".." or landing.startswith(b"../"):
        raise UnsafeSymlink(
            f"the tracked link {_shown(path)} leaves the project root: it points to {_shown(target)}",
            f"git rm --cached {_shown(path)}, or make it point inside the repository",
        )


def _branch(repository: Repository) -> str | None:
    try:
        return os.fsdecode(repository.git("symbolic-ref", "--quiet", "--short", "HEAD")).strip() or None
    except SourceError:
        return None  # a detached HEAD has none


def _dirty(repository: Repository) -> tuple[str, ...]:
    listed = repository.git("status", "--porcelain=v1", "-z", "--untracked-files=no", "--no-renames")
    return tuple(_shown(line[3:]) for line in listed.split(b"\0") if line)


def _name(repository: Repository) -> str:
    match = re.search(r"[:/]([^/:]+/[^/:]+?)(?:\.git)?/*\Z", repository.origin_url())
    return match[1] if match else repository.root.name


def _shown(path: str | bytes | Path) -> str:
    text = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else str(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
