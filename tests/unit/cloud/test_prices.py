from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from botocore.stub import Stubber

from runctl_action.cloud import session as cloud_session
from runctl_action.cloud.cache import Cache
from runctl_action.cloud.prices import Price, Prices, SpotChange, _Figures
from runctl_action.cloud.session import Session

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
NOW = datetime(2026, 7, 1, 12, 0, 0, 999, tzinfo=UTC)
# To the second, as the API's own examples are.
ASKED = NOW.replace(microsecond=0)
G5 = {"instanceType": "g5.xlarge", "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used", "regionCode": "eu-west-1"}  # fmt: skip
GP3 = {"productFamily": "Storage", "volumeApiName": "gp3", "regionCode": "eu-west-1"}
IPV4 = {"regionCode": "eu-west-1"}
ZONES = ("eu-west-1a", "eu-west-1b", "eu-west-1c")
FIGURE = Price(Decimal("1.1230000000"), "Hrs", "AWS Price List (eu-west-1)", NOW)


@dataclass
class Clock:
    time: datetime = NOW

    def __call__(self) -> datetime:
        return self.time


class Aws:
    """Answers in place of AWS, in the order told; what was told and not asked fails the test."""

    def __init__(self, session: Session, stack: ExitStack) -> None:
        self.session = session
        self.pricing = self._stub(stack, "pricing", "eu-central-1")
        self.ec2 = self._stub(stack, "ec2")

    def _stub(self, stack: ExitStack, service: str, region: str | None = None) -> Stubber:
        return stack.enter_context(Stubber(self.session.client(service, is_brief=True, region=region)))

    def lists(
        self, *products: Any, filters: dict[str, str] = G5, service: str = "AmazonEC2", token: str = "", more: str = ""
    ) -> None:
        wanted = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()]
        request = {"ServiceCode": service, "Filters": wanted} | ({"NextToken": token} if token else {})
        texts = [product if isinstance(product, str) else json.dumps(product) for product in products]
        answer = {"FormatVersion": "aws_v1", "PriceList": texts} | ({"NextToken": more} if more else {})
        self.pricing.add_response("get_products", answer, request)

    def has_spot(self, *rows: dict[str, Any], kind: str = "g5.xlarge", more: str = "", **request: Any) -> None:
        wanted = {"InstanceTypes": [kind], "ProductDescriptions": ["Linux/UNIX"], **(request or {"StartTime": ASKED})}
        self.ec2.add_response(
            "describe_spot_price_history", {"SpotPriceHistory": list(rows), "NextToken": more}, wanted
        )

    def refuses(self, action: str, code: str, message: str = "said AWS") -> None:
        stubber = self.pricing if action == "get_products" else self.ec2
        stubber.add_client_error(action, code, message, 400)


def product(
    usd: str = "1.1230000000", unit: str = "Hrs", family: str = "Compute Instance", **attributes: str
) -> dict[str, Any]:
    """One of the Price List's, in the shape that AWS documents for GetProducts."""
    dimension = {
        "unit": unit, "endRange": "Inf", "description": f"${usd} per {unit}", "appliesTo": [], "beginRange": "0",
        "rateCode": "X2F2MW5AJ4B3WHTB.JRTCKXETXF.6YS6EN2CT7", "pricePerUnit": {"USD": usd},
    }  # fmt: skip
    term = {
        "priceDimensions": {dimension["rateCode"]: dimension}, "sku": "X2F2MW5AJ4B3WHTB", "termAttributes": {},
        "effectiveDate": "2026-07-01T00:00:00Z", "offerTermCode": "JRTCKXETXF",
    }  # fmt: skip
    reserved = {"X2F2MW5AJ4B3WHTB.4NA7Y494T4": {"priceDimensions": {"a": dimension | {"pricePerUnit": {"USD": "0.7"}}}}}
    return {
        "product": {"productFamily": family, "attributes": {"usagetype": "EU-BoxUsage:g5.xlarge"} | attributes, "sku": "X2F2MW5AJ4B3WHTB"},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {"X2F2MW5AJ4B3WHTB.JRTCKXETXF": term}, "Reserved": reserved},
        "version": "20260701000000",
        "publicationDate": "2026-07-01T00:00:00Z",
    }  # fmt: skip


def address(usage: str, usd: str = "0.0050000000") -> dict[str, Any]:
    found = product(usd, usagetype=usage)
    del found["product"]["productFamily"]
    return found


