"""A fitted face shown anew in its photo: turned, with another expression, light or face.

The photo is the mesh's texture. Every pixel of the new view looks up its surface point where the
photo shows it; what the photo hides comes from the other half of the face, or else from the
colours around it. Behind the mesh lies the photo again, warped so that what surrounds the old
outline of the head surrounds the new one, as with the background mesh of the authors'
augmentation.

Light is second-order spherical harmonics in the frame of the picture: x right, y up, z to the
viewer (Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance Environment Maps",
2001).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy import sparse
from scipy.ndimage import gaussian_filter1d
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from skimage.measure import points_in_poly

from p2f_lib.camera import FRONTAL, PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import sample_coefficients
from p2f_lib.images import check_image
from p2f_lib.landmarks import visible_vertices
from p2f_lib.morphable_model import MorphableModel, boundary_loops, edges_of, vertex_normals
from p2f_lib.rasterizer import Raster, interpolate, rasterize

if TYPE_CHECKING:
    from p2f_lib.reconstruction import Face

ANY_YAW, PROFILE_YAW = (-90.0, 90.0), (30.0, 90.0)  # degrees, the authors' augmentations
SMILE = {
    "mouthSmileLeft": 0.9,
    "mouthSmileRight": 0.9,
    "cheekSquintLeft": 0.4,
    "cheekSquintRight": 0.4,
    "mouthDimpleLeft": 0.2,
    "mouthDimpleRight": 0.2,
}
LIGHTS = {  # name -> direction towards the light, None for light from everywhere
    "left": (-0.85, 0.25, 0.45),
    "right": (0.85, 0.25, 0.45),
    "above": (0.0, 0.9, 0.45),
    "below": (0.0, -0.9, 0.45),
    "front": (0.0, 0.0, 1.0),
    "even": None,
}
AMBIENT, LAMP = 0.2, 1.0  # of a named light
GAMMA = 2.2  # of display values
GAINS = (0.3, 3.0)  # of linear light: beyond, noise or a misfit would glow
MOUTH_COLOR = (45.0, 22.0, 20.0)  # what the photo doesn't show of it
RIDGE = 0.01  # of the light's fit, against mean squares of the harmonics: what is seen decides
LIT_FACING = 0.3  # cosine from which on skin says what light falls on it
NOT_SKIN = ("brows", "eyeball", "eyelids", "lips", "nostrils", "scalp", "beard")

# How many photo pixels there are for a pixel of the new view, across the surface's slant: none of
# the photo below the first number, nothing but the photo above the second.
ENOUGH_PIXELS = (0.25, 0.55)
BEYOND_FACE = (0.5, 0.9)  # the same where the network saw no face: behind an ear, in the hair
# Cosines between which skin begins to show its colour, and not its edge's shadow.
FACING = (0.45, 0.75)
OCCLUSION = 8.0  # mm of depth from one pixel to the next, where something covers something
CLEAR = (0.02, 0.055)  # of the head's height: how near to that the texture isn't to be trusted
RELIEF = np.array([0.0, 0.3, 0.6])  # the light that shapes what the photo doesn't show
SOFT_EDGE = 5.0  # mm from the outline within which the head fades into what is behind it
OPEN_EDGE = 16.0  # mm from the mesh's end at neck and hair, likewise
COARSE = 192  # pixels of the picture in which outlines are compared, along its longer side
ROW = 1024  # points that are sampled at a time
REACH = 1.3  # radii of the head beyond which the background stays where it is


@dataclass(frozen=True, eq=False)
class View:
    """Where a mesh is to be seen.

    Attributes
    ----------
    vertices : (V, 3) float32, mm, model space.
    camera : model space to pixels of the photo.
    """

    vertices: np.ndarray
    camera: PerspectiveCamera


@dataclass(frozen=True, eq=False)
class Light:
    """Light on a face by direction, without its colour: shading is 1 on average over the skin seen.

    Attributes
    ----------
    coefficients : (9, 3) of the real spherical harmonics up to order 2, for linear RGB.
    """

    coefficients: np.ndarray

    def __post_init__(self) -> None:
        coefficients = np.asarray(self.coefficients, float)
        if coefficients.shape != (9, 3) or not np.isfinite(coefficients).all():
            raise P2FError(
                "A light is 9 finite spherical-harmonic coefficients for each of red, green and "
                f"blue, (9, 3), got shape {coefficients.shape}."
            )
        object.__setattr__(self, "coefficients", coefficients)

    def shading(self, normals: np.ndarray) -> np.ndarray:
        """(N, 3) linear RGB factors on a white surface with (N, 3) unit normals."""
        return harmonics(normals) @ self.coefficients


def harmonics(directions: np.ndarray) -> np.ndarray:
    """(N, 9) real spherical harmonics Y00, Y1-1, Y10, Y11, Y2-2 ... Y22 of (N, 3) unit vectors."""
    x, y, z = np.asarray(directions, float).T
    first, second = np.sqrt(3 / (4 * np.pi)), np.sqrt(15 / (4 * np.pi))
    return np.stack(
        [
            np.full(len(x), np.sqrt(1 / (4 * np.pi))),
            *(first * y, first * z, first * x),
            *(second * x * y, second * y * z),
            np.sqrt(5 / (16 * np.pi)) * (3 * z**2 - 1),
            *(second * x * z, second / 2 * (x**2 - y**2)),
        ],
        axis=1,
    )


def named_light(name: str) -> Light:
    """One of `LIGHTS`: a lamp that far away, with some light from everywhere.

    Raises
    ------
    P2FError
        There is no such light.
    """
    if name not in LIGHTS:
        raise P2FError(f"There is no light {name!r}; there are {', '.join(LIGHTS)}.")
    direction = LIGHTS[name]
    coefficients = np.zeros(9)
    coefficients[0] = (1.0 if direction is None else AMBIENT) * np.sqrt(4 * np.pi)
    if direction is not None:
        lobe = np.repeat([np.pi, 2 * np.pi / 3, np.pi / 4], [1, 3, 5])  # of the clamped cosine
        toward = np.divide(direction, np.linalg.norm(direction))
        coefficients += LAMP * lobe * harmonics(toward[None])[0]
    return Light(np.repeat(coefficients[:, None], 3, axis=1))


# ---------------------------------------------------------------- what to show


def turned(
    face: Face,
    image: np.ndarray,
    yaw: float | None = None,
    pitch: float | None = None,
    roll: float | None = None,
    relative: bool = False,
) -> np.ndarray:
    """The photo with the head turned.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB, the photo of `face`.
    yaw, pitch, roll : degrees as of `Pose`; None leaves an angle as it is.
    relative : count them from the pose that the photo shows.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    P2FError
        An angle is not finite, or the picture isn't one.
    """
    return rerendered(face, image, posed(face, yaw, pitch, roll, relative))


def with_expression(face: Face, image: np.ndarray, expression: np.ndarray | None) -> np.ndarray:
    """The photo with another expression, (H, W, 3) uint8.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB, the photo of `face`.
    expression : (Ke,) coefficients, such as another face's; None for the neutral face.

    Raises
    ------
    P2FError
        Coefficients of another number or not finite.
    """
    return rerendered(face, image, expressed(face, expression))


def relit(face: Face, image: np.ndarray, light: Light) -> np.ndarray:
    """The photo with the face under another light, (H, W, 3) uint8.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB, the photo of `face`.
    light : from `named_light`, or `estimated_light` of another photo.
    """
    return rerendered(face, image, View(face.vertices, face.camera), light)


def jittered(
    face: Face,
    image: np.ndarray,
    rng: np.random.Generator,
    yaw: tuple[float, float] = ANY_YAW,
    expression_share: float = 0.5,
) -> np.ndarray:
    """The photo at a random yaw with a random expression, for augmentation; (H, W, 3) uint8.

    What it shows, the truth for a training, is `jittered_view` of a generator in the same state.
    """
    return rerendered(face, image, jittered_view(face, rng, yaw, expression_share))


def jittered_view(
    face: Face,
    rng: np.random.Generator,
    yaw: tuple[float, float] = ANY_YAW,
    expression_share: float = 0.5,
) -> View:
    """A random view of a face.

    Parameters
    ----------
    yaw : degrees between which it is uniform. Where both are positive, as `PROFILE_YAW`, either
        side is as likely.
    expression_share : 0..1, how far the expression goes to a plausible random one
        (`p2f_lib.ground_truth.sample_coefficients`).

    Raises
    ------
    P2FError
        Yaws out of order or not finite, a share outside 0..1.
    """
    low, high = yaw
    if not (np.isfinite([low, high]).all() and low <= high):
        raise P2FError(f"Yaws to draw between are (lowest, highest) in degrees, got {yaw}.")
    _check_share(expression_share)
    angle, side = rng.uniform(low, high), rng.choice([-1.0, 1.0])
    if low > 0:
        angle *= side
    drawn = sample_coefficients(face.model, rng)[1]
    expression = (1 - expression_share) * face.expression + expression_share * drawn
    return replace(posed(face, angle), vertices=expressed(face, expression).vertices)


def blended(
    face: Face, image: np.ndarray, other: Face, other_image: np.ndarray, share: float
) -> np.ndarray:
    """Two people in one: the first photo with a face between both, (H, W, 3) uint8.

    Parameters
    ----------
    image, other_image : (H, W, 3), (H', W', 3) uint8, RGB, the faces' photos.
    share : of the other face in shape, expression and texture, 0..1.

    Raises
    ------
    P2FError
        The faces have different face models, or the share lies outside 0..1.
    """
    mixed = between(face, other, share)
    view = View(mixed.vertices, mixed.camera)
    return rerendered(face, image, view, other=(other, other_image, share))


def examples(
    face: Face, image: np.ndarray, other: Face, other_image: np.ndarray, seed: int = 0
) -> list[list[tuple[str, np.ndarray]]]:
    """A photo with the head turned, other expressions, lights and faces.

    Returns
    -------
    list of list of (str, (H, W, 3) uint8)
        A list a kind, of titles and pictures. `other` is another person, to be mixed with.

    Raises
    ------
    P2FError
        The face model has no modes for a smile and an open jaw.
    """
    rng = np.random.default_rng(seed)
    expressions = {
        "neutral": None,
        "smile": smile(face),
        "jaw open": raised(face, {"jawOpen": 0.7}),
        "the other's": transferred_expression(face, other),
    }
    lights = {name: named_light(name) for name in ("left", "right", "above", "below", "even")}
    lights["the other's"] = estimated_light(other, other_image)
    return [
        [(f"yaw {yaw:+d}", turned(face, image, yaw)) for yaw in (-60, -40, -20, 20, 40, 60)],
        [
            *((f"pitch {a:+d}", turned(face, image, pitch=a)) for a in (-25, -12, 12, 25)),
            *((f"roll {a:+d}", turned(face, image, roll=a)) for a in (-30, 30)),
        ],
        [
            *((name, with_expression(face, image, e)) for name, e in expressions.items()),
            *(("jitter", jittered(face, image, rng, (-45.0, 45.0))) for _ in range(2)),
        ],
        [(f"light: {name}", relit(face, image, light)) for name, light in lights.items()],
        [
            (f"blend {share:g}", blended(face, image, other, other_image, share))
            for share in (0.25, 0.5, 0.75, 1.0)
        ],
    ]


def between(face: Face, other: Face, share: float) -> Face:
    """The first face with a mesh between both; see `blended`."""
    _check_share(share)
    _check_model(face, other)
    shape = (1 - share) * face.shape + share * other.shape
    expression = (1 - share) * face.expression + share * other.expression
    vertices = _mesh(face, shape, expression)
    return replace(face, shape=shape, expression=expression, vertices=vertices)


def transferred_expression(face: Face, other: Face) -> np.ndarray:
    """(Ke,) coefficients of another face, for `with_expression`.

    Raises
    ------
    P2FError
        The faces have different face models.
    """
    _check_model(face, other)
    return other.expression


def smile(face: Face) -> np.ndarray:
    """(Ke,) the face's coefficients with a smile; raises as `raised` does."""
    return raised(face, SMILE)


