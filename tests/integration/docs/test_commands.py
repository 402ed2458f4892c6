"""Every command that README.md and docs/ show is run, section by section, against a standing emulator.

A section is read as somebody would type it: a fence is a piece of shell, and the words in capitals are what it is about.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^( *)```sh\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_ARGUMENTS = "--lr 0.1 --tag 'two words' '$HOME'"
# What ends with another exit code than 0, because it is shown for that.
_ENDS_WITH = {"--spot require": 4, "--fault die:": 7, "--fault quota": 4}
# Not for a repository of the user's, but for a checkout of this one.
_OURS = re.compile(r"make ([a-z-]+)|\.venv/bin/python -m (benchmarks\.[a-z]+)")
# moto shows a stack's outputs only after an update of it, and cannot delete a role that has policies.
_AFTER_DEPLOY = (
    "aws cloudformation update-stack --stack-name runctl --template-body file://infra/runctl.yaml "
    "--parameters ParameterKey=Repository,ParameterValue=my-org/my-models"
)
_NOT_ON_MOTO = "aws cloudformation delete-stack"
_TRAINING = """\
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
(folder / "model.tmp").write_text("weights")
(folder / "model.tmp").rename(folder / "model-epoch-1.bin")
pathlib.Path("metrics.jsonl").write_text(json.dumps({"epoch": 1, "loss": 0.5}))
print("trained with", sys.argv[1:])
"""


@dataclass
class Standing:
    """An emulator in a process of its own, and the variables that point at it."""

    process: subprocess.Popen[str]
    variables: dict[str, str]


def stand(*flags: str) -> Standing:
    process = subprocess.Popen(
        [sys.executable, "-m", "runctl_action", "emulator", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    variables = {}
    while not process.stderr.readline().startswith("# an emulated AWS"):
        assert process.poll() is None
    for _ in range(7):
        name, _, value = process.stdout.readline().removeprefix("export ").strip().partition("=")
        variables[name] = value
    return Standing(process, variables)


def end(standing: Standing) -> int:
    standing.process.send_signal(signal.SIGINT)
    standing.process.communicate(timeout=60)
    return standing.process.returncode


@pytest.fixture(scope="module")
def emulator() -> Iterator[Standing]:
    standing = stand("--hour", "600")
    yield standing
    assert end(standing) == 0


@dataclass
class Reader:
    """Somebody with a repository, this page, and an AWS."""

    root: Path
    environ: dict[str, str]
    run_id: str = ""
    said: str = ""
    words: dict[str, str] = field(default_factory=dict)

    def types(self, fence: str) -> None:
        for word in ("RUN", "INSTANCE"):
            if re.search(rf"\b{word}\b", fence) and word not in self.words:
                self.words[word] = self._made(word)
        shell = re.sub(r"\b[A-Z]{2,}\b(?!=)", lambda found: self.words.get(found[0], found[0]), fence)
        code = next((code for shown, code in _ENDS_WITH.items() if shown in fence), 0)
        done = self._bash(shell)
        assert done.returncode == code, f"{shell}\n{done.stdout}\n{done.stderr}"
        if "cloudformation deploy" in fence:
            assert self._bash(_AFTER_DEPLOY).returncode == 0
        if instance := re.search(r"^i-[0-9a-f]+$", done.stdout, re.MULTILINE):
            self.words["INSTANCE"] = instance[0]
        if run := re.search(r"run (\S+-[0-9a-f]{12})\b", done.stderr):
            self.words["RUN"] = run[1]

    def _made(self, word: str) -> str:
        """A run, or an instance of one's own, where a page speaks of one that the reader has."""
        made = {
            "RUN": "runctl-action train train.py",
            "INSTANCE": "aws ec2 run-instances --image-id ami-03cf127a --instance-type t3.medium --iam-instance-profile "
            "Name=runctl-host --query 'Instances[0].InstanceId' --output text",
        }
        done = self._bash(made[word])
        assert done.returncode == 0, done.stderr
        if word == "INSTANCE":
            return done.stdout.strip()
        found = re.search(r"run (\S+-[0-9a-f]{12})\b", done.stderr)
        assert found, done.stderr
        return found[1]

    def _bash(self, text: str) -> subprocess.CompletedProcess[str]:
        # Two pages make a stack of this name, in one account.
        named = text.replace("--stack-name runctl", f"--stack-name runctl-{self.root.parent.name.replace('_', '-')}")
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", named],
            cwd=self.root, env=self.environ, capture_output=True, text=True, timeout=170, check=False,
        )  # fmt: skip


@pytest.fixture
def reader(tmp_path: Path, emulator: Standing) -> Reader:
    root = tmp_path / "models"
    root.mkdir()
    (root / "train.py").write_text(_TRAINING)
    for ours in ("examples", "infra", "hooks"):
        shutil.copytree(ROOT / ours, root / ours)
    (root / "faults").write_text("no-capacity:market=spot,times=1\n")
    subprocess.run("git init -q && git add -A && git commit -qm one", shell=True, check=True, cwd=root)
    subprocess.run(f"git init -q --bare {shlex.quote(str(tmp_path / 'remote'))}", shell=True, check=True)
    subprocess.run(["git", "remote", "add", "origin", str(tmp_path / "remote")], check=True, cwd=root)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = os.environ | emulator.variables | {"PATH": path}
    words = {
        "SCRIPT": "train.py", "ARGS": _ARGUMENTS, "FILE": "faults", "PROFILE": "runctl-host", "AMI": "ami-03cf127a",
    }  # fmt: skip
    return Reader(root, environ, words=words)


def sections() -> Iterator[tuple[str, list[str]]]:
    """(page and heading, its fences of shell), of those that have some; numbered ones build on each other."""
    for page in PAGES:
        for text in re.split(r"^(?=## \D)", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if found := [fence for _, fence in _FENCE.findall(text)]:
                yield f"{page.stem}: {text.splitlines()[0].strip('# ')}", found


@pytest.mark.parametrize("fences", [pytest.param(found, id=name) for name, found in sections()])
def test_the_commands_of_a_section_do_what_it_says(fences: list[str], reader: Reader) -> None:
    for fence in fences:
        lines = []
        for line in fence.replace("my-team-runctl", reader.environ["RUNCTL_BUCKET"]).splitlines(keepends=True):
            if ours := _OURS.match(line):
                _is_there(ours[1], ours[2])
            elif line.startswith("runctl-action emulator"):
                words = shlex.split(line)[2:]
                # Whoever runs the tests may use that port.
                words[words.index("--port") + 1] = "0"
                assert end(stand(*words)) == 0
            elif not line.startswith(_NOT_ON_MOTO):
                lines.append(line)
        if lines:
            reader.types("".join(lines))


def _is_there(target: str | None, module: str | None) -> None:
    """What takes an hour, or is what runs this test, is not run here."""
    if target:
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    else:
        assert module
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
