"""One synthetic photograph: a face mesh, an appearance, a scene and a camera make a picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from p2f_lib.camera import AffineCamera, PerspectiveCamera
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import GroundTruth, render_vertices
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.rasterizer import Raster, rasterize
from p2f_lib.synthesis.accessories import draw_glasses, draw_occluder
from p2f_lib.synthesis.anatomy import Anatomy, HeadFrame, anatomy
from p2f_lib.synthesis.background import draw_background
from p2f_lib.synthesis.hair import Sheet, build_sheet, edge_height
from p2f_lib.synthesis.lens import Lens, develop, sample_lens
from p2f_lib.synthesis.light import (
    Light,
    highlights,
    irradiance,
    radiance,
    sample_light,
    vertex_normals,
)
from p2f_lib.synthesis.noise import LATTICE, noise_at
from p2f_lib.synthesis.paint import N_ATTRIBUTES, paint_person, paint_sheet
from p2f_lib.synthesis.people import Appearance, skin_reflectance
from p2f_lib.synthesis.skin import to_linear

UPRIGHT = np.diag([1.0, -1.0, -1.0])  # camera space to x right, y up, z towards the camera


@dataclass(frozen=True, eq=False)
class Scene:
    """Where a person is photographed; the same object gives the same place in every frame.

    Attributes
    ----------
    light : lamps and sky.
    lens : the camera's character.
    background : seed of what is behind.
    backlight : brightness of the background.
    occluder : seed of something in front of the face, None for nothing.
    body_follow : share of the head's turn that the shoulders follow.
    body_turn : further turn of the shoulders to picture right, degrees.
    """

    light: Light
    lens: Lens
    background: int
    backlight: float
    occluder: int | None
    body_follow: float
    body_turn: float


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
    if supersample < 1:
        raise P2FError(f"supersample must be a whole number from 1 on, got {supersample}.")
    truth = render_vertices(model, vertices, camera, height, width)
    person = anatomy(model)
    frame = person.frame(vertices)
    head = UPRIGHT @ camera.rotation  # upright axes from model axes
    body = person.person(vertices, _torso_rotation(head, scene))
    view = -camera.rotation[2].astype(np.float32)
    lamps = (scene.light.directions @ head).astype(np.float32)  # upright to model space
    arriving = radiance(scene.light, person.directions @ head.T)

    backdrop = draw_background(np.random.default_rng(scene.background), height, width)
    image = to_linear(backdrop).astype(np.float32) * np.float32(scene.backlight)
    large = (width * supersample, height * supersample)
    image = np.ascontiguousarray(cv2.resize(image, large, interpolation=cv2.INTER_LINEAR))

    def draw(points: np.ndarray, *meshes: np.ndarray) -> list[Raster]:
        """One z-buffer for each set of triangles between the same points."""
        pixels = (camera.project(points) + 0.5) * supersample - 0.5
        depth, perspective = camera.depth(points), isinstance(camera, PerspectiveCamera)
        return [
            rasterize(pixels, depth, triangles, large[1], large[0], perspective=perspective)
            for triangles in meshes
        ]

    (raster,) = draw(body, person.triangles)
    # Only what is seen is lit and coloured.
    seen = np.zeros(len(person.triangles), bool)
    seen[raster.triangle_id[raster.valid]] = True
    rows = np.zeros(person.n_total, bool)
    rows[person.triangles[seen]] = True
    rows = np.flatnonzero(rows)
    normals = vertex_normals(body, person.triangles)[rows]
    attributes, light = _person_attributes(
        person, rows, appearance, scene, normals, view, lamps, arriving
    )
    paint_person(
        image,
        raster.triangle_id,
        raster.barycentric,
        person.triangles,
        person.material,
        attributes,
        LATTICE,
        *_person_paint(person, appearance, lamps),
    )

    depth = raster.depth
    down = 0.35 * np.array([0, -1.0, 0]) + 0.65 * (head.T @ [0, -1.0, 0])
    for sheet in (appearance.hair, appearance.hat):
        if sheet is not None:
            _draw_sheet(
                image, depth, sheet, person, body, frame, down, draw, view, lamps, arriving, scene
            )
    facing = (rows < person.n_face) & (normals @ view > 0.5)
    face_light = light[facing].mean(0) if facing.any() else arriving.sum(0) / 4
    if appearance.glasses is not None:
        draw_glasses(image, depth, appearance.glasses, frame, camera, supersample, face_light)
    if scene.occluder is not None:
        marks = (camera.project(frame.marks) + 0.5) * supersample - 0.5
        box = np.concatenate([marks.min(0), marks.max(0)])
        draw_occluder(image, box, appearance.skin, face_light, scene.occluder)

    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return develop(image, truth.valid, scene.lens, rng), truth


def _torso_rotation(head: np.ndarray, scene: Scene) -> np.ndarray:
    """(3, 3) turn of the torso in model space: shoulders follow the head only in part."""
    follow = Rotation.from_matrix(head).as_rotvec() * scene.body_follow
    follow *= [0.5, 1.0, 0.5]  # they nod and lean even less
    turn = Rotation.from_euler("y", scene.body_turn, degrees=True)
    return head.T @ (turn * Rotation.from_rotvec(follow)).as_matrix()


def _person_attributes(
    person: Anatomy,
    rows: np.ndarray,
    appearance: Appearance,
    scene: Scene,
    normals: np.ndarray,
    view: np.ndarray,
    lamps: np.ndarray,
    arriving: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertex attributes for `paint_person`, (n_total, 21), and the light alone, (len(rows), 3).

    Only the vertices `rows` are filled in; `normals` are theirs.
    """
    face = rows[rows < person.n_face]  # they come first
    n = len(face)
    places = person.coordinates[rows]
    blotches = noise_at(places[:n], 18.0, appearance.noise, 2)
    skin = skin_reflectance(appearance, person.regions[face], blotches)
    if appearance.freckles:
        spots = noise_at(places[:n], 3.0, appearance.noise + 5)
        skin *= 1 - appearance.freckles * np.clip(spots * 3 - 0.6, 0, 1)[:, None]
    if appearance.wrinkles:
        stretched = places[:n] * np.float32([0.4, 1, 1])
        bend = [noise_at(stretched, 3.5, appearance.noise + k) for k in (3, 4)]
        normals = normals.copy()
        normals[:n, 1:] += appearance.wrinkles * np.stack(bend, 1)
        normals[:n] /= np.linalg.norm(normals[:n], axis=1, keepdims=True)
    visible = person.visibility[rows]
    light = irradiance(normals, visible, person.directions, arriving)
    cover = np.full(len(rows), -99.0, np.float32)
    if appearance.scalp_cover > 0:
        edge = edge_height(appearance.scalp_edge, person.scalp_angle[rows])
        cover = (person.scalp_height[rows] - edge) * person.face_width
        if appearance.hair is not None:  # hair shades the skin beside it
            light = light * (1 - 0.4 * np.exp(np.minimum(cover, 0) / 10))[:, None]
    shine = highlights(normals, view, scene.light, lamps, appearance.gloss_power)
    openness = person.openness[rows, None]

    filled = np.zeros((len(rows), N_ATTRIBUTES), np.float32)
    filled[:n, 0:3] = skin
    filled[n:, 0:3] = appearance.skin
    filled[:, 3:6] = light
    filled[:, 6:9] = appearance.gloss * shine * openness
    filled[:, 9:12] = places
    filled[:, 12] = cover
    filled[:n, 13:21] = person.details[face]
    filled[n:, 20] = 99.0  # mm: no brow there
    attributes = np.empty((person.n_total, N_ATTRIBUTES), np.float32)
    attributes[rows] = filled
    return attributes, light


