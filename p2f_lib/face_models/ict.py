"""ICT-FaceKit's light face model (Li et al., CVPR 2020): a folder of OBJ files, in centimetres.

All have the vertices of `generic_neutral_mesh.obj`: 100 identity modes for standard normal
coefficients, and expressions like ARKit's face units, for activations in [0, 1].
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.face_models.common import ACTIVATION_SIGMA, assemble, folder_of, locate, reading
from p2f_lib.morphable_model import MorphableModel

CENTIMETRE = 10.0  # mm
N_VERTICES, N_QUADS = 26719, 26384
N_IDENTITIES = 100
# Vertices of the face, of the head with the neck, and of the eyeballs, which fill the eyes. Left
# out: what is behind the lips and lids (mouth, gums, teeth, eye sockets), and the thin shells
# before the eyes (tears, shadows, lashes), which are no surface of the face.
PARTS = ((0, 11248), (21451, 24591))
_JOINED = ("browInnerUp", "cheekPuff")  # one face unit in ARKit, a left and a right one here


def read_ict(path: str | Path | None = None, n_shape: int | None = None) -> MorphableModel:
    """The folder `FaceXModel` (or the repository around it).

    Quads are cut into triangles; the halves of `browInnerUp` and of `cheekPuff` are added up, so
    that the expressions have ARKit's names ("browDown_L" is "browDownLeft"); all but "tongueOut"
    of ARKit's 52 are there.

    Parameters
    ----------
    path : the folder, or None for the default folder.
    n_shape : the first modes to read, None for all 100.

    Returns
    -------
    Model of the face, the head and the eyeballs, with texture coordinates and "ibug68".

    Raises
    ------
    P2FError : missing, truncated or alien file.
    """
    folder = folder_of("ict", path)
    if (folder / "FaceXModel").is_dir():
        folder = folder / "FaceXModel"
    neutral = locate("ict", folder, "generic_neutral_mesh.obj")
    about = locate("ict", folder, "vertex_indices.json")
    with reading(about, "ict"):
        facts = json.loads(about.read_text(encoding="utf-8"))
        landmarks = np.array(facts["idx_to_landmark_verts"])
        expressions = [str(name) for name in facts["expressions"]]
    with reading(neutral, "ict"):
        mesh = _vertices(neutral)
        kept = np.concatenate([np.arange(*part) for part in PARTS])
        triangles, texture_triangles, texture = _surface(neutral, kept)

    def displacements(name: str) -> np.ndarray:
        file = locate("ict", folder, f"{Path(name).name}.obj")
        with reading(file, "ict"):
            return ((_vertices(file) - mesh) * CENTIMETRE)[kept]

    n = N_IDENTITIES if n_shape is None else min(n_shape, N_IDENTITIES)
    shape = np.empty((n, len(kept), 3), np.float32)
    for i in range(n):
        shape[i] = displacements(f"identity{i:03d}")
    names = list(dict.fromkeys(_arkit_name(name) for name in expressions))
    basis = np.zeros((len(names), len(kept), 3), np.float32)
    for name in expressions:
        basis[names.index(_arkit_name(name))] += displacements(name)
    with reading(about, "ict"):
        if not np.isin(landmarks, kept).all():
            raise P2FError("a landmark lies outside face, head and eyeballs")
        landmarks = np.searchsorted(kept, landmarks)
    with reading(neutral, "ict"):
        return assemble(
            "ict",
            mesh[kept] * CENTIMETRE,
            triangles,
            shape,
            expression_basis=basis,
            expression_sigma=np.full(len(names), ACTIVATION_SIGMA),
            expression_names=tuple(names),
            folder=folder,
            landmarks={"ibug68": landmarks},
            texture_coordinates=texture,
            texture_triangles=texture_triangles,
        )


def _arkit_name(name: str) -> str:
    stem, _, side = name.partition("_")
    return stem if stem in _JOINED else stem + {"L": "Left", "R": "Right"}.get(side, "")


def _table(path: Path, kind: bytes, dtype: type, limit: int) -> np.ndarray:
    """(N, K) numbers of the first `limit` lines of an OBJ file that start with `kind`."""

    def lines() -> Iterator[bytes]:
        with path.open("rb") as file:
            for line in file:
                if line.startswith(kind):
                    if not line.endswith(b"\n"):
                        raise P2FError("it ends within a line")
                    yield line[len(kind) :].replace(b"/", b" ")

    some = islice(lines(), limit)
    first = next(some, None)
    if first is None:
        raise P2FError(f"it has no line of {kind.decode().strip()!r}")
    return np.loadtxt(chain([first], some), dtype, ndmin=2)


def _vertices(path: Path) -> np.ndarray:
    """(26719, 3) float64 of an OBJ file; the rest of it is not looked at."""
    vertices = _table(path, b"v ", np.float64, N_VERTICES + 1)
    if vertices.shape != (N_VERTICES, 3) or not np.isfinite(vertices).all():
        raise P2FError(f"it has vertices of shape {vertices.shape}, expected {(N_VERTICES, 3)}")
    return vertices


def _surface(path: Path, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles (F, 3) over the kept vertices, over the texture coordinates, and these (T, 2)."""
    texture = _table(path, b"vt ", np.float64, 4 * N_QUADS)[:, :2]
    quads = _table(path, b"f ", np.int64, N_QUADS + 1)
    if quads.shape != (N_QUADS, 8):
        raise P2FError(f"it has faces of shape {quads.shape}, expected {N_QUADS} of four v/vt")
    quads = quads.reshape(-1, 4, 2) - 1
    position, coordinate = quads[..., 0], quads[..., 1]
    for index, size in ((position, N_VERTICES), (coordinate, len(texture))):
        if index.size and not 0 <= index.min() <= index.max() < size:
            raise P2FError("its faces point outside its vertices")
    # The eyeballs have pictures of their own: in the face's they get a corner and no area.
    texture = np.concatenate([np.clip(texture, 0, 1), [[0, 0]]])
    coordinate = np.where(position < PARTS[0][1], coordinate, len(texture) - 1)
    ours = np.isin(position, kept).all(axis=1)
    cut = [[0, 1, 2], [0, 2, 3]]
    triangles = np.searchsorted(kept, position[ours])[:, cut].reshape(-1, 3)
    used, texture_triangles = np.unique(coordinate[ours][:, cut], return_inverse=True)
    texture = texture[used].astype(np.float32)
    return triangles.astype(np.int32), texture_triangles.reshape(-1, 3).astype(np.int32), texture
