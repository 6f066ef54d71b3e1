"""What other programs read must be what was written."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from p2f_lib.errors import P2FError
from p2f_lib.export import (
    TexturedMesh,
    obj_files,
    write_glb,
    write_json,
    write_mesh_ply,
    write_obj,
    write_ply,
)
from p2f_lib.images import read_image


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def mesh(rng):
    """Five vertices, of which the third has two places in the picture."""
    return TexturedMesh(
        vertices=rng.normal(0, 50, (5, 3)).astype(np.float32),
        triangles=np.array([[0, 1, 2], [2, 3, 4], [0, 2, 4]]),
        coordinates=np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.25], [0.7, 0.3]], np.float32),
        coordinate_triangles=np.array([[0, 1, 2], [5, 3, 4], [0, 2, 4]]),
        image=rng.integers(0, 256, (8, 16, 3), dtype=np.uint8),
    )


@pytest.mark.parametrize("n", [1, 1000])
def test_ply_round_trip(tmp_path, rng, n):
    points = rng.normal(0, 50, (n, 3)).astype(np.float32)
    colors = rng.integers(0, 256, (n, 3), dtype=np.uint8)
    write_ply(tmp_path / "x.ply", points, colors)
    cloud = trimesh.load(tmp_path / "x.ply")
    np.testing.assert_array_equal(cloud.vertices.astype(np.float32), points)
    np.testing.assert_array_equal(cloud.colors[:, :3], colors)


def test_ply_is_compact(tmp_path):
    write_ply(tmp_path / "x.ply", np.zeros((1000, 3)), np.zeros((1000, 3), np.uint8))
    assert (tmp_path / "x.ply").stat().st_size < 15 * 1000 + 500


def test_ply_refuses_arrays_that_do_not_fit(tmp_path):
    with pytest.raises(P2FError, match=r"\(4, 3\) and \(5, 3\)"):
        write_ply(tmp_path / "x.ply", np.zeros((4, 3)), np.zeros((5, 3), np.uint8))
    with pytest.raises(P2FError, match="uint8"):
        write_ply(tmp_path / "x.ply", np.zeros((4, 3)), np.zeros((4, 3)))


def test_mesh_ply_round_trip(tmp_path, mesh):
    write_mesh_ply(tmp_path / "x.ply", mesh)
    back = trimesh.load(tmp_path / "x.ply", process=False)
    np.testing.assert_array_equal(back.vertices.astype(np.float32), mesh.vertices)
    np.testing.assert_array_equal(back.faces, mesh.triangles)
    np.testing.assert_array_equal(back.visual.vertex_colors[:, :3], mesh.vertex_colors())
    # trimesh computes normals of its own; the file's follow the positions of each record.
    data = (tmp_path / "x.ply").read_bytes()
    records = data[data.index(b"end_header\n") + 11 :][: 5 * 27]
    normals = np.array([struct.unpack_from("<3f", records, 27 * i + 12) for i in range(5)])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, rtol=1e-5)
    assert normals[1] @ back.face_normals[0] == pytest.approx(1, abs=1e-4)  # its only triangle


def test_colors_of_vertices_are_those_of_the_picture(mesh):
    colors = mesh.vertex_colors()
    # Corners of the picture: u runs to the right and v up, from edge to edge.
    np.testing.assert_array_equal(colors[[0, 1, 3]], mesh.image[[7, 7, 0], [0, 15, 15]])
    np.testing.assert_array_equal(colors[4], mesh.image[6, 8])


@pytest.mark.parametrize("name", ["mesh.obj", "two words.obj", "Gesicht_ä.obj", "a.b.obj"])
def test_obj_round_trip(tmp_path, mesh, name):
    write_obj(tmp_path / name, mesh)
    check_corners(trimesh.load(tmp_path / name, process=False), mesh, scale=1)


def test_obj_keeps_the_numbers_of_vertices(tmp_path, mesh):
    write_obj(tmp_path / "x.obj", mesh)
    lines = [line.split() for line in (tmp_path / "x.obj").read_text().splitlines()]
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], float)
    np.testing.assert_allclose(vertices, mesh.vertices, atol=1e-4)
    faces = [[part.split("/")[0] for part in line[1:]] for line in lines if line[0] == "f"]
    np.testing.assert_array_equal(np.array(faces, int) - 1, mesh.triangles)


def check_corners(back, mesh, scale):
    """Every corner lies where it did and bears its place in the picture; so does the picture."""
    assert len(back.vertices) == 6  # five, and one once more at the seam
    np.testing.assert_allclose(
        scale * back.vertices[back.faces], mesh.vertices[mesh.triangles], atol=1e-3
    )
    np.testing.assert_allclose(
        back.visual.uv[back.faces], mesh.coordinates[mesh.coordinate_triangles], atol=1e-5
    )
    material = back.visual.material
    image = material.image if hasattr(material, "image") else material.baseColorTexture
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), mesh.image)


def test_obj_files_are_the_files_written(tmp_path, mesh):
    path = tmp_path / "mesh.obj"
    write_obj(path, replace(mesh, image=np.zeros((2, 2, 3), np.uint8)))
    assert set(tmp_path.iterdir()) == set(obj_files(path))
    assert not read_image(obj_files(path)[2]).any()


def test_obj_refuses_names_with_line_breaks(tmp_path, mesh):
    with pytest.raises(P2FError, match="line break"):
        write_obj(tmp_path / "x\ny.obj", mesh)


def test_glb_round_trip_in_metres(tmp_path, mesh):
    write_glb(tmp_path / "x.glb", mesh)
    (back,) = trimesh.load(tmp_path / "x.glb", process=False).geometry.values()
    check_corners(back, mesh, scale=1000)
    lengths = np.linalg.norm(back.vertex_normals, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def glb_parts(path):
    """The JSON document and the binary chunk, every length in the headers checked."""
    data = path.read_bytes()
    assert struct.unpack_from("<4sII", data) == (b"glTF", 2, len(data))
    chunks, at = {}, 12
    while at < len(data):
        length, kind = struct.unpack_from("<I4s", data, at)
        assert length % 4 == 0
        chunks[kind] = data[at + 8 : at + 8 + length]
        at += 8 + length
    assert at == len(data)
    assert list(chunks) == [b"JSON", b"BIN\0"]
    return json.loads(chunks[b"JSON"]), chunks[b"BIN\0"]


def test_glb_keeps_to_the_letter_of_gltf(tmp_path, mesh):
    write_glb(tmp_path / "x.glb", mesh)
    document, binary = glb_parts(tmp_path / "x.glb")
    assert document["asset"]["version"] == "2.0"
    assert document["buffers"] == [{"byteLength": len(binary)}]
    end = 0
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert end <= view["byteOffset"] < end + 4
        end = view["byteOffset"] + view["byteLength"]
    assert end <= len(binary) < end + 4
    views = document["bufferViews"]
    sizes = {"VEC3": 12, "VEC2": 8, "SCALAR": 4}
    for accessor in document["accessors"]:
        view = views[accessor["bufferView"]]
        assert view["byteLength"] == accessor["count"] * sizes[accessor["type"]]
    position, _, uv, index = document["accessors"]
    values = np.frombuffer(binary, "<f4", 3 * position["count"]).reshape(-1, 3)
    np.testing.assert_array_equal(np.float32(position["min"]), values.min(axis=0))
    np.testing.assert_array_equal(np.float32(position["max"]), values.max(axis=0))
    assert index["componentType"] == 5125
    indices = np.frombuffer(binary, "<u4", index["count"], views[3]["byteOffset"])
    assert set(indices) == set(range(position["count"]))
    # In glTF the second texture coordinate runs down.
    places = np.frombuffer(binary, "<f4", 2 * uv["count"], views[2]["byteOffset"]).reshape(-1, 2)
    expected = mesh.coordinates[mesh.coordinate_triangles.ravel()] * [1, -1] + [0, 1]
    np.testing.assert_allclose(places[indices], expected, atol=1e-6)
    picture = views[document["images"][0]["bufferView"]]
    assert binary[picture["byteOffset"] :].startswith(b"\x89PNG")
    (material,) = document["materials"]
    assert not material["doubleSided"]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0


def test_glb_bytes_depend_on_the_mesh_alone(tmp_path, mesh):
    paths = [tmp_path / f"{i}.glb" for i in range(3)]
    for path, shown in zip(paths, (mesh, mesh, replace(mesh, image=mesh.image[::-1])), strict=True):
        write_glb(path, shown)
    first, second, other = (path.read_bytes() for path in paths)
    assert first == second != other


def test_glb_normals_have_unit_length_even_without_area(tmp_path, mesh):
    write_glb(tmp_path / "x.glb", replace(mesh, vertices=np.zeros((5, 3), np.float32)))
    document, binary = glb_parts(tmp_path / "x.glb")
    view = document["bufferViews"][1]
    normals = np.frombuffer(binary, "<f4", view["byteLength"] // 4, view["byteOffset"])
    np.testing.assert_array_equal(normals.reshape(-1, 3), np.tile([0, 0, 1], (6, 1)))


def test_glb_needs_triangles(tmp_path, mesh):
    none = np.zeros((0, 3), int)
    with pytest.raises(P2FError, match="at least one triangle"):
        write_glb(tmp_path / "x.glb", replace(mesh, triangles=none, coordinate_triangles=none))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vertices": np.zeros((5, 2))}, r"vertices \(N, 3\), got \(5, 2\)"),
        ({"vertices": np.full((5, 3), np.nan)}, "finite vertices"),
        ({"coordinates": np.zeros((6, 3))}, r"texture coordinates \(N, 2\)"),
        ({"coordinate_triangles": np.zeros((2, 3), int)}, r"got \(3, 3\) and \(2, 3\)"),
        ({"triangles": np.full((3, 3), 5)}, "outside its 5 vertices"),
        ({"coordinate_triangles": np.full((3, 3), -1)}, "outside its 6 texture coordinates"),
        ({"image": np.zeros((2, 2, 3))}, "float64"),
    ],
)
def test_meshes_whose_parts_do_not_fit_are_refused(mesh, change, match):
    with pytest.raises(P2FError, match=match):
        replace(mesh, **change)


def test_json_round_trip(tmp_path):
    document = {
        "a": np.arange(3),
        "b": {"c": np.float32(0.5), "d": np.array([True])},
        "e": "ä\udcff",
    }
    write_json(tmp_path / "x.json", document)
    back = json.loads((tmp_path / "x.json").read_text())
    assert back == {"a": [0, 1, 2], "b": {"c": 0.5, "d": [True]}, "e": "ä\udcff"}


def test_json_refuses_nan(tmp_path):
    with pytest.raises(P2FError, match="not finite"):
        write_json(tmp_path / "x.json", {"a": np.array([np.nan])})
    assert not list(tmp_path.iterdir())


def test_unwritable_paths_get_a_sentence(tmp_path, mesh):
    with pytest.raises(P2FError, match="Cannot write"):
        write_json(tmp_path / "nowhere" / "x.json", {})
    with pytest.raises(P2FError, match="Cannot write"):
        write_ply(tmp_path, np.zeros((1, 3)), np.zeros((1, 3), np.uint8))
    for write in (write_glb, write_mesh_ply):
        with pytest.raises(P2FError, match="Cannot write"):
            write(tmp_path, mesh)
