"""The loss; resuming, from memory and from a stream; learning on a toy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from p2f_lib.camera import AffineCamera
from p2f_lib.datasets.jitter import Jitter
from p2f_lib.datasets.stream import SampleStream
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.training import (
    TrainingConfig,
    heldout_errors,
    masked_l1,
    read_history,
    train,
)
from p2f_lib.unet import NetworkConfig
from tests.toy import toy_model

NETWORK = NetworkConfig(input_size=16, width=4, depth=3)


def toy_set(model, count=48, canvas=28, seed=0):
    """Frontal eggs, all white and black: what is to be learned is their outline and one mode."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(-1, 1, count)
    shape = np.zeros((count, model.n_shape), np.float32)
    shape[:, 0] = 3 * level
    expression = np.zeros((count, model.n_expression), np.float32)
    cameras = tuple(
        AffineCamera([[0.07, 0, 0, cx], [0, -0.07, 0, cy]])
        for cx, cy in rng.uniform(11, 17, (count, 2))
    )
    landmarks = np.stack(
        [
            camera.project(model.vertices(row)[model.landmarks["ibug68"]])
            for row, camera in zip(shape, cameras, strict=True)
        ]
    )
    batch = SampleBatch(
        np.zeros((count, canvas, canvas, 3), np.uint8),
        shape,
        expression,
        cameras,
        landmarks.astype(np.float32),
        np.ones(count, bool),
    )
    _, valid = batch.targets(model)
    for image, mask, value in zip(batch.images, valid, level, strict=True):
        image[mask] = (128 + 127 * value, 128, 60)
    return batch


@pytest.fixture(scope="module")
def model():
    return toy_model(600)


@pytest.fixture(scope="module")
def samples(model):
    return toy_set(model)


def test_offset_loss_looks_at_the_face_only():
    planes = torch.zeros(1, 6, 4, 4)
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[0, 0, 0] = True
    planes[0, 3:, 0, 0] = 5.0
    output = torch.zeros(1, 6, 4, 4)
    output[0, 3:, 2, 2] = 7.0  # background: costs nothing
    pncc, offsets = masked_l1(output, planes, valid, NETWORK)
    assert pncc == 0
    assert offsets == pytest.approx(5.0 / NETWORK.offset_scale)


def test_an_interrupted_run_resumes_to_the_same_bits(model, samples, tmp_path):
    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 2:
                raise RuntimeError("killed")

    recipe = TrainingConfig(epochs=3, batch_size=8)
    options = {"progress": False, "heldout": samples}
    straight = train(model, samples, NETWORK, recipe, **options)
    with pytest.raises(RuntimeError, match="killed"):
        train(model, samples, NETWORK, recipe, folder=tmp_path, callbacks=[Interrupt()], **options)
    other = replace(recipe, epochs=4)
    with pytest.raises(P2FError, match="other parameters"):
        train(model, samples, NETWORK, other, folder=tmp_path, **options)
    resumed = train(
        model, samples, NETWORK, recipe, folder=tmp_path, log=tmp_path / "log", **options
    )
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert len(read_history(tmp_path / "log")["heldout/mask_iou"]) == 1  # the epoch left to run
    assert not (tmp_path / "last.ckpt").exists()  # a forced run starts afresh


def test_the_network_learns_planes_and_offsets(model, samples):
    recipe = TrainingConfig(epochs=30, batch_size=8, learning_rate=5e-3)
    jitter = Jitter((1.4, 1.6), 0.05, 0.0, 0.0, 0.0, mirror=False)
    unet = train(model, samples, NETWORK, recipe, jitter, progress=False)
    errors = heldout_errors(unet, model, toy_set(model, 24, seed=1))
    assert errors.offset_ratio < 0.6
    assert errors.mask_iou > 0.7  # predicting nothing has 0
    assert errors.pncc_median < 30  # predicting nothing has 95


def test_empty_pictures_count_against_the_mask_only(model, samples):
    unet = train(model, samples, NETWORK, TrainingConfig(epochs=1, batch_size=8), progress=False)
    errors = heldout_errors(unet, model, samples)
    half = np.arange(len(samples)) % 2 == 0
    fewer = heldout_errors(unet, model, replace(samples, is_face=half))
    kept = heldout_errors(unet, model, samples[half])
    assert fewer.offset_l1 == pytest.approx(kept.offset_l1, rel=1e-4)
    assert fewer.pncc_median == pytest.approx(kept.pncc_median, rel=1e-4)
    assert fewer.mask_iou <= errors.mask_iou
    with pytest.raises(P2FError, match="shows a face"):
        heldout_errors(unet, model, replace(samples, is_face=np.zeros(len(samples), bool)))


def stream(model, **options):
    return SampleStream(model, 5, 2, **{"batches": 2, "size": 28, "supersample": 1} | options)


def test_an_interrupted_stream_resumes_to_the_same_bits(model, tmp_path):
    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                raise RuntimeError("killed")

    recipe = TrainingConfig(epochs=2, batch_size=2)
    arguments = model, stream(model), NETWORK, recipe
    straight = train(*arguments, progress=False)
    with pytest.raises(RuntimeError, match="killed"):
        train(*arguments, folder=tmp_path, callbacks=[Interrupt()], progress=False)
    resumed = train(*arguments, folder=tmp_path, workers=1, progress=False)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_stream_of_other_batches_gets_a_sentence(model):
    with pytest.raises(P2FError, match="batches of 2, the recipe asks for 4"):
        train(model, stream(model), NETWORK, TrainingConfig(batch_size=4), progress=False)
