"""EC2's life of an instance, around moto's bookkeeping: states with delays, idempotent launches, hosts that boot."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from runctl_action.emulator.hosts import Host
from runctl_action.emulator.state import ACCOUNT, EmulatedInstance, World

# The public parameters that there are, by the image that each names.
_CANONICAL = "/aws/service/canonical/ubuntu/server/24.04/stable/current"
_DEEP_LEARNING = "/aws/service/deeplearning/ami"
IMAGES = {
    f"{_CANONICAL}/amd64/hvm/ebs-gp3/ami-id": ("ami-0000000000ubuntu1", "x86_64"),
    f"{_CANONICAL}/arm64/hvm/ebs-gp3/ami-id": ("ami-0000000000ubuntu2", "arm64"),
    f"{_DEEP_LEARNING}/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id": (
        "ami-00000000000dlami1",
        "x86_64",
    ),
    f"{_DEEP_LEARNING}/arm64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id": ("ami-00000000000dlami2", "arm64"),
    "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64": ("ami-000000000amazon01", "x86_64"),
}


class Refusal(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Ec2:
    def __init__(self, world: World) -> None:
        self._world = world
        self._tokens: dict[str, tuple[str, bytes]] = {}
        self._phases: set[tuple[str, str, str]] = set()

    def prepare(self) -> None:
        """Registers the images, so that DescribeImages knows what the public parameters name."""
        from moto.ec2.models.amis import Ami

        backend = self._backend()
        for parameter, (image_id, architecture) in IMAGES.items():
            backend.amis[image_id] = Ami(
                backend, image_id, name=parameter.split("/")[3], architecture=architecture, root_device_type="ebs",
                root_device_name="/dev/sda1", virtualization_type="hvm", public=True,
            )  # fmt: skip

    def before_launch(self, form: Mapping[str, str]) -> str | None:
        """Checks a RunInstances. The instance of an earlier call with the same token, or None. Raises Refusal."""
        request = _request(form)
        token = form.get("ClientToken", "")
        if token in self._tokens:
            instance_id, earlier = self._tokens[token]
            if earlier != request:
                raise Refusal("IdempotentParameterMismatch", "The token was used with other parameters")
            return instance_id
        market = "spot" if form.get("InstanceMarketOptions.MarketType") == "spot" else "on-demand"
        kind, zone = form.get("InstanceType", ""), self._zone(form)
        if form.get("ImageId", "") not in self._backend().amis:
            raise Refusal("InvalidAMIID.NotFound", f"The image id '[{form.get('ImageId')}]' does not exist")
        if self._world.faults.take("no-capacity", market=market, type=kind, zone=zone):
            raise Refusal(
                "InsufficientInstanceCapacity", f"We currently do not have sufficient {kind} capacity in {zone}."
            )
        if self._world.faults.take("quota", market=market, type=kind):
            code = "MaxSpotInstanceCountExceeded" if market == "spot" else "VcpuLimitExceeded"
            raise Refusal(code, "You have requested more than your current quota allows.")
        return None

    def launched(self, instance_id: str, form: Mapping[str, str], user_data: bytes | None) -> None:
        """moto has made the instance: it is pending, and boots after its delay."""
        moto = self._backend().get_instance_by_id(instance_id)
        profile = form.get("IamInstanceProfile.Name") or form.get("IamInstanceProfile.Arn", "").rsplit("/", 1)[-1]
        role = self._role(profile)
        token = form.get("ClientToken")
        if token:
            self._tokens[token] = (instance_id, _request(form))
        moto._state.name, moto._state.code = "pending", 0  # noqa: SLF001
        metadata = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{self._world.endpoint}/imds/{instance_id}/"}
        host = Host(
            instance_id,
            self._world.directory / instance_id,
            ami_environment=dict(self._world.ami_environment) | metadata,
            user_data=None if self._world.faults.take("no-user-data") else user_data,
            on_power=lambda event: self._on_power(instance_id, event),
            seconds_per_minute=self._world.seconds_per_minute,
        )
        instance = EmulatedInstance(
            id=instance_id,
            type=moto.instance_type,
            zone=moto.placement.zone or self._zone(form),
            market="spot" if moto.lifecycle == "spot" else "on-demand",
            role_id=role.id if role else None,
            role_name=role.name if role else None,
            shutdown_behaviour=form.get("InstanceInitiatedShutdownBehavior", "stop"),
            image_id=moto.image_id,
            host=host,
        )
        with self._world.lock:
            self._world.instances[instance_id] = instance
        threading.Thread(target=self._boot, args=(instance,), daemon=True).start()

    def end(self, instance_id: str, state: str, reason_code: str, message: str) -> None:
        """Takes an instance to `stopped` or `terminated`: its processes first, then what DescribeInstances shows."""
        with self._world.lock:
            instance = self._world.instances.get(instance_id)
            if instance is None or instance.state == "terminated":
                return
            instance.state, instance.is_online = state, False
        moto = self._backend().get_instance_by_id(instance_id)
        if state == "terminated":
            moto.terminate()
            instance.host.destroy()
        else:
            moto.stop()
            instance.host.halt()
        moto.state_reason.code, moto.state_reason.message = reason_code, message

    def started_again(self, instance_id: str) -> None:
        """StartInstances of a stopped one: it boots with the disk that it had."""
        instance = self._world.instances.get(instance_id)
        if instance is not None and instance.state == "stopped":
            instance.state = "pending"
            threading.Thread(target=self._boot, args=(instance,), daemon=True).start()

    def give_notice(self, instance_id: str, *, reclaim_after_minutes: float | None = 2) -> None:
        """A spot notice, and the reclaim that follows it."""
        instance = self._world.instances[instance_id]
        when = datetime.now(UTC) + timedelta(minutes=2)
        instance.notice_at = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        if reclaim_after_minutes is not None:
            seconds = reclaim_after_minutes * self._world.seconds_per_minute
            timer = threading.Timer(seconds, self.reclaim, args=(instance_id,))
            timer.daemon = True
            timer.start()

    def reclaim(self, instance_id: str) -> None:
        """AWS takes a spot instance back."""
        self.end(instance_id, "terminated", "Server.SpotInstanceTermination", "Server.SpotInstanceTermination")

    def die(self, instance_id: str) -> None:
        self.end(instance_id, "terminated", "Client.InstanceInitiatedShutdown", "Client.InstanceInitiatedShutdown")

    def on_phase(self, instance_id: str, phase: str) -> None:
        """A host has written a status with this phase: the faults that wait for it happen."""
        for kind, action in (("spot-notice", self.give_notice), ("reclaim", self.reclaim), ("die", self.die)):
            fault = self._world.faults.take(kind, phase=phase) if self._is_new(instance_id, phase, kind) else None
            if fault is not None:
                timer = threading.Timer(float(fault.where.get("after", "0")), action, args=(instance_id,))
                timer.daemon = True
                timer.start()

    def _is_new(self, instance_id: str, phase: str, kind: str) -> bool:
        """One host uses up at most one fault of a kind for a phase, however often it says the phase."""
        if (instance_id, phase, kind) in self._phases:
            return False
        self._phases.add((instance_id, phase, kind))
        return True

    def _boot(self, instance: EmulatedInstance) -> None:
        time.sleep(self._world.delays.running)
        if instance.state != "pending":
            return
        moto = self._backend().get_instance_by_id(instance.id)
        try:
            instance.host.boot()
        except (OSError, RuntimeError) as error:
            self.end(instance.id, "terminated", "Server.InternalError", str(error))
            return
        with self._world.lock:
            if instance.state != "pending":
                instance.host.halt()
                return
            instance.state = "running"
        moto.start()
        time.sleep(self._world.delays.online)
        # Without an instance profile the agent has no credentials, and never registers.
        if instance.state == "running" and instance.role_id and not self._world.faults.take("never-online"):
            instance.is_online = True

    def _on_power(self, instance_id: str, event: str) -> None:
        instance = self._world.instances[instance_id]
        if event == "reboot":
            instance.is_online = False
            instance.host.halt()
            instance.host.boot()
            instance.is_online = True
            return
        state = "terminated" if instance.shutdown_behaviour == "terminate" else "stopped"
        self.end(
            instance_id,
            state,
            "Client.InstanceInitiatedShutdown",
            "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
        )

    def _zone(self, form: Mapping[str, str]) -> str:
        subnet = form.get("SubnetId") or form.get("NetworkInterface.1.SubnetId")
        for zones in self._backend().subnets.values():
            for found in zones.values() if isinstance(zones, dict) else [zones]:
                if found.id == subnet:
                    return str(found.availability_zone)
        return form.get("Placement.AvailabilityZone") or f"{self._world.region}a"

    def _role(self, profile: str) -> Any:
        from moto.iam.models import iam_backends

        found = iam_backends[ACCOUNT]["aws"].instance_profiles
        match = next((p for p in found.values() if p.name == profile), None)
        return match.roles[0] if match and match.roles else None

    def _backend(self) -> Any:
        from moto.ec2.models import ec2_backends

        return ec2_backends[ACCOUNT][self._world.region]


def _request(form: Mapping[str, str]) -> bytes:
    kept = sorted((k, v) for k, v in form.items() if not re.match(r"(Version|Action|X-Amz-.*)\Z", k))
    return repr(kept).encode()
