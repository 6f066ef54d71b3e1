"""Things of round limbs and flat pieces, shaded and laid over a picture."""

from __future__ import annotations

import cv2
import numba
import numpy as np
from numpy.typing import ArrayLike

SHIFT = 4  # fractional bits of cv2's coordinates


@numba.njit(cache=True, nogil=True)
def _sculpt(capsules, parts, left, top, rows, columns):
    """Rounded bars seen from above: relief (H, W), cover (H, W) in [0, 1] and part (H, W).

    Each capsule is (x, y, radius, height) of one end, then of the other, pixels.
    """
    relief = np.zeros((rows, columns), np.float32)
    cover = np.zeros((rows, columns), np.float32)
    part = np.zeros((rows, columns), np.uint8)
    for i in range(len(capsules)):
        x0, y0, r0, z0, x1, y1, r1, z1 = capsules[i]
        x0, x1, y0, y1 = x0 - left, x1 - left, y0 - top, y1 - top
        big = max(r0, r1) + 1
        dx, dy = x1 - x0, y1 - y0
        square = max(dx * dx + dy * dy, np.float32(1e-6))
        for row in range(max(int(min(y0, y1) - big), 0), min(int(max(y0, y1) + big) + 1, rows)):
            # Only that stretch of the axis which is near this row.
            near, far = x0, x1
            if abs(dy) > 1:
                ends = (row - big - y0) / dy, (row + big - y0) / dy
                near = x0 + dx * min(max(min(ends), np.float32(0)), np.float32(1))
                far = x0 + dx * min(max(max(ends), np.float32(0)), np.float32(1))
            first = max(int(min(near, far) - big), 0)
            last = min(int(max(near, far) + big) + 1, columns)
            for column in range(first, last):
                px, py = column - x0, row - y0
                t = min(max((px * dx + py * dy) / square, np.float32(0)), np.float32(1))
                ex, ey = px - t * dx, py - t * dy
                radius = r0 + t * (r1 - r0)
                away = ex * ex + ey * ey
                if away > (radius + 0.5) ** 2:
                    continue
                edge = radius + np.float32(0.5) - np.sqrt(away)
                cover[row, column] = max(cover[row, column], min(edge, np.float32(1)))
                z = z0 + t * (z1 - z0) + np.sqrt(max(radius * radius - away, np.float32(0)))
                if z > relief[row, column] or cover[row, column] < 0.5:
                    relief[row, column] = z
                    part[row, column] = parts[i]
    return relief, cover, part


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _shade(relief, around, cover, part, colors, toward, depth):
    """(H, W, 3) colour of a relief under light from `toward`; `around` is its blurred copy."""
    rows, columns = relief.shape
    out = np.empty((rows, columns, 3), np.float32)
    for r in range(rows):
        above, below = max(r - 1, 0), min(r + 1, rows - 1)
        for c in range(columns):
            color = colors[part[r, c]]
            level = np.float32(0.7)
            if cover[r, c] > 0:
                left, right = max(c - 1, 0), min(c + 1, columns - 1)
                nx = relief[r, left] - relief[r, right]
                ny = relief[above, c] - relief[below, c]
                # Steps at outlines are not slopes.
                nx, ny = min(max(nx, -4), 4), min(max(ny, -4), 4)
                size = np.sqrt(nx * nx + ny * ny + 4)
                facing = (nx * toward[0] + ny * toward[1] + 2 * toward[2]) / size
                hidden = min(max((around[r, c] - relief[r, c]) / depth, np.float32(0)), 1)
                level = (0.42 + 0.62 * max(facing, 0)) * (1 - 0.6 * hidden)
            for n in range(3):
                out[r, c, n] = color[n] * level
    return out


@numba.njit(cache=True, nogil=True)
def _composite(image, left, top, colors, cover, shadow, strength):
    """Blend colours (H, W, 3) by `cover` (H, W) over the picture, which `shadow` darkens first."""
    for r in range(cover.shape[0]):
        for c in range(cover.shape[1]):
            alpha = cover[r, c]
            dark = 1 - strength * shadow[r, c]
            for n in range(3):
                below = image[top + r, left + c, n] * dark
                image[top + r, left + c, n] = below + alpha * (colors[r, c, n] - below)


