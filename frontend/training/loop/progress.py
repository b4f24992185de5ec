"""Reports of a running training: progress for the terminal and a log file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Name of the log in the folder of the stage, JSON lines.
LOG = "log.jsonl"


@dataclass(frozen=True)
class Progress:
    """Progress of a stage.

    Attributes:
        stage: name of the stage.
        step: number of steps done.
        steps: number of steps planned.
        fraction: fraction of the schedule that is done, 0 to 1.
        loss: means of each loss, the gradient norm and the learning rate since the last report.
        images_per_second: training speed, all processes together.
        seconds_left: estimated remaining time, seconds.
        metrics: metrics of the last validation.
    """

    stage: str
    step: int
    steps: int
    fraction: float
    loss: dict[str, float]
    images_per_second: float
    seconds_left: float
    metrics: dict[str, float]


class Meter:
    """Means of values, and speed, since its creation."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count, self._images, self._seconds = 0, 0, 0.0

    def add(self, values: dict[str, float], images: int, seconds: float) -> None:
        """Add the values of a step, its number of images and its time, seconds."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count, self._images, self._seconds = (
            self._count + 1,
            self._images + images,
            self._seconds + seconds,
        )

    def means(self) -> dict[str, float]:
        """Return the mean of each value."""
        return {name: value / self._count for name, value in self._sums.items()}

    def images_per_second(self) -> float:
        """Return the speed, images/s."""
        return self._images / max(self._seconds, 1e-9)


class TrainingLog:
    """Log of a training as JSON lines, and for TensorBoard if it is installed."""

    def __init__(self, out: Path, enabled: bool) -> None:
        self._path, self._enabled, self._board = out / LOG, enabled, None
        if enabled:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._board = SummaryWriter(str(out / "tensorboard"))

    def write(self, seconds: float, progress: Progress) -> None:
        """Write the progress after this training time, seconds."""
        values = {"images_per_second": progress.images_per_second, **progress.loss}
        line = {"step": progress.step, "minutes": round(seconds / 60, 3), **values}
        self._line(line, progress.step, "train", values)

    def validation(self, step: int, metrics: dict[str, float]) -> None:
        """Write the metrics of a validation."""
        self._line({"step": step, "validation": metrics}, step, "validation", metrics)

    def close(self) -> None:
        """Close the TensorBoard log."""
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
