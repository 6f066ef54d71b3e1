"""The morphable model: evaluation, subdivision, files."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from p2f_lib.errors import P2FError
from p2f_lib.morphable_model import (
    MorphableModel,
    edges_of,
    loop_operator,
    normals_of_rows,
    triangles_around,
    vertex_normals,
)
from tests.toy import toy_model

ARRAYS = (
    "mean",
    "triangles",
    "shape_basis",
    "shape_sigma",
    "expression_basis",
    "expression_sigma",
)


def grid(n: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A flat square of n x n vertices, counter-clockwise seen from +z."""
    x, y = np.meshgrid(np.arange(n), np.arange(n))
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + n + 1], axis=1),
            np.stack([corner, corner + n + 1, corner + n], axis=1),
        ]
    )
    return np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3).astype(np.float32), triangles


def octahedron() -> tuple[np.ndarray, np.ndarray]:
    vertices = np.concatenate([np.eye(3), -np.eye(3)])
    triangles = [
        (0, 1, 2), (1, 3, 2), (3, 4, 2), (4, 0, 2), (1, 0, 5), (3, 1, 5), (4, 3, 5), (0, 4, 5)
    ]  # fmt: skip
    return vertices, np.array(triangles)


@pytest.fixture
def model() -> MorphableModel:
    rng = np.random.default_rng(1)
    mean, triangles = grid(4)

    def basis(n: int) -> np.ndarray:  # values that float16 holds exactly
        return rng.integers(-64, 64, (n, len(mean), 3)).astype(np.float32) / 32

    return MorphableModel(
        name="grid",
        mean=mean * 40 + 30,
        triangles=triangles.astype(np.int32),
        shape_basis=basis(3),
        shape_sigma=np.ones(3, np.float32),
        expression_basis=basis(2),
        expression_sigma=np.full(2, 0.25, np.float32),
        expression_names=("jawOpen", "eyeBlinkLeft"),
        landmarks={"ibug68": np.arange(5, dtype=np.int32)},
        regions={"lips": rng.integers(0, 2, len(mean)).astype(np.float32)},
        colors=rng.integers(0, 65, mean.shape).astype(np.float32) / 64,
        texture_coordinates=rng.random((3 * len(triangles), 2), np.float32),  # seams everywhere
        texture_triangles=np.arange(3 * len(triangles), dtype=np.int32).reshape(-1, 3),
    )


# --- evaluation ---------------------------------------------------------------------------------


def test_vertices_add_up_mode_by_mode(model):
    rng = np.random.default_rng(0)
    shape, expression = rng.normal(size=3), rng.normal(size=2)
    expected = model.mean.astype(float)
    for c, mode in zip(shape, model.shape_basis, strict=True):
        expected = expected + c * mode
    for c, mode in zip(expression, model.expression_basis, strict=True):
        expected = expected + c * mode
    np.testing.assert_allclose(model.vertices(shape, expression), expected, rtol=1e-5)
    assert model.vertices(shape, expression).dtype == np.float32


def test_a_batch_equals_a_loop(model):
    rng = np.random.default_rng(0)
    shapes, expressions = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    one_by_one = [model.vertices(s, e) for s, e in zip(shapes, expressions, strict=True)]
    np.testing.assert_allclose(model.vertices(shapes, expressions), one_by_one, rtol=1e-5)
    mixed = model.vertices(shapes[0], expressions)
    np.testing.assert_allclose(mixed[2], model.vertices(shapes[0], expressions[2]), rtol=1e-5)
    for some in (model.vertices(shapes[:1], expressions), model.vertices(shapes, expressions[:1])):
        assert some.shape == (4, model.n_vertices, 3)
    np.testing.assert_allclose(some[3], model.vertices(shapes[3], expressions[0]), rtol=1e-5)
    with pytest.raises(P2FError, match="4 shapes for 3 expressions"):
        model.vertices(shapes, expressions[:3])


def test_no_coefficients_give_the_mean(model):
    np.testing.assert_array_equal(model.vertices(), model.mean)


@pytest.mark.parametrize("wrong", [np.zeros(4), np.zeros((2, 1)), np.zeros((1, 1, 3))])
def test_wrong_coefficients_get_a_sentence(model, wrong):
    with pytest.raises(P2FError, match="shape coefficients have shape"):
        model.vertices(wrong)


