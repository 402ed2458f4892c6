"""Pushes that train: against a standing emulator, with launchers that outlive the push, and without."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runctl_action.emulator.server import BUCKET, Emulator
from runctl_action.source.repository import open_repository, read_source
from tests.integration.hook.projects import Project

sys.path.insert(0, str(Path(__file__).parents[2]))

from github_double import GitHub, Pull

TRAIN = 'script = "train.py"\nargs = "--plain"\n[hook]\nmode = "train"\nbranches = ["main", "exp/*"]\n'
TRAINING = """
import pathlib, sys
print("arguments", sys.argv[1:], flush=True)
pathlib.Path("checkpoints").mkdir(exist_ok=True)
pathlib.Path("checkpoints/last").write_text("x")
"""
WAITS = 'import time\nprint("it trains", flush=True)\ntime.sleep(300)\n'


@pytest.fixture
def hub() -> Iterator[GitHub]:
    with GitHub() as github:
        yield github
    assert github.problems == []


@pytest.fixture
def project(make: Callable[..., Project], aws: Emulator, hub: GitHub, tmp_path: Path) -> Iterator[Project]:
    """Its origin is on a GitHub of its own, and it is pushed to another remote, `store`."""
    aws.world.faults.clear()
    found = make()
    found.must("remote", "rename", "origin", "store")
    found.must("remote", "add", "origin", "git@github.example:acme/digits.git")
    found.environ |= aws.environ | {
        "RUNCTL_INSTALL": "skip",
        "RUNCTL_GRACE": "2s",
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_API_URL": hub.url,
    }
    assert found.runctl("hook", "install").returncode == 0
    # The time is in it: another test's commit is another request.
    found.commit({"runctl.toml": TRAIN, "train.py": TRAINING + f"# {tmp_path}\n"})
    yield found
    for run_id in launchers(found):
        os.killpg(run_id, signal.SIGKILL)


@pytest.fixture
def stored(aws: Emulator) -> Iterator[Callable[[str], Any]]:
    """`stored(key)`: the document in the bucket, None while there is none."""
    client = aws.client("s3")

    def read(key: str) -> Any:
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=f"runctl/{key}").get("Contents", [])
        if not found:
            return None
        return json.loads(client.get_object(Bucket=BUCKET, Key=f"runctl/{key}")["Body"].read() or b"{}")

    yield read
    client.close()


def launchers(project: Project) -> list[int]:
    """The processes that train for this project, whoever their parent is now."""
    own = os.fsencode(project.root / ".git" / "runctl")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if b"\0hook\0launch\0" in words and own in words:
                found.append(int(process.name))
    return found


def until(condition: Callable[[], Any], seconds: float = 100) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def log_of(project: Project) -> str:
    return "\n".join(path.read_text() for path in (project.root / ".git/runctl").glob("*.log"))


def run_of(project: Project, lines: list[str]) -> str:
    """The run's id, as the push said it; on a slow machine the launcher's log says it later."""
    pattern = re.compile(r"run (train-[0-9a-f]{12})")
    said = next((match[1] for line in lines if (match := pattern.search(line))), None)
    return said or until(lambda: pattern.search(log_of(project)))[1]


def test_the_pushed_commit_is_trained_by_a_launcher_that_outlives_the_push(project, stored, aws, hub):
    commit = project.must("rev-parse", "HEAD")
    (project.root / "train.py").write_text("raise SystemExit('not this one')\n")
    (project.root / "runctl.toml").write_text("broken")
    (project.root / "json.py").write_text("raise SystemExit('never import what lies there')\n")
    started = time.monotonic()
    pushed = project.push("store", "HEAD:main")
    seconds = time.monotonic() - started
    assert pushed.code == 0, pushed.err
    assert seconds < 20, "10 s, on a machine that has nothing else to do"
    run_id = run_of(project, pushed.ours)
    assert f"follow it:  runctl-action logs {run_id} -f" in pushed.ours
    assert f"end it, should the remote reject this push:  runctl-action stop {run_id}" in pushed.ours
    report = until(lambda: stored(f"runs/{run_id}/report.json"))
    report = until(lambda: (found := stored(f"runs/{run_id}/report.json"))["outcome"] and found)
    source = read_source(open_repository(project.root, project.environ), commit)
    assert (report["outcome"], report["commit"]) == ("succeeded", commit), log_of(project)
    assert report["manifest"]["digest"] == source.manifest.digest
    spec = stored(f"runs/{run_id}/spec.json")
    assert (spec["branch"], spec["args"]) == ("main", ["--plain"])
    assert (spec["origin"]["repository"], spec["origin"]["looks_up"]) == ("acme/digits", True)
    until(lambda: not launchers(project))
    folder = project.root / ".git/runctl"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [(path.suffix, path.stat().st_mode & 0o777) for path in folder.iterdir()] == [(".log", 0o600)]
    # The pull request is opened only now: whoever collects, and may comment, posts the report.
    hub.pulls.append(Pull(7, commit))
    project.must("checkout", "-q", "--", ".")
    collect(project)
    assert commit[:7] in hub.comments[0].body


def test_a_launcher_that_is_gone_is_replaced_by_collect(project, stored, hub):
    commit = project.commit({"train.py": "import time\ntime.sleep(5)\n"})
    hub.pulls.append(Pull(7, commit))
    run_id = run_of(project, project.push("store", "HEAD:exp/a").ours)
    until(lambda: (found := stored(f"runs/{run_id}/attempts/1/instance.json")) and found)
    (launcher,) = launchers(project)
    os.killpg(launcher, signal.SIGKILL)
    until(lambda: collect(project) or hub.comments)
    assert commit[:7] in hub.comments[0].body
    assert stored(f"runs/{run_id}/report.json")["outcome"] == "succeeded"


def collect(project: Project) -> None:
    project.environ["RUNCTL_GITHUB_TOKEN"] = "ghs_action"
    done = project.runctl("collect")
    assert done.returncode == 0, done.stderr


def test_a_trailer_trains_on_any_branch_with_its_arguments(project, stored):
    project.commit({"runctl.toml": TRAIN.replace('"train"\n', '"check"\n')}, "x\n\nTrain: --epochs 3 --name 'a b'")
    pushed = project.push("store", "HEAD:anything")
    assert pushed.code == 0
    assert "  script  train.py --epochs 3 --name 'a b'" in pushed.ours
    run_id = run_of(project, pushed.ours)
    report = until(lambda: (found := stored(f"runs/{run_id}/report.json")) and found["outcome"])
    assert report == "succeeded", log_of(project)
    assert stored(f"runs/{run_id}/spec.json")["args"] == ["--epochs", "3", "--name", "a b"]


def test_the_same_commit_pushed_again_attaches(project, stored):
    project.commit({"train.py": WAITS})
    run_id = run_of(project, project.push("store", "HEAD:main").ours)
    until(lambda: stored(f"runs/{run_id}/spec.json"))
    again = project.push("store", "HEAD:exp/b")
    assert run_of(project, again.ours) == run_id
    if any(run_id in line for line in again.ours):
        assert f"there is a run of this commit already, attached to it: {run_id}" in again.ours
    assert project.runctl("stop", run_id).returncode == 0
    assert stored(f"runs/{run_id}/report.json")["outcome"] == "cancelled"


def test_a_push_that_the_remote_rejects_leaves_a_run_that_stop_ends(project, stored):
    project.commit({"train.py": WAITS})
    bare = Path(project.must("remote", "get-url", "store").removeprefix("file://"))
    (bare / "hooks/pre-receive").write_text("#!/bin/sh\nexit 1\n")
    (bare / "hooks/pre-receive").chmod(0o755)
    pushed = project.push("store", "HEAD:main")
    assert pushed.code != 0
    run_id = run_of(project, pushed.ours)
    until(lambda: stored(f"runs/{run_id}/spec.json"))
    assert project.runctl("stop", run_id).returncode == 0
    assert stored(f"runs/{run_id}/report.json")["outcome"] == "cancelled"


def test_a_request_that_is_refused_for_what_is_in_it_blocks_the_push(project):
    pushed = project.push("store", "HEAD:main", RUNCTL_MAX_PRICE="0.0001")
    if not any("goes on in the background" in line for line in pushed.ours):
        assert pushed.code != 0
        assert any("no offer is known to cost at most max-price" in line for line in pushed.ours)
    project.commit({}, "x\n\nTrain: 'no end")
    pushed = project.push("store", "HEAD:main")
    assert pushed.code != 0
    assert any("without its end" in line for line in pushed.ours)


@pytest.mark.parametrize("strict", [False, True])
def test_what_aws_refuses_blocks_a_push_only_when_it_is_strict(project, strict):
    project.commit({"runctl.toml": TRAIN + ("strict = true\n" if strict else "")})
    pushed = project.push("store", "HEAD:main", AWS_ENDPOINT_URL="http://127.0.0.1:9", RUNCTL_BUCKET="other")
    if any("goes on in the background" in line for line in pushed.ours):
        pytest.skip("this machine is too busy for the launcher to answer in time")
    assert (pushed.code != 0) == strict
    assert any("a run of it would be refused" in line if strict else "is not trained: " in line for line in pushed.ours)


def test_a_fleet_is_not_started_by_pushing_all_branches(project):
    for number in range(6):
        project.commit({"n": str(number)})
        project.must("branch", f"exp/{number}")
    pushed = project.push("store", "--all")
    assert pushed.code == 0
    assert any("6 runs; more than 4 at once are not started" in line for line in pushed.ours)
    assert launchers(project) == []


def test_a_tag_is_checked_and_never_trained(project):
    project.must("tag", "main")
    project.commit({"runctl.toml": TRAIN.replace('"main", "exp/*"', '"*"')})
    project.must("tag", "v1")
    pushed = project.push("store", "v1")
    assert pushed.ours[0].startswith("refs/tags/v1 (")
    assert not (project.root / ".git/runctl").exists()
