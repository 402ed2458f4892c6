"""What would be launched: types, quotas, image, the launch call as a dry run, prices.

EC2's quotas of vCPUs, one for each market and family of types (EC2 user guide, "On-Demand Instance quotas" and "Spot
Instance quotas"; the codes are what `aws service-quotas list-service-quotas --service-code ec2` shows):

    L-1216C47A  Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances
    L-DB2E81BA  Running On-Demand G and VT instances
    L-417A185B  Running On-Demand P instances
    L-34B43A08  All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests
    L-3819A6DF  All G and VT Spot Instance Requests
    L-7212CCBC  All P4, P3 and P2 Spot Instance Requests
    L-C4BD4855  All P5 Spot Instance Requests
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from runctl_action.cloud import offers
from runctl_action.cloud.launch_call import launch_parameters
from runctl_action.cloud.prices import Prices
from runctl_action.contract.documents import Market, Offer
from runctl_action.doctor.checkup import Facts, NotNeeded, Unseen
from runctl_action.errors import CloudError, PermissionDenied
from runctl_action.run.pricing import Pricing
from runctl_action.run.request import check_prices, ranked_offers, required_profile, required_types

_CODES: dict[tuple[Market, str], str] = {
    ("on-demand", "standard"): "L-1216C47A",
    ("on-demand", "G and VT"): "L-DB2E81BA",
    ("on-demand", "p"): "L-417A185B",
    ("spot", "standard"): "L-34B43A08",
    ("spot", "G and VT"): "L-3819A6DF",
}
_SPOT_P = {"2": "L-7212CCBC", "3": "L-7212CCBC", "4": "L-7212CCBC", "5": "L-C4BD4855"}


def quota_code(market: Market, instance_type: str) -> str | None:
    """None for families whose quota is not known here."""
    family = offers.quota_family(instance_type)
    if market == "spot" and family == "p":
        generation = re.match(r"p(\d+)", instance_type)
        return _SPOT_P.get(generation[1]) if generation else None
    return _CODES.get((market, family))


def instance_types(facts: Facts) -> str:
    if facts.settings.instance_id:
        raise NotNeeded("not needed: instance-id is set")
    facts.types = tuple(facts.instances.instance_type(name) for name in required_types(facts.settings))
    return ", ".join(f"{found.name} ({found.vcpus} vCPUs, {found.architecture})" for found in facts.types)


def quotas(facts: Facts) -> str:
    """One that fits is enough for a launch. What runs already counts against a quota, and is not known here."""
    values: dict[str, float] = {}
    fits: list[str] = []
    short: list[tuple[str, str, int]] = []
    unknown: list[str] = []
    for market in _markets(facts):
        for found in facts.types:
            code = quota_code(market, found.name)
            if code is None:
                unknown.append(f"{market} {found.name}")
                continue
            if code not in values:
                values[code] = facts.inspection.quota(code)
            said = f"{market} {found.name} needs {found.vcpus} vCPUs of {values[code]:g} ({code})"
            if found.vcpus <= values[code]:
                fits.append(said)
            else:
                short.append((said, code, found.vcpus))
    beside = [*(said for said, _, _ in short), *(f"{name}: its quota is not known here" for name in unknown)]
    if fits:
        return "; ".join([*fits, *beside])
    if unknown:
        raise Unseen("; ".join(beside), "look it up: aws service-quotas list-service-quotas --service-code ec2")
    _, code, vcpus = short[0]
    raise CloudError(
        f"no quota lets any of it be launched: {'; '.join(beside)}",
        f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} "
        f"--desired-value {vcpus} --region {facts.session.region}",
    )


def image(facts: Facts) -> str:
    if facts.settings.instance_id:
        raise NotNeeded("not needed: instance-id is set")
    facts.images = {found.name: facts.instances.image(facts.settings.ami, found.name) for found in facts.types}
    shown = dict.fromkeys(f"{found.id} ({found.architecture})" for found in facts.images.values())
    return f"{', '.join(shown)}{'' if facts.settings.ami else ', the default'}"


def launch(facts: Facts) -> str:
    """The call that a run would make, of its first type in its first subnet."""
    kind, subnet = facts.types[0].name, facts.subnets[0]
    offer = Offer(market=_markets(facts)[0], instance_type=kind, zone=subnet.zone, subnet=subnet.id, usd_per_hour=None)
    parameters = launch_parameters(
        offer,
        facts.images[kind],
        run_id="doctor",
        attempt=1,
        bucket=facts.store.bucket,
        deadline=datetime.now(UTC) + timedelta(hours=1),
        lease_minutes=15,
        instance_profile=required_profile(facts.settings),
        security_groups=facts.settings.security_groups,
        volume_gib=facts.settings.volume_size,
    )
    try:
        facts.inspection.dry_run(parameters)
    except PermissionDenied as error:
        if "Encoded authorization failure message" not in str(error):
            raise
        raise PermissionDenied(
            str(error),
            "allow ec2:RunInstances, ec2:CreateTags, and iam:PassRole on the host's role, in the launcher's policy",
        ) from error
    return f"{offer.market} {kind} in {subnet.zone} would be launched; nothing was"


def prices(facts: Facts) -> str:
    """Asked anew, not of the cache: it is also whether we may."""
    if facts.settings.instance_id:
        raise NotNeeded("not needed: instance-id is set")
    pricing = Pricing(Prices(facts.session, facts.cache))
    ranked = ranked_offers(facts.settings, facts.subnets, pricing)
    disk = max(facts.settings.volume_size or 0, min((found.root_gib for found in facts.images.values()), default=0))
    has_public_ipv4 = any(subnet.assigns_public_ipv4 for subnet in facts.subnets)
    beside = pricing.beside_compute(disk, has_public_ipv4=has_public_ipv4)
    if pricing.problems:
        denied = [problem.partition(" ")[0] for problem in pricing.problems if " is not allowed: " in problem]
        raise CloudError(
            "; ".join(pricing.problems),
            f"allow {', '.join(dict.fromkeys(denied))} in the launcher's policy; without it receipts have no amounts"
            if denied
            else "a run is possible all the same, unless max-price or max-cost is set; its receipt says what it lacks",
        )
    check_prices(facts.settings, ranked, pricing, beside)
    best = ranked[0]
    return (
        f"{best.market} {best.instance_type} in {best.zone}: {best.usd_per_hour} USD/h, first of {len(ranked)} offers"
    )


def _markets(facts: Facts) -> list[Market]:
    both: dict[str, list[Market]] = {"never": ["on-demand"], "prefer": ["spot", "on-demand"], "require": ["spot"]}
    return both[facts.settings.spot]
