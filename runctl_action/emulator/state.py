"""What the parts of the emulator share: the account, its credentials, the instances, and what is to go wrong."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runctl_action.emulator import policies
from runctl_action.emulator.faults import Faults
from runctl_action.emulator.hosts import Host

ACCOUNT = "123456789012"
BUCKET = "runctl-emulated"
PREFIX = "runctl"
PROFILE = "runctl-host"
LAUNCHER_ROLE = "runctl-launcher"


@dataclass
class Delays:
    """Seconds: from launch to visible in Describe calls, to running, from running to SSM online, and from an end to
    its last state (through shutting-down or stopping)."""

    visible: float = 0.0
    running: float = 0.0
    online: float = 0.0
    ending: float = 0.0


@dataclass
class Credential:
    """An access key. `userid` and `arn` are GetCallerIdentity's answer; `token` and `expires_at` are a session's."""

    access_key: str
    secret: str
    userid: str
    arn: str
    policy: policies.Policy
    token: str | None = None
    expires_at: datetime | None = None
    instance_id: str | None = None


@dataclass
class EmulatedInstance:
    """One instance beside moto's own record of it; `state` is EC2's word."""

    id: str
    type: str
    zone: str
    market: str
    role_id: str | None
    role_name: str | None
    shutdown_behaviour: str
    image_id: str
    host: Host
    visible_at: float
    # Where it finds its metadata. On EC2 a network address keeps instances apart; here nobody can guess another's.
    metadata_url: str
    is_one_time: bool = False
    state: str = "pending"
    is_online: bool = False
    is_frozen: bool = False
    is_cut_off: bool = False
    notice_at: str | None = None
    pinged_at: float = 0.0

    @property
    def userid(self) -> str:
        """IAM's aws:userid of the instance role's session: role id, colon, instance id."""
        return f"{self.role_id}:{self.id}"


@dataclass
class World:
    """`seconds_per_minute`: real seconds that an emulated minute takes, for power-off timers and spot reclaims."""

    directory: Path
    region: str
    delays: Delays
    faults: Faults
    ami_environment: Mapping[str, str] = field(default_factory=dict)
    instances: dict[str, EmulatedInstance] = field(default_factory=dict)
    credentials: dict[str, Credential] = field(default_factory=dict)
    host_policy: policies.Policy = policies.EVERYTHING
    launcher_policy: policies.Policy = policies.EVERYTHING
    lock: threading.RLock = field(default_factory=threading.RLock)
    endpoint: str = ""
    seconds_per_minute: float = 60.0

    def session(
        self, userid: str, arn: str, policy: policies.Policy, *, lasts: timedelta, instance_id: str | None = None
    ) -> Credential:
        """New temporary credentials, known from now on."""
        found = Credential(
            access_key="ASIA" + secrets.token_hex(8).upper(),
            secret=secrets.token_urlsafe(30),
            userid=userid,
            arn=arn,
            policy=policy,
            token=secrets.token_urlsafe(60),
            expires_at=datetime.now(UTC) + lasts,
            instance_id=instance_id,
        )
        self.credentials[found.access_key] = found
        return found

    def caller(self, access_key: str) -> EmulatedInstance | None:
        """The instance whose role's credentials these are."""
        credential = self.credentials.get(access_key)
        return self.instances.get(credential.instance_id) if credential and credential.instance_id else None


def in_background(action: Callable[[], object], after_seconds: float = 0.0) -> None:
    """Does `action` later, in a thread that keeps nothing alive."""
    timer = threading.Timer(max(0.0, after_seconds), action)
    timer.daemon = True
    timer.start()
