"""Recordings as frames: KITTI, TUM RGB-D, EuRoC, image folders, videos and the built-in rendered worlds."""

from .opening import DATASETS, SENSORS, open_sequence
from .pictures import read_camera, read_pictures

__all__ = ["DATASETS", "SENSORS", "open_sequence", "read_camera", "read_pictures"]
