"""300W-LP, the paper's training data: pictures with the coefficients of the face fitted to each.

::

    <root>/{AFW,HELEN,IBUG,LFPW}[_Flip]/<stem>.jpg   450 x 450
    <root>/{AFW,HELEN,IBUG,LFPW}[_Flip]/<stem>.mat   see `p2f_lib.datasets.fitted_mat`

`Code/` and `landmarks/` beside them are not needed. Mirrored pictures have coefficients of their
own. Targets are never stored: some 300 numbers a picture render them again, exactly, and whole,
also where something covers the face.
"""

from __future__ import annotations

import os
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from p2f_lib.camera import AffineCamera
from p2f_lib.crop import Crop
from p2f_lib.datasets.fitted_mat import (
    N_EXPRESSION,
    N_POSE,
    N_SHAPE,
    SIDE,
    camera_matrices,
    file_angles,
    read_mat,
)
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import (
    GroundTruth,
    OffsetStatistics,
    SampleBatch,
    offset_statistics,
    render_crops,
    render_vertices,
)
from p2f_lib.images import read_image
from p2f_lib.memory import keep_freed_memory
from p2f_lib.morphable_model import MorphableModel

SUBSETS = tuple(name + flip for name in ("AFW", "HELEN", "IBUG", "LFPW") for flip in ("", "_Flip"))
N_LANDMARKS = 68
SOURCE = (
    "300W-LP is offered for research by its authors at "
    "http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm"
)
BATCH = 64  # faces that are blended and rendered together, fewer where targets are large
BATCH_PIXELS = BATCH * 256**2
YAW_EDGES = np.arange(0, 100, 10)  # degrees; of the histogram of |yaw|


# --- index ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """The pairs of picture and .mat in a folder.

    Attributes
    ----------
    root : the folder.
    stems : paths from there without suffix, ``AFW/AFW_134212_1_0``, in a fixed order.
    problems : a sentence on everything that is left out.
    """

    root: Path
    stems: tuple[str, ...]
    problems: tuple[str, ...]


def pair_files(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted stems of the .jpg with a .mat beside them, and a sentence on every other one."""
    pictures: set[str] = set()
    numbers: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            kind = {".jpg": pictures, ".mat": numbers}.get(suffix)
            if kind is not None and entry.is_file():
                kind.add(stem)
    problems = [f"{folder / stem}.jpg has no .mat beside it." for stem in pictures - numbers]
    problems += [f"{folder / stem}.mat has no .jpg beside it." for stem in numbers - pictures]
    return sorted(pictures & numbers), sorted(problems)


def index_300wlp(root: str | Path) -> Index:
    """List the pairs under `root`, the folder that holds ``AFW``, ``AFW_Flip`` and so on.

    Raises
    ------
    P2FError
        None of these folders is there, or none holds a pair.
    """
    root = Path(root)
    stems: list[str] = []
    problems: list[str] = []
    for subset in SUBSETS:
        folder = root / subset
        if not folder.is_dir():
            problems.append(f"{root} has no folder {subset}; its pictures are left out.")
            continue
        found, trouble = pair_files(folder)
        stems += [f"{subset}/{stem}" for stem in found]
        problems += trouble
    if not stems:
        raise P2FError(
            f"{root} holds no pictures of 300W-LP: expected the folders {', '.join(SUBSETS)} with "
            f"pairs of .jpg and .mat. {SOURCE}."
        )
    return Index(root, tuple(stems), tuple(problems))


