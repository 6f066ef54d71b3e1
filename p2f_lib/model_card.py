"""The model card of a network: where it comes from, how good it is, where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from p2f_lib import figures
from p2f_lib.crop import Box
from p2f_lib.datasets.photos import AnnotatedPhoto
from p2f_lib.evaluation import errors_by_yaw
from p2f_lib.experiments import photo_errors, sample_errors
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.robustness import (
    FACELESS,
    NEVER_SEEN,
    confidences,
    equivariance,
    face_auc,
    faceless_views,
    portraits,
)
from p2f_lib.synthesis import render_samples
from p2f_lib.validation import heldout_errors

SEED = 20171023  # other people than those of any training here
CANVAS = 256  # pixels a side of the pictures
FAILURES = 8
TEXT = """\
# Model card: {weights}

A U-Net that turns a square crop about a face ({size} x {size} pixels, RGB / 255 - 0.5) into PNCC
and offsets of the face model {face_model}, mm; frames and units: [Concepts](../docs/concepts.md).

{provenance}

## What it has seen

{seen}

## How good it is

Written by `p2f model-card`. Synthetic people are {count} whom no training has seen, with everything
that may cover or darken a face, seen up to {yaw:.0f} degrees from the side.

| what | figure |
|---|---|
{rows}

**When the picture changes.** How far the 68 landmarks move, % of the distance of the outer eye
corners, from a portrait to a changed copy of it, the change undone; mean of the two public-domain
portraits that scikit-image and Matplotlib bundle.

| change | mean move |
|---|---|
{moves}

## Where it fails

The {failures} worst of the synthetic pictures: green what it says, white rings the truth.

![Failures](figures/{picture})

Worst are faces that are mostly hidden or seen from the side, in hard light or blurred. Fine shape
is mostly that of the mean face. It says nothing about who somebody is, and must not be used to
identify, judge or track people without their consent. Skin tones are sampled evenly in training.
Errors of the released weights by skin tone, age and yaw, on synthetic people, are in
[groups.csv](groups.csv); by group on real photographs they have not been measured.
"""

SYNTHETIC = """\
Synthetic photographs only: random people of the open face model, rendered. No photograph of a
person. Anyone may use the weights, under the licence of the repository."""
OTHERS = """\
Photographs of {source}. Whoever uses the weights needs a right to those photographs and to their
face model; what they were made for decides what for."""


@dataclass(frozen=True, eq=False)
class Card:
    """A model card.

    Attributes
    ----------
    text : Markdown, to be written beside a folder ``figures``.
    figure : the failures.
    """

    text: str
    figure: Figure


def synthetic_people(reconstructor: Reconstructor, count: int) -> SampleBatch:
    """Photographs of people for the card."""
    return render_samples(reconstructor.model, SEED, range(count), CANVAS, no_face_share=0.0)


def make_card(
    reconstructor: Reconstructor,
    samples: SampleBatch,
    photos: Mapping[str, Sequence[AnnotatedPhoto]],
    weights: str,
    picture: str,
    fast: Reconstructor | None = None,
) -> Card:
    """Measure a network and describe it.

    Parameters
    ----------
    samples : from `synthetic_people`, all of them with a face.
    photos : annotated real photographs by what they are called.
    weights : what the network is called.
    picture : file name of the figure.
    fast : the same network's fast variant, whose landmarks are measured, too.
    """
    unet = reconstructor.unet
    errors = asdict(heldout_errors(unet, reconstructor.model, samples))
    landmarks = sample_errors(reconstructor, samples)
    yaw = np.array([camera.pose.yaw for camera in samples.cameras])
    views = faceless_views(SEED, len(samples))
    sure, unsure = confidences(reconstructor, samples, views)
    new = [i for i in range(len(views)) if FACELESS[i % len(FACELESS)] in NEVER_SEEN]
    moves = equivariance(reconstructor, portraits())
    rows = [
        (
            "PNCC, median error and 95th percentile",
            f"{errors['pncc_median']:.2f}, {errors['pncc_p95']:.1f} mm",
        ),
        (
            "offsets, mean absolute error",
            f"{errors['offset_l1']:.2f} mm, {100 * errors['offset_ratio']:.1f} % of that of "
            "predicting zero",
        ),
        ("face mask, intersection over union", f"{errors['mask_iou']:.3f}"),
        (
            "68 landmarks, % of the box size, mean and median",
            f"{100 * landmarks.mean():.2f}, {100 * np.median(landmarks):.2f}",
        ),
        ("the same by yaw: up to 30, 60, 90 degrees, mean", _by_yaw(landmarks, yaw)),
        (
            "68 landmarks in model space: root mean square error, and that over the deviation that "
            "the fit states (1: it states the truth)",
            "{:.1f} mm, {:.2f}".format(*_stated(reconstructor, samples)),
        ),
        (
            f"confidence, area under the ROC curve between these people and {len(views)} boxes "
            f"without a face in {len(FACELESS)} bundled pictures",
            f"{face_auc(sure, unsure):.3f}; in the {len(NEVER_SEEN)} of them that no training "
            f"has seen {face_auc(sure, unsure[new]):.3f}",
        ),
        (
            "confidence above one half",
            f"{(sure > 0.5).sum()} of {len(sure)} people, {(unsure > 0.5).sum()} of {len(unsure)} "
            "of these boxes",
        ),
    ]
    rows += _on_photos(reconstructor, photos)
    if fast is not None:
        quick = sample_errors(fast, samples)
        rows.append(
            (
                "**fast variant**: 68 landmarks of the synthetic people, mean and median",
                f"{100 * quick.mean():.2f}, {100 * np.median(quick):.2f}",
            )
        )
        rows += [(f"fast variant, {what}", value) for what, value in _on_photos(fast, photos)]
    config = asdict(unet.config)
    weights_count = sum(p.numel() for p in unet.parameters())
    provenance = {"parameters": f"{weights_count / 1e6:.2f} million", **unet.metadata, **config}
    source = unet.metadata.get("source", "synthetic")  # older files don't say
    text = TEXT.format(
        seen=SYNTHETIC if source == "synthetic" else OTHERS.format(source=source),
        weights=weights,
        size=unet.config.input_size,
        face_model=reconstructor.model.name,
        provenance="\n".join(
            ["| entry | value |", "|---|---|"]
            + [f"| {name.replace('_', ' ')} | {value} |" for name, value in provenance.items()]
        ),
        count=len(samples),
        yaw=np.abs(yaw).max(),
        rows="\n".join(f"| {name} | {value} |" for name, value in rows),
        moves="\n".join(f"| {name} | {_percent(move)} |" for name, move in moves.items()),
        failures=min(FAILURES, len(samples)),
        picture=picture,
    )
    return Card(text, _failures(reconstructor, samples, landmarks))


def _stated(reconstructor: Reconstructor, samples: SampleBatch) -> tuple[float, float]:
    """Root mean squares of the landmarks' errors along each axis, mm, and in stated deviations."""
    model, chosen = reconstructor.model, reconstructor.model.landmarks["ibug68"]
    boxes = [Box.around(points) for points in samples.landmarks.astype(float)]
    errors, ratios = [], []
    for row, face in enumerate(reconstructor.reconstruct_many(list(samples.images), boxes)):
        if face is not None:
            truth = model.vertices(samples.shape[row], samples.expression[row])[chosen]
            errors.append(face.landmarks_3d("ibug68") - truth)
            ratios.append(errors[-1] / face.landmarks_deviation("ibug68"))
    error, ratio = (float(np.sqrt(np.mean(np.square(part)))) for part in (errors, ratios))
    return error, ratio


