from __future__ import annotations

import os
import shutil
import subprocess
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.report import wording


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3599.7, "1 h 0 min"),
        (7980, "2 h 13 min"),
        (float("nan"), "unknown"),
        (float("inf"), "unknown"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds, shown):
    assert wording.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (10**13, "10.0 TB")],
)
def test_a_size_is_in_decimal_units(count, shown):
    assert wording.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "0 s"), (59, "59 s"), (125, "2 min"), (7300, "2 h"), (200000, "2 d")]
)
def test_an_age_has_one_unit(seconds, shown):
    assert wording.age(timedelta(seconds=seconds)) == shown


def test_what_controls_or_turns_a_line_around_is_made_visible():
    assert wording.visible("a\x1b[31m\u202eb\x9b\udcff\n") == "a\\x1b[31m\\u202eb\\x9b\\xff\\n"


def test_a_log_line_keeps_tabs_and_loses_colours_titles_and_cursor_movements():
    assert wording.log_line("\x1b[1;31mred\x1b[0m\t\x1b]0;title\x07x\x1b[2J\x1b(B\x08\n") == "red\tx\\x08"


@pytest.mark.parametrize(
    ("line", "shown"), [("10%\r20%", "20%"), ("20%\r", "20%"), ("a\r\n", "a"), ("\r", ""), ("", "")]
)
def test_of_a_rewritten_log_line_the_last_state_is_shown(line, shown):
    assert wording.log_line(line) == shown


@given(st.text(st.characters(exclude_categories=[])))
def test_whatever_a_program_writes_a_log_line_controls_nothing_and_encodes(text):
    shown = wording.log_line(text)
    assert not {c for c in shown if ord(c) < 32 or 0x7F <= ord(c) < 0xA0} - {"\t"}
    shown.encode()


@pytest.mark.skipif(shutil.which("bash") is None, reason="$'…' is bash's, and POSIX.1-2024's")
def test_a_command_is_read_by_the_shell_as_exactly_its_words():
    words = ["a", "", "a b", "$(echo no)", "it's", "\n1\t", "\x1b7", "\udcff0", "ü", "`x`", "\\", "-n", "\u202e"]
    shown = wording.command(["printf", r"%s\0", *words])
    assert shown.isprintable()
    printed = subprocess.run(["bash", "-c", shown], capture_output=True, check=True).stdout
    assert printed == b"".join(os.fsencode(word) + b"\0" for word in words)


def test_a_script_that_looks_like_a_flag_is_given_as_a_path(make_report):
    shown = wording.train_command(make_report(script="-rf.py", args=()), "--again")
    assert shown == "runctl-action train --again --name train ./-rf.py"
