"""What a push takes with the hook: on packed repositories of 1,000, 10,000 and 50,000 files, warm.

python -m benchmarks.hook [--rounds N] [--files N ...]

Beside it, in the same rounds, a push without a hook, and one with a pre-commit hook that does nothing. Of each the
least of all rounds counts: whatever else the machine does only adds to it. What the hook itself takes is also shown as
the processor's time, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

NOT_SELECTED_SECONDS = 0.2
CHECK_SECONDS = 0.7
_SETTINGS = 'script = "d0/f0.py"\n[hook]\nbranches = ["main"]\n'
_NOTHING = """\
repos:
- repo: local
  hooks:
  - {id: nothing, name: nothing, entry: "true", language: system, always_run: true, pass_filenames: false}
"""
_ENVIRON = dict(os.environ) | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "gc.auto",
    "GIT_CONFIG_VALUE_0": "0",
    **{f"GIT_{who}_{what}": "bench@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def main() -> int:
    """0 when all are within their targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    given = parser.parse_args()
    print(f"{'files':>7}  {'':28} {'push':>8} {'x without':>9} {'of it the hook':>14}  {'target':10} {'processor':>9}")
    held = True
    for files in given.files:
        with tempfile.TemporaryDirectory(prefix="runctl-bench-") as directory:
            held = _measure(Path(directory), files, given.rounds) and held
    return 0 if held else 1


def _measure(folder: Path, files: int, rounds: int) -> bool:
    root, commits = _repository(folder, files)
    no_hooks, nothing = folder / "none", folder / "pre-commit"
    no_hooks.mkdir()
    (root / ".pre-commit-config.yaml").write_text(_NOTHING)
    _run(root, "pre-commit", "install", "--hook-type", "pre-push")
    (root / ".git/hooks").rename(nothing)
    _run(root, sys.executable, "-m", "runctl_action", "hook", "install")
    ways = {
        "without a hook": (no_hooks, "bare"),
        "a pre-commit hook of nothing": (nothing, "nothing"),
        "branch not selected": (root / ".git/hooks", "other"),
        "full check": (root / ".git/hooks", "main"),
    }
    pushes: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, (hooks, branch) in ways.items():
            seconds = _push(root, hooks, commits[number % 2], branch)
            pushes[name] += [seconds] if number else []
    alone = {
        name: min(_processor_seconds(root, commits, branch) for _ in range(rounds))
        for name, (hooks, branch) in ways.items()
        if hooks == root / ".git/hooks"
    }
    return _show(files, {name: min(found) for name, found in pushes.items()}, alone)


def _repository(folder: Path, files: int) -> tuple[Path, Sequence[str]]:
    """A packed working tree, and two commits of it that its remote has."""
    root = folder / "tree"
    _run(folder, "git", "init", "-q", "-b", "main", str(root))
    _run(folder, "git", "init", "-q", "--bare", "bare.git")
    for number in range(files):
        path = root / f"d{number // 250}" / f"f{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {number}\n" + f"x = {number}\n" * (number % 40))
    (root / "runctl.toml").write_text(_SETTINGS)
    (root / "d0/f0.py").write_text("import os, json\n")
    commits = []
    for number in range(2):
        (root / "d0/f1.py").write_text(f"x = {number}\n")
        _run(root, "git", "add", "-A")
        _run(root, "git", "commit", "-q", "-m", "x")
        commits.append(_run(root, "git", "rev-parse", "HEAD"))
    _run(root, "git", "gc", "-q")
    _run(root, "git", "remote", "add", "origin", str(folder / "bare.git"))
    _run(root, "git", "push", "-q", "origin", *(f"main:{name}" for name in ("main", "other", "bare", "nothing")))
    return root, commits


def _push(root: Path, hooks: Path, commit: str, branch: str) -> float:
    started = time.monotonic()
    command = [
        "git",
        "-c",
        f"core.hooksPath={hooks}",
        "push",
        "-q",
        "--force",
        "origin",
        f"{commit}:refs/heads/{branch}",
    ]
    _run(root, *command)
    return time.monotonic() - started


def _processor_seconds(root: Path, commits: Sequence[str], branch: str) -> float:
    """Of the hook and of all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = f"x {commits[0]} refs/heads/{branch} {commits[1]}\n"
    subprocess.run(
        ["runctl-action", "hook", "run", "origin", "x"],
        cwd=root, env=_ENVIRON, input=line, text=True, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _show(files: int, pushes: Mapping[str, float], alone: Mapping[str, float]) -> bool:
    without = pushes["without a hook"]
    held = True
    for name, seconds in pushes.items():
        line = f"{files:7}  {name:28} {seconds:6.3f} s {seconds / without:9.1f}"
        if seconds is not without:
            line += f" {seconds - without:12.3f} s"
        target = {"branch not selected": NOT_SELECTED_SECONDS, "full check": CHECK_SECONDS}.get(name)
        if target is not None:
            line += f"  <= {target} s {'✓' if seconds - without <= target else '✗'}  {alone[name]:7.3f} s"
            held = held and seconds - without <= target
        print(line, flush=True)
    return held


def _run(cwd: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=_ENVIRON, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}{done.stdout}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
