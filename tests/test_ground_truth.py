from dataclasses import replace

import numpy as np
import pytest

from p2f_lib import ground_truth as gt
from p2f_lib.camera import AffineCamera, pose_from_rotation
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import (
    CameraDistribution,
    CoefficientTable,
    SampleBatch,
    View,
    offset_statistics,
    place_camera,
    projection,
    render_crops,
    render_ground_truth,
    render_vertices,
    sample_coefficients,
    sample_table,
    sample_view,
)
from p2f_lib.synthesis import render_sample
from tests.toy import toy_model

SIZE = 64


@pytest.fixture(scope="module")
def model():
    return toy_model(800)


@pytest.fixture(scope="module")
def face(model):
    """(shape, expression, vertices, camera) of somebody who looks to the side."""
    shape, expression = np.array([1, -2, 0.5, 1, -1]), np.array([0.8, 0.5, 0, 1])
    vertices = model.vertices(shape, expression)
    view = View(35, 10, -5, 700, 0.42, 0.03, -0.02)
    camera = place_camera(view, vertices[model.landmarks["ibug68"]], SIZE)
    return shape, expression, vertices, camera


def arkit_model(model):
    """The toy with expression modes of every ARKit name and one of a PCA."""
    names = tuple(gt._CENTRAL) + tuple(
        name + side for name in gt._SIDED for side in ("Left", "Right")
    )
    names += tuple(
        f"eyeLook{way}{side}" for way in ("In", "Out", "Up", "Down") for side in ("Left", "Right")
    )
    names += ("tongueOut", "mode_7")
    count = len(names)
    return replace(
        model,
        expression_names=names,
        expression_basis=np.zeros((count, model.n_vertices, 3), np.float32),
        expression_sigma=np.full(count, 3.0, np.float32),
    )


@pytest.mark.parametrize("affine", [False, True])
def test_pncc_plus_offset_is_the_point_seen_there(model, face, affine):
    shape, expression, _, camera = face
    if affine:
        camera = camera.affine()
    truth = render_ground_truth(model, shape, expression, camera, SIZE, SIZE)
    rows, columns = np.nonzero(truth.valid)
    assert len(rows) > 400
    points = (truth.pncc + truth.offsets)[rows, columns]
    np.testing.assert_allclose(camera.project(points), np.stack([columns, rows], 1), atol=2e-3)


def test_pncc_lies_on_the_mean_face(model, face):
    shape, expression, _, camera = face
    truth = render_ground_truth(model, shape, expression, camera, SIZE, SIZE)
    corners = model.mean[model.triangles[truth.raster.triangle_id[truth.valid]]]
    expected = np.einsum("nk,nkc->nc", truth.raster.barycentric[truth.valid], corners)
    np.testing.assert_allclose(truth.pncc[truth.valid], expected, atol=1e-3)
    assert np.linalg.norm(truth.pncc[truth.valid], axis=1).min() > 30


def test_background_is_exactly_zero(model, face):
    shape, expression, _, camera = face
    truth = render_ground_truth(model, shape, expression, camera, SIZE, SIZE + 10)
    assert truth.pncc.shape == truth.offsets.shape == (SIZE, SIZE + 10, 3)
    assert truth.pncc.dtype == truth.offsets.dtype == np.float32
    assert truth.valid.dtype == bool
    assert 0.1 < truth.valid.mean() < 0.9
    assert not truth.pncc[~truth.valid].any()
    assert not truth.offsets[~truth.valid].any()
    assert (truth.pncc[truth.valid] != 0).any(axis=1).all()


def test_the_mean_face_has_no_offsets(model, face):
    truth = render_ground_truth(model, None, None, face[3], SIZE, SIZE)
    assert truth.valid.any()
    assert not truth.offsets.any()


def test_offsets_at_vertices_are_their_displacement(model, face):
    shape, expression, vertices, camera = face
    truth = render_ground_truth(model, shape, expression, camera.scaled(8, [0, 0]), 512, 512)
    pixels = camera.scaled(8, [0, 0]).project(vertices)
    x, y = np.rint(pixels).astype(int).T.clip(0, 511)
    here = truth.valid[y, x]
    here[here] = np.linalg.norm(truth.pncc[y, x][here] - model.mean[here], axis=1) < 1
    assert here.sum() > 200
    displacement = (vertices - model.mean)[here]
    assert np.abs(truth.offsets[y, x][here] - displacement).max() < 0.5


