"""AFLW2000-3D: the reader, and its two protocols against values worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from p2f_lib import cli
from p2f_lib.camera import AffineCamera
from p2f_lib.crop import Box
from p2f_lib.datasets import aflw2000_published as published
from p2f_lib.datasets.aflw2000 import (
    Predictions,
    evaluate,
    landmark_box,
    pose_crop,
    predict,
    read_aflw2000,
    report,
)
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.evaluation import errors_by_yaw, pose_errors
from p2f_lib.images import write_image
from p2f_lib.reconstruction import Reconstructor
from tests.miniatures import basel_toy, matlab_rotation, write_aflw2000, write_face


@pytest.fixture(scope="module")
def model():
    return basel_toy()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """(root, what was written); never changed."""
    root = tmp_path_factory.mktemp("AFLW2000")
    return root, write_aflw2000(root, model)


@pytest.fixture(scope="module")
def photos(folder):
    return read_aflw2000(folder[0]).photos


class Oracle:
    """Sees the truth of each photo in the order of the calls; None stands for no face."""

    crop_scale = 1.4

    def __init__(self, photos, blind=(), shift=(0.0, 0.0)):
        self.photos, self.blind, self.shift = photos, blind, np.array(shift)
        self.boxes = []

    def reconstruct(self, image, box):
        photo = self.photos[len(self.boxes)]
        self.boxes.append(box)
        if len(self.boxes) - 1 in self.blind:
            raise NoFaceError("The network sees no face.")
        assert image.shape == (450, 450, 3)
        return SimpleNamespace(
            landmarks=lambda markup: {"ibug68": photo.landmarks + self.shift}[markup],
            affine=photo.face.camera,
        )


# --- reader ---


def test_fields_are_what_was_written(folder, photos, model):
    vertices = model.landmarks["ibug68"]
    assert [photo.path.name for photo in photos] == [f"image{n:05d}.jpg" for n in range(2, 11, 2)]
    for photo, written in zip(photos, folder[1], strict=True):
        np.testing.assert_array_equal(photo.face.pose, written.pose)
        marks = written.points[vertices]
        np.testing.assert_allclose(photo.landmarks, marks[:, :2] - 1, atol=1e-4)
        np.testing.assert_allclose(photo.face.landmarks[:, 2], marks[:, 2], atol=1e-4)
        assert photo.face.points.shape == (21, 2)


def test_missing_points_are_nan_and_the_others_stay(photos):
    gone = np.isnan(photos[1].face.points).any(axis=1)
    assert np.flatnonzero(gone).tolist() == [0, 5, 20]
    np.testing.assert_allclose(
        photos[1].face.points[~gone], photos[1].landmarks[:63:3][~gone], atol=1e-4
    )
    assert not any(np.isnan(photo.face.points).any() for k, photo in enumerate(photos) if k != 1)


def test_landmarks_are_reprojected(photos, model):
    for photo in photos:
        mesh = model.vertices(photo.face.shape, photo.face.expression)
        found = photo.face.camera.project(mesh[model.landmarks["ibug68"]])
        assert np.abs(found - photo.landmarks).max() < 0.01
    assert max(abs(photo.face.angles[0]) for photo in photos) > 60


def test_damaged_and_lonely_files_become_sentences(model, tmp_path):
    written = write_aflw2000(tmp_path, model)
    written[0].path.write_bytes(written[0].path.read_bytes()[:1500])
    written[1].path.with_suffix(".jpg").unlink()
    write_face(tmp_path, "image90001", model, (0, 0, 0))  # 300W-LP's fields
    write_face(tmp_path / "Code", "a", model, (0, 0, 0), kind="aflw2000")
    data = read_aflw2000(tmp_path)
    assert len(data.photos) == 3
    text = "\n".join(data.problems)
    assert "image00002.mat can't be read" in text
    assert "image00004.mat has no .jpg" in text
    assert "image90001.mat lacks the field pt3d_68" in text


def test_other_folders_get_a_sentence(model, tmp_path):
    with pytest.raises(P2FError, match=r"holds no pictures of AFLW2000-3D.*research"):
        read_aflw2000(tmp_path / "none")
    write_face(tmp_path, "a", model, (0, 0, 0), kind="aflw2000", pt3d_68=np.full((3, 68), np.nan))
    with pytest.raises(P2FError, match="pt3d_68 holds NaN"):
        read_aflw2000(tmp_path)


# --- boxes ---


def test_pose_crop_by_hand(photos):
    points = np.full((21, 2), np.nan)
    points[3], points[7], points[9] = (100, 50), (200, 150), (120, 90)
    photo = SimpleNamespace(path="a.jpg", face=SimpleNamespace(points=points))
    # each side grows by what the box has become
    assert pose_crop(photo).as_tuple() == pytest.approx((60, 10, 200 + 56, 150 + 0.12 * 140))
    points[7] = points[9] = np.nan
    with pytest.raises(P2FError, match=r"a\.jpg has too few"):
        pose_crop(photo)
    assert landmark_box(photos[0]) == Box.around(photos[0].landmarks)


def test_the_network_first_sees_the_pose_crop_itself(photos):
    oracle = Oracle(photos)
    predict(oracle, photos, "pose")
    for photo, box in zip(photos, oracle.boxes, strict=True):
        crop = pose_crop(photo)
        assert oracle.crop_scale * box.width == pytest.approx(crop.width)
        assert box.center == pytest.approx(crop.center)
    with pytest.raises(P2FError, match="Unknown box"):
        predict(oracle, photos, "roi")


# --- 68 points by yaw ---


def test_errors_by_yaw_by_hand():
    yaw = np.array([0, 30, -30, 30.001, -60, 61, 95, 10])
    errors = np.array([1, 2, 3, 4, 6, 8, 12, np.inf])
    found = errors_by_yaw(errors, yaw)
    assert found.bins == (2, 5, 10)
    assert found.mean_of_bins == pytest.approx(17 / 3)
    assert found.mean == pytest.approx(36 / 7)
    assert found.counts == (4, 2, 2)
    assert found.missing == (1, 0, 0)


def test_published_means_of_pictures_follow_from_their_bins():
    """HGFPN's 2.71 is the mean over the pictures of its bins."""
    counts = (1312, 383, 305)
    yaw = np.repeat([15, 45, 75], counts)
    found = errors_by_yaw(np.repeat([2.29, 2.90, 4.32], counts), yaw)
    assert found.mean == pytest.approx(2.71, abs=0.01)
    assert found.mean_of_bins == pytest.approx(3.17, abs=0.01)


