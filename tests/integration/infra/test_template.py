"""What the template makes, as it was deployed: the bucket, the security group, who may have the roles."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from iam import TEMPLATE, Stack, actions, deploy, job_token, listed, reference

from runctl_action.emulator import policies
from runctl_action.emulator.server import Emulator
from runctl_action.emulator.state import ACCOUNT

DOCUMENTED = Path(__file__).parents[3] / "docs" / "infra.md"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
# Condition keys that the reference gives for the action, which cfn-lint leaves out.
OF_ACTIONS = {
    "ec2:CreateTags": {"ec2:CreateAction"},
    "iam:CreateServiceLinkedRole": {"iam:AWSServiceName"},
    "iam:PassRole": {"iam:PassedToService"},
}
# Those on all resources although AWS knows some: quotas can be known, and the agent's is as AWS's own policy has it.
ON_ALL = {"servicequotas:GetServiceQuota", "servicequotas:GetAWSDefaultServiceQuota", "ssm:UpdateInstanceInformation"}
REPOSITORY = "repo:acme/digits"


@pytest.fixture(scope="module")
def deployed(aws: Emulator, stack: Stack) -> Callable[..., Stack]:
    """`deployed(**parameters)`: once each. GitHub's provider is there already: the first stack has made it."""
    made: dict[str, Stack] = {}

    def get(**parameters: str) -> Stack:
        key = repr(sorted(parameters.items()))
        if key not in made:
            made[key] = deploy(aws, OidcProviderArn=PROVIDER, **parameters)
        return made[key]

    return get


@pytest.fixture(scope="module")
def assume(aws: Emulator) -> Iterator[Callable[..., bool]]:
    """`assume(stack, subject)`: whether a job with this token gets the launcher's role."""
    config = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1})
    client = boto3.Session(region_name="us-east-1").client("sts", endpoint_url=aws.endpoint, config=config)

    def call(stack: Stack, subject: str, **claims: str) -> bool:
        token = job_token(subject, **claims)
        role = stack.outputs["LauncherRoleArn"]
        try:
            client.assume_role_with_web_identity(RoleArn=role, RoleSessionName="job", WebIdentityToken=token)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied"
            return False
        return True

    with contextlib.closing(client):
        yield call


@pytest.mark.parametrize(
    ("parameters", "subject", "trusted"),
    [
        ({}, f"{REPOSITORY}:ref:refs/heads/main", True),
        ({}, f"{REPOSITORY}:pull_request", True),
        ({}, f"{REPOSITORY}:environment:gpu", True),
        ({}, "repo:acme/digits-evil:ref:refs/heads/main", False),
        ({}, "repo:acme/digit:ref:refs/heads/main", False),
        ({}, "repo:acme/other:ref:refs/heads/main", False),
        ({}, "repo:evil/acme/digits:ref:refs/heads/main", False),
        ({}, "repo:evil-acme/digits:ref:refs/heads/main", False),
        ({}, "repo:acme@1/digits@2:ref:refs/heads/main", False),
        ({}, "repo:ACME/digits:ref:refs/heads/main", False),
        ({}, f"x{REPOSITORY}:ref:refs/heads/main", False),
        ({}, REPOSITORY, False),
        ({"Branch": "main"}, f"{REPOSITORY}:ref:refs/heads/main", True),
        ({"Branch": "main"}, f"{REPOSITORY}:ref:refs/heads/main-evil", False),
        ({"Branch": "main"}, f"{REPOSITORY}:ref:refs/heads/evil/main", False),
        ({"Branch": "main"}, f"{REPOSITORY}:ref:refs/tags/main", False),
        ({"Branch": "main"}, f"{REPOSITORY}:pull_request", False),
        ({"Branch": "main"}, f"{REPOSITORY}:environment:main", False),
        ({"Branch": "main"}, "repo:acme/digits-evil:ref:refs/heads/main", False),
        ({"Branch": "release/*"}, f"{REPOSITORY}:ref:refs/heads/release/1", True),
        ({"Branch": "release/*"}, f"{REPOSITORY}:ref:refs/heads/main", False),
        ({"Environment": "gpu"}, f"{REPOSITORY}:environment:gpu", True),
        ({"Environment": "gpu"}, f"{REPOSITORY}:environment:gpu2", False),
        ({"Environment": "gpu"}, f"{REPOSITORY}:ref:refs/heads/environment:gpu", False),
        ({"Environment": "gpu"}, f"{REPOSITORY}:ref:refs/heads/main", False),
        ({"Environment": "gpu"}, f"{REPOSITORY}:pull_request", False),
        ({"Environment": "gpu", "Branch": "main"}, f"{REPOSITORY}:environment:gpu", True),
        ({"Environment": "gpu", "Branch": "main"}, f"{REPOSITORY}:ref:refs/heads/main", False),
        # A repository that was made, renamed or moved lately has ids in its tokens, which nobody else ever gets.
        ({"Repository": "acme@1/digits@2"}, "repo:acme@1/digits@2:pull_request", True),
        ({"Repository": "acme@1/digits@2"}, "repo:acme@1/digits@3:pull_request", False),
        ({"Repository": "acme@1/digits@2"}, "repo:acme@9/digits@2:pull_request", False),
        ({"Repository": "acme@1/digits@2"}, "repo:acme/digits:pull_request", False),
    ],
)
def test_the_launchers_role_is_for_one_repository_and_its_branch_or_environment(
    deployed: Any, assume: Any, parameters: dict[str, str], subject: str, trusted: bool
) -> None:
    assert assume(deployed(**{"Repository": "acme/digits", **parameters}), subject) is trusted


