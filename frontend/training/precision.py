"""In which precision networks run while they are trained and while they label."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def autocast(device: torch.device | str, precision: Precision) -> AbstractContextManager[Any]:
    """A context in which networks run in `precision`; `auto` is bf16 where the device has instructions for it."""
    if resolve_precision(device, precision) == "bf16":
        return torch.autocast(torch.device(device).type, torch.bfloat16)
    return nullcontext()


def resolve_precision(device: torch.device | str, precision: Precision) -> Literal["fp32", "bf16"]:
    """What `precision` means on a device."""
    if precision == "auto":
        return "bf16" if has_bf16(torch.device(device).type) else "fp32"
    return precision


def has_bf16(kind: str) -> bool:
    """Whether a `cpu` or `cuda` device multiplies bf16 numbers itself; where it does not, bf16 is slower than fp32."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not in every version of PyTorch.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(supported())
