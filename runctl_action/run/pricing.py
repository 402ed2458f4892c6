"""What a run costs and may still cost: AWS's prices brought together with what is known of its hosts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from runctl_action.cloud import offers
from runctl_action.cloud.prices import Price, Prices
from runctl_action.contract.documents import InstanceRecord, Market, Offer, Receipt
from runctl_action.report.receipt import MINIMUM_SECONDS, Rate, Stay, receipt, spent_usd
from runctl_action.run.observe import Attempt, Observation

_MONTH_HOURS = 730
# Between the end of the training and the power-off: the last upload, the result.
_CLOSING = timedelta(seconds=20)


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
        """So far, or final; None before there is a host."""
        stays = self._stays(seen)
        return receipt(stays, seen.now) if stays else None

    def seconds_left(self, seen: Observation, attempt: Attempt) -> float | None:
        """How long from now the training of `attempt` may go on so that the run ends within `max-cost`: what was spent
        at its real prices, what is to come at the ceiling (on-demand, or `max-price` where that is unknown). None
        without a budget."""
        limit, record = seen.spec.launch.get("max_cost"), attempt.record
        if limit is None or record is None or record.market == "existing":
            return None
        hourly = self._ceiling(seen, record)
        spent = self._spent(seen, attempt, hourly)
        affordable = timedelta(hours=float((Decimal(limit) - spent) / hourly))
        if record.deadline is not None:
            affordable = min(affordable, record.deadline - seen.now)
        closing = timedelta(seconds=seen.spec.training.grace_seconds) + _CLOSING
        return (affordable - closing).total_seconds()

    def _spent(self, seen: Observation, attempt: Attempt, hourly: Decimal) -> Decimal:
        """Until now; at the ceiling where there is no price, and in the first minute: what is billed for it is billed
        whether the host goes on or not."""
        total = Decimal(0)
        for stay in self._stays(seen):
            lasted = ((stay.ended_at or seen.now) - stay.began_at).total_seconds()
            is_young = stay.attempt == attempt.number and lasted < MINIMUM_SECONDS
            known = None if is_young else spent_usd([stay], seen.now)
            total += hourly * Decimal(lasted) / 3600 if known is None else known
        return total

    def _ceiling(self, seen: Observation, record: InstanceRecord) -> Decimal:
        """USD/h that the host cannot come to cost more than, disk and address included."""
        max_price = seen.spec.launch.get("max_price")
        compute = record.on_demand_usd_per_hour or (Decimal(max_price) if max_price is not None else None)
        compute = compute or record.usd_per_hour
        assert compute is not None, "a request with max-cost needs a price"
        return compute + self.beside_compute(record.volume_gib, has_public_ipv4=record.has_public_ipv4)

    def _stays(self, seen: Observation) -> list[Stay]:
        return [self._stay(seen, a, a.record) for a in seen.attempts if a.record]

    def _stay(self, seen: Observation, attempt: Attempt, record: InstanceRecord) -> Stay:
        ended_at = _ended_at(seen, attempt)
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


def _rate(price: Price | None) -> Rate | None:
    return Rate(price.usd, price.source) if price else None


def _launch_rate(record: InstanceRecord) -> Rate | None:
    if record.on_demand_usd_per_hour is None:
        return None
    return Rate(record.on_demand_usd_per_hour, "AWS Price List, at the launch")


def _ended_at(seen: Observation, attempt: Attempt) -> datetime | None:
    """When AWS stopped billing the host; None while it does not. The host powers off right after its result; a settler
    that comes hours later writes the attempt's end then."""
    if attempt.end is None or (attempt.instance is not None and attempt.instance.is_alive):
        return None
    ended_at = attempt.end.at
    if attempt.result is not None:
        keep = timedelta(seconds=seen.spec.training.keep_on_failure_seconds if attempt.end.outcome == "failed" else 0)
        ended_at = min(ended_at, attempt.result.at + timedelta(minutes=1)) + keep
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
