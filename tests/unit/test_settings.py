from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action import settings
from runctl_action.errors import SettingsError
from runctl_action.settings import Settings

TOKEN = "ghp_do-not-print-me"


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Settings]:
    def run(*, toml: str = "", pyproject: str = "", flags: dict[str, Any] | None = None, **environ: str) -> Settings:
        for name, text in (("runctl.toml", toml), ("pyproject.toml", pyproject)):
            if text:
                (tmp_path / name).write_text(text, encoding="utf-8")
        # Keyword arguments cannot have the hyphens that the runner's variables have.
        variables = {name.replace("__", "-"): value for name, value in environ.items()}
        return settings.load(flags=flags or {}, environ=variables, root=tmp_path)

    return run


@pytest.fixture
def refused(load: Callable[..., Settings]) -> Callable[..., list[str]]:
    """The problems that a load tells, one a line."""

    def run(**sources: Any) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            load(**sources)
        assert caught.value.exit_code == 2
        assert caught.value.hint == "runctl-action train --help lists them all"
        first, *problems = str(caught.value).split("\n  ")
        assert first == "the settings cannot be used:"
        return problems

    return run


def test_without_any_source_the_defaults_are_in_force(load):
    found = load()
    assert (found.spot, found.max_duration, found.lease, found.wait, found.instance_type, found.args) == (
        "prefer", 6 * 3600, 900, True, ("t3.medium",), (),
    )  # fmt: skip


def test_a_flag_beats_an_input_beats_a_variable_beats_the_file_beats_the_default(load):
    sources: dict[str, Any] = {
        "toml": 'max-duration = "1h"',
        "RUNCTL_MAX_DURATION": "2h",
        "INPUT_MAX__DURATION": "3h",
        "flags": {"max-duration": "4h"},
    }
    hours = []
    for name in ("", "flags", "INPUT_MAX__DURATION", "RUNCTL_MAX_DURATION"):
        sources.pop(name, None)
        hours.append(load(**sources).max_duration // 3600)
    assert hours == [4, 3, 2, 1]


def test_settings_of_different_sources_are_put_together(load):
    found = load(
        toml='bucket = "b"',
        RUNCTL_REGION="eu-west-1",
        INPUT_INSTANCE__TYPE="g5.xlarge,p3.2xlarge",
        flags={"spot": "never"},
    )
    assert (found.bucket, found.region, found.instance_type, found.spot) == (
        "b", "eu-west-1", ("g5.xlarge", "p3.2xlarge"), "never",
    )  # fmt: skip


@pytest.mark.parametrize("name", settings.names())
def test_an_input_that_the_runner_sets_to_nothing_is_not_given(load, name):
    values = load(**{f"INPUT_{name.upper()}": "", f"RUNCTL_{name.upper().replace('-', '_')}": ""})
    assert values == load()


def test_an_input_with_underscores_is_another_actions(load):
    assert load(INPUT_INSTANCE_TYPE="g5.xlarge", INPUT_TYPO="x").instance_type == ("t3.medium",)


def test_variables_of_others_and_reserved_names_are_left_alone(load):
    assert load(RUNCTL="x", HOME="/x", AWS_REGION="x", **dict.fromkeys(settings.RESERVED, "x")) == load()


def test_a_table_in_pyproject_is_read_as_runctl_toml_is(load):
    assert load(pyproject='[project]\nname = "x"\n[tool.runctl]\nspot = "require"').spot == "require"


def test_a_pyproject_without_our_table_is_somebody_elses(load):
    assert (
        load(toml='spot = "never"', pyproject="[tool.black]\nline-length = 3\n[tool.runctl-like]\na = 1").spot
        == "never"
    )


def test_without_a_repository_there_is_no_file(tmp_path):
    assert settings.load(flags={}, environ={}, root=None) == settings.load(flags={}, environ={}, root=tmp_path)


def test_what_is_natural_in_toml_works(load):
    found = load(
        toml="""
        max-attempts = 5
        wait = false
        require-checkpoint = true
        instance-type = ["g5.xlarge", "cheapest"]
        checkpoints = "out/*.pt"
        allowed-account-ids = [123456789012]
        args = ["--lr", 0.1, "two words", ""]
        resume-args = "--resume {checkpoint}"
        max-file-bytes = 1000000
        volume-size = 200
        hang-timeout = "off"
        [env]
        SEED = 3
        DEBUG = true
        NAME = "a=b"
        """
    )
    assert (found.max_attempts, found.wait, found.require_checkpoint, found.max_file_bytes, found.volume_size) == (
        5, False, True, 1000000, 200,
    )  # fmt: skip
    assert (found.instance_type, found.checkpoints, found.allowed_account_ids) == (
        ("g5.xlarge", "cheapest"), ("out/*.pt",), ("123456789012",),
    )  # fmt: skip
    assert (found.args, found.resume_args) == (("--lr", "0.1", "two words", ""), ("--resume", "{checkpoint}"))
    assert found.env == {"SEED": "3", "DEBUG": "true", "NAME": "a=b"}


def test_the_same_works_as_text(load):
    found = load(
        INPUT_MAX__ATTEMPTS="5", INPUT_WAIT="false", INPUT_REQUIRE__CHECKPOINT="True", INPUT_ARGS="--lr 0.1 \\\n  'two words' ''",
        INPUT_ENV="SEED=3\nNAME=a=b\n", INPUT_CHECKPOINTS="a/*\nb/*\n", RUNCTL_VOLUME_SIZE="200",
    )  # fmt: skip
    assert (found.max_attempts, found.wait, found.require_checkpoint, found.volume_size) == (5, False, True, 200)
    assert found.args == ("--lr", "0.1", "two words", "")
    assert (found.env, found.checkpoints) == ({"SEED": "3", "NAME": "a=b"}, ("a/*", "b/*"))


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ["", "a b", '"q"', "'", "$HOME", "[1,2]", "null", "--spot", "--", "*", "a\nb", "😀", "\udcff"]
            ),
            st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")),
        )
    )
)
def test_the_scripts_arguments_pass_through_unchanged(arguments):
    assert settings.load(flags={"args": arguments}, environ={}, root=None).args == tuple(arguments)


