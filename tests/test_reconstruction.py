"""Photo to face, with a network that can't err in place of the trained one."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import trimesh

import p2f_lib
from p2f_lib import reconstruction
from p2f_lib.crop import Box
from p2f_lib.detection import Detection
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.ground_truth import render_vertices
from p2f_lib.reconstruction import (
    Reconstructor,
    as_box,
    choose_device,
    confidence,
    find_weights,
    share_shape,
    with_landmarks,
)
from p2f_lib.texture import texture_map
from p2f_lib.unet import NetworkConfig, UNet, save_unet
from tests.oracle import SIZE, STUB_UNET, Scene
from tests.toy import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture
def see(monkeypatch, model):
    """A function from a scene to a reconstructor whose network sees that scene."""

    def build(scene, detector=None, **options):
        monkeypatch.setattr(reconstruction, "predict", scene.predict)
        return Reconstructor(model, STUB_UNET, detector or scene.detector, **options)

    return build


def pixel_errors(face, person, markup="ibug68"):
    return np.linalg.norm(face.landmarks(markup) - person.landmarks(markup), axis=1)


@pytest.mark.parametrize("yaw", [0.0, 35.0, -35.0])
def test_landmarks_and_pose_agree_with_the_truth(model, see, yaw):
    scene = Scene.of(model, seed=1, faces=[(0.45, 0.55, yaw)])
    person = scene.people[0]
    face = see(scene).reconstruct(scene.photo, person.box)
    for markup, count in (("ibug68", 68), ("menpo84", 84)):
        errors = pixel_errors(face, person, markup)
        assert errors.shape == (count,)
        assert errors.mean() < 0.5
        assert errors.max() < 2.5
        apart = face.landmarks_3d(markup) - person.vertices[model.landmarks[markup]]
        assert np.linalg.norm(apart, axis=1).mean() < 1.0
    pose = person.camera.pose
    for name in ("yaw", "pitch", "roll"):
        assert abs(getattr(face.pose, name) - getattr(pose, name)) < 2.0
    np.testing.assert_allclose(face.shape, person.shape, atol=0.3)
    np.testing.assert_allclose(face.expression, person.expression, atol=0.15)
    assert face.confidence > 0.9


def test_the_box_hardly_matters(model, see):
    """Two passes: the second looks where the first found the face."""
    scene = Scene.of(model)
    person = scene.people[0]
    (x, y), side = person.box.center, person.box.height
    twice, once = see(scene), see(scene, passes=1)
    spread = {twice: [], once: []}
    for dx, dy, size in ((0.2, 0, 1), (-0.2, 0, 1), (0, 0.15, 1.2), (0, -0.15, 0.85)):
        half = side * size / 2
        box = (x + dx * side - half, y + dy * side - half)
        box = (*box, box[0] + 2 * half, box[1] + 2 * half)
        for reconstructor, crops in spread.items():
            face = reconstructor.reconstruct(scene.photo, box)
            assert pixel_errors(face, person).mean() < 1.0
            assert face.box == Box(*box)
            crops.append([face.crop.left, face.crop.top, face.crop.side])
    assert np.ptp(spread[twice], axis=0).max() < 0.1 * np.ptp(spread[once], axis=0).max()


def test_a_good_box_needs_no_second_pass(model, see):
    scene = Scene.of(model)
    person = scene.people[0]
    reconstructor = see(scene, same_crop=0.75)

    def passes(box):
        before = len(scene.crops_seen)
        face = reconstructor.reconstruct(scene.photo, box)
        assert pixel_errors(face, person).mean() < 1.0
        return len(scene.crops_seen) - before

    fitted = Box.around(person.landmarks("ibug68"))
    assert passes(fitted) == 1
    left, top, right, bottom = fitted.as_tuple()
    wide = (left - 0.3 * fitted.width, top - 0.3 * fitted.height, right, bottom)
    assert Box(*wide).overlap(fitted) < 0.75
    assert passes(wide) == 2


def test_the_overlap_of_boxes():
    box = Box(0, 0, 4, 2)
    assert box.overlap(box) == 1
    assert box.overlap(Box(2, 0, 6, 2)) == pytest.approx(4 / 12)
    assert box.overlap(Box(4, 0, 6, 2)) == 0
    assert box.overlap(Box(9, 9, 10, 10)) == 0
    assert box.overlap(Box(1, 0, 2, 1)) == pytest.approx(1 / 8)


def test_planes_points_and_colors_belong_together(model, see):
    scene = Scene.of(model, seed=2)
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    assert face.image.shape == face.pncc.shape == face.offsets.shape == (SIZE, SIZE, 3)
    assert face.valid.shape == (SIZE, SIZE)
    assert not face.pncc[~face.valid].any()
    assert not face.offsets[~face.valid].any()
    assert len(face.points) == len(face.point_colors) == face.valid.sum() > 1000
    # Each point projects to the pixel that it was seen at, and bears that pixel's colour, which
    # in this photo says where it is.
    seen_at = face.crop.points_to_picture(np.argwhere(face.valid)[:, ::-1])
    assert np.linalg.norm(face.project(face.points) - seen_at, axis=1).mean() < 0.5
    told = face.point_colors[:, :2] / 255 * [scene.width - 1, scene.height - 1]
    assert np.abs(told - seen_at).max() < 2.0
    assert face.point_colors.dtype == np.uint8
    # Network and fit describe the same surface.
    in_crop = face.camera.transformed(face.crop.from_picture)
    fitted = render_vertices(model, face.vertices, in_crop, SIZE, SIZE)
    both = face.valid & fitted.valid
    assert both.sum() > 0.98 * face.valid.sum()
    gap = (face.pncc + face.offsets - fitted.pncc - fitted.offsets)[both]
    assert np.linalg.norm(gap, axis=1).mean() < 2.0


def test_both_cameras_are_in_photo_pixels(model, see):
    scene = Scene.of(model, faces=[(0.3, 0.6, 10)])
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    np.testing.assert_allclose(
        face.camera.principal_point, [(scene.width - 1) / 2, (scene.height - 1) / 2]
    )
    gap = face.affine.project(face.landmarks_3d()) - face.landmarks()
    assert np.linalg.norm(gap, axis=1).mean() < 4.0


def test_faces_of_one_person_share_a_shape(model, see):
    faces = []
    for yaw in (-35.0, 35.0):
        scene = Scene.of(model, seed=1, faces=[(0.45, 0.55, yaw)])
        reconstructor = see(scene)
        faces.append((scene, reconstructor.reconstruct(scene.photo, scene.people[0].box)))
    shared = share_shape([face for _, face in faces], reconstructor.fitter)
    assert np.array_equal(shared[0].shape, shared[1].shape)
    for (scene, before), face in zip(faces, shared, strict=True):
        assert pixel_errors(face, scene.people[0]).mean() < 1.0
        assert not np.array_equal(face.vertices, before.vertices)
        assert face.textured_mesh(face.texture(64)).vertices is face.vertices
    with pytest.raises(P2FError, match="at least one picture"):
        share_shape([], reconstructor.fitter)
    other = replace(faces[0][1], model=toy_model(seed=1))
    with pytest.raises(P2FError, match="reconstruct all of them with one"):
        share_shape([other], reconstructor.fitter)


def test_hidden_landmarks_are_told(model, see):
    scene = Scene.of(model, faces=[(0.5, 0.5, 60)])
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    visible = face.landmarks_visible("ibug68")
    assert visible.shape == (68,)
    # The nose points to picture right, so the jaw's right end is turned away.
    assert visible[:4].all()
    assert not visible[13:17].any()
    deviation = face.landmarks_deviation("ibug68")
    assert deviation.shape == (68, 3)
    assert (deviation > 0).all()


def test_every_face_is_found_best_first(model, see):
    scene = Scene.of(model, faces=[(0.25, 0.5, 20), (0.75, 0.5, -20)])
    faces = see(scene)(scene.photo)
    assert len(faces) == 2
    for face, person in zip(faces, scene.people[::-1], strict=True):
        assert pixel_errors(face, person).mean() < 1.0
    best = see(scene).reconstruct(scene.photo)
    np.testing.assert_array_equal(best.landmarks(), faces[0].landmarks())


def test_sure_boxes_without_faces_come_last(model, see):
    scene = Scene.of(model, faces=[(0.25, 0.5, 0)])
    truth = scene.detector(scene.photo)[0]
    wrong = Detection(Box(300, 100, 400, 200), 1.5)
    outside = Detection(Box(900, 100, 1000, 200), 9.0)
    faces = see(scene, lambda image: [outside, wrong, truth])(scene.photo)
    assert faces[0].box == truth.box


def test_batches_change_nothing(model, see, monkeypatch):
    scene = Scene.of(model, faces=[(0.25, 0.5, 20), (0.75, 0.5, -20)])
    boxes = [person.box for person in scene.people] * 3
    reconstructor = see(scene)
    alone = [reconstructor.reconstruct(scene.photo, box) for box in boxes]
    monkeypatch.setattr(reconstruction, "BATCH", 4)
    together = reconstructor.reconstruct_many([scene.photo] * 6, boxes)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.landmarks(), other.landmarks(), atol=1e-6)
    with pytest.raises(P2FError, match="2 pictures and 1 boxes"):
        reconstructor.reconstruct_many([scene.photo] * 2, boxes[:1])


def test_the_crop_of_the_frame_before_is_looked_at_first(model, see):
    """So one pass sees what takes two from a box."""
    scene = Scene.of(model, seed=1)
    box = scene.people[0].box
    face = see(scene).reconstruct(scene.photo, box)
    fast = see(scene, same_crop=0.75)
    crop = fast.next_crop(face)
    (again,) = fast.reconstruct_many([scene.photo], [box], [crop])
    assert again.crop == crop
    assert np.abs(again.landmarks() - face.landmarks()).max() < 0.5
    boxes, crops = [box, box], [None, crop]
    first, second = fast.reconstruct_many([scene.photo] * 2, boxes, crops)
    assert second.crop == crop
    np.testing.assert_array_equal(first.vertices, fast.reconstruct(scene.photo, box).vertices)


def test_there_is_no_next_crop_outside_the_picture(model, see):
    scene = Scene.of(model, seed=1)
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    assert see(scene).next_crop(replace(face, photo_size=(20, 20))) is None


def test_the_photo_is_left_alone(model, see):
    scene = Scene.of(model)
    photo = scene.photo
    photo.flags.writeable = False
    view = np.asfortranarray(photo)  # any memory layout will do
    face = see(scene).reconstruct(view, scene.people[0].box)
    assert pixel_errors(face, scene.people[0]).mean() < 1.0


def test_no_face(model, see):
    empty = Scene.of(model, faces=[])
    reconstructor = see(empty)
    assert reconstructor(empty.photo) == []
    with pytest.raises(NoFaceError, match=r"box \(left, top, right, bottom\)"):
        reconstructor.reconstruct(empty.photo)
    with pytest.raises(NoFaceError, match=r"no face in the box \(10, 20, 110, 120\)"):
        reconstructor.reconstruct(empty.photo, (10, 20, 110, 120))


@pytest.mark.parametrize("make", [tuple, list, np.array, lambda sides: Box(*sides)])
def test_any_box_will_do(make):
    assert as_box(make([1, 2, 30, 40])) == Box(1, 2, 30, 40)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((1000, 10, 1100, 110), "outside the picture of 480 x 360"),
        ((-200, 10, -100, 110), "outside"),
        ((0, 0, 1e9, 1e9), "outside"),
        ((0, 100, 1e9, 101), "outside"),
        ((100, 100, 103, 104), "smaller than 8 pixels"),
        ((100, 100, 50, 200), "left < right"),
        ((100, 100, 100, 200), "left < right"),
        ((np.nan, 0, 10, 10), "finite"),
        ((1, 2, 3), "four numbers"),
        ("abcd", "four numbers"),
        (7, "four numbers"),
        (None, None),
    ],
)
def test_wrong_boxes_get_a_sentence(model, see, box, reason):
    scene = Scene.of(model)
    if box is None:  # no box is not a wrong box
        assert see(scene).reconstruct(scene.photo, None).confidence > 0.5
        return
    with pytest.raises(P2FError, match=reason):
        see(scene).reconstruct(scene.photo, box)


def test_faces_cut_by_the_frame_still_work(model, see):
    scene = Scene.of(model, faces=[(0.07, 0.5, 0)])
    person = scene.people[0]
    assert person.box.left < 0
    face = see(scene).reconstruct(scene.photo, person.box)
    assert np.isfinite(face.landmarks()).all()


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9)), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3)), "a.jpg"]
)
def test_wrong_pictures_get_a_sentence(model, see, image):
    reconstructor = see(Scene.of(model))
    for call in (reconstructor, reconstructor.reconstruct):
        with pytest.raises(P2FError, match="uint8 RGB"):
            call(image)


def test_tiny_pictures_hold_no_face(model, see):
    reconstructor = see(Scene.of(model), lambda image: [])
    assert reconstructor(np.zeros((1, 1, 3), np.uint8)) == []
    with pytest.raises(P2FError, match="outside the picture"):
        reconstructor.reconstruct(np.zeros((1, 1, 3), np.uint8), (0, 0, 10, 10))


def test_unknown_markup(model, see):
    scene = Scene.of(model)
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    for method in (
        face.landmarks,
        face.landmarks_3d,
        face.landmarks_visible,
        face.landmarks_deviation,
    ):
        with pytest.raises(P2FError, match=r"'ibug67'.*ibug68, menpo84"):
            method("ibug67")


def test_confidence_is_low_where_planes_contradict_themselves(model, see, monkeypatch):
    scene = Scene.of(model)
    box = scene.people[0].box
    sure = see(scene).reconstruct(scene.photo, box).confidence
    rng = np.random.default_rng(0)

    def shuffled(unet, images, mirror=True):
        pncc, offsets = scene.predict(unet, images)
        flat = pncc.reshape(len(images), -1, 3)
        for plane in flat:
            on = np.flatnonzero(plane.any(axis=1))
            plane[on] = plane[rng.permutation(on)]
        return pncc, offsets

    monkeypatch.setattr(reconstruction, "predict", shuffled)
    (face,) = Reconstructor(model, STUB_UNET).reconstruct_many([scene.photo], [box])
    assert sure > 0.9
    assert face is None or face.confidence < 0.1


@pytest.mark.parametrize("size", [1.0, 4.0])
def test_consistency_is_measured_by_the_face(model, size):
    """The same planes at four times the size, and an error that grows with them."""
    camera = Scene.of(model).people[0].camera
    camera = camera.transformed(np.array([[1.0, 0, -190], [0, 1, -130]]) * 0.5 * size)
    truth = render_vertices(model, model.mean, camera, int(50 * size), int(50 * size))
    face = np.sqrt(truth.valid.sum())
    for error, consistent in ((0.9, True), (1.1, False)):
        moved = camera.transformed(
            np.array([[1, 0, error * reconstruction.TOLERANCE * face], [0, 1, 0]])
        )
        share = reconstruction._consistent_share(
            SimpleNamespace(camera=moved), truth.pncc, truth.offsets, truth.valid
        )
        assert share > 0.9 if consistent else share < 0.1


@pytest.mark.parametrize("roll", [-50.0, 0.0, 75.0])
def test_the_last_pass_sees_the_head_upright(model, see, roll):
    scene = Scene.of(model)
    person = scene.people[0]
    turn = cv2.getRotationMatrix2D(person.box.center, -roll, 1.0)
    leaning = replace(person, camera=person.camera.transformed(turn))
    scene = replace(scene, people=(leaning,))
    face = see(scene).reconstruct(scene.photo, leaning.box)
    up = leaning.camera.affine().matrix[:, 1]
    lean = np.degrees(np.arctan2(up[0], -up[1]))
    assert abs(face.crop.roll - lean) < 2
    assert lean == pytest.approx(roll - 4, abs=1)  # the roll of all heads in scenes is -4
    assert pixel_errors(face, leaning).mean() < 1
    assert abs(face.pose.roll - leaning.camera.pose.roll) < 2


def test_confidence_is_a_probability_and_monotone():
    found = np.array([confidence(share) for share in np.linspace(0, 1, 21)])
    assert (np.diff(found) > 0).all()
    assert 0 <= found[0] < 0.01
    assert 0.95 < found[-1] <= 1


def test_save_by_suffix(model, see, tmp_path):
    scene = Scene.of(model, seed=3)
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    for suffix in ("ply", "obj", "glb", "json"):
        face.save(tmp_path / f"out.{suffix}")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("out.ply", "out.obj", "out.glb", "out.json"),
        *("out.mtl", "out_texture.png"),
    }
    cloud = trimesh.load(tmp_path / "out.ply")
    np.testing.assert_allclose(cloud.vertices, face.points, atol=1e-4)
    np.testing.assert_array_equal(cloud.colors[:, :3], face.point_colors)
    face.save(tmp_path / "mesh.ply", what="mesh")
    assert len(trimesh.load(tmp_path / "mesh.ply").faces) == len(face.triangles)

    obj = trimesh.load(tmp_path / "out.obj", process=False)
    (glb,) = trimesh.load(tmp_path / "out.glb", process=False).geometry.values()
    for mesh, unit in ((obj, 1), (glb, 1000)):
        corners = unit * mesh.vertices[mesh.faces]
        np.testing.assert_allclose(corners, face.vertices[face.triangles], atol=1e-3)
        check_told(colors_told(mesh, unit * mesh.vertices, face), scene, face)
    for name in ("photo.obj", "photo.glb"):
        face.save(tmp_path / name, what="photo")
        mesh = trimesh.load(tmp_path / name, process=False, force="mesh")
        unit = 1000 if name.endswith("glb") else 1
        check_told(colors_told(mesh, unit * mesh.vertices, face), scene, face)

    document = json.loads((tmp_path / "out.json").read_text())
    np.testing.assert_allclose(document["landmarks"]["ibug68"], face.landmarks(), atol=1e-3)
    np.testing.assert_allclose(
        document["landmarks_3d"]["menpo84"], face.landmarks_3d("menpo84"), atol=1e-3
    )
    assert document["landmarks_visible"]["ibug68"] == face.landmarks_visible().tolist()
    assert document["pose"]["yaw"] == pytest.approx(face.pose.yaw, abs=1e-3)
    assert document["box"] == pytest.approx(face.box.as_tuple(), abs=1e-3)
    assert document["confidence"] == pytest.approx(face.confidence, abs=1e-4)
    assert document["camera"]["focal"] == pytest.approx(face.camera.focal)
    assert list(document["expression"]) == list(model.expression_names)
    assert len(document["shape"]) == model.n_shape


def colors_told(mesh, vertices, face):
    """(3,) colour of a mesh that was read at the face's tip of the nose."""
    material = mesh.visual.material
    image = material.image if hasattr(material, "image") else material.baseColorTexture
    image = np.asarray(image.convert("RGB"))
    vertex = np.linalg.norm(vertices - face.landmarks_3d()[30], axis=1).argmin()
    column, row = (mesh.visual.uv[vertex] * [1, -1] + [0, 1]) * image.shape[1::-1] - 0.5
    return image[round(row), round(column)]


