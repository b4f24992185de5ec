"""Check the parameters of a weights file: their shapes, types and values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import WeightsError
from spslam.notices import counted, notice

from .network_shape import expected_shapes
from .weights_layouts import State, kernels_of, stages_of
from .weights_text import one_line

_logger = logging.getLogger(__name__)

# Name of batch norm's counter of batches; older files lack it.
_COUNTER = "num_batches_tracked"
# The parameter that only networks with batch norm have.
FIRST_NORM = "conv1a.bn.weight"
# Largest absolute weight that is accepted; products of larger ones overflow.
_LARGEST_WEIGHT = 1e9
# Layers of the heads, and their letters in the open retraining.
_HEADS = ("Pa", "Pb", "Da", "Db")


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