def test_inconsistent_arrays_get_a_sentence(model):
    with pytest.raises(P2FError, match="shape_basis has shape"):
        replace(model, shape_basis=model.shape_basis[:, :-1])
    with pytest.raises(P2FError, match="NaN"):
        replace(model, mean=model.mean * np.float32("nan"))
    with pytest.raises(P2FError, match="outside"):
        replace(model, triangles=model.triangles + 1)
    with pytest.raises(P2FError, match="2 expression modes"):
        replace(model, expression_names=("jawOpen",))


def test_colours_and_texture_must_fit(model):
    wrong = [
        ({"colors": model.colors[:-1]}, "colors has shape"),
        ({"colors": model.colors * 255}, "colors must lie between 0 and 1"),
        ({"colors": model.colors * np.float32("nan")}, "colors must lie between 0 and 1"),
        ({"texture_coordinates": model.colors}, "texture_coordinates has shape"),
        ({"texture_coordinates": model.texture_coordinates - 1}, "must lie between 0 and 1"),
        ({"texture_coordinates": None}, "need each other"),
        ({"texture_triangles": None}, "need each other"),
        ({"texture_triangles": model.texture_triangles[1:]}, "texture_triangles has shape"),
        ({"texture_triangles": model.texture_triangles + 1}, "texture_triangles point outside"),
    ]
    for change, message in wrong:
        with pytest.raises(P2FError, match=message):
            replace(model, **change)


def test_truncated_keeps_the_first_modes(model):
    np.testing.assert_array_equal(model.truncated(2).shape_basis, model.shape_basis[:2])
    fine = model.subdivided().truncated(1)
    assert fine.coarse.n_shape == fine.n_shape == len(fine.shape_basis) == 1
    np.testing.assert_array_equal(fine.shape_basis, model.subdivided().shape_basis[:1])
    with pytest.raises(P2FError, match="Cannot keep 9"):
        model.truncated(9)


def test_checksum_tells_models_apart(model):
    """It covers what planes and coefficients mean, so new landmark vertices keep the weights."""
    landmarks = {"ibug68": model.landmarks["ibug68"][::-1].copy()}
    regions = {"lips": 1 - model.regions["lips"]}
    plain = {"colors": None, "texture_coordinates": None, "texture_triangles": None}
    for same in ({"name": "other"}, {"landmarks": landmarks}, {"regions": regions}, plain):
        assert replace(model, **same).checksum == model.checksum
    others = [
        {"mean": model.mean + 1},
        {"triangles": model.triangles[:, [1, 2, 0]]},
        {"shape_basis": model.shape_basis[::-1]},
        {"shape_sigma": 2 * model.shape_sigma},
        {"expression_basis": -model.expression_basis},
        {"expression_sigma": 2 * model.expression_sigma},
        {"expression_names": model.expression_names[::-1]},
    ]
    checksums = {replace(model, **other).checksum for other in others}
    assert len(checksums | {model.checksum, model.subdivided().checksum}) == len(others) + 2


def test_variance_summary(model):
    unit = np.zeros((2, model.n_vertices, 3), np.float32)
    unit[0, :, 0], unit[1, :, 1] = 4, 1  # 94 % and 6 % of the variance
    summary = replace(model, shape_basis=unit, shape_sigma=np.ones(2, np.float32))
    assert summary.variance_summary() == {
        "components_90": 1,
        "components_95": 2,
        "components_99": 2,
        "rms_mm": pytest.approx(17**0.5),
    }


# --- Loop subdivision ---------------------------------------------------------------------------


def slow_loop_step(vertices: np.ndarray, triangles: np.ndarray) -> dict[frozenset, np.ndarray]:
    """Loop's rules vertex by vertex: {vertex} and {edge ends} -> position."""
    corners_at: dict[frozenset, list[int]] = {}
    for t in triangles.tolist():
        for i in range(3):
            corners_at.setdefault(frozenset((t[i], t[i - 1])), []).append(t[i - 2])
    new = {}
    for edge, corners in corners_at.items():
        a, b = vertices[list(edge)]
        if len(corners) == 1:
            new[edge] = (a + b) / 2
        else:
            c, d = vertices[corners]
            new[edge] = 3 / 8 * (a + b) + 1 / 8 * (c + d)
    for v in range(len(vertices)):
        edges = [e for e in corners_at if v in e]
        rim = [e for e in edges if len(corners_at[e]) == 1]
        if rim:
            neighbours = [vertices[next(iter(e - {v}))] for e in rim]
            new[frozenset((v,))] = 3 / 4 * vertices[v] + 1 / 8 * sum(neighbours)
        else:
            k = len(edges)
            beta = 3 / 16 if k == 3 else 3 / (8 * k)
            neighbours = [vertices[next(iter(e - {v}))] for e in edges]
            new[frozenset((v,))] = (1 - k * beta) * vertices[v] + beta * sum(neighbours)
    return new