def raised(face: Face, levels: Mapping[str, float]) -> np.ndarray:
    """(Ke,) the face's coefficients, those of the named modes at the given levels at least.

    Raises
    ------
    P2FError
        The face model has none of these modes.
    """
    names = face.model.expression_names
    if not set(levels) & set(names):
        raise P2FError(
            f"The face model {face.model.name!r} has no expression modes {', '.join(levels)}; give "
            "coefficients instead."
        )
    expression = np.array(face.expression, np.float32)
    for mode, name in enumerate(names):
        expression[mode] = max(expression[mode], levels.get(name, -np.inf))
    return expression


def posed(
    face: Face,
    yaw: float | None = None,
    pitch: float | None = None,
    roll: float | None = None,
    relative: bool = False,
) -> View:
    """The face's mesh in another pose, turned about the middle of the head; see `turned`."""
    now, wanted = face.pose, {"yaw": yaw, "pitch": pitch, "roll": roll}
    angles = {}
    for name, degrees in wanted.items():
        if degrees is not None and not np.isfinite(degrees):
            raise P2FError(f"{name} has to be a finite number of degrees, got {degrees}.")
        base = getattr(now, name)
        angles[name] = base if degrees is None else degrees + relative * base
    rotation = rotation_from_pose(Pose(**angles))
    return View(face.vertices, replace(face.camera, rotation=rotation))