def _on_photos(
    reconstructor: Reconstructor, photos: Mapping[str, Sequence[AnnotatedPhoto]]
) -> list[tuple[str, str]]:
    rows = []
    for name, annotated in photos.items():
        found = photo_errors(reconstructor, annotated).summary(0.25)
        rows.append(
            (
                f"{name}: 51 inner iBUG points, box given, % of the outer-eye distance, mean and "
                "median",
                f"{100 * found['inner_mean']:.2f}, {100 * found['inner_median']:.2f}; all 68 "
                f"{100 * found['all_mean']:.2f}; {found['failures']} of {found['photos']} beyond "
                "25 %",
            )
        )
    return rows


def _percent(share: float) -> str:
    return f"{100 * share:.2f}" if np.isfinite(share) else "face lost"


def _by_yaw(errors: np.ndarray, yaw: np.ndarray) -> str:
    found = errors_by_yaw(errors, yaw)
    return ", ".join(
        f"{100 * mean:.2f} ({count} people)" if count else "no people"
        for mean, count in zip(found.bins, found.counts, strict=True)
    )


def _failures(reconstructor: Reconstructor, samples: SampleBatch, errors: np.ndarray) -> Figure:
    worst = np.argsort(-errors)[:FAILURES]
    truth = samples.landmarks[worst].astype(float)
    boxes = [Box.around(points) for points in truth]
    faces = reconstructor.reconstruct_many([samples.images[i] for i in worst], boxes)
    nowhere = np.zeros((0, 2))
    return figures.landmarks_over(
        [samples.images[i] for i in worst],
        [nowhere if face is None else face.landmarks("ibug68") for face in faces],
        [f"{100 * errors[i]:.1f} %" for i in worst],
        columns=4,
        truth=list(truth),
    )


def write(path: str | Path, card: Card, picture: str) -> None:
    """Write a card and, into ``figures`` beside it, its picture."""
    path = Path(path)
    figures.save(card.figure, path.parent / "figures" / picture)
    path.write_text(card.text)
