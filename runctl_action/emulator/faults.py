"""What goes wrong on purpose. One grammar for flags and files: `kind` or `kind:key=value,key=value`.

    no-capacity[:market=spot|on-demand][,type=TYPE][,zone=ZONE]   RunInstances: InsufficientInstanceCapacity
    quota[:market=…][,type=…]      RunInstances: MaxSpotInstanceCountExceeded or VcpuLimitExceeded
    never-online                                                  SSM does not get to know the host
    not-executing                                                 SSM knows the host, and commands stay InProgress
    no-user-data                                                  the boot timer is never armed
    spot-notice[:phase=PHASE][,after=SECONDS]                     notice, then reclaim 2 emulated minutes later
    reclaim[:phase=PHASE][,after=SECONDS]                         reclaim without notice
    die[:phase=PHASE][,after=SECONDS]                             the host is gone (Client.InstanceInitiatedShutdown)

`times=N` on any of them: only so often (spot-notice, reclaim and die: once).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

_KEYS = {
    "no-capacity": {"market", "type", "zone"},
    "quota": {"market", "type"},
    "never-online": set(),
    "not-executing": set(),
    "no-user-data": set(),
    "spot-notice": {"phase", "after"},
    "reclaim": {"phase", "after"},
    "die": {"phase", "after"},
}
_ONCE = {"spot-notice", "reclaim", "die"}


@dataclass
class Fault:
    kind: str
    where: dict[str, str]
    left: int | None


class Faults:
    """Raises ValueError, with the grammar's keys, for a fault that is none."""

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._faults = [parse(text) for text in texts]
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        with self._lock:
            self._faults.append(parse(text))

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, kind: str, **seen: str) -> Fault | None:
        """The first fault of `kind` whose conditions hold for `seen`; one with `times` is used up by it."""
        with self._lock:
            for fault in self._faults:
                conditions = {key: value for key, value in fault.where.items() if key != "after"}
                if fault.kind == kind and fault.left != 0 and all(seen.get(k) == v for k, v in conditions.items()):
                    if fault.left is not None:
                        fault.left -= 1
                    return fault
        return None


def parse(text: str) -> Fault:
    kind, _, rest = text.partition(":")
    if kind not in _KEYS:
        raise ValueError(f"there is no fault {kind!r}: there are {', '.join(_KEYS)}")
    where: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in _KEYS[kind] | {"times"}:
            raise ValueError(f"{text!r}: {kind} takes {', '.join(sorted(_KEYS[kind] | {'times'}))}, as key=value")
        where[key] = value
    times = where.pop("times", None)
    return Fault(kind, where, int(times) if times else 1 if kind in _ONCE else None)
