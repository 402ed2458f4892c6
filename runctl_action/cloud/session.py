"""A boto3 session that is known to work, and errors of AWS turned into ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.exceptions
import botocore.session
from botocore.config import Config

from runctl_action.errors import CloudError, CredentialsError, PermissionDenied, SettingsError, Unavailable

# A presigned URL must be SigV4 on the regional host. boto3 presigns with SigV2 in some regions, which SSE-KMS rejects,
# and for the global host, whose redirect breaks the signature, unless all of these say otherwise (botocore/signers.py).
_S3 = Config(
    signature_version="s3v4",
    s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"},
    retries={"mode": "standard", "max_attempts": 6},
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=32,
)
# An endpoint of one's own (an emulator, a private one) seldom has a host name for each bucket.
_S3_ELSEWHERE = _S3.merge(Config(s3={"addressing_style": "auto"}))
# SendCommand's and Describe's rates are not published; adaptive retries slow down when told to.
_API = Config(retries={"mode": "adaptive", "max_attempts": 8}, connect_timeout=10, read_timeout=60)

# RunInstances is repeated by who settles, with the same token. botocore would ask for capacity that is not there (EC2
# answers that with a 500) again and again, for half a minute an offer.
_ONCE = _API.merge(Config(retries={"mode": "standard", "total_max_attempts": 1}))

# What a run can do without may not hold it up.
_BRIEF = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=5, read_timeout=10)

_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}
_LACKING = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9]+)")
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_WRONG = {
    "InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure", "InvalidAccessKeyId", "InvalidToken",
    "SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature",
}  # fmt: skip
_CLOCK = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_LATER = {
    "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "TooManyRequestsException",
    "SlowDown", "RequestTimeout", "RequestTimeoutException", "InternalError", "InternalFailure", "ServiceUnavailable",
}  # fmt: skip


@dataclass(frozen=True)
class Identity:
    account: str
    arn: str

    def require(self, allowed_account_ids: Sequence[str]) -> None:
        """Raises CredentialsError for an account that is not among them."""
        if self.account not in allowed_account_ids:
            raise CredentialsError(
                f"the credentials are of account {self.account} ({self.arn}), "
                f"which is not in allowed-account-ids: {', '.join(allowed_account_ids)}",
                "use the credentials of the right account, or add it to allowed-account-ids",
            )


class Session:
    """AWS clients for one region; made by `connect`."""

    def __init__(self, session: boto3.Session, region: str, environ: Mapping[str, str]) -> None:
        self.region = region
        self._session = session
        self._environ = environ
        self._clients: dict[tuple[object, ...], Any] = {}

    def client(
        self, service: str, *, is_retried: bool = True, is_brief: bool = False, region: str | None = None
    ) -> Any:
        """A client of `service` in this region (or `region`), made once; unless `is_retried`, each call is made once.
        One that `is_brief` gives up early."""
        key = (service, is_retried, is_brief, region)
        if key not in self._clients:
            endpoint = self.endpoint(service)
            config = _S3_ELSEWHERE if endpoint else _S3
            if service != "s3":
                config = _BRIEF if is_brief else _API if is_retried else _ONCE
            self._clients[key] = self._session.client(  # type: ignore[call-overload]
                service, region_name=region or self.region, config=config, endpoint_url=endpoint
            )
        return self._clients[key]

    def endpoint(self, service: str) -> str | None:
        """Where `service` is when it is not at AWS."""
        # The environment is an argument here; botocore would read the process's.
        own = self._environ.get(f"AWS_ENDPOINT_URL_{service.upper()}")
        return own or self._environ.get("AWS_ENDPOINT_URL") or None

    @property
    def credentials_name(self) -> str:
        """Tells one account's credentials from another's, without asking anybody; no secret."""
        return " ".join(self._environ.get(name, "") for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN"))

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def identity(self, allowed_account_ids: Sequence[str] = ()) -> Identity:
        """Who we are. Raises CredentialsError: none, expired, or an account that is not in `allowed_account_ids`."""
        with aws_errors("sts:GetCallerIdentity"):
            answer = self.client("sts").get_caller_identity()
        identity = Identity(answer["Account"], answer["Arn"])
        if allowed_account_ids:
            identity.require(allowed_account_ids)
        return identity


def connect(environ: Mapping[str, str], region: str | None, role: str | None = None) -> Session:
    """A session from the environment's credentials and profile; in a workflow job, of `role` by the job's own token.
    Raises SettingsError when there is no region, CredentialsError when there are no credentials; nothing is called yet,
    so expired ones are found by `identity`."""
    if role and environ.get("GITHUB_ACTIONS") == "true":
        return _connect_as(role, environ, region)
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if len(given := [name for name in keys if environ.get(name)]) == 1:
        missing = next(name for name in keys if name not in given)
        raise CredentialsError(f"{given[0]} is set, {missing} is not", "set both, or neither to use a profile")
    with aws_errors("reading the AWS configuration"):
        session = boto3.Session(
            profile_name=environ.get("AWS_PROFILE") or None,
            aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID") or None,
            aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY") or None,
            aws_session_token=environ.get("AWS_SESSION_TOKEN") or None,
        )
        credentials = session.get_credentials()
    chosen = _region(environ, region, session.region_name)
    if credentials is None:
        raise CredentialsError(
            "no AWS credentials were found: no AWS_ACCESS_KEY_ID, no profile, no role",
            "in a workflow use aws-actions/configure-aws-credentials or role-to-assume; on a laptop `aws sso login` "
            "or `aws configure`; without an account: runctl-action train --emulate",
        )
    return Session(session, chosen, environ)


def _connect_as(role: str, environ: Mapping[str, str], region: str | None) -> Session:
    from runctl_action.cloud.web_identity import role_credentials

    chosen = _region(environ, region, None)
    core = botocore.session.Session()
    endpoint = environ.get("AWS_ENDPOINT_URL_STS") or environ.get("AWS_ENDPOINT_URL") or None

    def sts(service: str, config: Config) -> Any:
        return core.create_client(service, region_name=chosen, config=config.merge(_API), endpoint_url=endpoint)

    core._credentials = role_credentials(role, environ, sts)  # type: ignore[attr-defined]  # noqa: SLF001  - no other way in
    return Session(boto3.Session(botocore_session=core), chosen, environ)


def _region(environ: Mapping[str, str], region: str | None, of_profile: str | None) -> str:
    chosen = region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or of_profile
    if not chosen:
        raise SettingsError(
            "no AWS region is set: neither --region, RUNCTL_REGION, AWS_REGION nor the AWS profile names one",
            'set `region` in runctl.toml, for example: region = "us-east-1"',
        )
    return chosen


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
    except (botocore.exceptions.ConfigParseError, botocore.exceptions.InvalidConfigError) as error:
        raise CredentialsError(str(error), "mend the file, or write it anew: aws configure") from error
    except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
        raise Unavailable(f"{action} failed: {error}", "check the network and the region, then run it again") from error
    except botocore.exceptions.BotoCoreError as error:
        raise CloudError(f"{action} failed: {error}", "check the network and the region, then run it again") from error


def error_code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def translated(error: botocore.exceptions.ClientError, action: str) -> CloudError:
    """Our error for AWS's: the action that is missing is named, expired credentials are told from wrong ones."""
    code = error_code(error)
    message = str(error.response.get("Error", {}).get("Message", "")) or code
    if code in _DENIED:
        # A launch needs more than its own permission; AWS names the one that is missing, where it does not encode it.
        named = _LACKING.search(message)
        lacking = named[1] if named and not action.startswith(named[1]) else action
        return PermissionDenied(f"{action} is not allowed: {message}", f"allow {lacking} in the launcher's policy")
    if code in _EXPIRED:
        return CredentialsError(
            f"the AWS credentials have expired ({code} at {action})",
            "get fresh ones, then run the same command again: it attaches",
        )
    if code in _WRONG:
        return CredentialsError(
            f"AWS does not accept the credentials: {code} at {action}: {message}",
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN with: aws sts get-caller-identity",
        )
    if code in _CLOCK:
        return CloudError(f"AWS refused {action}: this machine's clock is wrong ({code})", "set the clock: timedatectl")
    if code in _LATER or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return Unavailable(f"{action} failed: {code}: {message}", "try again in a few minutes")
    return CloudError(f"{action} failed: {code}: {message}")
