"""The whole life of a run, searched: settlers that are killed, preempted and left without an answer at any call.

Unless `RUNCTL_TEST_EXAMPLES` says how many schedules the long search tries, it is a few of them, always the same. It is
read here, at the import: the tests take `RUNCTL_` variables away.
"""

from __future__ import annotations

import functools
import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aws_model import checks
from aws_model.hosts import Script
from aws_model.settlers import Process, Role, begin, spec
from aws_model.world import Fault, World
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runctl_action.contract.reports import Report

_EXAMPLES = int(os.environ.get("RUNCTL_TEST_EXAMPLES", "0"))

# Again and again the same in a list: it is more likely.
ENDINGS = (
    "succeeds",
    "succeeds",
    "noticed",
    "noticed",
    "reclaimed",
    "exits",
    "stopped by AWS",
    "ended by a user",
    "dies",
    "freezes",
)
SCRIPTS = st.builds(
    Script,
    ending=st.sampled_from(ENDINGS),
    ends_early=st.sampled_from((False, False, False, True)),
    shown_after=st.sampled_from((0.0, 0.5, 6.0)),
    boots_in=st.sampled_from((3.0, 30.0)),
    answers_after=st.sampled_from((2.0, 2.0, 2.0, 2.0, 2.0, 40.0, 40.0, None)),
    begins_in=st.sampled_from((0.5, 4.0)),
    trains_for=st.sampled_from((8.0, 30.0, 100.0)),
    checkpoints=st.sampled_from(((), ((5.0, "c/1"),), ((3.0, "c/1"), (5.0, "c/1"), (9.0, "c/2"), (28.0, "c/1")))),
    stops_in=st.sampled_from((1.0, 20.0)),
    ends_in=st.sampled_from((2.0, 40.0)),
    saves_at_shutdown=st.booleans(),
    is_deaf=st.sampled_from((False, False, False, True)),
)
FAULTS = st.one_of(
    st.builds(Fault, kind=st.sampled_from(("kill before", "kill after", "lost", "throttled", "stale"))),
    st.builds(Fault, kind=st.sampled_from(("preempted before", "preempted after")), who=st.integers(0, 4)),
    st.builds(Fault, kind=st.just("late"), seconds=st.sampled_from((1.0, 10.0, 70.0, 200.0))),
)
CODES = ("InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "RequestLimitExceeded")


@dataclass(frozen=True)
class Plan:
    """One schedule: who there is, what the instances do, who goes on for how many rounds, which faults strike when."""

    spec: Any
    scripts: tuple[Script, ...]
    refusals: tuple[str | None, ...]
    roles: tuple[tuple[Any, bool, bool], ...]
    moves: tuple[tuple[int, int, float], ...]
    faults: tuple[tuple[int, Fault], ...]
    has_launcher: bool = True


SPECS = st.builds(
    spec,
    is_posted=st.booleans(),
    max_attempts=st.sampled_from((1, 3)),
    spot=st.sampled_from(("prefer", "never")),
    keep_on_failure_seconds=st.sampled_from((0, 0, 60)),
    require_checkpoint=st.just(False),
)
ROLES = st.tuples(
    st.sampled_from(("launcher", "launcher", "launcher", "collector", "collector", "collector", "again", "stopper")),
    st.booleans(),
    st.sampled_from((False, False, False, False, False, False, False, True)),
)
PLANS = st.builds(
    Plan,
    spec=SPECS,
    scripts=st.lists(SCRIPTS, min_size=1, max_size=4).map(tuple),
    refusals=st.lists(st.sampled_from((None, None, None, *CODES)), max_size=3).map(tuple),
    roles=st.tuples(st.just(("launcher", True, False)), ROLES, ROLES, ROLES),
    moves=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from((1, 3, 8, 30)), st.sampled_from((0.0, 0.0, 5.0, 65.0, 1000.0))),
        min_size=2,
        max_size=12,
    ).map(tuple),
    faults=st.lists(st.tuples(st.integers(0, 40), FAULTS), min_size=2, max_size=8).map(tuple),
    has_launcher=st.sampled_from((True, True, True, False)),
)


def play(plan: Plan, cache: Path) -> tuple[World, Report]:
    """The world after the schedule and a calm period; the report that is left."""
    world = World(
        scripts=lambda _, count: plan.scripts[count] if count < len(plan.scripts) else Script(), refusals=plan.refusals
    )
    at = 0
    faults = {}
    for gap, fault in plan.faults:
        at += gap + 1
        faults[at] = fault
    world.faults = faults
    begin(world, plan.spec)
    try:
        for number, (role, can_post, upload_fails) in enumerate(plan.roles, 1):
            Process(world, role, number, cache, can_post=can_post, upload_fails=upload_fails)
        for who, rounds, pause in plan.moves:
            world.processes[who % len(plan.roles)].step(rounds)
            world.pass_time(pause)
        checks.calm_down(world, cache, has_launcher=plan.has_launcher)
        return world, checks.check_over(world)
    except BaseException as error:
        error.add_note("\n".join(world.journal))
        raise
    finally:
        world.clean_up()


