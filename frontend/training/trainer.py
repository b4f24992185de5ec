"""The training loop: one stage, one process or several, resumed where it was stopped."""

from __future__ import annotations

import copy
import io
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from spslam.errors import TrainingError, WeightsError
from spslam.io.files import write_atomic

from ..superpoint.pickled_tensors import PickledFile
from ..superpoint.superpoint import SuperPoint
from .config import OptimizerConfig, TrainingConfig
from .data.dataset import Batch, Source, step_batch
from .losses.losses import build_loss
from .precision import autocast

Stage = Literal["shapes", "detector", "joint", "distil"]
# What a validation measures; `metric` is the one that decides, more is better.
Validation = Callable[[SuperPoint], dict[str, float]]

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
LOG = "log.jsonl"
# Keys of the configuration that may differ when training goes on: none changes what a step does.
_FREE_KEYS = ("schedule",)

# The others wait while the first draws shapes, reads a long video or validates.
_PATIENCE = timedelta(hours=12)

_logger = logging.getLogger(__name__)


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
            raise TrainingError("the device is cuda, but PyTorch finds no CUDA device: use cpu or auto")
        cuda = device != "cpu" and torch.cuda.is_available()
        count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
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


@dataclass(frozen=True)
class TrainingResult:
    """What a stage ended with.

    Attributes:
        network: averaged weights of the best validation, in evaluation mode, batch norm not folded.
        metrics: of that validation.
        steps: done.
        images: trained with.
        minutes: of training, all sessions together.
        finished: False: it was stopped and can go on.
    """

    network: SuperPoint
    metrics: dict[str, float]
    steps: int
    images: int
    minutes: float
    finished: bool


class StageModel(nn.Module):
    """The network as a stage trains it: a batch in, predictions out."""

    def __init__(self, network: SuperPoint, stage: Stage) -> None:
        super().__init__()
        self.network = network
        self.stage = stage
        if stage in ("shapes", "detector"):
            for layer in (network.convDa, network.convDb):
                layer.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if self.stage in ("shapes", "detector"):
            return {"logits": self.network.detector_logits(_channels_last(batch["image"]))}
        if self.stage == "distil":
            logits, descriptors = self.network(_channels_last(batch["image"]))
            return {"logits": logits, "descriptors": descriptors}
        # Both views at once: batch norm sees them together.
        logits, descriptors = self.network(_channels_last(torch.cat([batch["image0"], batch["image1"]])))
        (logits0, logits1), (descriptors0, descriptors1) = logits.chunk(2), descriptors.chunk(2)
        return {"logits0": logits0, "logits1": logits1, "descriptors0": descriptors0, "descriptors1": descriptors1}


