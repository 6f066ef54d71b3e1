"""The rest of the person: what a face mesh lacks, grown from its own boundary and landmarks.

A face model ends at the ears and at a little neck, and its lips are a hole. `Anatomy` adds the back
of the head, the inside of the mouth with two rows of teeth, a neck and shoulders, and knows once
for all from which directions light reaches each of their points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numba
import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from p2f_lib.morphable_model import MorphableModel, boundary_loops, triangles_around
from p2f_lib.rasterizer import rasterize

SKIN, EYE, MOUTH, TEETH, LOWER_TEETH, CLOTH = range(6)  # materials of triangles

LOFT_STEPS = np.array([0.0, 0.1, 0.22, 0.36, 0.52, 0.7, 0.86, 0.97])  # boundary to back of head
BACK_POLE = np.array([0.0, 0.05, -1.0])
SKULL = np.array([0.54, 0.62, 0.70])  # half axes of the skull, face widths
TEETH_COLUMNS = 17
AROUND = 32  # vertices of a ring of neck or torso
NECK_RINGS = 8
# Torso outline: height, half width, half depth, forward shift; in face widths, from the neck's base
TORSO = np.array(
    [[0.14, 0.40, 0.37, 0.00], [0.02, 0.52, 0.46, -0.02], [-0.05, 0.72, 0.48, -0.05],
     [-0.11, 0.96, 0.52, -0.06], [-0.18, 1.18, 0.58, -0.06], [-0.30, 1.36, 0.64, -0.04],
     [-0.52, 1.46, 0.70, 0.00], [-0.95, 1.50, 0.74, 0.04], [-1.60, 1.46, 0.78, 0.06],
     [-2.60, 1.42, 0.80, 0.06]]
)  # fmt: skip
_AXIS = np.zeros(len(TORSO))
_TORSO_SIZES = np.stack([TORSO[:, 1], _AXIS, TORSO[:, 2]], 1)
_TORSO_PLACES = np.stack([_AXIS, TORSO[:, 0], TORSO[:, 3]], 1)
_TURNS = 2 * np.pi * np.arange(AROUND) / AROUND
_CIRCLE = np.stack([np.sin(_TURNS), 0 * _TURNS, np.cos(_TURNS)], 1)
_SHOULDERS = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** 0.8  # less round than ellipses
_NECK_STEPS = np.linspace(0, 1, NECK_RINGS)[:, None, None]
_NECK_BLEND = _NECK_STEPS**2 * (3 - 2 * _NECK_STEPS)
_NARROW = np.minimum(_NECK_STEPS / 0.35, 1)
_NECK_CIRCLES = _CIRCLE * (0.75 + 0.25 * _NARROW**2 * (3 - 2 * _NARROW))
N_DIRECTIONS = 96  # of incoming light
SCALP_POLAR = np.radians(np.linspace(1, 102, 18))  # rows of directions, from the crown down
SCALP_AROUND = 64  # columns of directions, from the back over picture left and the front
SCALP_ANGLES = 2 * np.pi * np.arange(SCALP_AROUND) / SCALP_AROUND - np.pi  # 0 is the front


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Topology of the whole person, fixed for a face model.

    Attributes
    ----------
    triangles : (F, 3) int32, the face mesh's own triangles first.
    material : (F,) uint8, one of SKIN, EYE, MOUTH, TEETH, LOWER_TEETH, CLOTH.
    n_face, n_total : vertices of the face model and of the whole person.
    rim : (B,) the face mesh's outer boundary, in order; empty for a closed mesh.
    lips : (M,) boundary of the mouth hole; empty when there is none.
    upper_teeth, lower_teeth : indices into the vertices, the lip line above and below the gap.
    landmarks : (68,) vertex indices.
    eye_distance, face_width : of the mean face, mm.
    regions : (V, R) float32 masks of the face's skin, columns `REGION_NAMES`.
    details : (V, 8) float32: place along the brow (0 to 1), upper lid line, lower lid line, lips,
        gaze x, gaze y (mm), beard, height in the brow (mm).
    coordinates : (n_total, 3) float32 mean positions, where noise is looked up.
    directions : (D, 3) unit vectors, model space, from which light may come.
    visibility : (n_total, D) float32, 1 where the direction is open, 0 where the person is in the
        way.
    skull_index : (rows, columns) vertices of the head without ears, one for each direction of
        `scalp_directions`: where hair and hats rest.
    scalp_angle, scalp_height : (n_total,) where each vertex lies around the head (radians, 0 is the
        front) and above the eyes (face widths); far below the eyes where no hair grows.
    torso_origin : (3,) the middle of the neck's base, mm, on the mean person.
    lit_by, lit_share : (n_total, 3) vertices at which light is worked out, and their shares, for
        every vertex: light is smooth, so that a subdivided face needs it on the coarse mesh only.
    """

    triangles: np.ndarray
    material: np.ndarray
    n_face: int
    n_total: int
    rim: np.ndarray
    lips: np.ndarray
    upper_teeth: np.ndarray
    lower_teeth: np.ndarray
    landmarks: np.ndarray
    eye_distance: float
    face_width: float
    regions: np.ndarray
    details: np.ndarray
    coordinates: np.ndarray
    directions: np.ndarray
    visibility: np.ndarray
    skull_index: np.ndarray
    scalp_angle: np.ndarray
    scalp_height: np.ndarray
    torso_origin: np.ndarray
    lit_by: np.ndarray
    lit_share: np.ndarray

    @cached_property
    def drawn_on(self) -> np.ndarray:
        """(F,) uint8 bits of triangles: 1 for brows, lines of the lids or lips, 2 for a beard."""
        along, upper, lower, lips, _, _, beard, height = self.details.T
        lines = (np.abs(height) < 14) & (along > -0.3) & (along < 1.4)
        lines |= (np.maximum(upper, lower) > 0.02) | (lips > 0.01)
        bits = np.zeros(self.n_total, np.uint8)
        bits[: self.n_face] = lines + 2 * (beard > 0.02)
        return np.bitwise_or.reduce(bits[self.triangles], axis=1)

    @cached_property
    def around(self) -> tuple[np.ndarray, np.ndarray]:
        """`triangles_around` of the whole person."""
        return triangles_around(self.triangles, self.n_total)

    @cached_property
    def openness(self) -> np.ndarray:
        """(n_total,) share of the outside that reaches a vertex: 1 in the open, 0 in a fold."""
        return np.minimum(2 * self.visibility.mean(1), 1)

    def frame(self, vertices: np.ndarray) -> HeadFrame:
        """Sizes and centres of one face, from its own landmarks."""
        marks = vertices[self.landmarks]
        width = float(np.linalg.norm(marks[0] - marks[16]))
        eyes = marks[36:48].mean(0)
        ears = (marks[0] + marks[16]) / 2
        center = np.array([ears[0], eyes[1] + 0.22 * width, ears[2] - 0.05 * width])
        return HeadFrame(marks, width, eyes, center)

    def person(
        self, vertices: np.ndarray, torso_rotation: np.ndarray, frame: HeadFrame | None = None
    ) -> np.ndarray:
        """(n_total, 3) float32: the face and everything grown around it, mm in model space.

        Parameters
        ----------
        vertices : (V, 3) the face mesh.
        torso_rotation : (3, 3) turns the torso in model space, against the head.
        frame : from `frame`, where it is at hand.
        """
        frame = self.frame(vertices) if frame is None else frame
        vertices = vertices.astype(np.float32, copy=False)
        parts = [vertices]
        if len(self.rim):
            parts.append(_loft(vertices[self.rim], frame))
        if len(self.lips):
            parts.append(_mouth(vertices, self.lips, self.upper_teeth, self.lower_teeth))
        low = vertices[self.rim] if len(self.rim) else vertices[:0]
        parts.append(_neck_and_torso(low, frame, torso_rotation))
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class HeadFrame:
    """Landmarks (68, 3), face width, point between the eyes, centre of the skull; mm."""

    marks: np.ndarray
    width: float
    eyes: np.ndarray
    center: np.ndarray


