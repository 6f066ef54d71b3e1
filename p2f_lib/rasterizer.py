"""A z-buffer on the CPU: which triangle covers which pixel, and where within the triangle.

Conventions: pixel centres at integers, x right, y down. Vertices are rounded to multiples of
2**-16 pixel and edge functions are exact integers, so neighbours that share an edge neither leave a
gap between them nor cover a pixel twice. A pixel centre exactly on an edge belongs to the triangle
for which it is a top or a left edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from p2f_lib.errors import P2FError

BITS = 16  # fractional bits of a coordinate
ROUND_UP = 2**BITS - 1
BATCH = 256  # triangles
WIDE = 8  # pixels of a row of a bounding box
SUBPIXELS = 2.0**BITS  # vertices lie on a grid of this many steps a pixel
FARTHEST_PIXEL = 16000.0  # edge functions up to here fit into 64 bits
FARTHEST_DEPTH = 1e30  # well within float32
NEAREST_DEPTH = 1e-6  # perspective: vertices nearer than this are behind the camera


@dataclass(frozen=True, eq=False)
class Raster:
    """What a z-buffer keeps per pixel.

    Attributes
    ----------
    triangle_id : (H, W) int32, index of the nearest triangle, -1 where there is none.
    barycentric : (H, W, 3) float32, weights of the triangle's vertices (perspective-correct where
        that was asked for), 0 where there is no triangle.
    depth : (H, W) float32, larger is farther, inf where there is no triangle.
    """

    triangle_id: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """(H, W) bool, True where there is a triangle."""
        return self.triangle_id >= 0


def rasterize(
    pixels: np.ndarray,
    depth: np.ndarray,
    triangles: np.ndarray,
    height: int,
    width: int,
    *,
    perspective: bool = False,
    cull_back: bool = True,
) -> Raster:
    """Draw a projected mesh into a z-buffer.

    Parameters
    ----------
    pixels : (V, 2) x, y of the projected vertices, in pixels.
    depth : (V,) their depths, larger is farther; with `perspective`, distances along the optical
        axis, and triangles with a vertex at or behind the camera are not drawn.
    triangles : (F, 3) integer vertex indices, counter-clockwise seen from outside (y up), hence
        clockwise on the y-down picture's numbers when they face the camera.
    height, width : size of the picture.
    perspective : interpolate in space instead of on the picture.
    cull_back : leave out triangles that face away from the camera.

    Returns
    -------
    Raster. Triangles with NaN or infinite vertices, without area, outside the picture, or with a
    vertex further than 16000 pixels from its corner leave no trace; among triangles of equal depth
    the first wins.

    Raises
    ------
    P2FError : arrays of the wrong shape, triangles that name vertices which do not exist.
    """
    pixels, depth = _floats(pixels), _floats(depth)
    if pixels.ndim != 2 or pixels.shape[1] != 2 or depth.shape != pixels.shape[:1]:
        raise P2FError(
            "rasterize needs pixels of shape (V, 2) and depth of shape (V,), "
            f"got {pixels.shape} and {depth.shape}."
        )
    if not (1 <= height <= FARTHEST_PIXEL and 1 <= width <= FARTHEST_PIXEL):
        raise P2FError(
            f"A picture needs sides of 1 to {FARTHEST_PIXEL:.0f} pixels, "
            f"got height {height}, width {width}."
        )
    triangles = _checked_triangles(triangles, len(pixels)).ravel()
    corners = np.empty(len(pixels), _CORNER)
    keys = np.empty((height, width), np.int64)
    triangle_id = np.empty((height, width), np.int32)
    barycentric = np.empty((height, width, 3), np.float32)
    z = np.empty((height, width), np.float32)
    _prepare(pixels, depth, perspective, corners)
    _draw(corners, triangles, cull_back, keys)
    _resolve(corners, triangles, keys, perspective, triangle_id, barycentric, z)
    return Raster(triangle_id, barycentric, z)


def interpolate(raster: Raster, triangles: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Spread vertex attributes over the picture.

    Parameters
    ----------
    raster : from `rasterize` with the same triangles.
    triangles : (F, 3) integer vertex indices.
    attributes : (V, C) values per vertex.

    Returns
    -------
    (H, W, C) float32, exactly 0 where there is no triangle.

    Raises
    ------
    P2FError : attributes that are not (V, C), triangles that do not match the raster.
    """
    attributes = np.ascontiguousarray(attributes, np.float32)
    if attributes.ndim != 2:
        raise P2FError(f"interpolate needs attributes of shape (V, C), got {attributes.shape}.")
    triangles = _checked_triangles(triangles, len(attributes))
    if raster.triangle_id.max() >= len(triangles):
        raise P2FError(
            f"The raster names triangle {raster.triangle_id.max()}, but only {len(triangles)} "
            "triangles were given; pass those that it was drawn from."
        )
    planes = np.empty((*raster.triangle_id.shape, attributes.shape[1]), np.float32)
    _interpolate(
        np.ravel(raster.triangle_id),
        np.ravel(raster.barycentric),
        triangles.ravel(),
        attributes.ravel(),
        attributes.shape[1],
        planes.ravel(),
    )
    return planes


