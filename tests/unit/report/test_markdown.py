"""Golden comments, and what a comment says when.

`RUNCTL_UPDATE_GOLDEN=1 pytest tests/unit/report/test_markdown.py` writes the golden files anew, to be read in the diff.
tests/contract/test_comment.py renders them as GitHub would, and looks for what must not be in them.
"""

from __future__ import annotations

import functools
import os
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from runctl_action.contract.reports import Receipt, ReportedCheckpoint, ReportedInstance, ReportedOffer, Synced
from runctl_action.report import markdown
from runctl_action.report.markdown import Place
from runctl_action.report.receipt import Rate, Stay, receipt

# Read when imported: the tests' own environment is cleared of our variables.
UPDATE = bool(os.environ.get("RUNCTL_UPDATE_GOLDEN"))
GOLDEN = Path(__file__).parent / "golden"
START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
NOW = datetime(2026, 3, 2, 10, 5, tzinfo=UTC)
LATER = START + timedelta(hours=3, minutes=12)
DIGEST = "2dc65e63ddaf268213f6f9bd8b9cb253bedcf775b9d61ea003b248afa97a69b5"
HEAD = "8f0e6d1c2b3a49586776f5e4d3c2b1a09f8e7d6c"
PULL_REQUEST = Place(
    server_url="https://github.com",
    head_commit=HEAD,
    workflow_url="https://github.com/example/digits/actions/runs/1234567890",
)
EVIL = "|<img src=x onerror=alert(1)>@org"
TRACEBACK = (
    "epoch 1 loss 2.50",
    "Traceback (most recent call last):",
    '  File "examples/digits/train.py", line 42, in <module>',
    "    main()",
    "ValueError: shapes (64,10) and (9,) not aligned",
)
LIST = "AWS Price List (us-east-1)"
A_CURVE = tuple(
    {"epoch": n, "loss": 2.31 / n**0.6, "accuracy": 0.985 - 0.87 / n, "lr": 0.001, "note": "ok"} for n in range(1, 31)
)


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
        "spot_source": "EC2 spot price history (us-east-1a)",
        "volume_gib": 50,
        "has_public_ipv4": True,
        "gp3": Rate(Decimal("0.0800000000"), LIST),
        "ipv4": Rate(Decimal("0.0050000000"), LIST),
        "training_seconds": None if lasts is None else max(0.0, lasts - 75.5),
    }
    return Stay(**(values | changes))


def checkpoint(epoch, at, **changes):
    path = f"checkpoints/epoch-{epoch:04}.pt"
    key = f"runctl/hosts/AROA1:i-0abc123def4567890/train-0123456789ab/1/checkpoints/a1/epoch-{epoch:04}.pt"
    values = {
        "path": path,
        "bytes": 94_371_840 + epoch,
        "sha256": f"{epoch:02x}e7d34c" * 8,
        "uri": f"s3://bucket/{key}",
    }
    return ReportedCheckpoint(**(values | {"modified_at": at} | changes))


def instance(number, market, zone="us-east-1a"):
    return ReportedInstance(id=f"i-0abc123def456789{number}", type="g5.xlarge", zone=zone, market=market)


def refused(zone, usd):
    return ReportedOffer(attempt=1, market="spot", type="g5.xlarge", zone=zone, usd_per_hour=Decimal(usd), error="InsufficientInstanceCapacity")  # fmt: skip


