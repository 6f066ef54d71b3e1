"""Crops against an independent warp; pictures and targets of a crop belong together."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from p2f_lib.crop import Box, Crop
from p2f_lib.datasets.jitter import (
    CENTRED,
    COVERED_SIDE,
    Jitter,
    cover,
    crop_images,
    jitter_batch,
    sample_crops,
)
from p2f_lib.ground_truth import SampleBatch, place_camera, sample_table
from tests.toy import toy_model

CANVAS, SIZE = 56, 32


@pytest.fixture(scope="module")
def model():
    return toy_model(800)


@pytest.fixture(scope="module")
def samples(model):
    """White faces before black."""
    table = sample_table(model, 2, 8, progress=False)
    vertices = model.vertices(table.shape, table.expression)
    marks = vertices[:, model.landmarks["ibug68"]]
    cameras = tuple(place_camera(table.view(row), marks[row], CANVAS) for row in range(8))
    landmarks = [camera.project(points) for camera, points in zip(cameras, marks, strict=True)]
    batch = SampleBatch(
        np.zeros((8, CANVAS, CANVAS, 3), np.uint8),
        table.shape,
        table.expression,
        cameras,
        np.array(landmarks, np.float32),
        np.ones(8, bool),
    )
    batch.images[batch.targets(model)[1]] = 255
    return batch


def noise_images(size):
    rng = np.random.default_rng(0)
    return [cv2.GaussianBlur(rng.uniform(0, 255, (size, size, 3)), (0, 0), 2) for _ in range(8)]


def channels_first(images):
    return torch.from_numpy(np.array(images, np.uint8)).permute(0, 3, 1, 2)


def test_centred_crop_is_the_crop_of_the_reconstruction(samples):
    images = np.array(noise_images(CANVAS), np.uint8)
    matrices = sample_crops(torch.from_numpy(samples.landmarks), CENTRED, torch.Generator())
    result = crop_images(channels_first(images), matrices, SIZE)
    for i in range(8):
        crop = Crop.around(Box.around(samples.landmarks[i]), SIZE, 1.4)
        expected = cv2.warpAffine(
            images[i].astype(np.float32),
            crop.to_picture,
            (SIZE, SIZE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        # OpenCV rounds coordinates to 1/32 pixel.
        np.testing.assert_allclose(result[i].permute(1, 2, 0).numpy(), expected, atol=255 / 24)


def test_small_crops_of_large_pictures_do_not_alias():
    checks = np.indices((128, 128)).sum(0) % 2 * np.uint8(255)
    images = torch.from_numpy(np.stack([checks] * 3)[None])
    whole = torch.tensor([[[64.0, 0, 63.5], [0, 64.0, 63.5]]])
    small = crop_images(images, whole, 16)
    assert small.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(small.numpy(), 127.5, atol=1)
    np.testing.assert_allclose(crop_images(images, whole, 128).numpy(), images.numpy(), atol=0.01)


@pytest.mark.parametrize("jitter", [CENTRED, Jitter(), Jitter(rotation=60, mirror=True)])
def test_picture_and_target_show_the_same_face(model, samples, jitter):
    colorless = Jitter(jitter.scale, jitter.shift, jitter.rotation, 0.0, 0.0, jitter.mirror)
    generator = torch.Generator().manual_seed(1)
    images, planes, valid = jitter_batch(model, samples, colorless, SIZE, generator)
    assert images.shape == (8, 3, SIZE, SIZE)
    assert planes.shape == (8, 6, SIZE, SIZE)
    assert valid.shape == (8, SIZE, SIZE)
    bright = images.mean(1) > 127
    agreement = (bright & valid).sum((1, 2)) / (bright | valid).sum((1, 2))
    assert agreement.min() > 0.93
    assert not planes.permute(0, 2, 3, 1)[~valid].any()


def test_mirroring_changes_the_sign_of_x(model, samples):
    matrices = sample_crops(torch.from_numpy(samples.landmarks), CENTRED, torch.Generator())
    flipped = matrices.clone()
    flipped[:, :, 0] *= -1
    images = channels_first(noise_images(CANVAS))
    one, two = (crop_images(images, m, SIZE) for m in (matrices, flipped))
    torch.testing.assert_close(two, one.flip(-1), atol=0.05, rtol=0)
    one, two = (samples.crops(model, m.numpy(), SIZE)[0] for m in (matrices, flipped))
    signs = np.float32([-1, 1, 1, -1, 1, 1])
    np.testing.assert_allclose(two, one[:, :, ::-1] * signs, atol=1e-3)


def test_half_of_the_crops_are_mirrored(samples):
    landmarks = torch.from_numpy(np.concatenate([samples.landmarks] * 50))
    generator = torch.Generator().manual_seed(0)
    matrices = sample_crops(landmarks, Jitter(), generator)
    assert 0.4 < (torch.linalg.det(matrices[:, :, :2]) < 0).float().mean() < 0.6
    plain = sample_crops(landmarks, Jitter(mirror=False), generator)
    assert (torch.linalg.det(plain[:, :, :2]) > 0).all()


def test_jitter_is_a_function_of_its_generator(model, samples):
    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return jitter_batch(model, samples, Jitter(), SIZE, generator)

    for one, two in zip(run(3), run(3), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(run(3), run(4), strict=True):
        assert not torch.equal(one, two)


def test_a_rectangle_of_one_colour_covers_some_crops():
    black = torch.zeros(2000, 3, SIZE, SIZE)
    covered = cover(black, Jitter(cover=0.3), torch.Generator().manual_seed(0))
    hidden = (covered > 0).any(dim=1)
    chosen = hidden.any(dim=(1, 2))
    assert 0.25 < chosen.float().mean() < 0.35
    for image, mask in zip(covered[chosen][:50], hidden[chosen][:50], strict=True):
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, rows[:, None] & columns)  # a rectangle
        assert max(rows.sum(), columns.sum()) <= COVERED_SIDE[1] * SIZE + 1
        assert len(torch.unique(image[:, mask], dim=1).T) == 1  # of one colour
    assert torch.equal(cover(black, Jitter(), torch.Generator()), black)


def test_parts_of_a_batch_are_covered_as_the_whole():
    images = torch.zeros(8, 3, SIZE, SIZE)
    jitter = Jitter(cover=0.7)
    whole = cover(images, jitter, torch.Generator().manual_seed(5))
    halves = [cover(images[:4], jitter, torch.Generator().manual_seed(5), (k, 2)) for k in range(2)]
    assert torch.equal(torch.cat(halves), whole)


def test_what_is_covered_stays_in_the_targets(model, samples):
    def run(jitter):
        return jitter_batch(model, samples, jitter, SIZE, torch.Generator().manual_seed(3))

    (images, *truth), (hidden, *same) = run(Jitter()), run(Jitter(cover=1.0))
    assert not torch.equal(images, hidden)
    for one, two in zip(truth, same, strict=True):
        assert torch.equal(one, two)


def test_pictures_without_a_face_have_empty_targets(model, samples):
    is_face = np.arange(8) > 3
    generator = torch.Generator().manual_seed(1)
    empty = replace(samples, is_face=is_face)
    _, planes, valid = jitter_batch(model, empty, Jitter(), SIZE, generator)
    assert not planes[:4].any()
    assert not valid[:4].any()
    assert valid[4:].any(dim=(1, 2)).all()
