"""Synthetic samples on one core: photographs with their targets, and targets of crops alone."""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks import Row, median_ms
from benchmarks._common import face_model
from p2f_lib.ground_truth import place_camera, render_crops, sample_table
from p2f_lib.memory import keep_freed_memory
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.parallel import one_thread
from p2f_lib.synthesis import render_sample

SAMPLES = 60  # as different as can be: some have glasses, some hair, some neither
BATCH, CROP, CANVAS = 16, 64, 112  # of the demo's training
SHARE = 0.57  # side of a crop / of its canvas


def rows() -> list[Row]:
    """Milliseconds of a sample, targets included, and of a target alone."""
    model = face_model()
    with one_thread():
        before = [statistics.median(_sample_ms(model, size)) for size in (128, 256)]
        keep_freed_memory()  # as the processes that render training images do
        middle, large = (_sample_ms(model, size) for size in (128, 256))
        single = [statistics.median(_sample_ms(model, size, 1)) for size in (128, 256)]
        target = _target_ms(model)
    mesh = f"{model.n_vertices} vertices ({model.name}), 1 core; median of {SAMPLES} samples"
    photos = f"photograph, PNCC and offsets, 2x2 rays a pixel, {mesh}"
    median = f"{photos}; reference: the same where freed memory goes back to the system"
    simple = f"the same with the one ray a pixel of the recipes in params/, {mesh}"
    return [
        Row("sample_128_ms", statistics.median(middle), "ms", before[0], f"128x128 {median}"),
        Row("sample_256_ms", statistics.median(large), "ms", before[1], f"256x256 {median}"),
        Row("sample_128_one_ray_ms", single[0], "ms", note=f"128x128, {simple}"),
        Row("sample_256_one_ray_ms", single[1], "ms", note=f"256x256, {simple}"),
        Row(
            "target_64_ms",
            target,
            "ms",
            note=f"PNCC and offsets of a jittered 64x64 crop, blending included, in batches of "
            f"{BATCH}, {model.n_vertices} vertices ({model.name}), 1 core",
        ),
    ]


def _sample_ms(model: MorphableModel, size: int, rays: int = 2) -> list[float]:
    """Milliseconds of each sample, with `rays` squared a pixel."""
    for index in range(SAMPLES // 4):  # prepares the model, reads the backgrounds
        render_sample(model, 0, index, size, supersample=rays)
    times = []
    for index in range(SAMPLES):
        start = time.perf_counter()
        render_sample(model, 0, index, size, supersample=rays)
        times.append(1000 * (time.perf_counter() - start))
    return times


def _target_ms(model: MorphableModel) -> float:
    table = sample_table(model, 0, BATCH, progress=False)
    meshes = model.vertices(table.shape, table.expression)
    marks = meshes[:, model.landmarks["ibug68"]]
    cameras = [place_camera(table.view(row), marks[row], CANVAS) for row in range(BATCH)]
    half = SHARE * CANVAS / 2
    middle = np.array([[half, 0, CANVAS / 2], [0, half, CANVAS / 2]])
    known = table.shape, table.expression, cameras, np.stack([middle] * BATCH)
    return median_ms(lambda: render_crops(model, *known, CROP), 21) / BATCH
