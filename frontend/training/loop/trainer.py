"""Training loop of one stage."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spslam.errors import TrainingError
from spslam.io.files import write_atomic
from spslam.notices import counted

from ...superpoint.superpoint import SuperPoint
from ..config import TrainingConfig
from ..data.loading import step_batches
from ..data.reading import Batch
from ..data.sources import Source
from ..objectives import Objective
from ..precision import autocast
from ..processes import Processes
from .checkpoints import BEST, CHECKPOINT, changed_settings, read_checkpoint, write_checkpoint
from .optimizer import averaged_model, build_optimizer, learning_rate, set_averaged_steps
from .progress import Meter, Progress, TrainingLog

# Function that measures weights; its value `metric` chooses the best ones, higher is better.
Validation = Callable[[SuperPoint], dict[str, float]]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """Result of a stage.

    Attributes:
        network: averaged weights of the best validation, in evaluation mode, batch norm not folded.
        metrics: metrics of that validation.
        steps: number of steps done.
        images: number of images trained with, counting repetitions.
        minutes: training time, all sessions together.
        finished: False if the stage was stopped and can be resumed.
    """

    network: SuperPoint
    metrics: dict[str, float]
    steps: int
    images: int
    minutes: float
    finished: bool


class StageModel(nn.Module):
    """Network with the predictions of a stage: from a batch to what the loss needs."""

    def __init__(self, network: SuperPoint, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self._objective = objective
        if not objective.learns_descriptors:
            for layer in (network.convDa, network.convDb):
                layer.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the objective's predictions for a batch."""
        return self._objective.predict(self.network, batch)


