"""The receipt against a table worked out by hand, and against what must hold of any run whatever."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runctl_action.contract.reports import Receipt
from runctl_action.report import markdown, terminal
from runctl_action.report.receipt import Rate, Stay, apportioned, receipt, spent_usd

START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
LATER = START + timedelta(days=3)
LIST = "AWS Price List"
HISTORY = "DescribeSpotPriceHistory"
MICRO = Decimal("0.000001")


def seconds(count):
    return timedelta(seconds=count)


def stay(length=3600, *, at=START, **changes):
    """On-demand for 0.0416 USD/h, spot for 0.0152; no volume, no address."""
    values = {
        "attempt": 1,
        "instance_type": "t3.medium",
        "zone": "us-east-1a",
        "market": "spot",
        "began_at": at,
        "ended_at": None if length is None else at + seconds(length),
        "is_reclaimed": False,
        "on_demand": Rate(Decimal("0.0416"), LIST),
        "spot": ((at - timedelta(hours=5), Decimal("0.0152")),),
        "spot_source": HISTORY,
        "volume_gib": 0,
        "has_public_ipv4": False,
        "gp3": Rate(Decimal("0.08"), LIST),
        "ipv4": Rate(Decimal("0.005"), LIST),
        "training_seconds": None if length is None else max(0, length - 60),
    }
    return Stay(**(values | changes))


def spot(*changes, at=START):
    """(offset in seconds, USD/h) …"""
    return tuple((at + seconds(offset), Decimal(usd)) for offset, usd in changes)


# name: stays, each line's amount, the total, the same on-demand. The arithmetic is in USD.
BY_HAND = {
    # spot       3600 s × 0.0152 / 3600 = 0.0152
    # on-demand  3600 s × 0.0416 / 3600 = 0.0416
    "an hour of spot": ([stay(3600)], ["0.015200"], "0.015200", "0.041600"),
    # spot       1000 s × 0.0152 / 3600 = 0.004222… → 0.004222
    # volume     8 × 1000 / (730 × 3600) = 0.0030441… GB-month × 0.08 = 0.000243531… → 0.000244 (rounded up, see below)
    # address    1000 s × 0.005 / 3600 = 0.001388… → 0.001389
    # sum        0.0042222… + 0.0002435… + 0.0013888… = 0.0058546… → 0.005855 = 0.004222 + 0.000244 + 0.001389
    # on-demand  1000 s × 0.0416 / 3600 = 0.0115555… + 0.0002435… + 0.0013888… = 0.0131879… → 0.013188
    "with a disk and an address": (
        [stay(1000, volume_gib=8, has_public_ipv4=True)],
        ["0.004222", "0.000244", "0.001389"],
        "0.005855",
        "0.013188",
    ),
    # before     600 s × 0.0120 / 3600 = 0.002
    # then      1200 s × 0.0150 / 3600 = 0.005
    # then      1800 s × 0.0180 / 3600 = 0.009
    # on-demand 3600 s × 0.0416 / 3600 = 0.0416
    "two price changes": (
        [stay(3600, spot=spot((-7200, "0.012"), (600, "0.015"), (1800, "0.018"), (9999, "5")))],
        ["0.002000", "0.005000", "0.009000"],
        "0.016000",
        "0.041600",
    ),
    # the first price that is known is from 100 s after the launch: 3600 s × 0.0120 / 3600 = 0.012
    "a first price from after the launch": (
        [stay(3600, spot=spot((100, "0.012")))],
        ["0.012000"],
        "0.012000",
        "0.041600",
    ),
    # 17 s are billed as 60 s: 60 × 0.0416 / 3600 = 0.00069333… → 0.000693
    "seventeen seconds": ([stay(17, market="on-demand")], ["0.000693"], "0.000693", "0.000693"),
    # 60.2 s: the 61st second has begun: 61 × 0.0416 / 3600 = 0.00070488… → 0.000705
    "a second that has begun": ([stay(60.2, market="on-demand")], ["0.000705"], "0.000705", "0.000705"),
    # reclaimed after 3599 s: compute 0; address 3599 × 0.005 / 3600 = 0.00499861… → 0.004999
    # on-demand 3599 × 0.0416 / 3600 = 0.04158844… + 0.00499861… = 0.04658705… → 0.046587
    "reclaimed in its first hour": (
        [stay(3599, is_reclaimed=True, has_public_ipv4=True)],
        ["0.000000", "0.004999"],
        "0.004999",
        "0.046587",
    ),
    # reclaimed at 3600 s, its first hour is over: 0.0152
    "reclaimed after its first hour": ([stay(3600, is_reclaimed=True)], ["0.015200"], "0.015200", "0.041600"),
    # attempt 1  reclaimed after 1800 s: compute 0                       on-demand 1800 × 0.0416 / 3600 = 0.0208
    # attempt 2  on-demand 7200 s × 0.0416 / 3600 = 0.0832               on-demand 0.0832
    "reclaimed, then on-demand": (
        [stay(1800, is_reclaimed=True), stay(7200, at=START + seconds(1900), attempt=2, market="on-demand")],
        ["0.000000", "0.083200"],
        "0.083200",
        "0.104000",
    ),
    # spot 1800 s × 0.06 / 3600 = 0.03, on-demand 1800 s × 0.0416 / 3600 = 0.0208: dearer, and shown so
    "spot that is dearer": ([stay(1800, spot=spot((0, "0.06")))], ["0.030000"], "0.030000", "0.020800"),
    # a GPU for two days: 172800 s × 1.006 / 3600 = 48.288; 100 GiB: 100 × 172800 / 2628000 × 0.08 = 0.52602… → 0.526027
    "two days of a GPU": (
        [stay(172800, market="on-demand", on_demand=Rate(Decimal("1.006"), LIST), volume_gib=100)],
        ["48.288000", "0.526027"],
        "48.814027",
        "48.814027",
    ),
    # the user's own instance: nothing, whatever is on it
    "an existing instance": (
        [stay(5000, market="existing", volume_gib=100, has_public_ipv4=True, on_demand=None)],
        ["0.000000"],
        "0.000000",
        "0.000000",
    ),
    "nothing was launched": ([], [], "0.000000", "0.000000"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_receipt_is_what_was_worked_out_by_hand(name):
    stays, amounts, total, on_demand = BY_HAND[name]
    shown = receipt(stays, LATER)
    assert [str(line.usd) for line in shown.lines] == amounts
    assert str(shown.total_usd) == total
    assert str(shown.on_demand_usd) == on_demand
    assert shown.saved_usd == Decimal(on_demand) - Decimal(total)
    assert shown.is_final
    assert not shown.unknown


def test_a_line_says_what_how_much_at_which_price_and_where_that_is_from():
    lines = receipt(
        [stay(1000, volume_gib=8, has_public_ipv4=True, spot=spot((0, "0.012"), (400, "0.015")))], LATER
    ).lines
    assert [(x.attempt, x.item, str(x.quantity), x.unit, str(x.unit_usd), x.source) for x in lines] == [
        (1, "t3.medium, spot, us-east-1a", "0.111111111", "h", "0.012", HISTORY),
        (1, "t3.medium, spot, us-east-1a, from 2026-03-02 10:06 UTC", "0.166666667", "h", "0.015", HISTORY),
        (1, "gp3 volume, 8 GiB", "0.003044140", "GB-month", "0.08", LIST),
        (1, "public IPv4 address", "0.277777778", "h", "0.005", LIST),
    ]


def test_a_price_that_is_listed_again_unchanged_is_one_line():
    assert len(receipt([stay(1000, spot=spot((0, "0.012"), (400, "0.0120"), (500, "0.012")))], LATER).lines) == 1


def test_a_free_first_hour_and_an_instance_of_ones_own_say_why_they_cost_nothing():
    free, own = receipt([stay(1800, is_reclaimed=True, spot=()), stay(1800, market="existing")], LATER).lines
    assert "free, AWS interrupted it in its first hour" in free.item
    assert "your own, it costs nothing extra" in own.item


def test_an_instance_that_is_being_reclaimed_is_billed_until_it_has_ended():
    going = stay(None, is_reclaimed=True)
    assert receipt([going], START + seconds(1800)).total_usd == Decimal("0.007600")
    assert receipt([replace(going, ended_at=START + seconds(1800))], LATER).total_usd == 0


def test_an_on_demand_instance_that_aws_ends_is_never_free():
    assert receipt([stay(1800, market="on-demand", is_reclaimed=True)], LATER).total_usd == Decimal("0.020800")


def test_compute_without_a_price_leaves_no_total_and_keeps_the_lines_that_are_known():
    shown = receipt([stay(3600, spot=(), has_public_ipv4=True), stay(3600, attempt=2)], LATER)
    assert (shown.total_usd, shown.saved_usd, shown.idle_usd, shown.idle_seconds) == (None,) * 4
    assert [str(line.usd) for line in shown.lines] == ["0.005000", "0.015200"]
    assert shown.unknown == ("attempt 1: t3.medium, spot, us-east-1a",)
    # 2 × 0.0416 + 0.005
    assert shown.on_demand_usd == Decimal("0.088200")
    assert spent_usd([stay(3600, spot=())], LATER) is None


def test_a_disk_without_a_price_is_named_and_left_out_on_both_sides():
    shown = receipt([stay(3600, volume_gib=8, gp3=None, has_public_ipv4=True, ipv4=None)], LATER)
    assert (shown.total_usd, shown.on_demand_usd) == (Decimal("0.015200"), Decimal("0.041600"))
    assert shown.unknown == ("attempt 1: gp3 volume, 8 GiB", "attempt 1: public IPv4 address")


def test_without_an_on_demand_price_spot_has_a_total_and_no_comparison():
    shown = receipt([stay(3600, on_demand=None)], LATER)
    assert (shown.total_usd, shown.on_demand_usd, shown.saved_usd) == (Decimal("0.015200"), None, None)
    assert receipt([stay(3600, market="on-demand", on_demand=None)], LATER).total_usd is None


def test_what_was_paid_for_and_not_spent_training_is_apart():
    # 1000 s for 1000 × 0.0152 / 3600 = 0.0042222…, of which 250 s trained: 750 / 1000 × 0.0042222… = 0.0031666…
    shown = receipt([stay(1000, training_seconds=250.0)], LATER)
    assert (shown.idle_usd, shown.idle_seconds) == (Decimal("0.003167"), 750.0)
    # of the 60 s that are billed for 20 s, 15 s trained
    assert receipt([stay(20, training_seconds=15.0)], LATER).idle_seconds == 45.0
    assert receipt([stay(1000, training_seconds=None)], LATER).idle_usd is None


def test_what_cannot_be_known_is_said():
    text = "; ".join(receipt([stay()], LATER).not_included)
    for part in (
        "data transfer",
        "S3 requests",
        "Savings Plans",
        "reservations",
        "credits",
        "CPU credits of t3.medium",
    ):
        assert part in text
    assert "CPU credits" not in "; ".join(receipt([stay(instance_type="c7i.large")], LATER).not_included)


def test_a_receipt_survives_its_document():
    shown = receipt([stay(1000, volume_gib=8)], LATER)
    assert Receipt.model_validate_json(shown.model_dump_json()) == shown
    assert Receipt.model_validate_json('{"total_usd": "0.5", "as_of": "2026-03-02T10:00:00Z"}').is_final


USD = st.decimals(min_value=0, max_value=100, places=6)
LENGTH = st.integers(0, 200_000)
RATE = st.builds(Rate, USD, st.just(LIST))


@st.composite
def prices(draw, usd=USD):
    offsets = sorted(draw(st.lists(st.integers(0, 200_000), max_size=6)))
    return spot((-draw(st.integers(0, 99_999)), draw(usd)), *((offset, draw(usd)) for offset in offsets))


@st.composite
def any_stay(draw, **fixed):
    length = draw(LENGTH)
    drawn = {
        "market": draw(st.sampled_from(["spot", "spot", "on-demand", "existing"])),
        "attempt": draw(st.integers(1, 5)),
        "is_reclaimed": draw(st.booleans()),
        "on_demand": draw(RATE),
        "spot": draw(prices()),
        "volume_gib": draw(st.integers(0, 500)),
        "has_public_ipv4": draw(st.booleans()),
        "training_seconds": draw(st.floats(-10, 250_000)),
        "ended_at": draw(st.sampled_from([START + seconds(length), START + seconds(length), None])),
    }
    return stay(length, **(drawn | fixed))


ANY_STAYS = st.lists(any_stay(), max_size=4)
PRICED_OR_NOT = st.lists(
    st.builds(
        lambda s, missing: replace(s, **{name: () if name == "spot" else None for name in missing}),
        any_stay(),
        st.sets(st.sampled_from(["spot", "on_demand", "gp3", "ipv4", "training_seconds"])),
    ),
    max_size=4,
)


@given(PRICED_OR_NOT)
def test_nothing_is_negative_and_the_lines_add_up(stays):
    shown = receipt(stays, LATER)
    total = sum((line.usd for line in shown.lines), Decimal())
    assert all(line.usd >= 0 for line in shown.lines)
    assert shown.total_usd in {None, total}
    assert shown.on_demand_usd is None or shown.on_demand_usd >= 0
    assert shown.idle_usd is None or 0 <= shown.idle_usd <= total
    assert spent_usd(stays, LATER) == shown.total_usd
    for line in shown.lines:
        assert abs(line.quantity * line.unit_usd - line.usd) <= MICRO + line.unit_usd * Decimal("1e-9")


@given(PRICED_OR_NOT)
def test_the_total_is_missing_exactly_when_compute_has_no_price(stays):
    def is_priced(s):
        is_free = s.is_reclaimed and s.ended_at and s.ended_at - START < timedelta(hours=1)
        return {"existing": True, "on-demand": bool(s.on_demand), "spot": bool(s.spot) or is_free}[s.market]

    assert (receipt(stays, LATER).total_usd is not None) == all(map(is_priced, stays))


@given(ANY_STAYS)
def test_the_total_is_the_sum_of_its_stays(stays):
    alone = sum((receipt([s], LATER).total_usd for s in stays), Decimal())
    assert abs(receipt(stays, LATER).total_usd - alone) <= MICRO / 2 * (len(stays) + 1)


@given(any_stay(is_reclaimed=False, ended_at=START + seconds(150_000)), st.integers(60, 149_940))
def test_a_stay_costs_what_its_two_parts_cost(whole, at):
    split = START + seconds(at)
    first = replace(whole, ended_at=split)
    past = [price for price in whole.spot if price[0] <= split]
    second = replace(whole, began_at=split, spot=(*past[-1:], *(price for price in whole.spot if price[0] > split)))
    parts = receipt([first, second], LATER)
    assert parts.total_usd == receipt([whole], LATER).total_usd
    assert parts.on_demand_usd == receipt([whole], LATER).on_demand_usd


@given(any_stay(market="spot"), USD)
def test_spot_below_on_demand_never_costs_more_than_on_demand(s, on_demand):
    s = replace(s, spot=tuple((since, min(usd, on_demand)) for since, usd in s.spot), on_demand=Rate(on_demand, LIST))
    shown = receipt([s], LATER)
    assert shown.total_usd <= shown.on_demand_usd
    bare = receipt([replace(s, volume_gib=0, has_public_ipv4=False)], LATER)
    hours = Fraction(max(60, int(((s.ended_at or LATER) - START).total_seconds())), 3600)
    assert bare.total_usd <= Fraction(on_demand) * hours + Fraction(MICRO)


@given(any_stay(market="spot", is_reclaimed=False, volume_gib=0, has_public_ipv4=False))
def test_spot_costs_between_its_lowest_and_its_highest_price(s):
    hours = Fraction(max(60, int(((s.ended_at or LATER) - START).total_seconds())), 3600)
    low, high = (pick(Fraction(usd) for _, usd in s.spot) * hours for pick in (min, max))
    assert low - Fraction(MICRO) <= receipt([s], LATER).total_usd <= high + Fraction(MICRO)


@given(any_stay(is_reclaimed=False), st.integers(0, 60))
def test_less_than_a_minute_costs_a_minute(s, length):
    short = receipt([replace(s, ended_at=START + seconds(length))], LATER)
    assert short.lines == receipt([replace(s, ended_at=START + seconds(60))], LATER).lines


@given(any_stay(market="spot", is_reclaimed=True, volume_gib=0, has_public_ipv4=False), st.integers(0, 7200))
def test_only_what_aws_interrupts_in_the_first_hour_is_free(s, length):
    ended = replace(s, ended_at=START + seconds(length))
    assert receipt([ended], LATER).total_usd == (
        0 if length < 3600 else receipt([replace(ended, is_reclaimed=False)], LATER).total_usd
    )


@given(any_stay(ended_at=None), st.integers(0, 300_000), st.integers(0, 300_000))
def test_what_is_spent_so_far_never_goes_down(s, one, other):
    early, late = sorted([one, other])
    shown = receipt([s], START + seconds(early))
    assert shown.total_usd <= spent_usd([s], START + seconds(late))
    assert not shown.is_final


@given(st.lists(st.fractions(min_value=0, max_value=1000), max_size=12), st.integers(0, 8))
def test_apportioned_amounts_add_up_and_none_is_off_by_a_unit(amounts, places):
    found = apportioned(amounts, places)
    assert sum(map(Fraction, found)) == Fraction(round(sum(amounts, Fraction()) * 10**places), 10**places)
    assert all(abs(Fraction(usd) - exact) < Fraction(1, 10**places) for usd, exact in zip(found, amounts, strict=True))
    assert all(usd == 0 for usd, exact in zip(found, amounts, strict=True) if not exact)


def shown_in_markdown(report):
    section = markdown.render(report).partition("#### Receipt")[2].partition("#### ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("|")][2:]
    total = re.search(r"\| \*\*(?:at least )?([0-9.]+)\*\* \|", section)
    return [row[4].strip() for row in rows[:-1]], total and total[1]


def shown_in_the_terminal(report):
    stream = io.StringIO()
    terminal.print_report(report, stream)
    total = re.search(r"cost +(?:at least )?([0-9.]+) USD", stream.getvalue())
    return re.findall(r" = ([0-9.]+) USD \(", stream.getvalue()), total and total[1]


@settings(deadline=None)
@pytest.mark.parametrize("shown", [shown_in_markdown, shown_in_the_terminal])
@given(stays=PRICED_OR_NOT, scale=st.sampled_from(["1", "0.01", "0.0001"]))
def test_the_amounts_that_are_shown_add_up_to_the_total_that_is_shown(make_report, shown, stays, scale):
    cheaper = [
        replace(
            s,
            on_demand=s.on_demand and Rate(s.on_demand.usd * Decimal(scale), LIST),
            spot=tuple((since, usd * Decimal(scale)) for since, usd in s.spot),
        )
        for s in stays
    ]
    found = receipt(cheaper, LATER)
    amounts, total = shown(make_report(receipt=found))
    assert len({len(amount.partition(".")[2]) for amount in [*amounts, *([total] if total else [])]}) <= 1
    assert (total is None) == (found.total_usd is None)
    assume(total is not None)
    assert sum(map(Decimal, amounts)) == Decimal(total)


def test_a_receipt_of_very_many_lines_is_cut_and_still_adds_up(make_report):
    changes = spot(*((n * 60, f"0.{n + 101}") for n in range(90)))
    report = make_report(receipt=receipt([stay(5400, spot=changes)], LATER))
    amounts, total = shown_in_markdown(report)
    assert len(amounts) == 41
    assert sum(map(Decimal, amounts)) == Decimal(total)
    assert "| and 50 more |" in markdown.render(report)
