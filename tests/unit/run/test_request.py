"""What is refused before anything is spent, and what of a request is written, once."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runctl_action.cloud.instances import Image, Subnet
from runctl_action.cloud.prices import Price
from runctl_action.cloud.store import Stored
from runctl_action.contract.documents import Spec
from runctl_action.contract.layout import Layout
from runctl_action.errors import SettingsError
from runctl_action.run.pricing import Pricing
from runctl_action.run.request import Request, prepare, submit
from runctl_action.settings import Settings

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
LAYOUT = Layout()


class Prices:
    """Of `cloud.prices.Prices`: USD/h, on demand by type and spot by (type, zone)."""

    def __init__(
        self, on_demand: dict[str, str], spot: dict[tuple[str, str], str], gp3: str | None, problems: tuple[str, ...]
    ) -> None:
        self._on_demand, self._spot, self._gp3, self.problems = on_demand, spot, gp3, problems

    def on_demand(self, instance_type: str) -> Price | None:
        return _price(self._on_demand.get(instance_type))

    def spot(self, instance_type: str, zones: list[str]) -> dict[str, Price]:
        found = {zone: _price(self._spot.get((instance_type, zone))) for zone in zones}
        return {zone: price for zone, price in found.items() if price}

    def gp3(self) -> Price | None:
        return _price(self._gp3)

    def public_ipv4(self) -> Price | None:
        return None


def _price(usd: str | None) -> Price | None:
    return Price(Decimal(usd), "Hrs", "the list", NOW) if usd is not None else None


class Bucket:
    """A bucket in memory that remembers what was written, and when somebody else is `first`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: list[str] = []
        self.first: dict[str, bytes] = {}

    def check(self) -> None:
        pass

    def get(self, key: str) -> Stored | None:
        return Stored(self.objects[key], "e") if key in self.objects else None

    def put(self, key: str, data: bytes, *, if_none_match: bool = False) -> str | None:
        self.objects |= {key: self.first.pop(key)} if key in self.first else {}
        if if_none_match and key in self.objects:
            return None
        self.objects[key] = data
        self.written.append(key)
        return "e"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit."""
    root = tmp_path_factory.mktemp("project")
    (root / "train.py").write_text("print('x')")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a commit"]):
        subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def ask(project: Path) -> Any:
    """A request for `train.py` on t at 0.36 USD/h, one zone, 10 GiB of disk for nothing."""

    def prepared(
        on_demand: dict[str, str] | None = None,
        spot: dict[tuple[str, str], str] | None = None,
        gp3: str | None = None,
        problems: tuple[str, ...] = (),
        **given: Any,
    ) -> Request:
        chosen = {"script": "train.py", "instance_type": ("t",), "instance_profile": "host", "grace": "60s"} | given
        prices = Prices({"t": "0.36"} if on_demand is None else on_demand, spot or {}, gp3, problems)
        instances = SimpleNamespace(
            profile_role_id=lambda profile: "AROA",
            image=lambda ami, name: Image("ami-1", "/dev/xvda", 10, "x86_64"),
            subnets=lambda chosen: (Subnet("subnet-a", "a"),),
        )
        return prepare(
            Settings(**chosen),
            cwd=project,
            environ=dict(os.environ),
            store=Bucket(),  # type: ignore[arg-type]
            instances=instances,  # type: ignore[arg-type]
            pricing=Pricing(prices),  # type: ignore[arg-type]
            revision="HEAD",
            now=NOW,
        )

    return prepared


class TestABudget:
    def test_buys_at_least_the_billed_minute_and_the_grace(self, ask: Any) -> None:
        # 0.36 USD/h are 0.0001 USD/s; a minute and the grace are 120 s.
        assert ask(max_cost=Decimal("0.012")).spec.launch["max_cost"] == "0.012"
        with pytest.raises(SettingsError) as caught:
            ask(max_cost=Decimal("0.0119"))
        assert str(caught.value) == (
            "max-cost is 0.0119 USD, and 120 s, the least that is billed with the grace for a last checkpoint, "
            "cost 0.0120 USD at 0.3600 USD/h"
        )
        assert caught.value.hint == "raise max-cost, or choose a cheaper instance-type: runctl-action quote train.py"

    def test_buys_the_time_that_a_failed_host_is_kept_too(self, ask: Any) -> None:
        ask(max_cost=Decimal("0.018"), keep_on_failure="1m")
        with pytest.raises(SettingsError, match=r"180 s, .* checkpoint and keep-on-failure, cost 0.0180 USD"):
            ask(max_cost=Decimal("0.0179"), keep_on_failure="1m")

    def test_buys_the_disk_too(self, ask: Any) -> None:
        # 10 GiB at 26.28 a month are 0.36 USD/h.
        with pytest.raises(SettingsError, match=r"at 0.7200 USD/h"):
            ask(max_cost=Decimal("0.0239"), gp3="26.28")
        assert ask(max_cost=Decimal("0.024"), gp3="26.28")

    def test_needs_to_buy_the_cheapest_type_only_and_at_its_on_demand_price(self, ask: Any) -> None:
        both = {"on_demand": {"t": "0.36", "dear": "36"}, "spot": {("t", "a"): "0.01"}, "instance_type": ("dear", "t")}
        assert ask(max_cost=Decimal("0.012"), **both)
        with pytest.raises(SettingsError, match=r"at 0.3600 USD/h"):
            ask(max_cost=Decimal("0.0119"), **both)

    def test_cannot_be_kept_without_a_price_and_the_reason_is_said(self, ask: Any) -> None:
        unknown = {"on_demand": {"t": "0.36"}, "instance_type": ("t", "new"), "problems": ("there is none for new",)}
        with pytest.raises(SettingsError) as caught:
            ask(max_cost=Decimal(1), **unknown)
        assert str(caught.value) == "max-cost cannot be kept: the price of new is unknown (there is none for new)"
        assert caught.value.hint == "set max-price too: it is then taken as the most that an hour can cost"

    def test_takes_max_price_for_a_price_that_is_unknown(self, ask: Any) -> None:
        only_spot = {"on_demand": {}, "spot": {("t", "a"): "0.1"}, "max_price": Decimal("0.72")}
        assert ask(max_cost=Decimal("0.024"), **only_spot).spec.launch["max_price"] == "0.72"
        with pytest.raises(SettingsError, match=r"at 0.7200 USD/h"):
            ask(max_cost=Decimal("0.0239"), **only_spot)

    def test_is_not_asked_for_by_somebody_who_sets_none(self, ask: Any) -> None:
        assert ask(on_demand={}).spec.launch["max_cost"] is None


class TestAPriceLimit:
    def test_that_no_offer_meets_is_refused(self, ask: Any) -> None:
        with pytest.raises(SettingsError) as caught:
            ask(max_price=Decimal("0.35"), spot={("t", "a"): "0.351"})
        assert str(caught.value) == "no offer is known to cost at most max-price, 0.35 USD/h"
        assert caught.value.hint == "see what there is: runctl-action quote train.py"

    def test_without_any_price_is_refused_with_the_reason(self, ask: Any) -> None:
        why = "pricing:GetProducts is not allowed"
        with pytest.raises(SettingsError, match=rf"at most max-price, 9 USD/h \({why}\)"):
            ask(on_demand={}, max_price=Decimal(9), problems=(why,))

    def test_that_one_offer_meets_is_kept(self, ask: Any) -> None:
        assert ask(max_price=Decimal("0.36")).spec.launch["max_price"] == "0.36"
        assert ask(max_price=Decimal("0.2"), spot={("t", "a"): "0.2"})


class TestSubmitting:
    def test_writes_the_marker_before_the_spec_which_is_new(self, ask: Any) -> None:
        request, bucket = ask(), Bucket()
        spec, is_new = submit(request, bucket, LAYOUT)  # type: ignore[arg-type]
        run_id = request.spec.run_id
        assert (spec, is_new) == (request.spec, True)
        assert bucket.written == [LAYOUT.open_marker(run_id), LAYOUT.run(run_id).spec]

    def test_writes_nothing_for_a_run_that_has_a_spec_and_gives_the_one_that_is_there(self, ask: Any) -> None:
        request, bucket = ask(), Bucket()
        stored = request.spec.model_copy(update={"requested_at": datetime(2026, 1, 1, tzinfo=UTC)})
        bucket.objects[LAYOUT.run(request.spec.run_id).spec] = stored.to_json()
        assert submit(request, bucket, LAYOUT) == (stored, False)  # type: ignore[arg-type]
        assert bucket.written == []

    def test_gives_the_spec_of_somebody_who_was_first_meanwhile(self, ask: Any) -> None:
        request, bucket = ask(), Bucket()
        theirs: Spec = request.spec.model_copy(update={"branch": "theirs"})
        bucket.first[LAYOUT.run(theirs.run_id).spec] = theirs.to_json()
        assert submit(request, bucket, LAYOUT) == (theirs, False)  # type: ignore[arg-type]
        assert bucket.written == [LAYOUT.open_marker(theirs.run_id)]


def test_the_same_request_is_the_same_run_and_another_budget_is_another(ask: Any) -> None:
    run_id = ask(max_cost=Decimal(1)).spec.run_id
    assert ask(max_cost=Decimal(1), on_demand={"t": "0.5"}).spec.run_id == run_id
    assert ask(max_cost=Decimal(2)).spec.run_id != run_id
