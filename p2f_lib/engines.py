"""The network without PyTorch at its heart: ONNX files, ONNX Runtime, its int8, and OpenVINO.

An engine takes the network's normalised images and gives its planes; `p2f_lib.unet.predict` works
with any of them. All are made from the weights in memory: the only file that anyone needs, or has
to trust, is ``unet.safetensors``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from p2f_lib.datasets.jitter import Jitter, jitter_batch
from p2f_lib.errors import P2FError
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.synthesis import render_samples
from p2f_lib.unet import FORMAT, Engine, NetworkConfig, Residual, UNet, normalise_images

EXPORTER = ("onnx",)  # writes the files
PACKAGES = {  # of each engine, beyond this project's own
    "torch": (),
    "onnxruntime": (*EXPORTER, "onnxruntime"),
    "onnxruntime-int8": (*EXPORTER, "onnxruntime"),
    "openvino": (*EXPORTER, "openvino"),
}
EXTRAS = {  # as pyproject.toml calls them
    "onnxruntime": "onnx",
    "onnxruntime-int8": "onnx",
    "openvino": "openvino",
}

OPSET, IR_VERSION = 18, 8  # of 2022 and 2021: every reader in use knows them
INPUT, OUTPUT = "images", "planes"
TOLERANCE = 1e-4  # units of the network's output: 0.01 mm of PNCC
CHECKED_BATCHES = (1, 3)

INT8_TOLERANCE = 0.05  # RMS difference of int8's planes over the planes' own RMS
CALIBRATION_SEED, CALIBRATION_FACES = 0, 32
CANVAS = 1.625  # side of a calibration picture over the crop's, as in params/release.yaml

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class _Checked:
    """An `Engine` around a function that relies on sound batches."""

    config: NetworkConfig
    metadata: dict[str, str]
    run: Run = field(repr=False)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        size = self.config.input_size
        if batch.dtype != np.float32 or batch.ndim != 4 or batch.shape[1:] != (3, size, size):
            raise P2FError(
                f"An engine takes float32 images (B, 3, {size}, {size}) in [-0.5, 0.5], got "
                f"{batch.dtype} {batch.shape}."
            )
        if not len(batch):  # not every engine takes nothing
            return np.zeros((0, 6, size, size), np.float32)
        return self.run(np.require(batch, requirements=["C", "W"]))


def installed() -> list[str]:
    """Names of the engines whose packages are there, "torch" first."""
    return [name for name, packages in PACKAGES.items() if all(map(_is_there, packages))]


def make_engine(
    name: str, unet: UNet, threads: int | None = None, model: MorphableModel | None = None
) -> Engine:
    """An engine with the weights of `unet`.

    Parameters
    ----------
    name : {"torch", "onnxruntime", "onnxruntime-int8", "openvino"}
        PyTorch on the device where `unet` is, or another library on the CPU. "onnxruntime-int8"
        computes most convolutions in 8-bit integers: much faster, a little less exact, and a few
        seconds slower to start.
    unet : UNet
        In evaluation mode. PyTorch's engine goes on using it, the others copy its weights.
    threads : int, optional
        CPU threads of a call; default: what the library thinks best.
    model : MorphableModel, optional
        The face model that the network was trained with, for "onnxruntime-int8" alone: pictures of
        its faces show which range of numbers each convolution sees (`calibration_images`).

    Returns
    -------
    Engine
        ``(B, 3, S, S)`` to ``(B, 6, S, S)`` float32, for any B.

    Raises
    ------
    P2FError
        No such engine, its packages aren't installed, the weights are broken, `unet` is on a GPU
        that the engine doesn't use, its planes differ from PyTorch's by more than `TOLERANCE` (of
        int8: `INT8_TOLERANCE`), or `model` is missing.
    """
    if name not in PACKAGES:
        raise P2FError(f"There is no engine {name!r}; there are {', '.join(PACKAGES)}.")
    if threads is not None and threads < 1:
        raise P2FError(f"An engine needs at least 1 thread, got {threads}.")
    if name == "torch":
        return _Checked(unet.config, unet.metadata, _run_torch(unet, threads))
    _require(PACKAGES[name], EXTRAS[name])
    device = next(unet.parameters()).device
    if device.type != "cpu":
        raise P2FError(
            f"The engine {name!r} runs on the CPU, but the network is on {device}; load it with "
            'device="cpu", or use the engine "torch".'
        )
    if name == "onnxruntime-int8":
        return _int8_engine(unet, threads, model)
    engine = _Checked(unet.config, unet.metadata, _RUNTIMES[name](onnx_bytes(unet), threads))
    _largest_difference(engine, unet)
    return engine


def calibration_images(model: MorphableModel, size: int) -> np.ndarray:
    """Synthetic faces as a training sees them, always the same ones.

    Returns
    -------
    (N, 3, size, size) float32 in [-0.5, 0.5]
    """
    samples = render_samples(
        model,
        CALIBRATION_SEED,
        range(CALIBRATION_FACES),
        size=round(CANVAS * size),
        supersample=1,
        no_face_share=0.0,
        processes=1,
        progress=False,
    )
    generator = torch.Generator().manual_seed(CALIBRATION_SEED)
    images, _, _ = jitter_batch(model, samples, Jitter(), size, generator)
    return normalise_images(images).numpy()


def export_onnx(unet: UNet, path: str | Path) -> float:
    """Write the network as an ONNX file, after a comparison with PyTorch.

    The file's input "images" is ``(B, 3, S, S)`` float32 as `normalise_images` gives it, its output
    "planes" ``(B, 6, S, S)`` float32 as of `UNet`, for any B. Its ``metadata_props`` hold
    ``format``, ``config`` (JSON of the `NetworkConfig`) and each entry of ``unet.metadata``. The
    same weights give the same bytes.

    Returns
    -------
    float
        Largest difference between the file's planes and PyTorch's, on random images, in units of
        the network's output.

    Raises
    ------
    P2FError
        Packages are missing, the weights are broken, the planes differ by more than `TOLERANCE`,
        or the file can't be written.
    """
    judge = next((name for name in installed() if name in _RUNTIMES), "onnxruntime")
    _require(PACKAGES[judge], EXTRAS[judge])
    model = onnx_bytes(unet)
    engine = _Checked(unet.config, unet.metadata, _RUNTIMES[judge](model, None))
    difference = _largest_difference(engine, unet)
    try:
        Path(path).write_bytes(model)
    except (OSError, ValueError) as error:
        raise P2FError(f"Cannot write {path}: {error}.") from error
    return difference


def onnx_bytes(unet: UNet) -> bytes:
    """The content of the file that `export_onnx` writes, not compared with anything.

    Raises
    ------
    P2FError
        Packages are missing, or the weights are broken.
    """
    _require(EXPORTER, "onnx")
    bad = [name for name, w in unet.state_dict().items() if not torch.isfinite(w.float()).all()]
    if bad:
        raise P2FError(
            f"The network holds NaN or infinite weights (in {bad[0]}); train or pull again."
        )
    from onnx import TensorProto, helper

    graph = _Graph()
    _forward(graph, _on_cpu(unet))
    graph.nodes[-1].output[0] = OUTPUT
    size = unet.config.input_size
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, size, size])
        for name, channels in ((INPUT, 3), (OUTPUT, 6))
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "unet", ports[:1], ports[1:], graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pix2face-open",
    )
    header = {**unet.metadata, "format": FORMAT, "config": json.dumps(asdict(unet.config))}
    for key in sorted(header):
        model.metadata_props.add(key=key, value=str(header[key]))
    return model.SerializeToString(deterministic=True)


class _Graph:
    """Nodes and weights of an ONNX graph, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.weights: list = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node; returns the name of its output."""
        from onnx import helper

        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def weight(self, name: str, values: torch.Tensor) -> str:
        from onnx import numpy_helper

        array = np.ascontiguousarray(values.detach().numpy())
        self.weights.append(numpy_helper.from_array(array, name))
        return name


def _forward(graph: _Graph, unet: UNet) -> None:
    """`UNet.forward`, written down: PyTorch's own exporter takes ten seconds to say the same."""
    scales = graph.weight("scales", torch.tensor([1.0, 1, 2, 2]))

    def double(x: str) -> str:
        return graph.add(
            "Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
        )

    skips = []
    x = INPUT
    for level, encode in enumerate(unet.encoder):
        x = graph.add("LeakyRelu", x, alpha=0.2) if level else x
        x = _layer(graph, encode, f"encoder.{level}", x)
        skips.append(x)
    x = skips.pop()
    for level, decode in enumerate(unet.decoder):
        x = graph.add("Relu", x)
        name = f"decoder.{level}"
        if unet.config.upsample_first:
            x = _layer(graph, decode, name, double(x))
        else:
            x = double(_layer(graph, decode, name, x))
        if skips:
            x = graph.add("Concat", x, skips.pop(), axis=1)


