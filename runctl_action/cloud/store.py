"""The bucket, as the product uses it: documents with conditions, packs with checksums, listings, presigned URLs."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import botocore.exceptions
from boto3.s3.transfer import TransferConfig
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from runctl_action.cloud.session import Session, aws_errors, error_code
from runctl_action.errors import BucketError

_MISSING = {"NoSuchKey", "404", "NotFound"}
_UNCHANGED = {"304", "NotModified"}
_PART_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Stored:
    data: bytes
    etag: str


@dataclass(frozen=True)
class Listed:
    key: str
    size: int
    etag: str
    modified: datetime


def _is_conflict(error: BaseException) -> bool:
    # S3 answers 409 when two conditional writes race; the one that gets it must ask again (S3 user guide).
    return isinstance(error, botocore.exceptions.ClientError) and error_code(error) == "ConditionalRequestConflict"


class Store:
    """One bucket. Every method raises CloudError, PermissionDenied or BucketError, with the action named."""

    def __init__(self, session: Session, bucket: str) -> None:
        self.bucket = bucket
        self._region = session.region
        self._session = session

    @functools.cached_property
    def _s3(self) -> Any:
        return self._session.client("s3")

    def check(self) -> None:
        """Raises BucketError when the bucket does not exist, or is in another region than the session."""
        with aws_errors(f"s3:ListBucket on {self.bucket}"):
            try:
                answer = self._s3.head_bucket(Bucket=self.bucket)
            except botocore.exceptions.ClientError as error:
                headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
                if error_code(error) in _MISSING:
                    raise BucketError(
                        f"the bucket {self.bucket} does not exist",
                        f"create it: aws s3 mb s3://{self.bucket} --region {self._region}",
                    ) from error
                if error_code(error) == "301":
                    found = headers.get("x-amz-bucket-region", "another region")
                    raise BucketError(
                        f"the bucket {self.bucket} is in {found}, the run in {self._region}",
                        "set `region` or `bucket` so that they agree",
                    ) from error
                raise
        found = answer.get("BucketRegion")
        if found and found != self._region:
            raise BucketError(
                f"the bucket {self.bucket} is in {found}, the run in {self._region}",
                "set `region` or `bucket` so that they agree",
            )

    def get(self, key: str, known: Stored | None = None) -> Stored | None:
        """The object and its etag; None when there is none. One that is still what is `known` is not fetched again."""
        unless = {"IfNoneMatch": known.etag} if known else {}
        try:
            with self._errors("s3:GetObject", key):
                try:
                    answer = self._s3.get_object(Bucket=self.bucket, Key=key, **unless)
                except botocore.exceptions.ClientError as error:
                    if error_code(error) in _UNCHANGED:
                        return known
                    raise
                with answer["Body"] as body:
                    return Stored(body.read(), answer["ETag"])
        except _Missing:
            return None

    def size(self, key: str) -> int | None:
        """Bytes of the object; None when there is none."""
        try:
            with self._errors("s3:GetObject", key):
                return int(self._s3.head_object(Bucket=self.bucket, Key=key)["ContentLength"])
        except _Missing:
            return None

    def put(
        self,
        key: str,
        data: bytes,
        *,
        if_none_match: bool = False,
        if_match: str | None = None,
        content_type: str = "application/json",
    ) -> str | None:
        """Writes `data`, checked by S3 against its sha256; the etag, or None when the condition did not hold."""
        conditions: dict[str, str] = {}
        if if_none_match:
            conditions["IfNoneMatch"] = "*"
        if if_match is not None:
            conditions["IfMatch"] = if_match
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        with self._errors("s3:PutObject", key):
            try:
                return self._put(Key=key, Body=data, ContentType=content_type, ChecksumSHA256=checksum, **conditions)
            except botocore.exceptions.ClientError as error:
                # A conditional write on an object that is gone answers 404; the condition did not hold either way.
                if error_code(error) == "PreconditionFailed" or (
                    if_match is not None and error_code(error) in _MISSING
                ):
                    return None
                raise

    @retry(
        retry=retry_if_exception(_is_conflict),
        stop=stop_after_attempt(6),
        wait=wait_random_exponential(0.05, 2),
        reraise=True,
    )
    def _put(self, **request: Any) -> str:
        return str(self._s3.put_object(Bucket=self.bucket, **request)["ETag"])

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        """Uploads a file of any size; S3 verifies each part, the key's reader verifies `sha256` over the whole."""
        config = TransferConfig(multipart_threshold=4 * _PART_BYTES, multipart_chunksize=_PART_BYTES)
        extra = {"ChecksumAlgorithm": "SHA256", "Metadata": {"sha256": sha256}}
        with self._errors("s3:PutObject", key), path.open("rb") as file:
            self._s3.upload_fileobj(file, self.bucket, key, ExtraArgs=extra, Config=config)

    def download(self, key: str, file: BinaryIO) -> None:
        with self._errors("s3:GetObject", key):
            self._s3.download_fileobj(self.bucket, key, file)

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[Listed]:
        """Objects below `prefix` in key order, all pages, from the first key after `start_after`."""
        request = {"Bucket": self.bucket, "Prefix": prefix} | ({"StartAfter": start_after} if start_after else {})
        with self._errors("s3:ListBucket", prefix):
            for page in self._s3.get_paginator("list_objects_v2").paginate(**request):
                for item in page.get("Contents", ()):
                    yield Listed(item["Key"], item["Size"], item["ETag"], item["LastModified"])

    def delete(self, key: str) -> None:
        with self._errors("s3:DeleteObject", key):
            self._s3.delete_object(Bucket=self.bucket, Key=key)

    def presign(self, key: str, seconds: int) -> str:
        """A GET URL of this one object, SigV4, for `seconds` or until the credentials that signed it expire."""
        with aws_errors("presigning"):
            return str(
                self._s3.generate_presigned_url(
                    "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=seconds
                )
            )

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def _errors(self, action: str, key: str) -> _Errors:
        return _Errors(action, f"s3://{self.bucket}/{key}", self.bucket)


class _Missing(Exception):
    pass


class _Errors:
    """Like `aws_errors`, and a missing object or bucket apart from everything else."""

    def __init__(self, action: str, where: str, bucket: str) -> None:
        self._action, self._where, self._bucket = action, where, bucket

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, botocore.exceptions.ClientError):
            if error_code(error) in _MISSING:
                raise _Missing from error
            if error_code(error) == "NoSuchBucket":
                raise BucketError(
                    f"the bucket {self._bucket} does not exist", "check `bucket`, or create it"
                ) from error
        if error is not None:
            with aws_errors(f"{self._action} on {self._where}"):
                raise error
