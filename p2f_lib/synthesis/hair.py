"""Hair, hats and scarves: sheets that lie on the skull and may fall beside the face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from p2f_lib.synthesis.anatomy import (
    SCALP_ANGLES,
    SCALP_AROUND,
    SCALP_POLAR,
    Anatomy,
    HeadFrame,
    scalp_directions,
)
from p2f_lib.synthesis.noise import LATTICE, value_noise

FALLING_ROWS = 16
EDGE_ANGLES = np.radians([0, 25, 48, 66, 84, 108, 140, 180])  # from the front, either side
EDGE_STEPS = 128  # of the table that edges are looked up in
DIRECTIONS = scalp_directions().astype(np.float32)
# The scalp unrolled: x to picture right, z to the front, radians from the crown.
UNROLLED = np.stack(
    [np.outer(SCALP_POLAR, np.sin(SCALP_ANGLES)), np.outer(SCALP_POLAR, np.cos(SCALP_ANGLES))], -1
).astype(np.float32)
CROWN = (0.0, -0.3, -0.3)  # without a parting: where strands start on the unrolled scalp
TAIL_ROWS, TAIL_AROUND = 14, 10  # vertices along and around a bun, a ponytail, a braid


@dataclass(frozen=True, eq=False)
class Tail:
    """Hair that is tied: a bun, a ponytail, a braid. Lengths in face widths.

    Attributes
    ----------
    root : (polar angle from the crown, angle around the head from the front), radians.
    outward : how far it stands off the head.
    length : how far it falls from there.
    radius : where it is thickest.
    knots : of a braid, 0 for none.
    """

    root: tuple[float, float]
    outward: float
    length: float
    radius: float
    knots: float


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
    taper : share of that thickness which is left at the edge.
    length : of the falling part.
    flare : widening of the falling part.
    bumps : (size, amplitude) of the surface.
    locks : (per radian around the start of the strands, height, how much they part the edge).
    color, second : (3,) linear reflectance; strands run from one to the other.
    strands : across the head.
    contrast : of the strands, 0 to 1.
    parting : (sideways, front end, back end) on the unrolled scalp, radians, where strands start
        to either side, or a single place of which both ends are the same; None for the crown.
    sweep : how far strands run sideways on their way down, turns.
    softness, raggedness : of the edge.
    gloss : strength of the highlight.
    brim : length of a brim at the edge (front, sides and back), 0 for none, and its droop.
    tails : what is tied.
    seed : of everything irregular.
    """

    edge: np.ndarray
    window: tuple[float, float, float] | None
    thickness: tuple[float, float, float, float]
    taper: float
    length: float
    flare: float
    bumps: tuple[float, float]
    locks: tuple[float, float, float]
    color: np.ndarray
    second: np.ndarray
    strands: float
    contrast: float
    parting: tuple[float, float, float] | None
    sweep: float
    softness: float
    raggedness: float
    gloss: float
    brim: tuple[float, float, float]
    tails: tuple[Tail, ...]
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
    around = np.asarray(around, np.float32)
    return _looked_up(_edge_table(edge), around.ravel()).reshape(around.shape)


def _edge_table(edge):
    """The smoothed edge at `EDGE_STEPS` even angles from the back over picture left."""
    return _fill_edge_table(np.ascontiguousarray(edge, np.float64), EDGE_ANGLES)


@numba.njit(cache=True, nogil=True)
def _fill_edge_table(edge, knots):
    raw = np.empty(EDGE_STEPS)
    for i in range(EDGE_STEPS):
        angle = 2 * np.pi * i / EDGE_STEPS - np.pi
        row = edge[1] if angle > 0 else edge[0]
        raw[i] = np.interp(abs(angle), knots, row)
    table = np.zeros(EDGE_STEPS, np.float32)
    for i in range(EDGE_STEPS):
        for k in range(-3, 4):
            table[i] += raw[(i + k) % EDGE_STEPS] / 7
    return table


@numba.njit(cache=True, inline="always")
def _edge_at(table, angle):
    place = (angle + np.pi) * (EDGE_STEPS / (2 * np.pi))
    low = np.floor(place)
    share = place - low
    i = int(low) % EDGE_STEPS
    return table[i] * (1 - share) + table[(i + 1) % EDGE_STEPS] * share


