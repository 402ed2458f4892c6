"""The host process, really run: real processes, an S3 server, and shims where a real host would power off."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import zstandard
from moto.server import ThreadedMotoServer

from runctl_action.contract.documents import Order, Result, Resume, Spec, TrainingSettings
from runctl_action.contract.layout import Layout, parse_log_key
from runctl_action.source.packs import upload_source
from runctl_action.source.repository import open_repository, read_source

LAYOUT = Layout()
# What a host may call: in a test they must never be the machine's own.
SHIMS = ("shutdown", "systemctl", "systemd-run", "poweroff", "halt", "reboot")
_SHIM = """#!/bin/sh
echo {name} "$@" >> {directory}/shutdowns
date +%s.%N >> {directory}/shutdown-times
[ "$1" != is-active ] || exit 3
exit {code}
"""
USERID = "AROATEST:i-0123"


class S3:
    """What `packs` needs, and what a test asks, of the bucket."""

    def __init__(self, endpoint: str) -> None:
        self.client: Any = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        self.client.create_bucket(Bucket="bucket")

    def get(self, key: str) -> Any:
        try:
            data = self.client.get_object(Bucket="bucket", Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        return type("Stored", (), {"data": data})

    def size(self, key: str) -> int | None:
        found = self.get(key)
        return len(found.data) if found else None

    def put(self, key: str, data: bytes, *, content_type: str = "") -> str:
        return str(self.client.put_object(Bucket="bucket", Key=key, Body=data)["ETag"])

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        self.put(key, path.read_bytes())

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def s3(server: str) -> Iterator[S3]:
    boto3.client("s3", endpoint_url=server, region_name="us-east-1")
    s3 = S3(server)
    for key in s3.keys(""):
        s3.client.delete_object(Bucket="bucket", Key=key)
    yield s3
    s3.client.close()


@dataclass
class Outcome:
    result: Result
    log: str
    code: int
    shutdowns: list[str]
    stderr: str
    directory: Path


@dataclass
class Training:
    """A project and a host to train it on."""

    root: Path
    directory: Path
    s3: S3
    server: str
    # Of the host's programs those that fail, with their exit codes.
    failing: dict[str, int] = field(default_factory=dict)

    def prepare(
        self,
        script: str,
        args: tuple[str, ...] = (),
        settings: dict[str, Any] | None = None,
        attempt: int = 1,
        resume: Resume | None = None,
    ) -> Order:
        """What a launcher does: commit, upload, spec, order."""
        subprocess.run("git add -A && git commit -q --allow-empty -m x", shell=True, check=True, cwd=self.root)
        source = read_source(open_repository(self.root, dict(os.environ)))
        packs = upload_source(source, self.s3, LAYOUT)
        spec = Spec(
            run_id="run-1", requested_at=datetime.now(UTC), repository="o/r", name="run", commit=source.commit, tree=source.tree,
            digest=source.manifest.digest, files=len(source.manifest.entries), bytes=source.manifest.total_bytes,
            manifest_bytes=len(source.manifest.canonical()), script=script, args=args,
            training=TrainingSettings(**{"install": "skip", "grace_seconds": 2} | (settings or {})),
        )  # fmt: skip
        run = LAYOUT.run("run-1")
        self.s3.put(run.spec, spec.to_json())
        self.s3.put(run.packs, packs.to_json())
        if resume:
            self.s3.put(run.resume(attempt), resume.to_json())
        return Order(
            run_id="run-1", attempt=attempt, bucket="bucket", region="us-east-1", prefix="runctl", userid=USERID,
            digest=spec.digest, spec_sha256=hashlib.sha256(spec.to_json()).hexdigest(),
            resume_sha256=hashlib.sha256(resume.to_json()).hexdigest() if resume else None,
        )  # fmt: skip

    def start(self, order: Order, **environ: str) -> subprocess.Popen[bytes]:
        shims = self.directory / "shims"
        shims.mkdir(parents=True, exist_ok=True)
        for name in SHIMS:
            shim = shims / name
            shim.write_text(_SHIM.format(name=name, directory=self.directory, code=self.failing.get(name, 0)))
            shim.chmod(0o755)
        path = self.directory / "order.json"
        path.write_bytes(order.to_json())
        env = {
            "PATH": f"{shims}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "RUNCTL_HOST_DIR": str(self.directory / "host"),
            "AWS_ENDPOINT_URL": self.server,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{self.server}/no-metadata/",
            "HOME": str(self.directory),
        }
        passed = ("UV_", "PIP_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
        env |= {name: value for name, value in os.environ.items() if name.upper().startswith(passed)}
        command = [sys.executable, "-m", "runctl_action.host", str(path)]
        return subprocess.Popen(
            command, env=env | environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=Path.cwd()
        )

    def finish(self, process: subprocess.Popen[bytes], order: Order) -> Outcome:
        _, said = process.communicate(timeout=150)
        own = LAYOUT.host(USERID, order.run_id, order.attempt)
        stored = self.s3.get(own.result)
        assert stored is not None, said.decode()
        shutdowns = self.directory / "shutdowns"
        return Outcome(
            Result.model_validate_json(stored.data),
            self.log(order),
            process.returncode,
            shutdowns.read_text().splitlines() if shutdowns.exists() else [],
            said.decode(),
            self.directory / "host",
        )

    def log(self, order: Order) -> str:
        own = LAYOUT.host(USERID, order.run_id, order.attempt)
        keys = self.s3.keys(own.log_prefix)
        assert [parse_log_key(key)[0] for key in keys] == list(range(len(keys)))
        return b"".join(
            zstandard.ZstdDecompressor().decompressobj().decompress(self.s3.get(key).data) for key in keys
        ).decode()  # fmt: skip

    def __call__(
        self,
        files: dict[str, str] | str,
        *args: str,
        script: str = "train.py",
        settings: dict[str, Any] | None = None,
        attempt: int = 1,
        resume: Resume | None = None,
        **environ: str,
    ) -> Outcome:
        for name, text in ({script: files} if isinstance(files, str) else files).items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        order = self.prepare(script, args, settings, attempt, resume)
        return self.finish(self.start(order, **environ), order)


@pytest.fixture
def train(tmp_path: Path, s3: S3, server: str) -> Callable[..., Outcome]:
    root = tmp_path / "project"
    root.mkdir()
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return Training(root, tmp_path / "instance", s3, server)
