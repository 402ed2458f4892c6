"""What a run costs at list prices, line by line. Pure: no price is looked up here, and none is guessed.

Amounts are exact fractions; at the end the lines are rounded so that they still add up to the rounded total.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from runctl_action.contract.documents import Market
from runctl_action.contract.reports import Receipt, ReceiptLine

# AWS bills instances, gp3 and addresses by the second, each for at least this long.
MINIMUM_SECONDS = 60
_MONTH_HOURS = 730
_PLACES = 6
_NOT_INCLUDED = (
    "data transfer out of AWS",
    "S3 requests and storage",
    "taxes",
    "Savings Plans, reservations and credits, which cannot be seen from here",
)
# They are launched in unlimited mode: AWS's default, which bills a processor that is busy beyond its baseline.
_BURSTABLE = ("t3.", "t3a.", "t4g.")


@dataclass(frozen=True)
class Rate:
    """A price in USD, with where it is from."""

    usd: Decimal
    source: str


@dataclass(frozen=True)
class Stay:
    """One attempt's host, as far as it costs money. Times are aware; from `ended_at` (shutting-down) AWS bills nothing.

    `spot` is (since, USD/h), oldest first; the first is in force at `began_at`. None, and () in `spot`, is unknown.
    """

    attempt: int
    instance_type: str
    zone: str
    market: Market
    began_at: datetime
    ended_at: datetime | None
    is_reclaimed: bool
    on_demand: Rate | None
    spot: tuple[tuple[datetime, Decimal], ...]
    spot_source: str
    volume_gib: int
    has_public_ipv4: bool
    gp3: Rate | None
    ipv4: Rate | None
    training_seconds: float | None


def receipt(stays: Sequence[Stay], now: datetime) -> Receipt:
    """What `stays` cost until `now`, in USD. Without a price for compute there is no total; without one for a disk or
    an address, the total is of the rest. `unknown` names both."""
    bills = [_bill(stay, now) for stay in stays]
    charges = [charge for bill in bills for charge in (*bill.compute, *bill.rest)]
    priced = [charge for charge in charges if charge.rate]
    is_known = all(charge.rate for bill in bills for charge in bill.compute)
    total = _rounded(_sum(charges)) if is_known else None
    on_demand = _on_demand(bills)
    idle = _idle(bills) if is_known else None
    return Receipt(
        total_usd=total,
        on_demand_usd=on_demand,
        saved_usd=on_demand - total if total is not None and on_demand is not None else None,
        idle_usd=idle and _rounded(idle[0]),
        idle_seconds=idle and idle[1],
        lines=tuple(_lines(priced)),
        unknown=tuple(f"attempt {charge.attempt}: {charge.item}" for charge in charges if not charge.rate),
        not_included=tuple(_not_included(stays)),
        is_final=all(stay.ended_at is not None for stay in stays),
        as_of=now,
    )


def spent_usd(stays: Sequence[Stay], now: datetime) -> Decimal | None:
    """The receipt's total; None when compute of any attempt has no price."""
    return receipt(stays, now).total_usd


def apportioned(amounts: Sequence[Fraction], places: int) -> list[Decimal]:
    """`amounts`, none negative, each rounded up or down to `places` decimals so that they add up to the rounded sum."""
    scaled = [amount * 10**places for amount in amounts]
    units = [math.floor(amount) for amount in scaled]
    missing = round(sum(scaled, Fraction())) - sum(units)
    for i in sorted(range(len(units)), key=lambda i: units[i] - scaled[i])[:missing]:
        units[i] += 1
    return [Decimal(count).scaleb(-places) for count in units]


@dataclass(frozen=True)
class _Charge:
    attempt: int
    item: str
    quantity: Fraction
    unit: str
    rate: Rate | None

    @property
    def usd(self) -> Fraction:
        return self.quantity * Fraction(self.rate.usd) if self.rate else Fraction()


@dataclass(frozen=True)
class _Bill:
    """What one stay is charged for; `on_demand` is its compute at the on-demand price."""

    seconds: int
    training_seconds: float | None
    compute: list[_Charge]
    rest: list[_Charge]
    on_demand: _Charge


def _bill(stay: Stay, now: datetime) -> _Bill:
    seconds = max(MINIMUM_SECONDS, _whole_seconds((stay.ended_at or now) - stay.began_at))
    compute = list(_compute(stay, seconds))
    at_list_price = _charge(stay, "on-demand", seconds, stay.on_demand)
    on_demand = compute[0] if stay.market == "existing" else at_list_price
    return _Bill(seconds, stay.training_seconds, compute, list(_rest(stay, seconds)), on_demand)


