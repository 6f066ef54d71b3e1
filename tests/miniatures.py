"""Small folders laid out like 300W-LP and AFLW2000-3D, made without the code that reads them.

The geometry is spelt out in MATLAB's terms: micrometres, y up, then 1-based pixels, y down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

from p2f_lib.images import write_image
from p2f_lib.morphable_model import MorphableModel
from tests.toy import toy_model

SIDE = 450
N_SHAPE, N_EXPRESSION = 199, 29


def basel_toy(n: int = 500, seed: int = 0) -> MorphableModel:
    """A toy face with as many modes, and coefficients as large, as 3DDFA's Basel Face Model."""
    rng = np.random.default_rng(seed)
    toy = toy_model(n)

    def smooth(count: int) -> np.ndarray:
        waves = rng.normal(0, 1 / 60, (count, 3, 3))
        phases = rng.uniform(0, 2 * np.pi, (count, 1, 3))
        return np.sin(np.einsum("vi,kij->kvj", toy.mean, waves) + phases)

    shape = smooth(N_SHAPE)
    shape /= 1000 * np.linalg.norm(shape, axis=(1, 2), keepdims=True)  # unit columns, um -> mm
    expression = np.concatenate([toy.expression_basis, smooth(N_EXPRESSION - 4)])
    return replace(
        toy,
        name="toy of 3DDFA's size",
        shape_basis=shape.astype(np.float32),
        shape_sigma=(4e4 / np.sqrt(np.arange(1, N_SHAPE + 1))).astype(np.float32),
        expression_basis=expression.astype(np.float32),
        expression_sigma=np.full(N_EXPRESSION, 0.3, np.float32),
        expression_names=tuple(f"e{k}" for k in range(N_EXPRESSION)),
        regions={},
    )


@dataclass(frozen=True, eq=False)
class Written:
    """What was written of one face; `points` is the whole mesh as MATLAB sees it, (V, 3)."""

    path: Path
    shape: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    points: np.ndarray


def matlab_rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """R = Rx Ry Rz of the sets, radians."""
    c, s = np.cos(pitch), np.sin(pitch)
    rx = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    c, s = np.cos(yaw), np.sin(yaw)
    ry = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    c, s = np.cos(roll), np.sin(roll)
    rz = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    return rx @ ry @ rz


def matlab_points(
    model: MorphableModel, shape: np.ndarray, expression: np.ndarray, pose: np.ndarray
) -> np.ndarray:
    """(V, 3) image points of the mesh: x and y in 1-based pixels, z towards the viewer."""
    um = 1000.0 * model.mean.astype(float)
    for coefficients, basis in (
        (shape, model.shape_basis),
        (expression, model.expression_basis),
    ):
        for coefficient, mode in zip(coefficients, basis, strict=True):
            um = um + 1000.0 * coefficient * mode.astype(float)
    seen = pose[6] * um @ matlab_rotation(*pose[:3]).T + pose[3:6]
    seen[:, 1] = SIDE + 1 - seen[:, 1]
    return seen


def write_face(
    folder: Path,
    stem: str,
    model: MorphableModel,
    angles: tuple[float, float, float],
    *,
    kind: str = "300w-lp",
    seed: int = 0,
    missing: tuple[int, ...] = (),
    **changed: object,
) -> Written:
    """One .mat and its .jpg, a white face on black.

    `angles` are pitch, yaw, roll in degrees; `kind` is "300w-lp" or "aflw2000"; `missing` are
    points of pt2d that become -1; `changed` replaces fields of the file (None: leaves them out).
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    shape = rng.normal(0, model.shape_sigma)
    expression = rng.normal(0, model.expression_sigma)
    tilt = np.radians(angles)
    pose = np.array([*tilt, 220 + rng.uniform(0, 20), 215 + rng.uniform(0, 20), -60, 1e-3])
    pose = pose.astype(np.float32).astype(float)  # as the file keeps it
    points = matlab_points(model, shape, expression, pose)
    marks = points[model.landmarks["ibug68"]]
    pt2d = marks[:, :2].T.copy() if kind == "300w-lp" else marks[:63:3, :2].T.copy()
    pt2d[:, list(missing)] = -1
    fields = {
        "pt2d": pt2d,
        "roi": np.array([[12, 30, 461, 479]], np.int16),
        "Illum_Para": np.ones((1, 10)),
        "Color_Para": np.ones((1, 7), np.float32),
        "Tex_Para": rng.normal(size=(199, 1)),
        "Shape_Para": shape[:, None],
        "Exp_Para": expression[:, None],
        "Pose_Para": pose[None].astype(np.float32),
    }
    if kind == "aflw2000":
        fields["pt3d_68"] = marks.T.astype(np.float32)
    fields = {k: v for k, v in (fields | changed).items() if v is not None}
    savemat(folder / f"{stem}.mat", fields, format="5", do_compression=True)
    write_image(folder / f"{stem}.jpg", silhouette(points[:, :2] - 1, model.triangles))
    return Written(folder / f"{stem}.mat", shape, expression, pose, points)


def silhouette(pixels: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(450, 450, 3) uint8 picture of 0-based (V, 2) pixels, drawn by OpenCV."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    bits = 4
    for corners in np.round(pixels * 2**bits).astype(np.int32)[triangles]:
        cv2.fillConvexPoly(image, corners, (255, 255, 255), shift=bits)
    return image


def write_300wlp(root: Path, model: MorphableModel) -> list[Written]:
    """Six pictures in three of the folders, in the order of the index."""
    faces = (
        ("AFW", "AFW_1_1_0", (3, 5, -4)),
        ("AFW", "AFW_2_1_7", (-8, -75, 12)),
        ("AFW_Flip", "AFW_1_1_0", (3, -5, 4)),
        ("AFW_Flip", "AFW_2_1_7", (-8, 75, -12)),
        ("LFPW", "LFPW_image_test_0001_0", (20, 38, -15)),
        ("LFPW", "LFPW_image_test_0001_11", (15, 88, 5)),
    )
    return [
        write_face(root / subset, stem, model, angles, seed=seed)
        for seed, (subset, stem, angles) in enumerate(faces)
    ]


def write_aflw2000(root: Path, model: MorphableModel) -> list[Written]:
    """Five pictures; in the second some points are missing, the last is beyond 99 degrees."""
    angles = ((5, 10, 3), (-10, -45, 20), (2, 70, -8), (-4, -93, 6), (15, -104, -10))
    return [
        write_face(
            root,
            f"image{2 + 2 * n:05d}",
            model,
            turn,
            kind="aflw2000",
            seed=n,
            missing=(0, 5, 20) if n == 1 else (),
        )
        for n, turn in enumerate(angles)
    ]
