"""list, report, logs and stop: by the beginning of a run id, from any machine that has credentials, and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runctl_action import cli

WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("first line\\nsecond line", flush=True)
time.sleep(300)
"""


@pytest.fixture
def elsewhere(
    environ: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """`elsewhere(command, …)`: on a machine without the repository, its runctl.toml or its cache: credentials only."""
    home = tmp_path_factory.mktemp("elsewhere")
    own = {name: value for name, value in environ.items() if not name.startswith("RUNCTL_")}

    def run(*argv: str, **variables: str) -> Any:
        with monkeypatch.context() as there:
            there.setenv("HOME", str(home))
            there.chdir(home)
            code = cli.run(argv, own | {"HOME": str(home)} | variables)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def detached(commit: Any, start: Any, runctl: Any) -> Iterator[str]:
    """The id of a run that nobody follows; it is stopped afterwards."""
    commit({"train.py": WAITS})
    process = start("train", "--no-wait", "train.py")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    run_id = re.search(r"run (train-[0-9a-f]{12})", err)[1]  # type: ignore[index]
    yield run_id
    runctl("stop", "--force", run_id)


def test_a_detached_run_is_listed_read_and_stopped_from_another_machine(
    elsewhere: Any, detached: str, bucket: str
) -> None:
    at = f"--bucket={bucket}"
    code, out, _ = elsewhere("list", at)
    assert code == 0
    header, *lines = out.splitlines()
    assert re.split(r"  +", header) == ["RUN", "STATE", "AGE", "COST", "SCRIPT", "BRANCH"]
    mine = re.split(r"  +", next(line for line in lines if line.startswith(detached)))
    assert mine[1] == "training"
    assert re.fullmatch(r"\d+ (s|min)", mine[2])
    assert re.fullmatch(r"0\.\d+ USD so far", mine[3])
    assert mine[4:] == ["train.py", "main"]

    code, out, _ = elsewhere("list", at, "--json")
    listed = next(report for report in json.loads(out) if report["run_id"] == detached)
    assert (listed["outcome"], listed["phase"], listed["branch"]) == (None, "training", "main")
    assert float(listed["receipt"]["total_usd"]) > 0

    err = ""
    while "second line" not in err:  # the host uploads it within seconds
        code, out, err = elsewhere("report", at, "--json", detached[:-2])
        assert (code, json.loads(out)["run_id"], json.loads(out)["outcome"]) == (0, detached, None)

    code, out, _ = elsewhere("logs", at, detached[:-2])
    assert code == 0
    assert "first line\nsecond line\n" in out

    code, out, _ = elsewhere("logs", at, "--json", detached[:-2])
    log = json.loads(out)
    assert (log["run_id"], log["outcome"]) == (detached, None)
    assert log["lines"][-2:] == ["first line", "second line"]

    code, out, _ = elsewhere("stop", at, "--json", detached[:-2])
    assert (code, json.loads(out)["run_id"], json.loads(out)["outcome"]) == (0, detached, "cancelled")

    code, out, _ = elsewhere("logs", at, "--json", "-f", detached)
    assert (code, json.loads(out)["outcome"]) == (0, "cancelled")

    code, out, _ = elsewhere("collect", at, "--json", "--dry-run")
    assert code == 0
    assert detached not in [report["run_id"] for report in json.loads(out)]


def written(s3: Any, bucket: str, prefix: str, source: str, *run_ids: str) -> None:
    """Runs with these ids, copies of another's request."""
    for run_id in run_ids:
        spec = json.loads(source) | {"run_id": run_id}
        s3.put_object(Bucket=bucket, Key=f"{prefix}/runs/{run_id}/spec.json", Body=json.dumps(spec).encode())


def test_a_beginning_is_taken_for_a_run_when_it_is_the_only_one(
    elsewhere: Any, train: Any, s3: Any, bucket: str
) -> None:
    run_id = train("print(1)").report["run_id"]
    source = s3.get_object(Bucket=bucket, Key=f"runctl/runs/{run_id}/spec.json")["Body"].read()
    written(s3, bucket, "beginnings", source, "a-1", "a-1-longer", "a-2", "b-1", "it-is-other", "Not-Ours")
    at = (f"--bucket={bucket}", "--prefix=beginnings")

    code, out, _ = elsewhere("report", *at, "--json", "b")
    assert (code, json.loads(out)["run_id"]) == (0, "b-1")
    code, out, _ = elsewhere("report", *at, "--json", "a-1")
    assert (code, json.loads(out)["run_id"]) == (0, "a-1"), "a whole id is not a beginning"

    code, out, _ = elsewhere("list", *at, "--json")
    assert sorted(report["run_id"] for report in json.loads(out)) == ["a-1", "a-1-longer", "a-2", "b-1", "it-is-other"]

    for command in ("report", "logs", "stop"):
        code, out, err = elsewhere(command, *at, "--json", "a-")
        assert (code, out) == (2, "")
        assert "'a-' is the beginning of 3 runs: a-1, a-1-longer, a-2" in err
        assert "give more of the run id" in err
        code, out, err = elsewhere(command, *at, "--json", "other")
        assert (code, out) == (2, "")
        assert f"there is no run 'other' in s3://{bucket}/beginnings/runs/" in err
        assert "runctl-action list" in err


@pytest.mark.parametrize("command", [("list",), ("report", "x"), ("logs", "x"), ("stop", "x"), ("collect",)])
def test_outside_of_a_repository_it_is_said_that_the_bucket_has_to_be_named(
    elsewhere: Any, aws: Any, command: tuple[str, ...]
) -> None:
    code, out, err = elsewhere(*command)
    assert (code, out) == (2, "")
    assert "this is not a git repository, whose runctl.toml could name one" in err
    assert "--bucket NAME, or RUNCTL_BUCKET" in err


def test_what_is_over_is_listed_by_its_report_alone(elsewhere: Any, train: Any, aws: Any, bucket: str) -> None:
    run_id = train("print(1)").report["run_id"]
    asked: list[str] = []
    s3, take = aws._s3, aws._s3.handle
    try:
        s3.handle = lambda call: (asked.append(call.path), take(call))[1]
        code, out, _ = elsewhere("list", f"--bucket={bucket}", "--json")
    finally:
        del s3.handle
    listed = next(report for report in json.loads(out) if report["run_id"] == run_id)
    assert (code, listed["outcome"]) == (0, "succeeded")
    assert [path for path in asked if run_id in path] == [f"/{bucket}/runctl/runs/{run_id}/report.json"]


def test_a_run_whose_documents_are_damaged_does_not_hide_the_others(
    elsewhere: Any, train: Any, s3: Any, bucket: str
) -> None:
    run_id = train("print(1)").report["run_id"]
    source = s3.get_object(Bucket=bucket, Key=f"runctl/runs/{run_id}/spec.json")["Body"].read()
    written(s3, bucket, "damaged", source, "good", "bad", "unreported")
    s3.put_object(Bucket=bucket, Key="damaged/runs/bad/spec.json", Body=b"{}")
    s3.put_object(Bucket=bucket, Key="damaged/runs/unreported/report.json", Body=b"no JSON")
    code, out, err = elsewhere("list", f"--bucket={bucket}", "--prefix=damaged", "--json")
    assert (code, [report["run_id"] for report in json.loads(out)]) == (0, ["good"])
    for run_id, document in (("bad", "spec.json"), ("unreported", "report.json")):
        told = f"{run_id} cannot be shown: s3://{bucket}/damaged/runs/{run_id}/{document} is not what a launcher writes"
        assert told in " ".join(err.split())
    code, out, err = elsewhere("report", f"--bucket={bucket}", "--prefix=damaged", "bad")
    assert (code, out) == (4, "")
    assert "is not what a launcher writes" in err


def test_quote_as_json_is_one_document(commit: Any, runctl: Any) -> None:
    commit({"train.py": ""})
    said = runctl("quote", "--json", "train.py")
    assert said.code == 0
    assert json.loads(said.out)["offers"]
