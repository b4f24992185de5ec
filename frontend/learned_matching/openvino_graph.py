"""The network as an OpenVINO model, built operation by operation from its weights.

PyTorch is not needed: importing it and tracing the network would take seconds in a run that matches
a few pairs. `network.py` is the same arithmetic in PyTorch; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spslam.typing import Float32Array

from ..engines.openvino_model import load_openvino
from .weights import HEAD_WIDTH, MatcherWeights

# PyTorch's constant in a normalisation over channels.
_EPSILON = 1e-5
# OpenVINO's types cannot be named without importing it.
Node = Any


def build_matcher_openvino(weights: MatcherWeights) -> Any:
    """Return an OpenVINO model for any numbers of points.

    Inputs are positions (1, N, 2) and (1, M, 2) and unit descriptors (1, N, D) and (1, M, D). Its
    outputs are the best partner of each point `index0` (1, N), its log-probability `score0` (1, N),
    and `index1` (1, M).

    Raises:
        MissingDependencyError: OpenVINO is not installed.
    """
    openvino = load_openvino()
    from openvino import opset13

    dim = weights.shape.descriptor_dim
    inputs = [
        opset13.parameter([1, -1, columns], np.float32, name=name)
        for name, columns in (("kpts0", 2), ("kpts1", 2), ("desc0", dim), ("desc1", dim))
    ]
    scores = _Graph(opset13, weights).scores(*inputs)
    outputs = {}
    for axis, number in ((2, 0), (1, 1)):
        best = opset13.topk(scores, np.int32(1), axis, "max", "none")
        outputs[f"index{number}"] = opset13.squeeze(best.output(1), np.array([axis]))
        if number == 0:
            outputs["score0"] = opset13.squeeze(best.output(0), np.array([axis]))
    model = openvino.Model(list(outputs.values()), inputs, "matcher")
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    return model


class _Graph:
    """Makes the operations of the network; names are those of PyTorch's parameters."""

    def __init__(self, operations: Any, weights: MatcherWeights) -> None:
        self._ops = operations
        self._tensors: Mapping[str, Float32Array] = weights.tensors
        self._shape = weights.shape

    def scores(self, kpts0: Node, kpts1: Node, desc0: Node, desc1: Node) -> Node:
        """Return the logarithm (1, N, M) of the probability of each match."""
        states = [self._embedded(desc0), self._embedded(desc1)]
        rotations = [self._rotation(kpts0), self._rotation(kpts1)]
        for layer in range(self._shape.layers):
            states = [
                self._self_attention(f"self_attention.{layer}", *given)
                for given in zip(states, rotations, strict=True)
            ]
            states = self._cross_attention(f"cross_attention.{layer}", *states)
        return self._assignment(f"heads.{self._shape.layers - 1}", *states)

    def _embedded(self, descriptors: Node) -> Node:
        return self._ops.multiply(self._linear("input", descriptors), self._root(0.5))

    def _rotation(self, positions: Node) -> tuple[Node, Node]:
        """Return cosines and sines (1, 1, N, `HEAD_WIDTH`)."""
        ops = self._ops
        angles = ops.matmul(positions, self._tensors["encoding.frequencies.weight"], False, True)
        angles = ops.unsqueeze(ops.concat([angles, angles], -1), np.array([1]))
        return ops.cos(angles), ops.sin(angles)

    def _self_attention(self, name: str, states: Node, rotation: tuple[Node, Node]) -> Node:
        parts = self._ops.split(self._linear(f"{name}.project", states), np.int32(2), 3)
        query, key, value = (self._heads(parts.output(number)) for number in range(3))
        message = self._attend(self._rotated(query, rotation), self._rotated(key, rotation), value)
        return self._updated(name, states, message)

    def _cross_attention(self, name: str, states0: Node, states1: Node) -> list[Node]:
        keys = [self._heads(self._linear(f"{name}.key", each)) for each in (states0, states1)]
        values = [self._heads(self._linear(f"{name}.value", each)) for each in (states0, states1)]
        return [
            self._updated(name, states0, self._attend(keys[0], keys[1], values[1])),
            self._updated(name, states1, self._attend(keys[1], keys[0], values[0])),
        ]

    def _updated(self, name: str, states: Node, message: Node) -> Node:
        """Add what a two-layer network makes of the states and their message."""
        ops, tensors = self._ops, self._tensors
        merged = self._linear(f"{name}.merge", message)
        hidden = self._linear(f"{name}.update.first", ops.concat([states, merged], -1))
        hidden = ops.mvn(hidden, np.array([-1]), True, _EPSILON, "inside_sqrt")
        hidden = ops.multiply(hidden, tensors[f"{name}.update.norm.weight"])
        hidden = ops.add(hidden, tensors[f"{name}.update.norm.bias"])
        hidden = ops.gelu(hidden, "erf")
        return ops.add(states, self._linear(f"{name}.update.second", hidden))

    def _assignment(self, name: str, states0: Node, states1: Node) -> Node:
        ops = self._ops
        projected = [
            ops.multiply(self._linear(f"{name}.project", states), self._root(-0.25))
            for states in (states0, states1)
        ]
        similarity = ops.matmul(projected[0], projected[1], False, True)
        pairs = ops.add(ops.log_softmax(similarity, 1), ops.log_softmax(similarity, 2))
        matchable = [
            self._log_sigmoid(self._linear(f"{name}.matchable", states))
            for states in (states0, states1)
        ]
        turned = ops.transpose(matchable[1], np.array([0, 2, 1]))
        return ops.add(ops.add(pairs, matchable[0]), turned)

    def _linear(self, name: str, states: Node) -> Node:
        product = self._ops.matmul(states, self._tensors[f"{name}.weight"], False, True)
        return self._ops.add(product, self._tensors[f"{name}.bias"])

    def _heads(self, states: Node) -> Node:
        """Split channels (1, N, C) into heads (1, H, N, `HEAD_WIDTH`)."""
        heads = self._shape.width // HEAD_WIDTH
        split = self._ops.reshape(states, np.array([0, 0, heads, HEAD_WIDTH]), True)
        return self._ops.transpose(split, np.array([0, 2, 1, 3]))

    def _rotated(self, states: Node, rotation: tuple[Node, Node]) -> Node:
        """Rotate channel i and i + half of each head by the same angle."""
        ops = self._ops
        halves = ops.split(states, np.int32(3), 2)
        turned = ops.concat([ops.negative(halves.output(1)), halves.output(0)], -1)
        return ops.add(ops.multiply(states, rotation[0]), ops.multiply(turned, rotation[1]))

    def _attend(self, query: Node, key: Node, value: Node) -> Node:
        """Return the messages (1, N, C): means of `value`, weighted by scaled products."""
        ops = self._ops
        message = ops.scaled_dot_product_attention(query, key, value, causal=False)
        message = ops.transpose(message, np.array([0, 2, 1, 3]))
        return ops.reshape(message, np.array([0, 0, self._shape.width]), True)

    def _log_sigmoid(self, logit: Node) -> Node:
        return self._ops.negative(self._ops.softplus(self._ops.negative(logit)))

    def _root(self, power: float) -> Float32Array:
        return np.array(self._shape.width**power, np.float32)
