"""What a host finds on its disk and puts there: checkpoints, metrics, what is to be installed."""

from __future__ import annotations

import hashlib
import io
import tarfile
from datetime import UTC, datetime

import pytest
from hostile import NAMES, each

from runctl_action.contract.documents import Checkpoint, Resume, TrainingSettings
from runctl_action.errors import SyncError
from runctl_action.host import environment
from runctl_action.host.metrics import read_metrics
from runctl_action.host.resume import restore_checkpoints

DATA = b"print('pushed')\n"
AT = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", each(NAMES))
def test_a_checkpoint_of_any_name_is_put_back_below_the_root_or_not_at_all(name, tmp_path):
    root = tmp_path / "run" / "source"
    root.mkdir(parents=True)
    (root / "train.py").write_bytes(DATA)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as opened:
        for inner in (name, f"../{name}", f"/{name}"):
            info = tarfile.TarInfo(inner)
            info.size = len(DATA)
            opened.addfile(info, io.BytesIO(DATA))
    for kind, data in (("file", DATA), ("directory", archive.getvalue())):
        one = Checkpoint(
            path=name,
            kind=kind,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            key="k",
            modified_at=AT,
            uploaded_at=AT,
        )
        try:
            restore_checkpoints(
                Resume(run_id="a", checkpoints=(one,)), lambda _, path, data=data: path.write_bytes(data), root, ("*",)
            )
        except SyncError as error:
            assert "cannot be put back" in str(error)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {path.name for path in tmp_path.glob("run/*")} == {"source"}
    assert (root / "train.py").read_bytes() == DATA


@pytest.mark.parametrize("glob", ["../*.jsonl", "linked/*.jsonl", "../../*.jsonl", "linked.jsonl"])
def test_metrics_are_not_read_from_elsewhere_on_the_host(glob, tmp_path):
    root = tmp_path / "run" / "source"
    root.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "run"):
        (folder / "elsewhere.jsonl").write_text('{"secret": 1}\n')
    (root / "linked").symlink_to(tmp_path)
    (root / "linked.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    assert read_metrics(root, (glob,)) == ((), [])


@pytest.mark.parametrize("name", each(NAMES, but=["empty"]))
def test_a_script_of_any_name_is_one_argument_and_no_option(name, tmp_path):
    if set(name.split("/")) & {"", ".", ".."}:
        return  # no manifest has it
    script = tmp_path / "source" / name
    try:
        script.parent.mkdir(parents=True)
        script.write_bytes(DATA)
        (script.parent / "requirements.txt").write_text("numpy\n")
    except OSError:
        return  # nor this disk
    plan = environment.plan(TrainingSettings(), tmp_path / "source", name, tmp_path / "env")
    *_, install = plan.commands
    assert install[:3] == ("uv", "pip", "install")
    assert install[-2:] == ("-r", str(script.parent / "requirements.txt"))


@pytest.mark.parametrize(
    "declared",
    ["[" * 20_000, "9" * 5_000, "3", "'numpy'", "{a = 1}", "[1, ['a']]", "[" * 200 + "]" * 200, "['--index-url=x']"],
    ids=range(8),
)
def test_dependencies_that_are_none_are_not_installed_and_none_is_an_option(declared, tmp_path):
    (tmp_path / "train.py").write_text(f"# /// script\n# dependencies = {declared}\n# ///\n")
    (tmp_path / "pyproject.toml").write_text(f"project = {declared}")
    plan = environment.plan(TrainingSettings(install="auto"), tmp_path, "train.py", tmp_path / "env")
    *_, last = plan.commands
    assert last[:2] == ("uv", "venv") or last[-2:] == ("--", "--index-url=x")