def check_told(color, scene, face):
    """The photo's colours say where they were seen: here, where the tip of the nose is."""
    told = color[:2] / 255 * [scene.width - 1, scene.height - 1]
    np.testing.assert_allclose(told, face.landmarks()[30], atol=2)


@pytest.mark.parametrize(
    ("name", "what"), [("x.json", "mesh"), ("x.ply", "photo"), ("x.glb", "points"), ("x.obj", "")]
)
def test_save_refuses_what_a_format_does_not_hold(model, see, tmp_path, name, what):
    scene = Scene.of(model)
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    with pytest.raises(P2FError, match=f"{what!r} as {name!r}.*'points' and 'mesh' for .ply"):
        face.save(tmp_path / name, what=what)
    assert not list(tmp_path.iterdir())


def test_the_photo_holds_the_whole_mesh(model, see):
    scene = Scene.of(model, faces=[(0.5, 0.5, 30)])
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    pixels = face.photo_crop.points_from_picture(face.project(face.vertices))
    assert face.photo.shape == (face.photo_crop.size,) * 2 + (3,)
    assert pixels.min() > 0
    assert pixels.max() < face.photo_crop.size - 1
    assert face.photo_size == (scene.width, scene.height)


def test_texture_shows_the_photo_where_it_sees_the_face(model, see):
    """The left edge of the photo cuts the face; its colours say where each texel was seen."""
    scene = Scene.of(model, faces=[(0.08, 0.5, 20)])
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    layout = texture_map(model, 128)
    seen = face.texture(128, complete=False)
    pixels = face.project(layout.spread(face.vertices))
    weight = layout.rows(seen.weight)
    told = layout.rows(seen.image)[:, :2] / 255 * [scene.width - 1, scene.height - 1]
    assert (weight > 0.1).mean() > 0.1
    np.testing.assert_allclose(told[weight > 0.1], pixels[weight > 0.1], atol=3)
    outside = pixels[:, 0] < 0
    assert outside.mean() > 0.05
    assert not weight[outside].any()
    # What the network takes for background isn't the face, wherever the fitted mesh may lie.
    blind = replace(face, valid=np.zeros_like(face.valid))
    at = face.crop.points_from_picture(pixels)
    judged = ((at > 0) & (at < SIZE - 1)).all(axis=1)
    assert not layout.rows(blind.texture(128, complete=False).weight)[judged].any()

    whole = face.texture(128)
    np.testing.assert_array_equal(whole.weight, seen.weight)
    assert (layout.rows(whole.image)[..., 2] > 250).all()  # blue is 255 everywhere in the photo
    mesh = face.textured_mesh(whole)
    assert mesh.image is whole.image
    assert mesh.vertices is face.vertices


