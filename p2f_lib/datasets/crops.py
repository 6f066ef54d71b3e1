"""What a training sees: batches of jittered crops with their targets, from memory or a stream.

Crops and targets are made where samples are fetched, in worker processes where there are any, so
that a training on a graphics card doesn't wait for them. Apart from the training, because workers
should import little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from p2f_lib.datasets.jitter import Jitter, jitter_batch
from p2f_lib.datasets.stream import SampleStream, rows_of
from p2f_lib.ground_truth import SampleBatch
from p2f_lib.morphable_model import MorphableModel

Crops = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # of `jitter_batch`


@dataclass(frozen=True, eq=False)
class Cropping:
    """How a batch of samples becomes one of crops.

    Parameters
    ----------
    model : to which the samples' coefficients belong.
    jitter : ranges of the random crops and colours.
    size : pixels a side.
    seed : with the number of the training's step, decides the jitter; a resumed run repeats it.
    part : (k, n), which of n processes that share every batch this is.
    """

    model: MorphableModel = field(repr=False)
    jitter: Jitter
    size: int
    seed: int
    part: tuple[int, int] = (0, 1)

    def __call__(self, samples: SampleBatch, step: int) -> Crops:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return jitter_batch(self.model, samples, self.jitter, self.size, generator, self.part)


class SampleSet(Protocol):
    """What can be trained on besides a stream: samples by their rows, fetched a batch at a time."""

    def __len__(self) -> int: ...

    def __getitems__(self, rows: list[int], /) -> SampleBatch: ...


class Canvases(Dataset):
    """Samples that were rendered before."""

    def __init__(self, samples: SampleBatch) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, indices: list[int]) -> SampleBatch:
        return self.samples[indices]


class EpochShuffle(Sampler[list[int]]):
    """Steps with their rows: a permutation that (seed, epoch) decides, so that a resumed run sees
    the same.

    Each item is ``[step, row, row, ...]``; steps are counted through all epochs.

    Parameters
    ----------
    length, batch_size : int
        Of the data set; what is left over after the last full batch is left out.
    seed : int
    part : (k, n)
        Only part k of n of each batch, for one of n processes.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, part: tuple[int, int] = (0, 1)
    ) -> None:
        self.length, self.seed = length, seed
        self.batch_size = min(batch_size, length)
        self.rows = rows_of(self.batch_size, part)
        self.position = (0, 0)

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Where the next iteration begins."""
        self.position = (epoch, batch)

    def __len__(self) -> int:
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = self.position
        order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        for batch in range(first, len(self)):
            start = batch * self.batch_size
            rows = order[start : start + self.batch_size][self.rows]
            yield [epoch * len(self) + batch, *rows.tolist()]


class CropSet(Dataset):
    """Crops of a data set such as `Canvases`, for the items of an `EpochShuffle`."""

    def __init__(self, samples: SampleSet, cropping: Cropping) -> None:
        self.samples, self.cropping = samples, cropping

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, item: list[int]) -> Crops:
        step, *rows = item
        return self.cropping(self.samples.__getitems__(rows), step)


class CropStream(IterableDataset):
    """Crops of a stream of samples."""

    def __init__(self, stream: SampleStream, cropping: Cropping) -> None:
        self.stream, self.cropping = stream, cropping

    def __iter__(self) -> Iterator[Crops]:
        for step, samples in self.stream.steps():
            yield self.cropping(samples, step)


class CropLoader(DataLoader):
    """Crops of samples in the order of a training.

    Parameters
    ----------
    samples : SampleSet or SampleStream
    cropping : Cropping
    batch_size, seed : of the training; a stream has its own batches.
    workers : int
        Processes that make crops (and render the samples of a stream) ahead of the training.
    """

    def __init__(
        self,
        samples: SampleSet | SampleStream,
        cropping: Cropping,
        batch_size: int,
        seed: int,
        workers: int = 0,
    ) -> None:
        options: dict[str, Any] = {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": workers > 0 and torch.cuda.is_available(),
        }
        if isinstance(samples, SampleStream):
            samples.set_part(*cropping.part)
            self.position: SampleStream | EpochShuffle = samples
            # New interpreters: they have little to take over.
            context = "spawn" if workers else None
            super().__init__(
                CropStream(samples, cropping),
                batch_size=None,
                multiprocessing_context=context,
                **options,
            )
        else:
            self.position = shuffle = EpochShuffle(len(samples), batch_size, seed, cropping.part)
            # Forks share the samples' memory.
            context = "fork" if workers else None
            super().__init__(
                CropSet(samples, cropping),
                batch_sampler=shuffle,
                collate_fn=_as_it_is,
                multiprocessing_context=context,
                **options,
            )

    def state_dict(self) -> dict:
        """Nothing: the position follows from the number of steps."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to do, see `state_dict`."""


def _as_it_is(batch: Any) -> Any:
    return batch  # fetched as a whole
