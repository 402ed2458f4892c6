"""The double: what it holds, and what it answers. Failures are scripted; each is used up once it has happened."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from githubkit_schemas.v2022_11_28 import models

from github_double import description

BOT = "github-actions[bot]"
NO_PERMISSION = "Resource not accessible by integration"


@dataclass
class Comment:
    id: int
    author: str
    body: str


@dataclass
class Pull:
    """`head` and `base` are owner/name; no head where the fork was deleted."""

    number: int
    head_sha: str
    head: str | None = "acme/digits"
    base: str = "acme/digits"
    state: str = "open"
    branch: str = "topic"
    commits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    token: str
    at: float


@dataclass
class Failure:
    """`status` None: the connection is dropped. `after`: what was asked for is done all the same."""

    method: str
    path: str
    status: int | None
    message: str
    headers: Mapping[str, str]
    after: bool


@dataclass(eq=False)
class GitHub:
    """`problems` is what broke GitHub's description, of requests and of answers: a fixture fails the test for it."""

    prefix: str = ""
    clock: Callable[[], float] = time.time
    tokens: dict[str, str] = field(default_factory=lambda: {"ghs_action": BOT, "ghp_ada": "ada"})
    may_write: bool = True
    # Of a classic token.
    scopes: str | None = None
    comments: list[Comment] = field(default_factory=list)
    pulls: list[Pull] = field(default_factory=list)
    permissions: dict[str, str] = field(default_factory=dict)
    remaining: int = 1000
    reset_at: float = 0
    asked: list[Asked] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    before: Callable[[Asked], None] = lambda asked: None
    _failures: list[Failure] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._lock, self._last_id = threading.RLock(), 0
        handler = type("Handler", (_Handler,), {"github": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}{self.prefix}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def says(self, author: str, body: str) -> Comment:
        """A new comment, by whomever."""
        with self._lock:
            self._last_id += 1
            self.comments.append(Comment(self._last_id, author, body))
            return self.comments[-1]

    def fails(
        self, method: str, path: str, status: int | None = None, message: str = "", *, times: int = 1,
        after: bool = False, **headers: str,
    ) -> None:  # fmt: skip
        """`path` is a pattern for its end; headers are written with _ for -."""
        shown = {name.replace("_", "-"): value for name, value in headers.items()}
        self._failures += [Failure(method, path, status, message, shown, after) for _ in range(times)]

    def count(self, method: str, path: str = "") -> int:
        return sum(asked.method == method and bool(re.search(path, asked.path)) for asked in self.asked)

    def writes(self) -> list[float]:
        """When comments were written."""
        return [x.at for x in self.asked if x.method in {"POST", "PATCH"} and "/issues/" in x.path]

    def answer(self, asked: Asked, headers: Mapping[str, str]) -> tuple[int | None, dict[str, str], Any]:
        """Status, headers and answer. Everything is checked, in and out."""
        with self._lock:
            self.asked.append(asked)
            if asked.token not in self.tokens:
                return 401, {}, {"message": "Bad credentials"}
            if asked.method == "POST" and asked.path == "/graphql":
                return self._graphql(asked)
            if headers.get("x-github-api-version") != description.API_VERSION:
                self.problems.append("a request without the API's version")
            try:
                operation = description.operation(asked.method, asked.path, asked.query, asked.body)
            except (AssertionError, TypeError, ValueError) as error:
                self.problems.append(f"{asked.method} {asked.path}: {error}")
                return 404, {}, {"message": "Not Found"}
            status, extra, answer = self._failed(asked) or self._limited() or self._done(operation, asked)
            try:
                if status is not None:
                    operation.check(status, answer)
            except (AssertionError, ValueError) as error:
                self.problems.append(f"answer {status} to {asked.method} {asked.path}: {error}")
            limits = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": str(self.remaining)}
            return status, {**limits, "x-ratelimit-reset": str(int(self.reset_at)), **extra}, answer

    def _failed(self, asked: Asked) -> tuple[int | None, dict[str, str], Any] | None:
        for failure in self._failures:
            if failure.method == asked.method and re.search(failure.path + r"\Z", asked.path):
                self._failures.remove(failure)
                if failure.after:
                    self._done(description.operation(asked.method, asked.path, asked.query, asked.body), asked)
                answer = description.too_long() if failure.message == "too long" else {"message": failure.message}
                if failure.status == 422 and failure.message != "too long":
                    answer["documentation_url"] = "https://docs.github.com/rest"
                return failure.status, dict(failure.headers), answer
        return None

    def _limited(self) -> tuple[int, dict[str, str], Any] | None:
        if self.clock() >= self.reset_at:
            self.remaining, self.reset_at = max(self.remaining, 1000), self.clock() + 3600
        if self.remaining <= 0:
            return 403, {}, {"message": "API rate limit exceeded for installation ID 1."}
        self.remaining -= 1
        return None

    def _graphql(self, asked: Asked) -> tuple[int | None, dict[str, str], Any]:
        # Its schema is in no package: of all of GraphQL, this one question is understood.
        if asked.body != {"query": "query { viewer { login } }", "variables": {}}:
            self.problems.append(f"a GraphQL query that the double does not know: {asked.body}")
        return self._failed(asked) or (200, {}, {"data": {"viewer": {"login": self.tokens[asked.token]}}})

    def _done(self, operation: description.Operation, asked: Asked) -> tuple[int, dict[str, str], Any]:
        if asked.method != "GET" and not self.may_write:
            return 403, {}, {"message": NO_PERMISSION}
        arguments = operation.arguments
        if "comment_id" in arguments:
            found = next((c for c in self.comments if c.id == int(arguments["comment_id"])), None)
            if found is None:
                return 404, {}, {"message": "Not Found"}
        match operation.name:
            case "list_comments":
                return self._page(asked, [self._comment(comment) for comment in self.comments])
            case "get_comment":
                return 200, {}, self._comment(found)
            case "create_comment" | "update_comment" if len(asked.body["body"]) > 65_536:
                return 422, {}, description.too_long()
            case "create_comment":
                return 201, {}, self._comment(self.says(self.tokens[asked.token], asked.body["body"]))
            case "update_comment":
                found.body = asked.body["body"]
                return 200, {}, self._comment(found)
            case "delete_comment":
                self.comments.remove(found)
                return 204, {}, None
            case "list_pull_requests_associated_with_commit":
                sha = arguments["commit_sha"]
                pulls = [pull for pull in self.pulls if sha in (pull.head_sha, *pull.commits)]
                return self._page(asked, [self._pull(pull, models.PullRequestSimple) for pull in pulls])
            case "list":
                status, extra, answer = self._page(asked, [self._pull(x, models.PullRequestSimple) for x in self.pulls])
                return status, extra | ({} if self.scopes is None else {"x-oauth-scopes": self.scopes}), answer
            case "get":
                for pull in self.pulls:
                    if pull.number == int(arguments["pull_number"]):
                        return 200, {}, self._pull(pull, models.PullRequest)
            case "get_collaborator_permission_level":
                login = unquote(arguments["username"])
                if login in self.permissions:
                    model, permission = models.RepositoryCollaboratorPermission, self.permissions[login]
                    return 200, {}, description.filled(model, permission=permission, role_name=permission)
        return 404, {}, {"message": "Not Found"}

    def _page(self, asked: Asked, everything: list[Any]) -> tuple[int, dict[str, str], Any]:
        size, page = min(100, int(asked.query.get("per_page", 30))), int(asked.query.get("page", 1))
        last = max(1, -(-len(everything) // size))
        rels = {"prev": page - 1, "next": page + 1, "last": last, "first": 1}
        wanted = ("next", "last") if page == 1 else ("prev", "first") if page >= last else tuple(rels)
        address = f"{self.url}{asked.path}?per_page={size}"
        link = ", ".join(f'<{address}&page={rels[rel]}>; rel="{rel}"' for rel in wanted)
        return 200, {"link": link} if last > 1 else {}, everything[(page - 1) * size : page * size]

    def _comment(self, comment: Comment) -> dict[str, Any]:
        return description.filled(
            models.IssueComment,
            id=comment.id,
            body=comment.body,
            user=self._user(comment.author) if comment.author else None,
            url=f"{self.url}/repos/acme/digits/issues/comments/{comment.id}",
            html_url=f"https://github.example/acme/digits/pull/7#issuecomment-{comment.id}",
        )

    def _user(self, login: str) -> dict[str, Any]:
        return description.filled(models.SimpleUser, login=login, type="Bot" if login.endswith("[bot]") else "User")

    def _pull(self, pull: Pull, model: type[Any]) -> dict[str, Any]:
        answer = description.filled(model, number=pull.number, state=pull.state)
        head = self._repository(pull.head) if pull.head else None
        return answer | {
            "head": {**answer["head"], "sha": pull.head_sha, "ref": pull.branch, "repo": head},
            "base": {**answer["base"], "repo": self._repository(pull.base)},
        }

    def _repository(self, full_name: str) -> dict[str, Any]:
        owner, name = full_name.split("/")
        return description.filled(models.Repository, full_name=full_name, name=name, owner=self._user(owner))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that did not wait for its answer is one of the tests."""


class _Handler(BaseHTTPRequestHandler):
    github: GitHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # 40 ms an answer, otherwise

    def do_GET(self) -> None:
        github, url = self.github, urlsplit(self.path)
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        path = url.path.removeprefix(github.prefix) if url.path.startswith(f"{github.prefix}/") else url.path
        if github.prefix and path == "/api/graphql":
            path = "/graphql"
        token = (self.headers.get("authorization") or "").removeprefix("token ")
        asked = Asked(self.command, path, dict(parse_qsl(url.query)), body, token, github.clock())
        github.before(asked)
        status, headers, answer = github.answer(asked, {k.lower(): v for k, v in self.headers.items()})
        if status is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        text = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  - the standard library's names

    def log_message(self, *_: object) -> None:
        pass
