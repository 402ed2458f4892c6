"""What the container runs: the event decides, the run is followed in the job's log, the report goes where people read.

`action` is the step, `action_post` the step after it, in a new container of the same image: it ends what a cancelled or
killed step has left behind. All that is printed goes through one WorkflowLog: the runner executes what it reads.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from runctl_action import runs, train, wiring
from runctl_action.arguments import Parsed
from runctl_action.contract.documents import Origin
from runctl_action.contract.reports import Report
from runctl_action.errors import Cancelled, RunctlError, SourceError, UsageError
from runctl_action.wiring import Cloud, me, open_cloud, settler_of

if TYPE_CHECKING:
    from runctl_action.github.connection import Connection
    from runctl_action.github.event import Answers, Ask, Event, Skip, Train
    from runctl_action.github.payload import Workflow
    from runctl_action.github.posting import Poster
    from runctl_action.github.workflow_log import WorkflowLog
    from runctl_action.run.settle import Settler
    from runctl_action.settings import Settings

# After SIGINT the runner waits 7.5 s, then sends SIGTERM; the post step takes over (facts of actions/runner).
_ANSWER_SECONDS = 4.0
# What the post step gives a training that was asked to stop, and its host.
_LAST_PATIENCE_SECONDS = 120.0
# For a workflow that posts what this job's token may not: `actions/upload-artifact` takes the folder.
REPORT_FOLDER = "runctl-report"


def action(parsed: Parsed, environ: MutableMapping[str, str]) -> int:  # noqa: ARG001  - a command like all others
    """The step; fails exactly when the training did not succeed, or could not be done."""
    return _told(environ, lambda log: _act(log, environ))


def action_post(parsed: Parsed, environ: MutableMapping[str, str]) -> int:  # noqa: ARG001
    """The post step: 0 when nothing is left behind."""
    return _told(environ, lambda log: _clean_up(log, environ))


def _told(environ: MutableMapping[str, str], do: Callable[[WorkflowLog], int]) -> int:
    """Every ending is told in the log, in the runner's own way."""
    from runctl_action.github.annotations import Annotation
    from runctl_action.github.workflow_log import WorkflowLog

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    log = WorkflowLog(sys.stdout)
    for name in ("INPUT_GITHUB-TOKEN", "RUNCTL_GITHUB_TOKEN", *wiring.SECRET_VARIABLES):
        if environ.get(name):
            log.mask(environ[name])
    try:
        return do(log)
    except RunctlError as error:
        _tell_error(log, environ, error)
        return error.exit_code
    except KeyboardInterrupt:
        log.warn("cancelled")
        return Cancelled.exit_code
    except Exception as error:  # noqa: BLE001  - a defect of ours: the traceback goes to a file, people get a sentence
        with tempfile.NamedTemporaryFile("w", prefix="runctl-action-", suffix=".log", delete=False) as file:
            file.write(traceback.format_exc())
        log.annotate(Annotation("error", f"a defect of ours, sorry: {error!r}", "runctl-action"))
        log.relay(traceback.format_exc())
        return RunctlError.exit_code
    finally:
        log.finish()


def _tell_error(log: WorkflowLog, environ: MutableMapping[str, str], error: RunctlError) -> None:
    from runctl_action.github.annotations import Annotation
    from runctl_action.github.workflow_log import append_summary, write_outputs
    from runctl_action.report import meaning
    from runctl_action.report.escaping import text

    told = f"{error}\n→ {error.hint}" if error.hint else str(error)
    # Not into the group of a phase, which is folded.
    log.finish()
    log.annotate(Annotation("error", told, "runctl-action"))
    write_outputs({"outcome": "failed", "cause": meaning.cause_of(error.exit_code)}, environ)
    lines = [text(line) for line in (*str(error).splitlines(), error.hint) if line]
    append_summary("\n\n".join(["### ❌ Nothing was trained", *lines]) + "\n", environ)


