from __future__ import annotations

import re
from pathlib import Path

import pytest

from runctl_action.emulator import faults
from runctl_action.emulator.faults import LAUNCH_ERRORS, ON_HOSTS, Faults, parse

# One of every kind, with everything that it takes.
EVERY = [
    "no-capacity:market=spot,type=g5.*,zone=us-east-1?,times=2",
    "unsupported:type=g5.xlarge,zone=us-east-1a",
    "quota:market=on-demand,type=*",
    "max-price:type=g5.xlarge,zone=us-east-1a",
    "launch-error:code=UnfulfillableCapacity,market=spot,type=g5.*,zone=*",
    "no-user-data",
    "never-online",
    "not-executing",
    "spot-notice:phase=training,after=1.5,reclaim=0.1",
    "reclaim:phase=booting,after=1",
    "die:phase=syncing,after=1",
    "freeze:phase=installing,after=1",
    "disk-full:phase=collecting,after=1",
    "network-cut:phase=training,after=1,seconds=5",
    "throttle:api=RunInstances,percent=10",
    "denied:action=s3:PutObject",
    "lost-answer:api=RunInstances",
    "expired:who=launcher",
    "clock-skew:minutes=20",
    "s3-error:percent=10,key=packs/*,method=PUT",
    "s3-slow:seconds=0.1,percent=50,key=packs/*",
]


def documented_kinds() -> list[str]:
    assert faults.__doc__
    return re.findall(r"^    ([a-z0-9-]+)[\[: ]", faults.__doc__, re.MULTILINE)


def test_every_kind_is_documented_and_every_documented_kind_parses_with_all_that_it_takes() -> None:
    assert [parse(text).kind for text in EVERY] == documented_kinds()


def test_every_key_is_documented_at_its_kind() -> None:
    lines = dict(zip(documented_kinds(), re.findall(r"^    \S+", faults.__doc__ or "", re.MULTILINE), strict=True))
    for text in EVERY:
        kind, _, rest = text.partition(":")
        keys = {part.partition("=")[0] for part in rest.split(",") if part} - {"times"}
        assert keys == set(re.findall(r"([a-z]+)=", lines[kind])), kind


@pytest.mark.parametrize("text", EVERY)
def test_a_fault_is_listed_as_it_was_written(text: str) -> None:
    assert Faults([text]).texts() == [text]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no fault '': there are no-capacity, unsupported"),
        ("no-such", "there is no fault 'no-such': there are no-capacity"),
        ("No-capacity", "there is no fault"),
        ("no-capacity:zone", "no-capacity takes market, type, zone, times, as key=value"),
        ("no-capacity:phase=training", "no-capacity takes market, type, zone, times"),
        ("no-user-data:type=x", "no-user-data takes times"),
        ("no-capacity:market=cheap", "market is one of spot, on-demand"),
        ("reclaim:phase=done", "phase is one of booting, syncing, installing, training, collecting"),
        ("expired:who=me", "who is one of launcher, host"),
        ("launch-error:code=Nope", "code is one of UnfulfillableCapacity, InsufficientFreeAddressesInSubnet"),
        ("launch-error", "launch-error needs code="),
        ("denied", "denied needs action="),
        ("lost-answer:times=1", "lost-answer needs api="),
        ("reclaim:after=soon", "after is a number, not 'soon'"),
        ("reclaim:after=-1", "after is a number"),
        ("reclaim:after=nan", "after is a number"),
        ("reclaim:after=inf", "after is a number"),
        ("s3-error:percent=101", "percent is at most 100"),
        ("reclaim:times=0", "times is a whole number from 1"),
        ("reclaim:times=1.5", "times is a whole number from 1"),
    ],
)
def test_what_is_none_is_refused_with_what_the_grammar_has(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Faults([text])


def test_a_fault_happens_for_ever_unless_it_says_how_often() -> None:
    found = Faults(["throttle", "quota:times=2"])
    assert [bool(found.take("throttle", api="x")) for _ in range(5)] == [True] * 5
    assert [bool(found.take("quota", market="spot", type="t")) for _ in range(4)] == [True, True, False, False]
    assert found.texts() == ["throttle"]
    assert not found.has("quota")


@pytest.mark.parametrize("kind", ON_HOSTS)
def test_what_waits_for_a_phase_happens_once_unless_it_says_otherwise(kind: str) -> None:
    found = Faults([f"{kind}:phase=training"])
    assert not found.take(kind, phase="syncing")
    assert [bool(found.take(kind, phase="training")) for _ in range(2)] == [True, False]
    found = Faults([f"{kind}:times=2"])
    assert [bool(found.take(kind, phase="booting")) for _ in range(3)] == [True, True, False]


def test_conditions_are_globs_and_must_all_hold() -> None:
    found = Faults(["no-capacity:market=spot,type=g5.*,zone=us-east-1?"])
    seen = {"market": "spot", "type": "g5.xlarge", "zone": "us-east-1a"}
    assert found.take("no-capacity", **seen)
    for changed in ({"market": "on-demand"}, {"type": "g6.xlarge"}, {"zone": "us-east-1"}, {"zone": "us-west-2a"}):
        assert not found.take("no-capacity", **(seen | changed))


def test_a_key_may_hold_slashes_and_an_action_its_colon() -> None:
    found = Faults(["s3-error:key=runctl/runs/*/spec.json", "denied:action=ec2:Describe*"])
    assert found.take("s3-error", key="runctl/runs/a/b/spec.json", method="PUT")
    assert found.take("denied", action="ec2:DescribeInstances")
    assert not found.take("denied", action="ec2:RunInstances")


def test_the_first_that_holds_is_taken() -> None:
    found = Faults(["s3-slow:seconds=1,key=a", "s3-slow:seconds=2"])
    assert [found.take("s3-slow", key=key).number("seconds", 0) for key in ("a", "b")] == [1, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(("percent", "least", "most"), [(0, 0, 0), (25, 180, 320), (100, 1000, 1000)])
def test_a_percentage_of_the_calls_and_the_same_ones_each_time(percent: int, least: int, most: int) -> None:
    def hits() -> list[bool]:
        found = Faults([f"throttle:percent={percent}"])
        return [bool(found.take("throttle", api="x")) for _ in range(1000)]

    first = hits()
    assert least <= sum(first) <= most
    assert hits() == first


def test_numbers_have_defaults() -> None:
    assert parse("spot-notice").number("reclaim", 2) == 2
    assert parse("spot-notice:reclaim=0").number("reclaim", 2) == 0


def test_a_file_has_one_a_line_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "faults"
    file.write_text("# a drill\n\nthrottle:percent=10  # some\n  never-online\n")
    assert Faults(["quota", f"@{file}"]).texts() == ["quota", "throttle:percent=10", "never-online"]


def test_a_file_with_a_bad_line_adds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "faults"
    file.write_text("throttle\nno-such\n")
    found = Faults()
    with pytest.raises(ValueError, match="no-such"):
        found.add(f"@{file}")
    assert found.texts() == []


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Faults([f"@{tmp_path / 'none'}"])


def test_all_can_be_taken_away() -> None:
    found = Faults(["throttle", "quota"])
    found.clear()
    assert found.texts() == []
    assert not found.take("throttle", api="x")


def test_there_is_a_fault_for_every_launch_error_that_has_no_kind() -> None:
    for code in LAUNCH_ERRORS:
        assert Faults([f"launch-error:code={code}"]).take("launch-error", code=code)
