from __future__ import annotations

import base64
import json
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from runctl_action.cloud.instances import (
    Image,
    Instance,
    Instances,
    Refused,
    Subnet,
    error_class,
    require_state,
)
from runctl_action.cloud.launch_call import launch_parameters, token_bytes, user_data
from runctl_action.contract.documents import Offer
from runctl_action.contract.layout import TAG_DEADLINE, client_token
from runctl_action.errors import CloudError, PermissionDenied, WrongInstanceState

DEADLINE = datetime(2026, 7, 1, 12, 0, 0, 999, tzinfo=UTC)
IMAGE = Image("ami-1", "/dev/sda1", 8, "x86_64")
SPOT = Offer(market="spot", instance_type="t3.medium", zone="eu-west-1a", subnet="subnet-a")
ON_DEMAND = Offer(market="on-demand", instance_type="t3.medium")
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
DEEP_LEARNING = "/aws/service/deeplearning/ami/{}/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"


def parameters(offer: Offer = SPOT, image: Image = IMAGE, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "run_id": "train-1", "attempt": 2, "bucket": "b", "deadline": DEADLINE, "lease_minutes": 15, "instance_profile": "host",
    }  # fmt: skip
    return launch_parameters(offer, image, **(given | changes))


@pytest.fixture
def instances(session):
    return Instances(session)


class TestTheLaunchCall:
    def test_is_exactly_this(self):
        tags = [
            {"Key": "Name", "Value": "runctl train-1"},
            {"Key": "runctl:run", "Value": "train-1"},
            {"Key": "runctl:attempt", "Value": "2"},
            {"Key": "runctl:deadline", "Value": "2026-07-01T12:00:00+00:00"},
            {"Key": "runctl:bucket", "Value": "b"},
        ]
        assert parameters(security_groups=["sg-1"]) == {
            "ImageId": "ami-1",
            "InstanceType": "t3.medium",
            "MinCount": 1,
            "MaxCount": 1,
            "InstanceInitiatedShutdownBehavior": "terminate",
            "UserData": user_data(15),
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2, "HttpEndpoint": "enabled"},
            "IamInstanceProfile": {"Name": "host"},
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/sda1", "Ebs": {"VolumeType": "gp3", "DeleteOnTermination": True, "VolumeSize": 8}}
            ],
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}, {"ResourceType": "volume", "Tags": tags}],
            "SubnetId": "subnet-a",
            "SecurityGroupIds": ["sg-1"],
            "InstanceMarketOptions": {
                "MarketType": "spot",
                "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
            },
        }

    def test_says_nothing_that_was_not_asked_for(self):
        assert not {"SubnetId", "SecurityGroupIds", "InstanceMarketOptions", "KeyName", "ClientToken"} & set(
            parameters(ON_DEMAND)
        )

    def test_never_sets_a_maximal_spot_price(self):
        assert "MaxPrice" not in parameters()["InstanceMarketOptions"]["SpotOptions"]

    @pytest.mark.parametrize(("asked", "made"), [(None, 30), (10, 30), (100, 100)])
    def test_makes_the_volume_no_smaller_than_the_image(self, asked, made):
        found = parameters(image=Image("ami-1", "/dev/xvda", 30, "x86_64"), volume_gib=asked)["BlockDeviceMappings"][0]
        assert (found["DeviceName"], found["Ebs"]["VolumeSize"]) == ("/dev/xvda", made)

    def test_writes_the_deadline_in_utc_and_an_instance_reads_it(self):
        elsewhere = DEADLINE.astimezone(timezone(timedelta(hours=-5)))
        written = {tag["Key"]: tag["Value"] for tag in parameters(deadline=elsewhere)["TagSpecifications"][0]["Tags"]}
        assert Instance("i-1", "running", tags=written).deadline == DEADLINE.replace(microsecond=0)

    @pytest.mark.parametrize("tags", [{}, {TAG_DEADLINE: "soon"}])
    def test_leaves_an_instance_of_somebody_else_without_a_deadline(self, tags):
        assert Instance("i-1", "running", tags=tags).deadline is None

    def test_survives_being_written_down_and_has_the_same_token_then(self):
        written = json.loads(json.dumps(parameters()))
        assert written == parameters()
        assert client_token(token_bytes(written)) == client_token(token_bytes(parameters()))

    def test_has_another_token_for_on_demand_than_for_spot(self):
        on_demand = Offer(market="on-demand", instance_type="t3.medium", zone="eu-west-1a", subnet="subnet-a")
        assert token_bytes(parameters(on_demand)) != token_bytes(parameters())

    def test_is_sent_as_it_is_and_answers_with_the_instance(self, instances, stub):
        call = parameters() | {"ClientToken": "token"}
        answer = {
            "InstanceId": "i-1", "State": {"Name": "pending"}, "InstanceType": "t3.medium", "InstanceLifecycle": "spot",
            "Placement": {"AvailabilityZone": "eu-west-1a"}, "LaunchTime": DEADLINE,
        }  # fmt: skip
        stub("ec2", is_retried=False).add_response("run_instances", {"Instances": [answer]}, call)
        assert instances.launch(call) == Instance(
            "i-1", "pending", type="t3.medium", zone="eu-west-1a", market="spot", launched_at=DEADLINE
        )


