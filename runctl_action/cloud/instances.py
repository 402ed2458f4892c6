"""EC2: which images, types and subnets there are, launching and ending, and what state an instance is in."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import botocore.exceptions

from runctl_action.cloud.session import Session, aws_errors, error_code, translated
from runctl_action.contract.documents import Market
from runctl_action.contract.layout import TAG_BUCKET, TAG_DEADLINE, TAG_RUN
from runctl_action.errors import CloudError, WrongInstanceState

# Public parameters (facts of AWS and Canonical); the first that fits is the default image.
_UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id"
_DEEP_LEARNING = "/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"

ALIVE = frozenset({"pending", "running", "stopping", "stopped"})

ErrorClass = Literal["next-offer", "quota", "back-off", "fatal"]
_NEXT_OFFER = {
    "InsufficientInstanceCapacity", "UnfulfillableCapacity", "Unsupported", "SpotMaxPriceTooLow",
    "InsufficientFreeAddressesInSubnet", "InsufficientHostCapacity", "InsufficientCapacity",
}  # fmt: skip
_QUOTA = {"MaxSpotInstanceCountExceeded", "VcpuLimitExceeded", "InstanceLimitExceeded"}
_BACK_OFF = {
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "InternalError",
    "Unavailable",
    "ServiceUnavailable",
}


@dataclass(frozen=True)
class InstanceType:
    name: str
    architecture: str
    vcpus: int
    has_nvidia_gpu: bool


@dataclass(frozen=True)
class HostRole:
    """The role of an instance profile; `id` (AROA…) is the first half of its hosts' aws:userid."""

    id: str
    arn: str


@dataclass(frozen=True)
class Image:
    id: str
    root_device: str
    root_gib: int
    architecture: str


@dataclass(frozen=True)
class Subnet:
    id: str
    zone: str
    assigns_public_ipv4: bool = False
    vpc: str = ""


@dataclass(frozen=True)
class Instance:
    """An instance as DescribeInstances shows it; `reason` is StateReason's code, "" while it runs."""

    id: str
    state: str
    type: str = ""
    zone: str = ""
    market: Market = "on-demand"
    reason: str = ""
    profile: str | None = None
    launched_at: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        return self.state in ALIVE

    @property
    def deadline(self) -> datetime | None:
        try:
            return datetime.fromisoformat(self.tags[TAG_DEADLINE])
        except (KeyError, ValueError):
            return None


