"""Precision of networks in training and labelling."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def autocast(device: torch.device | str, precision: Precision) -> AbstractContextManager[Any]:
    """Return a context that runs networks in `precision`; `auto`: bf16 if the device has it."""
    if resolve_precision(device, precision) == "bf16":
        return torch.autocast(torch.device(device).type, torch.bfloat16)
    return nullcontext()


def resolve_precision(device: torch.device | str, precision: Precision) -> Literal["fp32", "bf16"]:
    """Return the precision that `precision` stands for on a device."""
    if precision == "auto":
        return "bf16" if has_bf16(torch.device(device).type) else "fp32"
    return precision


def has_bf16(kind: str) -> bool:
    """Return whether `cpu` or `cuda` has bf16 instructions; without them fp32 is faster."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Missing in some versions of PyTorch.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())
