"""Annotated photographs in the layouts of the challenge's static set and of 300-W."""

import shutil

import numpy as np
import pytest

from p2f_lib.clip_evaluation import THIS_RUN, Network, evaluate_clip
from p2f_lib.datasets.clip_sources import ClipSource
from p2f_lib.datasets.landmark_files import write_ljson, write_pts
from p2f_lib.datasets.menpo_static import read_set, set_names
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.images import write_image
from tests.toy import toy_model

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(5, 60, (3, 84, 2)).round(3)
SPACE = RNG.normal(scale=20, size=(3, 84, 3)).round(3)
SPACE[:, 52], SPACE[:, 61] = (-45, 30, 50), (45, 31, 50)
STEMS = ("2081342788_1", "a.b", "z")


def picture(path, grey=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((64, 80, 3), grey, np.uint8))


@pytest.fixture
def challenge(tmp_path):
    """Two sets: of the challenge's folders, and with a file beside each picture."""
    folder = tmp_path / "Menpo_Challenge"
    for stem, points, space in zip(STEMS, POINTS, SPACE, strict=True):
        picture(folder / "semifrontal" / f"{stem}.jpg")
        for name, values in (("projected_image_space", points), ("model_space", space)):
            (folder / name).mkdir(exist_ok=True)
            write_ljson(folder / name / f"{stem}.ljson", values)
    picture(tmp_path / "afw" / "1.png")
    write_pts(tmp_path / "afw" / "1.pts", POINTS[0, :68])
    picture(tmp_path / "afw" / "nobody.png")  # without annotation
    return tmp_path


def test_both_layouts(challenge):
    assert set_names(challenge) == ["Menpo_Challenge", "afw"]
    menpo = read_set(challenge, "Menpo_Challenge")
    assert menpo.frames == tuple(sorted(STEMS))
    order = np.argsort(STEMS)
    np.testing.assert_array_equal(menpo.projected, POINTS[order])
    np.testing.assert_array_equal(menpo.model, SPACE[order])
    assert [image.shape for image in menpo] == [(64, 80, 3)] * 3
    afw = read_set(challenge, "afw")
    assert (afw.frames, afw.model, afw.problems) == (("1",), None, ())
    np.testing.assert_allclose(afw.projected, POINTS[:1, :68], atol=1e-3)
    assert set_names(challenge / "afw") == ["."]
    assert ClipSource("menpo-static", challenge).names() == ["Menpo_Challenge", "afw"]


def test_a_part_keeps_rows_together(challenge):
    menpo = read_set(challenge, "Menpo_Challenge")
    part = menpo.take([2, 0])
    assert part.frames == (menpo.frames[2], menpo.frames[0])
    np.testing.assert_array_equal(part.projected, menpo.projected[[2, 0]])
    np.testing.assert_array_equal(part.model, menpo.model[[2, 0]])


def test_broken_files_are_named_and_the_others_are_read(challenge):
    folder = challenge / "Menpo_Challenge"
    (folder / "projected_image_space" / "z.ljson").write_text("no json")
    (folder / "model_space" / "a.b.ljson").unlink()
    menpo = read_set(challenge, "Menpo_Challenge")
    assert menpo.frames == (STEMS[0],)
    assert len(menpo.problems) == 2
    picture(challenge / "afw" / "2.png")
    write_pts(challenge / "afw" / "2.pts", POINTS[0, :5])
    picture(challenge / "afw" / "3.png")
    write_ljson(challenge / "afw" / "3.ljson", POINTS[0])
    afw = read_set(challenge, "afw")
    assert afw.frames == ("1",)
    assert "must hold 68 or 84 points" in afw.problems[0]
    assert "holds 84 points, the files before it 68" in afw.problems[1]


def test_pictures_that_cannot_be_read_are_named(challenge):
    menpo = read_set(challenge, "Menpo_Challenge")
    menpo.paths[1].write_bytes(b"no picture")
    readable = menpo.readable()
    assert readable.frames == (menpo.frames[0], menpo.frames[2])
    (problem,) = readable.problems
    assert menpo.paths[1].name in problem
    for path in menpo.paths:
        path.write_bytes(b"no picture")
    with pytest.raises(P2FError, match="No picture of the set Menpo_Challenge can be read"):
        menpo.readable()


def test_missing_sets_get_a_sentence(challenge, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    for folder in (empty, empty / "none"):
        with pytest.raises(P2FError, match="holds no annotated photographs"):
            set_names(folder)
    for path in (challenge / "Menpo_Challenge/projected_image_space").iterdir():
        path.write_text("no json")
    with pytest.raises(P2FError, match="No picture of the set Menpo_Challenge can be used"):
        read_set(challenge, "Menpo_Challenge")
    shutil.rmtree(challenge / "Menpo_Challenge")
    with pytest.raises(P2FError, match=r"holds no annotated pictures"):
        read_set(challenge, "Menpo_Challenge")


class Blind:
    """A network that sees no face."""

    model = toy_model()

    def reconstruct(self, image, box):
        raise NoFaceError("nothing here")


def test_photographs_are_evaluated_one_by_one(challenge):
    blind = Network(Blind(), Blind.model.landmarks, Blind.model.landmarks)
    afw = read_set(challenge, "afw")
    run = evaluate_clip(afw, {THIS_RUN: blind}, lambda image: [])
    assert run.still
    assert run.frames == ("1",)
    assert run.truth.shape == (1, 68, 2)
    assert np.isnan(run.methods[THIS_RUN][0]).all()
    assert not run.detected.any()
