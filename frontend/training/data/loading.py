"""Batches of a training: the images of each step, and the processes that read them.

A batch consists of blocks of `optimizer.block` images. A block depends only on the seed, the step
and its number. Therefore a step sees the same images with any number of processes or reading
workers, and after any resumption.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from spslam.errors import SpslamError
from spslam.process.signals import children_spared, end_with_parent

from ..config import TrainingConfig
from ..processes import Processes
from .reading import Batch, Reader
from .sources import Source


@dataclass(frozen=True)
class BlockRequest:
    """Indices of a block's images and the seed of their augmentation."""

    seed: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class ReadBlock:
    """Images of a block before augmentation, and its seed."""

    seed: int
    images: Batch

    def pin_memory(self) -> ReadBlock:
        """Return the block in pinned memory, for copies to the GPU; called by the `DataLoader`."""
        return ReadBlock(self.seed, {key: value.pin_memory() for key, value in self.images.items()})


class StepSampler(Sampler[list[BlockRequest]]):
    """Yields the blocks of each step for one process, endlessly.

    Args:
        count: number of images.
        config: seed, batch size and block size.
        processes: this process among those that share a step, in equal parts.
        first: first step.
        overfit: repeat the first step.
    """

    def __init__(
        self,
        count: int,
        config: TrainingConfig,
        processes: Processes,
        first: int = 0,
        overfit: bool = False,
    ) -> None:
        self._count, self._config, self._processes = count, config, processes
        self._first, self._overfit = first, overfit

    def __iter__(self) -> Iterator[list[BlockRequest]]:
        for step in itertools.repeat(0) if self._overfit else itertools.count(self._first):
            yield self._blocks(step)

    def _blocks(self, step: int) -> list[BlockRequest]:
        block, seed = self._config.optimizer.block, self._config.seed
        blocks = self._config.optimizer.batch // block
        shared = blocks // self._processes.count
        first = self._processes.rank * shared
        return [
            BlockRequest(
                _block_seed(seed, step, number),
                _shuffled(self._count, (step * blocks + number) * block, block, seed),
            )
            for number in range(first, first + shared)
        ]


class _Blocks(Dataset[ReadBlock | SpslamError]):
    """Reads the images of blocks; without the source, whose network the workers do not need."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __getitem__(self, request: BlockRequest) -> ReadBlock | SpslamError:
        try:
            return ReadBlock(request.seed, self._reader.read(np.array(request.indices, np.int64)))
        except SpslamError as error:
            # Returned instead of raised: the loader would add the worker's traceback to the
            # message.
            return error


def step_batches(
    source: Source,
    config: TrainingConfig,
    processes: Processes,
    first: int = 0,
    overfit: bool = False,
) -> Iterator[Batch]:
    """Yield the batch of this process for each step, endlessly.

    Args:
        source: images to train with.
        config: seed, batch size, block size, workers.
        processes: this process among those that share a step.
        first: first step.
        overfit: repeat the first step.
    """
    for found in _read_blocks(source, config, processes, first, overfit):
        blocks = [_readable(block) for block in found]
        generators = [torch.Generator(processes.device).manual_seed(block.seed) for block in blocks]
        parts = [
            source.augment(block.images, lot) for block, lot in zip(blocks, generators, strict=True)
        ]
        yield {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _read_blocks(
    source: Source, config: TrainingConfig, processes: Processes, first: int, overfit: bool
) -> Iterator[list[ReadBlock | SpslamError]]:
    workers = config.loading.workers
    loader: DataLoader[ReadBlock | SpslamError] = DataLoader(
        _Blocks(source.reader),
        batch_sampler=StepSampler(len(source.reader), config, processes, first, overfit),
        num_workers=workers,
        collate_fn=list,
        pin_memory=processes.device.type == "cuda",
        worker_init_fn=_start_worker if workers else None,
        # Not fork: a forked process inherits locks of threads that it does not have.
        multiprocessing_context="spawn" if workers else None,
        # Give the loader its own generator: its seed is unused and must not change PyTorch's state.
        generator=torch.Generator(),
    )
    with children_spared():
        return iter(loader)


def _readable(block: ReadBlock | SpslamError) -> ReadBlock:
    if isinstance(block, SpslamError):
        raise block
    return block


def _start_worker(_: int) -> None:
    end_with_parent()


def _block_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _shuffled(count: int, first: int, length: int, seed: int) -> tuple[int, ...]:
    """Return the images of samples `first` to `first + length`; each epoch shuffles all images."""
    numbers = range(first, first + length)
    orders: dict[int, NDArray[np.int64]] = {
        epoch: np.random.default_rng([seed, epoch]).permutation(count)
        for epoch in {number // count for number in numbers}
    }
    return tuple(int(orders[number // count][number % count]) for number in numbers)
