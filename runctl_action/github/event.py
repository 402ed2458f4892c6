"""What to do for a GitHub event. Pure: facts in, one activity out; `payload` reads the facts.

The rules, in the order in which they are asked:

    a comment                 trains when it is new, on a pull request, begins with `/train`, and its author may write
    Dependabot's, a fork's    never: GitHub gives such a run no secrets; where it does (pull_request_target), it would
                              be strangers' code beside our credentials
    what anybody can cause    (a review, an issue) trains for somebody who may write: training costs money
    nothing to train          a closed pull request, a deleted branch
    all else                  trains what is checked out; the workflow file has said when
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from runctl_action import parsing

DEPENDABOT = "dependabot[bot]"
COMMAND = "/train"
# Events that somebody without any permission can cause in a public repository.
_OPEN_TO_ALL = {
    "commit_comment", "discussion", "discussion_comment", "fork", "gollum", "issues", "pull_request_review",
    "pull_request_review_comment", "watch",
}  # fmt: skip


class AnyPullRequest(Protocol):
    """A payload's or the API's (github/pull_request.py). `head_repository` is None once the fork is deleted."""

    @property
    def number(self) -> int: ...
    @property
    def head_sha(self) -> str: ...
    @property
    def head_branch(self) -> str: ...
    @property
    def head_repository(self) -> str | None: ...
    @property
    def is_fork(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """What a payload says of one."""

    number: int
    head_sha: str
    head_branch: str
    head_repository: str | None
    base_branch: str
    is_fork: bool
    is_open: bool = True


@dataclass(frozen=True, kw_only=True)
class Comment:
    """A comment on issue or pull request `number`."""

    number: int
    is_on_pull_request: bool
    author: str
    is_of_a_bot: bool
    body: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """What is known of an event. `commit` is GITHUB_SHA: for a pull request, the merge that GitHub made of it; for a
    comment, the last commit of the default branch. `sender` caused the event, `actor` the workflow run."""

    name: str
    action: str = ""
    actor: str = ""
    sender: str = ""
    commit: str
    branch: str | None = None
    tag: str | None = None
    pull_request: PullRequest | None = None
    comment: Comment | None = None
    is_deletion: bool = False
    is_of_a_fork: bool = False


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the API said to an Ask: whether the user may write to the repository (a comment's author_association does
    not say it: a MEMBER of an organization need not be allowed to), and the pull request, None where there is none."""

    may_train: bool
    pull_request: AnyPullRequest | None = None


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train `revision`: HEAD, or a commit that `fetch`, a ref of `origin`, brings when it is not there. `arguments`
    stand in for the setting `args` unless None. Post to `pull_request`, else to the open one of commit `look_up`."""

    reason: str
    revision: str = "HEAD"
    fetch: str | None = None
    branch: str | None = None
    arguments: tuple[str, ...] | None = None
    pull_request: int | None = None
    look_up: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Ask the API what `user` may do, and for `pull_request` if it is named; come again with the Answers."""

    user: str
    pull_request: int | None = None


@dataclass(frozen=True, kw_only=True)
class Skip:
    """Train nothing, say why in the job summary, and in a comment on `reply_to` if there is one. It fails the step
    where `on-fork: fail` is set and `is_untrusted` holds, else not."""

    reason: str
    hint: str = ""
    reply_to: int | None = None
    is_untrusted: bool = False

    def fails(self, on_fork: Literal["skip", "fail"]) -> bool:
        return self.is_untrusted and on_fork == "fail"


@dataclass(frozen=True, kw_only=True)
class Ignore:
    """It is not meant for us: a line in the log, nothing else."""

    reason: str


Activity = Train | Ask | Skip | Ignore


def find_activity(event: Event, answers: Answers | None = None) -> Activity:
    """The one thing to do; an Ask only without `answers`."""
    if event.comment is not None:
        return _for_comment(event, event.comment, answers)
    if DEPENDABOT in {event.actor, event.sender}:
        return Skip(
            reason="Dependabot's runs get no secrets and no AWS credentials: nothing was trained",
            hint=_by_comment(event.pull_request),
            is_untrusted=True,
        )
    if event.is_of_a_fork or (event.pull_request is not None and event.pull_request.is_fork):
        return Skip(reason=_of_a_fork(event.pull_request), hint=_PUSH_IT_HERE, is_untrusted=True)
    if event.is_deletion:
        return Ignore(reason="a branch or a tag was deleted: there is nothing to train")
    if event.pull_request is not None and not event.pull_request.is_open:
        return Ignore(
            reason=f"pull request #{event.pull_request.number} is closed: what is merged is trained by `push`"
        )
    if event.name in _OPEN_TO_ALL:
        if answers is None:
            return Ask(user=event.sender or event.actor)
        if not answers.may_train:
            return _not_permitted(event.sender or event.actor)
    return _training(event)


