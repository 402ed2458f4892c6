from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from runctl_action.cloud import offers
from runctl_action.contract.layout import Layout
from runctl_action.contract.reports import Finding
from runctl_action.doctor import account, bucket
from runctl_action.doctor.checks import CHECKS
from runctl_action.doctor.checkup import Check, Facts, NotNeeded, Unseen, examine
from runctl_action.doctor.launching import quota_code
from runctl_action.emulator import quotas
from runctl_action.errors import BucketError, CloudError, PermissionDenied, SettingsError, SourceError, Unavailable
from runctl_action.report.checkup import print_finding, print_summary


def no_settings():
    raise AssertionError


@pytest.fixture
def facts(tmp_path):
    return Facts(cwd=tmp_path, environ={}, revision="HEAD", load=no_settings, cache=tmp_path)


def says(what):
    def look(_):
        if isinstance(what, Exception):
            raise what
        return what

    return look


def found(facts, *checks):
    told = []
    checkup = examine(checks, facts, told.append)
    assert tuple(told) == checkup.checks
    return checkup, [(finding.name, finding.status) for finding in told]


def test_what_stands_on_a_failure_is_skipped_and_names_it(facts):
    checkup, statuses = found(
        facts,
        Check("a", says(CloudError("broken", "mend it"))),
        Check("b", says("fine"), ("a",)),
        Check("c", says("fine"), ("b",)),
        Check("d", says("fine")),
    )
    assert statuses == [("a", "failed"), ("b", "skipped"), ("c", "skipped"), ("d", "passed")]
    assert {finding.seen for finding in checkup.checks[1:3]} == {"not looked at: a is to be mended first"}
    assert checkup.checks[0].fix == "mend it"


def test_the_exit_code_is_that_of_the_first_failure(facts):
    checkup, _ = found(
        facts, Check("a", says("fine")), Check("b", says(SourceError("x"))), Check("c", says(CloudError("y")))
    )
    assert checkup.exit_code == 3
    assert all(finding.fix for finding in checkup.checks[1:])


def test_what_is_not_needed_and_what_cannot_be_seen_is_no_failure(facts):
    checkup, statuses = found(
        facts,
        Check("a", says(NotNeeded("no"))),
        Check("b", says("fine"), ("a",)),
        Check("c", says(Unseen("dark", "a lamp"))),
        Check("d", says("fine"), ("c",)),
    )
    assert statuses == [("a", "skipped"), ("b", "skipped"), ("c", "unseen"), ("d", "passed")]
    assert checkup.checks[1].seen == "no"
    assert checkup.exit_code == 0


@pytest.mark.parametrize(("reads_only", "status", "code"), [(True, "unseen", 0), (False, "failed", 4)])
def test_a_missing_permission_fails_where_a_run_needs_it(facts, reads_only, status, code):
    denied = PermissionDenied("x:Y is not allowed. Encoded authorization failure message: AbCd", "allow x:Y")
    checkup, statuses = found(facts, Check("a", says(denied), reads_only=reads_only))
    assert statuses == [("a", status)]
    assert checkup.exit_code == code
    assert checkup.checks[0].seen == "x:Y is not allowed."


def test_a_defect_of_ours_is_not_taken_for_a_finding(facts):
    with pytest.raises(ZeroDivisionError):
        examine([Check("a", says(ZeroDivisionError()))], facts, lambda _: None)


def test_every_check_stands_on_earlier_ones():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for number, check in enumerate(CHECKS):
        assert set(check.needs) <= set(names[:number])


class Bucket:
    """A store that ignores conditions, or loses what it is given."""

    bucket = "b"

    def __init__(self, *, keeps=True):
        self.keeps = keeps

    def put(self, key, data, *, if_none_match=False, content_type=""):
        return "etag"

    def get(self, key):
        return SimpleNamespace(data=bucket.PROBE if self.keeps else b"other")

    def uri(self, key):
        return f"s3://b/{key}"


def test_a_bucket_that_does_not_know_conditional_writes(facts):
    facts.store, facts.layout = Bucket(), Layout(prefix="p")
    assert "read back" in bucket.writing(facts)
    with pytest.raises(BucketError, match=r"written again with If-None-Match: \*") as caught:
        bucket.conditional_writing(facts)
    assert "S3 itself" in caught.value.hint


def test_a_bucket_that_reads_back_something_else(facts):
    facts.store, facts.layout = Bucket(keeps=False), Layout(prefix="p")
    with pytest.raises(BucketError, match="something else was read back"):
        bucket.writing(facts)