@numba.njit(cache=True, nogil=True)
def _looked_up(table, around):
    out = np.empty(len(around), np.float32)
    for i in range(len(around)):
        out[i] = _edge_at(table, around[i])
    return out


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
    offset = np.random.default_rng(sheet.seed).uniform(0, 32, 3)
    side, front, back = sheet.parting or CROWN
    shape = np.array(
        [
            *(sheet.window or (0.0, 0.0, 0.0)), *sheet.thickness, sheet.taper, sheet.length,
            sheet.flare, *sheet.bumps, *sheet.locks, sheet.strands, side, front, back,
            sheet.sweep, sheet.raggedness,
        ],
        np.float32,
    )  # fmt: skip
    down = np.asarray(down, np.float32)
    grid, margin, strand, along = _lay(
        _skull_radius(body, person.skull_index, frame.center),
        DIRECTIONS,
        UNROLLED,
        np.asarray(frame.center, np.float32),
        np.float32(width),
        np.float32(frame.eyes[1]),
        down,
        _edge_table(sheet.edge),
        shape,
        offset.astype(np.float32),
        LATTICE,
    )
    if max(sheet.brim[:2]) > 0:
        _add_brim(sheet, frame, grid, margin)
    reach = 0.06 * width * (sheet.raggedness + sheet.softness)
    triangles, used = _visible_cells(margin, np.float32(-reach))
    parts = [(grid.reshape(-1, 3), margin.ravel(), strand.reshape(-1, 2), along.reshape(-1, 3))]
    parts = [tuple(array[:used] for array in parts[0])]
    meshes = [triangles]
    for tail in sheet.tails:
        parts.append(_tail(tail, sheet, frame, grid, down, offset))
        meshes.append(TAIL_TRIANGLES + used)
        used += TAIL_ROWS * TAIL_AROUND
    if len(parts) == 1:
        vertices, margin, strand, along = parts[0]
    else:
        vertices, margin, strand, along = (np.concatenate(p) for p in zip(*parts, strict=True))
        triangles = np.concatenate(meshes)
    return SheetMesh(vertices, triangles, margin, strand, along)


@numba.njit(cache=True, nogil=True)
def _skull_radius(body, index, center):
    """(rows, columns) float32 distance of the skull from its centre, smoothed over 5 x 5 cells."""
    rows, columns = index.shape
    raw = np.empty((rows, columns), np.float32)
    for r in range(rows):
        for c in range(columns):
            i = index[r, c]
            x, y, z = body[i, 0] - center[0], body[i, 1] - center[1], body[i, 2] - center[2]
            raw[r, c] = np.sqrt(x * x + y * y + z * z)
    weights = np.array([0.054, 0.244, 0.404, 0.244, 0.054], np.float32)
    half = np.empty_like(raw)
    for r in range(rows):
        for c in range(columns):
            total = np.float32(0)
            for k in range(5):
                total += weights[k] * raw[r, (c + k - 2) % columns]
            half[r, c] = total
    out = np.empty_like(raw)
    for r in range(rows):
        for c in range(columns):
            total = np.float32(0)
            for k in range(5):
                total += weights[k] * half[min(max(r + k - 2, 0), rows - 1), c]
            out[r, c] = total
    return out


