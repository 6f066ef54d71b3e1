"""300W-LP: numbers, geometry and targets against folders written without the code under test."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.io import savemat

from p2f_lib.camera import FRONTAL
from p2f_lib.crop import Box, Crop
from p2f_lib.datasets import fitted_mat
from p2f_lib.datasets.fitted_mat import (
    angles_from_rotation,
    camera_matrices,
    head_rotations,
    read_mat,
)
from p2f_lib.datasets.jitter import Jitter, jitter_batch
from p2f_lib.datasets.w300lp import (
    SUBSETS,
    W300LP,
    W300LPTable,
    describe_300wlp,
    index_300wlp,
    read_300wlp,
    render_targets,
)
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import offset_statistics
from p2f_lib.images import read_image, write_image
from tests.miniatures import basel_toy, matlab_rotation, write_300wlp, write_face
from tests.toy import toy_model


@pytest.fixture(scope="module")
def model():
    return basel_toy()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """(root, what was written); never changed."""
    root = tmp_path_factory.mktemp("300W_LP")
    return root, write_300wlp(root, model)


@pytest.fixture(scope="module")
def table(folder):
    return read_300wlp(folder[0], progress=False)


# --- numbers ---


def test_fields_are_what_was_written(folder):
    for written in folder[1]:
        face = read_mat(written.path)
        assert (face.shape.dtype, face.expression.dtype) == (np.float32, np.float32)
        np.testing.assert_array_equal(face.shape, written.shape.astype(np.float32))
        np.testing.assert_array_equal(face.expression, written.expression.astype(np.float32))
        np.testing.assert_array_equal(face.pose, written.pose)
        assert face.roi.tolist() == [12, 30, 461, 479]
        assert face.landmarks is None


def test_a_point_is_missing_when_both_of_its_coordinates_are_minus_1(model, tmp_path):
    points = np.full((2, 68), 100.0)
    points[:, 3], points[0, 4] = -1, -1
    written = write_face(tmp_path, "a", model, (0, 0, 0), pt2d=points)
    found = read_mat(written.path).points
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [3]
    assert found[4].tolist() == [-2, 99]


def test_files_without_compression_and_without_roi(model, tmp_path):
    written = write_face(tmp_path, "a", model, (0, 0, 0), roi=None)
    assert read_mat(written.path).roi is None
    fields = {"Shape_Para": (199, 1), "Exp_Para": (29, 1), "pt2d": (2, 68)}
    plain = {name: np.ones(shape) for name, shape in fields.items()}
    savemat(tmp_path / "b.mat", plain | {"Pose_Para": np.ones((1, 7))}, do_compression=False)
    assert read_mat(tmp_path / "b.mat").shape.tolist() == [1] * 199


# --- geometry ---


def test_landmarks_are_reprojected(model, folder, table):
    vertices = model.landmarks["ibug68"]
    for row, written in enumerate(folder[1]):
        mesh = model.vertices(table.shape[row], table.expression[row])
        found = table.camera(row).project(mesh)
        assert np.abs(found - (written.points[:, :2] - 1)).max() < 0.01
        assert np.abs(found[vertices] - table.landmarks[row]).max() < 0.01
    assert np.abs(table.yaw).max() > 60


def test_depth_is_the_negative_z_of_the_files(model, folder, table):
    mesh = model.vertices(table.shape[1], table.expression[1])
    depth, z = table.camera(1).depth(mesh), folder[1][1].points[:, 2]
    assert np.ptp(depth + z) < 0.01  # 1 pixel is 1 mm here


def test_rotations_are_the_matrices_of_the_format():
    pose = np.random.default_rng(0).uniform(-2, 2, (50, 7))
    expected = [matlab_rotation(*row[:3]) for row in pose]
    np.testing.assert_allclose(head_rotations(pose), expected, atol=1e-14)
    np.testing.assert_allclose(head_rotations(pose.reshape(5, 10, 7))[2, 3], expected[23])


def test_angles_are_recovered():
    rng = np.random.default_rng(1)
    degrees = rng.uniform((-60, -99, -80), (60, 99, 80), (500, 3))  # pitch, yaw, roll
    pose = np.concatenate([np.radians(degrees), np.zeros((500, 4))], axis=1)
    found = angles_from_rotation(FRONTAL @ head_rotations(pose))
    np.testing.assert_allclose(found, degrees[:, [1, 0, 2]], atol=1e-9)


@pytest.mark.parametrize("yaw", [-90.0, 90.0])
def test_angles_of_a_locked_rotation_make_that_rotation(yaw):
    rotation = FRONTAL @ matlab_rotation(*np.radians((20, yaw, 30)))
    found_yaw, pitch, roll = np.radians(angles_from_rotation(rotation))
    made = FRONTAL @ matlab_rotation(pitch, found_yaw, roll)
    np.testing.assert_allclose(made, rotation, atol=1e-12)
    assert np.degrees(found_yaw) == pytest.approx(yaw)


@pytest.mark.parametrize(
    ("angles", "ours"),
    [((20, 0, 0), (0, 20, 0)), ((0, 20, 0), (-20, 0, 0)), ((0, 0, 20), (0, 0, 20))],
)
def test_signs_of_single_turns(model, tmp_path, angles, ours):
    """Files and project agree on pitch and roll; yaw has the other sign."""
    face = read_mat(write_face(tmp_path, "a", model, angles).path)
    pose = face.camera.pose
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx(ours, abs=1e-5)
    assert face.angles == pytest.approx((angles[1], angles[0], angles[2]), abs=1e-5)
    assert face.camera.scale == pytest.approx(1.0)


def test_cameras_are_scaled_rotations():
    rng = np.random.default_rng(2)
    pose = np.column_stack(
        [rng.uniform(-1, 1, (20, 3)), rng.uniform(100, 300, (20, 3)), np.full(20, 9e-4)]
    )
    linear = camera_matrices(pose)[:, :, :3]
    np.testing.assert_allclose(
        linear @ linear.transpose(0, 2, 1), 0.81 * np.tile(np.eye(2), (20, 1, 1)), atol=1e-12
    )


# --- folders ---


def test_index_is_sorted_and_reports_what_it_leaves_out(model, tmp_path):
    write_300wlp(tmp_path, model)
    write_face(tmp_path / "Code", "not_data", model, (0, 0, 0))
    write_face(tmp_path / "landmarks" / "AFW", "AFW_1_1_0_pts", model, (0, 0, 0))
    (tmp_path / "AFW" / "alone.jpg").touch()
    (tmp_path / "LFPW" / "alone.mat").touch()
    (tmp_path / "LFPW" / "folder.mat").mkdir()
    index = index_300wlp(tmp_path)
    assert index.stems == (
        *("AFW/AFW_1_1_0", "AFW/AFW_2_1_7", "AFW_Flip/AFW_1_1_0", "AFW_Flip/AFW_2_1_7"),
        *("LFPW/LFPW_image_test_0001_0", "LFPW/LFPW_image_test_0001_11"),
    )
    text = "\n".join(index.problems)
    assert len(index.problems) == 5 + 2  # folders, and the two alone
    assert all(f"no folder {name};" in text for name in SUBSETS if not (tmp_path / name).exists())
    assert "alone.jpg has no .mat" in text
    assert "alone.mat has no .jpg" in text


@pytest.mark.parametrize(
    "make", [lambda root: None, lambda root: (root / "AFW").mkdir(parents=True)]
)
def test_an_empty_folder_says_where_the_data_come_from(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(P2FError, match=r"holds no pictures of 300W-LP.*research.*cbsr"):
        index_300wlp(tmp_path / "x")


def test_damaged_files_do_not_stop_the_others(model, tmp_path):
    written = write_300wlp(tmp_path, model)
    written[1].path.write_bytes(written[1].path.read_bytes()[:2000])
    write_face(tmp_path / "LFPW", "aflw", model, (0, 0, 0), kind="aflw2000")
    write_face(tmp_path / "LFPW", "gap", model, (0, 0, 0), missing=(9,))
    table = read_300wlp(tmp_path, progress=False)
    assert len(table) == 5
    assert "AFW/AFW_2_1_7" not in table.stems
    np.testing.assert_allclose(table.pose[1], written[2].pose)
    text = "\n".join(table.problems)
    assert "AFW_2_1_7.mat can't be read" in text
    assert "21 points, expected 68" in text
    assert "gap.mat has points without annotation" in text


def test_nothing_readable_is_an_error(model, tmp_path):
    write_face(tmp_path / "AFW", "a", model, (0, 0, 0), Exp_Para=None)
    with pytest.raises(P2FError, match=r"None of the 1 \.mat files.*no numbers called Exp_Para"):
        read_300wlp(tmp_path, progress=False)


# --- files that nobody vouches for ---


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.3, 0.6, 0.9, 0.999])
def test_truncated_files_get_a_sentence(folder, tmp_path, share):
    data = folder[1][0].path.read_bytes()
    (tmp_path / "cut.mat").write_bytes(data[: int(share * len(data))])
    with pytest.raises(P2FError, match=r"cut\.mat"):
        read_mat(tmp_path / "cut.mat")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Shape_Para": None}, "no numbers called Shape_Para"),
        ({"Shape_Para": np.zeros((1, 199))}, r"Shape_Para has the shape \(1, 199\), expected"),
        ({"Exp_Para": np.zeros((28, 1))}, r"Exp_Para has the shape \(28, 1\)"),
        ({"pt2d": np.zeros((2, 67))}, r"pt2d has the shape \(2, 67\), expected .* or "),
        ({"Pose_Para": np.full((1, 7), np.nan)}, "Pose_Para holds NaN"),
        ({"Shape_Para": np.full((199, 1), 1e300)}, "absurdly large"),
        ({"Pose_Para": np.zeros((1, 7))}, "a scale of 0"),
        ({"pt3d_68": np.zeros((2, 68))}, r"pt3d_68 has the shape \(2, 68\)"),
        ({"Shape_Para": np.zeros((199, 1), complex)}, "no numbers called Shape_Para"),
        ({"Shape_Para": "words"}, "no numbers called Shape_Para"),
        ({"Exp_Para": np.array([[1, "a"]], object)}, "no numbers called Exp_Para"),
        ({"roi": "words"}, "no numbers called roi"),
        ({"roi": {"a": 1}}, "roi is a structure"),
    ],
)
def test_alien_fields_get_a_sentence(model, tmp_path, changed, message):
    written = write_face(tmp_path, "a", model, (0, 0, 0), **changed)
    with pytest.raises(P2FError, match=message) as error:
        read_mat(written.path)
    assert str(written.path) in str(error.value)


def test_alien_and_missing_files_get_a_sentence(folder, tmp_path):
    contents = {
        "text": b"words\n" * 100,
        "random": np.random.default_rng(0).bytes(5000),
        "picture": folder[1][0].path.with_suffix(".jpg").read_bytes()[:60000],
        "hdf5": b"MATLAB 7.3 MAT-file".ljust(124)
        + b"\x00\x02IM"
        + b"\x89HDF\r\n\x1a\n"
        + bytes(500),
        "long": bytes(fitted_mat.MAX_BYTES + 1),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(P2FError, match=name):
            read_mat(tmp_path / name)
    with pytest.raises(P2FError, match="No such file"):
        read_mat(tmp_path / "none")
    with pytest.raises(P2FError, match="directory"):
        read_mat(tmp_path)


def test_flipped_bytes_give_a_face_or_a_sentence(model, tmp_path):
    fields = {
        "Shape_Para": np.ones((199, 1)),
        "Exp_Para": np.ones((29, 1)),
        "Pose_Para": np.ones((1, 7)),
        "pt2d": np.ones((2, 68)),
    }
    path, rng = tmp_path / "a.mat", np.random.default_rng(0)
    sentences = 0
    for compressed in (False, True):
        savemat(path, fields, do_compression=compressed)
        sound = np.frombuffer(path.read_bytes(), np.uint8)
        heads = np.concatenate([np.arange(128, 190), np.arange(1700, 1900)])  # of the fields
        for _ in range(300):
            bad = sound.copy()
            at = rng.choice(heads if rng.random() < 0.7 else len(bad), rng.integers(1, 4))
            bad[at % len(bad)] = rng.integers(0, 256, len(at))
            path.write_bytes(bad.tobytes())
            try:
                read_mat(path)
            except P2FError:
                sentences += 1
    assert sentences > 100


def test_a_small_file_cannot_claim_much_memory(tmp_path):
    savemat(tmp_path / "bomb.mat", {"Shape_Para": np.zeros(7_000_000)}, do_compression=True)
    assert (tmp_path / "bomb.mat").stat().st_size < fitted_mat.MAX_BYTES
    tracemalloc.start()
    with pytest.raises(P2FError, match="may unfold"):
        read_mat(tmp_path / "bomb.mat")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


# --- table ---


def test_a_table_survives_its_file(table, tmp_path):
    for name in ("a.npz", "b.npz"):
        table.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = W300LPTable.load(tmp_path / "a.npz")
    for name in ("stems", "shape", "expression", "pose", "landmarks", "problems"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
        assert getattr(again, name).dtype == getattr(table, name).dtype


def test_files_that_are_no_table(table, tmp_path):
    table.save(tmp_path / "whole.npz")
    columns = dict(np.load(tmp_path / "whole.npz"))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:3000])
    (tmp_path / "text.npz").write_text("words")
    np.savez(tmp_path / "object.npz", **columns | {"stems": np.array([object()] * 6)})
    np.savez(tmp_path / "short.npz", **columns | {"pose": columns["pose"][:-1]})
    np.savez(tmp_path / "kind.npz", **columns | {"stems": np.arange(6)})
    np.save(tmp_path / "array.npz", np.zeros(3))
    for name in ("cut", "text", "object", "short", "kind", "array", "none"):
        path = tmp_path / f"{name}.npz"
        if name == "array":
            (tmp_path / "array.npz.npy").rename(path)
        with pytest.raises(P2FError, match=name):
            W300LPTable.load(path)


# --- targets ---


def test_the_target_lies_on_the_face_of_the_picture(model, folder, table):
    """The picture was drawn by OpenCV from MATLAB's points; half a pixel off would show."""
    for row, written in enumerate(folder[1]):
        drawn = read_image(written.path.with_suffix(".jpg"))[..., 0] > 127
        valid = table.render(model, row).valid
        assert not (valid & ~drawn).any()  # OpenCV draws outlines too
        assert (drawn & ~valid).sum() < 1500  # its outline, one or two pixels wide
        box = Box.around(written.points[:, :2] - 1)
        rows, columns = np.nonzero(valid.any(1))[0], np.nonzero(valid.any(0))[0]
        sides = (columns[0], rows[0], columns[-1], rows[-1])
        gaps = np.array(sides) - box.as_tuple()
        assert (gaps * (1, 1, -1, -1) > -0.01).all()  # no pixel centre beyond the mesh
        assert np.abs(gaps).max() < 1.5


