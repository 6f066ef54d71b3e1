"""Boxes in a picture and the square crops that the network sees.

Pixel centres lie at integers, so a picture of width W covers [-0.5, W - 0.5]; a box is given by the
continuous coordinates of its sides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from p2f_lib.errors import P2FError


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, sides in pixels (0-based, pixel centres at integers)."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        sides = (self.left, self.top, self.right, self.bottom)
        if not np.isfinite(sides).all() or self.right <= self.left or self.bottom <= self.top:
            raise P2FError(
                f"A box needs finite sides with left < right and top < bottom, got {sides}."
            )

    @classmethod
    def around(cls, points: np.ndarray) -> Box:
        """The tight box around (N, 2) points, those without NaN."""
        points = np.asarray(points)[np.isfinite(points).all(axis=1)]
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return cls(float(left), float(top), float(right), float(bottom))

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def center(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def overlap(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        both = max(across, 0.0) * max(down, 0.0)
        return both / (self.width * self.height + other.width * other.height - both)

    def as_tuple(self) -> tuple[float, float, float, float]:
        return self.left, self.top, self.right, self.bottom


@dataclass(frozen=True)
class Crop:
    """A square part of a picture, resampled to `size` x `size` pixels.

    Unturned, pixel (u, v) of the crop shows the picture at
    ``(left + (u + 0.5) * side / size, top + (v + 0.5) * side / size)``; `roll` turns the square
    about its centre, degrees, clockwise as seen in the picture: a head of that roll is upright.
    """

    left: float
    top: float
    side: float
    size: int
    roll: float = 0.0

    @classmethod
    def around(cls, box: Box, size: int, scale: float = 1.4) -> Crop:
        """The square of `scale` times the box's longer side about its centre."""
        side = scale * max(box.width, box.height)
        x, y = box.center
        return cls(x - side / 2, y - side / 2, side, size)

    @classmethod
    def upright(cls, points: np.ndarray, size: int, scale: float, roll: float) -> Crop:
        """The square turned by `roll` degrees around (N, 2) points, as `around` their upright box.

        A turned copy of the picture gives the same square of the same things.
        """
        turn = cls(0, 0, 1, 1, roll).to_picture[:, :2]
        square = cls.around(Box.around(points @ turn), size, scale)
        x, y = turn @ np.full(2, square.side / 2) + turn @ (square.left, square.top)
        return replace(square, left=x - square.side / 2, top=y - square.side / 2, roll=roll)

    @property
    def square(self) -> Box:
        """Its sides in the picture when it is not turned."""
        return Box(self.left, self.top, self.left + self.side, self.top + self.side)

    @property
    def to_picture(self) -> np.ndarray:
        """(2, 3) affine map from crop pixels to picture pixels."""
        step, half = self.side / self.size, self.side / 2
        cos, sin = np.cos(np.radians(self.roll)), np.sin(np.radians(self.roll))
        turn = np.array([[cos, -sin], [sin, cos]])
        center = np.array([self.left + half, self.top + half])
        return np.column_stack([step * turn, center - turn @ np.full(2, half - step / 2)])

    @property
    def from_picture(self) -> np.ndarray:
        """(2, 3) affine map from picture pixels to crop pixels."""
        return cv2.invertAffineTransform(self.to_picture)

    def points_to_picture(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) crop pixels to picture pixels."""
        matrix = self.to_picture
        return points @ matrix[:, :2].T + matrix[:, 2]

    def points_from_picture(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) picture pixels to crop pixels."""
        matrix = self.from_picture
        return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]

    def extract(self, image: np.ndarray) -> np.ndarray:
        """Resample (H, W, 3) uint8 to (size, size, 3); outside the picture is black.

        Shrinking is preceded by an area filter, so that the network never sees aliasing.
        """
        step = self.side / self.size
        if step > 1.0:
            # Smooth to the crop's resolution: Gaussian with the sigma of a box of `step` pixels.
            # A turned square reaches beyond the unturned one, to half its diagonal at most.
            pad = int(np.ceil(2 * step + (self.roll != 0) * (np.sqrt(0.5) - 0.5) * self.side))
            x0, y0 = (int(np.floor(v)) - pad for v in (self.left, self.top))
            x1, y1 = (int(np.ceil(v + self.side)) + pad for v in (self.left, self.top))
            x0, y0 = max(x0, 0), max(y0, 0)
            part = image[y0 : max(y1, y0), x0 : max(x1, x0)]
            if part.size == 0:
                return np.zeros((self.size, self.size, 3), np.uint8)
            image = cv2.GaussianBlur(part, (0, 0), 0.4 * step)
        else:
            x0 = y0 = 0
        matrix = self.to_picture - [[0, 0, x0], [0, 0, y0]]
        return cv2.warpAffine(
            image,
            matrix,
            (self.size, self.size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
