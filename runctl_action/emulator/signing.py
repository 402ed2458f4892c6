"""Signature Version 4, checked as AWS checks it (IAM user guide, "Create a signed AWS API request")."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from runctl_action.emulator.state import Credential
from runctl_action.emulator.wire import ApiError, Call

_MAX_SKEW = timedelta(minutes=15)
_MAX_EXPIRES_SECONDS = 604_800
_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})\Z")
_IN_QUERY = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders")
# What each service calls them; the rest of AWS as STS does.
_UNKNOWN_KEY = {
    "s3": "InvalidAccessKeyId", "ec2": "AuthFailure", "ssm": "UnrecognizedClientException",
    "pricing": "UnrecognizedClientException", "secretsmanager": "UnrecognizedClientException",
}  # fmt: skip
_BAD_SIGNATURE = {"ec2": "AuthFailure", "ssm": "InvalidSignatureException", "pricing": "InvalidSignatureException"}


def check(call: Call, credential: Credential | None, skew: timedelta = timedelta()) -> None:
    """Raises ApiError: unknown or expired credentials, a wrong token, a clock that is off by `skew`, a signature that
    does not hold, a presigned URL that has expired."""
    is_presigned = "X-Amz-Signature" in call.query
    if call.service == "s3" and not is_presigned:
        _require_version_4(call)
    if credential is None:
        code = _UNKNOWN_KEY.get(call.service, "InvalidClientTokenId")
        raise ApiError(code, "The security token included in the request is invalid.", 403)
    token = call.query.get("X-Amz-Security-Token", "") if is_presigned else call.header("X-Amz-Security-Token")
    if token != (credential.token or ""):
        code = {**_UNKNOWN_KEY, "s3": "InvalidToken"}.get(call.service, "InvalidClientTokenId")
        raise ApiError(code, "The security token included in the request is invalid.", 403)
    now = datetime.now(UTC)
    if credential.expires_at is not None and credential.expires_at <= now:
        raise expired(call.service)
    if is_presigned:
        signed_at, scope, names, signature = _of_query(call)
        if now > _moment(signed_at) + timedelta(seconds=int(call.query["X-Amz-Expires"])):
            raise ApiError("AccessDenied", "Request has expired", 403)
    else:
        found = _AUTHORIZATION.match(call.header("Authorization"))
        if found is None:
            raise ApiError("IncompleteSignature", "The Authorization header is not of Signature Version 4.", 400)
        scope, names, signature = found.groups()
        signed_at = call.header("X-Amz-Date")
        if abs(_moment(signed_at) + skew - now) > _MAX_SKEW:
            code = "RequestTimeTooSkewed" if call.service == "s3" else "RequestExpired"
            raise ApiError(code, "The difference between the request time and the current time is too large.", 403)
    _require_signed_headers(call, names.split(";"))
    payload = "UNSIGNED-PAYLOAD" if is_presigned else _payload_hash(call)
    canonical = "\n".join([call.method, _path(call), _query(call), _headers(call, names), names, payload])
    text = "\n".join(["AWS4-HMAC-SHA256", signed_at, scope.partition("/")[2], _sha256(canonical.encode())])
    if not hmac.compare_digest(_signature(credential.secret, scope, text), signature):
        code = _BAD_SIGNATURE.get(call.service, "SignatureDoesNotMatch")
        raise ApiError(code, "The request signature does not match the one calculated.", 403)


def expired(service: str) -> ApiError:
    """How each service says it."""
    code = {"ec2": "RequestExpired", "ssm": "ExpiredTokenException"}.get(service, "ExpiredToken")
    return ApiError(code, "The security token included in the request is expired", 400)


def _require_version_4(call: Call) -> None:
    """S3 has had others; and a request may be anonymous."""
    authorization = call.header("Authorization")
    if authorization.startswith("AWS ") or {"AWSAccessKeyId", "Signature"} <= call.query.keys():
        said = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
        raise ApiError("InvalidRequest", said, 400)
    if not authorization:
        raise ApiError("AccessDenied", "Access Denied", 403)


def _of_query(call: Call) -> tuple[str, str, str, str]:
    """A presigned URL's date, scope, signed headers and signature."""
    query = call.query
    if missing := [name for name in _IN_QUERY if not query.get(name)]:
        raise ApiError("AuthorizationQueryParametersError", f"Query-string authentication needs {missing[0]}.", 400)
    seconds = query["X-Amz-Expires"]
    if not re.fullmatch(r"[0-9]{1,6}", seconds) or int(seconds) > _MAX_EXPIRES_SECONDS:
        raise ApiError("AuthorizationQueryParametersError", "X-Amz-Expires must be less than a week in seconds.", 400)
    return query["X-Amz-Date"], query["X-Amz-Credential"], query["X-Amz-SignedHeaders"], query["X-Amz-Signature"]


def _require_signed_headers(call: Call, names: Sequence[str]) -> None:
    """Else a header that changes what is done could be added to somebody's signed request."""
    sent = (name[len("HTTP_") :].lower().replace("_", "-") for name in call.environ if name.startswith("HTTP_"))
    amazons = {name for name in sent if name.startswith("x-amz-")} - {"x-amz-content-sha256"}
    if "host" not in names or (call.service == "s3" and not amazons <= set(names)):
        raise ApiError("AccessDenied", "There were headers present in the request which were not signed", 403)


def _payload_hash(call: Call) -> str:
    said = call.header("X-Amz-Content-Sha256")
    if not re.fullmatch("[0-9a-f]{64}", said):
        return said or _sha256(call.body)
    if said != _sha256(call.body):
        raise ApiError("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' does not match.", 400)
    return said


def _path(call: Call) -> str:
    raw = call.raw_uri.partition("?")[0]
    return raw if call.service == "s3" else quote(raw, safe="/-_.~")


def _query(call: Call) -> str:
    pairs = [part.partition("=") for part in call.raw_uri.partition("?")[2].split("&") if part]
    return "&".join(f"{name}={value}" for name, _, value in sorted(pairs) if name != "X-Amz-Signature")


def _headers(call: Call, names: str) -> str:
    return "".join(f"{name}:{' '.join(call.header(name).split())}\n" for name in names.split(";"))


def _signature(secret: str, scope: str, text: str) -> str:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/")[1:]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ApiError("AccessDenied", f"AWS authentication requires a valid Date, not {text!r}.", 403) from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
