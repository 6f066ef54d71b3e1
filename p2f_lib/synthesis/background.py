"""What stands behind the head: gradients, noise, shapes, lights, lettering, pieces of pictures."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import skimage.data

from p2f_lib.synthesis.noise import noise_image
from p2f_lib.synthesis.skin import skin_color

# Pictures inside the scikit-image wheel without a face of man or beast (no astronaut, cameraman,
# cat, horse or portrait coins).
PICTURES = (
    "brick",
    "cell",
    "clock",
    "coffee",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "page",
    "rocket",
    "stereo_motorcycle",
    "text",
)


@lru_cache(maxsize=1)
def pictures() -> tuple[np.ndarray, ...]:
    """The texture pictures, each (H, W, 3) uint8."""
    loaded = []
    for name in PICTURES:
        picture = getattr(skimage.data, name)()
        picture = picture[0] if isinstance(picture, tuple) else picture
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, axis=2)
        loaded.append(np.ascontiguousarray(picture[..., :3]))
    return tuple(loaded)


def random_color(rng: np.random.Generator, saturation: float = 0.6) -> np.ndarray:
    """(3,) display colour in [0, 1], often muted."""
    value = rng.beta(1.2, 1.2)
    chroma = rng.beta(1.0, 2.0) * saturation
    hue = rng.uniform(0, 2 * np.pi) + np.array([0.0, 2.09, 4.19])
    return np.clip(value * (1 + chroma * np.cos(hue)), 0.01, 1).astype(np.float32)


def _gradient(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    corners = np.stack([random_color(rng) for _ in range(4)]).reshape(2, 2, 3)
    base = corners[rng.integers(2), rng.integers(2)]
    corners = base + rng.uniform(0.05, 0.9) * (corners - base)
    return cv2.resize(corners.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR)


def _clouds(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    tint = noise_image(rng, h, w, rng.uniform(1.5, 5), 3)
    fine = noise_image(rng, h, w, rng.uniform(5, 40))
    two = np.stack([random_color(rng), random_color(rng)])
    mix = np.clip(0.5 * tint + 0.8 * fine - 0.15, 0, 1)
    return two[0] * mix + two[1] * (1 - mix)


def _texture(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    picture = pictures()[rng.integers(len(PICTURES))]
    height, width = picture.shape[:2]
    side = int(rng.uniform(0.25, 1.0) * min(height, width))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    piece = picture[top : top + side, left : left + side]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    if rng.random() < 0.3:
        piece = piece.swapaxes(0, 1)
    piece = cv2.resize(np.ascontiguousarray(piece), (w, h), interpolation=cv2.INTER_AREA) / 255.0
    if rng.random() < 0.5:
        piece = piece[..., rng.permutation(3)]
    tint = rng.uniform(0.5, 1.3, 3)
    return np.clip(piece * tint, 0, 1).astype(np.float32)


def _scatter(
    rng: np.random.Generator, picture: np.ndarray, count: int, largest: float
) -> np.ndarray:
    """Polygons, ellipses, bars and rectangles over a picture, in place."""
    h, w = picture.shape[:2]
    for _ in range(count):
        color = (random_color(rng, 0.9) if rng.random() < 0.8 else skin_color(rng)).tolist()
        x, y = rng.uniform(-0.1, 1.1, 2) * (w, h)
        size = largest * w * rng.beta(1, 2.5) + 2
        kind = rng.integers(5)
        if kind == 0:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            points = np.stack([x + size * np.cos(angles), y + size * np.sin(angles)], 1)
            cv2.fillPoly(picture, [points.astype(np.int32)], color, cv2.LINE_AA)
        elif kind == 1:
            axes = (int(size / 2) + 1, int(size * rng.uniform(0.2, 0.6)) + 1)
            cv2.ellipse(
                picture, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, color, -1, cv2.LINE_AA
            )
        elif kind == 2:
            tip = rng.uniform(-0.2, 1.2, 2) * (w, h)
            cv2.line(
                picture,
                (int(x), int(y)),
                (int(tip[0]), int(tip[1])),
                color,
                int(rng.integers(1, 2 + w // 16)),
                cv2.LINE_AA,
            )
        elif kind == 3:
            far = (int(x + size), int(y + size * rng.uniform(0.3, 2.5)))
            cv2.rectangle(picture, (int(x), int(y)), far, color, -1)
        else:  # a far person: head on shoulders
            r = size / 5
            cloth = random_color(rng, 0.8).tolist()
            body = (int(2.2 * r), int(3.5 * r))
            cv2.ellipse(picture, (int(x), int(y + 4.6 * r)), body, 0, 0, 360, cloth, -1)
            head = (int(r * 0.8), int(r * 1.1))
            hair = (random_color(rng, 0.2) * 0.4).tolist()
            up = (int(x), int(y - 0.35 * r))
            cv2.ellipse(picture, up, (int(r), int(1.15 * r)), 0, 0, 360, hair, -1, cv2.LINE_AA)
            skin = skin_color(rng).tolist()
            cv2.ellipse(picture, (int(x), int(y)), head, 0, 0, 360, skin, -1, cv2.LINE_AA)
    return picture


def _stripes(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    angle = rng.uniform(0, np.pi)
    period = w * rng.uniform(0.03, 0.4)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    along = (x * np.cos(angle) + y * np.sin(angle)) / period
    wave = np.sin(2 * np.pi * along)
    if rng.random() < 0.4:  # checks
        wave = wave * np.sin(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle)) / period)
    mix = np.clip(wave * rng.uniform(0.6, 8) + 0.5, 0, 1)[..., None]
    return random_color(rng) * mix + random_color(rng) * (1 - mix)


def _bokeh(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    h, w = picture.shape[:2]
    glow = np.zeros_like(picture)
    for _ in range(rng.integers(4, 25)):
        center = (int(rng.uniform(0, w)), int(rng.uniform(0, h)))
        radius = int(w * rng.uniform(0.01, 0.08)) + 1
        cv2.circle(glow, center, radius, (random_color(rng, 1.0) * 0.8).tolist(), -1, cv2.LINE_AA)
    return np.clip(picture + glow, 0, 1)


def _lettering(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Lines of strokes that look like writing from afar."""
    h, w = picture.shape[:2]
    for _ in range(rng.integers(1, 6)):
        size = w * rng.uniform(0.02, 0.14)
        x, y = rng.uniform(-0.2, 0.7) * w, rng.uniform(0, 1) * h
        color, thick = random_color(rng, 1.0).tolist(), max(1, round(size / 7))
        for _ in range(rng.integers(3, 10)):
            stroke = rng.integers(0, 3, (rng.integers(2, 6), 2)) / 2 * [0.6 * size, size] + [x, y]
            points = np.round(stroke * 8).astype(np.int32)
            cv2.polylines(picture, [points], False, color, thick, cv2.LINE_AA, 3)
            x += 0.85 * size
    return picture


def draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A background in display values: (H, W, 3) float32 in [0, 1]."""
    kind = rng.choice(5, p=[0.3, 0.2, 0.28, 0.12, 0.1])
    picture = (_gradient, _clouds, _texture, _stripes, _gradient)[kind](rng, height, width)
    picture = np.ascontiguousarray(picture, np.float32)
    if kind == 4 or rng.random() < 0.4:
        picture = _scatter(rng, picture, int(rng.integers(2, 25)), rng.uniform(0.2, 0.9))
    if rng.random() < 0.12:
        picture = _lettering(rng, picture)
    if rng.random() < 0.12:
        picture = _bokeh(rng, picture)
    if rng.random() < 0.65:  # out of focus behind the head
        sigma = width * 0.06 * rng.beta(1, 2.5) + 0.3
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    if rng.random() < 0.2:
        picture = picture * noise_image(rng, height, width, rng.uniform(1.5, 4)) ** 0.7
    level = np.exp(rng.normal(0, 0.25))
    return np.clip(picture * level, 0, 1)
