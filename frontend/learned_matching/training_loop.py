"""Training loop of a matcher: one or several processes, resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spslam.errors import TrainingError
from spslam.io.files import write_atomic
from spslam.notices import counted

from ..training.loop.checkpoints import (
    BEST,
    CHECKPOINT,
    read_checkpoint,
    settings_that_differ,
    write_checkpoint,
)
from ..training.loop.optimizer import (
    averaged_model,
    build_optimizer,
    learning_rate,
    set_averaged_steps,
)
from ..training.loop.progress import Meter, Progress, TrainingLog
from ..training.precision import autocast
from ..training.processes import Processes
from .configuration import MatcherConfig
from .losses import (
    assignment_loss,
    confidence_loss,
    match_counts,
    predicted_matches,
)
from .network import Assignment, ImageState, MatcherNetwork
from .pairs import PairBatch, PairSampler, ViewBatch

# Function that measures weights; its value `metric` chooses the best ones, higher is better.
MatcherValidation = Callable[[MatcherNetwork], dict[str, float]]
STAGE = "matcher"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MatcherResult:
    """Result of a training.

    Attributes:
        network: averaged weights of the best validation.
        metrics: metrics of that validation.
        steps: number of steps done.
        pairs: number of pairs trained with, counting repetitions.
        minutes: training time, all sessions together.
        finished: False if it was stopped and can be resumed.
    """

    network: MatcherNetwork
    metrics: dict[str, float]
    steps: int
    pairs: int
    minutes: float
    finished: bool


class MatcherLossModel(nn.Module):
    """Network and loss: from a batch of pairs to the losses of each pair.

    In each step the loss counts after the last layer and after one of the earlier layers, in turn.
    """

    def __init__(self, network: MatcherNetwork, config: MatcherConfig) -> None:
        super().__init__()
        self.network = network
        self._config = config.loss
        self._precision = config.optimizer.precision

    def forward(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Return losses (B,), and counts of matches (B,) under `found`, `predicted` and `true`."""
        network, layers = self.network, self.network.shape.layers
        early = step % (layers - 1) if layers > 1 else None
        device = batch.view0.positions.device
        with autocast(device, self._precision):
            images = (_embed(network, batch.view0), _embed(network, batch.view1))
            states, found = None, None
            for index in range(layers):
                images = network.layer(index, *images)
                if index == early:
                    states = images
                    found = network.heads[index](*images)
            last: Assignment = network.heads[-1](*images)
        losses = assignment_loss(last, batch.true)
        index0, index1 = predicted_matches(last, self._config.threshold)
        total = losses["total"]
        if early is not None and states is not None and found is not None:
            earlier = assignment_loss(found, batch.true)["total"]
            early0, early1 = predicted_matches(found, self._config.threshold)
            # Detached: confidence learns about the matches and must not change them.
            sides = (
                (states[0], early0 == index0, batch.view0),
                (states[1], early1 == index1, batch.view1),
            )
            confidence = torch.stack(
                [
                    confidence_loss(
                        network.confidence[early](image.states.detach().float())[..., 0],
                        right,
                        view.points.exist,
                    )
                    for image, right, view in sides
                ]
            ).mean(dim=0)
            total = (
                total + self._config.early_layers * earlier + self._config.confidence * confidence
            )
            losses |= {"early": earlier, "confidence": confidence}
        counts = {name: count.float() for name, count in match_counts(index0, batch.true).items()}
        return {**losses, "final": losses["total"], **counts, "total": total}


