"""Read recordings as frames: KITTI, TUM RGB-D, EuRoC, image folders, videos, built-in worlds."""

from .base import BaseSequence
from .euroc import left_camera_ground_truth
from .factory import SENSORS, dataset_names, open_sequence
from .images.pictures import read_pictures
from .live.address import read_camera
from .live.kinds import is_live

__all__ = [
    "SENSORS",
    "BaseSequence",
    "dataset_names",
    "is_live",
    "left_camera_ground_truth",
    "open_sequence",
    "read_camera",
    "read_pictures",
]
