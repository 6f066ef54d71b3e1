"""Folders of annotated photographs, for measuring: one table, or a file beside each picture.

Nothing here is ever used to train the network.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from p2f_lib.crop import Box
from p2f_lib.datasets.landmark_files import read_landmarks
from p2f_lib.errors import P2FError
from p2f_lib.landmarks import MARKUPS

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
MARKS = (".pts", ".ljson")


@dataclass(frozen=True, eq=False)
class AnnotatedPhoto:
    """A picture's path, its (L, 2) landmarks in 0-based pixels (NaN: unknown), and their box."""

    path: Path
    landmarks: np.ndarray
    box: Box


def read_photos(
    folder: str | Path, part: str = "all", markup: str = "ibug68"
) -> list[AnnotatedPhoto]:
    """The annotated photographs of a folder in a fixed order.

    Parameters
    ----------
    folder : path
        Either ``landmarks.npz`` (arrays ``images`` (N,) of file names and one that is called as the
        mark-up, (N, L, 2)) with ``images/``, or pictures with a ``.pts`` (300-W) or ``.ljson`` of
        the same stem.
    part : {"all", "even", "odd"}
        Of the order; the even-numbered half is for quoting, the odd-numbered for choosing.
    markup : str
        "ibug68", "menpo84", or a name for any other whose points span the face from brows to chin.

    Raises
    ------
    P2FError
        No annotated photographs, a broken file, or landmarks of another number.
    """
    folder = Path(folder)
    if part not in ("all", "even", "odd"):
        raise P2FError(f'The part must be "all", "even" or "odd", got {part!r}.')
    table = folder / "landmarks.npz"
    if table.is_file():
        try:
            with np.load(table, allow_pickle=False) as data:
                pairs = list(zip(data["images"].tolist(), data[markup], strict=True))
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise P2FError(
                f"{table} is not a table of annotated photographs: it needs the arrays images "
                f"(N,) and {markup} (N, {MARKUPS.get(markup, 'L')}, 2) ({error})."
            ) from error
        photos = [(folder / "images" / Path(name).name, points) for name, points in pairs]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
        files = ((path, path.with_suffix(ending)) for path in paths for ending in MARKS)
        photos = [(path, read_landmarks(file)) for path, file in files if file.is_file()]
    if not photos:
        raise P2FError(
            f"No annotated photographs in {folder}: expected landmarks.npz with images/, or "
            "pictures with a .pts or .ljson file of the same name."
        )
    shape = MARKUPS.get(markup, len(photos[0][1])), 2
    for path, points in photos:
        if points.shape != shape:
            raise P2FError(f"{path} has landmarks of shape {points.shape}, expected {shape}.")
        if np.isfinite(points).all(axis=1).sum() < 2:
            raise P2FError(f"{path} has fewer than two landmarks whose place is known.")
    step = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}[part]
    return [AnnotatedPhoto(path, points, Box.around(points)) for path, points in photos[step]]