def _layer(graph: _Graph, layer: nn.Module, name: str, x: str) -> str:
    """The layer's nodes behind `x`, its weights under the names of `UNet.state_dict`."""

    def weights(*names: str) -> list[str]:
        return [graph.weight(f"{name}.{which}", getattr(layer, which)) for which in names]

    if isinstance(layer, nn.Sequential):
        for i, inner in enumerate(layer):
            x = _layer(graph, inner, f"{name}.{i}", x)
        return x
    if isinstance(layer, nn.Conv2d):
        return graph.add(
            "Conv",
            x,
            *weights("weight", "bias"),
            kernel_shape=layer.kernel_size,
            strides=layer.stride,
            pads=2 * layer.padding,
        )
    if isinstance(layer, nn.BatchNorm2d):
        values = weights("weight", "bias", "running_mean", "running_var")
        return graph.add("BatchNormalization", x, *values, epsilon=layer.eps)
    if isinstance(layer, nn.InstanceNorm2d):
        one = graph.weight(f"{name}.weight", torch.ones(layer.num_features))
        zero = graph.weight(f"{name}.bias", torch.zeros(layer.num_features))
        return graph.add("InstanceNormalization", x, one, zero, epsilon=layer.eps)
    if not isinstance(layer, Residual):
        raise TypeError(f"It isn't known how ONNX writes a layer {type(layer).__name__}.")
    y = _layer(graph, layer.convolution, f"{name}.convolution", graph.add("Relu", x))
    return graph.add("Add", x, _layer(graph, layer.norm, f"{name}.norm", y))


