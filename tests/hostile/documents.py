"""What a training can write into the documents of its own run, with its host's credentials: fields of a Result, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping


def _phase(seconds: str) -> str:
    return f'"phases": [{{"phase": "training", "started_at": "2026-07-01T12:00:00Z", "seconds": {seconds}}}]'


def _checkpoint(**changes: str) -> str:
    fields = {
        "path": '"a"', "bytes": "1", "sha256": '"x"', "key": '"k"', "modified_at": '"2026-07-01T12:00:00Z"',
        "uploaded_at": '"2026-07-01T12:00:00Z"',
    }  # fmt: skip
    written = ", ".join(f'"{name}": {value}' for name, value in (fields | changes).items())
    return f'"checkpoints": [{{{written}}}]'


RESULTS: Mapping[str, str] = {
    "a code of 4,000 digits": '"exit_code": ' + "9" * 4_000,
    "a code of 5,000 digits": '"exit_code": ' + "9" * 5_000,
    "a code that is infinite": '"exit_code": 1e999',
    "a code of no signal": '"exit_code": 227',
    "a code below 0": '"exit_code": -9',
    "a signal of 4,000 digits": '"signal": ' + "9" * 4_000,
    "a signal below 0": '"signal": -1',
    "no signal": '"signal": 0',
    "seconds without end": _phase("1e308"),
    "seconds below 0": _phase("-1e308"),
    "seconds of no time": _phase("1e-320"),
    "seconds that are infinite": _phase("1e999"),
    "seconds that are none": _phase("NaN"),
    "bytes of 4,000 digits": _checkpoint(bytes="9" * 4_000),
    "bytes below 0": _checkpoint(bytes="-1"),
    "a step of 5,000 digits": _checkpoint(path=f'"step-{"9" * 5_000}"'),
    "a path in base64 that is none": _checkpoint(path='{"base64": "*"}'),
    "a path in base64 with a nul": _checkpoint(path='{"base64": "AA=="}'),
    "a key of another run": _checkpoint(key='"runctl/hosts/AROA0:i-0/other/1/result.json"'),
    "a time before all": _checkpoint(modified_at='"0001-01-01T00:00:00Z"'),
    "a time after all": _checkpoint(modified_at='"9999-12-31T23:59:59Z"'),
    "files of 4,000 digits": '"files": ' + "9" * 4_000,
    "segments of 4,000 digits": '"log_segments": ' + "9" * 4_000,
    "segments below 0": '"log_segments": -5',
    "metrics of 1,000 levels": f'"metrics": [{{"a": {"[" * 1_000}{"]" * 1_000}}}]',
    "metrics of 150 levels": f'"metrics": [{{"a": {"[" * 150}{"]" * 150}}}]',
    "metrics of 4,000 digits": '"metrics": [{"epoch": 1, "a": %s}, {"epoch": 2, "a": -%s}]' % (("9" * 4_000,) * 2),
    "metrics that are infinite": '"metrics": [{"a": 1e999}, {"a": -1e999}, {"a": NaN}]',
    "metrics at the ends of numbers": '"metrics": [{"a": 1e308}, {"a": -1e308}, {"a": 5e-324}, {"a": 1e11}]',
    "metrics over no time": '"metrics": [{"epoch": 1e-320, "a": -1e11}, {"epoch": 5e-320, "a": 1e11}]',
    "metrics of half a pair": '"metrics": [{"a": "\\ud800"}]',
    "metrics without a name": '"metrics": [{"": null, "a": {"": []}}]',
    "metrics of 3,000 columns": f'"metrics": {json.dumps([{f"k{n}": n for n in range(3_000)}])}',
    "a message of a megabyte": '"message": "' + "x" * 1_000_000 + '"',
    "20,000 warnings": f'"warnings": {json.dumps(["x: `y`"] * 20_000)}',
    "an outcome that is none": '"outcome": "trained"',
    "a cause that is none": '"cause": "exit\\n"',
    "another run": '"run_id": "../../other"',
    "an attempt of 4,000 digits": '"attempt": ' + "9" * 4_000,
    "a version": '"version": 2',
}