@pytest.mark.parametrize("mesh", [grid(), octahedron()])
def test_loop_step_against_the_rules(mesh):
    vertices, triangles = mesh
    vertices = vertices + np.random.default_rng(3).normal(0, 0.2, vertices.shape)
    operator, _ = loop_operator(len(vertices), triangles)
    edges, _, _ = edges_of(triangles)
    names = [frozenset((v,)) for v in range(len(vertices))] + [frozenset(e) for e in edges.tolist()]
    slow = slow_loop_step(vertices, triangles)
    np.testing.assert_allclose(operator @ vertices, [slow[n] for n in names], atol=1e-6)


@pytest.mark.parametrize("levels", [1, 2])
def test_loop_keeps_sums_planes_and_borders(levels):
    vertices, triangles = grid()
    operator, fine = loop_operator(len(vertices), triangles, levels)
    np.testing.assert_allclose(np.asarray(operator.sum(axis=1)).ravel(), 1, atol=1e-6)
    np.testing.assert_allclose((operator @ (vertices + 7))[:, 2], 7, atol=1e-5)  # z = 7 stays
    assert len(fine) == 4**levels * len(triangles)
    refined = operator @ vertices
    edges, counts, _ = edges_of(fine)
    rim = refined[np.unique(edges[counts == 1])]
    middle = np.abs(rim - 2).max(axis=1)[(np.abs(rim[:, :2] - 2) < 1).any(axis=1)]
    np.testing.assert_allclose(middle, 2, atol=1e-6)  # straight sides of the square stay


