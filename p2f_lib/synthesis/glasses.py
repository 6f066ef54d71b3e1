"""Glasses and sunglasses, drawn over the picture."""

from __future__ import annotations

import cv2
import numba
import numpy as np

from p2f_lib.camera import Camera
from p2f_lib.synthesis.anatomy import HeadFrame
from p2f_lib.synthesis.people import Glasses

SHIFT = 4  # fractional bits of cv2's coordinates
RIM_POINTS = 40
BRIDGE_POINTS, ARM_POINTS = 8, 24


@numba.njit(cache=True, nogil=True)
def _glasses_points(marks, eyes_x, eyes_y, shape):
    """Two closed rims, the bridge and two temples, one after the other: (N, 3) mm."""
    size_x, size_y, squareness, droop, wing = shape
    out = np.empty((2 * (RIM_POINTS + ARM_POINTS) + BRIDGE_POINTS, 3))
    front = marks[27, 2] - 3
    for i in range(36, 48):
        front = max(front, marks[i, 2] + 9)
    bridge = 2 * RIM_POINTS
    for lens in range(2):
        first = 36 + 6 * lens
        cx, cy = 0.0, 0.0
        for i in range(first, first + 6):
            cx += marks[i, 0] / 6
            cy += marks[i, 1] / 6
        wide = np.sqrt(((marks[first] - marks[first + 3]) ** 2).sum())
        side = 1.0 if cx > eyes_x else -1.0
        half_x, half_y = size_x * wide / 2, size_y * wide / 2
        # Rims keep off the nose.
        middle = side * max(abs(cx - eyes_x), half_x + 7) + eyes_x
        outer, inner, best_outer, best_inner = 0, 0, -1e9, -1e9
        for k in range(RIM_POINTS):
            angle = 2 * np.pi * k / RIM_POINTS
            c, s = np.cos(angle), np.sin(angle)
            rx = np.sign(c) * abs(c) ** (2 / squareness)
            ry = np.sign(s) * abs(s) ** (2 / squareness)
            outward = 0.5 + 0.5 * rx * side
            ry += wing * outward**2 * max(ry, 0) - droop * outward * max(-ry, 0)
            rx -= side * droop * (1 - outward) * max(-ry, 0)
            i = lens * RIM_POINTS + k
            out[i, 0] = middle + half_x * rx
            out[i, 1] = cy - 0.12 * wide + half_y * ry
            out[i, 2] = front - 0.0022 * (out[i, 0] - eyes_x) ** 2  # wraps around the face
            reach = side * out[i, 0]
            if reach + 0.6 * out[i, 1] > best_outer:
                outer, best_outer = i, reach + 0.6 * out[i, 1]
            if -reach + 0.2 * out[i, 1] > best_inner:
                inner, best_inner = i, -reach + 0.2 * out[i, 1]
        ear = marks[16 * lens]
        hook_y = max(ear[1], eyes_y - 4)
        arm = bridge + BRIDGE_POINTS + lens * ARM_POINTS
        for k in range(ARM_POINTS):
            t = k / (ARM_POINTS - 1)
            out[arm + k, 0] = out[outer, 0] + t * (ear[0] + 4 * side - out[outer, 0])
            out[arm + k, 1] = out[outer, 1] + t * (hook_y - out[outer, 1])
            out[arm + k, 2] = out[outer, 2] + t * (ear[2] - out[outer, 2])
        out[bridge + (BRIDGE_POINTS - 1) * lens] = out[inner]
    start, end = out[bridge].copy(), out[bridge + BRIDGE_POINTS - 1].copy()
    for k in range(BRIDGE_POINTS):
        t = k / (BRIDGE_POINTS - 1)
        out[bridge + k] = start + t * (end - start)
        out[bridge + k, 1] += 2 * np.sin(np.pi * t) + 1
        out[bridge + k, 2] = max(out[bridge + k, 2], front)
    return out


