"""The action and its post step as processes, as the runner starts them, between the emulator and a double of GitHub.

tests/container runs the same in the image.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from github_double import GitHub, Pull
from runner_double import Checkout, Job, Step, comment, push

from runctl_action.emulator.server import Emulator
from runctl_action.emulator.state import ACCOUNT, LAUNCHER_ROLE

TRAINS = """
import json, pathlib, sys
print("token ghs_action, arguments", sys.argv[1:], flush=True)
print("::error::not ours", flush=True)
pathlib.Path("checkpoints/last.bin").write_bytes(b"last")
pathlib.Path("metrics.jsonl").write_text(json.dumps({"loss": 0.5}) + "\\n")
"""
FAILS = 'def train():\n    raise ValueError("no such loss")\n\n\ntrain()\n'
# Its end waits for the test: whatever is over before `{go}` is there did not wait for it.
WAITS = """
import pathlib, signal, sys, time
def save(*_):
    print("told to stop", flush=True)
    while not pathlib.Path({go!r}).exists():
        time.sleep(0.05)
    pathlib.Path("checkpoints/last.bin").write_bytes(b"last")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("it trains", flush=True)
time.sleep(300)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=[""])
def hub(request: pytest.FixtureRequest) -> Iterator[GitHub]:
    with GitHub(prefix=request.param, pulls=[Pull(7, "0" * 40)]) as github:
        yield github
    assert github.problems == []


