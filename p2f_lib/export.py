"""Files for other programs: coloured point clouds (PLY), textured meshes (OBJ), numbers (JSON)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from p2f_lib.errors import P2FError
from p2f_lib.images import write_image


def write_ply(path: str | Path, points: np.ndarray, colors: np.ndarray) -> None:
    """Write a coloured point cloud as binary little-endian PLY.

    Parameters
    ----------
    path : str or Path
    points : (N, 3) mm, model space.
    colors : (N, 3) uint8, RGB.

    Raises
    ------
    P2FError
        The arrays don't fit each other, or the file can't be written.
    """
    points, colors = np.asarray(points), np.asarray(colors)
    if points.ndim != 2 or points.shape[1] != 3 or colors.shape != points.shape:
        raise P2FError(
            f"A point cloud needs points (N, 3) and colours (N, 3), got {points.shape} and "
            f"{colors.shape}."
        )
    if colors.dtype != np.uint8:
        raise P2FError(f"Colours of a point cloud are uint8, got {colors.dtype}.")
    names = ("x", "y", "z", "red", "green", "blue")
    records = np.empty(
        len(points), [(name, "<f4" if i < 3 else "u1") for i, name in enumerate(names)]
    )
    for i, name in enumerate(names):
        records[name] = points[:, i] if i < 3 else colors[:, i - 3]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment millimetres; x to the picture's right, y up, z out of the face",
        f"element vertex {len(points)}",
        *(f"property {'float' if i < 3 else 'uchar'} {name}" for i, name in enumerate(names)),
        "end_header\n",
    ]
    _write(Path(path), "\n".join(header).encode() + records.tobytes())


def obj_files(path: str | Path) -> tuple[Path, Path, Path]:
    """The three files of a textured mesh: OBJ, material library, texture."""
    path = Path(path)
    return path, path.with_suffix(".mtl"), path.with_name(f"{path.stem}_texture.png")


def write_obj(
    path: str | Path,
    vertices: np.ndarray,
    triangles: np.ndarray,
    texture_pixels: np.ndarray,
    texture: np.ndarray,
) -> None:
    """Write a textured mesh: `path`, with `.mtl` and `_texture.png` beside it.

    Parameters
    ----------
    path : str or Path
    vertices : (V, 3) mm, model space.
    triangles : (F, 3) vertex indices.
    texture_pixels : (V, 2) where each vertex lies in `texture`, pixels (centres at integers).
    texture : (H, W, 3) uint8, RGB.

    Raises
    ------
    P2FError
        The arrays don't fit each other, or a file can't be written.
    """
    mesh_file, material_file, texture_file = obj_files(path)
    if len(texture_pixels) != len(vertices):
        raise P2FError(
            f"A textured mesh needs one texture point a vertex, got {len(texture_pixels)} for "
            f"{len(vertices)} vertices."
        )
    height, width = texture.shape[:2]
    # In an OBJ file (0, 0) is the lower left corner of the texture, (1, 1) the upper right.
    u = (texture_pixels[:, 0] + 0.5) / width
    v = 1 - (texture_pixels[:, 1] + 0.5) / height
    uv = np.clip(np.stack([u, v], axis=1), 0, 1)
    lines = [
        "# millimetres; x to the picture's right, y up, z out of the face",
        f"mtllib {_obj_name(material_file)}",
        "usemtl face",
        *("v {:.4f} {:.4f} {:.4f}".format(*vertex) for vertex in np.asarray(vertices).tolist()),
        *("vt {:.6f} {:.6f}".format(*point) for point in uv.tolist()),
        *("f {0}/{0} {1}/{1} {2}/{2}".format(*row) for row in (np.asarray(triangles) + 1).tolist()),
    ]
    # "surrogateescape" gives file names back their own bytes where those are no UTF-8.
    material = f"newmtl face\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nmap_Kd {_obj_name(texture_file)}\n"
    write_image(texture_file, texture)
    _write(material_file, material.encode("utf-8", "surrogateescape"))
    _write(mesh_file, ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))


def _obj_name(path: Path) -> str:
    """A file name as OBJ and MTL lines can hold it: they end at a line break, whatever follows."""
    if any(character in path.name for character in "\r\n"):
        raise P2FError(f"An OBJ file cannot name {path.name!r}: there is a line break in it.")
    return path.name


def write_json(path: str | Path, document: dict) -> None:
    """Write `document` (arrays become lists) as JSON; NaN and infinities are refused.

    Raises
    ------
    P2FError
        A number is not finite, or the file can't be written.
    """
    try:
        text = json.dumps(document, default=_plain, allow_nan=False)
    except ValueError as error:
        raise P2FError(f"Cannot write {path}: a value is not finite.") from error
    _write(Path(path), (text + "\n").encode())


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no place in a JSON document.")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except (OSError, ValueError) as error:
        raise P2FError(f"Cannot write {path}: {error}.") from error
