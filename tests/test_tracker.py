"""Tracks of whole videos in a world of coloured squares: who is followed, and where nobody is."""

import json
import math

import numpy as np
import pytest

from p2f_lib.crop import Box
from p2f_lib.detection import Detection
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.scenes import thumbnail
from p2f_lib.track_store import STATES, Rows
from p2f_lib.tracker import Look, Settings, Step, Tracker, plan
from p2f_lib.video import Frame
from tests.film import Detector, Network, picture

FPS = 10.0


class Film:
    """Pictures as a video; None is a frame that can't be read."""

    fps = FPS

    def __init__(self, images):
        self.images, self.alive, self.most = images, 0, 0

    def __len__(self):
        return len(self.images)

    def frames(self, start=0):
        for index in range(start, len(self.images)):
            image = self.images[index]
            yield Frame(index, index / FPS, None if image is None else image.copy())


def walk(n, scene=0, start=30.0, step=4.0):
    """One person who walks to the right."""
    return [picture(("red", start + step * k, 60, 40), scene=scene) for k in range(n)]


def track(images, tmp_path, detector=None, network=None, **options):
    network = network or Network(detector)
    tracker = Tracker(network, settings=Settings(**options), progress=False)
    return tracker.track(Film(images), tmp_path / "work").rows[:]


def states(rows):
    return "".join(STATES[k][0] for k in rows["state"])


def centers(rows):
    """(F,) x of the middle of the 68 landmarks."""
    marks = rows["ibug68_2d"]
    return (marks[..., 0].min(axis=1) + marks[..., 0].max(axis=1)) / 2


# --- what becomes of frames without a detection ---


def look(face=True, time=0.0, asked=True, readable=True):
    box = Box(10, 10, 50, 50)
    faces = (Detection(box, 1.0),) if face else ()
    picture_of_it = thumbnail(picture(("red", 30, 30, 40))).ravel()
    return Look(time, faces if asked else None, picture_of_it if readable else None)


def planned(word, **options):
    """A plan for d: a face, -: none, .: nobody looked, x: unreadable; ten frames a second."""
    looks = [
        look(one == "d", k / FPS, asked=one not in ".x", readable=one != "x")
        for k, one in enumerate(word)
    ]
    steps = plan(looks, Settings(**options))
    return "".join(STATES[step.state][0] if step.box or step.state >= 4 else "f" for step in steps)


def test_short_gaps_are_interpolated_and_short_ends_held():
    assert planned("-dd--d-x") == "hddiidhu"


def test_long_gaps_are_only_followed():
    """f: where the face was before, if the network is sure; at the beginning there is no before."""
    assert planned("--d---d---", max_gap=0.4) == "hhdiiidhhh"
    assert planned("--d---d---", max_gap=0.3) == "hhdfffdhhh"
    assert planned("--d---d---", max_gap=0.1) == "ahdfffdhff"
    assert planned("--d---d---", max_gap=math.inf) == "hhdiiidhhh"


def test_frames_that_nobody_looked_at_are_no_gap():
    assert planned("d....d....", max_gap=0.2) == "dttttdtttt"
    assert planned("d..-..d", max_gap=0.2) == "dfffffd"
    assert planned("d..-..d", max_gap=1.0) == "dttittd"


def test_looks_survive_their_log():
    for one in (look(), look(False), look(asked=False), look(readable=False, asked=False)):
        again = Look.from_json(json.loads(json.dumps(one.to_json())))
        assert (again.time, again.faces) == (one.time, one.faces)
        np.testing.assert_array_equal(again.thumbnail, one.thumbnail)


# --- whole videos ---


def test_a_person_is_followed_through_missed_frames(tmp_path):
    rows = track(walk(10), tmp_path, Detector(0, 4, 5, 9))
    assert states(rows) == "hdddiidddh"
    np.testing.assert_allclose(centers(rows), 29.5 + 4 * np.arange(10), atol=1.5)
    assert (rows["confidence"] > 0).all()
    np.testing.assert_allclose(rows["time"], np.arange(10) / FPS)


