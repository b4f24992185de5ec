"""Read the tensors of a weights file: safetensors, and plain files of torch.save."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from spslam.errors import WeightsError
from spslam.notices import counted, notice

from .pickled_tensors import Opaque, PickledFile, PickledTensor
from .weights_layouts import FIRST_KEYS, State
from .weights_text import listed, one_line

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger(__name__)

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
