"""What chance decides about a sample, and how to leave one ingredient out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import CameraDistribution, View, sample_coefficients, sample_view
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.synthesis.lens import PLAIN_LENS
from p2f_lib.synthesis.people import Appearance, sample_appearance
from p2f_lib.synthesis.photograph import Scene, sample_scene
from p2f_lib.synthesis.skin import skin_albedo


@dataclass(frozen=True, eq=False)
class Draw:
    """Everything that chance decides about a sample.

    A part that is replaced (`dataclasses.replace`) leaves all others as they are.

    Attributes
    ----------
    shape, expression : coefficients.
    view : where the camera stands.
    appearance, scene : the person, and the place with its light and lens.
    is_face : False for a picture of other things.
    things : seed of these.
    noise : seed of the sensor noise.
    """

    shape: np.ndarray
    expression: np.ndarray
    view: View
    appearance: Appearance
    scene: Scene
    is_face: bool
    things: int
    noise: int


def sample_draw(
    model: MorphableModel,
    seed: int,
    index: int,
    camera_distribution: CameraDistribution | None = None,
    shape: np.ndarray | None = None,
    no_face_share: float = 0.0,
) -> Draw:
    """What sample `index` of the endless set `seed` shows; arguments as of `render_sample`.

    Coefficients and view are those of the same row of `p2f_lib.ground_truth.sample_table`.
    """
    rng = np.random.default_rng([seed, index])
    random_shape, expression = sample_coefficients(model, rng)
    return Draw(
        shape=random_shape if shape is None else shape,
        expression=expression,
        view=sample_view(rng, camera_distribution),
        appearance=sample_appearance(rng),
        scene=sample_scene(rng),
        noise=int(rng.integers(2**31)),
        things=int(rng.integers(2**31)),
        is_face=bool(rng.random() >= no_face_share),
    )


def _appearance(draw: Draw, **changes: Any) -> Draw:
    return replace(draw, appearance=replace(draw.appearance, **changes))


def _scene(draw: Draw, **changes: Any) -> Draw:
    return replace(draw, scene=replace(draw.scene, **changes))


def _view(draw: Draw, change: Callable[[View], dict[str, float]]) -> Draw:
    return replace(draw, view=replace(draw.view, **change(draw.view)))


def _frontal(view: View) -> dict[str, float]:
    return {angle: 0.2 * getattr(view, angle) for angle in ("yaw", "pitch", "roll")}


def _unpainted(draw: Draw) -> Draw:
    """No beard, blush, eye shadow, lipstick, freckles or wrinkles."""
    look = draw.appearance
    return _appearance(
        draw,
        region_shift=0 * look.region_shift,
        blotches=0.0,
        freckles=0.0,
        wrinkles=0.0,
        lips=look.skin * [0.85, 0.6, 0.65],
        beard_shape=(0.0, *look.beard_shape[1:]),
    )


def _evenly_lit(draw: Draw) -> Draw:
    light = draw.scene.light
    sky = np.full(3, 0.8)
    return _scene(draw, light=replace(light, sky=sky, ground=sky, colors=0 * light.colors))


# Leaving something out changes a draw after all of its random numbers are drawn: the same people
# are photographed, without it.
INGREDIENTS: dict[str, Callable[[Draw], Draw]] = {
    "turned heads": lambda draw: _view(draw, _frontal),
    "near cameras": lambda draw: _view(draw, lambda view: {"distance": 4000.0}),
    "identities": lambda draw: replace(draw, shape=0 * draw.shape),
    "expressions": lambda draw: replace(draw, expression=0 * draw.expression),
    "head, neck and shoulders": lambda draw: _scene(
        _appearance(draw, hair=None, hat=None), body=False
    ),
    "hair": lambda draw: _appearance(draw, hair=None, scalp_cover=0.0),
    "hats and scarves": lambda draw: _appearance(draw, hat=None),
    "glasses": lambda draw: _appearance(draw, glasses=None),
    "things before the face": lambda draw: _scene(draw, occluder=None),
    "beards and make-up": _unpainted,
    "skin tones": lambda draw: _appearance(draw, skin=skin_albedo(0.3, 0.0)),
    "light and shadow": _evenly_lit,
    "backgrounds": lambda draw: _scene(draw, background=None),
    "lens": lambda draw: _scene(draw, lens=PLAIN_LENS),
    "pictures without a face": lambda draw: replace(draw, is_face=True),
}
"""What can be left out, and how."""


def without(draw: Draw, ingredient: str) -> Draw:
    """The same draw without one of `INGREDIENTS`.

    Raises
    ------
    P2FError : an unknown ingredient.
    """
    if ingredient not in INGREDIENTS:
        raise P2FError(
            f"There is no ingredient {ingredient!r}; there are {', '.join(INGREDIENTS)}."
        )
    return INGREDIENTS[ingredient](draw)
