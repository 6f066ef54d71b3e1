"""Landmark mark-ups, the choice of mesh vertices for them (section 4), and their visibility.

Left and right are those of the picture: in both mark-ups the jaw runs from picture left to right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.spatial import cKDTree
from tqdm import tqdm

from p2f_lib.camera import Camera, PerspectiveCamera
from p2f_lib.errors import P2FError
from p2f_lib.rasterizer import rasterize

MARKUPS = {"ibug68": 68, "menpo84": 84}
OUTER_EYE_CORNERS = {"ibug68": (36, 45), "menpo84": (52, 61)}

_IBUG68_GROUPS = {
    "jaw": range(17),
    "left_brow": range(17, 22),
    "right_brow": range(22, 27),
    "nose": range(27, 36),
    "left_eye": range(36, 42),
    "right_eye": range(42, 48),
    "outer_mouth": range(48, 60),
    "inner_mouth": range(60, 68),
}
# The Menpo 84 are the iBUG 68 with a jaw of 33 instead of 17 points.
_MENPO84_GROUPS = {
    name: range(33) if name == "jaw" else range(group.start + 16, group.stop + 16)
    for name, group in _IBUG68_GROUPS.items()
}
GROUPS: dict[str, dict[str, range]] = {"ibug68": _IBUG68_GROUPS, "menpo84": _MENPO84_GROUPS}

# Every second point of the fine jaw, then everything else.
IBUG68_IN_MENPO84 = np.concatenate([np.arange(0, 33, 2), np.arange(33, 84)])

_IBUG68_MIRROR = np.concatenate(
    [
        np.arange(16, -1, -1),  # jaw
        np.arange(26, 16, -1),  # brows
        np.arange(27, 31),  # bridge
        np.arange(35, 30, -1),  # nostrils
        [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],  # eyes
        [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55],  # outer lip line
        [64, 63, 62, 61, 60, 67, 66, 65],  # inner lip line
    ]
)
# In a mirrored picture, landmark i is at the mirrored place of landmark MIRRORED[markup][i].
MIRRORED = {
    "ibug68": _IBUG68_MIRROR,
    "menpo84": np.concatenate([np.arange(32, -1, -1), _IBUG68_MIRROR[17:] + 16]),
}


def menpo84_to_ibug68(points: np.ndarray) -> np.ndarray:
    """(..., 84, D) points to (..., 68, D)."""
    _check_markup(points, "menpo84")
    return points[..., IBUG68_IN_MENPO84, :]


def ibug68_to_menpo84(points: np.ndarray) -> np.ndarray:
    """(..., 68, D) points to (..., 84, D); the 16 jaw points between are midpoints."""
    _check_markup(points, "ibug68")
    result = np.empty((*points.shape[:-2], 84, points.shape[-1]), np.result_type(points, 0.5))
    result[..., IBUG68_IN_MENPO84, :] = points
    result[..., 1:32:2, :] = (points[..., :16, :] + points[..., 1:17, :]) / 2
    return result


@dataclass(frozen=True, eq=False)
class Selection:
    """The outcome of `select_vertices`, one entry a landmark.

    Attributes
    ----------
    indices : (L,) int32 chosen vertices
    error : (L,) mean distance of the chosen vertex, in units of each frame's face size
    error_before : (L,) the same of the current vertices; NaN when there were none
    frames : (L,) int, frames in which the landmark was annotated
    """

    indices: np.ndarray
    error: np.ndarray
    error_before: np.ndarray
    frames: np.ndarray


def select_vertices(
    frames: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    markup: str | None = None,
    current: np.ndarray | None = None,
    vertices: np.ndarray | None = None,
    radius: float | None = None,
    progress: bool = False,
) -> Selection:
    """Per landmark the mesh vertex of least mean reprojection error over the frames (section 4).

    Frames are read one by one; memory does not grow with their number. Distances are divided by
    the frame's face size: the distance of the outer eye corners where `markup` says which these
    are and both are annotated, otherwise the mean side of the annotation's box.

    Parameters
    ----------
    frames : pairs of the projected mesh (V, 2) and the annotation (L, 2), in pixels. NaN rows stand
        for vertices or landmarks that do not count in this frame. A vertex can only be chosen for
        a landmark when it counts in at least half of the landmark's frames.
    markup : "ibug68", "menpo84", or None for any other
    current : (L,) vertices used so far: the figure to beat, and what a landmark without any
        annotation keeps
    vertices : (V, 3) mean face, mm; needed with `radius`
    radius : mm; only vertices this near to the current one are considered, which keeps a landmark
        with few annotations from jumping across the face
    progress : show a bar

    Raises
    ------
    P2FError
        No frames, frames of different size, or a landmark that is never annotated and has no
        current vertex.
    """
    if radius is not None and (current is None or vertices is None):
        raise P2FError("A search radius needs the current vertices and the mean face.")
    pairs = None
    for projected, truth in tqdm(frames, "landmark vertices", disable=not progress):
        projected, truth = np.asarray(projected, float), np.asarray(truth, float)
        if pairs is None:
            pairs = _Pairs.build(projected, truth, markup, current, vertices, radius)
        pairs.add(projected, truth)
    if pairs is None:
        raise P2FError("Choosing landmark vertices needs at least one annotated frame, got none.")
    return pairs.selection()


class _Pairs:
    """Running error sums of (landmark, candidate vertex) pairs, sorted by landmark."""

    def __init__(
        self, shapes: tuple, markup: str | None, current: np.ndarray | None, candidates: list
    ) -> None:
        self.shapes, self.markup, self.current = shapes, markup, current
        self.landmark = np.repeat(np.arange(len(candidates)), [len(c) for c in candidates])
        self.vertex = np.concatenate(candidates)
        self.sum, self.count = np.zeros(len(self.vertex)), np.zeros(len(self.vertex), int)
        self.sum_before, self.count_before = np.zeros((2, len(candidates)))
        self.frames = np.zeros(len(candidates), int)

    @classmethod
    def build(
        cls,
        projected: np.ndarray,
        truth: np.ndarray,
        markup: str | None,
        current: np.ndarray | None,
        vertices: np.ndarray | None,
        radius: float | None,
    ) -> _Pairs:
        n_vertices, n_landmarks = len(projected), len(truth)
        if markup is not None and MARKUPS.get(markup) != n_landmarks:
            raise P2FError(
                f"Mark-up {markup!r} does not have {n_landmarks} points; "
                f"known are {MARKUPS}, and None for any other."
            )
        if current is not None:
            current = np.asarray(current)
            if current.shape != (n_landmarks,) or not (
                0 <= current.min() <= current.max() < n_vertices
            ):
                raise P2FError(
                    f"The current vertices must be {n_landmarks} indices below {n_vertices}."
                )
        if radius is None or current is None or vertices is None:
            candidates = [np.arange(n_vertices)] * n_landmarks
        else:
            if len(vertices) != n_vertices:
                raise P2FError(
                    f"The mean face has {len(vertices)} vertices, the frames have {n_vertices}."
                )
            near = cKDTree(vertices).query_ball_point(vertices[current], radius)
            candidates = [np.sort(np.asarray(c, int)) for c in near]
        return cls((projected.shape, truth.shape), markup, current, candidates)

    def add(self, projected: np.ndarray, truth: np.ndarray) -> None:
        if (projected.shape, truth.shape) != self.shapes:
            raise P2FError(
                f"All frames need the same mesh and mark-up: expected {self.shapes}, "
                f"got {(projected.shape, truth.shape)}."
            )
        annotated = np.isfinite(truth).all(axis=1)
        if annotated.sum() < 2:
            return
        size = _face_size(truth, self.markup)
        self.frames += annotated
        _accumulate(self.sum, self.count, projected[self.vertex], truth[self.landmark], size)
        if self.current is not None:
            before = projected[self.current]
            _accumulate(self.sum_before, self.count_before, before, truth, size)

    def selection(self) -> Selection:
        n_landmarks = len(self.frames)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self.sum / self.count
            before = self.sum_before / self.count_before
        enough = (self.count > 0) & (2 * self.count >= self.frames[self.landmark])
        mean = np.where(enough, mean, np.inf)
        bounds = np.searchsorted(self.landmark, np.arange(n_landmarks + 1))
        indices, error = np.empty(n_landmarks, np.int32), np.empty(n_landmarks)
        for k, (first, last) in enumerate(pairwise(bounds)):
            best = first + mean[first:last].argmin()
            indices[k], error[k] = self.vertex[best], mean[best]
            if np.isinf(error[k]):
                if self.current is None:
                    raise P2FError(f"Landmark {k} is annotated in no frame and has no vertex yet.")
                indices[k], error[k] = self.current[k], np.nan
        return Selection(indices, error, before, self.frames)


def visible_vertices(
    vertices: np.ndarray, triangles: np.ndarray, camera: Camera, size: int = 256
) -> np.ndarray:
    """(V,) bool: vertices that the mesh itself does not hide from the camera (z-buffer).

    A vertex is visible when one of its triangles faces the camera and nothing lies in front of it
    in a depth buffer of the mesh alone. Self-occlusion only: hands and hair are not known.

    Parameters
    ----------
    vertices : (V, 3) mm
    triangles : (F, 3), counter-clockwise seen from outside
    camera : any; only the mesh's own extent in the picture matters
    size : side of the depth buffer in pixels
    """
    depth = camera.depth(vertices)
    pixels = camera.project(vertices)
    low = pixels.min(axis=0)
    pixels = (pixels - low) * (size - 3) / np.ptp(pixels, axis=0).max() + 1
    raster = rasterize(
        pixels, depth, triangles, size, size, perspective=isinstance(camera, PerspectiveCamera)
    )
    edge1, edge2 = (pixels[triangles[:, k]] - pixels[triangles[:, 0]] for k in (1, 2))
    front = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0] < 0  # y runs down
    facing = np.zeros(len(vertices), bool)
    facing[triangles[front]] = True
    # The surface rises or falls between pixel centres: the farthest of the four around a vertex
    # stands for it, and a millimetre is forgiven.
    x, y = np.floor(pixels).astype(int).T
    around = np.max([raster.depth[y + j, x + i] for j in (0, 1) for i in (0, 1)], axis=0)
    return facing & (depth <= around + 1.0)


def _accumulate(
    total: np.ndarray, count: np.ndarray, a: np.ndarray, b: np.ndarray, size: float
) -> None:
    distance = np.hypot(*(a - b).T) / size
    known = np.isfinite(distance)
    total += np.where(known, distance, 0.0)
    count += known


def _face_size(truth: np.ndarray, markup: str | None) -> float:
    if markup is not None:
        left, right = OUTER_EYE_CORNERS[markup]
        size = float(np.linalg.norm(truth[left] - truth[right]))
        if np.isfinite(size) and size > 0:
            return size
    return float(np.mean(np.nanmax(truth, axis=0) - np.nanmin(truth, axis=0)))


def _check_markup(points: np.ndarray, markup: str) -> None:
    if points.ndim < 2 or points.shape[-2] != MARKUPS[markup]:
        raise P2FError(
            f"{markup} points must have shape (..., {MARKUPS[markup]}, D), got {points.shape}."
        )