def test_no_arguments_behind_the_cut_replace_those_of_the_file(load):
    assert load(toml='args = ["--epochs", "5"]', flags={"args": []}).args == ()


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ({"toml": "spto = 1"}, "runctl.toml: spto: there is no such setting: did you mean spot?"),
        (
            {"toml": "instance_type = 1"},
            "runctl.toml: instance_type: there is no such setting: did you mean instance-type?",
        ),
        (
            {"pyproject": "[tool.runctl]\nbuckt = 1"},
            "[tool.runctl]: buckt: there is no such setting: did you mean bucket?",
        ),
        (
            {"RUNCTL_INSTANCE_TPYE": "x"},
            "RUNCTL_INSTANCE_TPYE: there is no such setting: did you mean RUNCTL_INSTANCE_TYPE?",
        ),
        ({"RUNCTL_QQQ": "x"}, "RUNCTL_QQQ: there is no such setting"),
        ({"flags": {"regoin": "x"}}, "--regoin: there is no such setting: did you mean region?"),
    ],
)
def test_an_unknown_key_is_told_where_it_is_and_what_was_meant(refused, sources, problem):
    assert refused(**sources) == [problem]


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ({"flags": {"spot": "alwys"}}, "--spot: 'alwys' is none of never, prefer, require"),
        ({"toml": "spot = false"}, "runctl.toml: spot: false is none of never, prefer, require"),
        ({"INPUT_SOURCE": "worktre"}, "INPUT_SOURCE: 'worktre' is none of commit, worktree: did you mean worktree?"),
        ({"toml": "python = 3.10"}, 'runctl.toml: python: 3.1 is not text: write it in quotes, as in "3.12"'),
        ({"INPUT_WAIT": "maybe"}, "INPUT_WAIT: 'maybe' is neither true nor false: write true or false"),
        ({"INPUT_MAX__ATTEMPTS": "many"}, "INPUT_MAX-ATTEMPTS: 'many' is not a whole number: write 3, for example"),
        ({"toml": "max-attempts = true"}, "runctl.toml: max-attempts: true is not a whole number: write 3, for example"),
        ({"RUNCTL_MAX_ATTEMPTS": "21"}, "RUNCTL_MAX_ATTEMPTS: 21 is not a number of attempts from 1 to 20: write 3, for example"),
        ({"toml": "volume-size = 0"}, "runctl.toml: volume-size: 0 is not a volume's size in GiB, from 1 to 65536: write 100, for example"),
        ({"RUNCTL_GRACE": "90"}, "RUNCTL_GRACE: '90' is not a duration (a number needs a unit): write 90m, 1h30m, 45s, 2d or off"),
        ({"flags": {"lease": "2h"}}, "--lease: 2h is not between 1m and 1h: the first lease only bridges boot and start"),
        ({"flags": {"max-duration": "off"}}, "--max-duration: it cannot be off, every run has a limit: write 6h, for example, at most 366d"),
        ({"toml": 'max-file-bytes = "big"'}, "runctl.toml: max-file-bytes: 'big' is not a size: write 500MB, 1.5GiB or 4096B"),
        ({"toml": "subnets = true"}, 'runctl.toml: subnets: true is not a list: write a, b or ["a", "b"]'),
        ({"toml": 'prefix = "a//b"'}, "runctl.toml: prefix: 'a//b' is not a key prefix: write letters, digits, hyphens and single slashes"),
        ({"toml": 'prefix = "../b"'}, "runctl.toml: prefix: '../b' is not a key prefix: write letters, digits, hyphens and single slashes"),
        ({"toml": 'prefix = "a/./b"'}, "runctl.toml: prefix: 'a/./b' is not a key prefix: write letters, digits, hyphens and single slashes"),
        ({"toml": 'install = ""'}, "runctl.toml: install: it is empty: leave it out for the default"),
        ({"INPUT_ENV": "A=1\nB"}, "INPUT_ENV: line 2 has no `=`: write NAME=VALUE, one a line"),
        ({"pyproject": "[tool]\nrunctl = 3"}, "`tool.runctl` is not a table: write [tool.runctl]"),
        ({"toml": "a = "}, "runctl.toml cannot be read: Invalid value"),
    ],
)  # fmt: skip
def test_a_bad_value_is_a_sentence_that_shows_it_and_what_is_right(refused, sources, problem):
    (said,) = refused(**sources)
    assert problem in said
    assert "Input should" not in said


