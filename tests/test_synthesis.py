"""Synthetic photographs: what they promise, and their parts against slow obvious ones."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest

from p2f_lib.camera import AffineCamera
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import CameraDistribution, place_camera, render_ground_truth, sample_view
from p2f_lib.morphable_model import boundary_loops, vertex_normals
from p2f_lib.synthesis import (
    NO_FACE_SHARE,
    render_draw,
    render_photo,
    render_sample,
    render_samples,
    sample_appearance,
    sample_draw,
    sample_scene,
)
from p2f_lib.synthesis.anatomy import anatomy, sphere_directions, visibility
from p2f_lib.synthesis.background import draw_background
from p2f_lib.synthesis.hair import EDGE_ANGLES, build_sheet, edge_height
from p2f_lib.synthesis.lens import develop, sample_lens
from p2f_lib.synthesis.light import (
    highlights,
    irradiance,
    radiance,
    sample_light,
)
from p2f_lib.synthesis.noise import LATTICE, value_noise
from p2f_lib.synthesis.people import _hair
from p2f_lib.synthesis.skin import skin_albedo
from tests.toy import toy_model

SIZE = 72
FRONTAL = CameraDistribution(frontal_share=1.0, frontal_sigma=5.0, tilt_limit=5.0)


@pytest.fixture(scope="module")
def model():
    """The toy face with eyes that can look and with a mouth hole."""
    toy = toy_model()
    x, y, z = toy.mean.T
    marks = toy.mean[toy.landmarks["ibug68"]]
    mouth = marks[60:68].mean(0)
    hole = (((x - mouth[0]) / 16) ** 2 + ((y - mouth[1]) / 7) ** 2 < 1) & (z > 0)
    eyes = np.stack([marks[36:42].mean(0), marks[42:48].mean(0)])
    gaze = np.linalg.norm(toy.mean[:, None] - eyes, axis=2).min(1).astype(np.float32)
    return replace(
        toy,
        triangles=toy.triangles[~hole[toy.triangles].any(axis=1)],
        regions=toy.regions | {"gaze_radius": gaze},
    )


@pytest.fixture(scope="module")
def sample(model):
    return render_sample(model, 3, 5, SIZE)


@pytest.fixture
def person():
    """Someone without anything that hides the face, in a plain place, before a perfect lens."""
    rng = np.random.default_rng(2)
    appearance = replace(sample_appearance(rng), hair=None, hat=None, glasses=None)
    scene = sample_scene(rng)
    lens = replace(
        scene.lens, vignette=0.0, defocus=0.0, motion=(0.0, 0.0), shrink=1.0,
        noise=(0.0, 1.0, 0.0), jpeg=100, sharpen=0.0, monochrome=False,
    )  # fmt: skip
    return appearance, replace(scene, lens=lens, occluder=None)


def frontal_camera(model, vertices, seed=0, size=SIZE):
    view = sample_view(np.random.default_rng(seed), FRONTAL)
    return place_camera(view, vertices[model.landmarks["ibug68"]], size)


# ------------------------------------------------------------------------------------- samples


def test_a_sample_has_the_promised_arrays(sample, model):
    assert sample.image.shape == (SIZE, SIZE, 3)
    assert sample.image.dtype == np.uint8
    assert sample.pncc.shape == sample.offsets.shape == (SIZE, SIZE, 3)
    assert sample.valid.dtype == bool
    assert sample.landmarks.shape == (68, 2)
    assert not sample.pncc[~sample.valid].any()
    assert 0.05 < sample.valid.mean() < 0.6
    assert sample.image.std() > 5


def test_planes_are_the_ground_truth_of_the_coefficients(sample, model):
    truth = render_ground_truth(model, sample.shape, sample.expression, sample.camera, SIZE, SIZE)
    np.testing.assert_array_equal(sample.pncc, truth.pncc)
    np.testing.assert_array_equal(sample.offsets, truth.offsets)


def test_a_sample_is_a_pure_function_of_seed_and_index(sample, model):
    again = render_sample(model, 3, 5, SIZE)
    np.testing.assert_array_equal(again.image, sample.image)
    np.testing.assert_array_equal(again.offsets, sample.offsets)
    for seed, index in ((3, 6), (4, 5)):
        other = render_sample(model, seed, index, SIZE)
        assert (other.image != sample.image).mean() > 0.5


def test_many_samples_are_the_single_ones_in_order(model):
    indices = [9, 2]
    batch = render_samples(model, 1, indices, 48, no_face_share=0, processes=1, progress=False)
    assert batch.images.shape == (2, 48, 48, 3)
    assert batch.is_face.all()
    planes, valid = batch.targets(model)
    for row, index in enumerate(indices):
        single = render_sample(model, 1, index, 48)
        np.testing.assert_array_equal(batch.images[row], single.image)
        np.testing.assert_array_equal(batch.landmarks[row], single.landmarks)
        np.testing.assert_array_equal(batch.shape[row], single.shape)
        assert (valid[row] != single.valid).sum() <= 1
        both = valid[row] & single.valid
        np.testing.assert_allclose(planes[row, ..., :3][both], single.pncc[both], atol=0.05)
        np.testing.assert_allclose(planes[row, ..., 3:][both], single.offsets[both], atol=0.05)


def test_processes_that_end_by_themselves_are_told(tmp_path):
    """Without a guard, a script's processes start the script again; nothing may wait for them."""
    script = tmp_path / "script.py"
    script.write_text(
        "from p2f_lib.synthesis import render_samples\n"
        "from tests.toy import toy_model\n"
        "render_samples(toy_model(300), 0, range(2), size=16, processes=2, progress=False)\n"
    )
    root = Path(__file__).resolve().parents[1]
    ended = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    assert "ended by itself" in ended.stderr


