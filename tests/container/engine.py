"""A container engine, and the image: docker, a dockerd that is started for the while, or podman."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner_double import ROOT

IMAGE = "runctl-action-test"
_BASE = "runctl-action-test-base"
_CA = Path("/etc/ssl/certs/ca-certificates.crt")


class NoEngine(Exception):
    pass


@dataclass
class Engine:
    """`program` understands docker's command line; `base` is what the image was built on."""

    program: str
    base: str = ""

    @property
    def run_options(self) -> list[str]:
        """The doubles are on the loopback. podman would raise two limits, which not every machine lets it."""
        limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
        return ["--network", "host", *(limits if self.program == "podman" else [])]

    def run(self, *arguments: str, check: bool = True, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *arguments], check=check, capture_output=True, text=True, timeout=seconds
        )  # fmt: skip

    def build(self) -> None:
        """IMAGE, on the Dockerfile's own base where it can be pulled, else on a Debian of this machine's mirror."""
        named = re.search(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        assert named
        self.base = named[1] if self._has(named[1]) or self._pulls(named[1]) else _BASE
        if self.base == _BASE and not self._has(_BASE):
            self._import_base()
        arguments = ["build", "--tag", IMAGE, "--network", "host", "--build-arg", f"BASE_IMAGE={self.base}"]
        # The old client's builder and the new one's: the Dockerfile needs nothing that only one has.
        built = subprocess.run(
            [self.program, *arguments, str(ROOT)],
            check=False, capture_output=True, text=True, env=self._environ(), timeout=500,
        )  # fmt: skip
        assert built.returncode == 0, f"{built.stdout[-4000:]}{built.stderr[-4000:]}"

    def _environ(self) -> dict[str, str]:
        has_buildx = self.program != "docker" or self.run("buildx", "version", check=False).returncode == 0
        return dict(os.environ) | ({} if has_buildx else {"DOCKER_BUILDKIT": "0"})

    def _has(self, image: str) -> bool:
        return self.run("image", "inspect", image, check=False).returncode == 0

    def _pulls(self, image: str) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.run("pull", image, check=False, seconds=120).returncode == 0
        return False

    def _import_base(self) -> None:
        """Debian's own Python, and this machine's certificates: its mirrors may have a root of their own."""
        if not shutil.which("debootstrap") or os.geteuid():
            raise NoEngine("no registry can be reached, and a base of one's own needs root and debootstrap")
        with tempfile.TemporaryDirectory(prefix="runctl-base-") as folder:
            root = Path(folder) / "root"
            command = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "stable"]
            done = subprocess.run([*command, root], check=False, capture_output=True, text=True, timeout=400)
            if done.returncode:
                raise NoEngine(f"no registry can be reached, and debootstrap failed: {done.stdout[-1000:]}")
            _make_slim(root)
            shutil.copy(_CA, root / _CA.relative_to("/"))
            shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
            changes = [f"ENV {name}={_CA}" for name in ("PIP_CERT", "SSL_CERT_FILE")]
            archive = Path(folder) / "root.tar"
            subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
            options = [word for change in changes for word in ("--change", change)]
            self.run("import", *options, str(archive), _BASE, seconds=300)


def _make_slim(root: Path) -> None:
    """As python:slim is: without documentation, translations, fetched packages, and bytecode of the standard library."""
    for left in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(root / left)
        (root / left).mkdir()
    excluded = "".join(f"path-exclude /usr/share/{name}/*\n" for name in ("doc", "locale", "man"))
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(excluded)
    for pattern in ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*", "usr/lib/python3*/**/*.pyc"):
        for path in root.glob(pattern):
            path.unlink()


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Raises NoEngine."""
    if _works("docker"):
        yield Engine("docker")
    elif os.geteuid() == 0 and shutil.which("dockerd") and shutil.which("docker"):
        with _dockerd():
            yield Engine("docker")
    elif _works("podman"):
        yield Engine("podman")
    else:
        raise NoEngine("no container engine: neither docker nor podman works here (apt-get install docker.io)")


def _works(program: str) -> bool:
    return (
        bool(shutil.which(program))
        and subprocess.run([program, "info"], check=False, capture_output=True).returncode == 0
    )


@contextlib.contextmanager
def _dockerd() -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        # The containers share the machine's network: neither a bridge nor a rule of its firewall is needed.
        options = ["--storage-driver", "overlay2", "--bridge=none", "--iptables=false", "--ip6tables=false"]
        daemon = subprocess.Popen(["dockerd", *options], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not _works("docker"):
                if daemon.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise NoEngine(f"dockerd does not start here: {log.read().decode(errors='replace')[-1000:]}")
                time.sleep(0.2)
            yield
        finally:
            daemon.terminate()
            daemon.wait(timeout=60)
