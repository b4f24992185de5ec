"""All formats that are written, and what each can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from spslam.camera import Camera

from . import basalt, colmap, euroc_sensor, kalibr, nerfstudio, open3d, opencv, orb_slam, ros
from .registry import OUR_KEYS

if TYPE_CHECKING:
    from ..calibration import Calibration


@dataclass(frozen=True)
class _Writer:
    """A format that is written.

    Attributes:
        write: returns the text of each file, by its path.
        holds: what it holds besides one camera: `pair`, `fps`, `depth_scale`, `readout_s`,
            `bayer`, `mask`.
        what: its name in messages.
    """

    write: Callable[[Calibration, Path], dict[Path, str]]
    holds: tuple[str, ...] = ()


def _one(write: Callable[[Calibration], str]) -> Callable[[Calibration, Path], dict[Path, str]]:
    return lambda calibration, out: {out: write(calibration)}


def write_ours(calibration: Calibration) -> str:
    """Write our own format; the paths of masks are absolute."""
    values = _our_camera(calibration.camera, calibration.fps)
    masks = calibration.masks
    for key in ("depth_scale", "bayer"):
        if getattr(calibration, key) is not None:
            values[key] = getattr(calibration, key)
    if masks is not None and masks.left is not None:
        values["mask"] = str(masks.left.resolve())
    if calibration.right is not None and calibration.T_left_right is not None:
        values["right"] = _our_camera(calibration.right, None)
        if masks is not None and masks.right is not None:
            values["right"]["mask"] = str(masks.right.resolve())
        values["T_left_right"] = calibration.T_left_right.tolist()
    return yaml.safe_dump(values, default_flow_style=None, sort_keys=False, width=1000)


def _our_camera(camera: Camera, fps: float | None) -> dict[str, Any]:
    values: dict[str, Any] = {key: getattr(camera, key) for key in OUR_KEYS}
    if fps is not None:
        values["fps"] = fps
    if camera.readout_s:
        values["readout_s"] = camera.readout_s
    if camera.distortion_model != "none":
        values["distortion"] = {
            "model": str(camera.distortion_model),
            "coefficients": list(camera.distortion),
        }
    return values


WRITERS: dict[str, _Writer] = {
    "spslam": _Writer(
        _one(write_ours), ("pair", "fps", "depth_scale", "readout_s", "bayer", "mask")
    ),
    "basalt": _Writer(_one(basalt.write_basalt), ("pair",)),
    "colmap": _Writer(_one(colmap.write_colmap)),
    "euroc": _Writer(euroc_sensor.write_euroc_sensor, ("pair", "fps")),
    "kalibr": _Writer(_one(kalibr.write_kalibr), ("pair",)),
    "nerfstudio": _Writer(_one(nerfstudio.write_nerfstudio)),
    "open3d": _Writer(_one(open3d.write_open3d)),
    "opencv": _Writer(lambda given, out: {out: opencv.write_opencv(given, out)}, ("pair",)),
    "orbslam3": _Writer(_one(orb_slam.write_orb_slam3), ("pair", "fps", "depth_scale")),
    "ros": _Writer(ros.write_ros, ("pair",)),
}


def write_calibration(
    calibration: Calibration, name: str, out: Path
) -> tuple[dict[Path, str], list[str]]:
    """Return the files of a calibration in another format, and what the format does not hold.

    Args:
        calibration: the calibration.
        name: a key of `WRITERS`.
        out: the file to write; a pair of ROS or EuRoC takes a second one, named after it.

    Raises:
        CalibrationError: the format has no such lens, or cannot hold the pair.
    """
    writer = WRITERS[name]
    there = {
        "readout_s": calibration.camera.readout_s or None,
        "fps": calibration.fps,
        "depth_scale": calibration.depth_scale,
        "bayer": calibration.bayer,
        "mask": calibration.masks,
    }
    lost = [key for key, value in there.items() if value is not None and key not in writer.holds]
    if calibration.right is not None and "pair" not in writer.holds:
        lost.append("T_left_right" if name == "colmap" else "right and T_left_right")
    return writer.write(calibration, out), lost
