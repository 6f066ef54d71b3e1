"""How exact sections 3.3 and 3.4 are when the network makes no mistakes, or known ones.

True PNCC and offsets of random people are rendered, spoilt in one way at a time, and fitted: what
is left is the error of localisation, least squares and the prior.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from p2f_lib.camera import PerspectiveCamera, fit_affine, fit_perspective
from p2f_lib.evaluation import errors_2d
from p2f_lib.fitting import WEIGHT, Fitter, correspondences, fit_face, valid_mask
from p2f_lib.ground_truth import (
    CameraDistribution,
    ibug68,
    place_camera,
    render_vertices,
    sample_coefficients,
    sample_view,
)
from p2f_lib.morphable_model import MorphableModel

NOISE = 2.0  # mm, standard deviation of each coordinate
SUBSETS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
PHOTOS = (1, 2, 3, 4, 6, 8, 12, 16)
REPEATS = 5  # of each timed fit


@dataclass(frozen=True)
class Condition:
    """What is done to the true planes.

    Attributes
    ----------
    name : for tables.
    size : pixels a side.
    noise : mm, standard deviation of each coordinate of PNCC and offsets.
    smooth : pixels over which the noise is alike; 0 for independent pixels.
    wrong : share of the pixels that say anything.
    hidden : the right half of the picture shows no face.
    yaw : degrees, to either side; None for the views of the training.
    weight : of the prior, see `p2f_lib.fitting.WEIGHT`.
    offsets : give the fit the offsets, or the PNCC alone.
    camera : give the fit the true camera.
    """

    name: str
    size: int = 256
    noise: float = 0.0
    smooth: float = 0.0
    wrong: float = 0.0
    hidden: bool = False
    yaw: float | None = None
    weight: float = WEIGHT
    offsets: bool = True
    camera: bool = False


CONDITIONS = (
    Condition("true planes, hardly any prior", weight=1e-4),
    Condition("true planes"),
    Condition("noise of 2 mm in every pixel", noise=NOISE),
    Condition("noise of 2 mm, alike over 8 pixels", noise=NOISE, smooth=8.0),
    Condition("30 % wrong pixels", wrong=0.3),
    Condition("half of the picture hidden", hidden=True),
    Condition("64 x 64 pixels", size=64),
    Condition("profiles of 80 degrees", yaw=80.0),
    Condition("PNCC alone", offsets=False),
    Condition("PNCC alone, known camera", offsets=False, camera=True),
)


@dataclass(frozen=True, eq=False)
class SpoiltPlanes:
    """A random face: the truth, and what a network with a known fault would say.

    Attributes
    ----------
    vertices : (V, 3) mm, camera : the truth.
    pncc, offsets : (S, S, 3) float32, mm.
    valid : (S, S) bool, as of `valid_mask`.
    """

    vertices: np.ndarray
    camera: PerspectiveCamera
    pncc: np.ndarray
    offsets: np.ndarray
    valid: np.ndarray


def random_planes(
    model: MorphableModel,
    condition: Condition,
    rng: np.random.Generator,
    shape: np.ndarray | None = None,
) -> SpoiltPlanes:
    """A random person and view under a condition; `shape` (Ks,) of a given person."""
    drawn, expression = sample_coefficients(model, rng)
    shape = drawn if shape is None else shape
    view = sample_view(rng, CameraDistribution(box_scale=1.4))
    if condition.yaw is not None:
        view = replace(view, yaw=condition.yaw * rng.choice([-1.0, 1.0]))
    vertices = model.vertices(shape, expression)
    camera = place_camera(view, ibug68(model, vertices), condition.size)
    truth = render_vertices(model, vertices, camera, condition.size, condition.size)
    planes = np.concatenate([truth.pncc, truth.offsets], axis=2)
    if condition.noise:
        planes = planes + _noise(condition, rng) * truth.valid[..., None]
    if condition.wrong:
        wrong = truth.valid & (rng.random(truth.valid.shape) < condition.wrong)
        low, high = model.mean.min(axis=0), model.mean.max(axis=0)
        planes[wrong, :3] = rng.uniform(low, high, (wrong.sum(), 3))
        planes[wrong, 3:] = rng.normal(0, 10, (wrong.sum(), 3))
    if condition.hidden:
        planes[:, condition.size // 2 :] = 0
    pncc, offsets = np.split(planes.astype(np.float32), 2, axis=2)
    return SpoiltPlanes(vertices, camera, pncc, offsets, valid_mask(pncc))


def _noise(condition: Condition, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 6) mm."""
    noise: np.ndarray = rng.normal(0, condition.noise, (condition.size, condition.size, 6))
    if condition.smooth:
        noise = cv2.GaussianBlur(noise, (0, 0), condition.smooth)
        noise *= condition.noise / noise.std()
    return noise


