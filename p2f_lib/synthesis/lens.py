"""From light to a photograph: exposure, colours, blur, sensor noise, compression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numba
import numpy as np


@dataclass(frozen=True, eq=False)
class Lens:
    """One camera and how its pictures were treated. Lengths in shares of the picture's width.

    Attributes
    ----------
    exposure : brightness that the face is exposed to (linear, 1 is white).
    balance : (3,) gains of the colour channels.
    gamma, contrast, saturation, lift : of the development; 1, 1, 1, 0 change nothing.
    monochrome : black and white.
    vignette : darkening of the corners.
    defocus : sigma of the blur.
    motion : (length, angle) of motion blur.
    shrink : the picture was once this much smaller.
    noise : (standard deviation, share of luminance noise, grain in pixels).
    jpeg : quality, 100 for none.
    sharpen : amount of unsharp masking.
    """

    exposure: float
    balance: np.ndarray
    gamma: float
    contrast: float
    saturation: float
    lift: float
    monochrome: bool
    vignette: float
    defocus: float
    motion: tuple[float, float]
    shrink: float
    noise: tuple[float, float, float]
    jpeg: int
    sharpen: float


PLAIN_LENS = Lens(
    exposure=0.3,
    balance=np.ones(3),
    gamma=1.0,
    contrast=1.0,
    saturation=1.0,
    lift=0.0,
    monochrome=False,
    vignette=0.0,
    defocus=0.0,
    motion=(0.0, 0.0),
    shrink=1.0,
    noise=(0.0, 0.5, 0.0),
    jpeg=100,
    sharpen=0.0,
)
"""A camera without any character: sharp, clean, neutral."""


def sample_lens(rng: np.random.Generator) -> Lens:
    """Cameras from good to bad."""
    warmth = rng.normal(0, 0.10)
    return Lens(
        exposure=float(np.exp(rng.normal(np.log(0.30), 0.32))),
        balance=np.exp(np.array([warmth, rng.normal(0, 0.04), -warmth])),
        gamma=float(np.exp(rng.normal(0, 0.15))),
        contrast=float(np.exp(rng.normal(0.05, 0.2))),
        saturation=float(np.clip(rng.normal(1.0, 0.25), 0.1, 1.8)),
        lift=float(rng.uniform(0, 0.12) if rng.random() < 0.3 else 0.0),
        monochrome=bool(rng.random() < 0.06),
        vignette=float(rng.uniform(0, 0.6) if rng.random() < 0.3 else 0.0),
        defocus=float(0.012 * rng.beta(1, 3) if rng.random() < 0.6 else 0.0),
        motion=(
            float(rng.uniform(0.01, 0.05) if rng.random() < 0.08 else 0.0),
            float(rng.uniform(0, np.pi)),
        ),
        shrink=float(rng.uniform(1.2, 3.5) if rng.random() < 0.25 else 1.0),
        noise=(float(rng.gamma(1.2, 0.012)), float(rng.uniform(0.3, 1)), float(rng.choice([0, 1]))),
        jpeg=int(rng.uniform(25, 96)) if rng.random() < 0.7 else 100,
        sharpen=float(rng.uniform(0.2, 1.2) if rng.random() < 0.3 else 0.0),
    )


def develop(
    linear: np.ndarray, face: np.ndarray, lens: Lens, rng: np.random.Generator
) -> np.ndarray:
    """A photograph of a linear picture.

    Parameters
    ----------
    linear : (H, W, 3) float32, linear light.
    face : (H, W) bool, what the camera exposes for.
    rng : the noise of this frame.

    Returns
    -------
    (H, W, 3) uint8.
    """
    height, width = linear.shape[:2]
    level = sum(cv2.mean(linear, face.view(np.uint8) if face.any() else None)[:3]) / 3
    # Exposure meters try, but dark skin stays darker.
    gain = (lens.exposure / max(level, 1e-3)) ** 0.75 * (lens.exposure / 0.3) ** 0.25
    picture: np.ndarray = np.empty((height, width, 3), np.float32)
    _tone(
        np.ascontiguousarray(linear, np.float32),
        (gain * lens.balance).astype(np.float32),
        np.float32(lens.vignette),
        _curve(lens.gamma),
        np.float32(lens.contrast),
        np.float32(0.0 if lens.monochrome else lens.saturation),
        np.float32(lens.lift),
        picture,
    )
    if lens.defocus * width > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), lens.defocus * width)
    if lens.motion[0] * width > 1:
        picture = cv2.filter2D(picture, -1, _motion_kernel(lens.motion[0] * width, lens.motion[1]))
    if lens.shrink > 1:
        size = (max(8, round(width / lens.shrink)), max(8, round(height / lens.shrink)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    if lens.sharpen > 0:
        blurred = cv2.GaussianBlur(picture, (0, 0), 1.0)
        picture = cv2.addWeighted(picture, 1 + lens.sharpen, blurred, -lens.sharpen, 0)
    sigma, luminance, grain = lens.noise
    pool = _noise_pool(bool(grain))
    places = rng.integers(0, POOL_SIDE, (4, 2))
    noisy: np.ndarray = np.empty((height, width, 3), np.uint8)
    _expose(picture, pool, places, np.float32(sigma), np.float32(luminance), noisy)
    if lens.jpeg < 100:
        turned = cv2.cvtColor(noisy, cv2.COLOR_RGB2BGR)
        coded = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, lens.jpeg])[1]
        again = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        noisy = cv2.cvtColor(again, cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]  # never None here
    return noisy


CURVE_STEPS, CURVE_END = 1024, 4.0  # beyond this light everything is white
POOL_SIDE = 512  # a power of two, so that wrapping is one `and`


def _curve(gamma: float) -> np.ndarray:
    """(1026,) display value of linear light x at index ``sqrt(x / 4) * 1024``.

    A film-like shoulder (highlights roll off instead of clipping at once), then the power law.
    """
    return (_shoulder() ** (gamma / 2.2)).astype(np.float32)


@lru_cache(maxsize=1)
def _shoulder() -> np.ndarray:
    light = CURVE_END * (np.arange(CURVE_STEPS + 2) / CURVE_STEPS) ** 2
    return np.where(light > 0.7, 0.7 + 0.3 * np.tanh((light - 0.7) / 0.3), light)


@lru_cache(maxsize=2)
def _noise_pool(grain: bool) -> np.ndarray:
    """(512, 512) normal values, drawn once; pictures look at it through shifted windows."""
    pool = np.random.default_rng(20171023).standard_normal((POOL_SIDE, POOL_SIDE), np.float32)
    if grain:  # coarse grain of small sensors and of denoising
        return 2 * cv2.GaussianBlur(pool, (0, 0), 0.8, borderType=cv2.BORDER_REFLECT)
    return pool


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _tone(linear, gain, vignette, curve, contrast, saturation, lift, out):
    """Exposure, tone curve, contrast and saturation of every pixel, clipped to 0..1."""
    height, width = linear.shape[:2]
    stretch = np.float32(CURVE_STEPS / np.sqrt(CURVE_END))
    developed = np.empty(3 * width, np.float32)
    for row in range(height):
        dy = row / height - 0.5
        for column in range(width):
            dx = column / width - 0.5
            fall = np.float32(1 - vignette * 2 * (dx * dx + dy * dy))
            for c in range(3):
                developed[3 * column + c] = linear[row, column, c] * gain[c] * fall
        for n in range(3 * width):  # a loop of its own: the compiler makes vectors of it
            light = max(developed[n], np.float32(0))
            place = min(np.sqrt(light) * stretch, np.float32(CURVE_STEPS))
            index = np.int32(place)
            share = np.float64(place - np.float32(index))
            value = curve[index] + share * (curve[index + 1] - curve[index])
            developed[n] = (value - np.float32(0.5)) * contrast + np.float32(0.5)
        for column in range(width):
            red = developed[3 * column]
            green = developed[3 * column + 1]
            blue = developed[3 * column + 2]
            grey = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
            for c in range(3):
                value = grey + saturation * (developed[3 * column + c] - grey)
                value = lift + (1 - lift) * value
                out[row, column, c] = min(max(value, np.float32(0)), np.float32(1))


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _expose(picture, pool, places, sigma, luminance, out):
    """Add sensor noise, part of it the same in all channels, and round to 8 bits."""
    height, width = picture.shape[:2]
    mask = len(pool) - 1
    own = 1 - luminance
    for row in range(height):
        for column in range(width):
            shared = luminance * pool[(row + places[3, 0]) & mask, (column + places[3, 1]) & mask]
            for c in range(3):
                single = pool[(row + places[c, 0]) & mask, (column + places[c, 1]) & mask]
                value = picture[row, column, c] + sigma * (shared + own * single)
                value = min(max(value, np.float32(0)), np.float32(1))
                out[row, column, c] = np.uint8(value * 255 + np.float32(0.5))


def _motion_kernel(length, angle):
    size = int(np.ceil(length)) | 1
    kernel = np.zeros((size, size), np.float32)
    half = (size - 1) / 2
    dx, dy = np.cos(angle) * half, np.sin(angle) * half
    ends = [(round(half - dx), round(half - dy)), (round(half + dx), round(half + dy))]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA)
    return kernel / kernel.sum()
