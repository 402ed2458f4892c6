from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runctl_action.cloud.instances import Subnet
from runctl_action.cloud.subnets import KnownSubnets

NOW = datetime(2026, 7, 1, tzinfo=UTC)


class Instances:
    """Counts how often it is asked."""

    def __init__(self):
        self.asked = []

    def subnets(self, chosen):
        self.asked.append(tuple(chosen))
        return (Subnet("subnet-a", "eu-west-1a", assigns_public_ipv4=True),)


@pytest.fixture
def known(session, tmp_path):
    instances = Instances()

    def at(minutes):
        return KnownSubnets(session, instances, tmp_path, now=lambda: NOW + timedelta(minutes=minutes)), instances

    return at


def test_are_asked_for_once_in_five_minutes_over_all_processes(known):
    first, instances = known(0)
    assert first.of(()) == (Subnet("subnet-a", "eu-west-1a", assigns_public_ipv4=True),)
    again, _ = known(4)
    assert again.of(()) == first.of(())
    assert instances.asked == [()]
    late, _ = known(6)
    late.of(())
    assert instances.asked == [(), ()]


def test_other_ones_are_another_question(known):
    subnets, instances = known(0)
    subnets.of(())
    subnets.of(["subnet-a"])
    assert instances.asked == [(), ("subnet-a",)]


def test_a_damaged_file_is_none(known, tmp_path):
    subnets, instances = known(0)
    subnets.of(())
    for file in (tmp_path / "subnets").iterdir():
        file.write_text("{")
    assert subnets.of(())
    assert len(instances.asked) == 2
