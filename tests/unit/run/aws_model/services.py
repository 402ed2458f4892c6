"""The bucket, EC2 and SSM, as one process uses them: the public interface of `runctl_action.cloud` over the world."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from aws_model.hosts import ROLE
from aws_model.world import BUCKET, UNCHANGING, World
from runctl_action.cloud.commands import CommandResult
from runctl_action.cloud.instances import ALIVE, Image, Instance, Refused, Subnet
from runctl_action.cloud.store import Listed, Stored
from runctl_action.contract.documents import Order
from runctl_action.contract.layout import TAG_BUCKET, TAG_RUN
from runctl_action.errors import Unavailable

if TYPE_CHECKING:
    from aws_model.settlers import Process

_T = TypeVar("_T")


@dataclass
class Bucket:
    """`cloud.store.Store`, as one process uses it."""

    world: World
    process: Process | None = None
    bucket: str = BUCKET

    def get(self, key: str, known: Stored | None = None) -> Stored | None:
        def do() -> Stored | None:
            found = self.world.objects.get(key)
            if found is None:
                return None
            return known if known and known.etag == found.etag else Stored(found.data, found.etag)

        return self._call(f"get {key}", do)

    def size(self, key: str) -> int | None:
        return self._call(f"size {key}", lambda: self.world.size(key))

    def put(
        self,
        key: str,
        data: bytes,
        *,
        if_none_match: bool = False,
        if_match: str | None = None,
        content_type: str = "application/json",
    ) -> str | None:
        def do() -> str | None:
            found = self.world.objects.get(key)
            if (if_none_match and found) or (if_match is not None and (found is None or found.etag != if_match)):
                return None
            return self.world.settler_put(self.process, key, data)

        return self._call(f"put {key}", do)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[Listed]:
        def do() -> list[Listed]:
            objects = self.world.objects
            found = sorted(key for key in objects if key.startswith(prefix) and key > (start_after or ""))
            return [Listed(k, len(objects[k].data), objects[k].etag, objects[k].modified) for k in found]

        return iter(self._call(f"list {prefix}", do))

    def delete(self, key: str) -> None:
        assert not key.endswith(UNCHANGING)
        self._call(f"delete {key}", lambda: self.world.objects.pop(key, None))

    def presign(self, key: str, seconds: int) -> str:
        return f"https://{self.bucket}/{key}?{seconds}"

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def _call(self, name: str, do: Callable[[], _T]) -> _T:
        return self.world.call(self.process, name, do, lambda: Unavailable(f"s3 was not answered: {name}"))


@dataclass
class Ec2:
    """`cloud.instances.Instances`, as one process uses it; who settles `run_id` terminates nothing else."""

    world: World
    process: Process | None = None
    run_id: str | None = None

    def image(self, ami: str | None, instance_type: str) -> Image:
        return self._call("image", lambda: Image("ami-1", "/dev/sda1", 8, "x86_64"))

    def subnets(self, chosen: Sequence[str]) -> tuple[Subnet, ...]:
        return self._call("subnets", lambda: tuple(Subnet(f"subnet-{zone}", f"zone-{zone}") for zone in "ab"))

    def profile_role_id(self, profile: str) -> str:
        return ROLE

    def launch(self, parameters: Mapping[str, Any]) -> Instance:
        return self.world.call(
            self.process,
            "launch",
            lambda: self.world.launched(dict(parameters)).as_instance(),
            lambda: Refused("NoAnswer", "ec2:RunInstances was not answered", "back-off"),
        )

    def of_run(self, run_id: str) -> tuple[Instance, ...]:
        return self._call("of_run", lambda: tuple(i for i in self._shown() if i.tags.get(TAG_RUN) == run_id))

    def with_our_tags(self, bucket: str) -> tuple[Instance, ...]:
        def do() -> tuple[Instance, ...]:
            return tuple(i for i in self._shown() if i.tags.get(TAG_BUCKET) == bucket and i.state in ALIVE)

        return self._call("with_our_tags", do)

    def find(self, instance_id: str) -> Instance | None:
        return self._call("find", lambda: next((i for i in self._shown() if i.id == instance_id), None))

    def terminate(self, instance_ids: Iterable[str]) -> None:
        for instance_id in instance_ids:
            self._call(f"terminate {instance_id}", lambda: self._terminate(instance_id))  # noqa: B023

    def _terminate(self, instance_id: str) -> None:
        if instance_id in self.world.foreign:
            instance = self.world.foreign[instance_id]
            assert instance.tags.get(TAG_BUCKET) == BUCKET, f"{instance_id} is not ours, and was terminated"
            self.world.foreign[instance_id] = replace(instance, state="shutting-down")
            return
        machine = self.world.machines[instance_id]
        assert self.run_id in {None, machine.tags[TAG_RUN]}, f"{instance_id} is of another run, and was terminated"
        if machine.shown() is not None:
            machine.end("Client.UserInitiatedShutdown")

    def _shown(self) -> list[Instance]:
        stale = self.world.is_stale()
        shown = (machine.shown(hides_young=stale) for machine in self.world.machines.values())
        return [*self.world.foreign.values(), *(i for i in shown if i is not None)]

    def _call(self, name: str, do: Callable[[], _T]) -> _T:
        return self.world.call(self.process, f"ec2 {name}", do, lambda: Unavailable(f"ec2 was not answered: {name}"))


@dataclass
class Ssm:
    """`cloud.commands.Commands`, as one process uses it."""

    world: World
    process: Process

    def probe(self, instance_id: str, patience_seconds: float = 20) -> str | None:
        def do() -> str | None:
            return "Linux x86_64" if self.world.machines[instance_id].answers else None

        return self.world.call(
            self.process, f"ssm probe {instance_id}", do, lambda: Unavailable("ssm was not answered")
        )

    def run(self, instance_id: str, script: str, comment: str, patience_seconds: float) -> CommandResult | None:
        machine = self.world.machines[instance_id]
        order = Order.model_validate(json.loads(base64.b64decode(script.split()[-1]))["order"])

        def do() -> CommandResult | None:
            if not machine.answers:
                return None
            wrong = self.world.told(self.process, machine, order)
            return CommandResult("Failed" if wrong else "Success", 1 if wrong else 0, "", wrong)

        return self.world.call(
            self.process, f"ssm start {instance_id}", do, lambda: Unavailable("ssm was not answered")
        )
