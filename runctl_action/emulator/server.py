"""An AWS in one process: moto's server, with what it stubs made real by a layer in front of it."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from runctl_action.emulator.ec2 import IMAGES, Ec2, Refusal
from runctl_action.emulator.faults import Faults
from runctl_action.emulator.imds import Imds
from runctl_action.emulator.ssm import ApiError, Ssm
from runctl_action.emulator.state import Delays, World

BUCKET = "runctl-emulated"
PROFILE = "runctl-host"
# The machine's own, which reach a host as its image's: certificates, proxies, package indexes and their cache.
_PASSED = re.compile(r"(SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|UV_.*|PIP_.*|(?i:https?|all|no)_(?i:proxy))\Z")

Start = Callable[[str, list[tuple[str, str]]], Any]
Body = Iterable[bytes]


class Emulator:
    """A context manager; `environ` is what a launcher needs. One at a time per process: moto's state is global."""

    def __init__(
        self,
        directory: Path,
        *,
        delays: Delays | None = None,
        faults: Sequence[str] = (),
        port: int = 0,
        region: str = "us-east-1",
        environ: Mapping[str, str] = os.environ,
        seconds_per_minute: float = 60.0,
    ) -> None:
        self.world = World(directory, region, delays or Delays(), Faults(faults), seconds_per_minute=seconds_per_minute)
        self._port = port
        self._environ = environ
        self.ec2 = Ec2(self.world)
        self._ssm = Ssm(self.world)
        self._imds = Imds(self.world)

    def __enter__(self) -> Emulator:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):  # type: ignore[misc]
            def log_request(self, *_: object) -> None:
                return

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", self._port, self._answer, threaded=True, request_handler=Quiet)
        self.world.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.world.ami_environment = {
            name: value for name, value in self._environ.items() if _PASSED.match(name)
        } | {"AWS_ENDPOINT_URL": self.world.endpoint, "UV_CACHE_DIR": _uv_cache(self._environ)}  # fmt: skip
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self._prepare_account()
        return self

    def __exit__(self, *_: object) -> None:
        for instance in list(self.world.instances.values()):
            instance.host.halt()
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return self.world.endpoint

    @property
    def environ(self) -> dict[str, str]:
        """The variables that point a launcher, or the AWS CLI, at this AWS."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIAEMULATED00000000",
            "AWS_SECRET_ACCESS_KEY": "emulated",
            "AWS_REGION": self.world.region,
            "RUNCTL_BUCKET": BUCKET,
            "RUNCTL_INSTANCE_PROFILE": PROFILE,
        }

    def _prepare_account(self) -> None:
        import boto3

        session = boto3.Session("AKIAEMULATED00000000", "emulated", region_name=self.world.region)
        moto_reset()
        self.ec2.prepare()
        iam = session.client("iam", endpoint_url=self.endpoint)
        iam.create_role(RoleName=PROFILE, AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName=PROFILE)
        iam.add_role_to_instance_profile(InstanceProfileName=PROFILE, RoleName=PROFILE)
        s3: Any = session.client("s3", endpoint_url=self.endpoint)
        where = (
            {}
            if self.world.region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": self.world.region}}
        )
        s3.create_bucket(Bucket=BUCKET, **where)
        for client in (iam, s3):
            client.close()

    def _answer(self, environ: dict[str, Any], start: Start) -> Body:
        path = unquote(environ["PATH_INFO"])
        if path.startswith("/imds/"):
            return self._metadata(environ, start, path)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target.startswith("AmazonSSM."):
            return self._ssm_call(environ, start, target.partition(".")[2])
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        if "/ec2/aws4_request" in authorization and environ["REQUEST_METHOD"] == "POST":
            return self._ec2_call(environ, start)
        if "/s3/aws4_request" in authorization or "X-Amz-Signature" in environ.get("QUERY_STRING", ""):
            return self._s3_call(environ, start, path)
        return self._moto(environ, start)  # type: ignore[no-any-return]

    def _metadata(self, environ: dict[str, Any], start: Start, path: str) -> Body:
        _, _, instance_id, rest = path.split("/", 3)
        headers = {
            "X-aws-ec2-metadata-token-ttl-seconds": environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS", ""),
            "X-aws-ec2-metadata-token": environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN", ""),
        }
        status, body = self._imds.handle(instance_id, environ["REQUEST_METHOD"], rest, headers)
        return _reply(start, status, body.encode(), "text/plain")

    def _ssm_call(self, environ: dict[str, Any], start: Start, operation: str) -> Body:
        data = _body(environ)
        body = json.loads(data or b"{}")
        try:
            if operation == "GetParameter" and body.get("Name") in IMAGES:
                value = {"Name": body["Name"], "Type": "String", "Value": IMAGES[body["Name"]][0], "Version": 1}
                return _reply(start, 200, json.dumps({"Parameter": value}).encode(), "application/x-amz-json-1.1")
            answer = self._ssm.handle(operation, body)
        except ApiError as error:
            said = json.dumps({"__type": error.code, "message": str(error)}).encode()
            return _reply(start, 400, said, "application/x-amz-json-1.1")
        if answer is None:
            return self._moto(environ, start)  # type: ignore[no-any-return]
        return _reply(start, 200, json.dumps(answer).encode(), "application/x-amz-json-1.1")

    def _ec2_call(self, environ: dict[str, Any], start: Start) -> Body:
        form = dict(parse_qsl(_body(environ).decode(), keep_blank_values=True))
        action = form.get("Action", "")
        if action == "RunInstances":
            return self._launch(environ, start, form)
        ids = [value for key, value in form.items() if re.fullmatch(r"InstanceId\.\d+", key)]
        answer = _buffered(self._moto, environ)
        if answer[0].startswith("200"):
            for instance_id in ids:
                if action == "TerminateInstances":
                    self.ec2.end(
                        instance_id, "terminated", "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown"
                    )
                elif action == "StopInstances":
                    self.ec2.end(instance_id, "stopped", "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown")
                elif action == "StartInstances":
                    self.ec2.started_again(instance_id)
        start(answer[0], answer[1])
        return [answer[2]]

    def _launch(self, environ: dict[str, Any], start: Start, form: dict[str, str]) -> Body:
        with self.world.lock:
            try:
                earlier = self.ec2.before_launch(form)
            except Refusal as refusal:
                return _reply(start, 400, _ec2_error(refusal), "text/xml")
            if earlier is not None:
                return self._describe_again(environ, start, earlier)
            status, headers, body = _buffered(self._moto, environ)
            if status.startswith("200"):
                data = base64.b64decode(form["UserData"]) if form.get("UserData") else None
                for instance_id in re.findall(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", body):
                    self.ec2.launched(instance_id.decode(), form, data)
                body = body.replace(b"<name>running</name>", b"<name>pending</name>")
        start(status, headers)
        return [body]

    def _describe_again(self, environ: dict[str, Any], start: Start, instance_id: str) -> Body:
        """The same token: the answer that DescribeInstances gives, in RunInstances' words."""
        request = f"Action=DescribeInstances&Version=2016-11-15&InstanceId.1={instance_id}".encode()
        import io

        again = environ | {"wsgi.input": io.BytesIO(request), "CONTENT_LENGTH": str(len(request))}
        _, _, body = _buffered(self._moto, again)
        reservation = re.search(rb"<reservationSet>\s*<item>(.*)</item>\s*</reservationSet>", body, re.DOTALL)
        assert reservation is not None
        xmlns = b'xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"'
        answer = b"<RunInstancesResponse " + xmlns + b">" + reservation[1] + b"</RunInstancesResponse>"
        return _reply(start, 200, answer, "text/xml")

    def _s3_call(self, environ: dict[str, Any], start: Start, path: str) -> Body:
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        credential = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        access_key = credential[1] if credential else query.get("X-Amz-Credential", "").split("/")[0]
        method, key = environ["REQUEST_METHOD"], path.lstrip("/").partition("/")[2]
        if "X-Amz-Signature" in query and _is_expired(query):
            return _reply(start, 403, _s3_error("AccessDenied", "Request has expired"), "application/xml")
        instance = self.world.by_access_key(access_key)
        if access_key.startswith("ASIA") and instance is None:
            return _reply(
                start, 403, _s3_error("InvalidAccessKeyId", "The access key does not exist"), "application/xml"
            )
        if instance is not None:
            if instance.state != "running":
                return _reply(start, 403, _s3_error("ExpiredToken", "The instance is gone"), "application/xml")
            own = f"/hosts/{instance.userid}/"
            if method not in {"GET", "HEAD"} and not ("/" + key).partition(own)[1]:
                return _reply(start, 403, _s3_error("AccessDenied", "Access Denied"), "application/xml")
        if method == "PUT" and not _checksum_holds(environ):
            return _reply(start, 400, _s3_error("BadDigest", "The checksum does not match"), "application/xml")
        if instance is not None and method == "PUT" and key.endswith("/status.json"):
            self._watch_phase(environ, instance.id)
        return self._moto(environ, start)  # type: ignore[no-any-return]

    def _watch_phase(self, environ: dict[str, Any], instance_id: str) -> None:
        found = re.search(rb'"phase":"([a-z]+)","at"', _body(environ))
        if found:
            self.ec2.on_phase(instance_id, found[1].decode())


