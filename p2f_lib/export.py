"""Files for other programs: point clouds (PLY), meshes (PLY, OBJ, GLB), numbers (JSON)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from p2f_lib.errors import P2FError
from p2f_lib.images import check_image, write_image
from p2f_lib.morphable_model import vertex_normals

_FRAME = "millimetres; x to the picture's right, y up, z out of the face"


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A mesh with a picture on it.

    Attributes
    ----------
    vertices : (V, 3) mm, model space.
    triangles : (F, 3) vertex indices, counter-clockwise seen from outside.
    coordinates : (N, 2) places in the picture, u right and v up, 0..1 from edge to edge. Their own
        vertices, because a seam gives one place of the surface two places in the picture.
    coordinate_triangles : (F, 3) coordinates of each triangle's corners.
    image : (H, W, 3) uint8, RGB.

    Raises
    ------
    P2FError
        The arrays don't fit each other.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    coordinates: np.ndarray
    coordinate_triangles: np.ndarray
    image: np.ndarray

    def __post_init__(self) -> None:
        check_image(self.image)
        for corners, points, width, what in (
            (self.triangles, self.vertices, 3, "vertices"),
            (self.coordinate_triangles, self.coordinates, 2, "texture coordinates"),
        ):
            if points.ndim != 2 or points.shape[1] != width or not np.isfinite(points).all():
                raise P2FError(
                    f"A textured mesh needs finite {what} (N, {width}), got {points.shape}."
                )
            if corners.ndim != 2 or corners.shape != self.triangles.shape or corners.shape[1] != 3:
                raise P2FError(
                    "A textured mesh needs triangles (F, 3), as many of vertices as of texture "
                    f"coordinates, got {self.triangles.shape} and {corners.shape}."
                )
            if corners.size and not 0 <= corners.min() <= corners.max() < len(points):
                raise P2FError(
                    f"Triangles of a textured mesh point outside its {len(points)} {what}."
                )

    def unshared(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corners that share vertex and coordinates as one: for programs that know no seams.

        Returns
        -------
        vertex : (M,) index into `vertices`.
        coordinate : (M,) index into `coordinates`.
        triangles : (F, 3) indices into both.
        """
        count = len(self.coordinates)
        keys = self.triangles.astype(np.int64) * count + self.coordinate_triangles
        used, triangles = np.unique(keys, return_inverse=True)
        return *np.divmod(used, count), triangles.reshape(-1, 3)

    def vertex_colors(self) -> np.ndarray:
        """(V, 3) uint8: the picture at each vertex, at one of its places where it has several."""
        place = np.zeros(len(self.vertices), np.int64)
        place[self.triangles] = self.coordinate_triangles
        height, width = self.image.shape[:2]
        u, v = self.coordinates[place].T
        column = np.clip(np.floor(u * width), 0, width - 1).astype(int)
        row = np.clip(np.floor((1 - v) * height), 0, height - 1).astype(int)
        return self.image[row, column]


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
    _write(Path(path), _ply({"vertex": _table(points=points, colors=colors)}))


def write_mesh_ply(path: str | Path, mesh: TexturedMesh) -> None:
    """Write a mesh as binary little-endian PLY: normals and colours of vertices, no texture.

    In mm, as `write_ply`; the vertices are those of `mesh`, in their order.

    Raises
    ------
    P2FError
        The file can't be written.
    """
    normals = vertex_normals(mesh.vertices, mesh.triangles)
    vertices = _table(points=mesh.vertices, normals=normals, colors=mesh.vertex_colors())
    faces = np.empty(len(mesh.triangles), [("count", "u1"), ("vertex_indices", "<i4", 3)])
    faces["count"], faces["vertex_indices"] = 3, mesh.triangles
    _write(Path(path), _ply({"vertex": vertices, "face": faces}))


_PLY_NAMES = {
    "points": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "colors": ("red", "green", "blue"),
}
_PLY_TYPES = {"<f4": "float", "|u1": "uchar"}


def _table(**columns: np.ndarray) -> np.ndarray:
    """(N,) records of PLY properties, from arrays (N, 3) under the names of `_PLY_NAMES`."""
    types = {key: "u1" if key == "colors" else "<f4" for key in columns}
    fields = [(name, types[key]) for key in columns for name in _PLY_NAMES[key]]
    records = np.empty(len(columns["points"]), fields)
    for key, array in columns.items():
        for name, column in zip(_PLY_NAMES[key], array.T, strict=True):
            records[name] = column
    return records


def _ply(elements: dict[str, np.ndarray]) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"comment {_FRAME}"]
    for element, records in elements.items():
        lines.append(f"element {element} {len(records)}")
        if element == "face":
            lines.append("property list uchar int vertex_indices")
            continue
        for name in records.dtype.names or ():
            lines.append(f"property {_PLY_TYPES[records.dtype[name].str]} {name}")
    header = "\n".join([*lines, "end_header\n"]).encode()
    return header + b"".join(records.tobytes() for records in elements.values())


