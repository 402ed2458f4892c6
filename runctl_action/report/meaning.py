"""What an ending means: a sentence, the next thing to do, the command's exit code. Pure; docs/failures.md says more."""

from __future__ import annotations

import re
import signal as signals

from runctl_action.contract.documents import Cause, Outcome
from runctl_action.contract.reports import Report
from runctl_action.report.wording import again_command, command, duration, train_command, visible

_BY_OUTCOME: dict[Outcome, int] = {
    "succeeded": 0,
    "failed": 1,
    "interrupted": 6,
    "timed-out": 6,
    "cancelled": 130,
    "lost": 7,
}
_BY_CAUSE: dict[Cause, int] = {
    "exit": 1,
    "signal": 1,
    "out-of-memory": 1,
    "no-checkpoint": 1,
    "usage": 2,
    "source": 3,
    "cloud": 4,
    "sync": 5,
    "install": 5,
    "spot-reclaimed": 6,
    "host-stopped": 6,
    "max-duration": 6,
    "hung": 6,
    "budget": 6,
    "stopped": 130,
    "vanished": 7,
    "defect": 70,
}

_WHAT_HAPPENED: dict[Cause, str] = {
    "out-of-memory": "ran out of memory and was killed",
    "no-checkpoint": "ended without a checkpoint, and `require-checkpoint` asks for one",
    "usage": "was not trained: the command line or the settings are wrong",
    "source": "was not trained: its source could not be read",
    "cloud": "was not trained: AWS refused, or gave no instance that could be used",
    "sync": "was not trained: its source did not reach the instance as it was pushed",
    "install": "was not trained: its dependencies could not be installed",
    "spot-reclaimed": "was interrupted: AWS reclaimed its spot instance",
    "host-stopped": "was interrupted: its instance was stopped",
    "max-duration": "was stopped: it reached `max-duration`",
    "hung": "was stopped: it hung, with nothing new for `hang-timeout`",
    "budget": "was stopped: it reached `max-cost`",
    "stopped": "was cancelled",
    "vanished": "was lost: its instance vanished and left no result",
    "defect": "was ended by a defect of runctl-action",
}
_WITHOUT_CAUSE: dict[Outcome, str] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "interrupted": "was interrupted",
    "timed-out": "was stopped: it took too long",
    "cancelled": "was cancelled",
    "lost": "was lost: its instance left no result",
}
_EXIT_CODES = {
    0: "success",
    1: "an error: in Python, an exception that nobody caught",
    2: "usually wrong arguments: what argparse and most commands exit with",
    126: "found, but could not be executed: no execute permission, or not a program for this machine",
    127: "a command was not found",
}
_MISSING_MODULE = re.compile(r"ModuleNotFoundError: No module named '([A-Za-z0-9_]+)")


def exit_code(outcome: Outcome, cause: Cause | None) -> int:
    """The command's own exit code: 0 succeeded, 1 to 7 and 130 by the table in docs/failures.md, 70 our defect."""
    if outcome == "failed" and cause is not None:
        return _BY_CAUSE[cause]
    return _BY_OUTCOME[outcome]


def cause_of(exit_code: int) -> Cause:
    """The cause of an error that kept a run from being made, by the exit code of its class."""
    return {2: "usage", 3: "source", 4: "cloud", 5: "sync"}.get(exit_code, "defect")  # type: ignore[return-value]


def sentence(report: Report) -> str:
    """One sentence without a full stop: what was trained, how it ended, after how long, on which instance."""
    what = f"{visible(report.script)} {_happened(report)}"
    if report.outcome is None:
        return what + _where(report)
    return f"{what} {'in' if report.outcome == 'succeeded' else 'after'} {_took(report)}{_where(report)}"


