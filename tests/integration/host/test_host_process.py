"""What happens on the host, and that the result says it as it was."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from runctl_action.contract.documents import Status, Stop
from runctl_action.contract.layout import Layout

LAYOUT = Layout()


@pytest.mark.parametrize("code", [0, 1, 3, 137, 143, 168, 194])
def test_an_exit_code_is_reported_as_it_is(train: Any, code: int) -> None:
    found = train(f"import sys; print('working'); sys.exit({code})")
    assert (found.result.exit_code, found.result.signal) == (code, None)
    assert (found.result.outcome, found.result.cause) == (("succeeded", None) if code == 0 else ("failed", "exit"))
    assert "working\n" in found.log
    assert found.code == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_reported_as_a_signal(train: Any, number: signal.Signals) -> None:
    found = train(f"import os; os.kill(os.getpid(), {int(number)})")
    assert (found.result.outcome, found.result.cause) == ("failed", "signal")
    assert (found.result.exit_code, found.result.signal) == (None, number)
    assert number.name in found.result.message


def test_the_host_arms_its_limit_before_training_and_powers_off_after_the_result(train: Any) -> None:
    found = train("print('x')", settings={"max_duration_seconds": 3600})
    assert found.shutdowns[0].startswith("shutdown -h +")
    assert int(found.shutdowns[0].rpartition("+")[2]) > 60
    assert found.shutdowns[1].startswith("systemctl stop runctl-lease.timer")
    assert found.shutdowns[-1] == "shutdown -h now"


LEAVES = """
import os, subprocess, sys, time
child = subprocess.Popen(["sh", "-c", "setsid sleep 300 & echo $! > %s; sleep 300"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("%s", "w").write(str(os.getpid()))
        time.sleep(300)
    os._exit(0)
while not (os.path.exists("%s") and os.path.exists("%s") and open("%s").read()):
    time.sleep(0.01)
print("leaving")
"""


def test_children_that_left_their_session_are_gone_afterwards(train: Any, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    found = train(LEAVES % (a, b, a, b, a))
    assert found.result.outcome == "succeeded"
    assert "that the training had left behind" in found.log
    for file in (a, b):
        pid = int(file.read_text())
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_two_hundred_thousand_lines_are_complete_and_in_order(train: Any) -> None:
    found = train("for n in range(200_000): print(n, 'x' * 40)")
    lines = [line.split()[0] for line in found.log.splitlines() if line.endswith("x" * 40)]
    assert lines == [str(n) for n in range(200_000)]


ODD = [
    "",
    "a b",
    '"q"',
    "'",
    "$HOME",
    "$(id)",
    "[1,2]",
    "null",
    "--spot",
    "--",
    "*",
    "new\nline",
    "🎉",
    "{{ssm:x}}",
    "caf\udce9",
]


def test_arguments_arrive_unchanged(train: Any) -> None:
    script = (
        "import json, os, sys; open('got.json', 'w').write(json.dumps([os.fsencode(a).hex() for a in sys.argv[1:]]))\n"
    )
    script += "print(open('got.json').read())"
    found = train(script, *ODD)
    got = json.loads(found.log.splitlines()[-1])
    assert [os.fsdecode(bytes.fromhex(item)) for item in got] == ODD


def test_a_script_in_a_subdirectory_imports_a_sibling_package(train: Any) -> None:
    files = {
        "training/deep/train.py": "import models.net; print(models.net.NAME)",
        "models/__init__.py": "",
        "models/net.py": "NAME = 'net'",
    }
    found = train(files, script="training/deep/train.py")
    assert found.result.outcome == "succeeded"
    assert "net\n" in found.log


def test_a_failed_installation_is_install_with_its_output(train: Any) -> None:
    files = {"train.py": "print('trained')", "requirements.txt": "./no-such-package\n"}
    found = train(files, settings={"install": "auto"})
    assert (found.result.outcome, found.result.cause) == ("failed", "install")
    assert "no-such-package" in found.log
    assert "trained" not in found.log
    assert found.result.exit_code is None


def test_a_command_of_the_users_installs(train: Any) -> None:
    found = train("print(open('made').read())", settings={"install": "echo by-command > made"})
    assert found.result.outcome == "succeeded"
    assert "by-command" in found.log
    assert [p.phase for p in found.result.phases] == ["syncing", "syncing", "installing", "training", "collecting"]


def test_the_training_gets_the_runs_variables_and_the_users(train: Any) -> None:
    names = [
        "RUNCTL_RUN_ID",
        "RUNCTL_ATTEMPT",
        "RUNCTL_CHECKPOINT_DIR",
        "PYTHONUNBUFFERED",
        "MINE",
        "RUNCTL_RESUME_FROM",
    ]
    found = train(
        f"import os, json; print(json.dumps([os.environ.get(n) for n in {names}]))",
        settings={"env": {"MINE": "$x 'y'"}},
    )
    run_id, attempt, folder, unbuffered, mine, resume = json.loads(found.log.splitlines()[-1])
    assert (run_id, attempt, unbuffered, mine, resume) == ("run-1", "1", "1", "$x 'y'", None)
    assert folder.endswith("/source/checkpoints")


CHECKPOINTS = """
import os, pathlib
folder = pathlib.Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
(folder / "one.bin").write_bytes(b"1" * 1000)
(folder / "sharded").mkdir()
(folder / "sharded" / "a").write_text("a")
(folder / "sharded" / "b").write_text("b")
(folder / "unfinished.tmp").write_text("x")
open("metrics.jsonl", "w").write('{"epoch": 1, "loss": 0.5}\\nnot json\\n{"epoch": 2, "loss": NaN}\\n')
"""


def test_checkpoints_files_and_directories_are_uploaded_with_their_sha256(train: Any, s3: Any) -> None:
    import hashlib
    import io
    import tarfile

    found = train(CHECKPOINTS)
    kept = {c.path: c for c in found.result.checkpoints}
    assert set(kept) == {"checkpoints/one.bin", "checkpoints/sharded"}
    for checkpoint in kept.values():
        data = s3.get(checkpoint.key).data
        assert (len(data), hashlib.sha256(data).hexdigest()) == (checkpoint.bytes, checkpoint.sha256)
        assert not checkpoint.suspect
    packed = s3.get(kept["checkpoints/sharded"].key).data
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames() == ["a", "b"]
    assert found.result.metrics == ({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": "nan"})
    assert any("1 lines are not JSON" in warning for warning in found.result.warnings)


def test_a_resumed_attempt_gets_its_checkpoint_back(train: Any) -> None:
    first = train(CHECKPOINTS)
    kept = {c.path: c for c in first.result.checkpoints}
    show = "import os, sys; p = os.environ['RUNCTL_RESUME_FROM']; print(sys.argv[1:] == ['--from', p, 'x'], sorted(os.listdir(p)))"
    found = train(
        show,
        "x",
        attempt=2,
        resume_from=kept["checkpoints/sharded"],
        settings={"resume_args": ("--from", "{checkpoint}")},
    )
    assert "True ['a', 'b']" in found.log
    assert found.result.checkpoints == ()  # what was restored is not new


def test_a_missing_required_checkpoint_is_a_failure(train: Any) -> None:
    found = train("print('no checkpoint')", settings={"require_checkpoint": True})
    assert (found.result.outcome, found.result.cause, found.result.exit_code) == ("failed", "no-checkpoint", 0)


STUBBORN = """
import signal, sys, time, pathlib, os
signal.signal(signal.SIGTERM, lambda *_: (print("got TERM", flush=True), {on_term}))
print("started", flush=True)
while True: time.sleep(0.05)
"""


def test_max_duration_gives_a_grace_and_then_kills(train: Any) -> None:
    found = train(STUBBORN.format(on_term="None"), settings={"max_duration_seconds": 1, "grace_seconds": 1})
    assert (found.result.outcome, found.result.cause, found.result.signal) == ("timed-out", "max-duration", 9)
    assert "got TERM" in found.log


def test_a_hang_is_detected(train: Any) -> None:
    found = train("import time\nprint('once', flush=True)\ntime.sleep(100)", settings={"hang_timeout_seconds": 1})
    assert (found.result.outcome, found.result.cause) == ("timed-out", "hung")


def test_a_stop_gives_a_last_checkpoint(train: Any, s3: Any) -> None:
    leave = "(pathlib.Path(os.environ['RUNCTL_CHECKPOINT_DIR'], 'last').write_text('x'), sys.exit(0))"
    (train.root / "train.py").write_text(STUBBORN.format(on_term=leave))
    order = train.prepare("train.py", (), {}, 1, None)
    process = train.start(order)
    own = LAYOUT.host(order.userid, order.run_id, 1)
    wait_for(lambda: "started" in train.log(order))
    from datetime import UTC, datetime

    s3.put(LAYOUT.run("run-1").stop, Stop(by="test", attempt=1, at=datetime.now(UTC)).to_json())
    found = train.finish(process, order)
    assert (found.result.outcome, found.result.cause) == ("cancelled", "stopped")
    assert [(c.path, c.suspect) for c in found.result.checkpoints] == [("checkpoints/last", True)]
    assert Status.model_validate_json(s3.get(own.status).data).phase == "done"


def test_a_second_run_on_the_host_is_told_that_it_is_busy(train: Any, s3: Any) -> None:
    (train.root / "train.py").write_text("import time; print('started', flush=True); time.sleep(60)")
    order = train.prepare("train.py", (), {}, 1, None)
    process = train.start(order)
    wait_for(lambda: "started" in train.log(order))
    second = order.model_copy(update={"attempt": 2})
    found = train.finish(train.start(second), second)
    assert (found.result.outcome, found.result.cause, found.code) == ("failed", "cloud", 75)
    assert "busy with run-1 since" in found.result.message
    process.terminate()
    assert train.finish(process, order).result.cause == "stopped"


def test_another_spec_than_the_ordered_one_is_refused(train: Any, s3: Any) -> None:
    (train.root / "train.py").write_text("print('trained')")
    order = train.prepare("train.py", (), {}, 1, None)
    key = LAYOUT.run("run-1").spec
    s3.put(key, s3.get(key).data.replace(b'"train.py"', b'"evil.py!"'))
    found = train.finish(train.start(order), order)
    assert (found.result.outcome, found.result.cause) == ("failed", "sync")
    assert "trained" not in found.log


def test_a_rewritten_pack_is_refused_before_training(train: Any, s3: Any) -> None:
    (train.root / "train.py").write_text("print('trained')")
    order = train.prepare("train.py", (), {}, 1, None)
    for key in s3.keys("runctl/packs/"):
        data = s3.get(key).data
        s3.put(key, data[:-1] + bytes([data[-1] ^ 255]))
    found = train.finish(train.start(order), order)
    assert (found.result.outcome, found.result.cause) == ("failed", "sync")
    assert "trained" not in found.log
    assert found.shutdowns[-1] == "shutdown -h now"


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
