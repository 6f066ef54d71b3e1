"""From a photo to 3D faces: detector, network, camera and face model behind one call."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from p2f_lib.camera import (
    AffineCamera,
    Correspondences,
    PerspectiveCamera,
    Pose,
    fit_perspective,
)
from p2f_lib.crop import Box, Crop
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.export import (
    TexturedMesh,
    write_glb,
    write_json,
    write_mesh_ply,
    write_obj,
    write_ply,
)
from p2f_lib.fitting import (
    FaceFit,
    Fitter,
    Localized,
    fit_face,
    valid_mask,
    vertex_deviation,
)
from p2f_lib.images import check_image
from p2f_lib.landmarks import visible_vertices
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.texture import (
    Texture,
    complete_texture,
    merge_textures,
    sample_texture,
    texture_map,
)
from p2f_lib.unet import Engine, UNet, load_unet, predict

if TYPE_CHECKING:
    from p2f_lib.detection import Detector

FACE_MODEL_FILE = "face_model.safetensors"
WEIGHTS_FILE = "unet.safetensors"
LANDMARKS_FILE = "landmarks.json"  # vertices chosen on annotated frames (section 4); optional
WEIGHTS_FOLDERS = ("data/release", "build")  # of a checkout; the released ones first

CROP_SCALE = 1.4  # as at the authors' evaluation, and the middle of the training's jitter
MIN_PIXELS = 50  # face pixels below which nothing is fitted
MIN_BOX_SIDE = 8.0  # pixels; nothing below is a face to any network here
MIN_BOX_OVERLAP = 0.25  # share of a box that has to lie in the picture
BATCH = 32  # crops a network pass
PHOTO_SCALE = 1.6  # of the crop: the last pass's leaves out forehead, ears and neck of the mesh
PHOTO_SIDE = 1024  # pixels, at most
OUTLINE = 2  # pixels of the crop: as far off the network's outline of the face may be
TEXTURE_SIDES = (512, 1024)  # of a saved mesh's texture: the larger one where the photo is finer

# How much work is done with a network, as of `Reconstructor`.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "full": {"passes": 2, "mirror": True, "same_crop": 1.0},
    "fast": {"passes": 2, "mirror": False, "same_crop": 0.75},
}
SAME_ROLL = 15.0  # degrees that a crop may be turned by and still show the head as in most training

# Confidence: a logistic of how far the network agrees with itself, placed such that one half tells
# people from other things; the model card says how well.
TOLERANCE = 0.05  # of the root of the face's pixels: one that reprojects within it is consistent
CONSISTENT_SHARE, STEEPNESS = 0.70, 13.5


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a photo: what the network saw and said, and the camera and mesh fitted to it.

    The network's planes live in the frame of `crop` (S x S pixels, the network's resolution);
    cameras and landmarks are in pixels of the whole photo (0-based, x right, y down).

    Attributes
    ----------
    box : where the face was looked for, photo pixels.
    crop : the square of the photo that the planes cover.
    image : (S, S, 3) uint8, the photo as the network saw it.
    pncc, offsets : (S, S, 3) float32, mm, model space; 0 outside `valid`.
    valid : (S, S) bool, pixels on the face.
    camera, affine : perspective and affine camera, model space to photo pixels.
    shape, expression : (Ks,), (Ke,) coefficients of `model`.
    precision : (Ks + Ke, Ks + Ke), their inverse covariance; see `landmarks_deviation`.
    vertices : (V, 3) float32, mm, the fitted mesh in model space.
    localized : model vertices found in the planes (section 3.4), crop pixels.
    confidence : 0..1, low where there is no face.
    photo, photo_crop : (P, P, 3) uint8, a wider square that holds the whole mesh, at the photo's
        own resolution; black outside the photo.
    photo_size : width and height of the whole photo, pixels.
    """

    model: MorphableModel = field(repr=False)
    box: Box
    crop: Crop
    image: np.ndarray = field(repr=False)
    pncc: np.ndarray = field(repr=False)
    offsets: np.ndarray = field(repr=False)
    valid: np.ndarray = field(repr=False)
    camera: PerspectiveCamera
    affine: AffineCamera = field(repr=False)
    shape: np.ndarray = field(repr=False)
    expression: np.ndarray = field(repr=False)
    precision: np.ndarray = field(repr=False)
    vertices: np.ndarray = field(repr=False)
    localized: Localized = field(repr=False)
    confidence: float
    photo: np.ndarray = field(repr=False)
    photo_crop: Crop = field(repr=False)
    photo_size: tuple[int, int] = field(repr=False)

    @property
    def triangles(self) -> np.ndarray:
        """(F, 3) int32 vertex indices, counter-clockwise seen from outside."""
        return self.model.triangles

    @property
    def points(self) -> np.ndarray:
        """(N, 3) float32, mm: the network's own surface, PNCC + offset of every valid pixel."""
        return self.pncc[self.valid] + self.offsets[self.valid]

    @property
    def point_colors(self) -> np.ndarray:
        """(N, 3) uint8: the photo at `points`."""
        return self.image[self.valid]

    @property
    def pose(self) -> Pose:
        """Yaw, pitch and roll of the head, degrees."""
        return self.camera.pose

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) mm in model space to (N, 2) pixels of the photo."""
        return self.camera.project(points)

    def landmarks(self, markup: str = "ibug68") -> np.ndarray:
        """(L, 2) float64, pixels of the photo: the mark-up's vertices, projected.

        Raises
        ------
        P2FError
            The face model doesn't know the mark-up.
        """
        return self.project(self.landmarks_3d(markup)).astype(np.float64)

    def landmarks_3d(self, markup: str = "ibug68") -> np.ndarray:
        """(L, 3) mm, model space."""
        return self.vertices[self._landmark_vertices(markup)]

    def landmarks_visible(self, markup: str = "ibug68") -> np.ndarray:
        """(L,) bool: False where the fitted mesh hides the landmark from the camera."""
        return self._visible[self._landmark_vertices(markup)]

    def landmarks_deviation(self, markup: str = "ibug68") -> np.ndarray:
        """(L, 3) mm: standard deviations of the landmarks in model space, larger where the face is
        hidden; see `p2f_lib.fitting.vertex_deviation` for what is and isn't in them."""
        return vertex_deviation(self.model, self.precision, self._landmark_vertices(markup))

    @cached_property
    def _visible(self) -> np.ndarray:
        return visible_vertices(self.vertices, self.triangles, self.camera)

    def _landmark_vertices(self, markup: str) -> np.ndarray:
        if markup not in self.model.landmarks:
            raise P2FError(
                f"The face model has no mark-up {markup!r}; "
                f"it has {', '.join(sorted(self.model.landmarks)) or 'none'}."
            )
        return self.model.landmarks[markup]

    def to_dict(self) -> dict:
        """Everything but the dense arrays, as `save` writes it to JSON."""
        markups = sorted(self.model.landmarks)
        camera = self.camera
        return {
            "box": [round(side, 3) for side in self.box.as_tuple()],
            "confidence": round(self.confidence, 4),
            "pose": {
                name: round(float(getattr(self.pose, name)), 3) for name in ("yaw", "pitch", "roll")
            },
            "landmarks": {m: self.landmarks(m).round(3) for m in markups},
            "landmarks_3d": {m: self.landmarks_3d(m).astype(np.float64).round(3) for m in markups},
            "landmarks_visible": {m: self.landmarks_visible(m) for m in markups},
            "landmarks_deviation": {m: self.landmarks_deviation(m).round(3) for m in markups},
            "camera": {
                "focal": float(camera.focal),
                "principal_point": np.asarray(camera.principal_point),
                "rotation": np.asarray(camera.rotation),
                "translation": np.asarray(camera.translation),
            },
            "affine": np.asarray(self.affine.matrix),
            "shape": np.asarray(self.shape, np.float64).round(5),
            "expression": dict(
                zip(
                    self.model.expression_names,
                    np.asarray(self.expression, np.float64).round(5).tolist(),
                    strict=True,
                )
            ),
        }

    def texture(self, size: int = 512, complete: bool = True) -> Texture:
        """The face's colours in the layout of `p2f_lib.texture.make_atlas`.

        Parameters
        ----------
        size : texels a side, 16 to 4096.
        complete : colour also what the photo doesn't show, from the face's other side and from the
            surroundings. Several photos of one person are merged before that:
            ``merge_textures([face.texture(complete=False) for face in faces])``.

        Raises
        ------
        P2FError
            `size` is out of range.
        """
        layout = texture_map(self.model, size)
        camera = self.camera.transformed(self.photo_crop.from_picture)
        found = sample_texture(layout, self.photo, camera, self.vertices, self._usable())
        return complete_texture(found, layout) if complete else found

    def _usable(self) -> np.ndarray:
        """(P, P) bool, pixels of `photo` that may show the face.

        Not those beyond the whole photo's edges, nor those that the network takes for background or
        that lie beside such. What its crop left out, nobody has judged.
        """
        side = len(self.photo)
        grid = np.indices((side, side))[::-1].reshape(2, -1).T
        places = self.photo_crop.points_to_picture(grid)
        inside = np.all((places >= 0) & (places <= np.array(self.photo_size) - 1), axis=1)
        column, row = np.rint(self.crop.points_from_picture(places)).astype(int).T
        beside = np.ones((2 * OUTLINE + 1, 2 * OUTLINE + 1), np.uint8)
        core = cv2.erode(self.valid.astype(np.uint8), beside, borderValue=1)
        size = self.crop.size
        judged = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < size)
        inside[judged] &= core[row[judged], column[judged]] > 0
        return inside.reshape(side, side)

    @property
    def texture_side(self) -> int:
        """Texels a side that the photo is fine enough for."""
        return TEXTURE_SIDES[self.photo_crop.size > TEXTURE_SIDES[0]]

    @cached_property
    def mesh(self) -> TexturedMesh:
        """The fitted mesh with its completed texture."""
        return self.textured_mesh(self.texture(self.texture_side))

    def textured_mesh(self, texture: Texture) -> TexturedMesh:
        """The fitted mesh with `texture`, this face's or one merged from several photos."""
        atlas = texture_map(self.model, len(texture.image)).atlas
        return TexturedMesh(
            self.vertices, self.triangles, atlas.coordinates, atlas.triangles, texture.image
        )

    def photo_mesh(self) -> TexturedMesh:
        """The fitted mesh with the photo itself as texture.

        As sharp as the photo, but surfaces that it doesn't show bear what covers them.
        """
        pixels = self.photo_crop.points_from_picture(self.project(self.vertices))
        places = (pixels + 0.5) / self.photo_crop.size * [1, -1] + [0, 1]
        return TexturedMesh(
            self.vertices, self.triangles, np.clip(places, 0, 1), self.triangles, self.photo
        )

    def save(self, path: str | Path, what: str | None = None) -> None:
        """Write the face in the format that the suffix names.

        - ``.ply``: the coloured point cloud of every face pixel, mm (binary); with
          ``what="mesh"`` the fitted mesh with coloured vertices, mm
        - ``.obj``: the fitted mesh, mm, with ``.mtl`` and ``_texture.png`` beside it
        - ``.glb``: the same in one file, in metres
        - ``.json``: landmarks, pose, box, confidence, cameras, coefficients

        Meshes bear `texture`; with ``what="photo"``, `.obj` and `.glb` bear the photo itself, see
        `photo_mesh`.

        Raises
        ------
        P2FError
            Another suffix, something that its format can't hold, or the file can't be written.
        """
        path = Path(path)
        match path.suffix.lower(), what:
            case ".ply", None | "points":
                write_ply(path, self.points, self.point_colors)
            case ".ply", "mesh":
                write_mesh_ply(path, self.mesh)
            case ".obj" | ".glb" as suffix, None | "mesh" | "photo":
                mesh = self.photo_mesh() if what == "photo" else self.mesh
                (write_obj if suffix == ".obj" else write_glb)(path, mesh)
            case ".json", None:
                write_json(path, self.to_dict())
            case _, None:
                raise P2FError(
                    f"Cannot save a face as {path.name!r}: the suffix has to be .ply (point "
                    "cloud), .obj or .glb (textured mesh), or .json (landmarks, pose, cameras, "
                    "coefficients)."
                )
            case _:
                raise P2FError(
                    f"Cannot save {what!r} as {path.name!r}: there are 'points' and 'mesh' for "
                    ".ply, 'mesh' and 'photo' for .obj and .glb."
                )


