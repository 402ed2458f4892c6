from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from runctl_action.contract.documents import Cause, Outcome
from runctl_action.report import meaning

OUTCOME_OF = {
    "spot-reclaimed": "interrupted",
    "host-stopped": "interrupted",
    "max-duration": "timed-out",
    "hung": "timed-out",
    "budget": "timed-out",
    "stopped": "cancelled",
    "vanished": "lost",
}
GUIDE = Path(__file__).parents[3] / "docs" / "failures.md"


@pytest.mark.parametrize(
    ("outcome", "cause", "expected"),
    [
        ("succeeded", None, 0),
        ("failed", "exit", 1),
        ("failed", "signal", 1),
        ("failed", "out-of-memory", 1),
        ("failed", "no-checkpoint", 1),
        ("failed", None, 1),
        ("failed", "usage", 2),
        ("failed", "source", 3),
        ("failed", "cloud", 4),
        ("failed", "sync", 5),
        ("failed", "install", 5),
        ("interrupted", "spot-reclaimed", 6),
        ("interrupted", "host-stopped", 6),
        ("timed-out", "max-duration", 6),
        ("timed-out", "hung", 6),
        ("timed-out", "budget", 6),
        ("lost", "vanished", 7),
        ("cancelled", "stopped", 130),
        ("failed", "defect", 70),
    ],
)
def test_the_exit_code_is_the_tables(outcome, cause, expected):
    assert meaning.exit_code(outcome, cause) == expected


@pytest.mark.parametrize("outcome", get_args(Outcome))
@pytest.mark.parametrize("cause", [None, *get_args(Cause)])
def test_only_a_success_exits_with_zero_whatever_the_cause_says(outcome, cause):
    assert (meaning.exit_code(outcome, cause) == 0) == (outcome == "succeeded")


@pytest.mark.parametrize("cause", get_args(Cause))
def test_every_cause_has_a_sentence_and_a_hint_of_its_own(make_report, cause):
    report = make_report(outcome=OUTCOME_OF.get(cause, "failed"), cause=cause, exit_code=None, signal=9)
    assert meaning.sentence(report).startswith("examples/digits/train.py ")
    assert meaning.sentence(report) != meaning.sentence(make_report())
    assert meaning.hint(report)


def test_a_success_says_how_long_and_where(make_report):
    assert meaning.sentence(make_report()) == "examples/digits/train.py succeeded in 41 s on t3.medium (spot)"


def test_a_run_that_goes_on_says_its_phase(make_report):
    report = make_report(outcome=None, exit_code=None, ended_at=None, phase="installing")
    assert meaning.sentence(report) == "examples/digits/train.py is running: installing on t3.medium (spot)"
    assert meaning.hint(report) == "follow it: runctl-action logs train-0123456789ab -f"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (3, "exited with code 3 after"),
        (1, "exited with code 1 after"),
        (127, "exited with code 127 (a command was not found) after"),
        (137, "exited with code 137 (usually SIGKILL, 137 = 128 + 9) after"),
        (143, "exited with code 143 (usually SIGTERM, 143 = 128 + 15) after"),
        (139, "exited with code 139 (usually SIGSEGV, 139 = 128 + 11) after"),
    ],
)
def test_a_well_known_exit_code_is_explained(make_report, code, said):
    assert said in meaning.sentence(make_report(outcome="failed", cause="exit", exit_code=code))


def test_a_signal_is_named(make_report):
    report = make_report(outcome="failed", cause="signal", exit_code=None, signal=9)
    assert "was killed by SIGKILL (signal 9) after 41 s" in meaning.sentence(report)


@pytest.mark.parametrize(("code", "word"), [(1, "exception"), (2, "arguments"), (126, "permission"), (139, "native")])
def test_an_exit_codes_meaning_says_what_it_usually_is(code, word):
    assert word in meaning.exit_code_meaning(code)


def test_an_exit_code_without_a_convention_means_nothing():
    assert meaning.exit_code_meaning(42) == ""


def test_a_signal_without_a_name_keeps_its_number():
    assert meaning.signal_name(33) == "signal 33"


def test_a_missing_module_is_named_in_the_hint(make_report):
    tail = ("Traceback (most recent call last):", "ModuleNotFoundError: No module named 'torch.nn'")
    report = make_report(outcome="failed", cause="exit", exit_code=1, log_tail=tail)
    assert "provides `torch`" in meaning.hint(report)


def test_resuming_is_promised_only_when_there_is_something_to_resume_from(make_report):
    ended = {"outcome": "interrupted", "cause": "spot-reclaimed", "exit_code": None}
    assert "last good checkpoint" in meaning.hint(make_report(**ended))
    assert "start it again" in meaning.hint(make_report(**ended, checkpoints=()))


def test_a_hint_can_be_copied_into_a_shell_and_written_as_json(make_report):
    report = make_report(
        outcome="cancelled", cause="stopped", script="a b/\udcff\x1b'.py", args=("$(reboot)", "\n"), name="x; y"
    )
    hint = meaning.hint(report)
    assert hint.encode().isascii()
    assert hint.isprintable()
    words = shlex.split(hint.partition(": ")[2].replace("$'", "'"))
    assert words[:5] == ["runctl-action", "train", "--again", "--name", "x; y"]
    assert "$(reboot)" in words


def test_the_failure_guide_has_a_section_for_every_cause_with_its_exit_code():
    sections = dict(
        re.findall(r"^### `([a-z-]+)` \(exit code (\d+)\)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    )
    expected = {c: str(meaning.exit_code(OUTCOME_OF.get(c, "failed"), c)) for c in get_args(Cause)}
    assert sections == expected


def test_each_section_of_the_failure_guide_says_what_it_means_what_survives_and_what_to_do():
    for section in GUIDE.read_text(encoding="utf-8").split("\n### ")[1:]:
        for part in ("**It means**", "**Survives**", "**Do**"):
            assert part in section, section.splitlines()[0]
