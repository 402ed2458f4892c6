"""Commands behave as the real agent's were measured to: one test a row, through boto3. Then what the API refuses."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from runctl_action.emulator.agent import execution_timeout
from runctl_action.emulator.server import PROFILE, Emulator

Run = Callable[..., dict[str, Any]]
DOCUMENT = "AWS-RunShellScript"
ERROR = "\n----------ERROR-------\n"
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is best effort")
HAS_DASH = "dash" in os.path.realpath("/bin/sh")
# What a host has beside the agent's own variables: its image's, the way to the emulator, and what `sh` sets.
_OF_THE_IMAGE = (
    "SSL_",
    "REQUESTS_CA_BUNDLE",
    "UV_",
    "PIP_",
    "AWS_ENDPOINT_URL",
    "AWS_EC2_METADATA_",
    "RUNCTL_HOST_DIR",
)
_OF_THE_SHELL = ("PWD", "OLDPWD", "SHLVL", "_")


def told(invocation: dict[str, Any]) -> tuple[str, int, str, str]:
    return (
        invocation["Status"], invocation["ResponseCode"],
        invocation["StandardOutputContent"], invocation["StandardErrorContent"],
    )  # fmt: skip


def is_alive(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")
    except OSError:
        return False


def pid_in(file: Path) -> int | None:
    text = file.read_text() if file.exists() else ""
    return int(text) if text.endswith("\n") else None


@pytest.fixture(scope="module")
def refused() -> Callable[..., str]:
    """`refused(call, **parameters)` -> the code of the error that the call must end with."""

    def code(call: Callable[..., Any], **parameters: Any) -> str:
        with pytest.raises(ClientError) as error:
            call(**parameters)
        return str(error.value.response["Error"]["Code"])

    return code


@pytest.fixture(scope="module", autouse=True)
def timed(
    launch: Callable[..., str], send: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Commands that take their five seconds while the other tests run, on an instance of their own."""
    on, shared = launch(), tmp_path_factory.mktemp("timed")
    traps = (
        f"trap 'echo trapped > {shared}/trapped; exit 0' TERM\necho before\necho noise >&2\n"
        f"setsid sh -c 'echo $$ > {shared}/setsid; exec sleep 60' &\n"
        f"sh -c 'echo $$ > {shared}/child; exec sleep 60' &\n"
        f"echo $$ > {shared}/script\nwhile :; do sleep 0.1; done"
    )
    return {
        "on": on,
        "shared": shared,
        "traps": send(traps, on, executionTimeout="5"),
        "holds": send("sleep 60 &\necho begun", on, executionTimeout="5"),
        "three": send("sleep 5.5\necho done", on, executionTimeout="3"),
    }


# Results: one test a row


def test_exit_3_is_failed_and_the_agent_appends_its_sentence_to_stderr(run: Run) -> None:
    assert told(run("echo out\necho err >&2\nexit 3")) == (
        "Failed", 3, "out\n", "err\nfailed to run commands: exit status 3",
    )  # fmt: skip


def test_exit_300_is_44(run: Run) -> None:
    assert told(run("exit 300")) == ("Failed", 44, "", "failed to run commands: exit status 44")


def test_exit_137_is_timed_out_with_nothing_appended(run: Run) -> None:
    assert told(run("echo out\necho err >&2\nexit 137")) == ("TimedOut", 137, "out\n", "err\n")


def test_a_child_that_was_sigkilled_is_timed_out_with_nothing_appended(run: Run) -> None:
    found = run("echo out\nsh -c 'kill -KILL $$'")
    assert told(found)[:3] == ("TimedOut", 137, "out\n")
    assert "failed to run commands" not in found["StandardErrorContent"]


def test_a_script_that_was_sigkilled_is_timed_out(run: Run) -> None:
    assert told(run("kill -KILL $$"))[:2] == ("TimedOut", 137)


def test_a_child_that_was_sigtermed_is_failed_with_143(run: Run) -> None:
    found = run("sh -c 'kill -TERM $$'")
    assert told(found)[:3] == ("Failed", 143, "")
    assert found["StandardErrorContent"].endswith("failed to run commands: exit status 143")


