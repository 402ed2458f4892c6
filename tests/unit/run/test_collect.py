"""What launchers left behind, put in order: open runs settled, instances ended that must not be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from aws_model import checks
from aws_model.hosts import Script
from aws_model.services import Bucket, Ec2
from aws_model.settlers import RUN, Process, begin, spec
from aws_model.world import BEGIN, BUCKET, World

from runctl_action.cloud.instances import Instance
from runctl_action.contract.layout import TAG_ATTEMPT, TAG_BUCKET, TAG_DEADLINE, TAG_RUN
from runctl_action.errors import PermissionDenied
from runctl_action.run import actions, decide
from runctl_action.run.collect import Collected
from runctl_action.run.observe import Observation


def stray(id: str, *, past: bool, run_id: str = "of-another-prefix", **fields: Any) -> Instance:
    deadline = BEGIN + timedelta(minutes=-1 if past else 1)
    tags = {TAG_RUN: run_id, TAG_ATTEMPT: "1", TAG_BUCKET: BUCKET, TAG_DEADLINE: deadline.isoformat()}
    return Instance(id, "running", tags=tags | fields.pop("tags", {}), **fields)


def world_with(*instances: Instance) -> World:
    world = World()
    world.foreign = {instance.id: instance for instance in instances}
    return world


def collector(world: World, cache: Any, number: int = 9, **fields: Any) -> Process:
    return Process(world, "collector", number, cache, **fields)


def left_behind(
    world: World, cache: Any, at: type[actions.Action], run_id: str = RUN, *, when: Callable[[Observation], bool] = bool
) -> None:
    """A launcher is gone just before its first action of kind `at` (when `when`); its source is uploaded."""
    launcher = Process(world, "launcher", 1, cache, run_id, upload_seconds=0.0)
    launcher.settler.settle(lambda seen: isinstance(decide.decide(seen), at) and when(seen))
    world.pass_time(0.1)
    world.processes.remove(launcher)


def outcomes(found: list[Collected]) -> dict[str, Any]:
    return {item.run_id: item.report.outcome if item.report else item.error for item in found}


def alive(world: World) -> list[str]:
    return [machine.id for machine in world.machines.values() if machine.state in {"pending", "running"}]


class Refusing(Bucket):
    def put(self, key: str, data: bytes, **_: Any) -> str | None:
        raise PermissionDenied("s3:PutObject is not allowed")


class TestAnInstanceWithoutARun:
    def test_is_ended_past_its_deadline_and_not_before(self, cache):
        world = world_with(stray("i-1", past=True), stray("i-2", past=False))
        process = collector(world, cache)
        assert process.collect() == []
        assert {name: i.state for name, i in world.foreign.items()} == {"i-1": "shutting-down", "i-2": "running"}
        assert process.said.notes == ["terminating i-1: past its deadline"]

    def test_of_another_bucket_or_of_nobody_is_left_alone(self, cache):
        others = [stray("i-1", past=True, tags={TAG_BUCKET: "another"}), Instance("i-2", "running")]
        world = world_with(*others)
        collector(world, cache).collect()
        assert list(world.foreign.values()) == others

    @pytest.mark.parametrize("deadline", ["", "soon"])
    def test_without_a_deadline_that_can_be_read_is_left_alone(self, cache, deadline):
        world = world_with(stray("i-1", past=True, tags={TAG_DEADLINE: deadline}))
        collector(world, cache).collect()
        assert world.foreign["i-1"].state == "running"

    @pytest.mark.parametrize("run_id", ["", "../other", "UPPER"])
    def test_whose_tag_is_no_run_id_is_a_stray(self, cache, run_id):
        world = world_with(stray("i-1", past=True, run_id=run_id))
        assert collector(world, cache).collect() == []
        assert world.foreign["i-1"].state == "shutting-down"

    def test_that_may_not_be_ended_is_told_and_holds_up_nothing(self, cache):
        class Powerless(Ec2):
            def terminate(self, instance_ids: Iterable[str]) -> None:
                raise PermissionDenied("ec2:TerminateInstances is not allowed")

        world = world_with(stray("i-1", past=True))
        begin(world)
        left_behind(world, cache, actions.Finish)
        process = collector(world, cache).collector()
        process.instances = Powerless(world)  # type: ignore[assignment]
        found = process.collect()
        assert [(item.run_id, str(item.error)) for item in found if item.error] == [
            ("of-another-prefix", "ec2:TerminateInstances is not allowed")
        ]
        assert world.posts == [(RUN, 1)]

    def test_is_found_among_ten_thousand(self, cache):
        world = world_with(*(stray(f"i-{n}", past=n % 1000 == 0) for n in range(10_000)))
        collector(world, cache).collect()
        ended = [name for name, instance in world.foreign.items() if instance.state != "running"]
        assert ended == [f"i-{n}" for n in range(0, 10_000, 1000)]


class TestAFinishedRun:
    def finished(self, cache: Any, script: Script, **training: Any) -> World:
        world = World(scripts=lambda _, count: script)
        begin(world, spec(**training))
        Process(world, "launcher", 1, cache).step(10_000)
        assert world.layout.open_marker(RUN) not in world.objects
        return world

    def test_loses_an_instance_that_is_still_there(self, cache):
        world = self.finished(cache, Script(is_deaf=True))
        machine = world.machines["i-00000001"]
        machine.state, machine.reason = "running", ""  # as if it had come back
        assert outcomes(collector(world, cache).collect()) == {RUN: "succeeded"}
        assert alive(world) == []

    def test_keeps_an_instance_that_is_kept_after_a_failure_until_that_is_over(self, cache):
        world = self.finished(cache, Script(ending="exits", is_deaf=True), keep_on_failure_seconds=600)
        collector(world, cache).collect()
        assert alive(world) == ["i-00000001"]
        world.pass_time(600)
        collector(world, cache).collect()
        assert alive(world) == []

    def test_that_nobody_could_post_is_posted_by_who_can_and_once(self, cache):
        world = World()
        begin(world)
        Process(world, "launcher", 1, cache, can_post=False).step(10_000)
        collector(world, cache, can_post=False).collect()
        assert world.posts == []
        assert world.layout.open_marker(RUN) in world.objects
        for number in (1, 2, 3):
            collector(world, cache, number).collect()
        assert world.posts == [(RUN, 1)]
        assert world.layout.open_marker(RUN) not in world.objects


class TestAnOpenRun:
    def test_that_boots_is_started_within_one_collect(self, cache):
        world = World(scripts=lambda _, count: Script(boots_in=40.0))
        begin(world)
        left_behind(world, cache, actions.Probe)
        collector(world, cache).collect()
        assert [len(machine.told) for machine in world.machines.values()] == [1]
        assert world.seconds < 120

    def test_that_trains_is_left_to_train(self, cache):
        world = World(scripts=lambda _, count: Script(trains_for=100.0))
        begin(world)
        left_behind(world, cache, actions.Wait, when=lambda seen: seen.last is not None and seen.last.has_started)
        before = world.seconds
        world.pass_time(30)
        assert outcomes(collector(world, cache).collect()) == {RUN: None}
        assert world.seconds - before < 40

    def test_that_nobody_starts_is_waited_for_five_minutes_at_most(self, cache):
        world = World(scripts=lambda _, count: Script(answers_after=None))
        begin(world)
        left_behind(world, cache, actions.Probe)
        before = world.seconds
        assert outcomes(collector(world, cache).collect()) == {RUN: None}
        assert 300 <= world.seconds - before < 310

    def test_whose_launcher_is_at_it_is_left_to_it(self, cache):
        world = World()
        begin(world)
        left_behind(world, cache, actions.Launch)
        collector(world, cache).collect()
        assert world.machines == {}

    def test_whose_launcher_is_gone_for_a_minute_is_taken_over(self, cache):
        world = World()
        begin(world)
        left_behind(world, cache, actions.Launch)
        world.pass_time(61)
        collector(world, cache).collect()
        assert [len(machine.told) for machine in world.machines.values()] == [1]

    def test_that_fails_to_be_settled_does_not_hold_up_the_others(self, cache):
        world = World()
        begin(world, spec("run-1"), spec("run-2"), spec("run-3"))
        for run_id in ("run-1", "run-3"):
            left_behind(world, cache, actions.Probe, run_id)
        process = collector(world, cache).collector()
        settler_of = process.settler_of

        def settler_without_permission(run_id: str) -> Any:
            settler = settler_of(run_id)
            if run_id == "run-2":
                settler.actor.store = Refusing(world)  # type: ignore[assignment]
            return settler

        process.settler_of = settler_without_permission
        found = process.collect()
        assert set(outcomes(found)) == {"run-1", "run-2", "run-3"}
        assert [len(machine.told) for machine in world.machines.values()] == [1, 1]
        assert str(outcomes(found)["run-2"]) == "s3:PutObject is not allowed"

    def test_is_settled_by_three_at_once_as_by_one(self, cache):
        world = World()
        begin(world)
        left_behind(world, cache, actions.Finish)
        processes = [collector(world, cache, number) for number in (1, 2, 3)]

        def in_turns(name: str) -> None:
            for process in processes:
                if not process.is_busy and world.depth < 3:
                    world.depth += 1
                    process.step(1)
                    world.depth -= 1

        world.note_call = in_turns
        processes[0].step(1)
        world.note_call = lambda _: None
        assert world.posts == [(RUN, 1)]
        assert checks.check_over(world).outcome == "succeeded"


def test_a_run_that_finds_a_defect_in_us_does_not_hold_up_the_others(cache):
    world = World()
    begin(world, spec("run-1"), spec("run-2"), spec("run-3"))
    for run_id in ("run-1", "run-3"):
        left_behind(world, cache, actions.Probe, run_id)
    process = collector(world, cache).collector()
    settler_of = process.settler_of

    def settler_with_a_defect(run_id: str) -> Any:
        settler = settler_of(run_id)
        if run_id == "run-2":
            settler.observe = lambda: 1 // 0
        return settler

    process.settler_of = settler_with_a_defect
    found = outcomes(process.collect())
    assert [len(machine.told) for machine in world.machines.values()] == [1, 1]
    assert "a defect of ours" in str(found["run-2"])
    assert found["run-2"].exit_code == 70


class TestADryRun:
    @pytest.mark.parametrize(
        ("at", "would"),
        [
            (actions.OpenAttempt, "open attempt 1"),
            (actions.Probe, "start it on i-00000001"),
            (actions.EndAttempt, "end attempt 1: succeeded"),
            (actions.Finish, "write its report"),
            (actions.Post, "post its report"),
            (actions.Close, "close it"),
        ],
    )
    def test_says_what_would_be_done_and_changes_nothing(self, cache, at, would):
        world = world_with(stray("i-9", past=True))
        begin(world)
        left_behind(world, cache, at)
        before = self.shown(world)
        process = collector(world, cache)
        assert [(item.run_id, item.would) for item in process.collect(dry_run=True)] == [(RUN, would)]
        assert self.shown(world) == before
        assert process.said.notes == ["would terminate i-9: past its deadline"]

    @staticmethod
    def shown(world: World) -> Any:
        objects = {key: stored.data for key, stored in world.objects.items() if "/hosts/" not in key}
        return (
            objects,
            dict(world.foreign),
            list(world.posts),
            {name: (m.state, len(m.told)) for name, m in world.machines.items()},
        )
