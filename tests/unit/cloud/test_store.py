from __future__ import annotations

import base64
import hashlib
import io
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.exceptions
import pytest
from botocore.response import StreamingBody

from runctl_action.cloud.session import Session, connect
from runctl_action.cloud.store import Listed, Store, Stored
from runctl_action.errors import BucketError, CloudError, CredentialsError, PermissionDenied

DATA = b'{"version": 1}'
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(session: Session) -> Store:
    return Store(session, "b")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """tenacity's own seam for tests: how long it would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(Store._put.retry, "sleep", slept.append)  # type: ignore[attr-defined]
    return slept


def request(**changes: Any) -> dict[str, Any]:
    checksum = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    plain = {"Bucket": "b", "Key": "k", "Body": DATA, "ContentType": "application/json", "ChecksumSHA256": checksum}
    return plain | changes


def test_a_write_sends_its_sha256_and_answers_with_the_etag(store, stub):
    stub("s3").add_response("put_object", {"ETag": '"e"'}, request())
    assert store.put("k", DATA) == '"e"'


@pytest.mark.parametrize(
    ("condition", "header"),
    [({"if_none_match": True}, {"IfNoneMatch": "*"}), ({"if_match": '"e"'}, {"IfMatch": '"e"'})],
)
def test_a_condition_travels_with_the_write_and_one_that_does_not_hold_is_none(store, stub, condition, header):
    stub("s3").add_client_error(
        "put_object", "PreconditionFailed", http_status_code=412, expected_params=request(**header)
    )
    assert store.put("k", DATA, **condition) is None


def test_a_conditional_write_that_races_is_asked_again(store, stub, pauses):
    for _ in range(2):
        stub("s3").add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    stub("s3").add_response("put_object", {"ETag": '"e"'}, request(IfNoneMatch="*"))
    assert store.put("k", DATA, if_none_match=True) == '"e"'
    assert len(pauses) == 2


def test_of_a_race_that_was_lost_the_condition_does_not_hold(store, stub, pauses):
    stub("s3").add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    stub("s3").add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    assert store.put("k", DATA, if_none_match=True) is None


def test_a_race_without_an_end_is_an_error_and_not_an_answer(store, stub, pauses):
    for _ in range(6):
        stub("s3").add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    with pytest.raises(CloudError, match="s3:PutObject on s3://b/k failed: ConditionalRequestConflict"):
        store.put("k", DATA, if_none_match=True)
    assert len(pauses) == 5
    assert max(pauses) <= 2


def test_a_condition_on_an_object_that_is_gone_does_not_hold(store, stub):
    stub("s3").add_client_error("put_object", "NoSuchKey", http_status_code=404)
    assert store.put("k", DATA, if_match='"e"') is None


def test_another_refusal_of_a_write_is_not_taken_for_a_condition(store, stub, pauses):
    stub("s3").add_client_error("put_object", "AccessDenied", "said S3", http_status_code=403)
    with pytest.raises(PermissionDenied, match="s3:PutObject on s3://b/k is not allowed: said S3"):
        store.put("k", DATA, if_none_match=True)
    assert pauses == []


def test_an_object_is_its_bytes_and_its_etag(store, stub):
    body = StreamingBody(io.BytesIO(DATA), len(DATA))
    stub("s3").add_response("get_object", {"Body": body, "ETag": '"e"'}, {"Bucket": "b", "Key": "k"})
    assert store.get("k") == Stored(DATA, '"e"')


@pytest.mark.parametrize("code", ["NoSuchKey", "404", "NotFound"])
def test_an_object_that_there_is_not_is_none(store, stub, code):
    stub("s3").add_client_error("get_object", code, http_status_code=404)
    stub("s3").add_client_error("head_object", code, http_status_code=404)
    assert store.get("k") is None
    assert store.size("k") is None


def test_the_size_is_asked_for_without_the_bytes(store, stub):
    stub("s3").add_response("head_object", {"ContentLength": 7}, {"Bucket": "b", "Key": "k"})
    assert store.size("k") == 7


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("AccessDenied", PermissionDenied, "s3:GetObject on s3://b/k is not allowed"),
        ("ExpiredToken", CredentialsError, "have expired"),
        ("SlowDown", CloudError, "s3:GetObject on s3://b/k failed: SlowDown"),
        ("NoSuchBucket", BucketError, "the bucket b does not exist"),
    ],
)
def test_an_error_names_the_action_and_the_object(store, stub, code, kind, said):
    stub("s3").add_client_error("get_object", code)
    with pytest.raises(kind, match=said):
        store.get("k")


def test_a_listing_goes_through_all_pages_in_order(store, stub):
    def item(key: str) -> dict[str, Any]:
        return {"Key": key, "Size": 1, "ETag": '"e"', "LastModified": NOW}

    asked = {"Bucket": "b", "Prefix": "p/", "StartAfter": "p/0"}
    stub("s3").add_response(
        "list_objects_v2", {"Contents": [item("p/1")], "IsTruncated": True, "NextContinuationToken": "t"}, asked
    )
    stub("s3").add_response("list_objects_v2", {"Contents": [item("p/2")]}, asked | {"ContinuationToken": "t"})
    assert list(store.list("p/", start_after="p/0")) == [Listed("p/1", 1, '"e"', NOW), Listed("p/2", 1, '"e"', NOW)]


def test_an_empty_listing_is_empty_and_a_refused_one_names_the_action(store, stub):
    stub("s3").add_response("list_objects_v2", {}, {"Bucket": "b", "Prefix": "p/"})
    stub("s3").add_client_error("list_objects_v2", "AccessDenied")
    assert list(store.list("p/")) == []
    with pytest.raises(PermissionDenied, match="s3:ListBucket on s3://b/p/"):
        list(store.list("p/"))


def test_a_listing_that_is_left_early_is_no_error(store, stub):
    stub("s3").add_response(
        "list_objects_v2", {"Contents": [{"Key": "p/1", "Size": 1, "ETag": '"e"', "LastModified": NOW}]}
    )
    listing = store.list("p/")
    assert next(listing).key == "p/1"
    listing.close()


def test_deleting_names_the_action_when_it_may_not(store, stub):
    stub("s3").add_response("delete_object", {}, {"Bucket": "b", "Key": "k"})
    store.delete("k")
    stub("s3").add_client_error("delete_object", "AccessDenied")
    with pytest.raises(PermissionDenied, match="s3:DeleteObject on s3://b/k"):
        store.delete("k")


def test_a_bucket_in_this_region_is_fine(store, stub):
    stub("s3").add_response("head_bucket", {"BucketRegion": "eu-west-1"}, {"Bucket": "b"})
    store.check()


def test_a_bucket_in_another_region_is_told_with_both(store, stub):
    stub("s3").add_response("head_bucket", {"BucketRegion": "us-east-1"}, {"Bucket": "b"})
    with pytest.raises(BucketError, match="the bucket b is in us-east-1, the run in eu-west-1") as caught:
        store.check()
    assert "`region` or `bucket`" in caught.value.hint


def test_a_redirect_to_another_region_is_told_with_both(store, stub):
    headers = {"HTTPHeaders": {"x-amz-bucket-region": "us-east-1"}}
    stub("s3").add_client_error("head_bucket", "301", http_status_code=301, response_meta=headers)
    with pytest.raises(BucketError, match="the bucket b is in us-east-1, the run in eu-west-1"):
        store.check()


def test_a_bucket_that_there_is_not_is_told_how_to_make(store, stub):
    stub("s3").add_client_error("head_bucket", "404", http_status_code=404)
    with pytest.raises(BucketError, match="the bucket b does not exist") as caught:
        store.check()
    assert caught.value.hint == "create it: aws s3 mb s3://b --region eu-west-1"


def test_a_bucket_that_may_not_be_looked_at_names_the_action(store, stub):
    stub("s3").add_client_error("head_bucket", "403", http_status_code=403)
    with pytest.raises(PermissionDenied, match="s3:ListBucket on b"):
        store.check()


def test_a_network_that_is_down_is_an_error_with_advice(store, session):
    def down(**_: Any) -> None:
        raise botocore.exceptions.EndpointConnectionError(endpoint_url="https://b")

    events = session.client("s3").meta.events
    events.register("before-call.s3", down)
    try:
        for ask in (store.check, lambda: store.get("k"), lambda: store.put("k", b""), lambda: list(store.list("p"))):
            with pytest.raises(CloudError, match="Could not connect") as caught:
                ask()
            assert "check the network" in caught.value.hint
    finally:
        events.unregister("before-call.s3", down)


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1", "us-west-2", "cn-north-1"])
@pytest.mark.parametrize(("bucket", "style"), [("my-bucket", "virtual"), ("my.bucket", "path")])
def test_a_presigned_url_is_sigv4_on_the_regional_host_and_of_one_object(region, bucket, style):
    session = connect(KEYS, region)
    url = urlsplit(Store(session, bucket).presign("a b/k", 900))
    session.close()
    query = parse_qs(url.query)
    host = f"s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
    assert (url.netloc, url.path) == (
        (f"{bucket}.{host}", "/a%20b/k") if style == "virtual" else (host, f"/{bucket}/a%20b/k")
    )
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["900"]


def test_at_an_endpoint_of_ones_own_the_bucket_is_in_the_path():
    session = connect(KEYS | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "us-east-1")
    assert Store(session, "my-bucket").presign("k", 900).startswith("http://127.0.0.1:1/my-bucket/k?")
    session.close()


def test_an_object_has_a_uri(store):
    assert store.uri("a/k") == "s3://b/a/k"
