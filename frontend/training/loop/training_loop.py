"""Training loop of any network: one or several processes, resumable."""

from __future__ import annotations

import copy
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spslam.errors import TrainingError
from spslam.io.files import write_atomic

from ..config import OptimizerConfig, ScheduleConfig
from ..processes import Processes
from .checkpoints import (
    BEST,
    CHECKPOINT,
    read_checkpoint,
    settings_that_differ,
    write_checkpoint,
)
from .optimizer import averaged_model, build_optimizer, learning_rate, set_averaged_steps
from .progress import Meter, Progress, TrainingLog

Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")

_logger = logging.getLogger(__name__)


class LoopSettings(Protocol):
    """The settings that every training has."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """Settings of a step."""
        ...

    @property
    def schedule(self) -> ScheduleConfig:
        """Length, validation, checkpoints and log."""
        ...

    def to_yaml(self) -> str:
        """Return all settings as YAML."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Return all settings as plain values."""
        ...


@dataclass(frozen=True)
class LoopOptions:
    """How a training runs; these options do not affect a step, except for `overfit`.

    Attributes:
        out: folder of checkpoints and logs; a training found there is resumed.
        processes: this process among all that train together.
        overfit: repeat the first batch, as a check of the loop.
        report: called every `schedule.log_every` steps in the first process.
        stopped: called after every step; True writes a checkpoint and ends.
    """

    out: Path
    processes: Processes = field(default_factory=Processes)
    overfit: bool = False
    report: Callable[[Progress], None] | None = None
    stopped: Callable[[], bool] | None = None


@dataclass(frozen=True)
class TrainingResult(Generic[Network]):
    """Result of a training.

    Attributes:
        network: averaged weights of the best validation, in evaluation mode.
        metrics: metrics of that validation.
        steps: number of steps done.
        examples: number of images or pairs trained with, counting repetitions.
        minutes: training time, all sessions together.
        finished: False if it was stopped and can be resumed.
    """

    network: Network
    metrics: dict[str, float]
    steps: int
    examples: int
    minutes: float
    finished: bool


