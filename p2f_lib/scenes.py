"""Where a video cuts to another scene: by small grey pictures of its frames."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

THUMBNAIL = (24, 18)  # pixels, width and height
# Change is 1 - correlation of two thumbnails, so exposure doesn't count. Talking heads stay below
# 0.1, a camera that is swung about below 0.4; another scene is about 1.
CUT = 0.5
FLAT = 1.0  # grey levels of standard deviation below which a picture shows nothing


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(18, 24) uint8: a grey picture of a (H, W, 3) uint8 RGB frame."""
    return cv2.cvtColor(
        cv2.resize(image, THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
    )


def change(one: np.ndarray, other: np.ndarray) -> float:
    """0 where two thumbnails show the same, about 1 where they have nothing in common."""
    (a, b), (s, t) = (one - one.mean(), other - other.mean()), (one.std(), other.std())
    if s < FLAT or t < FLAT:
        return float((s < FLAT) != (t < FLAT))  # to or from a blank picture
    return float(1 - (a * b).mean() / (s * t))


def is_cut(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> bool:
    """Whether all thumbnails before differ from all after.

    With two on each side, a single spoilt frame or a flash is no cut; with one after, it may be.
    """
    return min((change(a, b) for a in before for b in after), default=0.0) > CUT


def scene_cuts(thumbnails: Sequence[np.ndarray | None]) -> list[int]:
    """Numbers of the frames at which another scene begins, ascending; the first isn't among them.

    Parameters
    ----------
    thumbnails
        One a frame, None where it can't be read.
    """
    known = [(number, picture) for number, picture in enumerate(thumbnails) if picture is not None]
    numbers, pictures = [number for number, _ in known], [picture for _, picture in known]
    return [
        numbers[k]
        for k in range(1, len(known))
        if is_cut(pictures[max(k - 2, 0) : k], pictures[k : k + 2])
    ]
