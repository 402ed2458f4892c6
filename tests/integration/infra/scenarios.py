"""What the product does on AWS, each part of it once. A new feature that calls AWS adds a scenario here, and its actions
to the template: the tests compare the two."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from iam import Asked
from scene import Scene

SAVES = "from pathlib import Path\nPath('checkpoints/a.bin').write_bytes(b'abc')\nprint('trained')\n"
# Above the size from which files are uploaded in parts; nothing compresses it.
BIG = 65 * 2**20
SAVES_MUCH = f"""
import os
from pathlib import Path
for name in ("worse", "better"):
    Path(f"checkpoints/{{name}}.bin").write_bytes(os.urandom({BIG}))
"""
WAITS = """
import signal, sys, time
from pathlib import Path
def save(*_):
    Path("checkpoints/last.bin").write_bytes(b"last")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("training", flush=True)
time.sleep(300)
"""
HAS_SECRETS = """
import os
assert (os.environ["ONE"], os.environ["OTHER"]) == ("of parameter store", "of secrets manager")
"""
RESUMES = """
import os, time
from pathlib import Path
if os.environ["RUNCTL_ATTEMPT"] == "1":
    Path("checkpoints/a.bin").write_bytes(b"abc")
    time.sleep(300)
"""


def a_spot_launch_that_falls_back_to_on_demand(scene: Scene) -> None:
    with scene.faults("no-capacity:market=spot"):
        said = scene.train(scene.repository(SAVES))
    assert said.ending == (0, "succeeded", None), said.text
    assert [instance["market"] for instance in said.report["instances"]] == ["on-demand"]
    assert said.report["receipt"]["total_usd"]
    assert [checkpoint["path"] for checkpoint in said.report["checkpoints"]] == ["checkpoints/a.bin"]


def an_interruption_and_a_second_attempt(scene: Scene) -> None:
    told = []

    def tells_of_a_reclaim(asked: Asked) -> bool:
        if asked.resource.endswith("/checkpoints.json") and not told:
            told.append(asked)
            scene.aws.world.faults.add("spot-notice:phase=training,reclaim=0.1")
        return False

    with scene.faults(), scene.refusing(scene.host, tells_of_a_reclaim):
        said = scene.train(scene.repository(RESUMES))
    assert said.ending == (0, "succeeded", None), said.text
    assert (said.report["attempts"], said.report["resumed_from"]) == (2, "checkpoints/a.bin")
    assert said.report["instances"][0]["market"] == "spot"


def checkpoints_of_several_parts_one_of_which_fails(scene: Scene) -> None:
    with scene.refusing(scene.host, second("s3:PutObject", "/worse.bin")):
        said = scene.train(scene.repository(SAVES_MUCH))
    assert said.ending == (0, "succeeded", None), said.text
    assert [(checkpoint["path"], checkpoint["bytes"]) for checkpoint in said.report["checkpoints"]] == [
        ("checkpoints/better.bin", BIG)
    ]
    [warning] = said.report["warnings"]
    assert "checkpoints/worse.bin could not be kept" in warning
    assert "s3:PutObject" in warning


def a_pack_of_several_parts_one_of_which_fails(scene: Scene) -> None:
    root = scene.repository(SAVES, **{"data.bin": random.Random(0).randbytes(BIG)})
    with scene.refusing(scene.launcher, second("s3:PutObject", ".tar.zst")):
        said = scene.train(root)
    assert said.ending == (5, "failed", "sync"), said.text
    assert "is not authorized to perform: s3:PutObject" in said.report["message"]


def a_detached_run_that_is_looked_at_and_stopped(scene: Scene) -> None:
    root = scene.repository(WAITS)
    run_id = scene.runctl(root, "train", "--no-wait", "train.py").run_id
    assert scene.runctl(root, "report", "--json", run_id).report["phase"] == "training"
    assert run_id in scene.runctl(root, "list").text
    said = scene.runctl(root, "stop", "--json", run_id)
    assert (said.report["outcome"], said.report["cause"]) == ("cancelled", "stopped"), said.text
    assert [checkpoint["path"] for checkpoint in said.report["checkpoints"]] == ["checkpoints/last.bin"]
    assert "training" in scene.runctl(root, "logs", run_id).text


def an_instance_of_ones_own_and_secrets_of_both_stores(scene: Scene) -> None:
    instance = scene.instance({"runctl:bucket": scene.bucket})
    secrets = ("--secrets", "ONE=ssm:/team/wandb", "--secrets", "OTHER=secretsmanager:team/hf")
    said = scene.train(scene.repository(HAS_SECRETS), "--instance-id", instance, *secrets)
    assert said.ending == (0, "succeeded", None), said.text
    assert scene.runctl(scene.repository(SAVES), "collect").code == 0
    assert scene.aws.world.instances[instance].state == "running"


def a_pack_that_was_damaged_in_the_bucket(scene: Scene) -> None:
    root = scene.repository("print('trained')")
    assert scene.train(root).code == 0
    s3 = scene.owner("s3")
    for item in s3.list_objects_v2(Bucket=scene.bucket, Prefix="runctl/packs/")["Contents"]:
        if item["Key"].endswith(".tar.zst"):
            s3.put_object(Bucket=scene.bucket, Key=item["Key"], Body=b"x" * item["Size"])
    scene.commit(root)
    assert scene.train(root).ending == (5, "failed", "sync")


def a_doctor(scene: Scene) -> None:
    said = scene.runctl(scene.repository(SAVES), "doctor", "train.py")
    assert said.code == 0, said.text


def a_quote(scene: Scene) -> None:
    said = scene.runctl(scene.repository(SAVES), "quote", "--json", "train.py")
    assert said.code == 0, said.text


def second(action: str, ending: str) -> Callable[[Asked], bool]:
    """Of a multipart upload, the first part: what is asked for before is the upload itself."""
    numbers = itertools.count(1)
    return lambda asked: asked.action == action and asked.resource.endswith(ending) and next(numbers) == 2


SCENARIOS: tuple[Callable[[Scene], None], ...] = (
    a_quote,
    a_spot_launch_that_falls_back_to_on_demand,
    an_interruption_and_a_second_attempt,
    checkpoints_of_several_parts_one_of_which_fails,
    a_pack_of_several_parts_one_of_which_fails,
    a_detached_run_that_is_looked_at_and_stopped,
    a_pack_that_was_damaged_in_the_bucket,
    a_doctor,
    an_instance_of_ones_own_and_secrets_of_both_stores,
)
