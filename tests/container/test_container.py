"""The image as the runner runs it (facts of actions/runner): its arguments, mounts, files, signals and post step.

AWS and GitHub are doubles outside of the container, on the loopback that it shares. What the action does for which event
is in tests/integration/github.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from engine import IMAGE, Engine
from github_double import GitHub, Pull
from ruamel.yaml import YAML
from runner_double import ROOT, Checkout, Job, Step, comment

from runctl_action.emulator.server import Emulator

pytestmark = pytest.mark.timeout(600)

TRAINS = """
import pathlib
pathlib.Path("checkpoints/last.bin").write_bytes(b"last")
print("trained", flush=True)
"""
FAILS = 'raise ValueError("no such loss")\n'
WAITS = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path("checkpoints/last.bin").write_bytes(b"last")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("it trains", flush=True)
time.sleep(300)
"""
RUNS = YAML(typ="safe").load(ROOT / "action.yml")["runs"]


@dataclass
class Container(Checkout):
    """A checkout, and the steps that run in the image."""

    docker: Engine
    name: str = field(default="", init=False)

    def start(self, entrypoint: str = "entrypoint", **inputs: str) -> subprocess.Popen[str]:
        environ = self.job.environ({name.replace("_", "-"): value for name, value in inputs.items()})
        self.name = f"runctl-{uuid.uuid4().hex[:12]}"
        command = [self.docker.program, "run", "--name", self.name, "--workdir", "/github/workspace", "--rm"]
        command += [word for name in environ for word in ("-e", name)]
        # Not the runner's, which has a bridge.
        command += self.docker.run_options
        for name in ("home", "workflow", "file_commands", "runner_temp"):
            command += ["-v", f"{self.job.folder / name}:/github/{name}"]
        command += ["-v", f"{self.job.workspace}:/github/workspace", "--entrypoint", RUNS[entrypoint], IMAGE]
        return subprocess.Popen(
            command, env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, entrypoint: str = "entrypoint", **inputs: str) -> Step:
        return self.end(self.start(entrypoint, **inputs))

    def end(self, process: subprocess.Popen[str], read: str = "") -> Step:
        written, _ = process.communicate(timeout=300)
        return self.job.ended(process.returncode, read + written)

    def until_it_trains(self, **inputs: str) -> tuple[subprocess.Popen[str], str]:
        process, read = self.start(**inputs), ""
        for line in process.stdout or ():
            read += line
            if line == "it trains\n":
                return process, read
        process.communicate()
        raise AssertionError(f"it never began: {read}")


def cancel(process: subprocess.Popen[str]) -> str:
    """As the runner cancels; what has ended the step."""
    for number, seconds in ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5)):
        process.send_signal(number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return number.name
            time.sleep(0.05)
    process.kill()
    return "SIGKILL"


@pytest.fixture
def hub() -> Iterator[GitHub]:
    with GitHub(pulls=[Pull(7, "0" * 40)]) as github:
        yield github
    assert github.problems == []


@pytest.fixture
def container(tmp_path: Path, docker: Engine, aws: Emulator, hub: GitHub) -> Iterator[Container]:
    variables = {**aws.environ, "RUNCTL_INSTALL": "skip", "RUNCTL_SCRIPT": "train.py"}
    made = Container(Job(tmp_path / "runner", tmp_path / "workspace", variables, hub.url, in_container=True), docker)
    yield made
    docker.run("rm", "--force", made.name, check=False)


def finals(hub: GitHub) -> list[str]:
    bodies = [str(asked.body.get("body", "")) for asked in hub.asked if asked.method in {"POST", "PATCH"}]
    return [body for body in bodies if body.split("\n", 1)[0].endswith(" final -->")]


def states(aws: Emulator, run_id: str) -> set[str]:
    client = aws.client("ec2")
    found = client.describe_instances(Filters=[{"Name": "tag:runctl:run", "Values": [run_id]}])
    client.close()
    return {i["State"]["Name"] for r in found["Reservations"] for i in r["Instances"]}


def of_another_user(folder: Path) -> None:
    """The runner's user owns the workspace; root, in the container, is another one, and git minds that."""
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "1001:1001", folder], check=True)


