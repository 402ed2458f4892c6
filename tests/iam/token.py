"""The OIDC token of a workflow's job, as GitHub shapes it; the emulator cannot check who signed it."""

from __future__ import annotations

import base64
import json
import time


def job_token(subject: str, issuer: str = "https://token.actions.githubusercontent.com") -> str:
    claims = {"iss": issuer, "sub": subject, "aud": "sts.amazonaws.com", "exp": time.time() + 300}
    parts = (json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2lnbmVk"])
