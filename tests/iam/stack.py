"""infra/runctl.yaml, deployed into the emulator's CloudFormation (moto)."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runctl_action.emulator.server import Emulator
from runctl_action.emulator.state import ACCOUNT

TEMPLATE = Path(__file__).parents[2] / "infra" / "runctl.yaml"
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Stack:
    """`resources` are moto's, by logical id, where their condition holds."""

    aws: Emulator
    outputs: Mapping[str, str]
    resources: Mapping[str, Any]
    template: Mapping[str, Any]

    def properties(self, logical_id: str) -> dict[str, Any]:
        """As CloudFormation would send them: parameters, conditions and functions resolved."""
        from moto.cloudformation.parsing import clean_json

        return dict(clean_json(self.template["Resources"][logical_id]["Properties"], self.resources))

    def host_policy(self) -> dict[str, Any]:
        """Whatever is attached to the hosts' role, in one document."""
        return _policies_of(self.resources["HostRole"])

    def launcher_policy(self) -> dict[str, Any]:
        return _policies_of(self.resources["LauncherRole"])

    def trust_of(self, role: str) -> dict[str, Any]:
        return dict(json.loads(self.resources[role].assume_role_policy_document))


def deploy(aws: Emulator, **parameters: str) -> Stack:
    """A new stack of the template, byte for byte, by the account's owner."""
    from moto.cloudformation.models import cloudformation_backends

    from iam import moto_types  # noqa: F401  - moto looks for its types at its first stack

    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
    with contextlib.closing(aws.client("cloudformation")) as client:
        created = client.create_stack(
            StackName=f"runctl-{next(_NUMBERS)}", TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
            Capabilities=["CAPABILITY_IAM"], Parameters=given,
        )  # fmt: skip
        described = client.describe_stacks(StackName=created["StackId"])["Stacks"][0]
    assert described["StackStatus"] == "CREATE_COMPLETE"
    made = cloudformation_backends[ACCOUNT][aws.world.region].stacks[created["StackId"]]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    return Stack(aws, outputs, made.resource_map, made.template_dict)


def _policies_of(role: Any) -> dict[str, Any]:
    attached = [managed.versions[-1].document for managed in role.managed_policies.values()]
    # moto keeps some of them as text.
    found = [*role.policies.values(), *attached]
    documents = [json.loads(document) if isinstance(document, str) else document for document in found]
    assert {document["Version"] for document in documents} == {"2012-10-17"}
    return {"Version": "2012-10-17", "Statement": [one for document in documents for one in document["Statement"]]}
