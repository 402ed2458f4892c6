"""What a host is sent: our own host package as one zip, uv for its platform, and the command that starts them."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from runctl_action.contract.documents import Order
from runctl_action.errors import CloudError

_ROOMS = ("contract", "host")
_MAIN = "import sys\n\nfrom runctl_action.host.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
_PLATFORMS = {
    "Linux x86_64": "x86_64-unknown-linux-gnu",
    "Linux aarch64": "aarch64-unknown-linux-gnu",
    "Linux arm64": "aarch64-unknown-linux-gnu",
    "Darwin arm64": "aarch64-apple-darwin",
    "Darwin x86_64": "x86_64-apple-darwin",
}
# Where the action's image has uv for hosts: its launches need no package index (scripts/bake_uv.py).
BAKED = Path(sys.prefix) / "share" / "runctl-action"
# The format has no date; a fixed one makes the same content the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Tool:
    """Bytes that a host is given, named by their sha256."""

    name: str
    sha256: str
    data: bytes


@functools.cache
def host_package() -> Tool:
    """The zipped host package: contract, errors and host, with its pinned requirements beside them."""
    package = resources.files("runctl_action")
    members = {"__main__.py": _MAIN.encode(), "runctl_action/__init__.py": (package / "__init__.py").read_bytes()}
    members["runctl_action/errors.py"] = (package / "errors.py").read_bytes()
    members["requirements.txt"] = (package / "host" / "requirements.txt").read_bytes()
    for room in _ROOMS:
        for file in (package / room).iterdir():
            if file.name.endswith(".py") and file.name != "bootstrap.py":
                members[f"runctl_action/{room}/{file.name}"] = file.read_bytes()
    return _tool("host.pyz", _zipped(members, compresslevel=9))


def uv_archive(platform: str, cache: Path) -> Tool:
    """uv for `platform` ("Linux x86_64"), zipped; kept in `cache`. Raises CloudError when it cannot be had."""
    if platform not in _PLATFORMS:
        raise CloudError(f"there is no uv for hosts of {platform}", f"choose an image of: {', '.join(_PLATFORMS)}")
    version = metadata.version("uv")
    name = f"uv-{version}-{_PLATFORMS[platform]}.zip"
    kept = BAKED / name if (BAKED / name).is_file() else cache / name
    if kept.is_file():
        with zipfile.ZipFile(kept) as archive:
            if archive.testzip() is None:
                return _tool("uv.zip", kept.read_bytes())
    data = _zipped({"uv": _uv_binary(platform, version, cache)}, compresslevel=1)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(kept)
    return _tool("uv.zip", data)


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Where things are kept that can be had again; made."""
    base = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or str(Path.home()), ".cache")  # noqa: PTH118
    directory = Path(base) / "runctl-action"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def start_script(order: Order, *, package_url: str, package_sha256: str, uv_url: str, uv_sha256: str) -> str:
    """The SSM command. All that is in it is base64: no text of the user's can be read by a shell, or by SSM's {{ }}."""
    parameters = {
        "order": order.model_dump(mode="json"),
        "package_url": package_url,
        "package_sha256": package_sha256,
        "uv_url": uv_url,
        "uv_sha256": uv_sha256,
    }
    source = (resources.files("runctl_action") / "host" / "bootstrap.py").read_bytes()
    program = base64.b64encode(zlib.compress(source + b"\nsys.exit(main(sys.argv[1]))\n", 9)).decode()
    encoded = base64.b64encode(json.dumps(parameters).encode()).decode()
    run = f"import base64,zlib;exec(zlib.decompress(base64.b64decode('{program}')))"
    return f'#!/bin/sh\nexec python3 -c "{run}" {encoded}\n'


def _uv_binary(platform: str, version: str, cache: Path) -> bytes:
    import uv

    own = f"{os.uname().sysname} {os.uname().machine}"
    if _PLATFORMS.get(own) == _PLATFORMS[platform]:
        return Path(uv.find_uv_bin()).read_bytes()
    target = cache / f"uv-{version}-{_PLATFORMS[platform]}"
    command = [
        uv.find_uv_bin(),
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--python",
        sys.executable,
    ]
    command += ["--python-platform", _PLATFORMS[platform], "--target", str(target), f"uv=={version}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CloudError(
            f"uv {version} for {platform} cannot be had: {done.stderr.strip()}",
            "check the package index, then run it again",
        )
    return (target / "bin" / "uv").read_bytes()


def _zipped(members: Mapping[str, bytes], *, compresslevel: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=compresslevel) as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, _DATE), members[name], zipfile.ZIP_DEFLATED, compresslevel)
    return out.getvalue()


def _tool(name: str, data: bytes) -> Tool:
    return Tool(name, hashlib.sha256(data).hexdigest(), data)