class TestTheBootTimer:
    def test_is_a_boothook_that_a_shell_can_read_and_small_enough(self):
        script = user_data(15)
        assert script.startswith("#cloud-boothook\n#!/bin/sh\n")
        assert len(base64.b64encode(script.encode())) < 16 * 1024
        subprocess.run(["sh", "-n", "-c", script], check=True)

    @pytest.mark.parametrize("minutes", [1, 15, 60])
    def test_powers_off_after_the_lease_and_a_second_timer_after_five_minutes_more(self, minutes):
        script = user_data(minutes)
        assert f'arm runctl-lease {minutes * 60} "shutdown -h now"' in script
        assert f'arm runctl-lease-forced {minutes * 60 + 300} "poweroff -f"' in script
        assert script.endswith(f"shutdown -h +{minutes}\n")


class TestARefusal:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("InsufficientInstanceCapacity", "next-offer"), ("UnfulfillableCapacity", "next-offer"), ("Unsupported", "next-offer"),
            ("SpotMaxPriceTooLow", "next-offer"), ("InsufficientFreeAddressesInSubnet", "next-offer"),
            ("MaxSpotInstanceCountExceeded", "quota"), ("VcpuLimitExceeded", "quota"), ("InstanceLimitExceeded", "quota"),
            ("RequestLimitExceeded", "back-off"),
            ("UnauthorizedOperation", "fatal"), ("InvalidAMIID.NotFound", "fatal"), ("InvalidParameterValue", "fatal"),
            ("IdempotentParameterMismatch", "fatal"), ("SomethingNew", "fatal"),
        ],
    )  # fmt: skip
    def test_says_what_to_do_next(self, instances, stub, code, kind):
        stub("ec2", is_retried=False).add_client_error("run_instances", code, "said EC2", expected_params=parameters())
        with pytest.raises(Refused, match="said EC2") as caught:
            instances.launch(parameters())
        assert (caught.value.code, caught.value.kind, caught.value.exit_code) == (code, kind, 4)
        assert error_class(code) == kind

    def test_for_want_of_a_permission_names_it_and_says_where_to_allow_it(self, instances, stub):
        stub("ec2", is_retried=False).add_client_error("run_instances", "UnauthorizedOperation")
        with pytest.raises(Refused, match="ec2:RunInstances is not allowed") as caught:
            instances.launch(parameters())
        assert caught.value.hint == "allow ec2:RunInstances in the launcher's policy"