def test_the_number_of_processes_changes_nothing(model):
    indices = list(range(6))
    one = render_samples(model, 8, indices, 40, processes=1, progress=False)
    two = render_samples(model, 8, indices, 40, processes=2, progress=False)
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.expression, two.expression)
    np.testing.assert_array_equal(one.landmarks, two.landmarks)
    np.testing.assert_array_equal(one.targets(model)[0], two.targets(model)[0])


def test_some_pictures_show_no_face_and_the_others_stay_as_they_are(model):
    indices = range(20)
    faces = render_samples(model, 2, indices, 32, 1, no_face_share=0, processes=1, progress=False)
    mixed = render_samples(model, 2, indices, 32, 1, no_face_share=0.4, processes=1, progress=False)
    assert faces.is_face.all()
    assert 3 <= (~mixed.is_face).sum() <= 14
    np.testing.assert_array_equal(faces.landmarks, mixed.landmarks)
    same = (faces.images == mixed.images).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(same, mixed.is_face)
    shares = [sample_draw(model, 0, i, no_face_share=NO_FACE_SHARE).is_face for i in range(300)]
    assert 0.01 < 1 - np.mean(shares) < 0.1


def test_a_picture_without_a_face_has_an_empty_target(model):
    sample = render_sample(model, 2, 0, 40, no_face_share=1.0)
    assert not sample.is_face
    assert sample.image.shape == (40, 40, 3)
    assert sample.image.dtype == np.uint8
    assert sample.image.std() > 2
    assert sample.landmarks.shape == (68, 2)
    for plane in (sample.pncc, sample.offsets, sample.valid):
        assert plane.shape[:2] == (40, 40)
        assert not plane.any()
    again = render_sample(model, 2, 0, 40, no_face_share=1.0)
    np.testing.assert_array_equal(sample.image, again.image)