def expressed(face: Face, expression: np.ndarray | None) -> View:
    """The face's mesh with another expression where it is; see `with_expression`."""
    return View(_mesh(face, face.shape, expression), face.camera)


def _mesh(face: Face, shape: np.ndarray, expression: np.ndarray | None) -> np.ndarray:
    """(V, 3) float32, mm."""
    if expression is not None and not np.isfinite(expression).all():
        raise P2FError("Expression coefficients have to be finite; these hold NaN or infinity.")
    return face.model.vertices(shape, expression)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise P2FError(f"A share lies between 0 and 1, got {share}.")


def _check_model(face: Face, other: Face) -> None:
    if face.model is not other.model and face.model.checksum != other.model.checksum:
        raise P2FError(
            f"The faces were fitted with different face models, {face.model.name!r} and "
            f"{other.model.name!r}; reconstruct both with one."
        )


# ---------------------------------------------------------------- rendering


def rerendered(
    face: Face,
    image: np.ndarray,
    view: View,
    light: Light | None = None,
    other: tuple[Face, np.ndarray, float] | None = None,
) -> np.ndarray:
    """The photo with its face as a view shows it.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB, the photo of `face`.
    view : the mesh and camera to show; `posed`, `jittered_view`.
    light : None leaves the photo's on the skin.
    other : another face, its photo, and its share in the texture.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    P2FError
        `image` is no picture.
    """
    check_image(image)
    closed = _closed(face.model)
    old, new = closed.view(face.vertices, face.camera), closed.view(view.vertices, view.camera)
    warp = _Warp.between(old, new, closed.triangles)
    left, top, right, bottom = warp.region(image)
    if right <= left or bottom <= top:  # the head lies outside the picture before and after
        return image.copy()
    here = replace(new, camera=new.camera.scaled(1.0, np.array([-left, -top])))
    raster = _draw(here, closed.triangles, bottom - top, right - left)
    skin = _Skin.of(closed, face, image)
    texture = _texture(skin, closed, here, raster)
    edge = _edge_distance(closed, raster)[..., None]
    if other is not None:
        other_face, other_image, share = other
        second = _texture(_Skin.of(closed, other_face, other_image), closed, here, raster)
        # The first one's hair, ears and neck stay.
        texture += share * _ramp(edge, OPEN_EDGE, 4 * OPEN_EDGE) * (second - texture)
    cover = _cover(here, edge[..., 0], raster)[..., None]
    behind = _sampled(image, warp.source(left, top, right, bottom))
    shown = behind + cover * (texture - behind)
    if light is not None:
        log_gains = _log_gains(estimated_light(face, image), light, skin, new, closed)
        planes = interpolate(raster, closed.triangles, log_gains)
        shown *= _spread_gains(planes, cover, edge, warp.radius)
    result = image.copy()
    result[top:bottom, left:right] = np.clip(np.rint(shown), 0, 255)
    return result


