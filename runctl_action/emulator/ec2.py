"""EC2 in front of moto's: launches that are idempotent and can be refused, instances that are not visible at once,
states that are checked."""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from xml.etree import ElementTree

from runctl_action.emulator.access import profile
from runctl_action.emulator.faults import LAUNCH_ERRORS
from runctl_action.emulator.instances import CODES, USER, Lives
from runctl_action.emulator.prices import Prices
from runctl_action.emulator.state import EmulatedInstance, World
from runctl_action.emulator.wire import Answer, ApiError, Call, Wsgi, as_ec2_xml, forward, forward_form

_CANONICAL = "/aws/service/canonical/ubuntu/server/24.04/stable/current"
_DEEP_LEARNING = "/aws/service/deeplearning/ami"
# The public parameters that there are: the image that each names, and its architecture.
IMAGES = {
    f"{_CANONICAL}/amd64/hvm/ebs-gp3/ami-id": ("ami-0000000000ubuntu1", "x86_64"),
    f"{_CANONICAL}/arm64/hvm/ebs-gp3/ami-id": ("ami-0000000000ubuntu2", "arm64"),
    f"{_DEEP_LEARNING}/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id": (
        "ami-00000000000dlami1",
        "x86_64",
    ),
    f"{_DEEP_LEARNING}/arm64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id": ("ami-00000000000dlami2", "arm64"),
    f"{_DEEP_LEARNING}/x86_64/oss-nvidia-driver-gpu-pytorch-2.7-ubuntu-22.04/latest/ami-id": (
        "ami-00000000000dlami3",
        "x86_64",
    ),
    "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64": ("ami-000000000amazon01", "x86_64"),
}
_MAX_USER_DATA = 16 * 1024


