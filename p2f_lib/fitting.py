"""From the network's planes to model coefficients and a posed mesh (sections 3.3 and 3.4).

PNCC says which point of the mean face a pixel shows, the offset says where this person's face has
that point. Each mesh vertex is found in the picture through the PNCC; its offset is then three
linear equations in the coefficients (Eq. 2 to 4), whatever the camera.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numba
import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.linalg.lapack import dposv
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

from p2f_lib.camera import (
    MIN_CORRESPONDENCES,
    AffineCamera,
    Camera,
    Correspondences,
    PerspectiveCamera,
    fit_affine,
    fit_perspective,
    inliers,
)
from p2f_lib.errors import P2FError
from p2f_lib.morphable_model import MorphableModel

# Tikhonov weight, mm^2: the mean squared offset (per vertex) that one standard deviation of one
# coefficient has to explain to be worth its price. Independent of image size, because the data term
# is a mean over vertices.
WEIGHT = 0.02
BACKGROUND = 15.0  # mm from the origin within which a PNCC is no point of a face
GATE = 4.0  # mm, as in the authors' code
PIXEL_ROUNDS = 4  # of coefficients and camera in turn, where no offsets are given
PERSPECTIVE_MISFIT = 10.0  # mm by which an affine camera may misplace a point of a selfie


@dataclass(frozen=True, eq=False)
class Localized:
    """Mesh vertices found in the picture.

    Attributes
    ----------
    vertices : (N,) int, ascending vertex indices, each once
    pixels : (N, 2) float64, x then y
    offsets : (N, 3) float32, this face minus the mean face at those vertices, mm
    """

    vertices: np.ndarray
    pixels: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.vertices)

    def __getitem__(self, rows: np.ndarray) -> Localized:
        return Localized(self.vertices[rows], self.pixels[rows], self.offsets[rows])

    def thinned(self, count: int) -> Localized:
        """At most `count` vertices, evenly chosen."""
        if len(self) <= count:
            return self
        rows = (np.arange(count) * ((len(self) - 1) / max(count - 1, 1))).astype(int)
        rows[-1] = len(self) - 1
        return self[rows]


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients of one face.

    Attributes
    ----------
    shape : (Ks,) float64
    expression : (Ke,) float64
    precision : (K, K) float64, inverse posterior covariance of shape, then expression; see
        `vertex_deviation`
    """

    shape: np.ndarray
    expression: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True, eq=False)
class FaceFit:
    """A posed face: cameras, coefficients, mesh.

    Attributes
    ----------
    affine : camera of Eq. 1, from pixels to PNCC + offset
    camera : perspective camera, from pixels to the fitted mesh
    shape, expression : (Ks,), (Ke,)
    vertices : (V, 3) float32, model space, mm
    localized : vertices found in the picture
    precision : see `Fit`
    """

    affine: AffineCamera
    camera: PerspectiveCamera
    shape: np.ndarray
    expression: np.ndarray
    vertices: np.ndarray
    localized: Localized
    precision: np.ndarray


def valid_mask(pncc: np.ndarray, threshold: float = BACKGROUND, erode: int = 1) -> np.ndarray:
    """(H, W) bool: pixels whose PNCC lies far from 0, the background code, and is finite.

    Parameters
    ----------
    pncc : (H, W, 3) mm
    threshold : mm from the origin
    erode : how many pixels to peel off (3x3 erosion), because predictions at silhouettes mix face
        and background; the picture's own border is not a silhouette

    Raises
    ------
    P2FError
        `pncc` is not (H, W, 3).
    """
    _check_plane("pncc", pncc)
    valid = _far(np.ascontiguousarray(pncc, np.float32), np.float32(threshold**2))
    if erode:
        valid = cv2.erode(valid, np.ones((3, 3), np.uint8), iterations=erode)
    return valid.view(bool)


