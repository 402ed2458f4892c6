"""A training that is out for harm, with its instance's own credentials and as much of a machine as it has."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runctl_action.emulator.server import BUCKET
from runctl_action.emulator.state import ACCOUNT, LAUNCHER_ROLE

# What stands before each script: clients with the instance's own credentials, and `tried`, which notes how a try ended.
WITH = """
import json, os, signal, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path
import boto3, botocore.exceptions
from botocore.config import Config
session = boto3.Session(region_name=os.environ["AWS_REGION"])
once = Config(retries={"mode": "standard", "total_max_attempts": 1}, signature_version="v4")
aws = lambda service: session.client(service, config=None if service == "s3" else once)
s3, ended = aws("s3"), {}
def tried(name, call, *args, **parameters):
    try:
        call(*args, **parameters)
        ended[name] = "done"
    except botocore.exceptions.ClientError as error:
        ended[name] = error.response["Error"]["Code"]
    except urllib.error.HTTPError as error:
        ended[name] = str(error.code)
"""

TRIES = """
import argparse
told = argparse.ArgumentParser()
for name in ("bucket", "victim", "userid", "instance", "pack", "hint", "tool", "secret", "role"):
    told.add_argument(f"--{name}")
at = told.parse_args()
own = session.client("sts").get_caller_identity()["UserId"]
run = os.environ["RUNCTL_RUN_ID"]
forged = json.dumps({"version": 1, "run_id": at.victim, "attempt": 1, "outcome": "failed", "cause": "exit",
                     "exit_code": 66, "at": "2030-01-01T00:00:00Z"}).encode()
put = lambda name, key: tried(name, s3.put_object, Bucket=at.bucket, Key=key, Body=forged)
put("its own request", f"runctl/runs/{run}/spec.json")
put("another's request", f"runctl/runs/{at.victim}/spec.json")
put("another's stop", f"runctl/runs/{at.victim}/stop.json")
put("another's report", f"runctl/runs/{at.victim}/report.json")
put("a claim of its next attempt", f"runctl/runs/{run}/attempts/2/claim.json")
put("a pack", at.pack)
put("a new pack", "runctl/packs/" + "0" * 64 + ".tar.zst")
put("a hint", at.hint)
put("a tool", at.tool)
put("a marker", f"runctl/open/{at.victim}")
theirs = f"runctl/hosts/{at.userid}/{at.victim}/1/"
put("another host's result", theirs + "result.json")
put("another host's status", theirs + "status.json")
put("a prefix that begins like its own", f"runctl/hosts/{own}0/{run}/1/result.json")
put("a way up out of its own", f"runctl/hosts/{own}/../{at.userid}/{at.victim}/1/result.json")
tried("a copy", s3.copy_object, Bucket=at.bucket, Key=at.pack, CopySource={"Bucket": at.bucket, "Key": at.hint})
tried("parts", s3.create_multipart_upload, Bucket=at.bucket, Key=theirs + "result.json")
tried("a deletion", s3.delete_object, Bucket=at.bucket, Key=theirs + "result.json")
tried("a deletion of its own", s3.delete_object, Bucket=at.bucket, Key=f"runctl/hosts/{own}/{run}/1/status.json")
tried("deletions", s3.delete_objects, Bucket=at.bucket, Delete={"Objects": [{"Key": at.pack}, {"Key": at.hint}]})
tried("the bucket's policy", s3.put_bucket_policy, Bucket=at.bucket, Policy="{}")
tried("the bucket's lifecycle", s3.put_bucket_lifecycle_configuration, Bucket=at.bucket, LifecycleConfiguration={
    "Rules": [{"ID": "all", "Status": "Enabled", "Prefix": "", "Expiration": {"Days": 1}}]})
tried("another's secret", aws("ssm").get_parameter, Name=at.secret, WithDecryption=True)
tried("a parameter", aws("ssm").put_parameter, Name=at.secret, Value="mine", Overwrite=True)
tried("a command", aws("ssm").send_command, InstanceIds=[at.instance], DocumentName="AWS-RunShellScript",
      Parameters={"commands": ["id"]})
