from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from p2f_lib.camera import PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.errors import P2FError
from p2f_lib.rasterizer import BATCH, Raster, interpolate, rasterize
from tests.toy import toy_model


def snapped(pixels):
    """The grid that the rasteriser's documentation promises."""
    return np.rint(np.asarray(pixels, float) * 65536) / 65536


def reference(pixels, depth, triangles, height, width, perspective=False, cull_back=True):
    """One triangle after the other over the whole picture, in float64."""
    pixels, depth = snapped(pixels), np.asarray(depth, float)
    rows, columns = np.mgrid[:height, :width].astype(float)
    triangle_id = np.full((height, width), -1)
    barycentric = np.zeros((height, width, 3))
    nearest = np.full((height, width), np.inf)
    for t, corners in enumerate(triangles):
        p, z = pixels[corners], depth[corners]
        if not (np.isfinite(p).all() and np.isfinite(z).all()) or (perspective and z.min() <= 1e-6):
            continue
        area = np.linalg.det([p[1] - p[0], p[2] - p[0]])
        if area == 0 or (area > 0 and cull_back):
            continue
        inside = np.ones((height, width), bool)
        weights = []
        for k in range(3):  # the edge opposite of corner k, walked with the inside to its right
            a, b = p[(k + 1) % 3], p[(k + 2) % 3]
            if area < 0:
                a, b = b, a
            dx, dy = b - a
            edge = dx * (rows - a[1]) - dy * (columns - a[0])
            top_left = dy < 0 or (dy == 0 and dx > 0)
            inside &= edge >= 0 if top_left else edge > 0
            weights.append(edge / abs(area))
        weights = np.stack(weights, -1)
        if perspective:  # where the ray through the pixel meets the triangle in space
            corners_3d = np.stack([p[:, 0] * z, p[:, 1] * z, z])
            rays = np.stack([columns, rows, np.ones_like(rows)], -1)
            weights = rays @ np.linalg.inv(corners_3d).T
            here = 1 / weights.sum(-1)
            weights = weights * here[..., None]
        else:
            here = weights @ z
        closer = inside & (here < nearest)
        triangle_id[closer], nearest[closer] = t, here[closer]
        barycentric[closer] = weights[closer]
    return triangle_id, barycentric, nearest


def random_soup(rng, n=150, size=40.0):
    """Triangles of all sizes, on and off the lattice of pixel centres, within and without."""
    center = rng.uniform(-0.2 * size, 1.2 * size, (n, 1, 2))
    pixels = center + rng.normal(size=(n, 3, 2)) * rng.choice([0.7, 3, 20], (n, 1, 1))
    lattice = rng.random(n) < 0.4
    pixels[lattice] = np.round(2 * pixels[lattice]) / 2
    depth = rng.uniform(50, 150, (n, 3))
    return pixels.reshape(-1, 2), depth.ravel(), np.arange(3 * n).reshape(n, 3)


