"""SuperPoint as an OpenVINO model: converted from PyTorch, quantised to int8, kept in one file.

The model takes grey `images` (B, H, W) uint8; H and W are multiples of 8. It returns `scores`,
probabilities (B, H, W), and `descriptors` (B, H/8, W/8, D), not normalised, both float32.

A file is a zip archive of OpenVINO's own files model.xml and model.bin. A single file cannot be
replaced by half, and the archive's checksums reveal damage.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import MissingDependencyError, OutputError, WeightsError
from spslam.io.files import USE_ANOTHER_TMPDIR, cache_folder, temporary_folder, write_atomic
from spslam.notices import notice
from spslam.process.signals import signal_stack_kept

from ..superpoint.checkpoints import Checkpoint
from ..superpoint.decoder import CELL
from .int8_rounding import patch_moments, round_filters

if TYPE_CHECKING:
    from ..superpoint.superpoint import SuperPoint

# Version of the model; raise it whenever its inputs, outputs or arithmetic change.
_VERSION = "1"
# End of the name of the first convolution's node.
_FIRST = "conv1a.conv/aten::_convolution/Convolution"
# Files in the archive.
_MEMBERS = ("model.xml", "model.bin")
# Height and width of the example for the conversion, pixels.
_TRACED_SIZE = (4 * CELL, 6 * CELL)
# Operations that NNCF leaves in float: sums of logits, which need the precision, and the first
# convolution, which NNCF would round weight by weight; see `first_convolution_in_int8`.
_KEPT_IN_FLOAT = [".*aten::add/.*", ".*conv1a.*"]
# The package that `no_telemetry` hides.
_TELEMETRY = "openvino_telemetry"
# The package of OpenVINO's converter. `openvino` imports it, which is half of its time, and goes on
# without it.
_CONVERTER = "openvino.tools.ovc"

# OpenVINO's types cannot be named without importing it.
Model = Any

_logger = logging.getLogger(__name__)


def load_openvino() -> Any:
    """Import the package `openvino`.

    Raises:
        MissingDependencyError: it is not installed or cannot be loaded.
    """
    try:
        if "openvino" in sys.modules:
            import openvino
        else:
            with no_telemetry(), _hidden(_CONVERTER):
                import openvino
            if not hasattr(openvino, "convert_model"):
                openvino.convert_model = _convert_model
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenVINO cannot be loaded ({' '.join(str(error).split())}): "
            "pip install openvino, or use features.engine torch"
        ) from None
    return openvino


def load_nncf() -> Any:
    """Import the package `nncf`.

    Raises:
        MissingDependencyError: it is not installed or cannot be loaded.
    """
    try:
        with no_telemetry():
            import nncf
    except ImportError as error:
        raise MissingDependencyError(
            f"NNCF, which makes int8 models, cannot be loaded ({error}): "
            "pip install 'spslam[export]'"
        ) from None
    return nncf


def convert(network: SuperPoint) -> Model:
    """Convert a network to an fp32 model, for any size and number of images.

    The model contains the digest of the network's weights.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
    """
    import torch

    from ..superpoint.dense_heads import DenseHeads

    openvino = load_openvino()
    dense = DenseHeads(network)
    with no_telemetry(), warnings.catch_warnings(), torch.inference_mode():
        # PyTorch warns of sizes that become constants, but other sizes work, as tests check.
        warnings.simplefilter("ignore")
        example = torch.zeros(2, *_TRACED_SIZE, dtype=torch.uint8)
        model = openvino.convert_model(dense, example_input=example, input=[-1, -1, -1])
    for output, name in zip(model.outputs, ("scores", "descriptors"), strict=True):
        output.get_tensor().set_names({name})
    model.set_rt_info(Checkpoint.of(network).digest, ["spslam", "weights"])
    model.set_rt_info(_VERSION, ["spslam", "version"])
    # Writing and reading a model changes its last bits. The first run must equal later runs, which
    # read the model from the cache.
    return _unpacked(_packed(model))


def converted(weights: Checkpoint) -> Model:
    """Convert a network as `convert` does, or read an earlier result from the cache folder.

    The conversion takes seconds.
    """
    folder = openvino_cache()
    path = folder / f"{weights.digest}-{weights.batch_norm}.zip" if folder is not None else None
    if path is not None and path.exists():
        try:
            return read_model(path, weights)
        except WeightsError as error:
            notice(_logger, "damaged_cache", "%s; converting the network again", error)
    model = convert(weights.network())
    if path is not None:
        try:
            write_model(path, model)
        except (OSError, OutputError) as error:
            _logger.info("the converted network is not cached: %s", error)
    return model


def quantise(model: Model, images: Iterable[NDArray[np.uint8]]) -> Model:
    """Quantise a model to int8 by NNCF's post-training quantisation.

    Args:
        model: a model of `convert`.
        images: grey, (H, W) uint8, all of one size with multiples of 8; the ranges of all
            activations are measured on them.

    Raises:
        MissingDependencyError: NNCF is not installed.
    """
    nncf = load_nncf()
    images = list(images)
    model = model.clone()
    filters = round_first_convolution(model, images)
    with no_telemetry(), signal_stack_kept():
        quantised = nncf.quantize(
            model,
            nncf.Dataset([image[None] for image in images]),
            subset_size=len(images),
            # Slow, but the error of the descriptors is smaller.
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(patterns=_KEPT_IN_FLOAT, validate=False),
        )
    if filters is not None:
        first_convolution_in_int8(quantised, *filters)
    for key in ("weights", "version"):
        quantised.set_rt_info(_info(model, key), ["spslam", key])
    return quantised


def round_first_convolution(
    model: Model, images: list[NDArray[np.uint8]]
) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Round the filters of the first convolution to whole numbers times steps.

    Args:
        model: the fp32 model, which is changed.
        images: the rounding minimises the output error on them.

    Returns:
        The whole numbers (C, 1, K, K) and the steps (C, 1, 1, 1). None, and no change, if the
        model has a batch norm that is not folded.
    """
    convolution = _first_convolution(model)
    if convolution is None:
        return None
    filters = convolution.input_value(1).get_node().get_data()
    whole, steps = round_filters(
        filters.astype(np.float64).reshape(len(filters), -1),
        patch_moments(images, filters.shape[-1]),
    )
    whole, steps = whole.reshape(filters.shape), steps.reshape(-1, 1, 1, 1)
    convolution.input(1).replace_source_output(load_openvino().op.Constant(whole * steps).output(0))
    return whole, steps


