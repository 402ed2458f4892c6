"""Which GitHub repository a push goes to, where its pull requests and their comments are. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

# `.` and `..` would be another path of the API.
_NAME = r"((?!\.{1,2}/)[A-Za-z0-9_.-]+/(?!\.{1,2}(?:\.git)?/*\Z)[A-Za-z0-9_.-]+?)(?:\.git)?/*\Z"
# https://token@github.com/o/r.git, ssh://git@github.com:22/o/r, git@github.com:o/r.git
_URL = re.compile(rf"(?:https?|ssh|git)://(?:[^@/]*@)?([^/:@]+)(?::\d+)?/{_NAME}", re.IGNORECASE)
_SCP = re.compile(rf"(?:[^@/:]+@)?([^/:@]+):/?{_NAME}")
_GITHUB = "https://github.com"


class Place(NamedTuple):
    """As a workflow's GITHUB_REPOSITORY, GITHUB_SERVER_URL and GITHUB_API_URL say it; no credentials are in it."""

    repository: str
    server_url: str
    api_url: str


def place_of(urls: Sequence[str], environ: Mapping[str, str]) -> Place | None:
    """The first that is on GitHub, or on the server that GITHUB_SERVER_URL names; None when none is."""
    server = environ.get("GITHUB_SERVER_URL") or _GITHUB
    host = urlsplit(server).hostname or ""
    api = environ.get("GITHUB_API_URL") or ("https://api.github.com" if host == "github.com" else f"{server}/api/v3")
    for url in urls:
        found = _URL.match(url) or _SCP.match(url)
        if found and found[1].lower().removeprefix("ssh.") == host:
            return Place(found[2], server, api)
    return None
