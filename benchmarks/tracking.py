"""A video end to end on two cores, its stages, and what threads and batches are worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from benchmarks import Row, median_ms
from benchmarks._common import RELEASE, ROOT
from p2f_lib.crop import Box, Crop
from p2f_lib.detection import DlibDetector
from p2f_lib.errors import P2FError
from p2f_lib.fitting import fit_face, valid_mask
from p2f_lib.parallel import one_thread
from p2f_lib.reconstruction import CROP_SCALE, WEIGHTS_FOLDERS, Reconstructor
from p2f_lib.track_files import Layout, write_files
from p2f_lib.tracker import Settings, Tracker
from p2f_lib.unet import predict
from p2f_lib.video import Video, write_video

CLIP = ROOT / "data" / "menpo3d_synthetic" / "300VW" / "001" / "vid.avi"
SIZE = (640, 480)
FRAMES = 64
BATCH = Settings().batch


def rows() -> list[Row]:
    """Frames a second of the whole, milliseconds of its parts."""
    try:
        reconstructor = Reconstructor.from_pretrained(RELEASE, device="cpu", variant="fast")
        detector = DlibDetector()
        detector(np.zeros((80, 80, 3), np.uint8))
    except P2FError as problem:
        why = str(problem).replace(str(RELEASE), WEIGHTS_FOLDERS[0])
        return [Row("tracking_frames_per_s", np.nan, "frames/s", note=f"not measured: {why}")]
    with one_thread(), TemporaryDirectory() as folder:
        video = _video(Path(folder))
        return [
            _whole(video, reconstructor, "tracking_frames_per_s", {}, "detected in every frame"),
            _whole(
                video,
                reconstructor,
                "tracking_every_5th_frames_per_s",
                {"detect_every": 5},
                "detected in every 5th, each crop from the frame before",
            ),
            *_stages(video, reconstructor, detector),
            _batches(video, reconstructor),
            *_beside_each_other(video, reconstructor, detector),
        ]


def _video(folder: Path) -> Video:
    """The clip's frames at a webcam's size, forwards and backwards."""
    frames = [cv2.resize(frame, SIZE) for frame in Video(CLIP)]
    there_and_back = [*frames, *frames[::-1]][:FRAMES]
    write_video(folder / "clip.avi", there_and_back)
    return Video(folder / "clip.avi")


def _whole(video: Video, reconstructor: Reconstructor, name: str, options: dict, what: str) -> Row:
    def run(threads: int) -> float:
        with TemporaryDirectory() as folder:
            tracker = Tracker(
                reconstructor, settings=Settings(**options), threads=threads, progress=False
            )
            layout = Layout(Path(folder), "clip")
            results = tracker.track(video, layout.work)
            write_files(results, layout, video, reconstructor, progress=False)
            return len(results.rows)

    rates = {}
    run(1)
    for threads in (1, 2):
        began = time.perf_counter()
        rates[threads] = run(threads) / (time.perf_counter() - began)
    return Row(
        name,
        rates[2],
        "frames/s",
        rates[1],
        f"{SIZE[0]}x{SIZE[1]} video to landmark files, table and overlay, {what}, fast variant, 2 "
        "threads of work; reference: 1",
    )


def _stages(video: Video, reconstructor: Reconstructor, detector: DlibDetector) -> Iterator[Row]:
    """Of one frame, on one core."""
    frames = list(islice(video.frames(), BATCH))
    image = frames[0].image
    box = detector(image)[0].box
    crop = Crop.around(box, reconstructor.unet.config.input_size, CROP_SCALE)
    crops = np.repeat(crop.extract(image)[None], BATCH, axis=0)
    pncc, offsets = (planes[0] for planes in predict(reconstructor.engine, crops, mirror=False))
    valid = valid_mask(pncc)
    center = np.full(2, (crop.size - 1) / 2)

    def write() -> None:
        with TemporaryDirectory() as folder:
            layout = Layout(Path(folder), "clip")
            layout.work.mkdir(parents=True)
            write_files(results, layout, video, reconstructor, progress=False)

    with TemporaryDirectory() as folder:
        results = Tracker(reconstructor, progress=False).track(video, Path(folder))
        stages: dict[str, tuple[Callable[[], object], int, str]] = {
            "decode": (lambda: sum(1 for _ in video.frames()), FRAMES, "motion JPEG"),
            "detect": (lambda: detector(image), 1, "dlib's detector"),
            "network": (
                lambda: predict(reconstructor.engine, crops, mirror=False),
                BATCH,
                f"once a frame, {BATCH} at a time",
            ),
            "fit": (
                lambda: fit_face(reconstructor.fitter, pncc, offsets, valid, center),
                1,
                "vertices, coefficients and camera",
            ),
            "write": (write, FRAMES, "six landmark files, table row, overlay, decoded once more"),
        }
        for name, (work, count, what) in stages.items():
            ms = median_ms(work, 5) / count
            note = f"of a frame of {SIZE[0]}x{SIZE[1]}: {what}"
            yield Row(f"tracking_{name}_ms", ms, "ms", note=note)


def _batches(video: Video, reconstructor: Reconstructor) -> Row:
    images = [frame.image for frame in islice(video.frames(), BATCH)]
    boxes = _boxes(images)

    def fitted(batch: int) -> None:
        for start in range(0, BATCH, batch):
            part = slice(start, start + batch)
            reconstructor.reconstruct_many(images[part], boxes[part])

    return Row(
        "tracking_batch_ms",
        median_ms(partial(fitted, BATCH)) / BATCH,
        "ms",
        median_ms(partial(fitted, 1)) / BATCH,
        f"network and fit of a frame, {BATCH} at a time, 1 thread; reference: one by one",
    )


def _beside_each_other(
    video: Video, reconstructor: Reconstructor, detector: DlibDetector
) -> Iterator[Row]:
    """Two threads against one: near one half where the other thread isn't kept waiting."""
    images = [frame.image for frame in islice(video.frames(), BATCH)]
    boxes = _boxes(images)

    def detect() -> None:
        for image in images:
            detector(image)

    def fit() -> None:
        reconstructor.reconstruct_many(images, boxes)

    pairs = {"detect": (detect, detect), "fit": (fit, fit), "detect_and_fit": (detect, fit)}
    with ThreadPoolExecutor(2) as pool:

        def together(one: Callable[[], None], other: Callable[[], None]) -> None:
            for future in [pool.submit(one), pool.submit(other)]:
                future.result()

        def in_turn(one: Callable[[], None], other: Callable[[], None]) -> None:
            one()
            other()

        for name, pair in pairs.items():
            yield Row(
                f"tracking_threads_{name}_ms",
                median_ms(partial(together, *pair)) / BATCH,
                "ms",
                median_ms(partial(in_turn, *pair)) / BATCH,
                f"{' and '.join(work.__name__ for work in pair)} in two threads, a frame of each; "
                "reference: one after the other",
            )


def _boxes(images: list[np.ndarray]) -> list[Box]:
    detector = DlibDetector()
    return [detector(image)[0].box for image in images]
