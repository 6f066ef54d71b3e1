"""Errors of landmarks, and what the challenge reports of them: CED, AUC and failure rate.

Arrays are batched over leading axes: points are (..., L, 2) in pixels or (..., L, 3) in mm.

Missing values: a truth point that is NaN is left out; a prediction that is not finite where the
truth is known has the error inf. So a frame without a prediction counts as a failure in the CED,
the AUC and the failure rate, and is never silently dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import simpson
from scipy.special import ndtr, ndtri

from p2f_lib.crop import Box
from p2f_lib.errors import P2FError
from p2f_lib.landmarks import GROUPS, MARKUPS, OUTER_EYE_CORNERS
from p2f_lib.morphable_model import MorphableModel

_MARKUP_OF = {n_points: name for name, n_points in MARKUPS.items()}
INNER = "inner"  # the group of everything but the jaw line


# --- errors of points -----------------------------------------------------------------------------


def point_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of every point from its truth.

    Parameters
    ----------
    predicted, truth
        (..., L, D) points of the same shape and unit.

    Returns
    -------
    (..., L) distances in that unit; NaN where the truth is unknown, inf where it is known and the
    prediction isn't finite.
    """
    predicted, truth = _same_shape(predicted, truth)
    known = np.isfinite(truth).all(-1)
    given = np.isfinite(predicted).all(-1)
    with np.errstate(invalid="ignore"):
        errors = np.linalg.norm(predicted - truth, axis=-1)
    return np.where(known, np.where(given, errors, np.inf), np.nan)