def _run_torch(unet: UNet, threads: int | None) -> Run:
    def run(batch: np.ndarray) -> np.ndarray:
        device = next(unet.parameters()).device
        with torch.inference_mode(), _torch_threads(threads):
            return unet(torch.from_numpy(batch).to(device)).float().cpu().numpy()

    return run


def _run_onnxruntime(model: bytes, threads: int | None) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run([OUTPUT], {INPUT: batch})[0]


def _run_openvino(model: bytes, threads: int | None) -> Run:
    import openvino

    core = openvino.Core()
    # Without the second, processors that know bfloat16 would round to it: 0.3 % of a head.
    properties: dict[str, str | int] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(core.read_model(model), "CPU", properties)
    # Shared outputs would be overwritten by the next call.
    return lambda batch: compiled([batch], share_outputs=False)[0]


_RUNTIMES = {"onnxruntime": _run_onnxruntime, "openvino": _run_openvino}


def _int8_engine(unet: UNet, threads: int | None, model: MorphableModel | None) -> Engine:
    if model is None:
        raise P2FError(
            'The engine "onnxruntime-int8" is calibrated on faces of the face model that the '
            "network was trained with; pass it as `model`."
        )
    network = onnx_bytes(unet)
    images = calibration_images(model, unet.config.input_size)
    run = _run_onnxruntime(_quantised(network, images), threads)
    true = _run_torch(_on_cpu(unet), threads)(images)
    difference = float(np.sqrt(np.mean((run(images) - true) ** 2) / np.mean(true**2)))
    if not difference <= INT8_TOLERANCE:  # NaN is no better
        raise P2FError(
            f"The network in int8 differs from PyTorch's by {difference:.1%}, more than "
            f"{INT8_TOLERANCE:.0%}: 8 bits are too few for its numbers, or the processor lacks "
            '8-bit dot products (VNNI) and overflows; use the engine "onnxruntime".'
        )
    return _Checked(unet.config, unet.metadata, run)


def _quantised(network: bytes, images: np.ndarray) -> bytes:
    """The ONNX network with its convolutions in int8, scaled for what they see in `images`.

    The first convolution and the last two stay in float32: they make most of the error, since the
    planes are next to them, and save little time.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Calibration(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT: image[None]}

    with TemporaryDirectory() as folder:
        plain, integer = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        plain.write_bytes(network)
        # Folds each normalisation into the convolution before it: one rounding instead of two.
        quant_pre_process(plain, plain, skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(plain).graph.node if node.op_type == "Conv"]
        quantization.quantize_static(
            plain,
            integer,
            Calibration(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[convolutions[0], *convolutions[-2:]],
            activation_type=quantization.QuantType.QUInt8,  # signed ones gain no time
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
        return integer.read_bytes()


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """PyTorch has one number of threads for everyone: borrow it."""
    before = torch.get_num_threads()
    if threads in (None, before):
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _on_cpu(unet: UNet) -> UNet:
    """A float32 copy in evaluation mode; `unet` itself stays where and as it is."""
    return copy.deepcopy(unet).cpu().float().eval()


def _largest_difference(engine: Engine, unet: UNet) -> float:
    """Between the planes of `engine` and PyTorch's; more than `TOLERANCE` is a P2FError."""
    reference = make_engine("torch", _on_cpu(unet))  # a GPU's own convolutions round otherwise
    rng = np.random.default_rng(0)
    size = unet.config.input_size
    gaps = []
    for count in CHECKED_BATCHES:
        batch = rng.random((count, 3, size, size), np.float32) - np.float32(0.5)
        ours, theirs = engine(batch), reference(batch)
        if ours.shape != theirs.shape:
            raise P2FError(
                f"The exported network gives planes {ours.shape} instead of {theirs.shape}; "
                'use the engine "torch" and report this with your versions.'
            )
        gaps.append(np.abs(ours - theirs).max())
    largest = float(np.max(gaps))
    if not largest <= TOLERANCE:  # NaN is no better
        raise P2FError(
            f"The exported network differs from PyTorch's by {largest:.1e}, more than "
            f'{TOLERANCE:.0e}; use the engine "torch" and report this with your versions.'
        )
    return largest


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # imported, but without a place of its own
        return False


def _require(packages: tuple[str, ...], extra: str) -> None:
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise P2FError(
                f"The package {package} is not installed or doesn't load ({error}); run "
                f"pip install 'pix2face-open[{extra}]'."
            ) from error
