"""The step's outputs: what later steps of a workflow can read of a run. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from runctl_action.contract.reports import Report

# GitHub takes 1 MB a job, reckoned in UTF-16, and a job may train more than once: a fifth of it for each of the two
# lists, which are ASCII.
_LONGEST_LIST = 100_000
# Training code chooses these names and values, and workflows paste outputs into shell scripts. JSON means the same with
# them spelled as escapes, and a shell finds nothing in them to act on.
_INERT = {ord(character): f"\\u{ord(character):04x}" for character in "$`'&;|<>()!#*?~"}


def outputs_of(report: Report, report_url: str = "") -> dict[str, str]:
    """By name; "" is what is not known. `checkpoints` and `metrics` are JSON arrays; what was too long keeps its end,
    and `shortened` names it. The exit code is the training's own; the cost is that of the receipt, in USD."""
    last = report.instances[-1] if report.instances else None
    total = report.receipt.total_usd if report.receipt else None
    checkpoints, has_all_checkpoints = _array([item.model_dump(mode="json") for item in report.checkpoints])
    metrics, has_all_metrics = _array(report.metrics)
    cut = [*["checkpoints"] * (not has_all_checkpoints), *["metrics"] * (not has_all_metrics)]
    return {
        "outcome": report.outcome or "",
        "cause": report.cause or "",
        "exit-code": "" if report.exit_code is None else str(report.exit_code),
        "run-id": report.run_id,
        "instance-id": last.id if last else "",
        "instance-type": last.type if last else "",
        "market": last.market if last else "",
        "cost-usd": "" if total is None else format(total, "f"),
        "checkpoints": checkpoints,
        "checkpoint-count": str(len(report.checkpoints)),
        "report-url": report_url,
        "metrics": metrics,
        "shortened": ", ".join(cut),
    }


def _array(items: Sequence[Any]) -> tuple[str, bool]:
    """JSON of as many of the last items as there is room for, and whether that is all of them."""
    kept: list[str] = []
    room = _LONGEST_LIST - 2
    for item in reversed(items):
        written = json.dumps(_sayable(item), separators=(",", ":"), allow_nan=False).translate(_INERT)
        room -= len(written) + 1
        if room < 0:
            break
        kept.append(written)
    return f"[{','.join(reversed(kept))}]", len(kept) == len(items)


def _sayable(value: Any) -> Any:
    """What JSON has a word for, so that a workflow's fromJSON reads it: null for NaN, which is none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_sayable(str(name)): _sayable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(item) for item in value]
    return value if value is None or isinstance(value, int) else str(value)
