"""Converted networks that several test modules read: a conversion takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

from spslam.config import FeatureConfig
from spslam.frontend.engines.onnx_points import convert_points
from spslam.frontend.superpoint.checkpoints import load_superpoint
from spslam.frontend.superpoint.superpoint import SuperPoint


def model_with_points(folder: Path) -> tuple[SuperPoint, FeatureConfig, bytes]:
    """The default network, settings and the ONNX file of both, made by the first who asks.

    Args:
        folder: the folder that the processes of a session share.
    """
    network, config = load_superpoint(), FeatureConfig(max_keypoints=150, spread_cell=32)
    path = folder / "points.onnx"
    if not path.exists():
        part = folder / f"points-{os.getpid()}.onnx"
        part.write_bytes(convert_points(network, config))
        part.replace(path)
    return network, config, path.read_bytes()