def row(zone: str, usd: str, since: datetime, kind: str = "g5.xlarge") -> dict[str, Any]:
    return {"AvailabilityZone": zone, "InstanceType": kind, "ProductDescription": "Linux/UNIX", "SpotPrice": usd, "Timestamp": since}  # fmt: skip


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


@pytest.fixture(scope="session")
def session() -> Iterator[Session]:
    made = cloud_session.connect(KEYS, "eu-west-1")
    yield made
    made.close()


@pytest.fixture
def aws(session: Session) -> Iterator[Aws]:
    with ExitStack() as stack:
        made = Aws(session, stack)
        yield made
        made.pricing.assert_no_pending_responses()
        made.ec2.assert_no_pending_responses()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_prices(session: Session, tmp_path: Path, clock: Clock) -> Callable[[], Prices]:
    """`open_prices()`: what a process has, all of them with one cache."""
    return lambda: Prices(session, tmp_path, now=clock)


@pytest.fixture
def prices(open_prices: Callable[[], Prices]) -> Prices:
    return open_prices()


class TestTheListPrice:
    def test_is_that_of_the_one_product_of_the_exact_filters(self, aws, prices):
        aws.lists(product())
        assert prices.on_demand("g5.xlarge") == FIGURE
        assert isinstance(prices.on_demand("g5.xlarge").usd, Decimal)
        assert prices.problems == ()

    def test_is_found_on_any_page(self, aws, prices):
        aws.lists(more="2")
        aws.lists(product(), token="2", more="3")
        aws.lists(token="3")
        assert prices.on_demand("g5.xlarge") == FIGURE

    def test_is_not_that_of_capacity_that_costs_nothing(self, aws, prices):
        aws.lists(product("0.0000000000", usagetype="EU-Reservation:g5.xlarge"), product())
        assert prices.on_demand("g5.xlarge") == FIGURE

    def test_is_not_that_of_a_product_without_on_demand_terms(self, aws, prices):
        aws.lists(product() | {"terms": {"Reserved": {}}}, product())
        assert prices.on_demand("g5.xlarge") == FIGURE

    @pytest.mark.parametrize("on_pages", [True, False])
    def test_is_unknown_when_there_are_several(self, aws, prices, on_pages):
        decoy = product("1.2000000000", usagetype="EU-UnusedBox:g5.xlarge")
        if on_pages:
            aws.lists(product(), more="2")
            aws.lists(decoy, token="2")
        else:
            aws.lists(product(), decoy)
        assert prices.on_demand("g5.xlarge") is None
        assert prices.problems == ("the Price List has 2 prices for g5.xlarge on demand in eu-west-1",)

    def test_is_unknown_when_it_depends_on_how_much_is_used(self, aws, prices):
        tiered = product()
        (term,) = tiered["terms"]["OnDemand"].values()
        term["priceDimensions"]["b"] = term["priceDimensions"]["X2F2MW5AJ4B3WHTB.JRTCKXETXF.6YS6EN2CT7"] | {
            "pricePerUnit": {"USD": "1"}
        }
        aws.lists(tiered)
        assert prices.on_demand("g5.xlarge") is None
        assert prices.problems == ("the Price List has 2 prices for g5.xlarge on demand in eu-west-1",)

    def test_is_unknown_where_there_is_none(self, aws, prices):
        aws.lists()
        assert prices.on_demand("g5.xlarge") is None
        assert prices.problems == ("the Price List has no price for g5.xlarge on demand in eu-west-1",)

    def test_is_unknown_in_another_unit(self, aws, prices):
        aws.lists(product(unit="Quantity"))
        assert prices.on_demand("g5.xlarge") is None
        assert prices.problems == (
            "the Price List's price for g5.xlarge on demand in eu-west-1 is per Quantity, not per hrs",
        )

    def test_is_unknown_in_another_currency(self, aws, prices):
        chinese = json.dumps(product()).replace('"USD"', '"CNY"')
        aws.lists(chinese)
        assert prices.on_demand("g5.xlarge") is None
        assert prices.problems == ("the Price List has no price for g5.xlarge on demand in eu-west-1",)

    @pytest.mark.parametrize(
        "answer", ["{", "[]", product("dear"), product("NaN"), product("-1"), {"terms": {"OnDemand": {"a": {}}}}]
    )
    def test_is_unknown_when_the_answer_has_no_sense(self, aws, prices, answer):
        aws.lists(answer)
        assert prices.on_demand("g5.xlarge") is None
        (problem,) = prices.problems
        assert problem.startswith("the answer to pricing:GetProducts cannot be read: ")

    def test_keeps_every_digit(self, aws, prices):
        aws.lists(json.dumps(product("21.9576420001")).replace('"21.9576420001"', "21.9576420001"))
        assert prices.on_demand("g5.xlarge").usd == Decimal("21.9576420001")


