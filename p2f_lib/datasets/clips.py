"""Synthetic clips with known truth, in the layout of the 3D Menpo challenge.

One person a clip, who turns, talks, smiles and blinks. Everything is a pure function of the seed
and the clip's number; ``python -m p2f_lib.datasets.clips`` makes the data set. Beside the
challenge's own files lies ``<root>/truth/<clip>.npz`` with what the clip was rendered from.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from p2f_lib.camera import PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.datasets.menpo3d import Clip, write_clip
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import sample_coefficients
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.synthesis import render_photo, sample_appearance, sample_scene

FPS = 25.0
QUALITY = 85  # of the JPEG pictures
MARKUP = "menpo84"
MODEL_FILE = "face_model.safetensors"  # beside the clips: their coefficients belong to it


@dataclass(frozen=True)
class Plan:
    """What happens in a clip.

    Attributes
    ----------
    yaw, pitch, roll
        Largest angles, degrees.
    wander
        How far the head moves from the middle, as a fraction of the picture's size.
    covered
        The part of the clip, first and last moment in 0..1, in which a sheet of paper hides the
        middle of the face, so that the detector misses it; None for never.
    portrait
        A portrait hangs on the wall: a second, smaller face.
    """

    yaw: float
    pitch: float
    roll: float
    wander: float
    covered: tuple[float, float] | None = None
    portrait: bool = False


@dataclass(frozen=True, eq=False)
class ClipTruth:
    """What a clip was rendered from.

    Attributes
    ----------
    shape
        (Ks,) coefficients of the person.
    expressions
        (F, Ke) coefficients, one row a frame.
    cameras
        F cameras, from model space to the picture.
    height, width
        Of the pictures, pixels.
    """

    shape: np.ndarray
    expressions: np.ndarray
    cameras: tuple[PerspectiveCamera, ...]
    height: int
    width: int


PLANS = (
    Plan(yaw=18, pitch=8, roll=6, wander=0.04),  # talks to the camera
    Plan(yaw=50, pitch=10, roll=10, wander=0.06),  # looks far to both sides
    Plan(yaw=25, pitch=12, roll=12, wander=0.05, covered=(0.45, 0.6)),
    Plan(yaw=32, pitch=8, roll=8, wander=0.03, portrait=True),
)
"""The clips, in turn."""


@dataclass(frozen=True, eq=False)
class Performance:
    """What a person does in F frames.

    Attributes
    ----------
    poses
        (F, 3) yaw, pitch and roll in degrees.
    position
        (F, 2) of the head in the picture, as a fraction of its width and height from the middle.
    distance
        (F,) from the camera in mm.
    expression
        (F, Ke) coefficients.
    """

    poses: np.ndarray
    position: np.ndarray
    distance: np.ndarray
    expression: np.ndarray


def make_clips(
    model: MorphableModel,
    out_dir: str | Path,
    n_clips: int = 4,
    n_frames: int = 40,
    width: int = 400,
    height: int = 300,
    seed: int = 4,
    progress: bool = True,
) -> list[Clip]:
    """Render clips and their truth; the same arguments give the same files.

    Parameters
    ----------
    model
        The face model; its 84 landmark vertices are the truth.
    out_dir
        Root of the data set, see `p2f_lib.datasets.menpo3d`.
    n_clips, n_frames
        How many clips, and frames in each.
    width, height
        Of the pictures, pixels. The face is about 0.42 of the height.
    seed
        Decides everything else.
    progress
        Show a progress bar.
    """
    clips = []
    with tqdm(total=n_clips * n_frames, desc="clips", unit="frame", disable=not progress) as bar:
        for number in range(n_clips):
            plan = PLANS[number % len(PLANS)]
            rng = np.random.default_rng((seed, number))
            shape, _ = sample_coefficients(model, rng)
            performance = perform(model, plan, n_frames, rng)
            cameras = tuple(
                camera_at(model, performance, frame, width, height) for frame in range(n_frames)
            )
            truth = ClipTruth(shape, performance.expression, cameras, height, width)
            meshes = [model.vertices(shape, row) for row in truth.expressions]
            points = np.array([mesh[model.landmarks[MARKUP]] for mesh in meshes])
            pixels = np.array(
                [camera.project(p) for camera, p in zip(cameras, points, strict=True)]
            )
            frames = _counted(_shoot(model, plan, meshes, truth, seed, number), bar)
            name = f"{number + 1:03d}"
            clips.append(
                write_clip(out_dir, name, frames, pixels, points, fps=FPS, quality=QUALITY)
            )
            write_truth(out_dir, name, truth)
    return clips


def perform(
    model: MorphableModel, plan: Plan, n_frames: int, rng: np.random.Generator
) -> Performance:
    """Smooth head motion and a face that talks, smiles, blinks and looks around."""
    largest = np.array([plan.yaw, plan.pitch, plan.roll])
    poses = np.stack([_sway(n_frames, rng) for _ in range(3)], axis=1) * largest
    position = plan.wander * np.stack([_sway(n_frames, rng) for _ in range(2)], axis=1)
    distance = rng.uniform(700, 1100) * (1 + 0.06 * _sway(n_frames, rng))

    units = _talk(n_frames, rng)
    expression = np.zeros((n_frames, model.n_expression))
    for mode, name in enumerate(model.expression_names):
        # Both sides of a face do the same unless said otherwise: mouthSmileLeft is mouthSmile.
        both = name.removesuffix("Left").removesuffix("Right")
        expression[:, mode] = units.get(name, units.get(both, 0.0))
    return Performance(poses, position, distance, expression)


def camera_at(
    model: MorphableModel, performance: Performance, frame: int, width: int, height: int
) -> PerspectiveCamera:
    """The fixed camera, in the head's own coordinates of that frame.

    Its focal length shows the mean face's landmarks 0.42 of the picture high at the clip's mean
    distance.
    """
    marks = model.mean[model.landmarks[MARKUP]]
    focal = 0.42 * height * performance.distance.mean() / np.ptp(marks[:, 1])
    rotation = rotation_from_pose(Pose(*performance.poses[frame]))
    x, y = performance.position[frame] * (width, height) / focal
    distance = performance.distance[frame]
    middle = rotation @ ((marks.min(axis=0) + marks.max(axis=0)) / 2)
    translation = np.array([x * distance, y * distance, distance]) - middle * (1, 1, 0)
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    return PerspectiveCamera(focal, center, rotation, translation)


def write_truth(root: str | Path, name: str, truth: ClipTruth) -> None:
    """Write ``<root>/truth/<name>.npz``; the same truth gives the same bytes."""
    path = Path(root, "truth", f"{name}.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    cameras = {
        field: np.array([getattr(camera, field) for camera in truth.cameras])
        for field in ("focal", "principal_point", "rotation", "translation")
    }
    size = np.array([truth.height, truth.width])
    np.savez(path, shape=truth.shape, expressions=truth.expressions, size=size, **cameras)


def read_truth(root: str | Path, name: str) -> ClipTruth:
    """What the clip `name` was rendered from.

    Raises
    ------
    P2FError
        If there is no such file, as for every clip that wasn't made here, or it is broken.
    """
    path = Path(root, "truth", f"{name}.npz")
    if not path.is_file():
        raise P2FError(f"There is no {path}; only synthetic clips know what they were made from.")
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = zip(
                *(file[field] for field in ("focal", "principal_point", "rotation", "translation")),
                strict=True,
            )
            cameras = tuple(PerspectiveCamera(*row) for row in rows)
            height, width = (int(side) for side in file["size"])
            return ClipTruth(file["shape"], file["expressions"], cameras, height, width)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise P2FError(f"{path} is not the truth of a clip ({error}).") from None


# --- what a face does -----------------------------------------------------------------------------


def _sway(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """(F,) smooth, within -1..1 and reaching one of the two: three slow waves."""
    time = np.arange(n_frames) / FPS
    periods = rng.uniform((1.6, 1.0, 0.6), (2.4, 1.4, 0.9))
    phases = rng.uniform(0, 2 * np.pi, 3)
    waves = np.sin(2 * np.pi * time[:, None] / periods + phases) @ (1.0, 0.3, 0.08)
    return waves / np.abs(waves).max()


def _talk(n_frames: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Face unit without its side -> (F,) activation."""
    time = np.arange(n_frames) / FPS
    syllable = np.maximum(np.sin(2 * np.pi * rng.uniform(2.5, 3.5) * time + rng.uniform(0, 6)), 0)
    speaks = np.clip(0.5 + 0.8 * _sway(n_frames, rng), 0, 1)
    rounds = np.clip(_sway(n_frames, rng), 0, 1)
    smiles = np.clip(_sway(n_frames, rng), 0, 1)
    wonders = np.clip(_sway(n_frames, rng), 0, 1)
    looks = _sway(n_frames, rng)
    units = {
        "jawOpen": 0.35 * syllable * speaks,
        "mouthFunnel": 0.4 * rounds * speaks,
        "mouthLowerDown": 0.3 * syllable * speaks * (1 - rounds),
        "mouthSmile": 0.7 * smiles * (1 - rounds),
        "cheekSquint": 0.4 * smiles * (1 - rounds),
        "browInnerUp": 0.5 * wonders,
        "browOuterUp": 0.4 * wonders,
        "eyeBlink": _blinks(n_frames, rng),
    }
    # Left and right eye turn together, so one looks in when the other looks out.
    gaze = {
        "eyeLookOutLeft": looks,
        "eyeLookInRight": looks,
        "eyeLookInLeft": -looks,
        "eyeLookOutRight": -looks,
    }
    return units | {name: 0.5 * np.maximum(value, 0) for name, value in gaze.items()}


