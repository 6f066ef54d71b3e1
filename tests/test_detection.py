"""The detector on the public-domain portraits that come with scikit-image and Matplotlib."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import matplotlib
import numpy as np
import pytest
from skimage import data

from p2f_lib import detection
from p2f_lib.crop import Box
from p2f_lib.detection import Detection, DlibCnnDetector, DlibDetector
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


# --- dlib's network: its file isn't here, so its answers are made up ---


@pytest.fixture
def network(monkeypatch, tmp_path):
    """A file, and what stands in for dlib: it finds something when it looks closer."""
    seen = []

    class Model:
        def __init__(self, path):
            self.path = path

        def __call__(self, image, doublings):
            seen.append((self.path, image.shape, doublings))
            sides = {"left": 20, "top": 10, "right": 29, "bottom": 39}
            rectangle = SimpleNamespace(**{k: lambda v=v: v for k, v in sides.items()})
            found = [SimpleNamespace(rect=rectangle, confidence=0.7 + k) for k in range(2)]
            return found if doublings else []

    fake = SimpleNamespace(cnn_face_detection_model_v1=Model)
    monkeypatch.setattr(detection, "_dlib", lambda: fake)
    path = tmp_path / "mmod_human_face_detector.dat"
    path.write_text("weights")
    return path, seen


def test_the_network_of_dlib_finds_boxes_of_the_whole_picture(network):
    path, seen = network
    found = DlibCnnDetector(path, upsample=1, longest_side=100)(np.zeros((100, 200, 3), np.uint8))
    assert found == [
        Detection(Box(39.5, 19.5, 59.5, 79.5), 1.7),
        Detection(Box(39.5, 19.5, 59.5, 79.5), 0.7),
    ]
    assert seen == [(str(path), (50, 100, 3), k) for k in (0, 1)]
    assert DlibCnnDetector(path)(np.zeros((100, 200, 3), np.uint8)) == []


def test_a_detector_file_that_is_none_gets_a_sentence(tmp_path, astronaut):
    with pytest.raises(P2FError, match="There is no detector file"):
        DlibCnnDetector(tmp_path / "none.dat")(astronaut)
    (tmp_path / "text.dat").write_text("words")
    with pytest.raises(P2FError, match="no face detector that dlib reads"):
        DlibCnnDetector(tmp_path / "text.dat")(astronaut)


def test_threads_have_detectors_of_their_own(astronaut):
    """dlib's keeps its pyramid inside: shared, it would mix up pictures."""
    detect, small = DlibDetector(), cv2.resize(astronaut, (200, 200))
    alone = [detect(image) for image in (astronaut, small)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(detect, [astronaut, small] * 3))
    assert together == alone * 3
