"""Would a run of this commit be accepted? All that can be said of it without asking anybody but git and the disk."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from runctl_action import settings as all_settings
from runctl_action.cloud.cache import Cache, Kept
from runctl_action.errors import SettingsError
from runctl_action.hook.imports import untracked_modules
from runctl_action.hook.listing import Listing, list_files, new_to
from runctl_action.hook.selection import Selected, read_objects
from runctl_action.run.tools import cache_directory
from runctl_action.settings import FileSettings
from runctl_action.source.repository import Repository, find_script, run_git

# As long as a list price is held for one (cloud/prices.py, which takes botocore to import).
_PRICE_AGE = timedelta(hours=24)


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
    usd_per_hour: Decimal | None
    priced_at: datetime | None


def check(repository: Repository, selected: Selected, environ: Mapping[str, str], now: datetime) -> Checked:
    """Raises SettingsError or SourceError, in the words of `train`. The settings are the commit's; who trains it here
    has variables of his own as well."""
    variables = environ if selected.is_trained else {}
    flags = {} if selected.args is None else {"args": selected.args}
    settings = all_settings.load(flags=flags, environ=variables, root=repository.root, read=selected.files.get)
    if not settings.script:
        raise SettingsError("no script is set", 'write it in runctl.toml: script = "train.py"')
    listing = list_files(repository, selected.commit, settings.max_file_bytes)
    script = posixpath.normpath(settings.script)
    if os.fsencode(script) not in listing.sizes:
        script = find_script(repository, repository.root, settings.script, selected.commit)
    known = selected.refs[0].known
    compared = new_to(repository, known, selected.commit, listing) if known else None
    price = _kept_price(settings, environ, now)
    return Checked(
        settings=settings,
        script=script,
        args=settings.args,
        files=len(listing.sizes),
        bytes=listing.bytes,
        new=compared or (len(listing.sizes), listing.bytes),
        is_compared=compared is not None,
        untracked=_untracked(repository, selected.commit, script, listing),
        usd_per_hour=price[0] if price else None,
        priced_at=price[1] if price else None,
    )


def _untracked(repository: Repository, commit: str, script: str, listing: Listing) -> tuple[str, ...]:
    def git(arguments: Sequence[str], stdin: bytes) -> bytes:
        return run_git(repository.root, repository.environ, *arguments, stdin=stdin)

    def read(paths: Sequence[str]) -> Sequence[bytes]:
        return [found[2] if found else b"" for found in read_objects([f"{commit}:{path}" for path in paths], git)]

    if "\n" in script:
        return ()
    return untracked_modules(script, listing.sizes, read, lambda path: (repository.root / path).is_file())


class _Figures(Kept):
    usd: dict[str, Decimal]


def _kept_price(settings: FileSettings, environ: Mapping[str, str], now: datetime) -> tuple[Decimal, datetime] | None:
    """The list price of the first instance type, as the last quote or run has kept it, and of when."""
    region = settings.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    types = [name for name in settings.instance_type if name != "cheapest"]
    if not region or not types or settings.instance_id:
        return None
    file = f"{region}-on-demand-{types[0]}"
    endpoint = environ.get("AWS_ENDPOINT_URL_PRICING") or environ.get("AWS_ENDPOINT_URL") or None
    of = hashlib.sha256(f"{file} {endpoint}".encode()).hexdigest()
    kept = Cache(cache_directory(environ) / "prices").get(file, _Figures, of, now - _PRICE_AGE, now)
    return (next(iter(kept.usd.values())), kept.as_of) if kept and kept.usd else None
