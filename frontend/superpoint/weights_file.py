"""Weights files: a network with folded batch norm, its card, and its codebook."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spslam.codebook import Codebook
from spslam.errors import WeightsError
from spslam.io.files import write_atomic
from spslam.io.markdown import format_table

from .checkpoints import find_weights, weights_name
from .keypoints import DEFAULT_MAX_DESCRIPTOR_DISTANCE
from .superpoint import PAPER_DEPTHS, ConvBlock, SuperPoint
from .weights_reading import CHECKSUM, card_of, checksum

# The value of `format` in the metadata of spslam's own files.
_FORMAT = "superpoint"
# Suffix of weights files.
_SUFFIX = ".safetensors"


class _CardPart(BaseModel):
    """The base of the card's models: frozen; unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class StageRecord(_CardPart):
    """One stage of a training.

    Attributes:
        stage: shapes, detector, joint, distil or adapt.
        config: hash of the stage's resolved configuration.
        steps: number of optimiser steps.
        images: number of images (for joint: pairs) seen, with repeats.
        minutes: duration.
        init: the initial weights; None: random.
    """

    stage: str
    config: str
    steps: int
    images: int
    minutes: float
    init: str | None = None


class Card(_CardPart):
    """The description of a network in its weights file.

    Attributes:
        name: name of the network.
        widths, depths, descriptor_dim, strided, skips, detector_width: see
            `spslam.frontend.superpoint.superpoint.SuperPoint`.
        parameters: number of parameters of the convolutions, with batch norm folded.
        max_distance: largest L2 distance of matching unit descriptors.
        descriptor_sampling: the text of a `Sampling`, which `load_superpoint` reads.
        training_data: number of images by group, such as a folder's name or `shapes`.
        stages: the stages of the training, in order.
        metrics: the metrics of the evaluation, as JSON.
        licence: licence of the weights.
        created: day of the export. It is given, never read from the clock: the same input gives
            the same bytes.
        commands: the commands that made the file, in order.
        notes: free text.
    """

    name: str
    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int] = PAPER_DEPTHS
    descriptor_dim: int
    strided: int = 0
    skips: bool = False
    detector_width: int | None = None
    parameters: int
    descriptor_sampling: str
    max_distance: float = DEFAULT_MAX_DESCRIPTOR_DISTANCE
    training_data: dict[str, int] = {}
    stages: tuple[StageRecord, ...] = ()
    metrics: dict[str, JsonValue] = {}
    licence: str = "MIT"
    created: date | None = None
    commands: tuple[str, ...] = ()
    notes: str = ""


# Fields that are plain text in the metadata; the other fields are JSON.
_TEXTS = ("name", "descriptor_sampling", "licence", "created", "notes")


def describe_network(
    network: SuperPoint,
    name: str,
    created: date | None = None,
    training_data: Mapping[str, int] | None = None,
    stages: Iterable[StageRecord] = (),
    metrics: Mapping[str, JsonValue] | None = None,
    commands: Iterable[str] = (),
    notes: str = "",
) -> Card:
    """Make the card of a network: its structure is read from it, the rest is given (see `Card`)."""
    return Card(
        name=name,
        created=created,
        training_data=dict(training_data or {}),
        stages=tuple(stages),
        metrics=dict(metrics or {}),
        commands=tuple(commands),
        notes=notes,
        **_structure(network),
    )


def fold_batch_norm(network: SuperPoint) -> SuperPoint:
    """Copy a network with each batch norm folded into the convolution before it.

    The copy is in evaluation mode and on the CPU.

    Raises:
        WeightsError: batch norm follows the ReLU, so it cannot be folded.
    """
    if network.batch_norm == "after":
        raise WeightsError(
            "batch norm after the ReLU cannot be folded into a convolution: "
            "train with batch norm before the ReLU"
        )
    folded = network.variant(batch_norm="none")
    folded.load_state_dict(dict(_folded_state(network)))
    return folded.eval().requires_grad_(False)


