"""Size and weights of a matcher as arrays, without PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spslam.typing import Float32Array

if TYPE_CHECKING:
    from .network import MatcherNetwork

# Channels of an attention head.
HEAD_WIDTH = 32


@dataclass(frozen=True)
class MatcherShape:
    """Size of the network.

    Attributes:
        descriptor_dim: numbers of a descriptor.
        width: channels of the states; a multiple of `HEAD_WIDTH`.
        layers: number of layers, each of self- and cross-attention.
    """

    descriptor_dim: int = 128
    width: int = 96
    layers: int = 3

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of the weights by its name."""
        width, double = self.width, 2 * self.width
        sizes = {"input": (width, self.descriptor_dim)}
        for layer in range(self.layers):
            own, other = f"self_attention.{layer}", f"cross_attention.{layer}"
            sizes |= {f"{own}.project": (3 * width, width), f"{other}.key": (width, width)}
            sizes |= {f"{other}.value": (width, width)}
            for name in (own, other):
                sizes |= {f"{name}.merge": (width, width)}
                sizes |= {f"{name}.update.first": (double, double)}
                sizes |= {f"{name}.update.second": (width, double)}
            sizes |= {
                f"heads.{layer}.project": (width, width),
                f"heads.{layer}.matchable": (1, width),
            }
            if layer < self.layers - 1:
                sizes |= {f"confidence.{layer}": (1, width)}
        found: dict[str, tuple[int, ...]] = {"encoding.frequencies.weight": (HEAD_WIDTH // 2, 2)}
        for name, size in sizes.items():
            found |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
            if name.endswith("update.first"):
                norm = name.replace("first", "norm")
                found |= {f"{norm}.weight": (double,), f"{norm}.bias": (double,)}
        return found


@dataclass(frozen=True, eq=False)
class MatcherWeights:
    """A matcher as arrays.

    Attributes:
        shape: size of the network.
        tensors: the weights by the names of PyTorch's parameters.
    """

    shape: MatcherShape
    tensors: Mapping[str, Float32Array]

    @classmethod
    def of(cls, network: MatcherNetwork) -> MatcherWeights:
        """Copy the weights of a network."""
        return cls(
            network.shape,
            {
                name: np.array(value.detach().cpu().float().numpy(), np.float32, order="C")
                for name, value in network.state_dict().items()
            },
        )

    @property
    def digest(self) -> str:
        """A hash of the weights."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for name, value in sorted(self.tensors.items()):
            digest.update(name.encode() + value.tobytes())
        return digest.hexdigest()[:32]