ec2 = aws("ec2")
tried("an instance", ec2.run_instances, ImageId="ami-0000000000ubuntu1", InstanceType="t3.micro", MinCount=1, MaxCount=1)
tried("an end", ec2.terminate_instances, InstanceIds=[at.instance])
tried("a tag", ec2.create_tags, Resources=[at.instance], Tags=[{"Key": "runctl:deadline", "Value": "2099-01-01T00:00:00Z"}])
tried("a role", aws("sts").assume_role, RoleArn=at.role, RoleSessionName="mine")
endpoint = os.environ["AWS_ENDPOINT_URL"]
ask = lambda url: urllib.request.urlopen(urllib.request.Request(
    url, method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}), timeout=5)
tried("another's metadata", ask, f"{endpoint}/imds/{at.instance}/latest/api/token")
# Allowed: below its own prefix it writes what it likes. It is nobody's result.
put("another's result in its own prefix", f"runctl/hosts/{own}/{at.victim}/1/result.json")
print("TRIES", json.dumps(ended), flush=True)
# What the host keeps on its disk: the log that waits, and the order.
import shutil
state = Path(os.environ["RUNCTL_HOST_DIR"])
while list(state.glob("runs/*/*/log/*")):
    time.sleep(0.05)
for place in state.glob("runs/*/*"):
    shutil.rmtree(place / "log", ignore_errors=True)
    (place / "result.json").write_bytes(forged)
    (place / "status.json").write_bytes(forged)
    (place / "order.json").unlink()