@pytest.mark.parametrize("perspective", [False, True])
@pytest.mark.parametrize("cull_back", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_reference_on_random_triangles(seed, cull_back, perspective):
    rng = np.random.default_rng(seed)
    pixels, depth, triangles = random_soup(rng)
    pixels[rng.integers(len(pixels), size=3)] = np.nan
    depth[rng.integers(len(depth), size=3)] = np.inf
    depth[rng.integers(len(depth), size=5)] *= -1
    options = {"perspective": perspective, "cull_back": cull_back}
    raster = rasterize(pixels, depth, triangles, 37, 43, **options)
    triangle_id, barycentric, nearest = reference(pixels, depth, triangles, 37, 43, **options)
    assert (triangle_id >= 0).mean() > 0.3
    np.testing.assert_array_equal(raster.triangle_id, triangle_id)
    np.testing.assert_allclose(raster.barycentric, barycentric, atol=1e-5)
    np.testing.assert_allclose(raster.depth, nearest, rtol=1e-5, atol=1e-4)


def test_equals_the_reference_beyond_one_batch():
    rng = np.random.default_rng(9)
    pixels, depth, triangles = random_soup(rng, 2 * BATCH + 50)
    raster = rasterize(pixels, depth, triangles, 37, 43)
    triangle_id, _, nearest = reference(pixels, depth, triangles, 37, 43)
    assert triangle_id.max() >= 2 * BATCH
    np.testing.assert_array_equal(raster.triangle_id, triangle_id)
    np.testing.assert_allclose(raster.depth, nearest, rtol=1e-5, atol=1e-4)


def test_depths_of_any_sign_are_ordered_and_the_first_of_equals_wins():
    rng = np.random.default_rng(4)
    pixels, _, triangles = random_soup(rng)
    levels = rng.choice([-300.0, -1.0, -0.0, 0.0, 1e-3, 7.0], len(triangles))  # flat triangles
    triangle_id = np.full((37, 43), -1)
    nearest = np.full((37, 43), np.inf)
    for t, level in enumerate(levels):
        alone = rasterize(pixels, np.ones(len(pixels)), triangles[t : t + 1], 37, 43).valid
        closer = alone & (level < nearest)
        triangle_id[closer], nearest[closer] = t, level
    raster = rasterize(pixels, np.repeat(levels, 3), triangles, 37, 43)
    np.testing.assert_array_equal(raster.triangle_id, triangle_id)
    np.testing.assert_array_equal(raster.depth, nearest.astype(np.float32))


def test_types():
    pixels, depth, triangles = random_soup(np.random.default_rng(0), 20)
    raster = rasterize(pixels, depth, triangles, 5, 7)
    assert raster.triangle_id.dtype == np.int32
    assert raster.barycentric.dtype == raster.depth.dtype == np.float32
    assert raster.barycentric.shape == (5, 7, 3)
    planes = interpolate(raster, triangles, np.ones((60, 4)))
    assert planes.dtype == np.float32
    assert planes.shape == (5, 7, 4)


def lattice_mesh(rng, size):
    """A flat, jittered grid over the picture; some vertices exactly on pixel centres."""
    line = np.linspace(-2, size + 1, 12)
    grid = np.stack(np.meshgrid(line, line), -1)
    grid[1:-1, 1:-1] += rng.uniform(-1, 1, (10, 10, 2))
    grid[1:-1, 1:-1][rng.random((10, 10)) < 0.5] //= 1
    pixels = grid.reshape(-1, 2)
    a, b = np.arange(144).reshape(12, 12)[:-1, :-1].ravel(), 1
    top = np.stack([a, a + 12, a + b], 1)  # counter-clockwise where y points up
    return pixels, np.concatenate([top, np.stack([a + b, a + 12, a + 13], 1)])


@pytest.mark.parametrize("seed", range(3))
def test_shared_edges_leave_no_gap_and_no_double_hit(seed):
    pixels, triangles = lattice_mesh(np.random.default_rng(seed), 30)
    hits = np.zeros((30, 30), int)
    for triangle in triangles:
        hits += rasterize(pixels, np.ones(144), triangle[None], 30, 30).valid
    np.testing.assert_array_equal(hits, 1)


def test_fans_around_pixel_centres_cover_them_once():
    # Eight triangles meet in the middle of a pixel, their edges run through other centres.
    angles = np.arange(8) * np.pi / 4
    ring = np.round(np.stack([np.cos(angles), -np.sin(angles)], 1)) * 4 + 5
    pixels = np.concatenate([[[5.0, 5.0]], ring])
    triangles = np.stack([np.zeros(8, int), 1 + np.arange(8), 1 + np.arange(1, 9) % 8], 1)
    hits = sum(rasterize(pixels, np.ones(9), t[None], 11, 11).valid.astype(int) for t in triangles)
    expected = np.zeros((11, 11), int)
    expected[1:9, 1:9] = 1  # top and left edges count, bottom and right edges do not
    np.testing.assert_array_equal(hits, expected)


@pytest.mark.parametrize("seed", range(3))
def test_huge_triangles_are_exact(seed):
    # A fan around a pixel centre whose rim lies as far out as vertices may.
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
    rim = 15_900 * np.stack([np.cos(angles), -np.sin(angles)], 1)
    pixels = np.concatenate([rng.integers(5, 45, (1, 2)), rim])
    fan = np.stack([np.zeros(40, int), 1 + np.arange(40), 1 + np.arange(1, 41) % 40], 1)
    hits = sum(rasterize(pixels, np.ones(41), t[None], 50, 50).valid.astype(int) for t in fan)
    np.testing.assert_array_equal(hits, 1)
    whole = rasterize(pixels, np.arange(1.0, 42), fan, 50, 50)
    np.testing.assert_allclose(whole.barycentric.sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(
        whole.triangle_id, reference(pixels, np.arange(1.0, 42), fan, 50, 50)[0]
    )


def test_a_window_shows_what_the_whole_picture_shows():
    rng = np.random.default_rng(5)
    pixels, depth, triangles = random_soup(rng, 300, 60.0)
    pixels = snapped(pixels)
    whole = rasterize(pixels, depth, triangles, 64, 64)
    part = rasterize(pixels - (20, 9), depth, triangles, 31, 24)
    window = np.s_[9:40, 20:44]
    np.testing.assert_array_equal(part.triangle_id, whole.triangle_id[window])
    np.testing.assert_allclose(part.barycentric, whole.barycentric[window], atol=1e-5)


@pytest.mark.parametrize(("low", "high", "expected"), [(-0.5, 8.5, 81), (0.0, 8.0, 64)])
def test_picture_border(low, high, expected):
    pixels = np.array([[low, low], [low, high], [high, high], [high, low]])
    raster = rasterize(pixels, np.ones(4), np.array([[0, 1, 2], [0, 2, 3]]), 9, 9)
    assert raster.valid.sum() == expected
    assert raster.valid[0, 0]


def test_front_faces_are_counter_clockwise_with_y_up():
    pixels = np.array([[0.0, 10.0], [10.0, 10.0], [0.0, 0.0]])  # on screen: left low, right low, up
    triangle = np.array([[0, 1, 2]])
    assert rasterize(pixels, np.ones(3), triangle, 12, 12).valid.any()
    assert not rasterize(pixels, np.ones(3), triangle[:, ::-1], 12, 12).valid.any()
    turned = rasterize(pixels, np.ones(3), triangle[:, ::-1], 12, 12, cull_back=False)
    assert turned.valid.any()


def test_culling_changes_nothing_on_a_closed_mesh():
    model = toy_model(600)
    camera = PerspectiveCamera(
        300.0, np.full(2, 31.5), rotation_from_pose(Pose(40, 10, 5)), [3, 4, 800]
    )
    pixels, depth = camera.project(model.mean), camera.depth(model.mean)
    culled = rasterize(pixels, depth, model.triangles, 64, 64, perspective=True)
    both = rasterize(pixels, depth, model.triangles, 64, 64, perspective=True, cull_back=False)
    assert culled.valid.sum() > 1000
    np.testing.assert_array_equal(culled.triangle_id, both.triangle_id)


@pytest.mark.parametrize("distance", [250.0, 2000.0])
def test_interpolated_points_lie_on_the_ray_of_their_pixel(distance):
    model = toy_model(600)
    camera = PerspectiveCamera(
        0.3 * distance, np.full(2, 31.5), rotation_from_pose(Pose(-30, 10, 5)), [0, 0, distance]
    )
    pixels, depth = camera.project(model.mean), camera.depth(model.mean)
    raster = rasterize(pixels, depth, model.triangles, 64, 64, perspective=True)
    points = interpolate(raster, model.triangles, model.mean)
    rows, columns = np.nonzero(raster.valid)
    assert len(rows) > 800
    seen = points[rows, columns]
    np.testing.assert_allclose(camera.project(seen), np.stack([columns, rows], 1), atol=2e-3)
    np.testing.assert_allclose(camera.depth(seen), raster.depth[rows, columns], rtol=1e-5)


def test_nothing_is_exactly_nothing():
    raster = rasterize(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3), int), 4, 5)
    assert (raster.triangle_id == -1).all()
    assert (raster.barycentric == 0).all()
    assert np.isposinf(raster.depth).all()
    assert (interpolate(raster, np.zeros((0, 3), int), np.zeros((0, 2))) == 0).all()


