"""Confidence against things, and changed copies, with networks whose answers are known."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from p2f_lib import robustness
from p2f_lib.crop import Box
from p2f_lib.errors import P2FError
from p2f_lib.robustness import (
    FACELESS,
    NEVER_SEEN,
    changed_copies,
    confidences,
    equivariance,
    face_auc,
    faceless_views,
    jittered_boxes,
    portraits,
)
from p2f_lib.synthesis.background import PICTURES

BOX = Box(60.0, 40.0, 140.0, 140.0)


def marks(image):
    """Centres of what is red and of what is green."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    weights = np.maximum(image[..., :2].astype(float) - image[..., 2:].astype(float), 0)
    total = weights.sum((0, 1))
    return np.stack([(weights * plane[..., None]).sum((0, 1)) / total for plane in (x, y)], 1)


def picture():
    """A red and a green spot where eyes might be, 50 pixels apart."""
    image = np.zeros((180, 220, 3), np.float32)
    for channel, place in enumerate([(75, 80), (125, 80)]):
        color = [0.0, 0.0, 0.0]
        color[channel] = 255.0
        cv2.circle(image, place, 7, color, -1)
    return cv2.GaussianBlur(image, (0, 0), 2).astype(np.uint8)


class Eyes:
    """Puts every landmark on one of the two spots, or where it always puts them."""

    def __init__(self, fixed=None, blind_at=None):
        self.fixed, self.blind_at, self.boxes = fixed, blind_at, []

    def reconstruct_many(self, images, boxes):
        self.boxes += boxes
        return [None if i.shape == self.blind_at else self._face(i) for i in images]

    def _face(self, image):
        spots = marks(image) if self.fixed is None else self.fixed
        points = np.repeat(spots, [40, 28], axis=0)  # the outer eye corners are 36 and 45
        return SimpleNamespace(landmarks=lambda markup: points)


def test_the_auc_counts_pairs():
    assert face_auc([0.9, 0.8], [0.1, 0.2, 0.3]) == 1.0
    assert face_auc([0.1], [0.5, 0.9]) == 0.0
    assert face_auc([0.5, 0.5], [0.5]) == 0.5
    rng = np.random.default_rng(0)
    faces, others = rng.integers(0, 9, 40), rng.integers(0, 7, 30)
    above = (faces[:, None] > others).mean() + 0.5 * (faces[:, None] == others).mean()
    assert face_auc(faces, others) == pytest.approx(above)


@pytest.mark.parametrize("faces", [[], [np.nan], [np.inf, 1.0]])
def test_an_auc_of_nothing_gets_a_sentence(faces):
    with pytest.raises(P2FError, match="finite confidences"):
        face_auc(faces, [0.1])
    with pytest.raises(P2FError, match="finite confidences"):
        face_auc([0.1], faces)


def test_faceless_views_lie_in_their_pictures_and_off_every_head():
    names = ("camera", "coffee", "grace_hopper")
    views = faceless_views(3, 60, names)
    for number, (image, box) in enumerate(views):
        height, width = image.shape[:2]
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert 0 <= box.left < box.right <= width
        assert 0 <= box.top < box.bottom <= height
        assert 48 <= box.width <= 0.9 * min(height, width)
        head = robustness.HEADS.get(names[number % 3])
        if head is not None:
            inside = np.zeros((height, width), bool)
            inside[int(head.top) : int(head.bottom), int(head.left) : int(head.right)] = True
            y, x = np.mgrid[:height, :width]
            ours = (x > box.left) & (x < box.right) & (y > box.top) & (y < box.bottom)
            assert not (inside & ours).any()
    assert [box for _, box in views] == [box for _, box in faceless_views(3, 60, names)]
    assert [box for _, box in views] != [box for _, box in faceless_views(4, 60, names)]


def test_no_training_has_seen_what_is_quoted_as_new():
    assert set(NEVER_SEEN) < set(FACELESS)
    assert not set(NEVER_SEEN) & set(PICTURES)


