"""Synthetic training samples: every sample is a pure function of (seed, index)."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from p2f_lib.camera import PerspectiveCamera
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import CameraDistribution, sample_camera, sample_coefficients
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.synthesis.people import sample_appearance
from p2f_lib.synthesis.photograph import render_photo, sample_scene


@dataclass(frozen=True, eq=False)
class Sample:
    """A photograph of a random person with everything that is known about it.

    Attributes
    ----------
    image : (H, W, 3) uint8.
    pncc, offsets : (H, W, 3) float32, mm, 0 outside the face.
    valid : (H, W) bool.
    shape, expression : coefficients.
    camera : model space to the picture.
    landmarks : (68, 2) float32, pixels.
    """

    image: np.ndarray
    pncc: np.ndarray
    offsets: np.ndarray
    valid: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    camera: PerspectiveCamera
    landmarks: np.ndarray


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Many samples, stacked.

    Attributes
    ----------
    images : (N, H, W, 3) uint8.
    planes : (N, H, W, 6) float16, mm: PNCC, then offsets.
    valid : (N, H, W) bool.
    landmarks : (N, 68, 2) float32, pixels, iBUG-68.
    """

    images: np.ndarray
    planes: np.ndarray
    valid: np.ndarray
    landmarks: np.ndarray


def render_sample(
    model: MorphableModel,
    seed: int,
    index: int,
    size: int = 112,
    supersample: int = 2,
    camera_distribution: CameraDistribution | None = None,
    shape: np.ndarray | None = None,
) -> Sample:
    """Sample `index` of the endless set `seed`.

    Parameters
    ----------
    size : pixels of the square picture.
    supersample : see `render_photo`.
    camera_distribution : how faces are seen; None for the default.
    shape : (Ks,) of a given person; None for a random one.
    """
    rng = np.random.default_rng([seed, index])
    random_shape, expression = sample_coefficients(model, rng)
    shape = random_shape if shape is None else shape
    vertices = model.vertices(shape, expression)
    camera = sample_camera(model, vertices, size, rng, camera_distribution)
    appearance, scene = sample_appearance(rng), sample_scene(rng)
    image, truth = render_photo(
        model, vertices, camera, appearance, scene, size, size, rng, supersample
    )
    landmarks = camera.project(vertices[model.landmarks["ibug68"]]).astype(np.float32)
    return Sample(
        image, truth.pncc, truth.offsets, truth.valid, shape, expression, camera, landmarks
    )


def render_samples(
    model: MorphableModel,
    seed: int,
    indices: Sequence[int],
    size: int = 112,
    supersample: int = 2,
    camera_distribution: CameraDistribution | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> SampleBatch:
    """Render many samples; the result is the same for any number of processes.

    Parameters
    ----------
    indices : which samples of the set `seed`.
    processes : worker processes; None for one a core, 1 to stay in this one.

    Raises
    ------
    P2FError : negative number of processes.
    """
    indices = [int(index) for index in indices]
    if processes is None:
        processes = multiprocessing.cpu_count()
    if processes < 1:
        raise P2FError(f"Rendering needs at least one process, got {processes}.")
    count = len(indices)
    batch = SampleBatch(
        np.empty((count, size, size, 3), np.uint8),
        np.empty((count, size, size, 6), np.float16),
        np.empty((count, size, size), bool),
        np.empty((count, 68, 2), np.float32),
    )
    arguments = (model, seed, size, supersample, camera_distribution)
    bar = tqdm(total=count, desc="photographs", unit="photo", disable=not progress)
    with bar:
        for row, arrays in enumerate(_rendered(arguments, indices, min(processes, max(count, 1)))):
            batch.images[row], batch.planes[row], batch.valid[row], batch.landmarks[row] = arrays
            bar.update()
    return batch


def _rendered(arguments, indices, processes):
    """The samples' arrays, in order."""
    if processes == 1:
        yield from (_arrays(arguments, index) for index in indices)
        return
    # Spawned, not forked: forking a process with numba or torch threads may hang.
    context = multiprocessing.get_context("spawn")
    with _single_threaded():
        pool = context.Pool(processes, initializer=_start_worker, initargs=arguments)
    with pool:
        yield from pool.imap(_work, indices, chunksize=8)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes started within use one thread each: their number is the parallelism."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_worker_arguments = None  # set once in each worker process, so the model travels once


def _start_worker(*arguments):
    global _worker_arguments
    cv2.setNumThreads(1)
    _worker_arguments = arguments


def _work(index):
    return _arrays(_worker_arguments, index)


def _arrays(arguments, index):
    model, seed, size, supersample, camera_distribution = arguments
    sample = render_sample(model, seed, index, size, supersample, camera_distribution)
    planes = np.concatenate([sample.pncc, sample.offsets], axis=2).astype(np.float16)
    return sample.image, planes, sample.valid, sample.landmarks
