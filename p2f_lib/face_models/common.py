"""What the readers of licensed and published face models share: files, sentences, frames.

Every reader ends in `assemble`, which brings a mesh into the project's conventions: triangles
counter-clockwise from outside, the origin inside the head. Modes are stored times their standard
deviation, so that coefficients are standard normal, except where a reader says otherwise.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.landmarks import MARKUPS
from p2f_lib.morphable_model import MorphableModel

DEFAULT_FOLDER = Path("data/face_models")  # one folder a source
ACTIVATION_SIGMA = 0.25  # of expressions that are activations in [0, 1]
INSIDE = 30.0  # mm from any vertex: an origin as deep as this is inside the head
DEPTH = 0.6  # of the head's width, from the tip of the nose back to the middle of the head


@dataclass(frozen=True)
class About:
    """What a missing file's sentence says.

    Attributes
    ----------
    title : of the model.
    files : what its folder must hold, as the publisher names it.
    where : page from which one obtains them.
    licence : the kind of it, after "under".
    """

    title: str
    files: tuple[str, ...]
    where: str
    licence: str


_RESEARCH = "a licence for non-commercial research"
_BASEL = "https://faces.dmi.unibas.ch/bfm/"
ABOUT = {
    "basel2009": About("Basel Face Model 2009", ("01_MorphableModel.mat",), _BASEL, _RESEARCH),
    "basel2017": About(
        "Basel Face Model 2017 or 2019",
        ("model2017-1_bfm_nomouth.h5", "model2019_bfm.h5", "model20*.h5"),
        _BASEL,
        _RESEARCH,
    ),
    "3ddfa": About(
        "face model of 3DDFA, to which the coefficients of 300W-LP belong",
        ("Model_Shape.mat", "Model_Exp.mat"),
        "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm (the shape is made "
        f"from the Basel Face Model 2009, {_BASEL})",
        f"the Basel model's {_RESEARCH.removeprefix('a ')}",
    ),
    "flame": About(
        "FLAME head model",
        ("generic_model.pkl", "flame20*.pkl", "FLAME_NEUTRAL.pkl"),
        "https://flame.is.tue.mpg.de",
        "its own licence (FLAME 2020 and earlier: non-commercial; FLAME 2023 Open: CC BY 4.0)",
    ),
    "surrey": About(
        "Surrey Face Model",
        ("sfm_shape_3448.bin", "expression_blendshapes_3448.bin"),
        "https://github.com/patrikhuber/eos (folder share)",
        "a licence for non-commercial use",
    ),
    "ict": About(
        "ICT face model",
        ("generic_neutral_mesh.obj", "vertex_indices.json"),
        "https://github.com/ICT-VGL/ICT-FaceKit (folder FaceXModel)",
        "the MIT licence",
    ),
    "lsfm": About(
        "Large Scale Facial Model",
        ("all_all_all.mat", "*.mat"),
        "http://ibug.doc.ic.ac.uk/resources/lsfm/",
        _RESEARCH,
    ),
    "lyhm": About(
        "Liverpool-York Head Model",
        ("*.mat",),
        "https://www-users.cs.york.ac.uk/~nep/research/LYHM/",
        _RESEARCH,
    ),
}


# --- files ----------------------------------------------------------------------------------------


def folder_of(source: str, path: str | Path | None) -> Path:
    """The folder in which a source's files lie; `path` may name one of them."""
    path = DEFAULT_FOLDER / source if path is None else Path(path)
    return path.parent if path.is_file() else path


def locate(source: str, path: str | Path | None, *names: str) -> Path:
    """The file of a model.

    Parameters
    ----------
    source : a key of `ABOUT`.
    path : the file itself, the folder that holds it, or None for the source's default folder.
    names : file names or glob patterns, the first that fits is taken.

    Raises
    ------
    P2FError : no such file; the sentence says where one obtains it and under which licence.
    """
    if path is not None and Path(path).is_file():
        return Path(path)
    folder = folder_of(source, path)
    for name in names:
        if found := sorted(folder.glob(name)):
            return found[0]
    about = ABOUT[source]
    raise P2FError(
        f"There is no {names[0]} in {folder}. It is part of the {about.title}, which one obtains "
        f"from {about.where} under {about.licence}; put it there or set face_model.path."
    )


