"""Subnets for a quote: kept for some minutes, because a client to ask for them costs more than all the rest of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runctl_action.cloud.cache import Cache, Kept
from runctl_action.cloud.instances import Instances, Subnet
from runctl_action.cloud.session import Session

_AGE = timedelta(minutes=5)


class _Subnets(Kept):
    subnets: tuple[Subnet, ...]


class KnownSubnets:
    """What `Instances.subnets` says, or said a moment ago. A launch asks anew."""

    def __init__(
        self,
        session: Session,
        instances: Instances,
        cache: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._session = session
        self._instances = instances
        self._cache = Cache(cache / "subnets")
        self._now = now

    def of(self, chosen: Sequence[str]) -> tuple[Subnet, ...]:
        """Raises CloudError, as `Instances.subnets` does."""
        asked = (self._session.endpoint("ec2"), self._session.credentials_name, *chosen)
        of, now = hashlib.sha256(repr(asked).encode()).hexdigest(), self._now()
        name = f"{self._session.region}-{of[:16]}"
        if kept := self._cache.get(name, _Subnets, of, now - _AGE, now):
            return kept.subnets
        found = self._instances.subnets(chosen)
        self._cache.put(name, _Subnets(version=1, of=of, as_of=now, subnets=found))
        return found
