"""The host process: one attempt of one run, from the order to the result, then power-off.

python host.pyz ORDER.json
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from runctl_action.contract.documents import Order, Result
from runctl_action.contract.layout import DEFAULT_HOST_DIRECTORY, HOST_DIRECTORY_VARIABLE
from runctl_action.host import processes
from runctl_action.host.attempt import HostRun
from runctl_action.host.bucket import HostBucket

_BUSY = 75  # EX_TEMPFAIL: another run has the host


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Runs the order in the file argv[0]; 0 when a result was written, 75 when another run has the host."""
    order = _read_order(Path(argv[0]))
    directory = Path(environ.get(HOST_DIRECTORY_VARIABLE) or DEFAULT_HOST_DIRECTORY)
    bucket = HostBucket(order)
    with _only_run(directory, order) as busy_with:
        if busy_with:
            now = datetime.now(UTC)
            message = f"the host is busy with {busy_with}"
            bucket.put_document(
                bucket.own.result,
                Result(
                    run_id=order.run_id, attempt=order.attempt, outcome="failed", cause="cloud", message=message, at=now
                ),
                once=True,
            )
            return _BUSY
        processes.own_descendants()
        HostRun(order, bucket, directory / "runs" / order.run_id / str(order.attempt), dict(environ)).run()
    return 0


def _read_order(path: Path) -> Order:
    """The order; what has passed since it came (fetching Python and packages) is taken off its budget."""
    order = Order.model_validate_json(path.read_bytes())
    if order.budget_seconds is None:
        return order
    passed = max(0.0, time.time() - path.stat().st_mtime)
    return order.model_copy(update={"budget_seconds": order.budget_seconds - passed})


@contextlib.contextmanager
def _only_run(directory: Path, order: Order) -> Iterator[str]:
    """The host's lock: "" when it is ours, else what holds it. The kernel frees it when the process ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            yield lock.read().strip() or "another run"
            return
        lock.truncate(0)
        lock.write(f"{order.run_id} since {datetime.now(UTC).isoformat(timespec='seconds')}\n")
        lock.flush()
        yield ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
