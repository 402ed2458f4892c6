"""What a run has cost and may still cost, over prices in memory; and the quote of a real repository."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runctl_action.cloud.instances import Instance, Subnet
from runctl_action.cloud.prices import Price, SpotChange
from runctl_action.contract.documents import (
    Checkpoint,
    Claim,
    End,
    InstanceRecord,
    Offer,
    PhaseTime,
    Result,
    Spec,
    Status,
    TrainingSettings,
)
from runctl_action.contract.reports import Quote, Receipt
from runctl_action.errors import ScriptNotTracked, SettingsError
from runctl_action.run.observe import Attempt, Knowledge, Observation
from runctl_action.run.pricing import Pricing
from runctl_action.run.quote import quote
from runctl_action.settings import Settings

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
# USD/h that are cents and seconds in the head: 0.36 USD/h are 0.0001 USD/s.
LISTED, SPOT = "0.36", "0.108"
CLOSING = 20


class Prices:
    """The figures of `cloud.prices.Prices`, in memory: spot by (type, zone), changes oldest first."""

    def __init__(
        self,
        on_demand: dict[str, str] | None = None,
        spot: dict[tuple[str, str], list[tuple[datetime, str]]] | None = None,
        gp3: str | None = None,
        ipv4: str | None = None,
    ) -> None:
        self._on_demand = {"t": LISTED} if on_demand is None else on_demand
        self._spot = spot or {}
        self._gp3, self._ipv4 = gp3, ipv4
        self.problems: tuple[str, ...] = ()
        self.asked: list[tuple[datetime, datetime]] = []

    def on_demand(self, instance_type: str) -> Price | None:
        return _price(self._on_demand.get(instance_type))

    def gp3(self) -> Price | None:
        return _price(self._gp3)

    def public_ipv4(self) -> Price | None:
        return _price(self._ipv4)

    def spot(self, instance_type: str, zones: list[str]) -> dict[str, Price]:
        changes = {zone: self._spot.get((instance_type, zone)) for zone in zones}
        return {
            zone: Price(Decimal(known[-1][1]), "Hrs", f"spot {zone}", NOW) for zone, known in changes.items() if known
        }

    def spot_history(self, instance_type: str, zone: str, start: datetime, end: datetime) -> tuple[SpotChange, ...]:
        assert start <= end
        self.asked.append((start, end))
        changes = [SpotChange(Decimal(usd), since) for since, usd in self._spot.get((instance_type, zone), ())]
        in_force = [change for change in changes if change.since <= start][-1:]
        return (*in_force, *(change for change in changes if start < change.since <= end)) if in_force else ()


def _price(usd: str | None) -> Price | None:
    return Price(Decimal(usd), "Hrs", "the list", NOW) if usd is not None else None


def steady(usd: str = SPOT) -> dict[tuple[str, str], list[tuple[datetime, str]]]:
    return {("t", "a"): [(NOW - 9 * HOUR, usd)]}


def pricing(**prices: Any) -> Pricing:
    return Pricing(Prices(**prices))  # type: ignore[arg-type]


def spec(max_cost: str | None = None, max_price: str | None = None, **training: Any) -> Spec:
    return Spec(
        run_id="train-1", requested_at=NOW, repository="o/r", name="train", commit="c" * 40, tree="t" * 40, digest="d" * 64,
        files=1, bytes=1, manifest_bytes=1, script="train.py", training=TrainingSettings(**({"grace_seconds": 60} | training)),
        launch={"max_cost": max_cost, "max_price": max_price, "max_attempts": 3},
    )  # fmt: skip


def record(age: timedelta = HOUR, *, market: Any = "on-demand", **fields: Any) -> InstanceRecord:
    """Launched `age` ago."""
    defaults: dict[str, Any] = {"instance_id": "i-1", "instance_type": "t", "zone": "a", "userid": "AROA:i-1"}
    return InstanceRecord(market=market, launched_at=NOW - age, **(defaults | fields))


def attempt(number: int = 1, *, state: str = "terminated", **fields: Any) -> Attempt:
    claim = Claim(owner="me", until=NOW + 3 * MINUTE, last_attempt=3)
    return Attempt(number, claim, "e", instances=(Instance("i-1", state),), **({"record": record()} | fields))


def seen(*attempts: Attempt, now: datetime = NOW, spec: Spec = spec()) -> Observation:  # noqa: B008
    return Observation(
        now=now, monotonic=1000.0, spec=spec, spec_sha256="s" * 64, is_open=True, packs=None, stop=None, report=None,
        posted=None, attempts=attempts, knowledge=Knowledge(me="me"),
    )  # fmt: skip


def status(*phases: PhaseTime) -> Status:
    return Status(run_id="train-1", attempt=1, beat=3, phase="training", at=NOW, phases=phases)


def result(ago: timedelta, outcome: Any = "succeeded", cause: Any = None, **fields: Any) -> Result:
    return Result(run_id="train-1", attempt=1, outcome=outcome, cause=cause, at=NOW - ago, **fields)


def end(ago: timedelta = timedelta(), outcome: Any = "succeeded", cause: Any = None) -> End:
    return End(outcome=outcome, cause=cause, at=NOW - ago)


def phase(name: Any, ago: timedelta, seconds: float | None) -> PhaseTime:
    return PhaseTime(phase=name, started_at=NOW - ago, seconds=seconds)


def checkpoint(ago: timedelta, *, suspect: bool = False) -> Checkpoint:
    return Checkpoint(
        path="c", bytes=1, sha256="a" * 64, key="k", modified_at=NOW - ago, uploaded_at=NOW, suspect=suspect
    )


def receipt_of(prices: Pricing, observation: Observation) -> Receipt:
    found = prices.receipt(observation)
    assert found is not None
    return found


def billed(one: Attempt, **training: Any) -> tuple[int, bool]:
    """Seconds that the attempt's host is charged for, and whether no more are to come."""
    receipt = receipt_of(pricing(), seen(one, spec=spec(**training)))
    return round(receipt.lines[0].quantity * 3600), receipt.is_final


