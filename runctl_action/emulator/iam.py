"""IAM, where moto has none of it: what a role's policies would answer, without doing anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from runctl_action.emulator import policies
from runctl_action.emulator.state import ACCOUNT
from runctl_action.emulator.wire import Answer, ApiError, Call, as_xml

_NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"


class Iam:
    def handle(self, call: Call) -> Answer | None:
        """None for what is moto's. Raises ApiError."""
        return _simulated(call) if call.action == "SimulatePrincipalPolicy" else None


def _simulated(call: Call) -> Answer:
    """Identity policies only, as the real one without a ResourcePolicy."""
    role = _role(call.form.get("PolicySourceArn", ""))
    try:
        policy = policies.merged(policies.parse(document) for document in _documents(role))
    except ValueError as error:
        raise ApiError("PolicyEvaluation", str(error), 500) from None
    context = {key.lower(): value for key, value in _context(call.form)}
    results = "".join(
        f"<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{resource}</EvalResourceName>"
        f"<EvalDecision>{policy.decides(action, resource, context)}</EvalDecision></member>"
        for action in _members(call.form, "ActionNames")
        for resource in _members(call.form, "ResourceArns") or ["*"]
    )
    inside = f"<EvaluationResults>{results}</EvaluationResults><IsTruncated>false</IsTruncated>"
    return as_xml(call.action, inside, _NAMESPACE)


def _role(arn: str) -> Any:
    from moto.iam.models import iam_backends

    for role in iam_backends[ACCOUNT]["aws"].roles.values():
        if role.arn == arn:
            return role
    raise ApiError("NoSuchEntity", f"{arn} is no role of this account.", 404)


def _documents(role: Any) -> Iterable[dict[str, Any]]:
    """Inline ones, and those that are attached."""
    attached = (
        version.document
        for managed in role.managed_policies.values()
        for version in managed.versions
        if version.version_id == managed.default_version_id
    )
    for text in [*role.policies.values(), *attached]:
        yield json.loads(text) if isinstance(text, str) else text


def _members(form: dict[str, str], name: str) -> list[str]:
    numbered = [(int(m[1]), v) for k, v in form.items() if (m := re.fullmatch(rf"{name}\.member\.(\d+)", k))]
    return [value for _, value in sorted(numbered)]


def _context(form: dict[str, str]) -> Iterable[tuple[str, str]]:
    """Of a key with several values, the first."""
    for name, key in form.items():
        if name.startswith("ContextEntries.member.") and name.endswith(".ContextKeyName"):
            yield key, form.get(name.removesuffix("ContextKeyName") + "ContextKeyValues.member.1", "")
