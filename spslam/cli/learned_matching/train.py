"""The command `spslam train matcher`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from spslam.cli.console import StatusLine
from spslam.cli.learned_matching.worlds import open_world
from spslam.cli.options import INTERRUPTED, Device, DeviceOption
from spslam.errors import TrainingStoppedError
from spslam.notices import counted
from spslam.process.signals import interrupt_as_flag

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
    photos: Annotated[
        Path,
        typer.Option(
            metavar="DIR", show_default=False, help="Folder of photographs, with its subfolders."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Folder of checkpoints, logs and weights; a training in this folder is resumed.",
        ),
    ],
    views: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Folder of the extracted features, for several trainings; default: in --out.",
        ),
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="Configuration: superpoint_lite, superpoint, or a YAML file."
        ),
    ] = "superpoint_lite",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            show_default=False,
            help="Change one value of the configuration, for example network.layers=4; may be "
            "repeated.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            min=0.01,
            show_default=False,
            help="End the schedule after at most M minutes of training.",
        ),
    ] = None,
    device: DeviceOption = Device.AUTO,
    overfit: Annotated[
        bool, typer.Option(help="Train with the first batch only: a test, its loss must fall to 0.")
    ] = False,
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
    torchrun --nproc-per-node 2 -m spslam train matcher …

    Extracts features of warped photographs and of rendered worlds once; a step then costs the
    matcher only.
    """
    from spslam.frontend.learned_matching.configuration import load_matcher_config
    from spslam.frontend.learned_matching.run import MatcherInputs, train_matcher
    from spslam.frontend.training.processes import Processes

    given = [] if minutes is None else [f"schedule.minutes={minutes}"]
    settings = load_matcher_config(config, [*(overrides or []), *given])
    if show_config:
        typer.echo(settings.to_yaml(), nl=False)
        return
    processes = Processes.from_environment(device.value)
    command = shlex.join(["spslam", *sys.argv[1:]])
    inputs = MatcherInputs(
        photos, out, views, overfit, (command,), name or f"matcher of {settings.views.weights}"
    )
    with interrupt_as_flag() as interrupted, StatusLine(quiet=not processes.first) as line:
        try:
            weights, result = train_matcher(
                settings,
                inputs,
                open_world,
                processes,
                line.update,
                line.count,
                interrupted.is_set,
            )
        except TrainingStoppedError as stop:
            typer.echo(str(stop), err=True)
            raise typer.Exit(INTERRUPTED) from None
    if not processes.first:
        return
    figures = ", ".join(
        f"{key} {result.metrics[key]:.3f}" for key in _SHOWN if key in result.metrics
    )
    typer.echo(
        f"matcher: {counted(result.steps, 'step')}, {counted(result.examples, 'pair')}, "
        f"{result.minutes:.1f} min; validation: {figures}"
    )
    typer.echo(f"weights in {weights}")
    if not result.finished:
        typer.echo("stopped early: the same command resumes")
        raise typer.Exit(INTERRUPTED)
