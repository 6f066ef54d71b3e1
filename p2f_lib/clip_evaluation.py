"""What every method says of annotated clips (paper 4): networks, baseline, oracle, other trackers.

Each clip is gone through once: the detector looks at every frame once, each network once; what is
compared for the paper's claims is made from what the network said. Clips are independent of each
other, so that any number of processes gives the same numbers. `p2f_lib.clip_summary` measures them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from p2f_lib import evaluation
from p2f_lib.camera import Correspondences, fit_affine
from p2f_lib.crop import Box
from p2f_lib.datasets.clip_sources import ClipSource, open_source
from p2f_lib.datasets.clips import ClipTruth
from p2f_lib.datasets.menpo3d import Clip
from p2f_lib.datasets.menpo_static import PictureSet
from p2f_lib.datasets.predictions import check_predictions, read_prediction
from p2f_lib.detection import Detection, Detector, DlibDetector
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.fitting import Fitter, fit_face, valid_mask
from p2f_lib.ground_truth import render_ground_truth
from p2f_lib.landmarks import IBUG68_IN_MENPO84, MARKUPS, menpo84_to_ibug68
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.parallel import one_thread
from p2f_lib.reconstruction import FACE_MODEL_FILE, Face, Reconstructor, share_shape
from p2f_lib.tracking import Track, detect_faces, moving_average, track_frames

THIS_RUN, RELEASED = "this run", "released weights"
MEAN_FACE, ORACLE = "mean face in the box", "oracle"
OWN = (THIS_RUN, RELEASED, MEAN_FACE, ORACLE)

# Ways to get landmarks out of one and the same network, beside the default.
RAW, AFFINE, PNCC_ALONE = "not smoothed", "affine camera", "PNCC alone"
CHOSEN, PLAIN, ONE_SHAPE = "chosen vertices", "model's vertices", "one shape"
PNCC_EVERY = 4  # frames: these fits are dear, and neighbouring frames say nearly the same

Points = tuple[np.ndarray, np.ndarray]
"""(F, L, 2) pixels and (F, L, 3) mm; NaN where a method says nothing."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network and two lists of landmark vertices for it, by mark-up.

    Attributes
    ----------
    reconstructor : the network with its face model.
    plain : {mark-up: (L,)} landmark vertices of the face model as it was made.
    chosen : those of section 4, from annotated frames.
    """

    reconstructor: Reconstructor
    plain: Mapping[str, np.ndarray]
    chosen: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class ClipRun:
    """What all methods say of one clip of F frames with L annotated points.

    Attributes
    ----------
    name : of the clip.
    frames : numbers, or names, of its frames.
    still : the frames are photographs that have nothing to do with each other.
    truth, truth_space : (F, L, 2) pixels and (F, L, 3) model space; NaN where unknown.
    methods : {method: `Points`}, of 68 or 84 points.
    variants : {network: {variant: `Points`}}; all smoothed but those without smoothing and those
        from the PNCC alone, which have every fourth frame.
    yaw : (F,) degrees.
    yaw_is_true : it is the truth's, not the network's.
    detected : (F,) False where the box was interpolated, or there was none.
    notes : sentences on what of the clip could not be used.
    """

    name: str
    frames: tuple[int | str, ...]
    still: bool
    truth: np.ndarray
    truth_space: np.ndarray
    methods: Mapping[str, Points]
    variants: Mapping[str, Mapping[str, Points]]
    yaw: np.ndarray
    yaw_is_true: bool
    detected: np.ndarray
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------- all clips


def run_source(
    parameters: Mapping[str, Any],
    weights: Mapping[str, str | Path],
    root: str | Path = ".",
    progress: bool = True,
) -> tuple[list[ClipRun], list[str]]:
    """All clips of a source; a broken clip, or a broken file of it, doesn't stop the others.

    Parameters
    ----------
    parameters : the group `evaluate` of params.yaml.
    weights : {name of the curve: folder of weights}
    root : the folder that the parameters' paths are relative to.

    Returns
    -------
    runs : of the clips that could be evaluated, in the order of their names.
    notes : a sentence for each of the others.

    Raises
    ------
    P2FError
        No such source, no clip of it can be used, or weights or predictions are missing.
    """
    source = open_source(parameters, root)
    _check(parameters)
    foreign = {name: str(Path(root, path)) for name, path in parameters["predictions"].items()}
    for name, path in foreign.items():
        if name in OWN:
            raise P2FError(f"Predictions can't be called {name!r}: another curve has that name.")
        check_predictions(path)
    task = _Task(
        source,
        tuple((name, str(folder)) for name, folder in weights.items()),
        tuple(foreign.items()),
        parameters["variant"],
        parameters["smoothing"],
        parameters["n_frames"],
    )
    names = source.names()[: parameters["n_clips"]]
    runs: list[ClipRun] = []
    notes = []
    for name, found in zip(
        names, _in_processes(task, names, parameters["workers"], progress), strict=True
    ):
        if isinstance(found, str):
            notes.append(f"Clip {name} was left out: {found}")
        elif runs and found.truth.shape[1] != runs[0].truth.shape[1]:
            counts = found.truth.shape[1], runs[0].truth.shape[1]
            notes.append(f"Clip {name} was left out: it has {counts[0]} points, not {counts[1]}.")
        else:
            runs.append(found)
    if not runs:
        raise P2FError(f"No clip of {source.root} can be evaluated. {notes[0]}")
    return runs, notes


def _check(parameters: Mapping[str, Any]) -> None:
    """Refuse what would be found out after the work only."""
    for name in ("n_clips", "n_frames"):
        if parameters[name] is not None and parameters[name] < 1:
            raise P2FError(f"evaluate.{name} is a number from 1 on, or null for all.")
    if parameters["workers"] < 1:
        raise P2FError(f"evaluate.workers is a number from 1 on, got {parameters['workers']}.")
    for name in ("limit", "limit_box"):
        evaluation.ced_axis(parameters[name], parameters["step"])


@dataclass(frozen=True)
class _Task:
    """All that a process needs to know to evaluate clips."""

    source: ClipSource
    weights: tuple[tuple[str, str], ...]
    foreign: tuple[tuple[str, str], ...]
    variant: str
    smoothing: int
    n_frames: int | None

    def __call__(self, name: str) -> ClipRun | str:
        """The clip, or why not."""
        networks, fitter = _load(self.source, self.weights, self.variant)
        try:
            with one_thread():  # processes are the parallelism
                clip, truth = self.source.read(name), self.source.truth(name)
                if truth is not None and len(truth) != len(clip):
                    return f"The truth has {len(truth)} frames, the annotation {len(clip)}."
                rows = range(len(clip))[: self.n_frames]
                return evaluate_clip(
                    clip.take(rows),
                    networks,
                    DlibDetector(),
                    truth=None if truth is None else truth.take(rows),
                    truth_fitter=fitter,
                    foreign=dict(self.foreign),
                    smoothing=self.smoothing,
                )
        except (P2FError, OSError, cv2.error) as error:
            return str(error)


@lru_cache(maxsize=1)
def _load(
    source: ClipSource, weights: tuple[tuple[str, str], ...], variant: str
) -> tuple[dict[str, Network], Fitter | None]:
    """The networks, and the fitter of the model that the clips were made from."""
    networks = {name: load_network(folder, variant) for name, folder in weights}
    model = source.truth_model
    return networks, Fitter(MorphableModel.load(model)) if model.is_file() else None


def load_network(folder: str | Path, variant: str = "full") -> Network:
    """A network of a folder, with the landmark vertices that it goes with.

    A folder that chose vertices for the 68 points alone changes these among the 84.
    """
    reconstructor = Reconstructor.from_pretrained(folder, variant=variant)
    plain = MorphableModel.load(Path(folder) / FACE_MODEL_FILE).landmarks
    chosen = dict(reconstructor.model.landmarks)
    if np.array_equal(plain["menpo84"], chosen["menpo84"]):
        chosen["menpo84"] = plain["menpo84"].copy()
        chosen["menpo84"][IBUG68_IN_MENPO84] = chosen["ibug68"]
    return Network(reconstructor, plain, chosen)


def _in_processes(
    task: _Task, names: Sequence[str], workers: int, progress: bool
) -> list[ClipRun | str]:
    """What the task says of each name, in their order."""
    with tqdm(total=len(names), desc="clips", unit="clip", disable=not progress) as bar:
        if min(workers, len(names)) == 1:
            return [_counted(task(name), bar) for name in names]
        # Spawned, not forked: forking a process with numba or torch threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(names)), context) as pool:
            futures = [pool.submit(task, name) for name in names]
            try:
                for future in as_completed(futures):
                    _counted(future.result(), bar)
            except BrokenProcessPool as error:
                raise P2FError(
                    "A process that evaluates clips ended by itself: the memory may be short; "
                    "lower evaluate.workers."
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures]


def _counted(found: ClipRun | str, bar: tqdm) -> ClipRun | str:
    bar.update()
    return found


# ---------------------------------------------------------------- one clip


def evaluate_clip(
    clip: Clip | PictureSet,
    networks: Mapping[str, Network],
    detector: Detector,
    *,
    truth: ClipTruth | None = None,
    truth_fitter: Fitter | None = None,
    foreign: Mapping[str, str | Path] | None = None,
    smoothing: int = 3,
) -> ClipRun:
    """All methods on one clip.

    Parameters
    ----------
    clip : annotated frames, or photographs.
    networks : by the name of their curve; all get the same boxes, the mean face those of the first.
    truth, truth_fitter : what the frames of `clip` were rendered from, and the face model of that;
        they make the oracle's planes.
    foreign : {name: folder} of other trackers' predictions.
    smoothing : frames of the moving average of the 2D landmarks (paper 4.1).

    Raises
    ------
    P2FError
        Frames can't be read, or nothing in the annotation can be used.
    """
    notes: list[str] = []
    still = False
    if isinstance(clip, PictureSet):
        clip, smoothing, still = clip.readable(), 1, True
        notes += clip.problems
    given = clip.frames
    clip, note = _sound(clip)
    notes += note
    if truth is not None:
        truth = truth.take([given.index(frame) for frame in clip.frames])
    n_points = clip.projected.shape[1]
    markup = next(name for name, count in MARKUPS.items() if count == n_points)
    found = detect_faces(clip, detector, progress=False)
    if still:
        found = [_annotated(*pair) for pair in zip(found, clip.projected, strict=True)]
    followed = {
        name: _follow(clip, found, detector, network, markup, smoothing)
        for name, network in networks.items()
    }
    first = next(iter(followed.values()))
    model = next(iter(networks.values())).reconstructor.model
    methods = {name: answers.points for name, answers in followed.items()}
    methods[MEAN_FACE] = _mean_face(model, first.boxes, markup, smoothing)
    yaw, yaw_is_true = _yaw(clip, truth, list(followed.values())[-1].yaw)
    if truth is not None and truth_fitter is not None and markup == "menpo84":
        methods[ORACLE] = _oracle(truth_fitter, truth)
    for name, folder in (foreign or {}).items():
        said = read_prediction(folder, clip.name, clip.frames, n_points)
        methods[name] = said.points, said.space
        if n_points == 68 and said.points.shape[1] == 84:
            methods[name] = menpo84_to_ibug68(said.points), menpo84_to_ibug68(said.space)
        notes += [f"{name}: {problem}" for problem in said.problems]
    space = clip.model
    return ClipRun(
        name=clip.name,
        frames=tuple(clip.frames),
        still=still,
        truth=clip.projected,
        truth_space=np.full((len(clip), n_points, 3), np.nan) if space is None else space,
        methods=methods,
        variants={name: answers.variants for name, answers in followed.items()},
        yaw=yaw,
        yaw_is_true=yaw_is_true,
        detected=first.detected,
        notes=tuple(notes),
    )


def _sound(clip: Clip | PictureSet) -> tuple[Clip | PictureSet, list[str]]:
    """The clip without the frames whose error no normaliser can measure."""
    size = evaluation.interocular_distance(clip.projected)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(size) & (size > 0)
    rows = np.flatnonzero(known)
    if not len(rows):
        raise P2FError(f"No frame of {clip.name} has annotated outer eye corners.")
    if len(rows) == len(clip):
        return clip, []
    note = f"{len(clip) - len(rows)} frames of {clip.name} have no annotated outer eye corners."
    return clip.take(rows.tolist()), [note]


def _annotated(found: Sequence[Detection], points: np.ndarray) -> list[Detection]:
    """The face of a photograph that the annotation is about: no neighbouring frame can tell."""
    box = Box.around(points)
    return sorted(found, key=lambda detection: -detection.box.overlap(box))[:1]


@dataclass(frozen=True, eq=False)
class _Followed:
    """One network's answers on a clip; boxes (F, 4) and yaw (F,) are NaN where there is none."""

    points: Points
    variants: dict[str, Points]
    boxes: np.ndarray
    detected: np.ndarray
    yaw: np.ndarray


