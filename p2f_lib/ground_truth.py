"""Training targets: PNCC and offset images of random faces seen by random cameras (section 3.2).

Every row of a `CoefficientTable` is a pure function of (seed, index), and `render_ground_truth` of
such a row is exact: a few hundred numbers a face replace pictures on disk.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numba
import numpy as np
from scipy.special import ndtr, ndtri
from tqdm import tqdm

from p2f_lib.camera import AffineCamera, Camera, PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.errors import P2FError
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.rasterizer import Raster, interpolate, rasterize


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What the network should predict for one picture.

    Attributes
    ----------
    pncc : (H, W, 3) float32, mm: where the point seen at a pixel lies on the mean face; 0 outside.
    offsets : (H, W, 3) float32, mm: from there to where it lies on this face; 0 outside.
    valid : (H, W) bool, True where the face is seen.
    raster : triangle and barycentrics per pixel, from which all of this was made.
    """

    pncc: np.ndarray
    offsets: np.ndarray
    valid: np.ndarray
    raster: Raster


def render_ground_truth(
    model: MorphableModel,
    shape: np.ndarray | None,
    expression: np.ndarray | None,
    camera: Camera,
    height: int,
    width: int,
) -> GroundTruth:
    """PNCC and offset images of a face (section 3.2).

    Parameters
    ----------
    model : the face model.
    shape, expression : (Ks,) and (Ke,) coefficients, None for zeros.
    camera : maps model space to the picture.
    height, width : pixels.
    """
    return render_vertices(model, model.vertices(shape, expression), camera, height, width)


def render_vertices(
    model: MorphableModel,
    vertices: np.ndarray,
    camera: Camera,
    height: int,
    width: int,
) -> GroundTruth:
    """`render_ground_truth` of a mesh that is at hand: (V, 3) mm, in the model's vertex order."""
    if vertices.shape != model.mean.shape:
        raise P2FError(
            f"Face model {model.name!r} has vertices of shape {model.mean.shape}, "
            f"got {vertices.shape}."
        )
    raster, planes = _render(model, vertices, *projection(camera), height, width)
    return GroundTruth(planes[..., :3], planes[..., 3:], raster.valid, raster)


def projection(camera: Camera) -> tuple[np.ndarray, bool]:
    """(3, 4) matrix whose rows give x, y and depth of a point, and whether to divide by the depth.

    Without division x and y are pixels, with it pixels times depth (mm).
    """
    if isinstance(camera, AffineCamera):
        return np.vstack([camera.matrix, np.append(camera.rotation[2], 0.0)]), False
    seen = np.column_stack([camera.rotation, camera.translation])
    plane = camera.focal * seen[:2] + np.outer(camera.principal_point, seen[2])
    return np.vstack([plane, seen[2]]), True


def _render(
    model: MorphableModel,
    vertices: np.ndarray,
    matrix: np.ndarray,
    perspective: bool,
    height: int,
    width: int,
) -> tuple[Raster, np.ndarray]:
    """The z-buffer, and PNCC and offsets as (H, W, 6)."""
    pixels = np.empty((len(vertices), 2), np.float32)
    depth = np.empty(len(vertices), np.float32)
    attributes = np.empty((len(vertices), 6), np.float32)
    _place(vertices, model.mean, matrix, perspective, pixels, depth, attributes)
    raster = rasterize(pixels, depth, model.triangles, height, width, perspective=perspective)
    return raster, interpolate(raster, model.triangles, attributes)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _place(vertices, mean, matrix, perspective, pixels, depth, attributes):
    """Pixels and depths of the vertices, and what is interpolated between them, in one pass."""
    for v in range(len(vertices)):
        x, y, z = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        far = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
        scale = 1.0 / far if perspective else 1.0
        for k in range(2):
            pixel = matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] * z + matrix[k, 3]
            pixels[v, k] = pixel * scale
        depth[v] = far
        for k in range(3):
            attributes[v, k] = mean[v, k]
            attributes[v, 3 + k] = vertices[v, k] - mean[v, k]


# ---------------------------------------------------------------------------------------------
# Many faces, seen in crops of their pictures


MIRROR = np.array([-1, 1, 1, -1, 1, 1], np.float32)  # signs of the six planes in a mirror


