"""Where training samples come from: `params.yaml: ground_truth.source`.

"synthetic" renders photographs of random people; "300w-lp" is the paper's own data, photographs
with the coefficients of 3DDFA's Basel Face Model. Both give the same `SampleBatch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from p2f_lib.datasets.crops import SampleSet
from p2f_lib.datasets.stream import SampleStream
from p2f_lib.datasets.w300lp import (
    W300LP,
    YAW_EDGES,
    Description,
    W300LPTable,
    describe_300wlp,
    read_300wlp,
)
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import CoefficientTable, SampleBatch, offset_statistics, sample_table
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.synthesis import render_samples

SOURCES = ("synthetic", "300w-lp")
N_SHOWN = 64  # samples on the contact sheet

Table = CoefficientTable | W300LPTable


def make_table(
    parameters: Mapping[str, Any], model: MorphableModel, seed: int, root: str | Path = "."
) -> Table:
    """The numbers behind all samples, training and held-out: no pictures, no targets.

    Parameters
    ----------
    parameters : the group `ground_truth` of params.yaml.
    root : the folder that its paths are relative to.

    Raises
    ------
    P2FError : an unknown source, or files of 300W-LP that are missing.
    """
    if _checked(parameters) == "300w-lp":
        return read_300wlp(Path(root) / parameters["root"])
    return sample_table(model, seed, parameters["n_train"] + parameters["n_heldout"])


def load_table(parameters: Mapping[str, Any], path: str | Path) -> Table:
    """What `make_table` gave and its `save` wrote."""
    kind = W300LPTable if _checked(parameters) == "300w-lp" else CoefficientTable
    return kind.load(path)


def describe(
    parameters: Mapping[str, Any],
    model: MorphableModel,
    table: Table,
    seed: int,
    root: str | Path = ".",
) -> Description:
    """Statistics, and up to 64 samples with their targets for a contact sheet."""
    if isinstance(table, W300LPTable):
        data = W300LP(Path(root) / parameters["root"], table)
        return describe_300wlp(data, model, seed, N_SHOWN)
    held = np.arange(parameters["n_train"], len(table))
    rows = held[:: -(-len(held) // N_SHOWN)]  # spread over all of them
    samples = render_samples(model, table.seed, rows, **_rendering(parameters))
    planes, valid = samples.targets(model)
    edges = YAW_EDGES.astype(float)
    yaw = np.minimum(np.abs(table.views[:, 0]), edges[-1])
    return Description(
        subsets={"synthetic": len(table)},
        offsets=offset_statistics(planes[..., 3:], valid),
        yaw_edges=edges,
        yaw_counts=np.histogram(yaw, edges)[0],
        rows=rows,
        images=samples.images,
        planes=planes,
        valid=valid,
    )


def training_data(
    parameters: Mapping[str, Any],
    model: MorphableModel,
    table: Table,
    batch_size: int,
    fresh: bool,
    seed: int = 0,
    root: str | Path = ".",
) -> tuple[SampleBatch | SampleSet | SampleStream, SampleBatch]:
    """What is trained on, and what is held out, for `p2f_lib.training.train`.

    Parameters
    ----------
    batch_size : samples of a batch; a stream makes whole batches.
    fresh : render people in every epoch that nobody has seen before, instead of keeping
        `n_train` of them in memory; of the synthetic source.
    seed : of the split of 300W-LP, which keeps all pictures of one photograph together.
    """
    if isinstance(table, W300LPTable):
        folder = Path(root) / parameters["root"]
        train, heldout = split_300wlp(table, parameters["n_heldout"], seed)
        data = W300LP(folder, table.take(train[: parameters["n_train"]]))
        return data, W300LP(folder, table).__getitems__(heldout)
    options = _rendering(parameters)
    rows, split = np.arange(len(table)), parameters["n_train"]
    if fresh:  # from beyond the table on
        batches = split // batch_size
        start = len(table)
        stream = SampleStream(model, table.seed, batch_size, batches, start=start, **options)
        return stream, render_samples(model, table.seed, rows[split:], **options)
    samples = render_samples(model, table.seed, rows, **options)
    return samples[:split], samples[split:]


def split_300wlp(table: W300LPTable, n_heldout: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training, shuffled, and about `n_heldout` rows of other photographs.

    The pictures of one photograph (profiling steps ``_0``, ``_1`` ... and mirrored copies) are on
    the same side.
    """
    photographs = [stem.replace("_Flip/", "/").rsplit("_", 1)[0] for stem in table.stems.tolist()]
    names, group, counts = np.unique(photographs, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names))
    held = order[: int(np.searchsorted(np.cumsum(counts[order]), n_heldout) + 1)]
    is_held = np.isin(group, held)
    if is_held.all():
        raise P2FError(
            f"300W-LP has {len(table)} pictures of {len(names)} photographs here; "
            f"{n_heldout} held-out ones leave none for training. Lower ground_truth.n_heldout."
        )
    return rng.permutation(np.flatnonzero(~is_held)), np.flatnonzero(is_held)


def _rendering(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "size": parameters["canvas"],
        "supersample": parameters["supersample"],
        "no_face_share": parameters["no_face_share"],
    }


def _checked(parameters: Mapping[str, Any]) -> str:
    source = parameters["source"]
    if source not in SOURCES:
        raise P2FError(f"Unknown ground_truth.source {source!r}; known are {', '.join(SOURCES)}.")
    return source