class TestTheState:
    @pytest.mark.parametrize("state", ["running", "stopped"])
    def test_that_is_allowed_is_the_instance(self, state):
        found = Instance("i-1", state)
        assert require_state(found, "i-1", ("running", "stopped"), "train on it") is found

    @pytest.mark.parametrize(
        ("state", "message", "hint"),
        [
            ("pending", "is still starting", "wait a minute"),
            ("stopping", "is stopping", "aws ec2 start-instances --instance-ids i-1"),
            ("stopped", "is stopped", "start it: aws ec2 start-instances --instance-ids i-1"),
            ("shutting-down", "is being terminated", "choose another instance"),
            ("terminated", "was terminated", "choose another instance"),
            ("strange", "is strange", "EC2 console"),
        ],
    )
    def test_that_is_not_allowed_has_its_own_message_and_a_next_step(self, state, message, hint):
        with pytest.raises(WrongInstanceState) as caught:
            require_state(Instance("i-1", state), "i-1", ("running",), "train on it")
        assert str(caught.value) == f"cannot train on it: instance i-1 {message} (state {state}; needed: running)"
        assert hint in caught.value.hint

    def test_running_where_it_must_not_points_to_the_runs(self):
        with pytest.raises(
            WrongInstanceState, match=r"is running \(state running; needed: stopped or stopping\)"
        ) as caught:
            require_state(Instance("i-1", "running"), "i-1", ("stopped", "stopping"), "start it")
        assert "runctl-action list" in caught.value.hint

    def test_of_no_instance_names_it_and_how_to_look(self):
        with pytest.raises(WrongInstanceState, match="there is no instance i-9") as caught:
            require_state(None, "i-9", ("running",), "train on it")
        assert "aws sts get-caller-identity" in caught.value.hint

    @pytest.mark.parametrize(
        ("state", "alive"),
        [
            ("pending", True),
            ("running", True),
            ("stopping", True),
            ("stopped", True),
            ("shutting-down", False),
            ("terminated", False),
        ],
    )
    def test_is_alive_while_it_can_cost_or_come_back(self, state, alive):
        assert Instance("i-1", state).is_alive is alive


class TestTheImage:
    def described(self, stub: Any, instance_type: str, architectures: list[str], *, gpu: str = "") -> None:
        found: dict[str, Any] = {
            "ProcessorInfo": {"SupportedArchitectures": architectures},
            "VCpuInfo": {"DefaultVCpus": 2},
        }
        if gpu:
            found["GpuInfo"] = {"Gpus": [{"Manufacturer": gpu}]}
        stub("ec2").add_response(
            "describe_instance_types", {"InstanceTypes": [found]}, {"InstanceTypes": [instance_type]}
        )

    def parameter(self, stub: Any, name: str) -> None:
        stub("ssm").add_response("get_parameter", {"Parameter": {"Value": "ami-2"}}, {"Name": name})

    def image(self, stub: Any, ami: str, **fields: Any) -> None:
        found = {"ImageId": ami, "Architecture": "x86_64", "RootDeviceName": "/dev/sda1", "BlockDeviceMappings": []}
        found |= fields
        stub("ec2").add_response("describe_images", {"Images": [found]}, {"ImageIds": [ami]})

    @pytest.mark.parametrize(
        ("instance_type", "architectures", "gpu", "parameter", "architecture"),
        [
            ("t3.medium", ["x86_64"], "", UBUNTU.format("amd64"), "x86_64"),
            ("t2.micro", ["i386", "x86_64"], "", UBUNTU.format("amd64"), "x86_64"),
            ("t4g.medium", ["arm64"], "", UBUNTU.format("arm64"), "arm64"),
            ("g5.xlarge", ["x86_64"], "NVIDIA", DEEP_LEARNING.format("x86_64"), "x86_64"),
            ("g4ad.xlarge", ["x86_64"], "AMD", UBUNTU.format("amd64"), "x86_64"),
            ("g5g.xlarge", ["arm64"], "NVIDIA", DEEP_LEARNING.format("arm64"), "arm64"),
        ],
    )
    def test_is_by_default_the_types_own(
        self, instances, stub, instance_type, architectures, gpu, parameter, architecture
    ):
        self.described(stub, instance_type, architectures, gpu=gpu)
        self.parameter(stub, parameter)
        self.image(stub, "ami-2", Architecture=architecture)
        assert instances.image(None, instance_type) == Image("ami-2", "/dev/sda1", 8, architecture)

    def test_can_be_an_id_and_its_root_volume_is_found_among_others(self, instances, stub):
        self.described(stub, "t3.medium", ["x86_64"])
        self.image(
            stub, "ami-7", RootDeviceName="/dev/xvda",
            BlockDeviceMappings=[
                {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
                {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 500}},
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 60}},
            ],
        )  # fmt: skip
        assert instances.image("ami-7", "t3.medium") == Image("ami-7", "/dev/xvda", 60, "x86_64")

    def test_for_another_architecture_than_the_types_is_refused(self, instances, stub):
        self.described(stub, "t4g.medium", ["arm64"])
        self.image(stub, "ami-7")
        with pytest.raises(CloudError, match=r"the image ami-7 is for x86_64, and t4g\.medium is arm64"):
            instances.image("ami-7", "t4g.medium")

    def test_can_be_a_public_parameter(self, instances, stub):
        self.described(stub, "t3.medium", ["x86_64"])
        self.parameter(stub, "/aws/service/mine")
        self.image(stub, "ami-2")
        assert instances.image("/aws/service/mine", "t3.medium").id == "ami-2"

    @pytest.mark.parametrize("code", ["InvalidInstanceType", "InvalidParameterValue"])
    def test_of_a_type_that_there_is_not_names_type_and_region(self, instances, stub, code):
        stub("ec2").add_client_error("describe_instance_types", code)
        with pytest.raises(CloudError, match=r"eu-west-1 has no instance type t9\.huge") as caught:
            instances.image(None, "t9.huge")
        assert "`instance-type`" in caught.value.hint

    @pytest.mark.parametrize("code", ["InvalidAMIID.NotFound", "InvalidAMIID.Malformed"])
    def test_that_there_is_not_is_named_with_the_region(self, instances, stub, code):
        self.described(stub, "t3.medium", ["x86_64"])
        stub("ec2").add_client_error("describe_images", code)
        with pytest.raises(CloudError, match="there is no image ami-9 in eu-west-1") as caught:
            instances.image("ami-9", "t3.medium")
        assert "differ by region" in caught.value.hint

    def test_that_is_hidden_is_told_as_one_that_there_is_not(self, instances, stub):
        self.described(stub, "t3.medium", ["x86_64"])
        stub("ec2").add_response("describe_images", {"Images": []}, {"ImageIds": ["ami-9"]})
        with pytest.raises(CloudError, match="there is no image ami-9"):
            instances.image("ami-9", "t3.medium")

    def test_parameter_that_there_is_not_is_named(self, instances, stub):
        self.described(stub, "t3.medium", ["x86_64"])
        stub("ssm").add_client_error("get_parameter", "ParameterNotFound")
        with pytest.raises(CloudError, match="there is no image parameter /aws/x in eu-west-1"):
            instances.image("/aws/x", "t3.medium")

    def test_that_may_not_be_looked_up_names_the_permission(self, instances, stub):
        stub("ec2").add_client_error("describe_instance_types", "UnauthorizedOperation")
        with pytest.raises(PermissionDenied, match="ec2:DescribeInstanceTypes"):
            instances.image(None, "t3.medium")


