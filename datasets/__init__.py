"""Read recordings as frames: KITTI, TUM RGB-D, EuRoC, image folders, videos, bags, worlds."""

from .base import BaseSequence
from .euroc import left_camera_ground_truth
from .factory import SENSORS, dataset_names, open_sequence
from .images.pictures import read_camera, read_pictures

__all__ = [
    "SENSORS",
    "BaseSequence",
    "dataset_names",
    "left_camera_ground_truth",
    "open_sequence",
    "read_camera",
    "read_pictures",
]
