"""Errors, alignment and the CED, against values worked out by hand and slow obvious versions."""

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.transform import Rotation

from p2f_lib import evaluation as ev
from p2f_lib.crop import Box
from p2f_lib.errors import P2FError
from p2f_lib.landmarks import GROUPS, OUTER_EYE_CORNERS, menpo84_to_ibug68

from .toy import toy_model


def points84(rng: np.random.Generator, dimension: int = 2, frames: int = 3) -> np.ndarray:
    return rng.normal(scale=40.0, size=(frames, 84, dimension))


# --- errors of points ---


def test_point_errors_by_hand():
    truth = np.zeros((2, 3, 2))
    predicted = np.array([[[3, 4], [0, 0], [0, -2]], [[1, 0], [0, 1], [1, 0]]], float)
    assert ev.point_errors(predicted, truth).tolist() == [[5, 0, 2], [1, 1, 1]]
    assert ev.mean_point_error(predicted, truth) == pytest.approx([7 / 3, 1])


def test_unknown_truth_is_left_out_and_missing_predictions_are_infinite():
    truth = np.array([[[0, 0], [np.nan, np.nan]], [[0, 0], [1, 1]]])
    predicted = np.array([[[0, 2], [9, 9]], [[0, 0], [np.nan, 1]]])
    errors = ev.point_errors(predicted, truth)
    assert np.isnan(errors[0, 1])
    assert np.isinf(errors[1, 1])
    assert ev.mean_point_error(predicted, truth).tolist() == [2, np.inf]


def test_a_frame_without_truth_is_refused():
    with pytest.raises(P2FError, match="no known truth"):
        ev.mean_point_error(np.zeros((1, 2, 2)), np.full((1, 2, 2), np.nan))


@pytest.mark.parametrize("shapes", [((4, 2), (5, 2)), ((4, 3), (4, 2)), ((2,), (2,))])
def test_shapes_must_agree(shapes):
    with pytest.raises(P2FError, match="one shape"):
        ev.point_errors(np.zeros(shapes[0]), np.zeros(shapes[1]))


@pytest.mark.parametrize(("n_points", "jaw"), [(68, 17), (84, 33)])
def test_group_errors_are_means_of_their_points(n_points, jaw):
    errors = np.arange(2.0 * n_points).reshape(2, n_points)
    groups = ev.group_errors(errors)
    assert groups["jaw"] == pytest.approx(errors[:, :jaw].mean(axis=1))
    assert groups["inner"] == pytest.approx(errors[:, jaw:].mean(axis=1))
    assert groups["nose"] == pytest.approx(errors[:, jaw + 10 : jaw + 19].mean(axis=1))
    errors[0, jaw + 10 : jaw + 19] = np.nan
    errors[1, 0] = np.inf
    groups = ev.group_errors(errors)
    assert np.isnan(groups["nose"]).tolist() == [True, False]
    assert np.isinf(groups["jaw"]).tolist() == [False, True]


def test_groups_need_a_known_markup():
    with pytest.raises(P2FError, match="not 51"):
        ev.group_errors(np.zeros(51))


# --- normalisers ---


@pytest.mark.parametrize(("n_points", "corners"), [(68, (36, 45)), (84, (52, 61))])
def test_interocular_distance_is_between_the_outer_corners(n_points, corners):
    truth = np.zeros((n_points, 2))
    truth[corners[1]] = 30, 40
    assert ev.interocular_distance(truth) == 50
    assert ev.errors_2d(truth + np.array([5, 0]), truth) == pytest.approx(0.1)


def test_box_normalisers_by_hand():
    truth = np.zeros((84, 2))
    truth[3], truth[7] = (9, 0), (0, 16)
    assert ev.box_diagonal(truth) == pytest.approx(np.hypot(9, 16))
    assert ev.box_size(truth) == 12
    assert ev.errors_2d(truth + np.array([0, 6]), truth, "size") == pytest.approx(0.5)


def test_errors_do_not_depend_on_the_size_of_the_picture():
    rng = np.random.default_rng(0)
    truth, predicted = points84(rng), points84(rng)
    for normalizer in ev.NORMALIZERS:
        expected = ev.errors_2d(predicted, truth, normalizer)
        assert ev.errors_2d(3 * predicted + 7, 3 * truth + 7, normalizer) == pytest.approx(expected)