def test_two_people_who_cross_keep_their_ways(tmp_path):
    images = [
        picture(("blue", 130 - 8 * k, 84, 34), ("red", 30 + 8 * k, 34, 40)) for k in range(13)
    ]
    rows = track(images, tmp_path)
    assert states(rows) == 13 * "d"
    np.testing.assert_allclose(centers(rows), 29.5 + 8 * np.arange(13), atol=2)


def test_a_face_that_left_has_no_landmarks_until_it_is_back(tmp_path):
    empty = picture()
    images = [*walk(5), *[empty] * 15, *walk(5, start=90)]
    rows = track(images, tmp_path)
    assert states(rows) == 5 * "d" + 15 * "a" + 5 * "d"
    away = rows[5:20]
    assert np.isnan(away["ibug68_2d"]).all()
    assert (away["confidence"] == 0).all()


def test_a_face_that_only_the_detector_lost_is_followed(tmp_path):
    """The network still sees it where it was: no gap, however long."""
    rows = track(walk(22, step=3), tmp_path, Detector(*range(3, 19)))
    assert states(rows) == "ddd" + 16 * "t" + "ddd"
    np.testing.assert_allclose(centers(rows), 29.5 + 3 * np.arange(22), atol=1.5)


def test_every_frame_gets_landmarks_on_request(tmp_path):
    hidden = [picture(("blue", 50 + 3 * k, 60, 40)) for k in range(4)]
    rows = track(
        [*walk(3), *hidden, *walk(3, start=70)], tmp_path, Detector(*range(3, 7)), max_gap=math.inf
    )
    assert states(rows) == "dddiiiiddd"


def test_a_cut_begins_anew(tmp_path):
    """The second scene's person is elsewhere, and nothing is interpolated towards him."""
    first, second = walk(6), [picture(("blue", 120, 70, 50), scene=1)] * 6
    rows = track([*first, *second], tmp_path, Detector(5, 6))
    assert states(rows) == "dddddhhddddd"
    assert rows["scene"].tolist() == 6 * [0] + 6 * [1]
    assert rows["box"][5] == pytest.approx(rows["box"][4])
    assert rows["box"][6] == pytest.approx(rows["box"][7])


def test_a_scene_without_anybody_is_absent(tmp_path):
    rows = track([*walk(4), *[picture(scene=2)] * 3, *walk(4)], tmp_path)
    assert states(rows) == "ddddaaadddd"


def test_lost_frames_are_marked_and_the_rest_survives(tmp_path):
    images = walk(9)
    images[3] = None
    rows = track(images, tmp_path)
    assert states(rows) == "ddduddddd"
    assert np.isnan(rows["box"][3]).all()
    np.testing.assert_allclose(
        np.delete(centers(rows), 3), np.delete(29.5 + 4.0 * np.arange(9), 3), atol=1.5
    )


def test_nobody_anywhere_is_a_sentence(tmp_path):
    with pytest.raises(NoFaceError, match="any of the 4 frames"):
        track([picture()] * 4, tmp_path)


# --- fewer detections, crops from the frame before ---


def test_detection_in_every_fifth_frame(tmp_path):
    network = Network()
    rows = track(walk(12), tmp_path, network=network, detect_every=5)
    assert states(rows) == "dttttdttttdt"
    assert network.detector.asked == 3
    np.testing.assert_allclose(centers(rows), 29.5 + 4 * np.arange(12), atol=1.5)


def test_following_crops_are_those_of_the_fit_before(tmp_path):
    network = Network()
    rows = track(walk(5), tmp_path, network=network, follow=True)
    assert states(rows) == "ddddd"
    assert len(network.crops) == 5
    for crop, row in zip(network.crops[1:], rows, strict=False):
        assert (crop.left, crop.top, crop.side, crop.roll) == tuple(row["next_crop"])


def test_a_crop_is_not_followed_to_somebody_else(tmp_path):
    """The box jumps away: it says who it is."""
    images = [picture(("red", 40, 60, 40)), picture(("red", 130, 60, 40), ("blue", 40, 60, 30))]
    steps = [Step(0, 0, Box(20, 40, 60, 80), True), Step(0, 0, Box(110, 40, 150, 80), True)]
    tracker = Tracker(Network(), progress=False)
    last = None
    for frame, step in zip(Film(images).frames(), steps, strict=True):
        last, _ = tracker._follow(frame, step, last)
    assert centers(last[None]) == pytest.approx(129.5, abs=1.5)


