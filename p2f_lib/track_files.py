"""What a tracked video becomes: landmark files, a table, an overlay video, meshes.

::

    <out>/projected_image_space/<clip>/000001.ljson .pts        84 points, pixels
    <out>/model_space/<clip>/000001.ljson                       84 points, mm
    <out>/ibug68/projected_image_space/<clip>/000001.ljson .pts
    <out>/ibug68/model_space/<clip>/000001.ljson
    <out>/<clip>.csv                                            a row a frame
    <out>/<clip>.avi                                            the landmarks over the video
    <out>/meshes/<clip>/000001.glb or .ply                      on request
    <out>/work/<clip>/                                          by which a run is resumed

The first folders are those of the 3D Menpo challenge, so `p2f_lib.datasets.menpo3d` reads them.
Frames without a face have no landmark file; the table says why.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from p2f_lib.crop import Box, Crop
from p2f_lib.datasets.landmark_files import write_ljson, write_pts
from p2f_lib.datasets.menpo3d import LABELS
from p2f_lib.errors import P2FError
from p2f_lib.landmarks import IBUG68_IN_MENPO84
from p2f_lib.parallel import prefetched
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.smoothing import OneEuro
from p2f_lib.track_store import ABSENT, CHUNK, STATES, UNREADABLE, known_markups
from p2f_lib.tracker import Results, camera_of, smooth_live
from p2f_lib.tracking import moving_average
from p2f_lib.video import Frame, Source, write_video

MESHES = ("glb", "ply")
# Colours of `STATES` in the overlay, RGB.
COLORS = ((60, 220, 90), (255, 200, 0), (255, 130, 0), (0, 190, 255), (200, 60, 60), (200, 60, 60))


@dataclass(frozen=True)
class Layout:
    """Where the files of a clip go."""

    out: Path
    clip: str

    def landmarks(self, markup: str, number: int) -> tuple[Path, Path, Path]:
        """2D .ljson, 2D .pts and 3D .ljson of a frame, counted from 1."""
        root = self.out if markup == "menpo84" else self.out / markup
        flat = root / "projected_image_space" / self.clip / f"{number:06d}.ljson"
        return flat, flat.with_suffix(".pts"), root / "model_space" / self.clip / flat.name

    def mesh(self, number: int, ending: str) -> Path:
        """The mesh of a frame, counted from 1."""
        return self.meshes / f"{number:06d}.{ending}"

    @property
    def meshes(self) -> Path:
        return self.out / "meshes" / self.clip

    @property
    def table(self) -> Path:
        return self.out / f"{self.clip}.csv"

    @property
    def overlay(self) -> Path:
        return self.out / f"{self.clip}.avi"

    @property
    def work(self) -> Path:
        return self.out / "work" / self.clip

    @property
    def finished(self) -> list[Path]:
        """Files and folders with results."""
        folders = [
            root / space / self.clip
            for root in (self.out, self.out / "ibug68")
            for space in ("projected_image_space", "model_space")
        ]
        return [*folders, self.meshes, self.table, self.overlay]

    def clear(self) -> None:
        """Remove what an earlier run wrote about this clip.

        Raises
        ------
        P2FError
            There is something of these names that no run wrote.
        """
        there = [path for path in self.finished if path.exists()]
        if there and not self.work.is_dir():
            raise P2FError(
                f"{there[0]} is there and not from p2f track; choose another folder or --name."
            )
        for path in [*there, self.work]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def smoothed(results: Results) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """All rows, a few at a time, and their landmarks smoothed: mark-up -> (n, L, 2) pixels."""
    rows, settings = results.rows, results.settings
    markups = [name[:-3] for name in rows.dtype.names or () if name.endswith("_2d")]
    filters = {markup: OneEuro() for markup in markups}
    reach = settings.window // 2 if settings.smoothing == "average" else 0
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        if settings.smoothing == "one-euro":
            moments = [smooth_live(row, filters, settings.smoothing) for row in chunk]
            yield chunk, {m: np.array([moment[m] for moment in moments]) for m in markups}
            continue
        first = max(start - reach, 0)
        around = rows[first : start + len(chunk) + reach]
        inner = slice(start - first, start - first + len(chunk))
        yield chunk, {m: _averaged(around, m, 2 * reach + 1)[inner] for m in markups}


def _averaged(rows: np.ndarray, markup: str, window: int) -> np.ndarray:
    """(n, L, 2): the moving average, never across scenes."""
    edges = np.flatnonzero(np.diff(rows["scene"])) + 1
    parts = np.split(rows[f"{markup}_2d"], edges)
    return np.concatenate([moving_average(part, window) for part in parts])


def write_files(
    results: Results,
    layout: Layout,
    source: Source | None,
    reconstructor: Reconstructor,
    mesh: str | None = None,
    mesh_every: int = 1,
    overlay: bool = True,
    progress: bool = True,
) -> None:
    """Write landmarks, table, overlay and meshes; files that are there stay as they are.

    Parameters
    ----------
    source
        The frames once more, for the overlay and the meshes; None where these aren't wanted.
    mesh
        ``"glb"``, ``"ply"`` or None.
    mesh_every
        For every so many frames.
    overlay
        Write the overlay video, too.
    progress
        Show a progress bar.

    Every file appears under its name only when it is whole.
    """
    if mesh is not None and source is None:
        raise P2FError("Meshes need the frames once more; a camera's can't be had again.")
    markups = known_markups(reconstructor.model)
    for markup in markups:
        for path in layout.landmarks(markup, 1):
            path.parent.mkdir(parents=True, exist_ok=True)
    if mesh is not None:
        layout.meshes.mkdir(parents=True, exist_ok=True)
    part = layout.work / "table.part"
    bar = tqdm(desc="write", total=len(results.rows), unit="frame", disable=not progress)
    with part.open("w", newline="", encoding="utf-8") as file, bar:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_columns(reconstructor))

        def moments() -> Iterator[tuple[int, np.ndarray, dict[str, np.ndarray]]]:
            number = 0
            for chunk, landmarks in smoothed(results):
                for k, row in enumerate(chunk):
                    number += 1
                    its = {markup: landmarks[markup][k] for markup in markups}
                    _write_landmarks(layout, number, row, its)
                    writer.writerow(_cells(number, row))
                    yield number, row, its
                    bar.update()

        if source is None:
            for _ in moments():
                pass
        else:
            pictures = _drawn(source, moments(), reconstructor, layout, mesh, mesh_every)
            with prefetched(pictures) as ready:  # drawn and written beside the encoding
                if overlay:
                    whole = layout.work / "overlay.avi"
                    write_video(whole, ready, fps=results.fps)
                    os.replace(whole, layout.overlay)
                else:
                    for _ in ready:
                        pass
    os.replace(part, layout.table)


def _drawn(
    source: Source,
    moments: Iterable[tuple[int, np.ndarray, dict[str, np.ndarray]]],
    reconstructor: Reconstructor,
    layout: Layout,
    mesh: str | None,
    mesh_every: int,
) -> Iterator[np.ndarray]:
    first = next(frame.image for frame in source.frames() if frame.image is not None)
    canvas = Canvas(first)
    for frame, (number, row, landmarks) in zip(source.frames(), moments, strict=True):
        yield canvas.draw(frame, row, landmarks)
        if mesh is not None and (number - 1) % mesh_every == 0 and row["confidence"] > 0:
            path = layout.mesh(number, mesh)
            if not path.exists():
                _write_mesh(path, frame, row, reconstructor)


def _write_landmarks(
    layout: Layout, number: int, row: np.ndarray, landmarks: dict[str, np.ndarray]
) -> None:
    if not row["confidence"] > 0:
        return
    for markup, points in landmarks.items():
        flat, points_file, solid = layout.landmarks(markup, number)
        labels = _LABELS[markup]
        if not flat.exists():
            _whole(flat, lambda path: write_ljson(path, points, labels=labels, decimals=3))  # noqa: B023
        if not points_file.exists():
            _whole(points_file, lambda path: write_pts(path, points))  # noqa: B023
        if not solid.exists():
            space = row[f"{markup}_3d"]
            _whole(solid, lambda path: write_ljson(path, space, labels=labels, decimals=3))  # noqa: B023


def _labels_68() -> dict[str, list[int]]:
    places = {int(there): here for here, there in enumerate(IBUG68_IN_MENPO84)}
    return {name: [places[k] for k in points if k in places] for name, points in LABELS.items()}


_LABELS: Mapping[str, Mapping[str, Sequence[int]]] = {"menpo84": LABELS, "ibug68": _labels_68()}


def _columns(reconstructor: Reconstructor) -> list[str]:
    model = reconstructor.model
    return [
        *("frame", "time", "scene", "state", "left", "top", "right", "bottom"),
        *("yaw", "pitch", "roll", "confidence"),
        *(f"shape_{k + 1}" for k in range(model.n_shape)),
        *model.expression_names,
    ]


def _cells(number: int, row: np.ndarray) -> list[object]:
    def texts(name: str, digits: int) -> list[str]:
        return ["" if np.isnan(v) else f"{v:.{digits}f}" for v in np.atleast_1d(row[name])]

    return [
        number,
        *texts("time", 4),
        int(row["scene"]) + 1,
        STATES[int(row["state"])],
        *texts("box", 2),
        *texts("pose", 2),
        *texts("confidence", 3),
        *texts("shape", 5),
        *texts("expression", 5),
    ]


def _write_mesh(path: Path, frame: Frame, row: np.ndarray, reconstructor: Reconstructor) -> None:
    """The mesh of the row with the texture of the frame, seen once more in the fitted crop."""
    if frame.image is None:  # it could be read when it was tracked
        return
    size = reconstructor.unet.config.input_size
    left, top, side, roll = row["next_crop"].tolist()
    crop = None if np.isnan(side) else Crop(left, top, side, size, roll)
    box = Box(*row["box"].tolist())
    (face,) = reconstructor.reconstruct_many([frame.image], [box], [crop])
    if face is None:
        return
    shape, expression = row["shape"], row["expression"]
    vertices = reconstructor.model.vertices(shape, expression)
    face = replace(
        face, shape=shape, expression=expression, vertices=vertices, camera=camera_of(row)
    )
    _whole(path, lambda part: face.save(part, "mesh"))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and give it its own when it is whole."""
    part = path.with_name(f"part-{path.name}")
    try:
        write(part)
        os.replace(part, path)
    except OSError as error:
        raise P2FError(f"Cannot write {path}: {error}.") from error


