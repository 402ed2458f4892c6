from __future__ import annotations

from pathlib import Path

from runctl_action.host.metrics import read_metrics


def test_rows_that_cannot_be_passed_on_are_counted_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"a": 1}\n{"a": "\\ud800"}\nnot json\n[1]\n{"a": NaN}\n')
    rows, warnings = read_metrics(tmp_path, ("metrics.jsonl",))
    assert rows == ({"a": 1}, {"a": "nan"})
    assert warnings == ["metrics.jsonl: 3 lines are not JSON objects and were left out"]


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"a": 1}\n')
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "elsewhere")
    assert read_metrics(tmp_path, ("metrics.jsonl",)) == ((), [])


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {n}}}\n' for n in range(100_000)))
    rows, warnings = read_metrics(tmp_path, ("*.jsonl",))
    assert (len(rows), rows[-1], warnings) == (2000, {"step": 99_999}, [])
