"""The AWS CLI, pointed here by AWS_ENDPOINT_URL alone, is told what boto3 is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runctl_action.emulator.server import Emulator

Cli = Callable[..., Any]
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def call(aws: Emulator) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`call(*words)` runs `aws WORDS…`."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME")}
    environ |= {name: aws.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    environ["AWS_DEFAULT_REGION"] = aws.environ["AWS_REGION"]  # version 1 knows no AWS_REGION

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "awscli", *words], check=False, capture_output=True, text=True, env=environ
        )

    return run


@pytest.fixture(scope="module")
def cli(call: Callable[..., subprocess.CompletedProcess[str]]) -> Cli:
    """`cli(*words)` -> what it prints, as JSON where it is; the call must succeed."""

    def run(*words: str) -> Any:
        done = call(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout

    return run


@pytest.fixture(scope="module")
def run(cli: Cli, ended: Run, instance: str) -> Run:
    """Sent and read by the CLI. Whether it is over is asked by boto3, which does not take half a second to start."""

    def sent(script: str, **parameters: str) -> dict[str, Any]:
        own = {"commands": [script]} | {name: [value] for name, value in parameters.items()}
        command = cli(
            "ssm", "send-command", "--document-name", "AWS-RunShellScript", "--instance-ids", instance,
            "--parameters", json.dumps(own), "--query", "Command.CommandId", "--output", "text",
        ).strip()  # fmt: skip
        ended(command)
        return dict(cli("ssm", "get-command-invocation", "--command-id", command, "--instance-id", instance))

    return sent


@pytest.mark.parametrize(
    ("script", "status", "code", "err"),
    [
        ("echo out; echo err >&2; exit 3", "Failed", 3, "err\nfailed to run commands: exit status 3"),
        ("echo out; exit 300", "Failed", 44, "failed to run commands: exit status 44"),
        ("echo out; exit 137", "TimedOut", 137, ""),
        ("echo out; echo err >&2; exit 168", "Success", 168, ""),
        ("false; echo out", "Success", 0, ""),
    ],
)
def test_a_script_ends_as_the_agent_says(run: Run, script: str, status: str, code: int, err: str) -> None:
    found = run(script)
    assert (found["Status"], found["ResponseCode"], found["StandardErrorContent"]) == (status, code, err)
    assert found["StandardOutputContent"].startswith("out\n")


def test_a_working_directory_that_does_not_exist_is_failed(run: Run) -> None:
    found = run("echo never", workingDirectory="/no/such/directory")
    said = "failed to run commands: fork/exec /usr/bin/sh: no such file or directory"
    assert (found["Status"], found["ResponseCode"], found["StandardErrorContent"]) == ("Failed", 1, said)


def test_home_and_user_are_unset_and_the_working_directory_is_usr_bin(run: Run) -> None:
    found = run('echo "${HOME-unset} ${USER-unset} ${AWS_REGION-unset} $PWD"')
    assert found["StandardOutputContent"] == "unset unset unset /usr/bin\n"


def test_a_command_is_cancelled_and_listed(
    cli: Cli, send: Callable[..., str], ended: Run, until: Callable[..., Any], tmp_path: Path
) -> None:
    command = send(f"touch {tmp_path}/begun\nsleep 60")
    until((tmp_path / "begun").exists)
    cli("ssm", "cancel-command", "--command-id", command)
    ended(command)
    (found,) = cli("ssm", "list-command-invocations", "--command-id", command, "--details")["CommandInvocations"]
    assert (found["Status"], found["CommandPlugins"][0]["ResponseCode"]) == ("Cancelled", 137)


def test_an_unknown_instance_is_refused(call: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = call(
        "ssm", "send-command", "--document-name", "AWS-RunShellScript", "--instance-ids", "i-0123456789abcdef0",
        "--parameters", "commands=true",
    )  # fmt: skip
    assert done.returncode in {254, 255}
    assert "(InvalidInstanceId) when calling the SendCommand operation" in done.stderr


def test_an_instance_that_is_online_is_described_by_ssm_and_ec2(cli: Cli, instance: str) -> None:
    filters = ("--filters", f"Key=InstanceIds,Values={instance}")
    (found,) = cli("ssm", "describe-instance-information", *filters)["InstanceInformationList"]
    assert found["PingStatus"] == "Online"
    query = "Reservations[0].Instances[0].State.Name"
    said = cli("ec2", "describe-instances", "--instance-ids", instance, "--query", query, "--output", "text")
    assert said == "running\n"


def test_an_object_goes_to_s3_and_comes_back(cli: Cli, bucket: str, tmp_path: Path) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(100_000))
    cli("s3", "cp", str(sent), f"s3://{bucket}/cli/object")
    cli("s3", "cp", f"s3://{bucket}/cli/object", str(back))
    assert back.read_bytes() == sent.read_bytes()
