"""Puts this folder on sys.path: the model of AWS is a package beside the tests that use it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes of the model keep what they send to hosts."""
    from aws_model.settlers import make_cache

    return make_cache(tmp_path_factory.mktemp("cache"))