def test_render_vertices_wants_the_models_own_mesh(model, face):
    with pytest.raises(P2FError, match="vertices"):
        render_vertices(model, model.mean[:-1], face[3], 8, 8)


def test_moving_the_camera_is_cropping_the_picture(model, face):
    shape, expression, _, camera = face
    whole = render_ground_truth(model, shape, expression, camera, SIZE, SIZE)
    moved = camera.scaled(1, np.array([-10.0, -20.0]))
    part = render_ground_truth(model, shape, expression, moved, 30, 25)
    np.testing.assert_array_equal(part.valid, whole.valid[20:50, 10:35])
    np.testing.assert_allclose(part.pncc, whole.pncc[20:50, 10:35], atol=0.02)


# --------------------------------------------------------------------------------------- crops


WHOLE = np.array([[SIZE, 0, SIZE - 1], [0, SIZE, SIZE - 1]]) / 2  # the crop that is the picture


@pytest.fixture(scope="module")
def people(model):
    """(shape, expression, cameras) of six faces, every other camera affine."""
    table = sample_table(model, 4, 6, progress=False)
    cameras = []
    for row in range(6):
        vertices = model.vertices(table.shape[row], table.expression[row])
        camera = place_camera(table.view(row), vertices[model.landmarks["ibug68"]], SIZE)
        cameras.append(camera.affine() if row % 2 else camera)
    return table.shape, table.expression, tuple(cameras)


def turned(degrees, scale=0.6, x=30.0, y=33.0, mirror=False):
    """A crop of `scale` times the picture about (x, y), turned, and mirrored."""
    angle = np.deg2rad(degrees)
    cos, sin = (SIZE / 2 * scale * f(angle) for f in (np.cos, np.sin))
    sign = -1 if mirror else 1
    return np.array([[sign * cos, -sin, x], [sign * sin, cos, y]])


def crops(model, people, matrix, size=SIZE, **options):
    return render_crops(model, *people, np.stack([matrix] * len(people[2])), size, **options)


@pytest.mark.parametrize("affine", [False, True])
def test_projection_matrix_is_the_camera(model, face, affine):
    vertices, camera = face[2], face[3].affine() if affine else face[3]
    matrix, perspective = projection(camera)
    assert perspective is not affine
    x, y, depth = matrix @ np.vstack([vertices.T, np.ones(len(vertices))])
    np.testing.assert_allclose(depth, camera.depth(vertices), rtol=1e-6)
    pixels = np.stack([x, y], 1) / (depth[:, None] if perspective else 1)
    np.testing.assert_allclose(pixels, camera.project(vertices), atol=1e-4)


def test_the_crop_that_is_the_picture_has_its_target(model, people):
    planes, valid = crops(model, people, WHOLE)
    for row in range(6):
        known = (part[row] for part in people)
        truth = render_ground_truth(model, *known, SIZE, SIZE)
        assert (valid[row] != truth.valid).sum() <= 1  # a pixel centre on the very edge
        both = valid[row] & truth.valid
        expected = np.concatenate([truth.pncc, truth.offsets], 2)
        assert np.abs(planes[row] - expected)[both].max() < 0.05
        assert not planes[row][~valid[row]].any()


def test_a_turned_crop_shows_points_where_the_camera_puts_them(model, people):
    matrix, size = turned(25), 48
    planes, valid = crops(model, people, matrix, size)
    for row, camera in enumerate(people[2]):
        v, u = np.nonzero(valid[row])
        assert len(v) > 200
        points = planes[row, v, u, :3] + planes[row, v, u, 3:]
        unit = (2 * np.stack([u, v], 1) + 1) / size - 1
        there = unit @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(camera.project(points), there, atol=0.01)


def test_crops_agree_with_resampled_targets_inside_the_face(model, people):
    """The slow way: a picture of four times the resolution, read at the nearest pixel."""
    finer, matrix, size = 4, turned(-10), 40
    planes, valid = crops(model, people, matrix, size)
    v, u = np.mgrid[:size, :size].reshape(2, -1)
    there = ((2 * np.stack([u, v], 1) + 1) / size - 1) @ matrix[:, :2].T + matrix[:, 2]
    x, y = np.rint((there + 0.5) * finer - 0.5).astype(int).clip(0, finer * SIZE - 1).T
    for row, camera in enumerate(people[2]):
        if isinstance(camera, AffineCamera):
            enlarged = camera.transformed(
                [[finer, 0, finer / 2 - 0.5], [0, finer, finer / 2 - 0.5]]
            )
        else:
            enlarged = camera.scaled(finer, [finer / 2 - 0.5] * 2)
        truth = render_ground_truth(
            model, people[0][row], people[1][row], enlarged, finer * SIZE, finer * SIZE
        )
        assert (truth.valid[y, x] != valid[row].ravel()).mean() < 0.03
        both = truth.valid[y, x] & valid[row].ravel()
        gap = np.abs(planes[row].reshape(-1, 6)[:, :3] - truth.pncc[y, x])[both]
        assert np.median(gap) < 0.5  # mm; an eighth of a pixel is some 0.5
        assert (
            np.median(np.abs(planes[row].reshape(-1, 6)[:, 3:] - truth.offsets[y, x])[both]) < 0.1
        )


