"""Fitting against the truth that drew the planes, and fast code against slow obvious code."""

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from p2f_lib.camera import AffineCamera, PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.errors import P2FError
from p2f_lib.fitting import (
    Fitter,
    Localized,
    SharedShape,
    correspondences,
    fit_coefficients,
    fit_coefficients_multi,
    fit_face,
    localize_vertices,
    valid_mask,
    vertex_deviation,
)
from p2f_lib.ground_truth import render_ground_truth
from tests.toy import toy_model


@cache
def fitter() -> Fitter:
    return Fitter(toy_model(4000))


@cache
def scene(seed: int, size: int = 128, yaw: float = 20.0):
    """Truth and planes of one random person: (shape, expression, vertices, camera, planes)."""
    model, rng = fitter().model, np.random.default_rng(seed)
    shape = rng.normal(size=model.n_shape)
    expression = rng.uniform(0, 0.5, model.n_expression)
    distance = rng.uniform(400, 1500)
    rotation = rotation_from_pose(Pose(yaw, *rng.uniform(-20, 20, 2)))
    center = np.full(2, (size - 1) / 2)
    camera = PerspectiveCamera(size / 260 * distance, center, rotation, np.array([5, -8, distance]))
    truth = render_ground_truth(model, shape, expression, camera, size, size)
    planes = truth.pncc, truth.offsets, valid_mask(truth.pncc)
    return shape, expression, model.vertices(shape, expression), camera, planes


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt((difference**2).sum(axis=-1).mean()))


def degrees_between(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(Rotation.from_matrix(first.T @ second).magnitude()))


# ---------------------------------------------------------------------------------------------
# Masks and correspondences


def test_valid_mask_is_far_from_zero_and_eroded():
    rng = np.random.default_rng(0)
    pncc = np.zeros((40, 50, 3), np.float32)
    pncc[5:30, 8:45] = rng.normal((0, 0, 60), 3, (25, 37, 3))
    pncc[12, 20] = np.nan
    pncc[20, 30] = [0, 5, 5]
    far = np.nan_to_num(np.linalg.norm(pncc, axis=2)) > 15
    assert np.array_equal(valid_mask(pncc, erode=0), far)
    assert np.array_equal(valid_mask(pncc), binary_erosion(far, np.ones((3, 3)), border_value=1))


def test_correspondences_pair_each_valid_pixel_with_its_point():
    *_, camera, (pncc, offsets, valid) = scene(0)
    both = correspondences(pncc, offsets, valid)
    assert len(both) == valid.sum()
    row = len(both) // 2
    x, y = both.pixels[row].astype(int)
    assert valid[y, x]
    assert np.allclose(both.points[row], pncc[y, x] + offsets[y, x])
    # Pixel centres at integers: the point seen at a pixel projects exactly there.
    assert np.abs(camera.project(both.points) - both.pixels).max() < 0.01


# ---------------------------------------------------------------------------------------------
# Localisation


@pytest.mark.parametrize("size", [64, 128])
def test_localization_agrees_with_brute_force(size):
    *_, (pncc, offsets, valid) = scene(1, size)
    mean, gate = fitter().model.mean, 4.0
    found = fitter().localize(pncc, offsets, valid)
    y, x = np.nonzero(valid)
    gaps = np.linalg.norm(pncc[y, x][:, None] - mean[None], axis=2)
    expected = {}
    for pixel, vertex in enumerate(gaps.argmin(axis=1)):
        gap = gaps[pixel, vertex]
        if gap < min(gate, expected.get(vertex, (np.inf,))[0]):
            expected[vertex] = gap, (x[pixel], y[pixel])
    assert np.array_equal(found.vertices, sorted(expected))
    nearest = np.array([expected[vertex][1] for vertex in found.vertices])
    assert np.abs(found.pixels - nearest).max() <= 1.0


