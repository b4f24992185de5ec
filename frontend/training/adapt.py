"""Adapt weights to images of one kind: label, train, evaluate before and after, write a report.

This is the published recipe (DeTone, Malisiewicz, Rabinovich: SuperPoint, 2018, section 5). It
starts from trained weights instead of synthetic shapes, and keeps to a given time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from pydantic import JsonValue

from spslam.callbacks import never
from spslam.errors import TrainingError, WeightsError
from spslam.io.files import temporary_folder, write_atomic
from spslam.io.structured_text import parse_json
from spslam.notices import counted

from ..photos import evenly_spread, find_photos
from ..superpoint.checkpoints import find_weights, load_superpoint, read_codebook
from ..superpoint.superpoint import SuperPoint
from ..superpoint.weights_file import Card, export_weights, fold_batch_norm, read_card
from .config import TrainingConfig
from .data.adapt_images import DomainImages, NamedImages, gather_images
from .data.labelling import LabelSummary, label_images
from .evaluation.adapt_report import AdaptationReport, write_report
from .evaluation.evaluate import EvaluationData, evaluate_extractor
from .evaluation.homography_metrics import METRICS
from .inputs import StageInputs
from .loop.progress import LOG, Progress
from .loop.training_loop import TrainingResult
from .processes import Processes
from .run import run_stage

__all__ = ["Adaptation", "Reporter", "adapt"]

_logger = logging.getLogger(__name__)

# Suffix of weights files.
_SUFFIX = ".safetensors"
# Number of training images below which a warning is logged.
_FEW_IMAGES = 300
# Fraction of the given minutes for labelling; training gets the rest.
_LABEL_FRACTION = 0.35
# Smallest fraction of the given minutes for training, even if labelling took longer than planned.
_LEAST_TRAINING_FRACTION = 0.3
# Fewest warps averaged for one image, and fewest images labelled.
_LEAST_WARPS = 8
# Images labelled to measure the speed; the first one only warms up.
_MEASURED_IMAGES = 3
# Pairs of views that the evaluation aims at, and most held-out images that it uses.
_PAIRS = 60
# Most random views of each image that reach this number of pairs.
_MOST_VIEWS = 6


class Reporter(Protocol):
    """Receives the progress of an adaptation."""

    def say(self, text: str) -> None:
        """Show the current activity."""

    def count(self, done: int, total: int) -> None:
        """Show the number of images labelled and of all images."""

    def update(self, progress: Progress) -> None:
        """Show the progress of the training."""


@dataclass(frozen=True)
class Adaptation:
    """The result of `adapt`.

    Attributes:
        weights: the new weights file; it exists if `finished`.
        report: the page beside it; it exists if `finished`.
        before: metrics (`METRICS`) of the old weights on held-out images; empty unless `finished`.
        after: the same metrics of the new weights.
        improved: whether repeatability or matching score is better with the new weights.
        finished: False if the adaptation was stopped; the same call continues it.
        summary: one line for the user.
    """

    weights: Path
    report: Path
    before: dict[str, float | None]
    after: dict[str, float | None]
    improved: bool
    finished: bool
    summary: str


class _StoppedError(Exception):
    """The user stopped the adaptation."""


class _Silent:
    def say(self, text: str) -> None:
        pass

    def count(self, done: int, total: int) -> None:
        pass

    def update(self, progress: Progress) -> None:
        pass


@dataclass(frozen=True)
class _Files:
    """Paths of an adaptation's files and folders."""

    weights: Path

    @property
    def report(self) -> Path:
        return self.weights.with_suffix(".html")

    @property
    def folder(self) -> Path:
        return self.weights.with_name(f"{self.weights.stem}-adaptation")

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def labels(self) -> Path:
        return self.folder / "labels"

    @property
    def training(self) -> Path:
        return self.folder / "joint"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"


@dataclass(frozen=True)
class LabelPlan:
    """Number of images to label, warps of each, and the time that labelling has taken, seconds."""

    images: int
    homographies: int
    seconds: float = 0.0


