"""Light on people: an environment of a few lamps and a sky, with precomputed soft shadows."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

KINDS = np.cumsum([0.3, 0.3, 0.12, 0.18, 0.1])  # of light, see `sample_light`


@dataclass(frozen=True, eq=False)
class Light:
    """What shines, in a frame that stands still before the camera (x right, y up, z to the camera).

    Attributes
    ----------
    sky, ground : (3,) linear radiance from above and from below.
    directions : (K, 3) unit vectors towards the lamps.
    colors : (K, 3) linear irradiance of a surface that faces the lamp.
    sharpness : (K,) concentration of the lamp; 4 is a window, 60 the sun.
    """

    sky: np.ndarray
    ground: np.ndarray
    directions: np.ndarray
    colors: np.ndarray
    sharpness: np.ndarray


def sample_light(rng: np.random.Generator) -> Light:
    """Daylight, rooms, studios, flash, hard light from one side."""

    def tint(spread: float) -> np.ndarray:
        warmth = rng.normal(0, spread)
        return np.exp(np.array([warmth, rng.normal(0, spread / 4), -warmth]))

    kind = KINDS.searchsorted(rng.random(), "right")
    key = rng.uniform(0.5, 1.1)
    if kind == 0:  # soft: overcast or large windows
        ambient, strengths, sharp = rng.uniform(0.35, 0.8), [key * 0.6, key * 0.3], (2, 10)
    elif kind == 1:  # key and fill
        ambient, strengths, sharp = (
            rng.uniform(0.12, 0.4),
            [key, key * rng.uniform(0, 0.5)],
            (4, 40),
        )
    elif kind == 2:  # flash beside the camera
        ambient, strengths, sharp = rng.uniform(0.1, 0.4), [key], (20, 60)
    elif kind == 3:  # sun or one hard lamp
        ambient, strengths, sharp = rng.uniform(0.06, 0.25), [key * 1.2], (30, 80)
    else:  # several coloured lamps
        ambient, strengths, sharp = rng.uniform(0.08, 0.3), [key * 0.7] * 3, (4, 40)
    directions, colors, sharpness = [], [], []
    for strength in strengths:
        side = rng.normal(0, 12 if kind == 2 else 55)
        height = rng.normal(5, 8) if kind == 2 else np.clip(rng.normal(32, 25), -35, 85)
        azimuth, elevation = np.radians(side), np.radians(height)
        directions.append(
            [
                np.sin(azimuth) * np.cos(elevation),
                np.sin(elevation),
                np.cos(azimuth) * np.cos(elevation),
            ]
        )
        colors.append(strength * tint(0.35 if kind == 4 else 0.1))
        sharpness.append(np.exp(rng.uniform(*np.log(sharp))))
    base = tint(0.08)
    return Light(
        sky=ambient * base * tint(0.05) * rng.uniform(0.9, 1.5),
        ground=ambient * base * tint(0.08) * rng.uniform(0.15, 0.8),
        directions=np.array(directions),
        colors=np.array(colors),
        sharpness=np.array(sharpness),
    )


def radiance(light: Light, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Light arriving from evenly spread directions, such that a sum over them gives irradiance.

    Parameters
    ----------
    directions : (D, 3) unit vectors in the frame of `light`.

    Returns
    -------
    rest, key : (D, 3) float32 each: the first lamp apart, because things may stand in its way.
        ``max(normal . direction, 0) @ (rest + key)`` is the irradiance of a surface.
    """
    up = (directions[:, 1:2] + 1) / 2
    rest = (light.sky * up + light.ground * (1 - up)) * (4 / len(directions))
    lobes = np.exp(light.sharpness * (directions @ light.directions.T - 1))
    lobes /= np.maximum(lobes.sum(axis=0), 1e-12)
    rest = rest + lobes[:, 1:] @ light.colors[1:]
    key = lobes[:, :1] * light.colors[:1]
    return rest.astype(np.float32), key.astype(np.float32)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def irradiance(
    normals: np.ndarray,
    visible: np.ndarray,
    rows: np.ndarray,
    directions: np.ndarray,
    arriving: np.ndarray,
) -> np.ndarray:
    """Light on surfaces.

    Parameters
    ----------
    normals : (N, 3) float32, unit.
    visible : (M, D) float32, share of each direction that is open; (0, D) for all of it.
    rows : (N,) rows of `visible` that belong to the normals; not read where that has none.
    directions : (3, D) float32, unit, in the frame of the normals.
    arriving : (C, D) float32 from `radiance`, one row a channel.

    Returns
    -------
    (N, C) float32.
    """
    channels, n_directions = arriving.shape
    light = np.empty((len(normals), channels), np.float32)
    falling = np.empty(n_directions, np.float32)
    for n in range(len(normals)):
        nx, ny, nz = normals[n, 0], normals[n, 1], normals[n, 2]
        for d in range(n_directions):
            cosine = nx * directions[0, d] + ny * directions[1, d] + nz * directions[2, d]
            falling[d] = max(cosine, np.float32(0))
        if len(visible):
            row = visible[rows[n]]
            for d in range(n_directions):
                falling[d] *= row[d]
        for c in range(channels):
            total = np.float32(0)
            for d in range(n_directions):
                total += falling[d] * arriving[c, d]
            light[n, c] = total
    return light


def highlights(
    normals: np.ndarray, view: np.ndarray, light: Light, turned: np.ndarray, power: float
) -> np.ndarray:
    """(N, 3) mirror-like reflection of the lamps (Blinn-Phong), with a grazing-angle boost.

    Parameters
    ----------
    normals : (N, 3) float32, unit.
    view : (3,) unit vector to the camera, in the frame of the normals.
    turned : (K, 3) directions of the lamps in that frame.
    power : exponent of the highlight.
    """
    half = turned + view
    half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
    # A wide lamp makes a wide highlight of the same energy.
    wide = 1 / (1 / power + 1 / light.sharpness)
    return _highlights(
        normals,
        np.asarray(view, np.float32),
        np.asarray(turned, np.float32),
        half.astype(np.float32),
        wide.astype(np.float32),
        (light.colors * (wide / power)[:, None]).astype(np.float32),
    )


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _highlights(normals, view, lamps, half, wide, colors):
    shine = np.zeros((len(normals), 3), np.float32)
    for n in range(len(normals)):
        x, y, z = normals[n, 0], normals[n, 1], normals[n, 2]
        facing = min(max(x * view[0] + y * view[1] + z * view[2], np.float32(0)), np.float32(1))
        away = 1 - facing
        grazing = 1 + 3 * (away * away) * (away * away)
        for k in range(len(lamps)):
            lit = min(4 * (x * lamps[k, 0] + y * lamps[k, 1] + z * lamps[k, 2]), np.float32(1))
            mirror = x * half[k, 0] + y * half[k, 1] + z * half[k, 2]
            if lit > 0 and mirror > 0:
                gain = grazing * lit * mirror ** wide[k]
                for c in range(3):
                    shine[n, c] += gain * colors[k, c]
    return shine
