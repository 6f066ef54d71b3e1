"""What stands behind the head: rooms, walls, landscapes, lights, lettering, other people; and
pictures of things that are round and skin-coloured but no face."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import skimage.data
from numpy.typing import ArrayLike

from p2f_lib.synthesis.hands import draw_hand, lamp_direction
from p2f_lib.synthesis.noise import noise_image
from p2f_lib.synthesis.relief import draw_relief
from p2f_lib.synthesis.skin import HAIR_COLORS, pick, random_color, skin_color

# Pictures inside the scikit-image wheel without a face of man or beast (no astronaut, cameraman,
# cat, horse or portrait coins).
PICTURES = (
    "brick",
    "cell",
    "clock",
    "coffee",
    "colorwheel",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "microaneurysms",
    "moon",
    "page",
    "retina",
    "rocket",
    "stereo_motorcycle",
    "text",
)
SHIFT = 3  # fractional bits of cv2's coordinates


@lru_cache(maxsize=1)
def pictures() -> tuple[tuple[np.ndarray, ...], ...]:
    """The texture pictures, each a pyramid: (H, W, 3) uint8 and ever half of it, some 20 MB."""
    loaded = []
    for name in PICTURES:
        picture = getattr(skimage.data, name)()
        picture = picture[0] if isinstance(picture, tuple) else picture
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, axis=2)
        levels = [np.ascontiguousarray(picture[..., :3])]
        while min(levels[-1].shape[:2]) > 64:
            half = (levels[-1].shape[1] // 2, levels[-1].shape[0] // 2)
            levels.append(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA))
        loaded.append(tuple(levels))
    return tuple(loaded)


def _paint(rng: np.random.Generator, saturation: float = 0.6) -> list[int]:
    """A colour for cv2's drawing on bytes."""
    return (255 * random_color(rng, saturation)).astype(int).tolist()


def _bytes(colors: np.ndarray) -> np.ndarray:
    return (255 * np.clip(colors, 0, 1)).astype(np.uint8)


def _fixed(points: ArrayLike) -> np.ndarray:
    return np.round(np.asarray(points) * 2**SHIFT).astype(np.int32)


def _polygon(picture, points, color):
    cv2.fillPoly(picture, [_fixed(points)], color, cv2.LINE_AA, SHIFT)


def _ellipse(picture, center, axes, color, turn=0.0, thickness=-1):
    """An ellipse with a centre and half axes in pixels, turned by degrees."""
    center, axes = _fixed(center).tolist(), np.maximum(_fixed(axes), 1).tolist()
    cv2.ellipse(picture, center, axes, turn, 0, 360, color, thickness, cv2.LINE_AA, SHIFT)


# ------------------------------------------------------------------------------------ surfaces


