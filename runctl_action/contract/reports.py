"""What people and programs read about a run, before it and after it: checkup, quote, and report with its receipt."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field

from runctl_action.contract.documents import (
    Cause,
    Document,
    Market,
    Moment,
    Origin,
    OsString,
    Outcome,
    Phase,
    Seconds,
    Sentence,
)


class Synced(BaseModel):
    digest: str
    files: int
    bytes: int


class ReportedInstance(BaseModel):
    id: str
    type: str
    zone: str
    market: Market


class ReportedOffer(BaseModel):
    """One offer that was asked for: what came of it is an instance, or EC2's word for why not."""

    attempt: int
    market: Market
    type: str
    zone: str | None
    usd_per_hour: Decimal | None = None
    instance_id: str | None = None
    error: str | None = None


class ReceiptLine(BaseModel):
    """`quantity` × `unit_usd` = `usd`, rounded; `source` says where the price is from."""

    item: str
    attempt: int | None = None
    quantity: Decimal
    unit: str
    unit_usd: Decimal
    usd: Decimal
    source: str


class Receipt(BaseModel):
    """At list prices. None where a price could not be had: never a guess. The lines add up to the total."""

    total_usd: Decimal | None = None
    on_demand_usd: Decimal | None = None  # the same seconds, on-demand
    saved_usd: Decimal | None = None  # negative where spot was dearer
    idle_usd: Decimal | None = None  # of the total, for time that was not spent training
    idle_seconds: Seconds | None = None
    lines: tuple[ReceiptLine, ...] = ()
    unknown: tuple[str, ...] = ()  # what has no price, so no line
    not_included: tuple[str, ...] = ()
    is_final: bool = True
    as_of: Moment


class ReportedCheckpoint(BaseModel):
    path: OsString
    bytes: int
    sha256: str
    uri: str
    modified_at: Moment | None = None
    suspect: bool = False


class Report(Document):
    """Everything that people and programs read about a run; `outcome` is None while it goes on."""

    run_id: str
    outcome: Outcome | None = None
    cause: Cause | None = None
    exit_code: int | None = None  # the training's own
    signal: int | None = None
    message: Sentence = ""
    hint: Sentence = ""
    phase: Phase = "preparing"
    repository: OsString
    name: OsString
    commit: str
    tree: str
    branch: OsString | None = None
    source: Literal["commit", "worktree"] = "commit"
    origin: Origin | None = None
    script: OsString
    args: tuple[OsString, ...] = ()
    manifest: Synced
    dirty: tuple[OsString, ...] = ()
    instances: tuple[ReportedInstance, ...] = ()
    offers: tuple[ReportedOffer, ...] = ()
    attempts: int = 0
    # The checkpoint that the last attempt started from, and whose it is.
    resumed_from: OsString | None = None
    resumed_run: str | None = None
    phases: dict[str, Seconds] = Field(default_factory=dict)
    receipt: Receipt | None = None
    checkpoints: tuple[ReportedCheckpoint, ...] = ()
    metrics: tuple[dict[str, Any], ...] = ()
    warnings: tuple[Sentence, ...] = ()
    log_tail: tuple[Sentence, ...] = ()
    requested_at: Moment
    ended_at: Moment | None = None


class QuotedOffer(BaseModel):
    """`usd_per_hour` is None where the price could not be had."""

    market: Market
    type: str
    zone: str | None
    usd_per_hour: Decimal | None = None
    source: str | None = None
    as_of: Moment | None = None


class Quote(Document):
    """Offers in the order in which they would be asked for. Amounts are for compute, at the best offer's price."""

    script: OsString
    commit: str
    manifest: Synced
    offers: tuple[QuotedOffer, ...]
    max_duration_seconds: int
    max_duration_usd: Decimal | None = None
    max_cost_usd: Decimal | None = None
    # What max-cost buys: at the best offer's price, and at the on-demand price that a budget reckons with.
    max_cost_seconds: int | None = None
    max_cost_seconds_at_least: int | None = None
    unknown: tuple[str, ...] = ()


class Log(Document):
    """What the last attempt of a run has printed so far, its own lines and ours; `outcome` is None while it goes on."""

    run_id: str
    outcome: Outcome | None = None
    lines: tuple[Sentence, ...] = ()


class Finding(BaseModel):
    """One check of the doctor's. `unseen`: we may not look, which is no failure; `skipped`: not needed, or an earlier
    check failed. `fix` is a sentence or a command, where there is something to do."""

    name: str
    status: Literal["passed", "failed", "unseen", "skipped"]
    seen: Sentence
    fix: Sentence = ""


class Checkup(Document):
    """In the order in which they were made; `exit_code` is that of the first that failed."""

    exit_code: int
    checks: tuple[Finding, ...]