def test_sub_pixel_positions_are_where_the_vertices_are():
    *_, vertices, camera, (pncc, offsets, valid) = scene(2)
    found = fitter().localize(pncc, offsets, valid)
    true_pixels = camera.project(vertices)[found.vertices]
    true_offsets = (vertices - fitter().model.mean)[found.vertices]
    assert rms(found.pixels - true_pixels) < 0.05
    assert rms(np.round(found.pixels) - true_pixels) > 0.2  # that is what sub-pixel saves
    assert rms(found.offsets - true_offsets) < 0.05


def test_the_gate_keeps_far_points_out():
    *_, (pncc, offsets, valid) = scene(3)
    shifted = pncc * np.float32(1.1)  # 6 to 10 mm off the surface
    assert len(localize_vertices(fitter().model, shifted, offsets, valid, gate=4.0)) < 10
    assert len(localize_vertices(fitter().model, shifted, offsets, valid, gate=15.0)) > 500
    with pytest.raises(P2FError, match="gate"):
        Fitter(fitter().model, gate=0)


def test_localization_survives_garbage():
    *_, (pncc, offsets, valid) = scene(3)
    garbage = pncc.copy()
    garbage[::2] = np.nan
    garbage[1::4] = 1e30
    found = fitter().localize(garbage, offsets, np.ones_like(valid))
    assert len(set(found.vertices)) == len(found)
    assert len(fitter().localize(pncc * np.nan, offsets, np.ones_like(valid))) == 0


# ---------------------------------------------------------------------------------------------
# Coefficients


def random_localized(seed: int, noise: float = 0.0, count: int = 800) -> tuple:
    model, rng = fitter().model, np.random.default_rng(seed)
    shape = np.random.default_rng(99).normal(size=model.n_shape)  # one person
    expression = rng.uniform(0, 1, model.n_expression)
    vertices = np.sort(rng.choice(model.n_vertices, count, replace=False))
    offsets = (model.vertices(shape, expression) - model.mean)[vertices]
    offsets = offsets + rng.normal(0, noise, offsets.shape)
    pixels = rng.uniform(0, 100, (count, 2))
    return shape, expression, Localized(vertices, pixels, offsets.astype(np.float32))


def stacked(localized: Localized) -> tuple[np.ndarray, np.ndarray]:
    """(3N, Ks + Ke) and (3N,), one vertex and axis after another, over the root of N."""
    model = fitter().model
    basis = np.concatenate([model.shape_basis, model.expression_basis]).astype(float)
    rows = [basis[:, vertex, axis] for vertex in localized.vertices for axis in range(3)]
    root = np.sqrt(len(localized))
    return np.array(rows) / root, localized.offsets.astype(float).ravel() / root


def test_coefficients_are_the_tikhonov_solution():
    model, weight = fitter().model, 0.5
    *_, localized = random_localized(1, noise=2.0)
    a, b = stacked(localized)
    sigma = np.concatenate([model.shape_sigma, model.expression_sigma])
    a = np.vstack([a, np.diag(np.sqrt(weight) / sigma)])
    expected = np.linalg.lstsq(a, np.append(b, np.zeros(len(sigma))), rcond=None)[0]
    fit = fit_coefficients(model, localized, weight)
    assert np.allclose(np.append(fit.shape, fit.expression), expected, atol=1e-4)


def test_deviations_are_those_of_the_fits():
    """Of people drawn from the model, with noise of the variance that the weight stands for."""
    model, rng, noise, count = fitter().model, np.random.default_rng(5), 2.0, 60
    vertices = np.sort(rng.choice(model.n_vertices, count, replace=False))
    looked_at = rng.choice(model.n_vertices, 20, replace=False)
    ratios = []
    for _ in range(150):
        shape = rng.normal(0, model.shape_sigma)
        expression = rng.normal(0, model.expression_sigma)
        truth = model.vertices(shape, expression)
        offsets = (truth - model.mean)[vertices] + rng.normal(0, noise, (count, 3))
        localized = Localized(vertices, np.zeros((count, 2)), offsets.astype(np.float32))
        fit = fit_coefficients(model, localized, weight=noise**2 / count)
        error = (model.vertices(fit.shape, fit.expression) - truth)[looked_at]
        ratios.append(error / vertex_deviation(model, fit.precision, looked_at))
    ratios = np.array(ratios)
    assert np.sqrt((ratios**2).mean()) == pytest.approx(1, abs=0.06)
    assert np.abs(ratios.mean(axis=0)).max() < 0.4