def test_one_ingredient_is_left_out_without_disturbing_the_others(model):
    draw = sample_draw(model, 3, 5)
    sample = render_draw(model, draw, SIZE)
    np.testing.assert_array_equal(sample.image, render_sample(model, 3, 5, SIZE).image)
    plain = replace(draw, appearance=replace(draw.appearance, hair=None, hat=None, glasses=None))
    other = render_draw(model, plain, SIZE)
    np.testing.assert_array_equal(other.pncc, sample.pncc)
    np.testing.assert_array_equal(other.landmarks, sample.landmarks)
    hat = replace(draw, scene=replace(draw.scene, background=draw.scene.background + 1))
    changed = render_draw(model, hat, SIZE)
    np.testing.assert_array_equal(changed.valid, sample.valid)
    assert (changed.image != sample.image).any()
    somebody = sample_draw(model, 3, 5, shape=np.zeros(model.n_shape, np.float32))
    assert not somebody.shape.any()
    assert somebody.view == draw.view
    assert somebody.noise == draw.noise


def test_wrong_numbers_get_a_sentence(model, person):
    with pytest.raises(P2FError, match="at least one process"):
        render_samples(model, 0, [0], processes=0, progress=False)
    camera = frontal_camera(model, model.mean)
    rng = np.random.default_rng(0)
    with pytest.raises(P2FError, match="supersample"):
        render_photo(model, model.mean, camera, *person, SIZE, SIZE, rng, supersample=0)
    with pytest.raises(P2FError, match="vertices"):
        render_photo(model, model.mean[:-1], camera, *person, SIZE, SIZE, rng)


# -------------------------------------------------------------------------------------- photos


def test_frames_of_one_scene_share_the_background(model, person):
    """Only the person moves: a nod of the mouth leaves the picture's corners as they were."""
    appearance, scene = person
    scene = replace(scene, lens=replace(scene.lens, exposure=0.3))
    smile = model.vertices(None, np.float32([0, 1, 1, 0]))
    camera = frontal_camera(model, model.mean)
    frames = [
        render_photo(
            model, vertices, camera, appearance, scene, SIZE, SIZE, np.random.default_rng(frame)
        )[0].astype(int)
        for frame, vertices in enumerate((model.mean, smile))
    ]
    change = abs(frames[0] - frames[1])
    assert change[:12, :12].max() <= 6  # exposure may follow the face a little
    assert change[SIZE // 3 : -SIZE // 4, SIZE // 4 : -SIZE // 4].max() > 15


def test_the_noise_generator_is_for_noise_only(model, person):
    appearance, scene = person
    camera = frontal_camera(model, model.mean)
    one, two = (
        render_photo(
            model, model.mean, camera, appearance, scene, SIZE, SIZE, np.random.default_rng(k)
        )[0]
        for k in range(2)
    )
    np.testing.assert_array_equal(one, two)


def test_an_open_mouth_is_painted_but_not_valid(model, person):
    appearance, scene = person
    camera = frontal_camera(model, model.mean, size=160)
    image, truth = render_photo(
        model, model.mean, camera, appearance, scene, 160, 160, np.random.default_rng(0)
    )
    mouth = model.mean[anatomy(model).lips].mean(0)
    column, row = camera.project(mouth[None])[0].round().astype(int)
    assert not truth.valid[row, column]
    other = replace(scene, background=scene.background + 1)
    again, _ = render_photo(
        model, model.mean, camera, appearance, other, 160, 160, np.random.default_rng(0)
    )
    assert abs(image[row, column].astype(int) - again[row, column]).max() <= 4
    assert (image[:8, :8] != again[:8, :8]).any()


def test_an_occluder_hides_the_photo_but_not_the_truth(model, person):
    appearance, scene = person
    camera = frontal_camera(model, model.mean)
    hidden = replace(scene, occluder=4)
    results = [
        render_photo(model, model.mean, camera, appearance, s, SIZE, SIZE, np.random.default_rng(0))
        for s in (scene, hidden)
    ]
    np.testing.assert_array_equal(results[0][1].pncc, results[1][1].pncc)
    assert (results[0][0] != results[1][0]).any()


def test_other_shapes_and_cameras(model, person):
    camera = frontal_camera(model, model.mean)
    affine = camera.affine()
    assert isinstance(affine, AffineCamera)
    for chosen, height, width in ((camera, 50, 90), (affine, SIZE, SIZE)):
        image, truth = render_photo(
            model, model.mean, chosen, *person, height, width, np.random.default_rng(0), 1
        )
        assert image.shape == truth.pncc.shape == (height, width, 3)
        assert truth.valid.any()


def test_a_face_outside_the_picture_leaves_a_picture(model, person):
    camera = frontal_camera(model, model.mean).scaled(1.0, (1000.0, 0.0))
    image, truth = render_photo(
        model, model.mean, camera, *person, SIZE, SIZE, np.random.default_rng(0)
    )
    assert image.shape == (SIZE, SIZE, 3)
    assert not truth.valid.any()


def test_brighter_lamps_and_darker_skin_show(model, person):
    appearance, scene = person
    camera = frontal_camera(model, model.mean)

    def face_level(skin):
        image, truth = render_photo(
            model, model.mean, camera, replace(appearance, skin=skin), scene, SIZE, SIZE,
            np.random.default_rng(0),
        )  # fmt: skip
        return image[truth.valid].mean()

    assert face_level(skin_albedo(0.1, 0)) > face_level(skin_albedo(0.9, 0)) + 10


# --------------------------------------------------------------------------------------- parts


def test_boundary_loops_of_a_sheet_with_a_hole():
    n = 6
    index = np.arange(n * n).reshape(n, n)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    cells = np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], 2)
    keep = np.ones((n - 1, n - 1), bool)
    keep[2, 2] = False
    loops = boundary_loops(cells[keep].reshape(-1, 3))
    outer = set(index[0]) | set(index[-1]) | set(index[:, 0]) | set(index[:, -1])
    assert [set(loop.tolist()) for loop in loops] == [outer, set(index[2:4, 2:4].ravel())]


