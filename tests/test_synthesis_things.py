"""Hair, hats, glasses, hands, masks, backgrounds and pictures without a face."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from p2f_lib.ground_truth import CameraDistribution, place_camera, sample_view
from p2f_lib.synthesis import background, occluders, relief
from p2f_lib.synthesis.anatomy import SCALP_AROUND, anatomy
from p2f_lib.synthesis.background import draw_background, draw_distractor, pictures
from p2f_lib.synthesis.glasses import draw_glasses
from p2f_lib.synthesis.hair import (
    EDGE_ANGLES,
    TAIL_AROUND,
    TAIL_ROWS,
    Tail,
    build_sheet,
    edge_height,
)
from p2f_lib.synthesis.hair import _visible_cells as visible_cells
from p2f_lib.synthesis.hands import hand_capsules
from p2f_lib.synthesis.occluders import draw_occluder
from p2f_lib.synthesis.people import HATS, _glasses, _hair, _hat, sample_appearance
from p2f_lib.synthesis.relief import draw_relief
from p2f_lib.synthesis.skin import SKIN_ANCHORS, pick, skin_albedo, to_linear
from tests.toy import toy_model

SIZE = 96
FRONTAL = CameraDistribution(frontal_share=1.0, frontal_sigma=1.0, tilt_limit=1.0)
DOWN = np.array([0, -1.0, 0])
WHITE = np.ones(3)


@pytest.fixture(scope="module")
def head():
    """The toy face's anatomy, body and frame."""
    model = toy_model()
    person = anatomy(model)
    return person, person.person(model.mean, np.eye(3)), person.frame(model.mean)


@pytest.fixture(scope="module")
def camera():
    model = toy_model()
    view = sample_view(np.random.default_rng(0), FRONTAL)
    return place_camera(view, model.mean[model.landmarks["ibug68"]], SIZE)


@pytest.fixture
def marks(head, camera):
    return camera.project(head[2].marks)


def a_sheet(seed=0, **changes):
    """Some hair, without irregularities unless asked for."""
    rng = np.random.default_rng(seed)
    sheet = None
    while sheet is None:
        sheet = _hair(rng, np.full(3, 0.1), flat=False, feminine=True)[0]
    plain = {"bumps": (0.5, 0.0), "locks": (2.0, 0.0, 0.0), "raggedness": 0.0, "tails": ()}
    return replace(sheet, **(plain | changes))


# ------------------------------------------------------------------------------------- people


def test_picking_follows_the_shares():
    rng = np.random.default_rng(0)
    drawn = [pick(rng, {"a": 1.0, "b": 3.0, "c": 0.0}) for _ in range(2000)]
    assert set(drawn) == {"a", "b"}
    assert abs(drawn.count("b") / 2000 - 0.75) < 0.04


def test_skin_is_interpolated_between_its_anchors():
    knots = np.linspace(0, 1, len(SKIN_ANCHORS))
    for tone in (0.0, 0.1, 0.437, 0.8, 1.0):
        logs = np.log(to_linear(SKIN_ANCHORS))
        slow = np.exp([np.interp(tone, knots, logs[:, k]) for k in range(3)])
        np.testing.assert_allclose(skin_albedo(tone, 0.0), slow)


def test_all_skin_tones_are_equally_likely():
    levels = [sample_appearance(np.random.default_rng(k)).skin[0] for k in range(400)]
    quarters = [skin_albedo(tone, 0.0)[0] for tone in (0.75, 0.5, 0.25)]
    shares = np.diff(np.concatenate([[0], np.searchsorted(np.sort(levels), quarters), [400]]))
    np.testing.assert_allclose(shares / 400, 0.25, atol=0.07)


