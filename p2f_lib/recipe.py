"""One training from its parameters: what both the notebook and `p2f train` do."""

from __future__ import annotations

import copy
import hashlib
import subprocess
from collections.abc import Mapping, Sequence
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
    source : of the samples, as of the parameters' entry `ground_truth.source`.
    start : the network that the training began with, if any.
    """

    unet: UNet
    config: TrainingConfig
    heldout: SampleBatch
    images_per_epoch: int
    source: str
    start: UNet | None = None

    @property
    def images_seen(self) -> int:
        """By the network, those before its start among them."""
        before = 0 if self.start is None else int(self.start.metadata.get("images_seen", 0))
        return before + self.config.epochs * self.images_per_epoch

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


def with_settings(parameters: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The parameters with some of them set anew.

    Parameters
    ----------
    settings : (S,) str
        ``NAME=VALUE``, as of ``dvc exp run -S``: dots in the name lead into groups; the value is
        YAML.

    Raises
    ------
    P2FError : no such entry, or no YAML.
    """
    found = copy.deepcopy(dict(parameters))
    for setting in settings:
        name, equals, value = setting.partition("=")
        *groups, last = name.split(".")
        entries: Any = found
        for group in groups:
            entries = entries.get(group) if isinstance(entries, dict) else None
        if not equals or not isinstance(entries, dict) or last not in entries:
            raise P2FError(
                f"Cannot set {setting!r}: NAME=VALUE is wanted, such as train.epochs=4, where NAME "
                "is an entry of the parameters."
            )
        try:
            entries[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise P2FError(f"Cannot set {setting!r}: {error}.") from error
    return found


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
    start: UNet | None = None,
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
    start : a network of the recipe's configuration to go on from, in place of random weights.
    options : as of `p2f_lib.training.train`.
    """
    data, recipe = parameters["ground_truth"], parameters["train"]
    seed = parameters["seed"]
    samples, heldout = sources.training_data(
        data, model, table, recipe["batch_size"], recipe["fresh"], seed, root
    )
    if start is None:
        planes, valid = heldout[:STATISTICS].targets(model)
        scale = round(offset_statistics(planes[..., 3:], valid).rms, 1)
    else:
        scale = start.config.offset_scale
    config = training_config(recipe, seed)
    unet = training.train(
        model,
        samples,
        network_config(recipe, scale),
        config,
        jitter_config(recipe),
        Validation(model, heldout, Path(pictures) if pictures is not None else None),
        folder,
        log,
        workers=recipe["workers"],
        start=start,
        **options,
    )
    images = len(samples) * getattr(samples, "batch_size", 1)  # a stream counts batches
    return Trained(unet, config, heldout, images, data["source"], start)


def save(path: str | Path, trained: Trained, model: MorphableModel, **more: str) -> None:
    """Write the weights with their provenance; `more` is kept with it."""
    save_unet(
        path,
        trained.unet,
        images_seen=str(trained.images_seen),
        source=trained.source,
        seed=str(trained.config.seed),
        face_model=model.name,
        face_model_checksum=model.checksum,
        **more,
    )


def provenance_of(start: Path | None) -> dict[str, str]:
    """What to note of the weights that a training started from: the checksum of their file."""
    return {} if start is None else {"start": hashlib.sha256(start.read_bytes()).hexdigest()}


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