class TestFinding:
    def answer(self, *found: dict[str, Any]) -> dict[str, Any]:
        return {"Reservations": [{"Instances": [item]} for item in found]}

    def test_an_instance_shows_what_is_told_apart_by(self, instances, stub):
        told = {
            "InstanceId": "i-1", "State": {"Name": "terminated"}, "StateReason": {"Code": "Server.SpotInstanceTermination"},
            "IamInstanceProfile": {"Arn": "arn:aws:iam::1:instance-profile/path/host"}, "Tags": [{"Key": "a", "Value": "b"}],
        }  # fmt: skip
        stub("ec2").add_response("describe_instances", self.answer(told), {"InstanceIds": ["i-1"]})
        found = instances.find("i-1")
        assert found == Instance(
            "i-1", "terminated", reason="Server.SpotInstanceTermination", profile="host", tags={"a": "b"}
        )

    @pytest.mark.parametrize("code", ["InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"])
    def test_an_instance_that_ec2_does_not_know_is_none(self, instances, stub, code):
        stub("ec2").add_client_error("describe_instances", code)
        assert instances.find("i-1") is None

    def test_an_instance_that_is_no_longer_shown_is_none(self, instances, stub):
        stub("ec2").add_response("describe_instances", self.answer(), {"InstanceIds": ["i-1"]})
        assert instances.find("i-1") is None

    def test_another_error_is_not_taken_for_no_instance(self, instances, stub):
        stub("ec2").add_client_error("describe_instances", "UnauthorizedOperation")
        with pytest.raises(PermissionDenied, match="ec2:DescribeInstances"):
            instances.find("i-1")

    def test_a_runs_instances_are_found_by_its_tag_on_all_pages(self, instances, stub):
        request = {"Filters": [{"Name": "tag:runctl:run", "Values": ["train-1"]}], "MaxResults": 1000}
        one, two = ({"InstanceId": name, "State": {"Name": "running"}} for name in ("i-1", "i-2"))
        stub("ec2").add_response("describe_instances", self.answer(one) | {"NextToken": "more"}, request)
        stub("ec2").add_response("describe_instances", self.answer(two), request | {"NextToken": "more"})
        assert [i.id for i in instances.of_run("train-1")] == ["i-1", "i-2"]

    def test_all_of_ours_are_found_by_the_buckets_tag(self, instances, stub):
        gone = {"Name": "instance-state-name", "Values": ["pending", "running", "stopped", "stopping"]}
        request = {"Filters": [{"Name": "tag:runctl:bucket", "Values": ["b"]}, gone], "MaxResults": 1000}
        stub("ec2").add_response("describe_instances", self.answer(), request)
        assert instances.with_our_tags("b") == ()


