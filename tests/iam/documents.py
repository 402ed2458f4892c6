"""Policy documents as data: what they grant, and the same with something taken away."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Grant:
    """One member of one list of a statement: `element` is Action, Resource or Condition."""

    sid: str
    element: str
    value: str

    def __str__(self) -> str:
        return (
            f"{self.sid}-{self.element}-{self.value.rsplit(':', 1)[-1] if self.element == 'Resource' else self.value}"
        )


def grants(document: Document, *elements: str) -> Iterator[Grant]:
    """Every action, resource or condition (as "OPERATOR KEY") that could be taken away by itself."""
    for statement in document["Statement"]:
        for element in elements:
            for value in _values(statement, element):
                yield Grant(statement["Sid"], element, value)


def actions(document: Document) -> set[str]:
    return {grant.value for grant in grants(document, "Action")}


def without(document: Document, taken: Grant) -> dict[str, Any]:
    """A statement that has nothing left of a list is gone with it; one without a condition holds always."""
    changed = copy.deepcopy(dict(document))
    statement = next(s for s in changed["Statement"] if s["Sid"] == taken.sid)
    if taken.element == "Condition":
        operator, _, key = taken.value.partition(" ")
        del statement["Condition"][operator][key]
        return changed
    left = [value for value in listed(statement[taken.element]) if value != taken.value]
    statement[taken.element] = left
    if not left:
        changed["Statement"].remove(statement)
    return changed


def lacking(document: Document, action: str) -> dict[str, Any]:
    """Without `action`, whichever statements grant it."""
    for grant in [grant for grant in grants(document, "Action") if grant.value == action]:
        document = without(document, grant)
    return dict(document)


def _values(statement: Mapping[str, Any], element: str) -> list[str]:
    if element == "Condition":
        return [f"{operator} {key}" for operator, tests in statement.get("Condition", {}).items() for key in tests]
    return listed(statement[element])


def listed(value: Any) -> list[str]:
    """A policy may leave the brackets out."""
    return list(value) if isinstance(value, list) else [value]
