"""What a run would cost, before there is one. Spends nothing, writes nothing, needs read permissions only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runctl_action.cloud.subnets import KnownSubnets
from runctl_action.contract.reports import Quote, QuotedOffer, Synced
from runctl_action.errors import SettingsError
from runctl_action.run.pricing import Pricing
from runctl_action.run.request import ranked_offers
from runctl_action.settings import Settings
from runctl_action.source import repository as source_repository


def quote(
    settings: Settings,
    *,
    cwd: Path,
    environ: Mapping[str, str],
    subnets: KnownSubnets,
    pricing: Pricing,
    revision: str,
) -> Quote:
    """Raises SettingsError, SourceError or CloudError, as a request would."""
    if not settings.script:
        raise SettingsError("no script was given", "runctl-action quote SCRIPT")
    repository = source_repository.open_repository(cwd, environ)
    script = source_repository.find_script(repository, cwd, settings.script, revision)
    source = source_repository.read_source(repository, revision, settings.source, settings.max_file_bytes)
    ranked = ranked_offers(settings, subnets.of(settings.subnets), pricing)
    offers = tuple(
        QuotedOffer(
            market=offer.market,
            type=offer.instance_type,
            zone=offer.zone,
            usd_per_hour=offer.usd_per_hour,
            source=price.source if price else None,
            as_of=price.as_of if price else None,
        )
        for offer in ranked
        for price in [pricing.of(offer)]
    )
    hourly = offers[0].usd_per_hour if offers else None
    listed = pricing.on_demand(offers[0].type) if offers else None
    limit = settings.max_cost
    return Quote(
        script=script,
        commit=source.commit,
        manifest=Synced(
            digest=source.manifest.digest, files=len(source.manifest.entries), bytes=source.manifest.total_bytes
        ),
        offers=offers,
        max_duration_seconds=settings.max_duration,
        max_duration_usd=hourly * settings.max_duration / 3600 if hourly else None,
        max_cost_usd=limit,
        max_cost_seconds=int(limit / hourly * 3600) if limit and hourly else None,
        max_cost_seconds_at_least=int(limit / listed * 3600) if limit and listed else None,
        unknown=pricing.problems,
    )
