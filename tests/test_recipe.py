"""From a parameter file to weights with their provenance, and to their model card."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from p2f_lib import model_card, recipe, training
from p2f_lib.cli import main
from p2f_lib.datasets import sources
from p2f_lib.datasets.photos import AnnotatedPhoto
from p2f_lib.errors import P2FError
from p2f_lib.images import write_image
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.reconstruction import Reconstructor, with_landmarks, write_landmarks
from p2f_lib.unet import load_unet
from tests.toy import toy_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def parameters():
    """The released recipe, made small."""
    found = yaml.safe_load((ROOT / "params" / "release.yaml").read_text())
    found["ground_truth"] |= {"n_train": 12, "n_heldout": 4, "canvas": 40}
    found["train"] |= {"input_size": 16, "width": 4, "depth": 3, "epochs": 2, "batch_size": 4}
    found["train"] |= {"threads": 1}
    return found


@pytest.fixture(scope="module")
def trained(parameters, tmp_path_factory):
    """What `p2f train` makes of it."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "small.yaml").write_text(yaml.safe_dump(parameters))
    toy_model(600).save(folder / "face_model.safetensors")
    before = torch.get_num_threads()
    face_model = folder / "face_model.safetensors"
    options = {"--config": folder / "small.yaml", "--face-model": face_model, "--save-every": 2}
    options["--out"] = folder / "out"
    status = main(["train", *(str(word) for pair in options.items() for word in pair)])
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)
    assert status == 0
    return folder


def test_the_command_writes_weights_with_their_provenance(trained, parameters):
    unet = load_unet(trained / "out" / "unet.safetensors")
    assert unet.config.input_size == 16
    assert unet.config.norm == parameters["train"]["norm"]
    assert unet.metadata["images_seen"] == "24"
    assert unet.metadata["recipe"] == "small"
    assert unet.metadata["source"] == "synthetic"
    assert {"seed", "face_model", "face_model_checksum", "code_revision"} <= set(unet.metadata)
    assert not list((trained / "out" / "checkpoints").iterdir())


def test_a_training_goes_on_from_weights(trained, parameters, tmp_path):
    first = trained / "out" / "unet.safetensors"
    words = ["train", "--config", trained / "small.yaml", "--start", first, "-S", "seed=1"]
    words += [
        "-S",
        "train.epochs=1",
        "-S",
        "train.warmup=0",
        "--face-model",
        trained / "face_model.safetensors",
    ]
    threads = torch.get_num_threads()
    assert main([str(word) for word in [*words, "--out", tmp_path]]) == 0
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    old, new = load_unet(first), load_unet(tmp_path / "unet.safetensors")
    assert new.config == old.config
    assert new.metadata["images_seen"] == "36"
    assert new.metadata["recipe"] == "small seed=1 train.epochs=1 train.warmup=0"
    assert new.metadata["start"] == hashlib.sha256(first.read_bytes()).hexdigest()
    moved = [(a - b).abs().max() for a, b in zip(old.parameters(), new.parameters(), strict=True)]
    three_steps = 3 * parameters["train"]["learning_rate"]
    assert 0 < max(moved) < 2 * three_steps  # Adam moves a weight by about the rate at each


def test_weights_of_another_network_are_no_start(trained, parameters):
    other = recipe.with_settings(parameters, ["train.width=5"])
    start = load_unet(trained / "out" / "unet.safetensors")
    model = MorphableModel.load(trained / "face_model.safetensors")
    table = sources.make_table(other["ground_truth"], model, 0)
    with pytest.raises(P2FError, match="weights of another network"):
        recipe.run(other, model, table, start=start)


def test_settings_change_single_entries(parameters):
    changed = recipe.with_settings(parameters, ["seed=5", "train.jitter.scale=[1.0, 2.0]"])
    assert (changed["seed"], changed["train"]["jitter"]["scale"]) == (5, [1.0, 2.0])
    changed["seed"], changed["train"]["jitter"]["scale"] = (
        parameters["seed"],
        parameters["train"]["jitter"]["scale"],
    )
    assert changed == parameters
    for wrong in ("train.epoch=4", "seed", "seed.x=1", "train.epochs=[", "a.b.c=1"):
        with pytest.raises(P2FError, match="Cannot set"):
            recipe.with_settings(parameters, [wrong])


