"""Colours: of people (skin by melanin and blood, hair, eyes) and of things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

Key = TypeVar("Key")

# Display colours of skin from fair to dark, evenly lit; the tone runs evenly along the list.
SKIN_ANCHORS = (
    np.array([[246, 216, 198], [228, 184, 156], [198, 146, 112], [148, 98, 70], [98, 62, 45],
              [62, 40, 31]])
    / 255
)  # fmt: skip
SKIN_LOG = 2.2 * np.log(SKIN_ANCHORS)  # of linear reflectance
THIRDS = np.array([0.0, 2.09, 4.19])  # of the circle of hues
_HAIR = {  # linear reflectance
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
HAIR_COLORS = {name: np.array(color) for name, color in _HAIR.items()}
IRIS_COLORS = np.array(
    [[0.030, 0.015, 0.008], [0.07, 0.035, 0.015], [0.13, 0.08, 0.03], [0.11, 0.12, 0.06],
     [0.12, 0.19, 0.27], [0.20, 0.24, 0.26]]
)  # fmt: skip


def to_linear(display: np.ndarray) -> np.ndarray:
    """Display values in [0, 1] to linear light (plain power law)."""
    return np.power(display, 2.2)


def pick(rng: np.random.Generator, shares: Mapping[Key, float]) -> Key:
    """A key of `shares`, each as likely as its value says: `Generator.choice`, but fast."""
    left = rng.random() * sum(shares.values())
    for chosen, share in shares.items():  # noqa: B007
        left -= share
        if left < 0:
            break
    return chosen


def tint(hue: float) -> np.ndarray:
    """(3,) in [-1, 1]: how a hue (radians; 0 is red) shifts the three channels."""
    return np.cos(hue + THIRDS)


def random_color(rng: np.random.Generator, saturation: float = 0.6) -> np.ndarray:
    """(3,) display colour in [0, 1], often muted."""
    chroma = rng.beta(1.0, 2.0) * saturation
    color = rng.beta(1.2, 1.2) * (1 + chroma * tint(rng.uniform(0, 2 * np.pi)))
    return np.minimum(np.maximum(color, 0.01), 1).astype(np.float32)


def skin_albedo(tone: float, blood: float) -> np.ndarray:
    """(3,) linear reflectance of skin.

    Parameters
    ----------
    tone : melanin, 0 fair to 1 dark.
    blood : haemoglobin, about -1 pale to 1 ruddy; absorbs green most.
    """
    place = min(max(tone, 0.0), 1.0) * (len(SKIN_LOG) - 1)
    low = min(int(place), len(SKIN_LOG) - 2)
    melanin = SKIN_LOG[low] + (place - low) * (SKIN_LOG[low + 1] - SKIN_LOG[low])
    return np.exp(melanin + blood * np.array([0.05, -0.16, -0.12]))


def skin_color(rng: np.random.Generator) -> np.ndarray:
    """(3,) a random display colour of skin."""
    return skin_albedo(rng.random(), rng.normal(0, 0.6)) ** (1 / 2.2) * rng.uniform(0.6, 1.0)
