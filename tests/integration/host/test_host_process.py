"""What happens on the host, and that the result says it as it was."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from runctl_action.contract.documents import CheckpointList, Resume, Status, Stop
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
    armed, forced, cancelled = (
        found.shutdowns.index(line)
        for line in (
            "systemd-run --quiet --collect --unit=runctl-limit --on-active=4802 shutdown -h now",
            "systemd-run --quiet --collect --unit=runctl-limit-forced --on-active=5102 poweroff -f",
            "systemctl stop runctl-lease.timer runctl-lease-forced.timer",
        )
    )
    assert armed < forced < cancelled
    assert found.shutdowns[-1] == "shutdown -h now"


def test_without_timers_the_limit_is_a_shutdown(train: Any) -> None:
    train.failing = {"systemd-run": 127}
    found = train("print('x')", settings={"max_duration_seconds": 3600})
    assert "shutdown -h +81" in found.shutdowns
    assert found.shutdowns.index("shutdown -h +81") < found.shutdowns.index(
        "systemctl stop runctl-lease.timer runctl-lease-forced.timer"
    )
    assert found.result.warnings == ()


def test_a_limit_that_cannot_be_armed_leaves_the_boot_timer_and_is_said(train: Any) -> None:
    train.failing = {"systemd-run": 1, "shutdown": 1}
    found = train("print('x')")
    assert found.result.outcome == "succeeded"
    assert not [line for line in found.shutdowns if line.startswith("systemctl stop")]
    assert any("boot timer" in warning for warning in found.result.warnings)
    assert "boot timer" in found.log


def test_a_host_of_somebody_elses_is_neither_limited_nor_powered_off(train: Any) -> None:
    (train.root / "train.py").write_text("print('x')")
    order = train.prepare("train.py").model_copy(update={"power_off": False})
    found = train.finish(train.start(order), order)
    assert found.result.outcome == "succeeded"
    assert found.shutdowns == []


def test_a_host_that_is_kept_after_a_failure_outlives_its_limit(train: Any) -> None:
    found = train("import sys; sys.exit(1)", settings={"keep_on_failure_seconds": 1800})
    assert "shutdown -h now" not in found.shutdowns
    kept = found.shutdowns.index("shutdown -h +30")
    assert any("--on-active=2100 shutdown -h now" in line for line in found.shutdowns[kept:])


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


@pytest.mark.parametrize(
    ("globs", "shown"), [(("out/*/model-*.pt",), "/source/out"), (("*.pt",), "/source"), ((), "/source")]
)
def test_the_checkpoints_folder_is_made_and_is_no_pattern(train: Any, globs: tuple[str, ...], shown: str) -> None:
    show = "import os; p = os.environ['RUNCTL_CHECKPOINT_DIR']; print(os.listdir(p) is not None, p)"
    found = train(show, settings={"checkpoints": globs})
    assert "True " in found.log
    assert f"{shown}\n" in found.log


def test_a_file_in_the_place_of_the_checkpoints_folder_is_the_trainings_affair(train: Any) -> None:
    found = train({"train.py": "print('trained')", "checkpoints": "a file"})
    assert (found.result.outcome, found.result.checkpoints) == ("succeeded", ())


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


def resume(found: Any, *paths: str, **changed: Any) -> Resume:
    """From `paths`, the first of them first, of what a training left."""
    kept = {checkpoint.path: checkpoint for checkpoint in found.result.checkpoints}
    return Resume(run_id="run-1", checkpoints=tuple(kept[path].model_copy(update=changed) for path in paths))


SHOW = """
import os, pathlib, sys
first = os.environ["RUNCTL_RESUME_FROM"]
print(sys.argv[1:] == ["--from", first, "x"], sorted(os.listdir(first)))
folder = pathlib.Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
print(sorted(p.name for p in folder.iterdir()), (folder / "one.bin").stat().st_mtime > 1e9)
"""


def test_a_resumed_attempt_gets_its_checkpoints_back_and_they_are_not_new(train: Any) -> None:
    first = train(CHECKPOINTS)
    found = train(
        SHOW,
        "x",
        attempt=2,
        resume=resume(first, "checkpoints/sharded", "checkpoints/one.bin"),
        settings={"resume_args": ("--from", "{checkpoint}"), "require_checkpoint": True},
    )
    assert "True ['a', 'b']" in found.log
    assert "['one.bin', 'sharded'] True" in found.log
    sizes = {c.path: c.bytes for c in first.result.checkpoints}
    assert f"[runctl] 2 checkpoints, {sum(sizes.values())} bytes, put back from run-1\n" in found.log
    assert found.result.checkpoints == ()
    # Whether an earlier attempt wrote the one that is required is for the launcher to say.
    assert (found.result.outcome, found.result.exit_code) == ("succeeded", 0)


def test_without_the_checkpoint_to_start_from_nothing_trains(train: Any) -> None:
    first = train(CHECKPOINTS)
    damaged = resume(first, "checkpoints/one.bin", sha256="0" * 64)
    found = train("print('trained')", attempt=2, resume=damaged)
    assert (found.result.outcome, found.result.cause) == ("failed", "sync")
    assert "checkpoints/one.bin" in found.result.message
    assert "damaged" in found.result.message
    assert "trained" not in found.log


def test_another_checkpoint_that_is_missing_is_a_warning(train: Any) -> None:
    first = train(CHECKPOINTS)
    both = resume(first, "checkpoints/one.bin"), resume(first, "checkpoints/sharded", key="runctl/no/such")
    merged = Resume(run_id="run-1", checkpoints=both[0].checkpoints + both[1].checkpoints)
    found = train("print('trained')", attempt=2, resume=merged)
    assert found.result.outcome == "succeeded"
    assert any("checkpoints/sharded" in warning for warning in found.result.warnings)
    assert "[runctl] 1 checkpoints, 1000 bytes" in found.log


def test_another_resume_than_the_ordered_one_is_refused(train: Any, s3: Any) -> None:
    first = train(CHECKPOINTS)
    order = train.prepare("train.py", attempt=2, resume=resume(first, "checkpoints/one.bin"))
    s3.put(LAYOUT.run("run-1").resume(2), resume(first, "checkpoints/sharded").to_json())
    found = train.finish(train.start(order), order)
    assert (found.result.outcome, found.result.cause) == ("failed", "sync")
    assert "not what was ordered" in found.result.message


ROTATES = """
import os, pathlib, sys, time
folder = pathlib.Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
(folder / "old.bin").write_text("old")
print("written", flush=True)
while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)
(folder / "new.bin").write_text("new")
(folder / "old.bin").unlink()
"""


def test_a_checkpoint_that_the_training_takes_away_is_kept_and_said(train: Any, s3: Any, tmp_path: Path) -> None:
    (train.root / "train.py").write_text(ROTATES)
    go_on = tmp_path / "go on"
    order = train.prepare("train.py", (str(go_on),))
    process = train.start(order)
    own = LAYOUT.host(order.userid, order.run_id, 1)
    wait_for(lambda: s3.get(own.checkpoints) is not None)
    go_on.touch()
    found = train.finish(process, order)
    listed = CheckpointList.model_validate_json(s3.get(own.checkpoints).data)
    assert {c.path: c.removed for c in listed.checkpoints} == {
        "checkpoints/old.bin": True,
        "checkpoints/new.bin": False,
    }
    assert listed.checkpoints == found.result.checkpoints


HOSTILE = """
import os, pathlib
folder = pathlib.Path(os.environ["RUNCTL_CHECKPOINT_DIR"])
(folder / "good.bin").write_text("good")
os.utime(folder / "good.bin", (0, 0))
(folder / "elsewhere").symlink_to("/etc")
(folder / "round").symlink_to("round")
os.mkfifo(folder / "pipe")
(folder / "deep").mkdir()
(folder / "deep" / "a").write_text("a")
os.mkfifo(folder / "deep" / "pipe")
(folder / "deep" / "out").symlink_to("/etc/passwd")
(folder / ("n" * 255)).write_text("long")
os.mkfifo("metrics.jsonl")
"""


def test_whatever_lies_among_the_checkpoints_the_good_ones_are_kept(train: Any) -> None:
    found = train(HOSTILE, settings={"require_checkpoint": True})
    assert found.result.outcome == "succeeded"
    assert {c.path for c in found.result.checkpoints} == {
        "checkpoints/good.bin", "checkpoints/deep", "checkpoints/" + "n" * 255,
    }  # fmt: skip


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


HANGS = """
import subprocess, sys, threading, time
def held_up_in_a_thread(): time.sleep(1000)
threading.Thread(target=held_up_in_a_thread, daemon=True).start()
if "child" in sys.argv:
    def held_up_in_a_child():
        print("there", flush=True)
        time.sleep(1000)
    held_up_in_a_child()
