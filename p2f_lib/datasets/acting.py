"""What people do in a synthetic clip: turn, walk, talk, blink, look around and feel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from p2f_lib.morphable_model import MorphableModel

FPS = 25.0
FACE_HEIGHT = 0.42  # of the picture's: the landmarks of somebody who stays where the lens is set to

FEELINGS: dict[str, dict[str, float]] = {
    "laughter": {"mouthSmile": 1.0, "jawOpen": 0.6, "cheekSquint": 0.8, "eyeSquint": 0.6},
    "surprise": {"jawOpen": 0.9, "browInnerUp": 1.0, "browOuterUp": 0.9, "eyeWide": 1.0},
    "anger": {"browDown": 1.0, "noseSneer": 0.8, "mouthPress": 0.6, "mouthFrown": 0.5},
    "sorrow": {"mouthFrown": 0.9, "browInnerUp": 1.0, "mouthShrugLower": 0.6, "eyeBlink": 0.4},
    "kiss": {"mouthPucker": 1.0, "mouthFunnel": 0.4, "eyeBlink": 0.8},
    "cheeks": {"cheekPuff": 1.0, "mouthPress": 0.5, "eyeWide": 0.4},
    "wink": {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.9, "mouthLeft": 0.5, "cheekSquintLeft": 0.8},
}
"""Feeling -> face unit -> activation. A unit without a side stands for both sides of the face."""


@dataclass(frozen=True)
class Role:
    """What a person looks like and does in a clip.

    Attributes
    ----------
    age
        0 a child to 1 the eldest, see `p2f_lib.synthesis.sample_appearance`.
    looks
        What must be seen of this person, see `p2f_lib.datasets.clips.LOOKS`.
    yaw, pitch, roll
        Largest turns to both sides of `facing`, degrees.
    facing
        Yaw, pitch and roll about which the head turns, degrees.
    pace
        Of these turns; at 1 the head goes to and fro in about two seconds.
    wander
        How far the head strays from its path, as a fraction of the picture's size.
    path
        Where the head is: two or more (moment in 0..1, right, down), fractions of the picture's
        width and height from its middle.
    size
        First and last height of the landmarks, as a fraction of the picture's. Who is smaller
        stands further away.
    feelings
        Names of `FEELINGS`, shown one after the other.
    """

    age: float
    looks: tuple[str, ...] = ()
    yaw: float = 15
    pitch: float = 8
    roll: float = 6
    facing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pace: float = 1.0
    wander: float = 0.04
    path: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    size: tuple[float, float] = (FACE_HEIGHT, FACE_HEIGHT)
    feelings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Performance:
    """What a person does in F frames.

    Attributes
    ----------
    poses
        (F, 3) yaw, pitch and roll in degrees, seen by a camera straight ahead.
    position
        (F, 2) of the head in the picture, as a fraction of its width and height from the middle.
    size
        (F,) height of the mean face's landmarks, as a fraction of the picture's.
    expression
        (F, Ke) coefficients.
    """

    poses: np.ndarray
    position: np.ndarray
    size: np.ndarray
    expression: np.ndarray

    def at(self, time: float) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        """Pose, position, size and expression at a time in frames, which may lie between two.

        The motion between two frames is steady, and goes on like that before the first and after
        the last one.
        """
        last = len(self.size) - 1
        before = min(max(int(np.floor(time)), 0), max(last - 1, 0))
        after, share = min(before + 1, last), time - before
        return tuple(
            (1 - share) * values[before] + share * values[after]
            for values in (self.poses, self.position, self.size, self.expression)
        )


def perform(
    model: MorphableModel, role: Role, n_frames: int, rng: np.random.Generator
) -> Performance:
    """Smooth head motion and a face that talks, smiles, blinks, looks around and feels."""
    moments = np.arange(n_frames) / max(n_frames - 1, 1)
    turns = np.stack([_sway(n_frames, rng, role.pace) for _ in range(3)], axis=1)
    poses = np.array(role.facing) + turns * (role.yaw, role.pitch, role.roll)
    path = np.array(role.path)
    position = PchipInterpolator(path[:, 0], path[:, 1:])(moments)
    position += role.wander * np.stack([_sway(n_frames, rng, role.pace) for _ in range(2)], axis=1)
    size = role.size[0] * (role.size[1] / role.size[0]) ** moments
    size = size * (1 + 0.05 * _sway(n_frames, rng))

    expression = _coefficients(model, _talk(n_frames, rng), n_frames)
    for feeling, strength in zip(role.feelings, _turns(len(role.feelings), moments), strict=True):
        felt = _coefficients(model, FEELINGS[feeling], n_frames)
        expression += strength[:, None] * (felt - expression)
    return Performance(poses, position, size, expression)


def _coefficients(
    model: MorphableModel, units: Mapping[str, np.ndarray | float], n_frames: int
) -> np.ndarray:
    """(F, Ke) of face units -> (F,) activation or one for all frames."""
    rows = np.zeros((n_frames, model.n_expression))
    for mode, name in enumerate(model.expression_names):
        # Both sides of a face do the same unless said otherwise: mouthSmileLeft is mouthSmile.
        both = name.removesuffix("Left").removesuffix("Right")
        rows[:, mode] = units.get(name, units.get(both, 0.0))
    return rows


def _sway(n_frames: int, rng: np.random.Generator, pace: float = 1.0) -> np.ndarray:
    """(F,) smooth, from -1 to 1 and reaching both: three slow waves."""
    time = pace * np.arange(n_frames) / FPS
    periods = rng.uniform((1.6, 1.0, 0.6), (2.4, 1.4, 0.9))
    phases = rng.uniform(0, 2 * np.pi, 3)
    waves = np.sin(2 * np.pi * time[:, None] / periods + phases) @ (1.0, 0.3, 0.08)
    low, high = waves.min(), waves.max()
    return (2 * waves - low - high) / max(high - low, 1e-9)


def _turns(count: int, moments: np.ndarray) -> np.ndarray:
    """(count, F) strength of each of some feelings that follow each other, 0 to 1."""
    inside = np.clip(count * moments - np.arange(count)[:, None], 0, 1)
    return np.sin(np.pi * inside) ** 2


def _talk(n_frames: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Face unit without its side -> (F,) activation."""
    time = np.arange(n_frames) / FPS
    syllable = np.maximum(np.sin(2 * np.pi * rng.uniform(2.5, 3.5) * time + rng.uniform(0, 6)), 0)
    speaks = np.clip(0.5 + 0.8 * _sway(n_frames, rng), 0, 1)
    rounds = np.clip(_sway(n_frames, rng), 0, 1)
    smiles = np.clip(_sway(n_frames, rng), 0, 1)
    wonders = np.clip(_sway(n_frames, rng), 0, 1)
    looks, lifts = _sway(n_frames, rng), _sway(n_frames, rng)
    units = {
        "jawOpen": 0.4 * syllable * speaks,
        "mouthFunnel": 0.4 * rounds * speaks,
        "mouthLowerDown": 0.3 * syllable * speaks * (1 - rounds),
        "mouthSmile": 0.7 * smiles * (1 - rounds),
        "cheekSquint": 0.4 * smiles * (1 - rounds),
        "browInnerUp": 0.5 * wonders,
        "browOuterUp": 0.4 * wonders,
        "eyeBlink": _blinks(n_frames, rng),
    }
    # Left and right eye turn together, so one looks in when the other looks out.
    gaze = {
        "eyeLookOutLeft": looks,
        "eyeLookInRight": looks,
        "eyeLookInLeft": -looks,
        "eyeLookOutRight": -looks,
        "eyeLookUp": 0.6 * lifts,
        "eyeLookDown": -0.6 * lifts,
    }
    return units | {name: 0.5 * np.maximum(value, 0) for name, value in gaze.items()}


def _blinks(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """(F,) a blink of about a fifth of a second, every second or so."""
    time = np.arange(n_frames) / FPS
    blink, moment = np.zeros(n_frames), rng.uniform(0.2, 0.8)
    while moment < time[-1]:
        blink = np.maximum(blink, 1 - np.abs(time - moment) / 0.12)
        moment += rng.uniform(0.7, 1.4)
    return blink
