"""Groups of people: what differs between them, what doesn't, and what is counted."""

import csv
from itertools import pairwise

import numpy as np
import pytest

from p2f_lib import figures, groups
from p2f_lib.crop import Box
from p2f_lib.detection import Detection
from p2f_lib.errors import P2FError
from p2f_lib.synthesis.samples import render_draw
from p2f_lib.synthesis.skin import skin_albedo
from p2f_lib.tables import write_table
from tests.test_ablation import changed
from tests.toy import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def shapes(model):
    return np.random.default_rng(0).normal(0, 0.5, (10, model.n_shape)) * model.shape_sigma


class Fake:
    """A reconstructor that is wrong by 3 pixels and 2 mm, and blind where it is too dark."""

    def __init__(self, model, samples=()):
        self.model, self.samples = model, samples  # a list that still grows

    def reconstruct_many(self, images, boxes):
        return [self._face(image, box) for image, box in zip(images, boxes, strict=True)]

    def _face(self, image, box):
        sample = next(s for s in self.samples if s.image is image)
        if image.mean() < 60:
            return None
        face = type("Face", (), {})()
        face.landmarks = lambda markup: sample.landmarks + np.array([3.0, 0.0])
        face.vertices = self.model.vertices(sample.shape, sample.expression) + np.array([0, 2, 0])
        return face


def test_tones_and_yaws_change_nothing_else(model, shapes):
    draw = groups.person(model, shapes[0], 0)
    photos = list(groups.photos_of(draw))
    assert [(kind, group) for kind, group, _ in photos] == [
        (kind, group) for kind in ("skin tone", "yaw") for group in groups.KINDS[kind]
    ]
    for kind, group, photo in photos:
        allowed = {"appearance.skin", "appearance.lips"} if kind == "skin tone" else {"view.yaw"}
        assert changed(draw, photo) <= allowed
        if kind == "skin tone":
            assert np.array_equal(photo.appearance.skin, skin_albedo(groups.TONES[group], 0.0))
            ratio = photo.appearance.lips / photo.appearance.skin
            assert np.allclose(ratio, draw.appearance.lips / draw.appearance.skin)
        else:
            assert abs(photo.view.yaw) == groups.YAWS[group]
            assert photo.view.yaw * draw.view.yaw >= 0


def test_people_have_the_ages_of_their_groups():
    ages, spans = groups.ages_of(50), list(groups.AGES.values())
    for i, age in enumerate(ages):
        assert spans[i % 5].youngest <= age <= spans[i % 5].eldest
    assert np.array_equal(ages[:20], groups.ages_of(20))
    assert all(a.eldest < b.youngest for a, b in pairwise(spans))


def test_elders_look_older_than_children(model, shapes):
    looks = [groups.person(model, shapes[0], i).appearance for i in range(200)]
    children, elders = looks[1::5], looks[4::5]
    assert np.mean([look.wrinkles for look in children]) < 0.02
    assert np.mean([look.wrinkles for look in elders]) > 0.1


def test_measured_by_hand(model, shapes, monkeypatch):
    rendered = []

    def kept(model, draw, canvas):
        sample = render_draw(model, draw, canvas, 1)
        rendered.append(sample)
        return sample

    monkeypatch.setattr(groups, "render_draw", kept)
    fake = Fake(model, rendered)
    boxes = {}

    def detector(image):  # right where the picture is bright, else somewhere else
        sample = next(s for s in rendered if s.image is image)
        box = Box.around(sample.landmarks.astype(float))
        boxes[id(sample)] = image.mean() > 110
        away = Box(box.left + 90, box.top, box.right + 90, box.bottom)
        return [Detection(box if boxes[id(sample)] else away, 1.0)]

    rows = groups.measure(fake, detector, shapes, canvas=64, progress=False)
    assert [(row.kind, row.group) for row in rows] == [
        (kind, group) for kind, names in groups.KINDS.items() for group in names
    ]
    assert len(rendered) == len(shapes) * 10
    by_photo = []
    for sample in rendered:
        box = Box.around(sample.landmarks.astype(float))
        error = 3.0 / np.sqrt(box.width * box.height) if sample.image.mean() >= 60 else 1.0
        by_photo.append((error, sample.image.mean() > 110))
    table = np.array(by_photo).reshape(len(shapes), 10, 2)
    names = [*groups.TONES, *groups.YAWS]
    for row in rows:
        if row.kind == "age":
            part = table[list(groups.AGES).index(row.group) :: 5, :6].reshape(-1, 2)
            assert (row.people, row.photos) == (2, 12)
        else:
            part = table[:, names.index(row.group)]
            assert (row.people, row.photos) == (10, 10)
        assert row.landmarks == pytest.approx(part[:, 0].mean(), rel=1e-5)
        assert row.detected == pytest.approx(part[:, 1].mean())
        assert row.mesh == pytest.approx(2.0, abs=1e-4) or np.isnan(row.mesh)
        assert row.low <= row.landmarks <= row.high or np.isnan(row.low)


def test_too_few_people(model, shapes):
    with pytest.raises(P2FError, match="need 5 people or more, got 3"):
        groups.measure(Fake(model), lambda image: [], shapes[:3], progress=False)


def test_table_and_figure(model, shapes, tmp_path):
    rows = [
        groups.GroupErrors(kind, group, 10, 10, 0.02, 0.01, 0.0312345, 3.0, 0.5)
        for kind, names in groups.KINDS.items()
        for group in names
    ]
    write_table(tmp_path / "new" / "groups.csv", rows)
    with (tmp_path / "new" / "groups.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [(row["kind"], row["group"]) for row in read] == [(r.kind, r.group) for r in rows]
    assert read[0]["high"] == "0.03123"
    pictures = groups.examples(model, shapes, canvas=48)
    assert set(pictures) == {(row.kind, row.group) for row in rows}
    tones = [pictures["skin tone", group] for group in groups.TONES]
    assert all((a != b).any() for a, b in pairwise(tones))
    figure = figures.groups(rows, pictures)
    assert len(figure.axes) == 6
    bars = figure.axes[3].lines[0].get_ydata()
    assert np.allclose(bars, 2.0)
