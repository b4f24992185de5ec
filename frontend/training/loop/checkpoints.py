"""Checkpoints of a training: written atomically, read as tensors and plain values only."""

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

# State of an unfinished training, in the folder of the stage.
CHECKPOINT = "checkpoint.pt"
# Averaged weights of the best validation, in the folder of the stage.
BEST = "best.pt"
# Configuration sections that may change when a training is resumed: they do not affect a step.
_FREE_SECTIONS = ("schedule", "loading")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training checkpoint; only tensors and plain values are unpickled.

    Raises:
        TrainingError: the file is missing, damaged or not a checkpoint.
    """
    try:
        # Check sizes and checksums, which PyTorch does not.
        PickledFile(path).check()
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"found no checkpoint at {path}") from None
    except WeightsError as error:
        if not path.exists():
            raise TrainingError(f"found no checkpoint at {path}") from None
        raise TrainingError(
            f"{path} is no readable checkpoint ({error}): remove it to start again"
        ) from None
    except Exception as error:
        # The unpickler can raise any error for foreign bytes.
        raise TrainingError(
            f"{path} is no readable checkpoint ({type(error).__name__}): remove it to start again"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("network"), dict):
        raise TrainingError(
            f"{path} is no training checkpoint: expected a file with the weights of a network"
        )
    for name in ("network", "average", "best"):
        for key, value in (state.get(name) or {}).items():
            if (
                not isinstance(value, torch.Tensor)
                or value.layout != torch.strided
                or value.is_meta
            ):
                raise TrainingError(
                    f"{path}: {name}.{key} is no dense tensor: remove the file to start again"
                )
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise TrainingError(
                    f"{path}: {name}.{key} has NaN or infinite values: "
                    "remove the file to start again"
                )
    return state


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; an interrupted call keeps the old file.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, buffer.getvalue())


def settings_that_differ(written: str, now: Mapping[str, Any]) -> list[str]:
    """Return the keys that affect a step and differ between YAML and a configuration of today."""
    before = yaml.safe_load(written) or {}
    return sorted(
        f"{section}.{key}" if key else section
        for section in {*before, *now} - set(_FREE_SECTIONS)
        for key in _differing(before.get(section), now.get(section))
    )


def _differing(before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [key for key in {*before, *now} if before.get(key) != now.get(key)]
    return [] if before == now else [""]