def obj_files(path: str | Path) -> tuple[Path, Path, Path]:
    """The three files of a textured mesh: OBJ, material library, texture."""
    path = Path(path)
    return path, path.with_suffix(".mtl"), path.with_name(f"{path.stem}_texture.png")


def write_obj(path: str | Path, mesh: TexturedMesh) -> None:
    """Write a textured mesh: `path`, with `.mtl` and `_texture.png` beside it.

    In mm, one material without gloss.

    Raises
    ------
    P2FError
        A file can't be written, or its name has no place in an OBJ file.
    """
    mesh_file, material_file, texture_file = obj_files(path)
    corners = np.stack([mesh.triangles, mesh.coordinate_triangles], axis=2) + 1
    lines = [
        f"# {_FRAME}",
        f"mtllib {_obj_name(material_file)}",
        "usemtl face",
        *("v {:.4f} {:.4f} {:.4f}".format(*vertex) for vertex in mesh.vertices.tolist()),
        *("vt {:.6f} {:.6f}".format(*point) for point in mesh.coordinates.tolist()),
        *("f {}/{} {}/{} {}/{}".format(*row) for row in corners.reshape(-1, 6).tolist()),
    ]
    # "surrogateescape" gives file names back their own bytes where those are no UTF-8.
    material = f"newmtl face\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nmap_Kd {_obj_name(texture_file)}\n"
    write_image(texture_file, mesh.image)
    _write(material_file, material.encode("utf-8", "surrogateescape"))
    _write(mesh_file, ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))


def _obj_name(path: Path) -> str:
    """A file name as OBJ and MTL lines can hold it: they end at a line break, whatever follows."""
    if any(character in path.name for character in "\r\n"):
        raise P2FError(f"An OBJ file cannot name {path.name!r}: there is a line break in it.")
    return path.name


def write_glb(path: str | Path, mesh: TexturedMesh) -> None:
    """Write a textured mesh as one file of binary glTF 2.0, which any 3D viewer opens.

    In metres, as the format demands; y is up and the face looks along +z, as glTF wants it. The
    texture is inside as PNG, the material is rough and seen from outside only. Vertices at seams
    are doubled. The same mesh gives the same bytes.

    Raises
    ------
    P2FError
        The mesh has no triangles, or the file can't be written.
    """
    if not len(mesh.triangles):
        raise P2FError("A GLB file needs a mesh with at least one triangle, got none.")
    vertex, coordinate, triangles = mesh.unshared()
    normals = vertex_normals(mesh.vertices, mesh.triangles)[vertex]
    normals[~normals.any(axis=1)] = 0, 0, 1  # of a vertex without area; glTF wants unit length
    positions = (mesh.vertices[vertex] / 1000).astype("<f4")
    uv = (mesh.coordinates[coordinate] * [1, -1] + [0, 1]).astype("<f4")  # v runs down in glTF
    picture = BytesIO()
    Image.fromarray(mesh.image).save(picture, "PNG")

    arrays = (positions, normals.astype("<f4"), uv, triangles.astype("<u4"))
    parts = [*(array.tobytes() for array in arrays), picture.getvalue()]
    padded = [part + bytes(-len(part) % 4) for part in parts]
    starts = np.cumsum([0, *map(len, padded)]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(part)}
        for start, part in zip(starts, parts, strict=False)
    ]
    for number, view in enumerate(views[:4]):
        view["target"] = _ELEMENT_ARRAY_BUFFER if number == 3 else _ARRAY_BUFFER
    count = len(vertex)
    accessors = [
        {"bufferView": 0, "componentType": _FLOAT, "count": count, "type": "VEC3"},
        {"bufferView": 1, "componentType": _FLOAT, "count": count, "type": "VEC3"},
        {"bufferView": 2, "componentType": _FLOAT, "count": count, "type": "VEC2"},
        {"bufferView": 3, "componentType": _UNSIGNED, "count": triangles.size, "type": "SCALAR"},
    ]
    accessors[0] |= {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}
    attributes = {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}
    document = {
        "asset": {"version": "2.0", "generator": "pix2face-open"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "face"}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 3, "material": 0}]}],
        "materials": [
            {
                "name": "face",
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                },
                "doubleSided": False,
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ],
        "images": [{"bufferView": 4, "mimeType": "image/png"}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": starts[-1]}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    content = b"".join(
        struct.pack("<I4s", len(data), kind) + data
        for kind, data in ((b"JSON", text), (b"BIN\0", b"".join(padded)))
    )
    _write(Path(path), struct.pack("<4sII", b"glTF", 2, 12 + len(content)) + content)


# Numbers of OpenGL, by which glTF names types, buffers and filters.
_FLOAT, _UNSIGNED = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071


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
