"""The fault matrix: every fault of the emulator, where it can strike, and what becomes of the run. Data only:
test_fault_matrix.py makes it happen, scripts/fault_table.py writes docs/fault-matrix.md from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kept = Literal["all", "uploaded", "before", "none"]
Log = Literal["whole", "begun", "before", "none"]

# Epochs, and seconds between them. Each epoch writes a checkpoint, a row of metrics and a line of the log.
SCRIPTS = {"short": (2, 0.0), "steady": (14, 0.5), "long": (60, 0.5), "cut": (720, 0.5), "endless": (5000, 0.5)}


@dataclass(frozen=True)
class Left:
    """What is there afterwards. Checkpoints and log that are `uploaded`, `begun`: up to seconds before the end; `before`:
    before the host was cut off, after which the training went on for a while."""

    checkpoints: Kept
    log: Log
    has_metrics: bool


ALL = Left("all", "whole", True)
UPLOADED = Left("uploaded", "begun", False)
CUT_OFF = Left("before", "before", False)
NOTHING = Left("none", "none", False)


@dataclass(frozen=True)
class Ending:
    code: int
    outcome: str
    cause: str | None = None


SUCCEEDED = Ending(0, "succeeded")
CLOUD = Ending(4, "failed", "cloud")
# Found out before there is a run: a sentence, a hint, and nothing left behind.
REFUSED = Ending(4, "no run", "cloud")
# The launcher had to leave it: the run goes on.
LEFT = Ending(4, "goes on", "cloud")
# The same before anything was launched: the run waits for a launcher that may.
WAITS = Ending(4, "open", "cloud")
SYNC = Ending(5, "failed", "sync")
INSTALL = Ending(5, "failed", "install")
FAILED = Ending(1, "failed", "exit")
RECLAIMED = Ending(6, "interrupted", "spot-reclaimed")
LOST = Ending(7, "lost", "vanished")
STOPPED = Ending(130, "cancelled", "stopped")


@dataclass(frozen=True)
class Cell:
    """One fault, or several at once, at one phase. `says` is what must be read in the message (of a success: in the
    warnings or on stderr); " … " stands for anything. `since_training`: set once the training has so many checkpoints. `later` is the ending of the same command
    after the faults were taken away. `takes`: how long it takes. `hour` is how many seconds an emulated hour takes. `fifth`: in `make test`."""

    phase: str
    faults: str
    ending: Ending
    left: Left
    says: str = ""
    script: str = "short"
    attempts: int = 1
    flags: tuple[str, ...] = ()
    since_training: int = 0
    stops: bool = False
    later: Ending | None = None
    hour: float = 3600
    fifth: bool = False
    seconds: int = 20
    unreached: str = ""
    ends_by_lease: bool = False
    takes: str = ""

    @property
    def each(self) -> tuple[str, ...]:
        return tuple(self.faults.split())

    @property
    def name(self) -> str:
        marks = ("since-training",) * bool(self.since_training) + ("stop",) * self.stops
        return " ".join((self.phase, *self.each, *self.flags, *marks))


def _preparing() -> list[Cell]:
    asked = {
        "s3:ListBucket": True,
        "s3:GetObject": True,
        "s3:PutObject": True,
        "iam:GetInstanceProfile": True,
        "ec2:DescribeSubnets": False,
        "ec2:DescribeInstanceTypes": False,
        "ec2:DescribeImages": False,
        "ssm:GetParameter": True,
    }
    return [
        Cell("preparing", "expired:who=launcher", REFUSED, NOTHING, "credentials have expired", fifth=True),
        *(
            Cell("preparing", f"denied:action={action}", REFUSED, NOTHING, f"{action} … is not allowed", fifth=fifth)
            for action, fifth in asked.items()
        ),
        Cell("preparing", "denied:action=pricing:GetProducts", SUCCEEDED, ALL, "a price is unknown"),
        Cell("preparing", "denied:action=ec2:DescribeSpotPriceHistory", SUCCEEDED, ALL, "a price is unknown"),
        Cell("preparing", "s3-error", REFUSED, NOTHING, "s3:ListBucket … failed: 500"),
        Cell("preparing", "throttle", REFUSED, NOTHING, "Rate exceeded", seconds=150),
    ]


def _launching() -> list[Cell]:
    none = "every offer was refused"
    codes = {
        "UnfulfillableCapacity": (SUCCEEDED, ALL, "UnfulfillableCapacity"),
        "InsufficientFreeAddressesInSubnet": (SUCCEEDED, ALL, "InsufficientFreeAddressesInSubnet"),
        "InstanceLimitExceeded": (SUCCEEDED, ALL, "InstanceLimitExceeded"),
        "RequestLimitExceeded": (SUCCEEDED, ALL, ""),
        "InternalError": (SUCCEEDED, ALL, ""),
        "UnauthorizedOperation": (CLOUD, NOTHING, "ec2:RunInstances is not allowed"),
        "InvalidParameterValue": (CLOUD, NOTHING, "InvalidParameterValue"),
    }
    return [
        Cell("launching", "no-capacity:market=spot", SUCCEEDED, ALL, "ON-DEMAND instead of spot"),
        Cell("launching", "no-capacity:zone=us-east-1*,times=1", SUCCEEDED, ALL, "was refused"),
        Cell("launching", "no-capacity", CLOUD, NOTHING, f"{none} … InsufficientInstanceCapacity", fifth=True),
        Cell("launching", "unsupported:zone=us-east-1*,times=1", SUCCEEDED, ALL, "was refused: Unsupported"),
        Cell("launching", "unsupported", CLOUD, NOTHING, f"{none} … Unsupported", fifth=True),
        Cell("launching", "quota:market=spot", SUCCEEDED, ALL, "ON-DEMAND … MaxSpotInstanceCountExceeded", fifth=True),
        Cell("launching", "quota", CLOUD, NOTHING, f"{none} … VcpuLimitExceeded"),
        Cell("launching", "max-price:zone=us-east-1*,times=1", SUCCEEDED, ALL, "SpotMaxPriceTooLow"),
        Cell("launching", "max-price", SUCCEEDED, ALL, "ON-DEMAND … SpotMaxPriceTooLow"),
        Cell("launching", "max-price", CLOUD, NOTHING, f"{none} … SpotMaxPriceTooLow", flags=("--spot", "require"), fifth=True),
        *(Cell("launching", f"launch-error:code={code},times=1", *found) for code, found in codes.items()),
        Cell("launching", "launch-error:code=UnfulfillableCapacity", CLOUD, NOTHING, f"{none} … UnfulfillableCapacity"),
        Cell("launching", "launch-error:code=InsufficientFreeAddressesInSubnet", CLOUD, NOTHING, none),
        Cell("launching", "launch-error:code=InstanceLimitExceeded", CLOUD, NOTHING, f"{none} … InstanceLimitExceeded"),
        Cell(
            "launching", "launch-error:code=RequestLimitExceeded", CLOUD, NOTHING, f"{none} … RequestLimitExceeded",
            flags=("--spot", "never", "--subnets", "SUBNET"), seconds=360, takes="5 min",
        ),
        Cell(
            "launching", "launch-error:code=InternalError", CLOUD, NOTHING, f"{none} … InternalError",
            flags=("--spot", "never", "--subnets", "SUBNET"), seconds=360, takes="5 min",
        ),
        Cell("launching", "denied:action=ec2:RunInstances", CLOUD, NOTHING, "ec2:RunInstances is not allowed", fifth=True),
        Cell("launching", "denied:action=ec2:CreateTags", CLOUD, NOTHING, "CreateTags"),
        Cell("launching", "denied:action=iam:PassRole", CLOUD, NOTHING, "iam:PassRole", fifth=True),
        Cell(
            "launching", "denied:action=ec2:DescribeInstances", WAITS, NOTHING, "ec2:DescribeInstances is not allowed",
            later=SUCCEEDED,
        ),
        Cell("launching", "lost-answer:api=RunInstances,times=1", SUCCEEDED, ALL, fifth=True),
        Cell("launching", "lost-answer:api=RunInstances,times=3", SUCCEEDED, ALL),
        *(
            Cell("launching", f"throttle:api={api},times=2", SUCCEEDED, ALL)
            for api in ("GetCallerIdentity", "GetInstanceProfile", "DescribeInstanceTypes", "GetParameter", "DescribeImages",
                        "DescribeSubnets", "GetProducts", "DescribeSpotPriceHistory", "RunInstances", "DescribeInstances")
        ),
    ]  # fmt: skip


def _booting() -> list[Cell]:
    lease = ("--lease", "60s")
    return [
        Cell("booting", "no-user-data", SUCCEEDED, ALL),
        Cell("booting", "never-online", CLOUD, NOTHING, "SSM", flags=lease, hour=600, fifth=True),
        Cell("booting", "never-online no-user-data", CLOUD, NOTHING, "no command came back … SSM", flags=lease, seconds=90),
        Cell("booting", "not-executing", CLOUD, NOTHING, "SSM", flags=lease, hour=600),
        Cell("booting", "not-executing no-user-data", CLOUD, NOTHING, "no command came back … SSM", flags=lease, seconds=110),
        Cell("booting", "not-executing:times=1", SUCCEEDED, ALL, seconds=40),
        Cell("booting", "denied:action=ssm:SendCommand", CLOUD, NOTHING, "ssm:SendCommand is not allowed"),
        Cell("booting", "denied:action=ssm:GetCommandInvocation", CLOUD, NOTHING, "ssm:GetCommandInvocation is not allowed"),
        Cell(
            "booting", "denied:action=ssm:SendCommand denied:action=ec2:TerminateInstances", CLOUD, NOTHING,
            "ec2:TerminateInstances is not allowed … at the latest by its lease … ssm:SendCommand is not allowed",
            flags=lease, hour=600, ends_by_lease=True, fifth=True,
        ),
        Cell("booting", "throttle:api=SendCommand,times=2", SUCCEEDED, ALL),
        Cell("booting", "throttle:api=GetCommandInvocation,times=2", SUCCEEDED, ALL),
        Cell("booting", "lost-answer:api=SendCommand,times=2", SUCCEEDED, ALL),
        Cell("booting", "lost-answer:api=GetCommandInvocation,times=2", SUCCEEDED, ALL),
        Cell("booting", "spot-notice:phase=booting,reclaim=0.02", SUCCEEDED, ALL, "reclaimed", attempts=2),
        Cell("booting", "reclaim:phase=booting", SUCCEEDED, ALL, "reclaimed the spot instance", attempts=2, fifth=True),
        Cell("booting", "die:phase=booting", CLOUD, NOTHING, "ended before the run was started"),
        Cell("booting", "freeze:phase=booting", CLOUD, NOTHING, "no command came back … SSM", flags=lease, seconds=110),
        Cell("booting", "disk-full:phase=booting", CLOUD, NOTHING, "No space left", seconds=60, fifth=True),
        Cell("booting", "network-cut:phase=booting,seconds=4", SUCCEEDED, ALL, seconds=40),
        Cell("booting", "network-cut:phase=booting,seconds=600", CLOUD, NOTHING, "gave no sign of life", flags=lease, seconds=110),
        Cell("booting", "expired:who=host", CLOUD, NOTHING, "gave no sign of life", flags=lease, seconds=110),
        Cell("booting", "expired:who=host,times=3", SUCCEEDED, ALL, seconds=40),
        Cell("booting", "clock-skew", CLOUD, NOTHING, "clock is 60 minutes", fifth=True),
        Cell("booting", "clock-skew:minutes=10", CLOUD, NOTHING, "clock is 10 minutes", fifth=True),
        Cell("booting", "clock-skew:minutes=2", SUCCEEDED, ALL),
        Cell("booting", "s3-error:key=runctl/tools/*,method=GET,times=1", SUCCEEDED, ALL),
        Cell("booting", "s3-error:key=runctl/tools/*,method=GET", CLOUD, NOTHING, "could not be started … 500"),
        Cell("booting", "s3-slow:seconds=2,key=runctl/tools/*", SUCCEEDED, ALL, seconds=40),
    ]  # fmt: skip


# The time that a fault has to strike in: packs that come slowly, an installation that takes a while.
_SLOW_PACKS = "s3-slow:seconds=4,key=runctl/packs/*"
_SLOW_INSTALL = ("--install", "echo installing; sleep 6; echo installed")


def _before_training() -> list[Cell]:
    lease = ("--lease", "60s")
    cells = []
    for phase, beside, flags in (("syncing", f" {_SLOW_PACKS}", ()), ("installing", "", _SLOW_INSTALL)):
        cells += [
            Cell(
                phase, f"spot-notice:phase={phase},reclaim=0.05{beside}", SUCCEEDED, ALL, "reclaim", attempts=2,
                flags=flags, seconds=60,
            ),
            Cell(phase, f"reclaim:phase={phase}{beside}", SUCCEEDED, ALL, "without a notice", attempts=2, flags=flags, seconds=50),
            Cell(phase, f"die:phase={phase}{beside}", LOST, NOTHING, "Client.InstanceInitiatedShutdown", flags=flags, fifth=phase == "installing"),
            Cell(phase, f"freeze:phase={phase}{beside}", STOPPED, NOTHING, "", flags=flags, stops=True, seconds=120),
            Cell(
                phase, f"disk-full:phase={phase}{beside}", SYNC if phase == "syncing" else FAILED, NOTHING, "o space left",
                flags=flags, seconds=60,
            ),
            Cell(phase, f"network-cut:phase={phase},seconds=5{beside}", SUCCEEDED, ALL, flags=flags, seconds=60),
        ]  # fmt: skip
    return [
        *cells,
        Cell("syncing", "s3-error:percent=20", SUCCEEDED, ALL, seconds=40),
        Cell("syncing", "s3-error:key=runctl/packs/*,method=PUT", SYNC, NOTHING, "PutObject … InternalError", seconds=60, flags=lease),
        Cell("syncing", "s3-error:key=runctl/packs/*,method=GET", SYNC, NOTHING, "InternalError", seconds=90),
        Cell("syncing", "s3-error:key=runctl/packs/*,method=GET,times=2", SUCCEEDED, ALL, seconds=40),
        Cell("syncing", "s3-slow:seconds=1,percent=30", SUCCEEDED, ALL, seconds=90),
        Cell("syncing", "throttle:api=GET,percent=20", SUCCEEDED, ALL, seconds=40),
        Cell("syncing", "throttle:api=PUT,percent=20", SUCCEEDED, ALL, seconds=40),
        Cell("syncing", "throttle:api=HEAD,percent=20", SUCCEEDED, ALL, seconds=40),
        Cell("syncing", "lost-answer:api=PUT,times=1", SUCCEEDED, ALL),
        Cell("syncing", "lost-answer:api=PUT,times=4", SUCCEEDED, ALL, seconds=40, fifth=True),
    ]  # fmt: skip


def _training() -> list[Cell]:
    return [
        Cell(
            "training", "spot-notice:phase=training,after=4,reclaim=0.05", SUCCEEDED, ALL, "reclaim", "steady",
            attempts=2, seconds=60, fifth=True,
        ),
        Cell(
            "training", "spot-notice:phase=training,after=3,reclaim=0.05", RECLAIMED, Left("all", "whole", True),
            "reclaiming the spot instance", "long", flags=("--max-attempts", "1"), seconds=40,
        ),
        Cell("training", "reclaim:phase=training,after=7", SUCCEEDED, ALL, "without a notice", "steady", attempts=2, seconds=60),
        Cell(
            "training", "reclaim:phase=training,after=7", RECLAIMED, UPLOADED, "without a notice", "long",
            flags=("--max-attempts", "1"), seconds=40,
        ),
        Cell("training", "die:phase=training,after=7", LOST, UPLOADED, "Client.InstanceInitiatedShutdown", "long", fifth=True),
        Cell("training", "freeze:phase=training,after=7", STOPPED, UPLOADED, "stop", "endless", stops=True, seconds=150),
        Cell("training", "freeze:phase=training,after=7", LOST, UPLOADED, "no heartbeat for", "endless", seconds=1050, takes="15 min"),
        Cell("training", "disk-full:phase=training,after=4", FAILED, Left("uploaded", "begun", True), "o space left", "long", seconds=60),
        Cell("training", "network-cut:phase=training,after=1,seconds=5", SUCCEEDED, ALL, "", "steady", seconds=60, fifth=True),
        Cell("training", "network-cut:phase=training,seconds=300", SUCCEEDED, ALL, "", "cut", seconds=600, takes="6 min"),
        Cell("training", "network-cut:phase=training,after=7,seconds=2000", LOST, CUT_OFF, "no heartbeat for", "endless", seconds=1050, takes="15 min"),
        Cell("training", "expired:who=host,times=8", SUCCEEDED, ALL, "", "steady", since_training=2, seconds=60),
        Cell("training", "expired:who=host", LOST, CUT_OFF, "no heartbeat for", "endless", since_training=16, seconds=1050, takes="15 min"),
        Cell("training", "clock-skew:times=8", SUCCEEDED, ALL, "", "steady", since_training=2, seconds=60),
        Cell("training", "s3-error:percent=40", SUCCEEDED, ALL, "", "steady", since_training=2, seconds=60),
        Cell("training", "s3-error:method=PUT,times=30", SUCCEEDED, ALL, "", "steady", since_training=2, seconds=90),
        Cell("training", "s3-slow:seconds=2,percent=50", SUCCEEDED, ALL, "", "steady", since_training=2, seconds=120),
        Cell("training", "throttle:api=PUT,percent=40", SUCCEEDED, ALL, "", "steady", since_training=2, seconds=60),
        Cell("training", "throttle:api=GET,percent=40", SUCCEEDED, ALL, "", "steady", since_training=2, seconds=60),
        Cell("training", "lost-answer:api=PUT,times=5", SUCCEEDED, ALL, "", "steady", since_training=2, seconds=60),
    ]  # fmt: skip


# Checkpoints that arrive slowly, so that there is something to collect.
_SLOW_CHECKPOINTS = "s3-slow:seconds=3,key=runctl/hosts/*/checkpoints/*"


def _collecting() -> list[Cell]:
    some = Left("uploaded", "begun", False)
    return [
        Cell(
            "collecting", f"spot-notice:phase=collecting {_SLOW_CHECKPOINTS}", SUCCEEDED, ALL, seconds=40,
        ),
        Cell("collecting", f"reclaim:phase=collecting {_SLOW_CHECKPOINTS}", SUCCEEDED, ALL, "without a notice", attempts=2, seconds=60),
        Cell("collecting", f"die:phase=collecting {_SLOW_CHECKPOINTS}", LOST, some, "Client.InstanceInitiatedShutdown", seconds=40, fifth=True),
        Cell("collecting", f"freeze:phase=collecting {_SLOW_CHECKPOINTS}", STOPPED, some, "stop", stops=True, seconds=150),
        Cell("collecting", f"disk-full:phase=collecting {_SLOW_CHECKPOINTS}", SUCCEEDED, ALL, seconds=60),
        Cell("collecting", "network-cut:phase=collecting,seconds=8", SUCCEEDED, ALL, seconds=60),
        Cell("collecting", "s3-error:key=runctl/hosts/*/result.json,method=PUT,times=14", SUCCEEDED, ALL, seconds=60),
        Cell(
            "collecting", "s3-error:key=runctl/hosts/*/checkpoints/*,method=PUT", SUCCEEDED,
            Left("none", "whole", True), "could not be kept", seconds=90,
        ),
        Cell(
            "collecting", "s3-error:key=runctl/hosts/*/checkpoints/*,method=PUT", Ending(1, "failed", "no-checkpoint"),
            Left("none", "whole", True), "checkpoint", flags=("--require-checkpoint",), seconds=90,
        ),
    ]  # fmt: skip


def _following() -> list[Cell]:
    def cell(faults: str, *args: object, **more: object) -> Cell:
        return Cell("following", faults, *args, script="steady", since_training=2, **{"seconds": 60, **more})  # type: ignore[arg-type]

    return [
        cell("expired:who=launcher", LEFT, NOTHING, "credentials have expired", later=SUCCEEDED, fifth=True),
        cell("denied:action=s3:GetObject,times=1", LEFT, NOTHING, "s3:GetObject … is not allowed", later=SUCCEEDED),
        cell("denied:action=s3:ListBucket,times=1", LEFT, NOTHING, "s3:ListBucket … is not allowed", later=SUCCEEDED),
        Cell(
            "following", "denied:action=ec2:DescribeInstances", LEFT, NOTHING, "ec2:DescribeInstances is not allowed", "long",
            since_training=2, later=SUCCEEDED, seconds=90,
        ),
        cell("throttle:api=DescribeInstances,times=12", SUCCEEDED, ALL, seconds=90),
        cell("throttle:api=TerminateInstances,times=2", SUCCEEDED, ALL),
        cell("lost-answer:api=TerminateInstances,times=1", SUCCEEDED, ALL),
        cell("lost-answer:api=DELETE,times=1", SUCCEEDED, ALL),
        cell("lost-answer:api=DescribeInstances,times=3", SUCCEEDED, ALL),
        cell("denied:action=ec2:TerminateInstances", SUCCEEDED, ALL),
        cell("denied:action=s3:DeleteObject", SUCCEEDED, ALL, "s3:DeleteObject", fifth=True),
        cell("s3-error:method=GET,times=30", SUCCEEDED, ALL, seconds=90),
        Cell(
            "following", "throttle:api=DescribeInstances", LEFT, NOTHING, "RequestLimitExceeded", "endless",
            since_training=2, seconds=1100, unreached="15 min of patience, then exit code 4; the run goes on",
        ),
    ]  # fmt: skip


CELLS = (
    *_preparing(),
    *_launching(),
    *_booting(),
    *_before_training(),
    *_training(),
    *_collecting(),
    *_following(),
)
