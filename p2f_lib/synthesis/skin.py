"""Colours of people: skin by melanin and blood, hair, eyes."""

from __future__ import annotations

import numpy as np

# Display colours of skin from fair to dark, evenly lit; the tone runs evenly along the list.
SKIN_ANCHORS = (
    np.array([[246, 216, 198], [228, 184, 156], [198, 146, 112], [148, 98, 70], [98, 62, 45],
              [62, 40, 31]])
    / 255
)  # fmt: skip
HAIR_COLORS = {  # linear reflectance
    "black": (0.010, 0.009, 0.009),
    "dark brown": (0.030, 0.018, 0.012),
    "brown": (0.085, 0.045, 0.024),
    "light brown": (0.19, 0.11, 0.055),
    "blond": (0.42, 0.29, 0.14),
    "pale blond": (0.62, 0.50, 0.32),
    "red": (0.24, 0.075, 0.025),
    "grey": (0.28, 0.27, 0.26),
    "white": (0.70, 0.69, 0.67),
}
IRIS_COLORS = np.array(
    [[0.030, 0.015, 0.008], [0.07, 0.035, 0.015], [0.13, 0.08, 0.03], [0.11, 0.12, 0.06],
     [0.12, 0.19, 0.27], [0.20, 0.24, 0.26]]
)  # fmt: skip


def to_linear(display: np.ndarray) -> np.ndarray:
    """Display values in [0, 1] to linear light (plain power law)."""
    return np.power(display, 2.2)


def skin_albedo(tone: float, blood: float) -> np.ndarray:
    """(3,) linear reflectance of skin.

    Parameters
    ----------
    tone : melanin, 0 fair to 1 dark.
    blood : haemoglobin, about -1 pale to 1 ruddy; absorbs green most.
    """
    x = np.linspace(0, 1, len(SKIN_ANCHORS))
    log = np.log(to_linear(SKIN_ANCHORS))
    melanin = np.array([np.interp(tone, x, log[:, k]) for k in range(3)])
    return np.exp(melanin + blood * np.array([0.05, -0.16, -0.12]))


def skin_color(rng: np.random.Generator) -> np.ndarray:
    """(3,) a random display colour of skin."""
    return skin_albedo(rng.random(), rng.normal(0, 0.6)) ** (1 / 2.2) * rng.uniform(0.6, 1.0)
