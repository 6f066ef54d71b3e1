"""What other programs read must be what was written."""

import json

import numpy as np
import pytest
import trimesh

from p2f_lib.errors import P2FError
from p2f_lib.export import obj_files, write_json, write_obj, write_ply
from p2f_lib.images import read_image


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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


@pytest.mark.parametrize("name", ["mesh.obj", "two words.obj", "Gesicht_ä.obj", "a.b.obj"])
def test_obj_round_trip(tmp_path, rng, name):
    vertices = rng.normal(0, 50, (5, 3))
    triangles = np.array([[0, 1, 2], [2, 3, 4], [0, 2, 4]])
    texture = rng.integers(0, 256, (8, 16, 3), dtype=np.uint8)
    pixels = np.array([[0, 0], [15, 0], [0, 7], [15, 7], [8, 3]], float)
    write_obj(tmp_path / name, vertices, triangles, pixels, texture)

    mesh = trimesh.load(tmp_path / name, process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-4)
    np.testing.assert_array_equal(mesh.faces, triangles)
    # The colour that a renderer finds at a vertex is the pixel that it was given.
    image = np.asarray(mesh.visual.material.image.convert("RGB"))
    np.testing.assert_array_equal(image, texture)
    column = mesh.visual.uv[:, 0] * 16 - 0.5
    row = (1 - mesh.visual.uv[:, 1]) * 8 - 0.5
    np.testing.assert_allclose(np.stack([column, row], axis=1), pixels, atol=1e-4)


def test_obj_files_are_the_files_written(tmp_path):
    path = tmp_path / "mesh.obj"
    write_obj(path, np.eye(3), [[0, 1, 2]], np.zeros((3, 2)), np.zeros((2, 2, 3), np.uint8))
    assert set(tmp_path.iterdir()) == set(obj_files(path))
    assert not read_image(obj_files(path)[2]).any()


def test_obj_clamps_what_lies_outside_the_texture(tmp_path):
    pixels = np.array([[-50, 3], [50, 3], [3, -50.0]])
    write_obj(tmp_path / "x.obj", np.eye(3), [[0, 1, 2]], pixels, np.zeros((4, 4, 3), np.uint8))
    uv = trimesh.load(tmp_path / "x.obj", process=False).visual.uv
    np.testing.assert_allclose(uv, [[0, 0.125], [1, 0.125], [0.875, 1]], atol=1e-6)


def test_obj_refuses_what_does_not_fit(tmp_path):
    texture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(P2FError, match="one texture point a vertex"):
        write_obj(tmp_path / "x.obj", np.eye(3), [[0, 1, 2]], np.zeros((2, 2)), texture)
    with pytest.raises(P2FError, match="line break"):
        write_obj(tmp_path / "x\ny.obj", np.eye(3), [[0, 1, 2]], np.zeros((3, 2)), texture)


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


def test_unwritable_paths_get_a_sentence(tmp_path):
    with pytest.raises(P2FError, match="Cannot write"):
        write_json(tmp_path / "nowhere" / "x.json", {})
    with pytest.raises(P2FError, match="Cannot write"):
        write_ply(tmp_path, np.zeros((1, 3)), np.zeros((1, 3), np.uint8))
