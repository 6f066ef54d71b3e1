"""The batched fit finds what the one on the CPU finds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from p2f_lib import fitting_torch
from p2f_lib.camera import PerspectiveCamera
from p2f_lib.errors import P2FError
from p2f_lib.fitting import FaceFit, Localized, fit_face, valid_mask
from p2f_lib.fitting_torch import BatchFit, BatchFitter, valid_masks
from p2f_lib.unet import NetworkConfig, UNet, predict, predict_planes
from tests.test_fitting import fitter, rms, scene

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIZE = 44  # so few pixels that both fits use all of them
CENTER = np.full(2, (SIZE - 1) / 2)


def planes(*scenes) -> tuple[np.ndarray, np.ndarray]:
    found = [scene(*one)[-1] for one in scenes]
    return np.stack([pncc for pncc, _, _ in found]), np.stack([change for _, change, _ in found])


def fit_batch(pncc: np.ndarray, offsets: np.ndarray, device: str = "cpu") -> BatchFit:
    tensors = (torch.from_numpy(plane).to(device) for plane in (pncc, offsets))
    center = torch.full((2,), (pncc.shape[2] - 1) / 2)
    return BatchFitter(fitter().model, device)(*tensors, center)


def fit_one(pncc: np.ndarray, offsets: np.ndarray) -> FaceFit:
    center = np.full(2, (pncc.shape[1] - 1) / 2)
    return fit_face(fitter(), pncc, offsets, valid_mask(pncc), center)


def assert_alike(batch: BatchFit, face: int, one: FaceFit) -> None:
    """Same vertices, coefficients, mesh and cameras, to rounding."""
    assert batch.found[face]
    pixels = batch.pixels[face].cpu().numpy()
    seen = np.flatnonzero(np.isfinite(pixels).all(axis=1))
    assert np.array_equal(seen, one.localized.vertices)
    assert np.abs(pixels[seen] - one.localized.pixels).max() < 1e-4
    assert np.abs(batch.vertices[face].cpu().numpy() - one.vertices).max() < 1e-3
    assert np.abs(batch.shape[face].cpu().numpy() - one.shape).max() < 1e-3
    assert np.abs(batch.expression[face].cpu().numpy() - one.expression).max() < 1e-3
    points, chosen = one.vertices, fitter().model.landmarks["ibug68"]
    moved = batch.affine_camera(face).project(points) - one.affine.project(points)
    assert np.abs(moved).max() < 0.2  # other draws, and few rounds of Tukey's weights
    assert np.abs(batch.camera(face).project(points) - one.camera.project(points)).max() < 1e-3
    assert batch.focal[face].item() == pytest.approx(one.camera.focal, rel=1e-3)
    landmarks = batch.landmarks(torch.from_numpy(chosen).long().to(batch.found.device))[face]
    assert np.abs(landmarks.cpu().numpy() - one.camera.project(points[chosen])).max() < 1e-3


@pytest.mark.parametrize("device", DEVICES)
def test_equals_the_fit_of_one_face(device):
    pncc, offsets = planes((0, SIZE), (1, SIZE, -50.0), (2, SIZE, 70.0), (3, SIZE, 0.0))
    batch = fit_batch(pncc, offsets, device)
    assert len(batch) == 4
    for face in range(4):
        assert_alike(batch, face, fit_one(pncc[face], offsets[face]))


def test_equals_it_on_noise_and_wrong_pixels():
    rng = np.random.default_rng(0)
    pncc, offsets = planes((0, SIZE), (4, SIZE, -30.0), (5, SIZE, 40.0))
    face = valid_mask(pncc[0], erode=0)
    pncc += rng.normal(0, 1, pncc.shape).astype(np.float32) * (np.abs(pncc).sum(-1) > 0)[..., None]
    wrong = face & (rng.random(face.shape) < 0.2)
    pncc[0, wrong] = rng.permutation(pncc[0, face])[: wrong.sum()]
    batch = fit_batch(pncc, offsets)
    for number in range(len(pncc)):
        one = fit_one(pncc[number], offsets[number])
        # Where robust weights rest on a median, a rounding may show.
        mesh = batch.vertices[number].numpy()
        assert np.abs(mesh - one.vertices).max() < 0.2
        shown = batch.camera(number).project(mesh) - one.camera.project(one.vertices)
        assert np.abs(shown).max() < 0.05
        assert np.abs(batch.affine[number].numpy() - one.affine.matrix).max() < 0.1


def test_finds_the_truth_from_a_subset_of_many_pixels():
    _, _, vertices, camera, (pncc, offsets, valid) = scene(0)
    assert valid.sum() > 2 * fitting_torch.SUBSET
    batch = fit_batch(pncc[None], offsets[None])
    assert rms(batch.vertices[0].numpy() - vertices) < 0.6
    assert rms(batch.camera(0).project(batch.vertices[0].numpy()) - camera.project(vertices)) < 0.3
    assert rms(batch.affine_camera(0).project(vertices) - camera.project(vertices)) < 3


def test_a_face_that_cannot_be_fitted_disturbs_no_other():
    good = planes((0, SIZE), (1, SIZE, -50.0))
    alone = fit_batch(*good)
    nothing = np.zeros_like(good[0][0])
    broken = np.full_like(nothing, np.nan)
    point = np.where(np.ones_like(nothing, bool), np.float32(40), 0)  # all pixels show one point
    few = np.where(np.arange(SIZE)[:, None, None] < 2, good[0][0], 0)
    bad = np.stack([nothing, broken, point, few])
    pncc = np.concatenate([good[0][:1], bad, good[0][1:]])
    offsets = np.concatenate([good[1][:1], np.zeros_like(bad), good[1][1:]])
    batch = fit_batch(pncc, offsets)
    assert batch.found.tolist() == [True, False, False, False, False, True]
    for ours, its in ((0, 0), (1, 5)):
        assert np.abs((alone.vertices[ours] - batch.vertices[its]).numpy()).max() < 1e-3
        assert alone.focal[ours].item() == pytest.approx(batch.focal[its].item(), rel=1e-6)
    assert not fit_batch(bad, np.zeros_like(bad)).found.any()


def test_offsets_that_are_not_finite_count_as_hidden():
    pncc, offsets = planes((0, SIZE))
    offsets = offsets.copy()
    offsets[0, SIZE // 2] = np.nan
    batch = fit_batch(pncc, offsets)
    assert batch.found.all()
    assert batch.vertices.isfinite().all()


@pytest.mark.parametrize("erode", [0, 1, 2])
def test_masks_are_those_of_one_picture(erode):
    rng = np.random.default_rng(1)
    pncc = rng.normal(0, 12, (3, 20, 31, 3)).astype(np.float32)
    pncc[0, 3:16, 2:31] += 60
    pncc[1, 4, 5] = np.inf
    found = valid_masks(torch.from_numpy(pncc), erode=erode)
    for mask, plane in zip(found, pncc, strict=True):
        assert np.array_equal(mask.numpy(), valid_mask(plane, erode=erode))


def test_median_and_lists_of_unequal_length():
    rng = np.random.default_rng(2)
    mask = rng.random((40, 23)) < rng.random((40, 1))
    values = rng.normal(size=mask.shape)
    both = torch.from_numpy(values), torch.from_numpy(mask)
    medians = fitting_torch._median(*both).numpy()
    listed, there = (part.numpy() for part in fitting_torch._first(both[1], 7))
    thinned, kept = (part.numpy() for part in fitting_torch._evenly(both[1], 7))
    for row in range(len(mask)):
        known = np.flatnonzero(mask[row])
        assert np.array_equal(listed[row][there[row]], known[:7])
        if len(known):
            assert medians[row] == np.median(values[row, known])
        if len(known) > 7:
            found = Localized(known, np.zeros((len(known), 2)), np.zeros((len(known), 3)))
            assert np.array_equal(thinned[row], found.thinned(7).vertices)
        else:
            assert np.array_equal(thinned[row][kept[row]], known)


def test_a_network_s_planes_go_on_without_leaving_their_device():
    torch.manual_seed(0)
    config = NetworkConfig(input_size=32, width=4, depth=2)
    unet = UNet(config).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    pncc, offsets = predict_planes(unet, torch.from_numpy(images))
    assert np.array_equal(pncc.numpy(), predict(unet, images)[0])
    assert np.array_equal(offsets.numpy(), predict(unet, images)[1])
    batch = BatchFitter(fitter().model)(pncc, offsets, torch.full((2,), 15.5))
    assert len(batch) == 3


def test_refuses_planes_that_do_not_match():
    fit = BatchFitter(fitter().model)
    plane = torch.zeros(2, 8, 8, 3)
    with pytest.raises(P2FError, match=r"\(2, 8, 8, 3\) and \(1, 8, 8, 3\)"):
        fit(plane, plane[:1], torch.zeros(2))
    with pytest.raises(P2FError, match="meta"):
        fit(plane.to("meta"), plane.to("meta"), torch.zeros(2))


def test_the_camera_is_the_same_as_of_the_landmarks():
    pncc, offsets = planes((0, SIZE))
    batch = fit_batch(pncc, offsets)
    chosen = torch.arange(0, 4000, 37)
    camera = batch.camera(0)
    assert isinstance(camera, PerspectiveCamera)
    expected = camera.project(batch.vertices[0, chosen].numpy())
    assert np.abs(batch.landmarks(chosen)[0].numpy() - expected).max() < 1e-6
    moved = replace(batch, focal=batch.focal * 2)
    shift = moved.landmarks(chosen)[0].numpy() - CENTER
    assert np.allclose(shift, 2 * (expected - CENTER))
