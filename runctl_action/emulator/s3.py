"""S3 in front of moto's: who may do what, checksums, and what goes wrong on purpose."""

from __future__ import annotations

import base64
import hashlib
import re
import time
import zlib
from collections.abc import Callable

from runctl_action.emulator.state import World
from runctl_action.emulator.wire import Answer, ApiError, Call, Wsgi, forward

_CHUNK = re.compile(rb"([0-9a-fA-F]+)(?:;[^\r\n]*)?\r\n")


class S3:
    """`on_status(instance id, phase)` is told whenever a host has written a heartbeat."""

    def __init__(self, world: World, moto: Wsgi, on_status: Callable[[str, str], None]) -> None:
        self._world = world
        self._moto = moto
        self._on_status = on_status

    def handle(self, call: Call) -> Answer:
        """Raises ApiError."""
        _, key = split(call)
        if slow := self._world.faults.take("s3-slow", key=key):
            time.sleep(slow.number("seconds", 1))
        if self._world.faults.take("s3-error", key=key, method=call.method):
            raise ApiError("InternalError", "We encountered an internal error. Please try again.", 500)
        if call.method == "PUT":
            check_integrity(call)
        answer = forward(self._moto, call.environ)
        caller = self._world.caller(call.access_key)
        if caller is not None and call.method == "PUT" and key.endswith("/status.json") and answer.status == 200:
            found = re.search(rb'"phase":"([a-z]+)","at"', call.body)
            if found:
                self._on_status(caller.id, found[1].decode())
        return answer


def split(call: Call) -> tuple[str, str]:
    """(bucket, key); both addressing styles."""
    host = call.header("Host").split(":")[0]
    bucket = host.removesuffix(".localhost") if host.endswith(".localhost") else ""
    path = call.path.lstrip("/")
    if bucket:
        return bucket, path
    bucket, _, key = path.partition("/")
    return bucket, key


def action_and_resource(call: Call) -> tuple[str, str]:
    """IAM's names for a request (S3 user guide, "Actions, resources, and condition keys")."""
    bucket, key = split(call)
    if not key:
        if call.method == "PUT":
            action = "CreateBucket" if not call.query else f"PutBucket{next(iter(call.query)).capitalize()}"
        elif call.method == "DELETE":
            action = "DeleteBucket"
        else:
            # Settings of a bucket have their own actions; what is left is a listing, HEAD included.
            other = {"location": "GetBucketLocation", "encryption": "GetEncryptionConfiguration"}
            action = next((name for query, name in other.items() if query in call.query), "ListBucket")
        return f"s3:{action}", f"arn:aws:s3:::{bucket}"
    if call.method == "DELETE":
        action = "AbortMultipartUpload" if "uploadId" in call.query else "DeleteObject"
    else:
        action = "GetObject" if call.method in {"GET", "HEAD"} else "PutObject"
    return f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}"


def check_integrity(call: Call) -> None:
    """Every checksum that came with the body, in a header or a trailer. Raises ApiError BadDigest."""
    data, trailers = _unchunked(call)
    if (wanted := call.header("Content-MD5")) and wanted != _base64(hashlib.md5(data, usedforsecurity=False).digest()):
        raise ApiError("BadDigest", "The Content-MD5 you specified did not match what we received.", 400)
    for name, compute in _CHECKSUMS.items():
        wanted = trailers.get(f"x-amz-checksum-{name}") or call.header(f"x-amz-checksum-{name}")
        if wanted and "-" not in wanted and wanted != _base64(compute(data)):
            raise ApiError("BadDigest", f"The {name.upper()} you specified did not match the calculated checksum.", 400)


def _unchunked(call: Call) -> tuple[bytes, dict[str, str]]:
    """The body without its aws-chunked framing, and the trailers behind it."""
    if not call.header("X-Amz-Content-Sha256").startswith("STREAMING-"):
        return call.body, {}
    parts: list[bytes] = []
    place = 0
    while (frame := _CHUNK.match(call.body, place)) is not None:
        size = int(frame[1], 16)
        place = frame.end()
        if size == 0:
            break
        parts.append(call.body[place : place + size])
        place += size + 2
    trailers = (line.partition(":") for line in call.body[place:].decode("latin-1").split("\r\n"))
    return b"".join(parts), {name.strip().lower(): value.strip() for name, colon, value in trailers if colon}


def _reflected(bits: int, polynomial: int) -> Callable[[bytes], bytes]:
    """A CRC over reflected bits, for the two that the standard library lacks."""
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        table.append(value)
    full = (1 << bits) - 1

    def compute(data: bytes) -> bytes:
        value = full
        for byte in data:
            value = table[(value ^ byte) & 255] ^ value >> 8
        return (value ^ full).to_bytes(bits // 8, "big")

    return compute


_CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "crc32c": _reflected(32, 0x82F63B78),
    "crc64nvme": _reflected(64, 0x9A6C9329AC4BC9B5),
}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
