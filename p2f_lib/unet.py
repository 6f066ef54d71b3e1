"""The network: one pass from a face crop to PNCC and offsets (paper section 3.1)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from p2f_lib.errors import P2FError

FORMAT = "pix2face-unet-1"
MAX_FILE_BYTES = 1 << 30  # the paper's own network has 80 MB in float16


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that fixes the network's shape and the meaning of its output.

    Parameters
    ----------
    input_size : int
        Side of the square input and output, pixels; a multiple of ``2 ** depth``.
    width : int
        Filters of the first level; they double per level up to eight times `width`.
    depth : int
        Levels of the encoder, each halving the resolution.
    norm : {"instance", "batch"}
        Normalisation after each convolution; the authors' code uses instance normalisation.
    upsample_first : bool
        Whether the decoder doubles its maps before it convolves them (authors' code) or after,
        which costs a quarter of the arithmetic.
    blocks : int
        Residual 3x3 convolutions behind each of the encoder's and decoder's at a quarter of the
        resolution and below, where they cost little; the authors' code has none.
    pncc_scale, offset_scale : float
        Millimetres per unit of output. Offsets are an order of magnitude smaller than PNCC and are
        not learned unless their scale is their own.
    """

    input_size: int = 64
    width: int = 16
    depth: int = 5
    norm: str = "batch"
    upsample_first: bool = True
    blocks: int = 0
    pncc_scale: float = 100.0
    offset_scale: float = 10.0

    def __post_init__(self) -> None:
        if self.depth < 2 or self.width < 1 or self.input_size % 2**self.depth:
            raise P2FError(
                f"The input size must be a multiple of 2**depth, depth >= 2 and width >= 1; got "
                f"input_size={self.input_size}, depth={self.depth}, width={self.width}."
            )
        if self.norm not in ("instance", "batch"):
            raise P2FError(f'norm must be "instance" or "batch", got {self.norm!r}.')