def test_before_there_is_a_host_there_is_no_receipt() -> None:
    assert pricing().receipt(seen()) is None
    assert pricing().receipt(seen(attempt(record=None))) is None


class TestAHost:
    def test_that_runs_is_charged_until_now(self) -> None:
        assert billed(attempt(state="running")) == (3600, False)

    @pytest.mark.parametrize("state", ["pending", "running", "stopping", "stopped"])
    def test_whose_attempt_is_over_is_charged_until_ec2_shows_it_gone(self, state: str) -> None:
        over = {"result": result(10 * MINUTE), "end": end(10 * MINUTE)}
        assert billed(attempt(state=state, **over)) == (3600, False)
        assert billed(attempt(state="shutting-down", **over)) == (3000, True)

    def test_is_charged_until_its_attempt_ended_right_after_its_result(self) -> None:
        over = attempt(result=result(10 * MINUTE), end=end(10 * MINUTE - 3 * SECOND))
        assert billed(over) == (3003, True)

    def test_is_charged_for_a_minute_after_its_result_when_a_settler_comes_hours_later(self) -> None:
        late = attempt(record=record(6 * HOUR), result=result(5 * HOUR), end=end())
        assert billed(late) == (3660, True)

    def test_without_a_result_is_charged_until_somebody_saw_that_it_was_gone(self) -> None:
        assert billed(attempt(end=end(10 * MINUTE, "lost", "vanished"))) == (3000, True)

    def test_that_ec2_has_forgotten_is_gone(self) -> None:
        forgotten = replace(attempt(result=result(10 * MINUTE), end=end(10 * MINUTE)), instances=())
        assert billed(forgotten) == (3000, True)

    def test_that_is_kept_after_a_failure_is_charged_for_that_too(self) -> None:
        failed = {"result": result(40 * MINUTE, "failed", "exit"), "end": end(40 * MINUTE, "failed", "exit")}
        assert billed(attempt(state="running", **failed), keep_on_failure_seconds=600) == (3600, False)
        assert billed(attempt(**failed), keep_on_failure_seconds=600) == (1800, True)
        # Ended by hand meanwhile: not for what is still to come.
        assert billed(attempt(**failed), keep_on_failure_seconds=6000) == (3600, True)

    def test_that_failed_and_was_kept_until_it_ended_itself_before_a_settler_came(self) -> None:
        failed = {"result": result(5 * HOUR, "failed", "exit"), "end": end(timedelta(), "failed", "exit")}
        assert billed(attempt(record=record(6 * HOUR), **failed), keep_on_failure_seconds=600) == (4260, True)

    def test_that_timed_out_is_kept_like_one_that_failed_but_not_when_its_budget_is_used_up(self) -> None:
        for cause, seconds in (("hung", 1801), ("budget", 1201)):
            ending = ("timed-out", cause)
            over = attempt(result=result(40 * MINUTE, *ending), end=end(40 * MINUTE - SECOND, *ending))
            assert billed(over, keep_on_failure_seconds=600) == (seconds, True)

    def test_that_succeeded_is_not_kept(self) -> None:
        over = attempt(result=result(40 * MINUTE), end=end())
        assert billed(over, keep_on_failure_seconds=600) == (1260, True)

    def test_that_aws_reclaims_is_charged_until_its_two_minutes_are_over(self) -> None:
        reclaimed = attempt(
            record=record(3 * HOUR, market="spot"),
            result=result(HOUR, "interrupted", "spot-reclaimed"),
            end=end(HOUR - SECOND, "interrupted", "spot-reclaimed"),
        )
        receipt = receipt_of(pricing(spot=steady()), seen(reclaimed))
        assert (receipt.lines[0].quantity * 3600).to_integral() == 7320
        assert receipt.total_usd == Decimal(SPOT) * 7320 / 3600

    def test_that_aws_reclaimed_in_its_first_hour_is_free(self) -> None:
        reclaimed = attempt(
            record=record(2 * HOUR, market="spot"),
            result=result(HOUR + 10 * MINUTE, "interrupted", "spot-reclaimed"),
            end=end(HOUR + 10 * MINUTE, "interrupted", "spot-reclaimed"),
        )
        assert receipt_of(pricing(spot=steady()), seen(reclaimed)).total_usd == 0

    @pytest.mark.parametrize("cause", [None, "exit", "spot-reclaimed"])
    @pytest.mark.parametrize("at", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
    def test_whose_clock_is_wrong_was_not_gone_before_its_launch_nor_after_it_was_seen_gone(
        self, at: datetime, cause: Any
    ) -> None:
        told = result(timedelta(), cause=cause).model_copy(update={"at": at})
        prices = Prices(spot=steady())
        over = attempt(record=record(market="spot"), result=told, end=end(50 * MINUTE, cause=cause))
        receipt_of(Pricing(prices), seen(over))  # type: ignore[arg-type]
        ((since, until),) = prices.asked
        assert since <= until <= NOW - 48 * MINUTE

    def test_that_was_there_before_costs_nothing_and_is_done_when_its_attempt_is(self) -> None:
        over = attempt(
            state="running", record=record(market="existing"), result=result(10 * MINUTE), end=end(9 * MINUTE)
        )
        prices = Prices(gp3="0.08", ipv4="0.005")
        receipt = receipt_of(Pricing(prices), seen(over))  # type: ignore[arg-type]
        (line,) = receipt.lines
        assert (receipt.total_usd, receipt.on_demand_usd, receipt.is_final) == (0, 0, True)
        assert (round(line.quantity * 3600), prices.asked) == (3000, [])
        assert not receipt_of(Pricing(prices), seen(replace(over, end=None))).is_final  # type: ignore[arg-type]


class TestSpotPrices:
    def test_are_asked_for_the_time_of_the_host_alone_and_each_second_costs_what_was_in_force(self) -> None:
        since = NOW - HOUR
        changes = [(since - HOUR, "0.36"), (since + 10 * MINUTE, "0.72"), (NOW - 5 * MINUTE, "99")]
        prices = Prices(spot={("t", "a"): changes})
        over = attempt(record=record(market="spot"), result=result(40 * MINUTE), end=end(40 * MINUTE))
        receipt = receipt_of(Pricing(prices), seen(over))  # type: ignore[arg-type]
        assert prices.asked == [(since, since + 20 * MINUTE)]
        assert receipt.total_usd == Decimal("0.06") + Decimal("0.12")
        assert receipt.lines[0].source == "EC2 spot price history (a)"

    def test_that_are_missing_are_the_launchs_and_that_is_said(self) -> None:
        over = attempt(record=record(market="spot", usd_per_hour=Decimal("0.072")), state="running")
        receipt = receipt_of(pricing(), seen(over))
        assert receipt.total_usd == Decimal("0.072")
        assert receipt.lines[0].source == "EC2 spot price history (a), at the launch"

    def test_that_are_missing_altogether_are_unknown_and_not_guessed(self) -> None:
        receipt = receipt_of(pricing(), seen(attempt(record=record(market="spot"), state="running")))
        assert (receipt.total_usd, receipt.unknown) == (None, ("attempt 1: t, spot, a",))
        assert receipt.on_demand_usd == Decimal(LISTED)


def test_an_on_demand_price_that_cannot_be_had_any_more_is_the_launchs_and_that_is_said() -> None:
    over = attempt(record=record(on_demand_usd_per_hour=Decimal("0.5")), state="running")
    receipt = receipt_of(pricing(on_demand={}), seen(over))
    assert (receipt.total_usd, receipt.lines[0].source) == (Decimal("0.5"), "AWS Price List, at the launch")


def test_disk_and_address_are_charged_for_where_there_are_some() -> None:
    prices = pricing(gp3="0.73", ipv4="0.005")
    with_both = attempt(record=record(volume_gib=10, has_public_ipv4=True), state="running")
    assert receipt_of(prices, seen(with_both)).total_usd == Decimal(LISTED) + Decimal("0.01") + Decimal("0.005")
    assert receipt_of(prices, seen(attempt(state="running"))).total_usd == Decimal(LISTED)


def trained(one: Attempt) -> float | None:
    """Seconds of the hour that were spent training, as the receipt has it."""
    receipt = receipt_of(pricing(), seen(one))
    return None if receipt.idle_seconds is None else 3600 - receipt.idle_seconds


class TestTrainingTime:
    PHASES = (phase("installing", 50 * MINUTE, 300), phase("training", 40 * MINUTE, 1800))

    def test_is_the_phase_of_the_result_or_of_the_last_heartbeat(self) -> None:
        over = {"end": end(outcome="failed", cause="exit")}
        other = status(phase("training", 40 * MINUTE, 60))
        told = attempt(status=other, result=result(timedelta(), "failed", "exit", phases=self.PHASES), **over)
        assert trained(told) == 1800
        assert trained(attempt(status=status(*self.PHASES), end=end(outcome="lost", cause="vanished"))) == 1800
        assert trained(attempt(state="running", status=status(*self.PHASES))) == 1800

    def test_is_none_at_all_when_the_training_never_began(self) -> None:
        assert trained(attempt(end=end(outcome="failed", cause="cloud"))) == 0
        assert trained(attempt(status=status(self.PHASES[0]), end=end(outcome="lost", cause="vanished"))) == 0

    def test_is_unknown_while_it_has_not_begun(self) -> None:
        assert trained(attempt(state="running")) is None
        assert trained(attempt(state="running", status=status(phase("training", MINUTE, None)))) is None

    def test_of_an_interrupted_attempt_ends_with_its_last_good_checkpoint(self) -> None:
        told = result(timedelta(), "interrupted", "spot-reclaimed", phases=self.PHASES)
        over = {"result": told, "end": end(outcome="interrupted", cause="host-stopped")}
        good = (checkpoint(30 * MINUTE), checkpoint(25 * MINUTE), checkpoint(11 * MINUTE, suspect=True))
        assert trained(attempt(checkpoints=good, **over)) == 900
        assert trained(attempt(checkpoints=good[2:], **over)) == 0
        assert trained(attempt(**over)) == 0

    def test_of_an_attempt_that_made_no_checkpoint_since_it_resumed_is_none(self) -> None:
        told = result(timedelta(), "interrupted", "host-stopped", phases=self.PHASES)
        over = {"result": told, "end": end(outcome="interrupted", cause="host-stopped")}
        assert trained(attempt(checkpoints=(checkpoint(2 * HOUR),), **over)) == 0


def left(
    *attempts: Attempt, prices: Pricing | None = None, max_cost: str | None = "1.80", **fields: Any
) -> float | None:
    """1.80 USD are 5 hours at the list price."""
    return (prices or pricing()).seconds_left(seen(*attempts, spec=spec(max_cost, **fields)), attempts[-1])


class TestSecondsLeft:
    RUNNING = attempt(state="running")

    def test_are_none_without_a_budget_a_host_or_one_of_ours(self) -> None:
        assert left(self.RUNNING, max_cost=None) is None
        assert left(attempt(record=None)) is None
        assert left(attempt(state="running", record=record(market="existing"))) is None

    def test_are_what_the_rest_buys_less_the_grace_and_the_closing(self) -> None:
        assert left(self.RUNNING) == 4 * 3600 - 60 - CLOSING
        assert left(self.RUNNING, grace_seconds=600) == 4 * 3600 - 600 - CLOSING
        assert left(self.RUNNING, max_cost="0.18") == -1800 - 60 - CLOSING

    def test_leave_room_for_a_host_that_is_kept_after_a_failure(self) -> None:
        assert left(self.RUNNING, keep_on_failure_seconds=3600) == 3 * 3600 - 60 - CLOSING

    def test_end_before_the_deadline_does(self) -> None:
        one = attempt(state="running", record=record(deadline=NOW + HOUR))
        assert left(one) == 3600 - 60 - CLOSING

    def test_count_what_was_spent_at_its_real_price_and_what_is_to_come_at_the_ceiling(self) -> None:
        one = attempt(state="running", record=record(market="spot", usd_per_hour=Decimal(SPOT)))
        # 1.80 less an hour of 0.108 are 4.7 hours at 0.36.
        assert left(one, prices=pricing(spot=steady())) == 4.7 * 3600 - 60 - CLOSING

    def test_take_a_past_without_a_price_at_the_ceiling(self) -> None:
        one = attempt(state="running", record=record(market="spot"))
        assert left(one) == 4 * 3600 - 60 - CLOSING

    def test_have_their_ceiling_from_the_launch_the_list_max_price_or_the_offer_in_this_order(self) -> None:
        def hours(prices: Pricing, max_price: str | None = None, **fields: Any) -> float:
            one = attempt(state="running", record=record(timedelta(), market="spot", **fields))
            found = left(one, prices=prices, max_price=max_price)
            assert found is not None
            return (found + 60 + CLOSING) / 3600

        launch = {"usd_per_hour": Decimal("0.1"), "on_demand_usd_per_hour": Decimal("0.9")}
        assert hours(pricing(), "0.6", **launch) == 2
        del launch["on_demand_usd_per_hour"]
        assert hours(pricing(), "0.6", **launch) == 5
        assert hours(pricing(on_demand={}), "0.6", **launch) == 3
        assert hours(pricing(on_demand={}), **launch) == 18

    def test_have_disk_and_address_in_the_ceiling(self) -> None:
        both = record(timedelta(), volume_gib=100, has_public_ipv4=True)
        # 100 GiB at 0.073 a month are 0.01 USD/h; 0.36 + 0.01 + 0.005 = 0.375.
        prices = pricing(gp3="0.073", ipv4="0.005")
        assert left(attempt(state="running", record=both), prices=prices) == 4.8 * 3600 - 60 - CLOSING

    def test_count_earlier_attempts_at_their_real_cost_and_each_at_its_own_ceiling(self) -> None:
        over = {"end": end(HOUR, "interrupted", "host-stopped")}
        first = attempt(record=record(2 * HOUR, market="spot"), **over)
        second = attempt(2, state="running", record=record(timedelta()))
        assert left(first, second, prices=pricing(spot=steady("0.18"))) == 4.5 * 3600 - 60 - CLOSING
        # Nothing is known of its spot price: then its own on-demand price, not the second's.
        dear = attempt(record=record(2 * HOUR, market="spot", instance_type="dear"), **over)
        prices = pricing(on_demand={"t": LISTED, "dear": "0.72"})
        assert left(dear, second, prices=prices) == 3 * 3600 - 60 - CLOSING

    def test_count_an_earlier_attempt_that_was_free_as_nothing(self) -> None:
        over = {"end": end(90 * MINUTE, "interrupted", "spot-reclaimed")}
        first = attempt(record=record(2 * HOUR, market="spot"), **over)
        second = attempt(2, state="running", record=record(timedelta()))
        assert left(first, second, prices=pricing(spot=steady())) == 5 * 3600 - 60 - CLOSING

    def test_count_an_earlier_attempt_of_seconds_as_the_minute_that_is_billed(self) -> None:
        over = {"end": end(HOUR - 5 * SECOND, "interrupted", "host-stopped")}
        second = attempt(2, state="running", record=record(timedelta()))
        for market in ("on-demand", "spot"):
            first = attempt(record=record(HOUR, market=market), **over)
            assert left(first, second) == 5 * 3600 - 60 - 60 - CLOSING

    def test_do_not_count_the_first_minute_before_it_is_used(self) -> None:
        for age in (0, 10, 59):
            young = attempt(state="running", record=record(timedelta(seconds=age)))
            assert left(young) == 5 * 3600 - age - 60 - CLOSING

    def test_count_a_second_that_has_begun(self) -> None:
        one = attempt(state="running", record=record(HOUR + timedelta(seconds=0.2)))
        assert left(one) == 4 * 3600 - 1 - 60 - CLOSING

    def test_are_none_to_begin_with_and_those_told_before_when_no_price_is_known(self) -> None:
        prices = pricing(on_demand={})
        assert left(self.RUNNING, prices=prices) == 0
        assert left(replace(self.RUNNING, status=status()), prices=prices) is None

    @pytest.mark.parametrize("max_cost", ["1000000000", "1e400", "1e99999"])
    def test_of_any_fortune_can_be_added_to_a_date(self, max_cost: str) -> None:
        found = left(self.RUNNING, max_cost=max_cost)
        assert found is not None
        assert NOW + timedelta(seconds=found) > NOW + timedelta(days=365)


CENTS = st.integers(1, 10_000).map(lambda count: Decimal(count) / 1000)
SHARES = st.integers(1, 100).map(lambda percent: Decimal(percent) / 100)


@st.composite
def budgets(draw: st.DrawFn) -> tuple[Pricing, Observation]:
    """A running attempt after others, spot at most at the on-demand price, which moves before and after now."""
    listed = draw(CENTS)
    begin = NOW - 20 * HOUR
    moves = draw(st.lists(st.tuples(st.integers(0, 40 * 3600), SHARES), max_size=6).map(sorted))
    changes = [(begin, str(listed * draw(SHARES)))] + [
        (begin + timedelta(seconds=at), str(listed * share)) for at, share in moves
    ]
    prices = Prices(
        on_demand={"t": str(listed)},
        spot={("t", "a"): changes},
        gp3=draw(st.sampled_from([None, "0.08"])),
        ipv4=draw(st.sampled_from([None, "0.005"])),
    )
    attempts: list[Attempt] = []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        age = timedelta(milliseconds=draw(st.integers(0, 3 * 3600 * 1000)))
        fields = {
            "market": draw(st.sampled_from(["spot", "on-demand"])),
            "on_demand_usd_per_hour": draw(st.sampled_from([listed, None])),
            "volume_gib": draw(st.integers(0, 500)),
            "has_public_ipv4": draw(st.booleans()),
        }
        ended = end(
            age * draw(st.floats(0, 1)), "interrupted", draw(st.sampled_from(["spot-reclaimed", "host-stopped"]))
        )
        attempts.append(attempt(number, record=record(age, **fields), end=ended))
    attempts[-1] = replace(attempts[-1], end=None, instances=(Instance("i-1", "running"),))
    asked = spec(
        str(draw(CENTS)),
        grace_seconds=draw(st.integers(0, 120)),
        keep_on_failure_seconds=draw(st.sampled_from([0, 600])),
    )
    return Pricing(prices), seen(*attempts, spec=asked)  # type: ignore[arg-type]


@settings(max_examples=100)
@given(budgets())
def test_a_host_that_stops_in_time_never_costs_more_than_max_cost(given_: tuple[Pricing, Observation]) -> None:
    prices, observation = given_
    last = observation.attempts[-1]
    seconds = prices.seconds_left(observation, last)
    assert seconds is not None
    assume(seconds > 0)
    training = observation.spec.training
    longest = seconds + training.grace_seconds + training.keep_on_failure_seconds + CLOSING

    def total(after_seconds: float) -> Decimal:
        at = NOW + timedelta(seconds=after_seconds)
        over = replace(last, end=End(outcome="timed-out", cause="budget", at=at), instances=())
        found = receipt_of(prices, replace(observation, now=at, attempts=(*observation.attempts[:-1], over))).total_usd
        assert found is not None
        return found

    # What is billed for the first minute is billed whether it goes on or not. Each attempt's cost is rounded once.
    limit = max(Decimal(observation.spec.launch["max_cost"]), total(0))
    assert total(longest) <= limit + Decimal("0.000001") * len(observation.attempts)


class TestOffers:
    SPOT = {("t", "a"): [(NOW - HOUR, "0.1")], ("u", "b"): [(NOW - HOUR, "0.2")]}  # noqa: RUF012

    def test_have_the_prices_that_are_known(self) -> None:
        found = pricing(spot=self.SPOT).of_offers(["t", "u"], ["a", "b"], "prefer")
        assert found == {
            ("on-demand", "t", "a"): Decimal(LISTED), ("on-demand", "t", "b"): Decimal(LISTED),
            ("spot", "t", "a"): Decimal("0.1"), ("spot", "u", "b"): Decimal("0.2"),
        }  # fmt: skip

    def test_have_none_when_nothing_is_known(self) -> None:
        assert pricing(on_demand={}).of_offers(["t"], ["a"], "prefer") == {}

    def test_without_spot_do_not_ask_for_its_price(self) -> None:
        assert set(pricing(spot=self.SPOT).of_offers(["t"], ["a"], "never")) == {("on-demand", "t", "a")}

    def test_say_where_their_price_is_from(self) -> None:
        prices, usd = pricing(spot=self.SPOT), Decimal("0.1")
        spot = prices.of(Offer(market="spot", instance_type="t", zone="a", usd_per_hour=usd))
        listed = prices.of(Offer(market="on-demand", instance_type="t", zone="a", usd_per_hour=usd))
        assert spot is not None
        assert listed is not None
        assert (spot.source, spot.usd, listed.source, listed.usd) == ("spot a", usd, "the list", Decimal(LISTED))
        assert prices.of(Offer(market="spot", instance_type="t", zone="b")) is None


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one commit."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "train.py").write_text("print('x')")
    (tmp_path / "data.txt").write_text("data")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "a commit")
    (tmp_path / "untracked.py").write_text("")
    return tmp_path


