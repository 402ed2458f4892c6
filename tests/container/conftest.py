"""Not part of `make test`: an engine is needed, and minutes. `make test-container` asks for it, with
RUNCTL_TEST_CONTAINER=1; with `try`, as in CI, one line is said instead where there is no engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from engine import Engine, NoEngine, engine

from runctl_action.emulator.server import Emulator

_ASKED = os.environ.get("RUNCTL_TEST_CONTAINER")
if not _ASKED:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def docker() -> Iterator[Engine]:
    try:
        with engine() as found:
            found.build()
            yield found
    except NoEngine as error:
        if _ASKED == "try":
            pytest.exit(f"THE IMAGE WAS NOT TESTED: {error}", returncode=0)
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("aws")) as emulator:
        yield emulator