def render_crops(
    model: MorphableModel,
    shape: np.ndarray,
    expression: np.ndarray,
    cameras: Sequence[Camera],
    matrices: np.ndarray,
    size: int,
    is_face: np.ndarray | None = None,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """PNCC and offsets of a batch of faces, rendered in crops of their pictures.

    The camera moves, no image is resampled: silhouettes are as exact as in the whole picture.

    Parameters
    ----------
    model : the face model.
    shape, expression : (B, Ks) and (B, Ke) coefficients.
    cameras : B cameras, model space to the pixels of each picture.
    matrices : (B, 2, 3) maps from the crop's unit square [-1, 1]^2 to the picture's pixels. One
        that mirrors gives the target of the mirrored face, whose x coordinates change sign: the
        mean face is symmetric.
    size : pixels of the square crop.
    is_face : (B,) bool, False for a picture without a face, whose target is background; None for
        faces only.
    threads : how many faces are drawn at a time; the result is the same for any number.

    Returns
    -------
    planes : (B, S, S, 6) float32, mm: PNCC, then offsets; 0 outside the face.
    valid : (B, S, S) bool.

    Raises
    ------
    P2FError : arguments of different lengths.
    """
    lengths = [len(part) for part in (shape, expression, cameras, matrices)]
    if len(set(lengths)) > 1 or (is_face is not None and len(is_face) != lengths[0]):
        raise P2FError(
            "render_crops needs as many coefficients as cameras, crops and flags, got "
            f"{lengths} and {None if is_face is None else len(is_face)}."
        )
    count = lengths[0]
    planes = np.zeros((count, size, size, 6), np.float32)
    valid = np.zeros((count, size, size), bool)
    rows = np.arange(count) if is_face is None else np.flatnonzero(is_face)
    if not len(rows):
        return planes, valid
    vertices = model.vertices(np.asarray(shape)[rows], np.asarray(expression)[rows])

    def draw(mesh: np.ndarray, row: int) -> None:
        to_crop = _picture_to_crop(matrices[row], size)
        mirrored = np.linalg.det(to_crop[:, :2]) < 0
        if mirrored:  # as seen before the mirror; a mirrored mesh would show its back faces
            to_crop = np.array([[-1.0], [1.0]]) * to_crop + [[0, 0, size - 1], [0, 0, 0]]
        matrix, perspective = projection(cameras[row])
        last = matrix[2] if perspective else np.array([0.0, 0.0, 0.0, 1.0])
        matrix[:2] = to_crop @ np.vstack([matrix[:2], last])
        raster, image = _render(model, mesh, matrix, perspective, size, size)
        planes[row] = image[:, ::-1] * MIRROR if mirrored else image
        valid[row] = raster.valid[:, ::-1] if mirrored else raster.valid

    if threads == 1:
        for mesh, row in zip(vertices, rows.tolist(), strict=True):
            draw(mesh, row)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw, vertices, rows.tolist()))
    return planes, valid


def _picture_to_crop(matrix: np.ndarray, size: int) -> np.ndarray:
    """(2, 3) map from the picture's pixels to the crop's, from that of the crop's unit square."""
    to_unit = np.linalg.inv(np.vstack([np.asarray(matrix, float), [0.0, 0.0, 1.0]]))[:2]
    # Pixel p of the crop has the unit coordinate (2 p + 1) / size - 1.
    to_crop = to_unit * (size / 2)
    to_crop[:, 2] += (size - 1) / 2
    return to_crop


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Pictures with what is known about them; targets are rendered from it when they are needed.

    Attributes
    ----------
    images : (N, H, W, 3) uint8.
    shape : (N, Ks) float32.
    expression : (N, Ke) float32.
    cameras : N cameras, model space to the picture's pixels.
    landmarks : (N, 68, 2) float32, pixels, iBUG-68; in a picture without a face, those of one that
        might be there.
    is_face : (N,) bool; False where the target is all background.
    """

    images: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    cameras: tuple[Camera, ...]
    landmarks: np.ndarray
    is_face: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> SampleBatch:
        """Some of the samples: a slice, a list or an array of rows."""
        chosen = np.arange(len(self))[rows]
        return SampleBatch(
            self.images[rows],
            self.shape[rows],
            self.expression[rows],
            tuple(self.cameras[row] for row in chosen),
            self.landmarks[rows],
            self.is_face[rows],
        )

    def crops(
        self, model: MorphableModel, matrices: np.ndarray, size: int, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """The targets in crops of the pictures, see `render_crops`."""
        known = self.shape, self.expression, self.cameras
        return render_crops(model, *known, matrices, size, self.is_face, threads)

    def targets(self, model: MorphableModel, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The targets of the whole, square pictures: planes and valid as of `render_crops`."""
        height, width = self.images.shape[1:3]
        if height != width:
            raise P2FError(f"Targets need square pictures, got {height} x {width}.")
        whole = np.array([[width, 0, width - 1], [0, width, width - 1]]) / 2
        return self.crops(model, np.broadcast_to(whole, (len(self), 2, 3)), width, threads)