class TestAQuote:
    SPOT = {("t", "a"): [(NOW, "0.18")], ("t", "b"): [(NOW, "0.09")]}  # noqa: RUF012

    def quote(self, project: Path, prices: Pricing, **given_: Any) -> Quote:
        asked = Settings(**({"script": "train.py", "instance_type": ("t",), "max_duration": "2h"} | given_))
        subnets = SimpleNamespace(of=lambda chosen: (Subnet("subnet-a", "a"), Subnet("subnet-b", "b")))
        return quote(
            asked, cwd=project, environ=dict(os.environ), subnets=subnets, pricing=prices, revision="HEAD"  # type: ignore[arg-type]
        )  # fmt: skip

    def test_has_the_offers_in_order_and_what_the_best_one_would_cost(self, project: Path) -> None:
        found = self.quote(project, pricing(spot=self.SPOT), max_cost=Decimal("0.36"))
        assert [(o.market, o.zone, o.usd_per_hour) for o in found.offers] == [
            ("spot", "b", Decimal("0.09")), ("spot", "a", Decimal("0.18")),
            ("on-demand", "a", Decimal(LISTED)), ("on-demand", "b", Decimal(LISTED)),
        ]  # fmt: skip
        assert (found.offers[0].source, found.offers[0].as_of) == ("spot b", NOW)
        assert (found.script, found.manifest.files, len(found.commit)) == ("train.py", 2, 40)
        assert (found.max_duration_seconds, found.max_duration_usd) == (7200, Decimal("0.18"))
        assert (found.max_cost_usd, found.max_cost_seconds) == (Decimal("0.36"), 4 * 3600)
        assert found.max_cost_seconds_at_least == 3600

    def test_without_prices_says_so_and_guesses_nothing(self, project: Path) -> None:
        prices = Prices(on_demand={})
        prices.problems = ("pricing:GetProducts is not allowed",)
        found = self.quote(project, Pricing(prices), max_cost=Decimal(1), spot="never")  # type: ignore[arg-type]
        assert [(o.usd_per_hour, o.source, o.as_of) for o in found.offers] == [(None, None, None)] * 2
        assert (found.max_duration_usd, found.max_cost_seconds, found.max_cost_seconds_at_least) == (None, None, None)
        assert found.unknown == prices.problems

    def test_without_a_budget_has_none(self, project: Path) -> None:
        found = self.quote(project, pricing(spot=self.SPOT))
        assert (found.max_cost_usd, found.max_cost_seconds, found.max_cost_seconds_at_least) == (None, None, None)

    def test_under_a_limit_that_nothing_meets_has_no_offer(self, project: Path) -> None:
        found = self.quote(project, pricing(spot=self.SPOT), max_price=Decimal("0.01"), max_cost=Decimal(1))
        assert (found.offers, found.max_duration_usd, found.max_cost_seconds) == ((), None, None)

    def test_refuses_what_a_request_would(self, project: Path) -> None:
        with pytest.raises(SettingsError, match="no script"):
            self.quote(project, pricing(), script=None)
        with pytest.raises(ScriptNotTracked):
            self.quote(project, pricing(), script="untracked.py")
