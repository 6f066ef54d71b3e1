"""Other engines give PyTorch's planes, and ONNX files hold what other programs need."""

import json
import sys
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from p2f_lib import cli, engines
from p2f_lib.engines import export_onnx, installed, make_engine, onnx_bytes
from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.images import write_image
from p2f_lib.reconstruction import Reconstructor
from p2f_lib.unet import NetworkConfig, UNet, load_unet, predict, save_unet
from tests.toy import toy_model

TINY = NetworkConfig(input_size=32, width=4, depth=3)
VARIANTS = {
    "batch": {},
    "instance": {"norm": "instance"},
    "released": {"upsample_first": False, "blocks": 1},
    "deep": {"depth": 4, "blocks": 1, "norm": "instance"},
}
OTHERS = ("onnxruntime", "openvino")  # exact to rounding


def tiny(**options):
    """A network whose normalisation has seen images, as `load_unet` returns it."""
    torch.manual_seed(0)
    unet = UNet(replace(TINY, **options))
    with torch.no_grad():
        unet(torch.rand(8, 3, 32, 32) - 0.5)
    unet.metadata = {"face_model": "toy", "face_model_checksum": "0" * 64}
    return unet.to(memory_format=torch.channels_last).eval()


@pytest.fixture
def unet():
    return tiny()


def need(name):
    for package in engines.PACKAGES[name]:
        pytest.importorskip(package)


def need_exporter():
    """Skip without the packages of `export_onnx`, of which one engine is enough."""
    for package in engines.EXPORTER:
        pytest.importorskip(package)
    if installed() == ["torch"]:
        pytest.skip("neither ONNX Runtime nor OpenVINO is installed")


def images(count, seed=0):
    batch = np.random.default_rng(seed).random((count, 3, 32, 32), np.float32)
    return batch - np.float32(0.5)


def planes_of(unet, batch):
    with torch.inference_mode():
        return unet(torch.from_numpy(batch)).numpy()


def crops(count):
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@cache
def engine_of(name):
    """Made once: an export takes seconds."""
    return make_engine(name, tiny())


# ---------------------------------------------------------------------------------- engines


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_the_torch_engine_is_the_network_and_leaves_its_threads(unet, threads):
    before = torch.get_num_threads()
    engine = make_engine("torch", unet, threads)
    assert (engine.config, engine.metadata) == (unet.config, unet.metadata)
    planes = engine(images(3))
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes, planes_of(unet, images(3)), atol=1e-6)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("mirror", [True, False])
def test_predict_by_the_torch_engine_is_predict(unet, mirror):
    engine = make_engine("torch", unet)
    for ours, theirs in zip(
        predict(engine, crops(3), mirror), predict(unet, crops(3), mirror), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", OTHERS)
def test_every_engine_gives_torchs_planes_for_any_batch(name, variant):
    need(name)
    unet = tiny(**VARIANTS[variant])
    engine = make_engine(name, unet, threads=1)
    assert (engine.config, engine.metadata) == (unet.config, unet.metadata)
    for count in (1, 2, 5, 2, 1):
        planes = engine(images(count, seed=count))
        assert planes.dtype == np.float32
        assert planes.shape == (count, 6, 32, 32)
        np.testing.assert_allclose(planes, planes_of(unet, images(count, seed=count)), atol=1e-4)
    assert engine(images(0)).shape == (0, 6, 32, 32)


@pytest.mark.parametrize("name", OTHERS)
def test_predict_by_every_engine(unet, name):
    need(name)
    engine = engine_of(name)
    for mirror in (True, False):
        theirs = predict(unet, crops(3), mirror)
        ours = predict(engine, crops(3), mirror)
        for mine, true in zip(ours, theirs, strict=True):
            assert (mine.dtype, mine.shape) == (true.dtype, true.shape)
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-4 * unet.config.pncc_scale)
        np.testing.assert_allclose(ours[1], theirs[1], atol=1e-4 * unet.config.offset_scale)


@pytest.mark.parametrize("name", OTHERS)
def test_planes_outlive_the_next_call_and_the_networks_weights(unet, name):
    need(name)
    engine = make_engine(name, unet)
    first = engine(images(2))
    kept = first.copy()
    for parameter in unet.parameters():
        parameter.data.zero_()
    engine(images(2, seed=1))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(engine(images(2)), kept)


@pytest.mark.parametrize("name", ["torch", *OTHERS])
def test_strided_and_read_only_batches(name):
    need(name)
    engine = engine_of(name)
    batch = images(2)
    expected = engine(batch)
    batch.flags.writeable = False
    np.testing.assert_allclose(engine(batch), expected, atol=1e-6)
    strided = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(engine(strided), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["torch", *OTHERS])
