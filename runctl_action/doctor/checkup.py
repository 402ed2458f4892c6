"""A check-up: one check after the other, each only while what it stands on is sound. So one cause is named once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runctl_action.contract.reports import Checkup, Finding
from runctl_action.errors import PermissionDenied, RunctlError

if TYPE_CHECKING:
    from runctl_action.cloud.inspection import Inspection
    from runctl_action.cloud.instances import HostRole, Image, Instances, InstanceType, Subnet
    from runctl_action.cloud.session import Session
    from runctl_action.cloud.store import Store
    from runctl_action.contract.layout import Layout
    from runctl_action.settings import Settings
    from runctl_action.source.repository import Repository


@dataclass
class Facts:
    """What the checks are given, and what each leaves to the later ones; those come only when it was left.
    `load` gives the settings and the environment that they hold in."""

    cwd: Path
    environ: Mapping[str, str]
    revision: str
    load: Callable[[], tuple[Settings, Mapping[str, str]]]
    cache: Path
    repository: Repository = field(init=False)
    settings: Settings = field(init=False)
    layout: Layout = field(init=False)
    session: Session = field(init=False)
    instances: Instances = field(init=False)
    store: Store = field(init=False)
    inspection: Inspection = field(init=False)
    region_error: RunctlError | None = None
    role: HostRole = field(init=False)
    subnets: tuple[Subnet, ...] = ()
    types: tuple[InstanceType, ...] = ()
    images: dict[str, Image] = field(default_factory=dict)

    def close(self) -> None:
        if hasattr(self, "session"):
            self.session.close()


# Of an error that says all there is to say.
_ANYWAY = "mend what it says, then look again: runctl-action doctor"


class NotNeeded(Exception):
    """There is nothing to look at under these settings."""


class Unseen(Exception):
    """We may not look, or cannot know."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.fix = fix


@dataclass(frozen=True)
class Check:
    """`look` gives what was seen; it raises what is wrong (RunctlError), NotNeeded or Unseen. `needs` are the checks
    that it stands on. `reads_only`: its lookups are the doctor's own, and a run does without their permission."""

    name: str
    look: Callable[[Facts], str]
    needs: tuple[str, ...] = ()
    reads_only: bool = False


def examine(checks: Sequence[Check], facts: Facts, tell: Callable[[Finding], None]) -> Checkup:
    """Makes the checks in their order; `tell` gets each finding when it is there."""
    findings: list[Finding] = []
    exit_code = 0
    reasons: dict[str, str] = {}
    for check in checks:
        reason = next((reasons[name] for name in check.needs if name in reasons), "")
        finding, error = (
            (Finding(name=check.name, status="skipped", seen=reason), None) if reason else _look(check, facts)
        )
        if finding.status == "failed":
            reasons[check.name] = f"not looked at: {check.name} is to be mended first"
        elif finding.status == "skipped":
            reasons[check.name] = finding.seen
        if error is not None and not exit_code:
            exit_code = error.exit_code
        findings.append(finding)
        tell(finding)
    return Checkup(exit_code=exit_code, checks=tuple(findings))


def _look(check: Check, facts: Facts) -> tuple[Finding, RunctlError | None]:
    try:
        return Finding(name=check.name, status="passed", seen=check.look(facts)), None
    except NotNeeded as why:
        return Finding(name=check.name, status="skipped", seen=str(why)), None
    except Unseen as unseen:
        return Finding(name=check.name, status="unseen", seen=str(unseen), fix=unseen.fix), None
    except PermissionDenied as error:
        status = "unseen" if check.reads_only else "failed"
        finding = Finding(name=check.name, status=status, seen=_brief(error), fix=error.hint)
        return finding, None if check.reads_only else error
    except RunctlError as error:
        return Finding(name=check.name, status="failed", seen=_brief(error), fix=error.hint or _ANYWAY), error


def _brief(error: RunctlError) -> str:
    """Without the kilobyte into which EC2 encodes why it refused."""
    return str(error).partition(" Encoded authorization failure message")[0]