class MatcherTrainer:
    """Trains a matcher.

    Args:
        config: all settings; saved in `out`.
        network: initial network; it is changed.
        sampler: pairs to train with.
        validate: measures the averaged weights regularly, in the first process.
        out: folder of checkpoints and logs; a training found there is resumed.
        origin: identity of the extractor of the features; a training of another is refused.
        processes: this process among all that train together.
        overfit: repeat the first batch, as a check of the loop.
        report: called every `schedule.log_every` steps in the first process.
        stopped: called after every step; True writes a checkpoint and ends.

    Raises:
        TrainingError: `out` has another configuration, or the batch cannot be split.
    """

    def __init__(
        self,
        config: MatcherConfig,
        network: MatcherNetwork,
        sampler: PairSampler,
        validate: MatcherValidation,
        out: Path,
        origin: str,
        processes: Processes | None = None,
        overfit: bool = False,
        report: Callable[[Progress], None] | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        self._config, self._sampler, self._validate = config, sampler, validate
        self._out, self._origin = out, origin
        self._processes, self._overfit = processes or Processes(), overfit
        self._report, self._stopped = report or (lambda progress: None), stopped or (lambda: False)
        if config.optimizer.batch % self._processes.count:
            raise TrainingError(
                f"{self._processes.count} processes cannot share a step of "
                f"{counted(config.optimizer.batch, 'pair')}: make optimizer.batch a multiple of "
                f"{self._processes.count}"
            )
        self._model = MatcherLossModel(network.to(self._processes.device), config)
        self._average = averaged_model(network, config.optimizer.ema)
        self._best = MatcherNetwork(network.shape).to(self._processes.device)
        self._best.load_state_dict(network.state_dict())
        self._optimizer = build_optimizer(self._model, config.optimizer)
        self._step, self._seconds, self._misses = 0, 0.0, 0
        self._metrics: dict[str, float] = {}
        self._best_metrics: dict[str, float] = {}
        self._resume()

    def train(self) -> MatcherResult:
        """Train to the end of the schedule, or until stopped.

        Raises:
            TrainingError: the loss is not finite.
        """
        model: nn.Module = self._model
        if self._processes.count > 1:
            # A step uses one of the earlier heads only.
            model = DistributedDataParallel(model, find_unused_parameters=True)
        meter, log = Meter(), TrainingLog(self._out, self._processes.first)
        saved = time.monotonic()
        if self._step == 0:
            self._run_validation(log)
        while (fraction := self._fraction_done()) < 1 and not self._ended_early():
            started = time.monotonic()
            values = self._train_step(model, fraction)
            self._step += 1
            self._seconds += time.monotonic() - started
            meter.add(values, self._config.optimizer.batch, time.monotonic() - started)
            if self._step % self._config.schedule.log_every == 0:
                self._log(meter, log)
                meter = Meter()
            if self._step % self._config.schedule.validate_every == 0:
                self._run_validation(log)
            if self._processes.agreed(float(self._stopped())) > 0:
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
    def _averaged(self) -> MatcherNetwork:
        network = self._average.module
        assert isinstance(network, MatcherNetwork)
        return network

    def _train_step(self, model: nn.Module, fraction: float) -> dict[str, float]:
        settings, processes = self._config.optimizer, self._processes
        step = 0 if self._overfit else self._step
        share = settings.batch // processes.count
        numbers = range(processes.rank * share, (processes.rank + 1) * share)
        batch = self._sampler.batch(step, numbers, settings.batch)
        self._model.train()
        # The layer of the earlier loss changes also when the batch does not.
        losses: dict[str, Tensor] = model(batch, self._step)
        total = losses["total"].mean()
        if not torch.isfinite(total):
            raise TrainingError(
                f"the loss of the matcher is not finite at step {self._step}: lower "
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
        values = dict(zip([*losses, "gradient_norm"], processes.mean(means), strict=True))
        return values | {"learning_rate": rate}

    def _log(self, meter: Meter, log: TrainingLog) -> None:
        means = meter.means()
        found, predicted, true = (means.pop(name) for name in ("found", "predicted", "true"))
        means |= {"recall": found / max(true, 1e-9), "precision": found / max(predicted, 1e-9)}
        fraction = max(self._fraction_done(), 1e-9)
        progress = Progress(
            STAGE,
            self._step,
            self._config.optimizer.steps,
            min(fraction, 1.0),
            means,
            meter.images_per_second(),
            self._seconds * (1 - fraction) / fraction,
            self._metrics,
        )
        log.write(self._seconds, progress)
        if self._processes.first:
            self._report(progress)

    def _fraction_done(self) -> float:
        minutes = self._config.schedule.minutes
        fraction = self._step / self._config.optimizer.steps
        if minutes is None:
            return fraction
        return self._processes.agreed(max(fraction, self._seconds / 60 / minutes))

    def _ended_early(self) -> bool:
        schedule = self._config.schedule
        if self._misses >= schedule.patience:
            return True
        minutes = schedule.stop_minutes
        return minutes is not None and self._processes.agreed(self._seconds / 60) >= minutes

    def _run_validation(self, log: TrainingLog) -> None:
        if self._processes.first:
            self._metrics = self._validate(self._averaged)
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
                "stage": STAGE,
                "origin": self._origin,
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
        state = read_checkpoint(path)
        changed = settings_that_differ(
            state.get("config", ""), self._config.model_dump(mode="json")
        )
        if state.get("stage") != STAGE or state.get("origin") != self._origin:
            changed.append(f"features of {state.get('origin')} instead of {self._origin}")
        if changed:
            raise TrainingError(
                f"{self._out} holds a training with other settings ({', '.join(changed)}): "
                "give another --out, or the same settings"
            )
        try:
            self._step, self._seconds = state["step"], state["seconds"]
            self._misses = state["misses"]
            self._metrics, self._best_metrics = state["metrics"], state["best_metrics"]
            self._model.network.load_state_dict(state["network"])
            self._averaged.load_state_dict(state["average"])
            self._best.load_state_dict(state["best"])
            self._optimizer.load_state_dict(state["optimizer"])
            set_averaged_steps(self._average, self._step)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TrainingError(
                f"{path} does not fit this training ({' '.join(str(error).split())[:200]}): "
                "remove it to start again"
            ) from None
        _logger.info("%s: resumed at step %d", self._out, self._step)

    def _result(self, finished: bool) -> MatcherResult:
        return MatcherResult(
            self._best if self._best_metrics else self._averaged,
            self._best_metrics or self._metrics,
            self._step,
            self._step * self._config.optimizer.batch,
            self._seconds / 60,
            finished,
        )


def _embed(network: MatcherNetwork, view: ViewBatch) -> ImageState:
    return network.embed(view.positions, view.descriptors, view.exist)
