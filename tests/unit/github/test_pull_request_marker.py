"""The hidden line: nothing in a name gets out of it, and only what it was written for reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runctl_action.github import marker

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
# Surrogates, too: a name may come from a path.
names = st.text(st.characters(exclude_categories=()))
moments = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
stamps = st.builds(
    marker.stamp, requested_at=moments, run_id=names, attempt=st.integers(0, 10**9 - 1), is_final=st.booleans()
)


@given(st.tuples(names, names, names, names), stamps, names)
@example(
    ("--> @everyone", "<!--", "-->", "@acme/team"),
    marker.stamp(requested_at=AT, run_id="-->@x", attempt=0, is_final=False),
    "@",
)
def test_what_is_written_is_read_and_is_one_hidden_line(
    parts: tuple[str, str, str, str], stamp: marker.Stamp, body: str
) -> None:
    workflow, job, leg, name = parts
    key = marker.key(workflow=workflow, job=job, leg=leg, name=name)
    line = marker.write(key, stamp)
    assert line.startswith("<!-- ")
    assert line.endswith(" -->\n")
    assert line.count("--") == 2
    assert line.count("\n") == 1
    assert "@" not in line
    assert line.isascii()
    assert marker.read(line + body, key) == stamp
    assert marker.read(line.replace("\n", "\r\n") + body, key) == stamp


@given(st.tuples(names, names, names, names), st.tuples(names, names, names, names))
@example(("a", "bc", "", ""), ("ab", "c", "", ""))
@example(("a", "b", "c", ""), ("a", "b", "", "c"))
def test_two_names_have_two_keys(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> None:
    keys = [marker.key(workflow=w, job=j, leg=leg, name=name) for w, j, leg, name in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@given(names)
def test_what_is_no_marker_is_not_read(text: str) -> None:
    assert marker.read(text, "0" * 32) is None


@pytest.mark.parametrize("before", [" ", "\n", "> ", "x"])
def test_a_marker_that_is_not_the_beginning_is_not_read(before: str) -> None:
    line = marker.write("0" * 32, marker.stamp(requested_at=AT, run_id="r", attempt=1, is_final=True))
    assert marker.read(before + line, "0" * 32) is None
    assert marker.read(line, "1" * 32) is None


def test_stamps_are_ordered_by_request_then_attempt_then_end() -> None:
    def stamp(minutes: int, run: str, attempt: int, is_final: bool) -> marker.Stamp:
        requested_at = AT + timedelta(minutes=minutes)
        return marker.stamp(requested_at=requested_at, run_id=run, attempt=attempt, is_final=is_final)

    expected = [
        stamp(0, "a", 1, is_final=False),
        stamp(0, "a", 1, is_final=True),
        stamp(0, "a", 2, is_final=False),
        stamp(0, "a", 2, is_final=True),
        stamp(1, "b", 0, is_final=False),
    ]
    assert sorted(expected[i] for i in (3, 0, 4, 2, 1)) == expected
