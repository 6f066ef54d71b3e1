"""What hides a face: glasses, hands, masks, things. Drawn over the picture."""

from __future__ import annotations

import cv2
import numba
import numpy as np

from p2f_lib.synthesis.anatomy import HeadFrame
from p2f_lib.synthesis.noise import noise_image
from p2f_lib.synthesis.people import Glasses
from p2f_lib.synthesis.skin import pick, random_color, skin_color, to_linear

SHIFT = 4  # fractional bits of cv2's coordinates
RIM_POINTS = 40
BRIDGE_POINTS, ARM_POINTS = 8, 24
FACE_MM = 140.0  # what the longer side of the landmarks' box measures

# ------------------------------------------------------------------------------------- glasses


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
    image: np.ndarray, depth: np.ndarray, glasses: Glasses, frame: HeadFrame, camera, scale: float,
    light: np.ndarray,
) -> None:  # fmt: skip
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


# -------------------------------------------------------------------------------------- relief


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


def _lay(image, corner, colors, cover, blur=0.0, shadow=0.0):
    """Blend a patch whose first pixel is `corner` (x, y); soft by `blur`, casting a shadow."""
    if blur > 0.4:
        side = 2 * round(blur * 1.7) + 1
        cover = cv2.blur(cover, (side, side))
    below = cover
    if shadow > 0:
        side = 2 * max(1, round(min(cover.shape) * 0.04)) + 1
        below = cv2.blur(cover, (side, side), anchor=(side // 2, side - 1))
    _composite(image, *corner, colors, cover, below, shadow)


def _window(image, points, margin):
    """First pixel (x, y) and (rows, columns) of what is around points in the picture, or None."""
    height, width = image.shape[:2]
    low = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(points.max(0) + margin) + 1, (width, height)).astype(int)
    if (high - low < 2).any():
        return None
    return low, (int(high[1] - low[1]), int(high[0] - low[0]))


def draw_relief(
    image: np.ndarray, capsules: np.ndarray, parts: np.ndarray, colors: np.ndarray,
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
    window = _window(image, capsules[:, [0, 1, 4, 5]].reshape(-1, 2), radius + 2 + 3 * blur)
    if window is None:
        return
    corner, (rows, columns) = window
    relief, cover, part = _sculpt(
        capsules, np.asarray(parts, np.uint8), *map(float, corner), rows, columns
    )
    relief = cv2.blur(relief, (3, 3)) if radius > 8 else relief
    side = 2 * max(1, round(0.35 * radius)) + 1
    colors = _shade(
        relief, cv2.blur(relief, (side, side)), cover, part, np.asarray(colors, np.float32),
        np.asarray(toward, np.float32), np.float32(0.5 * radius),
    )  # fmt: skip
    _lay(image, corner, colors, cover, blur, shadow)


def _draw_polygon(image, points, colors, blur=0.0, shadow=0.3, texture=None):
    """Fill a polygon (N, 2) with one colour times a picture `texture` stretched over it."""
    window = _window(image, points, 2 + 3 * blur)
    if window is None:
        return
    corner, (rows, columns) = window
    mask = np.zeros((rows, columns), np.uint8)
    fixed = np.round((points - corner) * 2**SHIFT).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SHIFT)
    patch = np.empty((rows, columns, 3), np.float32)
    patch[:] = colors
    if texture is not None:
        stretched = cv2.resize(texture, (columns, rows), interpolation=cv2.INTER_LINEAR)
        patch *= stretched.reshape(rows, columns, -1)
    _lay(image, corner, patch, mask.astype(np.float32) / 255, blur, shadow)


# --------------------------------------------------------------------------------------- hands

# Sideways place of knuckle and wrist, finger length, radius of root and tip; mm, index first.
FINGERS = np.array(
    [[-29, -17, 72, 9.5, 7.2], [-9.5, -6, 80, 9.8, 7.4], [10, 6, 74, 9.3, 7.0],
     [28, 17, 58, 8.3, 6.2]]
)  # fmt: skip
THUMB = ((38.0, 15.0, 11.5), (32.0, 11.5, 10.0), (25.0, 10.0, 7.5))  # length, radii
SKIN_PART, SLEEVE, NAIL = range(3)


def hand_capsules(
    wrist: np.ndarray, forward: float, unit: float, curl: np.ndarray, spread: float, thumb: float,
    side: float, toward: float, sleeve: float, nails: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A hand and its forearm as rounded bars.

    Parameters
    ----------
    wrist : (2,) pixels.
    forward : direction from the wrist to the fingers, radians; x right, y down.
    unit : pixels of a millimetre.
    curl : (4,) of the fingers from the index, 0 straight to 1 a fist.
    spread : angle between neighbouring fingers, radians.
    thumb : its angle to the fingers, radians.
    side : 1 with the thumb to the left of `forward`, -1 to the right.
    toward : 1 if fingers curl towards the viewer, -1 away.
    sleeve : mm of bare forearm.
    nails : whether they are seen.

    Returns
    -------
    capsules : (N, 8) as `draw_relief` takes them.
    parts : (N,) SKIN_PART, SLEEVE or NAIL.
    """
    return _hand_capsules(
        np.asarray(wrist, np.float64), float(forward), float(unit), np.asarray(curl, np.float64),
        float(spread), float(thumb), float(side), float(toward), float(sleeve), bool(nails),
        FINGERS, THUMB,
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _hand_capsules(
    wrist, forward, unit, curl, spread, thumb, side, toward, sleeve, nails, fingers, thumbs
):
    out = np.zeros((32, 8))
    parts = np.zeros(32, np.uint8)
    n = 0
    fx, fy = np.cos(forward), np.sin(forward)
    ax, ay = -fy * side, fx * side  # towards the little finger
    # The palm's hollow, the forearm, its sleeve: (along, radius, height) of both ends.
    for bar in (
        (18.0, 20.0, -8.0, 82.0, 29.0, -14.0, 0),
        (12.0, 23.0, -4.0, -260.0, 38.0, -10.0, 0),
        (-sleeve, 33.0, -4.0, -270.0, 52.0, 0.0, 1),
    ):
        out[n] = (
            fx * bar[0], fy * bar[0], bar[1], bar[2], fx * bar[3], fy * bar[3], bar[4], bar[5]
        )  # fmt: skip
        parts[n] = bar[6]
        n += 1
    for k in range(4):
        knuckle, root, length, wide, tip = fingers[k]
        x, y = fx * 92 + ax * knuckle, fy * 92 + ay * knuckle
        out[n] = (fx * 12 + ax * root, fy * 12 + ay * root, 13.0, 0.0, x, y, 11.0, 0.0)
        n += 1
        turn = forward + side * spread * (k - 1.5)
        ux, uy, z = np.cos(turn), np.sin(turn), 0.0
        bend, radius = 0.0, wide
        for joint in range(3):
            bend += curl[k] * (1.35, 1.75, 1.1)[joint]
            step = length * (0.44, 0.31, 0.25)[joint]
            px, py, pz, thin = x, y, z, radius
            x, y = x + ux * step * np.cos(bend), y + uy * step * np.cos(bend)
            z += toward * step * np.sin(bend)
            radius = wide + (tip - wide) * (joint + 1) / 3
            out[n] = (px, py, thin, pz, x, y, radius, z)
            n += 1
        if nails and curl[k] < 0.35:
            out[n] = (
                x - 2 * ux, y - 2 * uy, 0.55 * tip, z + 0.65 * tip, x + 0.35 * tip * ux,
                y + 0.35 * tip * uy, 0.5 * tip, z + 0.5 * tip,
            )  # fmt: skip
            parts[n] = 2
            n += 1
    x, y, z = fx * 24 - ax * 22, fy * 24 - ay * 22, 3.0
    turn = forward - side * thumb
    for joint in range(3):
        step, thick, thin = thumbs[joint]
        px, py, pz = x, y, z
        x, y = x + np.cos(turn) * step, y + np.sin(turn) * step
        z += toward * 3
        out[n] = (px, py, thick, pz, x, y, thin, z)
        n += 1
        turn += side * 0.35 * thumb
    out = out[:n] * unit
    out[:, 0] += wrist[0]
    out[:, 4] += wrist[0]
    out[:, 1] += wrist[1]
    out[:, 5] += wrist[1]
    return out, parts[:n].copy()


def draw_hand(
    image: np.ndarray, rng: np.random.Generator, target: np.ndarray, forward: float, unit: float,
    skin: np.ndarray, light: np.ndarray, pose: str, blur: float = 0.0,
) -> None:  # fmt: skip
    """Draw a hand over a picture, in place.

    Parameters
    ----------
    target : (2,) pixels, what the roots of the fingers cover.
    forward : direction of the fingers, radians; x right, y down.
    unit : pixels of a millimetre.
    skin : (3,) reflectance.
    light : (3,) light there.
    pose : open, fist, point, two or grip.
    """
    unit *= rng.uniform(0.85, 1.1)
    curl = rng.uniform(0.0, 0.3, 4) + np.array([0.0, 0.02, 0.04, 0.06])
    spread = rng.uniform(0.0, 0.2)
    if pose != "open":
        straight = {"fist": 0, "grip": 0, "point": 1, "two": 2}[pose]
        curl[straight:] = rng.uniform(0.8, 1.0)
        spread = spread if pose == "two" else 0.03
    wrist = np.asarray(target) - 90 * unit * np.array([np.cos(forward), np.sin(forward)])
    back = rng.random() < 0.5 and pose != "grip"  # of the hand, to the viewer
    capsules, parts = hand_capsules(
        wrist, forward, unit, curl, spread, rng.uniform(0.3, 0.9), _side(rng),
        -1 if back else 1, rng.uniform(10, 260), back,
    )  # fmt: skip
    palm = skin if back else np.minimum(skin * 1.15 + 0.04, 1)
    nail = np.minimum(skin * [1.15, 1.0, 1.0] + 0.05, 1)
    if rng.random() < 0.25:
        nail = to_linear(random_color(rng, 1.0))
    colors = np.stack([palm, to_linear(random_color(rng, 0.9)), nail]) * light
    draw_relief(image, capsules, parts, colors, lamp_direction(rng), blur)


def _side(rng):
    """-1 or 1."""
    return 2 * int(rng.integers(2)) - 1


def lamp_direction(rng: np.random.Generator) -> np.ndarray:
    """(3,) unit vector towards the light, mostly from above; x right, y down, z to the viewer."""
    toward = np.array([rng.normal(0, 0.5), rng.normal(-0.6, 0.3), 0.8])
    return toward / np.linalg.norm(toward)


# ------------------------------------------------------------------------------------- things

OCCLUDERS = {
    "hand": 0.42, "mask": 0.14, "scarf": 0.05, "phone": 0.08, "cup": 0.06, "microphone": 0.07,
    "sheet": 0.06, "blob": 0.06, "bar": 0.06,
}  # fmt: skip
# Where hands go: place on the face (right, down; face sizes from its middle), poses.
HAND_PLACES = (
    ((0.0, 0.48), ("fist", "open", "point")),  # chin
    ((0.42, 0.2), ("open", "fist", "point")),  # cheek
    ((0.0, 0.27), ("open", "fist", "point", "grip")),  # mouth
    ((0.22, -0.22), ("open", "fist", "two")),  # eye
    ((0.25, -0.42), ("open", "grip")),  # brow
    ((0.75, 0.1), ("open", "two", "point", "fist")),  # beside the face
)


def draw_occluder(
    image: np.ndarray, box: np.ndarray, skin: np.ndarray, light: np.ndarray, seed: int,
    marks: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Something in front of the face: a hand, a mask, a phone, a cup, a microphone; in place.

    Parameters
    ----------
    image : (H, W, 3) float32, linear.
    box : (left, top, right, bottom) of the face, pixels of `image`.
    skin : (3,) reflectance of this person's skin.
    light : (3,) light there.
    seed : which thing and where; the same in each frame.
    marks : (68, 2) landmarks, pixels of `image`; without them nothing is worn.
    """
    rng = np.random.default_rng(seed)
    box = np.asarray(box, np.float64)
    size = max(box[2] - box[0], box[3] - box[1])
    if not 1 < size < 20 * max(image.shape[:2]):
        return
    kind = pick(rng, OCCLUDERS)
    if kind in ("mask", "scarf") and marks is None:
        kind = "hand"
    blur = 0.02 * size * rng.random() if rng.random() < 0.2 else 0.0  # nearer than the focus
    middle, right, down = _face_axes(box, size, marks)
    unit = size / FACE_MM
    light = np.asarray(light, np.float64)

    def at(x, y):
        return middle + x * right + y * down

    heading = np.arctan2(down[1], down[0])
    if kind == "hand":
        if rng.random() < 0.2:
            skin = to_linear(skin_color(rng))
        (x, y), poses = HAND_PLACES[rng.integers(len(HAND_PLACES))]
        x *= _side(rng)
        place = at(x + rng.normal(0, 0.08), y + rng.normal(0, 0.06))
        # From below or from the side, seldom from above.
        lean = np.sign(x) * rng.uniform(-0.3, 1.4) if x else rng.normal(0, 0.8)
        draw_hand(
            image,
            rng,
            place,
            heading + np.pi - lean,
            unit,
            skin,
            light,
            poses[rng.integers(len(poses))],
            blur,
        )
    elif kind == "mask":
        _draw_mask(image, rng, np.asarray(marks, np.float64), light)
    elif kind == "scarf":
        _draw_scarf(image, rng, np.asarray(marks, np.float64), right, down, light)
    elif kind == "microphone":
        _draw_microphone(image, rng, at, unit, heading, skin, light, blur)
    elif kind == "phone":
        place = at(_side(rng) * rng.uniform(0.15, 0.6), rng.uniform(-0.2, 0.45))
        turn = heading - np.pi / 2 + rng.normal(0, 0.3)
        corners = _rectangle(place, unit * 72, unit * 148, turn)
        shine = 0.6 + 0.8 * noise_image(rng, 6, 6, rng.uniform(2, 4))
        _draw_polygon(image, corners, to_linear(random_color(rng)) * light * 0.5, blur, 0.3, shine)
        _draw_polygon(
            image, _rectangle(corners[0] * 0.7 + corners[2] * 0.3, unit * 20, unit * 26, turn),
            0.01 * light, blur, 0.0,
        )  # fmt: skip
        hold = (corners[2] + corners[3]) / 2 + 0.1 * (corners[0] - corners[3])
        draw_hand(
            image, rng, hold, turn - np.pi / 2 + rng.normal(0, 0.3), unit, skin, light, "grip", blur
        )
    elif kind == "cup":
        _draw_cup(image, rng, at(rng.normal(0, 0.08), rng.uniform(0.25, 0.4)), unit, heading, skin,
                  light, blur)  # fmt: skip
    else:
        angle = rng.uniform(0, 2 * np.pi)
        spot = at(*(rng.uniform(0.25, 0.6) * np.array([np.cos(angle), np.sin(angle)])))
        color = to_linear(random_color(rng, 0.9)) * light
        texture = 0.5 + noise_image(rng, 24, 24, rng.uniform(2, 12), 3)
        if kind == "sheet":  # paper, a book, a sign
            long = size * rng.uniform(0.25, 0.7)
            outline = _rectangle(spot, long, long * rng.uniform(0.5, 1), rng.normal(0, 0.5))
            texture = _print(rng) if rng.random() < 0.6 else texture
        elif kind == "blob":
            turns = np.sort(rng.uniform(0, 2 * np.pi, 12))
            radius = size * rng.uniform(0.15, 0.4) * rng.uniform(0.6, 1.2, 12)
            outline = spot + radius[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)
        else:
            long = size * rng.uniform(1.0, 3.0)
            outline = _rectangle(spot, long, size * rng.uniform(0.03, 0.2), angle + 1.2)
        _draw_polygon(image, outline, color, blur, 0.25, texture)


def _face_axes(box, size, marks):
    """The face's middle (2,) and its right and down, one face size long, pixels."""
    middle = (box[:2] + box[2:]) / 2
    down = np.array([0.0, size])
    if marks is not None:
        marks = np.asarray(marks, np.float64)
        down = marks[6:11].mean(0) - marks[17:27].mean(0)
        middle = marks[17:27].mean(0) + 0.5 * down
        down *= size / max(np.hypot(*down), 1e-6)
    return middle, np.array([down[1], -down[0]]), down


def _rectangle(center, width, height, turn):
    """Corners (4, 2): top left, top right, bottom right, bottom left; turned by `turn` radians."""
    x = np.array([np.cos(turn), np.sin(turn)]) * width / 2
    y = np.array([-np.sin(turn), np.cos(turn)]) * height / 2
    return np.stack([center - x - y, center + x - y, center + x + y, center - x + y])


def _print(rng):
    """A page: a picture and lines, (32, 24, 1) in [0, 1]."""
    page = np.full((32, 24, 1), 0.9, np.float32)
    page[3 : 28 : rng.integers(2, 5), 3:21] = rng.uniform(0.1, 0.6)
    if rng.random() < 0.5:
        page[4:14, 4:20] = rng.random((10, 1, 1), dtype=np.float32)
    return page


def _draw_microphone(image, rng, at, unit, heading, skin, light, blur):
    lean = rng.normal(0, 0.6)
    direction = np.array([np.cos(heading + lean), np.sin(heading + lean)])
    head = at(rng.normal(0, 0.1), rng.uniform(0.25, 0.5))
    ball, end = unit * rng.uniform(18, 32), head + direction * unit * 200
    neck = head + direction * ball * 1.3
    bars = [
        [*head, ball, ball, *(head + direction * ball * 0.4), ball, ball],
        [*neck, 0.7 * ball, 0.3 * ball, *end, 0.5 * ball, 0.3 * ball],
    ]
    color = to_linear(random_color(rng)) if rng.random() < 0.3 else np.full(3, 0.02)
    colors = np.stack([color, np.full(3, rng.uniform(0.01, 0.1))]) * light
    draw_relief(image, bars, [0, 1], colors, lamp_direction(rng), blur)
    if rng.random() < 0.6:
        grasp = head + direction * unit * rng.uniform(80, 130)
        forward = heading + np.pi + rng.uniform(-1.5, 1.5)
        draw_hand(image, rng, grasp, forward, unit, skin, light, "grip", blur)


def _draw_cup(image, rng, rim, unit, heading, skin, light, blur):
    """A mug or a glass at the mouth, with the hand that holds it."""
    turn = heading - np.pi / 2 + rng.normal(0, 0.25)
    wide, tall = unit * rng.uniform(65, 95), unit * rng.uniform(80, 130)
    corners = _rectangle(
        rim + 0.5 * tall * np.array([-np.sin(turn), np.cos(turn)]), wide, tall, turn
    )
    corners[2:] += 0.12 * (corners[[3, 2]] - corners[2:])
    angle = np.linspace(0, np.pi, 9)
    bulge = np.array([-np.sin(turn), np.cos(turn)]) * wide * 0.14
    lid = (
        rim
        + np.cos(angle)[:, None] * (corners[0] - corners[1]) / 2
        - np.sin(angle)[:, None] * bulge
    )
    foot = (corners[2] + corners[3]) / 2 + np.cos(angle)[:, None] * (corners[2] - corners[3]) / 2
    foot = foot + np.sin(angle)[:, None] * bulge
    across = 0.55 + 0.45 * np.sin(np.linspace(0.5, 2.9, 16, dtype=np.float32))[None, :, None]
    color = to_linear(random_color(rng, 0.9)) * light
    _draw_polygon(image, np.concatenate([lid, foot]), color, blur, 0.3, across)
    side = _side(rng)
    grasp = (corners[:2].mean(0) + corners[2:].mean(0)) / 2 + side * 0.35 * (
        corners[1] - corners[0]
    )
    forward = turn + (np.pi if side > 0 else 0.0) + side * rng.uniform(-0.2, 0.7)
    draw_hand(image, rng, grasp, forward, unit, skin, light, "grip", blur)


# --------------------------------------------------------------------------------- worn things


def _draw_mask(image, rng, marks, light):
    """A face mask over nose, mouth and chin, with folds and ear loops."""
    jaw = marks[2:15]
    mouth = marks[48:60].mean(0)
    jaw = mouth + (jaw - mouth) * rng.uniform(1.0, 1.05)
    slip = rng.uniform(0.0, 0.8) if rng.random() < 0.8 else rng.uniform(1.5, 3.0)  # below the nose
    bridge = (
        marks[28]
        + (marks[33] - marks[28]) * min(slip, 1)
        + (marks[51] - marks[33]) * max(slip - 1, 0) * 0.4
    )
    tip = mouth + (marks[30] - mouth) * (1.12 if slip < 1 else 0.3)
    outline = cv2.convexHull(np.vstack([jaw, bridge, tip]).astype(np.float32))[:, 0].astype(
        np.float64
    )
    kind = pick(rng, {"surgical": 0.5, "cloth": 0.3, "shell": 0.2})
    value = rng.uniform(0.45, 0.8)
    color = np.full(3, value) if rng.random() < 0.4 else value * np.array([0.45, 0.75, 0.95])
    if kind == "cloth":
        color = to_linear(random_color(rng, 0.9))
    if kind == "shell":
        color = np.full(3, value if rng.random() < 0.7 else 0.02)

    # Ear loops on the sides that are seen.
    thick = max(1, round(np.ptp(marks[:, 0]) / 90))
    reach = np.linalg.norm(marks[[0, 16]] - marks[30], axis=1)
    for side, (ear, upper, lower) in enumerate(((0, 2, 4), (16, 14, 12))):
        if reach[side] > 0.6 * reach.max():
            hook = marks[ear] + 0.12 * (marks[ear] - marks[27])
            for end in (upper, lower):
                _draw_polygon(image, _strip(marks[end], hook, thick), color * light * 0.9, 0.0, 0.0)

    window = _window(image, outline, 2)
    if window is None:
        return
    corner, (rows, columns) = window
    mask = np.zeros((rows, columns), np.uint8)
    fixed = np.round((outline - corner) * 2**SHIFT).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SHIFT)
    right = marks[14] - marks[2]
    down = marks[8] - marks[27]
    look = np.array(
        [*(marks[33] - corner), *_inverse(right, down), rng.uniform(0.0, 0.14),
         rng.uniform(4, 9), {"surgical": 1.0, "cloth": 0.2, "shell": 0.0}[kind],
         {"surgical": 0.0, "cloth": 0.5, "shell": 1.0}[kind], rng.uniform(-0.3, 0.3)]
    )  # fmt: skip
    second = to_linear(random_color(rng, 0.9)) if kind == "cloth" and rng.random() < 0.4 else color
    cloth = _fill_mask(rows, columns, look, np.stack([color, second]) * light, rng.uniform(9, 40))
    _lay(image, corner, cloth, mask.astype(np.float32) / 255, 0.0, 0.25)


def _inverse(right, down):
    """Entries of the matrix from pixels to shares of two axes; zeros if they are parallel."""
    area = right[0] * down[1] - right[1] * down[0]
    if abs(area) < 1e-6:
        return np.zeros(4)
    return np.array([down[1], -down[0], -right[1], right[0]]) / area


@numba.njit(cache=True, nogil=True)
def _fill_mask(rows, columns, look, colors, period):
    """(H, W, 3) cloth that bulges over nose and chin, with pleats, a seam and maybe a pattern."""
    x0, y0, a, b, c, d, depth, pleats, folded, seam, side = look
    out = np.empty((rows, columns, 3), np.float32)
    for row in range(rows):
        for column in range(columns):
            x, y = column - x0, row - y0
            u, v = a * x + b * y, c * x + d * y
            level = 0.95 - 1.1 * (u - 0.3 * side) ** 2 - 0.35 * max(v - 0.25, 0.0)
            level *= 1 - folded * depth * np.cos(6.28 * pleats * (v + 0.25 * u * u))
            level *= 1 - 0.25 * seam * np.exp(-((u * 28) ** 2))
            level = max(level, 0.25)
            other = np.sin(u * period * 2) * np.sin(v * period) > 0
            for n in range(3):
                out[row, column, n] = level * (colors[1, n] if other else colors[0, n])
    return out


def _strip(start, end, thick):
    """A thin rectangle between two points."""
    along = end - start
    across = np.array([-along[1], along[0]]) * (0.5 * thick / max(np.hypot(*along), 1e-6))
    return np.stack([start - across, start + across, end + across, end - across])


def _draw_scarf(image, rng, marks, right, down, light):
    """Cloth wound around the neck, up to the lips or the nose."""
    top = marks[pick(rng, {8: 0.3, 57: 0.4, 33: 0.3})]
    middle = (marks[4] + marks[12]) / 2
    middle = middle + ((top - middle) @ down) / (down @ down) * down
    ends = [abs((marks[k] - middle) @ right) / (right @ right) for k in (3, 13)]
    half = max(*ends, 0.4) + rng.uniform(0.08, 0.2)
    shares = np.linspace(-1, 1, 9)
    upper = middle + shares[:, None] * half * right - (0.16 * shares**2)[:, None] * down
    upper = upper + rng.normal(0, 0.015, (9, 1)) * down
    lower = upper[::-1] + rng.uniform(0.5, 0.9) * down
    rows = np.linspace(0, rng.uniform(8, 20), 32, dtype=np.float32)[:, None]
    bend = np.linspace(-1.5, 1.5, 32, dtype=np.float32)[None]
    texture = (0.75 + 0.25 * np.sin(rows + bend**2 + rng.normal(0, 1) * bend))[..., None]
    texture = texture * (0.6 + 0.8 * noise_image(rng, 32, 32, 24)) * np.cos(bend * 0.6)[..., None]
    color = to_linear(random_color(rng, 0.9)) * light
    _draw_polygon(image, np.concatenate([upper, lower]), color, 0.0, 0.3, texture)
