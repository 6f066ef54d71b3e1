"""The embedded benchmark: synthetic clips with known truth, laid out as the 3D Menpo challenge.

Twelve clips of 100 frames, made by one command from one seed that no training and no held-out set
uses; made again, every byte is the same::

    python -m p2f_lib.datasets.clips --model data/release/face_model.safetensors \\
        --out data/menpo3d_synthetic

`PLANS` says what each clip shows. Pictures are taken in linear light, moment by moment: motion blur
is the mean of what the camera saw while the shutter was open, a second person is a second head at
another distance. The truth is amodal: what glasses, hands or others hide is annotated too. A frame
is annotated while half of the 84 points lie within the picture; where the person has left, there
is no ``.ljson``, and the frame's number is missing in `Clip.frames`. The annotated person is the
largest one over the whole clip.

Beside the challenge's own files lies ``<root>/truth/<clip>.npz`` with what the clip was rendered
from: with the face model beside the clips it gives the dense mesh of every annotated frame.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from p2f_lib.camera import PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.datasets.acting import FACE_HEIGHT, FPS, Performance, Role, perform
from p2f_lib.datasets.menpo3d import Clip, write_clip
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import ibug68, sample_coefficients
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.synthesis import (
    Appearance,
    Scene,
    render_backdrop,
    render_light,
    render_photo,
    sample_appearance,
    sample_scene,
)
from p2f_lib.synthesis.hands import draw_hand
from p2f_lib.synthesis.lens import develop
from p2f_lib.synthesis.light import Light
from p2f_lib.synthesis.occluders import OCCLUDERS, draw_occluder
from p2f_lib.synthesis.relief import draw_polygon
from p2f_lib.synthesis.skin import pick, to_linear

SEED = 84_2017  # far from the small numbers that training and held-out sets start from
WIDTH, HEIGHT = 384, 288
QUALITY = 20  # of the pictures; in the scale of OpenCV's encoder, about 75 in others'
MARKUP = "menpo84"
MODEL_FILE = "face_model.safetensors"  # beside the clips: their coefficients belong to it
UPRIGHT = np.diag([1.0, -1.0, -1.0])  # between camera space and x right, y up, z to the camera
BLUR_STEP = 1.5  # pixels that anything moves at most from one moment of an exposure to the next
MOMENTS = 15  # of an exposure, at most

LOOKS: Mapping[str, Callable[[Appearance], bool]] = {
    "fair": lambda a: a.skin.mean() > 0.4,
    "brown": lambda a: 0.1 < a.skin.mean() < 0.4,
    "dark": lambda a: a.skin.mean() < 0.1,
    "bare": lambda a: a.glasses is None and a.hat is None,
    "glasses": lambda a: a.glasses is not None and a.glasses.opacity < 0.2 and a.hat is None,
    "sunglasses": lambda a: a.glasses is not None and a.glasses.opacity > 0.6 and a.hat is None,
    "bald": lambda a: a.hair is None,
    "undyed": lambda a: a.beard[0] >= a.beard[1] >= a.beard[2],  # which has the hair's hue
    "fringe": lambda a: (
        a.hair is not None and a.hair.edge[:, 0].max() < 0.25 and a.hair.thickness[1] < 0.15
    ),
    "cap": lambda a: a.hat is not None and a.hat.brim[0] > 0.3 and a.hat.brim[1] == 0,
    "headscarf": lambda a: a.hat is not None and a.hat.window is not None,
    "beard": lambda a: a.beard_shape[0] > 0.7,
}
"""What can be asked of a person's appearance."""

# Motion blur is made of real motion here, and exposure meters work.
SOUND_LENS: Mapping[str, Any] = {
    "motion": (0.0, 0.0), "exposure": 0.3, "contrast": 1.0, "saturation": 1.0, "shrink": 1.0,
    "defocus": 0.0,
}  # fmt: skip
LENSES: Mapping[str, Mapping[str, Any]] = {
    "good": {"noise": (0.004, 0.7, 0.0), "jpeg": 100, "monochrome": False},
    "grey": {"noise": (0.01, 0.7, 1.0), "jpeg": 100, "monochrome": True},
    "night": {"noise": (0.035, 0.6, 1.0), "jpeg": 100, "exposure": 0.09},
    "poor": {"noise": (0.03, 0.5, 1.0), "jpeg": 22, "shrink": 2.5, "defocus": 0.002},
}
"""What a clip's camera is like; chance decides the rest."""