@dataclass(frozen=True)
class _Run:
    """What every step of an adaptation needs."""

    files: _Files
    init: Path
    config: TrainingConfig
    processes: Processes
    reporter: Reporter
    stopped: Callable[[], bool]

    def check(self) -> None:
        """Raise _StoppedError if the user stopped the adaptation."""
        if self.stopped():
            raise _StoppedError

    def check_together(self) -> None:
        """Raise _StoppedError in all processes if the first one was stopped."""
        if self.processes.agreed(float(self.stopped())) > 0:
            raise _StoppedError

    def say(self, text: str) -> None:
        _logger.info("%s", text)
        self.reporter.say(text)


def adapt(
    images: NamedImages,
    out: Path,
    config: TrainingConfig,
    *,
    weights: Path | None = None,
    minutes: float | None = None,
    processes: Processes | None = None,
    most_images: int = 2000,
    reporter: Reporter | None = None,
    stopped: Callable[[], bool] | None = None,
    created: date | None = None,
    commands: tuple[str, ...] = (),
) -> Adaptation:
    """Adapt weights to the kind of images that are given.

    All intermediate files are kept in a folder beside `out` (its stem and `-adaptation`). The same
    call continues a stopped adaptation; with more minutes it trains longer.

    Args:
        images: name and (H, W) uint8 grey of each image, in the order of the sequence; only the
            first process reads them.
        out: weights file (.safetensors); its card (.md) and the report (.html) are written beside
            it.
        config: training configuration, usually the built-in `adapt`. `holdout` is the fraction of
            the images kept for validation and evaluation; `network` is not used.
        weights: initial weights, any file that `load_superpoint` reads; None: the built-in ones.
        minutes: approximate time for labelling and training; None: `schedule.minutes`. If that is
            None too, all warps and steps of the configuration are done. Evaluation takes one or two
            more minutes on a CPU.
        processes: the processes (torchrun) that share labelling and training. All must see the
            folder of `out`.
        most_images: most images used, evenly spread over those given.
        reporter: receives the progress, in the first process.
        stopped: called regularly; the adaptation ends when it returns True.
        created: date for the card.
        commands: commands that made the weights, for the card.

    Raises:
        DatasetError: too few images, or not the images of an earlier call.
        TrainingError: the folder was made with other settings.
        WeightsError: the weights cannot be read or exported, or `out` has another suffix or is in
            use.
        OutputError: files cannot be written.
    """
    processes = processes or Processes()
    files = _Files(Path(out))
    _check_out(files, weights)
    minutes = config.schedule.minutes if minutes is None else minutes
    init = find_weights(weights)
    # Refuse weights that cannot be exported before the training, not after it.
    fold_batch_norm(load_superpoint(init))
    reported = reporter if reporter is not None and processes.first else _Silent()
    run = _Run(files, init, config, processes, reported, stopped or never)
    try:
        return _adapt(run, images, minutes, most_images, created, commands)
    except _StoppedError:
        return Adaptation(
            files.weights,
            files.report,
            {},
            {},
            False,
            False,
            "stopped; run the same call to continue",
        )


def _adapt(
    run: _Run,
    images: NamedImages,
    minutes: float | None,
    most_images: int,
    created: date | None,
    commands: tuple[str, ...],
) -> Adaptation:
    files, processes = run.files, run.processes
    domain = _gather(run, images, most_images)
    if processes.first:
        _evaluated(run, "before", run.init, domain.held_out)
    run.check_together()
    mean_labels = _labelled(run, domain, _label_plan(run, domain, minutes))
    plan = _read_plan(files.plan)
    config = _training_config(run.config, plan, minutes)
    inputs = StageInputs(
        files.training,
        domain.train,
        files.labels,
        run.init,
        commands=commands,
        created=created,
        name=files.weights.stem,
        held_out=domain.validation,
    )
    run.say("training")
    trained, result = run_stage(
        "joint", config, inputs, processes, run.reporter.update, run.stopped
    )
    if not result.finished:
        raise _StoppedError
    if processes.first:
        evaluation = _evaluated(run, "after", trained, domain.held_out)
        card = _export(files, trained, run.init, plan, evaluation)
        run.say("report")
        facts = _facts(run, domain, plan, mean_labels, config, result)
        report = _report(config, evaluation, card, facts)
        write_report(
            files.report,
            report,
            run.init,
            files.weights,
            find_photos(domain.held_out),
            files.training / LOG,
        )
    processes.wait()
    return _result(files)


