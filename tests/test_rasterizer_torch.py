"""The batched z-buffer draws what the one on the CPU draws, to the bit."""

import numpy as np
import pytest
import torch

from p2f_lib import rasterizer_torch
from p2f_lib.camera import PerspectiveCamera, Pose, rotation_from_pose
from p2f_lib.errors import P2FError
from p2f_lib.rasterizer import interpolate, rasterize
from p2f_lib.rasterizer_torch import RasterBatch, interpolate_batch, rasterize_batch
from tests.test_rasterizer import lattice_mesh, random_soup
from tests.toy import toy_model

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def assert_same(pixels, depth, triangles, height, width, device="cpu", **options) -> RasterBatch:
    """Compare (B, V, 2) pixels drawn together with the same drawn one by one."""
    tensors = (torch.as_tensor(array, device=device) for array in (pixels, depth, triangles))
    together = rasterize_batch(*tensors, height, width, **options)
    rtol, atol = (0, 0) if device == "cpu" else (1e-5, 1e-6)
    for k in range(len(pixels)):
        alone = rasterize(pixels[k], depth[k], triangles, height, width, **options)
        np.testing.assert_array_equal(together.triangle_id[k].cpu(), alone.triangle_id)
        for name in ("barycentric", "depth"):
            values = getattr(together, name)[k].cpu().numpy()
            np.testing.assert_allclose(values, getattr(alone, name), rtol=rtol, atol=atol)
    return together


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("perspective", [False, True])
@pytest.mark.parametrize("cull_back", [False, True])
def test_equals_the_other_on_random_triangles(cull_back, perspective, device):
    rng = np.random.default_rng(0)
    soups = [random_soup(rng) for _ in range(3)]
    pixels, depth = np.stack([soup[0] for soup in soups]), np.stack([soup[1] for soup in soups])
    pixels[:, rng.integers(450, size=3)] = np.nan
    pixels[0, 5], pixels[1, 6] = 1e30, -np.inf
    depth[:, rng.integers(450, size=3)] = np.inf
    depth[:, rng.integers(450, size=5)] *= -1
    options = {"perspective": perspective, "cull_back": cull_back}
    raster = assert_same(pixels, depth, soups[0][2], 37, 43, device, **options)
    assert raster.valid.float().mean() > 0.3
    assert_same(pixels.astype(np.float32), depth.astype(np.float32), soups[0][2], 37, 43, **options)


@pytest.mark.parametrize("device", DEVICES)
def test_equals_the_other_on_a_mesh(device):
    model = toy_model(600)
    camera = PerspectiveCamera(
        300.0, np.full(2, 31.5), rotation_from_pose(Pose(40, 10, 5)), [3, 4, 800]
    )
    side = rotation_from_pose(Pose(-70, 0, 0))
    near = PerspectiveCamera(900.0, np.full(2, 11.5), side, [3, 4, 300])
    cameras = (camera, near)
    pixels = np.stack([c.project(model.mean) for c in cameras])
    depth = np.stack([c.depth(model.mean) for c in cameras])
    raster = assert_same(pixels, depth, model.triangles, 64, 61, device, perspective=True)

    attributes = np.random.default_rng(0).normal(size=(2, 600, 6)).astype(np.float32)
    triangles = torch.as_tensor(model.triangles, device=device)
    planes = interpolate_batch(raster, triangles, torch.as_tensor(attributes, device=device))
    shared = interpolate_batch(raster, triangles, torch.as_tensor(attributes[0], device=device))
    for k in range(2):
        alone = rasterize(pixels[k], depth[k], model.triangles, 64, 61, perspective=True)
        for values, batch in ((attributes[k], planes), (attributes[0], shared)):
            expected = interpolate(alone, model.triangles, values)
            np.testing.assert_allclose(batch[k].cpu(), expected, atol=1e-5)
            assert (batch[k].cpu().numpy()[~alone.valid] == 0).all()


