"""The benchmark runs and says something; how fast it was is not a test's business."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_benchmark_prints_its_table() -> None:
    command = [sys.executable, "-m", "benchmarks.sync", "--files", "60", "--rounds", "1"]
    options = ["--skip-aws-sync", "--no-judge"]
    done = subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True, text=True, timeout=120)
    for row in ("first sync", "one file changed", "nothing changed", "restore and verify", "memory of a sync"):
        assert f"\n{row}  " in done.stdout
