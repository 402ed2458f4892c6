from __future__ import annotations

from typing import Any

import pytest

from runctl_action.emulator.policies import EVERYTHING, of_resource, parse

ME = {"aws:userid": "AROA1:i-1"}


def policy(*statements: dict[str, Any], version: str = "2012-10-17") -> Any:
    filled = ({"Effect": "Allow", "Action": "*", "Resource": "*"} | statement for statement in statements)
    return parse({"Version": version, "Statement": list(filled)})


def test_nothing_is_allowed_that_no_statement_allows() -> None:
    assert not policy().allows("s3:GetObject", "arn:aws:s3:::b/k", ME)
    assert not policy({"Action": "s3:PutObject"}).allows("s3:GetObject", "arn:aws:s3:::b/k", ME)


def test_one_statement_needs_no_list() -> None:
    assert parse({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}).allows("ec2:RunInstances", "*", ME)
    assert EVERYTHING.allows("ec2:RunInstances", "*", ME)


@pytest.mark.parametrize(
    ("pattern", "action", "matches"),
    [
        ("s3:Get*", "s3:GetObject", True),
        ("s3:get*", "s3:GetObject", True),
        ("s3:*", "s3:GetObject", True),
        ("*:GetObject", "s3:GetObject", True),
        ("s3:GetObjec?", "s3:GetObject", True),
        ("s3:GetObject?", "s3:GetObject", False),
        ("s3:Get", "s3:GetObject", False),
        ("s3:GetObject", "s3:GetObjectVersion", False),
        ("s3.GetObject", "s3:GetObject", False),
        ("s3:[G]etObject", "s3:GetObject", False),
    ],
)
def test_actions_have_two_wildcards_and_no_case(pattern: str, action: str, matches: bool) -> None:
    assert policy({"Action": pattern}).allows(action, "*", ME) is matches


@pytest.mark.parametrize(
    ("pattern", "resource", "matches"),
    [
        ("arn:aws:s3:::b/*", "arn:aws:s3:::b/a/b", True),
        ("arn:aws:s3:::b/*", "arn:aws:s3:::b/a\nb", True),
        ("arn:aws:s3:::b/*", "arn:aws:s3:::b", False),
        ("arn:aws:s3:::b/*", "arn:aws:s3:::bb/a", False),
        ("arn:aws:s3:::b/*", "arn:aws:s3:::B/a", False),
        ("arn:aws:s3:::b/a", "x/arn:aws:s3:::b/a", False),
        ("arn:aws:ec2:*:*:instance/i-?", "arn:aws:ec2:us-east-1:1:instance/i-1", True),
    ],
)
def test_resources_match_as_a_whole_and_with_their_case(pattern: str, resource: str, matches: bool) -> None:
    assert policy({"Resource": pattern}).allows("s3:GetObject", resource, ME) is matches


def test_a_list_matches_with_any_of_its_members() -> None:
    found = policy({"Action": ["s3:GetObject", "s3:ListBucket"], "Resource": ["a", "b"]})
    assert found.allows("s3:ListBucket", "b", ME)
    assert not found.allows("s3:ListBucket", "c", ME)


def test_an_explicit_deny_wins_whatever_the_order() -> None:
    deny = {"Effect": "Deny", "Action": "s3:DeleteObject"}
    for statements in (({}, deny), (deny, {})):
        assert not policy(*statements).allows("s3:DeleteObject", "x", ME)
        assert policy(*statements).allows("s3:GetObject", "x", ME)


def test_a_variable_is_the_callers() -> None:
    found = policy({"Resource": "arn:aws:s3:::b/hosts/${aws:userid}/*"})
    assert found.allows("s3:PutObject", "arn:aws:s3:::b/hosts/AROA1:i-1/x", ME)
    assert not found.allows("s3:PutObject", "arn:aws:s3:::b/hosts/AROA1:i-2/x", ME)
    assert not found.allows("s3:PutObject", "arn:aws:s3:::b/hosts/${aws:userid}/x", ME)


def test_a_variable_that_the_caller_lacks_matches_nothing() -> None:
    assert not policy({"Resource": "${aws:PrincipalTag/team}*"}).allows("s3:PutObject", "x", ME)


