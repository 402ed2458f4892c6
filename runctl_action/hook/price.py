"""What an hour of the first instance type costs: as it is kept from an earlier question, or asked for meanwhile.

boto3 takes longer to import than a push may: another process asks. What comes too late is there for the next push."""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from runctl_action.cloud.cache import Cache, Kept
from runctl_action.run.tools import cache_directory
from runctl_action.settings import FileSettings

# As long as a list price is held for one (cloud/prices.py, which takes botocore to import).
_PRICE_AGE = timedelta(hours=24)
# Where there are no credentials, or no permission, no push waits for a price again so soon.
_PAUSE = timedelta(minutes=10)
_PATIENCE_SECONDS = 1.0


class Price(NamedTuple):
    """USD per hour on demand, as AWS's list had it at `as_of`."""

    usd: Decimal
    as_of: datetime


class _Figures(Kept):
    usd: dict[str, Decimal]


def ask(
    settings: FileSettings, environ: Mapping[str, str], now: datetime, patience_seconds: float = _PATIENCE_SECONDS
) -> Callable[[], Price | None]:
    """Begins to ask where no price is kept; what is returned waits for the answer, at most so long from now. None when
    there is none in time, or nothing to ask for: no region, an instance of one's own."""
    region = settings.region or _region(environ)
    types = [name for name in settings.instance_type if name != "cheapest"]
    if not region or not types or settings.instance_id:
        return lambda: None
    cache = Cache(cache_directory(environ) / "prices")
    file = f"{region}-on-demand-{types[0]}"
    endpoint = environ.get("AWS_ENDPOINT_URL_PRICING") or environ.get("AWS_ENDPOINT_URL") or None
    of = hashlib.sha256(f"{file} {endpoint}".encode()).hexdigest()

    def kept() -> Price | None:
        # The answer is younger than the question.
        found = cache.get(file, _Figures, of, now - _PRICE_AGE, now + timedelta(seconds=60))
        return Price(next(iter(found.usd.values())), found.as_of) if found and found.usd else None

    if (price := kept()) or cache.get(f"{file}-asked", Kept, of, now - _PAUSE, now):
        return lambda: price
    cache.put(f"{file}-asked", Kept(version=1, of=of, as_of=now))
    deadline = time.monotonic() + patience_seconds
    process = _start(["price", region, types[0]], environ)

    def answer() -> Price | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        # It belongs to nobody from now on: Popen would warn that it is still running.
        process.returncode = process.returncode or 0
        return kept()

    return answer


def _start(words: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own, with none of our streams: neither git nor the terminal waits for it."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "runctl_action", "hook", *words],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _region(environ: Mapping[str, str]) -> str | None:
    """The variable's, else the profile's, as boto3 would find it."""
    if found := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        return found
    profile = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    config = configparser.RawConfigParser(strict=False)
    with contextlib.suppress(OSError, ValueError, configparser.Error):
        path = environ.get("AWS_CONFIG_FILE") or os.path.join(environ.get("HOME", ""), ".aws/config")  # noqa: PTH118
        config.read_string(Path(path).expanduser().read_text(encoding="utf-8"))
    names = [profile] if profile == "default" else [f"profile {profile}", f'profile "{profile}"']
    return next((config[name]["region"] for name in names if config.has_option(name, "region")), None)
