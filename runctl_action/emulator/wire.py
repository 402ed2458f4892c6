"""Requests and answers as AWS's four protocols write them: EC2 and query (forms, XML), JSON, and S3 (REST, XML)."""

from __future__ import annotations

import io
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

Start = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], Start], Iterable[bytes]]

_SCOPE = re.compile(r"([^/\s,=]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request")
_JSON = "application/x-amz-json-1.1"


class ApiError(Exception):
    """An answer that is an error: AWS's code, and the HTTP status it comes with."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(message or code)
        self.code = code
        self.status = status


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Call:
    """One request. `service` and `region` are those of its signature, `action` is "RunInstances", "SendCommand", …
    (for S3 the HTTP method); `form` are the fields of a form, `query` those of the URL, `path` is unquoted."""

    environ: dict[str, Any]
    body: bytes
    service: str
    region: str
    access_key: str
    action: str
    path: str
    query: dict[str, str]
    form: dict[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return str(self.environ["REQUEST_METHOD"])

    @property
    def raw_uri(self) -> str:
        """The path and query as they were sent, still quoted."""
        return str(self.environ.get("RAW_URI") or self.environ["PATH_INFO"])

    def header(self, name: str) -> str:
        """A header's value, "" when it was not sent."""
        variable = name.upper().replace("-", "_")
        if variable not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            variable = f"HTTP_{variable}"
        return str(self.environ.get(variable, ""))

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body or b"{}"))


def read(environ: dict[str, Any]) -> Call:
    """The request; its body is left in place for whoever reads it next."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    form: dict[str, str] = {}
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", "")) or _SCOPE.match(query.get("X-Amz-Credential", ""))
    access_key, _, region, service = scope.groups() if scope else ("", "", "", "")
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    action = target.partition(".")[2] or form.get("Action", "") or environ["REQUEST_METHOD"]
    if not service:
        # Not signed by version 4. One call of STS need not be; what is no form and has no target is meant for S3.
        is_sts = form.get("Action", "").startswith("AssumeRoleWith")
        service = "sts" if is_sts else "" if form or target else "s3"
    # PATH_INFO is unquoted already, and its bytes are dressed up as Latin-1 (PEP 3333).
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    return Call(environ, body, service, region, access_key, action, path, query, form)


def respond(start: Start, answer: Answer) -> Iterable[bytes]:
    """Sends the answer. One to HEAD has the length of what it does not send."""
    headers = [header for header in answer.headers if not answer.body or header[0].lower() != "content-length"]
    if all(name.lower() != "content-length" for name, _ in headers):
        headers.append(("Content-Length", str(len(answer.body))))
    if all(name.lower() != "date" for name, _ in headers):
        headers.append(("Date", formatdate(usegmt=True)))
    start(f"{answer.status} {'OK' if answer.status < 300 else 'Error'}", headers)
    return [answer.body]


def forward(app: Wsgi, environ: dict[str, Any], **changed: Any) -> Answer:
    """What `app` answers, whole."""
    said: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
        said[:] = [status, headers]

    body = b"".join(app(environ | changed, start))
    return Answer(body, int(said[0].split()[0]), tuple(said[1]))


def forward_form(app: Wsgi, call: Call, fields: Mapping[str, str]) -> Answer:
    """What `app` answers to another form of the same service."""
    from urllib.parse import urlencode

    body = urlencode({"Version": call.form.get("Version", "2016-11-15"), **fields}).encode()
    return forward(app, call.environ, **{"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})


def as_json(value: Any) -> Answer:
    return Answer(json.dumps(value).encode(), headers=(("Content-Type", _JSON),))


def as_xml(action: str, inside: str, namespace: str) -> Answer:
    """A query answer; `inside` is XML already."""
    meta = f"<ResponseMetadata><RequestId>{secrets.token_hex(8)}</RequestId></ResponseMetadata>"
    body = f'<{action}Response xmlns="{namespace}"><{action}Result>{inside}</{action}Result>{meta}</{action}Response>'
    return Answer(body.encode(), headers=(("Content-Type", "text/xml"),))


def as_ec2_xml(action: str, inside: str) -> Answer:
    opening = f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
    body = f"{opening}<requestId>{secrets.token_hex(8)}</requestId>{inside}</{action}Response>"
    return Answer(body.encode(), headers=(("Content-Type", "text/xml"),))


def as_error(service: str, error: ApiError) -> Answer:
    """The error in the protocol of `service`."""
    code, message = error.code, str(error)
    if service in {"ssm", "pricing", "servicequotas", "secretsmanager"}:
        body = json.dumps({"__type": code, "message": message}).encode()
        return Answer(body, error.status, (("Content-Type", _JSON), ("x-amzn-errortype", code)))
    inside = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
    request_id = secrets.token_hex(8)
    request = f"<RequestId>{request_id}</RequestId>"
    if service == "s3":
        text = f"<Error>{inside}{request}</Error>"
    elif service == "ec2":
        text = f"<Response><Errors><Error>{inside}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    else:
        text = f"<ErrorResponse><Error><Type>Sender</Type>{inside}</Error>{request}</ErrorResponse>"
    return Answer(
        f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode(), error.status, (("Content-Type", "text/xml"),)
    )


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
