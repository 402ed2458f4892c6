"""What a run costs: asked before, kept under, and told after, at the prices that AWS gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from runctl_action.emulator.price_table import ON_DEMAND, SPOT

CHECKPOINTS = """
import signal, sys, time
from pathlib import Path
def save(*_):
    Path("checkpoints/last.bin").write_bytes(b"last")
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("training", flush=True)
time.sleep(300)
"""


@pytest.fixture(autouse=True)
def _no_cached_prices(environ: dict[str, str]) -> Iterator[None]:
    """Prices are asked for anew, and what one test made of them is no other test's."""
    kept = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runctl-action" / "prices"
    shutil.rmtree(kept, ignore_errors=True)
    yield
    shutil.rmtree(kept, ignore_errors=True)


@pytest.fixture
def fault(aws: Any) -> Any:
    return aws.world.faults.add


def test_a_spot_run_has_a_receipt_at_its_zones_price(train: Any) -> None:
    said = train("print('x')")
    receipt, zone = said.report["receipt"], said.report["instances"][0]["zone"]
    compute = next(line for line in receipt["lines"] if "spot" in line["item"])
    assert zone in compute["source"]
    figures = [Decimal(price) for name, price in SPOT["t3.medium"].items() if name.startswith("use1")]
    assert min(figures) * Decimal("0.9") < Decimal(compute["unit_usd"]) < max(figures) * Decimal("1.1")
    assert sum(Decimal(line["usd"]) for line in receipt["lines"]) == Decimal(receipt["total_usd"])
    assert Decimal(receipt["total_usd"]) < Decimal(receipt["on_demand_usd"])
    assert {line["unit"] for line in receipt["lines"]} == {"h", "GB-month"}
    assert receipt["is_final"]


def test_the_cheapest_zone_is_asked_first_and_cheapest_looks_at_all_types(train: Any, aws: Any) -> None:
    said = train("print('x')", flags=("--instance-type", "cheapest,m7i.large,t3.medium"))
    assert said.report["instances"][0]["type"] == "t3.medium"
    zones = {z: aws._prices.spot_now("t3.medium", z) for z in aws._prices.zones}
    cheapest = min((price, zone) for zone, price in zones.items() if price is not None)[0]
    assert zones[said.report["instances"][0]["zone"]] == cheapest


def test_a_fallback_tells_both_prices_and_the_factor(train: Any, fault: Any) -> None:
    fault("no-capacity:market=spot")
    said = train("print('x')")
    assert said.report["instances"][0]["market"] == "on-demand"
    told = next(warning for warning in said.report["warnings"] if "ON-DEMAND" in warning)
    assert "0.0416 USD/h instead of 0.01" in told
    assert "times as much" in told
    assert "USD more for this run" in told
    assert "WARNING: ON-DEMAND instead of spot" in said.err
    assert said.report["receipt"]["total_usd"] == said.report["receipt"]["on_demand_usd"]


def test_spot_only_in_the_third_zone_is_found(train: Any, fault: Any, aws: Any) -> None:
    zones = sorted(
        (price, zone) for zone in aws._prices.zones if (price := aws._prices.spot_now("t3.medium", zone)) is not None
    )
    for _, zone in zones[:2]:
        fault(f"no-capacity:market=spot,zone={zone}")
    said = train("print('x')")
    assert (said.report["instances"][0]["market"], said.report["instances"][0]["zone"]) == ("spot", zones[2][1])


@pytest.mark.parametrize(
    ("kind", "code"),
    [("quota:market=spot", "MaxSpotInstanceCountExceeded"), ("max-price", "SpotMaxPriceTooLow"),
     ("unsupported:zone=us-east-1a", "Unsupported")],
)  # fmt: skip
def test_every_class_of_refusal_leads_to_one_instance(train: Any, fault: Any, ec2: Any, kind: str, code: str) -> None:
    fault(kind)
    said = train("print('x')")
    assert said.ending == (0, "succeeded", None)
    tag = [{"Name": "tag:runctl:run", "Values": [said.report["run_id"]]}]
    assert len(ec2.describe_instances(Filters=tag)["Reservations"]) == 1
    if code == "MaxSpotInstanceCountExceeded":  # a quota is not another zone's to give: the market is left at once
        assert any("1 spot offer was refused (MaxSpotInstanceCountExceeded)" in w for w in said.report["warnings"])


def test_max_price_leaves_out_what_costs_more(train: Any, ec2: Any) -> None:
    before = len(ec2.describe_instances()["Reservations"])
    said = train("print('x')", flags=("--max-price", "0.001"))
    assert said.code == 2
    assert "no offer is known to cost at most max-price" in said.err
    assert "runctl-action quote" in said.err
    assert len(ec2.describe_instances()["Reservations"]) == before


