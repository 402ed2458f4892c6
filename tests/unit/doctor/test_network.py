from __future__ import annotations

import pytest

from runctl_action.cloud.inspection import Endpoint, RouteTable, SecurityGroup
from runctl_action.cloud.instances import Subnet
from runctl_action.doctor.network import NEEDED, check_security_groups, way_out
from runctl_action.errors import CloudError

PUBLIC = Subnet("subnet-1", "us-east-1a", True, "vpc-1")
PRIVATE = Subnet("subnet-1", "us-east-1a", False, "vpc-1")


def table(target, *, id="rtb-1", is_main=True, subnets=()):
    return RouteTable(id, is_main, frozenset(subnets), target)


def interface(service, *, private_dns=True):
    return Endpoint(service, False, frozenset(), private_dns)


def gateway(service, *tables):
    return Endpoint(service, True, frozenset(tables), False)


INTERFACES = [interface(service) for service in NEEDED]


@pytest.mark.parametrize(
    ("subnet", "target", "way"),
    [
        (PUBLIC, "igw-1", "internet gateway"),
        (PUBLIC, "nat-1", "NAT gateway"),
        (PRIVATE, "nat-1", "NAT gateway"),
        (PRIVATE, "tgw-1", "tgw-1, behind which nothing can be seen"),
        (PRIVATE, "eni-1", "eni-1, behind"),
    ],
)
def test_a_default_route_is_a_way_out(subnet, target, way):
    assert way in way_out(subnet, [table(target)], [])


def test_the_tables_own_subnets_come_before_the_main_table():
    own = table("", id="rtb-2", is_main=False, subnets={"subnet-1"})
    with pytest.raises(CloudError, match="subnet-1 is isolated"):
        way_out(PUBLIC, [table("igw-1"), own], [])
    assert way_out(PUBLIC, [table(""), table("nat-1", id="rtb-2", is_main=False, subnets={"subnet-1"})], [])


def test_endpoints_are_a_way_out_without_a_route_and_without_public_addresses():
    for target in ("", "igw-1"):
        assert "VPC endpoints" in way_out(PRIVATE, [table(target)], INTERFACES)
    assert "VPC endpoints" in way_out(PRIVATE, [table("")], [*INTERFACES[:2], gateway("s3", "rtb-1")])


@pytest.mark.parametrize(
    ("endpoints", "missing"),
    [
        ([], "ssm, ssmmessages, s3"),
        (INTERFACES[:2], "s3"),
        ([*INTERFACES[:2], gateway("s3", "rtb-2")], "s3"),
        ([interface("ssm", private_dns=False), *INTERFACES[1:]], "ssm"),
    ],
)
def test_an_isolated_subnet_is_told_what_it_lacks(endpoints, missing):
    with pytest.raises(CloudError) as caught:
        way_out(PRIVATE, [table("")], endpoints)
    assert str(caught.value).endswith(f"no VPC endpoint for {missing}")
    assert "rtb-1" in caught.value.hint


def test_an_internet_gateway_is_of_no_use_without_a_public_address():
    with pytest.raises(CloudError, match="routes to igw-1, but gives its instances no public IPv4 address") as caught:
        way_out(PRIVATE, [table("igw-1")], [])
    assert "--map-public-ip-on-launch" in caught.value.hint


def test_security_groups_are_of_the_subnets_vpc_and_let_https_out():
    check_security_groups([SecurityGroup("sg-1", "vpc-1", False), SecurityGroup("sg-2", "vpc-1", True)], "vpc-1")
    with pytest.raises(CloudError, match="sg-1 is in vpc-2, and a subnet in vpc-1"):
        check_security_groups([SecurityGroup("sg-1", "vpc-2", True)], "vpc-1")
    for groups in ([SecurityGroup("sg-1", "vpc-1", False)], []):
        with pytest.raises(CloudError, match="no security group lets HTTPS out"):
            check_security_groups(groups, "vpc-1")
