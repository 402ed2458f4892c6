"""One request to train one commit: everything that can be wrong with it is found here, before anything is spent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from runctl_action.cloud import offers
from runctl_action.cloud.instances import Instances, Subnet, require_state
from runctl_action.cloud.store import Store
from runctl_action.contract.documents import Claim, Offer, Origin, Packs, Resume, Spec
from runctl_action.contract.layout import Layout
from runctl_action.errors import SettingsError, UsageError
from runctl_action.report.receipt import MINIMUM_SECONDS
from runctl_action.run.decide import resume_point
from runctl_action.run.observe import Observation
from runctl_action.run.pricing import Pricing
from runctl_action.settings import Settings
from runctl_action.source import packs as source_packs
from runctl_action.source import repository as source_repository


@dataclass(frozen=True)
class Request:
    """A checked request: its spec, the paths that are trained, and what it takes to put them into the bucket."""

    spec: Spec
    paths: frozenset[str]
    upload_source: Callable[[], Packs]


def prepare(
    settings: Settings,
    *,
    cwd: Path,
    environ: Mapping[str, str],
    store: Store,
    instances: Instances,
    pricing: Pricing,
    revision: str,
    now: datetime,
    resume: Resume | None = None,
    origin: Callable[[str], Origin] | None = None,
    branch: str | None = None,
) -> Request:
    """Checks the source and the cloud. Raises SettingsError, SourceError or CloudError; writes nothing.
    The same request (repository, workflow job, name, commit, content, arguments, settings, and what it resumes from)
    has the same run id."""
    repository = source_repository.open_repository(cwd, environ)
    if not settings.script:
        raise SettingsError("no script was given", "runctl-action train SCRIPT [-- ARGS…]")
    script = source_repository.find_script(repository, cwd, settings.script, revision)
    source = source_repository.read_source(repository, revision, settings.source, settings.max_file_bytes)
    launch = settings.launch_record() | _checked_cloud(settings, store, instances, pricing)
    training = settings.training()
    name = settings.name or Path(script).stem
    asked = origin(name) if origin else None
    identity = json.dumps(
        [
            repository.name,
            [environ.get(key, "") for key in ("GITHUB_WORKFLOW", "GITHUB_RUN_ID", "GITHUB_JOB")],
            asked.comment_key if asked else "",
            name,
            source.commit,
            source.manifest.digest,
            script,
            settings.args,
            training.model_dump(mode="json"),
            {k: v for k, v in launch.items() if k != "role_id"},
            *([[resume.run_id, resume.checkpoints[0].sha256]] if resume else []),
        ],
        sort_keys=True,
        default=str,
    )
    canonical = source.manifest.canonical()
    spec = Spec(
        run_id=f"{_slug(name)}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        requested_at=now,
        repository=repository.name,
        name=name,
        commit=source.commit,
        tree=source.tree,
        branch=branch or source.branch,
        origin=asked,
        is_posted=asked is not None and (asked.pull_request is not None or asked.looks_up) and asked.comment != "never",
        source=source.kind,
        digest=source.manifest.digest,
        files=len(source.manifest.entries),
        bytes=source.manifest.total_bytes,
        manifest_bytes=len(canonical),
        script=script,
        args=tuple(settings.args),
        training=training,
        launch=launch,
        dirty=source.dirty,
        resume=resume,
    )
    layout = Layout(prefix=settings.prefix)
    paths = frozenset(entry.path.decode("utf-8", "surrogateescape") for entry in source.manifest.entries)
    return Request(spec, paths, lambda: source_packs.upload_source(source, store, layout))


def submit(request: Request, store: Store, layout: Layout) -> tuple[Spec, bool]:
    """Writes the spec once. The one in the bucket (ours, or that of whoever asked first), and whether it is new."""
    key = layout.run(request.spec.run_id).spec
    if (stored := store.get(key)) is not None:
        return Spec.model_validate_json(stored.data), False
    # The marker first: a run that nobody would find again must not be there, not for an instant.
    store.put(layout.open_marker(request.spec.run_id), b"")
    if store.put(key, request.spec.to_json(), if_none_match=True) is not None:
        return request.spec, True
    stored = store.get(key)
    assert stored is not None
    return Spec.model_validate_json(stored.data), False


def open_again(
    spec: Spec, store: Store, layout: Layout, *, attempts: int, me: str, now: datetime, workflow_attempt: int
) -> None:
    """Opens one more attempt of a run that is over; the settle loop does the rest."""
    allowed = max(1, int(spec.launch.get("max_attempts", 1)))
    claim = Claim(
        owner=me,
        until=now + timedelta(minutes=3),
        last_attempt=attempts + allowed,
        workflow_attempt=workflow_attempt,
    )
    store.put(layout.open_marker(spec.run_id), b"")
    store.put(layout.run(spec.run_id).claim(attempts + 1), claim.to_json(), if_none_match=True)
    # Who closed the run meanwhile has not seen the claim.
    store.put(layout.open_marker(spec.run_id), b"")


def is_later_attempt(seen: Observation, workflow_attempt: int) -> bool:
    """Whether a workflow is run again (GITHUB_RUN_ATTEMPT) since a run ended that did not succeed."""
    assert seen.report is not None
    known = max((attempt.claim.workflow_attempt for attempt in seen.attempts), default=0)
    return seen.report.outcome != "succeeded" and workflow_attempt > known


def resume_of(seen: Observation) -> Resume:
    """What another run can begin with: the last good checkpoints of this one. Raises UsageError when it goes on, or has
    none."""
    run_id = seen.spec.run_id
    if not seen.is_finished:
        raise UsageError(
            f"run {run_id} is not over, so its last checkpoint is not known",
            f"stop it first: runctl-action stop {run_id}",
        )
    found = resume_point(seen, len(seen.attempts) + 1)
    if found is None:
        raise UsageError(
            f"run {run_id} left no checkpoint that could be resumed from", "leave --resume out to start anew"
        )
    return found


def require_bucket(settings: Settings, root: Path | None) -> None:
    """`root` is the git root, where runctl.toml would be. Raises SettingsError."""
    if settings.bucket:
        return
    if root is None:
        raise SettingsError(
            "no bucket is set, and this is not a git repository, whose runctl.toml could name one",
            "name it: --bucket NAME, or RUNCTL_BUCKET; or run this inside the repository",
        )
    raise SettingsError(
        "no bucket is set: a run keeps its source, log, checkpoints and result in one",
        'set it in runctl.toml: bucket = "my-team-runctl"; without an account: runctl-action train --emulate …',
    )


def required_profile(settings: Settings) -> str:
    """The instance profile that hosts get. Raises SettingsError."""
    if not settings.instance_profile:
        raise SettingsError(
            "no instance profile is set: a host without one cannot be reached by SSM, nor write its results",
            'set `instance-profile` in runctl.toml, for example: instance-profile = "runctl-host"',
        )
    return settings.instance_profile


def required_types(settings: Settings) -> list[str]:
    """In their order. Raises SettingsError."""
    types = [name for name in settings.instance_type if name != "cheapest"]
    if not types:
        raise SettingsError(
            "no instance type is set", 'set `instance-type`, for example: instance-type = ["g5.xlarge"]'
        )
    return types


def _checked_cloud(settings: Settings, store: Store, instances: Instances, pricing: Pricing) -> dict[str, object]:
    """Asks AWS about everything that the launch will name, so that a typing error costs a second and no money."""
    store.check()
    if settings.instance_id:
        require_state(instances.find(settings.instance_id), settings.instance_id, ("running",), "train on it")
        return {}
    role_id = instances.profile_role_id(required_profile(settings))
    types = required_types(settings)
    disks = [max(settings.volume_size or 0, instances.image(settings.ami, name).root_gib) for name in types]
    subnets = instances.subnets(settings.subnets)
    has_public_ipv4 = any(subnet.assigns_public_ipv4 for subnet in subnets)
    beside = pricing.beside_compute(min(disks), has_public_ipv4=has_public_ipv4)
    check_prices(settings, ranked_offers(settings, subnets, pricing), pricing, beside)
    return {"role_id": role_id}


def ranked_offers(settings: Settings, subnets: Sequence[Subnet], pricing: Pricing) -> tuple[Offer, ...]:
    """What a launch would ask for, in this order."""
    zones = [(subnet.zone, subnet.id) for subnet in subnets]
    types = [name for name in settings.instance_type if name != "cheapest"]
    prices = pricing.of_offers(types, [zone for zone, _ in zones], settings.spot)
    return offers.rank(settings.instance_type, zones, settings.spot, prices, max_price=settings.max_price)


def check_prices(settings: Settings, ranked: Sequence[Offer], pricing: Pricing, beside: Decimal) -> None:
    """Whether max-price and max-cost can be kept; `beside` is what disk and address cost an hour. Raises
    SettingsError."""
    if not ranked:
        why = f" ({'; '.join(pricing.problems)})" if pricing.problems else ""
        raise SettingsError(
            f"no offer is known to cost at most max-price, {settings.max_price} USD/h{why}",
            f"see what there is: runctl-action quote {settings.script}",
        )
    if settings.max_cost is None:
        return
    unknown = [o.instance_type for o in ranked if pricing.on_demand(o.instance_type) is None]
    if unknown and settings.max_price is None:
        raise SettingsError(
            f"max-cost cannot be kept: the price of {unknown[0]} is unknown ({'; '.join(pricing.problems) or 'none'})",
            "set max-price too: it is then taken as the most that an hour can cost",
        )
    seconds = MINIMUM_SECONDS + settings.grace + settings.keep_on_failure
    hourly = beside + min(pricing.on_demand(o.instance_type) or settings.max_price or Decimal(0) for o in ranked)
    least = hourly * seconds / 3600
    if settings.max_cost < least:
        raise SettingsError(
            f"max-cost is {settings.max_cost} USD, and {seconds} s, the least that is billed with the grace for a last "
            f"checkpoint{' and keep-on-failure' if settings.keep_on_failure else ''}, cost {least:.4f} USD at "
            f"{hourly:.4f} USD/h",
            f"raise max-cost, or choose a cheaper instance-type: runctl-action quote {settings.script}",
        )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "run"
