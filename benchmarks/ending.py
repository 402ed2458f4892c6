"""How soon a host is off once its training has ended: the end is billed as well.

python -m benchmarks.ending [--rounds N] [--megabytes N]

Beside it, in the same run, one plain upload of as many bytes: what the last checkpoint takes is not ours to save.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

from runctl_action import cli
from runctl_action.emulator.server import BUCKET, Emulator

TARGET_SECONDS = 3.0
_TRAINING = """
import os, sys, time
from pathlib import Path
Path(os.environ["RUNCTL_CHECKPOINT_DIR"], "last.bin").write_bytes(os.urandom(int(sys.argv[1])))
Path(sys.argv[2]).write_text(repr(time.time()))
"""


def main() -> int:
    """0 when the median beyond the upload is within its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=50)
    options = parser.parse_args()
    size = options.megabytes * 1024 * 1024
    endings, uploads = [], []
    with tempfile.TemporaryDirectory() as directory, Emulator(Path(directory) / "aws") as aws:
        for number in range(options.rounds):
            folder = Path(directory) / str(number)
            endings.append(_seconds_to_off(aws, folder, size))
            uploads.append(_seconds_to_upload(aws, size))
    ending, upload = statistics.median(endings), statistics.median(uploads)
    beyond = ending - upload
    holds = beyond <= TARGET_SECONDS
    of = f"with a last checkpoint of {options.megabytes} MiB"
    print(f"exit to power-off {ending:.2f} s {of}, a plain upload {upload:.2f} s")
    print(f"beyond the upload {beyond:6.2f} s   <= {TARGET_SECONDS} s  {'✓' if holds else '✗'}")
    return 0 if holds else 1


def _seconds_to_off(aws: Emulator, folder: Path, size: int) -> float:
    folder.mkdir()
    (folder / "train.py").write_text(_TRAINING)
    for command in ("git init -q", "git add train.py", "git -c user.name=x -c user.email=x@y commit -q -m x"):
        subprocess.run(command.split(), cwd=folder, check=True)
    ended_at = folder / "ended"
    off_at: list[float] = []
    watch = threading.Thread(target=_watch, args=(_client(aws, "ec2"), ended_at.exists, off_at), daemon=True)
    watch.start()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            environ = dict(os.environ) | aws.environ | {"RUNCTL_INSTALL": "skip"}
            assert cli.run(["train", "train.py", "--", str(size), str(ended_at)], environ) == 0
    finally:
        os.chdir(before)
    watch.join(30)
    return off_at[0] - float(ended_at.read_text())


def _watch(ec2: Any, has_ended: Callable[[], bool], off_at: list[float]) -> None:
    """Notes when the only host is not running any more."""
    while not has_ended():
        time.sleep(0.02)
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    while ec2.describe_instances(Filters=running)["Reservations"]:
        time.sleep(0.02)
    off_at.append(time.time())


def _seconds_to_upload(aws: Emulator, size: int) -> float:
    data = os.urandom(size)
    started = time.monotonic()
    _client(aws, "s3").upload_fileobj(io.BytesIO(data), BUCKET, "benchmark")
    return time.monotonic() - started


def _client(aws: Emulator, service: str) -> Any:
    session = boto3.Session(aws.environ["AWS_ACCESS_KEY_ID"], aws.environ["AWS_SECRET_ACCESS_KEY"])
    return session.client(  # type: ignore[call-overload]
        service, region_name=aws.environ["AWS_REGION"], endpoint_url=aws.environ["AWS_ENDPOINT_URL"]
    )


if __name__ == "__main__":
    sys.exit(main())
