"""The Price List API, which moto lacks, and the spot price history, which it stubs: shapes, filters, movement."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from runctl_action.emulator.faults import Faults
from runctl_action.emulator.price_table import GP3, IPV4, ON_DEMAND, REGIONS, SHAPES, SPOT
from runctl_action.emulator.prices import Prices
from runctl_action.emulator.state import Delays, World

OFFERED = [(kind, region, price) for kind in ON_DEMAND for region, price in zip(REGIONS, ON_DEMAND[kind], strict=True)]
EXACT = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}


@pytest.fixture(scope="module")
def pricing(client: Any) -> Any:
    return client("pricing")


@pytest.fixture
def products(pricing: Any) -> Any:
    """`products(service, **filters)`, all pages."""

    def get(service: str = "AmazonEC2", **filters: str) -> list[dict[str, Any]]:
        wanted = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in filters.items()]
        pages = pricing.get_paginator("get_products").paginate(ServiceCode=service, Filters=wanted)
        found = [text for page in pages for text in page["PriceList"]]
        assert all(isinstance(text, str) for text in found)
        return [json.loads(text) for text in found]

    return get


def price(product: dict[str, Any]) -> tuple[Decimal, str]:
    """(USD, unit), where there is one term with one dimension."""
    (term,) = product["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    return Decimal(dimension["pricePerUnit"]["USD"]), dimension["unit"]


# GetProducts


@pytest.mark.parametrize(("kind", "region", "usd"), OFFERED)
def test_the_exact_filters_give_one_product_with_the_published_price(
    products: Any, kind: str, region: str, usd: str
) -> None:
    found = products(instanceType=kind, regionCode=region, **EXACT)
    assert [price(product) for product in found] == ([(Decimal(usd), "Hrs")] if usd else [])


@pytest.mark.parametrize("left_out", ["instanceType", "regionCode", *EXACT])
@pytest.mark.parametrize("kind", ON_DEMAND)
def test_without_any_of_the_filters_there_are_several(products: Any, kind: str, left_out: str) -> None:
    filters = {"instanceType": kind, "regionCode": "us-east-1", **EXACT}
    del filters[left_out]
    found = products(**filters)
    assert len(found) > 1
    # And they do not all cost the same, so that nobody can take just any.
    assert len({price(product)[0] for product in found}) > 1 or left_out == "regionCode"


def test_an_instances_product_has_awss_shape(products: Any) -> None:
    (product,) = products(instanceType="g5.xlarge", regionCode="us-east-1", **EXACT)
    assert product["serviceCode"] == "AmazonEC2"
    inside = product["product"]
    assert inside["productFamily"] == "Compute Instance"
    attributes = {"instanceType": "g5.xlarge", "regionCode": "us-east-1", "vcpu": "4", "memory": "16 GiB",
                  "usagetype": "USE1-BoxUsage:g5.xlarge", "location": "US East (N. Virginia)", **EXACT}  # fmt: skip
    assert inside["attributes"] | attributes == inside["attributes"]
    ((name, term),) = product["terms"]["OnDemand"].items()
    ((code, dimension),) = term["priceDimensions"].items()
    assert name == f"{inside['sku']}.{term['offerTermCode']}"
    assert code == dimension["rateCode"]
    assert code.startswith(f"{name}.")
    assert (dimension["unit"], dimension["pricePerUnit"]) == ("Hrs", {"USD": "1.0060000000"})


def test_every_product_has_a_number_of_its_own(products: Any) -> None:
    numbers = [product["product"]["sku"] for service in ("AmazonEC2", "AmazonVPC") for product in products(service)]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(("region", "usd"), list(zip(REGIONS, GP3, strict=True)))
def test_gp3_storage_has_its_price(products: Any, region: str, usd: str) -> None:
    found = products(regionCode=region, productFamily="Storage", volumeApiName="gp3")
    assert [price(product) for product in found] == [(Decimal(usd), "GB-Mo")]


@pytest.mark.parametrize("region", REGIONS)
def test_a_public_address_in_use_has_its_price_and_an_idle_one_is_another_product(products: Any, region: str) -> None:
    found = products("AmazonVPC", regionCode=region, group="VPCPublicIPv4Address")
    by_usage = {product["product"]["attributes"]["usagetype"].rpartition(":")[2]: price(product) for product in found}
    assert by_usage == dict.fromkeys(("InUseAddress", "IdleAddress"), (Decimal(IPV4), "Hrs"))


def test_there_are_pages(pricing: Any, products: Any) -> None:
    pages, token = [], None
    while True:
        answer = pricing.get_products(ServiceCode="AmazonEC2", MaxResults=7, **({"NextToken": token} if token else {}))
        assert answer["FormatVersion"] == "aws_v1"
        pages.append(answer["PriceList"])
        token = answer.get("NextToken")
        if not token:
            break
    assert [len(page) for page in pages[:-1]] == [7] * (len(pages) - 1)
    assert 0 < len(pages[-1]) <= 7
    assert [json.loads(text) for page in pages for text in page] == products()


def test_a_filter_that_nothing_matches_gives_nothing(products: Any) -> None:
    assert products(instanceType="t3.gigantic") == []
    assert products(nonsense="x") == []


def test_pricing_has_three_endpoints(aws: Any) -> None:
    environ = aws.environ
    session = boto3.Session(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"])
    config = Config(retries={"mode": "standard", "total_max_attempts": 1})
    refused = []
    for region in ("us-east-1", "eu-central-1", "ap-south-1", "us-west-2", "eu-west-1"):
        with contextlib.closing(session.client("pricing", region, endpoint_url=aws.endpoint, config=config)) as client:
            try:
                client.get_products(ServiceCode="AmazonEC2", MaxResults=1)
            except ClientError:
                refused.append(region)
    assert refused == ["us-west-2", "eu-west-1"]


def test_a_service_or_a_page_that_is_none_is_refused(pricing: Any) -> None:
    with pytest.raises(pricing.exceptions.NotFoundException):
        pricing.get_products(ServiceCode="AmazonNothing")
    with pytest.raises(pricing.exceptions.InvalidNextTokenException):
        pricing.get_products(ServiceCode="AmazonEC2", NextToken="made-up")


def test_every_type_has_a_shape_and_a_price_everywhere_where_it_has_a_spot_price() -> None:
    assert len(ON_DEMAND) == 14
    assert set(ON_DEMAND) == set(SHAPES) == set(SPOT)
    prefixes = dict(zip(REGIONS, ("use1-", "usw2-", "euw1-"), strict=True))
    for kind, region, usd in OFFERED:
        assert bool(usd) == any(zone.startswith(prefixes[region]) for zone in SPOT[kind])


# DescribeSpotPriceHistory


@pytest.fixture
def history(ec2: Any) -> Any:
    """`history(**parameters)`: all pages, as they come."""

    def get(**parameters: Any) -> list[dict[str, Any]]:
        pages = ec2.get_paginator("describe_spot_price_history").paginate(**parameters)
        return [item for page in pages for item in page["SpotPriceHistory"]]

    return get


@pytest.fixture(scope="module")
def zone_ids(ec2: Any) -> dict[str, str]:
    return {zone["ZoneName"]: zone["ZoneId"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]}


def test_spot_prices_are_where_the_type_is(history: Any, zone_ids: dict[str, str]) -> None:
    now = datetime.now(UTC)
    found = history(StartTime=now, EndTime=now, ProductDescriptions=["Linux/UNIX"])
    assert sorted((item["InstanceType"], zone_ids[item["AvailabilityZone"]]) for item in found) == sorted(
        (kind, zone) for kind in SPOT for zone in SPOT[kind] if zone.startswith("use1-")
    )


@pytest.mark.parametrize("kind", SPOT)
def test_spot_history_moves_a_few_per_cent_round_the_published_figure(
    history: Any, zone_ids: dict[str, str], kind: str
) -> None:
    on_demand = Decimal(ON_DEMAND[kind][0])
    by_zone = defaultdict(list)
    for item in history(InstanceTypes=[kind], StartTime=datetime.now(UTC) - timedelta(days=5)):
        by_zone[zone_ids[item["AvailabilityZone"]]].append(Decimal(item["SpotPrice"]))
    assert by_zone.keys() == {zone for zone in SPOT[kind] if zone.startswith("use1-")}
    for zone, prices in by_zone.items():
        figure = Decimal(SPOT[kind][zone])
        assert all(on_demand / 10 <= usd <= on_demand for usd in prices)
        # Six per cent, and what four decimals round.
        assert all(abs(usd - figure) <= figure * Decimal("0.06") + Decimal("0.0001") for usd in prices)
        assert len(set(prices)) > 1
    assert len({tuple(prices) for prices in by_zone.values()}) == len(by_zone), "zones move each on their own"


def test_spot_history_begins_with_the_last_change_before_the_start(history: Any) -> None:
    wanted = {"InstanceTypes": ["g5.xlarge"], "AvailabilityZone": "us-east-1a", "ProductDescriptions": ["Linux/UNIX"]}
    now = datetime.now(UTC)
    whole = [item["Timestamp"] for item in history(**wanted, StartTime=now - timedelta(days=3))]
    start = whole[4] + timedelta(seconds=1)
    found = [item["Timestamp"] for item in history(**wanted, StartTime=start, EndTime=whole[2])]
    assert found == [whole[2], whole[3], whole[4]]
    # The change itself is no longer before: it is the first.
    assert [item["Timestamp"] for item in history(**wanted, StartTime=whole[4], EndTime=whole[3])] == whole[3:5]
    # Between two changes: only what is in force.
    between = whole[4] + timedelta(minutes=1)
    assert [item["Timestamp"] for item in history(**wanted, StartTime=between, EndTime=between)] == [whole[4]]


def test_spot_history_is_newest_first_and_goes_back_90_days(history: Any) -> None:
    now = datetime.now(UTC)
    times = [item["Timestamp"] for item in history(InstanceTypes=["t3.micro"], AvailabilityZone="us-east-1b")]
    assert times == sorted(times, reverse=True)
    assert times[0] <= now
    assert now - timedelta(days=91) < times[-1] <= now - timedelta(days=90) + timedelta(minutes=1)
    assert all(later - earlier == timedelta(hours=5) for later, earlier in pairwise(times))
    several = [item["Timestamp"] for item in history(InstanceTypes=["t3.micro"], StartTime=now - timedelta(days=2))]
    assert several == sorted(several, reverse=True)


def test_nothing_is_told_of_the_future(history: Any) -> None:
    now = datetime.now(UTC)
    found = history(InstanceTypes=["t3.micro"], StartTime=now - timedelta(hours=1), EndTime=now + timedelta(days=5))
    assert max(item["Timestamp"] for item in found) <= datetime.now(UTC)


def test_the_same_question_has_the_same_answer(history: Any) -> None:
    end = datetime.now(UTC)
    wanted = {"InstanceTypes": ["g5.xlarge", "g6.xlarge"], "StartTime": end - timedelta(days=3), "EndTime": end}
    assert history(**wanted) == history(**wanted)


def test_spot_history_is_filtered(history: Any) -> None:
    end = datetime.now(UTC)
    when = {"StartTime": end - timedelta(days=1), "EndTime": end}
    everything = history(**when)
    zone = "us-east-1b"

    def only(**wanted: str) -> list[dict[str, Any]]:
        return [item for item in everything if item.items() >= wanted.items()]

    by_both = only(InstanceType="g5.xlarge", AvailabilityZone=zone)
    assert 0 < len(by_both) < len(everything)
    assert history(**when, InstanceTypes=["g5.xlarge"]) == only(InstanceType="g5.xlarge")
    assert history(**when, AvailabilityZone=zone) == only(AvailabilityZone=zone)
    assert history(**when, InstanceTypes=["g5.xlarge"], AvailabilityZone=zone) == by_both
    filters = [
        {"Name": "instance-type", "Values": ["g5.xlarge"]},
        {"Name": "availability-zone", "Values": [zone]},
        {"Name": "product-description", "Values": ["Linux/UNIX", "Windows"]},
    ]
    assert history(**when, Filters=filters) == by_both
    assert history(**when, ProductDescriptions=["Windows"]) == []
    assert history(**when, InstanceTypes=["t3.gigantic"]) == []
    assert {item["ProductDescription"] for item in everything} == {"Linux/UNIX"}


def test_a_filter_that_is_not_known_is_refused(ec2: Any) -> None:
    with pytest.raises(ClientError) as refused:
        ec2.describe_spot_price_history(Filters=[{"Name": "colour", "Values": ["blue"]}])
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValue"


def test_spot_history_has_pages(ec2: Any, history: Any) -> None:
    end = datetime.now(UTC)
    wanted = {"InstanceTypes": ["g5.xlarge"], "StartTime": end - timedelta(days=3), "EndTime": end}
    whole, pages, token = history(**wanted), [], ""
    while True:
        answer = ec2.describe_spot_price_history(**wanted, MaxResults=7, **({"NextToken": token} if token else {}))
        pages.append(answer["SpotPriceHistory"])
        token = answer.get("NextToken", "")
        if not token:
            break
    assert [len(page) for page in pages[:-1]] == [7] * (len(pages) - 1)
    assert [item for page in pages for item in page] == whole
    with pytest.raises(ClientError) as refused:
        ec2.describe_spot_price_history(**wanted, NextToken="made-up")
    assert refused.value.response["Error"]["Code"] == "InvalidNextToken"


def test_the_price_in_force_is_what_a_launch_is_held_to(aws: Any, ec2: Any, history: Any) -> None:
    now = datetime.now(UTC)
    wanted = {"InstanceTypes": ["g5.xlarge"], "AvailabilityZone": "us-east-1a", "StartTime": now, "EndTime": now}
    (in_force,) = history(**wanted)
    launch = {
        "ImageId": "ami-0000000000ubuntu1", "InstanceType": "g5.xlarge", "MinCount": 1, "MaxCount": 1,
        "Placement": {"AvailabilityZone": "us-east-1a"},
    }  # fmt: skip
    too_low = {"MaxPrice": str(Decimal(in_force["SpotPrice"]) - Decimal("0.0001"))}
    with pytest.raises(ClientError) as refused:
        ec2.run_instances(**launch, InstanceMarketOptions={"MarketType": "spot", "SpotOptions": too_low})
    assert refused.value.response["Error"]["Code"] == "SpotMaxPriceTooLow"
    # A dry run looks at permissions and at what is asked for; at prices and capacity only a launch does.
    enough = {"MarketType": "spot", "SpotOptions": {"MaxPrice": in_force["SpotPrice"]}}
    with pytest.raises(ClientError) as accepted:
        ec2.run_instances(**launch, InstanceMarketOptions=enough, DryRun=True)
    assert accepted.value.response["Error"]["Code"] == "DryRunOperation"


@pytest.mark.parametrize("region", REGIONS)
def test_every_region_has_the_prices_of_its_zones(tmp_path: Any, region: str) -> None:
    prices = Prices(World(tmp_path, region, Delays(), Faults()))
    prefix = {"us-east-1": "use1-", "us-west-2": "usw2-", "eu-west-1": "euw1-"}[region]
    for kind, by_zone in SPOT.items():
        there = [zone for zone in prices.zones if prices.is_offered(kind, zone)]
        assert len(there) == sum(zone.startswith(prefix) for zone in by_zone)
        assert all(prices.spot_now(kind, zone) for zone in there)
    assert prices.spot_now("c6i.large", prices.zones[0]) is None
    assert prices.is_offered("c6i.large", prices.zones[0])


def test_in_compressed_time_an_hour_of_the_callers_costs_as_many_of_its_own(
    aws: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed() -> Decimal:
        fields = {"instanceType": "g5.xlarge", "regionCode": "us-east-1", "operatingSystem": "Linux", "tenancy": "Shared",
                  "preInstalledSw": "NA", "capacitystatus": "Used"}  # fmt: skip
        filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()]
        (found,) = client("pricing").get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
        (term,) = json.loads(found)["terms"]["OnDemand"].values()
        (dimension,) = term["priceDimensions"].values()
        return Decimal(dimension["pricePerUnit"]["USD"])

    usual = listed()
    monkeypatch.setattr(aws.world, "seconds_per_minute", 0.5)
    assert listed() == 120 * usual
