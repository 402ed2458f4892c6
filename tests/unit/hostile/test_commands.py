"""Nothing of the user's is a part of what a shell, SSM, git or systemd reads."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess

import pytest
from hostile import NAMES, searched
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.contract.documents import Order
from runctl_action.errors import SourceError, UsageError
from runctl_action.hook import pre_push, selection, telling
from runctl_action.hook.pushed import read_lines
from runctl_action.report.wording import command, visible
from runctl_action.run.tools import start_script

A, NOTHING = "a" * 40, "0" * 40
# The whole of what a shell is given, but for two words of base64.
FRAME = re.compile(
    r"#!/bin/sh\n"
    r'exec python3 -c "import base64,zlib;exec\(zlib\.decompress\(base64\.b64decode\(\'([A-Za-z0-9+/]+=*)\'\)\)\)"'
    r" ([A-Za-z0-9+/]+=*)\n"
)
SETTINGS = b'script = "train.py"\n[hook]\nmode = "train"\n'


def script_of(name: str) -> str:
    order = Order(
        run_id=name, attempt=1, bucket=name, region=name, prefix=name, userid=name, digest=name, spec_sha256=name
    )
    return start_script(order, package_url=name, package_sha256=name, uv_url=name, uv_sha256=name)


def check_script(name: str, plain: str) -> None:
    """That the command for SSM has the name in it as base64 alone, and brings it to the host as it is."""
    script = script_of(name)
    found = FRAME.fullmatch(script)
    assert found
    assert "{{" not in script
    # But for that base64, it is the same text whatever the names are.
    assert script.replace(found[2], "") == plain.replace(FRAME.fullmatch(plain)[2], "")
    parameters = json.loads(base64.b64decode(found[2]))
    assert parameters["package_url"] == parameters["uv_sha256"] == name
    assert Order.model_validate(parameters["order"]).bucket == name


def test_the_command_for_ssm_is_a_fixed_frame_around_base64():
    for name in NAMES.values():
        # What is no Unicode cannot be in a document: an order with it is not made.
        check_script(name.encode("utf-8", "replace").decode(), script_of("plain"))


@searched
@given(st.text(st.characters(codec="utf-8")))
def test_no_text_gets_out_of_the_base64(text):
    check_script(text, script_of("plain"))


def git_of(asked):
    """A repository in which every object id is a commit that asks for a training."""

    def git(arguments, stdin):
        asked.append((tuple(arguments), stdin))
        if arguments[0] == "show":
            return b"Train: yes\n"
        out = b""
        for name in stdin.decode().splitlines():
            kind, data = ("commit", b"tree x\n\nm\n\nTrain: yes\n") if "^{commit}" in name else ("blob", SETTINGS)
            out += b"%s %s %d\n%s\n" % (A.encode(), kind.encode(), len(data), data)
        return out

    return git


def pushed(name: str) -> bytes:
    return os.fsencode(f"refs/heads/{name} {A} refs/heads/{name} {NOTHING}\n")


def test_a_ref_of_any_name_reaches_git_as_an_object_id_alone_and_the_terminal_as_one_line():
    for name in NAMES.values():
        try:
            refs = read_lines(pushed(name))
        except UsageError as error:
            assert "\n" in name or " " in name
            assert visible(str(error)) == str(error)
            continue
        asked: list[tuple[tuple[str, ...], bytes]] = []
        selected = selection.select(refs, git_of(asked))
        for arguments, stdin in asked:
            assert arguments in {("cat-file", "--batch"), (*arguments[:-1], A)}
            assert re.fullmatch(rb"(?:[ab]{40}(?:\^\{commit\}|:runctl\.toml|:pyproject\.toml)\n)*", stdin)
        for each_one in selected:
            out = io.StringIO()
            pre_push._tell(out, telling.refused(each_one, SourceError(f"{name} is not there", f"git rm {name}")))
            said = out.getvalue().split("\n")
            assert all(visible(line) == line for line in said)
            assert all(line.startswith("runctl-action: ") for line in said[:-1])
            out.getvalue().encode()


@pytest.mark.parametrize(
    "data", [b"[" * 20_000, b"a = " + b"[" * 20_000, b"a = " + b"9" * 5_000, b"\xff"], ids=range(4)
)
def test_settings_in_a_pushed_commit_that_cannot_be_read_are_left_to_the_check(data):
    selected = selection._selected(read_lines(pushed("x"))[0], A, b"", {"runctl.toml": data}, git_of([]))
    assert selected is not None
    assert not selected.is_trained


@pytest.mark.skipif(shutil.which("bash") is None, reason="$'…' is bash's, and POSIX.1-2024's")
def test_a_command_to_copy_is_read_by_a_shell_as_exactly_its_words(tmp_path):
    words = list(NAMES.values())
    shown = command(["printf", r"%s\0", *words])
    assert visible(shown) == shown
    done = subprocess.run(["bash", "-c", shown], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == b"".join(os.fsencode(word) + b"\0" for word in words)
    assert list(tmp_path.iterdir()) == []
