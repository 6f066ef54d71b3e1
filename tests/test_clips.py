"""Synthetic clips: smooth, plausible, and true to their annotations."""

import numpy as np
import pytest

from p2f_lib.camera import pose_from_rotation
from p2f_lib.datasets import clips
from p2f_lib.datasets.menpo3d import read_clips
from p2f_lib.errors import P2FError

from .toy import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.mark.parametrize("plan", clips.PLANS)
def test_performances_are_smooth_and_within_their_plan(model, plan):
    played = clips.perform(model, plan, 50, np.random.default_rng(0))
    largest = np.array([plan.yaw, plan.pitch, plan.roll])
    assert np.abs(played.poses).max(axis=0) == pytest.approx(largest)  # each is reached once
    assert np.abs(np.diff(played.poses, axis=0)).max() < 10  # degrees a frame
    assert np.abs(played.position).max() <= plan.wander + 1e-12
    assert played.expression.min() >= 0
    assert played.expression.max() <= 1
    assert np.abs(np.diff(played.expression, axis=0)).max() < 0.5


def test_blinks_close_and_open_the_eyes():
    blink = clips._blinks(100, np.random.default_rng(0))
    assert blink.max() > 0.8
    assert 0.1 < (blink > 0).mean() < 0.5
    assert (blink >= 0).all()


def test_both_sides_agree_but_the_eyes_look_the_same_way():
    names = ("mouthSmileLeft", "mouthSmileRight", "eyeLookOutLeft", "eyeLookInRight")
    stand_in = type("Model", (), {"n_expression": 4, "expression_names": names})
    rows = clips.perform(stand_in, clips.PLANS[0], 60, np.random.default_rng(1)).expression
    np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
    np.testing.assert_array_equal(rows[:, 2], rows[:, 3])
    assert (rows.max(axis=0) > 0.1).all()


def test_cameras_show_the_head_where_the_performance_says(model):
    played = clips.perform(model, clips.PLANS[1], 20, np.random.default_rng(2))
    for frame in range(20):
        camera = clips.camera_at(model, played, frame, 400, 300)
        pose = pose_from_rotation(camera.rotation)
        assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx(tuple(played.poses[frame]))
        points = camera.project(model.mean[model.landmarks["menpo84"]])
        assert points.min() > 0
        assert (points.max(axis=0) < (400, 300)).all()
        assert 0.3 < np.ptp(points[:, 1]) / 300 < 0.55


def test_paper_hides_the_middle_of_the_face_and_nothing_else():
    image = np.zeros((100, 100, 3), np.uint8)
    marks = np.array([[30.0, 20.0], [70.0, 80.0]])
    covered = clips._cover(image, marks, 0)
    y, x = np.nonzero(covered[..., 0])
    assert covered[50, 50].min() > 150
    assert (x.min() > 30, x.max() < 70, y.min() > 25, y.max() < 80) == (True,) * 4
    assert not image.any()


def test_clips_are_a_function_of_the_seed(model, tmp_path):
    size = {"n_clips": 1, "n_frames": 3, "width": 96, "height": 72, "progress": False}
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        clips.make_clips(model, tmp_path / name, seed=seed, **size)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
    assert len(contents[0]) == 8
    (clip,) = read_clips(tmp_path / "a")
    assert [frame.shape for frame in clip] == [(72, 96, 3)] * 3
    assert np.isfinite(clip.projected).all()
    assert clip.model.shape == (3, 84, 3)
    assert len({frame.tobytes() for frame in clip}) == 3

    truth = clips.read_truth(tmp_path / "a", clip.name)
    assert (truth.height, truth.width) == (72, 96)
    for frame in range(3):  # the files tell one story
        points = model.vertices(truth.shape, truth.expressions[frame])[model.landmarks["menpo84"]]
        assert clip.model[frame] == pytest.approx(points, abs=1e-3)
        assert clip.projected[frame] == pytest.approx(
            truth.cameras[frame].project(points), abs=1e-3
        )


def test_truths_that_are_none_get_a_sentence(tmp_path):
    with pytest.raises(P2FError, match="only synthetic clips"):
        clips.read_truth(tmp_path, "001")
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/001.npz").write_bytes(b"PK nothing")
    with pytest.raises(P2FError, match="not the truth"):
        clips.read_truth(tmp_path, "001")
    np.savez(tmp_path / "truth/001.npz", shape=np.zeros(3))
    with pytest.raises(P2FError, match="not the truth"):
        clips.read_truth(tmp_path, "001")


def test_the_command_says_what_is_wrong_with_the_model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    arguments = ["--model", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"model\.safetensors"):
        clips.main(arguments)
    assert not (tmp_path / "out").exists()