def test_the_launchers_role_is_for_githubs_tokens_alone(stack: Stack, assume: Any) -> None:
    subject = f"{REPOSITORY}:ref:refs/heads/main"
    assert assume(stack, subject)
    assert not assume(stack, subject, issuer="https://token.actions.githubusercontent.com.example")
    assert not assume(stack, subject, issuer="https://github.example/_services/token")
    trust = policies.of_resource(stack.trust_of("LauncherRole"), "Federated", PROVIDER)
    claims = {"token.actions.githubusercontent.com:sub": subject}
    for audience, trusted in (("sts.amazonaws.com", True), ("https://github.com/acme", False)):
        asked = claims | {"token.actions.githubusercontent.com:aud": audience}
        assert trust.allows("sts:AssumeRoleWithWebIdentity", "*", asked) is trusted
    assert [statement["Principal"] for statement in stack.trust_of("LauncherRole")["Statement"]] == [
        {"Federated": PROVIDER}
    ]


def test_the_provider_is_githubs_for_sts(stack: Stack, aws: Emulator) -> None:
    with contextlib.closing(aws.client("iam")) as iam:
        found = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=PROVIDER)
    assert (found["Url"], found["ClientIDList"]) == ("token.actions.githubusercontent.com", ["sts.amazonaws.com"])


def test_the_hosts_role_is_ec2s_alone(stack: Stack) -> None:
    [statement] = stack.trust_of("HostRole")["Statement"]
    assert (statement["Principal"], statement["Action"]) == ({"Service": "ec2.amazonaws.com"}, "sts:AssumeRole")


def test_without_a_repository_there_is_a_policy_and_no_role(deployed: Any) -> None:
    stack = deployed()
    assert "LauncherRoleArn" not in stack.outputs
    assert stack.outputs["LauncherPolicyArn"].endswith(stack.resources["LauncherPolicy"].name)