class Trainer:
    """Trains one stage.

    Args:
        stage: decides predictions and loss.
        config: everything else; written beside the results.
        network: to start from; changed.
        source: of the images.
        validate: measures the averaged weights now and then, in the first process.
        out: folder of checkpoints and logs; what is there is resumed.
        processes: this process among those that train together.
        overfit: the first batch again and again, for a check of the loop.
        report: called after every `schedule.log_every` steps in the first process.
        stopped: asked after every step; True writes a checkpoint and ends.

    Raises:
        TrainingError: `out` holds another stage or another configuration, or the batch cannot be shared.
    """

    def __init__(
        self,
        stage: Stage,
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
        self._stage, self._config, self._source, self._validate, self._out = stage, config, source, validate, out
        self._processes = processes or Processes()
        self._overfit = overfit
        self._report, self._stopped = report or (lambda progress: None), stopped or (lambda: False)
        blocks = config.optimizer.batch // config.optimizer.block
        if blocks % self._processes.count:
            raise TrainingError(
                f"{self._processes.count} processes cannot share a step of {blocks} blocks: make optimizer.batch a "
                f"multiple of {self._processes.count * config.optimizer.block}"
            )
        device = self._processes.device
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._processes.count > 1 and device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self._model = StageModel(network, stage)
        self._average = copy.deepcopy(self._model.network).eval().requires_grad_(False)
        self._best = copy.deepcopy(self._average)
        self._optimizer = _optimizer(self._model, config.optimizer)
        self._tie_breaking = torch.Generator(device)
        self._loss = build_loss(config.loss, stage, network.sampling, self._tie_breaking, config.optimizer.block)
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
        meter, log = _Meter(), _Log(self._out, self._processes.first)
        saved = time.monotonic()
        if self._step == 0:
            # The weights to start from are in the running, too: a training never returns worse ones.
            self._run_validation(log)
        while (share := self._share()) < 1 and self._misses < self._config.schedule.patience:
            started = time.monotonic()
            losses = self._train_step(model, share)
            self._step += 1
            self._seconds += time.monotonic() - started
            meter.add(losses, self._images_per_step, time.monotonic() - started)
            if self._step % self._config.schedule.log_every == 0:
                progress = self._progress(meter)
                log.write(self._seconds, progress)
                if self._processes.first:
                    self._report(progress)
                meter = _Meter()
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
    def _images_per_step(self) -> int:
        return self._config.optimizer.batch * (2 if self._stage == "joint" else 1)

    def _train_step(self, model: nn.Module, share: float) -> dict[str, float]:
        settings, processes = self._config.optimizer, self._processes
        number = 0 if self._overfit else self._step
        batch = step_batch(self._source, self._config, number, processes.device, processes.rank, processes.count)
        self._tie_breaking.manual_seed(number * processes.count + processes.rank)
        self._model.train()
        with autocast(processes.device, settings.precision):
            predictions = model(batch)
        losses = self._loss(predictions, batch)
        total = losses["total"].mean()
        if not torch.isfinite(total):
            raise TrainingError(
                f"stage {self._stage}: the loss is not finite at step {self._step}: lower optimizer.learning_rate; "
                f"the last checkpoint is in {self._out}"
            )
        rate = self._learning_rate(share)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), settings.clip_norm)
        self._optimizer.step()
        _average_into(self._average, self._model.network, min(settings.ema, (1 + self._step) / (10 + self._step)))
        means = torch.stack([*(value.detach().mean() for value in losses.values()), norm.detach()])
        values = dict(zip([*losses, "gradient_norm"], self._processes.mean(means), strict=True))
        return values | {"learning_rate": rate}

    def _share(self) -> float:
        """How much of the schedule is done."""
        minutes = self._config.schedule.minutes
        share = self._step / self._config.optimizer.steps
        return share if minutes is None else self._processes.agreed(max(share, self._seconds / 60 / minutes))

    def _learning_rate(self, share: float) -> float:
        settings = self._config.optimizer
        warm = min(1.0, (self._step + 1) / settings.warmup) if settings.warmup else 1.0
        cosine = 0.5 * (1 + math.cos(math.pi * min(share, 1)))
        return settings.learning_rate * warm * (settings.final_share + (1 - settings.final_share) * cosine)

    def _interrupted(self) -> bool:
        return self._processes.agreed(float(self._stopped())) > 0

    def _progress(self, meter: _Meter) -> Progress:
        share = max(self._share(), 1e-9)
        left = self._seconds * (1 - share) / share
        return Progress(
            self._stage,
            self._step,
            self._config.optimizer.steps,
            min(share, 1.0),
            meter.means(),
            meter.images_per_second(),
            left,
            self._metrics,
        )

    def _run_validation(self, log: _Log) -> None:
        if self._processes.first:
            threads = torch.get_num_threads()
            self._metrics = self._validate(self._average)
            # An engine takes all cores; processes that share them would wait for this one ever after.
            torch.set_num_threads(threads)
            log.validation(self._step, self._metrics)
        metric = self._processes.agreed(self._metrics.get("metric", 0.0))
        if not self._best_metrics or metric > self._best_metrics["metric"]:
            self._best_metrics = dict(self._metrics) if self._processes.first else {"metric": metric}
            self._best.load_state_dict(self._average.state_dict())
            self._misses = 0
            if self._processes.first:
                _write(self._out / BEST, {"network": self._best.state_dict(), "metrics": self._best_metrics})
        else:
            self._misses += 1

    def _save(self) -> None:
        if not self._processes.first:
            return
        _write(
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
                "average": self._average.state_dict(),
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
        # To the CPU: AdamW counts its steps there, and on a GPU each step would wait for the count.
        state = read_checkpoint(path)
        changed = _differences(state.get("config", ""), self._config)
        if state.get("stage") != self._stage or changed:
            what = ", ".join(changed) or f"stage {state.get('stage')} instead of {self._stage}"
            raise TrainingError(
                f"{self._out} holds a training with other settings ({what}): give another --out, or go on with the same"
            )
        try:
            self._step, self._seconds, self._misses = state["step"], state["seconds"], state["misses"]
            self._metrics, self._best_metrics = state["metrics"], state["best_metrics"]
            for module, key in ((self._model.network, "network"), (self._average, "average"), (self._best, "best")):
                module.load_state_dict(state[key])
            self._optimizer.load_state_dict(state["optimizer"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TrainingError(
                f"{path} does not fit this training ({' '.join(str(error).split())[:200]}): remove it to start anew"
            ) from None
        _logger.info("%s: goes on at step %d", self._out, self._step)

    def _result(self, finished: bool) -> TrainingResult:
        network = self._best if self._best_metrics else self._average
        return TrainingResult(
            network,
            self._best_metrics or self._metrics,
            self._step,
            self._step * self._images_per_step,
            self._seconds / 60,
            finished,
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training checkpoint; nothing but tensors and plain values is unpickled.

    Raises:
        TrainingError: the file is missing, damaged or no checkpoint.
    """
    try:
        # Its sizes and checksums, which PyTorch does not look at.
        PickledFile(path).check()
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"no checkpoint at {path}") from None
    except WeightsError as error:
        if not path.exists():
            raise TrainingError(f"no checkpoint at {path}") from None
        raise TrainingError(f"{path} is no readable checkpoint ({error}): remove it to start anew") from None
    except Exception as error:
        # Bytes of another kind make the unpickler fail in any way.
        raise TrainingError(
            f"{path} is no readable checkpoint ({type(error).__name__}): remove it to start anew"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("network"), dict):
        raise TrainingError(f"{path} is no training checkpoint: expected the weights of a network in it")
    for name in ("network", "average", "best"):
        for key, value in (state.get(name) or {}).items():
            if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_meta:
                raise TrainingError(f"{path}: {name}.{key} is no dense tensor: remove the file to start anew")
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise TrainingError(f"{path}: {name}.{key} holds numbers that are NaN or infinite: start anew")
    return state


def _write(path: Path, state: Mapping[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, buffer.getvalue())


def _differences(written: str, config: TrainingConfig) -> list[str]:
    """Keys whose values differ between a written configuration and this one."""
    before, now = yaml.safe_load(written) or {}, config.model_dump(mode="json")
    return sorted(
        f"{part}.{key}" if key else part
        for part in {*before, *now} - set(_FREE_KEYS)
        for key in _differing(before.get(part), now.get(part))
    )


def _differing(before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [key for key in {*before, *now} if before.get(key) != now.get(key)]
    return [] if before == now else [""]


def _optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW; biases and batch norms do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


@torch.no_grad()
def _average_into(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of weights and of batch norm's statistics."""
    new = network.state_dict()
    for name, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(new[name], 1 - decay)
        else:
            value.copy_(new[name])


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


class _Meter:
    """Means of what happened since it was made."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count, self._images, self._seconds = 0, 0, 0.0

    def add(self, values: dict[str, float], images: int, seconds: float) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count, self._images, self._seconds = self._count + 1, self._images + images, self._seconds + seconds

    def means(self) -> dict[str, float]:
        return {name: value / self._count for name, value in self._sums.items()}

    def images_per_second(self) -> float:
        return self._images / max(self._seconds, 1e-9)


class _Log:
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
