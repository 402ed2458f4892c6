"""The Price List API and the spot price history, in AWS's shapes, over published figures."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from runctl_action.emulator.price_table import GP3, IPV4, ON_DEMAND, REGIONS, SHAPES, SPOT
from runctl_action.emulator.state import World
from runctl_action.emulator.wire import Answer, ApiError, Call, as_ec2_xml, as_json, timestamp

# The Price List API has these endpoints and no others (billing user guide).
_ENDPOINTS = ("us-east-1", "eu-central-1", "ap-south-1")
_LOCATIONS = {"us-east-1": "US East (N. Virginia)", "us-west-2": "US West (Oregon)", "eu-west-1": "EU (Ireland)"}
_USAGE_PREFIX = {"us-east-1": "USE1-", "us-west-2": "USW2-", "eu-west-1": "EU-"}
_PRODUCT = "Linux/UNIX"
_HISTORY = timedelta(days=90)
# A zone's price changes every few hours; neighbouring snapshots of the source differ by a few per cent.
_CHANGES_EVERY = timedelta(hours=5)
_MOVES_BY = Decimal("0.06")
_PAGE = 1000


@dataclass(frozen=True)
class SpotPrice:
    kind: str
    zone: str
    price: Decimal
    since: datetime


class Prices:
    def __init__(self, world: World) -> None:
        self._world = world

    @functools.cached_property
    def _zone_ids(self) -> dict[str, str]:
        """By name. moto takes half a second to load them, so not before they are asked for."""
        from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend

        return {zone.name: zone.zone_id for zone in RegionsAndZonesBackend.zones[self._world.region]}

    @property
    def zones(self) -> tuple[str, ...]:
        """The names of the region's zones."""
        return tuple(self._zone_ids)

    def is_offered(self, kind: str, zone: str) -> bool:
        """Whether the type is in the zone; of a type without figures nothing is known, so it is."""
        return kind not in SPOT or self._zone_ids.get(zone) in SPOT[kind]

    def spot_now(self, kind: str, zone: str) -> Decimal | None:
        """USD/h in force; None where there is no figure."""
        now = datetime.now(UTC)
        return next((found.price for found in self._changes(kind, zone, now, now)), None)

    def spot_history(self, call: Call) -> Answer:
        """DescribeSpotPriceHistory: the changes between two times, and the last one before the first of them."""
        form = call.form
        now = datetime.now(UTC)
        start, end = _time(form.get("StartTime"), now - _HISTORY), _time(form.get("EndTime"), now)
        wanted = _filters(form)
        products = wanted["product-description"]
        if products and not products & {_PRODUCT, f"{_PRODUCT} (Amazon VPC)"}:
            return as_ec2_xml(call.action, "<spotPriceHistorySet/><nextToken/>")
        kinds = [kind for kind in SPOT if not wanted["instance-type"] or kind in wanted["instance-type"]]
        zones = [
            zone for zone in self._zone_ids if not wanted["availability-zone"] or zone in wanted["availability-zone"]
        ]
        found = [c for kind in kinds for zone in zones for c in self._changes(kind, zone, start, min(end, now))]
        found.sort(key=lambda change: change.since, reverse=True)
        first = _place(form.get("NextToken"), "InvalidNextToken")
        size = int(form.get("MaxResults") or _PAGE)
        items = "".join(
            f"<item><instanceType>{c.kind}</instanceType><productDescription>{_PRODUCT}</productDescription>"
            f"<spotPrice>{c.price:.6f}</spotPrice><timestamp>{timestamp(c.since)}</timestamp>"
            f"<availabilityZone>{c.zone}</availabilityZone></item>"
            for c in found[first : first + size]
        )
        more = str(first + size) if first + size < len(found) else ""
        return as_ec2_xml(
            call.action, f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken>{more}</nextToken>"
        )

    def products(self, call: Call) -> Answer:
        """GetProducts, with TERM_MATCH filters."""
        if call.action != "GetProducts":
            raise ApiError("UnknownOperationException", call.action)
        if call.region not in _ENDPOINTS:
            raise ApiError("UnrecognizedClientException", f"The Price List API has no endpoint in {call.region}.")
        body = call.json
        service = body.get("ServiceCode")
        if service not in {"AmazonEC2", "AmazonVPC"}:
            raise ApiError("NotFoundException", f"Service {service} was not found.")
        wanted = []
        for item in body.get("Filters", ()):
            if item.get("Type") != "TERM_MATCH":
                raise ApiError("InvalidParameterException", f"The filter type {item.get('Type')} is not emulated.")
            wanted.append((item["Field"], item["Value"]))
        found = [
            p
            for p in _products(self._haste)
            if p["serviceCode"] == service and all(_matches(p, f, v) for f, v in wanted)
        ]
        first = _place(body.get("NextToken"), "InvalidNextTokenException")
        size = min(100, int(body.get("MaxResults") or 100))
        answer: dict[str, Any] = {
            "FormatVersion": "aws_v1",
            "PriceList": [json.dumps(p) for p in found[first : first + size]],
        }
        if first + size < len(found):
            answer["NextToken"] = str(first + size)
        return as_json(answer)

    @property
    def _haste(self) -> Decimal:
        """How many of its own hours pass in one of the callers'. What costs 1 USD in an hour of its own, costs so many
        in one of theirs: budgets are used up in seconds, as timers run out."""
        return 60 / Decimal(str(self._world.seconds_per_minute))

    def _changes(self, kind: str, zone: str, start: datetime, end: datetime) -> Iterator[SpotPrice]:
        """The prices in force between two times, oldest first, each with the time since when it is."""
        base = SPOT.get(kind, {}).get(self._zone_ids.get(zone, ""))
        if base is None:
            return
        on_demand = Decimal(ON_DEMAND[kind][REGIONS.index(self._world.region)])
        # Zones do not change at the same instants.
        offset = timedelta(seconds=_hash(kind, zone) % int(_CHANGES_EVERY.total_seconds()))
        epoch = datetime(2026, 1, 1, tzinfo=UTC) + offset
        step = (start - epoch) // _CHANGES_EVERY
        while (since := epoch + step * _CHANGES_EVERY) <= end:
            move = Decimal(_hash(kind, zone, step) % 2001 - 1000) / 1000 * _MOVES_BY
            price = (Decimal(base) * (1 + move)).quantize(Decimal("0.0001"))
            yield SpotPrice(kind, zone, min(on_demand, max(on_demand / 10, price)) * self._haste, since)
            step += 1


