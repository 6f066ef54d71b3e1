"""The z-buffer with its six planes against the plain float64 loop that one would write first."""

import numba
import numpy as np

from benchmarks import Row, median_ms
from p2f_lib.rasterizer import interpolate, rasterize
from tests.toy import egg

SIZE = 256
REPEATS = 31


def rows() -> list[Row]:
    """Milliseconds for triangle id, barycentrics and six planes, the mesh filling the frame."""
    return [
        _row("render_12k_256_ms", 11_843),
        _row("render_47k_256_ms", 46_588),
    ]


def _row(name: str, n_vertices: int) -> Row:
    vertices, triangles = egg(n_vertices)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    scale = (SIZE - 2) / (high - low)[1]
    centered = (vertices - (low + high) / 2)[:, :2]
    pixels = (centered * [scale, -scale] + (SIZE - 1) / 2).astype(np.float32)
    depth = (1000 - vertices[:, 2]).astype(np.float32)
    attributes = np.concatenate([vertices, vertices / 20], axis=1).astype(np.float32)

    def fast():
        raster = rasterize(pixels, depth, triangles, SIZE, SIZE, perspective=True)
        return raster, interpolate(raster, triangles, attributes)

    raster, _ = fast()
    return Row(
        name,
        median_ms(fast, REPEATS),
        "ms",
        median_ms(lambda: _plain(pixels, depth, triangles, attributes, SIZE), REPEATS),
        f"id + barycentrics + 6 planes, 1 core, {len(triangles)} triangles on "
        f"{raster.valid.mean():.0%} of {SIZE}x{SIZE}; reference: plain float64 loop in numba",
    )


@numba.njit(nogil=True)
def _plain(pixels, depth, triangles, attributes, size):
    triangle_id = np.full((size, size), -1)
    barycentric = np.zeros((size, size, 3))
    nearest = np.full((size, size), np.inf)
    planes = np.zeros((size, size, attributes.shape[1]))
    for t in range(len(triangles)):
        a, b, c = triangles[t]
        ax, ay = float(pixels[a, 0]), float(pixels[a, 1])
        bx, by = float(pixels[b, 0]), float(pixels[b, 1])
        cx, cy = float(pixels[c, 0]), float(pixels[c, 1])
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0:
            continue
        left, right = max(np.ceil(min(ax, bx, cx)), 0), min(max(ax, bx, cx), size - 1)
        top, bottom = max(np.ceil(min(ay, by, cy)), 0), min(max(ay, by, cy), size - 1)
        for row in range(int(top), int(bottom) + 1):
            for column in range(int(left), int(right) + 1):
                wb = ((column - ax) * (cy - ay) - (row - ay) * (cx - ax)) / area
                wc = ((bx - ax) * (row - ay) - (by - ay) * (column - ax)) / area
                wa = 1 - wb - wc
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                z = 1 / (wa / depth[a] + wb / depth[b] + wc / depth[c])
                if z < nearest[row, column]:
                    nearest[row, column] = z
                    triangle_id[row, column] = t
                    barycentric[row, column, 0] = wa * z / depth[a]
                    barycentric[row, column, 1] = wb * z / depth[b]
                    barycentric[row, column, 2] = wc * z / depth[c]
    for row in range(size):
        for column in range(size):
            if triangle_id[row, column] >= 0:
                for corner in range(3):
                    vertex = triangles[triangle_id[row, column], corner]
                    for channel in range(attributes.shape[1]):
                        planes[row, column, channel] += (
                            barycentric[row, column, corner] * attributes[vertex, channel]
                        )
    return triangle_id, planes
