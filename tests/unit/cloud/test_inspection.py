from __future__ import annotations

import pytest

from runctl_action.cloud.inspection import Decision, Endpoint, Inspection, RouteTable, SecurityGroup
from runctl_action.errors import CloudError, PermissionDenied

ROLE = "arn:aws:iam::123456789012:role/host"
OF_VPC = {"Filters": [{"Name": "vpc-id", "Values": ["vpc-1"]}]}


@pytest.fixture
def inspection(session):
    return Inspection(session)


def test_an_answer_without_the_type_is_an_answer(inspection, stub):
    stub("ec2").add_client_error("describe_instance_types", "InvalidInstanceType")
    inspection.answer()


def test_how_a_bucket_encrypts_is_what_its_rules_say(inspection, stub):
    rules = [{"BucketKeyEnabled": True}, {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
    answer = {"ServerSideEncryptionConfiguration": {"Rules": rules}}
    stub("s3").add_response("get_bucket_encryption", answer, {"Bucket": "b"})
    assert inspection.encryption("b") == "aws:kms"
    stub("s3").add_client_error("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError")
    assert inspection.encryption("b") is None
    stub("s3").add_client_error("get_bucket_encryption", "AccessDenied")
    with pytest.raises(PermissionDenied, match="s3:GetEncryptionConfiguration on b") as caught:
        inspection.encryption("b")
    assert caught.value.hint == "allow s3:GetEncryptionConfiguration on b in the launcher's policy"


def test_a_roles_policies_are_asked_about_page_by_page(inspection, stub):
    asked = {
        "PolicySourceArn": ROLE,
        "ActionNames": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
        "ResourceArns": ["arn:aws:s3:::b"],
        "ContextEntries": [
            {"ContextKeyName": "aws:userid", "ContextKeyValues": ["AROA:i-1"], "ContextKeyType": "string"}
        ],
    }

    def result(action, decision, *missing):
        return {"EvalActionName": action, "EvalDecision": decision, "MissingContextValues": list(missing)}

    stub("iam").add_response(
        "simulate_principal_policy",
        {
            "EvaluationResults": [result("s3:GetObject", "allowed"), result("s3:PutObject", "explicitDeny")],
            "IsTruncated": True,
            "Marker": "more",
        },
        asked,
    )
    stub("iam").add_response(
        "simulate_principal_policy",
        {"EvaluationResults": [result("s3:ListBucket", "implicitDeny", "aws:SourceVpc")], "IsTruncated": False},
        asked | {"Marker": "more"},
    )
    assert inspection.decisions(ROLE, asked["ActionNames"], "arn:aws:s3:::b", {"aws:userid": "AROA:i-1"}) == (
        Decision("s3:GetObject", allowed=True),
        Decision("s3:PutObject", allowed=False),
        Decision("s3:ListBucket", allowed=False, missing=("aws:SourceVpc",)),
    )


def test_a_route_that_leads_nowhere_is_none(inspection, stub):
    everywhere = "0.0.0.0/0"
    tables = [
        {"RouteTableId": "rtb-1", "Associations": [{"Main": True}],
         "Routes": [{"DestinationCidrBlock": "10.0.0.0/8", "GatewayId": "local"},
                    {"DestinationCidrBlock": everywhere, "NatGatewayId": "nat-1", "State": "blackhole"}]},
        {"RouteTableId": "rtb-2", "Associations": [{"Main": False, "SubnetId": "subnet-1"}],
         "Routes": [{"DestinationCidrBlock": everywhere, "TransitGatewayId": "tgw-1", "State": "active"}]},
    ]  # fmt: skip
    stub("ec2").add_response("describe_route_tables", {"RouteTables": tables}, OF_VPC)
    assert inspection.route_tables("vpc-1") == (
        RouteTable("rtb-1", True, frozenset(), ""),
        RouteTable("rtb-2", False, frozenset({"subnet-1"}), "tgw-1"),
    )


def test_only_endpoints_that_are_there_count(inspection, stub):
    endpoints = [
        {"ServiceName": "com.amazonaws.eu-west-1.s3", "VpcEndpointType": "Gateway", "State": "available",
         "RouteTableIds": ["rtb-1"]},
        {"ServiceName": "com.amazonaws.eu-west-1.ssm", "VpcEndpointType": "Interface", "State": "Available",
         "PrivateDnsEnabled": True},
        {"ServiceName": "com.amazonaws.eu-west-1.ssmmessages", "VpcEndpointType": "Interface", "State": "pending"},
    ]  # fmt: skip
    stub("ec2").add_response("describe_vpc_endpoints", {"VpcEndpoints": endpoints}, OF_VPC)
    assert inspection.endpoints("vpc-1") == (
        Endpoint("s3", True, frozenset({"rtb-1"}), False),
        Endpoint("ssm", False, frozenset(), True),
    )


@pytest.mark.parametrize(
    ("rule", "lets_out"),
    [
        ({"IpProtocol": "-1"}, True),
        ({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}, True),
        ({"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}, True),
        ({"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80}, False),
        ({"IpProtocol": "udp", "FromPort": 443, "ToPort": 443}, False),
    ],
)
def test_https_is_tcp_443(inspection, stub, rule, lets_out):
    group = {"GroupId": "sg-1", "GroupName": "mine", "VpcId": "vpc-1", "IpPermissionsEgress": [rule]}
    stub("ec2").add_response("describe_security_groups", {"SecurityGroups": [group]}, {"GroupIds": ["sg-1"]})
    assert inspection.security_groups(["sg-1"], "vpc-1") == (SecurityGroup("sg-1", "vpc-1", lets_out),)


def test_without_a_choice_it_is_the_vpcs_default_group(inspection, stub):
    groups = [{"GroupId": f"sg-{name}", "GroupName": name, "VpcId": "vpc-1"} for name in ("other", "default")]
    stub("ec2").add_response("describe_security_groups", {"SecurityGroups": groups}, OF_VPC)
    assert [group.id for group in inspection.security_groups([], "vpc-1")] == ["sg-default"]


def test_a_quota_that_was_never_raised_is_awss_default(inspection, stub):
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"}
    stub("service-quotas").add_response("get_service_quota", {"Quota": {"Value": 32.0}}, asked)
    assert inspection.quota("L-1216C47A") == 32
    stub("service-quotas").add_client_error("get_service_quota", "NoSuchResourceException")
    stub("service-quotas").add_response("get_aws_default_service_quota", {"Quota": {"Value": 5.0}}, asked)
    assert inspection.quota("L-1216C47A") == 5


def test_a_dry_run_that_would_have_launched_is_said_by_an_error(inspection, stub):
    parameters = {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1}
    asked = parameters | {"DryRun": True}
    launches = stub("ec2", is_retried=False)
    launches.add_client_error("run_instances", "DryRunOperation", http_status_code=412, expected_params=asked)
    inspection.dry_run(parameters)
    launches.add_client_error("run_instances", "InvalidSubnetID.NotFound", expected_params=asked)
    with pytest.raises(CloudError, match=r"ec2:RunInstances failed: InvalidSubnetID.NotFound"):
        inspection.dry_run(parameters)


def test_whose_permission_is_missing_is_named_where_aws_names_it(inspection, stub):
    said = "User: x is not authorized to perform: iam:PassRole on resource: y"
    stub("ec2", is_retried=False).add_client_error("run_instances", "UnauthorizedOperation", said)
    with pytest.raises(PermissionDenied) as caught:
        inspection.dry_run({"MinCount": 1, "MaxCount": 1})
    assert caught.value.hint == "allow iam:PassRole in the launcher's policy"


def test_no_such_command_means_that_we_may_ask(inspection, stub):
    stub("ssm").add_client_error("get_command_invocation", "InvocationDoesNotExist")
    inspection.read_no_command()
    stub("ssm").add_client_error("get_command_invocation", "AccessDeniedException")
    with pytest.raises(PermissionDenied, match="ssm:GetCommandInvocation"):
        inspection.read_no_command()