@numba.njit(cache=True, inline="always")
def _soft(x):
    x = min(max(x, np.float32(0)), np.float32(1))
    return x * x * (3 - 2 * x)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _lay(
    radius, directions, unrolled, center, width, eyes, down, edge, shape, offset, table
):  # fmt: skip
    """Grid (R, C, 3), margin (R, C), strand (R, C, 2) and along (R, C, 3) of a sheet.

    `shape` is packed by `build_sheet`; the first rows follow the skull, the others fall.
    """
    half_angle, window_height, window_tall = shape[0], shape[1], shape[2]
    crown, front, side, back = shape[3], shape[4], shape[5], shape[6]
    taper, length, flare = shape[7], shape[8], shape[9]
    bump_size, bump_height = shape[10], shape[11]
    lock_count, lock_height, lock_edge = shape[12], shape[13], shape[14]
    strands, part_x, part_front, part_back = shape[15], shape[16], shape[17], shape[18]
    sweep, ragged = shape[19], shape[20]
    caps, columns = radius.shape
    rows = caps + FALLING_ROWS
    grid = np.empty((rows, columns, 3), np.float32)
    margin = np.empty((rows, columns), np.float32)
    strand = np.empty((rows, columns, 2), np.float32)
    along = np.empty((rows, columns, 3), np.float32)
    parted = part_front > part_back
    ox, oy, oz = offset[0], offset[1], offset[2]
    for r in range(caps):
        for c in range(columns):
            dx, dy, dz = directions[r, c, 0], directions[r, c, 1], directions[r, c, 2]
            fade = dx * dx + dz * dz
            ahead = dz / np.sqrt(fade)
            angle = 2 * np.pi * c / columns - np.pi
            base = (center[1] + dy * radius[r, c] - eyes) / width
            if half_angle > 0:
                inside = (
                    np.sqrt((angle / half_angle) ** 2 + ((base - window_height) / window_tall) ** 2)
                    - 1
                ) * window_tall
            else:
                inside = base - _edge_at(edge, angle)

            # Where on the unrolled scalp: along and beside the parting, from its front end back.
            qx, qz = unrolled[r, c, 0] - part_x, unrolled[r, c, 1] - part_back
            beside = abs(qx)
            if parted and qz > 0:
                right = 1 if qx > 0 else -1
                u, v = right * (0.5 * np.pi + qz), beside
                gx, gz = right, 0.0
            else:
                v = np.sqrt(qx * qx + qz * qz)
                # Counted from where the seam of the angle isn't seen.
                u = np.arctan2(qx, -qz) if parted or part_back > 0 else np.arctan2(qx, qz)
                gx, gz = qx / max(v, 1e-6), qz / max(v, 1e-6)
            v *= 0.62
            strand[r, c, 0] = u * strands * 0.159155 + sweep * v
            strand[r, c, 1] = v
            # Direction of growing v, in radians down and around.
            polar = max(np.sqrt(unrolled[r, c, 0] ** 2 + unrolled[r, c, 1] ** 2), 1e-6)
            ux, uz = unrolled[r, c, 0] / polar, unrolled[r, c, 1] / polar
            along[r, c, 0] = gx * ux + gz * uz
            along[r, c, 1] = gx * uz - gz * ux

            rise = side + ((front if ahead > 0 else back) - side) * ahead * ahead
            thick = crown * (1 - fade) + rise * fade
            px, py, pz = dx / bump_size, dy / bump_size, dz / bump_size
            bump = value_noise(table, px + ox, py + oy, pz + oz) - 0.5
            bump += 0.6 * (value_noise(table, 2 * px + oy, 2 * py + oz, 2 * pz + ox) - 0.5)
            lock = value_noise(table, u * lock_count + oz, v * 1.6 + ox, oy) - 0.5
            wisp = value_noise(table, dx * 2.9 + oz, dy * 2.9 + ox, dz * 2.9 + oy) - 0.5
            inside += ragged * 0.16 * wisp + lock_edge * lock * fade
            thick += 1.25 * bump_height * bump + 2 * lock_height * lock * _soft(2 * v)
            full = taper + (1 - taper) * _soft(inside / 0.3)
            if parted and qz > 0:
                full *= 0.35 + 0.65 * _soft(beside / 0.22)
            inside = inside * width
            reach = radius[r, c] + width * thick * full
            grid[r, c, 0] = center[0] + dx * reach
            grid[r, c, 1] = center[1] + dy * reach
            grid[r, c, 2] = center[2] + dz * reach
            margin[r, c] = inside

    for c in range(columns):
        angle = 2 * np.pi * c / columns - np.pi
        x, y, z = grid[caps - 1, c, 0], grid[caps - 1, c, 1], grid[caps - 1, c, 2]
        wide, deep = x - center[0], z - center[2]
        sine, cosine = np.sin(angle), np.cos(angle)
        # Short hair hugs the nape.
        spread = flare - 0.9 * max(-cosine, 0.0) * np.exp(-length)
        base = (center[1] + directions[caps - 1, c, 1] * radius[caps - 1, c] - eyes) / width
        u, v = strand[caps - 1, c, 0], strand[caps - 1, c, 1]
        lock_u = (u - sweep * v) / strands * 6.28319 * lock_count
        ragged_here = (
            ragged
            * 0.16
            * (value_noise(table, directions[caps - 1, c, 0] * 2.9 + oz, ox, oy) - 0.5)
        )
        for k in range(FALLING_ROWS):
            r = caps + k
            fall = (k + 1) / FALLING_ROWS * length
            step = max(bump_size, np.float32(0.5))
            wave = value_noise(
                table, 2 * sine / step + oz, 3 * fall / step + ox, 2 * cosine / step + oy
            )
            lock = value_noise(table, lock_u + oz, (v + 0.4 * fall) * 1.6 + ox, oy) - 0.5
            swell = spread * min(fall, 0.5) + 2 * bump_height * (wave - 0.5)
            swell += 3 * lock_height * lock
            grid[r, c, 0] = x + wide * swell + down[0] * fall * width
            grid[r, c, 1] = y + down[1] * fall * width
            grid[r, c, 2] = z + deep * swell + down[2] * fall * width
            height = base - fall  # however it hangs, counted along the fall
            if half_angle > 0:
                inside = (
                    np.sqrt(
                        (angle / half_angle) ** 2 + ((height - window_height) / window_tall) ** 2
                    )
                    - 1
                ) * window_tall
            else:
                inside = height - _edge_at(edge, angle)
            margin[r, c] = (inside + ragged_here + lock_edge * lock * (1 + fall)) * width
            strand[r, c, 0] = u + sweep * fall
            strand[r, c, 1] = v + fall
            along[r, c, 0], along[r, c, 1] = 1.0, 0.0

    # From steps on the grid to directions in space.
    for r in range(rows):
        above, below = max(r - 1, 0), min(r + 1, rows - 1)
        share = min(r, caps - 1) + 0.5
        sine = np.sin(1.78 * share / caps)  # of the polar angle: columns are closer near the crown
        for c in range(columns):
            a, b = along[r, c, 0] * 0.0982 * sine, along[r, c, 1] * 0.1037
            left, right = (c - 1) % columns, (c + 1) % columns
            x = a * (grid[below, c, 0] - grid[above, c, 0])
            x += b * (grid[r, right, 0] - grid[r, left, 0])
            y = a * (grid[below, c, 1] - grid[above, c, 1])
            y += b * (grid[r, right, 1] - grid[r, left, 1])
            z = a * (grid[below, c, 2] - grid[above, c, 2])
            z += b * (grid[r, right, 2] - grid[r, left, 2])
            size = max(np.sqrt(x * x + y * y + z * z), 1e-9)
            along[r, c, 0], along[r, c, 1], along[r, c, 2] = x / size, y / size, z / size
    return grid, margin, strand, along