@pytest.mark.parametrize(
    "pixels",
    [
        [[2, 2], [2, 2], [2, 2]],  # a point
        [[0, 0], [5, 5], [9, 9]],  # a line
        [[-50, -50], [-50, -40], [-40, -40]],
        [[0, np.nan], [0, 9], [9, 9]],
        [[0, 0], [0, np.inf], [9, 9]],
        [[0, 0], [0, 1e30], [1e30, 1e30]],
        [[-1e300, 0], [0, 1e300], [1e300, 0]],
    ],
)
@pytest.mark.parametrize("cull_back", [True, False])
def test_harmless_triangles(pixels, cull_back):
    raster = rasterize(np.array(pixels, float), np.ones(3), np.array([[0, 1, 2]]), 10, 10)
    assert not raster.valid.any()


def test_triangles_at_or_behind_the_camera_are_skipped():
    pixels = np.array([[0.0, 9.0], [9.0, 9.0], [0.0, 0.0]])
    triangle = np.array([[0, 1, 2]])
    for depth, drawn in [(1.0, True), (0.0, False), (-5.0, False)]:
        raster = rasterize(pixels, [1.0, 1.0, depth], triangle, 10, 10, perspective=True)
        assert raster.valid.any() == drawn
        assert rasterize(pixels, [1.0, 1.0, depth], triangle, 10, 10).valid.any()