@ON_LINUX
def test_cancel_is_sigkill_to_the_group_at_once_and_a_setsid_child_survives(
    ssm: Any, send: Callable[..., str], ended: Run, until: Callable[..., Any], tmp_path: Path
) -> None:
    command = send(
        f"trap 'echo trapped > {tmp_path}/trapped; exit 0' TERM INT HUP\necho before\necho noise >&2\n"
        f"setsid sh -c 'echo $$ > {tmp_path}/setsid; exec sleep 60' &\n"
        f"sh -c 'echo $$ > {tmp_path}/child; exec sleep 60' &\nwhile :; do sleep 0.1; done"
    )
    survivor = until(lambda: pid_in(tmp_path / "setsid"))
    child = until(lambda: pid_in(tmp_path / "child"))
    ssm.cancel_command(CommandId=command)
    # It holds stdout still: a cancelled command does not wait for that.
    assert told(ended(command)) == ("Cancelled", 137, "before\n", "")
    assert not (tmp_path / "trapped").exists()
    until(lambda: not is_alive(child))
    assert is_alive(survivor)
    os.kill(survivor, 9)


def test_exit_194_reboots_the_host_and_runs_the_script_again(
    boot: Callable[..., str], run: Run, state: Callable[[str], str], is_online: Callable[[str], bool]
) -> None:
    count = 'echo boot >> "$RUNCTL_HOST_DIR/boots"\n'
    on = boot(UserData="#cloud-boothook\n#!/bin/sh\n" + count)
    script = 'boots=$(wc -l < "$RUNCTL_HOST_DIR/boots")\necho $boots\necho err >&2\n[ $boots -gt 1 ] || exit 194'
    found = run(script, on)
    assert (found["Status"], found["ResponseCode"]) == ("Success", 0)
    assert found["StandardOutputContent"].split() == ["2"]
    assert (state(on), is_online(on)) == ("running", True)


def test_a_command_that_runs_at_a_reboot_is_failed_and_one_that_waits_is_run_after_it(
    ec2: Any, boot: Callable[..., str], send: Callable[..., str], ended: Run, until: Callable[..., Any],
    tmp_path: Path, invocation: Run,
) -> None:  # fmt: skip
    on = boot()
    begun = [send(f"touch {tmp_path}/{index}\nexec sleep 60", on) for index in range(5)]
    until(lambda: len(list(tmp_path.iterdir())) == 5)
    waiting = send("echo ran", on)
    until(lambda: invocation(waiting, on))
    assert invocation(waiting, on)["Status"] == "Pending"
    ec2.reboot_instances(InstanceIds=[on])
    for command in begun:
        assert told(ended(command, on)) == ("Failed", 1, "", "document process failed unexpectedly")
    assert told(ended(waiting, on)) == ("Success", 0, "ran\n", "")


def test_exit_168_is_success_with_stderr_cleared_and_a_notice_on_stdout(run: Run) -> None:
    status, code, out, err = told(run("echo out\necho err >&2\nexit 168"))
    assert (status, code, err) == ("Success", 168, "")
    assert out.startswith("out\n\n")
    assert "168" in out


def test_exit_169_is_failed_with_a_notice_on_both_streams(run: Run) -> None:
    status, code, out, err = told(run("echo out\necho err >&2\nexit 169"))
    assert (status, code) == ("Failed", 169)
    notice = out.removeprefix("out\n")
    assert "169" in notice
    assert err == "err\nfailed to run commands: exit status 169" + notice


def test_a_child_that_keeps_stdout_open_keeps_the_command_in_progress(
    send: Callable[..., str], invocation: Run, ended: Run, until: Callable[..., Any], tmp_path: Path
) -> None:
    command = send(
        f"echo begun\n(while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; echo late) &\necho $$ > {tmp_path}/script"
    )
    script = until(lambda: pid_in(tmp_path / "script"))
    until(lambda: not is_alive(script))
    found = until(lambda: invocation(command))
    assert told(found) == ("InProgress", -1, "", "")
    (tmp_path / "gate").touch()
    assert told(ended(command)) == ("Success", 0, "begun\nlate\n", "")


def test_a_child_with_redirected_streams_does_not(run: Run, tmp_path: Path) -> None:
    found = run(f"sleep 60 > {tmp_path}/log 2>&1 &\necho $!")
    assert told(found)[:2] == ("Success", 0)
    assert is_alive(int(found["StandardOutputContent"])) or sys.platform != "linux"


def test_there_is_no_set_e(run: Run) -> None:
    assert told(run("false; echo ok")) == ("Success", 0, "ok\n", "")


