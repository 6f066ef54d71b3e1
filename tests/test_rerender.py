"""Photos shown anew: where things go, what light does, and what is refused."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from p2f_lib import cli, reconstruction, rerender
from p2f_lib.camera import FRONTAL, PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.crop import Box, Crop
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import render_vertices
from p2f_lib.images import read_image, write_image
from p2f_lib.landmarks import visible_vertices
from p2f_lib.morphable_model import vertex_normals
from p2f_lib.rasterizer import interpolate
from p2f_lib.reconstruction import Face, Reconstructor
from tests.oracle import STUB_UNET, Scene
from tests.toy import toy_model

WIDTH, HEIGHT = 240, 200


@pytest.fixture(scope="module")
def model():
    return toy_model()


def fitted(model, pose=(0.0, 0.0, 0.0), expression=None, shape=None, center=None) -> Face:
    """A face as the reconstruction of a perfect network would give it."""
    center = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]) if center is None else np.array(center)
    rotation = rotation_from_pose(Pose(*pose))
    camera = PerspectiveCamera(600.0, center, rotation, np.array([0.0, 0.0, 900.0]))
    shape = np.zeros(model.n_shape, np.float32) if shape is None else shape
    expression = np.zeros(model.n_expression, np.float32) if expression is None else expression
    vertices = model.vertices(shape, expression)
    box = Box.around(camera.project(vertices))
    crop = Crop.around(box, 96, 1.2)
    truth = render_vertices(model, vertices, camera.transformed(crop.from_picture), 96, 96)
    empty = np.zeros((96, 96, 3), np.uint8)
    return Face(
        model=model,
        box=box,
        crop=crop,
        image=empty,
        pncc=truth.pncc,
        offsets=truth.offsets,
        valid=truth.valid,
        camera=camera,
        affine=camera.affine(),
        shape=shape,
        expression=expression,
        precision=np.eye(len(shape) + len(expression)),
        vertices=vertices,
        localized=None,
        confidence=1.0,
        photo=empty,
        photo_crop=crop,
        photo_size=(WIDTH, HEIGHT),
    )


def positions() -> np.ndarray:
    """(H, W, 3) uint8: red is the column, green the row."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x, y, np.full_like(x, 128)], -1).astype(np.uint8)


