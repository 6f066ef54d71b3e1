"""Hair, hats and scarves: sheets that lie on the skull and may fall beside the face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from p2f_lib.synthesis.anatomy import (
    SCALP_ANGLES,
    SCALP_AROUND,
    SCALP_POLAR,
    Anatomy,
    HeadFrame,
    _grid_triangles,
    scalp_directions,
)
from p2f_lib.synthesis.noise import noise_at

FALLING_ROWS = 16
ROWS = len(SCALP_POLAR) + FALLING_ROWS
EDGE_ANGLES = np.radians([0, 25, 48, 66, 84, 108, 140, 180])  # from the front, either side


@dataclass(frozen=True, eq=False)
class Sheet:
    """A mass of hair or cloth around the head. Lengths in face widths unless said otherwise.

    Attributes
    ----------
    edge : (2, 8) height above the eyes at which the sheet ends, by angle from the front
        (`EDGE_ANGLES`), picture left then right.
    window : (half angle in radians, centre height, half height) of an oval that stays open, for
        hoods and scarves; None for hair and hats.
    thickness : (crown, front, sides, back) above the skull.
    length : of the falling part.
    flare : widening of the falling part.
    bumps : (size, amplitude) of the surface.
    color, second : (3,) linear reflectance; strands run from one to the other.
    strands : across the head.
    contrast : of the strands, 0 to 1.
    sweep : how far strands run sideways on their way down, turns.
    softness, raggedness : of the edge.
    gloss : strength of the highlight.
    brim : length of a brim at the edge (front, sides and back), 0 for none.
    seed : of everything irregular.
    """

    edge: np.ndarray
    window: tuple[float, float, float] | None
    thickness: tuple[float, float, float, float]
    length: float
    flare: float
    bumps: tuple[float, float]
    color: np.ndarray
    second: np.ndarray
    strands: float
    contrast: float
    sweep: float
    softness: float
    raggedness: float
    gloss: float
    brim: tuple[float, float]
    seed: int


@dataclass(frozen=True, eq=False)
class SheetMesh:
    """A sheet around one head.

    Attributes
    ----------
    vertices : (N, 3) mm, model space.
    triangles : (F, 3), those that can be seen at all.
    margin : (N,) mm inside the edge (negative outside).
    strand : (N, 2) coordinates across and along the strands.
    along : (N, 3) unit directions of the strands.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    margin: np.ndarray
    strand: np.ndarray
    along: np.ndarray


