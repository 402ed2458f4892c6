"""The loop around decide: patience with an AWS that does not answer, and what ends an attempt instead of the launcher."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from aws_model.hosts import Script
from aws_model.services import Bucket, Ec2, Ssm
from aws_model.settlers import RUN, Process, begin, spec
from aws_model.world import World

from runctl_action.contract.documents import End
from runctl_action.errors import CredentialsError, PermissionDenied, Unavailable
from runctl_action.run import actions, decide


def world_of(script: Script | None = None, **fields: Any) -> World:
    world = World(scripts=lambda _, count: script or Script())
    begin(world, spec(**fields))
    return world


def launcher(world: World, cache: Any, number: int = 1) -> Process:
    return Process(world, "launcher", number, cache)


def end_of(world: World, attempt: int = 1) -> End | None:
    stored = world.objects.get(world.layout.run(RUN).end(attempt))
    return End.model_validate_json(stored.data) if stored else None


def until_decided(process: Process, kind: type[actions.Action]) -> None:
    """Goes on until `kind` is what comes next."""
    process.settler.settle(lambda seen: isinstance(decide.decide(seen), kind))


class Away:
    """An AWS that does not answer the first `times`."""

    def __init__(self, world: World, times: int) -> None:
        self._world, self._times = world, times
        self.asked_at: list[float] = []

    def __call__(self) -> str:
        self.asked_at.append(self._world.seconds)
        if len(self.asked_at) <= self._times:
            raise Unavailable("s3:GetObject failed: SlowDown")
        return "answer"

    @property
    def pauses(self) -> list[int]:
        return [round(b - a) for a, b in zip(self.asked_at, self.asked_at[1:], strict=False)]


class TestPatience:
    def test_gives_the_answer_that_comes_at_once_without_a_word(self, cache):
        process = launcher(world_of(), cache)
        away = Away(process.world, 0)
        assert process.settler.patiently(away) == "answer"
        assert (away.pauses, process.said.warnings) == ([], [])

    def test_asks_again_after_pauses_that_grow_to_half_a_minute(self, cache):
        process = launcher(world_of(), cache)
        away = Away(process.world, 7)
        assert process.settler.patiently(away) == "answer"
        assert away.pauses == [1, 2, 4, 8, 16, 30, 30]

    def test_warns_once_and_says_that_the_run_goes_on(self, cache):
        process = launcher(world_of(), cache)
        for _ in range(2):
            process.settler.patiently(Away(process.world, 3))
        assert process.said.warnings == ["s3:GetObject failed: SlowDown; the run goes on, and AWS is asked again"]

    def test_ends_after_a_quarter_of_an_hour(self, cache):
        process = launcher(world_of(), cache)
        with pytest.raises(Unavailable, match="SlowDown"):
            process.settler.patiently(Away(process.world, 10_000))
        assert 900 <= process.world.seconds <= 935

    def test_begins_anew_with_each_question(self, cache):
        process = launcher(world_of(), cache)
        for _ in range(5):
            process.settler.patiently(Away(process.world, 30))
        assert process.world.seconds > 3600

    def test_is_not_for_what_asking_again_does_not_mend(self, cache):
        process = launcher(world_of(), cache)

        def refuse() -> None:
            raise PermissionDenied("s3:GetObject is not allowed")

        with pytest.raises(PermissionDenied):
            process.settler.patiently(refuse)
        assert process.world.seconds == 0


class RefusingSsm(Ssm):
    error: Exception = PermissionDenied("ssm:SendCommand is not allowed", "allow ssm:SendCommand")

    def probe(self, instance_id: str, patience_seconds: float = 20) -> str | None:
        raise self.error


class RefusingEc2(Ec2):
    def terminate(self, instance_ids: Iterable[str]) -> None:
        raise PermissionDenied("ec2:TerminateInstances is not allowed")


class TestWhatAwsDoesNotLetUsDo:
    def refused(self, process: Process, error: Exception) -> Process:
        commands = RefusingSsm(process.world, process)
        commands.error = error
        process.settler.actor.commands = commands  # type: ignore[assignment]
        return process

    def test_before_the_training_began_ends_the_attempt_and_its_instance(self, cache):
        world = world_of()
        process = self.refused(launcher(world, cache), RefusingSsm.error)
        report = process.settler.settle()
        assert (report.outcome, report.cause) == ("failed", "cloud")
        assert report.message == "ssm:SendCommand is not allowed (allow ssm:SendCommand)"
        assert [machine.state for machine in world.machines.values()] == ["shutting-down"]

    def test_for_want_of_credentials_ends_the_launcher_and_whoever_comes_with_fresh_ones_goes_on(self, cache):
        world = world_of()
        with pytest.raises(CredentialsError):
            self.refused(launcher(world, cache), CredentialsError("the AWS credentials have expired")).settler.settle()
        assert end_of(world) is None
        report = launcher(world, cache, 2).settler.settle()
        assert (report.outcome, len(world.machines)) == ("succeeded", 1)

    def test_ends_no_attempt_that_somebody_else_launches(self, cache):
        world = world_of()
        until_decided(launcher(world, cache), actions.Probe)
        attached = self.refused(launcher(world, cache, 2), RefusingSsm.error)
        with pytest.raises(PermissionDenied):
            attached.settler.settle()
        assert end_of(world) is None

    def test_ends_no_attempt_that_trains(self, cache):
        world = world_of(Script(ending="freezes"))
        process = launcher(world, cache)
        process.settler.actor.instances = RefusingEc2(world, process, RUN)  # type: ignore[assignment]
        with pytest.raises(PermissionDenied):
            process.settler.settle()
        assert end_of(world) is None
        assert world.seconds > 900

    def test_of_a_run_that_has_no_attempt_yet_is_raised(self, cache):
        world = world_of()
        process = launcher(world, cache)

        class Refusing(Bucket):
            def put(self, key: str, data: bytes, **_: Any) -> str | None:
                raise PermissionDenied("s3:PutObject is not allowed")

        process.settler.actor.store = Refusing(world, process)  # type: ignore[assignment]
        with pytest.raises(PermissionDenied):
            process.settler.settle()
        assert end_of(world) is None


class TestASpotRunWithoutACheckpoint:
    def warned(self, cache: Any, **fields: Any) -> list[str]:
        spot = fields.pop("spot", "prefer")
        world = world_of(Script(**({"trains_for": 1400.0, "checkpoints": ()} | fields)), spot=spot)
        process = launcher(world, cache)
        assert process.settler.settle().outcome == "succeeded"
        return [warning for warning in process.said.warnings if "no checkpoint after 20 min" in warning]

    def test_is_warned_about_once_while_it_trains(self, cache):
        assert len(self.warned(cache)) == 1

    def test_is_not_warned_about_when_it_has_one(self, cache):
        assert self.warned(cache, checkpoints=((5.0, "c/1"),)) == []

    def test_is_not_warned_about_before_20_minutes(self, cache):
        assert self.warned(cache, trains_for=1150.0) == []

    def test_is_not_warned_about_on_demand_where_nothing_interrupts(self, cache):
        assert self.warned(cache, spot="never") == []