@numba.njit(cache=True, nogil=True)
def _visible_cells(margin, least):
    """Triangles (F, 3), facing outwards, of which a corner's margin exceeds `least`, and how many
    vertices they need."""
    rows, columns = margin.shape
    out = np.empty((2 * (rows - 1) * columns, 3), np.int32)
    count, used = 0, 0
    for r in range(rows - 1):
        for c in range(columns):
            following = (c + 1) % columns
            a, b = r * columns + c, r * columns + following
            d, e = a + columns, b + columns
            seen_b = margin[r, following] > least
            seen_d = margin[r + 1, c] > least
            if margin[r, c] > least or seen_b or seen_d:
                out[count, 0], out[count, 1], out[count, 2] = a, d, b
                count += 1
                used = r + 2
            if margin[r + 1, following] > least or seen_b or seen_d:
                out[count, 0], out[count, 1], out[count, 2] = b, d, e
                count += 1
                used = r + 2
    return out[:count].copy(), used * columns


def _add_brim(sheet, frame, grid, margin):
    """Bend what is below the hat's edge outwards into a brim, in place."""
    column = np.arange(SCALP_AROUND)
    first = np.clip(np.argmax(margin < 0, axis=0), 2, len(grid) - 4)  # row outside, per column
    inside, outside = margin[first - 1, column], margin[first, column]
    share = np.clip(inside / np.maximum(inside - outside, 1e-6), 0, 1)[:, None]
    edge = grid[first - 1, column] * (1 - share) + grid[first, column] * share
    # All columns end on the same row, or the brim would be jagged.
    rim = first.max()
    rest = np.arange(len(grid))[:, None] >= first
    grid[rest] = np.broadcast_to(edge, grid.shape)[rest]
    margin[rest] = -200.0
    margin[:rim] = np.maximum(margin[:rim], 5.0)

    outward = (edge - frame.center.astype(np.float32)) * np.array([1, 0, 1], np.float32)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    ahead = np.clip(np.cos(SCALP_ANGLES), 0, 1)[:, None]
    front, around, droop = sheet.brim
    long = (around + (front - around) * ahead**1.5) * frame.width
    for step, part in enumerate((0.5, 1.0)):
        fallen = np.array([0.0, -droop, 0.0]) * part
        grid[rim + step] = edge + long * part * (outward + fallen)
        margin[rim + step] = np.where(long[:, 0] > 0.02 * frame.width, 5.0, -50.0)