@pytest.mark.parametrize("name", ["gpu.yaml", "paper.yaml"])
def test_large_recipes_run_at_toy_scale(name, tmp_path):
    """Their ways of feeding the network: workers on samples in memory, workers on a stream."""
    parameters = recipe.read_parameters(ROOT / "params" / name)
    parameters["ground_truth"] |= {"n_train": 8, "n_heldout": 4, "canvas": 40}
    train = parameters["train"]
    train |= {"input_size": 16, "width": 4, "depth": 3, "epochs": 1, "batch_size": 4}
    train |= {"threads": 1, "workers": min(train["workers"], 2)}
    model = toy_model(600)
    table = sources.make_table(parameters["ground_truth"], model, 0)
    faces = tmp_path / "faces"
    trained = recipe.run(parameters, model, table, log=tmp_path / "log", pictures=faces)
    assert trained.images_seen == 8
    assert (faces / "epoch_001.png").exists()
    history = training.read_history(tmp_path / "log")
    assert {"heldout/pncc_p95", "heldout/landmarks_nme", "train/offset_l1_mm"} <= set(history)


def test_every_entry_of_the_group_is_used(parameters):
    config = recipe.training_config(parameters["train"], seed=3)
    network = recipe.network_config(parameters["train"], 2.5)
    jitter = recipe.jitter_config(parameters["train"])
    assert (config.average, config.cooldown, config.seed) == (0.999, 0.3, 3)
    assert config.betas == (0.5, 0.9)
    assert (network.width, network.offset_scale) == (4, 2.5)
    assert jitter.scale == tuple(parameters["train"]["jitter"]["scale"])
    known = set(vars(config)) | set(vars(network)) | {"jitter", "threads", "fresh", "workers"}
    assert set(parameters["train"]) <= known


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "No such file"),
        ("seed: [", "Cannot read"),
        ("seed: 1\ntrain: {}", "ground_truth"),
        ("5", "seed"),
    ],
)
def test_wrong_parameter_files_get_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(P2FError, match=sentence):
        recipe.read_parameters(path)


def test_the_revision_of_no_checkout(tmp_path):
    assert recipe.code_revision(tmp_path) == "unknown"


def test_a_model_card_says_where_weights_come_from(trained, tmp_path):
    model = MorphableModel.load(trained / "face_model.safetensors")
    reconstructor = Reconstructor(model, load_unet(trained / "out" / "unet.safetensors"))
    samples = model_card.synthetic_people(reconstructor, 9)
    points = samples.landmarks[0].astype(float)
    write_image(tmp_path / "a.png", samples.images[0])
    box = model_card.Box.around(points)
    photos = {"two photos": [AnnotatedPhoto(tmp_path / "a.png", points, box)] * 2}
    fast = Reconstructor(model, reconstructor.unet, mirror=False, same_crop=0.75)
    card = model_card.make_card(reconstructor, samples, photos, "toy", "toy.png", fast)
    (tmp_path / "figures").mkdir()
    model_card.write(tmp_path / "card.md", card, "toy.png")
    text = (tmp_path / "card.md").read_text()
    for part in (
        "| images seen | 24 |",
        "two photos",
        "of that of predicting zero",
        "95th percentile",
        "fast variant, two photos",
        "the same by yaw",
        "area under the ROC curve between these people and 9 boxes",
        "| turned by +30 degrees | ",
        "figures/toy.png",
        "Synthetic photographs only",
    ):
        assert part in text
    reconstructor.unet.metadata["source"] = "300w-lp"
    text = model_card.make_card(reconstructor, samples, {}, "toy", "toy.png").text
    assert "Photographs of 300w-lp." in text
    assert "Synthetic photographs only" not in text
    assert (tmp_path / "figures" / "toy.png").stat().st_size > 1000


def test_a_model_card_tells_people_by_yaw_and_lost_faces():
    errors, yaw = np.array([0.01, 0.03, 0.5, 0.07]), np.array([-10.0, 30.0, -89.0, 61.0])
    assert model_card._by_yaw(errors, yaw) == "2.00 (2 people), no people, 28.50 (2 people)"
    assert model_card._percent(0.0123) == "1.23"
    assert model_card._percent(np.inf) == "face lost"


def test_landmark_lists_are_written_and_kept(tmp_path):
    model, path = toy_model(600), tmp_path / "sub" / "landmarks.json"
    write_landmarks(path, {"ibug68": np.arange(68)}, model)
    write_landmarks(path, {"menpo84": np.arange(84)}, model)
    assert set(json.loads(path.read_text())) == {"ibug68", "menpo84"}
    chosen = with_landmarks(model, path)
    assert chosen.landmarks["ibug68"].tolist() == list(range(68))
    path.write_text('{"ibug68": [1, 2]}')
    with pytest.raises(P2FError, match="no list of landmark vertices"):
        write_landmarks(path, {"menpo84": np.arange(84)}, model)
