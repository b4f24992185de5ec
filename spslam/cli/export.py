"""The command that writes networks for other runtimes, `spslam export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spslam.cli.options import SetOption, resolve_config


class ExportFormat(StrEnum):
    """Values of `--to`."""

    OPENVINO = "openvino"
    ONNX = "onnx"


class ExportPrecision(StrEnum):
    """Values of `--precision`."""

    FP32 = "fp32"
    INT8 = "int8"


def export(
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            show_default=False,
            help="A weights file, or the name of built-in weights.",
        ),
    ],
    to: Annotated[ExportFormat, typer.Option(help="Output format.")] = ExportFormat.OPENVINO,
    precision: Annotated[
        ExportPrecision | None,
        typer.Option(
            show_default=False,
            help="Arithmetic of the model. Default: int8 for openvino, fp32 for onnx.",
        ),
    ] = None,
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end",
            help="ONNX: the model returns keypoints and descriptors, not dense maps; "
            "features.* of --set select the keypoints.",
        ),
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Folder of photographs like the network's later input: int8 needs a few hundred. "
            "Photographs that a training holds out are not used.",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option(metavar="N", min=1, help="Maximum number of photographs, evenly spread.")
    ] = 240,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="An .onnx file, or for openvino a .zip of model.xml and model.bin. Default for "
            "int8: beside the weights, where runs find it; for onnx in fp32: the current folder, "
            "named after the weights.",
        ),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Write a network for OpenVINO (runs use its int8 model on CPUs) or as ONNX.

    \b
    spslam export walk.safetensors --precision int8 --images PHOTOS
    spslam run walk.mp4 --weights walk.safetensors
    spslam export superpoint --to onnx
    spslam export superpoint --to onnx --end-to-end --set features.max_keypoints=500
    """
    from spslam.errors import ConfigError
    from spslam.frontend.engines.export import export_model, export_points
    from spslam.frontend.photos import find_photos, held_out
    from spslam.frontend.training.config import TrainingConfig

    arithmetic = precision or (
        ExportPrecision.FP32 if to is ExportFormat.ONNX else ExportPrecision.INT8
    )
    if end_to_end:
        if (to, arithmetic) != (ExportFormat.ONNX, ExportPrecision.FP32):
            raise ConfigError(
                f"--end-to-end needs --to onnx in fp32 (OpenVINO reads this file, too), found "
                f"{to.value} {arithmetic.value}"
            )
        path = export_points(
            weights, out, resolve_config("default", overrides, None, None).features
        )
        typer.echo(f"fp32 model in {path}")
        return
    if overrides:
        raise ConfigError(
            "--set needs --end-to-end: it changes the selection of keypoints, and without "
            "--end-to-end the model returns dense maps"
        )
    photos: list[Path] = []
    if images is not None:
        photos, _ = held_out(find_photos(images), TrainingConfig().holdout, TrainingConfig().seed)
    path = export_model(weights, out, arithmetic.value, photos, count, to.value)
    typer.echo(f"{arithmetic.value} model in {path}")
