"""Asking a run to stop, and ending its instances at once."""

from __future__ import annotations

from typing import Any

import pytest
from aws_model.hosts import Script
from aws_model.services import Bucket, Ec2
from aws_model.settlers import RUN, Process, begin
from aws_model.world import BEGIN, BUCKET, Fault, World

from runctl_action.cloud.instances import Instance
from runctl_action.contract.documents import Stop
from runctl_action.contract.layout import TAG_BUCKET, TAG_RUN
from runctl_action.run import actions, decide
from runctl_action.run.observe import Observation
from runctl_action.run.stop import request_stop, terminate_at_once


def test_a_stop_says_who_asked_when_and_up_to_which_attempt():
    world = World()
    request_stop(Bucket(world), world.layout, RUN, 2, "me", BEGIN)  # type: ignore[arg-type]
    stored = world.objects[world.layout.run(RUN).stop].data
    assert Stop.model_validate_json(stored) == Stop(by="me", attempt=2, at=BEGIN)


def test_a_stop_before_the_first_attempt_holds_for_it():
    world = World()
    request_stop(Bucket(world), world.layout, RUN, 0, "me", BEGIN)  # type: ignore[arg-type]
    assert Stop.model_validate_json(world.objects[world.layout.run(RUN).stop].data).attempt == 1


def test_a_stop_holds_for_an_attempt_that_was_opened_meanwhile(cache):
    world = World(scripts=lambda _, count: Script(ending="reclaimed"))
    begin(world)
    launcher = Process(world, "launcher", 1, cache)
    launcher.settler.settle(lambda seen: len(seen.attempts) == 2)
    request_stop(Bucket(world), world.layout, RUN, 1, "me", BEGIN)  # type: ignore[arg-type]
    report = launcher.settler.settle()
    assert (report.outcome, report.attempts, len(world.machines)) == ("cancelled", 2, 1)


def test_an_attempt_that_is_opened_while_somebody_asks_is_stopped(cache):
    world = World(scripts=lambda _, count: Script(ending="reclaimed"))
    begin(world)
    launcher = Process(world, "launcher", 1, cache)

    def asks(seen: Observation) -> bool:
        if isinstance(decide.decide(seen), actions.OpenAttempt) and seen.attempts:
            request_stop(Bucket(world), world.layout, RUN, 1, "me", BEGIN)  # type: ignore[arg-type]
        return False

    report = launcher.settler.settle(asks)
    assert (report.outcome, report.attempts, len(world.machines)) == ("cancelled", 2, 1)


class Launched:
    """A run whose launcher was killed at its RunInstances (`kill`) or went on for a few rounds behind it."""

    def __init__(self, cache: Any, kill: str = "", shown_after: float = 0.0) -> None:
        self.world = World(scripts=lambda _, count: Script(shown_after=shown_after))
        begin(self.world)
        self.launcher = Process(self.world, "launcher", 1, cache)
        call = self._call_of_the_launch(cache)
        self.world.faults = {call: Fault(kill)} if kill else {}  # type: ignore[arg-type]
        while not (self.world.machines or self.launcher.lives > 1):
            self.launcher.step(1)

    def end_at_once(self) -> tuple[tuple[str, ...], float]:
        """What was terminated, and after how many seconds."""
        seen = self.launcher.settler.observe()
        began = self.world.seconds
        ended = terminate_at_once(
            Ec2(self.world),  # type: ignore[arg-type]
            seen,
            sleep=self.world.pass_time,
            monotonic=lambda: self.world.seconds,
        )
        return ended, self.world.seconds - began

    @staticmethod
    def _call_of_the_launch(cache: Any) -> int:
        world = World()
        begin(world)
        launcher = Process(world, "launcher", 1, cache)
        calls: list[str] = []
        world.note_call = calls.append
        while not world.machines:
            launcher.step(1)
        return calls.index("launch") + 1


class TestTerminatingAtOnce:
    def test_ends_what_is_there_without_waiting(self, cache):
        run = Launched(cache)
        assert run.end_at_once() == (("i-00000001",), 0)
        assert run.world.machines["i-00000001"].state == "shutting-down"

    def test_of_a_run_without_a_launch_is_nothing_and_takes_no_time(self, cache):
        world = World()
        begin(world)
        seen = Process(world, "launcher", 1, cache).settler.observe()
        ended = terminate_at_once(Ec2(world), seen, sleep=world.pass_time, monotonic=lambda: world.seconds)  # type: ignore[arg-type]
        assert ended == ()
        assert world.seconds < 1

    @pytest.mark.parametrize("shown_after", [0.0, 2.0, 7.0])
    def test_looks_for_a_launch_that_was_not_answered_until_it_shows(self, cache, shown_after):
        run = Launched(cache, "kill after", shown_after)
        ended, seconds = run.end_at_once()
        assert ended == ("i-00000001",)
        assert seconds <= shown_after + 0.5

    def test_looks_for_ten_seconds_and_no_longer(self, cache):
        run = Launched(cache, "kill before")
        ended, seconds = run.end_at_once()
        assert ended == ()
        assert 10 <= seconds <= 11

    def test_looks_for_an_instance_that_was_answered_and_is_not_shown_yet(self, cache):
        run = Launched(cache, shown_after=5.0)
        ended, seconds = run.end_at_once()
        assert ended == ("i-00000001",)
        assert seconds <= 5.5

    def test_leaves_other_runs_and_other_peoples_instances_alone(self, cache):
        run = Launched(cache)
        others = [
            Instance("i-9", "running", tags={TAG_RUN: "train-2", TAG_BUCKET: BUCKET}),
            Instance("i-10", "running"),
        ]
        run.world.foreign = {each.id: each for each in others}
        run.end_at_once()
        assert list(run.world.foreign.values()) == others
