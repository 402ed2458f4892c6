"""How long the host may live: what powers it off. The new is always armed before the old is cancelled.

Commands go by their bare names: on an emulated host other programs of these names come first in PATH.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Sequence

from runctl_action.host.saying import say

# What the launch has armed (user data), and two pairs of ours that take turns: systemd refuses a second unit of a name.
_BOOT = ("runctl-lease", "runctl-lease-forced")
_LIMITS = (("runctl-limit", "runctl-limit-forced"), ("runctl-limit-next", "runctl-limit-next-forced"))
_FORCED_AFTER_SECONDS = 300
# A command that waits for a system bus which does not answer has failed.
_COMMAND_SECONDS = 20

Call = Callable[[Sequence[str]], bool]


def call(argv: Sequence[str]) -> bool:
    """Whether the command was there and succeeded."""
    try:
        done = subprocess.run(argv, check=False, capture_output=True, timeout=_COMMAND_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"lease: {error}")
        return False
    return done.returncode == 0


def hold(seconds: float, call: Call = call) -> bool:
    """The host powers itself off in `seconds`, by force five minutes later; what was armed before is cancelled.
    False when nothing could be armed: then nothing is cancelled either."""
    armed = _arm_timers(seconds, call)
    if armed:
        call(["shutdown", "-c"])  # of a boot without systemd-run, or of a run before this one
    elif not call(["shutdown", "-h", f"+{_minutes(seconds)}"]):
        return False
    _cancel(armed, call)
    return True


def power_off(after_seconds: float, call: Call = call) -> None:
    """The end of the host: now, or in `after_seconds`, which the limit of the run neither cuts short nor outlives."""
    if not after_seconds:
        call(["shutdown", "-h", "now"])
        return
    minutes = _minutes(after_seconds)
    call(["shutdown", "-h", f"+{minutes}"])
    # Behind it, for a guest that ignores it. Where there are no timers the one `shutdown` has replaced the limit.
    if armed := _arm_timers(minutes * 60 + _FORCED_AFTER_SECONDS, call):
        _cancel(armed, call)


def _arm_timers(seconds: float, call: Call) -> tuple[str, ...]:
    """The pair that is armed now; empty when systemd did not take both."""
    first, second = _LIMITS
    new = first
    if any(call(["systemctl", "is-active", "--quiet", f"{unit}.timer"]) for unit in first):
        new = second
        call(["systemctl", "stop", *(f"{unit}.timer" for unit in second)])  # the first is armed
    limit, forced = new
    for unit, after, command in (
        (limit, seconds, ("shutdown", "-h", "now")),
        (forced, seconds + _FORCED_AFTER_SECONDS, ("poweroff", "-f")),
    ):
        if not call(["systemd-run", "--quiet", "--collect", f"--unit={unit}", f"--on-active={round(after)}", *command]):
            return ()
    return new


def _cancel(but: tuple[str, ...], call: Call) -> None:
    """Every timer that a launch or a run may have armed, `but` these. A unit that is not there is no hindrance."""
    for pair in (_BOOT, *_LIMITS):
        if pair != but:
            call(["systemctl", "stop", *(f"{unit}.timer" for unit in pair)])


def _minutes(seconds: float) -> int:
    return max(1, math.ceil(seconds / 60))