def first_convolution_in_int8(
    quantised: Model, whole: NDArray[np.int8], steps: NDArray[np.float32]
) -> None:
    """Make the first convolution compute in int8 with the filters of `round_first_convolution`.

    Images are bytes, so the result equals that in float.
    """
    convolution = _first_convolution(quantised)
    assert convolution is not None
    ops = load_openvino().opset13
    image = convolution.input_value(0).get_node()
    zero, one = (ops.constant(np.float32(end)) for end in (0.0, 1.0))
    convolution.input(0).replace_source_output(
        ops.fake_quantize(image, zero, one, zero, one, 256).output(0)
    )
    filters = ops.multiply(ops.convert(ops.constant(whole), "f32"), ops.constant(steps))
    convolution.input(1).replace_source_output(filters.output(0))


def _first_convolution(model: Model) -> Any:
    """Find the node of the first convolution; None if a batch norm is part of it."""
    return next(
        (node for node in model.get_ordered_ops() if node.get_friendly_name().endswith(_FIRST)),
        None,
    )


def describe(model: Model, metadata: Mapping[str, str]) -> Model:
    """Add metadata to a model, which OpenVINO's `get_rt_info` reads; returns the model."""
    for key, value in metadata.items():
        model.set_rt_info(value, ["spslam", "card", key])
    return model


def write_model(path: Path, model: Model) -> None:
    """Write a model to one file.

    Raises:
        OutputError: the folder is missing or cannot be written to, or the disk has no room for
            temporary files.
    """
    write_atomic(path, _packed(model))


def read_model(path: Path, weights: Checkpoint) -> Model:
    """Read a model of `write_model`, which must have been made of the given weights.

    Raises:
        WeightsError: the file is missing, damaged, of another version or made of other weights.
        MissingDependencyError: OpenVINO is not installed.
    """
    try:
        model = _unpacked(path.read_bytes())
    except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"{path} is not a readable OpenVINO model of spslam ({reason})"
        ) from None
    expected = {"weights": weights.digest, "version": _VERSION}
    found = {key: _info(model, key) for key in expected}
    if found != expected:
        raise WeightsError(
            f"{path} was made of other weights or by another version: "
            f"expected {expected}, found {found}"
        )
    return model


def _packed(model: Model) -> bytes:
    """Serialise a model to a zip archive."""
    buffer = io.BytesIO()
    with temporary_folder() as folder:
        try:
            load_openvino().save_model(model, str(folder / _MEMBERS[0]), compress_to_fp16=False)
        except RuntimeError as error:
            # For a full disk, OpenVINO only reports "basic_ios::clear: iostream error".
            reason = " ".join(str(error).split())
            raise OutputError(
                f"OpenVINO cannot write to {folder} ({reason}): {USE_ANOTHER_TMPDIR}"
            ) from None
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in _MEMBERS:
                # A fixed date makes the bytes reproducible.
                archive.writestr(
                    zipfile.ZipInfo(name), (folder / name).read_bytes(), zipfile.ZIP_DEFLATED, 9
                )
    return buffer.getvalue()


def _unpacked(data: bytes) -> Model:
    """Read a model from a zip archive."""
    openvino = load_openvino()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        xml, weights = (archive.read(name) for name in _MEMBERS)
    return openvino.Core().read_model(xml, openvino.Tensor(np.frombuffer(weights, np.uint8)))


def openvino_cache() -> Path | None:
    """Make and return the cache folder of this OpenVINO version; None if that fails."""
    try:
        folder = cache_folder() / f"openvino-{load_openvino().__version__.split('-')[0]}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # For example, a user without a home folder.
        _logger.info("OpenVINO models are not cached: %s", error)
        return None
    return folder


def _info(model: Model, key: str) -> str:
    """Read an entry of a model's metadata; "" if it is missing."""
    return (
        str(model.get_rt_info(["spslam", key]).value) if model.has_rt_info(["spslam", key]) else ""
    )


def _convert_model(*args: Any, **options: Any) -> Any:
    """Stand for `openvino.convert_model`, whose package is imported at its first call."""
    with no_telemetry():
        from openvino.tools.ovc import convert_model
    load_openvino().convert_model = convert_model
    return convert_model(*args, **options)


def no_telemetry() -> AbstractContextManager[None]:
    """Hide the package with which OpenVINO and NNCF report imports and conversions to Google."""
    return _hidden(_TELEMETRY)


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let imports of a package fail, unless it is imported already."""
    hidden = package not in sys.modules
    if hidden:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[package]