def test_deviations_grow_where_the_face_is_hidden():
    *_, camera, (pncc, offsets, valid) = scene(11, 128, 0.0)
    half = valid.copy()
    half[:, 64:] = False
    whole, hidden = (
        fit_face(fitter(), pncc, offsets, mask, camera.principal_point) for mask in (valid, half)
    )
    model = fitter().model
    front = np.flatnonzero(model.mean[:, 2] > 20)
    growth = [vertex_deviation(model, fit.precision, front) for fit in (hidden, whole)]
    growth = (growth[0] / growth[1]).mean(axis=1)
    side = model.mean[front, 0] > 0  # picture right
    assert growth[side].mean() > 1.1 * growth[~side].mean()


@pytest.mark.parametrize("perspective", [False, True])
def test_coefficients_from_pixels_are_the_tikhonov_solution(perspective):
    model, weight, count = fitter().model, 0.3, 300
    shape, expression, localized = random_localized(3, count=count)
    camera = scene(3)[3]
    camera = camera if perspective else camera.affine()
    truth = model.vertices(shape, expression)[localized.vertices]
    localized = Localized(localized.vertices, camera.project(truth), np.zeros((count, 3)))
    fit = fitter().coefficients_from_pixels(localized, camera, weight)

    def rows(coefficients: np.ndarray) -> np.ndarray:
        """All that the squares are of: mm in the picture at each vertex, then the prior."""
        moved = np.split(coefficients, [model.n_shape])
        points = model.vertices(*moved)[localized.vertices].astype(float)
        scale = camera.focal / camera.depth(points) if perspective else camera.scale
        miss = (camera.project(points) - localized.pixels) / np.broadcast_to(scale, count)[:, None]
        sigma = np.concatenate([model.shape_sigma, model.expression_sigma])
        prior = np.sqrt(weight) * coefficients / sigma
        return np.concatenate([miss.ravel() / np.sqrt(count), prior])

    found = np.concatenate([fit.shape, fit.expression])
    start = np.full(len(found), 0.1)
    best = least_squares(rows, start, diff_step=1e-2).x  # the mesh is float32
    assert np.allclose(found, best, atol=0.02 if perspective else 1e-3)
    assert np.abs(best).max() > 0.3


def test_the_weight_does_not_depend_on_the_number_of_vertices():
    *_, localized = random_localized(3, noise=1.0)
    thrice = Localized(*(np.concatenate([part] * 3) for part in vars(localized).values()))
    one, three = (fitter().coefficients(part, 1.0, limit=10**6) for part in (localized, thrice))
    assert np.allclose(one.shape, three.shape, atol=1e-5)


def test_several_pictures_agree_with_the_dense_system():
    model, weight = fitter().model, 0.3
    pictures = [random_localized(seed, noise=1.0)[2] for seed in range(4)]
    ks, ke, n = model.n_shape, model.n_expression, len(pictures)
    rows, right = [], []
    for k, picture in enumerate(pictures):
        a, b = stacked(picture)
        row = np.zeros((len(b), ks + n * ke))
        row[:, :ks], row[:, ks + k * ke : ks + (k + 1) * ke] = a[:, :ks], a[:, ks:]
        rows.append(row)
        right.append(b)
    sigma = np.concatenate([model.shape_sigma] + [model.expression_sigma] * n)
    rows.append(np.diag(np.sqrt(weight) / sigma))
    right.append(np.zeros(len(sigma)))
    expected = np.linalg.lstsq(np.vstack(rows), np.concatenate(right), rcond=None)[0]
    shape, expressions = fit_coefficients_multi(model, pictures, weight)
    assert np.allclose(shape, expected[:ks], atol=1e-4)
    assert np.allclose(expressions.ravel(), expected[ks:], atol=1e-4)


