"""The collaborators of a command, put together: settings, an account (or an emulated one), and who settles a run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runctl_action.arguments import Parsed
from runctl_action.contract.layout import Layout
from runctl_action.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from runctl_action.cloud.instances import Instances
    from runctl_action.cloud.session import Session
    from runctl_action.cloud.store import Store
    from runctl_action.github.posting import Poster
    from runctl_action.run.observe import Knowledge
    from runctl_action.run.pricing import Pricing
    from runctl_action.run.settle import Progress, Settler
    from runctl_action.settings import Settings


SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")


@dataclass
class Cloud:
    """An account and a region, as the settings name them."""

    settings: Settings
    session: Session
    store: Store
    instances: Instances
    layout: Layout
    pricing: Pricing
    environ: Mapping[str, str]

    def secrets(self) -> tuple[str, ...]:
        """What must not be shown to anybody, however it came into a text."""
        token = self.settings.github_token
        named = [self.environ.get(name, "") for name in SECRET_VARIABLES]
        return tuple(filter(None, [token.get_secret_value() if token else "", *named]))


@contextlib.contextmanager
def open_cloud(parsed: Parsed, environ: Mapping[str, str], *, needs_bucket: bool = True) -> Iterator[Cloud]:
    """Settings and the account they name; with --emulate, an account of its own for as long as this command runs.
    Raises SettingsError or CredentialsError."""
    with contextlib.ExitStack() as stack:
        settings, environ = load_settings(parsed, environ, stack)
        from runctl_action.cloud import session as cloud_session
        from runctl_action.cloud.instances import Instances
        from runctl_action.cloud.prices import Prices
        from runctl_action.cloud.store import Store
        from runctl_action.run import request, tools
        from runctl_action.run.pricing import Pricing

        if needs_bucket:
            request.require_bucket(settings, git_root(environ))
        session = cloud_session.connect(environ, settings.region, settings.role_to_assume)
        stack.callback(session.close)
        yield Cloud(
            settings,
            session,
            Store(session, settings.bucket or ""),
            Instances(session),
            Layout(prefix=settings.prefix),
            Pricing(Prices(session, tools.cache_directory(environ))),
            environ,
        )


def load_settings(
    parsed: Parsed, environ: Mapping[str, str], stack: contextlib.ExitStack
) -> tuple[Settings, Mapping[str, str]]:
    """The settings, and the environment that they hold in: with --emulate that of an emulated AWS, which `stack` ends.
    Raises SettingsError."""
    from runctl_action import settings as all_settings

    root = git_root(environ)
    read = _reader(parsed.revision, environ)
    settings = all_settings.load(flags=parsed.flags, environ=environ, root=root, read=read)
    if not parsed.emulate:
        return settings, environ
    if not settings.wait and parsed.command == "train":
        raise SettingsError(
            "`wait: false` with --emulate: the emulator ends with this command, and the run with it",
            "start one that stays: runctl-action emulator",
        )
    emulated = stack.enter_context(_emulated(parsed, environ, settings.region))
    flags = parsed.flags | _emulated_account(settings, emulated)
    return all_settings.load(flags=flags, environ=emulated, root=root, read=read), emulated


def settler_of(
    cloud: Cloud,
    run_id: str,
    knowledge: Knowledge,
    progress: Progress,
    *,
    upload: Callable[[], Any] | None = None,
    poster: Poster | None = None,
    from_start: bool,
) -> Settler:
    """Who carries one run on, or looks at it. `from_start` shows its log from the beginning; `poster` posts its
    reports."""
    from runctl_action.cloud.commands import Commands
    from runctl_action.run import tools
    from runctl_action.run.act import Actor
    from runctl_action.run.follow import Follower
    from runctl_action.run.observe import Observer, utc_now
    from runctl_action.run.settle import Settler

    follower = Follower(
        cloud.store,
        cloud.layout,
        output=progress.output,
        phase=progress.phase,
        warn=progress.warn,
        from_start=from_start,
    )
    actor = Actor(
        store=cloud.store,
        instances=cloud.instances,
        commands=Commands(cloud.session),
        layout=cloud.layout,
        region=cloud.session.region,
        run_id=run_id,
        knowledge=knowledge,
        upload_source=upload,
        warn=progress.warn,
        now=utc_now,
        monotonic=time.monotonic,
        sleep=time.sleep,
        cache=tools.cache_directory(cloud.environ),
        pricing=cloud.pricing,
        log_tail=follower.tail,
        workflow_attempt=workflow_attempt(cloud.environ),
        post=poster.finish if poster else None,
    )
    knowledge.can_post = poster is not None
    observer = Observer(cloud.store, cloud.instances, cloud.layout, run_id, knowledge)
    settler = Settler(observer, actor, follower, progress, utc_now, time.monotonic)
    if poster:
        settler.on_look = poster.update
    return settler


def me() -> str:
    """Who settles: this process, told from every other."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"


