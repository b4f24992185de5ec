"""The commands that measure networks: `spslam train evaluate` and `spslam train speed`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from spslam.cli.options import Device, DeviceOption, set_option
from spslam.cli.training.options import (
    AllPhotosOption,
    EstimatorName,
    JsonOption,
    LimitOption,
    ScenesOption,
    WarpedPhotosOption,
)
from spslam.cli.training.posed_frames import posed_frames
from spslam.io.markdown import format_head, format_row
from spslam.notices import counted

# Minimum of held-out photographs; with fewer, all photographs of the folder are used.
_FEWEST_PHOTOS = 10
# Training configurations whose networks `speed` times by default.
_TIMED = ("shapes", "shapes_half", "shapes_full")

_logger = logging.getLogger(__name__)


def evaluate(
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="superpoint (default), orb, sift, a plug-in's; repeatable.",
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|NAME",
            show_default=False,
            help="Weights for superpoint, FILE or NAME; repeatable.",
        ),
    ] = None,
    photos: WarpedPhotosOption = None,
    all_photos: AllPhotosOption = False,
    homography: ScenesOption = None,
    pose: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            show_default=False,
            help="A sequence with ground truth: relative poses, 1 and 5 frames apart.",
        ),
    ] = None,
    shapes: Annotated[bool, typer.Option("--shapes", help="Corners of synthetic shapes.")] = False,
    limit: LimitOption = 70,
    overrides: Annotated[
        list[str] | None,
        set_option("Change the extraction, such as features.subpixel=false."),
    ] = None,
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Cache of drawn shapes.")] = Path(
        "runs/training/shapes"
    ),
    estimator: Annotated[
        EstimatorName,
        typer.Option(
            help="Estimator of homographies: ransac, as in published results, keeps the error of "
            "four points; magsac fits all inliers."
        ),
    ] = EstimatorName.RANSAC,
    json_file: JsonOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", show_default=False, help="Plot the metrics of homographies."),
    ] = None,
) -> None:
    """Compare front ends: repeatability, localisation, matching, homographies, relative poses.

    \b
    spslam train evaluate --extractor superpoint --extractor orb --photos DIR --json metrics.json
    spslam train evaluate --homography DIR --plot homographies.png
    """
    from spslam.frontend.training.evaluation import evaluate as evaluation
    from spslam.frontend.training.evaluation.shapes_evaluation import evaluation_shapes

    if photos is None and homography is None and pose is None and not shapes:
        raise typer.BadParameter(
            "nothing to evaluate on: give --photos, --homography, --pose or --shapes"
        )
    data = evaluation.EvaluationData(
        photos=_unseen(photos, all_photos) if photos else (),
        limit=limit,
        homography=homography,
        shapes=evaluation_shapes(cache) if shapes else None,
        estimator=estimator.value,
        frames=list(posed_frames(pose)) if pose else None,
    )
    settings = _feature_settings(overrides)
    files: list[Path | None] = [*weights] if weights else [None]
    judged = [
        (name, file)
        for name in extractor or ["superpoint"]
        for file in (files if name == "superpoint" else [None])
    ]
    results = [evaluation.evaluate_extractor(name, data, file, settings) for name, file in judged]
    typer.echo(evaluation.markdown_table(results))
    if json_file is not None:
        evaluation.write_json(results, json_file)
    if plot is not None:
        evaluation.plot(results, plot)


def speed(
    configs: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            metavar="NAME|FILE",
            show_default=False,
            help="Networks to time; repeatable.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, max=4096, help="Images at once.")] = 8,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Time the forward and backward passes of networks on random images, without optimiser."""
    from spslam.frontend.training.config import load_training_config
    from spslam.frontend.training.precision import Precision, has_bf16
    from spslam.frontend.training.processes import Processes
    from spslam.frontend.training.speed import measure_speed

    where = Processes.from_environment(device.value).device
    precisions: list[Precision] = ["fp32", "bf16"] if has_bf16(where.type) else ["fp32"]
    heads = [
        "network",
        "parameters",
        "size",
        "precision",
        "training images/s",
        "inference images/s",
    ]
    typer.echo(format_head(heads, align="lrllrr"))
    for name in configs or _TIMED:
        network = load_training_config(name).network
        for size in ((120, 160), (240, 320)):
            for precision in precisions:
                found = measure_speed(name, network, size, batch, where, precision)
                shape = f"{size[0]}x{size[1]}"
                speeds = [f"{found.train:.1f}", f"{found.infer:.1f}"]
                typer.echo(format_row([name, f"{found.parameters:,}", shape, precision, *speeds]))


def _unseen(folder: Path, take_all: bool) -> list[Path]:
    """Return the photographs of a folder that a training with default settings holds out."""
    from spslam.frontend.photos import find_photos, held_out
    from spslam.frontend.training.config import TrainingConfig

    paths = find_photos(folder)
    if take_all:
        return paths
    _, unseen = held_out(paths, TrainingConfig().holdout, TrainingConfig().seed)
    if len(unseen) >= _FEWEST_PHOTOS:
        return unseen
    _logger.warning(
        "%s: only %s held out of training, so all %d are used",
        folder,
        counted(len(unseen), "photo is", "photos are"),
        len(paths),
    )
    return paths


def _feature_settings(overrides: list[str] | None) -> dict[str, Any]:
    """Check the overrides and return the changed values of features."""
    from spslam.config import load_config

    features = load_config("default", overrides).features.model_dump()
    names = [text.partition("=")[0].strip() for text in overrides or []]
    foreign = [name for name in names if not name.startswith("features.")]
    if foreign:
        raise typer.BadParameter(
            f"expected features.KEY=VALUE, found {foreign[0]}", param_hint="--set"
        )
    return {
        name.removeprefix("features."): features[name.removeprefix("features.")] for name in names
    }
