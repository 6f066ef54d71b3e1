"""One person through a video of any length, live or with a look ahead (paper 4.1).

With the whole video at hand it is gone through twice, as in the paper: for boxes, which need the
frames before and after, and for the reconstruction within them. Both passes write what they find to
disk at once, so memory holds a few frames, and an interrupted run goes on where it was. Live, a
frame is looked at where the one before showed the face.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from p2f_lib.camera import Correspondences, PerspectiveCamera, fit_perspective
from p2f_lib.crop import Box, Crop
from p2f_lib.detection import Detection, Detector
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.fitting import Localized, SharedShape
from p2f_lib.parallel import Inline, one_thread, ordered, prefetched
from p2f_lib.reconstruction import Face, Reconstructor, box_problem
from p2f_lib.scenes import is_cut, scene_cuts, thumbnail
from p2f_lib.smoothing import OneEuro
from p2f_lib.track_store import (
    ABSENT,
    DETECTED,
    HELD,
    INTERPOLATED,
    POINTS_TYPE,
    STATES,
    TRACKED,
    UNREADABLE,
    Lines,
    Rows,
    empty_row,
    known_markups,
    pack_points,
    row_type,
    unpack_points,
)
from p2f_lib.tracking import choose_boxes, interpolate_boxes, split_scenes
from p2f_lib.video import Frame, Source

SURE = 0.5  # confidence from which the network alone may say that there is a face
SAME_FACE = 0.25  # overlap from which a crop and a box show the same face
SMOOTHINGS = ("average", "one-euro", "none")


@dataclass(frozen=True)
class Settings:
    """How a face is tracked.

    Attributes
    ----------
    detect_every
        The detector looks at every so many frames; between them the crop comes from the fit before.
    follow
        Take the crop from the fit before in all frames; the boxes only say who it is.
    max_gap
        Seconds without a detection that are bridged by interpolated or held boxes. Heads turn
        away, or hands pass, for about a second; who is away longer has often moved or left, and a
        box in between shows something else. Beyond, the face is followed from fit to fit as long
        as the network is sure of it, and then absent. Infinite: every frame gets landmarks.
    smoothing
        Of the 2D landmarks: ``"average"`` (paper), ``"one-euro"`` (knows no future), ``"none"``.
    window
        Frames of the moving average, odd.
    share_shape
        One shape for the clip (Eq. 5), which then has to show one person.
    batch
        Frames that the network sees at once where they don't depend on each other.
    """

    detect_every: int = 1
    follow: bool = False
    max_gap: float = 1.0
    smoothing: str = "average"
    window: int = 3
    share_shape: bool = False
    batch: int = 8

    def __post_init__(self) -> None:
        if self.detect_every < 1 or self.batch < 1:
            raise P2FError(
                "The detector looks at every first frame or fewer, and a batch holds at least 1; "
                f"got {self.detect_every} and {self.batch}."
            )
        if not self.max_gap >= 0:
            raise P2FError(f"The longest gap is 0 seconds or more, got {self.max_gap}.")
        if self.smoothing not in SMOOTHINGS:
            raise P2FError(
                f"There is no smoothing {self.smoothing!r}; there are {', '.join(SMOOTHINGS)}."
            )
        if self.window < 1 or self.window % 2 == 0:
            raise P2FError(f"The window is an odd number of frames, got {self.window}.")


@dataclass(frozen=True, eq=False)
class Look:
    """What the first pass saw in a frame.

    Attributes
    ----------
    time
        Seconds.
    faces
        None where the detector wasn't asked.
    thumbnail
        As of `p2f_lib.scenes`; None where the frame can't be read.
    """

    time: float
    faces: tuple[Detection, ...] | None
    thumbnail: np.ndarray | None

    def to_json(self) -> dict:
        """As a line of the log of the first pass; `from_json` gives it back exactly."""
        faces = self.faces
        return {
            "time": self.time,
            "faces": faces and [[*face.box.as_tuple(), face.score] for face in faces],
            "thumbnail": None if self.thumbnail is None else self.thumbnail.tobytes().hex(),
        }

    @classmethod
    def from_json(cls, line: dict) -> Look:
        faces, picture = line["faces"], line["thumbnail"]
        return cls(
            line["time"],
            None if faces is None else tuple(Detection(Box(*f[:4]), f[4]) for f in faces),
            None if picture is None else np.frombuffer(bytes.fromhex(picture), np.uint8),
        )


@dataclass(frozen=True)
class Step:
    """Where the second pass looks in a frame.

    Attributes
    ----------
    state
        Index into `STATES`.
    scene
        Number of the scene.
    box
        None: nowhere, or only where the face was before.
    follows
        First where the face was in the frame before.
    """

    state: int
    scene: int
    box: Box | None = None
    follows: bool = False


def plan(looks: Sequence[Look], settings: Settings = Settings()) -> list[Step]:
    """Scenes, the person's boxes in each, and what happens where there is none.

    Raises
    ------
    NoFaceError
        If no frame shows a face.
    """
    scenes = split_scenes(len(looks), scene_cuts([look.thumbnail for look in looks]))
    steps = [
        step
        for number, scene in enumerate(scenes)
        for step in _plan_scene(looks[scene], number, settings)
    ]
    if all(step.box is None for step in steps):
        raise NoFaceError(f"No face was found in any of the {len(steps)} frames.")
    return steps


def _plan_scene(looks: Sequence[Look], scene: int, settings: Settings) -> list[Step]:
    chosen = choose_boxes([look.faces or () for look in looks])
    known = [number for number, box in enumerate(chosen) if box is not None]
    boxes = interpolate_boxes(chosen)[0] if known else [None] * len(looks)
    missed = [
        look.faces is not None and box is None for look, box in zip(looks, chosen, strict=True)
    ]
    misses = np.concatenate([[0], np.cumsum(missed)])  # before each frame
    steps, before = [], None
    after = iter([*known, None])
    following = next(after)
    for number, look in enumerate(looks):
        if number == following:
            before, following = following, next(after)
        first = number if before is None else before
        last = number if following is None else following
        # Frames that nobody looked at are no gap, however far apart the looks are.
        bridged = (before, following) != (None, None) and (
            looks[last].time - looks[first].time <= settings.max_gap + 1e-6  # times are rounded
            or misses[last + 1] == misses[first]
        )
        if look.thumbnail is None:
            steps.append(Step(UNREADABLE, scene))
        elif chosen[number] is not None:
            steps.append(Step(DETECTED, scene, boxes[number], settings.follow))
        elif bridged and look.faces is None:
            steps.append(Step(TRACKED, scene, boxes[number], True))
        elif bridged:
            state = HELD if None in (before, following) else INTERPOLATED
            steps.append(Step(state, scene, boxes[number], settings.follow))
        elif before is not None:
            steps.append(Step(TRACKED, scene, None, True))
        else:
            steps.append(Step(ABSENT, scene))
    return steps


@dataclass(frozen=True, eq=False)
class Tracked:
    """One frame of a live track.

    Attributes
    ----------
    row
        As of `p2f_lib.track_store.row_type`, with unsmoothed landmarks.
    landmarks
        Mark-up -> (L, 2) pixels, smoothed; NaN where there is no face.
    """

    row: np.ndarray
    landmarks: dict[str, np.ndarray]

    @property
    def state(self) -> str:
        """One of `p2f_lib.track_store.STATES`."""
        return STATES[int(self.row["state"])]


@dataclass(frozen=True)
class Results:
    """Where the results of a video lie: a row a frame."""

    rows: Rows
    settings: Settings
    fps: float


class Tracker:
    """Follows one person through a video.

    Parameters
    ----------
    reconstructor
        Such as ``Reconstructor.from_pretrained(variant="fast")``.
    detector
        Default: the reconstructor's.
    settings
        See `Settings`.
    threads
        That work at the same time in `track`: on detections, then on batches. They change nothing
        but the speed.
    progress
        Show progress bars.
    """

    def __init__(
        self,
        reconstructor: Reconstructor,
        detector: Detector | None = None,
        settings: Settings | None = None,
        threads: int = 1,
        progress: bool = True,
    ) -> None:
        if threads < 1:
            raise P2FError(f"At least one thread has to work, got {threads}.")
        self.reconstructor = reconstructor
        self.detector = detector or reconstructor.detector
        self.settings = settings or Settings()
        self.threads, self.progress = threads, progress
        self.row_type = row_type(reconstructor.model)
        self.reset()

    # --- a whole video ---

    def track(self, source: Source, folder: str | Path, resume: bool = False) -> Results:
        """Go through a video twice, and a third time through the results with a shared shape.

        Parameters
        ----------
        source
            Something whose frames can be read again.
        folder
            For the results; made if missing.
        resume
            Go on with what an interrupted run left there; else it is overwritten.

        Raises
        ------
        NoFaceError
            If no frame shows a face.
        P2FError
            If the frames differ between the passes, or files can't be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not resume:
                for path in (folder / "looks.jsonl", *folder.glob("*.rows")):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise P2FError(f"Cannot make the folder {folder}: {error}.") from error
        looks = self._look(source, Lines(folder / "looks.jsonl"))
        rows = Rows(folder / "frames.rows", self.row_type)
        points = Rows(folder / "points.rows", POINTS_TYPE) if self.settings.share_shape else None
        self._fit(source, plan(looks, self.settings), rows, points)
        if points is not None:
            rows = self._shared(rows, points, folder / "shared.rows")
        return Results(rows, self.settings, source.fps)

    def _look(self, source: Source, log: Lines) -> list[Look]:
        lines = log.read()
        if lines and lines[-1] is None:  # was finished
            return [Look.from_json(line) for line in lines[:-1]]
        looks = [Look.from_json(line) for line in lines]
        with prefetched(source.frames(len(looks))) as frames, self._pool() as pool:
            for look in self._bar(
                ordered(self._seen, frames, pool, 2 * self.threads), "look", source, len(looks)
            ):
                log.append(look.to_json())
                looks.append(look)
        log.append(None)
        return looks

    def _seen(self, frame: Frame) -> Look:
        if frame.image is None:
            return Look(frame.time, None, None)
        wanted = frame.index % self.settings.detect_every == 0
        faces = tuple(self.detector(frame.image)) if wanted else None
        return Look(frame.time, faces, thumbnail(frame.image).ravel())

    def _fit(
        self,
        source: Source,
        steps: Sequence[Step],
        rows: Rows,
        points: Rows | None,
    ) -> None:
        batch = self.settings.batch
        done = len(rows) if points is None else min(len(rows), len(points))
        if done < len(steps):  # whole batches: what one holds changes the last digits
            done = done // batch * batch
        for file in (rows, points):
            if file is not None:
                file.cut(done)
        if done == len(steps):
            return
        last = rows[done - 1 : done][0] if done else None
        with prefetched(source.frames(done), 2 * batch) as frames, self._pool() as pool:
            pairs = _paired(frames, steps, done)
            fitted = self._fitted(_blocks(pairs, batch), last, pool)
            with self._counter("fit", len(steps), done) as bar:
                for block in fitted:
                    rows.append([row for row, _ in block])
                    if points is not None:
                        points.append([pack_points(localized) for _, localized in block])
                    bar.update(len(block))

    def _fitted(
        self, blocks: Iterable[list[tuple[Frame, Step]]], last: np.ndarray | None, pool: Executor
    ) -> Iterator[list[_Fitted]]:
        """Results of blocks, in order; a block that follows waits for those before."""
        waiting: deque[Future] = deque()
        for block in blocks:
            if block[0][1].follows:
                while waiting:
                    done = waiting.popleft().result()
                    last = done[-1][0]
                    yield done
                done = [self._follow(*block[0], last)]
                last = done[-1][0]
                yield done
                continue
            waiting.append(pool.submit(self._fit_block, block))
            if len(waiting) > self.threads:
                done = waiting.popleft().result()
                last = done[-1][0]
                yield done
        while waiting:
            yield waiting.popleft().result()

    def _fit_block(self, block: list[tuple[Frame, Step]]) -> list[_Fitted]:
        wanted = {
            number: (frame.image, step.box)
            for number, (frame, step) in enumerate(block)
            if frame.image is not None
            and step.box is not None
            and box_problem(step.box, frame.image) is None
        }
        images, boxes = [image for image, _ in wanted.values()], [box for _, box in wanted.values()]
        faces = dict(zip(wanted, self.reconstructor.reconstruct_many(images, boxes), strict=True))
        return [self._fitted_row(*pair, faces.get(k)) for k, pair in enumerate(block)]

    def _follow(self, frame: Frame, step: Step, last: np.ndarray | None) -> _Fitted:
        """Where the frame before had the face; where that fails, in the box, if there is one."""
        if frame.image is None:
            return self._fitted_row(frame, step, None)
        crop = None if last is None or last["scene"] != step.scene else self._crop_of(last)
        if crop is not None and step.box is not None:
            about = Crop.around(step.box, crop.size, self.reconstructor.crop_scale)
            if crop.square.overlap(about.square) < SAME_FACE:
                crop = None  # somebody else's
        face = None
        if crop is not None:
            (face,) = self.reconstructor.reconstruct_many([frame.image], [crop.square], [crop])
            if face is not None and face.confidence >= SURE:
                return self._fitted_row(frame, step, face)
        if step.box is None or box_problem(step.box, frame.image) is not None:
            return self._fitted_row(frame, step, None)
        (other,) = self.reconstructor.reconstruct_many([frame.image], [step.box])
        found = [one for one in (face, other) if one is not None]
        best = max(found, key=lambda one: one.confidence, default=None)
        return self._fitted_row(frame, step, best)

    def _crop_of(self, row: np.ndarray) -> Crop | None:
        left, top, side, roll = row["next_crop"].tolist()
        if math.isnan(side):
            return None
        return Crop(left, top, side, self.reconstructor.unet.config.input_size, roll)

    def _fitted_row(self, frame: Frame, step: Step, face: Face | None) -> _Fitted:
        row = empty_row(self.row_type)
        row["time"], row["scene"] = frame.time, step.scene
        row["state"] = step.state
        if step.box is not None:
            row["box"] = step.box.as_tuple()
        if face is None:
            row["state"] = UNREADABLE if frame.image is None else ABSENT
            return row, None
        if step.state == TRACKED:
            row["box"] = Box.around(face.landmarks("ibug68")).as_tuple()
        crop = self.reconstructor.next_crop(face)
        if crop is not None:
            row["next_crop"] = crop.left, crop.top, crop.side, crop.roll
        row["confidence"] = face.confidence
        self._describe(row, face.shape, face.expression, face.vertices, face.camera)
        pixels = face.crop.points_to_picture(face.localized.pixels)
        return row, Localized(face.localized.vertices, pixels, face.localized.offsets)

    def _shared(self, rows: Rows, points: Rows, path: Path) -> Rows:
        """The same rows with one shape for all (Eq. 5), expressions and cameras fitted anew."""
        shared = Rows(path, self.row_type)
        if len(shared) == len(rows):
            return shared
        equations = SharedShape(self.reconstructor.fitter)
        for chunk in points.chunks():
            for localized in map(unpack_points, chunk):
                if localized is not None:
                    equations.add(localized)
        shape = equations.shape()
        part = Rows(path.with_suffix(".part"), self.row_type)
        part.path.unlink(missing_ok=True)
        with self._counter("share", len(rows)) as bar:
            for chunk, its_points in zip(rows.chunks(), points.chunks(), strict=True):
                for row, localized in zip(chunk, map(unpack_points, its_points), strict=True):
                    if localized is not None:
                        self._refit(row, localized, equations, shape)
                part.append(list(chunk))
                bar.update(len(chunk))
        os.replace(part.path, path)
        return shared

    def _refit(
        self, row: np.ndarray, localized: Localized, equations: SharedShape, shape: np.ndarray
    ) -> None:
        expression = equations.expression(localized, shape)
        vertices = self.reconstructor.model.vertices(shape, expression)
        pairs = Correspondences(vertices[localized.vertices], localized.pixels)
        start = camera_of(row)
        camera = fit_perspective(pairs, start.principal_point, start, subset=1000)
        self._describe(row, shape, expression, vertices, camera)

    def _describe(
        self,
        row: np.ndarray,
        shape: np.ndarray,
        expression: np.ndarray,
        vertices: np.ndarray,
        camera: PerspectiveCamera,
    ) -> None:
        """Write a fitted mesh and its camera into a row."""
        row["shape"], row["expression"] = shape, expression
        row["pose"] = camera.pose.yaw, camera.pose.pitch, camera.pose.roll
        placement = camera.principal_point, camera.rotation.ravel(), camera.translation
        row["camera"] = np.concatenate([[camera.focal], *placement])
        model = self.reconstructor.model
        for markup in known_markups(model):
            points = vertices[model.landmarks[markup]]
            row[f"{markup}_2d"], row[f"{markup}_3d"] = camera.project(points), points

    # --- live ---

    def reset(self) -> None:
        """Forget the person and the frames before."""
        self._last: np.ndarray | None = None
        self._seen_at = -math.inf
        self._thumbnails: list[np.ndarray] = []
        self._n_frames = self._scene = 0
        self._filters = {markup: OneEuro() for markup in known_markups(self.reconstructor.model)}

    def update(self, image: np.ndarray | None, time: float) -> Tracked:
        """The next frame of a live video.

        The face is looked for where it was. The detector is asked in every `detect_every`-th frame
        and when the face is lost.

        Parameters
        ----------
        image
            (H, W, 3) uint8, RGB; None for a frame that was lost.
        time
            Seconds, later than the frame before.
        """
        frame = Frame(self._n_frames, time, image)
        self._n_frames += 1
        row = self._live_row(frame)
        if np.isfinite(row["confidence"]) and row["confidence"] > 0:
            self._last, self._seen_at = row, time
        return Tracked(row, smooth_live(row, self._filters, self.settings.smoothing))

    def _live_row(self, frame: Frame) -> np.ndarray:
        if frame.image is None:
            return self._fitted_row(frame, Step(UNREADABLE, self._scene), None)[0]
        small = thumbnail(frame.image)
        if is_cut(self._thumbnails, [small]):
            self._scene += 1
            self._last, self._thumbnails = None, []
        self._thumbnails = [*self._thumbnails[-1:], small]
        if frame.time - self._seen_at > self.settings.max_gap:
            self._last = None  # whoever comes now may be another person
        following = Step(TRACKED, self._scene, None, True)
        if self._last is not None and frame.index % self.settings.detect_every:
            row, _ = self._follow(frame, following, self._last)
            if row["state"] == TRACKED:
                return row
        box = self._whose(self.detector(frame.image))
        if box is not None:
            following = Step(DETECTED, self._scene, box, True)
        return self._follow(frame, following, self._last)[0]

    def _whose(self, found: Sequence[Detection]) -> Box | None:
        """The box of the person before; if there is none, of the most conspicuous face."""
        if self._last is not None:
            last = Box(*self._last["box"].tolist())
            found = [one for one in found if one.box.overlap(last) > 0]
            return max((one.box for one in found), key=last.overlap, default=None)
        lowest = min((one.score for one in found), default=0.0)
        best = max(
            found,
            key=lambda one: (one.score - lowest + 1) * math.sqrt(one.box.width * one.box.height),
            default=None,
        )
        return None if best is None else best.box

    def live(
        self, source: Source, folder: Path, shown: Callable[[Frame, Tracked], None] | None = None
    ) -> Results:
        """Go through a video or a camera's pictures once, until it ends or Ctrl-C.

        Parameters
        ----------
        folder
            For the results; made if missing.
        shown
            Called with every frame.

        Raises
        ------
        NoFaceError
            If no frame shows a face.
        """
        self.reset()
        folder.mkdir(parents=True, exist_ok=True)
        rows = Rows(folder / "frames.rows", self.row_type)
        rows.cut(0)
        try:
            with prefetched(source.frames(), 1) as frames, one_thread():
                for frame in self._bar(frames, "live", source, 0):
                    tracked = self.update(frame.image, frame.time)
                    rows.append([tracked.row])
                    if shown is not None:
                        shown(frame, tracked)
        except KeyboardInterrupt:
            pass  # how a camera is stopped
        if not (rows.column("confidence") > 0).any():
            raise NoFaceError(f"No face was found in any of the {len(rows)} frames.")
        return Results(rows, self.settings, source.fps)

    # --- helpers ---

    @contextmanager
    def _pool(self) -> Iterator[Executor]:
        # One thread of PyTorch whatever the number of workers: the digits stay the same.
        with one_thread():
            if self.threads == 1:
                yield Inline()
                return
            start = partial(torch.set_num_threads, 1)
            pool = ThreadPoolExecutor(self.threads, initializer=start)
            try:
                yield pool
            finally:
                pool.shutdown(cancel_futures=True)

    def _bar(self, items: Iterable, what: str, source: Source, done: int) -> tqdm:
        total = len(source) or None
        return tqdm(items, what, total, initial=done, unit="frame", disable=not self.progress)

    def _counter(self, what: str, total: int, done: int = 0) -> tqdm:
        return tqdm(desc=what, total=total, initial=done, unit="frame", disable=not self.progress)


