"""Clips in the layout of the 3D Menpo Facial Landmark Tracking Challenge.

::

    <root>/final_published/projected_image_space/<clip>/<6-digit frame>.ljson   84 points, pixels
    <root>/final_published/model_space/<clip>/<6-digit frame>.ljson             84 points, mm
    <root>/300VW/<clip>/vid.avi                                                 the frames
    <root>/300VW/<clip>/images/<frame>.jpg                                      or as pictures

Frame numbers start at 1, as in 300VW. The challenge's annotations and the videos of 300VW come from
two places and are put side by side under one root; the challenge's folder may lie there as it was
unpacked, in ``Menpo_3d_challenge_trainset_videos``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from p2f_lib.datasets.landmark_files import read_ljson, write_ljson
from p2f_lib.errors import P2FError
from p2f_lib.images import read_image
from p2f_lib.landmarks import OUTER_EYE_CORNERS
from p2f_lib.video import Video, write_video

PROJECTED = Path("final_published", "projected_image_space")
MODEL = Path("final_published", "model_space")
VIDEOS = Path("300VW")
VIDEO_NAME = "vid.avi"
IMAGES = "images"  # in the place of the video
PICTURES = (".jpg", ".jpeg", ".png")
UNPACKED = "Menpo_3d_challenge_trainset_videos"  # the archive's own folder

N_POINTS = 84
LABELS: Mapping[str, Sequence[int]] = {
    "jaw": range(33),
    "left_eyebrow": range(33, 38),
    "right_eyebrow": range(38, 43),
    "nose": range(43, 52),
    "left_eye": range(52, 58),
    "right_eye": range(58, 64),
    "mouth": range(64, 84),
}
"""Label -> indices; left and right as seen in the picture."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One annotated video.

    Attributes
    ----------
    name
        The clip's folder.
    video
        Its video file, or a folder of pictures that are called by their frame numbers.
    frames
        (F,) numbers of the annotated frames, ascending; 1 is the first of the video.
    projected
        (F, 84, 2) pixels, 0-based, x right, y down; NaN where unknown.
    model
        (F, 84, 3) model space, x to picture right, y up; None where the data set has none.
    """

    name: str
    video: Path
    frames: tuple[int, ...]
    projected: np.ndarray
    model: np.ndarray | None

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The annotated frames, uint8 RGB (H, W, 3), read one at a time; can be repeated."""
        if self.video.is_dir():
            yield from map(read_image, _pictures(self.video, self.frames))
            return
        wanted = iter(self.frames)
        number: int | None = next(wanted)
        for index, image in enumerate(Video(self.video), start=1):
            if index == number:
                yield image
                number = next(wanted, None)
                if number is None:
                    return
        raise P2FError(f"{self.video} ends before its annotated frame {number}.")

    def take(self, rows: Sequence[int]) -> Clip:
        """The clip with a part of its annotated frames, by their places, ascending."""
        rows = list(rows)
        model = None if self.model is None else self.model[rows]
        frames = tuple(self.frames[row] for row in rows)
        return replace(self, frames=frames, projected=self.projected[rows], model=model)


