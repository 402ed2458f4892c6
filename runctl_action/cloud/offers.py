"""Which (market, instance type, zone) to ask for, in which order. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal

from runctl_action.contract.documents import Market, Offer

_STANDARD = frozenset({"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"})

Prices = Mapping[tuple[Market, str, str], Decimal]


def rank(
    instance_types: Sequence[str],
    zones: Sequence[tuple[str, str]],
    spot: Literal["never", "prefer", "require"],
    prices: Prices,
    *,
    max_price: Decimal | None = None,
) -> tuple[Offer, ...]:
    """Offers, best first. `zones` are (zone, subnet id); `prices` in USD/h by (market, type, zone), a missing one is
    unknown. Spot comes before on-demand under `prefer`; the types' own order stays unless the first is `cheapest`;
    among zones the cheaper is first. Under `max_price` only offers that are known to cost no more are left."""
    cheapest = bool(instance_types) and instance_types[0] == "cheapest"
    types = list(dict.fromkeys(name for name in instance_types if name != "cheapest"))
    markets: list[Market] = {"never": ["on-demand"], "prefer": ["spot", "on-demand"], "require": ["spot"]}[spot]  # type: ignore[assignment]
    ranked: list[Offer] = []
    for market in markets:
        offers = [
            Offer(
                market=market,
                instance_type=name,
                zone=zone,
                subnet=subnet,
                usd_per_hour=prices.get((market, name, zone)),
            )
            for name in types
            for zone, subnet in zones
        ]
        if max_price is not None:
            offers = [o for o in offers if o.usd_per_hour is not None and o.usd_per_hour <= max_price]
        order = {name: index for index, name in enumerate(types)}
        offers.sort(
            key=lambda o: (0 if cheapest else order[o.instance_type], o.usd_per_hour is None, o.usd_per_hour or 0)
        )
        ranked += offers
    return tuple(ranked)


def quota_family(instance_type: str) -> str:
    """Which of EC2's vCPU quotas the type counts against (EC2 user guide, "On-Demand Instance quotas"; spot has its own
    of the same families)."""
    letters = re.match(r"[a-z]+", instance_type)
    family = letters[0] if letters else instance_type
    if family in {"g", "gr", "vt"}:
        return "G and VT"
    return "standard" if family in _STANDARD else family
