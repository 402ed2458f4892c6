"""What is looked up of pull requests, and what is answered in them. All of it raises GitHubError (connection.py).

Everything that GitHub says was written by somebody: it is checked for its form here, and for nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runctl_action.github.connection import Connection, GitHubError, NotFound, TooLong
from runctl_action.github.sticky import LIMIT

if TYPE_CHECKING:
    from github.PullRequest import PullRequest as ApiPullRequest

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class PullRequest:
    """`head_repository` is owner/name, None where the fork is gone; `head_branch` anything that git takes."""

    number: int
    head_sha: str
    head_branch: str
    head_repository: str | None
    is_fork: bool
    is_open: bool


def of_commit(connection: Connection, sha: str, *, patience_seconds: float = PATIENCE_SECONDS) -> PullRequest | None:
    """The open pull request, from this repository into it, that a commit is for: the newest of those that it is the
    head of, else of those that contain it."""
    if not _is_object_id(sha):
        raise GitHubError("what is asked for is not a commit's id")
    patience = connection.patience(patience_seconds)
    found: list[PullRequest] = []
    try:
        with connection.asked(patience) as repository:
            for pull in repository.get_commit(sha).get_pulls():
                patience.check()
                # GitHub names those of the repository that this one was forked from, too.
                if pull.base.repo.full_name.casefold() == connection.repository.casefold():
                    found.append(_checked(pull))
    except NotFound:
        return None
    ours = [pull for pull in found if pull.is_open and not pull.is_fork]
    return max(ours, key=lambda pull: (pull.head_sha == sha, pull.number), default=None)


def by_number(connection: Connection, number: int, *, patience_seconds: float = PATIENCE_SECONDS) -> PullRequest:
    """The pull request with this number. Raises NotFound for an issue's."""
    with connection.asked(connection.patience(patience_seconds)) as repository:
        return _checked(repository.get_pull(number))


def may_train(connection: Connection, login: str, *, patience_seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether `login` may write to the repository, so may spend its money; False where GitHub does not know them."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}(?:\[bot\])?", login):
        return False
    try:
        with connection.asked(connection.patience(patience_seconds)) as repository:
            # GitHub says `write` for maintainers here, and for roles of one's own that include it.
            return repository.get_collaborator_permission(login) in {"write", "maintain", "admin"}
    except NotFound:
        return False


def reply(connection: Connection, number: int, body: str, *, patience_seconds: float = PATIENCE_SECONDS) -> int:
    """A new comment's id. Not repeated where GitHub's answer is lost: two answers are worse than one too few."""
    shown = body.encode("utf-8", "replace").decode("utf-8")
    if len(shown) > LIMIT:
        raise TooLong(f"{len(shown):,} characters, and GitHub takes {LIMIT:,}")
    with connection.asked(connection.patience(patience_seconds)) as repository:
        return repository.get_issue(number).create_comment(shown).id


def _checked(pull: ApiPullRequest) -> PullRequest:
    head, base = pull.head, pull.base
    if not isinstance(pull.number, int) or not _is_object_id(head.sha) or not isinstance(head.ref, str):
        raise GitHubError("GitHub described a pull request that has no number, no head or no branch")
    head_repository = head.repo.full_name if head.repo else None
    return PullRequest(
        number=pull.number,
        head_sha=head.sha,
        head_branch=head.ref,
        head_repository=head_repository,
        is_fork=head_repository is None or head_repository.casefold() != base.repo.full_name.casefold(),
        is_open=pull.state == "open",
    )


def _is_object_id(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) is not None