def test_a_training_succeeds_in_a_workspace_of_another_user(container: Container, hub: GitHub, aws: Emulator) -> None:
    head = container.of_pull_request(TRAINS)
    of_another_user(container.job.workspace)
    step = container.run()
    assert step.code == 0, step.written
    assert (step.outputs["outcome"], step.outputs["checkpoint-count"]) == ("succeeded", "1")
    assert "succeeded" in step.summary
    assert len(finals(hub)) == len(hub.comments) == 1
    assert head in hub.comments[0].body
    assert states(aws, step.outputs["run-id"]) == {"terminated"}
    post = container.run("post-entrypoint")
    assert (post.code, post.summary) == (0, "")


def test_a_training_fails_with_the_step_beside_its_line(container: Container, hub: GitHub) -> None:
    container.of_pull_request(FAILS)
    step = container.run(comment="on-failure")
    assert (step.code, step.outputs["cause"]) == (1, "exit")
    [told] = step.log.of("error")
    assert (told.properties["file"], told.properties["line"]) == ("train.py", "1")
    assert "no such loss" in finals(hub)[0]


def test_a_cancelled_step_answers_the_interrupt_and_the_post_step_ends_the_run(
    container: Container, hub: GitHub, aws: Emulator
) -> None:
    container.of_pull_request(WAITS)
    process, read = container.until_it_trains()
    assert cancel(process) == "SIGINT"
    step = container.end(process, read)
    assert step.code == 130
    post = container.run("post-entrypoint")
    assert post.code == 0, post.written
    assert states(aws, step.state["run_id"]) == {"terminated"}
    assert len(finals(hub)) == len(hub.comments) == 1
    assert "cancelled" in hub.comments[0].body


def test_the_post_step_ends_what_a_killed_container_has_left(container: Container, hub: GitHub, aws: Emulator) -> None:
    container.of_pull_request(WAITS)
    process, read = container.until_it_trains(comment="on-failure")
    container.docker.run("kill", "--signal", "KILL", container.name)
    step = container.end(process, read)
    assert (step.code, step.outputs) == (137, {})
    post = container.run("post-entrypoint", comment="on-failure")
    assert (post.code, post.outputs["outcome"]) == (0, "cancelled")
    assert states(aws, step.state["run_id"]) == {"terminated"}
    assert len(finals(hub)) == 1


def test_a_forks_pull_request_is_skipped_without_credentials(container: Container, hub: GitHub) -> None:
    container.of_pull_request(TRAINS, head="mallory/digits")
    container.job.variables = {}
    step = container.run(script="train.py")
    assert (step.code, step.outputs, hub.asked) == (0, {"outcome": "skipped"}, [])
    assert "mallory/digits" in step.log.of("notice")[0].message


def test_a_comment_trains_the_head_that_git_fetches_in_the_container(
    container: Container, hub: GitHub, tmp_path: Path
) -> None:
    head = container.of_pull_request(TRAINS)
    bare = tmp_path / "workspace" / "origin.git"
    container.git("clone", "--quiet", "--bare", ".", str(bare))
    container.git("--git-dir", str(bare), "update-ref", "refs/pull/7/head", head)
    container.git("checkout", "--quiet", "-B", "main", "main~1")
    container.git("branch", "--quiet", "-D", "topic")
    container.git("reflog", "expire", "--expire=now", "--all")
    container.git("gc", "--quiet", "--prune=now")
    container.git("remote", "add", "origin", "/github/workspace/origin.git")
    hub.pulls, hub.permissions = [Pull(7, head)], {"ada": "write"}
    container.job.event("issue_comment", container.git("rev-parse", "HEAD"), comment("/train"))
    step = container.run(comment="never")
    assert step.code == 0, step.written
    assert head in hub.comments[0].body
    assert f"train.py at {head[:12]}" in step.log.text


def inside(docker: Engine, script: str, image: str = IMAGE) -> str:
    return docker.run("run", "--rm", *docker.run_options, "--entrypoint", "/bin/sh", image, "-c", script).stdout


