"""Writes a network as an OpenVINO model, in fp32 or quantised to int8."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from spslam.errors import ConfigError

from .checkpoints import load_superpoint
from .engine_choice import quantised_path
from .openvino_model import convert, quantise, write_model
from .training.photos import evenly_spread, fit_image, read_photo

# Small photographs show more different places in the same time; the engine's input has any size.
_CALIBRATION_SIZE = (240, 320)


def export_model(
    weights: str | Path | None,
    out: Path | None = None,
    precision: Literal["fp32", "int8"] = "int8",
    photos: list[Path] | None = None,
    count: int = 240,
) -> Path:
    """Write the OpenVINO model of weights; returns where.

    Args:
        weights: see `load_superpoint`.
        out: a .zip file; None: where `features.precision: int8` looks for it, beside the weights (int8 only).
        precision: int8 is quantised after training (NNCF) with the ranges that the photographs lead to.
        photos: files of photographs; no larger a set than needed: 150 to 300 suffice.
        count: most of them, evenly spread.

    Raises:
        ConfigError: no photographs are given for int8, or no file for fp32.
        WeightsError: the weights cannot be used.
        DatasetError: a photograph cannot be read.
        MissingDependencyError: OpenVINO or, for int8, NNCF is not installed.
        OutputError: the file cannot be written.
    """
    if precision == "int8" and not photos:
        raise ConfigError("int8 needs photographs that show what the network meets: give a folder with --images")
    if precision == "fp32" and out is None:
        raise ConfigError("an fp32 model has no place of its own: give a file with --out")
    network = load_superpoint(weights)
    model = convert(network)
    if precision == "int8":
        chosen = evenly_spread(photos or [], count, seed=0)
        model = quantise(model, [fit_image(read_photo(path), _CALIBRATION_SIZE) for path in chosen])
    path = out or quantised_path(weights)
    write_model(path, model)
    return path
