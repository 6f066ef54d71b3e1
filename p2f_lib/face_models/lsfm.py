"""MATLAB files with a mean, unit modes and their variances: LSFM and the Liverpool-York head.

LSFM: Booth et al., "A 3D Morphable Model learnt from 10,000 faces", CVPR 2016. LYHM: Dai et al.,
"Statistical Modeling of Craniofacial Shape and Texture", IJCV 2020. Neither has expressions, and
neither documents its unit of length, so it is found from the size of the head: see `millimetres`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.face_models.common import ABOUT, assemble, corners, locate, modes, numbers, reading
from p2f_lib.matlab import read_arrays, read_structures
from p2f_lib.morphable_model import MorphableModel

UNITS = {"um": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1e3}  # mm
HEAD_SIZE = (80.0, 800.0)  # mm, largest side of a face's or head's box; a decade, so one unit fits


def read_lsfm(path: str | Path | None = None, n_shape: int | None = None) -> MorphableModel:
    """An LSFM file such as `all_all_all.mat` or its `_cropped` variant.

    The full one has the topology of 3DDFA's model.

    Parameters
    ----------
    path : the file, its folder, or None for the default folder.
    n_shape : the first modes to keep, None for all.

    Raises
    ------
    P2FError : missing, truncated or alien file, or a head of no sensible size.
    """
    file = locate("lsfm", path, *ABOUT["lsfm"].files)
    with reading(file, "lsfm"):
        data = read_arrays(file, "mean", "components", "eigenvalues", "trilist")
        mean, columns, variances = (data[key] for key in ("mean", "components", "eigenvalues"))
        triangles = corners(data["trilist"], 0, "trilist")
        return _model(file, "lsfm", mean, columns, variances, triangles, n_shape)


def read_lyhm(path: str | Path | None = None, n_shape: int | None = None) -> MorphableModel:
    """A file of the Liverpool-York Head Model: structures `tri`, `shp` and, optionally, `tex`.

    Parameters and errors as of `read_lsfm`.
    """
    file = locate("lyhm", path, *ABOUT["lyhm"].files)
    with reading(file, "lyhm"):
        data = read_structures(file, "tri", "shp")
        mean, columns, variances = (data["shp"][key] for key in ("mu", "eigVec", "eigVal"))
        triangles = corners(data["tri"]["faces"], 1, "faces")
        return _model(file, "lyhm", mean, columns, variances, triangles, n_shape)


def _model(
    file: Path,
    name: str,
    mean: np.ndarray,
    columns: np.ndarray,
    variances: np.ndarray,
    triangles: np.ndarray,
    n_shape: int | None,
) -> MorphableModel:
    mean = numbers(mean, "the mean").reshape(-1, 3)
    variances = numbers(variances, "the eigenvalues", columns.shape[1])
    if not (variances >= 0).all():
        raise P2FError("its eigenvalues are not all positive")
    unit = millimetres(mean)
    return assemble(
        f"{name}-{file.stem}",
        mean * unit,
        triangles,
        modes(columns, len(mean), unit * np.sqrt(variances), n_shape, "the components"),
        folder=file.parent,
    )


def millimetres(vertices: np.ndarray) -> float:
    """Millimetres per unit of (V, 3) vertices of a face or head: of um, mm, cm and m, the one that
    brings the largest side of their box into `HEAD_SIZE`."""
    size = float(np.ptp(vertices, axis=0).max(initial=0))
    for unit in UNITS.values():
        if HEAD_SIZE[0] <= size * unit < HEAD_SIZE[1]:
            return unit
    raise P2FError(f"its mean has a size of {size:g}, no head's in {', '.join(UNITS)}")
