"""SuperPoint as an ONNX model: export from PyTorch, quantisation to int8, and its file and cache.

The dense model takes grey `images` (batch, height, width) uint8; height and width are multiples
of 8. It returns `scores` (batch, height, width), the probability of a keypoint at each pixel, and
`descriptors` (batch, height/8, width/8, D) of cells, not normalised, both float32. Batch, height
and width are dynamic. `frontend/superpoint/decoder.py` decodes the maps into keypoints.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import MissingDependencyError, OutputError, WeightsError
from spslam.io.files import cache_folder
from spslam.io.sealed import SealError, read_sealed, write_sealed
from spslam.notices import notice

from ..superpoint.checkpoints import Checkpoint
from ..superpoint.decoder import CELL

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..superpoint.superpoint import SuperPoint

# Version of the ONNX operators; all runtimes of recent years support it.
OPSET = 18
# Names of the axes of each output; None for an axis of fixed size.
AxisNames = Mapping[str, tuple[str | None, ...]]
# Names of the dense model's input and outputs.
INPUT = "images"
OUTPUTS: AxisNames = {
    "scores": ("batch", f"{CELL}*rows", f"{CELL}*columns"),
    "descriptors": ("batch", "rows", "columns", None),
}
# Version of the dense model; raise it whenever its inputs, outputs or arithmetic change.
_VERSION = "1"
# Height and width of the example for the export, pixels.
_TRACED_SIZE = (4 * CELL, 6 * CELL)
# Metadata keys of spslam's own; the metadata also has the card's keys, as in a weights file.
_DIGEST, _VERSION_KEY = "spslam_weights", "spslam_version"
# Metadata key of the checksum, and number of its hexadecimal digits.
_CHECKSUM_KEY, _CHECKSUM_DIGITS = b"spslam_sha256", 64
# The checksum's entry in Protocol Buffers, without its value: field 14 of ModelProto
# (metadata_props) with a key (field 1) and a value (field 2).
_CHECKSUM_ENTRY = (
    b"\x72"
    + bytes([4 + len(_CHECKSUM_KEY) + _CHECKSUM_DIGITS])
    + b"\x0a"
    + bytes([len(_CHECKSUM_KEY)])
    + _CHECKSUM_KEY
    + b"\x12"
    + bytes([_CHECKSUM_DIGITS])
)
# Constants of fewer numbers stay in float32 where weights are stored in float16.
_LEAST_HALVED = 256
# Description in the file.
_DESCRIPTION = """SuperPoint, dense.
images: (batch, height, width) uint8, grey; height and width are multiples of 8 \
(repeat the last row and column).
scores: (batch, height, width) float32, the probability of a keypoint at each pixel: \
after the softmax, without the dustbin, each cell's 64 values at their pixels; no suppression.
descriptors: (batch, height/8, width/8, D) float32, of cells of 8x8 pixels, not normalised: \
divide each by its length, interpolate by the rule descriptor_sampling, \
and divide by the length again.
"""
# Operations that int8 models compute in float, as for OpenVINO: the softmax, sums of logits, and
# the first convolution with the division before it.
_KEPT_IN_FLOAT = {"patterns": ["^node_conv2d$", "^node_div$"], "types": ["Add", "Softmax"]}

_logger = logging.getLogger(__name__)


def load_onnxruntime() -> Any:
    """Import the package `onnxruntime`.

    Raises:
        MissingDependencyError: it is not installed or cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("ONNX Runtime", error) from None
    return onnxruntime


