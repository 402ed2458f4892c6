"""What the parts of the emulator share: the instances that there are, and what was asked to go wrong."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runctl_action.emulator.faults import Faults
from runctl_action.emulator.hosts import Host

ACCOUNT = "123456789012"


@dataclass
class Delays:
    """Seconds: from launch to running, from running to SSM online."""

    running: float = 0.0
    online: float = 0.0


@dataclass
class EmulatedInstance:
    id: str
    type: str
    zone: str
    market: str
    role_id: str | None
    role_name: str | None
    shutdown_behaviour: str
    image_id: str
    host: Host
    state: str = "pending"
    is_online: bool = False
    notice_at: str | None = None
    access_key: str = field(default_factory=lambda: "ASIA" + secrets.token_hex(8).upper())
    secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(30))
    token: str = field(default_factory=lambda: secrets.token_urlsafe(60))

    @property
    def userid(self) -> str:
        """IAM's aws:userid of the instance role's session."""
        return f"{self.role_id}:{self.id}"


@dataclass
class World:
    directory: Path
    region: str
    delays: Delays
    faults: Faults
    ami_environment: Mapping[str, str] = field(default_factory=dict)
    instances: dict[str, EmulatedInstance] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    endpoint: str = ""
    seconds_per_minute: float = 60.0

    def by_access_key(self, access_key: str) -> EmulatedInstance | None:
        return next((i for i in self.instances.values() if i.access_key == access_key), None)
