"""Landmark vertices for a face model that has none, carried over from one that has.

The source model's mean is laid onto the target's: tip of the nose on tip of the nose, then in
rounds of closest points with point-to-plane distances (Chen and Medioni 1992), first as a whole,
then bent by its own shape modes as well, with their standard deviations as a prior. Each landmark
becomes the target's nearest vertex. Both models must be in the project's frame; the target's size
may be off by some 15 %, its pose by some 10 degrees.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from p2f_lib.errors import P2FError
from p2f_lib.landmarks import IBUG68_IN_MENPO84
from p2f_lib.morphable_model import MorphableModel, edges_of, vertex_normals

REACH = 35.0  # mm from the landmarks: the part of the source that is laid onto the target
RIGID_ROUNDS, ROUNDS = 12, 30
DISTANCES = np.geomspace(25, 6, ROUNDS)  # mm: beyond it a vertex has no partner in this round
SAME_SIDE = 0.6  # least cosine between the normals of partners
NOISE = 10.0  # mm, spread of the sum of many vertices' distances, against the shape modes' prior
MAX_POINTS = 4000  # that take part
MIN_SHARE = 0.3  # of them that must have a partner
NOSE_BAND = 25.0  # mm to either side of the middle, where the foremost point is the tip of the nose


def transfer_landmarks(
    source: MorphableModel, target: MorphableModel, known: np.ndarray | None = None
) -> MorphableModel:
    """The target model with the landmark lists of the source model.

    Parameters
    ----------
    source : a model with landmarks, on the mesh to which its lists belong, and with shape modes.
    target : the model that receives them; of its own lists it keeps other mark-ups.
    known : (68,) int, vertices of the target's iBUG points where its publisher gives them, -1
        elsewhere, such as `surrey.landmark_mapping`; they come before what is found.

    Raises
    ------
    P2FError : the source has no landmarks, or the meshes don't meet.
    """
    if not source.landmarks:
        raise P2FError(f"The face model {source.name!r} has no landmarks to carry over.")
    places = lay_on(source, target)
    tree = cKDTree(target.mean)
    found = {
        markup: tree.query(places[vertices])[1].astype(np.int32)
        for markup, vertices in source.landmarks.items()
    }
    if known is not None:
        given = np.flatnonzero(known >= 0)
        for markup, point in (("ibug68", np.arange(68)), ("menpo84", IBUG68_IN_MENPO84)):
            if markup in found:
                found[markup][point[given]] = known[given]
    return replace(target, landmarks=target.landmarks | found)


def lay_on(source: MorphableModel, target: MorphableModel) -> np.ndarray:
    """(V, 3) the source's vertices, mm, laid onto the surface of the target's mean.

    Raises
    ------
    P2FError : too few vertices find a partner.
    """
    surface = target.mean.astype(np.float64)
    normals = vertex_normals(surface, target.triangles)
    inner = np.setdiff1d(np.arange(target.n_vertices), _border(target.triangles))
    tree = cKDTree(surface[inner])
    used = _near_landmarks(source)
    basis = source.shape_basis[:, used].astype(np.float64)
    precision = (NOISE / source.shape_sigma.astype(np.float64)) ** 2

    coefficients = np.zeros(source.n_shape)
    linear, shift = np.eye(3), _nose(surface) - _nose(source.mean)
    for index, distance in enumerate(DISTANCES):
        places = source.vertices(coefficients) @ linear + shift
        gap, partner = tree.query(places[used], distance_upper_bound=distance)
        met = np.isfinite(gap)
        partner = inner[np.where(met, partner, 0)]
        own = vertex_normals(places, source.triangles)[used]
        met &= (own * normals[partner]).sum(axis=1) > SAME_SIDE
        if met.mean() < MIN_SHARE:
            raise P2FError(
                f"The face models {source.name!r} and {target.name!r} don't meet: only "
                f"{met.mean():.0%} of the face lies within {distance:.0f} mm of the other."
            )
        points, normal = places[used[met]], normals[partner[met]]
        offset = ((surface[partner[met]] - points) * normal).sum(axis=1)
        # Small changes of rotation, position, size and shape, all at once.
        center = points.mean(axis=0)
        arms = points - center
        columns = [np.cross(arms, normal), normal, (arms * normal).sum(axis=1, keepdims=True)]
        prior = np.zeros(7)
        pull = np.zeros(7)
        if index >= RIGID_ROUNDS:
            columns.append(((basis[:, met] @ linear) * normal).sum(axis=2).T)
            prior = np.concatenate([prior, precision])
            pull = np.concatenate([pull, precision * coefficients])
        slopes = np.concatenate(columns, axis=1)
        change = np.linalg.lstsq(
            slopes.T @ slopes + np.diag(prior), slopes.T @ offset - pull, rcond=1e-10
        )[0]
        turn = Rotation.from_rotvec(change[:3]).as_matrix().T * (1 + change[6])
        shift = (shift - center) @ turn + center + change[3:6]
        linear = linear @ turn
        if index >= RIGID_ROUNDS:
            coefficients = coefficients + change[7:]
    return source.vertices(coefficients) @ linear + shift


def _border(triangles: np.ndarray) -> np.ndarray:
    """Vertices at the edge of the mesh: no partners, as the surface may go on beyond it."""
    edges, counts, _ = edges_of(triangles)
    return np.unique(edges[counts == 1])


def _near_landmarks(source: MorphableModel) -> np.ndarray:
    """Indices of at most `MAX_POINTS` vertices within `REACH` of the landmarks."""
    points = np.concatenate([source.mean[vertices] for vertices in source.landmarks.values()])
    near = np.flatnonzero(cKDTree(points).query(source.mean)[0] < REACH)
    return near[:: max(1, -(-len(near) // MAX_POINTS))]


def _nose(vertices: np.ndarray) -> np.ndarray:
    """(3,) the foremost point near the middle."""
    middle = (vertices[:, 0].min() + vertices[:, 0].max()) / 2
    band = vertices[np.abs(vertices[:, 0] - middle) < NOSE_BAND]
    return band[np.argmax(band[:, 2])].astype(np.float64)