def golden_cases(make):
    make_report = functools.partial(make, manifest=Synced(digest=DIGEST, files=176, bytes=1_612_473))

    def long(*stays, **changes):
        """A training of hours on a g5.xlarge."""
        values = {
            "attempts": len(stays),
            "receipt": receipt(stays, LATER),
            "instances": tuple(instance(n, s.market, s.zone) for n, s in enumerate(stays)),
            "phases": {"preparing": 1.4, "launching": 2.1, "booting": 41.0, "syncing": 3.2, "installing": 96.0, "training": ((changes.get("ended_at") or LATER) - START).total_seconds() - 320, "collecting": 9.5},
            "metrics": A_CURVE,
            "checkpoints": tuple(checkpoint(n, START + timedelta(minutes=6 * n)) for n in (10, 20, 30)),
            "ended_at": LATER,
        }  # fmt: skip
        return make_report(**(values | changes))

    got = ReportedOffer(attempt=1, market="on-demand", type="g5.xlarge", zone="us-east-1a", usd_per_hour=Decimal("1.006"), instance_id="i-0abc123def4567890")  # fmt: skip
    small = stay(0, 39, instance_type="t3.medium", spot=((START, Decimal("0.0152")),), volume_gib=8,
                 on_demand=Rate(Decimal("0.0416"), LIST), training_seconds=24.5)  # fmt: skip
    failed = {"outcome": "failed", "metrics": ()}
    return {
        "success": long(stay(0, 11_400), pull_request=12),
        "exit-1-with-traceback": make_report(
            **failed,
            cause="exit",
            exit_code=1,
            log_tail=TRACEBACK,
            dirty=("notes.md",),
            warnings=("uncommitted changes, not in the commit, so not trained: notes.md",),
            checkpoints=(),
            receipt=receipt([small], NOW),
        ),
        "out-of-memory": long(
            stay(0, 4_000),
            outcome="failed",
            cause="out-of-memory",
            exit_code=None,
            signal=9,
            message="the kernel killed process 4242 (python), which used 15.1 GB of 15.4 GB",
            log_tail=("epoch 11/30: loss 0.5475, accuracy 0.9059", "loading shard 12 of 40"),
            metrics=A_CURVE[:11],
            checkpoints=(checkpoint(10, START + timedelta(hours=1)), checkpoint(11, START + timedelta(minutes=66), suspect=True)),
            ended_at=START + timedelta(seconds=4_010),
        ),
        "spot-fallback": long(
            stay(0, 11_400, market="on-demand"),
            offers=(refused("us-east-1a", "0.4120"), refused("us-east-1b", "0.4328"), got),
            warnings=(
                (
                    "attempt 1: ON-DEMAND instead of spot: 2 spot offers were refused (InsufficientInstanceCapacity); 1.0060 "
                    "USD/h instead of 0.4120, 2.4 times as much, up to 3.56 USD more for this run. `spot: require` refuses "
                    "instead of falling back"
                ),
            ),
        ),
        "resumed": long(
            stay(0, 3_100, is_reclaimed=True),
            stay(3_300, 8_100, attempt=2, zone="us-east-1b"),
            resumed_from="checkpoints/epoch-0010.pt",
            resumed_run="train-0123456789ab",
            warnings=("attempt 1 interrupted: AWS reclaimed the spot instance",),
        ),
        "budget": long(
            stay(0, 8_000),
            outcome="timed-out",
            cause="budget",
            exit_code=None,
            signal=15,
            message="1.00 USD would have been passed at 2026-03-02 12:14 UTC",
            metrics=A_CURVE[:21],
            checkpoints=tuple(checkpoint(n, START + timedelta(minutes=6 * n)) for n in (10, 20)),
            log_tail=("epoch 21/30: loss 0.3718, accuracy 0.9436",),
            ended_at=START + timedelta(seconds=8_010),
        ),
        "install-failure": make_report(
            **failed,
            cause="install",
            exit_code=None,
            message="`uv pip install -r requirements.txt` exited with 1",
            phases={"booting": 11.0, "syncing": 1.2, "installing": 3.4},
            log_tail=("  × No solution found when resolving dependencies:", "  ╰─▶ torch==99 does not exist"),
            checkpoints=(),
            receipt=receipt([small], NOW),
        ),
        "cancelled": make_report(
            outcome="cancelled", cause="stopped", exit_code=None, signal=15, message="stopped by ada/4242", metrics=(),
            receipt=receipt([small], NOW),
        ),
        "running": long(
            stay(), outcome=None, exit_code=None, phase="training", ended_at=None, metrics=A_CURVE[:4], checkpoints=(),
            phases={"preparing": 1.4, "launching": 2.1, "booting": 41.0, "syncing": 3.2, "installing": 96.0},
            receipt=receipt([stay()], NOW),
        ),
        "unknown-price": long(stay(0, 1234, spot=()), stay(1300, 600, attempt=2, gp3=None)),
        "hostile-names": make_report(
            outcome="failed",
            cause="exit",
            exit_code=137,
            name="#1 @everyone",
            script=f"{EVIL}/`rm`.py",
            args=("$(reboot)", "``` @org", "\n# heading\n", "\udcff"),
            branch="fix-#12-@org|x",
            message="see https://evil.example/?a=b and www.evil.example, GH-7, org/repo#9, a@b.example :tada: $x$ ~~no~~ 4b825dc",
            warnings=(f"{EVIL}", "[click](javascript:alert(1)) **bold** _it_", "</td></tr></table><!-- marker -->"),
            log_tail=("```", "````` </details>", "@org <script>alert(1)</script>", "\x1b[31mred\x1b[0m\x07", "10%\r55%\r\u202e100%\x00"),
            checkpoints=(
                ReportedCheckpoint(path=f"{EVIL}\n|\\|`.pt", bytes=1, sha256="c3" * 32, uri="s3://b/`@org`|'\"", suspect=False),
            ),
            metrics=({'"] --> x': 1.0, "@org": "<b>", "```": 2, "%%{init: {}}%%": 1}, {'"] --> x': 1e-7, "```": -3e9, "%%{init: {}}%%": 2}),
        ),
    }  # fmt: skip