def _result(files: _Files) -> Adaptation:
    found = _read_evaluation(files.evaluation)
    before, after = found["before"]["photos"], found["after"]["photos"]
    improved, summary = verdict(before, after)
    return Adaptation(files.weights, files.report, before, after, improved, True, summary)


def verdict(before: dict[str, float | None], after: dict[str, float | None]) -> tuple[bool, str]:
    """Return whether repeatability or matching score improved, and a summary for the user."""
    changes = []
    better = []
    for key, name in (("repeatability", "repeatability"), ("matching_score", "matching score")):
        old, new = before.get(key) or 0.0, after.get(key) or 0.0
        changes.append(f"{name} {old:.3f} -> {new:.3f}")
        better.append(new > old)
    if all(better):
        words = "the new weights are better"
    elif any(better):
        words = "only one of them is better with the new weights"
    else:
        words = "the new weights are NOT better: keep the old ones, or give more images or minutes"
    return any(better), f"held-out images: {', '.join(changes)}; {words}"


def _check_out(files: _Files, weights: Path | None) -> None:
    out = files.weights
    if out.suffix != _SUFFIX:
        raise WeightsError(
            f"expected a {_SUFFIX} file for the weights, found {out.name}: choose such a name"
        )
    if weights is not None and weights.resolve() == out.resolve():
        raise WeightsError(
            f"{out} holds the weights to start from: give another file for the new weights"
        )
    if out.exists() and not files.folder.is_dir():
        raise WeightsError(
            f"{out} exists already and was not made by an adaptation: give another file"
        )


def _gather(run: _Run, images: NamedImages, most_images: int) -> DomainImages:
    folder = run.files.images
    domain = DomainImages(folder, 0)

    def seen(count: int) -> None:
        run.check()
        run.reporter.say(f"reading images: {count}")

    if run.processes.first:
        with suppress(_StoppedError):
            domain = gather_images(
                images, folder, run.config.labels.size, most_images, run.config.holdout, seen
            )
    run.check_together()
    count = len(find_photos(domain.train))
    if run.processes.first and count < _FEW_IMAGES:
        _logger.warning(
            "%d images to train with are few (%d or more are better): if the new weights are "
            "worse, give more images or stronger warps (data.homography)",
            count,
            _FEW_IMAGES,
        )
    return domain


