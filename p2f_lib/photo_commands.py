"""The commands that go through photos: what `p2f reconstruct`, `pose`, `fit` and `render` do."""

from __future__ import annotations

import csv
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.export import obj_files, write_json
from p2f_lib.images import SUFFIXES, read_image, write_image

if TYPE_CHECKING:
    from p2f_lib.reconstruction import Face, Reconstructor
    from p2f_lib.rerender import View


def make_reconstructor(arguments: Namespace, engine: str = "torch") -> Reconstructor:
    """The one that the options of `_add_network` name."""
    from p2f_lib.reconstruction import Reconstructor  # loads PyTorch: seconds

    return Reconstructor.from_pretrained(
        arguments.weights, arguments.device, engine=engine, variant=arguments.variant
    )


def reconstruct(arguments: Namespace) -> int:
    """Every face of every photo, as files."""
    photos, failed = _expand(arguments.photos)
    if not photos:
        return 1
    reconstructor = make_reconstructor(arguments, arguments.engine)
    _make_folder(arguments.out)
    names = _Names(arguments.out, photos)
    stems = [names.take("_".join(photo.stem.splitlines())) for photo in photos]

    def work(number: int) -> str:
        photo, stem = photos[number], stems[number]
        if arguments.resume and _is_reconstructed(photo, names, stem):
            return f"{photo}: done before"
        return _reconstruct_photo(reconstructor, photo, stem, names, arguments.box)

    return int(_for_each(photos, work) or failed)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise P2FError(f"Cannot make the folder {folder}: {error}.") from error


def _for_each(photos: Sequence[Path], work: Callable[[int], str]) -> bool:
    """Work on every photo, by its number, and report the line that comes back; True if one failed.

    One photo's trouble never stops the others.
    """
    failed = False
    quiet = len(photos) == 1 or not sys.stderr.isatty()
    for number, photo in enumerate(tqdm(photos, unit="photo", disable=quiet)):
        try:
            tqdm.write(work(number))
        except Exception as error:
            failed = True
            say(sentence(error, photo))
    return failed


def _is_reconstructed(photo: Path, names: _Names, stem: str) -> bool:
    """Whether a run before wrote everything about a photo; the names of its files stay taken."""
    try:
        document = json.loads((names.folder / f"{stem}.json").read_text(encoding="utf-8"))
        done = document["photo"] == str(photo)
        for number in range(2, len(document["faces"]) + 1 if done else 2):
            names.take(f"{stem}_{number}")
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return done


def _reconstruct_photo(
    reconstructor: Reconstructor,
    photo: Path,
    stem: str,
    names: _Names,
    box: Sequence[float] | None,
) -> str:
    """Write everything about one photo; returns the line that reports it."""
    image = read_image(photo)
    faces = reconstructor(image) if box is None else [reconstructor.reconstruct(image, box)]
    if not faces:
        raise NoFaceError("No face was found; give its box with --box if there is one.")
    document: dict = {
        "photo": str(photo),
        "width": image.shape[1],
        "height": image.shape[0],
        "faces": [],
    }
    for number, face in enumerate(faces, start=1):
        name = stem if number == 1 else names.take(f"{stem}_{number}")
        files = {"point_cloud": f"{name}.ply", "mesh": f"{name}.obj", "glb": f"{name}.glb"}
        for file in files.values():
            face.save(names.folder / file)
        document["faces"].append({**face.to_dict(), **files})
    path = names.folder / f"{stem}.json"
    write_json(path, document)
    return f"{photo}: {_summary(faces)} -> {path}"


POSE_COLUMNS = ["photo", "yaw", "pitch", "roll", "confidence", "left", "top", "right", "bottom"]


def pose(arguments: Namespace) -> int:
    """A table of head poses."""
    photos, failed = _expand(arguments.photos)
    done = _photos_in(arguments.out)
    photos = [photo for photo in photos if str(photo) not in done]
    if done:
        print(f"{arguments.out} has {len(done)} photos already; {len(photos)} are left.")
    if not photos:
        return int(failed)
    _make_folder(arguments.out.parent)
    reconstructor = make_reconstructor(arguments)
    with arguments.out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(POSE_COLUMNS)

        def work(number: int) -> str:
            face = reconstructor.reconstruct(read_image(photos[number]))
            angles = [f"{angle:.1f}" for angle in (face.pose.yaw, face.pose.pitch, face.pose.roll)]
            box = [f"{side:.1f}" for side in face.box.as_tuple()]
            writer.writerow([photos[number], *angles, f"{face.confidence:.3f}", *box])
            file.flush()  # an interrupted run goes on after it
            return f"{photos[number]}: yaw {angles[0]}, pitch {angles[1]}, roll {angles[2]}"

        return int(_for_each(photos, work) or failed)


