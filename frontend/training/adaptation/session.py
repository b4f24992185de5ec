"""What every step of an adaptation needs: its files, settings and processes, progress, ^C."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..config import TrainingConfig
from ..loop.progress import Progress
from ..processes import Processes

_logger = logging.getLogger(__name__)


class Reporter(Protocol):
    """Receives the progress of an adaptation."""

    def say(self, text: str) -> None:
        """Show the current activity."""

    def count(self, done: int, total: int) -> None:
        """Show the number of images labelled and of all images."""

    def update(self, progress: Progress) -> None:
        """Show the progress of the training."""


class StoppedError(Exception):
    """The user stopped the adaptation."""


class SilentReporter:
    """A reporter that shows nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def count(self, done: int, total: int) -> None:
        """Show nothing."""

    def update(self, progress: Progress) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class AdaptationFiles:
    """Paths of an adaptation's files and folders."""

    weights: Path

    @property
    def report(self) -> Path:
        """The page beside the weights."""
        return self.weights.with_suffix(".html")

    @property
    def folder(self) -> Path:
        """Folder of all intermediate files."""
        return self.weights.with_name(f"{self.weights.stem}-adaptation")

    @property
    def images(self) -> Path:
        """Images to train with, to validate and to evaluate with."""
        return self.folder / "images"

    @property
    def labels(self) -> Path:
        """Labels of the images."""
        return self.folder / "labels"

    @property
    def training(self) -> Path:
        """Folder of the training."""
        return self.folder / "joint"

    @property
    def plan(self) -> Path:
        """The `LabelPlan`."""
        return self.folder / "plan.json"

    @property
    def evaluation(self) -> Path:
        """Metrics before and after."""
        return self.folder / "evaluation.json"


@dataclass(frozen=True)
class Session:
    """What every step of an adaptation needs.

    Attributes:
        files: its files and folders.
        init: the initial weights.
        config: all settings.
        processes: this process among all that train together.
        reporter: receives the progress.
        stopped: whether the user stopped it.
    """

    files: AdaptationFiles
    init: Path
    config: TrainingConfig
    processes: Processes
    reporter: Reporter
    stopped: Callable[[], bool]

    def check(self) -> None:
        """Raise StoppedError if the user stopped the adaptation."""
        if self.stopped():
            raise StoppedError

    def check_together(self) -> None:
        """Raise StoppedError in all processes if the first one was stopped."""
        if self.processes.agreed(float(self.stopped())) > 0:
            raise StoppedError

    def say(self, text: str) -> None:
        """Log and show the current activity."""
        _logger.info("%s", text)
        self.reporter.say(text)
