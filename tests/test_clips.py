"""Synthetic clips: people and places as planned, and true to their annotations."""

import numpy as np
import pytest

from p2f_lib.camera import pose_from_rotation
from p2f_lib.datasets import clips
from p2f_lib.datasets.acting import Role, perform
from p2f_lib.datasets.clips import PLANS, Plan, View
from p2f_lib.datasets.menpo3d import read_clips
from p2f_lib.errors import P2FError
from p2f_lib.synthesis import sample_scene

from .toy import toy_model

STILL = Role(age=0.5, yaw=0, pitch=0, roll=0, wander=0)


@pytest.fixture(scope="module")
def model():
    return toy_model()


def staged(model, plan, n_frames=10):
    return clips.set_up(model, plan, n_frames, 96, 72, (5, 0))


def exposed(stage, frame):
    """Light, where the face is, and how much of it is covered."""
    return clips._expose(stage, frame, stage.views[frame])


# --- the plans ------------------------------------------------------------------------------------


def test_the_plans_have_everything_a_test_worth_quoting_needs():
    roles = [plan.role for plan in PLANS]
    assert len(PLANS) >= 12
    assert len({plan.shows for plan in PLANS}) == len(PLANS)
    assert max(role.yaw for role in roles) >= 80
    assert max(role.pitch for role in roles) >= 35
    assert max(role.roll for role in roles) >= 40
    assert max(role.pace * plan.shutter for role, plan in zip(roles, PLANS, strict=True)) > 1.5
    assert any(role.size[1] / role.size[0] > 2 for role in roles)
    assert any(abs(x) > 0.7 for role in roles for _, x, _ in role.path)  # leaves the picture
    assert any(role.feelings for role in roles)
    for thing in ("others", "sheet", "hand", "holds", "portrait"):
        assert any(getattr(plan, thing) for plan in PLANS), thing
    assert any(len({view for _, view in plan.cuts}) > 1 for plan in PLANS)
    looks = {look for role in roles for look in role.looks}
    assert looks >= {"fair", "brown", "dark", "glasses", "sunglasses", "fringe", "cap", "headscarf"}
    assert {plan.light for plan in PLANS} >= {"any", "side", "dark", "turning"}
    assert {plan.lens for plan in PLANS} == set(clips.LENSES)


@pytest.mark.parametrize("number", range(len(PLANS)))
def test_every_plan_can_be_filmed(model, number):
    stage = staged(model, PLANS[number])
    for person, role in zip(stage.people, (PLANS[number].role, *PLANS[number].others), strict=True):
        assert all(clips.LOOKS[look](person.appearance) for look in role.looks)
    shot = clips._shoot(stage, 3, np.random.default_rng(0))
    assert shot.image.shape == (72, 96, 3)
    assert shot.image.std() > 5
    assert 0 <= shot.covered <= 1
    assert shot.inside > 0.5


def test_nobody_looks_like_two_things_that_exclude_each_other():
    role = Role(age=0.5, looks=("bald", "fringe"))
    with pytest.raises(P2FError, match="bald and fringe"):
        clips._cast(role, np.random.default_rng(0))


# --- cameras --------------------------------------------------------------------------------------


def test_cameras_show_the_head_where_the_performance_says(model):
    played = perform(model, Role(age=0.5, yaw=50), 20, np.random.default_rng(2))
    for frame in range(20):
        camera = clips.camera_at(model, played, frame, 900, 300, 400)
        pose = pose_from_rotation(camera.rotation)
        assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx(tuple(played.poses[frame]))
        marks = model.mean[model.landmarks["menpo84"]]
        points = camera.project(marks)
        assert points.min() > 0
        assert (points.max(axis=0) < (400, 300)).all()
        assert 0.3 < np.ptp(points[:, 1]) / 300 < 0.55
        middle = camera.project((marks.min(axis=0) + marks.max(axis=0))[None] / 2)[0]
        place = (middle - (199.5, 149.5)) / (400, 300)
        assert place == pytest.approx(played.position[frame], abs=0.01)


def test_another_camera_sees_the_same_head_from_the_side(model):
    stage = staged(model, Plan("", STILL, cuts=((0.0, View()), (0.5, View(30.0, 2.0)))))
    assert stage.views == (View(),) * 5 + (View(30.0, 2.0),) * 5
    person = stage.people[0]
    first, second = (stage.camera(person, 4, view) for _, view in stage.plan.cuts)
    assert pose_from_rotation(first.rotation).yaw == pytest.approx(0)
    assert pose_from_rotation(second.rotation).yaw == pytest.approx(
        -30
    )  # the camera is to the right
    assert second.focal == pytest.approx(2 * first.focal)
    # The same light falls on the head, whoever films it.
    on_head = [
        stage.scenes[view].light.directions @ clips.UPRIGHT @ camera.rotation
        for (_, view), camera in zip(stage.plan.cuts, (first, second), strict=True)
    ]
    np.testing.assert_allclose(*on_head, atol=1e-12)
    assert len({wall.tobytes() for wall in stage.walls.values()}) == 2