class Aws:
    """Sessions of regions that answer, and of those that do not."""

    def __init__(self, monkeypatch, answering, region="eu-west-9"):
        def connect(environ, asked, role):
            if asked == "" or (asked is None and region is None):
                raise SettingsError("no AWS region is set", "set it")
            return SimpleNamespace(region=asked or region, identity=lambda: self.identity(asked or region))

        self.answering = answering
        monkeypatch.setattr(account, "connect", connect)

    def identity(self, region):
        if region not in self.answering:
            raise Unavailable(f"sts:GetCallerIdentity failed in {region}")
        return account_of_ours()


def account_of_ours():
    from runctl_action.cloud.session import Identity

    return Identity("123456789012", "arn:aws:iam::123456789012:user/me")


@pytest.fixture
def with_settings(facts):
    facts.settings = SimpleNamespace(region=None, role_to_assume=None, allowed_account_ids=(), bucket="b")
    return facts


@pytest.mark.parametrize(
    ("region", "there", "fix"),
    [
        ("eu-wst-1", "us-east-1", "check `region`: did you mean eu-west-1?"),
        ("ap-east-1", "us-east-1", "aws account enable-region --region-name ap-east-1"),
        ("cn-north-9", "cn-north-1", "check `region`"),
    ],
)
def test_a_region_that_does_not_answer_is_not_the_credentials_fault(monkeypatch, with_settings, region, there, fix):
    Aws(monkeypatch, {there}, region)
    assert "123456789012" in account.credentials(with_settings)
    with pytest.raises(CloudError, match=f"{region} does not answer") as caught:
        account.region(with_settings)
    assert fix in caught.value.hint


def test_where_no_region_answers_it_is_the_network(monkeypatch, with_settings):
    Aws(monkeypatch, set(), "eu-west-1")
    with pytest.raises(Unavailable, match="failed in eu-west-1"):
        account.credentials(with_settings)


def test_a_region_that_is_not_set_is_a_setting(monkeypatch, with_settings):
    Aws(monkeypatch, {"us-east-1"}, None)
    assert account.credentials(with_settings)
    with pytest.raises(SettingsError, match="no AWS region is set"):
        account.region(with_settings)


@pytest.mark.parametrize("market", ["spot", "on-demand"])
@pytest.mark.parametrize("kind", ["t3.medium", "m7i.large", "im4gn.large", "g5.xlarge", "gr6.4xlarge", "vt1.3xlarge"])
def test_a_quota_is_that_of_the_market_and_the_family(market, kind):
    name, of_market, _ = quotas._QUOTAS[quota_code(market, kind)]
    assert of_market == market
    assert ("Standard" in name) == (offers.quota_family(kind) == "standard")
    assert ("G and VT" in name) == (offers.quota_family(kind) == "G and VT")


@pytest.mark.parametrize(
    ("market", "kind", "code"),
    [
        ("on-demand", "p4d.24xlarge", "L-417A185B"),
        ("on-demand", "p5en.48xlarge", "L-417A185B"),
        ("spot", "p3.2xlarge", "L-7212CCBC"),
        ("spot", "p4de.24xlarge", "L-7212CCBC"),
        ("spot", "p5.48xlarge", "L-C4BD4855"),
        ("spot", "p6-b200.48xlarge", None),
        ("on-demand", "trn1.2xlarge", None),
        ("spot", "inf2.xlarge", None),
    ],
)
def test_gpu_quotas_have_their_own_codes_and_unknown_ones_none(market, kind, code):
    assert quota_code(market, kind) == code


@pytest.mark.parametrize(
    ("encoding", "first", "arrow"), [("utf-8", "✘ bucket", "→ make one"), ("ascii", "FAILED bucket", "-> make one")]
)
def test_a_finding_is_printed_in_what_the_stream_can_show(encoding, first, arrow):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_finding(
        Finding(name="bucket", status="failed", seen="there is none\n  not one \x1b[31m", fix="make one"), stream
    )
    stream.seek(0)
    lines = stream.read().splitlines()
    assert lines[0].startswith(first)
    assert lines[1].endswith("not one \\x1b[31m")
    assert lines[2].strip() == arrow


def test_the_last_line_names_what_is_to_be_mended(facts):
    checkup, _ = found(facts, Check("a", says(CloudError("x"))), Check("b", says(Unseen("y"))))
    stream = io.StringIO()
    print_summary(checkup, stream)
    assert stream.getvalue() == "to be mended: a; could not be seen: b; nothing was spent\n"
