"""What a training forges about its own run is told of that run, or is no document; it brings nobody down."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
from hostile import RESULTS, each
from pydantic import ValidationError

from runctl_action.contract.documents import Result
from runctl_action.contract.reports import Report, ReportedCheckpoint, Synced
from runctl_action.github.annotations import of_report
from runctl_action.github.outputs import outputs_of
from runctl_action.host.metrics import read_metrics
from runctl_action.report import markdown, terminal

AT = datetime(2026, 7, 1, 12, tzinfo=UTC)
GOOD = {"run_id": "r", "attempt": 1, "outcome": "failed", "cause": "exit", "at": "2026-07-01T12:00:00Z"}


def reported(result: Result) -> Report:
    """As run/summary.py takes it over."""
    return Report(
        run_id="r",
        outcome=result.outcome,
        cause=result.cause,
        exit_code=result.exit_code,
        signal=result.signal,
        message=result.message,
        repository="octo/digits",
        name="train",
        commit="a" * 40,
        tree="b" * 40,
        script="train.py",
        manifest=Synced(digest="d" * 64, files=result.files, bytes=result.log_bytes),
        phases={phase.phase: phase.seconds or 0 for phase in result.phases},
        checkpoints=tuple(
            ReportedCheckpoint(path=c.path, bytes=c.bytes, sha256=c.sha256, uri=c.key, modified_at=c.modified_at)
            for c in result.checkpoints
        ),
        metrics=result.metrics,
        warnings=result.warnings,
        requested_at=AT,
        ended_at=result.at,
    )


@pytest.mark.parametrize("fields", each(RESULTS))
def test_a_forged_result_is_no_document_or_one_that_can_be_told(fields):
    data = json.dumps(GOOD)[:-1] + f", {fields}}}"
    try:
        result = Result.model_validate_json(data)
    except ValidationError:
        return
    report = reported(result)
    report.model_dump_json()
    assert len(markdown.render(report, now=AT)) <= markdown.LIMIT
    assert len(markdown.render_summary(report).encode()) <= markdown.SUMMARY_LIMIT
    terminal.print_report(report, io.StringIO())
    of_report(report)
    assert sum(map(len, outputs_of(report).values())) < 400_000


@pytest.mark.parametrize("levels", [33, 200, 500, 900, 20_000])
def test_metrics_that_could_not_be_written_into_a_result_are_left_out(levels, tmp_path):
    (tmp_path / "m.jsonl").write_text(f'{{"a": {"[" * levels}{"]" * levels}}}\n{{"a": [[1]]}}\n')
    rows, warnings = read_metrics(tmp_path, ("m.jsonl",))
    assert rows == ({"a": [[1]]},)
    assert warnings == ["m.jsonl: 1 lines are not JSON objects and were left out"]
    Result(**GOOD, metrics=rows).to_json()
