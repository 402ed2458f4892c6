"""The host process: one attempt of one run, from the order to the result, then power-off.

python host.pyz ORDER.json
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from runctl_action.contract.documents import Cause, CheckpointList, Order, Outcome, Packs, Result, Spec
from runctl_action.contract.layout import DEFAULT_HOST_DIRECTORY, HOST_DIRECTORY_VARIABLE
from runctl_action.errors import InstallError, RunctlError, SyncError
from runctl_action.host import environment, processes, workspace
from runctl_action.host.bucket import HostBucket
from runctl_action.host.checkpoints import Checkpoints, restore_checkpoint
from runctl_action.host.heartbeat import Heartbeat
from runctl_action.host.interruption import SpotNotice
from runctl_action.host.journal import Journal
from runctl_action.host.metrics import read_metrics
from runctl_action.host.training import Ended, Limits, Supervised, judge

_SCAN_SECONDS = 1.0
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


@dataclass
class HostRun:
    """One attempt. `directory` is its own; everything that it writes on the host is below."""

    order: Order
    bucket: HostBucket
    directory: Path
    environ: dict[str, str]
    supervised: Supervised | None = None
    is_stopped: bool = False
    is_out_of_budget: bool = False
    warnings: list[str] = field(default_factory=list)

    def run(self) -> None:
        """To the result and the power-off, whatever happens."""
        self.source = self.directory / "source"
        workspace.remove(self.source)
        self.journal = Journal(self._put_log, self.directory / "log")
        self.heartbeat = Heartbeat(self.bucket, self.order, self.stop)
        self.heartbeat.log_segments = lambda: self.journal.segments
        self.heartbeat.warnings = self.warnings
        self.notice = SpotNotice(self.environ)
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        self.checkpoints: Checkpoints | None = None
        self.ended: Ended | None = None
        self.heartbeat.start()
        try:
            outcome, cause, message = self._attempt()
        except RunctlError as error:
            outcome, cause = "failed", "install" if isinstance(error, InstallError) else "sync"
            message = f"{error} ({error.hint})" if error.hint else str(error)
        except Exception as error:  # noqa: BLE001  - a defect of ours must end as a result, not as a host that hangs
            traceback.print_exc()
            outcome, cause, message = "failed", "defect", f"{type(error).__name__}: {error}"
        self._conclude(outcome, cause, message)

    def stop(self) -> None:
        """Somebody asked for the end: the training gets SIGTERM and its grace."""
        self.is_stopped = True
        if self.supervised:
            self.supervised.end("stopped")

    def _attempt(self) -> tuple[Outcome, Cause | None, str]:
        spec = self._fetch_spec()
        self._arm_lease(spec)
        self._restore(spec)
        env = self._install(spec)
        if self.is_stopped:
            return "cancelled", "stopped", "stopped before the training began"
        if self.is_out_of_budget or self.heartbeat.budget_left() <= 0:
            return "timed-out", "budget", "the run reached max-cost before the training began"
        ended = self._train(spec, env)
        outcome, cause, message = judge(ended)
        if outcome == "succeeded" and spec.training.require_checkpoint and not self._has_good_checkpoint():
            return "failed", "no-checkpoint", "the training exited with 0 but wrote no checkpoint"
        return outcome, cause, message

    def _fetch_spec(self) -> Spec:
        data = self.bucket.get(self.bucket.run.spec)
        found = hashlib.sha256(data or b"").hexdigest()
        if data is None or found != self.order.spec_sha256:
            raise SyncError(f"the spec in the bucket is not the one that was ordered: {found[:16]}")
        self.spec = Spec.model_validate_json(data)
        return self.spec

    def _arm_lease(self, spec: Spec) -> None:
        """The run's own limit, armed before the boot timer is cancelled: at no instant is there none."""
        if not self.order.power_off:
            return
        training = spec.training
        limit = training.max_duration_seconds + training.grace_seconds + training.keep_on_failure_seconds
        minutes = max(1, round(limit / 60)) + 20
        subprocess.run(["shutdown", "-h", f"+{minutes}"], check=False, capture_output=True)
        with contextlib.suppress(FileNotFoundError):
            timers = ["runctl-lease.timer", "runctl-lease-forced.timer"]
            subprocess.run(["systemctl", "stop", *timers], check=False, capture_output=True)

    def _restore(self, spec: Spec) -> None:
        stored = self.bucket.get(self.bucket.run.packs)
        compressed = self.bucket.get(self.bucket.layout.manifest(self.order.digest))
        if stored is None or compressed is None:
            raise SyncError("the source is not in the bucket", "run it again: it uploads what is missing")
        manifest = workspace.open_manifest(compressed, self.order.digest, spec.manifest_bytes)
        packs = Packs.model_validate_json(stored).packs
        self.heartbeat.enter("syncing", f"{len(manifest.entries)} files, {manifest.total_bytes} bytes")
        workspace.restore(
            manifest, packs, lambda pack: self.bucket.open(self.bucket.layout.pack(pack.sha256)), self.source
        )
        self.files = len(manifest.entries)
        self.journal.write(
            "syncing",
            f"[runctl] {self.files} files, {manifest.total_bytes} bytes, verified: {manifest.digest}\n".encode(),
        )

    def _install(self, spec: Spec) -> dict[str, str]:
        where = self.directory / "environment"
        plan = environment.plan(spec.training, self.source, spec.script, where)
        self.heartbeat.enter("installing", plan.what)
        self.journal.write("installing", f"[runctl] installing {plan.what}\n".encode())
        self.python = plan.python
        if spec.training.install == "skip":
            return dict(self.environ) | {"PYTHONUNBUFFERED": "1"}
        env = environment.variables(self.environ, where)
        for command in plan.commands:
            self.supervised = Supervised(
                self.journal,
                "installing",
                Limits(max_seconds=3600, grace_seconds=5, budget_left=self.heartbeat.budget_left),
            )
            if self.is_stopped:
                break
            ended = self.supervised.run(command, cwd=self.source, env=env)
            if ended.because == "budget":
                self.is_out_of_budget = True
                break
            if ended.because != "stopped" and ended.exit_code != 0:
                how = f"exit code {ended.exit_code}" if ended.exit_code is not None else f"signal {ended.signal}"
                raise InstallError(f"installing {plan.what} failed: {how}", "its output is in the log")
        self.supervised = None
        return env

    def _train(self, spec: Spec, env: dict[str, str]) -> Ended:
        training = spec.training
        folder = self.source / training.checkpoints[0].rpartition("/")[0] if training.checkpoints else self.source
        folder.mkdir(parents=True, exist_ok=True)
        args = list(spec.args)
        own = {
            "RUNCTL_RUN_ID": self.order.run_id,
            "RUNCTL_ATTEMPT": str(self.order.attempt),
            "RUNCTL_CHECKPOINT_DIR": str(folder),
            "AWS_REGION": self.order.region,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.source), env.get("PYTHONPATH", "")])),
            "HOME": env.get("HOME", str(self.directory)),
        }
        if self.order.resume_from is not None:
            found = restore_checkpoint(
                lambda path: self.bucket.download(self.order.resume_from.key, path),  # type: ignore[union-attr]
                self.order.resume_from,
                self.source,
            )
            own["RUNCTL_RESUME_FROM"] = str(found)
            args = [argument.replace("{checkpoint}", str(found)) for argument in training.resume_args] + args
        self.checkpoints = Checkpoints(self.source, training.checkpoints, self._put_checkpoint)
        self.heartbeat.checkpoints = lambda: len(self.checkpoints.found) if self.checkpoints else 0
        self.heartbeat.enter("training", spec.script)
        limits = Limits(
            max_seconds=training.max_duration_seconds,
            hang_seconds=training.hang_timeout_seconds,
            grace_seconds=training.grace_seconds,
            budget_left=self.heartbeat.budget_left,
            progressed_at=lambda: self.checkpoints.changed_at if self.checkpoints else 0.0,
        )
        supervised = self.supervised = Supervised(self.journal, "training", limits)
        if self.is_stopped:
            supervised.end("stopped")
        self.notice.watch(lambda: supervised.end("spot-reclaimed"))
        self.ended = supervised.run(
            [self.python, str(self.source / spec.script), *args],
            cwd=self.source,
            env=env | own | training.env,
            on_tick=self._scan,
            is_training=True,
        )
        return self.ended

    _scanned_at = 0.0

    def _scan(self) -> None:
        """Uploads complete checkpoints while the training runs; what fails is tried again at the next look."""
        if self.checkpoints is None or time.monotonic() - self._scanned_at < _SCAN_SECONDS:
            return
        self._scanned_at = time.monotonic()
        try:
            if self.checkpoints.scan():
                self._list_checkpoints()
        except Exception as error:  # noqa: BLE001  - S3 may be away; the training must not end for it
            print(f"checkpoints: {error!r}", file=sys.stderr)

    def _conclude(self, outcome: Outcome, cause: Cause | None, message: str) -> None:
        """Last checkpoints, last log, the result, power-off."""
        self.heartbeat.enter("collecting")
        self.notice.stop()
        if self.checkpoints:
            try:
                self.checkpoints.scan(final=True, killed_at=self.ended.killed_at if self.ended else None)
                self._list_checkpoints()
            except Exception as error:  # noqa: BLE001
                self.warnings.append(f"the last checkpoint could not be uploaded: {error}")
        metrics, bad = read_metrics(self.source, self.spec.training.metrics if hasattr(self, "spec") else ())
        self.warnings += bad
        self.journal.close()
        phases = self.heartbeat.phases()
        self.heartbeat.enter("done")
        self.heartbeat.close()
        result = Result(
            run_id=self.order.run_id,
            attempt=self.order.attempt,
            outcome=outcome,
            cause=cause,
            exit_code=self.ended.exit_code if self.ended else None,
            signal=self.ended.signal if self.ended else None,
            message=message,
            digest=self.order.digest if hasattr(self, "files") else None,
            files=getattr(self, "files", 0),
            phases=phases,
            log_segments=self.journal.segments,
            log_bytes=self.journal.bytes,
            checkpoints=tuple(self.checkpoints.found.values()) if self.checkpoints else (),
            metrics=metrics,
            warnings=tuple(dict.fromkeys([*self.warnings, *self.journal.warnings])),
            at=datetime.now(UTC),
        )
        self._put_result(result)
        self._power_off(cause)

    def _put_result(self, result: Result) -> None:
        """The one thing that must arrive: tried until the lease ends the host."""
        while True:
            try:
                self.bucket.put_document(self.bucket.own.result, result, once=True)
            except Exception as error:  # noqa: BLE001
                print(f"result: {error!r}", file=sys.stderr)
                time.sleep(5)
            else:
                return

    def _power_off(self, cause: Cause | None) -> None:
        if not self.order.power_off:
            return
        keep = self.spec.training.keep_on_failure_seconds if hasattr(self, "spec") else 0
        if cause == "spot-reclaimed":
            # AWS ends it within two minutes, and does not bill an interrupted first hour; ours is the backstop.
            when = "+5"
        elif cause is not None and keep:
            when = f"+{max(1, round(keep / 60))}"
        else:
            when = "now"
        subprocess.run(["shutdown", "-h", when], check=False, capture_output=True)

    def _has_good_checkpoint(self) -> bool:
        if self.checkpoints is None:
            return False
        self.checkpoints.scan(final=True)
        return any(not c.suspect for c in self.checkpoints.found.values())

    def _put_log(self, index: int, phase: str, data: bytes) -> None:
        self.bucket.put(self.bucket.own.log(index, phase), data)

    def _put_checkpoint(self, path: Path, sha256: str, name: str) -> str:
        key = self.bucket.own.checkpoint(sha256, name)
        self.bucket.put_file(key, path)
        return key

    def _list_checkpoints(self) -> None:
        assert self.checkpoints is not None
        kept = CheckpointList(checkpoints=tuple(self.checkpoints.found.values()))
        self.bucket.put_document(self.bucket.own.checkpoints, kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
