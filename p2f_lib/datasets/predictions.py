"""Landmarks that another tracker wrote for the clips of an evaluation.

::

    <folder>/projected_image_space/<clip>/<frame>.ljson   84 or 68 points, pixels
    <folder>/model_space/<clip>/<frame>.ljson             the same in space; optional
    <folder>/<clip>/<frame>.ljson                         or without the first level

``.pts`` files may stand for ``.ljson``; frames are called as in the annotations, with leading zeros
or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from p2f_lib.datasets.landmark_files import read_landmarks
from p2f_lib.datasets.menpo3d import MODEL, PROJECTED
from p2f_lib.errors import P2FError
from p2f_lib.landmarks import MARKUPS

ENDINGS = (".ljson", ".pts")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a tracker says of one clip.

    Attributes
    ----------
    points : (F, L, 2) pixels, L of 84 or 68; NaN in frames without a file.
    space : (F, L, 3); NaN without a file.
    problems : a sentence for each file that can't be used.
    """

    points: np.ndarray
    space: np.ndarray
    problems: tuple[str, ...]


def check_predictions(folder: str | Path) -> None:
    """Refuse a folder that can't hold predictions, before hours of work.

    Raises
    ------
    P2FError
        There is no such folder, or no landmark file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise P2FError(
            f"There is no folder of predictions {folder}; expected {folder}/"
            f"{PROJECTED.name}/<clip>/<frame>.ljson or {folder}/<clip>/<frame>.ljson."
        )
    if not any(path.suffix in ENDINGS for path in folder.rglob("*")):
        raise P2FError(f"{folder} holds no predictions: no .ljson or .pts file is in it.")


def read_prediction(
    folder: str | Path, clip: str, frames: Sequence[int | str], n_points: int
) -> Prediction:
    """The predictions of one clip; missing and broken files leave gaps.

    Parameters
    ----------
    folder : of the tracker.
    clip : its name.
    frames : the frames' numbers, or names.
    n_points : of the annotations; what a clip without any file gets.
    """
    base = _base(Path(folder))
    flat, problems = _read(base / PROJECTED.name / clip, frames, 2)
    if not flat:
        flat, more = _read(base / clip, frames, 2)
        problems += more
    space, more = _read(base / MODEL.name / clip, frames, 3)
    sizes = {len(points) for points in flat.values()}
    if len(sizes) > 1:
        problems.append(f"{folder} has {sorted(sizes)} points in the clip {clip}: not used.")
        flat, space, sizes = {}, {}, set()
    count = next(iter(sizes), n_points)
    space = {frame: points for frame, points in space.items() if len(points) == count}
    return Prediction(
        _filled(flat, frames, (count, 2)),
        _filled(space, frames, (count, 3)),
        tuple(problems + more),
    )


def _base(folder: Path) -> Path:
    published = folder / PROJECTED.parts[0]
    return published if published.is_dir() else folder


def _read(
    folder: Path, frames: Sequence[int | str], dimension: int
) -> tuple[dict[int | str, np.ndarray], list[str]]:
    files: dict[int | str, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix in ENDINGS:
            files.setdefault(int(file.stem) if file.stem.isdecimal() else file.stem, file)
    found, problems = {}, []
    for frame in frames:
        path = files.get(int(frame) if str(frame).isdecimal() else frame)
        if path is None:
            continue
        try:
            points = read_landmarks(path)
            if points.shape[1] != dimension or len(points) not in MARKUPS.values():
                raise P2FError(
                    f"{path} must hold 68 or 84 points of {dimension} axes, got {points.shape}."
                )
        except P2FError as error:
            problems.append(str(error))
            continue
        found[frame] = points
    return found, problems


def _filled(
    found: dict[int | str, np.ndarray], frames: Sequence[int | str], shape: tuple[int, int]
) -> np.ndarray:
    result = np.full((len(frames), *shape), np.nan)
    for row, frame in enumerate(frames):
        if frame in found:
            result[row] = found[frame]
    return result
