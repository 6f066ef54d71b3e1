"""Errors of tracking options on a clip whose truth is a known step beside the answers."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from p2f_lib.datasets.menpo3d import write_clip
from p2f_lib.errors import P2FError
from p2f_lib.tracker import Settings, Tracker
from p2f_lib.tracking_errors import COLUMNS, tracking_errors, write_table
from tests.film import Detector, Network, picture
from tests.test_tracker import Film, walk


@pytest.fixture
def clip(tmp_path):
    """Truth: 3 and 4 pixels beside what the network says; in space scaled by 1.1."""
    images = [*walk(6), picture()]
    rows = Tracker(Network(), progress=False).track(Film(images[:6]), tmp_path / "answers").rows[:]
    pixels, space = rows["menpo84_2d"] + (3, 4), 1.1 * rows["menpo84_3d"]
    pixels, space = (np.concatenate([part, part[-1:]]) for part in (pixels, space))
    return write_clip(tmp_path / "root", "001", images, pixels, space, quality=100)


def test_errors_by_hand_and_a_table(clip, tmp_path):
    options = [("every frame", "fast", Settings(smoothing="none")), ("5th", "fast", Settings(5))]
    reconstructors = {"fast": Network(Detector())}
    first, second = tracking_errors(reconstructors, [clip], options, progress=False)
    eyes = np.linalg.norm(clip.projected[:6, 52] - clip.projected[:6, 61], axis=1)
    assert first.error_2d == pytest.approx(np.mean(5 / eyes), rel=0.1)
    assert first.error_3d < 0.01
    assert first.error_3d_mm > 1  # 10 % of a face that doesn't fit by turning
    assert first.jitter < first.error_2d / 3  # the same step in every frame, but for whole pixels
    assert (first.frames, first.missing) == (7, 1)
    assert second.missing == 1
    write_table(tmp_path / "reports" / "tracking.csv", [first, second])
    with (tmp_path / "reports" / "tracking.csv").open(newline="") as file:
        header, row, _ = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert row[0] == "every frame"
    assert float(row[1]) == pytest.approx(100 * first.error_2d, abs=1e-3)


def test_a_clip_without_landmarks_in_space_is_named(clip):
    flat = replace(clip, model=None)
    with pytest.raises(P2FError, match=r"no landmarks in space .*: 001"):
        next(tracking_errors({"fast": Network(Detector())}, [clip, flat], progress=False))
