"""What a training reports while it runs: progress for the terminal, a log for later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


@dataclass(frozen=True)
class Progress:
    """Where a stage stands.

    Attributes:
        stage: its name.
        step, steps: done and planned.
        share: of the schedule that is done, 0 to 1.
        loss: mean of each loss, of the gradient's norm and of the learning rate since the last report.
        images_per_second: trained with, all processes together.
        seconds_left: estimate.
        metrics: of the last validation.
    """

    stage: str
    step: int
    steps: int
    share: float
    loss: dict[str, float]
    images_per_second: float
    seconds_left: float
    metrics: dict[str, float]


class Meter:
    """Means of what happened since it was made."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count, self._images, self._seconds = 0, 0, 0.0

    def add(self, values: dict[str, float], images: int, seconds: float) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count, self._images, self._seconds = (
            self._count + 1,
            self._images + images,
            self._seconds + seconds,
        )

    def means(self) -> dict[str, float]:
        return {name: value / self._count for name, value in self._sums.items()}

    def images_per_second(self) -> float:
        return self._images / max(self._seconds, 1e-9)


class TrainingLog:
    """JSON lines, and TensorBoard where it is installed."""

    def __init__(self, out: Path, enabled: bool) -> None:
        self._path, self._enabled, self._board = out / LOG, enabled, None
        if enabled:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._board = SummaryWriter(str(out / "tensorboard"))

    def write(self, seconds: float, progress: Progress) -> None:
        values = {"images_per_second": progress.images_per_second, **progress.loss}
        line = {"step": progress.step, "minutes": round(seconds / 60, 3), **values}
        self._line(line, progress.step, "train", values)

    def validation(self, step: int, metrics: dict[str, float]) -> None:
        self._line({"step": step, "validation": metrics}, step, "validation", metrics)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _line(self, line: dict[str, Any], step: int, group: str, values: dict[str, float]) -> None:
        if not self._enabled:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)
