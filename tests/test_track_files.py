"""What `p2f track` writes: read back, resumed, and once with the released weights."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from p2f_lib import cli
from p2f_lib import video as video_module
from p2f_lib.datasets.landmark_files import read_landmarks
from p2f_lib.errors import P2FError
from p2f_lib.images import write_image
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.smoothing import OneEuro
from p2f_lib.track_files import Canvas, Layout, smoothed
from p2f_lib.track_store import CHUNK, STATES
from p2f_lib.tracker import Settings, Tracker
from p2f_lib.tracking import moving_average
from p2f_lib.video import Frame, Video, write_video
from p2f_lib.video_commands import clip_names
from tests.film import Detector, Network, picture
from tests.test_tracker import Film, walk

RELEASE = Path(__file__).resolve().parents[1] / "data" / "release"
CLIPS = RELEASE.parent / "menpo3d_synthetic"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A command whose network and detector know the world of squares."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("face_model.safetensors", "unet.safetensors"):
        (folder / name).write_text("stands in")
    monkeypatch.setenv("P2F_HOME", str(folder))
    monkeypatch.setattr(
        Reconstructor, "from_pretrained", classmethod(lambda cls, *_, **__: Network(Detector()))
    )


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.avi"
    write_video(path, [*walk(7), picture(), *walk(4, start=60)], fps=10)
    return path


def run(capsys, *argv):
    """Exit status, standard output lines, standard error lines without progress bars."""
    status = cli.main(["track", *map(str, argv)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out.splitlines(), [line for line in err.splitlines() if line.startswith("p2f")]


def files_in(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


# --- files ---


def test_landmarks_table_and_overlay(capsys, weights, video, tmp_path):
    out = tmp_path / "out"
    status, lines, errors = run(capsys, video, "--out", out)
    assert (status, errors) == (0, [])
    assert lines == [f"{video}: 12 frames, 11 of them with a face -> {out / 'clip.csv'}"]
    rows = rows_of(out / "clip.csv")
    assert [row["frame"] for row in rows] == [str(k) for k in range(1, 13)]
    assert [row["state"] for row in rows] == 7 * ["detected"] + ["absent"] + 4 * ["detected"]
    assert float(rows[4]["time"]) == pytest.approx(0.4)
    assert {"scene", "left", "yaw", "confidence", "shape_1", "jawOpen"} <= set(rows[0]) | {
        "jawOpen"
    }
    for markup, count, root in (("menpo84", 84, out), ("ibug68", 68, out / "ibug68")):
        flat, solid = (root / f"{space}_space" / "clip" for space in ("projected_image", "model"))
        assert len(list(flat.iterdir())) == 22
        for number in (1, 12):
            points = read_landmarks(flat / f"{number:06d}.ljson")
            assert points.shape == (count, 2)
            other = read_landmarks(flat / f"{number:06d}.pts")
            np.testing.assert_allclose(points, other, atol=1e-3)
            assert read_landmarks(solid / f"{number:06d}.ljson").shape == (count, 3)
            assert Layout(out, "clip").landmarks(markup, number)[0].is_file()
    overlay = list(Video(out / "clip.avi"))
    assert (len(overlay), overlay[0].shape) == (12, (120, 160, 3))


def test_files_hold_the_average_of_three_frames(capsys, weights, tmp_path):
    video = tmp_path / "clip.avi"
    write_video(video, [picture(("red", 60 + 8 * (k % 2), 60, 40)) for k in range(9)], fps=10)
    assert run(capsys, video, "--out", tmp_path / "raw", "--smoothing", "none")[0] == 0
    assert run(capsys, video, "--out", tmp_path / "smooth")[0] == 0

    def points(name):
        folder = tmp_path / name / "projected_image_space" / "clip"
        return np.array([read_landmarks(path) for path in sorted(folder.glob("*.ljson"))])

    np.testing.assert_allclose(points("smooth"), moving_average(points("raw")), atol=2e-3)
    assert np.abs(points("smooth") - points("raw")).max() > 0.1


def test_frames_without_a_face_have_a_row_but_no_landmarks(capsys, weights, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, image in enumerate([*walk(3), *[picture()] * 5]):
        write_image(folder / f"{k}.png", image)
    (folder / "1.png").write_text("damaged")
    out = tmp_path / "out"
    status, lines, _ = run(capsys, folder, "--out", out, "--fps", 2, "--name", "other")
    assert status == 0
    assert "8 frames, 2 of them with a face" in lines[0]
    states = [row["state"] for row in rows_of(out / "other.csv")]
    assert states == ["detected", "unreadable", "detected", *["absent"] * 5]
    row = rows_of(out / "other.csv")[6]
    assert (row["yaw"], row["shape_1"], row["confidence"]) == ("", "", "0.000")
    written = sorted((out / "model_space" / "other").iterdir())
    assert [path.name for path in written] == ["000001.ljson", "000003.ljson"]


def test_shapes_of_frames_may_differ(capsys, weights, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    images = walk(4)
    for k, image in enumerate([images[0], images[1][:, :140], *images[2:]]):
        write_image(folder / f"{k}.png", image)
    (folder / "-1.png").write_text("damaged")  # the first, even
    assert run(capsys, folder, "--out", tmp_path / "out")[0] == 0
    assert rows_of(tmp_path / "out" / "pictures.csv")[0]["state"] == "unreadable"
    assert len(list(Video(tmp_path / "out" / "pictures.avi"))) == 5
    assert {frame.shape for frame in Video(tmp_path / "out" / "pictures.avi")} == {(120, 160, 3)}


# --- smoothing, a few rows at a time ---


def results(tmp_path, images, **settings):
    tracker = Tracker(Network(), settings=Settings(**settings), progress=False)
    return tracker.track(Film(images), tmp_path / "work")


def test_smoothing_in_parts_equals_smoothing_at_once(tmp_path):
    n = CHUNK + 20
    found = results(tmp_path, [*walk(n, step=0.7), *walk(7, scene=1)], window=5)
    raw, scene = found.rows[:]["ibug68_2d"], found.rows[:]["scene"]
    got = np.concatenate([parts["ibug68"] for _, parts in smoothed(found)])
    whole = [moving_average(raw[scene == k], 5) for k in (0, 1)]
    np.testing.assert_array_equal(got, np.concatenate(whole))


def test_one_euro_follows_the_time_stamps(tmp_path):
    found = results(tmp_path, walk(9), smoothing="one-euro")
    rows, smooth = found.rows[:], OneEuro()
    got = np.concatenate([parts["menpo84"] for _, parts in smoothed(found)])
    for row, points in zip(rows, got, strict=True):
        left, top, right, bottom = row["box"]
        size = np.sqrt((right - left) * (bottom - top))
        np.testing.assert_array_equal(points, smooth(row["menpo84_2d"], row["time"], size))


# --- resuming ---


def test_a_resumed_command_goes_on_and_then_has_nothing_to_do(capsys, weights, video, tmp_path):
    words = [video, "--mesh-every", 3, "--share-shape"]
    assert run(capsys, *words, "--out", tmp_path / "whole")[0] == 0
    whole = files_in(tmp_path / "whole")
    out = tmp_path / "out"
    assert run(capsys, *words, "--out", out)[0] == 0
    document = json.loads((out / "work" / "clip" / "run.json").read_text())
    (out / "work" / "clip" / "run.json").write_text(json.dumps(document | {"finished": False}))
    (out / "clip.avi").unlink()
    (out / "clip.csv").unlink()
    for path in sorted((out / "model_space" / "clip").iterdir())[4:]:
        path.unlink()
    rows = out / "work" / "clip" / "frames.rows"
    rows.write_bytes(rows.read_bytes()[:-5])
    (out / "work" / "clip" / "shared.rows").unlink()
    status, lines, _ = run(capsys, *words, "--out", out, "--resume")
    assert (status, "12 frames" in lines[0]) == (0, True)
    assert files_in(out) == whole
    assert run(capsys, *words, "--out", out, "--resume") == (0, [f"{video}: done before"], [])


def test_another_run_is_not_resumed_but_replaced(capsys, weights, video, tmp_path):
    out = tmp_path / "out"
    assert run(capsys, video, "--out", out)[0] == 0
    status, _, errors = run(capsys, video, "--out", out, "--resume", "--window", 5)
    assert status == 1
    assert "another settings; leave out --resume" in errors[0]
    assert run(capsys, video, "--out", out, "--frames", 3)[0] == 0
    assert len(list((out / "model_space" / "clip").iterdir())) == 3


def test_foreign_files_are_never_overwritten(capsys, weights, video, tmp_path):
    theirs = tmp_path / "out" / "model_space" / "clip"
    theirs.mkdir(parents=True)
    (theirs / "000001.ljson").write_text("annotated by hand")
    status, _, errors = run(capsys, video, "--out", tmp_path / "out")
    assert status == 1
    assert "is there and not from p2f track" in errors[0]
    assert (theirs / "000001.ljson").read_text() == "annotated by hand"
    before = video.read_bytes()
    status, _, errors = run(capsys, video, "--out", video.parent)
    assert (status, "would overwrite it" in errors[0]) == (1, True)
    assert video.read_bytes() == before


# --- several videos, live, and wrong words ---


def test_a_wrong_video_does_not_stop_the_others(capsys, weights, video, tmp_path):
    (tmp_path / "empty.mp4").touch()
    words = [tmp_path / "empty.mp4", tmp_path / "none.mp4", video]
    status, lines, errors = run(capsys, *words, "--out", tmp_path / "out")
    assert (status, len(lines), len(errors)) == (1, 1, 2)
    assert "empty.mp4 is empty, expected a video" in errors[0]
    assert "There is no video" in errors[1]


def test_names_of_clips(tmp_path):
    names = clip_names(["a/x.mp4", "b/X.avi", "300VW/002/vid.avi", "7", str(tmp_path)], None)
    assert names == ["x", "X-2", "002", "camera7", tmp_path.name]
    assert clip_names(["a.mp4", "b.mp4"], "n") == ["n", "n-2"]
    with pytest.raises(P2FError, match="plain name"):
        clip_names(["a.mp4"], "../n")


def test_live_writes_the_same_kinds_of_files(capsys, weights, video, tmp_path):
    out = tmp_path / "out"
    status, lines, _ = run(capsys, video, "--out", out, "--live", "--seconds", 0.65)
    assert (status, "7 frames, 7 of them" in lines[0]) == (0, True)
    assert [row["state"] for row in rows_of(out / "clip.csv")] == ["detected"] + 6 * ["tracked"]
    assert len(list(Video(out / "clip.avi"))) == 7
    assert len(list((out / "projected_image_space" / "clip").glob("*.pts"))) == 7


def test_a_camera_until_its_limit(capsys, weights, tmp_path, monkeypatch):
    class FakeCamera:
        def __init__(self, number):
            self.images = iter(walk(50))

        def isOpened(self):
            return True

        def read(self):
            return True, next(self.images)[..., ::-1]

        def release(self):
            pass

    monkeypatch.setattr(video_module.cv2, "VideoCapture", FakeCamera)
    status, lines, _ = run(capsys, 0, "--out", tmp_path / "out", "--frames", 6, "--detect-every", 4)
    assert (status, "6 frames, 6 of them" in lines[0]) == (0, True)
    rows = rows_of(tmp_path / "out" / "camera0.csv")
    assert "".join(row["state"][0] for row in rows) == "dtttdt"
    assert all(float(a["time"]) <= float(b["time"]) for a, b in pairwise(rows))
    assert (tmp_path / "out" / "camera0.avi").stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--live", "--smoothing", "average"], "knows no future"),
        (["--live", "--share-shape"], "sees every frame once"),
        (["--live", "--resume"], "sees every frame once"),
        (["--mesh", "glb", "--mesh-every", "0"], "at least 1, got 0"),
        (["--detect-every", "-1"], "every first frame"),
        (["--threads", "-1"], "At least one thread"),
    ],
)
def test_wrong_wishes_are_sentences(capsys, weights, video, tmp_path, words, answer):
    status, lines, errors = run(capsys, video, "--out", tmp_path / "out", *words)
    assert (status, lines, len(errors)) == (1, [], 1)
    assert answer in errors[0]


def test_nobody_in_a_video_is_a_sentence(capsys, weights, tmp_path):
    write_video(tmp_path / "empty.avi", [picture()] * 3)
    status, _, errors = run(capsys, tmp_path / "empty.avi", "--out", tmp_path / "out")
    assert status == 1
    assert "No face was found in any of the 3 frames" in errors[0]


def test_the_overlay_shows_lost_frames_darkened(tmp_path):
    rows = results(tmp_path, [*walk(2), None, *walk(2)]).rows[:]
    canvas = Canvas(picture())
    seen = canvas.draw(Frame(0, 0.0, walk(2)[1]), rows[0], {"menpo84": rows[0]["menpo84_2d"]})
    lost = canvas.draw(Frame(1, 0.1, None), rows[2], {"menpo84": rows[2]["menpo84_2d"]})
    assert STATES[rows[2]["state"]] == "unreadable"
    assert seen.shape == lost.shape == (120, 160, 3)
    assert lost[:80].mean() < 0.6 * seen[:80].mean()
    assert (seen == 255).all(axis=2).sum() > 50  # landmarks


# --- with the released weights ---


@pytest.mark.skipif(not RELEASE.is_dir() or not CLIPS.is_dir(), reason="data/ isn't pulled")
def test_killed_and_resumed_with_the_released_weights(tmp_path):
    """kill -9 in the second pass; the other run was left alone."""
    video = tmp_path / "clip.avi"
    frames = Video(CLIPS / "300VW" / "001" / "vid.avi")
    write_video(video, (frame.image for frame in frames.frames() if frame.index < 8))
    words = [sys.executable, "-m", "p2f_lib.cli", "track", video, "--weights", RELEASE]
    words += ["--threads", "2", "--batch", "2", "--mesh", "glb", "--mesh-every", "7", "--out"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen([*map(str, words), str(tmp_path / "killed")], **quiet)
    rows = tmp_path / "killed" / "work" / "clip" / "frames.rows"
    for _ in range(6000):
        if killed.poll() is not None or (rows.exists() and rows.stat().st_size):
            break
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "clip.csv").exists()

    for name in ("killed", "whole"):
        argv = [*map(str, words[3:]), str(tmp_path / name), "--resume"]
        assert cli.main(argv) == 0
    killed, whole = (files_in(tmp_path / name) for name in ("killed", "whole"))
    assert killed == whole
    assert whole["meshes/clip/000001.glb"].startswith(b"glTF")

    truth = CLIPS / "final_published" / "projected_image_space" / "001"
    for number in (1, 8):
        points, expected = (
            read_landmarks(folder / f"{number:06d}.ljson")
            for folder in (tmp_path / "whole" / "projected_image_space" / "clip", truth)
        )
        eyes = np.linalg.norm(expected[52] - expected[61])
        assert np.linalg.norm(points - expected, axis=1).mean() < 0.06 * eyes