@pytest.mark.parametrize("name", settings.names())
def test_no_setting_is_refused_in_the_words_of_pydantic(name):
    for wrong in ({"a": {}}, [[]], object()):
        with pytest.raises(SettingsError) as caught:
            settings.load(flags={name: wrong}, environ={}, root=None)
        assert f"--{name}: " in str(caught.value)
        assert "nput" not in str(caught.value)
        assert "pydantic" not in str(caught.value)


def test_a_pyproject_whose_tool_is_no_table_has_no_settings(load):
    assert load(pyproject="tool = 3") == load()


def test_all_problems_are_told_at_once(refused):
    problems = refused(
        toml="spto = 1\nwait = 3",
        pyproject="[tool.runctl]\na = 1",
        RUNCTL_REGOIN="x",
        INPUT_GRACE="x",
        flags={"spot": "x"},
    )
    told = "\n".join(problems)
    for part in ("spto", "runctl.toml: wait", "both in", "RUNCTL_REGOIN", "INPUT_GRACE", "--spot"):
        assert part in told
    assert len(problems) == 6


def test_of_a_value_that_another_source_replaces_nothing_is_said(load):
    assert load(toml='spot = "nonsense"', flags={"spot": "never"}).spot == "never"


def test_a_file_that_cannot_be_read_does_not_hide_the_other_problems(refused, tmp_path):
    (tmp_path / "runctl.toml").write_bytes(b'bucket = "\xff"')
    unreadable, other = refused(RUNCTL_SPOT="x")
    assert "runctl.toml cannot be read" in unreadable
    assert "RUNCTL_SPOT" in other


def test_the_token_is_kept_and_shown_nowhere(load):
    found = load(INPUT_GITHUB__TOKEN=TOKEN)
    assert found.github_token is not None
    assert found.github_token.get_secret_value() == TOKEN
    shown = [
        repr(found),
        str(found),
        found.model_dump(),
        found.model_dump_json(),
        found.launch_record(),
        found.training(),
    ]
    assert TOKEN not in repr(shown)
    assert "token" not in repr(shown)


@pytest.mark.parametrize(
    "sources",
    [
        {"toml": f'github-token = ["{TOKEN}"]'},
        {"toml": f'github-token = {{ a = "{TOKEN}" }}'},
        {"toml": f'github_token = "{TOKEN}"'},
        {"toml": f"github-token = {TOKEN}"},
        {"RUNCTL_GITHUB_TOKN": TOKEN},
        {"INPUT_GITHUB__TOKEN": TOKEN, "flags": {"spot": "x"}},
    ],
)
def test_no_error_shows_the_token(refused, sources):
    assert TOKEN not in "\n".join(refused(**sources))


