"""Weights files of matchers as networks of PyTorch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from spslam.errors import WeightsError
from spslam.io.files import write_atomic

from ..superpoint.weights_file import with_sorted_header
from ..superpoint.weights_reading import CHECKSUM, checksum
from .card import MatcherCard, card_metadata, matcher_markdown, read_weights
from .network import MatcherNetwork
from .weights import MatcherWeights

_SUFFIX = ".safetensors"


def describe_matcher(
    network: MatcherNetwork, name: str, extractor: str, **values: Any
) -> MatcherCard:
    """Return the card of a network; `values` are the other fields of `MatcherCard`."""
    return MatcherCard(
        name=name,
        extractor=extractor,
        parameters=network.parameter_count,
        **asdict(network.shape),
        **values,
    )


def write_matcher(network: MatcherNetwork, path: Path, card: MatcherCard) -> None:
    """Write a network with its card, and the card as Markdown beside it; same input, same bytes.

    Raises:
        WeightsError: the suffix is wrong, or weights are not finite.
        OutputError: the file cannot be written.
    """
    if path.suffix != _SUFFIX:
        raise WeightsError(
            f"weights are written to a {_SUFFIX} file, found {path.name}: change the suffix"
        )
    tensors = {
        name: value.detach().cpu().float().contiguous()
        for name, value in network.state_dict().items()
    }
    broken = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        raise WeightsError(
            f"{path} is not written: weights are NaN or infinite in {', '.join(broken)}"
        )
    metadata = card_metadata(card)
    metadata[CHECKSUM] = checksum({key: value.numpy() for key, value in tensors.items()}, metadata)
    write_atomic(path, with_sorted_header(save(tensors, metadata)))
    write_atomic(path.with_suffix(".md"), matcher_markdown(card))


def read_matcher(path: str | Path) -> tuple[MatcherNetwork, MatcherCard]:
    """Read a network, in evaluation mode on the CPU, and its card.

    Raises:
        WeightsError: the file is missing, damaged, or holds no matcher.
    """
    weights, card = read_weights(path)
    return network_of(weights), card


def network_of(weights: MatcherWeights) -> MatcherNetwork:
    """Return a network with these weights, in evaluation mode on the CPU."""
    with torch.random.fork_rng(devices=[]):
        network = MatcherNetwork(weights.shape)
    network.load_state_dict(
        {name: torch.from_numpy(value.copy()) for name, value in weights.tensors.items()}
    )
    return network.eval().requires_grad_(False)
