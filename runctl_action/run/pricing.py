"""What a run costs and may still cost: AWS's prices brought together with what is known of its hosts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from runctl_action.cloud import offers
from runctl_action.cloud.prices import Price, Prices
from runctl_action.contract.documents import InstanceRecord, Market, Offer, is_kept
from runctl_action.contract.reports import Receipt
from runctl_action.report.receipt import MINIMUM_SECONDS, Rate, Stay, receipt, spent_usd
from runctl_action.run.observe import Attempt, Observation

_MONTH_HOURS = 730
# Between the end of the training and the power-off: the last upload, the result.
_CLOSING_SECONDS = 20
# From the result to the end of the host: its own power-off, or AWS's two minutes after a spot notice.
_POWER_OFF = timedelta(minutes=1)
_NOTICE = timedelta(minutes=2)
# Seconds: more than any training takes, and what a date can still be added to.
_LONG = Decimal(10 * 365 * 86400)


class Pricing:
    """Prices of one region, as a run needs them. Nothing raises for a price that cannot be had: it is unknown."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices

    @property
    def problems(self) -> tuple[str, ...]:
        return self._prices.problems

    def of_offers(self, instance_types: Sequence[str], zones: Sequence[str], spot: str) -> offers.Prices:
        """USD/h by (market, type, zone), as far as they are known."""
        found: dict[tuple[Market, str, str], Decimal] = {}
        for name in instance_types:
            listed = self._prices.on_demand(name)
            if listed is not None:
                found |= {("on-demand", name, zone): listed.usd for zone in zones}
            if spot != "never":
                found |= {("spot", name, zone): price.usd for zone, price in self._prices.spot(name, zones).items()}
        return found

    def of(self, offer: Offer) -> Price | None:
        """The offer's price with its source; None where it is unknown."""
        if offer.usd_per_hour is None:
            return None
        if offer.market == "spot" and offer.zone is not None:
            return self._prices.spot(offer.instance_type, [offer.zone]).get(offer.zone)
        return self._prices.on_demand(offer.instance_type)

    def on_demand(self, instance_type: str) -> Decimal | None:
        price = self._prices.on_demand(instance_type)
        return price.usd if price else None

    def beside_compute(self, volume_gib: int, *, has_public_ipv4: bool) -> Decimal:
        """USD/h of the disk and the address, as far as they are known."""
        disk, address = self._prices.gp3(), self._prices.public_ipv4()
        rest = disk.usd * volume_gib / _MONTH_HOURS if disk else Decimal(0)
        return rest + (address.usd if address and has_public_ipv4 else Decimal(0))

    def receipt(self, seen: Observation) -> Receipt | None:
        """So far, or final; None before there is a host, or it is known that there is none."""
        stays = self._stays(seen)
        is_over = seen.last is not None and seen.last.end is not None
        return receipt(stays, seen.now) if stays or is_over else None

    def seconds_left(self, seen: Observation, attempt: Attempt) -> float | None:
        """How long from now the training of `attempt` may go on so that the run ends within `max-cost`: what was spent
        at its real prices, what is to come at the ceiling (on-demand, or `max-price` where that is unknown). None
        without a budget, and where no price is known any more: what the host was told before holds."""
        limit, record = seen.spec.launch.get("max_cost"), attempt.record
        if limit is None or record is None or record.market == "existing":
            return None
        hourly = self._ceiling(seen, record)
        if hourly is None:
            return None if attempt.has_started else 0.0
        affordable = (Decimal(limit) - self._spent(seen, attempt, hourly)) / hourly * 3600
        # Whole seconds, as they are billed.
        seconds = float(min(affordable, _LONG) // 1)
        if record.deadline is not None:
            seconds = min(seconds, (record.deadline - seen.now).total_seconds())
        training = seen.spec.training
        # A host that is kept after a failure costs as much as one that trains.
        return seconds - training.grace_seconds - training.keep_on_failure_seconds - _CLOSING_SECONDS

    def _spent(self, seen: Observation, attempt: Attempt, hourly: Decimal) -> Decimal:
        """Until now; at the ceiling where there is no price, and in the first minute: what is billed for it is billed
        whether the host goes on or not."""
        total = Decimal(0)
        for each, record in _with_records(seen):
            stay = self._stay(seen, each, record)
            lasted = math.ceil(((stay.ended_at or seen.now) - stay.began_at).total_seconds())
            is_young = each.number == attempt.number and lasted < MINIMUM_SECONDS
            known = None if is_young else spent_usd([stay], seen.now)
            if known is None:
                billed = lasted if is_young else max(lasted, MINIMUM_SECONDS)
                known = (self._ceiling(seen, record) or hourly) * billed / 3600
            total += known
        return total

    def _ceiling(self, seen: Observation, record: InstanceRecord) -> Decimal | None:
        """USD/h that the host cannot come to cost more than, disk and address included; None where nothing says."""
        max_price = seen.spec.launch.get("max_price")
        # The record has none when EC2 did not show the instance yet, or the Price List did not answer, at the launch.
        compute = record.on_demand_usd_per_hour or self.on_demand(record.instance_type)
        compute = compute or (Decimal(max_price) if max_price is not None else record.usd_per_hour)
        if compute is None:
            return None
        return compute + self.beside_compute(record.volume_gib, has_public_ipv4=record.has_public_ipv4)

    def _stays(self, seen: Observation) -> list[Stay]:
        return [self._stay(seen, attempt, record) for attempt, record in _with_records(seen)]

    def _stay(self, seen: Observation, attempt: Attempt, record: InstanceRecord) -> Stay:
        ended_at = _ended_at(seen, attempt, record)
        spot: tuple[tuple[datetime, Decimal], ...] = ()
        source = f"EC2 spot price history ({record.zone})"
        if record.market == "spot":
            until = ended_at or seen.now
            history = self._prices.spot_history(record.instance_type, record.zone, record.launched_at, until)
            spot = tuple((change.since, change.usd) for change in history)
            if not spot and record.usd_per_hour is not None:
                spot, source = ((record.launched_at, record.usd_per_hour),), f"{source}, at the launch"
        listed = self._prices.on_demand(record.instance_type) if record.market != "existing" else None
        return Stay(
            attempt=attempt.number,
            instance_type=record.instance_type,
            zone=record.zone,
            market=record.market,
            began_at=record.launched_at,
            ended_at=ended_at,
            is_reclaimed=attempt.end is not None and attempt.end.cause == "spot-reclaimed",
            on_demand=_rate(listed) or _launch_rate(record),
            spot=spot,
            spot_source=source,
            volume_gib=record.volume_gib,
            has_public_ipv4=record.has_public_ipv4,
            gp3=_rate(self._prices.gp3()) if record.volume_gib else None,
            ipv4=_rate(self._prices.public_ipv4()) if record.has_public_ipv4 else None,
            training_seconds=_training_seconds(attempt),
        )


def _with_records(seen: Observation) -> list[tuple[Attempt, InstanceRecord]]:
    return [(attempt, attempt.record) for attempt in seen.attempts if attempt.record]


def _rate(price: Price | None) -> Rate | None:
    return Rate(price.usd, price.source) if price else None


def _launch_rate(record: InstanceRecord) -> Rate | None:
    if record.on_demand_usd_per_hour is None:
        return None
    return Rate(record.on_demand_usd_per_hour, "AWS Price List, at the launch")


def _ended_at(seen: Observation, attempt: Attempt, record: InstanceRecord) -> datetime | None:
    """When AWS stopped billing the host; None while it does not. An existing one's attempt ends, not the host. A host
    ends by itself after its result, and a settler may come hours later: the attempt's end is written then."""
    end, result = attempt.end, attempt.result
    is_existing = record.market == "existing"
    if end is None or (not is_existing and attempt.instance is not None and attempt.instance.is_alive):
        return None
    ended_at = end.at
    if result is not None:
        # By the host's clock, which may be wrong: not before the launch, and not after somebody saw it.
        over_at = min(max(result.at, record.launched_at), end.at)
        kept = timedelta(seconds=seen.spec.training.keep_on_failure_seconds)
        if is_existing:
            ended_at = over_at
        elif result.cause == "spot-reclaimed":
            ended_at = over_at + _NOTICE
        else:
            by_itself = over_at + _POWER_OFF + (kept if is_kept(result.outcome, result.cause) else timedelta(0))
            ended_at = min(end.at + (kept if is_kept(end.outcome, end.cause) else timedelta(0)), by_itself)
    return min(ended_at, seen.now)


def _training_seconds(attempt: Attempt) -> float | None:
    """Of the phase training; of an attempt that was interrupted only until its last good checkpoint, because what came
    after is done again."""
    told = attempt.result.phases if attempt.result else attempt.status.phases if attempt.status else ()
    trained = next((phase for phase in told if phase.phase == "training"), None)
    if trained is None:
        return 0.0 if attempt.end else None
    if attempt.end is None or attempt.end.outcome != "interrupted":
        return trained.seconds
    good = [checkpoint.modified_at for checkpoint in attempt.checkpoints if not checkpoint.suspect]
    return max(0.0, (max(good) - trained.started_at).total_seconds()) if good else 0.0
