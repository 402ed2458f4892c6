"""`runctl-action emulator` as a program: what it prints, how it ends, and that nothing of a host outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is best effort")


class Served:
    """An emulator in a process of its own."""

    def __init__(self, temporary: Path, *flags: str, prefix: tuple[str, ...] = ()) -> None:
        self.temporary = temporary
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "runctl_action", "emulator", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.environ: dict[str, str] = {}
        while len(self.environ) < 7:
            line = self.process.stdout.readline()
            assert line.startswith("export "), line + self.process.stderr.read()  # type: ignore[union-attr]
            name, _, value = line.removeprefix("export ").strip().partition("=")
            self.environ[name] = value

    @property
    def endpoint(self) -> str:
        return self.environ["AWS_ENDPOINT_URL"]

    def client(self, service: str) -> Any:
        session = boto3.Session(
            self.environ["AWS_ACCESS_KEY_ID"],
            self.environ["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environ["AWS_REGION"],
        )
        return session.client(service, endpoint_url=self.endpoint)

    def launch(self, count: int) -> list[str]:
        """Instances that run and are online."""
        ec2, ssm = self.client("ec2"), self.client("ssm")
        image = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
        profile = {"Name": self.environ["RUNCTL_INSTANCE_PROFILE"]}
        launched = ec2.run_instances(
            ImageId=image, InstanceType="t3.micro", MinCount=count, MaxCount=count, IamInstanceProfile=profile
        )
        ids = [instance["InstanceId"] for instance in launched["Instances"]]
        until(lambda: len(ssm.describe_instance_information()["InstanceInformationList"]) == count, 60)
        for client in (ec2, ssm):
            client.close()
        return ids

    def directories(self) -> list[Path]:
        return sorted(self.temporary.glob("runctl-emulator-*"))

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*flags: str, prefix: tuple[str, ...] = ()) -> Served:
        started.append(Served(tmp_path, *flags, prefix=prefix))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
            served.process.communicate()


def of_directory(directory: Path) -> list[int]:
    """Processes that have something of `directory` among their words or variables."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(directory) + b"/i-" in told:
                found.append(int(entry.name))
    return found


@ON_LINUX
def test_twenty_hosts_at_once_leave_no_process_and_no_port_when_the_emulator_is_killed(serve: Any) -> None:
    served = serve()
    ids = served.launch(20)
    ssm = served.client("ssm")
    ssm.send_command(
        InstanceIds=ids,
        DocumentName="AWS-RunShellScript",
        Parameters={"commands": ["setsid sh -c 'setsid sleep 600' > /dev/null 2>&1 & sleep 600"]},
    )
    (directory,) = served.directories()
    until(lambda: sum(_is_sleep(pid) for pid in of_directory(directory)) >= 40)
    served.end(signal.SIGKILL)
    until(lambda: not of_directory(directory), 10)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(served.endpoint.rpartition(":")[2]))) != 0


def test_the_directory_of_a_killed_emulator_is_reclaimed_at_the_next_start_and_a_living_ones_is_not(serve: Any) -> None:
    killed, living = serve(), serve()
    killed.launch(1)
    (of_killed,) = set(killed.directories()) - {d for d in killed.directories() if _is_locked_by(d, living)}
    killed.end(signal.SIGKILL)
    third = serve()
    assert of_killed not in third.directories()
    assert len(third.directories()) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_when_it_is_asked_to(serve: Any, number: signal.Signals) -> None:
    served = serve()
    served.launch(1)
    served.end(number)
    assert served.process.returncode == 0
    assert served.directories() == []


@ON_LINUX
def test_it_runs_as_an_ordinary_user(serve: Any) -> None:
    # In a user namespace root is nobody, and has no capabilities outside of it.
    served = serve(prefix=("unshare", "--user") if os.geteuid() == 0 else ())
    (instance,) = served.launch(1)
    ssm = served.client("ssm")
    sent = ssm.send_command(
        InstanceIds=[instance], DocumentName="AWS-RunShellScript", Parameters={"commands": ["id -u; shutdown -h +5"]}
    )["Command"]

    def ended() -> str:
        found = ssm.list_command_invocations(CommandId=sent["CommandId"], Details=True)["CommandInvocations"]
        return str(found[0]["CommandPlugins"][0]["Output"]) if found and found[0]["Status"] == "Success" else ""

    until(ended)
    assert ended().strip() != "0"


def test_a_port_can_be_chosen(serve: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert serve("--port", str(port)).endpoint == f"http://127.0.0.1:{port}"


def test_faults_are_added_listed_and_taken_away_over_http(serve: Any, tmp_path: Path) -> None:
    file = tmp_path / "faults"
    file.write_text("# a drill\nquota:market=spot\n")
    served = serve("--fault", "never-online", "--fault", f"@{file}")
    url = served.endpoint + "/_runctl/faults"
    assert _ask(url) == "never-online\nquota:market=spot\n"
    assert _ask(url, "POST", "no-capacity:market=spot,times=2\n").endswith("no-capacity:market=spot,times=2\n")
    with pytest.raises(urllib.error.HTTPError) as refused:
        _ask(url, "POST", "no-such-fault")
    with refused.value as answer:
        assert (answer.code, b"there is no fault 'no-such-fault'" in answer.read()) == (400, True)
    assert _ask(url, "DELETE") == ""


def test_a_fault_that_is_none_and_a_delay_that_is_none_are_usage_errors() -> None:
    for flags, said in (
        (("--fault", "no-capacity:zone"), "no-capacity takes market, type, zone, times"),
        (("--delay", "boot=1"), "NAME one of visible, running, online, ending"),
        (("--delay", "running=soon"), "NAME=SECONDS"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "runctl_action", "emulator", *flags], check=False, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def _ask(url: str, method: str = "GET", body: str = "") -> str:
    request = urllib.request.Request(url, method=method, data=body.encode() or None)
    with urllib.request.urlopen(request) as answer:
        return str(answer.read().decode())


def _is_sleep(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")
    except OSError:
        return False


def _is_locked_by(directory: Path, served: Served) -> bool:
    lock = os.stat(directory / "lock")
    return any(
        (info := os.stat(f"/proc/{served.process.pid}/fd/{fd}", follow_symlinks=True)).st_ino == lock.st_ino
        and info.st_dev == lock.st_dev
        for fd in os.listdir(f"/proc/{served.process.pid}/fd")
        if os.path.exists(f"/proc/{served.process.pid}/fd/{fd}")
    )