class UNet(nn.Module):
    """U-Net with skip connections and an upsampling decoder (no transposed convolution).

    ``(B, 3, S, S)`` images in [-0.5, 0.5] to ``(B, 6, S, S)``: three planes of PNCC in units of
    `pncc_scale` mm, three of offsets in units of `offset_scale` mm, 0 in the background.

    Encoder: 4x4 convolutions of stride 2 with leaky ReLU. Decoder: bilinear doubling and 3x3
    convolutions on the decoder's and the encoder's maps together. The output is linear: the
    authors' tanh would only saturate.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}
        widths = [config.width * min(2**level, 8) for level in range(config.depth)]
        norm = nn.BatchNorm2d if config.norm == "batch" else nn.InstanceNorm2d

        def block(layer: nn.Module, channels: int, normalise: bool, blocks: int) -> nn.Sequential:
            residuals = [Residual(channels, norm) for _ in range(blocks)]
            return nn.Sequential(layer, *([norm(channels)] if normalise else []), *residuals)

        def blocks_at(level: int) -> int:
            return config.blocks if level > 0 else 0

        last = config.depth - 1
        # Neither the first level nor a 1x1 bottleneck is normalised: both would lose all contrast.
        tiny = config.input_size // 2**config.depth == 1
        self.encoder = nn.ModuleList(
            block(
                nn.Conv2d(inner, outer, 4, 2, 1),
                outer,
                i > 0 and not (i == last and tiny),
                blocks_at(i),
            )
            for i, (inner, outer) in enumerate(zip([3, *widths[:-1]], widths, strict=True))
        )
        inputs = [widths[-1], *(2 * width for width in widths[-2::-1])]
        outputs = [*widths[-2::-1], 6]
        self.decoder = nn.ModuleList(
            block(nn.Conv2d(inner, outer, 3, padding=1), outer, i < last, blocks_at(last - 1 - i))
            for i, (inner, outer) in enumerate(zip(inputs, outputs, strict=True))
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        skips = []
        x = images
        for level, encode in enumerate(self.encoder):
            x = encode(x if level == 0 else functional.leaky_relu(x, 0.2))
            skips.append(x)
        x = skips.pop()
        for decode in self.decoder:
            x = functional.relu(x)
            # Either order is linear between two activations; convolving the small map costs a
            # quarter and reaches twice as far.
            x = decode(_double(x)) if self.config.upsample_first else _double(decode(x))
            if skips:
                x = torch.cat([x, skips.pop()], dim=1)
        return x


class Residual(nn.Module):
    """A 3x3 convolution that is added to what it sees."""

    def __init__(self, channels: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = norm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.norm(self.convolution(functional.relu(x)))


def _double(maps: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def normalise_images(images: torch.Tensor) -> torch.Tensor:
    """``(B, 3, S, S)`` uint8 or float in 0..255 to float32 in [-0.5, 0.5]."""
    return images.float() / 255 - 0.5


class Engine(Protocol):
    """A network that another library runs; `p2f_lib.engines` makes them.

    ``(B, 3, S, S)`` float32 images as `normalise_images` gives them to ``(B, 6, S, S)`` float32
    planes as of `UNet`, both NumPy arrays.
    """

    @property
    def config(self) -> NetworkConfig: ...

    @property
    def metadata(self) -> dict[str, str]: ...

    def __call__(self, batch: np.ndarray) -> np.ndarray: ...


@torch.inference_mode()
def predict(
    unet: UNet | Engine, images: np.ndarray, mirror: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """PNCC and offsets of a batch of crops.

    Parameters
    ----------
    unet : UNet or Engine
        In evaluation mode, on any device.
    images : (B, S, S, 3) uint8
    mirror : bool
        Average with what the network says of the mirrored crops: twice the work, less error.

    Returns
    -------
    pncc, offsets : (B, S, S, 3) float32, mm
    """
    size = unet.config.input_size
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise P2FError(
            f"The network takes uint8 crops (B, {size}, {size}, 3), got {images.dtype} "
            f"{images.shape}."
        )
    device = next(unet.parameters()).device if isinstance(unet, nn.Module) else "cpu"
    pncc, offsets = predict_planes(unet, torch.from_numpy(images).to(device), mirror)
    return pncc.cpu().numpy(), offsets.cpu().numpy()


@torch.no_grad()
def predict_planes(
    unet: UNet | Engine, images: torch.Tensor, mirror: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """`predict` for crops that are on the network's device; the planes stay there.

    Parameters
    ----------
    unet, mirror : as of `predict`
    images : (B, S, S, 3) uint8

    Returns
    -------
    pncc, offsets : (B, S, S, 3) float32, mm
    """
    run = unet if isinstance(unet, nn.Module) else lambda b: torch.from_numpy(unet(b.numpy()))
    batch = normalise_images(images.permute(0, 3, 1, 2).contiguous())
    planes = run(batch)
    if mirror:  # the mean face is symmetric: only x changes its sign
        sign = torch.tensor([-1.0, 1, 1, -1, 1, 1], device=batch.device)[:, None, None]
        planes = (planes + run(batch.flip(-1)).flip(-1) * sign) / 2
    planes = planes.permute(0, 2, 3, 1).float()
    pncc, offsets = (planes[..., part].contiguous() for part in (slice(3), slice(3, 6)))
    return pncc * unet.config.pncc_scale, offsets * unet.config.offset_scale


def save_unet(path: str | Path, unet: UNet, **metadata: str) -> None:
    """Write weights (float16) with their configuration and provenance as safetensors.

    Parameters
    ----------
    metadata : str
        Provenance, e.g. ``face_model``, ``face_model_checksum``, ``seed``, ``images_seen``.
    """
    weights = {
        name: tensor.detach().cpu().half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in unet.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    header = {"format": FORMAT, "config": asdict(unet.config), "metadata": metadata}
    # One entry: the order of several isn't kept, and the file should be the same bytes.
    save_file(weights, Path(path), metadata={"unet": json.dumps(header)})


def load_unet(path: str | Path, device: str | torch.device = "cpu") -> UNet:
    """Read a network written by `save_unet`; nothing in the file is executed.

    Returns
    -------
    UNet
        In evaluation mode, float32, with the file's `metadata`.

    Raises
    ------
    P2FError
        The file is missing, too large, not a network of this project, or holds NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise P2FError(
            f"No network weights at {path}. Run `make repro` to train them or `dvc pull`."
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise P2FError(f"{path} has {path.stat().st_size} bytes, more than any network here.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {}).get("unet", "{}"))
            if header.get("format") != FORMAT:
                raise P2FError(f"{path} does not hold weights of this project ({FORMAT}).")
            unet = UNet(NetworkConfig(**header["config"]))
            unet.metadata = {str(key): str(value) for key, value in header["metadata"].items()}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except P2FError:
        raise
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise P2FError(f"{path} is truncated or not a safetensors file: {error}.") from error
    bad = [name for name, tensor in weights.items() if not torch.isfinite(tensor.float()).all()]
    if bad:
        raise P2FError(f"{path} holds NaN or infinite weights (in {bad[0]}); train or pull again.")
    missing = unet.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    lost = [name for name in missing.missing_keys if not name.endswith("num_batches_tracked")]
    if lost or missing.unexpected_keys:
        raise P2FError(
            f"The weights in {path} do not fit their own configuration "
            f"(missing {lost}, unexpected {missing.unexpected_keys})."
        )
    # Channels-last convolutions are faster on every CPU and GPU tried.
    return unet.to(device).to(memory_format=torch.channels_last).eval()