def test_an_empty_bin_has_no_mean():
    found = errors_by_yaw(np.array([1.0, np.nan]), np.array([0, 80]))
    assert found.bins[0] == 1
    assert np.isnan(found.bins[1:]).all()
    assert np.isnan(found.mean_of_bins)
    assert (found.mean, found.missing) == (1, (0, 0, 1))


def test_errors_and_angles_must_agree():
    with pytest.raises(P2FError, match="3 errors and 2 angles"):
        errors_by_yaw(np.ones(3), np.zeros(2))
    with pytest.raises(P2FError, match="2 errors and 1 angles"):
        errors_by_yaw(np.ones(2), np.array([0, np.nan]))


# --- head pose ---


def test_pose_errors_by_hand():
    truth = np.array([[0, 0, 0], [10, 20, 30], [-99, 0, 99], [99.5, 0, 0], [0, -120, 0], [1, 1, 1]])
    predicted = np.array([[1, 2, 3], [-3, 0, 3], [2, 4, -6], [50, 50, 50], [9, 9, 9], [np.nan] * 3])
    predicted += truth
    found = pose_errors(predicted, truth)
    assert (found.yaw, found.pitch, found.roll) == pytest.approx((2, 2, 4))
    assert found.mean == pytest.approx(8 / 3)
    assert found.bias == pytest.approx((0, 2, 0))
    assert (found.n_frames, found.n_missing, found.n_left_out) == (4, 1, 2)


def test_pose_differences_go_around_the_circle():
    found = pose_errors(np.array([[-175.0, 0, 359]]), np.array([[95.0, 0, 0]]))
    assert (found.yaw, found.roll) == pytest.approx((90, 1))


def test_pose_needs_finite_truth():
    with pytest.raises(P2FError, match="finite"):
        pose_errors(np.zeros((2, 3)), np.full((2, 3), np.nan))
    with pytest.raises(P2FError, match="rows of yaw"):
        pose_errors(np.zeros((2, 2)), np.zeros((2, 2)))


# --- all together ---


def test_the_truth_has_no_error(photos):
    result = evaluate(predict(Oracle(photos), photos), photos)
    assert result.landmarks.bins == pytest.approx((0, 0, 0), abs=1e-12)
    assert result.landmarks.counts == (1, 1, 3)
    assert result.pose.mean < 1e-9
    assert (result.pose.n_frames, result.pose.n_left_out) == (4, 1)  # -93 counts, -104 does not