@dataclass(frozen=True, eq=False)
class _Closed:
    """A face model's mesh whose holes, but not its outline, are closed by fans of triangles.

    The fans have vertices of their own, after the model's: each hole's rim again, and a hub.
    """

    triangles: np.ndarray  # (F', 3)
    loops: Sequence[np.ndarray]
    fans: Sequence[slice]  # each one's vertices, the hub last
    mirror: np.ndarray  # (V',) the vertex on the other side of the face
    inside: np.ndarray  # (V',) bool, of the fans
    edge: np.ndarray  # (V',) mm to the mesh's outline, inf where it has none
    ears: np.ndarray  # (V',) 0..1, 0 where the model doesn't name them
    scalp: np.ndarray  # (V',) bool, likewise

    @classmethod
    def of(cls, model: MorphableModel) -> _Closed:
        outline, *loops = boundary_loops(model.triangles) or [np.zeros(0, np.int32)]
        triangles, fans, start = [model.triangles], [], model.n_vertices
        for loop in loops:
            rim, hub = start + np.arange(len(loop)), start + len(loop)
            triangles.append(np.stack([np.roll(rim, -1), rim, np.full(len(loop), hub)], axis=1))
            fans.append(slice(start, hub + 1))
            start = hub + 1
        own = np.arange(start)
        model_rows = slice(model.n_vertices)
        mirror, edge = own.copy(), np.full(start, np.inf)
        ears, scalp = np.zeros(start), np.zeros(start, bool)
        mirror[model_rows] = cKDTree(model.mean).query(model.mean * [-1, 1, 1])[1]
        if len(outline):
            edge[model_rows] = cKDTree(model.mean[outline]).query(model.mean)[0]
        ears[model_rows] = np.clip(model.regions.get("ears", 0.0), 0, 1)
        scalp[model_rows] = np.asarray(model.regions.get("scalp", 0.0)) > 0.5
        return cls(
            triangles=np.concatenate(triangles).astype(np.int32),
            loops=loops,
            fans=fans,
            mirror=mirror,
            inside=own >= model.n_vertices,
            edge=edge,
            ears=ears,
            scalp=scalp,
        )

    def openness(self, view: View) -> np.ndarray:
        """(V',) pixels²: the area of the hole that a vertex helps to close, elsewhere 0."""
        pixels = view.camera.project(view.vertices)
        area = np.zeros(len(pixels))
        for rows in self.fans:
            area[rows] = cv2.contourArea(pixels[rows][:-1].astype(np.float32))
        return area

    def view(self, vertices: np.ndarray, camera: PerspectiveCamera) -> View:
        """A view of the closed mesh from (V, 3) vertices of the open one."""
        fans = [np.vstack([vertices[loop], vertices[loop].mean(axis=0)]) for loop in self.loops]
        return View(np.concatenate([vertices, *fans]).astype(np.float32), camera)


@lru_cache(maxsize=2)
def _closed(model: MorphableModel) -> _Closed:
    return _Closed.of(model)


