"""S3 in front of moto's: who may do what, checksums, and what goes wrong on purpose."""

from __future__ import annotations

import base64
import hashlib
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import unquote
from xml.etree import ElementTree

from runctl_action.emulator.state import World
from runctl_action.emulator.wire import Answer, ApiError, Call, Wsgi, forward

DEFAULT_ENCRYPTION = {"Rule": {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}}

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
        if call.method == "PUT" or "delete" in call.query:
            check_integrity(call)
        answer = forward(self._moto, call.environ)
        if answer.status == 404 and key and call.method in {"GET", "HEAD"}:
            self._hide_what_is_missing(call)
        caller = self._world.caller(call.access_key)
        if caller is not None and call.method == "PUT" and key.endswith("/status.json") and answer.status == 200:
            found = re.search(rb'"phase":"([a-z]+)","at"', call.body)
            if found:
                self._on_status(caller.id, found[1].decode())
        return self._dated(answer) if "X-Amz-Signature" in call.query else answer

    def _dated(self, answer: Answer) -> Answer:
        """It is hosts that have presigned URLs: to one whose clock is ahead, S3's is behind."""
        skew = self._world.faults.take("clock-skew")
        if skew is None:
            return answer
        date = format_datetime(datetime.now(UTC) - timedelta(minutes=skew.number("minutes", 60)), usegmt=True)
        kept = tuple(header for header in answer.headers if header[0].lower() != "date")
        return replace(answer, headers=(*kept, ("Date", date)))

    def _hide_what_is_missing(self, call: Call) -> None:
        """Who may not list is not told that a key is not there (S3 API reference, GetObject, "Permissions")."""
        credential = self._world.credentials[call.access_key]
        bucket, key = split(call)
        context = {"aws:userid": credential.userid, "s3:prefix": key}
        if not credential.policy.allows("s3:ListBucket", f"arn:aws:s3:::{bucket}", context):
            raise ApiError("AccessDenied", "Access Denied", 403)


def split(call: Call) -> tuple[str, str]:
    """(bucket, key); both addressing styles."""
    host = call.header("Host").split(":")[0]
    bucket = host.removesuffix(".localhost") if host.endswith(".localhost") else ""
    path = call.path.lstrip("/")
    if bucket:
        return bucket, path
    bucket, _, key = path.partition("/")
    return bucket, key


def needs(call: Call) -> list[tuple[str, str]]:
    """(action, resource) of all that a request does, in IAM's names (S3 user guide, "Actions, resources, and condition
    keys"). What is not known gets a name that no policy has. Raises ApiError MalformedXML."""
    bucket, key = split(call)
    if not bucket:
        return [("s3:ListAllMyBuckets", "*")]
    resource = f"arn:aws:s3:::{bucket}"
    if not key:
        if call.method == "POST":
            # A list of keys to delete, or a browser's form, which may name any key.
            keys = _deleted_keys(call) if "delete" in call.query else None
            return [("s3:PutObject", f"{resource}/*")] if keys is None else [
                ("s3:DeleteObject", f"{resource}/{key}") for key in keys
            ]  # fmt: skip
        return [(f"s3:{_bucket_action(call)}", resource)]
    found = [(f"s3:{_object_action(call)}", f"{resource}/{key}")]
    if source := call.header("X-Amz-Copy-Source"):
        found.append(("s3:GetObject", "arn:aws:s3:::" + unquote(source).lstrip("/").partition("?versionId=")[0]))
    return found


_LISTING = {
    "list-type", "prefix", "delimiter", "marker", "max-keys", "encoding-type", "continuation-token", "start-after",
    "fetch-owner", "x-id",
}  # fmt: skip


def _bucket_action(call: Call) -> str:
    asked = [name for name in call.query if name not in _LISTING and not name.startswith("X-Amz-")]
    if not asked:
        return {"PUT": "CreateBucket", "DELETE": "DeleteBucket"}.get(call.method, "ListBucket")
    if call.method in {"GET", "HEAD"} and asked[0] in {"uploads", "versions"}:
        return {"uploads": "ListBucketMultipartUploads", "versions": "ListBucketVersions"}[asked[0]]
    verb = {"PUT": "Put", "DELETE": "Delete"}.get(call.method, "Get")
    own = {"encryption": "EncryptionConfiguration", "lifecycle": "LifecycleConfiguration"}
    return verb + own.get(asked[0], f"Bucket{asked[0].capitalize()}")


def _object_action(call: Call) -> str:
    verb = {"GET": "Get", "HEAD": "Get", "DELETE": "Delete"}.get(call.method, "Put")
    if "uploadId" in call.query and verb != "Put":
        return "AbortMultipartUpload" if verb == "Delete" else "ListMultipartUploadParts"
    if "restore" in call.query:
        return "RestoreObject"
    parts = {"acl": "Acl", "tagging": "Tagging", "retention": "Retention", "legal-hold": "LegalHold"}
    parts |= {"attributes": "Attributes", "torrent": "Torrent"}
    part = next((word for name, word in parts.items() if name in call.query), "")
    return f"{verb}Object{'Version' if 'versionId' in call.query else ''}{part}"


def _deleted_keys(call: Call) -> list[str]:
    try:
        root = ElementTree.fromstring(call.body)  # noqa: S314  - from who has an access key
    except ElementTree.ParseError as error:
        raise ApiError("MalformedXML", f"The XML you provided was not well-formed: {error}") from None
    return [found.text or "" for found in root.iterfind("{*}Object/{*}Key")]


def check_integrity(call: Call) -> None:
    """Every checksum that came with the body, in a header or a trailer. Raises ApiError BadDigest."""
    data, trailers = _unchunked(call)
    if (wanted := call.header("Content-MD5")) and wanted != _base64(hashlib.md5(data, usedforsecurity=False).digest()):
        raise ApiError("BadDigest", "The Content-MD5 you specified did not match what we received.", 400)
    for name, compute in _CHECKSUMS.items():
        header = f"x-amz-checksum-{name}"
        wanted = trailers.get(header) or call.header(header) or call.query.get(header, "")
        if wanted and wanted != _base64(compute(data)):
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
