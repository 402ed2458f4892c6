"""Modules that a script imports and that are not in the commit."""

from __future__ import annotations

import os
import warnings

import pytest

from runctl_action.hook.imports import untracked_modules


def untracked(files: dict[str, str], disk: set[str], script: str = "train.py") -> tuple[str, ...]:
    return untracked_modules(
        script,
        {os.fsencode(name) for name in files},
        lambda paths: [files[path].encode() for path in paths],
        lambda path: path in disk,
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("import model", "model.py"),
        ("import model", "model/__init__.py"),
        ("import pack.model", "pack/model.py"),
        ("from pack import model", "pack/model.py"),
        ("from pack.model import Net", "pack/model.py"),
        ("def f():\n    import model as m", "model.py"),
        ("try:\n    import model\nexcept ImportError:\n    model = None", "model.py"),
    ],
)
def test_a_module_that_is_on_disk_alone_is_named(text, path):
    assert untracked({"train.py": text}, {path}) == (path,)
    assert untracked({"train.py": text, path: ""}, {path}) == ()
    assert untracked({"train.py": text}, set()) == ()


def test_it_is_looked_for_beside_the_script_and_from_the_root():
    assert untracked({"a/train.py": "import b, c"}, {"a/b.py", "c.py"}, "a/train.py") == ("a/b.py", "c.py")


def test_what_tracked_modules_import_counts_as_well():
    files = {
        "train.py": "import a.b",
        "a/__init__.py": "from . import c",
        "a/b.py": "from ..d import e\nfrom .f import g",
    }
    assert untracked(files, {"a/c.py", "a/f.py", "d/e.py"}) == ("a/c.py", "d/e.py", "a/f.py")


def test_a_circle_of_imports_ends():
    assert untracked({"train.py": "import a", "a.py": "import train, a"}, set()) == ()


@pytest.mark.parametrize("text", ["def", "x = '\0'", "(" * 5000, "", "\xff"])
def test_what_is_no_python_is_left_to_the_training(text):
    assert untracked({"train.py": text}, {"model.py"}) == ()
    assert untracked({"train.sh": "import model"}, {"model.py"}, "train.sh") == ()


@pytest.mark.parametrize(
    "text",
    [
        "import " + "a." * 100_000 + "b",
        "import " + "a.\\\n  " * 100_000 + "b",
        "-" * 1_000_000 + "1",
        "x" + "[0]" * 100_000,
        "import m\n" * 500_000,
    ],
    ids=["dots", "continued", "signs", "indices", "large"],
)
def test_what_is_made_to_take_long_is_not_looked_into(text):
    assert untracked({"train.py": text}, {"a.py", "m.py"}) == ()


def test_no_more_is_read_than_a_project_has():
    files = {f"m{number}.py": f"import m{number + 1}" for number in range(2000)}
    read: list[str] = []

    def contents(paths):
        read.extend(paths)
        return [files[path].encode() for path in paths]

    tracked = {os.fsencode(name) for name in files}
    assert untracked_modules("m0.py", tracked, contents, lambda path: False) == ()
    assert len(read) <= 501


def test_no_warning_about_somebodys_code_is_shown():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert untracked({"train.py": "x = '\\d'\nimport model"}, {"model.py"}) == ("model.py",)
