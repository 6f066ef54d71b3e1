"""Annotated photographs of the challenge's static set and of 300-W.

::

    <root>/[<set>/]projected_image_space/<stem>.ljson   84 points, pixels
    <root>/[<set>/]model_space/<stem>.ljson             84 points, mm; optional
    <root>/[<set>/].../<stem>.jpg                       the photographs, at any depth

or, as 300-W and menpo's own loaders have it, a ``.ljson`` or ``.pts`` file beside each picture, of
68 or 84 points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from p2f_lib.datasets.landmark_files import read_landmarks
from p2f_lib.datasets.menpo3d import PICTURES, x_first
from p2f_lib.errors import P2FError
from p2f_lib.images import read_image
from p2f_lib.landmarks import MARKUPS

PROJECTED, MODEL = "projected_image_space", "model_space"
BESIDE = (".ljson", ".pts")


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Annotated photographs that have nothing to do with each other.

    Attributes
    ----------
    name
        Of the set.
    paths
        F pictures, sorted.
    projected
        (F, L, 2) pixels, 0-based, x right, y down; NaN where unknown.
    model
        (F, 84, 3) model space, mm; None where the set has none.
    problems
        A sentence for each picture that was left out because its annotation is broken.
    """

    name: str
    paths: tuple[Path, ...]
    projected: np.ndarray
    model: np.ndarray | None
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The pictures, uint8 RGB (H, W, 3), read one at a time."""
        return map(read_image, self.paths)

    def take(self, rows: Sequence[int]) -> PictureSet:
        """A part of the pictures, by their places."""
        rows = list(rows)
        model = None if self.model is None else self.model[rows]
        paths = tuple(self.paths[row] for row in rows)
        return replace(self, paths=paths, projected=self.projected[rows], model=model)

    def readable(self) -> PictureSet:
        """The set without the pictures that can't be read; they are named.

        Raises
        ------
        P2FError
            None of them can.
        """
        rows, problems = [], list(self.problems)
        for row, path in enumerate(self.paths):
            try:
                read_image(path)
                rows.append(row)
            except P2FError as error:
                problems.append(str(error))
        if not rows:
            raise P2FError(f"No picture of the set {self.name} can be read: {problems[-1]}")
        return replace(self.take(rows), problems=tuple(problems))

    @property
    def frames(self) -> tuple[str, ...]:
        """Their names without endings."""
        return tuple(path.stem for path in self.paths)


def set_names(root: str | Path) -> list[str]:
    """Names of the annotated sets under `root`, sorted; "." for `root` itself.

    Raises
    ------
    P2FError
        There is none.
    """
    root = Path(root)
    if _annotations(root, "."):
        return ["."]
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    names = [path.name for path in folders if _annotations(root, path.name)]
    if not names:
        raise P2FError(
            f"{root} holds no annotated photographs: expected a folder {PROJECTED} beside the "
            f"pictures, or a .ljson or .pts file beside each, here or one folder below."
        )
    return names


def read_set(root: str | Path, name: str) -> PictureSet:
    """One set; pictures with a broken annotation are left out and named.

    Raises
    ------
    P2FError
        No picture of it can be used.
    """
    folder = Path(root, name)
    has_model = (folder / MODEL).is_dir() and (folder / PROJECTED).is_dir()
    rows: list[tuple[Path, np.ndarray, np.ndarray | None]] = []
    problems = []
    for picture, file in _annotations(Path(root), name):
        try:
            points = _checked(file, None if not rows else len(rows[0][1]))
            space = _space(folder / MODEL / file.name, len(points)) if has_model else None
        except P2FError as error:
            problems.append(str(error))
            continue
        rows.append((picture, points, space))
    if not rows:
        reason = problems[0] if problems else f"{folder} holds no annotated pictures."
        raise P2FError(f"No picture of the set {name} can be used: {reason}")
    paths, points, spaces = zip(*rows, strict=True)
    model = np.stack(spaces) if has_model else None
    return PictureSet(name, paths, np.stack(points), model, tuple(problems))


def _annotations(root: Path, name: str) -> list[tuple[Path, Path]]:
    """Pairs of a picture and its landmark file, sorted by the picture."""
    folder = root / name
    apart = (folder / PROJECTED).is_dir()
    deep = apart or name != "."  # what lies in folders without more ado are sets of their own
    paths = (folder.rglob if deep else folder.glob)("*")
    pictures = sorted(path for path in paths if path.suffix.lower() in PICTURES)
    pairs = []
    for picture in pictures:
        beside = [picture.with_suffix(ending) for ending in BESIDE]
        files = [folder / PROJECTED / f"{picture.stem}.ljson"] if apart else beside
        pairs += [(picture, file) for file in files if file.is_file()][:1]
    return pairs


def _checked(file: Path, count: int | None) -> np.ndarray:
    points = read_landmarks(file)
    if points.shape[1] != 2 or len(points) not in MARKUPS.values():
        raise P2FError(f"{file} must hold 68 or 84 points of 2 axes, got {points.shape}.")
    if count not in (None, len(points)):
        raise P2FError(f"{file} holds {len(points)} points, the files before it {count}.")
    return points


def _space(file: Path, count: int) -> np.ndarray:
    points = read_landmarks(file)
    if points.shape != (84, 3) or count != 84:
        raise P2FError(f"{file} must hold 84 points of 3 axes, got {points.shape}.")
    return x_first(points)
