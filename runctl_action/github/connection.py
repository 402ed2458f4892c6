"""GitHub's API as one token sees one repository: how long to wait, what to ask again, what a refusal means.

The one module that imports PyGithub (half a second: import this one where it is used). Nothing here prints the token.

    GitHubError             4   GitHub said no, or something that is not its API
    ├── Forbidden               the token may not
    ├── NotFound                there is no such thing, or the token may not know of it
    ├── TooLong                 the text is over GitHub's limit
    └── Unavailable             no answer, or not now; `retry_after_seconds` where that was said
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import github
import requests
import urllib3
from pydantic import SecretStr

from runctl_action.errors import RunctlError, SettingsError
from runctl_action.report.wording import visible

if TYPE_CHECKING:
    from github.Repository import Repository

API_URL = "https://api.github.com"
# A version that GitHub Enterprise Server has known since 3.9; any other is answered with 400 there.
_API_VERSION = "2022-11-28"
_REQUEST_SECONDS = 10
_TRIES = 4
# What PyGithub's classes raise over an answer of another shape than GitHub's.
_NOT_ITS_API = (github.BadAttributeException, AssertionError, AttributeError, LookupError, TypeError, ValueError)


class GitHubError(RunctlError):
    exit_code = 4


class Forbidden(GitHubError):
    pass


class NotFound(GitHubError):
    pass


class TooLong(GitHubError):
    pass


class Unavailable(GitHubError):
    def __init__(self, message: str, hint: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message, hint)
        self.retry_after_seconds = retry_after_seconds


class Patience:
    """How long an operation may take in all, requests and waiting; whatever would wait asks it first."""

    def __init__(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock, self._sleep = clock, sleep
        self._deadline = clock() + seconds

    def left(self) -> float:
        """Seconds; negative when it is over."""
        return self._deadline - self._clock()

    def check(self) -> None:
        """Raises Unavailable when it is over. To be called before a request: one lasts as long as GitHub wants."""
        if self.left() < 0:
            raise Unavailable("GitHub took longer than there was time")

    def wait(self, seconds: float, why: str) -> None:
        """Raises Unavailable, at once, when that is longer than what is left."""
        if seconds > self.left():
            raise Unavailable(
                f"{why}: to be asked again in {seconds:.0f} s, which is longer than there was time",
                retry_after_seconds=seconds,
            )
        self._sleep(seconds)


class Connection:
    """`repository` is owner/name, `api_url` GITHUB_API_URL (on GitHub Enterprise Server it ends with /api/v3).
    `clock` is monotonic, `now` seconds since 1970. Raises SettingsError."""

    def __init__(
        self,
        repository: str,
        token: SecretStr,
        *,
        api_url: str = API_URL,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+/(?!\.\.?\Z)[A-Za-z0-9._-]+", repository):
            raise SettingsError(f"{visible(repository)} is not a repository on GitHub: owner/name is wanted")
        # An HTTP library that refuses to send a token tells everybody what it refused.
        if not re.fullmatch(r"[!-~]+", token.get_secret_value()):
            raise SettingsError("github-token is empty, or has a space or a line end in it")
        url = urlsplit(api_url)
        if url.scheme not in {"http", "https"} or not url.hostname or url.username or url.query:
            raise SettingsError(f"GITHUB_API_URL, {visible(api_url)}, is not the address of an API")
        self.repository = repository
        self.clock, self.sleep = clock, sleep
        self._token, self._api_url, self._now = token, api_url.rstrip("/"), now
        self._login: str | None = None

    def __repr__(self) -> str:
        return f"Connection({self.repository!r}, api_url={self._api_url!r})"

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, self.clock, self.sleep)

    def login(self, patience: Patience) -> str:
        """Whose the token is; asked once. `GET /user` is forbidden to an installation's token, GITHUB_TOKEN among
        them; GraphQL's viewer answers it (github-actions[bot]) as well as a user's. Raises GitHubError."""
        if self._login is None:
            with self._client(patience, repeats_posts=True) as client:
                _, answer = client.requester.graphql_query("query { viewer { login } }", {})
                login = answer["data"]["viewer"]["login"]
                if not isinstance(login, str) or not login:
                    raise GitHubError("GitHub did not say whose the token is")
                self._login = login
        return self._login

    def may_read_pull_requests(self, patience: Patience) -> tuple[str, ...] | None:
        """Asks for one, and changes nothing. The scopes of a classic token; None of any other, which does not say what
        it may (GitHub's REST reference, "Authenticating", X-OAuth-Scopes). Raises GitHubError: it may not."""
        with self.asked(patience) as repository:
            path = f"/repos/{self.repository}/pulls"
            headers, _ = repository.requester.requestJsonAndCheck("GET", path, {"per_page": 1})
            said = headers.get("x-oauth-scopes")
            return None if said is None else tuple(scope.strip() for scope in said.split(",") if scope.strip())

    @contextmanager
    def asked(self, patience: Patience) -> Iterator[Repository]:
        """The repository, without a request. What is asked of it in the block raises GitHubError and nothing else;
        what is slow, limited or broken is asked again, a POST only where it can't have been done."""
        with self._client(patience) as client:
            yield client.get_repo(self.repository)

    @contextmanager
    def _client(self, patience: Patience, *, repeats_posts: bool = False) -> Iterator[github.Github]:
        patience.check()
        # A new one each time: PyGithub takes its time limit once, and what is left is not the same twice.
        client = github.Github(
            auth=github.Auth.Token(self._token.get_secret_value()),
            base_url=self._api_url,
            timeout=min(_REQUEST_SECONDS, max(1, math.ceil(patience.left()))),
            user_agent="runctl-action",
            per_page=100,
            retry=_Retry(patience, self._now, repeats_posts=repeats_posts),
            # It would wait in its own way; we write too seldom to need it.
            seconds_between_requests=None,
            seconds_between_writes=None,
            lazy=True,
            api_version=_API_VERSION,
        )
        try:
            with self.refusals():
                yield client
        finally:
            client.close()

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """What is asked in the block raises GitHubError and nothing else."""
        try:
            yield
        except github.GithubException as error:
            raise _meaning(error) from error
        except requests.RequestException as error:
            raise Unavailable(f"GitHub cannot be reached, or not well: {_said(error)}") from error
        except _NOT_ITS_API as error:
            raise GitHubError(
                f"GitHub's answer is not one that its API gives ({type(error).__name__}: {_said(error)})",
                f"is {self._api_url} the right GITHUB_API_URL?",
            ) from error


class _Retry(github.GithubRetry):
    """PyGithub's, which knows a rate limit from a refusal; waits through `patience`, as GitHub asks:
    `retry-after`, else `x-ratelimit-reset` when nothing remains, else a minute, then two, then four."""

    def __init__(
        self, patience: Patience, now: Callable[[], float], *, repeats_posts: bool = False, **kwargs: Any
    ) -> None:
        self._patience, self._now, self._repeats_posts = patience, now, repeats_posts
        methods = {"GET", "PATCH", "DELETE"} | ({"POST"} if repeats_posts else set())
        settings = {"total": _TRIES - 1, "allowed_methods": methods, "status_forcelist": [429, *range(500, 600)]}
        super().__init__(**{**settings, **kwargs})

    def new(self, **kw: Any) -> _Retry:
        return super().new(patience=self._patience, now=self._now, repeats_posts=self._repeats_posts, **kw)

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        # Refused for the rate, a POST has done nothing. After a 502 it may have.
        return status_code in {403, 429} or super().is_retry(method, status_code, has_retry_after)

    def sleep(self, response: urllib3.BaseHTTPResponse | None = None) -> None:
        status = response.status if response is not None else None
        seconds = self._asked_seconds(response)
        if seconds is None and status in {403, 429}:
            seconds = 60.0 * 2 ** (sum(past.status in {403, 429} for past in self.history) - 1)
        elif seconds is None:
            seconds = 2.0 ** (len(self.history) - 1)
        self._patience.wait(seconds, f"GitHub answered {status}" if status else "GitHub cannot be reached")

    def _asked_seconds(self, response: urllib3.BaseHTTPResponse | None) -> float | None:
        if response is None:
            return None
        try:
            after = self.get_retry_after(response)
        except urllib3.exceptions.InvalidHeader:
            after = None
        if after is not None:
            return after
        reset = response.headers.get("x-ratelimit-reset", "")
        if response.headers.get("x-ratelimit-remaining") == "0" and re.fullmatch(r"[0-9]{1,12}", reset):
            # Whole seconds, and it is not said where in that second.
            return max(0.0, int(reset) - self._now()) + 1
        return None


def _meaning(error: github.GithubException) -> GitHubError:
    said = error.data.get("message") if isinstance(error.data, dict) else None
    what = f"GitHub answered {error.status}: {_said(said or error.message or 'without a word')}"
    if error.status == 429 or error.status >= 500 or isinstance(error, github.RateLimitExceededException):
        return Unavailable(what)
    if error.status in {401, 403}:
        return Forbidden(what, "give the job `permissions: pull-requests: write`, or pass a github-token that may")
    # 422 is what a commit that was never pushed gets.
    if error.status in {404, 410} or (error.status == 422 and str(said).startswith("No commit found")):
        return NotFound(what, "a token that may not see a thing gets the same answer as if there were none")
    if error.status == 422 and "too long" in str(error.data):
        return TooLong(what)
    if "RATE_LIMITED" in str(error.data):  # GraphQL's way: 200, and this as an error's type
        return Unavailable(what)
    return GitHubError(what)


def _said(text: object) -> str:
    return visible(str(text))[:300]
