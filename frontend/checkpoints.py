"""Reads SuperPoint weights, and the codebook beside them.

Layouts: our safetensors, Magic Leap's release, the open retraining, and what the library `transformers` saves.

Each layout is renamed to the modules of `SuperPoint`; widths are read off the shapes. PyTorch takes seconds to
import: it is needed for .pth files and for the network, which other engines with a converted model do without.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from spslam.codebook import KEY_PREFIX, Codebook
from spslam.errors import WeightsError
from spslam.notices import notice

from .decoder import Sampling
from .descriptors import DEFAULT_MAX_DISTANCE

if TYPE_CHECKING:
    import torch

    from .superpoint import BatchNorm, SuperPoint

# Parameters by name.
State = dict[str, NDArray[Any]]
Layout = Literal["plain", "open", "transformers"]

_logger = logging.getLogger(__name__)

# In the box, the default first.
BUILT_IN = ("superpoint_lite", "superpoint")
# Each layout's rule where the file does not say.
_OWN_SAMPLING = Sampling("bicubic", align_corners=False)
_MAGIC_LEAP_SAMPLING = Sampling("bilinear", align_corners=True)
_OPEN_SAMPLING = Sampling("bilinear", align_corners=False)

# Safetensors' names of the numbers that NumPy has.
_NUMPY_TYPES = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
# Of batches that batch norm has seen; older files have none.
_COUNTER = "num_batches_tracked"
_HEADS = ("Pa", "Pb", "Da", "Db")
_OPEN_HEADS = {"detector": "P", "descriptor": "D"}
# The first kernel of each layout. What stands before it, such as `module.`, stands before every key of the network.
_FIRST_KEYS: dict[str, Layout] = {
    "conv1a.weight": "plain",
    "conv1a.conv.weight": "plain",
    "backbone.0.0.conv.weight": "open",
    "encoder.conv_blocks.0.conv_a.weight": "transformers",
}
# In a folder of `transformers`, the first that is there.
_FOLDER_FILES = ("model.safetensors", "model.*.safetensors", "pytorch_model.bin", "pytorch_model.*.bin")
_FOLDER_STEMS = ("model", "pytorch_model")
# Modules of `transformers` by our letters; stages 1 to 4 are `conv_blocks` 0 to 3.
_TRANSFORMERS_KEY = re.compile(
    r"(?:encoder\.conv_blocks\.(?P<block>\d+)\.conv|(?P<head>keypoint_decoder\.conv_score|"
    r"descriptor_decoder\.conv_descriptor))_(?P<layer>[ab])\.(?P<rest>weight|bias)"
)
_TRANSFORMERS_HEADS = {"keypoint_decoder.conv_score": "P", "descriptor_decoder.conv_descriptor": "D"}
_OPEN_KEY = re.compile(r"(backbone\.([0-3])\.([01])|(detector|descriptor)\.([01]))\.(conv|bn)\.(\w+)")


def find_weights(weights: str | Path | None = None) -> Path:
    """The file of weights that are given by path or, those in the box, by name (one of `BUILT_IN`); None: the default.

    A path is a file, or a folder that `save_pretrained` of `transformers` wrote.

    Raises:
        WeightsError: there is no such file.
    """
    name = BUILT_IN[0] if weights is None else str(weights)
    if name in BUILT_IN:
        # Wheels are unpacked: what is in a package is a file.
        return Path(str(resources.files("spslam.frontend.weights") / f"{name}.safetensors"))
    path = Path(name)
    if path.is_dir():
        return _file_in(path)
    if not path.is_file():
        raise WeightsError(
            f"no weights file at {name}: give a .safetensors or .pth file, a folder that transformers saved, "
            f"or one of the box: {', '.join(BUILT_IN)}"
        )
    return path


def weights_name(weights: str | Path | None = None) -> str:
    """What weights are called: as their file, or as the folder of a file that has the name of all such files."""
    path = find_weights(weights)
    stem = path.name.split(".")[0]
    return path.absolute().parent.name if stem in _FOLDER_STEMS else path.stem


def _file_in(folder: Path) -> Path:
    found = [path for pattern in _FOLDER_FILES for path in sorted(folder.glob(pattern)) if path.is_file()]
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
    """A network before there is one: its parameters, and what else its weights say.

    Attributes:
        name: the file, for messages.
        state: parameters by the names of `SuperPoint`'s modules: float32, and int64 where batch norm counts.
        batch_norm, sampling, max_distance: see `SuperPoint`.
    """

    name: str
    state: State
    batch_norm: BatchNorm
    sampling: Sampling
    max_distance: float

    @classmethod
    def of(cls, network: SuperPoint) -> Checkpoint:
        """Of a network that is there."""
        state = {name: values.detach().cpu().numpy() for name, values in network.state_dict().items()}
        return cls("the network", state, network.batch_norm, network.sampling, network.max_distance)

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for the parameters: descriptors of others mean something else."""
        digest = hashlib.sha256()
        for name, values in sorted(self.state.items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()[:12]

    def network(self) -> SuperPoint:
        """A network with these parameters, in evaluation mode.

        Raises:
            WeightsError: their shapes do not fit together.
        """
        import torch

        from .superpoint import SuperPoint

        weights = _kernels(self.state)
        outputs = {layer: len(weight) for layer, weight in weights.items()}
        network = SuperPoint(
            [outputs[layer] for layer in ("1a", "2a", "3a", "4a", "Da")],
            descriptor_dim=outputs["Db"],
            batch_norm=self.batch_norm,
            sampling=self.sampling,
            depths=[len(layers) for layers in _stages(weights)],
            strided=sum(weights[f"{stage}a"].shape[2] % 2 == 0 for stage in "123"),
            skips="S1" in weights,
            detector_width=outputs["Pa"],
        )
        try:
            network.load_state_dict({key: torch.from_numpy(value) for key, value in self.state.items()})
        except RuntimeError as error:
            raise WeightsError(f"{self.name}: the weights do not fit SuperPoint: {_one_line(error)}") from None
        network.max_distance = self.max_distance
        return network.eval().requires_grad_(False)


def read_checkpoint(weights: str | Path | None = None) -> Checkpoint:
    """What a weights file holds.

    Args:
        weights: a .safetensors file, a file of torch.save (.pth, .bin), both of any layout, a folder of transformers,
            or a name; see `find_weights`.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """
    path = find_weights(weights)
    _refuse_text(path)
    safe = path.suffix == ".safetensors"
    state, metadata = _read_safetensors(path) if safe else (_read_pickle(path), {})
    state, layout = _rename(state, path)
    _check(state, path)
    return Checkpoint(
        name=str(path),
        state=_as_modules_hold_it(state),
        batch_norm="after" if "conv1a.bn.weight" in state else "none",
        sampling=_sampling(metadata, layout, safe, path),
        max_distance=_max_distance(metadata, path),
    )


def load_superpoint(weights: str | Path | None = None) -> SuperPoint:
    """The network with the weights of a file, in evaluation mode; see `read_checkpoint`.

    Raises:
        WeightsError: the file is missing, damaged, of another network, or its shapes do not fit together.
    """
    return read_checkpoint(weights).network()


def read_codebook(weights: str | Path | None = None) -> Codebook | None:
    """The codebook in a weights file, or None where there is none (such as in every .pth file).

    Raises:
        WeightsError: the file is missing or damaged, or its codebook's shapes do not fit together.
    """
    path = find_weights(weights)
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            names = [key for key in file.keys() if key.startswith(KEY_PREFIX)]  # noqa: SIM118
            parts = {name.removeprefix(KEY_PREFIX): file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {' '.join(str(error).split())}") from None
    return _checked(parts, path) if parts else None


def _checked(parts: dict[str, NDArray[np.generic]], path: Path) -> Codebook:
    centres, projection = parts.get("centres"), parts.get("projection")
    fits = centres is not None and centres.ndim == 2
    if fits and centres is not None and projection is not None:
        fits = projection.ndim == 2 and len(projection) == centres.shape[1]
    if not fits or centres is None:
        raise WeightsError(
            f"{path}: expected a codebook of centres (K, d) alone or with a projection (d, D), "
            f"found { ({name: part.shape for name, part in sorted(parts.items())}) }"
        )
    return Codebook(centres.astype(np.float32), None if projection is None else projection.astype(np.float32))


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = [key for key in file.keys() if not key.startswith(KEY_PREFIX)]  # noqa: SIM118
            metadata = file.metadata() or {}
            if all(file.get_slice(name).get_dtype() in _NUMPY_TYPES for name in names):
                return {name: file.get_tensor(name) for name in names}, metadata
        # NumPy has no such numbers.
        with safe_open(path, framework="pt") as file:
            return {name: _as_numpy(file.get_tensor(name)) for name in names}, metadata
    except (SafetensorError, OSError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {_one_line(error)}") from None


def _read_pickle(path: Path) -> State:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        # Bytes of another kind make the unpickler fail in any way; PyTorch's own text advises to load them unsafely.
        raise WeightsError(
            f"{path} is not a file of plain PyTorch weights (nothing else is ever unpickled): expected a dictionary "
            f"of tensors written by torch.save, found what does not load ({type(error).__name__})"
        ) from None

    def is_state(found: object) -> bool:
        return isinstance(found, dict) and all(isinstance(value, torch.Tensor) for value in found.values())

    if isinstance(content, dict) and not is_state(content):
        known = [content[key] for key in ("state_dict", "model_state_dict", "model") if key in content]
        inside = [found for found in content.values() if found and is_state(found)]
        content = known[0] if known else inside[0] if len(inside) == 1 else content
    if not is_state(content):
        found = f"{type(content).__name__}"
        if isinstance(content, dict):
            found = f"a dictionary of {', '.join(sorted(str(key) for key in content)[:5])}"
        raise WeightsError(f"{path}: expected a dictionary of tensors by name, found {found}")
    return {str(key).removeprefix("module."): _as_numpy(value) for key, value in content.items()}


def _as_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Integers as they are, and floating point numbers, of which NumPy lacks some, as float32."""
    values: NDArray[Any] = (tensor.detach().float() if tensor.is_floating_point() else tensor).numpy()
    return values


def _rename(state: State, path: Path) -> tuple[State, Layout]:
    """The network's parameters by the names of our modules, and the layout that they had."""
    prefix, layout = _found_network(state, path)
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if len(inside) < len(state):
        notice(
            _logger,
            "other_networks",
            "%s: took the SuperPoint at %s and left out %d tensors of other networks",
            path,
            prefix.rstrip("."),
            len(state) - len(inside),
            count=len(state) - len(inside),
        )
    if layout == "open":
        return {_open_name(key, path): value for key, value in inside.items()}, layout
    if layout == "transformers":
        return {_transformers_name(key, path): value for key, value in inside.items()}, layout
    return {_plain_name(key): value for key, value in inside.items()}, layout


def _found_network(state: State, path: Path) -> tuple[str, Layout]:
    """What stands before the keys of the SuperPoint in a file (`` or `keypoint_detector.`), and its layout."""
    found = {
        key.removesuffix(first): layout
        for key in state
        for first, layout in _FIRST_KEYS.items()
        if key == first or key.endswith(f".{first}")
    }
    if not found:
        keys = ", ".join(sorted(state)[:3]) or "nothing"
        raise WeightsError(
            f"{path} holds no SuperPoint weights: expected keys like {', '.join(_FIRST_KEYS)}, found {keys}"
        )
    if "" in found:
        return "", found[""]
    if len(found) > 1:
        raise WeightsError(
            f"{path} holds {len(found)} SuperPoints, at {' and '.join(sorted(found))}: save one of them alone"
        )
    return found.popitem()


def _refuse_text(path: Path) -> None:
    """Name what downloads leave behind in place of a file."""
    try:
        with path.open("rb") as file:
            start = file.read(200).lstrip().lower()
    except OSError:
        return
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a pointer of Git LFS and no weights: fetch the file itself (git lfs pull)")
    if start.startswith((b"<!doctype", b"<html")):
        raise WeightsError(f"{path} is a web page and no weights: download the file itself")


def _check(state: State, path: Path) -> None:
    """Refuse parameters that make no SuperPoint, whatever layout they had."""
    kernels = _kernels(state)
    missing = [f"conv{head}" for head in _HEADS if head not in kernels]
    for stage, layers in zip("1234", _stages(kernels), strict=True):
        expected = [f"{stage}{letter}" for letter in "abcdefgh"[: max(len(layers), 1)]]
        missing += [f"conv{layer}" for layer in expected if layer not in layers]
    if missing:
        raise WeightsError(f"{path}: incomplete SuperPoint weights, missing {', '.join(sorted(missing))}")
    for layer, kernel in kernels.items():
        if kernel.ndim != 4 or kernel.size == 0:
            raise WeightsError(
                f"{path}: conv{layer}: expected a kernel (outputs, inputs, height, width), found {kernel.shape}"
            )
    for key, values in state.items():
        if key.endswith(_COUNTER):
            continue
        if values.dtype.kind != "f":
            raise WeightsError(f"{path}: {key} holds {values.dtype}, expected floating point numbers: is it quantised?")
        if not np.isfinite(values).all():
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise WeightsError(f"{path}: {bad} of the {values.size} numbers of {key} are NaN or infinite")


def _plain_name(key: str) -> str:
    layer, _, rest = key.partition(".")
    return key if rest.startswith(("conv.", "bn.")) else f"{layer}.conv.{rest}"


def _transformers_name(key: str, path: Path) -> str:
    match = _TRANSFORMERS_KEY.fullmatch(key)
    if match is None:
        raise WeightsError(f"{path}: unknown key {key} among the weights of transformers' SuperPoint")
    if match["block"] is None:
        return f"conv{_TRANSFORMERS_HEADS[match['head']]}{match['layer']}.conv.{match['rest']}"
    stage = int(match["block"]) + 1
    if stage > len("1234"):
        raise WeightsError(f"{path}: expected 4 blocks of convolutions as SuperPoint has, found {key}")
    return f"conv{stage}{match['layer']}.conv.{match['rest']}"


def _open_name(key: str, path: Path) -> str:
    match = _OPEN_KEY.fullmatch(key)
    if match is None:
        raise WeightsError(f"{path}: unknown key {key} among the weights of the open retraining")
    _, stage, block, head, head_block, part, rest = match.groups()
    layer = f"{int(stage) + 1}{'ab'[int(block)]}" if stage else f"{_OPEN_HEADS[head]}{'ab'[int(head_block)]}"
    return f"conv{layer}.{part}.{rest}"


def _sampling(metadata: dict[str, str], layout: Layout, safe: bool, path: Path) -> Sampling:
    text = metadata.get("descriptor_sampling")
    if text is None:
        if layout == "open":
            return _OPEN_SAMPLING
        if layout == "transformers" or not safe:
            return _MAGIC_LEAP_SAMPLING
        notice(
            _logger,
            "descriptor_sampling",
            "%s does not say how descriptors are read from their map: took %s; Magic Leap's weights want "
            "descriptor_sampling '%s' in the file's metadata",
            path,
            _OWN_SAMPLING,
            _MAGIC_LEAP_SAMPLING,
        )
        return _OWN_SAMPLING
    try:
        return Sampling.parse(text)
    except ValueError as error:
        raise WeightsError(f"{path}: descriptor_sampling: {error}") from None


def _max_distance(metadata: dict[str, str], path: Path) -> float:
    text = metadata.get("max_distance", str(DEFAULT_MAX_DISTANCE))
    try:
        distance = float(text)
    except ValueError:
        distance = math.nan
    if not 0 < distance <= 2:
        raise WeightsError(f"{path}: max_distance must be a distance of unit vectors, above 0 to 2, found {text!r}")
    return distance


def _kernels(state: Mapping[str, NDArray[Any]]) -> State:
    """Kernels of convolutions by layer: 1a, Pa, S1 …"""
    return {key.split(".")[0][4:]: value for key, value in state.items() if key.endswith(".conv.weight")}


def _stages(kernels: Mapping[str, NDArray[Any]]) -> list[list[str]]:
    return [sorted(layer for layer in kernels if layer[0] == stage) for stage in "1234"]


def _as_modules_hold_it(state: Mapping[str, NDArray[Any]]) -> State:
    """Numbers of the types that PyTorch's modules have, so that a file and its network have one digest."""
    counted = {
        key.replace("running_mean", _COUNTER): np.zeros((), np.int64) for key in state if key.endswith("running_mean")
    }
    kinds = {key: np.int64 if key.endswith(_COUNTER) else np.float32 for key in state}
    return counted | {key: np.ascontiguousarray(value, kinds[key]).reshape(value.shape) for key, value in state.items()}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
