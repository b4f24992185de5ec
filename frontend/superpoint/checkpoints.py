"""Read SuperPoint weights and the codebook in their file.

Layouts: spslam's safetensors, Magic Leap's release, the open retraining, and the files of the
library `transformers`.

Parameters of each layout are renamed to the modules of `SuperPoint`; their shapes give the widths.
PyTorch takes seconds to import. It is imported only to build the network, and for number types that
NumPy lacks; engines with a converted model do not need it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from spslam.codebook import KEY_PREFIX, Codebook
from spslam.errors import WeightsError
from spslam.notices import counted, notice

from .decoder import Sampling
from .descriptors import DEFAULT_MAX_DESCRIPTOR_DISTANCE
from .network_shape import expected_shapes
from .pickled_tensors import Opaque, PickledFile, PickledTensor

if TYPE_CHECKING:
    import torch

    from .superpoint import BatchNorm, SuperPoint

# Parameters by name.
State = dict[str, NDArray[Any]]
Layout = Literal["plain", "open", "transformers"]

_logger = logging.getLogger(__name__)

# Names of the built-in weights, the default first.
BUILT_IN = ("superpoint_lite", "superpoint")
# Descriptor sampling of each layout, for files that do not give their own.
_OWN_SAMPLING = Sampling("bicubic", align_corners=False)
_MAGIC_LEAP_SAMPLING = Sampling("bilinear", align_corners=True)
_OPEN_SAMPLING = Sampling("bilinear", align_corners=False)

# Safetensors' names of the number types that NumPy has.
_NUMPY_TYPES = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
# Name of batch norm's counter of batches; older files lack it.
_COUNTER = "num_batches_tracked"
# The parameter that only networks with batch norm have.
_FIRST_NORM = "conv1a.bn.weight"
# The last component of each parameter's name.
_PARAMETERS = ("weight", "bias", "running_mean", "running_var")
# Suffix of safetensors files.
_SAFE_SUFFIX = ".safetensors"
# Text for a file of the wrong kind, by whether its name has the suffix `_SAFE_SUFFIX`.
_NO_KIND = {True: "not a readable safetensors file", False: "not a file of plain PyTorch weights"}
# Metadata key of spslam's own files; see `checksum`.
CHECKSUM = "sha256"
# Largest absolute weight that is accepted; products of larger ones overflow.
_LARGEST_WEIGHT = 1e9
# Names of layers in the layout `plain`: encoder, heads, skips.
_PLAIN_LAYER = re.compile(r"conv(\d[a-z]|[PD][ab]|S\d)")
# Layers of the heads, and their letters in the open retraining.
_HEADS = ("Pa", "Pb", "Da", "Db")
_OPEN_HEADS = {"detector": "P", "descriptor": "D"}
# The first kernel of each layout. A prefix of it, such as `module.`, is a prefix of every key of
# the network.
_FIRST_KEYS: dict[str, Layout] = {
    "conv1a.weight": "plain",
    "conv1a.conv.weight": "plain",
    "backbone.0.0.conv.weight": "open",
    "encoder.conv_blocks.0.conv_a.weight": "transformers",
}
# Patterns of the weights file in a folder of `transformers`; the first match counts.
_FOLDER_FILES = (
    "model.safetensors",
    "model.*.safetensors",
    "pytorch_model.bin",
    "pytorch_model.*.bin",
)
# Stems of these files; such weights are named after their folder.
_FOLDER_STEMS = ("model", "pytorch_model")
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


def find_weights(weights: str | Path | None = None) -> Path:
    """Return the path of a weights file.

    Args:
        weights: a file, a folder that `save_pretrained` of `transformers` wrote, or a built-in
            name (one of `BUILT_IN`); None: the default.

    Raises:
        WeightsError: there is no such file.
    """
    name = BUILT_IN[0] if weights is None else str(weights)
    if name in BUILT_IN:
        # Wheels are unpacked, so package resources are files.
        return Path(str(resources.files("spslam.frontend.weights") / f"{name}.safetensors"))
    path = Path(name)
    if path.is_dir():
        return _file_in(path)
    if not path.is_file():
        raise WeightsError(
            f"no weights file at {name}: give a .safetensors or .pth file, a folder that "
            f"transformers saved, or a built-in name: {', '.join(BUILT_IN)}"
        )
    return path


def weights_name(weights: str | Path | None = None) -> str:
    """Return the name of weights: of their file, or of the folder that `transformers` saved."""
    path = find_weights(weights)
    stem = path.name.split(".")[0]
    return path.absolute().parent.name if stem in _FOLDER_STEMS else path.stem


def _file_in(folder: Path) -> Path:
    """Find the weights file in a folder that `transformers` saved."""
    found = [
        path for pattern in _FOLDER_FILES for path in sorted(folder.glob(pattern)) if path.is_file()
    ]
    if found:
        return found[0]
    if any(folder.glob("*.index.json")):
        raise WeightsError(
            f"{folder}: the weights are split over several files; save them into one: "
            "model.save_pretrained(folder, max_shard_size='1GB')"
        )
    raise WeightsError(
        f"{folder} is a folder without weights: expected {_FOLDER_FILES[0]} or {_FOLDER_FILES[2]}, "
        "as transformers saves them"
    )


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a weights file: parameters, and the settings to build the network with.

    Attributes:
        name: the file, for messages.
        state: parameters by their names in `SuperPoint`: float32; int64 for the counters of batch
            norm.
        batch_norm, sampling, max_descriptor_distance: see `SuperPoint`.
    """

    name: str
    state: State
    batch_norm: BatchNorm
    sampling: Sampling
    max_descriptor_distance: float

    @classmethod
    def of(cls, network: SuperPoint) -> Checkpoint:
        """Make the checkpoint of a network."""
        state = {
            name: values.detach().cpu().numpy() for name, values in network.state_dict().items()
        }
        return cls(
            "the network",
            state,
            network.batch_norm,
            network.sampling,
            network.max_descriptor_distance,
        )

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the parameters' hash.

        Descriptors of networks with different digests cannot be compared.
        """
        digest = hashlib.sha256()
        for name, values in sorted(self.state.items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()[:12]

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return len(_kernels(self.state)["Db"])

    def network(self) -> SuperPoint:
        """Build the network with these parameters, in evaluation mode.

        Raises:
            WeightsError: the shapes of the parameters do not fit together.
        """
        import torch

        from .superpoint import SuperPoint

        weights = _kernels(self.state)
        outputs = {layer: len(weight) for layer, weight in weights.items()}
        network = SuperPoint(
            [outputs[layer] for layer in ("1a", "2a", "3a", "4a", "Da")],
            descriptor_dim=self.descriptor_dim,
            batch_norm=self.batch_norm,
            sampling=self.sampling,
            depths=[len(layers) for layers in _stages(weights)],
            strided=sum(weights[f"{stage}a"].shape[2] % 2 == 0 for stage in "123"),
            skips="S1" in weights,
            detector_width=outputs["Pa"],
        )
        try:
            network.load_state_dict(
                {key: torch.from_numpy(value) for key, value in self.state.items()}
            )
        except RuntimeError as error:
            raise WeightsError(
                f"{self.name}: the weights do not fit SuperPoint: {_one_line(error)}"
            ) from None
        network.max_descriptor_distance = self.max_descriptor_distance
        return network.eval().requires_grad_(False)


def read_checkpoint(weights: str | Path | None = None) -> Checkpoint:
    """Read a weights file.

    Args:
        weights: a .safetensors file or a file of torch.save (.pth, .bin), of any layout, a folder
            of `transformers`, or a built-in name; see `find_weights`.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """
    path = find_weights(weights)
    _refuse_others(path)
    safe = path.suffix == _SAFE_SUFFIX
    tensors, metadata = read_safetensors(path) if safe else (_read_pickle(path), {})
    state, parts = _divided(tensors) if safe else (tensors, {})
    state, layout = _rename(state, path)
    _check(state, path)
    held = _as_modules_hold_it(state, path)
    if parts:
        _codebook(parts, state, path)
    return Checkpoint(
        name=str(path),
        state=held,
        batch_norm="after" if _FIRST_NORM in state else "none",
        sampling=_sampling(metadata, layout, safe, path),
        max_descriptor_distance=_max_descriptor_distance(metadata, path),
    )


def load_superpoint(weights: str | Path | None = None) -> SuperPoint:
    """Build the network with the weights of a file, in evaluation mode; see `read_checkpoint`.

    Raises:
        WeightsError: the file is missing, damaged or of another network, or its shapes do not fit
            together.
    """
    return read_checkpoint(weights).network()


def read_codebook(weights: str | Path | None = None) -> Codebook | None:
    """Read the codebook in a weights file; None if it has none, as every .pth file.

    Raises:
        WeightsError: the file is missing or damaged, or the shapes of its codebook do not fit
            together.
    """
    path = find_weights(weights)
    if path.suffix != _SAFE_SUFFIX:
        return None
    tensors, _ = read_safetensors(path)
    state, parts = _divided(tensors)
    if not parts:
        return None
    renamed, _ = _rename(state, path)
    return _codebook(parts, renamed, path)


def _divided(tensors: State) -> tuple[State, State]:
    """Split tensors into the network's and the codebook's, the latter without their prefix."""
    network = {key: value for key, value in tensors.items() if not key.startswith(KEY_PREFIX)}
    rest = {
        key.removeprefix(KEY_PREFIX): value
        for key, value in tensors.items()
        if key.startswith(KEY_PREFIX)
    }
    return network, rest


def _codebook(parts: State, state: State, path: Path) -> Codebook:
    """Build the codebook from its tensors, checked against the network's descriptors."""
    shapes = {name: part.shape for name, part in sorted(parts.items())}
    centres, projection = parts.get("centres"), parts.get("projection")
    length = _kernels(state)["Db"].shape[0] if "Db" in _kernels(state) else -1
    fits = centres is not None and centres.ndim == 2 and len(parts) == 1 + (projection is not None)
    if fits and centres is not None:
        rows = centres if projection is None else projection
        fits = (
            rows.ndim == 2
            and rows.shape[1] == length
            and centres.shape[1] == len(rows if projection is not None else centres.T)
        )
    if not fits or centres is None or centres.size == 0:
        raise WeightsError(
            f"{path}: expected a codebook for descriptors of {length} numbers: centres (K, d) with "
            f"a projection (d, {length}), or centres (K, {length}) alone; found {_one_line(shapes)}"
        )
    floats = {name: _as_floats(part, f"{KEY_PREFIX}{name}", path) for name, part in parts.items()}
    return Codebook(floats["centres"], floats.get("projection"))


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
            f"{path} is not a readable safetensors file: {_one_line(error)}"
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