def _gradient(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    corners = np.stack([random_color(rng) for _ in range(4)]).reshape(2, 2, 3)
    base = corners[rng.integers(2), rng.integers(2)]
    corners = base + rng.uniform(0.05, 0.9) * (corners - base)
    return cv2.resize(_bytes(corners), (w, h), interpolation=cv2.INTER_LINEAR)


def _clouds(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    cells = int(rng.uniform(5, 40))
    tint = noise_image(rng, cells, cells, rng.uniform(1.5, 5), 3)
    mix = 0.5 * tint + 0.8 * rng.random((cells, cells, 1), dtype=np.float32) - 0.15
    one, two = random_color(rng), random_color(rng)
    return cv2.resize(
        _bytes(two + (one - two) * np.clip(mix, 0, 1)), (w, h), interpolation=cv2.INTER_CUBIC
    )


def _texture(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """A piece of a picture, mirrored, turned, tinted."""
    levels = pictures()[rng.integers(len(PICTURES))]
    share = rng.uniform(0.25, 1.0)
    level = 0
    while level + 1 < len(levels) and share * min(levels[level + 1].shape[:2]) >= max(h, w):
        level += 1
    picture = levels[level]
    height, width = picture.shape[:2]
    side = max(int(share * min(height, width)), 2)
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    piece = picture[top : top + side, left : left + side]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    if rng.random() < 0.3:
        piece = piece.swapaxes(0, 1)
    piece = cv2.resize(np.ascontiguousarray(piece), (w, h), interpolation=cv2.INTER_LINEAR)
    order = rng.permutation(3) if rng.random() < 0.5 else range(3)
    return cv2.merge(
        [cv2.convertScaleAbs(piece[..., k], None, rng.uniform(0.5, 1.3)) for k in order]
    )


def _pattern(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """A tile over and over: stripes, checks, dots, bricks, herringbone."""
    kind = pick(rng, {"stripes": 0.35, "checks": 0.2, "dots": 0.15, "bricks": 0.2, "ripples": 0.1})
    side = 32
    tile = np.empty((side, side, 3), np.uint8)
    tile[:] = _paint(rng)
    color, angle = _paint(rng), rng.uniform(0, np.pi)
    if kind == "bricks":
        angle = rng.normal(0, 0.05)
        for row, start in ((0, 0), (16, -16)):
            for left in (start, start + 32):
                cv2.rectangle(tile, (left + 1, row + 1), (left + 30, row + 14), color, -1)
    elif kind == "dots":
        cv2.circle(tile, (16, 16), int(rng.integers(3, 14)), color, -1, cv2.LINE_AA)
    elif kind == "ripples":
        wave = 0.5 + 0.5 * np.sin(2 * np.pi * np.arange(side) / side)
        tile[:] = (tile + wave[:, None, None] * (np.array(color) - tile)).astype(np.uint8)
    else:
        tile[: rng.integers(4, 28)] = color
        if kind == "checks":
            tile[:, : side // 2] = tile[::-1, : side // 2]
    scale = side / max(w * rng.uniform(0.03, 0.4), 2.0)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    place = np.array([[c, -s, rng.uniform(0, side)], [s, c, rng.uniform(0, side)]], np.float32)
    return cv2.warpAffine(
        tile, place, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip


# -------------------------------------------------------------------------------------- places


def _room(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """A wall or a corner with a floor, windows, pictures, a shelf, a lamp."""
    wall = random_color(rng, 0.4)
    sides = np.stack([wall, wall * rng.uniform(0.6, 1.1)])[None]
    corner = rng.uniform(-0.3, 1.3) * w
    picture = cv2.resize(_bytes(sides * rng.uniform(0.8, 1.1, (2, 1, 1))), (w, h))
    if 0 < corner < w:
        picture[:, int(corner) :] = cv2.convertScaleAbs(picture[:, int(corner) :], None, 0.8)
    if rng.random() < 0.5:
        level, slope = rng.uniform(0.65, 1.0) * h, rng.normal(0, 0.1) * w
        floor = [[0, level + slope], [corner, level], [w, level + abs(slope)], [w, h], [0, h]]
        _polygon(picture, floor, _paint(rng, 0.5))
    for _ in range(rng.integers(0, 4)):
        x, y = rng.uniform(-0.2, 0.9) * w, rng.uniform(-0.1, 0.5) * h
        wide, tall = rng.uniform(0.1, 0.5) * w, rng.uniform(0.15, 0.6) * h
        _thing_on_wall(rng, picture, x, y, wide, tall)
    return picture


def _thing_on_wall(rng, picture, x, y, wide, tall):
    """A window, a framed picture, a door or a shelf of books, in place."""
    kind = pick(rng, {"window": 0.3, "picture": 0.25, "shelf": 0.3, "door": 0.15})
    frame, thick = _paint(rng, 0.4), max(1, int(0.05 * min(wide, tall)))
    near, far = (int(x), int(y)), (int(x + wide), int(y + tall))
    if kind == "shelf":
        cv2.rectangle(picture, near, far, frame, -1)
        boards = int(rng.integers(2, 5))
        for board in range(boards):
            left, bottom = x + thick, y + (board + 1) * tall / boards - thick
            while left < x + wide - thick:
                book = wide * rng.uniform(0.04, 0.12)
                top = bottom - tall / boards * rng.uniform(0.5, 0.85)
                right = min(left + book, x + wide - thick)
                cv2.rectangle(
                    picture, (int(left), int(top)), (int(right), int(bottom)), _paint(rng, 0.9), -1
                )
                left += book + 1
        return
    if kind == "window":
        cv2.rectangle(picture, near, far, [int(v) for v in rng.uniform(150, 255, 3)], -1)
        middle = (int(x + wide / 2), int(y + tall / 2))
        cv2.line(picture, (middle[0], near[1]), (middle[0], far[1]), frame, thick)
        cv2.line(picture, (near[0], middle[1]), (far[0], middle[1]), frame, thick)
    else:
        cv2.rectangle(picture, near, far, _paint(rng), -1)
    cv2.rectangle(picture, near, far, frame, 2 * thick)


def _outdoors(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """A sky, hills or houses before it, ground."""
    top = np.array([0.35, 0.55, 0.85]) * rng.uniform(0.5, 1.1, 3)
    low = top + rng.uniform(0, 0.8) * (np.array([0.95, 0.9, 0.85]) - top)
    picture = cv2.resize(_bytes(np.stack([top, low])[:, None]), (w, h))
    if rng.random() < 0.4:
        veil = _bytes(noise_image(rng, 24, 24, rng.uniform(3, 10)) * 1.2 - 0.5)
        veil = cv2.resize(veil, (w, h), interpolation=cv2.INTER_LINEAR)
        picture = cv2.add(picture, cv2.merge([veil] * 3))
    horizon = rng.uniform(0.3, 0.9) * h
    green = np.array([0.30, 0.42, 0.16]) * rng.uniform(0.3, 1.2)
    for layer in range(rng.integers(1, 4)):
        x = np.linspace(-0.05, 1.05, 12) * w
        y = horizon + 0.12 * h * layer + rng.normal(0, 0.05 * h, 12)
        haze = 0.5 ** (layer + 1)
        color = _bytes(green + haze * (low - green)).tolist()
        if rng.random() < 0.4:  # houses
            x, y = np.repeat(x, 2)[1:-1], np.repeat(y[:-1], 2) - 0.1 * h
            color = _paint(rng, 0.4)
        outline = np.concatenate([np.stack([x, y], 1), [[1.1 * w, 1.1 * h], [-0.1 * w, 1.1 * h]]])
        _polygon(picture, outline, color)
    return picture


def _foliage(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Leaves upon leaves, light between them."""
    hue = np.array([0.30, 0.50, 0.15]) * rng.uniform(0.6, 1.4, 3)
    picture = _clouds(rng, h, w) if rng.random() < 0.3 else np.empty((h, w, 3), np.uint8)
    picture[:] = _bytes(0.3 * hue)
    count = int(rng.integers(20, 45))
    places, size = rng.uniform(-0.05, 1.05, (count, 2)) * (w, h), w * rng.uniform(0.03, 0.12)
    turns, levels = rng.uniform(0, 2 * np.pi, count), np.linspace(0.35, 1.3, count)
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    leaf = np.stack([np.cos(angle), 0.4 * np.sin(angle) * (1 - 0.4 * np.cos(angle))], 1) * size
    cosine, sine = np.cos(turns), np.sin(turns)
    turned = leaf @ np.stack([np.stack([cosine, sine], 1), np.stack([-sine, cosine], 1)], 1)
    fixed = _fixed(turned + places[:, None])
    shades = _bytes(hue * (levels * rng.uniform(0.7, 1.2, count))[:, None]).tolist()
    for points, color in zip(fixed, shades, strict=True):
        cv2.fillConvexPoly(picture, points, color, cv2.LINE_AA, SHIFT)
    return picture


# -------------------------------------------------------------------------------------- things


def _scatter(rng: np.random.Generator, picture: np.ndarray, count: int, largest: float) -> None:
    """Polygons, ellipses, bars and rectangles over a picture, in place."""
    h, w = picture.shape[:2]
    spots = rng.uniform(-0.1, 1.1, (count, 2)) * (w, h)
    for (x, y), size in zip(spots, largest * w * rng.beta(1, 2.5, count) + 2, strict=True):
        color = _bytes(skin_color(rng)).tolist() if rng.random() < 0.2 else _paint(rng, 0.9)
        kind = rng.integers(4)
        if kind == 0:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            points = np.stack([x + size * np.cos(angles), y + size * np.sin(angles)], 1)
            _polygon(picture, points, color)
        elif kind == 1:
            axes = (size / 2, size * rng.uniform(0.2, 0.6))
            _ellipse(picture, (x, y), axes, color, rng.uniform(0, 180))
        elif kind == 2:
            tip = _fixed(rng.uniform(-0.2, 1.2, 2) * (w, h)).tolist()
            thick = int(rng.integers(1, 2 + w // 16))
            cv2.line(picture, _fixed((x, y)).tolist(), tip, color, thick, cv2.LINE_AA, SHIFT)
        else:
            far = (int(x + size), int(y + size * rng.uniform(0.3, 2.5)))
            cv2.rectangle(picture, (int(x), int(y)), far, color, -1)


def _crowd(rng: np.random.Generator, picture: np.ndarray, count: int) -> None:
    """People farther away, in place: hair, eyes and a mouth, so that they are no round blobs."""
    h, w = picture.shape[:2]
    sizes = np.sort(w * rng.uniform(0.03, 0.11, count))  # half the height of a head
    spots = rng.uniform(0, 1, (count, 2)) * (w, 0.7 * h)
    for (x, y), r in zip(spots, sizes, strict=True):
        lean, away = rng.normal(0, 0.15), rng.random() < 0.2
        skin = skin_color(rng)
        hair = _bytes(HAIR_COLORS[pick(rng, CROWD_HAIR)] ** (1 / 2.2)).tolist()
        tone, dark = _bytes(skin).tolist(), _bytes(0.35 * skin).tolist()
        cloth = _paint(rng, 0.8)
        _ellipse(picture, (x, y + 2.6 * r), (1.9 * r, 1.2 * r), cloth)
        near, far = (int(x - 1.7 * r), int(y + 2.8 * r)), (int(x + 1.7 * r), int(y + 9 * r))
        cv2.rectangle(picture, near, far, cloth, -1)
        _polygon(picture, [[x - 0.4 * r, y], [x + 0.4 * r, y], [x + 0.5 * r, y + 1.6 * r],
                           [x - 0.5 * r, y + 1.6 * r]], _bytes(0.8 * skin).tolist())  # fmt: skip
        long = rng.random() < 0.4
        _ellipse(picture, (x, y + (0.4 if long else -0.25) * r),
                 (0.92 * r, (1.6 if long else 0.95) * r), hair)  # fmt: skip
        if away:
            continue
        side = lean * 2 * r
        _ellipse(picture, (x + 0.3 * side, y + 0.12 * r), (0.74 * r, r), tone, 10 * lean)
        _ellipse(picture, (x + 0.3 * side, y - 0.72 * r), (0.66 * r, 0.35 * r), hair)
        if r < 3:
            continue
        for eye in (-0.3, 0.3):
            _ellipse(picture, (x + side + eye * r, y - 0.05 * r), (0.13 * r, 0.07 * r), dark)
        _ellipse(picture, (x + side, y + 0.62 * r), (0.25 * r, 0.07 * r),
                 _bytes(skin * [0.75, 0.45, 0.45]).tolist())  # fmt: skip


CROWD_HAIR = {"black": 0.4, "dark brown": 0.25, "brown": 0.15, "blond": 0.1, "grey": 0.1}


def _bokeh(rng: np.random.Generator, picture: np.ndarray) -> None:
    """Lights out of focus, in place."""
    h, w = picture.shape[:2]
    glow = np.zeros_like(picture)
    largest = rng.uniform(0.03, 0.09)
    for _ in range(rng.integers(4, 16)):
        radius = w * largest * rng.uniform(0.5, 1) + 1
        color = (0.7 * np.array(_paint(rng, 1.0))).tolist()
        _ellipse(glow, rng.uniform(0, 1, 2) * (w, h), (radius, radius), color)
    cv2.add(picture, glow, dst=picture)


def _lettering(rng: np.random.Generator, picture: np.ndarray) -> None:
    """Lines of strokes that look like writing from afar, in place."""
    h, w = picture.shape[:2]
    for _ in range(rng.integers(1, 5)):
        size = w * rng.uniform(0.02, 0.14)
        count = int(rng.integers(3, 10))
        x, y = rng.uniform(-0.2, 0.7) * w, rng.uniform(0, 1) * h
        strokes = rng.integers(0, 3, (count, 4, 2)) / 2 * [0.6 * size, size] + [x, y]
        strokes[..., 0] += 0.85 * size * np.arange(count)[:, None]
        thick = max(1, round(size / 7))
        cv2.polylines(
            picture, list(_fixed(strokes)), False, _paint(rng, 1.0), thick, cv2.LINE_AA, SHIFT
        )


SURFACES = {
    _gradient: 0.26, _clouds: 0.12, _texture: 0.24, _pattern: 0.1, _room: 0.14, _outdoors: 0.07,
    _foliage: 0.07,
}  # fmt: skip


def draw_background(
    rng: np.random.Generator, height: int, width: int, people: bool = True
) -> np.ndarray:
    """A background in display values: (H, W, 3) float32 in [0, 1]; `people` may stand in it."""
    picture = background_bytes(rng, height, width, people)
    return np.multiply(picture, np.float32(1 / 255), dtype=np.float32)


def background_bytes(
    rng: np.random.Generator, height: int, width: int, people: bool = True
) -> np.ndarray:
    """`draw_background` as (H, W, 3) uint8."""
    # Out of focus behind the head, as often as not; what is blurred is painted smaller.
    sigma = width * 0.06 * rng.beta(1, 2.5) + 0.3 if rng.random() < 0.65 else 0.0
    shrink = max(1.0, 0.8 * sigma, max(height, width) / 192)
    h, w = max(round(height / shrink), 8), max(round(width / shrink), 8)
    picture = pick(rng, SURFACES)(rng, h, w)
    if rng.random() < 0.35:
        _scatter(rng, picture, int(rng.integers(2, 15)), rng.uniform(0.2, 0.9))
    if rng.random() < 0.2 and people:
        _crowd(rng, picture, int(rng.integers(1, 6)))
    if rng.random() < 0.12:
        _lettering(rng, picture)
    if rng.random() < 0.12:
        _bokeh(rng, picture)
    if rng.random() < 0.2:  # uneven light
        veil: np.ndarray = 1.3 * noise_image(rng, 8, 8, rng.uniform(1.5, 4)) ** 0.7
        veil = cv2.resize(np.minimum(255 * veil, 255).astype(np.uint8), (w, h))
        picture = cv2.multiply(picture, cv2.merge([veil] * 3), scale=1 / 255)
    if sigma > 0:
        rest = max(sigma / shrink, 0.3)
        picture = cv2.GaussianBlur(picture, (0, 0), rest)
    picture = cv2.convertScaleAbs(picture, None, float(np.exp(rng.normal(0, 0.25))))
    if picture.shape[:2] != (height, width):
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return picture


# ------------------------------------------------------------------------------------- no face

DISTRACTORS = {
    "balls": 0.2, "plate": 0.1, "clock": 0.1, "blank": 0.12, "back": 0.2, "lamp": 0.06,
    "leaf": 0.06, "hand": 0.14, "nothing": 0.02,
}  # fmt: skip


def draw_distractor(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A picture without a face, of what is taken for one: balls, plates, clocks, heads from behind.

    Returns
    -------
    (H, W, 3) float32 in [0, 1], display values.
    """
    picture = draw_background(rng, height, width, people=False)
    for _ in range(int(rng.integers(1, 3))):
        center = rng.uniform(0.25, 0.75, 2) * (width, height)
        size = width * rng.uniform(0.12, 0.38)
        kind = pick(rng, DISTRACTORS)
        if kind in FLAT:  # cv2 smooths edges on bytes only
            canvas = _bytes(picture)
            FLAT[kind](rng, canvas, center, size)
            picture = np.multiply(canvas, np.float32(1 / 255), dtype=np.float32)
        elif kind in ROUND:
            ROUND[kind](rng, picture, center, size)
    if rng.random() < 0.3:
        side = 2 * int(rng.integers(1, 1 + max(width // 64, 1))) + 1
        picture = cv2.blur(picture, (side, side))
    return np.clip(picture, 0, 1, out=picture)


def _skin_or_paint(rng):
    return skin_color(rng) if rng.random() < 0.5 else random_color(rng, 0.9)


def _balls(rng, picture, center, size):
    """Balls, eggs, fruit: one or a few, shaded."""
    count = 1 if rng.random() < 0.6 else int(rng.integers(2, 5))
    size /= np.sqrt(count)
    spots = center + rng.normal(0, 1.4 * size * (count > 1), (count, 2))
    tips = spots + rng.normal(0, 0.3 * size, (count, 2))
    radius = size * rng.uniform(0.6, 1.0, (count, 1))
    bars = np.concatenate([spots, radius, radius, tips, radius, radius], 1)
    colors = np.stack([_skin_or_paint(rng) for _ in range(count)])
    draw_relief(picture, bars, np.arange(count), colors, lamp_direction(rng))


def _plate(rng, canvas, center, size):
    """Circles within circles: plates, wheels, buttons, targets."""
    color, flat = random_color(rng, 0.8), rng.uniform(0.5, 1.0)
    turn = rng.uniform(0, 180)
    for share in np.sort(rng.uniform(0.1, 1.0, rng.integers(2, 6)))[::-1]:
        _ellipse(canvas, center, size * share * np.array([1, flat]), _bytes(color).tolist(), turn)
        color = color * rng.uniform(0.5, 1.5) if rng.random() < 0.7 else random_color(rng)
    if rng.random() < 0.4:  # holes of a button, sockets of a wall plug
        for angle in np.linspace(0, 2 * np.pi, int(rng.integers(2, 5)), endpoint=False):
            hole = center + 0.3 * size * np.array([np.cos(angle), np.sin(angle)])
            _ellipse(canvas, hole, np.full(2, 0.08 * size), (12, 12, 12))


def _clock(rng, canvas, center, size):
    face = random_color(rng, 0.3)
    _ellipse(canvas, center, np.full(2, size), _paint(rng))
    _ellipse(canvas, center, np.full(2, 0.9 * size), _bytes(face).tolist())
    ink = _bytes(0.1 * face if face.mean() > 0.3 else np.full(3, 0.9)).tolist()
    angles = np.concatenate([np.arange(12) * np.pi / 6, rng.uniform(0, 2 * np.pi, 2)])
    start, end = np.r_[np.full(12, 0.72), 0, 0], np.r_[np.full(12, 0.82), 0.5, 0.7]
    spokes = np.stack([np.cos(angles), np.sin(angles)], 1) * size
    lines = np.stack([center + start[:, None] * spokes, center + end[:, None] * spokes], 1)
    thick = max(1, int(0.05 * size))
    cv2.polylines(canvas, list(_fixed(lines)), False, ink, thick, cv2.LINE_AA, SHIFT)


def _blank(rng, picture, center, size):
    """A head without features, as of a shop-window dummy, on a neck."""
    radius, skin = 0.62 * size, _skin_or_paint(rng)
    lean = rng.normal(0, 0.15)
    axis = np.array([np.sin(lean), np.cos(lean)])
    bars = [
        [*(center - 0.3 * size * axis), radius, radius,
         *(center + 0.35 * size * axis), 0.75 * radius, 0.75 * radius],
        [*center, 0.45 * radius, 0, *(center + 1.6 * size * axis), 0.5 * radius, 0],
        [*(center + np.array([-1.2 * size, 2.2 * size])), 0.8 * size, 0,
         *(center + np.array([1.2 * size, 2.2 * size])), 0.8 * size, 0],
    ]  # fmt: skip
    colors = np.stack([skin, skin if rng.random() < 0.5 else random_color(rng)])
    draw_relief(picture, np.array(bars), [0, 0, 1], colors, lamp_direction(rng))


def _back(rng, picture, center, size):
    """A head from behind: hair all over, ears, neck and shoulders."""
    skin, hair = skin_color(rng), HAIR_COLORS[pick(rng, CROWD_HAIR)] ** (1 / 2.2)
    radius = 0.62 * size
    bars = [
        [*center, 0.5 * radius, 0, *(center + np.array([0, 1.5 * size])), 0.6 * radius, 0],
        [*(center + np.array([-1.1 * size, 2.2 * size])), 0.8 * size, 0.2 * size,
         *(center + np.array([1.1 * size, 2.2 * size])), 0.8 * size, 0.2 * size],
    ]  # fmt: skip
    parts = [0, 1]
    for side in (-1, 1):
        ear = center + np.array([side * 0.98 * radius, 0.25 * size])
        bars.append(
            [
                *(ear - np.array([0, 0.08 * size])),
                0.13 * size,
                0,
                *(ear + np.array([0, 0.1 * size])),
                0.08 * size,
                0,
            ]
        )
        parts.append(0)
    strands = int(rng.integers(5, 12))
    long = rng.uniform(0.3, 0.6) if rng.random() < 0.5 else rng.uniform(0.9, 2.0)
    for x in np.linspace(-0.62, 0.62, strands) + rng.normal(0, 0.03, strands):
        drop = np.sqrt(1 - x * x)
        top = center + np.array([0.7 * x * size, -0.75 * drop * size + 0.3 * size])
        low = center + np.array([0.9 * x * size, long * size * rng.uniform(0.85, 1.1)])
        thick = 1.5 * size / strands
        bars.append([*top, 1.1 * thick, 0.8 * drop * size, *low, thick, 0.6 * drop * size])
        parts.append(2 + int(rng.integers(2)))
    colors = np.stack([skin, random_color(rng, 0.8), hair, hair * rng.uniform(0.7, 1.3)])
    draw_relief(picture, np.array(bars), parts, colors, lamp_direction(rng))


def _lamp(rng, canvas, center, size):
    """A globe that glows."""
    color = random_color(rng, 0.4) + 0.5
    for share in (1.0, 0.9, 0.75):
        tone = _bytes(color * (1.3 - 0.4 * share)).tolist()
        _ellipse(canvas, center, np.full(2, share * size), tone)


def _leaf(rng, canvas, center, size):
    """A leaf with its veins."""
    angle, turn = np.linspace(0, 2 * np.pi, 24), rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    outline = np.stack([np.cos(angle), 0.6 * np.sin(angle) * (1 - 0.5 * np.cos(angle))], 1)
    color = np.array([0.3, 0.5, 0.15]) * rng.uniform(0.5, 1.5, 3)
    _polygon(canvas, center + size * outline @ rotation, _bytes(color).tolist())
    x = np.linspace(-0.7, 0.6, 6)
    root, tip = np.stack([x, 0 * x], 1), np.stack([x + 0.25, 0.35 - 0 * x], 1)
    veins = np.concatenate([np.stack([root, tip], 1), np.stack([root, tip * [1, -1]], 1)])
    lines = list(_fixed(center + size * np.concatenate([veins, STALK]) @ rotation))
    thick = max(1, int(0.04 * size))
    cv2.polylines(canvas, lines, False, _bytes(0.6 * color).tolist(), thick, cv2.LINE_AA, SHIFT)


STALK = np.array([[[-1.2, 0], [0.95, 0]]])


def _hand(rng, picture, center, size):
    skin = skin_color(rng)
    pose = pick(rng, {"open": 0.4, "fist": 0.25, "two": 0.15, "point": 0.2})
    draw_hand(picture, rng, center, rng.uniform(0, 2 * np.pi), size / 60, skin, np.ones(3), pose)


FLAT = {"plate": _plate, "clock": _clock, "lamp": _lamp, "leaf": _leaf}
ROUND = {"balls": _balls, "blank": _blank, "back": _back, "hand": _hand}