REGION_NAMES = (
    "cheeks", "nose", "ears", "eyelids", "sockets", "muzzle", "nostrils", "neck", "forehead",
    "folds", "bags",
)  # fmt: skip


@lru_cache(maxsize=2)
def anatomy(model: MorphableModel) -> Anatomy:
    """Prepare a face model for photography; kept for the last two models (about 0.5 s each)."""
    vertices = model.mean.astype(np.float64)
    marks = vertices[model.landmarks["ibug68"]]
    rim, lips = _rim_and_lips(model.triangles, vertices, marks)
    upper, lower = _lip_lines(lips, vertices)

    triangles, material = [model.triangles], [_face_material(model)]
    n = model.n_vertices

    def add(part: np.ndarray, kind: int) -> None:
        triangles.append(part)
        material.append(np.full(len(part), kind, np.uint8))

    if len(rim):
        add(_loft_triangles(rim, n), SKIN)
        n += len(rim) * (len(LOFT_STEPS) - 1) + 1
    if len(lips):
        add(_cavity_triangles(lips, n), MOUTH)
        n += 2 * len(lips) + 1
        for flip, kind in ((False, TEETH), (True, LOWER_TEETH)):
            add(_grid_triangles(3, TEETH_COLUMNS, n, flip), kind)
            n += 3 * TEETH_COLUMNS
    rows = NECK_RINGS
    add(_grid_triangles(rows, AROUND, n, False, wrap=True), SKIN)
    n += rows * AROUND
    add(_grid_triangles(len(TORSO), AROUND, n, False, wrap=True), CLOTH)
    n += len(TORSO) * AROUND

    lit_by, lit_share = _lit_by(model, n)
    directions = sphere_directions(N_DIRECTIONS)
    draft = Anatomy(
        triangles=np.concatenate(triangles).astype(np.int32),
        material=np.concatenate(material),
        n_face=model.n_vertices,
        n_total=n,
        rim=rim,
        lips=lips,
        upper_teeth=upper,
        lower_teeth=lower,
        landmarks=model.landmarks["ibug68"],
        eye_distance=float(np.linalg.norm(marks[36] - marks[45])),
        face_width=float(np.linalg.norm(marks[0] - marks[16])),
        regions=_skin_regions(model, vertices, marks),
        details=_details(model, vertices, marks),
        coordinates=np.zeros((n, 3), np.float32),
        directions=directions,
        visibility=np.ones((n, N_DIRECTIONS), np.float32),
        skull_index=np.zeros((len(SCALP_POLAR), SCALP_AROUND), np.int32),
        scalp_angle=np.zeros(n, np.float32),
        scalp_height=np.full(n, -99.0, np.float32),
        torso_origin=np.zeros(3),
        lit_by=lit_by,
        lit_share=lit_share,
    )
    body = draft.person(model.mean, np.eye(3))
    draft.coordinates[:] = body
    draft.skull_index[:] = _skull_index(draft, body, model.regions.get("ears"))
    torso = body[-len(TORSO) * AROUND :]
    draft.torso_origin[:] = torso[AROUND : 2 * AROUND].mean(0)
    _place_scalp(draft, body, model.regions)
    draft.visibility[:] = visibility(body, draft.triangles, directions, draft.n_face)
    # The neck's upper rings lie inside the head; what is seen of them is as lit as the next ring.
    first = n - (NECK_RINGS + len(TORSO)) * AROUND
    neck = draft.visibility[first : first + NECK_RINGS * AROUND].reshape(NECK_RINGS, AROUND, -1)
    for ring in range(NECK_RINGS - 2, -1, -1):
        np.maximum(neck[ring], 0.85 * neck[ring + 1], out=neck[ring])
    for kind, openness in (
        (MOUTH, 0.12),
        (TEETH, 0.4),
        (LOWER_TEETH, 0.3),
    ):  # the mean mouth is closed
        inside = np.unique(draft.triangles[draft.material == kind])
        draft.visibility[inside[inside >= draft.n_face]] = openness
    return draft


