"""Readers of published face models: files in their layouts, checked against what was written."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import json
import os
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from scipy.spatial.transform import Rotation

from p2f_lib.errors import P2FError
from p2f_lib.face_models import (
    ABOUT,
    READERS,
    SOURCES,
    build_face_model,
    common,
    ensure_landmarks,
    lsfm,
    surrey,
)
from p2f_lib.face_models.inert_pickle import read_pickle
from p2f_lib.face_models.register import transfer_landmarks
from p2f_lib.morphable_model import MorphableModel
from tests import face_model_files as files
from tests.face_model_files import Truth
from tests.toy import toy_model


@pytest.fixture(scope="module")
def truth() -> Truth:
    return files.truth()


WRITERS = {  # name -> source, writer of (folder, truth) that gives the path of the main file
    "basel2009": ("basel2009", files.write_basel2009),
    "basel2009-plain": ("basel2009", lambda f, t: files.write_basel2009(f, t, compressed=False)),
    "basel2017": ("basel2017", files.write_basel2017),
    "3ddfa": ("3ddfa", files.write_3ddfa),
    "face3d": ("3ddfa", files.write_face3d),
    "flame": ("flame", lambda f, t: files.write_flame(f, files.flame_content())),
    "surrey": ("surrey", files.write_surrey),
    "lsfm": ("lsfm", files.write_lsfm),
    "lyhm": ("lyhm", files.write_lyhm),
}


def volume(model: MorphableModel) -> float:
    """By the slow formula, a triangle at a time."""
    v = model.mean.astype(float)
    return sum(np.linalg.det(v[triangle]) for triangle in model.triangles) / 6


def same_triangles(model: MorphableModel, triangles: np.ndarray) -> bool:
    """The same oriented triangles, whichever corner comes first."""

    def key(list_: np.ndarray) -> set:
        return {min(tuple(np.roll(t, -k)) for k in range(3)) for t in list_.tolist()}

    return key(model.triangles) == key(triangles)


def coefficients(model: MorphableModel, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=model.n_shape), rng.normal(size=model.n_expression)


# --- values, reader by reader ---------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [True, False])
def test_basel_2009(tmp_path, truth, compressed):
    path = files.write_basel2009(tmp_path, truth, compressed)
    model = build_face_model("basel2009", n_shape=None, path=path)
    assert (model.n_shape, model.n_expression) == (6, 0)
    shape, _ = coefficients(model)
    np.testing.assert_allclose(model.vertices(shape), truth.face(shape), atol=1e-4)
    np.testing.assert_allclose(model.vertices(), truth.mean, atol=1e-4)
    np.testing.assert_allclose(model.colors, truth.colors, atol=1e-6)
    np.testing.assert_array_equal(model.shape_sigma, 1)
    assert same_triangles(model, truth.triangles)  # the file's are clockwise


def test_basel_2017(tmp_path, truth):
    files.write_basel2017(tmp_path, truth)
    model = build_face_model("basel2017", n_shape=100, path=tmp_path)
    shape, expression = coefficients(model)
    expected = truth.face(shape, expression, with_expression_mean=True)
    np.testing.assert_allclose(model.vertices(shape, expression), expected, atol=1e-4)
    np.testing.assert_allclose(model.colors, truth.colors, atol=1e-6)
    assert same_triangles(model, truth.triangles)
    assert model.expression_names[:2] == ("expression000", "expression001")


def test_basel_2019_is_found_by_its_name(tmp_path, truth):
    files.write_basel2017(tmp_path, truth).rename(tmp_path / "model2019_fullHead.h5")
    assert build_face_model("basel2017", path=tmp_path).name == "model2019_fullHead"


def test_basel_2017_in_blocks(tmp_path, truth, monkeypatch):
    path = files.write_basel2017(tmp_path, truth)
    whole = READERS["basel2017"](path, 4)
    monkeypatch.setattr("p2f_lib.face_models.basel._BLOCK", 50)
    np.testing.assert_array_equal(READERS["basel2017"](path, 4).shape_basis, whole.shape_basis)


@pytest.mark.parametrize("layout", ["Model_Exp.mat", "Model_Expression.mat", "BFM.mat"])
def test_3ddfa_takes_300w_lps_coefficients(tmp_path, truth, layout):
    if layout == "BFM.mat":
        path = files.write_face3d(tmp_path, truth)
    else:
        path = files.write_3ddfa(tmp_path, truth, layout)
    for given in (path, tmp_path):
        model = build_face_model("3ddfa", n_shape=199, path=given)
        content = files.threeddfa_content(truth)
        rng = np.random.default_rng(3)
        shape, expression = rng.normal(0, 1e5, 6), rng.uniform(-3, 3, 4)
        expected = content["mu_shape"].astype(float) + content["mu_exp"]
        expected = expected + content["w"] @ shape[:, None] + content["w_exp"] @ expression[:, None]
        np.testing.assert_allclose(
            model.vertices(shape, expression), expected.reshape(-1, 3) / 1000, atol=2e-4
        )
        np.testing.assert_allclose(model.shape_sigma, truth.shape_deviation * 1000, rtol=1e-6)
        np.testing.assert_array_equal(model.expression_sigma, 1.5)
        np.testing.assert_array_equal(model.landmarks["ibug68"], truth.ibug68)
        assert same_triangles(model, truth.triangles)


def slow_flame(content: dict, jaw_degrees: float) -> np.ndarray:
    """FLAME's mesh with its jaw turned: all five joints, a vertex at a time (SMPL's equations)."""
    angle = np.radians(jaw_degrees)
    turns = [np.eye(3)] * 5
    turns[2] = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    feature = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    joints = content["J_regressor"] @ content["v_template"]
    parents = [-1, 0, 1, 1, 1]
    world = []
    for joint, parent in enumerate(parents):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    result = []
    for vertex, weights in enumerate(content["weights"]):
        place = content["v_template"][vertex] + content["posedirs"][vertex] @ feature
        moved = np.zeros(3)
        for joint in range(5):
            moved += weights[joint] * (
                world[joint][:3, :3] @ (place - joints[joint]) + world[joint][:3, 3]
            )
        result.append(moved)
    return np.array(result)


def check_flame(model: MorphableModel, content: dict) -> None:
    rng = np.random.default_rng(2)
    shape, expression = rng.normal(size=300), np.append(rng.normal(size=100), 0)
    betas = np.concatenate([shape, expression[:-1]])
    expected = content["v_template"] + content["shapedirs"] @ betas
    np.testing.assert_allclose(model.vertices(shape, expression), 1000 * expected, atol=1e-3)
    assert model.expression_names[-1] == "jawOpen"
    opened = model.vertices(expression=np.eye(101)[-1])
    np.testing.assert_allclose(opened, 1000 * slow_flame(content, 20), atol=1e-3)
    chin = np.argmax(content["weights"][:, 2] * content["v_template"][:, 2])
    assert (opened - model.mean)[chin, 1] < -5, "the chin drops"
    np.testing.assert_array_equal(model.expression_sigma[[0, -1]], np.float32([1, 0.25]))
    assert same_triangles(model, content["f"].astype(int))


def test_flame_as_python_2_wrote_it(tmp_path):
    content = files.flame_content()
    files.write_flame(tmp_path, content)
    check_flame(build_face_model("flame", n_shape=None, path=tmp_path), content)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_flame_saved_again_by_python_3(tmp_path, protocol):
    content = files.flame_content()
    path = tmp_path / "flame2023.pkl"
    stored = content | {
        "J_regressor": scipy.sparse.csc_matrix(content["J_regressor"]),
        "shapedirs": np.asfortranarray(content["shapedirs"]),
        "bs_type": "lrotmin",
    }
    path.write_bytes(pickle.dumps(stored, protocol=protocol))
    check_flame(build_face_model("flame", n_shape=300, path=path), content)


def test_surrey(tmp_path, truth):
    files.write_surrey(tmp_path, truth)
    model = build_face_model("surrey", n_shape=None, path=tmp_path)
    assert model.expression_names == ("anger", "disgust", "fear", "happiness")
    np.testing.assert_array_equal(model.expression_sigma, surrey.EXPRESSION_SIGMA)
    shape, expression = coefficients(model)
    # The file's origin is at the tip of the nose; the reader's rule, written out.
    low, high = np.min(truth.mean, axis=0), np.max(truth.mean, axis=0)
    middle = np.append((low + high)[:2] / 2, high[2] - 0.6 * (high - low)[0])
    expected = truth.face(shape, expression) - middle
    np.testing.assert_allclose(model.vertices(shape, expression), expected, atol=1e-3)
    assert same_triangles(model, truth.triangles)
    u, v = files.surrey_texture(truth).T
    np.testing.assert_allclose(model.texture_coordinates, np.stack([u, 1 - v], 1), atol=1e-6)
    np.testing.assert_array_equal(model.texture_triangles, model.triangles)
    assert not model.landmarks


def test_surrey_landmarks(tmp_path, truth):
    files.write_surrey(tmp_path, truth)
    mapping = {point + 1: int(vertex) for point, vertex in enumerate(truth.ibug68)}
    files.write_ibug_to_sfm(tmp_path, mapping)
    model = build_face_model("surrey", path=tmp_path)
    np.testing.assert_array_equal(model.landmarks["ibug68"], truth.ibug68)
    # The published file lacks the jaw line and the inner corners of the mouth.
    partial = {point: mapping[point] for point in (9, *range(18, 61), 62, 63, 64, 66, 67, 68)}
    files.write_ibug_to_sfm(tmp_path, partial)
    assert not build_face_model("surrey", path=tmp_path).landmarks
    indices = surrey.landmark_mapping(tmp_path / surrey.MAPPING)
    assert (indices >= 0).sum() == 50
    assert indices[8] == truth.ibug68[8]
    assert indices[0] == indices[60] == -1
    for wrong in ("9 = ", "[other]\n9 = 3", "[landmark_mappings]\n69 = 3", "landmark_mappings = 3"):
        (tmp_path / surrey.MAPPING).write_text(wrong)
        with pytest.raises(P2FError, match="no mapping of the 68 iBUG points"):
            build_face_model("surrey", path=tmp_path)


@pytest.mark.parametrize("unit", [1000.0, 1.0, 0.1, 0.001])
def test_lsfm_in_any_unit(tmp_path, truth, unit):
    model = build_face_model("lsfm", path=files.write_lsfm(tmp_path, truth, unit))
    shape, _ = coefficients(model)
    np.testing.assert_allclose(model.vertices(shape), truth.face(shape), atol=1e-4)
    assert same_triangles(model, truth.triangles)


def test_lyhm(tmp_path, truth):
    model = build_face_model("lyhm", path=files.write_lyhm(tmp_path, truth))
    shape, _ = coefficients(model)
    np.testing.assert_allclose(model.vertices(shape), truth.face(shape), atol=1e-4)
    assert same_triangles(model, truth.triangles)


@pytest.fixture(scope="module")
def ict_folder(tmp_path_factory) -> tuple[Path, files.Ict]:
    folder, model = tmp_path_factory.mktemp("ict"), files.ict()
    files.write_ict(folder, model)
    return folder, model


def test_ict(ict_folder):
    folder, written = ict_folder
    model = build_face_model("ict", n_shape=2, path=folder)
    assert model.n_vertices == 9409 + 1839 + 2 * 1570
    assert model.expression_names == ("browDownLeft", "browInnerUp", "jawOpen")
    kept = [*range(11248), *range(21451, 24591)]
    expected = written.vertices + 0.5 * written.moves["identity000"]
    expected = expected - 2 * written.moves["identity001"] + 0.3 * written.moves["browDown_L"]
    for half in ("L", "R"):
        expected = expected + 0.7 * written.moves[f"browInnerUp_{half}"]
    got = model.vertices([0.5, -2], [0.3, 0.7, 0])
    np.testing.assert_allclose(got, 10 * expected[kept], atol=1e-3)
    np.testing.assert_array_equal(model.mean[model.landmarks["ibug68"]], model.mean[written.ibug68])
    # Quads of the face and of the eyeballs, in two triangles each, with the face's texture.
    face = written.quads[: 96**2]
    ours = model.triangles[: 2 * 96**2]
    np.testing.assert_array_equal(ours[0::2], face[:, [0, 1, 2]])
    np.testing.assert_array_equal(ours[1::2], face[:, [0, 2, 3]])
    assert len(model.triangles) == 2 * (96**2 + 400)
    places = model.texture_coordinates[model.texture_triangles]
    quads = written.texture[written.texture_quads[: 96**2]]
    np.testing.assert_allclose(places[0 : 2 * 96**2 : 2], quads[:, [0, 1, 2]], atol=1e-6)
    np.testing.assert_array_equal(places[2 * 96**2 :], 0)
    ball = model.mean[model.triangles[2 * 96**2 :]]
    assert np.abs(ball - [[0, 30, 80]]).max() < 45  # eyeballs where they belong
    inner = build_face_model("ict", n_shape=1, path=folder / "FaceXModel")
    np.testing.assert_array_equal(inner.shape_basis, model.shape_basis[:1])


def test_ict_damaged(ict_folder, tmp_path):
    folder, _ = ict_folder
    source = folder / "FaceXModel"

    def variant(name: str, data: bytes | None) -> Path:
        new = tmp_path / f"case{len(list(tmp_path.iterdir()))}"
        new.mkdir()
        for file in source.iterdir():
            if file.name != name:
                (new / file.name).symlink_to(file)
        if data is not None:
            (new / name).write_bytes(data)
        return new

    neutral = (source / "generic_neutral_mesh.obj").read_bytes()
    one = (source / "jawOpen.obj").read_bytes()
    vertices = one.index(b"vt ")
    facts = json.loads((source / "vertex_indices.json").read_text())
    cases = [
        ("jawOpen.obj", None, "There is no jawOpen.obj .* MIT licence"),
        ("identity001.obj", None, "There is no identity001.obj"),
        ("generic_neutral_mesh.obj", None, "There is no generic_neutral_mesh.obj"),
        ("jawOpen.obj", one[: vertices - 5], "ends within a line"),
        ("jawOpen.obj", one[: one.index(b"v ", vertices // 2)], "expected \\(26719, 3\\)"),
        ("jawOpen.obj", b"\xff\xd8\xff\xe0 not a mesh", "no line of 'v'"),
        ("jawOpen.obj", one.replace(b"v ", b"v nan ", 1), "cannot be read"),
        ("generic_neutral_mesh.obj", neutral[:-3], "ends within a line"),
        ("generic_neutral_mesh.obj", neutral[: neutral.rindex(b"f ")], "expected 26384"),
        ("vertex_indices.json", b"{", "cannot be read"),
        ("vertex_indices.json", json.dumps({"expressions": []}).encode(), "it lacks 'idx_to"),
        (
            "vertex_indices.json",
            json.dumps(facts | {"idx_to_landmark_verts": [20000] * 68}).encode(),
            "a landmark lies outside",
        ),
    ]
    for name, data, message in cases:
        with pytest.raises(P2FError, match=message):
            build_face_model("ict", n_shape=2, path=variant(name, data))


# --- the frame ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_every_model_is_in_the_projects_frame(tmp_path, truth, name):
    source, write = WRITERS[name]
    write(tmp_path, truth)
    model = READERS[source](tmp_path)
    assert volume(model) > 0
    assert np.linalg.norm(model.mean, axis=1).min() > 25, "no surface near the origin"
    assert 100 < np.ptp(model.mean, axis=0).max() < 300
    for key in ("mean", "shape_basis", "shape_sigma", "expression_basis", "expression_sigma"):
        assert getattr(model, key).dtype == np.float32
    assert model.triangles.dtype == np.int32
    assert model.coarse is None
    first = READERS[source](tmp_path, 2)
    np.testing.assert_array_equal(first.shape_basis, model.shape_basis[:2])
    np.testing.assert_array_equal(first.shape_sigma, model.shape_sigma[:2])
    np.testing.assert_array_equal(first.expression_basis, model.expression_basis)


def test_the_origin_moves_into_the_head_and_stays_there(truth):
    np.testing.assert_array_equal(common.inner_point(truth.mean), 0)
    for offset in ([0, 0, -90], [0, 500, 0], [60, 0, 0]):
        moved = truth.mean + offset
        moved = moved - common.inner_point(moved)
        assert np.linalg.norm(moved, axis=1).min() > 25
        np.testing.assert_allclose(common.inner_point(moved), 0, atol=1e-9)


def test_triangles_of_an_open_mask_are_turned_too(truth):
    front = truth.triangles[(truth.mean[truth.triangles][:, :, 2] > 0).all(axis=1)]
    assert common.signed_volume(truth.mean, front) > 0
    assert common.signed_volume(truth.mean, front[:, ::-1]) < 0


def test_units():
    box = np.array([[0.0, 0, 0], [170, 250, 180]])
    for factor, unit in ((1000, 1e-3), (1, 1.0), (0.1, 10.0), (0.001, 1000.0)):
        assert lsfm.millimetres(box * factor) == unit
    with pytest.raises(P2FError, match="no head's"):
        lsfm.millimetres(box * 1e7)


def test_landmarks_beside_the_model(tmp_path, truth):
    path = files.write_basel2009(tmp_path, truth)
    side = tmp_path / "landmarks.json"
    lists = {"ibug68": truth.ibug68.tolist(), "menpo84": [*range(84)]}
    side.write_text(json.dumps(lists))
    model = build_face_model("basel2009", path=path)
    np.testing.assert_array_equal(model.landmarks["ibug68"], truth.ibug68)
    assert model.landmarks["menpo84"].dtype == np.int32
    for wrong in ({"ibug68": [1, 2]}, {"ibug68": [-1] * 68}, {"other": [1]}, [3]):
        side.write_text(json.dumps(wrong))
        with pytest.raises(P2FError, match=r"landmarks\.json isn't a list of landmark vertices"):
            build_face_model("basel2009", path=path)
    side.write_text("{")
    with pytest.raises(P2FError, match=r"landmarks\.json"):
        build_face_model("basel2009", path=path)


def test_a_model_that_was_read_is_saved_and_loaded(tmp_path, truth):
    model = build_face_model("surrey", path=files.write_surrey(tmp_path, truth))
    model.save(tmp_path / "model.safetensors")
    loaded = MorphableModel.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(loaded.mean, model.mean)
    np.testing.assert_allclose(loaded.shape_basis, model.shape_basis, rtol=1e-3, atol=1e-3)
    assert loaded.expression_names == model.expression_names


# --- missing, truncated and alien files -----------------------------------------------------------


def test_unknown_source_and_nonsense():
    with pytest.raises(P2FError, match=r"Unknown face model 'bfm'; known are anny, basel2009"):
        build_face_model("bfm")
    with pytest.raises(P2FError, match="at least one shape mode"):
        build_face_model("flame", n_shape=0)
    with pytest.raises(P2FError, match="needs a number of shape modes"):
        build_face_model("anny", n_shape=None)
    assert {*SOURCES} == {"anny", *ABOUT}


@pytest.mark.parametrize("source", READERS)
def test_a_missing_file_is_named_with_its_licence(tmp_path, monkeypatch, source):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(P2FError) as info:
            build_face_model(source, path=path)
        about = ABOUT[source]
        assert str(info.value).startswith(f"There is no {about.files[0]} in {path}. ")
        for part in (about.title, about.where, about.licence, "set face_model.path"):
            assert part in str(info.value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(P2FError, match=f"in data/face_models/{source}"):
        build_face_model(source)


def test_a_missing_second_file_is_named(tmp_path, truth):
    files.write_3ddfa(tmp_path, truth)
    (tmp_path / "Model_Exp.mat").unlink()
    with pytest.raises(P2FError, match=r"There is no Model_Exp\.mat"):
        build_face_model("3ddfa", path=tmp_path)
    files.write_surrey(tmp_path, truth)
    (tmp_path / "expression_blendshapes_3448.bin").unlink()
    with pytest.raises(P2FError, match=r"There is no expression_blendshapes_3448\.bin"):
        build_face_model("surrey", path=tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_truncated_files(tmp_path, truth, name):
    source, write = WRITERS[name]
    path = write(tmp_path, truth)
    others = [file for file in tmp_path.iterdir() if file != path]
    for file in (path, *others):
        whole = file.read_bytes()
        cuts = [0, 1, 3, 100, 127, 128, 140, *np.linspace(150, len(whole) - 1, 25).astype(int)]
        for cut in cuts:
            file.write_bytes(whole[:cut])
            with pytest.raises(P2FError, match=r"cannot be read .*\.$") as info:
                READERS[source](path)
            assert file.name in str(info.value)
        file.write_bytes(whole)
    READERS[source](path)


def aliens(folder: Path, truth: Truth) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    folder.mkdir()
    result = {
        "noise": rng.bytes(5000),
        "zeros": bytes(5000),
        "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + rng.bytes(2000),
        "text": b"v 1 2 3\n" * 500,
        "matlab 7.3": b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(126) + b"IM" + bytes(500),
        "dictionary": pickle.dumps({"v_template": 3, "shapedirs": [1, 2], "f": None}),
    }
    for name, (_, write) in WRITERS.items():
        (folder / name).mkdir()
        result[name] = write(folder / name, truth).read_bytes()
    return result


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.filterwarnings("error")
def test_alien_files(tmp_path, truth, name):
    source, write = WRITERS[name]
    contents = aliens(tmp_path / "aliens", truth)
    path = write(tmp_path, truth)
    for kind, content in contents.items():
        if WRITERS.get(kind, ("",))[0] == source:
            continue
        path.write_bytes(content)
        with pytest.raises(P2FError, match=r"cannot be read .*\.$|names '"):
            READERS[source](path)


def test_matlab_7_3_gets_advice(tmp_path):
    path = tmp_path / "01_MorphableModel.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(126) + b"IM" + bytes(500))
    with pytest.raises(P2FError, match="save -v7"):
        build_face_model("basel2009", path=path)


@pytest.mark.filterwarnings("error")
def test_damaged_bytes_never_end_in_a_traceback(tmp_path, truth):
    """Whatever is flipped, the answer is a whole model or a sentence."""
    rng = np.random.default_rng(7)
    for name, (source, write) in WRITERS.items():
        folder = tmp_path / name
        folder.mkdir()
        path = write(folder, truth)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        head = min(len(whole), 2500)
        for trial in range(40):
            damaged = whole.copy()
            reach = head if trial % 2 else len(whole)
            places = rng.integers(0, reach, rng.integers(1, 6))
            damaged[places] = rng.integers(0, 256, len(places))
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(P2FError):
                model = READERS[source](path)
                assert np.isfinite(model.shape_basis).all()


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("shapeMU", lambda a: a * np.nan, "NaN"),
        ("shapeMU", lambda a: a[:-3], "shapePC has shape"),
        ("shapePC", lambda a: a[:-3], "shapePC has shape"),
        ("shapePC", lambda a: a * np.inf, "NaN or infinite"),
        ("shapePC", lambda a: a + 1j, "holds no numbers called shapePC"),
        ("shapeEV", lambda a: a[:-1], "shapeEV has 5 values, expected 6"),
        ("texMU", lambda a: a[:-1], "texMU has 359 values"),
        ("texMU", lambda a: a * np.nan, "between 0 and 1"),
        ("tl", lambda a: a + 1000, "outside the 120 vertices"),
        ("tl", lambda a: a - 1, "outside the mesh"),
        ("tl", lambda a: a + 0.5, "no indices"),
        ("tl", lambda a: a * np.nan, "no indices"),
        ("tl", lambda a: a[:, :2], "expected \\(F, 3\\)"),
        ("tl", lambda a: "text", "holds no numbers called tl"),
        ("tl", lambda a: None, "holds no numbers called tl"),
    ],
)
def test_wrong_values_are_named(tmp_path, truth, key, change, message):
    path = files.write_basel2009(tmp_path, truth)
    content = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    changed = change(content.pop(key))
    scipy.io.savemat(path, content if changed is None else content | {key: changed})
    with pytest.raises(P2FError, match=message) as info:
        build_face_model("basel2009", path=path)
    assert str(path) in str(info.value)


def test_3ddfas_key_points_count_from_1(tmp_path, truth):
    for value, message in ((0, "keypoints holds indices outside"), (121, "outside the 120")):
        files.write_3ddfa(tmp_path, truth)
        content = scipy.io.loadmat(tmp_path / "Model_Shape.mat")
        keypoints = content["keypoints"]
        keypoints[0, 3] = value
        kept = {k: content[k] for k in ("mu_shape", "w", "sigma", "tri")}
        scipy.io.savemat(tmp_path / "Model_Shape.mat", kept | {"keypoints": keypoints})
        with pytest.raises(P2FError, match=message):
            build_face_model("3ddfa", path=tmp_path)


def test_3ddfas_frame_is_never_moved(tmp_path, truth):
    """Its coefficients come with poses that turn faces about the file's own origin."""
    moved = dataclasses.replace(truth, mean=truth.mean - [0, 0, 85])
    files.write_3ddfa(tmp_path, moved)
    model = build_face_model("3ddfa", path=tmp_path)
    expected = moved.face(with_expression_mean=True)
    np.testing.assert_allclose(model.mean, expected, atol=1e-4)