class _Recorder:
    """A reconstructor that keeps of each face it was asked for what variants are made from."""

    def __init__(self, network: Network, markup: str) -> None:
        self.network, self.markup = network, markup
        self.variants: list[dict[str, Points]] = []
        self.faces: list[Face | None] = []

    def reconstruct(self, image: np.ndarray, box: Sequence[float]) -> Face:
        """The face in a box."""
        self.skip(1)
        face = self.network.reconstructor.reconstruct(image, box=box)
        space = face.landmarks_3d(self.markup)
        made = {AFFINE: (face.affine.project(space), space)}
        for name, vertices in ((PLAIN, self.network.plain), (CHOSEN, self.network.chosen)):
            points = face.vertices[vertices[self.markup]]
            made[name] = face.project(points), points
        if (len(self.faces) - 1) % PNCC_EVERY == 0:
            made[PNCC_ALONE] = self._without_offsets(face)
        self.variants[-1] = made
        none = np.empty(0)  # for the planes and the photo, which nobody needs any more
        small: dict[str, Any] = dict.fromkeys(
            ("image", "pncc", "offsets", "valid", "vertices", "photo"), none
        )
        self.faces[-1] = replace(face, **small)
        return face

    def skip(self, count: int) -> None:
        """Frames without a face."""
        self.variants += [{} for _ in range(count)]
        self.faces += [None] * count

    def _without_offsets(self, face: Face) -> Points:
        center = face.crop.points_from_picture(face.camera.principal_point[None])[0]
        fitter = self.network.reconstructor.fitter
        try:
            fit = fit_face(fitter, face.pncc, None, face.valid, center)
        except (P2FError, np.linalg.LinAlgError):  # too few pixels near the surface
            return np.full((MARKUPS[self.markup], 2), np.nan), face.landmarks_3d(self.markup)
        space = fit.vertices[fitter.model.landmarks[self.markup]]
        return face.crop.points_to_picture(fit.camera.project(space)), space

    def share_shape(self) -> None:
        """Adds the landmarks that the faces have when all are one person's (Eq. 5)."""
        found = {row: face for row, face in enumerate(self.faces) if face is not None}
        if found:
            faces = share_shape(list(found.values()), self.network.reconstructor.fitter)
            for row, face in zip(found, faces, strict=True):
                points = face.landmarks(self.markup), face.landmarks_3d(self.markup)
                self.variants[row][ONE_SHAPE] = points