class Canvas:
    """Draws frames of one size, that of a picture."""

    def __init__(self, image: np.ndarray) -> None:
        self._last = image

    def draw(self, frame: Frame, row: np.ndarray, landmarks: dict[str, np.ndarray]) -> np.ndarray:
        """The frame with box, landmarks and a line of text; the last picture where it is lost."""
        state = int(row["state"])
        color = COLORS[state]
        if frame.image is None:
            image, scale, shift = self._last // 2, 1.0, np.zeros(2)
        else:
            self._last, scale, shift = self._fitted(frame.image)
            image = self._last.copy()
        width = max(1, round(image.shape[0] / 360))
        if state not in (ABSENT, UNREADABLE):
            left, top, right, bottom = (row["box"].reshape(2, 2) * scale + shift).ravel().round()
            corners = (int(left), int(top)), (int(right), int(bottom))
            cv2.rectangle(image, *corners, color, width, cv2.LINE_AA)
            points = landmarks.get("menpo84", next(iter(landmarks.values()))) * scale + shift
            for x, y in np.round(points * 16).astype(int):  # in sixteenths of a pixel
                cv2.circle(image, (x, y), 16 * width, (255, 255, 255), -1, cv2.LINE_AA, 4)
        text = f"{frame.index + 1}  {STATES[state]}"
        if row["confidence"] > 0:
            yaw, pitch, roll = row["pose"]
            text += f"  yaw {yaw:.0f} pitch {pitch:.0f} roll {roll:.0f}  {row['confidence']:.2f}"
        size = image.shape[0] / 700
        band = round(32 * size) + 6
        image[-band:] //= 3  # so that the words can be read on any picture
        place = (6, image.shape[0] - round(10 * size) - 2)
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, color, width, cv2.LINE_AA)
        return image

    def _fitted(self, image: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """The picture in the middle of the first one's size; where a pixel goes: scale, shift."""
        if image.shape == self._last.shape:
            return image, 1.0, np.zeros(2)
        height, width = self._last.shape[:2]
        scale = min(width / image.shape[1], height / image.shape[0])
        shift = (np.array([width, height]) - scale * np.array(image.shape[1::-1])) / 2
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        return cv2.warpAffine(image, matrix, (width, height)), scale, shift