def test_surrey_of_another_version(tmp_path, truth):
    path = files.write_surrey(tmp_path, truth, version=4)
    with pytest.raises(P2FError, match="class version is 4"):
        build_face_model("surrey", path=path)
    path = files.write_surrey(tmp_path, truth)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(P2FError, match="4 bytes are left over"):
        build_face_model("surrey", path=path)
    path = files.write_surrey(tmp_path, truth)
    other = tmp_path / "expression_blendshapes_3448.bin"
    other.write_bytes(other.read_bytes() + bytes(4))
    with pytest.raises(P2FError, match=r"blendshapes_3448\.bin .* 4 bytes are left over"):
        build_face_model("surrey", path=path)


def test_flame_of_other_shapes(tmp_path):
    content = files.flame_content()
    for key, value, message in (
        ("shapedirs", content["shapedirs"][..., :250], "expected \\(V, 3, K\\)"),
        ("posedirs", content["posedirs"][..., :9], "J_regressor, weights and posedirs"),
        ("shapedirs", content["shapedirs"] * np.nan, "NaN"),
    ):
        path = files.write_flame(tmp_path, content | {key: value})
        with pytest.raises(P2FError, match=message):
            build_face_model("flame", path=path)
    del content["weights"]
    with pytest.raises(P2FError, match="it lacks 'weights'"):
        build_face_model("flame", path=files.write_flame(tmp_path, content))


