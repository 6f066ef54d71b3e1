"""How good a network is on held-out samples: in numbers after each epoch, and in pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from p2f_lib.datasets.jitter import CENTRED, jitter_batch, sample_crops
from p2f_lib.errors import P2FError
from p2f_lib.evaluation import errors_2d
from p2f_lib.fitting import BACKGROUND, Fitter, fit_face, valid_mask
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.images import write_image
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.unet import UNet, normalise_images

BATCH = 64
N_FITTED = 64  # samples whose landmarks are measured: a fit takes as long as several predictions
N_SHOWN = 8
PNCC_RANGE, OFFSET_RANGE = 150.0, 10.0  # mm shown as black and white


@dataclass(frozen=True)
class Errors:
    """Errors over held-out samples; mm unless said otherwise.

    `offset_ratio` is the offsets' mean absolute error over that of predicting zero: a network that
    has learned no offsets has 1. `mask_iou` compares the pixels whose PNCC is not near 0 with the
    true face.
    """

    pncc_median: float
    pncc_p95: float
    offset_l1: float
    offset_zero_l1: float
    offset_ratio: float
    mask_iou: float


@dataclass(frozen=True, eq=False)
class Planes:
    """What a network says of centred crops, and the truth.

    Attributes
    ----------
    images : (N, 3, S, S) float32, 0..255
    said, planes : (N, 6, S, S) float32, PNCC and offsets, mm
    valid : (N, S, S) bool
    """

    images: torch.Tensor
    said: torch.Tensor
    planes: torch.Tensor
    valid: torch.Tensor


@torch.inference_mode()
def predict_centred(unet: UNet, model: MorphableModel, samples: SampleBatch) -> Planes:
    """A network, in evaluation mode, on crops as the reconstruction's, without any jitter."""
    size, config = unet.config.input_size, unet.config
    device = next(unet.parameters()).device
    images, planes, valid = jitter_batch(model, samples, CENTRED, size, torch.Generator())
    training = unet.training
    unet.eval()
    said = unet(normalise_images(images.to(device))).float().cpu()
    unet.train(training)
    scale = torch.tensor([config.pncc_scale] * 3 + [config.offset_scale] * 3)[:, None, None]
    return Planes(images, said * scale, planes, valid)


def heldout_errors(unet: UNet, model: MorphableModel, samples: SampleBatch) -> Errors:
    """Errors of a network over centred crops of held-out samples of a face model.

    Raises
    ------
    P2FError
        No sample shows a face.
    """
    distances, offset_sum, zero_sum, pixels, both, either = [], 0.0, 0.0, 0, 0, 0
    for start in range(0, len(samples), BATCH):
        found = predict_centred(unet, model, samples[start : start + BATCH])
        said, planes, valid = found.said, found.planes, found.valid
        distance = (said[:, :3] - planes[:, :3]).norm(dim=1)
        distances.append(distance[valid])
        mask = valid[:, None]
        offset_sum += float(((said[:, 3:] - planes[:, 3:]).abs() * mask).sum())
        zero_sum += float((planes[:, 3:].abs() * mask).sum())
        pixels += 3 * int(valid.sum())
        seen = said[:, :3].norm(dim=1) > BACKGROUND
        both += int((seen & valid).sum())
        either += int((seen | valid).sum())
    if not pixels:
        raise P2FError("No held-out sample shows a face: there is nothing to measure.")
    distance = torch.cat(distances)
    return Errors(
        pncc_median=float(distance.median()),
        pncc_p95=float(np.percentile(distance.numpy(), 95)),
        offset_l1=offset_sum / pixels,
        offset_zero_l1=zero_sum / pixels,
        offset_ratio=offset_sum / zero_sum,
        mask_iou=both / max(either, 1),
    )


