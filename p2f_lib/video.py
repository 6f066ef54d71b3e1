"""Frames of video files, of folders of pictures and of cameras, one at a time."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.images import MAX_PIXELS, SUFFIXES, read_image

FPS = 25.0  # where nobody says how fast
LOST_IN_A_ROW = 500  # unreadable frames after which nothing more is expected of a file


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame: its number from 0, its time in seconds, and its picture.

    Attributes
    ----------
    image
        (H, W, 3) uint8, RGB, upright; None where it can't be read.
    """

    index: int
    time: float
    image: np.ndarray | None


class Source(Protocol):
    """Something with frames: a `Video`, `Pictures`, a `Camera`."""

    @property
    def fps(self) -> float:
        """Frames a second."""
        ...

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The frames from number `start` on."""
        ...

    def __len__(self) -> int:
        """Number of frames, 0 where it isn't known."""
        ...


@dataclass(frozen=True)
class Video:
    """A video file; every iteration reads it again from the start, one frame in memory.

    Yields uint8 RGB frames (H, W, 3), turned upright where the file says how its camera was held. A
    damaged frame is the one before once more, so that frames keep their numbers; `frames` tells
    which. A file without a single readable frame raises `P2FError`.
    """

    path: Path

    def __iter__(self) -> Iterator[np.ndarray]:
        last, early = None, 0
        for frame in self.frames():
            last = last if frame.image is None else frame.image
            if last is None:
                early += 1  # nothing readable yet: the first picture stands for these, too
                continue
            for _ in range(1 + early):
                yield last
            early = 0

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Frames with the file's time stamps, whatever their rate; damaged ones without a picture.

        Those after the last readable frame are not counted: a file that was cut off is just
        shorter than it announces.
        """
        capture = _open(self.path)
        try:
            announced, period = _announced(capture), 1 / _rate(capture)
            index, lost, clock = 0, 0, -period
            while lost < LOST_IN_A_ROW and (
                lost == 0 or index + lost <= announced or not announced
            ):
                picture = None
                if capture.grab():  # also of frames before `start`: they tell the time
                    wanted = index + lost >= start
                    readable, picture = capture.retrieve() if wanted else (True, None)
                    readable = readable and (picture is not None or not wanted)
                else:
                    readable = False
                if not readable:
                    lost += 1
                    continue
                before, clock = clock, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if clock <= before:  # no time stamps in it
                    clock = before + (1 + lost) * period
                for k in range(1, lost + 1):
                    if index >= start:
                        yield Frame(index, before + (clock - before) * k / (lost + 1), None)
                    index += 1
                if picture is not None and index >= start:
                    yield Frame(index, clock, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
                index, lost = index + 1, 0
            if index == 0:
                raise P2FError(f"{self.path} opens as a video, but no frame of it can be read.")
        finally:
            capture.release()

    @property
    def fps(self) -> float:
        """Frames a second, as the file announces."""
        capture = _open(self.path)
        try:
            return _rate(capture)
        finally:
            capture.release()

    def __len__(self) -> int:
        """Number of frames that the file announces; 0 where it doesn't."""
        capture = _open(self.path)
        try:
            return _announced(capture)
        finally:
            capture.release()


@dataclass(frozen=True)
class Pictures:
    """The picture files right in a folder as a video, in the order of their names.

    Numbers in names count as such: frame_10 comes after frame_9. Pictures are turned upright as
    their EXIF data says. A damaged one is a frame without picture.
    """

    folder: Path
    fps: float = FPS

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise P2FError(f"Frames a second have to be above 0, got {self.fps:g}.")
        if not self.paths:
            raise P2FError(f"There is no picture in the folder {self.folder}.")

    @property
    def paths(self) -> list[Path]:
        """The pictures, in order."""
        found = [
            path
            for path in Path(self.folder).iterdir()
            if path.suffix.lower() in SUFFIXES and path.is_file()
        ]
        return sorted(found, key=_natural)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        for index, path in enumerate(self.paths[start:], start):
            try:
                image = read_image(path)
            except P2FError:
                image = None
            yield Frame(index, index / self.fps, image)

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Camera:
    """A camera of this machine, by its number; its frames come once and have the clock's time."""

    number: int
    fps: float = FPS

    def frames(self, start: int = 0) -> Iterator[Frame]:
        capture = cv2.VideoCapture(self.number)
        try:
            if not capture.isOpened():
                raise P2FError(f"There is no camera {self.number} that OpenCV can open.")
            began = time.monotonic()
            for index in count():
                readable, picture = capture.read()
                if not readable:
                    return
                if index >= start:
                    image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
                    yield Frame(index, time.monotonic() - began, image)
        finally:
            capture.release()

    def __len__(self) -> int:
        return 0