# --- hostile files --------------------------------------------------------------------------------


class Attack:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(canary: Path) -> dict[str, tuple[object, tuple]]:
    code = f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": (os.system, (f"touch {canary}",)),
        "eval": (builtins.eval, (code,)),
        "exec": (builtins.exec, (code,)),
        "open": (builtins.open, (str(canary), "w")),
        "numpy.load": (np.load, (str(canary),)),
        "getattr": (builtins.getattr, (builtins.__dict__["print"], "__self__")),
        "memmap": (np.memmap, (str(canary), "u1", "w+", 0, (5,))),
        "Path.touch": (Path.touch, (canary,)),
    }


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_a_pickle_names_is_executed(tmp_path, protocol):
    canary = tmp_path / "canary"
    content = files.flame_content()
    for function, arguments in attacks(canary).values():
        hidden = content | {"bs_type": Attack(function, *arguments)}
        for stored in (Attack(function, *arguments), hidden):
            path = tmp_path / "generic_model.pkl"
            path.write_bytes(pickle.dumps(stored, protocol=protocol))
            with pytest.raises(P2FError, match=r"names '.*', which no face model needs"):
                build_face_model("flame", path=path)
            assert not canary.exists()
    # The test can fail: unpickling does run it.
    path.write_bytes(pickle.dumps(Attack(builtins.open, str(canary), "w"), protocol=protocol))
    with path.open("rb") as file:
        pickle.load(file).close()
    assert canary.exists()