class Trainer:
    """Trains one stage.

    Args:
        stage: name of the stage.
        objective: predictions and loss.
        config: all settings; saved in `out`.
        network: initial network; it is changed.
        source: images to train with.
        validate: measures the averaged weights regularly, in the first process.
        out: folder of checkpoints and logs; a training found there is resumed.
        processes: this process among all that train together.
        overfit: repeat the first batch, as a check of the loop.
        report: called every `schedule.log_every` steps in the first process.
        stopped: called after every step; True writes a checkpoint and ends.

    Raises:
        TrainingError: `out` has another stage or configuration, or the batch cannot be split.
    """

    def __init__(
        self,
        stage: str,
        objective: Objective,
        config: TrainingConfig,
        network: SuperPoint,
        source: Source,
        validate: Validation,
        out: Path,
        processes: Processes | None = None,
        overfit: bool = False,
        report: Callable[[Progress], None] | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        self._stage, self._objective, self._config, self._out = stage, objective, config, out
        self._source, self._validate = source, validate
        self._processes = processes or Processes()
        self._overfit = overfit
        self._report, self._stopped = report or (lambda progress: None), stopped or (lambda: False)
        blocks = config.optimizer.batch // config.optimizer.block
        if blocks % self._processes.count:
            raise TrainingError(
                f"{self._processes.count} processes cannot share a step of "
                f"{counted(blocks, 'block')}: make "
                f"optimizer.batch a multiple of {self._processes.count * config.optimizer.block}"
            )
        device = self._processes.device
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._processes.count > 1 and device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self._model = StageModel(network, objective)
        self._average = averaged_model(network, config.optimizer.ema)
        self._best = copy.deepcopy(self._averaged)
        self._optimizer = build_optimizer(self._model, config.optimizer)
        self._tie_breaking = torch.Generator(device)
        self._loss = objective.loss(
            config.loss, network.sampling, self._tie_breaking, config.optimizer.block
        )
        self._step, self._seconds, self._misses = 0, 0.0, 0
        self._metrics: dict[str, float] = {}
        self._best_metrics: dict[str, float] = {}
        self._resume()

    def train(self) -> TrainingResult:
        """Run the stage to its end, or until it is stopped.

        Raises:
            TrainingError: the loss is not finite.
        """
        model: nn.Module = self._model
        if self._processes.count > 1:
            ids = [self._processes.device.index] if self._processes.device.type == "cuda" else None
            model = DistributedDataParallel(model, device_ids=ids)
        meter, log = Meter(), TrainingLog(self._out, self._processes.first)
        batches = step_batches(
            self._source, self._config, self._processes, self._step, self._overfit
        )
        saved = time.monotonic()
        if self._step == 0:
            # The initial weights are validated too, so that a training never returns worse ones.
            self._run_validation(log)
        while (fraction := self._fraction_done()) < 1 and not self._ended_early():
            started = time.monotonic()
            losses = self._train_step(model, batches, fraction)
            self._step += 1
            self._seconds += time.monotonic() - started
            meter.add(losses, self._images_per_step, time.monotonic() - started)
            if self._step % self._config.schedule.log_every == 0:
                progress = self._progress(meter)
                log.write(self._seconds, progress)
                if self._processes.first:
                    self._report(progress)
                meter = Meter()
            if self._step % self._config.schedule.validate_every == 0:
                self._run_validation(log)
            if self._interrupted():
                self._save()
                return self._result(finished=False)
            if time.monotonic() - saved > 60 * self._config.schedule.checkpoint_minutes:
                self._save()
                saved = time.monotonic()
        if self._step % self._config.schedule.validate_every:
            self._run_validation(log)
        self._save()
        log.close()
        return self._result(finished=True)

    @property
    def _averaged(self) -> SuperPoint:
        return cast(SuperPoint, self._average.module)

    @property
    def _images_per_step(self) -> int:
        return self._config.optimizer.batch * self._objective.views

    def _train_step(
        self, model: nn.Module, batches: Iterator[Batch], fraction: float
    ) -> dict[str, float]:
        settings, processes = self._config.optimizer, self._processes
        batch = next(batches)
        number = 0 if self._overfit else self._step
        self._tie_breaking.manual_seed(number * processes.count + processes.rank)
        self._model.train()
        with autocast(processes.device, settings.precision):
            predictions = model(batch)
        losses = self._loss(predictions, batch)
        total = losses["total"].mean()
        if not torch.isfinite(total):
            raise TrainingError(
                f"stage {self._stage}: the loss is not finite at step {self._step}: lower "
                f"optimizer.learning_rate; the last checkpoint is in {self._out}"
            )
        rate = learning_rate(settings, self._step, fraction)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), settings.clip_norm)
        self._optimizer.step()
        self._average.update_parameters(self._model.network)
        means = torch.stack([*(value.detach().mean() for value in losses.values()), norm.detach()])
        values = dict(zip([*losses, "gradient_norm"], self._processes.mean(means), strict=True))
        return values | {"learning_rate": rate}

    def _fraction_done(self) -> float:
        """Return the fraction of the schedule that is done."""
        minutes = self._config.schedule.minutes
        fraction = self._step / self._config.optimizer.steps
        return (
            fraction
            if minutes is None
            else self._processes.agreed(max(fraction, self._seconds / 60 / minutes))
        )

    def _ended_early(self) -> bool:
        """Return whether patience or time ends the stage before the schedule does."""
        schedule = self._config.schedule
        if self._misses >= schedule.patience:
            return True
        minutes = schedule.stop_minutes
        return minutes is not None and self._processes.agreed(self._seconds / 60) >= minutes

    def _interrupted(self) -> bool:
        return self._processes.agreed(float(self._stopped())) > 0

    def _progress(self, meter: Meter) -> Progress:
        fraction = max(self._fraction_done(), 1e-9)
        left = self._seconds * (1 - fraction) / fraction
        return Progress(
            self._stage,
            self._step,
            self._config.optimizer.steps,
            min(fraction, 1.0),
            meter.means(),
            meter.images_per_second(),
            left,
            self._metrics,
        )

    def _run_validation(self, log: TrainingLog) -> None:
        if self._processes.first:
            threads = torch.get_num_threads()
            self._metrics = self._validate(self._averaged)
            # The inference engine sets all cores; restore the threads for processes that share
            # them.
            torch.set_num_threads(threads)
            log.validation(self._step, self._metrics)
        metric = self._processes.agreed(self._metrics.get("metric", 0.0))
        if not self._best_metrics or metric > self._best_metrics["metric"]:
            self._best_metrics = (
                dict(self._metrics) if self._processes.first else {"metric": metric}
            )
            self._best.load_state_dict(self._averaged.state_dict())
            self._misses = 0
            if self._processes.first:
                write_checkpoint(
                    self._out / BEST,
                    {"network": self._best.state_dict(), "metrics": self._best_metrics},
                )
        else:
            self._misses += 1

    def _save(self) -> None:
        if not self._processes.first:
            return
        write_checkpoint(
            self._out / CHECKPOINT,
            {
                "stage": self._stage,
                "config": self._config.to_yaml(),
                "step": self._step,
                "seconds": self._seconds,
                "misses": self._misses,
                "metrics": self._metrics,
                "best_metrics": self._best_metrics,
                "network": self._model.network.state_dict(),
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
                write_atomic(self._out / "config.yaml", self._config.to_yaml())
            return
        # On the CPU: AdamW counts steps there; a count on the GPU would stall every step.
        state = read_checkpoint(path)
        changed = changed_settings(state.get("config", ""), self._config)
        if state.get("stage") != self._stage or changed:
            what = ", ".join(changed) or f"stage {state.get('stage')} instead of {self._stage}"
            raise TrainingError(
                f"{self._out} holds a training with other settings ({what}): give another --out, "
                "or the same settings"
            )
        try:
            self._step, self._seconds, self._misses = (
                state["step"],
                state["seconds"],
                state["misses"],
            )
            self._metrics, self._best_metrics = state["metrics"], state["best_metrics"]
            for module, key in (
                (self._model.network, "network"),
                (self._averaged, "average"),
                (self._best, "best"),
            ):
                module.load_state_dict(state[key])
            self._optimizer.load_state_dict(state["optimizer"])
            set_averaged_steps(self._average, self._step)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TrainingError(
                f"{path} does not fit this training ({' '.join(str(error).split())[:200]}): "
                "remove it to start again"
            ) from None
        _logger.info("%s: resumed at step %d", self._out, self._step)

    def _result(self, finished: bool) -> TrainingResult:
        network = self._best if self._best_metrics else self._averaged
        return TrainingResult(
            network,
            self._best_metrics or self._metrics,
            self._step,
            self._step * self._images_per_step,
            self._seconds / 60,
            finished,
        )
