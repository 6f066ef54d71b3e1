"""Errors on held-out samples, and pictures of them."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from p2f_lib.datasets.jitter import CENTRED, jitter_batch
from p2f_lib.errors import P2FError
from p2f_lib.fitting import Fitter
from p2f_lib.images import read_image
from p2f_lib.unet import NetworkConfig
from p2f_lib.validation import (
    Validation,
    heldout_errors,
    heldout_landmark_error,
    picture,
    predict_centred,
)
from tests.test_training import toy_set
from tests.toy import toy_model

SIZE = 64


@pytest.fixture(scope="module")
def model():
    return toy_model(600)


@pytest.fixture(scope="module")
def samples(model):
    return toy_set(model, 12, canvas=96)


class Said(nn.Module):
    """A network that says given planes, mm, whatever it sees."""

    def __init__(self, planes):
        super().__init__()
        self.config = NetworkConfig(SIZE, 4, 3)
        self.weights = nn.Parameter(torch.zeros(1))
        self.planes, self.at = planes, 0

    def forward(self, images):
        planes = self.planes[self.at : self.at + len(images)].clone()
        self.at += len(images)
        planes[:, :3] /= self.config.pncc_scale
        planes[:, 3:] /= self.config.offset_scale
        return planes


def truth_of(model, samples):
    return jitter_batch(model, samples, CENTRED, SIZE, torch.Generator())


def test_the_truth_has_no_error(model, samples):
    _, planes, _ = truth_of(model, samples)
    errors = heldout_errors(Said(planes), model, samples)
    assert errors.pncc_median == pytest.approx(0, abs=1e-4)
    assert errors.pncc_p95 == pytest.approx(0, abs=1e-4)
    assert errors.offset_ratio == pytest.approx(0, abs=1e-4)
    assert errors.mask_iou == 1
    assert heldout_landmark_error(Said(planes), Fitter(model), samples) < 0.02


def test_known_errors_are_found(model, samples):
    _, planes, valid = truth_of(model, samples)
    said = planes.clone()
    said[:, 0] += 3 * valid
    said[:, 1] += 4 * valid
    said[:, 3:] = 0
    errors = heldout_errors(Said(said), model, samples)
    assert errors.pncc_median == pytest.approx(5, abs=1e-3)
    assert errors.pncc_p95 == pytest.approx(5, abs=1e-3)
    assert errors.offset_ratio == pytest.approx(1)
    assert errors.offset_l1 == pytest.approx(float(planes[:, 3:].abs().sum() / (3 * valid.sum())))


def test_a_shifted_face_has_shifted_landmarks(model, samples):
    _, planes, _ = truth_of(model, samples)
    box = np.mean([np.sqrt(np.prod(np.ptp(points, 0))) for points in samples.landmarks])
    shift = 3
    scale = SIZE / (1.4 * np.mean([np.ptp(points, 0).max() for points in samples.landmarks]))
    moved = torch.roll(planes, shift, dims=-1)
    error = heldout_landmark_error(Said(moved), Fitter(model), samples)
    assert error == pytest.approx(shift / (box * scale), rel=0.2)


def test_no_face_found_is_an_error_of_one(model, samples):
    nothing = torch.zeros(len(samples), 6, SIZE, SIZE)
    assert heldout_landmark_error(Said(nothing), Fitter(model), samples) == 1


def test_empty_pictures_count_against_the_mask_only(model, samples):
    _, planes, _ = truth_of(model, samples)
    said = planes + 1.0 * (planes != 0)
    errors = heldout_errors(Said(said), model, samples)
    half = np.arange(len(samples)) % 2 == 0
    fewer = heldout_errors(Said(said), model, replace(samples, is_face=half))
    kept = heldout_errors(Said(said[half]), model, samples[half])
    assert fewer.offset_l1 == pytest.approx(kept.offset_l1, rel=1e-4)
    assert fewer.pncc_median == pytest.approx(kept.pncc_median, rel=1e-4)
    assert fewer.mask_iou < errors.mask_iou
    nobody = replace(samples, is_face=np.zeros(len(samples), bool))
    for measure in (
        lambda: heldout_errors(Said(said), model, nobody),
        lambda: heldout_landmark_error(Said(said), Fitter(model), nobody),
    ):
        with pytest.raises(P2FError, match="shows a face"):
            measure()


def test_pictures_show_what_is_said_and_what_is_true(model, samples, tmp_path):
    _, planes, _ = truth_of(model, samples)
    said = torch.zeros_like(planes)
    sheet = picture(predict_centred(Said(said), model, samples[:3]))
    assert sheet.shape == (5 * SIZE, 3 * SIZE, 3)
    rows = sheet.reshape(5, SIZE, 3 * SIZE, 3)
    assert (rows[1] == 255).all()  # nothing is said
    assert (rows[2] != 255).any()
    assert (rows[4] != 255).any()
    validation = Validation(model, samples, tmp_path / "faces")
    found = validation(Said(torch.cat([planes, planes, planes])), 4)
    assert set(found) == {*asdict(heldout_errors(Said(planes), model, samples)), "landmarks_nme"}
    assert read_image(tmp_path / "faces" / "epoch_005.png").shape == (5 * SIZE, 8 * SIZE, 3)
