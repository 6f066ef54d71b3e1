"""The fit of `fitting.fit_face` for whole batches on whatever device their tensors are, in PyTorch.

Same steps by the same rules, all faces side by side: mask, robust affine camera, vertices,
coefficients, perspective camera. Only the random subset of the pixels is another one. A face that
can't be fitted is marked and never disturbs the others; the host waits for the device a few times a
batch, to learn how many pixels there are to look at and whether the cameras have settled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from p2f_lib.camera import (
    INDEPENDENT_PIXELS,
    MIN_CORRESPONDENCES,
    TUKEY,
    TYPICAL_DISTANCE,
    AffineCamera,
    PerspectiveCamera,
)
from p2f_lib.errors import P2FError
from p2f_lib.fitting import BACKGROUND, GATE, PERSPECTIVE_MISFIT, WEIGHT, Fitter
from p2f_lib.morphable_model import MorphableModel

SUBSET = 1000  # correspondences, and vertices, that decide cameras and coefficients
DRAWS = 64  # four-point cameras to start from
JUDGES = 400  # correspondences that choose among them, at most
STEPS = 60  # of Levenberg-Marquardt, taken or not


@dataclass(frozen=True, eq=False)
class BatchFit:
    """What `fitting.FaceFit` is for one face; tensors on the device of the planes.

    Attributes
    ----------
    found : (B,) bool; where it is False, all else of that face is meaningless
    affine : (B, 2, 4) float64, cameras of Eq. 1
    focal : (B,) float64, pixels
    principal_point : (B, 2) float64, pixels
    rotation : (B, 3, 3) float64, model to camera space
    translation : (B, 3) float64, mm
    shape, expression : (B, Ks), (B, Ke) float64
    vertices : (B, V, 3) float32, model space, mm
    pixels : (B, V, 2) float64, where the picture shows a vertex; NaN where it doesn't
    """

    found: Tensor
    affine: Tensor
    focal: Tensor
    principal_point: Tensor
    rotation: Tensor
    translation: Tensor
    shape: Tensor
    expression: Tensor
    vertices: Tensor
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.found)

    def landmarks(self, vertices: Tensor) -> Tensor:
        """(L,) vertex indices to (B, L, 2) pixels, float64."""
        points = self.vertices[:, vertices].double()
        seen = points @ self.rotation.mT + self.translation[:, None]
        pixels = self.focal[:, None, None] * seen[..., :2] / seen[..., 2:]
        return pixels + self.principal_point[:, None]

    def camera(self, face: int) -> PerspectiveCamera:
        """The perspective camera of one face."""
        fields = (self.principal_point, self.rotation, self.translation)
        return PerspectiveCamera(
            self.focal[face].item(), *(field[face].cpu().numpy() for field in fields)
        )

    def affine_camera(self, face: int) -> AffineCamera:
        """The affine camera of one face."""
        return AffineCamera(self.affine[face].cpu().numpy())


class BatchFitter:
    """A face model prepared for fitting many faces at once.

    Parameters
    ----------
    model : the face model
    device : where the planes will be
    gate, weight : as of `fitting.Fitter` and `fitting.fit_face`
    """

    def __init__(
        self,
        model: MorphableModel,
        device: str | torch.device = "cpu",
        gate: float = GATE,
        weight: float = WEIGHT,
    ) -> None:
        fitter = Fitter(model, gate)
        self.model, self.gate, self.weight = model, fitter.gate, weight

        def moved(array: object) -> Tensor:
            return torch.as_tensor(array, device=device)

        self._mean, self._rows = moved(fitter.mean), moved(fitter.rows)
        self._prior = weight * moved(fitter.precision)
        grid = fitter.grid
        self._origin, self._voxel = moved(grid.origin), grid.voxel
        self._bricks, self._table = moved(grid.bricks), moved(grid.table).long()
        self._neighbours = moved(grid.neighbours.astype("int64"))

    @torch.no_grad()
    def __call__(self, pncc: Tensor, offsets: Tensor, principal_point: Tensor) -> BatchFit:
        """Planes to cameras, coefficients and posed meshes (sections 3.3 and 3.4).

        Parameters
        ----------
        pncc, offsets : (B, H, W, 3) float32, mm, on this fitter's device
        principal_point : (B, 2) or (2,) pixels of these planes; usually the centre of the photo

        Raises
        ------
        P2FError
            Planes that are not of one shape, or on another device.
        """
        if pncc.ndim != 4 or pncc.shape[3] != 3 or offsets.shape != pncc.shape:
            raise P2FError(
                "The planes of a batch are pncc and offsets (B, H, W, 3), got "
                f"{tuple(pncc.shape)} and {tuple(offsets.shape)}."
            )
        if pncc.device != self._mean.device or offsets.device != self._mean.device:
            raise P2FError(
                f"The planes are on {pncc.device} and {offsets.device}, the fitter on "
                f"{self._mean.device}."
            )
        pncc, offsets = pncc.float(), offsets.float()
        center = principal_point.to(pncc.device, torch.float64).expand(len(pncc), 2)
        valid = valid_masks(pncc) & offsets.isfinite().all(-1)
        affine, found = _fit_affine(*_correspondences(pncc, offsets, valid))
        pixels, carried, seen = self._localize(pncc, offsets, valid)

        # As in `fit_face`: what the robust camera contradicts says nothing.
        points = self._mean.double() + carried
        miss = (_project_affine(affine, points) - pixels).norm(dim=-1)
        scale = _decompose(affine[:, :, :3])[0]
        limit = torch.maximum(PERSPECTIVE_MISFIT * scale, 6 * _deviation(miss, seen))
        seen &= miss <= limit[:, None]
        found &= seen.sum(1) >= MIN_CORRESPONDENCES

        posed, there = _evenly(seen, SUBSET)
        coefficients = self._coefficients(posed, there, _picked(carried, posed))
        change = self._rows.flatten(0, 1) @ coefficients.float().T  # (3 V, B)
        vertices = self._mean + change.T.reshape(len(pncc), -1, 3)
        points = _picked(vertices, posed).double()
        found &= _spans_space(points, there)
        camera = _fit_perspective(points, _picked(pixels, posed), there, affine, center)
        shape, expression = coefficients.split([self.model.n_shape, self.model.n_expression], 1)
        pixels = pixels.masked_fill(~seen[..., None], math.nan)
        return BatchFit(found, affine, *camera, shape, expression, vertices, pixels)

    def _localize(
        self, pncc: Tensor, offsets: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`Fitter.localize`: pixels (B, V, 2), offsets (B, V, 3), found (B, V)."""
        n_vertices, (n_faces, height, width) = len(self._mean), valid.shape
        flat = valid.flatten().nonzero()[:, 0]
        points = pncc.flatten(0, 2)[flat]
        vertex, inside = self._voxels(points)
        flat, points, vertex = flat[inside], points[inside], vertex[inside]
        square = (points - self._mean[vertex]).square().sum(1)
        walking = torch.arange(len(vertex), device=vertex.device)
        while len(walking):  # down hill from neighbour to neighbour
            near = self._neighbours[vertex[walking]]
            gaps = (points[walking, None] - self._mean[near]).square().sum(2)
            other, which = gaps.min(1)
            nearer = other < square[walking]
            walking, near, which = walking[nearer], near[nearer], which[nearer]
            vertex[walking] = near.gather(1, which[:, None])[:, 0]
            square[walking] = other[nearer]

        key = flat // (height * width) * n_vertices + vertex
        least = square.new_full((n_faces * n_vertices,), self.gate**2)
        least = least.scatter_reduce(0, key, square, "amin")
        wins = (square == least[key]) & (square < self.gate**2)
        best = flat.new_full(least.shape, len(pncc) * height * width)
        best = best.scatter_reduce(0, key[wins], flat[wins], "amin")
        rows = (best < len(pncc) * height * width).nonzero()[:, 0]
        shown, carried = _invert(pncc, offsets, valid, self._mean[rows % n_vertices], best[rows])
        pixels = torch.zeros(len(best), 2, dtype=torch.float64, device=pncc.device)
        changes = torch.zeros(len(best), 3, device=pncc.device)
        pixels[rows], changes[rows] = shown, carried
        seen = torch.zeros(len(best), dtype=torch.bool, device=pncc.device)
        seen[rows] = True
        each = (n_faces, n_vertices)
        return pixels.view(*each, 2), changes.view(*each, 3), seen.view(each)

    def _voxels(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(P,) the vertex that the grid has for (P, 3) points, and whether it has one."""
        cells = ((points - self._origin) * (1 / self._voxel)).floor().long()
        inside = ((cells >= 0) & (cells < 4 * self._bricks)).all(1)
        i, j, k = torch.where(inside[:, None], cells, 0).T
        brick = ((i >> 2) * self._bricks[1] + (j >> 2)) * self._bricks[2] + (k >> 2)
        vertex = self._table[(brick << 6) + ((k & 3) << 4) + ((i & 3) << 2) + (j & 3)]
        return vertex, inside & (vertex >= 0)

    def _coefficients(self, vertices: Tensor, there: Tensor, offsets: Tensor) -> Tensor:
        """(B, K) float64 coefficients of least Tikhonov error (Eq. 4)."""
        keep, count = there[..., None], there.sum(1).clamp(min=1)[:, None, None]
        a = (self._rows[vertices] * keep[..., None]).flatten(1, 2)  # Eq. 2, 3
        b = (offsets * keep).flatten(1)[..., None]
        normal, right = ((a.mT @ part / count).double() for part in (a, b))
        normal.diagonal(dim1=1, dim2=2).add_(self._prior)  # Eq. 4
        lower, _ = torch.linalg.cholesky_ex(normal)
        return torch.cholesky_solve(right, lower)[..., 0]


def valid_masks(pncc: Tensor, threshold: float = BACKGROUND, erode: int = 1) -> Tensor:
    """`fitting.valid_mask` of (B, H, W, 3) planes: (B, H, W) bool."""
    square = pncc.square().sum(-1)
    near = ~((square > threshold**2) & (square < math.inf))
    for _ in range(erode):
        near = max_pool2d(near[:, None].float(), 3, 1, 1)[:, 0] > 0
    return ~near


# --- lists of unequal length: (B, N) tensors, and which entries there are -------------------------


def _first(mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, count) where (B, N) `mask` is True first, and which of those there are."""
    rank = mask.cumsum(1) - 1
    slot = torch.where(mask & (rank < count), rank, count)
    where = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    listed = rank.new_zeros(len(mask), count + 1).scatter_(1, slot, where)[:, :count]
    return listed, torch.arange(count, device=mask.device) < mask.sum(1)[:, None]


def _evenly(mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As `_first`, but evenly chosen: `fitting.Localized.thinned`."""
    listed, _ = _first(mask, mask.shape[1])
    total, number = mask.sum(1)[:, None], torch.arange(count, device=mask.device)
    spread = (number * ((total - 1).double() / max(count - 1, 1))).long()
    spread[:, -1] = total[:, 0] - 1
    chosen = torch.where(total > count, spread, number.expand_as(spread))
    there = number < total
    return listed.gather(1, torch.where(there, chosen, 0)), there


def _picked(values: Tensor, rows: Tensor) -> Tensor:
    """(B, N, C) values at (B, n) rows: (B, n, C)."""
    return values.gather(1, rows[..., None].expand(*rows.shape, values.shape[2]))


def _median(values: Tensor, there: Tensor) -> Tensor:
    """(...) medians over the last axis of the entries that there are, NaN without any."""
    ordered = torch.where(there, values, math.inf).sort(-1).values
    count = there.sum(-1, keepdim=True).expand(*values.shape[:-1], 1)
    low, high = ((count - 1) // 2).clamp(min=0), (count // 2).clamp(max=values.shape[-1] - 1)
    middle = (ordered.gather(-1, low) + ordered.gather(-1, high)) / 2
    return torch.where(count > 0, middle, math.nan)[..., 0]


def _deviation(distance: Tensor, there: Tensor) -> Tensor:
    """(B,) standard deviations per axis of 2D distances, from their medians; at least 0.01."""
    return (_median(distance, there) / math.sqrt(2 * math.log(2))).clamp(min=0.01)


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """(B, 1, C) means of (B, N, C) values over the entries that there are."""
    count = there.sum(1).clamp(min=1)[:, None, None]
    return (values * there[..., None]).sum(1, keepdim=True) / count


def _spans_space(points: Tensor, there: Tensor) -> Tensor:
    """(B,) bool: at least ten points, not in one plane nor on one line."""
    centred = (points - _mean(points, there)) * there[..., None]
    scatter = centred.mT @ centred
    sound = scatter.isfinite().all((1, 2)) & (there.sum(1) >= MIN_CORRESPONDENCES)
    squares = torch.linalg.eigvalsh(torch.where(sound[:, None, None], scatter, 0.0))
    return sound & (squares[:, 0] > 1e-6 * squares[:, 2])


# --- affine cameras (Eq. 1) -----------------------------------------------------------------------


def _correspondences(pncc: Tensor, offsets: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (B, N, 3) and pixels (B, N, 2) of a random subset, and which there are (B, N)."""
    height, width = valid.shape[1:]
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(0))
    order = order.to(valid.device)
    listed, there = _first(valid.flatten(1)[:, order], SUBSET)
    flat = order[listed]
    points = _picked(pncc.flatten(1, 2), flat).double() + _picked(offsets.flatten(1, 2), flat)
    pixels = torch.stack([flat % width, flat // width], dim=2).double()
    return torch.where(there[..., None], points, 0.0), pixels, there


def _fit_affine(points: Tensor, pixels: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """`camera.fit_affine`: cameras (B, 2, 4), and (B,) which of them are any good."""
    found = _spans_space(points, there)
    keep, count = there[..., None], there.sum(1).clamp(min=1)
    middle, center = _mean(points, there), _mean(pixels, there)
    centred = (points - middle) * keep
    spread = centred.square().sum((1, 2)) / (3 * count) + middle[:, 0].var(1, correction=0)
    spread = spread.sqrt().clamp(min=1e-9)[:, None, None]
    x = torch.cat([centred / spread, keep.double()], dim=2)
    y = (pixels - center) * keep

    solution = _least_median(x, y, there, _solved(x, y))
    for _ in range(6):
        distance = (x @ solution - y).norm(dim=-1)
        limit = TUKEY * _deviation(distance, there)[:, None]
        root = (1 - (distance / limit).clamp(max=1).square())[..., None]  # of Tukey's weight
        solution = _solved(x * root, y * root)

    linear = solution[:, :3].mT / spread
    shift = center.mT + solution[:, 3:].mT - linear @ middle.mT
    camera = torch.cat([linear, shift], dim=2)
    product = linear @ linear.mT
    (xx, xy), yy = product[:, 0].T, product[:, 1, 1]
    mean, half = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
    found &= camera.isfinite().all((1, 2)) & (mean - half > 1e-6 * (mean + half))
    return torch.where(found[:, None, None], camera, torch.eye(2, 4).to(camera)), found


def _solved(x: Tensor, y: Tensor) -> Tensor:
    """(..., 4, 2) least squares of ``x @ solution = y``; not finite where nothing decides it."""
    return torch.linalg.solve_ex(x.mT @ x, x.mT @ y)[0]


def _least_median(x: Tensor, y: Tensor, there: Tensor, solution: Tensor) -> Tensor:
    """The best of (B, 4, 2) solutions and those of four drawn points, by their median errors."""
    count = there.sum(1)
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(DRAWS * 4, dtype=torch.float64, generator=generator).to(x)
    drawn = (share * count[:, None]).long()
    corners = (_picked(part, drawn).unflatten(1, (DRAWS, 4)) for part in (x, y))
    four, shown = corners  # (B, D, 4, 4), (B, D, 4, 2)
    edges = four[:, :, 1:, :3] - four[:, :, :1, :3]
    flat = torch.linalg.det(edges).abs() <= 1e-2
    candidates = torch.linalg.solve_ex(four, shown)[0]
    candidates = torch.cat([solution[:, None], candidates], dim=1)

    step = (count // 200).clamp(min=1)[:, None]
    judges = torch.arange(JUDGES, device=x.device) * step
    judge = judges < count[:, None]
    judges = torch.where(judge, judges, 0)
    miss = _picked(x, judges)[:, None] @ candidates - _picked(y, judges)[:, None]
    median = _median(miss.norm(dim=-1), judge[:, None].expand(miss.shape[:3]))
    median[:, 1:].masked_fill_(flat, math.inf)
    best = median.nan_to_num(math.inf).argmin(1)
    return candidates[torch.arange(len(x), device=x.device), best]


def _project_affine(camera: Tensor, points: Tensor) -> Tensor:
    """(B, 2, 4) cameras, (B, N, 3) points to (B, N, 2) pixels."""
    return points @ camera[:, :, :3].mT + camera[:, None, :, 3]


def _rq(linear: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As of `camera`: (B, 2, 3) = [[first, shear], [0, second]] @ rows of rotations (B, 3, 3)."""
    upper, lower = linear.unbind(1)
    second = lower.norm(dim=1)
    lower = lower / second[:, None]
    shear = (upper * lower).sum(1)
    upper = upper - shear[:, None] * lower
    first = upper.norm(dim=1)
    upper = upper / first[:, None]
    third = torch.linalg.cross(upper, lower)
    return first, shear, second, torch.stack([upper, lower, third], dim=1)


def _decompose(linear: Tensor) -> tuple[Tensor, Tensor]:
    """Scales (B,) and rotations (B, 3, 3) of the linear parts (B, 2, 3) of affine cameras."""
    first, _, second, rotation = _rq(linear)
    return (first + second) / 2, rotation


# --- perspective cameras (Levenberg-Marquardt) ----------------------------------------------------


def _fit_perspective(
    points: Tensor, pixels: Tensor, there: Tensor, affine: Tensor, principal_point: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`camera.fit_perspective` from affine starts: focal lengths, centres, rotations, shifts."""
    center = _mean(points, there)
    points = (points - center) * there[..., None]
    pixels = pixels - principal_point[:, None]
    numbers, rotation = _start(affine, center, principal_point)
    numbers, rotation = _refine(points, pixels, there, numbers, rotation)
    distance = numbers[:, 1].exp()
    focal = numbers[:, 0].exp() * distance
    place = torch.cat([numbers[:, 2:], distance[:, None]], dim=1)
    translation = place - (rotation @ center.mT)[..., 0]
    return focal, principal_point, rotation, translation


def _start(affine: Tensor, center: Tensor, principal_point: Tensor) -> tuple[Tensor, Tensor]:
    """`AffineCamera.perspective` as the numbers (B, 4) and rotations (B, 3, 3) of `_refine`."""
    ray = _project_affine(affine, center)[:, 0] - principal_point
    scale, rotation = _decompose(affine[:, :, :3])
    slanted = torch.eye(2, 3).to(affine).repeat(len(affine), 1, 1)
    for _ in range(3):
        slanted[:, :, 2] = -ray / (scale * TYPICAL_DISTANCE)[:, None]
        first, shear, second, aligned = _rq(slanted)
        lower = affine[:, 1, :3] / second[:, None]
        upper = (affine[:, 0, :3] - shear[:, None] * lower) / first[:, None]
        scale, rotation = _decompose(torch.stack([upper, lower], dim=1))
        rotation = aligned.mT @ rotation
    far = torch.full_like(scale, math.log(TYPICAL_DISTANCE))
    numbers = torch.cat([torch.stack([scale.log(), far], dim=1), ray / scale[:, None]], dim=1)
    return numbers, rotation


def _refine(
    points: Tensor, pixels: Tensor, there: Tensor, start: Tensor, rotation: Tensor
) -> tuple[Tensor, Tensor]:
    """As of `camera`: twice from the start, the second time knowing the noise; never worse."""
    data = points, pixels, there
    distance = _misses(points, pixels, start, rotation)[0].norm(dim=-1)
    first = deviation = _deviation(distance, there)
    numbers, turned = start, rotation
    for _ in range(2):
        numbers, turned = _descend(data, numbers, turned, start[:, 1], deviation)
        distance = _misses(points, pixels, numbers, turned)[0].norm(dim=-1)
        deviation = torch.minimum(_deviation(distance, there), first)
    limit = (TUKEY * first).square()
    worse = (
        _gauss_newton(*data, numbers, turned, limit)[0]
        > (_gauss_newton(*data, start, rotation, limit)[0])
    )
    kept = torch.where(worse[:, None], start, numbers)
    return kept, torch.where(worse[:, None, None], rotation, turned)


def _descend(
    data: tuple[Tensor, Tensor, Tensor],
    numbers: Tensor,
    rotation: Tensor,
    prior: Tensor,
    deviation: Tensor,
) -> tuple[Tensor, Tensor]:
    """Least ``mean loss / deviation^2 * INDEPENDENT_PIXELS + (log distance - prior)^2``."""
    count = data[2].sum(1).clamp(min=1)
    unit = count.clamp(max=INDEPENDENT_PIXELS) / (count * deviation.square())
    limit = (TUKEY * deviation).square()

    def weighed(numbers: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        loss, matrix = _gauss_newton(*data, numbers, rotation, limit)
        pull = numbers[:, 1] - prior
        matrix = unit[:, None, None] * matrix
        matrix[:, 1, 1] += 1
        matrix[:, 1, 7] += pull
        return unit * loss + pull.square(), matrix

    cost, matrix = weighed(numbers, rotation)
    damping = torch.full_like(cost, 1e-4)
    active = cost.isfinite()
    for _ in range(STEPS):
        normal = matrix[:, :7, :7].clone()
        normal.diagonal(dim1=1, dim2=2).mul_(1 + damping[:, None])
        step = torch.linalg.solve_ex(normal, -matrix[:, :7, 7])[0]
        candidate, turned = numbers + step[:, :4], _turn(step[:, 4:]) @ rotation
        new, fresh = weighed(candidate, turned)
        taken = active & (new <= cost)
        settled = torch.where(taken, cost - new <= 1e-6 * new, damping > 1e7)
        damping = torch.where(taken, (damping / 10).clamp(min=1e-9), damping * 10)
        numbers = torch.where(taken[:, None], candidate, numbers)
        rotation = torch.where(taken[:, None, None], turned, rotation)
        matrix = torch.where(taken[:, None, None], fresh, matrix)
        cost = torch.where(taken, new, cost)
        active = active & ~settled
        if not active.any():
            break
    return numbers, rotation


def _misses(
    points: Tensor, pixels: Tensor, numbers: Tensor, rotation: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Residuals (B, N, 2), turned points (B, N, 3), stretch and pixels a mm there (B, N)."""
    scale, closeness = numbers[:, 0].exp(), (-numbers[:, 1]).exp()
    turned = points @ rotation.mT
    stretch = 1 + turned[..., 2] * closeness[:, None]
    zoom = scale[:, None] / stretch
    shown = zoom[..., None] * (turned[..., :2] + numbers[:, None, 2:])
    return shown - pixels, turned, stretch, zoom


def _gauss_newton(
    points: Tensor, pixels: Tensor, there: Tensor, numbers: Tensor, rotation: Tensor, limit: Tensor
) -> tuple[Tensor, Tensor]:
    """As of `camera`: losses (B,), and ``J.T @ W @ J`` (B, 8, 8) of J with the residual."""
    miss, turned, stretch, zoom = _misses(points, pixels, numbers, rotation)
    (u, v), (x, y, z) = (miss + pixels).unbind(-1), turned.unbind(-1)
    closeness = (-numbers[:, 1]).exp()[:, None]
    du, dv = -u * closeness / stretch, -v * closeness / stretch  # by the point's depth
    nothing = torch.zeros_like(u)
    first = (u, -du * z, zoom, nothing, du * y, zoom * z - du * x, -zoom * y, miss[..., 0])
    second = (v, -dv * z, nothing, zoom, dv * y - zoom * z, -dv * x, zoom * x, miss[..., 1])
    # Tukey's weights, and ones where there is nothing to lose.
    share = (miss.square().sum(-1) / limit[:, None]).clamp(max=1)
    keep = (1 - share) * there
    rows = torch.stack([*first, *second], dim=-1).unflatten(-1, (2, 8)) * keep[..., None, None]
    rows = rows.flatten(1, 2)
    loss = (limit[:, None] / 3 * (1 - (1 - share) ** 3) * there).sum(1)
    behind = ((stretch < 0.1) & there).any(1)
    return torch.where(behind, math.inf, loss), rows.mT @ rows


def _turn(vector: Tensor) -> Tensor:
    """(B, 3, 3) turns about vectors (B, 3) by their lengths (Rodrigues)."""
    x, y, z = vector.unbind(1)
    nothing = torch.zeros_like(x)
    cross = torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], dim=1)
    return torch.linalg.matrix_exp(cross.unflatten(1, (3, 3)))


# --- sub-pixel positions --------------------------------------------------------------------------


def _invert(
    pncc: Tensor, offsets: Tensor, valid: Tensor, mean: Tensor, flat: Tensor
) -> tuple[Tensor, Tensor]:
    """As of `fitting`: pixels (N, 2) and offsets (N, 3) of vertices shown about `flat` pixels."""
    height, width = valid.shape[1:]
    usable, pncc, offsets = valid.flatten(), pncc.flatten(0, 2), offsets.flatten(0, 2)
    column, row = flat % width, flat // width % height

    def beside(inside: Tensor, step: int) -> Tensor:
        there = torch.where(inside, flat + step, flat)
        return torch.where(usable[there], there, flat)

    left, right = beside(column > 0, -1), beside(column + 1 < width, 1)
    up, down = beside(row > 0, -width), beside(row + 1 < height, width)
    inside = (right > left) & (down > up)
    across = torch.where(right - left == 2, 0.5, 1.0)[:, None]  # 1 / pixels
    along = torch.where(down - up == 2 * width, 0.5, 1.0)[:, None]
    gx = ((pncc[right] - pncc[left]) * across).double()
    gy = ((pncc[down] - pncc[up]) * along).double()
    miss = (mean - pncc[flat]).double()
    xx, xy, yy = (gx * gx).sum(1), (gx * gy).sum(1), (gy * gy).sum(1)
    mx, my = (gx * miss).sum(1), (gy * miss).sum(1)
    determinant = xx * yy - xy * xy
    moved = inside & (determinant > 1e-3 * xx * yy)
    dx = torch.where(moved, (yy * mx - xy * my) / determinant, 0.0).clamp(-1, 1)
    dy = torch.where(moved, (xx * my - xy * mx) / determinant, 0.0).clamp(-1, 1)
    carried = offsets[flat].double()
    carried += dx[:, None] * (offsets[right] - offsets[left]) * across
    carried += dy[:, None] * (offsets[down] - offsets[up]) * along
    return torch.stack([column + dx, row + dy], dim=1), carried.float()
