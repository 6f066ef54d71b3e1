"""Per-pixel colours of people: skin, eyes, mouth, cloth, hair. Numba, one pass over the picture."""

from __future__ import annotations

import numba
import numpy as np

from p2f_lib.synthesis.anatomy import CLOTH, EYE, LOWER_TEETH, MOUTH, TEETH
from p2f_lib.synthesis.noise import value_noise

# Columns of the vertex attributes of `paint_person`.
ALBEDO, LIGHT, SHINE, PLACE, COVER, DETAIL = 0, 3, 6, 9, 12, 13
N_ATTRIBUTES = 21


@numba.njit(inline="always")
def _ramp(low, high, x):
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@numba.njit(cache=True, fastmath=True, error_model="numpy")
def paint_person(
    image,
    triangle_id,
    barycentric,
    triangles,
    material,
    attributes,
    table,
    noise,
    lips,
    lip_edge,
    brow,
    brow_shape,
    lashes,
    iris,
    eye_shape,
    sclera,
    glint,
    beard,
    beard_shape,
    hair,
    cover,
    teeth,
    cloth,
    cloth_shape,
):
    """Shade every covered pixel of `image` (H, W, 3), linear light, in place.

    Everything that follows `attributes` describes the person; see `photograph._person_paint`.
    """
    height, width = triangle_id.shape
    a = np.empty(N_ATTRIBUTES, np.float32)
    c = np.empty(3, np.float32)
    for row in range(height):
        for column in range(width):
            t = triangle_id[row, column]
            if t < 0:
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wi = barycentric[row, column, 0]
            wj = barycentric[row, column, 1]
            wk = barycentric[row, column, 2]
            for n in range(N_ATTRIBUTES):
                a[n] = wi * attributes[i, n] + wj * attributes[j, n] + wk * attributes[k, n]
            kind = material[t]
            for n in range(3):
                c[n] = a[ALBEDO + n]
            shine = 1.0
            px, py, pz = a[PLACE], a[PLACE + 1], a[PLACE + 2]
            if kind == EYE:
                gx, gy = a[DETAIL + 4] - eye_shape[2], a[DETAIL + 5] - eye_shape[3]
                r = np.sqrt(gx * gx + gy * gy)
                inside = 1 - _ramp(eye_shape[0] - 0.7, eye_shape[0] + 0.5, r)
                pupil = 1 - _ramp(eye_shape[1] - 0.4, eye_shape[1] + 0.4, r)
                ring = 0.55 + 0.45 * (1 - _ramp(eye_shape[0] - 1.8, eye_shape[0], r))
                fiber = 0.6 + 0.8 * value_noise(
                    table, gx / (r + 0.1) * 4 + 9, gy / (r + 0.1) * 4 + 9, r * 0.4 + noise[0]
                )
                for n in range(3):
                    c[n] = sclera[n] * (1 - inside) + inside * (
                        iris[n] * ring * fiber * (1 - pupil) + 0.004 * pupil
                    )
                # The upper lid and its lashes shade the eyeball.
                under_lid = 1 - 0.65 * _ramp(0.5, 6.0, a[DETAIL + 5])
                dx, dy = gx - glint[0], gy - glint[1]
                spot = 1 - _ramp(0.5, 1.1, np.sqrt(dx * dx + dy * dy))
                for n in range(3):
                    lit = a[LIGHT + n] * under_lid
                    image[row, column, n] = lit * (c[n] + spot * glint[2])
                continue
            if kind == MOUTH:
                for n in range(3):
                    c[n] = lips[n] * 0.5
                shine = 0.0
            elif kind in (TEETH, LOWER_TEETH):
                gap = abs(value_noise(table, px * 0.13 + 0.5, 3.5, 7.5) - 0.5)
                for n in range(3):
                    c[n] = teeth[kind - TEETH, n] * (0.75 + min(gap, 0.25))
                shine = 0.5
            elif kind == CLOTH:
                dx, dy = px - cloth_shape[0], cloth_shape[1] - py
                wide = cloth_shape[2]
                deep, open_wide = cloth_shape[3] * wide, cloth_shape[4] * wide
                front = pz > cloth_shape[8]
                bare = front and dy < deep and abs(dx) < open_wide * (1 - dy / max(deep, 1.0))
                if not bare:
                    part = 0
                    if cloth_shape[5] > 0.5:
                        opening = wide * max(0.42 - 0.20 * dy / wide, 0.0)
                        if not front or abs(dx) > opening:
                            part = 1
                    tied = part == 0 and cloth_shape[6] > 0.5 and front and dy > 0.05 * wide
                    if tied and abs(dx) < wide * (0.07 + 0.02 * dy / wide):
                        part = 2
                    wave = np.sin(
                        (px * np.cos(cloth_shape[11]) + py * np.sin(cloth_shape[11]))
                        / cloth_shape[9]
                        * 6.28
                    )
                    fold = value_noise(table, px * 0.02 + noise[0], py * 0.008, pz * 0.02)
                    gain = (1 + cloth_shape[10] * wave) * (0.75 + 0.5 * fold)
                    if part == 1:
                        seam = abs(abs(dx) - opening)
                        gain = gain * (0.6 + 0.4 * min(seam / 4.0, 1.0))
                    for n in range(3):
                        c[n] = cloth[part, n] * gain
                    shine = 0.0
            else:
                # Strands of brows and beard: fine across, long along.
                strand = value_noise(table, px * 0.9 + noise[0], py * 0.45, pz * 0.45 + noise[1])
                soft = value_noise(
                    table, px * 0.12 + noise[1], py * 0.12 + noise[2], pz * 0.12 + noise[0]
                )
                if a[DETAIL + 3] > 0.02:
                    level = 0.5 + 0.1 * (soft - 0.5)
                    m = _ramp(level - 0.6 / lip_edge, level + 0.6 / lip_edge, a[DETAIL + 3])
                    for n in range(3):
                        c[n] += m * (lips[n] * (0.85 + 0.3 * soft) - c[n])
                hairy = a[DETAIL + 6]
                m = beard_shape[0] * _ramp(
                    beard_shape[1] - beard_shape[2],
                    beard_shape[1] + beard_shape[2],
                    hairy + 0.3 * (soft - 0.5) + 0.2 * (strand - 0.5),
                )
                m *= 0.7 + 0.3 * _ramp(0.25, 0.7, strand)
                if hairy > 0.03 and m > 0:
                    for n in range(3):
                        c[n] += m * (beard[n] * (0.7 + 0.6 * strand) - c[n])
                    shine *= 1 - 0.8 * m
                if a[COVER] > -20:
                    m = cover * _ramp(-5.0, 5.0, a[COVER] + 8 * (soft - 0.5) + 6 * (strand - 0.5))
                    for n in range(3):
                        c[n] += m * (hair[n] * (0.5 + strand) - c[n])
                    shine *= 1 - 0.7 * m
                # Brow: a band of some thickness about a bent line, thinner towards its tail.
                along = (a[DETAIL] - brow_shape[2]) / brow_shape[3]
                if -0.1 < along < 1.1 and abs(a[DETAIL + 7]) < 14:
                    middle = brow_shape[4] + brow_shape[5] * (along - 0.5)
                    middle += brow_shape[6] * np.sin(3.14159 * along)
                    thick = brow_shape[1] * min(1.15 - 0.75 * along, 0.55 + 4 * (along + 0.1))
                    inside = thick - abs(a[DETAIL + 7] - middle)
                    inside += 2.0 * (soft - 0.5) + 1.6 * (strand - 0.5)
                    m = brow_shape[0] * _ramp(-1.0, 1.2, inside) * _ramp(-0.08, 0.05, along)
                    m *= 1 - _ramp(0.92, 1.08, along)
                    for n in range(3):
                        c[n] += m * (brow[n] * (0.5 + strand) - c[n])
                    shine *= 1 - 0.7 * m
                m = max(lashes[0] * a[DETAIL + 1], lashes[1] * a[DETAIL + 2])
                if m > 0.05:
                    m = _ramp(0.15, 0.75, m)
                    for n in range(3):
                        c[n] *= 1 - 0.93 * m
                    shine *= 1 - m
            for n in range(3):
                image[row, column, n] = c[n] * a[LIGHT + n] + shine * a[SHINE + n]


@numba.njit(cache=True, fastmath=True, error_model="numpy")
def paint_sheet(
    image,
    depth,
    triangle_id,
    barycentric,
    sheet_depth,
    triangles,
    margin,
    strand,
    light,
    shine,
    table,
    colors,
    contrast,
    edge,
    seed,
):
    """Blend a sheet of hair or cloth over `image` (H, W, 3) where it is in front of `depth`.

    `edge` is (softness, raggedness) in mm; `depth` follows where the sheet is dense.
    """
    height, width = triangle_id.shape
    for row in range(height):
        for column in range(width):
            t = triangle_id[row, column]
            if t < 0 or sheet_depth[row, column] > depth[row, column]:
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wi = barycentric[row, column, 0]
            wj = barycentric[row, column, 1]
            wk = barycentric[row, column, 2]
            inside = wi * margin[i] + wj * margin[j] + wk * margin[k]
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
                image[row, column, n] += alpha * (c - image[row, column, n])
            if alpha > 0.5:
                depth[row, column] = sheet_depth[row, column]
