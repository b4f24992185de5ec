"""Read recordings as frames: KITTI, TUM RGB-D, EuRoC, image folders, videos, bags, worlds."""

from .base import BaseSequence
from .euroc import left_camera_ground_truth
from .factory import SENSORS, dataset_names, is_live, open_sequence
from .images.pictures import read_pictures
from .live.address import read_camera
from .masks.auto import auto_masked, write_masks

__all__ = [
    "SENSORS",
    "BaseSequence",
    "auto_masked",
    "dataset_names",
    "is_live",
    "left_camera_ground_truth",
    "open_sequence",
    "read_camera",
    "read_pictures",
    "write_masks",
]