def mean_point_error(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean point-to-point error over the points whose truth is known.

    Parameters
    ----------
    predicted, truth
        (..., L, D) points of the same shape and unit.

    Returns
    -------
    (...) mean distances in that unit; inf where a prediction is missing.

    Raises
    ------
    P2FError
        If a frame has no known truth point at all.
    """
    return _mean_of_known(point_errors(predicted, truth))


def group_errors(errors: np.ndarray) -> dict[str, np.ndarray]:
    """Mean error of each landmark group, from the (..., L) errors of `point_errors`.

    L is 68 or 84. The names are those of `p2f_lib.landmarks.GROUPS`, and "inner" for everything but
    the jaw line. A group whose truth is unknown has NaN.
    """
    errors = np.asarray(errors, dtype=float)
    groups = dict(GROUPS[_markup(errors.shape[-1])])
    groups[INNER] = range(len(groups["jaw"]), errors.shape[-1])
    means = {}
    for name, indices in groups.items():
        part = errors[..., list(indices)]
        known = ~np.isnan(part)
        with np.errstate(invalid="ignore"):
            means[name] = np.where(known, part, 0.0).sum(-1) / known.sum(-1)
    return means


def inner_points(points: np.ndarray) -> np.ndarray:
    """(..., 68 or 84, D) points -> (..., 51, D): all but the jaw, the same in both mark-ups."""
    points = np.asarray(points)
    return points[..., len(GROUPS[_markup(points.shape[-2])]["jaw"]) :, :]


# --- normalisers ----------------------------------------------------------------------------------


def interocular_distance(truth: np.ndarray) -> np.ndarray:
    """(..., L, D) points of 68 or 84 -> (...) distance between the outer eye corners.

    In pixels it shrinks with yaw, so that errors over it grow without bound near profile.
    """
    truth = np.asarray(truth, dtype=float)
    left, right = OUTER_EYE_CORNERS[_markup(truth.shape[-2])]
    return np.linalg.norm(truth[..., left, :] - truth[..., right, :], axis=-1)


def box_diagonal(truth: np.ndarray) -> np.ndarray:
    """(..., L, 2) points -> (...) diagonal of their tight box."""
    return np.linalg.norm(_extent(truth), axis=-1)


def box_size(truth: np.ndarray) -> np.ndarray:
    """(..., L, 2) points -> (...) sqrt(width * height) of their tight box (the AFLW2000 habit)."""
    return np.sqrt(_extent(truth).prod(-1))


NORMALIZERS = {
    "interocular": interocular_distance,
    "diagonal": box_diagonal,
    "size": box_size,
}


def errors_2d(
    predicted: np.ndarray, truth: np.ndarray, normalizer: str = "interocular"
) -> np.ndarray:
    """Normalised mean error in the picture, one number a frame (paper 4.1).

    Parameters
    ----------
    predicted, truth
        (..., L, 2) pixels.
    normalizer
        "interocular", "diagonal" or "size"; always measured on the truth.

    Returns
    -------
    (...) errors as fractions (0.05 is 5 %).
    """
    if normalizer not in NORMALIZERS:
        raise P2FError(f"Unknown normalizer {normalizer!r}; choose one of {sorted(NORMALIZERS)}.")
    return _over(mean_point_error(predicted, truth), NORMALIZERS[normalizer](truth), normalizer)


def errors_2d_inner(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """As `errors_2d` over the interocular distance, of the 51 inner points alone.

    `predicted` and `truth` may be of different mark-ups, 68 or 84 points.
    """
    errors = mean_point_error(inner_points(predicted), inner_points(truth))
    return _over(errors, interocular_distance(truth), "interocular")


# --- errors in space ------------------------------------------------------------------------------


def rigid_align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`source` turned and moved (never scaled or mirrored) onto `target`, least squares.

    Parameters
    ----------
    source, target
        (..., L, 3) corresponding points. Pairs with a NaN take no part.

    Returns
    -------
    (..., L, 3) aligned source points; NaN where fewer than three pairs are known.

    References
    ----------
    Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    PAMI 13(4), 1991.
    """
    return _umeyama(source, target, with_scale=False)


def similarity_align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """As `rigid_align`, with one common scale as well."""
    return _umeyama(source, target, with_scale=True)


def errors_3d_rigid(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(..., L, 3) mm -> (...) mean distance in mm after rigid alignment of each frame."""
    return mean_point_error(rigid_align(predicted, truth), truth)


def errors_3d_similarity(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(..., L, 3) -> (...) mean distance after similarity alignment of each frame, as a fraction of
    the truth's distance between the outer eye corners in space."""
    errors = mean_point_error(similarity_align(predicted, truth), truth)
    return _over(errors, interocular_distance(truth), "interocular")


def errors_3d_inner(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """As `errors_3d_similarity`, aligned and measured by the 51 inner points alone."""
    source, target = inner_points(predicted), inner_points(truth)
    errors = mean_point_error(similarity_align(source, target), target)
    return _over(errors, interocular_distance(truth), "interocular")


def _umeyama(source: np.ndarray, target: np.ndarray, with_scale: bool) -> np.ndarray:
    source, target = _same_shape(source, target)
    known = np.isfinite(source).all(-1) & np.isfinite(target).all(-1)  # (..., L)
    count = known.sum(-1)[..., None, None]
    enough = count >= 3
    n = np.maximum(count, 1)
    x = np.where(known[..., None], source, 0.0)
    y = np.where(known[..., None], target, 0.0)

    mean_x = x.sum(-2, keepdims=True) / n  # Umeyama Eq. 34
    mean_y = y.sum(-2, keepdims=True) / n  # Umeyama Eq. 35
    dx = np.where(known[..., None], x - mean_x, 0.0)
    dy = np.where(known[..., None], y - mean_y, 0.0)
    variance_x = (dx**2).sum((-2, -1), keepdims=True) / n  # Umeyama Eq. 36
    covariance = np.swapaxes(dy, -1, -2) @ dx / n  # Umeyama Eq. 38

    u, d, vt = np.linalg.svd(covariance)
    s = np.ones_like(d)
    # Umeyama Eq. 39, 43: flip the weakest axis rather than mirror the face.
    s[..., -1] = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)
    rotation = (u * s[..., None, :]) @ vt  # Umeyama Eq. 40
    scale = 1.0
    if with_scale:
        trace = (d * s).sum(-1)[..., None, None]
        scale = trace / np.maximum(variance_x, np.finfo(float).tiny)  # Umeyama Eq. 42
    # Umeyama Eq. 41 inside: c R x + t with t = mean_y - c R mean_x
    aligned = scale * (source - mean_x) @ np.swapaxes(rotation, -1, -2) + mean_y
    return np.where(enough, aligned, np.nan)


# --- distribution ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """What is reported of one method's errors; the unit is that of the errors.

    `mean`, `std` (population), `median`, `mad` (median absolute deviation about the median) and
    `max` describe the frames with a prediction; `auc` and `failure_rate` count the `n_missing`
    frames without one as failures.
    """

    n_frames: int
    n_missing: int
    mean: float
    std: float
    median: float
    mad: float
    max: float
    auc: float
    failure_rate: float


def cumulative_error(errors: np.ndarray, x: ArrayLike) -> np.ndarray:
    """CED(x): the fraction of frames whose error is at most x (inf and NaN count as larger).

    Parameters
    ----------
    errors
        (F,) errors.
    x
        (...) where to evaluate, in the same unit.
    """
    errors = _all_errors(errors)
    return np.searchsorted(np.sort(errors), np.asarray(x, dtype=float), side="right") / errors.size


def ced_axis(limit: float, step: float) -> np.ndarray:
    """The samples 0, step, ..., limit of a CED.

    The same as ``np.arange(0, limit + step, step)``, without its rounding, which may overshoot the
    limit by one step.
    """
    count = round(limit / step) if step > 0 else 0
    if count < 1 or abs(count * step - limit) > 1e-6 * limit:
        raise P2FError(
            f"A CED needs a limit that is a whole number of steps, got limit {limit}, step {step}."
        )
    return np.linspace(0.0, limit, count + 1)


def area_under_curve(errors: np.ndarray, limit: float, step: float = 1e-4) -> float:
    """AUC: Simpson's integral of the CED sampled from 0 to `limit`, over `limit`; 1 is perfect.

    The value depends on `step`, so quote it together with `limit`.
    """
    x = ced_axis(limit, step)
    return float(simpson(cumulative_error(errors, x), x=x) / limit)


def failure_rate(errors: np.ndarray, limit: float) -> float:
    """The fraction of frames whose error exceeds `limit`, that is 1 - CED(limit)."""
    return float(1.0 - cumulative_error(errors, limit))


def statistics(errors: np.ndarray, limit: float, step: float = 1e-4) -> Statistics:
    """Summary of (F,) errors; `limit` and `step` belong to AUC and failure rate.

    Raises
    ------
    P2FError
        If there is no error, or none that is finite.
    """
    errors = _all_errors(errors)
    finite = errors[np.isfinite(errors)]
    if finite.size == 0:
        raise P2FError(f"None of the {errors.size} frames has a prediction; nothing to summarise.")
    median = np.median(finite)
    return Statistics(
        n_frames=errors.size,
        n_missing=errors.size - finite.size,
        mean=float(finite.mean()),
        std=float(finite.std()),
        median=float(median),
        mad=float(np.median(np.abs(finite - median))),
        max=float(finite.max()),
        auc=area_under_curve(errors, limit, step),
        failure_rate=failure_rate(errors, limit),
    )


@dataclass(frozen=True)
class Interval:
    """A confidence interval; NaN where too few clips say anything."""

    low: float
    high: float


def bootstrap_interval(
    errors: np.ndarray,
    clips: np.ndarray,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """How far the mean error might be another one, had other clips been drawn.

    Clips are drawn with replacement, not frames: neighbouring frames err alike, so that more of
    them don't say more. The interval is bias-corrected and accelerated (BCa). Differences between
    two methods on the same frames are compared pair by pair in the same way.

    Parameters
    ----------
    errors
        (F,) errors or differences; those that aren't finite take no part.
    clips
        (F,) the clip of each frame.
    draws, seed
        How many sets of clips, and what decides them.
    level
        Share of such intervals that hold the true mean.

    References
    ----------
    Efron, "Better bootstrap confidence intervals", JASA 82(397), 1987.
    """
    errors, clips = np.asarray(errors, dtype=float).ravel(), np.asarray(clips).ravel()
    if errors.shape != clips.shape:
        raise P2FError(f"Every error belongs to a clip, got {errors.size} and {clips.size}.")
    finite = np.isfinite(errors)
    _, number = np.unique(clips[finite], return_inverse=True)
    counts = np.bincount(number)
    if len(counts) < 2:
        return Interval(float("nan"), float("nan"))
    sums = np.bincount(number, errors[finite])
    rng, parts = np.random.default_rng(seed), []
    for start in range(0, draws, chunk := max(1, 2**20 // len(counts))):  # bounded memory
        drawn = rng.integers(len(counts), size=(min(chunk, draws - start), len(counts)))
        parts.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    means, estimate = np.concatenate(parts), sums.sum() / counts.sum()

    # Sets of few clips often have the same mean, but for rounding: those count by half.
    apart = np.where(np.isclose(means, estimate, rtol=1e-9, atol=1e-12), 0.0, means - estimate)
    bias = ndtri((1 - np.sign(apart).mean()) / 2)
    without = (sums.sum() - sums) / (counts.sum() - counts)  # jackknife
    lean = without.mean() - without
    spread = (lean**2).sum() ** 1.5
    acceleration = (lean**3).sum() / (6 * spread) if spread > 0 else 0.0
    tails = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    shares = ndtr(bias + tails / (1 - acceleration * tails))  # Efron Eq. 3.8, 4.2
    if not np.isfinite(shares).all():  # all sets of clips agree
        shares = np.array([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, shares)
    return Interval(float(low), float(high))


def bins_of(values: np.ndarray, edges: ArrayLike) -> np.ndarray:
    """(F,) numbers of the bins that values fall into, both ends of the edges included.

    Returns
    -------
    (F,) int; -1 for NaN and for values outside.
    """
    values, edges = np.asarray(values, dtype=float), np.asarray(edges, dtype=float)
    number = np.searchsorted(edges, values, side="right") - 1
    number = np.where(values == edges[-1], len(edges) - 2, number)
    return np.where((values >= edges[0]) & (values <= edges[-1]), number, -1)


# --- AFLW2000-3D ----------------------------------------------------------------------------------

YAW_BINS = (30.0, 60.0)  # degrees of |yaw| that part the three bins
ANGLE_LIMIT = 99.0  # degrees; pictures with a true angle beyond are left out of the pose error


@dataclass(frozen=True)
class YawErrors:
    """Errors by true |yaw|: [0, 30], (30, 60] and beyond 60 degrees.

    Means are over the pictures with a prediction; NaN where a bin has none.

    Attributes
    ----------
    bins : mean of each bin, in the unit of the errors.
    mean_of_bins : their unweighted mean, what 3DDFA's benchmark calls "mean".
    mean : over the pictures, what others call so.
    counts : pictures of each bin.
    missing : those of them without a prediction.
    """

    bins: tuple[float, ...]
    mean_of_bins: float
    mean: float
    counts: tuple[int, ...]
    missing: tuple[int, ...]


def errors_by_yaw(errors: np.ndarray, yaw: np.ndarray) -> YawErrors:
    """The protocol of 3DDFA for AFLW2000-3D.

    Parameters
    ----------
    errors
        (F,) one a picture, for instance of `errors_2d` over "size"; inf or NaN without a
        prediction.
    yaw
        (F,) true yaw in degrees; the sign doesn't matter.

    References
    ----------
    Zhu et al., "Face alignment across large poses: a 3D solution", CVPR 2016, section 5;
    benchmark_aflw2000.py of github.com/cleardusk/3DDFA.
    """
    errors, yaw = _all_errors(errors), np.abs(np.asarray(yaw, dtype=float)).ravel()
    if yaw.shape != errors.shape or not np.isfinite(yaw).all():
        raise P2FError(
            f"Every picture needs an error and a true yaw, got {errors.size} errors and "
            f"{np.isfinite(yaw).sum()} angles."
        )
    found = np.isfinite(errors)
    number = np.searchsorted(YAW_BINS, yaw, side="left")  # 30 itself belongs to the first bin
    members = [number == k for k in range(len(YAW_BINS) + 1)]
    bins = [_mean(errors[member & found]) for member in members]
    return YawErrors(
        bins=tuple(bins),
        mean_of_bins=float(np.mean(bins)),
        mean=_mean(errors[found]),
        counts=tuple(int(member.sum()) for member in members),
        missing=tuple(int((member & ~found).sum()) for member in members),
    )


@dataclass(frozen=True)
class PoseErrors:
    """Mean absolute errors of head pose, degrees, over the pictures with a prediction.

    Attributes
    ----------
    yaw, pitch, roll, mean : errors, and the mean of the three.
    bias : mean of prediction minus truth for yaw, pitch and roll. Face models do not agree on what
        looking straight ahead is; that part of the error is a constant pitch.
    n_frames : pictures counted, with or without a prediction.
    n_missing : those of them without one.
    n_left_out : pictures with a true angle beyond `ANGLE_LIMIT`.
    """

    yaw: float
    pitch: float
    roll: float
    mean: float
    bias: tuple[float, ...]
    n_frames: int
    n_missing: int
    n_left_out: int


def pose_errors(predicted: np.ndarray, truth: np.ndarray, limit: float = ANGLE_LIMIT) -> PoseErrors:
    """Head-pose errors as the field measures them on AFLW2000.

    Parameters
    ----------
    predicted, truth
        (F, 3) yaw, pitch, roll in degrees, both in the convention of the data set; rows of NaN
        without a prediction. Differences are taken around the circle.
    limit
        Degrees; pictures with any true angle beyond it are left out.

    References
    ----------
    Ruiz et al., "Fine-grained head pose estimation without keypoints", CVPRW 2018: its bins end at
    99 degrees.
    """
    predicted, truth = _same_shape(predicted, truth)
    if truth.shape[1:] != (3,) or not np.isfinite(truth).all():
        raise P2FError(f"True angles must be finite rows of yaw, pitch and roll: {truth.shape}.")
    counted = (np.abs(truth) <= limit).all(axis=1)
    found = counted & np.isfinite(predicted).all(axis=1)
    difference = (predicted[found] - truth[found] + 180) % 360 - 180
    yaw, pitch, roll = (_mean(np.abs(column)) for column in difference.T)
    return PoseErrors(
        yaw,
        pitch,
        roll,
        mean=float(np.mean([yaw, pitch, roll])),
        bias=tuple(_mean(column) for column in difference.T),
        n_frames=int(counted.sum()),
        n_missing=int((counted & ~found).sum()),
        n_left_out=int((~counted).sum()),
    )


# --- baseline -------------------------------------------------------------------------------------

# A detector's box -> the box of the mean face's landmarks: larger side over the box's larger side,
# and how far its centre lies below the box's centre, over the same. Measured with dlib's detector
# on synthetic faces.
BASELINE_SCALE = 0.96
BASELINE_DROP = 0.10


def mean_face_in_box(
    model: MorphableModel,
    box: Box,
    markup: str = "menpo84",
    scale: float = BASELINE_SCALE,
    drop: float = BASELINE_DROP,
) -> np.ndarray:
    """The baseline: landmarks of the frontal mean face, placed by the detector's box alone.

    Parameters
    ----------
    model
        The face model.
    box
        Where the detector sees the face, pixels.
    markup
        Name of the model's landmark list.
    scale, drop
        From the larger side of `box` to the larger side of the landmarks' box, and how far that
        lies below the centre of `box`. The defaults are for dlib's boxes; 1 and 0 are for boxes
        that were drawn around landmarks.

    Returns
    -------
    (L, 2) pixels.
    """
    if markup not in model.landmarks:
        raise P2FError(
            f"The face model has no mark-up {markup!r}; it has {sorted(model.landmarks)}."
        )
    points = model.mean[model.landmarks[markup], :2] * (1.0, -1.0)  # y up -> y down
    tight = Box.around(points)
    side = max(box.width, box.height)
    zoom = scale * side / max(tight.width, tight.height)
    x, y = box.center
    return (points - tight.center) * zoom + (x, y + drop * side)


# --- helpers --------------------------------------------------------------------------------------


def _markup(n_points: int) -> str:
    if n_points not in _MARKUP_OF:
        raise P2FError(f"The mark-ups have {sorted(_MARKUP_OF)} points, not {n_points}.")
    return _MARKUP_OF[n_points]


def _same_shape(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    if predicted.shape != truth.shape or truth.ndim < 2:
        raise P2FError(
            "Predicted and true points must have one shape (..., L, D), "
            f"got {predicted.shape} and {truth.shape}."
        )
    return predicted, truth


def _mean_of_known(errors: np.ndarray) -> np.ndarray:
    known = ~np.isnan(errors)
    if not known.any(-1).all():
        raise P2FError("A frame has no known truth point; leave it out of the evaluation.")
    return np.where(known, errors, 0.0).sum(-1) / known.sum(-1)


def _extent(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, dtype=float)
    if points.ndim < 2 or points.shape[-1] != 2 or np.isnan(points).all((-2, -1)).any():
        raise P2FError(f"A box needs known points (..., L, 2), got shape {points.shape}.")
    return np.nanmax(points, axis=-2) - np.nanmin(points, axis=-2)


def _over(errors: np.ndarray, size: np.ndarray, name: str) -> np.ndarray:
    if not (size > 0).all():
        raise P2FError(
            f"The {name} normaliser of the truth is zero or unknown in a frame; "
            "choose another normaliser or leave the frame out."
        )
    return errors / size


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _all_errors(errors: np.ndarray) -> np.ndarray:
    errors = np.asarray(errors, dtype=float).ravel()
    if errors.size == 0:
        raise P2FError("There are no errors to summarise.")
    return np.where(np.isnan(errors), np.inf, errors)
