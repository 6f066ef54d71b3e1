"""Per-pixel colours of people: skin, eyes, mouth, cloth, hair. Numba, one pass over the picture."""

from __future__ import annotations

import numba
import numpy as np

from p2f_lib.synthesis.anatomy import CLOTH, EYE, LOWER_TEETH, MOUTH, SKIN, TEETH
from p2f_lib.synthesis.noise import value_noise

# Columns of the vertex attributes of `paint_person`.
ALBEDO, LIGHT, SHINE, COVER = 0, 3, 6, 9
N_ATTRIBUTES = 10
BARE = -20.0  # mm: below this cover no hair grows near


@numba.njit(inline="always")
def _ramp(low, high, x):
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@numba.njit(cache=True, nogil=True)
def seen_rows(triangle_id: np.ndarray, triangles: np.ndarray, n_vertices: int) -> np.ndarray:
    """Vertices of the triangles that a z-buffer shows, ascending, int64."""
    used = np.zeros(n_vertices, np.bool_)
    last = -1
    for t in triangle_id.ravel():
        if t != last and t >= 0:
            for corner in range(3):
                used[triangles[t, corner]] = True
        last = t
    return np.flatnonzero(used)


@numba.njit(cache=True, nogil=True)
def light_rows(
    rows: np.ndarray, lit_by: np.ndarray, lit_share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices whose light decides that of `rows`, ascending int64; the place of each among them.

    The latter is (n_total,) int32 and holds nothing of use for other vertices.
    """
    used = np.zeros(len(lit_by), np.bool_)
    for row in rows:
        for k in range(3):
            if lit_share[row, k] > 0:
                used[lit_by[row, k]] = True
    chosen = np.flatnonzero(used)
    place = np.zeros(len(lit_by), np.int32)
    for n in range(len(chosen)):
        place[chosen[n]] = n
    return chosen, place


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def skin_reflectance(
    rows: np.ndarray,
    regions: np.ndarray,
    region_shift: np.ndarray,
    skin: np.ndarray,
    blotches: float,
    offset: np.ndarray,
    places: np.ndarray,
    table: np.ndarray,
) -> np.ndarray:
    """(N, 3) linear reflectance of the vertices `rows`.

    Parameters
    ----------
    regions : (V, R) masks of the face's vertices, which come first; others have the bare skin.
    region_shift : (R, 3) what the regions change of the log reflectance.
    skin : (3,) reflectance.
    blotches : strength of irregularities of some 18 mm.
    offset : (3,) where this person's irregularities lie in the noise `table`.
    places : (n_total, 3) mm, of the mean person.
    """
    out = np.empty((len(rows), 3), np.float32)
    for n in range(len(rows)):
        v = rows[n]
        for c in range(3):
            out[n, c] = skin[c]
        if v >= len(regions):
            continue
        px, py, pz = places[v, 0], places[v, 1], places[v, 2]
        x, y, z = px / 18 + offset[0], py / 18 + offset[1], pz / 18 + offset[2]
        blotch = value_noise(table, x, y, z) - 0.5
        x, y, z = px / 8.9 + offset[0], py / 8.9 + offset[1], pz / 8.9 + offset[2]
        blotch = blotches * 1.25 * (blotch + 0.6 * (value_noise(table, x, y, z) - 0.5))
        for c in range(3):
            shift = blotch * (0.5 if c == 0 else (1.0 if c == 1 else 0.9))
            for r in range(regions.shape[1]):
                shift += regions[v, r] * region_shift[r, c]
            out[n, c] *= np.exp(np.float32(shift))
    return out


@numba.njit(cache=True, nogil=True)
def coarse_attributes(
    skin: np.ndarray,
    light: np.ndarray,
    shine: np.ndarray,
    shadow: np.ndarray,
    gloss: float | np.floating,
    openness: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """(N, 9) reflectance, light and shine of the vertices `rows`.

    Parameters
    ----------
    light : (N, 6) from `irradiance`, the first lamp apart.
    shadow : (N,) share of the first lamp's light that arrives.
    gloss : strength of the shine.
    openness : of all vertices, see `Anatomy`.
    """
    out = np.empty((len(rows), 9), np.float32)
    for n in range(len(rows)):
        bright = gloss * openness[rows[n]] * shadow[n]
        for c in range(3):
            out[n, c] = skin[n, c]
            out[n, 3 + c] = light[n, c] + light[n, 3 + c] * shadow[n]
            out[n, 6 + c] = shine[n, c] * bright
    return out


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def fill_attributes(
    attributes: np.ndarray,
    rows: np.ndarray,
    n_face: int,
    lit_by: np.ndarray,
    lit_share: np.ndarray,
    place: np.ndarray,
    coarse: np.ndarray,
    shade: float | np.floating,
    irregular: tuple[float, float],
    offset: np.ndarray,
    places: np.ndarray,
    cover: np.ndarray,
    table: np.ndarray,
) -> None:
    """Fill in the `rows` of the attributes: reflectance, light, shine, cover.

    Parameters
    ----------
    n_face : the first vertices, which are those of the face.
    lit_by, lit_share : of the person, see `Anatomy`.
    place, coarse : from `light_rows`, and (L, 9) reflectance, light and shine there.
    shade : how much darker it is under hair.
    irregular : strength of freckles and wrinkles, which are finer than the coarse mesh.
    offset, places, table : as of `skin_reflectance`.
    cover : (N,) mm within the hairline.
    """
    freckles, wrinkles = irregular
    for n in range(len(rows)):
        v = rows[n]
        share, parent = lit_share[v, 0], place[lit_by[v, 0]]
        for c in range(9):
            attributes[v, c] = share * coarse[parent, c]
        for k in range(1, 3):
            share = lit_share[v, k]
            if share > 0:
                parent = place[lit_by[v, k]]
                for c in range(9):
                    attributes[v, c] += share * coarse[parent, c]
        attributes[v, COVER] = cover[n]
        dim = np.float32(1)
        if shade > 0:
            dim = 1 - shade * np.exp(min(cover[n], np.float32(0)) * np.float32(0.1))
        if v < n_face and freckles > 0:
            x, y, z = places[v, 0] / 3, places[v, 1] / 3, places[v, 2] / 3
            spots = value_noise(table, x + offset[0] + 5, y + offset[1] + 5, z + offset[2] + 5)
            spots = freckles * min(max(6 * spots - 3.6, 0.0), 1.0)
            for c in range(3):
                attributes[v, ALBEDO + c] *= 1 - spots
        if v < n_face and wrinkles > 0:  # they lie across: their lower sides face away from lamps
            x, y, z = places[v, 0] / 9, places[v, 1] / 3.5, places[v, 2] / 3.5
            bend = value_noise(table, x + offset[0] + 3, y + offset[1] + 3, z + offset[2] + 3)
            dim *= 1 + wrinkles * (2 * bend - 1)
        for c in range(3):
            attributes[v, LIGHT + c] *= dim


# The person's colours and shapes come as tuples: unlike arrays they cost nothing to hand on.


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def _mix(color, share, other, gain):
    """`color` with a share of `gain * other` in its place; (3,) tuples."""
    return (
        color[0] + share * (gain * other[0] - color[0]),
        color[1] + share * (gain * other[1] - color[1]),
        color[2] + share * (gain * other[2] - color[2]),
    )


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def _eye(x, y, shape, iris, sclera, glint, phase, table):
    """Colour of the eyeball `x`, `y` mm beside the mean pupil."""
    gx, gy = x - shape[2], y - shape[3]
    r = np.sqrt(gx * gx + gy * gy)
    inside = 1 - _ramp(shape[0] - 0.7, shape[0] + 0.5, r)
    pupil = 1 - _ramp(shape[1] - 0.4, shape[1] + 0.4, r)
    ring = 0.55 + 0.45 * (1 - _ramp(shape[0] - 1.8, shape[0], r))
    around = 4 / (r + 0.1)
    fiber = 0.6 + 0.8 * value_noise(table, gx * around + 9, gy * around + 9, r * 0.4 + phase)
    color = _mix(sclera, inside, iris, ring * fiber * (1 - pupil))
    dx, dy = gx - glint[0], gy - glint[1]
    bright = inside * 0.004 * pupil + glint[2] * (1 - _ramp(0.5, 1.1, np.sqrt(dx * dx + dy * dy)))
    # The upper lid and its lashes shade the eyeball.
    shade = 1 - 0.65 * _ramp(0.5, 6.0, y)
    return shade * (color[0] + bright), shade * (color[1] + bright), shade * (color[2] + bright)


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def _cloth(color, x, y, z, cloth, shape, phase, table):
    """Colour and shine of the torso: skin within the neckline, shirt, jacket, tie."""
    dx, dy = x - shape[0], shape[1] - y
    wide = shape[2]
    deep, open_wide = shape[3] * wide, shape[4] * wide
    front = z > shape[7]
    if front and dy < deep and abs(dx) < open_wide * (1 - dy / max(deep, 1.0)):
        return color, 1.0
    fabric = cloth[0]
    opening = wide * max(0.42 - 0.20 * dy / wide, 0.0)
    jacket = shape[5] > 0.5 and (not front or abs(dx) > opening)
    tied = shape[6] > 0.5 and front and dy > 0.05 * wide
    wave = np.sin(x * shape[8] + y * shape[9])
    fold = value_noise(table, x * 0.02 + phase, y * 0.008, z * 0.02)
    gain = (1 + shape[10] * wave) * (0.75 + 0.5 * fold)
    if jacket:
        fabric = cloth[1]
        gain *= 0.6 + 0.4 * min(abs(abs(dx) - opening) / 4.0, 1.0)  # the lapel's edge
    elif tied and abs(dx) < wide * (0.07 + 0.02 * dy / wide):
        fabric = cloth[2]
    return (fabric[0] * gain, fabric[1] * gain, fabric[2] * gain), 0.0


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def _lips(color, lip, soft, lips, edge):
    level = 0.5 + 0.1 * (soft - 0.5)
    return _mix(color, _ramp(level - 0.6 / edge, level + 0.6 / edge, lip), lips, 0.85 + 0.3 * soft)


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def _beard_share(hairy, soft, strand, shape):
    level = hairy + 0.3 * (soft - 0.5) + 0.2 * (strand - 0.5)
    share = shape[0] * _ramp(shape[1] - shape[2], shape[1] + shape[2], level)
    return share * (0.7 + 0.3 * _ramp(0.25, 0.7, strand))


@numba.njit(nogil=True, fastmath=True, error_model="numpy")
def _brow_share(along, above, soft, strand, shape):
    """A band of some thickness about a bent line, thinner towards its tail."""
    along = (along - shape[2]) / shape[3]
    if not -0.1 < along < 1.1:
        return 0.0
    middle = shape[4] + shape[5] * (along - 0.5) + shape[6] * np.sin(3.14159 * along)
    thick = shape[1] * min(1.15 - 0.75 * along, 0.55 + 4 * (along + 0.1))
    inside = thick - abs(above - middle) + 2.0 * (soft - 0.5) + 1.6 * (strand - 0.5)
    ends = _ramp(-0.08, 0.05, along) * (1 - _ramp(0.92, 1.08, along))
    return shape[0] * _ramp(-1.0, 1.2, inside) * ends


@numba.njit(inline="always")
def _is_drawn_on(t, triangles, drawn_on, kinds, attributes):
    """Whether a triangle bears brows, lips, lashes, a beard or the stubble of a scalp."""
    return (
        (drawn_on[t] & kinds) != 0
        or attributes[triangles[t, 0], COVER] > BARE
        or attributes[triangles[t, 1], COVER] > BARE
        or attributes[triangles[t, 2], COVER] > BARE
    )


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def paint_person(
    image: np.ndarray,
    block: int,
    triangle_id: np.ndarray,
    barycentric: np.ndarray,
    triangles: np.ndarray,
    material: np.ndarray,
    drawn_on: np.ndarray,
    attributes: np.ndarray,
    places: np.ndarray,
    details: np.ndarray,
    table: np.ndarray,
    noise: tuple[float, ...],
    lips: tuple[float, ...],
    lip_edge: float,
    brow: tuple[float, ...],
    brow_shape: tuple[float, ...],
    lashes: tuple[float, ...],
    iris: tuple[float, ...],
    eye_shape: tuple[float, ...],
    sclera: tuple[float, ...],
    glint: tuple[float, ...],
    beard: tuple[float, ...],
    beard_shape: tuple[float, ...],
    hair: tuple[float, ...],
    cover: float,
    teeth: tuple[tuple[float, ...], ...],
    cloth: tuple[tuple[float, ...], ...],
    cloth_shape: tuple[float, ...],
) -> None:
    """Shade every covered ray of `image` (H, W, 3), linear light, in place.

    A pixel of the final picture is a block of `block` x `block` rays. Where all of them meet skin,
    or all of them cloth, those on the diagonal are shaded for all; where nothing is drawn on it,
    the first alone.

    Everything that follows `table` describes the person; see `photograph._person_paint`.
    """
    height, width = triangle_id.shape
    n_face = len(details)
    kinds = 3 if beard_shape[0] > 0.04 else 1
    red, green, blue = 0.0, 0.0, 0.0
    for top in range(0, height, block):
        for left in range(0, width, block):
            first = triangle_id[top, left]
            covered = first >= 0
            alike = covered and (material[first] == SKIN or material[first] == CLOTH)
            plain = alike
            for row in range(top, top + block):
                for column in range(left, left + block):
                    t = triangle_id[row, column]
                    covered |= t >= 0
                    if not alike:
                        continue
                    if t < 0 or material[t] != material[first]:
                        alike, plain = False, False
                    elif t != first or (row == top and column == left):
                        plain &= not _is_drawn_on(t, triangles, drawn_on, kinds, attributes)
            if not covered:
                continue
            for row in range(top, top + block):
                for step in range(block):
                    shift = row - top + step  # starts on the diagonal
                    column = left + (shift - block if shift >= block else shift)
                    t = triangle_id[row, column]
                    if t < 0:
                        continue
                    if not ((alike and step > 0) or (plain and row > top)):
                        kind = material[t]
                        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                        wi = barycentric[row, column, 0]
                        wj = barycentric[row, column, 1]
                        wk = barycentric[row, column, 2]
                        color = (
                            wi * attributes[i, 0] + wj * attributes[j, 0] + wk * attributes[k, 0],
                            wi * attributes[i, 1] + wj * attributes[j, 1] + wk * attributes[k, 1],
                            wi * attributes[i, 2] + wj * attributes[j, 2] + wk * attributes[k, 2],
                        )
                        color = (float(color[0]), float(color[1]), float(color[2]))
                        shine = 1.0
                        drawn = kind == SKIN and _is_drawn_on(
                            t, triangles, drawn_on, kinds, attributes
                        )
                        if kind != SKIN or drawn:
                            px = wi * places[i, 0] + wj * places[j, 0] + wk * places[k, 0]
                            py = wi * places[i, 1] + wj * places[j, 1] + wk * places[k, 1]
                            pz = wi * places[i, 2] + wj * places[j, 2] + wk * places[k, 2]
                        if kind == EYE:
                            x = wi * details[i, 4] + wj * details[j, 4] + wk * details[k, 4]
                            y = wi * details[i, 5] + wj * details[j, 5] + wk * details[k, 5]
                            color = _eye(x, y, eye_shape, iris, sclera, glint, noise[0], table)
                            shine = 0.0
                        elif kind == MOUTH:
                            color, shine = _mix(color, 1.0, lips, 0.5), 0.0
                        elif kind in (TEETH, LOWER_TEETH):
                            gap = abs(value_noise(table, px * 0.13 + 0.5, 3.5, 7.5) - 0.5)
                            row_color = teeth[0] if kind == TEETH else teeth[1]
                            color, shine = _mix(color, 1.0, row_color, 0.75 + min(gap, 0.25)), 0.5
                        elif kind == CLOTH:
                            color, shine = _cloth(
                                color, px, py, pz, cloth, cloth_shape, noise[0], table
                            )
                        elif drawn:
                            # Strands of brows and beard: fine across, long along.
                            x, y, z = px * 0.9 + noise[0], py * 0.45, pz * 0.45 + noise[1]
                            strand = value_noise(table, x, y, z)
                            x, y, z = px * 0.12 + noise[1], py * 0.12 + noise[2], pz * 0.12
                            soft = value_noise(table, x, y, z + noise[0])
                            if i < n_face and j < n_face and k < n_face:
                                lip = wi * details[i, 3] + wj * details[j, 3] + wk * details[k, 3]
                                if lip > 0.02:
                                    color = _lips(color, lip, soft, lips, lip_edge)
                                hairy = wi * details[i, 6] + wj * details[j, 6] + wk * details[k, 6]
                                if hairy > 0.03:
                                    m = _beard_share(hairy, soft, strand, beard_shape)
                                    color = _mix(color, m, beard, 0.7 + 0.6 * strand)
                                    shine *= 1 - 0.8 * m
                                above = wi * details[i, 7] + wj * details[j, 7] + wk * details[k, 7]
                                if abs(above) < 14:
                                    x = wi * details[i, 0] + wj * details[j, 0] + wk * details[k, 0]
                                    m = _brow_share(x, above, soft, strand, brow_shape)
                                    color = _mix(color, m, brow, 0.5 + strand)
                                    shine *= 1 - 0.7 * m
                                x = wi * details[i, 1] + wj * details[j, 1] + wk * details[k, 1]
                                y = wi * details[i, 2] + wj * details[j, 2] + wk * details[k, 2]
                                m = max(lashes[0] * x, lashes[1] * y)
                                if m > 0.05:
                                    m = _ramp(0.15, 0.75, m)
                                    color = _mix(color, 0.93 * m, brow, 0.0)
                                    shine *= 1 - m
                            x = wi * attributes[i, COVER] + wj * attributes[j, COVER]
                            x += wk * attributes[k, COVER]
                            if x > BARE:
                                m = 8 * (soft - 0.5) + 6 * (strand - 0.5)
                                m = cover * _ramp(-5.0, 5.0, x + m)
                                color = _mix(color, m, hair, 0.5 + strand)
                                shine *= 1 - 0.7 * m
                        red = wi * attributes[i, 6] + wj * attributes[j, 6] + wk * attributes[k, 6]
                        green = (
                            wi * attributes[i, 7] + wj * attributes[j, 7] + wk * attributes[k, 7]
                        )
                        blue = wi * attributes[i, 8] + wj * attributes[j, 8] + wk * attributes[k, 8]
                        x = wi * attributes[i, 3] + wj * attributes[j, 3] + wk * attributes[k, 3]
                        y = wi * attributes[i, 4] + wj * attributes[j, 4] + wk * attributes[k, 4]
                        z = wi * attributes[i, 5] + wj * attributes[j, 5] + wk * attributes[k, 5]
                        red = color[0] * x + shine * red
                        green = color[1] * y + shine * green
                        blue = color[2] * z + shine * blue
                    image[row, column, 0] = red
                    image[row, column, 1] = green
                    image[row, column, 2] = blue


@numba.njit(cache=True, fastmath=True, error_model="numpy")
def paint_sheet(
    image: np.ndarray,
    depth: np.ndarray,
    top: int,
    left: int,
    triangle_id: np.ndarray,
    barycentric: np.ndarray,
    sheet_depth: np.ndarray,
    triangles: np.ndarray,
    margin: np.ndarray,
    strand: np.ndarray,
    light: np.ndarray,
    shine: np.ndarray,
    table: np.ndarray,
    colors: np.ndarray,
    contrast: float,
    edge: tuple[float, float],
    seed: float,
) -> None:
    """Blend a sheet of hair or cloth over `image` (H, W, 3) where it is in front of `depth`.

    The sheet's z-buffer begins at pixel (`left`, `top`) of the picture. `edge` is (softness,
    raggedness) in mm; `depth` follows where the sheet is dense.
    """
    height, width = triangle_id.shape
    for row in range(height):
        for column in range(width):
            t = triangle_id[row, column]
            if t < 0 or sheet_depth[row, column] > depth[top + row, left + column]:
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wi = barycentric[row, column, 0]
            wj = barycentric[row, column, 1]
            wk = barycentric[row, column, 2]
            inside = wi * margin[i] + wj * margin[j] + wk * margin[k]
            if 0.5 + (inside + edge[1]) / edge[0] <= 0:
                continue  # beyond the farthest wisp
            u = wi * strand[i, 0] + wj * strand[j, 0] + wk * strand[k, 0]
            v = wi * strand[i, 1] + wj * strand[j, 1] + wk * strand[k, 1]
            fine = value_noise(table, u + seed, v * 2.5, 0.5)
            wisp = value_noise(table, u * 0.31 + seed, v * 1.2, 5.5)
            inside += edge[1] * (0.7 * fine + 1.3 * wisp - 1.0)
            alpha = min(max(0.5 + inside / edge[0], 0.0), 1.0)
            if alpha <= 0:
                continue
            mix = min(max(0.5 + contrast * 1.6 * (0.6 * fine + 0.4 * wisp - 0.5), 0.0), 1.0)
            tone = 1 - contrast * 0.8 * (1 - fine)
            for n in range(3):
                c = (colors[0, n] * (1 - mix) + colors[1, n] * mix) * tone
                lit = wi * light[i, n] + wj * light[j, n] + wk * light[k, n]
                glow = wi * shine[i, n] + wj * shine[j, n] + wk * shine[k, n]
                c = c * lit + glow * (0.3 + fine)
                image[top + row, left + column, n] += alpha * (
                    c - image[top + row, left + column, n]
                )
            if alpha > 0.5:
                depth[top + row, left + column] = sheet_depth[row, column]
