"""Results of a video, frame by frame on disk: append-only files that survive `kill -9`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.fitting import Localized
from p2f_lib.landmarks import MARKUPS
from p2f_lib.morphable_model import MorphableModel

CHUNK = 64  # rows that are read at a time
MAX_POINTS = 1000  # localised vertices of a frame that Eq. 5 looks at

# A frame's box was found, or lies between two that were, or is the nearest that was; or the face
# was followed from the frame before; or there is no face; or no picture.
STATES = ("detected", "interpolated", "held", "tracked", "absent", "unreadable")
DETECTED, INTERPOLATED, HELD, TRACKED, ABSENT, UNREADABLE = range(6)


def row_type(model: MorphableModel) -> np.dtype:
    """A frame's results as one row; NaN where there is no face.

    ``state`` (index into `STATES`), ``scene``, ``time`` s, ``box`` (4) pixels, ``next_crop`` (4)
    left, top, side and roll of the upright crop about the landmarks, ``pose`` (3) degrees,
    ``confidence``, ``shape``, ``expression``, ``camera`` (15: focal length, principal point,
    rotation, translation), and for each mark-up ``<name>_2d`` (L, 2) pixels, unsmoothed, and
    ``<name>_3d`` (L, 3) mm.
    """
    fields: list[tuple] = [("state", "<i4"), ("scene", "<i4"), ("time", "<f8")]
    fields += [("box", "<f8", 4), ("next_crop", "<f8", 4), ("pose", "<f8", 3)]
    fields += [("confidence", "<f8"), ("shape", "<f8", model.n_shape)]
    fields += [("expression", "<f8", model.n_expression), ("camera", "<f8", 15)]
    for markup in known_markups(model):
        count = len(model.landmarks[markup])
        fields += [(f"{markup}_2d", "<f8", (count, 2)), (f"{markup}_3d", "<f8", (count, 3))]
    return np.dtype(fields)


def known_markups(model: MorphableModel) -> list[str]:
    """The mark-ups with files of their own that a face model has."""
    return [markup for markup in sorted(MARKUPS) if markup in model.landmarks]


def empty_row(dtype: np.dtype) -> np.ndarray:
    """A row () without a face."""
    row = np.zeros((), dtype)
    for name in dtype.names or ():
        if dtype[name].base.kind == "f":
            row[name] = np.nan
    row["confidence"] = 0.0
    return row


POINTS_TYPE = np.dtype(
    [
        ("count", "<i4"),
        ("vertices", "<i4", MAX_POINTS),
        ("pixels", "<f8", (MAX_POINTS, 2)),
        ("offsets", "<f4", (MAX_POINTS, 3)),
    ]
)
"""What Eq. 5 needs of a frame: localised vertices, in pixels of the picture."""


def pack_points(localized: Localized | None) -> np.ndarray:
    """A row () of `POINTS_TYPE`; None has no points."""
    row = np.zeros((), POINTS_TYPE)
    if localized is not None:
        thinned = localized.thinned(MAX_POINTS)
        row["count"] = count = len(thinned)
        row["vertices"][:count] = thinned.vertices
        row["pixels"][:count], row["offsets"][:count] = thinned.pixels, thinned.offsets
    return row


def unpack_points(row: np.ndarray) -> Localized | None:
    """The inverse of `pack_points`."""
    count = int(row["count"])
    if not count:
        return None
    return Localized(row["vertices"][:count], row["pixels"][:count], row["offsets"][:count])


@dataclass(frozen=True)
class Rows:
    """A file of rows of one type; only whole rows count, memory holds what is asked for."""

    path: Path
    dtype: np.dtype

    def __len__(self) -> int:
        return self.path.stat().st_size // self.dtype.itemsize if self.path.exists() else 0

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        if stop <= start:
            return np.zeros(0, self.dtype)
        size = self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, count=stop - start, offset=start * size)

    def chunks(self) -> Iterator[np.ndarray]:
        """All rows, a few at a time."""
        for start in range(0, len(self), CHUNK):
            yield self[start : start + CHUNK]

    def column(self, name: str) -> np.ndarray:
        """One field of all rows."""
        parts = [chunk[name].copy() for chunk in self.chunks()]
        return np.concatenate(parts) if parts else np.zeros(0, self.dtype[name])

    def cut(self, count: int) -> None:
        """Keep the first `count` rows."""
        if self.path.exists():
            os.truncate(self.path, count * self.dtype.itemsize)

    def append(self, rows: list[np.ndarray]) -> None:
        """Write rows behind the others."""
        try:
            with self.path.open("ab") as file:
                file.write(np.array(rows, self.dtype).tobytes())
        except OSError as error:
            raise P2FError(f"Cannot write {self.path}: {error}.") from error


@dataclass(frozen=True)
class Lines:
    """A file of JSON values, one a line; an unfinished last line doesn't count."""

    path: Path

    def read(self) -> list[Any]:
        """All values; what an interrupted run left unfinished is cut off."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(self.path, len(whole))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise P2FError(f"{self.path} is damaged ({error}); start without --resume.") from None

    def append(self, value: Any) -> None:
        """Write a value behind the others."""
        try:
            with self.path.open("ab") as file:
                file.write((json.dumps(value) + "\n").encode())
        except OSError as error:
            raise P2FError(f"Cannot write {self.path}: {error}.") from error
