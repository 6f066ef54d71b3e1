"""Where the faces are: one small protocol, and dlib's detector behind it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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
        image = np.ascontiguousarray(check_image(image))
        height, width = image.shape[:2]
        shrink = max(1.0, max(height, width) / self.longest_side)
        if shrink > 1.0:
            size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        step = np.array([width / image.shape[1], height / image.shape[0]])
        for doublings in range(self.upsample + 1):
            rectangles, scores, _ = _hog_detector().run(image, doublings, self.threshold)
            if rectangles:
                break
        found = [
            Detection(_to_box(rectangle, step), float(score))
            for rectangle, score in zip(rectangles, scores, strict=True)
        ]
        return sorted(found, key=lambda detection: -detection.score)


@cache
def _hog_detector() -> Any:
    try:
        import dlib  # only here: everything but detection works without it
    except ImportError:
        raise P2FError(
            "The face detector needs dlib: install dlib-bin (pip, uv) or dlib (conda), "
            "or pass the face's box yourself."
        ) from None
    return dlib.get_frontal_face_detector()


def _to_box(rectangle: Any, step: np.ndarray) -> Box:
    # dlib's sides are the first and last pixel inside; the box's are the outer edges of those.
    left, top = np.array([rectangle.left(), rectangle.top()]) * step - 0.5
    right, bottom = np.array([rectangle.right() + 1, rectangle.bottom() + 1]) * step - 0.5
    return Box(float(left), float(top), float(right), float(bottom))
