"""Which commits of a push are looked at: by their own settings, their branch, and the trailer of their message."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runctl_action.hook.pushed import Pushed
from runctl_action.hook.selection import Selected, select

COMMIT, OTHER = "a" * 40, "b" * 40
SCRIPT = 'script = "train.py"\n'


@pytest.fixture
def chosen() -> Callable[..., Selected | None]:
    """`chosen(runctl.toml, …)`: what is selected of one commit that is pushed."""

    def choose(
        toml: str | None = None, *, pyproject: str | None = None, ref="refs/heads/main", trailer="", message="x"
    ):
        files = {":runctl.toml": toml, ":pyproject.toml": pyproject}

        def git(arguments, stdin):
            if arguments[0] == "show":
                return f"{trailer}\n".encode()
            text = f"tree {'c' * 40}\n\n{message}\n\n{trailer}\n".encode()
            out = b"%s commit %d\n%s\n" % (COMMIT.encode(), len(text), text)
            for name, content in files.items():
                data = (content or "").encode()
                missing = f"{COMMIT}{name} missing\n".encode()
                out += missing if content is None else b"%s blob %d\n%s\n" % (OTHER.encode(), len(data), data)
            return out

        found = select([Pushed(COMMIT, ref, None)], git)
        return found[0] if found else None

    return choose


def test_without_settings_nothing_is_selected(chosen):
    assert chosen() is None
    assert chosen(pyproject='[project]\nname = "x"') is None
    assert chosen(trailer="Train: yes") is None


def test_settings_with_a_script_are_checked_on_every_branch_and_tag(chosen):
    for ref in ("refs/heads/main", "refs/heads/a/b", "refs/tags/v1"):
        found = chosen(SCRIPT, ref=ref)
        assert found is not None
        assert not found.is_trained
    assert chosen(pyproject='[tool.runctl]\nscript = "train.py"') is not None
    assert chosen(pyproject='tool.runctl.script = "train.py"') is not None
    assert chosen(pyproject='["tool" . "runctl"]\nscript = "train.py"') is not None
    assert chosen(pyproject='[tool]\nrunctl = {script = "train.py"}') is not None
    assert chosen(pyproject='[tool]\nrunctl.script = "train.py"') is not None
    assert chosen(pyproject='tool = {runctl = {script = "train.py"}}') is not None
    # Which is no table: the check says so.
    assert chosen(pyproject='[[tool.runctl]]\nscript = "train.py"') is not None


def test_settings_without_a_script_and_without_the_hooks_table_are_nobodys_business(chosen):
    assert chosen('bucket = "b"') is None
    assert chosen("") is None
    assert chosen("[hook]\nstrict = true") is not None


def test_a_push_to_a_branch_that_no_glob_has_is_left_alone(chosen):
    toml = SCRIPT + '[hook]\nbranches = ["main", "exp/*"]'
    assert chosen(toml) is not None
    assert chosen(toml, ref="refs/heads/exp/a/b") is not None
    assert chosen(toml, ref="refs/heads/other") is None
    assert chosen(toml, ref="refs/tags/main") is None
    assert chosen(SCRIPT + '[hook]\nbranches = "x, main"') is not None
    assert chosen(SCRIPT + "[hook]\nbranches = []") is None


@pytest.mark.parametrize(
    "toml", ["script = ", SCRIPT + "hook = 3", SCRIPT + "[hook]\nbranches = 3", SCRIPT + '[hook]\nmode = "trian"']
)
def test_settings_that_cannot_be_understood_are_left_to_the_check(chosen, toml):
    found = chosen(toml)
    assert found is not None
    assert not found.is_trained


def test_a_pyproject_that_cannot_be_read_is_ours_only_with_a_table_of_ours(chosen):
    assert chosen(pyproject="[project") is None
    assert chosen(pyproject='[project\ndependencies = ["runctl-action>=1"]') is None
    assert chosen(pyproject='[project\ndev = [\n  "runctl-action",\n]\n# runctl = 1') is None
    assert chosen(pyproject='[project\n"tool" . "runctl".script = "x"') is not None
    assert chosen(pyproject="[project\n[tool.runctl]\nscript = 'x'") is not None


def test_train_mode_trains_branches_and_never_tags(chosen):
    toml = SCRIPT + '[hook]\nmode = "train"\nbranches = ["*"]'
    assert chosen(toml).is_trained
    assert not chosen(toml, ref="refs/tags/v1").is_trained
    assert chosen(SCRIPT + '[hook]\nmode = "train"\nbranches = ["exp/*"]') is None
    assert chosen(SCRIPT + '[hook]\nmode = "off"') is None


@pytest.mark.parametrize(
    ("trailer", "is_trained", "args"),
    [
        ("Train: yes", True, None),
        ("train:", True, None),
        ("Train: --epochs 5 --name 'a b'", True, "--epochs 5 --name 'a b'"),
        ("Train: no", False, None),
        ("", False, None),
    ],
)
def test_a_trailer_asks_for_a_run_whatever_the_branch(chosen, trailer, is_trained, args):
    found = chosen(SCRIPT, trailer=trailer)
    assert (found.is_trained, found.args) == (is_trained, args)
    other = chosen(SCRIPT + '[hook]\nbranches = ["main"]', ref="refs/heads/other", trailer=trailer)
    assert (other is not None) == is_trained


@pytest.mark.parametrize(
    "value", ["--bucket evil", "-- --x", "$(reboot) `reboot` ; reboot", "../../x", "'no end", "\x1b]0;x\x07"]
)
def test_whatever_a_trailer_says_is_arguments_of_the_script(chosen, value):
    assert chosen(SCRIPT, trailer=f"Train: {value}").args == value


@pytest.mark.parametrize(
    "text", ["runctl " * 300_000, "\n" * 300_000 + "[", " " * 300_000, "[tool." * 100_000, "tool = " * 100_000]
)
def test_a_file_that_is_made_to_take_long_does_not(chosen, text):
    assert chosen(pyproject=text) is None


def test_a_trailer_keeps_a_commit_from_being_trained(chosen):
    assert not chosen(SCRIPT + '[hook]\nmode = "train"', trailer="Train: no").is_trained
    assert chosen(SCRIPT + '[hook]\nmode = "off"', trailer="Train: yes") is None


def test_a_commit_that_is_pushed_to_two_branches_is_looked_at_once():
    def git(arguments, stdin):
        commit = b"%s commit 3\n\n\nx\n" % COMMIT.encode()
        blob = b"%s blob %d\n%s\n" % (OTHER.encode(), len(SCRIPT), SCRIPT.encode())
        return (commit + blob + b"x missing\n") * 2

    (found,) = select([Pushed(COMMIT, "refs/heads/a", None), Pushed(COMMIT, "refs/heads/b", OTHER)], git)
    assert [ref.name for ref in found.refs] == ["a", "b"]


def test_a_ref_that_leads_to_no_commit_is_left_alone():
    assert select([Pushed(COMMIT, "refs/tags/tree", None)], lambda *_: b"x missing\n" * 3) == ()
    assert select([], lambda *_: pytest.fail("git is not needed")) == ()
