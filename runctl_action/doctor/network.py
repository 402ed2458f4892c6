"""Whether a host gets out: to SSM and S3, and to where dependencies come from."""

from __future__ import annotations

from collections.abc import Sequence

from runctl_action.cloud.inspection import Endpoint, RouteTable, SecurityGroup
from runctl_action.cloud.instances import Subnet
from runctl_action.doctor.checkup import Facts, NotNeeded
from runctl_action.errors import CloudError

# Without these three a host neither starts nor tells; the agent asks for ec2messages only where they are not.
NEEDED = ("ssm", "ssmmessages", "s3")


def subnets(facts: Facts) -> str:
    if facts.settings.instance_id:
        raise NotNeeded("not needed: instance-id is set")
    facts.subnets = facts.instances.subnets(facts.settings.subnets)
    what = "chosen" if facts.settings.subnets else "default"
    return f"{len(facts.subnets)} {what}, in {', '.join(dict.fromkeys(subnet.zone for subnet in facts.subnets))}"


def security_groups(facts: Facts) -> str:
    found: dict[str, SecurityGroup] = {}
    for vpc in dict.fromkeys(subnet.vpc for subnet in facts.subnets):
        groups = facts.inspection.security_groups(facts.settings.security_groups, vpc)
        check_security_groups(groups, vpc)
        found |= {group.id: group for group in groups}
    return f"{', '.join(found)} {'lets' if len(found) == 1 else 'let'} HTTPS out"


def egress(facts: Facts) -> str:
    ways: dict[str, list[str]] = {}
    for vpc in dict.fromkeys(subnet.vpc for subnet in facts.subnets):
        tables, endpoints = facts.inspection.route_tables(vpc), facts.inspection.endpoints(vpc)
        for subnet in facts.subnets:
            if subnet.vpc == vpc:
                ways.setdefault(way_out(subnet, tables, endpoints), []).append(subnet.id)
    return "; ".join(f"{len(ids)} {'subnet' if len(ids) == 1 else 'subnets'} {way}" for way, ids in ways.items())


def check_security_groups(groups: Sequence[SecurityGroup], vpc: str) -> None:
    """Raises CloudError for groups of another VPC than the subnets', and for groups that let nothing out."""
    strange = [group for group in groups if group.vpc != vpc]
    if strange:
        raise CloudError(
            f"the security group {strange[0].id} is in {strange[0].vpc}, and a subnet in {vpc}",
            "set `security-groups` and `subnets` of the same VPC",
        )
    if not any(group.lets_https_out for group in groups):
        raise CloudError(
            f"no security group lets HTTPS out: {', '.join(group.id for group in groups) or 'there is none'}",
            f"aws ec2 authorize-security-group-egress --group-id {groups[0].id if groups else 'ID'} --protocol tcp "
            "--port 443 --cidr 0.0.0.0/0",
        )


def way_out(subnet: Subnet, tables: Sequence[RouteTable], endpoints: Sequence[Endpoint]) -> str:
    """How a host in the subnet gets to SSM and S3. Raises CloudError where it does not. Network ACLs are not looked at,
    nor what is behind a transit gateway or a firewall."""
    table = next((found for found in tables if subnet.id in found.subnets), None)
    table = table or next((found for found in tables if found.is_main), None)
    target = table.target if table else ""
    if target.startswith("igw-") and subnet.assigns_public_ipv4:
        return "by an internet gateway and public addresses"
    if target.startswith("nat-"):
        return "by a NAT gateway"
    if target and not target.startswith("igw-"):
        return f"by {target}, behind which nothing can be seen"
    reached = {
        endpoint.service
        for endpoint in endpoints
        if (
            table is not None and table.id in endpoint.route_tables if endpoint.is_gateway else endpoint.has_private_dns
        )
    }
    missing = [service for service in NEEDED if service not in reached]
    if not missing:
        return "by VPC endpoints; packages have to come from a mirror, or be in the image"
    endpoints_said = f"no VPC endpoint for {', '.join(missing)}"
    if target:
        raise CloudError(
            f"{subnet.id} routes to {target}, but gives its instances no public IPv4 address; it has {endpoints_said}",
            f"aws ec2 modify-subnet-attribute --subnet-id {subnet.id} --map-public-ip-on-launch",
        )
    raise CloudError(
        f"{subnet.id} is isolated: it has no route to the internet and {endpoints_said}",
        f"give {table.id if table else 'its VPC'} a route of 0.0.0.0/0 to an internet or NAT gateway, or the VPC these "
        "endpoints, or choose other `subnets`",
    )