# --- the same results however they are made ---


@pytest.mark.parametrize(
    "options", [{}, {"detect_every": 4}, {"follow": True}, {"share_shape": True}]
)
def test_threads_change_nothing(tmp_path, options):
    images = [*walk(20, step=2), None, *[picture()] * 12, *walk(9, scene=1)]
    tables = []
    for threads in (1, 2, 3):
        tracker = Tracker(
            Network(Detector()), settings=Settings(**options), threads=threads, progress=False
        )
        results = tracker.track(Film(images), tmp_path / str(threads))
        tables.append(results.rows.path.read_bytes())
    assert tables[0] == tables[1] == tables[2]


class Stop(Exception):
    pass


class Stopping(Film):
    """Breaks off after some frames, as a killed run does."""

    def __init__(self, images, after):
        super().__init__(images)
        self.after = after

    def frames(self, start=0):
        for frame in super().frames(start):
            self.after -= 1
            if self.after < 0:
                raise Stop
            yield frame


@pytest.mark.parametrize("options", [{"batch": 4}, {"detect_every": 3}, {"share_shape": True}])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, options):
    images = [*walk(14, step=2), None, *[picture()] * 12, *walk(5, scene=1)]
    whole = tmp_path / "whole"
    make = lambda: Tracker(Network(), settings=Settings(**options), progress=False)  # noqa: E731
    make().track(Film(images), whole)
    broken = tmp_path / "broken"
    for after in (3, 7, 30, 9, 12, 1):
        with pytest.raises(Stop):
            make().track(Stopping(images, after), broken, resume=True)
        for path in broken.iterdir():  # where it was killed, in the middle of a line or row
            path.write_bytes(path.read_bytes() + b'{"time"')
    detector = Detector()
    Tracker(Network(detector), settings=Settings(**options), progress=False).track(
        Film(images), broken, resume=True
    )
    assert detector.asked == 0  # nothing is detected again
    for path in whole.iterdir():
        assert (broken / path.name).read_bytes() == path.read_bytes(), path.name


def test_without_resume_it_begins_anew(tmp_path):
    track(walk(9), tmp_path)
    assert states(track(walk(4), tmp_path)) == "dddd"


def test_frames_must_be_the_same_in_both_passes(tmp_path):
    class Shrinking(Film):
        def frames(self, start=0):
            yield from super().frames(start)
            self.images = self.images[:-1]

    tracker = Tracker(Network(), progress=False)
    with pytest.raises(P2FError, match="first reading had 6 frames, the second 5"):
        tracker.track(Shrinking(walk(6)), tmp_path / "work")


# --- memory ---


class Counted(np.ndarray):
    """A picture that is counted as long as somebody holds it."""

    living, most = 0, 0

    def __array_finalize__(self, obj):
        Counted.living += 1
        Counted.most = max(Counted.most, Counted.living)

    def __del__(self):
        Counted.living -= 1


@pytest.mark.parametrize("options", [{}, {"follow": True}, {"share_shape": True}])
def test_memory_holds_a_few_frames_and_faces_whatever_the_length(tmp_path, options):
    most = []
    for n in (40, 160):
        images = walk(n, step=0.5)
        living, peak = [0], [0]
        network = Network()
        honest = network._face

        class Face:
            def __init__(self, face, living=living, peak=peak):
                self.__dict__.update(face.__dict__)
                self.living = living
                living[0] += 1
                peak[0] = max(peak[0], living[0])

            def __del__(self):
                self.living[0] -= 1

        network._face = lambda image, crop, honest=honest, Face=Face: Face(honest(image, crop))

        class Held(Film):
            def frames(self, start=0):
                for frame in super().frames(start):
                    yield Frame(frame.index, frame.time, frame.image.view(Counted))

        Counted.living = Counted.most = 0
        tracker = Tracker(network, settings=Settings(**options), threads=2, progress=False)
        tracker.track(Held(images), tmp_path / str(n))
        most.append((Counted.most, peak[0]))
    assert most[1][0] <= 60  # threads make this vary a little
    assert most[1][1] <= 40
    assert most[1][0] < 160


