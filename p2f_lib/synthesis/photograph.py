"""One synthetic photograph: a face mesh, an appearance, a scene and a camera make a picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba
import numpy as np

from p2f_lib.camera import AffineCamera, PerspectiveCamera
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import GroundTruth, render_vertices
from p2f_lib.morphable_model import MorphableModel, normals_of_rows, vertex_normals
from p2f_lib.rasterizer import rasterize
from p2f_lib.synthesis.anatomy import Anatomy, HeadFrame, anatomy, share_lit
from p2f_lib.synthesis.background import background_bytes
from p2f_lib.synthesis.glasses import draw_glasses
from p2f_lib.synthesis.hair import Sheet, SheetMesh, build_sheet, edge_height
from p2f_lib.synthesis.lens import Lens, develop, sample_lens
from p2f_lib.synthesis.light import (
    Light,
    highlights,
    irradiance,
    radiance,
    sample_light,
)
from p2f_lib.synthesis.noise import LATTICE
from p2f_lib.synthesis.occluders import draw_occluder
from p2f_lib.synthesis.paint import (
    LIGHT,
    N_ATTRIBUTES,
    SHINE,
    coarse_attributes,
    fill_attributes,
    light_rows,
    paint_person,
    paint_sheet,
    seen_rows,
    skin_reflectance,
)
from p2f_lib.synthesis.people import Appearance

HANGING = -0.35  # face widths above the eyes: hair that ends below hangs beside the neck
SOFT = 6.0  # lamps that are wider than this sharpness throw no shadow worth the work
SHADOW_SIDE = 64  # pixels of a shadow map
LINEAR = cv2.pow(np.multiply(np.arange(256), np.float32(1 / 255), dtype=np.float32), 2.2).ravel()
UPRIGHT = np.diag([1.0, -1.0, -1.0])  # camera space to x right, y up, z towards the camera


@dataclass(frozen=True, eq=False)
class Scene:
    """Where a person is photographed; the same object gives the same place in every frame.

    Attributes
    ----------
    light : lamps and sky.
    lens : the camera's character.
    background : seed of what is behind, None for plain grey.
    backlight : brightness of the background.
    occluder : seed of something in front of the face, None for nothing.
    body_follow : share of the head's turn that the shoulders follow.
    body_turn : further turn of the shoulders to picture right, degrees.
    body : whether there are a back of the head, a neck and shoulders at all.
    """

    light: Light
    lens: Lens
    background: int | None
    backlight: float
    occluder: int | None
    body_follow: float
    body_turn: float
    body: bool = True


def sample_scene(rng: np.random.Generator) -> Scene:
    """A random place, light and camera."""
    return Scene(
        light=sample_light(rng),
        lens=sample_lens(rng),
        background=int(rng.integers(2**31)),
        backlight=float(np.exp(rng.normal(-0.2, 0.5))),
        occluder=int(rng.integers(2**31)) if rng.random() < 0.13 else None,
        body_follow=float(rng.uniform(0.25, 0.95)),
        body_turn=float(rng.normal(0, 14)),
    )


def render_photo(
    model: MorphableModel,
    vertices: np.ndarray,
    camera: PerspectiveCamera | AffineCamera,
    appearance: Appearance,
    scene: Scene,
    height: int,
    width: int,
    rng: np.random.Generator,
    supersample: int = 2,
) -> tuple[np.ndarray, GroundTruth]:
    """Photograph a face.

    Parameters
    ----------
    model : the face model of the mesh; prepared on its first use (about half a second).
    vertices : (V, 3) mm, model space.
    camera : maps model space to the final picture.
    appearance, scene : who and where; reuse them for the frames of a clip.
    height, width : pixels of the final picture.
    rng : sensor noise of this frame, nothing else.
    supersample : the picture is painted this many times larger and averaged.

    Returns
    -------
    image : (H, W, 3) uint8.
    truth : PNCC, offsets and validity of the face mesh, whatever hides it in the photo.

    Raises
    ------
    P2FError : `supersample` below 1, a mesh that isn't the model's.
    """
    light, truth = render_light(
        model, vertices, camera, appearance, scene, height, width, supersample
    )
    return develop(light, truth.valid, scene.lens, rng), truth


def render_light(
    model: MorphableModel,
    vertices: np.ndarray,
    camera: PerspectiveCamera | AffineCamera,
    appearance: Appearance,
    scene: Scene,
    height: int,
    width: int,
    supersample: int = 2,
    behind: np.ndarray | None = None,
) -> tuple[np.ndarray, GroundTruth]:
    """The light of `render_photo` that falls into the camera, before the lens develops it.

    Light adds up: the mean of several moments is what a slow shutter sees, and somebody can be
    painted over a picture of others.

    Parameters
    ----------
    behind : (H, W, 3) float32, linear light of what stands behind the person; None for the scene's
        background. The other parameters are those of `render_photo`.

    Returns
    -------
    light : (H, W, 3) float32, linear.
    truth : as of `render_photo`.

    Raises
    ------
    P2FError : `supersample` below 1, a mesh that isn't the model's.
    """
    if supersample < 1:
        raise P2FError(f"supersample must be a whole number from 1 on, got {supersample}.")
    truth = render_vertices(model, vertices, camera, height, width)
    person = anatomy(model)
    frame = person.frame(vertices)
    head = UPRIGHT @ camera.rotation  # upright axes from model axes
    body = person.person(vertices, _torso_rotation(head, scene), frame)
    down = 0.35 * np.array([0, -1.0, 0]) + 0.65 * (head.T @ [0, -1.0, 0])
    sheets = [
        (sheet, build_sheet(sheet, person, body, frame, down))
        for sheet in (appearance.hair, appearance.hat)
        if sheet is not None
    ]
    lit = _lighting(person, scene.light, head, -camera.rotation[2])

    if behind is None:
        image = render_backdrop(scene, height, width, supersample)
    else:
        image = np.repeat(np.repeat(behind, supersample, axis=0), supersample, axis=1)
    large = (width * supersample, height * supersample)

    def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _to_rays(*camera.project_with_depth(points), float(supersample))

    perspective = isinstance(camera, PerspectiveCamera)
    shown = person.triangles if scene.body else model.triangles
    raster = rasterize(*project(body), shown, large[1], large[0], perspective=perspective)
    # Only what is seen is lit and coloured.
    rows = seen_rows(raster.triangle_id, person.triangles, person.n_total)
    anchors, place = light_rows(rows, person.lit_by, person.lit_share)
    normals = normals_of_rows(body, person.triangles, *person.around, anchors)
    shadow = _cast_shadow(body[anchors], sheets, lit.lamps[0], scene.light.sharpness[0], frame)
    light = irradiance(normals, person.visibility, anchors, lit.directions, lit.arriving)
    shine = highlights(normals, lit.view, lit.light, lit.lamps, appearance.gloss_power)
    gloss = np.float32(appearance.gloss)
    skin = _skin(person, anchors, appearance)
    coarse = coarse_attributes(skin, light, shine, shadow, gloss, person.openness, anchors)
    attributes = _attributes(person, rows, place, coarse, appearance)
    paint_person(
        image,
        supersample,
        raster.triangle_id,
        raster.barycentric,
        person.triangles,
        person.material,
        person.drawn_on,
        attributes,
        person.coordinates,
        person.details,
        LATTICE,
        *_person_paint(person, appearance, lit.lamps),
    )

    depth = raster.depth
    for sheet, mesh in sheets:
        seen = project(mesh.vertices)
        _draw_sheet(image, depth, sheet, mesh, frame, seen, perspective, lit)
    if appearance.glasses is not None or scene.occluder is not None:
        facing = (anchors < person.n_face) & (normals @ lit.view > 0.5)
        light = coarse[:, LIGHT:SHINE]
        face_light = light[facing].mean(0) if facing.any() else lit.arriving.sum(1)[:3] / 4
    if appearance.glasses is not None:
        draw_glasses(image, depth, appearance.glasses, frame, camera, supersample, face_light)
    if scene.occluder is not None:
        marks = (camera.project(frame.marks) + 0.5) * supersample - 0.5
        box = np.concatenate([marks.min(0), marks.max(0)])
        draw_occluder(image, box, appearance.skin, face_light, scene.occluder, marks)

    if supersample > 1:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image, truth


def render_backdrop(scene: Scene, height: int, width: int, block: int = 1) -> np.ndarray:
    """(H, W, 3) float32 linear light of a scene's background: `block` x `block` rays a pixel."""
    if scene.background is None:
        picture = np.full((height, width, 3), 0.5, np.float32)
        light = cv2.pow(picture, 2.2) * np.float32(scene.backlight)
        return np.repeat(np.repeat(light, block, axis=0), block, axis=1)
    picture = background_bytes(np.random.default_rng(scene.background), height, width)
    return _spread_light(picture, LINEAR * np.float32(scene.backlight), block)