def test_one_picture_is_the_case_of_several():
    *_, localized = random_localized(5, noise=1.0)
    fit = fitter().coefficients(localized)
    shape, expressions = fitter().coefficients_multi(iter([localized]))
    assert np.allclose(shape, fit.shape)
    assert np.allclose(expressions, [fit.expression])


def test_a_shape_is_summed_up_picture_by_picture():
    """The same bits as all pictures at once, and expressions that can be asked for later."""
    seen = [random_localized(seed, noise=1.0)[2] for seed in range(3)]
    shape, expressions = fitter().coefficients_multi(seen)
    shared = SharedShape(fitter())
    with pytest.raises(P2FError, match="at least one picture"):
        shared.shape()
    for one in seen:
        shared.add(one)
    np.testing.assert_array_equal(shared.shape(), shape)
    for one, expression in zip(seen, expressions, strict=True):
        np.testing.assert_array_equal(shared.expression(one, shape), expression)


def test_more_pictures_find_the_shape_better():
    errors = []
    for n in (1, 4, 16):
        difference = []
        for first in range(100, 500, 50):
            people = [random_localized(first + k, noise=4.0, count=60) for k in range(n)]
            shape, _ = fitter().coefficients_multi((person[2] for person in people), 1e-4)
            difference.append(shape - people[0][0])
        errors.append(rms(np.array(difference)))
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.5 * errors[2]  # in theory 2 each


# ---------------------------------------------------------------------------------------------
# The whole


@pytest.mark.parametrize("yaw", [-75, -30, 0, 45])
@pytest.mark.parametrize("size", [64, 128])
def test_true_planes_give_the_true_face(size, yaw):
    _, _, vertices, camera, planes = scene(7, size, yaw)
    fit = fit_face(fitter(), *planes, camera.principal_point)
    seen = fit.localized.vertices
    assert rms(fit.vertices[seen] - vertices[seen]) < 0.15
    assert rms(fit.vertices - vertices) < 1.0  # the side that is out of sight is a guess
    assert degrees_between(fit.camera.rotation, camera.rotation) < 0.1
    assert fit.camera.focal == pytest.approx(camera.focal, rel=0.06)
    landed, expected = fit.camera.project(fit.vertices), camera.project(vertices)
    assert rms(landed[seen] - expected[seen]) < 0.0005 * size
    assert isinstance(fit.affine, AffineCamera)
    assert degrees_between(fit.affine.rotation, camera.rotation) < 8


def test_the_fit_also_takes_a_plain_model_and_a_known_focal_length():
    _, _, vertices, camera, planes = scene(8)
    fit = fit_face(fitter().model, *planes, camera.principal_point, focal=camera.focal)
    assert fit.camera.focal == pytest.approx(camera.focal)
    assert rms(fit.vertices - vertices) < 0.2


def test_a_known_camera_stays():
    *_, camera, planes = scene(8)
    found = fit_face(fitter(), *planes, camera.principal_point)
    known = fit_face(fitter(), *planes, camera.principal_point, camera=camera)
    assert known.camera is camera
    assert np.array_equal(known.shape, found.shape)


