"""A policy that holds, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runctl_action.emulator import policies


@dataclass(frozen=True)
class Asked:
    """What a request needed: one action on one resource, with the values of condition keys."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...]

    def is_allowed_by(self, policy: policies.Policy) -> bool:
        return policy.allows(self.action, self.resource, dict(self.context))


class Recorded:
    """In the place of a `policies.Policy` of the emulator: `asked` is what it was asked, and whether it allowed that.
    `document` may be exchanged at any time; `refuses` is for what is to fail although it is allowed."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.asked: list[tuple[Asked, bool]] = []
        self.refuses: Callable[[Asked], bool] = lambda _: False

    @property
    def document(self) -> Mapping[str, Any]:
        return self._document

    @document.setter
    def document(self, document: Mapping[str, Any]) -> None:
        self._document, self._policy = document, policies.parse(document)

    def allows(self, action: str, resource: str, context: Mapping[str, str]) -> bool:
        asked = Asked(action, resource, tuple(sorted(context.items())))
        may = asked.is_allowed_by(self._policy) and not self.refuses(asked)
        self.asked.append((asked, may))
        return may
