"""Answers of AWS, kept on disk for as long as they hold. Safe under concurrent processes; nothing is lost with it."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel


class Kept(BaseModel):
    """What a file of the cache holds. `of` says what was asked, of which AWS; `as_of` when."""

    version: Literal[1]
    of: str
    as_of: AwareDatetime


_K = TypeVar("_K", bound=Kept)


class Cache:
    """One file a question, so that two processes at once at most ask twice."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, name: str, model: type[_K], of: str, since: datetime, now: datetime) -> _K | None:
        """None for whatever is not there, not readable, too old, from the future, or of another AWS."""
        try:
            kept = model.model_validate_json(self._path(name).read_bytes())
        except (OSError, ValueError):
            return None
        return kept if kept.of == of and since <= kept.as_of <= now else None

    def put(self, name: str, kept: Kept) -> None:
        """Whole or not at all; a cache that cannot be written is none."""
        with contextlib.suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            partial = self._directory / os.urandom(8).hex()
            try:
                partial.write_text(kept.model_dump_json(), encoding="utf-8")
                partial.replace(self._path(name))
            finally:
                partial.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._directory / f"{quote(name, safe='')}.json"