# --- table ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class W300LPTable:
    """Everything but the pictures, a row a picture.

    Attributes
    ----------
    stems : (N,) str, the picture is ``<root>/<stem>.jpg``.
    shape : (N, 199) float32.
    expression : (N, 29) float32.
    pose : (N, 7) float64, `FittedFace.pose`.
    landmarks : (N, 68, 2) float32, annotation in the picture, pixels.
    problems : (P,) str, a sentence on every file that was left out.
    """

    stems: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    landmarks: np.ndarray
    problems: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.stems)
        expected = {
            "stems": (n,),
            "shape": (n, N_SHAPE),
            "expression": (n, N_EXPRESSION),
            "pose": (n, N_POSE),
            "landmarks": (n, N_LANDMARKS, 2),
            "problems": (len(self.problems),),
        }
        for name, shape in expected.items():
            found = getattr(self, name)
            kind = "U" if name in ("stems", "problems") else "f"
            if found.shape != shape or found.dtype.kind != kind:
                raise P2FError(
                    f"A table of 300W-LP needs {name} of shape {shape}, got {found.dtype} of "
                    f"shape {found.shape}."
                )

    def __len__(self) -> int:
        return len(self.stems)

    def take(self, rows: Sequence[int] | np.ndarray) -> W300LPTable:
        """Some of the rows, in the order given; the problems stay."""
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS if name != "problems"}
        return W300LPTable(**columns, problems=self.problems)

    @property
    def yaw(self) -> np.ndarray:
        """(N,) degrees, as in the files: positive to picture left."""
        return file_angles(self.pose)[:, 0]

    def camera(self, row: int) -> AffineCamera:
        """Model space, mm, to the 450 x 450 picture."""
        return AffineCamera(camera_matrices(self.pose[row]))

    def render(self, model: MorphableModel, row: int) -> GroundTruth:
        """PNCC and offsets in the 450 x 450 picture.

        Parameters
        ----------
        model : 3DDFA's Basel Face Model, to which the coefficients belong.

        Raises
        ------
        P2FError
            A model with another number of coefficients.
        """
        check_model(model)
        vertices = model.vertices(self.shape[row], self.expression[row])
        return render_vertices(model, vertices, self.camera(row), SIDE, SIDE)

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz``; the same table gives the same bytes."""
        np.savez_compressed(path, **{name: getattr(self, name) for name in _COLUMNS})

    @classmethod
    def load(cls, path: str | Path) -> W300LPTable:
        """Read what `save` wrote; nothing in the file is executed.

        Raises
        ------
        P2FError
            No such file, or not a table.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(**{name: file[name] for name in _COLUMNS})
        except P2FError as error:
            raise P2FError(f"{path} is damaged: {error}") from error
        except (
            *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
            zipfile.BadZipFile,
        ) as error:
            raise P2FError(
                f"{path} holds no table of 300W-LP ({error}); run `make repro` to make it."
            ) from error


_COLUMNS = ("stems", "shape", "expression", "pose", "landmarks", "problems")


def read_300wlp(root: str | Path, progress: bool = True) -> W300LPTable:
    """Read the coefficients of every picture; damaged files become sentences in `problems`.

    Parameters
    ----------
    root : the folder that holds ``AFW``, ``AFW_Flip`` and so on.
    progress : show a bar.

    Raises
    ------
    P2FError
        See `index_300wlp`; or not a single file can be read.
    """
    index = index_300wlp(root)
    n = len(index.stems)
    shape = np.empty((n, N_SHAPE), np.float32)
    expression = np.empty((n, N_EXPRESSION), np.float32)
    pose = np.empty((n, N_POSE))
    landmarks = np.empty((n, N_LANDMARKS, 2), np.float32)
    kept, problems = np.zeros(n, bool), list(index.problems)
    for row, stem in enumerate(tqdm(index.stems, "300W-LP", disable=not progress)):
        try:
            face = read_mat(index.root / f"{stem}.mat")
            if len(face.points) != N_LANDMARKS:
                raise P2FError(
                    f"{index.root / stem}.mat has {len(face.points)} points, expected "
                    f"{N_LANDMARKS}; is it of AFLW2000-3D?"
                )
            if np.isnan(face.points).any():
                raise P2FError(f"{index.root / stem}.mat has points without annotation (-1).")
        except P2FError as error:
            problems.append(str(error))
            continue
        shape[row], expression[row], pose[row] = face.shape, face.expression, face.pose
        landmarks[row], kept[row] = face.points, True
    if not kept.any():
        raise P2FError(f"None of the {n} .mat files in {root} can be read: {problems[-1]}")
    table = W300LPTable(
        np.array(index.stems), shape, expression, pose, landmarks, np.array(problems, dtype=str)
    )
    return table if kept.all() else table.take(np.flatnonzero(kept))


