"""STS where moto's stub accepts anything: who is who, and sessions by a workflow's OIDC token."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from runctl_action.emulator.server import PROFILE
from runctl_action.emulator.state import ACCOUNT, LAUNCHER_ROLE

ROLE = f"arn:aws:iam::{ACCOUNT}:role/{LAUNCHER_ROLE}"
_ONCE = {"mode": "standard", "total_max_attempts": 1}


def jwt(header: Any = None, signature: str = "c2ln", **claims: Any) -> str:
    whole = {"iss": "https://token.actions.example", "sub": "repo:acme/digits:ref:refs/heads/main",
             "aud": "sts.amazonaws.com", "exp": time.time() + 300} | claims  # fmt: skip
    parts = [header or {"alg": "RS256", "typ": "JWT"}, {k: v for k, v in whole.items() if v is not None}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, signature])


@pytest.fixture
def assume(aws: Any) -> Any:
    """`assume(token, **parameters)`: AssumeRoleWithWebIdentity, without any credentials."""
    config = Config(signature_version=UNSIGNED, retries=_ONCE)
    client = boto3.Session(region_name="us-east-1").client("sts", endpoint_url=aws.endpoint, config=config)

    def call(token: str, **parameters: Any) -> dict[str, Any]:
        wanted = {"RoleArn": ROLE, "RoleSessionName": "run-1"} | parameters
        return dict(client.assume_role_with_web_identity(WebIdentityToken=token, **wanted))

    yield call
    client.close()


@pytest.fixture
def session(aws: Any) -> Callable[[dict[str, str]], boto3.Session]:
    def make(found: dict[str, str]) -> boto3.Session:
        return boto3.Session(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], "us-east-1")

    return make


def identity(aws: Any, session: boto3.Session) -> dict[str, str]:
    with contextlib.closing(session.client("sts", endpoint_url=aws.endpoint)) as sts:
        found = dict(sts.get_caller_identity())
    return {name: found[name] for name in ("Account", "Arn", "UserId")}


def role_id(client: Any, role: str) -> str:
    return str(client("iam").get_role(RoleName=role)["Role"]["RoleId"])


def test_web_identity_gives_a_session_of_the_role_that_works(
    aws: Any, assume: Any, session: Any, client: Any, bucket: str
) -> None:
    answer = assume(jwt())
    userid = f"{role_id(client, LAUNCHER_ROLE)}:run-1"
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{LAUNCHER_ROLE}/run-1"
    assert answer["AssumedRoleUser"] == {"AssumedRoleId": userid, "Arn": arn}
    assert answer["SubjectFromWebIdentityToken"] == "repo:acme/digits:ref:refs/heads/main"
    found = session(answer["Credentials"])
    assert identity(aws, found) == {"Account": ACCOUNT, "Arn": arn, "UserId": userid}
    for service, operation in (("s3", "list_buckets"), ("ec2", "describe_instances"), ("ssm", "list_commands")):
        with contextlib.closing(found.client(service, endpoint_url=aws.endpoint)) as made:
            getattr(made, operation)()


def test_a_subject_may_hold_what_xml_escapes(assume: Any) -> None:
    assert assume(jwt(sub="repo:a/b:ref:<&>"))["SubjectFromWebIdentityToken"] == "repo:a/b:ref:<&>"


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "a.b.c",
        "e30.e30.c2ln",
        jwt().rpartition(".")[0],
        jwt(signature=""),
        jwt(header={"alg": "none"}),
        jwt(header={"alg": "HS256"}),
        jwt(header=["RS256"]),
        jwt(aud="https://github.com/acme"),
        jwt(aud=None),
        jwt(aud=["sts.amazonaws.com.example"]),
        jwt(sub=None),
        jwt(exp=None),
        jwt(exp="soon"),
        "ü.ü.ü",
    ],
)
def test_web_identity_checks_the_shape_and_the_audience_of_a_token(assume: Any, token: str) -> None:
    with pytest.raises(ClientError) as refused:
        assume(token)
    assert refused.value.response["Error"]["Code"] == "InvalidIdentityToken"


@pytest.mark.parametrize("expires", [1_700_000_000, 0, float("nan")])
def test_web_identity_checks_the_expiry_of_a_token(assume: Any, expires: float) -> None:
    with pytest.raises(ClientError) as refused:
        assume(jwt(exp=expires))
    assert refused.value.response["Error"]["Code"] == "ExpiredTokenException"


@pytest.mark.parametrize(
    "role", [f"arn:aws:iam::{ACCOUNT}:role/nobody", f"arn:aws:iam::210987654321:role/{LAUNCHER_ROLE}"]
)
def test_web_identity_needs_a_role_that_is_there(assume: Any, role: str) -> None:
    with pytest.raises(ClientError) as refused:
        assume(jwt(), RoleArn=role)
    assert refused.value.response["Error"]["Code"] == "AccessDenied"


def test_a_session_lasts_as_long_as_was_asked_for(assume: Any) -> None:
    for seconds, parameters in ((3600, {}), (900, {"DurationSeconds": 900})):
        left = assume(jwt(), **parameters)["Credentials"]["Expiration"] - datetime.now(UTC)
        assert timedelta(seconds=seconds - 30) < left <= timedelta(seconds=seconds + 1)


def test_a_session_lasts_a_quarter_to_one_hour(assume: Any) -> None:
    with pytest.raises(ClientError) as refused:
        assume(jwt(), DurationSeconds=3601)
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ParamValidationError):
        assume(jwt(), DurationSeconds=899)


@pytest.mark.parametrize("name", ["has space", "has/slash", "star*", "x" * 65])
def test_a_session_name_has_the_characters_that_it_may_have(assume: Any, name: str) -> None:
    with pytest.raises(ClientError) as refused:
        assume(jwt(), RoleSessionName=name)
    assert refused.value.response["Error"]["Code"] == "ValidationError"


def test_a_role_is_assumed_with_credentials_too_and_not_without(aws: Any, client: Any, session: Any) -> None:
    found = client("sts").assume_role(RoleArn=ROLE, RoleSessionName="chained")
    assert identity(aws, session(found["Credentials"]))["UserId"] == found["AssumedRoleUser"]["AssumedRoleId"]
    config = Config(signature_version=UNSIGNED, retries=_ONCE)
    anybody = boto3.Session(region_name="us-east-1").client("sts", endpoint_url=aws.endpoint, config=config)
    for call in (anybody.get_caller_identity, lambda: anybody.assume_role(RoleArn=ROLE, RoleSessionName="x1")):
        with pytest.raises(ClientError):
            call()
    anybody.close()


def test_a_session_that_has_expired_is_refused_in_each_services_words(aws: Any, assume: Any, session: Any) -> None:
    answer = assume(jwt())["Credentials"]
    aws.world.credentials[answer["AccessKeyId"]].expires_at = datetime.now(UTC)
    for service, operation, code in (
        ("s3", "list_buckets", "ExpiredToken"),
        ("ec2", "describe_instances", "RequestExpired"),
        ("ssm", "list_commands", "ExpiredTokenException"),
        ("sts", "get_caller_identity", "ExpiredToken"),
    ):
        config = Config(retries=_ONCE)
        with (
            contextlib.closing(session(answer).client(service, endpoint_url=aws.endpoint, config=config)) as made,
            pytest.raises(ClientError) as refused,
        ):
            getattr(made, operation)()
        assert refused.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("service", "operation", "unknown", "forged"),
    [
        ("s3", "list_buckets", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
        ("ec2", "describe_instances", "AuthFailure", "AuthFailure"),
        ("ssm", "list_commands", "UnrecognizedClientException", "InvalidSignatureException"),
        ("sts", "get_caller_identity", "InvalidClientTokenId", "SignatureDoesNotMatch"),
        ("iam", "list_roles", "InvalidClientTokenId", "SignatureDoesNotMatch"),
    ],
)
def test_keys_that_are_unknown_or_forged_are_refused_in_each_services_words(
    aws: Any, service: str, operation: str, unknown: str, forged: str
) -> None:
    key = aws.environ["AWS_ACCESS_KEY_ID"]
    for pair, code in (
        (("AKIANOBODY", "secret"), unknown),
        ((key, "wrong"), forged),
        ((key, aws.environ["AWS_SECRET_ACCESS_KEY"], "a token that it does not have"), None),
    ):
        made = boto3.Session(*pair, region_name="us-east-1").client(
            service, endpoint_url=aws.endpoint, config=Config(retries=_ONCE)
        )
        with pytest.raises(ClientError) as refused:
            getattr(made, operation)()
        made.close()
        assert code in (None, refused.value.response["Error"]["Code"])


def test_the_owner_is_a_user(aws: Any, client: Any) -> None:
    found = client("sts").get_caller_identity()
    assert found["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/launcher"
    assert found["UserId"].startswith("AIDA")


def test_a_host_is_its_role_id_and_its_instance_id(aws: Any, client: Any, instance: str, session: Any) -> None:
    credential = aws._lives.credentials(aws.world.instances[instance])
    found = {
        "AccessKeyId": credential.access_key, "SecretAccessKey": credential.secret, "SessionToken": credential.token
    }  # fmt: skip
    assert identity(aws, session(found)) == {
        "Account": ACCOUNT,
        "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{PROFILE}/{instance}",
        "UserId": f"{role_id(client, PROFILE)}:{instance}",
    }