@contextlib.contextmanager
def reading(path: Path, source: str) -> Iterator[None]:
    """Turn whatever a damaged or alien file makes go wrong into a sentence about that file."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what isn't finite is refused later
            yield
    except Exception as error:  # parsers of others' formats trip over anything
        if isinstance(error, P2FError) and str(path) in str(error):
            raise
        detail = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise P2FError(
            f"{path} cannot be read as part of the {ABOUT[source].title} (truncated, damaged or "
            f"not one): {detail or type(error).__name__}."
        ) from error


# --- arrays ---------------------------------------------------------------------------------------


def numbers(array: np.ndarray, what: str, size: int | None = None) -> np.ndarray:
    """(N,) float64 of real numbers, in MATLAB's order; `size` says how many are expected."""
    if array.dtype.kind not in "fiu":
        raise P2FError(f"{what} holds no real numbers (its type is {array.dtype})")
    if size is not None and array.size != size:
        raise P2FError(f"{what} has {array.size} values, expected {size}")
    return array.astype(np.float64).reshape(-1, order="F")


def modes(
    columns: np.ndarray, n_vertices: int, scale: np.ndarray | float, n: int | None, what: str
) -> np.ndarray:
    """(K, V, 3) float32 from the first `n` columns (all for None), each times its scale.

    Parameters
    ----------
    columns : (3 V, K'), x, y, z interleaved.
    scale : (K',) or one for all; the unit's conversion to mm belongs in here.
    what : name of the columns in sentences.
    """
    if columns.ndim != 2 or columns.dtype.kind not in "fiu" or len(columns) != 3 * n_vertices:
        raise P2FError(
            f"{what} has shape {columns.shape} and type {columns.dtype}, expected real numbers "
            f"({3 * n_vertices}, K) for {n_vertices} vertices"
        )
    scale = np.broadcast_to(np.asarray(scale, np.float64), (columns.shape[1],))[:n]
    rows = np.empty((len(scale), len(columns)), np.float32)
    for row, column, factor in zip(rows, columns.T, scale, strict=False):
        np.multiply(column, factor, out=row, casting="same_kind")  # no copy in float64
    return rows.reshape(len(rows), n_vertices, 3)


def corners(array: np.ndarray, first: int, what: str) -> np.ndarray:
    """(F, 3) int32 vertex indices from 0, of a (F, 3) or (3, F) list that counts from `first`."""
    if array.ndim != 2 or 3 not in array.shape or array.dtype.kind not in "fiu":
        raise P2FError(f"{what} has shape {array.shape}, expected (F, 3) or (3, F) indices")
    array = array if array.shape[1] == 3 else array.T
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array % 1 == 0).all()):
        raise P2FError(f"{what} holds numbers that are no indices")
    return vertex_indices(array.astype(np.int64) - first, what)


def vertex_indices(array: np.ndarray, what: str) -> np.ndarray:
    """int32 copy of whole numbers that must not be negative."""
    if array.size and not 0 <= array.min() <= array.max() < 2**31:
        raise P2FError(f"{what} holds indices outside the mesh")
    return array.astype(np.int32)


def expression_labels(n: int) -> tuple[str, ...]:
    """Names of modes that have none."""
    return tuple(f"expression{i:03d}" for i in range(n))


# --- the model ------------------------------------------------------------------------------------


