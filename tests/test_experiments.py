"""The notebooks' experiments, on small faces and with a network that can't err."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from p2f_lib import cli, experiments, reconstruction
from p2f_lib.camera import Pose
from p2f_lib.crop import Box
from p2f_lib.datasets.landmark_files import write_ljson, write_pts
from p2f_lib.datasets.photos import AnnotatedPhoto, read_photos
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.experiments import PhotoErrors
from p2f_lib.fitting import Fitter, valid_mask
from p2f_lib.ground_truth import (
    place_camera,
    render_ground_truth,
    sample_coefficients,
    sample_view,
)
from p2f_lib.images import write_image
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.synthesis import Sample, render_sample
from tests.oracle import STUB_UNET, Scene
from tests.toy import ibug68_layout, toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture
def see(monkeypatch, model):
    """A function from a scene to a reconstructor whose network sees that scene."""

    def build(scene):
        monkeypatch.setattr(reconstruction, "predict", scene.predict)
        return Reconstructor(model, STUB_UNET, scene.detector)

    return build


@pytest.fixture(scope="module")
def scene(model):
    return Scene.of(model, seed=5, faces=[(0.25, 0.5, -30.0), (0.75, 0.5, 15.0)])


def sample_of(scene: Scene, person) -> Sample:
    """A frame of the scene that is about one of its people."""
    truth = render_ground_truth(
        person.model, person.shape, person.expression, person.camera, scene.height, scene.width
    )
    return Sample(
        scene.photo,
        truth.pncc,
        truth.offsets,
        truth.valid,
        person.shape,
        person.expression,
        person.camera,
        person.landmarks().astype(np.float32),
    )


# --- synthetic frames ---------------------------------------------------------------------------


def test_render_frames_are_numbered_samples(model):
    frames = experiments.render_frames(model, seed=7, count=2, size=32, first=3)
    assert len(frames) == 2
    for index, frame in zip((3, 4), frames, strict=True):
        expected = render_sample(model, 7, index, size=32)
        np.testing.assert_array_equal(frame.image, expected.image)
        np.testing.assert_array_equal(frame.shape, expected.shape)


def test_fit_errors_of_true_planes_and_of_the_mean_face(model, see, scene):
    frames = [sample_of(scene, person) for person in scene.people]
    errors = experiments.fit_errors(see(scene), frames)
    names = {"mesh_mm", "pose_degrees", "landmarks_percent", "frames"}
    assert {method: set(row) for method, row in errors.items()} == {
        "mean face": names,
        "network": names,
        "oracle": names,
    }
    for method in ("network", "oracle"):
        assert errors[method]["mesh_mm"] < 1.0
        assert errors[method]["pose_degrees"] < 1.0
        assert errors[method]["landmarks_percent"] < 1.0
    mean_face = errors["mean face"]
    apart = [np.linalg.norm(p.vertices - model.mean, axis=1).mean() for p in scene.people]
    assert mean_face["mesh_mm"] == pytest.approx(np.mean(apart), rel=1e-5)
    turned = [abs(yaw) + 5 + 4 for yaw in (-30, 15)]  # pitch and roll are those of `Scene.of`
    assert mean_face["pose_degrees"] == pytest.approx(np.mean(turned) / 3, rel=1e-5)
    assert mean_face["landmarks_percent"] > 5
    json.dumps(errors)


def test_fit_errors_leave_out_what_was_never_seen(model, see, scene):
    nobody = Scene(scene.width, scene.height, ())
    errors = experiments.fit_errors(see(nobody), [sample_of(scene, scene.people[0])])
    assert set(errors) == {"mean face", "oracle"}


def test_pose_errors_wrap_around():
    error = experiments._pose_error
    assert error(Pose(179, 0, 0), Pose(-179, 0, 0)) == pytest.approx(2 / 3)
    assert error(Pose(-179, 0, 0), Pose(179, 0, 0)) == pytest.approx(2 / 3)
    assert error(Pose(10, -5, 3), Pose(4, 4, 0)) == pytest.approx((6 + 9 + 3) / 3)
    assert error(Pose(0, 0, 180), Pose(0, 0, -180)) == 0
    assert error(Pose(0, 0, 90), Pose(0, 0, -90)) == pytest.approx(60)


@pytest.mark.parametrize("markup", ["ibug68", "menpo84"])
def test_landmark_vertices_are_kept_when_they_are_the_best(model, see, scene, markup):
    frames = [sample_of(scene, person) for person in scene.people]
    current = model.landmarks[markup]
    selection = experiments.select_landmarks(see(scene), frames, markup, radius=8.0)
    assert (selection.error <= selection.error_before).all()
    assert selection.error_before.mean() < 0.01
    assert (selection.frames == 2).all()
    moved = np.linalg.norm(model.mean[selection.indices] - model.mean[current], axis=1)
    assert moved.max() <= 8.0
    assert (selection.indices == current).mean() > 0.8
    fixed = experiments.select_landmarks(see(scene), frames, markup, radius=0.1)
    np.testing.assert_array_equal(fixed.indices, current)


class TruthTeller:
    """A reconstructor that localises vertices in a frame's true planes; some faces it misses."""

    def __init__(self, model, missed=()):
        self.model, self.fitter, self.missed = model, Fitter(model), missed
        self.planes = {}

    def render_sample(self, model, seed, index, size, shape):
        """Stands in for `p2f_lib.synthesis.render_sample`; the picture is its number."""
        rng = np.random.default_rng([seed, index])
        _, expression = sample_coefficients(model, rng)
        vertices = model.vertices(shape, expression)
        marks = vertices[model.landmarks["ibug68"]]
        camera = place_camera(sample_view(rng), marks, size)
        self.planes[index] = render_ground_truth(model, shape, expression, camera, size, size)
        landmarks = camera.project(vertices[model.landmarks["ibug68"]])
        return SimpleNamespace(image=index, landmarks=landmarks)

    def reconstruct(self, image, box):
        if image in self.missed:
            raise NoFaceError("missed")
        planes = self.planes[image]
        valid = valid_mask(planes.pncc)
        return SimpleNamespace(localized=self.fitter.localize(planes.pncc, planes.offsets, valid))