def _follow(
    clip: Clip | PictureSet,
    found: Sequence[Sequence[Detection]],
    detector: Detector,
    network: Network,
    markup: str,
    window: int,
) -> _Followed:
    recorder, still = _Recorder(network, markup), isinstance(clip, PictureSet)
    pieces = zip(([image] for image in clip), ([boxes] for boxes in found), strict=True)
    parts = []
    for frames, seen in pieces if still else [(clip, found)]:
        asked = len(recorder.faces)
        track: Track | None = None
        with contextlib.suppress(NoFaceError):
            track = track_frames(
                frames,
                detector,
                recorder,
                markup=markup,
                window=window,
                found=seen,
                progress=False,
            )
        recorder.skip(len(frames) - (len(recorder.faces) - asked))
        parts.append(_columns(track, len(frames), MARKUPS[markup]))
    pixels, raw, space, boxes, detected, yaw = map(np.concatenate, zip(*parts, strict=True))
    variants = {RAW: (raw, space)}
    if not still:
        recorder.share_shape()
    for name in (AFFINE, PNCC_ALONE, PLAIN, CHOSEN, *(() if still else (ONE_SHAPE,))):
        made = np.full_like(pixels, np.nan), np.full_like(space, np.nan)
        for row, known in zip(range(len(clip)), recorder.variants, strict=True):
            if name in known:
                made[0][row], made[1][row] = known[name]
        smoothed = made[0] if name == PNCC_ALONE else moving_average(made[0], window)
        variants[name] = smoothed, made[1]
    return _Followed((pixels, space), variants, boxes, detected, yaw)