@dataclass(frozen=True)
class View:
    """Where a camera stands, seen from the one straight before the person.

    Attributes
    ----------
    around
        How far it has gone round the person to picture right, degrees.
    zoom
        How much larger it shows everything.
    """

    around: float = 0.0
    zoom: float = 1.0


@dataclass(frozen=True)
class Plan:
    """What happens in a clip. Moments are in 0..1.

    Attributes
    ----------
    shows
        All of it in a line.
    role
        The annotated person.
    others
        Further people in the picture.
    distance
        From the camera in mm at which the landmarks are `FACE_HEIGHT` of the picture high.
    shutter
        How long it is open, in frames.
    light
        "any", "side" (one hard lamp), "dark", or "turning" (lamps that go round the person).
    lens
        One of `LENSES`.
    sheet
        First and last moment in which a sheet of paper hides the middle of the face.
    hand
        Way of a hand before the face: (moment, right, down) in face heights from its middle; none
        before the first and after the last moment.
    holds
        One of `p2f_lib.synthesis.occluders.OCCLUDERS`, held before the face all the time.
    portrait
        A portrait hangs on the wall: a second, smaller face.
    cuts
        (moment, view) from which on another camera films.
    """

    shows: str
    role: Role
    others: tuple[Role, ...] = ()
    distance: float = 900.0
    shutter: float = 0.5
    light: str = "any"
    lens: str = "good"
    sheet: tuple[float, float] | None = None
    hand: tuple[tuple[float, float, float], ...] = ()
    holds: str | None = None
    portrait: bool = False
    cuts: tuple[tuple[float, View], ...] = ((0.0, View()),)


PLANS = (
    Plan(
        "talks to the camera, blinks and looks around",
        Role(age=0.3, looks=("brown", "bare"), yaw=18),
    ),
    Plan(
        "turns from one profile to the other, 80 degrees to either side",
        Role(age=0.5, looks=("fair", "bare"), yaw=80, pitch=10, roll=8, pace=0.5, wander=0.05),
    ),
    Plan(
        "wears glasses; a sheet of paper hides the middle of the face for a while",
        Role(age=0.55, looks=("dark", "glasses"), yaw=25, pitch=12, roll=12, wander=0.05),
        sheet=(0.45, 0.6),
    ),
    Plan(
        "an old man, bald and bearded, talks; a portrait hangs on the wall",
        Role(age=0.95, looks=("fair", "beard", "bald", "bare"), yaw=32, roll=8, wander=0.03),
        portrait=True,
    ),
    Plan(
        "looks up and down by 35 degrees and leans the head by 40, in black and white",
        Role(age=0.4, looks=("dark", "bare"), yaw=15, pitch=35, roll=40, pace=0.6),
        lens="grey",
    ),
    Plan(
        "films itself at arm's length and shakes the head faster than the shutter",
        Role(age=0.06, looks=("brown", "bare"), yaw=45, pitch=15, roll=12, pace=2.2, wander=0.06),
        distance=420,
        shutter=0.9,
    ),
    Plan(
        "wears sunglasses; a hand passes before the face and comes back",
        Role(age=0.35, looks=("fair", "sunglasses"), yaw=30, pitch=10, wander=0.05),
        hand=((0.2, -1.6, 0.9), (0.45, 1.3, 0.0), (0.6, 1.3, 0.0), (0.85, -1.6, 0.9)),
    ),
    Plan(
        "strong feelings beneath a fringe, lit hard from one side",
        Role(
            age=0.25,
            looks=("brown", "fringe", "bare"),
            yaw=20,
            feelings=("laughter", "surprise", "anger", "sorrow", "wink", "cheeks", "kiss"),
        ),
        light="side",
    ),
    Plan(
        "walks up to the camera in a cap while the light turns; somebody else stands there",
        Role(age=0.65, looks=("dark", "cap", "undyed"), yaw=20, wander=0.03, size=(0.22, 0.6)),
        others=(
            Role(
                age=0.5,
                looks=("brown", "undyed"),
                yaw=15,
                size=(0.19, 0.19),
                wander=0.01,
                path=((0.0, 0.36, -0.12), (1.0, 0.36, -0.12)),
            ),
        ),
        distance=1100,
        light="turning",
    ),
    Plan(
        "talks at night in a headscarf; somebody crosses, nearer to the camera",
        Role(age=0.45, looks=("fair", "headscarf"), yaw=25, wander=0.03, size=(0.36, 0.36)),
        others=(
            Role(
                age=0.3,
                looks=("brown", "bare"),
                yaw=10,
                facing=(40.0, 0.0, 0.0),
                wander=0.01,
                size=(0.52, 0.52),
                path=((0.0, -1.3, 0.05), (0.3, -1.3, 0.05), (0.7, 1.3, 0.05), (1.0, 1.3, 0.05)),
            ),
        ),
        lens="night",
        light="dark",
    ),
    Plan(
        "speaks into a microphone; cuts to a second and a third camera",
        Role(age=0.6, looks=("brown", "bare"), yaw=22, size=(0.38, 0.38)),
        holds="microphone",
        cuts=((0.0, View()), (0.4, View(38.0, 1.2)), (0.75, View(-15.0, 0.8))),
    ),
    Plan(
        "leaves the picture and comes back, filmed by a poor camera",
        Role(
            age=0.85,
            looks=("dark", "bare"),
            yaw=35,
            path=(
                (0.0, -0.1, 0.0),
                (0.3, 0.0, 0.0),
                (0.45, 0.9, 0.0),
                (0.55, 0.9, 0.0),
                (0.7, 0.0, 0.0),
                (1.0, -0.1, 0.0),
            ),
        ),
        lens="poor",
    ),
)
"""The clips, in turn."""