@pytest.mark.parametrize("name", ["out.stl", "out", "out.jpg"])
def test_save_refuses_other_suffixes(model, see, tmp_path, name):
    scene = Scene.of(model)
    face = see(scene).reconstruct(scene.photo, scene.people[0].box)
    with pytest.raises(P2FError, match=r"\.ply.*\.obj.*\.glb.*\.json"):
        face.save(tmp_path / name)
    with pytest.raises(P2FError, match="Cannot write"):
        face.save(tmp_path / "nowhere" / "out.json")


# -------------------------------------------------------------------------- weights on disk


@pytest.fixture
def home(tmp_path, model):
    """A folder with a face model and an untrained network that belong together."""
    folder = tmp_path / "build"
    folder.mkdir()
    model.save(folder / "face_model.safetensors")
    stored = type(model).load(folder / "face_model.safetensors", subdivisions=0)
    torch.manual_seed(0)
    unet = UNet(NetworkConfig(input_size=32, width=2, depth=3))
    save_unet(
        folder / "unet.safetensors",
        unet,
        face_model=model.name,
        face_model_checksum=stored.checksum,
    )
    return folder


def test_from_pretrained(home, model):
    reconstructor = p2f_lib.Reconstructor.from_pretrained(home, device="cpu")
    assert reconstructor.model.n_vertices == model.n_vertices
    assert reconstructor.unet.config.input_size == 32
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    try:  # whatever an untrained network says, it says it by these two
        face = reconstructor.reconstruct(image, (8, 8, 56, 56))
    except NoFaceError:
        return
    assert 0 <= face.confidence <= 1