def test_no_traceback_shows_the_token(load):
    with pytest.raises(SettingsError) as caught:
        load(INPUT_GITHUB__TOKEN=TOKEN, RUNCTL_SPOT="x")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_the_host_acts_on_is_all_of_it(load):
    found = load(
        toml="""
        python = "3.12"
        install = "skip"
        checkpoints = ["c/*"]
        require-checkpoint = true
        resume-args = ["--from", "{checkpoint}"]
        metrics = ["m.jsonl"]
        env = { A = "1" }
        secrets = { B = "ssm:/b" }
        max-duration = "1h"
        hang-timeout = "10m"
        grace = "30s"
        keep-on-failure = "5m"
        """
    ).training()
    assert found.model_dump() == {
        "python": "3.12", "install": "skip", "checkpoints": ("c/*",), "require_checkpoint": True,
        "resume_args": ("--from", "{checkpoint}"), "metrics": ("m.jsonl",), "env": {"A": "1"}, "secrets": {"B": "ssm:/b"},
        "max_duration_seconds": 3600, "hang_timeout_seconds": 600, "grace_seconds": 30, "keep_on_failure_seconds": 300,
    }  # fmt: skip


def test_what_another_settler_launches_with_is_json(load):
    record = load(
        toml='ami = "ami-1"\nsubnets = ["s-1"]\nlease = "10m"\nmax-cost = "$0.10"',
        flags={"instance-type": ["a", "b"]},
    ).launch_record()
    assert json.loads(json.dumps(record)) == record
    assert record == {
        "instance_type": ["a", "b"], "spot": "prefer", "max_price": None, "max_cost": "0.10", "ami": "ami-1",
        "subnets": ["s-1"], "security_groups": [], "instance_profile": None, "volume_size": None, "instance_id": None,
        "lease_seconds": 600, "max_attempts": 3,
    }  # fmt: skip


def test_the_process_environment_is_not_read(monkeypatch):
    monkeypatch.setenv("BUCKET", "theirs")
    monkeypatch.setenv("RUNCTL_SPOT", "nonsense")
    assert settings.load(flags={}, environ={}, root=None).bucket is None


def test_every_setting_says_what_it_means_and_has_a_group():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.json_schema_extra, name


def test_settings_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        Settings().spot = "never"  # type: ignore[misc]


@pytest.mark.parametrize(
    "source",
    [
        {"toml": '[secrets]\nHF_TOKEN = "ssm:/team/hf"\nWANDB_API_KEY = "secretsmanager:team/wandb#key"'},
        {"INPUT_SECRETS": "HF_TOKEN=ssm:/team/hf\nWANDB_API_KEY=secretsmanager:team/wandb#key\n"},
        {"RUNCTL_SECRETS": "HF_TOKEN = ssm:/team/hf \nWANDB_API_KEY=secretsmanager:team/wandb#key"},
        {"flags": {"secrets": ["HF_TOKEN=ssm:/team/hf", "WANDB_API_KEY=secretsmanager:team/wandb#key"]}},
    ],
)
def test_secrets_are_given_as_env_is_and_reach_the_host_as_names(load, source):
    found = load(**source)
    assert found.secrets == {"HF_TOKEN": "ssm:/team/hf", "WANDB_API_KEY": "secretsmanager:team/wandb#key"}
    assert found.training().secrets == found.secrets


def test_a_secrets_value_in_its_names_place_is_refused_and_not_shown(refused):
    for value in ("hunter2hunter2", f"ssm:{TOKEN}abcdefghijklmnopqrstuvwx1234567890", "0123456789abcdef" * 2):
        (problem,) = refused(toml=f'[secrets]\nKEY = "{value}"')
        assert problem.startswith("runctl.toml: secrets: KEY: ")
        assert "Names, never values" in problem
        assert value not in problem


@pytest.mark.parametrize("name", ["RUNCTL_RUN_ID", "RUNCTL_ANYTHING", "PATH", "AWS_REGION"])
def test_a_secret_is_no_variable_that_a_host_sets(refused, name):
    (problem,) = refused(toml=f'[secrets]\n{name} = "ssm:/team/hf"')
    assert f"{name} is a variable that hosts set" in problem


def test_a_variable_is_a_secret_or_not(refused):
    (problem,) = refused(toml='[env]\nKEY = "a"\n[secrets]\nKEY = "ssm:/team/hf"')
    assert problem == "runctl.toml: secrets: KEY is in `env` too: keep one of them"
    (problem,) = refused(toml='[secrets]\n"A-B" = "ssm:/team/hf"')
    assert "'A-B' is not a variable's name" in problem
