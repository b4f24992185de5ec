"""The command that writes networks for other runtimes, `spslam export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam.cli.options import SetOption, parse_size, resolve_config

if TYPE_CHECKING:
    from spslam.config import FeatureConfig


class ExportFormat(StrEnum):
    """Values of `--to`."""

    OPENVINO = "openvino"
    ONNX = "onnx"
    OPENCV_DISK = "opencv-disk"
    OPENCV_ALIKED = "opencv-aliked"
    COLMAP = "colmap"
    LIGHTGLUE_ONNX = "lightglue-onnx"
    TORCHSCRIPT = "torchscript"


class ExportLayout(StrEnum):
    """Values of `--layout`."""

    NHWC = "nhwc"
    NCHW = "nchw"


class ExportPrecision(StrEnum):
    """Values of `--precision`."""

    FP32 = "fp32"
    FP16 = "fp16"
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
    to: Annotated[
        ExportFormat,
        typer.Option(help="Output format, or the program that loads the file (docs/export.md)."),
    ] = ExportFormat.OPENVINO,
    precision: Annotated[
        ExportPrecision | None,
        typer.Option(
            show_default=False,
            help="Arithmetic of the model. Default: int8 for openvino, otherwise fp32. "
            "fp16: weights in half the space, arithmetic in fp32.",
        ),
    ] = None,
    layout: Annotated[
        ExportLayout,
        typer.Option(
            help="ONNX maps: nhwc from bytes, as spslam reads them; nchw from floats in [0, 1], "
            "as SuperPoint's decoders in other languages do."
        ),
    ] = ExportLayout.NHWC,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            show_default=False,
            help="opencv-disk, opencv-aliked: size of the network's image, multiples of 8. "
            "Default: 640x480 and 640x640.",
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
            "int8: beside the weights, where runs find it; otherwise the current folder, named "
            "after the weights and the program.",
        ),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Write a network for OpenVINO (runs use its int8 model on CPUs), as ONNX or for a program.

    \b
    spslam export walk.safetensors --precision int8 --images PHOTOS
    spslam run walk.mp4 --weights walk.safetensors
    spslam export superpoint --to onnx
    spslam export superpoint --to onnx --end-to-end --set features.max_keypoints=500
    spslam export superpoint_lite --to opencv-disk --size 640x480
    """
    from spslam.errors import ConfigError
    from spslam.frontend.engines import export as engines
    from spslam.frontend.photos import find_photos, held_out
    from spslam.frontend.training.config import TrainingConfig

    arithmetic = precision or (
        ExportPrecision.INT8 if to is ExportFormat.OPENVINO else ExportPrecision.FP32
    )
    host = _host(to, layout, end_to_end, arithmetic)
    _check_precision(to, arithmetic, end_to_end, host, images)
    shape = None if size is None else _parsed_size(size, host or to.value)
    if host is not None:
        path, usage = engines.export_host(
            weights,
            out,
            host,
            _selection(overrides, host),
            shape,
            arithmetic is ExportPrecision.FP16,
        )
        typer.echo(f"{arithmetic.value} model in {path}\n{usage}")
        return
    if to is ExportFormat.TORCHSCRIPT:
        path, zeros = engines.export_torchscript(weights, out, _selection(overrides))
        typer.echo(f"{arithmetic.value} model in {path}")
        if zeros:
            typer.echo(f"each descriptor ends with {zeros} zeros: RTAB-Map expects 256 numbers")
        return
    if end_to_end:
        path = engines.export_points(weights, out, _selection(overrides))
        typer.echo(f"fp32 model in {path}")
        return
    if overrides:
        raise ConfigError(
            "--set needs --end-to-end or a program: it changes the selection of keypoints, and "
            "without --end-to-end the model returns dense maps"
        )
    photos: list[Path] = []
    if images is not None:
        photos, _ = held_out(find_photos(images), TrainingConfig().holdout, TrainingConfig().seed)
    # fp16 was refused for this kind of model.
    path = engines.export_model(
        weights,
        out,
        "int8" if arithmetic is ExportPrecision.INT8 else "fp32",
        photos,
        count,
        "onnx" if to is ExportFormat.ONNX else "openvino",
    )
    typer.echo(f"{arithmetic.value} model in {path}")


