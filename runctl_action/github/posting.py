"""A run's reports, put where the run was asked for: one comment that follows it, and its last word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runctl_action.contract.documents import Origin
from runctl_action.contract.reports import Report
from runctl_action.errors import RunctlError
from runctl_action.github import marker
from runctl_action.github.payload import Workflow
from runctl_action.report import markdown
from runctl_action.run.observe import Observation
from runctl_action.run.summary import phase_of

if TYPE_CHECKING:
    from runctl_action.github.connection import Connection
    from runctl_action.github.sticky import Posting, Sticky

# A last word that GitHub does not take in this time is left to whoever collects.
_PATIENCE_SECONDS = 60.0
# How often a comment is written anew while nothing but time and cost change.
_REFRESH_SECONDS = 300.0


def comment_key(workflow: Workflow, name: str) -> str:
    """Which comment is that of this step: two jobs, two legs of a matrix and two names have one each."""
    return marker.key(workflow=workflow.name, job=workflow.job, leg=workflow.leg, name=name)


def place_of(origin: Origin | None) -> markdown.Place:
    """Where a report is read."""
    if origin is None:
        return markdown.Place()
    return markdown.Place(
        server_url=origin.server_url, head_commit=origin.head_commit, workflow_url=origin.workflow_url or None
    )


class Poster:
    """Posts the reports of any number of runs. `connect(repository, api_url)` is the seam; `secrets` are taken out once
    more. Nothing raises for GitHub's sake: `tell` is given, once, what could not be posted and why."""

    def __init__(
        self,
        connect: Callable[[str, str], Connection],
        tell: Callable[[str], None],
        *,
        secrets: Sequence[str] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect, self._tell, self._secrets = connect, tell, secrets
        self._now, self._monotonic = now, monotonic
        self._stickies: dict[str, Sticky] = {}
        self._shown: dict[str, tuple[str, int, float]] = {}
        self._told: set[str] = set()
        self.patience_seconds = _PATIENCE_SECONDS
        # Of the last text that is shown, and of one that could not be.
        self.url = ""
        self.unposted: Report | None = None

    def update(self, seen: Observation, report: Callable[[], Report]) -> None:
        """Shows how far a run is: at each new phase, every five minutes, and what was kept back ten seconds ago."""
        origin = seen.spec.origin
        if not seen.spec.is_posted or origin is None or origin.comment != "always" or seen.is_finished:
            return
        if origin.pull_request is None:
            return  # it is looked up once, at the end
        sticky = self._sticky(origin, origin.pull_request, seen.spec.run_id, seen.spec.requested_at)
        phase, attempts = phase_of(seen.last), len(seen.attempts)
        shown = self._shown.get(seen.spec.run_id)
        is_old = shown is None or self._monotonic() - shown[2] > _REFRESH_SECONDS
        if is_old or shown is None or shown[:2] != (phase, attempts):
            self._shown[seen.spec.run_id] = (phase, attempts, self._monotonic())
            self._note(sticky.update(self._render(report()), attempt=attempts))
        else:
            self._note(sticky.flush())

    def finish(self, report: Report) -> str | None:
        """Where the final report is; None when GitHub does not answer, and somebody else has to post it."""
        origin = report.origin
        if origin is None:
            return "nowhere: it was not asked for on GitHub"
        # One of a failure before must not stand for a success.
        creates = origin.comment != "on-failure" or report.outcome != "succeeded"
        try:
            number = origin.pull_request or self._look_up(origin, report)
        except RunctlError as error:
            self._tell(f"no pull request could be looked up: {error}")
            return None
        if number is None:
            return "nowhere: the commit is in no open pull request"
        sticky = self._sticky(origin, number, report.run_id, report.requested_at)
        posting = sticky.finish(
            self._render(report), attempt=report.attempts, patience_seconds=self.patience_seconds, creates=creates
        )
        self._note(posting)
        if posting.is_shown or posting.state == "superseded":
            return posting.url or posting.state
        self.unposted = report
        return None if posting.state == "failed" else f"nowhere: {posting.state}"

    def _look_up(self, origin: Origin, report: Report) -> int | None:
        from runctl_action.github import pull_request

        if not origin.looks_up:
            return None
        connection = self._connect(origin.repository, origin.api_url)
        found = pull_request.of_commit(connection, origin.head_commit or report.commit)
        return found.number if found else None

    def _sticky(self, origin: Origin, number: int, run_id: str, requested_at: datetime) -> Sticky:
        from runctl_action.github.sticky import Sticky

        if run_id not in self._stickies:
            connection = self._connect(origin.repository, origin.api_url)
            self._stickies[run_id] = Sticky(
                connection, number, key=origin.comment_key, run_id=run_id, requested_at=requested_at
            )
        return self._stickies[run_id]

    def _render(self, report: Report) -> str:
        return markdown.render(report, now=self._now(), secrets=self._secrets, place=place_of(report.origin))

    def _note(self, posting: Posting) -> None:
        if posting.is_shown:
            self.url = posting.url
        elif posting.why and posting.state not in {"later", "superseded"} and posting.why not in self._told:
            self._told.add(posting.why)
            self._tell(f"the comment could not be written: {posting.why}" + f" ({posting.hint})" * bool(posting.hint))