def open_source(name: str, fps: float = FPS) -> Source:
    """A video file, a folder of pictures, or a camera by its number.

    Parameters
    ----------
    name
        A path; digits that are no path are a camera's number.
    fps
        Frames a second of a folder.

    Raises
    ------
    P2FError
        There is nothing of that name, or it is empty.
    """
    path = Path(name)
    if path.is_dir():
        return Pictures(path, fps)
    if name.isdecimal() and not path.exists():
        return Camera(int(name), fps)
    _open(path).release()  # says at once what is wrong with it
    return Video(path)


@dataclass(frozen=True)
class Limited:
    """The beginning of another source: frames until a number or a time in seconds."""

    source: Source
    n_frames: int | None = None
    seconds: float | None = None

    def frames(self, start: int = 0) -> Iterator[Frame]:
        if self.n_frames is not None and start >= self.n_frames:
            return
        for frame in self.source.frames(start):
            if self.seconds is not None and frame.time >= self.seconds:
                return
            yield frame
            if frame.index + 1 == self.n_frames:
                return  # before another one is read: a camera would wait for it

    @property
    def fps(self) -> float:
        return self.source.fps

    def __len__(self) -> int:
        known = len(self.source)
        limits = [known] if known else []
        if self.n_frames is not None:
            limits.append(self.n_frames)
        if self.seconds is not None:
            limits.append(math.ceil(self.seconds * self.fps))
        return min(limits, default=0)


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
    with VideoWriter(path, fps=fps, quality=quality) as writer:
        for frame in frames:
            writer.write(frame)
    if writer.n_frames == 0:
        raise P2FError("A video needs at least one frame.")
    return writer.n_frames


class VideoWriter:
    """What `write_video` does, for frames that come one by one; to be used in a ``with`` block."""

    def __init__(self, path: str | Path, *, fps: float = FPS, quality: int = 90) -> None:
        self.path, self.fps, self.quality = Path(path), fps, quality
        self.n_frames = 0
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: np.ndarray) -> None:
        """Write the next frame (H, W, 3), of the size of the first."""
        height, width = frame.shape[:2]
        if self._writer is None:
            self._size = (width, height)
            # OpenCV's own encoder, not the system's: no other software decides the bytes.
            code = cv2.VideoWriter.fourcc(*"MJPG")
            self._writer = cv2.VideoWriter(
                str(self.path), cv2.CAP_OPENCV_MJPEG, code, self.fps, self._size
            )
            self._writer.set(cv2.VIDEOWRITER_PROP_QUALITY, self.quality)
            if not self._writer.isOpened():
                raise P2FError(f"Cannot write a video to {self.path}; does its folder exist?")
        if (width, height) != self._size:
            raise P2FError(
                f"All frames of a video have one size; frame {self.n_frames} has "
                f"{width}x{height}, the first had {self._size[0]}x{self._size[1]}."
            )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.n_frames += 1


def _open(path: Path) -> cv2.VideoCapture:
    path = Path(path)
    if not path.is_file():
        raise P2FError(f"There is no video {path}.")
    if path.stat().st_size == 0:
        raise P2FError(f"{path} is empty, expected a video.")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise P2FError(f"{path} is no video that OpenCV can read.")
    width, height = (
        int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    if width * height > MAX_PIXELS:
        capture.release()
        raise P2FError(
            f"{path} has frames of {width} x {height} pixels, more than the {MAX_PIXELS:,} "
            "allowed; shrink it first."
        )
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # where it isn't the default
    return capture


def _announced(capture: cv2.VideoCapture) -> int:
    return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)


def _rate(capture: cv2.VideoCapture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate < 1000 else FPS


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
