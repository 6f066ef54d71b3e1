"""Training samples from either source: the same types, nothing held out is trained on."""

from dataclasses import replace

import numpy as np
import pytest

from p2f_lib.datasets import sources
from p2f_lib.datasets.stream import SampleStream
from p2f_lib.datasets.w300lp import W300LP
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.training import TrainingConfig, train
from p2f_lib.unet import NetworkConfig
from p2f_lib.validation import Validation
from tests.miniatures import basel_toy, write_300wlp
from tests.toy import toy_model

SYNTHETIC = {
    "source": "synthetic",
    "root": "nowhere",
    "n_train": 6,
    "n_heldout": 3,
    "canvas": 48,
    "supersample": 1,
    "no_face_share": 0.0,
}


@pytest.fixture(scope="module")
def basel():
    return basel_toy()


@pytest.fixture(scope="module")
def licensed(basel, tmp_path_factory):
    """Parameters of a miniature 300W-LP, and its root."""
    root = tmp_path_factory.mktemp("licensed")
    write_300wlp(root / "300W_LP", basel)
    return SYNTHETIC | {
        "source": "300w-lp",
        "root": "300W_LP",
        "n_train": 100,
        "n_heldout": 1,
    }, root


def test_synthetic_samples_are_those_of_the_table(tmp_path):
    model = toy_model()
    table = sources.make_table(SYNTHETIC, model, 4)
    table.save(tmp_path / "table.npz")
    table = sources.load_table(SYNTHETIC, tmp_path / "table.npz")
    samples, heldout = sources.training_data(SYNTHETIC, model, table, 2, fresh=False)
    assert (len(samples), len(heldout)) == (6, 3)
    np.testing.assert_array_equal(np.vstack([samples.shape, heldout.shape]), table.shape)


def test_fresh_samples_are_nobody_of_the_table():
    model = toy_model()
    table = sources.make_table(SYNTHETIC, model, 4)
    stream, heldout = sources.training_data(SYNTHETIC, model, table, 2, fresh=True)
    assert isinstance(stream, SampleStream)
    assert len(stream) * stream.batch_size == 6
    first = next(iter(stream))
    known = {shape.tobytes() for shape in table.shape}
    assert not any(shape.tobytes() in known for shape in first.shape)
    assert len(heldout) == 3


def test_synthetic_description_shows_held_out_samples():
    model = toy_model()
    table = sources.make_table(SYNTHETIC, model, 4)
    shown = sources.describe(SYNTHETIC, model, table, 4)
    assert shown.images.shape == (3, 48, 48, 3)
    assert shown.yaw_counts.sum() == 9
    assert "9 pictures" in shown.text()
    np.testing.assert_array_equal(shown.planes[~shown.valid], 0)


def test_the_paper_s_data_gives_the_same_kind_of_samples(licensed, basel, tmp_path):
    parameters, root = licensed
    table = sources.make_table(parameters, basel, 0, root)
    table.save(tmp_path / "table.npz")
    table = sources.load_table(parameters, tmp_path / "table.npz")
    data, heldout = sources.training_data(parameters, basel, table, 2, False, 0, root)
    assert isinstance(data, W300LP)
    assert isinstance(heldout, SampleBatch)
    assert len(data) + len(heldout) == len(table)
    planes, valid = heldout.targets(basel)
    assert valid.any(axis=(1, 2)).all()
    assert np.isfinite(planes).all()
    shown = sources.describe(parameters, basel, table, 0, root)
    assert len(shown.images) == len(table)


def test_a_network_trains_on_the_paper_s_data(licensed, basel):
    parameters, root = licensed
    table = sources.make_table(parameters, basel, 0, root)
    data, heldout = sources.training_data(parameters, basel, table, 2, False, 0, root)
    network = NetworkConfig(input_size=32, width=4, depth=3)
    unet = train(
        basel,
        data,
        network,
        TrainingConfig(epochs=1, batch_size=2),
        validate=Validation(basel, heldout),
        progress=False,
    )
    assert all(np.isfinite(p.detach().numpy()).all() for p in unet.parameters())


def test_pictures_of_one_photograph_stay_together(licensed, basel):
    parameters, root = licensed
    table = sources.make_table(parameters, basel, 0, root)
    many = replace(
        table.take(np.arange(8) % len(table)),
        stems=np.array([f"{s}/{p}_{k}" for s in ("AFW", "AFW_Flip") for p in "ab" for k in (0, 1)]),
    )
    train_rows, held = sources.split_300wlp(many, 1, 0)
    assert len(held) == 4  # two profiling steps, mirrored or not
    names = {stem.replace("_Flip", "").rsplit("_", 1)[0] for stem in many.stems[held]}
    assert len(names) == 1
    assert not set(train_rows) & set(held)
    with pytest.raises(P2FError, match="leave none for training"):
        sources.split_300wlp(many, 8, 0)


def test_unknown_sources_are_named():
    with pytest.raises(P2FError, match=r"Unknown ground_truth\.source 'photos'"):
        sources.make_table(SYNTHETIC | {"source": "photos"}, toy_model(), 0)
