"""What the notebooks measure: each function is one experiment and returns its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from p2f_lib import evaluation
from p2f_lib.camera import Pose
from p2f_lib.crop import Box
from p2f_lib.datasets.photos import AnnotatedPhoto
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.evaluation import errors_2d
from p2f_lib.fitting import FaceFit, Fitter, Localized, fit_face, valid_mask
from p2f_lib.ground_truth import SampleBatch, sample_coefficients
from p2f_lib.images import read_image
from p2f_lib.landmarks import MARKUPS, Selection, select_vertices
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.reconstruction import Face, Reconstructor
from p2f_lib.synthesis import Sample, render_sample

INNER = slice(17, 68)  # of the iBUG 68: all but the jaw line, on which annotators and models differ


def render_frames(
    model: MorphableModel, seed: int, count: int, size: int, first: int = 0
) -> list[Sample]:
    """Synthetic photographs with their truth; other seeds than the training's show other people."""
    return [
        render_sample(model, seed, index, size=size)
        for index in tqdm(range(first, first + count), "frames")
    ]


# ---------------------------------------------------------------- fitting (notebook 4)


def fit_errors(
    reconstructor: Reconstructor, frames: Sequence[Sample]
) -> dict[str, dict[str, float]]:
    """Errors of the mean face, of the network, and of the oracle that gets true planes.

    Returns
    -------
    {method: {"mesh_mm": mean distance of the vertices in model space, "pose_degrees": mean absolute
    error of yaw, pitch and roll, "landmarks_percent": of the 68 points, over the box size
    sqrt(w h), "frames": in which the method found a face}}
    """
    model = reconstructor.model
    rows: dict[str, list[tuple[float, float, float]]] = {
        "mean face": [],
        "network": [],
        "oracle": [],
    }
    for frame in tqdm(frames, "fits"):
        truth = model.vertices(frame.shape, frame.expression)
        found: dict[str, FaceFit | Face | None] = {"oracle": _oracle(reconstructor.fitter, frame)}
        try:
            found["network"] = reconstructor.reconstruct(frame.image, Box.around(frame.landmarks))
        except NoFaceError:
            found["network"] = None
        for name, fit in found.items():
            if fit is None:
                continue
            points = fit.camera.project(fit.vertices[model.landmarks["ibug68"]])
            rows[name].append(
                (
                    float(np.linalg.norm(fit.vertices - truth, axis=1).mean()),
                    _pose_error(fit.camera.pose, frame.camera.pose),
                    100 * float(errors_2d(points, frame.landmarks, "size")),
                )
            )
        baseline = evaluation.mean_face_in_box(
            model, Box.around(frame.landmarks), "ibug68", scale=1.0, drop=0.0
        )
        rows["mean face"].append(
            (
                float(np.linalg.norm(model.mean - truth, axis=1).mean()),
                _pose_error(Pose(0, 0, 0), frame.camera.pose),
                100 * float(errors_2d(baseline, frame.landmarks, "size")),
            )
        )
    names = ("mesh_mm", "pose_degrees", "landmarks_percent")
    return {
        method: dict(zip(names, np.mean(values, axis=0).tolist(), strict=True))
        | {"frames": len(values)}
        for method, values in rows.items()
        if values
    }


def weight_errors(
    reconstructor: Reconstructor, frames: Sequence[Sample], weights: Sequence[float]
) -> np.ndarray:
    """(W,) mm: mean vertex error of meshes fitted with each Tikhonov weight (Eq. 4).

    Parameters
    ----------
    frames : rendered faces, of people that the network hasn't seen.
    weights : mm^2, see `p2f_lib.fitting.WEIGHT`.

    Raises
    ------
    P2FError
        The network finds no face in any frame.
    """
    model, errors = reconstructor.model, []
    for frame in tqdm(frames, "fits"):
        truth = model.vertices(frame.shape, frame.expression)
        try:
            face = reconstructor.reconstruct(frame.image, Box.around(frame.landmarks))
        except NoFaceError:
            continue
        fits = [reconstructor.fitter.coefficients(face.localized, weight) for weight in weights]
        meshes = (model.vertices(fit.shape, fit.expression) for fit in fits)
        errors.append([np.linalg.norm(mesh - truth, axis=1).mean() for mesh in meshes])
    if not errors:
        raise P2FError(f"The network found no face in any of {len(frames)} rendered frames.")
    return np.mean(errors, axis=0)


def _oracle(fitter: Fitter, frame: Sample) -> FaceFit:
    height, width = frame.valid.shape
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    return fit_face(fitter, frame.pncc, frame.offsets, valid_mask(frame.pncc), center)


def _pose_error(pose: Pose, truth: Pose) -> float:
    difference = np.array([pose.yaw - truth.yaw, pose.pitch - truth.pitch, pose.roll - truth.roll])
    return float(np.abs((difference + 180) % 360 - 180).mean())


def select_landmarks(
    reconstructor: Reconstructor, frames: Sequence[Sample], markup: str, radius: float
) -> Selection:
    """Section 4 on synthetic frames: meshes as fitted, landmarks as rendered."""
    model = reconstructor.model

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for frame in tqdm(frames, "landmark frames"):
            truth = frame.camera.project(
                model.vertices(frame.shape, frame.expression)[model.landmarks[markup]]
            )
            try:
                face = reconstructor.reconstruct(frame.image, Box.around(frame.landmarks))
            except NoFaceError:
                continue
            yield face.project(face.vertices), truth

    return select_vertices(
        pairs(), markup=markup, current=model.landmarks[markup], vertices=model.mean, radius=radius
    )