def workflow_attempt(environ: Mapping[str, str]) -> int:
    """GitHub's number of the workflow's attempt; 0 outside of a workflow."""
    said = environ.get("GITHUB_RUN_ATTEMPT", "")
    return int(said) if said.isdecimal() else 0


def emulator_server() -> Any:
    """The emulator's module. Raises UsageError where its packages are not installed."""
    try:
        from runctl_action.emulator import server
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the emulator needs a package that is not installed: {error.name}", "pip install 'runctl-action[emulator]'"
        ) from error
    return server


def emulation(server: Any, parsed: Parsed) -> dict[str, Any]:
    """What was chosen about the emulator. Raises UsageError."""
    try:
        server.Faults(parsed.faults)
    except (ValueError, OSError) as error:
        raise UsageError(f"--fault: {error}", "docs/faults.md has them all") from None
    try:
        delays = {name: float(seconds) for name, _, seconds in (delay.partition("=") for delay in parsed.delays)}
        chosen = server.Delays(**delays)
    except (TypeError, ValueError):
        names = ", ".join(field.name for field in dataclasses.fields(server.Delays))
        raise UsageError(
            f"--delay {' '.join(parsed.delays)}: it is NAME=SECONDS, and NAME one of {names}", "--delay running=20"
        ) from None
    return {"faults": parsed.faults, "delays": chosen, "seconds_per_minute": parsed.hour / 60}


@contextlib.contextmanager
def _emulated(parsed: Parsed, environ: Mapping[str, str], region: str | None) -> Iterator[dict[str, str]]:
    server = emulator_server()
    with (
        server.own_directory() as directory,
        server.Emulator(directory, region=region or "us-east-1", **emulation(server, parsed)) as emulated,
    ):
        kept = {name: value for name, value in environ.items() if not name.startswith("AWS_")}
        yield kept | emulated.environ


def _emulated_account(settings: Settings, environ: Mapping[str, str]) -> dict[str, Any]:
    """Overrides for what the settings name of a real account: in an emulated one there is no such thing."""
    ami = settings.ami if settings.ami and settings.ami.startswith("/") else None
    account = {"bucket": environ["RUNCTL_BUCKET"], "instance-profile": environ["RUNCTL_INSTANCE_PROFILE"], "ami": ami}
    return account | {"subnets": (), "security-groups": (), "allowed-account-ids": ()}


def _reader(revision: str, environ: Mapping[str, str]) -> Callable[[str], bytes | None] | None:
    """What a commit that is named is trained with are the settings in it, not those that are checked out."""
    if revision == "HEAD":
        return None
    from runctl_action.source.repository import open_repository, read_file

    repository = open_repository(Path.cwd(), environ)
    return lambda name: read_file(repository, revision, name)


def git_root(environ: Mapping[str, str]) -> Path | None:
    """The root of the repository that we are in; None outside of one."""
    from runctl_action.errors import NotARepository
    from runctl_action.source.repository import open_repository

    try:
        return open_repository(Path.cwd(), environ).root
    except NotARepository:
        return None