def test_a_closed_mesh_has_no_boundary_and_still_makes_a_person():
    toy = toy_model(600)
    assert boundary_loops(toy.triangles) == []
    person = anatomy(toy)
    assert len(person.rim) == len(person.lips) == 0
    assert person.person(toy.mean, np.eye(3)).shape == (person.n_total, 3)


def test_the_person_keeps_the_face_and_is_whole(model):
    person = anatomy(model)
    body = person.person(model.mean, np.eye(3))
    np.testing.assert_array_equal(body[: model.n_vertices], model.mean)
    np.testing.assert_array_equal(person.triangles[: len(model.triangles)], model.triangles)
    assert person.triangles.max() == person.n_total - 1
    assert np.isfinite(body).all()
    assert len(person.lips) >= 8


def test_visibility_of_a_point_under_a_roof():
    roof = np.array([[-9, 5, -9], [9, 5, -9], [9, 5, 9], [-9, 5, 9]], float)
    floor = roof * [1, 0, 1]
    vertices = np.concatenate([floor, roof, [[0, 0, 0]]])
    square = np.array([[0, 2, 1], [0, 3, 2]])
    triangles = np.concatenate([square, square + 4])
    directions = np.array([[0, 1.0, 0], [0, -1.0, 0]])
    seen = visibility(vertices, triangles, directions, len(vertices))
    np.testing.assert_allclose(seen[-1, 0], 0.0)
    np.testing.assert_allclose(seen[4:8, 0], 1.0)