def _lit_by(model, n_total):
    """`Anatomy.lit_by` and `Anatomy.lit_share`: the three nearest coarse vertices, or itself."""
    parents = np.repeat(np.arange(n_total, dtype=np.int32)[:, None], 3, axis=1)
    shares = np.tile(np.array([1, 0, 0], np.float32), (n_total, 1))
    if model.refinement is not None:
        operator, n_coarse = model.refinement.operator, model.coarse.n_vertices
        for row in range(n_coarse, model.n_vertices):  # coarse vertices keep their indices
            span = slice(operator.indptr[row], operator.indptr[row + 1])
            columns, weights = operator.indices[span], operator.data[span]
            best = np.argsort(-weights, kind="stable")[:3]
            parents[row, : len(best)] = columns[best]
            shares[row] = 0
            shares[row, : len(best)] = weights[best] / weights[best].sum()
    return parents, shares


# ---------------------------------------------------------------------------------- boundaries


def _rim_and_lips(triangles, vertices, marks):
    """The face's outer boundary and the mouth hole's; empty where there is none."""
    loops = boundary_loops(triangles)
    rim = lips = np.zeros(0, np.int32)
    wide = [np.ptp(vertices[loop], axis=0).max() for loop in loops]
    if loops and max(wide) > 0.7 * np.linalg.norm(marks[0] - marks[16]):
        rim = loops[int(np.argmax(wide))]
    mouth = marks[60:68].mean(0)
    small = [loop for loop in loops if loop is not rim and len(loop) >= 8]
    gaps = [np.linalg.norm(vertices[loop].mean(0) - mouth) for loop in small]
    if gaps and min(gaps) < 0.3 * np.linalg.norm(marks[48] - marks[54]):
        lips = small[int(np.argmin(gaps))]
    return rim, lips


