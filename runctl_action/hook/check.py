"""Would a run of this commit be accepted? All that can be said of it without asking anybody but git and the disk."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from runctl_action import settings as all_settings
from runctl_action.errors import SettingsError
from runctl_action.hook import price
from runctl_action.hook.imports import untracked_modules
from runctl_action.hook.listing import Listing, list_files, new_to
from runctl_action.hook.selection import Selected, read_objects
from runctl_action.settings import FileSettings
from runctl_action.source.repository import Repository, find_script, run_git


class Checked(NamedTuple):
    """What a run would be. `new` is (files, bytes) that the remote's branch has not: all of them where it has no such
    branch, or its commit is not here."""

    settings: FileSettings
    script: str
    args: tuple[str, ...]
    files: int
    bytes: int
    new: tuple[int, int]
    is_compared: bool
    untracked: tuple[str, ...]
    price: price.Price | None


def check(
    repository: Repository,
    selected: Selected,
    environ: Mapping[str, str],
    now: datetime,
    ordinary: Callable[[], Listing | None],
) -> Checked:
    """Raises SettingsError or SourceError, in the words of `train`. The settings are the commit's; who trains it here
    has variables of his own as well. `ordinary()` is `read_ordinary` of the commit, begun before."""
    settings = _settings(repository, selected, environ if selected.is_trained else {})
    if not settings.script:
        raise SettingsError("no script is set", 'write it in runctl.toml: script = "train.py"')
    priced = price.ask(settings, repository.environ, now)
    listing = list_files(repository, selected.commit, settings.max_file_bytes, ordinary)
    script = posixpath.normpath(settings.script)
    if os.fsencode(script) not in listing.sizes:
        script = find_script(repository, repository.root, settings.script, selected.commit)
    known = selected.refs[0].known
    compared = new_to(repository, known, selected.commit, listing) if known else None
    return Checked(
        settings=settings,
        script=script,
        args=settings.args,
        files=len(listing.sizes),
        bytes=listing.bytes,
        new=compared or (len(listing.sizes), listing.bytes),
        is_compared=compared is not None,
        untracked=_untracked(repository, selected.commit, script, listing),
        price=priced(),
    )


def _settings(repository: Repository, selected: Selected, environ: Mapping[str, str]) -> FileSettings:
    flags = {} if selected.args is None else {"args": selected.args}
    try:
        return all_settings.load(flags=flags, environ=environ, root=repository.root, read=selected.files.get)
    except SettingsError as error:
        if selected.args is None:
            raise
        # Whoever wrote a trailer has given no flag.
        raise SettingsError(str(error).replace("\n  --args:", "\n  the trailer Train:"), error.hint) from None


def _untracked(repository: Repository, commit: str, script: str, listing: Listing) -> tuple[str, ...]:
    def git(arguments: Sequence[str], stdin: bytes) -> bytes:
        return run_git(repository.root, repository.environ, *arguments, stdin=stdin)

    def read(paths: Sequence[str]) -> Sequence[bytes]:
        return [found[2] if found else b"" for found in read_objects([f"{commit}:{path}" for path in paths], git)]

    if "\n" in script:
        return ()
    return untracked_modules(script, listing.sizes, read, lambda path: (repository.root / path).is_file())
