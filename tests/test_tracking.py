"""Boxes over time, smoothing, and whole tracks with stand-ins for detector and network."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from p2f_lib import tracking
from p2f_lib.crop import Box
from p2f_lib.detection import Detection
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.tracking import (
    Track,
    choose_boxes,
    interpolate_boxes,
    moving_average,
    track_frames,
)


def box(x: float, y: float = 100, side: float = 50) -> Box:
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def found(*boxes: Box) -> list[Detection]:
    return [Detection(one, 1.0) for one in boxes]


# --- choosing among several faces ---


def test_one_face_a_frame_is_taken_as_it_is():
    boxes = [box(100 + 5 * k) for k in range(10)]
    assert choose_boxes([found(one) for one in boxes]) == boxes


def test_no_faces_no_boxes():
    assert choose_boxes([[], []]) == [None, None]
    assert choose_boxes([]) == []


@pytest.mark.parametrize("first", [True, False])
def test_the_second_face_is_left_out_whatever_the_order(first):
    main = [box(100 + 3 * k, side=60) for k in range(12)]
    other = [box(250, side=40) for _ in range(12)]
    detections = [found(*((a, b) if first else (b, a))) for a, b in zip(main, other, strict=True)]
    assert choose_boxes(detections) == main


def test_identity_is_kept_although_the_other_face_gets_larger():
    main = [box(100, side=80 - 3 * k) for k in range(15)]
    other = [box(250, side=30 + 3 * k) for k in range(15)]
    detections = [[Detection(a, 2.0), Detection(b, 1.0)] for a, b in zip(main, other, strict=True)]
    assert choose_boxes(detections) == main


def test_the_person_who_fills_the_clip_is_followed_not_the_surest_detection():
    main = [box(100 + 3 * k, side=60) for k in range(12)]
    portrait = box(250, side=40)
    detections = [[Detection(portrait, 3.0), Detection(one, 0.5)] for one in main]
    assert choose_boxes(detections) == main


def test_two_people_crossing_keep_their_ways():
    main = [box(100 + 12 * k, y=100, side=50) for k in range(15)]
    other = [box(268 - 12 * k, y=125, side=44) for k in range(15)]
    detections = [found(b, a) for a, b in zip(main, other, strict=True)]
    assert choose_boxes(detections) == main


def test_a_missed_face_is_not_replaced_by_another_one():
    main = [box(100 + 2 * k, side=60) for k in range(20)]
    other = box(260, side=40)
    detections = [found(one, other) for one in main]
    for missed in (0, 7, 8, 9, 19):
        detections[missed] = found(other)
    chosen = choose_boxes(detections)
    assert [k for k, one in enumerate(chosen) if one is None] == [0, 7, 8, 9, 19]
    assert all(a is None or a == b for a, b in zip(chosen, main, strict=True))


def test_a_single_false_alarm_is_ignored():
    detections = [found(box(100)) for _ in range(9)]
    detections[4] = found(box(300, side=45))
    assert choose_boxes(detections)[4] is None


def test_a_face_is_found_again_after_a_gap():
    detections = [found(box(100)), [], [], [], found(box(140))]
    assert choose_boxes(detections) == [box(100), None, None, None, box(140)]


def test_scores_below_zero_are_no_obstacle():
    detections = [[Detection(box(100), -0.5)], [Detection(box(101), -0.2)]]
    assert choose_boxes(detections) == [box(100), box(101)]


def test_choice_is_the_cheapest_of_all_histories(monkeypatch):
    """The shortest path against every possible history, tried one by one."""
    monkeypatch.setattr(tracking, "HISTORIES", 1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        detections = [[Detection(box(100, side=200), 9.0)]]  # the start, no doubt
        for _ in range(4):
            boxes = (
                box(*rng.normal(100, 60, 2), side=rng.uniform(100, 200))
                for _ in range(rng.integers(0, 3))
            )
            detections.append(found(*boxes))

        def cost(history, detections=detections):
            total, last, frame = 0.0, history[0], 0
            for k in range(1, 5):
                if history[k] is None:
                    total += tracking.SKIP_COST * bool(detections[k])
                    continue
                now = history[k]
                (x0, y0), (x1, y1) = last.center, now.center
                sides = np.sqrt([last.width * last.height, now.width * now.height])
                moved = ((x1 - x0) ** 2 + (y1 - y0) ** 2) / sides.prod()
                grown = np.log(sides[1] / sides[0]) ** 2
                total += (moved + grown) / (2 * tracking.STEP_SIGMA**2 * (k - frame))
                last, frame = now, k
            return total

        options = [[None, *(one.box for one in frame)] for frame in detections]
        options[0] = [detections[0][0].box]
        best = min(cost(history) for history in product(*options))
        assert cost(choose_boxes(detections)) == pytest.approx(best)


# --- interpolation ---


def test_gaps_are_interpolated_and_ends_held():
    boxes, detected = interpolate_boxes([None, box(100), None, None, box(130, side=80), None])
    assert detected.tolist() == [False, True, False, False, True, False]
    assert [one.center[0] for one in boxes] == pytest.approx([100, 100, 110, 120, 130, 130])
    assert [one.width for one in boxes] == pytest.approx([50, 50, 60, 70, 80, 80])


def test_interpolation_needs_a_face():
    with pytest.raises(NoFaceError, match="any of the 3 frames"):
        interpolate_boxes([None] * 3)


# --- smoothing ---


def slow_moving_average(values: np.ndarray, window: int) -> np.ndarray:
    smooth = np.full(values.shape, np.nan)
    for k in range(len(values)):
        if np.isnan(values[k]).any():
            continue
        rows = [values[k]]
        for reach in range(1, window // 2 + 1):
            if k >= reach and k + reach < len(values):
                pair = [values[k - reach], values[k + reach]]
                rows += pair if np.isfinite(pair).all() else []
        smooth[k] = np.mean(rows, axis=0)
    return smooth


@pytest.mark.parametrize("window", [1, 3, 5, 9, 41])
def test_moving_average_equals_the_slow_one(window):
    values = np.random.default_rng(0).normal(size=(12, 4, 2))
    values[5, 1, 0] = np.nan
    got = moving_average(values, window)
    np.testing.assert_allclose(got, slow_moving_average(values, window), equal_nan=True)


def test_moving_average_by_hand():
    assert moving_average(np.array([0.0, 3, 6, 0])[:, None])[:, 0].tolist() == [0, 3, 3, 0]


def test_steady_motion_is_not_shifted_not_even_at_the_ends():
    values = np.linspace(0, 30, 11)[:, None, None] * np.array([1.0, -2.0])
    np.testing.assert_allclose(moving_average(values, 5), values, atol=1e-12)


@pytest.mark.parametrize("window", [0, 2, -1])
def test_windows_are_odd(window):
    with pytest.raises(P2FError, match="odd number"):
        moving_average(np.zeros((3, 2)), window)


# --- tracks ---


class Frames:
    """Frames that can be read again, and whose first pixel is their number."""

    def __init__(self, n_frames: int) -> None:
        self.n_frames = n_frames
        self.readings = 0

    def __len__(self) -> int:
        return self.n_frames

    def __iter__(self):
        self.readings += 1
        for k in range(self.n_frames):
            yield np.full((4, 4, 3), k, np.uint8)


class Reconstructor:
    """Landmarks at the box's corners; nothing in the frames named."""

    def __init__(self, *blind: int) -> None:
        self.blind = blind

    def reconstruct(self, image, box):
        if image[0, 0, 0] in self.blind:
            raise NoFaceError("nothing here")
        left, top, right, bottom = box
        return SimpleNamespace(
            landmarks=lambda markup: np.array([[left, top], [right, bottom]]),
            landmarks_3d=lambda markup: np.full((2, 3), float(image[0, 0, 0])),
            pose=SimpleNamespace(yaw=1.0, pitch=2.0, roll=3.0),
            confidence=0.9,
        )


