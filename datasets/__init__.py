"""Recordings as frames: KITTI, TUM RGB-D, EuRoC, image folders, videos and the built-in rendered worlds."""

from .euroc import left_camera_ground_truth
from .factory import DATASETS, SENSORS, open_sequence
from .images.pictures import read_camera, read_pictures

__all__ = ["DATASETS", "SENSORS", "left_camera_ground_truth", "open_sequence", "read_camera", "read_pictures"]
