"""The command that writes networks for OpenVINO, `spslam export`, which `spslam.cli` adds."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class ExportPrecision(StrEnum):
    """Values of `--precision`."""

    FP32 = "fp32"
    INT8 = "int8"


def export(
    weights: Annotated[
        Path,
        typer.Argument(metavar="WEIGHTS", show_default=False, help="A weights file, or one of the box by its name."),
    ],
    precision: Annotated[ExportPrecision, typer.Option(help="Arithmetic of the model.")] = ExportPrecision.INT8,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Photographs such as the network will meet: int8 needs some hundred. Those that a training holds out "
            "are left out.",
        ),
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Most photographs to use, evenly spread.")] = 240,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="A .zip file of model.xml and model.bin. Default for int8: beside the weights, where runs look.",
        ),
    ] = None,
) -> None:
    """Write the OpenVINO model of weights, so that they run in int8 on CPUs.

    \b
    spslam export walk.safetensors --precision int8 --images PHOTOS
    spslam run walk.mp4 --weights walk.safetensors
    """
    from spslam.frontend.export import export_model
    from spslam.frontend.training.config import TrainingConfig
    from spslam.frontend.training.photos import find_photos, held_out

    photos: list[Path] = []
    if images is not None:
        photos, _ = held_out(find_photos(images), TrainingConfig().holdout, TrainingConfig().seed)
    path = export_model(weights, out, precision.value, photos, count)
    typer.echo(f"{precision.value} model in {path}")
