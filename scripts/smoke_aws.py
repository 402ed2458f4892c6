"""`make smoke-aws`: a training on a real account, spot and on-demand, for cents; then a look that nothing is left.

Opt-in, by RUNCTL_SMOKE_AWS=1. Account, bucket and instance profile come from where the product has them: runctl.toml,
RUNCTL_* variables, the AWS credentials that are there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from runctl_action.arguments import Parsed
from runctl_action.contract.layout import TAG_RUN
from runctl_action.errors import RunctlError
from runctl_action.wiring import Cloud, open_cloud

SCRIPT = "examples/digits/train.py"
MOST_USD = Decimal("0.05")
# The setting `spot`, and the market that the host has to be of.
MARKETS = {"require": "spot", "never": "on-demand"}


def main() -> int:
    if os.environ.get("RUNCTL_SMOKE_AWS") != "1":
        print("smoke-aws: skipped. It spends money (under 0.10 USD): RUNCTL_SMOKE_AWS=1 make smoke-aws")
        return 0
    tree = _output("git", "rev-parse", "HEAD^{tree}").strip()
    wrong = [problem for spot, market in MARKETS.items() for problem in _train(spot, market, tree)]
    for problem in wrong:
        print(f"smoke-aws: {problem}")
    print("smoke-aws: failed" if wrong else "smoke-aws: two trainings succeeded, and nothing is left of them")
    return 1 if wrong else 0


def _train(spot: str, market: str, tree: str) -> Iterator[str]:
    """What is wrong with one training, and with what it left."""
    done = subprocess.run(
        [
            sys.executable, "-m", "runctl_action", "train", "--json", "--again", "--name", f"smoke-{market}",
            "--spot", spot, "--instance-type", "t3.micro", "--max-cost", str(MOST_USD), "--max-duration", "20m",
            "--require-checkpoint", SCRIPT, "--", "--epochs", "3",
        ],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if not done.stdout:
        yield f"{market}: exit code {done.returncode}, and no report"
        return
    report = json.loads(done.stdout)
    yield from (f"{market}: {problem}" for problem in _of_report(report, done.returncode, market, tree))
    with open_cloud(Parsed(command="list"), os.environ) as cloud:
        yield from (f"{market}: {problem}" for problem in _left(cloud, report["run_id"]))


def _of_report(report: dict[str, Any], code: int, market: str, tree: str) -> Iterator[str]:
    if (code, report["outcome"], report["exit_code"]) != (0, "succeeded", 0):
        yield f"{report['outcome']}, {report['cause']}, exit code {code}: {report['run_id']}"
    if {instance["market"] for instance in report["instances"]} != {market}:
        yield f"the hosts were {report['instances']}"
    if report["tree"] != tree:
        yield f"the tree is {report['tree']}, and not {tree}"
    if not report["checkpoints"]:
        yield "there is no checkpoint"
    total = (report["receipt"] or {}).get("total_usd")
    if total is None or not 0 < Decimal(str(total)) <= MOST_USD:
        yield f"the receipt's total is {total} USD"


def _left(cloud: Cloud, run_id: str) -> Iterator[str]:
    """What there still is of a run that is over. Ends its instances, too: this is a test, and it costs money."""
    alive = [instance.id for instance in cloud.instances.of_run(run_id) if instance.is_alive]
    if alive:
        yield f"{', '.join(alive)} are not ended; they are now"
        cloud.instances.terminate(alive)
    if cloud.store.size(cloud.layout.open_marker(run_id)) is not None:
        yield f"{run_id} is still open"
    ec2 = cloud.session.client("ec2")
    try:
        found = ec2.describe_volumes(Filters=[{"Name": f"tag:{TAG_RUN}", "Values": [run_id]}])["Volumes"]
    except ec2.exceptions.ClientError as error:
        # The launcher's policy has no such action, because the product never asks.
        print(f"smoke-aws: volumes were not looked for: {error}")
        return
    left = [volume["VolumeId"] for volume in found if volume["State"] not in {"deleting", "deleted"}]
    if left:
        yield f"volumes are left: {', '.join(left)}"


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunctlError as error:
        print(f"smoke-aws: {error}\n  → {error.hint}")
        sys.exit(error.exit_code)