def correspondences(
    pncc: np.ndarray, offsets: np.ndarray, valid: np.ndarray, count: int | None = None
) -> Correspondences:
    """Valid pixels with their 3D points PNCC + offset.

    Parameters
    ----------
    pncc, offsets : (H, W, 3) mm
    valid : (H, W) bool
    count : at most so many, drawn at random; default all
    """
    _check_planes(pncc, offsets, valid)
    flat = np.flatnonzero(valid)
    if count is not None and len(flat) > count:
        flat = np.random.default_rng(0).choice(flat, count, replace=False)
    points = pncc.reshape(-1, 3)[flat].astype(float) + offsets.reshape(-1, 3)[flat]
    pixels = np.empty((len(flat), 2))
    pixels[:, 1], pixels[:, 0] = np.divmod(flat, valid.shape[1])
    return Correspondences(points, pixels)


def localize_vertices(
    model: MorphableModel,
    pncc: np.ndarray,
    offsets: np.ndarray,
    valid: np.ndarray,
    gate: float = GATE,
) -> Localized:
    """Find mesh vertices in the picture; see `Fitter.localize`."""
    return Fitter(model, gate).localize(pncc, offsets, valid)


def fit_coefficients(model: MorphableModel, localized: Localized, weight: float = WEIGHT) -> Fit:
    """Shape and expression of one picture (Eq. 2 to 4); see `Fitter.coefficients`."""
    return Fitter(model).coefficients(localized, weight)


def fit_coefficients_multi(
    model: MorphableModel, localized: Iterable[Localized], weight: float = WEIGHT
) -> tuple[np.ndarray, np.ndarray]:
    """One shape, one expression per picture (Eq. 5); see `Fitter.coefficients_multi`."""
    return Fitter(model).coefficients_multi(localized, weight)


def vertex_deviation(
    model: MorphableModel, precision: np.ndarray, vertices: np.ndarray
) -> np.ndarray:
    """How far fitted vertices may be off, as the data and the prior leave it open.

    The Tikhonov fit (Eq. 4) is the most probable face where coefficients are drawn from the model
    and each of n offsets carries noise of the variance ``n * weight``: neighbouring offsets err
    alike, so that more of them don't say more. Deviations are those of that posterior; they grow
    where the face is hidden. What a network gets wrong everywhere alike is not in them, nor is
    anything that the model's modes can't express.

    Parameters
    ----------
    precision : (K, K), of a `Fit` of this model
    vertices : (N,) vertex indices

    Returns
    -------
    (N, 3) float64
        Standard deviations along x, y and z, mm.
    """
    basis = np.concatenate([model.shape_basis[:, vertices], model.expression_basis[:, vertices]])
    lower = np.linalg.cholesky(precision)
    spread = solve_triangular(lower, basis.reshape(len(basis), -1), lower=True)
    return np.sqrt((spread**2).sum(axis=0)).reshape(-1, 3)


