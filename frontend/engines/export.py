"""Export a network to other runtimes and programs: maps or keypoints, in several precisions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

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

if TYPE_CHECKING:
    from .onnx_hosts import HostName

Target = Literal["openvino", "onnx"]
# Height and width of the photographs for calibration, pixels. Small photographs show more scenes
# in the same time; the engine's input may have any size.
_CALIBRATION_SIZE = (240, 320)


def export_model(
    weights: str | Path | None,
    out: Path | None = None,
    precision: Literal["fp32", "int8"] = "int8",
    photos: list[Path] | None = None,
    count: int = 240,
    to: Target = "openvino",
) -> Path:
    """Write the dense model of weights, from images to maps, with their card.

    Args:
        weights: see `load_superpoint`.
        out: a .zip file for OpenVINO, an .onnx file for ONNX. None: int8 models are written beside
            the weights, where `features.precision: int8` looks for them; ONNX models in fp32 are
            written to the current folder, named after the weights.
        precision: fp32, or int8 by quantisation after training (NNCF) with photographs.
        photos: files of photographs that show typical scenes; 150 to 300 suffice.
        count: largest number of photographs to use, spread evenly over `photos`.
        to: the format.

    Returns:
        The path of the file.

    Raises:
        ConfigError: no photographs are given for int8, or no file for OpenVINO in fp32.
        WeightsError: the weights cannot be used.
        DatasetError: a photograph cannot be read.
        MissingDependencyError: OpenVINO, ONNX or, for int8, NNCF is not installed.
        OutputError: the file cannot be written.
    """
    if precision == "int8" and not photos:
        raise ConfigError("int8 needs photographs of typical scenes: give a folder with --images")
    if precision == "fp32" and out is None and to == "openvino":
        raise ConfigError("an fp32 model has no default file: give a file with --out")
    if out is None and to == "onnx" and precision == "fp32":
        path = _named_after(weights)
    else:
        path = out or quantised_path(weights, "onnxruntime" if to == "onnx" else to)
    _check_file(path, out, ".onnx" if to == "onnx" else ".zip", weights)
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
    """Write the ONNX model of weights from an image to keypoints and descriptors.

    Args:
        weights: see `load_superpoint`.
        out: the .onnx file; None: in the current folder, named after the weights, with `_points`.
        config: the settings of the keypoint selection; its `weights` do not count.

    Returns:
        The path of the file.

    Raises:
        WeightsError: the weights cannot be used.
        MissingDependencyError: ONNX is not installed.
        OutputError: the file cannot be written.
    """
    from .onnx_points import convert_points

    path = out or _named_after(weights, "_points")
    _check_file(path, out, ".onnx", weights)
    network = load_superpoint(weights)
    write_atomic(path, convert_points(network, config, network_metadata(weights, network)))
    return path


def export_host(
    weights: str | Path | None,
    out: Path | None,
    host: HostName,
    config: FeatureConfig,
    size: tuple[int, int] | None = None,
    half: bool = False,
) -> tuple[Path, str]:
    """Write the ONNX model of weights for a program that loads foreign models.

    Args:
        weights: see `load_superpoint`.
        out: the .onnx file; None: in the current folder, named after the weights and the host.
        host: the program, or `nchw` for maps in the layout of SuperPoint's decoders.
        config: the settings of the keypoint selection; its `weights` do not count.
        size: width and height of the network's image, pixels; None: the host's default.
        half: store the weights in float16.

    Returns:
        The path of the file, and a line that says how the program loads it.

    Raises:
        ConfigError: the weights or the size do not fit the host.
        WeightsError: the weights cannot be used.
        MissingDependencyError: ONNX is not installed.
        OutputError: the file cannot be written.
    """
    from .onnx_hosts import check_host, convert_host, usage

    suffix = f"_{host.replace('-', '_')}{'_fp16' if half else ''}"
    path = out or _named_after(weights, suffix)
    _check_file(path, out, ".onnx", weights)
    network = load_superpoint(weights)
    check_host(host, network, size)
    metadata = network_metadata(weights, network)
    write_atomic(path, convert_host(host, network, config, size, metadata, half))
    return path, usage(host, str(path), size)


def export_torchscript(
    weights: str | Path | None, out: Path | None, config: FeatureConfig
) -> tuple[Path, int]:
    """Write the TorchScript model of weights for RTAB-Map.

    Args:
        weights: see `load_superpoint`.
        out: the .pt file; None: in the current folder, named after the weights.
        config: the settings of the keypoint selection; its `weights` do not count.

    Returns:
        The path of the file, and the number of zeros at the end of each descriptor.

    Raises:
        ConfigError: the descriptors are too long for RTAB-Map.
        WeightsError: the weights cannot be used.
        OutputError: the file cannot be written.
    """
    from .torchscript import LENGTH, convert_torchscript

    path = out or Path(f"{weights_name(weights)}.pt")
    _check_file(path, out, ".pt", weights)
    network = load_superpoint(weights)
    if network.descriptor_dim > LENGTH:
        raise ConfigError(
            f"torchscript needs descriptors of at most {LENGTH} numbers, "
            f"found {network.descriptor_dim}"
        )
    metadata = network_metadata(weights, network)
    write_atomic(path, convert_torchscript(network, config, metadata))
    return path, LENGTH - network.descriptor_dim


def _check_file(path: Path, given: Path | None, suffix: str, weights: str | Path | None) -> None:
    """Check that a file can be written, before the computation.

    Args:
        path: the file.
        given: the file that the user named; None: the default.
        suffix: end of its name, by which programs choose how to read it.
        weights: the weights, which stay.

    Raises:
        ConfigError: the name has another end.
        OutputError: there is no folder, or the file is that of the weights.
    """
    if given is not None and given.suffix.lower() != suffix:
        raise ConfigError(f"--out: expected a name that ends with {suffix}, found {given.name}")
    if weights is not None and path.resolve() == Path(weights).resolve():
        raise OutputError(f"{path} is the file of the weights: give another one with --out")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
    # PyTorch's compiler needs a temporary folder when it is imported, and fails without one.
    with temporary_folder():
        pass


def _calibration_images(photos: list[Path], count: int) -> list[NDArray[np.uint8]]:
    """Read at most `count` photographs, scaled to the size for calibration."""
    return [
        fit_image(read_photo(path), _CALIBRATION_SIZE)
        for path in evenly_spread(photos, count, seed=0)
    ]


def _named_after(weights: str | Path | None, suffix: str = "") -> Path:
    """Return an .onnx file in the current folder, named after the weights."""
    return Path(f"{weights_name(weights)}{suffix}.onnx")
