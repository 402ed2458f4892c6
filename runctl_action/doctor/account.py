"""Who we are to AWS, and whether the region is one in which we are anybody."""

from __future__ import annotations

from runctl_action.cloud.inspection import Inspection
from runctl_action.cloud.instances import Instances
from runctl_action.cloud.session import Session, connect
from runctl_action.cloud.store import Store
from runctl_action.doctor.checkup import Facts
from runctl_action.errors import CloudError, CredentialsError, PermissionDenied, SettingsError, Unavailable
from runctl_action.parsing import did_you_mean

# Of each of AWS's partitions the region that no account can switch off.
_ALWAYS_THERE = {"cn-": "cn-north-1", "us-gov-": "us-gov-west-1"}


def credentials(facts: Facts) -> str:
    """A region that is wrong is left to its own check: the credentials are then tried in one that is there."""
    settings = facts.settings
    try:
        session = connect(facts.environ, settings.region, settings.role_to_assume)
    except SettingsError as error:
        session, facts.region_error = _elsewhere(facts, ""), error
    try:
        who = session.identity()
    except (Unavailable, CredentialsError) as error:
        if facts.region_error or session.region in {*_ALWAYS_THERE.values(), "us-east-1"}:
            raise
        elsewhere = _elsewhere(facts, session.region)
        try:
            who = elsewhere.identity()
        except CloudError:
            raise error from None
        facts.region_error = _not_ours(session.region, error)
    facts.session = session
    allowed = settings.allowed_account_ids
    if allowed:
        who.require(allowed)
    return f"account {who.account}, {who.arn}{'; in allowed-account-ids' if allowed else ''}"


def region(facts: Facts) -> str:
    if facts.region_error:
        raise facts.region_error
    facts.inspection = Inspection(facts.session)
    try:
        facts.inspection.answer()
    except PermissionDenied:
        raise
    except CloudError as error:
        raise _not_ours(facts.session.region, error) from error
    facts.instances = Instances(facts.session)
    facts.store = Store(facts.session, facts.settings.bucket or "")
    return f"{facts.session.region}: EC2 answers"


def _elsewhere(facts: Facts, region: str) -> Session:
    there = next((found for prefix, found in _ALWAYS_THERE.items() if region.startswith(prefix)), "us-east-1")
    return connect(facts.environ, there, facts.settings.role_to_assume)


def _not_ours(region: str, error: CloudError) -> CloudError:
    """botocore's list of regions is as old as it is itself: it only helps with the advice."""
    import boto3

    known = boto3.Session().get_available_regions("ec2")
    if region in known:
        fix = f"if it is not enabled in this account: aws account enable-region --region-name {region}"
    else:
        fix = f"check `region`{did_you_mean(region, known)}"
    return CloudError(f"{region} does not answer to these credentials: {error}", fix)
