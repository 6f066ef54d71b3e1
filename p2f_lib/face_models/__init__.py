"""Face models: one reader a file, each gives a `MorphableModel`."""

from __future__ import annotations

from p2f_lib.errors import P2FError
from p2f_lib.morphable_model import MorphableModel

SOURCES = ("anny",)


def build_face_model(source: str, n_samples: int, n_shape: int, seed: int = 0) -> MorphableModel:
    """The coarse face model of a source.

    Parameters
    ----------
    source : "anny", the open model that ships with the packages.
    n_samples : people behind the principal components.
    n_shape : shape modes to keep.
    seed : decides the people.

    Raises
    ------
    P2FError : an unknown source.
    """
    if source == "anny":
        from p2f_lib.face_models.anny import build_anny_model  # loads PyTorch: seconds

        return build_anny_model(n_samples, n_shape, seed)
    raise P2FError(f"Unknown face model {source!r}; known are {', '.join(SOURCES)}.")
