"""The training's metrics: JSON lines that it writes, bounded before they go anywhere."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

_MAX_ROWS = 2000
_MAX_BYTES = 256 * 1024


def read_metrics(root: Path, globs: tuple[str, ...]) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """(rows, warnings): the last rows of every file that matches; lines that are not JSON objects are counted."""
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    for glob in globs:
        for path in sorted(root.glob(glob)):
            # Nor through a linked folder: another file of the host is nobody's metrics.
            if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
                continue
            bad = 0
            for line in _tail(path):
                row = _row(line)
                if row is None:
                    bad += 1
                else:
                    rows.append(row)
            if bad:
                warnings.append(
                    f"{path.relative_to(root).as_posix()}: {bad} lines are not JSON objects and were left out"
                )
    return tuple(rows[-_MAX_ROWS:]), warnings


def _tail(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _MAX_BYTES))
        lines = file.read(_MAX_BYTES).split(b"\n")
    # The first line is cut where reading began in the middle.
    return [line for line in lines[1 if size > _MAX_BYTES else 0 :] if line.strip()]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text that could be passed on
    except (ValueError, RecursionError):
        return None
    # A result whose metrics are nested for ever could not be written.
    if not isinstance(row, dict) or not _is_shallow(row):
        return None
    # NaN is no JSON; a diverged loss is told as what it is.
    return {str(k): str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _is_shallow(value: object, levels: int = 32) -> bool:
    if not isinstance(value, dict | list):
        return True
    return levels > 0 and all(
        _is_shallow(item, levels - 1) for item in (value.values() if isinstance(value, dict) else value)
    )