def _blinks(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """(F,) a blink of about a fifth of a second, every second or so."""
    time = np.arange(n_frames) / FPS
    blink, moment = np.zeros(n_frames), rng.uniform(0.2, 0.8)
    while moment < time[-1]:
        blink = np.maximum(blink, 1 - np.abs(time - moment) / 0.12)
        moment += rng.uniform(0.7, 1.4)
    return blink


# --- pictures -------------------------------------------------------------------------------------


def _shoot(
    model: MorphableModel,
    plan: Plan,
    meshes: list[np.ndarray],
    truth: ClipTruth,
    seed: int,
    number: int,
) -> Iterator[np.ndarray]:
    height, width = truth.height, truth.width
    rng = np.random.default_rng((seed, number, 1))
    appearance = sample_appearance(rng)
    scene = replace(sample_scene(rng), occluder=None)  # what is in the way is the plan's affair
    portrait = _portrait(model, height * 2 // 5, rng) if plan.portrait else None
    for frame, (mesh, camera) in enumerate(zip(meshes, truth.cameras, strict=True)):
        frame_rng = np.random.default_rng((seed, number, 2, frame))
        image = render_photo(
            model, mesh, camera, appearance, scene, height, width, frame_rng, supersample=2
        )[0]
        if portrait is not None:
            image = image.copy()
            image[: len(portrait), : len(portrait)] = portrait
        if plan.covered and plan.covered[0] <= frame / len(meshes) < plan.covered[1]:
            image = _cover(image, camera.project(mesh[model.landmarks[MARKUP]]), frame)
        yield image


def _portrait(model: MorphableModel, side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side, 3) another person, frontal, large in a frame."""
    shape, expression = sample_coefficients(model, rng)
    still = Performance(np.zeros((1, 3)), np.zeros((1, 2)), np.full(1, 900.0), expression[None])
    camera = camera_at(model, still, 0, side, side).scaled(1.6, np.full(2, -0.3 * (side - 1)))
    image = render_photo(
        model,
        model.vertices(shape, expression),
        camera,
        sample_appearance(rng),
        sample_scene(rng),
        side,
        side,
        rng,
        supersample=2,
    )[0]
    frame = max(2, side // 25)
    return cv2.copyMakeBorder(
        image[frame:-frame, frame:-frame], *(frame,) * 4, cv2.BORDER_CONSTANT, value=(60, 40, 25)
    )


def _cover(image: np.ndarray, marks: np.ndarray, frame: int) -> np.ndarray:
    """A sheet of paper over the middle of a face with (84, 2) `marks`; it sways a little."""
    low, high = marks.min(axis=0), marks.max(axis=0)
    size = high - low
    center = (low + high) / 2 + size * (0.0, 0.05 + 0.05 * np.sin(frame))
    sheet = cv2.RotatedRect(center.tolist(), (size * (0.75, 0.5)).tolist(), 10 + 8 * np.sin(frame))
    corners = np.round(sheet.points() * 16).astype(np.int32)  # in sixteenths of a pixel
    return cv2.fillConvexPoly(image.copy(), corners, (222, 218, 205), cv2.LINE_AA, shift=4)


def _counted(frames: Iterator[np.ndarray], bar: tqdm) -> Iterator[np.ndarray]:
    for frame in frames:
        yield frame
        bar.update()


def main(arguments: list[str] | None = None) -> None:
    """``python -m p2f_lib.datasets.clips --model ... --out ...``"""
    parser = argparse.ArgumentParser(prog="python -m p2f_lib.datasets.clips", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="face model, .safetensors")
    parser.add_argument("--out", type=Path, required=True, help="root of the data set")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args(arguments)
    try:
        model = MorphableModel.load(options.model)
        options.out.mkdir(parents=True, exist_ok=True)
        model.save(options.out / MODEL_FILE)
        make_clips(model, options.out, options.clips, options.frames, seed=options.seed)
    except P2FError as error:
        raise SystemExit(f"{parser.prog}: {error}") from None


if __name__ == "__main__":
    main()
