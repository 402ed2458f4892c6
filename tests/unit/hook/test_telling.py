"""What a push shows."""

from __future__ import annotations

import os
import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runctl_action.errors import SettingsError
from runctl_action.hook import telling
from runctl_action.hook.check import Checked
from runctl_action.hook.price import Price
from runctl_action.hook.pushed import Pushed
from runctl_action.hook.selection import Selected
from runctl_action.report.visible import visible
from runctl_action.settings import FileSettings

EXAMPLES = int(os.environ.get("RUNCTL_TEST_EXAMPLES", "0")) or 200
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def selected(number: int = 0) -> Selected:
    refs = (Pushed("a" * 40, f"refs/heads/b{number}", None),)
    return Selected(f"{number:040}", refs, {}, is_trained=False, is_strict=False)


def checked(**changes) -> Checked:
    plain = Checked(
        settings=FileSettings(), script="train.py", args=("--name", "a b"), files=1, bytes=1200, new=(1, 20),
        is_compared=True, untracked=(), price=Price(Decimal("0.04160"), NOW - timedelta(hours=3)),
    )  # fmt: skip
    return plain._replace(**changes)


def test_of_one_commit_everything_is_shown():
    assert telling.accepted([(selected(), checked())], "origin", NOW) == [
        "b0 (000000000000): a run of it would be accepted",
        "  script  train.py --name 'a b'",
        "  source  1 file, 1.2 kB; 1 file, 20 B new to the branch at origin",
        "  host    t3.medium, spot preferred, 6h at most; 0.0416 USD/h on demand, 0.25 USD at most (list price, 3 h old)",
    ]


def test_without_a_price_or_a_branch_at_the_remote_neither_is_made_up():
    lines = telling.accepted([(selected(), checked(price=None, is_compared=False))], "origin", NOW)
    assert lines[2:] == ["  source  1 file, 1.2 kB; all new", "  host    t3.medium, spot preferred, 6h at most"]


@pytest.mark.parametrize("count", [1, 2, 8, 9, 100])
def test_when_all_is_well_it_is_ten_lines_at_most(count):
    lines = telling.accepted([(selected(n), checked()) for n in range(count)], "origin", NOW)
    assert len(lines) <= 8
    assert count <= 8 or lines[-1] == f"and {count - 7} more commits: accepted"


def test_names_are_shown_on_one_line():
    assert visible("a\n\x1b[31m\udcff") == "a\\n\\x1b[31m\\xff"
    (line,) = telling.warnings(checked(untracked=("a\n.py", *(f"m{n}.py" for n in range(6)))))
    assert line.startswith("warning: imported by the script, on this disk, and not in the commit: a\\n.py, m0.py")
    assert "and 2 more" in line


# Surrogates are bytes of a name that are no text.
_ANY = st.text(st.characters(), max_size=40)


@given(_ANY, st.lists(_ANY, max_size=3), _ANY)
@settings(max_examples=EXAMPLES)
@pytest.mark.timeout(180 + EXAMPLES / 10)
def test_whatever_a_ref_a_script_or_a_remote_is_called_nothing_steers_the_terminal(name, args, remote):
    refs = (Pushed("a" * 40, f"refs/heads/{name}", None),)
    one = Selected("a" * 40, refs, {}, is_trained=False, is_strict=False)
    told = checked(script=name, args=tuple(args), untracked=(name,))
    lines = [*telling.accepted([(one, told)], remote, NOW), *telling.warnings(told)]
    assert len(lines) == 5
    found = {unicodedata.category(character) for line in lines for character in line if character != "\u200d"}
    assert found.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})


def test_a_refusal_says_how_to_push_all_the_same():
    lines = telling.refused(selected(), SettingsError("wrong:\n  that", "do this"))
    assert lines[1:4] == ["wrong:", "  that", "→ do this"]
    assert "--no-verify" in lines[-1]
    assert "RUNCTL_SKIP=1" in lines[-1]


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (5 * 10**15, "5000.0 TB")]
)
def test_sizes_are_short(count, said):
    assert telling.size(count) == said