def test_targets_add_up_to_the_face(model, table):
    truth = table.render(model, 4)
    y, x = np.nonzero(truth.valid)
    surface = truth.pncc[truth.valid] + truth.offsets[truth.valid]
    found = table.camera(4).project(surface)
    assert np.abs(found - np.stack([x, y], 1)).max() < 0.01


@pytest.mark.parametrize("threads", [1, 3])
def test_many_targets_are_those_of_single_rows(model, table, threads):
    rows = [5, 0, 2, 2]
    many = list(render_targets(model, table, rows, threads=threads))
    assert len(many) == 4
    for row, (planes, valid) in zip(rows, many, strict=True):
        single = table.render(model, row)
        assert (valid != single.valid).mean() < 1e-4  # blending in batches rounds otherwise
        both = valid & single.valid
        np.testing.assert_allclose(planes[both][:, :3], single.pncc[both], atol=0.1)
        np.testing.assert_allclose(planes[both][:, 3:], single.offsets[both], atol=0.1)
        assert (planes[~valid] == 0).all()


def test_targets_of_crops_are_rendered_and_not_resampled(model, table):
    crop = Crop.around(Box.around(table.landmarks[0]), 64)
    ((planes, valid),) = render_targets(model, table, [0], 64, [crop])
    assert planes.shape == (64, 64, 6)
    surface = planes[valid][:, :3] + planes[valid][:, 3:]
    pixels = crop.points_from_picture(table.camera(0).project(surface))
    y, x = np.nonzero(valid)
    assert np.abs(pixels - np.stack([x, y], 1)).max() < 0.01
    with pytest.raises(P2FError, match="Got 1 crops for 2 rows"):
        render_targets(model, table, [0, 1], 64, [crop])


