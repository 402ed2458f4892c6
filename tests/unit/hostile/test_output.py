"""What a training prints is shown, and does nothing: no command of the runner, no output, nothing on a terminal."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime

import pytest
from hostile import NAMES, OUTPUT, each, searched
from hypothesis import given
from hypothesis import strategies as st
from runner_double import Runner, read_log

from runctl_action import action
from runctl_action.contract.reports import Report, ReportedCheckpoint, Synced
from runctl_action.errors import UsageError
from runctl_action.github.annotations import Annotation, of_report
from runctl_action.github.outputs import outputs_of
from runctl_action.github.workflow_log import WorkflowLog, save_state, write_outputs
from runctl_action.report import terminal

AT = datetime(2026, 3, 2, 10, 5, tzinfo=UTC)
ALL = {**OUTPUT, **{f"name: {label}": name for label, name in NAMES.items()}}
SHORT = {label: said for label, said in ALL.items() if len(said) < 500}
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# All that may be left of an escape sequence in the runner's log: a colour.
COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


def logged(pieces, *, between=()) -> str:
    """What is written when a training prints these pieces, and when we say `between` in all our ways."""
    stream = io.StringIO()
    # Nobody can have guessed it.
    log = WorkflowLog(stream, lambda: 0.0, lambda: "7b1f-of-chance")
    log.phase("training")
    for piece in pieces:
        log.output(piece)
        for said in between:
            log.note(said)
            log.relay(said)
            log.phase("training", said)
            log.annotate(Annotation("error", said, said, said, 1))
    log.phase("collecting")
    log.finish()
    return stream.getvalue()


def check_log(written: str, expected: set[str]) -> None:
    """That of all commands only ours are executed, by either model of the runner, and nothing plays with a terminal."""
    assert set(Runner(written).names()) <= expected
    assert read_log(written).masks == []
    assert not CONTROLS.search(COLOUR.sub("", written))


@pytest.mark.parametrize("said", each(OUTPUT))
def test_nothing_that_a_training_prints_is_executed_by_the_runner(said):
    for pieces in (
        [said],
        [said + "\n"],
        [f"{said}\n", said],
        [said[:1], said[1:3], said[3:], "\n"],
        ["::", said, "\n"],
    ):
        check_log(logged(pieces), {"group", "endgroup"})
    if len(said) < 500:
        check_log(logged(said), {"group", "endgroup"})


def test_nothing_that_we_say_of_it_is_either():
    for said in SHORT.values():
        written = logged(["a"], between=[said])
        check_log(written, {"group", "endgroup", "error"})
        for name, properties, _ in Runner(written).executed:
            assert set(properties) <= ({"title", "file", "line"} if name == "error" else set())
            assert properties.get("line", "1") == "1"


@searched
@given(st.lists(st.sampled_from(sorted(SHORT.values())), max_size=5), st.data())
def test_nor_is_anything_made_of_it_wherever_it_is_cut(said, data):
    whole = "".join(said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    check_log(logged(pieces, between=said[:1]), {"group", "endgroup", "error"})


def test_nothing_that_a_training_prints_plays_with_a_terminal():
    for said in OUTPUT.values():
        for pieces in ([said, "\n"], [said[:2], said[2:]]):
            stream = io.StringIO()
            progress = terminal.progress_for(stream, {})
            progress.phase("training", said)
            for piece in pieces:
                progress.output(piece)
                progress.warn(piece)
                progress.note(piece)
            progress.finish()
            assert not CONTROLS.search(stream.getvalue())
            stream.getvalue().encode()


def report(said: str) -> Report:
    """A failed run with this in each text that a host or a script can have written."""
    sayable = said.encode("utf-8", "replace").decode()
    return Report(
        run_id="train-0123456789ab",
        outcome="failed",
        cause="exit",
        exit_code=1,
        message=sayable,
        hint=sayable,
        repository=sayable,
        name=sayable,
        commit="a" * 40,
        tree="b" * 40,
        branch=sayable,
        script=sayable,
        args=(sayable,),
        manifest=Synced(digest="d" * 64, files=1, bytes=1),
        phases={"training": 1.0, sayable: 1.0},
        checkpoints=(ReportedCheckpoint(path=sayable, bytes=1, sha256="c" * 64, uri=f"s3://b/{sayable}"),),
        metrics=({"loss": 1, sayable: sayable}, {sayable: [sayable, {sayable: sayable}]}),
        warnings=(sayable,),
        log_tail=("Traceback (most recent call last):", f'  File "{said}", line 3, in f', said),
        requested_at=AT,
        ended_at=AT,
    )


def test_a_report_of_it_plays_with_no_terminal_and_annotates_no_file_but_a_tracked_one():
    for said in SHORT.values():
        stream = io.StringIO()
        terminal.print_report(report(said), stream)
        assert not CONTROLS.search(stream.getvalue())
        annotation = of_report(report(said), {"train.py"})
        assert annotation.path in {"", "train.py"}
        assert not CONTROLS.search(annotation.message)


def read_file_as_the_runner_does(text: str) -> dict[str, str]:
    """NAME<<DELIMITER, lines, DELIMITER; of one name, the last value (EnvFileKeyValuePairs in actions/runner)."""
    values, lines = {}, iter(text.split("\n"))
    for line in lines:
        if line:
            name, delimiter = line.split("<<", 1)
            value = []
            while (line := next(lines)) != delimiter:
                value.append(line)
            values[name] = "\n".join(value)
    return values


def test_no_output_and_no_state_can_be_forged_or_left_early(tmp_path):
    for said in SHORT.values():
        environ = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STATE": str(tmp_path / "state")}
        outputs = outputs_of(report(said))
        assert outputs["outcome"] == "failed"
        assert re.fullmatch(r"[ -~]*", outputs["metrics"] + outputs["checkpoints"])
        assert not set(outputs["metrics"] + outputs["checkpoints"]) & set("$`'&;|<>()!#*?~")
        json.loads(outputs["metrics"])
        raw = outputs | {"report-url": said, "cause": f"{said}\noutcome=succeeded\n"}
        for path in tmp_path.iterdir():
            path.unlink()
        write_outputs(raw, environ)
        save_state("run_id", said, environ)
        save_state("is_settled", "true", environ)
        for name, expected in (("output", raw), ("state", {"run_id": said, "is_settled": "true"})):
            written = (tmp_path / name).read_bytes().decode("utf-8")
            escaped = {key: value.encode("utf-8", "backslashreplace").decode() for key, value in expected.items()}
            assert read_file_as_the_runner_does(written) == escaped


def test_the_delimiters_of_two_values_are_never_the_same(tmp_path):
    path = tmp_path / "output"
    for _ in range(20):
        write_outputs({"a": "x"}, {"GITHUB_OUTPUT": str(path)})
    delimiters = re.findall(r"<<(ghadelimiter_[0-9a-f-]{36})$", path.read_text(), re.MULTILINE)
    assert len(set(delimiters)) == 20


def test_an_error_that_quotes_it_is_one_annotation_and_plain_text_in_the_summary(tmp_path):
    for said in SHORT.values():
        environ = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "GITHUB_OUTPUT": str(tmp_path / "output")}
        for path in tmp_path.iterdir():
            path.unlink()
        stream = io.StringIO()
        log = WorkflowLog(stream, lambda: 0.0, lambda: "7b1f-of-chance")
        action._tell_error(log, environ, UsageError(f"{said} is wrong", said))
        log.finish()
        assert Runner(stream.getvalue()).names() == ["error"]
        summary = (tmp_path / "summary").read_text("utf-8")
        assert not re.search(r"<(?!/?[0-9])|!\[|\]\(|@\w|`|\bhttps?:/|^\s*[#>|=-](?!## )", summary.partition("\n")[2])
        assert summary.startswith("### ❌ Nothing was trained\n")
        assert read_file_as_the_runner_does((tmp_path / "output").read_text("utf-8"))["outcome"] == "failed"
