"""The z-buffer of `rasterizer` for whole batches on whatever device their tensors are, in PyTorch.

Same contract, same integer edge functions, same keys: triangle ids are equal to the bit. Every
(triangle, pixel of its bounding box) pair is a candidate; all candidates of a batch are tested side
by side, and the largest key of a pixel wins. The host waits for the device only to check triangles
and to learn how many triangles and candidates there are: a handful of times a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from p2f_lib.errors import P2FError
from p2f_lib.rasterizer import (
    BITS,
    FARTHEST_DEPTH,
    FARTHEST_PIXEL,
    NEAREST_DEPTH,
    ROUND_UP,
    SUBPIXELS,
)

CHUNK = 2**22  # triangles, and candidates, that are looked at together: some 100 bytes each
_EMPTY = torch.iinfo(torch.int64).min


@dataclass(frozen=True, eq=False)
class RasterBatch:
    """What `rasterizer.Raster` is for one picture.

    Attributes
    ----------
    triangle_id : (B, H, W) int32, index of the nearest triangle, -1 where there is none.
    barycentric : (B, H, W, 3) float32, weights of the triangle's vertices, 0 where there is none.
    depth : (B, H, W) float32, larger is farther, inf where there is no triangle.
    """

    triangle_id: Tensor
    barycentric: Tensor
    depth: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, H, W) bool, True where there is a triangle."""
        return self.triangle_id >= 0


