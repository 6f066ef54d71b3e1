"""Crop and colour jitter, applied to whole batches on the fly (paper section 3.2).

Photographs are rendered once on a canvas that is wider than any crop; each pass of the training
sees another square of it: scaled, shifted, turned, mirrored, and in other colours. Targets are
rendered in that square, never resampled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from p2f_lib.ground_truth import SampleBatch
from p2f_lib.morphable_model import MorphableModel


@dataclass(frozen=True)
class Jitter:
    """Ranges of the random crops and colours.

    Parameters
    ----------
    scale : (float, float)
        Side of the crop over the longer side of the box of the 68 landmarks.
    shift : float
        Largest shift of the crop's centre, as a share of that box side, per axis.
    rotation : float
        Largest in-plane rotation in degrees, on top of the heads' own roll (authors' code: 20).
    gamma, gain : float
        Exponent 1 +- `gamma`; per-channel gain 1 - U(0, `gain`) (authors' code: 0.2 and 0.2).
    mirror : bool
        Mirror half of the crops.
    cover : float
        Share of the crops of which a rectangle of one colour hides a part; the truth beneath stays.
    """

    scale: tuple[float, float] = (1.2, 1.65)
    shift: float = 0.1
    rotation: float = 10.0
    gamma: float = 0.3
    gain: float = 0.25
    mirror: bool = True
    cover: float = 0.0


COVERED_SIDE = (0.15, 0.5)  # of the crop: width and height of what a rectangle hides

CENTRED = Jitter((1.4, 1.4), 0.0, 0.0, 0.0, 0.0, mirror=False)
"""No jitter: the crop that the reconstruction uses."""


def sample_crops(
    landmarks: torch.Tensor,
    jitter: Jitter,
    generator: torch.Generator,
    part: tuple[int, int] = (0, 1),
) -> torch.Tensor:
    """Random crops about the landmarks' boxes.

    Parameters
    ----------
    landmarks : (B, L, 2) float
        Canvas pixels.
    part : (k, n)
        Which of the n parts of a larger batch this is; together they get the crops that the whole
        would get.

    Returns
    -------
    (B, 2, 3) float
        Maps from the crop's unit square [-1, 1]^2 to canvas pixels; one with a negative determinant
        mirrors.
    """

    def uniform(low: float, high: float) -> torch.Tensor:
        draw = _rand(len(landmarks), part, generator).to(landmarks)
        return low + (high - low) * draw

    low, high = landmarks.amin(1), landmarks.amax(1)
    box = (high - low).amax(1)
    center = (low + high) / 2
    shift = torch.stack([uniform(-jitter.shift, jitter.shift) for _ in range(2)], 1)
    center = center + shift * box[:, None]
    half = uniform(*jitter.scale) * box / 2
    angle = torch.deg2rad(uniform(-jitter.rotation, jitter.rotation))
    mirrored = (uniform(0, 1) < 0.5) if jitter.mirror else torch.zeros_like(half, dtype=torch.bool)
    sign = torch.where(mirrored, -1.0, 1.0)
    cos, sin = torch.cos(angle) * half, torch.sin(angle) * half
    rows = [torch.stack([sign * cos, -sin, center[:, 0]], 1)]
    rows.append(torch.stack([sign * sin, cos, center[:, 1]], 1))
    return torch.stack(rows, 1)


def _rand(
    batch: int, part: tuple[int, int], generator: torch.Generator, *shape: int
) -> torch.Tensor:
    """(batch, *shape) uniform values, those of part k of n of a larger batch."""
    k, n = part
    return torch.rand(n * batch, *shape, generator=generator)[k * batch : (k + 1) * batch]


def crop_images(images: torch.Tensor, matrices: torch.Tensor, size: int) -> torch.Tensor:
    """Resample pictures to crops, bilinearly.

    Parameters
    ----------
    images : (B, 3, C, C) uint8
    matrices : (B, 2, 3) float
        From `sample_crops`.

    Returns
    -------
    (B, 3, size, size) float32, 0..255, black outside the picture

    Notes
    -----
    Where a crop has many more pixels in the picture than `size` (the canvases of synthetic samples
    are made for about as many), each pixel is the mean of a small grid of samples, so that nothing
    aliases.
    """
    canvas = images.shape[-1]
    # Canvas pixel p has the normalised coordinate (2 p + 1) / C - 1 (align_corners=False).
    theta = matrices.float() * 2 / canvas
    theta[:, :, 2] += 1 / canvas - 1
    pixels = 2 * float(matrices[:, :, 0].norm(dim=1).max()) / size  # of the picture, per crop pixel
    finer = max(round(pixels), 1)
    shape = [len(images), 1, finer * size, finer * size]
    grid = functional.affine_grid(theta, shape, align_corners=False)
    crops = functional.grid_sample(images.float(), grid, "bilinear", "zeros", False)
    return functional.avg_pool2d(crops, finer) if finer > 1 else crops


def jitter_colors(
    images: torch.Tensor,
    jitter: Jitter,
    generator: torch.Generator,
    part: tuple[int, int] = (0, 1),
) -> torch.Tensor:
    """Random gamma and colour balance of ``(B, 3, S, S)`` images in 0..255.

    Both act on the 0..1 scale; on the 0..255 scale of the authors' code a gamma saturates.
    """
    batch = len(images)
    gamma = 1 + jitter.gamma * (2 * _rand(batch, part, generator, 1, 1, 1) - 1)
    gain = 1 - jitter.gain * _rand(batch, part, generator, 3, 1, 1)
    gain = gain / gain.amax(1, keepdim=True)
    unit = (images / 255 * gain.to(images)).clamp(0, 1)
    return 255 * unit ** gamma.to(images)


def cover(
    images: torch.Tensor,
    jitter: Jitter,
    generator: torch.Generator,
    part: tuple[int, int] = (0, 1),
) -> torch.Tensor:
    """``(B, 3, S, S)`` images in 0..255, some behind a random rectangle of a random colour."""
    draws = _rand(len(images), part, generator, 8).to(images)
    low, high = COVERED_SIDE
    half = (low + (high - low) * draws[:, 1:3, None]) / 2
    pixels = (torch.arange(images.shape[-1]).to(images) + 0.5) / images.shape[-1]
    inside = (pixels - draws[:, 3:5, None]).abs() < half  # (B, 2, S): columns, rows
    hidden = inside[:, 0, None, :] & inside[:, 1, :, None]
    hidden &= (draws[:, 0] < jitter.cover)[:, None, None]
    return torch.where(hidden[:, None], 255 * draws[:, 5:, None, None], images)


def jitter_batch(
    model: MorphableModel,
    samples: SampleBatch,
    jitter: Jitter,
    size: int,
    generator: torch.Generator,
    part: tuple[int, int] = (0, 1),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random crops of samples in random colours, with the targets rendered in these very crops.

    Parameters
    ----------
    model : MorphableModel
        To which the samples' coefficients belong.
    samples : SampleBatch
        B square pictures.
    generator : torch.Generator
        Decides everything.
    part : (k, n)
        As of `sample_crops`.

    Returns
    -------
    images : (B, 3, size, size) float32, 0..255
    planes : (B, 6, size, size) float32, mm
    valid : (B, size, size) bool
    """
    matrices = sample_crops(torch.from_numpy(samples.landmarks), jitter, generator, part)
    images = torch.from_numpy(samples.images).permute(0, 3, 1, 2)
    images = crop_images(images, matrices, size)
    if jitter.cover:
        images = cover(images, jitter, generator, part)
    images = jitter_colors(images, jitter, generator, part)
    planes, valid = samples.crops(model, matrices.numpy(), size)
    return images, torch.from_numpy(planes).permute(0, 3, 1, 2), torch.from_numpy(valid)