def export_weights(
    network: SuperPoint, path: str | Path, card: Card, codebook: Codebook | None = None
) -> None:
    """Write a network with folded batch norm, its card and codebook, and the card as Markdown.

    The Markdown file lies beside the weights file (suffix .md). The same input gives the same
    bytes. `load_superpoint`, `read_card` and `read_codebook` read the weights file.

    Args:
        network: with batch norm before the ReLU, or without.
        path: ends in .safetensors.
        card: must describe this network (see `describe_network`).
        codebook: for place recognition with this network's descriptors; None: without.

    Raises:
        WeightsError: the suffix is wrong, the card or codebook belongs to another network, batch
            norm follows the ReLU, or weights are not finite.
        OutputError: the folder is missing or cannot be written to.
    """
    path = Path(path)
    if path.suffix != _SUFFIX:
        raise WeightsError(
            f"weights are written to a {_SUFFIX} file, found {path.name}: change the suffix"
        )
    folded = fold_batch_norm(network)
    _check_fits(folded, card, codebook)
    tensors = {
        key.replace(".conv.", "."): value.contiguous() for key, value in folded.state_dict().items()
    }
    broken = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        raise WeightsError(
            f"{path} is not written: weights are NaN or infinite in {', '.join(broken)}"
        )
    if codebook is not None:
        tensors |= {key: torch.from_numpy(value) for key, value in codebook.tensors().items()}
    metadata = _metadata(card)
    metadata[CHECKSUM] = checksum({key: value.numpy() for key, value in tensors.items()}, metadata)
    write_atomic(path, with_sorted_header(save(tensors, metadata)))
    write_atomic(path.with_suffix(".md"), card_markdown(card))


def read_card(path: str | Path) -> Card | None:
    """Read the card in a weights file; None if it has none, as .pth files and files of others.

    Raises:
        WeightsError: the file is missing, or it or its card is damaged.
    """
    path = find_weights(path)
    if path.suffix != _SUFFIX:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file: {' '.join(str(error).split())}"
        ) from None
    if metadata.get("format") != _FORMAT:
        return None
    return card_of(Card, metadata, _TEXTS, path)


def network_metadata(weights: str | Path | None, network: SuperPoint) -> dict[str, str]:
    """Return the metadata of an exported model, as text or JSON by key.

    It is the card of the weights. Of weights without a card, it is the name and the structure of
    the network, without a licence.
    """
    card = read_card(find_weights(weights))
    if card is not None:
        return _metadata(card)
    values = {"name": weights_name(weights), **_structure(network)}
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()
    }