@pytest.mark.parametrize(
    ("operator", "value", "seen", "holds"),
    [
        ("StringEquals", "yes", "yes", True),
        ("StringEquals", "y*", "yes", False),
        ("StringEquals", ["no", "yes"], "yes", True),
        ("StringEquals", "yes", None, False),
        ("StringEquals", "${aws:userid}", "AROA1:i-1", True),
        ("StringLike", "y*", "yes", True),
        ("StringLike", "n*", "yes", False),
        ("StringLike", "y*", None, False),
        ("StringNotEquals", "no", "yes", True),
        ("StringNotEquals", ["no", "yes"], "yes", False),
        ("StringNotEquals", "no", None, True),
        ("StringNotEquals", "${aws:userid}", "AROA1:i-1", False),
        ("Bool", "true", "True", True),
        ("Bool", True, "true", True),
        ("Bool", "true", "false", False),
        ("Bool", "false", None, False),
    ],
)
def test_conditions(operator: str, value: Any, seen: str | None, holds: bool) -> None:
    found = policy({"Condition": {operator: {"aws:ResourceTag/Team": value}}})
    context = ME | ({"aws:resourcetag/team": seen} if seen is not None else {})
    assert found.allows("ec2:TerminateInstances", "x", context) is holds


def test_all_conditions_must_hold() -> None:
    tagged = {"aws:RequestTag/x": "1", "aws:RequestTag/y": "2"}
    found = policy({"Condition": {"StringEquals": tagged, "StringLike": {"s3:prefix": "*"}}})
    x, y, z = {"aws:requesttag/x": "1"}, {"aws:requesttag/y": "2"}, {"s3:prefix": ""}
    assert found.allows("x:y", "x", x | y | z)
    assert not found.allows("x:y", "x", x | y)
    assert not found.allows("x:y", "x", x | z)


@pytest.mark.parametrize(
    "statement",
    [
        {"NotAction": "s3:*"},
        {"NotResource": "*"},
        {"Principal": "*"},
        {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}},
        {"Condition": {"StringEqualsIfExists": {"aws:userid": "1"}}},
        {"Condition": {"ForAnyValue:StringEquals": {"aws:userid": "1"}}},
        {"Effect": "allow"},
        {"Resource": "${aws:userid, 'nobody'}"},
        {"Resource": "${*}"},
        {"Condition": {"StringEquals": {"aws:userid": "${?}"}}},
        # What this emulator gives no value would never be equal, and always be unequal.
        {"Condition": {"StringEquals": {"ec2:InstanceProfile": "x"}}},
        {"Effect": "Deny", "Condition": {"StringNotEquals": {"aws:PrincipalTag/team": "ml"}}},
    ],
)
def test_what_is_not_understood_is_refused_when_the_policy_is_read(statement: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="policy"):
        policy(statement)


def test_a_resources_own_policy_counts_for_whom_it_names() -> None:
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Federated": ["idp"]}, "Action": "sts:AssumeRoleWithWebIdentity"},
            {"Effect": "Deny", "Principal": "*", "Action": "sts:TagSession"},
        ],
    }
    assert of_resource(trust, "Federated", "idp").allows("sts:AssumeRoleWithWebIdentity", "role", {})
    assert not of_resource(trust, "Federated", "other").allows("sts:AssumeRoleWithWebIdentity", "role", {})
    assert not of_resource(trust, "AWS", "idp").allows("sts:AssumeRoleWithWebIdentity", "role", {})
    assert of_resource(trust, "AWS", "x").decides("sts:TagSession", "role", {}) == "explicitDeny"


@pytest.mark.parametrize("element", ["Effect", "Action", "Resource"])
def test_a_statement_is_whole(element: str) -> None:
    whole = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    with pytest.raises(ValueError, match=f"no {element}"):
        parse({"Statement": [{name: value for name, value in whole.items() if name != element}]})


def test_the_old_version_has_no_variables() -> None:
    with pytest.raises(ValueError, match="2012-10-17"):
        policy({"Resource": "hosts/${aws:userid}/*"}, version="2008-10-17")