def test_an_appearance_is_a_pure_function_of_its_generator():
    one, two = (sample_appearance(np.random.default_rng(8)) for _ in range(2))
    for name in ("skin", "region_shift", "lips", "scalp_edge", "noise", "teeth"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.brow_shape == two.brow_shape


def test_age_shows_in_hair_wrinkles_and_beards():
    young, old = (
        [sample_appearance(np.random.default_rng(k), age=age) for k in range(150)]
        for age in (0.05, 0.95)
    )
    assert all(a.beard_shape[0] < 0.1 for a in young)
    assert any(a.beard_shape[0] > 0.5 for a in old)
    assert np.mean([a.wrinkles for a in old]) > 4 * np.mean([a.wrinkles for a in young])

    def grey(people):
        colors = np.stack([a.hair.color for a in people if a.hair is not None])
        return np.mean((colors.min(1) > 0.15) & (np.ptp(colors, axis=1) < 0.12))

    assert grey(old) > grey(young) + 0.3


def test_there_is_every_hat_and_every_haircut():
    rng = np.random.default_rng(0)
    hats = [_hat(rng) for _ in range(100)]
    assert any(max(hat.brim) > 0 for hat in hats)
    assert any(hat.window is not None for hat in hats)
    assert len(HATS) >= 6
    styles = [_hair(rng, np.full(3, 0.1), flat=False) for _ in range(300)]
    sheets = [sheet for sheet, _, _ in styles if sheet is not None]
    assert 0 < len(sheets) < len(styles)
    assert {len(sheet.tails) for sheet in sheets} == {0, 1, 2}
    assert any(sheet.parting is not None for sheet in sheets)
    assert any(sheet.edge[:, 0].min() < 0.2 for sheet in sheets)  # a fringe
    assert any(sheet.edge[0, 2] > 0.6 for sheet in sheets)  # receding


# --------------------------------------------------------------------------------------- hair


def test_edges_are_interpolated_smoothed_and_periodic():
    rng = np.random.default_rng(1)
    edge = rng.normal(size=(2, 8))
    fine = 2 * np.pi * np.arange(128) / 128 - np.pi
    raw = np.where(
        fine > 0,
        np.interp(abs(fine), EDGE_ANGLES, edge[1]),
        np.interp(abs(fine), EDGE_ANGLES, edge[0]),
    )
    slow = sum(np.roll(raw, k) for k in range(-3, 4)) / 7
    np.testing.assert_allclose(edge_height(edge, fine), slow, atol=1e-5)
    between = (fine[:-1] + fine[1:]) / 2
    np.testing.assert_allclose(edge_height(edge, between), (slow[:-1] + slow[1:]) / 2, atol=1e-5)
    np.testing.assert_allclose(edge_height(edge, fine + 2 * np.pi), slow, atol=1e-4)
    assert edge_height(edge, fine.reshape(2, 64)).shape == (2, 64)


@pytest.mark.parametrize("seed", range(6))
def test_every_sheet_is_a_whole_mesh(head, seed):
    rng = np.random.default_rng(seed)
    hair, _, _ = _hair(rng, np.full(3, 0.1), flat=False, feminine=seed % 2 == 0)
    for sheet in (hair, _hat(rng)):
        if sheet is None:
            continue
        mesh, again = (build_sheet(sheet, *head, DOWN) for _ in range(2))
        n = len(mesh.vertices)
        assert mesh.triangles.min() >= 0
        assert mesh.triangles.max() < n
        assert mesh.margin.shape == (n,)
        assert mesh.strand.shape == (n, 2)
        for array in (mesh.vertices, mesh.margin, mesh.strand, mesh.along):
            assert array.dtype == np.float32
            assert np.isfinite(array).all()
        used = np.unique(mesh.triangles)
        np.testing.assert_allclose(np.linalg.norm(mesh.along[used], axis=1), 1, atol=1e-4)
        np.testing.assert_array_equal(mesh.vertices, again.vertices)


def test_visible_cells_are_those_with_a_corner_inside():
    margin = np.random.default_rng(0).normal(-1, 1, (9, 12)).astype(np.float32)
    margin[6:] = -9
    fast, used = visible_cells(margin, np.float32(-0.5))
    slow = []
    for r in range(8):
        for c in range(12):
            a, b = r * 12 + c, r * 12 + (c + 1) % 12
            for corners in ((a, a + 12, b), (b, a + 12, b + 12)):
                if max(margin.flat[k] for k in corners) > -0.5:
                    slow.append(corners)
    assert sorted(map(tuple, fast.tolist())) == sorted(slow)
    assert max(map(max, slow)) < used <= 7 * 12


def test_hair_lies_on_the_skull_and_thins_out_at_its_edge(head):
    person, _, frame = head
    rest = {"thickness": (0.2, 0.2, 0.2, 0.2), "parting": None, "window": None}
    edge = np.full((2, 8), 0.3)
    mesh = build_sheet(a_sheet(edge=edge, taper=0.1, **rest), *head, DOWN)
    bare = build_sheet(a_sheet(edge=edge, taper=1.0, **rest | {"thickness": (0,) * 4}), *head, DOWN)
    caps = len(person.skull_index) * SCALP_AROUND
    lift = np.linalg.norm(mesh.vertices[:caps] - bare.vertices[:caps], axis=1) / frame.width
    margin = mesh.margin[:caps]
    assert 0.01 < lift[abs(margin) < 3].max() < 0.06
    np.testing.assert_allclose(lift[margin > 0.31 * frame.width], 0.2, atol=1e-3)


def test_hair_hides_the_scalp_down_to_its_edge_and_no_farther(head):
    person, _, frame = head
    mesh = build_sheet(a_sheet(edge=np.full((2, 8), 0.25), thickness=(0.02,) * 4), *head, DOWN)
    height = (mesh.vertices[:, 1] - frame.eyes[1]) / frame.width
    caps = len(person.skull_index) * SCALP_AROUND
    np.testing.assert_allclose(mesh.margin[:caps] / frame.width, height[:caps] - 0.25, atol=0.03)


def test_strands_start_at_the_parting(head):
    side = 0.4
    mesh = build_sheet(a_sheet(parting=(side, 1.4, -0.2), sweep=0.0), *head, DOWN)
    columns = np.arange(SCALP_AROUND)
    angle = 2 * np.pi * columns / SCALP_AROUND - np.pi
    row = 9
    start = slice(row * SCALP_AROUND, (row + 1) * SCALP_AROUND)
    front = np.cos(angle) > 0.5
    along = mesh.strand[start, 1]
    nearest = np.flatnonzero(front)[np.argmin(along[front])]
    polar = np.radians(np.linspace(1, 102, 18))[row]
    assert polar * np.sin(angle[nearest]) == pytest.approx(side, abs=0.1)
    # To either side they run away from it.
    across = mesh.along[start, 0]
    assert (across[front & (angle > angle[nearest] + 0.3)] > 0).all()
    assert (across[front & (angle < angle[nearest] - 0.3)] < 0).all()


def test_a_hood_leaves_the_face_free(head):
    frame = head[2]
    hood = next(h for h in (_hat(np.random.default_rng(k)) for k in range(99)) if h.window)
    mesh = build_sheet(replace(hood, raggedness=0.0), *head, DOWN)
    offset = mesh.vertices - frame.center
    ahead = np.abs(np.arctan2(offset[:, 0], offset[:, 2])) < 0.3
    eyes = abs(mesh.vertices[:, 1] - frame.eyes[1]) < 10
    assert (mesh.margin[ahead & eyes] < 0).all()
    assert (mesh.margin > 0).any()


def test_a_brim_stands_out_evenly(head):
    frame = head[2]
    hats = (_hat(np.random.default_rng(k)) for k in range(200))
    hat = next(h for h in hats if min(h.brim[:2]) > 0.2)
    with_brim, without = (
        build_sheet(replace(hat, brim=b), *head, DOWN) for b in ((0.5, 0.5, 0.1), (0.0,) * 3)
    )

    def reach(mesh):
        shown = mesh.vertices[mesh.margin > 0] - frame.center
        return np.hypot(shown[:, 0], shown[:, 2]).max() / frame.width

    assert reach(with_brim) > reach(without) + 0.35
    # The last row shown is the outer edge, all around.
    rows = with_brim.margin.reshape(-1, SCALP_AROUND) > 0
    assert (rows == rows[:, :1]).all()


def test_tails_hang_from_the_head(head):
    person, _, frame = head
    braid = Tail((1.75, 1.6), 0.1, 1.2, 0.08, 6.0)
    bun = Tail((0.1, 0.0), 0.4, 0.0, 0.2, 0.0)
    plain = build_sheet(a_sheet(edge=np.full((2, 8), 0.1)), *head, DOWN)
    tied = build_sheet(a_sheet(edge=np.full((2, 8), 0.1), tails=(braid, bun)), *head, DOWN)
    extra = TAIL_ROWS * TAIL_AROUND
    assert len(tied.vertices) == len(plain.vertices) + 2 * extra
    low, high = tied.vertices[-2 * extra : -extra], tied.vertices[-extra:]
    top = plain.vertices[:, 1].max()
    assert np.ptp(low[:, 1]) > 1.1 * frame.width
    assert high[:, 1].max() > top + 0.2 * frame.width
    assert facing_out(tied, tied.triangles.min(1) >= len(tied.vertices) - extra) > 0.95
    assert facing_out(tied, tied.triangles.max(1) < len(person.skull_index) * SCALP_AROUND) > 0.95


def facing_out(mesh, chosen):
    """Share of the chosen triangles that face away from their common middle."""
    corners = mesh.vertices[mesh.triangles[chosen]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(1) - corners.mean((0, 1))
    return ((normals * outward).sum(1) >= -1e-3).mean()


# ------------------------------------------------------------------------------------- glasses


def some_glasses(**changes):
    plain = {
        "opacity": 1.0, "gradient": 0.0, "glare": 0.0, "tint": np.full(3, 0.2), "droop": 0.0,
        "wing": 0.0, "color": np.zeros(3), "upper_rim": True, "lower_rim": True, "thickness": 3.0,
    }  # fmt: skip
    return replace(_glasses(np.random.default_rng(0)), **(plain | changes))


def glassed(head, camera, glasses, depth=np.inf, scale=2):
    image = np.full((scale * SIZE, scale * SIZE, 3), 0.7, np.float32)
    z = np.full(image.shape[:2], depth, np.float32)
    draw_glasses(image, z, glasses, head[2], camera, scale, WHITE)
    return image


def test_lenses_lie_on_the_eyes(head, camera, marks):
    image = glassed(head, camera, some_glasses())
    for eye in (marks[36:42].mean(0), marks[42:48].mean(0)):
        column, row = np.round((eye + 0.5) * 2 - 0.5).astype(int)
        np.testing.assert_allclose(image[row, column], 0.2, atol=1e-3)
    assert (image[:10] == 0.7).all()
    assert image.min() < 0.01  # the rims


def test_a_gradient_leaves_less_tint_below(head, camera, marks):
    image = glassed(head, camera, some_glasses(gradient=1.0))
    column = round((marks[36:42, 0].mean() + 0.5) * 2 - 0.5)
    lens = image[:, column, 0]
    inside = np.flatnonzero((lens > 0.15) & (lens < 0.69))
    assert lens[inside[3]] < lens[inside[-4]] - 0.2


def test_half_rims_draw_half(head, camera, marks):
    clear = {"opacity": 0.0}
    both = glassed(head, camera, some_glasses(**clear)) < 0.3
    upper = glassed(head, camera, some_glasses(lower_rim=False, **clear)) < 0.3
    lower = glassed(head, camera, some_glasses(upper_rim=False, **clear)) < 0.3
    assert upper.sum() < both.sum()
    assert np.flatnonzero(upper.any((1, 2))).mean() < np.flatnonzero(lower.any((1, 2))).mean()
    assert not (upper & ~both).any()


def test_glasses_behind_something_or_outside_leave_the_picture_alone(head, camera):
    assert (glassed(head, camera, some_glasses(), depth=0.0) == 0.7).all()
    aside = camera.scaled(1.0, (5000.0, 0.0))
    assert (glassed(head, aside, some_glasses()) == 0.7).all()


# --------------------------------------------------------------------------------------- hands


def test_relief_is_that_of_spheres_and_cylinders():
    capsules = np.float32([[8, 9, 5, 1, 20, 15, 3, 2], [6, 20, 4, 0, 6, 20, 4, 0],
                           [15, -3, 6, 0, 16, 30, 2, 0]])  # fmt: skip
    height, cover, part = relief._sculpt(capsules, np.uint8([1, 2, 3]), 0.0, 0.0, 24, 26)
    for row in range(24):
        for column in range(26):
            best, seen = 0.0, 0.0
            for x0, y0, r0, z0, x1, y1, r1, z1 in capsules.astype(float):
                axis, offset = np.array([x1 - x0, y1 - y0]), np.array([column - x0, row - y0])
                t = np.clip(offset @ axis / max(axis @ axis, 1e-6), 0, 1)
                away, radius = np.hypot(*(offset - t * axis)), r0 + t * (r1 - r0)
                if away < radius:
                    best = max(best, z0 + t * (z1 - z0) + np.sqrt(radius**2 - away**2))
                seen = max(seen, min(radius + 0.5 - away, 1.0))
            assert cover[row, column] == pytest.approx(max(seen, 0), abs=2e-3)
            if seen > 0.99:
                assert height[row, column] == pytest.approx(best, abs=0.02)
                assert part[row, column] > 0


def test_a_relief_is_drawn_only_where_it_is():
    image = np.full((60, 80, 3), 0.5, np.float32)
    bars = [[30, 20, 6, 0, 50, 40, 6, 0]]
    draw_relief(image, bars, [0], [[1.0, 0, 0]], np.array([0, 0, 1.0]), shadow=0.0)
    changed = (image != 0.5).any(2)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (14, 46, 24, 56)
    assert image[30, 40, 0] > 0.9
    assert image[30, 40, 1] < 0.1
    before = image.copy()
    draw_relief(image, [[500, 20, 6, 0, 900, 40, 6, 0]], [0], [[1.0, 0, 0]], np.array([0, 0, 1.0]))
    np.testing.assert_array_equal(image, before)


def test_hands_scale_turn_mirror_and_close():
    def bars(wrist=(0.0, 0.0), forward=0.0, unit=1.0, curl=(0.1,) * 4, side=1):
        return hand_capsules(wrist, forward, unit, curl, 0.1, 0.6, side, 1, 100.0, False)[0]

    base = bars()
    np.testing.assert_allclose(bars(unit=2.0), 2 * base)
    moved = bars(wrist=(5.0, -3.0))
    np.testing.assert_allclose(moved - base, np.tile([5, -3, 0, 0], 2) * np.ones((len(base), 1)))
    turned = bars(forward=np.pi / 2)
    np.testing.assert_allclose(turned[:, [1, 0]], base[:, [0, 1]] * [1, -1], atol=1e-9)
    mirrored = bars(side=-1)
    np.testing.assert_allclose(mirrored * np.tile([1, -1, 1, 1], 2), base, atol=1e-9)
    fingers = base[:, 4].max() - 92
    assert 60 < fingers < 85  # mm beyond the knuckles
    assert bars(curl=(1.0,) * 4)[:, 4].max() < 92 + fingers / 2
    _, parts = hand_capsules((0, 0), 0.0, 1.0, (0.0,) * 4, 0.1, 0.6, 1, -1, 100.0, True)
    assert (parts == 2).sum() == 4


# ----------------------------------------------------------------------------------- occluders


def scene_with(marks):
    """A grey picture, where the face is, the landmarks; twice the final size."""
    large = (marks + 0.5) * 2 - 0.5
    image = np.full((2 * SIZE, 2 * SIZE, 3), 0.3, np.float32)
    return image, np.concatenate([large.min(0), large.max(0)]), large


@pytest.mark.parametrize("kind", occluders.OCCLUDERS)
def test_each_thing_hides_part_of_the_picture(kind, marks, monkeypatch):
    monkeypatch.setattr(occluders, "OCCLUDERS", {kind: 1.0})
    blank, box, large = scene_with(marks)
    for seed in range(6):
        image, again = blank.copy(), blank.copy()
        draw_occluder(image, box, np.full(3, 0.4), WHITE, seed, large)
        draw_occluder(again, box, np.full(3, 0.4), WHITE, seed, large)
        np.testing.assert_array_equal(image, again)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert image.min() >= 0
        changed = (image != blank).any(2).mean()
        assert 0.0005 < changed < 0.7


def test_without_landmarks_nothing_is_worn(marks, monkeypatch):
    monkeypatch.setattr(occluders, "OCCLUDERS", {"mask": 1.0})
    blank, box, _ = scene_with(marks)
    image, hand = blank.copy(), blank.copy()
    draw_occluder(image, box, np.full(3, 0.4), WHITE, 1)
    monkeypatch.setattr(occluders, "OCCLUDERS", {"hand": 1.0})
    draw_occluder(hand, box, np.full(3, 0.4), WHITE, 1)
    assert (image != blank).any()
    np.testing.assert_array_equal(image, hand)


def test_a_mask_covers_the_mouth_but_not_the_eyes(marks, monkeypatch):
    monkeypatch.setattr(occluders, "OCCLUDERS", {"mask": 1.0})
    blank, box, large = scene_with(marks)
    for seed in range(8):
        image = blank.copy()
        draw_occluder(image, box, np.full(3, 0.4), WHITE, seed, large)
        changed = (image != blank).any(2)
        at = np.round(large).astype(int)
        assert changed[at[48:60, 1], at[48:60, 0]].all()
        assert not changed[at[36:48, 1], at[36:48, 0]].any()
        assert not changed[: at[17:27, 1].min()].any()


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 0), (1e9, 1e9, 2e9, 2e9), (np.nan,) * 4, (-900, -900, -800, -780)]
)
def test_faces_of_no_size_or_far_away_are_harmless(box):
    blank = np.full((40, 50, 3), 0.3, np.float32)
    for seed in range(12):
        image = blank.copy()
        draw_occluder(image, np.array(box, float), np.full(3, 0.4), WHITE, seed)
        assert np.isfinite(image).all()


