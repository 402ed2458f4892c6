"""Settings as people write them, in TOML, a variable or a flag. Pure; each ValueError shows what was seen, and an
example."""

# ruff: noqa: TRY004  - pydantic makes a setting's error of a ValueError, and lets a TypeError through

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?\Z")
_LONGEST = 366 * 86400
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?i?B)?\Z", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Linux gives a program no longer argument or variable (MAX_ARG_STRLEN).
_LONGEST_ARGUMENT = 128 * 1024 - 1
# Beyond, nobody means an amount, and reckoning with it overflows.
_LEAST_USD, _MOST_USD = Decimal("1e-9"), Decimal("1e9")
_OFF = {"off", "never", "0", "none"}
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
# What a shell drops from a word: a backslash and the line break behind it, except between single quotes.
_CONTINUATION = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.""", re.DOTALL)


def text(value: object) -> str | None:
    """Text as it is; a number or a list is somebody's mistake (TOML's 3.10 is 3.1)."""
    if value is None:
        return None
    if isinstance(value, str):
        return _without_nul(value)
    raise ValueError(f'{shown(value)} is not text: write it in quotes, as in "3.12"')


def secret(value: object) -> object:
    """Text as it is; no message shows any of it."""
    if value is None or isinstance(value, str):
        return value
    raise ValueError("it is not text: write it in quotes")


def whole_number(value: object) -> int | None:
    """The int of `3`."""
    if value is None:
        return None
    written = str(value).strip()
    if isinstance(value, bool) or not _NUMBER.match(written):
        raise ValueError(f"{shown(value)} is not a whole number: write 3, for example")
    return int(written)


def boolean(value: object) -> bool:
    """The bool of TOML's, YAML's and the shell's words for it."""
    word = str(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{shown(value)} is neither true nor false: write true or false")
    return word in _TRUE


def one_of(*choices: str) -> Callable[[object], str]:
    """A parser of exactly these words."""

    def choice(value: object) -> str:
        word = str(value).strip()
        if word not in choices:
            raise ValueError(f"{shown(value)} is none of {', '.join(choices)}{did_you_mean(word, choices)}")
        return word

    return choice


def duration(value: object) -> int:
    """Seconds of `90m`, `1h30m`, `45s`, `2d`; `off` is 0."""
    written = str(value).strip().lower()
    if written in _OFF:
        return 0
    match = _DURATION.match(written)
    if match is None or not any(match.groups()):
        unit = " (a number needs a unit)" if written.replace(".", "", 1).isdigit() else ""
        raise ValueError(f"{shown(value)} is not a duration{unit}: write 90m, 1h30m, 45s, 2d or off")
    seconds = sum(
        int(count) * unit for count, unit in zip(match.groups(), _SECONDS.values(), strict=True) if count is not None
    )
    if seconds > _LONGEST:
        raise ValueError(f"{shown(value)} is longer than {show_duration(_LONGEST)}: write 90m, 1h30m, 45s, 2d or off")
    return seconds


def show_duration(seconds: int) -> str:
    """The shortest text that `duration` reads as `seconds`."""
    parts = []
    for unit, size in _SECONDS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "off"


def size(value: object) -> int:
    """Bytes of `100MB` (10^6), `1GiB` (2^30), `512B`, `512`."""
    match = _SIZE.match(str(value).strip())
    unit = (match[2] or "B").upper() if match else ""
    if match is None or unit == "IB":
        raise ValueError(f"{shown(value)} is not a size: write 500MB, 1.5GiB or 4096B")
    base = 1024 if "I" in unit else 1000
    return int(Decimal(match[1]) * base ** ("BKMGT".index(unit[0])))


def money(value: object) -> Decimal:
    """US dollars of `0.50` or `$0.50`."""
    written = str(value).strip().removeprefix("$")
    try:
        amount = Decimal(written)
    except InvalidOperation:
        raise ValueError(f"{shown(value)} is not an amount in US dollars: write 0.50 or $0.50") from None
    if not amount.is_finite() or not _LEAST_USD <= amount <= _MOST_USD or len(written) > 40:
        raise ValueError(f"{shown(value)} is not a positive amount in US dollars: write 0.50 or $0.50")
    return amount


def words(value: object) -> tuple[str, ...]:
    """A list: a TOML array, or text separated by commas or lines."""
    if isinstance(value, list | tuple):
        return tuple(_word(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f'{shown(value)} is not a list: write a, b or ["a", "b"]')
    return tuple(_word(part.strip()) for part in re.split(r"[,\n]", str(value)) if part.strip())


def shell_words(value: object) -> tuple[str, ...]:
    """Arguments: an array as it is; text is split as a shell splits words, and nothing is expanded."""
    if isinstance(value, list | tuple):
        return tuple(_argument(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f'{shown(value)} is not a list of arguments: write --lr 0.1 or ["--lr", "0.1"]')
    # shlex takes a time that grows with the square of a word's length.
    written = _passable(_CONTINUATION.sub(_without_continuation, _passable(str(value), "the text of all arguments")))
    try:
        return tuple(shlex.split(written))
    except ValueError:
        raise ValueError(
            f"{shown(value)} has a quotation mark or a backslash without its end: write --name 'two words'"
        ) from None


def pairs(value: object) -> dict[str, str]:
    """NAME=VALUE lines, an array of NAME=VALUE, or a TOML table. Messages show names only: a value may be secret."""
    if isinstance(value, dict):
        for name in value:
            if not _NAME.match(str(name)):
                raise ValueError(f"{shown(name)} is not a variable's name: write letters, digits and _")
        return {str(name): _argument(item, f"the value of {name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        lines = [_argument(item, f"item {index}") for index, item in enumerate(value, 1)]
    elif isinstance(value, str):
        lines = _without_nul(value, "a value").replace("\r\n", "\n").split("\n")
    else:
        raise ValueError(f"{shown(value)} is not a list of variables: write NAME=VALUE, one a line")
    found = {}
    for index, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, equals, item = line.partition("=")
        if not equals:
            raise ValueError(f"line {index} has no `=`: write NAME=VALUE, one a line")
        if not _NAME.match(name.strip()):
            raise ValueError(f"line {index}: {shown(name)} is not a variable's name: write NAME=VALUE, one a line")
        found[name.strip()] = _passable(item, f"the value of {name.strip()}")
    return found


def shown(value: object) -> str:
    """A value in a message: as TOML writes it, and not longer than a line."""
    written = str(value).lower() if isinstance(value, bool) else repr(value)
    return written if len(written) <= 80 else f"{written[:60]}… ({len(written)} characters)"


def did_you_mean(word: str, known: Sequence[str], prefix: str = "") -> str:
    """ ": did you mean …?", or nothing when nothing is close."""
    close = difflib.get_close_matches(word, known, n=1) if len(word) <= 100 else ()
    return f": did you mean {prefix}{close[0]}?" if close else ""


def _word(item: object) -> str:
    if isinstance(item, bool) or not isinstance(item, str | int) or not str(item).strip():
        raise ValueError(f'{shown(item)} is no word of a list: write a, b or ["a", "b"]')
    return _without_nul(str(item))


def _argument(item: object, what: str = "") -> str:
    if isinstance(item, bool):
        return str(item).lower()
    if not isinstance(item, str | int | float):
        raise ValueError(f"{what or shown(item)} is neither text nor a number: write it in quotes")
    return _passable(str(item), what)


def _without_continuation(match: re.Match[str]) -> str:
    quoted = match[0]
    if quoted.startswith("'"):
        return quoted
    return re.sub(r"\\(.)", lambda pair: "" if pair[1] == "\n" else pair[0], quoted, flags=re.DOTALL)


def _passable(written: str, what: str = "") -> str:
    """What can be an argument or a variable's value."""
    if len(written) > _LONGEST_ARGUMENT:
        raise ValueError(f"{what or shown(written)} is longer than 128 KiB, which no program can be given: use a file")
    return _without_nul(written, what)


def _without_nul(written: str, what: str = "") -> str:
    if "\0" in written:
        raise ValueError(f"{what or shown(written)} has a NUL character in it, which no program can be given")
    return written
