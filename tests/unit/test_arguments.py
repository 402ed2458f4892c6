from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action import arguments, settings
from runctl_action.arguments import Parsed, parse
from runctl_action.errors import UsageError

AWKWARD = [
    "",
    "a b",
    '"q"',
    "'",
    "$HOME",
    "[1,2]",
    "null",
    "--spot",
    "--spot=never",
    "--",
    "*",
    "a\nb",
    "😀",
    "\udcff",
    "-h",
    "-",
]
an_argument = st.one_of(
    st.sampled_from(AWKWARD),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
)


def refused(*argv: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(argv)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value


def help_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *argv: str, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_what_was_given_is_what_is_found():
    assert parse(["train", "--emulate", "--spot=never", "--json", "--report", "r.md", "--again", "a.py"]) == Parsed(
        command="train", flags={"spot": "never", "script": "a.py"}, emulate=True, json=True, report="r.md", again=True
    )


def test_what_was_not_given_is_no_flag():
    assert parse(["train"]) == Parsed(command="train")


@given(st.lists(an_argument))
def test_everything_behind_the_first_cut_is_the_scripts_unchanged(arguments):
    found = parse(["train", "--spot", "never", "a.py", "--", *arguments])
    assert found.flags == {"spot": "never", "script": "a.py", "args": arguments}


@given(st.lists(an_argument), st.lists(an_argument))
def test_argv_is_cut_at_the_first_of_them(ours, scripts):
    before = [argument for argument in ours if argument != "--"]
    assert arguments.split([*before, "--", *scripts]) == (before, scripts)
    assert arguments.split(before) == (before, None)


def test_a_cut_with_nothing_behind_it_means_no_arguments():
    assert parse(["train", "a.py", "--"]).flags["args"] == []
    assert "args" not in parse(["train", "a.py"]).flags


def test_only_training_takes_arguments_for_a_script():
    assert "`list` takes no arguments after --" in str(refused("list", "--", "x"))


def test_the_other_commands_take_what_they_need():
    assert parse(["report", "train-1", "--json"]) == Parsed(command="report", run="train-1", json=True)
    assert parse(["logs", "train-1", "-f"]) == Parsed(command="logs", run="train-1", follow=True)
    assert parse(["list", "--bucket=b"]) == Parsed(command="list", flags={"bucket": "b"})
    assert parse(["stop", "train-1"]) == Parsed(command="stop", run="train-1")
    assert parse(["collect", "--dry-run"]) == Parsed(command="collect", dry_run=True)
    assert parse(["emulator", "--port", "5000", "--fault", "a", "--fault", "b"]) == Parsed(
        command="emulator", port=5000, faults=("a", "b")
    )


def test_every_setting_but_the_token_can_be_given_on_the_command_line():
    can_be = {
        name
        for name in settings.names()
        if name not in {"script", "args", "github-token", "wait", "require-checkpoint"}
    }
    for name in can_be:
        assert parse(["train", f"--{name}=A=1"]).flags == {name: ["A=1"] if name in SEVERAL else "A=1"}
    assert parse(["train", "--no-wait", "--require-checkpoint"]).flags == {"wait": False, "require-checkpoint": True}


SEVERAL = {
    "env",
    "secrets",
    "instance-type",
    "subnets",
    "security-groups",
    "allowed-account-ids",
    "checkpoints",
    "metrics",
}


def test_a_list_is_given_with_commas_or_again():
    assert parse(["train", "--instance-type", "a, b", "--instance-type=c"]).flags == {"instance-type": ["a", "b", "c"]}
    assert parse(["train", "--subnets="]).flags == {"subnets": []}


def test_each_variable_is_a_flag_and_keeps_its_commas_and_lines():
    given = ["train", "--env", "A=1,2", "--env", "B=two\nlines"]
    assert parse(given).flags == {"env": ["A=1,2", "B=two\nlines"]}
    assert settings.load(flags=parse(given).flags, environ={}, root=None).env == {"A": "1,2", "B": "two\nlines"}


def test_no_command_shows_which_there_are():
    error = refused()
    for name, what in arguments.COMMANDS.items():
        assert re.search(rf"{name} +{re.escape(what)}", str(error))
    assert "train --emulate" in error.hint


def test_a_cut_is_no_command():
    assert "no command was given" in str(refused("--", "train"))


@pytest.mark.parametrize(("written", "meant"), [("trian", "train"), ("log", "logs"), ("colect", "collect")])
def test_a_mistyped_command_is_told_what_was_meant(written, meant):
    assert str(refused(written, "a.py")) == f"'{written}' is no command: did you mean {meant}?"


def test_a_command_that_is_like_none_is_told_which_there_are():
    error = refused("qqq")
    assert str(error) == "'qqq' is no command"
    assert "train, report, logs" in error.hint


def test_a_mistyped_flag_is_told_what_was_meant():
    assert (
        str(refused("train", "--spto=never", "a.py"))
        == "`runctl-action train` has no option --spto: did you mean --spot?"
    )


def test_all_mistyped_flags_are_told_at_once():
    assert str(refused("train", "a.py", "--spto", "never", "--regoin=x")).split("\n  ") == [
        "`runctl-action train` has no option --spto: did you mean --spot?",
        "`runctl-action train` has no option --regoin: did you mean --region?",
    ]


def test_a_flag_of_another_command_is_not_suggested_and_not_taken():
    assert str(refused("list", "--spot=never")) == "`runctl-action list` has no option --spot"


def test_a_flag_is_never_abbreviated():
    assert "no option --max-dur" in str(refused("train", "--max-dur", "2h", "a.py"))


def test_the_scripts_own_options_are_pointed_behind_the_cut():
    error = refused("train", "a.py", "--epochs", "5")
    assert "no option --epochs" in str(error)
    assert error.hint.startswith("a script's own arguments come after --: runctl-action train SCRIPT -- ARGS")


def test_a_second_script_has_no_place():
    assert str(refused("train", "a.py", "b.py")) == "`runctl-action train` has no place for 'b.py'"


@pytest.mark.parametrize(
    "argv", [("--github-token", "ghp_secret"), ("--github-token=ghp_secret",), ("a.py", "--github-tokn=ghp_secret")]
)
def test_a_token_on_the_command_line_is_not_taken_and_not_shown(argv):
    error = refused("train", *argv)
    assert "--github-tok" in str(error)
    assert "ghp_secret" not in str(error) + error.hint


def test_a_value_that_looks_like_a_flag_is_told_how_to_be_written():
    error = refused("train", "--resume-args", "--resume={checkpoint}", "a.py")
    assert str(error) == "--resume-args was given without a value"
    assert "--resume-args=-x" in error.hint
    assert parse(["train", "--resume-args=--resume={checkpoint}"]).flags == {"resume-args": "--resume={checkpoint}"}


def test_a_missing_run_is_named():
    error = refused("report")
    assert "RUN" in str(error)
    assert error.hint == "all options: runctl-action report --help"


def test_the_help_shows_every_setting_in_its_group_with_its_default(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, "train", "--help", columns=1000)
    for name, field in settings.Settings.model_fields.items():
        if name not in {"script", "args", "github_token"}:
            assert f"--{name.replace('_', '-')}" in text
            assert str(field.description) in text
    for group in ("This run:", "What to train:", "Where:", "Price and limits:", "Checkpoints and results:"):
        assert f"\n{group}\n" in text
    for shown in ("never|prefer|require", "[prefer]", "[6h]", "[off]", "[2GiB]", "[t3.medium]", "[>=3.11]", "[no]"):
        assert shown in text


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in arguments.COMMANDS)])
@pytest.mark.parametrize("columns", [80, 120])
def test_the_help_is_not_wider_than_the_terminal(capsys, monkeypatch, argv, columns):
    text = help_of(capsys, monkeypatch, *argv, columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "set:" not in text


def test_the_help_shows_how_to_begin(capsys, monkeypatch):
    assert "runctl-action train --emulate" in help_of(capsys, monkeypatch, "--help")
    assert "runctl-action train --emulate train.py -- --epochs 5" in help_of(capsys, monkeypatch, "train", "--help")


def test_the_examples_of_the_help_are_command_lines_of_ours(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, "train", "--help")
    examples = [line.split()[1:] for line in text.splitlines() if line.startswith("  runctl-action train")]
    assert len(examples) == 3
    for example in examples:
        settings.load(flags=parse(example).flags, environ={}, root=None)


def test_the_version_is_told(capsys, monkeypatch):
    assert re.match(r"runctl-action \d", help_of(capsys, monkeypatch, "--version"))