def _lip_lines(lips, vertices):
    """Upper and lower half of the mouth's boundary, picture-left to right, resampled."""
    if not len(lips):
        return lips, lips
    left, right = np.argmin(vertices[lips, 0]), np.argmax(vertices[lips, 0])
    turned = np.roll(lips, -left)
    cut = (right - left) % len(lips)
    halves = [turned[: cut + 1], np.append(turned[cut:], turned[0])[::-1]]
    halves.sort(key=lambda half: -vertices[half, 1].mean())
    pick = [np.linspace(0, len(half) - 1, TEETH_COLUMNS).round().astype(int) for half in halves]
    return halves[0][pick[0]], halves[1][pick[1]]


# ------------------------------------------------------------------------------------ geometry


def _loft(rim, frame):
    """Rings from the face's edge to the back of the head; the first ring is the rim itself."""
    offset = rim - frame.center
    radius = np.linalg.norm(offset, axis=1)
    start = offset / radius[:, None]
    half = frame.width * SKULL
    top = start[:, 1] > 0.2
    fit = radius * np.linalg.norm(start / half, axis=1)
    fit = _median(fit[top]) if top.any() else 1.0
    pole = BACK_POLE / np.linalg.norm(BACK_POLE)
    return _loft_points(start, radius, frame.center, pole, LOFT_STEPS[1:], half, fit)


