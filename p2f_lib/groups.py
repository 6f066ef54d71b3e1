"""Errors by group: the same synthetic people in every skin tone, of five ages, from four sides.

Tone and yaw are changed after everything else is drawn, so that their groups differ in nothing
else. What is found on rendered people says where to look on real ones, not what is true of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from p2f_lib.crop import Box
from p2f_lib.detection import Detector
from p2f_lib.errors import P2FError
from p2f_lib.evaluation import bootstrap_interval, box_size
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.synthesis.draws import Draw, sample_draw, without
from p2f_lib.synthesis.people import sample_appearance
from p2f_lib.synthesis.samples import Sample, render_draw
from p2f_lib.synthesis.skin import SKIN_ANCHORS, skin_albedo

SEED = 19480210  # other people than those of any training here
CANVAS = 256  # pixels a side of the pictures
SAME_FACE = 0.3  # intersection over union of a detected box and that of the landmarks
UNSEEN = 1.0  # error where the network sees no face: the landmarks are a box away, as it were


@dataclass(frozen=True)
class Age:
    """Who belongs to an age.

    Attributes
    ----------
    youngest, eldest : as the face model's source counts (`shapes_of_ages`).
    look : age of the skin, hair and beard, see `sample_appearance`.
    """

    youngest: float
    eldest: float
    look: float


AGES = {
    "toddlers": Age(0.12, 0.25, 0.02),
    "children": Age(0.28, 0.42, 0.10),
    "young": Age(0.58, 0.70, 0.30),
    "middle-aged": Age(0.74, 0.86, 0.60),
    "elders": Age(0.92, 1.00, 0.95),
}
TONES = {f"tone {i + 1}": i / (len(SKIN_ANCHORS) - 1) for i in range(len(SKIN_ANCHORS))}
YAWS = {f"{yaw} degrees": float(yaw) for yaw in (0, 30, 60, 85)}
PLAINLY_WITHOUT = (  # of the people in `examples`
    "backgrounds",
    "expressions",
    "glasses",
    "hats and scarves",
    "lens",
    "light and shadow",
    "things before the face",
)
KINDS = {"skin tone": tuple(TONES), "age": tuple(AGES), "yaw": tuple(YAWS)}


@dataclass(frozen=True)
class GroupErrors:
    """How well one group fares.

    Attributes
    ----------
    kind, group : of `KINDS`.
    people, photos : how many of each.
    landmarks : mean error of the 68 landmarks over ``sqrt(w h)`` of their box, the box given.
    low, high : its 95 % interval, people drawn with replacement.
    mesh : mean distance of the vertices in model space, mm.
    detected : share of the photos in which the detector finds the face.
    """

    kind: str
    group: str
    people: int
    photos: int
    landmarks: float
    low: float
    high: float
    mesh: float
    detected: float


def ages_of(count: int, seed: int = SEED) -> np.ndarray:
    """(N,) ages of `count` people, the groups of `AGES` in turn."""
    rng = np.random.default_rng([seed, 2])
    spans = [list(AGES.values())[i % len(AGES)] for i in range(count)]
    return np.array([rng.uniform(age.youngest, age.eldest) for age in spans])


def person(model: MorphableModel, shape: np.ndarray, number: int, seed: int = SEED) -> Draw:
    """Person `number` of this study: a draw with a shape and looks of their age."""
    age = list(AGES.values())[number % len(AGES)]
    looks = sample_appearance(np.random.default_rng([seed, number, 3]), age.look)
    return replace(sample_draw(model, seed, number, shape=shape), appearance=looks)


def with_tone(draw: Draw, tone: float) -> Draw:
    """The same person with skin of another tone, 0 fair to 1 dark; lips go along."""
    look, skin = draw.appearance, skin_albedo(tone, 0.0)
    return replace(draw, appearance=replace(look, skin=skin, lips=look.lips * skin / look.skin))


def with_yaw(draw: Draw, yaw: float) -> Draw:
    """The same person seen from `yaw` degrees, to the side they were turned to."""
    return replace(draw, view=replace(draw.view, yaw=np.copysign(yaw, draw.view.yaw)))


def photos_of(draw: Draw) -> Iterator[tuple[str, str, Draw]]:
    """Kind, group and draw of every photo of a person; tones count for the person's age, too."""
    for name, tone in TONES.items():
        yield "skin tone", name, with_tone(draw, tone)
    for name, yaw in YAWS.items():
        yield "yaw", name, with_yaw(draw, yaw)


