"""What goes wrong on purpose. One grammar for flags, files and the control endpoint: `kind` or `kind:key=value,…`.

At the launch
    no-capacity[:market=spot|on-demand][,type=TYPE][,zone=ZONE]    RunInstances: InsufficientInstanceCapacity
    unsupported[:type=TYPE][,zone=ZONE]                            RunInstances: Unsupported
    quota[:market=…][,type=TYPE]                                   MaxSpotInstanceCountExceeded, VcpuLimitExceeded
    max-price[:type=TYPE][,zone=ZONE]                              RunInstances: SpotMaxPriceTooLow
    launch-error:code=CODE[,market=…][,type=TYPE][,zone=ZONE]      RunInstances: that code of EC2's
    no-user-data                                                   the boot timer is never armed
    never-online                                                   SSM does not get to know the host
    not-executing                                                  SSM knows the host, and commands stay InProgress
On a host that has reached a phase (booting, syncing, installing, training, collecting; without one: at its next beat)
    spot-notice[:phase=PHASE][,after=SECONDS][,reclaim=MINUTES]    a notice; the reclaim is 2 emulated minutes later
    reclaim[:phase=PHASE][,after=SECONDS]                          a reclaim without notice
    die[:phase=PHASE][,after=SECONDS]                              the host powers off
    freeze[:phase=PHASE][,after=SECONDS]                           its processes are gone, EC2 goes on saying running
    disk-full[:phase=PHASE][,after=SECONDS]                        no space is left where the host keeps its things
    network-cut[:phase=PHASE][,after=SECONDS][,seconds=SECONDS]    nothing of AWS answers the host (60 s)
Of the APIs
    throttle[:api=NAME][,percent=N]                                RequestLimitExceeded, ThrottlingException, SlowDown
    denied:action=SERVICE:ACTION                                   that action is not allowed, to anybody
    lost-answer:api=NAME                                           the call is done, and its answer lost
    expired[:who=launcher|host]                                    these credentials have expired
    clock-skew[:minutes=N]                                         the clock of every host is so far off (60)
    s3-error[:percent=N][,key=GLOB][,method=METHOD]                InternalError
    s3-slow[:seconds=SECONDS][,percent=N][,key=GLOB]               an answer comes so much later (1 s)

`times=N` on any of them: only so often. Those on a host that has reached a phase happen once unless it says otherwise,
and one host is never hit twice by the same kind. Types, zones, keys, actions and names may hold * and ?.
"""

from __future__ import annotations

import fnmatch
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ON_HOSTS = ("spot-notice", "reclaim", "die", "freeze", "disk-full", "network-cut")
# EC2's codes for a launch that have no kind of their own, and the HTTP status of each.
LAUNCH_ERRORS = {
    "UnfulfillableCapacity": 500,
    "InsufficientFreeAddressesInSubnet": 400,
    "InstanceLimitExceeded": 400,
    "RequestLimitExceeded": 503,
    "InternalError": 500,
    "UnauthorizedOperation": 403,
    "InvalidParameterValue": 400,
}
_PHASES = ("booting", "syncing", "installing", "training", "collecting")
_CONDITIONS = {
    "no-capacity": ("market", "type", "zone"),
    "unsupported": ("type", "zone"),
    "quota": ("market", "type"),
    "max-price": ("type", "zone"),
    "launch-error": ("code", "market", "type", "zone"),
    "no-user-data": (),
    "never-online": (),
    "not-executing": (),
    **dict.fromkeys(ON_HOSTS, ("phase",)),
    "throttle": ("api",),
    "denied": ("action",),
    "lost-answer": ("api",),
    "expired": ("who",),
    "clock-skew": (),
    "s3-error": ("key", "method"),
    "s3-slow": ("key",),
}
_NUMBERS = {
    "spot-notice": ("after", "reclaim"),
    **dict.fromkeys(ON_HOSTS[1:-1], ("after",)),
    "network-cut": ("after", "seconds"),
    "throttle": ("percent",),
    "clock-skew": ("minutes",),
    "s3-error": ("percent",),
    "s3-slow": ("seconds", "percent"),
}
_NEEDED = {"launch-error": "code", "denied": "action", "lost-answer": "api"}
_WORDS = {"code": tuple(LAUNCH_ERRORS), "market": ("spot", "on-demand"), "phase": _PHASES, "who": ("launcher", "host")}