@pytest.mark.skipif(not HAS_DASH, reason="sh is not dash here")
def test_bash_syntax_without_a_shebang_is_127(run: Run) -> None:
    status, code, _, err = told(run("[[ 1 ]]"))
    assert (status, code) == ("Failed", 127)
    assert err.endswith("[[: not found\nfailed to run commands: exit status 127")


def test_a_working_directory_that_does_not_exist_is_failed_with_the_agents_words(run: Run) -> None:
    assert told(run("echo never", workingDirectory="/no/such/directory")) == (
        "Failed", 1, "", "failed to run commands: fork/exec /usr/bin/sh: no such file or directory",
    )  # fmt: skip


def test_a_working_directory_that_exists_is_where_it_runs(run: Run, tmp_path: Path) -> None:
    assert run("pwd -P", workingDirectory=str(tmp_path))["StandardOutputContent"] == f"{tmp_path.resolve()}\n"


@pytest.mark.parametrize("text", ["3", "4", "0", "-5", "172801", "999999999999", "", "soon", "1e3", "²", "1_000"])
def test_an_execution_timeout_out_of_bounds_is_3600_and_not_clamped(text: str) -> None:
    assert execution_timeout(text) == 3600


@pytest.mark.parametrize(("text", "seconds"), [("5", 5), ("172800", 172_800), ("7.9", 7)])
def test_an_execution_timeout_within_bounds_is_taken(text: str, seconds: int) -> None:
    assert execution_timeout(text) == seconds


# The environment of a script


def test_the_script_is_a_file_of_mode_0700_in_the_commands_own_directory_run_by_sh_c(run: Run) -> None:
    found = run('echo "$0"\nls -ld "$0" | cut -c1-10\ntail -n 1 "$0"')
    path, mode, last = found["StandardOutputContent"].splitlines()
    assert Path(path).name == "_script.sh"
    assert "orchestration" in path
    assert found["CommandId"] in path
    assert (mode, last) == ("-rwx------", 'tail -n 1 "$0"')


def test_commands_are_joined_with_a_newline_and_end_with_one(run: Run) -> None:
    found = run(["printf first", "cat <<'END'", " second", "END", 'tail -c 13 "$0" | od -An -c | tr -d " \\n"'])
    assert found["StandardOutputContent"].startswith("first second\n")
    assert found["StandardOutputContent"].endswith("\\n")


def test_a_shebang_is_honoured(run: Run) -> None:
    found = run("#!/usr/bin/env python3\nimport sys\nprint(sys.version_info[0])")
    assert told(found) == ("Success", 0, "3\n", "")


def test_a_script_runs_as_root_or_as_the_emulators_own_user(run: Run) -> None:
    assert run("id -u")["StandardOutputContent"] == f"{os.getuid()}\n"


def test_stdin_is_dev_null(run: Run) -> None:
    found = run("wc -c\n#" + "x" * 10)
    assert found["StandardOutputContent"].split() == ["0"]
    if sys.platform == "linux":
        assert run("readlink /proc/self/fd/0")["StandardOutputContent"] == "/dev/null\n"


def test_a_script_has_its_own_process_group_and_not_its_own_session(run: Run) -> None:
    found = run("#!/usr/bin/env python3\nimport os\nprint(os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0))")
    pid, parent, group, session = map(int, found["StandardOutputContent"].split())
    # The group is led by `sh -c`, which may have become the script itself or waits for it.
    assert group in {pid, parent}
    assert session not in {pid, parent, group}


def test_the_working_directory_is_usr_bin(run: Run) -> None:
    assert run("pwd")["StandardOutputContent"] == "/usr/bin\n"


def test_the_environment_is_the_agents_alone(run: Run, instance: str, aws: Emulator) -> None:
    found = run("#!/usr/bin/env python3\nimport os, json\nprint(json.dumps(dict(os.environ)))")
    environment = json.loads(found["StandardOutputContent"])
    own = {
        name: value
        for name, value in environment.items()
        if not name.startswith(_OF_THE_IMAGE) and name not in _OF_THE_SHELL and not name.lower().endswith("_proxy")
    }
    shims, _, path = own.pop("PATH").partition(":")
    assert path == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    assert Path(shims).name == "shims"
    assert own == {
        "LANG": "C.UTF-8",
        "SSM_COMMAND_ID": found["CommandId"],
        "AWS_SSM_INSTANCE_ID": instance,
        "AWS_SSM_REGION_NAME": "us-east-1",
        "AWS_SSM_PLATFORM_NAME": "Ubuntu",
        "AWS_SSM_PLATFORM_VERSION": "24.04",
    }


