"""What is trained is what was pushed, with the arguments that were given, and all of its output comes back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import zstandard


def test_the_report_says_what_was_trained(train: Any, project: Path) -> None:
    said = train("from pathlib import Path; Path('checkpoints/a.bin').write_bytes(b'abc')", RUNCTL_SPOT="never")
    tree = subprocess.run(["git", "rev-parse", "HEAD^{tree}"], cwd=project, check=True, capture_output=True, text=True)
    report = said.report
    assert report["tree"] == tree.stdout.strip()
    assert report["manifest"]["files"] == 1
    assert len(report["manifest"]["digest"]) == 64
    assert report["instances"][0]["market"] == "on-demand"
    assert report["attempts"] == 1
    assert {"preparing", "launching", "booting", "syncing", "installing", "training"} <= set(report["phases"])
    (checkpoint,) = report["checkpoints"]
    assert (checkpoint["path"], checkpoint["bytes"]) == ("checkpoints/a.bin", 3)
    assert checkpoint["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert checkpoint["uri"].startswith("s3://runctl-emulated/runctl/hosts/")


ODD = ["", "a b", '"q"', "'", "$HOME", "$(id)", "[1,2]", "null", "--spot", "--", "*", "a\nb", "🦆", "{{x}}", "--json"]


def test_arguments_arrive_unchanged(train: Any) -> None:
    said = train("import json, sys; print('ARGS', json.dumps(sys.argv[1:]))", *ODD)
    line = next(line for line in said.err.splitlines() if line.startswith("ARGS "))
    assert json.loads(line.removeprefix("ARGS ")) == ODD
    assert said.report["args"] == ODD


def test_two_hundred_thousand_lines_are_complete_and_in_order(train: Any, s3: Any, bucket: str) -> None:
    said = train("for n in range(200_000): print(n, 'x' * 40)")
    shown = [line.split()[0] for line in said.err.splitlines() if line.endswith("x" * 40)]
    assert shown == [str(n) for n in range(200_000)]
    uri = f"runctl/hosts/{_userid(said.report, s3, bucket)}/{said.report['run_id']}/1/log/"
    keys = sorted(item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=uri)["Contents"])
    stored = b"".join(
        zstandard.ZstdDecompressor().decompressobj().decompress(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        for key in keys
    )
    assert stored.count(b"x" * 40 + b"\n") == 200_000


LEAVES = """
import os, subprocess, time
subprocess.Popen(["sh", "-c", "setsid sleep 300 & echo $! > %s; sleep 300"], start_new_session=True)
while not (os.path.exists("%s") and open("%s").read()):
    time.sleep(0.01)
print("leaving")
"""


def test_children_that_left_their_session_are_gone_afterwards(train: Any, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    said = train(LEAVES % (file, file, file))
    assert said.ending == (0, "succeeded", None)
    assert not Path(f"/proc/{int(file.read_text())}").exists()


def test_a_script_in_a_subdirectory_imports_a_sibling_package(commit: Any, runctl: Any, project: Path) -> None:
    commit({"models/__init__.py": "NAME = 'sibling'", "training/train me.py": "import models; print(models.NAME)"})
    said = runctl("train", "--json", "train me.py", cwd=project / "training")
    assert said.ending == (0, "succeeded", None)
    assert said.report["script"] == "training/train me.py"
    assert "sibling\n" in said.err


def test_the_output_of_a_phase_comes_before_the_next_phase_is_announced(train: Any, commit: Any) -> None:
    said = train("print('from the training')", RUNCTL_INSTALL="echo from the installation")
    order = [
        "] launching",
        "] booting",
        "verified: ",
        "] installing",
        "from the installation\n",
        "] training",
        "from the training",
    ]
    places = [said.err.index(text) for text in order]
    assert places == sorted(places)
    assert said.err.count("] training") == 1


def test_the_commit_is_trained_and_a_dirty_tree_is_told(train: Any, commit: Any, runctl: Any, project: Path) -> None:
    commit({"train.py": "print('committed')"})
    (project / "train.py").write_text("print('dirty')")
    said = runctl("train", "--json", "train.py")
    assert "committed\n" in said.err
    assert "dirty\n" not in said.err
    assert any("train.py" in warning and "not trained" in warning for warning in said.report["warnings"])
    said = runctl("train", "--json", "--source", "worktree", "train.py")
    assert "dirty\n" in said.err


def test_a_script_that_is_not_tracked_costs_nothing(commit: Any, runctl: Any, project: Path, ec2: Any) -> None:
    commit({"training/train.py": ""})
    (project / "training" / "new.py").write_text("")
    before = len(ec2.describe_instances()["Reservations"])
    said = runctl("train", "training/new.py")
    assert said.code == 3
    assert str(project) in said.err
    assert "git rev-parse --show-toplevel" in said.err
    assert "git add training/new.py" in said.err
    assert len(ec2.describe_instances()["Reservations"]) == before


def test_the_report_is_written_as_markdown(train: Any, tmp_path: Path) -> None:
    said = train("print('x')", flags=("--report", str(tmp_path / "report.md")))
    assert said.report["run_id"] in (tmp_path / "report.md").read_text()


def test_a_run_that_is_over_is_reported_again_or_opened_again(runctl: Any, commit: Any, ec2: Any) -> None:
    commit({"train.py": "print('trained')"})
    first = runctl("train", "--json", "train.py")
    before = len(ec2.describe_instances()["Reservations"])
    second = runctl("train", "--json", "train.py")
    assert len(ec2.describe_instances()["Reservations"]) == before
    assert second.report == first.report
    assert "is over already" in second.err
    third = runctl("train", "--json", "--again", "train.py")
    assert (third.report["run_id"], third.report["attempts"]) == (first.report["run_id"], 2)


def _userid(report: dict[str, Any], s3: Any, bucket: str) -> str:
    found = s3.get_object(Bucket=bucket, Key=f"runctl/runs/{report['run_id']}/attempts/1/instance.json")
    return str(json.loads(found["Body"].read())["userid"])