# --- pictures -------------------------------------------------------------------------------------


def test_a_slow_shutter_sees_the_mean_of_moments(model, monkeypatch):
    monkeypatch.setattr(clips, "develop", lambda light, face, lens, rng: light)
    fast = Role(age=0.5, yaw=60, pace=5.0)
    stage = staged(model, Plan("", fast, shutter=0.8))
    travel = [
        np.linalg.norm(
            stage.marks(stage.people[0], frame + 0.4, View())
            - stage.marks(stage.people[0], frame - 0.4, View()),
            axis=1,
        )
        for frame in range(10)
    ]
    frame = int(np.argmax(np.max(travel, axis=1)))
    count = int(np.ceil(travel[frame].max() / clips.BLUR_STEP))
    count += count % 2 == 0  # one of them is the middle
    assert 3 < count < clips.MOMENTS
    shot = clips._shoot(stage, frame, np.random.default_rng(0))
    assert shot.blur == pytest.approx(travel[frame].mean())
    times = frame + 0.8 * ((np.arange(count) + 0.5) / count - 0.5)
    moments = [clips._expose(stage, time, View())[0] for time in times]
    np.testing.assert_allclose(shot.image, np.mean(moments, axis=0), atol=1e-6)
    np.testing.assert_allclose(
        shot.camera.rotation, stage.camera(stage.people[0], frame, View()).rotation
    )


def test_a_still_head_isn_t_blurred(model, monkeypatch):
    monkeypatch.setattr(clips, "develop", lambda light, face, lens, rng: light)
    monkeypatch.setattr(clips, "perform", lambda m, role, n, rng: perform(m, role, 1, rng))
    stage = staged(model, Plan("", STILL))
    shot = clips._shoot(stage, 0, np.random.default_rng(0))
    assert shot.blur < 1e-9
    np.testing.assert_array_equal(shot.image, exposed(stage, 0)[0])


def test_the_nearer_one_hides_the_other(model):
    crossing = ((0.0, -1.5, 0.0), (0.3, -1.5, 0.0), (0.5, 0.0, 0.0), (1.0, 0.0, 0.0))
    for size, expected in ((0.6, 0.9), (0.3, 0.0)):
        other = Role(age=0.5, wander=0, size=(size, size), path=crossing)
        stage = staged(model, Plan("", STILL, others=(other,)))
        assert exposed(stage, 0)[2] == 0
        hidden = exposed(stage, 9)[2]
        assert hidden >= expected if expected else hidden == 0


def test_things_pass_before_the_face_when_the_plan_says(model):
    plans = {
        "sheet": Plan("", STILL, sheet=(0.4, 0.6)),
        "hand": Plan("", STILL, hand=((0.4, 0.0, 0.0), (0.55, 0.0, 0.0))),
        "holds": Plan("", STILL, holds="microphone"),
    }
    for name, plan in plans.items():
        stage = staged(model, plan)
        hidden = [exposed(stage, frame)[2] for frame in (0, 4, 5, 9)]
        assert hidden[1] > 0.02, name
        assert (hidden[0] > 0, hidden[3] > 0) == ((name == "holds",) * 2), name
        free = exposed(staged(model, Plan("", STILL)), 4)[0]
        light, face, _ = exposed(stage, 4)
        changed = np.abs(light - free).max(axis=2) > 1e-3
        assert changed[face].mean() == pytest.approx(hidden[1], abs=0.02), name


def test_a_portrait_hangs_on_the_wall_behind_everybody(model):
    plain, adorned = (staged(model, Plan("", STILL, portrait=there)) for there in (False, True))
    changed = np.abs(plain.walls[View()] - adorned.walls[View()]).max(axis=2) > 0
    assert changed[:28, :28].mean() > 0.9
    assert not changed[28:].any()
    near = Role(age=0.5, size=(1.2, 1.2), path=((0.0, -0.3, -0.2), (1.0, -0.3, -0.2)))
    stage = staged(model, Plan("", near, portrait=True))
    light, face, _ = exposed(stage, 0)
    assert face[:20, :28].mean() > 0.3
    bare = exposed(staged(model, Plan("", near)), 0)[0]
    np.testing.assert_array_equal(light[face], bare[face])


