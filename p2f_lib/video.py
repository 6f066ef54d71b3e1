"""Frames of a video file, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from p2f_lib.errors import P2FError


@dataclass(frozen=True)
class Video:
    """A video file; every iteration reads it again from the start, one frame in memory.

    Yields uint8 RGB frames (H, W, 3). A file without a single readable frame raises `P2FError`.
    """

    path: Path

    def __iter__(self) -> Iterator[np.ndarray]:
        capture = _open(self.path)
        try:
            n_frames = 0
            while True:
                ok, frame = capture.read()
                if not ok:
                    break
                n_frames += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            if n_frames == 0:
                raise P2FError(f"{self.path} opens as a video, but no frame of it can be read.")
        finally:
            capture.release()

    def __len__(self) -> int:
        """Number of frames that the file announces; 0 where it doesn't."""
        capture = _open(self.path)
        try:
            return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        finally:
            capture.release()


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], *, fps: float = 25.0, quality: int = 90
) -> int:
    """Write uint8 RGB frames as motion JPEG; the same frames give the same bytes.

    Parameters
    ----------
    path
        The .avi file; its folder must exist.
    frames
        Frames (H, W, 3), all of one size.
    fps, quality
        Frames a second; JPEG quality 0 to 100.

    Returns
    -------
    The number of frames.
    """
    writer, size, n_frames = None, None, 0
    try:
        for frame in frames:
            height, width = frame.shape[:2]
            if writer is None:
                size = (width, height)
                # OpenCV's own encoder, not the system's: no other software decides the bytes.
                writer = cv2.VideoWriter(
                    str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter_fourcc(*"MJPG"), fps, size
                )
                writer.set(cv2.VIDEOWRITER_PROP_QUALITY, quality)
                if not writer.isOpened():
                    raise P2FError(f"Cannot write a video to {path}; does its folder exist?")
            if (width, height) != size:
                raise P2FError(
                    f"All frames of a video have one size; frame {n_frames} has "
                    f"{width}x{height}, the first had {size[0]}x{size[1]}."
                )
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            n_frames += 1
    finally:
        if writer is not None:
            writer.release()
    if n_frames == 0:
        raise P2FError("A video needs at least one frame.")
    return n_frames


def _open(path: Path) -> cv2.VideoCapture:
    if not Path(path).is_file():
        raise P2FError(f"There is no video {path}.")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise P2FError(f"{path} is no video that OpenCV can read.")
    return capture