@dataclass(frozen=True)
class OffsetStatistics:
    """Size of the offsets (mm): what the network's second half has to explain.

    Attributes
    ----------
    rms : root mean square of a component.
    rms_xyz : the same for each axis.
    mean_absolute : of a component: the L1 error of predicting zero.
    """

    rms: float
    rms_xyz: tuple[float, float, float]
    mean_absolute: float


def offset_statistics(offsets: np.ndarray, valid: np.ndarray | None = None) -> OffsetStatistics:
    """Statistics of (..., 3) offsets in mm where `valid` (...) is True, or everywhere.

    Raises
    ------
    P2FError : no valid offset at all.
    """
    chosen = offsets.reshape(-1, 3) if valid is None else offsets[valid]
    if not len(chosen):
        raise P2FError("No valid pixel: there are no offsets to measure.")
    chosen = chosen.astype(np.float64)
    squares = (chosen**2).mean(axis=0)
    x, y, z = np.sqrt(squares).tolist()
    return OffsetStatistics(
        rms=float(np.sqrt(squares.mean())),
        rms_xyz=(x, y, z),
        mean_absolute=float(np.abs(chosen).mean()),
    )


# ---------------------------------------------------------------------------------------------
# People and expressions

SHAPE_LIMIT = 2.5  # standard deviations
SHAPE_SHRINK = 0.9  # independent coefficients make odder faces than people are