def test_storage_is_priced_by_the_month(aws, prices):
    aws.lists(product("0.0880000000", "GB-Mo", "Storage", usagetype="EU-EBS:VolumeUsage.gp3"), filters=GP3)
    assert prices.gp3() == Price(Decimal("0.088"), "GB-Mo", "AWS Price List (eu-west-1)", NOW)


def test_an_address_in_use_is_found_among_everything_of_vpc(aws, prices):
    decoys = ["EU-NatGateway-Hours", "EU-PublicIPv4:IdleAddress", "EU-DUB1-PublicIPv4:InUseAddress"]
    aws.lists(*map(address, decoys[:2]), filters=IPV4, service="AmazonVPC", more="2")
    aws.lists(address("EU-PublicIPv4:InUseAddress"), address(decoys[2]), filters=IPV4, service="AmazonVPC", token="2")
    assert prices.public_ipv4() == Price(Decimal("0.005"), "Hrs", "AWS Price List (eu-west-1)", NOW)


@pytest.mark.parametrize("usage", ["PublicIPv4:InUseAddress", "USE1-PublicIPv4:InUseAddress"])
def test_an_address_in_use_is_found_with_or_without_the_regions_prefix(aws, prices, usage):
    aws.lists(address(usage), filters=IPV4, service="AmazonVPC")
    assert prices.public_ipv4().usd == Decimal("0.005")


def test_two_prices_of_an_address_are_none(aws, prices):
    aws.lists(
        address("PublicIPv4:InUseAddress"),
        address("EU-PublicIPv4:InUseAddress", "0.006"),
        filters=IPV4,
        service="AmazonVPC",
    )
    assert prices.public_ipv4() is None
    assert prices.problems == ("the Price List has 2 prices for a public IPv4 address in eu-west-1",)


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("us-west-2", "us-east-1"), ("ca-central-1", "us-east-1"), ("sa-east-1", "us-east-1"), ("mars-1", "us-east-1"),
        ("eu-north-1", "eu-central-1"), ("me-south-1", "eu-central-1"), ("af-south-1", "eu-central-1"),
        ("ap-northeast-1", "ap-south-1"),
    ],
)  # fmt: skip
def test_the_nearest_endpoint_is_asked_for_the_regions_prices(tmp_path, region, endpoint):
    session = cloud_session.connect(KEYS, region)
    with Stubber(session.client("pricing", is_brief=True, region=endpoint)) as stubber:
        wanted = [
            {"Type": "TERM_MATCH", "Field": field, "Value": value}
            for field, value in {**GP3, "regionCode": region}.items()
        ]
        stubber.add_response(
            "get_products",
            {"PriceList": [json.dumps(product("0.08", "GB-Mo"))]},
            {"ServiceCode": "AmazonEC2", "Filters": wanted},
        )
        assert Prices(session, tmp_path).gp3().source == f"AWS Price List ({region})"
    session.close()


