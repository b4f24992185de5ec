"""The small built-in world written to disk as an image folder, with optional changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from spslam.datasets.world.world import RenderedWorld, world_spec
from spslam.evaluation.ate import evaluate
from spslam.frame import Frame
from spslam.trajectory import read_tum

Image = np.ndarray
CAMERA = RenderedWorld(world_spec("demo-small")).camera


@cache
def world() -> RenderedWorld:
    return RenderedWorld(world_spec("demo-small"), "stereo")


@cache
def world_frame(index: int) -> Frame:
    """A stereo frame of demo-small."""
    return world()[index]


@cache
def world_depth(index: int) -> np.ndarray:
    """Exact depth of a frame, metres."""
    return world().depth(index)


def bits(count: int) -> Callable[[Image], Image]:
    """Convert 8-bit images to those of a camera with `count` bits."""
    return lambda image: np.rint(image * ((2.0**count - 1) / 255.0)).astype(np.uint16)


def band(low: int, high: int) -> Callable[[Image], Image]:
    """Convert 8-bit images to those of a thermal camera: `low` for black, `high` for white."""
    return lambda image: np.rint(low + image * ((high - low) / 255.0)).astype(np.uint16)


def millimetres(index: int) -> np.ndarray:
    return np.rint(world_depth(index) * 1000.0).astype(np.uint16)


def write_world(
    folder: Path,
    sensor: str,
    frames: int,
    left: Callable[[int], Image] = lambda index: world_frame(index).image,
    right: Callable[[int], Image | None] = lambda index: world_frame(index).image_right,
    depth: Callable[[int], np.ndarray] = millimetres,
    suffix: str = ".png",
    **calibration: Any,
) -> Path:
    """Write frames of demo-small; `left`, `right` and `depth` return the images of a frame."""
    camera = {
        key: getattr(CAMERA, key) for key in ("width", "height", "fx", "fy", "cx", "cy", "fps")
    }
    values: dict[str, Any] = camera | calibration
    if sensor == "stereo":
        T_left_right = np.eye(4)
        T_left_right[0, 3] = CAMERA.baseline_m
        values |= {"right": camera, "T_left_right": T_left_right.tolist()}
    folder.mkdir(parents=True)
    (folder / "calibration.yaml").write_text(yaml.safe_dump(values))
    for index in range(frames):
        _write(folder / "left" / f"{index:06d}.png", left(index))
        if sensor == "stereo":
            _write(folder / "right" / f"{index:06d}.png", right(index))
        if sensor == "rgbd":
            _write(folder / "depth" / f"{index:06d}{suffix}", depth(index))
    return folder


def error_of(run: Path, sensor: str) -> float:
    """RMSE of the positions of a run, metres."""
    truth = world().ground_truth
    assert truth is not None
    found = read_tum(run / "trajectory.tum")
    return evaluate(found, truth, "sim3" if sensor == "mono" else "se3").absolute.statistics.rmse


def _write(path: Path, image: Image | None) -> None:
    assert image is not None
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
    else:
        assert cv2.imwrite(str(path), image)
