"""The bucket as the host sees it: it reads all of it, and writes below its own prefix only (IAM says so too)."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import boto3
import botocore.exceptions
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from runctl_action.contract.documents import Document, Order
from runctl_action.contract.layout import HostLayout, Layout

_PART_BYTES = 16 * 1024 * 1024
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_PAUSES = (0.5, 1.0, 2.0, 4.0)
_T = TypeVar("_T")
_MISSING = {"NoSuchKey", "404", "NotFound"}


class HostBucket:
    """Credentials are the instance role's, from IMDS, refreshed by botocore before they expire; where AWS says that
    they have, fetched anew. Raises botocore's errors."""

    def __init__(self, order: Order, sleep: Callable[[float], None] = time.sleep) -> None:
        self._region = order.region
        self._sleep = sleep
        self._s3 = self._client()
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
        return self._asked(lambda s3: s3.get_object(Bucket=self._bucket, Key=key)["Body"])

    def put(self, key: str, data: bytes, *, once: bool = False) -> bool:
        """Writes, checked by S3 against its sha256; False when `once` and there is one already."""
        condition = {"IfNoneMatch": "*"} if once else {}
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        try:
            self._asked(
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
        self._asked(lambda s3: s3.upload_file(str(path), self._bucket, key, ExtraArgs=extra, Config=config))

    def download(self, key: str, path: Path) -> None:
        self._asked(lambda s3: s3.download_file(self._bucket, key, str(path)))

    def _asked(self, do: Callable[[Any], _T]) -> _T:
        for pause in _PAUSES:
            try:
                return do(self._s3)
            except botocore.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in _EXPIRED:
                    raise
                self._sleep(pause)
                self._s3 = self._client()
        return do(self._s3)

    def _client(self) -> Any:
        config = Config(
            signature_version="s3v4",
            retries={"mode": "adaptive", "max_attempts": 10},
            connect_timeout=10,
            read_timeout=60,
        )
        # A session of its own: boto3's default one would keep the credentials that it has.
        return boto3.Session().client("s3", region_name=self._region, config=config)
