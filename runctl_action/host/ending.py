"""The end of an attempt: what an exception means, what the training left, the result, the power-off."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

import botocore.exceptions

from runctl_action.contract.documents import Cause, Order, Outcome, Result, TrainingSettings, is_kept
from runctl_action.errors import CloudError, InstallError, RunctlError
from runctl_action.host import lease
from runctl_action.host.bucket import HostBucket
from runctl_action.host.checkpoints import Checkpoints
from runctl_action.host.heartbeat import Heartbeat
from runctl_action.host.metrics import read_metrics
from runctl_action.host.saying import say


def judge_error(error: Exception) -> tuple[Outcome, Cause, str]:
    """(outcome, cause, message) of an attempt that ended with this exception."""
    match error:
        case RunctlError():
            cause: Cause = "sync"
            if isinstance(error, InstallError | CloudError):
                cause = "install" if isinstance(error, InstallError) else "cloud"
            return "failed", cause, f"{error} ({error.hint})" if error.hint else str(error)
        case botocore.exceptions.BotoCoreError() | botocore.exceptions.ClientError():
            return "failed", "sync", f"the host could not read what it is to train: {error}"
        case OSError():
            return "failed", "sync", f"the host could not put its source on its disk: {error}"
    # A defect of ours must end as a result, not as a host that hangs.
    say("".join(traceback.format_exception(error)))
    return "failed", "defect", f"{type(error).__name__}: {error}"


def keep_last(checkpoints: Checkpoints, killed_at: float | None) -> list[str]:
    """Uploads the last checkpoints; what cannot be kept is told."""
    told = []
    try:
        checkpoints.scan(final=True, killed_at=killed_at)
    except Exception as error:  # noqa: BLE001
        told.append(f"the list of checkpoints could not be written: {error}")
    told += [f"the checkpoint {name} could not be kept: {why}" for name, why in list(checkpoints.problems.items())[:5]]
    if len(checkpoints.problems) > 5:
        told.append(f"{len(checkpoints.problems) - 5} more checkpoints could not be kept")
    if checkpoints.left_out:
        told.append(f"only the newest checkpoints are kept: {checkpoints.left_out} are left out")
    return told


def last_metrics(source: Path, globs: tuple[str, ...]) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """(rows, warnings)."""
    try:
        return read_metrics(source, globs)
    except Exception as error:  # noqa: BLE001  - they are the training's files: anything can be wrong with them
        return (), [f"the metrics could not be read: {error}"]


def put_result(bucket: HostBucket, heartbeat: Heartbeat, result: Result) -> None:
    """The one thing that must arrive: tried until the lease ends the host. Never before the last status: a result
    that contradicts it is not believed."""
    while True:
        try:
            heartbeat.ensure_last()
            bucket.put_document(bucket.own.result, result, once=True)
        except Exception as error:  # noqa: BLE001
            say(f"result: {error!r}")
            time.sleep(5)
        else:
            return


def power_off(order: Order, training: TrainingSettings | None, outcome: Outcome, cause: Cause | None) -> None:
    """`training` is None when the attempt ended before its spec was read."""
    if not order.power_off:
        return
    keep = training.keep_on_failure_seconds if training else 0
    if cause == "spot-reclaimed":
        # AWS ends it within two minutes, and does not bill an interrupted first hour; ours is the backstop.
        keep = 300
    elif not is_kept(outcome, cause):
        keep = 0
    lease.power_off(keep)
