"""Jitter against an independent warp; the loss; resuming; learning on a toy."""

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from p2f_lib.crop import Box, Crop
from p2f_lib.datasets.jitter import CENTRED, Jitter, crop_batch, jitter_batch, sample_crops
from p2f_lib.errors import P2FError
from p2f_lib.synthesis import SampleBatch, render_samples
from p2f_lib.training import (
    RenderedOnDemand,
    TrainingConfig,
    heldout_errors,
    masked_l1,
    read_history,
    train,
)
from p2f_lib.unet import NetworkConfig
from tests.toy import toy_model

NETWORK = NetworkConfig(input_size=16, width=4, depth=3)


def toy_set(count=48, canvas=28, seed=0):
    """Discs whose colour and place decide their planes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:canvas, :canvas]
    images = np.zeros((count, canvas, canvas, 3), np.uint8)
    planes = np.zeros((count, canvas, canvas, 6), np.float16)
    landmarks = np.zeros((count, 68, 2), np.float32)
    valid = np.zeros((count, canvas, canvas), bool)
    for i in range(count):
        cx, cy, radius = *rng.uniform(11, 17, 2), 6.0
        level = rng.uniform(0.2, 1.0)
        valid[i] = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        images[i][valid[i]] = (255 * level, 128, 60)
        surface = np.stack([(x - cx) * 8, (cy - y) * 8, 0 * x + 90], -1)
        planes[i, ..., :3] = surface * valid[i][..., None]
        planes[i, ..., 3:] = 20 * (level - 0.6) * valid[i][..., None]
        angle = np.linspace(0, 2 * np.pi, 68)
        landmarks[i] = np.stack([cx + radius * np.cos(angle), cy + radius * np.sin(angle)], -1)
    return SampleBatch(images, planes, valid, landmarks)


@pytest.fixture(scope="module")
def samples():
    return toy_set()


def batch_of(samples, count=4):
    return (
        torch.from_numpy(samples.images[:count]).permute(0, 3, 1, 2),
        torch.from_numpy(samples.planes[:count]).permute(0, 3, 1, 2),
        torch.from_numpy(samples.valid[:count]),
        torch.from_numpy(samples.landmarks[:count]),
    )


def test_centred_crop_is_the_crop_of_the_reconstruction(samples):
    images, planes, valid, landmarks = batch_of(samples)
    matrices, mirrored = sample_crops(landmarks, CENTRED, torch.Generator())
    result, _, _ = crop_batch(images, planes, valid, matrices, mirrored, 16)
    for i in range(4):
        crop = Crop.around(Box.around(samples.landmarks[i]), 16, 1.4)
        expected = cv2.warpAffine(
            samples.images[i].astype(np.float32),
            crop.to_picture,
            (16, 16),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        # OpenCV rounds coordinates to 1/32 pixel.
        np.testing.assert_allclose(result[i].permute(1, 2, 0).numpy(), expected, atol=255 / 24)


def test_planes_are_never_mixed_with_the_background(samples):
    images, planes, valid, landmarks = batch_of(samples, 16)
    generator = torch.Generator().manual_seed(1)
    _, cropped, mask = jitter_batch(images, planes, valid, landmarks, Jitter(), 16, generator)
    depth = cropped[:, 2]
    np.testing.assert_allclose(depth[mask].numpy(), 90, atol=1e-3)
    assert (cropped.permute(0, 2, 3, 1)[~mask] == 0).all()
    assert mask.any(dim=(1, 2)).all()


def test_mirroring_changes_the_sign_of_x(samples):
    images, planes, valid, landmarks = batch_of(samples)
    matrices, _ = sample_crops(landmarks, CENTRED, torch.Generator())
    plain = crop_batch(images, planes, valid, matrices, torch.zeros(4, dtype=torch.bool), 16)
    flipped_matrices = matrices.clone()
    flipped_matrices[:, :, 0] *= -1
    flipped = crop_batch(images, planes, valid, flipped_matrices, torch.ones(4, dtype=bool), 16)
    torch.testing.assert_close(flipped[0], plain[0].flip(-1), atol=0.05, rtol=0)
    signs = torch.tensor([-1.0, 1, 1, -1, 1, 1])[:, None, None]
    torch.testing.assert_close(flipped[1], plain[1].flip(-1) * signs, atol=0.05, rtol=0)


def test_jitter_is_a_function_of_its_generator(samples):
    batch = batch_of(samples)

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return jitter_batch(*batch, Jitter(), 16, generator)[0]

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


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


def test_an_interrupted_run_resumes_to_the_same_bits(samples, tmp_path):
    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 2:
                raise RuntimeError("killed")

    recipe = TrainingConfig(epochs=3, batch_size=8)
    options = {"progress": False, "heldout": samples}
    straight = train(samples, NETWORK, recipe, **options)
    with pytest.raises(RuntimeError, match="killed"):
        train(samples, NETWORK, recipe, folder=tmp_path, callbacks=[Interrupt()], **options)
    with pytest.raises(P2FError, match="other parameters"):
        train(samples, NETWORK, TrainingConfig(epochs=4, batch_size=8), folder=tmp_path, **options)
    resumed = train(samples, NETWORK, recipe, folder=tmp_path, log=tmp_path / "log", **options)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert len(read_history(tmp_path / "log")["heldout/mask_iou"]) == 1  # the epoch left to run
    assert not (tmp_path / "last.ckpt").exists()  # a forced run starts afresh


def test_the_network_learns_planes_and_offsets(samples):
    recipe = TrainingConfig(epochs=30, batch_size=8, learning_rate=5e-3)
    jitter = Jitter((1.4, 1.6), 0.05, 0.0, 0.0, 0.0, mirror=False)
    unet = train(samples, NETWORK, recipe, jitter, progress=False)
    errors = heldout_errors(unet, toy_set(24, seed=1))
    assert errors.offset_ratio < 0.6
    assert errors.mask_iou > 0.7  # predicting nothing has 0
    assert errors.pncc_median < 30  # predicting nothing has 95


def test_rendering_on_demand_gives_what_was_rendered_before():
    model = toy_model()
    rendered = render_samples(model, 0, range(6), 28, 1, processes=1, progress=False)
    demanded = RenderedOnDemand(model, 0, 6, 28, 1)
    recipe = TrainingConfig(epochs=1, batch_size=2)
    kept = train(rendered, NETWORK, recipe, progress=False)
    fresh = train(demanded, NETWORK, recipe, workers=1, progress=False)
    for a, b in zip(kept.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(a, b)