def test_another_face_model_is_refused(table):
    with pytest.raises(P2FError, match=r"199 of shape and 29.*has 5 and 4.*3ddfa"):
        table.render(toy_model(), 0)
    with pytest.raises(P2FError, match="3ddfa"):
        render_targets(toy_model(), table, [0])


# --- data set ---


def test_samples(model, folder, table):
    data = W300LP(folder[0], table)
    assert len(data) == 6
    batch = data.__getitems__([2, 0])
    picture = read_image(folder[1][0].path.with_suffix(".jpg"))
    np.testing.assert_array_equal(batch.images[1], picture)
    np.testing.assert_array_equal(batch.shape, table.shape[[2, 0]])
    np.testing.assert_array_equal(batch.expression, table.expression[[2, 0]])
    np.testing.assert_array_equal(batch.landmarks, table.landmarks[[2, 0]])
    np.testing.assert_array_equal(batch.cameras[0].matrix, table.camera(2).matrix)
    assert batch.is_face.all()
    assert (batch.targets(model)[1][1] == table.render(model, 0).valid).mean() > 0.9999


def test_the_network_trains_on_it(model, folder, table):
    """Random crops of pictures and targets agree: the picture is white exactly on the face."""
    jitter = Jitter(gamma=0.0, gain=0.0)
    batch = W300LP(folder[0], table).__getitems__([0, 1, 4])
    generator = torch.Generator().manual_seed(0)
    images, _, valid = jitter_batch(model, batch, jitter, 96, generator)
    assert ((images.mean(1) > 127) != valid).float().mean() < 0.03