subprocess.Popen(["sleep", "1000"])
child = subprocess.Popen([sys.executable, __file__, "child"], stdout=subprocess.PIPE)
def held_up():
    print("once", child.stdout.readline(), flush=True)
    time.sleep(1000)
held_up()
"""


def hang_of(found: Any) -> str:
    """What was said between the last output and the end."""
    assert (found.result.outcome, found.result.cause) == ("timed-out", "hung")
    told, _, after = found.log.partition("[runctl] ending the training (hung): SIGTERM")
    assert after
    return str(told)


def test_a_hang_is_detected_and_its_stacks_are_in_the_log_before_the_end(train: Any) -> None:
    # Whether py-spy can be had depends on the machine; where a training hangs is told in any case.
    told = hang_of(train(HANGS, settings={"hang_timeout_seconds": 3, "install": "auto"}))
    assert "where its Python processes are (2)" in told
    for function in ("held_up ", "held_up_in_a_thread", "held_up_in_a_child"):
        assert function in told.replace("\n", " ")


def test_without_py_spy_a_training_tells_itself_where_it_hangs(train: Any, tmp_path: Path) -> None:
    nothing = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "empty")}
    told = hang_of(train(HANGS, settings={"hang_timeout_seconds": 3, "install": "auto"}, **nothing))
    assert "cannot be had: " in told
    assert told.count("most recent call first") == 4  # two processes of two threads
    for function in ("held_up\n", "held_up_in_a_thread\n", "held_up_in_a_child\n"):
        assert f"in {function}" in told


def test_a_training_that_can_neither_be_seen_nor_asked_is_ended_all_the_same(train: Any, tmp_path: Path) -> None:
    nothing = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "empty")}
    found = train(HANGS, settings={"hang_timeout_seconds": 3}, **nothing)
    assert hang_of(found).count("cannot be asked") == 2
    assert found.result.signal == signal.SIGTERM


def test_a_stop_gives_a_last_checkpoint(train: Any, s3: Any) -> None:
    leave = "(pathlib.Path(os.environ['RUNCTL_CHECKPOINT_DIR'], 'last').write_text('x'), sys.exit(0))"
    (train.root / "train.py").write_text(STUBBORN.format(on_term=leave))
    order = train.prepare("train.py")
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
    order = train.prepare("train.py")
    process = train.start(order)
    wait_for(lambda: "started" in train.log(order))
    second = order.model_copy(update={"attempt": 2})
    found = train.finish(train.start(second), second)
    assert (found.result.outcome, found.result.cause, found.code) == ("failed", "cloud", 75)
    assert "busy with run-1 since" in found.result.message
    process.terminate()
    assert train.finish(process, order).result.cause == "host-stopped"


def test_another_spec_than_the_ordered_one_is_refused(train: Any, s3: Any) -> None:
    (train.root / "train.py").write_text("print('trained')")
    order = train.prepare("train.py")
    key = LAYOUT.run("run-1").spec
    s3.put(key, s3.get(key).data.replace(b'"train.py"', b'"evil.py!"'))
    found = train.finish(train.start(order), order)
    assert (found.result.outcome, found.result.cause) == ("failed", "sync")
    assert "trained" not in found.log


def test_a_rewritten_pack_is_refused_before_training(train: Any, s3: Any) -> None:
    (train.root / "train.py").write_text("print('trained')")
    order = train.prepare("train.py")
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
