"""The network, the detector and a whole photo, on one core."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from skimage import data

from benchmarks import Row, median_ms
from benchmarks._common import RELEASE
from p2f_lib.crop import Box
from p2f_lib.datasets.jitter import CENTRED, jitter_batch
from p2f_lib.detection import DlibDetector
from p2f_lib.engines import installed, make_engine
from p2f_lib.errors import P2FError
from p2f_lib.experiments import sample_errors
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.parallel import one_thread
from p2f_lib.reconstruction import WEIGHTS_FOLDERS, Reconstructor
from p2f_lib.synthesis import render_samples
from p2f_lib.unet import NetworkConfig, UNet, predict

RELEASED = NetworkConfig(128, 24, 6, "batch", upsample_first=False, blocks=1)
SIZE = RELEASED.input_size
FACE_IN_ASTRONAUT = Box(180, 70, 270, 180)  # in skimage's portrait of 512 x 512
INT8 = "onnxruntime-int8"
FACES, FACES_SEED, CANVAS = 100, 11, 208  # synthetic people whom no network was trained on


def rows() -> list[Row]:
    """Milliseconds of the network, of the detector and of a photo."""
    with one_thread():
        return [_network(), *_engines(), _detector(), _photo_full(), _photo_fast()]


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
    batch = _batch()
    torch_engine = make_engine("torch", unet, threads=1)
    rows = []
    for name in installed():
        if name == INT8:
            rows.append(_int8())
        elif name != "torch":
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


def _int8() -> Row:
    """With the released weights: what rounding costs depends on them."""
    name = "network_onnxruntime_int8_ms"
    try:
        integer, exact = (
            Reconstructor.from_pretrained(RELEASE, engine=engine, threads=1)
            for engine in (INT8, "onnxruntime")
        )
    except P2FError as problem:
        return _not_measured(name, problem)
    batch = _batch()
    samples = render_samples(
        exact.model,
        FACES_SEED,
        range(FACES),
        CANVAS,
        supersample=1,
        no_face_share=0.0,
        processes=1,
        progress=False,
    )
    after, before = (_cost(reconstructor, samples) for reconstructor in (integer, exact))
    return Row(
        name,
        median_ms(lambda: integer.engine(batch), 101),
        "ms",
        median_ms(lambda: exact.engine(batch), 101),
        "the released network, most convolutions in 8-bit integers, same crop, 1 thread; "
        f"reference: float32 of the same library; on {FACES} synthetic faces the PNCC's median "
        f"error is {after.pncc:.2f} mm instead of {before.pncc:.2f}, that of the 68 landmarks "
        f"{after.landmarks:.2%} of the box instead of {before.landmarks:.2%}",
    )


@dataclass(frozen=True)
class _Cost:
    """Median error of the PNCC, mm; mean error of the 68 landmarks over the box's size."""

    pncc: float
    landmarks: float


def _cost(reconstructor: Reconstructor, samples: SampleBatch) -> _Cost:
    engine, generator = reconstructor.engine, torch.Generator().manual_seed(0)
    images, planes, valid = jitter_batch(reconstructor.model, samples, CENTRED, SIZE, generator)
    crops = images.permute(0, 2, 3, 1).round().byte().numpy()
    pncc, _ = predict(engine, crops, mirror=False)
    gaps = np.linalg.norm(pncc - planes[:, :3].permute(0, 2, 3, 1).numpy(), axis=-1)
    return _Cost(
        float(np.median(gaps[valid.numpy()])), float(sample_errors(reconstructor, samples).mean())
    )


def _batch() -> np.ndarray:
    return np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32) - np.float32(0.5)


def _unet(config: NetworkConfig) -> UNet:
    """As `load_unet` returns it, with random weights: time doesn't depend on them."""
    return UNet(config).to(memory_format=torch.channels_last).eval()


def _detector() -> Row:
    photo, detect = data.astronaut(), DlibDetector()
    name = "detector_ms"
    try:
        found = detect(photo)
    except P2FError as problem:
        return _not_measured(name, problem)
    height, width = photo.shape[:2]
    return Row(
        name,
        median_ms(lambda: detect(photo), 15),
        "ms",
        note=f"dlib's detector on a {width}x{height} photo, {len(found)} found, 1 core",
    )


def _photo_full() -> Row:
    name = "photo_full_ms"
    try:
        reconstructor = Reconstructor.from_pretrained(RELEASE, device="cpu")
    except P2FError as problem:
        return _not_measured(name, problem)
    return _photo(name, reconstructor, "PyTorch")


def _photo_fast() -> Row:
    """The fast variant by the engine that is the fastest here."""
    name = "photo_fast_ms"
    try:
        reconstructors = {
            engine: Reconstructor.from_pretrained(
                RELEASE, device="cpu", engine=engine, threads=1, variant="fast"
            )
            for engine in installed()
            if engine in ("torch", "onnxruntime", INT8)
        }
    except P2FError as problem:
        return _not_measured(name, problem)
    measured = [_photo(name, each, engine) for engine, each in reconstructors.items()]
    return min(measured, key=lambda row: row.value)


def _photo(name: str, reconstructor: Reconstructor, engine: str) -> Row:
    photo = data.astronaut()
    height, width = photo.shape[:2]
    return Row(
        name,
        median_ms(lambda: reconstructor.reconstruct(photo, FACE_IN_ASTRONAUT), 31),
        "ms",
        note=f"{width}x{height} photo with a given box to a fitted face, "
        f"{reconstructor.passes} passes of network ({engine}) and fit, "
        f"{reconstructor.model.n_vertices} vertices, 1 thread",
    )


def _not_measured(name: str, problem: P2FError) -> Row:
    # The report names no one's folders.
    why = str(problem).replace(str(RELEASE), WEIGHTS_FOLDERS[0])
    return Row(name, np.nan, "ms", note=f"not measured: {why}")