def _median(values):
    """`np.median`, but fast."""
    ordered = np.sort(values)
    return float(ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2


@numba.njit(cache=True, nogil=True)
def _loft_points(start, radius, center, pole, steps, half, fit):
    """(len(steps) * B + 1, 3) float32: rings, then the tip of the back of the head.

    `half` (3,) are the half axes of the skull's ellipsoid, `fit` its size on this head.
    """
    n = len(start)
    points = np.empty((len(steps) * n + 1, 3), np.float32)
    for ring in range(len(steps)):
        step = steps[ring]
        t = min(step / 0.45, 1.0)
        blend = t * t * (3 - 2 * t)
        for k in range(n):
            x = start[k, 0] * (1 - step) + pole[0] * step
            y = start[k, 1] * (1 - step) + pole[1] * step
            z = start[k, 2] * (1 - step) + pole[2] * step
            length = np.sqrt(x * x + y * y + z * z)
            u, v, w = x / half[0], y / half[1], z / half[2]
            skull = fit * length / np.sqrt(u * u + v * v + w * w)
            reach = (radius[k] * (1 - blend) + skull * blend) / length
            row = ring * n + k
            points[row, 0] = center[0] + x * reach
            points[row, 1] = center[1] + y * reach
            points[row, 2] = center[2] + z * reach
    reach = fit / np.sqrt(((pole / half) ** 2).sum())
    for axis in range(3):
        points[-1, axis] = center[axis] + pole[axis] * reach
    return points


def _loft_triangles(rim, first):
    n, steps = len(rim), len(LOFT_STEPS) - 1
    rings = np.concatenate([rim[None], first + np.arange(steps * n).reshape(steps, n)])
    parts = []
    for near, far in pairwise(rings):
        near_next, far_next = np.roll(near, -1), np.roll(far, -1)
        parts += [np.stack([near_next, near, far], 1), np.stack([near_next, far, far_next], 1)]
    last = rings[-1]
    tip = np.full(n, first + steps * n)
    parts.append(np.stack([np.roll(last, -1), last, tip], 1))
    return np.concatenate(parts)


def scalp_directions() -> np.ndarray:
    """(rows, columns, 3) unit vectors from the skull's centre: where hair can grow."""
    polar, around = np.meshgrid(SCALP_POLAR, SCALP_ANGLES, indexing="ij")
    return np.stack(
        [np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1
    )


def _skull_index(person, body, ears):
    """For each scalp direction the vertex of face or back of the head that lies that way."""
    head = person.n_face
    if len(person.rim):
        head += len(person.rim) * (len(LOFT_STEPS) - 1) + 1
    usable = np.ones(head, bool)
    if ears is not None:
        usable[: person.n_face] = ears < 0.2
    offset = body[:head] - person.frame(body[: person.n_face]).center
    offset /= np.linalg.norm(offset, axis=1, keepdims=True)
    usable = np.flatnonzero(usable)
    directions = scalp_directions()
    nearest = cKDTree(offset[usable]).query(directions.reshape(-1, 3))[1]
    return usable[nearest].reshape(directions.shape[:2])


def _place_scalp(person, body, regions):
    """Fill in `scalp_angle` and `scalp_height` where hair can grow: not on ears, eyes, torso."""
    frame = person.frame(body[: person.n_face])
    head = np.setdiff1d(
        np.arange(len(body) - len(TORSO) * AROUND),
        np.unique(person.triangles[np.isin(person.material, (EYE, MOUTH, TEETH))]),
    )
    offset = body[head] - frame.center
    person.scalp_angle[head] = np.arctan2(offset[:, 0], offset[:, 2])
    person.scalp_height[head] = (body[head, 1] - frame.eyes[1]) / frame.width
    if "ears" in regions:
        person.scalp_height[: person.n_face][regions["ears"] > 0.4] = -99.0


@numba.njit(cache=True, nogil=True)
def _mouth(vertices, lips, upper, lower):
    """Cavity (two rings and a tip), upper teeth, lower teeth: (N, 3) float32."""
    n, columns = len(lips), len(upper)
    out = np.empty((2 * n + 1 + 6 * columns, 3), np.float32)
    x, y, z = _mean_of(vertices, lips)
    for k in range(n):
        i = lips[k]
        dx, dy, dz = vertices[i, 0] - x, vertices[i, 1] - y, vertices[i, 2] - z
        out[k] = x + dx * 0.95, y + dy * 0.9, np.float64(z) + dz - 9.0
        out[n + k] = x + dx * 0.8, y + dy * 0.8, np.float64(z) + dz - 22.0
    out[2 * n] = np.float64(x), np.float64(y), z - 34.0
    first = 2 * n + 1
    _teeth(vertices, upper, -1.0, out[first : first + 3 * columns])
    _teeth(vertices, lower, 1.0, out[first + 3 * columns :])
    return out


@numba.njit(cache=True, nogil=True)
def _teeth(vertices, lip, toward, out):
    """(3 * columns, 3): a curved strip behind a lip line, reaching over the gap by some 8 mm."""
    columns = len(lip)
    x, y, z = _mean_of(vertices, lip)
    left, right = vertices[lip[0], 0], vertices[lip[0], 0]
    for i in lip:
        left, right = min(left, vertices[i, 0]), max(right, vertices[i, 0])
    half = max((right - left) / np.float32(2), np.float32(1))
    for k in range(columns):
        i = lip[k]
        dx, dy, dz = vertices[i, 0] - x, vertices[i, 1] - y, vertices[i, 2] - z
        side = dx / half
        back = np.float32(4.5) + np.float32(7) * (side * side)
        px, py, pz = x + dx * 0.86, y + dy * 0.5, np.float64(z) + dz - back
        reach = np.float32(7.0 if toward < 0 else 5.5) - np.float32(2) * abs(side)
        reach *= np.float32(toward)
        out[k] = px, py - 2.5 * toward, pz
        out[columns + k] = px, py + reach * np.float32(0.5), pz + np.float32(0.6)
        out[2 * columns + k] = px, py + reach, pz - np.float32(0.4)


@numba.njit(cache=True, nogil=True)
def _mean_of(vertices, rows):
    x = y = z = np.float32(0)
    for i in rows:
        x, y, z = x + vertices[i, 0], y + vertices[i, 1], z + vertices[i, 2]
    count = np.float32(len(rows))
    return x / count, y / count, z / count


def _cavity_triangles(lips, first):
    n = len(lips)
    rings = [lips, first + np.arange(n), first + n + np.arange(n)]
    parts = []
    for near, far in pairwise(rings):
        near_next, far_next = np.roll(near, -1), np.roll(far, -1)
        parts += [np.stack([near_next, near, far], 1), np.stack([near_next, far, far_next], 1)]
    last = rings[-1]
    parts.append(np.stack([np.roll(last, -1), last, np.full(n, first + 2 * n)], 1))
    return np.concatenate(parts)


def _grid_triangles(rows, columns, first, flip, wrap=False):
    """Two triangles per cell of a (rows, columns) grid of vertices."""
    index = first + np.arange(rows * columns).reshape(rows, columns)
    if wrap:
        index = np.concatenate([index, index[:, :1]], axis=1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    cells = np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)]).reshape(-1, 3)
    return cells[:, ::-1] if flip else cells