@pytest.mark.parametrize("name", ["HOME", "USER", "LOGNAME", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"])
def test_it_has_no_variable(run: Run, name: str) -> None:
    assert run(f'echo "${{{name}-unset}}"')["StandardOutputContent"] == "unset\n"


def test_23999_bytes_of_output_are_untouched(run: Run) -> None:
    script = "head -c 23999 /dev/zero | tr '\\0' x\nhead -c 23999 /dev/zero | tr '\\0' y >&2"
    assert told(run(script)) == ("Success", 0, "x" * 23_999, "y" * 23_999)


def test_24000_bytes_of_output_are_truncated_to_23980_and_the_agents_marker(run: Run) -> None:
    found = told(run("head -c 24000 /dev/zero | tr '\\0' x\nhead -c 30000 /dev/zero | tr '\\0' y >&2"))
    assert found[2] == "x" * 23_980 + "--output truncated--"
    assert found[3] == "y" * 23_980 + "--output truncated--"


def test_bulk_output_is_slow(run: Run) -> None:
    started = time.monotonic()
    assert told(run("head -c 500000 /dev/zero"))[0] == "Success"
    assert time.monotonic() - started > 0.8  # 5 MB took 10.5 s


def test_output_that_is_no_utf_8_is_replaced(run: Run) -> None:
    assert run("printf 'a\\377b'")["StandardOutputContent"] == "a\ufffdb"


def plugin(ssm: Any, command: str) -> dict[str, Any]:
    listed = ssm.list_command_invocations(CommandId=command, Details=True)["CommandInvocations"]
    return dict(listed[0]["CommandPlugins"][0])


def test_a_plugins_output_joins_the_streams(ssm: Any, run: Run) -> None:
    found = plugin(ssm, run("echo out\necho err >&2\nexit 3")["CommandId"])
    assert (found["Name"], found["Status"], found["ResponseCode"]) == ("aws:runShellScript", "Failed", 3)
    assert found["Output"] == f"out\n{ERROR}err\nfailed to run commands: exit status 3"
    assert plugin(ssm, run("echo out")["CommandId"])["Output"] == "out\n"


def test_a_plugins_output_is_at_most_2500_characters(ssm: Any, run: Run) -> None:
    assert plugin(ssm, run("head -c 2500 /dev/zero | tr '\\0' x")["CommandId"])["Output"] == "x" * 2500
    assert len(plugin(ssm, run("head -c 9000 /dev/zero | tr '\\0' x")["CommandId"])["Output"]) == 2500


def test_five_commands_run_at_a_time_and_the_sixth_waits(
    send: Callable[..., str], invocation: Run, ended: Run, until: Callable[..., Any], tmp_path: Path
) -> None:
    wait = f"while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done"
    first = [send(f"touch {tmp_path}/begun-{index}\n{wait}") for index in range(5)]
    until(lambda: len(list(tmp_path.glob("begun-*"))) == 5)
    sixth = send(f"touch {tmp_path}/sixth\necho sixth")
    found = until(lambda: invocation(sixth))
    assert (found["Status"], found["ResponseCode"]) == ("Pending", -1)
    assert not (tmp_path / "sixth").exists()
    (tmp_path / "gate").touch()
    assert [ended(command)["Status"] for command in first] == ["Success"] * 5
    assert told(ended(sixth)) == ("Success", 0, "sixth\n", "")


def test_a_command_that_waits_is_cancelled_and_never_begins(
    ssm: Any, send: Callable[..., str], ended: Run, until: Callable[..., Any], tmp_path: Path
) -> None:
    wait = f"while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done"
    first = [send(f"touch {tmp_path}/begun-{index}\n{wait}") for index in range(5)]
    until(lambda: len(list(tmp_path.glob("begun-*"))) == 5)
    sixth = send(f"touch {tmp_path}/sixth")
    ssm.cancel_command(CommandId=sixth)
    assert ended(sixth)["Status"] == "Cancelled"
    (tmp_path / "gate").touch()
    assert [ended(command)["Status"] for command in first] == ["Success"] * 5
    assert not (tmp_path / "sixth").exists()


@pytest.fixture
def parameter(ssm: Any) -> Iterator[str]:
    ssm.put_parameter(Name="greeting", Type="String", Value="hello")
    ssm.put_parameter(Name="secret", Type="SecureString", Value="hidden")
    yield "greeting"
    ssm.delete_parameters(Names=["greeting", "secret"])


def test_ssm_parameters_are_substituted_in_commands(run: Run, parameter: str) -> None:
    found = run(["echo {{ssm:greeting}}", "echo {{ ssm:greeting }} '{ {}'"])
    assert found["StandardOutputContent"] == "hello\nhello { {}\n"


@pytest.mark.parametrize("text", ["{{ssm:no-such}}", "{{ssm:secret}}", "{{ .State }}"])
def test_what_is_no_parameter_is_not_substituted_but_refused(
    send: Callable[..., str], refused: Callable[..., str], parameter: str, text: str
) -> None:
    assert refused(send, script=f"echo {text}") == "InvalidParameters"


# What SendCommand refuses


def test_a_document_that_does_not_exist_is_refused(ssm: Any, instance: str, refused: Callable[..., str]) -> None:
    parameters = {"commands": ["true"]}
    for name in ("AWS-RunShellScripts", "AWS-RunPowerShellScript"):
        found = refused(ssm.send_command, DocumentName=name, InstanceIds=[instance], Parameters=parameters)
        assert found == "InvalidDocument"


@pytest.mark.parametrize("parameters", [{}, {"commands": []}, {"commands": ["true"], "timeout": ["5"]}])
def test_parameters_that_the_document_does_not_have_are_refused(
    ssm: Any, instance: str, refused: Callable[..., str], parameters: dict[str, list[str]]
) -> None:
    call = {"DocumentName": DOCUMENT, "InstanceIds": [instance], "Parameters": parameters}
    assert refused(ssm.send_command, **call) == "InvalidParameters"


def test_a_command_that_is_too_large_is_refused(send: Callable[..., str], refused: Callable[..., str]) -> None:
    assert refused(send, script="#" * 100_000) == "MaxDocumentSizeExceeded"


def test_an_instance_that_does_not_exist_is_refused_and_no_other_gets_the_command(
    ssm: Any, instance: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    call = {"DocumentName": DOCUMENT, "Parameters": {"commands": [f"touch {tmp_path}/ran"]}}
    assert refused(ssm.send_command, InstanceIds=[instance, "i-0123456789abcdef0"], **call) == "InvalidInstanceId"
    assert refused(ssm.send_command, InstanceIds=[instance, instance], **call) == "DuplicateInstanceId"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"InstanceIds": ["i-0123456789abcdef0"], "Targets": [{"Key": "tag:a", "Values": ["b"]}]},
        {"InstanceIds": [f"i-{index:017x}" for index in range(51)]},
        {"Targets": [{"Key": f"tag:{index}", "Values": ["x"]} for index in range(6)]},
    ],
)
def test_either_1_to_50_ids_or_1_to_5_targets_are_named(
    owner: Any, refused: Callable[..., str], where: dict[str, Any]
) -> None:
    call = {"DocumentName": DOCUMENT, "Parameters": {"commands": ["true"]}}
    assert refused(owner.send_command, **call, **where) == "ValidationException"


