"""What docs/security.md says is tested, is."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@functools.cache
def functions(path: str) -> frozenset[str]:
    """The tests that a file has."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def claims() -> list[list[str]]:
    """The rows of every table that has a column of tests."""
    found: list[list[str]] = []
    is_claims = False
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            is_claims = False
        elif cells[-1] == "the tests":
            is_claims = True
        elif is_claims and not set("".join(cells)) <= set("- "):
            found.append(cells)
    return found


@pytest.mark.parametrize(("path", "name"), sorted(set(_TEST.findall(TEXT))))
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    assert (ROOT / path).is_file()
    assert name in functions(path)


@pytest.mark.parametrize("cells", claims(), ids=lambda cells: str(cells[0]))
def test_every_claim_names_its_tests_or_says_that_there_is_none(cells: list[str]) -> None:
    assert _TEST.search(cells[-1]) or cells[-1].startswith("**none**")
    assert all(cells)


def test_there_are_claims_in_every_section() -> None:
    sections = TEXT.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "What is protected, by what", "A pull request, a comment, a name", "The output of a training", "What is trained",
        "A malicious training", "Secrets", "What is not prevented", "Hostile input",
    ]  # fmt: skip
    assert all(_TEST.search(section) for section in sections[1:])
    assert len(claims()) > 50