@dataclass
class Fault:
    """One fault: `text` as it was written; `left` is how often it may still happen, None for always."""

    text: str
    kind: str
    conditions: dict[str, str]
    numbers: dict[str, float]
    left: int | None

    def number(self, name: str, default: float) -> float:
        return self.numbers.get(name, default)


class Faults:
    """Those that are set. Raises ValueError, which says what the grammar has, for one that is none."""

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._random = random.Random(0)  # noqa: S311  - the same faults hit the same calls each time
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """A fault, or `@FILE`: one a line, `#` begins a comment."""
        if text.startswith("@"):
            lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
            found = [parse(line) for line in (line.partition("#")[0].strip() for line in lines) if line]
        else:
            found = [parse(text)]
        with self._lock:
            self._faults += found

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def texts(self) -> list[str]:
        """Those that may still happen, as they were written."""
        return [fault.text for fault in self._faults if fault.left != 0]

    def has(self, kind: str) -> bool:
        return any(fault.kind == kind and fault.left != 0 for fault in self._faults)

    def is_set(self, kind: str, **seen: str) -> bool:
        """Whether `take` would give one; none is used up."""
        return any(fault.kind == kind and fault.left != 0 and _matches(fault, seen) for fault in self._faults)

    def take(self, kind: str, **seen: str) -> Fault | None:
        """The first fault of `kind` whose conditions hold for `seen`; one with `times` is used up by it."""
        with self._lock:
            for fault in self._faults:
                if fault.kind != kind or fault.left == 0 or not _matches(fault, seen):
                    continue
                if self._random.uniform(0, 100) > fault.number("percent", 100):
                    continue
                if fault.left is not None:
                    fault.left -= 1
                return fault
        return None


def parse(text: str) -> Fault:
    kind, _, rest = text.partition(":")
    if kind not in _CONDITIONS:
        raise ValueError(f"there is no fault {kind!r}: there are {', '.join(_CONDITIONS)}")
    numbers = (*_NUMBERS.get(kind, ()), "times")
    allowed = (*_CONDITIONS[kind], *numbers)
    conditions: dict[str, str] = {}
    found: dict[str, float] = {}
    # An action has a colon and no comma, so the rest splits at commas alone.
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in allowed:
            raise ValueError(f"{text!r}: {kind} takes {', '.join(allowed)}, as key=value")
        if key in numbers:
            found[key] = _number(text, key, value)
        elif key in _WORDS and value not in _WORDS[key]:
            raise ValueError(f"{text!r}: {key} is one of {', '.join(_WORDS[key])}")
        else:
            conditions[key] = value
    if kind in _NEEDED and _NEEDED[kind] not in conditions:
        raise ValueError(f"{text!r}: {kind} needs {_NEEDED[kind]}=…")
    times = found.pop("times", 1 if kind in ON_HOSTS else None)
    return Fault(text, kind, conditions, found, None if times is None else int(times))


def _matches(fault: Fault, seen: dict[str, str]) -> bool:
    return all(fnmatch.fnmatchcase(seen.get(key, ""), pattern) for key, pattern in fault.conditions.items())


def _number(text: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1
    if not 0 <= number < float("inf"):
        raise ValueError(f"{text!r}: {key} is a number, not {value!r}")
    if key == "percent" and number > 100:
        raise ValueError(f"{text!r}: percent is at most 100")
    if key == "times" and (number < 1 or number % 1):
        raise ValueError(f"{text!r}: times is a whole number from 1, not {value!r}")
    return number
