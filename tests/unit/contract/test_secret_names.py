"""Where a secret is kept: names are understood, values are refused and never shown."""

from __future__ import annotations

import pytest

from runctl_action.contract.secret_names import SecretName, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssm:/team/wandb", SecretName("ssm", "/team/wandb")),
        ("ssm:wandb", SecretName("ssm", "wandb")),
        ("ssm:/team/db#password", SecretName("ssm", "/team/db", "password")),
        ("secretsmanager:team/hf", SecretName("secretsmanager", "team/hf")),
        ("secretsmanager:prod@team+x=1#api key", SecretName("secretsmanager", "prod@team+x=1", "api key")),
        (
            "secretsmanager:arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/hf-AbCdEf#token",
            SecretName(
                "secretsmanager", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/hf-AbCdEf", "token"
            ),
        ),
        (
            "ssm:arn:aws:ssm:eu-west-1:123456789012:parameter/team/wandb",
            SecretName("ssm", "arn:aws:ssm:eu-west-1:123456789012:parameter/team/wandb"),
        ),
    ],
)
def test_a_name_is_taken_apart_and_put_together_again(text: str, expected: SecretName) -> None:
    assert parse(text) == expected
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "wandb", "/team/wandb", "vault:team/wandb", "ssm:", "ssm:#a", "ssm:/team/wandb#", "ssm:/team wandb",
        "ssm:/team/wandb:3", "SSM:/team/wandb", "secretsmanager:a\nb", "AKIAIOSFODNN7EXAMPLE", "ssm:AKIAIOSFODNN7EXAMPLE",
        "ssm:0123456789abcdef0123456789abcdef01234567", "secretsmanager:hf_9tK2vQ8zL4mN7pR3sX6wB1cD5eF0gHjKmN",
        "ghp_9tK2vQ8zL4mN7pR3sX6wB1cD5eF0gH", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "${{ secrets.WANDB }}",
    ],
)  # fmt: skip
def test_what_is_no_name_or_may_be_a_value_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="Names, never values") as caught:
        parse(text)
    assert not text or len(text) < 8 or text not in str(caught.value) or text in "ssm:/team/wandb"


def test_a_parameters_path_begins_with_a_slash() -> None:
    with pytest.raises(ValueError, match="write ssm:/team/wandb"):
        parse("ssm:team/wandb")
