"""Cuts between scenes, and what only looks like one."""

import numpy as np
import pytest

from p2f_lib.scenes import change, scene_cuts, thumbnail
from tests.film import picture


def small(*people, scene=0):
    return thumbnail(picture(*people, scene=scene))


def moving(k, scene=0):
    return small(("red", 40 + 4 * k, 60, 50), scene=scene)


def test_a_face_that_moves_is_no_cut_another_scene_is():
    assert scene_cuts([moving(k) for k in range(10)]) == []
    frames = [moving(k) for k in range(5)] + [moving(k, scene=1) for k in range(5)]
    assert scene_cuts([*frames, *frames]) == [5, 10, 15]


def test_brightness_does_not_count():
    bright = picture(("red", 60, 60, 50))
    dark = (bright * 0.3).astype(np.uint8)
    assert change(thumbnail(bright), thumbnail(dark)) < 0.01
    assert scene_cuts([thumbnail(one) for one in (bright, bright, dark, dark)]) == []


def test_one_spoilt_frame_is_no_cut():
    frames = [moving(k) for k in range(8)]
    frames[4] = small(scene=7)
    assert scene_cuts(frames) == []


def test_frames_that_cannot_be_read_are_passed_over():
    frames = [moving(0), moving(1), None, moving(0, scene=3), moving(1, scene=3)]
    assert scene_cuts(frames) == [3]
    assert scene_cuts([None, None]) == []
    assert scene_cuts([]) == []


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_picture_is_another_scene(level):
    blank = np.full((18, 24), level, np.uint8)
    assert scene_cuts([moving(0), moving(1), blank, blank]) == [2]
    assert scene_cuts([blank, blank, blank]) == []


def test_thumbnails_are_small_and_grey():
    assert small(("red", 80, 60, 40)).shape == (18, 24)
    assert small(("red", 80, 60, 40)).dtype == np.uint8