def test_first_of_equal_triangles_wins():
    pixels = np.array([[0.0, 9.0], [9.0, 9.0], [0.0, 0.0]])
    triangles = np.array([[0, 1, 2], [1, 2, 0], [0, 1, 2]])
    raster = rasterize(pixels, np.ones(3), triangles, 10, 10)
    assert set(raster.triangle_id[raster.valid]) == {0}


def test_input_types_do_not_matter():
    pixels, depth, triangles = random_soup(np.random.default_rng(3), 60)
    pixels, depth = snapped(pixels).astype(np.float32), depth.astype(np.float32)
    first = rasterize(pixels, depth, triangles.astype(np.int32), 40, 40)
    wide = np.zeros((len(pixels), 4))
    wide[:, ::2] = pixels
    for other in (
        rasterize(pixels.astype(float), depth.astype(float), triangles.astype(np.uint64), 40, 40),
        rasterize(wide[:, ::2], np.repeat(depth, 2)[::2], np.asfortranarray(triangles), 40, 40),
    ):
        np.testing.assert_array_equal(first.triangle_id, other.triangle_id)
        np.testing.assert_array_equal(first.barycentric, other.barycentric)


def test_threads_do_not_disturb_each_other():
    soups = [random_soup(np.random.default_rng(seed), 400) for seed in range(8)]
    draw = lambda soup: rasterize(*soup, 40, 40)  # noqa: E731
    with ThreadPoolExecutor(4) as pool:
        for soup, raster in zip(soups, pool.map(draw, soups), strict=True):
            np.testing.assert_array_equal(raster.triangle_id, draw(soup).triangle_id)


def test_interpolate_equals_its_formula():
    pixels, depth, triangles = random_soup(np.random.default_rng(1))
    raster = rasterize(pixels, depth, triangles, 40, 40)
    attributes = np.random.default_rng(2).normal(size=(len(pixels), 6))
    for channels in (1, 3, 6):
        some = attributes[:, :channels]
        slow = np.einsum("hwk,hwkc->hwc", raster.barycentric, some[triangles[raster.triangle_id]])
        slow[~raster.valid] = 0
        planes = interpolate(raster, triangles, some)
        np.testing.assert_allclose(planes, slow, atol=1e-5)
        assert (planes[~raster.valid] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": np.zeros((3, 3))}, "pixels"),
        ({"depth": np.zeros(4)}, "depth"),
        ({"triangles": np.array([[0, 1, 3]])}, "vertices"),
        ({"triangles": np.array([[0, 1, -1]])}, "vertices"),
        ({"triangles": np.array([[0.0, 1, 2]])}, "integers"),
        ({"triangles": np.array([0, 1, 2])}, "integers"),
        ({"width": 0}, "width 0"),
        ({"height": 16001}, "height 16001"),
    ],
)
def test_wrong_input_is_named(change, message):
    good = {
        "pixels": np.zeros((3, 2)),
        "depth": np.zeros(3),
        "triangles": np.array([[0, 1, 2]]),
        "height": 4,
        "width": 4,
    }
    with pytest.raises(P2FError, match=message):
        rasterize(**(good | change))


def test_interpolate_names_wrong_input():
    raster = Raster(np.full((2, 2), 5, np.int32), np.zeros((2, 2, 3), np.float32), np.ones((2, 2)))
    with pytest.raises(P2FError, match="triangle 5"):
        interpolate(raster, np.array([[0, 1, 2]]), np.zeros((3, 1)))
    with pytest.raises(P2FError, match=r"\(V, C\)"):
        interpolate(raster, np.array([[0, 1, 2]]), np.zeros(3))