class TestTheSpotPrice:
    def test_is_the_last_change_of_each_zone(self, aws, prices):
        aws.has_spot(
            row("eu-west-1a", "0.591700", ago(hours=9)), row("eu-west-1b", "0.594100", ago(minutes=9)), more="2"
        )
        aws.has_spot(
            row("eu-west-1a", "0.600000", ago(hours=2)),
            row("eu-west-1a", "0.500000", ago(hours=20)),
            StartTime=ASKED,
            NextToken="2",
        )
        assert prices.spot("g5.xlarge", ZONES) == {
            "eu-west-1a": Price(Decimal("0.600000"), "Hrs", "EC2 spot price history (eu-west-1a)", NOW),
            "eu-west-1b": Price(Decimal("0.594100"), "Hrs", "EC2 spot price history (eu-west-1b)", NOW),
        }
        assert prices.problems == ()

    def test_is_of_the_zones_asked_for_in_their_order(self, aws, prices):
        aws.has_spot(*(row(zone, "0.5", ago(hours=1)) for zone in (*ZONES, "eu-west-1-dub-1a")))
        assert list(prices.spot("g5.xlarge", ["eu-west-1c", "eu-west-1a"])) == ["eu-west-1c", "eu-west-1a"]
        # One call is enough for all zones.
        assert list(prices.spot("g5.xlarge", ZONES)) == list(ZONES)

    def test_is_not_that_of_another_type(self, aws, prices):
        aws.has_spot(row("eu-west-1a", "0.1", ago(hours=1), "t3.micro"), row("eu-west-1b", "0.5", ago(hours=1)))
        assert list(prices.spot("g5.xlarge", ZONES)) == ["eu-west-1b"]

    def test_may_be_empty_in_a_zone(self, aws, prices):
        aws.has_spot(row("eu-west-1a", "", ago(hours=1)), row("eu-west-1b", "0.5", ago(hours=1)))
        assert list(prices.spot("g5.xlarge", ZONES)) == ["eu-west-1b"]

    def test_is_told_to_be_unknown_where_there_is_none(self, aws, prices):
        aws.has_spot(row("eu-west-1a", "0.5", ago(hours=1)))
        assert prices.spot("g5.xlarge", ZONES[1:]) == {}
        assert prices.problems == ("EC2 has no spot price for g5.xlarge in eu-west-1b, eu-west-1c",)

    def test_of_an_unknown_type_does_not_hide_that_of_others(self, aws, prices):
        aws.refuses("describe_spot_price_history", "InvalidParameterValue", "Invalid instance type: g5.tiny")
        aws.has_spot(row("eu-west-1a", "0.5", ago(hours=1)))
        assert prices.spot("g5.tiny", ZONES) == {}
        assert prices.spot("g5.tiny", ZONES) == {}
        assert prices.spot("g5.xlarge", ZONES)
        assert prices.problems == (
            "ec2:DescribeSpotPriceHistory failed: InvalidParameterValue: Invalid instance type: g5.tiny",
        )

    def test_of_no_zones_is_not_asked_for_twice(self, aws, prices):
        aws.has_spot()
        assert [prices.spot("g5.xlarge", ZONES), prices.spot("g5.xlarge", ZONES)] == [{}, {}]
        assert prices.problems == ("EC2 has no spot price for g5.xlarge in eu-west-1",)

    @pytest.mark.parametrize("usd", ["dear", "0", "-1", "NaN"])
    def test_without_sense_is_unknown(self, aws, prices, usd):
        aws.has_spot(row("eu-west-1a", usd, ago(hours=1)))
        assert prices.spot("g5.xlarge", ZONES) == {}
        (problem,) = prices.problems
        assert problem.startswith("the answer to ec2:DescribeSpotPriceHistory cannot be read: ")


START = ago(hours=3)
WINDOW = {"AvailabilityZone": "eu-west-1a", "StartTime": START.replace(microsecond=0), "EndTime": ASKED}


class TestTheSpotHistory:
    def history(self, prices: Prices) -> tuple[SpotChange, ...]:
        return prices.spot_history("g5.xlarge", "eu-west-1a", START, NOW)

    def test_begins_with_what_was_in_force_and_is_in_order(self, aws, prices):
        aws.has_spot(row("eu-west-1a", "0.3", ago(hours=1)), row("eu-west-1a", "0.2", ago(hours=2)), more="2", **WINDOW)
        aws.has_spot(
            row("eu-west-1a", "0.1", ago(hours=5)), row("eu-west-1a", "0.9", ago(hours=8)), NextToken="2", **WINDOW
        )
        assert self.history(prices) == (
            SpotChange(Decimal("0.1"), ago(hours=5)),
            SpotChange(Decimal("0.2"), ago(hours=2)),
            SpotChange(Decimal("0.3"), ago(hours=1)),
        )

    def test_has_nothing_of_other_zones_and_types_nor_of_later(self, aws, prices):
        aws.has_spot(
            row("eu-west-1a", "0.1", START),
            row("eu-west-1b", "0.2", ago(hours=2)),
            row("eu-west-1a", "0.3", ago(hours=2), "t3.micro"),
            row("eu-west-1a", "0.4", ago(hours=-1)),
            **WINDOW,
        )
        assert self.history(prices) == (SpotChange(Decimal("0.1"), START),)

    @pytest.mark.parametrize("rows", [[], [row("eu-west-1a", "0.2", ago(hours=2))]])
    def test_cannot_be_had_without_what_was_in_force_at_its_start(self, aws, prices, rows):
        aws.has_spot(*rows, **WINDOW)
        assert self.history(prices) == ()
        assert prices.problems == (
            "EC2 does not say what spot g5.xlarge cost in eu-west-1a at 2026-07-01T09:00:00+00:00",
        )

    def test_is_not_integrated_over_a_figure_that_cannot_be_read(self, aws, prices):
        aws.has_spot(row("eu-west-1a", "0.1", ago(hours=5)), row("eu-west-1a", "dear", ago(hours=2)), **WINDOW)
        assert self.history(prices) == ()
        assert len(prices.problems) == 1

    def test_is_asked_for_anew_each_time(self, aws, prices):
        for _ in range(2):
            aws.has_spot(row("eu-west-1a", "0.1", ago(hours=5)), **WINDOW)
        assert self.history(prices) == self.history(prices) != ()


