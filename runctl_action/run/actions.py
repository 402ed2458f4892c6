"""The next things there can be to do for a run, one at a time; `act` does them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from runctl_action.contract.documents import Cause, Outcome, Resume


@dataclass(frozen=True)
class Wait:
    seconds: float
    why: str


@dataclass(frozen=True)
class OpenAttempt:
    number: int
    last_attempt: int


@dataclass(frozen=True)
class TakeOver:
    attempt: int


@dataclass(frozen=True)
class Upload:
    pass


@dataclass(frozen=True)
class Launch:
    attempt: int


@dataclass(frozen=True)
class Adopt:
    """Make an instance that is there, and carries the attempt's tag, its winner."""

    attempt: int
    instance_id: str


@dataclass(frozen=True)
class Terminate:
    instance_ids: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Probe:
    attempt: int
    instance_id: str


@dataclass(frozen=True)
class Start:
    attempt: int
    instance_id: str
    resume: Resume | None


@dataclass(frozen=True)
class EndAttempt:
    attempt: int
    outcome: Outcome
    cause: Cause | None
    message: str


@dataclass(frozen=True)
class Afford:
    """Work out how long the host may go on under `max-cost`, at the prices there really were."""

    attempt: int


@dataclass(frozen=True)
class Finish:
    """Write the final report."""


@dataclass(frozen=True)
class Post:
    """Post the final report where people read it, once."""


@dataclass(frozen=True)
class Close:
    """Take the open marker away: nothing is left to do."""


@dataclass(frozen=True)
class Done:
    """Nothing is left to do for whoever looks; `why`, where somebody else has to."""

    why: str = ""


Action = (
    Wait
    | OpenAttempt
    | TakeOver
    | Upload
    | Launch
    | Adopt
    | Terminate
    | Probe
    | Start
    | Afford
    | EndAttempt
    | Finish
    | Post
    | Close
    | Done
)


def describe(action: Action) -> str:
    """What a dry run says would be done."""
    match action:
        case Wait(why=why):
            return f"wait for {why}"
        case OpenAttempt(number=number):
            return f"open attempt {number}"
        case TakeOver(attempt=number) | Launch(attempt=number):
            return f"launch attempt {number}"
        case Adopt(attempt=number, instance_id=instance_id):
            return f"take {instance_id} for attempt {number}"
        case Terminate(instance_ids=ids, why=why):
            return f"terminate {', '.join(ids)}: {why}"
        case Probe(instance_id=instance_id) | Start(instance_id=instance_id):
            return f"start it on {instance_id}"
        case EndAttempt(attempt=number, outcome=outcome, cause=cause):
            return f"end attempt {number}: {outcome}{f', {cause}' if cause else ''}"
        case Upload():
            return "upload its source"
        case Afford():
            return "work out what it may still cost"
        case Finish():
            return "write its report"
        case Post():
            return "post its report"
        case Close():
            return "close it"
        case Done(why=why):
            return f"do nothing{f': {why}' if why else ''}"
