"""The .mat file beside each picture of 300W-LP and AFLW2000-3D: a fitted face as numbers.

Both sets come from the authors of 3DDFA. Their geometry: the face ``V`` in micrometres (the model's
x to picture right, y up, z out of the face) is seen at ``scale * R @ V + t`` in a picture whose y
points up, ``R = Rx(pitch) @ Ry(yaw) @ Rz(roll)``; flipped, ``450 + 1 - y`` is MATLAB's 1-based row.
Hence ``x - 1`` and ``450 - y`` are the 0-based pixels of this project.

The file's angles: ``pitch > 0`` nose up, ``roll > 0`` top of the head to picture right, as in
`p2f_lib.camera.Pose`; but ``yaw > 0`` turns the nose to picture *left*, and the order of the three
rotations is another one. Zhu et al., "Face alignment across large poses: a 3D solution", CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from p2f_lib import matlab
from p2f_lib.camera import FRONTAL, AffineCamera
from p2f_lib.errors import P2FError

SIDE = 450  # pixels, height and width of every picture
N_SHAPE, N_EXPRESSION, N_POSE = 199, 29, 7
UM_PER_MM = 1000.0
MISSING = -1.0  # both coordinates of a point that nobody annotated

MAX_BYTES = 2**16  # a true file has about 10 kB
SPARE = 2**20  # bytes, see `p2f_lib.matlab.check_size`
LARGEST = 1e9  # shape coefficients reach about 1e6

_FIELDS = ("Shape_Para", "Exp_Para", "Pose_Para", "pt2d")
_OPTIONAL = ("pt3d_68", "roi")


@dataclass(frozen=True, eq=False)
class FittedFace:
    """What such a file says of its picture.

    Attributes
    ----------
    shape, expression : (199,), (29,) float32, coefficients of 3DDFA's Basel Face Model.
    pose : (7,) float64 as in the file: pitch, yaw, roll (radians), tx, ty, tz (pixels, 1-based, y
        up), scale (pixels per micrometre).
    points : (68, 2) or (21, 2) float64, annotation in the picture; NaN where there is none.
    landmarks : (68, 3) float64, the fitted face's landmarks: x and y in the picture, z of the same
        scale, towards the viewer; None in 300W-LP.
    roi : (4,) the box in the source picture, as in the file; None without one.
    """

    shape: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    points: np.ndarray
    landmarks: np.ndarray | None
    roi: np.ndarray | None

    @property
    def camera(self) -> AffineCamera:
        """Model space, mm, to the picture."""
        return AffineCamera(camera_matrices(self.pose))

    @property
    def angles(self) -> np.ndarray:
        """(3,) yaw, pitch, roll in degrees, in the file's convention."""
        return file_angles(self.pose)


def read_mat(path: str | Path) -> FittedFace:
    """Read one file, of bounded size; nothing in it is executed.

    Raises
    ------
    P2FError
        The file is missing, too long, truncated, no MATLAB v5 file, or lacks a field; a field has
        another shape than expected or is not finite.
    """
    path = Path(path)
    fields = _load(path)
    shape = _field(path, fields, "Shape_Para", (N_SHAPE, 1))
    expression = _field(path, fields, "Exp_Para", (N_EXPRESSION, 1))
    pose = _field(path, fields, "Pose_Para", (1, N_POSE))[0].astype(np.float64)
    points = _field(path, fields, "pt2d", (2, 68), (2, 21)).T.astype(np.float64)
    landmarks = roi = None
    if "pt3d_68" in fields:
        landmarks = _field(path, fields, "pt3d_68", (3, 68)).T.astype(np.float64) - (1, 1, 0)
    if "roi" in fields:
        roi = _field(path, fields, "roi", (1, 4))[0].copy()
    if not pose[6] > 0:
        raise P2FError(f"{path} has a scale of {pose[6]:g} in Pose_Para, expected a positive one.")
    points = np.where((points == MISSING).all(axis=1, keepdims=True), np.nan, points - 1)
    return FittedFace(
        shape[:, 0].astype(np.float32),
        expression[:, 0].astype(np.float32),
        pose,
        points,
        landmarks,
        roi,
    )