@dataclass(frozen=True, eq=False)
class _Skin:
    """What a photo says of the colours of a closed mesh.

    Attributes
    ----------
    view : the mesh in the photo.
    image : (H, W, 3) uint8
    facing : (V',) cosine between the surface's normal and the ray to the camera, 0 where the mesh
        itself hides the vertex or the picture ends before it.
    on_face : (V',) 0..1, where the network saw the face too.
    certain : (V',) 0..1, where it did and nothing nearer to the camera is near in the photo: the
        fit is off by a few pixels, and a cheek beside the nose may bear the nose's colours.
    openness : (V',) pixels², the area of the hole that a vertex helps to close, elsewhere 0.
    difference : (V', 3) what to add to the colour of the other side of the face.
    fill : (V', 3) smooth colours for what the photo shows of neither side.
    """

    view: View
    image: np.ndarray
    facing: np.ndarray
    on_face: np.ndarray
    certain: np.ndarray
    openness: np.ndarray
    difference: np.ndarray
    fill: np.ndarray

    @classmethod
    def of(cls, closed: _Closed, face: Face, image: np.ndarray) -> _Skin:
        check_image(image)
        view = closed.view(face.vertices, face.camera)
        pixels = view.camera.project(view.vertices)
        inside = ((pixels >= 0) & (pixels <= np.array(image.shape[1::-1]) - 1)).all(axis=1)
        seen = visible_vertices(view.vertices, closed.triangles, view.camera) & inside
        facing = np.where(seen, np.clip(_facing(view, closed.triangles), 0, 1), 0.0)
        for rows in closed.fans:  # a mouth that is open at all shows its inside
            facing[rows] = seen[rows].any()
        own = _at(image, pixels)
        on_face = np.where(closed.inside, 1.0, _on_face(face, pixels))
        certain = np.where(closed.inside, 1.0, on_face * _clear(view, closed.triangles))
        trust = np.where(
            closed.scalp, _ramp(facing, *ENOUGH_PIXELS), _ramp(facing, *FACING) * certain
        )
        # The other side of a fan is none of the photo's business: a mouth is no mirror.
        trust_mirror = np.where(closed.inside, 0.0, trust[closed.mirror])
        extend = _Extension(closed.triangles, closed.scalp)
        difference = extend(trust * trust_mirror, own - own[closed.mirror], np.zeros((len(own), 3)))
        mirrored = own[closed.mirror] + difference
        rest = (1 - trust) * trust_mirror
        weight = trust + rest
        known = trust[:, None] * own + rest[:, None] * mirrored
        known /= np.maximum(weight, 1e-9)[:, None]
        default = np.zeros_like(known)
        for part in (closed.scalp, ~closed.scalp & ~closed.inside):
            if part.any():
                default[part] = np.average(known[part], axis=0, weights=weight[part] + 1e-9)
        fill = extend(weight, known, default)
        # Smooth colours alone would look like plastic: ears and jaw cast a little shade.
        shade = 1 + vertex_normals(view.vertices, closed.triangles) @ RELIEF
        smooth = extend(np.full(len(own), 0.02), shade[:, None], np.full((len(own), 1), 1.0))
        fill = np.clip(fill * shade[:, None] / smooth, 0, 255)
        fill[closed.inside] = MOUTH_COLOR
        openness = closed.openness(view)
        return cls(view, image, facing, on_face, certain, openness, difference, fill)

    def trust(self, closed: _Closed, view: View) -> tuple[np.ndarray, np.ndarray]:
        """(V',), (V',) 0..1: how well the photo shows a vertex for a view, and its mirror image."""
        facing = np.maximum(_facing(view, closed.triangles), 1e-3)
        rays = _rays(view), _rays(self.view)
        turn = np.degrees(np.arccos(np.clip((rays[0] * rays[1]).sum(axis=1), -1, 1)))
        # What looks like an ear and isn't the face's is what lay behind it, or hair before it.
        covered = closed.ears * _ramp(turn, 3.0, 20.0)

        def enough(rows: np.ndarray) -> np.ndarray:
            ratio, certain = self.facing[rows] / facing, self.certain[rows]
            within = _ramp(ratio, *ENOUGH_PIXELS)
            beyond = _ramp(ratio, *BEYOND_FACE) * (1 - covered)
            return beyond + certain * (within - beyond)

        own = enough(np.arange(len(facing)))
        # A mouth that opens wider shows what the photo doesn't.
        opened = np.maximum(closed.openness(view), 1e-9)
        own[closed.inside] *= _ramp((self.openness / opened)[closed.inside], 0.4, 0.8)
        return own, np.where(closed.inside, 0.0, enough(closed.mirror))


class _Extension:
    """Carries values over a mesh from where they are known to where they are not, smoothly.

    Least squares: values as known by their weights, neighbours alike, unless one is of the scalp
    and the other is not: skin says little of hair.
    """

    SMOOTHNESS = 2.0  # of an edge, against a vertex of weight 1
    PRIOR = 0.01  # of the default, which decides where nothing is known far and wide
    ACROSS = 0.01  # of an edge between scalp and skin

    def __init__(self, triangles: np.ndarray, scalp: np.ndarray) -> None:
        a, b = edges_of(triangles)[0].astype(np.int64).T
        alike = np.where(scalp[a] == scalp[b], 1.0, self.ACROSS)
        adjacent = sparse.coo_matrix((alike, (a, b)), (len(scalp), len(scalp)))
        adjacent = (adjacent + adjacent.T).tocsr()
        self.laplacian = sparse.diags(np.asarray(adjacent.sum(axis=1)).ravel()) - adjacent

    def __call__(self, weights: np.ndarray, values: np.ndarray, default: np.ndarray) -> np.ndarray:
        """(N, C) from (N,) weights, (N, C) values and (N, C) defaults."""
        system = self.SMOOTHNESS * self.laplacian + sparse.diags(weights + self.PRIOR)
        return splu(system.tocsc()).solve(weights[:, None] * values + self.PRIOR * default)


