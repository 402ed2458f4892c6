"""GitHub's description of its API, as githubkit has generated it: what a request and an answer have to look like.

githubkit's methods are called as its users call them, with a client that sends nothing: what it would have asked
(path, query, body) is compared with what was asked, and its models check what is answered.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from githubkit_schemas.v2022_11_28.models import BasicError, ValidationError
from githubkit_schemas.v2022_11_28.rest.issues import IssuesClient
from githubkit_schemas.v2022_11_28.rest.pulls import PullsClient
from githubkit_schemas.v2022_11_28.rest.repos import ReposClient
from pydantic import BaseModel, TypeAdapter

API_VERSION = "2022-11-28"

_OPERATIONS = [
    ("GET", r"/issues/(?P<issue_number>\d+)/comments", IssuesClient, "list_comments"),
    ("POST", r"/issues/(?P<issue_number>\d+)/comments", IssuesClient, "create_comment"),
    ("GET", r"/issues/comments/(?P<comment_id>\d+)", IssuesClient, "get_comment"),
    ("PATCH", r"/issues/comments/(?P<comment_id>\d+)", IssuesClient, "update_comment"),
    ("DELETE", r"/issues/comments/(?P<comment_id>\d+)", IssuesClient, "delete_comment"),
    ("GET", r"/commits/(?P<commit_sha>[^/]+)/pulls", ReposClient, "list_pull_requests_associated_with_commit"),
    ("GET", r"/pulls", PullsClient, "list"),
    ("GET", r"/pulls/(?P<pull_number>\d+)", PullsClient, "get"),
    ("GET", r"/collaborators/(?P<username>[^/]+)/permission", ReposClient, "get_collaborator_permission_level"),
]  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """One operation as it was asked for: its name, what its path held, and the models of its answers."""

    name: str
    arguments: Mapping[str, str]
    model: Any
    error_models: Mapping[str, Any]

    def check(self, status: int, answer: Any) -> None:
        """Raises when GitHub does not describe such an answer."""
        if status < 300:
            assert answer is None or self.model is not None, f"{self.name} answers nothing"
            if self.model is not None:
                _adapter(self.model).validate_python(answer)
        elif status < 500:
            # What any operation may answer (401, 403, 429) is not repeated for each.
            _adapter(self.error_models.get(str(status), BasicError)).validate_python(answer)


def operation(method: str, path: str, query: Mapping[str, str], body: Any) -> Operation:
    """What is asked for by this request. Raises when GitHub does not describe it."""
    for known_method, pattern, client_class, name in _OPERATIONS:
        found = re.fullmatch(r"/repos/(?P<owner>[^/]+)/(?P<repo>[^/]+)" + pattern, path)
        if found and method == known_method:
            recorder = _Recorder()
            arguments: dict[str, Any] = {**found.groupdict(), **query}
            if body is not None:
                arguments["data"] = body
            getattr(client_class(recorder), name)(**arguments)  # type: ignore[arg-type]
            asked = recorder.asked
            assert (asked["method"], asked["path"]) == (method, path)
            assert set(query) == set(asked.get("params") or {})
            # Its models let through what they do not know.
            assert (body or {}).keys() == (asked.get("json") or {}).keys(), f"{name} has no such parameters: {body}"
            return Operation(name, found.groupdict(), asked.get("response_model"), asked.get("error_models") or {})
    raise AssertionError(f"GitHub's API is not known to have {method} {path}")


def filled(model: type[BaseModel], **values: Any) -> dict[str, Any]:
    """The smallest object that fits the model, with these values in it."""
    return {**_smallest(model), **values}


def too_long() -> dict[str, Any]:
    error = {"resource": "IssueComment", "code": "unprocessable", "field": "data"}
    message = "Body is too long (maximum is 65536 characters)"
    answer = {"message": "Validation Failed", "documentation_url": "https://docs.github.com/rest"}
    answer["errors"] = [{**error, "message": message}]  # type: ignore[assignment]
    _adapter(ValidationError).validate_python(answer)
    return answer


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


class _Recorder:
    """In the place of githubkit's client: asks nobody."""

    config = types.SimpleNamespace(rest_api_validate_body=True)

    def request(self, method: str, path: str, **asked: Any) -> None:
        self.asked = {"method": method, "path": path, **asked}


def _smallest(annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _smallest(arguments[0])
    if origin in {Union, types.UnionType}:
        return None if type(None) in arguments else _smallest(arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin in {list, dict}:
        return origin()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return {field.alias or name: _smallest(field.annotation) for name, field in fields if field.is_required()}
    scalars: dict[Any, Any] = {str: "x", int: 1, bool: False, float: 1.0, datetime: "2026-01-01T00:00:00Z"}
    return scalars.get(annotation)