@pytest.mark.parametrize("known", [False, True])
def test_the_pncc_alone_moves_vertices_to_their_pixels(known):
    _, _, vertices, camera, (pncc, _, valid) = scene(8)
    given = {"camera": camera} if known else {}
    fit = fit_face(fitter(), pncc, None, valid, camera.principal_point, weight=0.002, **given)
    seen = fit.localized.vertices
    mean = fitter().model.mean
    misses = [
        rms(fit.camera.project(points[seen]) - fit.localized.pixels)
        for points in (fit.vertices, mean)
    ]
    assert misses[0] < 0.5 * misses[1]
    assert rms(fit.vertices[seen] - vertices[seen]) < 0.6 * rms(mean[seen] - vertices[seen])
    assert not fit.localized.offsets.any()


def test_smooth_noise_of_two_millimetres():
    _, _, vertices, camera, (pncc, offsets, valid) = scene(9)
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.normal(size=(2, *pncc.shape)), (0, 2, 2, 0))
    noise *= 2 / noise.std()
    fit = fit_face(
        fitter(),
        (pncc + noise[0]).astype(np.float32),
        (offsets + noise[1]).astype(np.float32),
        valid,
        camera.principal_point,
    )
    assert rms(fit.vertices - vertices) < 1.5
    assert degrees_between(fit.camera.rotation, camera.rotation) < 1.5
    assert rms(fit.camera.project(fit.vertices) - camera.project(vertices)) < 1.0


def test_thirty_percent_wrong_pixels():
    _, _, vertices, camera, (pncc, offsets, valid) = scene(10)
    rng = np.random.default_rng(0)
    y, x = np.nonzero(valid)
    wrong = rng.random(len(x)) < 0.3
    pncc = pncc.copy()
    pncc[y[wrong], x[wrong]] = pncc[y, x][rng.permutation(len(x))[wrong]]
    fit = fit_face(fitter(), pncc, offsets, valid, camera.principal_point)
    assert degrees_between(fit.camera.rotation, camera.rotation) < 0.5
    assert rms(fit.vertices - vertices) < 1.0


def test_half_the_face_hidden():
    _, _, vertices, camera, (pncc, offsets, valid) = scene(11, 128, 0.0)
    hidden = valid.copy()
    hidden[:, 64:] = False
    fit = fit_face(fitter(), pncc, offsets, hidden, camera.principal_point)
    seen = fit.localized.vertices
    assert rms(fit.vertices[seen] - vertices[seen]) < 0.2
    assert rms(fit.vertices - vertices) < 1.0
    assert degrees_between(fit.camera.rotation, camera.rotation) < 0.3


def test_the_same_planes_give_the_same_bits():
    *_, camera, planes = scene(12)
    first, second = (fit_face(fitter(), *planes, camera.principal_point) for _ in range(2))
    assert np.array_equal(first.vertices, second.vertices)
    assert np.array_equal(first.camera.rotation, second.camera.rotation)


# ---------------------------------------------------------------------------------------------
# Wrong input


def test_wrong_planes_get_a_sentence():
    *_, camera, (pncc, offsets, valid) = scene(0)
    with pytest.raises(P2FError, match=r"\(H, W, 3\)"):
        valid_mask(pncc[..., :2])
    with pytest.raises(P2FError, match="must match"):
        correspondences(pncc, offsets[:-1], valid)
    with pytest.raises(P2FError, match="must match"):
        fitter().localize(pncc, offsets, valid.astype(float))
    with pytest.raises(P2FError, match="at least 10"):
        fit_face(fitter(), pncc, offsets, np.zeros_like(valid), camera.principal_point)
    with pytest.raises(P2FError, match="at least 10"):
        fit_face(fitter(), pncc * np.nan, offsets, valid, camera.principal_point)


def test_wrong_localized_vertices_get_a_sentence():
    *_, localized = random_localized(6, count=9)
    with pytest.raises(P2FError, match="at least 10"):
        fit_coefficients(fitter().model, localized)
    *_, localized = random_localized(6)
    localized.offsets[5] = np.nan
    with pytest.raises(P2FError, match="NaN"):
        fit_coefficients(fitter().model, localized)
    with pytest.raises(P2FError, match="at least one picture"):
        fit_coefficients_multi(fitter().model, [])
