"""Folders of annotated photographs, for measuring: `landmarks.npz`, or `.pts` beside each picture.

Nothing here is ever used to train the network.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from p2f_lib.crop import Box
from p2f_lib.datasets.landmark_files import read_pts
from p2f_lib.errors import P2FError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp")


@dataclass(frozen=True, eq=False)
class AnnotatedPhoto:
    """A picture's path, its (68, 2) iBUG landmarks in 0-based pixels, and their box."""

    path: Path
    landmarks: np.ndarray
    box: Box


def read_photos(folder: str | Path, part: str = "all") -> list[AnnotatedPhoto]:
    """The annotated photographs of a folder in a fixed order.

    Parameters
    ----------
    folder : path
        Either ``landmarks.npz`` (arrays ``images`` (N,) of file names, ``ibug68`` (N, 68, 2)) with
        ``images/``, or pictures with a ``.pts`` of the same stem (300-W).
    part : {"all", "even", "odd"}
        Of the order; the even-numbered half is for quoting, the odd-numbered for choosing.
    """
    folder = Path(folder)
    if part not in ("all", "even", "odd"):
        raise P2FError(f'The part must be "all", "even" or "odd", got {part!r}.')
    table = folder / "landmarks.npz"
    if table.is_file():
        try:
            with np.load(table, allow_pickle=False) as data:
                pairs = list(zip(data["images"].tolist(), data["ibug68"], strict=True))
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise P2FError(
                f"{table} is not a table of annotated photographs: it needs the arrays images "
                f"(N,) and ibug68 (N, 68, 2) ({error})."
            ) from error
        photos = [(folder / "images" / Path(name).name, points) for name, points in pairs]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
        marked = [path for path in paths if path.with_suffix(".pts").is_file()]
        photos = [(path, read_pts(path.with_suffix(".pts"))) for path in marked]
    if not photos:
        raise P2FError(
            f"No annotated photographs in {folder}: expected landmarks.npz with images/, or "
            "pictures with a .pts file of the same name."
        )
    for path, points in photos:
        if points.shape != (68, 2):
            raise P2FError(f"{path} has landmarks of shape {points.shape}, expected (68, 2).")
    step = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}[part]
    return [AnnotatedPhoto(path, points, Box.around(points)) for path, points in photos[step]]