def _neck_and_torso(rim, frame, rotation):
    """Neck rings that lead from the head to the (turned) torso, and the torso's rings."""
    width = frame.width
    chin = frame.marks[8]
    low = rim[rim[:, 1] < chin[1] - 0.02 * width]
    if len(low) > 8:
        half = 0.97 * np.abs(low[:, 0] - frame.center[0]).max()
        front = low[:, 2].max() - 0.02 * width
    else:
        half, front = 0.40 * width, chin[2] - 0.45 * width
    half = float(np.minimum(np.maximum(half, 0.34 * width), 0.5 * width))
    deep = 0.9 * half
    # The topmost rings are narrower and hide inside the skull.
    top = np.array([frame.center[0], chin[1] + 0.55 * width, front - deep + 0.05 * width])
    base = np.array([frame.center[0], chin[1] - 0.33 * width, front - deep - 0.08 * width])
    turned_base = top + rotation @ (base - top)
    ring = _NECK_CIRCLES * [half, 0, deep]
    neck = top * (1 - _NECK_STEPS) + turned_base * _NECK_STEPS
    neck = neck + ring * (1 - _NECK_BLEND) + (1.08 * _NECK_BLEND) * (ring @ rotation.T)
    sides = _TORSO_SIZES * width
    sides[:2, 0] = np.maximum(sides[:2, 0], 1.12 * half)
    rings = _SHOULDERS * sides[:, None] + (_TORSO_PLACES * width)[:, None]
    torso = turned_base + rings.reshape(-1, 3) @ rotation.T
    return np.concatenate([neck.reshape(-1, 3), torso]).astype(np.float32)


