"""The template's two policies are what the product needs, and nothing else: everything is done under them, and what it
asked of IAM is compared with what they grant, both ways."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from iam import Asked, Grant, Stack, actions, grants, listed, without
from scenarios import SCENARIOS
from scene import Scene

from runctl_action.emulator import policies

SERVICES = ("ec2", "iam", "kms", "pricing", "s3", "secretsmanager", "servicequotas", "ssm", "sts")
# Who asks, not what for: no policy can keep somebody from it.
FREE = {"sts:GetCallerIdentity"}
# What the emulator cannot see, with who asks for it.
UNSEEN = {
    "host": dict.fromkeys(
        (
            "ssm:UpdateInstanceInformation",
            "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
            "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage",
            "ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply",
        ),
        "the SSM agent, which is the image's; the emulator's has no network to cross",
    ),
    "launcher": {
        "iam:CreateServiceLinkedRole": "EC2 itself, in an account that has never launched a spot instance",
        "servicequotas:GetAWSDefaultServiceQuota": "the doctor, of a quota that AWS knows by its default alone",
    },
}  # fmt: skip


class Played:
    """Scenarios, each played once, and what was asked of IAM meanwhile; how one failed is told whenever it is asked for."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._failed: dict[str, BaseException | None] = {}
        self.documents = {"launcher": scene.launcher.document, "host": scene.host.document}
        self.policies = {who: policies.parse(document) for who, document in self.documents.items()}
        self.asked: dict[str, set[Asked]] = {"launcher": set(), "host": set()}

    def play(self, scenario: Callable[[Scene], None]) -> None:
        name = scenario.__name__
        if name not in self._failed:
            self._failed[name] = AssertionError(f"{name} has not come to its end")
            before = {who: len(getattr(self._scene, who).asked) for who in self.asked}
            try:
                scenario(self._scene)
                self._failed[name] = None
            except AssertionError as error:
                self._failed[name] = error
            for who, begin in before.items():
                self.asked[who] |= {asked for asked, _ in getattr(self._scene, who).asked[begin:]}
        if (error := self._failed[name]) is not None:
            raise error


@pytest.fixture(scope="session")
def played(scene: Scene) -> Played:
    return Played(scene)


@pytest.fixture(scope="session")
def all_played(played: Played) -> Played:
    for scenario in SCENARIOS:
        played.play(scenario)
    return played


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_it_works_under_the_two_policies(scenario: Callable[[Scene], None], played: Played) -> None:
    played.play(scenario)


@pytest.mark.parametrize("who", ["launcher", "host"])
def test_nothing_was_asked_for_that_is_not_granted(all_played: Played, who: str) -> None:
    """What a scenario refuses on purpose is granted."""
    asked = {asked for asked in all_played.asked[who] if asked.action not in FREE}
    assert {found for found in asked if not found.is_allowed_by(all_played.policies[who])} == set()


@pytest.mark.parametrize("who", ["launcher", "host"])
def test_the_actions_that_were_asked_for_are_those_that_are_granted(all_played: Played, who: str) -> None:
    seen = {asked.action for asked in all_played.asked[who]}
    assert seen - FREE | set(UNSEEN[who]) == actions(all_played.documents[who])
    assert not seen & set(UNSEEN[who])


@pytest.mark.parametrize("who", ["launcher", "host"])
def test_no_action_and_no_resource_of_any_statement_could_be_left_out(all_played: Played, who: str) -> None:
    """Each is taken away, and what was asked is decided again."""
    document = all_played.documents[who]
    of = {statement["Sid"]: set(listed(statement["Action"])) for statement in document["Statement"]}

    def is_needed(grant: Grant) -> bool:
        left = policies.parse(without(document, grant))
        return any(not asked.is_allowed_by(left) for asked in all_played.asked[who] if asked.action in of[grant.sid])

    unseen = set(UNSEEN[who])
    found = [g for g in grants(document, "Action", "Resource") if of[g.sid] - unseen and g.value not in unseen]
    assert [str(grant) for grant in found if not is_needed(grant)] == []


def test_the_actions_that_the_code_names_are_granted(stack: Stack) -> None:
    """Every call is made under the name of its action, for its error: what no scenario reaches is found here."""
    named = {
        found[0]
        for file in (Path(__file__).parents[3] / "runctl_action").rglob("*.py")
        if "emulator" not in file.parts
        for found in re.finditer(rf"\b({'|'.join(SERVICES)}):[A-Z][A-Za-z]*[a-z]\b", file.read_text(encoding="utf-8"))
    }
    granted = actions(stack.launcher_policy()) | actions(stack.host_policy())
    # With a key of one's own: the parameter KmsKeyArn.
    assert named - FREE - {"kms:Decrypt"} <= granted