class TestTerminating:
    def test_goes_on_behind_one_that_is_gone_already(self, instances, stub):
        stub("ec2").add_client_error(
            "terminate_instances", "InvalidInstanceID.NotFound", expected_params={"InstanceIds": ["i-1"]}
        )
        stub("ec2").add_response("terminate_instances", {}, {"InstanceIds": ["i-2"]})
        instances.terminate(["i-1", "i-2"])

    def test_nothing_asks_nobody(self, instances, stub):
        stub("ec2")
        instances.terminate([])

    def test_without_the_permission_names_it(self, instances, stub):
        stub("ec2").add_client_error("terminate_instances", "UnauthorizedOperation")
        with pytest.raises(PermissionDenied, match="ec2:TerminateInstances"):
            instances.terminate(["i-1"])


class TestSubnetsAndProfiles:
    def test_chosen_subnets_keep_their_order(self, instances, stub):
        found = [{"SubnetId": "s-1", "AvailabilityZone": "a"}, {"SubnetId": "s-2", "AvailabilityZone": "b"}]
        stub("ec2").add_response("describe_subnets", {"Subnets": found}, {"SubnetIds": ["s-2", "s-1"]})
        assert instances.subnets(["s-2", "s-1"]) == (Subnet("s-2", "b"), Subnet("s-1", "a"))

    def test_without_a_choice_they_are_the_default_ones_by_zone(self, instances, stub):
        found = [{"SubnetId": "s-2", "AvailabilityZone": "b"}, {"SubnetId": "s-1", "AvailabilityZone": "a"}]
        request = {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}
        stub("ec2").add_response("describe_subnets", {"Subnets": found}, request)
        assert instances.subnets([]) == (Subnet("s-1", "a"), Subnet("s-2", "b"))

    def test_an_account_without_default_subnets_is_told_to_name_some(self, instances, stub):
        stub("ec2").add_response("describe_subnets", {"Subnets": []})
        with pytest.raises(CloudError, match="there is no default subnet in eu-west-1") as caught:
            instances.subnets([])
        assert "subnets = [" in caught.value.hint

    def test_an_unknown_subnet_is_named(self, instances, stub):
        stub("ec2").add_client_error(
            "describe_subnets", "InvalidSubnetID.NotFound", "The subnet ID 's-9' does not exist"
        )
        with pytest.raises(CloudError, match="s-9"):
            instances.subnets(["s-9"])

    def profile(self, *roles: dict[str, Any]) -> dict[str, Any]:
        arn = "arn:aws:iam::123456789012:instance-profile/host"
        return {
            "InstanceProfile": {
                "Path": "/", "InstanceProfileName": "host", "InstanceProfileId": "AIPA1234567890123456", "Arn": arn,
                "CreateDate": DEADLINE, "Roles": list(roles),
            }
        }  # fmt: skip

    def test_the_role_id_is_the_one_of_the_profiles_role(self, instances, stub):
        role = {
            "Path": "/", "RoleName": "host", "RoleId": "AROA1234567890123456", "Arn": "arn:aws:iam::123456789012:role/host",
            "CreateDate": DEADLINE,
        }  # fmt: skip
        stub("iam").add_response("get_instance_profile", self.profile(role), {"InstanceProfileName": "host"})
        assert instances.profile_role_id("host") == "AROA1234567890123456"

    def test_a_profile_that_there_is_not_is_named(self, instances, stub):
        stub("iam").add_client_error("get_instance_profile", "NoSuchEntity")
        with pytest.raises(CloudError, match="there is no instance profile host in this account"):
            instances.profile_role_id("host")

    def test_a_profile_without_a_role_is_told_so(self, instances, stub):
        stub("iam").add_response("get_instance_profile", self.profile())
        with pytest.raises(CloudError, match="the instance profile host has no role"):
            instances.profile_role_id("host")
