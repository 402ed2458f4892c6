"""No test reaches the user's home, git configuration, AWS account or GitHub."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# No test asserts a wall time: a busy machine is no failure.
hypothesis_settings.register_profile("runctl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("runctl")

_FORBIDDEN = ("AWS_", "GITHUB_", "GIT_", "RUNCTL_", "INPUT_", "ACTIONS_")


@pytest.fixture(autouse=True, scope="session")
def _nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    # The package cache may be warm and shared; it holds nothing of the user's that a test could harm.
    os.environ.setdefault("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    for name in [name for name in os.environ if name.startswith(_FORBIDDEN)]:
        del os.environ[name]
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Test\n\temail = test@example.invalid\n[init]\n\tdefaultBranch = main\n"
        '[protocol "file"]\n\tallow = always\n[commit]\n\tgpgsign = false\n'
    )
    os.environ.update(
        HOME=str(home),
        GIT_CONFIG_NOSYSTEM="1",
        # Wrong on purpose: a call that escapes to the real AWS fails instead of spending.
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_EC2_METADATA_DISABLED="true",
    )