# --------------------------------------------------------------------------------------- masks


def _face_material(model):
    eyeball = model.regions.get("eyeball")
    if eyeball is None or "gaze_radius" not in model.regions:
        return np.zeros(len(model.triangles), np.uint8)
    inside = (eyeball[model.triangles] > 0.5).all(axis=1)
    return np.where(inside, EYE, SKIN).astype(np.uint8)


def _near(vertices, points, reach):
    """Soft mask around a set of points: 1 on them, 0.37 at `reach` mm."""
    return np.exp(-((cKDTree(points).query(vertices)[0] / reach) ** 2))


def _skin_regions(model, vertices, marks):
    """(V, R) masks in the order of `REGION_NAMES`; painted ones where the model has them."""
    unit = np.linalg.norm(marks[36] - marks[45]) / 90
    eyes = np.stack([marks[36:42].mean(0), marks[42:48].mean(0)])
    masks = {
        "nose": _near(vertices, marks[[30, 31, 32, 33, 34, 35]], 12 * unit),
        "sockets": _near(vertices, eyes, 20 * unit),
        "muzzle": _near(vertices, marks[48:60], 14 * unit),
        "forehead": 1 / (1 + np.exp(-(vertices[:, 1] - marks[17:27, 1].mean() - 15) / 8)),
        "cheeks": _near(
            vertices, (marks[[31, 35]] + marks[[2, 14]] + marks[[40, 46]]) / 3, 20 * unit
        ),
    }
    across = np.array([1.0, 0, 0]) * unit
    folds, bags = [], []
    for wing, corner, eye, side in ((31, 48, range(39, 42), -1), (35, 54, (42, 47, 46), 1)):
        start, end = marks[wing] + 5 * side * across, marks[corner] + 9 * side * across
        bend = 4 * side * across * np.sin(np.linspace(0, np.pi, 12))[:, None]
        folds.append(start + np.linspace(0, 1, 12)[:, None] * (end - start) + bend)
        bags.append(marks[list(eye)] - np.array([0, 8.0, 0]) * unit)
    masks["folds"] = _near(vertices, np.concatenate(folds), 3.0 * unit)
    masks["bags"] = _near(vertices, np.concatenate(bags), 4.5 * unit)
    painted = {name: model.regions[name] for name in REGION_NAMES if name in model.regions}
    masks |= {name: mask for name, mask in painted.items() if name != "nose"}
    zero = np.zeros(len(vertices))
    return np.stack([masks.get(name, zero) for name in REGION_NAMES], 1).astype(np.float32)


def _details(model, vertices, marks):
    """(V, 8), columns as in `Anatomy.details`."""
    out = np.zeros((len(vertices), 8), np.float32)
    for column, name in ((3, "lips"), (6, "beard")):
        if name in model.regions:
            out[:, column] = model.regions[name]
    if "brow_along" in model.regions and "brow_height" in model.regions:
        out[:, 0], out[:, 7] = model.regions["brow_along"], model.regions["brow_height"]
    else:  # a painted brow only: its middle is height 0, its edge at about 3 mm
        out[:, 0], out[:, 7] = 0.5, 6 * (1 - model.regions.get("brows", np.zeros(len(vertices))))
    eyeball = model.regions.get("eyeball", np.zeros(len(vertices))) > 0.5
    loops = [loop for loop in boundary_loops(model.triangles) if not eyeball[loop].any()]
    for first in (36, 42):
        ring = marks[first : first + 6]
        upper, lower = _lid_lines(ring, vertices, loops)
        for column, line in ((1, upper), (2, lower)):
            line_mask = _near(vertices, line, 1.9) * ~eyeball
            out[:, column] = np.maximum(out[:, column], line_mask)
        if "gaze_radius" in model.regions:
            own = eyeball & (np.sign(vertices[:, 0]) == np.sign(ring[:, 0].mean()))
            if own.any():
                nearest = np.flatnonzero(own)[np.argsort(model.regions["gaze_radius"][own])[:4]]
                pupil = vertices[nearest].mean(0)
                # Radius as painted, angle as seen from the front.
                offset = vertices[own, :2] - pupil[:2]
                length = np.maximum(np.linalg.norm(offset, axis=1), 1e-6)
                radius = model.regions["gaze_radius"][own]
                out[own, 4:6] = offset / length[:, None] * radius[:, None]
    return out


