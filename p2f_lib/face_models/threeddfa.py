"""3DDFA's face model: the Basel Face Model's shape with FaceWarehouse's expressions.

300W-LP's and AFLW2000-3D's coefficients belong to it, unscaled: vertices in micrometres are
``mu_shape + mu_exp + w Shape_Para + w_exp Exp_Para`` (Zhu et al., CVPR 2016, and the files of its
MATLAB release). So here coefficients are *not* standard normal: the bases hold mm per unit of those
coefficients, `shape_sigma` and `expression_sigma` the files' deviations, and
``model.vertices(Shape_Para, Exp_Para)`` are those vertices in mm, in the files' own frame. Their
origin lies inside the head, more than 60 mm from the surface, and is never moved.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from p2f_lib.face_models.basel import MICROMETRE
from p2f_lib.face_models.common import (
    assemble,
    corners,
    folder_of,
    locate,
    modes,
    numbers,
    reading,
    vertex_indices,
)
from p2f_lib.matlab import read_arrays, read_structures
from p2f_lib.morphable_model import MorphableModel

_OTHER_NAMES = {  # in yfeng95/face3d's BFM.mat, one structure `model`
    **{"mu_shape": "shapeMU", "w": "shapePC", "sigma": "shapeEV"},
    **{"mu_exp": "expMU", "w_exp": "expPC", "sigma_exp": "expEV"},
    **{"tri": "tri", "keypoints": "kpt_ind"},
}


def read_3ddfa(path: str | Path | None = None, n_shape: int | None = None) -> MorphableModel:
    """`Model_Shape.mat` with `Model_Exp.mat` (or `Model_Expression.mat`), or face3d's `BFM.mat`.

    Parameters
    ----------
    path : the folder, one of the files in it, or None for the default folder.
    n_shape : the first modes to keep, None for all 199, which 300W-LP needs.

    Returns
    -------
    Model with the files' 68 key points, which count from 1, as "ibug68".

    Raises
    ------
    P2FError : missing, truncated or alien file.
    """
    folder = folder_of("3ddfa", path)
    single = folder / "BFM.mat"
    named = path is not None and Path(path).name == single.name
    if single.is_file() and (named or not (folder / "Model_Shape.mat").is_file()):
        with reading(single, "3ddfa"):
            fields = read_structures(single, "model")["model"]
            data = {key: fields[other] for key, other in _OTHER_NAMES.items()}
            return _model(data, n_shape, folder)
    shape = locate("3ddfa", folder, "Model_Shape.mat")
    expression = locate("3ddfa", folder, "Model_Exp.mat", "Model_Expression.mat")
    with reading(shape, "3ddfa"):
        data = read_arrays(shape, "mu_shape", "w", "sigma", "tri", "keypoints")
    with reading(expression, "3ddfa"):
        data |= read_arrays(expression, "mu_exp", "w_exp", "sigma_exp")
    with reading(shape, "3ddfa"):
        return _model(data, n_shape, folder)


def _model(data: dict[str, np.ndarray], n_shape: int | None, folder: Path) -> MorphableModel:
    mean = numbers(data["mu_shape"], "mu_shape")
    mean = (mean + numbers(data["mu_exp"], "mu_exp", len(mean))).reshape(-1, 3) * MICROMETRE
    bases, sigmas = {}, {}
    for key, deviation, n in (("w", "sigma", n_shape), ("w_exp", "sigma_exp", None)):
        bases[key] = modes(data[key], len(mean), MICROMETRE, n, key)
        sigmas[key] = numbers(data[deviation], deviation, data[key].shape[1])
    keypoints = numbers(data["keypoints"], "keypoints", 68) - 1
    return assemble(
        "3ddfa",
        mean,
        corners(data["tri"], 1, "tri"),
        bases["w"],
        sigmas["w"],
        bases["w_exp"],
        sigmas["w_exp"],
        folder=folder,
        landmarks={"ibug68": vertex_indices(keypoints, "keypoints")},
        recentre=False,
    )
