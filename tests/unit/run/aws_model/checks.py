"""A calm period, and what must hold after it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from aws_model.settlers import RUN, Process
from aws_model.world import BEGIN, World
from runctl_action.contract.documents import Checkpoint, Claim, End, Spec, Stop
from runctl_action.contract.reports import Report


def calm_down(world: World, cache: Path, *, has_launcher: bool = True) -> None:
    """No more faults: collects run, and a fresh launcher with the source, until nothing changes."""
    world.faults = {}
    collector = Process(world, "collector", 90, cache)
    collector.step(1)
    world.pass_time(30)
    if has_launcher:
        Process(world, "launcher", 91, cache).step(10_000)
    for pause in (60, 60, 120, 600, 600, 3600, 3600):
        collector.step(1)
        world.pass_time(pause)
    collector.step(1)
    world.clean_up()


def check_over(world: World, run_id: str = RUN) -> Report:
    """The run is finished, reported, posted; nothing of it is left, and nothing of it was lost."""
    keys = world.layout.run(run_id)
    assert world.layout.open_marker(run_id) not in world.objects, "it is still open"
    report = Report.model_validate_json(world.objects[keys.report].data)
    spec = Spec.model_validate_json(world.objects[keys.spec].data)
    attempts = 0
    while keys.claim(attempts + 1) in world.objects:
        attempts += 1
        assert keys.end(attempts) in world.objects, f"attempt {attempts} has no end"
    assert report.attempts == attempts, f"the report is of {report.attempts} attempts, there were {attempts}"
    end = End.model_validate_json(world.objects[keys.end(attempts)].data)
    assert (report.outcome, report.cause) == (end.outcome, end.cause)
    machine = world.winner(run_id, attempts)
    if end.outcome == "succeeded":
        assert machine is not None
        assert machine.result is not None
        assert machine.result.outcome == "succeeded"
    alive = [each.id for each in world.of_run(run_id) if each.state in {"pending", "running"}]
    assert not alive, f"still there: {alive}"
    check_posted(world, run_id, attempts, is_posted=spec.is_posted)
    check_checkpoints(world, run_id, attempts, report)
    check_stopped(world, run_id, attempts)
    return report


def check_posted(world: World, run_id: str, attempts: int, *, is_posted: bool) -> None:
    for number in range(1, attempts + 1):
        times = world.posts.count((run_id, number))
        assert times <= 1 + world.may_post_again.get((run_id, number), 0), f"posted {times} times: {number} attempts"
    assert ((run_id, attempts) in world.posts) == is_posted


def check_checkpoints(world: World, run_id: str, attempts: int, report: Report) -> None:
    """Of each path the newest that was in the bucket when its instance was still there, or one that came later."""
    newest: dict[str, Checkpoint] = {}
    for number in range(1, attempts + 1):
        machine = world.winner(run_id, number)
        if machine:
            until = machine.ended_at or world.seconds
            newest |= {kept.path: kept for at, kept in machine.kept if at <= until}
    reported = {kept.path: kept for kept in report.checkpoints}
    for path, kept in newest.items():
        assert path in reported, f"the checkpoint {path} is lost"
        modified_at = reported[path].modified_at
        assert modified_at is not None
        assert modified_at >= kept.modified_at, f"the report has an old {path}: {modified_at}"


def check_stopped(world: World, run_id: str, attempts: int) -> None:
    """Who asks for the end of a run gets it: an attempt that is opened meanwhile is stopped too, unless who opened it, or
    who asked, was killed at that moment."""
    keys = world.layout.run(run_id)
    stored = world.objects.get(keys.stop)
    if stored is None or world.has_killed:
        return
    stop = Stop.model_validate_json(stored.data)
    claims = [Claim.model_validate_json(world.objects[keys.claim(n)].data) for n in range(1, attempts + 1)]
    for number in range(stop.attempt + 1, attempts + 1):
        end = End.model_validate_json(world.objects[keys.end(number)].data)
        is_asked_for = claims[number - 1].last_attempt != claims[stop.attempt - 1].last_attempt
        machine = world.winner(run_id, number)
        began_after = (
            machine is not None
            and machine.begun_at is not None
            and BEGIN + timedelta(seconds=machine.begun_at) > stop.at
        )
        assert is_asked_for or end.outcome == "cancelled" or not began_after, (
            f"{stop}, and attempt {number} ended as {end}"
        )
