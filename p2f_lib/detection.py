"""Where the faces are: one small protocol, and dlib's detectors behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from p2f_lib.crop import Box
from p2f_lib.errors import P2FError
from p2f_lib.images import check_image


@dataclass(frozen=True)
class Detection:
    """A face that a detector found: its box in pixels of the picture, and how sure it is."""

    box: Box
    score: float


class Detector(Protocol):
    """Anything that finds faces: uint8 RGB (H, W, 3) to detections, best first, none is []."""

    def __call__(self, image: np.ndarray) -> list[Detection]: ...


@dataclass(frozen=True)
class DlibDetector:
    """dlib's max-margin detector on histograms of gradients (King 2015), as in the paper's 4.1.

    It finds frontal to half-turned faces of 80 pixels and more. It ships inside dlib, without any
    file of weights.

    Attributes
    ----------
    upsample
        How often the picture is doubled when nothing is found in it as it is: each time halves the
        smallest face that can be found and takes four times as long.
    longest_side
        Larger pictures are shrunk to this many pixels before the first look.
    threshold
        Added to dlib's own threshold: negative finds more faces, and more that are none.
    """

    upsample: int = 1
    longest_side: int = 1024
    threshold: float = 0.0

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """All faces of an uint8 RGB picture (H, W, 3), best first."""
        return _found(image, self.longest_side, self.upsample, self._run)

    def _run(self, image: np.ndarray, doublings: int) -> list[tuple[Any, float]]:
        rectangles, scores, _ = _hog_detector().run(image, doublings, self.threshold)
        return list(zip(rectangles, scores, strict=True))


@dataclass(frozen=True)
class DlibCnnDetector:
    """dlib's max-margin detector on a small convolutional network, as the paper used (section 4).

    It finds turned and covered faces that `DlibDetector` misses, at many times its time without a
    GPU. Its file is dlib's ``mmod_human_face_detector.dat``, which doesn't come with dlib; only
    load one that you trust, because dlib reads it.

    Attributes
    ----------
    path
        The file.
    upsample, longest_side
        As of `DlibDetector`.

    Raises
    ------
    P2FError
        On the first picture, when the file is missing or none of dlib's.
    """

    path: Path
    upsample: int = 0
    longest_side: int = 1024
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """All faces of an uint8 RGB picture (H, W, 3), best first."""
        return _found(image, self.longest_side, self.upsample, self._run)

    def _run(self, image: np.ndarray, doublings: int) -> list[tuple[Any, float]]:
        with self._lock:  # one network for all threads
            found = self._network(image, doublings)
        return [(one.rect, one.confidence) for one in found]

    @cached_property
    def _network(self) -> Any:
        if not Path(self.path).is_file():
            raise P2FError(
                f"There is no detector file {self.path}; dlib's is mmod_human_face_detector.dat."
            )
        try:
            return _dlib().cnn_face_detection_model_v1(str(self.path))
        except RuntimeError as error:
            raise P2FError(f"{self.path} is no face detector that dlib reads: {error}.") from None


def _found(
    image: np.ndarray,
    longest_side: int,
    upsample: int,
    run: Callable[[np.ndarray, int], list[tuple[Any, float]]],
) -> list[Detection]:
    """What `run` finds in a picture of at most `longest_side`, doubled until something is found."""
    image = np.ascontiguousarray(check_image(image))
    height, width = image.shape[:2]
    shrink = max(1.0, max(height, width) / longest_side)
    if shrink > 1.0:
        size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    step = np.array([width / image.shape[1], height / image.shape[0]])
    for doublings in range(upsample + 1):
        pairs = run(image, doublings)
        if pairs:
            break
    found = [Detection(_to_box(rectangle, step), float(score)) for rectangle, score in pairs]
    return sorted(found, key=lambda detection: -detection.score)


_OF_THREAD = threading.local()  # dlib's detector keeps its pyramid inside: one a thread


def _hog_detector() -> Any:
    if not hasattr(_OF_THREAD, "hog"):
        _OF_THREAD.hog = _dlib().get_frontal_face_detector()
    return _OF_THREAD.hog


def _dlib() -> Any:
    try:
        import dlib  # only here: everything but detection works without it
    except ImportError:
        raise P2FError(
            "The face detector needs dlib: install dlib-bin (pip, uv) or dlib (conda), "
            "or pass the face's box yourself."
        ) from None
    return dlib


def _to_box(rectangle: Any, step: np.ndarray) -> Box:
    # dlib's sides are the first and last pixel inside; the box's are the outer edges of those.
    left, top = np.array([rectangle.left(), rectangle.top()]) * step - 0.5
    right, bottom = np.array([rectangle.right() + 1, rectangle.bottom() + 1]) * step - 0.5
    return Box(float(left), float(top), float(right), float(bottom))