@pytest.fixture(scope="module")
def owner(aws: Emulator) -> Iterator[Any]:
    """A client that leaves every check to the service."""
    session = boto3.Session(aws.environ["AWS_ACCESS_KEY_ID"], aws.environ["AWS_SECRET_ACCESS_KEY"])
    config = Config(parameter_validation=False, retries={"total_max_attempts": 1})
    client = session.client("ssm", "us-east-1", endpoint_url=aws.endpoint, config=config)
    yield client
    client.close()


@pytest.mark.parametrize("seconds", [29, 2_592_001])
def test_a_delivery_timeout_out_of_bounds_is_refused(
    owner: Any, instance: str, refused: Callable[..., str], seconds: int
) -> None:
    call = {"DocumentName": DOCUMENT, "InstanceIds": [instance], "Parameters": {"commands": ["true"]}}
    assert refused(owner.send_command, TimeoutSeconds=seconds, **call) == "ValidationException"


@pytest.mark.parametrize("seconds", [30, 2_592_000])
def test_a_delivery_timeout_at_a_bound_is_taken(run: Run, seconds: int) -> None:
    assert run("true", TimeoutSeconds=seconds)["Status"] == "Success"


def test_a_comment_of_more_than_100_characters_is_refused(
    owner: Any, instance: str, refused: Callable[..., str]
) -> None:
    call = {"DocumentName": DOCUMENT, "InstanceIds": [instance], "Parameters": {"commands": ["true"]}}
    assert refused(owner.send_command, Comment="x" * 101, **call) == "ValidationException"