def test_loop_keeps_orientation_and_closedness():
    vertices, triangles = octahedron()
    operator, fine = loop_operator(len(vertices), triangles, 2)
    _, counts, _ = edges_of(fine)
    assert (counts == 2).all()
    assert operator.shape == (2 + 4**2 * 8 // 2, 6)  # Euler: V = 2 + F / 2
    a, b, c = np.moveaxis((operator @ vertices)[fine], 1, 0)
    assert (np.einsum("fi,fi->f", np.cross(b - a, c - a), a + b + c) > 0).all()


def test_loop_refuses_what_is_no_surface():
    with pytest.raises(P2FError, match="over two triangles"):
        loop_operator(5, np.array([[0, 1, 2], [1, 0, 3], [0, 1, 4]]))
    with pytest.raises(P2FError, match="touch at a vertex"):
        loop_operator(5, np.array([[0, 1, 2], [0, 3, 4]]))


def test_subdividing_commutes_with_evaluation(model):
    rng = np.random.default_rng(2)
    shape, expression = rng.normal(size=3), rng.normal(size=2)
    operator, _ = loop_operator(model.n_vertices, model.triangles, 2)
    fine = model.subdivided().subdivided()
    np.testing.assert_allclose(
        fine.vertices(shape, expression), operator @ model.vertices(shape, expression), atol=1e-3
    )
    assert fine.coarse is model
    assert fine.regions["lips"].shape == (fine.n_vertices,)
    assert 0 <= fine.regions["lips"].min() <= fine.regions["lips"].max() <= 1
    assert model.subdivided(0) is model
    with pytest.raises(P2FError, match="at least 0"):
        model.subdivided(-1)


def test_a_subdivided_model_is_its_own_dense_model(model):
    """Blending on the coarse mesh and blending the dense bases are the same."""
    rng = np.random.default_rng(5)
    fine = model.subdivided(2)
    dense = replace(fine, shape_basis=fine.shape_basis.copy())
    assert fine.coarse is model
    assert dense.coarse is None
    assert dense.levels == 0
    assert dense.checksum == fine.checksum
    batch = rng.normal(size=(3, 3)), rng.normal(size=(3, 2))
    for shape, expression in (batch, (batch[0][0], batch[1]), (batch[0][0], None), (None, None)):
        vertices = fine.vertices(shape, expression)
        assert vertices.dtype == np.float32
        np.testing.assert_allclose(vertices, dense.vertices(shape, expression), atol=1e-3)
    np.testing.assert_array_equal(fine.vertices(np.zeros(3)), fine.mean)
    none = replace(
        model,
        expression_basis=np.zeros((0, model.n_vertices, 3), np.float32),
        expression_sigma=np.zeros(0, np.float32),
        expression_names=(),
    ).subdivided()
    assert none.expression_basis.shape == (0, none.n_vertices, 3)


def test_refining_equals_the_sparse_product(model):
    refinement = model.subdivided(2).refinement
    slow = np.stack([refinement.operator @ mode for mode in model.shape_basis])
    np.testing.assert_array_equal(refinement(model.shape_basis), slow)


def test_dense_bases_are_made_when_they_are_asked_for(model):
    fine = model.subdivided()
    fine.vertices(np.ones(3), np.ones(2))
    assert "shape_basis" not in vars(fine.refinement)
    relabelled = replace(fine, landmarks={})  # reads all fields, so it makes them
    assert relabelled.refinement is fine.refinement
    assert relabelled.shape_basis is fine.shape_basis
    moved = replace(fine, mean=fine.mean + 1)
    assert moved.coarse is None
    np.testing.assert_allclose(moved.vertices(np.ones(3)), fine.vertices(np.ones(3)) + 1, atol=1e-3)
    with pytest.raises(AttributeError, match="no attribute 'basis'"):
        fine.basis  # noqa: B018
    copied = pickle.loads(pickle.dumps(fine))
    assert copied.checksum == fine.checksum
    assert copied.coarse is not None


def test_colours_and_texture_are_subdivided_with_the_mesh(model):
    fine = model.subdivided(2)
    operator, _ = loop_operator(model.n_vertices, model.triangles, 2)
    np.testing.assert_allclose(fine.colors, operator @ model.colors, atol=1e-6)
    assert 0 <= fine.colors.min() <= fine.colors.max() <= 1
    # Texture triangles split at the middles of their sides, children in the order of the mesh's.
    corners = model.mean[model.triangles][:, :, :2]
    flat = replace(model, texture_coordinates=(corners.reshape(-1, 2) / 400).astype(np.float32))
    for levels in (1, 2):
        got = flat.subdivided(levels)
        uv = got.texture_coordinates[got.texture_triangles]
        expected = corners / 400
        for _ in range(levels):
            a, b, c = (expected[:, k] for k in range(3))
            ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
            children = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
            expected = np.transpose(children, (2, 0, 1, 3)).reshape(-1, 3, 2)
        np.testing.assert_allclose(uv, expected, atol=1e-6)
    bare = replace(model, colors=None, texture_coordinates=None, texture_triangles=None)
    assert bare.subdivided().colors is None


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("subdivisions", [0, 1])
def test_round_trip(model, tmp_path, subdivisions):
    path = tmp_path / "model.safetensors"
    model.subdivided().save(path)
    back, expected = MorphableModel.load(path, subdivisions), model.subdivided(subdivisions)
    assert back.checksum == expected.checksum
    assert (back.name, back.expression_names) == (expected.name, expected.expression_names)
    np.testing.assert_array_equal(back.regions["lips"], expected.regions["lips"])
    np.testing.assert_array_equal(back.landmarks["ibug68"], expected.landmarks["ibug68"])
    for key in ("colors", "texture_coordinates", "texture_triangles"):
        np.testing.assert_array_equal(getattr(back, key), getattr(expected, key))
        assert getattr(back, key).dtype == getattr(expected, key).dtype


def test_a_model_without_colours_and_texture_stays_without(model, tmp_path):
    bare = replace(model, colors=None, texture_coordinates=None, texture_triangles=None)
    bare.save(tmp_path / "bare")
    back = MorphableModel.load(tmp_path / "bare")
    assert back.colors is back.texture_coordinates is back.texture_triangles is None


@pytest.mark.parametrize("sigma", [3e6, 1.0, 2e-7])
def test_float16_suits_coefficients_of_any_size(model, tmp_path, sigma):
    """Some models' coefficients are hundreds of thousands, their modes nanometres."""
    rng = np.random.default_rng(6)
    sigmas = (sigma * np.array([1.0, 0.3, 1e-3])).astype(np.float32)
    basis = rng.normal(size=model.shape_basis.shape) / sigmas[:, None, None]
    big = replace(model, shape_basis=basis.astype(np.float32), shape_sigma=sigmas)
    big.save(tmp_path / "model")
    back = MorphableModel.load(tmp_path / "model")
    error = (back.shape_basis - big.shape_basis) * sigmas[:, None, None]
    assert np.abs(error).max() < 0.002  # float16 of up to 4 mm
    back.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


def test_files_of_the_first_format_are_read(model, tmp_path):
    tensors = {key: getattr(model, key) for key in ARRAYS}
    header = {
        "format": "p2f-face-model-1",
        "name": "grid",
        "expression_names": model.expression_names,
        "levels": 0,
    }
    tensors["shape_sigma"] = tensors["shape_sigma"] * 5
    save_file(tensors, str(tmp_path / "old"), metadata={"face_model": json.dumps(header)})
    back = MorphableModel.load(tmp_path / "old")
    np.testing.assert_array_equal(back.shape_basis, model.shape_basis)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_model_loads_as_fine_as_it_was_saved(model, tmp_path, levels):
    path = tmp_path / "model.safetensors"
    saved = model.subdivided(levels)
    saved.save(path)
    back = MorphableModel.load(path)
    assert back.levels == levels
    assert back.n_vertices == saved.n_vertices
    assert back.checksum == saved.checksum
    assert (back.coarse or back).checksum == model.checksum
    back.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_file_that_asks_for_too_many_steps_is_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    with safe_open(str(path), framework="numpy") as file:
        header = json.loads(file.metadata()["face_model"]) | {"levels": 9}
    save_file(load_file(path), str(path), metadata={"face_model": json.dumps(header)})
    with pytest.raises(P2FError, match="asks for 9 Loop steps, at most 3"):
        MorphableModel.load(path)
    assert MorphableModel.load(path, subdivisions=1).levels == 1  # whoever loads decides
    for wrong in (-1, 4):
        with pytest.raises(P2FError, match=f"asks for {wrong} Loop steps"):
            MorphableModel.load(path, subdivisions=wrong)


def test_saving_is_reproducible(model, tmp_path):
    model.save(tmp_path / "a")
    model.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_file_gets_a_sentence(tmp_path):
    with pytest.raises(P2FError, match="There is no face model"):
        MorphableModel.load(tmp_path / "nothing")


def test_truncated_file_gets_a_sentence(model, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    whole = path.read_bytes()
    for size in (0, 4, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(P2FError, match="cannot be read as a face model"):
            MorphableModel.load(path)


def test_alien_files_get_a_sentence(tmp_path):
    path = tmp_path / "alien"
    path.write_bytes(b"\x80\x04\x95 this looks like a pickle " * 9)
    with pytest.raises(P2FError, match="cannot be read as a face model"):
        MorphableModel.load(path)
    save_file({"weight": np.zeros(3)}, str(path), metadata={"face_model": "[1]"})
    with pytest.raises(P2FError, match="cannot be read as a face model"):
        MorphableModel.load(path)
    save_file({"weight": np.zeros(3)}, str(path))
    with pytest.raises(P2FError, match="not a face model of this project"):
        MorphableModel.load(path)


def test_mismatching_files_get_a_sentence(model, tmp_path):
    path = tmp_path / "model"
    header = {"format": "p2f-face-model-1", "name": "x", "expression_names": ["a"]}
    metadata = {"face_model": json.dumps(header)}
    save_file({"mean": model.mean}, str(path), metadata=metadata)
    with pytest.raises(P2FError, match="cannot be read as a face model"):
        MorphableModel.load(path)
    model.save(path)
    arrays = {key: getattr(model, key) for key in ARRAYS} | {"mean": model.mean[:-1]}
    save_file(arrays, str(path), metadata=metadata)
    with pytest.raises(P2FError, match="shape_basis has shape"):
        MorphableModel.load(path)


def test_the_sign_of_a_zero_does_not_change_the_file(model, tmp_path):
    basis = model.shape_basis.copy()
    basis[0, 0] = 0.0
    replace(model, shape_basis=basis).save(tmp_path / "plus.safetensors")
    basis[0, 0] = -0.0
    replace(model, shape_basis=basis).save(tmp_path / "minus.safetensors")
    plus, minus = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("plus", "minus"))
    assert plus == minus


def test_normals_of_some_vertices_are_those_of_all():
    model = toy_model(600)
    rows = np.array([5, 0, 599, 311, 5])
    starts, around = triangles_around(model.triangles, model.n_vertices)
    for vertex in (0, 311, 599):
        touching = np.flatnonzero((model.triangles == vertex).any(axis=1))
        np.testing.assert_array_equal(around[starts[vertex] : starts[vertex + 1]], touching)
    vertices = model.vertices(np.full(model.n_shape, 0.5, np.float32), None)
    found = normals_of_rows(vertices, model.triangles, starts, around, rows)
    np.testing.assert_array_equal(found, vertex_normals(vertices, model.triangles)[rows])
