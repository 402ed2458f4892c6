"""The instance's own metadata (IMDSv2): whether AWS is about to take the host back."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

_DEFAULT = "http://169.254.169.254/"
_EVERY_SECONDS = 5.0
# IMDS is on the host itself: a proxy of the environment must not be asked for it.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class SpotNotice:
    """Asks every 5 s; a notice comes about two minutes before the end (EC2 user guide, spot interruption notices)."""

    def __init__(self, environ: Mapping[str, str], every_seconds: float = _EVERY_SECONDS) -> None:
        self._base = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _DEFAULT
        self._every = every_seconds
        self._stopping = threading.Event()
        self.given = threading.Event()

    def watch(self, on_notice: Callable[[], None]) -> None:
        """Calls `on_notice` once, from a thread of its own."""
        threading.Thread(target=self._watch, args=(on_notice,), name="spot notice", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _watch(self, on_notice: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            if self._is_given():
                self.given.set()
                on_notice()
                return
            self._stopping.wait(self._every)

    def _is_given(self) -> bool:
        """404 is "no"; anything else that goes wrong is "not known", and asked again."""
        try:
            ask = urllib.request.Request(  # noqa: S310  - the base is http, set by the image or the default
                self._base + "latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
            )
            with _OPENER.open(ask, timeout=2) as answer:
                token = answer.read().decode()
            ask = urllib.request.Request(  # noqa: S310
                self._base + "latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
            )
            with _OPENER.open(ask, timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
