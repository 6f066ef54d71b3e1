"""Light, paint and lens of synthetic photographs: fast paths against plain ones."""

from dataclasses import replace

import numpy as np
import pytest

from p2f_lib.camera import Pose, rotation_from_pose
from p2f_lib.ground_truth import View, place_camera
from p2f_lib.synthesis import photograph
from p2f_lib.synthesis.anatomy import SKIN, anatomy
from p2f_lib.synthesis.hair import EDGE_ANGLES, build_sheet
from p2f_lib.synthesis.lens import PLAIN_LENS, _curve, develop
from p2f_lib.synthesis.paint import seen_rows
from p2f_lib.synthesis.people import sample_appearance
from p2f_lib.synthesis.photograph import (
    render_backdrop,
    render_light,
    render_photo,
    sample_scene,
)
from tests.toy import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


def photo(model, size=64, supersample=2, seed=0, **changes):
    rng = np.random.default_rng(seed)
    appearance, scene = sample_appearance(rng), sample_scene(rng)
    scene = replace(scene, lens=PLAIN_LENS, occluder=None, **changes.pop("scene", {}))
    appearance = replace(appearance, glasses=None, **changes)
    camera = place_camera(
        View(10, 5, 3, 800, 0.5, 0, 0), model.mean[model.landmarks["ibug68"]], size
    )
    return render_photo(model, model.mean, camera, appearance, scene, size, size, rng, supersample)[
        0
    ]


def test_tone_curve_is_exposure_shoulder_and_power_law():
    rng = np.random.default_rng(0)
    linear = rng.uniform(0, 3, (12, 10, 3)).astype(np.float32)
    face = rng.random((12, 10)) < 0.5
    lens = replace(PLAIN_LENS, gamma=1.2, contrast=0.9, saturation=0.5, lift=0.1, vignette=0.4)
    gain = (0.3 / linear[face].mean()) ** 0.75
    y, x = np.mgrid[:12, :10]
    fall = 1 - 0.4 * 2 * ((x / 10 - 0.5) ** 2 + (y / 12 - 0.5) ** 2)
    light = linear * gain * fall[..., None]
    light = np.where(light > 0.7, 0.7 + 0.3 * np.tanh((light - 0.7) / 0.3), light)
    value = (light ** (1.2 / 2.2) - 0.5) * 0.9 + 0.5
    grey = value @ [0.299, 0.587, 0.114]
    value = 0.1 + 0.9 * (grey[..., None] + 0.5 * (value - grey[..., None]))
    expected = np.clip(value, 0, 1) * 255
    image = develop(linear, face, lens, rng)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image, expected, atol=0.75)


def test_tone_curve_ends_in_white():
    curve = _curve(1.0)
    assert curve[0] == 0
    assert (np.diff(curve) >= 0).all()
    assert curve[-2] == pytest.approx(1.0, abs=1e-4)


def test_sensor_noise_has_its_standard_deviation_and_follows_the_generator():
    grey = np.full((200, 200, 3), 0.2, np.float32)
    face = np.ones((200, 200), bool)
    lens = replace(PLAIN_LENS, noise=(0.05, 0.0, 0.0))
    image = develop(grey, face, lens, np.random.default_rng(1))
    assert image.std(axis=(0, 1)) / 255 == pytest.approx(0.05, rel=0.05)
    again = develop(grey, face, lens, np.random.default_rng(1))
    np.testing.assert_array_equal(image, again)
    assert (develop(grey, face, lens, np.random.default_rng(2)) != image).mean() > 0.5


def test_monochrome_pictures_have_equal_channels():
    linear = np.random.default_rng(0).random((20, 20, 3), dtype=np.float32)
    image = develop(
        linear,
        np.ones((20, 20), bool),
        replace(PLAIN_LENS, monochrome=True),
        np.random.default_rng(0),
    ).astype(int)
    assert np.ptp(image, axis=2).max() <= 1


def test_sharing_rays_changes_little(model, monkeypatch):
    shared = photo(model, size=96).astype(float)
    paint = photograph.paint_person

    def each_ray(image, block, *rest):
        paint(image, 1, *rest)

    monkeypatch.setattr(photograph, "paint_person", each_ray)
    single = photo(model, size=96).astype(float)
    assert np.abs(shared - single).mean() < 1.0
    assert (shared != single).any()


def test_seen_rows_are_the_vertices_of_visible_triangles(model):
    rng = np.random.default_rng(0)
    triangle_id = rng.integers(-1, 40, (9, 7)).astype(np.int32)
    expected = np.unique(model.triangles[np.unique(triangle_id[triangle_id >= 0])])
    rows = seen_rows(triangle_id, model.triangles, model.n_vertices)
    np.testing.assert_array_equal(rows, expected)