def _tail_triangles():
    cells = np.arange(TAIL_ROWS * TAIL_AROUND).reshape(TAIL_ROWS, TAIL_AROUND)
    a, c = cells[:-1], cells[1:]
    b, d = np.roll(a, -1, 1), np.roll(c, -1, 1)
    pairs = np.stack([np.stack([a, b, c], -1), np.stack([c, b, d], -1)])
    return pairs.reshape(-1, 3).astype(np.int32)


TAIL_TRIANGLES = _tail_triangles()


def _tail(tail, sheet, frame, grid, down, offset):
    """Vertices, margin, strand and along of a tube that starts on the sheet `grid`."""
    row = int(np.argmin(np.abs(SCALP_POLAR - tail.root[0])))
    column = int(np.argmin(np.abs((SCALP_ANGLES - tail.root[1] + np.pi) % (2 * np.pi) - np.pi)))
    start = grid[row, column]
    outward = (start - frame.center) / np.linalg.norm(start - frame.center)
    return _fill_tail(
        start,
        outward.astype(np.float32),
        down,
        np.float32(frame.width),
        np.array([tail.outward, tail.length, tail.radius, tail.knots, sheet.strands], np.float32),
        offset.astype(np.float32),
        LATTICE,
    )


@numba.njit(cache=True, nogil=True)
def _fill_tail(start, outward, down, width, shape, offset, table):
    stand, length, radius, knots, strands = shape
    count = TAIL_ROWS * TAIL_AROUND
    vertices = np.empty((count, 3), np.float32)
    margin = np.empty(count, np.float32)
    strand = np.empty((count, 2), np.float32)
    along = np.empty((count, 3), np.float32)
    sideways = np.cross(outward, down)
    sideways /= max(np.sqrt((sideways**2).sum()), np.float32(1e-6))
    for r in range(TAIL_ROWS):
        t: Any = np.float32(r / (TAIL_ROWS - 1))  # of a type that numba decides
        # Out of the head first, then down.
        out = stand * (1 - np.exp(-4 * t)) if length > 0 else stand * t
        tangent = outward * stand * (4 * np.exp(-4 * t) if length > 0 else 1.0)
        tangent = tangent + down * (2 * length * t)
        tangent /= max(np.sqrt((tangent**2).sum()), np.float32(1e-6))
        middle = start + (outward * out + down * (length * t * t)) * width
        normal = np.cross(sideways, tangent)
        if length > 0:
            profile = min(0.55 + 1.6 * t, 1.0) * (1 - 0.75 * t * t)
        else:  # a bun
            profile = np.sqrt(max(1 - (2 * t - 1) ** 2, 0.0)) + 0.02
        if knots > 0:
            profile *= 0.7 + 0.5 * abs(np.sin(np.pi * knots * t))
        for c in range(TAIL_AROUND):
            angle = 2 * np.pi * c / TAIL_AROUND
            i = r * TAIL_AROUND + c
            bump = value_noise(table, 0.9 * c + offset[0], 4 * t + offset[1], offset[2]) - 0.5
            wide = radius * profile * (1 + 0.35 * bump) * width
            spoke = np.float32(np.cos(angle)) * normal + np.float32(np.sin(angle)) * sideways
            vertices[i] = middle + spoke * wide
            along[i] = tangent
            strand[i, 0] = angle * 0.159155 * strands * 0.3 + 3 * knots * t
            strand[i, 1] = t * max(length, stand)
            margin[i] = width * min(0.2, 0.8 * (0.97 - t)) if length > 0 else 0.2 * width
    return vertices, margin, strand, along
