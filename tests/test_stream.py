"""Streams of samples: the same for any number of workers, from any start."""

from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.data import DataLoader

from p2f_lib.datasets import stream as module
from p2f_lib.datasets.stream import SampleStream
from p2f_lib.errors import P2FError
from p2f_lib.synthesis import render_samples
from tests.toy import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model(600)


def stream(model, **options):
    return SampleStream(model, 5, 2, **{"batches": 5, "size": 28, "supersample": 1} | options)


@pytest.fixture(scope="module")
def expected(model):
    return list(stream(model))


def same(ones, others):
    for one, two in zip(ones, others, strict=True):
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.shape, two.shape)
        np.testing.assert_array_equal(one.is_face, two.is_face)
        for a, b in zip(one.cameras, two.cameras, strict=True):
            np.testing.assert_array_equal(a.translation, b.translation)


def test_a_stream_is_what_would_be_rendered_at_once(model, expected):
    at_once = render_samples(model, 5, range(10), 28, 1, processes=1, progress=False)
    assert len(stream(model)) == 5
    same(expected, [at_once[start : start + 2] for start in range(0, 10, 2)])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_take_turns(model, expected, workers, monkeypatch):
    """As the loader does: a batch of each worker in turn."""
    parts = []
    for worker in range(workers):
        info = SimpleNamespace(id=worker, num_workers=workers)
        monkeypatch.setattr(module, "get_worker_info", lambda info=info: info)
        parts.append(list(stream(model)))
    same([parts[batch % workers][batch // workers] for batch in range(5)], expected)


def test_real_workers_give_the_same_and_hear_of_the_next_epoch(model, expected):
    pieces = stream(model, batches=2, start=2)
    loader = DataLoader(
        pieces,
        batch_size=None,
        num_workers=2,
        multiprocessing_context="spawn",
        persistent_workers=True,
    )
    for epoch in range(2):
        pieces.set_position(epoch)
        same(loader, expected[1 + 2 * epoch : 3 + 2 * epoch])


def test_a_stream_goes_on_where_it_is_told_to(model, expected):
    same(stream(model, start=4, batches=3), expected[2:])
    pieces = stream(model, batches=2)
    pieces.set_position(1)
    same(pieces, expected[2:4])


def test_wrong_streams_get_a_sentence(model):
    with pytest.raises(P2FError, match="at least one batch"):
        stream(model, batches=0)
    with pytest.raises(P2FError, match="from -1"):
        stream(model, start=-1)