@numba.njit(cache=True, nogil=True)
def _in_front(pixels, distance, depth, slack):
    """(N,) bool, which points aren't hidden by `depth` (H, W)."""
    height, width = depth.shape
    seen = np.empty(len(pixels), np.bool_)
    for i in range(len(pixels)):
        column = min(max(int(np.rint(pixels[i, 0])), 0), width - 1)
        row = min(max(int(np.rint(pixels[i, 1])), 0), height - 1)
        seen[i] = distance[i] <= depth[row, column] + slack
    return seen


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _lay_glasses(image, left, top, lens, rim, middles, down, half, colors, looks):
    """Blend lenses, what they mirror, and rims over the picture, in place.

    `middles` (2, 2) are the lenses' centres, `down` their direction, `half` their half height in
    pixels; `colors` (3, 3) those of tint, mirrored light and rim.
    """
    opacity, gradient, glare, angle, fade = looks
    gx, gy = np.cos(angle), np.sin(angle)
    for r in range(lens.shape[0]):
        for c in range(lens.shape[1]):
            if lens[r, c] == 0 and rim[r, c] == 0:
                continue
            pixel = image[top + r, left + c]
            if lens[r, c] > 0:
                x, y = left + c - middles[0, 0], top + r - middles[0, 1]
                u, v = left + c - middles[1, 0], top + r - middles[1, 1]
                if u * u + v * v < x * x + y * y:
                    x, y = u, v
                fall = (x * down[0] + y * down[1]) / half
                share = lens[r, c] / 255.0
                dense = opacity * (1 - gradient * min(max(0.5 + 0.5 * fall, 0.0), 1.0))
                across = (x * gx + y * gy) / half
                band = min(max((0.30 - abs(across + 0.35)) * 6, 0.0), 1.0)
                band += 0.6 * min(max((0.08 - abs(across - 0.25)) * 14, 0.0), 1.0)
                mirrored = glare * (0.8 * band + 0.35 * max(-fall, 0.0))
                for n in range(3):
                    pixel[n] += share * (
                        dense * (colors[0, n] - pixel[n]) + mirrored * colors[1, n]
                    )
            if rim[r, c] > 0:
                share = fade * rim[r, c] / 255.0
                for n in range(3):
                    pixel[n] += share * (colors[2, n] - pixel[n])


def draw_glasses(
    image: np.ndarray,
    depth: np.ndarray,
    glasses: Glasses,
    frame: HeadFrame,
    camera: Camera,
    scale: float,
    light: np.ndarray,
) -> None:
    """Draw glasses over a linear picture, in place, hidden where `depth` (H, W) is nearer.

    Parameters
    ----------
    camera : of the final picture; `image` is `scale` times larger.
    light : (3,) mean light on the face.
    """
    height, width = depth.shape
    shape = np.array([*glasses.size, glasses.squareness, glasses.droop, glasses.wing], np.float64)
    marks = np.asarray(frame.marks, np.float64)
    points = _glasses_points(marks, float(frame.eyes[0]), float(frame.eyes[1]), shape)
    pixels = (camera.project(points) + 0.5) * scale - 0.5
    seen = _in_front(pixels, camera.depth(points), depth, 4.0)
    if not seen.any():
        return
    upright = pixels[RIM_POINTS // 4] - pixels[3 * RIM_POINTS // 4]  # top and bottom of a lens
    tall = np.hypot(*upright)
    per_mm = tall / max(np.linalg.norm(points[RIM_POINTS // 4] - points[3 * RIM_POINTS // 4]), 1.0)
    thick = max(1, round(glasses.thickness * per_mm))
    low = np.maximum(pixels[seen].min(0).astype(int) - thick - 1, 0)
    high = np.minimum(pixels[seen].max(0).astype(int) + thick + 3, (width, height))
    if (high <= low).any():
        return
    lens, rim = np.zeros((2, *(high - low)[::-1]), np.uint8)
    fixed = np.round((pixels - low) * 2**SHIFT).astype(np.int32)

    rims = np.array([glasses.lower_rim, glasses.upper_rim])
    above = rims[(np.sin(2 * np.pi * np.arange(RIM_POINTS) / RIM_POINTS) > -0.05).astype(int)]
    for start in (0, RIM_POINTS):
        part = slice(start, start + RIM_POINTS)
        if seen[part].mean() > 0.3:
            cv2.fillPoly(lens, [fixed[part]], 255, cv2.LINE_AA, SHIFT)
        around = np.r_[start : start + RIM_POINTS, start]
        _stroke(rim, fixed[around], seen[around] & np.append(above, above[0]), thick)
    start = 2 * RIM_POINTS
    for count in (BRIDGE_POINTS, ARM_POINTS, ARM_POINTS):
        part = slice(start, start + count)
        _stroke(rim, fixed[part], seen[part], thick if count < ARM_POINTS else round(1.3 * thick))
        start += count
    middles = pixels[: 2 * RIM_POINTS].reshape(2, RIM_POINTS, 2).mean(1)
    colors = np.stack([glasses.tint * light, light, glasses.color * light])
    fade = min(1.0, max(glasses.thickness, 0.5) * per_mm)
    _lay_glasses(
        image, int(low[0]), int(low[1]), lens, rim, middles, -upright / max(tall, 1.0),
        max(tall / 2, 1.0), colors,
        (glasses.opacity, glasses.gradient, glasses.glare, glasses.glare_angle, fade),
    )  # fmt: skip


def _stroke(mask, fixed, seen, thick):
    """Draw those runs of a curve that are seen."""
    ends = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8)))
    runs = [fixed[a:b] for a, b in ends.reshape(-1, 2) if b - a > 1]
    if runs:
        cv2.polylines(mask, runs, False, 255, max(thick, 1), cv2.LINE_AA, SHIFT)