def test_several_photos_tell_the_shape(model, monkeypatch):
    teller = TruthTeller(model, missed=(0, 4))  # the first photo of the first, second of the second
    monkeypatch.setattr(experiments, "render_sample", teller.render_sample)
    errors = experiments.several_photos(teller, seed=1, people=2, views=3, size=64)
    assert errors.shape == (2, 3)
    assert sorted(teller.planes) == list(range(6))
    shape, _ = sample_coefficients(model, np.random.default_rng([1, 0]))
    apart = np.linalg.norm(model.vertices() - model.vertices(shape), axis=1).mean()
    assert errors[0, 0] == pytest.approx(apart, rel=1e-5)  # nothing seen yet: the mean face
    assert errors[0, 1:].max() < 0.2 * apart
    assert errors[1, 1] == errors[1, 0]  # the missed photo adds nothing
    assert errors[1].max() < 0.2 * apart


# --- annotated photographs ----------------------------------------------------------------------


def test_summary_of_photo_errors_by_hand():
    errors = PhotoErrors(
        inner=np.array([0.02, 0.04, 0.12, np.inf]), all=np.array([0.03, 0.05, 0.16, np.inf])
    )
    assert errors.summary(limit=0.1) == {
        "photos": 4,
        "inner_mean": pytest.approx(0.06),
        "inner_median": pytest.approx(0.04),
        "all_mean": pytest.approx(0.08),
        "failures": 2,
        "unseen": 1,
    }
    assert errors.summary(limit=0.12)["failures"] == 1  # only beyond the limit


def test_summary_when_no_face_was_seen():
    nothing = PhotoErrors(inner=np.full(3, np.inf), all=np.full(3, np.inf)).summary(limit=0.1)
    assert (nothing["inner_mean"], nothing["failures"], nothing["unseen"]) == (np.inf, 3, 3)


LANDMARKS = ibug68_layout() * (1, -1) + 100  # y down


class Clairvoyant:
    """Puts the jaw 50 pixels and everything else 5 pixels off; sees nothing in dark pictures."""

    def __init__(self):
        self.boxes = []

    def reconstruct(self, image, box):
        self.boxes.append(box)
        if not image.any():
            raise NoFaceError("dark")
        off = np.where(np.arange(68)[:, None] < 17, (30.0, -40.0), (3.0, 4.0))
        return SimpleNamespace(
            landmarks=lambda markup: {"ibug68": LANDMARKS + off}[markup], brightness=image.max()
        )


@pytest.fixture
def photos(tmp_path):
    """Bright, dark, bright."""
    found = []
    for number, level in enumerate((200, 0, 90)):
        path = tmp_path / f"{number}.png"
        write_image(path, np.full((20, 30, 3), level, np.uint8))
        found.append(AnnotatedPhoto(path, LANDMARKS, Box.around(LANDMARKS)))
    return found