CASES = [
    "success", "exit-1-with-traceback", "out-of-memory", "spot-fallback", "resumed", "budget", "install-failure",
    "cancelled", "running", "unknown-price", "hostile-names",
]  # fmt: skip
# Asked for by a hook or at a terminal: nothing is known of GitHub.
ELSEWHERE = {"cancelled", "running"}


@pytest.mark.parametrize("name", CASES)
def test_the_comment_is_the_golden_one(make_report, name):
    path = GOLDEN / f"{name}.md"
    report = golden_cases(make_report)[name]
    now = NOW if report.ended_at is None else LATER
    shown = markdown.render(report, now=now, place=Place() if name in ELSEWHERE else PULL_REQUEST)
    if UPDATE:
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")


def test_every_golden_file_is_of_a_case():
    assert {path.stem for path in GOLDEN.glob("*.md")} == set(CASES)


def test_a_success_has_no_log_and_a_failure_has_the_last_60_lines(make_report):
    tail = tuple(f"line-{n}-" for n in range(100))
    assert "line-99-" not in markdown.render(make_report(log_tail=tail))
    shown = markdown.render(make_report(outcome="failed", cause="signal", signal=11, exit_code=None, log_tail=tail))
    assert "line-99-" in shown
    assert "line-40-" in shown
    assert "line-39-" not in shown


def test_the_last_thing_that_a_failed_script_said_is_at_the_top(make_report):
    tail = (*TRACEBACK, "", "[runctl] uploading")
    top = markdown.render(make_report(outcome="failed", cause="exit", exit_code=1, log_tail=tail)).partition(
        "| exit code"
    )[0]
    assert "Its log ends with: <code>ValueError: shapes (64,10) and (9,) not aligned</code>" in top


def test_a_comment_that_is_too_long_is_cut_between_rows_and_sections_and_says_so(make_report):
    metrics = tuple({"epoch": n, **{f"loss{k}": n / (k + 3) for k in range(12)}} for n in range(200))
    many = tuple(checkpoint(n, START) for n in range(200))
    report = make_report(metrics=metrics, checkpoints=many)
    for limit in (4_000, 5_000, 6_000):
        cut = markdown.render(report, limit=limit, place=PULL_REQUEST)
        assert limit * 0.6 < len(cut) <= limit
        assert cut.rstrip().rpartition("\n")[2].startswith(("Shortened: ", "Left out: "))
        assert f"All of it: [the summary of the workflow run]({PULL_REQUEST.workflow_url})" in cut
        assert "<code>runctl-action report train-0123456789ab</code>" in cut
        assert "How to reproduce" in cut
    assert "Left out: " in markdown.render(report, limit=5_000)


def test_a_long_table_of_a_comment_is_shortened_and_the_summary_of_the_job_has_all_of_it(make_report):
    many = tuple(checkpoint(n, START) for n in range(50))
    shown = markdown.render(make_report(checkpoints=many))
    assert "epoch-0049.pt" in shown
    assert "epoch-0030.pt" in shown
    assert "epoch-0029.pt" not in shown
    assert "\nand 30 earlier\n" in shown
    assert "\nShortened: checkpoints. All of it: <code>" in shown
    full = markdown.render_summary(make_report(checkpoints=many))
    assert "epoch-0000.pt" in full
    assert "All of it" not in full


def test_a_summary_is_limited_in_bytes(make_report):
    tail = tuple("é" * 900 for _ in range(3_000))
    report = make_report(outcome="failed", cause="exit", exit_code=1, log_tail=tail)
    shown = markdown.render_summary(report, place=PULL_REQUEST)
    assert len(shown) < len(shown.encode()) <= markdown.SUMMARY_LIMIT < 2**20
    assert "Shortened: log. All of it: <code>runctl-action report" in shown
    assert markdown.render_summary(make_report()) == markdown.render(make_report())


