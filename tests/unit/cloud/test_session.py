from __future__ import annotations

import botocore.exceptions
import pytest

from runctl_action.cloud import session as cloud_session
from runctl_action.cloud.session import aws_errors, connect, translated
from runctl_action.errors import CloudError, CredentialsError, PermissionDenied, SettingsError, Unavailable

ARN = "arn:aws:iam::123456789012:user/me"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@pytest.fixture
def no_aws(monkeypatch, tmp_path):
    """A machine without AWS: botocore finds profiles and keys through the process's environment alone."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def client_error(code: str, message: str = "said AWS") -> botocore.exceptions.ClientError:
    return botocore.exceptions.ClientError({"Error": {"Code": code, "Message": message}}, "Anything")


@pytest.mark.parametrize(
    ("environ", "region", "found"),
    [
        ({"AWS_REGION": "r1", "AWS_DEFAULT_REGION": "r2"}, "r0", "r0"),
        ({"AWS_REGION": "r1", "AWS_DEFAULT_REGION": "r2"}, None, "r1"),
        ({"AWS_DEFAULT_REGION": "r2"}, None, "r2"),
    ],
)
def test_the_setting_names_the_region_before_the_environment(no_aws, environ, region, found):
    assert connect(KEYS | environ, region).region == found


def test_the_profile_names_the_region_when_nothing_else_does(no_aws):
    (no_aws / "config").write_text("[profile mine]\nregion = eu-north-1\n")
    assert connect(KEYS | {"AWS_PROFILE": "mine"}, None).region == "eu-north-1"


def test_without_a_region_it_is_said_where_one_is_looked_for(no_aws):
    with pytest.raises(
        SettingsError, match="no AWS region is set: neither --region, RUNCTL_REGION, AWS_REGION"
    ) as caught:
        connect(KEYS, None)
    assert 'region = "us-east-1"' in caught.value.hint


def test_without_credentials_it_is_said_how_to_get_some(no_aws):
    with pytest.raises(CredentialsError, match="no AWS credentials were found") as caught:
        connect({}, "eu-west-1")
    for way in ("configure-aws-credentials", "aws sso login", "train --emulate"):
        assert way in caught.value.hint


@pytest.mark.parametrize(
    ("given", "missing"),
    [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")],
)
def test_half_a_pair_of_keys_is_told_what_is_missing(no_aws, given, missing):
    with pytest.raises(CredentialsError, match=f"{given} is set, {missing} is not"):
        connect({given: "x"}, "eu-west-1")


def test_an_unknown_profile_is_named(no_aws):
    with pytest.raises(CredentialsError, match="nobody") as caught:
        connect({"AWS_PROFILE": "nobody"}, "eu-west-1")
    assert caught.value.hint == "list the profiles there are: aws configure list-profiles"


def test_half_a_profile_is_an_error_of_the_credentials(no_aws):
    (no_aws / "credentials").write_text("[mine]\naws_access_key_id = x\n")
    with pytest.raises(CredentialsError, match="aws_secret_access_key"):
        connect({"AWS_PROFILE": "mine"}, "eu-west-1")


def test_an_unreadable_configuration_is_an_error_of_ours(no_aws):
    (no_aws / "config").write_text("nonsense\n[")
    with pytest.raises(CredentialsError, match="config") as caught:
        connect({"AWS_PROFILE": "mine"}, "eu-west-1")
    assert "network" not in caught.value.hint


def test_nothing_is_called_to_connect(no_aws):
    # An address where nobody listens: a call would fail.
    connect(KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "eu-west-1").close()


def test_a_client_is_made_once_and_for_the_endpoint_of_the_environment(no_aws):
    made = connect(
        KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:2"}, "eu-west-1"
    )
    assert made.client("sts") is made.client("sts")
    assert made.client("sts").meta.endpoint_url == "http://127.0.0.1:2"
    assert made.client("ssm").meta.endpoint_url == "http://127.0.0.1:1"
    made.close()


def test_who_we_are_is_an_account_and_an_arn(session, stub):
    stub("sts").add_response("get_caller_identity", {"Account": "123456789012", "Arn": ARN}, {})
    assert session.identity() == cloud_session.Identity("123456789012", ARN)


def test_another_account_than_the_allowed_ones_is_refused_by_name(session, stub):
    stub("sts").add_response("get_caller_identity", {"Account": "123456789012", "Arn": ARN}, {})
    with pytest.raises(
        CredentialsError,
        match=r"of account 123456789012 \(arn:aws:iam::.*\), which is not in allowed-account-ids: 1, 2$",
    ):
        session.identity(["1", "2"])


def test_an_allowed_account_is_taken(session, stub):
    stub("sts").add_response("get_caller_identity", {"Account": "123456789012", "Arn": ARN}, {})
    assert session.identity(["1", "123456789012"]).account == "123456789012"


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "RequestExpired"])
def test_expired_credentials_are_told_as_expired(session, stub, code):
    stub("sts").add_client_error("get_caller_identity", code)
    with pytest.raises(CredentialsError, match=f"have expired \\({code} at sts:GetCallerIdentity\\)") as caught:
        session.identity()
    assert "run the same command again" in caught.value.hint


@pytest.mark.parametrize(
    "code", ["InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "AuthFailure"]
)
def test_wrong_credentials_are_not_told_as_expired(session, stub, code):
    stub("sts").add_client_error("get_caller_identity", code)
    with pytest.raises(CredentialsError, match=f"does not accept the credentials: {code}") as caught:
        session.identity()
    assert "aws sts get-caller-identity" in caught.value.hint


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"])
def test_a_missing_permission_is_named(code):
    error = translated(client_error(code), "ec2:RunInstances")
    assert isinstance(error, PermissionDenied)
    assert str(error) == "ec2:RunInstances is not allowed: said AWS"
    assert error.hint == "allow ec2:RunInstances in the launcher's policy"


def test_a_wrong_clock_is_told_as_one():
    assert "clock is wrong" in str(translated(client_error("RequestTimeTooSkewed"), "s3:GetObject"))


def test_any_other_error_says_what_failed_with_aws_own_words():
    assert str(translated(client_error("Strange"), "s3:GetObject")) == "s3:GetObject failed: Strange: said AWS"
    assert str(translated(client_error("404", ""), "s3:GetObject")) == "s3:GetObject failed: 404: 404"


@pytest.mark.parametrize("code", ["SlowDown", "ThrottlingException", "RequestLimitExceeded", "InternalError"])
def test_what_is_worth_asking_again_is_told_from_what_is_not(code):
    assert type(translated(client_error(code), "s3:GetObject")) is Unavailable
    assert type(translated(client_error("InvalidArgument"), "s3:GetObject")) is CloudError


@pytest.mark.parametrize(
    ("raised", "kind", "hint"),
    [
        (client_error("AccessDenied"), PermissionDenied, "allow s3:PutObject"),
        (botocore.exceptions.NoCredentialsError(), CredentialsError, "aws sts get-caller-identity"),
        (botocore.exceptions.SSOTokenLoadError(error_msg="x"), CredentialsError, "aws sso login"),
        (botocore.exceptions.UnauthorizedSSOTokenError(), CredentialsError, "aws sso login"),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="https://x"), Unavailable, "check the network"),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="https://x"), Unavailable, "check the network"),
    ],
)
def test_everything_that_botocore_raises_becomes_an_error_with_advice(raised, kind, hint):
    with pytest.raises(kind) as caught, aws_errors("s3:PutObject"):
        raise raised
    assert type(caught.value) is kind
    assert hint in caught.value.hint
    assert caught.value.__cause__ is raised


def test_errors_that_are_not_botocores_pass():
    with pytest.raises(KeyError), aws_errors("x"):
        raise KeyError