def _people(
    model: MorphableModel, condition: Condition, seed: int, count: int
) -> Iterator[SpoiltPlanes]:
    for number in tqdm(range(count), condition.name):
        yield random_planes(model, condition, np.random.default_rng([seed, number]))


def fit_errors(
    model: MorphableModel,
    seed: int,
    people: int,
    conditions: Sequence[Condition] = CONDITIONS,
) -> list[dict[str, float | str]]:
    """Means over random people, a row a condition.

    Returns
    -------
    rows with `condition`; `seen_mm` and `mesh_mm`, the distance between fitted and true vertices
    where the picture shows them and over the whole mesh; `pose_degrees`, the angle between fitted
    and true head; `landmarks_percent`, 68 points in the picture, % of the true box's ``sqrt(w h)``.
    """
    fitter, rows = Fitter(model), []
    for condition in conditions:
        found = []
        for truth in _people(model, condition, seed, people):
            center = np.full(2, (condition.size - 1) / 2)
            planes = truth.pncc, truth.offsets if condition.offsets else None, truth.valid
            known = truth.camera if condition.camera else None
            fit = fit_face(fitter, *planes, center, weight=condition.weight, camera=known)
            distance = np.linalg.norm(fit.vertices - truth.vertices, axis=1)
            points = fit.camera.project(ibug68(model, fit.vertices))
            marks = truth.camera.project(ibug68(model, truth.vertices))
            found.append(
                (
                    distance[fit.localized.vertices].mean(),
                    distance.mean(),
                    _angle(fit.camera, truth.camera),
                    100 * float(errors_2d(points, marks, "size")),
                )
            )
        names = ("seen_mm", "mesh_mm", "pose_degrees", "landmarks_percent")
        means = np.mean(found, axis=0).tolist()
        rows.append({"condition": condition.name, **dict(zip(names, means, strict=True))})
    return rows


def camera_by_subset(
    model: MorphableModel, seed: int, people: int, subsets: Sequence[int] = SUBSETS
) -> tuple[np.ndarray, np.ndarray]:
    """Cameras from random subsets of the pixels, of which a tenth is wrong and all are noisy.

    Returns
    -------
    degrees : (S, people), angle between the perspective camera and the true one.
    milliseconds : (S, people), median time of affine and perspective camera together.
    """
    condition = Condition("cameras from subsets of pixels", noise=NOISE, wrong=0.1)
    degrees, milliseconds = np.empty((2, len(subsets), people))
    for person, truth in enumerate(_people(model, condition, seed, people)):
        center = np.full(2, (condition.size - 1) / 2)
        for row, subset in enumerate(subsets):
            times = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                pairs = correspondences(truth.pncc, truth.offsets, truth.valid, subset)
                affine = fit_affine(pairs, subset)
                camera = fit_perspective(pairs, center, affine, subset=subset)
                times.append(time.perf_counter() - start)
            degrees[row, person] = _angle(camera, truth.camera)
            milliseconds[row, person] = 1e3 * np.median(times)
    return degrees, milliseconds


def shape_by_photos(
    model: MorphableModel, seed: int, people: int, photos: Sequence[int] = PHOTOS
) -> np.ndarray:
    """(P, people) mm: error of the neutral mesh from so many photos of a person (Eq. 5).

    Each shows the person from elsewhere with another expression; the noise is alike over 8 pixels,
    or a single photo would leave nothing to gain.
    """
    condition = next(c for c in CONDITIONS if c.smooth)
    fitter, errors = Fitter(model), np.empty((len(photos), people))
    for person in tqdm(range(people), "photos of a person"):
        rng = np.random.default_rng([seed, person])
        shape = sample_coefficients(model, rng)[0]
        neutral, localized = model.vertices(shape), []
        for _ in range(max(photos)):
            truth = random_planes(model, condition, rng, shape)
            localized.append(fitter.localize(truth.pncc, truth.offsets, truth.valid))
        for row, count in enumerate(photos):
            fitted, _ = fitter.coefficients_multi(localized[:count])
            distance = np.linalg.norm(model.vertices(fitted) - neutral, axis=1)
            errors[row, person] = distance.mean()
    return errors


def _angle(camera: PerspectiveCamera, truth: PerspectiveCamera) -> float:
    """Degrees by which one has to be turned into the other."""
    return float(np.degrees(Rotation.from_matrix(camera.rotation.T @ truth.rotation).magnitude()))