def _act(log: WorkflowLog, environ: MutableMapping[str, str]) -> int:
    from runctl_action import settings as all_settings
    from runctl_action.github import event as events
    from runctl_action.github.payload import read_event, read_workflow

    log.phase("preparing")
    workflow = read_workflow(environ)
    happened = read_event(environ, _payload(environ))
    activity = events.find_activity(happened)
    settings = all_settings.load(flags={}, environ=environ, root=wiring.git_root(environ))
    if isinstance(activity, events.Ask):
        activity = events.find_activity(happened, _answers(activity, workflow, settings))
    if isinstance(activity, events.Ignore):
        log.note(activity.reason)
        return 0
    if isinstance(activity, events.Skip):
        return _skip(log, environ, activity, workflow, settings)
    assert isinstance(activity, events.Train)
    log.note(f"training: {activity.reason}")
    _fetch(activity)
    if happened.comment is not None:
        _reply(log, activity, workflow, settings)
    flags = {} if activity.arguments is None else {"args": list(activity.arguments)}
    parsed = Parsed(command="train", flags=flags, revision=activity.revision)
    with open_cloud(parsed, environ) as cloud:
        return _train(log, environ, activity, parsed, cloud, _origin(log, happened, activity, workflow, settings))


def _train(
    log: WorkflowLog,
    environ: MutableMapping[str, str],
    activity: Train,
    parsed: Parsed,
    cloud: Cloud,
    origin: Callable[[str], Origin],
) -> int:
    from runctl_action.github.workflow_log import save_state
    from runctl_action.report import meaning

    poster = runs.poster_of(cloud, log.warn)
    begun = train.begin(parsed, cloud, log, origin=origin, branch=activity.branch, poster=poster)
    # Before anything is launched: whatever becomes of this step, the next one knows what it has left.
    save_state("run_id", begun.spec.run_id, environ)
    report = _followed(begun.settler, cloud, poster, log)
    if report.outcome is not None or not cloud.settings.wait:
        save_state("is_settled", "true", environ)
    _publish(log, environ, report, begun.paths, poster, cloud)
    if report.outcome is None:
        return 0 if not cloud.settings.wait else Cancelled.exit_code
    # `never` is about trainings: what we could not do fails the step all the same.
    is_ours = report.cause in {"cloud", "sync", "defect"}
    return 0 if cloud.settings.fail_on == "never" and not is_ours else meaning.exit_code(report.outcome, report.cause)


def _followed(settler: Settler, cloud: Cloud, poster: Poster | None, log: WorkflowLog) -> Report:
    """Settles to the end. When the job is cancelled: asks the run to stop, and is back within seconds."""
    from runctl_action.run.observe import utc_now
    from runctl_action.run.stop import request_stop

    try:
        return settler.settle(train.is_training) if not cloud.settings.wait else settler.settle()
    except KeyboardInterrupt:
        log.warn("cancelled: the training gets its grace for a last checkpoint, the post step sees to its end")
        deadline = time.monotonic() + _ANSWER_SECONDS
        settler.actor.sleep = lambda seconds: time.sleep(max(0.0, min(seconds, deadline - time.monotonic())))
        if poster:
            poster.patience_seconds = 2
        seen = settler.observe()
        request_stop(cloud.store, cloud.layout, seen.spec.run_id, len(seen.attempts), "the workflow", utc_now())
        return settler.settle(until=lambda _: time.monotonic() > deadline)