def _host(
    to: ExportFormat, layout: ExportLayout, end_to_end: bool, precision: ExportPrecision
) -> Any:
    """Return the name of the host in `onnx_hosts`; None for the other formats.

    Raises:
        ConfigError: the options contradict each other.
    """
    from spslam.errors import ConfigError

    if end_to_end and to not in (ExportFormat.OPENVINO, ExportFormat.ONNX):
        raise ConfigError(f"--end-to-end needs --to onnx: {to.value} returns keypoints anyway")
    if layout is ExportLayout.NCHW:
        if to is not ExportFormat.ONNX or end_to_end:
            raise ConfigError("--layout nchw needs --to onnx without --end-to-end")
        if precision is ExportPrecision.INT8:
            raise ConfigError("--layout nchw is written in fp32 or fp16, found int8")
        return "nchw"
    if to in (ExportFormat.OPENVINO, ExportFormat.ONNX, ExportFormat.TORCHSCRIPT):
        return None
    return to.value


def _check_precision(
    to: ExportFormat,
    precision: ExportPrecision,
    end_to_end: bool,
    host: str | None,
    images: Path | None,
) -> None:
    """Check that a format can be written in a precision.

    Raises:
        ConfigError: it cannot.
    """
    from spslam.errors import ConfigError

    if end_to_end and (to, precision) != (ExportFormat.ONNX, ExportPrecision.FP32):
        raise ConfigError(
            f"--end-to-end needs --to onnx in fp32 (OpenVINO reads this file, too), found "
            f"{to.value} {precision.value}"
        )
    if host is not None and precision is ExportPrecision.INT8:
        raise ConfigError(f"{host} is written in fp32 or fp16, found int8")
    if to is ExportFormat.TORCHSCRIPT and precision is not ExportPrecision.FP32:
        raise ConfigError(f"torchscript is written in fp32, found {precision.value}")
    if host is None and precision is ExportPrecision.FP16:
        raise ConfigError(
            f"fp16 needs --layout nchw or --to opencv-disk, opencv-aliked, colmap or "
            f"lightglue-onnx, found {to.value}"
        )
    if images is not None and (host is not None or to is ExportFormat.TORCHSCRIPT):
        raise ConfigError("--images needs --precision int8 with --to openvino or onnx")


def _parsed_size(text: str, name: str) -> tuple[int, int]:
    """Parse the width and height of `--size`.

    Raises:
        ConfigError: it is no size, or the model takes any size.
    """
    from spslam.errors import ConfigError

    if name not in (ExportFormat.OPENCV_DISK.value, ExportFormat.OPENCV_ALIKED.value):
        raise ConfigError(f"--size needs --to opencv-disk or opencv-aliked, found {name}")
    return parse_size(text)


def _selection(overrides: list[str] | None, host: Any = None) -> FeatureConfig:
    """Return the settings of the selection of keypoints.

    Args:
        overrides: values of `--set`.
        host: the host in `onnx_hosts`; None: one that takes all settings.

    Raises:
        ConfigError: a value is impossible, or changes nothing in the model.
    """
    from spslam.errors import ConfigError

    taken: tuple[str, ...] = ()
    if host is not None:
        from spslam.frontend.engines.onnx_hosts import HOSTS

        taken = HOSTS[host].taken
        if overrides and not HOSTS[host].selects:
            raise ConfigError(
                "--set needs a model that selects keypoints: --layout nchw returns dense maps"
            )
    settings = ("max_keypoints", "threshold", "nms_radius", "border", "subpixel", "spread_cell")
    for override in overrides or []:
        section, _, key = override.partition("=")[0].strip().partition(".")
        if section != "features" or key not in settings:
            raise ConfigError(
                f"--set {override} changes nothing in the model: expected one of "
                f"{', '.join('features.' + each for each in settings)}"
            )
        if key in taken:
            raise ConfigError(f"--set {override} changes nothing: {host} gives {key} at each call")
    return resolve_config("default", overrides, None, None).features
