"""The Basel Face Models: 2009 (MATLAB), 2017 and 2019 (HDF5).

2009 (Paysan et al., AVSS 2009): micrometres, orthonormal modes, `shapeEV` holds standard
deviations, triangles count from 1. It has no expressions. 2017 and 2019 (Gerig et al., FG 2018):
millimetres, orthonormal modes, `pcaVariance`; expressions are PCA modes around their own mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.face_models.common import (
    ABOUT,
    assemble,
    corners,
    locate,
    modes,
    numbers,
    reading,
)
from p2f_lib.matlab import check_size, read_arrays
from p2f_lib.morphable_model import MorphableModel

MICROMETRE = 1e-3  # mm
_BLOCK = 2**22  # values read at once


def read_basel2009(path: str | Path | None = None, n_shape: int | None = None) -> MorphableModel:
    """`01_MorphableModel.mat`: 199 shape modes, no expressions, the mean's colours.

    Parameters
    ----------
    path : the file, its folder, or None for the default folder.
    n_shape : the first modes to keep, None for all.

    Raises
    ------
    P2FError : missing, truncated or alien file.
    """
    file = locate("basel2009", path, *ABOUT["basel2009"].files)
    with reading(file, "basel2009"):
        data = read_arrays(file, "shapeMU", "shapePC", "shapeEV", "texMU", "tl")
        mean = numbers(data["shapeMU"], "shapeMU").reshape(-1, 3) * MICROMETRE
        sigma = numbers(data["shapeEV"], "shapeEV", data["shapePC"].shape[1])
        return assemble(
            "basel2009",
            mean,
            corners(data["tl"], 1, "tl"),
            modes(data["shapePC"], len(mean), sigma * MICROMETRE, n_shape, "shapePC"),
            folder=file.parent,
            colors=_colors(numbers(data["texMU"], "texMU", mean.size) / 255),
        )


def read_basel2017(path: str | Path | None = None, n_shape: int | None = None) -> MorphableModel:
    """`model2017-1_*.h5` or `model2019_*.h5`: shape and expression modes, the mean's colours.

    The mean includes that of the expressions. Parameters and errors as of `read_basel2009`.
    """
    import h5py  # not needed by the open model

    file = locate("basel2017", path, *ABOUT["basel2017"].files)
    with reading(file, "basel2017"), h5py.File(file, "r") as data:

        def read(key: str, n: int | None = None) -> np.ndarray:
            return _read(data, key, file, n)

        mean, moved = (numbers(read(f"{part}/model/mean"), part) for part in _PARTS)
        if len(mean) != len(moved):
            raise P2FError(f"the mean shape has {len(mean)} values, the expression {len(moved)}")
        bases = []
        for part, n in zip(_PARTS, (n_shape, None), strict=True):
            key = f"{part}/model/pcaBasis"
            columns = read(key, n)
            variance = numbers(read(f"{part}/model/pcaVariance"), part)[: columns.shape[1]]
            if variance.size != columns.shape[1] or variance.min(initial=0) < 0:
                raise P2FError(f"{part}/model/pcaVariance doesn't fit pcaBasis")
            bases.append(modes(columns, len(mean) // 3, np.sqrt(variance), None, key))
        colors = numbers(read("color/model/mean"), "color/model/mean", len(mean))
        return assemble(
            file.stem,
            (mean + moved).reshape(-1, 3),
            corners(read("shape/representer/cells"), 0, "shape/representer/cells"),
            bases[0],
            expression_basis=bases[1],
            folder=file.parent,
            colors=_colors(colors),
        )


_PARTS = ("shape", "expression")


def _colors(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 1).reshape(-1, 3).astype(np.float32)


def _read(data: Any, key: str, file: Path, n: int | None = None) -> np.ndarray:
    """A data set of an open HDF5 file, the first `n` columns of it; modes become contiguous."""
    found = data.get(key)
    if found is None or not hasattr(found, "dtype"):
        raise P2FError(f"it holds no {key}")
    if found.file.filename != data.filename or found.external or found.is_virtual:
        raise P2FError(f"it refers to another file for {key}")
    check_size(found.nbytes, file.stat().st_size, key)
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        return found[()]
    n = found.shape[1] if n is None else min(n, found.shape[1])
    columns = np.empty((len(found), n), found.dtype, order="F")
    step = max(1, _BLOCK // max(1, n))
    for start in range(0, len(found), step):
        columns[start : start + step] = found[start : start + step, :n]
    return columns
