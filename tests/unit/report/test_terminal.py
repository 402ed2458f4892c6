from __future__ import annotations

import io
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runctl_action.contract.reports import Receipt
from runctl_action.report import terminal
from runctl_action.report.receipt import Rate, Stay, receipt

NOW = datetime(2026, 3, 2, 10, 5, tzinfo=UTC)


class Terminal(io.StringIO):
    """What a program sees as a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def plain():
    stream, clock = io.StringIO(), Clock()
    return terminal.PlainProgress(stream, clock), stream, clock


def test_elsewhere_than_at_a_terminal_a_phase_is_one_line_with_the_seconds_so_far():
    progress, stream, clock = plain()
    clock.now += 12.34
    progress.phase("installing", "torch")
    progress.phase("installing", "torch")
    progress.phase("installing", "numpy")
    progress.phase("training")
    assert stream.getvalue() == ("[  12.3s] installing · torch\n[  12.3s] installing · numpy\n[  12.3s] training\n")


def test_the_log_is_printed_line_by_line_as_it_is_however_it_arrives():
    progress, stream, _ = plain()
    for piece in ("epo", "ch 1\nepoch", " 2\n", "\n  indented\tand\ttabbed\nno end"):
        progress.output(piece)
    assert stream.getvalue() == "epoch 1\nepoch 2\n\n  indented\tand\ttabbed\n"
    progress.finish()
    assert stream.getvalue().endswith("tabbed\nno end\n")


def test_of_a_progress_bar_only_its_last_state_is_printed():
    progress, stream, _ = plain()
    for percent in range(101):
        progress.output(f"\r{percent}%")
    progress.output("\r\n")
    progress.output("a\r")
    progress.output("b\nc\r\n")
    progress.output("d\r\r")
    progress.output("\n")
    assert stream.getvalue() == "100%\nb\nc\nd\n"


def test_a_warning_does_not_split_a_line_of_the_log():
    progress, stream, _ = plain()
    progress.output("half of ")
    progress.warn("spot was refused")
    progress.output("a line\n")
    assert stream.getvalue() == "[   0.0s] WARNING: spot was refused\nhalf of a line\n"


def test_a_phase_begins_after_what_the_last_one_wrote():
    progress, stream, _ = plain()
    progress.output("installed")
    progress.phase("training")
    assert stream.getvalue() == "installed\n[   0.0s] training\n"


def test_a_line_without_end_is_shown_in_pieces_rather_than_kept():
    progress, stream, _ = plain()
    progress.output("x" * 200_000)
    assert len(stream.getvalue()) > 100_000


@given(st.lists(st.text(st.characters(exclude_categories=[]))), st.text())
def test_whatever_is_printed_nothing_plays_with_the_terminal(pieces, message):
    progress, stream, _ = plain()
    for piece in pieces:
        progress.output(piece)
    progress.note(message)
    progress.warn(message)
    progress.phase("training", message)
    progress.finish()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", stream.getvalue())
    stream.getvalue().encode()


def test_a_stream_that_cannot_write_a_character_gets_an_escape_instead():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    progress = terminal.progress_for(stream, {})
    progress.output("ü\n")
    progress.phase("booting", "i-1")
    assert raw.getvalue().startswith(b"\\xfc\n[")


def test_a_terminal_gets_a_live_line_and_every_phase_that_ended():
    stream = Terminal()
    progress = terminal.progress_for(stream, {"TERM": "xterm-256color"})
    assert isinstance(progress, terminal.LiveProgress)
    progress.phase("installing", "[red]torch[/red]")
    progress.output("Collecting \x1b[31mtorch\x1b[0m\nhalf")
    progress.warn("spot was refused")
    progress.phase("training")
    progress.finish()
    shown = stream.getvalue()
    assert "Collecting torch" in shown
    assert "✓ installing" in shown
    assert "[red]torch[/red]" in shown
    assert "✓ training" in shown
    assert "\x1b[1;33mWARNING: spot was refused" in shown
    assert "\x1b[31m" not in shown
    assert shown.index("Collecting") < shown.index("✓ installing") < shown.index("✓ training")


def test_no_color_takes_the_colours_of_a_terminal_away():
    stream = Terminal()
    progress = terminal.progress_for(stream, {"TERM": "xterm-256color", "NO_COLOR": "1"})
    progress.warn("spot was refused")
    progress.phase("training")
    progress.finish()
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", stream.getvalue())


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {}])
def test_a_terminal_that_shows_only_lines_gets_lines(environ):
    assert isinstance(terminal.progress_for(Terminal(), environ), terminal.PlainProgress)


def test_rich_is_imported_only_for_terminals():
    code = (
        "import sys, io; from runctl_action.report import terminal\n"
        "p = terminal.progress_for(io.StringIO(), {'TERM': 'xterm'}); p.phase('training'); p.finish()\n"
        "sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def report_text(report):
    stream = io.StringIO()
    terminal.print_report(report, stream)
    return stream.getvalue()


def test_the_report_shows_what_was_trained_where_and_what_is_left(make_report):
    shown = report_text(make_report(warnings=("spot was refused",)))
    for part in (
        "✓ examples/digits/train.py succeeded in 41 s on t3.medium (spot)",
        "exit code   0: success",
        "4b825dc642cb6eb9a060e54bf8d69288fbee4904 (main)",
        "9c1f7d4a3c0e8b2d5f6a7b8c9d0e1f2a3b4c5d6e",
        f"42 files, 1.2 MB, digest {'d' * 64}",
        "i-0abc123def4567890 · t3.medium · us-east-1a · spot",
        "booting 11 s",
        "checkpoints/epoch-5.npz · 52.3 kB · sha256 a1a1a1a1a1a1 · s3://",
        "epoch=5  loss=0.5",
        "spot was refused",
        "aws s3 cp s3://",
    ):
        assert part in shown, part
    assert "Traceback" not in shown


def test_a_cost_that_is_not_known_is_called_unknown(make_report):
    assert "cost        unknown" in report_text(make_report())
    without_total = Receipt(as_of=NOW)
    assert "cost        unknown, at list prices of 2026-03-02" in report_text(make_report(receipt=without_total))


def receipt_of(*stays):
    return receipt([Stay(**STAY | changes) for changes in stays], NOW)


STAY = {
    "attempt": 1, "instance_type": "g5.xlarge", "zone": "us-east-1a", "market": "spot", "is_reclaimed": False,
    "began_at": NOW - timedelta(hours=1), "ended_at": NOW, "on_demand": Rate(Decimal("1.006"), "AWS Price List"),
    "spot": ((NOW - timedelta(hours=5), Decimal("0.412")),), "spot_source": "DescribeSpotPriceHistory",
    "volume_gib": 50, "has_public_ipv4": True, "gp3": Rate(Decimal("0.08"), "AWS Price List"),
    "ipv4": Rate(Decimal("0.005"), "AWS Price List"), "training_seconds": 2700.0,
}  # fmt: skip


def test_a_receipt_is_shown_line_by_line(make_report):
    shown = report_text(make_report(receipt=receipt_of({})))
    # 0.412 + 50 / 730 × 0.08 + 0.005 = 0.4225 and 1.006 + 0.0105 = 1.0165; a quarter of the hour was not training
    assert [line.strip() for line in shown.partition("  cost ")[2].partition("  checkpoint")[0].splitlines()] == [
        "0.4225 USD, at list prices of 2026-03-02 10:05 UTC; on-demand it would have been 1.0165 USD: 58 % less",
        "g5.xlarge, spot, us-east-1a: 3600 s × 0.412 per h = 0.4120 USD (DescribeSpotPriceHistory)",
        "gp3 volume, 50 GiB: 0.06849 GB-month × 0.08 per GB-month = 0.0055 USD (AWS Price List)",
        "public IPv4 address: 3600 s × 0.005 per h = 0.0050 USD (AWS Price List)",
        "0.1056 USD of the total went for 15 min 0 s not spent training (boot, installation, repeated work)",
        f"not included: {'; '.join(receipt_of({}).not_included)}",
    ]


def test_a_receipt_without_a_price_is_unknown_and_says_why(make_report):
    shown = report_text(make_report(receipt=receipt_of({}, {"attempt": 2, "spot": ()}), attempts=2))
    assert "cost        unknown, at list prices of" in shown
    assert "attempt 1: g5.xlarge, spot, us-east-1a: 3600 s × 0.412 per h" in shown
    assert "No price could be had for attempt 2: g5.xlarge, spot, us-east-1a" in shown


def test_a_receipt_of_a_run_that_goes_on_is_so_far(make_report):
    going = receipt_of({"ended_at": None, "training_seconds": None})
    assert "cost        0.4225 USD so far, at list" in report_text(make_report(outcome=None, receipt=going))


def test_a_failure_shows_the_end_of_the_log_and_what_to_do_next(make_report):
    tail = tuple(f"line {n}" for n in range(60))
    shown = report_text(make_report(outcome="failed", cause="exit", exit_code=3, message="it broke", log_tail=tail))
    assert "✗ examples/digits/train.py exited with code 3" in shown
    assert "message     it broke" in shown
    assert "│ line 59" in shown
    assert "│ line 39" not in shown
    assert shown.rstrip().endswith("runctl-action logs train-0123456789ab")


def test_a_run_that_goes_on_has_no_outcome_yet(make_report):
    shown = report_text(make_report(outcome=None, exit_code=None, ended_at=None, phase="booting"))
    assert "… examples/digits/train.py is running: booting" in shown
    assert "none yet" in shown


def test_a_hostile_report_does_not_play_with_the_terminal(make_report):
    evil = "\x1b]0;owned\x07\x9b31m\r\n\udcff"
    report = make_report(
        outcome="failed", cause="exit", script=evil, message=evil, branch=evil, warnings=(evil,), log_tail=(evil,),
        metrics=({evil: evil},),
    )  # fmt: skip
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", report_text(report))


def test_runs_are_listed_one_a_line(make_report):
    stream = io.StringIO()
    running = make_report(outcome=None, phase="training", branch=None, requested_at=NOW - timedelta(hours=3))
    failed = make_report(outcome="failed", cause="out-of-memory")
    terminal.print_runs([running, failed], stream, NOW)
    header, first, second = stream.getvalue().splitlines()
    assert header.split() == ["RUN", "STATE", "AGE", "COST", "SCRIPT", "BRANCH"]
    assert re.split(r"  +", first) == ["train-0123456789ab", "training", "3 h", "-", "examples/digits/train.py", "-"]
    assert re.split(r"  +", second)[1:3] == ["failed (out-of-memory)", "5 min"]


def test_what_each_run_cost_is_listed_so_far_or_in_the_end(make_report):
    stream = io.StringIO()
    going_on = make_report(outcome=None, receipt=receipt_of({"ended_at": None}))
    over, unknown = make_report(receipt=receipt_of({})), make_report(receipt=receipt_of({"spot": (), "gp3": None}))
    terminal.print_runs([going_on, over, unknown], stream, NOW)
    costs = [re.split(r"  +", line)[3] for line in stream.getvalue().splitlines()[1:]]
    assert re.fullmatch(r"\d+\.\d+ USD so far", costs[0])
    assert re.fullmatch(r"\d+\.\d+ USD", costs[1])
    assert costs[2] == "unknown" or costs[2].startswith("at least")


def test_no_runs_is_said(make_report):
    stream = io.StringIO()
    terminal.print_runs([], stream, NOW)
    assert stream.getvalue().startswith("no runs yet")
