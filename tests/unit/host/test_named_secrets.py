"""Secrets are fetched by their names; what cannot be is told with its name, and without its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest

from runctl_action.errors import CloudError, PermissionDenied
from runctl_action.host.named_secrets import fetch

DENIED = "User: arn:aws:sts::1:assumed-role/h/i-1 is not authorized to perform: ssm:GetParameter on resource: r"
NO_KEY = (
    "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not "
    "allowed to access."
)


class Store:
    """Parameter Store and Secrets Manager, in memory; an exception in a value's place is raised."""

    def __init__(self, **values: Any) -> None:
        self.values = {name.replace("__", "/"): value for name, value in values.items()}
        self.asked: list[dict[str, Any]] = []

    def __call__(self, service: str, region: str) -> Any:
        assert region == "eu-west-1"
        return self

    def ask(self, do: Callable[[Any], Any]) -> Any:
        return do(self)

    def get_parameter(self, **asked: Any) -> Any:
        return {"Parameter": {"Value": self._found(asked, asked["Name"])}}

    def get_secret_value(self, **asked: Any) -> Any:
        found = self._found(asked, asked["SecretId"])
        return {"SecretBinary": found} if isinstance(found, bytes) else {"SecretString": found}

    def _found(self, asked: dict[str, Any], name: str) -> Any:
        self.asked.append(asked)
        found = self.values[name.lstrip("/")]
        if isinstance(found, Exception):
            raise found
        return found


def refusal(code: str, message: str = "") -> botocore.exceptions.ClientError:
    return botocore.exceptions.ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


def test_values_come_from_both_stores_decrypted_and_fields_of_json_by_name() -> None:
    store = Store(team__hf="hunter2\n", team__db='{"password": "staple", "port": 54321}')
    wanted = {"A": "ssm:/team/hf", "B": "secretsmanager:team/db#password", "C": "secretsmanager:team/db#port"}
    assert fetch(wanted, "eu-west-1", client=store) == {"A": "hunter2\n", "B": "staple", "C": "54321"}
    assert store.asked[0] == {"Name": "/team/hf", "WithDecryption": True}


@pytest.mark.parametrize(
    ("where", "code", "message", "expected"),
    [
        ("ssm:/x", "ParameterNotFound", "", "cannot be read: there is none of that name in this region"),
        ("secretsmanager:x", "ResourceNotFoundException", "", "cannot be read: there is none of that name"),
        ("ssm:/x", "AccessDeniedException", DENIED, "ssm:GetParameter is not allowed to the host's role"),
        ("secretsmanager:x", "AccessDeniedException", "no", "secretsmanager:GetSecretValue is not allowed"),
        ("ssm:/x", "AccessDeniedException", NO_KEY, "kms:Decrypt is not allowed"),
        ("secretsmanager:x", "AccessDeniedException", "Access to KMS is not allowed", "kms:Decrypt is not allowed"),
        ("secretsmanager:x", "InvalidRequestException", "it is marked for deletion", "it is marked for deletion"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_secret_and_what_is_missing(where: str, code: str, message: str, expected: str) -> None:
    with pytest.raises(CloudError) as caught:
        fetch({"TOKEN": where}, "eu-west-1", client=Store(x=refusal(code, message)))
    assert str(caught.value).startswith(f"the secret TOKEN ({where}) cannot be read: ")
    assert expected in str(caught.value)
    assert isinstance(caught.value, PermissionDenied) == ("not allowed" in expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [("", b"\xff\x00"), ("", "hun\0ter2"), ("", "abc"), ("", "  \n   "), ("", "hun\udc80ter2"), ("#key", "hunter2"),
     ("#key", '["hunter2"]'), ("#key", '{"other": "hunter2"}'), ("#key", '{"key": null}'), ("#key", b"\xff")],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_told_and_not_shown(field: str, value: Any) -> None:
    where = f"secretsmanager:x{field}"
    with pytest.raises(CloudError) as caught:
        fetch({"TOKEN": where}, "eu-west-1", client=Store(x=value))
    assert str(caught.value).startswith(f"the secret TOKEN ({where}) cannot be used: ")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_answer_is_told_with_the_secrets_name() -> None:
    unreachable = botocore.exceptions.EndpointConnectionError(endpoint_url="https://ssm")
    with pytest.raises(CloudError, match=r"the secret TOKEN \(ssm:/x\) cannot be read: EndpointConnectionError"):
        fetch({"TOKEN": "ssm:/x"}, "eu-west-1", client=Store(x=unreachable))