def lay(
    image: np.ndarray,
    corner: np.ndarray,
    colors: np.ndarray,
    cover: np.ndarray,
    blur: float = 0.0,
    shadow: float = 0.0,
) -> None:
    """Blend a patch whose first pixel is `corner` (x, y); soft by `blur`, casting a shadow."""
    if blur > 0.4:
        side = 2 * round(blur * 1.7) + 1
        cover = cv2.blur(cover, (side, side))
    below = cover
    if shadow > 0:
        side = 2 * max(1, round(min(cover.shape) * 0.04)) + 1
        below = cv2.blur(cover, (side, side), anchor=(side // 2, side - 1))
    left, top = corner
    _composite(image, left, top, colors, cover, below, shadow)


def find_window(
    image: np.ndarray, points: np.ndarray, margin: float
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """First pixel (x, y) and (rows, columns) of what is around points in the picture, or None."""
    height, width = image.shape[:2]
    low = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(points.max(0) + margin) + 1, (width, height)).astype(int)
    if (high - low < 2).any():
        return None
    return low, (int(high[1] - low[1]), int(high[0] - low[0]))


def draw_relief(
    image: np.ndarray, capsules: ArrayLike, parts: ArrayLike, colors: np.ndarray,
    toward: np.ndarray, blur: float = 0.0, shadow: float = 0.3,
) -> None:  # fmt: skip
    """Draw rounded bars over a picture, in place.

    Parameters
    ----------
    image : (H, W, 3) float32.
    capsules : (N, 8), each (x, y, radius, height) of both ends, pixels; higher hides lower.
    parts : (N,) row in `colors` (P, 3) of each.
    toward : (3,) where light comes from; x right, y down, z to the viewer.
    blur : of the outline, pixels.
    shadow : darkness of the shadow beneath.
    """
    capsules = np.asarray(capsules, np.float32)
    radius = float(capsules[:, [2, 6]].max())
    window = find_window(image, capsules[:, [0, 1, 4, 5]].reshape(-1, 2), radius + 2 + 3 * blur)
    if window is None:
        return
    corner, (rows, columns) = window
    left, top = map(float, corner)
    relief, cover, part = _sculpt(capsules, np.asarray(parts, np.uint8), left, top, rows, columns)
    relief = cv2.blur(relief, (3, 3)) if radius > 8 else relief
    side = 2 * max(1, round(0.35 * radius)) + 1
    colors = _shade(
        relief, cv2.blur(relief, (side, side)), cover, part, np.asarray(colors, np.float32),
        np.asarray(toward, np.float32), np.float32(0.5 * radius),
    )  # fmt: skip
    lay(image, corner, colors, cover, blur, shadow)


def polygon_mask(
    image: np.ndarray, points: np.ndarray, margin: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """First pixel (x, y) and uint8 mask of a polygon (N, 2) and what is around it, or None."""
    window = find_window(image, points, margin)
    if window is None:
        return None
    corner, size = window
    mask = np.zeros(size, np.uint8)
    fixed = np.round((points - corner) * 2**SHIFT).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SHIFT)
    return corner, mask


def draw_polygon(
    image: np.ndarray,
    points: np.ndarray,
    colors: np.ndarray,
    blur: float = 0.0,
    shadow: float = 0.3,
    texture: np.ndarray | None = None,
) -> None:
    """Fill a polygon (N, 2) with one colour times a picture `texture` stretched over it."""
    found = polygon_mask(image, points, 2 + 3 * blur)
    if found is None:
        return
    corner, mask = found
    rows, columns = mask.shape
    patch = np.empty((rows, columns, 3), np.float32)
    patch[:] = colors
    if texture is not None:
        stretched = cv2.resize(texture, (columns, rows), interpolation=cv2.INTER_LINEAR)
        patch *= stretched.reshape(rows, columns, -1)
    lay(image, corner, patch, mask.astype(np.float32) / 255, blur, shadow)
