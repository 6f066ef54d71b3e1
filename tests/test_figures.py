"""Figures: what they show, and files whose bytes depend on nothing else."""

import inspect

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from plotly import graph_objects

from p2f_lib import evaluation, figures, reconstruction, rerender
from p2f_lib.ablation import Outcome
from p2f_lib.clip_summary import Claim
from p2f_lib.evaluation import Interval
from p2f_lib.export import TexturedMesh
from p2f_lib.groups import GroupErrors
from p2f_lib.morphable_model import vertex_normals
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.synthesis import render_sample
from tests.oracle import STUB_UNET, Scene
from tests.toy import egg, toy_model

LIMIT = 0.08


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def scene(model):
    return Scene.of(model, seed=3, faces=[(0.4, 0.5, 25.0)], width=240, height=180)


@pytest.fixture(scope="module")
def face(model, scene):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruction, "predict", scene.predict)
        return Reconstructor(model, STUB_UNET).reconstruct(scene.photo, scene.people[0].box)


def errors_and_statistics():
    rng = np.random.default_rng(0)
    errors = {
        kind: {"ours": rng.uniform(0, 0.05, 30), "theirs": rng.uniform(0.02, 0.12, 30)}
        for kind in figures.KINDS
    }
    statistics = {
        kind: {name: evaluation.statistics(e, LIMIT) for name, e in methods.items()}
        for kind, methods in errors.items()
    }
    return errors, statistics


CLAIMS = [
    Claim(idea, "4", network, kind, 9, 3, 0.02, 0.03, gain, Interval(gain - 0.01, gain + 0.02))
    for idea, kind, gain in (
        ("average", "2d", 0.01),
        ("offsets", "2d", -0.01),
        ("offsets", "3d_mm", 1),
    )
    for network in ("released weights", "this run")
]

MAKE = {
    "face_model": lambda m, s, f: figures.face_model(m, modes=2, people=[m.mean] * 6),
    "landmark_map": lambda m, s, f: figures.landmark_map(m, "ibug68"),
    "ablation": lambda m, s, f: figures.ablation(
        [
            Outcome(name, seed, 5 + k, 6.0, 0.8, 0.9, 8 + k, 9.0)
            for k, (name, seed) in enumerate([("nothing", 0), ("nothing", 1), ("hair", 0)])
        ]
    ),
    "concepts": lambda m, s, f: figures.concepts(m, render_sample(m, 0, 7, 64, 1)),
    "groups": lambda m, s, f: figures.groups(
        [
            GroupErrors(kind, "all", 5, 5, 0.02, 0.01, 0.04, 3.0, 0.5)
            for kind in ("skin tone", "age")
        ],
        {(kind, "all"): s.photo for kind in ("skin tone", "age")},
    ),
    "figure1": lambda m, s, f: figures.figure1([s.photo] * 2, [f] * 2),
    "figure2": lambda m, s, f: figures.figure2([s.photo], [f], [f.landmarks()]),
    "rerenderings": lambda m, s, f: figures.rerenderings(
        [s.photo] * 2, [f] * 2, [rerender.examples(f, s.photo, f, s.photo)] * 2
    ),
    "landmarks_over": lambda m, s, f: figures.landmarks_over(
        [s.photo] * 4, [f.landmarks()] * 4, "abcd", truth=[s.people[0].landmarks()] * 4
    ),
    "textures": lambda m, s, f: figures.textures([s.photo], [f], yaws=(-40, 40), size=60),
    "landmark_choice": lambda m, s, f: figures.landmark_choice(
        m,
        m.landmarks["ibug68"],
        m.landmarks["ibug68"][::-1],
        {"those": (np.full(68, 0.04), np.full(68, 0.03)), "others": np.full((2, 68), 0.05)},
    ),
    "landmark_errors": lambda m, s, f: figures.landmark_errors(
        np.linspace(0.04, 0.06, 84), np.linspace(0.03, 0.05, 84)
    ),
    "oracle": lambda m, s, f: figures.oracle(
        (10, 100), *np.random.default_rng(0).uniform(1, 2, (2, 2, 5)), (1, 4, 16), np.ones((3, 5))
    ),
    "several_photos": lambda m, s, f: figures.several_photos(np.array([[3.0, 2, 1], [4, 2, 2]])),
    "error_by_yaw": lambda m, s, f: figures.error_by_yaw(
        errors_and_statistics()[0]["2d"], np.linspace(-40, 40, 30), (0, 15, 30, 45, 90), LIMIT
    ),
    "error_over_time": lambda m, s, f: figures.error_over_time(
        range(1, 31), errors_and_statistics()[0]["2d"], np.arange(30) % 10 != 3, LIMIT, "clip 001"
    ),
    "error_by_part": lambda m, s, f: figures.error_by_part(
        {"clip": {"this run": {"001": 0.02, "left_eye": 0.03}, "oracle": {"001": 0.01}}}
    ),
    "claims": lambda m, s, f: figures.claims(CLAIMS),
    "figure7": lambda m, s, f: figures.figure7(*errors_and_statistics(), LIMIT),
}


