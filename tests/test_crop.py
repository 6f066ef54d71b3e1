"""Square crops, turned ones among them."""

import cv2
import numpy as np
import pytest

from p2f_lib.crop import Box, Crop


def scenery(size=300):
    """(size, size, 3) uint8, smooth."""
    noise = np.random.default_rng(0).uniform(0, 255, (size, size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 8)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.mark.parametrize("roll", [0.0, 25.0, -130.0])
def test_there_and_back(roll):
    crop = Crop(10.0, 20.0, 90.0, 30, roll)
    points = np.random.default_rng(1).uniform(-5, 40, (20, 2))
    there = crop.points_to_picture(points)
    np.testing.assert_allclose(crop.points_from_picture(there), points, atol=1e-9)
    middle = crop.points_to_picture(np.full((1, 2), 14.5))[0]
    np.testing.assert_allclose(middle, [55, 65])
    step = np.linalg.norm(np.diff(crop.points_to_picture(np.array([[0, 0], [1, 0]])), axis=0))
    assert step == pytest.approx(3)


def test_an_unturned_crop_begins_at_its_corner():
    crop = Crop.around(Box(100, 100, 200, 180), 50, 1.5)
    np.testing.assert_allclose(crop.points_to_picture(np.full((1, 2), -0.5)), [[75, 65]])


@pytest.mark.parametrize("size", [60, 200])
def test_a_turned_picture_gives_the_same_upright_crop(size):
    """Shrunk (60 of about 140 pixels) and enlarged."""
    image, points = scenery(), np.random.default_rng(2).uniform(100, 200, (68, 2))
    turn = cv2.getRotationMatrix2D((150, 150), -35, 1.0)  # clockwise
    turned = cv2.warpAffine(image, turn, (300, 300), flags=cv2.INTER_CUBIC)
    moved = points @ turn[:, :2].T + turn[:, 2]
    level, lean = (Crop.upright(points, size, 1.4, 5.0), Crop.upright(moved, size, 1.4, 40.0))
    assert lean.side == pytest.approx(level.side)
    gap = cv2.absdiff(level.extract(image), lean.extract(turned))
    assert gap.max() <= 4
    assert level.extract(image).std() > 20


def test_without_lean_upright_is_around():
    points = np.random.default_rng(3).uniform(0, 90, (68, 2))
    upright, plain = Crop.upright(points, 64, 1.4, 0.0), Crop.around(Box.around(points), 64, 1.4)
    np.testing.assert_allclose(upright.to_picture, plain.to_picture)