def check_model(model: MorphableModel) -> None:
    """Refuse a model whose coefficients are not those of the files."""
    if (model.n_shape, model.n_expression) != (N_SHAPE, N_EXPRESSION):
        raise P2FError(
            f"The coefficients of 300W-LP are {N_SHAPE} of shape and {N_EXPRESSION} of expression, "
            f"the face model {model.name!r} has {model.n_shape} and {model.n_expression}. They "
            "belong to 3DDFA's Basel Face Model with all of its modes: set face_model.source to "
            f"3ddfa and face_model.n_shape to {N_SHAPE}."
        )


# --- pictures and targets -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class W300LP:
    """The data set as training takes it: a table, and pictures that are read when they are needed.

    Attributes
    ----------
    root : the folder that the table was read from.
    table : its rows are the samples.
    """

    root: Path
    table: W300LPTable

    def __len__(self) -> int:
        return len(self.table)

    def __getitems__(self, rows: Sequence[int] | np.ndarray) -> SampleBatch:
        """Pictures and faces of some rows.

        Raises
        ------
        P2FError
            A picture is missing, damaged or of another size.
        """
        table, rows = self.table, list(rows)
        return SampleBatch(
            images=np.stack([self.image(row) for row in rows]),
            shape=table.shape[rows],
            expression=table.expression[rows],
            cameras=tuple(table.camera(row) for row in rows),
            landmarks=table.landmarks[rows],
            is_face=np.ones(len(rows), bool),
        )

    def image(self, row: int) -> np.ndarray:
        """(450, 450, 3) uint8.

        Raises
        ------
        P2FError
            The picture is missing, damaged or of another size.
        """
        path = Path(self.root) / f"{self.table.stems[row]}.jpg"
        image = read_image(path)
        if image.shape != (SIDE, SIDE, 3):
            raise P2FError(
                f"{path} has {image.shape[1]} x {image.shape[0]} pixels, expected {SIDE} x {SIDE}."
            )
        return image


