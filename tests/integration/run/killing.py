"""A launcher that dies at a moment of our choice: its way to AWS is a proxy that counts its calls, and kills it there.

A seam from outside: the launcher is a real process, and `AWS_ENDPOINT_URL` says where its AWS is. The host header is
passed on as it was sent, because the signature covers it. What a launcher presigned is fetched through here too, by
hosts, for as long as the proxy lives; such calls are not the launcher's, and are not counted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

When = Literal["before", "after"]
# Of the calls so far, the newest last: whether the launcher dies at this one.
IsDue = Callable[[Sequence[str]], bool]

_CHANGES = re.compile(r"(PUT|DELETE) |(RunInstances|TerminateInstances|CreateTags)\Z|SendCommand ")
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "expect", "server", "date"}


def nth(name: str, number: int = 1) -> IsDue:
    """The `number`th call of this name."""
    return lambda calls: calls[-1] == name and calls.count(name) == number


def number(count: int) -> IsDue:
    """The call of this number, from 1, whatever it is."""
    return lambda calls: len(calls) == count


def changes_something(name: str) -> bool:
    return bool(_CHANGES.match(name))


class DeadlyProxy:
    """A context manager: one launcher's way to the AWS at `endpoint`. It is killed at the call that `is_due`: before
    that is passed on, or after it was answered and before the launcher hears of it. `calls` are its calls so far."""

    def __init__(self, endpoint: str, is_due: IsDue = lambda _: False, when: When = "before") -> None:
        self.calls: list[str] = []
        self._aws = urlsplit(endpoint).netloc
        self._is_due = is_due
        self._when = when
        self._changed = threading.Condition()
        self._launcher: subprocess.Popen[str] | None = None
        self._under_way = 0

    def __enter__(self) -> DeadlyProxy:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            proxy = self

            def do_any(self) -> None:
                self.proxy._pass_on(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815  - http.server's names

            def log_message(self, *_: object) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """The dead leave connections behind."""
                if not isinstance(sys.exception(), OSError):
                    traceback.print_exc()

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def of(self, launcher: subprocess.Popen[str]) -> None:
        """Whose it is; no call is passed on before that is known."""
        with self._changed:
            self._launcher = launcher
            self._changed.notify_all()

    def wait_until_quiet(self) -> None:
        """Waits until every call of the dead launcher that was on its way has arrived."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._under_way == 0, timeout=30)

    def _pass_on(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers.get("Content-Length") or 0))
        if "X-Amz-Signature=" in asked.path:
            self._answer(asked, *self._ask(asked, body))
            return
        name = _name(asked, body)
        with self._changed:
            assert self._changed.wait_for(lambda: self._launcher is not None, timeout=30)
            self.calls.append(name)
            is_due = self._is_due(self.calls)
            self._under_way += 1
        try:
            if is_due and self._when == "before":
                self._kill(asked)
                return
            answer = self._ask(asked, body)
            if is_due:
                self._kill(asked)
                return
            self._answer(asked, *answer)
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def _kill(self, asked: BaseHTTPRequestHandler) -> None:
        assert self._launcher is not None
        self._launcher.kill()
        self._launcher.wait()
        asked.close_connection = True

    def _ask(self, asked: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with contextlib.closing(http.client.HTTPConnection(self._aws, timeout=60)) as connection:
            connection.putrequest(asked.command, asked.path, skip_host=True, skip_accept_encoding=True)
            for header, value in asked.headers.items():
                if header.lower() not in _HOP_BY_HOP:
                    connection.putheader(header, value)
            if body or "Content-Length" in asked.headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            said = connection.getresponse()
            return said.status, said.getheaders(), said.read()

    def _answer(self, asked: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        lengths = [value for header, value in headers if header.lower() == "content-length"]
        # Whoever asked may be dead by now.
        with contextlib.suppress(OSError):
            asked.send_response_only(status)
            for header, value in headers:
                if header.lower() not in _HOP_BY_HOP:
                    asked.send_header(header, value)
            if status not in {204, 304}:
                is_head = asked.command == "HEAD" and lengths
                asked.send_header("Content-Length", lengths[0] if is_head else str(len(body)))
            asked.end_headers()
            asked.wfile.write(body)


def _name(asked: BaseHTTPRequestHandler, body: bytes) -> str:
    """What the call is, the same in every run: "PUT runs/*/spec.json", "RunInstances", "SendCommand runctl start"."""
    target = asked.headers.get("X-Amz-Target", "").partition(".")[2]
    if target:
        said: dict[str, Any] = json.loads(body or b"{}")
        return f"{target} {' '.join(said.get('Comment', '').split()[:2])}".strip()
    if asked.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(body.decode()))["Action"]
    url = urlsplit(asked.path)
    prefix = dict(parse_qsl(url.query)).get("prefix", "")
    key = unquote(url.path).strip("/").partition("/")[2] or (f"?{prefix}" if prefix else "")
    for pattern, short in _SHORT:
        key = pattern.sub(short, key)
    return f"{asked.command} {key}".strip()


_SHORT = (
    (re.compile(r"^(\??)runctl/"), r"\1"),
    (re.compile(r"[0-9a-f]{64}"), "*"),
    (re.compile(r"^(\??)(runs|open)/[^/]+"), r"\1\2/*"),
    (re.compile(r"^(\??)sources/.*"), r"\1sources/*"),
    (re.compile(r"^(\??)hosts/[^/]+/[^/]+"), r"\1hosts/*"),
    (re.compile(r"log/\d{8}.*"), "log/*"),
)