def _products(haste: Decimal) -> Iterator[dict[str, Any]]:
    """What there is to buy, with the neighbours that a filter which is not exact would catch too."""
    for region_index, region in enumerate(REGIONS):
        prefix = _USAGE_PREFIX[region]
        place = {"regionCode": region, "location": _LOCATIONS[region], "locationType": "AWS Region"}
        for kind, prices in ON_DEMAND.items():
            if not prices[region_index]:
                continue
            price = Decimal(prices[region_index]) * haste
            _, cpus, memory, _ = SHAPES[kind]
            exact = place | {
                "instanceType": kind,
                "vcpu": str(cpus),
                "memory": f"{memory} GiB",
                "operatingSystem": "Linux",
                "tenancy": "Shared",
                "preInstalledSw": "NA",
                "capacitystatus": "Used",
                "usagetype": f"{prefix}BoxUsage:{kind}",
            }
            family = "Compute Instance"
            yield _product("AmazonEC2", family, exact, "Hrs", price)
            yield _product("AmazonEC2", family, exact | {"capacitystatus": "UnusedCapacityReservation"}, "Hrs", price)
            yield _product(
                "AmazonEC2", family, exact | {"capacitystatus": "AllocatedCapacityReservation"}, "Hrs", Decimal(0)
            )
            yield _product("AmazonEC2", family, exact | {"operatingSystem": "Windows"}, "Hrs", price * 2)
            yield _product("AmazonEC2", family, exact | {"preInstalledSw": "SQL Std"}, "Hrs", price * 3)
            yield _product("AmazonEC2", family, exact | {"tenancy": "Dedicated"}, "Hrs", price * Decimal("1.1"))
        volume = place | {
            "volumeApiName": "gp3",
            "volumeType": "General Purpose",
            "usagetype": f"{prefix}EBS:VolumeUsage.gp3",
        }
        yield _product("AmazonEC2", "Storage", volume, "GB-Mo", Decimal(GP3[region_index]) * haste)
        for usage in ("InUseAddress", "IdleAddress"):
            address = place | {"usagetype": f"{prefix}PublicIPv4:{usage}", "group": "VPCPublicIPv4Address"}
            yield _product("AmazonVPC", "", address, "Hrs", Decimal(IPV4) * haste)


def _product(service: str, family: str, attributes: Mapping[str, str], unit: str, price: Decimal) -> dict[str, Any]:
    sku = hashlib.sha256(repr(sorted(attributes.items())).encode()).hexdigest()[:16].upper()
    term = f"{sku}.JRTCKXETXF"
    dimension = {
        "rateCode": f"{term}.6YS6EN2CT7",
        "unit": unit,
        "beginRange": "0",
        "endRange": "Inf",
        "description": f"${price} per {unit}",
        "appliesTo": [],
        "pricePerUnit": {"USD": f"{price:.10f}"},
    }
    product = {"sku": sku, "attributes": {"servicecode": service, **attributes}} | (
        {"productFamily": family} if family else {}
    )
    offer = {"sku": sku, "offerTermCode": "JRTCKXETXF", "effectiveDate": "2026-07-01T00:00:00Z", "termAttributes": {}}
    terms = {"OnDemand": {term: offer | {"priceDimensions": {dimension["rateCode"]: dimension}}}}
    published = {"version": "20260701000000", "publicationDate": "2026-07-01T00:00:00Z"}
    return {"product": product, "serviceCode": service, "terms": terms, **published}


def _matches(product: Mapping[str, Any], name: str, value: str) -> bool:
    if name == "productFamily":
        return bool(product["product"].get("productFamily") == value)
    if name.lower() == "servicecode":
        return bool(product["serviceCode"] == value)
    return bool(product["product"]["attributes"].get(name) == value)


def _filters(form: Mapping[str, str]) -> dict[str, set[str]]:
    """By filter name: what the parameters and the Filters of the request ask for."""
    found: dict[str, set[str]] = {"instance-type": set(), "availability-zone": set(), "product-description": set()}
    names = {key: value for key, value in form.items() if key.startswith("Filter.") and key.endswith(".Name")}
    for key, value in form.items():
        if key.startswith("InstanceType."):
            found["instance-type"].add(value)
        elif key.startswith("ProductDescription."):
            found["product-description"].add(value)
        elif key == "AvailabilityZone":
            found["availability-zone"].add(value)
        elif key.startswith("Filter.") and ".Value." in key:
            name = names[f"{key.partition('.Value.')[0]}.Name"]
            if name not in found:
                raise ApiError("InvalidParameterValue", f"The filter '{name}' is not emulated.")
            found[name].add(value)
    return found


def _place(token: str | None, code: str) -> int:
    """Where a page begins."""
    if token and not token.isdecimal():
        raise ApiError(code, "The token is not valid.")
    return int(token or 0)


def _time(text: str | None, default: datetime) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC) if text else default


def _hash(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")
