"""What several benchmarks need: one thread everywhere, and the face model at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import torch

from p2f_lib.morphable_model import MorphableModel
from p2f_lib.reconstruction import FACE_MODEL_FILE, WEIGHTS_FOLDERS
from tests.toy import toy_model

ROOT = Path(__file__).resolve().parents[1]
RELEASE, BUILD = (ROOT / folder for folder in WEIGHTS_FOLDERS)


def face_model() -> MorphableModel:
    """The open face model where `make repro` has built it, else a toy of its size."""
    path = BUILD / FACE_MODEL_FILE
    return MorphableModel.load(path) if path.is_file() else toy_model(11_843)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch and OpenCV on one core; the numerical libraries already are."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