def plan_labels(
    seconds_per_warp: float, images: int, homographies: int, seconds: float
) -> LabelPlan:
    """Plan the number of warps per image that fit in the time, at least 8, or use fewer images.

    Args:
        seconds_per_warp: time of one warp of one image, all processes together, seconds.
        images: number of images available.
        homographies: most warps per image.
        seconds: time for all labels, seconds.
    """
    warps = int(seconds / seconds_per_warp)
    each = min(max(warps // images, _LEAST_WARPS), homographies)
    return LabelPlan(max(min(images, warps // each), min(images, _LEAST_WARPS)), each)


def _label_plan(run: _Run, domain: DomainImages, minutes: float | None) -> LabelPlan:
    """Return the plan of an earlier call, or make one."""
    if run.processes.first and not run.files.plan.is_file():
        photos = find_photos(domain.train)
        full = run.config.labels.homographies
        if minutes is None:
            plan = LabelPlan(len(photos), full)
        else:
            run.say("measuring the labelling speed")
            each = _seconds_per_warp(run, photos) / run.processes.count
            plan = plan_labels(each, len(photos), full, 60 * minutes * _LABEL_FRACTION)
        _write_plan(run.files.plan, plan)
    run.processes.wait()
    return _read_plan(run.files.plan)


def _seconds_per_warp(run: _Run, photos: list[Path]) -> float:
    few = run.config.labels.model_copy(
        update={"homographies": min(run.config.labels.batch, run.config.labels.homographies)}
    )
    times: list[float] = []
    with temporary_folder() as folder:
        label_images(
            photos[:_MEASURED_IMAGES],
            photos[0].parent,
            folder,
            run.init,
            few,
            run.config.seed,
            device=str(run.processes.device),
            progress=lambda done, total: times.append(time.monotonic()),
        )
    # The first image is not timed: it warms up.
    return max((times[-1] - times[0]) / (len(times) - 1) / few.homographies, 1e-9)


def _read_plan(path: Path) -> LabelPlan:
    try:
        values = parse_json(path.read_text("utf-8"))
        return LabelPlan(
            int(values["images"]), int(values["homographies"]), float(values["seconds"])
        )
    except FileNotFoundError:
        raise TrainingError(
            f"expected a plan at {path}, found no file: all processes must see that folder"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise TrainingError(f"{path} is not the plan of an adaptation: remove its folder") from None


def _write_plan(path: Path, plan: LabelPlan) -> None:
    write_atomic(path, json.dumps(asdict(plan), indent=2) + "\n")


def _labelled(run: _Run, domain: DomainImages, plan: LabelPlan) -> float:
    """Label the images; return the mean number of labels per image of this process."""
    processes = run.processes
    summary = LabelSummary(0, 0, 0, 0.0)

    def progress(done: int, total: int) -> None:
        run.reporter.count(done, total)
        run.check()

    run.say(
        f"labelling {counted(plan.images, 'image')} with {counted(plan.homographies, 'warp')} each"
    )
    with suppress(_StoppedError), _timed(run, plan):
        summary = label_images(
            evenly_spread(find_photos(domain.train), plan.images, run.config.seed),
            domain.train,
            run.files.labels,
            run.init,
            run.config.labels.model_copy(update={"homographies": plan.homographies}),
            run.config.seed,
            device=str(processes.device),
            shard=(processes.rank, processes.count),
            progress=progress,
        )
    run.check_together()
    return summary.mean_labels


@contextmanager
def _timed(run: _Run, plan: LabelPlan) -> Iterator[None]:
    """Add the elapsed time to the plan, also if the block is interrupted."""
    start = time.monotonic()
    try:
        yield
    finally:
        if run.processes.first:
            seconds = plan.seconds + time.monotonic() - start
            _write_plan(run.files.plan, LabelPlan(plan.images, plan.homographies, seconds))


def _training_config(
    config: TrainingConfig, plan: LabelPlan, minutes: float | None
) -> TrainingConfig:
    labels = config.labels.model_copy(update={"homographies": plan.homographies})
    left = (
        None
        if minutes is None
        else max(minutes - plan.seconds / 60, _LEAST_TRAINING_FRACTION * minutes)
    )
    schedule = config.schedule.model_copy(update={"minutes": left})
    return config.model_copy(update={"labels": labels, "schedule": schedule})


def _evaluated(run: _Run, when: str, weights: Path, folder: Path) -> dict[str, Any]:
    """Return all metrics on the held-out images; measure those of `when` if the weights changed."""
    path = run.files.evaluation
    found: dict[str, Any] = _read_evaluation(path) if path.is_file() else {}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found.get(when, {}).get("weights_sha256") != digest:
        run.say(f"evaluation {when}")
        found[when] = {
            "weights_sha256": digest,
            **_metrics(weights, find_photos(folder), run.processes, when),
        }
        write_atomic(path, json.dumps(found, indent=2) + "\n")
    return found


def _read_evaluation(path: Path) -> dict[str, Any]:
    try:
        # Undefined metrics are NaN, which strict JSON does not allow: read them leniently.
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not (
            isinstance(found, dict) and all(isinstance(value, dict) for value in found.values())
        ):
            raise ValueError("values other than metrics")
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"cannot read metrics from {path} ({error}): remove it") from None
    return found


def _metrics(weights: Path, photos: list[Path], processes: Processes, label: str) -> dict[str, Any]:
    """Return mean metrics over one random view of each image, or several views of few images."""
    overrides = {} if processes.device.type == "cpu" else {"device": processes.device.type}
    views = min(math.ceil(_PAIRS / len(photos)), _MOST_VIEWS)
    results = [
        evaluate_extractor(
            "superpoint", EvaluationData(photos, _PAIRS, seed), weights, overrides, label
        )
        for seed in range(views)
    ]
    scores = {key: _mean([result["photos"][key] for result in results]) for key in METRICS}
    pairs = sum(result["pairs"]["photos"] for result in results)
    return {
        "images": len(photos),
        "pairs": pairs,
        "protocol": results[0]["protocol"],
        "photos": scores,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None


def _export(
    files: _Files, trained: Path, init: Path, plan: LabelPlan, evaluation: dict[str, Any]
) -> Card:
    """Write the weights; add the adaptation to their card."""
    card, began = read_card(trained), read_card(init)
    assert card is not None
    before, after = evaluation["before"]["photos"], evaluation["after"]["photos"]
    metrics: dict[str, JsonValue] = {"before": before, "after": after}
    _, summary = verdict(before, after)
    card = card.model_copy(
        update={
            "stages": (*card.stages[:-1], card.stages[-1].model_copy(update={"stage": "adapt"})),
            "training_data": {
                **(began.training_data if began else {}),
                files.weights.stem: plan.images,
            },
            "metrics": metrics,
            "notes": f"Adapted from {init.name}. {summary[0].upper()}{summary[1:]}. "
            f"{counted(evaluation['after']['images'], 'image')} in "
            f"{counted(evaluation['after']['pairs'], 'pair')}. "
            f"{evaluation['after']['protocol']}",
        }
    )
    export_weights(load_superpoint(trained), files.weights, card, read_codebook(trained))
    return card


def _facts(
    run: _Run,
    domain: DomainImages,
    plan: LabelPlan,
    mean_labels: float,
    config: TrainingConfig,
    result: TrainingResult[SuperPoint],
) -> dict[str, str]:
    """Describe settings and sizes for the report."""
    optimizer, minutes = config.optimizer, config.schedule.minutes
    height, width = config.labels.size
    allowed = "" if minutes is None else f" of {minutes:.1f}"
    return {
        "initial weights": run.init.name,
        "training images": f"{plan.images} of {domain.given} given, fitted to {height}×{width}",
        "validation images": f"{counted(len(find_photos(domain.validation)), 'other')} "
        "to choose the best weights",
        "labels": f"{counted(plan.homographies, 'warp')} per image, {mean_labels:.0f} points "
        f"per image, {plan.seconds / 60:.1f} min",
        "training": f"{counted(result.steps, 'step')} of {counted(optimizer.batch, 'pair')} "
        f"in {result.minutes:.1f}{allowed} min",
        "learning rate": f"{optimizer.learning_rate:g}, then a half cosine",
        "device": run.processes.device.type
        + (f", {run.processes.count} processes" if run.processes.count > 1 else ""),
    }


def _report(
    config: TrainingConfig, evaluation: dict[str, Any], card: Card, facts: dict[str, str]
) -> AdaptationReport:
    before, after = evaluation["before"]["photos"], evaluation["after"]["photos"]
    improved, summary = verdict(before, after)
    return AdaptationReport(
        title=card.name,
        improved=improved,
        summary=summary,
        before=before,
        after=after,
        images=evaluation["after"]["images"],
        pairs=evaluation["after"]["pairs"],
        protocol=evaluation["after"]["protocol"],
        facts=facts,
        settings=config.to_yaml(),
        commands=card.commands,
        created=card.created,
    )
