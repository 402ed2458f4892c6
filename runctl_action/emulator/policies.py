"""IAM's decision, as far as this product's two policies need it: actions, resources, ${aws:userid}, tag conditions.

What is not understood is refused when the policy is read: a condition that is skipped would allow too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OPERATORS = {"StringEquals", "StringLike", "StringNotEquals", "Bool"}
# Those that have a value here where AWS has one (service authorization reference). Of any other it could not be told
# whether AWS has none either, or only this emulator.
_KEYS = re.compile(
    r"aws:(userid|requestedregion|securetransport|(requesttag|resourcetag)/.+)|(ec2|ssm):resourcetag/.+|s3:prefix"
    r"|ec2:(createaction|instancetype|sourceinstancearn)|iam:(passedtoservice|awsservicename)|[a-z0-9.-]+\.[a-z]+:(aud|sub)"
)
# Without a default value (`${aws:userid, 'nobody'}`), and none of the escapes ${*}, ${?} and ${$}.
_VARIABLE = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9:/._-]+")


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
        return self.decides(action, resource, context) == "allowed"

    def decides(self, action: str, resource: str, context: Mapping[str, str]) -> str:
        """As IAM's simulator says it: allowed, explicitDeny, implicitDeny."""
        hits = [s for s in self.statements if _applies(s, action, resource, context)]
        if not hits:
            return "implicitDeny"
        return "allowed" if all(s.allow for s in hits) else "explicitDeny"


EVERYTHING = Policy((Statement(allow=True, actions=("*",), resources=("*",), conditions=()),))


def merged(found: Iterable[Policy]) -> Policy:
    """What several policies allow together."""
    return Policy(tuple(statement for policy in found for statement in policy.statements))


def parse(document: Mapping[str, Any]) -> Policy:
    """Raises ValueError for an element, operator or variable that is not understood, or one that is missing."""
    found = []
    for statement in _listed(document.get("Statement", ())):
        if unknown := set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}:
            raise ValueError(f"a policy with {', '.join(sorted(unknown))} is not understood here")
        if missing := {"Effect", "Action", "Resource"} - set(statement):
            raise ValueError(f"a policy's statement has no {', '.join(sorted(missing))}")
        if statement["Effect"] not in {"Allow", "Deny"}:
            raise ValueError(f"a policy's effect is Allow or Deny, not {statement['Effect']!r}")
        _require_known_variables(document, statement)
        conditions = []
        for operator, tests in statement.get("Condition", {}).items():
            if operator not in _OPERATORS:
                raise ValueError(f"a policy's condition {operator} is not understood here")
            if unknown := {key for key in tests if not _KEYS.fullmatch(key.lower())}:
                raise ValueError(f"a policy's condition key {', '.join(sorted(unknown))} is not understood here")
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


def of_resource(document: Mapping[str, Any], kind: str, principal: str) -> Policy:
    """A resource's own policy (a bucket's, a role's trust policy), as far as it speaks of `principal`, which is of
    `kind` AWS, Federated or Service. Raises ValueError, as `parse` does."""
    found = []
    for statement in _listed(document.get("Statement", ())):
        named = statement.get("Principal", {})
        if named == "*" or principal in _listed(named.get(kind, ())):
            rest = {name: value for name, value in statement.items() if name != "Principal"}
            # A role's trust policy is about that role, and names no resource.
            found.append({"Resource": "*", **rest})
    return parse({**document, "Statement": found})


def _require_known_variables(document: Mapping[str, Any], statement: Mapping[str, Any]) -> None:
    texts = [*_listed(statement["Resource"])]
    for tests in statement.get("Condition", {}).values():
        texts += [str(value) for values in tests.values() for value in _listed(values)]
    if variables := {name for text in texts for name in re.findall(r"\$\{([^}]*)\}", text)}:
        if document.get("Version") != "2012-10-17":
            raise ValueError("a policy has variables only with Version 2012-10-17")
        if unknown := {name for name in variables if not _VARIABLE.fullmatch(name)}:
            raise ValueError(f"a policy's variable {', '.join(sorted(unknown))} is not understood here")


def _applies(statement: Statement, action: str, resource: str, context: Mapping[str, str]) -> bool:
    return (
        any(_like(pattern.lower(), action.lower()) for pattern in statement.actions)
        and any(_like(_filled(pattern, context), resource) for pattern in statement.resources)
        and all(_holds(operator, context.get(key), values, context) for operator, key, values in statement.conditions)
    )


def _holds(operator: str, seen: str | None, values: Sequence[str], context: Mapping[str, str]) -> bool:
    if operator == "StringNotEquals":
        return seen not in [_filled(value, context) for value in values]
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