def measure(
    reconstructor: Reconstructor,
    detector: Detector,
    shapes: np.ndarray,
    seed: int = SEED,
    canvas: int = CANVAS,
    progress: bool = True,
) -> list[GroupErrors]:
    """Photograph people in all groups and reconstruct them.

    Parameters
    ----------
    shapes : (N, Ks) of N people, whose ages are the groups of `AGES` in turn.
    canvas : pixels a side of the pictures.

    Raises
    ------
    P2FError : fewer people than ages.
    """
    if len(shapes) < len(AGES):
        raise P2FError(f"Groups by age need {len(AGES)} people or more, got {len(shapes)}.")
    found: dict[tuple[str, str], list[tuple[int, float, float, bool]]] = {}
    for number, shape in enumerate(tqdm(shapes, "people", disable=not progress, unit="person")):
        photos = list(photos_of(person(reconstructor.model, shape, number, seed)))
        samples = [render_draw(reconstructor.model, draw, canvas) for _, _, draw in photos]
        age = list(AGES)[number % len(AGES)]
        outcomes = _outcomes(reconstructor, detector, samples)
        for (kind, group, _), outcome in zip(photos, outcomes, strict=True):
            for key in [(kind, group)] + [("age", age)] * (kind == "skin tone"):
                found.setdefault(key, []).append((number, *outcome))
    return [_summary(kind, group, found[kind, group]) for kind in KINDS for group in KINDS[kind]]


def _outcomes(
    reconstructor: Reconstructor, detector: Detector, samples: Sequence[Sample]
) -> Iterator[tuple[float, float, bool]]:
    """Landmark error, mesh error and whether the face was detected, a photo."""
    truths = [sample.landmarks.astype(float) for sample in samples]
    boxes = [Box.around(truth) for truth in truths]
    faces = reconstructor.reconstruct_many([sample.image for sample in samples], boxes)
    for sample, truth, box, face in zip(samples, truths, boxes, faces, strict=True):
        detected = any(one.box.overlap(box) > SAME_FACE for one in detector(sample.image))
        if face is None:
            yield UNSEEN, np.nan, detected
            continue
        error = np.linalg.norm(face.landmarks("ibug68") - truth, axis=1).mean()
        vertices = reconstructor.model.vertices(sample.shape, sample.expression)
        mesh = np.linalg.norm(face.vertices - vertices, axis=1).mean()
        yield float(error / box_size(truth[None])[0]), float(mesh), detected


def _summary(kind: str, group: str, rows: Sequence[tuple[int, float, float, bool]]) -> GroupErrors:
    number, error, mesh, detected = (np.array(column) for column in zip(*rows, strict=True))
    interval = bootstrap_interval(error, number)
    return GroupErrors(
        kind,
        group,
        len(np.unique(number)),
        len(rows),
        float(error.mean()),
        interval.low,
        interval.high,
        float(np.nanmean(mesh)),
        float(detected.mean()),
    )


def examples(
    model: MorphableModel, shapes: np.ndarray, seed: int = SEED, canvas: int = CANVAS
) -> dict[tuple[str, str], np.ndarray]:
    """A picture (H, H, 3) uint8 for every group: of the same person, or the first of each age."""
    draws = [person(model, shape, i, seed) for i, shape in enumerate(shapes[: len(AGES)])]
    draws = [_plainly(draw) for draw in draws]
    photos = {("age", age): draw for age, draw in zip(AGES, draws, strict=True)}
    photos |= {(kind, group): draw for kind, group, draw in photos_of(draws[2])}
    inside = slice(canvas // 8, -canvas // 8)
    return {k: render_draw(model, d, canvas).image[inside, inside] for k, d in photos.items()}


def _plainly(draw: Draw) -> Draw:
    """Looking ahead in even light, with nothing on the face or before it."""
    for ingredient in PLAINLY_WITHOUT:
        draw = without(draw, ingredient)
    return replace(draw, view=replace(draw.view, yaw=0.0, pitch=0.0, roll=0.0))