def fit_face(
    model: MorphableModel | Fitter,
    pncc: np.ndarray,
    offsets: np.ndarray | None,
    valid: np.ndarray,
    principal_point: np.ndarray,
    *,
    weight: float = WEIGHT,
    focal: float | None = None,
    subset: int = 1000,
    camera: PerspectiveCamera | None = None,
) -> FaceFit:
    """Sections 3.3 and 3.4 in one call: planes in, cameras and posed mesh out.

    The perspective camera is fitted to the model's vertices rather than to the raw points, so that
    the projected mesh lies on the picture; the coefficients do not depend on any camera.

    Parameters
    ----------
    model : a face model, or the `Fitter` of one, which saves the preparation
    pncc, offsets : (H, W, 3) mm. Without offsets the face is found from the PNCC alone: its
        vertices are moved to where the picture shows them, which says nothing about their depth.
    valid : (H, W) bool, see `valid_mask`
    principal_point : (2,) pixels of these planes; usually the centre of the photo
    weight : Tikhonov weight, see `WEIGHT`
    focal : known focal length in pixels of these planes
    subset : at most so many correspondences decide the cameras
    camera : known camera in pixels of these planes, where it is not to be found

    Raises
    ------
    P2FError
        Too few or degenerate valid pixels for a camera.
    """
    fitter = model if isinstance(model, Fitter) else Fitter(model)
    seen = np.zeros_like(pncc) if offsets is None else offsets
    affine = fit_affine(correspondences(pncc, seen, valid, subset), subset)
    localized = fitter.localize(pncc, seen, valid)
    # A pixel that the robust camera contradicts has a wrong PNCC: its offset says nothing. What an
    # affine camera misses of a near face's perspective is forgiven.
    points = fitter.model.mean[localized.vertices] + localized.offsets
    tolerance = PERSPECTIVE_MISFIT * affine.scale
    believed = inliers(affine, Correspondences(points, localized.pixels), tolerance)
    if not believed.all():
        localized = localized[np.flatnonzero(believed)]
    posed = localized.thinned(subset)

    def refined(vertices: np.ndarray) -> PerspectiveCamera:
        pairs = Correspondences(vertices[posed.vertices], posed.pixels)
        return fit_perspective(pairs, principal_point, affine, focal=focal, subset=subset)

    if offsets is None:
        found = refined(fitter.model.mean) if camera is None else camera
        for _ in range(PIXEL_ROUNDS):
            fit = fitter.coefficients_from_pixels(localized, found, weight)
            vertices = fitter.model.vertices(fit.shape, fit.expression)
            found = refined(vertices) if camera is None else camera
    else:
        fit = fitter.coefficients(localized, weight)
        vertices = fitter.model.vertices(fit.shape, fit.expression)
        found = refined(vertices) if camera is None else camera
    return FaceFit(affine, found, fit.shape, fit.expression, vertices, localized, fit.precision)


