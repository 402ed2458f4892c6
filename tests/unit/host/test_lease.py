"""At no instant is a host without something that powers it off."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from runctl_action.host import lease

BOOT = {"runctl-lease.timer": 900, "runctl-lease-forced.timer": 1200}


class Host:
    """What systemd and `shutdown` make of the commands; `broken` ones fail. Systemd refuses a second unit of a name."""

    def __init__(self, timers: dict[str, int] | None = None, broken: Sequence[str] = ()) -> None:
        self.timers = dict(BOOT if timers is None else timers)
        self.shutdown = ""
        self.broken = broken

    def __call__(self, argv: Sequence[str]) -> bool:
        was_armed = bool(self.timers or self.shutdown)
        name, *words = argv
        done = name not in self.broken and self.do(name, words)
        assert not was_armed or self.timers or self.shutdown, f"nothing is armed after {argv}"
        return done

    def do(self, name: str, words: Sequence[str]) -> bool:
        if name == "systemd-run":
            options = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
            unit = f"{options['unit']}.timer"
            if unit in self.timers or f"{unit} is refused" in self.broken:
                return False
            self.timers[unit] = int(options["on-active"])
        elif words[0] == "stop":
            known = [self.timers.pop(unit, None) for unit in words[1:]]
            return None not in known
        elif words[0] == "is-active":
            return words[-1] in self.timers
        else:
            self.shutdown = "" if words[0] == "-c" else words[-1]
        return True


def test_the_limit_is_forced_five_minutes_later_and_replaces_the_boot_timer() -> None:
    host = Host()
    assert lease.hold(3600, host)
    assert host.timers == {"runctl-limit.timer": 3600, "runctl-limit-forced.timer": 3900}
    assert host.shutdown == ""


@pytest.mark.parametrize("times", [2, 3, 4])
def test_a_host_that_is_used_again_is_armed_anew(times: int) -> None:
    host = Host()
    for hour in range(1, times + 1):
        assert lease.hold(hour * 3600, host)
    assert sorted(host.timers.values()) == [times * 3600, times * 3600 + 300]


@pytest.mark.parametrize(
    "left", ["runctl-limit", "runctl-limit-forced", "runctl-limit-next", "runctl-limit-next-forced"]
)
def test_whatever_an_earlier_run_has_left_does_not_stay(left: str) -> None:
    host = Host(BOOT | {f"{left}.timer": 60})
    host.shutdown = "+30"  # its keep-on-failure
    assert lease.hold(3600, host)
    assert (sorted(host.timers.values()), host.shutdown) == ([3600, 3900], "")


@pytest.mark.parametrize("broken", ["systemd-run", "runctl-limit-forced.timer is refused"])
def test_where_systemd_takes_no_timers_it_is_shutdown(broken: str) -> None:
    host = Host(broken=[broken])
    assert lease.hold(3601, host)
    assert (host.timers, host.shutdown) == ({}, "+61")


def test_where_nothing_can_be_armed_the_boot_timer_stays() -> None:
    host = Host(broken=["systemd-run", "shutdown"])
    assert not lease.hold(3600, host)
    assert host.timers == BOOT


def test_a_host_that_is_kept_is_neither_ended_before_nor_long_after() -> None:
    host = Host()
    lease.hold(600, host)
    lease.power_off(1800, host)
    assert (host.shutdown, sorted(host.timers.values())) == ("+30", [2100, 2400])


def test_a_host_that_is_not_kept_is_powered_off_at_once() -> None:
    host = Host()
    lease.power_off(0, host)
    assert host.shutdown == "now"


def test_a_program_that_is_not_there_has_failed() -> None:
    assert not lease.call(["runctl-no-such-program"])
    assert not lease.call(["false"])
    assert lease.call(["true"])