def test_the_bucket_is_private_and_encrypted(stack: Stack, deployed: Any) -> None:
    found = stack.properties("Bucket")
    assert set(found["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(found["PublicAccessBlockConfiguration"]) == 4
    # Access control lists are off.
    assert found["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    [rule] = found["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    key = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234"
    with_key = deployed(Repository="acme/digits", KmsKeyArn=key)
    [rule] = with_key.properties("Bucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    # S3 asks the key with the caller's permissions, which the emulator has no key to see.
    for with_more, without in (
        (with_key.host_policy(), stack.host_policy()),
        (with_key.launcher_policy(), stack.launcher_policy()),
    ):
        added = actions(with_more) - actions(without)
        assert added == {"kms:Decrypt", "kms:GenerateDataKey"}
        assert [s["Resource"] for s in with_more["Statement"] if s["Sid"] == "Key"] == [key]


def test_the_bucket_answers_to_tls_alone(stack: Stack) -> None:
    document = stack.resources["BucketPolicy"].document
    bucket = f"arn:aws:s3:::{stack.outputs['Bucket']}"
    policy = policies.of_resource(document, "AWS", "anybody")
    for resource in (bucket, f"{bucket}/runctl/runs/r/spec.json"):
        for action in ("s3:GetObject", "s3:PutObject", "s3:ListBucket"):
            assert policy.decides(action, resource, {"aws:securetransport": "false"}) == "explicitDeny"
            assert policy.decides(action, resource, {"aws:securetransport": "true"}) == "implicitDeny"


def test_what_is_old_is_deleted_and_what_is_open_is_kept(stack: Stack, deployed: Any) -> None:
    def days(found: Stack) -> dict[str, int]:
        rules = found.properties("Bucket")["LifecycleConfiguration"]["Rules"]
        assert {rule["Status"] for rule in rules} == {"Enabled"}
        return {rule["Prefix"]: int(rule["ExpirationInDays"]) for rule in rules if "ExpirationInDays" in rule}

    kept = {"packs": 90, "sources": 90, "tools": 90, "runs": 365, "hosts": 180}
    assert days(stack) == {f"runctl/{prefix}/": number for prefix, number in kept.items()}
    other = deployed(Repository="acme/digits", Prefix="ml/train", PackDays="7", RunDays="8", HostDays="9")
    assert days(other) == {f"ml/train/{name}/": n for name, n in zip(kept, (7, 7, 7, 8, 9), strict=True)}
    [abort] = [
        r
        for r in stack.properties("Bucket")["LifecycleConfiguration"]["Rules"]
        if "AbortIncompleteMultipartUpload" in r
    ]
    assert (abort["Prefix"], abort["AbortIncompleteMultipartUpload"]) == ("", {"DaysAfterInitiation": 2})


def test_the_security_group_lets_nothing_in(stack: Stack, aws: Emulator) -> None:
    with contextlib.closing(aws.client("ec2")) as ec2:
        [group] = ec2.describe_security_groups(GroupIds=[stack.outputs["SecurityGroup"]])["SecurityGroups"]
    assert group["IpPermissions"] == []
    assert [rule["IpProtocol"] for rule in group["IpPermissionsEgress"]] == ["-1"]


def test_the_alarm_is_there_when_it_is_asked_for(stack: Stack, deployed: Any, aws: Emulator) -> None:
    deployed(Repository="acme/digits", MonthlyBudgetUsd="250", BudgetEmail="ml@acme.example")
    from moto.budgets.models import budgets_backends

    [budget] = budgets_backends[ACCOUNT]["aws"].budgets[ACCOUNT].values()
    assert budget.budget["BudgetLimit"] == {"Amount": 250, "Unit": "USD"}
    assert budget.budget["CostFilters"] == {"Service": ["Amazon Elastic Compute Cloud - Compute"]}
    assert [sent.details["NotificationType"] for sent in budget.notifications] == ["ACTUAL", "FORECASTED"]


def test_every_parameter_has_a_default_and_is_in_a_group(stack: Stack) -> None:
    parameters = stack.template["Parameters"]
    assert all("Default" in parameter for parameter in parameters.values())
    groups = stack.template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(parameters)


@pytest.mark.parametrize("who", ["launcher", "host"])
def test_actions_resources_and_conditions_are_those_of_awss_reference(stack: Stack, who: str) -> None:
    document = stack.launcher_policy() if who == "launcher" else stack.host_policy()
    for granted in document["Statement"]:
        keys = {key for tests in granted.get("Condition", {}).values() for key in tests}
        for action in listed(granted["Action"]):
            kinds = reference.kinds(action)
            for resource in listed(granted["Resource"]):
                said = f"{granted['Sid']}: {action} on {resource}"
                matching = [known for pattern, known in kinds.items() if reference.is_of(resource, pattern)]
                assert matching or (resource == "*" and (not kinds or action in ON_ALL)), said
                known = {name for names in matching for name in names} | OF_ACTIONS.get(action, set())
                assert all(re.sub("/.+", "/", key) in {re.sub("/.+", "/", name) for name in known} for key in keys), (
                    said
                )


def test_the_launchers_policy_fits_with_the_longest_names(deployed: Any) -> None:
    """A managed policy has 6144 characters (IAM user guide, "IAM and AWS STS quotas"); ours is not near that."""
    stack = deployed(Repository="acme/digits", BucketName="b" * 63, Prefix="p" * 40)
    assert len(json.dumps(stack.launcher_policy(), separators=(",", ":"))) < 5500


def test_every_statement_resource_and_parameter_is_told_of(stack: Stack) -> None:
    tables = re.findall(r"^\| (`.+?) \|", DOCUMENTED.read_text(encoding="utf-8"), re.MULTILINE)
    told = re.findall(r"`(\w+)`", " ".join(tables))
    documents = re.findall(r"^ +- (?:\{)?Sid: (\w+)", TEMPLATE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(told) == {*documents, *stack.template["Resources"], *stack.template["Parameters"]} - {"TlsOnly"}
