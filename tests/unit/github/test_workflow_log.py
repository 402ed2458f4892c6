from __future__ import annotations

import io
import itertools
import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from runner_double import Runner

from runctl_action.github.annotations import Annotation
from runctl_action.github.workflow_log import WorkflowLog


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def opened(stream=None):
    stream, clock = stream or io.StringIO(), Clock()
    tokens = (f"token-{number}" for number in itertools.count(1))
    return WorkflowLog(stream, clock, lambda: next(tokens)), stream, clock


def test_phases_fold_and_the_training_does_not():
    log, stream, _ = opened()
    log.phase("installing", "torch")
    log.phase("installing", "torch")
    log.phase("installing", "numpy")
    log.phase("training")
    log.note("it learns")
    log.phase("collecting")
    log.finish()
    log.finish()
    assert stream.getvalue() == (
        "::group::installing · torch\ninstalling · numpy\n::endgroup::\ntraining\nit learns\n"
        "::group::collecting\n::endgroup::\n"
    )


def test_output_is_relayed_where_no_command_is_executed_each_time_under_a_new_token():
    log, stream, _ = opened()
    log.output("one\n::error::no\ntw")
    log.output("o\n")
    log.phase("collecting")
    log.output("three\n")
    log.finish()
    assert stream.getvalue() == (
        "::stop-commands::token-1\none\n::error::no\ntwo\n::token-1::\n"
        "::group::collecting\n::stop-commands::token-2\nthree\n::token-2::\n::endgroup::\n"
    )
    assert Runner(stream.getvalue()).names() == ["group", "endgroup"]


def test_real_tokens_are_long_and_never_the_same():
    tokens = set()
    for _ in range(20):
        stream = io.StringIO()
        log = WorkflowLog(stream)
        log.output("x\n")
        tokens.add(re.match(r"::stop-commands::([0-9a-f]{32})\n", stream.getvalue())[1])
    assert len(tokens) == 20


@pytest.mark.parametrize(
    "said",
    ["::error::x", "  ::set-env name=PATH::x", "a ##[add-path]x", "\n::warning::x", "\r##[error]x", "\u2028::error::x"],
)
def test_nothing_that_we_say_of_what_others_wrote_is_executed(said):
    log, stream, _ = opened()
    log.phase(f"launching {said}", said)
    log.phase(f"launching {said}", said + said)
    log.note(said)
    log.note(f"branch {said}")
    log.relay(f"  {said}\n{said}")
    log.phase("training", said)
    log.warn(said)
    log.annotate(Annotation("error", said, said, said, 3))
    log.mask(said)
    log.finish()
    assert set(Runner(stream.getvalue()).names()) == {"group", "endgroup", "warning", "error", "add-mask"}


def test_a_printed_report_is_shown_line_by_line():
    log, stream, _ = opened()
    log.relay("✓ done\n  commit  abc ##[error]\n::error::x")
    log.finish()
    runner = Runner(stream.getvalue())
    assert runner.executed == []
    assert runner.shown == ["✓ done", "  commit  abc ## [error]", "::error::x"]


def test_of_a_progress_bar_the_last_state_is_shown_and_while_it_goes_on_two_a_minute():
    log, stream, clock = opened()
    for second in range(125):
        log.output(f"\r{second}%|####")
        clock.now += 1
    log.output("\r100%\ndone\n")
    log.finish()
    assert Runner(stream.getvalue()).shown == ["30%|####", "60%|####", "90%|####", "120%|####", "100%", "done"]


def test_a_short_progress_bar_is_one_line_and_a_last_state_that_was_shown_is_not_repeated():
    log, stream, clock = opened()
    for percent in range(101):
        log.output(f"{percent}%\r")
    log.output("\nA\rB")
    clock.now += 31
    log.output("\rB")
    log.output("\nB\n")
    log.finish()
    assert Runner(stream.getvalue()).shown == ["100%", "B", "B"]


def test_windows_line_ends_are_line_ends_wherever_they_are_cut():
    log, stream, clock = opened()
    for piece in ("a\r", "\nb\r\n", "\r\n", "c\r\n"):
        log.output(piece)
        clock.now += 31
    log.finish()
    assert Runner(stream.getvalue()).shown == ["a", "b", "", "c"]


def test_colours_stay_and_end_with_their_line_and_other_control_sequences_go():
    log, stream, _ = opened()
    log.output("\x1b[1;31mred\x1b[0m \x1b[2K\x1b]0;title\x07plain\n\x1b[32mgreen\n\x1b[3Aup \x07\n#\x1b[K#[error]x\n")
    log.finish()
    assert Runner(stream.getvalue()).shown == [
        "\x1b[1;31mred\x1b[0m plain",
        "\x1b[32mgreen\x1b[0m",
        "up \\x07",
        "## [error]x",
    ]


def test_a_line_without_end_is_shown_in_pieces():
    log, stream, _ = opened()
    for _ in range(30):
        log.output("x" * 10_000)
    log.finish()
    assert "".join(Runner(stream.getvalue()).shown) == "x" * 300_000


