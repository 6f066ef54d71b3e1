"""What each ingredient of the training images is worth: leave one out, train, measure.

Every run trains the same small network on the same number of pictures, and all are measured on the
same synthetic people *with* all ingredients, and on annotated photographs where there are any.
"""

from __future__ import annotations

import csv
import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from p2f_lib.datasets.jitter import Jitter
from p2f_lib.datasets.photos import read_photos
from p2f_lib.errors import P2FError
from p2f_lib.experiments import photo_errors, sample_errors
from p2f_lib.ground_truth import offset_statistics
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.synthesis import render_samples
from p2f_lib.synthesis.draws import INGREDIENTS
from p2f_lib.training import TrainingConfig, train
from p2f_lib.unet import NetworkConfig
from p2f_lib.validation import heldout_errors

EVERYTHING = "nothing"  # is left out
JITTERS = {
    "crop jitter": Jitter(scale=(1.4, 1.4), shift=0.0, rotation=0.0),
    "colour jitter": Jitter(gamma=0.0, gain=0.0),
    "mirrored pictures": Jitter(mirror=False),
}
RUNS = (EVERYTHING, *INGREDIENTS, *JITTERS)


@dataclass(frozen=True)
class Budget:
    """What every run may use.

    Attributes
    ----------
    n_train, n_test : rendered pictures for training and for measuring.
    epochs : passes over the former.
    canvas, supersample : of the pictures.
    """

    n_train: int = 2500
    n_test: int = 192
    epochs: int = 6
    canvas: int = 112
    supersample: int = 2


@dataclass(frozen=True)
class Outcome:
    """One run; errors in per cent unless said otherwise, lower is better except `mask_iou`.

    Attributes
    ----------
    left_out : an ingredient, a jitter, or "nothing".
    seed : of people, network and order.
    synthetic : mean error of 68 points over the box's ``sqrt(w h)``, people with all ingredients.
    pncc_median, offset_ratio, mask_iou : see `p2f_lib.validation.Errors`.
    photos, photos_all : mean error of the 51 inner and of all 68 points over the distance of the
        outer eye corners, on photographs; NaN without any.
    """

    left_out: str
    seed: int
    synthetic: float
    pncc_median: float
    offset_ratio: float
    mask_iou: float
    photos: float
    photos_all: float


def run_one(
    face_model: str | Path,
    left_out: str,
    seed: int,
    budget: Budget,
    photos: str | Path | None = None,
    network: NetworkConfig | None = None,
) -> Outcome:
    """Train without one ingredient and measure; on one thread, reproducible to the bit.

    Parameters
    ----------
    face_model : file of the face model.
    left_out : one of `RUNS`.
    seed : decides the people, the network and the order.
    photos : folder of annotated photographs, see `p2f_lib.datasets.photos.read_photos`.
    network : default: 64x64, width 16, 5 levels, as the demo pipeline's.

    Raises
    ------
    P2FError : an unknown ingredient.
    """
    if left_out not in RUNS:
        raise P2FError(f"There is no run {left_out!r}; there are {', '.join(RUNS)}.")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it says its name at each start
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = MorphableModel.load(face_model)
    options: dict[str, Any] = {
        "size": budget.canvas,
        "supersample": budget.supersample,
        "processes": 1,
        "progress": False,
    }
    ingredient = left_out if left_out in INGREDIENTS else None
    samples = render_samples(model, seed, range(budget.n_train), leave_out=ingredient, **options)
    test = render_samples(model, TEST_SEED, range(budget.n_test), **options)
    planes, valid = test.targets(model)
    network = network or NetworkConfig(blocks=1, upsample_first=False)
    network = replace(network, offset_scale=offset_statistics(planes[..., 3:], valid).rms)
    recipe = TrainingConfig(budget.epochs, 16, 3e-3, pncc_weight=2.0, offset_weight=1.0, seed=seed)
    jitter = JITTERS.get(left_out, Jitter())
    unet = train(model, samples, network, recipe, jitter, progress=False)
    errors = heldout_errors(unet, model, test)
    reconstructor = Reconstructor(model, unet)
    real = (np.nan, np.nan)
    if photos is not None:
        found = photo_errors(reconstructor, read_photos(photos), progress=False).summary(0.25)
        real = (100 * found["inner_mean"], 100 * found["all_mean"])
    return Outcome(
        left_out,
        seed,
        100 * float(np.mean(sample_errors(reconstructor, test))),
        errors.pncc_median,
        errors.offset_ratio,
        errors.mask_iou,
        *real,
    )


TEST_SEED = 1_000_003  # nobody is trained on these people


def run_all(
    face_model: str | Path,
    budget: Budget,
    photos: str | Path | None = None,
    names: Sequence[str] = RUNS,
    seeds: int = 3,
    processes: int | None = None,
) -> list[Outcome]:
    """Every run; the one that leaves out nothing with several seeds, to see what is chance.

    Parameters
    ----------
    names : some of `RUNS`.
    seeds : repetitions of the run that leaves out nothing.
    processes : runs at a time; None for one a core.
    """
    plan = [(name, seed) for name in names for seed in range(seeds if name == EVERYTHING else 1)]
    outcomes = {}
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes or multiprocessing.cpu_count(), context) as pool,
        tqdm(total=len(plan), desc="networks", unit="run") as bar,
    ):
        futures = {
            pool.submit(run_one, face_model, name, seed, budget, photos): (name, seed)
            for name, seed in plan
        }
        for future in as_completed(futures):
            outcomes[futures[future]] = future.result()
            name, photos_error = futures[future][0], outcomes[futures[future]].photos
            bar.set_postfix_str(f"without {name}: {photos_error:.2f} %")
            bar.update()
    return [outcomes[key] for key in plan]


def read_table(path: str | Path) -> list[Outcome]:
    """What `write_table` wrote.

    Raises
    ------
    P2FError : another file.
    """
    try:
        with Path(path).open(newline="") as file:
            return [
                Outcome(
                    row.pop("left_out"),
                    int(row.pop("seed")),
                    **{k: float(v) for k, v in row.items()},
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise P2FError(f"{path} is no table of an ablation ({error}).") from error