def test_a_target_is_a_tag_or_instance_ids(ssm: Any, refused: Callable[..., str]) -> None:
    call = {"DocumentName": DOCUMENT, "Parameters": {"commands": ["true"]}}
    targets = [{"Key": "name", "Values": ["x"]}]
    assert refused(ssm.send_command, Targets=targets, **call) == "InvalidTarget"


def test_targets_are_all_instances_that_every_one_of_them_matches(ssm: Any, instance: str, ended: Run) -> None:
    def sent_to(*targets: tuple[str, str]) -> dict[str, Any]:
        return dict(
            ssm.send_command(
                DocumentName=DOCUMENT,
                Parameters={"commands": ["echo $AWS_SSM_INSTANCE_ID"]},
                Targets=[{"Key": key, "Values": [value]} for key, value in targets],
            )["Command"]
        )

    command = sent_to(("tag:shared", "yes"), ("InstanceIds", instance))
    assert (command["TargetCount"], command["InstanceIds"]) == (1, [])
    assert ended(command["CommandId"])["StandardOutputContent"] == f"{instance}\n"
    assert sent_to(("tag:shared", "no"))["TargetCount"] == 0
    assert sent_to(("tag:none", ""))["TargetCount"] == 0


# Instances that cannot be reached


def test_an_instance_without_a_profile_never_comes_online(
    ssm: Any, boot: Callable[..., str], state: Callable[[str], str], is_online: Callable[[str], bool],
    until: Callable[..., Any], send: Callable[..., str], refused: Callable[..., str],
) -> None:  # fmt: skip
    without = boot(IamInstanceProfile=None, wait=False)
    until(lambda: state(without) == "running")
    boot()  # one that began later is online
    assert not is_online(without)
    assert without not in informed(ssm)
    assert refused(send, script="true", on=without) == "InvalidInstanceId"


def test_an_instance_that_is_stopped_is_refused_and_one_that_was_started_again_is_not(
    ec2: Any, boot: Callable[..., str], state: Callable[[str], str], is_online: Callable[[str], bool],
    until: Callable[..., Any], send: Callable[..., str], refused: Callable[..., str], run: Run,
) -> None:  # fmt: skip
    on = boot()
    ec2.stop_instances(InstanceIds=[on])
    until(lambda: state(on) == "stopped")
    assert not is_online(on)
    assert refused(send, script="true", on=on) == "InvalidInstanceId"
    ec2.start_instances(InstanceIds=[on])
    until(lambda: is_online(on))
    assert run("true", on)["Status"] == "Success"
    ec2.terminate_instances(InstanceIds=[on])
    until(lambda: state(on) == "terminated")
    assert refused(send, script="true", on=on) == "InvalidInstanceId"


@pytest.mark.parametrize("ending", ["terminate_instances", "stop_instances"])
def test_a_command_whose_host_is_gone_stays_in_progress(
    ec2: Any, boot: Callable[..., str], state: Callable[[str], str], until: Callable[..., Any],
    send: Callable[..., str], invocation: Run, tmp_path: Path, ending: str,
) -> None:  # fmt: skip
    on = boot()
    command = send(f"touch {tmp_path}/begun\nsleep 60", on)
    until((tmp_path / "begun").exists)
    getattr(ec2, ending)(InstanceIds=[on])
    until(lambda: state(on) in {"terminated", "stopped"})
    assert told(invocation(command, on)) == ("InProgress", -1, "", "")


# The other operations


def test_an_invocation_does_not_exist_right_after_it_was_sent(
    send: Callable[..., str], invocation: Run, until: Callable[..., Any], ended: Run
) -> None:
    # The moment is short, and a busy machine may miss it.
    commands: list[str] = []

    def is_unknown() -> bool:
        commands.append(send("true"))
        return not invocation(commands[-1])

    until(is_unknown)
    assert {ended(command)["Status"] for command in commands} == {"Success"}


