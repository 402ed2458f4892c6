"""S3 where moto stores and never verifies: checksums, signatures, expiry, and what a host's credentials may."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import uuid
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

DATA = b"123456789"
# Of DATA; the check values of the CRCs in the catalogue of parametrised CRC algorithms.
CHECKSUMS = {
    "sha256": hashlib.sha256(DATA).digest(),
    "sha1": hashlib.sha1(DATA).digest(),
    "crc32": bytes.fromhex("cbf43926"),
    "crc32c": bytes.fromhex("e3069283"),
    "crc64nvme": bytes.fromhex("ae8b14860a799888"),
}
_ONCE = {"mode": "standard", "total_max_attempts": 1}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def key() -> str:
    return f"checks/{uuid.uuid4()}"


@pytest.fixture(scope="session")
def owner(aws: Any) -> Credentials:
    return Credentials(aws.environ["AWS_ACCESS_KEY_ID"], aws.environ["AWS_SECRET_ACCESS_KEY"])


@pytest.fixture
def raw(aws: Any) -> Callable[..., tuple[int, str, Any]]:
    """`raw(method, url, body, headers)` as it is -> (status, error code, headers)."""

    def send(method: str, url: str, body: bytes | None = None, headers: Any = None) -> tuple[int, str, Any]:
        target = urlsplit(url)
        with contextlib.closing(http.client.HTTPConnection(target.netloc)) as connection:
            path = target.path + (f"?{target.query}" if target.query else "")
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, text.partition("<Code>")[2].partition("</Code>")[0], answer.headers

    return send


@pytest.fixture
def signed(aws: Any, owner: Credentials, raw: Any, bucket: str) -> Callable[..., tuple[int, str, Any]]:
    """`signed(method, key, body, headers, by=credentials, payload=what is said of the body)`, signed and sent."""

    def send(
        method: str, key: str, body: bytes | None = None, headers: Any = None, by: Credentials = owner,
        payload: str | None = None, query: str = "",
    ) -> tuple[int, str, Any]:  # fmt: skip
        class Auth(S3SigV4Auth):
            def payload(self, request: AWSRequest) -> str:
                return payload or hashlib.sha256(body or b"").hexdigest()

        url = f"{aws.endpoint}/{bucket}/{quote(key)}{query}"
        request = AWSRequest(method, url, dict(headers or {}), body)
        Auth(by, "s3", "us-east-1").add_auth(request)
        return tuple(raw(method, url, body, request.headers.items()))  # type: ignore[return-value]

    return send


# Checksums


@pytest.mark.parametrize("name", CHECKSUMS)
def test_s3_checksums_are_verified_in_a_header(signed: Any, s3: Any, bucket: str, key: str, name: str) -> None:
    wrong = bytes(reversed(CHECKSUMS[name]))
    assert signed("PUT", key, DATA, {f"x-amz-checksum-{name}": b64(wrong)})[:2] == (400, "BadDigest")
    assert signed("PUT", key, DATA, {f"x-amz-checksum-{name}": "not-base64-1"})[:2] == (400, "BadDigest")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=key)
    assert signed("PUT", key, DATA, {f"x-amz-checksum-{name}": b64(CHECKSUMS[name])})[0] == 200
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == DATA


@pytest.mark.parametrize("name", CHECKSUMS)
@pytest.mark.parametrize("sizes", [[9], [4, 4, 1]])
def test_s3_checksums_are_verified_in_a_trailer(
    signed: Any, s3: Any, bucket: str, key: str, name: str, sizes: list[int]
) -> None:
    def put(checksum: bytes) -> tuple[int, str]:
        body, place = b"", 0
        for size in sizes:
            body += f"{size:x}\r\n".encode() + DATA[place : place + size] + b"\r\n"
            place += size
        body += f"0\r\nx-amz-checksum-{name}:{b64(checksum)}\r\n\r\n".encode()
        headers = {
            "Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": str(len(DATA)),
            "X-Amz-Trailer": f"x-amz-checksum-{name}",
        }  # fmt: skip
        return tuple(signed("PUT", key, body, headers, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER")[:2])  # type: ignore[return-value]

    assert put(bytes(reversed(CHECKSUMS[name]))) == (400, "BadDigest")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=key)
    assert put(CHECKSUMS[name]) == (200, "")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == DATA


def test_content_md5_is_verified(signed: Any, key: str) -> None:
    assert signed("PUT", key, DATA, {"Content-MD5": b64(hashlib.md5(b"other").digest())})[:2] == (400, "BadDigest")
    assert signed("PUT", key, DATA, {"Content-MD5": b64(hashlib.md5(DATA).digest())})[0] == 200


def test_the_hash_that_was_signed_is_the_bodys(signed: Any, key: str) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    assert signed("PUT", key, DATA, payload=other)[:2] == (400, "XAmzContentSHA256Mismatch")
    assert signed("PUT", key, DATA, payload="UNSIGNED-PAYLOAD")[0] == 200


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA1", "CRC32"])
def test_what_boto3_sums_up_itself_is_accepted(s3: Any, bucket: str, key: str, algorithm: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=DATA, ChecksumAlgorithm=algorithm)
    found = s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    assert found["Body"].read() == DATA


def test_a_part_is_verified_and_the_whole_has_its_own_sum(s3: Any, bucket: str, key: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm="SHA256")["UploadId"]
    part = {"Bucket": bucket, "Key": key, "UploadId": upload, "PartNumber": 1, "Body": DATA}
    with pytest.raises(ClientError) as refused:
        s3.upload_part(**part, ChecksumSHA256=b64(bytes(32)))
    assert refused.value.response["Error"]["Code"] == "BadDigest"
    sent = s3.upload_part(**part, ChecksumSHA256=b64(CHECKSUMS["sha256"]))
    parts = [{"PartNumber": 1, "ETag": sent["ETag"], "ChecksumSHA256": b64(CHECKSUMS["sha256"])}]
    s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == DATA


# What a PUT, a HEAD and a listing do


def test_only_one_of_several_that_make_an_object_does(s3: Any, bucket: str, key: str) -> None:
    first = s3.put_object(Bucket=bucket, Key=key, Body=b"1", IfNoneMatch="*")["ETag"]
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key=key, Body=b"2", IfNoneMatch="*")
    assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    second = s3.put_object(Bucket=bucket, Key=key, Body=b"2", IfMatch=first)["ETag"]
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key=key, Body=b"3", IfMatch=first)
    assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
    assert s3.get_object(Bucket=bucket, Key=key, IfMatch=second)["Body"].read() == b"2"


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_head_answers_the_length(s3: Any, signed: Any, bucket: str, key: str, size: int) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=b"x" * size)
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == size
    assert signed("HEAD", key)[2].get_all("Content-Length") == [str(size)]


@pytest.mark.parametrize("name", ["a b+c", "a%2Fb", "ü/é", "x/../y", "x//y", "q?a=b#c&d", "=:@!$'()*,;~"])
def test_any_key_is_signed_and_stored_as_it_is(s3: Any, bucket: str, key: str, name: str) -> None:
    s3.put_object(Bucket=bucket, Key=f"{key}/{name}", Body=DATA)
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]] == [f"{key}/{name}"]
    assert s3.get_object(Bucket=bucket, Key=f"{key}/{name}")["Body"].read() == DATA


# Presigned URLs, and signatures


@pytest.fixture
def presigned(aws: Any, owner: Credentials, bucket: str, key: str) -> Callable[..., str]:
    """`presigned(method, expires=seconds, age=how long ago, by=credentials)`: version 4."""

    def make(method: str = "GET", expires: int = 60, age: timedelta = timedelta(), by: Credentials = owner) -> str:
        class Auth(SigV4QueryAuth):
            def payload(self, request: AWSRequest) -> str:
                return "UNSIGNED-PAYLOAD"

            def _modify_request_before_signing(self, request: AWSRequest) -> None:
                when = datetime.now(UTC) - age
                request.context["timestamp"] = when.strftime("%Y%m%dT%H%M%SZ")
                super()._modify_request_before_signing(request)

        request = AWSRequest(method, f"{aws.endpoint}/{bucket}/{key}")
        Auth(by, "s3", "us-east-1", expires=expires).add_auth(request)
        return str(request.url)

    return make


@pytest.fixture
def stored(s3: Any, bucket: str, key: str) -> str:
    s3.put_object(Bucket=bucket, Key=key, Body=DATA)
    return key


def test_a_presigned_url_works(raw: Any, presigned: Any, stored: str) -> None:
    assert raw("GET", presigned())[0] == 200
    assert raw("PUT", presigned("PUT"), DATA)[0] == 200


def test_a_url_that_boto3_presigns_works_and_keeps_the_checksum_that_is_a_part_of_it(
    aws: Any, owner: Credentials, raw: Any, bucket: str, stored: str
) -> None:
    config, session = Config(signature_version="s3v4"), boto3.Session(owner.access_key, owner.secret_key)
    there = {"Bucket": bucket, "Key": stored}
    with contextlib.closing(session.client("s3", "us-east-1", endpoint_url=aws.endpoint, config=config)) as s3:
        get = s3.generate_presigned_url("get_object", there)
        right, wrong = b64(CHECKSUMS["sha256"]), b64(bytes(32))
        put = s3.generate_presigned_url("put_object", there | {"ChecksumSHA256": right})
        bad = s3.generate_presigned_url("put_object", there | {"ChecksumSHA256": wrong})
    assert raw("GET", get)[0] == 200
    assert raw("PUT", put, DATA, {"x-amz-checksum-sha256": right})[0] == 200
    assert raw("PUT", put, DATA, {"x-amz-checksum-sha256": wrong})[:2] == (403, "SignatureDoesNotMatch")
    assert raw("PUT", put, DATA)[:2] == (403, "SignatureDoesNotMatch")
    assert raw("PUT", bad, DATA, {"x-amz-checksum-sha256": wrong})[:2] == (400, "BadDigest")


def test_presigned_expiry_is_enforced(raw: Any, presigned: Any, stored: str) -> None:
    assert raw("GET", presigned(expires=60, age=timedelta(seconds=30)))[0] == 200
    assert raw("GET", presigned(expires=60, age=timedelta(seconds=62)))[:2] == (403, "AccessDenied")
    assert raw("GET", presigned(expires=1, age=timedelta(days=1)))[:2] == (403, "AccessDenied")


@pytest.mark.parametrize("expires", [604_801, -1, "soon"])
def test_a_presigned_url_lasts_a_week_at_most(raw: Any, presigned: Any, stored: str, expires: Any) -> None:
    assert raw("GET", presigned(expires=expires))[:2] == (400, "AuthorizationQueryParametersError")


def test_a_presigned_url_that_is_altered_is_refused(
    raw: Any, presigned: Any, bucket: str, stored: str, s3: Any
) -> None:
    url = presigned()
    s3.put_object(Bucket=bucket, Key=f"{stored}2", Body=DATA)
    longer = url.replace("X-Amz-Expires=60", "X-Amz-Expires=600")
    elsewhere = url.replace(f"/{stored}?", f"/{stored}2?")
    more = f"{url}&versionId=null"
    zeros = url[: url.index("X-Amz-Signature=")] + "X-Amz-Signature=" + "0" * 64
    for altered in (longer, elsewhere, more, zeros):
        assert raw("GET", altered)[:2] == (403, "SignatureDoesNotMatch")


def test_a_presigned_url_lacks_nothing(raw: Any, presigned: Any, stored: str) -> None:
    url = presigned()
    for name in ("X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"):
        start, _, rest = url.partition(f"{name}=")
        without = start + rest.partition("&")[2]
        assert raw("GET", without)[:2] == (400, "AuthorizationQueryParametersError")


@pytest.mark.parametrize(("made_for", "used"), [("GET", "PUT"), ("GET", "DELETE"), ("GET", "HEAD"), ("PUT", "GET")])
def test_a_presigned_url_is_for_one_method(raw: Any, presigned: Any, stored: str, made_for: str, used: str) -> None:
    assert raw(used, presigned(made_for), b"" if used == "PUT" else None)[0] == 403


def test_an_amazon_header_that_was_not_signed_cannot_be_added(
    raw: Any, presigned: Any, stored: str, bucket: str
) -> None:
    copy = {"x-amz-copy-source": f"/{bucket}/{stored}"}
    assert raw("PUT", presigned("PUT"), b"", copy)[:2] == (403, "AccessDenied")


def test_version_2_of_the_signature_is_refused(
    aws: Any, raw: Any, s3: Any, owner: Any, bucket: str, stored: str
) -> None:
    with contextlib.closing(
        boto3.Session(owner.access_key, owner.secret_key, region_name="us-east-1")
        .client("s3", endpoint_url=aws.endpoint, config=Config(signature_version="s3", retries=_ONCE))
    ) as old:  # fmt: skip
        with pytest.raises(ClientError) as refused:
            old.get_object(Bucket=bucket, Key=stored)
        assert refused.value.response["Error"]["Code"] == "InvalidRequest"
        url = old.generate_presigned_url("get_object", {"Bucket": bucket, "Key": stored})
    assert "AWSAccessKeyId=" in url
    assert raw("GET", url)[:2] == (400, "InvalidRequest")


def test_nobody_is_refused(raw: Any, aws: Any, bucket: str, stored: str) -> None:
    assert raw("GET", f"{aws.endpoint}/{bucket}/{stored}")[:2] == (403, "AccessDenied")
    assert raw("PUT", f"{aws.endpoint}/{bucket}/{stored}", b"x")[:2] == (403, "AccessDenied")


def test_pretending_to_be_the_call_that_needs_no_signature_is_refused(
    raw: Any, aws: Any, s3: Any, bucket: str, key: str
) -> None:
    scope = "Credential=AKIANOBODY/20260101/us-east-1/s3/aws4_request"
    headers = {
        "X-Amz-Target": "X.AssumeRoleWithWebIdentity",
        "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature={'0' * 64}",
    }
    assert raw("PUT", f"{aws.endpoint}/{bucket}/{key}", DATA, headers)[:2] == (403, "InvalidAccessKeyId")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=key)


def test_a_request_signed_too_long_ago_is_refused(aws: Any, owner: Any, raw: Any, bucket: str, stored: str) -> None:
    class Late(S3SigV4Auth):
        def _modify_request_before_signing(self, request: AWSRequest) -> None:
            when = datetime.now(UTC) - timedelta(minutes=20)
            request.context["timestamp"] = when.strftime("%Y%m%dT%H%M%SZ")
            super()._modify_request_before_signing(request)

    url = f"{aws.endpoint}/{bucket}/{stored}"
    request = AWSRequest("GET", url)
    Late(owner, "s3", "us-east-1").add_auth(request)
    assert raw("GET", url, None, request.headers.items())[:2] == (403, "RequestTimeTooSkewed")


# A host


@pytest.fixture
def credentials_of(aws: Any) -> Callable[[str], Credentials]:
    def get(instance: str) -> Credentials:
        found = aws._lives.credentials(aws.world.instances[instance])
        return Credentials(found.access_key, found.secret, found.token)

    return get


@pytest.fixture
def host(aws: Any, instance: str, credentials_of: Any) -> Iterator[Any]:
    """S3 as the shared instance sees it."""
    found = credentials_of(instance)
    session = boto3.Session(found.access_key, found.secret_key, found.token, "us-east-1")
    with contextlib.closing(session.client("s3", endpoint_url=aws.endpoint, config=Config(retries=_ONCE))) as client:
        yield client


@pytest.fixture
def own(aws: Any, instance: str) -> str:
    return f"runctl/hosts/{aws.world.instances[instance].userid}"


def denied(call: Callable[..., Any], **parameters: Any) -> None:
    with pytest.raises(ClientError) as refused:
        call(**parameters)
    assert refused.value.response["Error"]["Code"] in {"AccessDenied", "403"}


def test_a_host_writes_below_its_own_prefix_and_reads_everything(
    host: Any, s3: Any, bucket: str, own: str, stored: str
) -> None:
    host.put_object(Bucket=bucket, Key=f"{own}/run-1/1/log/1", Body=DATA)
    assert s3.get_object(Bucket=bucket, Key=f"{own}/run-1/1/log/1")["Body"].read() == DATA
    assert host.get_object(Bucket=bucket, Key=stored)["Body"].read() == DATA
    assert host.head_object(Bucket=bucket, Key=stored)["ContentLength"] == len(DATA)
    assert host.list_objects_v2(Bucket=bucket, Prefix=stored)["KeyCount"] == 1


def test_a_host_uploads_parts_below_its_own_prefix_and_gives_up(host: Any, bucket: str, own: str) -> None:
    there = {"Bucket": bucket, "Key": f"{own}/big"}
    for last in ("complete", "abort"):
        upload = host.create_multipart_upload(**there)["UploadId"]
        part = host.upload_part(**there, UploadId=upload, PartNumber=1, Body=DATA)
        if last == "abort":
            host.abort_multipart_upload(**there, UploadId=upload)
        else:
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            host.complete_multipart_upload(**there, UploadId=upload, MultipartUpload=parts)


@pytest.mark.parametrize(
    "key",
    [
        "runctl/runs/run-1/spec.json",
        "runctl/packs/0.tar.zst",
        "runctl/tools/0/host.pyz",
        "runctl/open/run-1",
        "runctl/hosts/AROAOTHER:i-0123456789abcdef0/run-1/1/status.json",
        "runctl/hosts/{role}:i-0123456789abcdef0/run-1/1/status.json",
        "runctl/hosts/{userid}x/status.json",
        "runctl/hosts/{userid}",
        "runctl/hosts/*/status.json",
        "runctl/runs/runctl/hosts/{userid}/status.json",
        "other/runctl/hosts/{userid}/status.json",
        "/runctl/hosts/{userid}/status.json",
        "runctl//hosts/{userid}/status.json",
        "runctl%2Fhosts%2F{userid}%2Fstatus.json",
        "RUNCTL/hosts/{userid}/status.json",
        "anything",
    ],
)
def test_a_host_writes_nowhere_else(aws: Any, host: Any, s3: Any, bucket: str, instance: str, key: str) -> None:
    userid = aws.world.instances[instance].userid
    key = key.format(userid=userid, role=userid.partition(":")[0])
    denied(host.put_object, Bucket=bucket, Key=key, Body=DATA)
    denied(host.create_multipart_upload, Bucket=bucket, Key=key)
    denied(host.copy_object, Bucket=bucket, Key=key, CopySource=f"{bucket}/{key}")
    assert key not in [found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", ())]


def test_a_host_does_not_leave_its_prefix_by_dots(host: Any, s3: Any, bucket: str, own: str) -> None:
    # To S3 dots are characters like any other, so this is a key below the prefix.
    host.put_object(Bucket=bucket, Key=f"{own}/../../runs/x", Body=DATA)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="runctl/runs/x")
    assert s3.get_object(Bucket=bucket, Key=f"{own}/../../runs/x")["Body"].read() == DATA


def test_a_host_deletes_nothing(host: Any, s3: Any, bucket: str, own: str, stored: str) -> None:
    host.put_object(Bucket=bucket, Key=f"{own}/a", Body=DATA)
    for key in (f"{own}/a", stored):
        denied(host.delete_object, Bucket=bucket, Key=key)
        denied(host.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": key}]})
        s3.head_object(Bucket=bucket, Key=key)
    denied(host.delete_bucket, Bucket=bucket)


def test_a_browsers_form_is_no_way_round(signed: Any, s3: Any, credentials_of: Any, instance: str, bucket: str) -> None:
    body = b'--X\r\nContent-Disposition: form-data; name="key"\r\n\r\nrunctl/runs/by-form\r\n'
    body += b'--X\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nhello\r\n--X--\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=X"}
    assert signed("POST", "", body, form, by=credentials_of(instance))[:2] == (403, "AccessDenied")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="runctl/runs/by-form")


def test_a_host_does_not_change_the_bucket_nor_tags_nor_rights(host: Any, bucket: str, own: str) -> None:
    host.put_object(Bucket=bucket, Key=f"{own}/a", Body=DATA)
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    denied(host.put_object_tagging, Bucket=bucket, Key=f"{own}/a", Tagging=tags)
    denied(host.put_object_acl, Bucket=bucket, Key=f"{own}/a", ACL="public-read")
    denied(host.put_bucket_policy, Bucket=bucket, Policy="{}")
    denied(host.put_bucket_tagging, Bucket=bucket, Tagging=tags)
    denied(host.create_bucket, Bucket="another")
    denied(host.list_buckets)
    denied(host.get_bucket_policy, Bucket=bucket)


def test_a_host_copies_what_it_reads_below_its_own_prefix(
    host: Any, s3: Any, bucket: str, own: str, stored: str
) -> None:
    host.copy_object(Bucket=bucket, Key=f"{own}/copy", CopySource={"Bucket": bucket, "Key": stored})
    assert s3.get_object(Bucket=bucket, Key=f"{own}/copy")["Body"].read() == DATA


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("ec2", "describe_instances", {}),
        ("ec2", "run_instances", {"ImageId": "ami-0000000000ubuntu1", "InstanceType": "t3.micro", "MinCount": 1,
                                  "MaxCount": 1}),
        ("iam", "list_roles", {}),
        ("ssm", "put_parameter", {"Name": "secret", "Value": "another", "Type": "String"}),
        ("secretsmanager", "list_secrets", {}),
        ("ssm", "send_command", {"DocumentName": "AWS-RunShellScript", "InstanceIds": ["i-0123456789abcdef0"]}),
        ("sts", "assume_role", {"RoleArn": "arn:aws:iam::123456789012:role/runctl-launcher", "RoleSessionName": "up"}),
    ],
)  # fmt: skip
def test_a_host_does_nothing_else(
    aws: Any, credentials_of: Any, instance: str, service: str, operation: str, parameters: Any
) -> None:
    found = credentials_of(instance)
    session = boto3.Session(found.access_key, found.secret_key, found.token, "us-east-1")
    with (
        contextlib.closing(session.client(service, endpoint_url=aws.endpoint, config=Config(retries=_ONCE))) as client,
        pytest.raises(ClientError) as refused,
    ):
        getattr(client, operation)(**parameters)
    assert refused.value.response["Error"]["Code"] in {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}


def test_a_hosts_credentials_cannot_be_forged(
    signed: Any, boot: Any, instance: str, credentials_of: Any, aws: Any
) -> None:
    mine, other = credentials_of(instance), credentials_of(boot())
    own = f"runctl/hosts/{aws.world.instances[instance].userid}/forged"
    for forged, code in (
        (Credentials(mine.access_key, "wrong", mine.token), "SignatureDoesNotMatch"),
        (Credentials(mine.access_key, other.secret_key, mine.token), "SignatureDoesNotMatch"),
        (Credentials(mine.access_key, mine.secret_key, "wrong"), "InvalidToken"),
        (Credentials(mine.access_key, mine.secret_key, other.token), "InvalidToken"),
        (Credentials(mine.access_key, mine.secret_key), "InvalidToken"),
        (Credentials(other.access_key, mine.secret_key, mine.token), "InvalidToken"),
        (Credentials("ASIANOBODY", mine.secret_key, mine.token), "InvalidAccessKeyId"),
        (other, "AccessDenied"),
    ):
        assert signed("PUT", own, DATA, by=forged)[1] == code
    assert signed("PUT", own, DATA, by=mine)[0] == 200


def test_a_hosts_credentials_and_what_they_signed_die_with_it(
    signed: Any, raw: Any, presigned: Any, boot: Any, ec2: Any, credentials_of: Any, stored: str
) -> None:
    instance = boot()
    found = credentials_of(instance)
    url = presigned(by=found)
    assert raw("GET", url)[0] == signed("GET", stored, by=found)[0] == 200
    ec2.terminate_instances(InstanceIds=[instance])
    assert raw("GET", url)[1] == signed("GET", stored, by=found)[1] == "ExpiredToken"


def test_the_checksums_of_the_tests_are_right() -> None:
    assert CHECKSUMS["crc32"] == zlib.crc32(DATA).to_bytes(4, "big")