def test_a_brim_shades_the_face_under_a_high_lamp(model):
    rng = np.random.default_rng(5)
    hat = None
    while hat is None or hat.brim[0] == 0:
        hat = sample_appearance(rng).hat
    hat = replace(hat, edge=np.full((2, len(EDGE_ANGLES)), 0.3))
    person = anatomy(model)
    frame = person.frame(model.mean)
    mesh = build_sheet(
        hat, person, person.person(model.mean, np.eye(3)), frame, np.array([0, -1.0, 0])
    )
    eyes = frame.marks[36:48].astype(np.float32)
    above = np.array([0.0, 0.94, 0.34], np.float32)
    ahead = np.array([0.0, -0.2, 0.98], np.float32)
    hidden = photograph._cast_shadow(eyes, [(hat, mesh)], above, 60.0, frame)
    lit = photograph._cast_shadow(eyes, [(hat, mesh)], ahead, 60.0, frame)
    assert hidden.mean() < 0.7
    assert lit.mean() > 0.95
    faint = photograph._cast_shadow(eyes, [(hat, mesh)], above, 8.0, frame)
    assert hidden.mean() < faint.mean() < 1
    soft = photograph._cast_shadow(eyes, [(hat, mesh)], above, 2.0, frame)
    np.testing.assert_array_equal(soft, 1)
    np.testing.assert_array_equal(photograph._cast_shadow(eyes, [], above, 60.0, frame), 1)


def test_without_a_body_only_the_face_is_drawn(model):
    bare = {"hair": None, "hat": None, "scalp_cover": 0.0}
    plain = {"background": None, "backlight": 1.0}
    whole = photo(model, scene=plain, **bare)
    face = photo(model, scene=plain | {"body": False}, **bare)
    assert np.ptp(face[-3:].reshape(-1, 3).astype(int), axis=0).max() <= 1  # background
    assert np.ptp(whole[-3:].reshape(-1, 3).astype(int), axis=0).max() > 5  # shoulders


def test_drawn_on_marks_the_triangles_that_bear_lines(model):
    person = anatomy(model)
    bits = person.drawn_on
    assert bits.shape == person.material.shape
    outside = person.triangles.min(axis=1) >= person.n_face
    assert not bits[outside].any()
    lips = model.regions.get("lips")
    if lips is not None:
        painted = (lips[person.triangles[: len(model.triangles)]] > 0.5).all(axis=1)
        assert (bits[: len(model.triangles)][painted] & 1).all()
    assert (person.material[bits > 0] == SKIN).any()


def test_the_torso_follows_the_head_in_part():
    rng = np.random.default_rng(0)
    scene = replace(sample_scene(rng), body_follow=0.0, body_turn=0.0)
    head = photograph.UPRIGHT @ rotation_from_pose(Pose(40, 0, 0))
    torso = head @ photograph._torso_rotation(head, scene)
    np.testing.assert_allclose(torso, np.eye(3), atol=1e-9)
    half = head @ photograph._torso_rotation(head, replace(scene, body_follow=0.5))
    turned = photograph.UPRIGHT @ rotation_from_pose(Pose(20, 0, 0))
    np.testing.assert_allclose(half, turned, atol=1e-6)


@pytest.mark.parametrize("supersample", [1, 2])
def test_a_photo_is_developed_light_and_somebody_can_stand_before_a_picture(model, supersample):
    rng = np.random.default_rng(3)
    appearance, scene = sample_appearance(rng), replace(sample_scene(rng), occluder=None)
    camera = place_camera(View(10, 5, 3, 800, 0.5, 0, 0), model.mean[model.landmarks["ibug68"]], 64)
    arguments = model, model.mean, camera, appearance, scene, 64, 64
    image, truth = render_photo(*arguments, np.random.default_rng(1), supersample)
    light, again = render_light(*arguments, supersample)
    np.testing.assert_array_equal(truth.valid, again.valid)
    developed = develop(light, truth.valid, scene.lens, np.random.default_rng(1))
    np.testing.assert_array_equal(image, developed)
    # The scene's own background, given as a picture, changes nothing; another one shows.
    wall = render_backdrop(scene, 64, 64)
    np.testing.assert_allclose(render_light(*arguments, supersample, wall)[0], light, atol=1e-6)
    before, _ = render_light(*arguments, supersample, wall + np.float32(5))
    assert (before[0] > 5).all()
    assert (before[truth.valid] < 5).mean() > 0.95
    assert wall.max() < 5