@numba.njit(cache=True, nogil=True)
def _spread_light(picture, light, block):
    """The light of bytes, each pixel a block of rays, which are averaged again."""
    height, width = picture.shape[:2]
    out = np.empty((height * block, width * block, 3), np.float32)
    for row in range(height):
        for column in range(width):
            red, green = light[picture[row, column, 0]], light[picture[row, column, 1]]
            blue = light[picture[row, column, 2]]
            for ray in range(column * block, (column + 1) * block):
                pixel = out[row * block, ray]
                pixel[0], pixel[1], pixel[2] = red, green, blue
        for ray in range(row * block + 1, (row + 1) * block):
            out[ray] = out[row * block]
    return out


@numba.njit(cache=True, nogil=True)
def _to_rays(pixels, depth, block):
    """Pixels and depths in the larger picture of `block` x `block` rays a pixel, float32."""
    rays, far = np.empty(pixels.shape, np.float32), np.empty(depth.shape, np.float32)
    for n in range(len(pixels)):
        rays[n, 0] = (pixels[n, 0] + 0.5) * block - 0.5
        rays[n, 1] = (pixels[n, 1] + 0.5) * block - 0.5
        far[n] = depth[n]
    return rays, far


def _torso_rotation(head: np.ndarray, scene: Scene) -> np.ndarray:
    """(3, 3) turn of the torso in model space: shoulders follow the head only in part."""
    follow = cv2.Rodrigues(head)[0][:, 0] * scene.body_follow
    follow *= [0.5, 1.0, 0.5]  # they nod and lean even less
    turn = cv2.Rodrigues(np.array([0.0, np.radians(scene.body_turn), 0.0]))[0]
    return head.T @ turn @ cv2.Rodrigues(follow)[0]


