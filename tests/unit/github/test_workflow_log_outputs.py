from __future__ import annotations

import json
import math
import shlex
import subprocess
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.contract.reports import Receipt, Report, ReportedCheckpoint, ReportedInstance, Synced
from runctl_action.errors import UsageError
from runctl_action.github.outputs import outputs_of
from runctl_action.github.workflow_log import append_summary, cut_summary, save_state, saved_state, write_outputs

NOW = datetime(2026, 3, 2, 10, 5, tzinfo=UTC)
CHECKPOINT = ReportedCheckpoint(path="checkpoints/epoch-5.npz", bytes=52_340, sha256="a1" * 32, uri="s3://bucket/key")


def report(**changes):
    values = {
        "run_id": "train-0123456789ab",
        "outcome": "succeeded",
        "exit_code": 0,
        "repository": "octo/digits",
        "name": "train",
        "commit": "a" * 40,
        "tree": "b" * 40,
        "script": "train.py",
        "manifest": Synced(digest="d" * 64, files=42, bytes=1_234_567),
        "instances": (
            ReportedInstance(id="i-1", type="t3.medium", zone="us-east-1a", market="spot"),
            ReportedInstance(id="i-2", type="t3.large", zone="us-east-1b", market="on-demand"),
        ),
        "receipt": Receipt(total_usd=Decimal("0.00071"), as_of=NOW),
        "checkpoints": (CHECKPOINT,),
        "metrics": ({"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.25}),
        "requested_at": NOW,
    }
    return Report(**(values | changes))


def read_as_the_runner_does(text):
    """NAME<<DELIMITER, lines, DELIMITER."""
    values, lines = {}, iter(text.split("\n"))
    for line in lines:
        if line:
            name, delimiter = line.split("<<")
            value = []
            while (line := next(lines)) != delimiter:
                value.append(line)
            values[name] = "\n".join(value)
    return values


def test_outputs_are_of_the_last_instance_and_the_trainings_own_exit_code():
    outputs = outputs_of(report(), "https://github.example/octo/digits/pull/7#issuecomment-1")
    assert {name: value for name, value in outputs.items() if name not in {"checkpoints", "metrics"}} == {
        "outcome": "succeeded",
        "cause": "",
        "exit-code": "0",
        "run-id": "train-0123456789ab",
        "instance-id": "i-2",
        "instance-type": "t3.large",
        "market": "on-demand",
        "cost-usd": "0.00071",
        "checkpoint-count": "1",
        "report-url": "https://github.example/octo/digits/pull/7#issuecomment-1",
        "shortened": "",
    }
    assert json.loads(outputs["metrics"]) == [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.25}]
    (checkpoint,) = json.loads(outputs["checkpoints"])
    assert checkpoint["uri"] == "s3://bucket/key"
    assert checkpoint["suspect"] is False


def test_what_is_not_known_is_empty_and_lists_are_still_json():
    outputs = outputs_of(
        report(outcome=None, exit_code=None, instances=(), receipt=Receipt(as_of=NOW), checkpoints=(), metrics=())
    )
    empty = ("outcome", "cause", "exit-code", "instance-id", "instance-type", "market", "cost-usd", "report-url")
    assert all(outputs[name] == "" for name in empty)
    assert (outputs["checkpoints"], outputs["metrics"], outputs["checkpoint-count"]) == ("[]", "[]", "0")
    assert outputs_of(report(receipt=None))["cost-usd"] == ""


def test_what_is_too_long_keeps_its_end_and_says_so():
    outputs = outputs_of(
        report(
            metrics=tuple({"step": step, "loss": 1 / (step + 1)} for step in range(100_000)),
            checkpoints=tuple(CHECKPOINT.model_copy(update={"path": f"checkpoints/{n}"}) for n in range(5000)),
        )
    )
    assert json.loads(outputs["metrics"])[-1]["step"] == 99_999
    assert json.loads(outputs["checkpoints"])[-1]["path"] == "checkpoints/4999"
    assert outputs["checkpoint-count"] == "5000"
    assert outputs["shortened"] == "checkpoints, metrics"
    # GitHub reckons in UTF-16, a megabyte for all steps of a job.
    assert 300_000 < sum(len(value.encode("utf-16-le")) for value in outputs.values()) < 500_000


def test_a_row_that_is_too_long_alone_is_left_out():
    outputs = outputs_of(report(metrics=({"note": "x" * 200_000},)))
    assert (outputs["metrics"], outputs["shortened"]) == ("[]", "metrics")


def test_numbers_that_json_has_no_word_for_are_null():
    outputs = outputs_of(report(metrics=({"loss": math.nan, "best": math.inf, "deep": [-math.inf, {"x": math.nan}]},)))
    assert json.loads(outputs["metrics"], parse_constant=pytest.fail) == [
        {"loss": None, "best": None, "deep": [None, {"x": None}]}
    ]


def test_a_path_that_is_no_text_is_told_as_the_report_tells_it():
    outputs = outputs_of(report(checkpoints=(CHECKPOINT.model_copy(update={"path": "caf\udce9"}),)))
    assert json.loads(outputs["checkpoints"])[0]["path"] == {"base64": "Y2Fm6Q=="}


@pytest.mark.parametrize("quote", ["'", '"'])
def test_what_a_script_wrote_does_nothing_in_a_shell_that_a_workflow_pastes_it_into(quote, tmp_path):
    hostile = "$(touch pwned) `touch pwned`; touch pwned & touch pwned | '; touch pwned; ' > pwned"
    outputs = outputs_of(report(metrics=({hostile: hostile},)))
    assert json.loads(outputs["metrics"]) == [{hostile: hostile}]
    subprocess.run(
        ["sh", "-c", f"echo {quote}{outputs['metrics']}{quote}"], cwd=tmp_path, capture_output=True, check=False
    )
    assert list(tmp_path.iterdir()) == []


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=30) | st.floats() | st.booleans() | st.none(), max_size=4))
def test_every_output_is_ascii_json_of_one_line(row):
    outputs = outputs_of(report(metrics=(row,)))
    assert outputs["metrics"].isascii()
    assert "\n" not in outputs["metrics"]
    json.loads(outputs["metrics"], parse_constant=pytest.fail)
    assert shlex.split(f"'{outputs['metrics']}'")


