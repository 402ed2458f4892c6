"""Signature Version 4, checked as AWS checks it (IAM user guide, "Create a signed AWS API request")."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from runctl_action.emulator.state import Credential
from runctl_action.emulator.wire import ApiError, Call

_MAX_SKEW = timedelta(minutes=15)
_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})\Z")


def check(call: Call, credential: Credential | None, skew: timedelta = timedelta()) -> None:
    """Raises ApiError: unknown or expired credentials, a wrong token, a clock that is off by `skew`, a signature that
    does not hold, a presigned URL that has expired."""
    if credential is None:
        code = "InvalidAccessKeyId" if call.service == "s3" else "AuthFailure" if call.service == "ec2" else ""
        raise ApiError(code or "InvalidClientTokenId", "The security token included in the request is invalid.", 403)
    is_presigned = "X-Amz-Signature" in call.query
    token = call.query.get("X-Amz-Security-Token", "") if is_presigned else call.header("X-Amz-Security-Token")
    if token != (credential.token or ""):
        raise ApiError(
            "InvalidToken" if call.service == "s3" else "InvalidClientTokenId", "The token is not valid.", 403
        )
    now = datetime.now(UTC)
    if credential.expires_at is not None and credential.expires_at <= now:
        raise expired(call.service)
    if is_presigned:
        signed_at, scope = call.query["X-Amz-Date"], call.query["X-Amz-Credential"]
        names, signature = call.query["X-Amz-SignedHeaders"], call.query["X-Amz-Signature"]
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
    payload = "UNSIGNED-PAYLOAD" if is_presigned else _payload_hash(call)
    canonical = "\n".join([call.method, _path(call), _query(call), _headers(call, names), names, payload])
    text = "\n".join(["AWS4-HMAC-SHA256", signed_at, scope.partition("/")[2], _sha256(canonical.encode())])
    if not hmac.compare_digest(_signature(credential.secret, scope, text), signature):
        raise ApiError("SignatureDoesNotMatch", "The request signature does not match the one calculated.", 403)


def expired(service: str) -> ApiError:
    """How each service says it."""
    code = {"ec2": "RequestExpired", "ssm": "ExpiredTokenException"}.get(service, "ExpiredToken")
    return ApiError(code, "The security token included in the request is expired", 400)


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
