"""A face that fits in a few kilobytes: an egg with a nose, smooth modes and painted regions."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import ConvexHull

from p2f_lib.morphable_model import MorphableModel

RADII = np.array([75.0, 100.0, 60.0])  # half width, half height, depth of the front half: mm
BACK_DEPTH = 40.0  # the back half is flatter; still further than 30 mm from the origin
EXPRESSION_NAMES = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp")
REGION_RADII = {  # name -> (iBUG points that it surrounds, reach in mm)
    "lips": (range(48, 68), 6.0),
    "brows": (range(17, 27), 6.0),
    "eyelids": (range(36, 48), 7.0),
    "nostrils": (range(31, 36), 5.0),
    "cheeks": ((2, 3, 13, 14), 18.0),
    "ears": ((0, 16), 10.0),
    "neck": ((7, 8, 9), 15.0),
    "beard": (range(4, 13), 20.0),
}


def ibug68_layout() -> np.ndarray:
    """(68, 2) x, y in mm (y up) of a frontal cartoon face in the order of iBUG-68."""
    t = np.radians(np.linspace(190, 350, 17))
    jaw = np.stack([68 * np.cos(t), 15 + 90 * np.sin(t)], 1)
    brow = np.stack([np.linspace(-52, -12, 5), 48 - 0.012 * (np.linspace(-20, 20, 5)) ** 2], 1)
    bridge = np.stack([np.zeros(4), np.linspace(28, -6, 4)], 1)
    nostrils = np.stack([np.linspace(-14, 14, 5), [-16, -18, -20, -18, -16]], 1)
    eye = np.array([[-46, 28], [-38, 33], [-29, 33], [-21, 27], [-29, 23], [-38, 23]])
    outer = np.radians(180 - 30 * np.arange(12))
    inner = np.radians(180 - 45 * np.arange(8))
    outer_lip = np.stack([26 * np.cos(outer), 13 * np.sin(outer) - 45], 1)
    inner_lip = np.stack([18 * np.cos(inner), 6 * np.sin(inner) - 45], 1)
    mirror = np.array([-1, 1])
    right_eye = (eye * mirror)[[3, 2, 1, 0, 5, 4]]
    brows = [brow, (brow * mirror)[::-1]]
    parts = [jaw, *brows, bridge, nostrils, eye, right_eye, outer_lip, inner_lip]
    return np.concatenate(parts).astype(float)


def nearest_distinct(points: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(L,) indices of distinct front vertices near (L, 2) points, by least total distance."""
    front = np.flatnonzero(vertices[:, 2] > 0)
    cost = ((points[:, None] - vertices[None, front, :2]) ** 2).sum(2)
    return front[linear_sum_assignment(cost)[1]].astype(np.int32)


def egg(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) vertices of a closed egg with a nose, (2n - 4, 3) outward triangles."""
    z = 1 - (2 * np.arange(n) + 1) / n
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(n)  # Fibonacci's sphere
    radius = np.sqrt(1 - z**2)
    sphere = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)
    hull = ConvexHull(sphere)
    flip = (
        np.einsum(
            "ij,ij->i",
            np.cross(*np.diff(sphere[hull.simplices], axis=1).swapaxes(0, 1)),
            sphere[hull.simplices[:, 0]],
        )
        < 0
    )
    triangles = np.where(flip[:, None], hull.simplices[:, ::-1], hull.simplices).astype(np.int32)
    vertices = sphere * RADII
    vertices[:, 2] *= np.where(z > 0, 1.0, BACK_DEPTH / RADII[2])
    nose = np.exp(-(vertices[:, 0] ** 2) / 200 - (vertices[:, 1] + 8) ** 2 / 500) * (z > 0)
    vertices[:, 2] += 25 * nose
    return vertices, triangles


def toy_model(n: int = 1500, seed: int = 0) -> MorphableModel:
    """A closed, face-sized mesh of `n` vertices with 5 shape and 4 expression modes.

    The modes are smooth; expression modes move the mouth and the brows. Landmarks are distinct
    vertices near a frontal cartoon face (`n` of 400 and more is enough for 84 of them).
    """
    rng = np.random.default_rng(seed)
    vertices, triangles = egg(n)
    layout = ibug68_layout()
    jaw_fine = np.stack(
        [np.interp(np.arange(33) / 2, np.arange(17), layout[:17, k]) for k in range(2)], 1
    )
    menpo = np.concatenate([jaw_fine, layout[17:]])
    menpo84 = nearest_distinct(menpo, vertices)
    ibug68 = np.concatenate([menpo84[:33:2], menpo84[33:]])

    waves = rng.normal(0, 1 / 60, (5, 3, 3))  # one plane wave a mode and an axis
    phases = rng.uniform(0, 2 * np.pi, (5, 1, 3))
    shape_basis = 4 * np.sin(np.einsum("vi,kij->kvj", vertices, waves) + phases)

    def bump(x: float, y: float, reach: float) -> np.ndarray:
        distance = (vertices[:, 0] - x) ** 2 + (vertices[:, 1] - y) ** 2
        return np.exp(-distance / (2 * reach**2)) * (vertices[:, 2] > 0)

    expression_basis = np.stack(
        [
            bump(0, -65, 25)[:, None] * [0, -25, -6],
            bump(26, -45, 15)[:, None] * [8, 10, -4],
            bump(-26, -45, 15)[:, None] * [-8, 10, -4],
            (bump(-15, 48, 15) + bump(15, 48, 15))[:, None] * [0, 10, 2],
        ]
    )

    def mask(points: np.ndarray, reach: float) -> np.ndarray:
        gap = np.linalg.norm(vertices[:, None] - points[None], axis=2).min(1)
        return np.clip(1.5 - gap / reach, 0, 1).astype(np.float32)

    regions = {
        name: mask(vertices[ibug68[list(points)]], reach)
        for name, (points, reach) in REGION_RADII.items()
    }
    pupils = np.array([vertices[ibug68[36:42]].mean(0), vertices[ibug68[42:48]].mean(0)])
    for name, reach in {"pupil": 3, "iris": 6, "sclera": 9, "eyeball": 9}.items():
        regions[name] = mask(pupils, reach)
    regions["scalp"] = np.clip((vertices[:, 1] - 60) / 20, 0, 1).astype(np.float32)
    return MorphableModel(
        name=f"toy-{n}-{seed}",
        mean=vertices.astype(np.float32),
        triangles=triangles,
        shape_basis=shape_basis.astype(np.float32),
        shape_sigma=np.ones(5, np.float32),
        expression_basis=expression_basis.astype(np.float32),
        expression_sigma=np.full(4, 0.25, np.float32),
        expression_names=EXPRESSION_NAMES,
        landmarks={"ibug68": ibug68.astype(np.int32), "menpo84": menpo84},
        regions=regions,
    )