def test_the_worst_of_everything_at_once_stays_under_githubs_limit(make_report):
    worst = "|" * 5_000
    bad = ReportedCheckpoint(path=worst, bytes=1, sha256=worst, uri=worst, suspect=True)
    where = ReportedInstance(id=worst, type=worst, zone=worst, market="spot")
    report = make_report(
        outcome="failed", cause="exit", exit_code=1, signal=9, run_id=worst, name=worst, script=worst, args=(worst,) * 20,
        branch=worst, message=worst, hint=worst, commit=worst, tree=worst, warnings=(worst,) * 50, log_tail=(worst,) * 60,
        instances=(where,) * 9, checkpoints=(bad,) * 90, metrics=({worst + str(n): worst for n in range(90)},) * 3,
    )  # fmt: skip
    assert len(markdown.render(report, limit=4_000)) <= 4_000
    shown = markdown.render(report)
    assert len(shown) <= markdown.LIMIT
    assert "Left out: " in shown or "Shortened: " in shown


def test_what_must_not_be_missed_comes_first(make_report):
    shown = markdown.render(
        make_report(warnings=("attempt 1: ON-DEMAND instead of spot: refused",), dirty=("a.py",), checkpoints=())
    )
    alert = shown.partition("> [!WARNING]\n")[2].partition("\n\n")[0]
    for part in ("<b>ON-DEMAND instead of spot</b>: refused", "uncommitted changes", "no checkpoint"):
        assert part in alert
    assert shown.index("[!WARNING]") < shown.index("| exit code |")


def test_a_fallback_that_nobody_warned_of_is_seen_in_the_offers(make_report):
    case = golden_cases(make_report)["spot-fallback"].model_copy(update={"warnings": ()})
    shown = markdown.render(case)
    told = "refused with InsufficientInstanceCapacity; 1.0060 USD/h instead of 0.4120, 2.4 times as much"
    assert f"<b>ON-DEMAND instead of spot</b>: {told}" in shown


def test_where_a_run_began_is_told_with_whose_checkpoint_it_was(make_report):
    values = {"resumed_from": "checkpoints/a.pt", "attempts": 2}
    shown = markdown.render(make_report(**values, resumed_run="train-0123456789ab"))
    assert "**Resumed**: attempt 2 began with <code>checkpoints/a.pt</code>\n" in shown
    shown = markdown.render(make_report(**values, resumed_run="other-1"))
    assert "began with <code>checkpoints/a.pt</code> of the run <code>other-1</code>" in shown
    assert "**Started again**: attempt 2 began from the beginning" in markdown.render(make_report(attempts=2))


def test_a_clean_success_warns_of_nothing(make_report):
    assert "> [!" not in markdown.render(make_report())


def test_a_dirty_tree_is_said_once(make_report):
    said = ("uncommitted changes, not in the commit, so not trained: a.py",)
    assert markdown.render(make_report(dirty=("a.py",), warnings=said)).count("uncommitted changes") == 1


def test_a_cost_that_is_not_known_is_called_unknown_and_never_guessed(make_report):
    shown = markdown.render(make_report())
    assert "(spot), cost unknown\n" in shown
    assert "USD" not in shown
    assert "| **total** | | | **unknown** | |" in markdown.render(make_report(receipt=Receipt(as_of=NOW)))


def test_a_total_without_the_price_of_a_disk_is_called_a_lower_bound(make_report):
    shown = markdown.render(make_report(receipt=receipt([stay(0, 3600, gp3=None)], NOW)))
    assert "| **at least 0.4170** |" in shown
    assert "No price could be had for attempt 1: gp3 volume, 50 GiB." in shown
    assert "(spot), for at least 0.4170 USD\n" in shown


def test_the_saving_is_rounded_down_and_may_be_a_loss(make_report):
    def comparison(spot):
        cheap = stay(0, 3600, volume_gib=0, has_public_ipv4=False, spot=((START, Decimal(spot)),))
        return re.search(
            r"\n(.*)\.\n", markdown.render(make_report(receipt=receipt([cheap], NOW))).partition("**total**")[2]
        )[1]

    assert comparison("0.0001") == "On-demand it would have been 1.006000 USD: 99 % less"
    assert comparison("1.006") == "Nothing saved over on-demand"
    assert comparison("2.5") == "On-demand it would have been 1.01 USD: 148 % more"


