"""An AWS in one process: moto's server, with what it stubs made real by a layer in front of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from runctl_action.emulator import access, policies, s3, signing, wire
from runctl_action.emulator.ec2 import Ec2
from runctl_action.emulator.faults import Faults, parse
from runctl_action.emulator.iam import Iam
from runctl_action.emulator.imds import Imds
from runctl_action.emulator.instances import Lives
from runctl_action.emulator.prices import Prices
from runctl_action.emulator.quotas import Quotas
from runctl_action.emulator.ssm import Ssm
from runctl_action.emulator.state import (
    ACCOUNT,
    BUCKET,
    LAUNCHER_ROLE,
    PREFIX,
    PROFILE,
    Credential,
    Delays,
    World,
    in_background,
)
from runctl_action.emulator.sts import Sts, launcher_userid
from runctl_action.emulator.wire import Answer, ApiError, Call

# The machine's own, which reach a host as its image's: certificates, proxies, package indexes and their cache.
_PASSED = re.compile(r"(SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|UV_.*|PIP_.*|(?i:https?|all|no)_(?i:proxy))\Z")
_THROTTLED = {"ec2": "RequestLimitExceeded", "s3": "SlowDown", "ssm": "ThrottlingException"}
_DENIED = {
    "ec2": "UnauthorizedOperation",
    **dict.fromkeys(("ssm", "pricing", "servicequotas", "secretsmanager"), "AccessDeniedException"),
}
_CONTROL = "/_runctl/faults"

# A host reads the whole bucket, and writes below its own userid only. It registers with SSM.
HOST_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": ["arn:aws:s3:::*"]},
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
            "Resource": f"arn:aws:s3:::{BUCKET}/{PREFIX}/hosts/${{aws:userid}}/*",
        },
        {"Effect": "Allow", "Action": ["sts:GetCallerIdentity", "ssm:UpdateInstanceInformation"], "Resource": "*"},
        # For the setting `secrets`: all of the account's, which is this emulator's alone.
        {
            "Effect": "Allow",
            "Action": ["ssm:GetParameter", "secretsmanager:GetSecretValue"],
            "Resource": [f"arn:aws:ssm:*:{ACCOUNT}:parameter/*", f"arn:aws:secretsmanager:*:{ACCOUNT}:secret:*"],
        },
        {
            "Effect": "Allow",
            "Action": [
                f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")
            ],
            "Resource": "*",
        },
    ],
}


class Emulator:
    """A context manager; `environ` is what a launcher needs. One at a time per process: moto's state is global.
    `host_policy` and `launcher_policy` are IAM policy documents; without one the launcher may do everything."""

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
        host_policy: Mapping[str, Any] = HOST_POLICY,
        launcher_policy: Mapping[str, Any] | None = None,
    ) -> None:
        self.world = World(directory, region, delays or Delays(), Faults(faults), seconds_per_minute=seconds_per_minute)
        self.world.host_policy = policies.parse(host_policy)
        self._host_policy = host_policy
        if launcher_policy is not None:
            self.world.launcher_policy = policies.parse(launcher_policy)
        self._port = port
        self._environ = environ

    def __enter__(self) -> Emulator:
        from moto.core.base_backend import BackendDict
        from moto.core.model_instances import reset_model_data
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):  # type: ignore[misc]
            def log_request(self, *_: object) -> None:
                return

            def send_response(self, code: int, message: str | None = None) -> None:
                # The base's adds a Date of its own to that of the answer.
                self.send_response_only(code, message)

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        BackendDict.reset()
        reset_model_data()
        self._moto: wire.Wsgi = DomainDispatcherApplication(create_backend_app)
        self._lives = Lives(self.world)
        prices = Prices(self.world)
        self._prices, self._sts, self._iam, self._quotas = prices, Sts(self.world), Iam(), Quotas(self.world)
        self._ec2 = Ec2(self.world, self._moto, self._lives, prices)
        self._ssm = Ssm(self.world, self._moto, self._lives)
        self._s3 = s3.S3(self.world, self._moto, self._lives.on_phase)
        self._imds = Imds(self.world, self._lives)
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
            "AWS_ACCESS_KEY_ID": self._launcher.access_key,
            "AWS_SECRET_ACCESS_KEY": self._launcher.secret,
            "AWS_REGION": self.world.region,
            "AWS_DEFAULT_REGION": self.world.region,
            "RUNCTL_BUCKET": BUCKET,
            "RUNCTL_INSTANCE_PROFILE": PROFILE,
        }

    def client(self, service: str) -> Any:
        """A boto3 client of the account's owner, in the emulator's region."""
        import boto3

        return boto3.Session(self._launcher.access_key, self._launcher.secret, region_name=self.world.region).client(
            service, endpoint_url=self.endpoint
        )  # type: ignore[call-overload]

    def _prepare_account(self) -> None:
        """A launcher's user and role, an instance profile, a bucket, and the images."""
        session = self.world.session(
            launcher_userid(), f"arn:aws:iam::{ACCOUNT}:user/launcher", policies.EVERYTHING, lasts=timedelta(days=1)
        )
        del self.world.credentials[session.access_key]
        access_key = session.access_key.replace("ASIA", "AKIA")
        self._launcher = Credential(access_key, session.secret, session.userid, session.arn, policies.EVERYTHING)
        self.world.credentials[access_key] = self._launcher
        # moto's own calls: a client of boto3's, and a round trip each, would double the time to the first answer.
        from moto.iam.models import iam_backends
        from moto.s3.models import s3_backends

        iam = iam_backends[ACCOUNT]["aws"]
        for role in (PROFILE, LAUNCHER_ROLE):
            iam.create_role(role, "{}", "/", None, "", [], None)
        iam.put_role_policy(PROFILE, "hosts", json.dumps(self._host_policy))
        iam.create_instance_profile(PROFILE, "/", [])
        iam.add_role_to_instance_profile(PROFILE, PROFILE)
        s3_backends[ACCOUNT]["aws"].create_bucket(BUCKET, self.world.region)
        # As every bucket since January 2023 (S3 user guide, "Setting default server-side encryption behavior").
        s3_backends[ACCOUNT]["aws"].put_bucket_encryption(BUCKET, s3.DEFAULT_ENCRYPTION)
        in_background(self._ec2.prepare)
        self._launcher.policy = self.world.launcher_policy

    def _answer(self, environ: dict[str, Any], start: wire.Start) -> Iterable[bytes]:
        call = wire.read(environ)
        if call.path.startswith("/imds/"):
            return wire.respond(start, self._metadata(call))
        if call.path == _CONTROL:
            return wire.respond(start, self._control(call))
        caller = self.world.caller(call.access_key)
        if caller is not None and caller.is_cut_off:
            return _hang_up(environ)
        try:
            answer = self._handle(call)
        except ApiError as error:
            answer = wire.as_error(call.service, error)
        if self.world.faults.take("lost-answer", api=call.action):
            return _hang_up(environ)
        return wire.respond(start, answer)

    def _handle(self, call: Call) -> Answer:
        """Who is it, may they, does it go wrong on purpose; then the service itself."""
        if (call.service, call.action) != ("sts", "AssumeRoleWithWebIdentity"):
            self._authorise(call, self._authenticate(call))
        if self.world.faults.take("throttle", api=call.action):
            raise ApiError(
                _THROTTLED.get(call.service, "Throttling"), "Rate exceeded", 503 if call.service != "ssm" else 400
            )
        match call.service:
            case "ec2":
                return self._ec2.handle(call)
            case "ssm":
                return self._ssm.handle(call)
            case "s3":
                return self._s3.handle(call)
            case "pricing":
                return self._prices.products(call)
            case "sts" | "iam" | "servicequotas":
                own: dict[str, Sts | Iam | Quotas] = {
                    "sts": self._sts, "iam": self._iam, "servicequotas": self._quotas
                }  # fmt: skip
                found = own[call.service].handle(call)
                if found is not None:
                    return found
        if call.path.startswith("/moto-api"):
            raise ApiError("AccessDenied", "There is no such path in AWS.", 403)
        return wire.forward(self._moto, call.environ)

    def _authenticate(self, call: Call) -> Credential:
        """Whose signature it is. Raises ApiError when it is nobody's."""
        credential = self.world.credentials.get(call.access_key)
        is_host = credential is not None and credential.instance_id is not None
        if credential is not None and self.world.faults.take("expired", who="host" if is_host else "launcher"):
            raise signing.expired(call.service)
        skew = self.world.faults.take("clock-skew") if is_host else None
        signing.check(call, credential, timedelta(minutes=skew.number("minutes", 60)) if skew else timedelta())
        assert credential is not None
        instance = self.world.caller(call.access_key)
        if instance is not None and instance.state not in {"pending", "running"}:
            raise signing.expired(call.service)
        return credential

    def _authorise(self, call: Call, credential: Credential) -> None:
        """Raises ApiError, with the service's own code, unless everything that the call does is allowed."""
        # AWS's own endpoints are behind TLS.
        own = {"aws:userid": credential.userid, "aws:requestedregion": call.region, "aws:securetransport": "true"}
        if credential.instance_id:
            instance = f"arn:aws:ec2:{self.world.region}:{ACCOUNT}:instance/{credential.instance_id}"
            own["ec2:sourceinstancearn"] = instance
        for asked in access.questions(call, self._lives.tags, self._lives.role):
            may = credential.policy.allows(asked.action, asked.resource, {**own, **asked.context})
            is_free = (call.service, call.action) == access.FREE
            if self.world.faults.take("denied", action=asked.action) or not (may or is_free):
                said = f"User: {credential.arn} is not authorized to perform: {asked.action}"
                code = _DENIED.get(call.service, "AccessDenied")
                raise ApiError(code, f"{said} on resource: {asked.resource}", 403)

    def _metadata(self, call: Call) -> Answer:
        _, _, whose, rest = [*call.path.split("/", 3), ""][:4]
        names = ("X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token")
        status, body = self._imds.handle(
            f"{self.world.endpoint}/imds/{whose}/", call.method, rest, {name: call.header(name) for name in names}
        )
        return Answer(body.encode(), status, (("Content-Type", "text/plain"),))

    def _control(self, call: Call) -> Answer:
        """GET lists the faults, POST adds those in the body (one a line), DELETE takes all away."""
        try:
            if call.method == "POST":
                # Parsed first: a file is named on the command line only.
                lines = (line.partition("#")[0].strip() for line in call.body.decode().splitlines())
                for fault in [parse(line) for line in lines if line]:
                    self.world.faults.add(fault.text)
            elif call.method == "DELETE":
                self.world.faults.clear()
        except (ValueError, OSError) as error:
            return Answer(f"{error}\n".encode(), 400, (("Content-Type", "text/plain"),))
        return Answer("".join(f"{text}\n" for text in self.world.faults.texts()).encode())


