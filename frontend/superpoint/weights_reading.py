"""Read the parameters of a weights file: its tensors, their layout, and checks of both.

Safetensors and plain files of torch.save are read. Names follow one of three layouts: ours, the
open retraining's and that of `transformers`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from safetensors import safe_open

from spslam.config import describe_errors
from spslam.errors import WeightsError
from spslam.notices import counted, notice

from .network_shape import expected_shapes
from .pickled_tensors import Opaque, PickledFile, PickledTensor

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger(__name__)

AnyCard = TypeVar("AnyCard", bound=BaseModel)
# Parameters by name.
State = dict[str, NDArray[Any]]
Layout = Literal["plain", "open", "transformers"]
# Names of layers in the layout `plain`: encoder, heads, skips.
_PLAIN_LAYER = re.compile(r"conv(\d[a-z]|[PD][ab]|S\d)")
_OPEN_HEADS = {"detector": "P", "descriptor": "D"}
# The first kernel of each layout. A prefix of it, such as `module.`, is a prefix of every key of
# the network.
FIRST_KEYS: dict[str, Layout] = {
    "conv1a.weight": "plain",
    "conv1a.conv.weight": "plain",
    "backbone.0.0.conv.weight": "open",
    "encoder.conv_blocks.0.conv_a.weight": "transformers",
}
# Keys of `transformers`; its `conv_blocks` 0 to 3 are our stages 1 to 4.
_TRANSFORMERS_KEY = re.compile(
    r"(?:encoder\.conv_blocks\.(?P<block>\d+)\.conv|(?P<head>keypoint_decoder\.conv_score|"
    r"descriptor_decoder\.conv_descriptor))_(?P<layer>[ab])\.(?P<rest>weight|bias)"
)
_TRANSFORMERS_HEADS = {
    "keypoint_decoder.conv_score": "P",
    "descriptor_decoder.conv_descriptor": "D",
}
# Keys of the open retraining.
_OPEN_KEY = re.compile(
    r"(backbone\.([0-3])\.([01])|(detector|descriptor)\.([01]))\.(conv|bn)\.(\w+)"
)
# Safetensors' names of the number types that NumPy has.
_NUMPY_TYPES = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
# The last component of each parameter's name.
_PARAMETERS = ("weight", "bias", "running_mean", "running_var")
# Suffix of safetensors files.
SAFE_SUFFIX = ".safetensors"
# Text for a file of the wrong kind, by whether its name has the suffix `SAFE_SUFFIX`.
_NO_KIND = {True: "not a readable safetensors file", False: "not a file of plain PyTorch weights"}
# Metadata key of spslam's own files; see `checksum`.
CHECKSUM = "sha256"
# Name of batch norm's counter of batches; older files lack it.
_COUNTER = "num_batches_tracked"
# The parameter that only networks with batch norm have.
FIRST_NORM = "conv1a.bn.weight"
# Largest absolute weight that is accepted; products of larger ones overflow.
_LARGEST_WEIGHT = 1e9
# Layers of the heads, and their letters in the open retraining.
_HEADS = ("Pa", "Pb", "Da", "Db")


def read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file, and check its checksum."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            metadata = file.metadata() or {}
            plain = all(file.get_slice(name).get_dtype() in _NUMPY_TYPES for name in names)
            tensors = {name: file.get_tensor(name) for name in names} if plain else {}
        if not plain:
            # NumPy lacks some types, such as bfloat16.
            with safe_open(path, framework="pt") as file:
                tensors = {name: _as_numpy(file.get_tensor(name)) for name in names}
    except Exception as error:
        # Safetensors, NumPy and PyTorch raise exceptions of many types.
        raise WeightsError(
            f"{path} is not a readable safetensors file: {one_line(error)}"
        ) from None
    if CHECKSUM in metadata and metadata[CHECKSUM] != checksum(tensors, metadata):
        raise WeightsError(
            f"{path} is damaged, or was changed after it was written (its {CHECKSUM} differs): "
            f"fetch it again, or remove {CHECKSUM} from its metadata"
        )
    return tensors, metadata


def checksum(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Compute the SHA-256 that spslam's own weights files carry under `CHECKSUM`.

    Args:
        tensors: all tensors by name; their names, types, shapes and values count.
        metadata: the file's metadata; `CHECKSUM` itself does not count.
    """
    digest = hashlib.sha256(
        repr(sorted((key, value) for key, value in metadata.items() if key != CHECKSUM)).encode()
    )
    for name, values in sorted(tensors.items()):
        digest.update(repr((name, values.dtype.str, values.shape)).encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def read_pickle(path: Path) -> State:
    """Read the tensors in a file of torch.save."""
    file = PickledFile(path)
    found = _network_in(file.content)
    if found is None:
        what = type(file.content).__name__
        if isinstance(file.content, Opaque):
            what = one_line(file.content.what)
        elif isinstance(file.content, dict):
            what = f"a dictionary of {listed(file.content, 5)}"
        raise WeightsError(f"{path}: expected a dictionary of tensors by name, found {what}")
    state: State = {}
    left_out = 0
    for given, value in found.items():
        key = str(given).removeprefix("module.")
        if isinstance(value, PickledTensor):
            if key in state:
                raise WeightsError(
                    f"{path} holds two tensors named {one_line(key)}: save one network alone"
                )
            state[key] = file.array(value, one_line(key))
        elif key.rpartition(".")[2] in _PARAMETERS:
            what = value.what if isinstance(value, Opaque) else type(value).__name__
            raise WeightsError(
                f"{path} is not a file of plain PyTorch weights, and nothing else is unpickled: "
                f"{one_line(key)} is {one_line(what)}, "
                "expected a dense tensor of floating point numbers on the CPU"
            )
        else:
            left_out += 1
    if left_out:
        notice(
            _logger,
            "no_tensors",
            "%s: left out %s",
            path,
            counted(left_out, "entry that is no tensor", "entries that are not tensors"),
            count=left_out,
        )
    return state


def _network_in(content: object) -> dict[Any, Any] | None:
    """Find the dictionary of tensors in a file's content; None if there is no clear one.

    It is the content itself, or a dictionary inside: of a usual name, or the only candidate.
    """
    if not isinstance(content, dict):
        return None
    if _names_network(content):
        return content
    known = [
        content[key]
        for key in ("state_dict", "model_state_dict", "model")
        if isinstance(content.get(key), dict)
    ]
    inside = known[:1] or [
        value for value in content.values() if isinstance(value, dict) and _names_network(value)
    ]
    if len(inside) == 1 and inside[0] is not content:
        nested = inside[0]
        # Such as `{"model": {"state_dict": …}}`.
        return (
            nested
            if _names_network(nested) or not nested.get("state_dict")
            else _network_in(nested["state_dict"])
        )
    tensors = [isinstance(value, PickledTensor | Opaque) for value in content.values()]
    return content if not inside and any(tensors) else None


def _names_network(content: Mapping[Any, Any]) -> bool:
    """Whether a dictionary has the first kernel of a SuperPoint."""
    return any(isinstance(key, str) and key.endswith(tuple(FIRST_KEYS)) for key in content)


def _as_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Convert a tensor to NumPy; floats become float32, because NumPy lacks some types."""
    values: NDArray[Any] = (
        tensor.detach().float() if tensor.is_floating_point() else tensor
    ).numpy()
    return values


def refuse_other_files(path: Path) -> None:
    """Refuse files of other kinds by name, such as web pages from failed downloads."""
    try:
        with path.open("rb") as file:
            start = file.read(200)
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror or error}") from None
    safe = path.suffix == SAFE_SUFFIX
    text = start.lstrip().lower()
    if not start:
        raise WeightsError(f"{path} is empty and {_NO_KIND[safe]}: fetch or save it again")
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not weights: fetch the file itself (git lfs pull)"
        )
    if text.startswith((b"<!doctype", b"<html")):
        raise WeightsError(f"{path} is a web page, not weights: download the file itself")
    # Safetensors: a length of 8 bytes, then JSON.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size:
        if safe:
            return
        raise WeightsError(
            f"{path} holds safetensors, {_NO_KIND[safe]}: rename it to {path.stem}{SAFE_SUFFIX}"
        )
    if safe and start.startswith((b"PK", b"\x80")):
        raise WeightsError(
            f"{path} is a file of torch.save, {_NO_KIND[safe]}: rename it to {path.stem}.pth"
        )
    if path.suffix == ".onnx" or (
        start.startswith(b"\x08") and start[2:3] in (b"\x12", b"\x3a", b"\x1a")
    ):
        raise WeightsError(
            f"{path} is an ONNX model, {_NO_KIND[safe]}: give the weights that it was exported from"
        )


def rename_parameters(state: State, path: Path) -> tuple[State, Layout]:
    """Rename the network's parameters to the modules of `SuperPoint`; also return the layout."""
    prefix, layout = _found_network(state, path)
    inside = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    if len(inside) < len(state):
        notice(
            _logger,
            "other_networks",
            "%s: took the SuperPoint at %s and left out %s of other networks",
            path,
            one_line(prefix.rstrip(".")),
            counted(len(state) - len(inside), "tensor"),
            count=len(state) - len(inside),
        )
    renamed: State = {}
    for key, value in inside.items():
        if layout == "plain":
            name = _plain_name(key, path)
        else:
            name = _open_name(key, path) if layout == "open" else _transformers_name(key, path)
        if name in renamed:
            raise WeightsError(
                f"{path} holds {name} under two names, one of them {one_line(key)}: "
                "save one network alone"
            )
        renamed[name] = value
    return renamed, layout


def _found_network(state: State, path: Path) -> tuple[str, Layout]:
    """Find the prefix of the SuperPoint's keys (such as `keypoint_detector.`), and its layout."""
    found = {
        key.removesuffix(first): layout
        for key in state
        for first, layout in FIRST_KEYS.items()
        if key == first or key.endswith(f".{first}")
    }
    if not found:
        raise WeightsError(
            f"{path} holds no SuperPoint weights: expected keys like {', '.join(FIRST_KEYS)}, "
            f"found {listed(state, 3)}"
        )
    if "" in found:
        return "", found[""]
    if len(found) > 1:
        raise WeightsError(
            f"{path} holds {len(found)} SuperPoints, at {one_line(' and '.join(sorted(found)))}: "
            "save one of them alone"
        )
    return found.popitem()


def _plain_name(key: str, path: Path) -> str:
    """Rename a key of the layout `plain`."""
    layer, _, rest = key.partition(".")
    if _PLAIN_LAYER.fullmatch(layer) is None:
        raise WeightsError(
            f"{path}: the weights do not fit SuperPoint: {one_line(key)} is not part of it: "
            "remove it from the file"
        )
    return key if rest.startswith(("conv.", "bn.")) else f"{layer}.conv.{rest}"


def _transformers_name(key: str, path: Path) -> str:
    """Rename a key of the layout `transformers`."""
    match = _TRANSFORMERS_KEY.fullmatch(key)
    if match is None:
        raise WeightsError(
            f"{path}: unknown key {one_line(key)} among the weights of transformers' SuperPoint"
        )
    if match["block"] is None:
        return f"conv{_TRANSFORMERS_HEADS[match['head']]}{match['layer']}.conv.{match['rest']}"
    stage = int(match["block"]) + 1
    if stage > len("1234"):
        raise WeightsError(
            f"{path}: expected 4 blocks of convolutions as SuperPoint has, found {one_line(key)}"
        )
    return f"conv{stage}{match['layer']}.conv.{match['rest']}"


def _open_name(key: str, path: Path) -> str:
    """Rename a key of the layout `open`."""
    match = _OPEN_KEY.fullmatch(key)
    if match is None:
        raise WeightsError(
            f"{path}: unknown key {one_line(key)} among the weights of the open retraining"
        )
    _, stage, block, head, head_block, part, rest = match.groups()
    layer = (
        f"{int(stage) + 1}{'ab'[int(block)]}"
        if stage
        else f"{_OPEN_HEADS[head]}{'ab'[int(head_block)]}"
    )
    return f"conv{layer}.{part}.{rest}"


def kernels_of(state: Mapping[str, NDArray[Any]]) -> State:
    """Return the kernels of the convolutions by layer (1a, Pa, S1 …)."""
    return {
        key.split(".")[0][4:]: value for key, value in state.items() if key.endswith(".conv.weight")
    }


def stages_of(kernels: Mapping[str, NDArray[Any]]) -> list[list[str]]:
    """Return the names of the layers of each encoder stage."""
    return [sorted(layer for layer in kernels if layer[0] == stage) for stage in "1234"]


def check_parameters(state: State, path: Path) -> None:
    """Refuse parameters that do not form a SuperPoint."""
    kernels = kernels_of(state)
    missing = [f"conv{head}" for head in _HEADS if head not in kernels]
    for stage, layers in zip("1234", stages_of(kernels), strict=True):
        expected = [f"{stage}{letter}" for letter in "abcdefgh"[: max(len(layers), 1)]]
        missing += [f"conv{layer}" for layer in expected if layer not in layers]
    if missing:
        raise WeightsError(
            f"{path}: incomplete SuperPoint weights, missing {', '.join(sorted(missing))}"
        )
    for layer, kernel in kernels.items():
        if kernel.ndim != 4 or kernel.size == 0:
            raise WeightsError(
                f"{path}: conv{layer}: expected a kernel (outputs, inputs, height, width), "
                f"found {kernel.shape}"
            )
    _check_shapes(state, kernels, path)


def _check_shapes(state: State, kernels: State, path: Path) -> None:
    """Check all shapes before a network is built: one wrong width could make it huge."""
    batch_norm = FIRST_NORM in state
    shapes = expected_shapes({layer: kernel.shape for layer, kernel in kernels.items()}, batch_norm)
    counters = {
        key.replace("running_mean", _COUNTER): () for key in shapes if key.endswith("running_mean")
    }
    for key, values in state.items():
        expected = (shapes | counters).get(key)
        if expected is None:
            raise WeightsError(
                f"{path}: the weights do not fit SuperPoint: "
                f"{one_line(key)} {values.shape} is not part of it: remove it from the file"
            )
        if values.shape != expected:
            raise WeightsError(
                f"{path}: the weights do not fit SuperPoint: "
                f"expected {key} of the shape {expected}, found {values.shape}"
            )
    absent = sorted(shapes.keys() - state.keys())
    if absent:
        raise WeightsError(
            f"{path}: incomplete SuperPoint weights, missing {', '.join(absent[:5])}"
        )


def as_floats(values: NDArray[Any], key: str, path: Path) -> NDArray[np.float32]:
    """Convert numbers to float32; refuse integers and numbers that are not finite or too large."""
    if values.dtype.kind != "f":
        hint = ": is it quantised?" if values.dtype.kind in "iu" else ""
        raise WeightsError(
            f"{path}: {key} holds {values.dtype}, expected floating point numbers{hint}"
        )
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(values, np.float32).reshape(values.shape)
    nan = int(np.count_nonzero(np.isnan(floats)))
    infinite = int(np.count_nonzero(np.isinf(floats)))
    if nan or infinite:
        kinds = " or ".join(["NaN"] * bool(nan) + ["infinite"] * bool(infinite))
        large = " in 32 bits" if np.isfinite(values).all() else ""
        raise WeightsError(
            f"{path}: {nan + infinite} of the {values.size} numbers of {key} are {kinds}{large}"
        )
    largest = float(np.abs(floats).max(initial=0.0))
    if largest > _LARGEST_WEIGHT:
        raise WeightsError(
            f"{path}: {key} holds {largest:g}, expected at most {_LARGEST_WEIGHT:g}: is it damaged?"
        )
    if key.endswith("running_var") and np.any(floats < 0):
        raise WeightsError(
            f"{path}: {key} holds variances below 0, which lead to NaN: {floats.min():g} and others"
        )
    return floats


def as_modules_hold_it(state: Mapping[str, NDArray[Any]], path: Path) -> State:
    """Convert numbers to the types of PyTorch's modules: a file and its network share a digest."""
    held: State = {
        key.replace("running_mean", _COUNTER): np.zeros((), np.int64)
        for key in state
        if key.endswith("running_mean")
    }
    rounded = 0
    for key, values in state.items():
        if key.endswith(_COUNTER):
            # The counter has no effect here; in half precision it may have overflowed.
            whole = (
                values.dtype.kind in "iufb" and np.isfinite(values) and 0 <= float(values) < 2**63
            )
            held[key] = np.array(int(values) if whole else 0, np.int64)
            continue
        held[key] = as_floats(values, key, path)
        rounded += int(np.count_nonzero(held[key] != values)) if values.dtype.itemsize > 4 else 0
    if rounded:
        notice(
            _logger,
            "weights_rounded",
            "%s: %s rounded to 32 bits",
            path,
            counted(rounded, "number was", "numbers were"),
            count=rounded,
        )
    return held


def listed(names: Iterable[Any], most: int) -> str:
    """List the first `most` names in one line."""
    return ", ".join(one_line(name, 80) for name in sorted(map(str, names))[:most]) or "nothing"


def one_line(found: object, most: int = 300) -> str:
    """Convert text to one line of printable characters, at most `most` of them."""
    text = "".join(
        each if each.isprintable() else f"\\u{ord(each):04x}"
        for each in " ".join(str(found).split())
    )
    return text if len(text) <= most else text[: most - 3] + "..."


def card_of(
    model: type[AnyCard], metadata: Mapping[str, str], texts: Sequence[str], path: Path
) -> AnyCard:
    """Return the card in the metadata of a weights file; unknown keys are ignored.

    Args:
        model: class of the card.
        metadata: text or JSON by key.
        texts: fields of the card that are plain text; the others are JSON.
        path: the file, for messages.

    Raises:
        WeightsError: the card is damaged.
    """
    known = [name for name in model.model_fields if name in metadata]
    try:
        return model.model_validate(
            {
                name: metadata[name] if name in texts else json.loads(metadata[name])
                for name in known
            }
        )
    except ValidationError as error:
        raise WeightsError(
            f"{path}: the card in its metadata is damaged: {describe_errors(error)}"
        ) from None
    except json.JSONDecodeError as error:
        raise WeightsError(
            f"{path}: the card in its metadata is damaged: expected JSON, found {error.doc!r}"
        ) from None