def confidence(consistent_share: float) -> float:
    """How sure one may be that the planes show a face, 0..1.

    Parameters
    ----------
    consistent_share : float
        Share of the valid pixels whose 3D point the fitted camera puts back within `TOLERANCE`
        times the size of the face: the network's two answers, where and what, agree.
    """
    return float(1 / (1 + np.exp(-STEEPNESS * (consistent_share - CONSISTENT_SHARE))))


def share_shape(faces: Sequence[Face], fitter: Fitter) -> list[Face]:
    """Faces of one person, fitted anew with one shape for all (Eq. 5); expressions stay their own.

    Parameters
    ----------
    faces : of one face model, a photo each.
    fitter : of that model, such as `Reconstructor.fitter`.

    Returns
    -------
    The faces in the same order, with new coefficients, meshes and cameras; `precision` stays that
    of each photo by itself.

    Raises
    ------
    P2FError
        No face at all, or faces of another model.
    """
    for face in faces:
        if face.model is not fitter.model and face.model.checksum != fitter.model.checksum:
            raise P2FError(
                f"A face was fitted with the face model {face.model.name!r}, not with "
                f"{fitter.model.name!r}; reconstruct all of them with one."
            )
    shape, expressions = fitter.coefficients_multi(face.localized for face in faces)
    shared = []
    for face, expression in zip(faces, expressions, strict=True):
        vertices = fitter.model.vertices(shape, expression)
        pixels = face.crop.points_to_picture(face.localized.pixels)
        pairs = Correspondences(vertices[face.localized.vertices], pixels)
        camera = fit_perspective(pairs, face.camera.principal_point, face.camera, subset=1000)
        known = {"shape": shape, "expression": expression, "vertices": vertices}
        shared.append(replace(face, camera=camera, **known))
    return shared