def test_allowed_names_are_not_called_either(tmp_path):
    """`_codecs.encode` with other arguments, a set of anything, a dtype that is no number."""
    path = tmp_path / "generic_model.pkl"
    record = (
        b"\x80\x02}(U\x01ac_codecs\nencode\nU\x05hello\x85RU\x01bc__builtin__\nset\nK\x05\x85Ru."
    )
    path.write_bytes(record)
    content = read_pickle(path)
    assert content["a"].name == "_codecs.encode"
    assert content["b"].arguments == (5,)
    for kind in ("O8", "V8", "S3", "U2", "f", "f3", "i8,i8", ""):
        array = files.Python2Pickle({}).array(np.zeros(3))
        array = array.replace(b"U\x02f8", b"U" + bytes([len(kind)]) + kind.encode())
        path.write_bytes(b"\x80\x02}U\x0av_template" + array + b"s.")
        with pytest.raises(P2FError, match="cannot be read"):
            build_face_model("flame", path=path)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02" + b"r\xff\xff\xff\x7f",  # remember an empty stack at place 2^31
        b"\x80\x02}r\xff\xff\xff\x7f.",  # remember something there
        b"\x80\x02T\xff\xff\xff\x7f" + b"x" * 50,  # a text of 2 GiB
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x",  # bytes of an exbibyte
        b"\x80\x02" + b"(" * 30_000 + b".",  # marks
        b"\x80\x02K\x01" + b"q\x00h\x00h\x00\x86" * 60 + b"}h\x00K\x01s.",  # a tuple of 2^60 ones
        b"\x80\x02(((((t.",
        b"\x80\x02K\x01K\x02u.",
        b"\x80\x02]K\x01a",  # no end
        b"\x80\x02}(U\x01aK\x01U\x01bu.",  # odd
        b"\x80\x02U\x01ab.",  # state for nothing
        b"\x80\x02\x82\x01.",  # extension registry
        b"\x80\x02Pid\n.",  # persistent name
        b"cos\nsystem\n",
        b".",
    ],
)
def test_pickle_programs_that_ask_for_trouble(tmp_path, program):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(program)
    tracemalloc.start()
    try:
        with pytest.raises(P2FError):
            build_face_model("flame", path=path)
        assert tracemalloc.get_traced_memory()[1] < 1e7
    finally:
        tracemalloc.stop()