def serve(
    *, port: int, faults: Sequence[str], environ: Mapping[str, str], delays: Delays, seconds_per_minute: float
) -> int:
    """Serves until SIGINT or SIGTERM; prints the variables that point other programs here."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with (
        own_directory() as directory,
        Emulator(
            directory, port=port, faults=faults, environ=environ, delays=delays, seconds_per_minute=seconds_per_minute,
            region=environ.get("AWS_REGION") or "us-east-1",
        ) as emulator,
    ):  # fmt: skip
        for name, value in emulator.environ.items():
            print(f"export {name}={value}", flush=True)
        print(f"# an emulated AWS at {emulator.endpoint}; ^C ends it and its hosts", file=sys.stderr, flush=True)
        print(f"# faults: curl -d 'FAULT' {emulator.endpoint}{_CONTROL}", file=sys.stderr, flush=True)
        ended.wait()
    return 0


@contextlib.contextmanager
def own_directory() -> Iterator[Path]:
    """A directory for one emulator. Those of emulators that were killed are taken away: nobody holds their lock."""
    base = Path(tempfile.gettempdir())
    for left in base.glob("runctl-emulator-*"):
        with contextlib.suppress(OSError), (left / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
    directory = Path(tempfile.mkdtemp(prefix="runctl-emulator-", dir=base))
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _hang_up(environ: dict[str, Any]) -> Iterable[bytes]:
    """Ends the connection without an answer."""
    import socket

    with contextlib.suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


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


__all__ = ["BUCKET", "PROFILE", "Delays", "Emulator", "Faults", "own_directory", "serve"]