def _photos_in(table: Path) -> set[str]:
    """The photos of a table of poses; a line that an interrupted run left unfinished is cut off."""
    if not table.exists() or not table.stat().st_size:
        return set()
    try:
        text = table.read_bytes().decode()
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.reader(whole.splitlines()))
    except (OSError, ValueError, csv.Error):
        rows = []
    if not rows or rows[0] != POSE_COLUMNS:
        raise P2FError(
            f"{table} is no table of poses; its first line has to be {','.join(POSE_COLUMNS)}."
        )
    if whole != text:
        table.write_bytes(whole.encode())
    return {row[0] for row in rows[1:]}


def fit(arguments: Namespace) -> int:
    """One mesh from the photos of one person."""
    from p2f_lib.export import write_glb, write_obj
    from p2f_lib.reconstruction import neutral_mesh, share_shape

    photos, failed = _expand(arguments.photos)
    if not photos:
        return 1
    reconstructor = make_reconstructor(arguments)
    found: dict[Path, Face] = {}

    def work(number: int) -> str:
        found[photos[number]] = reconstructor.reconstruct(read_image(photos[number]))
        return f"{photos[number]}: {_summary([found[photos[number]]])}"

    failed |= _for_each(photos, work)
    if not found:
        return 1
    faces = share_shape(list(found.values()), reconstructor.fitter)
    _make_folder(arguments.out)
    path = arguments.out / f"{_Names(arguments.out, photos).take(arguments.name)}.glb"
    mesh = neutral_mesh(faces)
    write_glb(path, mesh)
    write_obj(path.with_suffix(".obj"), mesh)
    document = {
        "shape": faces[0].shape.round(5),
        "photos": {str(photo): face.to_dict() for photo, face in zip(found, faces, strict=True)},
    }
    write_json(path.with_suffix(".json"), document)
    print(f"{len(faces)} photos -> {path}")
    return int(failed)


def render(arguments: Namespace) -> int:
    """Photos with the head turned, another expression, light or face."""
    from p2f_lib import rerender

    wishes = ("yaw", "pitch", "roll", "expression", "light", "blend", "jitter")
    if all(getattr(arguments, wish) is None for wish in wishes):
        raise P2FError(
            f"Nothing to change: give at least one of {', '.join(f'--{wish}' for wish in wishes)}."
        )
    if arguments.jitter is not None:
        if arguments.jitter < 1:
            raise P2FError(f"--jitter needs a number of at least 1, got {arguments.jitter}.")
        for wish in ("yaw", "pitch", "roll", "expression"):
            if getattr(arguments, wish) is not None:
                raise P2FError(f"--jitter draws pose and expression itself; leave out --{wish}.")
    light = None if arguments.light is None else rerender.named_light(arguments.light)
    photos, failed = _expand(arguments.photos)
    if not photos:
        return 1
    reconstructor = make_reconstructor(arguments)
    model_face, other = None, None
    if arguments.expression not in (None, "neutral", "smile"):
        model_face = reconstructor.reconstruct(read_image(arguments.expression))
    if arguments.blend is not None:
        picture = read_image(arguments.blend)
        other = (reconstructor.reconstruct(picture), picture, arguments.share)
    _make_folder(arguments.out)
    count = arguments.jitter or 1
    ends = [".png"] if arguments.jitter is None else [f"_{i + 1}.png" for i in range(count)]
    names = _Names(arguments.out, photos, lambda path: [Path(f"{path}{end}") for end in ends])
    stems = [names.take("_".join(photo.stem.splitlines())) for photo in photos]

    def work(number: int) -> str:
        files = [arguments.out / f"{stems[number]}{end}" for end in ends]
        if arguments.resume and all(map(_is_picture, files)):
            return f"{photos[number]}: done before"
        image = read_image(photos[number])
        face = reconstructor.reconstruct(image)
        shown = face if other is None else rerender.between(face, other[0], other[2])
        if arguments.jitter is None:
            views = [_view(arguments, shown, model_face)]
        else:
            rng = np.random.default_rng([arguments.seed, number])
            yaws = tuple(arguments.jitter_yaw)
            views = [rerender.jittered_view(shown, rng, yaws) for _ in range(count)]
        for file, view in zip(files, views, strict=True):
            write_image(file, rerender.rerendered(face, image, view, light, other))
        pictures = "1 picture" if count == 1 else f"{count} pictures"
        return f"{photos[number]}: {pictures} -> {files[0]}"

    return int(_for_each(photos, work) or failed)


