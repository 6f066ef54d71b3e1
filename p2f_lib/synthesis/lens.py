"""From light to a photograph: exposure, colours, blur, sensor noise, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
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


def develop(linear: np.ndarray, face: np.ndarray, lens: Lens, rng: np.random.Generator):
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
    level = float(linear[face].mean()) if face.any() else float(linear.mean())
    # Exposure meters try, but dark skin stays darker.
    gain = (lens.exposure / max(level, 1e-3)) ** 0.75 * (lens.exposure / 0.3) ** 0.25
    picture = linear * (gain * lens.balance).astype(np.float32)
    if lens.vignette > 0:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        distance = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2
        picture *= (1 - lens.vignette * distance)[..., None]
    # Film-like shoulder: highlights roll off instead of clipping at once.
    np.maximum(picture, 0, out=picture)
    picture = np.where(picture > 0.7, 0.7 + 0.3 * np.tanh((picture - 0.7) / 0.3), picture)
    picture = np.power(picture, np.float32(lens.gamma / 2.2))
    picture = (picture - 0.5) * lens.contrast + 0.5
    grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = 0.0 if lens.monochrome else lens.saturation
    picture = grey[..., None] + saturation * (picture - grey[..., None])
    picture = lens.lift + (1 - lens.lift) * picture
    picture = np.clip(picture, 0, 1).astype(np.float32)

    if lens.defocus * width > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), lens.defocus * width)
    if lens.motion[0] * width > 1:
        picture = cv2.filter2D(picture, -1, _motion_kernel(lens.motion[0] * width, lens.motion[1]))
    if lens.shrink > 1:
        small = (max(8, round(width / lens.shrink)), max(8, round(height / lens.shrink)))
        small = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    if lens.sharpen > 0:
        blurred = cv2.GaussianBlur(picture, (0, 0), 1.0)
        picture = picture + lens.sharpen * (picture - blurred)
    picture += _sensor_noise(lens, rng, height, width)
    picture = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    if lens.jpeg < 100:
        coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, lens.jpeg])[1]
        picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(picture)


def _motion_kernel(length, angle):
    size = int(np.ceil(length)) | 1
    kernel = np.zeros((size, size), np.float32)
    half = (size - 1) / 2
    dx, dy = np.cos(angle) * half, np.sin(angle) * half
    ends = [(round(half - dx), round(half - dy)), (round(half + dx), round(half + dy))]
    cv2.line(kernel, *ends, 1.0, 1, cv2.LINE_AA)
    return kernel / kernel.sum()


def _sensor_noise(lens, rng, height, width):
    sigma, luminance, grain = lens.noise
    color = rng.standard_normal((height, width, 3), dtype=np.float32)
    grey = rng.standard_normal((height, width, 1), dtype=np.float32)
    noise = luminance * grey + (1 - luminance) * color
    if grain:  # coarse grain of small sensors and of denoising
        noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * 2
    return sigma * noise