def neutral_mesh(faces: Sequence[Face]) -> TexturedMesh:
    """The mesh of a person without any expression, with what all photos show as its texture.

    Parameters
    ----------
    faces : of one person and one shape, see `share_shape`; a single face will do.
    """
    first = faces[0]
    size = max(face.texture_side for face in faces)
    seen = merge_textures([face.texture(size, complete=False) for face in faces])
    texture = complete_texture(seen, texture_map(first.model, size))
    return replace(first, vertices=first.model.vertices(first.shape)).textured_mesh(texture)


class Reconstructor:
    """Photo to faces: detect, crop, predict, fit; then again on the upright crop the fit proposes.

    Parameters
    ----------
    model : MorphableModel
    unet : UNet
        In evaluation mode, on the device where it shall run.
    detector : Detector, optional
        Finds boxes when none are given; dlib's by default, made when it is first needed.
    passes : int
        Passes through network and fit, at most; each after the first looks at the 68 fitted
        landmarks, in a crop turned so that the head is upright, as in most of the training: it
        depends neither on the detector's idea of a face box nor on how the picture is turned.
    mirror : bool
        Average with what the network says of the mirrored crop: twice its time, less error.
    same_crop : float
        Intersection over union from which the next crop is as good as the last, unless it is
        turned, so that another pass isn't worth its time; at 1, all passes are made.
    crop_scale : float
        Side of the crop over the longer side of the box.
    engine : {"torch", "onnxruntime", "onnxruntime-int8", "openvino"}
        What runs the network; all but the first are for the CPU (`p2f_lib.engines.make_engine`).
    threads : int, optional
        CPU threads of the network; default: what the engine's library thinks best.

    Raises
    ------
    P2FError
        The network was trained with another face model, the model has no "ibug68", or there is no
        such engine here.
    """

    def __init__(
        self,
        model: MorphableModel,
        unet: UNet,
        detector: Detector | None = None,
        passes: int = 2,
        mirror: bool = True,
        same_crop: float = 1.0,
        crop_scale: float = CROP_SCALE,
        engine: str = "torch",
        threads: int | None = None,
    ) -> None:
        check_model_matches(model, unet.metadata)
        if passes < 1 or crop_scale <= 0 or not 0 < same_crop <= 1:
            raise P2FError(
                "passes must be at least 1, crop_scale above 0 and same_crop above 0 and at most "
                f"1, got {passes}, {crop_scale} and {same_crop}."
            )
        if "ibug68" not in model.landmarks:
            raise P2FError(
                f"The face model {model.name!r} has no iBUG landmarks (ibug68), by which later "
                "passes find their crop."
            )
        self.model = model
        self.fitter = Fitter(model)
        self.unet = unet
        self.engine = _engine(engine, unet, threads, model)
        self.passes, self.mirror, self.same_crop = passes, mirror, same_crop
        self.crop_scale = crop_scale
        self._detector = detector

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | None = None,
        device: str = "auto",
        detector: Detector | None = None,
        engine: str = "torch",
        threads: int | None = None,
        variant: str = "full",
    ) -> Reconstructor:
        """The released network and face model, or others.

        Parameters
        ----------
        folder : str or Path, optional
            Holds ``face_model.safetensors``, ``unet.safetensors`` and maybe ``landmarks.json``.
            Default: the environment variable ``P2F_HOME``; else ``data/release``, or else ``build``
            (what the last ``make repro`` trained), in the current folder, the nearest parent with
            a ``dvc.yaml``, or the checkout that holds this package.
        device : str
            ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
        detector : Detector, optional
            In place of dlib's.
        engine, threads : str, int, optional
            What runs the network, on how many CPU threads; see `Reconstructor`. With another engine
            than ``"torch"``, ``"auto"`` means the CPU.
        variant : {"full", "fast"}
            The best, or the one for video: the network is asked once, without the mirrored crop,
            and again only where the fit proposes quite another crop.

        Raises
        ------
        P2FError
            A file is missing, damaged or doesn't match the other; no such device, engine or
            variant.
        """
        if variant not in VARIANTS:
            raise P2FError(f"There is no variant {variant!r}; there are {', '.join(VARIANTS)}.")
        folder = find_weights(folder)
        if engine != "torch" and device == "auto":
            device = "cpu"
        unet = load_unet(folder / WEIGHTS_FILE, choose_device(device))
        model = MorphableModel.load(folder / FACE_MODEL_FILE)
        check_model_matches(model, unet.metadata)
        options = VARIANTS[variant]
        reconstructor = cls(model, unet, detector, engine=engine, threads=threads, **options)
        if (folder / LANDMARKS_FILE).is_file():
            reconstructor.model = with_landmarks(model, folder / LANDMARKS_FILE)
        return reconstructor

    @property
    def detector(self) -> Detector:
        if self._detector is None:
            from p2f_lib.detection import DlibDetector  # loading dlib takes time and memory

            self._detector = DlibDetector()
        return self._detector

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Every face found, best first (confidence times the detector's score).

        Parameters
        ----------
        image : (H, W, 3) uint8, RGB

        Raises
        ------
        P2FError
            `image` is no such array.
        """
        check_image(image)
        found = [d for d in self.detector(image) if box_problem(d.box, image) is None]
        faces = self.reconstruct_many([image] * len(found), [d.box for d in found])
        ranked = [
            (face.confidence * detection.score, face)
            for face, detection in zip(faces, found, strict=True)
            if face is not None
        ]
        return [face for _, face in sorted(ranked, key=lambda pair: pair[0], reverse=True)]

    def reconstruct(self, image: np.ndarray, box: Box | Sequence[float] | None = None) -> Face:
        """The face in `box`, or the best one that the detector finds.

        Parameters
        ----------
        image : (H, W, 3) uint8, RGB
        box : (left, top, right, bottom), pixels, about brows to chin; optional

        Raises
        ------
        P2FError
            `image` or `box` is malformed, or the box lies outside the picture.
        NoFaceError
            The detector finds no face, or the network none in the box.
        """
        check_image(image)
        if box is None:
            faces = self(image)
            if not faces:
                raise NoFaceError(
                    "No face was found in the picture; give its box (left, top, right, bottom) "
                    "if there is one."
                )
            return faces[0]
        box = as_box(box)
        problem = box_problem(box, image)
        if problem:
            raise P2FError(problem)
        (face,) = self.reconstruct_many([image], [box])
        if face is None:
            raise NoFaceError(f"The network sees no face in the box {_sides(box)}.")
        return face

    def reconstruct_many(
        self,
        images: Sequence[np.ndarray],
        boxes: Sequence[Box],
        crops: Sequence[Crop | None] | None = None,
    ) -> list[Face | None]:
        """One face a picture, for pictures and boxes that are known to be sound.

        Parameters
        ----------
        images : N pictures (H, W, 3) uint8, RGB; the same one may come repeatedly.
        boxes : N boxes
        crops : N places to look at first in place of the squares about the boxes, such as
            `next_crop` of the frame before; None where there is none.

        Returns
        -------
        N faces, None where the network sees too little of one to fit anything.
        """
        if len(images) != len(boxes):
            raise P2FError(f"Got {len(images)} pictures and {len(boxes)} boxes.")
        faces: list[Face | None] = [None] * len(images)
        size, scale = self.unet.config.input_size, self.crop_scale
        given = crops or [None] * len(boxes)
        places = [
            crop or Crop.around(box, size, scale) for crop, box in zip(given, boxes, strict=True)
        ]
        pending = list(range(len(images)))
        for _ in range(self.passes):
            fresh = self._one_pass([(images[i], boxes[i], places[i]) for i in pending])
            # A later pass that fails leaves the earlier one's face standing.
            improved = [(i, face) for i, face in zip(pending, fresh, strict=True) if face]
            pending = []
            for i, face in improved:
                faces[i] = face
                last, fresh_crop = places[i], self.next_crop(face)
                if fresh_crop is not None:
                    places[i] = fresh_crop
                    if self.same_crop == 1 or not _same(last, fresh_crop, self.same_crop):
                        pending.append(i)
        return faces

    def next_crop(self, face: Face) -> Crop | None:
        """The upright square about the fitted landmarks: for another look, or for the next frame.

        None where they lie outside the picture.
        """
        landmarks = face.landmarks("ibug68")
        if _box_problem(Box.around(landmarks), face.photo_size) is not None:
            return None
        size = self.unet.config.input_size
        return Crop.upright(landmarks, size, self.crop_scale, _lean(face.affine))

    def _one_pass(self, views: list[tuple[np.ndarray, Box, Crop]]) -> list[Face | None]:
        faces: list[Face | None] = []
        for start in range(0, len(views), BATCH):
            part = views[start : start + BATCH]
            inputs = np.stack([crop.extract(image) for image, _, crop in part])
            for view, seen, pncc, offsets in zip(
                part, inputs, *predict(self.engine, inputs, self.mirror), strict=True
            ):
                faces.append(self._fit(*view, seen, pncc, offsets))
        return faces

    def _fit(
        self,
        image: np.ndarray,
        box: Box,
        crop: Crop,
        seen: np.ndarray,
        pncc: np.ndarray,
        offsets: np.ndarray,
    ) -> Face | None:
        if not (np.isfinite(pncc).all() and np.isfinite(offsets).all()):
            raise P2FError("The network's output is not finite: its weights are broken.")
        valid = valid_mask(pncc)
        if valid.sum() < MIN_PIXELS:
            return None
        pncc, offsets = pncc * valid[..., None], offsets * valid[..., None]
        height, width = image.shape[:2]
        photo_crop = _widened(crop)
        center = crop.points_from_picture(np.array([[(width - 1) / 2, (height - 1) / 2]]))[0]
        try:
            fit = fit_face(self.fitter, pncc, offsets, valid, center)
        except (P2FError, np.linalg.LinAlgError):  # too few pixels near the surface, or in one line
            return None
        to_picture = crop.to_picture
        return Face(
            model=self.model,
            box=box,
            crop=crop,
            image=seen,
            pncc=pncc,
            offsets=offsets,
            valid=valid,
            camera=fit.camera.transformed(to_picture),
            affine=fit.affine.transformed(to_picture),
            shape=fit.shape,
            expression=fit.expression,
            precision=fit.precision,
            vertices=fit.vertices,
            localized=fit.localized,
            confidence=confidence(_consistent_share(fit, pncc, offsets, valid)),
            photo=photo_crop.extract(image),
            photo_crop=photo_crop,
            photo_size=(width, height),
        )


def _widened(crop: Crop) -> Crop:
    """The square of `PHOTO_SCALE` times the side about the same centre, at the photo's own pixels.

    Never coarser than the crop, and never of more than `PHOTO_SIDE` pixels.
    """
    side = PHOTO_SCALE * crop.side
    shift = (side - crop.side) / 2
    size = int(np.clip(round(side), crop.size, PHOTO_SIDE))
    return replace(crop, left=crop.left - shift, top=crop.top - shift, side=side, size=size)


def _lean(camera: AffineCamera) -> float:
    """Clockwise angle of the head's up axis from the picture's, as seen in the picture; degrees."""
    right, down = camera.matrix[:, 1]
    return float(np.degrees(np.arctan2(right, -down)))


def _same(one: Crop, other: Crop, overlap: float) -> bool:
    """Whether two crops show a head nearly alike."""
    turned = (other.roll - one.roll + 180) % 360 - 180
    return abs(turned) <= SAME_ROLL and one.square.overlap(other.square) >= overlap


def _engine(name: str, unet: UNet, threads: int | None, model: MorphableModel) -> UNet | Engine:
    if name == "torch" and threads is None:  # `predict` then keeps everything on its device
        return unet
    from p2f_lib.engines import make_engine

    return make_engine(name, unet, threads, model)


def _consistent_share(
    fit: FaceFit, pncc: np.ndarray, offsets: np.ndarray, valid: np.ndarray
) -> float:
    pixels = np.argwhere(valid)[:, ::-1]
    gaps = np.linalg.norm(fit.camera.project(pncc[valid] + offsets[valid]) - pixels, axis=1)
    # Measured by the face, not by the crop, in which a small blob would always agree.
    return float((gaps < TOLERANCE * np.sqrt(valid.sum())).mean())


def as_box(box: Box | Sequence[float]) -> Box:
    """A `Box` from one or from any (left, top, right, bottom)."""
    if isinstance(box, Box):
        return box
    try:
        left, top, right, bottom = (float(side) for side in box)
    except (TypeError, ValueError) as error:
        raise P2FError(
            f"A box is four numbers (left, top, right, bottom) in pixels, got {box!r}."
        ) from error
    return Box(left, top, right, bottom)


def box_problem(box: Box, image: np.ndarray) -> str | None:
    """A sentence on what makes `box` no place for a face in `image`, None if it is one."""
    return _box_problem(box, (image.shape[1], image.shape[0]))


def _box_problem(box: Box, size: tuple[int, int]) -> str | None:
    width, height = size
    if max(box.width, box.height) < MIN_BOX_SIDE:
        return (
            f"The box {_sides(box)} is smaller than {MIN_BOX_SIDE:g} pixels, too small for a face."
        )
    across = min(box.right, width - 0.5) - max(box.left, -0.5)
    down = min(box.bottom, height - 0.5) - max(box.top, -0.5)
    if max(across, 0) * max(down, 0) < MIN_BOX_OVERLAP * box.width * box.height:
        return (
            f"The box {_sides(box)} lies outside the picture of {width} x {height} pixels, wholly "
            "or for the most part; a box is (left, top, right, bottom)."
        )
    return None


def _sides(box: Box) -> str:
    return "({})".format(", ".join(f"{side:g}" for side in box.as_tuple()))


def find_weights(folder: str | Path | None = None) -> Path:
    """The folder with network and face model; see `Reconstructor.from_pretrained`.

    Raises
    ------
    P2FError
        No folder has both files.
    """
    if folder is not None:
        candidates = [Path(folder)]
    elif os.environ.get("P2F_HOME"):
        candidates = [Path(os.environ["P2F_HOME"])]
    else:
        here = Path.cwd()
        checkouts = [p for p in (here, *here.parents) if (p / "dvc.yaml").is_file()][:1]
        bases = [here, *checkouts, Path(__file__).resolve().parents[1]]
        candidates = [base / folder for base in bases for folder in WEIGHTS_FOLDERS]
    for candidate in candidates:
        if all((candidate / name).is_file() for name in (FACE_MODEL_FILE, WEIGHTS_FILE)):
            return candidate
    raise P2FError(
        f"There is no {FACE_MODEL_FILE} with {WEIGHTS_FILE} in "
        f"{' or '.join(dict.fromkeys(map(str, candidates)))}. "
        "Run `dvc pull` to fetch them or `make repro` to train others."
    )


def choose_device(device: str = "auto") -> torch.device:
    """``"auto"`` or a PyTorch device name to a device that is there.

    Raises
    ------
    P2FError
        No such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError, TypeError) as error:
        raise P2FError(
            f"There is no device {device!r} here; use auto, cpu, or cuda where PyTorch sees one."
        ) from error
    return chosen


