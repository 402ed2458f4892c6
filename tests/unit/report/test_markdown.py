"""The Markdown is read back with a CommonMark parser: what it sees is what GitHub begins with.

`RUNCTL_UPDATE_GOLDEN=1 pytest tests/unit/report/test_markdown.py` writes the golden files anew, to be read in the diff.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from runctl_action.contract.reports import Receipt, ReceiptLine, ReportedCheckpoint, ReportedInstance, ReportedOffer
from runctl_action.report import markdown
from runctl_action.report.receipt import Rate, Stay, receipt

# Read when imported: the tests' own environment is cleared of our variables.
UPDATE = bool(os.environ.get("RUNCTL_UPDATE_GOLDEN"))
GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 3, 2, 10, 5, tzinfo=UTC)
EVIL = "|<img src=x onerror=alert(1)>@org"
OUR_TAGS = {"<code>", "</code>", "<details>", "</details>", "<summary>", "</summary>"}
TRACEBACK = (
    "epoch 1 loss 2.50",
    "Traceback (most recent call last):",
    '  File "examples/digits/train.py", line 42, in <module>',
    "    main()",
    "ValueError: shapes (64,10) and (9,) not aligned",
)
START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
LIST = "AWS Price List"


def stay(begins=0, lasts=None, **changes):
    """A g5.xlarge whose spot price rises after an hour; `lasts` seconds, None: it goes on."""
    at = START + timedelta(seconds=begins)
    values = {
        "attempt": 1,
        "instance_type": "g5.xlarge",
        "zone": "us-east-1a",
        "market": "spot",
        "began_at": at,
        "ended_at": None if lasts is None else at + timedelta(seconds=lasts),
        "is_reclaimed": False,
        "on_demand": Rate(Decimal("1.0060000000"), LIST),
        "spot": ((at - timedelta(hours=2), Decimal("0.4120")), (at + timedelta(hours=1), Decimal("0.4310"))),
        "spot_source": "DescribeSpotPriceHistory",
        "volume_gib": 50,
        "has_public_ipv4": True,
        "gp3": Rate(Decimal("0.0800000000"), LIST),
        "ipv4": Rate(Decimal("0.0050000000"), LIST),
        "training_seconds": None if lasts is None else max(0.0, lasts - 75.5),
    }
    return Stay(**(values | changes))


def receipt_cases(make_report):
    def report(*stays, **changes):
        instances = [ReportedInstance(id="i-0fff", type=s.instance_type, zone=s.zone, market=s.market) for s in stays]
        last = max(s.ended_at or NOW for s in stays)
        values = {"attempts": len(stays), "instances": tuple(instances), "ended_at": last}
        return make_report(receipt=receipt(stays, max(last, NOW)), **(values | changes))

    reclaimed = stay(0, 1500, is_reclaimed=True)
    return {
        "receipt-spot-with-saving": report(stay(0, 3 * 3600)),
        "receipt-fallback-to-on-demand": report(
            stay(0, 1234, market="on-demand"), warnings=("attempt 1 runs ON-DEMAND: spot was refused",)
        ),
        "receipt-reclaimed-in-the-first-hour": report(reclaimed, stay(1600, 900, attempt=2, zone="us-east-1b")),
        "receipt-unknown-price": report(stay(0, 1234, spot=()), stay(1300, 600, attempt=2, gp3=None)),
        "receipt-so-far": report(
            stay(), outcome=None, exit_code=None, phase="training", ended_at=None, metrics=(), checkpoints=()
        ),
    }


SPOT = receipt([stay(0, 39, instance_type="t3.medium", spot=((START, Decimal("0.0152")),), volume_gib=8,
                     on_demand=Rate(Decimal("0.0416"), LIST), training_seconds=24.5)], NOW)  # fmt: skip


def golden_cases(make_report):
    on_demand = ReportedInstance(id="i-0fff", type="g5.xlarge", zone="us-east-1b", market="on-demand")
    suspect = ReportedCheckpoint(
        path="checkpoints/last.pt", bytes=7 * 10**9, sha256="b2" * 32, uri="s3://b/k", suspect=True
    )
    failed = {"outcome": "failed", "metrics": ()}
    return receipt_cases(make_report) | {
        "success": make_report(receipt=SPOT),
        "exit-1-with-traceback": make_report(
            **failed, cause="exit", exit_code=1, log_tail=TRACEBACK, dirty=("notes.md",), checkpoints=()
        ),
        "out-of-memory": make_report(
            **failed,
            cause="out-of-memory",
            exit_code=None,
            signal=9,
            message="the kernel killed process 4242 (python), which used 3.6 GB of 3.8 GB",
            log_tail=("epoch 1", "epoch 2"),
            checkpoints=(suspect,),
            instances=(*make_report().instances, on_demand),
            attempts=2,
            warnings=(
                "attempt 1 interrupted: AWS reclaimed the spot instance",
                "attempt 2 runs ON-DEMAND: spot was refused (InsufficientInstanceCapacity)",
            ),
        ),
        "install-failure": make_report(
            **failed,
            cause="install",
            exit_code=None,
            message="`uv pip install -r requirements.txt` exited with 1",
            phases={"booting": 11.0, "syncing": 1.2, "installing": 3.4},
            log_tail=("  × No solution found when resolving dependencies:", "  ╰─▶ torch==99 does not exist"),
            checkpoints=(),
        ),
        "cancelled": make_report(
            outcome="cancelled", cause="stopped", exit_code=None, signal=15, message="stopped by ada/4242", metrics=()
        ),
        "running": make_report(
            outcome=None, exit_code=None, phase="training", ended_at=None, metrics=(), checkpoints=()
        ),
        "hostile-names": make_report(
            outcome="failed",
            cause="exit",
            exit_code=137,
            name="#1 @everyone",
            script=f"{EVIL}/`rm`.py",
            args=("$(reboot)", "``` @org", "\n# heading\n", "\udcff"),
            branch="fix-#12-@org|x",
            message="see https://evil.example/?a=b and www.evil.example, GH-7, org/repo#9, a@b.example :tada: $x$ ~~no~~",
            warnings=(f"{EVIL}", "[click](javascript:alert(1)) **bold** _it_", "</td></tr></table><!-- marker -->"),
            log_tail=("```", "````` </details>", "@org <script>alert(1)</script>", "\x1b[31mred\x1b[0m\x07"),
            checkpoints=(
                ReportedCheckpoint(path=f"{EVIL}\n|\\|`.pt", bytes=1, sha256="c3" * 32, uri="s3://b/`@org`|'\"", suspect=False),
            ),
            metrics=({'"] --> x': 1.0, "@org": "<b>", "```": 2}, {'"] --> x': 1e-7, "```": -3e9}),
        ),
    }  # fmt: skip


CASES = [
    "success", "exit-1-with-traceback", "out-of-memory", "install-failure", "cancelled", "running", "hostile-names",
    "receipt-spot-with-saving", "receipt-fallback-to-on-demand", "receipt-reclaimed-in-the-first-hour",
    "receipt-unknown-price", "receipt-so-far",
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_report_is_the_golden_one(make_report, name):
    path = GOLDEN / f"{name}.md"
    shown = markdown.render(golden_cases(make_report)[name], now=NOW)
    if UPDATE:
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_every_golden_report_is_harmless(make_report, name):
    check_harmless(markdown.render(golden_cases(make_report)[name], now=NOW))


def test_every_golden_file_is_of_a_case():
    assert {path.stem for path in GOLDEN.glob("*.md")} == set(CASES)


ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=200) | st.text(
    st.sampled_from(list("@#`~|<>[]()!*_\\&:/.-+=\n\r\t $'\"a1www")), max_size=60
)
JSON_TEXT = ANY_TEXT.map(lambda text: text.encode("utf-8", "replace").decode())
METRIC = st.none() | st.booleans() | st.integers() | st.floats() | JSON_TEXT | st.lists(JSON_TEXT, max_size=2)


@settings(max_examples=150, deadline=None)
@given(
    path=ANY_TEXT,
    text=JSON_TEXT,
    log=st.lists(JSON_TEXT, max_size=8),
    metrics=st.lists(st.dictionaries(JSON_TEXT, METRIC, max_size=4), max_size=4),
)
def test_no_text_anywhere_becomes_markup_a_mention_or_too_long(make_report, path, text, log, metrics):
    checkpoint = ReportedCheckpoint(path=path, bytes=1, sha256="c3" * 32, uri=f"s3://b/{text}")
    report = make_report(
        outcome="failed", cause="exit", exit_code=1, script=path, args=(path, text), name=text, branch=text, message=text,
        hint=text, dirty=(text,), warnings=(text, text), log_tail=tuple(log), metrics=tuple(metrics), run_id=text,
        tree=text, commit=text, checkpoints=(checkpoint,), phases={text: 1.0, "training": 2.0},
    )  # fmt: skip
    check_harmless(markdown.render(report, now=NOW))


def check_harmless(shown: str) -> None:
    """Nothing but our own tags, no mention, reference or link in rendered text, tables whole, and short enough."""
    assert len(shown) <= markdown.LIMIT
    shown.encode()
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(shown)
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert set(headings[1:]) <= {"Phases", "Receipt", "Checkpoints", "Metrics"}
    assert not {t.type for t in tokens} & {"ordered_list_open", "hr", "code_block"}
    for token in tokens:
        if token.type == "html_block":
            assert set(re.findall(r"<[^>]*>", token.content)) <= OUR_TAGS
        for child in token.children or ():
            assert child.type in {"text", "softbreak", "html_inline", "strong_open", "strong_close", "em_open", "em_close",
                                  "code_inline", "text_special"}, child  # fmt: skip
            if child.type == "html_inline":
                assert child.content in OUR_TAGS
        said = "".join(c.content for c in token.children or () if c.type in {"text", "text_special"})
        assert not re.search(r"@[^\u200b]|#[0-9]|GH-[0-9]|(https?|ftp)://|www\.", said), said
    rows = [[len(row) for row in table] for table in tables(tokens)]
    assert all(len(set(widths)) == 1 for widths in rows)
    assert shown.count("<details>\n") >= 1


def tables(tokens):
    found = []
    for token in tokens:
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in {"td_open", "th_open"}:
            found[-1][-1].append(token)
    return found


def test_a_log_that_closes_fences_stays_in_its_fence(make_report):
    tail = ("```", "``````", "# not a heading", "</details>")
    shown = markdown.render(make_report(outcome="failed", cause="exit", exit_code=1, log_tail=tail))
    fences = [token for token in MarkdownIt("commonmark").parse(shown) if token.type == "fence"]
    assert "\n".join(tail) + "\n" in [fence.content for fence in fences]


def test_a_success_has_no_log_and_a_failure_has_the_last_60_lines(make_report):
    tail = tuple(f"line-{n}-" for n in range(100))
    assert "line-99-" not in markdown.render(make_report(log_tail=tail))
    shown = markdown.render(make_report(outcome="failed", cause="exit", exit_code=1, log_tail=tail))
    assert "line-99-" in shown
    assert "line-40-" in shown
    assert "line-39-" not in shown


def test_a_report_that_is_too_long_is_cut_between_sections_and_says_so(make_report):
    metrics = tuple({"epoch": n, **{f"loss{k}": n / 3 for k in range(12)}} for n in range(200))
    whole = markdown.render(make_report(metrics=metrics))
    cut = markdown.render(make_report(metrics=metrics), limit=3_500)
    assert len(cut) <= 3_500 < len(whole)
    assert "_Cut for length: metrics. All of it:_ <code>runctl-action report train-0123456789ab</code>" in cut
    assert "#### Metrics" not in cut
    assert "How to reproduce" in cut
    check_harmless(cut)


def test_the_worst_of_everything_at_once_stays_under_githubs_limit(make_report):
    worst = "|" * 5_000
    checkpoint = ReportedCheckpoint(path=worst, bytes=1, sha256=worst, uri=worst, suspect=True)
    instance = ReportedInstance(id=worst, type=worst, zone=worst, market="spot")
    report = make_report(
        outcome="failed", cause="exit", exit_code=1, signal=9, run_id=worst, name=worst, script=worst, args=(worst,) * 20,
        branch=worst, message=worst, hint=worst, commit=worst, tree=worst, warnings=(worst,) * 50, log_tail=(worst,) * 60,
        instances=(instance,) * 9, checkpoints=(checkpoint,) * 90, metrics=({worst + str(n): worst for n in range(90)},) * 3,
    )  # fmt: skip
    shown = markdown.render(report)
    assert len(shown) <= markdown.LIMIT
    assert "_Cut for length:" in shown


def test_what_must_not_be_missed_comes_first(make_report):
    shown = markdown.render(
        make_report(
            warnings=("attempt 1 runs ON-DEMAND: spot was refused",), dirty=("a.py",), attempts=2, checkpoints=()
        )
    )
    alert = shown.partition("> [!WARNING]\n")[2].partition("\n\n")[0]
    for part in ("ON-DEMAND", "uncommitted changes", "2 attempts", "no checkpoint"):
        assert part in alert
    assert shown.index("[!WARNING]") < shown.index("| exit code |")


def test_a_clean_success_warns_of_nothing(make_report):
    assert "[!WARNING]" not in markdown.render(make_report())


def test_a_dirty_tree_is_said_once(make_report):
    said = ("uncommitted changes, not in the commit, so not trained: a.py",)
    assert markdown.render(make_report(dirty=("a.py",), warnings=said)).count("uncommitted changes") == 1


def test_a_cost_that_is_not_known_is_called_unknown_and_never_guessed(make_report):
    shown = markdown.render(make_report())
    assert "| cost | unknown |" in shown
    assert "USD" not in shown
    assert "Total **unknown**, at list prices" in markdown.render(make_report(receipt=Receipt(as_of=NOW)))


def test_a_total_without_the_price_of_a_disk_is_called_a_lower_bound(make_report):
    shown = markdown.render(make_report(receipt=receipt([stay(0, 3600, gp3=None)], NOW)))
    assert "Total **at least 0.4170 USD**" in shown
    assert "No price could be had for attempt 1: gp3 volume, 50 GiB." in shown
    assert "| cost | at least 0.4170 USD |" in shown


def test_the_saving_is_rounded_down_and_may_be_a_loss(make_report):
    def comparison(spot):
        cheap = stay(0, 3600, volume_gib=0, has_public_ipv4=False, spot=((START, Decimal(spot)),))
        shown = markdown.render(make_report(receipt=receipt([cheap], NOW)))
        return re.search(r"; (?:on-demand it would have been )?(.*)\.\n", shown.partition("Total **")[2])[1]

    assert comparison("0.0001") == "1.006000 USD: 99 % less"
    assert comparison("0.5") == "1.0060 USD: 50 % less"
    assert comparison("1.0059") == "1.01 USD: under 1 % less"
    assert comparison("1.006") == "nothing saved over on-demand"
    assert comparison("2.5") == "1.01 USD: 148 % more"


def test_a_receipt_of_a_run_that_goes_on_is_so_far_though_its_last_host_has_ended(make_report):
    ended = receipt([stay(0, 1000)], NOW)
    assert "** so far, at list prices" in markdown.render(make_report(outcome=None, receipt=ended))
    assert "so far" not in markdown.render(make_report(receipt=ended))


@settings(max_examples=60, deadline=None)
@given(text=JSON_TEXT)
def test_no_text_of_a_receipt_becomes_markup(make_report, text):
    line = ReceiptLine(item=text, quantity=Decimal(1), unit=text, unit_usd=Decimal("1E-9"), usd=Decimal(1), source=text)
    shown = Receipt(lines=(line,), unknown=(text, text), not_included=(text,), as_of=NOW)
    check_harmless(markdown.render(make_report(receipt=shown)))


def test_a_running_run_says_for_how_long_when_it_is_told_the_time(make_report):
    running = make_report(outcome=None, exit_code=None, phase="training", ended_at=None)
    assert "5 min 0 s so far" in markdown.render(running, now=NOW)
    assert "so far" not in markdown.render(running)


def test_a_checkpoints_age_is_as_of_now(make_report):
    assert "| 4 min |" in markdown.render(make_report(), now=NOW)
    assert "| 3 s |" in markdown.render(make_report())


def test_a_curve_is_over_the_column_that_counts_and_has_few_points(make_report):
    metrics = tuple({"epoch": n, "loss": 1 / (n + 1)} for n in range(1000))
    shown = markdown.render(make_report(metrics=metrics))
    chart = shown.partition("```mermaid\n")[2].partition("\n```")[0]
    assert 'x-axis "epoch" 0 --> 999' in chart
    assert shown.count("```mermaid") == 1
    values = re.search(r"line \[(.*)\]", chart)[1].split(", ")
    assert len(values) == 50
    assert values[0] == "1"
    assert values[-1] == "0.001"


def test_a_curve_has_no_exponents_and_no_values_that_are_not_numbers(make_report):
    odd = [1e-9, 123456789.0, float("nan"), float("inf"), True, None, "x", 10**400, -2.5]
    shown = markdown.render(make_report(metrics=tuple({"v": value} for value in odd)))
    chart = shown.partition("```mermaid\n")[2].partition("\n```")[0]
    assert "line [0.000000001, 123457000, -2.5]" in chart
    assert not re.search(r"\de[+-]?\d|nan|inf", chart)


def test_a_curve_that_is_flat_has_a_range(make_report):
    shown = markdown.render(make_report(metrics=({"v": 0}, {"v": 0})))
    assert 'y-axis "v" -1 --> 1' in shown


def test_commands_can_be_copied_as_they_are(make_report):
    report = make_report(outcome="interrupted", cause="spot-reclaimed", args=("--note", "it's @home"), name="big run")
    fences = [t.content for t in MarkdownIt("commonmark").parse(markdown.render(report)) if t.info == "sh"]
    train = "runctl-action train {}--name 'big run' examples/digits/train.py -- --note 'it'\"'\"'s @home'\n"
    assert fences[0].splitlines(keepends=True)[1] == train.format("")
    assert fences[1] == train.format("--again ")
    assert fences[2].startswith("aws s3 cp s3://bucket/")
    assert fences[3] == "runctl-action logs train-0123456789ab\n"


def test_the_commit_stays_a_bare_id_for_github_to_link_and_anything_else_does_not(make_report):
    assert "| commit | 4b825dc642cb6eb9a060e54bf8d69288fbee4904 (" in markdown.render(make_report())
    assert "| commit | <code>&#60;b&#62;</code> (" in markdown.render(make_report(commit="<b>"))


def test_a_checkpoint_age_is_unknown_without_a_time(make_report):
    checkpoint = ReportedCheckpoint(path="a", bytes=1, sha256="c3" * 32, uri="s3://b/a")
    assert "| unknown |" in markdown.render(make_report(checkpoints=(checkpoint,)), now=NOW + timedelta(days=1))


def test_offers_that_were_refused_are_listed_folded(make_report):
    offers = (
        ReportedOffer(
            attempt=1, market="spot", type="g5.xlarge", zone="us-east-1a", usd_per_hour=Decimal("0.4328"),
            error="InsufficientInstanceCapacity",
        ),
        ReportedOffer(attempt=1, market="on-demand", type="g5.xlarge", zone="us-east-1a", instance_id="i-1"),
    )  # fmt: skip
    text = markdown.render(make_report(offers=offers))
    assert "Offers asked for: 2, refused: 1" in text
    assert "| 1 | spot g5.xlarge us-east-1a | 0.4328 | InsufficientInstanceCapacity |" in text
    assert "| 1 | on-demand g5.xlarge us-east-1a | unknown | i-1 |" in text
    assert "Offers asked for" not in markdown.render(make_report(offers=offers[1:]))
