"""A z-buffer on the CPU: which triangle covers which pixel, and where within the triangle.

Conventions: pixel centres at integers, x right, y down. Vertices are rounded to multiples of
2**-16 pixel and edge functions are exact integers, so neighbours that share an edge neither leave a
gap between them nor cover a pixel twice. A pixel centre exactly on an edge belongs to the triangle
for which it is a top or a left edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from p2f_lib.errors import P2FError

BITS = 16  # fractional bits of a coordinate
ROUND_UP = 2**BITS - 1
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
    triangles = _checked_triangles(triangles, len(pixels))
    triangle_id = np.empty((height, width), np.int32)
    barycentric = np.empty((height, width, 3), np.float32)
    z = np.empty((height, width), np.float32)
    corners = np.empty((len(pixels), 4), np.int32)
    nearness = np.empty(len(pixels), np.float32)
    chosen = np.empty(len(triangles) + 1, np.uint32)
    _prepare(pixels, depth, perspective, height, width, corners, nearness)
    count = _select(corners, triangles, cull_back, chosen)
    chosen = chosen[:count]
    _draw(corners, nearness, triangles, chosen, perspective, triangle_id, barycentric, z)
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
    _interpolate(raster.triangle_id, raster.barycentric, triangles, attributes, planes)
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
    if triangles.size:
        low, high = triangles.min(), triangles.max()
        if low < 0 or high >= n_vertices:
            raise P2FError(
                f"Triangles name vertices {low} to {high}, but the mesh has {n_vertices} vertices."
            )
    return np.ascontiguousarray(triangles, np.int32).view(np.uint32)


# The inner loops work on integers with 16 fractional bits: no rounding anywhere in edge functions.


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _prepare(pixels, depth, perspective, height, width, corners, nearness):
    """Vertices as (x, y, column, row) and nearness, which is linear on the picture.

    `column` and `row` are the first pixel centre at or beyond the vertex, clipped to the picture.
    Vertices that cannot be drawn get nearness NaN, which loses every depth test.
    """
    for v in range(len(pixels)):
        x, y, z = pixels[v, 0], pixels[v, 1], depth[v]
        usable = abs(x) < FARTHEST_PIXEL and abs(y) < FARTHEST_PIXEL and abs(z) < FARTHEST_DEPTH
        if usable and (z > NEAREST_DEPTH or not perspective):
            x, y = np.rint(x * SUBPIXELS), np.rint(y * SUBPIXELS)
            fx, fy = np.int32(x), np.int32(y)
            corners[v, 0], corners[v, 1] = fx, fy
            corners[v, 2] = min(max((fx + ROUND_UP) >> BITS, 0), width)
            corners[v, 3] = min(max((fy + ROUND_UP) >> BITS, 0), height)
            nearness[v] = 1.0 / z if perspective else -z
        else:
            corners[v] = 0
            nearness[v] = np.nan


@numba.njit(cache=True, nogil=True)
def _select(corners, triangles, cull_back, chosen):
    """Indices of the triangles that face the camera and may contain a pixel centre; their number.

    Half of the triangles of a dense mesh fall between the pixel centres. Writing every index and
    advancing only for the good ones spares the processor's branch prediction a coin toss each.
    """
    count = 0
    for t in range(len(triangles)):
        a, b, c = corners[triangles[t, 0]], corners[triangles[t, 1]], corners[triangles[t, 2]]
        ax, ay = np.int64(a[0]), np.int64(a[1])
        # Twice the signed area; a triangle that faces the camera turns from y (down) to x: < 0.
        area = (b[0] - ax) * (c[1] - ay) - (b[1] - ay) * (c[0] - ax)
        facing = (area < 0) | ((area > 0) & (not cull_back))
        columns = (a[2] ^ b[2]) | (a[2] ^ c[2])
        rows = (a[3] ^ b[3]) | (a[3] ^ c[3])
        chosen[count] = t
        count += facing & (columns != 0) & (rows != 0)
    return count


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _draw(corners, nearness, triangles, chosen, perspective, triangle_id, barycentric, depth):
    triangle_id[:] = -1
    barycentric[:] = 0
    depth[:] = 0 if perspective else -np.inf  # holds the nearness until all is drawn
    pixel_depth, pixel_id = depth.ravel(), triangle_id.ravel()
    pixel_barycentric = barycentric.reshape(-1, 3)
    for t in chosen:
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        a, b, c = corners[i], corners[j], corners[k]
        ax, ay = np.int64(a[0]), np.int64(a[1])
        bx, by = np.int64(b[0]), np.int64(b[1])
        cx, cy = np.int64(c[0]), np.int64(c[1])
        # A pixel on the right or the lowest end of a triangle is never a top or left one: the
        # ranges are half open.
        left, right = min(a[2], b[2], c[2]), max(a[2], b[2], c[2])
        top, bottom = min(a[3], b[3], c[3]), max(a[3], b[3], c[3])
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        sign = np.int64(-1) if area < 0 else np.int64(1)
        # Edge functions of a, b, c: zero on the edge opposite of the vertex, |area| at the vertex.
        # Their gradients, with the inside where they are positive:
        bu, bv = sign * (cy - ay), sign * (ax - cx)
        cu, cv = sign * (ay - by), sign * (bx - ax)
        au, av = -bu - cu, -bv - cv
        px, py = (np.int64(left) << BITS) - ax, (np.int64(top) << BITS) - ay
        area = abs(area)
        b_edge = bu * px + bv * py
        c_edge = cu * px + cv * py
        # Top-left rule: a pixel on another edge is outside, zero becomes -1.
        a_bias = np.int64(0) if au > 0 or (au == 0 and av > 0) else np.int64(-1)
        b_bias = np.int64(0) if bu > 0 or (bu == 0 and bv > 0) else np.int64(-1)
        c_bias = np.int64(0) if cu > 0 or (cu == 0 and cv > 0) else np.int64(-1)
        a_near, b_near, c_near = nearness[i], nearness[j], nearness[k]
        scale = 1.0 / area
        # One loop over the bounding box: most boxes hold one or two pixels, and a second loop would
        # cost more in branch prediction than its body.
        width = np.int64(right) - left
        pixel = np.int64(top) * depth.shape[1] + left
        pixel_jump = depth.shape[1] - width + 1
        bu, cu = bu << BITS, cu << BITS
        b_jump, c_jump = (bv << BITS) - bu * (width - 1), (cv << BITS) - cu * (width - 1)
        column = np.int64(0)
        for _ in range((bottom - top) * width):
            a_edge = area - b_edge - c_edge
            if ((a_edge + a_bias) | (b_edge + b_bias) | (c_edge + c_bias)) >= 0:
                wb, wc = np.float32(b_edge * scale), np.float32(c_edge * scale)
                near = a_near + wb * (b_near - a_near) + wc * (c_near - a_near)
                p = np.uint64(pixel)
                if near > pixel_depth[p]:
                    pixel_depth[p] = near
                    pixel_id[p] = t
                    if perspective:
                        wb, wc = wb * b_near / near, wc * c_near / near
                    pixel_barycentric[p, 0] = np.float32(1) - wb - wc
                    pixel_barycentric[p, 1] = wb
                    pixel_barycentric[p, 2] = wc
            column += 1
            wrap = column == width
            column = np.int64(0) if wrap else column
            pixel += pixel_jump if wrap else np.int64(1)
            b_edge += b_jump if wrap else bu
            c_edge += c_jump if wrap else cu
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            near = depth[row, column]
            depth[row, column] = np.float32(1) / near if perspective else -near


@numba.njit(cache=True, nogil=True, fastmath=True)
def _interpolate(triangle_id, barycentric, triangles, attributes, planes):
    height, width, channels = planes.shape
    for row in range(height):
        for column in range(width):
            t = triangle_id[row, column]
            if t < 0:
                for c in range(channels):
                    planes[row, column, c] = 0
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wa, wb, wc = (
                barycentric[row, column, 0],
                barycentric[row, column, 1],
                barycentric[row, column, 2],
            )
            for c in range(channels):
                planes[row, column, c] = (
                    wa * attributes[i, c] + wb * attributes[j, c] + wc * attributes[k, c]
                )
