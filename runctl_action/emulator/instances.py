"""The life of an instance beside moto's record of it: it boots, reaches states with delays, ends, and tells why."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from runctl_action.emulator.faults import ON_HOSTS, Fault
from runctl_action.emulator.hosts import Host
from runctl_action.emulator.state import ACCOUNT, EmulatedInstance, World, in_background

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
USER, GUEST = "Client.UserInitiatedShutdown", "Client.InstanceInitiatedShutdown"
RECLAIM, INTERNAL = "Server.SpotInstanceTermination", "Server.InternalError"
_SAID = {
    INTERNAL: "Server.InternalError: Internal error on launch",
    USER: "Client.UserInitiatedShutdown: User initiated shutdown",
    GUEST: "Client.InstanceInitiatedShutdown: Instance initiated shutdown",
    RECLAIM: "Server.SpotInstanceTermination: Instance terminated due to Spot interruption",
}


class Lives:
    """Starts and ends instances, and does to them what a fault asks for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hit: set[tuple[str, str]] = set()

    def begin(
        self, instance_id: str, *, profile: str, shutdown_behaviour: str, user_data: bytes | None, is_one_time: bool
    ) -> None:
        """moto has made the instance: it is pending, and boots after its delay."""
        moto = self.moto(instance_id)
        role = self.role(profile)
        metadata_url = f"{self._world.endpoint}/imds/{secrets.token_urlsafe(24)}/"
        host = Host(
            instance_id,
            self._world.directory / instance_id,
            ami_environment={
                **self._world.ami_environment,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata_url,
            },
            user_data=None if self._world.faults.take("no-user-data") else user_data,
            on_power=lambda event: self._on_power(instance_id, event),
            seconds_per_minute=self._world.seconds_per_minute,
            has_small_disk=self._world.faults.has("disk-full"),
        )
        instance = EmulatedInstance(
            id=instance_id,
            type=moto.instance_type,
            zone=moto.placement.zone,
            market="spot" if moto.lifecycle == "spot" else "on-demand",
            role_id=role.id if role else None,
            role_name=role.name if role else None,
            # A one-time spot request is over when its instance is: there is nothing that could be started again.
            shutdown_behaviour="terminate" if is_one_time else shutdown_behaviour,
            image_id=moto.image_id,
            host=host,
            visible_at=time.monotonic() + self._world.delays.visible,
            metadata_url=metadata_url,
            is_one_time=is_one_time,
        )
        with self._world.lock:
            self._show(instance, "pending")
            self._world.instances[instance_id] = instance
        in_background(lambda: self._boot(instance), self._world.delays.running)

    def give_profile(self, instance: EmulatedInstance, profile: str) -> None:
        """A profile that comes after the boot: the agent hibernates, and looks again five minutes later."""
        role = self.role(profile)
        instance.role_id, instance.role_name = role.id, role.name
        in_background(lambda: self._bring_online(instance), 5 * self._world.seconds_per_minute)

    def start(self, instance: EmulatedInstance) -> None:
        """StartInstances of a stopped one: it boots with the disk that it had."""
        with self._world.lock:
            self._show(instance, "pending")
        in_background(lambda: self._boot(instance), self._world.delays.running)

    def reboot(self, instance: EmulatedInstance) -> None:
        """The same instance, and its state stays running; whatever ran on it does not."""
        instance.is_online = False
        instance.host.halt()
        instance.host.boot()
        self._bring_online(instance)

    def end(self, instance_id: str, final: str, reason: str) -> None:
        """Takes an instance to `stopped` or `terminated`: its processes at once, then what EC2 shows."""
        with self._world.lock:
            instance = self._world.instances.get(instance_id)
            if instance is None or instance.state in {"shutting-down", "terminated", final}:
                return
            instance.is_online = False
            moto = self.moto(instance_id)
            if final == "terminated":
                moto.terminate()
            else:
                moto.stop()
            moto.state_reason.code, moto.state_reason.message = reason, _SAID[reason]
            self._show(instance, "shutting-down" if final == "terminated" else "stopping")

        def finish() -> None:
            instance.host.destroy() if final == "terminated" else instance.host.halt()
            with self._world.lock:
                self._show(instance, final)

        # Billing stops at shutting-down; nothing of the host runs from then on.
        instance.host.halt()
        if self._world.delays.ending:
            in_background(finish, self._world.delays.ending)
        else:
            finish()

    def on_phase(self, instance_id: str, phase: str) -> None:
        """A host is in `phase`: the faults that wait for it happen."""
        for kind in ON_HOSTS:
            if (instance_id, kind) in self._hit:
                continue
            fault = self._world.faults.take(kind, phase=phase)
            if fault is not None:
                self._hit.add((instance_id, kind))
                in_background(lambda fault=fault: self._strike(instance_id, fault), fault.number("after", 0))  # type: ignore[misc]

    def moto(self, instance_id: str) -> Any:
        """moto's own record. Raises its InvalidInstanceIdError."""
        return self.backend().get_instance(instance_id)

    def backend(self) -> Any:
        from moto.ec2.models import ec2_backends

        return ec2_backends[ACCOUNT][self._world.region]

    def tags(self, instance_id: str) -> dict[str, str]:
        """None of an instance that is not there."""
        is_there = instance_id in self._world.instances
        return {tag["key"]: tag["value"] for tag in self.moto(instance_id).get_tags()} if is_there else {}

    def has_profile(self, profile: str) -> bool:
        from moto.iam.models import iam_backends

        return any(found.name == profile for found in iam_backends[ACCOUNT]["aws"].instance_profiles.values())

    def role(self, profile: str) -> Any:
        """moto's record of an instance profile's role; None without one."""
        from moto.iam.models import iam_backends

        found: Iterable[Any] = iam_backends[ACCOUNT]["aws"].instance_profiles.values()
        match = next((p for p in found if p.name == profile), None)
        return match.roles[0] if match and match.roles else None

    def credentials(self, instance: EmulatedInstance) -> Any:
        """Temporary credentials of the instance's role, as its metadata service hands them out: six hours."""
        known = [
            c for c in self._world.credentials.values()
            if c.instance_id == instance.id and c.expires_at and c.expires_at > datetime.now(UTC) + timedelta(hours=1)
        ]  # fmt: skip
        if known:
            return known[-1]
        arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{instance.role_name}/{instance.id}"
        policy = self._world.host_policy
        return self._world.session(
            instance.userid, arn, policy, lasts=timedelta(hours=6), instance_id=instance.id
        )  # fmt: skip

    def _boot(self, instance: EmulatedInstance) -> None:
        if instance.state != "pending":
            return
        try:
            instance.host.boot()
        except (OSError, RuntimeError) as error:
            self.end(instance.id, "terminated", INTERNAL)
            self.moto(instance.id).state_reason.message = f"Server.InternalError: {error}"
            return
        with self._world.lock:
            if instance.state != "pending":
                instance.host.halt()
                return
            self.moto(instance.id).start()
            self._show(instance, "running")
        self.on_phase(instance.id, "booting")
        in_background(lambda: self._bring_online(instance), self._world.delays.online)

    def _bring_online(self, instance: EmulatedInstance) -> None:
        # Without an instance profile the agent has no credentials, and never registers.
        if instance.state == "running" and instance.role_id and not self._world.faults.take("never-online"):
            instance.is_online = True
            instance.pinged_at = time.time()

    def _show(self, instance: EmulatedInstance, state: str) -> None:
        instance.state = state
        moto = self.moto(instance.id)
        moto._state.name, moto._state.code = state, CODES[state]  # noqa: SLF001  - there is no other way to set it

    def _on_power(self, instance_id: str, event: str) -> None:
        instance = self._world.instances[instance_id]
        if event == "reboot":
            self.reboot(instance)
        else:
            final = "terminated" if instance.shutdown_behaviour == "terminate" else "stopped"
            self.end(instance_id, final, GUEST)

    def _strike(self, instance_id: str, fault: Fault) -> None:
        instance = self._world.instances[instance_id]
        if instance.state != "running":
            return
        match fault.kind:
            case "spot-notice":
                instance.notice_at = (datetime.now(UTC) + timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
                seconds = fault.number("reclaim", 2) * self._world.seconds_per_minute
                in_background(lambda: self.end(instance_id, "terminated", RECLAIM), seconds)
            case "reclaim":
                self.end(instance_id, "terminated", RECLAIM)
            case "die":
                self.end(instance_id, "terminated", GUEST)
            case "freeze":
                instance.is_frozen = True
                instance.host.halt()
            case "disk-full":
                instance.host.fill_disk()
            case "network-cut":
                instance.is_cut_off = True
                in_background(lambda: setattr(instance, "is_cut_off", False), fault.number("seconds", 60))
