"""STS: who a caller is, and sessions by web identity (a workflow's OIDC token) or from another role."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from xml.sax.saxutils import escape

from runctl_action.emulator import policies
from runctl_action.emulator.state import ACCOUNT, World
from runctl_action.emulator.wire import Answer, ApiError, Call, as_xml, timestamp

_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
_AUDIENCE = "sts.amazonaws.com"


class Sts:
    def __init__(self, world: World) -> None:
        self._world = world

    def handle(self, call: Call) -> Answer | None:
        """None for what is not ours. Raises ApiError."""
        match call.action:
            case "GetCallerIdentity":
                found = self._world.credentials[call.access_key]
                inside = f"<Arn>{found.arn}</Arn><UserId>{found.userid}</UserId><Account>{ACCOUNT}</Account>"
                return as_xml(call.action, inside, _NAMESPACE)
            case "AssumeRoleWithWebIdentity":
                claims = _claims(call.form.get("WebIdentityToken", ""))
                role = self._role(call.form.get("RoleArn", ""))
                if not _trusts(role, claims):
                    raise ApiError("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity", 403)
                subject = f"<SubjectFromWebIdentityToken>{escape(str(claims['sub']))}</SubjectFromWebIdentityToken>"
                return self._session(call, subject)
            case "AssumeRole":
                return self._session(call, "")
        return None

    def _session(self, call: Call, extra: str) -> Answer:
        role = self._role(call.form.get("RoleArn", ""))
        name = call.form.get("RoleSessionName", "")
        seconds = int(call.form.get("DurationSeconds") or 3600)
        if not re.fullmatch(r"[\w+=,.@-]{2,64}", name, re.ASCII):
            raise ApiError("ValidationError", f"Value {name!r} at 'roleSessionName' failed to satisfy constraint.")
        if not 900 <= seconds <= 3600:
            raise ApiError("ValidationError", "The requested DurationSeconds is not between 900 and the role's 3600.")
        arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.name}/{name}"
        session = self._world.session(
            f"{role.id}:{name}", arn, self._world.launcher_policy, lasts=timedelta(seconds=seconds)
        )
        assert session.expires_at is not None
        inside = (
            f"<Credentials><AccessKeyId>{session.access_key}</AccessKeyId>"
            f"<SecretAccessKey>{session.secret}</SecretAccessKey><SessionToken>{session.token}</SessionToken>"
            f"<Expiration>{timestamp(session.expires_at)}</Expiration></Credentials><AssumedRoleUser>"
            f"<AssumedRoleId>{session.userid}</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser>{extra}"
        )
        return as_xml(call.action, inside, _NAMESPACE)

    def _role(self, arn: str) -> Any:
        from moto.iam.models import iam_backends

        for role in iam_backends[ACCOUNT]["aws"].roles.values():
            if role.arn == arn:
                return role
        raise ApiError("AccessDenied", f"Not authorized to perform sts:AssumeRoleWithWebIdentity on {arn}", 403)


def _trusts(role: Any, claims: Mapping[str, Any]) -> bool:
    """Whether a role's trust policy lets this token's owner have it. The emulated account's own role trusts anybody."""
    document = json.loads(role.assume_role_policy_document)
    if not document:
        return True
    issuer = str(claims.get("iss", "")).removeprefix("https://")
    provider = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}"
    context = {f"{issuer}:{name}": str(claims[name]) for name in ("aud", "sub")}
    policy = policies.of_resource(document, "Federated", provider)
    return policy.allows("sts:AssumeRoleWithWebIdentity", role.arn, context)


def _claims(token: str) -> dict[str, Any]:
    """A token's claims, checked as far as can be without its issuer's key: shape, audience, expiry."""
    try:
        header, payload, signature = token.split(".")
        claims = json.loads(_decoded(payload))
        is_signed = json.loads(_decoded(header))["alg"] == "RS256" and bool(signature)
        audience, expires_at, _ = claims["aud"], float(claims["exp"]), claims["sub"]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError("InvalidIdentityToken", f"The ID Token provided is not a valid JWT: {error}") from None
    if not is_signed:
        raise ApiError("InvalidIdentityToken", "The ID Token provided is not signed with RS256")
    if audience != _AUDIENCE:
        raise ApiError("InvalidIdentityToken", "Incorrect token audience")
    if not expires_at > time.time():  # NaN is JSON to Python
        raise ApiError(
            "ExpiredTokenException", "Token expired: current date/time must be before the expiration date/time"
        )
    return dict(claims)


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def launcher_userid() -> str:
    """A user's id, as IAM makes them."""
    return "AIDA" + secrets.token_hex(8).upper()
