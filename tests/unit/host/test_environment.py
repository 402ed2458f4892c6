"""What is installed before a training, and which Python it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from runctl_action.contract.documents import TrainingSettings
from runctl_action.host.environment import plan


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "train.py").write_text("print()\n")
    return source


def planned(source: Path, **settings: str) -> tuple[str, str, str]:
    """(what, the commands as one text, python)"""
    made = plan(TrainingSettings(**settings), source, "deep/er/train.py", Path("/env"))  # type: ignore[arg-type]
    return made.what, " && ".join(" ".join(command) for command in made.commands), made.python


def test_nothing_is_installed_into_an_image_that_has_everything(source: Path) -> None:
    (source / "requirements.txt").write_text("torch\n")
    assert planned(source, install="skip") == ("nothing (install: skip)", "", "python3")
    assert planned(source, install="skip", python="/opt/pytorch/bin/python")[2] == "/opt/pytorch/bin/python"


def test_a_python_by_its_path_makes_the_environment(source: Path) -> None:
    _, commands, python = planned(source, python="/opt/python/bin/python3")
    assert "--python /opt/python/bin/python3 /env" in commands
    assert python == "/env/bin/python"


def test_what_is_nearest_to_the_script_is_installed(source: Path) -> None:
    assert planned(source)[0] == "nothing: no dependencies are declared"
    (source / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n")
    assert planned(source)[0] == "pyproject.toml"
    (source / "deep" / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    assert planned(source)[0] == "pyproject.toml"
    (source / "requirements.txt").write_text("numpy\n")
    assert planned(source)[0] == "requirements.txt"
    (source / "deep" / "requirements.txt").write_text("numpy\n")
    assert planned(source)[0] == "deep/requirements.txt"
    (source / "deep" / "uv.lock").write_text("version = 1\n")
    what, commands, _ = planned(source)
    assert what == "deep/uv.lock"
    assert commands.startswith("uv sync --frozen --no-dev")


def test_a_script_that_declares_what_it_needs_goes_before_any_file(source: Path) -> None:
    (source / "deep" / "er" / "requirements.txt").write_text("numpy\n")
    (source / "deep" / "er" / "train.py").write_text("# /// script\n# dependencies = ['polars>=1']\n# ///\nprint()\n")
    what, commands, _ = planned(source)
    assert what == "1 dependency declared in deep/er/train.py"
    assert commands.endswith("uv pip install --no-config --python /env/bin/python -- polars>=1")


def test_a_command_of_the_users_runs_in_an_environment_that_is_there(source: Path) -> None:
    what, commands, python = planned(source, install="pip install -e '.[gpu]'")
    assert what == "by your command: pip install -e '.[gpu]'"
    assert commands == "uv venv --no-config --quiet --python >=3.11 /env && sh -c pip install -e '.[gpu]'"
    assert python == "/env/bin/python"