class TestWhatCannotBeHad:
    def test_a_missing_permission_is_named_once_and_not_asked_for_again(self, aws, prices, clock):
        aws.refuses(
            "get_products", "AccessDeniedException", "User: me is not authorized to perform: pricing:GetProducts"
        )
        assert [prices.on_demand("g5.xlarge"), prices.on_demand("t3.micro"), prices.gp3(), prices.public_ipv4()] == [
            None
        ] * 4
        clock.time += timedelta(days=9)
        assert prices.on_demand("g5.xlarge") is None
        assert prices.problems == (
            "pricing:GetProducts is not allowed: User: me is not authorized to perform: pricing:GetProducts",
        )

    def test_one_api_is_not_the_other(self, aws, prices):
        aws.refuses("describe_spot_price_history", "UnauthorizedOperation")
        aws.lists(product())
        assert prices.spot("g5.xlarge", ZONES) == {}
        assert prices.spot_history("g5.xlarge", "eu-west-1a", ago(hours=1), NOW) == ()
        assert prices.on_demand("g5.xlarge") == FIGURE
        assert prices.problems == ("ec2:DescribeSpotPriceHistory is not allowed: said AWS",)

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("ThrottlingException", "pricing:GetProducts failed: ThrottlingException: said AWS"),
            ("InternalErrorException", "pricing:GetProducts failed: InternalErrorException: said AWS"),
            (
                "ExpiredTokenException",
                "the AWS credentials have expired (ExpiredTokenException at pricing:GetProducts)",
            ),
            (
                "InvalidSignatureException",
                "AWS does not accept the credentials: InvalidSignatureException at pricing:GetProducts: said AWS",
            ),
        ],
    )
    def test_an_api_that_does_not_answer_is_left_alone_for_a_while(self, aws, prices, clock, code, told):
        aws.refuses("get_products", code)
        assert [prices.on_demand("g5.xlarge"), prices.on_demand("t3.micro")] == [None, None]
        assert prices.problems == (told,)
        clock.time += timedelta(minutes=5)
        aws.lists(product())
        aws.lists(filters={**G5, "instanceType": "t3.micro"})
        assert prices.on_demand("g5.xlarge").usd == FIGURE.usd
        assert prices.on_demand("t3.micro") is None
        assert prices.problems == ("the Price List has no price for t3.micro on demand in eu-west-1",)

    @pytest.mark.parametrize(
        "error",
        [
            botocore.exceptions.EndpointConnectionError(endpoint_url="https://aws"),
            botocore.exceptions.ConnectTimeoutError(endpoint_url="https://aws"),
            botocore.exceptions.ReadTimeoutError(endpoint_url="https://aws"),
            botocore.exceptions.NoCredentialsError(),
        ],
    )
    def test_without_a_network_nobody_waits_twice(self, prices, session, error):
        asked = []

        def fail(**_: Any) -> None:
            asked.append(1)
            raise error

        events = session.client("pricing", is_brief=True, region="eu-central-1").meta.events
        events.register("before-call.pricing.GetProducts", fail)
        assert [prices.on_demand("g5.xlarge"), prices.gp3(), prices.public_ipv4()] == [None] * 3
        events.unregister("before-call.pricing.GetProducts", fail)
        assert len(asked) == 1
        (problem,) = prices.problems
        assert "pricing:GetProducts failed" in problem or "no usable AWS credentials" in problem

    @pytest.mark.parametrize("service", ["pricing", "ec2"])
    def test_the_clients_give_up_early(self, session, service):
        config = session.client(service, is_brief=True).meta.config
        assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (5, 10, 2)
        assert session.client(service) is not session.client(service, is_brief=True)

    def test_is_not_kept_for_other_processes(self, aws, open_prices):
        aws.lists()
        aws.lists(product())
        assert open_prices().on_demand("g5.xlarge") is None
        assert open_prices().on_demand("g5.xlarge") == FIGURE