def what_is_trained(event: Event, pull_request: AnyPullRequest | None, commit: str) -> str:
    """A sentence part that says what `commit`, the one that is trained, is to the event; empty when it is just it."""
    if pull_request is not None:
        head = f"the head of pull request #{pull_request.number}"
        if commit == pull_request.head_sha:
            return head
        if commit == event.commit and event.pull_request is not None and event.name != "pull_request_target":
            return f"the merge of {pull_request.head_sha[:12]}, {head}, into {event.pull_request.base_branch}"
        return f"what is checked out; {pull_request.head_sha[:12]} is {head}"
    if commit == event.commit:
        return ""
    return f"what is checked out; the event is about {event.commit[:12]}"


def _for_comment(event: Event, comment: Comment, answers: Answers | None) -> Activity:
    if event.action != "created":
        return Ignore(reason=f"a comment was {event.action or 'changed'}: only new ones count")
    if comment.is_of_a_bot:
        return Ignore(reason="the comment is a bot's")
    first_line = (comment.body.strip().splitlines() or [""])[0]
    command, *rest = first_line.split(maxsplit=1)[:2] or [""]
    if command != COMMAND:
        return Ignore(reason=f"the comment does not begin with {COMMAND}")
    if not comment.is_on_pull_request:
        return Ignore(reason=f"#{comment.number} is an issue: {COMMAND} is for pull requests")
    if answers is None:
        return Ask(user=comment.author, pull_request=comment.number)
    if not answers.may_train:
        # No reply: whoever may not spend money here may not make us write either.
        return _not_permitted(comment.author)
    if answers.pull_request is None:
        return Skip(reason=f"GitHub shows no pull request #{comment.number}")
    if answers.pull_request.is_fork:
        return Skip(
            reason=_of_a_fork(answers.pull_request), hint=_PUSH_IT_HERE, reply_to=comment.number, is_untrusted=True
        )
    return _commanded(comment, answers.pull_request, rest[0] if rest else "")


def _commanded(comment: Comment, pull_request: AnyPullRequest, written: str) -> Activity:
    try:
        arguments = parsing.shell_words(written)
    except ValueError as error:
        return Skip(
            reason=f"{COMMAND} was not understood: {error}",
            hint=f"write the script's arguments behind it, on the same line: {COMMAND} --lr 0.1 --name 'two words'",
            reply_to=comment.number,
        )
    # Whoever knows the command writes `--` before the script's arguments; here they are all that there can be.
    without_dashes = arguments[1:] if arguments[:1] == ("--",) else arguments
    return Train(
        reason=f"{COMMAND} of {comment.author} in pull request #{comment.number}",
        revision=pull_request.head_sha,
        fetch=f"refs/pull/{pull_request.number}/head",
        branch=pull_request.head_branch,
        arguments=without_dashes or None,
        pull_request=pull_request.number,
    )


def _training(event: Event) -> Train:
    by = f" by {event.sender or event.actor}" if event.name != "schedule" and (event.sender or event.actor) else ""
    if event.pull_request is not None:
        number = event.pull_request.number
        # There, what is checked out is the branch that the pull request goes into.
        is_base = event.name == "pull_request_target"
        return Train(
            reason=f"pull request #{number}, {event.action or event.name}{by}",
            revision=event.pull_request.head_sha if is_base else "HEAD",
            fetch=f"refs/pull/{number}/head" if is_base else None,
            branch=event.pull_request.head_branch,
            pull_request=number,
        )
    where = f" to {event.branch}" if event.branch else f" of tag {event.tag}" if event.tag else ""
    return Train(
        reason=f"{event.name}{where if event.name == 'push' else ''}{by}",
        branch=event.branch,
        look_up=event.commit if event.name in {"push", "workflow_dispatch"} and event.branch else None,
    )


_PUSH_IT_HERE = (
    "read the changes; if they are good, push them to a branch of this repository: that is trained with its secrets"
)


def _of_a_fork(pull_request: AnyPullRequest | None) -> str:
    whose = "The run" if pull_request is None else f"Pull request #{pull_request.number}"
    home = pull_request and pull_request.head_repository
    of = f"of the fork {home}" if home else "of a fork" if pull_request is None else "of a fork that is gone"
    return f"{whose} is {of}: a fork's code is not trained, it would run with this repository's credentials"


def _by_comment(pull_request: PullRequest | None) -> str:
    if pull_request is None:
        return "start the workflow by hand (workflow_dispatch), or push a commit of your own"
    return f"comment {COMMAND} on pull request #{pull_request.number}, in a workflow that runs on issue_comment"


def _not_permitted(user: str) -> Skip:
    return Skip(
        reason=f"{user or 'Somebody unknown'} has no permission to write to this repository: nothing was trained",
        hint="somebody who has it may ask for the training",
    )
