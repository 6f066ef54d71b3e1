"""Cameras and head pose: from 3D-to-pixel correspondences to affine and perspective cameras.

Camera space is OpenCV's: x right, y down, z away from the camera. A head that looks straight into
the lens has rotation ``diag(1, -1, -1)``, because model space has y up and z out of the face.
Lengths are millimetres, image points are pixels (0-based, x then y, pixel centres at integers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike

from p2f_lib.errors import P2FError

MIN_CORRESPONDENCES = 10
FRONTAL = np.diag([1.0, -1.0, -1.0])  # the camera rotation of a frontal head

# Distance of a face from the lens before anything is known: an arm's length to a few metres.
TYPICAL_DISTANCE = 1200.0  # mm
# Prediction errors are shared by neighbouring pixels: however many there are, they are worth about
# this many independent measurements when they are weighed against the prior on the distance.
INDEPENDENT_PIXELS = 100
TUKEY = 4.685  # in standard deviations: 95 % efficient on Gaussian noise
_BLOCK = 128  # points at a time


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Model points and where the picture shows them.

    Attributes
    ----------
    points : (N, 3) float64
        Model space, mm.
    pixels : (N, 2) float64
        Image points, x then y.
    """

    points: np.ndarray
    pixels: np.ndarray

    def __post_init__(self) -> None:
        points, pixels = np.asarray(self.points, float), np.asarray(self.pixels, float)
        if points.ndim != 2 or points.shape[1] != 3 or pixels.shape != (len(points), 2):
            raise P2FError(
                "Correspondences need points (N, 3) and pixels (N, 2) of the same N, "
                f"got {points.shape} and {pixels.shape}."
            )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "pixels", pixels)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: np.ndarray) -> Correspondences:
        return Correspondences(self.points[rows], self.pixels[rows])

    def finite(self) -> Correspondences:
        """Without the rows that hold NaN or infinity."""
        if np.isfinite(self.points.sum() + self.pixels.sum()):
            return self
        return self[np.isfinite(self.points).all(axis=1) & np.isfinite(self.pixels).all(axis=1)]

    def sample(self, count: int, rng: np.random.Generator) -> Correspondences:
        """A random subset of `count` rows (all rows when there are no more)."""
        return self if len(self) <= count else self[rng.choice(len(self), count, replace=False)]


@dataclass(frozen=True)
class Pose:
    """Head pose in degrees; all zero when the face looks straight into the camera.

    ``yaw > 0``: the nose points to picture right. ``pitch > 0``: the nose points up. ``roll > 0``:
    the top of the head leans to picture right (clockwise as seen in the picture).
    """

    yaw: float
    pitch: float
    roll: float


def rotation_from_pose(pose: Pose) -> np.ndarray:
    """(3, 3) rotation from model to camera space of a pose; inverse of `pose_from_rotation`.

    ``FRONTAL @ rotation = Ry(yaw) @ Rx(-pitch) @ Rz(-roll)`` with the usual right-handed rotations
    about x (right), y (up) and z (towards the viewer): Euler order Y-X-Z.
    """
    angles = np.radians((pose.yaw, -pose.pitch, -pose.roll))
    (cy, cx, cz), (sy, sx, sz) = np.cos(angles), np.sin(angles)
    # The product of the three, with the signs of FRONTAL: scipy's Rotation takes 100 times longer.
    return np.array(
        [
            [cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx],
            [-cx * sz, -cx * cz, sx],
            [sy * cz - cy * sx * sz, -sy * sz - cy * sx * cz, -cy * cx],
        ]
    )


def pose_from_rotation(rotation: np.ndarray) -> Pose:
    """Pose of a (3, 3) rotation from model to camera space.

    Yaw and roll lie in [-180, 180], pitch in [-90, 90] degrees. At pitch +-90, where yaw and roll
    turn about the same axis, roll is reported as 0.
    """
    head = FRONTAL @ np.asarray(rotation, float)
    cos_pitch = np.hypot(head[0, 2], head[2, 2])
    pitch = np.arctan2(head[1, 2], cos_pitch)
    if cos_pitch > 1e-9:
        yaw = np.arctan2(head[0, 2], head[2, 2])
        roll = -np.arctan2(head[1, 0], head[1, 1])
    else:
        yaw, roll = np.arctan2(-head[2, 0], head[0, 0]), 0.0
    return Pose(*(float(angle) for angle in np.degrees((yaw, pitch, roll))))