def _facing(view: View, triangles: np.ndarray) -> np.ndarray:
    """(V',) cosine between the normal and the ray to the camera."""
    return (vertex_normals(view.vertices, triangles) * _rays(view)).sum(axis=1)


def _rays(view: View) -> np.ndarray:
    """(V', 3) unit vectors to the camera, model space."""
    camera = view.camera
    rays = -camera.rotation.T @ camera.translation - view.vertices
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high`, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _draw(view: View, triangles: np.ndarray, height: int, width: int) -> Raster:
    pixels, depth = view.camera.project_with_depth(view.vertices)
    return rasterize(pixels, depth, triangles, height, width, perspective=True)


def _sampled(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: the picture at (H, W, 2) pixels, reflected beyond its border."""
    x, y = np.ascontiguousarray(np.moveaxis(pixels, -1, 0), np.float32)
    sampled = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return sampled.astype(np.float32)


def _at(plane: np.ndarray, points: np.ndarray, border: int = cv2.BORDER_REFLECT_101) -> np.ndarray:
    """(N, C) float32: a picture (H, W) or (H, W, C) at (N, 2) pixels."""
    rows = -(-len(points) // ROW)  # OpenCV takes rows of less than 32 768
    grid = np.zeros((rows * ROW, 2), np.float32)
    grid[: len(points)] = points
    x, y = np.moveaxis(grid.reshape(rows, ROW, 2), -1, 0)
    sampled = cv2.remap(plane, x.copy(), y.copy(), cv2.INTER_LINEAR, borderMode=border)
    return sampled.reshape(rows * ROW, -1)[: len(points)].astype(np.float32)


def _texture(skin: _Skin, closed: _Closed, view: View, raster: Raster) -> np.ndarray:
    """(H, W, 3) float32: the mesh in a view, with the photo's colours; anything where it isn't."""
    trust, trust_mirror = skin.trust(closed, view)
    places = skin.view.vertices
    attributes = [places, places[closed.mirror], skin.difference, skin.fill]
    planes = interpolate(
        raster, closed.triangles, np.column_stack([*attributes, trust, trust_mirror])
    )
    project = skin.view.camera.project
    own = _sampled(skin.image, project(planes[..., 0:3]))
    mirrored = _sampled(skin.image, project(planes[..., 3:6])) + planes[..., 6:9]
    trust, trust_mirror = planes[..., 12:13], planes[..., 13:14]
    hidden = planes[..., 9:12] + trust_mirror * (mirrored - planes[..., 9:12])
    return hidden + trust * (own - hidden)


def _edge_distance(closed: _Closed, raster: Raster) -> np.ndarray:
    """(H, W) mm from the mesh's end, 0 where there is no mesh."""
    edge = np.minimum(closed.edge, 1e3)
    return interpolate(raster, closed.triangles, edge[:, None])[..., 0]


def _cover(view: View, edge: np.ndarray, raster: Raster) -> np.ndarray:
    """(H, W) 0..1: how far the mesh covers what is behind it, soft at its edges."""
    scale = view.camera.focal / view.camera.translation[2]  # pixels a mm
    distance = cv2.distanceTransform(raster.valid.astype(np.uint8), cv2.DIST_L2, 5)
    return _ramp(distance, 0, max(SOFT_EDGE * scale, 1.5)) * _ramp(edge, 0, OPEN_EDGE)


def _on_face(face: Face, pixels: np.ndarray) -> np.ndarray:
    """(N,) 0..1: whether (N, 2) pixels of the photo lie well inside what the network saw."""
    kernel = np.ones((3, 3), np.uint8)
    valid = cv2.erode(face.valid.astype(np.uint8), kernel, borderValue=0)
    valid = cv2.GaussianBlur(valid.astype(np.float32), (0, 0), 1.0)
    at = _at(valid, face.crop.points_from_picture(pixels), cv2.BORDER_CONSTANT)
    return _ramp(at[:, 0], 0.3, 0.9)


def _clear(view: View, triangles: np.ndarray) -> np.ndarray:
    """(V',) 0..1: 0 beside and behind the outline of something nearer, 1 at some distance."""
    pixels = view.camera.project(view.vertices)
    low = pixels.min(axis=0)
    scale = (COARSE - 9) / np.ptp(pixels, axis=0).max()
    coarse = replace(view, camera=view.camera.scaled(scale, 4 - scale * low))
    depth = _draw(coarse, triangles, COARSE, COARSE).depth
    depth = np.where(np.isfinite(depth), depth, 1e6).astype(np.float32)
    nearer = depth - cv2.erode(depth, np.ones((3, 3), np.uint8)) > OCCLUSION
    distance = cv2.distanceTransform((~nearer).astype(np.uint8), cv2.DIST_L2, 5)
    at = _at(distance, coarse.camera.project(view.vertices))[:, 0]
    return _ramp(at, *(share * COARSE for share in CLEAR))


# ---------------------------------------------------------------- background


@dataclass(frozen=True, eq=False)
class _Warp:
    """Where what surrounds the head comes from.

    Attributes
    ----------
    outline : (N, 2) pixels of the photo, around the head in the new view.
    shift : (N, 2) from there to where it was in the photo.
    radius : of the head, pixels.
    box : (left, top, right, bottom) of the head before and after.
    """

    outline: np.ndarray
    shift: np.ndarray
    radius: float
    box: np.ndarray

    @classmethod
    def between(cls, old: View, new: View, triangles: np.ndarray) -> _Warp:
        """From the outlines of the head in two views.

        A point of the new outline that was near the old one stays with what it lay beside, such as
        the mesh's end at the neck. Where the head turned new surface to its outline, the angle
        about the middle of the head says what lay there.
        """
        places = [view.camera.project(view.vertices) for view in (old, new)]
        low = np.min([place.min(axis=0) for place in places], axis=0)
        high = np.max([place.max(axis=0) for place in places], axis=0)
        scale = (COARSE - 4) / (high - low).max()
        to_coarse = (scale, 2 - scale * low)
        before, after = (replace(v, camera=v.camera.scaled(*to_coarse)) for v in (old, new))
        outline, _ = _outline(before, triangles)
        target, raster = _outline(after, triangles)
        radius = np.sqrt(cv2.contourArea(outline.astype(np.float32)) / np.pi)

        u, v = target.astype(int).T
        points = interpolate(raster, triangles, before.vertices)[v, u]
        stayed = before.camera.project(points)
        gap = cKDTree(outline).query(stayed)[0]
        beside = np.exp(-((gap / (0.08 * radius)) ** 2))[:, None]
        shift = beside * stayed + (1 - beside) * _opposite(outline, target, _lean(before, after))
        shift = gaussian_filter1d(shift - target, len(target) / 60, axis=0, mode="wrap")
        keep = np.linspace(0, len(target), min(len(target), 180), endpoint=False).astype(int)
        target = (target[keep] - to_coarse[1]) / scale
        return cls(target, shift[keep] / scale, radius / scale, np.concatenate([low, high]))

    @property
    def reach(self) -> float:
        """Pixels from the head within which the background moves; never so near that it folds."""
        return max(REACH * self.radius, 2.0 * np.linalg.norm(self.shift, axis=1).max())

    def region(self, image: np.ndarray) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), the last two exclusive: what may change in the picture."""
        height, width = image.shape[:2]
        left, top = np.clip(np.floor(self.box[:2] - self.reach), 0, [width, height])
        right, bottom = np.clip(np.ceil(self.box[2:] + self.reach) + 1, 0, [width, height])
        return int(left), int(top), int(right), int(bottom)

    def source(self, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        """(h, w, 2) float32 pixels of the photo for those of a region of the new picture."""
        step = max(self.radius / 16, 1.0)
        columns, rows = (max(int(np.ceil(s / step)) + 1, 2) for s in (right - left, bottom - top))
        x, y = np.linspace(left, right - 1, columns), np.linspace(top, bottom - 1, rows)
        grid = np.stack(np.meshgrid(x, y), axis=-1)
        square = ((grid[:, :, None] - self.outline) ** 2).sum(axis=3)
        weights = 1 / (square + (0.03 * self.radius) ** 2) ** 1.5
        shift = (weights @ self.shift) / weights.sum(axis=2, keepdims=True)
        inside = points_in_poly(grid.reshape(-1, 2), self.outline).reshape(rows, columns)
        gap = np.where(inside, 0.0, np.sqrt(square.min(axis=2)))
        shift *= (1 - _ramp(gap, 0, self.reach))[..., None]
        across, down = np.meshgrid(
            np.linspace(0, columns - 1, right - left, dtype=np.float32),
            np.linspace(0, rows - 1, bottom - top, dtype=np.float32),
        )
        fine = cv2.remap(shift.astype(np.float32), across, down, cv2.INTER_LINEAR)
        own = np.stack(np.meshgrid(np.arange(left, right), np.arange(top, bottom)), axis=-1)
        return own.astype(np.float32) + fine


def _outline(view: View, triangles: np.ndarray) -> tuple[np.ndarray, Raster]:
    """(N, 2) pixels on the mesh around it, in order, and the raster that they were read from."""
    raster = _draw(view, triangles, COARSE, COARSE)
    mask = raster.valid.astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        raise P2FError("The head lies behind the camera or has no extent; nothing can be rendered.")
    return max(contours, key=len)[:, 0].astype(float), raster


def _lean(before: View, after: View) -> float:
    """Radians by which the head's up axis turns in the picture, clockwise."""
    angles = []
    for view in (before, after):
        right, down = view.camera.affine().matrix[:, 1]
        angles.append(np.arctan2(right, -down))
    return angles[1] - angles[0]


def _opposite(outline: np.ndarray, target: np.ndarray, lean: float) -> np.ndarray:
    """(M, 2): the outermost points of (N, 2) at the angles of (M, 2) about their middles."""
    middles = [_middle(points) for points in (outline, target)]
    (x, y), (u, v) = (outline - middles[0]).T, (target - middles[1]).T
    bins = 120
    slot = np.floor((np.arctan2(y, x) / (2 * np.pi)) % 1 * bins).astype(int) % bins
    farthest = np.zeros(bins)
    np.maximum.at(farthest, slot, np.hypot(x, y))
    centers = (np.arange(bins) + 0.5) * 2 * np.pi / bins
    known = farthest > 0
    angle = np.arctan2(v, u) - lean
    radius = np.interp(angle, centers[known], farthest[known], period=2 * np.pi)
    return middles[0] + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _middle(points: np.ndarray) -> np.ndarray:
    moments = cv2.moments(points.astype(np.float32))
    if moments["m00"] == 0:
        return points.mean(axis=0)
    return np.array([moments["m10"], moments["m01"]]) / moments["m00"]


# ---------------------------------------------------------------- light


def estimated_light(face: Face, image: np.ndarray) -> Light:
    """The light in which a photo shows a face, grey.

    Least squares of the brightness of the visible skin against the spherical harmonics of the
    fitted normals, as if the skin were of one colour; Tukey's weights leave out what it is not. The
    light's own colour can't be told from the skin's.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB, the photo of `face`.

    Raises
    ------
    P2FError
        Too little of the face is seen.
    """
    check_image(image)
    model, camera = face.model, face.camera
    pixels = camera.project(face.vertices)
    inside = ((pixels >= 0) & (pixels <= np.array(image.shape[1::-1]) - 1)).all(axis=1)
    seen = visible_vertices(face.vertices, face.triangles, camera) & inside
    view = View(face.vertices, camera)
    facing = _facing(view, face.triangles)
    seen &= (facing > LIT_FACING) & (_on_face(face, pixels) > 0.5)
    for region in NOT_SKIN:
        seen &= model.regions.get(region, np.zeros(model.n_vertices)) < 0.5
    if seen.sum() < 50:
        raise P2FError(
            f"Only {seen.sum()} vertices of the face's skin lie in the picture, too few to tell "
            "its light; 50 are needed."
        )
    grey = _at(image, pixels[seen]).mean(axis=1) / 255.0
    grey = np.maximum(grey, 1e-3).astype(float) ** GAMMA
    basis = harmonics(_normals(view, face.triangles)[seen])
    areas = (_areas(face.vertices, face.triangles) * facing)[seen]
    areas /= areas.sum()
    # Only half of the sphere is seen: a little ridge keeps the other half from running away.
    ridge = RIDGE * np.diag([0.0] + [0.1] * 3 + [1.0] * 5)
    weights = areas
    for _ in range(15):
        weighted = basis * weights[:, None]
        coefficients = np.linalg.solve(weighted.T @ basis + ridge, weighted.T @ grey)
        residual = np.abs(grey - basis @ coefficients)
        limit = 4.685 * 1.4826 * np.median(residual) + 1e-6
        weights = areas * (1 - np.minimum(residual / limit, 1) ** 2) ** 2
    coefficients /= max(areas @ basis @ coefficients, 1e-6)
    return Light(np.repeat(coefficients[:, None], 3, axis=1))


def _areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V,) mm²: three times the surface that belongs to each vertex."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    return np.bincount(triangles.ravel(), np.repeat(area, 3), len(vertices))


def _normals(view: View, triangles: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals in the frame of the picture: x right, y up, z to the viewer."""
    return vertex_normals(view.vertices, triangles) @ (FRONTAL @ view.camera.rotation).T


def _log_gains(photo: Light, light: Light, skin: _Skin, new: View, closed: _Closed) -> np.ndarray:
    """(V', 3) logarithms of the factors of display values that replace one light by another."""
    before = np.maximum(photo.shading(_normals(skin.view, closed.triangles)), 0.05)
    after = np.maximum(light.shading(_normals(new, closed.triangles)), 0.0)
    gains = np.clip(after / before, *GAINS)
    seen = (skin.on_face * skin.facing)[:, None] * before + 1e-9
    gains = np.clip(gains * seen.sum(axis=0) / (seen * gains).sum(axis=0), *GAINS)  # same exposure
    return skin.on_face[:, None] * np.log(gains) / GAMMA


def _spread_gains(
    log_gains: np.ndarray, cover: np.ndarray, edge: np.ndarray, radius: float
) -> np.ndarray:
    """(H, W, 3): gains over the picture; at neck and hair they fade beyond the mesh's end."""
    near = cover * (1 - _ramp(edge, OPEN_EDGE, 3 * OPEN_EDGE))

    def blurred(plane: np.ndarray, width: float) -> np.ndarray:
        plane = cv2.GaussianBlur(plane, (0, 0), max(width * radius, 0.5))
        return plane.reshape(*cover.shape[:2], -1)

    around = blurred(near * log_gains, 0.1) / np.maximum(blurred(near, 0.1), 1e-3)
    around *= _ramp(blurred(near, 0.1), 0.0, 0.5)
    inside = blurred(log_gains, 0.015)  # the mesh's facets don't show
    return np.exp(around + cover * (inside - around))
