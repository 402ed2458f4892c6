from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from runctl_action.contract.reports import Receipt, Report, ReportedInstance, Synced
from runctl_action.github.annotations import Location, find_traceback, of_report

NOW = datetime(2026, 3, 2, 10, 5, tzinfo=UTC)
TRACKED = {"train.py", "src/model.py"}
ROOT = "/var/lib/runctl/runs/train-0123456789ab/1/source"
TRACEBACK = f"""epoch 1
Traceback (most recent call last):
  File "{ROOT}/train.py", line 12, in <module>
    main()
    ~~~~^^
  File "{ROOT}/src/model.py", line 40, in forward
    return torch.matmul(a, b)
  File "/var/lib/runctl/runs/train-0123456789ab/1/environment/lib/python3.11/site-packages/torch/train.py", line 9, in matmul
    raise RuntimeError(message)
RuntimeError: shapes do not fit: 3 and 4
"""


def report(**changes):
    values = {
        "run_id": "train-0123456789ab",
        "outcome": "failed",
        "cause": "exit",
        "exit_code": 1,
        "repository": "octo/digits",
        "name": "train",
        "commit": "a" * 40,
        "tree": "b" * 40,
        "script": "train.py",
        "manifest": Synced(digest="d" * 64, files=42, bytes=1_234_567),
        "instances": (ReportedInstance(id="i-1", type="t3.medium", zone="us-east-1a", market="spot"),),
        "log_tail": tuple(TRACEBACK.splitlines()),
        "requested_at": NOW,
        "ended_at": NOW + timedelta(seconds=41),
    }
    return Report(**(values | changes))


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (TRACEBACK, Location("src/model.py", 40, "RuntimeError: shapes do not fit: 3 and 4")),
        ("", None),
        ("no traceback\nKeyError: 1", None),
        ('  File "train.py", line 3\n    if x\n        ^\nSyntaxError: invalid syntax', Location("train.py", 3, "SyntaxError: invalid syntax")),
        ('  File "./src/../train.py", line 3, in f', Location("train.py", 3)),
        ('Traceback (most recent call last):\n  File "/usr/lib/python3.11/runpy.py", line 3, in f\nValueError', None),
        (f'  File "{ROOT}/../source/secret.py", line 1, in f\nValueError: x', None),
        (f'  File "{ROOT}/train.py", line 99999999999, in f\nValueError: x', None),
        (f'  | Traceback (most recent call last):\n  |   File "{ROOT}/train.py", line 2, in f\n  | ValueError: x', Location("train.py", 2)),
        (f'\x1b[31m  File "{ROOT}/train.py", line 5, in f\x1b[0m\n\x1b[1mkeras.Error: x\x1b[0m', Location("train.py", 5, "keras.Error: x")),
    ],
)  # fmt: skip
def test_a_traceback_leads_to_its_innermost_line_in_a_tracked_file(log, found):
    assert find_traceback(log.splitlines(), TRACKED) == found


def test_of_several_tracebacks_the_last_one_counts():
    second = f'Traceback (most recent call last):\n  File "{ROOT}/train.py", line 14, in <module>\nOSError: disk full'
    log = f"{TRACEBACK}\nDuring handling of the above exception, another exception occurred:\n\n{second}"
    assert find_traceback(log.splitlines(), TRACKED) == Location("train.py", 14, "OSError: disk full")


def test_a_failure_is_an_error_beside_the_line_that_raised():
    annotation = of_report(report(), TRACKED)
    assert (annotation.level, annotation.path, annotation.line) == ("error", "src/model.py", 40)
    assert annotation.title == "runctl-action: failed (exit)"
    first, raised, hint = annotation.message.splitlines()
    assert first == "train.py exited with code 1 after 41 s on t3.medium (spot)."
    assert raised == "RuntimeError: shapes do not fit: 3 and 4"
    assert hint.startswith("→ read the end of the log")


def test_a_success_is_a_notice_with_its_cost():
    receipt = Receipt(total_usd=Decimal("0.00071"), as_of=NOW)
    annotation = of_report(report(outcome="succeeded", cause=None, exit_code=0, receipt=receipt))
    assert (annotation.level, annotation.path) == ("notice", "")
    assert annotation.message == "train.py succeeded in 41 s on t3.medium (spot). Cost: 0.000710 USD."


def test_a_cancelled_run_is_a_warning_and_only_a_training_that_exited_has_a_line():
    assert of_report(report(outcome="cancelled", cause="stopped"), TRACKED).level == "warning"
    assert of_report(report(outcome="timed-out", cause="hung"), TRACKED).path == ""
    assert of_report(report(outcome=None, cause=None), TRACKED).level == "notice"


def test_a_hostile_message_is_one_line_of_the_annotation():
    annotation = of_report(report(cause="cloud", message="first\nsecond\r::error::x"), TRACKED)
    assert annotation.message.splitlines()[1] == r"first\nsecond\r::error::x"
