"""Writes a network for other runtimes: OpenVINO or ONNX, fp32 or int8, maps or key points."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import ConfigError, OutputError
from spslam.io.files import temporary_folder, write_atomic

from ..photos import evenly_spread, fit_image, read_photo
from ..superpoint.checkpoints import load_superpoint, weights_name
from ..superpoint.weights_file import network_metadata
from .choice import quantised_path
from .onnx_model import convert_onnx, quantise_onnx
from .openvino_model import convert, describe, quantise, write_model

Target = Literal["openvino", "onnx"]
# Small photographs show more different places in the same time; the engine's input has any size.
_CALIBRATION_SIZE = (240, 320)


def export_model(
    weights: str | Path | None,
    out: Path | None = None,
    precision: Literal["fp32", "int8"] = "int8",
    photos: list[Path] | None = None,
    count: int = 240,
    to: Target = "openvino",
) -> Path:
    """Write the dense model of weights, from images to maps, with their card; returns where.

    Args:
        weights: see `load_superpoint`.
        out: a .zip file for OpenVINO, an .onnx file for ONNX; None: for int8 where `features.precision: int8` looks for
            it, beside the weights; for ONNX in fp32 an .onnx file of their name in the current folder.
        precision: int8 is quantised after training (NNCF) with the ranges that the photographs lead to.
        photos: files of photographs; no larger a set than needed: 150 to 300 suffice.
        count: most of them, evenly spread.
        to: the format.

    Raises:
        ConfigError: no photographs are given for int8, or no file for fp32 and OpenVINO.
        WeightsError: the weights cannot be used.
        DatasetError: a photograph cannot be read.
        MissingDependencyError: OpenVINO, ONNX or, for int8, NNCF is not installed.
        OutputError: the file cannot be written.
    """
    if precision == "int8" and not photos:
        raise ConfigError(
            "int8 needs photographs that show what the network meets: give a folder with --images"
        )
    if precision == "fp32" and out is None and to == "openvino":
        raise ConfigError("an fp32 model has no place of its own: give a file with --out")
    if out is None and to == "onnx" and precision == "fp32":
        path = _named_after(weights)
    else:
        path = out or quantised_path(weights, "onnxruntime" if to == "onnx" else to)
    _check_folder(path)
    network = load_superpoint(weights)
    metadata = network_metadata(weights, network)
    images = _calibration_images(photos or [], count) if precision == "int8" else []
    if to == "onnx":
        onnx_model = convert_onnx(network, metadata)
        write_atomic(path, quantise_onnx(onnx_model, images) if precision == "int8" else onnx_model)
        return path
    model = convert(network)
    if precision == "int8":
        model = quantise(model, images)
    write_model(path, describe(model, metadata))
    return path


def export_points(weights: str | Path | None, out: Path | None, config: FeatureConfig) -> Path:
    """Write the ONNX model of weights from an image to key points and descriptors; returns where.

    Args:
        weights: see `load_superpoint`.
        out: None: an .onnx file of the name of the weights, with `_points`, in the current folder.
        config: how points are selected: all that it says of them but `weights`.

    Raises:
        WeightsError: the weights cannot be used.
        MissingDependencyError: ONNX is not installed.
        OutputError: the file cannot be written.
    """
    from .onnx_points import convert_points

    path = out or _named_after(weights, "_points")
    _check_folder(path)
    network = load_superpoint(weights)
    write_atomic(path, convert_points(network, config, network_metadata(weights, network)))
    return path


def _check_folder(path: Path) -> None:
    """Not only when all is computed."""
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
    # PyTorch's compiler looks for one when it is imported, and breaks down without.
    with temporary_folder():
        pass


def _calibration_images(photos: list[Path], count: int) -> list[NDArray[np.uint8]]:
    return [
        fit_image(read_photo(path), _CALIBRATION_SIZE)
        for path in evenly_spread(photos, count, seed=0)
    ]


def _named_after(weights: str | Path | None, suffix: str = "") -> Path:
    return Path(f"{weights_name(weights)}{suffix}.onnx")
