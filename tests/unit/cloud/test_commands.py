from __future__ import annotations

import re
from typing import Any

import pytest

from runctl_action.cloud.commands import CommandResult, Commands
from runctl_action.cloud.session import Session
from runctl_action.errors import CloudError, PermissionDenied

COMMAND = "6bd8e2a2-5d3c-4b7b-9b0f-000000000000"
RESULT = {"CommandId": COMMAND, "InstanceId": "i-0123456789abcdef0"}
HOST = "i-0123456789abcdef0"


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


class Agent:
    """SSM with one host: runs what `answers` says a host would print, after `polls` looks."""

    def __init__(self, printed: str, *, status: str = "Success", code: int = 0, polls: int = 0) -> None:
        self.printed, self.status, self.code, self.polls = printed, status, code, polls
        self.scripts: list[str] = []

    def client(self, service: str) -> Any:
        assert service == "ssm"
        return self

    def send_command(self, **request: Any) -> dict[str, Any]:
        self.scripts.append(request["Parameters"]["commands"][0])
        return {"Command": {"CommandId": COMMAND}}

    def get_command_invocation(self, **request: Any) -> dict[str, Any]:
        self.polls -= 1
        if self.polls >= 0:
            return {"Status": "InProgress"}
        nonce = re.search(r"[0-9a-f]{32}", self.scripts[-1])
        printed = self.printed.format(nonce=nonce[0] if nonce else "")
        return {"Status": self.status, "ResponseCode": self.code, "StandardOutputContent": printed}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def commands(session: Session, clock: Clock) -> Commands:
    return Commands(session, sleep=clock.sleep, monotonic=clock.monotonic)


def with_agent(agent: Agent, clock: Clock) -> Commands:
    return Commands(agent, sleep=clock.sleep, monotonic=clock.monotonic)  # type: ignore[arg-type]


def sent(stub: Any, script: str = "true", **changes: Any) -> None:
    request = {
        "InstanceIds": [HOST], "DocumentName": "AWS-RunShellScript", "Comment": "why", "TimeoutSeconds": 60,
        "Parameters": {"commands": [script], "executionTimeout": ["300"]},
    }  # fmt: skip
    stub("ssm").add_response("send_command", {"Command": {"CommandId": COMMAND}}, request | changes)


def ended(stub: Any, status: str, details: str = "", code: int = 0, out: str = "", err: str = "") -> None:
    answer = {
        "Status": status,
        "StatusDetails": details,
        "ResponseCode": code,
        "StandardOutputContent": out,
        "StandardErrorContent": err,
    }
    stub("ssm").add_response("get_command_invocation", answer, RESULT)


@pytest.mark.parametrize("platform", ["Linux x86_64", "Linux aarch64", "Darwin arm64"])
def test_a_host_is_ready_when_its_nonce_came_back(clock, platform):
    assert with_agent(Agent(f"{{nonce}} {platform}\n"), clock).probe(HOST) == platform


@pytest.mark.parametrize(
    "printed",
    ["", "{nonce}", "{nonce}\n", "0123456789abcdef0123456789abcdef Linux x86_64", "Linux x86_64", "{nonce} Windows x86_64",
     "{nonce} Linux x86_64; rm", "{nonce}x Linux x86_64", "hello\n{nonce} Linux x86_64"],
)  # fmt: skip
def test_anything_else_than_the_nonce_and_a_known_platform_is_not_ready(clock, printed):
    assert with_agent(Agent(printed), clock).probe(HOST) is None


@pytest.mark.parametrize(("status", "code"), [("Failed", 0), ("Success", 1), ("TimedOut", -1), ("Undeliverable", -1)])
def test_a_command_that_failed_is_not_ready_whatever_it_printed(clock, status, code):
    assert with_agent(Agent("{nonce} Linux x86_64", status=status, code=code), clock).probe(HOST) is None


def test_each_probe_has_a_nonce_of_its_own(clock):
    agent = Agent("{nonce} Linux x86_64")
    commands = with_agent(agent, clock)
    assert commands.probe(HOST)
    assert commands.probe(HOST)
    assert agent.scripts[0] != agent.scripts[1]


