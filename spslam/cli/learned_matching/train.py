"""The command `spslam train matcher`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam.cli.learned_matching.worlds import open_world
from spslam.cli.options import Device, DeviceOption
from spslam.cli.training.options import (
    MinutesOption,
    OutOption,
    OverfitOption,
    PhotosOption,
    SetOption,
    with_minutes,
)
from spslam.cli.training.running import command_line, run_training
from spslam.notices import counted

if TYPE_CHECKING:
    from spslam.frontend.training.loop.training_loop import TrainingResult

# Metrics of the last line, in this order, where they are there.
_SHOWN = (
    "photos_auc_3",
    "photos_precision",
    "photos_recall",
    "worlds_auc_10",
    "worlds_precision",
    "worlds_recall",
)


def matcher(
    context: typer.Context,
    photos: PhotosOption,
    out: OutOption,
    views: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Folder of the extracted features, for several trainings; default: in --out.",
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|NAME",
            show_default=False,
            help="Weights of a matcher to start from; default: nearest neighbours.",
        ),
    ] = None,
    maps: Annotated[
        list[Path] | None,
        typer.Option(
            "--map",
            metavar="FILE",
            show_default=False,
            help="Saved map whose keyframes are trained with, too; repeatable.",
        ),
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="Configuration: superpoint_lite, superpoint, or a YAML file."
        ),
    ] = "superpoint_lite",
    overrides: SetOption = None,
    minutes: MinutesOption = None,
    device: DeviceOption = Device.AUTO,
    overfit: OverfitOption = False,
    name: Annotated[str | None, typer.Option(help="Name of the matcher, for its card.")] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print all settings; do not train.")
    ] = False,
) -> None:
    """Train a matcher for the features of a network; the same command resumes an interrupted one.

    \b
    spslam train matcher --photos DIR --out runs/matcher
    spslam train matcher --photos DIR --out runs/m4 --views runs/matcher/views \\
        --set network.layers=4
    spslam train matcher --photos DIR --out runs/more --initial runs/matcher/matcher.safetensors
    torchrun --nproc-per-node 2 -m spslam train matcher …

    Extracts features of warped photographs and of rendered worlds once; a step then costs the
    matcher only. Saved maps need no extraction: they hold features, poses and points.
    """
    from spslam.cli.learned_matching.map_views import read_map_groups
    from spslam.frontend.learned_matching.training.configuration import load_matcher_config
    from spslam.frontend.learned_matching.training.run import MatcherInputs, train_matcher

    settings = load_matcher_config(config, with_minutes(overrides, minutes))
    if show_config:
        typer.echo(settings.to_yaml(), nl=False)
        return
    inputs = MatcherInputs(
        photos,
        out,
        views,
        initial,
        partial(read_map_groups, maps) if maps else None,
        overfit,
        (command_line(context),),
        name or f"matcher of {settings.views.weights}",
    )
    run_training(
        device,
        lambda processes, line, stopped: train_matcher(
            settings, inputs, open_world, processes, line.update, line.count, stopped
        ),
        _summary,
    )


def retrain_matcher(
    context: typer.Context, weights: Path, former: Path | None, minutes: float, device: Device
) -> None:
    """Train the matcher of adapted weights, and print the result; see `adapt_matcher`."""
    from spslam.frontend.learned_matching.training.adapting import adapt_matcher

    run_training(
        device,
        lambda processes, line, stopped: adapt_matcher(
            weights, former, minutes, open_world, processes, line, stopped, (command_line(context),)
        ),
        _summary,
    )


def _summary(result: TrainingResult[Any]) -> str:
    figures = ", ".join(
        f"{key} {result.metrics[key]:.3f}" for key in _SHOWN if key in result.metrics
    )
    return (
        f"matcher: {counted(result.steps, 'step')}, {counted(result.examples, 'pair')}, "
        f"{result.minutes:.1f} min; validation: {figures}"
    )