def test_bad_normalisers_are_named():
    with pytest.raises(P2FError, match="Unknown normalizer 'area'"):
        ev.errors_2d(np.zeros((84, 2)), np.zeros((84, 2)), "area")
    with pytest.raises(P2FError, match="zero or unknown"):
        ev.errors_2d(np.zeros((84, 2)), np.zeros((84, 2)))
    with pytest.raises(P2FError, match="not 51"):
        ev.interocular_distance(np.zeros((51, 2)))


# --- alignment ---


def test_alignments_undo_what_they_allow():
    rng = np.random.default_rng(1)
    target = points84(rng, 3)
    rotations = Rotation.random(3, random_state=2).as_matrix()
    moved = target @ np.swapaxes(rotations, -1, -2) + rng.normal(scale=50, size=(3, 1, 3))
    assert ev.rigid_align(moved, target) == pytest.approx(target)
    assert ev.similarity_align(0.1 * moved, target) == pytest.approx(target)
    assert ev.errors_3d_rigid(moved, target) == pytest.approx(np.zeros(3), abs=1e-9)
    assert (ev.errors_3d_rigid(0.1 * moved, target) > 1).all()  # a rigid motion has no scale


def test_rigid_alignment_equals_scipy_frame_by_frame():
    rng = np.random.default_rng(3)
    source, target = points84(rng, 3), points84(rng, 3)
    for i in range(3):
        a, b = source[i] - source[i].mean(0), target[i] - target[i].mean(0)
        slow = Rotation.align_vectors(b, a)[0].apply(a) + target[i].mean(0)
        assert ev.rigid_align(source, target)[i] == pytest.approx(slow)


def test_similarity_is_the_least_squares_optimum():
    rng = np.random.default_rng(4)
    source = points84(rng, 3, frames=1)[0]
    target = source + rng.normal(scale=5, size=source.shape)
    best = ev.similarity_align(source, target)
    cost = ((best - target) ** 2).sum()
    center = best.mean(0)
    for _ in range(50):
        turn = Rotation.from_rotvec(rng.normal(scale=0.01, size=3))
        other = turn.apply(best - center) * rng.normal(1, 0.01) + center + rng.normal(size=3) * 0.1
        assert ((other - target) ** 2).sum() > cost


def test_alignment_never_mirrors():
    source = points84(np.random.default_rng(5), 3, frames=1)
    mirrored = source * (-1, 1, 1)
    assert (ev.errors_3d_rigid(source, mirrored) > 10).all()


def test_alignment_takes_only_known_pairs():
    rng = np.random.default_rng(6)
    target = points84(rng, 3)
    source = target + np.array([1, 2, 3])
    source[0, :5] = np.nan
    target_with_gaps = target.copy()
    target_with_gaps[1, 5:9] = np.nan
    aligned = ev.rigid_align(source, target_with_gaps)
    assert aligned[0, 5:] == pytest.approx(target[0, 5:])
    assert aligned[1] == pytest.approx(target[1])
    source[2] = np.nan
    assert np.isinf(ev.errors_3d_rigid(source, target)[2])


def test_errors_3d_similarity_by_hand():
    truth = np.zeros((84, 3))
    truth[52], truth[61] = (-50, 0, 0), (50, 0, 0)  # 100 mm between the outer corners
    truth[30], truth[0] = (0, -60, 20), (0, 60, 20)
    predicted = truth.copy()
    predicted[1:30, 2] += 3.0  # alignment can only lessen this
    error = ev.errors_3d_similarity(predicted, truth)
    assert 0 < error < 29 * 3.0 / 84 / 100 + 0.02
    assert ev.errors_3d_similarity(2 * predicted, truth) == pytest.approx(error)


# --- distribution ---


def test_ced_by_hand():
    errors = [0.02, 0.04, 0.04, np.nan, np.inf]
    at = [0.0, 0.02, 0.03, 0.04, 9]
    assert ev.cumulative_error(errors, at).tolist() == [
        0,
        0.2,
        0.2,
        0.6,
        0.6,
    ]