def test_prices_that_are_denied_are_unknown_and_the_permission_is_named(train: Any, fault: Any) -> None:
    fault("denied:action=pricing:GetProducts")
    fault("denied:action=ec2:DescribeSpotPriceHistory")
    said = train("print('x')")
    assert said.ending == (0, "succeeded", None)
    assert said.report["receipt"]["total_usd"] is None
    assert any("pricing:GetProducts is not allowed" in warning for warning in said.report["warnings"])


def test_a_budget_that_cannot_be_kept_is_an_input_error(train: Any, fault: Any) -> None:
    fault("denied:action=pricing:GetProducts")
    said = train("print('x')", flags=("--max-cost", "1"))
    assert said.code == 2
    assert "max-cost cannot be kept: the price of t3.medium is unknown (pricing:GetProducts is not allowed" in said.err


def test_a_budget_below_the_minimum_is_an_input_error(train: Any) -> None:
    said = train("print('x')", flags=("--max-cost", "0.0001"))
    assert said.code == 2
    assert "the least that is billed" in said.err


def test_a_budget_ends_the_training_in_time_with_its_last_checkpoint(
    train: Any, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An emulated hour in a minute: 2.89 USD an hour of ours, disk and address included. 0.05 USD are 62 s of it: the
    # grace (2 s) and the closing (20 s) taken off, the training ends 40 s after the launch.
    monkeypatch.setattr(aws.world, "seconds_per_minute", 1.0)
    said = train(CHECKPOINTS, flags=("--spot", "never", "--max-cost", "0.05"))
    assert said.ending == (6, "timed-out", "budget")
    assert "saved\n" in said.err
    assert [c["path"] for c in said.report["checkpoints"]] == ["checkpoints/last.bin"]
    assert Decimal("0.04") < Decimal(said.report["receipt"]["total_usd"]) <= Decimal("0.05")


def test_a_quote_says_what_a_run_would_cost_and_makes_none(
    runctl: Any, commit: Any, ec2: Any, s3: Any, bucket: str
) -> None:
    commit({"train.py": "print('x')", "data.txt": "data"})
    before = len(ec2.describe_instances()["Reservations"])
    keys = s3.list_objects_v2(Bucket=bucket)["KeyCount"]
    said = runctl("quote", "--json", "--max-cost", "1", "--instance-type", "t3.medium", "train.py")
    quote = said.report
    assert (said.code, quote["manifest"]["files"]) == (0, 2)
    assert {"market", "type", "zone", "usd_per_hour", "source", "as_of"} <= set(quote["offers"][0])
    spot = [o for o in quote["offers"] if o["market"] == "spot" and o["usd_per_hour"]]
    assert [Decimal(o["usd_per_hour"]) for o in spot] == sorted(Decimal(o["usd_per_hour"]) for o in spot)
    assert {o["usd_per_hour"].rstrip("0") for o in quote["offers"] if o["market"] == "on-demand"} == {
        ON_DEMAND["t3.medium"][0]
    }
    assert quote["max_cost_seconds"] > quote["max_cost_seconds_at_least"] > 80_000
    assert len(ec2.describe_instances()["Reservations"]) == before
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == keys


def test_a_launcher_killed_between_two_offers_is_continued_with_one_instance(
    commit: Any, start: Any, runctl: Any, fault: Any, ec2: Any, s3: Any, bucket: str
) -> None:
    commit({"train.py": "print('x')"})
    fault("no-capacity:market=spot")
    first = start("train", "--json", "train.py")
    for line in first.stderr:
        if "was refused" in line:
            break
    first.kill()
    first.communicate()
    _let_claims_expire(s3, bucket)
    said = runctl("train", "--json", "train.py")
    assert said.ending == (0, "succeeded", None)
    tag = [{"Name": "tag:runctl:run", "Values": [said.report["run_id"]]}]
    assert len(ec2.describe_instances(Filters=tag)["Reservations"]) == 1


def _let_claims_expire(s3: Any, bucket: str) -> None:
    """As if the minute had passed after which somebody else may launch."""
    for item in s3.list_objects_v2(Bucket=bucket, Prefix="runctl/runs/")["Contents"]:
        if item["Key"].endswith("/claim.json"):
            claim = json.loads(s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
            claim["until"] = "2026-01-01T00:00:00Z"
            s3.put_object(Bucket=bucket, Key=item["Key"], Body=json.dumps(claim).encode())