class Refused(CloudError):
    """RunInstances said no; `kind` is what to do about it, `code` EC2's own word."""

    def __init__(self, code: str, message: str, kind: ErrorClass, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code
        self.kind = kind


class Instances:
    def __init__(self, session: Session) -> None:
        self._session = session

    @functools.cached_property
    def _ec2(self) -> Any:
        return self._session.client("ec2")

    @functools.cached_property
    def _launches(self) -> Any:
        return self._session.client("ec2", is_retried=False)

    def image(self, ami: str | None, instance_type: str) -> Image:
        """The image to boot: `ami` is an id, a public parameter's name, or None for the default of the type's
        architecture (the deep-learning base image for NVIDIA's GPUs). Raises CloudError: there is none, or it does not
        fit the type."""
        described = self.instance_type(instance_type)
        architecture, deep_learning = described.architecture, described.has_nvidia_gpu
        if ami is None:
            names = {"x86_64": "x86_64", "arm64": "arm64"} if deep_learning else {"x86_64": "amd64", "arm64": "arm64"}
            ami = (_DEEP_LEARNING if deep_learning else _UBUNTU).format(arch=names.get(architecture, architecture))
        image = self._described_image(self._parameter(ami) if ami.startswith("/") else ami)
        if image.architecture != architecture:
            raise CloudError(
                f"the image {image.id} is for {image.architecture}, and {instance_type} is {architecture}",
                "choose an `ami` for the type, or leave it out",
            )
        return image

    def instance_type(self, name: str) -> InstanceType:
        """Raises CloudError where the region has no such type."""
        with aws_errors("ec2:DescribeInstanceTypes"):
            try:
                described = self._ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"][0]
            except botocore.exceptions.ClientError as error:
                if error_code(error) in {"InvalidInstanceType", "InvalidParameterValue"}:
                    raise CloudError(
                        f"{self._session.region} has no instance type {name}", "check `instance-type` and `region`"
                    ) from error
                raise
        gpus = described.get("GpuInfo", {}).get("Gpus", ())
        return InstanceType(
            name,
            described["ProcessorInfo"]["SupportedArchitectures"][-1],
            int(described["VCpuInfo"]["DefaultVCpus"]),
            any(gpu.get("Manufacturer") == "NVIDIA" for gpu in gpus),
        )

    def subnets(self, chosen: Sequence[str]) -> tuple[Subnet, ...]:
        """The chosen subnets, in that order; without any, the default ones of the region."""
        with aws_errors("ec2:DescribeSubnets"):
            if chosen:
                try:
                    found = self._ec2.describe_subnets(SubnetIds=list(chosen))["Subnets"]
                except botocore.exceptions.ClientError as error:
                    if error_code(error).startswith("InvalidSubnet"):
                        raise CloudError(
                            f"not all of {', '.join(chosen)} are subnets in {self._session.region}: "
                            f"{error.response['Error'].get('Message')}",
                            "check `subnets` and `region`: aws ec2 describe-subnets",
                        ) from error
                    raise
                by_id = {item["SubnetId"]: _subnet(item) for item in found}
                return tuple(by_id[subnet] for subnet in chosen)
            found = self._ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
        if not found:
            raise CloudError(
                f"there is no default subnet in {self._session.region}", 'name some: subnets = ["subnet-…"]'
            )
        return tuple(sorted((_subnet(item) for item in found), key=lambda subnet: subnet.zone))

    def profile_role_id(self, profile: str) -> str:
        """The unique id (AROA…) of the instance profile's role: the first half of its hosts' aws:userid."""
        return self.host_role(profile).id

    def host_role(self, profile: str) -> HostRole:
        """The role of an instance profile. Raises CloudError: there is no such profile, or no role in it."""
        with aws_errors("iam:GetInstanceProfile"):
            try:
                roles = self._session.client("iam").get_instance_profile(InstanceProfileName=profile)[
                    "InstanceProfile"
                ]["Roles"]
            except botocore.exceptions.ClientError as error:
                if error_code(error) == "NoSuchEntity":
                    raise CloudError(
                        f"there is no instance profile {profile} in this account",
                        "check `instance-profile`, or create it",
                    ) from error
                raise
        if not roles:
            raise CloudError(f"the instance profile {profile} has no role", "add the role that hosts use to it")
        return HostRole(str(roles[0]["RoleId"]), str(roles[0]["Arn"]))

    def launch(self, parameters: Mapping[str, Any]) -> Instance:
        """RunInstances with exactly `parameters` (their ClientToken makes a repeat the same call). Raises Refused; an
        answer that did not come is a reason to repeat the call."""
        with aws_errors("ec2:RunInstances"):
            try:
                answer = self._launches.run_instances(**parameters)
            except botocore.exceptions.HTTPClientError as error:
                raise Refused("NoAnswer", f"ec2:RunInstances was not answered: {error}", "back-off") from error
            except botocore.exceptions.ClientError as error:
                code = error_code(error)
                told = translated(error, "ec2:RunInstances")
                raise Refused(code, str(told), error_class(code), told.hint) from error
        return _instance(answer["Instances"][0])

    def of_run(self, run_id: str) -> tuple[Instance, ...]:
        """Every instance that carries the run's tag, terminated ones too while EC2 still shows them."""
        return self._described(Filters=[{"Name": f"tag:{TAG_RUN}", "Values": [run_id]}])

    def with_our_tags(self, bucket: str) -> tuple[Instance, ...]:
        """Every instance of this bucket's runs in the region that is not gone yet, all pages."""
        ours = {"Name": f"tag:{TAG_BUCKET}", "Values": [bucket]}
        return self._described(Filters=[ours, {"Name": "instance-state-name", "Values": sorted(ALIVE)}])

    def find(self, instance_id: str) -> Instance | None:
        """The instance, or None where EC2 knows none of that id (also for a moment right after its launch)."""
        try:
            found = self._described(InstanceIds=[instance_id])
        except _NotFound:
            return None
        return found[0] if found else None

    def terminate(self, instance_ids: Iterable[str]) -> None:
        """Ends them; one that is gone already is fine."""
        for instance_id in instance_ids:
            with aws_errors("ec2:TerminateInstances"):
                try:
                    self._ec2.terminate_instances(InstanceIds=[instance_id])
                except botocore.exceptions.ClientError as error:
                    if error_code(error) != "InvalidInstanceID.NotFound":
                        raise

    def _parameter(self, name: str) -> str:
        with aws_errors("ssm:GetParameter"):
            try:
                return str(self._session.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])
            except botocore.exceptions.ClientError as error:
                if error_code(error) == "ParameterNotFound":
                    raise CloudError(
                        f"there is no image parameter {name} in {self._session.region}", "check `ami`"
                    ) from error
                raise

    def _described_image(self, ami: str) -> Image:
        with aws_errors("ec2:DescribeImages"):
            try:
                found = self._ec2.describe_images(ImageIds=[ami])["Images"]
            except botocore.exceptions.ClientError as error:
                if error_code(error).startswith("InvalidAMIID"):
                    found = []
                else:
                    raise
        if not found:
            raise CloudError(
                f"there is no image {ami} in {self._session.region}", "check `ami`: images differ by region"
            )
        image = found[0]
        device = image["RootDeviceName"]
        sizes = [
            m["Ebs"].get("VolumeSize", 8)
            for m in image.get("BlockDeviceMappings", ())
            if "Ebs" in m and m["DeviceName"] == device
        ]
        return Image(ami, device, int(sizes[0]) if sizes else 8, image["Architecture"])

    def _described(self, **request: Any) -> tuple[Instance, ...]:
        with aws_errors("ec2:DescribeInstances"):
            try:
                pages = self._ec2.get_paginator("describe_instances").paginate(
                    **request, **({} if "InstanceIds" in request else {"PaginationConfig": {"PageSize": 1000}})
                )
                return tuple(_instance(i) for page in pages for r in page["Reservations"] for i in r["Instances"])
            except botocore.exceptions.ClientError as error:
                if error_code(error).startswith("InvalidInstanceID"):
                    raise _NotFound from error
                raise


