"""The launch call: RunInstances with tags, deadline and the boot timer, which arm the lease."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runctl_action.cloud.instances import Image
from runctl_action.contract.documents import Offer
from runctl_action.contract.layout import TAG_ATTEMPT, TAG_BUCKET, TAG_DEADLINE, TAG_RUN


def launch_parameters(
    offer: Offer,
    image: Image,
    *,
    run_id: str,
    attempt: int,
    bucket: str,
    deadline: datetime,
    lease_minutes: int,
    instance_profile: str,
    security_groups: Sequence[str] = (),
    volume_gib: int | None = None,
) -> dict[str, Any]:
    """RunInstances' parameters without the ClientToken: the lease is a part of the launch call itself."""
    tags = [
        {"Key": "Name", "Value": f"runctl {run_id}"},
        {"Key": TAG_RUN, "Value": run_id},
        {"Key": TAG_ATTEMPT, "Value": str(attempt)},
        {"Key": TAG_DEADLINE, "Value": deadline.astimezone(UTC).isoformat(timespec="seconds")},
        {"Key": TAG_BUCKET, "Value": bucket},
    ]
    ebs = {"VolumeType": "gp3", "DeleteOnTermination": True, "VolumeSize": max(volume_gib or 0, image.root_gib)}
    parameters: dict[str, Any] = {
        "ImageId": image.id,
        "InstanceType": offer.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "UserData": user_data(lease_minutes),
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled"},
        "IamInstanceProfile": {"Name": instance_profile},
        "BlockDeviceMappings": [{"DeviceName": image.root_device, "Ebs": ebs}],
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }
    if offer.subnet:
        parameters["SubnetId"] = offer.subnet
    if security_groups:
        parameters["SecurityGroupIds"] = list(security_groups)
    if offer.market == "spot":
        spot = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        parameters["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": spot}
    return parameters


# cloud-init runs a boothook early and at every boot. There, `shutdown +N` may find no logind yet and then powers off at
# once, so the timer is systemd's own; `shutdown` is for images without systemd. The second timer is for a guest that
# ignores the first. The host process replaces both once a run has started.
_BOOT_TIMER = """#cloud-boothook
#!/bin/sh
arm() {{ systemd-run --quiet --collect --unit="$1" --on-active="$2" $3; }}
systemctl stop runctl-lease.timer runctl-lease-forced.timer >/dev/null 2>&1
if arm runctl-lease {seconds} "shutdown -h now" && arm runctl-lease-forced {forced} "poweroff -f"; then exit 0; fi
shutdown -h +{minutes}
"""


def user_data(lease_minutes: int) -> str:
    """The boot timer: the instance powers itself off after `lease_minutes` unless a run replaces this lease."""
    return _BOOT_TIMER.format(seconds=lease_minutes * 60, forced=lease_minutes * 60 + 300, minutes=lease_minutes)


def token_bytes(parameters: Mapping[str, Any]) -> bytes:
    """A canonical form of the launch parameters, to derive their ClientToken from."""
    return base64.b85encode(repr(sorted(parameters.items())).encode())
