"""Leaving out ingredients: what changes, what doesn't, and the table of outcomes."""

import dataclasses

import numpy as np
import pytest

from p2f_lib import ablation
from p2f_lib.ablation import Budget, read_table, run_all, run_one
from p2f_lib.errors import P2FError
from p2f_lib.synthesis.draws import INGREDIENTS, sample_draw, without
from p2f_lib.synthesis.samples import render_draw
from p2f_lib.tables import write_table
from p2f_lib.unet import NetworkConfig
from tests.toy import toy_model

TINY = Budget(n_train=12, n_test=4, epochs=1, canvas=64, supersample=1)
NETWORK = NetworkConfig(input_size=32, width=4, depth=3)


@pytest.fixture(scope="module")
def model():
    return toy_model()


def parts(draw, prefix=""):
    """{dotted name: value} of nested dataclasses."""
    found = {}
    for field in dataclasses.fields(draw):
        value = getattr(draw, field.name)
        if dataclasses.is_dataclass(value):
            found |= parts(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = value
    return found


def changed(before, after):
    one, two = parts(before), parts(after)
    return {
        name
        for name in one.keys() | two.keys()
        if name not in one
        or name not in two
        or not np.array_equal(np.asarray(one[name], object), np.asarray(two[name], object))
    }


@pytest.mark.parametrize("name", INGREDIENTS)
def test_leaving_out_changes_one_part_and_still_renders(model, name):
    draws = [sample_draw(model, 3, i, no_face_share=0.3) for i in range(12)]
    bare = [without(draw, name) for draw in draws]
    tops = {part.split(".")[0] for a, b in zip(draws, bare, strict=True) for part in changed(a, b)}
    assert tops, "nothing was left out"
    assert len(tops) <= (2 if name == "head, neck and shoulders" else 1)
    sample = render_draw(model, bare[0], 48, 1)
    assert sample.image.shape == (48, 48, 3)


def test_faces_without_expression_have_no_expression(model):
    draw = without(sample_draw(model, 0, 0), "expressions")
    assert not draw.expression.any()
    assert draw.shape.any()


def test_leaving_out_faceless_pictures_leaves_faces_only(model):
    draws = [sample_draw(model, 0, i, no_face_share=0.5) for i in range(20)]
    assert not all(draw.is_face for draw in draws)
    assert all(without(draw, "pictures without a face").is_face for draw in draws)


def test_unknown_names_are_named(model):
    with pytest.raises(P2FError, match="no ingredient 'salt'"):
        without(sample_draw(model, 0, 0), "salt")
    with pytest.raises(P2FError, match="no run 'salt'"):
        run_one("nowhere", "salt", 0, TINY)


def test_runs_are_repeatable_and_measured_on_everything(model, tmp_path, monkeypatch):
    path = tmp_path / "face_model.safetensors"
    model.save(path)
    one = run_one(path, "hair", 0, TINY, network=NETWORK)
    assert one == run_one(path, "hair", 0, TINY, network=NETWORK)
    assert one.left_out == "hair"
    assert 0 < one.synthetic <= 100
    assert one.offset_ratio > 0
    assert np.isnan(one.photos)
    other = run_one(path, "lens", 0, TINY, network=NETWORK)
    assert other.pncc_median != one.pncc_median


def test_table_round_trip(tmp_path):
    outcomes = [
        ablation.Outcome("nothing", 1, 5.125, 6.5, 0.75, 0.875, 7.25, 8.5),
        ablation.Outcome("hats and scarves", 0, 5.5, 6.75, 0.5, 0.875, np.nan, np.nan),
    ]
    path = tmp_path / "deep" / "ablation.csv"
    write_table(path, outcomes)
    again = read_table(path)
    assert again[0] == outcomes[0]
    assert again[1].left_out == "hats and scarves"
    assert np.isnan(again[1].photos)
    path.write_text("left_out,seed\nnothing,x\n")
    with pytest.raises(P2FError, match="no table of an ablation"):
        read_table(path)


def test_all_runs_come_back_in_order(model, tmp_path, monkeypatch):
    path = tmp_path / "face_model.safetensors"
    model.save(path)
    budget = dataclasses.replace(TINY, n_train=6, n_test=2)
    outcomes = run_all(path, budget, names=("glasses", "nothing"), seeds=2, processes=1)
    assert [(o.left_out, o.seed) for o in outcomes] == [
        ("glasses", 0),
        ("nothing", 0),
        ("nothing", 1),
    ]