def test_an_unknown_command_instance_and_plugin_have_no_invocation(
    ssm: Any, run: Run, instance: str, refused: Callable[..., str]
) -> None:
    command, unknown = run("true")["CommandId"], "00000000-0000-0000-0000-000000000000"
    get = ssm.get_command_invocation
    assert refused(get, CommandId=unknown, InstanceId=instance) == "InvocationDoesNotExist"
    assert refused(get, CommandId=command, InstanceId="i-0123456789abcdef0") == "InvocationDoesNotExist"
    assert refused(get, CommandId=command, InstanceId=instance, PluginName="aws:other") == "InvalidPluginName"
    assert refused(ssm.cancel_command, CommandId=unknown) == "InvalidCommandId"
    assert refused(ssm.list_command_invocations, CommandId=unknown) == "InvalidCommandId"


def test_an_invocation_tells_what_was_sent_and_when_it_ran(run: Run, instance: str) -> None:
    found = run("sleep 0.1", Comment="runctl")
    assert (found["DocumentName"], found["PluginName"]) == (DOCUMENT, "aws:runShellScript")
    assert (found["Comment"], found["InstanceId"], found["StatusDetails"]) == ("runctl", instance, "Success")
    assert found["ExecutionStartDateTime"] <= found["ExecutionEndDateTime"]
    assert float(found["ExecutionElapsedTime"].strip("PTS")) >= 0.1


def test_invocations_are_listed_by_command_instance_and_status_a_page_at_a_time(
    ssm: Any, run: Run, instance: str
) -> None:
    good, bad = run("true", Comment="listed")["CommandId"], run("exit 3")["CommandId"]

    def listed(**parameters: Any) -> list[str]:
        pages = ssm.get_paginator("list_command_invocations").paginate(**parameters)
        return [found["CommandId"] for page in pages for found in page["CommandInvocations"]]

    assert listed(CommandId=good) == [good]
    assert {good, bad} <= set(listed(InstanceId=instance, PaginationConfig={"PageSize": 1}))
    failed = listed(Filters=[{"key": "Status", "value": "Failed"}])
    assert bad in failed
    assert good not in failed
    assert listed(CommandId=good, InstanceId="i-0123456789abcdef0") == []
    (entry,) = ssm.list_command_invocations(CommandId=good)["CommandInvocations"]
    assert (entry["Comment"], entry["Status"], entry["CommandPlugins"]) == ("listed", "Success", [])


def test_cancel_stops_the_command_on_the_named_instances_alone(
    ssm: Any, boot: Callable[..., str], instance: str, ended: Run, invocation: Run, until: Callable[..., Any],
    refused: Callable[..., str], tmp_path: Path,
) -> None:  # fmt: skip
    other = boot()
    wait = f"touch {tmp_path}/$AWS_SSM_INSTANCE_ID\nwhile [ ! -e {tmp_path}/gate ]; do sleep 0.02; done"
    sent = ssm.send_command(DocumentName=DOCUMENT, InstanceIds=[instance, other], Parameters={"commands": [wait]})
    command = sent["Command"]["CommandId"]
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    ids = ["i-0123456789abcdef0"]
    assert refused(ssm.cancel_command, CommandId=command, InstanceIds=ids) == "InvalidInstanceId"
    ssm.cancel_command(CommandId=command, InstanceIds=[other])
    assert ended(command, other)["Status"] == "Cancelled"
    assert invocation(command)["Status"] == "InProgress"
    (tmp_path / "gate").touch()
    assert ended(command)["Status"] == "Success"


def test_a_command_that_is_over_cannot_be_cancelled(ssm: Any, run: Run, invocation: Run) -> None:
    command = run("echo done")["CommandId"]
    ssm.cancel_command(CommandId=command)
    assert told(invocation(command)) == ("Success", 0, "done\n", "")


def informed(ssm: Any, **filters: list[str]) -> dict[str, dict[str, Any]]:
    asked = [{"Key": key, "Values": values} for key, values in filters.items()]
    pages = ssm.get_paginator("describe_instance_information").paginate(Filters=asked)
    return {found["InstanceId"]: found for page in pages for found in page["InstanceInformationList"]}


def test_instance_information_is_of_those_that_have_registered(
    ssm: Any, instance: str, timed: dict[str, Any], refused: Callable[..., str]
) -> None:
    assert {instance, timed["on"]} <= set(informed(ssm))
    found = informed(ssm, InstanceIds=[instance], PingStatus=["Online"], PlatformTypes=["Linux"])
    assert list(found) == [instance]
    assert (found[instance]["PlatformName"], found[instance]["PlatformVersion"]) == ("Ubuntu", "24.04")
    assert informed(ssm, InstanceIds=[instance], PingStatus=["ConnectionLost"]) == {}
    filters = [{"Key": "Colour", "Values": ["blue"]}]
    assert refused(ssm.describe_instance_information, Filters=filters) == "InvalidFilterKey"