class Ec2:
    def __init__(self, world: World, moto: Wsgi, lives: Lives, prices: Prices) -> None:
        self._world = world
        self._moto = moto
        self._lives = lives
        self._prices = prices
        self._tokens: dict[str, tuple[list[str], bytes]] = {}
        self._is_prepared = False
        self._preparing = threading.Lock()

    def prepare(self) -> None:
        """Loads moto's EC2, which takes most of a second, and registers the images, so that DescribeImages knows what
        the public parameters name. Once; a call that comes meanwhile waits."""
        with self._preparing:
            if not self._is_prepared:
                self._register_images()
                self._open_default_vpc()
                self._is_prepared = True

    def _register_images(self) -> None:
        from moto.ec2.models.amis import Ami

        backend = self._lives.backend()
        for parameter, (image_id, architecture) in IMAGES.items():
            backend.amis[image_id] = Ami(
                backend, image_id, name=parameter.split("/")[3], architecture=architecture, root_device_type="ebs",
                root_device_name="/dev/sda1", virtualization_type="hvm", public=True,
            )  # fmt: skip

    def _open_default_vpc(self) -> None:
        """A default VPC has an internet gateway, and a route to it (VPC user guide, "Default VPCs"); moto's has not."""
        backend = self._lives.backend()
        vpc = next(vpc for vpc in backend.vpcs.values() if vpc.is_default)
        table = next(found for found in backend.route_tables.values() if found.vpc_id == vpc.id)
        gateway = backend.create_internet_gateway()
        backend.attach_internet_gateway(gateway.id, vpc.id)
        backend.create_route(table.id, "0.0.0.0/0", None, gateway_id=gateway.id)

    def handle(self, call: Call) -> Answer:
        """Raises ApiError."""
        self.prepare()
        match call.action:
            case "RunInstances":
                with self._world.lock:
                    return self._run(call)
            case "TerminateInstances" | "StopInstances" | "StartInstances" | "RebootInstances":
                return self._change(call)
            case "DescribeSpotPriceHistory":
                return self._prices.spot_history(call)
            case "DescribeInstances" | "DescribeInstanceStatus":
                return self._describe(call)
            case "AssociateIamInstanceProfile":
                return self._give_profile(call)
        self._require_visible(call)
        return forward(self._moto, call.environ)

    def _run(self, call: Call) -> Answer:
        form, token = call.form, call.form.get("ClientToken", "")
        request = _request(form)
        if token in self._tokens:
            ids, earlier = self._tokens[token]
            if earlier != request:
                raise ApiError("IdempotentParameterMismatch", "The token was used with other parameters.")
            return self._describe_again(call, ids)
        zone = self._zone(form)
        self._check_launch(call, zone)
        # moto takes the least number that would do, EC2 the greatest that it can.
        own = {"Placement.AvailabilityZone": zone, "MinCount": form.get("MaxCount", "1")}
        answer = forward_form(self._moto, call, {**form, **own})
        if answer.status != 200:
            return answer
        ids = re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", answer.body.decode())
        if token:
            self._tokens[token] = (ids, request)
        data = base64.b64decode(form["UserData"]) if form.get("UserData") else None
        for instance_id in ids:
            self._lives.begin(
                instance_id,
                profile=profile(form),
                shutdown_behaviour=form.get("InstanceInitiatedShutdownBehavior", "stop"),
                user_data=data,
                is_one_time=_is_one_time(form),
            )
        return Answer(answer.body.replace(b"<name>running</name>", b"<name>pending</name>"), 200, answer.headers)

    def _check_launch(self, call: Call, zone: str) -> None:
        """What EC2 refuses before there is an instance; faults come after what is wrong with the request itself."""
        from moto.ec2.models.instance_types import INSTANCE_TYPES

        form = call.form
        kind, image = form.get("InstanceType", ""), form.get("ImageId", "")
        market = "spot" if form.get("InstanceMarketOptions.MarketType") == "spot" else "on-demand"
        if call.region != self._world.region:
            raise ApiError("OptInRequired", f"This emulated account has one region: {self._world.region}.", 401)
        if kind not in INSTANCE_TYPES:
            raise ApiError("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
        if not image.startswith("ami-"):
            raise ApiError("InvalidAMIID.Malformed", f'Invalid id: "{image}" (expecting "ami-...")')
        if image not in self._lives.backend().amis:
            raise ApiError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
        supported = INSTANCE_TYPES[kind]["ProcessorInfo"]["SupportedArchitectures"]
        if (architecture := self._lives.backend().amis[image].architecture) not in supported:
            said = f"The architecture '{supported[-1]}' of the specified instance type does not match the architecture"
            raise ApiError("InvalidParameterValue", f"{said} '{architecture}' of the specified AMI.")
        if (name := profile(form)) and not self._lives.has_profile(name):
            said = f"Value ({name}) for parameter iamInstanceProfile.name is invalid."
            raise ApiError("InvalidParameterValue", f"{said} Invalid IAM Instance Profile name")
        if zone not in self._prices.zones:
            raise ApiError("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        _check_user_data(form.get("UserData", ""))
        if form.get("DryRun") == "true":
            # Permissions and parameters are looked at, capacity and quotas are not.
            raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        seen = {"market": market, "type": kind, "zone": zone}
        if self._world.faults.take("unsupported", **seen) or not self._prices.is_offered(kind, zone):
            raise ApiError("Unsupported", f"Your requested instance type ({kind}) is not supported in {zone}.")
        if self._world.faults.take("quota", **seen):
            code = "MaxSpotInstanceCountExceeded" if market == "spot" else "VcpuLimitExceeded"
            raise ApiError(code, "You have requested more than your current quota allows.")
        if market == "spot":
            limit, price = form.get("InstanceMarketOptions.SpotOptions.MaxPrice"), self._prices.spot_now(kind, zone)
            if self._world.faults.take("max-price", **seen) or (limit and price and _dollars(limit) < price):
                raise ApiError("SpotMaxPriceTooLow", f"Your Spot request price is lower than the minimum of {price}.")
        if self._world.faults.take("no-capacity", **seen):
            raise ApiError(
                "InsufficientInstanceCapacity", f"We currently do not have sufficient {kind} capacity in {zone}.", 500
            )
        for code, status in LAUNCH_ERRORS.items():
            if self._world.faults.take("launch-error", code=code, **seen):
                raise ApiError(code, "The launch was refused on purpose.", status)

    def _give_profile(self, call: Call) -> Answer:
        answer = forward(self._moto, call.environ)
        instance = self._world.instances.get(call.form.get("InstanceId", ""))
        if answer.status == 200 and instance is not None and instance.role_id is None:
            arn = call.form.get("IamInstanceProfile.Arn", "")
            self._lives.give_profile(instance, call.form.get("IamInstanceProfile.Name") or arn.rsplit("/", 1)[-1])
        return answer

    def _describe_again(self, call: Call, ids: Sequence[str]) -> Answer:
        """The same token: the answer that DescribeInstances gives, in RunInstances' words."""
        fields = {f"InstanceId.{index}": instance_id for index, instance_id in enumerate(ids, 1)}
        answer = forward_form(self._moto, call, {"Action": "DescribeInstances", **fields})
        reservation = re.search(rb"<reservationSet>\s*<item>(.*)</item>\s*</reservationSet>", answer.body, re.DOTALL)
        assert reservation is not None
        xmlns = b'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"'
        body = b"<RunInstancesResponse " + xmlns + b">" + reservation[1] + b"</RunInstancesResponse>"
        return Answer(body, 200, answer.headers)

    def _change(self, call: Call) -> Answer:
        found = self._require_visible(call)
        self._check_change(call.action, found)
        before = {instance.id: instance.state for instance in found}
        if call.form.get("DryRun") == "true":
            return forward(self._moto, call.environ)
        for instance in found:
            if call.action == "TerminateInstances":
                self._lives.end(instance.id, "terminated", USER)
            elif call.action == "StopInstances":
                self._lives.end(instance.id, "stopped", USER)
            elif call.action == "StartInstances" and instance.state == "stopped":
                self._lives.start(instance)
            elif call.action == "RebootInstances":
                self._lives.reboot(instance)
        if call.action == "RebootInstances":
            return as_ec2_xml(call.action, "<return>true</return>")
        items = "".join(
            f"<item><instanceId>{i.id}</instanceId><currentState>{_state(i.state)}</currentState>"
            f"<previousState>{_state(before[i.id])}</previousState></item>"
            for i in found
        )
        return as_ec2_xml(call.action, f"<instancesSet>{items}</instancesSet>")

    def _check_change(self, action: str, found: Sequence[EmulatedInstance]) -> None:
        allowed = {
            "StopInstances": {"pending", "running", "stopping", "stopped"},
            "StartInstances": {"pending", "running", "stopped"},
            "RebootInstances": {"running"},
        }.get(action)
        for instance in found:
            if allowed and instance.state not in allowed:
                raise ApiError(
                    "IncorrectInstanceState",
                    f"The instance '{instance.id}' is not in a state from which it can be changed: {instance.state}.",
                )
            if action == "StopInstances" and instance.is_one_time:
                raise ApiError(
                    "UnsupportedOperation",
                    f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time "
                    "Spot Instance request. You can only stop Spot Instances associated with persistent requests.",
                )

    def _describe(self, call: Call) -> Answer:
        self._require_visible(call)
        answer = forward(self._moto, call.environ)
        now = time.monotonic()
        hidden = {i.id for i in self._world.instances.values() if i.visible_at > now}
        if not hidden or answer.status != 200:
            return answer
        ElementTree.register_namespace("", "http://ec2.amazonaws.com/doc/2016-11-15/")
        root = ElementTree.fromstring(answer.body)  # noqa: S314  - moto wrote it
        for parent in root.iter():
            for item in list(parent):
                shown = item.findall("{*}instanceId") or item.findall("{*}instancesSet/{*}item/{*}instanceId")
                # A reservation goes with the last of its instances.
                if shown and all(instance_id.text in hidden for instance_id in shown):
                    parent.remove(item)
        return Answer(ElementTree.tostring(root), 200, answer.headers)

    def _require_visible(self, call: Call) -> list[EmulatedInstance]:
        """The instances that a call names. Raises InvalidInstanceID.NotFound, right after a launch too."""
        found = []
        for key, value in call.form.items():
            if not re.fullmatch(r"InstanceId\.\d+", key) and not (
                call.action == "CreateTags" and value.startswith("i-") and key.startswith("ResourceId.")
            ):
                continue
            if not re.fullmatch(r"i-([0-9a-f]{8}|[0-9a-f]{17})", value):
                raise ApiError("InvalidInstanceID.Malformed", f'Invalid id: "{value}"')
            instance = self._world.instances.get(value)
            if instance is None or instance.visible_at > time.monotonic():
                raise ApiError("InvalidInstanceID.NotFound", f"The instance ID '{value}' does not exist")
            found.append(instance)
        return found

    def _zone(self, form: Mapping[str, str]) -> str:
        subnet = form.get("SubnetId") or form.get("NetworkInterface.1.SubnetId")
        for zones in self._lives.backend().subnets.values():
            for found in zones.values():
                if found.id == subnet:
                    return str(found.availability_zone)
        if subnet:
            raise ApiError("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")
        if zone := form.get("Placement.AvailabilityZone"):
            return zone
        # EC2 chooses: a zone that has the type, where there is one.
        kind = form.get("InstanceType", "")
        return next((z for z in self._prices.zones if self._prices.is_offered(kind, z)), self._prices.zones[0])


def _check_user_data(encoded: str) -> None:
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ApiError("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from None
    if len(data) > _MAX_USER_DATA:
        raise ApiError("InvalidParameterValue", "User data is limited to 16384 bytes")


def _dollars(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ApiError("InvalidParameterValue", f"Invalid value '{text}' for spot instance price.") from None


def _state(name: str) -> str:
    return f"<code>{CODES[name]}</code><name>{name}</name>"


def _is_one_time(form: Mapping[str, str]) -> bool:
    kind = form.get("InstanceMarketOptions.SpotOptions.SpotInstanceType", "one-time")
    return form.get("InstanceMarketOptions.MarketType") == "spot" and kind == "one-time"


def _request(form: Mapping[str, Any]) -> bytes:
    """What makes two launches the same one: every parameter."""
    return repr(sorted((k, v) for k, v in form.items() if k not in {"Version", "Action"})).encode()
