"""Numbers as pictures that GitHub draws itself: bars in text, curves in Mermaid. Pure."""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, TypeGuard

from runctl_action.report.escaping import Safe
from runctl_action.report.wording import duration, visible

_POINTS = 50
_BAR = 30
_X_COLUMNS = ("epoch", "step", "iteration", "global_step")
# Mermaid's own height would make a page of three curves, and its own colour is hardly seen on white.
_HEAD = (
    "---",
    "config:",
    "  xyChart:",
    "    width: 720",
    "    height: 260",
    "  themeVariables:",
    "    xyChart:",
    '      plotColorPalette: "#2f81f7"',
    "---",
    "xychart-beta",
)


@dataclass(frozen=True)
class Metric:
    """A column of the metrics: its last value, and of numbers their range, as they are shown."""

    name: str
    last: str
    lowest: str = ""
    highest: str = ""


def bars(phases: Mapping[str, float]) -> str:
    """A line for each of up to 20 phases: name, duration, and a bar in proportion to the longest."""
    known = [(visible(name)[:20], seconds) for name, seconds in phases.items() if math.isfinite(seconds)][:20]
    longest = max((seconds for _, seconds in known), default=0)
    lines = [
        f"{name:<10} {duration(seconds):>12}  {'█' * max(1, round(_BAR * seconds / longest)) if longest > 0 else ''}"
        for name, seconds in known
    ]
    return "\n".join(line.rstrip() for line in lines)


def table(metrics: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Every column, in the order in which they first appear."""
    over = _over(metrics)
    found = []
    for name in _columns(metrics):
        values = [row[name] for row in metrics if name in row]
        numbers = [value for value in values if _is_number(value)]
        if name == over or len(numbers) < 2:
            found.append(Metric(name, _shown(values[-1])))
        else:
            found.append(Metric(name, _shown(values[-1]), _shown(min(numbers)), _shown(max(numbers))))
    return found


def curves(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """An xychart for each column whose numbers change, over the column that counts if there is one."""
    over = _over(metrics)
    points = {name: _points(metrics, over, name) for name in _columns(metrics) if name != over}
    return [_curve(name, over, found) for name, found in points.items() if _changes(found)]


def _columns(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in metrics for name in row))


def _over(metrics: Sequence[Mapping[str, Any]]) -> str | None:
    """The column that is in every row and never goes back: what the others are a function of."""
    for column in _X_COLUMNS:
        values = [row.get(column) for row in metrics]
        numbers = [float(value) for value in values if _is_number(value)]
        if len(numbers) == len(values) and numbers == sorted(numbers) and len(set(numbers)) > 1:
            return column
    return None


def _points(metrics: Sequence[Mapping[str, Any]], over: str | None, column: str) -> list[tuple[float, float]]:
    """(x, value) where the column holds a number that a chart can show; without x, the number of the row from 1."""
    rows = [(row, float(row[over] if over else number)) for number, row in enumerate(metrics, 1)]
    return [(at, float(row[column])) for row, at in rows if _is_number(row.get(column))]


def _changes(points: Sequence[tuple[float, float]]) -> bool:
    return len({x for x, _ in points}) > 1 and len({value for _, value in points}) > 1


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _curve(column: str, over: str | None, points: Sequence[tuple[float, float]]) -> str:
    shown = _even(points)
    values = [value for _, value in shown]
    low, high = min(values), max(values)
    margin = (high - low) * 0.05
    lines = [
        *_HEAD,
        f'    x-axis "{_label(over or "row")}" {_number(shown[0][0])} --> {_number(shown[-1][0])}',
        f'    y-axis "{_label(column)}" {_number(low - margin)} --> {_number(high + margin)}',
        f"    line [{', '.join(map(_number, values))}]",
    ]
    return "\n".join(lines)


def _even(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most 50 points at equal distances, as Mermaid draws them whatever their x: the given ones where they are."""
    steps = [after - before for (before, _), (after, _) in pairwise(points)]
    if max(steps) - min(steps) <= max(steps) * 1e-6:
        count = min(_POINTS, len(points))
        return [points[round(i * (len(points) - 1) / (count - 1))] for i in range(count)]
    begin, end = points[0][0], points[-1][0]
    return [_between(points, begin + (end - begin) * i / (_POINTS - 1)) for i in range(_POINTS)]


def _between(points: Sequence[tuple[float, float]], x: float) -> tuple[float, float]:
    later = bisect.bisect_right(points, x, key=lambda point: point[0])
    before, after = points[max(0, later - 1)], points[min(later, len(points) - 1)]
    if after[0] <= before[0]:
        return x, before[1]
    return x, before[1] + (after[1] - before[1]) * (x - before[0]) / (after[0] - before[0])


def _label(name: str) -> str:
    """Mermaid has a syntax of its own inside quotes: only letters and signs that mean nothing in it."""
    return re.sub(r"[^\w ./-]+", " ", visible(name)).strip()[:40] or "value"


def _number(value: float) -> str:
    """Six significant digits, never with an exponent: Mermaid does not read those."""
    shown = format(round(Decimal(f"{value:.6g}"), 15), "f")
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return "0" if shown == "-0" else shown


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return Safe(f"{value:.6g}" if isinstance(value, float) else value)