def detector_missing(*missing: int):
    def detect(image):
        k = int(image[0, 0, 0])
        return [] if k in missing else found(box(100 + 10 * k))

    return detect


def track(frames, detector, reconstructor, **options) -> Track:
    return track_frames(frames, detector, reconstructor, progress=False, **options)


def test_track_interpolates_reconstructs_and_smooths():
    frames = Frames(6)
    got = track(frames, detector_missing(2, 5), Reconstructor())
    assert (len(got), frames.readings) == (6, 2)
    assert got.detected.tolist() == [True, True, False, True, True, False]
    assert got.boxes[:, 0] == pytest.approx([75, 85, 95, 105, 115, 115])
    assert got.landmarks_2d_raw[:, 0, 0] == pytest.approx(got.boxes[:, 0])
    np.testing.assert_allclose(got.landmarks_2d, moving_average(got.landmarks_2d_raw))
    assert not np.allclose(got.landmarks_2d, got.landmarks_2d_raw)
    assert got.landmarks_3d.shape == (6, 2, 3)
    assert got.landmarks_3d[:, 0, 0].tolist() == list(range(6))
    assert got.poses.tolist() == [[1, 2, 3]] * 6
    assert got.confidence.tolist() == [0.9] * 6


def test_a_frame_without_reconstruction_is_a_gap():
    got = track(Frames(4), detector_missing(), Reconstructor(1))
    assert np.isnan(got.landmarks_2d[1]).all()
    assert np.isnan(got.landmarks_3d[1]).all()
    assert np.isnan(got.poses[1]).all()
    assert got.confidence.tolist() == [0.9, 0, 0.9, 0.9]
    assert np.isfinite(got.landmarks_2d[[0, 2, 3]]).all()


