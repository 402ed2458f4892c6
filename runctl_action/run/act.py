"""Doing the one next thing. Every action is idempotent: done twice, or by two settlers at once, it is done once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from runctl_action.cloud.commands import Commands
from runctl_action.cloud.instances import Instances
from runctl_action.cloud.store import Store
from runctl_action.contract.documents import Budget, Claim, End, Order, Packs, Posted, Stop
from runctl_action.contract.layout import Layout
from runctl_action.contract.reports import Report
from runctl_action.errors import RunctlError
from runctl_action.run import actions, tools
from runctl_action.run.launch import Launches
from runctl_action.run.observe import Attempt, Knowledge, Observation
from runctl_action.run.pricing import Pricing
from runctl_action.run.summary import summarize

# Who launches says so for this long; a launcher that died is taken over afterwards.
_CLAIM = timedelta(minutes=1)
# Who posts the report says so for this long.
_POSTING = timedelta(minutes=2)
_URL_SECONDS = 900
_FAR_SECONDS = 30 * 86400.0


@dataclass
class Actor:
    """Carries out actions for one run. `upload_source` is None where the source is not at hand (`collect`); `post` puts
    the final report where people read it, and says where that is; None when somebody else may have more luck."""

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
    post: Callable[[Report], str | None] | None = None
    workflow_attempt: int = 0

    def __post_init__(self) -> None:
        self._launches = Launches(
            store=self.store,
            instances=self.instances,
            layout=self.layout,
            run_id=self.run_id,
            knowledge=self.knowledge,
            pricing=self.pricing,
            claim=self._take_over,
            end=self._end,
            warn=self.warn,
            now=self.now,
            monotonic=self.monotonic,
            sleep=self.sleep,
        )

    def act(self, action: actions.Action, seen: Observation) -> None:
        """Does `action`; a condition that no longer holds (somebody else was first) is not an error."""
        match action:
            case actions.Wait(seconds=seconds):
                self.sleep(seconds)
            case actions.OpenAttempt(number=number, last_attempt=last_attempt):
                self._open(number, last_attempt)
            case actions.TakeOver(attempt=number):
                self._take_over(seen.attempts[number - 1])
            case actions.Upload():
                self._upload()
            case actions.Launch(attempt=number):
                self._launches.launch(seen, seen.attempts[number - 1])
            case actions.Adopt(attempt=number, instance_id=instance_id):
                self._launches.adopt(seen, number, instance_id)
            case actions.Terminate(instance_ids=ids, why=why):
                self._terminate(seen, ids, why)
            case actions.Probe(instance_id=instance_id):
                self._probe(instance_id)
            case actions.Start():
                self._start(seen, action)
            case actions.Afford(attempt=number):
                self._afford(seen, seen.attempts[number - 1])
            case actions.EndAttempt():
                self._end(seen, action)
            case actions.Finish():
                self._finish(seen)
            case actions.Post():
                self._post(seen)
            case actions.Close():
                self._close(seen)
            case actions.Done():
                return

    def _open(self, number: int, last_attempt: int) -> None:
        claim = Claim(
            owner=self.knowledge.me,
            until=self.now() + _CLAIM,
            last_attempt=last_attempt,
            workflow_attempt=self.workflow_attempt,
        )
        marker = self.layout.open_marker(self.run_id)
        self.store.put(marker, b"")
        keys = self.layout.run(self.run_id)
        self.store.put(keys.claim(number), claim.to_json(), if_none_match=True)
        self.store.put(marker, b"")  # see `_close`
        stored = self.store.get(keys.stop)
        stop = Stop.model_validate_json(stored.data) if stored else None
        if stop is not None and stop.attempt == number - 1:
            # Asked for while this attempt was opened; who asked looks for its claim likewise.
            self.store.put(keys.stop, stop.model_copy(update={"attempt": number}).to_json())

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

    def _start(self, seen: Observation, action: actions.Start) -> None:
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
            resume_sha256=self._write_resume(action),
            power_off=record.market != "existing",
            deadline=record.deadline,
            budget_seconds=self.pricing.seconds_left(seen, attempt),
        )
        if order.budget_seconds is not None and order.budget_seconds <= 0:
            message = "max-cost leaves no time to train: it went into earlier attempts, or into launching"
            self._end(seen, actions.EndAttempt(action.attempt, "timed-out", "budget", message))
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
            failures = self.knowledge.start_failures
            failures[action.attempt] = failures.get(action.attempt, 0) + 1
            said = (result.stderr.strip() or result.status) if result else "the command did not end in 180 s"
            self.knowledge.start_error = said[-1500:]
            return
        # A repeated start brings the end of the host's own log: what keeps its heartbeat from coming.
        self.knowledge.start_error = result.stdout.strip()[-500:]
        self.knowledge.started_at[action.instance_id] = self.monotonic()

    def _write_resume(self, action: actions.Start) -> str | None:
        """What the attempt starts from is written once, so that whoever repeats the start says the same; its sha256."""
        if action.resume is None:
            return None
        key = self.layout.run(self.run_id).resume(action.attempt)
        self.store.put(key, action.resume.to_json(), if_none_match=True)
        stored = self.store.get(key)
        assert stored is not None
        return hashlib.sha256(stored.data).hexdigest()

    def _afford(self, seen: Observation, attempt: Attempt) -> None:
        """Tells the host how long it may go on, in its own time: at real prices that is longer than at the ceiling."""
        self.knowledge.afforded_at = self.monotonic()
        left = self.pricing.seconds_left(seen, attempt)
        if left is not None and attempt.status is not None:
            # Training code could say any time; a budget that is far off is worked out again in a minute.
            at = min(attempt.status.at, self.now() + timedelta(days=1))
            budget = Budget(until=at + timedelta(seconds=min(left, _FAR_SECONDS)))
            self.store.put(self.layout.run(self.run_id).budget(attempt.number), budget.to_json())

    def _end(self, seen: Observation, action: actions.EndAttempt) -> None:
        keys = self.layout.run(self.run_id)
        if action.cause == "sync" and self.store.size(keys.end(action.attempt)) is None:
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
        key = self.layout.run(self.run_id).report
        stored = self.store.get(key)
        if stored is not None and Report.model_validate_json(stored.data).attempts > report.attempts:
            return  # somebody has opened another attempt meanwhile, and it is over too
        self.store.put(key, report.to_json(), if_none_match=stored is None, if_match=stored.etag if stored else None)

    def _post(self, seen: Observation) -> None:
        """Claimed first, so that two settlers post once; one that died while it posted is taken over."""
        assert self.post is not None
        assert seen.report is not None
        key = self.layout.run(self.run_id).posted
        stored = self.store.get(key)
        if stored is not None and Posted.model_validate_json(stored.data) != seen.posted:
            return
        posted = Posted(by=self.knowledge.me, until=self.now() + _POSTING, attempts=len(seen.attempts))
        claimed = self.store.put(
            key, posted.to_json(), if_none_match=stored is None, if_match=stored.etag if stored else None
        )
        if claimed is None:
            return
        where = self.post(seen.report)
        if where is None:
            self.knowledge.can_post = False
            return
        self.store.put(key, posted.model_copy(update={"where": where}).to_json(), if_match=claimed)

    def _close(self, seen: Observation) -> None:
        """Whoever opens an attempt meanwhile puts the marker there before its claim and after it: either that is after
        our deletion, or we see the claim."""
        marker = self.layout.open_marker(self.run_id)
        self.store.delete(marker)
        if self.store.size(self.layout.run(self.run_id).claim(len(seen.attempts) + 1)) is not None:
            self.store.put(marker, b"")
