"""Pushes that train: against a standing emulator, with launchers that outlive the push, and without."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runctl_action.emulator.server import BUCKET, Emulator
from runctl_action.hook import price, training
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
# Trains until there is a file.
HELD = """
import pathlib, time
print("it trains", flush=True)
while not pathlib.Path({path!r}).exists():
    time.sleep(0.1)
"""
# The command, which waits for its launchers' answers so long: on a busy machine none has come within the product's own
# seconds, and a push says something else.
COMMAND = """\
#!{python} -P
import sys
from runctl_action.__main__ import main
from runctl_action.hook import training
training._ANSWER_SECONDS = {seconds}
main()
"""


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
    use_command(found, tmp_path / "bin", seconds=300)
    # The folder is in it: another test's commit is another request.
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


def use_command(project: Project, folder: Path, *, seconds: float) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "runctl-action").write_text(COMMAND.format(python=sys.executable, seconds=seconds))
    (folder / "runctl-action").chmod(0o755)
    project.environ["PATH"] = f"{folder}:{project.environ['PATH']}"


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


def run_of(lines: list[str]) -> str:
    """The run's id, as the push said it."""
    found = re.search(r"logs (train-[0-9a-f]{12}) -f", "\n".join(lines))
    assert found, lines
    return found[1]


def test_the_pushed_commit_is_trained_by_a_launcher_that_outlives_the_push(project, stored, hub, tmp_path):
    released = tmp_path / "released"
    commit = project.commit({"train.py": HELD.format(path=str(released))})
    (project.root / "train.py").write_text("raise SystemExit('not this one')\n")
    (project.root / "runctl.toml").write_text("broken")
    (project.root / "json.py").write_text("raise SystemExit('never import what lies there')\n")
    pushed = project.push("store", "HEAD:main")
    assert pushed.code == 0, pushed.err
    assert project.must("ls-remote", "store", "refs/heads/main").startswith(commit)
    run_id = run_of(pushed.ours)
    # It is back, and pushed, while the training cannot have ended.
    assert launchers(project)
    assert not stored(f"runs/{run_id}/report.json") or not stored(f"runs/{run_id}/report.json")["outcome"]
    until(lambda: "it trains" in log_of(project))
    released.touch()
    assert f"follow it:  runctl-action logs {run_id} -f" in pushed.ours
    assert f"end it, should the remote reject this push:  runctl-action stop {run_id}" in pushed.ours
    report = until(lambda: (found := stored(f"runs/{run_id}/report.json")) and found["outcome"] and found)
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


def test_a_launcher_that_is_gone_is_replaced_by_collect(project, stored, hub, tmp_path):
    released = tmp_path / "released"
    commit = project.commit({"train.py": HELD.format(path=str(released))})
    hub.pulls.append(Pull(7, commit))
    run_id = run_of(project.push("store", "HEAD:exp/a").ours)
    until(lambda: (found := stored(f"runs/{run_id}/attempts/1/instance.json")) and found)
    (launcher,) = launchers(project)
    os.killpg(launcher, signal.SIGKILL)
    released.touch()
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
    run_id = run_of(pushed.ours)
    report = until(lambda: (found := stored(f"runs/{run_id}/report.json")) and found["outcome"])
    assert report == "succeeded", log_of(project)
    assert stored(f"runs/{run_id}/spec.json")["args"] == ["--epochs", "3", "--name", "a b"]


def test_the_same_commit_pushed_again_attaches(project, stored):
    project.commit({"train.py": WAITS})
    run_id = run_of(project.push("store", "HEAD:main").ours)
    again = project.push("store", "HEAD:exp/b")
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
    run_id = run_of(pushed.ours)
    assert f"end it, should the remote reject this push:  runctl-action stop {run_id}" in pushed.ours
    assert project.must("ls-remote", "store") == ""
    assert project.runctl("stop", run_id).returncode == 0
    assert stored(f"runs/{run_id}/report.json")["outcome"] == "cancelled"