def render_targets(
    model: MorphableModel,
    table: W300LPTable,
    rows: Sequence[int] | np.ndarray,
    size: int = SIDE,
    crops: Sequence[Crop] | None = None,
    threads: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Targets of many rows, one after the other in their order; a few batches wait in memory.

    Parameters
    ----------
    model : as for `W300LPTable.render`.
    table, rows : which faces.
    size : pixels a side of the targets.
    crops : one a row, the square of the picture that its target shows; default: all of it.
    threads : batches at a time; default: the processors of this process. The results don't depend
        on it.

    Yields
    ------
    planes : (S, S, 6) float32, mm: PNCC, then offsets; 0 outside the face.
    valid : (S, S) bool.

    Raises
    ------
    P2FError
        As `W300LPTable.render`; or another number of crops than of rows.
    """
    check_model(model)
    keep_freed_memory()
    chosen = np.asarray(rows, int)
    if crops is None:
        crops = [Crop(-0.5, -0.5, SIDE, size)] * len(chosen)
    if len(crops) != len(chosen):
        raise P2FError(f"Got {len(crops)} crops for {len(chosen)} rows.")
    maps = np.array([_unit_square(crop) for crop in crops]).reshape(-1, 2, 3)
    step = max(1, min(BATCH, BATCH_PIXELS // size**2))

    def batch(start: int) -> tuple[np.ndarray, np.ndarray]:
        part = chosen[start : start + step]
        cameras = [AffineCamera(matrix) for matrix in camera_matrices(table.pose[part])]
        known = table.shape[part], table.expression[part], cameras, maps[start : start + step]
        return render_crops(model, *known, size)

    return _in_order(batch, range(0, len(chosen), step), threads or _processors())


def _unit_square(crop: Crop) -> np.ndarray:
    """(2, 3) map from the crop's unit square [-1, 1]^2 to the picture."""
    half, matrix = crop.size / 2, crop.to_picture
    center = matrix[:, :2] @ np.full(2, half - 0.5) + matrix[:, 2]
    return np.column_stack([half * matrix[:, :2], center])


def _in_order(
    batch: Callable[[int], tuple[np.ndarray, np.ndarray]], starts: Sequence[int], threads: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pending: deque[Future] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start in starts:
            pending.append(pool.submit(batch, start))
            if len(pending) > threads:
                yield from zip(*pending.popleft().result(), strict=True)
        while pending:
            yield from zip(*pending.popleft().result(), strict=True)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- description ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Description:
    """What the report shows of the data set.

    Attributes
    ----------
    subsets : {folder: pictures}
    offsets : of the pixels of randomly chosen rows.
    yaw_edges, yaw_counts : (B + 1,) degrees and (B,) pictures, the histogram of |yaw|.
    rows : (S,) the rows of the samples below.
    images : (S, 450, 450, 3) uint8.
    planes : (S, 450, 450, 6) float32, PNCC and offsets, mm.
    valid : (S, 450, 450) bool.
    """

    subsets: dict[str, int]
    offsets: OffsetStatistics
    yaw_edges: np.ndarray
    yaw_counts: np.ndarray
    rows: np.ndarray
    images: np.ndarray
    planes: np.ndarray
    valid: np.ndarray

    def text(self) -> str:
        """A few lines for the reader of the notebook."""
        names = ", ".join(f"{name} {count}" for name, count in self.subsets.items())
        edges = [f"{edge:g}" for edge in self.yaw_edges]
        bins = ", ".join(
            f"{low}-{high}: {count}"
            for low, high, count in zip(edges[:-1], edges[1:], self.yaw_counts, strict=True)
        )
        return (
            f"{sum(self.subsets.values())} pictures: {names}\n"
            f"|yaw| in degrees: {bins}\n"
            f"offsets: rms {self.offsets.rms:.1f} mm a component, "
            f"mean absolute {self.offsets.mean_absolute:.1f} mm"
        )


def describe_300wlp(
    data: W300LP,
    model: MorphableModel,
    seed: int = 0,
    n_samples: int = 12,
    n_statistics: int = 200,
) -> Description:
    """Counts, statistics of random rows, and samples for a figure.

    Parameters
    ----------
    data : the data set.
    model : 3DDFA's Basel Face Model.
    seed : chooses the rows.
    n_samples : rows with picture and targets.
    n_statistics : rows for the statistics of the offsets, the samples among them.

    Raises
    ------
    P2FError
        Another model; a picture among the samples that can't be read.
    """
    table = data.table
    chosen = np.random.default_rng(seed).permutation(len(table))[: max(n_samples, n_statistics)]
    rows = chosen[:n_samples]
    planes = np.zeros((len(rows), SIDE, SIDE, 6), np.float32)
    valid = np.zeros((len(rows), SIDE, SIDE), bool)
    offsets = []
    for number, (face, seen) in enumerate(render_targets(model, table, chosen)):
        # Every 16th pixel tells as much as all of its neighbours.
        offsets.append(face[::4, ::4, 3:][seen[::4, ::4]])
        if number < len(rows):
            planes[number], valid[number] = face, seen
    names, counts = np.unique([stem.split("/")[0] for stem in table.stems], return_counts=True)
    edges = YAW_EDGES.astype(float)
    inside = np.minimum(np.abs(table.yaw), edges[-1])  # the few beyond profile join the last bin
    return Description(
        subsets=dict(zip(names.tolist(), counts.tolist(), strict=True)),
        offsets=offset_statistics(np.concatenate(offsets)),
        yaw_edges=edges,
        yaw_counts=np.histogram(inside, edges)[0],
        rows=rows,
        images=np.stack([data.image(row) for row in rows]),
        planes=planes,
        valid=valid,
    )
