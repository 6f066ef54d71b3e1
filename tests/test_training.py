"""The loss; resuming, from memory and from a stream; learning on a toy."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from p2f_lib.camera import AffineCamera
from p2f_lib.datasets.crops import EpochShuffle
from p2f_lib.datasets.jitter import Jitter
from p2f_lib.datasets.stream import SampleStream
from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.training import TrainingConfig, masked_l1, previous, read_history, train
from p2f_lib.unet import NetworkConfig
from p2f_lib.validation import Validation, heldout_errors
from tests.toy import toy_model

NETWORK = NetworkConfig(input_size=16, width=4, depth=3)


def toy_set(model, count=48, canvas=28, seed=0):
    """Frontal eggs, all white and black: what is to be learned is their outline and one mode."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(-1, 1, count)
    shape = np.zeros((count, model.n_shape), np.float32)
    shape[:, 0] = 3 * level
    expression = np.zeros((count, model.n_expression), np.float32)
    cameras = tuple(
        AffineCamera([[0.07, 0, 0, cx], [0, -0.07, 0, cy]])
        for cx, cy in rng.uniform(11, 17, (count, 2))
    )
    landmarks = np.stack(
        [
            camera.project(model.vertices(row)[model.landmarks["ibug68"]])
            for row, camera in zip(shape, cameras, strict=True)
        ]
    )
    batch = SampleBatch(
        np.zeros((count, canvas, canvas, 3), np.uint8),
        shape,
        expression,
        cameras,
        landmarks.astype(np.float32),
        np.ones(count, bool),
    )
    _, valid = batch.targets(model)
    for image, mask, value in zip(batch.images, valid, level, strict=True):
        image[mask] = (128 + 127 * value, 128, 60)
    return batch


@pytest.fixture(scope="module")
def model():
    return toy_model(600)


@pytest.fixture(scope="module")
def samples(model):
    return toy_set(model)


def test_offset_loss_looks_at_the_face_only():
    planes = torch.zeros(1, 6, 4, 4)
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[0, 0, 0] = True
    planes[0, 3:, 0, 0] = 5.0
    output = torch.zeros(1, 6, 4, 4)
    output[0, 3:, 2, 2] = 7.0  # background: costs nothing
    pncc, offsets = masked_l1(output, planes, valid, NETWORK)
    assert pncc == 0
    assert offsets == pytest.approx(5.0 / NETWORK.offset_scale)


def test_an_interrupted_run_resumes_to_the_same_bits(model, samples, tmp_path):
    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 2:
                raise RuntimeError("killed")

    recipe = TrainingConfig(epochs=3, batch_size=8)
    options = {"progress": False, "validate": Validation(model, samples)}
    straight = train(model, samples, NETWORK, recipe, **options)
    with pytest.raises(RuntimeError, match="killed"):
        train(model, samples, NETWORK, recipe, folder=tmp_path, callbacks=[Interrupt()], **options)
    other = replace(recipe, epochs=4)
    with pytest.raises(P2FError, match="other parameters"):
        train(model, samples, NETWORK, other, folder=tmp_path, **options)
    resumed = train(
        model, samples, NETWORK, recipe, folder=tmp_path, log=tmp_path / "log", **options
    )
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert len(read_history(tmp_path / "log")["heldout/mask_iou"]) == 1  # the epoch left to run
    assert not (tmp_path / "last.ckpt").exists()  # a forced run starts afresh


def test_the_network_learns_planes_and_offsets(model, samples):
    recipe = TrainingConfig(epochs=30, batch_size=8, learning_rate=5e-3)
    jitter = Jitter((1.4, 1.6), 0.05, 0.0, 0.0, 0.0, mirror=False)
    unet = train(model, samples, NETWORK, recipe, jitter, progress=False)
    errors = heldout_errors(unet, model, toy_set(model, 24, seed=1))
    assert errors.offset_ratio < 0.6
    assert errors.mask_iou > 0.7  # predicting nothing has 0
    assert errors.pncc_median < 30  # predicting nothing has 95


def stream(model, **options):
    return SampleStream(model, 5, 2, **{"batches": 2, "size": 28, "supersample": 1} | options)


