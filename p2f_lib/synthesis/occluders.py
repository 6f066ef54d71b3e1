"""What hides a face: hands, masks, scarves, phones, cups, microphones. Drawn over the picture."""

from __future__ import annotations

import cv2
import numba
import numpy as np

from p2f_lib.synthesis.hands import draw_hand, lamp_direction, random_side
from p2f_lib.synthesis.noise import noise_image
from p2f_lib.synthesis.relief import draw_polygon, draw_relief, lay, polygon_mask
from p2f_lib.synthesis.skin import pick, random_color, skin_color, to_linear

FACE_MM = 140.0  # what the longer side of the landmarks' box measures

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

    def at(x: float, y: float) -> np.ndarray:
        return middle + x * right + y * down

    heading = np.arctan2(down[1], down[0])
    if kind == "hand":
        if rng.random() < 0.2:
            skin = to_linear(skin_color(rng))
        (x, y), poses = HAND_PLACES[rng.integers(len(HAND_PLACES))]
        x *= random_side(rng)
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
        place = at(random_side(rng) * rng.uniform(0.15, 0.6), rng.uniform(-0.2, 0.45))
        turn = heading - np.pi / 2 + rng.normal(0, 0.3)
        corners = _rectangle(place, unit * 72, unit * 148, turn)
        shine = 0.6 + 0.8 * noise_image(rng, 6, 6, rng.uniform(2, 4))
        draw_polygon(image, corners, to_linear(random_color(rng)) * light * 0.5, blur, 0.3, shine)
        draw_polygon(
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
        draw_polygon(image, outline, color, blur, 0.25, texture)


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
    draw_polygon(image, np.concatenate([lid, foot]), color, blur, 0.3, across)
    side = random_side(rng)
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
                draw_polygon(image, _strip(marks[end], hook, thick), color * light * 0.9, 0.0, 0.0)

    found = polygon_mask(image, outline, 2)
    if found is None:
        return
    corner, mask = found
    rows, columns = mask.shape
    right = marks[14] - marks[2]
    down = marks[8] - marks[27]
    look = np.array(
        [*(marks[33] - corner), *_inverse(right, down), rng.uniform(0.0, 0.14),
         rng.uniform(4, 9), {"surgical": 1.0, "cloth": 0.2, "shell": 0.0}[kind],
         {"surgical": 0.0, "cloth": 0.5, "shell": 1.0}[kind], rng.uniform(-0.3, 0.3)]
    )  # fmt: skip
    second = to_linear(random_color(rng, 0.9)) if kind == "cloth" and rng.random() < 0.4 else color
    cloth = _fill_mask(rows, columns, look, np.stack([color, second]) * light, rng.uniform(9, 40))
    lay(image, corner, cloth, mask.astype(np.float32) / 255, 0.0, 0.25)


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
    draw_polygon(image, np.concatenate([upper, lower]), color, 0.0, 0.3, texture)
