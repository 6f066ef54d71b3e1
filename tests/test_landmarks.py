"""Mark-ups, the choice of vertices, visibility."""

import numpy as np
import pytest

from p2f_lib.camera import PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.errors import P2FError
from p2f_lib.landmarks import (
    GROUPS,
    IBUG68_IN_MENPO84,
    MARKUPS,
    MIRRORED,
    OUTER_EYE_CORNERS,
    ibug68_to_menpo84,
    menpo84_to_ibug68,
    select_vertices,
    visible_vertices,
)
from tests.toy import ibug68_layout, toy_model

# ---------------------------------------------------------------------------------------------
# Mark-ups


@pytest.mark.parametrize("markup", MARKUPS)
def test_groups_cover_each_point_once(markup):
    covered = [k for group in GROUPS[markup].values() for k in group]
    assert covered == list(range(MARKUPS[markup]))


def test_the_published_indices_of_menpo84():
    groups = GROUPS["menpo84"]
    assert groups["left_brow"] == range(33, 38)
    assert groups["nose"] == range(43, 52)
    assert groups["left_eye"] == range(52, 58)
    assert groups["outer_mouth"] == range(64, 76)
    assert groups["inner_mouth"] == range(76, 84)


def test_eye_corners_are_the_outermost_eye_points():
    layout = {"ibug68": ibug68_layout()}
    layout["menpo84"] = ibug68_to_menpo84(layout["ibug68"])
    for markup, points in layout.items():
        left, right = OUTER_EYE_CORNERS[markup]
        eyes = [*GROUPS[markup]["left_eye"], *GROUPS[markup]["right_eye"]]
        assert left == eyes[points[eyes, 0].argmin()]
        assert right == eyes[points[eyes, 0].argmax()]


def test_conversion_between_markups():
    points = np.random.default_rng(0).normal(size=(3, 84, 3))
    assert np.array_equal(IBUG68_IN_MENPO84[17:] - 16, np.arange(17, 68))
    assert np.array_equal(menpo84_to_ibug68(points)[:, 17:], points[:, 33:])
    assert np.array_equal(menpo84_to_ibug68(points)[:, 8], points[:, 16])  # the chin
    back = ibug68_to_menpo84(menpo84_to_ibug68(points))
    assert np.array_equal(back[:, ::2][:, :17], points[:, ::2][:, :17])
    assert np.allclose(back[:, 1], (points[:, 0] + points[:, 2]) / 2)
    with pytest.raises(P2FError, match="84"):
        menpo84_to_ibug68(points[:, :68])


@pytest.mark.parametrize("markup", MARKUPS)
def test_mirroring_a_symmetric_face_permutes_its_points(markup):
    points = ibug68_layout()
    if markup == "menpo84":
        points = ibug68_to_menpo84(points)
    mirrored = (points * [-1, 1])[MIRRORED[markup]]
    assert np.allclose(mirrored, points, atol=1e-9)
    assert np.array_equal(MIRRORED[markup][MIRRORED[markup]], np.arange(MARKUPS[markup]))


# ---------------------------------------------------------------------------------------------
# Choice of vertices


