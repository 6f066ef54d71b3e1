"""Synthetic training samples: every sample is a pure function of (seed, index)."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from p2f_lib.camera import PerspectiveCamera
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import CameraDistribution, SampleBatch, ibug68, place_camera
from p2f_lib.memory import keep_freed_memory
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.synthesis.background import draw_distractor
from p2f_lib.synthesis.draws import Draw, sample_draw, without
from p2f_lib.synthesis.lens import develop
from p2f_lib.synthesis.photograph import render_photo

NO_FACE_SHARE = 0.05  # of the samples: a network that never saw such a picture grows faces anywhere


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
    is_face : False for a picture of other things. Its planes are 0; coefficients, camera and
        landmarks are those of the face that might be there.
    """

    image: np.ndarray
    pncc: np.ndarray
    offsets: np.ndarray
    valid: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    camera: PerspectiveCamera
    landmarks: np.ndarray
    is_face: bool = True


def render_draw(model: MorphableModel, draw: Draw, size: int = 112, supersample: int = 2) -> Sample:
    """The sample that a draw describes, in a square picture."""
    vertices = model.vertices(draw.shape, draw.expression)
    marks = ibug68(model, vertices)
    camera = place_camera(draw.view, marks, size)
    noise = np.random.default_rng(draw.noise)
    if draw.is_face:
        image, truth = render_photo(
            model, vertices, camera, draw.appearance, draw.scene, size, size, noise, supersample
        )
        planes = truth.pncc, truth.offsets, truth.valid
    else:
        image = _photograph_things(draw, size, noise)
        nothing = np.zeros((size, size, 3), np.float32)
        planes = nothing, nothing.copy(), np.zeros((size, size), bool)
    landmarks = camera.project(marks).astype(np.float32)
    return Sample(image, *planes, draw.shape, draw.expression, camera, landmarks, draw.is_face)


def _photograph_things(draw: Draw, size: int, noise: np.random.Generator) -> np.ndarray:
    """(size, size, 3) uint8: things without a face, before the same lens."""
    things = draw_distractor(np.random.default_rng(draw.things), size, size)
    light = cv2.pow(things.astype(np.float32), 2.2) * np.float32(draw.scene.backlight)
    return develop(light, np.zeros((size, size), bool), draw.scene.lens, noise)


def render_sample(
    model: MorphableModel,
    seed: int,
    index: int,
    size: int = 112,
    supersample: int = 2,
    camera_distribution: CameraDistribution | None = None,
    shape: np.ndarray | None = None,
    no_face_share: float = 0.0,
) -> Sample:
    """Sample `index` of the endless set `seed`.

    Parameters
    ----------
    size : pixels of the square picture.
    supersample : see `render_photo`.
    camera_distribution : how faces are seen; None for the default.
    shape : (Ks,) of a given person; None for a random one.
    no_face_share : probability that the picture shows other things than a face. It changes nothing
        about the samples that do.
    """
    draw = sample_draw(model, seed, index, camera_distribution, shape, no_face_share)
    return render_draw(model, draw, size, supersample)


def render_samples(
    model: MorphableModel,
    seed: int,
    indices: Sequence[int] | np.ndarray,
    size: int = 112,
    supersample: int = 2,
    camera_distribution: CameraDistribution | None = None,
    no_face_share: float = NO_FACE_SHARE,
    leave_out: str | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> SampleBatch:
    """Render many samples; the result is the same for any number of processes.

    Parameters
    ----------
    indices : which samples of the set `seed`.
    size, supersample, camera_distribution, no_face_share : as of `render_sample`, except that a
        training set shows some pictures without a face.
    leave_out : one of `p2f_lib.synthesis.draws.INGREDIENTS`, for an ablation.
    processes : worker processes; None for one a core, 1 to stay in this one.

    Raises
    ------
    P2FError : no process at all, an unknown ingredient, a process that ended by itself.
    """
    numbers = [int(index) for index in indices]
    if processes is None:
        processes = multiprocessing.cpu_count()
    if processes < 1:
        raise P2FError(f"Rendering needs at least one process, got {processes}.")
    count = len(numbers)
    images = np.empty((count, size, size, 3), np.uint8)
    known: list[tuple[Any, ...]] = []  # everything else is small
    arguments = (model, seed, size, supersample, camera_distribution, no_face_share, leave_out)
    bar = tqdm(total=count, desc="photographs", unit="photo", disable=not progress)
    with bar:
        for image, facts in _rendered(arguments, numbers, min(processes, max(count, 1))):
            images[len(known)] = image
            known.append(facts)
            bar.update()
    return SampleBatch(
        images,
        np.array([facts[0] for facts in known], np.float32).reshape(count, model.n_shape),
        np.array([facts[1] for facts in known], np.float32).reshape(count, model.n_expression),
        tuple(facts[2] for facts in known),
        np.array([facts[3] for facts in known], np.float32).reshape(count, 68, 2),
        np.array([facts[4] for facts in known], bool),
    )


def _rendered(arguments, indices, processes):
    """What is kept of the samples, in order."""
    if processes == 1:
        keep_freed_memory()
        yield from (_kept(arguments, index) for index in indices)
        return
    # Spawned, not forked: forking a process with numba or torch threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _start_worker, arguments)
    try:
        with _single_threaded():  # the processes start with the first task
            found = pool.map(_work, indices, chunksize=8)
        yield from found
    except BrokenProcessPool as error:
        raise P2FError(
            "A process that renders photographs ended by itself: the memory may be short, or a "
            'script renders without `if __name__ == "__main__":` before its own work.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


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
    keep_freed_memory()
    _worker_arguments = arguments


def _work(index):
    return _kept(_worker_arguments, index)


def _kept(arguments, index):
    """The image and the other columns of `SampleBatch`."""
    model, seed, size, supersample, distribution, no_face_share, left_out = arguments
    draw = sample_draw(model, seed, index, distribution, no_face_share=no_face_share)
    draw = draw if left_out is None else without(draw, left_out)
    s = render_draw(model, draw, size, supersample)
    return s.image, (s.shape, s.expression, s.camera, s.landmarks, s.is_face)