def test_other_batches_get_sentences(name):
    need(name)
    engine = engine_of(name)
    for batch in (images(1)[0], images(1)[..., :16], images(1).astype(np.float64)):
        with pytest.raises(P2FError, match=r"float32 images \(B, 3, 32, 32\)"):
            engine(batch)


def test_unknown_engines_and_threads_get_sentences(unet):
    with pytest.raises(P2FError, match="no engine 'tensorrt'; there are torch, onnxruntime"):
        make_engine("tensorrt", unet)
    with pytest.raises(P2FError, match="at least 1 thread, got 0"):
        make_engine("torch", unet, threads=0)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("onnxruntime", "onnx", "onnx"),
        ("onnxruntime", "onnxruntime", "onnx"),
        ("onnxruntime-int8", "onnx", "onnx"),
        ("onnxruntime-int8", "onnxruntime", "onnx"),
        ("openvino", "onnx", "openvino"),
        ("openvino", "openvino", "openvino"),
    ],
)
def test_missing_packages_are_named(unet, monkeypatch, name, package, extra):
    for there in engines.PACKAGES[name]:  # whether this machine has them or not
        monkeypatch.setitem(sys.modules, there, sys)
    monkeypatch.setitem(sys.modules, package, None)
    sentence = rf"package {package} is not installed.*pip install 'pix2face-open\[{extra}\]'"
    with pytest.raises(P2FError, match=sentence):
        make_engine(name, unet)


