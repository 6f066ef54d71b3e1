"""The detector on the public-domain portraits that come with scikit-image and Matplotlib."""

import sys
import threading

import cv2
import matplotlib
import numpy as np
import pytest
from skimage import data

from p2f_lib import detection
from p2f_lib.crop import Box
from p2f_lib.detection import DlibDetector
from p2f_lib.errors import P2FError

# Face boxes drawn by hand, pixels.
ASTRONAUT = Box(180, 70, 270, 180)
HOPPER = Box(185, 105, 345, 300)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    common = max(width, 0) * max(height, 0)
    return common / (a.width * a.height + b.width * b.height - common)


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture(scope="module")
def hopper():
    path = f"{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg"
    return cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)


def test_finds_the_portraits(astronaut, hopper):
    for image, face in ((astronaut, ASTRONAUT), (hopper, HOPPER)):
        (found,) = DlibDetector()(image)
        assert overlap(found.box, face) > 0.5
        assert found.score > 0


def test_several_faces_come_best_first(astronaut):
    image = np.hstack([astronaut, astronaut[:, ::-1] // 3, astronaut])
    found = DlibDetector()(image)
    assert len(found) >= 2
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)


def test_nothing_is_an_empty_list():
    assert DlibDetector()(np.full((120, 160, 3), 127, np.uint8)) == []
    assert DlibDetector()(np.zeros((1, 1, 3), np.uint8)) == []


def test_boxes_of_large_pictures_are_scaled_back(astronaut):
    (small,) = DlibDetector()(astronaut)
    large = cv2.resize(astronaut, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    (found,) = DlibDetector(longest_side=512)(large)
    box = Box(*((np.array(found.box.as_tuple()) + 0.5) / 4 - 0.5))
    assert overlap(box, small.box) > 0.9


def test_box_sides_are_outer_pixel_edges(monkeypatch, astronaut):
    import dlib

    class Fixed:
        def run(self, image, *_):
            return [dlib.rectangle(0, 0, image.shape[1] - 1, image.shape[0] - 1)], [1.0], [0]

    monkeypatch.setattr(detection, "_hog_detector", Fixed)
    for longest_side in (1024, 100):  # the whole picture stays the whole picture
        (found,) = DlibDetector(longest_side=longest_side)(astronaut)
        assert found.box.as_tuple() == pytest.approx((-0.5, -0.5, 511.5, 511.5))


def test_upsampling_only_when_nothing_was_found(astronaut):
    half = cv2.resize(astronaut, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert DlibDetector(upsample=0)(half) == []
    (found,) = DlibDetector(upsample=1)(half)
    assert overlap(found.box, Box(*(side / 2 for side in ASTRONAUT.as_tuple()))) > 0.5
    assert DlibDetector(upsample=0)(astronaut) == DlibDetector(upsample=1)(astronaut)


@pytest.mark.parametrize(
    "image", [None, np.zeros((40, 40)), np.zeros((40, 40, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_no_picture_gets_a_sentence(image):
    with pytest.raises(P2FError, match="picture"):
        DlibDetector()(image)


def test_flipped_views_are_accepted(astronaut):
    assert len(DlibDetector()(astronaut[:, ::-1])) == 1


def test_missing_dlib_gets_a_sentence(monkeypatch, astronaut):
    monkeypatch.setitem(sys.modules, "dlib", None)
    monkeypatch.setattr(detection, "_OF_THREAD", threading.local())
    with pytest.raises(P2FError, match="needs dlib"):
        DlibDetector()(astronaut)