def _floats(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    return np.ascontiguousarray(array, np.float32 if array.dtype == np.float32 else np.float64)


def _checked_triangles(triangles: np.ndarray, n_vertices: int) -> np.ndarray:
    """(F, 3) uint32: the inner loops need not think about negative indices."""
    triangles = np.asarray(triangles)
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype.kind not in "iu":
        raise P2FError(
            "Triangles must be integers of shape (F, 3), "
            f"got {triangles.dtype} of shape {triangles.shape}."
        )
    # One pass over the array: as unsigned numbers, negative ones are the largest of all.
    unsigned = np.ascontiguousarray(triangles).view(f"u{triangles.itemsize}")
    if unsigned.size and unsigned.max() >= n_vertices:
        raise P2FError(
            f"Triangles name vertices {triangles.min()} to {triangles.max()}, but the mesh has "
            f"{n_vertices} vertices."
        )
    return unsigned.astype(np.uint32, copy=False)


# The inner loops work on integers with 16 fractional bits: no rounding anywhere in edge functions.
# A z-buffer holds one integer a pixel, nearness before triangle, and keeps the largest: no branch
# that the processor could only guess. Weights are computed once a pixel, for the triangle that won.

_CORNER = np.dtype([("x", np.int32), ("y", np.int32), ("nearness", np.float32)])
_EMPTY = np.iinfo(np.int64).min


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _prepare(pixels, depth, perspective, corners):
    """Vertices with integer coordinates and nearness, which is linear on the picture.

    A coordinate is off by `ROUND_UP`, so that its upper half counts the pixel centres before it.
    Vertices that cannot be drawn get nearness NaN.
    """
    for v in range(len(pixels)):
        x, y, z = pixels[v, 0], pixels[v, 1], depth[v]
        usable = abs(x) < FARTHEST_PIXEL and abs(y) < FARTHEST_PIXEL and abs(z) < FARTHEST_DEPTH
        if usable and (z > NEAREST_DEPTH or not perspective):
            corners[v].x = np.int32(np.rint(x * SUBPIXELS)) + ROUND_UP
            corners[v].y = np.int32(np.rint(y * SUBPIXELS)) + ROUND_UP
            corners[v].nearness = 1.0 / z if perspective else -z
        else:
            corners[v].x = corners[v].y = 0
            corners[v].nearness = np.nan


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _draw(corners, triangles, cull_back, keys):
    """The largest key (see `_key`) of each pixel.

    In batches that fit into the nearest cache: first choose triangles, then draw them. Half of the
    triangles of a dense mesh fall between the pixel centres. Writing every index and advancing only
    for the good ones spares the processor's branch prediction a coin toss each.
    """
    keys[:] = _EMPTY
    chosen = np.empty(BATCH, np.uint32)
    count = len(triangles) // 3
    for first in range(0, count, BATCH):
        n_chosen = 0
        for t in range(first, min(first + BATCH, count)):
            chosen[n_chosen] = t
            n_chosen += _may_cover(t, corners, triangles, cull_back)
        _draw_chosen(corners, triangles, chosen[:n_chosen], keys)


@numba.njit(cache=True, nogil=True)
def _may_cover(t, corners, triangles, cull_back):
    """Whether a triangle faces the camera and a pixel centre lies in its bounding box."""
    a, b, c = _corners_of(t, corners, triangles)
    ax, ay, bx, by, cx, cy = a.x, a.y, b.x, b.y, c.x, c.y
    # Twice the signed area; a triangle that faces the camera turns from y (down) to x: < 0.
    area = (np.int64(bx) - ax) * (np.int64(cy) - ay) - (np.int64(by) - ay) * (np.int64(cx) - ax)
    facing = (area < 0) | ((area > 0) & (not cull_back))
    columns, rows = np.uint32((ax ^ bx) | (ax ^ cx)), np.uint32((ay ^ by) | (ay ^ cy))
    return facing & (columns > ROUND_UP) & (rows > ROUND_UP)  # upper halves differ


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _draw_chosen(corners, triangles, chosen, keys):
    left: Any  # mypy knows no common type of NumPy's and Python's integers
    top: Any
    column: Any
    height, picture_width = keys.shape
    pixel_keys = keys.ravel()
    for t in chosen:
        a, b, c = _corners_of(t, corners, triangles)
        ax, ay = np.int64(a.x), np.int64(a.y)
        bx, by = np.int64(b.x), np.int64(b.y)
        cx, cy = np.int64(c.x), np.int64(c.y)
        near = np.float64(a.nearness)
        b_near, c_near = b.nearness - near, c.nearness - near
        if np.isnan(b_near + c_near):
            continue
        # A pixel on the right or the lowest end of a triangle is never a top or left one: the
        # ranges are half open.
        left, right = max(min(ax, bx, cx) >> BITS, 0), min(max(ax, bx, cx) >> BITS, picture_width)
        top, bottom = max(min(ay, by, cy) >> BITS, 0), min(max(ay, by, cy) >> BITS, height)
        # Edge functions of a, b, c: zero on the edge opposite of the vertex, |area| at the vertex.
        # Their gradients, with the inside where they are positive:
        bu, bv = cy - ay, ax - cx
        cu, cv = ay - by, bx - ax
        area = cv * bu - cu * bv
        if area < 0:
            area, bu, bv, cu, cv = -area, -bu, -bv, -cu, -cv
        px, py = (left << BITS) + ROUND_UP - ax, (top << BITS) + ROUND_UP - ay
        b_edge = bu * px + bv * py
        c_edge = cu * px + cv * py
        # Top-left rule: a pixel on another edge is outside, zero becomes -1. An edge is top or left
        # where u > 0, or u = 0 and v > 0; shifting by 63 bits leaves nothing but the sign.
        a_area = area + ((-bu - cu - (bv + cv >= 0)) >> 63)
        b_bias = (bu - (bv <= 0)) >> 63
        c_bias = (cu - (cv <= 0)) >> 63
        scale = 1.0 / area
        b_near, c_near = b_near * scale, c_near * scale
        width = right - left
        pixel = top * picture_width + left
        if width >= WIDE:  # several pixels at a time, in vector instructions
            bu, cu, bv, cv = bu << BITS, cu << BITS, bv << BITS, cv << BITS
            for row in range(bottom - top):
                b_row, c_row = b_edge + row * bv, c_edge + row * cv
                keys_of_row = pixel_keys[pixel + row * picture_width :][:width]
                for column in range(width):
                    b_edge_here, c_edge_here = b_row + column * bu, c_row + column * cu
                    inside = (
                        (a_area - b_edge_here - c_edge_here)
                        | (b_edge_here + b_bias)
                        | (c_edge_here + c_bias)
                    ) >= 0
                    key = _key(near + (b_edge_here * b_near + c_edge_here * c_near), t)
                    key = key if inside else np.int64(_EMPTY)
                    keys_of_row[column] = max(keys_of_row[column], key)
            continue
        # One loop over the bounding box: most boxes hold one or two pixels, and a second loop would
        # cost more in branch prediction than its body.
        pixel_jump = picture_width - width + 1
        bu, cu = bu << BITS, cu << BITS
        b_jump, c_jump = (bv << BITS) - bu * (width - 1), (cv << BITS) - cu * (width - 1)
        column = np.int64(0)
        for _ in range(max(bottom - top, 0) * max(width, 0)):
            inside = ((a_area - b_edge - c_edge) | (b_edge + b_bias) | (c_edge + c_bias)) >= 0
            key = _key(near + (b_edge * b_near + c_edge * c_near), t)
            key = key if inside else np.int64(_EMPTY)
            p = np.uint64(pixel)
            pixel_keys[p] = max(pixel_keys[p], key)
            column += 1
            wrap = column == width
            column = np.int64(0) if wrap else column
            pixel += pixel_jump if wrap else np.int64(1)
            b_edge += b_jump if wrap else bu
            c_edge += c_jump if wrap else cu


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resolve(corners, triangles, keys, perspective, triangle_id, barycentric, depth):
    """Triangle, weights and depth of each pixel from its key."""
    for row in range(keys.shape[0]):
        for column in range(keys.shape[1]):
            weights = barycentric[row, column]
            key = keys[row, column]
            if key == _EMPTY:
                triangle_id[row, column] = -1
                depth[row, column] = np.inf
                weights[0] = weights[1] = weights[2] = 0
                continue
            t = np.uint32(~key)
            near = _nearness(key)
            a, b, c = _corners_of(t, corners, triangles)
            ax, ay = np.int64(a.x), np.int64(a.y)
            bx, by, cx, cy = b.x - ax, b.y - ay, c.x - ax, c.y - ay
            px = (np.int64(column) << BITS) + ROUND_UP - ax
            py = (np.int64(row) << BITS) + ROUND_UP - ay
            scale = 1.0 / (bx * cy - by * cx)
            wb = np.float32((px * cy - py * cx) * scale)
            wc = np.float32((bx * py - by * px) * scale)
            if perspective:
                z = np.float32(1) / near
                wb, wc = wb * (b.nearness * z), wc * (c.nearness * z)
            else:
                z = -near
            triangle_id[row, column] = t
            depth[row, column] = z
            weights[0], weights[1], weights[2] = np.float32(1) - wb - wc, wb, wc


@numba.njit(inline="always")
def _corners_of(t, corners, triangles):
    """The vertices of a triangle; all arrays are flat, which spares multiplications by strides."""
    t = np.uint64(t)
    return (
        corners[triangles[np.uint64(3) * t]],
        corners[triangles[np.uint64(3) * t + np.uint64(1)]],
        corners[triangles[np.uint64(3) * t + np.uint64(2)]],
    )


@numba.njit(inline="always")
def _key(nearness, t):
    """int64 that grows with float32(nearness), then with smaller t: the first of equals wins.

    Floats of the same sign are ordered like the integers of their bits; of negative ones, all bits
    but the sign are flipped. Adding 0 makes -0 the same as 0.
    """
    bits = np.int64(np.float32(nearness + 0.0).view(np.int32))
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return (bits << 32) | (0xFFFFFFFF - np.int64(t))


@numba.njit(inline="always")
def _nearness(key):
    bits = key >> 32
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


@numba.njit(cache=True, nogil=True)
def _interpolate(triangle_id, barycentric, triangles, attributes, channels, planes):
    # The usual numbers of channels as constants, for which the compiler writes vector instructions.
    if channels == 3:
        _spread(triangle_id, barycentric, triangles, attributes, 3, planes)
    elif channels == 6:
        _spread(triangle_id, barycentric, triangles, attributes, 6, planes)
    else:
        _spread(triangle_id, barycentric, triangles, attributes, channels, planes)


@numba.njit(inline="always")
def _spread(triangle_id, barycentric, triangles, attributes, channels, planes):
    for pixel in range(len(triangle_id)):
        first = pixel * channels
        if triangle_id[pixel] < 0:
            for channel in range(channels):
                planes[first + channel] = 0
            continue
        corner = np.uint64(3) * np.uint64(triangle_id[pixel])
        i = np.int64(triangles[corner]) * channels
        j = np.int64(triangles[corner + np.uint64(1)]) * channels
        k = np.int64(triangles[corner + np.uint64(2)]) * channels
        wa, wb, wc = barycentric[3 * pixel], barycentric[3 * pixel + 1], barycentric[3 * pixel + 2]
        for channel in range(channels):
            planes[first + channel] = (
                wa * attributes[i + channel]
                + wb * attributes[j + channel]
                + wc * attributes[k + channel]
            )