def heldout_landmark_error(unet: UNet, fitter: Fitter, samples: SampleBatch) -> float:
    """Mean error of the 68 landmarks of fitted faces over their box's ``sqrt(w h)``.

    A face that isn't found has an error of 1.

    Raises
    ------
    P2FError
        No sample shows a face.
    """
    faces = samples[np.flatnonzero(samples.is_face)]
    if not len(faces):
        raise P2FError("No held-out sample shows a face: there is nothing to measure.")
    found = predict_centred(unet, fitter.model, faces)
    size = unet.config.input_size
    truth = _landmarks_in_crops(faces, size)
    center = np.full(2, (size - 1) / 2)
    errors = []
    for said, points in zip(found.said.permute(0, 2, 3, 1).numpy(), truth, strict=True):
        pncc, offsets = said[..., :3], said[..., 3:]
        try:
            fit = fit_face(fitter, pncc, offsets, valid_mask(pncc), center)
        except (P2FError, np.linalg.LinAlgError):
            errors.append(1.0)
            continue
        fitted = fit.camera.project(fit.vertices[fitter.model.landmarks["ibug68"]])
        errors.append(float(errors_2d(fitted, points, "size")))
    return float(np.mean(errors))


def _landmarks_in_crops(samples: SampleBatch, size: int) -> np.ndarray:
    """(N, L, 2) in pixels of the centred crops."""
    points = torch.from_numpy(samples.landmarks)
    matrices = sample_crops(points, CENTRED, torch.Generator()).double()
    inverse = torch.linalg.inv(matrices[:, :, :2])
    unit = (points.double() - matrices[:, None, :, 2]) @ inverse.transpose(1, 2)
    return ((unit + 1) * size / 2 - 0.5).numpy()


def picture(found: Planes) -> np.ndarray:
    """(5 S, N S, 3) uint8: a column a face, from the top: the crop, the PNCC that the network says
    and the true one, its offsets and the true ones (grey: none)."""

    def row(planes: torch.Tensor, scale: float) -> torch.Tensor:
        return (planes / (2 * scale) + 0.5).clamp(0, 1) * 255

    true = found.valid[:, None]
    seen = (found.said[:, :3].norm(dim=1) > BACKGROUND)[:, None]
    rows = [found.images]
    for planes, mask in ((found.said, seen), (found.planes, true)):
        for part, scale in ((planes[:, :3], PNCC_RANGE), (planes[:, 3:], OFFSET_RANGE)):
            rows.append(torch.where(mask, row(part, scale), torch.tensor(255.0)))
    rows = [rows[i] for i in (0, 1, 3, 2, 4)]
    sheet = torch.stack(rows).permute(0, 3, 1, 4, 2)  # (5, S, N, S, 3)
    height, width = sheet.shape[0] * sheet.shape[1], sheet.shape[2] * sheet.shape[3]
    return sheet.reshape(height, width, 3).round().to(torch.uint8).numpy()


@dataclass(frozen=True, eq=False)
class Validation:
    """What is measured, and drawn, after each epoch of a training.

    Parameters
    ----------
    model : to which the samples' coefficients belong.
    samples : held out, of people whom the network never sees.
    pictures : path, optional
        Folder of a picture an epoch, of the same eight faces.
    """

    model: MorphableModel
    samples: SampleBatch
    pictures: Path | None = None

    @cached_property
    def _fitter(self) -> Fitter:
        return Fitter(self.model)

    def __call__(self, unet: UNet, epoch: int) -> dict[str, float]:
        """Errors by name; `epoch` counts from 0."""
        errors = asdict(heldout_errors(unet, self.model, self.samples))
        faces = self.samples[np.flatnonzero(self.samples.is_face)[:N_FITTED]]
        if "ibug68" in self.model.landmarks:
            errors["landmarks_nme"] = heldout_landmark_error(unet, self._fitter, faces)
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            shown = predict_centred(unet, self.model, faces[:N_SHOWN])
            write_image(self.pictures / f"epoch_{epoch + 1:03}.png", picture(shown))
        return errors
