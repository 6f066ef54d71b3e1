"""What people do in clips: smooth, plausible, and what their roles say."""

import numpy as np
import pytest

from p2f_lib.datasets import acting
from p2f_lib.datasets.acting import FEELINGS, Role, perform
from p2f_lib.datasets.clips import PLANS

from .toy import toy_model

ROLES = [role for plan in PLANS for role in (plan.role, *plan.others)]


def stand_in(*names):
    """A face model with these expression modes."""
    return type("Model", (), {"n_expression": len(names), "expression_names": names})


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.mark.parametrize("role", ROLES)
def test_performances_are_smooth_and_reach_what_the_role_says(model, role):
    played = perform(model, role, 100, np.random.default_rng(0))
    largest = np.array([role.yaw, role.pitch, role.roll])
    turned = played.poses - role.facing
    np.testing.assert_allclose(turned.max(axis=0), largest)  # both ends are reached
    np.testing.assert_allclose(turned.min(axis=0), -largest)
    assert (np.abs(np.diff(turned, axis=0)).max(axis=0) < 0.35 * role.pace * largest).all()
    assert np.abs(np.diff(played.position, axis=0)).max() < 0.15
    assert played.expression.min() >= 0
    assert played.expression.max() <= 1
    assert np.abs(np.diff(played.expression, axis=0)).max() < 0.5


def test_heads_follow_their_path_and_grow(model):
    path = ((0.0, -0.5, 0.0), (0.5, 0.1, 0.3), (1.0, 0.1, -0.2))
    role = Role(age=0.5, path=path, wander=0.01, size=(0.2, 0.6))
    played = perform(model, role, 101, np.random.default_rng(1))
    for moment, x, y in path:
        place = played.position[round(100 * moment)]
        assert np.abs(place - (x, y)).max() <= 0.01 + 1e-12
    assert played.size[[0, -1]] == pytest.approx((0.2, 0.6), rel=0.051)
    assert 2.5 < played.size[-1] / played.size[0] < 3.5


def test_between_frames_motion_is_steady(model):
    played = perform(model, Role(age=0.5), 10, np.random.default_rng(2))
    arrays = played.poses, played.position, played.size, played.expression
    for values, at_3, between, before in zip(
        arrays, played.at(3), played.at(3.25), played.at(-0.5), strict=True
    ):
        np.testing.assert_array_equal(at_3, values[3])
        np.testing.assert_allclose(between, 0.75 * values[3] + 0.25 * values[4])
        np.testing.assert_allclose(before, 1.5 * values[0] - 0.5 * values[1], atol=1e-12)
    np.testing.assert_array_equal(played.at(9)[0], played.poses[9])
    still = perform(model, Role(age=0.5), 1, np.random.default_rng(2))
    np.testing.assert_array_equal(still.at(0.4)[0], still.poses[0])


def test_blinks_close_and_open_the_eyes():
    blink = acting._blinks(100, np.random.default_rng(0))
    assert blink.max() > 0.8
    assert 0.1 < (blink > 0).mean() < 0.5
    assert (blink >= 0).all()


def test_both_sides_agree_but_the_eyes_look_the_same_way():
    names = ("mouthSmileLeft", "mouthSmileRight", "eyeLookOutLeft", "eyeLookInRight")
    role = Role(age=0.5)
    rows = perform(stand_in(*names), role, 60, np.random.default_rng(1)).expression
    np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
    np.testing.assert_array_equal(rows[:, 2], rows[:, 3])
    assert (rows.max(axis=0) > 0.1).all()


def test_feelings_follow_each_other():
    role = Role(age=0.5, feelings=("surprise", "wink", "anger"))
    names = ("eyeWideLeft", "mouthSmileLeft", "mouthSmileRight", "browDownRight")
    rows = perform(stand_in(*names), role, 91, np.random.default_rng(1)).expression
    np.testing.assert_allclose(rows[[15, 45, 75]], [[1, 0, 0, 0], [0, 0.9, 0, 0], [0, 0, 0, 1]])


def test_feelings_are_face_units_that_models_have():
    known = {name for units in FEELINGS.values() for name in units}
    names = stand_in(*(name + side for name in known for side in ("", "Left", "Right")))
    for units in FEELINGS.values():
        rows = acting._coefficients(names, units, 2)
        assert set(rows[0][rows[0] > 0]) == set(units.values())
