"""An endless stream of synthetic samples, for sets that no memory holds.

Apart from the training, so that worker processes import little.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from p2f_lib.errors import P2FError
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.morphable_model import MorphableModel
from p2f_lib.synthesis import NO_FACE_SHARE, render_samples


def rows_of(batch_size: int, part: tuple[int, int]) -> slice:
    """The rows of a batch that part k of n makes, for one of n training processes.

    Raises
    ------
    P2FError
        The batch doesn't divide by n.
    """
    k, n = part
    if batch_size % n:
        raise P2FError(f"A batch of {batch_size} doesn't divide among {n} processes.")
    share = batch_size // n
    return slice(k * share, (k + 1) * share)


class SampleStream(IterableDataset):
    """Freshly rendered samples without end, a whole batch at a time.

    Sample i depends on (seed, i) alone, and batch b of epoch e holds the samples from
    ``start + (e * batches + b) * batch_size`` on, whatever the number of workers: worker w of W
    makes the batches w, w + W, ..., and `DataLoader`, which needs ``batch_size=None``, fetches them
    in turn. Of several training processes, each makes its part of every batch.

    Parameters
    ----------
    model : MorphableModel
    seed : int
    batch_size, batches : int
        Samples of a batch, and batches of an epoch, after which iteration ends.
    size, supersample : int
        As of `render_samples`.
    start : int
        The first sample: where an earlier stream ended, or beyond the held-out ones.
    no_face_share : float
        As of `render_samples`.
    """

    def __init__(
        self,
        model: MorphableModel,
        seed: int,
        batch_size: int,
        batches: int,
        size: int,
        supersample: int,
        start: int = 0,
        no_face_share: float = NO_FACE_SHARE,
    ) -> None:
        if min(batch_size, batches) < 1 or start < 0:
            raise P2FError(
                "A stream of samples needs at least one batch of one sample, and a start from 0 "
                f"on; got {batches} batches of {batch_size} from {start}."
            )
        self.model, self.seed, self.start = model, seed, start
        self.batch_size, self.batches = batch_size, batches
        self.options: dict[str, Any] = {
            "size": size,
            "supersample": supersample,
            "no_face_share": no_face_share,
            "processes": 1,
            "progress": False,
        }
        self.rows = slice(0, batch_size)
        # Shared, because workers that live on see only their own copy of everything else.
        self.position = torch.zeros(2, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return self.batches

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Where the next iteration begins."""
        self.position[0], self.position[1] = epoch, batch

    def set_part(self, k: int, n: int) -> None:
        """Make part k of n of every batch; see `rows_of`."""
        self.rows = rows_of(self.batch_size, (k, n))

    def __iter__(self) -> Iterator[SampleBatch]:
        return (samples for _, samples in self.steps())

    def steps(self) -> Iterator[tuple[int, SampleBatch]]:
        """Batches with their numbers, counted through all epochs."""
        info = get_worker_info()
        worker, step = (0, 1) if info is None else (info.id, info.num_workers)
        epoch, first = self.position.tolist()
        for batch in range(first + worker, self.batches, step):
            number = epoch * self.batches + batch
            start = self.start + number * self.batch_size
            indices = range(start, start + self.batch_size)[self.rows]
            yield number, render_samples(self.model, self.seed, indices, **self.options)