def test_a_receipt_of_a_run_that_goes_on_is_so_far_though_its_last_host_has_ended(make_report):
    ended = receipt([stay(0, 1000)], NOW)
    assert "| **total** so far |" in markdown.render(make_report(outcome=None, receipt=ended))
    assert "so far" not in markdown.render(make_report(receipt=ended))


def test_a_running_run_says_for_how_long_when_it_is_told_the_time(make_report):
    running = make_report(outcome=None, exit_code=None, phase="training", ended_at=None)
    assert "5 min 0 s so far" in markdown.render(running, now=NOW)
    assert "so far" not in markdown.render(running)
    assert "runctl-action stop train-0123456789ab" in markdown.render(running)


def test_a_checkpoints_age_is_as_of_now(make_report):
    assert "| 4 min |" in markdown.render(make_report(), now=NOW)
    assert "| 3 s |" in markdown.render(make_report())
    bare = ReportedCheckpoint(path="a", bytes=1, sha256="c3" * 32, uri="s3://b/a")
    assert "| unknown |" in markdown.render(make_report(checkpoints=(bare,)), now=NOW + timedelta(days=1))


@pytest.mark.parametrize(
    ("path", "step"),
    [("out/epoch-0005.pt", "epoch 5"), ("checkpoint-500", "checkpoint 500"), ("a/step-1000-loss.bin", "step 1000"),
     ("epoch=3-step=900.ckpt", "step 900"), ("last.pt", ""), ("model-v2.pt", "")],
)  # fmt: skip
def test_a_checkpoints_step_is_read_from_its_name(make_report, path, step):
    bare = ReportedCheckpoint(path=path, bytes=1, sha256="c3" * 32, uri="s3://b/a")
    assert f"| <code>{path}</code> | {step} | 1 byte |" in markdown.render(make_report(checkpoints=(bare,)))


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


def test_a_curve_over_uneven_steps_is_as_steep_as_it_was(make_report):
    shown = markdown.render(make_report(metrics=({"step": 0, "v": 0}, {"step": 90, "v": 90}, {"step": 98, "v": 98})))
    values = [float(value) for value in re.search(r"line \[(.*)\]", shown)[1].split(", ")]
    assert values == pytest.approx([2 * n for n in range(50)], abs=1e-3)


def test_a_curve_has_no_exponents_and_no_values_that_are_not_numbers(make_report):
    odd = [1e-9, 123456789.0, float("nan"), float("inf"), True, None, "x", 10**400, -2.5]
    shown = markdown.render(make_report(metrics=tuple({"epoch": 1, "v": value} for value in odd)))
    chart = shown.partition("```mermaid\n")[2].partition("\n```")[0]
    assert not re.search(r"\de[+-]?\d|nan|inf", chart)
    assert "line [0.000000001, " in chart
    assert chart.rstrip("]").endswith(", -2.5")


def test_a_column_that_never_changes_needs_no_curve(make_report):
    assert "mermaid" not in markdown.render(make_report(metrics=({"v": 0}, {"v": 0})))


def test_a_metric_that_is_not_in_the_last_row_is_shown_with_its_last_value(make_report):
    shown = markdown.render(make_report(metrics=({"loss": 3, "val": 1}, {"loss": 2, "val": 4}, {"loss": 1})))
    assert "| <code>val</code> | 4 | 1 | 4 |" in shown


def test_commands_can_be_copied_as_they_are(make_report):
    report = make_report(outcome="interrupted", cause="spot-reclaimed", args=("--note", "it's @home"), name="big run")
    fences = re.findall(r"```sh\n(.*?)\n```", markdown.render(report), re.DOTALL)
    train = "runctl-action train {}--name 'big run' examples/digits/train.py -- --note 'it'\"'\"'s @home'"
    assert fences[0].splitlines()[1] == train.format("")
    assert fences[1] == train.format("--again ")
    assert fences[2] == train.format("--resume train-0123456789ab ")
    assert fences[3].startswith("aws s3 cp s3://bucket/")
    assert fences[4] == "runctl-action logs train-0123456789ab"


def test_the_command_of_the_next_step_is_code(make_report):
    report = make_report(outcome="timed-out", cause="max-duration", exit_code=None)
    command = "runctl-action train --resume train-0123456789ab examples/digits/train.py -- --epochs 5"
    assert f"**Next:** raise <code>max-duration</code>, then: <code>{command}</code>\n" in markdown.render(report)