def test_export_without_packages_is_a_sentence(unet, tmp_path, monkeypatch):
    for package in {package for packages in engines.PACKAGES.values() for package in packages}:
        monkeypatch.setitem(sys.modules, package, None)
    assert installed() == ["torch"]
    with pytest.raises(P2FError, match=r"pip install 'pix2face-open\[onnx\]'"):
        export_onnx(unet, tmp_path / "u.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OTHERS)
def test_networks_on_a_gpu_are_refused_by_engines_of_the_cpu(unet, name):
    need(name)
    with pytest.raises(P2FError, match=r'runs on the CPU, but the network is on meta.*"cpu"'):
        make_engine(name, unet.to("meta"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", OTHERS)
def test_broken_weights_are_refused(unet, tmp_path, name, value):
    need(name)
    unet.decoder[0][0].bias.data[0] = value
    with pytest.raises(P2FError, match=r"NaN or infinite weights \(in decoder.0.0.bias\)"):
        make_engine(name, unet)
    with pytest.raises(P2FError, match="NaN or infinite"):
        export_onnx(unet, tmp_path / "u.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OTHERS)
def test_an_engine_that_differs_is_refused(unet, tmp_path, monkeypatch, name):
    """By the tolerance, by NaN, or by the shape of its planes."""
    need(name)
    once = onnx_bytes(unet)
    monkeypatch.setattr(engines, "onnx_bytes", lambda unet: once)  # takes seconds
    true = engines._RUNTIMES[name]

    def break_it(wrongly):
        def runtime(model, threads):
            run = true(model, threads)
            return lambda batch: wrongly(run(batch))

        monkeypatch.setattr(engines, "_RUNTIMES", {name: runtime})

    break_it(lambda planes: planes + np.float32(1e-5))
    assert 5e-6 < export_onnx(unet, tmp_path / "sound.onnx") < 1e-4
    for wrongly, words in (
        (lambda planes: planes + np.float32(2e-4), "differs from PyTorch's by"),
        (lambda planes: planes * np.float32(np.nan), "differs from PyTorch's by nan"),
        (lambda planes: planes[:1], "instead of"),
    ):
        break_it(wrongly)
        with pytest.raises(P2FError, match=words):
            make_engine(name, unet)
        with pytest.raises(P2FError, match=words):
            export_onnx(unet, tmp_path / "u.onnx")
        assert not (tmp_path / "u.onnx").exists()


# ------------------------------------------------------------------------------------- int8


INT8 = "onnxruntime-int8"


@cache
def seen_by_int8():
    """What a network's int8 is calibrated on; rendered once."""
    return engines.calibration_images(toy_model(), 32)


@pytest.fixture
def rendered(monkeypatch):
    """Engines calibrated on these images needn't render them again."""
    need(INT8)
    seen = seen_by_int8()
    monkeypatch.setattr(engines, "calibration_images", lambda model, size: seen)
    return seen


def test_calibration_images_are_faces_and_always_the_same():
    seen = seen_by_int8()
    assert (seen.shape, seen.dtype) == ((32, 3, 32, 32), np.float32)
    assert -0.5 <= seen.min() < -0.3
    assert 0.3 < seen.max() <= 0.5
    np.testing.assert_array_equal(engines.calibration_images(toy_model(), 32), seen)


@pytest.mark.parametrize("variant", ["batch", "released"])
def test_int8_is_near_torchs_planes_for_any_batch(rendered, variant):
    unet = tiny(**VARIANTS[variant])
    engine = make_engine(INT8, unet, threads=1, model=toy_model())
    assert (engine.config, engine.metadata) == (unet.config, unet.metadata)
    true = planes_of(unet, rendered)
    for count in (1, 5, 2):
        planes = engine(rendered[:count])
        assert (planes.dtype, planes.shape) == (np.float32, (count, 6, 32, 32))
        off = np.sqrt(np.mean((planes - true[:count]) ** 2) / np.mean(true[:count] ** 2))
        assert 0 < off < 0.05  # rounded, and not much
    assert engine(images(0)).shape == (0, 6, 32, 32)


def test_int8_holds_integers_but_for_the_ends(rendered):
    import onnx

    graph = onnx.load_from_string(engines._quantised(onnx_bytes(tiny()), rendered)).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kinds = {node.output[0]: node.op_type for node in graph.node}
    integer = [kinds.get(node.input[1]) == "DequantizeLinear" for node in convolutions]
    assert integer == [False, True, True, True, False, False]
    assert "BatchNormalization" not in kinds.values()


def test_int8_needs_a_face_model(unet):
    need(INT8)
    with pytest.raises(
        P2FError, match=r"calibrated on faces of the face model.*pass it as `model`"
    ):
        make_engine(INT8, unet)


def test_a_network_too_coarse_in_int8_is_refused(rendered):
    """Instance normalisation of very few pixels multiplies what rounding did to them."""
    with pytest.raises(P2FError, match=r'in int8 differs from .*use the engine "onnxruntime"'):
        make_engine(INT8, tiny(**VARIANTS["deep"]), model=toy_model())


def test_int8_that_differs_is_refused(unet, rendered, monkeypatch):
    true = engines._run_onnxruntime
    for wrong in (np.float32(1.1), np.float32(np.nan)):

        def runtime(network, threads, wrong=wrong):
            run = true(network, threads)
            return lambda batch: wrong * run(batch)

        monkeypatch.setattr(engines, "_run_onnxruntime", runtime)
        with pytest.raises(P2FError, match=r'in int8 differs from .*use the engine "onnxruntime"'):
            make_engine(INT8, unet, model=toy_model())


# ----------------------------------------------------------------------------------- export


def test_an_exported_file_is_the_network(unet, tmp_path):
    need_exporter()
    runtime = pytest.importorskip("onnxruntime")
    assert export_onnx(unet, tmp_path / "u.onnx") <= 1e-4
    session = runtime.InferenceSession(tmp_path / "u.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 4):
        (planes,) = session.run(["planes"], {"images": images(count)})
        np.testing.assert_allclose(planes, planes_of(unet, images(count)), atol=1e-4)
    header = session.get_modelmeta().custom_metadata_map
    assert header["face_model"] == "toy"
    assert header["face_model_checksum"] == "0" * 64
    assert header["format"] == "pix2face-unet-1"
    assert NetworkConfig(**json.loads(header["config"])) == unet.config


def test_an_exported_file_is_sound_and_tells_no_tales(unet, tmp_path):
    need_exporter()
    import onnx

    export_onnx(unet, tmp_path / "u.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["u.onnx"]  # one file holds everything
    model = onnx.load(tmp_path / "u.onnx")
    onnx.checker.check_model(model, full_check=True)
    ((source,), (result,)) = model.graph.input, model.graph.output
    assert (source.name, result.name) == ("images", "planes")
    for value, channels in ((source, 3), (result, 6)):
        batch, *others = value.type.tensor_type.shape.dim
        assert batch.dim_param
        assert [side.dim_value for side in others] == [channels, 32, 32]
    assert json.loads({p.key: p.value for p in model.metadata_props}["config"]) == asdict(TINY)
    content = (tmp_path / "u.onnx").read_bytes()
    assert b"p2f_lib" not in content
    assert b".py" not in content


def test_exporting_is_reproducible_and_changes_nothing(unet):
    need_exporter()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    state = torch.random.get_rng_state()
    unet.train()
    contents = {onnx_bytes(unet) for _ in range(2)}
    assert unet.training
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in unet.state_dict().items():
        assert torch.equal(tensor, before[name])
    contents.add(onnx_bytes(unet.eval().to(memory_format=torch.contiguous_format)))
    assert len(contents) == 1


def test_unwritable_files_get_a_sentence(unet, tmp_path, monkeypatch):
    need_exporter()
    once = onnx_bytes(unet)
    monkeypatch.setattr(engines, "onnx_bytes", lambda unet: once)
    for path in (tmp_path, tmp_path / "nowhere" / "u.onnx"):
        with pytest.raises(P2FError, match="Cannot write"):
            export_onnx(unet, path)


# --------------------------------------------------------------- reconstructor and command


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture
def home(tmp_path, model, unet):
    folder = tmp_path / "build"
    folder.mkdir()
    model.save(folder / "face_model.safetensors")
    save_unet(folder / "unet.safetensors", unet, face_model=model.name)
    return folder


def face_or_none(reconstructor):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    try:
        return reconstructor.reconstruct(image, (8, 8, 56, 56))
    except NoFaceError:
        return None


def test_a_reconstructor_runs_on_the_network_itself_unless_told_otherwise(home):
    reconstructor = Reconstructor.from_pretrained(home, device="cpu")
    assert reconstructor.engine is reconstructor.unet
    one = Reconstructor.from_pretrained(home, device="cpu", threads=1)
    assert one.engine is not one.unet
    with pytest.raises(P2FError, match="no engine 'tensorrt'"):
        Reconstructor.from_pretrained(home, engine="tensorrt")


def test_a_reconstructor_calibrates_int8_on_its_own_faces(home, rendered, monkeypatch):
    asked = []

    def calibrate(model, size):
        asked.append((model.name, size))
        return rendered

    monkeypatch.setattr(engines, "calibration_images", calibrate)
    reconstructor = Reconstructor.from_pretrained(home, engine=INT8, threads=1)
    assert asked == [(toy_model().name, 32)]
    true = planes_of(reconstructor.unet, rendered)
    assert 0 < np.abs(reconstructor.engine(rendered) - true).mean() < 0.05 * np.abs(true).mean()


@pytest.mark.parametrize("name", OTHERS)
def test_a_reconstructor_runs_on_any_engine(home, name):
    need(name)
    reconstructor = Reconstructor.from_pretrained(home, engine=name)
    assert reconstructor.engine is not reconstructor.unet
    true = face_or_none(Reconstructor.from_pretrained(home, device="cpu"))
    face = face_or_none(reconstructor)
    assert (face is None) == (true is None)
    if face is not None:
        agree = face.valid == true.valid
        assert agree.mean() > 0.99
        np.testing.assert_allclose(face.pncc[agree], true.pncc[agree], atol=0.02)


def test_the_export_command(capsys, home, tmp_path):
    need_exporter()
    (home / "face_model.safetensors").unlink()  # not needed
    path = tmp_path / "u.onnx"
    assert cli.main(["export", "--weights", str(home), "--out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"Written: {path} (0.")
    assert "largest difference from PyTorch" in out
    assert path.read_bytes() == onnx_bytes(load_unet(home / "unet.safetensors"))


def test_the_export_command_refuses_alien_and_broken_weights(capsys, home, tmp_path, unet):
    weights, path = home / "unet.safetensors", tmp_path / "u.onnx"

    def fails_with(words):
        assert cli.main(["export", "--weights", str(home), "--out", str(path)]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert words in err
        assert not path.exists()

    save_file({"x": torch.zeros(3)}, weights)
    fails_with("does not hold weights of this project")
    unet.encoder[0][0].bias.data[0] = torch.nan
    save_unet(weights, unet)
    fails_with("NaN")
    weights.unlink()
    fails_with("No network weights")


def test_reconstruct_by_another_engine(capsys, home, tmp_path, monkeypatch):
    write_image(tmp_path / "photo.png", np.zeros((64, 64, 3), np.uint8))
    command = ["reconstruct", str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]
    command += ["--weights", str(home), "--box", "8", "8", "56", "56", "--engine"]
    with pytest.raises(SystemExit):
        cli.main([*command, "tensorrt"])
    capsys.readouterr()
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "onnx", None)
        assert cli.main([*command, "onnxruntime"]) == 1
        assert "pip install 'pix2face-open[onnx]'" in capsys.readouterr().err
    for name in installed():
        cli.main([*command, name])
        assert "Unexpected" not in capsys.readouterr().err