# Kinds of expression: (share, {face unit without side: range of its activation}). Talking and
# smiling, wide open mouths and strong feelings, and oddities; few faces are neutral, because a
# network that seldom sees an open mouth draws it closed.
EXPRESSIONS: tuple[tuple[float, dict[str, tuple[float, float]]], ...] = (
    (0.07, {}),
    (
        0.18,  # smile
        {
            "mouthSmile": (0.3, 1.0),
            "cheekSquint": (0.0, 0.6),
            "eyeSquint": (0.0, 0.5),
            "mouthDimple": (0.0, 0.4),
            "mouthUpperUp": (0.0, 0.3),
            "jawOpen": (0.0, 0.4),
        },
    ),
    (
        0.22,  # talk
        {
            "jawOpen": (0.1, 0.6),
            "mouthFunnel": (0.0, 0.5),
            "mouthPucker": (0.0, 0.4),
            "mouthLowerDown": (0.0, 0.5),
            "mouthUpperUp": (0.0, 0.4),
            "mouthClose": (0.0, 0.3),
            "mouthSmile": (0.0, 0.3),
        },
    ),
    (0.16, {"jawOpen": (0.5, 1.0), "mouthStretch": (0.0, 0.5), "mouthLowerDown": (0.0, 0.4)}),
    (
        0.15,  # surprise
        {
            "jawOpen": (0.2, 0.9),
            "browInnerUp": (0.5, 1.0),
            "browOuterUp": (0.4, 1.0),
            "eyeWide": (0.3, 1.0),
        },
    ),
    (
        0.07,  # anger
        {
            "browDown": (0.5, 1.0),
            "noseSneer": (0.2, 1.0),
            "eyeSquint": (0.2, 0.7),
            "mouthPress": (0.0, 0.6),
            "mouthFrown": (0.0, 0.6),
            "jawOpen": (0.0, 0.4),
        },
    ),
    (
        0.05,  # sadness
        {"mouthFrown": (0.3, 1.0), "browInnerUp": (0.3, 1.0), "mouthShrugLower": (0.0, 0.7)},
    ),
    (0.05, {"mouthPucker": (0.5, 1.0), "mouthFunnel": (0.0, 0.6)}),
    (0.05, {"cheekPuff": (0.3, 1.0), "mouthPress": (0.0, 0.6)}),
)
_CUMULATIVE_SHARES = np.cumsum([share for share, _ in EXPRESSIONS])
_CUMULATIVE_SHARES /= _CUMULATIVE_SHARES[-1]
# The vocabulary: the face units of ARKit, which Anny and ICT-FaceKit share.
_SIDED = (
    *("browDown", "browOuterUp", "cheekSquint", "eyeBlink", "eyeSquint", "eyeWide"),
    *("mouthDimple", "mouthFrown", "mouthLowerDown", "mouthPress", "mouthSmile", "mouthStretch"),
    *("mouthUpperUp", "noseSneer"),
)
_CENTRAL = (
    *("browInnerUp", "cheekPuff", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose"),
    *("mouthFunnel", "mouthLeft", "mouthPucker", "mouthRight", "mouthRollLower"),
    *("mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
)
_UNITS = (*_SIDED, *_CENTRAL)
BLINK_SHARE = 0.12
STRAY_SHARE, STRAY_ACTIVATION = 0.2, 0.15  # of the units; they move a little in every face
GAZE_SIGMA = 0.25


def sample_coefficients(
    model: MorphableModel, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A plausible person with a plausible expression.

    Shape coefficients are normal, truncated at 2.5 standard deviations and slightly shrunk.
    Expression modes that are named like ARKit's face units get sparse combinations of activations
    in [0, 1] (neutral, smiles, talk, open mouths, feelings, blinks; the sides mostly agree); other
    modes, such as those of a PCA, are truncated normal too.

    Returns
    -------
    (Ks,) float32, (Ke,) float32.
    """
    shape = SHAPE_SHRINK * model.shape_sigma * _truncated_normal(rng, model.n_shape)
    expression = model.expression_sigma * _truncated_normal(rng, model.n_expression)
    activations = _sample_activations(rng)
    for mode, name in enumerate(model.expression_names):
        if name in activations:
            expression[mode] = activations[name]
    return shape.astype(np.float32), expression.astype(np.float32)


def _truncated_normal(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count,) standard normal values within +-SHAPE_LIMIT, by the inverse distribution."""
    return ndtri(rng.uniform(ndtr(-SHAPE_LIMIT), ndtr(SHAPE_LIMIT), count))


def _sample_activations(rng: np.random.Generator) -> dict[str, float]:
    """ARKit name -> activation in [0, 1] for one face."""
    kind = EXPRESSIONS[_CUMULATIVE_SHARES.searchsorted(rng.random(), "right")][1]
    stray = (rng.random(len(_UNITS)) < STRAY_SHARE) * rng.uniform(0, STRAY_ACTIVATION, len(_UNITS))
    units = dict(zip(_UNITS, stray, strict=True))
    for name, (low, high) in kind.items():
        units[name] = rng.uniform(low, high)
    if rng.random() < BLINK_SHARE:
        units["eyeBlink"], units["eyeWide"] = rng.uniform(0.6, 1.0), 0.0
    # Lips that close over a closed jaw would pass through each other.
    units["mouthClose"] = min(units["mouthClose"], units["jawOpen"])
    # Nobody pushes the mouth or the jaw both ways at once.
    for left, right in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
        loser = left if rng.random() < 0.5 else right
        units[loser] = 0.0

    activations = {"tongueOut": 0.0} | {name: units[name] for name in _CENTRAL}
    lopsided = rng.random() < 0.2
    weaker = 0 if rng.random() < 0.5 else 1
    chances = rng.random((len(_SIDED), 3 if lopsided else 2))
    both = 0.85 + (1.15 - 0.85) * chances[:, :2]
    if lopsided:
        both[:, weaker] *= 0.1 + (0.9 - 0.1) * chances[:, 2]
    for name, gains in zip(_SIDED, both.tolist(), strict=True):
        for side, gain in zip(("Left", "Right"), gains, strict=True):
            activations[name + side] = min(units[name] * gain, 1.0)
    return activations | _sample_gaze(rng)


def _sample_gaze(rng: np.random.Generator) -> dict[str, float]:
    """Both eyes look the same way: one turns out when the other turns in."""
    across, up = np.clip(rng.normal(0, GAZE_SIGMA, 2), -1, 1)
    to_left, to_right, upwards, downwards = (max(v, 0.0) for v in (across, -across, up, -up))
    return {
        "eyeLookOutLeft": to_left,
        "eyeLookInRight": to_left,
        "eyeLookInLeft": to_right,
        "eyeLookOutRight": to_right,
        "eyeLookUpLeft": upwards,
        "eyeLookUpRight": upwards,
        "eyeLookDownLeft": downwards,
        "eyeLookDownRight": downwards,
    }


# ---------------------------------------------------------------------------------------------
# Cameras


@dataclass(frozen=True)
class CameraDistribution:
    """How faces are seen. Angles in degrees, distances in mm.

    Yaw is a mixture: normal about frontal, uniform over half profiles, uniform up to profiles
    (what is left of the shares). The box of the 68 landmarks has a longer side of
    ``size / box_scale``, give or take `box_jitter`, and lies off the centre of the picture by up to
    `center_jitter` of its size.
    """

    frontal_share: float = 0.5
    frontal_sigma: float = 18.0
    wide_share: float = 0.36
    wide_limit: float = 60.0
    profile_limit: float = 90.0
    pitch_sigma: float = 12.0
    roll_sigma: float = 10.0
    tilt_limit: float = 35.0  # of pitch and roll
    nearest: float = 350.0  # a selfie
    farthest: float = 4000.0
    box_scale: float = 2.4
    box_jitter: float = 0.08
    center_jitter: float = 0.06


@dataclass(frozen=True)
class View:
    """How one face is seen, whatever the picture's size and the person.

    Attributes
    ----------
    yaw, pitch, roll : degrees.
    distance : mm from the lens to the model's origin along the optical axis.
    fill : longer side of the 68 landmarks' box / size of the picture.
    shift_x, shift_y : centre of that box from the centre of the picture / size of the picture.
    """

    yaw: float
    pitch: float
    roll: float
    distance: float
    fill: float
    shift_x: float
    shift_y: float


VIEW_FIELDS = tuple(field.name for field in fields(View))


def sample_view(rng: np.random.Generator, distribution: CameraDistribution | None = None) -> View:
    """A random view of a face."""
    d = distribution or CameraDistribution()
    chance, spread = rng.random(), rng.uniform(-1, 1)
    yaw = d.frontal_sigma * rng.standard_normal()
    if chance >= d.frontal_share:
        wide = chance < d.frontal_share + d.wide_share
        yaw = spread * (d.wide_limit if wide else d.profile_limit)
    pitch, roll = rng.normal(0, (d.pitch_sigma, d.roll_sigma))
    distance = np.exp(rng.uniform(np.log(d.nearest), np.log(d.farthest)))
    fill = rng.uniform(1 - d.box_jitter, 1 + d.box_jitter) / d.box_scale
    shift = rng.uniform(-d.center_jitter, d.center_jitter, 2)
    angles = (
        min(max(yaw, -d.profile_limit), d.profile_limit),
        min(max(pitch, -d.tilt_limit), d.tilt_limit),
        min(max(roll, -d.tilt_limit), d.tilt_limit),
    )
    return View(*(float(value) for value in (*angles, distance, fill, *shift)))


def place_camera(view: View, landmarks: np.ndarray, size: int) -> PerspectiveCamera:
    """The camera that shows (68, 3) landmarks (mm) as `view` says in a square picture.

    The principal point is the centre of the picture, ``(size - 1) / 2``.

    Raises
    ------
    P2FError : the face is so near that landmarks lie behind the lens.
    """
    rotation = rotation_from_pose(Pose(view.yaw, view.pitch, view.roll))
    rotated = np.ascontiguousarray((landmarks @ rotation.T).T, float)
    if rotated[2].min() + view.distance <= 0:
        raise P2FError(
            f"At a distance of {view.distance:.0f} mm parts of the face lie behind the lens; "
            "a view needs more than the head's radius."
        )
    x, y, size_per_focal = _frame(rotated, view.distance, view.fill, view.shift_x, view.shift_y)
    translation = np.array([x, y, view.distance])
    focal = size / size_per_focal
    return PerspectiveCamera(focal, np.full(2, (size - 1) / 2), rotation, translation)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _frame(rotated, distance, fill, shift_x, shift_y):
    """Where a head (3, N) must stand sideways, and picture size / focal length."""
    shift = shift_x, shift_y
    place = np.zeros(2)
    low, high = np.empty(2), np.empty(2)
    size_per_focal = 0.0
    # Moving the head sideways changes its perspective a little: a fixed point, reached in a few
    # steps because the head is shallow against its distance.
    for _ in range(8):
        low[:], high[:] = np.inf, -np.inf
        for axis in range(2):
            for n in range(rotated.shape[1]):
                point = (rotated[axis, n] + place[axis]) / (rotated[2, n] + distance)
                low[axis], high[axis] = min(low[axis], point), max(high[axis], point)
        size_per_focal = max(high[0] - low[0], high[1] - low[1]) / fill
        for axis in range(2):
            off = shift[axis] * size_per_focal - (low[axis] + high[axis]) / 2
            place[axis] += off * distance
    return place[0], place[1], size_per_focal


def ibug68(model: MorphableModel, vertices: np.ndarray) -> np.ndarray:
    """(68, 3) mm: the landmarks of a mesh, by which views are framed."""
    if "ibug68" not in model.landmarks:
        raise P2FError(
            f"Face model {model.name!r} has no landmark list 'ibug68', by which views are framed; "
            "add one to its landmarks."
        )
    return vertices[model.landmarks["ibug68"]]


# ---------------------------------------------------------------------------------------------
# Tables


@dataclass(frozen=True, eq=False)
class CoefficientTable:
    """Faces and views as numbers.

    Attributes
    ----------
    seed : decides every row.
    shape : (N, Ks) float32.
    expression : (N, Ke) float32.
    views : (N, 7) float64, columns as in `VIEW_FIELDS`.
    """

    seed: int
    shape: np.ndarray
    expression: np.ndarray
    views: np.ndarray

    def __len__(self) -> int:
        return len(self.views)

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz``; the same table gives the same bytes."""
        np.savez_compressed(
            path, seed=self.seed, shape=self.shape, expression=self.expression, views=self.views
        )

    @classmethod
    def load(cls, path: str | Path) -> CoefficientTable:
        """Read what `save` wrote; nothing in the file is executed.

        Raises
        ------
        P2FError : no such file, or not a table.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                table = cls(int(file["seed"]), file["shape"], file["expression"], file["views"])
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise P2FError(
                f"{path} holds no coefficient table ({error}); run `make repro` to make it."
            ) from error
        rows = len(table.views)
        if table.views.shape != (rows, len(VIEW_FIELDS)) or not (
            len(table.shape) == len(table.expression) == rows
        ):
            raise P2FError(f"The columns of the coefficient table {path} differ in length.")
        return table

    def view(self, row: int) -> View:
        return View(*(float(value) for value in self.views[row]))

    def render(self, model: MorphableModel, row: int, size: int) -> GroundTruth:
        """PNCC and offsets of one row in a `size` x `size` picture."""
        vertices = model.vertices(self.shape[row], self.expression[row])
        camera = place_camera(self.view(row), ibug68(model, vertices), size)
        return render_vertices(model, vertices, camera, size, size)


def sample_table(
    model: MorphableModel,
    seed: int,
    count: int,
    distribution: CameraDistribution | None = None,
    progress: bool = True,
) -> CoefficientTable:
    """`count` random faces and views.

    Row i is drawn from ``numpy.random.default_rng([seed, i])`` and nothing else, hence the same in
    a table of any length, made in any order.
    """
    table = CoefficientTable(
        seed,
        np.empty((count, model.n_shape), np.float32),
        np.empty((count, model.n_expression), np.float32),
        np.empty((count, len(VIEW_FIELDS))),
    )
    for row in tqdm(range(count), desc="faces", disable=not progress or count < 5000):
        rng = np.random.default_rng([seed, row])
        table.shape[row], table.expression[row] = sample_coefficients(model, rng)
        table.views[row] = astuple(sample_view(rng, distribution))
    return table
