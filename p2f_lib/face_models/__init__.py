"""Face models: one reader a file, each gives a `MorphableModel`.

`SOURCES` are the names for `params.yaml: face_model.source`. All but "anny", which ships with the
packages, read files that their publishers give out under licences of their own; `common.ABOUT`
says where and which.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from p2f_lib.errors import P2FError
from p2f_lib.face_models.basel import read_basel2009, read_basel2017
from p2f_lib.face_models.common import ABOUT
from p2f_lib.face_models.flame import read_flame
from p2f_lib.face_models.ict import read_ict
from p2f_lib.face_models.lsfm import read_lsfm, read_lyhm
from p2f_lib.face_models.register import transfer_landmarks
from p2f_lib.face_models.surrey import read_surrey
from p2f_lib.face_models.threeddfa import read_3ddfa
from p2f_lib.morphable_model import MorphableModel

READERS = {
    "basel2009": read_basel2009,
    "basel2017": read_basel2017,
    "3ddfa": read_3ddfa,
    "flame": read_flame,
    "surrey": read_surrey,
    "ict": read_ict,
    "lsfm": read_lsfm,
    "lyhm": read_lyhm,
}
SOURCES = ("anny", *READERS)

__all__ = ["ABOUT", "READERS", "SOURCES", "build_face_model", "ensure_landmarks"]


def build_face_model(
    source: str,
    n_samples: int = 1500,
    n_shape: int | None = 60,
    seed: int = 0,
    path: str | Path | None = None,
) -> MorphableModel:
    """The coarse face model of a source.

    Parameters
    ----------
    source : "anny", the open model that ships with the packages, or a key of `READERS`
        ("basel2017" reads the 2019 model too).
    n_samples : people behind the principal components; of "anny" only.
    n_shape : shape modes to keep. Other sources keep all that the file has for None or more.
    seed : decides the people; of "anny" only.
    path : file or folder of the other sources, None for `data/face_models/<source>`.

    Raises
    ------
    P2FError : an unknown source, a number of modes below 1, or a file that is missing or damaged.
    """
    if source not in SOURCES:
        raise P2FError(f"Unknown face model {source!r}; known are {', '.join(SOURCES)}.")
    if source != "anny":
        if n_shape is not None and n_shape < 1:
            raise P2FError(f"A face model needs at least one shape mode, got n_shape={n_shape}.")
        return READERS[source](path, n_shape)
    from p2f_lib.face_models.anny import build_anny_model  # loads PyTorch: seconds

    if n_shape is None:
        raise P2FError("face_model.n_shape: the open model needs a number of shape modes.")
    return build_anny_model(n_samples, n_shape, seed)


MARKUPS = ("ibug68", "menpo84")


def ensure_landmarks(model: MorphableModel, source: MorphableModel | None = None) -> MorphableModel:
    """The model with both mark-ups: its own lists, and where it lacks one, those of the open model.

    Few publishers name landmark vertices. The open model's mean is laid onto the model's
    (`register.transfer_landmarks`); look at the landmark map before you rely on the result.

    Parameters
    ----------
    source : a model with landmarks in place of the open one, which takes a minute to build.

    Raises
    ------
    P2FError : the two means don't meet.
    """
    if all(markup in model.landmarks for markup in MARKUPS):
        return model
    if source is None:
        source = build_face_model("anny", n_samples=400, n_shape=40).subdivided(1)
    found = transfer_landmarks(source, model).landmarks
    return replace(model, landmarks={**found, **model.landmarks})
