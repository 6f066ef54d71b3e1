"""Training of the network (paper section 3.2): L1, Adam, a falling learning rate, jitter."""

from __future__ import annotations

import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning
import numpy as np
import torch
from dvclive.lightning import DVCLiveLogger
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

from p2f_lib.datasets.jitter import CENTRED, Jitter, jitter_batch
from p2f_lib.datasets.stream import SampleStream
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.memory import keep_freed_memory
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.unet import NetworkConfig, UNet, normalise_images

MASK_THRESHOLD = 15.0  # mm: closer to the origin than any surface point


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe.

    Parameters
    ----------
    epochs, batch_size : int
        The paper: 60 epochs of 100 000 images, batches of 4.
    learning_rate : float
        At the start; per epoch it falls by ``2 ** (-halvings / epochs)``.
    halvings : float
        Of the learning rate over the whole run (authors' code: 5).
    betas : (float, float)
        Of Adam; the paper's (0.5, 0.9).
    pncc_weight, offset_weight : float
        Weights of the two parts of the loss, each measured in its own scale.
    seed : int
        Decides weights, order and jitter.
    """

    epochs: int = 10
    batch_size: int = 4
    learning_rate: float = 1e-3
    halvings: float = 5.0
    betas: tuple[float, float] = (0.5, 0.9)
    pncc_weight: float = 1.0
    offset_weight: float = 1.0
    seed: int = 0


class Canvases(Dataset):
    """Samples that were rendered before, fetched a batch at a time.

    Any data set with these two methods can be trained on.
    """

    def __init__(self, samples: SampleBatch) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, indices: list[int]) -> SampleBatch:
        return self.samples[indices]


class EpochShuffle(Sampler[int]):
    """A permutation that (seed, epoch) decides, so that a resumed run sees the same order."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self):
        return iter(np.random.default_rng([self.seed, self.epoch]).permutation(self.length))


def masked_l1(
    output: torch.Tensor, planes: torch.Tensor, valid: torch.Tensor, config: NetworkConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two parts of the loss, each in units of its own output scale.

    Parameters
    ----------
    output : (B, 6, S, S)
        Of the network.
    planes : (B, 6, S, S)
        True PNCC and offsets, mm.
    valid : (B, S, S) bool

    Returns
    -------
    pncc : ()
        L1 over the whole frame: the background is learned as 0.
    offsets : ()
        L1 over the face only. Over the frame, as published, most of the sum is background that is
        right from the start, and the offsets stay at zero.
    """
    pncc = (output[:, :3] - planes[:, :3] / config.pncc_scale).abs().mean()
    difference = (output[:, 3:] - planes[:, 3:] / config.offset_scale).abs()
    mask = valid[:, None].float()
    offsets = (difference * mask).sum() / (3 * mask.sum().clamp_min(1))
    return pncc, offsets


@dataclass(frozen=True)
class Errors:
    """Errors over held-out samples; mm unless said otherwise.

    `offset_ratio` is the offsets' mean absolute error over that of predicting zero: a network that
    has learned no offsets has 1. `mask_iou` compares the pixels whose PNCC is not near 0 with the
    true face.
    """

    pncc_median: float
    offset_l1: float
    offset_zero_l1: float
    offset_ratio: float
    mask_iou: float


@torch.inference_mode()
def heldout_errors(
    unet: UNet, model: MorphableModel, samples: SampleBatch, batch_size: int = 64
) -> Errors:
    """Errors of a network over centred crops of held-out samples of a face model.

    Raises
    ------
    P2FError
        No sample shows a face.
    """
    size, config = unet.config.input_size, unet.config
    device = next(unet.parameters()).device
    generator = torch.Generator().manual_seed(0)
    distances, offset_sum, zero_sum, pixels, both, either = [], 0.0, 0.0, 0, 0, 0
    training = unet.training
    unet.eval()
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        images, planes, valid = jitter_batch(model, batch, CENTRED, size, generator)
        output = unet(normalise_images(images.to(device))).float().cpu()
        pncc, offsets = output[:, :3] * config.pncc_scale, output[:, 3:] * config.offset_scale
        distance = (pncc - planes[:, :3]).norm(dim=1)
        distances.append(distance[valid])
        mask = valid[:, None]
        offset_sum += float(((offsets - planes[:, 3:]).abs() * mask).sum())
        zero_sum += float((planes[:, 3:].abs() * mask).sum())
        pixels += 3 * int(valid.sum())
        found = pncc.norm(dim=1) > MASK_THRESHOLD
        both += int((found & valid).sum())
        either += int((found | valid).sum())
    unet.train(training)
    if not pixels:
        raise P2FError("No held-out sample shows a face: there is nothing to measure.")
    return Errors(
        pncc_median=float(torch.cat(distances).median()),
        offset_l1=offset_sum / pixels,
        offset_zero_l1=zero_sum / pixels,
        offset_ratio=offset_sum / zero_sum,
        mask_iou=both / max(either, 1),
    )


class Pix2FaceModule(lightning.LightningModule):
    """The network with its loss, optimiser and schedule."""

    def __init__(
        self,
        face_model: MorphableModel,
        network: NetworkConfig,
        training: TrainingConfig,
        jitter: Jitter,
        loader: DataLoader,
        heldout: SampleBatch | None = None,
    ) -> None:
        super().__init__()
        self.training_config, self.jitter, self.heldout = training, jitter, heldout
        self.face_model, self.loader = face_model, loader
        torch.manual_seed(training.seed)
        self.unet = UNet(network).to(memory_format=torch.channels_last)

    def transfer_batch_to_device(self, batch: SampleBatch, *_: object) -> SampleBatch:
        return batch  # `training_step` moves what it makes of it

    def train_dataloader(self) -> DataLoader:
        self.on_train_epoch_start()  # a resumed run's workers start before the hook is called
        return self.loader

    def on_train_epoch_start(self) -> None:
        if isinstance(self.loader.dataset, SampleStream):
            self.loader.dataset.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)

    def training_step(self, batch: SampleBatch, index: int) -> torch.Tensor:
        # (seed, step) decides the jitter, so that a resumed run repeats it.
        generator = torch.Generator().manual_seed(
            self.training_config.seed * 1_000_003 + self.global_step
        )
        images, planes, valid = jitter_batch(
            self.face_model,
            batch,
            self.jitter,
            self.unet.config.input_size,
            generator,
            self.device,
        )
        images = normalise_images(images).contiguous(memory_format=torch.channels_last)
        pncc, offsets = masked_l1(self.unet(images), planes, valid, self.unet.config)
        options = {"on_step": False, "on_epoch": True, "batch_size": len(images)}
        self.log("train/pncc_l1_mm", pncc.detach() * self.unet.config.pncc_scale, **options)
        self.log("train/offset_l1_mm", offsets.detach() * self.unet.config.offset_scale, **options)
        config = self.training_config
        return config.pncc_weight * pncc + config.offset_weight * offsets

    def on_train_epoch_end(self) -> None:
        if self.heldout is None:
            return
        errors = heldout_errors(self.unet, self.face_model, self.heldout)
        for name, value in asdict(errors).items():
            self.log(f"heldout/{name}", value)

    def configure_optimizers(self) -> dict:
        config = self.training_config
        optimizer = torch.optim.Adam(
            self.unet.parameters(), lr=config.learning_rate, betas=config.betas
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epoch: 2 ** (-config.halvings * epoch / config.epochs)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "epoch"},
        }


def train(
    model: MorphableModel,
    samples: SampleBatch | Dataset | SampleStream,
    network: NetworkConfig,
    training: TrainingConfig,
    jitter: Jitter = Jitter(),  # noqa: B008 - frozen
    heldout: SampleBatch | None = None,
    folder: str | Path | None = None,
    log: str | Path | None = None,
    callbacks: list[Callback] | None = None,
    workers: int = 0,
    progress: bool = True,
) -> UNet:
    """Train a network, resuming where an interrupted run of the same recipe stopped.

    Parameters
    ----------
    model : MorphableModel
        To which the samples' coefficients belong; targets are rendered from it.
    samples : SampleBatch, a data set with the methods of `Canvases`, or a `SampleStream`
        A stream makes its own batches: give it the recipe's `batch_size`.
    heldout : SampleBatch, optional
    workers : int
        Processes that fetch batches; worth it where samples are rendered on demand.
    folder : path, optional
        Where ``last.ckpt`` is kept between epochs, until the run is complete. It resumes a run of
        the same parameters and samples only.
    log : path, optional
        Where DVCLive writes the curves: one ``.tsv`` a quantity, one row an epoch.

    Returns
    -------
    UNet
        In evaluation mode, on the CPU.

    Raises
    ------
    P2FError
        A checkpoint of another recipe in `folder`; a stream with batches of another size than the
        recipe's.
    """
    dataset = Canvases(samples) if isinstance(samples, SampleBatch) else samples
    loader = _loader(dataset, training, workers)
    keep_freed_memory()  # every step needs the same amount again
    module = Pix2FaceModule(model, network, training, jitter, loader, heldout)
    recipe = {
        "network": asdict(network),
        "training": asdict(training),
        "jitter": asdict(jitter),
        "samples": [len(dataset), zlib.crc32(_first_image(dataset).tobytes())],
    }
    callbacks = [*(callbacks or []), *([_Bar()] if progress else [])]
    checkpoint = None
    if folder is not None:
        folder = Path(folder)
        saver = ModelCheckpoint(
            dirpath=folder,
            filename="last",
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        callbacks += [saver, _Recipe(recipe)]
        checkpoint = folder / "last.ckpt"
    trainer = lightning.Trainer(
        max_epochs=training.epochs,
        accelerator="auto",
        devices=1,
        logger=_logger(log) if log is not None else False,
        callbacks=callbacks,
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,  # writes to stdout, where notebooks keep their results
        enable_model_summary=False,
        deterministic=True,
        log_every_n_steps=1,
    )
    resume = checkpoint if checkpoint is not None and checkpoint.is_file() else None
    trainer.fit(module, ckpt_path=resume, weights_only=True)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)  # the next run starts afresh
    return module.unet.cpu().eval()


def _loader(dataset: Dataset, training: TrainingConfig, workers: int) -> DataLoader:
    options = {
        "num_workers": workers,
        "multiprocessing_context": "spawn" if workers else None,
        "persistent_workers": workers > 0,
    }
    if isinstance(dataset, SampleStream):
        if dataset.batch_size != training.batch_size:
            raise P2FError(
                f"The stream makes batches of {dataset.batch_size}, the recipe asks for "
                f"{training.batch_size}; give both the same number."
            )
        return DataLoader(dataset, batch_size=None, **options)
    return DataLoader(
        dataset,
        batch_size=training.batch_size,
        sampler=EpochShuffle(len(dataset), training.seed),
        drop_last=len(dataset) > training.batch_size,
        collate_fn=_as_it_is,
        **options,
    )


def _first_image(dataset: Dataset) -> np.ndarray:
    if isinstance(dataset, SampleStream):
        dataset.set_epoch(0)
        return next(iter(dataset)).images[0]
    return dataset.__getitems__([0]).images[0]


def _as_it_is(batch: SampleBatch) -> SampleBatch:
    return batch  # fetched as a whole


def _logger(folder: str | Path) -> DVCLiveLogger:
    # Without these, DVCLive rewrites dvc.yaml, makes an experiment and a report of its own.
    return DVCLiveLogger(dir=str(folder), report=None, save_dvc_exp=False, dvcyaml=None)


def read_history(folder: str | Path) -> dict[str, np.ndarray]:
    """The curves that `train` logged: {quantity: (epochs,)}."""
    root = Path(folder) / "plots" / "metrics"
    return {
        path.relative_to(root).with_suffix("").as_posix(): np.loadtxt(
            path, delimiter="\t", skiprows=1, ndmin=2
        )[:, -1]
        for path in sorted(root.rglob("*.tsv"))
    }


class _Bar(Callback):
    """A progress bar an epoch, on stderr."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: object) -> None:
        title = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self.bar = tqdm(total=trainer.num_training_batches, desc=title, unit="batch")

    def on_train_batch_end(self, *_: object) -> None:
        self.bar.update()

    def on_train_epoch_end(self, *_: object) -> None:
        self.bar.close()


class _Recipe(Callback):
    """Keeps the recipe in the checkpoint and refuses to resume another one."""

    def __init__(self, recipe: dict) -> None:
        self.recipe = recipe

    def state_dict(self) -> dict:
        return self.recipe

    def load_state_dict(self, state: dict) -> None:
        if state != self.recipe:
            raise P2FError(
                "The checkpoint was made with other parameters than this run's; move it away to "
                "start afresh, or restore its parameters to resume it."
            )


def pin_threads(count: int) -> None:
    """Fix the number of threads: sums in another order give other bits."""
    torch.set_num_threads(count)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