def test_outputs_and_state_are_read_as_they_were_written_whatever_is_in_them(tmp_path):
    environ = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STATE": str(tmp_path / "state")}
    values = {
        "outcome": "failed",
        "report-url": "",
        "metrics": "a\nEOF\noutcome<<EOF\nsucceeded\nEOF",
        "cause": "é\udcff",
    }
    write_outputs(values, environ)
    save_state("run_id", "train-1", environ)
    save_state("pull_request", "7", environ)
    assert read_as_the_runner_does((tmp_path / "output").read_text("utf-8")) == values | {"cause": "é\\udcff"}
    state = read_as_the_runner_does((tmp_path / "state").read_text("utf-8"))
    assert saved_state("run_id", {f"STATE_{name}": value for name, value in state.items()}) == "train-1"
    assert saved_state("other", {}) == ""


def test_without_a_runner_nothing_is_written():
    write_outputs({"a": "b"}, {})
    save_state("a", "b", {"GITHUB_STATE": ""})
    append_summary("text", {})


def test_a_file_of_the_runners_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"GITHUB_OUTPUT names .*cannot be written: No such file"):
        write_outputs({"a": "b"}, {"GITHUB_OUTPUT": str(tmp_path / "gone" / "output")})


def test_the_summary_is_added_to_and_never_grows_over_what_github_takes(tmp_path):
    path = tmp_path / "summary"
    environ = {"GITHUB_STEP_SUMMARY": str(path)}
    append_summary("# One", environ)
    append_summary("# Two\n", environ)
    assert path.read_text() == "# One\n\n# Two\n"
    for _ in range(3):
        append_summary("é" * 99 + "\n" + "line\n" * 200_000, environ)
    assert 1_000_000 < path.stat().st_size <= 1_048_576
    assert path.read_text("utf-8").endswith("line\n\n_The summary is cut here: GitHub shows at most 1 MiB._\n")


def test_what_the_cut_leaves_open_is_closed():
    text = "<details><summary>Log</summary>\n\n````text\n```\n</details>\n" + "line\n" * 100 + "````\n</details>\n"
    assert cut_summary(text, len(text)) == text
    cut = cut_summary(text, 200)
    assert len(cut.encode()) <= 200
    assert cut.endswith("line\n````\n\n</details>\n\n_The summary is cut here: GitHub shows at most 1 MiB._\n")


@given(
    st.lists(st.sampled_from(["é", "x" * 40, "```", "````", "<details>", "</details>", ""]), max_size=30),
    st.integers(0, 300),
)
def test_a_cut_summary_fits_whatever_it_is_made_of(lines, room):
    text = "\n".join(lines)
    cut = cut_summary(text, room)
    assert len(cut.encode()) <= room
    assert cut in {"", f"{text}\n", text} or "is cut here" in cut
