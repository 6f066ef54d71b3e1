"""Crop and colour jitter, applied to whole batches on the fly (paper section 3.2).

Samples are rendered once on a canvas that is wider than any crop; each pass of the training sees
another square of it: scaled, shifted, turned, mirrored, and in other colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


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
    """

    scale: tuple[float, float] = (1.2, 1.65)
    shift: float = 0.1
    rotation: float = 10.0
    gamma: float = 0.3
    gain: float = 0.25
    mirror: bool = True


CENTRED = Jitter((1.4, 1.4), 0.0, 0.0, 0.0, 0.0, mirror=False)
"""No jitter: the crop that the reconstruction uses."""


def sample_crops(
    landmarks: torch.Tensor, jitter: Jitter, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random crops about the landmarks' boxes.

    Parameters
    ----------
    landmarks : (B, L, 2) float
        Canvas pixels.

    Returns
    -------
    matrices : (B, 2, 3) float
        Maps from the crop's unit square [-1, 1]^2 to canvas pixels.
    mirrored : (B,) bool
    """
    batch = len(landmarks)

    def uniform(low: float, high: float) -> torch.Tensor:
        draw = torch.rand(batch, generator=generator).to(landmarks)
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
    return torch.stack(rows, 1), mirrored


def crop_batch(
    images: torch.Tensor,
    planes: torch.Tensor,
    valid: torch.Tensor,
    matrices: torch.Tensor,
    mirrored: torch.Tensor,
    size: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Resample canvases to crops.

    Parameters
    ----------
    images : (B, 3, C, C) uint8
    planes : (B, 6, C, C) float16 or float32
        PNCC and offsets in mm, 0 where not valid.
    valid : (B, C, C) bool
    matrices, mirrored
        From `sample_crops`.

    Returns
    -------
    images : (B, 3, size, size) float32, 0..255, black outside the canvas
    planes : (B, 6, size, size) float32, mm
    valid : (B, size, size) bool

    Notes
    -----
    Planes are interpolated between valid pixels only (normalised convolution): mixing a surface
    point with the background's 0 would invent points inside the head. A mirrored crop shows the
    mirrored face, whose x coordinates change sign: the mean face is symmetric.
    """
    canvas = images.shape[-1]
    # Canvas pixel p has the normalised coordinate (2 p + 1) / C - 1 (align_corners=False).
    theta = matrices.float() * 2 / canvas
    theta[:, :, 2] += 1 / canvas - 1
    grid = functional.affine_grid(theta, [len(images), 1, size, size], align_corners=False)
    picture = functional.grid_sample(images.float(), grid, "bilinear", "zeros", False)
    stacked = torch.cat([planes.float(), valid[:, None].float()], 1)
    sampled = functional.grid_sample(stacked, grid, "bilinear", "zeros", False)
    weight = sampled[:, 6:]
    inside = weight > 0.5
    result = torch.where(inside, sampled[:, :6] / weight.clamp_min(0.5), 0.0)
    sign = torch.where(mirrored, -1.0, 1.0)[:, None, None].to(result)
    result[:, 0] *= sign
    result[:, 3] *= sign
    return picture, result, inside[:, 0]


def jitter_colors(images: torch.Tensor, jitter: Jitter, generator: torch.Generator) -> torch.Tensor:
    """Random gamma and colour balance of ``(B, 3, S, S)`` images in 0..255.

    Both act on the 0..1 scale; on the 0..255 scale of the authors' code a gamma saturates.
    """
    batch = len(images)
    gamma = 1 + jitter.gamma * (2 * torch.rand(batch, 1, 1, 1, generator=generator) - 1)
    gain = 1 - jitter.gain * torch.rand(batch, 3, 1, 1, generator=generator)
    gain = gain / gain.amax(1, keepdim=True)
    unit = (images / 255 * gain.to(images)).clamp(0, 1)
    return 255 * unit ** gamma.to(images)


def jitter_batch(
    images: torch.Tensor,
    planes: torch.Tensor,
    valid: torch.Tensor,
    landmarks: torch.Tensor,
    jitter: Jitter,
    size: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Crop and colour jitter of one batch; see `crop_batch` for the shapes."""
    matrices, mirrored = sample_crops(landmarks, jitter, generator)
    picture, planes, valid = crop_batch(images, planes, valid, matrices, mirrored, size)
    return jitter_colors(picture, jitter, generator), planes, valid
