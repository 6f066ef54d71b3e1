"""The One-Euro filter against its published form, number by number."""

import math

import numpy as np
import pytest

from p2f_lib.errors import P2FError
from p2f_lib.smoothing import OneEuro


def slow_one_euro(values, times, min_cutoff, beta, derivative_cutoff):
    """One number after the other, as in the paper's pseudocode (Casiez et al. 2012)."""

    def alpha(cutoff, step):
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau / step)

    result, slope = [values[0]], 0.0
    for k in range(1, len(values)):
        step = times[k] - times[k - 1]
        a = alpha(derivative_cutoff, step)
        slope = a * (values[k] - result[-1]) / step + (1 - a) * slope
        a = alpha(min_cutoff + beta * abs(slope), step)
        result.append(a * values[k] + (1 - a) * result[-1])
    return result


def test_equals_the_published_form_at_an_uneven_frame_rate():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.1, 40))
    values = rng.normal(size=(40, 3, 2)).cumsum(axis=0)
    smooth = OneEuro(1.2, 0.7, 0.9)
    got = np.array([smooth(row, time) for row, time in zip(values, times, strict=True)])
    for i in range(3):
        for j in range(2):
            expected = slow_one_euro(values[:, i, j], times, 1.2, 0.7, 0.9)
            np.testing.assert_allclose(got[:, i, j], expected)


def test_a_still_point_trembles_less_and_a_quick_one_hardly_lags():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.01, 200)
    still = OneEuro()
    smoothed = [float(still(np.array(v), k / 25)) for k, v in enumerate(noise)]
    assert np.std(smoothed[20:]) < 0.8 * np.std(noise)
    quick, slow = OneEuro(), OneEuro(beta=0.0)
    lags = [
        [2 * k / 25 - float(one(np.array(2 * k / 25), k / 25)) for k in range(50)][-1]
        for one in (quick, slow)
    ]
    assert 0 < lags[0] < 0.5 * lags[1]


def test_speed_counts_in_units():
    small, large = OneEuro(), OneEuro()
    for k in range(20):
        value = np.array([math.sin(k)])
        a, b = small(value, k / 30, unit=1.0), large(100 * value, k / 30, unit=100.0)
        np.testing.assert_allclose(100 * a, b)


def test_begins_anew_after_a_gap_or_in_another_scene():
    smooth = OneEuro()
    smooth(np.zeros(2), 0.0)
    assert smooth(np.ones(2), 0.1)[0] < 1
    assert np.isnan(smooth(np.array([np.nan, 1.0]), 0.2)).any()
    assert smooth(np.full(2, 5.0), 0.3).tolist() == [5, 5]
    assert smooth(np.full(2, 9.0), 0.4, scene=1).tolist() == [9, 9]


def test_wrong_use_is_a_sentence():
    smooth = OneEuro()
    smooth(np.zeros(1), 1.0)
    with pytest.raises(P2FError, match="Time has to grow, got 1 s after 1 s"):
        smooth(np.zeros(1), 1.0)
    for wrong in ({"min_cutoff": 0}, {"beta": -1}, {"derivative_cutoff": 0}):
        with pytest.raises(P2FError, match="above 0"):
            OneEuro(**wrong)
