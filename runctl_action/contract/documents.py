"""The JSON documents in the bucket, one model each. Fields from a newer writer are ignored; times are UTC.

Who writes what: launchers write everything but Status, CheckpointList, Metrics and Result, which are the host's.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, field_validator

from runctl_action.contract import secret_names

Phase = Literal["preparing", "launching", "booting", "syncing", "installing", "training", "collecting", "done"]
Outcome = Literal["succeeded", "failed", "interrupted", "timed-out", "cancelled", "lost"]
Cause = Literal[
    "exit", "signal", "out-of-memory", "no-checkpoint",  # failed (1): the training's own
    "usage", "source", "cloud",  # failed (2, 3, 4): the request
    "sync", "install",  # failed (5)
    "spot-reclaimed", "host-stopped",  # interrupted (6)
    "max-duration", "hung", "budget",  # timed-out (6)
    "stopped",  # cancelled (130)
    "vanished",  # lost (7)
    "defect",  # failed (70): ours
]  # fmt: skip
Market = Literal["spot", "on-demand", "existing"]

# Installing dependencies is ended after this long.
INSTALL_SECONDS = 3600
# Beside installation and training a host restores its source before, and uploads the last checkpoints after.
_BESIDE_SECONDS = 20 * 60


def is_kept(outcome: Outcome, cause: Cause | None) -> bool:
    """Whether `keep-on-failure` keeps the host of an attempt that ended so: there must be something to look at, and
    nobody who said that it is enough."""
    return outcome == "failed" or (outcome == "timed-out" and cause != "budget")


def _from_json(value: object) -> object:
    if isinstance(value, dict) and set(value) == {"base64"} and isinstance(value["base64"], str):
        return base64.b64decode(value["base64"]).decode("utf-8", "surrogateescape")
    return value


def _to_json(value: str) -> str | dict[str, str]:
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"base64": base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()}
    return value


# An argument or a path as the operating system gave it: undecodable bytes survive as surrogates, in JSON as base64.
OsString = Annotated[str, BeforeValidator(_from_json), PlainSerializer(_to_json)]
# Training code can write its own run's documents: what could not be compared or reckoned with is no document.
Moment = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]
Seconds = Annotated[float, Field(allow_inf_nan=False, ge=-1e10, le=1e10)]
Count = Annotated[int, Field(ge=0, le=2**60)]
# A sentence for people: one that names such a path must not keep the document from being written.
Sentence = Annotated[str, PlainSerializer(lambda value: value.encode("utf-8", "backslashreplace").decode())]


class Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    version: Literal[1] = 1

    def to_json(self) -> bytes:
        return self.model_dump_json().encode()


class TrainingSettings(BaseModel):
    """The part of the settings that the host acts on; nothing secret is in it."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    python: str = ">=3.11"
    install: OsString = "auto"
    checkpoints: tuple[OsString, ...] = ("checkpoints/*",)
    require_checkpoint: bool = False
    resume_args: tuple[OsString, ...] = ()
    metrics: tuple[OsString, ...] = ("metrics.jsonl",)
    env: dict[str, OsString] = {}
    # Where each variable's value is kept (contract/secret_names.py). Never the value.
    secrets: dict[str, str] = {}
    max_duration_seconds: int = 6 * 3600
    hang_timeout_seconds: int = 0
    grace_seconds: int = 60
    keep_on_failure_seconds: int = 0

    @field_validator("secrets")
    @classmethod
    def _names_only(cls, value: dict[str, str]) -> dict[str, str]:
        """A document with a value in a name's place cannot be made. Nothing of it is in the error."""
        for where in value.values():
            secret_names.parse(where)
        return value

    @property
    def lease_seconds(self) -> int:
        """How long a host may live once the run has started on it: its limits, and what source and results take."""
        installing = 0 if self.install == "skip" else INSTALL_SECONDS
        limits = self.max_duration_seconds + self.grace_seconds + self.keep_on_failure_seconds
        return installing + limits + _BESIDE_SECONDS


class Checkpoint(BaseModel):
    """A file, or a directory packed as one tar: `bytes` and `sha256` are of what lies at `key`."""

    model_config = ConfigDict(frozen=True)

    path: OsString
    kind: Literal["file", "directory"] = "file"
    bytes: Count
    sha256: str
    key: str
    modified_at: Moment
    uploaded_at: Moment
    # It changed while the training was being killed: nobody resumes from it.
    suspect: bool = False
    # The training has removed it from the disk since: it stays in the bucket, and is not put back by a resume.
    removed: bool = False


class Resume(Document):
    """What an attempt starts from, written by its launcher: checkpoints to put back, the newest first. `run_id` is
    whose they are. Its sha256 travels in the SSM command."""

    run_id: str
    checkpoints: tuple[Checkpoint, ...]


