"""The comments as GitHub renders them: its own fork of cmark makes HTML of the golden files and of hostile reports.

The golden files are of tests/unit/report/test_markdown.py, which also writes them anew.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from hypothesis import given, settings
from hypothesis import strategies as st

from runctl_action.contract.reports import (
    Receipt,
    ReceiptLine,
    Report,
    ReportedCheckpoint,
    ReportedInstance,
    ReportedOffer,
    Synced,
)
from runctl_action.github import marker
from runctl_action.report import markdown
from runctl_action.report.markdown import Place

sys.path.insert(0, str(Path(__file__).parents[1]))

from hostile import MARKERS, NAMES, OUTPUT

GOLDEN = sorted((Path(__file__).parent.parent / "unit" / "report" / "golden").glob("*.md"))
AT = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
PLACE = Place(server_url="https://github.com", workflow_url="https://github.com/example/digits/actions/runs/1")
OURS = re.compile(r"https://github\.com/example/digits/(?:commit/[0-9a-f]{40}|actions/runs/[0-9]+)\Z")
OF_MARKDOWN = {
    "h3", "h4", "p", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "blockquote", "ul", "li", "strong", "a",
}  # fmt: skip
OF_OURS = {"details", "summary", "sub", "b"}
# GitHub makes links of these, outside of code and links: people, issues, advisories, addresses, emoji, and commits.
REFERENCE = re.compile(
    r"(?i)@\w|#[0-9]|\bGH-[0-9]|GHSA-|CVE-|(?:https?|ftp)://|www\.|:[a-z][\w+-]*:"
    r"|\b(?=[0-9]*[a-f])[0-9a-f]{7,40}\b"
)


@dataclass
class Page(HTMLParser):
    """What a comment is made of: elements, cells by row by table, links, and the text that GitHub looks for references in."""

    tags: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    attributes: set[str] = field(default_factory=set)
    tables: list[list[int]] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    mermaid: int = 0
    comments: int = 0
    said: str = ""
    _open: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._open.append(tag)
        self.links += [value for name, value in attrs if name in {"href", "src"}]
        self.attributes |= {name for name, _ in attrs}
        self.mermaid += ("lang", "mermaid") in attrs
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in {"td", "th"}:
            self.tables[-1][-1] += 1
        elif tag in {"h3", "h4"}:
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, "elements are nested as they should be"

    def handle_comment(self, data):
        self.comments += 1

    def handle_data(self, data):
        if self._open and self._open[-1] in {"h3", "h4"}:
            self.headings[-1] += data
        if not {"code", "pre", "a"} & set(self._open):
            self.said += data
        else:
            self.said += "\n"

    def shape(self):
        """All that must be the same whatever the texts of a report are."""
        kinds = {
            tag: self.tags.count(tag) for tag in ("h3", "h4", "table", "pre", "details", "summary", "sub", "blockquote")
        }
        return kinds, self.tables, self.mermaid, self.headings[1:]


def page(shown: str) -> Page:
    """Raw HTML is let through, as GitHub does for what it allows."""
    options = Options.CMARK_OPT_UNSAFE | Options.CMARK_OPT_GITHUB_PRE_LANG | Options.CMARK_OPT_FOOTNOTES
    found = Page()
    found.feed(cmarkgfm.github_flavored_markdown_to_html(shown, options))
    found.close()
    return found


def check_harmless(shown: str) -> Page:
    """Only our elements and links, no reference in what is said, whole tables."""
    found = page(shown)
    assert set(found.tags) <= OF_MARKDOWN | OF_OURS
    assert found.attributes <= {"lang", "href", "align"}
    assert found.comments == 0
    assert all(OURS.match(url) for url in found.links), found.links
    assert not (reference := REFERENCE.search(found.said)), reference
    assert all(len(set(widths)) == 1 and len(widths) > 1 for widths in found.tables), found.tables
    assert set(found.headings[1:]) <= {"Phases", "Receipt", "Checkpoints", "Metrics"}
    assert found.tags.count("h3") == 1
    assert len(shown) <= markdown.LIMIT
    return found


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_comment_is_rendered_as_it_is_meant(path):
    shown = path.read_text(encoding="utf-8")
    # A bare id of a commit is meant to be linked.
    found = check_harmless(re.sub(r"^\| commit \| [0-9a-f]{40} ", "| commit | id ", shown, flags=re.MULTILINE))
    assert found.headings[0][0] in "✅❌⏳⏹⚠⏱"
    # Each row is of two cells, and of the others by their headings.
    assert [widths[0] for widths in found.tables if widths[0] == 2] == [2]
    assert found.mermaid == shown.count("```mermaid\n")


def test_there_are_golden_comments():
    assert len(GOLDEN) >= 9


ANY = st.text(st.characters(exclude_categories=[]), min_size=1, max_size=80)
SIGNS = st.text(
    st.sampled_from(list("@#`~|<>[]()!*_\\&:/.-+=^\n\r\t $'\"%{};\0\x1b\u202ea1wf0")), min_size=1, max_size=40
)
NASTY = st.sampled_from(
    [
        "|<img src=x>@org", "@org/team", "#123", "GH-1", "org/repo#1", "GHSA-abcd-efgh-ijkl", "https://evil.example/x",
        "www.evil.example", "a@b.example", "[x](javascript:alert(1))", "![x](https://evil.example/p.png)", "</details>",
        "4b825dc642cb6eb9a060e54bf8d69288fbee4904", "4b825dc", "\n\n# heading\n", "\n```\n", "~~~", "````", "%%{init: {}}%%",
        "<!-- runctl -->", "| a | b |\n| - | - |", "\r\n> [!CAUTION]", "[^1]", "[^1]: x", ":tada:", "$x$", "&lt;b&gt;", "&#64;org",
        "\\", "`", "``", "-", "1.", "+ a", "=", "<", "<a href='https://evil.example'>x</a>", "xmpp:a@b.example", "---", "*a*", "_",
        "https:&#47;&#47;evil.example", "mailto:a@b.example", "`@org`", "a: b: c", "\u2028", "\ufeff", "\U000e0041",
    ]
)  # fmt: skip
HOSTILE = NASTY | SIGNS | ANY | st.tuples(ANY, NASTY, SIGNS).map("".join)
# What goes through a document of ours has no surrogates, but for arguments and paths.
HOSTILE_JSON = HOSTILE.map(lambda text: text.encode("utf-8", "replace").decode())


def report_of(texts, log, outcome="failed"):
    """A report in which every text is the next one of `texts`: all of its sections are there."""
    texts = iter(texts)

    def t():
        return f"t{next(texts)}"

    return Report(
        run_id=t(), outcome=outcome, cause="exit" if outcome == "failed" else None, exit_code=1, signal=9, message=t(), hint=t(),
        repository=t(), name=t(), commit=t(), tree=t(), branch=t(), script=t(), args=(t(), t()), manifest=Synced(digest=t(), files=1, bytes=1),
        dirty=(t(), t()), instances=(ReportedInstance(id=t(), type=t(), zone=t(), market="spot"),) * 2,
        offers=(
            ReportedOffer(attempt=1, market="spot", type=t(), zone=t(), error=t()),
            ReportedOffer(attempt=1, market="on-demand", type=t(), zone=t(), instance_id=t()),
        ),
        attempts=2, resumed_from=t(), resumed_run=t(), phases={"training": 2.0, t(): 1.0},
        receipt=Receipt(
            lines=(ReceiptLine(item=t(), quantity=Decimal(1), unit=t(), unit_usd=Decimal(1), usd=Decimal(1), source=t()),),
            unknown=(t(),), not_included=(t(),), as_of=AT, total_usd=Decimal(1), on_demand_usd=Decimal(2), saved_usd=Decimal(1),
        ),
        checkpoints=(ReportedCheckpoint(path=t(), bytes=1, sha256=t(), uri=t()), ReportedCheckpoint(path=t(), bytes=1, sha256=t(), uri=t(), suspect=True)),
        metrics=({"loss": 1, f"1{t()}": t(), f"2{t()}": 1}, {"loss": 0.5, "list": [t(), {t(): t()}]}),
        warnings=(t(), t(), f"attempt 1 interrupted: {t()}"), log_tail=log, requested_at=AT, ended_at=AT,
    )  # fmt: skip


COUNT = 60
PLAIN = {
    outcome: page(markdown.render(report_of(["x"] * COUNT, ("x",), outcome), place=PLACE)).shape()
    for outcome in ("failed", None)
}


@settings(max_examples=250, deadline=None)
@given(
    texts=st.lists(HOSTILE_JSON, min_size=COUNT, max_size=COUNT) | HOSTILE_JSON.map(lambda text: [text] * COUNT),
    log=st.lists(HOSTILE_JSON, min_size=1, max_size=6),
    outcome=st.sampled_from(["failed", None]),
)
def test_no_text_anywhere_changes_what_a_comment_is_made_of(texts, log, outcome):
    shown = markdown.render(report_of(texts, tuple(log), outcome), place=PLACE)
    assert check_harmless(shown).shape() == PLAIN[outcome]


@settings(max_examples=100, deadline=None)
@given(path=HOSTILE)
def test_no_path_that_a_disk_can_hold_changes_it_either(path):
    report = report_of(["x"] * COUNT, ("x",))
    bad = report.checkpoints[0].model_copy(update={"path": f"t{path}", "uri": f"t{path}"})
    hostile = report.model_copy(
        update={"script": f"t{path}", "args": (path, path), "branch": path, "name": path, "dirty": (path,),
                "resumed_from": path, "checkpoints": (bad, *report.checkpoints[1:])}
    )  # fmt: skip
    shown = markdown.render(hostile, place=PLACE)
    shown.encode()
    assert check_harmless(shown).shape() == PLAIN["failed"]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(HOSTILE_JSON.map(lambda text: text * 20), min_size=COUNT, max_size=COUNT),
    limit=st.integers(4_000, 60_000),
)
def test_a_comment_is_never_longer_than_it_may_be_and_whole_where_it_is_cut(texts, limit):
    shown = markdown.render(report_of(texts, tuple(texts)), place=PLACE, limit=limit)
    assert len(shown) <= limit
    check_harmless(shown)


def test_no_name_and_no_output_that_an_attacker_would_write_changes_it():
    # Longer ones leave no room for others: that they are cut is shown above.
    for said in [said for said in (*NAMES.values(), *OUTPUT.values()) if len(said) < 300]:
        text = said.encode("utf-8", "replace").decode()
        shown = markdown.render(report_of([text] * COUNT, (text, said)), place=PLACE)
        assert check_harmless(shown).shape() == PLAIN["failed"]


def test_whatever_a_report_says_its_comment_has_one_marker_and_that_is_ours():
    """In what people read there is none: a forged one is text, in the log too."""
    key = marker.key(workflow="Train", job="train", leg="", name="train")
    stamp = marker.stamp(requested_at=AT, run_id="train-0123456789ab", attempt=1, is_final=True)
    for forged in MARKERS:
        report = report_of([forged] * COUNT, (forged, forged))
        # At the beginning of all, too: where a text is the first thing that is said.
        report = report.model_copy(update={"script": forged, "message": forged, "log_tail": (forged,)})
        body = markdown.render(report, place=PLACE)
        assert check_harmless(body).comments == 0
        posted = marker.write(key, stamp) + body
        assert page(posted).comments == 1
        assert marker.read(posted, key) == stamp
        for other in (body, posted):
            assert marker.read(other, "0" * 32) is None


def test_a_log_of_any_output_stays_in_its_fence():
    for said in OUTPUT.values():
        shown = markdown.render(report_of(["x"] * COUNT, (*said.split("\n"), "`" * 9, said)), place=PLACE)
        assert check_harmless(shown).shape() == PLAIN["failed"]
