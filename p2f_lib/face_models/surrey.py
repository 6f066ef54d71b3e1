"""The Surrey Face Model in the binary files of eos (Huber et al., VISAPP 2016).

`sfm_shape_3448.bin`: a face mask of 3,448 vertices, mm, 63 orthonormal modes with eigenvalues.
`expression_blendshapes_3448.bin`: six displacement fields (anger to surprise). Both are plain
little-endian numbers (of the library cereal), matrices column after column.
"""

from __future__ import annotations

import struct
import tomllib
from pathlib import Path

import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.face_models.common import assemble, corners, folder_of, locate, modes, reading
from p2f_lib.morphable_model import MorphableModel

CLASS_VERSION = 1  # of eos' MorphableModel that the published file holds
EXPRESSION_SIGMA = 0.5  # of the blendshapes, of which 1 is a strong expression
MAPPING = "ibug_to_sfm.txt"


class _Numbers:
    """The values of a binary file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.data, self.place = path.read_bytes(), 0

    def take(self, size: int) -> memoryview:
        if not 0 <= size <= len(self.data) - self.place:
            raise P2FError(f"it ends after {len(self.data)} bytes, within an array")
        self.place += size
        return memoryview(self.data)[self.place - size : self.place]

    def count(self, kind: str) -> int:
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def matrix(self) -> np.ndarray:
        """(rows, columns) float32."""
        rows, columns = self.count("i"), self.count("i")
        if min(rows, columns) < 0:
            raise P2FError(f"it holds a matrix of {rows} x {columns}")
        values = np.frombuffer(self.take(4 * rows * columns), "<f4")
        return values.reshape(rows, columns, order="F")

    def rows(self, kind: str, width: int) -> np.ndarray:
        """(N, width) of a list of short arrays."""
        size = width * np.dtype(kind).itemsize
        return np.frombuffer(self.take(self.count("Q") * size), kind).reshape(-1, width)

    def end(self) -> None:
        if self.place != len(self.data):
            raise P2FError(f"{len(self.data) - self.place} bytes are left over at its end")


def read_surrey(path: str | Path | None = None, n_shape: int | None = None) -> MorphableModel:
    """`sfm_shape_3448.bin` with `expression_blendshapes_3448.bin` beside it.

    The file's origin is near the tip of the nose and moves into the head (`common.inner_point`).

    Parameters
    ----------
    path : the folder, the shape's file, or None for the default folder.
    n_shape : the first modes to keep, None for all 63.

    Returns
    -------
    Model with texture coordinates. It has landmarks where `ibug_to_sfm.txt` in the folder defines
    all 68; the published one lacks the jaw line, see `landmark_mapping`.

    Raises
    ------
    P2FError : missing, truncated or alien file.
    """
    file = locate("surrey", path, "sfm_shape_3448.bin")
    faces = locate("surrey", folder_of("surrey", path), "expression_blendshapes_3448.bin")
    with reading(file, "surrey"):
        data = _Numbers(file)
        if (version := data.count("I")) != CLASS_VERSION:
            raise P2FError(f"its class version is {version}, only {CLASS_VERSION} is known")
        mean, basis, eigenvalues = (data.matrix() for _ in range(3))
        triangles = data.rows("<i4", 3)
        for _ in range(3):
            data.matrix()  # colours: empty
        data.rows("<i4", 3)
        texture = data.rows("<f8", 2)
        data.end()
        n = len(mean) // 3
        if eigenvalues.size != basis.shape[1] or not (eigenvalues >= 0).all():
            raise P2FError("its eigenvalues don't fit its modes")
        shape = modes(basis, n, np.sqrt(eigenvalues.ravel()), n_shape, "the shape basis")
    with reading(faces, "surrey"):
        names, expressions = _blendshapes(faces, n)
    mapping = landmark_mapping(file.parent / MAPPING)
    complete = None if mapping is None or mapping.min() < 0 else {"ibug68": mapping}
    with reading(file, "surrey"):
        triangles = corners(triangles, 0, "the triangles")
        u, v = texture.T
        return assemble(
            "surrey",
            mean.reshape(-1, 3),
            triangles,
            shape,
            expression_basis=expressions,
            expression_sigma=np.full(len(names), EXPRESSION_SIGMA),
            expression_names=names,
            folder=file.parent,
            landmarks=complete,
            # eos counts v downwards.
            texture_coordinates=np.clip(np.stack([u, 1 - v], 1), 0, 1).astype(np.float32),
            texture_triangles=triangles,
        )


def _blendshapes(path: Path, n_vertices: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and (K, V, 3) displacements, mm."""
    data = _Numbers(path)
    names, fields = [], []
    for _ in range(data.count("Q")):
        names.append(bytes(data.take(data.count("Q"))).decode())
        fields.append(modes(data.matrix(), n_vertices, 1.0, None, f"the blendshape {names[-1]!r}"))
    data.end()
    return tuple(names), np.concatenate(fields) if fields else np.zeros((0, n_vertices, 3), "f4")


def landmark_mapping(path: str | Path) -> np.ndarray | None:
    """(68,) int32 vertices of the iBUG points of an `ibug_to_sfm.txt` (TOML), None without a file.

    -1 stands for points that it doesn't define: the published one has none of the jaw line but the
    chin, and not the inner corners of the mouth.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        mapping = tomllib.loads(path.read_text(encoding="utf-8"))["landmark_mappings"]
        indices = np.full(68, -1, np.int32)
        for point, vertex in mapping.items():
            indices[range(1, 69).index(int(point))] = vertex
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise P2FError(f"{path} is no mapping of the 68 iBUG points: {error}.") from error
    return indices
