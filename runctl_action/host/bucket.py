"""The bucket as the host sees it: it reads all of it, and writes below its own prefix only (IAM says so too)."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.exceptions
from boto3.s3.transfer import TransferConfig

from runctl_action.contract.documents import Document, Order
from runctl_action.contract.layout import HostLayout, Layout
from runctl_action.host.aws import Client

_PART_BYTES = 16 * 1024 * 1024
_MISSING = {"NoSuchKey", "404", "NotFound"}


class HostBucket:
    """Raises botocore's errors."""

    def __init__(self, order: Order, sleep: Callable[[float], None] = time.sleep) -> None:
        self._s3 = Client("s3", order.region, sleep)
        self._bucket = order.bucket
        self.layout = Layout(prefix=order.prefix)
        self.run = self.layout.run(order.run_id)
        self.own: HostLayout = self.layout.host(order.userid, order.run_id, order.attempt)

    def get(self, key: str) -> bytes | None:
        """The object's bytes; None when there is none."""
        try:
            with self.open(key) as body:
                return bytes(body.read())
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise

    def open(self, key: str) -> Any:
        """A stream of the object's bytes."""
        return self._s3.ask(lambda s3: s3.get_object(Bucket=self._bucket, Key=key)["Body"])

    def put(self, key: str, data: bytes, *, once: bool = False) -> bool:
        """Writes, checked by S3 against its sha256; False when `once` and there is one already."""
        condition = {"IfNoneMatch": "*"} if once else {}
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        try:
            self._s3.ask(
                lambda s3: s3.put_object(Bucket=self._bucket, Key=key, Body=data, ChecksumSHA256=checksum, **condition)
            )
        except botocore.exceptions.ClientError as error:
            if once and error.response["Error"]["Code"] == "PreconditionFailed":
                return False
            raise
        return True

    def put_document(self, key: str, document: Document, *, once: bool = False) -> bool:
        return self.put(key, document.to_json(), once=once)

    def put_file(self, key: str, path: Path) -> None:
        config = TransferConfig(multipart_threshold=4 * _PART_BYTES, multipart_chunksize=_PART_BYTES)
        extra = {"ChecksumAlgorithm": "SHA256"}
        self._s3.ask(lambda s3: s3.upload_file(str(path), self._bucket, key, ExtraArgs=extra, Config=config))

    def download(self, key: str, path: Path) -> None:
        self._s3.ask(lambda s3: s3.download_file(self._bucket, key, str(path)))
