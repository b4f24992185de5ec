"""Processes of a distributed training."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed

from spslam.errors import TrainingError

# Longest wait for the first process while it draws shapes, reads a long video or validates.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """This process among all that train together."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @staticmethod
    def from_environment(device: str = "auto") -> Processes:
        """Read the settings of torchrun and join the process group; a single process without them.

        Raises:
            TrainingError: CUDA is requested but not available.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise TrainingError(
                "the device is cuda, but PyTorch finds no CUDA device: use cpu or auto"
            )
        cuda = device != "cpu" and torch.cuda.is_available()
        count, local = (
            int(os.environ.get("WORLD_SIZE", "1")),
            int(os.environ.get("LOCAL_RANK", "0")),
        )
        chosen = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(chosen)
            # All batches have the same size: search for the fastest convolutions only once.
            torch.backends.cudnn.benchmark = True
        if count > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
        return Processes(int(os.environ.get("RANK", "0")), count, chosen)

    @property
    def first(self) -> bool:
        """Whether this process writes and validates."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait for all processes."""
        self.agreed(0.0)

    def mean(self, values: Tensor) -> list[float]:
        """Return the means of values (N,) over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
            values = values / self.count
        means: list[float] = values.tolist()
        return means

    def agreed(self, value: float) -> float:
        """Return the value of the first process, in all processes."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared.item())
