"""The network: shapes, the paper's own scale, and files that cannot be trusted."""

import numpy as np
import pytest
import torch
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


def test_the_papers_scale_has_its_number_of_parameters():
    network = UNet(NetworkConfig(256, 64, 8, "instance"))
    assert 38e6 < sum(p.numel() for p in network.parameters()) < 40e6


def test_predict_agrees_with_forward_and_scales(unet):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    pncc, offsets = predict(unet, images)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5
    planes = unet(batch).detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(pncc, planes[..., :3] * 100, atol=1e-3)
    np.testing.assert_allclose(offsets, planes[..., 3:] * 10, atol=1e-4)


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
    from safetensors import safe_open

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
