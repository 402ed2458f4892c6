"""Durations, sizes, money and lists, as people write them. Pure; each ValueError shows an example."""

from __future__ import annotations

import re
import shlex
from decimal import Decimal, InvalidOperation

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?\Z")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|[KMGT]i?B)\Z", re.IGNORECASE)
_OFF = {"off", "never", "0", "none"}


def duration(value: object) -> int:
    """Seconds of `90m`, `1h30m`, `45s`, `2d`; `off` is 0."""
    text = str(value).strip().lower()
    if text in _OFF:
        return 0
    match = _DURATION.match(text)
    if not text or match is None or not any(match.groups()):
        unit = " (a number needs a unit)" if text.replace(".", "", 1).isdigit() else ""
        raise ValueError(f"{str(value)!r} is not a duration{unit}: write 90m, 1h30m, 45s, 2d or off")
    return sum(int(count) * seconds for count, seconds in zip(match.groups(), _SECONDS.values(), strict=True) if count)


def show_duration(seconds: int) -> str:
    """The shortest text that `duration` reads as `seconds`."""
    parts = []
    for unit, size in _SECONDS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "off"


def size(value: object) -> int:
    """Bytes of `100MB` (10^6), `1GiB` (2^30), `512B`."""
    match = _SIZE.match(str(value).strip())
    if match is None:
        raise ValueError(f"{str(value)!r} is not a size: write 500MB, 1.5GiB or 4096B")
    unit = match[2].upper()
    base = 1024 if "I" in unit else 1000
    power = "BKMGT".index(unit[0]) if unit != "B" else 0
    return int(Decimal(match[1]) * base**power)


def money(value: object) -> Decimal:
    """US dollars of `0.50` or `$0.50`."""
    text = str(value).strip().removeprefix("$")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{str(value)!r} is not an amount in US dollars: write 0.50 or $0.50") from None
    if not amount.is_finite() or amount <= 0:
        raise ValueError(f"{str(value)!r} is not a positive amount in US dollars: write 0.50 or $0.50")
    return amount


def words(value: object) -> tuple[str, ...]:
    """A list: a TOML array, or text separated by commas or lines."""
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value)
    return tuple(part.strip() for part in re.split(r"[,\n]", str(value)) if part.strip())


def shell_words(value: object) -> tuple[str, ...]:
    """Arguments: a TOML array as it is; text is split as a shell splits words, and nothing is expanded."""
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value)
    try:
        return tuple(shlex.split(str(value)))
    except ValueError as error:
        raise ValueError(f"{str(value)!r} cannot be split into arguments: {error}") from None


def pairs(value: object) -> dict[str, str]:
    """NAME=VALUE lines, or a TOML table."""
    if isinstance(value, dict):
        return {str(name): str(item) for name, item in value.items()}
    found = {}
    for line in str(value).splitlines():
        if not line.strip():
            continue
        name, equals, item = line.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name.strip()):
            raise ValueError(f"{line!r} is not NAME=VALUE")
        found[name.strip()] = item
    return found
