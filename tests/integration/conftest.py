"""What every integration test may use: one emulated AWS a process, because moto's state is the process's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runctl_action.emulator.server import Emulator


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("aws")) as emulator:
        yield emulator
