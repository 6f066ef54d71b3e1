"""The benchmark report: its columns, ratios and errors."""

import csv
import importlib
import math

import pytest

from benchmarks import Row, median_ms
from benchmarks.__main__ import COLUMNS, cells, main, modules, write


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


def test_every_module_takes_part():
    assert modules() == ["blending", "fitting", "network", "rasterizer", "synthesis"]
    for name in modules():
        assert callable(importlib.import_module(f"benchmarks.{name}").rows)


def test_unknown_modules_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["networks"])
    known = "no benchmark module networks; there are blending, fitting, network, rasterizer, synth"
    assert known in capsys.readouterr().err


def test_without_weights_a_photo_is_not_measured(tmp_path, monkeypatch):
    from benchmarks import network

    monkeypatch.setattr(network, "RELEASE", tmp_path / "release")
    row = network._photo()
    assert (row.name, row.unit, row.reference) == ("photo_ms", "ms", None)
    assert math.isnan(row.value)
    assert row.note.startswith(
        "not measured: There is no face_model.safetensors with unet.safetensors in data/release. "
    )
    assert cells(row)[:5] == ["photo_ms", "nan", "ms", "", ""]


def test_median_leaves_out_the_first_call():
    calls = []
    assert median_ms(lambda: calls.append(1), repeats=3) >= 0
    assert len(calls) == 4