def _clean_up(log: WorkflowLog, environ: MutableMapping[str, str]) -> int:
    from runctl_action.github.workflow_log import saved_state
    from runctl_action.run.observe import Knowledge, utc_now
    from runctl_action.run.stop import request_stop, terminate_at_once

    run_id = saved_state("run_id", environ)
    if not run_id or saved_state("is_settled", environ):
        return 0
    with open_cloud(Parsed(command="action-post"), environ) as cloud:
        poster = runs.poster_of(cloud, log.warn)
        settler = settler_of(cloud, run_id, Knowledge(me=me()), log, poster=poster, from_start=False)
        seen = settler.observe()
        if not seen.is_finished and not seen.is_stopped:
            request_stop(cloud.store, cloud.layout, run_id, len(seen.attempts), "the workflow", utc_now())
        deadline = time.monotonic() + _LAST_PATIENCE_SECONDS
        report = settler.settle(until=lambda _: time.monotonic() > deadline)
        if report.outcome is None:
            terminate_at_once(cloud.instances, settler.observe(), sleep=time.sleep, monotonic=time.monotonic)
            deadline = time.monotonic() + _LAST_PATIENCE_SECONDS
            report = settler.settle(until=lambda _: time.monotonic() > deadline)
        _publish(log, environ, report, frozenset(), poster, cloud)
        return 0 if report.outcome is not None else 1


def _publish(
    log: WorkflowLog,
    environ: MutableMapping[str, str],
    report: Report,
    paths: frozenset[str],
    poster: Poster | None,
    cloud: Cloud,
) -> None:
    """The report in the log, in the job's summary, as outputs; and as files where the comment could not be written."""
    from runctl_action.github.annotations import of_report
    from runctl_action.github.outputs import outputs_of
    from runctl_action.github.posting import place_of
    from runctl_action.github.workflow_log import append_summary, write_outputs
    from runctl_action.report import markdown, terminal

    printed = io.StringIO()
    terminal.print_report(report, printed)
    log.finish()
    log.relay(printed.getvalue())
    secrets = cloud.secrets()
    summary = markdown.render_summary(report, secrets=secrets, place=place_of(report.origin))
    append_summary(summary, environ)
    workflow_url = report.origin.workflow_url if report.origin else ""
    outputs = outputs_of(report, (poster.url if poster else "") or workflow_url)
    if outputs.get("shortened"):
        log.note(f"outputs that were too long are shortened: {outputs['shortened']}")
    write_outputs(outputs, environ)
    if report.outcome is not None:
        log.annotate(of_report(report, paths))
    if poster and poster.unposted:
        _write_report(poster.unposted, secrets)
        log.note(f"the comment is in {REPORT_FOLDER}/: docs/github.md says how another workflow posts it")


def _write_report(report: Report, secrets: tuple[str, ...]) -> None:
    from runctl_action.github.posting import place_of
    from runctl_action.report import markdown

    folder = Path(REPORT_FOLDER)
    folder.mkdir(exist_ok=True)
    comment = markdown.render(report, secrets=secrets, place=place_of(report.origin))
    (folder / "comment.md").write_text(comment, encoding="utf-8")
    (folder / "report.json").write_bytes(report.to_json())


def _skip(
    log: WorkflowLog, environ: MutableMapping[str, str], skip: Skip, workflow: Workflow, settings: Settings
) -> int:
    from runctl_action.github.annotations import Annotation
    from runctl_action.github.workflow_log import append_summary, write_outputs
    from runctl_action.report.escaping import text

    fails = skip.fails(settings.on_fork)
    told = f"{skip.reason}. {skip.hint}" if skip.hint else skip.reason
    log.annotate(Annotation("error" if fails else "notice", told, "runctl-action"))
    append_summary(f"### Nothing was trained\n\n{text(skip.reason)}\n\n{text(skip.hint)}\n", environ)
    write_outputs({"outcome": "skipped"}, environ)
    if skip.reply_to is not None and settings.github_token is not None:
        from runctl_action.github import pull_request

        pull_request.reply(_connect(workflow, settings), skip.reply_to, f"{text(skip.reason)}\n\n{text(skip.hint)}")
    return SourceError.exit_code if fails else 0