def _lid_lines(ring, vertices, loops):
    """Upper and lower edge of one eye's lids: the mesh's boundary there, or six landmarks."""
    reach = 0.35 * np.linalg.norm(ring[0] - ring[3])
    gaps = [np.linalg.norm(vertices[loop].mean(0) - ring.mean(0)) for loop in loops]
    if gaps and min(gaps) < reach:
        edge = vertices[loops[int(np.argmin(gaps))]]
    else:
        curve = CubicSpline(np.arange(7), np.concatenate([ring, ring[:1]]), bc_type="periodic")
        edge = curve(np.linspace(0, 6, 80, endpoint=False))
    left, right = edge[np.argmin(edge[:, 0])], edge[np.argmax(edge[:, 0])]
    chord = left[1] + (edge[:, 0] - left[0]) / (right[0] - left[0]) * (right[1] - left[1])
    return edge[edge[:, 1] >= chord], edge[edge[:, 1] <= chord]


# --------------------------------------------------------------------------------------- light


def sphere_directions(count: int) -> np.ndarray:
    """(count, 3) float32 unit vectors spread evenly over the sphere (Fibonacci's lattice)."""
    i = np.arange(count)
    y = 1 - (2 * i + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * i
    ring = np.sqrt(1 - y**2)
    return np.stack([ring * np.cos(angle), y, ring * np.sin(angle)], 1).astype(np.float32)


def visibility(
    vertices: np.ndarray, triangles: np.ndarray, directions: np.ndarray, focus: int, size: int = 200
) -> np.ndarray:
    """From which directions each vertex of a mesh is seen: shadow maps, soft by filtering.

    Parameters
    ----------
    vertices : (V, 3), mm.
    triangles : (F, 3).
    directions : (D, 3) unit vectors towards the light.
    focus : the shadow maps are fitted around this many first vertices.
    size : pixels of a shadow map.

    Returns
    -------
    (V, D) float32 in [0, 1].
    """
    out = np.empty((len(vertices), len(directions)), np.float32)
    for i, direction in enumerate(directions.astype(np.float64)):
        helper = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.9 else np.array([1.0, 0, 0])
        right = np.cross(helper, direction)
        right /= np.linalg.norm(right)
        up = np.cross(direction, right)
        plane = np.stack([vertices @ right, -vertices @ up], 1)
        low, high = plane[:focus].min(0), plane[:focus].max(0)
        step = 1.3 * (high - low).max() / size  # the face and some margin
        pixels = (plane - (low + high) / 2) / step + (size - 1) / 2
        depth = -(vertices @ direction)
        shadow = rasterize(pixels, depth, triangles, size, size).depth
        out[:, i] = share_lit(pixels, depth, shadow, 1.5 * step + 1.0)
    return out


@numba.njit(cache=True, nogil=True)
def share_lit(
    pixels: np.ndarray, depth: np.ndarray, shadow: np.ndarray, bias: float | np.floating
) -> np.ndarray:
    """Share of the four nearest texels, weighted bilinearly, that don't hide the vertex."""
    out = np.empty(len(depth), np.float32)
    height, width = shadow.shape
    for i in range(len(depth)):
        x = min(max(pixels[i, 0], 0.0), width - 1.001)
        y = min(max(pixels[i, 1], 0.0), height - 1.001)
        x0, y0 = int(x), int(y)
        tx, ty = x - x0, y - y0
        total = 0.0
        for dy in range(2):
            for dx in range(2):
                weight = (tx if dx else 1 - tx) * (ty if dy else 1 - ty)
                if depth[i] <= shadow[y0 + dy, x0 + dx] + bias:
                    total += weight
        out[i] = total
    return out
