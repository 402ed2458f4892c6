"""Credentials of a role, by a workflow job's own OIDC token: nothing long-lived is stored anywhere."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from botocore.credentials import AssumeRoleWithWebIdentityCredentialFetcher, DeferredRefreshableCredentials

from runctl_action.errors import CredentialsError

_AUDIENCE = "sts.amazonaws.com"
# The default maximum of a role; with 900, botocore would refresh at every call.
_SECONDS = 3600
_PERMISSION = "give the job `permissions: id-token: write`"


def role_credentials(
    role: str, environ: Mapping[str, str], client_creator: Callable[..., Any]
) -> DeferredRefreshableCredentials:
    """Those of `role`, fetched at the first call and again before they expire, each time with a new token of the job's.
    Raises CredentialsError, there and then or here, when the job cannot have one."""
    url, bearer = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not url or not bearer:
        raise CredentialsError(f"role-to-assume is {role}, and the job has no OIDC token", _PERMISSION)
    session_name = f"runctl-{environ.get('GITHUB_RUN_ID') or 'action'}"
    fetcher = AssumeRoleWithWebIdentityCredentialFetcher(
        client_creator=client_creator,
        web_identity_token_loader=lambda: job_token(url, bearer),
        role_arn=role,
        extra_args={"RoleSessionName": session_name[:64], "DurationSeconds": _SECONDS},
    )
    return DeferredRefreshableCredentials(
        refresh_using=fetcher.fetch_credentials, method="assume-role-with-web-identity"
    )


def job_token(url: str, bearer: str) -> str:
    """A new OIDC token of this job (GitHub's reference, OpenID Connect). Raises CredentialsError, without the token."""
    separator = "&" if "?" in url else "?"
    ask = urllib.request.Request(  # noqa: S310  - the runner's own URL
        f"{url}{separator}{urlencode({'audience': _AUDIENCE})}", headers={"Authorization": f"bearer {bearer}"}
    )
    try:
        with urllib.request.urlopen(ask, timeout=30) as answer:  # noqa: S310
            return str(json.load(answer)["value"])
    except urllib.error.HTTPError as error:
        raise CredentialsError(f"GitHub gave the job no OIDC token: HTTP {error.code}", _PERMISSION) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = type(error).__name__
        raise CredentialsError(f"GitHub gave the job no OIDC token: {why}", "run the job again") from error