@dataclass
class Action(Checkout):
    """A checkout, and the steps that run in it."""

    environ: Mapping[str, str]

    def start(self, step: str = "action", **inputs: str) -> subprocess.Popen[str]:
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        return subprocess.Popen(
            [sys.executable, "-m", "runctl_action", step],
            cwd=self.job.workspace, env={**self.environ, **self.job.environ(given)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, step: str = "action", **inputs: str) -> Step:
        return self.end(self.start(step, **inputs))

    def end(self, process: subprocess.Popen[str], read: str = "") -> Step:
        written, _ = process.communicate(timeout=150)
        return self.job.ended(process.returncode, read + written)

    def until_it_trains(self, **inputs: str) -> tuple[subprocess.Popen[str], str]:
        """A step whose training has begun, and what it has written so far."""
        process, read = self.start(**inputs), ""
        for line in process.stdout or ():
            read += line
            if line == "it trains\n":
                return process, read
        process.communicate()
        raise AssertionError(f"it never began: {read}")


@pytest.fixture
def action(tmp_path: Path, aws: Emulator, hub: GitHub, cache: Path) -> Action:
    aws.world.faults.clear()
    variables = {**aws.environ, "RUNCTL_INSTALL": "skip", "RUNCTL_SCRIPT": "train.py"}
    job = Job(tmp_path / "runner", tmp_path / "workspace", variables, hub.url)
    return Action(job, {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(cache)})


def finals(hub: GitHub) -> list[str]:
    """The last words that were written as comments, each time one was."""
    bodies = [str(asked.body.get("body", "")) for asked in hub.asked if asked.method in {"POST", "PATCH"}]
    return [body for body in bodies if body.split("\n", 1)[0].endswith(" final -->")]


def states(aws: Emulator, run_id: str) -> set[str]:
    client = aws.client("ec2")
    found = client.describe_instances(Filters=[{"Name": "tag:runctl:run", "Values": [run_id]}])
    client.close()
    return {i["State"]["Name"] for r in found["Reservations"] for i in r["Instances"]}


def exists(aws: Emulator, key: str) -> bool:
    client = aws.client("s3")
    found = client.list_objects_v2(Bucket=aws.environ["RUNCTL_BUCKET"], Prefix=key).get("Contents", [])
    client.close()
    return bool(found)


def test_a_pull_request_is_trained_and_one_comment_says_so(action: Action, hub: GitHub, aws: Emulator) -> None:
    head = action.of_pull_request(TRAINS)
    step = action.run(args="--lr 0.1")
    assert step.code == 0, step.written
    [final], [shown] = finals(hub), hub.comments
    assert final == shown.body
    # The head, and the merge that was trained.
    assert head in final
    assert action.git("rev-parse", "HEAD") in final
    assert action.git("rev-parse", "HEAD^{tree}")[:12] in final
    outputs = step.outputs
    assert (outputs["outcome"], outputs["exit-code"], outputs["checkpoint-count"]) == ("succeeded", "0", "1")
    assert json.loads(outputs["metrics"]) == [{"loss": 0.5}]
    assert outputs["report-url"] == "https://github.example/acme/digits/pull/7#issuecomment-1"
    assert states(aws, outputs["run-id"]) == {"terminated"}
    assert "succeeded" in step.summary
    [told] = step.log.annotations
    assert (told.level, told.properties["title"]) == ("notice", "runctl-action: succeeded")
    assert "arguments ['--lr', '0.1']" in step.log.text
    _holds_no_secret(action, step, hub)
    post = action.run("action-post")
    assert (post.code, post.summary, len(finals(hub))) == (0, "", 1)


def _holds_no_secret(action: Action, step: Step, hub: GitHub) -> None:
    read = step.log
    for secret in (action.job.token, action.job.variables["AWS_SECRET_ACCESS_KEY"]):
        assert secret in read.masks
        everything = [read.text, step.summary, *step.outputs.values(), *step.state.values()]
        assert not [text for text in [*everything, *(shown.body for shown in hub.comments)] if secret in text]


def test_a_training_that_raises_is_an_error_beside_its_line(action: Action, hub: GitHub) -> None:
    action.of_pull_request(FAILS)
    step = action.run(comment="on-failure")
    assert (step.code, step.outputs["outcome"], step.outputs["cause"]) == (1, "failed", "exit")
    [told] = step.log.of("error")
    assert (told.properties["file"], told.properties["line"]) == ("train.py", "2")
    assert "ValueError: no such loss" in told.message
    assert "ValueError: no such loss" in finals(hub)[0]
    assert "ValueError: no such loss" in step.summary


def test_the_step_passes_whatever_becomes_of_the_training_if_that_is_asked_for(action: Action, hub: GitHub) -> None:
    action.job.event("workflow_dispatch", action.commit(FAILS), {"sender": {"login": "ada"}})
    step = action.run(fail_on="never")
    assert (step.code, step.outputs["outcome"]) == (0, "failed")
    # Of a branch without a pull request, the report is in the summary.
    assert "ValueError" in step.summary
    assert step.outputs["report-url"].startswith("https://github.example/acme/digits/actions/runs/")
    assert (hub.comments, finals(hub)) == ([], [])


@pytest.mark.parametrize("hub", ["/api/v3"], indirect=True)
def test_a_push_is_told_in_the_pull_request_of_its_commit_on_an_enterprise_server_too(
    action: Action, hub: GitHub
) -> None:
    head = action.commit(FAILS)
    hub.pulls = [Pull(7, head)]
    action.job.event("push", head, push(head), ref="refs/heads/topic")
    step = action.run(comment="on-failure")
    assert step.code == 1
    assert hub.count("GET", f"/commits/{head}/pulls") >= 1
    assert head in finals(hub)[0]


@pytest.mark.parametrize(("on_fork", "code", "level"), [("skip", 0, "notice"), ("fail", 3, "error")])
def test_a_pull_request_of_a_fork_is_not_trained(
    action: Action, hub: GitHub, on_fork: str, code: int, level: str
) -> None:
    action.of_pull_request(TRAINS, head="mallory/digits")
    # GitHub gives it no secrets: the variables are there and empty.
    action.job.variables = {**dict.fromkeys(action.job.variables, ""), "RUNCTL_SCRIPT": "train.py"}
    step = action.run(on_fork=on_fork)
    assert (step.code, step.outputs) == (code, {"outcome": "skipped"})
    [told] = step.log.annotations
    assert told.level == level
    assert "mallory/digits" in told.message
    assert "fork" in step.summary
    assert hub.asked == []


@pytest.fixture
def origin(action: Action, tmp_path: Path) -> str:
    """A pull request's head that is at origin and not in the checkout, which is of `main`. The head."""
    action.of_pull_request(TRAINS)
    head = action.git("rev-parse", "topic")
    bare = str(tmp_path / "acme/digits.git")
    action.git("clone", "--quiet", "--bare", str(action.job.workspace), bare)
    action.git("--git-dir", bare, "update-ref", "refs/pull/7/head", head)
    workspace = tmp_path / "checkout"
    action.git("clone", "--quiet", "--depth=1", f"file://{bare}", str(workspace))
    action.job.workspace = workspace
    return head


def _commented(action: Action, body: str) -> Step:
    action.job.event("issue_comment", action.git("rev-parse", "HEAD"), comment(body))
    return action.run(comment="never")


def test_a_comment_trains_the_head_with_its_arguments_and_the_reply_names_the_commit(
    action: Action, hub: GitHub, origin: str
) -> None:
    hub.pulls, hub.permissions = [Pull(7, origin)], {"ada": "write"}
    step = _commented(action, "/train --name 'two words' `id`\nplease")
    assert step.code == 0, step.written
    assert "arguments ['--name', 'two words', '`id`']" in step.log.text
    assert f"train.py at {origin[:12]}" in step.log.text
    [reply] = hub.comments
    assert reply.body.startswith(f"Training {origin} with <code>--name 'two words'")
    assert f"actions/runs/{action.job.run_id}" in reply.body


def test_a_comment_of_somebody_who_may_not_write_trains_nothing_and_gets_no_reply(
    action: Action, hub: GitHub, origin: str
) -> None:
    hub.pulls, hub.permissions = [Pull(7, origin)], {"ada": "read"}
    step = _commented(action, "/train")
    assert (step.code, step.outputs) == (0, {"outcome": "skipped"})
    assert "has no permission" in step.summary
    assert hub.comments == []


def test_a_comment_on_a_forks_pull_request_trains_nothing_and_says_why(
    action: Action, hub: GitHub, origin: str
) -> None:
    hub.pulls, hub.permissions = [Pull(7, origin, head="mallory/digits")], {"ada": "write"}
    step = _commented(action, "/train")
    assert (step.code, step.outputs) == (0, {"outcome": "skipped"})
    [reply] = hub.comments
    assert "is of the fork" in reply.body


def test_a_token_that_may_not_comment_leaves_the_report_for_another_workflow(action: Action, hub: GitHub) -> None:
    hub.may_write = False
    action.of_pull_request(TRAINS)
    step = action.run(comment="always")
    assert (step.code, step.outputs["outcome"]) == (0, "succeeded")
    folder = action.job.workspace / "runctl-report"
    assert "succeeded" in (folder / "comment.md").read_text()
    assert json.loads((folder / "report.json").read_text())["run_id"] == step.outputs["run-id"]
    assert any("pull-requests: write" in told.message for told in step.log.of("warning"))


def test_a_cancelled_step_answers_before_the_training_ends_and_the_post_step_sees_to_its_end(
    action: Action, hub: GitHub, aws: Emulator, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    action.of_pull_request(WAITS.format(go=str(go)))
    process, read = action.until_it_trains(grace="2m")
    process.send_signal(signal.SIGINT)
    step = action.end(process, read)
    assert step.code == 130
    # It was asked to stop, and goes on: nobody has waited for it.
    run_id = step.state["run_id"]
    assert exists(aws, f"runctl/runs/{run_id}/stop.json")
    assert not exists(aws, f"runctl/runs/{run_id}/report.json")
    assert "running" in states(aws, run_id)
    assert any("cancelled" in told.message for told in step.log.of("warning"))
    go.touch()
    post = action.run("action-post")
    assert (post.code, post.outputs["outcome"], post.outputs["checkpoint-count"]) == (0, "cancelled", "1")
    assert states(aws, run_id) == {"terminated"}
    assert len(finals(hub)) == len(hub.comments) == 1
    assert "cancelled" in hub.comments[0].body


def test_the_post_step_of_a_killed_one_ends_the_instance_and_posts(
    action: Action, hub: GitHub, aws: Emulator, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    go.touch()
    action.of_pull_request(WAITS.format(go=str(go)))
    process, read = action.until_it_trains(comment="on-failure")
    process.kill()
    step = action.end(process, read)
    assert step.outputs == {}
    post = action.run("action-post", comment="on-failure")
    assert (post.code, post.outputs["outcome"]) == (0, "cancelled")
    assert states(aws, step.state["run_id"]) == {"terminated"}
    assert len(finals(hub)) == 1


def test_a_detached_run_is_posted_once_however_many_collect_it(action: Action, hub: GitHub, aws: Emulator) -> None:
    action.of_pull_request("import time\nprint('training', flush=True)\ntime.sleep(4)\n" + FAILS)
    step = action.run(wait="false", comment="on-failure")
    assert (step.code, step.outputs["outcome"]) == (0, "")
    run_id = step.outputs["run-id"]
    assert action.run("action-post").summary == ""
    environ = {**action.environ, **action.job.variables, "RUNCTL_GITHUB_TOKEN": "ghs_action", "HOME": "/nonexistent"}

    def collect() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "runctl_action", "collect"]
        return subprocess.Popen(
            command, cwd=action.job.workspace, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    _wait_for(lambda: any(key.endswith("/result.json") for key in _keys(aws, run_id)))
    collectors = [collect() for _ in range(3)]
    said = [process.communicate(timeout=60)[0] for process in collectors]
    assert [process.returncode for process in collectors] == [0, 0, 0], said
    _wait_for(lambda: collect().communicate(timeout=60)[0].count("no run is open") == 1)
    assert len(finals(hub)) == len(hub.comments) == 1
    assert run_id in hub.comments[0].body


def _keys(aws: Emulator, run_id: str) -> list[str]:
    client = aws.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=aws.environ["RUNCTL_BUCKET"], Prefix="runctl/hosts/"
    )
    found = [item["Key"] for page in pages for item in page.get("Contents", []) if f"/{run_id}/" in item["Key"]]
    client.close()
    return found


def _wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_wrong_setting_is_an_error_that_names_it(action: Action, hub: GitHub) -> None:
    action.of_pull_request(TRAINS)
    step = action.run(spot="sometimes")
    assert (step.code, step.outputs) == (2, {"outcome": "failed", "cause": "usage"})
    [told] = step.log.annotations
    assert told.level == "error"
    assert "INPUT_SPOT" in told.message
    assert "never" in told.message
    assert "'sometimes' is none of never, prefer, require" in step.summary
    assert "92;n" not in step.summary
    assert step.state == {}
    assert action.run("action-post").code == 0


def test_another_account_is_refused(action: Action) -> None:
    action.of_pull_request(TRAINS)
    step = action.run(allowed_account_ids="999999999999")
    assert (step.code, step.outputs["outcome"], step.outputs["cause"]) == (4, "failed", "cloud")
    assert ACCOUNT in step.log.of("error")[0].message
    assert step.state == {}


def test_a_role_is_taken_with_the_jobs_own_token(action: Action, aws: Emulator) -> None:
    action.job.event("workflow_dispatch", action.commit(TRAINS), {"sender": {"login": "ada"}})
    kept = {k: v for k, v in action.job.variables.items() if k not in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}}
    with _Tokens() as tokens:
        action.job.variables = {
            **kept, "ACTIONS_ID_TOKEN_REQUEST_URL": tokens.url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runtime-token",
        }  # fmt: skip
        step = action.run(role_to_assume=f"arn:aws:iam::{ACCOUNT}:role/{LAUNCHER_ROLE}")
    assert (step.code, step.outputs["outcome"]) == (0, "succeeded"), step.written
    assert tokens.asked == [("/token?api-version=2.0&audience=sts.amazonaws.com", "bearer runtime-token")]
    assert "runtime-token" in step.log.masks


class _Tokens:
    """The endpoint that gives a job its OIDC tokens."""

    def __enter__(self) -> _Tokens:
        self.asked: list[tuple[str, str]] = []
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tokens.asked.append((self.path, self.headers["Authorization"]))
                claims = {
                    "aud": "sts.amazonaws.com",
                    "sub": "repo:acme/digits:ref:refs/heads/main",
                    "exp": time.time() + 60,
                }
                body = json.dumps({"value": f"{_encoded({'alg': 'RS256'})}.{_encoded(claims)}.c2lnbmVk"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/token?api-version=2.0"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _encoded(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