def test_photo_errors_by_hand(photos):
    reconstructor = Clairvoyant()
    errors = experiments.photo_errors(reconstructor, photos)
    interocular = 92.0  # between the outer corners of the layout
    inner, everything = 5 / interocular, (17 * 50 + 51 * 5) / 68 / interocular
    np.testing.assert_allclose(errors.inner, [inner, np.inf, inner])
    np.testing.assert_allclose(errors.all, [everything, np.inf, everything])
    assert reconstructor.boxes == [Box.around(LANDMARKS)] * 3
    assert errors.summary(0.08)["unseen"] == 1


def test_photos_are_reconstructed_in_order_and_none_where_nothing_is_seen(photos):
    faces = list(experiments.reconstruct_photos(Clairvoyant(), photos))
    assert faces[1] is None
    assert [faces[0].brightness, faces[2].brightness] == [200, 90]


def test_photo_errors_of_a_network_that_cannot_err(model, see, scene, tmp_path):
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "both.png", scene.photo)
    points = np.stack([person.landmarks() for person in scene.people])
    np.savez(tmp_path / "landmarks.npz", images=["both.png"] * 2, ibug68=points)
    errors = experiments.photo_errors(see(scene), read_photos(tmp_path))
    assert errors.inner.shape == errors.all.shape == (2,)
    assert max(errors.inner.max(), errors.all.max()) < 0.02
    away = points.copy()
    away[1, 17:] += 10
    np.savez(tmp_path / "landmarks.npz", images=["both.png"] * 2, ibug68=away)
    worse = experiments.photo_errors(see(scene), read_photos(tmp_path))
    assert worse.inner[1] > worse.all[1] > errors.all[1]
    assert worse.inner[0] == pytest.approx(errors.inner[0], abs=1e-3)


# --- their folders ------------------------------------------------------------------------------


def points_of(number: int) -> np.ndarray:
    return LANDMARKS + 10 * number


@pytest.fixture
def npz_folder(tmp_path):
    names = [f"{letter}.jpg" for letter in "cabde"]  # not sorted: the table has an order
    np.savez(
        tmp_path / "landmarks.npz", images=names, ibug68=np.stack([points_of(i) for i in range(5)])
    )
    return tmp_path