def texture(seed=0) -> np.ndarray:
    """(H, W, 3) uint8: smooth noise."""
    noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT // 8, WIDTH // 8, 3))
    return cv2.resize(noise.astype(np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def well_seen(face, view, cosine=0.5) -> np.ndarray:
    """Indices of vertices that the photo and the view both show at no steep slant."""
    seen = np.ones(len(face.vertices), bool)
    for vertices, camera in ((face.vertices, face.camera), (view.vertices, view.camera)):
        toward = vertex_normals(vertices, face.triangles) @ -camera.rotation[2]
        seen &= visible_vertices(vertices, face.triangles, camera) & (toward > cosine)
    return np.flatnonzero(seen)


def at(picture, pixels) -> np.ndarray:
    x, y = np.rint(pixels).astype(int).T
    return picture[y, x].astype(float)


@pytest.mark.parametrize("pose", [(0, 0, 0), (35, 8, -5)])
def test_the_same_view_is_the_photo(model, pose):
    face, photo = fitted(model, pose), texture()
    same = rerender.turned(face, photo)
    difference = np.abs(same.astype(float) - photo)
    assert difference.mean() < 0.1
    assert np.percentile(difference, 99.5) <= 2


@pytest.mark.parametrize("angles", [{"yaw": 25.0}, {"yaw": -25.0}, {"pitch": 15}, {"roll": 30}])
def test_a_turned_head_takes_its_texture_along(model, angles):
    """Colours that code their place say where the photo showed each point of the surface."""
    face = fitted(model)
    view = rerender.posed(face, **angles)
    rows = well_seen(face, view, 0.75)
    assert len(rows) > 100
    seen = at(
        rerender.turned(face, positions(), **angles), view.camera.project(view.vertices[rows])
    )
    gaps = np.linalg.norm(seen[:, :2] - face.project(face.vertices[rows]), axis=1)
    assert np.median(gaps) < 1.0
    assert np.percentile(gaps, 90) < 3.0
    assert (
        np.linalg.norm(
            view.camera.project(view.vertices[rows]) - face.project(face.vertices[rows]), axis=1
        ).mean()
        > 4
    )  # or the test would show nothing


def test_turning_left_mirrors_turning_right(model):
    face, photo = fitted(model), texture()
    right = rerender.turned(face, photo, yaw=30)
    left = rerender.turned(face, np.ascontiguousarray(photo[:, ::-1]), yaw=-30)
    apart = np.abs(right[:, ::-1].astype(float) - left).mean()
    assert apart < 0.15 * np.abs(right.astype(float) - photo).mean()


def test_what_the_photo_hides_comes_from_the_other_side(model):
    """A half-profile, its far half unseen, of a head whose halves look alike."""
    profile = fitted(model, (50, 0, 0))
    heights = (model.mean[:, 1:2] + 120) * [1.0, 0.5, 0.2]
    picture = render_vertices(model, model.mean, profile.camera, HEIGHT, WIDTH)
    colors = interpolate(picture.raster, model.triangles, heights)
    photo = np.where(picture.valid[..., None], colors, 0).astype(np.uint8)
    view = rerender.posed(profile, 0.0)
    facing = vertex_normals(model.mean, model.triangles)[:, 2] > 0.6
    hidden = facing & ~visible_vertices(model.mean, model.triangles, profile.camera)
    assert hidden.sum() > 20
    frontal = rerender.turned(profile, photo, yaw=0)
    seen = at(frontal, view.camera.project(model.mean[hidden]))
    assert np.median(np.abs(seen[:, 0] - heights[hidden, 0])) < 6


def test_no_second_face_shows(model):
    """The head's own colour is nowhere but on the head after it has turned away from the side."""
    face = fitted(model, (30, 0, 0))
    mask = render_vertices(model, face.vertices, face.camera, HEIGHT, WIDTH).valid
    photo = np.where(mask[..., None], [255, 0, 0], [0, 0, 255]).astype(np.uint8)
    turned = rerender.turned(face, photo, yaw=-30)
    after = rerender.posed(face, -30)
    mask = render_vertices(model, after.vertices, after.camera, HEIGHT, WIDTH).valid
    around = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
    assert (turned[around, 0] > 128).mean() < 0.002
    assert (turned[mask, 0] > 128).mean() > 0.9


def test_a_neutral_face_is_where_the_model_says(model):
    expression = np.array([0.0, 0.0, 0.0, 2.0], np.float32)
    face = fitted(model, expression=expression)
    view = rerender.expressed(face, None)
    np.testing.assert_array_equal(view.vertices, model.vertices(face.shape))
    moved = np.linalg.norm(view.vertices - face.vertices, axis=1) > 10
    rows = np.intersect1d(np.flatnonzero(moved), well_seen(face, view))
    assert len(rows) > 5
    picture = rerender.with_expression(face, positions(), None)
    seen = at(picture, face.project(view.vertices[rows]))
    gaps = np.linalg.norm(seen[:, :2] - face.project(face.vertices[rows]), axis=1)
    assert np.median(gaps) < 1.5


def test_a_mouth_that_opens_is_dark_inside():
    model = toy_model()
    centers = model.mean[model.triangles].mean(axis=1)
    mouth = (np.hypot(centers[:, 0] / 25, (centers[:, 1] + 55) / 10) < 1) & (centers[:, 2] > 0)
    model = replace(model, triangles=model.triangles[~mouth & (centers[:, 2] > -20)])
    basis = model.expression_basis.copy()
    basis[0] = (model.mean[:, 1:2] < -55) * np.array([0.0, -40.0, 0.0])
    model = replace(model, expression_basis=basis)
    face = fitted(model)
    photo = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    opened = np.array([1.0, 0.0, 0.0, 0.0])
    middle = np.rint(face.project(np.array([[0.0, -75.0, 40.0]]))).astype(int)[0]
    closed_picture = rerender.with_expression(face, photo, None)
    assert closed_picture[middle[1], middle[0]].min() > 190
    picture = rerender.with_expression(face, photo, opened)
    assert picture[middle[1], middle[0]].max() < 60


def lambertian(face, light, albedo) -> np.ndarray:
    """(H, W, 3) uint8: the mesh in one colour under a light, display values."""
    normals = vertex_normals(face.vertices, face.triangles) @ (FRONTAL @ face.camera.rotation).T
    shown = render_vertices(face.model, face.vertices, face.camera, HEIGHT, WIDTH)
    linear = interpolate(shown.raster, face.triangles, albedo * light.shading(normals))
    picture = np.clip(linear, 0, 1) ** (1 / rerender.GAMMA) * 255
    return np.where(shown.valid[..., None], np.rint(picture), 90).astype(np.uint8)


@pytest.mark.parametrize("name", ["left", "above", "even"])
def test_the_light_of_a_lambertian_face_is_found(model, name):
    face, light = fitted(model, (10, 0, 0)), rerender.named_light(name)
    found = rerender.estimated_light(face, lambertian(face, light, np.array([0.6, 0.4, 0.3])))
    rows = well_seen(face, rerender.View(face.vertices, face.camera))
    normals = vertex_normals(face.vertices, face.triangles)[rows]
    normals = normals @ (FRONTAL @ face.camera.rotation).T
    truth, shading = light.shading(normals), found.shading(normals)
    shading *= truth.mean(axis=0) / shading.mean(axis=0)
    assert np.abs(shading - truth).max() < 0.2
    assert np.abs(shading - truth).mean() < 0.04


def test_relighting_moves_the_light(model):
    face = fitted(model)
    photo = lambertian(face, rerender.named_light("left"), np.array([0.5, 0.5, 0.5]))
    wanted = lambertian(face, rerender.named_light("right"), np.array([0.5, 0.5, 0.5]))
    relit = rerender.relit(face, photo, rerender.named_light("right"))
    core = np.zeros((HEIGHT, WIDTH), bool)
    core[60:140, 90:150] = True
    assert (
        np.abs(relit.astype(float) - wanted)[core].mean()
        < 0.4 * np.abs(photo.astype(float) - wanted)[core].mean()
    )
    unchanged = rerender.relit(face, photo, rerender.estimated_light(face, photo))
    assert np.abs(unchanged.astype(float) - photo).mean() < 1.0


def test_gains_are_bounded(model):
    face, photo = fitted(model), texture()
    glaring = rerender.Light(1000 * rerender.named_light("left").coefficients)
    plain = rerender.relit(face, photo, rerender.named_light("left"))
    ratio = rerender.relit(face, photo, glaring) / np.maximum(plain, 1)
    assert np.percentile(ratio, 99.9) <= (rerender.GAINS[1] / rerender.GAINS[0]) ** (
        1 / rerender.GAMMA
    )


def test_harmonics_are_orthonormal():
    directions = np.random.default_rng(0).normal(size=(200_000, 3))
    basis = rerender.harmonics(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    np.testing.assert_allclose(4 * np.pi * basis.T @ basis / len(basis), np.eye(9), atol=0.03)


def test_jitter_is_decided_by_its_seed(model):
    face, photo = fitted(model), texture()
    one, same, other = (
        rerender.jittered(face, photo, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    rng = np.random.default_rng(0)
    views = [rerender.jittered_view(face, rng, rerender.PROFILE_YAW) for _ in range(40)]
    yaws = np.array([view.camera.pose.yaw for view in views])
    assert (np.abs(yaws) > 29.9).all()
    assert (np.abs(yaws) < 90.1).all()
    assert yaws.min() < -30 < 30 < yaws.max()
    assert len({view.vertices.tobytes() for view in views}) > 20


def test_a_blend_lies_between_two_faces(model):
    shape = np.array([1.0, -1.0, 0.5, 0.0, 0.0], np.float32)
    face, other = fitted(model), fitted(model, shape=shape, center=(110.0, 95.0))
    dark, bright = (np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (40, 200))
    np.testing.assert_allclose(rerender.blended(face, dark, other, bright, 0.0), dark, atol=1)
    half = rerender.blended(face, dark, other, bright, 0.5)
    middle = np.rint(face.project(np.array([[0.0, 0.0, 60.0]]))).astype(int)[0]
    np.testing.assert_allclose(half[middle[1], middle[0]], 120, atol=3)
    np.testing.assert_array_equal(half[:5], 40)
    mixed = rerender.between(face, other, 0.25)
    np.testing.assert_allclose(mixed.vertices, model.vertices(0.25 * shape), atol=1e-3)


def test_relative_angles_start_at_the_photo(model):
    face = fitted(model, (20, 5, 0))
    pose = rerender.posed(face, yaw=10, relative=True).camera.pose
    np.testing.assert_allclose((pose.yaw, pose.pitch, pose.roll), (30, 5, 0), atol=1e-6)


def test_points_of_any_number_are_sampled():
    picture, rng = positions(), np.random.default_rng(0)
    points = rng.uniform(0, [WIDTH - 1, HEIGHT - 1], (70_001, 2))
    sampled = rerender._at(picture, points)
    np.testing.assert_allclose(sampled[:, :2], points, atol=0.6)  # of whole grey levels
    beyond = rerender._at(np.ones((5, 5), np.float32), np.array([[9.0, 2.0]]), cv2.BORDER_CONSTANT)
    assert beyond.tolist() == [[0.0]]


def test_a_head_outside_the_picture_changes_nothing(model):
    face, photo = fitted(model, center=(5000.0, 100.0)), texture()
    np.testing.assert_array_equal(rerender.turned(face, photo, yaw=30), photo)


def test_wrong_wishes_are_refused(model):
    face, photo = fitted(model), texture()
    with pytest.raises(P2FError, match="yaw has to be a finite number of degrees, got nan"):
        rerender.turned(face, photo, yaw=np.nan)
    with pytest.raises(P2FError, match=r"shape \(3,\).*expects \(4,\)"):
        rerender.with_expression(face, photo, np.zeros(3))
    with pytest.raises(P2FError, match="finite"):
        rerender.with_expression(face, photo, np.full(4, np.inf))
    with pytest.raises(P2FError, match="no light 'moon'; there are left, right"):
        rerender.named_light("moon")
    with pytest.raises(P2FError, match=r"\(9, 3\), got shape \(9,\)"):
        rerender.Light(np.zeros(9))
    with pytest.raises(P2FError, match="between 0 and 1, got 2"):
        rerender.blended(face, photo, face, photo, 2)
    with pytest.raises(P2FError, match="lowest, highest"):
        rerender.jittered(face, photo, np.random.default_rng(0), (40, 30))
    with pytest.raises(P2FError, match="grey picture"):
        rerender.turned(face, photo[..., 0])
    names = replace(model, name="nameless", expression_names=("a", "b", "c", "d"))
    with pytest.raises(P2FError, match="'nameless' has no expression modes mouthSmileLeft"):
        rerender.smile(replace(face, model=names))
    with pytest.raises(P2FError, match="different face models"):
        rerender.transferred_expression(face, replace(face, model=toy_model(seed=1)))
    with pytest.raises(P2FError, match="Only 0 vertices"):
        rerender.estimated_light(fitted(model, center=(5000.0, 100.0)), photo)


# ---------------------------------------------------------------- the command


@pytest.fixture
def folder(model, monkeypatch, tmp_path) -> Path:
    """Two good pictures and a broken one, and a command that sees the good ones rightly."""
    scene = Scene.of(model, faces=[(0.5, 0.5, 10)])
    monkeypatch.setattr(reconstruction, "predict", scene.predict)
    monkeypatch.setattr(
        Reconstructor,
        "from_pretrained",
        classmethod(lambda cls, *_, **__: cls(model, STUB_UNET, scene.detector, passes=1)),
    )
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "c.png"):
        write_image(photos / name, scene.photo)
    (photos / "b.png").write_text("words")
    return photos


def run(capsys, *argv):
    status = cli.main(["render", *map(str, argv)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out.splitlines(), err.splitlines()


def test_the_command_renders_a_folder(capsys, folder, tmp_path):
    out = tmp_path / "out"
    status, lines, errors = run(capsys, folder, "--out", out, "--yaw", 40, "--expression", "smile")
    assert status == 1
    assert len(lines) == 2
    assert len(errors) == 1
    assert "b.png" in errors[0]
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "c.png"]
    before, after = read_image(folder / "a.png"), read_image(out / "a.png")
    assert after.shape == before.shape
    assert (after != before).any(axis=2).mean() > 0.1


def test_a_resumed_run_skips_whole_pictures(capsys, folder, tmp_path):
    words = [folder / "a.png", folder / "c.png", "--out", tmp_path / "out", "--jitter", 2]
    assert run(capsys, *words)[0] == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    half = tmp_path / "out" / "c_2.png"
    half.write_bytes(half.read_bytes()[:1000])
    status, lines, errors = run(capsys, *words, "--resume")
    assert (status, errors) == (0, [])
    assert [line.endswith("done before") for line in lines] == [True, False]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole


def test_the_command_never_overwrites_a_photo(capsys, folder):
    before = (folder / "a.png").read_bytes()
    status, _, _ = run(capsys, folder / "a.png", "--out", folder, "--light", "left")
    assert status == 0
    assert (folder / "a.png").read_bytes() == before
    assert (folder / "a-2.png").is_file()


def test_the_command_jitters_by_seed(capsys, folder, tmp_path):
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        arguments = ("--out", tmp_path / name, "--jitter", 2, "--seed", seed)
        status, _, _ = run(capsys, folder / "a.png", *arguments)
        assert status == 0
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["a_1.png", "a_2.png"]
    one, same, other = (
        [(tmp_path / name / f"a_{i}.png").read_bytes() for i in (1, 2)]
        for name in ("one", "same", "other")
    )
    assert one == same
    assert one[0] != one[1]
    assert one[0] != other[0]


def test_the_command_takes_expression_and_face_of_others(capsys, folder, tmp_path):
    arguments = ("--expression", folder / "c.png", "--blend", folder / "c.png", "--share", 0.3)
    status, lines, errors = run(capsys, folder / "a.png", "--out", tmp_path / "out", *arguments)
    assert (status, len(lines), errors) == (0, 1, [])


def test_the_sheet_shows_two_photos(capsys, folder, tmp_path):
    sheet = tmp_path / "views.jpg"
    photos = [str(folder / name) for name in ("a.png", "c.png")]
    assert cli.main(["views", *photos, "--out", str(sheet)]) == 0
    assert min(read_image(sheet).shape[:2]) > 500
    assert cli.main(["views", photos[0], "--out", str(sheet)]) == 1
    assert "two photos or more" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(capsys, folder, tmp_path):
    photo, out = folder / "a.png", tmp_path / "out"
    for arguments, words in (
        ((), "Nothing to change"),
        (("--jitter", 0), "at least 1, got 0"),
        (("--jitter", 2, "--yaw", 3), "leave out --yaw"),
        (("--light", "moon"), "There is no light 'moon'"),
        (("--expression", "grin"), "There is no file grin"),
    ):
        status, lines, errors = run(capsys, photo, "--out", out, *arguments)
        assert (status, lines) == (1, [])
        assert words in errors[0]
