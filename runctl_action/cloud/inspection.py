"""What only the doctor asks AWS: how the account around a run is set up. It reads; the one launch is a dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import botocore.exceptions

from runctl_action.cloud.session import Session, aws_errors, error_code
from runctl_action.errors import CloudError

_NO_COMMAND = "00000000-0000-0000-0000-000000000000"
_NO_INSTANCE = "i-00000000000000000"
_EVERYWHERE = "t3.micro"


@dataclass(frozen=True)
class Decision:
    """What a role's own policies say of one action. `missing`: condition keys that nobody can know beforehand."""

    action: str
    allowed: bool
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class RouteTable:
    """`target` is where 0.0.0.0/0 goes (igw-…, nat-…, …), "" without such a route or with one that leads nowhere."""

    id: str
    is_main: bool
    subnets: frozenset[str]
    target: str


@dataclass(frozen=True)
class Endpoint:
    """A VPC endpoint that is available; `service` is "ssm", "s3", … An interface without private DNS is of no use to
    who asks by the usual name."""

    service: str
    is_gateway: bool
    route_tables: frozenset[str]
    has_private_dns: bool


@dataclass(frozen=True)
class SecurityGroup:
    id: str
    vpc: str
    lets_https_out: bool


class Inspection:
    """Every method raises CloudError or PermissionDenied, with the action named."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def answer(self) -> None:
        """Whether EC2 answers us in this region."""
        with aws_errors("ec2:DescribeInstanceTypes"):
            try:
                self._session.client("ec2").describe_instance_types(InstanceTypes=[_EVERYWHERE])
            except botocore.exceptions.ClientError as error:
                if error_code(error) != "InvalidInstanceType":
                    raise

    def encryption(self, bucket: str) -> str | None:
        """How new objects are encrypted ("AES256", "aws:kms"); None: not at all."""
        with aws_errors(f"s3:GetEncryptionConfiguration on {bucket}"):
            try:
                answer = self._session.client("s3").get_bucket_encryption(Bucket=bucket)
            except botocore.exceptions.ClientError as error:
                if error_code(error) == "ServerSideEncryptionConfigurationNotFoundError":
                    return None
                raise
        rules = answer["ServerSideEncryptionConfiguration"]["Rules"]
        named = (rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules)
        return next(filter(None, named), None)

    def decisions(
        self, role_arn: str, actions: Sequence[str], resource: str, context: Mapping[str, str]
    ) -> tuple[Decision, ...]:
        """What the role's identity policies, its boundary and the organization's policies allow; a bucket's own policy
        is not in it (IAM API reference, SimulatePrincipalPolicy)."""
        entries = [
            {
                "ContextKeyName": key,
                "ContextKeyValues": [value],
                "ContextKeyType": "boolean" if value in {"true", "false"} else "string",
            }
            for key, value in context.items()
        ]
        with aws_errors("iam:SimulatePrincipalPolicy"):
            pages = (
                self._session.client("iam")
                .get_paginator("simulate_principal_policy")
                .paginate(
                    PolicySourceArn=role_arn,
                    ActionNames=list(actions),
                    ResourceArns=[resource],
                    ContextEntries=entries,
                )
            )
            return tuple(
                Decision(
                    found["EvalActionName"],
                    found["EvalDecision"] == "allowed",
                    tuple(found.get("MissingContextValues", ())),
                )
                for page in pages
                for found in page["EvaluationResults"]
            )

    def route_tables(self, vpc: str) -> tuple[RouteTable, ...]:
        with aws_errors("ec2:DescribeRouteTables"):
            return tuple(_route_table(item) for item in self._of_vpc("describe_route_tables", "RouteTables", vpc))

    def endpoints(self, vpc: str) -> tuple[Endpoint, ...]:
        with aws_errors("ec2:DescribeVpcEndpoints"):
            found = self._of_vpc("describe_vpc_endpoints", "VpcEndpoints", vpc)
            return tuple(_endpoint(item) for item in found if item["State"].lower() == "available")

    def security_groups(self, chosen: Sequence[str], vpc: str) -> tuple[SecurityGroup, ...]:
        """The chosen ones; without any, the default one of the VPC."""
        with aws_errors("ec2:DescribeSecurityGroups"):
            if not chosen:
                found = self._of_vpc("describe_security_groups", "SecurityGroups", vpc)
                return tuple(_security_group(item) for item in found if item["GroupName"] == "default")
            try:
                answer = self._session.client("ec2").describe_security_groups(GroupIds=list(chosen))
            except botocore.exceptions.ClientError as error:
                if error_code(error).startswith("InvalidGroup"):
                    raise CloudError(
                        f"not all of {', '.join(chosen)} are security groups in {self._session.region}",
                        "check `security-groups`: aws ec2 describe-security-groups",
                    ) from error
                raise
            return tuple(_security_group(item) for item in answer["SecurityGroups"])

    def quota(self, code: str) -> float:
        """An EC2 quota's value, as it was raised for this account and region, or else AWS's default."""
        asked = {"ServiceCode": "ec2", "QuotaCode": code}
        client = self._session.client("service-quotas")
        with aws_errors("servicequotas:GetServiceQuota"):
            try:
                return float(client.get_service_quota(**asked)["Quota"]["Value"])
            except botocore.exceptions.ClientError as error:
                # "For some quotas, only the default values are available" (Service Quotas API reference).
                if error_code(error) != "NoSuchResourceException":
                    raise
        with aws_errors("servicequotas:GetAWSDefaultServiceQuota"):
            return float(client.get_aws_default_service_quota(**asked)["Quota"]["Value"])

    def dry_run(self, parameters: Mapping[str, Any]) -> None:
        """Whether RunInstances would be let through: who may, and are these parameters. Nothing is launched."""
        with aws_errors("ec2:RunInstances"):
            try:
                self._session.client("ec2", is_retried=False).run_instances(**parameters, DryRun=True)
            except botocore.exceptions.ClientError as error:
                if error_code(error) != "DryRunOperation":
                    raise

    def read_no_command(self) -> None:
        """Whether the answers of SSM may be read: one is asked for that there cannot be."""
        with aws_errors("ssm:GetCommandInvocation"):
            try:
                self._session.client("ssm").get_command_invocation(CommandId=_NO_COMMAND, InstanceId=_NO_INSTANCE)
            except botocore.exceptions.ClientError as error:
                if error_code(error) not in {"InvocationDoesNotExist", "InvalidCommandId", "InvalidInstanceId"}:
                    raise

    def _of_vpc(self, operation: str, what: str, vpc: str) -> list[dict[str, Any]]:
        pages = self._session.client("ec2").get_paginator(operation).paginate(
            Filters=[{"Name": "vpc-id", "Values": [vpc]}]
        )  # fmt: skip
        return [item for page in pages for item in page[what]]


_TARGETS = ("GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "VpcPeeringConnectionId")


def _route_table(item: Mapping[str, Any]) -> RouteTable:
    associations = item.get("Associations", ())
    routes = [route for route in item["Routes"] if route.get("DestinationCidrBlock") == "0.0.0.0/0"]
    targets = [
        str(route[name])
        for route in routes
        for name in _TARGETS
        if route.get(name) and route.get("State") != "blackhole"
    ]
    return RouteTable(
        item["RouteTableId"],
        any(found.get("Main") for found in associations),
        frozenset(found["SubnetId"] for found in associations if found.get("SubnetId")),
        targets[0] if targets else "",
    )


def _endpoint(item: Mapping[str, Any]) -> Endpoint:
    return Endpoint(
        # com.amazonaws.us-east-1.ssm; cn.com.amazonaws.cn-north-1.ssm
        item["ServiceName"].rsplit(".", 1)[-1],
        item["VpcEndpointType"] == "Gateway",
        frozenset(item.get("RouteTableIds", ())),
        bool(item.get("PrivateDnsEnabled")),
    )


def _security_group(item: Mapping[str, Any]) -> SecurityGroup:
    return SecurityGroup(
        item["GroupId"], item.get("VpcId", ""), any(_is_https(rule) for rule in item.get("IpPermissionsEgress", ()))
    )


def _is_https(rule: Mapping[str, Any]) -> bool:
    if rule["IpProtocol"] == "-1":
        return True
    return rule["IpProtocol"] in {"tcp", "6"} and rule.get("FromPort", 0) <= 443 <= rule.get("ToPort", 65535)
