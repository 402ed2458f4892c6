"""A launcher whose policy lacks an action: the product names it, before it spends anything where that can be known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scene import Scene

SCRIPT = "print('trained')"


@pytest.fixture(autouse=True, scope="module")
def _clear(scene: Scene) -> Iterator[None]:
    yield
    scene.clear()


@pytest.fixture(scope="module")
def root(scene: Scene) -> Path:
    return scene.repository(SCRIPT)


def launched(scene: Scene) -> int:
    return len(scene.aws.world.instances)


@pytest.mark.parametrize(
    "action",
    [
        "s3:ListBucket", "iam:GetInstanceProfile", "ec2:DescribeInstanceTypes", "ssm:GetParameter",
        "ec2:DescribeImages", "ec2:DescribeSubnets", "s3:PutObject", "ec2:RunInstances", "ec2:CreateTags", "iam:PassRole",
    ],
)  # fmt: skip
def test_what_is_missing_is_named_before_anything_is_launched(scene: Scene, root: Path, action: str) -> None:
    before = launched(scene)
    scene.commit(root)
    with scene.lacking(scene.launcher, action):
        said = scene.train(root)
    assert said.code == 4, said.text
    assert f"{action} on" in said.text or f"{action} is not allowed" in said.text
    assert launched(scene) == before


@pytest.mark.parametrize("action", ["ec2:DescribeInstances", "ssm:SendCommand", "ssm:GetCommandInvocation"])
def test_what_is_missing_is_named_when_it_is_needed(scene: Scene, root: Path, action: str) -> None:
    scene.commit(root)
    with scene.lacking(scene.launcher, action):
        said = scene.train(root)
    assert said.code == 4, said.text
    assert f"{action} is not allowed" in said.text


@pytest.mark.parametrize("action", ["pricing:GetProducts", "ec2:DescribeSpotPriceHistory"])
def test_prices_that_may_not_be_asked_for_are_unknown(scene: Scene, root: Path, action: str) -> None:
    with scene.lacking(scene.launcher, action):
        said = scene.runctl(root, "quote", "train.py", XDG_CACHE_HOME=str(root / action))
    assert said.code == 0, said.text
    assert f"{action} is not allowed" in said.text


@pytest.mark.parametrize("action", ["s3:GetObject"])
def test_what_a_host_lacks_is_named_too(scene: Scene, root: Path, action: str) -> None:
    scene.commit(root)
    with scene.lacking(scene.host, action):
        said = scene.train(root)
    assert said.code in {4, 5}, said.text
    assert action in said.text