def test_a_mirrored_crop_is_the_mirror_image(model, people):
    plain, valid = crops(model, people, turned(15))
    mirrored, mask = crops(model, people, turned(15, mirror=True))
    np.testing.assert_array_equal(mask, valid[:, :, ::-1])
    signs = np.float32([-1, 1, 1, -1, 1, 1])
    np.testing.assert_allclose(mirrored, plain[:, :, ::-1] * signs, atol=1e-3)


def test_pictures_without_a_face_have_empty_targets(model, people):
    is_face = np.array([True, False, True, True, False, False])
    planes, valid = crops(model, people, WHOLE, is_face=is_face)
    everyone, everywhere = crops(model, people, WHOLE)
    assert everywhere.any(axis=(1, 2)).all()
    assert not planes[~is_face].any()
    assert not valid[~is_face].any()
    np.testing.assert_allclose(planes[is_face], everyone[is_face], atol=1e-3)
    nobody, nowhere = crops(model, people, WHOLE, is_face=np.zeros(6, bool))
    assert not nobody.any()
    assert not nowhere.any()


def test_the_number_of_threads_changes_no_target(model, people):
    expected = crops(model, people, turned(5))
    for threads in (2, 5):
        for one, many in zip(
            expected, crops(model, people, turned(5), threads=threads), strict=True
        ):
            np.testing.assert_array_equal(one, many)


def test_crops_off_the_face_are_empty_and_finite(model, people):
    planes, valid = crops(model, people, turned(0, x=900.0))
    assert not valid.any()
    assert not planes.any()
    planes, _ = crops(model, people, turned(0, scale=0.02))
    assert np.isfinite(planes).all()


def test_crops_need_arguments_of_one_length(model, people):
    with pytest.raises(P2FError, match="as many coefficients"):
        render_crops(model, *people, WHOLE[None], SIZE)
    with pytest.raises(P2FError, match="as many coefficients"):
        crops(model, people, WHOLE, is_face=np.ones(2, bool))


def test_a_batch_renders_its_targets(model, people):
    shape, expression, cameras = people
    is_face = np.arange(6) != 1
    images, landmarks = np.zeros((6, SIZE, SIZE, 3), np.uint8), np.zeros((6, 68, 2), np.float32)
    batch = SampleBatch(images, shape, expression, cameras, landmarks, is_face)
    planes, valid = batch.targets(model)
    expected = crops(model, people, WHOLE, is_face=is_face)
    np.testing.assert_array_equal(planes, expected[0])
    np.testing.assert_array_equal(valid, expected[1])
    for rows in (slice(1, 4), [1, 2, 3], np.array([1, 2, 3])):
        part = batch[rows]
        assert len(part) == len(part.cameras) == 3
        np.testing.assert_allclose(part.targets(model)[0], planes[1:4], atol=1e-3)
    with pytest.raises(P2FError, match="square"):
        replace(batch, images=images[:, :-1]).targets(model)


def test_offset_statistics_count_valid_components_only():
    offsets = np.zeros((2, 2, 2, 3), np.float32)
    valid = np.zeros((2, 2, 2), bool)
    offsets[0, 0, 0], valid[0, 0, 0] = (3, 0, 0), True
    offsets[1, 0, 1], valid[1, 0, 1] = (0, -4, 0), True
    offsets[1, 1, 1] = 100
    stats = offset_statistics(offsets, valid)
    assert stats.rms == pytest.approx(np.sqrt(25 / 6))
    assert stats.rms_xyz == pytest.approx((np.sqrt(4.5), np.sqrt(8), 0))
    assert stats.mean_absolute == pytest.approx(7 / 6)
    assert offset_statistics(offsets[valid]) == stats
    with pytest.raises(P2FError, match="No valid pixel"):
        offset_statistics(offsets, np.zeros_like(valid))