@dataclass(frozen=True, eq=False)
class _Lighting:
    """A scene's light as this head sees it: model space, float32.

    Attributes
    ----------
    light : the scene's.
    view : (3,) unit vector to the camera.
    lamps : (K, 3) unit vectors.
    directions : (3, D) unit vectors from which light comes.
    arriving : (6, D) what comes from there: all but the first lamp, then the first lamp.
    """

    light: Light
    view: np.ndarray
    lamps: np.ndarray
    directions: np.ndarray
    arriving: np.ndarray


def _lighting(person: Anatomy, light: Light, head: np.ndarray, view: np.ndarray) -> _Lighting:
    rest, key = radiance(light, person.directions @ head.T)
    return _Lighting(
        light,
        np.asarray(view, np.float32),
        (light.directions @ head).astype(np.float32),
        np.ascontiguousarray(person.directions.T),
        np.ascontiguousarray(np.concatenate([rest, key], axis=1).T),
    )


def _cast_shadow(
    points: np.ndarray,
    sheets: list[tuple[Sheet, SheetMesh]],
    lamp: np.ndarray,
    sharpness: float,
    frame: HeadFrame,
) -> np.ndarray:
    """(N,) share of the first lamp's light that hair and hats let through to (N, 3) points."""
    share = np.ones(len(points), np.float32)
    if not sheets or sharpness < SOFT:
        return share
    helper = np.array([0.0, 1.0, 0.0]) if abs(lamp[1]) < 0.9 else np.array([1.0, 0, 0])
    right = _cross(helper, lamp)
    right /= np.linalg.norm(right)
    axes = np.stack([right, -_cross(lamp, right), -lamp], 1).astype(np.float32)
    scale = SHADOW_SIDE / (2.4 * frame.width)  # head, hair and brim
    origin = (frame.center @ axes).astype(np.float32)
    seen = (points @ axes - origin) * scale + np.float32(SHADOW_SIDE / 2)
    for sheet, mesh in sheets:
        dense = _dense(mesh.triangles, mesh.margin)
        placed = (mesh.vertices @ axes - origin) * scale + np.float32(SHADOW_SIDE / 2)
        caster = rasterize(
            placed[:, :2], placed[:, 2], dense, SHADOW_SIDE, SHADOW_SIDE, cull_back=False
        )
        # Hair lies on the skin: only what stands off it throws a shadow.
        standoff = np.float32(0.05 * frame.width * scale)
        shadow = share_lit(seen[:, :2], seen[:, 2], caster.depth, standoff)
        # A wide lamp's shadow is faint.
        strength = sharpness / (sharpness + 12) * (0.75 if sheet.window is None else 1.0)
        share *= 1 - np.float32(strength) * (1 - shadow)
    return share


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`np.cross` of two vectors of space, without its care for all others."""
    (u, v, w), (x, y, z) = a.tolist(), b.tolist()
    return np.array([v * z - w * y, w * x - u * z, u * y - v * x])


@numba.njit(cache=True, nogil=True)
def _dense(triangles, margin):
    """The triangles all of whose corners lie within the edge."""
    out = np.empty_like(triangles)
    count = 0
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        out[count, 0], out[count, 1], out[count, 2] = a, b, c
        count += margin[a] > 0 and margin[b] > 0 and margin[c] > 0
    return out[:count]


def _skin(person: Anatomy, rows: np.ndarray, appearance: Appearance) -> np.ndarray:
    """(len(rows), 3) linear reflectance."""
    return skin_reflectance(
        rows,
        person.regions,
        appearance.region_shift.astype(np.float32),
        appearance.skin.astype(np.float32),
        appearance.blotches,
        appearance.noise.astype(np.float32),
        person.coordinates,
        LATTICE,
    )


def _attributes(
    person: Anatomy, rows: np.ndarray, place: np.ndarray, coarse: np.ndarray, appearance: Appearance
) -> np.ndarray:
    """Vertex attributes for `paint_person`, (n_total, 10); only those of `rows` are filled in."""
    cover = np.full(len(rows), -99.0, np.float32)
    if appearance.scalp_cover > 0:
        edge = edge_height(appearance.scalp_edge, person.scalp_angle[rows])
        cover[:] = (person.scalp_height[rows] - edge) * person.face_width
    attributes = np.empty((person.n_total, N_ATTRIBUTES), np.float32)
    fill_attributes(
        attributes,
        rows,
        person.n_face,
        person.lit_by,
        person.lit_share,
        place,
        coarse,
        np.float32(0.4 if appearance.hair is not None else 0.0),
        (float(appearance.freckles), float(appearance.wrinkles)),
        appearance.noise.astype(np.float32),
        person.coordinates,
        cover,
        LATTICE,
    )
    return attributes


def _person_paint(person: Anatomy, appearance: Appearance, lamps: np.ndarray) -> tuple:
    """The arguments of `paint_person` after the noise table."""
    a, clothes = appearance, appearance.clothes
    key = lamps[0] if len(lamps) else np.array([0.0, 0.5, 0.8])
    jacket = clothes.jacket if clothes.jacket is not None else clothes.shirt
    tie = clothes.tie if clothes.tie is not None else clothes.shirt
    origin = person.torso_origin
    period, strength, turn = clothes.pattern
    values = (
        a.noise,
        a.lips,
        a.lip_edge,
        a.brow,
        a.brow_shape,
        a.lashes,
        a.iris,
        (a.iris_radius, a.pupil_radius, *a.gaze),
        a.sclera,
        (a.gaze[0] + 2.2 * key[0], a.gaze[1] + 2.2 * key[1], 1.2),
        a.beard,
        a.beard_shape,
        a.hair.color if a.hair is not None else a.beard,
        a.scalp_cover,
        a.teeth,
        (clothes.shirt, jacket, tie),
        (
            origin[0],
            origin[1],
            person.face_width,
            *clothes.neckline,
            float(clothes.jacket is not None),
            float(clothes.tie is not None),
            origin[2],
            6.28 / period * np.cos(turn),
            6.28 / period * np.sin(turn),
            strength,
        ),
    )
    return tuple(_as_tuple(value) for value in values)


def _as_tuple(value):
    """A number, a vector or a matrix as float, tuple or tuple of tuples."""
    plain = np.asarray(value, float).tolist()
    if np.ndim(value) == 2:
        return tuple(map(tuple, plain))
    return tuple(plain) if np.ndim(value) else plain


def _draw_sheet(
    image: np.ndarray,
    depth: np.ndarray,
    sheet: Sheet,
    mesh: SheetMesh,
    frame: HeadFrame,
    seen: tuple[np.ndarray, np.ndarray],
    perspective: bool,
    lit: _Lighting,
) -> None:
    """Lay hair or a hat, whose pixels and depths are `seen`, over the picture, in place."""
    pixels, distance = seen
    left, top, right, bottom = _window(pixels, distance, *image.shape[:2])
    if not len(mesh.triangles) or right <= left or bottom <= top:
        return
    normals = vertex_normals(mesh.vertices, mesh.triangles)
    nothing = np.zeros((0, lit.directions.shape[1]), np.float32)
    rows = np.zeros(0, np.int64)
    light = irradiance(normals, nothing, rows, lit.directions, lit.arriving)
    light = np.float32(0.8) * (light[:, :3] + light[:, 3:])
    margin = mesh.margin
    if sheet.raggedness > 0.2:  # hair thins out at its outline
        facing = np.abs(normals @ lit.view)
        margin = np.minimum(margin, np.float32(0.3 * frame.width) * (facing - np.float32(0.2)))
    shine = np.zeros_like(light)
    if sheet.gloss > 0.01:
        # Kajiya-Kay: strands shine where the half vector is square to them.
        for toward, color in zip(lit.lamps, lit.light.colors.astype(np.float32), strict=True):
            half = toward + lit.view
            half = half / max(np.linalg.norm(half), 1e-6)
            sine = np.clip(1 - (mesh.along @ half) ** 2, 0, 1)
            bright = np.clip(normals @ toward * 2, 0, 1) * sine**15
            gain = np.float32(sheet.gloss * (0.3 * sheet.color.max() + 0.08))
            shine += bright[:, None] * (gain * color)
    colors = np.stack([sheet.color, sheet.second]).astype(np.float32)
    edge = (0.05 * frame.width * sheet.softness + 0.5, 0.1 * frame.width * sheet.raggedness)
    sides, levels = [mesh.triangles], [1.0]
    if sheet.window is not None or sheet.edge.min() < HANGING:
        # The far side's inner surface first: it shows through gaps and beside the neck.
        sides.insert(0, np.ascontiguousarray(mesh.triangles[:, ::-1]))
        levels.insert(0, 0.5)
    pixels = pixels - np.array([left, top], np.float32)
    for triangles, level in zip(sides, levels, strict=True):
        raster = rasterize(
            pixels, distance, triangles, bottom - top, right - left, perspective=perspective
        )
        paint_sheet(
            image,
            depth,
            top,
            left,
            raster.triangle_id,
            raster.barycentric,
            raster.depth,
            triangles,
            margin,
            mesh.strand,
            np.float32(level) * light,
            np.float32(level) * shine,
            LATTICE,
            colors,
            sheet.contrast,
            edge,
            float(sheet.seed % 32),
        )


@numba.njit(cache=True, nogil=True)
def _window(pixels, depth, height, width):
    """Left, top, right, bottom (half open) of the part of a picture that a mesh may cover."""
    left = top = np.float32(np.inf)
    right = bottom = np.float32(-np.inf)
    for n in range(len(pixels)):
        x, y = pixels[n, 0], pixels[n, 1]
        if not (depth[n] > 0 and np.isfinite(x) and np.isfinite(y)):  # partly behind the camera
            return 0, 0, width, height
        left, right = min(left, x), max(right, x)
        top, bottom = min(top, y), max(bottom, y)
    return (
        int(max(np.floor(left), 0)),
        int(max(np.floor(top), 0)),
        int(min(np.ceil(right) + 1, width)),
        int(min(np.ceil(bottom) + 1, height)),
    )
