"""Pix2Face, open: 3D faces from single photos.

``Reconstructor.from_pretrained()(image)`` gives every `Face` of a uint8 RGB picture (H, W, 3),
a `Tracker` follows one through a video.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from p2f_lib.errors import NoFaceError, P2FError

if TYPE_CHECKING:
    from p2f_lib.crop import Box
    from p2f_lib.images import read_image
    from p2f_lib.morphable_model import MorphableModel
    from p2f_lib.reconstruction import Face, Reconstructor
    from p2f_lib.tracker import Tracker

__all__ = [
    "Box",
    "Face",
    "MorphableModel",
    "NoFaceError",
    "P2FError",
    "Reconstructor",
    "Tracker",
    "read_image",
]

# Imported on first use: a notebook that only plots doesn't wait for PyTorch.
_HOMES = {
    "Box": "crop",
    "Face": "reconstruction",
    "MorphableModel": "morphable_model",
    "Reconstructor": "reconstruction",
    "Tracker": "tracker",
    "read_image": "images",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