def card_markdown(card: Card) -> str:
    """Format the card as a Markdown page."""
    facts = {
        "parameters": f"{card.parameters:,}",
        "widths": _listed(card.widths),
        "depths": _listed(card.depths),
        "resolution": _halvings(card.strided),
        "detector's head": card.detector_width or card.widths[-1],
        "skips to the detector": "yes" if card.skips else "no",
        "descriptor": f"{card.descriptor_dim} numbers",
        "descriptor sampling": card.descriptor_sampling,
        "largest distance of a match": f"{card.max_distance:g}",
        "licence": card.licence,
    }
    if card.created is not None:
        facts["created"] = card.created.isoformat()
    parts = [
        f"# {card.name}",
        "SuperPoint weights for spslam.",
        format_table(["", ""], facts.items()),
    ]
    if card.notes:
        parts.append(card.notes)
    if card.training_data:
        groups = [*card.training_data.items(), ("all", sum(card.training_data.values()))]
        parts += ["## Training data", format_table(["group", "images"], groups)]
    if card.stages:
        header = ["stage", "began with", "steps", "images", "minutes", "configuration"]
        rows = [
            (
                record.stage,
                record.init or "random",
                record.steps,
                record.images,
                record.minutes,
                record.config,
            )
            for record in card.stages
        ]
        parts += ["## Stages", format_table(header, rows)]
    if card.metrics:
        parts += ["## Evaluation", _metrics_table(card.metrics)]
    if card.commands:
        parts += ["## Commands", "```sh\n" + "\n".join(card.commands) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _halvings(strided: int) -> str:
    """Describe how the network halves the resolution three times."""
    times = ("", "once", "twice", "three times")
    ways = {"strided convolutions": strided, "poolings": 3 - strided}
    return "halved " + ", ".join(f"{times[count]} by {way}" for way, count in ways.items() if count)


def _structure(network: SuperPoint) -> dict[str, Any]:
    """Return the fields of a `Card` that describe the network's structure."""
    convolutions = [block.conv for block in network.modules() if isinstance(block, ConvBlock)]
    return {
        "widths": network.widths,
        "depths": network.depths,
        "descriptor_dim": network.descriptor_dim,
        "strided": network.strided,
        "skips": network.skips,
        "detector_width": network.detector_width,
        "parameters": sum(
            parameter.numel() for conv in convolutions for parameter in conv.parameters()
        ),
        "descriptor_sampling": str(network.sampling),
        "max_distance": network.max_descriptor_distance,
    }


def _folded_state(network: SuperPoint) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters by name, with batch norm folded; computed in double precision."""
    for name, block in network.named_modules():
        if not isinstance(block, ConvBlock):
            continue
        weight, bias = block.conv.weight.detach().double().cpu(), block.conv.bias
        shift = (
            torch.zeros(len(weight), dtype=torch.float64)
            if bias is None
            else bias.detach().double().cpu()
        )
        norm = block.bn
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            scale = (
                norm.weight.detach().double().cpu()
                / (norm.running_var.double().cpu() + norm.eps).sqrt()
            )
            weight = weight * scale[:, None, None, None]
            shift = (
                shift - norm.running_mean.double().cpu()
            ) * scale + norm.bias.detach().double().cpu()
        yield f"{name}.conv.weight", weight.float()
        yield f"{name}.conv.bias", shift.float()


def _check_fits(network: SuperPoint, card: Card, codebook: Codebook | None) -> None:
    """Refuse a card or a codebook of another network."""
    for field, value in _structure(network).items():
        if getattr(card, field) != value:
            raise WeightsError(
                f"the card belongs to another network: expected {field} {value}, "
                f"found {getattr(card, field)}; make it with describe_network"
            )
    if codebook is not None and codebook.descriptor_dim != network.descriptor_dim:
        raise WeightsError(
            "the codebook belongs to another network: "
            f"expected one for descriptors of {network.descriptor_dim} numbers, "
            f"found {codebook.descriptor_dim}; learn it from this network's descriptors"
        )


def _metadata(card: Card) -> dict[str, str]:
    """Convert a card to the metadata of a weights file."""
    values = card.model_dump(mode="json", exclude_none=True)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }
    return {"format": _FORMAT} | texts


def with_sorted_header(data: bytes) -> bytes:
    """Sort the keys in a safetensors header: the library writes the metadata in random order."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(
        json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")
    ).encode()
    # Tensors must begin at a multiple of eight bytes.
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _metrics_table(metrics: Mapping[str, JsonValue]) -> str:
    """Format nested metrics as one Markdown table."""
    sets = dict(_metric_sets(metrics, ()))
    columns = list(dict.fromkeys(key for values in sets.values() for key in values))
    rows = [(name, *(_figure(values.get(key)) for key in columns)) for name, values in sets.items()]
    return format_table(["", *columns], rows)


def _metric_sets(
    metrics: Mapping[str, JsonValue], path: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, JsonValue]]]:
    """Yield each group of metrics of one dictionary, with the path of keys to it as its name."""
    values: dict[str, JsonValue] = {
        key: value for key, value in metrics.items() if not isinstance(value, dict)
    }
    if values:
        yield " ".join(path), values
    for key, value in metrics.items():
        if isinstance(value, dict):
            yield from _metric_sets(value, (*path, key))


def _figure(value: JsonValue) -> str:
    """Format one metric; None: empty."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
