"""The benchmark report: its columns, ratios and errors."""

import csv
import importlib
import math

import pytest
import torch

from benchmarks import Row, median_ms
from benchmarks.__main__ import COLUMNS, cells, main, modules, write
from p2f_lib import recipe
from p2f_lib.datasets.crops import Cropping
from p2f_lib.errors import P2FError
from p2f_lib.synthesis import render_samples
from tests.toy import toy_model


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
    names = [
        "blending",
        "explore",
        "fitting",
        "network",
        "rasterizer",
        "synthesis",
        "tracking",
        "training",
    ]
    assert modules() == names
    for name in names:
        assert callable(importlib.import_module(f"benchmarks.{name}").rows)


def test_unknown_modules_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["networks"])
    known = "no benchmark module networks; there are blending, explore, fitting, network, raster"
    assert known in capsys.readouterr().err


def test_without_weights_a_photo_is_not_measured(tmp_path, monkeypatch):
    from benchmarks import network

    monkeypatch.setattr(network, "RELEASE", tmp_path / "release")
    row = network._photo_full()
    assert (row.name, row.unit, row.reference) == ("photo_full_ms", "ms", None)
    assert math.isnan(row.value)
    assert row.note.startswith(
        "not measured: There is no face_model.safetensors with unet.safetensors in data/release. "
    )
    assert cells(row)[:5] == ["photo_full_ms", "nan", "ms", "", ""]


def test_without_the_fast_variant_it_is_not_measured(monkeypatch):
    from benchmarks import network

    class Refuses:
        @staticmethod
        def from_pretrained(folder, *, variant, **options):
            raise P2FError(f"There is no {variant} variant in {folder}.")

    monkeypatch.setattr(network, "Reconstructor", Refuses)
    row = network._photo_fast()
    assert (row.name, math.isnan(row.value)) == ("photo_fast_ms", True)
    assert row.note == "not measured: There is no fast variant in data/release."


def test_the_fastest_engine_takes_the_photo(monkeypatch):
    from benchmarks import network

    class Takes:
        @staticmethod
        def from_pretrained(folder, *, engine, **options):
            return engine

    times = {"torch": 2.0, "onnxruntime": 1.0}
    monkeypatch.setattr(network, "Reconstructor", Takes)
    monkeypatch.setattr(network, "installed", lambda: ["torch", "onnxruntime", "openvino"])
    monkeypatch.setattr(
        network, "_photo", lambda name, _, engine: Row(name, times[engine], "ms", note=engine)
    )
    assert network._photo_fast() == Row("photo_fast_ms", 1.0, "ms", note="onnxruntime")


def test_trained_images_are_timed_and_counted():
    """On the library's own training, which is left as it was."""
    from benchmarks import training

    parameters = recipe.read_parameters(training.RECIPE)
    parameters["train"] |= {"input_size": 32, "width": 4, "depth": 3, "batch_size": 2}
    model = toy_model()
    samples = render_samples(model, 0, range(4), 56, 1, processes=1, progress=False)
    module = training.module_of(parameters, model, samples)
    own = Cropping.__call__
    before = [weights.clone() for weights in module.unet.parameters()]
    with training.ready_batches(module):
        operations = training.step_operations(module)
        assert training.step_seconds(module, 2) > 0
    assert Cropping.__call__ is own
    assert training.step_seconds(module, 2) > 0
    assert not any(map(torch.equal, before, module.unet.parameters()))  # they learn
    # Two operations a multiplication, three products a weight, but for the gradient of the images.
    convolutions = [m for m in module.unet.modules() if isinstance(m, torch.nn.Conv2d)]
    sides = [16, 8, 8, 4, 4, 4, 4, 8, 16]
    products = [
        layer.weight.numel() * side**2 for layer, side in zip(convolutions, sides, strict=True)
    ]
    assert operations == 2 * 2 * (3 * sum(products) - products[0])


def test_the_peak_is_that_of_a_product(monkeypatch):
    from benchmarks import training

    monkeypatch.setattr(training, "MATMULS", (64,))
    assert 1e7 < training.matmul_peak() < 1e14


def test_median_leaves_out_the_first_call():
    calls = []
    assert median_ms(lambda: calls.append(1), repeats=3) >= 0
    assert len(calls) == 4


def test_without_weights_no_video_is_tracked(tmp_path, monkeypatch):
    from benchmarks import tracking

    monkeypatch.setattr(tracking, "RELEASE", tmp_path / "release")
    (row,) = tracking.rows()
    assert (row.name, math.isnan(row.value)) == ("tracking_frames_per_s", True)
    assert row.note.startswith("not measured: There is no face_model.safetensors")