print("gone", flush=True)
sys.exit(3)
"""

# Below its own prefix it may write, whatever the rest of the key looks like: S3 knows no way up.
ALLOWED = {"another's result in its own prefix", "a way up out of its own"}
DENIED = {
    "an instance": "UnauthorizedOperation", "an end": "UnauthorizedOperation", "a tag": "UnauthorizedOperation",
    "another's secret": "AccessDeniedException", "a parameter": "AccessDeniedException",
    "a command": "AccessDeniedException", "another's metadata": "404",
}  # fmt: skip


@dataclass
class Tried:
    """What a training tried, what came of it, and the bucket before and after."""

    ended: dict[str, str]
    said: Any
    victim: str
    report: dict[str, Any]
    report_afterwards: dict[str, Any]
    before: dict[str, str]
    afterwards: dict[str, str]
    own: str


@pytest.fixture(scope="module")
def etags(s3: Any) -> Callable[[], dict[str, str]]:
    def read() -> dict[str, str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", ())}

    return read


@pytest.fixture(scope="module")
def tried(make_project: Any, aws: Any, s3: Any, etags: Any, named_secrets_only: Any) -> Tried:
    """One training that tries everything, after one that has nothing to do with it."""
    aws.world.faults.clear()
    ssm = aws.client("ssm")
    ssm.put_parameter(Name="/others/token", Value="another's", Type="SecureString", Overwrite=True)
    ssm.close()
    victim = make_project().train("print('the victim')")
    assert victim.ending == (0, "succeeded", None)
    run_id = victim.report["run_id"]
    before = etags()
    instance = victim.report["instances"][0]["id"]
    key = f"runctl/runs/{run_id}/attempts/1/instance.json"
    userid = json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())["userid"]
    found = {part: next(key for key in before if f"/{part}/" in key) for part in ("packs", "sources", "tools")}
    told = {
        "bucket": BUCKET, "victim": run_id, "userid": userid, "instance": instance, "secret": "/others/token",
        "pack": found["packs"], "hint": found["sources"], "tool": found["tools"],
        "role": f"arn:aws:iam::{ACCOUNT}:role/{LAUNCHER_ROLE}",
    }  # fmt: skip
    project = make_project()
    project.commit({"train.py": WITH + TRIES})
    args = [word for name, value in told.items() for word in (f"--{name}", value)]
    with named_secrets_only():
        said = project.finish(project.start("train", "--json", "train.py", "--", *args))
    report = project.finish(project.start("report", "--json", run_id))
    own = f"runctl/hosts/{project.userid(said.report)}/"
    return Tried(said.told("TRIES"), said, run_id, victim.report, report.report, before, etags(), own)


def tries() -> list[str]:
    return re.findall(r'(?:put|tried)\("([^"]+)"', TRIES)


@pytest.mark.parametrize("name", [name for name in tries() if name not in ALLOWED])
def test_what_a_training_may_not_do_is_denied(tried: Tried, name: str) -> None:
    assert tried.ended[name] == DENIED.get(name, "AccessDenied")


def test_the_bucket_has_changed_below_its_own_prefix_and_at_its_own_run_alone(tried: Tried) -> None:
    changed = {key for key in {*tried.before, *tried.afterwards} if tried.before.get(key) != tried.afterwards.get(key)}
    run_id = tried.said.report["run_id"]
    launchers = ("runctl/packs/", "runctl/sources/", f"runctl/runs/{run_id}/")
    others = {key for key in changed if not key.startswith((tried.own, *launchers))}
    assert not others
    assert not {key for key in changed if key in tried.before}  # nothing that was there is another
    assert {tried.ended[name] for name in ALLOWED} == {"done"}


def test_another_runs_report_says_what_it_said(tried: Tried) -> None:
    assert tried.report_afterwards == tried.report


def test_its_own_ending_is_the_true_one_whatever_it_did_to_the_hosts_state(tried: Tried) -> None:
    assert tried.said.ending == (1, "failed", "exit")
    assert tried.said.report["exit_code"] == 3


LINKS = """
import os, sys
from pathlib import Path
secret = Path(sys.argv[1])
Path("checkpoints/passwd").symlink_to(secret)
Path("checkpoints/folder").symlink_to(secret.parent)
Path("checkpoints/packed").mkdir()
Path("checkpoints/packed/inside").write_text("mine")
Path("checkpoints/packed/passwd").symlink_to(secret)
Path("checkpoints/packed/folder").symlink_to(secret.parent)
Path("out").symlink_to(secret.parent)
Path("round").symlink_to("round")
Path("deep").mkdir()
Path("deep/er").symlink_to("../out")
os.mkfifo("checkpoints/pipe")
Path("checkpoints/good").write_text("mine")
"""


def test_a_checkpoint_that_is_a_link_out_of_the_runs_directory_is_not_kept(
    project: Any, stored: Any, tmp_path: Path
) -> None:
    secret = tmp_path / "elsewhere" / "passwd"
    secret.parent.mkdir()
    secret.write_text("root:x:0:0: not the run's")
    project.commit({"train.py": LINKS})
    globs = "checkpoints/*,out/*,round/*,deep/er/*"
    said = project.finish(project.start("train", "--json", "--checkpoints", globs, "train.py", "--", str(secret)))
    assert said.ending == (0, "succeeded", None)
    assert {checkpoint["path"] for checkpoint in said.report["checkpoints"]} == {
        "checkpoints/good",
        "checkpoints/packed",
    }
    for key, data in stored(said.report["run_id"]).items():
        assert b"not the run's" not in data, key
    (warning,) = (text for text in said.report["warnings"] if text.startswith("the checkpoint out/passwd "))
    assert "a link on its way leads out of the run's directory" in warning


FORGES = """
own = session.client("sts").get_caller_identity()["UserId"]
run, bucket = os.environ["RUNCTL_RUN_ID"], sys.argv[1]
base = f"runctl/hosts/{own}/{run}/1/"
spec = json.loads(s3.get_object(Bucket=bucket, Key=f"runctl/runs/{run}/spec.json")["Body"].read())
print("forging", flush=True)
document = {"version": 1, "run_id": run, "attempt": 1, "at": "2030-01-01T00:00:00Z"}
end = {"outcome": "succeeded", "exit_code": 0, "digest": spec["digest"], "files": spec["files"],
       "metrics": [{"accuracy": 1.0}], "message": "::error::forged"}
while True:  # for as long as it lives: the host itself writes its own status meanwhile
    s3.put_object(Bucket=bucket, Key=base + "status.json", Body=json.dumps(document | {"beat": 1, "phase": "done"}).encode())
    s3.put_object(Bucket=bucket, Key=base + "result.json", Body=json.dumps(document | end).encode())