def share_beyond(threshold: float, unit: str) -> float:
    """The share of faces with a stronger activation, by the table of expressions."""
    ranges = [(share, *kind[unit]) for share, kind in gt.EXPRESSIONS if unit in kind]
    return sum(s * np.clip((high - threshold) / (high - low), 0, 1) for s, low, high in ranges)


def test_kinds_of_expression_add_up():
    assert sum(share for share, _ in gt.EXPRESSIONS) == pytest.approx(1)
    for _, kind in gt.EXPRESSIONS:
        assert set(kind) <= set(gt._UNITS)
        assert all(0 <= low < high <= 1 for low, high in kind.values())


def test_coefficients_are_plausible(model):
    rng = np.random.default_rng(0)
    full = arkit_model(model)
    rows = [sample_coefficients(full, rng) for _ in range(1500)]
    shapes, expressions = (np.array(part) for part in zip(*rows, strict=True))
    assert shapes.dtype == expressions.dtype == np.float32
    assert np.abs(shapes).max() <= gt.SHAPE_LIMIT
    assert np.abs(shapes.mean(0)).max() < 0.1
    assert 0.8 < shapes.std(0).min() < shapes.std(0).max() < 0.95

    units = dict(zip(full.expression_names, expressions.T, strict=True))
    pca, tongue = units.pop("mode_7"), units.pop("tongueOut")
    assert 2.5 < pca.std() < 3.0
    assert np.abs(pca).max() <= 3.0 * gt.SHAPE_LIMIT
    assert not tongue.any()
    activations = np.stack(list(units.values()), 1)
    assert activations.min() >= 0
    assert activations.max() <= 1
    # few are neutral, most mouths are open and a third of them wide, blinks in about an eighth
    gaze_free = np.stack([v for k, v in units.items() if "eye" not in k], 1)
    neutral = sum(share for share, kind in gt.EXPRESSIONS if not kind)
    assert neutral <= 0.1
    assert (gaze_free.max(1) < 0.2).mean() == pytest.approx(neutral, abs=0.025)
    blinks = (units["eyeBlinkLeft"] + units["eyeBlinkRight"]) > 1
    assert 0.08 < blinks.mean() < 0.16
    for threshold, at_least in ((gt.STRAY_ACTIVATION, 0.6), (0.4, 0.3)):
        expected = share_beyond(threshold, "jawOpen")
        assert expected > at_least
        assert (units["jawOpen"] > threshold).mean() == pytest.approx(expected, abs=0.04)
    assert np.median((activations > 0.2).sum(1)) <= 6
    left, right = units["mouthSmileLeft"], units["mouthSmileRight"]
    assert 0.9 < np.corrcoef(left, right)[0, 1] < 1
    assert (units["mouthClose"] <= units["jawOpen"]).all()
    assert not (units["jawLeft"] * units["jawRight"]).any()
    np.testing.assert_array_equal(units["eyeLookOutLeft"], units["eyeLookInRight"])
    assert not (units["eyeLookOutLeft"] * units["eyeLookInLeft"]).any()


def test_views_follow_their_distribution():
    rng = np.random.default_rng(1)
    views = np.array([list(vars(sample_view(rng)).values()) for _ in range(4000)])
    yaw, pitch, roll, distance, fill, shift_x, shift_y = views.T
    assert 85 < np.abs(yaw).max() <= 90
    assert 0.4 < (np.abs(yaw) > 20).mean() < 0.6
    assert abs(yaw.mean()) < 2
    for tilt, sigma in ((pitch, 12), (roll, 10)):
        assert np.abs(tilt).max() <= 35
        assert tilt.std() == pytest.approx(sigma, rel=0.1)
    assert distance.min() >= 350
    assert distance.max() <= 4000
    assert np.median(distance) == pytest.approx(np.sqrt(350 * 4000), rel=0.1)
    assert (fill * 2.4 >= 0.92).all()
    assert (fill * 2.4 <= 1.08).all()
    assert max(np.abs(shift_x).max(), np.abs(shift_y).max()) <= 0.06
    frontal = CameraDistribution(frontal_share=1.0, frontal_sigma=0.0)
    assert sample_view(rng, frontal).yaw == 0


