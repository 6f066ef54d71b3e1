"""Cameras and pose: conventions against OpenCV and SciPy, fits against truth, clear failures."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from p2f_lib import camera as module
from p2f_lib.camera import (
    FRONTAL,
    AffineCamera,
    Correspondences,
    PerspectiveCamera,
    Pose,
    fit_affine,
    fit_perspective,
    pose_from_rotation,
    reprojection_error,
    rotation_from_pose,
)
from p2f_lib.errors import P2FError

CENTER = np.array([63.5, 63.5])


def face_points(rng: np.random.Generator, count: int = 3000) -> np.ndarray:
    """The front half of an egg with the proportions of a head, mm."""
    points = rng.normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return np.abs(points) * [1, 1, 1] * np.sign(points * [1, 1, 0] + [0, 0, 1]) * [75, 100, 80]


def camera_at(distance: float, pose: Pose, size: float = 0.5) -> PerspectiveCamera:
    """A camera that shows a millimetre as `size` pixels."""
    translation = np.array([6.0, -9.0, distance])
    return PerspectiveCamera(size * distance, CENTER, rotation_from_pose(pose), translation)


def angle_between(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(Rotation.from_matrix(first.T @ second).magnitude()))


def numeric_pose(pose: Pose) -> np.ndarray:
    return np.array([pose.yaw, pose.pitch, pose.roll])


# ---------------------------------------------------------------------------------------------
# Pose


def test_pose_signs_are_what_the_words_say():
    nose, crown = np.array([0, 0, 100.0]), np.array([0, 100.0, 0])
    assert np.allclose(rotation_from_pose(Pose(0, 0, 0)), FRONTAL)
    assert (rotation_from_pose(Pose(30, 0, 0)) @ nose)[0] > 0  # picture right
    assert (rotation_from_pose(Pose(0, 30, 0)) @ nose)[1] < 0  # up is negative y in pictures
    assert (rotation_from_pose(Pose(0, 0, 30)) @ crown)[0] > 0  # crown to picture right
    assert (rotation_from_pose(Pose(0, 0, 0)) @ nose)[2] < 0  # the nose is nearer than the origin


def test_pose_round_trip_over_the_whole_range():
    for yaw in range(-179, 181, 30):
        for pitch in (-89.9, -60, -1, 0, 35, 89):
            for roll in (-179, -90, -12, 0, 45, 170):
                back = pose_from_rotation(rotation_from_pose(Pose(yaw, pitch, roll)))
                assert np.allclose(numeric_pose(back), (yaw, pitch, roll), atol=1e-6)


@pytest.mark.parametrize("pitch", [-90, 90])
def test_pose_at_gimbal_lock_reports_no_roll_and_the_same_rotation(pitch):
    rotation = rotation_from_pose(Pose(25, pitch, 40))
    pose = pose_from_rotation(rotation)
    assert pose.roll == 0
    assert np.allclose(rotation_from_pose(pose), rotation, atol=1e-7)


def test_pose_agrees_with_scipy_on_random_rotations():
    for rotation in Rotation.random(200, rng=0).as_matrix():
        yaw, pitch, roll = Rotation.from_matrix(FRONTAL @ rotation).as_euler("YXZ", degrees=True)
        expected = (yaw, -pitch, -roll)
        assert np.allclose(numeric_pose(pose_from_rotation(rotation)), expected, atol=1e-6)


def test_single_angles_agree_with_opencv():
    # RQDecomp3x3 reports rotations about x, y, z in degrees; for turns about one axis the order
    # does not matter.
    for degrees in (-70, -20, 15, 60):
        for name, axis, sign in (("yaw", 1, 1), ("pitch", 0, -1), ("roll", 2, -1)):
            pose = Pose(**{"yaw": 0, "pitch": 0, "roll": 0, name: degrees})
            angles = cv2.RQDecomp3x3(FRONTAL @ rotation_from_pose(pose))[0]
            assert angles[axis] == pytest.approx(sign * degrees)


# ---------------------------------------------------------------------------------------------
# Camera types


def test_perspective_projection_agrees_with_opencv():
    camera = camera_at(700, Pose(25, -10, 8))
    points = face_points(np.random.default_rng(0), 50)
    intrinsic = np.array([[camera.focal, 0, 63.5], [0, camera.focal, 63.5], [0, 0, 1]])
    turn = cv2.Rodrigues(camera.rotation)[0]
    expected = cv2.projectPoints(points, turn, camera.translation, intrinsic, None)[0][:, 0]
    assert np.allclose(camera.project(points), expected)
    nose, ear = np.array([[0, 0, 100.0], [0, 0, -50.0]])
    assert camera.depth(nose) < camera.depth(ear)


def test_affine_decomposition_recovers_scale_and_rotation():
    for rotation in Rotation.random(50, rng=1).as_matrix():
        camera = AffineCamera(np.column_stack([1.7 * rotation[:2], [5, 6]]))
        assert camera.scale == pytest.approx(1.7)
        assert np.allclose(camera.rotation, rotation)
        assert np.allclose(camera.depth(np.eye(3)), rotation[2])


def test_shear_and_aspect_leave_a_proper_rotation():
    matrix = np.array([[1.2, 0.3, 0.1, 4.0], [0.1, -0.9, 0.4, 7.0]])
    rotation = AffineCamera(matrix).rotation
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_image_maps_move_the_projections():
    points = face_points(np.random.default_rng(2), 40)
    camera = camera_at(600, Pose(-30, 5, 3))
    scaled = camera.scaled(2.5, (10, -4))
    assert np.allclose(scaled.project(points), 2.5 * camera.project(points) + (10, -4))
    turned = np.array([[0.6, -0.8, 5.0], [0.8, 0.6, -7.0]]) * 1.5
    moved = camera.project(points) @ turned[:, :2].T + turned[:, 2]
    assert np.allclose(camera.transformed(turned).project(points), moved)
    affine, image_map = camera.affine(), np.array([[0.2, 1.1, 3.0], [-0.9, 0.1, 8.0]])
    moved = affine.project(points) @ image_map[:, :2].T + image_map[:, 2]
    assert np.allclose(affine.transformed(image_map).project(points), moved)


def test_affine_approximation_is_the_first_order_one():
    camera, center = camera_at(500, Pose(40, 10, -15)), np.array([20.0, -15.0, 60.0])
    affine = camera.affine(center)
    step = 1e-3
    for axis in np.eye(3):
        slope = (camera.project(center + step * axis) - camera.project(center - step * axis)) / 2
        assert np.allclose(slope / step, affine.matrix[:, :3] @ axis, atol=1e-6)
    assert np.allclose(affine.project(center), camera.project(center))


def test_perspective_of_the_affine_approximation_is_the_camera_again():
    center = np.array([3.0, -5.0, 70.0])
    for shift in (0.0, 300.0):  # in the middle of the photo, and far off
        near = camera_at(800, Pose(35, -20, 10))
        translation = near.translation + np.array([shift, 0, 0])
        camera = PerspectiveCamera(near.focal, CENTER - shift, near.rotation, translation)
        distance = float(camera.depth(center))
        back = camera.affine(center).perspective(camera.principal_point, distance, center)
        assert angle_between(back.rotation, camera.rotation) < 0.1
        assert back.focal == pytest.approx(camera.focal, rel=2e-3)
        assert np.allclose(back.project(center), camera.project(center))


# ---------------------------------------------------------------------------------------------
# Fits


def test_affine_fit_is_exact_on_affine_pictures():
    rng = np.random.default_rng(3)
    truth = camera_at(900, Pose(20, 15, -30)).affine()
    points = face_points(rng)
    for robust in (False, True):
        fit = fit_affine(Correspondences(points, truth.project(points)), robust=robust)
        assert np.allclose(fit.matrix, truth.matrix, atol=1e-9)


def test_affine_fit_is_the_least_squares_solution():
    rng = np.random.default_rng(4)
    points = face_points(rng, 500)
    pixels = camera_at(900, Pose(20, 15, -30)).project(points) + rng.normal(size=(500, 2))
    homogeneous = np.column_stack([points, np.ones(500)])
    expected = np.linalg.lstsq(homogeneous, pixels, rcond=None)[0].T
    fit = fit_affine(Correspondences(points, pixels), robust=False)
    assert np.allclose(fit.matrix, expected)


def test_a_small_random_subset_is_enough_and_repeatable():
    rng = np.random.default_rng(5)
    points = face_points(rng, 20000)
    truth = camera_at(2000, Pose(10, 5, 0)).affine()
    both = Correspondences(points, truth.project(points) + rng.normal(0, 0.5, (20000, 2)))
    fits = [fit_affine(both, subset=300, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(fits[0].matrix, fits[1].matrix)
    assert not np.array_equal(fits[0].matrix, fits[2].matrix)
    assert angle_between(fits[0].rotation, truth.rotation) < 0.5


@pytest.mark.parametrize("distance", [350, 900, 3000])
@pytest.mark.parametrize("yaw", [-85, -30, 0, 60])
def test_perspective_fit_is_exact_without_noise(distance, yaw):
    rng = np.random.default_rng(6)
    truth = camera_at(distance, Pose(yaw, 12, -9))
    points = face_points(rng)
    fit = fit_perspective(Correspondences(points, truth.project(points)), CENTER)
    assert angle_between(fit.rotation, truth.rotation) < 0.01
    assert fit.focal == pytest.approx(truth.focal, rel=0.01)
    assert np.abs(fit.project(points) - truth.project(points)).max() < 0.01


def test_perspective_fit_agrees_with_opencv_at_its_focal_length():
    rng = np.random.default_rng(7)
    truth = camera_at(600, Pose(25, -15, 10))
    points = face_points(rng, 1500)
    pixels = truth.project(points) + rng.normal(0, 0.5, (1500, 2))
    fit = fit_perspective(Correspondences(points, pixels), CENTER, focal=300.0, robust=False)
    intrinsic = np.array([[300.0, 0, 63.5], [0, 300.0, 63.5], [0, 0, 1]])
    _, turn, shift = cv2.solvePnP(points, pixels, intrinsic, None)
    assert fit.focal == pytest.approx(300)
    assert angle_between(fit.rotation, cv2.Rodrigues(turn)[0]) < 0.01
    assert np.allclose(fit.translation, shift.ravel(), atol=0.1)


def test_known_focal_length_is_kept_whatever_the_start():
    points = face_points(np.random.default_rng(8), 500)
    truth = camera_at(500, Pose(15, 0, 0))
    both = Correspondences(points, truth.project(points))
    for start in (None, camera_at(2000, Pose(5, 5, 5)), truth.affine()):
        fit = fit_perspective(both, CENTER, start, focal=truth.focal)
        assert angle_between(fit.rotation, truth.rotation) < 0.01
        assert fit.focal == pytest.approx(truth.focal)


@pytest.mark.parametrize("robust", [False, True])
def test_perspective_fit_is_never_worse_than_its_start(robust):
    rng = np.random.default_rng(9)
    for _ in range(25):
        truth = camera_at(rng.uniform(350, 4000), Pose(*rng.uniform(-60, 60, 3)))
        points = face_points(rng, 400)
        pixels = truth.project(points) + rng.normal(0, rng.uniform(0, 4), (400, 2))
        both = Correspondences(points, pixels)
        start = fit_affine(both, robust=False).perspective(CENTER, 1200, points.mean(axis=0))
        fit = fit_perspective(both, CENTER, start, robust=robust)
        if robust:
            assert _tukey_mean(fit, both, start) <= _tukey_mean(start, both, start) + 1e-9
        else:
            assert reprojection_error(fit, both) <= reprojection_error(start, both) + 1e-9


def _tukey_mean(camera, both, start):
    """Tukey's loss, written out, at the scale of the start's median residual."""
    residual = np.linalg.norm(camera.project(both.points) - both.pixels, axis=1)
    scale = np.median(np.linalg.norm(start.project(both.points) - both.pixels, axis=1)) / 1.17741
    inside = residual < 4.685 * scale
    share = (residual / (4.685 * scale)) ** 2
    return np.where(inside, 1 - (1 - share) ** 3, 1.0).mean()


def test_distance_stays_sane_where_there_is_no_perspective():
    rng = np.random.default_rng(10)
    points = face_points(rng)
    affine = camera_at(1000, Pose(10, 0, 0)).affine()
    pixels = affine.project(points) + rng.normal(0, 2.0, (len(points), 2))
    fit = fit_perspective(Correspondences(points, pixels), CENTER)
    assert 1000 < fit.translation[2] < 30000
    assert angle_between(fit.rotation, affine.rotation) < 1.0


@pytest.mark.parametrize("share", [0.1, 0.3, 0.4])
def test_wrong_pixels_do_not_matter(share):
    rng = np.random.default_rng(11)
    truth = camera_at(700, Pose(-35, 10, 15))
    points = face_points(rng)
    pixels = truth.project(points) + rng.normal(0, 0.3, (len(points), 2))
    wrong = rng.random(len(points)) < share
    pixels[wrong] = rng.uniform(0, 128, (wrong.sum(), 2))
    both = Correspondences(points, pixels)
    fit = fit_perspective(both, CENTER)
    assert angle_between(fit.rotation, truth.rotation) < 0.3
    plain = fit_affine(both, robust=False)
    assert angle_between(fit_affine(both).rotation, truth.rotation) < 4  # what perspective leaves
    assert reprojection_error(fit, both[~wrong]) < 0.2 * reprojection_error(plain, both[~wrong])


def test_rows_with_nan_are_ignored():
    rng = np.random.default_rng(12)
    truth = camera_at(700, Pose(5, 10, 15))
    points = face_points(rng, 300)
    pixels = truth.project(points)
    points[::7, 1], pixels[3::11, 0] = np.nan, np.inf
    fit = fit_perspective(Correspondences(points, pixels), CENTER)
    assert angle_between(fit.rotation, truth.rotation) < 0.01


def test_gauss_newton_gradient_is_the_derivative_of_the_loss():
    rng = np.random.default_rng(13)
    truth = camera_at(600, Pose(20, 10, -5))
    points = face_points(rng, 200)
    pixels = truth.project(points) + rng.normal(0, 1.5, (200, 2))
    center = points.mean(axis=0)
    numbers, rotation = module._state(camera_at(650, Pose(18, 11, -4)), center)

    def loss(step, limit, matrix):
        moved = module._rotation(step[4:]) @ rotation
        both = points - center, pixels - CENTER
        return module._gauss_newton(*both, numbers + step[:4], moved, limit, matrix)

    for limit in (np.inf, 50.0):
        matrix, other = np.empty((8, 8)), np.empty((8, 8))
        loss(np.zeros(7), limit, matrix)
        for k, step in enumerate(1e-5 * np.eye(7)):
            slope = (loss(step, limit, other) - loss(-step, limit, other)) / 2e-5
            assert 2 * matrix[k, 7] == pytest.approx(slope, rel=1e-4, abs=1e-2)


def test_rotations_about_vectors_agree_with_scipy():
    rng = np.random.default_rng(3)
    for size in (0.0, 1e-9, 1e-5, 0.1, 3.0):
        vector = size * rng.normal(size=3)
        expected = Rotation.from_rotvec(vector).as_matrix()
        np.testing.assert_allclose(module._rotation(vector), expected, atol=1e-12)


# ---------------------------------------------------------------------------------------------
# Wrong input


def test_degenerate_correspondences_get_a_sentence():
    rng = np.random.default_rng(14)
    points, camera = face_points(rng, 100), camera_at(700, Pose(0, 0, 0))
    pixels = camera.project(points)
    line = np.outer(np.linspace(0, 1, 100), [10.0, 20.0, 30.0])
    flat = points * [1, 1, 0]
    cases = {
        "at least 10": (points[:9], pixels[:9]),
        "got 0 of 100": (points * np.nan, pixels),
        "one plane or on a line": (line, pixels),
        "one plane": (flat, pixels),
        "pixels lie on a line": (points, pixels * [1, 0]),
    }
    for message, (p, q) in cases.items():
        with pytest.raises(P2FError, match=message):
            fit_affine(Correspondences(p, q))
    with pytest.raises(P2FError, match="at least 10"):
        fit_perspective(Correspondences(points[:9], pixels[:9]), CENTER)


def test_wrong_arrays_get_a_sentence():
    with pytest.raises(P2FError, match=r"\(N, 3\) and pixels \(N, 2\)"):
        Correspondences(np.zeros((5, 3)), np.zeros((4, 2)))
    with pytest.raises(P2FError, match="finite"):
        AffineCamera(np.full((2, 4), np.nan))
    with pytest.raises(P2FError, match="focal length must be positive"):
        PerspectiveCamera(-1, CENTER, np.eye(3), np.zeros(3))
    with pytest.raises(P2FError, match="translation"):
        PerspectiveCamera(1, CENTER, np.eye(3), np.zeros(2))