def load_onnx() -> Any:
    """Import the package `onnx`, and `onnxscript`, with which PyTorch exports.

    Raises:
        MissingDependencyError: one of them is not installed or cannot be loaded.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise _missing("ONNX's exporter", error) from None
    return onnx


def _missing(what: str, error: ImportError) -> MissingDependencyError:
    """Make the error for a package that cannot be imported."""
    return MissingDependencyError(
        f"{what} cannot be loaded ({' '.join(str(error).split())}): pip install 'spslam[onnx]'"
    )


def export_onnx(
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    dynamic_axes: Sequence[Mapping[int, Any]],
    outputs: AxisNames,
    description: str,
    metadata: Mapping[str, str],
) -> bytes:
    """Export a module as an ONNX file that contains its weights.

    The same module gives the same bytes.

    Args:
        module: a module in evaluation mode.
        examples: an example of each input, by its name.
        dynamic_axes: for each input, a `torch.export.Dim` for each axis that may have any size.
        outputs: names of the outputs and of their axes, with the names of `dynamic_axes`.
        description: text in the file for users.
        metadata: entries in the file for programs; a runtime does not need them.

    Raises:
        MissingDependencyError: ONNX or onnxscript is not installed.
    """
    import torch

    load_onnx()
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            dynamo=True,
            dynamic_shapes=tuple(dict(axes) for axes in dynamic_axes),
            input_names=list(examples),
            output_names=list(outputs),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    # Each access of this property makes a new object.
    proto = program.model_proto
    _name_axes(proto, outputs)
    return _finished(proto, description, metadata)


def convert_onnx(network: SuperPoint, metadata: Mapping[str, str] | None = None) -> bytes:
    """Convert a network to the dense fp32 model, an ONNX file.

    Args:
        network: the network.
        metadata: additional entries of the file's metadata.

    Raises:
        MissingDependencyError: ONNX or onnxscript is not installed.
    """
    import torch

    from ..superpoint.dense_heads import DenseHeads

    cells = torch.export.Dim("rows", min=1), torch.export.Dim("columns", min=1)
    axes = {0: torch.export.Dim("batch", min=1), 1: CELL * cells[0], 2: CELL * cells[1]}
    example = torch.zeros(2, *_TRACED_SIZE, dtype=torch.uint8)
    about = {**(metadata or {}), **origin(Checkpoint.of(network))}
    return export_onnx(DenseHeads(network), {INPUT: example}, [axes], OUTPUTS, _DESCRIPTION, about)


def converted_onnx(weights: Checkpoint) -> bytes:
    """Convert a network as `convert_onnx` does, or read an earlier result from the cache folder.

    The conversion takes seconds.

    Raises:
        MissingDependencyError: ONNX or onnxscript is not installed, and the cache has no result.
    """
    path = cached_path(weights)
    if path is not None:
        try:
            return bytes(read_sealed(path))
        except FileNotFoundError:
            pass
        except (OSError, SealError) as error:
            notice(_logger, "damaged_cache", "%s; the network is exported again", error)
    model = convert_onnx(weights.network())
    if path is not None:
        try:
            write_sealed(path, model)
        except OutputError as error:
            _logger.info("the exported network is not cached: %s", error)
    return model


def cached_path(weights: Checkpoint) -> Path | None:
    """Return the sealed file of `converted_onnx`; None if nothing can be cached."""
    folder = onnx_cache()
    return None if folder is None else folder / f"{'-'.join(origin(weights).values())}.sealed"


def quantise_onnx(model: bytes, images: Iterable[NDArray[np.uint8]]) -> bytes:
    """Quantise a model to int8 by NNCF's post-training quantisation.

    The result has QuantizeLinear and DequantizeLinear around convolutions.

    Args:
        model: a model of `convert_onnx`.
        images: grey, (H, W) uint8, all of one size with multiples of 8; the ranges of all
            activations are measured on them.

    Raises:
        MissingDependencyError: NNCF or ONNX is not installed.
    """
    from .openvino_model import load_nncf, no_telemetry

    nncf = load_nncf()
    onnx = load_onnx()
    batches = [{INPUT: image[None]} for image in images]
    proto = onnx.load_model_from_string(model)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    with no_telemetry():
        quantised = nncf.quantize(
            proto,
            nncf.Dataset(batches),
            subset_size=len(batches),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(**_KEPT_IN_FLOAT, validate=False),
        )
    return _finished(quantised, proto.doc_string, metadata)


def half_weights(model: bytes) -> bytes:
    """Store the weights of a model in float16; half the size, and the arithmetic stays float32.

    A Cast after each kernel restores float32. Runtimes evaluate it once, when they load the model.

    Args:
        model: a model of `export_onnx`.

    Raises:
        MissingDependencyError: ONNX is not installed.
    """
    onnx = load_onnx()
    proto = onnx.load_model_from_string(model)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    casts = []
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _LEAST_HALVED:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return _finished(proto, proto.doc_string, metadata)


def read_onnx(path: Path, weights: Checkpoint) -> bytes:
    """Read the dense model in a file, which must have been made of the given weights.

    Raises:
        WeightsError: the file is missing, damaged, of another version or made of other weights.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    runtime = load_onnxruntime()
    try:
        model = path.read_bytes()
        _check_whole(model, path)
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except WeightsError:
        raise
    except Exception as error:
        # The exceptions of ONNX Runtime have no common base class of their own.
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} is not a readable ONNX model ({reason})") from None
    found = session.get_modelmeta().custom_metadata_map
    expected = origin(weights)
    if {key: found.get(key) for key in expected} != expected:
        raise WeightsError(
            f"{path} was made of other weights or by another version: expected {expected}, "
            f"found { ({key: found.get(key) for key in expected}) }"
        )
    return model


