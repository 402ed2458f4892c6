"""The shim that git runs: one text, in three places."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runctl_action.hook import install

ROOT = Path(__file__).parent.parent.parent.parent


def test_the_file_to_copy_is_what_install_writes():
    path = ROOT / "hooks" / "pre-push"
    assert path.read_text(encoding="utf-8") == install.SHIM
    assert path.stat().st_mode & 0o111 == 0o111


def test_the_shim_is_posix_shell():
    subprocess.run(["sh", "-n", ROOT / "hooks" / "pre-push"], check=True)


def test_a_version_of_ours_is_known_whatever_its_number_unless_it_was_edited(tmp_path):
    hook = tmp_path / "pre-push"
    for text, state in [
        (install.SHIM, "current"),
        (older(), "other version"),
        (older() + "echo mine\n", "edited"),
        (install.SHIM.replace("exit 2", "exit 0"), "edited"),
        ("#!/bin/sh\nexit 0\n", "foreign"),
        ("", "foreign"),
    ]:
        hook.write_text(text)
        assert install._state(hook) == state, text
    assert install._state(tmp_path / "none") == "none"
    hook.write_bytes(b"\xff\xfe")
    assert install._state(hook) == "foreign"


def older() -> str:
    import hashlib

    body = 'exec runctl-action hook run "$@"\n'
    head = install._HEAD.replace("version 1", "version 0")
    return f"{head}{hashlib.sha256(body.encode()).hexdigest()}\n{body}"