def test_shared_edges_leave_no_gap_and_no_double_hit():
    pixels, triangles = lattice_mesh(np.random.default_rng(0), 30)
    hits = torch.zeros(30, 30, dtype=int)
    points, depth = torch.as_tensor(pixels)[None], torch.ones(1, 144)
    for triangle in torch.as_tensor(triangles):
        hits += rasterize_batch(points, depth, triangle[None], 30, 30).valid[0]
    assert (hits == 1).all()
    assert_same(pixels[None], np.ones((1, 144)), triangles, 30, 30)


def test_borders_huge_and_harmless_triangles():
    low, high = -15_900.0, 15_900.0
    pixels = np.array(
        [
            [[-0.5, -0.5], [-0.5, 8.5], [8.5, 8.5], [8.5, -0.5]],
            [[0, 0], [0, 8], [8, 8], [8, 0]],
            [[low, low], [low, high], [high, high], [high, low]],
            [[2, 2], [2, 2], [2, 2], [2, 2]],
            [[0, 0], [5, 5], [9, 9], [3, 3]],
            [[-50, -50], [-50, -40], [-40, -40], [-40, -50]],
        ],
        float,
    )
    raster = assert_same(pixels, np.ones((6, 4)), np.array([[0, 1, 2], [0, 2, 3]]), 9, 9)
    assert raster.valid.sum((1, 2)).tolist() == [81, 64, 81, 0, 0, 0]


def test_ties_and_signs_of_depth():
    rng = np.random.default_rng(1)
    pixels, _, triangles = random_soup(rng, 60)
    triangles = np.concatenate([triangles, triangles[::-1, [1, 2, 0]]])
    depth = rng.choice([-1.0, -0.0, 0.0, 1.0], (2, len(pixels)))
    assert_same(np.stack([pixels, pixels]), depth, triangles, 40, 40)


def test_small_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    pixels, depth, triangles = random_soup(rng)
    pixels, depth = np.stack([pixels, pixels[::-1] + 1]), np.stack([depth, depth[::-1]])
    monkeypatch.setattr(rasterizer_torch, "CHUNK", 101)
    assert_same(pixels, depth, triangles, 37, 43)


@pytest.mark.parametrize(("batch", "faces"), [(0, 1), (2, 0)])
def test_nothing_is_exactly_nothing(batch, faces):
    triangles = torch.arange(3 * faces).reshape(-1, 3)
    raster = rasterize_batch(torch.rand(batch, 3, 2), torch.ones(batch, 3), triangles, 4, 5)
    assert raster.triangle_id.shape == raster.depth.shape == (batch, 4, 5)
    assert not raster.valid.any()
    assert (raster.depth == torch.inf).all()
    planes = interpolate_batch(raster, triangles, torch.rand(3, 2))
    assert planes.shape == (batch, 4, 5, 2)
    assert (planes == 0).all()
    assert (raster.triangle_id.dtype, planes.dtype) == (torch.int32, torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": torch.zeros(3, 2)}, "pixels"),
        ({"depth": torch.zeros(3)}, "depth"),
        ({"triangles": torch.tensor([[0, 1, 3]])}, "vertices"),
        ({"triangles": torch.tensor([[0, 1, -1]])}, "vertices"),
        ({"triangles": torch.tensor([[0.0, 1, 2]])}, "integers"),
        ({"width": 0}, "width 0"),
    ],
)
def test_wrong_input_is_named(change, message):
    good = {
        "pixels": torch.zeros(1, 3, 2),
        "depth": torch.zeros(1, 3),
        "triangles": torch.tensor([[0, 1, 2]]),
        "height": 4,
        "width": 4,
    }
    with pytest.raises(P2FError, match=message):
        rasterize_batch(**(good | change))


def test_interpolate_names_wrong_input():
    raster = RasterBatch(
        torch.full((1, 2, 2), 5, dtype=torch.int32), torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 2)
    )
    with pytest.raises(P2FError, match="triangle 5"):
        interpolate_batch(raster, torch.tensor([[0, 1, 2]]), torch.zeros(3, 1))
    with pytest.raises(P2FError, match=r"\(1, V, C\)"):
        interpolate_batch(raster, torch.tensor([[0, 1, 2]]), torch.zeros(2, 3, 1))