def test_a_request_that_is_refused_for_what_is_in_it_blocks_the_push(project):
    pushed = project.push("store", "HEAD:main", RUNCTL_MAX_PRICE="0.0001")
    assert pushed.code != 0
    assert any("no offer is known to cost at most max-price" in line for line in pushed.ours)
    project.commit({}, "x\n\nTrain: 'no end")
    pushed = project.push("store", "HEAD:main")
    assert pushed.code != 0
    assert any(line.startswith("  the trailer Train: ") and "without its end" in line for line in pushed.ours)


@pytest.mark.parametrize("strict", [False, True])
def test_what_aws_refuses_blocks_a_push_only_when_it_is_strict(project, strict):
    project.commit({"runctl.toml": TRAIN + ("strict = true\n" if strict else "")})
    pushed = project.push("store", "HEAD:main", AWS_ENDPOINT_URL="http://127.0.0.1:9", RUNCTL_BUCKET="other")
    assert (pushed.code != 0) == strict
    assert any("a run of it would be refused" in line if strict else "is not trained: " in line for line in pushed.ours)


def test_a_launcher_that_gets_no_answer_is_not_waited_for(project, tmp_path):
    use_command(project, tmp_path / "impatient", seconds=0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        pushed = project.push("store", "HEAD:main", AWS_ENDPOINT_URL=url)
        assert pushed.code == 0, pushed.err
        assert pushed.ours[-1] == "its run is soon in: runctl-action list"
        assert launchers(project)
        for launcher in launchers(project):
            os.killpg(launcher, signal.SIGKILL)


def test_a_push_waits_less_than_ten_seconds_for_a_launcher():
    assert training._ANSWER_SECONDS + price._PATIENCE_SECONDS < 9


def test_with_a_token_of_the_users_the_launcher_posts_the_report_itself(project, stored, hub):
    commit = project.must("rev-parse", "HEAD")
    hub.pulls.append(Pull(7, commit))
    run_id = run_of(project.push("store", "HEAD:main", RUNCTL_GITHUB_TOKEN="ghs_action").ours)
    until(lambda: not launchers(project))
    assert stored(f"runs/{run_id}/report.json")["outcome"] == "succeeded", log_of(project)
    assert commit[:7] in hub.comments[0].body
    spec = json.dumps(stored(f"runs/{run_id}/spec.json"))
    assert "ghs_action" not in spec + log_of(project)


HOSTILE = "--instance-type p5.48xlarge --bucket evil -- $(touch pwned) `touch pwned` '; touch pwned' ../../x"


def test_a_trailer_is_words_for_the_script_and_nothing_else(project, stored):
    branch = "exp/$(touch${IFS}pwned);`touch${IFS}pwned`'\"é&|--x"
    project.commit({}, f"x\n\nTrain: {HOSTILE}")
    pushed = project.push("store", f"HEAD:refs/heads/{branch}")
    assert pushed.code == 0, pushed.err
    run_id = run_of(pushed.ours)
    report = until(lambda: (found := stored(f"runs/{run_id}/report.json")) and found["outcome"] and found)
    assert report["outcome"] == "succeeded", log_of(project)
    spec = stored(f"runs/{run_id}/spec.json")
    assert spec["args"] == shlex.split(HOSTILE)
    assert spec["branch"] == branch
    assert {instance["type"] for instance in report["instances"]} == {"t3.medium"}
    assert not list(project.root.rglob("pwned*"))
    assert project.must("ls-remote", "store").endswith(f"refs/heads/{branch}")


def test_a_branch_whose_name_is_no_text_is_trained(project, stored):
    pushed = project.push("store", os.fsdecode(b"HEAD:refs/heads/exp/\xff\xfe"))
    assert pushed.code == 0, pushed.err
    spec = until(lambda: stored(f"runs/{run_of(pushed.ours)}/spec.json"))
    assert spec["branch"] == "exp/\\xff\\xfe"


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
