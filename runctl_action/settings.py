"""The settings: one model; action inputs, RUNCTL_* variables, runctl.toml and flags are where its values come from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from runctl_action import parsing
from runctl_action.contract import secret_names
from runctl_action.contract.documents import TrainingSettings
from runctl_action.errors import SettingsError
from runctl_action.report.visible import visible

# Names that begin like a setting and are none: switches of ours, and what a host sets for the training.
RESERVED = frozenset(
    {"RUNCTL_SKIP", "RUNCTL_HOST_DIR", "RUNCTL_RUN_ID", "RUNCTL_ATTEMPT", "RUNCTL_CHECKPOINT_DIR", "RUNCTL_RESUME_FROM",
     "RUNCTL_SMOKE_AWS"}
)  # fmt: skip
# What a host sets for the training beside them; a secret of that name would be one by mistake.
_HOSTS = frozenset({"PATH", "HOME", "PYTHONPATH", "AWS_REGION"})

Text = Annotated[str, BeforeValidator(parsing.text)]
OptionalText = Annotated[str | None, BeforeValidator(parsing.text)]
Number = Annotated[int, BeforeValidator(parsing.whole_number)]
OptionalNumber = Annotated[int | None, BeforeValidator(parsing.whole_number)]
YesNo = Annotated[bool, BeforeValidator(parsing.boolean)]
Duration = Annotated[int, BeforeValidator(parsing.duration)]
Size = Annotated[int, BeforeValidator(parsing.size)]
Money = Annotated[Decimal | None, BeforeValidator(parsing.money)]
Words = Annotated[tuple[str, ...], BeforeValidator(parsing.words)]
Arguments = Annotated[tuple[str, ...], BeforeValidator(parsing.shell_words)]
Variables = Annotated[dict[str, str], BeforeValidator(parsing.pairs)]
Source = Annotated[Literal["commit", "worktree"], BeforeValidator(parsing.one_of("commit", "worktree"))]
Spot = Annotated[Literal["never", "prefer", "require"], BeforeValidator(parsing.one_of("never", "prefer", "require"))]
Comment = Annotated[
    Literal["always", "on-failure", "never"], BeforeValidator(parsing.one_of("always", "on-failure", "never"))
]
FailOn = Annotated[Literal["training", "never"], BeforeValidator(parsing.one_of("training", "never"))]
OnFork = Annotated[Literal["skip", "fail"], BeforeValidator(parsing.one_of("skip", "fail"))]
HookMode = Annotated[Literal["check", "train", "off"], BeforeValidator(parsing.one_of("check", "train", "off"))]

Secret = Annotated[SecretStr | None, BeforeValidator(parsing.secret)]

WHAT, WHERE, PRICE, RESULTS, GITHUB, HOOK = (
    "What to train", "Where", "Price and limits", "Checkpoints and results", "GitHub", "The pre-push hook"
)  # fmt: skip


def _setting(group: str, description: str, default: Any = None) -> Any:
    return Field(default, validate_default=False, description=description, json_schema_extra={"group": group})


class Settings(BaseSettings):
    """Every setting, its default and what it means. Not read from os.environ: see `load`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        alias_generator=lambda name: name.replace("hook_", "hook.", 1).replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )

    script: OptionalText = _setting(WHAT, "The script to train with, relative to the working directory or the root")
    args: Arguments = _setting(WHAT, "The script's arguments (on the command line: everything after --)", ())
    name: OptionalText = _setting(
        WHAT, "A name for the run, to tell several of one workflow apart (default: the script's)"
    )
    source: Source = _setting(
        WHAT,
        "commit: the files of the commit; worktree: the tracked files as they are on disk, changes and all",
        "commit",
    )
    python: Text = _setting(WHAT, "The Python for the training: a version, or a path in the image", ">=3.11")
    install: Text = _setting(
        WHAT, "Dependencies: auto (PEP 723, uv.lock, requirements.txt, pyproject.toml), skip, or a command", "auto"
    )
    env: Variables = _setting(
        WHAT,
        "Variables for the training, NAME=VALUE: one a flag, one a line of RUNCTL_ENV, or [env] in runctl.toml",
        {},
    )
    secrets: Variables = _setting(
        WHAT,
        "Secrets for the training, given as env is: NAME=ssm:/PARAMETER or NAME=secretsmanager:SECRET. "
        "Names, never values: hosts fetch those",
        {},
    )
    max_file_bytes: Size = _setting(WHAT, "No tracked file may be larger", 2 * 1024**3)
    instance_type: Words = _setting(
        WHERE, "Instance types in order of preference; with `cheapest` before them, by price", ("t3.medium",)
    )
    region: OptionalText = _setting(WHERE, "The AWS region (default: AWS_REGION, or the profile's)")
    bucket: OptionalText = _setting(WHERE, "The S3 bucket for sources, logs, checkpoints and results")
    prefix: Text = _setting(
        WHERE, "All keys in the bucket begin with it; whoever looks for a run needs the same", "runctl"
    )
    ami: OptionalText = _setting(
        WHERE, "An image id or public parameter (default: Ubuntu 24.04; GPU types: Deep Learning base)"
    )
    subnets: Words = _setting(WHERE, "Subnets to launch in (default: the default ones)", ())
    security_groups: Words = _setting(WHERE, "Security groups; no inbound rule is needed", ())
    instance_profile: OptionalText = _setting(WHERE, "The instance profile that hosts get")
    volume_size: OptionalNumber = _setting(WHERE, "GiB of the root volume (default: the image's)")
    instance_id: OptionalText = _setting(WHERE, "Train on this running instance; it is never powered off by us")
    allowed_account_ids: Words = _setting(WHERE, "Refuse credentials of any other account", ())
    spot: Spot = _setting(PRICE, "Spot instances: never, prefer (falls back to on-demand, loudly), require", "prefer")
    max_price: Money = _setting(PRICE, "No offer may cost more, in USD per hour of the instance; unknown is too much")
    max_cost: Money = _setting(
        PRICE, "The whole run may cost no more, in USD over all attempts: it is ended in time for a last checkpoint"
    )
    max_duration: Duration = _setting(PRICE, "The training is ended after this long", 6 * 3600)
    hang_timeout: Duration = _setting(PRICE, "Ended after this long without output or a new checkpoint", 0)
    grace: Duration = _setting(PRICE, "Between SIGTERM and SIGKILL, for a last checkpoint", 60)
    max_attempts: Number = _setting(PRICE, "Attempts at most; a new one comes after an interruption", 3)
    lease: Duration = _setting(
        PRICE, "A host powers itself off after this long, unless a run starts on it: then max-duration replaces it", 900
    )
    keep_on_failure: Duration = _setting(PRICE, "Keep the host this long after a failure", 0)
    checkpoints: Words = _setting(RESULTS, "Checkpoints: files or directories, globs from the root", ("checkpoints/*",))
    require_checkpoint: YesNo = _setting(RESULTS, "Without a checkpoint it is a failure", default=False)
    resume: OptionalText = _setting(
        RESULTS, "Begin with the last good checkpoints of this run: one of other settings, or of another commit"
    )
    resume_args: Arguments = _setting(
        RESULTS,
        "Arguments put first when resuming, {checkpoint} is its path: `--resume-args='--resume {checkpoint}'`",
        (),
    )
    metrics: Words = _setting(RESULTS, "Files of JSON lines with metrics, globs from the root", ("metrics.jsonl",))
    wait: YesNo = _setting(
        RESULTS, "Follow the run to its end; if not, return once it has started on its host", default=True
    )
    role_to_assume: OptionalText = _setting(
        GITHUB, "The role that a workflow job gets by its OIDC token (`permissions: id-token: write`)"
    )
    comment: Comment = _setting(
        GITHUB, "The pull request comment: always, on-failure, or never (the job summary is always there)", "always"
    )
    fail_on: FailOn = _setting(
        GITHUB,
        "The step fails when the training did not succeed (training), or only when we could not do it (never)",
        "training",
    )
    on_fork: OnFork = _setting(
        GITHUB, "What to do for a fork's or Dependabot's pull request, which get no credentials: skip or fail", "skip"
    )
    github_token: Secret = Field(
        None, exclude=True, repr=False, description="For the pull request comment", json_schema_extra={"group": GITHUB}
    )

    @field_validator("prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        pattern = r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*"
        if (value and not re.fullmatch(pattern, value)) or {".", ".."} & set(value.split("/")):
            raise ValueError(f"{value!r} is not a key prefix: write letters, digits, hyphens and single slashes")
        return value

    @field_validator("python", "install")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("it is empty: leave it out for the default")
        return value

    @field_validator("secrets")
    @classmethod
    def _secret_names(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        for name, where in value.items():
            if name in RESERVED | _HOSTS or name.startswith("RUNCTL_"):
                raise ValueError(f"{name} is a variable that hosts set: choose another name")
            if name in info.data.get("env", {}):
                raise ValueError(f"{name} is in `env` too: keep one of them")
            try:
                secret_names.parse(where.strip())
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return {name: where.strip() for name, where in value.items()}

    @field_validator("max_attempts")
    @classmethod
    def _attempts(cls, value: int) -> int:
        if not 1 <= value <= 20:
            raise ValueError(f"{value} is not a number of attempts from 1 to 20: write 3, for example")
        return value

    @field_validator("volume_size")
    @classmethod
    def _gib(cls, value: int | None) -> int | None:
        if value is not None and not 1 <= value <= 65536:
            raise ValueError(f"{value} is not a volume's size in GiB, from 1 to 65536: write 100, for example")
        return value

    @field_validator("max_duration")
    @classmethod
    def _limit(cls, value: int) -> int:
        # The host powers itself off by this; none at all would be an instance that is found a month later.
        if value == 0:
            raise ValueError("it cannot be off, every run has a limit: write 6h, for example, at most 366d")
        return value

    @field_validator("lease")
    @classmethod
    def _lease(cls, value: int) -> int:
        if not 60 <= value <= 3600:
            raise ValueError(
                f"{parsing.show_duration(value)} is not between 1m and 1h: the first lease only bridges boot and start"
            )
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` passes in: the library's own sources read the process's environment and change values."""
        return (init_settings,)

    def training(self) -> TrainingSettings:
        """What the host acts on."""
        return TrainingSettings(
            python=self.python,
            install=self.install,
            checkpoints=self.checkpoints,
            require_checkpoint=self.require_checkpoint,
            resume_args=self.resume_args,
            metrics=self.metrics,
            env=self.env,
            secrets=self.secrets,
            max_duration_seconds=self.max_duration,
            hang_timeout_seconds=self.hang_timeout,
            grace_seconds=self.grace,
            keep_on_failure_seconds=self.keep_on_failure,
        )

    def launch_record(self) -> dict[str, Any]:
        """What any later settler needs to launch another attempt; JSON-safe, no secrets."""
        return {
            "instance_type": list(self.instance_type),
            "spot": self.spot,
            "max_price": None if self.max_price is None else str(self.max_price),
            "max_cost": None if self.max_cost is None else str(self.max_cost),
            "ami": self.ami,
            "subnets": list(self.subnets),
            "security_groups": list(self.security_groups),
            "instance_profile": self.instance_profile,
            "volume_size": self.volume_size,
            "instance_id": self.instance_id,
            "lease_seconds": self.lease,
            "max_attempts": self.max_attempts,
        }


class FileSettings(Settings):
    """And what only the repository's file can say, in its table [hook]: of a push, nothing but the commit is known."""

    hook_mode: HookMode = _setting(
        HOOK,
        "What a push does: check whether its commits could be trained, train them, or nothing (off)",
        "check",
    )
    hook_branches: Words = _setting(HOOK, "The branches it is done for: globs, in which * crosses slashes", ("*",))
    hook_strict: YesNo = _setting(
        HOOK, "A push is blocked as well when the check could not be made or AWS did not answer", default=False
    )


def names() -> tuple[str, ...]:
    """Every setting as users write it, in the model's order; those of the table [hook] are not among them."""
    return tuple(name.replace("_", "-") for name in Settings.model_fields)


def file_names() -> tuple[str, ...]:
    """Every setting of the repository's file: those that can be set anywhere, then `hook.…`."""
    return tuple(str(info.alias) for info in FileSettings.model_fields.values())


def load(
    *,
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    root: Path | None,
    read: Callable[[str], bytes | None] | None = None,
) -> FileSettings:
    """Flag > action input > RUNCTL_* > runctl.toml or [tool.runctl] at `root` > default. `read(name)` stands in for the
    files at `root`: those of a commit, for one.
    Raises SettingsError that names every key that is unknown or wrong, where it came from, and what would be right."""
    problems: list[str] = []
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    known = file_names()
    for found in (
        _from_toml(root, read or _on_disk(root), problems),
        _from_environment(environ, problems),
        _from_inputs(environ),
        {name: (f"--{name}", value) for name, value in flags.items()},
    ):
        for name, (where, value) in found.items():
            if name in known:
                values[name] = value
                origin[name] = where
            else:
                meant = parsing.did_you_mean(_hyphenated(name), known)
                problems.append(f"{visible(where)}: there is no such setting{meant}")
    try:
        settings = FileSettings(**values)
    except pydantic.ValidationError as error:
        for detail in error.errors(include_input=False, include_url=False):
            name = str(detail["loc"][0])
            problems.append(f"{origin.get(name, name)}: {detail['msg'].removeprefix('Value error, ')}")
        settings = None
    if problems or settings is None:
        raise SettingsError(
            "\n  ".join(["the settings cannot be used:", *problems]), "runctl-action train --help lists them all"
        ) from None
    return settings


# What a source of settings has: by name, where people find it, and the value.
_Found = dict[str, tuple[str, Any]]


def _from_toml(root: Path | None, read: Callable[[str], bytes | None], problems: list[str]) -> _Found:
    if root is None:
        return {}
    own_file, shared_file = root / "runctl.toml", root / "pyproject.toml"
    own = _parsed(own_file, read, problems)
    tool = (_parsed(shared_file, read, problems) or {}).get("tool")
    shared = tool.get("runctl") if isinstance(tool, dict) else None
    if shared is not None and not isinstance(shared, dict):
        problems.append(f"{shared_file}: `tool.runctl` is not a table: write [tool.runctl]")
        shared = None
    if own is not None and shared is not None:
        problems.append(f"there are settings both in {own_file} and in [tool.runctl] of {shared_file}: keep one")
    where = "runctl.toml" if own is not None else "[tool.runctl]"
    found = dict(own if own is not None else shared or {})
    hook = found.pop("hook", {})
    if isinstance(hook, dict):
        found |= {f"hook.{name}": value for name, value in hook.items()}
    else:
        table = "hook" if own is not None else "tool.runctl.hook"
        problems.append(f"{where}: `hook` is not a table: write [{table}]")
    for name in [name for name, value in found.items() if not _is_plain(value)]:
        problems.append(f"{visible(f'{where}: {name}')}: it is nested too deeply, or has a number beyond 64 bits")
        del found[name]
    return {name: (f"{where}: {name}", value) for name, value in found.items()}


def _is_plain(value: object, levels: int = 8) -> bool:
    """Whether it can be shown: Python neither writes what is nested without end nor numbers of thousands of digits."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_plain(item, levels - 1) for item in items)
    return not isinstance(value, int) or value.bit_length() <= 64


def _on_disk(root: Path | None) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        assert root is not None
        try:
            return (root / name).read_bytes()
        except FileNotFoundError:
            return None

    return read


def _parsed(path: Path, read: Callable[[str], bytes | None], problems: list[str]) -> dict[str, Any] | None:
    try:
        data = read(path.name)
        return None if data is None else tomllib.loads(data.decode("utf-8"))
    # ValueError: no TOML, no UTF-8, or a number of thousands of digits. RecursionError: brackets without end.
    except (ValueError, RecursionError, OSError) as error:
        problems.append(f"{path} cannot be read: {error} (see https://toml.io for how TOML is written)")
        return None


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> _Found:
    found: _Found = {}
    for variable, value in environ.items():
        if not variable.startswith("RUNCTL_") or variable in RESERVED or not value:
            continue
        name = _hyphenated(variable.removeprefix("RUNCTL_"))
        if name in names():
            found[name] = (variable, value)
        else:
            known = [known.upper().replace("-", "_") for known in names()]
            meant = parsing.did_you_mean(variable.removeprefix("RUNCTL_").upper(), known, "RUNCTL_")
            problems.append(f"{visible(variable)}: there is no such setting{meant}")
    return found


def _from_inputs(environ: Mapping[str, str]) -> _Found:
    """The runner sets every declared input, to "" when it is not given (facts: hyphens stay in the name)."""
    variables = {name: f"INPUT_{name.upper()}" for name in names()}
    return {name: (variable, environ[variable]) for name, variable in variables.items() if environ.get(variable)}


def _hyphenated(name: str) -> str:
    return name.lower().replace("_", "-")