def test_pictures_of_another_size_and_missing_ones(model, tmp_path):
    write_face(tmp_path / "AFW", "a", model, (0, 0, 0))
    data = W300LP(tmp_path, read_300wlp(tmp_path, progress=False))
    write_image(tmp_path / "AFW" / "a.jpg", np.zeros((300, 450, 3), np.uint8))
    with pytest.raises(P2FError, match=r"a\.jpg has 450 x 300 pixels, expected 450 x 450"):
        data.image(0)
    (tmp_path / "AFW" / "a.jpg").unlink()
    with pytest.raises(P2FError, match=r"no file .*a\.jpg"):
        data.__getitems__([0])


def test_description(model, folder, table):
    described = describe_300wlp(W300LP(folder[0], table), model, n_samples=2, n_statistics=100)
    assert described.subsets == {"AFW": 2, "AFW_Flip": 2, "LFPW": 2}
    assert described.yaw_counts.tolist() == [2, 0, 0, 1, 0, 0, 0, 2, 1]
    assert described.images.shape == (2, 450, 450, 3)
    assert described.planes.shape == (2, 450, 450, 6)
    truth = table.render(model, described.rows[1])
    assert (described.valid[1] == truth.valid).mean() > 0.9999
    everything = [table.render(model, row) for row in range(6)]
    expected = offset_statistics(np.concatenate([t.offsets[t.valid] for t in everything]))
    assert described.offsets.rms == pytest.approx(expected.rms, rel=0.03)
    text = described.text()
    assert "6 pictures: AFW 2, AFW_Flip 2, LFPW 2" in text
    assert "70-80: 2" in text
    again = describe_300wlp(W300LP(folder[0], table), model, n_samples=2, n_statistics=100)
    assert again.rows.tolist() == described.rows.tolist()