def check_model_matches(model: MorphableModel, metadata: dict[str, str]) -> None:
    """Refuse a face model other than the one whose PNCC and offsets the network learned.

    The mesh may be subdivided more or less than in training: its surface stays the same.
    """
    wanted = metadata.get("face_model_checksum")
    coarse = model.coarse or model
    if wanted is not None and wanted not in (model.checksum, coarse.checksum):
        raise P2FError(
            f"The face model {model.name!r} (checksum {coarse.checksum[:12]}) is not the one that "
            f"the network was trained with, {metadata.get('face_model', 'unknown')!r} (checksum "
            f"{wanted[:12]}). Run `make repro` or `dvc pull` to get a matching pair."
        )


def with_landmarks(model: MorphableModel, path: str | Path) -> MorphableModel:
    """`model` with the vertex lists of a JSON file, ``{mark-up: [vertex, ...]}``.

    Raises
    ------
    P2FError
        The file holds anything else.
    """
    path = Path(path)
    try:
        lists = json.loads(path.read_text())
        chosen = {}
        for markup, vertices in lists.items():
            given = np.array(vertices)
            known = model.landmarks.get(markup, given)
            if (
                given.dtype.kind != "i"
                or given.ndim != 1
                or given.shape != known.shape
                or not ((given >= 0) & (given < model.n_vertices)).all()
            ):
                raise ValueError(f"{markup!r} doesn't fit it")
            chosen[markup] = given.astype(np.int32)
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise P2FError(
            f"{path} is no list of landmark vertices for {model.name!r}: {error}."
        ) from error
    return replace(model, landmarks={**model.landmarks, **chosen})


def write_landmarks(path: str | Path, lists: dict[str, np.ndarray], model: MorphableModel) -> None:
    """Write vertex lists for `with_landmarks`; other mark-ups that the file has stay.

    Raises
    ------
    P2FError
        The file is there and holds anything else, or it can't be written.
    """
    path = Path(path)
    kept = {}
    if path.exists():
        with_landmarks(model, path)  # refuses anything else
        kept = json.loads(path.read_text())
    kept |= {markup: np.asarray(vertices).tolist() for markup, vertices in lists.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept) + "\n")
    except OSError as error:
        raise P2FError(f"Cannot write {path}: {error}.") from error
