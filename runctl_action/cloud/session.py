"""A boto3 session that is known to work, and errors of AWS turned into ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from runctl_action.errors import CloudError, CredentialsError, PermissionDenied

# A presigned URL must be SigV4 on the regional host: boto3's default is SigV2 in some regions, which SSE-KMS rejects.
_S3 = Config(
    signature_version="s3v4",
    s3={"addressing_style": "auto"},
    retries={"mode": "standard", "max_attempts": 6},
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=32,
)
# SendCommand's and Describe's rates are not published; adaptive retries slow down when told to.
_API = Config(retries={"mode": "adaptive", "max_attempts": 8}, connect_timeout=10, read_timeout=60)

_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}
_EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "AuthFailure",
    "InvalidAccessKeyId",
}


@dataclass(frozen=True)
class Identity:
    account: str
    arn: str


class Session:
    """AWS clients for one region; made by `connect`."""

    def __init__(self, session: boto3.Session, region: str, environ: Mapping[str, str]) -> None:
        self.region = region
        self._session = session
        self._environ = environ
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A client of `service` in this region, made once."""
        if service not in self._clients:
            config = _S3 if service == "s3" else _API
            # The environment is an argument here; botocore would read the process's.
            endpoint = self._environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or self._environ.get("AWS_ENDPOINT_URL")
            self._clients[service] = self._session.client(  # type: ignore[call-overload]
                service, region_name=self.region, config=config, endpoint_url=endpoint or None
            )
        return self._clients[service]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def identity(self, allowed_account_ids: Sequence[str] = ()) -> Identity:
        """Who we are. Raises CredentialsError: none, expired, or an account that is not in `allowed_account_ids`."""
        with aws_errors("sts:GetCallerIdentity"):
            answer = self.client("sts").get_caller_identity()
        identity = Identity(answer["Account"], answer["Arn"])
        if allowed_account_ids and identity.account not in allowed_account_ids:
            raise CredentialsError(
                f"the credentials are of account {identity.account} ({identity.arn}), "
                f"which is not in allowed-account-ids: {', '.join(allowed_account_ids)}",
                "use the credentials of the right account, or add it to allowed-account-ids",
            )
        return identity


def connect(environ: Mapping[str, str], region: str | None) -> Session:
    """A session from the environment's credentials and profile. Raises CredentialsError when there is no region or no
    credentials; nothing is called yet, so expired ones are found by `identity`."""
    with aws_errors("reading the AWS configuration"):
        session = boto3.Session(
            profile_name=environ.get("AWS_PROFILE") or None,
            aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID") or None,
            aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY") or None,
            aws_session_token=environ.get("AWS_SESSION_TOKEN") or None,
        )
    chosen = region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or session.region_name
    if not chosen:
        raise CredentialsError(
            "no AWS region is set: neither --region, RUNCTL_REGION, AWS_REGION nor the AWS profile names one",
            'set `region` in runctl.toml, for example: region = "us-east-1"',
        )
    if session.get_credentials() is None:
        raise CredentialsError(
            "no AWS credentials were found: no AWS_ACCESS_KEY_ID, no profile, no role",
            "in a workflow use aws-actions/configure-aws-credentials or role-to-assume; on a laptop `aws sso login` "
            "or `aws configure`; without an account: runctl-action train --emulate",
        )
    return Session(session, chosen, environ)


@contextlib.contextmanager
def aws_errors(action: str) -> Iterator[None]:
    """Turns botocore's exceptions inside into CloudError, CredentialsError or PermissionDenied naming `action`.
    Errors that a caller wants to tell apart are caught closer to the call."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise translated(error, action) from error
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise CredentialsError(
            f"no usable AWS credentials: {error}", "check with: aws sts get-caller-identity"
        ) from error
    except (botocore.exceptions.SSOError, botocore.exceptions.TokenRetrievalError) as error:
        raise CredentialsError(f"the AWS SSO session cannot be used: {error}", "run: aws sso login") from error
    except botocore.exceptions.ProfileNotFound as error:
        raise CredentialsError(str(error), "list the profiles there are: aws configure list-profiles") from error
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.HTTPClientError) as error:
        raise CloudError(f"{action} failed: {error}", "check the network and the region, then run it again") from error


def error_code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def translated(error: botocore.exceptions.ClientError, action: str) -> CloudError:
    """Our error for AWS's: the action that is missing is named, expired credentials are told from wrong ones."""
    code = error_code(error)
    message = str(error.response.get("Error", {}).get("Message", "")) or code
    if code in _DENIED:
        return PermissionDenied(f"{action} is not allowed: {message}", f"allow {action} in the launcher's policy")
    if code in _EXPIRED:
        return CredentialsError(
            f"AWS refused the credentials at {action}: {code}",
            "get fresh ones, then run the same command again: it attaches",
        )
    return CloudError(f"{action} failed: {code}: {message}")