# --------------------------------------------------------------------------------- backgrounds


@pytest.mark.parametrize("surface", background.SURFACES)
def test_each_surface_fills_pictures_of_any_shape(surface):
    for seed, (height, width) in enumerate(((8, 8), (17, 60), (90, 33))):
        picture = surface(np.random.default_rng(seed), height, width)
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.uint8


def test_texture_pictures_are_small_pyramids_without_faces():
    assert not {"astronaut", "camera", "cat", "horse", "coins", "lfw_subset"} & set(
        background.PICTURES
    )
    levels = [level for pyramid in pictures() for level in pyramid]
    assert sum(level.nbytes for level in levels) < 100e6
    for pyramid in pictures():
        assert min(pyramid[-1].shape[:2]) <= 64
        for fine, coarse in pairwise(pyramid):
            assert coarse.shape[:2] == (fine.shape[0] // 2, fine.shape[1] // 2)
            np.testing.assert_allclose(coarse.mean(), fine.mean(), atol=2)


@pytest.mark.parametrize("draw", [draw_background, draw_distractor])
def test_pictures_are_display_values_and_pure_functions(draw):
    seen = set()
    for seed in range(25):
        picture = draw(np.random.default_rng(seed), 48, 64)
        assert picture.shape == (48, 64, 3)
        assert picture.dtype == np.float32
        assert 0 <= picture.min() <= picture.max() <= 1
        np.testing.assert_array_equal(picture, draw(np.random.default_rng(seed), 48, 64))
        seen.add(picture.tobytes())
    assert len(seen) == 25


def test_people_stand_only_where_they_may(monkeypatch):
    calls = []
    monkeypatch.setattr(background, "_crowd", lambda *arguments: calls.append(arguments))
    for seed in range(40):
        draw_background(np.random.default_rng(seed), 16, 16, people=False)
        draw_distractor(np.random.default_rng(seed), 16, 16)
    assert not calls
    for seed in range(40):
        draw_background(np.random.default_rng(seed), 16, 16)
    assert calls


@pytest.mark.parametrize("kind", background.FLAT | background.ROUND)
def test_each_distractor_shows(kind, monkeypatch):
    monkeypatch.setattr(background, "DISTRACTORS", {kind: 1.0})
    grey = np.full((64, 64, 3), 0.5, np.float32)
    monkeypatch.setattr(background, "draw_background", lambda *_, **__: grey.copy())
    for seed in range(4):
        picture = draw_distractor(np.random.default_rng(seed), 64, 64)
        assert (abs(picture - 0.5).max(2) > 0.03).mean() > 0.01


def test_patterns_repeat_along_their_tile(monkeypatch):
    """Stripes have two colours and those between them."""
    monkeypatch.setattr(background, "pick", lambda *_: "stripes")
    for seed in range(6):
        picture = background._pattern(np.random.default_rng(seed), 64, 64).reshape(-1, 3)
        low, high = picture.min(0).astype(float), picture.max(0).astype(float)
        wide = np.argmax(high - low)
        assert high[wide] > low[wide]
        share = (picture[:, wide] - low[wide]) / (high[wide] - low[wide])
        rising = low + share[:, None] * (high - low)
        falling = high - share[:, None] * (high - low)
        either = np.minimum(abs(picture - rising), abs(picture - falling))
        assert either.max() < 6
