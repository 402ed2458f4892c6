"""The instance metadata service, version 2, one tree per host."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from runctl_action.emulator.instances import Lives
from runctl_action.emulator.state import ACCOUNT, Credential, EmulatedInstance, World

Answer = tuple[int, str]

_MAX_TTL_SECONDS = 21_600


class Imds:
    def __init__(self, world: World, lives: Lives) -> None:
        self._world = world
        self._lives = lives
        self._tokens: dict[str, tuple[str, float]] = {}

    def handle(self, url: str, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        """(status, body) of a request to `path` (without the leading slash) by the host whose service is at `url`."""
        instance = next((i for i in list(self._world.instances.values()) if i.metadata_url == url), None)
        if instance is None or instance.state not in {"pending", "running"}:
            return 404, ""
        if method == "PUT" and path == "latest/api/token":
            ttl = headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
            if not re.fullmatch(r"[0-9]{1,5}", ttl) or not 1 <= int(ttl) <= _MAX_TTL_SECONDS:
                return 400, ""
            token = secrets.token_urlsafe(24)
            self._tokens[token] = instance.id, time.monotonic() + int(ttl)
            return 200, token
        owner, ends_at = self._tokens.get(headers.get("X-aws-ec2-metadata-token", ""), ("", 0.0))
        if owner != instance.id or time.monotonic() > ends_at:
            return 401, ""
        if method not in {"GET", "HEAD"}:
            return 405, ""
        found = self._tree(instance).get(path.rstrip("/"))
        return (200, found) if found is not None else (404, "")

    def _tree(self, instance: EmulatedInstance) -> dict[str, str]:
        region = self._world.region
        tree = {
            "instance-id": instance.id,
            "instance-type": instance.type,
            "instance-life-cycle": "spot" if instance.market == "spot" else "on-demand",
            "ami-id": instance.image_id,
            "placement/availability-zone": instance.zone,
            "placement/region": region,
        }
        if instance.role_name:
            tree["iam/security-credentials"] = instance.role_name
            tree[f"iam/security-credentials/{instance.role_name}"] = json.dumps(
                _document(self._lives.credentials(instance))
            )
        if instance.notice_at:
            tree["spot/instance-action"] = json.dumps({"action": "terminate", "time": instance.notice_at})
        identity = {
            "instanceId": instance.id,
            "instanceType": instance.type,
            "imageId": instance.image_id,
            "availabilityZone": instance.zone,
            "region": region,
            "accountId": ACCOUNT,
            "version": "2017-09-30",
        }
        return {f"latest/meta-data/{path}": value for path, value in tree.items()} | {
            "latest/dynamic/instance-identity/document": json.dumps(identity)
        }


def _document(found: Credential) -> dict[str, str]:
    assert found.expires_at is not None
    assert found.token is not None
    return {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Expiration": found.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "AccessKeyId": found.access_key,
        "SecretAccessKey": found.secret,
        "Token": found.token,
    }
