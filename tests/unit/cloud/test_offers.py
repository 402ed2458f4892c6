from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.cloud.offers import quota_family, rank
from runctl_action.contract.documents import Market

ZONES = [("a", "subnet-a"), ("b", "subnet-b")]


def ranked(
    types: list[str], spot: Any, prices: dict[tuple[Market, str, str], str] | None = None, **options: Any
) -> list[str]:
    exact = {place: Decimal(usd) for place, usd in (prices or {}).items()}
    return [f"{o.market} {o.instance_type} {o.zone}" for o in rank(types, ZONES, spot, exact, **options)]


@pytest.mark.parametrize(
    ("spot", "markets"), [("never", ["on-demand"]), ("require", ["spot"]), ("prefer", ["spot", "on-demand"])]
)
def test_the_policy_says_which_markets_and_spot_comes_first(spot, markets):
    assert ranked(["t"], spot) == [f"{market} t {zone}" for market in markets for zone in "ab"]


def test_types_stay_in_the_order_given_however_cheap_the_later_ones_are():
    prices: Any = {("spot", "dear", "a"): "9", ("spot", "dear", "b"): "9", ("spot", "cheap", "a"): "1"}
    assert ranked(["dear", "cheap"], "require", prices) == [
        "spot dear a",
        "spot dear b",
        "spot cheap a",
        "spot cheap b",
    ]


def test_of_the_zones_the_cheaper_is_first_and_an_unknown_price_last():
    assert ranked(["t"], "require", {("spot", "t", "b"): "0.01"}) == ["spot t b", "spot t a"]
    assert ranked(["t"], "require", {("spot", "t", "a"): "2", ("spot", "t", "b"): "1"}) == ["spot t b", "spot t a"]


def test_cheapest_goes_by_price_alone_within_a_market():
    prices: Any = {
        ("spot", "x", "a"): "3", ("spot", "x", "b"): "1", ("spot", "y", "a"): "2", ("on-demand", "x", "a"): "0.5",
    }  # fmt: skip
    assert ranked(["cheapest", "x", "y"], "prefer", prices)[:5] == [
        "spot x b", "spot y a", "spot x a", "spot y b", "on-demand x a",
    ]  # fmt: skip


def test_cheapest_without_prices_is_the_order_given():
    assert ranked(["cheapest", "x", "y"], "require") == ["spot x a", "spot x b", "spot y a", "spot y b"]


def test_cheapest_further_back_is_no_type():
    assert ranked(["x", "cheapest"], "never") == ["on-demand x a", "on-demand x b"]


def test_under_a_limit_only_what_is_known_to_cost_no_more_is_left():
    prices: Any = {("spot", "t", "a"): "1.01", ("on-demand", "t", "a"): "1.00"}
    assert ranked(["t"], "prefer", prices, max_price=Decimal(1)) == ["on-demand t a"]
    assert ranked(["t"], "prefer", {}, max_price=Decimal(1)) == []


def test_a_type_named_twice_is_tried_once_where_it_was_named_first():
    assert ranked(["x", "y", "x"], "require") == ["spot x a", "spot x b", "spot y a", "spot y b"]


def test_an_offer_has_its_subnet_and_its_price():
    (offer,) = rank(["t"], [("a", "subnet-a")], "require", {("spot", "t", "a"): Decimal("0.0104")})
    assert (offer.subnet, offer.usd_per_hour) == ("subnet-a", Decimal("0.0104"))


@pytest.mark.parametrize("types", [[], ["cheapest"]])
def test_without_a_type_there_is_no_offer(types):
    assert ranked(types, "prefer") == []


@given(
    st.lists(st.sampled_from(["cheapest", "x", "y", "z"]), max_size=5),
    st.sampled_from(["never", "prefer", "require"]),
    st.dictionaries(
        st.tuples(st.sampled_from(["spot", "on-demand"]), st.sampled_from("xyz"), st.sampled_from("ab")),
        st.decimals("0.01", "10", places=2),
    ),
)
def test_every_possible_place_is_offered_once(types, spot, prices):
    offers = rank(types, ZONES, spot, prices)
    markets = {"never": ["on-demand"], "prefer": ["spot", "on-demand"], "require": ["spot"]}[spot]
    places = [(o.market, o.instance_type, o.zone) for o in offers]
    assert len(places) == len(set(places))
    assert set(places) == {(m, t, z) for m in markets for t in types if t != "cheapest" for z in "ab"}


@pytest.mark.parametrize(
    ("types", "family"),
    [(["t3.medium", "m7i.large", "c7i.xlarge", "is4gen.large", "m7g.large"], "standard"), (["g5.xlarge", "g4dn.xlarge"], "G and VT"),
     (["p5.48xlarge"], "p"), (["trn1.2xlarge"], "trn"), (["u-6tb1.metal"], "u")],
)  # fmt: skip
def test_types_that_share_a_quota_are_of_one_family(types, family):
    assert {quota_family(name) for name in types} == {family}