@dataclass(frozen=True, eq=False)
class ClipTruth:
    """What a clip was rendered from: one row an annotated frame.

    Attributes
    ----------
    shape
        (Ks,) coefficients of the person.
    expressions
        (F, Ke) coefficients.
    cameras
        F cameras, from model space to the picture.
    height, width
        Of the pictures, pixels.
    covered
        (F,) share of the face's pixels that hands, things and other people hide; None if unknown.
        What the person wears doesn't count.
    blur
        (F,) pixels that the landmarks moved on average while the shutter was open.
    inside
        (F,) share of the landmarks that lie within the picture.
    """

    shape: np.ndarray
    expressions: np.ndarray
    cameras: tuple[PerspectiveCamera, ...]
    height: int
    width: int
    covered: np.ndarray | None = None
    blur: np.ndarray | None = None
    inside: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.cameras)

    def take(self, rows: Sequence[int]) -> ClipTruth:
        """The truth of a part of the frames, by their places."""
        rows = list(rows)
        parts = {name: getattr(self, name) for name in ("expressions", *_OPTIONAL)}
        taken = {name: part[rows] for name, part in parts.items() if part is not None}
        return replace(self, cameras=tuple(self.cameras[row] for row in rows), **taken)

    def vertices(self, model: MorphableModel, row: int) -> np.ndarray:
        """(V, 3) mm, model space: the dense mesh of a frame, in the vertex order of the model."""
        return model.vertices(self.shape, self.expressions[row])

    def posed(self, model: MorphableModel, row: int) -> np.ndarray:
        """(V, 3) mm: the same as the camera sees it, x right, y down, z away from the lens."""
        camera = self.cameras[row]
        return self.vertices(model, row) @ camera.rotation.T + camera.translation


_CAMERA_FIELDS = ("focal", "principal_point", "rotation", "translation")
_OPTIONAL = tuple(field.name for field in fields(ClipTruth) if field.default is None)