def _read_pickle(path: Path) -> State:
    """Read the tensors in a file of torch.save."""
    file = PickledFile(path)
    found = _network_in(file.content)
    if found is None:
        what = type(file.content).__name__
        if isinstance(file.content, Opaque):
            what = _one_line(file.content.what)
        elif isinstance(file.content, dict):
            what = f"a dictionary of {_listed(file.content, 5)}"
        raise WeightsError(f"{path}: expected a dictionary of tensors by name, found {what}")
    state: State = {}
    left_out = 0
    for given, value in found.items():
        key = str(given).removeprefix("module.")
        if isinstance(value, PickledTensor):
            if key in state:
                raise WeightsError(
                    f"{path} holds two tensors named {_one_line(key)}: save one network alone"
                )
            state[key] = file.array(value, _one_line(key))
        elif key.rpartition(".")[2] in _PARAMETERS:
            what = value.what if isinstance(value, Opaque) else type(value).__name__
            raise WeightsError(
                f"{path} is not a file of plain PyTorch weights, and nothing else is unpickled: "
                f"{_one_line(key)} is {_one_line(what)}, "
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
    return any(isinstance(key, str) and key.endswith(tuple(_FIRST_KEYS)) for key in content)


def _as_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Convert a tensor to NumPy; floats become float32, because NumPy lacks some types."""
    values: NDArray[Any] = (
        tensor.detach().float() if tensor.is_floating_point() else tensor
    ).numpy()
    return values


def _rename(state: State, path: Path) -> tuple[State, Layout]:
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
            _one_line(prefix.rstrip(".")),
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
                f"{path} holds {name} under two names, one of them {_one_line(key)}: "
                "save one network alone"
            )
        renamed[name] = value
    return renamed, layout


def _found_network(state: State, path: Path) -> tuple[str, Layout]:
    """Find the prefix of the SuperPoint's keys (such as `keypoint_detector.`), and its layout."""
    found = {
        key.removesuffix(first): layout
        for key in state
        for first, layout in _FIRST_KEYS.items()
        if key == first or key.endswith(f".{first}")
    }
    if not found:
        raise WeightsError(
            f"{path} holds no SuperPoint weights: expected keys like {', '.join(_FIRST_KEYS)}, "
            f"found {_listed(state, 3)}"
        )
    if "" in found:
        return "", found[""]
    if len(found) > 1:
        raise WeightsError(
            f"{path} holds {len(found)} SuperPoints, at {_one_line(' and '.join(sorted(found)))}: "
            "save one of them alone"
        )
    return found.popitem()


def _refuse_others(path: Path) -> None:
    """Refuse files of other kinds by name, such as web pages from failed downloads."""
    try:
        with path.open("rb") as file:
            start = file.read(200)
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror or error}") from None
    safe = path.suffix == _SAFE_SUFFIX
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
            f"{path} holds safetensors, {_NO_KIND[safe]}: rename it to {path.stem}{_SAFE_SUFFIX}"
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