def test_rows_are_read_a_few_at_a_time(tmp_path):
    dtype = np.dtype([("a", "<i4"), ("b", "<f8", 2)])
    rows = Rows(tmp_path / "x.rows", dtype)
    assert len(rows) == 0
    assert len(rows[:5]) == 0
    for k in range(150):
        rows.append([np.array((k, (k, -k)), dtype)])
    assert [len(chunk) for chunk in rows.chunks()] == [64, 64, 22]
    assert rows.column("a").tolist() == list(range(150))
    assert rows[148:]["b"].tolist() == [[148, -148], [149, -149]]
    rows.cut(2)
    assert len(rows) == 2


# --- live ---


def live(images, **options):
    network = Network(options.pop("detector", None))
    settings = Settings(**{"smoothing": "one-euro", "detect_every": 10, **options})
    tracker = Tracker(network, settings=settings, progress=False)
    return [tracker.update(image, k / FPS) for k, image in enumerate(images)], network


def test_live_follows_from_frame_to_frame_and_asks_the_detector_rarely():
    tracked, network = live(walk(15))
    assert "".join(one.state[0] for one in tracked) == "dtttttttttdtttt"
    assert network.detector.asked == 2
    rows = np.array([one.row for one in tracked])
    np.testing.assert_allclose(centers(rows), 29.5 + 4 * np.arange(15), atol=1.5)
    lag = centers(rows)[-1] - np.ptp(tracked[-1].landmarks["ibug68"][:, 0]) / 2
    assert lag - tracked[-1].landmarks["ibug68"][:, 0].min() < 6


def test_live_a_face_leaves_and_another_comes_after_a_while():
    images = [*walk(5), *[picture()] * 14, *[picture(("blue", 120, 60, 40))] * 3]
    tracked, _ = live(images)
    assert "".join(one.state[0] for one in tracked) == "dtttt" + 14 * "a" + "ddt"


def test_live_somebody_else_does_not_step_in_at_once():
    images = [*walk(5), *[picture(("blue", 130, 60, 40))] * 14]
    tracked, _ = live(images)
    assert "".join(one.state[0] for one in tracked) == "dtttt" + 10 * "a" + "dttt"


def test_live_a_cut_and_a_lost_frame():
    images = [
        *walk(4),
        *[picture(("blue", 120, 70, 50), scene=1)] * 3,
        None,
        *walk(2, start=110, scene=1),
    ]
    tracked, _ = live(images)
    assert "".join(one.state[0] for one in tracked) == "dtttdttutt"
    assert [int(one.row["scene"]) for one in tracked] == 4 * [0] + 6 * [1]


def test_live_ends_by_ctrl_c_with_what_there_is(tmp_path):
    class Interrupted(Film):
        def frames(self, start=0):
            yield from super().frames(start)
            raise KeyboardInterrupt

    shown = []
    tracker = Tracker(Network(), settings=Settings(smoothing="none"), progress=False)
    results = tracker.live(Interrupted(walk(5)), tmp_path, lambda *pair: shown.append(pair))
    assert len(results.rows) == len(shown) == 5
    with pytest.raises(NoFaceError, match="any of the 3 frames"):
        tracker.live(Film([picture()] * 3), tmp_path)


# --- shape of a clip ---


def test_a_shared_shape_is_one_and_its_cameras_fit(tmp_path):
    own = track(walk(8), tmp_path / "own")
    rows = track(walk(8), tmp_path / "shared", share_shape=True)
    assert (rows["shape"] == rows["shape"][0]).all()
    assert not (own["shape"] == own["shape"][0]).all()
    assert own["shape"].min() < rows["shape"][0][0] < own["shape"].max()
    np.testing.assert_allclose(centers(rows), centers(own), atol=1.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"detect_every": 0}, "every first frame"),
        ({"batch": 0}, "at least 1"),
        ({"max_gap": -1}, "0 seconds or more"),
        ({"max_gap": math.nan}, "0 seconds or more"),
        ({"smoothing": "magic"}, "average, one-euro, none"),
        ({"window": 4}, "odd number"),
    ],
)
def test_settings_are_checked(wrong, words):
    with pytest.raises(P2FError, match=words):
        Settings(**wrong)


def test_no_threads_are_too_few():
    with pytest.raises(P2FError, match="At least one thread"):
        Tracker(Network(), threads=0)