class _NotFound(Exception):
    pass


def error_class(code: str) -> ErrorClass:
    """What an error code of RunInstances means for the next offer (classes: the EC2 API's error reference)."""
    if code in _NEXT_OFFER:
        return "next-offer"
    if code in _QUOTA:
        return "quota"
    return "back-off" if code in _BACK_OFF else "fatal"


_ADVICE = {
    "pending": ("is still starting", "wait a minute, then run it again"),
    "stopping": ("is stopping", "wait until it is stopped, then: aws ec2 start-instances --instance-ids {id}"),
    "stopped": ("is stopped", "start it: aws ec2 start-instances --instance-ids {id}"),
    "shutting-down": ("is being terminated", "choose another instance, or leave `instance-id` out to launch one"),
    "terminated": ("was terminated", "choose another instance, or leave `instance-id` out to launch one"),
    "running": ("is running", "stop what runs on it first: runctl-action list"),
}


def require_state(instance: Instance | None, instance_id: str, allowed: Sequence[str], doing: str) -> Instance:
    """The instance, if its state is allowed. Raises WrongInstanceState, which names the state and the next command."""
    if instance is None:
        raise WrongInstanceState(
            f"cannot {doing}: there is no instance {instance_id} in this region and account",
            "check `instance-id`, `region` and the account: aws sts get-caller-identity",
        )
    if instance.state not in allowed:
        what, advice = _ADVICE.get(instance.state, (f"is {instance.state}", "look at it in the EC2 console"))
        raise WrongInstanceState(
            f"cannot {doing}: instance {instance.id} {what} (state {instance.state}; needed: {' or '.join(allowed)})",
            advice.format(id=instance.id),
        )
    return instance


def _subnet(item: Mapping[str, Any]) -> Subnet:
    return Subnet(
        item["SubnetId"], item["AvailabilityZone"], bool(item.get("MapPublicIpOnLaunch")), item.get("VpcId", "")
    )


def _instance(item: Mapping[str, Any]) -> Instance:
    profile = item.get("IamInstanceProfile", {}).get("Arn")
    return Instance(
        id=item["InstanceId"],
        state=item["State"]["Name"],
        type=item.get("InstanceType", ""),
        zone=item.get("Placement", {}).get("AvailabilityZone", ""),
        market="spot" if item.get("InstanceLifecycle") == "spot" else "on-demand",
        reason=item.get("StateReason", {}).get("Code", ""),
        profile=profile.rsplit("/", 1)[-1] if profile else None,
        launched_at=item.get("LaunchTime"),
        tags={tag["Key"]: tag["Value"] for tag in item.get("Tags", ())},
    )
