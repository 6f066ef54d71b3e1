"""Coefficients to meshes, and reading a face model, in the model of 47 k vertices."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import Row, median_ms
from p2f_lib.morphable_model import MorphableModel
from tests.toy import egg

COARSE, LEVELS = 2_930, 2  # vertices, and Loop steps from them to 47 k
N_SHAPE, N_EXPRESSION = 60, 51
FACES = 64


def rows() -> list[Row]:
    """Milliseconds a mesh, blended on the coarse mesh or with dense bases, and of loading."""
    model = random_model(COARSE, N_SHAPE, N_EXPRESSION).subdivided(LEVELS)
    size = f"{model.n_vertices} vertices, {N_SHAPE} + {N_EXPRESSION} modes"
    return [
        _blend("blend_47k_batch64_ms", model, FACES, f"a face of {FACES}, {size}"),
        _blend("blend_47k_ms", model, 1, f"one face alone, {size}"),
        _load(model, size),
    ]


def random_model(n_vertices: int, n_shape: int, n_expression: int) -> MorphableModel:
    """An egg whose modes are noise of a face's size: time doesn't depend on what they mean."""
    rng = np.random.default_rng(0)
    vertices, triangles = egg(n_vertices)
    return MorphableModel(
        name=f"egg-{n_vertices}",
        mean=vertices.astype(np.float32),
        triangles=triangles,
        shape_basis=rng.standard_normal((n_shape, n_vertices, 3), np.float32) / 4,
        shape_sigma=np.ones(n_shape, np.float32),
        expression_basis=rng.standard_normal((n_expression, n_vertices, 3), np.float32) / 4,
        expression_sigma=np.ones(n_expression, np.float32),
        expression_names=tuple(f"e{k}" for k in range(n_expression)),
    )


def _blend(name: str, model: MorphableModel, faces: int, note: str) -> Row:
    rng = np.random.default_rng(1)
    coefficients = rng.standard_normal((faces, N_SHAPE + N_EXPRESSION), np.float32)
    bases = np.concatenate([model.shape_basis, model.expression_basis])
    bases, mean = bases.reshape(len(bases), -1), model.mean.ravel()
    shape, expression = np.split(coefficients, [N_SHAPE], axis=1)
    return Row(
        name,
        median_ms(lambda: model.vertices(shape, expression), 15) / faces,
        "ms",
        median_ms(lambda: coefficients @ bases + mean, 7) / faces,
        f"{note}, 1 core; reference: one product with the dense bases",
    )


def _load(model: MorphableModel, size: str) -> Row:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        return Row(
            "load_47k_ms",
            median_ms(lambda: MorphableModel.load(path), 7),
            "ms",
            note=f"a file of {path.stat().st_size / 2**20:.1f} MiB to a model ready to blend and "
            f"to draw, {size}, 1 core",
        )
