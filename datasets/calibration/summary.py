"""Describe a calibration in numbers that a person can check."""

from __future__ import annotations

from typing import Any

import numpy as np

from spslam.camera import Camera

from .calibration import Calibration
from .rectify import rectified_camera


def summarize(calibration: Calibration) -> dict[str, Any]:
    """Return what a calibration says, as values for JSON.

    Keys: `file`, `kind`, `sensor`, the keys of `describe_camera` for the left or only camera;
    `fps`, `depth_scale`, `bayer` and `mask` where the file gives them; of a pair `right`,
    `baseline_m`, `rectified` and `T_left_right`.
    """
    summary: dict[str, Any] = {
        "file": str(calibration.path),
        "kind": calibration.kind,
        "sensor": "mono" if calibration.depth_scale is None else "rgbd",
        **describe_camera(calibration.camera),
        "fps": calibration.fps,
        "depth_scale": calibration.depth_scale,
        "bayer": calibration.bayer,
        "mask": _mask(calibration, "left"),
    }
    right, T = calibration.right, calibration.T_left_right
    if right is not None and T is not None:
        summary |= {
            "sensor": "stereo",
            "baseline_m": float(np.linalg.norm(T[:3, 3])),
            "rectified": rectified_camera(calibration.camera, right, T) is not None,
            "T_left_right": T.tolist(),
            "right": {**describe_camera(right), "mask": _mask(calibration, "right")},
        }
    return summary


def _mask(calibration: Calibration, side: str) -> str | None:
    path = None if calibration.masks is None else getattr(calibration.masks, side)
    return None if path is None else str(path)


def describe_camera(camera: Camera) -> dict[str, Any]:
    """Return size, intrinsics, lens, fields of view and distortion of one camera.

    Returns:
        `width`, `height`, `fx`, `fy`, `cx`, `cy` (pixels), `distortion_model`, `distortion`,
        `readout_s`; `fov_deg` (horizontal, vertical, diagonal; None where the lens model does not
        reach the edge); `corner_distortion_px`, the largest distance of a corner from where an
        ideal lens would show it (None where an ideal lens shows nothing).
    """
    ideal = camera.undistort(_corners(camera))
    moved = np.linalg.norm(ideal - _corners(camera), axis=1)
    return {
        **{key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")},
        "distortion_model": str(camera.distortion_model),
        "distortion": list(camera.distortion),
        "readout_s": camera.readout_s,
        "fov_deg": _fields_of_view(camera),
        "corner_distortion_px": float(moved.max()) if np.isfinite(moved).all() else None,
    }


def _corners(camera: Camera) -> np.ndarray:
    right, bottom = camera.width - 1.0, camera.height - 1.0
    return np.array([[0.0, 0.0], [right, 0.0], [0.0, bottom], [right, bottom]])


def _fields_of_view(camera: Camera) -> list[float | None]:
    """Return the horizontal, vertical and diagonal field of view, degrees."""
    # From edge to edge of the image, half a pixel beyond the centres of its pixels.
    left, right, top, bottom = -0.5, camera.width - 0.5, -0.5, camera.height - 0.5
    middle = ((left + right) / 2, (top + bottom) / 2)
    ends = np.array(
        [
            *((left, middle[1]), (right, middle[1]), (middle[0], top), (middle[0], bottom)),
            *((left, top), (right, bottom)),
        ]
    )
    rays = camera.lens_rays(ends)
    angles = np.arctan2(np.hypot(rays[:, 0], rays[:, 1]), rays[:, 2])
    fields: list[float | None] = []
    for first in (0, 2, 4):
        # The ends of a cropped image may lie on one side of the axis.
        opposite = rays[first, :2] @ rays[first + 1, :2] <= 0
        field = angles[first] + angles[first + 1] if opposite else np.ptp(angles[first : first + 2])
        fields.append(float(np.degrees(field)) if np.isfinite(field) else None)
    return fields