def several_photos(
    reconstructor: Reconstructor, seed: int, people: int, views: int, size: int
) -> np.ndarray:
    """Error of a person's neutral mesh against the number of photos (Eq. 5).

    Returns
    -------
    (people, views) float
        Mean distance of the vertices in mm, fitted to the first 1, 2, ... photos.
    """
    model = reconstructor.model
    errors = np.zeros((people, views))
    for person in tqdm(range(people), "people"):
        first = person * views
        shape, _ = sample_coefficients(model, np.random.default_rng([seed, first]))
        truth = model.vertices(shape)
        localized: list[Localized] = []
        for view in range(views):
            frame = render_sample(model, seed, first + view, size=size, shape=shape)
            try:
                face = reconstructor.reconstruct(frame.image, Box.around(frame.landmarks))
                localized.append(face.localized)
            except NoFaceError:
                pass
            fitted = reconstructor.fitter.coefficients_multi(localized)[0] if localized else None
            errors[person, view] = np.linalg.norm(model.vertices(fitted) - truth, axis=1).mean()
    return errors


# ---------------------------------------------------------------- annotated photographs


@dataclass(frozen=True, eq=False)
class PhotoErrors:
    """Errors on annotated photographs, as fractions of the distance of the outer eye corners.

    Attributes
    ----------
    inner, all : (N,) mean over the 51 inner and over all 68 points; inf where no face was seen.
    """

    inner: np.ndarray
    all: np.ndarray

    def summary(self, limit: float) -> dict[str, float]:
        """Means over the photos with a face (inf without any), and how many exceed `limit`."""
        seen = np.isfinite(self.inner)
        inner, everything = (
            (self.inner[seen], self.all[seen]) if seen.any() else (self.inner, self.all)
        )
        return {
            "photos": len(self.inner),
            "inner_mean": float(inner.mean()),
            "inner_median": float(np.median(inner)),
            "all_mean": float(everything.mean()),
            "failures": int((self.inner > limit).sum()),
            "unseen": int((~seen).sum()),
        }


def reconstruct_photos(
    reconstructor: Reconstructor, photos: Sequence[AnnotatedPhoto], progress: bool = True
) -> Iterator[Face | None]:
    """The face in each photo's annotated box, None where the network sees none."""
    for photo in tqdm(photos, "photos", disable=not progress):
        try:
            yield reconstructor.reconstruct(read_image(photo.path), photo.box)
        except NoFaceError:
            yield None


def photo_errors(
    reconstructor: Reconstructor, photos: Sequence[AnnotatedPhoto], progress: bool = True
) -> PhotoErrors:
    """iBUG landmark errors in given boxes."""
    inner, everything = [], []
    found = reconstruct_photos(reconstructor, photos, progress)
    for photo, face in zip(photos, found, strict=True):
        if face is None:
            inner.append(np.inf)
            everything.append(np.inf)
            continue
        distance = np.linalg.norm(face.landmarks("ibug68") - photo.landmarks, axis=1)
        interocular = evaluation.interocular_distance(photo.landmarks)
        inner.append(distance[INNER].mean() / interocular)
        everything.append(distance.mean() / interocular)
    return PhotoErrors(np.array(inner), np.array(everything))


def select_photo_landmarks(
    reconstructor: Reconstructor,
    photos: Sequence[AnnotatedPhoto],
    radius: float,
    markup: str = "ibug68",
    start: np.ndarray | None = None,
) -> Selection:
    """Section 4 on annotated photographs: the vertices that fitted meshes put nearest.

    Networks and annotators differ in where a brow begins; no synthetic picture knows it.

    Parameters
    ----------
    radius : mm about the vertices of `start` that are searched, and again about what was found.
    markup : of the photographs.
    start : (L,) vertices; without them the whole mesh is searched.

    Returns
    -------
    Selection
        Its `error_before` is that of `start`.
    """
    first = _selection(reconstructor, photos, markup, start, radius)
    if start is None:
        return first
    second = _selection(reconstructor, photos, markup, first.indices, radius)
    return replace(second, error_before=first.error_before)


def landmark_vertex_errors(
    reconstructor: Reconstructor,
    photos: Sequence[AnnotatedPhoto],
    vertices: np.ndarray,
    markup: str = "ibug68",
) -> np.ndarray:
    """(L,) mean distance of landmarks to mesh vertices, as of `select_photo_landmarks`."""
    return _selection(reconstructor, photos, markup, vertices, 0.0).error_before


def _selection(
    reconstructor: Reconstructor,
    photos: Sequence[AnnotatedPhoto],
    markup: str,
    current: np.ndarray | None,
    radius: float,
) -> Selection:
    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for photo, face in zip(photos, reconstruct_photos(reconstructor, photos), strict=True):
            if face is not None:
                yield face.project(face.vertices), photo.landmarks

    return select_vertices(
        pairs(),
        markup=markup if markup in MARKUPS else None,
        current=current,
        vertices=reconstructor.model.mean,
        radius=None if current is None else radius,
    )


def sample_errors(reconstructor: Reconstructor, samples: SampleBatch) -> np.ndarray:
    """(N,) mean error of the 68 landmarks over ``sqrt(w h)`` of their box, of the faces in samples.

    1 where the network sees no face: the landmarks are a box away, as it were.
    """
    errors = []
    for row in np.flatnonzero(samples.is_face):
        truth = samples.landmarks[row].astype(np.float64)
        try:
            face = reconstructor.reconstruct(samples.images[row], Box.around(truth))
        except NoFaceError:
            errors.append(1.0)
            continue
        distance = np.linalg.norm(face.landmarks("ibug68") - truth, axis=1).mean()
        errors.append(distance / evaluation.box_size(truth[None])[0])
    return np.array(errors)
