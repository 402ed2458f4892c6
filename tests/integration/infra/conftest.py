"""The template's stack in the emulated AWS, and its two roles at work: a launcher and its hosts, with nothing else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runctl_action.emulator.server import Emulator
from runctl_action.emulator.state import ACCOUNT

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

from iam import Stack, deploy
from scene import Scene

REPOSITORY = "acme/digits"


@pytest.fixture(scope="session")
def stack(aws: Emulator) -> Stack:
    """With one secret in each of the two stores, which hosts may read."""
    with contextlib.closing(aws.client("ssm")) as ssm, contextlib.closing(aws.client("secretsmanager")) as manager:
        ssm.put_parameter(Name="/team/wandb", Type="SecureString", Value="of parameter store")
        secret = manager.create_secret(Name="team/hf", SecretString="of secrets manager")["ARN"]
    parameter = f"arn:aws:ssm:{aws.world.region}:{ACCOUNT}:parameter/team/wandb"
    return deploy(aws, Repository=REPOSITORY, SecretParameterArns=parameter, SecretArns=secret)


@pytest.fixture(scope="session")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Scene(stack, tmp_path_factory.mktemp("scene")) as scene:
        yield scene


@pytest.fixture(scope="module", autouse=True)
def _enforced(aws: Emulator, scene: Scene) -> Iterator[None]:
    """The two policies, and nothing else, as long as these modules run: the emulator is the others' too."""
    before = aws.world.launcher_policy, aws.world.host_policy
    aws.world.launcher_policy, aws.world.host_policy = scene.launcher, scene.host  # type: ignore[assignment]
    yield
    aws.world.launcher_policy, aws.world.host_policy = before