def test_a_ping_status_is_as_old_as_the_last_ping(
    ssm: Any, ec2: Any, boot: Callable[..., str], state: Callable[[str], str], until: Callable[..., Any],
    is_online: Callable[[str], bool], aws: Emulator,
) -> None:  # fmt: skip
    on = boot()
    ec2.stop_instances(InstanceIds=[on])
    until(lambda: state(on) == "stopped")
    assert not is_online(on)
    assert informed(ssm, InstanceIds=[on])[on]["PingStatus"] == "Online"
    aws.world.instances[on].pinged_at -= 301
    assert informed(ssm, InstanceIds=[on])[on]["PingStatus"] == "ConnectionLost"


def test_the_connection_status_is_that_of_now(ssm: Any, instance: str) -> None:
    assert ssm.get_connection_status(Target=instance)["Status"] == "connected"
    assert ssm.get_connection_status(Target="i-0123456789abcdef0")["Status"] == "notconnected"


def test_the_public_parameters_name_images_that_there_are(ssm: Any, ec2: Any) -> None:
    for name, architecture in (
        ("/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id", "x86_64"),
        ("/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id", "x86_64"),
        ("/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id", "arm64"),
    ):
        image = ssm.get_parameter(Name=name)["Parameter"]["Value"]
        assert ec2.describe_images(ImageIds=[image])["Images"][0]["Architecture"] == architecture


# What took its five seconds meanwhile


@ON_LINUX
def test_the_execution_timeout_is_sigkill_to_the_group_at_once_and_a_setsid_child_survives(
    timed: dict[str, Any], ended: Run, until: Callable[..., Any]
) -> None:
    found, shared = ended(timed["traps"], timed["on"]), timed["shared"]
    assert told(found) == ("TimedOut", 137, "before\n", "")
    assert found["StatusDetails"] == "ExecutionTimedOut"
    assert 5 <= float(found["ExecutionElapsedTime"].strip("PTS")) < 7
    assert not (shared / "trapped").exists()
    for name in ("script", "child"):
        pid = pid_in(shared / name)
        until(lambda pid=pid: not is_alive(pid))
    survivor = pid_in(shared / "setsid")
    assert survivor is not None
    assert is_alive(survivor)
    os.kill(survivor, 9)


def test_the_execution_timeout_ends_a_command_whose_child_keeps_stdout_open(timed: dict[str, Any], ended: Run) -> None:
    assert told(ended(timed["holds"], timed["on"])) == ("TimedOut", 137, "begun\n", "")


def test_an_execution_timeout_of_3_is_not_reached_after_5_seconds(timed: dict[str, Any], ended: Run) -> None:
    assert told(ended(timed["three"], timed["on"])) == ("Success", 0, "done\n", "")


def test_a_command_survives_a_restart_of_the_agent(run: Any) -> None:
    found = run("systemctl restart amazon-ssm-agent; echo survived")
    assert (found["Status"], found["StandardOutputContent"]) == ("Success", "survived\n")


def test_an_agent_that_booted_before_its_profile_looks_again_five_minutes_later(
    aws: Any, boot: Any, ec2: Any, until: Any, state: Any, is_online: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = boot(IamInstanceProfile=None, wait=False)
    until(lambda: state(instance) == "running")
    assert not is_online(instance)
    monkeypatch.setattr(aws.world, "seconds_per_minute", 0.02)
    ec2.associate_iam_instance_profile(InstanceId=instance, IamInstanceProfile={"Name": PROFILE})
    until(lambda: is_online(instance))


def test_more_commands_than_run_and_are_buffered_are_pending_until_there_is_room(
    boot: Any, send: Any, invocation: Any, until: Any, ended: Any, ssm: Any
) -> None:
    instance = boot()
    held = [send("sleep 60", on=instance) for _ in range(5)]
    until(lambda: all(invocation(command, on=instance).get("Status") == "InProgress" for command in held))
    waiting = [send("echo at last", on=instance) for _ in range(7)]
    until(lambda: all(invocation(command, on=instance).get("Status") == "Pending" for command in waiting))
    for command in held:
        ssm.cancel_command(CommandId=command)
    assert {ended(command, on=instance)["StandardOutputContent"] for command in waiting} == {"at last\n"}
