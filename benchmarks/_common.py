"""What several benchmarks need: where things are, and the face model at hand."""

from __future__ import annotations

from pathlib import Path

from p2f_lib.morphable_model import MorphableModel
from p2f_lib.reconstruction import FACE_MODEL_FILE, WEIGHTS_FOLDERS
from tests.toy import toy_model

ROOT = Path(__file__).resolve().parents[1]
RELEASE, BUILD = (ROOT / folder for folder in WEIGHTS_FOLDERS)


def face_model() -> MorphableModel:
    """The open face model where `make repro` has built it, else a toy of its size."""
    path = BUILD / FACE_MODEL_FILE
    return MorphableModel.load(path) if path.is_file() else toy_model(11_843)