def edge_height(edge: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Height of a sheet's edge, in face widths above the eyes, at angles in radians (0: front)."""
    fine = np.linspace(0, np.pi, 64)
    left, right = (np.interp(fine, EDGE_ANGLES, row) for row in edge)
    table = np.concatenate([left[:0:-1], right])
    table = np.convolve(np.pad(table, 3, mode="wrap"), np.full(7, 1 / 7), mode="valid")
    angles = np.concatenate([-fine[:0:-1], fine])
    return np.interp(np.asarray(around), angles, table, period=2 * np.pi)


def sheet_margin(sheet: Sheet, around: np.ndarray, height: np.ndarray, width: float) -> np.ndarray:
    """Signed distance (about mm) inside the sheet of points at an angle and height (widths)."""
    if sheet.window is not None:
        half, center, tall = sheet.window
        around = (around + np.pi) % (2 * np.pi) - np.pi
        return (np.hypot(around / half, (height - center) / tall) - 1) * tall * width
    return (height - edge_height(sheet.edge, around)) * width


def build_sheet(
    sheet: Sheet, person: Anatomy, body: np.ndarray, frame: HeadFrame, down: np.ndarray
) -> SheetMesh:
    """Lay a sheet around a head.

    Parameters
    ----------
    body : (n_total, 3) from `Anatomy.person`.
    down : (3,) the direction in which hair falls, model space.
    """
    width = frame.width
    directions = scalp_directions()
    radius = np.linalg.norm(body[person.skull_index] - frame.center, axis=2).astype(np.float32)
    padded = np.concatenate([radius[:, -3:], radius, radius[:, :3]], axis=1)
    radius = cv2.GaussianBlur(padded, (5, 5), 1.0)[:, 3:-3]

    around = SCALP_ANGLES
    ahead = np.cos(around)
    crown, front, side, back = sheet.thickness
    ring = side + np.where(ahead > 0, front - side, back - side) * ahead**2
    fade = np.sin(SCALP_POLAR)[:, None] ** 2
    thick = crown * (1 - fade) + ring * fade
    size, amplitude = sheet.bumps
    offset = np.random.default_rng(sheet.seed).uniform(0, 32, 3)
    bump = noise_at(directions.reshape(-1, 3), size, offset, 2).reshape(thick.shape)
    cap = frame.center + directions * (radius + width * (thick + amplitude * bump))[..., None]

    # Below the ears the sheet falls; it widens, or hugs the nape where it is short.
    fall = np.linspace(0, 1, FALLING_ROWS + 1)[1:, None, None] * sheet.length
    outward = (cap[-1] - frame.center) * [1, 0, 1]
    nape = -0.9 * np.clip(-ahead, 0, 1) * np.exp(-sheet.length)
    spread = (sheet.flare + nape)[:, None] * np.minimum(fall, 0.5)
    wave = noise_at(
        np.stack(
            np.broadcast_arrays(np.sin(around) * 2, fall[..., 0] * 3, np.cos(around) * 2),
            -1,
        ).reshape(-1, 3),
        max(size, 0.5),
        offset + 7,
    ).reshape(FALLING_ROWS, SCALP_AROUND, 1)
    low = cap[-1] + outward * (spread + amplitude * wave) + fall * width * down

    grid = np.concatenate([cap, low])
    height = (grid[..., 1] - frame.eyes[1]) / width
    # On the falling part height is how far it fell, whichever way down is.
    height[len(SCALP_POLAR) :] = height[len(SCALP_POLAR) - 1] - fall[..., 0]
    grid_around = np.broadcast_to(around, height.shape)
    margin = sheet_margin(sheet, grid_around, height, width)
    wisps = noise_at(directions.reshape(-1, 3), 0.35, offset + 3, 2).reshape(thick.shape)
    margin[: len(wisps)] += 0.12 * sheet.raggedness * width * wisps
    margin[len(wisps) :] += 0.12 * sheet.raggedness * width * wisps[-1]
    if sheet.brim[0] > 0:
        grid, margin = _with_brim(sheet, frame, grid, margin, around)

    along = np.gradient(grid, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=2, keepdims=True), 1e-6)
    path = np.cumsum(np.linalg.norm(np.diff(grid, axis=0, prepend=grid[:1]), axis=2), axis=0)
    # Counted from the front: the seam of the coordinate is at the back.
    across = around / (2 * np.pi) * sheet.strands + sheet.sweep * path / width
    strand = np.stack([across, path / width], -1).reshape(-1, 2)

    triangles = _grid_triangles(len(grid), SCALP_AROUND, 0, True, wrap=True)
    flat = margin.reshape(-1)
    reach = 0.06 * width * (sheet.raggedness + sheet.softness)
    triangles = triangles[(flat[triangles] > -reach).any(axis=1)]
    return SheetMesh(
        grid.reshape(-1, 3).astype(np.float32),
        triangles.astype(np.int32),
        flat.astype(np.float32),
        strand.astype(np.float32),
        along.reshape(-1, 3).astype(np.float32),
    )


def _with_brim(sheet, frame, grid, margin, around):
    """Rows below the hat's edge are bent outwards into a brim."""
    rim = np.argmax(margin < 0, axis=0)  # first row outside, per column
    rim = np.clip(rim, 2, len(grid) - 4)
    column = np.arange(SCALP_AROUND)
    edge = grid[rim - 1, column]
    outward = (edge - frame.center) * [1, 0, 1]
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    ahead = np.clip(np.cos(around), 0, 1)[:, None]
    long = (sheet.brim[1] + (sheet.brim[0] - sheet.brim[1]) * ahead**1.5) * frame.width
    grid, margin = grid.copy(), margin.copy()
    for step, share in enumerate((0.5, 1.0)):
        droop = np.array([0.0, -0.28, 0.0]) * share
        grid[rim + step, column] = edge + long * share * (outward + droop)
        margin[rim + step, column] = np.where(long[:, 0] > 0.02 * frame.width, 5.0, -50.0)
    margin[rim + 2, column] = -200.0
    return grid, margin
