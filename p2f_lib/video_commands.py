"""The commands that go through videos: what `p2f track` and `evaluate-tracking` do."""

from __future__ import annotations

import hashlib
import json
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from p2f_lib.errors import P2FError
from p2f_lib.photo_commands import make_reconstructor, say, sentence
from p2f_lib.video import Camera, Limited, Pictures, Source, Video, open_source

if TYPE_CHECKING:
    from p2f_lib.track_files import Layout
    from p2f_lib.tracker import Settings, Tracked, Tracker
    from p2f_lib.video import Frame

END_BYTES = 2**20  # of a video's beginning and end, by which it is known again
LIVE_DETECT_EVERY = 25  # frames
MAX_THREADS = 4  # unless more are wished for: each holds some frames


def track(arguments: Namespace) -> int:
    """One person through every video, as files."""
    from p2f_lib.tracker import Settings, Tracker

    if arguments.mesh_every < 1:
        raise P2FError(f"--mesh-every needs a number of at least 1, got {arguments.mesh_every}.")
    names = clip_names(arguments.videos, arguments.name)
    live = arguments.live or any(map(_is_camera, arguments.videos))
    every = arguments.detect_every or (LIVE_DETECT_EVERY if live else 1)
    settings = Settings(
        detect_every=every,
        follow=arguments.follow,
        max_gap=float("inf") if arguments.every_frame else arguments.max_gap,
        smoothing=arguments.smoothing or ("one-euro" if live else "average"),
        window=arguments.window,
        share_shape=arguments.share_shape,
        batch=arguments.batch,
    )
    _check_live(settings, arguments, live)
    reconstructor = make_reconstructor(arguments, arguments.engine)
    detector = None
    if arguments.detector_file is not None:
        from p2f_lib.detection import DlibCnnDetector

        detector = DlibCnnDetector(arguments.detector_file)
    threads = arguments.threads or min(os.cpu_count() or 1, MAX_THREADS)
    tracker = Tracker(reconstructor, detector, settings, threads)
    failed = False
    for video, name in zip(arguments.videos, names, strict=True):
        try:
            print(f"{video}: {_track_one(arguments, tracker, video, name, live)}")
        except Exception as error:
            failed = True
            say(sentence(error, Path(video)))
    return int(failed)


def evaluate_tracking(arguments: Namespace) -> int:
    """A table of what options of tracking cost."""
    from p2f_lib.datasets.menpo3d import read_clips
    from p2f_lib.reconstruction import VARIANTS, Reconstructor
    from p2f_lib.tracking_errors import tracking_errors, write_table

    clips = read_clips(arguments.folder)
    unfinished = [clip.name for clip in clips if clip.model is None]
    if unfinished:
        raise P2FError(f"Clip {unfinished[0]} has no annotation in model space.")
    reconstructors = {
        variant: Reconstructor.from_pretrained(arguments.weights, arguments.device, variant=variant)
        for variant in VARIANTS
    }
    outcomes = []
    for one in tracking_errors(reconstructors, clips):
        outcomes.append(one)
        tqdm.write(
            f"{one.name}: 2D {100 * one.error_2d:.2f} %, 3D {100 * one.error_3d:.2f} % or "
            f"{one.error_3d_mm:.2f} mm, jitter {100 * one.jitter:.2f} %"
        )
    write_table(arguments.out, outcomes)
    print(f"Written: {arguments.out}")
    return 0


def _check_live(settings: Settings, arguments: Namespace, live: bool) -> None:
    if not live:
        return
    if settings.smoothing == "average":
        raise P2FError("A live track knows no future: --smoothing one-euro or none.")
    if settings.share_shape or arguments.mesh is not None or arguments.resume:
        raise P2FError(
            "A live track sees every frame once: leave out --share-shape, --mesh and --resume, or "
            "record the video first."
        )


def clip_names(videos: list[str], name: str | None) -> list[str]:
    """A name for the results of each video: its own, or its folder's where that says more.

    300VW has its videos in ``<name>/vid.avi``. Where names repeat, -2, -3 ... follow.
    """
    names: list[str] = []
    for video in videos:
        path = Path(video)
        own = path.resolve().parent.name if path.stem == "vid" else path.resolve().stem
        if _is_camera(video):
            own = f"camera{video}"
        wanted = "_".join((name or own or "video").splitlines())
        if Path(wanted).name != wanted or wanted in (".", ".."):
            raise P2FError(f"--name is a plain name, without folders; got {wanted!r}.")
        candidate, number = wanted, 1
        while candidate.casefold() in map(str.casefold, names):
            number += 1
            candidate = f"{wanted}-{number}"
        names.append(candidate)
    return names


def _is_camera(video: str) -> bool:
    return video.isdecimal() and not Path(video).exists()