def _check(state: State, path: Path) -> None:
    """Refuse parameters that do not form a SuperPoint."""
    kernels = _kernels(state)
    missing = [f"conv{head}" for head in _HEADS if head not in kernels]
    for stage, layers in zip("1234", _stages(kernels), strict=True):
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
    batch_norm = _FIRST_NORM in state
    shapes = expected_shapes({layer: kernel.shape for layer, kernel in kernels.items()}, batch_norm)
    counters = {
        key.replace("running_mean", _COUNTER): () for key in shapes if key.endswith("running_mean")
    }
    for key, values in state.items():
        expected = (shapes | counters).get(key)
        if expected is None:
            raise WeightsError(
                f"{path}: the weights do not fit SuperPoint: "
                f"{_one_line(key)} {values.shape} is not part of it: remove it from the file"
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


def _as_floats(values: NDArray[Any], key: str, path: Path) -> NDArray[np.float32]:
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


def _plain_name(key: str, path: Path) -> str:
    """Rename a key of the layout `plain`."""
    layer, _, rest = key.partition(".")
    if _PLAIN_LAYER.fullmatch(layer) is None:
        raise WeightsError(
            f"{path}: the weights do not fit SuperPoint: {_one_line(key)} is not part of it: "
            "remove it from the file"
        )
    return key if rest.startswith(("conv.", "bn.")) else f"{layer}.conv.{rest}"


def _transformers_name(key: str, path: Path) -> str:
    """Rename a key of the layout `transformers`."""
    match = _TRANSFORMERS_KEY.fullmatch(key)
    if match is None:
        raise WeightsError(
            f"{path}: unknown key {_one_line(key)} among the weights of transformers' SuperPoint"
        )
    if match["block"] is None:
        return f"conv{_TRANSFORMERS_HEADS[match['head']]}{match['layer']}.conv.{match['rest']}"
    stage = int(match["block"]) + 1
    if stage > len("1234"):
        raise WeightsError(
            f"{path}: expected 4 blocks of convolutions as SuperPoint has, found {_one_line(key)}"
        )
    return f"conv{stage}{match['layer']}.conv.{match['rest']}"


def _open_name(key: str, path: Path) -> str:
    """Rename a key of the layout `open`."""
    match = _OPEN_KEY.fullmatch(key)
    if match is None:
        raise WeightsError(
            f"{path}: unknown key {_one_line(key)} among the weights of the open retraining"
        )
    _, stage, block, head, head_block, part, rest = match.groups()
    layer = (
        f"{int(stage) + 1}{'ab'[int(block)]}"
        if stage
        else f"{_OPEN_HEADS[head]}{'ab'[int(head_block)]}"
    )
    return f"conv{layer}.{part}.{rest}"


def _sampling(metadata: dict[str, str], layout: Layout, safe: bool, path: Path) -> Sampling:
    """Read the descriptor sampling from the metadata, or choose it by the layout."""
    text = metadata.get("descriptor_sampling")
    if text is None:
        if layout == "open":
            return _OPEN_SAMPLING
        if layout == "transformers" or not safe:
            return _MAGIC_LEAP_SAMPLING
        notice(
            _logger,
            "descriptor_sampling",
            "%s does not say how descriptors are read from their map, used %s. For Magic Leap's "
            "weights, set descriptor_sampling to '%s' in the file's metadata",
            path,
            _OWN_SAMPLING,
            _MAGIC_LEAP_SAMPLING,
        )
        return _OWN_SAMPLING
    try:
        return Sampling.parse(text)
    except ValueError as error:
        raise WeightsError(f"{path}: descriptor_sampling: {error}") from None


def _max_descriptor_distance(metadata: dict[str, str], path: Path) -> float:
    """Read the largest L2 distance of a match from the metadata, or return the default."""
    text = metadata.get("max_distance", str(DEFAULT_MAX_DESCRIPTOR_DISTANCE))
    try:
        distance = float(text)
    except ValueError:
        distance = math.nan
    if not 0 < distance <= 2:
        raise WeightsError(
            f"{path}: max_distance must be a distance of unit vectors (0 < d <= 2), found {text!r}"
        )
    return distance


def _kernels(state: Mapping[str, NDArray[Any]]) -> State:
    """Return the kernels of the convolutions by layer (1a, Pa, S1 …)."""
    return {
        key.split(".")[0][4:]: value for key, value in state.items() if key.endswith(".conv.weight")
    }


def _stages(kernels: Mapping[str, NDArray[Any]]) -> list[list[str]]:
    """Return the names of the layers of each encoder stage."""
    return [sorted(layer for layer in kernels if layer[0] == stage) for stage in "1234"]


def _as_modules_hold_it(state: Mapping[str, NDArray[Any]], path: Path) -> State:
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
        held[key] = _as_floats(values, key, path)
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


def _listed(names: Iterable[Any], most: int) -> str:
    """List the first `most` names in one line."""
    return ", ".join(_one_line(name, 80) for name in sorted(map(str, names))[:most]) or "nothing"


def _one_line(found: object, most: int = 300) -> str:
    """Convert text to one line of printable characters, at most `most` of them."""
    text = "".join(
        each if each.isprintable() else f"\\u{ord(each):04x}"
        for each in " ".join(str(found).split())
    )
    return text if len(text) <= most else text[: most - 3] + "..."
