"""Hands: a palm, jointed fingers, a thumb, nails and a sleeve."""

from __future__ import annotations

import numba
import numpy as np

from p2f_lib.synthesis.relief import draw_relief
from p2f_lib.synthesis.skin import random_color, to_linear

# Sideways place of knuckle and wrist, finger length, radius of root and tip; mm, index first.
FINGERS = np.array(
    [[-29, -17, 72, 9.5, 7.2], [-9.5, -6, 80, 9.8, 7.4], [10, 6, 74, 9.3, 7.0],
     [28, 17, 58, 8.3, 6.2]]
)  # fmt: skip
THUMB = ((38.0, 15.0, 11.5), (32.0, 11.5, 10.0), (25.0, 10.0, 7.5))  # length, radii
SKIN_PART, SLEEVE, NAIL = range(3)


def hand_capsules(
    wrist: np.ndarray, forward: float, unit: float, curl: np.ndarray, spread: float, thumb: float,
    side: float, toward: float, sleeve: float, nails: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A hand and its forearm as rounded bars.

    Parameters
    ----------
    wrist : (2,) pixels.
    forward : direction from the wrist to the fingers, radians; x right, y down.
    unit : pixels of a millimetre.
    curl : (4,) of the fingers from the index, 0 straight to 1 a fist.
    spread : angle between neighbouring fingers, radians.
    thumb : its angle to the fingers, radians.
    side : 1 with the thumb to the left of `forward`, -1 to the right.
    toward : 1 if fingers curl towards the viewer, -1 away.
    sleeve : mm of bare forearm.
    nails : whether they are seen.

    Returns
    -------
    capsules : (N, 8) as `draw_relief` takes them.
    parts : (N,) SKIN_PART, SLEEVE or NAIL.
    """
    return _hand_capsules(
        np.asarray(wrist, np.float64), float(forward), float(unit), np.asarray(curl, np.float64),
        float(spread), float(thumb), float(side), float(toward), float(sleeve), bool(nails),
        FINGERS, THUMB,
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _hand_capsules(
    wrist, forward, unit, curl, spread, thumb, side, toward, sleeve, nails, fingers, thumbs
):
    out = np.zeros((32, 8))
    parts = np.zeros(32, np.uint8)
    n = 0
    fx, fy = np.cos(forward), np.sin(forward)
    ax, ay = -fy * side, fx * side  # towards the little finger
    # The palm's hollow, the forearm, its sleeve: (along, radius, height) of both ends.
    for bar in (
        (18.0, 20.0, -8.0, 82.0, 29.0, -14.0, 0),
        (12.0, 23.0, -4.0, -260.0, 38.0, -10.0, 0),
        (-sleeve, 33.0, -4.0, -270.0, 52.0, 0.0, 1),
    ):
        out[n] = (
            fx * bar[0], fy * bar[0], bar[1], bar[2], fx * bar[3], fy * bar[3], bar[4], bar[5]
        )  # fmt: skip
        parts[n] = bar[6]
        n += 1
    for k in range(4):
        knuckle, root, length, wide, tip = fingers[k]
        x, y = fx * 92 + ax * knuckle, fy * 92 + ay * knuckle
        out[n] = (fx * 12 + ax * root, fy * 12 + ay * root, 13.0, 0.0, x, y, 11.0, 0.0)
        n += 1
        turn = forward + side * spread * (k - 1.5)
        ux, uy, z = np.cos(turn), np.sin(turn), 0.0
        bend, radius = 0.0, wide
        for joint in range(3):
            bend += curl[k] * (1.35, 1.75, 1.1)[joint]
            step = length * (0.44, 0.31, 0.25)[joint]
            px, py, pz, thin = x, y, z, radius
            x, y = x + ux * step * np.cos(bend), y + uy * step * np.cos(bend)
            z += toward * step * np.sin(bend)
            radius = wide + (tip - wide) * (joint + 1) / 3
            out[n] = (px, py, thin, pz, x, y, radius, z)
            n += 1
        if nails and curl[k] < 0.35:
            out[n] = (
                x - 2 * ux, y - 2 * uy, 0.55 * tip, z + 0.65 * tip, x + 0.35 * tip * ux,
                y + 0.35 * tip * uy, 0.5 * tip, z + 0.5 * tip,
            )  # fmt: skip
            parts[n] = 2
            n += 1
    x, y, z = fx * 24 - ax * 22, fy * 24 - ay * 22, 3.0
    turn = forward - side * thumb
    for joint in range(3):
        step, thick, thin = thumbs[joint]
        px, py, pz = x, y, z
        x, y = x + np.cos(turn) * step, y + np.sin(turn) * step
        z += toward * 3
        out[n] = (px, py, thick, pz, x, y, thin, z)
        n += 1
        turn += side * 0.35 * thumb
    out = out[:n] * unit
    out[:, 0] += wrist[0]
    out[:, 4] += wrist[0]
    out[:, 1] += wrist[1]
    out[:, 5] += wrist[1]
    return out, parts[:n].copy()


def draw_hand(
    image: np.ndarray, rng: np.random.Generator, target: np.ndarray, forward: float, unit: float,
    skin: np.ndarray, light: np.ndarray, pose: str, blur: float = 0.0,
) -> None:  # fmt: skip
    """Draw a hand over a picture, in place.

    Parameters
    ----------
    target : (2,) pixels, what the roots of the fingers cover.
    forward : direction of the fingers, radians; x right, y down.
    unit : pixels of a millimetre.
    skin : (3,) reflectance.
    light : (3,) light there.
    pose : open, fist, point, two or grip.
    """
    unit *= rng.uniform(0.85, 1.1)
    curl = rng.uniform(0.0, 0.3, 4) + np.array([0.0, 0.02, 0.04, 0.06])
    spread = rng.uniform(0.0, 0.2)
    if pose != "open":
        straight = {"fist": 0, "grip": 0, "point": 1, "two": 2}[pose]
        curl[straight:] = rng.uniform(0.8, 1.0)
        spread = spread if pose == "two" else 0.03
    wrist = np.asarray(target) - 90 * unit * np.array([np.cos(forward), np.sin(forward)])
    back = rng.random() < 0.5 and pose != "grip"  # of the hand, to the viewer
    capsules, parts = hand_capsules(
        wrist, forward, unit, curl, spread, rng.uniform(0.3, 0.9), random_side(rng),
        -1 if back else 1, rng.uniform(10, 260), back,
    )  # fmt: skip
    palm = skin if back else np.minimum(skin * 1.15 + 0.04, 1)
    nail = np.minimum(skin * [1.15, 1.0, 1.0] + 0.05, 1)
    if rng.random() < 0.25:
        nail = to_linear(random_color(rng, 1.0))
    colors = np.stack([palm, to_linear(random_color(rng, 0.9)), nail]) * light
    draw_relief(image, capsules, parts, colors, lamp_direction(rng), blur)


def random_side(rng: np.random.Generator) -> int:
    """-1 or 1."""
    return 2 * int(rng.integers(2)) - 1


def lamp_direction(rng: np.random.Generator) -> np.ndarray:
    """(3,) unit vector towards the light, mostly from above; x right, y down, z to the viewer."""
    toward = np.array([rng.normal(0, 0.5), rng.normal(-0.6, 0.3), 0.8])
    return toward / np.linalg.norm(toward)