def random_frames(n: int, noise: float, vertices: int = 200, seed: int = 0):
    """Frames of a 68-point mark-up that was drawn from known vertices."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(-80, 80, (vertices, 3))
    chosen = rng.choice(vertices, 68, replace=False)
    frames = []
    for _ in range(n):
        projected = mean[:, :2] * rng.uniform(0.5, 2) + rng.normal(0, 1, (vertices, 2))
        frames.append((projected, projected[chosen] + rng.normal(0, noise, (68, 2))))
    return mean, chosen, frames


def test_the_vertices_that_drew_the_landmarks_are_found():
    mean, chosen, frames = random_frames(20, noise=1.0)
    start = (chosen + 1) % len(mean)
    selection = select_vertices(iter(frames), markup="ibug68", current=start)
    assert np.array_equal(selection.indices, chosen)
    assert (selection.error < selection.error_before).all()
    assert (selection.frames == 20).all()


@pytest.mark.parametrize("markup", ["ibug68", None])
def test_selection_agrees_with_the_definition(markup):
    _, _, frames = random_frames(5, noise=40.0)
    total = np.zeros((68, 200))
    for projected, truth in frames:
        if markup:
            size = np.linalg.norm(truth[36] - truth[45])
        else:
            size = np.mean(truth.max(axis=0) - truth.min(axis=0))
        total += np.linalg.norm(truth[:, None] - projected[None], axis=2) / size
    current = np.arange(68)
    selection = select_vertices(frames, markup=markup, current=current)
    assert np.array_equal(selection.indices, total.argmin(axis=1))
    assert np.allclose(selection.error, total.min(axis=1) / 5)
    assert np.allclose(selection.error_before, total[current, current] / 5)
    assert (selection.error <= selection.error_before).all()


def test_a_radius_keeps_vertices_near_the_current_ones():
    mean, _, frames = random_frames(5, noise=40.0)
    current = np.arange(68)
    selection = select_vertices(frames, current=current, vertices=mean, radius=30.0)
    gap = np.linalg.norm(mean[selection.indices] - mean[current], axis=1)
    assert (gap <= 30).all()
    assert (selection.indices != current).any()
    with pytest.raises(P2FError, match="radius"):
        select_vertices(frames, radius=30.0)


def test_missing_landmarks_and_hidden_vertices_do_not_count():
    _, chosen, frames = random_frames(6, noise=0.5)
    truth_nan = [(p.copy(), t.copy()) for p, t in frames]
    for k, (projected, truth) in enumerate(truth_nan):
        truth[3 if k % 2 else 40] = np.nan
        truth[36] = np.nan  # an eye corner: the box takes over
        truth[10] = np.nan  # never annotated
        if k < 2:
            projected[chosen[20]] = np.nan  # hidden in 2 of 6 frames: still eligible
        if k < 4:
            projected[chosen[21]] = np.nan  # hidden in 4 of 6 frames: not eligible
    current = np.roll(chosen, 1)
    selection = select_vertices(truth_nan, markup="ibug68", current=current)
    others = np.setdiff1d(np.arange(68), [10, 21, 36])
    assert np.array_equal(selection.indices[others], chosen[others])
    assert selection.indices[21] != chosen[21]
    assert selection.indices[10] == current[10]
    assert np.isnan(selection.error[10])
    assert selection.frames[3] == 3
    with pytest.raises(P2FError, match="Landmark 10"):
        select_vertices(truth_nan, markup="ibug68")


def test_wrong_frames_get_a_sentence():
    _, chosen, frames = random_frames(2, noise=0.5)
    with pytest.raises(P2FError, match="at least one"):
        select_vertices([])
    with pytest.raises(P2FError, match="same mesh"):
        select_vertices([frames[0], (frames[1][0][:-1], frames[1][1])])
    with pytest.raises(P2FError, match="menpo84"):
        select_vertices(frames, markup="menpo84")
    with pytest.raises(P2FError, match="68 indices below 200"):
        select_vertices(frames, current=chosen + 200)


# ---------------------------------------------------------------------------------------------
# Visibility


def ray_hits(origin: np.ndarray, target: np.ndarray, corners: np.ndarray) -> bool:
    """Whether a triangle cuts the segment clearly before its end (Moeller and Trumbore)."""
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    ray = target - origin
    cross = np.cross(ray, edge2)
    determinant = (edge1 * cross).sum(1)
    determinant = np.where(np.abs(determinant) < 1e-9, np.inf, determinant)
    gap = origin - corners[:, 0]
    u = (gap * cross).sum(1) / determinant
    across = np.cross(gap, edge1)
    v = (across @ ray) / determinant
    t = (edge2 * across).sum(1) / determinant
    reach = 1 - 3.0 / np.linalg.norm(ray)  # 3 mm before the end
    return bool(((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < reach)).any())


@pytest.mark.parametrize("yaw", [-80, -30, 0, 60])
def test_visibility_agrees_with_ray_casting(yaw):
    model = toy_model(1500)
    rotation = rotation_from_pose(Pose(yaw, 5, 0))
    camera = PerspectiveCamera(500, (64, 64), rotation, np.array([0, 0, 700.0]))
    vertices = model.mean.astype(float)
    lens = -rotation.T @ camera.translation
    picked = np.arange(0, model.n_vertices, 7)
    expected = [not ray_hits(lens, vertices[k], vertices[model.triangles]) for k in picked]
    found = visible_vertices(vertices, model.triangles, camera)[picked]
    assert np.mean(found == expected) > 0.97
    affine = visible_vertices(vertices, model.triangles, camera.affine())[picked]
    assert np.mean(affine == found) > 0.9


def test_the_far_side_of_a_profile_is_hidden():
    model = toy_model(1500)
    camera = PerspectiveCamera(
        500, (64, 64), rotation_from_pose(Pose(75, 0, 0)), np.array([0, 0, 700.0])
    )
    seen = visible_vertices(model.mean, model.triangles, camera)[model.landmarks["ibug68"]]
    # The nose points to picture right, so the picture-right half of the frontal face is hidden.
    assert seen[GROUPS["ibug68"]["left_eye"]].all()
    assert not seen[GROUPS["ibug68"]["right_eye"]].any()