@dataclass(frozen=True, eq=False)
class AffineCamera:
    """``pixel = matrix @ (x, y, z, 1)``: the camera of Eq. 1.

    Attributes
    ----------
    matrix : (2, 4) float64
        Pixels per mm in the first three columns, pixels in the last.
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, float)
        if matrix.shape != (2, 4) or not np.isfinite(matrix).all():
            raise P2FError(f"An affine camera is a finite (2, 4) matrix, got {self.matrix!r}.")
        object.__setattr__(self, "matrix", matrix)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) model points to (N, 2) pixels."""
        return np.asarray(points) @ self.matrix[:, :3].T + self.matrix[:, 3]

    def depth(self, points: np.ndarray) -> np.ndarray:
        """(N,) distance along the view direction in mm, larger = farther; origin arbitrary."""
        return np.asarray(points) @ self.rotation[2]

    def project_with_depth(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`project` and `depth` of (N, 3) points: (N, 2) and (N,)."""
        return self.project(points), self.depth(points)

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) proper rotation, model to camera; shear removed."""
        return _decompose(self.matrix[:, :3])[1]

    @property
    def scale(self) -> float:
        """Pixels per mm, the mean of both image axes."""
        return _decompose(self.matrix[:, :3])[0]

    @property
    def pose(self) -> Pose:
        return pose_from_rotation(self.rotation)

    def transformed(self, image_map: np.ndarray) -> AffineCamera:
        """The camera after ``new pixel = A[:, :2] @ pixel + A[:, 2]``, A being (2, 3)."""
        image_map = np.asarray(image_map, float)
        matrix = image_map[:, :2] @ self.matrix
        matrix[:, 3] += image_map[:, 2]
        return AffineCamera(matrix)

    def perspective(
        self,
        principal_point: np.ndarray,
        distance: float = TYPICAL_DISTANCE,
        center: ArrayLike = (0.0, 0.0, 0.0),
    ) -> PerspectiveCamera:
        """The perspective camera that looks like this one near `center`.

        Parameters
        ----------
        principal_point : (2,) pixels
        distance : mm from the lens to `center` along the optical axis
        center : (3,) model point, mm
        """
        center, point = np.asarray(center, float), np.asarray(principal_point, float)
        ray = self.project(center) - point
        scale, rotation = _decompose(self.matrix[:, :3])
        # Off the principal point a perspective camera sees the head along a slanted ray: its
        # derivative is scale * [I | -ray / focal] @ R. The focal length is scale * distance.
        for _ in range(3):
            u, v = ray / (scale * distance)
            first, shear, second, aligned = _rq(np.array([[1.0, 0.0, -u], [0.0, 1.0, -v]]))
            row2 = self.matrix[1, :3] / second
            row1 = (self.matrix[0, :3] - shear * row2) / first
            scale, rotation = _decompose(np.array([row1, row2]))
            rotation = aligned.T @ rotation
        translation = np.append(ray / scale, distance) - rotation @ center
        return PerspectiveCamera(scale * distance, point, rotation, translation)


@dataclass(frozen=True, eq=False)
class PerspectiveCamera:
    """Pinhole with square pixels and zero skew.

    ``(x, y, z) = rotation @ point + translation``,
    ``pixel = focal * (x, y) / z + principal_point``.

    Attributes
    ----------
    focal : float
        Pixels.
    principal_point : (2,) float64
        Pixels.
    rotation : (3, 3) float64
        Model to camera space.
    translation : (3,) float64
        mm.
    """

    focal: float
    principal_point: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "focal", float(self.focal))
        for name, shape in (("principal_point", (2,)), ("rotation", (3, 3)), ("translation", (3,))):
            value = np.asarray(getattr(self, name), float)
            if value.shape != shape or not np.isfinite(value).all():
                raise P2FError(f"A camera's {name} must be finite of shape {shape}, got {value}.")
            object.__setattr__(self, name, value)
        if not 0 < self.focal < np.inf:
            raise P2FError(f"A focal length must be positive, got {self.focal}.")

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) model points to (N, 2) pixels."""
        seen = np.asarray(points) @ self.rotation.T + self.translation
        return self.focal * seen[..., :2] / seen[..., 2:] + self.principal_point

    def depth(self, points: np.ndarray) -> np.ndarray:
        """(N,) mm along the optical axis, larger = farther."""
        return np.asarray(points) @ self.rotation[2] + self.translation[2]

    def project_with_depth(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`project` and `depth` of (N, 3) points in one pass: (N, 2) and (N,) float64."""
        points = np.ascontiguousarray(points)
        pixels, depth = np.empty((len(points), 2)), np.empty(len(points))
        placement = np.column_stack([self.rotation, self.translation])
        _project(points, placement, self.focal, self.principal_point, pixels, depth)
        return pixels, depth

    @property
    def pose(self) -> Pose:
        """Head pose relative to the optical axis."""
        return pose_from_rotation(self.rotation)

    def affine(self, center: ArrayLike = (0.0, 0.0, 0.0)) -> AffineCamera:
        """The first-order approximation about a model point (mm)."""
        center = np.asarray(center, float)
        x, y, z = self.rotation @ center + self.translation
        slanted = np.array([[1.0, 0.0, -x / z], [0.0, 1.0, -y / z]])
        linear = self.focal / z * slanted @ self.rotation
        return AffineCamera(np.column_stack([linear, self.project(center) - linear @ center]))

    def scaled(self, scale: float, shift: np.ndarray) -> PerspectiveCamera:
        """The camera after ``new pixels = scale * pixels + shift``, as from crop to picture."""
        point = scale * self.principal_point + np.asarray(shift, float)
        return PerspectiveCamera(scale * self.focal, point, self.rotation, self.translation)

    def transformed(self, image_map: np.ndarray) -> PerspectiveCamera:
        """The camera after ``new pixel = A[:, :2] @ pixel + A[:, 2]``.

        A is (2, 3): a scale times a rotation, then a shift. The picture turns about the principal
        point as if the camera turned about its optical axis.
        """
        image_map = np.asarray(image_map, float)
        scale = np.sqrt(np.linalg.det(image_map[:, :2]))
        turn = np.eye(3)
        turn[:2, :2] = image_map[:, :2] / scale
        point = image_map[:, :2] @ self.principal_point + image_map[:, 2]
        return PerspectiveCamera(
            scale * self.focal, point, turn @ self.rotation, turn @ self.translation
        )


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _project(points, placement, focal, principal_point, pixels, depth):
    for n in range(len(points)):
        px, py, pz = np.float64(points[n, 0]), np.float64(points[n, 1]), np.float64(points[n, 2])
        x = placement[0, 0] * px + placement[0, 1] * py + placement[0, 2] * pz + placement[0, 3]
        y = placement[1, 0] * px + placement[1, 1] * py + placement[1, 2] * pz + placement[1, 3]
        z = placement[2, 0] * px + placement[2, 1] * py + placement[2, 2] * pz + placement[2, 3]
        pixels[n, 0] = focal * x / z + principal_point[0]
        pixels[n, 1] = focal * y / z + principal_point[1]
        depth[n] = z