def serve(*, port: int, faults: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serves until SIGINT or SIGTERM; prints the variables that point other programs here."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with (
        tempfile.TemporaryDirectory(prefix="runctl-emulator-") as directory,
        Emulator(Path(directory), port=port, faults=faults, environ=environ) as emulator,
    ):
        for name, value in emulator.environ.items():
            print(f"export {name}={value}", flush=True)
        print(f"# an emulated AWS at {emulator.endpoint}; ^C ends it and its hosts", file=sys.stderr, flush=True)
        ended.wait()
    return 0


def moto_reset() -> None:
    """moto's state is global to the process; an emulator starts with none."""
    from moto.core.model_instances import reset_model_data

    reset_model_data()


def _body(environ: dict[str, Any]) -> bytes:
    """The request's body, left in place for whoever reads it next."""
    import io

    length = int(environ.get("CONTENT_LENGTH") or 0)
    data = bytes(environ["wsgi.input"].read(length))
    environ["wsgi.input"] = io.BytesIO(data)
    return data


def _buffered(app: Callable[..., Body], environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    answer: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
        answer[:] = [status, headers]

    body = b"".join(app(environ, start))
    return answer[0], [(k, v) for k, v in answer[1] if k.lower() != "content-length"], body


def _reply(start: Start, status: int, body: bytes, kind: str) -> Body:
    start(
        f"{status} {'OK' if status == 200 else 'Error'}", [("Content-Type", kind), ("Content-Length", str(len(body)))]
    )
    return [body]


def _ec2_error(refusal: Refusal) -> bytes:
    said = f"<Error><Code>{refusal.code}</Code><Message>{refusal}</Message></Error>"
    return f"<Response><Errors>{said}</Errors><RequestID>{secrets.token_hex(8)}</RequestID></Response>".encode()


def _s3_error(code: str, message: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def _is_expired(query: Mapping[str, str]) -> bool:
    signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return datetime.now(UTC) > signed + timedelta(seconds=int(query.get("X-Amz-Expires", "0")))


def _checksum_holds(environ: dict[str, Any]) -> bool:
    wanted: str | None = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256")
    if wanted is None or environ.get("HTTP_X_AMZ_TRAILER"):
        return True
    return base64.b64encode(hashlib.sha256(_body(environ)).digest()).decode() == wanted


def _uv_cache(environ: Mapping[str, str]) -> str:
    """The machine's own package cache, as a prepared image would have one."""
    if environ.get("UV_CACHE_DIR"):
        return environ["UV_CACHE_DIR"]
    try:
        import uv

        command = [uv.find_uv_bin(), "cache", "dir", "--no-config"]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=dict(environ)).stdout.strip()
    except (ImportError, FileNotFoundError, subprocess.CalledProcessError):
        return str(Path(tempfile.gettempdir()) / "runctl-uv-cache")


__all__ = ["BUCKET", "PROFILE", "Delays", "Emulator", "serve"]
