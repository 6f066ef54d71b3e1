"""Where the clips of the evaluation come from: `params.yaml: evaluate.source`.

"synthetic" are the clips of this repository, which know their truth; "menpo3d" is the challenge's
own data; "menpo-static" are its photographs, or those of 300-W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2f_lib.datasets.clips import MODEL_FILE, ClipTruth, read_truth
from p2f_lib.datasets.menpo3d import Clip, clip_names, read_clip
from p2f_lib.datasets.menpo_static import PictureSet, read_set, set_names
from p2f_lib.errors import P2FError

CHALLENGE = "https://ibug.doc.ic.ac.uk/resources/1st-3d-face-tracking-wild-competition/"


@dataclass(frozen=True)
class Place:
    """Where a source lies by default, and what to put there."""

    folder: str
    needs: str


PLACES = {
    "synthetic": Place(
        "data/menpo3d_synthetic", "It belongs to the repository: `dvc pull data.dvc` fetches it."
    ),
    "menpo3d": Place(
        "data/menpo3d",
        "Put the challenge's folder final_published there (its organisers give it for research, on "
        f"request: {CHALLENGE}) and the videos of 300VW as 300VW/<clip>/vid.avi "
        "(https://ibug.doc.ic.ac.uk/resources/300-VW/, research only).",
    ),
    "menpo-static": Place(
        "data/menpo_static",
        "Put photographs there with projected_image_space/ and model_space/ of the challenge "
        f"({CHALLENGE}, on request, research only), or with the .pts files of 300-W "
        "(https://ibug.doc.ic.ac.uk/resources/300-W/, research only).",
    ),
}


@dataclass(frozen=True)
class ClipSource:
    """Annotated clips, or sets of photographs, under a folder; see `open_source`.

    Attributes
    ----------
    kind : a key of `PLACES`.
    root : their folder.
    """

    kind: str
    root: Path

    def names(self) -> list[str]:
        """Of the clips, sorted."""
        return set_names(self.root) if self.kind == "menpo-static" else clip_names(self.root)

    def read(self, name: str) -> Clip | PictureSet:
        """A clip with its annotations; its pictures are read later.

        Raises
        ------
        P2FError
            A part of it is missing or broken.
        """
        return (read_set if self.kind == "menpo-static" else read_clip)(self.root, name)

    def truth(self, name: str) -> ClipTruth | None:
        """What a clip was rendered from, None where nobody knows."""
        there = (self.root / "truth" / f"{name}.npz").is_file() and self.truth_model.is_file()
        return read_truth(self.root, name) if there else None

    def picture(self, name: str, frame: int | str) -> np.ndarray:
        """One annotated frame of a clip by its number or name, uint8 RGB (H, W, 3)."""
        clip = self.read(name)
        return next(iter(clip.take([clip.frames.index(frame)])))

    @property
    def command(self) -> str:
        """That evaluates this source."""
        if self.kind == "synthetic":
            return "dvc repro evaluate"
        return f"dvc exp run -S evaluate.source={self.kind}"

    @property
    def truth_model(self) -> Path:
        """The face model that the clips with a truth were made from."""
        return self.root / MODEL_FILE


def open_source(parameters: Mapping[str, Any], root: str | Path = ".") -> ClipSource:
    """The source of the group `evaluate` of params.yaml.

    Parameters
    ----------
    parameters : with the entries `source` and `root`; null is the source's own place.
    root : the folder that paths are relative to.

    Raises
    ------
    P2FError
        An unknown source, or its folder isn't there: the message says where to get it.
    """
    kind = parameters["source"]
    if kind not in PLACES:
        raise P2FError(f"Unknown evaluate.source {kind!r}; known are {', '.join(PLACES)}.")
    given = parameters["root"] or PLACES[kind].folder
    folder = Path(root) / given
    if not folder.is_dir():
        raise P2FError(
            f"There is no folder {given} with the source {kind}. {PLACES[kind].needs} "
            "Data elsewhere: evaluate.root."
        )
    return ClipSource(kind, folder)