def test_the_commit_is_a_link_on_githubs_server_and_else_a_bare_id(make_report):
    commit = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    elsewhere = Place(server_url="https://github.example.com/")
    shown = markdown.render(make_report(), place=elsewhere)
    assert f"[<code>4b825dc642cb</code>](https://github.example.com/example/digits/commit/{commit})" in shown
    assert f"| commit | {commit} of <code>main</code> |" in markdown.render(make_report())
    assert "| commit | <code>&#60;b&#62;</code> of " in markdown.render(make_report(commit="<b>"), place=elsewhere)
    for hostile in ("example/digits)[x](javascript:alert(1)", "a/b/../..", "digits"):
        assert f"| commit | {commit} of" in markdown.render(make_report(repository=hostile), place=elsewhere)


def test_a_merge_commit_that_was_trained_is_told_beside_the_pull_requests_head(make_report):
    shown = markdown.render(make_report(), place=PULL_REQUEST)
    assert f"/commit/{HEAD}) of <code>main</code>, trained as its merge commit [<code>4b825dc642cb</code>](" in shown
    same = markdown.render(make_report(commit=HEAD), place=PULL_REQUEST)
    assert "merge commit" not in same


def test_offers_that_were_refused_are_listed_folded(make_report):
    offers = golden_cases(make_report)["spot-fallback"].offers
    text = markdown.render(make_report(offers=offers))
    assert "Offers asked for: 3, refused: 2" in text
    assert "| 1 | spot g5.xlarge us-east-1a | 0.4120 | InsufficientInstanceCapacity |" in text
    assert "| 1 | on-demand g5.xlarge us-east-1a | 1.0060 | <code>i-0abc123def4567890</code> |" in text
    assert "Offers asked for" not in markdown.render(make_report(offers=offers[2:]))


def test_a_log_shows_what_a_terminal_would(make_report):
    tail = ("\x1b[31mred\x1b[0m", "10%\r55%\r100%\r\n", "\u202ereversed", "nul\x00")
    shown = markdown.render(make_report(outcome="failed", cause="exit", exit_code=1, log_tail=tail))
    assert "```text\nred\n100%\n\\u202ereversed\nnul\\x00\n```" in shown


SECRET = "correct horse\nbattery staple\n42"


@pytest.mark.parametrize(
    "field", ["message", "hint", "script", "name", "branch", "args", "warnings", "log_tail", "dirty"]
)
def test_a_secret_is_nowhere_in_the_comment_nor_is_any_line_of_it(make_report, field):
    told = f"a correct horse b battery staple c {SECRET} d"
    value = told if field in {"message", "hint", "script", "name", "branch"} else (told,)
    shown = markdown.render(make_report(outcome="failed", cause="signal", signal=9, **{field: value}), secrets=[SECRET])
    assert "horse" not in shown
    assert "staple" not in shown
    assert "42" in shown, "what is too short to be a secret's line stays"


def test_a_secret_in_a_metric_a_path_or_between_colours_is_redacted(make_report):
    bad = ReportedCheckpoint(path="s3cret.pt", bytes=1, sha256="c3" * 32, uri="s3://b/s3cret.pt")
    report = make_report(
        outcome="failed", cause="exit", exit_code=1, checkpoints=(bad,), metrics=({"s3cret": "s3cret", "n": ["s3cret"]},),
        log_tail=("s3\x1b[31mcret\x1b[0m",), phases={"s3cret": 1.0},
    )  # fmt: skip
    assert "cret" not in markdown.render(report, secrets=["s3cret"])


@pytest.mark.parametrize(
    "token",
    ["AKIAIOSFODNN7EXAMPLE", "ASIA" + "Q" * 16, "ghp_" + "b7" * 18, "ghs_" + "Zz9_" * 9, "github_pat_" + "a1_" * 20,
     "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"],
)  # fmt: skip
def test_what_looks_like_a_key_or_a_token_is_redacted_whoevers_it_is(make_report, token):
    report = make_report(outcome="failed", cause="exit", exit_code=1, message=f"x{token}", log_tail=(f"key={token}",))
    shown = markdown.render(report)
    assert token[-12:] not in shown
    assert "key=" in shown


def test_a_word_of_the_contract_may_be_a_secret_and_nothing_breaks(make_report):
    assert markdown.render(make_report(), secrets=["succeeded", "spot", "done", "training"]).startswith("### ✅")