def test_angles_are_those_of_the_rotation_and_not_of_the_file(photos):
    """A camera that was never a Pose_Para, known as a rotation only."""
    angles = np.radians((7, -40, 12))  # pitch, yaw, roll
    rotation = np.diag([1, -1, -1]) @ matlab_rotation(*angles)
    camera = AffineCamera(np.column_stack([0.7 * rotation[:2], [200, 210]]))
    photo = SimpleNamespace(
        path=photos[0].path,
        landmarks=photos[0].landmarks,
        face=SimpleNamespace(camera=camera, points=photos[0].face.points),
    )
    found = predict(Oracle([photo]), [photo])
    assert found.angles[0] == pytest.approx((-40, 7, 12))


def test_nme_of_a_shift_is_known(photos):
    predictions = predict(Oracle(photos, shift=(3, 4)), photos)
    result = evaluate(predictions, photos)
    expected = []
    for photo in photos:
        (left, top), (right, bottom) = photo.landmarks.min(0), photo.landmarks.max(0)
        expected.append(5 / np.sqrt((right - left) * (bottom - top)))
    bins = (expected[0], expected[1], np.mean(expected[2:]))
    assert result.landmarks.bins == pytest.approx(bins)
    assert result.landmarks.mean_of_bins == pytest.approx(np.mean(bins))
    assert result.landmarks.mean == pytest.approx(np.mean(expected))


def test_pictures_without_a_prediction_are_counted(photos, tmp_path, model):
    written = write_aflw2000(tmp_path, model)
    written[3].path.with_suffix(".jpg").write_text("words")
    mine = read_aflw2000(tmp_path).photos
    seeing = Oracle([mine[k] for k in (0, 1, 2, 4)], blind=(1,))
    found = predict(seeing, mine)
    assert np.isnan(found.landmarks).all(axis=(1, 2)).tolist() == [False, True, False, True, False]
    assert [("image00004" in found.problems[0]), ("image00008" in found.problems[1])] == [True] * 2
    result = evaluate(found, mine)
    assert result.landmarks.missing == (0, 1, 1)
    assert result.landmarks.mean == pytest.approx(0)
    assert (result.pose.n_frames, result.pose.n_missing) == (4, 2)
    assert "no face in 2 (0 / 1 / 1)" in report(result)


def test_nothing_found_is_a_table_too(photos):
    n = len(photos)
    nothing = Predictions(np.full((n, 68, 2), np.nan), np.full((n, 3), np.nan), ())
    text = report(evaluate(nothing, photos))
    assert "no face in 5 (1 / 1 / 3)" in text
    with pytest.raises(P2FError, match="one shape"):
        evaluate(nothing, photos[:-1])


# --- published rows ---


def test_published_rows_agree_with_themselves():
    for row in published.LANDMARKS:
        *bins, of_bins, of_photos = row.values
        if None not in bins and of_bins is not None:
            assert np.mean(bins) == pytest.approx(of_bins, abs=0.011), row.method
        assert of_bins is not None or of_photos is not None
    for row in published.POSE:
        assert np.mean(row.values[:3]) == pytest.approx(row.values[3], abs=0.07), row.method
    for rows in (published.LANDMARKS, published.POSE):
        assert len({row.method for row in rows}) == len(rows)
        assert all(row.source for row in rows)


# --- command ---


def test_command(capsys, monkeypatch, folder, photos):
    oracle = Oracle(photos, blind=(2,))
    monkeypatch.setattr(Reconstructor, "from_pretrained", classmethod(lambda cls, *_, **__: oracle))
    assert cli.main(["evaluate-aflw2000", str(folder[0])]) == 0
    out, err = capsys.readouterr()
    assert "image00006.jpg: The network sees no face." in err
    lines = out.splitlines()
    assert [line.split() for line in lines if line.startswith("this run")] == [
        ["this", "run", "0.00", "0.00", "0.00", "0.00", "0.00"],
        ["this", "run", "0.00", "0.00", "0.00", "0.00"],
    ]
    assert any(line.split() == ["SynergyNet", "2.65", "3.30", "4.27", "3.41"] for line in lines)
    assert any(line.split() == ["SynergyNet", "3.42", "4.09", "2.55", "3.35"] for line in lines)
    assert max(map(len, lines)) <= 100


def test_command_says_what_is_wrong(capsys, tmp_path):
    write_image(tmp_path / "a.jpg", np.zeros((450, 450, 3), np.uint8))
    assert cli.main(["evaluate-aflw2000", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("p2f: ")
    assert "a.jpg has no .mat" in err
    assert "Traceback" not in err
