"""One attempt on the host, to its result and the power-off, whatever happens."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from runctl_action.contract.documents import (
    INSTALL_SECONDS,
    Cause,
    Checkpoint,
    CheckpointList,
    Order,
    Outcome,
    Packs,
    Phase,
    Result,
    Spec,
)
from runctl_action.errors import InstallError, SyncError
from runctl_action.host import ending, environment, lease, named_secrets, stacks, workspace
from runctl_action.host.bucket import HostBucket
from runctl_action.host.checkpoints import Checkpoints, Watch
from runctl_action.host.heartbeat import Heartbeat
from runctl_action.host.interruption import SpotNotice
from runctl_action.host.journal import Journal
from runctl_action.host.redaction import Redactor
from runctl_action.host.resume import open_resume, restore_checkpoints
from runctl_action.host.saying import say
from runctl_action.host.training import Ended, Limits, Supervised, judge


@dataclass
class HostRun:
    """One attempt. `directory` is its own; everything that it writes on the host is below."""

    order: Order
    bucket: HostBucket
    directory: Path
    environ: dict[str, str]
    supervised: Supervised | None = None
    stopped_by: Literal["", "stopped", "host-stopped"] = ""
    is_out_of_budget: bool = False
    warnings: list[str] = field(default_factory=list)
    redactor: Redactor = field(default_factory=Redactor)

    def run(self) -> None:
        """To the result and the power-off, whatever happens."""
        self.source = self.directory / "source"
        workspace.remove(self.source)
        self.journal = Journal(self._put_log, self.directory / "log")
        self.heartbeat = Heartbeat(self.bucket, self.order, self.stop)
        self.heartbeat.log_segments = lambda: self.journal.segments
        self.heartbeat.warnings = self.warnings
        self.heartbeat.redact = lambda text: self.redactor.text(text)
        self.notice = SpotNotice(self.environ)
        # From systemd, when the instance is shut down: by AWS, or by somebody.
        signal.signal(signal.SIGTERM, lambda *_: self._end("host-stopped"))
        self.checkpoints: Checkpoints | None = None
        self.ended: Ended | None = None
        self.resumed_from: Path | None = None
        self.heartbeat.start()
        try:
            outcome, cause, message = self._attempt()
        except Exception as error:  # noqa: BLE001  - whatever it is, it must end as a result
            outcome, cause, message = ending.judge_error(error)
        if outcome == "failed" and (full := workspace.full_disk(self.directory)):
            message = f"{message}; {full}"
        try:
            self._conclude(outcome, cause, message)
        except Exception as error:  # noqa: BLE001  - the same: at least how it ended, and the power-off
            say(traceback.format_exc())
            self.warnings.append(f"what the training left could not be collected: {type(error).__name__}: {error}")
            self._finish(outcome, cause, message, ())

    def stop(self) -> None:
        """Somebody asked for the end: the training gets SIGTERM and its grace."""
        self._end("stopped")

    def _end(self, because: Literal["stopped", "host-stopped"]) -> None:
        self.stopped_by = self.stopped_by or because
        if self.supervised:
            self.supervised.end(because)

    def _attempt(self) -> tuple[Outcome, Cause | None, str]:
        spec = self._fetch_spec()
        self._arm_lease(spec)
        self._restore(spec)
        self._resume(spec)
        env = self._install(spec)
        if self.stopped_by == "host-stopped":
            return "interrupted", "host-stopped", "the instance was shut down before the training began"
        if self.stopped_by:
            return "cancelled", "stopped", "stopped before the training began"
        if self.is_out_of_budget or self.heartbeat.budget_left() <= 0:
            return "timed-out", "budget", "the run reached max-cost before the training began"
        ended = self._train(spec, env, self._fetch_secrets(spec))
        self._collect()
        outcome, cause, message = judge(ended)
        # Of a resumed one an earlier attempt may have written it: its launcher knows.
        is_required = spec.training.require_checkpoint and self.order.resume_sha256 is None
        kept = self.checkpoints.found.values() if self.checkpoints else ()
        if outcome == "succeeded" and is_required and all(checkpoint.suspect for checkpoint in kept):
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
        """The run's own limit in the place of the boot timer."""
        if self.order.power_off and not lease.hold(spec.training.lease_seconds):
            self._warn("syncing", "the host could not arm the run's own limit: it powers off by its boot timer")

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
        self._say("syncing", f"{self.files} files, {manifest.total_bytes} bytes, verified: {manifest.digest}")

    def _resume(self, spec: Spec) -> None:
        if self.order.resume_sha256 is None:
            return
        stored = self.bucket.get(self.bucket.run.resume(self.order.attempt))
        resume = open_resume(stored, self.order.resume_sha256)
        self.heartbeat.detail = f"{len(resume.checkpoints)} checkpoints of {resume.run_id}"
        restored = restore_checkpoints(resume, self.bucket.download, self.source, spec.training.checkpoints)
        for warning in restored.warnings:
            self._warn("syncing", warning)
        self.resumed_from = restored.first
        self._say("syncing", f"{restored.count} checkpoints, {restored.bytes} bytes, put back from {resume.run_id}")

    def _install(self, spec: Spec) -> dict[str, str]:
        where = self.directory / "environment"
        plan = environment.plan(spec.training, self.source, spec.script, where)
        self.heartbeat.enter("installing", plan.what)
        self._say("installing", f"installing {plan.what}")
        self.python = plan.python
        if spec.training.install == "skip":
            return dict(self.environ) | {"PYTHONUNBUFFERED": "1"}
        env = environment.variables(self.environ, where)
        for command in plan.commands:
            self.supervised = Supervised(
                self.journal,
                "installing",
                Limits(max_seconds=INSTALL_SECONDS, grace_seconds=5, budget_left=self.heartbeat.budget_left),
            )
            if self.stopped_by:
                break
            ended = self.supervised.run(command, cwd=self.source, env=env)
            if ended.because == "budget":
                self.is_out_of_budget = True
                break
            if ended.because not in {"stopped", "host-stopped"} and ended.exit_code != 0:
                how = f"exit code {ended.exit_code}" if ended.exit_code is not None else f"signal {ended.signal}"
                raise InstallError(f"installing {plan.what} failed: {how}", "its output is in the log")
        self.supervised = None
        stacks.prepare(where)
        return env

    def _fetch_secrets(self, spec: Spec) -> dict[str, str]:
        """For the training alone: an installation runs the code of every dependency, which nobody here has read."""
        wanted = spec.training.secrets
        if not wanted:
            return {}
        values = named_secrets.fetch(wanted, self.order.region)
        # From now on they are in nothing that is uploaded as text.
        self.redactor = Redactor(tuple(values.values()))
        self.journal.use_secrets(self.redactor)
        self._say("installing", f"secrets: {', '.join(f'{name} ({where})' for name, where in wanted.items())}")
        return values

    def _train(self, spec: Spec, env: dict[str, str], secrets: dict[str, str]) -> Ended:
        training = spec.training
        folder = workspace.checkpoint_folder(self.source, training.checkpoints)
        with contextlib.suppress(OSError):  # a file is in its place: the training will see
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
        if self.resumed_from is not None:
            found = str(self.resumed_from)
            own["RUNCTL_RESUME_FROM"] = found
            args = [argument.replace("{checkpoint}", found) for argument in training.resume_args] + args
        kept = self.checkpoints = Checkpoints(
            self.source, training.checkpoints, self._put_checkpoint, self._list_checkpoints
        )
        self.heartbeat.checkpoints = lambda: len(kept.found)
        self.heartbeat.enter("training", spec.script)
        limits = Limits(
            max_seconds=training.max_duration_seconds,
            hang_seconds=training.hang_timeout_seconds,
            grace_seconds=training.grace_seconds,
            budget_left=self.heartbeat.budget_left,
            progressed_at=lambda: kept.changed_at,
        )
        supervised = self.supervised = Supervised(
            self.journal, "training", limits, on_hang=lambda: stacks.dump(self.journal, self.environ)
        )
        if self.stopped_by:
            supervised.end(self.stopped_by)
        self.notice.watch(lambda: supervised.end("spot-reclaimed"))
        with Watch(kept):
            self.ended = supervised.run(
                [self.python, str(self.source / spec.script), *args],
                cwd=self.source,
                env=env | own | training.env | secrets,
                is_training=True,
            )
        return self.ended

    def _collect(self) -> None:
        """The last checkpoints: what cannot be kept is said in the result."""
        self.heartbeat.enter("collecting")
        self.notice.stop()
        if self.checkpoints is not None:
            self.warnings += ending.keep_last(self.checkpoints, self.ended.killed_at if self.ended else None)

    def _conclude(self, outcome: Outcome, cause: Cause | None, message: str) -> None:
        """Last checkpoints, last log; then the end."""
        if self.ended is None:
            self._collect()
        metrics, bad = ending.last_metrics(self.source, self.spec.training.metrics if hasattr(self, "spec") else ())
        self.warnings += bad
        self.journal.close()
        self._finish(outcome, cause, message, metrics)

    def _finish(self, outcome: Outcome, cause: Cause | None, message: str, metrics: tuple[dict[str, Any], ...]) -> None:
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
            message=self.redactor.text(message),
            digest=self.order.digest if hasattr(self, "files") else None,
            files=getattr(self, "files", 0),
            phases=phases,
            log_segments=self.journal.segments,
            log_bytes=self.journal.bytes,
            checkpoints=tuple(self.checkpoints.found.values()) if self.checkpoints else (),
            metrics=self.redactor.value(metrics),
            warnings=tuple(map(self.redactor.text, dict.fromkeys([*self.warnings, *self.journal.warnings]))),
            at=datetime.now(UTC),
        )
        ending.put_result(self.bucket, self.heartbeat, result)
        ending.power_off(self.order, self.spec.training if hasattr(self, "spec") else None, outcome, cause)

    def _put_log(self, index: int, phase: str, data: bytes) -> None:
        self.bucket.put(self.bucket.own.log(index, phase), data)

    def _put_checkpoint(self, path: Path, sha256: str, name: str) -> str:
        if self.redactor.holds(name):  # it would be in a key, in documents and in the report
            raise ValueError("there is a secret in its name")
        key = self.bucket.own.checkpoint(sha256, name)
        self.bucket.put_file(key, path)
        return key

    def _list_checkpoints(self, kept: tuple[Checkpoint, ...]) -> None:
        self.bucket.put_document(self.bucket.own.checkpoints, CheckpointList(checkpoints=kept))

    def _say(self, phase: Phase, text: str) -> None:
        self.journal.write(phase, self.redactor.data(f"[runctl] {text}\n".encode("utf-8", "surrogateescape")))

    def _warn(self, phase: Phase, text: str) -> None:
        self.warnings.append(text)
        self._say(phase, f"warning: {text}")
