"""Where everything is in the bucket. Keys only: nothing here talks to S3."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import quote

RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

# On the instance: tags that say whose it is and until when. The prefix is what IAM conditions match.
TAG_RUN = "runctl:run"
TAG_ATTEMPT = "runctl:attempt"
TAG_DEADLINE = "runctl:deadline"
TAG_BUCKET = "runctl:bucket"

# The one AMI-level variable that says where a host keeps its things.
HOST_DIRECTORY_VARIABLE = "RUNCTL_HOST_DIR"
DEFAULT_HOST_DIRECTORY = "/var/lib/runctl"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Keys below `s3://<bucket>/<prefix>/`; every method returns a key without the bucket."""

    prefix: str = "runctl"

    def _key(self, *parts: str) -> str:
        return "/".join(([self.prefix] if self.prefix else []) + list(parts))

    def pack(self, sha256: str) -> str:
        return self._key("packs", f"{_checked(sha256)}.tar.zst")

    def manifest(self, digest: str) -> str:
        """The manifest itself, zstd-compressed, beside the packs: written by launchers, read by hosts."""
        return self._key("packs", f"{_checked(digest)}.manifest.zst")

    def tool(self, sha256: str, name: str) -> str:
        return self._key("tools", _checked(sha256), name)

    def tools_prefix(self) -> str:
        return self._key("tools", "")

    def latest(self, repository: str, branch: str) -> str:
        return self._key("sources", _short(_quoted(repository)), "latest", _short(_quoted(branch)))

    def open_prefix(self) -> str:
        return self._key("open", "")

    def open_marker(self, run_id: str) -> str:
        return self._key("open", run_id)

    def run(self, run_id: str) -> RunLayout:
        if not RUN_ID.match(run_id):
            raise ValueError(f"not a run id: {run_id!r}")
        return RunLayout(base=self._key("runs", run_id))

    def host(self, userid: str, run_id: str, attempt: int) -> HostLayout:
        """`userid` is IAM's aws:userid of the instance role's session: role id, colon, instance id."""
        return HostLayout(base=self._key("hosts", userid, run_id, str(attempt)))


@dataclass(frozen=True, kw_only=True)
class RunLayout:
    base: str

    @property
    def spec(self) -> str:
        return f"{self.base}/spec.json"

    @property
    def packs(self) -> str:
        """Written once the source is in the bucket: which packs hold it. Its absence means: not uploaded yet."""
        return f"{self.base}/packs.json"

    @property
    def stop(self) -> str:
        return f"{self.base}/stop.json"

    @property
    def report(self) -> str:
        return f"{self.base}/report.json"

    @property
    def posted(self) -> str:
        return f"{self.base}/posted.json"

    @property
    def attempts_prefix(self) -> str:
        return f"{self.base}/attempts/"

    def claim(self, attempt: int) -> str:
        return f"{self.base}/attempts/{attempt}/claim.json"

    def offer(self, attempt: int, index: int) -> str:
        return f"{self.base}/attempts/{attempt}/offers/{index}.json"

    def instance(self, attempt: int) -> str:
        return f"{self.base}/attempts/{attempt}/instance.json"

    def budget(self, attempt: int) -> str:
        return f"{self.base}/attempts/{attempt}/budget.json"

    def resume(self, attempt: int) -> str:
        return f"{self.base}/attempts/{attempt}/resume.json"

    def end(self, attempt: int) -> str:
        return f"{self.base}/attempts/{attempt}/end.json"


@dataclass(frozen=True, kw_only=True)
class HostLayout:
    base: str

    @property
    def status(self) -> str:
        return f"{self.base}/status.json"

    @property
    def result(self) -> str:
        return f"{self.base}/result.json"

    @property
    def checkpoints(self) -> str:
        return f"{self.base}/checkpoints.json"

    @property
    def metrics(self) -> str:
        return f"{self.base}/metrics.json"

    def checkpoint(self, sha256: str, path: str) -> str:
        """Immutable: the content's own hash is in the key, so a checkpoint rewritten in place is another object."""
        return f"{self.base}/checkpoints/{_checked(sha256)}/{_quoted(path, safe='/')}"

    @property
    def log_prefix(self) -> str:
        return f"{self.base}/log/"

    def log(self, index: int, phase: str) -> str:
        """Segment `index` (from 0, no gaps) of the log, zstd-compressed; the name tells which phase it is of."""
        return f"{self.base}/log/{index:08d}.{phase}"


def parse_log_key(key: str) -> tuple[int, str]:
    """(index, phase) of a log segment's key; (-1, "") of a key that is none."""
    index, _, phase = key.rsplit("/", 1)[-1].partition(".")
    return (int(index), phase) if index.isdecimal() else (-1, "")


def client_token(parameters: bytes) -> str:
    """EC2's ClientToken (at most 64 ASCII characters): a hash of the request, so that a repeat is the same call."""
    return hashlib.sha256(parameters).hexdigest()


def _quoted(name: str, safe: str = "") -> str:
    """ASCII for any name there can be, undecodable bytes included. No part of it is `.` or `..`: whatever stands
    between us and S3 may take those for steps, and sign or forward another key."""
    parts = quote(name.encode("utf-8", "surrogateescape"), safe=safe).split("/")
    return "/".join(part.replace(".", "%2E") if part in {".", ".."} else part for part in parts)


def _short(quoted: str) -> str:
    """S3's keys have at most 1,024 bytes, and quoting makes three of one."""
    return quoted if len(quoted) <= 300 else f"{quoted[:200]}-{hashlib.sha256(quoted.encode()).hexdigest()}"


def _checked(sha256: str) -> str:
    if not _SHA256.match(sha256):
        raise ValueError(f"not a sha256: {sha256!r}")
    return sha256
