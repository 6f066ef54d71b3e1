"""The training of the released weights: its pictures, its steps, and what is left of the peak."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import Row, median_ms
from benchmarks._common import ROOT, face_model
from p2f_lib import recipe
from p2f_lib.datasets.crops import Canvases, Cropping
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.memory import keep_freed_memory
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.parallel import one_thread
from p2f_lib.synthesis import render_samples
from p2f_lib.training import Pix2FaceModule

RECIPE = ROOT / "params" / "release.yaml"
OFFSET_SCALE = 3.0  # mm; measured in a training, and no matter of time
CANVASES = 48  # as different as can be: some have glasses, some hair, some neither
STEPS = 9
MATMULS = (512, 1024, 2048)  # sides of square matrices; the best of them is the machine's peak


def rows() -> list[Row]:
    """Pictures a second, rendered and trained on; and the arithmetic's share of the peak."""
    parameters, model = recipe.read_parameters(RECIPE), face_model()
    with one_thread():
        keep_freed_memory()  # as a training does
        rendering, samples = _render(parameters["ground_truth"], model)
        return [rendering, *_train(parameters, model, samples)]


def _render(data: Mapping[str, Any], model: MorphableModel) -> tuple[Row, SampleBatch]:
    def render() -> SampleBatch:
        return render_samples(
            model,
            0,
            range(CANVASES),
            data["canvas"],
            data["supersample"],
            no_face_share=data["no_face_share"],
            processes=1,
            progress=False,
        )

    seconds = median_ms(render, 5) / 1000
    row = Row(
        "render_images_per_s",
        CANVASES / seconds,
        "images/s",
        note=f"photographs of {data['canvas']}x{data['canvas']}, {data['supersample']} rays a "
        f"pixel and axis, as of {RECIPE.name}; {model.n_vertices} vertices ({model.name}), 1 core",
    )
    return row, render()


def _train(parameters: Mapping[str, Any], model: MorphableModel, samples: SampleBatch) -> list[Row]:
    module = module_of(parameters, model, samples)
    batch = module.training_config.batch_size
    module.workers = 1
    whole = step_seconds(module, STEPS)
    module.workers = 0
    with ready_batches(module):
        ready = step_seconds(module, STEPS)
        operations = step_operations(module)
    peak, done = matmul_peak(), operations / ready
    size = module.unet.config.input_size
    step = f"{size}x{size}, batches of {batch}, forward, backward, Adam and average, 1 thread"
    return [
        Row("train_images_per_s", batch / ready, "images/s", note=f"ready batches: {step}"),
        Row(
            "train_with_data_images_per_s",
            batch / whole,
            "images/s",
            batch / ready,
            f"canvases in memory, crops, jitter and targets by another process: {step}; reference: "
            "ready batches",
        ),
        Row(
            "matmul_peak_share",
            done / peak,
            "",
            note=f"{done / 1e9:.0f} Gflop/s in a step on a ready batch ({operations / 1e9:.0f} "
            f"Gflop in convolutions), of {peak / 1e9:.0f} Gflop/s in the best of the products of "
            f"float32 matrices of {', '.join(map(str, MATMULS))}, 1 thread",
        ),
    ]


def module_of(
    parameters: Mapping[str, Any], model: MorphableModel, samples: SampleBatch
) -> Pix2FaceModule:
    """What a training with these parameters trains."""
    group, seed = parameters["train"], parameters["seed"]
    return Pix2FaceModule(
        model,
        recipe.network_config(group, OFFSET_SCALE),
        recipe.training_config(group, seed),
        recipe.jitter_config(group),
        Canvases(samples),
    )


@contextmanager
def ready_batches(module: Pix2FaceModule) -> Iterator[None]:
    """Meanwhile every step gets the same batch, made before: nothing is cropped or rendered."""
    samples = module.dataset.samples[: module.training_config.batch_size]
    cropping = Cropping(module.face_model, module.jitter, module.unet.config.input_size, seed=0)
    ready = cropping(samples, 0)
    with mock.patch.object(Cropping, "__call__", return_value=ready):
        yield


@dataclass
class _Clock(Callback):
    """When the batches ended."""

    def __post_init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.times.append(time.perf_counter())


def step_seconds(module: Pix2FaceModule, steps: int) -> float:
    """Median time from the end of a batch to that of the next, the first ones left out."""
    clock = _Clock()
    _fit(module, steps + 3, clock)
    return statistics.median(b - a for a, b in itertools.pairwise(clock.times[2:]))


def step_operations(module: Pix2FaceModule) -> int:
    """Floating-point operations of the matrix products and convolutions of one step."""
    with FlopCounterMode(display=False) as counter:
        _fit(module, 1)
    return counter.get_total_flops()


def _fit(module: Pix2FaceModule, steps: int, *callbacks: Callback) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic=True,
    )
    trainer.fit(module)


def matmul_peak() -> float:
    """Floating-point operations a second in the best of several products of float32 matrices."""
    generator = torch.Generator().manual_seed(0)
    best = 0.0
    for side in MATMULS:
        a, b = (torch.rand(side, side, generator=generator) for _ in range(2))
        out = torch.empty(side, side)
        torch.mm(a, b, out=out)
        for _ in range(2 * 2048 // side):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best
