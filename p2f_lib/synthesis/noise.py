"""Smooth random numbers: value noise in space for surfaces, in the plane for pictures."""

from __future__ import annotations

import cv2
import numba
import numpy as np

SIDE = 32  # of the tileable lattice; a power of two, so that wrapping is one `and`


def lattice(seed: int = 20170) -> np.ndarray:
    """(32, 32, 32) float32 uniform numbers: the values that `value_noise` interpolates."""
    return np.random.default_rng(seed).random((SIDE, SIDE, SIDE), dtype=np.float32)


LATTICE = lattice()


@numba.njit(cache=True, inline="always")
def value_noise(table: np.ndarray, x: float, y: float, z: float) -> float:
    """Trilinear noise in [0, 1] with period 32 at one point of space."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    tx, ty, tz = x - fx, y - fy, z - fz
    x0, y0, z0 = int(fx) & 31, int(fy) & 31, int(fz) & 31
    x1, y1, z1 = (x0 + 1) & 31, (y0 + 1) & 31, (z0 + 1) & 31
    low = table[z0, y0, x0] * (1 - tx) + table[z0, y0, x1] * tx
    high = table[z0, y1, x0] * (1 - tx) + table[z0, y1, x1] * tx
    near = low * (1 - ty) + high * ty
    low = table[z1, y0, x0] * (1 - tx) + table[z1, y0, x1] * tx
    high = table[z1, y1, x0] * (1 - tx) + table[z1, y1, x1] * tx
    return near * (1 - tz) + (low * (1 - ty) + high * ty) * tz


def noise_image(
    rng: np.random.Generator, height: int, width: int, cells: float, channels: int = 1
) -> np.ndarray:
    """Smooth noise picture in [0, 1], about `cells` random values across: (H, W, C) float32."""
    rows = max(2, round(cells * height / width))
    grid = rng.random((rows, max(2, round(cells)), channels), dtype=np.float32)
    picture = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture.reshape(height, width, channels), 0, 1)
