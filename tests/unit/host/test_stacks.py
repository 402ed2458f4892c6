"""The signal on which a training tells where it is reaches nobody that it would end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runctl_action.host import stacks
from runctl_action.host.journal import Journal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it takes /proc and real-time signals")


def python(environment: Path, *options: str) -> subprocess.Popen[bytes]:
    """A process of a virtual environment, which waits."""
    waits = "import sys\ndef waits(): print('ready', flush=True); sys.stdin.read()\nwaits()"
    return subprocess.Popen(
        [str(environment / "bin" / "python"), *options, "-c", waits],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_process_of_a_prepared_environment_tells_its_stack_and_no_other_is_ended(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    stacks.prepare(environment)
    journal = Journal(lambda *_: None, tmp_path / "log")
    stream = journal.stream("training")
    with contextlib.ExitStack() as ended:
        # The second does not read its environment's .pth files: the signal would end it.
        told, untold = (ended.enter_context(python(environment, *options)) for options in ((), ("-S",)))
        for process in (told, untold):
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        assert stacks._ask(told.pid, stream)
        assert not stacks._ask(untold.pid, stream)
        assert told.stderr is not None
        assert b"in waits" in b"".join(told.stderr.readline() for _ in range(3))
        for process in (told, untold):
            process.communicate(timeout=60)
            assert process.returncode == 0
    stream.started()
    stream.finish()
    journal.close()


def test_a_process_that_is_gone_is_not_asked(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    journal = Journal(lambda *_: None, tmp_path / "log")
    stream = journal.stream("training")
    assert not stacks._ask(gone.pid, stream)
    assert not stacks._is_python(gone.pid)
    assert stacks._is_python(os.getpid())
    stream.started()
    stream.finish()
    journal.close()