def assemble(
    name: str,
    mean: np.ndarray,
    triangles: np.ndarray,
    shape_basis: np.ndarray,
    shape_sigma: np.ndarray | None = None,
    expression_basis: np.ndarray | None = None,
    expression_sigma: np.ndarray | None = None,
    expression_names: tuple[str, ...] | None = None,
    *,
    folder: Path,
    landmarks: dict[str, np.ndarray] | None = None,
    recentre: bool = True,
    colors: np.ndarray | None = None,
    texture_coordinates: np.ndarray | None = None,
    texture_triangles: np.ndarray | None = None,
) -> MorphableModel:
    """A `MorphableModel` in the project's frame.

    Parameters
    ----------
    mean : (V, 3) mm, x to the subject's left, y up, z out of the face.
    triangles : (F, 3), all turned around when they are clockwise from outside.
    shape_basis : (Ks, V, 3) mm; `shape_sigma` None: all 1, standard normal coefficients.
    expression_basis : (Ke, V, 3) mm, None for a model without expressions.
    folder : where an optional `landmarks.json` lies, see `side_landmarks`.
    landmarks : those of the model's own files.
    recentre : move the origin into the head where it isn't, see `inner_point`.
    colors, texture_coordinates, texture_triangles : as of `MorphableModel`.
    """
    mean = np.asarray(mean, np.float64)
    n = len(mean)
    if expression_basis is None:
        expression_basis = np.zeros((0, n, 3), np.float32)
    count = len(expression_basis)
    if triangles.size and triangles.max() >= n:
        raise P2FError(f"the triangles point outside the {n} vertices of the mesh")
    if recentre:
        mean = mean - inner_point(mean)
    if signed_volume(mean, triangles) < 0:
        triangles = triangles[:, ::-1]
        if texture_triangles is not None:
            texture_triangles = texture_triangles[:, ::-1]
    landmarks = (landmarks or {}) | side_landmarks(folder, n)
    for markup, indices in landmarks.items():
        _check_landmarks(markup, indices, n)
    return MorphableModel(
        name=name,
        mean=mean.astype(np.float32),
        triangles=np.ascontiguousarray(triangles, np.int32),
        shape_basis=shape_basis,
        shape_sigma=_sigma(shape_sigma, len(shape_basis)),
        expression_basis=expression_basis,
        expression_sigma=_sigma(expression_sigma, count),
        expression_names=expression_labels(count) if expression_names is None else expression_names,
        landmarks={key: np.asarray(value, np.int32) for key, value in landmarks.items()},
        colors=colors,
        texture_coordinates=texture_coordinates,
        texture_triangles=texture_triangles,
    )


def _sigma(sigma: np.ndarray | None, n: int) -> np.ndarray:
    return np.ones(n, np.float32) if sigma is None else np.asarray(sigma[:n], np.float32)


def inner_point(mean: np.ndarray) -> np.ndarray:
    """(3,) the point of a (V, 3) head, mm, that becomes the origin.

    A file's own origin is kept when it lies in the box of the vertices and at least `INSIDE` mm
    from each. Otherwise: the middle of the box in x and y, and in z `DEPTH` times its width
    behind its foremost point.
    """
    low, high = mean.min(axis=0), mean.max(axis=0)
    if (low < 0).all() and (high > 0).all() and (mean**2).sum(axis=1).min() >= INSIDE**2:
        return np.zeros(3)
    middle = (low + high) / 2
    middle[2] = high[2] - DEPTH * (high[0] - low[0])
    return middle


def signed_volume(vertices: np.ndarray, triangles: np.ndarray) -> float:
    """Volume between the mesh and the origin, positive for triangles counter-clockwise from
    outside, also of a mask that is open behind."""
    a, b, c = vertices[triangles.T]
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def side_landmarks(folder: Path, n_vertices: int) -> dict[str, np.ndarray]:
    """Vertex lists of an optional `landmarks.json` beside a model: {"ibug68": [68 vertices], ...}.

    They come before those of the model's own files.
    """
    path = folder / "landmarks.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lists = {str(key): np.array(value) for key, value in content.items()}
        for markup, indices in lists.items():
            _check_landmarks(markup, indices, n_vertices)
    except (AttributeError, ValueError, RecursionError) as error:
        raise P2FError(f"{path} isn't a list of landmark vertices: {error}.") from error
    return lists


def _check_landmarks(markup: str, indices: np.ndarray, n_vertices: int) -> None:
    if markup not in MARKUPS:
        raise P2FError(f"unknown mark-up {markup!r}; known are {', '.join(MARKUPS)}")
    expected = (MARKUPS[markup],)
    if indices.shape != expected or indices.dtype.kind not in "iu":
        raise P2FError(f"{markup} must be {expected[0]} vertex indices")
    if indices.min() < 0 or indices.max() >= n_vertices:
        raise P2FError(f"{markup} points outside the {n_vertices} vertices of the mesh")
