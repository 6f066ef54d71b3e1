"""The benchmark report: its columns, ratios and errors."""

import csv

import pytest

from benchmarks import Row, median_ms
from benchmarks.__main__ import COLUMNS, write


def test_report_has_the_columns_and_the_ratio(tmp_path):
    path = tmp_path / "reports" / "benchmarks.csv"
    write([Row("a", 1.5, "ms", 6.0, "slow, obvious one"), Row("b", 12345.678, "images/s")], path)
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == COLUMNS
    assert first["ratio"] == "0.25"
    assert first["note"] == "slow, obvious one"
    assert second == {**second, "value": "1.235e+04", "reference": "", "ratio": "", "note": ""}


def test_repeated_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="repeated: a"):
        write([Row("a", 1, "ms"), Row("a", 2, "ms")], tmp_path / "benchmarks.csv")


def test_median_leaves_out_the_first_call():
    calls = []
    assert median_ms(lambda: calls.append(1), repeats=3) >= 0
    assert len(calls) == 4
