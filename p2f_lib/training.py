"""Training of the network (paper section 3.2): L1, Adam, a falling learning rate, jitter."""

from __future__ import annotations

import contextlib
import copy
import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from dvclive.lightning import DVCLiveLogger
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.utils.data import DataLoader
from tqdm import tqdm

from p2f_lib.datasets.crops import Canvases, CropLoader, Cropping, Crops, SampleSet
from p2f_lib.datasets.jitter import Jitter
from p2f_lib.datasets.stream import SampleStream
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.memory import keep_freed_memory
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.unet import NetworkConfig, UNet, normalise_images

Validate = Callable[[UNet, int], Mapping[str, float]]  # of a network after an epoch


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe.

    Parameters
    ----------
    epochs, batch_size : int
        The paper: 60 epochs of 100 000 images, batches of 4. Of several processes, each takes its
        part of a batch.
    learning_rate : float
        At the start; per epoch it falls by ``2 ** (-halvings / epochs)``.
    halvings : float
        Of the learning rate over the whole run (authors' code: 5).
    warmup : int
        Steps over which the rate first grows linearly.
    cooldown : float
        Share of the run at whose end the rate falls linearly to zero.
    average : float
        What a step keeps of the running average of the weights, which is then the result; 0 for
        the last weights themselves.
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
    warmup: int = 0
    cooldown: float = 0.0
    average: float = 0.0
    betas: tuple[float, float] = (0.5, 0.9)
    pncc_weight: float = 1.0
    offset_weight: float = 1.0
    seed: int = 0

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step over that of the start, for epochs of so many steps."""
        factor = 2 ** (-self.halvings * (step // steps) / self.epochs)
        if step < self.warmup:
            factor *= (step + 1) / self.warmup
        left = self.epochs * steps - step
        if left < self.cooldown * self.epochs * steps:
            factor *= left / (self.cooldown * self.epochs * steps)
        return factor


def masked_l1(
    output: torch.Tensor,
    planes: torch.Tensor,
    valid: torch.Tensor,
    config: NetworkConfig,
    pixels: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two parts of the loss, each in units of its own output scale.

    Parameters
    ----------
    output : (B, 6, S, S)
        Of the network.
    planes : (B, 6, S, S)
        True PNCC and offsets, mm.
    valid : (B, S, S) bool
    pixels : (), optional
        Face pixels that the offsets' sum is divided by; those of `valid` by default. Processes that
        share a batch give their mean, so that the mean of their losses is that of the batch.

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
    pixels = mask.sum() if pixels is None else pixels
    offsets = (difference * mask).sum() / (3 * pixels.clamp_min(1))
    return pncc, offsets


class Pix2FaceModule(lightning.LightningModule):
    """The network with its loss, optimiser, schedule and data."""

    def __init__(
        self,
        face_model: MorphableModel,
        network: NetworkConfig,
        training: TrainingConfig,
        jitter: Jitter,
        dataset: SampleSet | SampleStream,
        validate: Validate | None = None,
        workers: int = 0,
        compiled: bool = False,
        start: UNet | None = None,
    ) -> None:
        super().__init__()
        self.training_config, self.jitter, self.validate = training, jitter, validate
        self.face_model, self.dataset, self.workers = face_model, dataset, workers
        torch.manual_seed(training.seed)
        self.unet = UNet(network).to(memory_format=torch.channels_last)
        if start is not None:
            self.unet.load_state_dict(start.state_dict())
        self.average = copy.deepcopy(self.unet).requires_grad_(False) if training.average else None
        if compiled:
            self.unet.compile()

    @property
    def result(self) -> UNet:
        """The network that the training is for."""
        return self.unet if self.average is None else self.average

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        size = self.training_config.batch_size
        if isinstance(self.dataset, SampleStream):
            return len(self.dataset)
        return len(self.dataset) // min(size, len(self.dataset))

    def train_dataloader(self) -> DataLoader:
        config, size = self.training_config, self.unet.config.input_size
        part = self.trainer.global_rank, self.trainer.world_size
        cropping = Cropping(self.face_model, self.jitter, size, config.seed, part)
        self.loader = CropLoader(
            self.dataset, cropping, config.batch_size, config.seed, self.workers
        )
        self.on_train_epoch_start()  # a resumed run's workers start before the hook is called
        return self.loader

    def on_train_epoch_start(self) -> None:
        self.loader.position.set_position(*divmod(self.global_step, self.steps))

    def training_step(self, batch: Crops, index: int) -> torch.Tensor:
        images, planes, valid = batch
        images = normalise_images(images).contiguous(memory_format=torch.channels_last)
        pixels = None
        if self.trainer.world_size > 1:
            # Lightning gathers collections, too; what it makes of a tensor is a tensor.
            pixels = cast(torch.Tensor, self.all_gather(valid.sum().float())).mean()
        output = self.unet(images).float()
        pncc, offsets = masked_l1(output, planes, valid, self.unet.config, pixels)
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(images)}
        self.log("train/pncc_l1_mm", pncc.detach() * self.unet.config.pncc_scale, **options)
        self.log("train/offset_l1_mm", offsets.detach() * self.unet.config.offset_scale, **options)
        config = self.training_config
        return config.pncc_weight * pncc + config.offset_weight * offsets

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        if self.average is not None:  # here, so that a checkpoint never lacks the last step
            _follow(self.average, self.unet, self.training_config.average, self.global_step)

    def on_train_epoch_end(self) -> None:
        if self.validate is None or not self.trainer.is_global_zero:
            return
        for name, value in self.validate(self.result, self.current_epoch).items():
            self.log(f"heldout/{name}", value, rank_zero_only=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        config, steps = self.training_config, self.steps
        optimizer = torch.optim.Adam(
            self.unet.parameters(), lr=config.learning_rate, betas=config.betas, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: config.rate(step, steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


@torch.no_grad()
def _follow(average: UNet, unet: UNet, keep: float, step: int) -> None:
    """One step of the running average; the first ones, far from any good, are soon forgotten."""
    share = 1 - min(keep, (1 + step) / (20 + step))
    torch._foreach_lerp_(list(average.parameters()), list(unet.parameters()), share)
    for mine, other in zip(average.buffers(), unet.buffers(), strict=True):
        mine.lerp_(other, share) if mine.is_floating_point() else mine.copy_(other)


def train(
    model: MorphableModel,
    samples: SampleBatch | SampleSet | SampleStream,
    network: NetworkConfig,
    training: TrainingConfig,
    jitter: Jitter = Jitter(),  # noqa: B008 - frozen
    validate: Validate | None = None,
    folder: str | Path | None = None,
    log: str | Path | None = None,
    callbacks: list[Callback] | None = None,
    workers: int = 0,
    progress: bool = True,
    save_every: int = 1000,
    hardware: dict[str, Any] | None = None,
    compiled: bool = False,
    start: UNet | None = None,
) -> UNet:
    """Train a network, resuming where an interrupted run of the same recipe stopped.

    A run that was killed ends with the same bits as one that was not (on a CPU): weights,
    optimiser, schedule, position in the data and randomness all follow from the checkpoint.

    Parameters
    ----------
    model : MorphableModel
        To which the samples' coefficients belong; targets are rendered from it.
    samples : SampleBatch, SampleSet or SampleStream
        A stream makes its own batches: give it the recipe's `batch_size`.
    validate : function, optional
        From the network and the number of the epoch that has ended, from 0, to what the curves
        shall show of it; see `p2f_lib.validation.Validation`.
    workers : int
        Processes that make crops and targets, and read or render samples on demand, ahead of the
        training; 0 for none but this one.
    folder : path, optional
        Where ``last.ckpt`` is kept, and the one before it, until the run is complete. They resume a
        run of the same parameters and samples only.
    log : path, optional
        Where DVCLive writes the curves: one ``.tsv`` a quantity, one row an epoch.
    save_every : int
        Steps between checkpoints within an epoch; there is one at the end of each epoch, too.
    hardware : dict, optional
        Arguments of `lightning.Trainer` such as ``devices``, ``num_nodes``, ``strategy``,
        ``precision``. One device by default: the graphics card, in bfloat16, where there is one.
    compiled : bool
        Use `torch.compile`: slow to start, faster from then on.
    start : UNet, optional
        Of the same configuration, whose weights the training starts from; random ones by default.

    Returns
    -------
    UNet
        In evaluation mode, on the CPU.

    Raises
    ------
    P2FError
        A checkpoint of another recipe in `folder`; a stream with batches of another size than the
        recipe's; a batch that doesn't divide among the processes; a start of another configuration.
    """
    dataset = Canvases(samples) if isinstance(samples, SampleBatch) else samples
    if isinstance(dataset, SampleStream) and dataset.batch_size != training.batch_size:
        raise P2FError(
            f"The stream makes batches of {dataset.batch_size}, the recipe asks for "
            f"{training.batch_size}; give both the same number."
        )
    if start is not None and start.config != network:
        raise P2FError(
            f"The training cannot start from weights of another network: {start.config}, but the "
            f"recipe has {network}."
        )
    keep_freed_memory()  # every step needs the same amount again
    module = Pix2FaceModule(
        model, network, training, jitter, dataset, validate, workers, compiled, start
    )
    recipe: dict[str, Any] = {
        "network": asdict(network),
        "training": asdict(training),
        "jitter": asdict(jitter),
        "samples": [len(dataset), zlib.crc32(_first_image(dataset).tobytes())],
    }
    if start is not None:
        recipe["start"] = zlib.crc32(
            b"".join(p.detach().cpu().numpy().tobytes() for p in start.parameters())
        )
    callbacks = [*(callbacks or []), *([_Bar()] if progress else [])]
    saver = None
    if folder is not None:
        saver = _Saver(Path(folder), save_every)
        callbacks += [saver, _Recipe(recipe)]
    machine: dict[str, Any] = {"accelerator": "auto", "devices": 1, "precision": _precision()}
    trainer = lightning.Trainer(
        **machine | (hardware or {}),
        max_epochs=training.epochs,
        logger=_logger(log) if log is not None else False,
        callbacks=callbacks,
        plugins=[_KeptCheckpoints()],
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,  # writes to stdout, where notebooks keep their results
        enable_model_summary=False,
        use_distributed_sampler=False,  # `EpochShuffle` and `SampleStream` share batches out
        deterministic=True,
        log_every_n_steps=1,
    )
    trainer.fit(module, ckpt_path=None if saver is None else saver.found(), weights_only=True)
    if saver is not None and trainer.is_global_zero:
        saver.forget()  # the next run starts afresh
    return module.result.cpu().eval()


def _precision() -> str:
    """bfloat16 on graphics cards that have it; on CPUs it is slower than float32."""
    good = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if good else "32-true"


def _first_image(dataset: SampleSet | SampleStream) -> np.ndarray:
    if isinstance(dataset, SampleStream):
        dataset.set_position(0)
        return next(iter(dataset)).images[0]
    return dataset.__getitems__([0]).images[0]


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
        total = trainer.num_training_batches
        self.bar = tqdm(
            total=total,
            initial=trainer.global_step - trainer.current_epoch * total,
            desc=title,
            unit="batch",
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, *_: object) -> None:
        self.bar.update()

    def on_train_epoch_end(self, *_: object) -> None:
        self.bar.close()


class _KeptCheckpoints(TorchCheckpointIO):
    """Checkpoints that are never half written, and the one before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        path = Path(path)
        draft = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # PyTorch wraps what the system says
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            warnings.warn(
                f"No checkpoint could be written to {path} ({error}); the training goes on, and "
                "the last one that could be stays.",
                stacklevel=2,
            )
            return
        if path.exists():
            path.replace(previous(path))
        draft.replace(path)


def previous(path: Path) -> Path:
    """Where the checkpoint before the last is kept."""
    return path.with_name(f"previous-{path.name}")


class _Saver(Checkpoint):
    """Writes checkpoints: every so many steps, and at the end of an epoch, after all else."""

    def __init__(self, folder: Path, every: int) -> None:
        self.path, self.every = folder / "last.ckpt", every

    def found(self) -> Path | None:
        """The newest checkpoint that can be read."""
        for path in (self.path, previous(self.path)):
            if path.is_file():
                try:
                    torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                except Exception as error:  # damage has many faces
                    warnings.warn(f"The checkpoint {path} is damaged: {error}.", stacklevel=2)
                else:
                    return path
        return None

    def forget(self) -> None:
        for path in (self.path, previous(self.path)):
            path.unlink(missing_ok=True)

    def on_train_batch_end(  # type: ignore[override]  # its module is ours
        self, trainer: lightning.Trainer, module: Pix2FaceModule, *_: object
    ) -> None:
        if trainer.global_step % self.every == 0 and trainer.global_step % module.steps:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        trainer.save_checkpoint(self.path)


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