def test_nothing_is_in_the_image_that_only_its_build_needs(docker: Engine) -> None:
    assert inside(docker, "command -v uv gcc make; ls -A /root/.cache /build /opt/uv 2>/dev/null; true") == ""
    assert (
        inside(docker, "find / -xdev -name '*.whl' -not -path '/usr/share/python-wheels/*'; ls /var/lib/apt/lists")
        == ""
    )
    # git with its perl, Python packages, and uv for two kinds of hosts.
    image, base = (int(inside(docker, "du -xsm /", name).split()[0]) for name in (IMAGE, docker.base))
    assert image - base < 300


def test_the_image_is_set_up_as_the_runner_needs_it(docker: Engine) -> None:
    wanted = "{{json .Config.Entrypoint}} {{json .Config.Cmd}}|{{.Config.User}}|{{.Config.WorkingDir}}"
    said = docker.run("image", "inspect", IMAGE, "--format", wanted).stdout.strip()
    # podman writes its default down.
    assert said.rstrip("/") == f'["{RUNS["entrypoint"]}"] null||'
    assert inside(docker, "git config --system --list") == "safe.directory=/github/workspace\n"


def test_the_packages_are_those_of_the_lock_file(docker: Engine) -> None:
    listed = "import importlib.metadata as m; print(*(f'{d.name.lower()}=={d.version}' for d in m.distributions()))"
    installed = set(inside(docker, f'/opt/runctl/bin/python -Ic "{listed}"').replace("_", "-").split())
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    assert installed
    assert installed <= {f"{package['name']}=={package['version']}".replace("_", "-") for package in packages}


def test_uv_is_there_for_hosts_of_both_kinds_so_that_a_launch_asks_no_package_index(docker: Engine) -> None:
    baked = inside(docker, "ls /opt/runctl/share/runctl-action").split()
    version = re.search(r'^name = "uv"\nversion = "(.+)"$', (ROOT / "uv.lock").read_text(), re.MULTILINE)
    assert version
    assert baked == [f"uv-{version[1]}-{cpu}-unknown-linux-gnu.zip" for cpu in ("aarch64", "x86_64")]
    # The machine that an ELF file is for is its 19th byte: 183 is AArch64, 62 is x86-64.
    machine = (
        "import pathlib, zipfile; z = sorted(pathlib.Path('/opt/runctl/share/runctl-action').iterdir());"
        "print([next(zipfile.ZipFile(p).read(n)[18] for n in zipfile.ZipFile(p).namelist() if n.endswith('uv')) for p in z])"
    )
    assert inside(docker, f'/opt/runctl/bin/python -Ic "{machine}"') == "[183, 62]\n"


def test_what_we_import_is_compiled_the_standard_library_too(docker: Engine) -> None:
    """Nothing but what is compiled would be left to compile at every start."""
    found = (
        "import {0}, sys; print(*(m.__cached__ for m in list(sys.modules.values()) if getattr(m, '__cached__', '')))"
    )
    modules = "runctl_action.cli, runctl_action.github.posting, boto3, github, jinja2, botocore.credentials"
    cached = inside(docker, f'/opt/runctl/bin/python -IBc "{found.format(modules)}"').split()
    assert len(cached) > 300
    assert inside(docker, f"for file in {' '.join(cached)}; do test -f $file || echo $file; done") == ""


def test_a_workflows_own_python_variables_do_not_reach_us_and_the_first_line_takes_no_second(docker: Engine) -> None:
    """Of processor time, to the whole of what a step does when it finds no workflow."""
    measure = (
        "import resource, subprocess; s = subprocess.run(['/opt/runctl/bin/runctl-action-step'], capture_output=True);"
        "u = resource.getrusage(resource.RUSAGE_CHILDREN); print(s.stdout.decode()); print(u.ru_utime + u.ru_stime)"
    )
    variables = [word for name in ("PYTHONHOME", "PYTHONPATH") for word in ("-e", f"{name}=/nowhere")]
    python = ["--entrypoint", "/opt/runctl/bin/python", IMAGE, "-I", "-c", measure]
    said = docker.run("run", "--rm", *docker.run_options, *variables, *python)
    *lines, seconds = said.stdout.split("\n")[:-1]
    assert lines[0] == "::group::preparing"
    assert float(seconds) < 1
