"""What AWS asks for instances, disks and addresses now, and how spot prices moved: from AWS alone, never a guess."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

import botocore.exceptions
from pydantic import Field

from runctl_action.cloud.cache import Cache, Kept
from runctl_action.cloud.session import Session, aws_errors, error_code
from runctl_action.errors import CloudError, PermissionDenied

_T = TypeVar("_T")

_LIST = "pricing:GetProducts"
_SPOT = "ec2:DescribeSpotPriceHistory"
_LIST_AGE = timedelta(hours=24)
_SPOT_AGE = timedelta(minutes=5)
# An API that did not answer would hold up every figure anew.
_PAUSE = timedelta(minutes=5)
_FOREVER = datetime.max.replace(tzinfo=UTC)

_LINUX = "Linux/UNIX"
# Without all of them there are several products: reserved capacity, Windows, dedicated hosts.
_EXACT = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}
# The region's prefix is missing in some lists of us-east-1; a local zone's has a second part.
_ADDRESS_IN_USE = re.compile(r"(?:[A-Z0-9]+-)?PublicIPv4:InUseAddress")
_HOURLY, _GB_MONTHLY = ("hrs", "hours"), ("gb-mo", "gb-month")


@dataclass(frozen=True)
class Price:
    """USD per `unit` ("Hrs" or "GB-Mo", as the Price List says it), read from `source` at `as_of` (UTC)."""

    usd: Decimal
    unit: str
    source: str
    as_of: datetime


@dataclass(frozen=True)
class SpotChange:
    """USD/h from `since` (UTC) on."""

    usd: Decimal
    since: datetime


class Prices:
    """The list and spot prices of the session's region, kept in `cache`. A price that cannot be had is None or missing,
    and `problems` says why: nothing here raises for it, and nothing waits long."""

    def __init__(
        self, session: Session, cache: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._session = session
        self._cache = Cache(cache / "prices")
        self._now = now
        self._problems: dict[str, str] = {}
        # By action, or by figure: until when it is not asked for again, and why.
        self._refused: dict[str, tuple[datetime, str]] = {}

    @property
    def problems(self) -> tuple[str, ...]:
        """Why figures that were asked for are unknown, a sentence each."""
        return tuple(dict.fromkeys(self._problems.values()))

    def on_demand(self, instance_type: str) -> Price | None:
        """Per hour of Linux on shared hardware."""
        filters = {"instanceType": instance_type, **_EXACT}
        return self._listed(_Item(f"on-demand-{instance_type}", f"{instance_type} on demand", filters))

    def gp3(self) -> Price | None:
        """Per GB-month of storage."""
        filters = {"productFamily": "Storage", "volumeApiName": "gp3"}
        return self._listed(_Item("gp3", "gp3 storage", filters, units=_GB_MONTHLY))

    def public_ipv4(self) -> Price | None:
        """Per hour of one address in use."""
        return self._listed(_Item("public-ipv4", "a public IPv4 address", {}, "AmazonVPC", usage=_ADDRESS_IN_USE))

    def spot(self, instance_type: str, zones: Sequence[str]) -> dict[str, Price]:
        """Per hour, in force now, by zone; zones without a price are missing."""
        name = f"spot-{instance_type}"
        # The names of zones are each account's own.
        origin = f"{self._session.endpoint('ec2')} {self._session.credentials_name}"
        figures = self._figures(name, _SPOT, origin, _SPOT_AGE, lambda: ("Hrs", self._spot_now(instance_type)))
        if figures is None:
            return {}
        prices = {
            zone: Price(usd, figures.unit, f"EC2 spot price history ({zone})", figures.as_of)
            for zone, usd in figures.usd.items()
        }
        found = {zone: prices[zone] for zone in zones if zone in prices}
        if zones and not found:
            self._problems[name] = f"EC2 has no spot price for {instance_type} in {', '.join(zones)}"
        return found

    def spot_history(self, instance_type: str, zone: str, start: datetime, end: datetime) -> tuple[SpotChange, ...]:
        """The changes between two times, oldest first, the first the one in force at `start`; () when it cannot be had.
        Asked anew each time."""
        name = f"spot-{instance_type}-{zone}-{start.isoformat()}"
        return self._asked(name, _SPOT, lambda: self._changes(instance_type, zone, start, end)) or ()

    def _listed(self, item: _Item) -> Price | None:
        region = self._session.region
        origin = str(self._session.endpoint("pricing"))
        figures = self._figures(item.name, _LIST, origin, _LIST_AGE, lambda: self._list_price(item))
        if figures is None:
            return None
        return Price(next(iter(figures.usd.values())), figures.unit, f"AWS Price List ({region})", figures.as_of)

    def _figures(
        self, name: str, action: str, origin: str, age: timedelta, ask: Callable[[], tuple[str, dict[str, Decimal]]]
    ) -> _Figures | None:
        """Kept ones of the same origin, or else asked for: `ask` gives the unit, and USD by region or zone."""
        file = f"{self._session.region}-{name}"
        of = hashlib.sha256(f"{file} {origin}".encode()).hexdigest()
        now = self._now()
        if figures := self._cache.get(file, _Figures, of, now - age, now):
            self._problems.pop(name, None)
            return figures
        if (answer := self._asked(name, action, ask)) is None:
            return None
        figures = _Figures(version=1, of=of, as_of=now, unit=answer[0], usd=answer[1])
        self._cache.put(file, figures)
        return figures

    def _asked(self, name: str, action: str, ask: Callable[[], _T]) -> _T | None:
        for refused in (action, name):
            until, why = self._refused.get(refused, (None, ""))
            if until and self._now() < until:
                self._problems[name] = why
                return None
        try:
            with _readable(action), aws_errors(action):
                answer = ask()
        except CloudError as error:
            until = _FOREVER if isinstance(error, PermissionDenied) else self._now() + _PAUSE
            self._refused[name if _is_of_one_figure(error) else action] = (until, str(error))
            self._problems[name] = str(error)
            return None
        self._problems.pop(name, None)
        return answer

    def _list_price(self, item: _Item) -> tuple[str, dict[str, Decimal]]:
        region = self._session.region
        exact = {**item.filters, "regionCode": region}
        filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in exact.items()]
        client = self._session.client("pricing", is_brief=True, region=_price_list_region(region))
        pages = client.get_paginator("get_products").paginate(ServiceCode=item.service, Filters=filters)
        products = [json.loads(text, parse_float=Decimal) for page in pages for text in page["PriceList"]]
        found = [price for product in products if item.is_of(product) for price in _prices(product)]
        what = f"for {item.title} in {region}"
        if len(found) != 1:
            raise _NoPrice(f"the Price List has {f'{len(found)} prices' if found else 'no price'} {what}")
        ((usd, unit),) = found
        if unit.lower() not in item.units:
            raise _NoPrice(f"the Price List's price {what} is per {unit}, not per {item.units[0]}")
        return unit, {region: usd}

    def _spot_now(self, instance_type: str) -> dict[str, Decimal]:
        """By zone, for the whole region. AWS adds the last change before `StartTime`, which is in force."""
        latest: dict[str, SpotChange] = {}
        for zone, change in self._spot_prices(InstanceTypes=[instance_type], StartTime=_seconds(self._now())):
            latest[zone] = max(change, latest.get(zone, change), key=lambda one: one.since)
        if not latest:
            raise _NoPrice(f"EC2 has no spot price for {instance_type} in {self._session.region}")
        return {zone: change.usd for zone, change in latest.items()}

    def _changes(self, instance_type: str, zone: str, start: datetime, end: datetime) -> tuple[SpotChange, ...]:
        request = {"AvailabilityZone": zone, "StartTime": _seconds(start), "EndTime": _seconds(end)}
        rows = self._spot_prices(InstanceTypes=[instance_type], **request)
        changes = sorted((change for of, change in rows if of == zone), key=lambda change: change.since)
        in_force = [change for change in changes if change.since <= start][-1:]
        if not in_force:
            raise _NoPrice(
                f"EC2 does not say what spot {instance_type} cost in {zone} at {_seconds(start).isoformat()}"
            )
        return (*in_force, *(change for change in changes if start < change.since <= end))

    def _spot_prices(self, **request: Any) -> Iterator[tuple[str, SpotChange]]:
        """All pages, as (zone, change)."""
        client = self._session.client("ec2", is_brief=True)
        pages = client.get_paginator("describe_spot_price_history").paginate(ProductDescriptions=[_LINUX], **request)
        for page in pages:
            for row in page["SpotPriceHistory"]:
                # A zone may have no price for a type that it offers.
                if row.get("SpotPrice") and row["InstanceType"] in request["InstanceTypes"]:
                    yield row["AvailabilityZone"], SpotChange(_usd(row["SpotPrice"]), row["Timestamp"].astimezone(UTC))


def _price_list_region(region: str) -> str:
    """The nearest of the three regions that have an endpoint of the Price List API, which knows all regions."""
    if region.startswith("ap-"):
        return "ap-south-1"
    return "eu-central-1" if region.startswith(("eu-", "me-", "af-", "il-")) else "us-east-1"


@dataclass(frozen=True)
class _Item:
    """What is looked up in the Price List: `name` for files, `title` for people."""

    name: str
    title: str
    filters: Mapping[str, str]
    service: str = "AmazonEC2"
    units: tuple[str, ...] = _HOURLY
    usage: re.Pattern[str] | None = None

    def is_of(self, product: Mapping[str, Any]) -> bool:
        return self.usage is None or bool(self.usage.fullmatch(product["product"]["attributes"].get("usagetype", "")))


class _NoPrice(CloudError):
    """AWS answered, and the answer has no such figure."""


def _is_of_one_figure(error: CloudError) -> bool:
    """Whether it says nothing about what else could be asked."""
    cause = error.__cause__
    wrong_value = isinstance(cause, botocore.exceptions.ClientError) and error_code(cause).startswith("Invalid")
    return isinstance(error, _NoPrice) or (type(error) is CloudError and wrong_value)


@contextlib.contextmanager
def _readable(action: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise _NoPrice(f"the answer to {action} cannot be read: {error!r}") from error


def _prices(product: Mapping[str, Any]) -> Iterator[tuple[Decimal, str]]:
    """(USD, unit) of each on-demand price; zeros are of capacity that is paid for already."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            if Decimal(text := dimension["pricePerUnit"].get("USD", "0")):
                yield _usd(text), dimension["unit"]


def _usd(text: str) -> Decimal:
    usd = Decimal(text)
    if not usd.is_finite() or usd <= 0:
        raise ValueError(f"{text} is no price")
    return usd


def _seconds(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(microsecond=0)


class _Figures(Kept):
    """USD by region or zone."""

    unit: str
    usd: Annotated[dict[str, Annotated[Decimal, Field(gt=0)]], Field(min_length=1)]
