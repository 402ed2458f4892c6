"""A clock that is wrong is told before anything is refused for it."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from runctl_action.host import bootstrap

DATA = b"a tool"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def s3() -> Iterator[Callable[..., str]]:
    """`s3(minutes, status)` -> the URL of a tool on a server whose clock is that many minutes from ours."""
    servers = []

    def serve(minutes: float, status: int = 200) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(DATA)))
                self.end_headers()
                self.wfile.write(DATA)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(time.time() + minutes * 60, usegmt=True)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/tool"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("minutes", "said"), [(37, "37 minutes behind"), (-6, "6 minutes ahead")])
@pytest.mark.parametrize("status", [200, 403])
def test_a_clock_that_is_off_is_told_with_its_minutes(
    s3: Callable[..., str], tmp_path: Path, minutes: int, said: str, status: int
) -> None:
    with pytest.raises(ValueError, match=f"{said}.*chronyd"):
        bootstrap.fetch(s3(minutes, status), SHA256, str(tmp_path), "tool")
    assert not list(tmp_path.rglob("tool*"))
    with pytest.raises(ValueError, match=said):
        bootstrap.check_clock_alone(s3(minutes, status))


@pytest.mark.parametrize("minutes", [4, 0, -4])
def test_a_clock_that_is_nearly_right_is_right(s3: Callable[..., str], tmp_path: Path, minutes: int) -> None:
    assert Path(bootstrap.fetch(s3(minutes), SHA256, str(tmp_path), "tool")).read_bytes() == DATA
    bootstrap.check_clock_alone(s3(minutes))
    bootstrap.check_clock_alone(s3(minutes, 403))


def test_a_tool_that_an_earlier_training_has_changed_is_fetched_and_unpacked_anew(
    s3: Callable[..., str], tmp_path: Path
) -> None:
    kept = Path(bootstrap.fetch(s3(0), SHA256, str(tmp_path), "tool"))
    kept.write_bytes(b"something else")
    assert Path(bootstrap.fetch(s3(0), SHA256, str(tmp_path), "tool")).read_bytes() == DATA
    with zipfile.ZipFile(tmp_path / "uv.zip", "w") as archive:
        archive.writestr("uv", "ours")
    for _ in range(2):
        bootstrap.unpack(str(tmp_path / "uv.zip"), "uv", str(tmp_path / "uv"))
        assert (tmp_path / "uv").read_text() == "ours"
        (tmp_path / "uv").write_text("another's")


@pytest.mark.parametrize("date", [None, "", "yesterday", "Wed, 99 Foo 2026 00:00:00 GMT"])
def test_an_answer_without_a_date_says_nothing(date: str | None) -> None:
    bootstrap.check_clock(date, time.time())


def test_a_server_that_is_away_is_no_wrong_clock(s3: Callable[..., str]) -> None:
    bootstrap.check_clock_alone("http://127.0.0.1:1/tool")
