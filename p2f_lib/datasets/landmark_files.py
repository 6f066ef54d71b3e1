"""Landmark files: menpo's .ljson (versions 1 to 3) and .pts.

On disk .ljson stores the axes as (y, x) or (y, x, z), 0-based, and .pts stores x before y, 1-based.
In memory points are (N, 2) or (N, 3) float64, x first, 0-based; an unknown coordinate is NaN.
The files may come from anywhere: they are read as plain data and refused when they are too long.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from p2f_lib.errors import P2FError

MAX_BYTES = 16 * 2**20
"""Longer files are refused; 84 points take about 5 kB."""

Labels = Mapping[str, Sequence[int] | np.ndarray]


def read_landmarks(path: str | Path) -> np.ndarray:
    """The (N, 2) or (N, 3) points of a .ljson or .pts file, x first, 0-based, NaN where unknown.

    Raises
    ------
    P2FError
        If there is no such file, its ending is unknown or its content is broken.
    """
    path = Path(path)
    reader = {".ljson": read_ljson, ".pts": read_pts}.get(path.suffix.lower())
    if reader is None:
        raise P2FError(f"{path} has no known ending; landmark files end in .ljson or .pts.")
    return reader(path)


def read_ljson(path: str | Path, group: str | None = None) -> np.ndarray:
    """Points of an .ljson file of version 1, 2 or 3.

    Parameters
    ----------
    path
        The file; at most 16 MiB.
    group
        Version 3 may hold several groups of points: which one. Not needed when there is one.

    Returns
    -------
    (N, 2) or (N, 3) float64, x first; NaN where the file has null. Version 1 stores points by
    label; they come in the file's order.

    Raises
    ------
    P2FError
        If the file is missing, too long, or not what the format says.
    """
    path = Path(path)
    text = _read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise P2FError(f"{path} is not valid JSON ({error}).") from None
    version = content.get("version") if isinstance(content, dict) else None
    try:
        if version == 1:
            rows = [mark["point"] for part in content["groups"] for mark in part["landmarks"]]
        elif version == 2:
            rows = content["landmarks"]["points"]
        elif version == 3:
            rows = _choose_group(path, content["groups"], group)["landmarks"]["points"]
        else:
            raise P2FError(f"{path} is no .ljson file of version 1, 2 or 3 (version {version!r}).")
    except (KeyError, TypeError, AttributeError) as error:
        raise P2FError(
            f"{path} says it is an .ljson file of version {version}, but its structure is another "
            f"({type(error).__name__}: {error})."
        ) from None
    return _points_from_rows(path, rows)


def write_ljson(
    path: str | Path,
    points: np.ndarray,
    *,
    version: int = 2,
    labels: Labels | None = None,
    group: str = "LJSON",
    decimals: int = 4,
) -> None:
    """Write points as .ljson; the same points give the same bytes.

    Parameters
    ----------
    path
        The file; its folder must exist.
    points
        (N, 2) or (N, 3), x first; NaN is written as null.
    version
        1, 2 (the challenge's files) or 3 (what menpo writes today).
    labels
        Name -> indices of its points; by default one label "all". Version 1 stores points by
        label, so there the labels must part the points, in their order.
    group
        Version 3: name of the group.
    decimals
        Digits after the point.
    """
    points = _checked(points, dimensions=(2, 3))
    labels = {"all": range(len(points))} if labels is None else labels
    masks = {name: [int(index) for index in indices] for name, indices in labels.items()}
    if any(not 0 <= index < len(points) for mask in masks.values() for index in mask):
        raise P2FError(f"A label names a point outside 0..{len(points) - 1}.")
    rows = [
        [round(value, decimals) if math.isfinite(value) else None for value in row]
        for row in _swap_xy(points).tolist()
    ]
    body = {
        "landmarks": {"points": rows},
        "labels": [{"label": name, "mask": mask} for name, mask in masks.items()],
    }
    content: dict[str, Any]
    if version == 1:
        if [index for mask in masks.values() for index in mask] != list(range(len(points))):
            raise P2FError("Version 1 stores points by label: every point in one label, in order.")
        content = {
            "version": 1,
            "groups": [
                {
                    "label": name,
                    "landmarks": [{"point": rows[index]} for index in mask],
                    "connectivity": [],
                }
                for name, mask in masks.items()
            ],
        }
    elif version == 2:
        content = {"version": 2} | body
    elif version == 3:
        content = {"version": 3, "groups": {group: body}}
    else:
        raise P2FError(f"There is no .ljson version {version!r}; choose 1, 2 or 3.")
    Path(path).write_text(json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n")


def read_pts(path: str | Path) -> np.ndarray:
    """(N, 2) points of a .pts file (1-based on disk, 0-based here).

    Raises
    ------
    P2FError
        If the file is missing, too long, or not what the format says.
    """
    path = Path(path)
    lines = [line.strip() for line in _read_text(path).splitlines() if line.strip()]
    try:
        start, stop = lines.index("{"), lines.index("}")
    except ValueError:
        raise P2FError(
            f"{path} is no .pts file: its points must stand between {{ and }}."
        ) from None
    header = dict(line.replace(" ", "").split(":", 1) for line in lines[:start] if ":" in line)
    rows = [line.split() for line in lines[start + 1 : stop]]
    if header.get("n_points", str(len(rows))) != str(len(rows)):
        raise P2FError(f"{path} announces {header['n_points']} points but holds {len(rows)}.")
    try:
        points = np.array([[float(x), float(y)] for x, y in rows]).reshape(-1, 2)
    except ValueError:
        raise P2FError(f"{path} has a line that is not two numbers, x and y.") from None
    return _finite_or_nan(points) - 1.0


def write_pts(path: str | Path, points: np.ndarray) -> None:
    """Write (N, 2) points as .pts, three digits after the point, NaN as nan."""
    points = _checked(points, dimensions=(2,)) + 1.0
    rows = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points)
    Path(path).write_text(f"version: 1\nn_points: {len(points)}\n{{\n{rows}}}\n")


# --- helpers --------------------------------------------------------------------------------------


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)  # bounded, whatever the file system says of its size
    except OSError as error:
        raise P2FError(f"Cannot read {path}: {error.strerror}.") from None
    if len(data) > MAX_BYTES:
        raise P2FError(f"{path} is longer than {MAX_BYTES // 2**20} MiB; this is no landmark file.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise P2FError(f"{path} is not a text file.") from None


def _choose_group(path: Path, groups: dict[str, Any], group: str | None) -> Any:
    if group is None and len(groups) == 1:
        return next(iter(groups.values()))
    if group not in groups:
        raise P2FError(f"{path} holds the groups {sorted(groups)}; name one of them.")
    return groups[group]


def _points_from_rows(path: Path, rows: Any) -> np.ndarray:
    rows = rows if isinstance(rows, list) else []
    sizes = {len(row) if isinstance(row, list) else 0 for row in rows}
    if sizes not in ({2}, {3}):
        raise P2FError(f"{path} must hold a list of points, all (y, x) or all (y, x, z).")
    if any(not _is_number_or_null(value) for row in rows for value in row):
        raise P2FError(f"{path} has a coordinate that is neither a number nor null.")
    try:
        points = np.array(rows, dtype=float)  # null becomes NaN
    except OverflowError:
        raise P2FError(f"{path} has a coordinate beyond all pictures.") from None
    return _swap_xy(_finite_or_nan(points))


def _is_number_or_null(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _finite_or_nan(points: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(points), points, np.nan)


def _swap_xy(points: np.ndarray) -> np.ndarray:
    return points[:, [1, 0, *range(2, points.shape[1])]]


def _checked(points: np.ndarray, dimensions: tuple[int, ...]) -> np.ndarray:
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] not in dimensions or len(points) == 0:
        wanted = " or ".join(f"(N, {dimension})" for dimension in dimensions)
        raise P2FError(f"Points must have the shape {wanted}, got {points.shape}.")
    return points