def make_clips(
    model: MorphableModel,
    out_dir: str | Path,
    n_clips: int = len(PLANS),
    n_frames: int = 100,
    width: int = WIDTH,
    height: int = HEIGHT,
    seed: int = SEED,
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
        Of the pictures, pixels.
    seed
        Decides everything else; a clip doesn't depend on how many others there are.
    progress
        Show a progress bar.
    """
    clips = []
    with tqdm(total=n_clips * n_frames, desc="clips", unit="frame", disable=not progress) as bar:
        for number in range(n_clips):
            plan = PLANS[number % len(PLANS)]
            stage = set_up(model, plan, n_frames, width, height, (seed, number))
            shots = []
            for frame in range(n_frames):
                noise = np.random.default_rng((seed, number, 3, frame))
                shots.append(_shoot(stage, frame, noise))
                bar.update()
            clips.append(_write(out_dir, f"{number + 1:03d}", stage, shots))
    return clips


def write_truth(root: str | Path, name: str, truth: ClipTruth) -> None:
    """Write ``<root>/truth/<name>.npz``; the same truth gives the same bytes."""
    path = Path(root, "truth", f"{name}.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        field: np.array([getattr(camera, field) for camera in truth.cameras])
        for field in _CAMERA_FIELDS
    }
    arrays |= {name: getattr(truth, name) for name in _OPTIONAL if getattr(truth, name) is not None}
    size = np.array([truth.height, truth.width])
    np.savez(path, shape=truth.shape, expressions=truth.expressions, size=size, **arrays)


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
            rows = zip(*(file[field] for field in _CAMERA_FIELDS), strict=True)
            cameras = tuple(PerspectiveCamera(*row) for row in rows)
            height, width = (int(side) for side in file["size"])
            known = {field: file[field] for field in _OPTIONAL if field in file.files}
            return ClipTruth(file["shape"], file["expressions"], cameras, height, width, **known)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise P2FError(f"{path} is not the truth of a clip ({error}).") from None


# --- before the camera ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Person:
    """Somebody before the camera: (Ks,) coefficients, looks, and what is done."""

    shape: np.ndarray
    appearance: Appearance
    performance: Performance


@dataclass(frozen=True, eq=False)
class Stage:
    """Everything that a clip is rendered from.

    Attributes
    ----------
    people
        The first one is annotated.
    views
        (F,) the camera that films each frame.
    scenes, walls
        View -> place, and (H, W, 3) linear light of what stands behind everybody.
    props
        Seed of the hand and of what is held.
    """

    model: MorphableModel
    plan: Plan
    height: int
    width: int
    people: tuple[Person, ...]
    views: tuple[View, ...]
    scenes: Mapping[View, Scene]
    walls: Mapping[View, np.ndarray]
    props: int

    def mesh(self, person: Person, time: float) -> np.ndarray:
        """(V, 3) mm, model space; `time` in frames."""
        return self.model.vertices(person.shape, person.performance.at(time)[3])

    def camera(self, person: Person, time: float, view: View) -> PerspectiveCamera:
        """From model space of the person's head to the picture."""
        where = self.plan.distance, self.height, self.width, view
        return camera_at(self.model, person.performance, time, *where)

    def marks(self, person: Person, time: float, view: View) -> np.ndarray:
        """(84, 2) pixels."""
        points = self.mesh(person, time)[self.model.landmarks[MARKUP]]
        return self.camera(person, time, view).project(points)


def set_up(
    model: MorphableModel,
    plan: Plan,
    n_frames: int,
    width: int,
    height: int,
    seed: tuple[int, ...],
) -> Stage:
    """Choose people and place of a clip; (seed, 3) is left for the noise of its frames."""
    people = []
    for number, role in enumerate((plan.role, *plan.others)):
        rng = np.random.default_rng((*seed, 1, number))
        shape = sample_coefficients(model, rng)[0]
        people.append(Person(shape, _cast(role, rng), perform(model, role, n_frames, rng)))

    rng = np.random.default_rng((*seed, 2))
    scene = sample_scene(rng)
    lens = replace(scene.lens, **{**SOUND_LENS, **LENSES[plan.lens]})
    # What is in the way is the plan's affair.
    scene = replace(scene, lens=lens, light=_light(scene.light, plan.light), occluder=None)
    scenes, walls = {}, {}
    for _, view in plan.cuts:
        turned = _turned(scene.light, _turn(view))
        scenes[view] = replace(scene, light=turned, background=int(rng.integers(2**31)))
        walls[view] = render_backdrop(scenes[view], height, width)
    if plan.portrait:
        portrait = to_linear(_portrait(model, height * 2 // 5, rng) / 255)
        for wall in walls.values():
            falling = scene.light.sky + 0.5 * scene.light.colors.sum(axis=0)
            wall[: len(portrait), : len(portrait)] = portrait * falling
    started = [
        sum(moment <= frame / n_frames for moment, _ in plan.cuts) for frame in range(n_frames)
    ]
    views = tuple(plan.cuts[count - 1][1] for count in started)
    props = _prop_seed(plan.holds, rng)
    return Stage(model, plan, height, width, tuple(people), views, scenes, walls, props)


def camera_at(
    model: MorphableModel,
    performance: Performance,
    time: float,
    distance: float,
    height: int,
    width: int,
    view: View = View(),
) -> PerspectiveCamera:
    """A camera of the set, in the head's own coordinates at that time.

    Parameters
    ----------
    time
        In frames.
    distance
        mm at which the mean face's landmarks are `FACE_HEIGHT` of the picture high.
    height, width
        Of the picture, pixels.
    view
        Where it stands; it looks at the place that is so far from the camera straight ahead.
    """
    marks = model.mean[model.landmarks[MARKUP]]
    pose, position, size, _ = performance.at(time)
    rotation = rotation_from_pose(Pose(*pose))
    focal = FACE_HEIGHT * height * distance / np.ptp(marks[:, 1])
    depth = distance * FACE_HEIGHT / size
    x, y = position * (width, height) / focal * depth
    middle = rotation @ ((marks.min(axis=0) + marks.max(axis=0)) / 2)
    translation = np.array([x, y, depth]) - middle * (1, 1, 0)
    turn, pivot = _turn(view), np.array([0.0, 0.0, distance])
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    return PerspectiveCamera(
        view.zoom * focal, center, turn @ rotation, turn @ (translation - pivot) + pivot
    )


def _turn(view: View) -> np.ndarray:
    """(3, 3) from camera space straight ahead to that of a view."""
    # Whoever looked straight ahead looks to picture left when the camera has gone to the right.
    return cv2.Rodrigues(np.array([0.0, np.radians(view.around), 0.0]))[0]


def _turned(light: Light, turn: np.ndarray) -> Light:
    """Light as a camera sees it whose space is turned by (3, 3) `turn`."""
    return replace(light, directions=light.directions @ (UPRIGHT @ turn @ UPRIGHT).T)


def _cast(role: Role, rng: np.random.Generator) -> Appearance:
    """A random person who looks as the role asks."""
    for _ in range(5_000):
        appearance = sample_appearance(rng, role.age)
        if all(LOOKS[look](appearance) for look in role.looks):
            return appearance
    raise P2FError(f"Nobody of age {role.age:g} looks {' and '.join(role.looks)}.")


def _light(light: Light, kind: str) -> Light:
    """The light of a plan, from what chance has chosen."""
    if kind == "side":
        return Light(
            sky=np.full(3, 0.09),
            ground=np.full(3, 0.05),
            directions=np.array([[-0.85, 0.25, 0.46]]),
            colors=np.array([[1.25, 1.15, 1.0]]),
            sharpness=np.array([40.0]),
        )
    if kind == "dark":  # a street lamp from above and a cold sky
        return Light(
            sky=np.array([0.03, 0.04, 0.07]),
            ground=np.array([0.02, 0.015, 0.01]),
            directions=np.array([[0.45, 0.72, 0.53]]),
            colors=np.array([[0.5, 0.36, 0.2]]),
            sharpness=np.array([15.0]),
        )
    if kind == "turning":
        return Light(
            sky=np.full(3, 0.16),
            ground=np.full(3, 0.08),
            directions=np.array([[0.0, 0.3, 0.95], [0.0, 0.2, -0.98]]),
            colors=np.array([[1.1, 0.95, 0.75], [0.25, 0.45, 0.9]]),
            sharpness=np.array([20.0, 12.0]),
        )
    return light


def _portrait(model: MorphableModel, side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side, 3) uint8: another person, frontal, large in a frame."""
    shape, expression = sample_coefficients(model, rng)
    still = Performance(
        np.zeros((1, 3)), np.zeros((1, 2)), np.full(1, FACE_HEIGHT), expression[None]
    )
    camera = camera_at(model, still, 0, 900.0, side, side)
    camera = camera.scaled(1.6, np.full(2, -0.3 * (side - 1)))
    mesh = model.vertices(shape, expression)
    who, where = sample_appearance(rng), replace(sample_scene(rng), occluder=None)
    image = render_photo(model, mesh, camera, who, where, side, side, rng)[0]
    edge = max(2, side // 25)
    inner = image[edge:-edge, edge:-edge]
    return cv2.copyMakeBorder(inner, *(edge,) * 4, cv2.BORDER_CONSTANT, value=(60, 40, 25))


def _prop_seed(kind: str | None, rng: np.random.Generator) -> int:
    """A seed for `draw_occluder` that gives what is wanted."""
    while True:
        seed = int(rng.integers(2**31))
        if kind is None or pick(np.random.default_rng(seed), OCCLUDERS) == kind:
            return seed


# --- pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame and what is known about it: see `ClipTruth`."""

    image: np.ndarray
    camera: PerspectiveCamera
    covered: float
    blur: float
    inside: float


def _shoot(stage: Stage, frame: int, rng: np.random.Generator) -> Shot:
    """One frame; `rng` makes the noise of the sensor."""
    view, shutter = stage.views[frame], stage.plan.shutter
    moved = [
        np.linalg.norm(
            stage.marks(person, frame + shutter / 2, view)
            - stage.marks(person, frame - shutter / 2, view),
            axis=1,
        )
        for person in stage.people
    ]
    half = min(int(np.ceil((np.max(moved) / BLUR_STEP - 1) / 2)), MOMENTS // 2)
    moments = 2 * half + 1
    times = frame + shutter * np.arange(-half, half + 1) / moments
    exposures = [_expose(stage, time, view) for time in times]
    _, face, covered = exposures[half]
    light = np.mean([exposure[0] for exposure in exposures], axis=0)
    annotated = stage.people[0]
    marks = stage.marks(annotated, frame, view)
    size = (stage.width, stage.height)
    return Shot(
        image=develop(light, face, stage.scenes[view].lens, rng),
        camera=stage.camera(annotated, frame, view),
        covered=covered,
        blur=float(moved[0].mean()),
        inside=float(((marks > -0.5) & (marks < np.array(size) - 0.5)).all(axis=1).mean()),
    )


def _expose(stage: Stage, time: float, view: View) -> tuple[np.ndarray, np.ndarray, float]:
    """A moment: (H, W, 3) linear light, (H, W) where the annotated face is, how much is covered."""
    scene = stage.scenes[view]
    if stage.plan.light == "turning":
        angle = 2 * np.pi * time / len(stage.views)
        turn = cv2.Rodrigues(np.array([0.0, angle, 0.0]))[0]
        scene = replace(scene, light=_turned(scene.light, turn))
    light, annotated = stage.walls[view], stage.people[0]
    cameras = [stage.camera(person, time, view) for person in stage.people]
    for number in np.argsort([-camera.translation[2] for camera in cameras], kind="stable"):
        person, camera = stage.people[number], cameras[number]
        mesh = stage.mesh(person, time)
        light, truth = render_light(
            stage.model, mesh, camera, person.appearance, scene, stage.height, stage.width, 2, light
        )
        if person is annotated:
            face, bare = truth.valid, light.copy()
            if face.any():
                skin = np.median(light[face], axis=0) / person.appearance.skin
                _draw_props(stage, light, camera, mesh, time, skin)
    hidden = np.abs(light - bare).max(axis=2)[face] > 1e-3
    return light, face, float(hidden.mean()) if len(hidden) else 0.0


def _draw_props(
    stage: Stage,
    image: np.ndarray,
    camera: PerspectiveCamera,
    mesh: np.ndarray,
    time: float,
    light: np.ndarray,
) -> None:
    """Draw what is before the annotated face, in place; `light` (3,) is that on the face."""
    plan, skin = stage.plan, stage.people[0].appearance.skin
    moment = time / len(stage.views)
    marks = camera.project(mesh[stage.model.landmarks[MARKUP]])
    low, high = marks.min(axis=0), marks.max(axis=0)
    if plan.sheet and plan.sheet[0] <= moment < plan.sheet[1]:
        draw_polygon(image, _sheet(low, high, time), np.array([0.74, 0.71, 0.61]) * light)
    if plan.holds:
        few = camera.project(ibug68(stage.model, mesh)).astype(np.float64)
        box = np.concatenate([few.min(axis=0), few.max(axis=0)])
        draw_occluder(image, box, skin, light, stage.props, few)
    if plan.hand and plan.hand[0][0] <= moment <= plan.hand[-1][0]:
        times, *way = np.array(plan.hand).T
        place = np.array([np.interp(moment, times, axis) for axis in way])
        target = (low + high) / 2 + place * (high - low)[1]
        unit = camera.focal / camera.translation[2]  # pixels of a mm
        rng = np.random.default_rng(stage.props)
        draw_hand(image, rng, target, np.radians(-70), unit, skin, light, "open")


def _sheet(low: np.ndarray, high: np.ndarray, time: float) -> np.ndarray:
    """(4, 2) corners of a paper over the middle of the box of the landmarks; it sways a little."""
    size, sway = high - low, np.sin(0.6 * time)
    center = (low + high) / 2 + size * (0.0, 0.05 + 0.04 * sway)
    paper = cv2.RotatedRect(center.tolist(), (size * (0.75, 0.5)).tolist(), 10 + 8 * sway)
    return np.array(paper.points(), np.float64)


def _write(root: str | Path, name: str, stage: Stage, shots: list[Shot]) -> Clip:
    """Write a clip and its truth."""
    person, model = stage.people[0], stage.model
    rows = [row for row, shot in enumerate(shots) if shot.inside >= 0.5]
    kept = [shots[row] for row in rows]
    truth = ClipTruth(
        shape=person.shape,
        expressions=person.performance.expression[rows],
        cameras=tuple(shot.camera for shot in kept),
        height=stage.height,
        width=stage.width,
        **{field: np.array([getattr(shot, field) for shot in kept]) for field in _OPTIONAL},
    )
    chosen = model.landmarks[MARKUP]
    points = np.array([truth.vertices(model, row)[chosen] for row in range(len(rows))])
    pixels = np.array([c.project(p) for c, p in zip(truth.cameras, points, strict=True)])
    write_truth(root, name, truth)
    return write_clip(
        root,
        name,
        (shot.image for shot in shots),
        pixels,
        points,
        numbers=[row + 1 for row in rows],
        fps=FPS,
        quality=QUALITY,
    )


def main(arguments: list[str] | None = None) -> None:
    """``python -m p2f_lib.datasets.clips --model ... --out ...``"""
    parser = argparse.ArgumentParser(
        prog="python -m p2f_lib.datasets.clips", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="face model, .safetensors")
    parser.add_argument("--out", type=Path, required=True, help="root of the data set")
    parser.add_argument("--clips", type=int, default=len(PLANS), help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=100, help="of a clip, default: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    parser.add_argument("--figure", type=Path, help="also draw some frames of each clip into FILE")
    options = parser.parse_args(arguments)
    try:
        model = MorphableModel.load(options.model)
        options.out.mkdir(parents=True, exist_ok=True)
        model.save(options.out / MODEL_FILE)
        clips = make_clips(model, options.out, options.clips, options.frames, seed=options.seed)
    except P2FError as error:
        raise SystemExit(f"{parser.prog}: {error}") from None
    if options.figure:
        from p2f_lib import figures  # a command stands at the end of the flow

        titles = [PLANS[number % len(PLANS)].shows for number in range(len(clips))]
        figures.save(figures.clip_frames(clips, titles), options.figure)


if __name__ == "__main__":
    main()