def _person_paint(person: Anatomy, appearance: Appearance, lamps: np.ndarray) -> tuple:
    """The arguments of `paint_person` after the noise table."""
    a, clothes = appearance, appearance.clothes
    key = lamps[0] if len(lamps) else np.array([0.0, 0.5, 0.8])
    jacket = clothes.jacket if clothes.jacket is not None else clothes.shirt
    tie = clothes.tie if clothes.tie is not None else clothes.shirt
    origin = person.torso_origin
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
            0.0,
            origin[2],
            *clothes.pattern,
        ),
    )
    return tuple(np.asarray(v, np.float32) if np.ndim(v) else float(v) for v in values)


def _draw_sheet(
    image,
    depth,
    sheet: Sheet,
    person: Anatomy,
    body: np.ndarray,
    frame: HeadFrame,
    down: np.ndarray,
    draw,
    view,
    lamps,
    arriving,
    scene: Scene,
) -> None:
    """Lay hair or a hat over the picture, in place."""
    mesh = build_sheet(sheet, person, body, frame, down)
    if not len(mesh.triangles):
        return
    normals = vertex_normals(mesh.vertices, mesh.triangles)
    light = 0.8 * irradiance(normals, None, person.directions, arriving)
    shine = np.zeros_like(light)
    if sheet.gloss > 0.01:
        # Kajiya-Kay: strands shine where the half vector is square to them.
        for toward, color in zip(lamps, scene.light.colors, strict=True):
            half = toward + view
            half = half / max(np.linalg.norm(half), 1e-6)
            sine = np.sqrt(np.clip(1 - (mesh.along @ half) ** 2, 0, 1))
            lit = np.clip(normals @ toward * 2, 0, 1)
            shine += (
                (sheet.gloss * lit * sine**30)[:, None] * color * (0.3 * sheet.color.max() + 0.08)
            )
    colors = np.stack([sheet.color, sheet.second]).astype(np.float32)
    edge = (0.05 * frame.width * sheet.softness + 0.5, 0.1 * frame.width * sheet.raggedness)
    # The far side's inner surface first: it shows through gaps and beside the neck.
    sides = (np.ascontiguousarray(mesh.triangles[:, ::-1]), mesh.triangles)
    rasters = draw(mesh.vertices, *sides)
    for raster, triangles, level in zip(rasters, sides, (0.5, 1.0), strict=True):
        paint_sheet(
            image,
            depth,
            raster.triangle_id,
            raster.barycentric,
            raster.depth,
            triangles,
            mesh.margin,
            mesh.strand,
            (level * light).astype(np.float32),
            (level * shine).astype(np.float32),
            LATTICE,
            colors,
            sheet.contrast,
            edge,
            float(sheet.seed % 32),
        )
