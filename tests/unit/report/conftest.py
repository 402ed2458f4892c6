from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runctl_action.contract.reports import Report, ReportedCheckpoint, ReportedInstance, Synced

REQUESTED = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    def make(**changes: Any) -> Report:
        values: dict[str, Any] = {
            "run_id": "train-0123456789ab",
            "outcome": "succeeded",
            "exit_code": 0,
            "phase": "done",
            "repository": "example/digits",
            "name": "train",
            "commit": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
            "tree": "9c1f7d4a3c0e8b2d5f6a7b8c9d0e1f2a3b4c5d6e",
            "branch": "main",
            "script": "examples/digits/train.py",
            "args": ("--epochs", "5"),
            "manifest": Synced(digest="d" * 64, files=42, bytes=1_234_567),
            "instances": (
                ReportedInstance(id="i-0abc123def4567890", type="t3.medium", zone="us-east-1a", market="spot"),
            ),
            "attempts": 1,
            "phases": {"preparing": 0.4, "launching": 2.1, "booting": 11.0, "syncing": 1.2, "training": 24.5},
            "checkpoints": (
                ReportedCheckpoint(
                    path="checkpoints/epoch-5.npz",
                    bytes=52_340,
                    sha256="a1" * 32,
                    uri="s3://bucket/runctl/hosts/AROA1:i-0abc123def4567890/train-0123456789ab/1/checkpoints/a1/epoch-5.npz",
                    modified_at=REQUESTED + timedelta(seconds=38),
                ),
            ),
            "metrics": tuple({"epoch": n, "loss": 2.5 / n, "accuracy": 1 - 0.5 / n, "note": "ok"} for n in range(1, 6)),
            "requested_at": REQUESTED,
            "ended_at": REQUESTED + timedelta(seconds=41),
        }
        return Report(**(values | changes))

    return make