def test_a_warning_does_not_split_a_line_of_the_log_and_a_phase_begins_after_it():
    log, stream, _ = opened()
    log.output("half of ")
    log.warn("spot was refused")
    log.output("a line, the rest")
    log.phase("collecting")
    log.finish()
    assert stream.getvalue() == (
        "::warning title=runctl-action::spot was refused\n"
        "::stop-commands::token-1\nhalf of a line, the rest\n::token-1::\n::group::collecting\n::endgroup::\n"
    )


def test_annotations_are_escaped_and_name_only_what_they_have():
    log, stream, _ = opened()
    log.annotate(Annotation("error", "100 %\nnext: line", "a, b: c", "src/train.py", 12))
    log.annotate(Annotation("notice", "plain"))
    assert stream.getvalue() == (
        "::error title=a%2C b%3A c,file=src/train.py,line=12::100 %25%0Anext: line\n::notice::plain\n"
    )
    assert Runner(stream.getvalue()).executed[0] == (
        "error",
        {"title": "a, b: c", "file": "src/train.py", "line": "12"},
        "100 %\nnext: line",
    )


def test_beyond_githubs_ten_of_a_kind_an_annotation_is_a_line():
    log, stream, _ = opened()
    for number in range(12):
        log.warn(f"number {number}")
    log.annotate(Annotation("error", "another kind"))
    runner = Runner(stream.getvalue())
    assert runner.names() == ["warning"] * 10 + ["error"]
    assert runner.shown == ["WARNING: number 10", "WARNING: number 11"]


@pytest.mark.parametrize("character", ["x", "é", "😀", "%"])
def test_a_message_is_no_longer_than_github_shows(character):
    log, stream, _ = opened()
    log.annotate(Annotation("error", character * 9000, character * 900))
    ((_, properties, message),) = Runner(stream.getvalue()).executed
    assert 4094 <= len(message.encode("utf-16-le")) / 2 <= 4096
    assert len(properties["title"].encode("utf-16-le")) / 2 <= 200
    assert message.endswith(character + "…")


def test_every_line_of_a_secret_is_masked_but_not_the_braces_of_a_json_key():
    log, stream, _ = opened()
    log.output("x\n")
    log.mask('{\r\n  "key": "a%b"\n}\n\n')
    log.mask("abc")
    log.mask("")
    log.mask(" \n ")
    assert Runner(stream.getvalue()).executed == [("add-mask", {}, '"key": "a%b"'), ("add-mask", {}, "abc")]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_no_character_is_too_much_for_any_stream(encoding):
    raw = io.BytesIO()
    log, _, _ = opened(io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline=""))
    log.phase("installing", "é · 漢 \udcff")
    log.output("├── 100 % ▏ \udcff 😀\n")
    log.warn("漢")
    log.note("✓")
    log.mask("pä😀ss")
    log.finish()
    assert Runner(raw.getvalue().decode(encoding)).names() == ["group", "warning", "add-mask", "endgroup"]


hostile = st.sampled_from(
    ["::", "::error::", "::token-1::", "::stop-commands::x", "::add-mask::", "##[error]", "##[", "]", "\r", "\n", "\r\n",
     " ", "\t", "\x1b[31m", "\x1b[0m", "\x1b[K", "\x1b]0;", "\x07", "\u200b", "\x85", "\u2028", "\x00", "a", "é", "\udc80"]
)  # fmt: skip
text = st.lists(hostile | st.text(st.characters(codec="utf-8"), max_size=4), max_size=30).map("".join)


def last_state(line):
    """The last state of a line that was rewritten."""
    states = [state for state in line.split("\r") if state]
    return states[-1] if states else ""


@given(st.lists(text, max_size=6), st.data())
def test_nothing_of_the_training_is_executed_wherever_it_is_cut(pieces, data):
    # The token is one that nobody could have guessed: here, that no generated text has.
    stream, clock = io.StringIO(), Clock()
    log = WorkflowLog(stream, clock, lambda: "7b1f-secret")
    log.phase("training")
    for piece in pieces:
        log.output(piece)
        clock.now += data.draw(st.sampled_from([0, 40]))
        between = {"warn": log.warn, "note": log.note, "phase": log.phase, "relay": log.relay, "": lambda _: None}
        between[data.draw(st.sampled_from(sorted(between)))](piece)
    log.finish()
    assert set(Runner(stream.getvalue()).names()) <= {"warning", "group", "endgroup"}
    for _, properties, _ in Runner(stream.getvalue()).executed:
        assert set(properties) <= {"title"}


plain_text = st.text(st.sampled_from("ab :#[]\r\n"), max_size=40)


@given(st.lists(plain_text, max_size=8))
@example(["a\r", "\nb"])
@example(["a\r\r", "\r"])
def test_every_line_is_shown_in_order_with_its_last_state(pieces):
    log, stream, _ = opened()
    for piece in pieces:
        log.output(piece)
    log.finish()
    whole = "".join(pieces)
    lines = whole.split("\n")
    expected = [last_state(line).replace("##[", "## [") for line in (lines[:-1] if lines[-1] == "" else lines)]
    assert Runner(stream.getvalue()).shown == expected


def test_importing_the_log_imports_no_client_of_anything():
    script = (
        "import sys, runctl_action.github.workflow_log, runctl_action.github.payload, runctl_action.github.outputs\n"
        "print(sorted({'boto3', 'botocore', 'github', 'requests', 'jinja2', 'rich', 'moto'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