def _compute(stay: Stay, seconds: int) -> Iterator[_Charge]:
    item = f"{stay.instance_type}, {stay.market}, {stay.zone}"
    if stay.market == "existing":
        yield _charge(stay, f"{item}: your own, it costs nothing extra", seconds, Rate(Decimal(0), "already yours"))
    elif stay.market == "on-demand":
        yield _charge(stay, item, seconds, stay.on_demand)
    elif _is_free(stay):
        rule = Rate(Decimal(0), "AWS's rule for interrupted spot instances")
        yield _charge(stay, f"{item}: free, AWS interrupted it in its first hour", seconds, rule)
    elif not stay.spot:
        yield _charge(stay, item, seconds, None)
    else:
        for begins, ends, usd in _spot_spans(stay, seconds):
            since = f", from {stay.began_at + timedelta(seconds=begins):%Y-%m-%d %H:%M} UTC" if begins else ""
            yield _charge(stay, item + since, ends - begins, Rate(usd, stay.spot_source))


def _is_free(stay: Stay) -> bool:
    # Not before it has ended: until then its hour may still fill up.
    return stay.is_reclaimed and stay.ended_at is not None and stay.ended_at - stay.began_at < timedelta(hours=1)


def _spot_spans(stay: Stay, seconds: int) -> list[tuple[int, int, Decimal]]:
    """(from, until, USD/h), in seconds since the launch: each second at the price in force when it begins."""
    starts = [min(seconds, max(0, _whole_seconds(since - stay.began_at))) for since, _ in stay.spot]
    starts[0] = 0
    spans: list[tuple[int, int, Decimal]] = []
    for begins, ends, (_, usd) in zip(starts, [*starts[1:], seconds], stay.spot, strict=True):
        if spans and spans[-1][2] == usd:
            spans[-1] = (spans[-1][0], ends, usd)
        elif ends > begins:
            spans.append((begins, ends, usd))
    return spans


def _rest(stay: Stay, seconds: int) -> Iterator[_Charge]:
    if stay.market == "existing":
        return
    if stay.volume_gib:
        months = Fraction(seconds * stay.volume_gib, 3600 * _MONTH_HOURS)
        yield _Charge(stay.attempt, f"gp3 volume, {stay.volume_gib} GiB", months, "GB-month", stay.gp3)
    if stay.has_public_ipv4:
        yield _charge(stay, "public IPv4 address", seconds, stay.ipv4)


def _charge(stay: Stay, item: str, seconds: int, rate: Rate | None) -> _Charge:
    return _Charge(stay.attempt, item, Fraction(seconds, 3600), "h", rate)


def _lines(charges: Sequence[_Charge]) -> Iterator[ReceiptLine]:
    amounts = apportioned([charge.usd for charge in charges], _PLACES)
    for charge, usd in zip(charges, amounts, strict=True):
        assert charge.rate
        yield ReceiptLine(
            item=charge.item,
            attempt=charge.attempt,
            quantity=_rounded(charge.quantity, 9),
            unit=charge.unit,
            unit_usd=charge.rate.usd,
            usd=usd,
            source=charge.rate.source,
        )


def _on_demand(bills: Sequence[_Bill]) -> Decimal | None:
    if not all(bill.on_demand.rate for bill in bills):
        return None
    return _rounded(_sum([charge for bill in bills for charge in (bill.on_demand, *bill.rest)]))


def _idle(bills: Sequence[_Bill]) -> tuple[Fraction, float] | None:
    """USD and seconds that were paid for and not spent training; None when the training of any stay is unknown."""
    usd, seconds = Fraction(), Fraction()
    for bill in bills:
        if bill.training_seconds is None:
            return None
        idle = bill.seconds - min(Fraction(bill.seconds), max(Fraction(), Fraction(bill.training_seconds)))
        usd += _sum([*bill.compute, *bill.rest]) * idle / bill.seconds
        seconds += idle
    return usd, float(seconds)


def _not_included(stays: Sequence[Stay]) -> Iterator[str]:
    yield from _NOT_INCLUDED
    burstable = {s.instance_type for s in stays if s.market != "existing" and s.instance_type.startswith(_BURSTABLE)}
    if burstable:
        yield f"surplus CPU credits of {', '.join(sorted(burstable))}"


def _whole_seconds(span: timedelta) -> int:
    """A second that has begun is a second."""
    return -(-span // timedelta(seconds=1))


def _sum(charges: Sequence[_Charge]) -> Fraction:
    return sum((charge.usd for charge in charges), Fraction())


def _rounded(amount: Fraction, places: int = _PLACES) -> Decimal:
    return Decimal(round(amount * 10**places)).scaleb(-places)
