"""Light on people: an environment of a few lamps and a sky, with precomputed soft shadows."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np


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

    kind = rng.choice(5, p=[0.3, 0.3, 0.12, 0.18, 0.1])
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


def radiance(light: Light, directions: np.ndarray) -> np.ndarray:
    """Light arriving from evenly spread directions, such that a sum over them gives irradiance.

    Parameters
    ----------
    directions : (D, 3) unit vectors in the frame of `light`.

    Returns
    -------
    (D, 3) float32; ``max(normal . direction, 0) @ radiance`` is the irradiance of a surface.
    """
    up = (directions[:, 1:2] + 1) / 2
    total = (light.sky * up + light.ground * (1 - up)) * (4 / len(directions))
    for toward, color, sharp in zip(light.directions, light.colors, light.sharpness, strict=True):
        lobe = np.exp(sharp * (directions @ toward - 1))
        total = total + color * (lobe / lobe.sum())[:, None]
    return total.astype(np.float32)


def irradiance(
    normals: np.ndarray, visible: np.ndarray | None, directions: np.ndarray, arriving: np.ndarray
) -> np.ndarray:
    """(N, 3) light on surfaces.

    Parameters
    ----------
    normals : (N, 3) unit.
    visible : (N, D) share of each direction that is open, None for all of it.
    directions : (D, 3) unit, in the frame of the normals.
    arriving : (D, 3) from `radiance`.
    """
    cosine = normals @ directions.T
    np.maximum(cosine, 0, out=cosine)
    if visible is not None:
        cosine *= visible
    return cosine @ arriving


@numba.njit(cache=True, error_model="numpy")
def vertex_normals(vertices, triangles):
    """(V, 3) float32 unit normals, each the area-weighted mean of its triangles' normals."""
    normals = np.zeros((len(vertices), 3), np.float32)
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        vx, vy, vz = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in range(3):
            i = triangles[t, corner]
            normals[i, 0] += nx
            normals[i, 1] += ny
            normals[i, 2] += nz
    for i in range(len(normals)):
        length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2)
        if length > 0:
            for k in range(3):
                normals[i, k] /= length
    return normals


def highlights(
    normals: np.ndarray, view: np.ndarray, light: Light, turned: np.ndarray, power: float
) -> np.ndarray:
    """(N, 3) mirror-like reflection of the lamps (Blinn-Phong), with a grazing-angle boost.

    Parameters
    ----------
    normals : (N, 3) unit.
    view : (3,) unit vector to the camera, in the frame of the normals.
    turned : (K, 3) directions of the lamps in that frame.
    power : exponent of the highlight.
    """
    total = np.zeros((len(normals), 3), np.float32)
    grazing = 1 + 3 * (1 - np.clip(normals @ view, 0, 1)) ** 4
    for toward, color, sharp in zip(turned, light.colors, light.sharpness, strict=True):
        half = toward + view
        half = half / max(np.linalg.norm(half), 1e-6)
        # A wide lamp makes a wide highlight of the same energy.
        wide = 1 / (1 / power + 1 / sharp)
        shine = np.clip(normals @ half, 0, 1) ** wide * (wide / power) * grazing
        shine *= np.clip(normals @ toward * 4, 0, 1)
        total += shine[:, None].astype(np.float32) * color.astype(np.float32)
    return total