def test_irradiance_is_the_sum_over_directions():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    directions = sphere_directions(30)
    visible = rng.random((50, 30), dtype=np.float32)
    arriving = rng.random((30, 6), dtype=np.float32)
    rows = rng.permutation(50)[:20]
    slow = np.zeros((20, 6))
    for i in range(20):
        for d in range(30):
            slow[i] += max(normals[i] @ directions[d], 0) * visible[rows[i], d] * arriving[d]
    columns = np.ascontiguousarray(directions.T), np.ascontiguousarray(arriving.T)
    np.testing.assert_allclose(irradiance(normals, visible, rows, *columns), slow, rtol=1e-4)
    everything = irradiance(normals, visible[:0], rows, *columns)
    np.testing.assert_allclose(
        everything, np.maximum(normals @ directions.T, 0) @ arriving, rtol=1e-4
    )


def test_a_uniform_sky_lights_all_sides_alike():
    light = sample_light(np.random.default_rng(0))
    light = replace(light, sky=np.ones(3), ground=np.ones(3), colors=0 * light.colors)
    directions = sphere_directions(96)
    rest, key = radiance(light, directions)
    assert not key.any()
    columns = np.ascontiguousarray(directions.T), np.ascontiguousarray(rest.T)
    nothing = np.zeros((0, 96), np.float32), np.zeros(0, np.int64)
    level = irradiance(sphere_directions(50), *nothing, *columns)
    np.testing.assert_allclose(level, 1.0, atol=0.05)


def test_the_key_lamp_is_apart_from_the_rest():
    light = sample_light(np.random.default_rng(1))
    directions = sphere_directions(96)
    rest, key = radiance(light, directions)
    dark_key = replace(light, colors=np.concatenate([0 * light.colors[:1], light.colors[1:]]))
    np.testing.assert_allclose(rest, radiance(dark_key, directions)[0], rtol=1e-5)
    np.testing.assert_allclose(key.sum(axis=0), light.colors[0], rtol=1e-4)


def test_highlights_equal_the_formula_of_one_point():
    rng = np.random.default_rng(2)
    light = sample_light(rng)
    normals = rng.normal(size=(30, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    view, power = np.array([0.0, 0.6, 0.8]), 20.0
    slow = np.zeros((30, 3))
    for n, normal in enumerate(normals.astype(float)):
        for lamp, color, sharp in zip(light.directions, light.colors, light.sharpness, strict=True):
            half = (lamp + view) / np.linalg.norm(lamp + view)
            wide = 1 / (1 / power + 1 / sharp)
            grazing = 1 + 3 * (1 - np.clip(normal @ view, 0, 1)) ** 4
            lit = np.clip(4 * normal @ lamp, 0, 1)
            slow[n] += color * (wide / power) * grazing * lit * max(normal @ half, 0) ** wide
    fast = highlights(normals, view, light, light.directions, power)
    np.testing.assert_allclose(fast, slow, rtol=2e-3, atol=1e-5)


def test_vertex_normals_of_a_cube():
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    from scipy.spatial import ConvexHull

    hull = ConvexHull(corners)
    sides = corners[hull.simplices]
    outward = np.einsum(
        "ij,ij->i", np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0]), sides.sum(1)
    )
    triangles = np.where(outward[:, None] > 0, hull.simplices, hull.simplices[:, ::-1])
    normals = vertex_normals(corners, triangles.astype(np.int32))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, rtol=1e-5)
    assert (np.sign(normals) == np.sign(corners)).all()


@numba.njit
def noise_along(points):
    """`value_noise` at each of (N, 3) points."""
    return np.array([value_noise(LATTICE, x, y, z) for x, y, z in points])


def test_noise_is_trilinear_in_the_lattice():
    points = np.random.default_rng(0).uniform(-40, 40, (50, 3)).astype(np.float32)
    slow = []
    for x, y, z in points.astype(float):
        low = np.floor([x, y, z]).astype(int)
        share = np.array([x, y, z]) - low
        total = 0.0
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod(np.where(corner, share, 1 - share))
            i, j, k = (low + corner) % 32
            total += weight * LATTICE[k, j, i]
        slow.append(total)
    np.testing.assert_allclose(noise_along(points), slow, atol=1e-5)