@pytest.mark.parametrize("yaw", [0, -50, 90])
@pytest.mark.parametrize("distance", [350, 4000])
def test_camera_is_where_the_view_says(model, face, yaw, distance):
    vertices = face[2]
    landmarks = vertices[model.landmarks["ibug68"]]
    view = View(yaw, 20, -15, distance, 0.4, 0.05, -0.06)
    camera = place_camera(view, landmarks, 100)
    pose = pose_from_rotation(camera.rotation)
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((yaw, 20, -15), abs=1e-6)
    assert camera.translation[2] == pytest.approx(distance)
    assert camera.principal_point == pytest.approx((49.5, 49.5))
    low, high = camera.project(landmarks).min(0), camera.project(landmarks).max(0)
    assert (high - low).max() == pytest.approx(40, abs=0.02)
    assert (low + high) / 2 - 49.5 == pytest.approx((5, -6), abs=0.02)


def test_a_camera_within_the_head_is_refused(model):
    landmarks = model.mean[model.landmarks["ibug68"]]
    with pytest.raises(P2FError, match="behind the lens"):
        place_camera(View(0, 0, 0, 60, 0.4, 0, 0), landmarks, 100)


def test_a_model_without_landmarks_is_named(model):
    bare = replace(model, landmarks={})
    with pytest.raises(P2FError, match="ibug68"):
        sample_table(model, 0, 1).render(bare, 0, SIZE)


def test_sampled_cameras_see_the_face(model):
    rng = np.random.default_rng(2)
    for _ in range(20):
        vertices = model.vertices(*sample_coefficients(model, rng))
        camera = place_camera(sample_view(rng), vertices[model.landmarks["ibug68"]], SIZE)
        truth = render_vertices(model, vertices, camera, SIZE, SIZE)
        assert 0.08 < truth.valid.mean() < 0.6


def test_table_rows_depend_on_seed_and_index_only(model):
    table = sample_table(model, 7, 6, progress=False)
    longer = sample_table(model, 7, 9, progress=False)
    other = sample_table(model, 8, 6, progress=False)
    assert len(table) == 6
    for name in ("shape", "expression", "views"):
        np.testing.assert_array_equal(getattr(table, name), getattr(longer, name)[:6])
        assert (getattr(table, name) != getattr(other, name)).any()
    assert len(np.unique(longer.shape, axis=0)) == len(np.unique(longer.views, axis=0)) == 9
    rng = np.random.default_rng([7, 4])
    np.testing.assert_array_equal(table.shape[4], sample_coefficients(model, rng)[0])
    assert table.view(4) == sample_view(rng)


def test_table_renders_its_rows(model):
    table = sample_table(model, 0, 3, progress=False)
    truth = table.render(model, 2, SIZE)
    vertices = model.vertices(table.shape[2], table.expression[2])
    camera = place_camera(table.view(2), vertices[model.landmarks["ibug68"]], SIZE)
    expected = render_vertices(model, vertices, camera, SIZE, SIZE)
    assert truth.valid.any()
    np.testing.assert_array_equal(truth.pncc, expected.pncc)
    np.testing.assert_array_equal(truth.offsets, expected.offsets)


def test_affine_and_far_perspective_agree(model, face):
    vertices = face[2]
    landmarks = vertices[model.landmarks["ibug68"]]
    camera = place_camera(View(20, 5, 0, 50_000, 0.42, 0, 0), landmarks, SIZE)
    affine = camera.affine()
    assert isinstance(affine, AffineCamera)
    near, flat = (render_vertices(model, vertices, c, SIZE, SIZE) for c in (camera, affine))
    both = near.valid & flat.valid
    assert (near.valid != flat.valid).mean() < 0.01
    assert np.median(np.abs(near.pncc - flat.pncc)[both]) < 0.2


def test_a_table_is_saved_and_loaded_and_rubbish_is_refused(tmp_path):
    model = toy_model()
    table = sample_table(model, 5, 7)
    table.save(tmp_path / "a.npz")
    table.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = CoefficientTable.load(tmp_path / "a.npz")
    assert loaded.seed == 5
    np.testing.assert_array_equal(loaded.shape, table.shape)
    np.testing.assert_array_equal(loaded.expression, table.expression)
    np.testing.assert_array_equal(loaded.views, table.views)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("a.npz", "other.npz", "missing.npz"):
        with pytest.raises(P2FError, match="coefficient table"):
            CoefficientTable.load(tmp_path / name)


def test_a_table_holds_what_the_photographs_are_rendered_from():
    model = toy_model()
    table = sample_table(model, 3, 2)
    sample = render_sample(model, 3, 1, size=32, supersample=1)
    np.testing.assert_array_equal(sample.shape, table.shape[1])
    np.testing.assert_array_equal(sample.expression, table.expression[1])
    np.testing.assert_array_equal(sample.pncc, table.render(model, 1, 32).pncc)
