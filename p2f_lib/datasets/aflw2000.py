"""AFLW2000-3D: 2000 pictures up to full profile, the field's test of 3D face alignment.

::

    <root>/image00002.jpg   450 x 450
    <root>/image00002.mat   see `p2f_lib.datasets.fitted_mat`, with pt3d_68

The protocol: predictions from a given box; 68 points over sqrt(w h) of the box of the true points
(`p2f_lib.evaluation.errors_by_yaw`), and yaw, pitch and roll in the convention of the files
(`p2f_lib.evaluation.pose_errors`). Truth and errors are of the *projected 3D* points (pt3d_68),
hidden ones included; the 21 visible points (pt2d) only say where the face is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from p2f_lib.crop import Box
from p2f_lib.datasets.aflw2000_published import LANDMARKS, POSE
from p2f_lib.datasets.fitted_mat import FittedFace, angles_from_rotation, read_mat
from p2f_lib.datasets.w300lp import pair_files
from p2f_lib.errors import P2FError
from p2f_lib.evaluation import PoseErrors, YawErrors, errors_2d, errors_by_yaw, pose_errors
from p2f_lib.images import read_image

if TYPE_CHECKING:
    from p2f_lib.reconstruction import Reconstructor

SOURCE = (
    "AFLW2000-3D is offered for research by its authors at "
    "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm"
)
POSE_CROP = 0.2  # k of HopeNet's crop


# --- pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AFLW2000Photo:
    """A picture's path, the face fitted to it, and the truth: landmarks (68, 2), pixels."""

    path: Path
    face: FittedFace
    landmarks: np.ndarray


@dataclass(frozen=True)
class AFLW2000:
    """The readable pictures of a folder by name, and a sentence on everything that is left out."""

    photos: tuple[AFLW2000Photo, ...]
    problems: tuple[str, ...]


def read_aflw2000(root: str | Path) -> AFLW2000:
    """All pictures of a folder; damaged .mat files become sentences in `problems`.

    Raises
    ------
    P2FError
        There is no such folder, or not a single pair in it can be read.
    """
    root = Path(root)
    stems, problems = pair_files(root) if root.is_dir() else ([], [])
    photos = []
    for stem in tqdm(stems, "AFLW2000-3D", disable=len(stems) < 500):
        try:
            face = read_mat(root / f"{stem}.mat")
            if face.landmarks is None:
                raise P2FError(f"{root / stem}.mat lacks the field pt3d_68; is it of 300W-LP?")
        except P2FError as error:
            problems.append(str(error))
            continue
        photos.append(AFLW2000Photo(root / f"{stem}.jpg", face, face.landmarks[:, :2]))
    if not photos:
        reason = f" ({problems[0]})" if problems else ""
        raise P2FError(
            f"{root} holds no pictures of AFLW2000-3D: expected pairs such as image00002.jpg and "
            f"image00002.mat{reason}. {SOURCE}."
        )
    return AFLW2000(tuple(photos), tuple(problems))


# --- predictions ----------------------------------------------------------------------------------


def landmark_box(photo: AFLW2000Photo) -> Box:
    """The tight box of the true 68 points: what methods with landmarks start from."""
    return Box.around(photo.landmarks)


def pose_crop(photo: AFLW2000Photo, k: float = POSE_CROP) -> Box:
    """What methods without landmarks see: HopeNet's enlarged box of the annotated 21 points.

    Left, right and top grow by 2 k of the side, the bottom by 0.6 k, in turn. Points that are not
    annotated are left out; the original takes their -1 for a place in the picture.

    References
    ----------
    Ruiz et al., CVPRW 2018 (github.com/natanielruiz/deep-head-pose, datasets.py).
    """
    points = photo.face.points[np.isfinite(photo.face.points).all(axis=1)]
    if len(points) < 2:
        raise P2FError(f"{photo.path} has too few annotated points for a box.")
    left, top, right, bottom = Box.around(points).as_tuple()
    left -= 2 * k * (right - left)
    top -= 2 * k * (bottom - top)
    right += 2 * k * (right - left)
    bottom += 0.6 * k * (bottom - top)
    return Box(left, top, right, bottom)