def test_tracks_of_nothing_get_a_sentence():
    with pytest.raises(NoFaceError, match="any of the 3 frames"):
        track(Frames(3), detector_missing(0, 1, 2), Reconstructor())
    with pytest.raises(NoFaceError, match="could be reconstructed"):
        track(Frames(2), detector_missing(), Reconstructor(0, 1))
    with pytest.raises(NoFaceError, match="any of the 0 frames"):
        track([], detector_missing(), Reconstructor())


def test_frames_must_be_readable_twice():
    with pytest.raises(P2FError, match="not a generator"):
        track(iter(Frames(3)), detector_missing(), Reconstructor())

    class Shrinking(Frames):
        def __iter__(self):
            yield from super().__iter__()
            self.n_frames -= 1

    with pytest.raises(P2FError, match="first reading had 3 frames, the second 2"):
        track(Shrinking(3), detector_missing(), Reconstructor())


# --- cuts ---


def test_nothing_is_mixed_across_a_cut():
    frames = Frames(8)
    got = track(frames, detector_missing(2, 4), Reconstructor(), cuts=[4])
    assert got.boxes[:, 0] == pytest.approx([75, 85, 95, 105, 125, 125, 135, 145])
    whole = moving_average(got.landmarks_2d_raw)
    np.testing.assert_allclose(got.landmarks_2d[[1, 2, 5, 6]], whole[[1, 2, 5, 6]])
    np.testing.assert_array_equal(got.landmarks_2d[[3, 4]], got.landmarks_2d_raw[[3, 4]])
    assert np.abs(got.landmarks_2d[4] - whole[4]).max() > 1


def test_a_scene_without_a_face_gets_boxes_from_its_neighbours():
    known = [box(100), None, None, box(130)]
    boxes, detected = interpolate_boxes(known, cuts=[1, 3])
    assert [one.center[0] for one in boxes] == pytest.approx([100, 110, 120, 130])
    assert detected.tolist() == [True, False, False, True]


def test_each_scene_has_its_own_person():
    first = [found(box(100, side=60), box(250, side=30))] * 5
    second = [found(box(40, side=25), box(200, side=70))] * 5
    got = track(Frames(10), None, Reconstructor(), found=[*first, *second], cuts=[5])
    assert got.boxes[:, 2].tolist() == 5 * [130] + 5 * [235]
