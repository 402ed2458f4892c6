"""Whatever stands where a setting does: it is used as it is, or refused in words that show it and harm nobody."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hostile import TOML, VALUES, VARIABLES, each, searched
from hypothesis import given
from hypothesis import strategies as st

from runctl_action import cli, settings
from runctl_action.errors import SettingsError
from runctl_action.report.visible import visible

HINT = "runctl-action train --help lists them all"


def refused_or(**sources) -> settings.Settings | None:
    """The settings; None where they are refused as they should be. Anything else that is raised is a defect."""
    try:
        return settings.load(**{"flags": {}, "environ": {}, "root": None} | sources)
    except SettingsError as error:
        told = str(error)
        assert error.hint == HINT
        longest = max(map(len, sources.get("environ", {})), default=0)
        first, *problems = told.split("\n")
        assert first == "the settings cannot be used:"
        for problem in problems:
            assert problem.startswith("  ")
            assert len(problem) < 300 + longest
            assert visible(problem) == problem
            assert "Input should" not in problem
        return None


def of_file(data: bytes, name: str = "runctl.toml") -> settings.Settings | None:
    return refused_or(root=Path("/project"), read=lambda wanted: data if wanted == name else None)


@pytest.mark.parametrize("value", each(VALUES))
def test_any_value_of_any_setting_is_taken_or_refused_with_a_hint(value):
    is_long = isinstance(value, str) and len(value) > 1_000_000
    for name in ("script", "args", "env", "spot", "max-cost") if is_long else settings.names():
        refused_or(flags={name: value})
        if isinstance(value, str):
            refused_or(environ={f"INPUT_{name.upper()}": value})


@pytest.mark.parametrize("data", each(TOML, but=["of another tool"]))
def test_no_file_of_settings_does_more_than_be_refused(data):
    assert of_file(data) is None
    table = data if b"[" in data else b"[tool.runctl]\n" + data
    of_file(table, "pyproject.toml")


def test_settings_of_another_tool_are_no_settings_of_ours():
    assert of_file(TOML["of another tool"]) is None
    assert of_file(TOML["of another tool"], "pyproject.toml").script == "a"


@pytest.mark.parametrize("variable", each(VARIABLES))
def test_no_name_of_a_variable_does_more_than_be_refused(variable):
    if variable == "RUNCTL_":
        return
    assert refused_or(environ={variable: "x"}) is None


def test_a_file_that_nests_without_end_hides_no_other_problem():
    with pytest.raises(SettingsError) as caught:
        settings.load(
            flags={"spot": "x"},
            environ={},
            root=Path("/project"),
            read=lambda name: TOML["dots without end"] if name == "runctl.toml" else None,
        )
    assert "runctl.toml: args: it is nested too deeply" in str(caught.value)
    assert "--spot" in str(caught.value)


def test_no_message_plays_with_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    (tmp_path / "runctl.toml").write_bytes(TOML["key that plays with the terminal"])
    assert cli.run(["report", "x"], {**os.environ, "RUNCTL_\x1b[31m": "x"}) == 2
    said = capsys.readouterr().err
    assert "runctl.toml: \\x1b]0;owned\\x07\\u202e: there is no such setting" in said
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)


# All that a file can say, and a flag.
toml_like = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=30)
    | st.sampled_from([value for value in VALUES.values() if not isinstance(value, str) or len(value) < 1000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@searched
@given(st.dictionaries(st.sampled_from(settings.names()) | st.text(max_size=9), toml_like, max_size=4))
def test_any_flags_are_settings_or_refused(flags):
    found = refused_or(flags=flags)
    if found is not None:
        assert all("\0" not in word for word in (*found.args, *found.resume_args, *found.env, *found.env.values()))
        assert not found.prefix or not set(found.prefix.split("/")) & {"", ".", ".."}
        assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in found.env)


@searched
@given(st.binary(max_size=60) | st.text(st.sampled_from("[]{}=.\"'ab \n0x#,"), max_size=60).map(str.encode))
def test_any_bytes_are_a_file_of_settings_or_refused(data):
    of_file(data)