@torch.no_grad()
def rasterize_batch(
    pixels: Tensor,
    depth: Tensor,
    triangles: Tensor,
    height: int,
    width: int,
    *,
    perspective: bool = False,
    cull_back: bool = True,
) -> RasterBatch:
    """Draw many projections of one mesh.

    Parameters
    ----------
    pixels : (B, V, 2) x, y of the projected vertices, in pixels.
    depth : (B, V) their depths, larger is farther.
    triangles : (F, 3) integer vertex indices.
    height, width, perspective, cull_back : as for `rasterizer.rasterize`.

    Returns
    -------
    RasterBatch on the device of `pixels`.

    Raises
    ------
    P2FError : tensors of the wrong shape, triangles that name vertices which do not exist.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 2 or depth.shape != pixels.shape[:2]:
        raise P2FError(
            "rasterize_batch needs pixels of shape (B, V, 2) and depth of shape (B, V), "
            f"got {tuple(pixels.shape)} and {tuple(depth.shape)}."
        )
    if not (1 <= height <= FARTHEST_PIXEL and 1 <= width <= FARTHEST_PIXEL):
        raise P2FError(
            f"A picture needs sides of 1 to {FARTHEST_PIXEL:.0f} pixels, "
            f"got height {height}, width {width}."
        )
    triangles = _checked_triangles(triangles, pixels.shape[1]).to(pixels.device)
    points, nearness = _prepare(pixels, depth, perspective)
    keys = torch.full((len(pixels), height, width), _EMPTY, device=pixels.device)
    pictures = max(1, CHUNK // max(len(triangles), 1))
    for first in range(0, len(pixels), pictures):
        part = slice(first, first + pictures)
        _draw(points[part], nearness[part], triangles, cull_back, keys[part])
    return _resolve(points, nearness, triangles, keys, perspective)


def interpolate_batch(raster: RasterBatch, triangles: Tensor, attributes: Tensor) -> Tensor:
    """Spread vertex attributes over the pictures.

    Parameters
    ----------
    raster : from `rasterize_batch` with the same triangles.
    triangles : (F, 3) integer vertex indices.
    attributes : (V, C) values per vertex for all pictures, or (B, V, C).

    Returns
    -------
    (B, H, W, C) float32, exactly 0 where there is no triangle.

    Raises
    ------
    P2FError : attributes of another shape, triangles that do not match the raster.
    """
    batch = len(raster.triangle_id)
    if attributes.ndim == 2:
        attributes = attributes.expand(batch, -1, -1)
    if attributes.ndim != 3 or len(attributes) != batch:
        raise P2FError(
            f"Attributes need the shape (V, C) or ({batch}, V, C), got {tuple(attributes.shape)}."
        )
    triangles = _checked_triangles(triangles, attributes.shape[1]).to(attributes.device)
    if raster.triangle_id.numel() and int(raster.triangle_id.max()) >= len(triangles):
        raise P2FError(
            f"The raster names triangle {int(raster.triangle_id.max())}, but only "
            f"{len(triangles)} triangles were given; pass those that it was drawn from."
        )
    picture, row, column = raster.valid.nonzero(as_tuple=True)
    weights = raster.barycentric[picture, row, column]
    corners = triangles[raster.triangle_id[picture, row, column].long()]
    parts = (weights[:, k, None] * attributes[picture, corners[:, k]].float() for k in range(3))
    seen = sum(parts, start=weights.new_zeros(()))
    planes = seen.new_zeros((*raster.triangle_id.shape, attributes.shape[2]))
    return planes.index_put((picture, row, column), seen)


def _checked_triangles(triangles: Tensor, n_vertices: int) -> Tensor:
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype.is_floating_point:
        raise P2FError(
            "Triangles must be integers of shape (F, 3), "
            f"got {triangles.dtype} of shape {tuple(triangles.shape)}."
        )
    triangles = triangles.long()
    if triangles.numel():
        low, high = (int(limit) for limit in torch.aminmax(triangles))
        if low < 0 or high >= n_vertices:
            raise P2FError(
                f"Triangles name vertices {low} to {high}, but the mesh has {n_vertices} vertices."
            )
    return triangles


def _prepare(pixels: Tensor, depth: Tensor, perspective: bool) -> tuple[Tensor, Tensor]:
    """(B, V, 2) int64 on the grid, off by `ROUND_UP`; (B, V) float32 nearness, NaN if not drawn."""
    pixels, depth = pixels.double(), depth.double()
    usable = (pixels.abs() < FARTHEST_PIXEL).all(-1) & (depth.abs() < FARTHEST_DEPTH)
    if perspective:
        usable &= depth > NEAREST_DEPTH
    points = torch.where(usable[..., None], torch.round(pixels * SUBPIXELS), 0).long() + ROUND_UP
    nearness = (1.0 / depth if perspective else -depth).float()
    return points, torch.where(usable, nearness, torch.nan)


def _draw(
    points: Tensor, nearness: Tensor, triangles: Tensor, cull_back: bool, keys: Tensor
) -> None:
    """Raise `keys` (b, H, W) to the largest one of each pixel."""
    height, width = keys.shape[1:]
    corners = points[:, triangles]  # (b, F, 3, 2)
    (low_x, low_y), (high_x, high_y) = (
        limit.unbind(-1) for limit in torch.aminmax(corners >> BITS, dim=2)
    )
    left, right = low_x.clamp(min=0), high_x.clamp(max=width)
    top, bottom = low_y.clamp(min=0), high_y.clamp(max=height)
    (bx, by), (cx, cy) = ((corners[:, :, k] - corners[:, :, 0]).unbind(-1) for k in (1, 2))
    area = bx * cy - by * cx
    near = nearness[:, triangles]
    may_cover = (area < 0) | ((area > 0) & (not cull_back))
    may_cover &= (left < right) & (top < bottom) & ~near.sum(-1).isnan()

    picture, t = may_cover.nonzero(as_tuple=True)
    chosen = lambda values: values[picture, t]  # noqa: E731
    left, top, area = chosen(left), chosen(top), chosen(area)
    columns = chosen(right) - left
    sign = area.sign()
    bu, bv = sign * chosen(cy), -sign * chosen(cx)
    cu, cv = -sign * chosen(by), sign * chosen(bx)
    area = area.abs()
    px, py = ((left << BITS) + ROUND_UP, (top << BITS) + ROUND_UP)
    px, py = (p - chosen(corners[:, :, 0, k]) for k, p in enumerate((px, py)))
    b_start, c_start = bu * px + bv * py, cu * px + cv * py
    a_area = area + _bias(-bu - cu, -bv - cv)
    b_bias, c_bias = _bias(bu, bv), _bias(cu, cv)
    near = chosen(near).double()
    a_near, scale = near[:, 0], 1.0 / area.double()
    b_near, c_near = (near[:, 1] - a_near) * scale, (near[:, 2] - a_near) * scale

    last = (columns * (chosen(bottom) - top)).cumsum(0)  # of each triangle, among all candidates
    total = int(last[-1]) if len(last) else 0
    for start in range(0, total, CHUNK):
        candidate = torch.arange(start, min(start + CHUNK, total), device=keys.device)
        owner = torch.searchsorted(last, candidate, right=True)
        ordinal = candidate - torch.where(owner > 0, last[owner - 1], 0)
        row = ordinal // columns[owner]
        column = ordinal - row * columns[owner]
        u, v = column << BITS, row << BITS
        b_edge = b_start[owner] + bu[owner] * u + bv[owner] * v
        c_edge = c_start[owner] + cu[owner] * u + cv[owner] * v
        a_edge = a_area[owner] - b_edge - c_edge
        inside = (a_edge | (b_edge + b_bias[owner]) | (c_edge + c_bias[owner])) >= 0
        key = _key(a_near[owner] + (b_edge * b_near[owner] + c_edge * c_near[owner]), t[owner])
        pixel = (picture[owner] * height + top[owner] + row) * width + left[owner] + column
        keys.view(-1).scatter_reduce_(0, pixel, torch.where(inside, key, _EMPTY), "amax")


def _bias(u: Tensor, v: Tensor) -> Tensor:
    """0 for top and left edges, -1 for others."""
    return (u - (v <= 0).long()) >> 63


def _key(nearness: Tensor, t: Tensor) -> Tensor:
    """As `rasterizer._key`: ordered by nearness, then the first triangle."""
    bits = (nearness + 0.0).float().view(torch.int32).long()
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return (bits << 32) | (0xFFFFFFFF - t)


def _resolve(
    points: Tensor, nearness: Tensor, triangles: Tensor, keys: Tensor, perspective: bool
) -> RasterBatch:
    picture, row, column = (keys != _EMPTY).nonzero(as_tuple=True)
    key = keys[picture, row, column]
    t = ~key & 0xFFFFFFFF
    bits = key >> 32
    near = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).int().view(torch.float32)
    corner = triangles[t]
    a, b, c = (points[picture, corner[:, k]] for k in range(3))
    (bx, by), (cx, cy) = (b - a).unbind(-1), (c - a).unbind(-1)
    px = (column << BITS) + ROUND_UP - a[:, 0]
    py = (row << BITS) + ROUND_UP - a[:, 1]
    scale = 1.0 / (bx * cy - by * cx).double()
    wb, wc = ((px * cy - py * cx) * scale).float(), ((bx * py - by * px) * scale).float()
    z = 1 / near if perspective else -near
    if perspective:
        wb, wc = (w * (nearness[picture, corner[:, k]] * z) for k, w in ((1, wb), (2, wc)))
    triangle_id = torch.full_like(keys, -1, dtype=torch.int32)
    barycentric = nearness.new_zeros((*keys.shape, 3))
    depth = torch.full_like(keys, torch.inf, dtype=torch.float32)
    where = (picture, row, column)
    triangle_id[where], depth[where] = t.int(), z
    barycentric[where] = torch.stack([1 - wb - wc, wb, wc], -1)
    return RasterBatch(triangle_id, barycentric, depth)