def test_auc_and_failure_rate_by_hand():
    # CED at 0, 1, 2, 3, 4: 0, 0, 1/2, 1/2, 1/2. Simpson: (0 + 4*0 + 2*.5 + 4*.5 + .5) / 3 = 7/6.
    assert ev.area_under_curve([2, 5], limit=4, step=1) == pytest.approx(7 / 6 / 4)
    assert ev.failure_rate([2, 5], limit=4) == 0.5
    assert ev.failure_rate([4, 4], limit=4) == 0.0  # at the limit is no failure


def test_auc_of_perfect_and_of_missing_predictions():
    assert ev.area_under_curve([0, 0], 0.08) == pytest.approx(1)
    assert ev.area_under_curve([np.inf], 0.08) == 0


@pytest.mark.parametrize(("limit", "step"), [(0.08, 1e-4), (0.3, 0.1), (8.0, 0.01)])
def test_ced_axis_ends_at_the_limit(limit, step):
    axis = ev.ced_axis(limit, step)
    assert axis[-1] == limit
    assert axis == pytest.approx(np.arange(0, limit + step, step)[: axis.size])


@pytest.mark.parametrize(("limit", "step"), [(0.08, 0.03), (0.08, 0), (-1, 1), (0, 1)])
def test_ced_axis_refuses_broken_steps(limit, step):
    with pytest.raises(P2FError, match="whole number of steps"):
        ev.ced_axis(limit, step)


def test_statistics_by_hand():
    got = ev.statistics([1, 2, 3, 4, 10, np.nan], limit=4, step=1)
    assert (got.n_frames, got.n_missing) == (6, 1)
    assert (got.mean, got.median, got.max) == (4, 3, 10)
    assert got.std == pytest.approx(np.sqrt((9 + 4 + 1 + 0 + 36) / 5))
    assert got.mad == 1  # deviations 2 1 0 1 7
    assert got.failure_rate == pytest.approx(2 / 6)  # 10 and the missing one
    # CED 0, 1/6, 2/6, 3/6, 4/6 is a line, which Simpson integrates exactly.
    assert got.auc == pytest.approx(1 / 3)


def test_statistics_of_nothing_is_refused():
    with pytest.raises(P2FError, match="no errors"):
        ev.statistics([], 0.08)
    with pytest.raises(P2FError, match="None of the 2 frames"):
        ev.statistics([np.nan, np.inf], 0.08)


# --- inner points, intervals, bins ---


def test_inner_points_are_the_same_of_both_markups():
    points = np.arange(84 * 2.0).reshape(84, 2)
    inner = ev.inner_points(points)
    np.testing.assert_array_equal(inner, points[33:])
    np.testing.assert_array_equal(ev.inner_points(menpo84_to_ibug68(points)), inner)
    with pytest.raises(P2FError, match="not 51"):
        ev.inner_points(inner)


def test_inner_errors_by_hand():
    """The jaw may be anywhere; 68 points are measured against 84."""
    rng = np.random.default_rng(0)
    truth = points84(rng)
    predicted = truth + np.array([3.0, 4.0])
    predicted[:, :33] += 100
    size = ev.interocular_distance(truth)
    expected = 5 / size
    np.testing.assert_allclose(ev.errors_2d_inner(predicted, truth), expected)
    few = menpo84_to_ibug68(predicted)
    np.testing.assert_allclose(ev.errors_2d_inner(few, truth), expected)
    space = points84(rng, 3)
    turned = 2 * space @ Rotation.from_rotvec([0.1, 0.5, -0.2]).as_matrix().T + [5, 6, 7]
    turned[:, :33] += 100
    np.testing.assert_allclose(ev.errors_3d_inner(turned, space), 0, atol=1e-9)
    assert ev.errors_3d_similarity(turned, space).min() > 0.01