@pytest.fixture(scope="module")
def made(model, scene, face):
    """Every figure of the module, by the name of its function."""
    return {name: make(model, scene, face) for name, make in MAKE.items()}


def shown(figure: Figure) -> list[list[np.ndarray]]:
    """The pictures in each axes."""
    return [[np.asarray(i.get_array()) for i in axis.images] for axis in figure.axes]


# --- all of them --------------------------------------------------------------------------------


def test_every_figure_is_tested():
    returns_figure = {
        name
        for name, function in inspect.getmembers(figures, inspect.isfunction)
        if function.__module__ == figures.__name__
        and function.__annotations__.get("return") == "Figure"
    }
    assert set(MAKE) == returns_figure


@pytest.mark.parametrize("name", MAKE)
def test_figures_are_returned_and_drawn_but_not_shown(made, name):
    figure = made[name]
    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    assert (drawn < 250).any(axis=2).mean() > 0.01
    assert not plt.get_fignums()  # a notebook would show open figures a second time


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_saved_bytes_depend_on_the_figure_alone(model, scene, face, tmp_path, suffix):
    paths = [tmp_path / "new folder" / f"{i}{suffix}" for i in range(2)]
    for path in paths:
        figures.save(MAKE["figure7"](model, scene, face), path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    other, statistics = errors_and_statistics()
    other["2d"]["ours"] = other["2d"]["ours"] / 2
    figures.save(figures.figure7(other, statistics, LIMIT), paths[0])
    assert paths[0].read_bytes() != first


def test_saved_files_tell_no_date_and_pngs_no_software(made, tmp_path):
    figures.save(made["several_photos"], tmp_path / "a.png")
    data, chunks, at = (tmp_path / "a.png").read_bytes(), set(), 8
    while at < len(data):
        chunks.add(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    assert chunks == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}  # no tEXt, no tIME
    figures.save(made["several_photos"], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<dc:date>" not in text
    assert "Matplotlib" not in text
    assert "vertex error, mm" in text  # letters, not outlines


def test_every_kind_of_rerendering_is_shown_for_every_photo(made, scene):
    axes = [axis for axis in made["rerenderings"].axes if axis.images]
    assert len(axes) == 2 * (4 * 7 + 5)
    titles = [axis.get_title() for axis in axes]
    assert {"yaw -60", "roll +30", "neutral", "light: left", "blend 0.5"} <= set(titles)
    for axis, title in zip(axes, titles, strict=True):
        picture = axis.images[0].get_array()
        assert picture.shape == scene.photo.shape
        if title.startswith(("yaw", "pitch", "roll")):
            assert (picture != scene.photo).any(axis=2).mean() > 0.1


# --- pictures of arrays -------------------------------------------------------------------------


def test_colors_of_planes():
    planes = np.array([[[0.0, 0, 0], [75, -150, 1e4]], [[10, -5, 0], [3, 3, 3]]])
    valid = np.array([[True, True], [True, False]])
    pncc, offsets = figures.pncc_colors(planes, valid), figures.offset_colors(planes, valid)
    np.testing.assert_allclose(pncc[0], [[0.5, 0.5, 0.5], [0.75, 0, 1]])
    np.testing.assert_allclose(offsets[1, 0], [0.75, 0.375, 0.5])
    assert (pncc[1, 1] == 1).all()
    assert (offsets[1, 1] == 1).all()


def sphere(n: int = 3000, radius: float = 80.0) -> tuple[np.ndarray, np.ndarray]:
    vertices, triangles = egg(n)
    return radius * vertices / np.linalg.norm(vertices, axis=1, keepdims=True), triangles


def test_normals_of_a_sphere_point_outwards():
    vertices, triangles = sphere()
    normals = vertex_normals(vertices, triangles)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, rtol=1e-5)
    assert np.einsum("vi,vi->v", normals, vertices / 80).min() > 0.99


@pytest.mark.parametrize("yaw", [0.0, 40.0])
def test_a_shaded_sphere_is_brightest_in_the_middle(yaw):
    size = 101
    vertices, triangles = sphere()
    camera = figures.frontal_camera(vertices, size, yaw)
    image, mask = figures.shaded(vertices, triangles, camera, size, size, color=(1.0, 0.5, 0.25))
    assert image.shape == (size, size, 3)
    assert (image[~mask] == 1).all()
    assert mask.mean() == pytest.approx(np.pi / 4 * 0.94**2, abs=0.01)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(x, y) / (0.47 * size)
    brightness = np.where(mask, image[..., 0], 0)
    assert radius[np.unravel_index(brightness.argmax(), mask.shape)] < 0.1
    assert brightness.max() == pytest.approx(1, abs=0.01)
    inside = mask & (radius < 0.95)
    height = np.sqrt(1 - radius[inside] ** 2)  # the cosine to a light beside the camera
    np.testing.assert_allclose(brightness[inside], 0.25 + 0.75 * height**0.8, atol=0.03)
    np.testing.assert_allclose(image[inside], brightness[inside][:, None] * [1, 0.5, 0.25])


@pytest.mark.parametrize("yaw", [0.0, -50.0, 90.0])
@pytest.mark.parametrize("size", [40, 151])
def test_frontal_camera_fits_the_mesh_into_the_picture(model, size, yaw):
    camera = figures.frontal_camera(model.mean, size, yaw)
    pixels = camera.project(model.mean)
    assert pixels.min() >= -0.5
    assert pixels.max() <= size - 0.5
    assert np.ptp(pixels, axis=0).max() == pytest.approx(0.94 * size)  # and fills it
    pose = camera.pose
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((yaw, 0, 0), abs=1e-6)
    middle = (pixels.min(axis=0) + pixels.max(axis=0)) / 2
    np.testing.assert_allclose(middle, [(size - 1) / 2] * 2, atol=1e-4)


def test_a_preview_is_a_small_jpeg_that_does_not_change(made):
    first, second = (figures.preview(made["figure1"]) for _ in range(2))
    assert first.data == second.data
    assert first.data[:2] == b"\xff\xd8"
    assert len(first.data) < 150_000


# --- one by one ---------------------------------------------------------------------------------


def test_face_model_shows_the_mean_the_modes_and_people(model, made):
    pictures = shown(made["face_model"])
    assert len(pictures) == 3 * 5  # mean and two modes either way; six people in two more rows
    assert [len(p) for p in pictures] == [1] * 11 + [0] * 4
    titles = [axis.get_title() for axis in made["face_model"].axes]
    assert titles[:5] == ["mean", "mode 1, -3σ", "mode 1, +3σ", "mode 2, -3σ", "mode 2, +3σ"]
    np.testing.assert_array_equal(pictures[5][0], pictures[0][0])  # the people are the mean here
    assert all((p[0] != pictures[0][0]).any() for p in pictures[1:5])


def test_landmark_map_numbers_every_vertex_on_the_face(model, made):
    for axis in made["landmark_map"].axes:
        assert [text.get_text() for text in axis.texts] == [str(i) for i in range(68)]
        x, y = axis.lines[0].get_data()
        picture = np.asarray(axis.images[0].get_array())
        assert len(x) == 68
        assert (picture[np.rint(y).astype(int), np.rint(x).astype(int)] < 1).mean() > 0.6
    assert "ibug68: 68 vertices" in made["landmark_map"].get_suptitle()


def test_figure1_shows_photo_planes_and_two_point_clouds(scene, face, made):
    pictures = shown(made["figure1"])
    assert [len(p) for p in pictures] == [1, 1, 1, 0, 0] * 2
    np.testing.assert_array_equal(pictures[0][0], scene.photo)
    np.testing.assert_array_equal(pictures[1][0], figures.pncc_colors(face.pncc, face.valid))
    np.testing.assert_array_equal(pictures[2][0], figures.offset_colors(face.offsets, face.valid))
    axis = made["figure1"].axes[0]
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert -0.5 <= left < scene.people[0].box.left < scene.people[0].box.right < right <= 239.5
    assert -0.5 <= top < scene.people[0].box.top < scene.people[0].box.bottom < bottom <= 179.5
    clouds = [axis.collections[0].get_offsets() for axis in made["figure1"].axes[3:5]]
    assert all(len(cloud) == len(face.points) for cloud in clouds)
    # Seen from elsewhere the same points lie elsewhere, at the same heights.
    np.testing.assert_allclose(*(np.sort(cloud[:, 1]) for cloud in clouds))
    assert np.abs(np.sort(clouds[0][:, 0]) - np.sort(clouds[1][:, 0])).max() > 5


def test_points_are_painted_back_to_front(model):
    figure, axis = plt.subplots()
    plt.close(figure)
    points = np.array([[0.0, 0, 10], [1, 0, -10], [2, 0, 0]])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    figures._point_cloud(axis, points, colors, 0)
    np.testing.assert_array_equal(axis.collections[0].get_offsets()[:, 0], [1, 2, 0])
    np.testing.assert_array_equal(
        axis.collections[0].get_facecolors()[:, :3], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    )


def test_figure2_lays_the_mesh_over_the_photo(scene, face, made):
    pictures = shown(made["figure2"])
    assert [len(p) for p in pictures] == [1, 1, 2, 2]
    mesh, mask = figures.shaded(
        face.vertices, face.triangles, face.camera, scene.height, scene.width
    )
    overlay = pictures[2][1]
    assert 0.05 < mask.mean() < 0.5
    np.testing.assert_allclose(overlay[~mask], scene.photo[~mask] / 255)
    np.testing.assert_allclose(overlay[mask], (0.35 * scene.photo / 255 + 0.65 * mesh)[mask])
    np.testing.assert_array_equal(pictures[3][1], mesh)
    marks = made["figure2"].axes[1].collections[0].get_offsets()
    np.testing.assert_allclose(marks, face.landmarks())


def test_textures_are_shown_as_seen_completed_and_on_the_turned_mesh(scene, face, made):
    pictures = shown(made["textures"])
    assert [len(p) for p in pictures] == [1] * 5
    titles = [axis.get_title() for axis in made["textures"].axes]
    assert titles == ["photo", "texture", "completed", "yaw -40°", "yaw 40°"]
    seen, whole = (pictures[i][0] for i in (1, 2))
    np.testing.assert_array_equal(seen, face.texture(complete=False).image)
    assert (seen == 0).all(axis=2).any()
    assert not (whole == 0).all(axis=2).any()
    left, right = (p[0] for p in pictures[3:])
    assert left.shape == right.shape == (60, 60, 3)
    assert np.abs(left - right).max() > 0.1


def test_a_textured_mesh_shows_its_picture():
    """A square that fills the view but for its margin, right way up."""
    image = np.random.default_rng(0).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    image = image.repeat(50, axis=0).repeat(50, axis=1)
    corners = np.array([[0, 0, 0], [9, 0, 0], [9, 9, 0], [0, 9, 0]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    mesh = TexturedMesh(corners, triangles, corners[:, :2] / 9, triangles, image)
    view = figures.textured(mesh, figures.frontal_camera(corners, 100), 50, 50)
    for row, column in ((12, 12), (12, 37), (37, 12), (37, 37)):
        expected = image[2 * row, 2 * column] / 255
        np.testing.assert_allclose(view[row, column], expected, atol=1e-6)
    assert (view[0] == 1).all()


def test_interactive_points_turn_upright(face):
    figure = figures.interactive_points(face)
    assert isinstance(figure, graph_objects.Figure)
    (cloud,) = figure.data
    assert cloud.mode == "markers"
    # Model space: y up, z to the viewer; Plotly: z up, y away from the viewer.
    shown = np.stack([cloud.x, cloud.z, -np.asarray(cloud.y)], 1)
    np.testing.assert_allclose(shown, face.points, atol=0.051)
    assert figure.layout.scene.camera.eye.y < 0  # from there, x goes to the right
    red, green, blue = face.point_colors[0]
    assert cloud.marker.color[0] == f"rgb({red},{green},{blue})"
    assert len(cloud.marker.color) == len(face.points)


def test_landmarks_over_pictures_in_rows_of_three(scene, face, made):
    axes = made["landmarks_over"].axes
    assert len(axes) == 6
    assert [len(axis.images) for axis in axes] == [1, 1, 1, 1, 0, 0]
    assert [axis.get_title() for axis in axes[:4]] == list("abcd")
    truth, found = (np.stack(line.get_data(), 1) for line in axes[0].lines)
    np.testing.assert_allclose(truth, scene.people[0].landmarks())
    np.testing.assert_allclose(found, face.landmarks())
    (left, right), (bottom, top) = axes[0].get_xlim(), axes[0].get_ylim()
    assert (left <= found[:, 0]).all()
    assert (found[:, 0] <= right).all()
    assert (top <= found[:, 1]).all()
    assert (found[:, 1] <= bottom).all()
    plain = figures.landmarks_over([scene.photo], [face.landmarks()])
    assert len(plain.axes) == 1
    assert len(plain.axes[0].lines) == 1


def test_landmark_errors_are_bars_in_per_cent(made):
    heights = np.array([bar.get_height() for bar in made["landmark_errors"].axes[0].patches])
    assert len(heights) == 2 * 84
    np.testing.assert_allclose(heights[[0, 83, 84, 167]], [4, 6, 3, 5])


def test_several_photos_draws_people_and_their_mean(made):
    first, second, mean = made["several_photos"].axes[0].lines
    np.testing.assert_array_equal(first.get_xydata(), [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_array_equal(second.get_ydata(), [4, 2, 2])
    np.testing.assert_array_equal(mean.get_ydata(), [3.5, 2, 1.5])
    assert made["several_photos"].axes[0].get_ylim()[0] == 0


def test_figure7_draws_cumulative_errors(made):
    errors, statistics = errors_and_statistics()
    for axis, kind in zip(made["figure7"].axes, ("2d", "3d"), strict=True):
        assert axis.get_xlabel() == figures.KINDS[kind]
        assert axis.get_xlim() == (0, 100 * LIMIT)
        for line, (name, values) in zip(axis.lines, errors[kind].items(), strict=True):
            x, share = line.get_data()
            expected = [(values <= limit).mean() for limit in x / 100]
            np.testing.assert_allclose(share, expected, atol=1 / 30 + 1e-9)
            assert np.mean(np.abs(share - expected) > 1e-9) < 0.01
            stats = statistics[kind][name]
            assert line.get_label().startswith(name)
            assert f"mean {100 * stats.mean:.2f} %" in line.get_label()
            assert f"AUC {stats.auc:.3f}" in line.get_label()


def test_figure7_leaves_out_frames_without_truth_and_kinds_that_are_not_there():
    errors, statistics = errors_and_statistics()
    errors["2d"]["ours"] = np.append(errors["2d"]["ours"], np.full(30, np.nan))
    (axis,) = figures.figure7(errors, statistics, LIMIT, kinds=("2d",)).axes
    assert axis.lines[0].get_ydata()[-1] == 1


def test_methods_keep_their_colours_and_others_get_their_own():
    colors = figures.method_colors(["theirs", "oracle", "this run", "another"])
    assert list(colors) == ["theirs", "oracle", "this run", "another"]
    assert colors["this run"] == figures.METHODS["this run"]
    assert len(set(colors.values())) == 4


def test_error_by_yaw_draws_the_means_of_bins_that_hold_frames(made):
    errors, yaw = errors_and_statistics()[0]["2d"], np.abs(np.linspace(-40, 40, 30))
    axis = made["error_by_yaw"].axes[0]
    line = axis.lines[0]
    expected = [
        100 * errors["ours"][(yaw >= low) & (yaw < high)].mean()
        for low, high in ((0, 15), (15, 30), (30, 45))
    ]
    np.testing.assert_allclose(line.get_ydata(), expected)
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert labels == ["0 to 15\n10 frames", "15 to 30\n12 frames", "30 to 45\n8 frames"]


def test_error_over_time_marks_interpolated_boxes(made):
    axis = made["error_over_time"].axes[0]
    ours, _, _, marks = axis.lines
    np.testing.assert_array_equal(ours.get_xdata(), np.arange(1, 31))
    np.testing.assert_array_equal(marks.get_xdata(), [4, 14, 24])
    assert axis.get_title() == "clip 001"
    gap = {"this run": np.array([0.01, np.inf, 0.02])}
    plain = figures.error_over_time([1, 2, 3], gap, np.ones(3, bool), LIMIT)
    assert len(plain.axes[0].lines) == 2  # no marks
    np.testing.assert_array_equal(
        np.isnan(plain.axes[0].lines[0].get_ydata()), [False, True, False]
    )


def test_error_by_part_has_a_bar_a_method(made):
    (axis,) = made["error_by_part"].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["001", "left eye"]
    widths = np.array([bar.get_width() for bar in axis.patches])
    np.testing.assert_allclose(widths, [2, 3, 1, np.nan])


def test_claims_have_an_axes_a_kind_and_intervals_about_gains(made):
    two, three = made["claims"].axes
    np.testing.assert_allclose(two.lines[0].get_xdata(), [1, -1])  # per cent
    np.testing.assert_allclose(three.lines[0].get_xdata(), [1])  # mm
    (first, second) = two.collections[0].get_segments()
    np.testing.assert_allclose([first[:, 0], second[:, 0]], [[0, 3], [-2, 1]])
    assert [label.get_text() for label in two.get_yticklabels()] == ["average", "offsets"]


def test_contact_sheet_has_a_cell_a_sample():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 30, 30, 3), dtype=np.uint8)
    valid = np.zeros((5, 30, 30), bool)
    valid[:, 10:20, 10:20] = True
    planes = np.where(valid[..., None], np.float32(40), np.float32(0)).repeat(6, axis=-1)
    sheet = figures.contact_sheet(images, planes, valid, columns=2, side=30)
    assert sheet.shape == (3 * 34, 2 * (3 * 30 + 6), 3)
    np.testing.assert_array_equal(sheet[2:32, 3:33], images[0])
    assert (sheet[2:12, 33:93] == 255).all()  # background of both targets
    assert (sheet[-34:, 96:] == 255).all()  # no sixth sample
    assert figures.picture(sheet).data[:2] == b"\xff\xd8"


def test_ablation_without_photographs_shows_synthetic_people_only():
    outcomes = [Outcome(n, 0, 5.0, 6.0, 0.8, 0.9, np.nan, np.nan) for n in ("nothing", "hair")]
    assert len(figures.ablation(outcomes).axes) == 1


class FewFrames:
    """A clip of pictures in memory."""

    def __init__(self, name, frames):
        self.name, self.frames = name, frames
        self.projected = np.full((len(frames), 84, 2), np.arange(len(frames))[:, None, None])

    def __len__(self):
        return len(self.frames)

    def __iter__(self):
        return iter(self.frames)


FILMS = [FewFrames(n, np.full((5, 30, 40, 3), 50 * i, np.uint8)) for i, n in enumerate("ab")]
MAKE["clip_frames"] = lambda m, s, f: figures.clip_frames(FILMS, ["walks", "talks"], columns=3)


def test_clip_frames_shows_each_clip_from_its_first_to_its_last_frame(made):
    axes = made["clip_frames"].axes
    assert len(axes) == 2 * 3
    assert [axis.get_title(loc="left") for axis in axes[::3]] == ["a  walks", "b  talks"]
    for number, axis in enumerate(axes):
        clip, frame = FILMS[number // 3], (0, 2, 4)[number % 3]
        np.testing.assert_array_equal(axis.images[0].get_array(), clip.frames[frame])
        np.testing.assert_array_equal(axis.lines[0].get_xydata(), clip.projected[frame])