"""


def test_a_forged_result_is_about_its_own_run_and_ends_its_instance(project: Any) -> None:
    """What cannot be prevented: a training writes with the credentials that its host has."""
    project.commit({"train.py": WITH + FORGES})
    said = project.finish(project.start("train", "--json", "train.py", "--", BUCKET))
    # Either it is believed, or it is found out, by a status that contradicts it; never is it another run's.
    assert said.ending in {(0, "succeeded", None), (70, "failed", "defect")}
    assert project.state(said.report["instances"][0]["id"]) == "terminated"
    assert "\n::error::" not in said.err


STAYS = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
place = Path(sys.argv[1])
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
def stay(name):
    (place / name).write_text(str(os.getpid()))
    while True:
        time.sleep(600)
def daemon(name):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            stay(name)
        os._exit(0)
    os.wait()
daemon("twice forked")
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; echo $$ > \\"$1\\"; while :; do sleep 600; done", "x",
                  str(place / "without variables")], env={"PATH": os.environ["PATH"]}, cwd="/", close_fds=True)
if os.fork() == 0:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # a subreaper of its own
    daemon("of a subreaper")
    stay("subreaper")
if os.fork() == 0:
    ctypes.CDLL(None).prctl(15, b"kworker/0:1", 0, 0, 0)
    stay("renamed")
while len(list(place.iterdir())) < 5:
    time.sleep(0.01)
print("staying", flush=True)
stay("training")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, ending all of a host's processes is best effort")
@pytest.mark.parametrize("how", ["stop", "terminate"])
def test_no_process_survives_the_end_of_its_host(project: Any, aws: Any, tmp_path: Path, how: str) -> None:
    place = tmp_path / "pids"
    place.mkdir()
    project.commit({"train.py": STAYS})
    process = project.start("train", "--json", "train.py", "--", str(place))
    assert process.stderr is not None
    run_id = ""
    for line in process.stderr:
        run_id = run_id or next(iter(re.findall(r"run (train-[0-9a-f]{12})", line)), "")
        if line == "staying\n":
            break
    pids = [int(file.read_text()) for file in place.iterdir()]
    assert not any(map(is_gone, pids))
    if how == "stop":
        project.start("stop", run_id).communicate(timeout=120)
    else:
        with contextlib.closing(aws.client("ec2")) as ec2:
            ids = [i.id for i in aws.world.instances.values() if i.state == "running"]
            ec2.terminate_instances(InstanceIds=ids)
    said = project.finish(process)
    assert said.ending == ((130, "cancelled", "stopped") if how == "stop" else (7, "lost", "vanished"))
    assert all(map(is_gone, pids))
    assert not [pid for pid in everybody() if os.fsencode(place) in words(pid)]


KILLS = """
import os, signal, sys, time
from pathlib import Path
Path(sys.argv[1]).write_text(str(os.getpid()))
pid = os.getppid()
while sys.argv[2].encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
    pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
os.kill(pid, signal.SIGKILL)
while True:
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it looks for its ancestors in /proc")
def test_one_that_kills_the_host_process_is_lost_and_its_instance_is_ended_by_the_timer(
    project: Any, aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An hour of lease, so that the boot timer is not the one; the run's own limit is 21 minutes.
    monkeypatch.setattr(aws.world, "seconds_per_minute", 0.6)
    project.commit({"train.py": KILLS})
    flags = ("--lease", "1h", "--max-duration", "1m")
    said = project.finish(
        project.start("train", "--json", *flags, "train.py", "--", str(tmp_path / "pid"), "order.json")
    )
    assert said.ending == (7, "lost", "vanished")
    assert said.report["exit_code"] is None
    assert "Client.InstanceInitiatedShutdown" in said.report["message"]
    assert project.state(said.report["instances"][0]["id"]) == "terminated"
    assert is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="it looks for its ancestors in /proc")
def test_one_that_kills_what_the_emulator_has_for_a_machine_has_ended_its_own(project: Any, tmp_path: Path) -> None:
    project.commit({"train.py": KILLS})
    said = project.finish(project.start("train", "--json", "train.py", "--", str(tmp_path / "pid"), "supervisor"))
    assert said.ending == (7, "lost", "vanished")
    assert is_gone(int((tmp_path / "pid").read_text()))


def everybody() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True