def test_waiting_grows_to_five_seconds_and_no_further(clock):
    assert with_agent(Agent("", polls=9), clock).run(HOST, "true", "why", patience_seconds=60) is not None
    assert clock.pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5]


def test_patience_has_an_end(clock):
    assert with_agent(Agent("", polls=10**6), clock).run(HOST, "true", "why", patience_seconds=20) is None
    assert 20 <= clock.now - 1000 < 25


def test_the_command_is_sent_exactly_so(commands, stub):
    sent(stub, "echo 'x'")
    assert commands.send(HOST, "echo 'x'", "why") == COMMAND


def test_a_comment_is_cut_to_what_ssm_takes(commands, stub):
    sent(stub, Comment="c" * 100)
    commands.send(HOST, "true", "c" * 101)


@pytest.mark.parametrize("script", ["echo {{", "echo {{ aws:x }}", "echo '{{{'"])
def test_what_ssm_would_substitute_is_never_sent(commands, stub, script):
    stub("ssm")
    with pytest.raises(ValueError, match="SSM substitutes"):
        commands.send(HOST, script, "why")


def test_a_host_that_ssm_does_not_know_yet_is_none_and_nobody_waits(commands, stub, clock):
    stub("ssm").add_client_error("send_command", "InvalidInstanceId")
    assert commands.run(HOST, "true", "why", 20) is None
    assert clock.pauses == []


def test_a_command_that_may_not_be_sent_names_the_permission(commands, stub):
    stub("ssm").add_client_error("send_command", "AccessDeniedException")
    with pytest.raises(PermissionDenied, match="ssm:SendCommand"):
        commands.send(HOST, "true", "why")


def test_an_invocation_that_does_not_exist_yet_is_asked_for_again(commands, stub, clock):
    sent(stub)
    stub("ssm").add_client_error("get_command_invocation", "InvocationDoesNotExist", expected_params=RESULT)
    ended(stub, "Success", "Success", out="x", err="y")
    assert commands.run(HOST, "true", "why", 20) == CommandResult("Success", 0, "x", "y")
    assert clock.pauses == [0.2]


@pytest.mark.parametrize("status", ["Pending", "InProgress", "In Progress", "Delayed", "Cancelling"])
def test_a_command_that_goes_on_has_no_result(session, clock, status):
    class Says(Agent):
        def get_command_invocation(self, **request: Any) -> dict[str, Any]:
            return {"Status": status, "StatusDetails": status, "ResponseCode": -1}

    assert with_agent(Says(""), clock).result(COMMAND, HOST) is None


@pytest.mark.parametrize(
    ("status", "details", "found"),
    [
        ("Success", "Success", "Success"),
        ("TimedOut", "Delivery Timed Out", "DeliveryTimedOut"),
        ("TimedOut", "DeliveryTimedOut", "DeliveryTimedOut"),
        ("TimedOut", "Execution Timed Out", "ExecutionTimedOut"),
        ("Failed", "Invalid Platform", "InvalidPlatform"),
        ("Failed", "Access Denied", "AccessDenied"),
        ("Failed", "Undeliverable", "Undeliverable"),
        ("Cancelled", "", "Cancelled"),
    ],
)
def test_how_a_command_ended_is_told_without_spaces(commands, stub, status, details, found):
    ended(stub, status, details, code=-1)
    result = commands.result(COMMAND, HOST)
    assert result == CommandResult(found, -1, "", "")
    assert not result.succeeded


def test_an_answer_without_a_code_is_no_success(clock):
    class Says(Agent):
        def get_command_invocation(self, **request: Any) -> dict[str, Any]:
            return {"Status": "Success"}

    result = with_agent(Says(""), clock).result(COMMAND, HOST)
    assert result is not None
    assert not result.succeeded


def test_only_a_success_with_code_0_succeeded():
    assert CommandResult("Success", 0, "", "").succeeded
    assert not CommandResult("Success", 1, "", "").succeeded
    assert not CommandResult("Failed", 0, "", "").succeeded


def test_another_error_names_what_was_asked(commands, stub):
    stub("ssm").add_client_error("get_command_invocation", "InternalServerError", "said SSM")
    with pytest.raises(CloudError, match="ssm:GetCommandInvocation failed: InternalServerError: said SSM"):
        commands.result(COMMAND, HOST)