def test_an_interrupted_stream_resumes_to_the_same_bits(model, tmp_path):
    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                raise RuntimeError("killed")

    recipe = TrainingConfig(epochs=2, batch_size=2)
    arguments = model, stream(model), NETWORK, recipe
    straight = train(*arguments, progress=False)
    with pytest.raises(RuntimeError, match="killed"):
        train(*arguments, folder=tmp_path, callbacks=[Interrupt()], progress=False)
    resumed = train(*arguments, folder=tmp_path, workers=1, progress=False)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_workers_prepare_the_same_batches(model, samples):
    recipe = TrainingConfig(epochs=2, batch_size=16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers: others split rows elsewhere
    alone, helped = (
        train(model, samples, NETWORK, recipe, workers=workers, progress=False)
        for workers in (0, 2)
    )
    torch.set_num_threads(threads)
    for a, b in zip(alone.state_dict().values(), helped.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_stream_of_other_batches_gets_a_sentence(model):
    with pytest.raises(P2FError, match="batches of 2, the recipe asks for 4"):
        train(model, stream(model), NETWORK, TrainingConfig(batch_size=4), progress=False)


def in_process(*arguments, processes=1):
    """Run tests/train_toy.py, under torchrun where it takes several processes."""
    launcher = ["-m", "tests.train_toy"]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", *launcher]
        launcher += [f"--processes={processes}"]
    return subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def weights_of(folder):
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    run = in_process(folder)
    assert run.returncode == 0, run.stderr
    return weights_of(folder)


def test_a_killed_run_goes_on_to_the_same_bits(straight, tmp_path):
    for step in (5, 11):  # of six a pass: within the first epoch, then within the second
        assert in_process(tmp_path, "--kill", step).returncode == -signal.SIGKILL
        kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert kept["global_step"] == step - 1
    # Half a checkpoint, as a careless copy leaves it: the one before is taken.
    last = tmp_path / "last.ckpt"
    last.write_bytes(last.read_bytes()[:3000])
    run = in_process(tmp_path)
    assert run.returncode == 0, run.stderr
    assert "is damaged" in run.stderr
    resumed = weights_of(tmp_path)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not last.exists()
    assert not previous(last).exists()


def test_two_processes_reach_the_weights_of_one(straight, tmp_path):
    run = in_process(tmp_path, processes=2)
    assert run.returncode == 0, run.stderr
    together = weights_of(tmp_path)
    # A bias before a normalisation changes nothing: its gradient is rounding noise alone, which
    # Adam scales up to full steps.
    idle = {f"{part}.{i}.0.bias" for part in ("encoder", "decoder") for i in (0, 1, 2)}
    idle -= {"encoder.0.0.bias", "decoder.2.0.bias"}  # these have no normalisation behind them
    for name in straight.keys() - idle:
        torch.testing.assert_close(together[name], straight[name], rtol=1e-3, atol=1e-5)
    moved = [name for name in straight if not torch.equal(straight[name], together[name])]
    assert moved  # they did share the work


def test_a_full_disk_costs_no_more_than_the_checkpoint(model, samples, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    recipe = TrainingConfig(epochs=1, batch_size=8)
    straight = train(model, samples, NETWORK, recipe, progress=False)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left on device.*goes on"):
        unet = train(model, samples, NETWORK, recipe, folder=tmp_path, progress=False, save_every=2)
    assert list(tmp_path.iterdir()) == []
    for a, b in zip(straight.state_dict().values(), unet.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_batches_are_shared_out_and_resumed():
    whole = EpochShuffle(21, 6, seed=1)
    batches = list(whole)
    assert len(batches) == len(whole) == 3
    assert [step for step, *_ in batches] == [0, 1, 2]
    assert len({row for _, *rows in batches for row in rows}) == 18  # none twice
    parts = [list(EpochShuffle(21, 6, 1, (k, 3))) for k in range(3)]
    assert [a + b[1:] + c[1:] for a, b, c in zip(*parts, strict=True)] == batches
    whole.set_position(0, 2)
    assert list(whole) == batches[2:]
    whole.set_position(1)
    assert [step for step, *_ in whole] == [3, 4, 5]
    assert [rows for _, *rows in whole] != [rows for _, *rows in batches]
    with pytest.raises(P2FError, match="doesn't divide among 4"):
        EpochShuffle(21, 6, 1, (0, 4))


def test_the_learning_rate():
    paper = TrainingConfig(epochs=60)
    assert paper.rate(0, 100) == 1
    assert paper.rate(6000 - 1, 100) == pytest.approx(2 ** (-5 * 59 / 60))
    ours = TrainingConfig(epochs=10, halvings=0, warmup=4, cooldown=0.2)
    rates = [ours.rate(step, 10) for step in range(100)]
    np.testing.assert_allclose(rates[:5], [0.25, 0.5, 0.75, 1, 1])
    assert set(rates[4:80]) == {1.0}
    np.testing.assert_allclose(rates[80:], np.arange(20, 0, -1) / 20)


def test_the_average_of_weights_follows_them(model, samples):
    recipe = TrainingConfig(epochs=2, batch_size=8)
    last = train(model, samples, NETWORK, recipe, progress=False)
    slow = train(model, samples, NETWORK, replace(recipe, average=0.99), progress=False)
    short = train(model, samples, NETWORK, replace(recipe, average=1e-9), progress=False)
    pairs = zip(last.parameters(), slow.parameters(), short.parameters(), strict=True)
    for a, b, c in pairs:
        torch.testing.assert_close(a, c)
        assert not torch.equal(a, b)