def test_where_weights_are_looked_for(home, tmp_path, monkeypatch):
    monkeypatch.delenv("P2F_HOME", raising=False)
    assert find_weights(home) == home

    deep = tmp_path / "notebooks" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(deep)
    assert find_weights() == home
    monkeypatch.chdir(tmp_path)
    assert find_weights().resolve() == home
    released = tmp_path / "data" / "release"
    shutil.copytree(home, released)
    assert find_weights().resolve() == released
    assert find_weights("build").resolve() == home
    shutil.rmtree(released)

    other = tmp_path / "other"
    home.rename(other)
    monkeypatch.setenv("P2F_HOME", str(other))
    assert find_weights() == other
    # What was asked for is not silently replaced by something else.
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(P2FError, match=r"dvc pull.*make repro"):
            find_weights(folder)
    monkeypatch.setenv("P2F_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(P2FError, match="nowhere"):
        Reconstructor.from_pretrained()


def test_another_face_model_is_refused(home):
    toy_model(seed=1).save(home / "face_model.safetensors")
    with pytest.raises(P2FError, match=r"toy-1500-1.*trained with.*toy-1500-0.*make repro"):
        Reconstructor.from_pretrained(home, device="cpu")


def test_subdivision_does_not_make_another_model(model):
    for wanted in (model, model.subdivided(1)):
        unet = SimpleNamespace(
            config=STUB_UNET.config, metadata={"face_model_checksum": wanted.checksum}
        )
        Reconstructor(model.subdivided(1), unet)


def test_nan_weights_are_refused(home):
    unet = UNet(NetworkConfig(input_size=32, width=2, depth=3))
    with torch.no_grad():
        next(unet.parameters())[0] = torch.nan
    save_unet(home / "unet.safetensors", unet)
    with pytest.raises(P2FError, match="NaN"):
        Reconstructor.from_pretrained(home, device="cpu")


def test_nan_output_is_refused(model, see, monkeypatch):
    scene = Scene.of(model)
    reconstructor = see(scene)
    shape = (1, SIZE, SIZE, 3)
    monkeypatch.setattr(
        reconstruction, "predict", lambda *_: (np.full(shape, np.nan), np.zeros(shape))
    )
    with pytest.raises(P2FError, match="not finite"):
        reconstructor.reconstruct(scene.photo, scene.people[0].box)


@pytest.mark.parametrize("name", ["face_model.safetensors", "unet.safetensors"])
def test_damaged_files_are_refused(home, name):
    path = home / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(P2FError, match=name):
        Reconstructor.from_pretrained(home, device="cpu")


def test_chosen_landmarks_replace_the_models(home, model):
    chosen = model.landmarks["ibug68"][::-1].tolist()
    (home / "landmarks.json").write_text(json.dumps({"ibug68": chosen}))
    loaded = Reconstructor.from_pretrained(home, device="cpu").model
    assert loaded.landmarks["ibug68"].tolist() == chosen
    np.testing.assert_array_equal(loaded.landmarks["menpo84"], model.landmarks["menpo84"])


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        '{"ibug68": [1, 2]}',
        '{"mine": [1.5]}',
        '{"mine": [-1]}',
        '{"mine": [1500]}',
        '{"mine": [[1], [1, 2]]}',
        '{"mine": "abc"}',
        '{"mine": [1',
        "",
    ],
)
def test_wrong_landmark_files_are_refused(model, tmp_path, text):
    (tmp_path / "landmarks.json").write_text(text)
    with pytest.raises(P2FError, match=r"landmarks\.json"):
        with_landmarks(model, tmp_path / "landmarks.json")


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99", "cpu:x", ""):
        with pytest.raises(P2FError, match="no device"):
            choose_device(name)


