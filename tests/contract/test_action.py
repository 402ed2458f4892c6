"""action.yml, the Dockerfile, the workflows and the examples say what the product does."""

from __future__ import annotations

import re
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from runctl_action import settings
from runctl_action.contract.reports import Report, Synced
from runctl_action.github.outputs import outputs_of

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import action_yml
import release_notes

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted([*(ROOT / ".github/workflows").glob("*.yml"), *(ROOT / "docs/examples").glob("*.yml")])
OURS = {"./", "OWNER/runctl-action@v0"}


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


ACTION = read(ROOT / "action.yml")


def test_every_setting_is_an_input_by_its_description_and_there_is_one_other() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert text.split(action_yml.BEGIN)[1].split(action_yml.END)[0] == action_yml.inputs(), "make docs"
    assert list(ACTION["inputs"]) == [*settings.names(), "matrix"]


def test_no_input_has_a_default_that_would_win_over_runctl_toml() -> None:
    defaults = {name: about["default"] for name, about in ACTION["inputs"].items() if "default" in about}
    assert defaults == {"github-token": "${{ github.token }}", "matrix": "${{ toJSON(matrix) }}"}


def test_the_outputs_are_those_that_are_written() -> None:
    report = Report(
        run_id="train-0123456789ab", repository="acme/digits", name="train", commit="a" * 40, tree="b" * 40,
        script="train.py", manifest=Synced(digest="d" * 64, files=1, bytes=1), requested_at=datetime.now(UTC),
    )  # fmt: skip
    # Where nothing was trained, `outcome` and `cause` alone are (action.py).
    assert list(ACTION["outputs"]) == list(outputs_of(report))


def test_the_container_has_what_action_yml_starts() -> None:
    runs, dockerfile = ACTION["runs"], (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert (runs["using"], runs["image"]) == ("docker", "Dockerfile")
    assert "pre-entrypoint" not in runs
    commands = {}
    for entrypoint in (runs["entrypoint"], runs["post-entrypoint"]):
        script = ROOT / "docker" / Path(entrypoint).name
        assert entrypoint == f"/opt/runctl/bin/{script.name}"
        assert f"docker/{script.name}" in dockerfile
        assert script.stat().st_mode & stat.S_IXUSR
        commands[script.name] = re.search(r"run\((.+)\)\)", script.read_text())
    assert [found and found[1] for found in commands.values()] == ['["action"]', '["action-post"]']


def test_the_image_is_made_as_the_runner_needs_it_of_pinned_parts() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"^(USER|WORKDIR)\b", dockerfile, re.MULTILINE)
    assert re.search(r"^ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}$", dockerfile, re.MULTILINE)
    locked = re.search(r'^name = "uv"\nversion = "(.+)"$', (ROOT / "uv.lock").read_text(), re.MULTILINE)
    assert locked
    assert f"ARG UV_VERSION={locked[1]}\n" in dockerfile


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_given_as_little_as_it_can_be(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {}
    assert "concurrency" in workflow
    for job in workflow["jobs"].values():
        assert job["permissions"]
        assert job["timeout-minutes"] <= 350


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_uses_pinned_actions_and_inputs_that_there_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    steps = [step for job in read(path)["jobs"].values() for step in job["steps"]]
    for step in steps:
        uses = step.get("uses")
        if uses in OURS:
            assert set(step["with"]) <= set(ACTION["inputs"]) - {"matrix"}
        elif uses:
            assert re.search(rf"uses: {re.escape(uses)} # v\d+\.\d+\.\d+$", text, re.MULTILINE), uses
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", uses)


def test_the_examples_inputs_are_settings_that_can_be_loaded() -> None:
    for path in WORKFLOWS:
        for step in (step for job in read(path)["jobs"].values() for step in job["steps"]):
            if step.get("uses") in OURS:
                given = {name: str(value) for name, value in step["with"].items() if "${{" not in str(value)}
                inputs = {f"INPUT_{name.upper()}": value for name, value in given.items()}
                settings.load(flags={}, environ=inputs, root=None)


@pytest.mark.parametrize("path", sorted((ROOT / "docs/examples").glob("*.yml")), ids=lambda path: path.name)
def test_a_training_that_an_example_follows_ends_before_its_job_does(path: Path) -> None:
    for job in read(path)["jobs"].values():
        for step in (step for step in job["steps"] if step.get("uses") in OURS):
            inputs = {f"INPUT_{name.upper()}": str(value) for name, value in step["with"].items()}
            loaded = settings.load(flags={}, environ=inputs, root=None)
            assert not loaded.wait or loaded.max_duration + 30 * 60 <= job["timeout-minutes"] * 60


def test_one_version_of_an_action_is_used_everywhere() -> None:
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, pin in re.findall(r"uses: ([\w./-]+)@(.+)$", path.read_text(), re.MULTILINE):
            found.setdefault(name, set()).add(pin)
    assert {name: pins for name, pins in found.items() if len(pins) > 1} == {}


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    changelog = (
        "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-25\n\n### Added\n\n- This.\n\n## [1.2.2]\n\n- That.\n"
    )
    assert release_notes.release_notes("v1.2.3", changelog, "1.2.3") == "### Added\n\n- This.\n"
    with pytest.raises(ValueError, match=r"pyproject\.toml says 1\.2\.2"):
        release_notes.release_notes("v1.2.3", changelog, "1.2.2")
    with pytest.raises(ValueError, match="nothing of 2"):
        release_notes.release_notes("v2", changelog, "2")
