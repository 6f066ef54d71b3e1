"""The network and a whole photo, on one core."""

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
from p2f_lib.engines import installed, make_engine
from p2f_lib.errors import P2FError
from p2f_lib.reconstruction import WEIGHTS_FOLDERS, Reconstructor
from p2f_lib.unet import NetworkConfig, UNet

RELEASE = Path(__file__).resolve().parents[1] / WEIGHTS_FOLDERS[0]
RELEASED = NetworkConfig(128, 24, 6, "batch", upsample_first=False, blocks=1)
SIZE = RELEASED.input_size
FACE_IN_ASTRONAUT = Box(180, 70, 270, 180)  # in skimage's portrait of 512 x 512


def rows() -> list[Row]:
    """Milliseconds of the network and of a photo."""
    with _one_thread():
        return [_network(), *_engines(), _photo()]


@torch.inference_mode()
def _network() -> Row:
    crop = torch.rand(1, 3, SIZE, SIZE) - 0.5
    released, plain = (
        _unet(config) for config in (RELEASED, replace(RELEASED, upsample_first=True))
    )
    millions = sum(weights.numel() for weights in released.parameters()) / 1e6
    return Row(
        "network_torch_ms",
        median_ms(lambda: released(crop), 101),
        "ms",
        median_ms(lambda: plain(crop), 101),
        f"one {SIZE}x{SIZE} crop to six planes, 1 thread, {millions:.1f} M weights; reference: the "
        "same network, upsampling before its convolutions",
    )


def _engines() -> list[Row]:
    """The other engines that are installed, each beside PyTorch."""
    unet = _unet(RELEASED)
    batch = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32) - np.float32(0.5)
    torch_engine = make_engine("torch", unet, threads=1)
    rows = []
    for name in installed():
        if name != "torch":
            engine = make_engine(name, unet, threads=1)
            rows.append(
                Row(
                    f"network_{name}_ms",
                    median_ms(lambda engine=engine: engine(batch), 101),
                    "ms",
                    median_ms(lambda: torch_engine(batch), 101),
                    "the same network and crop by another engine, 1 thread; reference: PyTorch",
                )
            )
    return rows


def _unet(config: NetworkConfig) -> UNet:
    """As `load_unet` returns it, with random weights: time doesn't depend on them."""
    return UNet(config).to(memory_format=torch.channels_last).eval()


def _photo() -> Row:
    name, unit = "photo_ms", "ms"
    try:
        reconstructor = Reconstructor.from_pretrained(RELEASE, device="cpu")
    except P2FError as problem:
        # The report names no one's folders.
        why = str(problem).replace(str(RELEASE), WEIGHTS_FOLDERS[0])
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
