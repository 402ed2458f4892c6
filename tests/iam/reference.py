"""AWS's service authorization reference, as cfn-lint ships it: which resources an action has, and their condition keys."""

from __future__ import annotations

import functools
import json
import re
from importlib.resources import files
from typing import Any


@functools.cache
def _services() -> dict[str, Any]:
    text = files("cfnlint.data.AdditionalSpecs").joinpath("Policies.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@functools.cache
def kinds(action: str) -> dict[str, tuple[str, ...]]:
    """The kinds of resources that an action is authorised on: the condition keys of each, by the pattern of its ARN.
    Empty where AWS has none, so that "*" is all one can say. Raises KeyError for what is no action."""
    service, _, name = action.partition(":")
    known = _services()[service]
    resources = {kind.lower(): found for kind, found in known["Resources"].items()}
    return {
        arn: tuple(resources[kind.lower()].get("ConditionKeys", ()))
        for kind in known["Actions"][name.lower()].get("Resources", ())
        for arn in resources[kind.lower()].get("ARNFormats", ())
    }


def is_of(arn: str, pattern: str) -> bool:
    """Whether a policy's resource is one of this kind. AWS's own have no account."""
    filled = re.sub(r"\$\{(Account|Region)\}", "[a-z0-9-]*", pattern).replace("${Partition}", "aws")
    return re.fullmatch(re.sub(r"\$\{\w+\}", ".+", filled), arn) is not None