def test_variants(home, monkeypatch):
    with pytest.raises(P2FError, match="no variant 'faster'; there are full, fast"):
        Reconstructor.from_pretrained(home, device="cpu", variant="faster")
    fast = Reconstructor.from_pretrained(home, device="cpu", variant="fast")
    assert not fast.mirror
    assert fast.same_crop < 1
    asked = []

    def predict(engine, images, mirror=True):
        asked.append(mirror)
        return np.zeros((2, *images.shape), np.float32)

    monkeypatch.setattr(reconstruction, "predict", predict)
    assert fast.reconstruct_many([np.zeros((99, 99, 3), np.uint8)], [Box(9, 9, 90, 90)]) == [None]
    assert asked == [False]


def test_wrong_settings(model):
    for options in ({"passes": 0}, {"crop_scale": 0}, {"same_crop": 1.5}):
        with pytest.raises(P2FError, match="passes"):
            Reconstructor(model, STUB_UNET, **options)


def test_models_without_the_68_are_refused_where_they_are_needed(model):
    with pytest.raises(P2FError, match="ibug68"):
        Reconstructor(replace(model, landmarks={}), STUB_UNET)


def test_public_names_come_lazily():
    assert {"Reconstructor", "Face", "MorphableModel", "Box"} <= set(dir(p2f_lib))
    for name in p2f_lib.__all__:
        assert getattr(p2f_lib, name).__name__ == name
    with pytest.raises(AttributeError, match="Reconstruktor"):
        p2f_lib.Reconstruktor  # noqa: B018