def the_file(directory: Path) -> Path:
    (found,) = (directory / "prices").iterdir()
    return found


class TestTheCache:
    def test_answers_other_processes_with_the_time_of_reading(self, aws, open_prices, clock):
        aws.lists(product())
        aws.has_spot(row("eu-west-1a", "0.5", ago(hours=1)))
        first = open_prices()
        figures = first.on_demand("g5.xlarge"), first.spot("g5.xlarge", ZONES)
        clock.time += timedelta(minutes=5)
        again = open_prices()
        assert (again.on_demand("g5.xlarge"), again.spot("g5.xlarge", ZONES)) == figures
        assert again.on_demand("g5.xlarge").as_of == NOW

    def test_keeps_list_prices_for_a_day(self, aws, open_prices, clock):
        aws.lists(product())
        open_prices().on_demand("g5.xlarge")
        clock.time += timedelta(hours=24)
        assert open_prices().on_demand("g5.xlarge") == FIGURE
        clock.time += timedelta(seconds=1)
        aws.lists(product("2"))
        assert open_prices().on_demand("g5.xlarge").usd == 2

    def test_keeps_spot_prices_for_five_minutes(self, aws, open_prices, clock):
        aws.has_spot(row("eu-west-1a", "0.5", ago(hours=1)))
        open_prices().spot("g5.xlarge", ZONES)
        clock.time += timedelta(minutes=5, seconds=1)
        aws.has_spot(row("eu-west-1a", "0.6", NOW), StartTime=clock.time.replace(microsecond=0))
        (price,) = open_prices().spot("g5.xlarge", ZONES).values()
        assert (price.usd, price.as_of) == (Decimal("0.6"), clock.time)

    def test_knows_no_future(self, aws, open_prices, clock):
        aws.lists(product())
        open_prices().on_demand("g5.xlarge")
        clock.time -= timedelta(hours=1)
        aws.lists(product("2"))
        assert open_prices().on_demand("g5.xlarge").usd == 2

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda text: "",
            lambda text: text[: len(text) // 2],
            lambda text: text + "}",
            lambda text: "[" * 100_000,
            lambda text: "null",
            lambda text: "\x00" * len(text),
            lambda text: json.dumps(json.loads(text) | {"version": 2}),
            lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "version"}),
            lambda text: json.dumps(json.loads(text) | {"of": "another"}),
            lambda text: json.dumps(json.loads(text) | {"as_of": "2026-07-01T12:00:00"}),
            lambda text: json.dumps(json.loads(text) | {"usd": {}}),
            lambda text: json.dumps(json.loads(text) | {"usd": {"eu-west-1": "NaN"}}),
            lambda text: json.dumps(json.loads(text) | {"usd": {"eu-west-1": "0"}}),
            lambda text: json.dumps(json.loads(text) | {"usd": {"eu-west-1": "-1"}}),
        ],
    )
    def test_that_is_spoilt_is_as_if_it_were_not_there_and_is_mended(self, aws, open_prices, tmp_path, spoil):
        aws.lists(product("9"))
        open_prices().on_demand("g5.xlarge")
        the_file(tmp_path).write_text(spoil(the_file(tmp_path).read_text()))
        aws.lists(product())
        assert [open_prices().on_demand("g5.xlarge"), open_prices().on_demand("g5.xlarge")] == [FIGURE, FIGURE]

    def test_with_bytes_that_are_no_text_is_as_if_it_were_not_there(self, aws, open_prices, tmp_path):
        aws.lists(product())
        open_prices().on_demand("g5.xlarge")
        the_file(tmp_path).write_bytes(b"\xff\xfe{")
        aws.lists(product())
        assert open_prices().on_demand("g5.xlarge") == FIGURE

    def test_that_cannot_be_written_is_none(self, aws, session, tmp_path, clock):
        (tmp_path / "prices").write_text("a file, no directory")
        for _ in range(2):
            aws.lists(product())
            assert Prices(session, tmp_path, now=clock).on_demand("g5.xlarge") == FIGURE

    def test_does_not_mix_types_and_leaves_its_directory_for_none(self, aws, prices, tmp_path):
        evil = "../../t3"
        aws.lists(product("2"), filters={**G5, "instanceType": evil})
        aws.lists(product())
        assert prices.on_demand(evil).usd == 2
        assert prices.on_demand("g5.xlarge") == FIGURE
        assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {tmp_path / "prices"}

    @pytest.mark.parametrize(
        "changed",
        [
            {"AWS_ACCESS_KEY_ID": "another"},
            {"AWS_ENDPOINT_URL": "http://here"},
            {"AWS_ENDPOINT_URL_EC2": "http://here"},
        ],
    )
    def test_does_not_mix_the_zones_of_two_accounts_or_clouds(self, aws, open_prices, tmp_path, clock, changed):
        aws.has_spot(row("eu-west-1a", "0.5", ago(hours=1)))
        open_prices().spot("g5.xlarge", ZONES)
        session = cloud_session.connect(KEYS | changed, "eu-west-1")
        with Stubber(session.client("ec2", is_brief=True)) as stubber:
            stubber.add_response("describe_spot_price_history", {"SpotPriceHistory": [row("eu-west-1a", "0.7", NOW)]})
            (price,) = Prices(session, tmp_path, now=clock).spot("g5.xlarge", ZONES).values()
        assert price.usd == Decimal("0.7")
        session.close()

    def test_shares_list_prices_between_accounts(self, aws, open_prices, tmp_path, clock):
        aws.lists(product())
        open_prices().on_demand("g5.xlarge")
        session = cloud_session.connect(KEYS | {"AWS_ACCESS_KEY_ID": "another"}, "eu-west-1")
        assert Prices(session, tmp_path, now=clock).on_demand("g5.xlarge") == FIGURE
        session.close()

    def test_holds_no_keys(self, aws, prices, tmp_path):
        aws.has_spot(row("eu-west-1a", "0.5", ago(hours=1)))
        prices.spot("g5.xlarge", ZONES)
        assert "testing" not in the_file(tmp_path).read_text()

    def test_makes_no_client_for_what_it_has(self, aws, open_prices, tmp_path, clock):
        aws.lists(product())
        open_prices().on_demand("g5.xlarge")
        session = cloud_session.connect(KEYS, "eu-west-1")
        assert Prices(session, tmp_path, now=clock).on_demand("g5.xlarge") == FIGURE
        assert session._clients == {}
        session.close()

    def test_is_whole_at_every_instant_for_processes_at_once(self, tmp_path):
        """Some write figures of very different lengths to the same file, this one reads it all the while."""
        program = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from runctl_action.cloud.cache import Cache
from runctl_action.cloud.prices import _Figures
cache, size = Cache(Path(sys.argv[1])), int(sys.argv[2])
usd = {f"zone-{n}": size for n in range(size)}
for _ in range(150):
    cache.put("name", _Figures(version=1, of="x", as_of=datetime.now(UTC), unit="Hrs", usd=usd))
"""
        cache, seen = Cache(tmp_path), set()
        processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), size]) for size in ("1", "900")]
        began, ever = datetime(2020, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
        while any(process.poll() is None for process in processes):
            # Before the first writer there is nothing; from then on always something whole.
            if figures := cache.get("name", _Figures, "x", began, ever):
                assert set(figures.usd.values()) == {Decimal(len(figures.usd))}
                seen.add(len(figures.usd))
            else:
                assert not seen
        assert [process.returncode for process in processes] == [0, 0]
        assert cache.get("name", _Figures, "x", began, ever)
        assert [path.name for path in tmp_path.iterdir()] == ["name.json"]


def test_to_make_prices_is_to_ask_nothing(tmp_path):
    fresh = cloud_session.connect(KEYS, "eu-west-1")
    assert Prices(fresh, tmp_path / "nothing").problems == ()
    assert fresh._clients == {}
    assert not (tmp_path / "nothing").exists()