class Origin(BaseModel):
    """Where on GitHub a run was asked for: what whoever posts its report has to know. `trained` says what the commit is
    to the event, `comment_key` which comment is the run's; `looks_up`: the commit's pull request may be opened yet."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    repository: str
    api_url: str
    server_url: str
    workflow_url: str = ""
    comment_key: str
    comment: Literal["always", "on-failure", "never"] = "always"
    pull_request: int | None = None
    looks_up: bool = False
    head_commit: str | None = None
    trained: Sentence = ""


class Spec(Document):
    """The request: what to train, from which commit, how. Written once; its sha256 travels in the SSM command."""

    run_id: str
    requested_at: Moment
    repository: OsString
    name: OsString
    commit: str
    tree: str
    branch: OsString | None = None
    # Where on GitHub it was asked for; and whether its report is posted there, by whoever settles it and can.
    origin: Origin | None = None
    is_posted: bool = False
    source: Literal["commit", "worktree"] = "commit"
    digest: str
    files: int
    bytes: int
    manifest_bytes: int
    script: OsString
    args: tuple[OsString, ...] = ()
    training: TrainingSettings
    launch: dict[str, Any] = {}
    dirty: tuple[OsString, ...] = ()
    # What another run left, where its first attempt begins (`--resume RUN`).
    resume: Resume | None = None


class Pack(BaseModel):
    model_config = ConfigDict(frozen=True)

    sha256: str
    bytes: int


class Packs(Document):
    """Which packs together hold every content of the manifest. Not trusted: the digest decides."""

    digest: str
    packs: tuple[Pack, ...]
    uploaded_files: int = 0
    uploaded_bytes: int = 0


class Latest(Document):
    """A hint: the content ids that each pack holds. Wrong hints cost time, never correctness."""

    packs: dict[str, tuple[str, ...]]
    pack_bytes: dict[str, int]


class Claim(Document):
    """Who settles the launch of this attempt, until when."""

    owner: str
    until: Moment
    # Attempts up to this one may be opened without anybody asking again.
    last_attempt: int
    # GitHub's number of the workflow's attempt that opened it (GITHUB_RUN_ATTEMPT); 0 outside of a workflow.
    workflow_attempt: int = 0


class Offer(BaseModel):
    """One (market, instance type, zone) with its price in USD/h, None when the price could not be had."""

    model_config = ConfigDict(frozen=True)

    market: Market
    instance_type: str
    zone: str | None = None
    subnet: str | None = None
    usd_per_hour: Decimal | None = None


class OfferTried(Document):
    """Written before RunInstances (parameters, token) and again with what came of it."""

    offer: Offer
    token: str
    parameters: dict[str, Any]
    instance_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    at: Moment


class InstanceRecord(Document):
    """The winner of an attempt: the only instance that is ever told to start."""

    instance_id: str
    instance_type: str
    zone: str
    market: Market
    userid: str
    launched_at: Moment
    deadline: Moment | None = None
    # Prices at the launch, in USD per hour; None where they could not be had.
    usd_per_hour: Decimal | None = None
    on_demand_usd_per_hour: Decimal | None = None
    volume_gib: int = 0
    has_public_ipv4: bool = False


class End(Document):
    """Why an attempt is over, as the launcher's side sees it."""

    outcome: Outcome
    cause: Cause | None = None
    message: Sentence = ""
    at: Moment


class Stop(Document):
    """Somebody asked to stop; it holds for attempts up to `attempt`, so that a run can be opened again later."""

    by: str
    attempt: int
    reason: Sentence = ""
    at: Moment


class Posted(Document):
    """Who posts the final report (that of `attempts` attempts), until when; and, once it is done, where."""

    by: str
    until: Moment
    attempts: int
    where: str | None = None


class PhaseTime(BaseModel):
    model_config = ConfigDict(frozen=True)

    phase: Phase
    started_at: Moment
    seconds: Seconds | None = None


class Status(Document):
    """The host's heartbeat: a new `beat` every few seconds."""

    run_id: str
    attempt: int
    beat: Count
    phase: Phase
    at: Moment
    phases: tuple[PhaseTime, ...] = ()
    log_segments: Count = 0
    checkpoints: Count = 0
    detail: Sentence = ""
    warnings: tuple[Sentence, ...] = ()


class CheckpointList(Document):
    checkpoints: tuple[Checkpoint, ...] = ()


class Result(Document):
    """What happened on the host, once. `exit_code` is the training's own (None: it never started, or was signalled)."""

    run_id: str
    attempt: int
    outcome: Outcome
    cause: Cause | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: Sentence = ""
    digest: str | None = None
    files: Count = 0
    phases: tuple[PhaseTime, ...] = ()
    log_segments: Count = 0
    log_bytes: Count = 0
    checkpoints: tuple[Checkpoint, ...] = ()
    metrics: tuple[dict[str, Any], ...] = ()
    warnings: tuple[Sentence, ...] = ()
    at: Moment


class Budget(Document):
    """Until when, by the host's own clock, the training may go on under `max-cost`."""

    until: Moment


class Order(Document):
    """What the SSM command tells the host process; it trusts this, and from the bucket only what it can verify."""

    run_id: str
    attempt: int
    bucket: str
    region: str
    prefix: str
    userid: str
    digest: str
    spec_sha256: str
    # Of the attempt's Resume in the bucket; None when it starts from the beginning.
    resume_sha256: str | None = None
    power_off: bool = True
    deadline: Moment | None = None
    # Seconds from now after which `max-cost` would be passed; a Budget in the bucket replaces it.
    budget_seconds: Seconds | None = None
