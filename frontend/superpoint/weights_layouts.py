"""Layouts of SuperPoint weights: whose names of parameters a file has, and their names here."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from spslam.errors import WeightsError
from spslam.notices import counted, notice

from .weights_text import listed, one_line

_logger = logging.getLogger(__name__)

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
