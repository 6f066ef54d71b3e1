"""The network: shapes, the paper's own scale, and files that cannot be trusted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from p2f_lib.errors import P2FError
from p2f_lib.unet import NetworkConfig, UNet, load_unet, predict, save_unet

TINY = NetworkConfig(input_size=16, width=4, depth=3)


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet(TINY).eval()


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("size", "depth"), [(16, 2), (16, 4), (32, 3)])
def test_six_planes_at_the_input_resolution(size, depth, norm):
    network = UNet(NetworkConfig(size, 4, depth, norm)).eval()
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 6, size, size)


@pytest.mark.parametrize("upsample_first", [True, False])
@pytest.mark.parametrize("blocks", [0, 1])
@pytest.mark.parametrize(("size", "depth"), [(16, 4), (32, 3)])
def test_either_order_and_residual_blocks_give_six_planes(size, depth, blocks, upsample_first):
    config = NetworkConfig(size, 4, depth, upsample_first=upsample_first, blocks=blocks)
    planes = UNet(config).eval()(torch.zeros(2, 3, size, size))
    assert planes.shape == (2, 6, size, size)


def test_the_order_changes_the_planes_but_not_the_weights():
    torch.manual_seed(0)
    first = UNet(TINY).eval()
    last = UNet(replace(TINY, upsample_first=False)).eval()
    last.load_state_dict(first.state_dict())
    images = torch.rand(1, 3, 16, 16) - 0.5
    assert (first(images) - last(images)).abs().max() > 1e-4


def test_residual_blocks_lie_at_a_quarter_of_the_resolution_and_below():
    plain, residual = UNet(TINY), UNet(replace(TINY, blocks=1))
    added = residual.state_dict().keys() - plain.state_dict().keys()
    assert not plain.state_dict().keys() - residual.state_dict().keys()
    # 16 pixels: the encoder makes maps of 8, 4 and 2, the decoder reads them back up to 16.
    assert {name.rsplit(".", 3)[0] for name in added if "convolution.weight" in name} == {
        "encoder.1", "encoder.2", "decoder.0"
    }  # fmt: skip


def test_a_residual_block_with_dead_weights_adds_nothing():
    torch.manual_seed(0)
    plain, residual = UNet(TINY).eval(), UNet(replace(TINY, blocks=1)).eval()
    residual.load_state_dict(plain.state_dict(), strict=False)
    for name, parameter in residual.named_parameters():
        if "convolution" in name:
            parameter.data.zero_()
    images = torch.rand(1, 3, 16, 16) - 0.5
    torch.testing.assert_close(residual(images), plain(images))


def test_the_papers_scale_has_its_number_of_parameters():
    network = UNet(NetworkConfig(256, 64, 8, "instance"))
    assert 38e6 < sum(p.numel() for p in network.parameters()) < 40e6


def test_predict_agrees_with_forward_and_scales(unet):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    pncc, offsets = predict(unet, images, mirror=False)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5
    planes = unet(batch).detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(pncc, planes[..., :3] * 100, atol=1e-3)
    np.testing.assert_allclose(offsets, planes[..., 3:] * 10, atol=1e-4)


def test_predict_treats_mirrored_faces_alike(unet):
    """Left and right of the mean face are the same but for the sign of x."""
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    for which in range(2):
        both = predict(unet, images)[which]
        flipped = predict(unet, mirrored)[which][:, :, ::-1] * [-1, 1, 1]
        np.testing.assert_allclose(both, flipped, atol=1e-3)
        alone = predict(unet, images, mirror=False)[which]
        other = predict(unet, mirrored, mirror=False)[which][:, :, ::-1] * [-1, 1, 1]
        np.testing.assert_allclose(both, (alone + other) / 2, atol=1e-3)
        assert np.abs(alone - other).max() > 0.1


@pytest.mark.parametrize("shape", [(16, 16, 3), (1, 8, 8, 3), (1, 16, 16, 4)])
def test_predict_refuses_other_shapes(unet, shape):
    with pytest.raises(P2FError, match="uint8 crops"):
        predict(unet, np.zeros(shape, np.uint8))


def test_save_and_load(unet, tmp_path):
    save_unet(tmp_path / "u.safetensors", unet, face_model="toy")
    loaded = load_unet(tmp_path / "u.safetensors")
    assert loaded.config == TINY
    assert loaded.metadata["face_model"] == "toy"
    images = np.full((1, 16, 16, 3), 100, np.uint8)
    np.testing.assert_allclose(predict(loaded, images)[0], predict(unet, images)[0], atol=0.3)


@pytest.mark.parametrize("options", [{}, {"upsample_first": False, "blocks": 1}])
def test_saving_is_reproducible_and_keeps_the_configuration(tmp_path, options):
    torch.manual_seed(0)
    unet = UNet(replace(TINY, **options)).eval()
    provenance = {"face_model": "toy", "seed": "3", "images_seen": "7"}
    paths = [tmp_path / f"{i}.safetensors" for i in range(6)]
    for path in paths:
        save_unet(path, unet, **provenance)
    assert len({path.read_bytes() for path in paths}) == 1
    with safe_open(paths[0], "pt") as file:
        assert list(file.metadata()) == ["unet"]
    loaded = load_unet(paths[0])
    assert loaded.config == unet.config
    assert loaded.metadata == provenance
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    for ours, theirs in zip(predict(loaded, images), predict(unet, images), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.3)


def test_nan_weights_are_refused(unet, tmp_path):
    path = tmp_path / "u.safetensors"
    unet.encoder[0][0].bias.data[0] = float("nan")
    save_unet(path, unet)
    with pytest.raises(P2FError, match="NaN"):
        load_unet(path)


def test_truncated_and_alien_files_get_sentences(unet, tmp_path):
    path = tmp_path / "u.safetensors"
    save_unet(path, unet)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(P2FError, match="truncated"):
        load_unet(path)
    path.write_bytes(b"")
    with pytest.raises(P2FError):
        load_unet(path)
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(P2FError, match="does not hold"):
        load_unet(path)
    with pytest.raises(P2FError, match="No network weights"):
        load_unet(tmp_path / "missing.safetensors")


def test_weights_that_contradict_their_configuration(unet, tmp_path):
    path = tmp_path / "u.safetensors"
    save_unet(path, unet)
    weights = load_file(path)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    weights.pop("encoder.0.0.bias")
    save_file(weights, path, header)
    with pytest.raises(P2FError, match="do not fit"):
        load_unet(path)


@pytest.mark.parametrize("values", [{"input_size": 60}, {"norm": "none"}, {"width": 0}])
def test_configurations_that_cannot_be(values):
    with pytest.raises(P2FError):
        NetworkConfig(**values)