def test_planned_light_is_dark_onesided_or_turns(model):
    dark, side, other = (
        clips._light(sample_scene(np.random.default_rng(0)).light, kind)
        for kind in ("dark", "side", "any")
    )
    assert dark.colors.sum() + dark.sky.sum() < 0.5 * side.colors.sum()
    assert abs(side.directions[0, 0]) > 0.8
    assert other is not side
    stage = staged(model, Plan("", STILL, light="turning"))
    halves = []
    for frame in (2, 8):  # from the two sides
        light, face, _ = exposed(stage, frame)
        levels = [
            part.mean() for part in (light[:, :48][face[:, :48]], light[:, 48:][face[:, 48:]])
        ]
        halves.append(levels[0] - levels[1])
    assert halves[0] * halves[1] < 0


# --- files ----------------------------------------------------------------------------------------


def test_clips_are_a_function_of_the_seed(model, tmp_path):
    size = {"n_frames": 3, "width": 96, "height": 72, "progress": False}
    contents = []
    for name, seed, count in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
        clips.make_clips(model, tmp_path / name, n_clips=count, seed=seed, **size)
        files = sorted(path for path in (tmp_path / name).rglob("*001*") if path.is_dir())
        files = [path for folder in files for path in sorted(folder.iterdir())]
        files.append(tmp_path / name / "truth/001.npz")
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
    assert truth.covered.shape == truth.blur.shape == truth.inside.shape == (3,)
    for frame, camera in enumerate(truth.cameras):  # the files tell one story
        mesh, marks = truth.vertices(model, frame), model.landmarks["menpo84"]
        assert mesh.shape == model.mean.shape
        assert clip.model[frame] == pytest.approx(mesh[marks], abs=1e-3)
        assert clip.projected[frame] == pytest.approx(camera.project(mesh[marks]), abs=1e-3)
        x, y, z = truth.posed(model, frame)[marks].T
        seen = camera.focal * np.stack([x, y], 1) / z[:, None] + camera.principal_point
        assert clip.projected[frame] == pytest.approx(seen, abs=1e-3)


def test_frames_without_a_face_are_not_annotated(model, tmp_path):
    away = ((0.0, 0.0, 0.0), (0.4, 1.0, 0.0), (0.6, 1.0, 0.0), (1.0, 0.0, 0.0))
    stage = staged(model, Plan("", Role(age=0.5, path=away)), 5)
    shots = [clips._shoot(stage, frame, np.random.default_rng(frame)) for frame in range(5)]
    assert shots[2].inside == 0
    clip = clips._write(tmp_path, "001", stage, shots)
    assert 3 not in clip.frames
    assert {1, 5} <= set(clip.frames)
    truth = clips.read_truth(tmp_path, "001")
    assert len(truth.cameras) == len(truth.expressions) == len(truth.inside) == len(clip)
    assert truth.inside.min() >= 0.5
    np.testing.assert_array_equal(truth.expressions[-1], stage.people[0].performance.expression[4])
    assert len(list(clip)) == len(clip)


def test_truths_without_the_optional_columns_are_read(model, tmp_path):
    stage = staged(model, Plan("", STILL), 2)
    camera = stage.camera(stage.people[0], 0, View())
    clips.write_truth(
        tmp_path, "001", clips.ClipTruth(np.zeros(5), np.zeros((1, 4)), (camera,), 72, 96)
    )
    truth = clips.read_truth(tmp_path, "001")
    assert truth.covered is None
    np.testing.assert_array_equal(truth.cameras[0].rotation, camera.rotation)


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


def test_the_command_makes_clips_their_model_and_a_figure(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    out, figure = tmp_path / "out", tmp_path / "clips.png"
    arguments = ["--model", str(tmp_path / "model.safetensors"), "--out", str(out)]
    clips.main([*arguments, "--clips", "1", "--frames", "2", "--figure", str(figure)])
    assert (out / clips.MODEL_FILE).read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert [clip.frames for clip in read_clips(out)] == [(1, 2)]
    assert figure.read_bytes()[1:4] == b"PNG"


def test_the_command_says_what_is_wrong_with_the_model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    arguments = ["--model", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"model\.safetensors"):
        clips.main(arguments)
    assert not (tmp_path / "out").exists()


def test_a_part_of_the_truth_is_that_of_these_frames(model, tmp_path):
    (clip,) = clips.make_clips(model, tmp_path, 1, 4, 96, 72, progress=False)
    truth = clips.read_truth(tmp_path, clip.name)
    part = truth.take([1, 3])
    assert len(truth) == len(clip) == 4
    assert len(part) == 2
    assert np.array_equal(part.expressions, truth.expressions[[1, 3]])
    assert np.array_equal(part.cameras[1].translation, truth.cameras[3].translation)
    assert np.array_equal(part.covered, truth.covered[[1, 3]])
    assert part.shape is truth.shape