def _is_picture(path: Path) -> bool:
    """Whether there is a whole picture; an interrupted run may leave half of one."""
    try:
        return read_image(path) is not None
    except P2FError:
        return False


def _view(arguments: Namespace, face: Face, model_face: Face | None) -> View:
    """What `p2f render` was asked to show of a face; `model_face` has the expression."""
    from p2f_lib import rerender

    expression: np.ndarray | None = face.expression
    if model_face is not None:
        expression = rerender.transferred_expression(face, model_face)
    elif arguments.expression == "smile":
        expression = rerender.smile(face)
    elif arguments.expression == "neutral":
        expression = None
    pose = rerender.posed(face, arguments.yaw, arguments.pitch, arguments.roll, arguments.relative)
    return replace(pose, vertices=rerender.expressed(face, expression).vertices)


def _summary(faces: Sequence[Face]) -> str:
    best = faces[0]
    count = "1 face" if len(faces) == 1 else f"{len(faces)} faces, the best one"
    yaw, pitch, roll = (round(float(v)) for v in (best.pose.yaw, best.pose.pitch, best.pose.roll))
    return (
        f"{count} at yaw {yaw}, pitch {pitch}, roll {roll} degrees, "
        f"confidence {best.confidence:.2f}"
    )


class _Names:
    """Hands out names for results such that none overwrites another one or a photo."""

    def __init__(
        self,
        folder: Path,
        photos: Sequence[Path],
        files: Callable[[Path], list[Path]] | None = None,
    ) -> None:
        self.folder = folder
        self._files_of = files or _face_files
        self._photos = {photo.resolve() for photo in photos}
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        candidate, number = name, 1
        while self._clashes(candidate):
            number += 1
            candidate = f"{name}-{number}"
        self._taken |= {path.name.casefold() for path in self._files(candidate)}
        return candidate

    def _clashes(self, name: str) -> bool:
        files = self._files(name)
        return any(
            path.name.casefold() in self._taken or path.resolve() in self._photos for path in files
        )

    def _files(self, name: str) -> list[Path]:
        return self._files_of(self.folder / name)


def _face_files(path: Path) -> list[Path]:
    """What `p2f reconstruct` writes of a face."""
    return [
        path.with_name(f"{path.name}.json"),
        path.with_name(f"{path.name}.ply"),
        path.with_name(f"{path.name}.glb"),
        *obj_files(path.with_name(f"{path.name}.obj")),
    ]


def _expand(paths: Sequence[Path]) -> tuple[list[Path], bool]:
    """Photos in order, each once, folders replaced by their pictures; True if a folder had none."""
    photos: dict[Path, Path] = {}
    failed = False
    for path in paths:
        try:
            found = _pictures(path) if path.is_dir() else [path]
            if not found:
                raise P2FError("There is no picture in this folder.")
            for photo in found:
                photos.setdefault(photo.resolve(), photo)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a ring
            failed = True
            say(sentence(error, path))
    return list(photos.values()), failed


def _pictures(folder: Path) -> list[Path]:
    """The picture files in a folder, by name, without the textures of meshes beside them."""
    textures = {obj_files(mesh)[2].name for mesh in folder.glob("*.obj")}
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.name not in textures and path.is_file()
    )


def sentence(error: Exception, path: Path | None = None) -> str:
    """One line on what went wrong, naming the file that it is about."""
    text = " ".join(str(error).split())
    if not isinstance(error, P2FError):
        text = f"Unexpected {type(error).__name__}: {text or 'no details'}"
    return text if path is None or str(path) in text else f"{path}: {text}"


def say(sentence: str) -> None:
    """On stderr, beside progress bars."""
    tqdm.write(f"p2f: {sentence}", file=sys.stderr)
