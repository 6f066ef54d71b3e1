"""FLAME's head (Li et al., SIGGRAPH Asia 2017): 300 shape and 100 expression modes, in metres.

The `.pkl` is read without unpickling (see `inert_pickle`), so neither chumpy nor trust is needed.
FLAME opens the mouth by turning a joint, which a linear model can't. One more expression mode does
it along a straight line: "jawOpen" is the displacement of the mean head when the jaw turns by
`JAW_ANGLE`, with FLAME's own pose corrections and linear blend skinning.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.face_models.common import (
    ABOUT,
    ACTIVATION_SIGMA,
    assemble,
    corners,
    expression_labels,
    locate,
    modes,
    numbers,
    reading,
)
from p2f_lib.face_models.inert_pickle import array, read_pickle
from p2f_lib.morphable_model import MorphableModel

METRE = 1e3  # mm
N_IDENTITY = 300  # the first columns of `shapedirs`, the rest are expressions
JAW = 2  # joint; 0 is the whole head, 1 the neck, 3 and 4 the eyes
JAW_ANGLE = 20.0  # degrees at activation 1


def read_flame(path: str | Path | None = None, n_shape: int | None = None) -> MorphableModel:
    """`generic_model.pkl` (or a male, female or 2023 one): the whole head with neck and eyeballs.

    Parameters
    ----------
    path : the file, its folder, or None for the default folder.
    n_shape : the first modes to keep, None for all 300.

    Returns
    -------
    Model with standard normal coefficients and the extra expression mode "jawOpen".

    Raises
    ------
    P2FError : missing, truncated or alien file, or one that names anything but arrays.
    """
    file = locate("flame", path, *ABOUT["flame"].files)
    with reading(file, "flame"):
        content = read_pickle(file)
        if not isinstance(content, dict):
            raise P2FError("it is no dictionary")
        template = numbers(array(content["v_template"], "v_template").T, "v_template")
        template = template.reshape(-1, 3)
        directions = array(content.pop("shapedirs"), "shapedirs")
        if directions.ndim != 3 or directions.shape[2] <= N_IDENTITY:
            raise P2FError(
                f"shapedirs has shape {directions.shape}, expected (V, 3, K) with {N_IDENTITY} "
                "identity modes and then expressions"
            )
        columns = directions.reshape(-1, directions.shape[2])
        shape, expression = columns[:, :N_IDENTITY], columns[:, N_IDENTITY:]
        jaw = _jaw_open(template, content) * METRE
        n_expression = expression.shape[1]
        basis = np.empty((n_expression + 1, *template.shape), np.float32)
        basis[:-1] = modes(expression, len(template), METRE, None, "shapedirs")
        basis[-1] = jaw
        sigma = np.ones(n_expression + 1, np.float32)
        sigma[-1] = ACTIVATION_SIGMA
        return assemble(
            f"flame-{file.stem}",
            template * METRE,
            corners(array(content["f"], "f"), 0, "f"),
            modes(shape, len(template), METRE, n_shape, "shapedirs"),
            expression_basis=basis,
            expression_sigma=sigma,
            expression_names=(*expression_labels(n_expression), "jawOpen"),
            folder=file.parent,
        )


def _jaw_open(template: np.ndarray, content: dict) -> np.ndarray:
    """(V, 3) displacement, metres, of the (V, 3) mean head with its jaw turned by `JAW_ANGLE`."""
    regressor = array(content["J_regressor"], "J_regressor")
    dense = regressor if isinstance(regressor, np.ndarray) else regressor.toarray()
    weights = array(content["weights"], "weights")
    corrections = array(content["posedirs"], "posedirs")
    n = len(template)
    found = dense.shape, weights.shape, corrections.shape
    if found != ((5, n), (n, 5), (n, 3, 36)):
        raise P2FError(
            f"J_regressor, weights and posedirs have shapes {found}, expected "
            f"{((5, n), (n, 5), (n, 3, 36))}"
        )
    angle = np.radians(JAW_ANGLE)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])  # about x: the chin drops
    # Pose corrections are linear in the elements of each joint's rotation minus identity.
    part = slice(9 * (JAW - 1), 9 * JAW)
    corrected = template + corrections[:, :, part] @ (turn - np.eye(3)).ravel()
    joint = dense[JAW] @ template
    turned = (corrected - joint) @ turn.T + joint
    share = weights[:, JAW, None]
    return share * turned + (1 - share) * corrected - template
