"""What docs/hostile-input.md says is shown by a test, is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_security_docs import functions

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "hostile-input.md").read_text(encoding="utf-8")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| what comes in"))
]


@pytest.mark.parametrize(("path", "name"), sorted(set(_TEST.findall(TEXT))))
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    assert name in functions(path)


@pytest.mark.parametrize("cells", ROWS, ids=[cells[0] for cells in ROWS])
def test_every_row_is_whole_and_names_a_test(cells: list[str]) -> None:
    assert len(cells) == 4
    assert all(cells)
    assert _TEST.search(cells[3])
