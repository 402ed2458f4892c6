"""IAM's decision, as far as this product's two policies need it: actions, resources, ${aws:userid}, tag conditions.

What is not understood is refused when the policy is read: a condition that is skipped would allow too much.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OPERATORS = {"StringEquals", "StringLike", "StringNotEquals", "Bool"}


@dataclass(frozen=True)
class Statement:
    allow: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Policy:
    """Made by `parse`; `allows` is true when a statement allows, and none denies."""

    statements: tuple[Statement, ...]

    def allows(self, action: str, resource: str, context: Mapping[str, str]) -> bool:
        """`context` holds condition keys such as aws:userid and aws:ResourceTag/NAME, by their lower-cased names."""
        hits = [s for s in self.statements if _applies(s, action, resource, context)]
        return any(s.allow for s in hits) and all(s.allow for s in hits)


EVERYTHING = Policy((Statement(allow=True, actions=("*",), resources=("*",), conditions=()),))


def parse(document: Mapping[str, Any]) -> Policy:
    """Raises ValueError for an element or operator that is not understood."""
    found = []
    for statement in _listed(document["Statement"]):
        if unknown := set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}:
            raise ValueError(f"a policy with {', '.join(sorted(unknown))} is not understood here")
        conditions = []
        for operator, tests in statement.get("Condition", {}).items():
            if operator not in _OPERATORS:
                raise ValueError(f"a policy's condition {operator} is not understood here")
            conditions += [(operator, key.lower(), tuple(map(str, _listed(values)))) for key, values in tests.items()]
        found.append(
            Statement(
                allow=statement["Effect"] == "Allow",
                actions=tuple(_listed(statement["Action"])),
                resources=tuple(_listed(statement["Resource"])),
                conditions=tuple(conditions),
            )
        )
    return Policy(tuple(found))


def _applies(statement: Statement, action: str, resource: str, context: Mapping[str, str]) -> bool:
    return (
        any(_like(pattern.lower(), action.lower()) for pattern in statement.actions)
        and any(_like(_filled(pattern, context), resource) for pattern in statement.resources)
        and all(_holds(operator, context.get(key), values, context) for operator, key, values in statement.conditions)
    )


def _holds(operator: str, seen: str | None, values: Sequence[str], context: Mapping[str, str]) -> bool:
    if operator == "StringNotEquals":
        return seen not in values
    if seen is None:
        return False
    if operator == "Bool":
        return seen.lower() in {value.lower() for value in values}
    filled = [_filled(value, context) for value in values]
    return seen in filled if operator == "StringEquals" else any(_like(pattern, seen) for pattern in filled)


def _filled(pattern: str, context: Mapping[str, str]) -> str:
    return re.sub(r"\$\{([^}]+)\}", lambda m: context.get(m[1].lower(), "\0"), pattern)


def _like(pattern: str, text: str) -> bool:
    """IAM's own wildcards: * and ?, nothing else."""
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
