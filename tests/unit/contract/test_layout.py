from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.contract.layout import HostLayout, Layout, client_token, parse_log_key

SHA = "5e" * 32
LAYOUT = Layout(prefix="team/runctl")
USERID = "AROA1:i-1"

os_text = st.binary(min_size=1, max_size=20).map(
    lambda raw: raw.replace(b"\0", b"x").decode("utf-8", "surrogateescape")
)


def test_every_key_is_where_the_design_says():
    run, host = LAYOUT.run("train-1"), LAYOUT.host(USERID, "train-1", 2)
    assert [
        LAYOUT.pack(SHA), LAYOUT.manifest(SHA), LAYOUT.tool(SHA, "host.pyz"), LAYOUT.latest("o/r", "feature/x"),
        LAYOUT.open_prefix(), LAYOUT.open_marker("train-1"),
        run.spec, run.packs, run.claim(2), run.offer(2, 0), run.instance(2), run.end(2), run.stop, run.report, run.posted,
        host.status, host.result, host.checkpoints, host.metrics, host.checkpoint(SHA, "out/a b.pt"), host.log(3, "training"),
    ] == [
        f"team/runctl/packs/{SHA}.tar.zst",
        f"team/runctl/packs/{SHA}.manifest.zst",
        f"team/runctl/tools/{SHA}/host.pyz",
        "team/runctl/sources/o%2Fr/latest/feature%2Fx",
        "team/runctl/open/",
        "team/runctl/open/train-1",
        "team/runctl/runs/train-1/spec.json",
        "team/runctl/runs/train-1/packs.json",
        "team/runctl/runs/train-1/attempts/2/claim.json",
        "team/runctl/runs/train-1/attempts/2/offers/0.json",
        "team/runctl/runs/train-1/attempts/2/instance.json",
        "team/runctl/runs/train-1/attempts/2/end.json",
        "team/runctl/runs/train-1/stop.json",
        "team/runctl/runs/train-1/report.json",
        "team/runctl/runs/train-1/posted.json",
        "team/runctl/hosts/AROA1:i-1/train-1/2/status.json",
        "team/runctl/hosts/AROA1:i-1/train-1/2/result.json",
        "team/runctl/hosts/AROA1:i-1/train-1/2/checkpoints.json",
        "team/runctl/hosts/AROA1:i-1/train-1/2/metrics.json",
        f"team/runctl/hosts/AROA1:i-1/train-1/2/checkpoints/{SHA}/out/a%20b.pt",
        "team/runctl/hosts/AROA1:i-1/train-1/2/log/00000003.training",
    ]  # fmt: skip


def test_all_that_a_host_writes_is_below_its_own_userid():
    host = LAYOUT.host(USERID, "train-1", 1)
    keys = [host.status, host.result, host.checkpoints, host.metrics, host.log(0, "x"), host.checkpoint(SHA, "a")]
    assert all(key.startswith(f"team/runctl/hosts/{USERID}/") for key in keys)


def test_without_a_prefix_keys_begin_at_the_bucket():
    assert Layout(prefix="").run("train-1").spec == "runs/train-1/spec.json"
    assert Layout(prefix="").open_prefix() == "open/"


@pytest.mark.parametrize("run_id", ["", "a/b", "../x", "A", "-a", "a" * 64, "a\n", "a b", "é"])
def test_what_is_no_run_id_makes_no_keys(run_id):
    with pytest.raises(ValueError, match="not a run id") as caught:
        LAYOUT.run(run_id)
    assert repr(run_id) in str(caught.value)


@pytest.mark.parametrize("sha256", ["", "5e", SHA.upper(), SHA + "\n", "../" + SHA, SHA + "0"])
def test_what_is_no_sha256_names_nothing(sha256):
    for make in (
        LAYOUT.pack,
        LAYOUT.manifest,
        lambda s: LAYOUT.tool(s, "x"),
        lambda s: HostLayout(base="b").checkpoint(s, "x"),
    ):
        with pytest.raises(ValueError, match="not a sha256"):
            make(sha256)


@given(os_text, os_text)
def test_any_name_makes_a_key_of_plain_characters_that_names_it_again(repository, branch):
    *_, first, latest, second = LAYOUT.latest(repository, branch).split("/")
    assert latest == "latest"
    for part, name in ((first, repository), (second, branch)):
        assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", part)
        assert unquote_to_bytes(part).decode("utf-8", "surrogateescape") == name


@given(os_text)
def test_any_path_of_a_checkpoint_makes_a_key(path):
    key = HostLayout(base="b").checkpoint(SHA, path)
    assert key.isascii()
    assert unquote_to_bytes(key.removeprefix(f"b/checkpoints/{SHA}/")).decode("utf-8", "surrogateescape") == path


def test_segments_of_a_log_are_listed_in_their_order():
    host = LAYOUT.host(USERID, "train-1", 1)
    keys = [
        host.log(index, phase)
        for index, phase in ((0, "syncing"), (1, "installing"), (2, "training"), (10, "a"), (99999999, "z"))
    ]
    assert sorted(keys) == keys
    assert all(key.startswith(host.log_prefix) for key in keys)
    assert [parse_log_key(key) for key in keys] == [
        (0, "syncing"),
        (1, "installing"),
        (2, "training"),
        (10, "a"),
        (99999999, "z"),
    ]


def test_a_client_token_is_what_ec2_takes_and_the_same_for_the_same_request():
    assert client_token(b"a") == client_token(b"a") != client_token(b"b")
    assert re.fullmatch(r"[\x21-\x7e]{1,64}", client_token(b"a"))
