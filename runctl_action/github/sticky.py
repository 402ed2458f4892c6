"""The comment that a run writes into a pull request, and writes again: one a workflow, job, matrix leg and name.

Ours is what has our marker as its first line (marker.py) *and* was written by whose token we have: anybody can copy a
line. GitHub has no conditional write, so two writers can cross: each looks before it writes, and again after it made a
comment. Of two comments with one key the older stays; who has the newest to say writes it there and deletes the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from runctl_action.github import marker
from runctl_action.github.connection import Connection, Forbidden, GitHubError, NotFound, Patience, TooLong, Unavailable

if TYPE_CHECKING:
    from github.IssueComment import IssueComment
    from github.Repository import Repository

# GitHub's: beyond it, 422.
LIMIT = 65_536
INTERVAL_SECONDS = 10.0

State = Literal["written", "unchanged", "later", "superseded", "forbidden", "too-long", "failed"]


@dataclass(frozen=True)
class Posting:
    """What became of a text. `later`: kept, and written unless a newer one comes first. `superseded`: a newer run has
    the comment. `why` is a sentence where it is not shown, `hint` what to do; `url` is empty where it is not known."""

    state: State
    url: str = ""
    why: str = ""
    hint: str = ""

    @property
    def is_shown(self) -> bool:
        """Whether the text is in the pull request. If not, and not superseded, people have to read it elsewhere."""
        return self.state in {"written", "unchanged"}


class Sticky:
    """One run's hand on one comment; never raises for GitHub's sake: a run goes on without a comment.
    `requested_at` and `run_id` are the spec's: an older run never writes over a newer one's text."""

    def __init__(
        self, connection: Connection, pull_request: int, *, key: str, run_id: str, requested_at: datetime
    ) -> None:
        self._connection, self._pull_request = connection, pull_request
        self._key, self._run_id, self._requested_at = key, run_id, requested_at
        self._kept: _Text | None = None
        self._last = Posting("later")
        self._last_text: _Text | None = None
        self._not_before = connection.clock()
        self._comment_id: int | None = None
        self._creates = True

    def update(self, body: str, *, attempt: int = 0, patience_seconds: float = 5) -> Posting:
        """Writes `body`, or keeps it where the last write is not yet 10 s ago. GitHub's wish to wait is not waited for
        here but kept for the next call. Takes `patience_seconds` at most."""
        self._kept = self._text(body, attempt, is_final=False)
        return self.flush(patience_seconds=patience_seconds)

    def flush(self, *, patience_seconds: float = 5) -> Posting:
        """Writes what was kept, if its time has come: to be called while a run is followed."""
        if self._kept is None:
            return self._last
        if self._connection.clock() < self._not_before:
            return Posting("later", self._last.url)
        return self._write(self._kept, self._connection.patience(patience_seconds))

    def finish(self, body: str, *, attempt: int = 0, patience_seconds: float = 120, creates: bool = True) -> Posting:
        """Writes the last word, after the 10 s if there is patience for them, at once if not; looks at what is there
        even if it has written the same before. Takes `patience_seconds` at most: when cancelled, say 3. Unless it
        `creates`, only a comment that is there already is written."""
        self._creates = creates
        self._kept, self._last_text = None, None
        patience = self._connection.patience(patience_seconds)
        pause = self._not_before - self._connection.clock()
        if 0 < pause < patience.left():
            patience.wait(pause, "pacing")
        posting = self._write(self._text(body, attempt, is_final=True), patience)
        return Posting("failed", posting.url, posting.why, posting.hint) if posting.state == "later" else posting

    def _text(self, body: str, attempt: int, *, is_final: bool) -> _Text:
        stamp = marker.stamp(requested_at=self._requested_at, run_id=self._run_id, attempt=attempt, is_final=is_final)
        # Lone surrogates (a path that is no Unicode) would not encode.
        shown = body.encode("utf-8", "replace").decode("utf-8")
        return _Text(marker.write(self._key, stamp) + shown, stamp)

    def _write(self, text: _Text, patience: Patience) -> Posting:
        if text == self._last_text:
            self._kept = None
            return Posting("unchanged", self._last.url)
        posting = self._tried(text, patience)
        if posting.state != "later":
            self._kept, self._last = None, posting
            self._last_text = text if posting.is_shown else None
        return posting

    def _tried(self, text: _Text, patience: Patience) -> Posting:
        url, pause = self._last.url, INTERVAL_SECONDS
        if len(text.text) > LIMIT:
            return Posting("too-long", url, f"{len(text.text):,} characters, and GitHub takes {LIMIT:,}")
        try:
            return self._put(text, patience)
        except TooLong as error:
            return Posting("too-long", url, str(error), error.hint)
        except (Forbidden, NotFound) as error:
            return Posting("forbidden", url, str(error), error.hint)
        except Unavailable as error:
            pause = max(pause, error.retry_after_seconds or 0)
            return Posting("later", url, str(error), error.hint)
        except GitHubError as error:
            return Posting("failed", url, str(error), error.hint)
        finally:
            self._not_before = self._connection.clock() + pause

    def _put(self, text: _Text, patience: Patience) -> Posting:
        with self._connection.asked(patience) as repository:
            try:
                return self._settled(self._known(repository, patience), text, patience)
            except NotFound:
                # Nothing of ours is known, or somebody has deleted it just now.
                self._comment_id = None
            ours = self._found(repository, patience)
            if ours:
                return self._settled(ours, text, patience)
            if not self._creates:
                return Posting("superseded", why="there is no comment")
            self._create(repository, text, patience)
            posting = self._settled(self._found(repository, patience), text, patience)
            return replace(posting, state="written") if posting.state == "unchanged" else posting

    def _known(self, repository: Repository, patience: Patience) -> list[_Ours]:
        """The comment that was written last; empty where there is none or it is ours no more. Raises NotFound."""
        if self._comment_id is None:
            return []
        with self._connection.refusals():
            comment = repository.get_issue(self._pull_request).get_comment(self._comment_id)
            ours = self._ours(comment, self._connection.login(patience))
        return [ours] if ours else []

    def _found(self, repository: Repository, patience: Patience) -> list[_Ours]:
        """All of ours, oldest first, through all pages."""
        login = self._connection.login(patience)
        found: list[_Ours] = []
        for comment in repository.get_issue(self._pull_request).get_comments():
            patience.check()
            ours = self._ours(comment, login)
            if ours:
                found.append(ours)
        return sorted(found, key=lambda ours: ours.id)

    def _ours(self, comment: IssueComment, login: str) -> _Ours | None:
        author, text = comment.user, comment.body
        if not author or not text or author.login.casefold() != login.casefold():
            return None
        stamp = marker.read(text, self._key)
        return _Ours(comment, comment.id, _url(comment.html_url), stamp, text) if stamp else None

    def _create(self, repository: Repository, text: _Text, patience: Patience) -> None:
        """Makes the comment. Where GitHub's answer is lost, a look tells whether it has to be asked again."""
        for pause in (1, 2, None):
            patience.check()
            try:
                with self._connection.refusals():
                    repository.get_issue(self._pull_request).create_comment(text.text)
            except Unavailable as error:
                if error.retry_after_seconds is not None or pause is None:
                    raise
                patience.wait(pause, str(error))
                if self._found(repository, patience):
                    return
            else:
                return

    def _settled(self, ours: list[_Ours], text: _Text, patience: Patience) -> Posting:
        """`text` in the oldest of ours and nothing in the others, unless one of them is of a newer run. Raises NotFound
        when there is none of ours."""
        if not ours:
            raise NotFound("the comment is not in the pull request")
        kept, *others = ours
        newest = max(ours, key=lambda comment: comment.stamp)
        if newest.stamp > text.stamp:
            for made in [other for other in others if other.stamp == text.stamp]:
                self._delete(made)
            return Posting("superseded", newest.url, "a newer run has this comment")
        has_text = _normal(kept.text) == _normal(text.text)
        if not has_text:
            patience.check()
            with self._connection.refusals():
                kept.comment.edit(text.text)
        for other in others:
            self._delete(other)
        self._comment_id = kept.id
        return Posting("unchanged" if has_text else "written", kept.url)

    def _delete(self, other: _Ours) -> None:
        try:
            with self._connection.refusals():
                other.comment.delete()
        except GitHubError:
            # The other writer was faster, or the next one does it.
            return


@dataclass(frozen=True)
class _Text:
    text: str
    stamp: marker.Stamp


@dataclass(frozen=True)
class _Ours:
    comment: IssueComment
    id: int
    url: str
    stamp: marker.Stamp
    text: str


def _url(text: object) -> str:
    """What can be printed as an address; nothing else."""
    return text if isinstance(text, str) and re.fullmatch(r"https?://[!-~]{1,500}", text) else ""


def _normal(text: str) -> str:
    return text.replace("\r\n", "\n").rstrip()
