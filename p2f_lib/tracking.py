"""One face through a video (paper 4.1): boxes over time, a reconstruction a frame, smoothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from tqdm import tqdm

from p2f_lib.camera import Pose
from p2f_lib.crop import Box
from p2f_lib.detection import Detection, Detector
from p2f_lib.errors import NoFaceError, P2FError

# The cost of a box history is its negative log-likelihood when the face's centre and size make a
# random walk of this many box sides a frame; to ignore a frame costs as much as a step of 2 sigma.
STEP_SIGMA = 0.25
SKIP_COST = 2.0
LOOK_BACK = 100  # frames with faces that may be ignored in a row
HISTORIES = 3  # that are compared


class TrackedFace(Protocol):
    """What tracking keeps of a face, such as a `Face`."""

    @property
    def pose(self) -> Pose: ...

    @property
    def confidence(self) -> float: ...

    def landmarks(self, markup: str) -> np.ndarray: ...

    def landmarks_3d(self, markup: str) -> np.ndarray: ...


class FaceReconstructor(Protocol):
    """Anything that makes a face of a picture and a box (left, top, right, bottom)."""

    def reconstruct(self, image: np.ndarray, box: Sequence[float]) -> TrackedFace: ...


@dataclass(frozen=True, eq=False)
class Track:
    """One face in every one of F frames; rows are NaN where the reconstruction failed.

    Attributes
    ----------
    boxes
        (F, 4) left, top, right, bottom in pixels.
    detected
        (F,) bool; False where the box is interpolated.
    landmarks_2d
        (F, L, 2) pixels, smoothed over time.
    landmarks_2d_raw
        (F, L, 2) pixels, each frame by itself.
    landmarks_3d
        (F, L, 3) mm, model space.
    poses
        (F, 3) yaw, pitch and roll in degrees.
    confidence
        (F,) 0 to 1; 0 where the reconstruction failed.
    """

    boxes: np.ndarray
    detected: np.ndarray
    landmarks_2d: np.ndarray
    landmarks_2d_raw: np.ndarray
    landmarks_3d: np.ndarray
    poses: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


def track_frames(
    frames: Iterable[np.ndarray],
    detector: Detector,
    reconstructor: FaceReconstructor,
    *,
    markup: str = "menpo84",
    window: int = 3,
    found: Sequence[Sequence[Detection]] | None = None,
    cuts: Sequence[int] = (),
    progress: bool = True,
) -> Track:
    """Follow one face through a video.

    The frames are gone through twice, one at a time: for boxes, which need the frames before and
    after, and for the reconstruction within them. So memory holds one frame, whatever the length.

    Parameters
    ----------
    frames
        uint8 RGB frames (H, W, 3), from something that can be iterated again: a list, a `Video`,
        a `Clip`.
    detector
        See `p2f_lib.detection.Detector`.
    reconstructor
        A `Reconstructor`, or anything else with its method `reconstruct`.
    markup
        The landmarks to follow.
    window
        Frames of the moving average, odd; 1 for none.
    found
        The faces of every frame where they are known, as of `detect_faces`; the detector isn't
        asked then.
    cuts
        Frames at which another scene begins, as of `p2f_lib.scenes.scene_cuts`: there the person is
        chosen anew, and neither boxes nor landmarks are mixed across.
    progress
        Show progress bars.

    Raises
    ------
    NoFaceError
        If no frame shows a face.
    P2FError
        If the frames can be read only once, or their number differs between the two passes.
    """
    if iter(frames) is frames:
        raise P2FError("Tracking reads the frames twice; pass a list or a Video, not a generator.")
    if found is None:
        found = detect_faces(frames, detector, progress=progress)
    scenes = split_scenes(len(found), cuts)
    chosen = [box for scene in scenes for box in choose_boxes(found[scene])]
    boxes, detected = interpolate_boxes(chosen, cuts)

    rows = []
    bar = tqdm(frames, desc="reconstruct", total=len(boxes), unit="frame", disable=not progress)
    for index, image in enumerate(bar):
        if index == len(boxes):
            raise P2FError(f"The second reading has more than the first one's {len(boxes)} frames.")
        rows.append(_reconstruct(reconstructor, image, boxes[index], markup))
    if len(rows) < len(boxes):
        raise P2FError(f"The first reading had {len(boxes)} frames, the second {len(rows)}.")
    landmarks_2d, landmarks_3d, poses, confidence = _stack(rows)
    return Track(
        boxes=np.array([box.as_tuple() for box in boxes]),
        detected=detected,
        landmarks_2d=np.concatenate([moving_average(landmarks_2d[s], window) for s in scenes]),
        landmarks_2d_raw=landmarks_2d,
        landmarks_3d=landmarks_3d,
        poses=poses,
        confidence=confidence,
    )


def detect_faces(
    frames: Iterable[np.ndarray], detector: Detector, *, progress: bool = True
) -> list[list[Detection]]:
    """The faces of every frame."""
    total = len(frames) if isinstance(frames, Sized) else None
    bar = tqdm(frames, desc="detect", total=total or None, unit="frame", disable=not progress)
    return [list(detector(image)) for image in bar]


def choose_boxes(detections: Sequence[Sequence[Detection]]) -> list[Box | None]:
    """One person's box in every frame, or None (paper 4.1: consistent with neighbouring frames).

    From a conspicuous face (score times size) its history is followed both ways by the shortest
    path over all detections, where steps cost by the distance and the change of size between boxes
    that follow each other. A frame whose faces are all far away may be ignored at a fixed cost, so
    that a second face doesn't step in where the first one was missed. Of the few histories found
    like this, the one that covers the largest area over the whole clip is the clip's person.

    Parameters
    ----------
    detections
        The faces of each frame; a frame may have none.

    Returns
    -------
    One box or None a frame.
    """
    left = [(frame, detection) for frame, found in enumerate(detections) for detection in found]
    # Scores are moved to be positive: some detectors' start below zero.
    lowest = min((detection.score for _, detection in left), default=0.0)
    best: dict[int, Detection] = {}
    for _ in range(HISTORIES):
        if not left:
            break
        first, seed = max(left, key=lambda one: (one[1].score - lowest + 1.0) * _side(one[1].box))
        before = [one for one in reversed(left) if one[0] < first]
        after = [one for one in left if one[0] > first]
        history = {first: seed} | _follow(first, seed, before) | _follow(first, seed, after)
        best = max(best, history, key=_covered)
        left = [one for one in left if history.get(one[0]) is not one[1]]
    return [best[frame].box if frame in best else None for frame in range(len(detections))]


def split_scenes(n_frames: int, cuts: Sequence[int]) -> list[slice]:
    """The frames of every scene, given the first frames of all scenes but the first."""
    edges = [0, *(cut for cut in sorted(set(cuts)) if 0 < cut < n_frames), n_frames]
    return [slice(first, end) for first, end in pairwise(edges)]


def interpolate_boxes(
    boxes: Sequence[Box | None], cuts: Sequence[int] = ()
) -> tuple[list[Box], np.ndarray]:
    """Fill missing boxes by linear interpolation in time; the ends hold the nearest box.

    Parameters
    ----------
    boxes
        One box or None a frame.
    cuts
        Frames at which another scene begins: nothing is interpolated across. A scene without any
        box gets those that it would have without cuts.

    Returns
    -------
    boxes
        One box a frame.
    detected
        (F,) bool, False where the box was filled in.

    Raises
    ------
    NoFaceError
        If there is no box at all.
    """
    detected = np.array([box is not None for box in boxes], dtype=bool)
    if not detected.any():
        raise NoFaceError(f"No face was found in any of the {len(boxes)} frames.")
    filled = _interpolated(boxes)
    for scene in split_scenes(len(boxes), cuts):
        if detected[scene].any():
            filled[scene] = _interpolated(boxes[scene])
    return [Box(*map(float, row)) for row in filled], detected


def _interpolated(boxes: Sequence[Box | None]) -> np.ndarray:
    """(F, 4) sides."""
    known = [number for number, box in enumerate(boxes) if box is not None]
    sides = np.array([box.as_tuple() for box in boxes if box is not None])
    frames = np.arange(len(boxes))
    return np.stack([np.interp(frames, known, side) for side in sides.T], axis=1)


def moving_average(values: np.ndarray, window: int = 3) -> np.ndarray:
    """Centred moving average over time (paper 4.1: three frames).

    Frames are taken in pairs about the centre, and a pair takes part only when both of its frames
    exist and are finite: so the window narrows at the ends and beside gaps, steady motion is never
    shifted, and gaps stay gaps.

    Parameters
    ----------
    values
        (F, ...) one row a frame; a row with a NaN is a gap.
    window
        Odd number of frames.
    """
    if window < 1 or window % 2 == 0:
        raise P2FError(f"The window of a moving average is an odd number of frames, got {window}.")
    values = np.asarray(values, dtype=float)
    axes = tuple(range(1, values.ndim))
    given = np.isfinite(values).all(axis=axes, keepdims=True)
    total, count = np.where(given, values, np.nan), np.ones_like(given, dtype=float)
    for reach in range(1, min(window // 2, (len(values) - 1) // 2) + 1):
        center = slice(reach, len(values) - reach)
        before, after = values[: -2 * reach], values[2 * reach :]
        both = given[: -2 * reach] & given[2 * reach :]
        total[center] += np.where(both, before + after, 0.0)
        count[center] += 2.0 * both
    return total / count


# --- boxes over time ------------------------------------------------------------------------------


def _side(box: Box) -> float:
    return float(np.sqrt(box.width * box.height))


def _covered(history: dict[int, Detection]) -> float:
    return sum(_side(detection.box) ** 2 for detection in history.values())


def _follow(
    first: int, seed: Detection, others: list[tuple[int, Detection]]
) -> dict[int, Detection]:
    """Shortest path from the seed in frame `first` through (frame, detection) in walking order."""
    frames = np.array([first] + [frame for frame, _ in others], dtype=float)
    boxes = [seed.box] + [detection.box for _, detection in others]
    centers = np.array([box.center for box in boxes])
    sides = np.array([_side(box) for box in boxes])
    rank = np.concatenate([[0], np.cumsum(np.diff(frames) != 0)])  # of frames that show a face
    starts, stops = np.searchsorted(rank, rank - LOOK_BACK), np.searchsorted(rank, rank)
    cost, parent = np.zeros(len(boxes)), np.full(len(boxes), -1)
    for k in range(1, len(boxes)):
        earlier = slice(starts[k], stops[k])
        gap = np.abs(frames[k] - frames[earlier])
        moved = ((centers[k] - centers[earlier]) ** 2).sum(1) / (sides[k] * sides[earlier])
        grown = np.log(sides[k] / sides[earlier]) ** 2
        step = (moved + grown) / (2 * STEP_SIGMA**2 * gap)
        total = cost[earlier] + step + SKIP_COST * (rank[k] - rank[earlier] - 1)
        parent[k] = starts[k] + np.argmin(total)
        cost[k] = total.min()
    # The path may also end early, at the cost of ignoring all that is left.
    k = int(np.argmin(cost + SKIP_COST * (rank[-1] - rank)))
    path = {}
    while k > 0:
        frame, detection = others[k - 1]
        path[frame] = detection
        k = int(parent[k])
    return path


# --- one frame ------------------------------------------------------------------------------------

_Row = tuple[np.ndarray, np.ndarray, tuple[float, float, float], float]


def _reconstruct(
    reconstructor: FaceReconstructor, image: np.ndarray, box: Box, markup: str
) -> _Row | None:
    try:
        face = reconstructor.reconstruct(image, box=box.as_tuple())
    except NoFaceError:
        return None  # a frame that shows nothing (cut, blackout) must not end the track
    pose = (face.pose.yaw, face.pose.pitch, face.pose.roll)
    return face.landmarks(markup), face.landmarks_3d(markup), pose, face.confidence


def _stack(rows: list[_Row | None]) -> tuple[np.ndarray, ...]:
    given = [row for row in rows if row is not None]
    if not given:
        raise NoFaceError(f"No face could be reconstructed in any of the {len(rows)} frames.")
    known = np.array([row is not None for row in rows])
    columns = []
    for column, missing in zip(
        zip(*given, strict=True), (np.nan, np.nan, np.nan, 0.0), strict=True
    ):
        stacked = np.array(column, dtype=float)
        full = np.full((len(rows), *stacked.shape[1:]), missing)
        full[known] = stacked
        columns.append(full)
    return tuple(columns)