def _load(path: Path) -> dict[str, matlab.Value]:
    try:
        size = path.stat().st_size
        if size <= MAX_BYTES:
            return matlab.read_mat(path, *_FIELDS, optional=_OPTIONAL, spare=SPARE)
    except OSError as error:
        raise P2FError(f"Cannot read {path}: {error.strerror}.") from None
    except P2FError as error:
        raise P2FError(
            f"{path} can't be read as the .mat file of a fitted face, as in 300W-LP and "
            f"AFLW2000-3D: {error}."
        ) from None
    raise P2FError(
        f"{path} is longer than {MAX_BYTES // 1024} kB; the .mat file of a fitted face is not."
    )


def _field(
    path: Path, fields: dict[str, matlab.Value], name: str, *shapes: tuple[int, int]
) -> np.ndarray:
    value = fields[name]
    if isinstance(value, dict):
        raise P2FError(f"{path}: the field {name} is a structure, expected numbers.")
    if value.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise P2FError(f"{path}: {name} has the shape {value.shape}, expected {expected}.")
    if not np.abs(value).max() < LARGEST:
        raise P2FError(f"{path}: {name} holds NaN, infinite or absurdly large values.")
    return value


# --- geometry -------------------------------------------------------------------------------------


def head_rotations(pose: np.ndarray) -> np.ndarray:
    """(..., 7) rows of Pose_Para -> (..., 3, 3) rotations of the head (y up, z to the viewer)."""
    pose = np.asarray(pose, float)
    # The files' elementary matrices turn clockwise: the usual ones of the negative angles.
    turns = Rotation.from_euler("XYZ", -pose[..., :3].reshape(-1, 3))
    return turns.as_matrix().reshape(*pose.shape[:-1], 3, 3)


def camera_matrices(pose: np.ndarray) -> np.ndarray:
    """(..., 7) rows of Pose_Para -> (..., 2, 4) affine cameras, mm in model space to pixels."""
    pose = np.asarray(pose, float)
    matrices = np.empty((*pose.shape[:-1], 2, 4))
    scale = UM_PER_MM * pose[..., 6]
    matrices[..., :3] = (scale[..., None, None] * FRONTAL @ head_rotations(pose))[..., :2, :]
    matrices[..., 0, 3] = pose[..., 3] - 1
    matrices[..., 1, 3] = SIDE - pose[..., 4]
    return matrices


def file_angles(pose: np.ndarray) -> np.ndarray:
    """(..., 7) rows of Pose_Para -> (..., 3) yaw, pitch, roll in degrees, in its own convention."""
    return np.degrees(np.asarray(pose, float)[..., [1, 0, 2]])


def angles_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in the files' convention: the inverse of `head_rotations`.

    Two triples of angles make the same rotation; this is the one with the head more upright, so
    that yaw may exceed 90 degrees as it does in the files. At a yaw of +-90 degrees, where pitch
    and roll turn about the same axis, roll is 0.

    Parameters
    ----------
    rotation : (..., 3, 3), model to camera space (`AffineCamera.rotation`).

    Returns
    -------
    (..., 3) degrees.
    """
    head = FRONTAL @ np.asarray(rotation, float)
    cosine = np.hypot(head[..., 0, 0], head[..., 0, 1])
    locked = cosine < 1e-9
    yaw = np.arctan2(-head[..., 0, 2], cosine)
    pitch = np.where(
        locked,
        -np.arctan2(head[..., 2, 1], head[..., 1, 1]),
        np.arctan2(head[..., 1, 2], head[..., 2, 2]),
    )
    roll = np.where(locked, 0.0, np.arctan2(head[..., 0, 1], head[..., 0, 0]))
    near = np.stack([yaw, pitch, roll], axis=-1)
    far = (np.copysign(np.pi, near) - near) * (1, -1, -1)
    tilt = [np.abs(angles[..., 1:]).sum(-1, keepdims=True) for angles in (near, far)]
    return np.degrees(np.where(tilt[0] <= tilt[1], near, far))
