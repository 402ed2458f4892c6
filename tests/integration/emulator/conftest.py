"""One emulated AWS for all tests of the emulator, seen as a launcher sees it: through boto3 and the AWS CLI."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from runctl_action.emulator.server import BUCKET, PROFILE, Emulator

IMAGE = "ami-0000000000ubuntu1"
_POLL_SECONDS = 0.02


@pytest.fixture(autouse=True)
def _no_faults(aws: Emulator) -> None:
    aws.world.faults.clear()


@pytest.fixture(scope="session")
def client(aws: Emulator) -> Iterator[Callable[[str], Any]]:
    """`client(service)`: one boto3 client each, for all tests."""
    clients: dict[str, Any] = {}

    def get(service: str) -> Any:
        if service not in clients:
            clients[service] = aws.client(service)
        return clients[service]

    yield get
    for made in clients.values():
        made.close()


@pytest.fixture(scope="session")
def ssm(client: Callable[[str], Any]) -> Any:
    return client("ssm")


@pytest.fixture(scope="session")
def ec2(client: Callable[[str], Any]) -> Any:
    return client("ec2")


@pytest.fixture(scope="session")
def s3(client: Callable[[str], Any]) -> Any:
    return client("s3")


@pytest.fixture
def bucket() -> str:
    return BUCKET


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """`until(condition)` waits for something true and gives it back."""

    def wait(condition: Callable[[], Any], seconds: float = 20) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
            time.sleep(_POLL_SECONDS)
        return found

    return wait


@pytest.fixture(scope="session")
def state(ec2: Any) -> Callable[[str], str]:
    """`state(instance_id)`, as DescribeInstances says it."""

    def get(instance_id: str) -> str:
        found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
        return str(found["State"]["Name"])

    return get


@pytest.fixture(scope="session")
def is_online(ssm: Any) -> Callable[[str], bool]:
    """`is_online(instance_id)`: whether a command can reach it."""
    return lambda instance_id: ssm.get_connection_status(Target=instance_id)["Status"] == "connected"


@pytest.fixture(scope="session")
def launch(
    ec2: Any, until: Callable[..., Any], state: Callable[[str], str], is_online: Callable[[str], bool]
) -> Callable[..., str]:
    """As `boot`, and the instance lives as long as the emulator."""

    def run_instances(*, wait: bool = True, **parameters: Any) -> str:
        defaults = {
            "ImageId": IMAGE, "InstanceType": "c6i.large", "MinCount": 1, "MaxCount": 1,
            "IamInstanceProfile": {"Name": PROFILE},
        }  # fmt: skip
        wanted = {name: value for name, value in (defaults | parameters).items() if value is not None}
        instance_id = str(ec2.run_instances(**wanted)["Instances"][0]["InstanceId"])
        if wait:
            until(lambda: state(instance_id) == "running" and is_online(instance_id))
        return instance_id

    return run_instances


@pytest.fixture
def boot(ec2: Any, launch: Callable[..., str]) -> Iterator[Callable[..., str]]:
    """`boot(wait=True, **parameters of RunInstances)` -> the id of a new instance, running and online; terminated after
    the test. A parameter that is None is left out: `boot(IamInstanceProfile=None, wait=False)`."""
    booted: list[str] = []

    def launched(**parameters: Any) -> str:
        booted.append(launch(**parameters))
        return booted[-1]

    yield launched
    for instance_id in booted:
        with contextlib.suppress(ClientError):
            ec2.terminate_instances(InstanceIds=[instance_id])


@pytest.fixture(scope="session")
def instance(launch: Callable[..., str]) -> str:
    """An instance that is online, shared: a test that reboots or ends one boots its own. The emulator ends it."""
    return launch(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "shared", "Value": "yes"}]}])


@pytest.fixture(scope="session")
def send(ssm: Any, instance: str) -> Callable[..., str]:
    """`send(script, on=instance id, Comment=…, executionTimeout="5")` -> the command's id. Names that begin with a
    capital are SendCommand's, the others the document's."""

    def command(script: str | list[str], on: str = instance, **parameters: Any) -> str:
        request = {name: value for name, value in parameters.items() if name[0].isupper()}
        own = {name: [value] for name, value in parameters.items() if name not in request}
        commands = [script] if isinstance(script, str) else script
        sent = ssm.send_command(
            DocumentName="AWS-RunShellScript", InstanceIds=[on], Parameters={"commands": commands, **own}, **request
        )
        return str(sent["Command"]["CommandId"])

    return command


@pytest.fixture(scope="session")
def invocation(ssm: Any, instance: str) -> Callable[..., dict[str, Any]]:
    """`invocation(command id, on=instance id)`, as GetCommandInvocation says it; empty while it does not exist yet."""

    def get(command_id: str, on: str = instance) -> dict[str, Any]:
        try:
            return dict(ssm.get_command_invocation(CommandId=command_id, InstanceId=on))
        except ssm.exceptions.InvocationDoesNotExist:
            return {}

    return get


@pytest.fixture(scope="session")
def ended(
    until: Callable[..., Any], invocation: Callable[..., dict[str, Any]], instance: str
) -> Callable[..., dict[str, Any]]:
    """`ended(command id, on=instance id)` waits until the command is over."""

    def wait(command_id: str, on: str = instance) -> dict[str, Any]:
        def get() -> dict[str, Any] | None:
            found = invocation(command_id, on)
            return found if found.get("Status") not in {None, "Pending", "InProgress", "Delayed"} else None

        return dict(until(get))

    return wait


@pytest.fixture(scope="session")
def run(send: Callable[..., str], ended: Callable[..., dict[str, Any]], instance: str) -> Callable[..., dict[str, Any]]:
    """`run(script, on=instance id, **parameters)` sends a command, waits for its end, and gives back the invocation."""

    def both(script: str | list[str], on: str = instance, **parameters: Any) -> dict[str, Any]:
        return ended(send(script, on, **parameters), on)

    return both
