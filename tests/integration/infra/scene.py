"""Where scenarios play: repositories that train on the stack, by a session of the launcher's role as a job gets it."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from iam import Asked, Recorded, Stack, job_token, lacking

from runctl_action import cli

_ONCE = {"mode": "standard", "total_max_attempts": 1}


@dataclass
class Said:
    """What a command did: its exit code, its JSON document where it printed one, and all that it said."""

    code: int
    report: dict[str, Any]
    text: str

    @property
    def ending(self) -> tuple[int, str | None, str | None]:
        return self.code, self.report.get("outcome"), self.report.get("cause")

    @property
    def run_id(self) -> str:
        found = re.search(r"run (train-[0-9a-f]{12})", self.text)
        assert found, self.text
        return found[1]


class Scene:
    """`launcher` and `host` are the two policies, as deployed: enforced, and recorded. Closed when it is left."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.stack = stack
        self.aws = stack.aws
        self.launcher = Recorded(stack.launcher_policy())
        self.host = Recorded(stack.host_policy())
        self._directory = directory
        self._numbers = itertools.count(1)
        self._clients = contextlib.ExitStack()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.close()

    @property
    def bucket(self) -> str:
        return self.stack.outputs["Bucket"]

    @cached_property
    def environ(self) -> dict[str, str]:
        """A launcher's, with nothing but the role's session; what is the stack's comes from its output `Settings`."""
        config = Config(signature_version=UNSIGNED, retries=_ONCE)
        sts = boto3.Session(region_name=self.aws.world.region).client(
            "sts", endpoint_url=self.aws.endpoint, config=config
        )
        with contextlib.closing(sts):
            found = sts.assume_role_with_web_identity(
                RoleArn=self.stack.outputs["LauncherRoleArn"], RoleSessionName="runctl-1",
                WebIdentityToken=job_token("repo:acme/digits:ref:refs/heads/main"),
            )["Credentials"]  # fmt: skip
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return inherited | {
            "AWS_ENDPOINT_URL": self.aws.endpoint,
            "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
            "AWS_SESSION_TOKEN": found["SessionToken"],
            # Its own: prices that another test has asked for would be no calls of this one's.
            "XDG_CACHE_HOME": str(self._directory / "cache"),
            "RUNCTL_INSTALL": "skip",
            "RUNCTL_GRACE": "2s",
        }

    def repository(self, script: str, **files: bytes) -> Path:
        """A new one, with `train.py` and the stack's own `runctl.toml` in its one commit."""
        root = self._directory / f"project-{next(self._numbers)}"
        root.mkdir()
        contents = {"train.py": script.encode(), "runctl.toml": self.stack.outputs["Settings"].encode()} | files
        for name, data in contents.items():
            (root / name).write_bytes(data)
        self.commit(root, "git init -q", f"git remote add origin https://github.example/acme/{root.name}.git")
        return root

    def commit(self, root: Path, *before: str) -> None:
        for command in (*before, "git add -A", "git commit -q --allow-empty -m x"):
            subprocess.run(command.split(), cwd=root, check=True)

    def runctl(self, root: Path, *argv: str, **variables: str) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(root), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.run(argv, self.environ | variables)
        printed = out.getvalue()
        return Said(code, json.loads(printed) if printed.startswith("{") else {}, printed + err.getvalue())

    def train(self, root: Path, *flags: str, **variables: str) -> Said:
        return self.runctl(root, "train", "--json", *flags, "train.py", **variables)

    def clear(self) -> None:
        """No run is open, and no instance of the bucket's is on, for whoever plays next."""
        s3 = self.owner("s3")
        for item in s3.list_objects_v2(Bucket=self.bucket, Prefix="runctl/open/").get("Contents", ()):
            s3.delete_object(Bucket=self.bucket, Key=item["Key"])
        ours = [{"Name": "tag:runctl:bucket", "Values": [self.bucket]}]
        found = self.owner("ec2").describe_instances(Filters=ours)["Reservations"]
        alive = [
            instance["InstanceId"]
            for reservation in found
            for instance in reservation["Instances"]
            if instance["State"]["Name"] in {"pending", "running"}
        ]
        if alive:
            self.owner("ec2").terminate_instances(InstanceIds=alive)

    @contextlib.contextmanager
    def faults(self, *texts: str) -> Iterator[None]:
        for text in texts:
            self.aws.world.faults.add(text)
        try:
            yield
        finally:
            self.aws.world.faults.clear()

    @contextlib.contextmanager
    def lacking(self, who: Recorded, action: str) -> Iterator[None]:
        """The policy without an action, as somebody may have written it."""
        whole = who.document
        who.document = lacking(whole, action)
        try:
            yield
        finally:
            who.document = whole

    @contextlib.contextmanager
    def refusing(self, who: Recorded, refuses: Callable[[Asked], bool]) -> Iterator[None]:
        """Something fails that the policy allows."""
        who.refuses = refuses
        try:
            yield
        finally:
            who.refuses = lambda _: False

    def as_launcher(self, service: str) -> Any:
        """A client with the launcher's session."""
        return self._client(
            service, self.environ["AWS_ACCESS_KEY_ID"], self.environ["AWS_SECRET_ACCESS_KEY"], self.environ["AWS_SESSION_TOKEN"]
        )  # fmt: skip

    def as_host(self, instance_id: str, service: str) -> Any:
        """A client with the credentials that the metadata service gives to this instance."""
        lives = self.aws._lives
        found = lives.credentials(self.aws.world.instances[instance_id])
        return self._client(service, found.access_key, found.secret, found.token)

    @cached_property
    def owner(self) -> Callable[[str], Any]:
        """Clients of the account's owner, to prepare and to look."""
        made: dict[str, Any] = {}

        def get(service: str) -> Any:
            if service not in made:
                made[service] = self._clients.enter_context(contextlib.closing(self.aws.client(service)))
            return made[service]

        return get

    def _client(self, service: str, *keys: str) -> Any:
        session = boto3.Session(*keys, region_name=self.aws.world.region)
        client = session.client(service, endpoint_url=self.aws.endpoint, config=Config(retries=_ONCE))  # type: ignore[call-overload]
        return self._clients.enter_context(contextlib.closing(client))

    def instance(self, tags: Mapping[str, str]) -> str:
        """A running one of the owner's, with the hosts' profile."""
        listed = [{"Key": name, "Value": value} for name, value in tags.items()]
        ec2 = self.owner("ec2")
        started = ec2.run_instances(
            ImageId="ami-0000000000ubuntu1", InstanceType="t3.medium", MinCount=1, MaxCount=1,
            IamInstanceProfile={"Name": self.stack.outputs["InstanceProfile"]},
            TagSpecifications=[{"ResourceType": "instance", "Tags": listed}] if listed else [],
        )  # fmt: skip
        instance_id = str(started["Instances"][0]["InstanceId"])
        ec2.get_waiter("instance_running").wait(InstanceIds=[instance_id], WaiterConfig={"Delay": 1})
        return instance_id