def _columns(track: Track | None, n_frames: int, n_points: int) -> tuple[np.ndarray, ...]:
    """Landmarks, unsmoothed ones, in space, boxes, which were detected, and yaw."""
    if track is None:
        unknown = ((n_points, 2), (n_points, 2), (n_points, 3), (4,))
        gaps = [np.full((n_frames, *shape), np.nan) for shape in unknown]
        return (*gaps, np.zeros(n_frames, bool), np.full(n_frames, np.nan))
    points = track.landmarks_2d, track.landmarks_2d_raw, track.landmarks_3d
    return (*points, track.boxes, track.detected, track.poses[:, 0])


def _mean_face(model: MorphableModel, boxes: np.ndarray, markup: str, window: int) -> Points:
    space = model.mean[model.landmarks[markup]].astype(float)
    gap = np.full((len(space), 2), np.nan)
    known = np.isfinite(boxes).all(axis=1)
    points = [
        evaluation.mean_face_in_box(model, Box(*box), markup) if there else gap
        for box, there in zip(boxes, known, strict=True)
    ]
    spaces = np.where(known[:, None, None], space, np.nan)
    return moving_average(np.stack(points), window), spaces


def _oracle(fitter: Fitter, truth: ClipTruth) -> Points:
    """Landmarks fitted to true planes: what camera and face model lose by themselves."""
    model, points, space = fitter.model, [], []
    height, width = truth.height, truth.width
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    for expression, camera in zip(truth.expressions, truth.cameras, strict=True):
        planes = render_ground_truth(model, truth.shape, expression, camera, height, width)
        fit = fit_face(fitter, planes.pncc, planes.offsets, valid_mask(planes.pncc), center)
        space.append(fit.vertices[model.landmarks["menpo84"]])
        points.append(fit.camera.project(space[-1]))
    return np.stack(points), np.stack(space).astype(float)


def _yaw(
    clip: Clip | PictureSet, truth: ClipTruth | None, predicted: np.ndarray
) -> tuple[np.ndarray, bool]:
    """(F,) degrees and whether they are true: of the truth's cameras, else of cameras fitted to the
    annotation in space and in the picture, else what a network says."""
    if truth is not None:
        return np.array([camera.pose.yaw for camera in truth.cameras]), True
    if clip.model is None:
        return predicted, False
    yaw = np.full(len(clip), np.nan)
    for row, (space, pixels) in enumerate(zip(clip.model, clip.projected, strict=True)):
        try:
            camera = fit_affine(Correspondences(space, pixels).finite(), robust=False)
            yaw[row] = camera.pose.yaw
        except (P2FError, np.linalg.LinAlgError):  # hardly anything is annotated
            continue
    known = np.abs(yaw) <= 90
    return np.where(known, yaw, predicted), bool(known.all())
