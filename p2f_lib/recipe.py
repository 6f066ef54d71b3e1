"""One training from its parameters: what both the notebook and `p2f train` do."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml

from p2f_lib import training
from p2f_lib.datasets import sources
from p2f_lib.datasets.jitter import Jitter
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import SampleBatch, offset_statistics
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.training import TrainingConfig
from p2f_lib.unet import NetworkConfig, UNet, save_unet
from p2f_lib.validation import Validation

STATISTICS = 256  # held-out samples that the spread of the offsets is measured on


@dataclass(frozen=True, eq=False)
class Trained:
    """A network, and what it was and was not trained on.

    Attributes
    ----------
    unet : in evaluation mode, on the CPU.
    config : how it was trained.
    heldout : samples of people whom it never saw.
    images_per_epoch : training samples.
    """

    unet: UNet
    config: TrainingConfig
    heldout: SampleBatch
    images_per_epoch: int

    @property
    def images_seen(self) -> int:
        return self.config.epochs * self.images_per_epoch

    @property
    def is_first(self) -> bool:
        """Whether this is the first of the processes that trained together, or the only one."""
        group = torch.distributed
        return not (group.is_available() and group.is_initialized()) or group.get_rank() == 0


def read_parameters(path: str | Path) -> dict[str, Any]:
    """The groups of a file such as params.yaml.

    Raises
    ------
    P2FError : no such file, no YAML, or the groups for a training are missing.
    """
    try:
        parameters = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise P2FError(f"Cannot read the parameters {path}: {error}.") from error
    missing = {"seed", "ground_truth", "train"}
    if isinstance(parameters, dict):
        missing -= parameters.keys()
    if missing:
        raise P2FError(
            f"{path} has no entries {', '.join(sorted(missing))}; params.yaml shows what a "
            "training needs."
        )
    return parameters


def training_config(parameters: Mapping[str, Any], seed: int) -> TrainingConfig:
    """The recipe of the group `train`."""
    names = {field.name for field in fields(TrainingConfig)} - {"seed", "betas"}
    given = {name: value for name, value in parameters.items() if name in names}
    return TrainingConfig(**given, betas=tuple(parameters["betas"]), seed=seed)


def jitter_config(parameters: Mapping[str, Any]) -> Jitter:
    """The crop and colour jitter of the group `train`."""
    given = dict(parameters["jitter"])
    return Jitter(**given | {"scale": tuple(given["scale"])})


def network_config(parameters: Mapping[str, Any], offset_scale: float) -> NetworkConfig:
    """The network of the group `train`."""
    names = {field.name for field in fields(NetworkConfig)}
    given = {name: value for name, value in parameters.items() if name in names}
    return NetworkConfig(**given, offset_scale=offset_scale)


def run(
    parameters: Mapping[str, Any],
    model: MorphableModel,
    table: sources.Table,
    folder: str | Path | None = None,
    log: str | Path | None = None,
    pictures: str | Path | None = None,
    root: str | Path = ".",
    **options: Any,
) -> Trained:
    """Render or read the samples, train, and keep everything that reproduces it.

    Parameters
    ----------
    parameters : with the entries `seed`, `ground_truth` and `train`, as in params.yaml.
    model, table : of the stages before; see `p2f_lib.datasets.sources.make_table`.
    folder : where checkpoints are kept until the run is complete.
    log : where the curves are kept.
    pictures : where pictures of the same eight held-out faces after each epoch are kept.
    root : the folder that paths in the parameters are relative to.
    options : as of `p2f_lib.training.train`.
    """
    data, recipe = parameters["ground_truth"], parameters["train"]
    seed = parameters["seed"]
    samples, heldout = sources.training_data(
        data, model, table, recipe["batch_size"], recipe["fresh"], seed, root
    )
    planes, valid = heldout[:STATISTICS].targets(model)
    spread = offset_statistics(planes[..., 3:], valid).rms
    config = training_config(recipe, seed)
    unet = training.train(
        model,
        samples,
        network_config(recipe, round(spread, 1)),
        config,
        jitter_config(recipe),
        Validation(model, heldout, Path(pictures) if pictures is not None else None),
        folder,
        log,
        workers=recipe["workers"],
        **options,
    )
    images = len(samples) * getattr(samples, "batch_size", 1)  # a stream counts batches
    return Trained(unet, config, heldout, images)


def save(path: str | Path, trained: Trained, model: MorphableModel, **more: str) -> None:
    """Write the weights with their provenance; `more` is kept with it."""
    save_unet(
        path,
        trained.unet,
        images_seen=str(trained.images_seen),
        seed=str(trained.config.seed),
        face_model=model.name,
        face_model_checksum=model.checksum,
        **more,
    )


def code_revision(folder: str | Path = ".") -> str:
    """The commit of a checkout, with "+" when files differ from it; "unknown" without git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
