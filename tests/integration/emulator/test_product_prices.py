"""What the product reads of the emulator's prices: every figure AWS would give, and why one is missing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from runctl_action.cloud.prices import Prices
from runctl_action.cloud.session import Session, connect
from runctl_action.emulator.price_table import GP3, IPV4, ON_DEMAND, SPOT
from runctl_action.emulator.server import Emulator

ZONES = tuple(f"us-east-1{letter}" for letter in "abcdef")


@pytest.fixture
def session(aws: Emulator) -> Iterator[Session]:
    made = connect(aws.environ, None)
    yield made
    made.close()


@pytest.fixture
def prices(session: Session, tmp_path: Path) -> Prices:
    return Prices(session, tmp_path)


def test_every_type_has_the_published_price_on_demand(prices: Prices) -> None:
    found = {kind: prices.on_demand(kind) for kind in ON_DEMAND}
    assert len(found) == 14
    assert {kind: price and price.usd for kind, price in found.items()} == {
        kind: Decimal(usd) for kind, (usd, *_) in ON_DEMAND.items()
    }
    assert {(price.unit, price.source) for price in found.values() if price} == {("Hrs", "AWS Price List (us-east-1)")}
    assert prices.problems == ()


def test_another_region_has_its_own_prices_and_types(aws: Emulator, tmp_path: Path) -> None:
    session = connect(aws.environ, "eu-west-1")
    prices = Prices(session, tmp_path)
    price = prices.on_demand("t3.medium")
    assert price is not None
    assert price.usd == Decimal("0.0456")
    assert prices.on_demand("p5.48xlarge") is None
    assert prices.problems == ("the Price List has no price for p5.48xlarge on demand in eu-west-1",)
    session.close()


def test_spot_prices_differ_by_zone_and_are_missing_where_the_type_is_not_offered(prices: Prices) -> None:
    found = prices.spot("g6e.xlarge", ZONES)
    assert 1 < len(found) == sum(zone.startswith("use1") for zone in SPOT["g6e.xlarge"]) < len(ZONES)
    assert len({price.usd for price in found.values()}) > 1
    assert all(price.source == f"EC2 spot price history ({zone})" for zone, price in found.items())
    assert prices.problems == ()


def test_a_zone_alone_that_does_not_offer_the_type_is_told(prices: Prices) -> None:
    (missing,) = set(ZONES) - set(prices.spot("t3.medium", ZONES))
    assert prices.spot("t3.medium", [missing]) == {}
    assert prices.problems == (f"EC2 has no spot price for t3.medium in {missing}",)


def test_an_unknown_type_has_no_price_and_is_told(prices: Prices) -> None:
    assert prices.on_demand("t3.gigantic") is None
    assert prices.spot("t3.gigantic", ZONES) == {}
    assert prices.problems == (
        "the Price List has no price for t3.gigantic on demand in us-east-1",
        "EC2 has no spot price for t3.gigantic in us-east-1",
    )


def test_the_spot_history_begins_with_what_was_in_force_and_ends_with_what_is(prices: Prices) -> None:
    end = datetime.now(UTC)
    start = end - timedelta(hours=30)
    changes = prices.spot_history("g5.xlarge", "us-east-1a", start, end)
    assert len(changes) > 5
    assert changes[0].since <= start < changes[1].since
    assert all(one.since < other.since for one, other in pairwise(changes))
    now = prices.spot("g5.xlarge", ["us-east-1a"])["us-east-1a"]
    # A change may come between the two calls.
    assert now.usd == changes[-1].usd or now.as_of > end


def test_storage_and_addresses_have_their_prices(prices: Prices) -> None:
    disk, address = prices.gp3(), prices.public_ipv4()
    assert disk is not None
    assert address is not None
    assert (disk.usd, disk.unit) == (Decimal(GP3[0]), "GB-Mo")
    assert (address.usd, address.unit) == (Decimal(IPV4), "Hrs")


def test_a_missing_permission_is_named_and_asked_for_once(aws: Emulator, prices: Prices) -> None:
    aws.world.faults.add("denied:action=pricing:GetProducts,times=1")
    assert [prices.on_demand("g5.xlarge"), prices.on_demand("t3.medium"), prices.gp3()] == [None] * 3
    (problem,) = prices.problems
    assert problem.startswith("pricing:GetProducts is not allowed: ")
    assert prices.spot("g5.xlarge", ZONES)


def test_without_spot_prices_the_list_prices_are_still_had(aws: Emulator, prices: Prices) -> None:
    aws.world.faults.add("denied:action=ec2:DescribeSpotPriceHistory")
    now = datetime.now(UTC)
    assert prices.spot("g5.xlarge", ZONES) == {}
    assert prices.spot_history("g5.xlarge", ZONES[0], now - timedelta(hours=1), now) == ()
    (problem,) = prices.problems
    assert problem.startswith("ec2:DescribeSpotPriceHistory is not allowed: ")
    assert prices.on_demand("g5.xlarge")


def test_a_throttled_api_leaves_the_figure_unknown_for_now(aws: Emulator, session: Session, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    prices = Prices(session, tmp_path, now=lambda: now)
    # As often as it is tried.
    aws.world.faults.add("throttle:api=GetProducts,times=2")
    assert prices.gp3() is None
    (problem,) = prices.problems
    assert problem.startswith("pricing:GetProducts failed: Throttling")
    now += timedelta(minutes=5)
    assert prices.gp3()
    assert prices.problems == ()


def test_another_process_reads_what_is_kept_and_asks_nothing(aws: Emulator, prices: Prices, tmp_path: Path) -> None:
    first = (prices.on_demand("g5.xlarge"), prices.gp3(), prices.public_ipv4(), prices.spot("g5.xlarge", ZONES))
    for action in ("pricing:GetProducts", "ec2:DescribeSpotPriceHistory"):
        aws.world.faults.add(f"denied:action={action}")
    session = connect(aws.environ, None)
    other = Prices(session, tmp_path)
    assert (other.on_demand("g5.xlarge"), other.gp3(), other.public_ipv4(), other.spot("g5.xlarge", ZONES)) == first
    assert other.problems == ()
    session.close()


def test_the_figures_of_one_aws_are_not_anothers(aws: Emulator, prices: Prices, tmp_path: Path) -> None:
    assert prices.on_demand("g5.xlarge")
    assert prices.spot("g5.xlarge", ZONES)
    # Bound and not listened to, so nobody answers there.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        session = connect(aws.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}"}, None)
        other = Prices(session, tmp_path)
        assert other.on_demand("g5.xlarge") is None
        assert other.spot("g5.xlarge", ZONES) == {}
    assert [problem.partition(" failed: ")[0] for problem in other.problems] == [
        "pricing:GetProducts",
        "ec2:DescribeSpotPriceHistory",
    ]
    session.close()
