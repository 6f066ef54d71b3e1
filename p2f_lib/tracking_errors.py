"""What the options of tracking cost in error, on annotated clips."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from p2f_lib.datasets.menpo3d import Clip
from p2f_lib.errors import P2FError
from p2f_lib.evaluation import errors_2d, errors_3d_rigid, errors_3d_similarity
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.track_files import smoothed
from p2f_lib.tracker import Settings, Tracker
from p2f_lib.video import Video

# (what is said of it, variant of the reconstructor, settings); each beside one that differs in one.
OPTIONS: tuple[tuple[str, str, Settings], ...] = (
    ("full variant, detected in every frame", "full", Settings()),
    ("fast variant, detected in every frame", "fast", Settings()),
    ("fast, in every 5th", "fast", Settings(detect_every=5)),
    ("fast, in every 10th", "fast", Settings(detect_every=10)),
    ("full, in every 5th", "full", Settings(detect_every=5)),
    ("full, in every 10th", "full", Settings(detect_every=10)),
    ("fast, crop from the frame before", "fast", Settings(follow=True)),
    ("fast, no smoothing", "fast", Settings(smoothing="none")),
    ("fast, One-Euro filter", "fast", Settings(smoothing="one-euro")),
    ("fast, one shape for the clip", "fast", Settings(share_shape=True)),
    ("full, one shape for the clip", "full", Settings(share_shape=True)),
)
COLUMNS = (
    *("options", "error_2d_percent", "error_3d_percent", "error_3d_mm", "jitter_percent"),
    *("frames", "without_a_face"),
)


@dataclass(frozen=True)
class Outcome:
    """Means over the annotated frames that got a face.

    Attributes
    ----------
    name
        Of the options.
    error_2d
        Of 84 points, smoothed, over the interocular distance.
    error_3d
        The same in model space after similarity alignment, over the 3D interocular distance.
    error_3d_mm
        After rigid alignment, mm.
    jitter
        Mean length of the 2D error's change from frame to frame, over the interocular distance.
    frames, missing
        How many were annotated, and in how many of them no face was found.
    """

    name: str
    error_2d: float
    error_3d: float
    error_3d_mm: float
    jitter: float
    frames: int
    missing: int


def tracking_errors(
    reconstructors: Mapping[str, Reconstructor],
    clips: Sequence[Clip],
    options: Sequence[tuple[str, str, Settings]] = OPTIONS,
    progress: bool = True,
) -> Iterator[Outcome]:
    """Track all clips with one set of options after another.

    Parameters
    ----------
    reconstructors
        By variant.
    clips
        Annotated in both spaces.

    Raises
    ------
    P2FError
        A clip without landmarks in space.
    """
    truths = [clip.model for clip in clips if clip.model is not None]
    if len(truths) < len(clips):
        lacking = ", ".join(clip.name for clip in clips if clip.model is None)
        raise P2FError(f"These clips have no landmarks in space (model_space/): {lacking}.")
    for name, variant, settings in tqdm(options, "options", disable=not progress):
        tracker = Tracker(reconstructors[variant], settings=settings, progress=False)
        columns: list[list[np.ndarray]] = [[], [], [], []]
        for clip, truth in zip(clips, truths, strict=True):
            with TemporaryDirectory() as folder:
                results = tracker.track(Video(clip.video), Path(folder))
                parts = list(smoothed(results))
            wanted = np.array(clip.frames) - 1
            pixels = np.concatenate([points["menpo84"] for _, points in parts])[wanted]
            space = np.concatenate([rows["menpo84_3d"] for rows, _ in parts])[wanted]
            miss = pixels - clip.projected
            change = np.linalg.norm(np.diff(miss, axis=0), axis=-1).mean(axis=-1)
            left, right = (clip.projected[1:, corner] for corner in (52, 61))
            for column, values in zip(
                columns,
                (
                    errors_2d(pixels, clip.projected),
                    errors_3d_similarity(space, truth),
                    errors_3d_rigid(space, truth),
                    change / np.linalg.norm(left - right, axis=-1),
                ),
                strict=True,
            ):
                column.append(values)
        flat, space, rigid, jitter = (_mean_of_known(np.concatenate(part)) for part in columns)
        errors = np.concatenate(columns[0])
        missing = int((~np.isfinite(errors)).sum())
        yield Outcome(name, flat, space, rigid, jitter, len(errors), missing)


def write_table(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in outcomes:
            percents = [f"{100 * value:.3f}" for value in (one.error_2d, one.error_3d)]
            rest = [f"{one.error_3d_mm:.3f}", f"{100 * one.jitter:.3f}"]
            writer.writerow([one.name, *percents, *rest, one.frames, one.missing])


def _mean_of_known(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)].mean())