class Fitter:
    """A face model prepared for fitting: reuse it when there is more than one picture.

    Parameters
    ----------
    model : the face model
    gate : mm between a vertex of the mean face and the PNCC of a pixel that may show it

    Attributes
    ----------
    mean : (V, 3) float32, mm
    rows : (V, 3, K) float32, shape and expression modes; the rows of a vertex lie together, so that
        picking vertices is one copy
    precision : (K,) float64, of the coefficients: 1 / sigma^2
    grid : the nearest vertex of any point near the mean face
    """

    def __init__(self, model: MorphableModel, gate: float = GATE) -> None:
        if not 0 < gate <= 20:
            raise P2FError(f"The gate must lie between 0 and 20 mm, got {gate}.")
        self.model, self.gate = model, float(gate)
        basis = np.concatenate([model.shape_basis, model.expression_basis])
        self.rows = np.ascontiguousarray(np.moveaxis(basis, 0, -1), dtype=np.float32)
        sigma = np.concatenate([model.shape_sigma, model.expression_sigma]).astype(float)
        self.precision = 1.0 / np.maximum(sigma, 1e-6) ** 2
        self.mean = np.ascontiguousarray(model.mean, dtype=np.float32)

    @cached_property
    def grid(self) -> VertexGrid:
        return VertexGrid.build(self.mean, self.gate)

    def localize(self, pncc: np.ndarray, offsets: np.ndarray, valid: np.ndarray) -> Localized:
        """Vertices with the pixels that show them (section 3.4).

        A vertex and a pixel belong together when the vertex is the mean face's nearest to the
        pixel's PNCC, the pixel is the nearest of those that chose this vertex, and they are within
        the gate. So no vertex has two pixels and no pixel two vertices, in small pictures (fewer
        pixels than vertices) as in large ones. Position and offset are then carried from the pixel
        to the vertex to first order, by at most one pixel, through the gradients of the planes.

        Parameters
        ----------
        pncc, offsets : (H, W, 3) mm
        valid : (H, W) bool
        """
        _check_planes(pncc, offsets, valid)
        grid = self.grid
        pncc, offsets = (np.ascontiguousarray(p, dtype=np.float32) for p in (pncc, offsets))
        best = _nearest_pixels(
            pncc,
            valid,
            self.mean,
            grid.origin,
            np.float32(1 / grid.voxel),
            grid.bricks,
            grid.table,
            grid.neighbours,
            self.gate,
        )
        vertices = np.flatnonzero(best >= 0)
        pixels, carried = _invert(pncc, offsets, valid, self.mean, vertices, best[vertices])
        return Localized(vertices, pixels, carried)

    def coefficients(
        self,
        localized: Localized,
        weight: float = WEIGHT,
        limit: int = 1000,
    ) -> Fit:
        """Coefficients c of least ``mean_v |A_v c - b_v|^2 + weight * |c / sigma|^2`` (Eq. 4).

        Parameters
        ----------
        localized : vertices with offsets b_v
        weight : mm^2, see `WEIGHT`
        limit : at most so many vertices, evenly chosen, enter the equations

        Raises
        ------
        P2FError
            Fewer than 10 localized vertices, or offsets that are not finite.
        """
        return self._solved(*self._equations(localized, limit), weight)

    def coefficients_from_pixels(
        self,
        localized: Localized,
        camera: Camera,
        weight: float = WEIGHT,
        limit: int = 1000,
    ) -> Fit:
        """Coefficients that move vertices to where the picture shows them; offsets aren't used.

        Distances in the picture count in mm at the vertex's depth, so that the weight means the
        same as for offsets. Where a perspective camera puts a vertex is linear in the coefficients
        but for its depth: two passes settle that.

        Parameters
        ----------
        localized : vertices with pixels
        camera : known, model space to these pixels
        weight, limit : as of `coefficients`

        Raises
        ------
        P2FError
            Fewer than 10 localized vertices, or pixels that are not finite.
        """
        thinned = _thinned(localized, limit)
        if not np.isfinite(thinned.pixels).all():
            raise P2FError("Pixels of localized vertices hold NaN or infinite values.")
        basis = self.rows[thinned.vertices]
        mean = self.model.mean[thinned.vertices].astype(float)

        def solved_around(coefficients: np.ndarray) -> Fit:
            points = mean + basis @ coefficients.astype(np.float32)
            jacobian, scale = _pixel_rows(camera, points)
            a = np.matmul(jacobian.astype(np.float32), basis).reshape(2 * len(thinned), -1)
            miss = (thinned.pixels - camera.project(points)) / scale[:, None]
            b = miss.reshape(-1).astype(np.float32) + a @ coefficients.astype(np.float32)
            return self._solved(a.T @ a / len(thinned), a.T @ b / len(thinned), weight)

        fit = solved_around(np.zeros(basis.shape[2]))
        if not isinstance(camera, AffineCamera):
            fit = solved_around(np.concatenate([fit.shape, fit.expression]))
        return fit

    def _solved(self, normal: np.ndarray, right: np.ndarray, weight: float) -> Fit:
        """The Tikhonov solution of normal equations (K, K), (K,)."""
        normal = normal.astype(float)
        normal[np.diag_indices_from(normal)] += weight * self.precision  # Eq. 4
        _, solution, failed = dposv(normal, right)  # scipy.linalg.cho_solve's, without its checks
        if failed:
            raise np.linalg.LinAlgError("The normal equations are not positive definite.")
        n = self.model.n_shape
        return Fit(solution[:n], solution[n:], normal / weight)

    def coefficients_multi(
        self, localized: Iterable[Localized], weight: float = WEIGHT, limit: int = 1000
    ) -> tuple[np.ndarray, np.ndarray]:
        """One shape for all pictures of a person, one expression for each (Eq. 5).

        The expressions meet only through the shape, so they are eliminated one by one (Schur
        complement): time and memory grow linearly with the number of pictures.

        Parameters
        ----------
        localized : one item per picture; read once
        weight, limit : as in `coefficients`

        Returns
        -------
        shape : (Ks,)
        expressions : (n, Ke)
        """
        shared = SharedShape(self, weight, limit)
        eliminated = [shared.add(item) for item in localized]
        shape = shared.shape()
        return shape, np.array([constant - coupling @ shape for constant, coupling in eliminated])

    def _equations(self, localized: Localized, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """Normal matrix (K, K) and right side (K,) of Eq. 2 and 3, means over the vertices."""
        thinned = _thinned(localized, limit)
        a = self.rows[thinned.vertices].reshape(3 * len(thinned), -1)  # Eq. 2, 3
        b = np.asarray(thinned.offsets, np.float32).reshape(-1)
        if not np.isfinite(b).all():
            raise P2FError("Offsets hold NaN or infinite values; check the network's weights.")
        return (a.T @ a / len(thinned)).astype(float), (a.T @ b / len(thinned)).astype(float)


class SharedShape:
    """Eq. 5 picture by picture: the shape's normal equations are summed up, no picture is kept.

    Parameters
    ----------
    fitter : of the pictures' face model
    weight, limit : as of `Fitter.coefficients`
    """

    def __init__(self, fitter: Fitter, weight: float = WEIGHT, limit: int = 1000) -> None:
        self._fitter, self._limit = fitter, limit
        self._ks = fitter.model.n_shape
        shape_precision, expression_precision = np.split(weight * fitter.precision, [self._ks])
        self._expression_prior = np.diag(expression_precision)
        self._schur, self._reduced = np.diag(shape_precision), np.zeros(self._ks)
        self._pictures = 0

    def add(self, localized: Localized) -> tuple[np.ndarray, np.ndarray]:
        """Take part of a picture, its expression eliminated.

        Returns
        -------
        constant, coupling : (Ke,), (Ke, Ks); the expression is ``constant - coupling @ shape``.
        """
        normal, right, constant, coupling = self._eliminated(localized)
        ks = self._ks
        self._schur += normal[:ks, :ks] - normal[:ks, ks:] @ coupling
        self._reduced += right[:ks] - normal[:ks, ks:] @ constant
        self._pictures += 1
        return constant, coupling

    def shape(self) -> np.ndarray:
        """(Ks,) of least squares over all pictures so far.

        Raises
        ------
        P2FError
            There was none.
        """
        if not self._pictures:
            raise P2FError("A joint fit needs at least one picture, got none.")
        return cho_solve(cho_factor(self._schur, check_finite=False), self._reduced)

    def expression(self, localized: Localized, shape: np.ndarray) -> np.ndarray:
        """(Ke,) of one picture, for a shape that is known."""
        _, _, constant, coupling = self._eliminated(localized)
        return constant - coupling @ shape

    def _eliminated(self, localized: Localized) -> tuple[np.ndarray, ...]:
        ks = self._ks
        normal, right = self._fitter._equations(localized, self._limit)
        factor = cho_factor(normal[ks:, ks:] + self._expression_prior, check_finite=False)
        coupling = cho_solve(factor, normal[ks:, :ks], check_finite=False)
        constant = cho_solve(factor, right[ks:], check_finite=False)
        return normal, right, constant, coupling


def _thinned(localized: Localized, limit: int) -> Localized:
    """At most `limit` vertices; never fewer than decide anything."""
    if len(localized) < MIN_CORRESPONDENCES:
        raise P2FError(
            f"Coefficients need at least {MIN_CORRESPONDENCES} localized vertices, "
            f"got {len(localized)}; is there a face in the picture?"
        )
    return localized.thinned(limit)


def _pixel_rows(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2, 3) derivatives of the pixels of (N, 3) points, and the pixels a mm (N,) they count."""
    if isinstance(camera, AffineCamera):
        scale = np.full(len(points), camera.scale)
        return np.broadcast_to(camera.matrix[:, :3] / camera.scale, (len(points), 2, 3)), scale
    x, y, z = (points @ camera.rotation.T + camera.translation).T
    slope = np.stack([x / z, y / z], axis=1)[:, :, None]
    return camera.rotation[:2] - slope * camera.rotation[2], camera.focal / z


@dataclass(frozen=True, eq=False)
class VertexGrid:
    """Nearest vertex in constant time: a vertex per voxel near the surface, and who is beside whom.

    The vertex of a voxel is the nearest to its centre; the nearest to a point inside is that one or
    one of those around it. Neighbours in space rather than along edges: lips touch without edges.
    """

    origin: np.ndarray  # (3,) float32, corner of the first voxel, mm
    voxel: float  # side, mm
    bricks: np.ndarray  # (3,) int, how many along x, y and z
    table: np.ndarray  # (bricks * 64,) int32, see `_place`; -1 = farther from it than the gate
    neighbours: np.ndarray  # (V, 10) uint32, nearest first

    @classmethod
    def build(cls, mean: np.ndarray, gate: float) -> VertexGrid:
        voxel = 2.0
        while np.prod((np.ptp(mean, axis=0) + 2 * gate) / voxel) > 4e6:  # bounded memory
            voxel *= 1.5
        reach = int(np.ceil(gate / voxel)) + 1
        origin = mean.min(axis=0) - reach * voxel
        cells = ((mean - origin) / voxel).astype(int)
        bricks = (cells.max(axis=0) + reach + 2 + 3) // 4
        occupied = np.zeros(4 * bricks, bool)
        occupied[tuple(cells.T)] = True
        near = np.argwhere(binary_dilation(occupied, np.ones((3, 3, 3)), iterations=reach))
        table = np.full(occupied.size, -1, np.int32)
        centers = origin + (near + 0.5) * voxel
        tree = cKDTree(mean)
        x, y, z = near.T
        table[_place.py_func(x, y, z, bricks)] = tree.query(centers)[1]
        neighbours = tree.query(mean, min(11, len(mean)))[1][:, 1:].astype(np.uint32)
        return cls(origin.astype(np.float32), voxel, bricks, table, neighbours)


@numba.njit(cache=True, nogil=True)
def _far(plane, square):
    """(H, W) uint8: 1 where squares of a (H, W, 3) plane sum to more than `square`, but finite."""
    far = np.empty(plane.shape[:2], np.uint8)
    for row in range(far.shape[0]):
        for column in range(far.shape[1]):
            x, y, z = plane[row, column, 0], plane[row, column, 1], plane[row, column, 2]
            length = x * x + y * y + z * z
            far[row, column] = (length > square) & (length < np.inf)
    return far


@numba.njit(cache=True, nogil=True)
def _place(i, j, k, bricks):
    """Where a table holds a voxel: 4 x 4 x 4 of them lie together, z apart.

    What neighbouring pixels ask for then comes from memory at once.
    """
    brick = ((i >> 2) * bricks[1] + (j >> 2)) * bricks[2] + (k >> 2)
    return (brick << 6) + ((k & 3) << 4) + ((i & 3) << 2) + (j & 3)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _nearest_pixels(pncc, valid, mean, origin, voxels, bricks, table, neighbours, gate):
    """(V,) flat index of the nearest pixel among those that chose a vertex, -1 = none.

    `voxels` : 1 / mm. Unsigned indices save the question whether they count from the end.
    """
    height, width = valid.shape
    best = np.full(len(mean), -1, np.int32)
    least = np.full(len(mean), gate * gate, np.float32)
    starts = np.empty(width, np.int32)
    for row in range(height):
        # Apart from the walk, whose jumps can't be foretold: so look-ups wait for memory together.
        for column in range(width):
            starts[column] = -1
            if not valid[row, column]:
                continue
            x, y, z = pncc[row, column, 0], pncc[row, column, 1], pncc[row, column, 2]
            i = int(np.floor((x - origin[0]) * voxels))
            j = int(np.floor((y - origin[1]) * voxels))
            k = int(np.floor((z - origin[2]) * voxels))
            if i < 0 or j < 0 or k < 0:
                continue
            if i >= 4 * bricks[0] or j >= 4 * bricks[1] or k >= 4 * bricks[2]:
                continue
            starts[column] = table[np.uint64(_place(i, j, k, bricks))]
        for column in range(width):
            if starts[column] < 0:
                continue
            x, y, z = pncc[row, column, 0], pncc[row, column, 1], pncc[row, column, 2]
            vertex = np.uint32(starts[column])
            a, b, c = x - mean[vertex, 0], y - mean[vertex, 1], z - mean[vertex, 2]
            distance = a * a + b * b + c * c
            previous = ~vertex
            while vertex != previous:  # down hill from neighbour to neighbour
                previous = vertex
                for n in range(neighbours.shape[1]):
                    near = neighbours[previous, n]
                    a, b, c = x - mean[near, 0], y - mean[near, 1], z - mean[near, 2]
                    other = a * a + b * b + c * c
                    vertex = near if other < distance else vertex  # a choice is faster than a jump
                    distance = min(distance, other)
            if distance < least[vertex]:
                least[vertex], best[vertex] = distance, row * width + column
    return best


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _invert(pncc, offsets, valid, mean, vertices, flat):
    """Sub-pixel positions (N, 2) and offsets (N, 3) of vertices, to first order about pixels."""
    height, width = valid.shape
    pixels = np.empty((len(vertices), 2))
    carried = np.empty((len(vertices), 3), np.float32)
    for n in range(len(vertices)):
        vertex = np.uint64(vertices[n])
        row, column = flat[n] // width, flat[n] % width
        left = np.uint64(column - (column > 0 and valid[row, column - 1]))
        right = np.uint64(column + (column + 1 < width and valid[row, column + 1]))
        up = np.uint64(row - (row > 0 and valid[row - 1, column]))
        down = np.uint64(row + (row + 1 < height and valid[row + 1, column]))
        row, column = np.uint64(row), np.uint64(column)
        dx = dy = 0.0
        inside = right > left and down > up
        across = 0.5 if right - left == 2 else 1.0  # 1 / pixels
        along = 0.5 if down - up == 2 else 1.0
        if inside:
            xx = xy = yy = mx = my = 0.0
            for k in range(3):
                gx = (pncc[row, right, k] - pncc[row, left, k]) * across
                gy = (pncc[down, column, k] - pncc[up, column, k]) * along
                miss = mean[vertex, k] - pncc[row, column, k]
                xx, xy, yy = xx + gx * gx, xy + gx * gy, yy + gy * gy
                mx, my = mx + gx * miss, my + gy * miss
            determinant = xx * yy - xy * xy
            if determinant > 1e-3 * xx * yy:
                dx = min(max((yy * mx - xy * my) / determinant, -1.0), 1.0)
                dy = min(max((xx * my - xy * mx) / determinant, -1.0), 1.0)
        pixels[n, 0], pixels[n, 1] = column + dx, row + dy
        for k in range(3):
            carried[n, k] = offsets[row, column, k]
            if inside:
                carried[n, k] += dx * (offsets[row, right, k] - offsets[row, left, k]) * across
                carried[n, k] += dy * (offsets[down, column, k] - offsets[up, column, k]) * along
    return pixels, carried


def _check_plane(name: str, plane: np.ndarray) -> None:
    if plane.ndim != 3 or plane.shape[2] != 3:
        raise P2FError(f"{name} must have shape (H, W, 3), got {plane.shape}.")


def _check_planes(pncc: np.ndarray, offsets: np.ndarray, valid: np.ndarray) -> None:
    _check_plane("pncc", pncc)
    _check_plane("offsets", offsets)
    if offsets.shape != pncc.shape or valid.shape != pncc.shape[:2] or valid.dtype != bool:
        raise P2FError(
            "pncc (H, W, 3), offsets (H, W, 3) and the bool mask valid (H, W) must match, got "
            f"{pncc.shape}, {offsets.shape} and {valid.shape} {valid.dtype}."
        )