def exit_code_meaning(code: int) -> str:
    """What a training's exit code usually means; empty for a code that means nothing by convention."""
    if code in _EXIT_CODES:
        return _EXIT_CODES[code]
    if 128 < code <= 128 + 64:
        name = signal_name(code - 128)
        also = ": killed, often for want of memory" if name == "SIGKILL" else ""
        also = ": a crash in native code" if name in {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE"} else also
        also = ": asked to end" if name == "SIGTERM" else also
        also = ": native code gave up" if name == "SIGABRT" else also
        return f"usually {name}, {code} = 128 + {code - 128}{also}"
    return ""


def signal_name(number: int) -> str:
    """SIGKILL for 9; `signal 99` for a number without a name."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def hint(report: Report) -> str:
    """What to do next, as a command where there is one."""
    logs = command(["runctl-action", "logs", report.run_id])
    if report.outcome is None:
        return f"follow it: {logs} -f"
    if report.outcome == "succeeded":
        good = [checkpoint for checkpoint in report.checkpoints if not checkpoint.suspect]
        return f"fetch the last checkpoint: {command(['aws', 's3', 'cp', good[-1].uri, '.'])}" if good else ""
    if report.cause in {"exit", "install"}:
        return _after_an_error(report, logs)
    again = again_command(report)
    has_checkpoint = any(not checkpoint.suspect for checkpoint in report.checkpoints)
    job = "run the job again, or " if report.origin else ""
    go_on = f"{job}{'go on from the last good checkpoint' if has_checkpoint else 'start it again'}: {again}"
    # Settings are a part of what a run is: with another limit it is another run, which can begin where this one ended.
    raised = train_command(report, *(("--resume", report.run_id) if has_checkpoint else ()))
    advice: dict[Cause, str] = {
        "signal": f"read the end of the log: {logs}",
        "out-of-memory": f"take a larger `instance-type` or a smaller batch; the log: {logs}",
        "no-checkpoint": f"compare the paths that the script writes with the setting `checkpoints`; the log: {logs}",
        "usage": "the settings there are: runctl-action train --help",
        "source": "see what is tracked: git status && git ls-files",
        "cloud": _after_a_refusal(report, again),
        "sync": f"send it once more: {again}",
        "spot-reclaimed": go_on,
        "host-stopped": go_on,
        "max-duration": f"raise `max-duration`, then: {raised}",
        "hung": f"see where it stopped: {logs}",
        "budget": f"raise `max-cost`, then: {raised}",
        "stopped": go_on,
        "vanished": go_on,
        "defect": f"please report it, with: {command(['runctl-action', 'report', '--json', report.run_id])}",
    }
    return advice[report.cause] if report.cause else f"read the log: {logs}"


def _after_a_refusal(report: Report, again: str) -> str:
    if report.message.startswith("the secret "):
        return f"correct `secrets`, or the policy of the instance profile's role; then: {again}"
    if "is not allowed" in report.message:
        return f"allow what is named in the launcher's policy; then: {again}"
    if "refused" in report.message:
        return f"name more than one `instance-type` or more `subnets`, or set `spot` to prefer; then: {again}"
    return f"see what the message names; then: {again}"


def _happened(report: Report) -> str:
    if report.outcome is None:
        return "is done, its report is being written" if report.phase == "done" else f"is running: {report.phase}"
    if report.outcome == "succeeded":
        return "succeeded"
    if report.cause == "exit" and report.exit_code is not None:
        known = exit_code_meaning(report.exit_code).partition(":")[0] if report.exit_code > 2 else ""
        return f"exited with code {report.exit_code}" + (f" ({known})" if known else "")
    if report.cause == "signal" and report.signal is not None:
        return f"was killed by {signal_name(report.signal)} (signal {report.signal})"
    if report.cause in {None, "exit", "signal"}:
        return _WITHOUT_CAUSE[report.outcome]
    return _WHAT_HAPPENED[report.cause]


def _took(report: Report) -> str:
    """From the request to the end: what somebody waited, attempts and all."""
    if report.ended_at is None:
        return duration(sum(report.phases.values()))
    return duration((report.ended_at - report.requested_at).total_seconds())


def _where(report: Report) -> str:
    if not report.instances:
        return ""
    last = report.instances[-1]
    return f" on {visible(last.type)} ({last.market})"


def _after_an_error(report: Report, logs: str) -> str:
    missing = next((m for line in reversed(report.log_tail) if (m := _MISSING_MODULE.search(line))), None)
    if missing:
        return (
            f"add what provides `{missing[1]}` to the dependencies (pyproject.toml or requirements.txt), commit, push"
        )
    if report.cause == "install":
        return f"read what the installer says, correct the dependencies, commit, push: {logs}"
    if report.exit_code == 2:
        return f"check the arguments of {visible(report.script)}; the log: {logs}"
    return f"read the end of the log, correct it, commit, push: {logs}"