class TrainingLoop(ABC, Generic[Network, Batch]):
    """Trains a network: steps, moving average, validation, checkpoints, log.

    A subclass yields the batches and computes the losses.

    Args:
        identity: values of the checkpoint that tell one training from another; `stage` is one.
        subject: subject of the message about a loss that is not finite.
        config: all settings; saved in the folder.
        model: what computes the loss; it contains the network.
        network: initial network, on the device of `options.processes`; it is changed.
        validate: measures the averaged weights regularly, in the first process. Its value `metric`
            chooses the best ones, higher is better.
        options: folder, processes, reports.
        examples_per_step: images or pairs in a step, all processes together.

    Raises:
        TrainingError: the folder holds another training.
    """

    def __init__(
        self,
        identity: dict[str, str],
        subject: str,
        config: LoopSettings,
        model: nn.Module,
        network: Network,
        validate: Callable[[Network], dict[str, float]],
        options: LoopOptions,
        examples_per_step: int,
    ) -> None:
        self._identity, self._subject = identity, subject
        self._optimizer_config, self._schedule = config.optimizer, config.schedule
        self._settings = config
        self._model, self._network = model, network
        self._validate = validate
        self._out, self._processes = options.out, options.processes
        self._overfit = options.overfit
        self._report = options.report or (lambda progress: None)
        self._stopped = options.stopped or (lambda: False)
        self._examples_per_step = examples_per_step
        self._average = averaged_model(network, config.optimizer.ema)
        self._best = copy.deepcopy(self._averaged)
        self._optimizer = build_optimizer(model, config.optimizer)
        self._step, self._seconds, self._misses = 0, 0.0, 0
        self._metrics: dict[str, float] = {}
        self._best_metrics: dict[str, float] = {}
        self._resume()

    @abstractmethod
    def _batches(self) -> Iterator[Batch]:
        """Yield this process's batch of every step from the present one on."""

    @abstractmethod
    def _losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the losses (B,) of a batch; `total` is minimised.

        Args:
            model: the model, wrapped if several processes train.
            batch: the batch.
        """

    def _parallel_options(self) -> dict[str, Any]:
        """Return the arguments of `DistributedDataParallel`."""
        return {}

    def _shown(self, means: dict[str, float]) -> dict[str, float]:
        """Return the values of the log and of the progress line, given the means since the last."""
        return means

    def _differences(self, state: dict[str, Any]) -> list[str]:
        """Return what makes the training of a checkpoint another one; empty: the same training."""
        return settings_that_differ(state.get("config", ""), self._settings.model_dump(mode="json"))

    def train(self) -> TrainingResult[Network]:
        """Train to the end of the schedule, or until stopped.

        Raises:
            TrainingError: the loss is not finite.
        """
        model: nn.Module = self._model
        if self._processes.count > 1:
            model = DistributedDataParallel(model, **self._parallel_options())
        meter, log = Meter(), TrainingLog(self._out, self._processes.first)
        batches = self._batches()
        saved = time.monotonic()
        if self._step == 0:
            # The initial weights are validated too, so that a training never returns worse ones.
            self._run_validation(log)
        while (fraction := self._fraction_done()) < 1 and not self._ended_early():
            started = time.monotonic()
            values = self._train_step(model, batches, fraction)
            self._step += 1
            self._seconds += time.monotonic() - started
            meter.add(values, self._examples_per_step, time.monotonic() - started)
            if self._step % self._schedule.log_every == 0:
                self._log(meter, log)
                meter = Meter()
            if self._step % self._schedule.validate_every == 0:
                self._run_validation(log)
            if self._processes.agreed(float(self._stopped())) > 0:
                self._save()
                return self._result(finished=False)
            if time.monotonic() - saved > 60 * self._schedule.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
        if self._step % self._schedule.validate_every:
            self._run_validation(log)
        self._save()
        log.close()
        return self._result(finished=True)

    @property
    def _averaged(self) -> Network:
        return cast(Network, self._average.module)

    def _train_step(
        self, model: nn.Module, batches: Iterator[Batch], fraction: float
    ) -> dict[str, float]:
        settings = self._optimizer_config
        batch = next(batches)
        self._model.train()
        losses = self._losses(model, batch)
        total = losses["total"].mean()
        if not torch.isfinite(total):
            raise TrainingError(
                f"{self._subject} is not finite at step {self._step}: lower "
                f"optimizer.learning_rate; the last checkpoint is in {self._out}"
            )
        rate = learning_rate(settings, self._step, fraction)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), settings.clip_norm)
        self._optimizer.step()
        self._average.update_parameters(self._network)
        means = torch.stack([*(value.detach().mean() for value in losses.values()), norm.detach()])
        values = dict(zip([*losses, "gradient_norm"], self._processes.mean(means), strict=True))
        return values | {"learning_rate": rate}

    def _fraction_done(self) -> float:
        """Return the fraction of the schedule that is done."""
        fraction = self._step / self._optimizer_config.steps
        minutes = self._schedule.minutes
        if minutes is None:
            return fraction
        return self._processes.agreed(max(fraction, self._seconds / 60 / minutes))

    def _ended_early(self) -> bool:
        """Return whether patience or time ends the training before the schedule does."""
        if self._misses >= self._schedule.patience:
            return True
        minutes = self._schedule.stop_minutes
        return minutes is not None and self._processes.agreed(self._seconds / 60) >= minutes

    def _log(self, meter: Meter, log: TrainingLog) -> None:
        fraction = max(self._fraction_done(), 1e-9)
        progress = Progress(
            self._identity["stage"],
            self._step,
            self._optimizer_config.steps,
            min(fraction, 1.0),
            self._shown(meter.means()),
            meter.images_per_second(),
            self._seconds * (1 - fraction) / fraction,
            self._metrics,
        )
        log.write(self._seconds, progress)
        if self._processes.first:
            self._report(progress)

    def _run_validation(self, log: TrainingLog) -> None:
        if self._processes.first:
            threads = torch.get_num_threads()
            self._metrics = self._validate(self._averaged)
            # The inference engine sets all cores; restore the threads for processes that share
            # them.
            torch.set_num_threads(threads)
            log.validation(self._step, self._metrics)
        metric = self._processes.agreed(self._metrics.get("metric", 0.0))
        if self._best_metrics and metric <= self._best_metrics["metric"]:
            self._misses += 1
            return
        self._misses = 0
        self._best_metrics = dict(self._metrics) if self._processes.first else {"metric": metric}
        self._best.load_state_dict(self._averaged.state_dict())
        if self._processes.first:
            write_checkpoint(
                self._out / BEST,
                {"network": self._best.state_dict(), "metrics": self._best_metrics},
            )

    def _save(self) -> None:
        if not self._processes.first:
            return
        write_checkpoint(
            self._out / CHECKPOINT,
            {
                **self._identity,
                "config": self._settings.to_yaml(),
                "step": self._step,
                "seconds": self._seconds,
                "misses": self._misses,
                "metrics": self._metrics,
                "best_metrics": self._best_metrics,
                "network": self._network.state_dict(),
                "average": self._averaged.state_dict(),
                "best": self._best.state_dict(),
                "optimizer": self._optimizer.state_dict(),
            },
        )

    def _resume(self) -> None:
        self._out.mkdir(parents=True, exist_ok=True)
        path = self._out / CHECKPOINT
        if not path.is_file():
            if self._processes.first:
                write_atomic(self._out / "config.yaml", self._settings.to_yaml())
            return
        # On the CPU: AdamW counts steps there; a count on the GPU would stall every step.
        state = read_checkpoint(path)
        if differences := self._differences(state):
            raise TrainingError(
                f"{self._out} holds a training with other settings ({', '.join(differences)}): "
                "give another --out, or the same settings"
            )
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TrainingError(
                f"{path} does not fit this training ({' '.join(str(error).split())[:200]}): "
                "remove it to start again"
            ) from None
        _logger.info("%s: resumed at step %d", self._out, self._step)

    def _restore(self, state: dict[str, Any]) -> None:
        self._step, self._seconds = state["step"], state["seconds"]
        self._misses = state["misses"]
        self._metrics, self._best_metrics = state["metrics"], state["best_metrics"]
        self._network.load_state_dict(state["network"])
        self._averaged.load_state_dict(state["average"])
        self._best.load_state_dict(state["best"])
        self._optimizer.load_state_dict(state["optimizer"])
        set_averaged_steps(self._average, self._step)

    def _result(self, finished: bool) -> TrainingResult[Network]:
        return TrainingResult(
            self._best if self._best_metrics else self._averaged,
            self._best_metrics or self._metrics,
            self._step,
            self._step * self._examples_per_step,
            self._seconds / 60,
            finished,
        )