def _reply(log: WorkflowLog, activity: Train, workflow: Workflow, settings: Settings) -> None:
    """Names the commit to whoever asked by a comment: the branch may move on, and what is trained does not."""
    from runctl_action.github import pull_request
    from runctl_action.report.escaping import code, link, text

    assert activity.pull_request is not None
    given = f" with {code(shlex.join(activity.arguments))}" if activity.arguments else ""
    # As plain text, a commit's id is a link on GitHub.
    said = f"Training {activity.revision}{given} ({link(text('log'), workflow.url)})."
    try:
        pull_request.reply(_connect(workflow, settings), activity.pull_request, said)
    except RunctlError as error:
        log.warn(f"the comment could not be answered: {error}")


def _answers(ask: Ask, workflow: Workflow, settings: Settings) -> Answers:
    """What GitHub says about who asked, and of the pull request."""
    from runctl_action.github import pull_request
    from runctl_action.github.connection import NotFound
    from runctl_action.github.event import Answers

    connection = _connect(workflow, settings)
    if not pull_request.may_train(connection, ask.user):
        return Answers(may_train=False)
    if ask.pull_request is None:
        return Answers(may_train=True)
    try:
        return Answers(may_train=True, pull_request=pull_request.by_number(connection, ask.pull_request))
    except NotFound:
        return Answers(may_train=True)


def _origin(
    log: WorkflowLog, happened: Event, activity: Train, workflow: Workflow, settings: Settings
) -> Callable[[str], Origin]:
    """Where the run was asked for, by the name that it turns out to have."""
    from runctl_action.github.event import what_is_trained
    from runctl_action.github.posting import comment_key

    number, found = activity.pull_request, happened.pull_request
    if number is None and activity.look_up and settings.github_token and settings.comment != "never":
        from runctl_action.github import pull_request

        try:
            open_one = pull_request.of_commit(_connect(workflow, settings), activity.look_up)
        except RunctlError as error:
            log.warn(f"no pull request could be looked up: {error}")
        else:
            number = open_one.number if open_one else None
    trained = what_is_trained(happened, found, happened.commit) if activity.revision == "HEAD" else ""

    def made(name: str) -> Origin:
        return Origin(
            repository=workflow.repository,
            api_url=workflow.api_url,
            server_url=workflow.server_url,
            workflow_url=workflow.url,
            comment_key=comment_key(workflow, name),
            comment=settings.comment if settings.github_token else "never",
            pull_request=number,
            looks_up=number is None and activity.look_up is not None,
            head_commit=found.head_sha if found else None,
            trained=trained,
        )

    return made


def _connect(workflow: Workflow, settings: Settings) -> Connection:
    from runctl_action.github.connection import Connection

    if settings.github_token is None:
        raise UsageError(
            "there is no github-token, and GitHub has to be asked", "leave the input out: its default is the job's own"
        )
    return Connection(workflow.repository, settings.github_token, api_url=workflow.api_url)


def _payload(environ: MutableMapping[str, str]) -> bytes:
    path = environ.get("GITHUB_EVENT_PATH", "")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"the event cannot be read from {path!r} (GITHUB_EVENT_PATH): {error.strerror}",
            "this command is what the action's container runs; by hand: runctl-action train",
        ) from error


def _fetch(activity: Train) -> None:
    """Brings the commit when it is not checked out. Raises SourceError."""
    if activity.revision == "HEAD" or _has_commit(activity.revision):
        return
    if activity.fetch:
        fetch = ["git", "fetch", "--quiet", "--no-tags", "--depth=1", "origin", activity.fetch]
        done = subprocess.run(fetch, check=False, capture_output=True, text=True)
        if done.returncode == 0 and _has_commit(activity.revision):
            return
    raise SourceError(
        f"commit {activity.revision} is not in the checkout and could not be fetched",
        "check it out: actions/checkout with `ref: refs/pull/NUMBER/head`, and `contents: read` for its token",
    )


def _has_commit(revision: str) -> bool:
    found = subprocess.run(["git", "cat-file", "-e", f"{revision}^{{commit}}"], check=False, capture_output=True)
    return found.returncode == 0
