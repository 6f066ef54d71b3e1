"""Textures: layouts without overlap, colours from where the surface is seen, the rest completed."""

from dataclasses import replace

import numpy as np
import pytest

from p2f_lib.camera import PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.errors import P2FError
from p2f_lib.rasterizer import rasterize
from p2f_lib.texture import (
    Texture,
    complete_texture,
    make_atlas,
    merge_textures,
    sample_texture,
    texture_map,
)
from tests.toy import toy_model

SIZE = 128  # texels
SIDE = 240  # pixels of a photo


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def layout(model):
    return texture_map(model, SIZE)


def camera(yaw=0.0):
    return PerspectiveCamera(
        800.0,
        np.full(2, (SIDE - 1) / 2),
        rotation_from_pose(Pose(yaw, 0, 0)),
        np.array([0, 0, 900]),
    )


def photo():
    """Red counts columns, green counts rows, blue is 255."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([x, y, np.full_like(x, 255)], axis=-1).astype(np.uint8)


def with_layout(model):
    """The model with texture coordinates: front and back of the head, in a corner, squeezed."""
    front = model.mean[model.triangles].mean(axis=1)[:, 2] > 0
    x, y, _ = model.mean.T / 1000
    halves = np.concatenate(
        [np.stack([x + 0.2, y / 3 + 0.1], 1), np.stack([0.4 - x, y / 3 + 0.1], 1)]
    )
    triangles = model.triangles + np.where(front, 0, len(model.mean))[:, None]
    return replace(
        model,
        texture_coordinates=halves.astype(np.float32),
        texture_triangles=triangles.astype(np.int32),
    )


# -------------------------------------------------------------------------- layout


def drawn(atlas, order=1):
    """Which triangle each texel of a larger picture belongs to."""
    size = 512
    triangles = atlas.triangles[::order]
    pixels = atlas.coordinates * size - 0.5
    raster = rasterize(pixels, np.zeros(len(pixels)), triangles, size, size, cull_back=False)
    found = raster.triangle_id
    return found if order == 1 else np.where(found < 0, -1, len(triangles) - 1 - found)


def test_a_models_own_layout_is_kept_but_fills_the_square(model):
    given = with_layout(model)
    atlas = make_atlas(given)
    assert atlas.triangles.shape == model.triangles.shape
    assert 0 < atlas.coordinates.min() < atlas.coordinates.max() < 1
    first = drawn(atlas)
    assert (first != drawn(atlas, -1)).mean() < 1e-4  # no triangle covers another
    assert (first >= 0).mean() > 0.4
    before = given.texture_coordinates[given.texture_triangles]
    after = atlas.coordinates[atlas.triangles]
    sides = [np.diff(corners, axis=1) for corners in (before, after)]
    np.testing.assert_array_equal(*(np.sign(np.linalg.det(side)) for side in sides))
    # A millimetre of the surface is as long in u as in v, though the layout was squeezed.
    front = given.mean[:, 2] > 45
    facing = front[model.triangles].all(axis=1)
    u, v = (after[facing] - after[facing][:, :1]).reshape(-1, 2).T
    solid = given.mean[model.triangles[facing]]
    x, y, _ = (solid - solid[:, :1]).reshape(-1, 3).T
    assert (u @ x / (x @ x)) / (v @ y / (y @ y)) == pytest.approx(1, abs=0.25)


def test_heads_without_a_layout_are_unrolled(model, layout):
    atlas = make_atlas(model)
    covered = drawn(atlas)
    assert (covered >= 0).mean() > 0.3
    assert len(np.unique(covered)) > 0.98 * len(model.triangles)
    # Nothing lies across the picture: the cut at the back of the head was made.
    assert np.ptp(atlas.coordinates[atlas.triangles], axis=1).max() < 0.5
    # Texels lie where the layout says, row 0 at the top.
    row, column = np.divmod(layout.texels, SIZE)
    places = np.stack([(column + 0.5) / SIZE, 1 - (row + 0.5) / SIZE], axis=1)
    np.testing.assert_allclose(np.linalg.norm(layout.shares.sum(1) - 1), 0, atol=1e-4)
    height = layout.spread(model.mean)[:, 1]
    assert np.corrcoef(height, places[:, 1])[0, 1] > 0.99


def test_parts_without_area_are_unrolled_beside_the_others(model):
    given = with_layout(model)
    back = given.texture_triangles >= len(model.mean)
    point = np.where(back, len(model.mean), given.texture_triangles)
    atlas = make_atlas(replace(given, texture_triangles=point.astype(np.int32)))
    covered = drawn(atlas)
    seen = np.isin(np.arange(len(back)), covered)
    assert seen[back.all(axis=1)].mean() > 0.95


def test_mirrored_texels_lie_at_mirrored_places(model, layout):
    points = layout.spread(model.mean)
    gap = np.linalg.norm(points[layout.mirror] - points * [-1, 1, 1], axis=1)
    assert np.median(gap) < 3.0
    assert np.median(np.abs(points[:, 0])) > 20  # a texel is a few millimetres wide


def test_vertices_and_texels_exchange_values(model, layout):
    values = layout.spread(model.mean)
    back, weight = layout.gather(values, np.ones(len(values)))
    assert np.linalg.norm(back - model.mean, axis=1)[weight > 1].mean() < 2
    assert weight.sum() == pytest.approx(len(values), rel=1e-4)
    np.testing.assert_array_equal(layout.rows(layout.plane(values)), values)


@pytest.mark.parametrize("size", [15, 4097])
def test_sizes_out_of_range_are_refused(model, size):
    with pytest.raises(P2FError, match=f"16 to 4096 texels a side, got {size}"):
        texture_map(model, size)


# -------------------------------------------------------------------------- colours


def test_colors_come_from_where_the_photo_sees_the_surface(model, layout):
    seen = sample_texture(layout, photo(), camera(), model.mean)
    weight, image = layout.rows(seen.weight), layout.rows(seen.image)
    points = layout.spread(model.mean)
    assert seen.weight.max() > 0.9
    shown = weight > 0
    np.testing.assert_allclose(image[shown, :2], camera().project(points[shown]), atol=1.5)
    assert (image[shown, 2] == 255).all()
    assert not weight[points[:, 2] < -5].any()  # the back of the head
    assert not seen.image[seen.weight == 0].any()
    ahead = (np.abs(points[:, 0]) > 15) & (np.abs(points) < 40).all(axis=1, where=[1, 1, 0])
    assert weight[ahead & (points[:, 2] > 0)].min() > 0.2


def test_the_nose_hides_the_cheek_behind_it(model, layout):
    points = layout.spread(model.mean)
    beside = (np.abs(points[:, 0] + 12) < 4) & (np.abs(points[:, 1] + 8) < 6) & (points[:, 2] > 0)
    weights = [
        layout.rows(sample_texture(layout, photo(), camera(yaw), model.mean).weight)[beside].mean()
        for yaw in (-60, 60)
    ]
    assert min(weights) < 0.05 < 0.15 < max(weights)


def test_pixels_that_are_not_usable_give_no_colors(model, layout):
    usable = np.zeros((SIDE, SIDE), bool)
    usable[: SIDE // 2] = True
    seen = sample_texture(layout, photo(), camera(), model.mean, usable)
    shown = layout.rows(seen.weight) > 0
    assert layout.rows(seen.image)[shown, 1].max() < SIDE / 2
    assert seen.weight.max() > 0.5
    # Their colours don't shine through, though the photo is blurred to the texels' density.
    dark = np.where(usable[..., None], photo(), 0).astype(np.uint8)
    np.testing.assert_array_equal(
        seen.image, sample_texture(layout, dark, camera(), model.mean, usable).image
    )


def test_beyond_the_photo_nothing_is_seen(model, layout):
    half = photo()[:, : SIDE // 2]
    seen = sample_texture(layout, half, camera(), model.mean)
    x = camera().project(layout.spread(model.mean))[:, 0]
    assert not layout.rows(seen.weight)[x > SIDE / 2 - 1].any()
    assert layout.rows(seen.weight)[x < SIDE / 2 - 1].max() > 0.5


def test_meshes_and_photos_that_do_not_fit_are_refused(model, layout):
    with pytest.raises(P2FError, match=r"1500 vertices .* got \(1499, 3\) and 240 x 240"):
        sample_texture(layout, photo(), camera(), model.mean[1:])
    with pytest.raises(P2FError, match="1 x 240"):
        sample_texture(layout, photo()[:, :1], camera(), model.mean)
    with pytest.raises(P2FError, match="uint8"):
        sample_texture(layout, photo().astype(float), camera(), model.mean)


def test_merging_takes_the_mean_by_weight():
    def flat(value, weight):
        return Texture(np.full((4, 4, 3), value, np.uint8), np.full((4, 4), weight, np.float32))

    merged = merge_textures([flat(100, 0.75), flat(200, 0.25), flat(7, 0.0)])
    assert (merged.image == 125).all()
    assert (merged.weight == 0.75).all()
    one = merge_textures([flat(9, 0.0)])
    assert not one.image.any()
    assert not one.weight.any()


def test_merging_refuses_none_and_different_sizes(layout):
    with pytest.raises(P2FError, match="got none"):
        merge_textures([])
    small, large = (Texture(np.zeros((n, n, 3), np.uint8), np.zeros((n, n))) for n in (4, 8))
    with pytest.raises(P2FError, match="got 4, 8"):
        merge_textures([small, large])
    with pytest.raises(P2FError, match=f"4 texels a side doesn't fit a layout of {SIZE}"):
        complete_texture(small, layout)


def painted(layout, colors, weight):
    """A texture of texel values (M, 3) where their weight (M,) is above 0."""
    weight = np.float32(weight)
    return Texture(
        layout.plane(colors * (weight > 0)[:, None]).round().astype(np.uint8), layout.plane(weight)
    )


def test_the_hidden_side_is_the_mirrored_seen_one(model, layout):
    points = layout.spread(model.mean)
    stripes = 120 + 60 * np.sin(np.abs(points[:, :1]) / 8) * np.cos(points[:, 1:2] / 15)
    colors = np.repeat(stripes, 3, axis=1)
    right = points[:, 0] > -5
    done = complete_texture(painted(layout, colors, right), layout)
    found = layout.rows(done.image).astype(float)
    np.testing.assert_allclose(found[right], colors[right], atol=3)  # the mirror has its share
    hidden = points[:, 0] < -20
    error = np.abs(found - colors)[hidden].mean()
    assert error < 0.4 * np.abs(colors[right].mean() - colors)[hidden].mean()
    np.testing.assert_array_equal(done.weight, layout.plane(right))


def test_mirrored_colors_get_the_light_of_their_side(model, layout):
    """Side light from the left, of which a strip across the middle tells enough."""
    points = layout.spread(model.mean)
    brightness = 120 - 0.8 * np.clip(points[:, :1], -30, 30)
    colors = np.repeat(brightness, 3, axis=1)
    done = complete_texture(painted(layout, colors, points[:, 0] > -30), layout)
    found = layout.rows(done.image).astype(float)
    far = points[:, 0] < -45
    assert brightness[far].mean() == pytest.approx(144)
    assert found[far].mean() == pytest.approx(144, abs=15)  # the mirror alone has 96


def test_what_no_side_shows_is_filled_smoothly_across_seams(model):
    layout = texture_map(with_layout(model), SIZE)
    points = layout.spread(model.mean)
    colors = np.repeat(128 + points[:, 1:2], 3, axis=1)
    seen = points[:, 2] > 10
    done = complete_texture(painted(layout, colors, seen), layout)
    found = layout.rows(done.image).astype(float)[:, 0]
    # The back is another part of the layout, and was filled from the front nearest to it.
    back = points[:, 2] < 0
    assert np.corrcoef(found[back], points[back, 1])[0, 1] > 0.9
    assert found[back].min() >= 128 - 101
    # Around the parts each texel has the colour of one of them.
    assert np.isin(done.image[..., 0], layout.rows(done.image)[:, 0]).all()
    assert (layout.rows(layout.nearest[..., None])[:, 0] == np.arange(len(points))).all()


def test_a_face_that_nothing_shows_gets_one_color(layout):
    empty = Texture(np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, SIZE), np.float32))
    assert not np.ptp(complete_texture(empty, layout).image)


def test_several_photos_show_more_than_one(model, layout):
    one, other = (sample_texture(layout, photo(), camera(yaw), model.mean) for yaw in (-50, 50))
    merged = merge_textures([one, other])
    assert (merged.weight >= np.maximum(one.weight, other.weight)).all()
    assert (merged.weight > 0).sum() > 1.2 * (one.weight > 0).sum()