@settings(
    max_examples=_EXAMPLES or 12,
    derandomize=not _EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
@given(plan=PLANS)
def test_a_run_comes_to_its_end_whatever_happens_to_its_settlers(cache, plan):
    play(plan, cache)


SHORT = Script(
    shown_after=0.3, boots_in=1.0, answers_after=0.5, begins_in=0.5, trains_for=4.0, checkpoints=((1.0, "c/1"),)
)
# What the instances of a run do, and how many attempts it is until it has succeeded.
STORIES: dict[str, tuple[tuple[Script, ...], int]] = {
    "succeeds": ((SHORT,), 1),
    "reclaimed after a notice": ((replace(SHORT, ending="noticed"), SHORT), 2),
    "reclaimed without a notice": ((replace(SHORT, ending="reclaimed", trains_for=3.0), SHORT), 2),
    "stopped by AWS while it boots": ((replace(SHORT, ending="stopped by AWS", ends_early=True), SHORT), 2),
}
KINDS = ("kill before", "kill after", "lost", "throttled", "stale", "preempted before", "preempted after")


class TestEverySingleCall:
    """One launcher that is started again when it was killed, beside a collector: whatever one call meets, the run
    succeeds, on as many instances as it has attempts."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("story", STORIES)
    def test_may_meet_a_fault(self, cache, story, kind):
        for call in calls_of(cache, story, every=5 if story == "succeeds" and "kill" in kind else 101):
            self.check(cache, story, {call: Fault(kind)})

    @pytest.mark.parametrize(
        "kinds", list(itertools.product(KINDS, repeat=2)) if _EXAMPLES else [KINDS[:2]], ids="-".join
    )
    def test_may_meet_one_of_a_pair_of_faults(self, cache, kinds):
        calls = list(calls_of(cache, "succeeds"))[:: 6 if _EXAMPLES else 31]
        for first, second in itertools.combinations(calls, 2):
            self.check(cache, "succeeds", {first: Fault(kinds[0]), second: Fault(kinds[1])})

    @pytest.mark.parametrize("kind", ["preempted before", "preempted after"])
    @pytest.mark.parametrize("story", STORIES)
    def test_may_be_overtaken_by_a_stop(self, cache, story, kind):
        for call in calls_of(cache, story, every=53):
            world, report = told(cache, story, {call: Fault(kind)}, beside="stopper")
            # Asked between a reclaim and the next attempt, it is the reclaim that ended the run.
            assert report.outcome in {"cancelled", "succeeded", "interrupted"}, call
            assert len(world.machines) <= report.attempts

    @pytest.mark.parametrize("kind", ["preempted before", "preempted after"])
    def test_may_be_overtaken_by_who_opens_the_run_again(self, cache, kind):
        for call in calls_of(cache, "succeeds", every=13):
            _, report = told(cache, "succeeds", {call: Fault(kind)}, beside="again")
            assert report.outcome == "succeeded", call

    def check(self, cache: Path, story: str, faults: dict[int, Fault]) -> None:
        world, report = told(cache, story, faults)
        attempts = STORIES[story][1]
        found = (report.outcome, report.attempts, len(world.machines))
        assert found == ("succeeded", attempts, attempts), (faults, found, report.message)


def told(cache: Path, story: str, faults: dict[int, Fault], beside: Role = "collector") -> tuple[World, Report]:
    scripts = STORIES[story][0]
    world = World(scripts=lambda _, count: scripts[min(count, len(scripts) - 1)], faults=faults)
    begin(world)
    try:
        launcher = Process(world, "launcher", 1, cache, upload_seconds=0.5)
        Process(world, beside, 2, cache)
        lives = 0
        while lives < launcher.lives:
            lives = launcher.lives
            launcher.step(10_000)
        checks.calm_down(world, cache)
        return world, checks.check_over(world)
    except BaseException as error:
        error.add_note("\n".join([str(faults), *world.journal]))
        raise
    finally:
        world.clean_up()


def calls_of(cache: Path, story: str, *, every: int = 1) -> range:
    """The calls of a story in which nothing goes wrong; all of them in the long search."""
    return range(1, _count_calls(cache, story), 1 if _EXAMPLES else every)


@functools.cache
def _count_calls(cache: Path, story: str) -> int:
    world, _ = told(cache, story, {})
    return world.calls
