"""A client of AWS as the host has it: the credentials are the instance role's, and what has expired is fetched anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import boto3
import botocore.exceptions
from botocore.config import Config

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_PAUSES = (0.5, 1.0, 2.0, 4.0)
_T = TypeVar("_T")


class Client:
    """Credentials are from IMDS, refreshed by botocore before they expire; where AWS says that they have, fetched
    anew."""

    def __init__(self, service: str, region: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._service = service
        self._region = region
        self._sleep = sleep
        self._client = self._made()

    def ask(self, do: Callable[[Any], _T]) -> _T:
        """What `do(client)` gives, done again after throttling and errors of the server. Raises botocore's errors."""
        for pause in _PAUSES:
            try:
                return do(self._client)
            except botocore.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in _EXPIRED:
                    raise
                self._sleep(pause)
                self._client = self._made()
        return do(self._client)

    def _made(self) -> Any:
        config = Config(
            signature_version="s3v4" if self._service == "s3" else "v4",
            retries={"mode": "adaptive", "max_attempts": 10},
            connect_timeout=10,
            read_timeout=60,
        )
        # A session of its own: boto3's default one would keep the credentials that it has.
        return boto3.Session().client(self._service, region_name=self._region, config=config)  # type: ignore[call-overload]