def clip_names(root: str | Path) -> list[str]:
    """Names of the annotated clips under `root`, sorted.

    Raises
    ------
    P2FError
        If `root` is not laid out like the challenge or holds no clip.
    """
    folder = _published(root) / PROJECTED
    if not folder.is_dir():
        raise P2FError(
            f"{root} has no folder {PROJECTED}; put the challenge's folder final_published there."
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise P2FError(f"{folder} holds no clip: one folder with .ljson files is expected a clip.")
    return names


def read_clip(root: str | Path, name: str) -> Clip:
    """One clip with its annotations; the video is only looked for, its frames are read later.

    Raises
    ------
    P2FError
        If the video or an annotation is missing, or not 84 points.
    """
    video = Path(root) / VIDEOS / name / VIDEO_NAME
    if not video.is_file() and (video.parent / IMAGES).is_dir():
        video = video.parent / IMAGES
    if not video.exists():
        raise P2FError(f"Clip {name} has no video {video}; the frames come from 300VW.")
    published = _published(root)
    folder = published / PROJECTED / name
    paths = {_frame_number(path): path for path in folder.glob("*.ljson")}
    if not paths:
        raise P2FError(f"Clip {name} has no .ljson file in {folder}.")
    numbers = tuple(sorted(paths))
    projected = np.stack([_read_points(paths[number], 2) for number in numbers])
    folder, model = published / MODEL / name, None
    if folder.is_dir():
        files = (folder / paths[number].name for number in numbers)
        model = np.stack([x_first(_read_points(path, 3)) for path in files])
    if video.is_dir():
        _pictures(video, numbers)  # all there?
    return Clip(name, video, numbers, projected, model)


def read_clips(root: str | Path) -> list[Clip]:
    """All clips under `root`, by name; see `read_clip`."""
    return [read_clip(root, name) for name in clip_names(root)]


def write_clip(
    root: str | Path,
    name: str,
    frames: Iterable[np.ndarray],
    projected: np.ndarray,
    model: np.ndarray,
    *,
    numbers: Sequence[int] | None = None,
    fps: float = 25.0,
    quality: int = 90,
) -> Clip:
    """Write a clip in the challenge's layout; the same input gives the same bytes.

    Parameters
    ----------
    root
        Folder of the data set; made if missing.
    name
        The clip's name.
    frames
        uint8 RGB frames (H, W, 3), all of one size.
    projected, model
        (F, 84, 2) pixels and (F, 84, 3) mm, one row an annotated frame.
    numbers
        F numbers of the annotated frames, ascending from 1; None for all frames of the video.
    fps, quality
        Of the motion-JPEG video.
    """
    root = Path(root)
    projected, model = np.asarray(projected), np.asarray(model)
    n_rows = len(projected)
    if projected.shape != (n_rows, N_POINTS, 2) or model.shape != (n_rows, N_POINTS, 3):
        raise P2FError(
            f"A clip needs points (F, {N_POINTS}, 2) and (F, {N_POINTS}, 3), "
            f"got {projected.shape} and {model.shape}."
        )
    folders = [root / PROJECTED / name, root / MODEL / name, root / VIDEOS / name]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    n_written = write_video(folders[2] / VIDEO_NAME, frames, fps=fps, quality=quality)
    numbers = range(1, n_written + 1) if numbers is None else numbers
    if len(numbers) != n_rows:
        raise P2FError(f"Clip {name} has {len(numbers)} frames but {n_rows} rows of points.")
    if not set(numbers) <= set(range(1, n_written + 1)):
        raise P2FError(f"Clip {name} has the frames 1 to {n_written}, but not all of {numbers}.")
    for folder in folders[:2]:  # of an earlier clip of this name
        for path in folder.glob("*.ljson"):
            path.unlink()
    for number, pixels, points in zip(numbers, projected, model, strict=True):
        for folder, values in ((folders[0], pixels), (folders[1], points)):
            write_ljson(folder / f"{number:06d}.ljson", values, labels=LABELS, decimals=3)
    return read_clip(root, name)


def _published(root: str | Path) -> Path:
    """The folder that holds ``final_published``."""
    root = Path(root)
    return root / UNPACKED if (root / UNPACKED / PROJECTED).is_dir() else root


def _pictures(folder: Path, numbers: tuple[int, ...]) -> list[Path]:
    """The pictures of frames, in their order."""
    found = {
        int(path.stem): path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in PICTURES and path.stem.isdecimal()
    }
    missing = [number for number in numbers if number not in found]
    if missing:
        raise P2FError(
            f"{folder} has no picture of {len(missing)} annotated frames, the first of them "
            f"{missing[0]}; pictures are called by their frame number, such as 000001.jpg."
        )
    return [found[number] for number in numbers]


def _frame_number(path: Path) -> int:
    if not path.stem.isdecimal() or int(path.stem) < 1:
        raise P2FError(f"{path} must be named by its frame number, such as 000001.ljson.")
    return int(path.stem)


def _read_points(path: Path, dimension: int) -> np.ndarray:
    points = read_ljson(path)
    if points.shape != (N_POINTS, dimension):
        raise P2FError(f"{path} must hold {N_POINTS} points of {dimension} axes: {points.shape}.")
    return points


def x_first(points: np.ndarray) -> np.ndarray:
    """(84, 3) points of the model space; undoes the swap of x and y where the file had x first.

    Files of image points store y first; whether those of the model space do too is nowhere said,
    and to take it wrongly would mirror the face. The eyes tell: they lie side by side in x.
    """
    left, right = OUTER_EYE_CORNERS["menpo84"]
    x, y = np.abs(points[right] - points[left])[:2]
    return points[:, [1, 0, 2]] if y > x else points