def _track_one(arguments: Namespace, tracker: Tracker, video: str, name: str, live: bool) -> str:
    """Everything about one video; returns what to say of it."""
    from p2f_lib.track_files import Layout, write_files

    source: Source = open_source(video, arguments.fps)
    layout = Layout(arguments.out, name)
    if layout.overlay.resolve() == Path(video).resolve():
        raise P2FError(f"The overlay {layout.overlay} would overwrite it; choose another --out.")
    run = _run_of(arguments, source, tracker)
    if arguments.frames is not None or arguments.seconds is not None:
        source = Limited(source, arguments.frames, arguments.seconds)
    before = _read_run(layout)
    if arguments.resume and before is not None:
        _check_same(before, run, layout)
        if before["finished"]:
            return "done before"
    else:
        layout.clear()
    _write_run(layout, run, finished=False)
    if live:
        with _recorder(layout, source.fps, arguments.no_overlay) as shown:
            results = tracker.live(source, layout.work, shown)
    else:
        results = tracker.track(source, layout.work, resume=before is not None)
    again = None if live or (arguments.no_overlay and arguments.mesh is None) else source
    write_files(
        results,
        layout,
        again,
        tracker.reconstructor,
        arguments.mesh,
        arguments.mesh_every,
        overlay=not arguments.no_overlay,
        progress=tracker.progress,
    )
    _write_run(layout, run, finished=True)
    states = results.rows.column("state")
    with_face = int((results.rows.column("confidence") > 0).sum())
    return f"{len(states)} frames, {with_face} of them with a face -> {layout.table}"


@contextmanager
def _recorder(layout: Layout, fps: float, silent: bool) -> Iterator[Callable | None]:
    """Something that draws live frames into the overlay video as they come."""
    from p2f_lib.track_files import Canvas
    from p2f_lib.video import VideoWriter

    if silent:
        yield None
        return
    canvas: Canvas | None = None
    part = layout.work / "overlay.avi"
    with VideoWriter(part, fps=fps) as writer:

        def shown(frame: Frame, tracked: Tracked) -> None:
            nonlocal canvas
            if canvas is None and frame.image is not None:
                canvas = Canvas(frame.image)
            if canvas is not None:
                writer.write(canvas.draw(frame, tracked.row, tracked.landmarks))

        yield shown
    os.replace(part, layout.overlay)


def _run_of(arguments: Namespace, source: Source, tracker: Tracker) -> dict:
    """What decides the results of a run: another one must not go on with them."""
    from p2f_lib.reconstruction import FACE_MODEL_FILE, LANDMARKS_FILE, WEIGHTS_FILE, find_weights

    folder = find_weights(arguments.weights)
    weights = hashlib.sha256()
    for name in (FACE_MODEL_FILE, WEIGHTS_FILE, LANDMARKS_FILE):
        if (folder / name).is_file():
            weights.update((folder / name).read_bytes())
    return {
        "video": _fingerprint(source),
        "limit": [arguments.frames, arguments.seconds],
        "network": weights.hexdigest(),
        "variant": arguments.variant,
        "engine": arguments.engine,
        "detector": None if arguments.detector_file is None else str(arguments.detector_file),
        "settings": {name: str(value) for name, value in asdict(tracker.settings).items()},
        "mesh": [arguments.mesh, arguments.mesh_every],
        "overlay": not arguments.no_overlay,
    }


def _fingerprint(source: Source) -> str:
    """By which a video is known again; not by its name."""
    found = hashlib.sha256()
    match source:
        case Video(path):
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                found.update(str(size).encode())
                for start in (0, max(size - END_BYTES, 0)):
                    file.seek(start)
                    found.update(file.read(END_BYTES))
        case Pictures():
            for path in source.paths:
                found.update(os.fsencode(f"{path.name} {path.stat().st_size}\n"))
            found.update(str(source.fps).encode())
        case Camera(number):
            found.update(f"camera {number}".encode())
    return found.hexdigest()


def _run_file(layout: Layout) -> Path:
    return layout.work / "run.json"


def _read_run(layout: Layout) -> dict | None:
    try:
        run = json.loads(_run_file(layout).read_text())
        return run if isinstance(run, dict) and "finished" in run else None
    except (OSError, ValueError):
        return None


def _write_run(layout: Layout, run: dict, finished: bool) -> None:
    part = layout.work / "run.part"
    try:
        layout.work.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({**run, "finished": finished}, indent=1) + "\n")
        os.replace(part, _run_file(layout))
    except OSError as error:
        raise P2FError(f"Cannot write to {layout.work}: {error}.") from error


def _check_same(before: dict, run: dict, layout: Layout) -> None:
    others = [name for name, value in run.items() if before.get(name) != value]
    if others:
        raise P2FError(
            f"{layout.work} holds another run, with another {' and '.join(others)}; leave out "
            "--resume to start anew, or choose another --out or --name."
        )
