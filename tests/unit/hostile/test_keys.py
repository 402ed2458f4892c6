"""Whatever something is called, its key is below its own prefix, and nobody else's."""

from __future__ import annotations

import os

import pytest
from hostile import NAMES, searched
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.contract.layout import RUN_ID, Layout, parse_log_key
from runctl_action.run.request import _slug

LAYOUT = Layout(prefix="team/runctl")
SHA = "5e" * 32
HOST = LAYOUT.host("AROA1:i-1", "train-1", 1)
os_text = st.sampled_from(sorted(NAMES.values())) | st.binary(max_size=40).map(os.fsdecode)


def check(key: str, prefix: str) -> str:
    """What a key adds to its prefix, if it is one that all who handle it read in the same way."""
    assert key.startswith(prefix)
    assert key.isascii()
    assert key.isprintable()
    assert not set(key.split("/")) & {".", ".."}
    return key.removeprefix(prefix)


def test_a_branch_and_a_repository_are_one_part_of_a_key_each():
    for name in NAMES.values():
        for repository, branch in ((name, "main"), ("octo/digits", name), (name, name)):
            key = LAYOUT.latest(repository, branch)
            assert check(key, "team/runctl/sources/").count("/") == 2
            assert len(key) <= 1024


@searched
@given(st.tuples(os_text, os_text), st.tuples(os_text, os_text))
def test_two_branches_have_two_keys(one, other):
    assert (LAYOUT.latest(*one) == LAYOUT.latest(*other)) == (one == other)


def test_names_too_long_for_a_key_have_different_ones():
    names = ["\u6f22" * 400 + end for end in ("", "a", "b")]
    keys = {LAYOUT.latest("octo/digits", name) for name in names}
    assert len(keys) == 3
    assert max(map(len, keys)) < 1024


def test_a_checkpoint_of_any_path_is_below_its_hosts_own_prefix():
    for path in NAMES.values():
        check(HOST.checkpoint(SHA, path), f"team/runctl/hosts/AROA1:i-1/train-1/1/checkpoints/{SHA}/")


@searched
@given(os_text, os_text)
def test_two_paths_of_checkpoints_have_two_keys(one, other):
    assert (HOST.checkpoint(SHA, one) == HOST.checkpoint(SHA, other)) == (one == other)


def test_a_run_of_any_name_has_keys_of_its_own():
    for name in NAMES.values():
        run_id = f"{_slug(name)}-0123456789ab"
        assert RUN_ID.match(run_id)
        run = LAYOUT.run(run_id)
        check(run.spec, f"team/runctl/runs/{run_id}/")


def test_what_is_no_run_id_names_no_run():
    for name in NAMES.values():
        with pytest.raises(ValueError, match="not a run id"):
            LAYOUT.run(name)


@searched
@given(*[st.from_regex(RUN_ID, fullmatch=True)] * 2)
def test_no_run_is_below_another(one, other):
    if one != other:
        assert not LAYOUT.run(one).spec.startswith(f"{LAYOUT.run(other).base}/")
        mine = LAYOUT.host("AROA1:i-1", one, 1)
        assert not mine.result.startswith(f"{LAYOUT.host('AROA1:i-1', other, 1).base}/")


def test_a_key_that_training_code_made_among_the_logs_is_read_as_a_number_or_as_none():
    for name in NAMES.values():
        index, phase = parse_log_key(f"{HOST.log_prefix}{name}")
        assert index >= -1
        assert "/" not in phase
