"""How soon the emulator answers, a host of its is online, and a quote is there: medians, in one run.

python -m benchmarks.emulator [--rounds N]
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
import time
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config

from runctl_action import cli

FIRST_ANSWER_SECONDS = 1.5
ONLINE_SECONDS = 0.5
COLD_QUOTE_SECONDS = 1.0
WARM_QUOTE_SECONDS = 0.1
_PATIENT = Config(retries={"total_max_attempts": 1}, connect_timeout=0.2)


def main() -> int:
    """0 when both medians are within their targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    answers: list[float] = []
    online: list[float] = []
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(rounds):
        started = time.monotonic()
        with _emulator() as environ:
            _client(environ, "sts").get_caller_identity()
            answers.append(time.monotonic() - started)
            # The first call of a service loads it in the server; the second is what a run sees.
            online += [_seconds_to_online(environ) for _ in range(2)][1:]
            with tempfile.TemporaryDirectory() as cache:
                quotes = [_seconds_to_quote(environ | {"XDG_CACHE_HOME": cache}) for _ in range(2)]
            cold.append(quotes[0])
            warm.append(quotes[1])
    held = [
        _row("start to first answer", statistics.median(answers), FIRST_ANSWER_SECONDS),
        _row("launch to online", statistics.median(online), ONLINE_SECONDS),
        _row("quote, cold cache", statistics.median(cold), COLD_QUOTE_SECONDS),
        _row("quote, warm cache", statistics.median(warm), WARM_QUOTE_SECONDS),
    ]
    return 0 if all(held) else 1


@contextlib.contextmanager
def _emulator() -> Iterator[dict[str, str]]:
    command = [sys.executable, "-m", "runctl_action", "emulator"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = (process.stdout.readline().removeprefix("export ").strip() for _ in range(7))
        try:
            yield dict(line.split("=", 1) for line in lines)
        finally:
            process.terminate()


def _seconds_to_online(environ: dict[str, str]) -> float:
    ec2, ssm = _client(environ, "ec2"), _client(environ, "ssm")
    image = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
    started = time.monotonic()
    launched = ec2.run_instances(
        ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1,
        IamInstanceProfile={"Name": environ["RUNCTL_INSTANCE_PROFILE"]},
    )  # fmt: skip
    target = launched["Instances"][0]["InstanceId"]
    while ssm.get_connection_status(Target=target)["Status"] != "connected":
        time.sleep(0.005)
    return time.monotonic() - started


def _seconds_to_quote(environ: dict[str, str]) -> float:
    """In this process, after imports (the first quote of all imports what is left, and is not a median)."""
    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        code = cli.run(["quote", "--json", "examples/digits/train.py"], dict(os.environ) | environ)
    assert code == 0
    return time.monotonic() - started


def _client(environ: dict[str, str], service: str) -> Any:
    session = boto3.Session(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"])
    return session.client(
        service, region_name=environ["AWS_REGION"], endpoint_url=environ["AWS_ENDPOINT_URL"], config=_PATIENT
    )  # type: ignore[call-overload]


def _row(name: str, seconds: float, target: float) -> bool:
    print(f"{name:24} {seconds:6.3f} s   <= {target} s  {'✓' if seconds <= target else '✗'}")
    return seconds <= target


if __name__ == "__main__":
    sys.exit(main())