_Fitted = tuple[np.ndarray, Localized | None]


def camera_of(row: np.ndarray) -> PerspectiveCamera:
    """The camera of a row with a face, model space to pixels of the frame."""
    values = row["camera"]
    return PerspectiveCamera(float(values[0]), values[1:3], values[3:12].reshape(3, 3), values[12:])


def smooth_live(
    row: np.ndarray, filters: dict[str, OneEuro], smoothing: str
) -> dict[str, np.ndarray]:
    """Mark-up -> (L, 2) pixels, filtered with what `filters` remember; nothing across scenes."""
    raw = {markup: row[f"{markup}_2d"] for markup in filters}
    if smoothing == "none":
        return raw
    left, top, right, bottom = row["box"]
    size = math.sqrt((right - left) * (bottom - top))
    return {
        markup: one(raw[markup], float(row["time"]), size, int(row["scene"]))
        for markup, one in filters.items()
    }


def _paired(
    frames: Iterable[Frame], steps: Sequence[Step], done: int
) -> Iterator[tuple[Frame, Step]]:
    """Frames of the second pass with their steps; as many as in the first."""
    count = done
    for frame in frames:
        if count == len(steps):
            raise P2FError(f"The second reading has more than the first one's {count} frames.")
        yield frame, steps[count]
        count += 1
    if count < len(steps):
        raise P2FError(f"The first reading had {len(steps)} frames, the second {count}.")


def _blocks(pairs: Iterable[tuple[Frame, Step]], batch: int) -> Iterator[list[tuple[Frame, Step]]]:
    """What is fitted at once: frames that follow alone, others up to the next multiple of `batch`.

    Where a block ends doesn't depend on where the reading began, if that is such a multiple.
    """
    block: list[tuple[Frame, Step]] = []
    for frame, step in pairs:
        if step.follows:
            if block:
                yield block
            yield [(frame, step)]
            block = []
            continue
        block.append((frame, step))
        if frame.index % batch == batch - 1:
            yield block
            block = []
    if block:
        yield block