def test_noise_stays_within_one_and_repeats():
    points = np.random.default_rng(1).uniform(0, 20, (500, 3))
    values = noise_along(points)
    assert 0 <= values.min() < values.max() <= 1
    assert values.std() > 0.1
    np.testing.assert_array_equal(values, noise_along(points))
    np.testing.assert_allclose(noise_along(points + 32), values, atol=1e-5)  # its period


def test_skin_gets_darker_with_melanin_and_redder_with_blood():
    tones = np.stack([skin_albedo(t, 0.0) for t in np.linspace(0, 1, 20)])
    assert (np.diff(tones, axis=0) < 0).all()
    assert (tones[:, 0] > tones[:, 1]).all()
    pale, ruddy = skin_albedo(0.3, -1.0), skin_albedo(0.3, 1.0)
    assert ruddy[0] / ruddy[1] > pale[0] / pale[1]


def test_edges_follow_their_knots_on_both_sides():
    edge = np.stack([np.linspace(0.5, -1.0, 8), np.linspace(0.4, -0.5, 8)])
    np.testing.assert_allclose(edge_height(edge, EDGE_ANGLES[2:-1]), edge[1, 2:-1], atol=0.05)
    np.testing.assert_allclose(edge_height(edge, -EDGE_ANGLES[2:-1]), edge[0, 2:-1], atol=0.05)


def test_long_hair_falls_lower_than_short_hair(model):
    person = anatomy(model)
    body = person.person(model.mean, np.eye(3))
    frame = person.frame(model.mean)
    down = np.array([0, -1.0, 0])
    rng = np.random.default_rng(0)
    sheets = [_hair(rng, np.full(3, 0.1), flat=False)[0] for _ in range(40)]
    sheets = sorted((s for s in sheets if s is not None), key=lambda s: s.edge.min())
    lowest = []
    for sheet in (sheets[0], sheets[-1]):
        mesh = build_sheet(sheet, person, body, frame, down)
        assert mesh.triangles.max() < len(mesh.vertices) == len(mesh.margin)
        lowest.append(mesh.vertices[mesh.margin > 0, 1].min())
    assert lowest[0] < lowest[1] - 30


@pytest.mark.parametrize("seed", range(8))
def test_backgrounds_are_pictures(seed):
    picture = draw_background(np.random.default_rng(seed), 40, 56)
    assert picture.shape == (40, 56, 3)
    assert 0 <= picture.min() <= picture.max() <= 1
    np.testing.assert_array_equal(picture, draw_background(np.random.default_rng(seed), 40, 56))


def test_the_lens_exposes_for_the_face(person):
    lens = replace(
        person[1].lens, exposure=0.25, balance=np.ones(3), gamma=1.0, contrast=1.0,
        saturation=1.0, lift=0.0,
    )  # fmt: skip
    face = np.ones((20, 20), bool)
    dim, bright = (
        develop(np.full((20, 20, 3), level, np.float32), face, lens, np.random.default_rng(0))
        for level in (0.05, 0.8)
    )
    right = develop(np.full((20, 20, 3), 0.25, np.float32), face, lens, np.random.default_rng(0))
    assert 0 < dim.mean() < right.mean() < bright.mean() < 255
    # A quarter of the exposure error is left.
    expected = 255 * (0.8 * (0.25 / 0.8) ** 0.75 * (0.25 / 0.3) ** 0.25) ** (1 / 2.2)
    np.testing.assert_allclose(bright.mean(), expected, atol=1)


def test_lenses_differ_and_never_fail():
    picture = np.random.default_rng(0).random((33, 47, 3), dtype=np.float32)
    face = np.zeros((33, 47), bool)
    results = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        image = develop(picture.copy(), face, sample_lens(rng), rng)
        assert image.shape == picture.shape
        assert image.dtype == np.uint8
        results.add(image.tobytes())
    assert len(results) == 30