def clustered(seed: int, clips: int = 12, frames: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    errors = rng.gamma(2, 0.02, clips)[:, None] + rng.gamma(2, 0.002, (clips, frames))
    return errors.ravel(), np.repeat(np.arange(clips), frames)


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_equal_scipys_bca_of_the_clips_means(seed):
    """With equally long clips the mean over frames is the mean over clips."""
    errors, clips = clustered(seed)
    ours = ev.bootstrap_interval(errors, clips, draws=50_000)
    means = errors.reshape(12, -1).mean(1)
    theirs = scipy.stats.bootstrap(
        (means,), np.mean, n_resamples=50_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_intervals_grow_when_neighbouring_frames_err_alike():
    errors, clips = clustered(0)
    by_clip = ev.bootstrap_interval(errors, clips)
    by_frame = ev.bootstrap_interval(errors, np.arange(len(errors)))
    assert by_clip.high - by_clip.low > 2 * (by_frame.high - by_frame.low)
    assert by_clip.low < errors.mean() < by_clip.high


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(200):
        errors, clips = clustered(seed, clips=30, frames=3)
        interval = ev.bootstrap_interval(errors, clips, draws=400, level=0.8)
        held += interval.low <= 0.044 <= interval.high  # means of the two gammas
    assert 0.7 < held / 200 < 0.9


def test_intervals_do_not_depend_on_order_missing_frames_or_last_digits():
    errors, clips = clustered(3, clips=4)
    interval = ev.bootstrap_interval(errors, clips)
    assert interval == ev.bootstrap_interval(errors, clips)
    rounded = ev.bootstrap_interval(errors * (1 + 1e-15), clips)
    assert rounded.low == pytest.approx(interval.low, rel=1e-9)
    gaps = np.append(errors, [np.inf, np.nan]), np.append(clips, [0, 99])
    assert ev.bootstrap_interval(*gaps) == interval
    many = clustered(3)
    assert ev.bootstrap_interval(*many, seed=1) != ev.bootstrap_interval(*many)


def test_intervals_of_too_few_and_of_equal_clips():
    alone = ev.bootstrap_interval([1.0, 2.0], [0, 0])
    assert np.isnan([alone.low, alone.high]).all()
    equal = ev.bootstrap_interval([2.0] * 6, [0, 0, 1, 1, 2, 2])
    assert (equal.low, equal.high) == (2.0, 2.0)
    with pytest.raises(P2FError, match="Every error belongs to a clip"):
        ev.bootstrap_interval([1.0], [0, 1])


def test_bins_take_both_ends():
    values = [0, 14.9, 15, 89, 90, 90.1, -1, np.nan]
    np.testing.assert_array_equal(ev.bins_of(values, (0, 15, 90)), [0, 0, 1, 1, 1, -1, -1, -1])


# --- menpofit's definitions ---


def test_statistics_are_menpofits():
    """menpofit/error/stats.py, spelt out: bins by arange, CED by counting, Simpson by hand."""
    errors = np.array([0.011, 0.023, 0.036, 0.036, 0.049, 0.074, 0.12])
    limit, step = 0.08, 0.01
    bins = np.arange(0, limit + step / 2, step)
    ced = [np.count_nonzero(errors <= x) / len(errors) for x in bins]
    thirds = np.array([1, 4, 2, 4, 2, 4, 2, 4, 1]) / 3
    s = ev.statistics(errors, limit, step)
    assert s.auc == pytest.approx(step * (thirds @ ced) / limit)
    assert s.failure_rate == pytest.approx(1 - ced[-1])
    assert s.mad == pytest.approx(np.median(np.abs(errors - 0.036)))
    assert (s.mean, s.std) == (pytest.approx(errors.mean()), pytest.approx(errors.std()))


# --- baseline ---


@pytest.mark.parametrize("markup", ["ibug68", "menpo84"])
def test_mean_face_is_frontal_and_follows_the_box(markup):
    model = toy_model()
    points = ev.mean_face_in_box(model, Box(100, 50, 200, 150), markup)
    tight = Box.around(points)
    assert max(tight.width, tight.height) == pytest.approx(100 * ev.BASELINE_SCALE)
    assert tight.center == pytest.approx((150, 100 + 100 * ev.BASELINE_DROP))
    left, right = (points[k] for k in OUTER_EYE_CORNERS[markup])
    assert left[0] < right[0]
    chin = len(GROUPS[markup]["jaw"]) // 2
    assert points[chin, 1] > left[1]  # y down
    moved = ev.mean_face_in_box(model, Box(207, 107, 407, 307), markup)
    assert moved == pytest.approx(2 * points + 7)


def test_mean_face_needs_the_markup():
    with pytest.raises(P2FError, match="no mark-up 'wflw98'"):
        ev.mean_face_in_box(toy_model(), Box(0, 0, 10, 10), "wflw98")