BOXES: dict[str, Callable[[AFLW2000Photo], Box]] = {"landmarks": landmark_box, "pose": pose_crop}


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a method says of N pictures; NaN where it sees no face.

    Attributes
    ----------
    landmarks : (N, 68, 2) pixels.
    angles : (N, 3) yaw, pitch, roll in degrees, in the convention of the files.
    problems : a sentence on every picture without a prediction.
    """

    landmarks: np.ndarray
    angles: np.ndarray
    problems: tuple[str, ...]


def predict(
    reconstructor: Reconstructor, photos: Sequence[AFLW2000Photo], box: str = "landmarks"
) -> Predictions:
    """Landmarks and head pose of every picture.

    Parameters
    ----------
    reconstructor : the method.
    photos : N pictures.
    box : "landmarks" for `landmark_box`; "pose" for `pose_crop`, which the network then sees as it
        is, in the first pass. The pose is that of the affine camera, because the truth was fitted
        with a weak perspective one.
    """
    if box not in BOXES:
        raise P2FError(f"Unknown box {box!r}; choose one of {sorted(BOXES)}.")
    landmarks = np.full((len(photos), 68, 2), np.nan)
    angles = np.full((len(photos), 3), np.nan)
    problems = []
    for row, photo in enumerate(tqdm(photos, "photos")):
        try:
            start = BOXES[box](photo)
            if box == "pose":  # the reconstructor enlarges boxes, but this is the crop already
                start = _scaled(start, 1 / reconstructor.crop_scale)
            face = reconstructor.reconstruct(read_image(photo.path), start)
        except P2FError as error:
            text = str(error)
            problems.append(text if str(photo.path) in text else f"{photo.path}: {text}")
            continue
        landmarks[row] = face.landmarks("ibug68")
        angles[row] = angles_from_rotation(face.affine.rotation)
    return Predictions(landmarks, angles, tuple(problems))


def _scaled(box: Box, scale: float) -> Box:
    (x, y), half_width, half_height = box.center, scale * box.width / 2, scale * box.height / 2
    return Box(x - half_width, y - half_height, x + half_width, y + half_height)


# --- protocol -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """Both measures of one method."""

    landmarks: YawErrors
    pose: PoseErrors


def evaluate(predictions: Predictions, photos: Sequence[AFLW2000Photo]) -> Evaluation:
    """Errors of the predictions, as fractions of the box size and in degrees.

    Raises
    ------
    P2FError
        Another number of predictions than of pictures.
    """
    truth = np.stack([photo.landmarks for photo in photos])
    angles = np.stack([photo.face.angles for photo in photos])
    errors = errors_2d(predictions.landmarks, truth, "size")
    return Evaluation(errors_by_yaw(errors, angles[:, 0]), pose_errors(predictions.angles, angles))


def report(result: Evaluation, name: str = "this run") -> str:
    """Both tables, the published rows first."""
    points, pose = result.landmarks, result.pose
    percent = [100 * value for value in (*points.bins, points.mean_of_bins, points.mean)]
    n, missing = sum(points.counts), sum(points.missing)
    bias = ", ".join(f"{value:+.2f}" for value in pose.bias)
    lines = [
        "NME of 68 points, % of sqrt(w h) of the true points' box",
        _line("method", ("0-30", "30-60", "60-90", "bin mean", "photo mean")),
        *(_line(row.method, row.values) for row in LANDMARKS),
        _line(name, percent),
        f"{n} pictures, {_slashes(points.counts)} in the bins (published: 1312 / 383 / 305)",
        f"no face in {missing} ({_slashes(points.missing)}), which the means leave out",
        "",
        "head pose, mean absolute error in degrees",
        _line("method", ("yaw", "pitch", "roll", "mean")),
        *(_line(row.method, row.values) for row in POSE),
        _line(name, (pose.yaw, pose.pitch, pose.roll, pose.mean)),
        f"{pose.n_frames} pictures ({pose.n_left_out} left out for an angle beyond 99 degrees)",
        f"no face in {pose.n_missing}, which the means leave out",
        f"mean signed error of yaw, pitch, roll: {bias}",
    ]
    return "\n".join(lines)


def _line(name: str, cells: Sequence[float | str | None]) -> str:
    texts = ["" if c is None else c if isinstance(c, str) else f"{c:.2f}" for c in cells]
    return f"{name:<28}" + "".join(f"{text:>11}" for text in texts).rstrip()


def _slashes(counts: Sequence[int]) -> str:
    return " / ".join(map(str, counts))
