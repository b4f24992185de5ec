"""The card of a matcher's weights file, and reading the file without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, JsonValue

from spslam.errors import WeightsError
from spslam.io.markdown import format_table

from ..superpoint.checkpoints import BUILT_IN, find_weights
from ..superpoint.weights_reading import card_of, read_safetensors
from .weights import HEAD_WIDTH, MatcherShape, MatcherWeights

# The value of `format` in the metadata.
_FORMAT = "spslam-matcher"
# Fields that are plain text in the metadata; the other fields are JSON.
_TEXTS = ("name", "extractor", "licence", "notes")
# Largest size of a network in a file, so that a damaged card cannot ask for any amount of memory.
_LARGEST = MatcherShape(2048, 1024, 32)


class MatcherCard(BaseModel):
    """The description of a matcher in its weights file.

    Attributes:
        name: name of the matcher.
        extractor: identity of the extractor whose features it was trained with, which has a hash of
            the extractor's weights.
        descriptor_dim, width, layers: see `MatcherShape`.
        parameters: number of parameters.
        training_data: number of photographs, of spots of worlds, and of pairs trained with.
        steps: number of optimiser steps.
        minutes: duration of the training.
        metrics: metrics of the validation.
        licence: licence of the weights.
        commands: the commands that made the file.
        notes: free text.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    extractor: str
    descriptor_dim: int
    width: int
    layers: int
    parameters: int
    training_data: dict[str, int] = {}
    steps: int = 0
    minutes: float = 0.0
    metrics: dict[str, JsonValue] = {}
    licence: str = "MIT"
    commands: tuple[str, ...] = ()
    notes: str = ""

    @property
    def shape(self) -> MatcherShape:
        """Size of the network."""
        return MatcherShape(self.descriptor_dim, self.width, self.layers)


def card_metadata(card: MatcherCard) -> dict[str, str]:
    """Return a card as metadata of a file: text or JSON by key."""
    return {
        key: value if key in _TEXTS else json.dumps(value, sort_keys=True)
        for key, value in card.model_dump(mode="json").items()
    } | {"format": _FORMAT}


def matcher_beside(weights: str | Path) -> Path:
    """Return where a matcher of some weights lies: `NAME.matcher.safetensors` beside them."""
    path = Path(weights)
    return path.with_name(f"{path.stem}.matcher.safetensors")


def read_weights(path: str | Path) -> tuple[MatcherWeights, MatcherCard]:
    """Read the weights of a matcher and its card.

    Args:
        path: a file, or the name of built-in weights of SuperPoint: the matcher of their features.

    Raises:
        WeightsError: the file is missing, damaged, or holds no matcher.
    """
    name = str(path)
    path = matcher_beside(find_weights(name)) if name in BUILT_IN else Path(path)
    if not path.is_file():
        if name in BUILT_IN:
            raise WeightsError(
                f"no matcher of {name} is built in: train one (spslam train matcher)"
            )
        raise WeightsError(f"expected the weights of a matcher at {path}, found none")
    tensors, metadata = read_safetensors(path)
    card = _card(path, metadata)
    expected = card.shape.parameters()
    wrong = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in expected or name not in tensors or tensors[name].shape != expected[name]
    )
    if wrong:
        raise WeightsError(
            f"{path}: the weights do not fit the card: missing, unknown or of another size are "
            f"{', '.join(wrong[:3])}{' and others' if len(wrong) > 3 else ''}"
        )
    values = {
        name: np.ascontiguousarray(value, np.float32) for name, value in sorted(tensors.items())
    }
    if not all(bool(np.isfinite(value).all()) for value in values.values()):
        raise WeightsError(f"{path} has NaN or infinite weights: train it again")
    return MatcherWeights(card.shape, values), card


def check_belongs(card: MatcherCard, extractor: str, path: str | Path) -> None:
    """Refuse features that a matcher was not trained with.

    Args:
        card: of the matcher.
        extractor: identity of the extractor in use.
        path: the matcher's file, for the message.

    Raises:
        WeightsError: the matcher belongs to the weights of another extractor.
    """
    if extractor.partition(" ")[0] != card.extractor.partition(" ")[0]:
        raise WeightsError(
            f"{path} matches features of {card.extractor}, found {extractor or 'unknown ones'}: "
            "use --extractor superpoint, or matching.learned=off"
        )
    if card.extractor != extractor:
        raise WeightsError(
            f"{path} matches features of {card.extractor}, found {extractor}: train a matcher for "
            "these weights (spslam train matcher --set views.weights=FILE), or use "
            "matching.learned=off"
        )


def matcher_markdown(card: MatcherCard) -> str:
    """Return the card as Markdown."""
    rows = [
        ["features", card.extractor],
        ["descriptors", f"{card.descriptor_dim} numbers"],
        ["network", f"{card.layers} layers, {card.width} channels"],
        ["parameters", f"{card.parameters:,}"],
        ["licence", card.licence],
        ["training", f"{card.steps:,} steps, {card.minutes:.0f} min"],
        *([f"data: {name}", f"{count:,}"] for name, count in card.training_data.items()),
        *([f"validation: {name}", _text(value)] for name, value in card.metrics.items()),
    ]
    text = (
        f"# {card.name}\n\nA learned matcher of keypoints.\n\n"
        + format_table(["", ""], rows)
        + "\n"
    )
    if card.notes:
        text += f"\n{card.notes}\n"
    if card.commands:
        text += "\n```sh\n" + "\n".join(card.commands) + "\n```\n"
    return text


def _card(path: Path, metadata: Mapping[str, str]) -> MatcherCard:
    if metadata.get("format") != _FORMAT:
        raise WeightsError(
            f"{path} holds no matcher: expected format {_FORMAT} in its metadata, found "
            f"{metadata.get('format')!r}"
        )
    card = card_of(MatcherCard, metadata, _TEXTS, path)
    shape = card.shape
    possible = (
        1 <= shape.descriptor_dim <= _LARGEST.descriptor_dim
        and HEAD_WIDTH <= shape.width <= _LARGEST.width
        and shape.width % HEAD_WIDTH == 0
        and 1 <= shape.layers <= _LARGEST.layers
    )
    if not possible:
        raise WeightsError(f"{path}: the card in its metadata has an impossible size: {shape}")
    return card


def _text(value: JsonValue) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
