"""Puts uv for hosts, zipped, where `tools.uv_archive` looks first. The Dockerfile runs it, with the image's Python."""

from __future__ import annotations

import shutil
import sys

from runctl_action.run import tools


def main() -> int:
    tools.BAKED.mkdir(parents=True)
    for platform in ("Linux x86_64", "Linux aarch64"):
        tools.uv_archive(platform, tools.BAKED)
    for left in tools.BAKED.glob("*"):
        if left.suffix != ".zip":
            shutil.rmtree(left)
    return 0


if __name__ == "__main__":
    sys.exit(main())
