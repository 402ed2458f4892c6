"""Launching: one offer at a time, each written down before it is asked for, and one winner an attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from runctl_action.cloud import offers
from runctl_action.cloud.instances import (
    Instance,
    Instances,
    Refused,
    error_class,
    require_state,
)
from runctl_action.cloud.launch_call import launch_parameters, token_bytes
from runctl_action.cloud.store import Store
from runctl_action.contract.documents import InstanceRecord, Market, Offer, OfferTried
from runctl_action.contract.layout import Layout, client_token
from runctl_action.errors import CloudError
from runctl_action.run import actions
from runctl_action.run.observe import Attempt, Knowledge, Observation
from runctl_action.run.pricing import Pricing
from runctl_action.run.summary import fallback

_RENEW = timedelta(seconds=30)
# A host's own limit has a second one behind it, five minutes later; the deadline is for one that ignores both.
_FORCED = timedelta(minutes=10)
_BACK_OFF_FOR = timedelta(minutes=5)


@dataclass
class Launches:
    """Those of one run. `claim(attempt)` renews who launches it, False when somebody else has taken over; `end` writes
    that an attempt is over."""

    store: Store
    instances: Instances
    layout: Layout
    run_id: str
    knowledge: Knowledge
    pricing: Pricing
    claim: Callable[[Attempt], bool]
    end: Callable[[Observation, actions.EndAttempt], None]
    warn: Callable[[str], None]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]

    def launch(self, seen: Observation, attempt: Attempt) -> None:
        """One offer: the exact call is written down before it is made, so that whoever repeats it makes the same."""
        launch = seen.spec.launch
        if attempt.claim.until - self.now() < _RENEW and not self.claim(attempt):
            return
        if launch.get("instance_id"):
            self._use_existing(seen, attempt, str(launch["instance_id"]))
            return
        index = len(attempt.tried)
        if attempt.tried and attempt.tried[-1].instance_id is None and attempt.tried[-1].error_code is None:
            index -= 1
            tried = attempt.tried[-1]
        else:
            offer = self._next_offer(seen, attempt)
            if offer is None:
                self.end(seen, actions.EndAttempt(attempt.number, "failed", "cloud", _refusals(attempt)))
                return
            tried = self._written(seen, attempt, index, offer)
        key = self.layout.run(self.run_id).offer(attempt.number, index)
        started = self.monotonic()
        try:
            instance = self.instances.launch(tried.parameters | {"ClientToken": tried.token})
        except Refused as refused:
            if refused.kind == "back-off" and self.now() - tried.at < _BACK_OFF_FOR:
                self.sleep(2)
                return
            update = {"error_code": refused.code, "error_message": str(refused)}
            self.store.put(key, tried.model_copy(update=update).to_json())
            if refused.kind == "fatal":
                self.end(seen, actions.EndAttempt(attempt.number, "failed", "cloud", str(refused)))
            elif tried.offer.market == "spot":
                self.warn(f"spot {tried.offer.instance_type} in {tried.offer.zone} was refused: {refused.code}")
            return
        self.knowledge.timings["launching"] = self.monotonic() - started
        self.store.put(key, tried.model_copy(update={"instance_id": instance.id}).to_json())
        if tried.offer.market == "on-demand":
            self._tell_fallback(seen, attempt, tried.offer)
        self.adopt(seen, attempt.number, instance.id, tried)

    def _written(self, seen: Observation, attempt: Attempt, index: int, offer: Offer) -> OfferTried:
        launch = seen.spec.launch
        image = self.instances.image(launch.get("ami"), offer.instance_type)
        lease = timedelta(seconds=int(launch["lease_seconds"]))
        limit = timedelta(seconds=seen.spec.training.lease_seconds)
        parameters = launch_parameters(
            offer,
            image,
            run_id=self.run_id,
            attempt=attempt.number,
            bucket=self.store.bucket,
            deadline=self.now() + lease + limit + _FORCED,
            lease_minutes=max(1, round(lease.total_seconds() / 60)),
            instance_profile=launch["instance_profile"],
            security_groups=launch.get("security_groups") or (),
            volume_gib=launch.get("volume_size"),
        )
        token = client_token(token_bytes(parameters) + f"{self.run_id}/{attempt.number}/{index}".encode())
        tried = OfferTried(offer=offer, token=token, parameters=parameters, at=self.now())
        key = self.layout.run(self.run_id).offer(attempt.number, index)
        if self.store.put(key, tried.to_json(), if_none_match=True) is None:
            stored = self.store.get(key)
            if stored is not None:
                return OfferTried.model_validate_json(stored.data)
        return tried

    def _next_offer(self, seen: Observation, attempt: Attempt) -> Offer | None:
        """The best offer that this attempt has not tried; what an earlier attempt lost its host on comes last."""
        launch = seen.spec.launch
        subnets = self.instances.subnets(launch.get("subnets") or ())
        max_price = Decimal(launch["max_price"]) if launch.get("max_price") is not None else None
        zones = [(subnet.zone, subnet.id) for subnet in subnets]
        types = [name for name in launch["instance_type"] if name != "cheapest"]
        prices = self.pricing.of_offers(types, [zone for zone, _ in zones], launch["spot"])
        ranked = offers.rank(launch["instance_type"], zones, launch["spot"], prices, max_price=max_price)
        tried = {_place(t.offer) for t in attempt.tried}
        lost: set[tuple[Market, str, str | None]] = {
            (a.record.market, a.record.instance_type, a.record.zone)
            for a in seen.attempts[: attempt.number - 1]
            if a.record
        }
        no_quota = {_quota(t.offer) for t in attempt.tried if t.error_code and error_class(t.error_code) == "quota"}
        left = [o for o in ranked if _place(o) not in tried and _quota(o) not in no_quota]
        left.sort(key=lambda offer: _place(offer) in lost)
        return left[0] if left else None

    def adopt(self, seen: Observation, number: int, instance_id: str, tried: OfferTried | None = None) -> None:
        """Writes the winner; whoever is second finds another there, and its instance is terminated as a loser."""
        instance = self.instances.find(instance_id)
        launch = seen.spec.launch
        # Who adopts by the tag alone: it is of the last offer, or of the one that was noted.
        known = seen.attempts[number - 1].tried
        tried = tried or next((t for t in known if t.instance_id == instance_id), known[-1] if known else None)
        record = InstanceRecord(
            instance_id=instance_id,
            instance_type=instance.type if instance else tried.offer.instance_type if tried else "unknown",
            zone=instance.zone if instance else (tried.offer.zone or "") if tried else "",
            market=tried.offer.market if tried else instance.market if instance else "on-demand",
            userid=f"{launch['role_id']}:{instance_id}",
            launched_at=(instance.launched_at if instance and instance.launched_at else self.now()),
            deadline=instance.deadline if instance else None,
            usd_per_hour=tried.offer.usd_per_hour if tried else None,
            on_demand_usd_per_hour=self.pricing.on_demand(instance.type) if instance else None,
            volume_gib=sum(d["Ebs"]["VolumeSize"] for d in tried.parameters["BlockDeviceMappings"]) if tried else 0,
            has_public_ipv4=self._gets_public_ipv4(tried.offer.subnet) if tried else False,
        )
        self.store.put(self.layout.run(self.run_id).instance(number), record.to_json(), if_none_match=True)
        self.knowledge.looked_at_ec2_at = float("-inf")

    def _gets_public_ipv4(self, subnet: str | None) -> bool:
        return any(found.assigns_public_ipv4 for found in self.instances.subnets([subnet] if subnet else ()))

    def _tell_fallback(self, seen: Observation, attempt: Attempt, offer: Offer) -> None:
        """Loud, and with the difference: people who ask for spot expect its price."""
        told = fallback(attempt.tried, offer, seen.spec.training.max_duration_seconds)
        if told:
            self.warn(told)

    def _use_existing(self, seen: Observation, attempt: Attempt, instance_id: str) -> None:
        try:
            instance = require_state(self.instances.find(instance_id), instance_id, ("running",), "train on it")
            role_id = self.instances.profile_role_id(profile_of(instance))
        except CloudError as error:
            message = f"{error} ({error.hint})" if error.hint else str(error)
            self.end(seen, actions.EndAttempt(attempt.number, "failed", "cloud", message))
            return
        record = InstanceRecord(
            instance_id=instance_id,
            instance_type=instance.type,
            zone=instance.zone,
            market="existing",
            userid=f"{role_id}:{instance_id}",
            launched_at=self.now(),
        )
        self.store.put(self.layout.run(self.run_id).instance(attempt.number), record.to_json(), if_none_match=True)


def _place(offer: Offer) -> tuple[Market, str, str | None]:
    return offer.market, offer.instance_type, offer.zone


def _quota(offer: Offer) -> tuple[Market, str]:
    return offer.market, offers.quota_family(offer.instance_type)


def profile_of(instance: Instance) -> str:
    if instance.profile is None:
        raise CloudError(
            f"instance {instance.id} has no instance profile: SSM cannot reach it, and it cannot write its results",
            "attach the profile that `instance-profile` names",
        )
    return instance.profile


def _refusals(attempt: Attempt) -> str:
    said = [f"{t.offer.market} {t.offer.instance_type} in {t.offer.zone}: {t.error_code}" for t in attempt.tried]
    return "every offer was refused: " + "; ".join(said) if said else "there is no offer under these settings"