Camera = AffineCamera | PerspectiveCamera


def reprojection_error(camera: Camera, correspondences: Correspondences) -> float:
    """Root mean square distance in pixels."""
    difference = camera.project(correspondences.points) - correspondences.pixels
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


def inliers(camera: Camera, correspondences: Correspondences, tolerance: float = 0.0) -> np.ndarray:
    """(N,) bool: within `tolerance` pixels, or 6 standard deviations (from the median distance)."""
    if not len(correspondences):
        return np.zeros(0, bool)
    miss = camera.project(correspondences.points) - correspondences.pixels
    distance = np.sqrt(np.einsum("nk,nk->n", miss, miss))
    near = distance <= tolerance
    return near if near.all() else distance <= max(tolerance, 6 * _median_deviation(distance))


def fit_affine(
    correspondences: Correspondences,
    subset: int = 2000,
    rng: np.random.Generator | None = None,
    robust: bool = True,
) -> AffineCamera:
    """Affine camera by linear least squares from a random subset (section 3.4, Eq. 1).

    Parameters
    ----------
    correspondences : at least 10 with finite values; others are ignored
    subset : how many of them to use
    rng : draws the subset; default ``numpy.random.default_rng(0)``
    robust : start from the best of 4-point fits in the sense of least median error, and repeat the
        least squares with Tukey's weights, so that up to about 40 % wrong pixels do not matter

    Raises
    ------
    P2FError
        Fewer than 10 correspondences, or points in one plane, or pixels on one line.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    chosen, _ = _chosen(correspondences, subset, rng)
    draws = rng.integers(len(chosen), size=(64, 4) if robust else (0, 4))
    camera = AffineCamera(_affine(chosen.points, chosen.pixels, draws))
    (xx, xy), (_, yy) = (camera.matrix[:, :3] @ camera.matrix[:, :3].T).tolist()
    # Squares of the singular values: those of a line are far apart.
    mean, half = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    if mean - half <= 1e-6 * (mean + half):
        raise P2FError("The pixels lie on a line, which fixes no camera; is the mask a face?")
    return camera


def fit_perspective(
    correspondences: Correspondences,
    principal_point: np.ndarray,
    initial: Camera | None = None,
    *,
    focal: float | None = None,
    robust: bool = True,
    subset: int = 2000,
    rng: np.random.Generator | None = None,
) -> PerspectiveCamera:
    """Focal length, rotation and translation by Levenberg-Marquardt (section 3.4).

    Zero skew, square pixels, given principal point. A small or distant face hardly shows
    perspective, and focal length and distance could then grow together without bound. Therefore
    the logarithm of the distance has a weak Gaussian prior with a standard deviation of 1 (a factor
    of e) about the start's distance, weighed against at most `INDEPENDENT_PIXELS` pixels.

    Parameters
    ----------
    correspondences : at least 10 with finite values; others are ignored
    principal_point : (2,) pixels, usually the centre of the picture
    initial : start; default is `fit_affine`. An affine start is put at `TYPICAL_DISTANCE`.
    focal : pixels; a known focal length, which is then kept
    robust : Tukey's loss instead of squares
    subset, rng : as in `fit_affine`

    Returns
    -------
    PerspectiveCamera
        Its reprojection error over the correspondences used (root mean square; with `robust`, in
        Tukey's loss) is never above the start's, except that a known focal length is obeyed.

    Raises
    ------
    P2FError
        As `fit_affine`.
    """
    chosen, center = _chosen(correspondences, subset, rng)
    if initial is None:
        initial = fit_affine(chosen, robust=robust)
    if isinstance(initial, AffineCamera):
        distance = focal / initial.scale if focal else TYPICAL_DISTANCE
        initial = initial.perspective(principal_point, distance, center)
    if focal:  # keeps the size in the picture
        ratio = focal / initial.focal
        seen = initial.rotation @ center + initial.translation
        seen[2] *= ratio
        initial = PerspectiveCamera(
            focal, principal_point, initial.rotation, seen - initial.rotation @ center
        )
    pixels = chosen.pixels - np.asarray(principal_point, float)
    numbers, rotation = _refine(
        chosen.points - center, pixels, *_state(initial, center), robust, bool(focal)
    )
    return _camera(numbers, rotation, center, principal_point)


def _state(camera: PerspectiveCamera, center: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A camera about the centre of the points, as Levenberg-Marquardt moves it.

    Returns
    -------
    numbers : (4,) logarithms of the scale (focal / distance, pixels per mm) and of the distance,
        and the centre's x and y in camera space, mm. Scale and distance are nearly independent.
    rotation : (3, 3)
    """
    x, y, z = camera.rotation @ center + camera.translation
    if z <= 0:
        raise P2FError("The start puts the face behind the camera.")
    return np.array([np.log(camera.focal / z), np.log(z), x, y]), np.array(camera.rotation)


def _camera(
    numbers: np.ndarray, rotation: np.ndarray, center: np.ndarray, principal_point: np.ndarray
) -> PerspectiveCamera:
    distance = np.exp(numbers[1])
    translation = np.append(numbers[2:], distance) - rotation @ center
    return PerspectiveCamera(
        np.exp(numbers[0]) * distance, np.asarray(principal_point, float), rotation, translation
    )


@numba.njit(cache=True, nogil=True)
def _refine(points, pixels, start, rotation, robust, fixed_focal):
    """Levenberg-Marquardt from a start, twice; see `fit_perspective`.

    The start's residuals contain what perspective explains: the noise is known only afterwards, and
    a second round with it lets good data speak louder than the prior. Never worse than the start.
    """
    distance = np.empty(len(points))
    _distances(points, pixels, start, rotation, distance)
    first = deviation = _median_deviation(distance)
    prior = start[1]
    numbers, turned = start.copy(), rotation.copy()
    for _ in range(2):
        limit = (TUKEY * deviation) ** 2 if robust else np.inf
        numbers, turned = _descend(
            points, pixels, numbers, turned, prior, deviation, limit, fixed_focal
        )
        _distances(points, pixels, numbers, turned, distance)
        deviation = min(_median_deviation(distance), first)
    limit = (TUKEY * first) ** 2 if robust else np.inf
    matrix = np.empty((8, 8))
    before = _gauss_newton(points, pixels, start, rotation, limit, matrix)
    if _gauss_newton(points, pixels, numbers, turned, limit, matrix) <= before:
        return numbers, turned
    return start, rotation


@numba.njit(cache=True, nogil=True)
def _descend(points, pixels, numbers, rotation, prior, deviation, limit, fixed_focal):
    """Least ``mean loss / deviation^2 * INDEPENDENT_PIXELS + (log distance - prior)^2``."""
    count = len(points)
    unit = min(count, INDEPENDENT_PIXELS) / (count * deviation**2)
    # Columns: the directions in which the camera may move. At fixed focal length the logarithms of
    # scale and distance change by opposite amounts.
    pull = 0.0 if fixed_focal else 1.0
    free = np.eye(7)
    if fixed_focal:
        free = np.ascontiguousarray(free[:, 1:])
        free[0, 0] = -1.0
    matrix, best = np.empty((8, 8)), np.empty((8, 8))

    cost = unit * _gauss_newton(points, pixels, numbers, rotation, limit, best)
    cost += pull * (numbers[1] - prior) ** 2
    damping = 1e-4
    for _ in range(30):
        normal = unit * best
        normal[1, 1] += pull
        normal[1, 7] += pull * (numbers[1] - prior)
        gradient = free.T @ np.ascontiguousarray(normal[:7, 7])
        reduced = free.T @ np.ascontiguousarray(normal[:7, :7]) @ free
        while True:
            step = free @ np.linalg.solve(_damped(reduced, damping), -gradient)
            candidate = numbers + step[:4]
            turned = _rotation(step[4:]) @ rotation
            new = unit * _gauss_newton(points, pixels, candidate, turned, limit, matrix)
            new += pull * (candidate[1] - prior) ** 2
            if new <= cost:
                break
            damping *= 10
            if damping > 1e8:
                return numbers, rotation
        gain, cost = cost - new, new
        numbers, rotation = candidate, turned
        best, matrix = matrix, best
        damping = max(damping / 10, 1e-9)
        if gain <= 1e-6 * cost:
            break
    return numbers, rotation


@numba.njit(cache=True, nogil=True)
def _damped(matrix, damping):
    damped = matrix.copy()
    for i in range(len(damped)):
        damped[i, i] *= 1 + damping
    return damped


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _gauss_newton(points, pixels, numbers, rotation, limit, matrix):
    """Sum of losses of ``scale * (x + a, y + b) / (1 + z / distance) - pixels``.

    Fills `matrix` (8, 8) with ``J.T @ W @ J``, where the columns of J are the derivatives by log
    scale, log distance, shift (2) and left rotation (3), and the residual; W holds Tukey's weights
    for the squared limit, ones for an infinite one. The loss is infinite when a point would lie at
    the lens.
    """
    scale, closeness = np.exp(numbers[0]), np.exp(-numbers[1])
    plain = limit == np.inf
    matrix[:] = 0.0
    # By blocks that stay in the first cache: all u, then all v. So the compiler can do several
    # points at once.
    columns, losses = np.zeros((8, 2 * _BLOCK)), np.empty(_BLOCK)
    loss = 0.0
    for start in range(0, len(points), _BLOCK):
        count = min(_BLOCK, len(points) - start)
        if count < _BLOCK:
            columns[:] = 0.0
        behind = 0
        for n in range(count):
            m = n + _BLOCK
            px, py, pz = points[start + n, 0], points[start + n, 1], points[start + n, 2]
            x = rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz
            y = rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz
            z = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz
            stretch = 1.0 + z * closeness
            behind += stretch < 0.1
            q = scale / stretch
            u, v = q * (x + numbers[2]), q * (y + numbers[3])
            du, dv = -u * closeness / stretch, -v * closeness / stretch  # by the point's depth
            miss_u, miss_v = u - pixels[start + n, 0], v - pixels[start + n, 1]
            square = miss_u * miss_u + miss_v * miss_v
            keep = 1.0 if plain else 1.0 - min(square / limit, 1.0)  # root of Tukey's weight
            losses[n] = square if plain else limit / 3 * (1 - keep * keep * keep)
            columns[0, n], columns[0, m] = keep * u, keep * v
            columns[1, n], columns[1, m] = -keep * du * z, -keep * dv * z
            columns[2, n], columns[3, m] = keep * q, keep * q  # the others stay 0
            columns[4, n], columns[4, m] = keep * du * y, keep * (dv * y - q * z)
            columns[5, n], columns[5, m] = keep * (q * z - du * x), -keep * dv * x
            columns[6, n], columns[6, m] = -keep * q * y, keep * q * x
            columns[7, n], columns[7, m] = keep * miss_u, keep * miss_v
        if behind:
            return np.inf
        for n in range(count):
            loss += losses[n]
        _add_products(columns, matrix)
    return loss


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _add_products(rows, matrix):
    """``matrix += rows @ rows.T`` for few long rows."""
    for i in range(len(rows)):
        for j in range(i + 1):
            total = 0.0
            for n in range(rows.shape[1]):
                total += rows[i, n] * rows[j, n]
            matrix[i, j] += total
            if i != j:
                matrix[j, i] += total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _distances(points, pixels, numbers, rotation, distance):
    """Fills `distance` (N,): pixels between points and where a camera of `_state` puts them."""
    scale, closeness = np.exp(numbers[0]), np.exp(-numbers[1])
    for n in range(len(points)):
        px, py, pz = points[n, 0], points[n, 1], points[n, 2]
        x = rotation[0, 0] * px + rotation[0, 1] * py + rotation[0, 2] * pz
        y = rotation[1, 0] * px + rotation[1, 1] * py + rotation[1, 2] * pz
        z = rotation[2, 0] * px + rotation[2, 1] * py + rotation[2, 2] * pz
        q = scale / (1.0 + z * closeness)
        u, v = q * (x + numbers[2]) - pixels[n, 0], q * (y + numbers[3]) - pixels[n, 1]
        distance[n] = np.sqrt(u * u + v * v)


@numba.njit(cache=True, nogil=True)
def _rotation(vector):
    """(3, 3) turn about a vector by its length (Rodrigues)."""
    angle = np.sqrt((vector**2).sum())
    x, y, z = vector
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    a = np.sin(angle) / angle if angle > 1e-8 else 1.0
    b = (1 - np.cos(angle)) / angle**2 if angle > 1e-4 else 0.5
    return np.eye(3) + a * cross + b * (cross @ cross)


def _chosen(
    correspondences: Correspondences, subset: int, rng: np.random.Generator | None
) -> tuple[Correspondences, np.ndarray]:
    """A random subset of the finite rows and its mean point, when it can fix a camera."""
    finite = correspondences.finite()
    if len(finite) < MIN_CORRESPONDENCES:
        raise P2FError(
            f"A camera needs at least {MIN_CORRESPONDENCES} finite correspondences, "
            f"got {len(finite)} of {len(correspondences)}; is there a face in the picture?"
        )
    count = max(subset, MIN_CORRESPONDENCES)
    if len(finite) > count:
        finite = finite.sample(count, np.random.default_rng(0) if rng is None else rng)
    center, scatter = _scatter(finite.points)
    squares = np.linalg.eigvalsh(scatter)
    if squares[0] <= 1e-6 * squares[2]:
        raise P2FError(
            "The model points lie in one plane or on a line, which fixes no camera; "
            "is the PNCC a face?"
        )
    return finite, center


@numba.njit(cache=True, nogil=True)
def _scatter(points):
    """Mean (3,) and sums of products about it (3, 3) of (N, 3) points."""
    mean, sums = np.zeros(3), np.zeros((3, 3))
    for n in range(len(points)):
        for k in range(3):
            mean[k] += points[n, k]
    for k in range(3):
        mean[k] /= len(points)
    for n in range(len(points)):
        for i in range(3):
            for j in range(3):
                sums[i, j] += (points[n, i] - mean[i]) * (points[n, j] - mean[j])
    return mean, sums


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _affine(points, pixels, draws):
    """The (2, 4) affine camera of least squares, or of Tukey's loss where there are draws.

    That one starts from the best of four-point fits and least squares. The best is that of least
    median error; with 40 % wrong pixels one four-point sample in eight is clean.
    """
    count = len(points)
    # Rows: centred and scaled x, y and z, 1, centred pixels; long rows for fast loops.
    data, middle, spread = np.ones((6, count)), np.zeros(6), 0.0
    for row in (0, 1, 2, 4, 5):
        source, column = (points, row) if row < 3 else (pixels, row - 4)
        for n in range(count):
            middle[row] += source[n, column] / count
        for n in range(count):
            data[row, n] = source[n, column] - middle[row]
            spread += data[row, n] ** 2 if row < 3 else 0.0
    spread = np.sqrt(spread / (3 * count) + middle[:3].var())  # of all coordinates together
    for row in range(3):
        for n in range(count):
            data[row, n] /= spread

    solution = _solved(data)  # Eq. 1
    if len(draws):
        solution = _tukey_affine(data, _least_median(data, solution, draws))

    camera = np.empty((2, 4))
    for i in range(2):
        camera[i, 3] = middle[4 + i] + solution[3, i]
        for k in range(3):
            camera[i, k] = solution[k, i] / spread
            camera[i, 3] -= camera[i, k] * middle[k]
    return camera


@numba.njit(cache=True, nogil=True)
def _solved(data):
    """The (4, 2) solution of least squares."""
    products, normal, right = np.zeros((6, 6)), np.empty((4, 4)), np.empty((4, 2))
    _add_products(data, products)
    for i in range(4):
        for j in range(4):
            normal[i, j] = products[i, j]
        for j in range(2):
            right[i, j] = products[i, 4 + j]
    return np.linalg.lstsq(normal, right)[0]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _least_median(data, solution, draws):
    """The best of a (4, 2) solution and those of four drawn points, by their median error."""
    step = max(1, data.shape[1] // 200)
    judges = np.empty((6, (data.shape[1] + step - 1) // step))
    for i in range(6):
        for n in range(judges.shape[1]):
            judges[i, n] = data[i, n * step]
    distance = np.empty(judges.shape[1])
    half = (len(distance) + 1) // 2
    _misses(judges, solution, np.inf, distance)
    least = np.median(distance)
    for n in range(len(draws)):
        candidate = np.empty((4, 2))
        if not _through_four(data, draws[n], candidate):
            continue
        # A median takes much longer than to see that it can't be less.
        if _misses(judges, candidate, least, distance) >= half:
            median = np.median(distance)
            if median < least:
                least, solution = median, candidate
    return solution


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _through_four(data, draw, solution):
    """Fills the (4, 2) solution of four points; False where they lie nearly in a plane."""
    edges, inverse = np.empty((6, 3)), np.empty((3, 3))  # from the first point; Cramer's rule
    for k in range(6):
        for i in range(3):
            edges[k, i] = data[k, draw[i + 1]] - data[k, draw[0]]
    for i in range(3):
        p, q = (i + 1) % 3, (i + 2) % 3
        for k in range(3):
            a, b = edges[(k + 1) % 3], edges[(k + 2) % 3]
            inverse[k, i] = a[p] * b[q] - b[p] * a[q]
    determinant = 0.0
    for k in range(3):
        determinant += edges[k, 0] * inverse[k, 0]
    if not abs(determinant) > 1e-2:
        return False
    for j in range(2):
        solution[3, j] = data[4 + j, draw[0]]
        for k in range(3):
            slope = 0.0
            for i in range(3):
                slope += inverse[k, i] * edges[4 + j, i] / determinant
            solution[k, j] = slope
            solution[3, j] -= slope * data[k, draw[0]]
    return True


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _tukey_affine(data, solution):
    """Least squares with Tukey's weights from a (4, 2) solution, until it stays."""
    distance, weighted = np.empty(data.shape[1]), np.empty(data.shape)
    for _ in range(6):
        _misses(data, solution, np.inf, distance)
        limit = TUKEY * _median_deviation(distance)
        for n in range(len(distance)):
            ratio = min(distance[n] / limit, 1.0)
            distance[n] = 1 - ratio * ratio  # now the weight's root
        for i in range(6):
            for n in range(len(distance)):
                weighted[i, n] = data[i, n] * distance[n]
        previous = solution
        solution = _solved(weighted)
        if np.abs(solution - previous).max() < 1e-5 * np.abs(solution).max():
            break
    return solution


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _misses(data, solution, limit, distance):
    """Fills `distance` (N,), pixels, and counts those below the limit."""
    below = 0
    for n in range(len(distance)):
        square = 0.0
        for j in range(2):
            miss = solution[3, j] - data[4 + j, n]
            for i in range(3):
                miss += solution[i, j] * data[i, n]
            square += miss * miss
        distance[n] = np.sqrt(square)
        below += distance[n] < limit
    return below


@numba.njit(cache=True, nogil=True)
def _median_deviation(distance):
    """Standard deviation per axis of 2D distances, from their median; at least 0.01 pixels."""
    return max(np.median(distance) / np.sqrt(2 * np.log(2)), 0.01)


def _rq(linear: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    """(2, 3) = [[first, shear], [0, second]] @ the first rows of a rotation (3, 3).

    First and second are positive. In Python's numbers: arrays so small take 20 times longer.
    """
    (a, b, c), (d, e, f) = linear.tolist()
    second = math.sqrt(d * d + e * e + f * f) or math.nan
    d, e, f = d / second, e / second, f / second
    shear = a * d + b * e + c * f
    a, b, c = a - shear * d, b - shear * e, c - shear * f
    first = math.sqrt(a * a + b * b + c * c) or math.nan
    a, b, c = a / first, b / first, c / first
    row3 = (b * f - c * e, c * d - a * f, a * e - b * d)
    return first, shear, second, np.array([(a, b, c), (d, e, f), row3])


def _decompose(linear: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale and rotation of the (2, 3) linear part of an affine camera (RQ, shear dropped)."""
    first, _, second, rotation = _rq(linear)
    return (first + second) / 2, rotation
