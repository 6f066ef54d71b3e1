"""The network, a whole photo, and the rendering of training pictures, on one core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage import data

from benchmarks import Row, median_ms
from p2f_lib.crop import Box
from p2f_lib.errors import P2FError
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.reconstruction import FACE_MODEL_FILE, Reconstructor
from p2f_lib.synthesis import render_sample
from p2f_lib.unet import NetworkConfig, UNet
from tests.toy import toy_model

BUILD = Path(__file__).resolve().parents[1] / "build"
RELEASED = NetworkConfig(64, 16, 5, "batch", upsample_first=False, blocks=1)
FACE_IN_ASTRONAUT = Box(180, 70, 270, 180)  # in skimage's portrait of 512 x 512
CANVAS, PICTURES = 112, 16  # pixels a side, and how many make one timed call


def rows() -> list[Row]:
    """Milliseconds of the network and of a photo; training pictures a second."""
    with _one_thread():
        return [_network(), _photo(), _render()]


@torch.inference_mode()
def _network() -> Row:
    crop = torch.rand(1, 3, 64, 64) - 0.5
    released, plain = (
        _unet(config) for config in (RELEASED, replace(RELEASED, upsample_first=True))
    )
    millions = sum(weights.numel() for weights in released.parameters()) / 1e6
    return Row(
        "network_torch_ms",
        median_ms(lambda: released(crop), 101),
        "ms",
        median_ms(lambda: plain(crop), 101),
        f"one 64x64 crop to six planes, 1 thread, {millions:.1f} M weights; reference: the "
        "same network, upsampling before its convolutions",
    )


def _unet(config: NetworkConfig) -> UNet:
    """As `load_unet` returns it, with random weights: time doesn't depend on them."""
    return UNet(config).to(memory_format=torch.channels_last).eval()


def _photo() -> Row:
    name, unit = "photo_ms", "ms"
    try:
        reconstructor = Reconstructor.from_pretrained(BUILD, device="cpu")
    except P2FError as problem:
        why = str(problem).replace(str(BUILD), BUILD.name)  # the report names no one's folders
        return Row(name, np.nan, unit, note=f"not measured: {why}")
    photo = data.astronaut()
    height, width = photo.shape[:2]
    return Row(
        name,
        median_ms(lambda: reconstructor.reconstruct(photo, FACE_IN_ASTRONAUT), 31),
        unit,
        note=f"{width}x{height} photo with a given box to a fitted face, "
        f"{reconstructor.passes} passes of network and fit, {reconstructor.model.n_vertices} "
        "vertices, 1 thread",
    )


def _render() -> Row:
    path = BUILD / FACE_MODEL_FILE
    model = MorphableModel.load(path) if path.is_file() else toy_model(11_843)

    def render() -> None:
        for index in range(PICTURES):
            render_sample(model, 0, index, size=CANVAS)

    return Row(
        "render_images_per_s",
        1000 * PICTURES / median_ms(render, 5),
        "images/s",
        note=f"photograph, PNCC and offsets of {CANVAS}x{CANVAS}, 2x2 rays a pixel, "
        f"{model.n_vertices} vertices ({model.name}), 1 core",
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
