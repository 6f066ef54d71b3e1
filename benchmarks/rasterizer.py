"""The z-buffer with its six planes against the plain float64 loop that one would write first."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch

from benchmarks import Row, median_ms
from benchmarks.blending import random_model
from p2f_lib.camera import AffineCamera
from p2f_lib.ground_truth import render_vertices
from p2f_lib.memory import keep_freed_memory
from p2f_lib.rasterizer import interpolate, rasterize
from p2f_lib.rasterizer_torch import interpolate_batch, rasterize_batch
from tests.toy import egg

SIZE = 256
REPEATS = 31
TARGETS, BATCH = 256, 64  # pictures, and how many are blended together


def rows() -> list[Row]:
    """Milliseconds for triangle id, barycentrics and six planes, the mesh filling the frame."""
    return [
        _row("render_12k_256_ms", 11_843),
        _row("render_47k_256_ms", 46_588),
        _targets(),
        *([_gpu()] if torch.cuda.is_available() else []),
    ]


def _placed(n_vertices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, depths, triangles and six attributes of an egg that fills the frame."""
    vertices, triangles = egg(n_vertices)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    scale = (SIZE - 2) / (high - low)[1]
    centered = (vertices - (low + high) / 2)[:, :2]
    pixels = (centered * [scale, -scale] + (SIZE - 1) / 2).astype(np.float32)
    depth = (1000 - vertices[:, 2]).astype(np.float32)
    attributes = np.concatenate([vertices, vertices / 20], axis=1).astype(np.float32)
    return pixels, depth, triangles, attributes


def _targets() -> Row:
    """Coefficients to PNCC and offsets, as for the pictures of 300W-LP."""
    n_shape, n_expression = 199, 29
    model = random_model(53_215, n_shape, n_expression)
    rng = np.random.default_rng(1)
    shape = rng.normal(0, 0.2, (TARGETS, n_shape))
    expression = rng.normal(0, 0.2, (TARGETS, n_expression))
    scale = (SIZE - 2) / np.ptp(model.mean[:, 1])
    middle = (SIZE - 1) / 2
    camera = AffineCamera([[scale, 0, 0, middle], [0, -scale, 0, middle]])

    def render(first: int) -> None:
        some = slice(first, first + BATCH)
        for vertices in model.vertices(shape[some], expression[some]):
            render_vertices(model, vertices, camera, SIZE, SIZE)

    keep_freed_memory()  # as `w300lp.render_targets` does
    with ThreadPoolExecutor(2) as pool:
        batches = range(0, TARGETS, BATCH)
        seconds = median_ms(lambda: list(pool.map(render, batches)), 3) / 1000
    rate = TARGETS / seconds
    return Row(
        "target_53k_256_images_per_s",
        rate,
        "images/s",
        note=f"{n_shape} + {n_expression} coefficients to PNCC and offsets of {SIZE}x{SIZE}, "
        f"{model.n_vertices} vertices, 2 threads, {TARGETS} pictures; at this rate 126 000 "
        f"pictures take {126_000 / rate / 60:.1f} minutes",
    )


def _gpu() -> Row:
    """A batch on the graphics card, all of whose inputs are there already."""
    pixels, depth, triangles, attributes = (
        torch.as_tensor(array, device="cuda") for array in _placed(46_588)
    )
    pixels, depth = pixels.repeat(BATCH, 1, 1), depth.repeat(BATCH, 1)

    def render() -> None:
        raster = rasterize_batch(pixels, depth, triangles, SIZE, SIZE, perspective=True)
        interpolate_batch(raster, triangles, attributes)
        torch.cuda.synchronize()

    return Row(
        "render_gpu_images_per_s",
        1000 * BATCH / median_ms(render),
        "images/s",
        note=f"id + barycentrics + 6 planes, batches of {BATCH}, {len(triangles)} triangles, "
        f"{torch.cuda.get_device_name()}",
    )


def _row(name: str, n_vertices: int) -> Row:
    pixels, depth, triangles, attributes = _placed(n_vertices)

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