def model_digest(model: bytes) -> str:
    """Hash a model to twelve hexadecimal digits."""
    return hashlib.sha256(model).hexdigest()[:12]


def _name_axes(proto: Any, outputs: AxisNames) -> None:
    """Name the axes of the outputs like those of the input.

    PyTorch names some axes by its own symbols (`s30` for `rows`), and strict readers (tract)
    refuse an axis with two names.
    """
    for output in proto.graph.output:
        shape = output.type.tensor_type.shape
        for axis, name in zip(shape.dim, outputs[output.name], strict=True):
            if name is not None:
                axis.dim_param = name


def _finished(proto: Any, description: str, metadata: Mapping[str, str]) -> bytes:
    """Check a model and serialise it, with our metadata and without the exporter's notes."""
    onnx = load_onnx()
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.initializer]
    for part in (proto.graph, *proto.graph.node, *values):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    # Shapes within the graph have PyTorch's symbols; readers infer them from the input's shape.
    del proto.graph.value_info[:]
    del proto.metadata_props[:]
    # The checksum of the original model does not fit the new one.
    kept = {key: value for key, value in sorted(metadata.items()) if key != _CHECKSUM_KEY.decode()}
    onnx.helper.set_model_props(proto, kept)
    proto.doc_string = description
    proto.producer_name, proto.producer_version = "spslam", _VERSION
    onnx.checker.check_model(proto, full_check=True)
    return _with_checksum(proto.SerializeToString(deterministic=True))


def _with_checksum(model: bytes) -> bytes:
    """Append a metadata entry to a serialised model: the checksum of all bytes before it."""
    return model + _CHECKSUM_ENTRY + hashlib.sha256(model).hexdigest().encode()


def _check_whole(model: bytes, path: Path) -> None:
    """Refuse a damaged model; accept models of other exporters, which have no checksum."""
    start = len(model) - _CHECKSUM_DIGITS - len(_CHECKSUM_ENTRY)
    if start < 0 or not model.startswith(_CHECKSUM_ENTRY, start):
        return
    if model != _with_checksum(model[:start]):
        raise WeightsError(f"{path} is damaged (its checksum differs): export it again")


def origin(weights: Checkpoint) -> dict[str, str]:
    """Return the metadata that names the weights a model was made of."""
    return {_DIGEST: f"{weights.digest}-{weights.batch_norm}", _VERSION_KEY: _VERSION}


def onnx_cache() -> Path | None:
    """Make and return the folder of ONNX models in the cache folder; None if that fails."""
    try:
        folder = cache_folder() / "onnx"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # For example, a user without a home folder.
        _logger.info("ONNX models are not cached: %s", error)
        return None
    return folder


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which prints progress, warns of its own code and logs each step."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
