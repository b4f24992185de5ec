"""The processes that train together."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed

from spslam.errors import TrainingError

# The others wait this long at most while the first draws shapes, reads a long video or validates.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @staticmethod
    def from_environment(device: str = "auto") -> Processes:
        """As torchrun describes them; alone without it. Joins the process group.

        Raises:
            TrainingError: CUDA is asked for and there is none.
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
            # All batches of a training have one size: the fastest convolutions for it are found once.
            torch.backends.cudnn.benchmark = True
        if count > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
        return Processes(int(os.environ.get("RANK", "0")), count, chosen)

    @property
    def first(self) -> bool:
        """The one that writes and validates."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        self.agreed(0.0)

    def mean(self, values: Tensor) -> list[float]:
        """Means over all processes of values (N,)."""
        if self.count > 1:
            distributed.all_reduce(values)
            values = values / self.count
        means: list[float] = values.tolist()
        return means

    def agreed(self, value: float) -> float:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared.item())
