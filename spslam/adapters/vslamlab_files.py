"""The settings of spslam in VSLAM-LAB, and the trajectory that VSLAM-LAB evaluates."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError, ConfigError
from spslam.io.files import write_atomic
from spslam.notices import notice

if TYPE_CHECKING:
    from spslam.datasets.vslamlab import StampedSequence

_LOG = logging.getLogger(__name__)

# Headings of the trajectory by the unit of the stamps.
_HEADINGS = {
    "ns": "ts (ns),tx (m),ty (m),tz (m),qx,qy,qz,qw",
    "s": "timestamp,tx,ty,tz,qx,qy,qz,qw",
}
# Values of the key `trajectory` in the settings.
_TRAJECTORIES = ("frames", "keyframes")


@dataclass(frozen=True)
class Settings:
    """The content of the settings file; every key may be missing.

    Attributes:
        cam_mono, cam_rgbd: name of the camera.
        cam_stereo: names of the left and the right camera.
        config: built-in configuration or YAML file.
        weights: weights of SuperPoint; None: those of the configuration.
        set: changes of the configuration, key: value.
        trajectory: `frames` or `keyframes`: which poses VSLAM-LAB gets.
        outputs: further results of `spslam run` to write, separated by commas.
    """

    cam_mono: str = "rgb_0"
    cam_rgbd: str = "rgb_0"
    cam_stereo: tuple[str, str] = ("rgb_0", "rgb_1")
    config: str = "default"
    weights: str | None = None
    set: tuple[str, ...] = ()
    trajectory: str = "frames"
    outputs: str = "trajectory"

    def cameras(self, mode: str) -> tuple[str, ...]:
        """Return the names of the cameras of a mode."""
        names = {"mono": (self.cam_mono,), "rgbd": (self.cam_rgbd,), "stereo": self.cam_stereo}
        return names[mode]


def read_settings(path: Path | None) -> Settings:
    """Read the settings; the defaults without a file.

    Raises:
        ConfigError: the file is no YAML, or has an unknown key or a value of another type.
    """
    from spslam.datasets.calibration.yaml_text import parse_yaml, read_text

    if path is None or not path.is_file():
        if path is not None:
            notice(_LOG, "no_settings", "%s: there is no such file; the defaults are used", path)
        return Settings()
    try:
        values = parse_yaml(read_text(path)) or {}
    except CalibrationError as error:
        raise ConfigError(f"settings {path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"settings {path}: expected keys and values")
    return replace(Settings(), **{str(key): _setting(path, key, values[key]) for key in values})


def _setting(path: Path, key: Any, value: Any) -> Any:
    known = Settings.__dataclass_fields__
    if key not in known:
        raise ConfigError(f"settings {path}: unknown key {key}, expected {', '.join(known)}")
    if key == "set":
        if not isinstance(value, dict | None):
            raise ConfigError(f"settings {path}: set must hold keys and values of a configuration")
        # A JSON value is also a YAML value.
        return tuple(f"{name}={json.dumps(setting)}" for name, setting in (value or {}).items())
    if key == "cam_stereo":
        if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
            return tuple(value)
        raise ConfigError(f"settings {path}: cam_stereo must be two names, found {value!r}")
    if key == "trajectory" and value not in _TRAJECTORIES:
        raise ConfigError(
            f"settings {path}: trajectory must be {' or '.join(_TRAJECTORIES)}, found {value!r}"
        )
    if not isinstance(value, str) and not (key == "weights" and value is None):
        raise ConfigError(f"settings {path}: {key} must be a text, found {value!r}")
    return value


def write_trajectory(path: Path, poses: Path, sequence: StampedSequence) -> int:
    """Write the poses of a run as VSLAM-LAB's evaluation reads them.

    A heading, then stamp, position and quaternion of each pose, separated by commas. Poses are
    copied digit by digit. The stamps are those of the list: nanoseconds since 1970 as floats of
    seconds would lose digits.

    Args:
        path: the file, `ITERATION_KeyFrameTrajectory.csv`.
        poses: `trajectory.tum` or `keyframes.tum` of a run of the sequence.
        sequence: the sequence.

    Returns:
        The number of poses.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = poses.read_text(encoding="utf-8").splitlines()
    cells = [line.split() for line in lines if not line.startswith("#")]
    seconds = np.array([float(row[0]) for row in cells])
    rows = _nearest(sequence.frames.timestamps, seconds)
    heading = _HEADINGS["s" if sequence.unit == "s" else "ns"].replace("ns", sequence.unit)
    table = [
        ",".join([sequence.stamps[row], *pose[1:]]) for row, pose in zip(rows, cells, strict=True)
    ]
    write_atomic(path, "\n".join([heading, *table]) + "\n")
    return len(table)


def _nearest(times: NDArray[np.float64], wanted: NDArray[np.float64]) -> list[int]:
    """Return the row of the nearest of increasing times (N,) for each wanted one (M,), seconds."""
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    nearer = np.abs(times[before] - wanted) < np.abs(times[after] - wanted)
    rows: list[int] = np.where(nearer, before, after).tolist()
    return rows
