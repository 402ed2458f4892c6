"""Doing the one next thing. Every action is idempotent: done twice, or by two settlers at once, it is done once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from runctl_action.cloud import offers
from runctl_action.cloud.commands import Commands
from runctl_action.cloud.instances import (
    Instance,
    Instances,
    Refused,
    error_class,
    launch_parameters,
    require_state,
    token_bytes,
)
from runctl_action.cloud.store import Store
from runctl_action.contract.documents import (
    Budget,
    Claim,
    End,
    InstanceRecord,
    Market,
    Offer,
    OfferTried,
    Order,
    Packs,
)
from runctl_action.contract.layout import Layout, client_token
from runctl_action.errors import CloudError, RunctlError
from runctl_action.run import decide, tools
from runctl_action.run.observe import Attempt, Knowledge, Observation
from runctl_action.run.pricing import Pricing
from runctl_action.run.summary import fallback, summarize

# Who launches says so for this long; a launcher that died is taken over afterwards.
_CLAIM = timedelta(minutes=1)
_RENEW = timedelta(seconds=30)
_URL_SECONDS = 900
_BACK_OFF_FOR = timedelta(minutes=5)


@dataclass
class Actor:
    """Carries out actions for one run. `upload_source` is None where the source is not at hand (`collect`)."""

    store: Store
    instances: Instances
    commands: Commands
    layout: Layout
    region: str
    run_id: str
    knowledge: Knowledge
    upload_source: Callable[[], Packs] | None
    warn: Callable[[str], None]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    cache: Path
    pricing: Pricing
    log_tail: Callable[[], Sequence[str]] = field(default=lambda: ())

    def act(self, action: decide.Action, seen: Observation) -> None:
        """Does `action`; a condition that no longer holds (somebody else was first) is not an error."""
        match action:
            case decide.Wait(seconds=seconds):
                self.sleep(seconds)
            case decide.OpenAttempt(number=number, last_attempt=last_attempt):
                self._open(number, last_attempt)
            case decide.TakeOver(attempt=number):
                self._take_over(seen.attempts[number - 1])
            case decide.Upload():
                self._upload()
            case decide.Launch(attempt=number):
                self._launch(seen, seen.attempts[number - 1])
            case decide.Adopt(attempt=number, instance_id=instance_id):
                self._adopt(seen, number, instance_id)
            case decide.Terminate(instance_ids=ids, why=why):
                self._terminate(seen, ids, why)
            case decide.Probe(instance_id=instance_id):
                self._probe(instance_id)
            case decide.Start():
                self._start(seen, action)
            case decide.Afford(attempt=number):
                self._afford(seen, seen.attempts[number - 1])
            case decide.EndAttempt():
                self._end(seen, action)
            case decide.Finish():
                self._finish(seen)
            case decide.Done():
                return

    def _open(self, number: int, last_attempt: int) -> None:
        self.knowledge.start_failures = 0
        claim = Claim(owner=self.knowledge.me, until=self.now() + _CLAIM, last_attempt=last_attempt)
        self.store.put(self.layout.open_marker(self.run_id), b"")
        self.store.put(self.layout.run(self.run_id).claim(number), claim.to_json(), if_none_match=True)

    def _take_over(self, attempt: Attempt) -> bool:
        """Claims it anew; False when somebody else was first."""
        claim = attempt.claim.model_copy(update={"owner": self.knowledge.me, "until": self.now() + _CLAIM})
        key = self.layout.run(self.run_id).claim(attempt.number)
        return self.store.put(key, claim.to_json(), if_match=attempt.claim_etag) is not None

    def _upload(self) -> None:
        """Starts the upload beside the launch; `knowledge` says how it ends."""
        upload = self.upload_source
        assert upload is not None
        self.knowledge.upload = "running"

        def work() -> None:
            started = self.monotonic()
            try:
                packs = upload()
                self.store.put(self.layout.run(self.run_id).packs, packs.to_json())
            except RunctlError as error:
                self.knowledge.upload_error = str(error)
                self.knowledge.upload = "failed"
            except Exception as error:  # noqa: BLE001  - a thread's exception would be lost; the attempt ends with it
                self.knowledge.upload_error = f"the upload failed: {error!r}"
                self.knowledge.upload = "failed"
            self.knowledge.timings["syncing"] = self.monotonic() - started

        threading.Thread(target=work, name="upload", daemon=True).start()

    def _launch(self, seen: Observation, attempt: Attempt) -> None:
        """One offer: the exact call is written down before it is made, so that whoever repeats it makes the same."""
        launch = seen.spec.launch
        if attempt.claim.until - self.now() < _RENEW and not self._take_over(attempt):
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
                self._end(seen, decide.EndAttempt(attempt.number, "failed", "cloud", _refusals(attempt)))
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
                self._end(seen, decide.EndAttempt(attempt.number, "failed", "cloud", str(refused)))
            elif tried.offer.market == "spot":
                self.warn(f"spot {tried.offer.instance_type} in {tried.offer.zone} was refused: {refused.code}")
            return
        self.knowledge.timings["launching"] = self.monotonic() - started
        self.store.put(key, tried.model_copy(update={"instance_id": instance.id}).to_json())
        if tried.offer.market == "on-demand":
            self._tell_fallback(seen, attempt, tried.offer)
        self._adopt(seen, attempt.number, instance.id, tried)

    def _written(self, seen: Observation, attempt: Attempt, index: int, offer: Offer) -> OfferTried:
        launch = seen.spec.launch
        image = self.instances.image(launch.get("ami"), offer.instance_type)
        lease = timedelta(seconds=int(launch["lease_seconds"]))
        training = seen.spec.training
        limit = timedelta(
            seconds=training.max_duration_seconds + training.grace_seconds + training.keep_on_failure_seconds
        )
        parameters = launch_parameters(
            offer,
            image,
            run_id=self.run_id,
            attempt=attempt.number,
            bucket=self.store.bucket,
            deadline=self.now() + lease + limit + timedelta(minutes=30),
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

    def _adopt(self, seen: Observation, number: int, instance_id: str, tried: OfferTried | None = None) -> None:
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
            role_id = self.instances.profile_role_id(_profile(instance))
        except CloudError as error:
            message = f"{error} ({error.hint})" if error.hint else str(error)
            self._end(seen, decide.EndAttempt(attempt.number, "failed", "cloud", message))
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

    def _terminate(self, seen: Observation, ids: tuple[str, ...], why: str) -> None:
        """Only what carries this run's tag is ever terminated; `decide` sees nothing else."""
        ours = {i.id for a in seen.attempts for i in a.instances if i.tags}
        self.instances.terminate(i for i in ids if i in ours)
        self.knowledge.looked_at_ec2_at = float("-inf")
        self.knowledge.instances = tuple(i for i in self.knowledge.instances if i.id not in ids)
        if "attempt" not in why:
            self.warn(f"terminated {', '.join(ids)}: {why}")

    def _probe(self, instance_id: str) -> None:
        platform = self.commands.probe(instance_id)
        if platform is None:
            self.sleep(0.3)
            return
        self.knowledge.platforms[instance_id] = platform

    def _start(self, seen: Observation, action: decide.Start) -> None:
        """Tells the winner to start, and what: everything that the host has to trust is in this one command."""
        attempt = seen.attempts[action.attempt - 1]
        record = attempt.record
        assert record is not None
        order = Order(
            run_id=self.run_id,
            attempt=action.attempt,
            bucket=self.store.bucket,
            region=self.region,
            prefix=self.layout.prefix,
            userid=record.userid,
            digest=seen.spec.digest,
            spec_sha256=seen.spec_sha256,
            resume_from=action.resume_from,
            power_off=record.market != "existing",
            deadline=record.deadline,
            budget_seconds=self.pricing.seconds_left(seen, attempt),
        )
        if order.budget_seconds is not None and order.budget_seconds <= 0:
            message = "max-cost leaves no time to train: it went into earlier attempts, or into launching"
            self._end(seen, decide.EndAttempt(action.attempt, "timed-out", "budget", message))
            return
        package = tools.host_package()
        uv = tools.uv_archive(self.knowledge.platforms[action.instance_id], self.cache)
        package_key = self.layout.tool(package.sha256, package.name)
        uv_key = self.layout.tool(uv.sha256, uv.name)
        for key, tool in ((package_key, package), (uv_key, uv)):
            if self.store.size(key) != len(tool.data):
                self.store.put(key, tool.data, content_type="application/zip")
        script = tools.start_script(
            order,
            package_url=self.store.presign(package_key, _URL_SECONDS),
            package_sha256=package.sha256,
            uv_url=self.store.presign(uv_key, _URL_SECONDS),
            uv_sha256=uv.sha256,
        )
        result = self.commands.run(action.instance_id, script, f"runctl start {self.run_id}", 180)
        if result is None or not result.succeeded:
            self.knowledge.start_failures += 1
            said = (result.stderr.strip() or result.status) if result else "the command did not end in 180 s"
            self.knowledge.start_error = said[-1500:]
            return
        self.knowledge.started_at[action.instance_id] = self.monotonic()

    def _afford(self, seen: Observation, attempt: Attempt) -> None:
        """Tells the host how long it may go on, in its own time: at real prices that is longer than at the ceiling."""
        self.knowledge.afforded_at = self.monotonic()
        left = self.pricing.seconds_left(seen, attempt)
        if left is not None and attempt.status is not None:
            budget = Budget(until=attempt.status.at + timedelta(seconds=left))
            self.store.put(self.layout.run(self.run_id).budget(attempt.number), budget.to_json())

    def _end(self, seen: Observation, action: decide.EndAttempt) -> None:
        keys = self.layout.run(self.run_id)
        if action.cause == "sync":
            # What is in the bucket cannot be relied on: the next attempt, and the next run, upload it afresh.
            self.store.delete(self.layout.latest(seen.spec.repository, seen.spec.branch or "HEAD"))
            self.store.delete(keys.packs)
        end = End(outcome=action.outcome, cause=action.cause, message=action.message, at=self.now())
        is_first = self.store.put(keys.end(action.attempt), end.to_json(), if_none_match=True) is not None
        if is_first and action.outcome == "interrupted":
            self.warn(f"attempt {action.attempt} was interrupted: {action.message or action.cause}")
        self.knowledge.looked_at_ec2_at = float("-inf")

    def _finish(self, seen: Observation) -> None:
        receipt = self.pricing.receipt(seen)
        report = summarize(
            seen, uri=self.store.uri, log_tail=self.log_tail(), receipt=receipt, unpriced=self.pricing.problems
        )
        self.store.put(self.layout.run(self.run_id).report, report.to_json())
        self.store.delete(self.layout.open_marker(self.run_id))


def _place(offer: Offer) -> tuple[Market, str, str | None]:
    return offer.market, offer.instance_type, offer.zone


def _quota(offer: Offer) -> tuple[Market, str]:
    return offer.market, offers.quota_family(offer.instance_type)


def _profile(instance: Instance) -> str:
    if instance.profile is None:
        raise CloudError(
            f"instance {instance.id} has no instance profile: SSM cannot reach it, and it cannot write its results",
            "attach the profile that `instance-profile` names",
        )
    return instance.profile


def _refusals(attempt: Attempt) -> str:
    said = [f"{t.offer.market} {t.offer.instance_type} in {t.offer.zone}: {t.error_code}" for t in attempt.tried]
    return "every offer was refused: " + "; ".join(said) if said else "there is no offer under these settings"