def test_boxes_are_misplaced_a_little():
    points = np.random.default_rng(1).uniform(20, 80, (200, 68, 2))
    boxes = jittered_boxes(5, points)
    assert boxes == jittered_boxes(5, points)
    sizes = np.array([box.width for box in boxes]) / np.ptp(points[..., 0], axis=1)
    assert 0.85 < sizes.min() < 0.9
    assert 1.1 < sizes.max() < 1.17
    shift = np.array([box.center for box in boxes]) - (points.min(1) + points.max(1)) / 2
    assert 3 < np.abs(shift).max() < 0.081 * 60


def test_unseen_boxes_have_no_confidence():
    """The second person is missed, one of two things is taken for a face."""
    known = {10: 0.9, 20: None, 30: 0.5, 40: None}

    def reconstruct_many(images, boxes):
        found = [known[int(image.flat[0])] for image in images]
        return [None if c is None else SimpleNamespace(confidence=c) for c in found]

    samples = SimpleNamespace(
        images=np.array([[[[10] * 3]], [[[99] * 3]], [[[20] * 3]]], np.uint8),
        landmarks=np.random.default_rng(0).uniform(0, 50, (3, 68, 2)),
        is_face=np.array([True, False, True]),
    )
    things = [(np.full((9, 9, 3), value, np.uint8), BOX) for value in (30, 40)]
    found = confidences(SimpleNamespace(reconstruct_many=reconstruct_many), samples, things)
    # 0.9 beats both; 0 loses to 0.5 and ties with 0.
    assert face_auc(*found) == pytest.approx((2 + 0.5) / 4)


def test_maps_of_the_copies_are_true():
    image = picture()
    names = []
    for name, copy, change in changed_copies(image, BOX):
        names.append(name)
        if "quarter" in name:
            assert (copy != image).any()
            assert ((copy == 128).all(2) | (copy == image).all(2)).all()
            assert (copy == 128).all(2).sum() == 40 * 50
            continue
        expected = marks(image) @ change[:, :2].T + change[:, 2]
        np.testing.assert_allclose(marks(copy), expected, atol=0.3, err_msg=name)
    assert len(names) == len(set(names)) == 13
    assert image.shape[0] == 180


def test_turns_are_clockwise():
    (change,) = (c for name, _, c in changed_copies(picture(), BOX) if "+30" in name)
    right = change[:, :2] @ [1, 0]
    np.testing.assert_allclose(right, [np.cos(np.pi / 6), np.sin(np.pi / 6)], atol=1e-9)


def test_a_network_that_goes_along_has_no_error():
    network = Eyes()
    moves = equivariance(network, [(picture(), BOX)])
    assert len(moves) == 13
    for name, move in moves.items():
        assert move < 0.01 or "quarter" in name
    # The box goes along: about the same things, of the same size in them.
    doubled = next(b for b in network.boxes if b.width > 1.5 * BOX.width)
    np.testing.assert_allclose(doubled.as_tuple(), 2 * np.array(BOX.as_tuple()) + 0.5)
    assert network.boxes[:1] + network.boxes[7:] == [BOX] * 8  # itself, other tones, quarters
    turned = network.boxes[1]
    np.testing.assert_allclose(turned.as_tuple(), BOX.as_tuple())


def test_a_network_that_stays_has_the_change_as_its_error():
    spots = np.array([[75.0, 80.0], [125.0, 80.0]])
    moves = equivariance(Eyes(spots), [(picture(), BOX)])
    from_center = np.linalg.norm(spots - BOX.center, axis=1)
    chord = 2 * np.sin(np.radians(15)) * np.average(from_center, weights=[40, 28]) / 50
    assert moves["turned by +30 degrees"] == pytest.approx(chord)
    assert moves["gamma 2"] == 0


def test_a_lost_face_is_told():
    moves = equivariance(Eyes(blind_at=(90, 110, 3)), [(picture(), BOX)])
    assert moves.pop("0.5 times the size") == np.inf
    assert np.isfinite(list(moves.values())).all()
    nowhere = equivariance(Eyes(blind_at=(180, 220, 3)), [(picture(), BOX)])
    assert np.isinf(list(nowhere.values())).all()


def test_portraits_hold_their_boxes():
    for image, box in portraits():
        assert 0 < box.left < box.right < image.shape[1]
        assert 0 < box.top < box.bottom < image.shape[0]