@pytest.fixture
def pts_folder(tmp_path):
    for number, name in enumerate(("a.jpg", "b.PNG", "deeper/c.jpeg", "deeper/d.bmp", "e.jpg")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        write_pts(path.with_suffix(".pts"), points_of(number))
    (tmp_path / "unmarked.jpg").touch()
    (tmp_path / "notes.txt").touch()
    write_pts(tmp_path / "no picture.pts", LANDMARKS)
    return tmp_path


def test_photos_of_a_table(npz_folder):
    photos = read_photos(npz_folder)
    assert [p.path for p in photos] == [npz_folder / "images" / f"{c}.jpg" for c in "cabde"]
    for number, photo in enumerate(photos):
        np.testing.assert_array_equal(photo.landmarks, points_of(number))
        assert photo.box == Box.around(points_of(number))


def test_names_in_a_table_cannot_lead_out_of_the_folder(tmp_path):
    names = ["../../elsewhere.jpg", "/etc/passwd"]
    np.savez(tmp_path / "landmarks.npz", images=names, ibug68=np.stack([LANDMARKS] * 2))
    paths = [photo.path for photo in read_photos(tmp_path)]
    assert paths == [tmp_path / "images" / "elsewhere.jpg", tmp_path / "images" / "passwd"]


def test_photos_with_pts_beside_them(pts_folder):
    photos = read_photos(str(pts_folder))
    names = [photo.path.relative_to(pts_folder).as_posix() for photo in photos]
    assert names == ["a.jpg", "b.PNG", "deeper/c.jpeg", "deeper/d.bmp", "e.jpg"]
    for number, photo in enumerate(photos):
        # 1-based with three digits on disk, 0-based here
        np.testing.assert_allclose(photo.landmarks, points_of(number), atol=5.1e-4)
        assert photo.box == Box.around(photo.landmarks)


@pytest.mark.parametrize("layout", ["npz_folder", "pts_folder"])
def test_parts_are_halves_of_one_order(layout, request):
    folder = request.getfixturevalue(layout)
    whole = [photo.path for photo in read_photos(folder, "all")]
    assert [photo.path for photo in read_photos(folder, "even")] == whole[::2]
    assert [photo.path for photo in read_photos(folder, "odd")] == whole[1::2]
    assert len(whole) == 5


def test_an_unknown_part_gets_a_sentence(npz_folder):
    with pytest.raises(P2FError, match=r'"all", "even" or "odd", got \'half\'\.'):
        read_photos(npz_folder, "half")


def test_a_folder_without_photos_gets_a_sentence(tmp_path):
    (tmp_path / "unmarked.jpg").touch()
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(P2FError, match=r"No annotated photographs in .*landmarks\.npz"):
            read_photos(folder)


# --- landmark vertices from photographs -----------------------------------------------------------


@pytest.fixture
def marked(scene, tmp_path):
    """The scene twice, about each of its people: five points of their own, one of them unknown."""
    vertices = np.array([3, 140, 311, 402, 590])
    for name, person in zip(("a", "b"), scene.people, strict=True):
        write_image(tmp_path / f"{name}.png", scene.photo)
        points = person.camera.project(person.vertices[vertices])
        points[1] = points[1] if name == "a" else np.nan
        write_ljson(tmp_path / f"{name}.ljson", points)
    return vertices


def test_points_of_ones_own_find_their_vertices(see, scene, marked, model, tmp_path):
    photos = read_photos(tmp_path, markup="studs")
    assert np.isnan(photos[1].landmarks[1]).all()
    assert photos[1].box == Box.around(photos[1].landmarks[[0, 2, 3, 4]])
    free = experiments.select_photo_landmarks(see(scene), photos, 10.0, "studs")
    apart = np.linalg.norm(model.mean[free.indices] - model.mean[marked], axis=1)
    assert apart.max() < 6  # mm: half an edge of this coarse mesh
    wrong = np.array([cKDTree(model.mean).query(model.mean[v], 7)[1][6] for v in marked])
    led = experiments.select_photo_landmarks(see(scene), photos, 20.0, "studs", wrong)
    np.testing.assert_array_equal(led.indices, free.indices)
    assert (led.error <= led.error_before).all()
    assert led.error.mean() < 0.5 * led.error_before.mean()
    before = experiments.landmark_vertex_errors(see(scene), photos, wrong, "studs")
    np.testing.assert_allclose(before, led.error_before)


def test_the_command_writes_lists_and_a_figure(
    see, scene, marked, model, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Reconstructor, "from_pretrained", lambda *_, **__: see(scene))
    weights, out = tmp_path / "weights", tmp_path / "out" / "landmarks.json"
    weights.mkdir()
    model.save(weights / "face_model.safetensors")
    (weights / "unet.safetensors").touch()
    words = ["choose-landmarks", tmp_path, "--weights", weights, "--markup", "studs", "--out", out]
    assert cli.main([str(word) for word in [*words, "--part", "all"]]) == 0
    first = json.loads(out.read_text())
    assert set(first) == {"studs"}
    figure = tmp_path / "out" / "figure.png"
    assert cli.main([str(word) for word in [*words, "--figure", figure]]) == 1  # one point unknown
    (tmp_path / "b.ljson").write_bytes((tmp_path / "a.ljson").read_bytes())
    capsys.readouterr()
    assert cli.main([str(word) for word in [*words, "--figure", figure]]) == 0
    assert figure.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "the 1 photos that chose: " in printed
    assert "1 other photos: " in printed


def test_other_marks_than_expected_get_a_sentence(marked, tmp_path):
    with pytest.raises(P2FError, match=r"landmarks of shape \(5, 2\), expected \(68, 2\)"):
        read_photos(tmp_path)
    write_ljson(tmp_path / "b.ljson", np.full((5, 2), np.nan))
    with pytest.raises(P2FError, match="fewer than two"):
        read_photos(tmp_path, markup="studs")


# --- the weight of the prior ----------------------------------------------------------------------


def test_a_strong_prior_costs_accuracy_where_the_planes_are_true(see, scene):
    frames = [sample_of(scene, person) for person in scene.people]
    errors = experiments.weight_errors(see(scene), frames, (1e-3, 100.0))
    assert errors.shape == (2,)
    assert errors[0] < 1
    assert errors[1] > 3 * errors[0]


def test_the_weight_command_prints_a_row_a_weight(see, scene, monkeypatch, capsys):
    reconstructor = see(scene)
    monkeypatch.setattr(Reconstructor, "from_pretrained", lambda *_, **__: reconstructor)
    frames = [sample_of(scene, person) for person in scene.people]
    monkeypatch.setattr(experiments, "render_frames", lambda *_, **__: frames)
    assert cli.main(["choose-weight", "--frames", "2"]) == 0
    *rows, best = capsys.readouterr().out.splitlines()
    assert sum("(in use)" in row for row in rows) == 1
    errors = {float(row.split()[0]): float(row.split()[2]) for row in rows}
    assert float(best.split()[1]) == pytest.approx(min(errors, key=errors.get), abs=1e-3)


def test_no_face_no_weight(see, scene):
    nobody = Scene(scene.width, scene.height, ())
    with pytest.raises(P2FError, match="no face in any of 1"):
        experiments.weight_errors(see(nobody), [sample_of(scene, scene.people[0])], (0.1,))
