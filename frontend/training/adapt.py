"""Adapt weights to images of one kind: label, train, evaluate before and after, write a report.

This is the published recipe (DeTone, Malisiewicz, Rabinovich: SuperPoint, 2018, section 5). It
starts from trained weights instead of synthetic shapes, and keeps to a given time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from spslam.callbacks import never
from spslam.errors import WeightsError
from spslam.notices import counted

from ..photos import find_photos
from ..superpoint.checkpoints import find_weights, load_superpoint, read_codebook
from ..superpoint.superpoint import SuperPoint
from ..superpoint.weights_file import Card, export_weights, fold_batch_norm, read_card
from .adaptation.evaluation import evaluate_weights, read_evaluation, verdict
from .adaptation.labels import LabelPlan, label_photos, label_plan, read_plan
from .adaptation.session import AdaptationFiles, Reporter, Session, SilentReporter, StoppedError
from .config import TrainingConfig
from .data.adapt_images import DomainImages, NamedImages, gather_images
from .evaluation.adapt_report import AdaptationReport, write_report
from .inputs import StageInputs
from .loop.progress import LOG
from .loop.training_loop import TrainingResult
from .processes import Processes
from .run import run_stage

__all__ = ["Adaptation", "Reporter", "adapt"]

_logger = logging.getLogger(__name__)

# Suffix of weights files.
_SUFFIX = ".safetensors"
# Number of training images below which a warning is logged.
_FEW_IMAGES = 300
# Smallest fraction of the given minutes for training, even if labelling took longer than planned.
_LEAST_TRAINING_FRACTION = 0.3


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
    files = AdaptationFiles(Path(out))
    _check_out(files, weights)
    minutes = config.schedule.minutes if minutes is None else minutes
    init = find_weights(weights)
    # Refuse weights that cannot be exported before the training, not after it.
    fold_batch_norm(load_superpoint(init))
    reported = reporter if reporter is not None and processes.first else SilentReporter()
    run = Session(files, init, config, processes, reported, stopped or never)
    try:
        return _adapt(run, images, minutes, most_images, created, commands)
    except StoppedError:
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
    run: Session,
    images: NamedImages,
    minutes: float | None,
    most_images: int,
    created: date | None,
    commands: tuple[str, ...],
) -> Adaptation:
    files, processes = run.files, run.processes
    domain = _gather(run, images, most_images)
    if processes.first:
        evaluate_weights(run, "before", run.init, domain.held_out)
    run.check_together()
    mean_labels = label_photos(run, domain, label_plan(run, domain, minutes))
    plan = read_plan(files.plan)
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
        raise StoppedError
    if processes.first:
        evaluation = evaluate_weights(run, "after", trained, domain.held_out)
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


def _result(files: AdaptationFiles) -> Adaptation:
    found = read_evaluation(files.evaluation)
    before, after = found["before"]["photos"], found["after"]["photos"]
    improved, summary = verdict(before, after)
    return Adaptation(files.weights, files.report, before, after, improved, True, summary)


def _check_out(files: AdaptationFiles, weights: Path | None) -> None:
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


def _gather(run: Session, images: NamedImages, most_images: int) -> DomainImages:
    folder = run.files.images
    domain = DomainImages(folder, 0)

    def seen(count: int) -> None:
        run.check()
        run.reporter.say(f"reading images: {count}")

    if run.processes.first:
        with suppress(StoppedError):
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


def _export(
    files: AdaptationFiles, trained: Path, init: Path, plan: LabelPlan, evaluation: dict[str, Any]
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
    run: Session,
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