def test_a_pickle_program_may_not_be_long(tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(b"\x80\x02" + b"}" * 30_000 + b".")
    with pytest.raises(P2FError, match="longer than 20000 steps"):
        build_face_model("flame", path=path)


def test_a_matlab_file_that_unfolds_to_gigabytes(tmp_path):
    size = 2**27
    heading = struct.pack("<IIII", 6, 8, 6, 0) + struct.pack("<IIii", 5, 8, size // 8, 1)
    heading += struct.pack("<II", 1, 7) + b"shapePC\0" + struct.pack("<II", 9, size)
    stream = zlib.compressobj()
    body = stream.compress(struct.pack("<II", 14, len(heading) + size) + heading)
    body += b"".join(stream.compress(bytes(2**20)) for _ in range(size // 2**20)) + stream.flush()
    path = tmp_path / "01_MorphableModel.mat"
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    path.write_bytes(header + struct.pack("<II", 15, len(body)) + body)
    tracemalloc.start()
    try:
        with pytest.raises(P2FError, match=r"more than a file of .* may unfold to"):
            build_face_model("basel2009", path=path)
        assert tracemalloc.get_traced_memory()[1] < 2e7
    finally:
        tracemalloc.stop()


def test_an_hdf5_file_that_claims_gigabytes_or_points_elsewhere(tmp_path, truth):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["mean"] = truth.mean.ravel()

    def spoil(file: h5py.File, kind: str) -> None:
        del file["shape/model/mean"]
        if kind == "huge":
            file.create_dataset("shape/model/mean", (2**40,), "f4", chunks=(1024,))
        elif kind == "link":
            file["shape/model/mean"] = h5py.ExternalLink(str(secret), "mean")
        elif kind == "external":
            file.create_dataset(
                "shape/model/mean", (360,), "f8", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
            )
        else:
            layout = h5py.VirtualLayout((360,), "f8")
            layout[:] = h5py.VirtualSource(str(secret), "mean", (360,))
            file.create_virtual_dataset("shape/model/mean", layout)

    for kind in ("huge", "link", "external", "virtual"):
        path = files.write_basel2017(tmp_path, truth)
        with h5py.File(path, "a") as file:
            spoil(file, kind)
        with pytest.raises(P2FError, match=r"may unfold|refers to another file"):
            build_face_model("basel2017", path=path)


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_memory_stays_near_the_files_size(tmp_path, name):
    source, write = WRITERS[name]
    if name == "flame":
        path = files.write_flame(tmp_path, files.flame_content(700))
    else:
        path = write(tmp_path, files.truth(4000, 50, 20))
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size > 2e6
    READERS[source](path)  # caches, imports
    tracemalloc.start()
    try:
        READERS[source](path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"{name}: peak {peak / size:.2f} of {size / 1e6:.1f} MB")
    assert peak < 3 * size


# --- landmarks for models that have none ----------------------------------------------------------


@pytest.fixture(scope="module")
def open_model() -> MorphableModel:
    path = Path("build/face_model.safetensors")
    if not path.is_file():
        pytest.skip("no face model built")
    return MorphableModel.load(path, 1)


def stranger(
    source: MorphableModel, seed: int, front: bool = False
) -> tuple[MorphableModel, np.ndarray]:
    """Another person on a finer, renumbered mesh, turned, enlarged and moved; and where this puts
    the source's vertices."""
    rng = np.random.default_rng(seed)
    coefficients = 0.8 * rng.normal(size=source.n_shape) * source.shape_sigma
    fine = source.coarse.subdivided(2)
    turn = 1.1 * Rotation.from_euler("yxz", rng.uniform(-8, 8, 3), degrees=True).as_matrix()
    move = rng.normal(0, 10, 3)
    places, truth = (
        (model.vertices(coefficients) @ turn.T + move).astype(np.float32)
        for model in (fine, source)
    )
    kept = fine.vertices(coefficients)[:, 2] > 0 if front else np.ones(len(places), bool)
    order = rng.permutation(np.flatnonzero(kept))
    number = np.full(len(kept), -1, np.int32)
    number[order] = np.arange(len(order))
    nothing = np.zeros((0, len(order), 3), np.float32), np.zeros(0, np.float32)
    triangles = number[fine.triangles[kept[fine.triangles].all(axis=1)]]
    target = MorphableModel("stranger", places[order], triangles, *nothing, *nothing, ())
    return target, truth


@pytest.mark.parametrize(("seed", "front"), [(0, False), (1, True)])
def test_landmarks_are_carried_over(open_model, seed, front):
    target, truth = stranger(open_model, seed, front)
    result = transfer_landmarks(open_model, target)
    for markup, vertices in open_model.landmarks.items():
        error = np.linalg.norm(result.mean[result.landmarks[markup]] - truth[vertices], axis=1)
        assert error.mean() < 1.3  # a third of the distance between vertices
        assert error.max() < 6
    if not front:
        return
    # What its publisher says comes first.
    known = np.full(68, -1)
    known[[8, 30]] = 5, 7
    given = transfer_landmarks(open_model, target, known)
    changed = given.landmarks["ibug68"] != result.landmarks["ibug68"]
    np.testing.assert_array_equal(np.flatnonzero(changed), [8, 30])
    assert given.landmarks["menpo84"][16] == given.landmarks["ibug68"][8] == 5


def test_landmarks_need_a_source_and_a_face(open_model, tmp_path, truth):
    target, _ = stranger(open_model, 0)
    with pytest.raises(P2FError, match="has no landmarks to carry over"):
        transfer_landmarks(target, target)
    tiny = build_face_model("basel2009", path=files.write_basel2009(tmp_path, truth))
    with pytest.raises(P2FError, match="don't meet"):
        transfer_landmarks(open_model, dataclasses.replace(tiny, mean=tiny.mean * 0.2))


def test_models_without_lists_get_landmarks_and_keep_their_own():
    source = toy_model()
    bare = dataclasses.replace(source, landmarks={"ibug68": source.landmarks["ibug68"] + 1})
    found = ensure_landmarks(bare, source).landmarks
    np.testing.assert_array_equal(found["ibug68"], bare.landmarks["ibug68"])
    assert len(found["menpo84"]) == 84
    assert ensure_landmarks(source, None) is source
