"""Checkpoints of a training: written whole, read without unpickling anything but tensors and plain values."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from spslam.errors import TrainingError, WeightsError
from spslam.io.files import write_atomic

from ...superpoint.pickled_tensors import PickledFile
from ..config import TrainingConfig

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
# Sections of the configuration that may differ when training goes on: they do not change what a step computes.
_FREE_SECTIONS = ("schedule", "loading")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training checkpoint; nothing but tensors and plain values is unpickled.

    Raises:
        TrainingError: the file is missing, damaged or no checkpoint.
    """
    try:
        # Its sizes and checksums, which PyTorch does not look at.
        PickledFile(path).check()
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"no checkpoint at {path}") from None
    except WeightsError as error:
        if not path.exists():
            raise TrainingError(f"no checkpoint at {path}") from None
        raise TrainingError(
            f"{path} is no readable checkpoint ({error}): remove it to start anew"
        ) from None
    except Exception as error:
        # Bytes of another kind make the unpickler fail in any way.
        raise TrainingError(
            f"{path} is no readable checkpoint ({type(error).__name__}): remove it to start anew"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("network"), dict):
        raise TrainingError(
            f"{path} is no training checkpoint: expected the weights of a network in it"
        )
    for name in ("network", "average", "best"):
        for key, value in (state.get(name) or {}).items():
            if (
                not isinstance(value, torch.Tensor)
                or value.layout != torch.strided
                or value.is_meta
            ):
                raise TrainingError(
                    f"{path}: {name}.{key} is no dense tensor: remove the file to start anew"
                )
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise TrainingError(
                    f"{path}: {name}.{key} holds numbers that are NaN or infinite: start anew"
                )
    return state


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; an interrupted call leaves the old one.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, buffer.getvalue())


def changed_settings(written: str, config: TrainingConfig) -> list[str]:
    """Keys that decide about a step and differ between a written configuration (YAML) and this one."""
    before, now = yaml.safe_load(written) or {}, config.model_dump(mode="json")
    return sorted(
        f"{section}.{key}" if key else section
        for section in {*before, *now} - set(_FREE_SECTIONS)
        for key in _differing(before.get(section), now.get(section))
    )


def _differing(before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [key for key in {*before, *now} if before.get(key) != now.get(key)]
    return [] if before == now else [""]
